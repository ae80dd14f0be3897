"""Reference: the whole replicated state machine, naively: entries, sessions, waits, lists, time.

It gives to each committed entry the answers that a cluster must give, and to each read the answer
that it must give at that index. It shares no code with raftnet/machine; what the commands do is in
referencestate.py and referencequeues.py. Nothing here is fast; everything is meant to be read.
"""

from dataclasses import dataclass, field

from raftnet.config import MachineConfig
from raftnet.errors import ErrorCode, MalformedError
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import decode_membership
from raftnet.simulation.referencestate import Result, State, Wait
from raftnet.wire import commands, queueresults, requests, transactions
from raftnet.wire.commands import OPERATION_SINCE, Operation, Status
from raftnet.wire.queueresults import Outcome
from raftnet.wire.requests import INTERNAL_SESSION, NO_SESSION
from raftnet.wire.watches import encode_sizes

_RECEIPT_OPERATIONS = (Operation.ACK, Operation.NACK, Operation.EXTEND)
_LIST_OPERATIONS = (Operation.EXECUTE, Operation.TRANSACT)
# What undoes a list, which has the same status then; and what makes it ABORTED (STALE: any
# receipt is).
_FAILS = (Status.MALFORMED, Status.UNKNOWN, Status.LIMIT, Status.REPLY_FULL)
_ABORTS = (Status.STALE, Status.FULL, Status.CONFLICT, Status.IN_USE)
_READS = (Operation.PEEK, Operation.SIZE, Operation.QUEUES, Operation.DESCRIBE, Operation.LEASES,
          Operation.INSPECT, Operation.KV_GET, Operation.KV_LIST)


@dataclass(slots=True)
class Answered:
    """What one request was answered, and by which entry."""

    session: bytes
    first: int
    told: list[Result]      # of each command; or only (-code, nothing): the request is refused
    index: int
    leased_before: set[int]     # ids of the messages that were with somebody before that entry


@dataclass(slots=True)
class _Session:
    """How far a session has come, and what is kept for its retries."""

    last: int = 0
    used_ms: int = 0
    # first sequence -> (count, what was told; None: it waits)
    kept: dict[int, tuple[int, list[Result] | None]] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return any(told is None for _, told in self.kept.values())


