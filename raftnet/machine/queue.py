"""Queue: the ready messages of one name in order, and what else there is under it.

Rules: a plain message is an id and bytes; ids and bytes lie in two deques side by side, because a
pair a message would double the memory and give the cyclic collector a container to walk for each. A
message that is more (message.py) has None in the deque of the bytes and lies in `special` by its
place. Places rise along the deques. One that came back from a delivery has its place in a heap:
it comes before all that the deque of its priority still has. A message that vanishes from the
middle leaves a gap, which costs nothing to skip: gaps at the head go at once, and all of them once
they are more than half.

While a queue is `ordinary` (plain messages of priority 0, no waiters, no settings; whatever else is
out or delayed) the straight lines of executor.py touch the deques themselves, and `take` and `head`
are for them; else these are `take_mixed` and `head_mixed`.

What an `undo_` method or `put_back` takes back is the last thing that was done and not yet taken
back. Nothing here knows limits, commands or sessions (executor.py), nor when something is due
(agenda.py, lifecycle.py). All queues together: queues.py.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from itertools import islice

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.dedup import Dedup
from raftnet.machine.delays import Delays
from raftnet.machine.leases import Lease
from raftnet.machine.message import Message
from raftnet.machine.settings import Settings
from raftnet.machine.sortednames import SortedNames
from raftnet.machine.waits import Wait

# What a returned message costs beside its bytes: its id and its length (commands.encode_messages).
# Counted against the room of a reply, so that a million empty messages do not count as nothing.
MESSAGE_OVERHEAD_BYTES = 12
_GAPS_SLACK = 64        # that are not worth sweeping for
_NOTHING: dict[int, Message] = {}

# Place, plain or not, priority, whether it lay in the heap: it is put back to where it was.
Item = tuple[int, bytes | Message, int, bool]


class Level:
    """The ready messages of one priority. Invariants: len(ids) == len(messages); neither the deques
    nor the heap begin with what has gone; every place in the heap is below those in the deques."""

    __slots__ = ("ids", "messages", "gaps", "returned", "back")

    def __init__(self):
        self.ids: deque[int] = deque()                  # places; of plain messages also their ids
        self.messages: deque[bytes | None] = deque()
        self.gaps = 0                                   # in the deques
        self.returned: list[int] | None = None          # heap of places; some may have gone
        self.back = 0                                   # how many in it have not

    def count(self) -> int:
        """Messages."""
        return len(self.messages) - self.gaps + self.back

    def first_place(self) -> int:
        """Of the next message; there is one."""
        return self.returned[0] if self.back else self.ids[0]


class Queue(Level):
    """A queue, and its messages of priority 0. Invariant: a level in `levels` has a message."""

    __slots__ = ("size_bytes", "away_bytes", "ordinary", "waiters", "special", "levels", "leased",
                 "oldest", "delayed", "settings", "dedup", "expiries")

    def __init__(self):
        self.ids = deque()
        self.messages = deque()
        self.gaps = self.back = 0
        self.size_bytes = 0                 # of all that are ready, without overhead
        self.away_bytes = 0                 # of all that are leased or delayed
        self.ordinary = True
        # In order of asking, by (session, sequence); None: nobody waits.
        self.waiters: OrderedDict[tuple[bytes, int], Wait] | None = None
        self.returned = None
        self.special: dict[int, Message] | None = None          # ready ones by place
        self.levels: dict[int, Level] | None = None             # by priority, from 1
        self.leased: dict[int, Lease] | None = None             # by delivery
        self.oldest: SortedNames | None = None                  # these deliveries in order
        self.delayed: Delays | None = None
        self.settings: Settings | None = None
        self.dedup: Dedup | None = None
        self.expiries: Deadlines | None = None                  # of ready ones

    # --- what is there

    def ready(self) -> int:
        """Messages that could be taken now."""
        if self.ordinary:
            return len(self.messages)
        count = len(self.messages) - self.gaps + self.back
        if self.levels:
            for level in self.levels.values():
                count += level.count()
        return count

    def held(self) -> int:
        """All messages: ready, leased, delayed."""
        return self.ready() + len(self.leased or ()) + len(self.delayed or ())

    def plain(self) -> bool:
        """It is ordinary, and there is nothing to tidy."""
        return (self.ordinary and self.leased is None and self.special is None
                and self.delayed is None and self.dedup is None)

    def vacant(self) -> bool:
        """Nothing is there that would be missed: the queue need not exist."""
        return not (self.messages or self.leased or self.back or self.levels or self.delayed
                    or self.waiters or self.dedup or self.settings is not None)

    def untouched(self) -> bool:
        """Of a vacant one: nothing is left of what was there, and it is as a new one."""
        return self.plain() and self.returned is None and self.expiries is None

    def tidy(self) -> None:
        """Drop what is empty; not while something may be taken back."""
        if not self.special:
            self.special = self.expiries = None
        if not self.leased:
            self.leased = self.oldest = None
        if not self.delayed:
            self.delayed = None
        if not self.dedup:
            self.dedup = None

    def look_again(self) -> None:
        """Whether it is ordinary, after something changed."""
        self.ordinary = not (self.special or self.levels or self.gaps or self.waiters
                             or self.settings is not None)

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
        """Of an ordinary queue: remove up to `count` messages from the head, until the next would
        not fit into `room` bytes. Returns [(id, message)] and the room that is left."""
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

    def take_mixed(self, count: int, room: int,
                   overhead: int = MESSAGE_OVERHEAD_BYTES) -> tuple[list[Item], int]:
        """As `take`, of any queue."""
        taken = []
        while len(taken) < count:
            priority = max(self.levels) if self.levels else 0
            item = self._pop(priority)
            if item is None:
                break
            size = _length(item[1]) + overhead
            if size > room:
                self._unpop(item)
                break
            room -= size
            taken.append(item)
        self.look_again()
        return taken, room

    def take_oldest(self) -> Item | None:
        """Remove the one that has the lowest place of all priorities; None: nothing is ready."""
        lowest, found = None, 0
        if self.back or self.messages:
            lowest = self.first_place()
        for priority, level in (self.levels or {}).items():
            place = level.first_place()
            if lowest is None or place < lowest:
                lowest, found = place, priority
        item = self._pop(found)
        self.look_again()
        return item

    def put_back(self, taken: list[Item]) -> None:
        """Take back a `take_mixed` or `take_oldest`: they are the next ones again."""
        for item in reversed(taken):
            self._unpop(item)
        self.look_again()

    def undo_put_back(self, count: int) -> None:
        """Take back a `put_back` of so many."""
        for _ in range(count):
            self._pop(max(self.levels) if self.levels else 0)
        self.look_again()

    def head_mixed(self, count: int, room: int) -> tuple[list[Item], int]:
        """As `take_mixed`, but the messages stay."""
        found, room = self.take_mixed(count, room)
        self.put_back(found)
        return found, room

    def put(self, place: int, what: bytes | Message, priority: int) -> None:
        """Add one at the end of its priority. Its place is above all others'."""
        level = self._level(priority)
        level.ids.append(place)
        if type(what) is bytes:
            level.messages.append(what)
            self.size_bytes += len(what)
        else:
            level.messages.append(None)
            self._add_special(place, what)
        self.look_again()

    def undo_put(self, priority: int) -> None:
        """Take back a `put`."""
        level = self._level(priority)
        place, what = level.ids.pop(), level.messages.pop()
        if what is None:
            what = self.special.pop(place)
            if what.expires_ms:
                self.expiries.discard((what.expires_ms, place))
        self.size_bytes -= _length(what)
        self._settle_level(level, priority)
        self.look_again()

    def put_returned(self, message: Message) -> None:
        """One that came back from a delivery, to its place."""
        level = self._level(message.priority)
        if level.returned is None:
            level.returned = []
        elif len(level.returned) > 2 * level.back + _GAPS_SLACK:
            level.returned = sorted({place for place in level.returned if place in self.special})
        heappush(level.returned, message.place)
        level.back += 1
        self._add_special(message.place, message)
        self._settle_level(level, message.priority)
        self.look_again()

    def undo_put_returned(self, message: Message) -> None:
        """Take back a `put_returned`."""
        self._vanish(message)

    def expire(self, place: int) -> Message:
        """Remove a message that is ready, wherever it is."""
        message = self.special[place]
        self._vanish(message)
        return message

    def first_expiry(self) -> tuple[int, int] | None:
        """(time, place) of the ready message whose time ends first."""
        return None if self.expiries is None else self.expiries.earliest()

    # --- leased messages

    def lend(self, lease: Lease) -> None:
        """Note that one of its messages is out."""
        if self.leased is None:
            self.leased, self.oldest = {}, SortedNames()
        self.leased[lease.delivery] = lease
        self.oldest.add(lease.delivery)
        self.away_bytes += len(lease.message.body)

    def end_lending(self, lease: Lease) -> None:
        """It came back, or is gone."""
        del self.leased[lease.delivery]
        self.oldest.discard(lease.delivery)
        self.away_bytes -= len(lease.message.body)

    def oldest_leases(self, count: int) -> list[Lease]:
        """The first of those that are out, by delivery."""
        if not self.leased:
            return []
        return [self.leased[delivery] for delivery in islice(self.oldest.after(0), count)]

    # --- delayed messages

    def delay(self, due_ms: int, message: Message) -> None:
        """Hold a message that will be ready at that time."""
        if self.delayed is None:
            self.delayed = Delays()
        self.delayed.add(due_ms, message)
        self.away_bytes += len(message.body)

    def end_delay(self, place: int) -> Message:
        """Hold it no longer."""
        message = self.delayed.remove(place)
        self.away_bytes -= len(message.body)
        return message

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

    def _pop(self, priority: int) -> Item | None:
        """The next of that priority."""
        level = self.levels[priority] if priority else self
        came_back = level.back > 0
        if came_back:
            level.back -= 1
            place = heappop(level.returned)
            what = self.special.pop(place)
        elif level.messages:
            place, what = level.ids.popleft(), level.messages.popleft()
            if what is None:
                what = self.special.pop(place)
        else:
            return None
        if type(what) is bytes:
            self.size_bytes -= len(what)
        else:
            self.size_bytes -= len(what.body)
            if what.expires_ms:
                self.expiries.discard((what.expires_ms, place))
        self._settle_level(level, priority)
        return place, what, priority, came_back

    def _unpop(self, item: Item) -> None:
        place, what, priority, came_back = item
        level = self._level(priority)
        self.size_bytes += _length(what)
        plain = type(what) is bytes
        if not plain:
            self.special[place] = what
            if what.expires_ms:
                self.expiries.add((what.expires_ms, place))
        if came_back:
            if level.returned is None:
                level.returned = []
            heappush(level.returned, place)
            level.back += 1
        else:
            level.ids.appendleft(place)
            level.messages.appendleft(what if plain else None)

    def _add_special(self, place: int, message: Message) -> None:
        if self.special is None:
            self.special = {}
        self.special[place] = message
        self.size_bytes += len(message.body)
        if message.expires_ms:
            if self.expiries is None:
                self.expiries = Deadlines()
            self.expiries.add((message.expires_ms, place))

    def _vanish(self, message: Message) -> None:
        """A ready message goes, out of the middle."""
        level = self._level(message.priority)
        place = message.place
        del self.special[place]
        if message.expires_ms:
            self.expiries.discard((message.expires_ms, place))
        self.size_bytes -= len(message.body)
        if level.ids and place >= level.ids[0]:
            level.gaps += 1
        else:
            level.back -= 1
        if 2 * level.gaps > len(level.ids) + _GAPS_SLACK:
            self._sweep(level)
        self._settle_level(level, message.priority)
        self.look_again()

    def _sweep(self, level: Level) -> None:
        special = self.special or _NOTHING
        kept = [pair for pair in zip(level.ids, level.messages)
                if pair[1] is not None or pair[0] in special]
        level.ids = deque([place for place, _ in kept])
        level.messages = deque([message for _, message in kept])
        level.gaps = 0

    def _settle_level(self, level: Level, priority: int) -> None:
        """See the invariants of a level, and let an empty one vanish."""
        special, ids = self.special or _NOTHING, level.ids
        if level.gaps:
            while ids and level.messages[0] is None and ids[0] not in special:
                ids.popleft()
                level.messages.popleft()
                level.gaps -= 1
        if level.returned is not None:
            if not level.back:
                level.returned = None
            else:
                returned = level.returned
                while returned[0] not in special or (ids and returned[0] >= ids[0]):
                    heappop(returned)
        if priority and not level.messages and not level.back:
            self.levels.pop(priority, None)
            if not self.levels:
                self.levels = None


def message_of(item: Item) -> Message:
    """The message of an item, also of a plain one."""
    place, what, priority, _ = item
    return Message(place, place, what, priority, 0, 0, b"", ()) if type(what) is bytes else what


def _length(what: bytes | Message) -> int:
    return len(what) if type(what) is bytes else len(what.body)
