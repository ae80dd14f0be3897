"""The one-line text form of the commands of queues and of their results (queuecommands.py).

Rules: those of describe.py, which puts the operation or the status before these texts.
"""

from collections.abc import Iterable

from raftnet.wire import queuecommands, queueresults
from raftnet.wire.commands import Operation
from raftnet.wire.printable import (MESSAGES_SHOWN, describe_bytes, describe_list, describe_name)
from raftnet.wire.queuecommands import Overflow, Setting
from raftnet.wire.queueresults import Event, Outcome, Reason


def _named(kinds: type, number: int) -> str:
    """The name of a number in lower case, also where it is newer than this program."""
    try:
        return kinds(number).name.lower()
    except ValueError:
        return str(number)


def _first(texts: Iterable[str], count: int) -> str:
    return describe_list([text for _, text in zip(range(MESSAGES_SHOWN), texts)], count)


# --- commands


def _enqueue_with(command: bytes) -> str:
    queue, priority, delay_ms, ttl_ms, dedup, messages = queuecommands.decode_enqueue_with(command)
    text = describe_name(queue)
    text += f" priority {priority}" if priority else ""
    text += f" delay {delay_ms} ms" if delay_ms else ""
    text += f" ttl {ttl_ms} ms" if ttl_ms else ""
    shown = (describe_bytes(message) + (f" (dedup {describe_bytes(dedup_id)})" if dedup_id else "")
             for dedup_id, message in zip(dedup, messages))
    return f"{text} {_first(shown, len(messages))}"


def _lease(command: bytes) -> str:
    queue, count, wait_ms, lease_ms, consumer = queuecommands.decode_lease(command)
    return (f"{describe_name(queue)} {count} for {lease_ms} ms"
            + (f" wait {wait_ms} ms" if wait_ms else "")
            + (f" by {describe_name(consumer)}" if consumer else ""))


def describe_receipts(receipts: list[tuple[int, int]]) -> str:
    """`id:delivery` of each."""
    return _first((f"{message_id}:{delivery}" for message_id, delivery in receipts), len(receipts))


def _nack(command: bytes) -> str:
    delay_ms, reason, receipts = queuecommands.decode_nack(command)
    text = " backoff" if delay_ms is None else f" delay {delay_ms} ms" if delay_ms else ""
    text += f" reason {describe_bytes(reason)}" if reason else ""
    return describe_receipts(receipts) + text


def _extend(command: bytes) -> str:
    lease_ms, receipts = queuecommands.decode_extend(command)
    return f"{describe_receipts(receipts)} to {lease_ms} ms"


def describe_settings(settings: dict[int, int | bytes]) -> str:
    """`name value` of each."""
    texts = []
    for setting, value in settings.items():
        if setting == Setting.DEAD_LETTER:
            value = describe_name(value) if value else "default"
        elif setting == Setting.OVERFLOW:
            value = _named(Overflow, value)
        texts.append(f"{_named(Setting, setting)} {value}")
    return " ".join(texts)


def _configure(command: bytes) -> str:
    queue, settings = queuecommands.decode_configure(command)
    return f"{describe_name(queue)} {describe_settings(settings)}"


def _limited(command: bytes) -> str:
    queue, limit = queuecommands.decode_purge(command)
    return f"{describe_name(queue)} limit {limit}"


def _redrive(command: bytes) -> str:
    queue, to, limit = queuecommands.decode_redrive(command)
    return describe_name(queue) + (f" to {describe_name(to)}" if to else "") + f" limit {limit}"


def _queue(command: bytes) -> str:
    return describe_name(queuecommands.decode_describe(command))


