"""The section of a snapshot with all messages that are not ready and plain.

Rules: as in sections.py. In order of the queues' names; of each the leased ones by delivery, the
delayed ones as they are due, the ready ones by priority and place. Whether a message that came back
lies in a heap or in a deque (queue.py) is no state: it is loaded into the heap where the queue has
a lease of a later message of its priority, which may come back too, and else into its place in the
deque. Deadlines are put in order a piece at a time, as nothing asks for them before the end.

Elsewhere: plain messages (sections.py, queuesections.py).
"""

import struct
from collections import deque
from collections.abc import Iterator

from raftnet.errors import MalformedError
from raftnet.machine.leases import Lease
from raftnet.machine.machine import Machine
from raftnet.machine.message import Message, later
from raftnet.machine.queue import Level, Queue
from raftnet.machine.sectionitems import name_item, take, take_counted, take_name, take_text
from raftnet.wire.queueresults import Event, Reason, encode_history, take_history

# Where it is, place, id, priority, deliveries, expiry, due or deadline, delivery, taken; then
# consumer, origin, history and the bytes.
_MESSAGE = struct.Struct(">BQQBIQQQQ")
_U32 = struct.Struct(">I")
_LEASED, _DELAYED, _READY = 1, 2, 3         # where a message is, in this order
_REASONS = frozenset(map(int, Reason))
_TEXTS_MAX = 1_000      # different ones of histories that are remembered while loading


def message_items(machine: Machine) -> Iterator[bytes]:
    """All messages that are not ready and plain."""
    by_name = machine.executor.queues.by_name
    for name in sorted(by_name):
        queue = by_name[name]
        head = name_item(name)
        if queue.leased:
            for delivery, lease in sorted(queue.leased.items()):
                yield _message(head, _LEASED, lease.message, lease.deadline_ms, delivery,
                               lease.taken_ms, lease.consumer)
        if queue.delayed:
            held = sorted(queue.delayed.by_place.values(),
                          key=lambda pair: (pair[0], pair[1].place))
            for due_ms, message in held:
                yield _message(head, _DELAYED, message, due_ms)
        if queue.special:
            for message in sorted(queue.special.values(),
                                  key=lambda message: (message.priority, message.place)):
                yield _message(head, _READY, message)


def _message(head: bytes, where: int, message: Message, until_ms: int = 0, delivery: int = 0,
             taken_ms: int = 0, consumer: bytes = b"") -> bytes:
    return b"".join((
        head, _MESSAGE.pack(where, message.place, message.id, message.priority, message.deliveries,
                            message.expires_ms, until_ms, delivery, taken_ms),
        name_item(consumer), name_item(message.origin), encode_history(message.history),
        _U32.pack(len(message.body)), message.body))


