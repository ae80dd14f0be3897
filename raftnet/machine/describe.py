"""The machine's state as text for people, a line each: tools/decode.py, log --at and snapshot.

Rules: changes nothing; always printable lines, however large or strange what is in it is; what is
left out is counted. Queues come by name, in each what is ready in the order of delivery, then what
is leased, delayed and known again; then keys, waits as they asked, sessions. How a queue holds what
is ready is no state, and not told.

Elsewhere: single values as text (wire/describe.py), the state as bytes (state.py).
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from raftnet.machine.kv import KeyValue
from raftnet.machine.leases import Leases
from raftnet.machine.machine import Machine
from raftnet.machine.message import Message
from raftnet.machine.queue import Queue
from raftnet.machine.sessions import Session
from raftnet.machine.waits import Wait
from raftnet.wire.describe import describe_bytes, describe_name
from raftnet.wire.describequeues import describe_event, describe_settings

MESSAGES_SHOWN = 10
_INDENT = "    "


def describe_state(machine: Machine, shown: int | None = MESSAGES_SHOWN) -> Iterator[str]:
    """Lines about the whole state; of each queue the first `shown` messages (None: all) of those
    that are ready, leased and delayed, and so many ids; of the keys, waits and sessions a hundred
    times as many."""
    many = None if shown is None else 100 * shown
    executor = machine.executor
    waits, sessions = executor.waits.pending, machine.sessions
    queues = executor.queues.by_name
    filled = [name for name in sorted(queues) if queues[name].held()
              or queues[name].settings is not None or queues[name].dedup]
    yield f"applied up to {machine.applied_index}, digest {machine.digest:08x}"
    yield (f"replicated time {machine.time_ms} ms, state version {machine.state_version}, "
           f"next message id {executor.next_message_id}, "
           f"next delivery {executor.leases.next_delivery}")
    messages = sum(queues[name].held() for name in filled)
    yield f"{_count(len(filled), 'queue')} with {_count(messages, 'message')}"
    for name in filled:
        yield from _queue_lines(name, queues[name], executor.leases, shown)
    yield from _key_lines(executor.kv, many)
    yield _count(len(waits), "waiting dequeue")
    yield from _some((_wait_line(wait) for wait in waits.values()), len(waits), many)
    yield (f"{_count(len(sessions.by_id), 'session')}, "
           f"kept replies count {sessions.kept_bytes} bytes")
    yield from _some((_session_line(*item) for item in sessions.in_order()), len(sessions.by_id),
                     many)


def ready_messages(queue: Queue) -> Iterator[tuple[int, bytes | Message]]:
    """(place, bytes or more) of all that is ready, in the order of delivery."""
    return ((place, what) for place, what, _ in queue.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(lines: Iterable[str], count: int, shown: int | None, what: str = "") -> Iterator[str]:
    """The first of so many lines, and how many are left out."""
    for line in islice(lines, shown):
        yield _INDENT + line
    if shown is not None and count > shown:
        yield f"{_INDENT}... ({count - shown} more{what})"


# --- a queue


def _queue_lines(name: bytes, queue: Queue, leases: Leases, shown: int | None) -> Iterator[str]:
    count, leased, delayed = queue.ready(), len(queue.leased or ()), queue.delayed or ()
    returned = sum(message.deliveries > 0 for level in (queue, *(queue.levels or {}).values())
                   for _, message in level.special or ())
    yield f"queue {describe_name(name)}: {_count(count, 'message')}, {queue.size_bytes} bytes" + (
        "".join(f", {number} {what}" for number, what in (
            (returned, "returned"), (leased, "leased"), (len(delayed), "delayed"))
            if number))
    if queue.settings is not None:
        yield f"{_INDENT}settings {describe_settings(queue.settings.by_number())}"
    everything = shown is None
    yield from _some((f"{place} {describe_bytes(what)}" if isinstance(what, bytes)
                      else _message_text(what, everything)
                      for place, what in ready_messages(queue)), count, shown)
    yield from _some((f"leased {_message_text(lease.message, everything, lease.delivery)} until "
                      f"{lease.deadline_ms} ms, taken {lease.taken_ms} ms"
                      + (f" by {describe_name(lease.consumer)}" if lease.consumer else "")
                      for lease in queue.leases(leases)), leased, shown, " leased")
    yield from _some((f"delayed {_message_text(message, everything)} until {due_ms} ms"
                      for due_ms, _, message in delayed), len(delayed), shown, " delayed")
    if queue.dedup:
        ids = sorted((expires_ms, message_id, dedup_id)
                     for dedup_id, (message_id, expires_ms) in queue.dedup.by_id.items())
        yield from _some((f"dedup {describe_bytes(dedup_id)} is message {message_id} until "
                          f"{expires_ms} ms" for expires_ms, message_id, dedup_id in ids),
                         len(ids), shown, " dedup ids")


def _message_text(message: Message, everything: bool, delivery: int | None = None) -> str:
    receipt = "" if delivery is None else f":{delivery}"
    known = [f"place {message.place}"] if message.place != message.id else []
    if message.priority:
        known.append(f"priority {message.priority}")
    if message.deliveries:
        known.append(f"delivered {message.deliveries} times" if message.deliveries > 1
                     else "delivered once")
    if message.expires_ms:
        known.append(f"expires {message.expires_ms} ms")
    if message.origin:
        known.append(f"from {describe_name(message.origin)}")
    history = message.history if everything else message.history[-1:]
    known += [describe_event(event) for event in history]
    if len(history) < len(message.history):
        known.append(_count(len(message.history) - 1, "event") + " before")
    return (f"{message.id}{receipt} {describe_bytes(message.body)}"
            + (f" ({', '.join(known)})" if known else ""))


# --- the rest


def _key_lines(kv: KeyValue, shown: int | None) -> Iterator[str]:
    count = len(kv.by_key)
    yield f"{_count(count, 'key')}, last change {kv.version}"
    yield from _some((
        f"{describe_name(name)} version {item.version} {describe_bytes(item.value)}"
        + (f" expires {item.expires_ms} ms" if item.expires_ms else "")
        for name, item in ((name, kv.by_key[name]) for name in kv.names.after(b""))),
        count, shown)


def _wait_line(wait: Wait) -> str:
    line = (f"{wait.session.hex()}:{wait.first_sequence} for {wait.count} of "
            f"{describe_name(wait.queue)} until {wait.deadline_ms} ms")
    if wait.lease_ms:
        line += f", to lease for {wait.lease_ms} ms"
        if wait.consumer:
            line += f" by {describe_name(wait.consumer)}"
    return line


def _session_line(session_id: bytes, session: Session) -> str:
    line = f"{session_id.hex()} last {session.last} used at {session.used_ms} ms"
    if session.firsts:
        line += f", keeps {_count(len(session.firsts), 'request')} from {session.firsts[0]} on"
    if session.waiting:
        line += f", {session.waiting} of them waiting"
    return line
