"""The commands of queues that came with leases: what each checks, does and answers.

Rules: as in executor.py: a command is decoded and checked first and performed then; none raises for
any bytes but MalformedError while it is decoded. A result counts its bytes against the request's
room, but for a byte a receipt: its command has sixteen. PURGE and REDRIVE pass over a bounded
number of messages a request, whatever they are asked for.

Elsewhere: what becomes of messages (lifecycle.py, intake.py), what only looks (inspection.py),
leases that wait (executor.py), layouts (wire/queuecommands.py,
wire/queueresults.py).
"""

from collections.abc import Callable

from raftnet.machine.dedup import Dedup
from raftnet.machine.intake import Intake
from raftnet.machine.lifecycle import Lifecycle
from raftnet.machine.queue import Item, Queue, message_of
from raftnet.machine.settings import Settings, defaults_of
from raftnet.wire import queuecommands, queueresults
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queuecommands import Setting
from raftnet.wire.queueresults import Event, Outcome, Reason

OK, EMPTY, LIMIT, REPLY_FULL, STALE, IN_USE = map(int, (
    Status.OK, Status.EMPTY, Status.LIMIT, Status.REPLY_FULL, Status.STALE, Status.IN_USE))
_, _STALE, _DEAD_LETTERED = map(int, Outcome)       # 0 is DONE
_NACKED, _REDRIVEN = int(Reason.NACKED), int(Reason.REDRIVEN)
_DEAD_LETTER = int(Setting.DEAD_LETTER)
_ONE_DONE = (OK, queueresults.encode_outcomes_result(b"\0"))
_MOVED_BYTES = 16           # the result of PURGE and REDRIVE
_PASSED_PER_MOVED = 10      # messages that REDRIVE looks at for each that it may move
_NO_ROOM_LIMIT = 1 << 62

Result = tuple[int, bytes]
Prepared = tuple[int, tuple | bytes]


