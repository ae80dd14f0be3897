"""Dedup: the ids by which a queue knows again what a producer enqueued before.

Rules: an id is remembered from its enqueue for the queue's window of that moment. Past that it is
unknown for everybody at once, whether or not that was carried out. In order of (time, message id).

Elsewhere: which queue is due next (agenda.py), what an enqueue makes of it (intake.py).
"""

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.pieces import Pieces


class Dedup:
    """Deduplication ids of a queue."""

    __slots__ = ("by_id", "_deadlines")

    def __init__(self):
        # id -> (message id, expiry in replicated ms)
        self.by_id: Pieces[bytes, tuple[int, int]] = Pieces()
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return len(self.by_id)

    def find(self, dedup_id: bytes, now_ms: int) -> int | None:
        """The id of the message that was enqueued with it, within the window."""
        known = self.by_id.get(dedup_id)
        return None if known is None or known[1] <= now_ms else known[0]

    def add(self, dedup_id: bytes, message_id: int, expires_ms: int) -> None:
        """Remember an id that is not there."""
        self.by_id[dedup_id] = (message_id, expires_ms)
        self._deadlines.add((expires_ms, message_id, dedup_id))

    def remove(self, dedup_id: bytes) -> tuple[int, int]:
        """Forget it: (message id, expiry)."""
        message_id, expires_ms = known = self.by_id.pop(dedup_id)
        self._deadlines.discard((expires_ms, message_id, dedup_id))
        return known

    def first(self) -> tuple[int, int] | None:
        """(expiry, message id) of the one that is forgotten first."""
        first = self._deadlines.earliest()
        return None if first is None else first[:2]

    def remove_first(self) -> None:
        """Forget that one."""
        self.remove(self._deadlines.earliest()[2])
