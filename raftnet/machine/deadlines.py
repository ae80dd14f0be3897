"""Deadlines in order, each changed as often as one likes.

Rules: one that has ended is taken out at once, and not left to be dropped when it comes up: however
many end early, no single question pays for them, and none is there twice. A change costs the same
however many there are (sortednames.py); behind all others, where a new one mostly belongs, it costs
next to nothing.

Undone is a change by the opposite change.
"""

from raftnet.machine.sortednames import SortedNames

NEVER_MS = 1 << 64      # above every stamp

# Replicated ms, number (equal times end in its order), and what, where the number does not say it:
# it is never compared, as numbers are given once, or else is bytes.
Deadline = tuple[int, int] | tuple[int, int, object]


class Deadlines(SortedNames):
    """Deadlines that have not ended."""

    __slots__ = ()

    def due_ms(self) -> int:
        """When the first ends; above every stamp where there is none."""
        return self._firsts[0][0] if self._firsts else NEVER_MS

    earliest = SortedNames.first        # by time and then by number
