"""Gateway: client requests become one batch a turn, and what was applied becomes replies.

Rules (protocol.md, Sessions): a leader admits of each session exactly the next sequence, lets a
repeated request find its waiter or its kept reply, and refuses the rest; NOT_LEADER means surely
not executed, LEADERSHIP_LOST means unknown. Whether this node leads and may serve is the
Replica's to know. No I/O; a client is any hashable token of its connection.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from raftnet.config import GatewayConfig, WireConfig
from raftnet.errors import ErrorCode, MalformedError
from raftnet.machine.machine import Applied, Machine
from raftnet.weights import weight
from raftnet.wire import commands
from raftnet.wire.frames import Kind
from raftnet.wire.requests import (
    INTERNAL_SESSION, NO_SESSION, decode_request_head, encode_error, encode_request)

ERROR_TEXT_MAX = 1_000      # characters

# (client, request id, kind, body): a frame to send
Answer = tuple[object, int, int, bytes]


@dataclass(slots=True)
class Waiter:
    """Who waits for one request's reply. A retry puts its own connection in the place."""

    client: object          # None: nobody (the leader's own command)
    request_id: int
    session: bytes
    first_sequence: int


@dataclass(slots=True)
class _InFlight:
    """A session with admitted requests that are not applied yet."""

    next_sequence: int
    waiters: dict[int, Waiter]      # by first sequence


