"""The replicated state machine: applies entries in order, one reply a request.

Rules: total and deterministic (design, decision 9). Whatever the bytes of a batch are, each request
gets a reply and the index moves on; equal entries give equal replies, equal state and an equal
digest on every node, in every process. Replicated time is the stamp of the batch (decision 8): what
is due by then expires first, at most `expiries_per_entry_max` an entry of each kind (waits, leases,
delays, times to live, deduplication ids, keys, sessions), and the requests follow in the order of
the batch.

A request passes the guard of its session (decision 10) before it is looked into. Once it passed,
its sequences are used, even where its commands turn out to be malformed: the gateway has counted
them already, and a hole would stop the session for ever.

The replicated state has a version, which the MEMBERSHIP entries carry. A program that knows a newer
one treats the commands that came with it as if it did not know them (versions.py), so that programs
of both versions agree. One that does not know the version stops at that very entry.

Elsewhere: what a command does (executor.py), layouts (wire/commands.py, wire/requests.py), when
an entry comes to be and who waits for the reply (gateway.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import ErrorCode, MalformedError, RaftnetError
from raftnet.machine.executor import CANCELLED, EMPTY, MALFORMED, OK, UNKNOWN, Executor
from raftnet.machine.kv import Change
from raftnet.machine.sessions import Session, Sessions
from raftnet.machine.versions import hide_newer, hide_newer_operations
from raftnet.raft.entry import HEADER_BYTES, Entry, EntryKind
from raftnet.raft.membership import decode_membership
from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation
from raftnet.wire.requests import INTERNAL_SESSION, NO_SESSION, REQUEST, REQUEST_HEAD_BYTES

_STAMP_BYTES = 8
_CLOSE_COMMAND = bytes((Operation.CLOSE,))
_MAY_WAIT = (bytes((Operation.DEQUEUE,)), bytes((Operation.LEASE,)))     # first byte of a command
_CANCEL, _TIME = int(Operation.CANCEL), int(Operation.TIME)
_BATCH = int(EntryKind.BATCH)
_ENQUEUE, _DEQUEUE, _LEASE, _CLOSE = map(int, (
    Operation.ENQUEUE, Operation.DEQUEUE, Operation.LEASE, Operation.CLOSE))
# A request of one command: its head, the command's length and operation, length of a queue's name.
_SINGLE = Struct(">16sQQIIBB")
_COMMAND_FROM = REQUEST_HEAD_BYTES + 4      # of the request: its only command
_ONE_MESSAGE = Struct(">II")                # how many, and the size of the first
_LONE = Struct(">QI")                       # stamp of a batch, length of its first request
_SINGLE_FROM = HEADER_BYTES + _LONE.size
_READS = frozenset(map(int, (
    Operation.PEEK, Operation.SIZE, Operation.QUEUES, Operation.DESCRIBE, Operation.LEASES,
    Operation.INSPECT, Operation.KV_GET, Operation.KV_LIST)))


@dataclass(slots=True)
class Applied:
    """What an entry brought about."""

    # For each request of a batch, in order: the body of its REPLY; None: it waits from now on.
    replies: list[bytes | None]
    # Waits that ended with this entry, in order: (session, first sequence, REPLY body).
    completions: list[tuple[bytes, int, bytes]]
    # What changed in the keys, in order: (type, key, version, value), see kv.py.
    changes: Sequence[Change] = ()


class Machine:
    """Queues, waits, leases, keys and sessions as of `applied_index`."""

    def __init__(self, machine_config: MachineConfig, wire_config: WireConfig):
        self.applied_index = 0
        self.digest = 0             # CRC-32 chain over entries and their replies
        self.time_ms = 0            # replicated time: the stamp of the last batch
        self.state_version = 1      # of the replicated state; Invariant: <= STATE_VERSION
        self.sessions = Sessions(machine_config)
        self.executor = Executor(machine_config, wire_config)
        self._due_ms = 0            # nothing is due before this
        self._config = machine_config
        self._message_bytes_max = wire_config.message_bytes_max
        self._state_version_max = commands.STATE_VERSION

    def apply(self, entry: Entry) -> Applied:
        """Apply the next entry. Never raises for anything that a client can send.

        Raises RaftnetError, with nothing changed, at a membership whose state version this program
        does not know: the node must stop.
        """
        index, data = entry.index, entry.data
        assert index == self.applied_index + 1, "entries are applied in order"
        if entry.kind == _BATCH:
            reply = self._apply_lone(data)
            if reply is not None:
                self.applied_index = index
                self.digest = crc32(reply, crc32(data, self.digest))
                return Applied([reply], [])
            applied = Applied([], [])
            self.executor.index = index
            self._apply_batch(data, applied)
        else:
            applied = Applied([], [])
            if entry.kind == EntryKind.MEMBERSHIP:
                self._follow_version(entry)
        self.applied_index = index
        results = [reply or b"" for reply in applied.replies]
        results += [reply for _, _, reply in applied.completions]
        self.digest = crc32(b"".join(results), crc32(data, self.digest))
        return applied

    # --- what the gateway asks

    def last_sequence(self, session: bytes) -> int | None:
        """The highest sequence of the session that was executed; None: unknown session."""
        known = self.sessions.by_id.get(session)
        return None if known is None else known.last

    def kept_reply(self, session: bytes, first_sequence: int) -> bytes | None:
        """The REPLY body of the frame that began there, where it is kept."""
        known = self.sessions.by_id.get(session)
        at = None if known is None else known.find(first_sequence)
        return None if at is None else known.replies[at]

    def is_waiting(self, session: bytes, first_sequence: int) -> bool:
        """That request is a dequeue that still waits."""
        return (session, first_sequence) in self.executor.waits.pending

    def waits(self) -> list[tuple[bytes, int, int]]:
        """(session, first sequence, deadline in replicated ms) of all waits, in order of asking."""
        return [(wait.session, wait.first_sequence, wait.deadline_ms)
                for wait in self.executor.waits.pending.values()]

    def ready(self, name: bytes) -> int:
        """Messages of that queue that could be taken now."""
        queue = self.executor.queues.by_name.get(name)
        return 0 if queue is None else queue.ready()

    def next_deadline_ms(self) -> int | None:
        """Replicated time at which something is due next: the end of a wait, lease, delay, time to
        live, deduplication id, key or session; None: never. It lies in the past while more was due
        than one entry may carry out."""
        executor = self.executor
        wait = executor.waits.earliest()
        times = (None if wait is None else wait.deadline_ms, executor.lifecycle.earliest_ms(),
                 executor.kv.earliest_ms(), self.sessions.next_expiry_ms())
        return min([time_ms for time_ms in times if time_ms is not None], default=None)

    def read(self, command: bytes) -> tuple[int, bytes]:
        """(status, result) of a command that only looks (_READS), its length before it; changes
        nothing."""
        try:
            pieces = commands.split_commands(command, 0)
        except MalformedError:
            return MALFORMED, b""
        if len(pieces) != 1 or not pieces[0]:
            return MALFORMED, b""
        if self.state_version < self._state_version_max:
            pieces = hide_newer_operations(pieces, self.state_version)
        if pieces[0][0] not in _READS:
            return UNKNOWN, b""
        self.executor.now_ms = self.time_ms
        self.executor.begin_request()
        return self.executor.perform(pieces[0])

    # --- a batch

    def _apply_batch(self, data: bytes, applied: Applied) -> None:
        """`data` is the whole entry: read in place, because its payload would be a copy."""
        start = HEADER_BYTES + _STAMP_BYTES
        if len(data) < start:
            return
        stamp_ms = int.from_bytes(data[HEADER_BYTES:start], "big")
        assert stamp_ms >= self.time_ms, "stamps never decrease along a log"
        self.time_ms = self.executor.now_ms = stamp_ms
        if self._due(stamp_ms):
            self._expire(applied)
        try:
            bodies = commands.split_commands(data, start)
        except MalformedError:
            bodies = []
        if self.state_version < self._state_version_max:
            bodies = [hide_newer(body, self.state_version) for body in bodies]
        ended = self.executor.ended
        several = len(bodies) > 1       # a lone one was tried before
        for body in bodies:
            reply = self._apply_single(body, 0, len(body)) if several else None
            if reply is None:
                reply = self._apply_request(body, applied)
            applied.replies.append(reply)
            if ended:
                self._complete(applied)
        executor = self.executor
        self._due_ms = min(self.sessions.due_ms, executor.waits.due_ms(),
                           executor.lifecycle.due_ms(), executor.kv.due_ms())
        if executor.kv.changes:
            applied.changes = executor.kv.take_changes()

    # --- in a straight line: a log of single requests is replayed at three times the speed

    def _apply_lone(self, data: bytes) -> bytes | None:
        """The reply to the only request of a batch, where nothing is due and `_apply_single` can
        do it; None: nothing was done, but that it may be later now."""
        end = len(data)
        if end < _SINGLE_FROM + _SINGLE.size:
            return None
        stamp_ms, length = _LONE.unpack_from(data, HEADER_BYTES)
        if (_SINGLE_FROM + length != end or self.state_version != self._state_version_max
                or stamp_ms < self.time_ms or self._due(stamp_ms)):
            return None
        self.time_ms = stamp_ms
        return self._apply_single(data, _SINGLE_FROM, end)

    def _apply_single(self, data: bytes, offset: int, end: int) -> bytes | None:
        """The reply to a request from `offset` to `end` that is one command of a session in step:
        an ENQUEUE of one message that nobody waits for, or a DEQUEUE as the one before it. None,
        and nothing was done, where it is anything else: `_apply_request` does the same and more.
        """
        if end - offset < _SINGLE.size:
            return None
        (session_id, first, acknowledged, count, length, operation,
         name_bytes) = _SINGLE.unpack_from(data, offset)
        if count != 1 or offset + _COMMAND_FROM + length != end:
            return None
        session = self.sessions.by_id.get(session_id)
        if session is None or first != session.last + 1 or session.waiting:
            return None
        if operation == _ENQUEUE:
            name_from = offset + _SINGLE.size
            start = name_from + name_bytes + _ONE_MESSAGE.size
            if start > end:
                return None
            count, size = _ONE_MESSAGE.unpack_from(data, start - _ONE_MESSAGE.size)
            if (count != 1 or start + size != end or size > self._message_bytes_max
                    or not name_bytes):
                return None
            message_id = self.executor.enqueue_single(data[name_from:name_from + name_bytes],
                                                      data[start:end])
            if message_id is None:
                return None
            reply = requests.encode_reply_enqueued(first, 1, message_id)
        elif operation == _DEQUEUE:
            result = self.executor.dequeue_single(data[offset + _COMMAND_FROM:end])
            if result is None:
                return None
            reply = requests.encode_reply_results(first, [result])
        else:
            return None
        self.sessions.step(session_id, session, acknowledged, reply, self.time_ms)
        return reply

    def _follow_version(self, entry: Entry) -> None:
        try:
            version = decode_membership(entry.payload).state_version
        except MalformedError:
            return                  # the core lets none in; and no entry may stop the machine
        if version > self._state_version_max:
            raise RaftnetError(
                f"entry {entry.index} begins version {version} of the replicated state, and this "
                f"program knows {self._state_version_max} at most: start a newer raftnet here, "
                "with the same data directory")
        self.state_version = max(self.state_version, version)

    def _due(self, now_ms: int) -> bool:
        """Whether something may have to expire. What has ended may say so for nothing. The straight
        line below makes nothing that is ever due but a session's use, which comes later."""
        return now_ms >= self._due_ms

    def _expire(self, applied: Applied) -> None:
        waits, sessions, now_ms = self.executor.waits, self.sessions, self.time_ms
        for _ in range(self._config.expiries_per_entry_max):
            wait = waits.earliest()
            if wait is None or wait.deadline_ms > now_ms:
                break
            self.executor.end_wait(wait, EMPTY)
        self.executor.lifecycle.carry_out()
        self.executor.kv.expire(now_ms, self._config.expiries_per_entry_max)
        self.executor.settle_touched()
        # First the replies of the waits: that counts as a use of their sessions.
        self._complete(applied)
        for _ in range(self._config.expiries_per_entry_max):
            expiry_ms = sessions.next_expiry_ms()
            if expiry_ms is None or expiry_ms > now_ms:
                break
            sessions.expire_one()
        sessions.look_again(now_ms)

    def _complete(self, applied: Applied) -> None:
        """Encode and keep the replies of the waits that the executor ended."""
        for wait, status, payload in self.executor.ended:
            first = wait.first_sequence
            reply = requests.encode_reply_results(first, [(status, payload)])
            self.sessions.complete(wait.session, first, reply, self.time_ms)
            applied.completions.append((wait.session, first, reply))
        self.executor.ended.clear()

    # --- a request

    def _apply_request(self, body: bytes, applied: Applied) -> bytes | None:
        if len(body) < REQUEST_HEAD_BYTES:
            return _refused(0, 0, ErrorCode.BAD_REQUEST, "the head is cut short")
        session_id, first, acknowledged, count = REQUEST.unpack_from(body)
        if not count:
            return _refused(first, 0, ErrorCode.BAD_REQUEST, "no commands")
        if session_id == NO_SESSION:
            return self._perform_request(body, first, count, None)[0]
        if session_id == INTERNAL_SESSION:
            return self._perform_internal(body, first, count)
        session = self.sessions.by_id.get(session_id)
        if session is None:
            if first != 1:
                return _refused(first, count, ErrorCode.SESSION_EXPIRED, "unknown session")
            if self.sessions.full():
                return _refused(first, count, ErrorCode.SESSION_LIMIT, "no room for a session")
            session = self.sessions.open(session_id, self.time_ms)
        elif first != session.last + 1:
            self.sessions.use(session_id, session, self.time_ms)
            return _repeated(session, first, count)
        if count == 1 and not session.waiting:
            reply = self._single_reply(body, first)
            if reply is not None:
                self.sessions.step(session_id, session, acknowledged, reply, self.time_ms)
                return reply
        self.sessions.use(session_id, session, self.time_ms)
        self.sessions.acknowledge(session, acknowledged)    # while the kept frames end at `last`
        session.last += count
        reply, close = self._perform_request(body, first, count, session_id)
        if close:
            self._close(session_id, session, applied)
        else:
            self.sessions.keep(session_id, session, first, reply)
        return reply

    def _single_reply(self, body: bytes, first: int) -> bytes | None:
        """The reply to a request of one command, where that is whole and neither enqueues nor may
        wait nor closes its session; None: nothing was done."""
        if len(body) <= _COMMAND_FROM or _COMMAND_FROM + int.from_bytes(
                body[REQUEST_HEAD_BYTES:_COMMAND_FROM], "big") != len(body):
            return None
        operation = body[_COMMAND_FROM]
        if operation == _ENQUEUE or operation == _CLOSE:
            return None
        command = body[_COMMAND_FROM:]
        if (operation == _DEQUEUE or operation == _LEASE) and commands.may_wait(command):
            return None
        executor = self.executor
        executor.begin_request()
        return requests.encode_reply_results(first, [executor.perform(command)])

    def _perform_request(self, body: bytes, first: int, count: int,
                         session_id: bytes | None) -> tuple[bytes | None, bool]:
        """(REPLY body or None where it waits, whether it closes its session)."""
        executor = self.executor
        runs = commands.decode_enqueues(body, REQUEST_HEAD_BYTES, self._message_bytes_max)
        if runs is not None and runs[1] == count:
            first_id = executor.enqueue_runs(runs[0])
            if first_id is not None:
                return requests.encode_reply_enqueued(first, count, first_id), False
        try:
            pieces = commands.split_commands(body, REQUEST_HEAD_BYTES)
        except MalformedError as error:
            return _refused(first, count, ErrorCode.BAD_REQUEST, str(error)), False
        if len(pieces) != count:
            return _refused(first, count, ErrorCode.BAD_REQUEST, "the count does not fit"), False
        executor.begin_request()
        next_id = executor.next_message_id
        if count == 1 and session_id is not None and pieces[0][:1] in _MAY_WAIT:
            result = executor.begin_wait(pieces[0], session_id, first, self.time_ms)
            if result is None:
                return None, False
            return requests.encode_reply_results(first, [result]), False
        close = False
        results = []
        for piece in pieces:
            if piece == _CLOSE_COMMAND and session_id is not None:
                close = True
                results.append((OK, b""))
            else:
                results.append(executor.perform(piece))
        if (runs is not None and all(status == OK for status, _ in results)
                and executor.next_message_id - next_id == sum(len(run[1]) for run in runs[0])):
            return requests.encode_reply_enqueued(first, count, next_id), close
        return requests.encode_reply_results(first, results), close

    def _close(self, session_id: bytes, session: Session, applied: Applied) -> None:
        """Drop what is kept; a wait that is still open is cancelled."""
        self._complete(applied)
        pending = self.executor.waits.pending
        waiting = [first for first, reply in zip(session.firsts, session.replies) if reply is None]
        for first in waiting:
            self.executor.end_wait(pending[session_id, first], CANCELLED)
        self._complete(applied)
        self.sessions.close(session)

    def _perform_internal(self, body: bytes, first: int, count: int) -> bytes:
        """The leader's own commands, without a session's guard: a repetition finds nothing."""
        try:
            pieces = commands.split_commands(body, REQUEST_HEAD_BYTES)
        except MalformedError as error:
            return _refused(first, count, ErrorCode.BAD_REQUEST, str(error))
        if len(pieces) != count:
            return _refused(first, count, ErrorCode.BAD_REQUEST, "the count does not fit")
        results = [(self._internal_status(piece), b"") for piece in pieces]
        return requests.encode_reply_results(first, results)

    def _internal_status(self, command: bytes) -> int:
        operation = command[0] if command else 0
        try:
            if operation == _CANCEL:
                wait = self.executor.waits.pending.get(commands.decode_cancel(command))
                if wait is None:
                    return EMPTY
                self.executor.end_wait(wait, CANCELLED)
                return OK
            if operation == _TIME:
                commands.decode_nothing(command)
                return OK
        except MalformedError:
            return MALFORMED
        return UNKNOWN


def _repeated(session: Session, first: int, count: int) -> bytes | None:
    """The answer to a request that is not the session's next: the kept reply (None while it waits),
    only for exactly the frame that was sent first; else a refusal that is not kept."""
    if first > session.last:
        return _refused(first, count, ErrorCode.OUT_OF_ORDER, f"next is {session.last + 1}")
    at = session.find(first, count)
    if at is None:
        return _refused(first, count, ErrorCode.ALREADY_ACKNOWLEDGED, "no reply is kept")
    return session.replies[at]


def _refused(first: int, count: int, code: ErrorCode, text: str) -> bytes:
    return requests.encode_reply_refused(first, count, code, text)