class QueueOperations:
    """The handlers of an executor's commands on queues, by operation."""

    __slots__ = ("handlers", "_executor", "_config", "_lifecycle", "_last_lease")

    def __init__(self, executor, lifecycle: Lifecycle, intake: Intake):
        self._executor = executor
        self._config = executor.config
        self._lifecycle = lifecycle
        # The last LEASE that could be performed, its queue, and (count, lease_ms, consumer):
        # consumers send the same bytes for ever.
        self._last_lease: tuple = None, b"", ()
        self.handlers: dict[int, Callable[[bytes], Prepared]] = {
            int(Operation.ENQUEUE_WITH): intake.prepare_with,
            int(Operation.LEASE): self._prepare_lease,
            int(Operation.ACK): self._prepare_ack,
            int(Operation.NACK): self._prepare_nack,
            int(Operation.EXTEND): self._prepare_extend,
            int(Operation.CONFIGURE): self._prepare_configure,
            int(Operation.DELETE_QUEUE): self._prepare_delete,
            int(Operation.PURGE): self._prepare_purge,
            int(Operation.REDRIVE): self._prepare_redrive,
        }

    # --- decode and check

    def checked_lease(self, count: int, wait_ms: int, lease_ms: int) -> bytes | None:
        """The limit that a LEASE passes; None: it may be performed."""
        config = self._config
        if not 1 <= count <= config.dequeue_count_max:
            return b"count: 1 to dequeue_count_max"
        if wait_ms > config.wait_ms_max:
            return b"wait_ms_max"
        if not 1 <= lease_ms <= config.lease_ms_max:
            return b"lease_ms: 1 to lease_ms_max"
        return None

    def _prepare_lease(self, command: bytes) -> Prepared:
        if command == self._last_lease[0]:
            return OK, (self._lease, *self._last_lease[1:])
        name, count, wait_ms, lease_ms, consumer = queuecommands.decode_lease(command)
        if wait_ms:
            return LIMIT, b"a wait is alone in its request and has a session"
        over = self.checked_lease(count, wait_ms, lease_ms)
        if over is not None:
            return LIMIT, over
        self._last_lease = command, name, (count, lease_ms, consumer)
        return OK, (self._lease, *self._last_lease[1:])

    def _prepare_ack(self, command: bytes) -> Prepared:
        receipts = queuecommands.decode_ack(command)
        if len(receipts) == 1:
            return OK, (self._ack, receipts, None)
        return self._receipts(self._ack, receipts, None)

    def _prepare_nack(self, command: bytes) -> Prepared:
        delay_ms, reason, receipts = queuecommands.decode_nack(command)
        if delay_ms is not None and delay_ms > self._config.delay_ms_max:
            return LIMIT, b"delay_ms_max"
        return self._receipts(self._nack, receipts, (delay_ms, reason))

    def _prepare_extend(self, command: bytes) -> Prepared:
        lease_ms, receipts = queuecommands.decode_extend(command)
        if not 1 <= lease_ms <= self._config.lease_ms_max:
            return LIMIT, b"lease_ms: 1 to lease_ms_max"
        return self._receipts(self._extend, receipts, lease_ms)

    def _receipts(self, function, receipts: list[tuple[int, int]], how) -> Prepared:
        if len(receipts) > self._config.receipts_per_command_max:
            return LIMIT, b"receipts_per_command_max"
        return OK, (function, receipts, how)

    def _prepare_configure(self, command: bytes) -> Prepared:
        name, changes = queuecommands.decode_configure(command)
        config = self._config
        for setting, most, text in (
                (Setting.TTL_MS, config.ttl_ms_max, b"ttl_ms_max"),
                (Setting.DEDUP_WINDOW_MS, config.ttl_ms_max, b"ttl_ms_max"),
                (Setting.BACKOFF_MS, config.delay_ms_max, b"delay_ms_max"),
                (Setting.BACKOFF_MAX_MS, config.delay_ms_max, b"delay_ms_max")):
            if changes.get(setting, 0) > most:
                return LIMIT, text
        if changes.get(_DEAD_LETTER) == name:
            return LIMIT, b"a queue is not its own dead-letter queue"
        return OK, (self._configure, name, changes)

    def _prepare_delete(self, command: bytes) -> Prepared:
        return OK, (self._delete, queuecommands.decode_delete_queue(command), None)

    def _prepare_purge(self, command: bytes) -> Prepared:
        return self._limited(self._purge, *queuecommands.decode_purge(command),
                             self._config.purge_count_max, b"limit: 1 to purge_count_max")

    def _prepare_redrive(self, command: bytes) -> Prepared:
        name, to, limit = queuecommands.decode_redrive(command)
        if to == name:
            return LIMIT, b"a queue's dead letters go to another queue"
        return self._limited(self._redrive, name, limit, self._config.redrive_count_max,
                             b"limit: 1 to redrive_count_max", (to, limit))

    def _limited(self, function, name: bytes, limit: int, most: int, text: bytes,
                 argument: tuple | None = None) -> Prepared:
        if not 1 <= limit <= most:
            return LIMIT, text
        return OK, (function, name, argument or limit)

    # --- deliveries

    def _lease(self, name: bytes, what: tuple[int, int, bytes]) -> Result:
        executor = self._executor
        queue = executor.queues.by_name.get(name)
        if queue is None or not (queue.messages or queue.ready()):
            return EMPTY, b""
        if not executor.moves:
            return REPLY_FULL, b""
        count, lease_ms, consumer = what
        first = executor.leases.next_delivery
        result, executor.room = self._lifecycle.lease(
            name, queue, min(count, executor.moves), executor.room, lease_ms, consumer)
        executor.moves -= executor.leases.next_delivery - first
        return result

    def _ack(self, receipts: list[tuple[int, int]], _: None) -> Result:
        held, acknowledge = self._lifecycle.held, self._lifecycle.acknowledge
        if len(receipts) == 1:
            lease = held(*receipts[0])
            if lease is None:
                return self._outcomes(bytearray((_STALE,)))
            acknowledge(lease)
            return _ONE_DONE
        outcomes = bytearray(len(receipts))
        for at, (message_id, delivery) in enumerate(receipts):
            lease = held(message_id, delivery)
            if lease is None:
                outcomes[at] = _STALE
            else:
                acknowledge(lease)
        return self._outcomes(outcomes)

    def _nack(self, receipts: list[tuple[int, int]], how: tuple[int | None, bytes]) -> Result:
        delay_ms, text = how
        lifecycle, now_ms = self._lifecycle, self._executor.now_ms
        outcomes = bytearray(len(receipts))
        for at, (message_id, delivery) in enumerate(receipts):
            lease = lifecycle.held(message_id, delivery)
            if lease is None:
                outcomes[at] = _STALE
            elif lifecycle.give_back(lease, now_ms, _NACKED, text, delay_ms):
                outcomes[at] = _DEAD_LETTERED
        return self._outcomes(outcomes)

    def _extend(self, receipts: list[tuple[int, int]], lease_ms: int) -> Result:
        lifecycle = self._lifecycle
        outcomes = bytearray(len(receipts))
        for at, (message_id, delivery) in enumerate(receipts):
            lease = lifecycle.held(message_id, delivery)
            if lease is None:
                outcomes[at] = _STALE
            else:
                lifecycle.extend(lease, lease_ms)
        return self._outcomes(outcomes)

    def _outcomes(self, outcomes: bytearray) -> Result:
        """STALE in an atomic list: then the list is undone."""
        stale = self._executor.journal is not None and _STALE in outcomes
        return STALE if stale else OK, queueresults.encode_outcomes_result(outcomes)

    # --- a queue as a whole

    def _configure(self, name: bytes, changes: dict[int, int | bytes]) -> Result:
        executor = self._executor
        queue = executor.queues.make(name)
        executor.touched(name)
        before = queue.settings
        if before is None and executor.configured >= self._config.settings_max:
            return executor.text(LIMIT, b"settings_max")
        self._set(queue, (before or defaults_of(name)).changed(changes))
        return OK, b""

    def _set(self, queue: Queue, settings: Settings | None) -> None:
        executor, before = self._executor, queue.settings
        executor.configured += (settings is not None) - (before is not None)
        queue.settings = settings
        queue.look_again()
        if executor.journal is not None:
            executor.journal.append((self._undo_set, queue, before))

    def _undo_set(self, queue: Queue, before: Settings | None) -> None:
        self._executor.configured += (before is not None) - (queue.settings is not None)
        queue.settings = before
        queue.look_again()

    def _delete(self, name: bytes, _: None) -> Result:
        executor = self._executor
        queue = executor.queues.by_name.get(name)
        if queue is None or queue.vacant():
            return EMPTY, b""
        if queue.waiters:
            return executor.text(IN_USE, b"somebody waits at the queue")
        if queue.held():
            return executor.text(IN_USE, b"messages are ready, delayed or leased")
        executor.touched(name)
        if queue.settings is not None:
            self._set(queue, None)
        if queue.dedup:
            self._set_dedup(queue, Dedup())     # not None: what is noted of it is to be forgotten
        return OK, b""

    def _set_dedup(self, queue: Queue, dedup) -> None:
        executor, before = self._executor, queue.dedup
        executor.dedup_count += len(dedup or ()) - len(before or ())
        queue.dedup = dedup
        if executor.journal is not None:
            executor.journal.append((self._undo_set_dedup, queue, before))

    def _undo_set_dedup(self, queue: Queue, before) -> None:
        self._executor.dedup_count += len(before or ()) - len(queue.dedup or ())
        queue.dedup = before

    def _purge(self, name: bytes, limit: int) -> Result:
        executor = self._executor
        if executor.room < _MOVED_BYTES or not executor.moves:
            return REPLY_FULL, b""
        executor.room -= _MOVED_BYTES
        queue = executor.queues.by_name.get(name)
        if queue is None:
            return OK, queueresults.encode_purge_result(0, 0)
        limit = min(limit, executor.moves)
        journal = executor.journal
        executor.touched(name)
        removed = 0
        while removed < limit:
            item = queue.take_oldest()
            if item is None:
                break
            if journal is not None:
                journal.append((queue.put_back, [item]))
            removed += 1
        while removed < limit and queue.delayed:
            delayed = queue.end_delay()
            if journal is not None:
                journal.append((queue.delay, *delayed))
            removed += 1
        executor.moves -= removed
        left = queue.ready() + len(queue.delayed or ())
        return OK, queueresults.encode_purge_result(removed, left)

    def _redrive(self, name: bytes, what: tuple[bytes, int]) -> Result:
        executor = self._executor
        if executor.room < _MOVED_BYTES or not executor.moves:
            return REPLY_FULL, b""
        executor.room -= _MOVED_BYTES
        queue = executor.queues.by_name.get(name)
        if queue is None:
            return OK, queueresults.encode_redrive_result(0, 0)
        to, limit = what
        executor.touched(name)
        passed, stay, moving = [], [], []
        for _ in range(min(limit * _PASSED_PER_MOVED, executor.moves)):
            items, _ = queue.take_mixed(1, _NO_ROOM_LIMIT)
            if not items:
                break
            passed += items
            destination = _destination(items[0], name, to)
            if destination:
                moving.append((destination, items[0]))
                if len(moving) == limit:
                    break
            else:
                stay += items
        executor.moves -= len(passed)
        queue.put_back(stay)
        if executor.journal is not None:
            executor.journal.append((queue.put_back, passed))
            executor.journal.append((queue.take_mixed, len(stay), _NO_ROOM_LIMIT))
        for destination, item in moving:
            message = message_of(item)
            self._lifecycle.send_back(destination, message, Event(
                0, executor.now_ms, executor.index, message.deliveries, _REDRIVEN, b"", b""))
        return OK, queueresults.encode_redrive_result(len(moving), queue.ready())


def _destination(item: Item, name: bytes, to: bytes) -> bytes:
    """Where a message of the queue `name` is sent back to; empty: it stays."""
    what = item[1]
    destination = to or (b"" if type(what) is bytes else what.origin)
    return b"" if destination == name else destination
