"""Delays: the messages of one queue that are not ready yet, by the time when they will be.

Rules: ordered by (due time, place); each place is there once. Undone is by removing and adding.

Elsewhere: which queue is due next (agenda.py), what happens then (lifecycle.py).
"""

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.message import Message


class Delays:
    """Delayed messages of a queue."""

    __slots__ = ("by_place", "_deadlines")

    def __init__(self):
        # place -> (due in replicated ms, message)
        self.by_place: dict[int, tuple[int, Message]] = {}
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return len(self.by_place)

    def add(self, due_ms: int, message: Message) -> None:
        """Hold a message until then."""
        self.by_place[message.place] = (due_ms, message)
        self._deadlines.add((due_ms, message.place))

    def remove(self, place: int) -> Message:
        """Hold that one no longer."""
        due_ms, message = self.by_place.pop(place)
        self._deadlines.discard((due_ms, place))
        return message

    def first(self) -> tuple[int, int] | None:
        """(due time, place) of the one that is due first."""
        return self._deadlines.earliest()
