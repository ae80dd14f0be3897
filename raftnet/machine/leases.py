"""Leases: deliveries whose messages come back unless they are acknowledged in time.

Rules: a delivery has a number of its own, from one counter, and the receipt names it. A lease that
is past its deadline has ended for everybody at once, whether or not that was carried out. What is
done in an atomic list is taken back in reverse order.

Elsewhere: each queue's own leases (queue.py), what a lease's end means (lifecycle.py).
"""

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.message import Message
from raftnet.machine.pieces import Pieces


class Lease:
    """One delivery under way."""

    __slots__ = ("delivery", "message", "queue", "deadline_ms", "taken_ms", "consumer")

    def __init__(self, delivery: int, message: Message, queue: bytes, deadline_ms: int,
                 taken_ms: int, consumer: bytes):
        self.delivery = delivery
        self.message = message
        self.queue = queue              # name
        self.deadline_ms = deadline_ms  # replicated time
        self.taken_ms = taken_ms        # the same
        self.consumer = consumer        # as it called itself


class Leases:
    """All leases by delivery, and by deadline."""

    __slots__ = ("by_delivery", "next_delivery", "_deadlines")

    def __init__(self):
        self.by_delivery: Pieces[int, Lease] = Pieces()
        self.next_delivery = 1          # Invariant: above that of every lease
        self._deadlines = Deadlines()

    def begin(self, leases: list[Lease]) -> None:
        """New ones, numbered from `next_delivery` on, that end at the same time."""
        first = self.next_delivery
        self.next_delivery = end = first + len(leases)
        self.by_delivery.add_new(range(first, end), leases)
        deadline_ms = leases[0].deadline_ms
        self._deadlines.add_rising([(deadline_ms, delivery) for delivery in range(first, end)])

    def begin_one(self, lease: Lease) -> None:
        """A new one, numbered `next_delivery`."""
        delivery = lease.delivery
        self.next_delivery = delivery + 1
        self.by_delivery[delivery] = lease
        self._deadlines.add((lease.deadline_ms, delivery))

    def restore(self, lease: Lease) -> None:
        """One that has its number: new, out of a snapshot, or its end is undone."""
        self.by_delivery[lease.delivery] = lease
        self._deadlines.add((lease.deadline_ms, lease.delivery))

    def end(self, lease: Lease) -> None:
        """Forget it. Where its beginning is undone, who does that restores the counter."""
        del self.by_delivery[lease.delivery]
        self._deadlines.discard((lease.deadline_ms, lease.delivery))

    def extend(self, lease: Lease, deadline_ms: int) -> None:
        """It ends at another time."""
        self._deadlines.discard((lease.deadline_ms, lease.delivery))
        lease.deadline_ms = deadline_ms
        self._deadlines.add((deadline_ms, lease.delivery))

    def due_ms(self) -> int:
        """No lease ends by its deadline before this."""
        return self._deadlines.due_ms()

    def earliest(self) -> Lease | None:
        """The one whose deadline comes first, by time and then by number."""
        first = self._deadlines.earliest()
        return None if first is None else self.by_delivery[first[1]]