class MessageLoader:
    """Loads them. The messages that are loaded into a deque come in the order of their places, and
    the deque is turned along with them, so that each step is short however long it is."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self._executor = executor = machine.executor
        self._config = executor.config
        self._deadline_ms_max = later(machine.time_ms, executor.config.lease_ms_max)
        self._due_ms_max = later(machine.time_ms, executor.config.delay_ms_max)
        self._name = b""                # of the queue of the last item
        self._queue: Queue | None = None
        self._order = (0, 0, 0)         # of the last item in its queue
        self._consumer = b""            # of the last lease: mostly the same object serves
        self._texts: dict[bytes, bytes] = {}    # of histories, for who has the same
        self._places: set[int] = set()          # of the queue's leased or delayed messages
        self._highest: dict[int, int] = {}      # the highest leased place by priority
        self._turning: Level | None = None      # whose deques are being turned
        self._ahead = 0                         # how many of it have not been passed

    def item(self, piece: bytes, offset: int, first: bool) -> int:
        """One message; the offset behind it."""
        if first:
            self._put_in_order()
        name, offset = take_name(piece, offset)
        (where, place, message_id, priority, deliveries, expires_ms, until_ms, delivery,
         taken_ms) = take(_MESSAGE, piece, offset)
        consumer, offset = take_text(piece, offset + _MESSAGE.size)
        origin, offset = take_text(piece, offset)
        history: tuple[Event, ...] = ()
        if piece[offset:offset + 1] == b"\0":       # nearly always
            offset += 1
        else:
            history, offset = take_history(piece, offset)
            self._check_history(history)
            history = self._shared(history)
        body, offset = take_counted(piece, offset)
        if name != self._name:
            self._begin(name)
        if not (1 <= message_id <= place < self._executor.next_message_id
                and priority < self._config.priorities):
            raise MalformedError("state: a message of a place or priority that there is not")
        order = ((_LEASED, delivery, 0) if where == _LEASED else
                 (_DELAYED, until_ms, place) if where == _DELAYED else (_READY, priority, place))
        if (order <= self._order or not _LEASED <= where <= _READY or where != _LEASED
                and (delivery or taken_ms or consumer or where == _READY and until_ms)):
            raise MalformedError("state: messages are not in order, or more than they can be")
        message = Message(place, message_id, body, priority, deliveries, expires_ms, origin,
                          history)
        if where == _LEASED:
            self._lend(message, until_ms, delivery, taken_ms, consumer)
        elif where == _DELAYED:
            self._delay(message, until_ms)
        else:
            self._make_ready(message)
        self._order = order
        return offset

    def end(self) -> None:
        """The last queue is whole."""
        self._finish()

    def _check_history(self, history: tuple[Event, ...]) -> None:
        machine = self._machine
        if len(history) > self._config.history_max:
            raise MalformedError("state: more of a history than is kept")
        for event in history:
            if not (event.taken_ms <= event.ended_ms <= machine.time_ms
                    and 1 <= event.index <= machine.applied_index and event.reason in _REASONS):
                raise MalformedError("state: an event that cannot have been")

    def _shared(self, history: tuple[Event, ...]) -> tuple[Event, ...]:
        """The same, with one object for equal texts, as there mostly was where they came to be: a
        history takes many times the memory without."""
        texts = self._texts
        if len(texts) > _TEXTS_MAX:
            texts.clear()
        return tuple([event._replace(consumer=texts.setdefault(event.consumer, event.consumer),
                                     text=texts.setdefault(event.text, event.text))
                      for event in history])

    # --- one message

    def _keep(self, place: int) -> None:
        """It is the only one of its queue that has that place."""
        if place in self._places:
            raise MalformedError("state: two messages at one place")
        self._places.add(place)

    def _lend(self, message: Message, deadline_ms: int, delivery: int, taken_ms: int,
              consumer: bytes) -> None:
        leases = self._executor.leases
        if not (1 <= delivery < leases.next_delivery and delivery not in leases.by_delivery
                and len(leases.by_delivery) < self._config.leases_max):
            raise MalformedError("state: a delivery comes twice, or is one to come")
        if not (message.deliveries and taken_ms <= self._machine.time_ms
                and taken_ms <= deadline_ms <= self._deadline_ms_max):
            raise MalformedError("state: a lease that cannot have been given")
        place, priority = message.place, message.priority
        self._keep(place)
        if place > self._highest.get(priority, 0):
            self._highest[priority] = place
        if consumer != self._consumer:
            self._consumer = consumer
        lease = Lease(delivery, message, self._name, deadline_ms, taken_ms, self._consumer)
        leases.restore(lease)
        self._queue.lend(lease)

    def _delay(self, message: Message, due_ms: int) -> None:
        if not 1 <= due_ms <= self._due_ms_max:
            raise MalformedError("state: a delay that cannot have been given")
        self._keep(message.place)
        self._queue.delay(due_ms, message)

    def _make_ready(self, message: Message) -> None:
        queue, place, priority = self._queue, message.place, message.priority
        if self._order[0] != _READY:
            self._check_leased()
        if queue.waiters is not None:
            raise MalformedError("state: somebody waits at a queue with messages")
        if not (message.deliveries or message.expires_ms or message.origin or message.history
                or place != message.id):
            raise MalformedError("state: a plain message among those that are more")
        if place in self._places or queue.special and place in queue.special:
            raise MalformedError("state: two messages at one place")
        if self._order[:2] != (_READY, priority):
            self._end_turn()
        if place < self._highest.get(priority, 0):
            if not message.deliveries:
                raise MalformedError("state: a message that never left is before one that did")
            queue.put_returned(message)
            return
        level = queue if not priority else (queue.levels or {}).get(priority)
        if level is not None:
            self._turn(level, place)
        queue.put(place, message, priority)

    # --- into the deques

    def _turn(self, level: Level, place: int) -> None:
        """Let the plain messages before that place pass to the end of the deques."""
        if self._turning is None:
            self._turning, self._ahead = level, len(level.ids)
        passed = _count_below(level.ids, place, self._ahead)
        if passed < self._ahead and level.ids[passed] == place:
            raise MalformedError("state: two messages at one place")
        if passed:
            level.ids.rotate(-passed)
            level.messages.rotate(-passed)
            self._ahead -= passed

    def _end_turn(self) -> None:
        level = self._turning
        if level is not None and self._ahead:
            level.ids.rotate(-self._ahead)
            level.messages.rotate(-self._ahead)
        self._turning = None

    # --- one queue

    def _begin(self, name: bytes) -> None:
        if name < self._name:
            raise MalformedError("state: the queues of messages are not in order")
        self._finish()
        self._name = name
        self._queue = self._executor.queues.make(name)
        self._order = (0, 0, 0)
        self._places = set()
        self._highest = {}

    def _check_leased(self) -> None:
        """What is leased was taken before all that is plain."""
        queue = self._queue
        for priority, place in self._highest.items():
            level = queue if not priority else (queue.levels or {}).get(priority)
            if level is not None and level.ids and level.ids[0] <= place:
                raise MalformedError("state: a lease of a message that is behind a ready one")

    def _finish(self) -> None:
        if self._queue is None:
            return
        if self._order[0] != _READY:
            self._check_leased()
        self._end_turn()
        self._put_in_order()
        lifecycle, queue, name = self._executor.lifecycle, self._queue, self._name
        first = queue.delayed and queue.delayed.first()
        if first:
            lifecycle.delays.note(name, *first)
        first = queue.first_expiry()
        if first is not None:
            lifecycle.expiries.note(name, *first)

    def _put_in_order(self) -> None:
        """The deadlines of what was loaded since the last time."""
        self._executor.lifecycle.due_ms()
        if self._queue is not None:
            self._queue.first_expiry()
            if self._queue.delayed:
                self._queue.delayed.first()


def _count_below(places: deque[int], place: int, count: int) -> int:
    """How many of the first `count`, which ascend, are below `place`. Quick where these are few: a
    deque is slow in its middle."""
    high = 1
    while high < count and places[high - 1] < place:
        high *= 2
    low, high = high // 2, min(high, count)
    while low < high:
        middle = (low + high) // 2
        if places[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low
