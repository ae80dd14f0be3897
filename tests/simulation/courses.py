"""Course: a history made by hand: what is asked becomes entries, and the model's answers are told,
unless a lie is told in their place. One caller, "caller"; a moment is 10 ms."""

from raftnet.config import MachineConfig
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Membership, encode_membership
from raftnet.simulation.reference import Reference
from raftnet.simulation.watchhistory import WatchRecord
from raftnet.simulation.workhistory import WorkHistory
from raftnet.wire import commands, requests
from raftnet.wire.requests import INTERNAL_SESSION, Reply
from raftnet.wire.watches import Change, Watch, WatchEvent

A, B, C = b"A" * 16, b"B" * 16, b"C" * 16
STEP_MS = 10


class Course:
    """Model and history side by side. `now_ms` is the clock outside, and the replicated one."""

    def __init__(self, config: MachineConfig | None = None):
        config = config or MachineConfig()
        self.model = Reference(config)
        self.history = WorkHistory(config)
        self.now_ms = 1_000
        self._sequences: dict[bytes, int] = {}
        self._commit(EntryKind.MEMBERSHIP,
                     encode_membership(Membership(bytes(16), (), state_version=2)))

    @property
    def index(self) -> int:
        """Of the newest entry."""
        return self.model.index

    def _commit(self, kind: EntryKind, payload: bytes) -> list:
        entry = encode_entry(self.index + 1, 1, kind, payload)
        self.history.committed(entry, self.now_ms)
        return self.model.apply(entry)

    def wait(self, duration_ms: int) -> list:
        """Time passes, and an entry says so: what was answered by it."""
        self.now_ms += duration_ms
        body = requests.encode_request(INTERNAL_SESSION, 1, 0, [commands.encode_time()])
        return self._commit(EntryKind.BATCH, commands.encode_batch(self.now_ms, [body]))

    def ask(self, *pieces: bytes, session: bytes = A, lie: list | None = None,
            committed_ms: int | None = None, sequence: int | None = None) -> list:
        """One request: asked, committed and answered at three moments; with `sequence`, once more.
        The results that are told (`lie`, or the model's); [] where it waits."""
        first = sequence or self._sequences.get(session, 0) + 1
        self._sequences[session] = max(first + len(pieces) - 1, self._sequences.get(session, 0))
        self.now_ms += 1
        for offset, piece in enumerate(pieces if sequence is None else ()):
            self.history.asked(session, first + offset, piece, self.now_ms)
        asked_ms = self.now_ms
        self.now_ms = asked_ms + STEP_MS if committed_ms is None else committed_ms
        body = requests.encode_request(session, first, first - 1, list(pieces))
        given = self._commit(EntryKind.BATCH, commands.encode_batch(asked_ms + STEP_MS, [body]))
        self.now_ms = asked_ms + 2 * STEP_MS
        told = []
        for answered in given:
            mine = (answered.session, answered.first) == (session, first)
            results = answered.told if lie is None or not mine else lie
            told = results if mine else told
            self.tell(answered.session, answered.first, results)
        return told

    def tell(self, session: bytes, first: int, results: list) -> None:
        """A reply, now."""
        self.history.answered("caller", session, Reply(first, len(results), results=results),
                              self.now_ms)

    def read(self, command: bytes, lie: tuple | None = None, index: int | None = None,
             asked_ms: int | None = None, local: bool = False) -> tuple:
        """A read of this moment's state."""
        answer = self.model.read(command) if lie is None else lie
        self.now_ms += 1 + STEP_MS
        self.history.read("caller", command, local,
                          (self.index if index is None else index, *answer),
                          self.now_ms - STEP_MS if asked_ms is None else asked_ms, self.now_ms)
        return answer

    def watch(self, what: int, name: bytes, from_index: int = 0,
              local: bool = False) -> WatchRecord:
        """A watch, asked now."""
        self.now_ms += 1
        record = WatchRecord("watcher", "node", Watch(local, what, from_index, name), self.now_ms)
        self.history.watches.records.append(record)
        return record

    def event(self, record: WatchRecord, *changes: tuple, index: int | None = None) -> None:
        """What a watch is told, now."""
        self.now_ms += STEP_MS
        record.events.append((WatchEvent(self.index if index is None else index,
                                         [Change(*change) for change in changes]), self.now_ms))
