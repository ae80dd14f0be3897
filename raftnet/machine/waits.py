"""Dequeues that wait: replicated state like the messages (design: nothing is written meanwhile).

Rules: a wait knows its queue by name only, so that no cycle comes into being. The order of asking
is the order of the dict; deadlines lie in a heap whose ended members are left until they come up
or are more than half of it. What ends a wait is decided in executor.py and machine.py.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

_HEAP_SLACK = 64        # ended members that are not worth rebuilding the heap for


@dataclass(slots=True)
class Wait:
    """One dequeue that has no answer yet."""

    session: bytes
    first_sequence: int
    deadline_ms: int        # replicated time
    number: int             # order of asking: equal deadlines end in this order
    queue: bytes            # name
    count: int              # messages it wants at most
    pending: bool = True    # False once it is answered


class Waits:
    """All waits, by (session, sequence) and by deadline."""

    __slots__ = ("pending", "_deadlines", "_next_number")

    def __init__(self):
        self.pending: dict[tuple[bytes, int], Wait] = {}            # in order of asking
        self._deadlines: list[tuple[int, int, Wait]] = []           # heap; ended ones included
        self._next_number = 1

    def begin(self, session: bytes, first_sequence: int, deadline_ms: int, queue: bytes,
              count: int) -> Wait:
        """A new wait, behind all others."""
        wait = Wait(session, first_sequence, deadline_ms, self._next_number, queue, count)
        self._next_number += 1
        self.pending[session, first_sequence] = wait
        heappush(self._deadlines, (deadline_ms, wait.number, wait))
        return wait

    def end(self, wait: Wait) -> None:
        """Forget it: it is answered."""
        del self.pending[wait.session, wait.first_sequence]
        wait.pending = False
        if len(self._deadlines) > 2 * len(self.pending) + _HEAP_SLACK:
            self._deadlines = [item for item in self._deadlines if item[2].pending]
            heapify(self._deadlines)

    def earliest(self) -> Wait | None:
        """The wait whose deadline comes first."""
        deadlines = self._deadlines
        while deadlines and not deadlines[0][2].pending:
            heappop(deadlines)
        return deadlines[0][2] if deadlines else None
