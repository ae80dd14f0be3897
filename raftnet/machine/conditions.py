"""Whether the conditions of a transaction hold, before anything of it is performed.

Rules: nothing changes here. Each condition looks at one thing and costs the same however much there
is. A key past its expiry is absent and a lease past its deadline has ended, whether that was
carried out or not.

Elsewhere: what follows when one does not hold (executor.py), layouts (wire/transactions.py).
"""

from raftnet.machine.kvoperations import holds
from raftnet.wire.transactions import KeyCondition, QueueCondition, TransactCondition


def first_failing(executor, conditions: list[TransactCondition]) -> int | None:
    """The position, from 0, of the first condition that does not hold; None: all of them hold."""
    for position, condition in enumerate(conditions):
        if isinstance(condition, KeyCondition):
            key, wanted = condition
            fine = holds(wanted, executor.kv.find(key, executor.now_ms))
        elif isinstance(condition, QueueCondition):
            name, at_least, at_most = condition
            fine = at_least <= _ready(executor, name) <= at_most
        else:
            fine = _leased(executor, *condition)
        if not fine:
            return position
    return None


def _ready(executor, name: bytes) -> int:
    """How many messages could be taken from the queue now."""
    queue = executor.queues.by_name.get(name)
    return 0 if queue is None else queue.ready()


def _leased(executor, message_id: int, delivery: int) -> bool:
    """That delivery's lease has not ended."""
    lease = executor.leases.by_delivery.get(delivery)
    return (lease is not None and lease.message.id == message_id
            and lease.deadline_ms > executor.now_ms)
