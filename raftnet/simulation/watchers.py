"""SimulatedWatcher: watches keys, prefixes and queues, one at a time; comes back after failures.

It resumes behind what it was told, at another node or at the same; begins anew where that is gone;
ends watches, leaves without a word, or reads slowly. What it is told goes into watchhistory.py,
which judges it. All chance is the scheduler's.

Frames on its connection come once and in order, as on a real one: what is lost is sent again.
"""

from raftnet.client.session import RETRY_ELSEWHERE, RETRY_HERE
from raftnet.errors import ErrorCode
from raftnet.simulation.caller import THINK_MS, Caller, Connection
from raftnet.simulation.node import SimulatedNode
from raftnet.simulation.watchhistory import WatchRecord
from raftnet.simulation.workers import KEYS, PREFIXES, QUEUES
from raftnet.wire import requests
from raftnet.wire.frames import Kind, encode_frame
from raftnet.wire.watches import (
    Watch, WatchEvent, WatchWhat, decode_watch_event, encode_unwatch, encode_watch)

_ANSWER_WAIT_MS = 1_500
_ROUND_TRIPS = 4
_SEND_AGAIN_MS = 200
_LOOK_MS = 250              # whether the process at the other end is still the same
_ACT_MS_MAX = 5_000         # after this, at most, it does something else
_LOCAL_PERCENT = 50
_SLOW_PERCENT = 20          # of the connections: frames are read late
_SLOW_MS_MAX = 1_500


class _Stream(Connection):
    """A connection whose frames arrive once and in order."""

    __slots__ = ("_unread", "_sent", "_next", "_held", "_late_ms")

    def __init__(self, client: "SimulatedWatcher", node: SimulatedNode, late_ms: int):
        super().__init__(client, node)
        self._sent = self._next = 0             # numbers of frames
        self._unread: dict[int, bytes] = {}
        self._held: dict[int, tuple] = {}       # came before their turn
        self._late_ms = late_ms

    def answer(self, node: SimulatedNode, frame: bytes) -> None:
        """The node sends a frame back."""
        number, self._sent = self._sent, self._sent + 1
        self._unread[number] = frame
        self.backlog += len(frame)
        self._carry(number)

    def _carry(self, number: int) -> None:
        frame, client = self._unread.get(number), self.client
        if frame is None or self.ended:
            return
        client.network.send(self.node.address, client.name, frame,
                            lambda got: client.scheduler.after(
                                self._late_ms, lambda: self._arrive(number, got)))
        wait_ms = _SEND_AGAIN_MS + self._late_ms + client.cluster.round_trip_ms
        client.scheduler.after(wait_ms, lambda: self._carry(number))

    def _arrive(self, number: int, got: tuple | None) -> None:
        if got is None or number not in self._unread or self.ended:
            return
        self.backlog -= len(self._unread.pop(number))
        self._held[number] = got
        if self.is_alive:
            self.node.turn_soon()       # it may send more now
        while self._next in self._held:
            self._next += 1
            self.client.frame(self, self._held.pop(self._next - 1))

    @property
    def is_alive(self) -> bool:
        """Whether the process at the other end is still the same."""
        return self.node.running and self.node.life == self.life


