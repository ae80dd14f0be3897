"""The machine's state as text for people, a line each: tools/decode.py, log --at and snapshot.

Rules: changes nothing; always printable lines, however large or strange what is in it is; what is
left out is counted. In the order of a snapshot: queues by name, waits as they asked, sessions.

Elsewhere: single values as text (wire/describe.py), the state as bytes (state.py).
"""

from collections.abc import Iterator
from itertools import islice

from raftnet.machine.machine import Machine
from raftnet.machine.queue import Queue
from raftnet.machine.sessions import Session
from raftnet.wire.describe import describe_bytes, describe_name

MESSAGES_SHOWN = 10
_INDENT = "    "


def describe_state(machine: Machine, shown: int | None = MESSAGES_SHOWN) -> Iterator[str]:
    """Lines about the whole state; of each queue the first `shown` messages (None: all), of the
    waits and sessions likewise a hundred times as many."""
    many = None if shown is None else 100 * shown
    waits, sessions = machine.executor.waits.pending, machine.sessions
    queues = machine.executor.queues.by_name
    filled = [name for name in sorted(queues) if queues[name].messages]
    yield f"applied up to {machine.applied_index}, digest {machine.digest:08x}"
    yield (f"replicated time {machine.time_ms} ms, state version {machine.state_version}, "
           f"next message id {machine.executor.next_message_id}")
    messages = sum(len(queues[name].messages) for name in filled)
    yield f"{_count(len(filled), 'queue')} with {_count(messages, 'message')}"
    for name in filled:
        yield from _queue_lines(name, queues[name], shown)
    yield _count(len(waits), "waiting dequeue")
    for wait in islice(waits.values(), many):
        yield (f"{_INDENT}{wait.session.hex()}:{wait.first_sequence} for {wait.count} of "
               f"{describe_name(wait.queue)} until {wait.deadline_ms} ms")
    yield from _left_out(len(waits), many)
    yield (f"{_count(len(sessions.by_id), 'session')}, "
           f"kept replies count {sessions.kept_bytes} bytes")
    for session_id, session in islice(sessions.in_order(), many):
        yield _INDENT + _session_line(session_id, session)
    yield from _left_out(len(sessions.by_id), many)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _left_out(count: int, shown: int | None) -> Iterator[str]:
    if shown is not None and count > shown:
        yield f"{_INDENT}... ({count - shown} more)"


def _queue_lines(name: bytes, queue: Queue, shown: int | None) -> Iterator[str]:
    count = len(queue.messages)
    yield f"queue {describe_name(name)}: {_count(count, 'message')}, {queue.size_bytes} bytes"
    for message_id, message in islice(zip(queue.ids, queue.messages), shown):
        yield f"{_INDENT}{message_id} {describe_bytes(message)}"
    yield from _left_out(count, shown)


def _session_line(session_id: bytes, session: Session) -> str:
    line = f"{session_id.hex()} last {session.last} used at {session.used_ms} ms"
    if session.firsts:
        line += f", keeps {_count(len(session.firsts), 'request')} from {session.firsts[0]} on"
    if session.waiting:
        line += f", {session.waiting} of them waiting"
    return line
