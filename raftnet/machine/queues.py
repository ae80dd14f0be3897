"""Queues: all queues by name, and their names in order.

Rules: a queue without messages (ready, leased or delayed), waiters, settings and deduplication ids
does not exist. The names are put in order when somebody asks, or when many came and went: a queue
that is filled and emptied again and again costs its place in the order only once in a while.
"""

from raftnet.machine.agenda import Agenda
from raftnet.machine.queue import Queue
from raftnet.machine.sortednames import SortedNames

_CHANGED_MAX = 1_000        # names whose place in the order is not settled yet


class Queues:
    """All queues by name."""

    __slots__ = ("by_name", "agendas", "_names", "_changed", "_spare")

    def __init__(self):
        self.by_name: dict[bytes, Queue] = {}
        self.agendas: tuple[Agenda, ...] = ()   # which note what is due in them
        self._names = SortedNames()
        self._changed: set[bytes] = set()       # came or went since they were put in order
        # One that vanished and is as good as new: where consumers keep up, a queue comes and goes
        # with every message, and making it costs more than the rest of an enqueue.
        self._spare: Queue | None = None

    def make(self, name: bytes) -> Queue:
        """The queue of that name, new where there was none."""
        queue = self.by_name.get(name)
        if queue is None:
            queue, self._spare = self._spare or Queue(), None
            self.by_name[name] = queue
            self._changed.add(name)
            if len(self._changed) > _CHANGED_MAX:
                self._put_in_order()
        return queue

    def settle(self, name: bytes) -> None:
        """Let the queue vanish where nothing is there; not while something may be taken back."""
        queue = self.by_name.get(name)
        if queue is None:
            return
        if queue.vacant():
            del self.by_name[name]
            if queue.plain():
                self._spare = queue
            else:
                self._look_again(name)
            self._changed.add(name)
            if len(self._changed) > _CHANGED_MAX:
                self._put_in_order()
        elif not queue.plain():     # a plain one was looked at when it became that
            self._look_again(name)
            queue.tidy()

    def _look_again(self, name: bytes) -> None:
        for agenda in self.agendas:
            if name in agenda.noted:
                agenda.look_again(name)

    def listing(self, after: bytes, limit: int, room: int,
                passes: int) -> tuple[list[tuple[bytes, int]], bool, int]:
        """[(name, ready messages)] of the queues that hold messages or were configured, in byte
        order from behind `after`, at most `limit`, until the next would not fit into `room` bytes
        or be behind more than `passes` others; whether one was; how many others were passed over.
        Where there were too many others before the first, the last of these is given, so that one
        can read on from there."""
        if self._changed:
            self._put_in_order()
        found = []
        passed, last = 0, b""
        for name in self._names.after(after):
            if len(found) == limit:
                break
            queue = self.by_name[name]
            count = queue.ready()
            if count or queue.leased or queue.delayed or queue.settings is not None:
                room -= len(name) + 9
                if room < 0:
                    return found, True, passed
                found.append((name, count))
            elif passed == passes:
                if last and not found and room >= len(last) + 9:
                    found.append((last, 0))
                return found, True, passed
            else:
                passed, last = passed + 1, name
        return found, False, passed

    def _put_in_order(self) -> None:
        names, by_name = self._names, self.by_name
        for name in self._changed:
            if name in by_name:
                names.add(name)
            else:
                names.discard(name)
        self._changed.clear()
