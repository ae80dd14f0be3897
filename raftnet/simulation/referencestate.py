"""ReferenceState: what each command does to messages (referencequeues.py), keys (referencekeys.py).

`prepare` decodes and checks a command, and gives what performs it: the commands of a list are all
decoded and checked before the first is performed. A list is undone by throwing the changed copy of
the state away (reference.py).
"""

from collections.abc import Callable
from copy import copy

from raftnet.config import MachineConfig
from raftnet.simulation.referencekeys import ReferenceKeys
from raftnet.simulation.referencequeues import (
    Lease, Message, Queue, ReferenceQueues, Wait)
from raftnet.wire import commands, queuecommands, queueresults
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queuecommands import SETTING_DEFAULTS, Setting
from raftnet.wire.queueresults import Outcome, Reason
from raftnet.wire.transactions import KeyCondition, QueueCondition, TransactCondition

Result = tuple[int, bytes]
Prepared = tuple[int, Callable[[], Result] | bytes]
_OK, _EMPTY = int(Status.OK), (int(Status.EMPTY), b"")
_SEEN_PER_MOVED = 10        # messages that a REDRIVE looks at for each that it may move
_COUNT_TEXT = b"count: 1 to dequeue_count_max"
_WAIT_TEXT = b"a wait is alone in its request and has a session"


def _limit(text: bytes) -> Result:
    return int(Status.LIMIT), text


