"""Message: one that is more than an id and its bytes.

Rules: never changed; what happens to a message makes a new one of it, so that undoing means to put
the old one back. An ordinary message (queue.py) becomes one with its first delivery. Ready in a
queue, none of these is plain: a plain one has no deliveries, expiry, origin, history, and its place
is its id.

Elsewhere: where messages are (queue.py, leases.py), how they move (lifecycle.py).
"""

from raftnet.wire.queueresults import Event

U64_MAX = 0xFFFF_FFFF_FFFF_FFFF     # of the numbers and times in snapshots and results


class Message:
    """A message with all that is known of it."""

    __slots__ = ("place", "id", "body", "priority", "deliveries", "expires_ms", "origin", "history")

    def __init__(self, place: int, message_id: int, body: bytes, priority: int, deliveries: int,
                 expires_ms: int, origin: bytes, history: tuple[Event, ...]):
        self.place = place              # order of delivery within the priority; each is given once
        self.id = message_id
        self.body = body
        self.priority = priority        # the highest comes first
        self.deliveries = deliveries    # how often it was leased in this queue
        self.expires_ms = expires_ms    # replicated time; 0: never
        self.origin = origin            # where it became a dead letter first; empty: it is none
        self.history = history          # oldest first


def later(now_ms: int, span_ms: int) -> int:
    """That time from now, as far as times can be told."""
    return min(now_ms + span_ms, U64_MAX)
