"""Giving back a machine that was replaced, in slices: freed at once, a million messages would hold
up the loop for a tenth of a second."""

from collections.abc import Iterator

from raftnet.machine.machine import Machine


def dismantle(machine: Machine, count: int) -> Iterator[None]:
    """Empties the machine, which nobody uses any more, about `count` objects between two steps."""
    left = count
    queues = machine.executor.queues.by_name
    while queues:
        _, queue = queues.popitem()
        ids, messages = queue.ids, queue.messages
        while messages:
            messages.popleft()
            ids.popleft()
            left -= 1
            if left <= 0:
                left = count
                yield
        left -= 1
    sessions = machine.sessions.by_id
    while sessions:
        _, session = sessions.popitem()
        left -= 1 + len(session.replies)
        if left <= 0:
            left = count
            yield