class State(ReferenceKeys, ReferenceQueues):
    """Queues and keys."""

    def __init__(self, config: MachineConfig):
        ReferenceQueues.__init__(self, config)
        ReferenceKeys.__init__(self)

    def copy(self) -> "State":
        """All of it, to come back to."""
        other = copy(self)
        other.queues = {name: Queue(list(queue.ready), list(queue.delayed), queue.settings,
                                    dict(queue.dedup)) for name, queue in self.queues.items()}
        other.leases = {delivery: copy(lease) for delivery, lease in self.leases.items()}
        other.keys, other.changes = dict(self.keys), list(self.changes)
        other.waits, other.ended = list(self.waits), list(self.ended)
        other.touched = list(self.touched)
        other.gone, other.came = dict(self.gone), dict(self.came)
        return other

    # --- decode and check

    def prepare(self, operation: int, command: bytes) -> Prepared:
        """(OK, what performs it), or (status, text). Raises MalformedError."""
        prepare = {
            Operation.ENQUEUE: self._prepare_enqueue,
            Operation.DEQUEUE: self._prepare_dequeue,
            Operation.PEEK: self._prepare_peek,
            Operation.SIZE: self._prepare_size,
            Operation.QUEUES: self._prepare_queues,
            Operation.ENQUEUE_WITH: self._prepare_enqueue_with,
            Operation.LEASE: self._prepare_lease,
            Operation.ACK: self._prepare_ack,
            Operation.NACK: self._prepare_nack,
            Operation.EXTEND: self._prepare_extend,
            Operation.CONFIGURE: self._prepare_configure,
            Operation.DELETE_QUEUE: self._prepare_delete_queue,
            Operation.PURGE: self._prepare_purge,
            Operation.REDRIVE: self._prepare_redrive,
            Operation.DESCRIBE: self._prepare_describe,
            Operation.LEASES: self._prepare_leases,
            Operation.INSPECT: self._prepare_inspect,
            Operation.KV_GET: self.prepare_get,
            Operation.KV_PUT: self.prepare_put,
            Operation.KV_DELETE: self.prepare_delete,
            Operation.KV_LIST: self.prepare_list}.get(operation)
        return (int(Status.UNKNOWN), b"") if prepare is None else prepare(command)

    # --- messages in

    def _prepare_enqueue(self, command: bytes) -> Prepared:
        name, bodies = commands.decode_enqueue(command)

        def perform() -> Result:
            full = self.make_room(name, bodies)
            if full:
                return int(Status.FULL), full
            ttl_ms = self.setting(name, Setting.TTL_MS)
            ids = [self.add(name, body, 0, 0, ttl_ms) for body in bodies]
            return _OK, commands.encode_enqueue_result(ids[0])
        return _OK, perform

    def _prepare_enqueue_with(self, command: bytes) -> Prepared:
        name, priority, delay_ms, ttl_ms, dedup_ids, bodies = (
            queuecommands.decode_enqueue_with(command))
        if priority >= self.config.priorities:
            return _limit(b"priorities")
        if delay_ms > self.config.delay_ms_max:
            return _limit(b"delay_ms_max")
        if ttl_ms > self.config.ttl_ms_max:
            return _limit(b"ttl_ms_max")

        def perform() -> Result:
            queue = self.make(name)
            window_ms = self.setting(name, Setting.DEDUP_WINDOW_MS)
            # Who of them is the first with an id that is not known: the others are its duplicates.
            known = {dedup_id: message_id for dedup_id, (message_id, expires_ms)
                     in queue.dedup.items() if window_ms and expires_ms > self.now_ms}
            new, seen = [], set(known)
            for dedup_id, body in zip(dedup_ids, bodies):
                if not (window_ms and dedup_id) or dedup_id not in seen:
                    new.append(body)
                    seen.add(dedup_id)
            full = self.make_room(name, new) if new else b""
            if full:
                return int(Status.FULL), full
            ids, duplicates = [], []
            for dedup_id, body in zip(dedup_ids, bodies):
                again = bool(window_ms and dedup_id) and dedup_id in known
                duplicates.append(again)
                if again:
                    ids.append(known[dedup_id])
                    continue
                ids.append(self.add(name, body, priority, delay_ms,
                                    ttl_ms or self.setting(name, Setting.TTL_MS)))
                if window_ms and dedup_id:
                    known[dedup_id] = ids[-1]
                    queue.dedup[dedup_id] = ids[-1], self.now_ms + window_ms
            return _OK, queueresults.encode_enqueue_with_result(ids, duplicates)
        return _OK, perform

    # --- messages out

    def _prepare_dequeue(self, command: bytes) -> Prepared:
        name, count, wait_ms = commands.decode_dequeue(command)
        if wait_ms:
            return _limit(_WAIT_TEXT)
        if not 1 <= count <= self.config.dequeue_count_max:
            return _limit(_COUNT_TEXT)
        return _OK, lambda: self._fetch(Wait(b"", 0, 0, name, count))

    def _prepare_lease(self, command: bytes) -> Prepared:
        name, count, wait_ms, lease_ms, consumer = queuecommands.decode_lease(command)
        if wait_ms:
            return _limit(_WAIT_TEXT)
        if not 1 <= count <= self.config.dequeue_count_max:
            return _limit(_COUNT_TEXT)
        if not 1 <= lease_ms <= self.config.lease_ms_max:
            return _limit(b"lease_ms: 1 to lease_ms_max")
        return _OK, lambda: self._fetch(Wait(b"", 0, 0, name, count, lease_ms, consumer))

    def _fetch(self, wait: Wait) -> Result:
        """What somebody gets who need not wait."""
        if not wait.lease_ms:
            taken = self.take(wait.queue, wait.count)
            return (_OK, _messages(taken)) if taken else _EMPTY
        leases = self.lease(wait.queue, wait.count, wait.lease_ms, wait.consumer)
        rows = [(lease.message.id, lease.delivery, lease.message.deliveries, lease.message.body)
                for lease in leases]
        return (_OK, queueresults.encode_lease_result(rows)) if rows else _EMPTY

    def take_or_wait(self, command: bytes, session: bytes, first: int) -> Result | None:
        """A DEQUEUE or LEASE alone in its request: None: it waits from now on. Raises
        MalformedError."""
        lease_ms, consumer = 0, b""
        if command[0] == Operation.LEASE:
            name, count, wait_ms, lease_ms, consumer = queuecommands.decode_lease(command)
        else:
            name, count, wait_ms = commands.decode_dequeue(command)
        if not 1 <= count <= self.config.dequeue_count_max:
            return _limit(_COUNT_TEXT)
        if wait_ms > self.config.wait_ms_max:
            return _limit(b"wait_ms_max")
        if command[0] == Operation.LEASE and not 1 <= lease_ms <= self.config.lease_ms_max:
            return _limit(b"lease_ms: 1 to lease_ms_max")
        wait = Wait(session, first, self.now_ms + wait_ms, name, count, lease_ms, consumer)
        result = self._fetch(wait)
        if result == _EMPTY and wait_ms:
            self.make(name)
            self.waits.append(wait)
            return None
        return result

    def end_wait(self, wait: Wait, result: Result) -> None:
        """It has an answer."""
        self.waits.remove(wait)
        self.ended.append((wait, result))

    def end_waits(self) -> None:
        """Those that have waited long enough."""
        for wait in self.first_due((wait.deadline_ms, number, wait)
                                   for number, wait in enumerate(self.waits)):
            self.end_wait(wait, _EMPTY)

    def serve(self) -> None:
        """Those who wait at queues that changed, in the order of asking, each up to its count."""
        touched, self.touched = dict.fromkeys(self.touched), []
        for name in touched:
            while self.waiting(name) and self.queue(name).ready:
                wait = self.waiting(name)[0]
                self.end_wait(wait, self._fetch(wait))
        self.touched = []
        self.settle()

    # --- receipts

    def _prepare_ack(self, command: bytes) -> Prepared:
        receipts = queuecommands.decode_ack(command)
        return self._receipts(receipts, self.ack)

    def _prepare_nack(self, command: bytes) -> Prepared:
        delay_ms, text, receipts = queuecommands.decode_nack(command)
        if delay_ms is not None and delay_ms > self.config.delay_ms_max:
            return _limit(b"delay_ms_max")
        return self._receipts(receipts, lambda lease: self.give_back(
            lease, self.now_ms, Reason.NACKED, text, delay_ms))

    def _prepare_extend(self, command: bytes) -> Prepared:
        lease_ms, receipts = queuecommands.decode_extend(command)
        if not 1 <= lease_ms <= self.config.lease_ms_max:
            return _limit(b"lease_ms: 1 to lease_ms_max")
        return self._receipts(receipts, lambda lease: self.extend(lease, lease_ms))

    def _receipts(self, receipts: list[tuple[int, int]],
                  end: Callable[[Lease], Outcome]) -> Prepared:
        def perform() -> Result:
            outcomes = []
            for receipt in receipts:
                lease = self.find(*receipt)
                outcomes.append(Outcome.STALE if lease is None else end(lease))
            return _OK, queueresults.encode_outcomes_result(outcomes)
        return _OK, perform

    # --- a queue as a whole

    def _prepare_configure(self, command: bytes) -> Prepared:
        name, changes = queuecommands.decode_configure(command)
        for setting, text in ((Setting.TTL_MS, b"ttl_ms_max"),
                              (Setting.DEDUP_WINDOW_MS, b"ttl_ms_max"),
                              (Setting.BACKOFF_MS, b"delay_ms_max"),
                              (Setting.BACKOFF_MAX_MS, b"delay_ms_max")):
            if changes.get(setting, 0) > getattr(self.config, text.decode()):
                return _limit(text)
        if changes.get(Setting.DEAD_LETTER) == name:
            return _limit(b"a queue is not its own dead-letter queue")

        def perform() -> Result:
            queue = self.make(name)
            queue.settings = (queue.settings or {}) | changes
            return _OK, b""
        return _OK, perform

    def _prepare_delete_queue(self, command: bytes) -> Prepared:
        name = queuecommands.decode_delete_queue(command)

        def perform() -> Result:
            if self.is_vacant(name):
                return _EMPTY
            if self.waiting(name):
                return int(Status.IN_USE), b"somebody waits at the queue"
            if self.held(name):
                return int(Status.IN_USE), b"messages are ready, delayed or leased"
            self.touched.append(name)
            del self.queues[name]
            return _OK, b""
        return _OK, perform

    def _prepare_purge(self, command: bytes) -> Prepared:
        name, limit = queuecommands.decode_purge(command)
        if not 1 <= limit <= self.config.purge_count_max:
            return _limit(b"limit: 1 to purge_count_max")

        def perform() -> Result:
            queue = self.make(name)
            ready = sorted(queue.ready, key=lambda m: m.place)
            delayed = sorted(queue.delayed, key=lambda one: (one[0], one[1].place))
            removed = (ready + [message for _, message in delayed])[:limit]
            queue.ready, queue.delayed = ready[limit:], delayed[max(0, limit - len(ready)):]
            for message in removed:
                self.gone[message.id] = "purged"
            return _OK, queueresults.encode_purge_result(
                len(removed), len(queue.ready) + len(queue.delayed))
        return _OK, perform

    def _prepare_redrive(self, command: bytes) -> Prepared:
        name, to, limit = queuecommands.decode_redrive(command)
        if to == name:
            return _limit(b"a queue's dead letters go to another queue")
        if not 1 <= limit <= self.config.redrive_count_max:
            return _limit(b"limit: 1 to redrive_count_max")

        def perform() -> Result:
            queue = self.make(name)
            seen = self.in_order(name)[:_SEEN_PER_MOVED * limit]
            moving = [m for m in seen if (to or m.origin) not in (b"", name)][:limit]
            for message in moving:
                queue.ready.remove(message)
                self.move(to or message.origin, message, b"",
                          self.event(message, Reason.REDRIVEN))
            return _OK, queueresults.encode_redrive_result(len(moving), len(queue.ready))
        return _OK, perform

    # --- looking

    def _prepare_peek(self, command: bytes) -> Prepared:
        name, count = commands.decode_peek(command)
        if not 1 <= count <= self.config.dequeue_count_max:
            return _limit(_COUNT_TEXT)

        def perform() -> Result:
            found = self.in_order(name)[:count]
            return (_OK, _messages(found)) if found else _EMPTY
        return _OK, perform

    def _prepare_size(self, command: bytes) -> Prepared:
        name = commands.decode_size(command)

        def perform() -> Result:
            ready = self.queue(name).ready
            return _OK, commands.encode_size_result(len(ready), sum(len(m.body) for m in ready))
        return _OK, perform

    def _prepare_queues(self, command: bytes) -> Prepared:
        after, limit = commands.decode_queues(command)
        if not limit:
            return _limit(b"limit: at least 1")

        def perform() -> Result:
            names = [name for name in sorted(self.queues) if name > after
                     and (self.held(name) or self.queue(name).settings is not None)]
            return _OK, commands.encode_queue_list(
                [(name, len(self.queue(name).ready)) for name in names[:limit]])
        return _OK, perform

    def _prepare_describe(self, command: bytes) -> Prepared:
        name = queuecommands.decode_describe(command)

        def perform() -> Result:
            queue, held = self.queue(name), self.held(name)
            settings = {setting: self.setting(name, setting) for setting in SETTING_DEFAULTS}
            return _OK, queueresults.encode_describe_result(queueresults.Description(
                queue.settings is not None, len(queue.ready), sum(len(m.body) for m in queue.ready),
                len(queue.delayed), len(self.leased(name)), len(self.waiting(name)),
                sum(len(m.body) for m in held), len(queue.dedup), settings))
        return _OK, perform

    def _prepare_leases(self, command: bytes) -> Prepared:
        name, limit = queuecommands.decode_leases(command)
        if not 1 <= limit <= self.config.shown_count_max:
            return _limit(b"limit: 1 to shown_count_max")

        def perform() -> Result:
            found = [(lease.message.id, lease.delivery, lease.deadline_ms, lease.taken_ms,
                      lease.message.deliveries, lease.consumer)
                     for lease in self.leased(name)[:limit]]
            return (_OK, queueresults.encode_leases_result(self.now_ms, found)) if found else _EMPTY
        return _OK, perform

    def _prepare_inspect(self, command: bytes) -> Prepared:
        name, limit = queuecommands.decode_inspect(command)
        if not 1 <= limit <= self.config.shown_count_max:
            return _limit(b"limit: 1 to shown_count_max")

        def perform() -> Result:
            found = [(m.id, m.priority, m.deliveries, m.expires_ms, m.origin, m.history, m.body)
                     for m in self.in_order(name)[:limit]]
            return (_OK, queueresults.encode_inspect_result(self.now_ms, found)
                    ) if found else _EMPTY
        return _OK, perform

    def holds(self, condition: TransactCondition) -> bool:
        """Whether that is so now."""
        if isinstance(condition, KeyCondition):
            return self.key_is(condition.key, condition.condition)
        if isinstance(condition, QueueCondition):
            return (condition.at_least <= len(self.queue(condition.queue).ready)
                    <= condition.at_most)
        return self.find(*condition) is not None


def _messages(messages: list[Message]) -> bytes:
    return commands.encode_messages([(message.id, message.body) for message in messages])