class Gateway:
    """One leader's term of service to clients; `close` ends it."""

    def __init__(self, config: GatewayConfig, wire: WireConfig, machine: Machine):
        self._config = config
        self._wire = wire
        self._machine = machine
        # Admitted and not proposed: body, who waits, weight.
        self._bodies: deque[tuple[bytes, Waiter, int]] = deque()
        self.waiting_bytes = self._waiting_weight = 0
        self._proposed: dict[int, tuple[int, list[Waiter]]] = {}    # index -> (term, waiters)
        self._sessions: dict[bytes, _InFlight] = {}
        self._waits: dict[tuple[bytes, int], Waiter] = {}       # dequeues that wait, replicated
        self._live: set = set()                                 # clients that are connected
        self.answers: list[Answer] = []                         # to be sent; taken by the Replica
        self.on_client_gone: Callable[[object], None] = lambda client: None     # to be told, too
        self.on_close: Callable[[str], None] = lambda leader: None              # likewise

    # --- clients come and go

    def client_opened(self, client) -> None:
        """A connection that may send requests."""
        self._live.add(client)

    def is_live(self, client) -> bool:
        """Whether that connection may be sent something still."""
        return client in self._live

    def client_gone(self, client) -> None:
        """A connection ended: its waiting dequeues are cancelled through the log."""
        self._live.discard(client)
        self.on_client_gone(client)
        for waiter in [w for w in self._waits.values() if w.client == client]:
            self._cancel(waiter.session, waiter.first_sequence)

    # --- requests in

    def refuse(self, client, request_id: int, code: ErrorCode, text: str, leader: str = "") -> None:
        """Answer with an ERROR; a text with foreign parts is cut to fit."""
        self.answers.append((client, request_id, Kind.ERROR,
                             encode_error(code, text[:ERROR_TEXT_MAX], leader)))

    def request(self, client, request_id: int, body: bytes, confirmed: bool = False) -> bool:
        """A REQUEST at a leader that may serve. False where nothing was done with it: ask again,
        `confirmed`, once a quorum was heard."""
        if len(body) > self._wire.request_bytes_max:
            self.refuse(client, request_id, ErrorCode.TOO_LARGE,
                        f"a request of {len(body)} bytes: {self._wire.request_bytes_max} are "
                        "allowed; send fewer messages at once")
            return True
        try:
            session, first, acknowledged, count = decode_request_head(body)
        except MalformedError as error:
            self.refuse(client, request_id, ErrorCode.BAD_REQUEST, str(error))
            return True
        if session == INTERNAL_SESSION or first < 1 or count < 1:
            self.refuse(client, request_id, ErrorCode.BAD_REQUEST,
                        "a session of the client's own, a first sequence and a count from 1 on "
                        "are needed")
            return True
        if self.waiting_bytes > self._config.waiting_bytes_max:
            self.refuse(client, request_id, ErrorCode.BUSY, "too many requests wait; send again")
            return True
        if acknowledged and not confirmed and self._is_doubtful(session):
            return False
        waiter = Waiter(client, request_id, session, first)
        if session == NO_SESSION or self._admit(waiter, acknowledged, count):
            self._append(body, waiter)
        return True

    def _is_doubtful(self, session: bytes) -> bool:
        """Whether a session that had answers before is unknown here. A leader must hear a quorum
        before it says that the session expired: another may have opened it."""
        return (session not in self._sessions and session != NO_SESSION
                and self._machine.last_sequence(session) is None)

    def _append(self, body: bytes, waiter: Waiter) -> None:
        weighs = weight(body, self._machine.ready)
        self._bodies.append((body, waiter, weighs))
        self.waiting_bytes += len(body)
        self._waiting_weight += weighs

    def _admit(self, waiter: Waiter, acknowledged: int, count: int) -> bool:
        """Whether the request is its session's next; else it is answered or attached here."""
        session, first = waiter.session, waiter.first_sequence
        in_flight = self._sessions.get(session)
        if in_flight is None:
            last = self._machine.last_sequence(session)
            if last is None and acknowledged > 0:
                self.refuse(waiter.client, waiter.request_id, ErrorCode.SESSION_EXPIRED,
                            "this session is unknown here: it was unused for too long")
                return False
            next_sequence = 1 if last is None else last + 1
        else:
            next_sequence = in_flight.next_sequence
        if first == next_sequence:
            if in_flight is None:
                in_flight = self._sessions[session] = _InFlight(first, {})
            in_flight.next_sequence = first + count
            in_flight.waiters[first] = waiter
            return True
        if first > next_sequence:
            self.refuse(waiter.client, waiter.request_id, ErrorCode.OUT_OF_ORDER,
                        f"sequence {next_sequence} is next in this session")
            return False
        self._answer_again(waiter, in_flight)
        return False

    def _answer_again(self, waiter: Waiter, in_flight: _InFlight | None) -> None:
        """A request that was admitted before: under way, waiting, or done."""
        session, first = waiter.session, waiter.first_sequence
        if in_flight is not None and first in in_flight.waiters:
            earlier = in_flight.waiters[first]
            earlier.client, earlier.request_id = waiter.client, waiter.request_id
        elif self._machine.is_waiting(session, first):
            self._waits[session, first] = waiter
        else:
            kept = self._machine.kept_reply(session, first)
            if kept is None:
                self.refuse(waiter.client, waiter.request_id, ErrorCode.ALREADY_ACKNOWLEDGED,
                            "this request was executed, and its reply is kept no more")
            else:
                self.answers.append((waiter.client, waiter.request_id, Kind.REPLY, kept))

    def _internal(self, command: bytes) -> None:
        body = encode_request(INTERNAL_SESSION, 1, 0, [command])
        self._append(body, Waiter(None, 0, INTERNAL_SESSION, 1))

    def _cancel(self, session: bytes, sequence: int) -> None:
        self._internal(commands.encode_cancel(session, sequence))

    def cancel_orphans(self) -> int:
        """Cancel the replicated waits that nobody came back for; how many."""
        orphans = [(session, first) for session, first, _ in self._machine.waits()
                   if (session, first) not in self._waits]
        for session, first in orphans:
            self._cancel(session, first)
        return len(orphans)

    def time_passes(self) -> None:
        """A deadline of the machine is due: a batch must carry the time, if none is on its way."""
        if self.is_idle:
            self._internal(commands.encode_time())

    # --- batches out

    @property
    def is_idle(self) -> bool:
        """Whether nothing is admitted and not applied."""
        return not self._bodies and not self._proposed

    def wants_batch(self, disk_idle: bool) -> bool:
        """Whether a batch should be proposed now: no timer, only what waits and what is free."""
        if not self._bodies:
            return False
        return (disk_idle or self.waiting_bytes >= self._config.eager_bytes
                or len(self._bodies) >= self._config.batch_frames_max)

    def take_batch(self) -> tuple[list[bytes], list[Waiter]]:
        """The next requests, in order of arrival, up to a batch's bounds."""
        queue, config = self._bodies, self._config
        if (self._waiting_weight <= config.batch_bytes_max
                and len(queue) <= config.batch_frames_max):
            taken = list(queue)
            queue.clear()
            self.waiting_bytes = self._waiting_weight = 0
        else:
            taken, weighs = [], 0
            while (queue and weighs < config.batch_bytes_max
                   and len(taken) < config.batch_frames_max):
                taken.append(queue.popleft())
                weighs += taken[-1][2]
            self._waiting_weight -= weighs
            self.waiting_bytes -= sum([len(body) for body, _, _ in taken])
        return [body for body, _, _ in taken], [waiter for _, waiter, _ in taken]

    def proposed(self, index: int, term: int, waiters: list[Waiter]) -> None:
        """The batch taken last stands in the log at `index`."""
        assert index not in self._proposed
        self._proposed[index] = (term, waiters)

    def applied(self, index: int, term: int, applied: Applied) -> int:
        """An entry was applied: answer who waits for it; how many replies that gave."""
        before = len(self.answers)
        proposed = self._proposed.pop(index, None)
        if proposed is not None:
            if proposed[0] == term:
                self._answer(proposed[1], applied.replies)
            else:
                for waiter in proposed[1]:
                    self._landed(waiter)
                self._fail(proposed[1], ErrorCode.LEADERSHIP_LOST,
                           "another leader's entry took the place of this request", "")
        for session, first, body in applied.completions:
            waiter = self._waits.pop((session, first), None)
            if waiter is not None:
                self.answers.append((waiter.client, waiter.request_id, Kind.REPLY, body))
        return len(self.answers) - before

    def _answer(self, waiters: list[Waiter], replies: list[bytes | None]) -> None:
        assert len(waiters) == len(replies)
        answers = self.answers
        for waiter, body in zip(waiters, replies):
            session = waiter.session
            self._landed(waiter)
            if waiter.client is None:
                continue
            if body is not None:
                answers.append((waiter.client, waiter.request_id, Kind.REPLY, body))
            else:
                self._waits[session, waiter.first_sequence] = waiter
                if waiter.client not in self._live:
                    self._cancel(session, waiter.first_sequence)

    def _landed(self, waiter: Waiter) -> None:
        """The request is in flight no more; a session without any is the machine's to know."""
        in_flight = self._sessions.get(waiter.session)
        if in_flight is not None:
            in_flight.waiters.pop(waiter.first_sequence, None)
            if not in_flight.waiters:
                del self._sessions[waiter.session]

    # --- the end of leadership

    def close(self, leader: str) -> None:
        """This node leads no more: what was not proposed was surely not executed; of the rest the
        outcome is unknown. Every waiter is told now."""
        waiters = [waiter for _, waiter, _ in self._bodies]
        self._fail(waiters, ErrorCode.NOT_LEADER, "this node leads no more", leader)
        for _, proposed in self._proposed.values():
            self._fail(proposed, ErrorCode.LEADERSHIP_LOST, "this node leads no more", leader)
        self._fail(list(self._waits.values()), ErrorCode.LEADERSHIP_LOST,
                   "this node leads no more; the wait goes on at the leader", leader)
        self._bodies.clear()
        self.waiting_bytes = self._waiting_weight = 0
        self._proposed.clear()
        self._sessions.clear()
        self._waits.clear()
        self.on_close(leader)

    def begin_anew(self, machine: Machine) -> None:
        """Another cluster's machine takes the place; nothing is waiting."""
        assert not (self._bodies or self._proposed or self._waits)
        self._machine = machine

    def _fail(self, waiters: list[Waiter], code: ErrorCode, text: str, leader: str) -> None:
        for waiter in waiters:
            if waiter.client is not None:
                self.refuse(waiter.client, waiter.request_id, code, text, leader)