class SimulatedWatcher(Caller):
    """One watcher with one watch at a time."""

    def __init__(self, cluster, number: int):
        self.record: WatchRecord | None = None      # None: it has none, and will ask
        self._watch_id = 0
        self._from_index = 0
        self._ends = False                          # UNWATCH was sent
        self._target = (WatchWhat.KEY, KEYS[0], False)
        super().__init__(cluster, f"watcher{number}")
        self._act_later()

    # --- asking

    def _next(self) -> None:
        """Watch something else, from now on."""
        scheduler = self.scheduler
        what, names = ((WatchWhat.KEY, KEYS), (WatchWhat.PREFIX, PREFIXES),
                       (WatchWhat.QUEUE, QUEUES))[scheduler.randint(0, 2)]
        name = names[scheduler.randint(0, len(names) - 1)]
        self._target = what, name, scheduler.chance(_LOCAL_PERCENT)
        self._from_index = 0
        self._ask_for_it()

    def _ask_for_it(self) -> None:
        if self._connection is None:
            self._connect("")
        if self._connection is None:
            self._later(THINK_MS, self._ask_for_it)
            return
        what, name, local = self._target
        self._progress += 1
        asked = Watch(local, int(what), self._from_index, name)
        self.record = WatchRecord(self.name, self._connection.node.address, asked,
                                  self.scheduler.now_ms)
        self.cluster.work_history.watches.records.append(self.record)
        self._ends = False
        self._watch_id = next(self._request_ids) & 0xFFFFFFFF
        self._carry(encode_frame(Kind.WATCH, self._watch_id, encode_watch(
            local, int(what), self._from_index, name)))
        self._expect_answer()

    def _carry(self, frame: bytes) -> None:
        connection, arrived = self._connection, []

        def arrive(got: tuple | None) -> None:
            if not arrived:         # once: a lost one is missed by its answer
                arrived.append(got)
                connection.node.client_frame(connection, connection.life, got)
        self.network.send(self.name, connection.node.address, frame, arrive)

    def _expect_answer(self) -> None:
        progress = self._progress
        wait_ms = _ANSWER_WAIT_MS + _ROUND_TRIPS * self.cluster.round_trip_ms
        self._later(wait_ms, lambda: progress == self._progress and self._resume())
        self._look(progress)

    def _new_connection(self, node: SimulatedNode) -> Connection:
        late_ms = (self.scheduler.randint(1, _SLOW_MS_MAX)
                   if self.scheduler.chance(_SLOW_PERCENT) else 0)
        return _Stream(self, node, late_ms)

    def _resume(self, leader: str = "") -> None:
        """At another node, or at the leader, from behind what was told."""
        if self.record is not None:
            self._from_index = self.record.told
            self.record = None
        self._leave()
        if leader:
            self._connect(leader)
        self._progress += 1
        self._later(self.scheduler.randint(1, THINK_MS), self._ask_for_it)

    def _look(self, progress: int) -> None:
        """A process that ended takes its connections along."""
        if progress == self._progress and self._connection is not None:
            if self._connection.is_alive:
                self._later(_LOOK_MS, lambda: self._look(progress))
            else:
                self._resume()

    # --- doing something else

    def _act_later(self) -> None:
        self._later(self.scheduler.randint(1, _ACT_MS_MAX), self._act)

    def _act(self) -> None:
        if self.stopping:
            return
        scheduler = self.scheduler
        if self.record is not None and self.record.events and not self._ends:
            if scheduler.chance(30):
                self._ends = True
                self._progress += 1
                self._carry(encode_frame(Kind.UNWATCH, next(self._request_ids) & 0xFFFFFFFF,
                                         encode_unwatch(self._watch_id)))
                self._expect_answer()
            elif scheduler.chance(50):
                self._resume()          # its connection ended, for whatever reason
        self._act_later()

    # --- answers

    def frame(self, connection: Connection, frame) -> None:
        """A frame arrives on a connection."""
        if connection is not self._connection or self.record is None:
            return
        kind, request_id, body = frame
        if request_id != self._watch_id:
            return
        if kind == Kind.WATCH_EVENT:
            self._told(decode_watch_event(body))
            return
        self._expect(kind == Kind.ERROR, f"a frame of kind {kind}")
        code, leader, text = requests.decode_error(body)
        if code == ErrorCode.WATCH_GONE:
            self._gone()
            return
        self._expect(code in RETRY_HERE or code in RETRY_ELSEWHERE, f"{code} {text}")
        self._resume(leader)

    def _told(self, event: WatchEvent) -> None:
        if event.changes is None:
            self._expect(self._ends, "the end of a watch that was not ended")
            self.record = None
            self._progress += 1
            self._later(self.scheduler.randint(0, THINK_MS), self._next)
            return
        self.record.events.append((event, self.scheduler.now_ms))
        if len(self.record.events) == 1:
            self._progress += 1     # it is under way
            self._look(self._progress)

    def _gone(self) -> None:
        node, record = self._connection.node, self.record
        snapshot_index = 1 << 64
        if self._connection.is_alive:
            # also one whose job is under way: the watch ends with the state, before the file
            raft = node.replica.raft
            begun = None if raft is None else raft.snapshot
            snapshot_index = 0 if begun is None else begun.index
        record.gone = snapshot_index, node.config.gateway.watch_ring_changes_max
        self.record, self._from_index = None, 0
        self._progress += 1
        self._later(self.scheduler.randint(1, THINK_MS), self._ask_for_it)

    # --- at the end

    def look_back(self, applied: int) -> None:
        """Everything up to that entry was applied so long ago that it must have been told, if its
        node has it."""
        if (self.record is not None and self.record.events and not self._ends
                and self._connection.is_alive):
            machine = self._connection.node.replica.machine
            self.record.applied = min(applied, machine.applied_index)
