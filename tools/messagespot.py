"""Where one message is in a machine, and whether it is there still.

Elsewhere: its whole life (messagelife.py).
"""

from typing import NamedTuple

from raftnet.machine.describe import ready_messages
from raftnet.machine.machine import Machine
from raftnet.machine.message import Message
from raftnet.machine.queue import Queue
from raftnet.wire.describe import describe_name

IS_READY, IS_DELAYED, IS_LEASED = "ready", "delayed", "leased"


class Spot(NamedTuple):
    """Where the message is."""

    where: str                  # IS_READY, IS_DELAYED or IS_LEASED
    queue: bytes
    place: int
    priority: int
    body: bytes
    more: Message | None        # None: it is plain
    until_ms: int = 0           # of one that is delayed or leased
    delivery: int = 0           # of one that is leased
    consumer: bytes = b""       # the same

    @property
    def deliveries(self) -> int:
        """In its queue so far."""
        return 0 if self.more is None else self.more.deliveries


def find(machine: Machine, message_id: int) -> Spot | None:
    """Where the message is; looks everywhere."""
    executor = machine.executor
    for lease in executor.leases.by_delivery.values():
        if lease.message.id == message_id:
            return _spot(IS_LEASED, lease.queue, lease.message, lease.deadline_ms, lease.delivery,
                         lease.consumer)
    for name, queue in executor.queues.by_name.items():
        for due_ms, _, message in queue.delayed or ():
            if message.id == message_id:
                return _spot(IS_DELAYED, name, message, due_ms)
        for priority, level in {0: queue, **(queue.levels or {})}.items():
            for _, message in level.special or ():
                if message.id == message_id:
                    return _spot(IS_READY, name, message)
            if message_id in level.ids:
                body = level.messages[level.ids.index(message_id)]
                return Spot(IS_READY, name, message_id, priority, body, None)
    return None


def _spot(where: str, queue: bytes, message: Message, until_ms: int = 0, delivery: int = 0,
          consumer: bytes = b"") -> Spot:
    return Spot(where, queue, message.place, message.priority, message.body, message, until_ms,
                delivery, consumer)


def is_at(machine: Machine, spot: Spot) -> bool:
    """Nothing has happened to it since; a look-up or two. What is more than plain is never changed,
    but becomes another object; what is plain leaves its deque at the head only."""
    executor = machine.executor
    if spot.where == IS_LEASED:
        lease = executor.leases.by_delivery.get(spot.delivery)
        return lease is not None and lease.deadline_ms == spot.until_ms
    queue = executor.queues.by_name.get(spot.queue)
    if queue is None:
        return False
    if spot.where == IS_DELAYED:
        due = spot.until_ms, spot.place
        return queue.delayed is not None and next(queue.delayed.after(due), ())[:2] == due
    level = queue if not spot.priority else (queue.levels or {}).get(spot.priority)
    if spot.more is not None:
        found = level is not None and level.special and next(level.special.after((spot.place,)), ())
        return bool(found) and found[1] is spot.more
    return level is not None and bool(level.ids) and level.ids[0] <= spot.place


def position(queue: Queue, spot: Spot) -> str:
    """Which of the ready ones it is, in the order of delivery."""
    for number, (place, _) in enumerate(ready_messages(queue), 1):
        if place == spot.place:
            break
    return f"place {number} of {queue.ready()}"


def delivery(spot: Spot) -> str:
    """The delivery under way, and whose."""
    return f"delivery {spot.delivery}" + (
        f" by {describe_name(spot.consumer)}" if spot.consumer else "")
