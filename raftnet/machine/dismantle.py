"""Giving back a machine that was replaced, in slices: freed at once, a million messages would hold
up the loop for a tenth of a second.

Rules: nobody uses the machine any more. Only here is it looked into what else the parts of it hold
(deadlines, mostly), so that they need not know how they are given back.
"""

from collections.abc import Iterator

from raftnet.machine.machine import Machine
from raftnet.machine.pieces import Pieces
from raftnet.machine.queue import Level, Queue
from raftnet.machine.sortednames import SortedNames

_STEP_MAX = 1_000       # objects between two looks at how many they were


def dismantle(machine: Machine, count: int) -> Iterator[None]:
    """Empties the machine, which nobody uses any more, about `count` objects between two steps."""
    left = count
    for freed in _all(machine, min(count, _STEP_MAX)):
        left -= freed
        if left <= 0:
            left = count
            yield
    machine.executor.release()


def _all(machine: Machine, step: int) -> Iterator[int]:
    """Frees all, at most a few times `step` objects at a time, and says how many they were."""
    executor = machine.executor
    queues = executor.queues.by_name
    while queues:
        _, queue = queues.popitem()
        yield from _queue(queue, step)
    queues.clear()
    yield from _given_back(executor.leases.by_delivery, step)
    yield from _given_back(executor.leases._deadlines, step)
    for agenda in (executor.lifecycle.delays, executor.lifecycle.expiries,
                   executor.lifecycle.dedups):
        yield from _entries(agenda.noted, step)
        yield from _given_back(agenda._deadlines, step)
    while executor.kv.give_back(step):
        yield step
    yield from _entries(executor.waits.pending, step)
    yield from _tail(executor.waits._deadlines, step)
    names = executor.queues._names
    while names._chunks:
        names.give_back(step)
        yield step
    yield from _entries(machine.sessions._unused, step)
    sessions = machine.sessions.by_id
    while sessions:
        _, session = sessions.popitem()
        yield 1 + len(session.replies)


def _queue(queue: Queue, step: int) -> Iterator[int]:
    yield from _level(queue, step)
    for level in (queue.levels or {}).values():
        yield from _level(level, step)
    for names in (queue.expiries, queue.leased, queue.delayed):
        if names is not None:
            yield from _given_back(names, step)
    if queue.dedup is not None:
        yield from _given_back(queue.dedup.by_id, step)
        yield from _given_back(queue.dedup._deadlines, step)
    yield 1


def _level(level: Level, step: int) -> Iterator[int]:
    ids, messages = level.ids, level.messages
    while messages:
        some = min(step, len(messages))
        for _ in range(some):
            messages.popleft()
            ids.popleft()
        yield some
    if level.special is not None:
        yield from _given_back(level.special, step)


def _entries(entries: dict, step: int) -> Iterator[int]:
    while entries:
        some = min(step, len(entries))
        for _ in range(some):
            entries.popitem()
        yield some
    entries.clear()         # its table keeps its size until then


def _tail(items: list, step: int) -> Iterator[int]:
    while items:
        some = min(step, len(items))
        del items[-step:]
        yield some


def _given_back(what: SortedNames | Pieces, step: int) -> Iterator[int]:
    while what:
        some = min(step, len(what))
        what.give_back(step)
        yield some