class Reference:
    """The state of the cluster as of `index`."""

    def __init__(self, config: MachineConfig):
        self.index = 0
        self.version = 1                # of the replicated state
        self.state = State(config)
        self._config = config
        self._sessions: dict[bytes, _Session] = {}      # the longest unused first
        self._answered: list[Answered] = []
        self._leased_before: set[int] = set()

    def apply(self, entry: Entry) -> list[Answered]:
        """All answers that the next entry gives, also to those that waited."""
        assert entry.index == self.index + 1
        self.index = self.state.index = entry.index
        self._answered = []
        self._leased_before = self.leased()
        if entry.kind == EntryKind.MEMBERSHIP:
            self.version = max(self.version, decode_membership(entry.payload).state_version)
        elif entry.kind == EntryKind.BATCH:
            self._apply_batch(entry.payload)
            self.state.check()
        return self._answered

    def read(self, command: bytes) -> Result:
        """A read, its length before it; changes nothing."""
        (command,) = commands.split_commands(command, 0)
        if self._operation(command) not in _READS:
            return int(Status.UNKNOWN), b""
        return self._perform(command)

    def ids_of(self, names: tuple[bytes, ...]) -> list[int]:
        """The ids of all messages that came into these queues."""
        return sorted(number for number, name in self.state.came.items() if name in names)

    def sizes(self, name: bytes) -> tuple[int, bytes]:
        """What who watches a queue is told: how many are ready, and the rest."""
        state = self.state
        queue = state.queue(name)
        return len(queue.ready), encode_sizes(len(state.leased(name)), len(queue.delayed),
                                              sum(len(m.body) for m in queue.ready))

    def leased(self) -> set[int]:
        """The ids of the messages that are with somebody."""
        return {lease.message.id for lease in self.state.leases.values()}

    def _apply_batch(self, payload: bytes) -> None:
        stamp_ms = commands.batch_stamp(payload)
        assert stamp_ms >= self.state.now_ms, "replicated time never goes back"
        self.state.now_ms = stamp_ms
        self.state.end_waits()
        self.state.expire()
        self.state.expire_keys()
        self.state.serve()
        self._complete()
        self._expire_sessions()
        for body in commands.decode_batch(payload):
            session, first, acknowledged, count = requests.decode_request_head(body)
            pieces = commands.split_commands(body, requests.REQUEST_HEAD_BYTES)
            assert len(pieces) == count, "simulated clients send whole requests"
            if session == INTERNAL_SESSION:
                for piece in pieces:
                    self._perform_internal(piece)
            elif session == NO_SESSION:
                self._perform_all(pieces)
            else:
                self._apply_request(session, first, acknowledged, pieces)
            self._complete()

    # --- sessions

    def _apply_request(self, name: bytes, first: int, acknowledged: int,
                       pieces: list[bytes]) -> None:
        """Exactly the next request of its session is performed; the others are told why not."""
        session = self._sessions.get(name)
        if session is None:
            if first != 1:
                self._answer(name, first, [(-ErrorCode.SESSION_EXPIRED, b"")])
                return
            session = self._sessions[name] = _Session()
        self._use(name)
        if first > session.last + 1:
            self._answer(name, first, [(-ErrorCode.OUT_OF_ORDER, b"")])
        elif first <= session.last:
            count, told = session.kept.get(first, (0, None))
            if count != len(pieces):
                self._answer(name, first, [(-ErrorCode.ALREADY_ACKNOWLEDGED, b"")])
            elif told is not None:
                self._answer(name, first, told)
        else:
            self._forget_acknowledged(session, acknowledged)
            session.last += len(pieces)
            told = self._perform_request(name, first, pieces)
            session.kept[first] = len(pieces), told
            if told is not None:
                self._answer(name, first, told)
            if any(self._operation(piece) == Operation.CLOSE for piece in pieces):
                self._close(name, session)

    def _use(self, name: bytes) -> None:
        """Its time begins anew."""
        session = self._sessions.pop(name)
        session.used_ms = self.state.now_ms
        self._sessions[name] = session

    def _forget_acknowledged(self, session: _Session, acknowledged: int) -> None:
        """From the front, what was received; one that waits was not, nor what is behind it."""
        for first in sorted(session.kept):
            count, told = session.kept[first]
            if told is None or first + count - 1 > acknowledged:
                break
            del session.kept[first]

    def _close(self, name: bytes, session: _Session) -> None:
        """A wait that is still open is cancelled, and nothing is kept."""
        self._complete()
        for wait in [wait for wait in self.state.waits if wait.session == name]:
            self.state.end_wait(wait, (int(Status.CANCELLED), b""))
        self._complete()
        session.kept.clear()

    def _expire_sessions(self) -> None:
        expired = []
        for name, session in self._sessions.items():
            if session.used_ms + self._config.session_expiry_ms > self.state.now_ms:
                break
            if not session.waits:
                expired.append(name)
        for name in expired[:self._config.expiries_per_entry_max]:
            del self._sessions[name]

    def _answer(self, session: bytes, first: int, told: list[Result]) -> None:
        self._answered.append(Answered(session, first, told, self.index, self._leased_before))

    def _complete(self) -> None:
        """Answer the waits that have ended."""
        for wait, result in self.state.ended:
            session = self._sessions[wait.session]
            session.kept[wait.first] = 1, [result]
            self._use(wait.session)
            self._answer(wait.session, wait.first, [result])
        self.state.ended = []

    # --- requests

    def _operation(self, command: bytes) -> int:
        """0 where there is none, or one that is newer than the replicated state."""
        operation = command[0] if command else 0
        return operation if OPERATION_SINCE.get(operation, 1) <= self.version else 0

    def _perform_request(self, session: bytes, first: int,
                         pieces: list[bytes]) -> list[Result] | None:
        """None: it waits from now on."""
        if len(pieces) == 1 and self._operation(pieces[0]) in (Operation.DEQUEUE, Operation.LEASE):
            try:
                result = self.state.take_or_wait(pieces[0], session, first)
            except MalformedError:
                result = int(Status.MALFORMED), b""
            self.state.serve()
            return None if result is None else [result]
        return self._perform_all(pieces)

    def _perform_all(self, pieces: list[bytes]) -> list[Result]:
        results = []
        for piece in pieces:
            if self._operation(piece) == Operation.CLOSE and len(piece) == 1:
                results.append((int(Status.OK), b""))
            elif self._operation(piece) in _LIST_OPERATIONS:
                results.append(self._perform_list(piece))
            else:
                results.append(self._perform(piece))
            self.state.serve()
        return results

    def _perform(self, command: bytes) -> Result:
        status, action = self._prepare(command)
        return action() if status == Status.OK else (status, action)

    def _prepare(self, command: bytes) -> tuple:
        """(OK, what performs it), or (status, text) where it cannot be performed."""
        operation = self._operation(command)
        try:
            return self.state.prepare(operation, command)
        except MalformedError:
            return int(Status.MALFORMED), b""

    def _perform_internal(self, command: bytes) -> None:
        """The leader's own: to end a wait, or nothing but to carry the time."""
        if command[0] == Operation.CANCEL:
            session, first = commands.decode_cancel(command)
            for wait in self.state.waits:
                if (wait.session, wait.first) == (session, first):
                    self.state.end_wait(wait, (int(Status.CANCELLED), b""))
                    break

    # --- lists

    def _perform_list(self, command: bytes) -> Result:
        """EXECUTE and TRANSACT: all of it, or nothing."""
        try:
            conditions, pieces = (
                transactions.decode_transact(command)
                if self._operation(command) == Operation.TRANSACT
                else ([], commands.decode_execute(command)))
        except MalformedError:
            return int(Status.MALFORMED), b""
        for piece in pieces:
            status, why_not = self._prepare(piece)
            if status != Status.OK:
                return status, why_not
        for position, condition in enumerate(conditions):
            if not self.state.holds(condition):
                return int(Status.CONFLICT), transactions.encode_conflict_result(position)
        before = self.state.copy()
        results = []
        for position, piece in enumerate(pieces):
            status, payload = self._perform(piece)
            if (piece[0] in _RECEIPT_OPERATIONS and status == Status.OK
                    and Outcome.STALE in queueresults.decode_outcomes_result(payload)):
                status = int(Status.STALE)
            if status in _FAILS:
                self.state = before
                return status, payload
            if status in _ABORTS:
                self.state = before
                return int(Status.ABORTED), transactions.encode_aborted_result(
                    position, status, payload)
            results.append((status, payload))
        return int(Status.OK), commands.encode_execute_result(results)
