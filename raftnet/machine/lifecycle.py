"""The life of a message beside its way through a queue: deliveries under a lease and their ends,
delays, times to live, dead letters (protocol.md, Life of a message).

Rules: at every moment a message is exactly one of ready, delayed or leased, or it is gone: taken,
acknowledged, purged, or at the end of its time. Whatever changes inside of an atomic list is noted
in the executor's journal with what takes it back. One entry carries out a bounded number of what is
due of each kind, in the order of (time, number); what is left is due with the next entry.

Elsewhere: how messages come in (intake.py), where they are (queue.py), the commands
(queueoperations.py).
"""

from raftnet.machine.agenda import Agenda
from raftnet.machine.leases import Lease
from raftnet.machine.message import Message, later
from raftnet.machine.queue import MESSAGE_OVERHEAD_BYTES, Queue
from raftnet.machine.queues import Queues
from raftnet.machine.settings import default_dead_letter, defaults_of
from raftnet.wire.commands import Status
from raftnet.wire.queueresults import Event, Reason, encode_lease_result

OK, LIMIT, REPLY_FULL = int(Status.OK), int(Status.LIMIT), int(Status.REPLY_FULL)
_LEASE_EXPIRED, _TTL_EXPIRED = int(Reason.LEASE_EXPIRED), int(Reason.TTL_EXPIRED)
# What a leased message costs beside its bytes: MESSAGE_OVERHEAD_BYTES, delivery, deliveries.
LEASED_OVERHEAD_BYTES = MESSAGE_OVERHEAD_BYTES + 12
_DOUBLINGS_MAX = 63         # of a back-off: more than any maximum

Result = tuple[int, bytes]


