"""Dequeues and leases that wait: replicated state like the messages, so that nothing is written
meanwhile.

Rules: a wait knows its queue by name only, so that no cycle comes into being. The order of asking
is the order of the dict; deadlines lie in a heap whose ended members are left until they come up
or are more than half of it. What ends a wait is decided in executor.py and machine.py.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

_NEVER_MS = 1 << 64     # above every stamp
_HEAP_SLACK = 64        # ended members that are not worth rebuilding the heap for


@dataclass(slots=True)
class Wait:
    """One dequeue or lease that has no answer yet."""

    session: bytes
    first_sequence: int
    deadline_ms: int        # replicated time
    number: int             # order of asking: equal deadlines end in this order
    queue: bytes            # name
    count: int              # messages it wants at most
    lease_ms: int = 0       # for so long; 0: for ever, it is a dequeue
    consumer: bytes = b""   # of a lease
    pending: bool = True    # False once it is answered


class Waits:
    """All waits, by (session, sequence) and by deadline."""

    __slots__ = ("pending", "next_number", "_deadlines")

    def __init__(self):
        self.pending: dict[tuple[bytes, int], Wait] = {}            # in order of asking
        self.next_number = 1        # Invariant: above that of every wait
        self._deadlines: list[tuple[int, int, Wait]] = []           # heap; ended ones included

    def begin(self, session: bytes, first_sequence: int, deadline_ms: int, queue: bytes,
              count: int, lease_ms: int = 0, consumer: bytes = b"") -> Wait:
        """A new wait, behind all others."""
        wait = Wait(session, first_sequence, deadline_ms, self.next_number, queue, count, lease_ms,
                    consumer)
        self.next_number += 1
        self.restore(wait)
        return wait

    def restore(self, wait: Wait) -> None:
        """One that is numbered, behind all others: new, or out of a snapshot."""
        self.pending[wait.session, wait.first_sequence] = wait
        heappush(self._deadlines, (wait.deadline_ms, wait.number, wait))

    def end(self, wait: Wait) -> None:
        """Forget it: it is answered."""
        del self.pending[wait.session, wait.first_sequence]
        wait.pending = False
        if len(self._deadlines) > 2 * len(self.pending) + _HEAP_SLACK:
            self._deadlines = [item for item in self._deadlines if item[2].pending]
            heapify(self._deadlines)

    def due_ms(self) -> int:
        """No wait ends by its deadline before this."""
        return self._deadlines[0][0] if self._deadlines else _NEVER_MS

    def earliest(self) -> Wait | None:
        """The wait whose deadline comes first."""
        deadlines = self._deadlines
        while deadlines and not deadlines[0][2].pending:
            heappop(deadlines)
        return deadlines[0][2] if deadlines else None
