"""Scheduler: simulated time and what happens next.

Rules: one thread, one clock in whole milliseconds, one source of chance. Events of the same moment
happen in the order in which they were scheduled, so a seed gives one course of events.
"""

import heapq
import random
from collections.abc import Callable


class Scheduler:
    """The clock, the chance and the events to come."""

    def __init__(self, seed: int):
        self.now_ms = 0
        self.random = random.Random(seed)
        self.randint = self.random.randint
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self.happened = 0           # events so far

    def after(self, delay_ms: int, event: Callable[[], None]) -> None:
        """Let `event` happen `delay_ms` from now."""
        assert delay_ms >= 0
        self._number += 1
        heapq.heappush(self._events, (self.now_ms + delay_ms, self._number, event))

    def chance(self, percent: float) -> bool:
        """True in so many of a hundred cases."""
        return percent > 0 and self.random.random() * 100 < percent

    def step(self) -> bool:
        """Let the next event happen; False where there is none."""
        if not self._events:
            return False
        self.now_ms, _, event = heapq.heappop(self._events)
        self.happened += 1
        event()
        return True

    @property
    def next_ms(self) -> int | None:
        """When the next event happens."""
        return self._events[0][0] if self._events else None
