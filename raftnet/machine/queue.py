"""Queue: the ready messages of one name in order, and what else there is under it.

Rules: a plain message is an id and bytes; ids and bytes lie in two deques side by side, because a
pair a message would double the memory and give the cyclic collector a container to walk for each. A
message that is more (message.py) lies beside them, among the special ones of its priority, which
are in order of place as well: whichever has the lower place is next. So a message that came back
from a delivery is where it was, and one that vanishes from the middle leaves nothing.

While a queue is `ordinary` (plain messages of priority 0, no waiters, no settings that an enqueue
of one has to heed; whatever else is out or delayed) the straight lines of executor.py touch the
deques themselves. Where all messages are plain and of priority 0, `take` and `head` do; else these
are `take_mixed` and `head_mixed`.

What an `undo_` method or `put_back` takes back is the last thing that was done and not yet taken
back. Nothing here knows limits, commands or sessions (executor.py), nor when something is due
(agenda.py, lifecycle.py). All queues together: queues.py; leases themselves: leases.py.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from heapq import merge
from itertools import islice

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.dedup import Dedup
from raftnet.machine.leases import Lease, Leases
from raftnet.machine.message import Message
from raftnet.machine.settings import Settings
from raftnet.machine.sortednames import SortedNames
from raftnet.machine.waits import Wait

# What a returned message costs beside its bytes: its id and its length (commands.encode_messages).
# Counted against the room of a reply, so that a million empty messages do not count as nothing.
MESSAGE_OVERHEAD_BYTES = 12

Item = tuple[int, bytes | Message, int]         # place, plain or not, priority


class Level:
    """The ready messages of one priority. Invariants: len(ids) == len(messages); ids ascend;
    `special` is None or has some."""

    __slots__ = ("ids", "messages", "special")

    def __init__(self):
        self.ids: deque[int] = deque()                  # of plain messages; their places too
        self.messages: deque[bytes] = deque()
        self.special: SortedNames | None = None         # of (place, Message)

    def count(self) -> int:
        """Messages."""
        return len(self.messages) + (0 if self.special is None else len(self.special))

    def first(self) -> tuple[int, bytes | Message] | None:
        """(place, message) of the next one; None: there is none."""
        ids = self.ids
        if self.special is not None:
            first = self.special.first()
            if not ids or first[0] < ids[0]:
                return first
        return (ids[0], self.messages[0]) if ids else None

    def in_order(self) -> Iterator[tuple[int, bytes | Message]]:
        """(place, message) of each, in the order of delivery, as they are asked for."""
        return merge(zip(self.ids, self.messages), self.special or ())


class Queue(Level):
    """A queue, and its messages of priority 0. Invariant: a level in `levels` has a message."""

    __slots__ = ("size_bytes", "away_bytes", "ordinary", "waiters", "levels", "leased", "delayed",
                 "settings", "dedup", "expiries")

    def __init__(self):
        self.ids = deque()
        self.messages = deque()
        self.special = None
        self.size_bytes = 0                 # of all that are ready, without overhead
        self.away_bytes = 0                 # of all that are leased or delayed
        self.ordinary = True
        # In order of asking, by (session, sequence); None: nobody waits.
        self.waiters: OrderedDict[tuple[bytes, int], Wait] | None = None
        self.levels: dict[int, Level] | None = None             # by priority, from 1
        self.leased: SortedNames | None = None                  # deliveries
        # (time, place, message), of delayed ones and of ready ones.
        self.delayed: Deadlines | None = None
        self.expiries: Deadlines | None = None
        self.settings: Settings | None = None
        self.dedup: Dedup | None = None

    # --- what is there

    def ready(self) -> int:
        """Messages that could be taken now."""
        if self.ordinary:
            return len(self.messages)
        count = self.count()
        if self.levels:
            for level in self.levels.values():
                count += level.count()
        return count

    def held(self) -> int:
        """All messages: ready, leased, delayed."""
        return (self.ready() + (0 if self.leased is None else self.leased.size)
                + (0 if self.delayed is None else self.delayed.size))

    def plain(self) -> bool:
        """It is ordinary, and there is nothing to tidy: where it is vacant, it is as a new one."""
        return (self.ordinary and self.leased is None and self.delayed is None
                and self.expiries is None and self.dedup is None)

    def vacant(self) -> bool:
        """Nothing is there that would be missed: the queue need not exist."""
        return not (self.messages or self.special is not None or self.leased or self.levels
                    or self.delayed or self.waiters or self.dedup or self.settings is not None)

    def tidy(self) -> None:
        """Drop what is empty; not while something may be taken back."""
        if self.expiries is not None and not self.expiries.size:
            self.expiries = None
        if self.leased is not None and not self.leased.size:
            self.leased = None
        if self.delayed is not None and not self.delayed.size:
            self.delayed = None
        if self.dedup is not None and not self.dedup:
            self.dedup = None

    def look_again(self) -> None:
        """Whether it is ordinary, after something changed."""
        self.ordinary = not (self.special is not None or self.levels or self.waiters
                             or self.settings is not None and self.settings.bind_enqueues)

    # --- plain messages of priority 0

    def append(self, first_id: int, messages: list[bytes]) -> None:
        """Add messages at the end; their ids run from `first_id`."""
        self.ids.extend(range(first_id, first_id + len(messages)))
        self.messages.extend(messages)
        self.size_bytes += sum(map(len, messages))

    def restore(self, ids: tuple[int, ...], messages: list[bytes]) -> None:
        """Add messages out of a snapshot at the end."""
        self.ids.extend(ids)
        self.messages.extend(messages)
        self.size_bytes += sum(map(len, messages))

    def undo_append(self, count: int) -> None:
        """Take back an `append` of so many messages."""
        for _ in range(count):
            self.ids.pop()
            self.size_bytes -= len(self.messages.pop())

    def take(self, count: int, room: int,
             overhead: int = MESSAGE_OVERHEAD_BYTES) -> tuple[list[tuple[int, bytes]], int]:
        """Where all are plain, of priority 0: remove up to `count` from the head, until the next
        would not fit into `room` bytes. Returns [(id, message)] and the room that is left."""
        ids, messages = self.ids, self.messages
        taken = []
        taken_bytes = 0
        while messages and len(taken) < count:
            length = len(messages[0])
            if length + overhead > room:
                break
            room -= length + overhead
            taken_bytes += length
            taken.append((ids.popleft(), messages.popleft()))
        self.size_bytes -= taken_bytes
        return taken, room

    def undo_take(self, taken: list[tuple[int, bytes]]) -> None:
        """Take back a `take`."""
        for message_id, message in reversed(taken):
            self.ids.appendleft(message_id)
            self.messages.appendleft(message)
            self.size_bytes += len(message)

    def head(self, count: int, room: int) -> tuple[list[tuple[int, bytes]], int]:
        """As `take`, but the messages stay."""
        found = []
        for pair in islice(zip(self.ids, self.messages), count):
            size = len(pair[1]) + MESSAGE_OVERHEAD_BYTES
            if size > room:
                break
            room -= size
            found.append(pair)
        return found, room

    # --- messages of all kinds, in the order of delivery

    def items(self) -> Iterator[Item]:
        """All that are ready, as they are asked for."""
        for priority in sorted(self.levels or (), reverse=True):
            for place, what in self.levels[priority].in_order():
                yield place, what, priority
        for place, what in self.in_order():
            yield place, what, 0

    def take_mixed(self, count: int, room: int,
                   overhead: int = MESSAGE_OVERHEAD_BYTES) -> tuple[list[Item], int]:
        """As `take`, of any queue."""
        taken = []
        while len(taken) < count:
            priority = max(self.levels) if self.levels else 0
            first = self._level(priority).first()
            if first is None:
                break
            size = _length(first[1]) + overhead
            if size > room:
                break
            room -= size
            item = (*first, priority)
            self._remove_first(item)
            taken.append(item)
        self.look_again()
        return taken, room

    def take_oldest(self) -> Item | None:
        """Remove the one that has the lowest place of all priorities; None: nothing is ready."""
        found = self.first()
        priority = 0
        for other, level in (self.levels or {}).items():
            first = level.first()
            if found is None or first[0] < found[0]:
                found, priority = first, other
        if found is None:
            return None
        item = (*found, priority)
        self._remove_first(item)
        self.look_again()
        return item

    def put_back(self, taken: list[Item]) -> None:
        """Take back a `take_mixed` or `take_oldest`: they are the next ones again."""
        for place, what, priority in reversed(taken):
            if type(what) is bytes:
                level = self._level(priority)
                level.ids.appendleft(place)
                level.messages.appendleft(what)
                self.size_bytes += len(what)
            else:
                self._add_special(what)
        self.look_again()

    def head_mixed(self, count: int, room: int) -> tuple[list[Item], int]:
        """As `take_mixed`, but the messages stay."""
        found = []
        for item in islice(self.items(), count):
            size = _length(item[1]) + MESSAGE_OVERHEAD_BYTES
            if size > room:
                break
            room -= size
            found.append(item)
        return found, room

    def put(self, place: int, what: bytes | Message, priority: int) -> None:
        """Add one: a plain one at the end of its priority, else to where its place is."""
        if type(what) is bytes:
            level = self._level(priority)
            level.ids.append(place)
            level.messages.append(what)
            self.size_bytes += len(what)
        else:
            self._add_special(what)
        self.look_again()

    def undo_put(self, what: bytes | Message, priority: int) -> None:
        """Take back a `put`."""
        if type(what) is bytes:
            level = self._level(priority)
            level.ids.pop()
            self.size_bytes -= len(level.messages.pop())
            self._settle_level(level, priority)
        else:
            self._remove_special(what)
        self.look_again()

    def expire(self) -> Message:
        """Remove the ready message whose time ends first, wherever it is."""
        message = self.expiries.earliest()[2]
        self._remove_special(message)
        self.look_again()
        return message

    def first_expiry(self) -> tuple[int, int] | None:
        """(time, place) of that."""
        first = None if self.expiries is None else self.expiries.earliest()
        return first and first[:2]

    # --- leased messages

    def lend(self, lease: Lease) -> None:
        """Note that one of its messages is out."""
        if self.leased is None:
            self.leased = SortedNames()
        self.leased.add(lease.delivery)
        self.away_bytes += len(lease.message.body)

    def lend_all(self, leases: list[Lease]) -> None:
        """Note that some are, in order of delivery."""
        if self.leased is None:
            self.leased = SortedNames()
        self.leased.add_rising([lease.delivery for lease in leases])
        self.away_bytes += sum([len(lease.message.body) for lease in leases])

    def end_lending(self, lease: Lease) -> None:
        """It came back, or is gone."""
        self.leased.discard(lease.delivery)
        self.away_bytes -= len(lease.message.body)

    def leases(self, leases: Leases) -> Iterator[Lease]:
        """Those of all leases that are its own, by delivery, as they are asked for."""
        return map(leases.by_delivery.__getitem__, self.leased or ())

    # --- delayed messages

    def delay(self, due_ms: int, message: Message) -> None:
        """Hold a message that will be ready at that time."""
        if self.delayed is None:
            self.delayed = Deadlines()
        self.delayed.add((due_ms, message.place, message))
        self.away_bytes += len(message.body)

    def undo_delay(self, due_ms: int, message: Message) -> None:
        """Take back a `delay`."""
        self.delayed.discard((due_ms, message.place, message))
        self.away_bytes -= len(message.body)

    def end_delay(self) -> tuple[int, Message]:
        """Hold the one that is due first no longer: (due time, message)."""
        due_ms, _, message = self.delayed.earliest()
        self.undo_delay(due_ms, message)
        return due_ms, message

    def first_delay(self) -> tuple[int, int] | None:
        """(due time, place) of that."""
        first = None if self.delayed is None else self.delayed.earliest()
        return first and first[:2]

    # --- waiters

    def add_waiter(self, wait: Wait) -> None:
        """Let it wait behind the others. Invariant: a queue with messages has no waiters."""
        assert not self.ready(), "a queue with messages answers at once"
        if self.waiters is None:
            self.waiters = OrderedDict()
        self.waiters[wait.session, wait.first_sequence] = wait
        self.ordinary = False

    def remove_waiter(self, wait: Wait) -> None:
        """It is answered otherwise."""
        del self.waiters[wait.session, wait.first_sequence]
        if not self.waiters:
            self.waiters = None
            self.look_again()

    def first_waiter(self) -> Wait:
        """Who has waited longest."""
        return next(iter(self.waiters.values()))

    # --- inside

    def _level(self, priority: int) -> Level:
        if not priority:
            return self
        if self.levels is None:
            self.levels = {}
        level = self.levels.get(priority)
        if level is None:
            level = self.levels[priority] = Level()
        return level

    def _settle_level(self, level: Level, priority: int) -> None:
        """Let an empty one vanish."""
        if priority and not level.messages and level.special is None:
            del self.levels[priority]
            if not self.levels:
                self.levels = None

    def _remove_first(self, item: Item) -> None:
        """The next one of its priority goes."""
        _, what, priority = item
        if type(what) is bytes:
            level = self._level(priority)
            level.ids.popleft()
            level.messages.popleft()
            self.size_bytes -= len(what)
            self._settle_level(level, priority)
        else:
            self._remove_special(what)

    def _add_special(self, message: Message) -> None:
        level = self._level(message.priority)
        if level.special is None:
            level.special = SortedNames()
        level.special.add((message.place, message))
        self.size_bytes += len(message.body)
        if message.expires_ms:
            if self.expiries is None:
                self.expiries = Deadlines()
            self.expiries.add((message.expires_ms, message.place, message))

    def _remove_special(self, message: Message) -> None:
        level = self._level(message.priority)
        level.special.discard((message.place, message))
        if not level.special:
            level.special = None
            self._settle_level(level, message.priority)
        self.size_bytes -= len(message.body)
        if message.expires_ms:
            self.expiries.discard((message.expires_ms, message.place, message))


def message_of(item: Item) -> Message:
    """The message of an item, also of a plain one."""
    place, what, priority = item
    return Message(place, place, what, priority, 0, 0, b"", ()) if type(what) is bytes else what


def _length(what: bytes | Message) -> int:
    return len(what) if type(what) is bytes else len(what.body)