class Lifecycle:
    """What becomes of the messages of an executor's queues."""

    __slots__ = ("delays", "expiries", "dedups", "_executor", "_config")

    def __init__(self, executor):
        self._executor = executor
        self._config = executor.config
        queues = executor.queues
        self.delays = _agenda(queues, Queue.first_delay)
        self.expiries = _agenda(queues, Queue.first_expiry)
        self.dedups = _agenda(queues, lambda queue: queue.dedup and queue.dedup.first())
        queues.agendas = (self.delays, self.expiries, self.dedups)

    # --- into queues

    def place(self) -> int:
        """A new place, behind all others."""
        executor = self._executor
        place = executor.next_message_id
        executor.next_message_id = place + 1
        return place

    def put(self, name: bytes, queue: Queue, message: Message) -> None:
        """A message becomes ready, at its place."""
        queue.put(message.place, message, message.priority)
        if message.expires_ms:
            self.expiries.note(name, message.expires_ms, message.place)
        executor = self._executor
        if executor.journal is not None:
            executor.journal.append((queue.undo_put, message, message.priority))
        executor.touched(name)

    def delay(self, name: bytes, queue: Queue, due_ms: int, message: Message) -> None:
        """A message becomes delayed."""
        queue.delay(due_ms, message)
        self.delays.note(name, due_ms, message.place)
        executor = self._executor
        if executor.journal is not None:
            executor.journal.append((queue.undo_delay, due_ms, message))
        executor.touched(name)

    def bury(self, name: bytes, dead: bytes, message: Message, event: Event) -> None:
        """A message of the queue `name`, which is nowhere any more, becomes a dead letter at the
        end of the queue `dead`, however full that is."""
        self._move(dead, message, message.origin or name, event)

    def send_back(self, to: bytes, message: Message, event: Event) -> None:
        """A dead letter, which is nowhere any more, becomes an ordinary message again."""
        self._move(to, message, b"", event)

    def _move(self, to: bytes, message: Message, origin: bytes, event: Event) -> None:
        queue = self._executor.queues.make(to)
        ttl_ms = 0 if queue.settings is None else queue.settings.ttl_ms
        self.put(to, queue, Message(
            self.place(), message.id, message.body, message.priority, 0,
            later(self._executor.now_ms, ttl_ms) if ttl_ms else 0, origin,
            self._with_event(message, event)))

    def _with_event(self, message: Message, event: Event) -> tuple[Event, ...]:
        return (message.history + (event,))[-self._config.history_max:]

    def dead_letters_of(self, name: bytes, queue: Queue) -> bytes:
        """The queue that gets its dead letters; empty: none does."""
        settings = queue.settings
        return settings and settings.dead_letter or default_dead_letter(name)

    # --- deliveries

    def lease(self, name: bytes, queue: Queue, count: int, room: int, lease_ms: int,
              consumer: bytes) -> tuple[Result, int]:
        """Take up to `count` messages for so long; the result, and the room that is left. At least
        one is ready."""
        executor = self._executor
        leases = executor.leases
        count = min(count, self._config.leases_max - leases.by_delivery.size)
        if count <= 0:
            return (LIMIT, b"leases_max"), room
        if queue.special is None and queue.levels is None:      # all are plain, of priority 0
            if count == 1:
                return self.lease_one(name, queue, room, lease_ms, consumer)
            plain, room = queue.take(count, room, LEASED_OVERHEAD_BYTES)
            items = [(place, body, 0) for place, body in plain]
        else:
            items, room = queue.take_mixed(count, room, LEASED_OVERHEAD_BYTES)
        if not items:
            return (REPLY_FULL, b""), room
        now_ms = executor.now_ms
        deadline_ms = later(now_ms, lease_ms)
        leased, rows = [], []
        delivery = leases.next_delivery
        for place, what, priority in items:
            if type(what) is bytes:
                message = Message(place, place, what, priority, 1, 0, b"", ())
            else:
                message = Message(place, what.id, what.body, priority, what.deliveries + 1,
                                  what.expires_ms, what.origin, what.history)
            leased.append(Lease(delivery, message, name, deadline_ms, now_ms, consumer))
            rows.append((message.id, delivery, message.deliveries, message.body))
            delivery += 1
        leases.begin(leased)
        queue.lend_all(leased)
        if executor.journal is not None:
            executor.journal.append((self._undo_lease, queue, leased, items))
        executor.touched(name)
        return (OK, encode_lease_result(rows)), room

    def lease_one(self, name: bytes, queue: Queue, room: int, lease_ms: int,
                  consumer: bytes) -> tuple[Result, int]:
        """`lease` of one message where all are plain, in a straight line. Outside of a list nothing
        is to be settled afterwards: nobody waits, what is out keeps the queue, and no plain message
        is ever due."""
        executor = self._executor
        leases = executor.leases
        body = queue.messages[0]
        size = len(body)
        if size + LEASED_OVERHEAD_BYTES > room:
            return (REPLY_FULL, b""), room
        queue.messages.popleft()
        place = queue.ids.popleft()
        queue.size_bytes -= size
        now_ms = executor.now_ms
        delivery = leases.next_delivery
        lease = Lease(delivery, Message(place, place, body, 0, 1, 0, b"", ()), name,
                      later(now_ms, lease_ms), now_ms, consumer)
        leases.begin_one(lease)
        queue.lend(lease)
        if executor.journal is not None:
            executor.journal.append((self._undo_lease, queue, [lease], [(place, body, 0)]))
            executor.touched(name)
        elif executor.queue_watch is not None:
            executor.queue_watch.add(name)
        return ((OK, encode_lease_result([(place, delivery, 1, body)])),
                room - size - LEASED_OVERHEAD_BYTES)

    def _undo_lease(self, queue: Queue, leased: list[Lease], items: list) -> None:
        for lease in reversed(leased):
            queue.end_lending(lease)
            self._executor.leases.end(lease)
        queue.put_back(items)

    def held(self, message_id: int, delivery: int) -> Lease | None:
        """The lease of that receipt, unless it has ended."""
        lease = self._executor.leases.by_delivery.get(delivery)
        if (lease is None or lease.message.id != message_id
                or lease.deadline_ms <= self._executor.now_ms):
            return None
        return lease

    def finish(self, lease: Lease) -> Queue:
        """The delivery has ended, and its message is nowhere any more; the queue it was of."""
        executor = self._executor
        queue = executor.queues.by_name[lease.queue]
        executor.leases.end(lease)
        queue.end_lending(lease)
        if executor.journal is not None:
            executor.journal.append((self._undo_finish, queue, lease))
        executor.touched(lease.queue)
        return queue

    def acknowledge(self, lease: Lease) -> None:
        """`finish`, of a message that is done with. That makes nothing ready, so outside of a list
        nothing is to be settled while what else is leased keeps the queue."""
        executor = self._executor
        queue = executor.queues.by_name[lease.queue]
        if executor.journal is not None or queue.leased.size == 1:
            self.finish(lease)
            return
        executor.leases.end(lease)
        queue.end_lending(lease)
        if executor.queue_watch is not None:
            executor.queue_watch.add(lease.queue)

    def _undo_finish(self, queue: Queue, lease: Lease) -> None:
        queue.lend(lease)
        self._executor.leases.restore(lease)

    def extend(self, lease: Lease, lease_ms: int) -> None:
        """The lease ends so long from now."""
        executor = self._executor
        before_ms = lease.deadline_ms
        executor.leases.extend(lease, later(executor.now_ms, lease_ms))
        if executor.journal is not None:
            executor.journal.append((executor.leases.extend, lease, before_ms))

    def give_back(self, lease: Lease, ended_ms: int, reason: int, text: bytes,
                  delay_ms: int | None) -> bool:
        """The delivery ended without success: the message comes back after `delay_ms` (None: the
        queue's back-off), or is a dead letter, which is the answer, or its time has ended."""
        executor = self._executor
        name, message = lease.queue, lease.message
        queue = self.finish(lease)
        settings = queue.settings or defaults_of(name)
        event = Event(lease.taken_ms, ended_ms, executor.index, message.deliveries, reason,
                      lease.consumer, text)
        dead = self.dead_letters_of(name, queue)
        if dead and 0 < settings.delivery_limit <= message.deliveries:
            self.bury(name, dead, message, event)
            return True
        message = Message(message.place, message.id, message.body, message.priority,
                          message.deliveries, message.expires_ms, message.origin,
                          self._with_event(message, event))
        if delay_ms is None:
            delay_ms = min(settings.backoff_max_ms, settings.backoff_ms
                           << min(message.deliveries - 1, _DOUBLINGS_MAX))
        if message.expires_ms and message.expires_ms <= executor.now_ms:
            self._time_out(name, queue, message)
        elif delay_ms:
            due_ms = later(executor.now_ms, delay_ms)
            if message.expires_ms:
                due_ms = min(due_ms, message.expires_ms)
            self.delay(name, queue, due_ms, message)
        else:
            self.put(name, queue, message)
        return False

    # --- what is due

    def due_ms(self) -> int:
        """Nothing here is due before this."""
        return min(self._executor.leases.due_ms(), self.delays.due_ms(), self.expiries.due_ms(),
                   self.dedups.due_ms())

    def earliest_ms(self) -> int | None:
        """Replicated time at which something here is due next; None: never."""
        lease = self._executor.leases.earliest()
        times = [] if lease is None else [lease.deadline_ms]
        for agenda in (self.delays, self.expiries, self.dedups):
            first = agenda.earliest()
            if first is not None:
                times.append(first[0])
        return min(times, default=None)

    def carry_out(self) -> None:
        """What is due by now, at most `expiries_per_entry_max` of each kind."""
        executor, limit = self._executor, self._config.expiries_per_entry_max
        assert executor.journal is None, "time does not pass inside of an atomic list"
        now_ms = executor.now_ms
        for _ in range(limit):
            lease = executor.leases.earliest()
            if lease is None or lease.deadline_ms > now_ms:
                break
            self.give_back(lease, lease.deadline_ms, _LEASE_EXPIRED, b"", 0)
        for agenda, carry_out in ((self.delays, self._end_delay), (self.expiries, self._expire),
                                  (self.dedups, self._forget)):
            for _ in range(limit):
                first = agenda.earliest()
                if first is None or first[0] > now_ms:
                    break
                name = first[2]
                executor.touched(name)
                carry_out(name, executor.queues.by_name[name])

    def _end_delay(self, name: bytes, queue: Queue) -> None:
        _, message = queue.end_delay()
        if message.expires_ms and message.expires_ms <= self._executor.now_ms:
            self._time_out(name, queue, message)
        else:
            self.put(name, queue, Message(
                self.place(), message.id, message.body, message.priority, message.deliveries,
                message.expires_ms, message.origin, message.history))

    def _expire(self, name: bytes, queue: Queue) -> None:
        self._time_out(name, queue, queue.expire())

    def _forget(self, _: bytes, queue: Queue) -> None:
        queue.dedup.remove_first()
        self._executor.dedup_count -= 1

    def _time_out(self, name: bytes, queue: Queue, message: Message) -> None:
        """A message that is nowhere any more has come to the end of its time: it is gone, or a dead
        letter where the queue was told of a queue for these. Where that was the last that
        happened to it too, it is gone: queues could send it round in a circle for ever."""
        dead = queue.settings.dead_letter if queue.settings is not None else b""
        if dead and not (message.history and message.history[-1].reason == _TTL_EXPIRED):
            executor = self._executor
            self.bury(name, dead, message, Event(
                0, executor.now_ms, executor.index, message.deliveries, _TTL_EXPIRED, b"", b""))


def _agenda(queues: Queues, first_of) -> Agenda:
    by_name = queues.by_name

    def look(name: bytes) -> tuple[int, int] | None:
        queue = by_name.get(name)
        return None if queue is None else first_of(queue) or None

    return Agenda(look)
