"""ReferenceQueues: what becomes of messages, written for the reader and for nothing else.

The specification as a program: plain lists and dicts, sorted where order matters, no index, no
short cut. It shares no code with raftnet/machine. A message is in exactly one place: ready or
delayed in a queue, or leased; else it is gone, and `gone` says why. What a reply or a request may
hold at most is not modelled: those of simulated clients are small.

Elsewhere: which command does what of this (referencestate.py).
"""

from dataclasses import dataclass, field, replace

from raftnet.config import MachineConfig
from raftnet.wire.queuecommands import SETTING_DEFAULTS, Overflow, Setting
from raftnet.wire.queueresults import Event, Outcome, Reason

DEAD_ENDING = b".dead"
NAME_BYTES_MAX = 255


@dataclass(frozen=True)
class Message:
    """A message, wherever it is; what happens to it makes a new one of it."""

    id: int
    place: int                  # the order of delivery within a priority
    body: bytes
    priority: int = 0
    deliveries: int = 0
    expires_ms: int = 0         # 0: never
    origin: bytes = b""
    history: tuple[Event, ...] = ()


@dataclass
class Lease:
    """A delivery under way."""

    message: Message
    queue: bytes
    delivery: int
    deadline_ms: int
    taken_ms: int
    consumer: bytes


@dataclass
class Wait:
    """A dequeue, or with `lease_ms` a lease, that has no answer yet."""

    session: bytes
    first: int
    deadline_ms: int
    queue: bytes
    count: int
    lease_ms: int = 0
    consumer: bytes = b""


@dataclass
class Queue:
    """What is in a queue, but for what is leased."""

    ready: list[Message] = field(default_factory=list)
    delayed: list[tuple[int, Message]] = field(default_factory=list)    # (due ms, message)
    settings: dict[int, int | bytes] | None = None                      # None: never configured
    dedup: dict[bytes, tuple[int, int]] = field(default_factory=dict)   # -> message id, expires ms


def default_dead_letters(name: bytes) -> bytes:
    """Empty: the queue has none."""
    if name.endswith(DEAD_ENDING) or len(name + DEAD_ENDING) > NAME_BYTES_MAX:
        return b""
    return name + DEAD_ENDING


