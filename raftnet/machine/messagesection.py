"""The section of a snapshot with all messages that are not ready and plain.

Rules: as in sections.py. In order of the queues' names; of each the leased ones by delivery, the
delayed ones as they are due, the ready ones by priority and place. These are compared with the
plain ones of their priority, which were loaded before, in one pass along both.

Elsewhere: plain messages (sections.py, queuesections.py).
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice

from raftnet.errors import MalformedError
from raftnet.machine.leases import Lease
from raftnet.machine.machine import Machine
from raftnet.machine.message import Message, later
from raftnet.machine.queue import Level, Queue
from raftnet.machine.sectionitems import name_item, take, take_counted, take_name, take_text
from raftnet.machine.sortednames import SortedNames
from raftnet.wire.queueresults import Event, Reason, encode_history, take_history

# Where it is, place, id, priority, deliveries, expiry, due or deadline, delivery, taken; then
# consumer, origin, history and the bytes.
_MESSAGE = struct.Struct(">BQQBIQQQQ")
_U32 = struct.Struct(">I")
_LEASED, _DELAYED, _READY = 1, 2, 3         # where a message is, in this order
_REASONS = frozenset(map(int, Reason))
_TEXTS_MAX = 1_000      # different ones of histories that are remembered while loading
_RUN_PLACES = 4_096     # of plain messages that are passed at a time


def message_items(machine: Machine) -> Iterator[bytes]:
    """All messages that are not ready and plain."""
    executor = machine.executor
    by_name = executor.queues.by_name
    for name in sorted(by_name):
        queue = by_name[name]
        head = name_item(name)
        for lease in queue.leases(executor.leases):
            yield _message(head, _LEASED, lease.message, lease.deadline_ms, lease.delivery,
                           lease.taken_ms, lease.consumer)
        for due_ms, _, message in queue.delayed or ():
            yield _message(head, _DELAYED, message, due_ms)
        for _, level in ((0, queue), *sorted((queue.levels or {}).items())):
            for _, message in level.special or ():
                yield _message(head, _READY, message)


def _message(head: bytes, where: int, message: Message, until_ms: int = 0, delivery: int = 0,
             taken_ms: int = 0, consumer: bytes = b"") -> bytes:
    return b"".join((
        head, _MESSAGE.pack(where, message.place, message.id, message.priority, message.deliveries,
                            message.expires_ms, until_ms, delivery, taken_ms),
        name_item(consumer), name_item(message.origin), encode_history(message.history),
        _U32.pack(len(message.body)), message.body))


class MessageLoader:
    """Loads them."""

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
        self._places = SortedNames()            # of the queue's messages that were loaded here
        self._highest: dict[int, int] = {}      # the highest leased place by priority
        # Places of the plain messages of the priority that ready ones are loaded into: some that
        # may lie around the last one's, and those behind.
        self._run: list[int] = []
        self._behind: Iterator[int] = iter(())

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """One message; the offset behind it."""
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
        before = len(self._places)
        self._places.add(place)
        if len(self._places) == before:
            raise MalformedError("state: two messages at one place")

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
        self._keep(place)
        if self._order[:2] != (_READY, priority):
            level = self._level(priority)
            self._run, self._behind = [0], iter(level.ids if level is not None else ())
        self._pass_plain(place)
        if place < self._highest.get(priority, 0) and not message.deliveries:
            raise MalformedError("state: a message that never left is before one that did")
        queue.put(place, message, priority)

    def _pass_plain(self, place: int) -> None:
        """None of the plain ones of its priority has that place, which is behind the last one's."""
        run = self._run
        while run and run[-1] < place:
            run = self._run = list(islice(self._behind, _RUN_PLACES))
        at = bisect_left(run, place)
        if at < len(run) and run[at] == place:
            raise MalformedError("state: two messages at one place")

    def _level(self, priority: int) -> Level | None:
        """Of the queue, where it has plain messages of that priority."""
        return self._queue if not priority else (self._queue.levels or {}).get(priority)

    # --- one queue

    def _begin(self, name: bytes) -> None:
        if name < self._name:
            raise MalformedError("state: the queues of messages are not in order")
        self._finish()
        self._name = name
        self._queue = self._executor.queues.make(name)
        self._order = (0, 0, 0)
        self._places = SortedNames()
        self._highest = {}

    def _check_leased(self) -> None:
        """What is leased was taken before all that is plain."""
        for priority, place in self._highest.items():
            level = self._level(priority)
            if level is not None and level.ids and level.ids[0] <= place:
                raise MalformedError("state: a lease of a message that is behind a ready one")

    def _finish(self) -> None:
        if self._queue is None:
            return
        if self._order[0] != _READY:
            self._check_leased()
        lifecycle, queue = self._executor.lifecycle, self._queue
        for agenda, first in ((lifecycle.delays, queue.first_delay()),
                              (lifecycle.expiries, queue.first_expiry())):
            if first is not None:
                agenda.note(self._name, *first)