ARGUMENTS = {
    Operation.ENQUEUE_WITH: _enqueue_with,
    Operation.LEASE: _lease,
    Operation.ACK: lambda command: describe_receipts(queuecommands.decode_ack(command)),
    Operation.NACK: _nack,
    Operation.EXTEND: _extend,
    Operation.CONFIGURE: _configure,
    Operation.DELETE_QUEUE: _queue,
    Operation.PURGE: _limited,
    Operation.REDRIVE: _redrive,
    Operation.DESCRIBE: _queue,
    Operation.LEASES: _limited,
    Operation.INSPECT: _limited,
}


# --- results


def _enqueue_with_result(payload: bytes) -> str:
    found = queueresults.decode_enqueue_with_result(payload)
    return "ids " + _first((f"{message_id} (duplicate)" if duplicate else str(message_id)
                            for message_id, duplicate in found), len(found))


def _lease_result(payload: bytes) -> str:
    found = queueresults.decode_lease_result(payload)
    return _first((f"{leased.id}:{leased.delivery}"
                   + (f" (delivery {leased.deliveries})" if leased.deliveries > 1 else "")
                   + f" {describe_bytes(leased.message)}" for leased in found), len(found))


def describe_outcomes(payload: bytes) -> str:
    """The result of ACK, NACK and EXTEND."""
    found = queueresults.decode_outcomes_result(payload)
    return _first((_named(Outcome, outcome) for outcome in found), len(found))


def _purge_result(payload: bytes) -> str:
    removed, left = queueresults.decode_moved_result(payload)
    return f"{removed} removed {left} left"


def _redrive_result(payload: bytes) -> str:
    moved, left = queueresults.decode_moved_result(payload)
    return f"{moved} moved {left} left"


def _describe_result(payload: bytes) -> str:
    found = queueresults.decode_describe_result(payload)
    return (f"{'' if found.configured else 'not '}configured ready {found.ready} bytes "
            f"{found.ready_bytes} delayed {found.delayed} leased {found.leased} waiting "
            f"{found.waiting} held bytes {found.held_bytes} dedup ids {found.dedup_ids} "
            f"{describe_settings(found.settings)}")


def _leases_result(payload: bytes) -> str:
    now_ms, found = queueresults.decode_leases_result(payload)
    return f"at {now_ms} ms " + _first(
        (f"{lease.id}:{lease.delivery} (taken {lease.taken_ms} ms until {lease.deadline_ms} ms "
         f"delivery {lease.deliveries}"
         + (f" by {describe_name(lease.consumer)}" if lease.consumer else "") + ")"
         for lease in found), len(found))


def describe_event(event: Event) -> str:
    """One step of a message's history."""
    return (f"{_named(Reason, event.reason)} at {event.ended_ms} ms in entry {event.index}"
            + (f" taken {event.taken_ms} ms delivery {event.deliveries}" if event.taken_ms else "")
            + (f" by {describe_name(event.consumer)}" if event.consumer else "")
            + (f" {describe_bytes(event.text)}" if event.text else ""))


def _inspect_result(payload: bytes) -> str:
    now_ms, found = queueresults.decode_inspect_result(payload)
    texts = []
    for message in found[:MESSAGES_SHOWN]:
        text = f"{message.id}:{describe_bytes(message.message)} (priority {message.priority}"
        text += f" deliveries {message.deliveries}" if message.deliveries else ""
        text += f" expires {message.expires_ms} ms" if message.expires_ms else ""
        text += f" from {describe_name(message.origin)}" if message.origin else ""
        texts.append(text + "".join(f", {describe_event(event)}" for event in message.history)
                     + ")")
    return f"at {now_ms} ms " + describe_list(texts, len(found))


RESULTS = {
    Operation.ENQUEUE_WITH: _enqueue_with_result,
    Operation.LEASE: _lease_result,
    Operation.ACK: describe_outcomes,
    Operation.NACK: describe_outcomes,
    Operation.EXTEND: describe_outcomes,
    Operation.PURGE: _purge_result,
    Operation.REDRIVE: _redrive_result,
    Operation.DESCRIBE: _describe_result,
    Operation.LEASES: _leases_result,
    Operation.INSPECT: _inspect_result,
}