class ReferenceQueues:
    """All queues, leases and waits."""

    def __init__(self, config: MachineConfig):
        self.config = config
        self.now_ms = 0
        self.index = 0                          # of the entry that is being applied
        self.next_number = 1                    # the next message id and place
        self.next_delivery = 1
        self.queues: dict[bytes, Queue] = {}
        self.leases: dict[int, Lease] = {}      # by delivery
        self.waits: list[Wait] = []             # in the order of asking
        self.ended: list[tuple[Wait, tuple[int, bytes]]] = []
        # Queues of which anything was changed, in that order: somebody may be served there.
        self.touched: list[bytes] = []
        self.gone: dict[int, str] = {}          # message id -> why
        self.came: dict[int, bytes] = {}        # message id -> the queue into which it came

    # --- looking

    def queue(self, name: bytes) -> Queue:
        """Of that name; an empty one where there is none."""
        return self.queues.get(name) or Queue()

    def setting(self, name: bytes, setting: Setting):
        """Its value for that queue."""
        settings = self.queue(name).settings
        if settings is not None and setting in settings:
            return settings[setting]
        if setting == Setting.DELIVERY_LIMIT and not default_dead_letters(name):
            return 0
        return SETTING_DEFAULTS[setting]

    def dead_letters_of(self, name: bytes) -> bytes:
        """The queue that gets its dead letters; empty: none does."""
        return self.setting(name, Setting.DEAD_LETTER) or default_dead_letters(name)

    def in_order(self, name: bytes) -> list[Message]:
        """The ready messages in the order of delivery."""
        return sorted(self.queue(name).ready, key=lambda m: (-m.priority, m.place))

    def leased(self, name: bytes) -> list[Lease]:
        """The deliveries of that queue, the oldest first."""
        return sorted((lease for lease in self.leases.values() if lease.queue == name),
                      key=lambda lease: lease.delivery)

    def held(self, name: bytes) -> list[Message]:
        """All messages of that queue."""
        queue = self.queue(name)
        return (queue.ready + [message for _, message in queue.delayed]
                + [lease.message for lease in self.leased(name)])

    def waiting(self, name: bytes) -> list[Wait]:
        """Who waits there, in the order of asking."""
        return [wait for wait in self.waits if wait.queue == name]

    # --- coming

    def number(self) -> int:
        """The next of the counter for ids and places."""
        self.next_number += 1
        return self.next_number - 1

    def make(self, name: bytes) -> Queue:
        """The queue of that name, new where there was none. One with nothing in it counts as none
        (`settle`)."""
        self.touched.append(name)
        return self.queues.setdefault(name, Queue())

    def settle(self) -> None:
        """A queue in which nothing is does not exist."""
        for name in list(self.queues):
            if self.is_vacant(name):
                del self.queues[name]

    def is_vacant(self, name: bytes) -> bool:
        """Nothing is there, not even settings."""
        queue = self.queue(name)
        return not (self.held(name) or self.waiting(name) or queue.dedup
                    or queue.settings is not None)

    def add(self, name: bytes, body: bytes, priority: int, delay_ms: int, ttl_ms: int) -> int:
        """A new message; its id. Its time begins when it is ready for the first time."""
        queue = self.make(name)
        number = self.number()
        self.came[number] = name
        ready_ms = self.now_ms + delay_ms
        message = Message(number, number, body, priority, expires_ms=ready_ms + ttl_ms
                          if ttl_ms else 0)
        if delay_ms:
            queue.delayed.append((ready_ms, message))
        else:
            queue.ready.append(message)
        return number

    def full(self, name: bytes, bodies: list[bytes]) -> bytes:
        """The maximum of the queue that these would pass; empty: they fit."""
        held = self.held(name)
        messages_max = self.setting(name, Setting.MESSAGES_MAX)
        bytes_max = self.setting(name, Setting.BYTES_MAX)
        if messages_max and len(held) + len(bodies) > messages_max:
            return b"messages_max"
        if bytes_max and sum(len(m.body) for m in held) + sum(map(len, bodies)) > bytes_max:
            return b"bytes_max"
        return b""

    def make_room(self, name: bytes, bodies: list[bytes]) -> bytes:
        """Let these fit, by sending the oldest ready messages to the dead letters where the queue
        was told so; else the maximum that they pass. One enqueue does a bounded work, so much that
        the new ones are taken all the same."""
        full, dead = self.full(name, bodies), self.dead_letters_of(name)
        if not full:
            return b""
        self.make(name)
        others = ([message for _, message in self.queue(name).delayed]
                  + [lease.message for lease in self.leased(name)])
        size = sum(map(len, bodies))
        never = (0 < self.setting(name, Setting.MESSAGES_MAX) < len(others) + len(bodies)
                 or 0 < self.setting(name, Setting.BYTES_MAX) < size + sum(
                     len(m.body) for m in others))
        if self.setting(name, Setting.OVERFLOW) == Overflow.REFUSE or not dead or never:
            return full
        for _ in range(len(bodies) + size // self.config.overflow_extra_bytes
                       + self.config.overflow_extra_max):
            ready = self.queues[name].ready
            if not self.full(name, bodies):
                break
            oldest = min(ready, key=lambda m: m.place)
            ready.remove(oldest)
            self.bury(name, dead, oldest, self.event(oldest, Reason.OVERFLOW))
        return b""

    # --- moving

    def event(self, message: Message, reason: Reason) -> Event:
        """What becomes of a message that is not leased."""
        return Event(0, self.now_ms, self.index, message.deliveries, int(reason), b"", b"")

    def bury(self, name: bytes, dead: bytes, message: Message, event: Event) -> None:
        """A message of the queue `name` becomes a dead letter, however full their queue is."""
        self.move(dead, message, message.origin or name, event)

    def move(self, to: bytes, message: Message, origin: bytes, event: Event) -> None:
        """To the end of another queue, as if it were new there, but for its id and history."""
        queue = self.make(to)
        ttl_ms = self.setting(to, Setting.TTL_MS)
        queue.ready.append(replace(
            message, place=self.number(), deliveries=0, origin=origin,
            expires_ms=self.now_ms + ttl_ms if ttl_ms else 0,
            history=(message.history + (event,))[-self.config.history_max:]))

    def time_out(self, name: bytes, message: Message) -> None:
        """Its time has ended: it is dropped, or a dead letter where a queue for these was named,
        unless the end of its time is the last that happened to it."""
        named = self.setting(name, Setting.DEAD_LETTER)
        if named and (not message.history or message.history[-1].reason != Reason.TTL_EXPIRED):
            self.bury(name, named, message, self.event(message, Reason.TTL_EXPIRED))
        else:
            self.gone[message.id] = "expired"

    # --- deliveries

    def take(self, name: bytes, count: int) -> list[Message]:
        """The next messages, for good."""
        taken = self.in_order(name)[:count]
        for message in taken:
            self.make(name).ready.remove(message)
            self.gone[message.id] = "dequeued"
        return taken

    def lease(self, name: bytes, count: int, lease_ms: int, consumer: bytes) -> list[Lease]:
        """The next messages, for so long."""
        leases = []
        for message in self.in_order(name)[:count]:
            self.make(name).ready.remove(message)
            message = replace(message, deliveries=message.deliveries + 1)
            lease = Lease(message, name, self.next_delivery, self.now_ms + lease_ms, self.now_ms,
                          consumer)
            self.next_delivery += 1
            self.leases[lease.delivery] = lease
            leases.append(lease)
        return leases

    def find(self, message_id: int, delivery: int) -> Lease | None:
        """The lease of that receipt. Past its deadline it has ended, whether or not that was
        carried out."""
        lease = self.leases.get(delivery)
        if lease is None or lease.message.id != message_id or lease.deadline_ms <= self.now_ms:
            return None
        return lease

    def ack(self, lease: Lease) -> Outcome:
        """The message is done with."""
        del self.leases[lease.delivery]
        self.touched.append(lease.queue)
        self.gone[lease.message.id] = "acknowledged"
        return Outcome.DONE

    def extend(self, lease: Lease, lease_ms: int) -> Outcome:
        """The lease ends so long from now."""
        lease.deadline_ms = self.now_ms + lease_ms
        return Outcome.DONE

    def give_back(self, lease: Lease, ended_ms: int, reason: Reason, text: bytes,
                  delay_ms: int | None) -> Outcome:
        """A delivery ended without success: the message is ready again at its old place, or later;
        or it is a dead letter; or its time has ended meanwhile."""
        name, message = lease.queue, lease.message
        del self.leases[lease.delivery]
        queue = self.make(name)
        event = Event(lease.taken_ms, ended_ms, self.index, message.deliveries, int(reason),
                      lease.consumer, text)
        dead, limit = self.dead_letters_of(name), self.setting(name, Setting.DELIVERY_LIMIT)
        if dead and 0 < limit <= message.deliveries:
            self.bury(name, dead, message, event)
            return Outcome.DEAD_LETTERED
        message = replace(message, history=(message.history + (event,))[-self.config.history_max:])
        if delay_ms is None:
            delay_ms = min(self.setting(name, Setting.BACKOFF_MAX_MS),
                           self.setting(name, Setting.BACKOFF_MS) * 2 ** (message.deliveries - 1))
        if 0 < message.expires_ms <= self.now_ms:
            self.time_out(name, message)
        elif delay_ms:
            due_ms = self.now_ms + delay_ms
            # Its time may end before: then that is the end of the delay.
            queue.delayed.append((min(due_ms, message.expires_ms or due_ms), message))
        else:
            queue.ready.append(message)
        return Outcome.DONE

    # --- time

    def expire(self) -> None:
        """What is due by now, at most so many of each kind with one entry, by time and number."""
        for lease in self.first_due((lease.deadline_ms, lease.delivery, lease)
                                    for lease in self.leases.values()):
            self.give_back(lease, lease.deadline_ms, Reason.LEASE_EXPIRED, b"", 0)
        for name, message in self.first_due(
                (due_ms, message.place, (name, message))
                for name, queue in self.queues.items() for due_ms, message in queue.delayed):
            self.end_delay(name, message)
        for name, message in self.first_due(
                (message.expires_ms, message.place, (name, message))
                for name, queue in self.queues.items() for message in queue.ready
                if message.expires_ms):
            self.make(name).ready.remove(message)
            self.time_out(name, message)
        for name, dedup_id in self.first_due(
                (expires_ms, message_id, (name, dedup_id))
                for name, queue in self.queues.items()
                for dedup_id, (message_id, expires_ms) in queue.dedup.items()):
            del self.make(name).dedup[dedup_id]

    def first_due(self, all_of_a_kind) -> list:
        """Those of (time, number, what) that are due, as many as one entry carries out."""
        due = sorted((one for one in all_of_a_kind if one[0] <= self.now_ms),
                     key=lambda one: one[:2])
        return [what for _, _, what in due[:self.config.expiries_per_entry_max]]

    def end_delay(self, name: bytes, message: Message) -> None:
        """It is ready now, behind all others of its priority; or its time has ended."""
        queue = self.make(name)
        queue.delayed = [one for one in queue.delayed if one[1] is not message]
        if 0 < message.expires_ms <= self.now_ms:
            self.time_out(name, message)
        else:
            queue.ready.append(replace(message, place=self.number()))

    # --- whether the model is in order itself

    def check(self) -> None:
        """Each message that came is in exactly one place."""
        places = [m.id for queue in self.queues.values() for m in queue.ready]
        places += [m.id for queue in self.queues.values() for _, m in queue.delayed]
        places += [lease.message.id for lease in self.leases.values()]
        places += self.gone
        assert sorted(places) == sorted(self.came), "work conservation in the model"
