"""Agenda: which queue has something due next, of one kind (delays, times to live, dedup ids).

Rules: for each queue a time is noted that is not later than its first. Nothing is done here while
messages leave early, and nothing is to be undone; but after each command or list, each queue that
was touched and is more than plain is looked at again, and one that vanished is forgotten
(queues.py). So what is noted is true then, and no time that comes up has to be passed over. Equal
times come in the order of their numbers.

Elsewhere: the order within a queue (queue.py, dedup.py).
"""

from collections.abc import Callable

from raftnet.machine.deadlines import Deadline, Deadlines


class Agenda:
    """Queues by the time of what is due first in them."""

    __slots__ = ("noted", "_deadlines", "_look")

    def __init__(self, look: Callable[[bytes], tuple[int, int] | None]):
        """`look`: the (time, number) of what is due first in the queue of that name, if anything
        is. It must not hold on to the owner of this object."""
        # Invariant: not later than what `look` finds; and the same as `_deadlines`
        self.noted: dict[bytes, tuple[int, int]] = {}
        self._deadlines = Deadlines()
        self._look = look

    def note(self, name: bytes, time_ms: int, number: int) -> None:
        """That queue has something due at that time."""
        known = self.noted.get(name)
        if known is None:
            self.noted[name] = (time_ms, number)
            self._deadlines.add((time_ms, number, name))
        elif (time_ms, number) < known:
            self._replace(name, (time_ms, number))

    def look_again(self, name: bytes) -> None:
        """What is due first in that queue may have changed, or the queue is gone."""
        known = self.noted.get(name)
        if known is not None:
            found = self._look(name)
            if found != known:
                self._replace(name, found)

    def due_ms(self) -> int:
        """Nothing is due before this."""
        return self._deadlines.due_ms()

    def earliest(self) -> Deadline | None:
        """(time, number, queue) of what is due first of all."""
        while True:
            first = self._deadlines.earliest()
            if first is None:
                return None
            found = self._look(first[2])
            if found == first[:2]:
                return first
            self._replace(first[2], found)

    def _replace(self, name: bytes, found: tuple[int, int] | None) -> None:
        self._deadlines.discard((*self.noted[name], name))
        if found is None:
            del self.noted[name]
        else:
            self.noted[name] = found
            self._deadlines.add((*found, name))
