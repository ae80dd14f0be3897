"""Named queues of messages, and who waits at each.

Rules: a message is an id and bytes; ids and bytes lie in two deques side by side, because a pair
a message would double the memory and give the cyclic collector a container to walk for each. A
queue without messages and without waiters does not exist. Nothing here knows limits, commands or
sessions (executor.py), nor deadlines (waits.py).
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from itertools import islice

from raftnet.machine.waits import Wait

# What a returned message costs beside its bytes: its id and its length (commands.encode_messages).
# Counted against the room of a reply, so that a million empty messages do not count as nothing.
MESSAGE_OVERHEAD_BYTES = 12


class Queue:
    """Messages in order of their arrival. Invariant: len(ids) == len(messages)."""

    __slots__ = ("ids", "messages", "size_bytes", "waiters")

    def __init__(self):
        self.ids: deque[int] = deque()
        self.messages: deque[bytes] = deque()
        self.size_bytes = 0                 # of all messages, without overhead
        # In order of asking, by (session, sequence); None: nobody waits.
        self.waiters: OrderedDict[tuple[bytes, int], Wait] | None = None

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

    def take(self, count: int, room: int) -> tuple[list[tuple[int, bytes]], int]:
        """Remove up to `count` messages from the head, until the next would not fit into `room`
        bytes. Returns [(id, message)] and the room that is left."""
        ids, messages = self.ids, self.messages
        taken = []
        taken_bytes = 0
        while messages and len(taken) < count:
            length = len(messages[0])
            if length + MESSAGE_OVERHEAD_BYTES > room:
                break
            room -= length + MESSAGE_OVERHEAD_BYTES
            taken_bytes += length
            taken.append((ids.popleft(), messages.popleft()))
        self.size_bytes -= taken_bytes
        return taken, room

    def put_back(self, taken: list[tuple[int, bytes]]) -> None:
        """Undo a `take`."""
        for message_id, message in reversed(taken):
            self.ids.appendleft(message_id)
            self.messages.appendleft(message)
            self.size_bytes += len(message)

    def drop_newest(self, count: int) -> None:
        """Undo an `append` of `count` messages."""
        for _ in range(count):
            self.ids.pop()
            self.size_bytes -= len(self.messages.pop())

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

    def add_waiter(self, wait: Wait) -> None:
        """Let it wait behind the others. Invariant: a queue with messages has no waiters."""
        assert not self.messages, "a queue with messages answers at once"
        if self.waiters is None:
            self.waiters = OrderedDict()
        self.waiters[wait.session, wait.first_sequence] = wait

    def remove_waiter(self, wait: Wait) -> None:
        """It is answered otherwise."""
        del self.waiters[wait.session, wait.first_sequence]
        if not self.waiters:
            self.waiters = None

    def first_waiter(self) -> Wait:
        """Who has waited longest."""
        return next(iter(self.waiters.values()))


class Queues:
    """All queues by name."""

    __slots__ = ("by_name", "_sorted_names")

    def __init__(self):
        self.by_name: dict[bytes, Queue] = {}
        self._sorted_names: list[bytes] | None = None   # made when asked for; None: out of date

    def make(self, name: bytes) -> Queue:
        """The queue of that name, new where there was none."""
        queue = self.by_name.get(name)
        if queue is None:
            queue = self.by_name[name] = Queue()
            self._sorted_names = None
        return queue

    def settle(self, name: bytes) -> None:
        """Let the queue vanish where it is empty and nobody waits."""
        queue = self.by_name.get(name)
        if queue is not None and not queue.messages and queue.waiters is None:
            del self.by_name[name]
            self._sorted_names = None

    def listing(self, after: bytes, limit: int, room: int) -> tuple[list[tuple[bytes, int]], bool]:
        """[(name, messages)] of the queues that hold messages, in byte order from behind `after`,
        at most `limit`, until the next would not fit into `room` bytes; and whether one did not.

        The names are sorted once for each time that a queue came or went since the last listing.
        """
        names = self._sorted_names
        if names is None:
            names = self._sorted_names = sorted(self.by_name)
        found = []
        for at in range(bisect_right(names, after), len(names)):
            if len(found) == limit:
                break
            name = names[at]
            count = len(self.by_name[name].messages)
            if count:
                room -= len(name) + 9
                if room < 0:
                    return found, True
                found.append((name, count))
        return found, False
