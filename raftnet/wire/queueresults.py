"""The results of the commands of queues (queuecommands.py; protocol.md, Commands).

Rules: each pair of functions is one layout; decoders raise MalformedError for what is not exactly
that layout, and believe a count only after it was compared with the bytes that are there.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.wire.fields import (check_end, encode_counted, encode_text, take, take_counted,
                                 take_rest, take_text)
from raftnet.wire.queuecommands import Setting


class Outcome(IntEnum):
    """How the command ended for one receipt. Part of the protocol: never renumber."""

    DONE = 0
    STALE = 1               # that delivery's lease has ended, or never was
    DEAD_LETTERED = 2       # nacked at the delivery limit


class Reason(IntEnum):
    """Why a delivery or a stay in a queue ended. Part of the protocol: never renumber."""

    LEASE_EXPIRED = 1
    NACKED = 2
    TTL_EXPIRED = 3
    OVERFLOW = 4
    REDRIVEN = 5


class Leased(NamedTuple):
    """A message taken under a lease."""

    id: int
    delivery: int           # the receipt's second half
    deliveries: int         # how often it was delivered, this time included
    message: bytes


class Event(NamedTuple):
    """One step of a message's history. Times in ms of replicated time; 0 where there is none."""

    taken_ms: int
    ended_ms: int
    index: int              # of the log entry in which it ended
    deliveries: int
    reason: int
    consumer: bytes
    text: bytes             # as the nack gave it


class Description(NamedTuple):
    """What DESCRIBE tells of a queue: numbers of messages where nothing else is said."""

    configured: bool        # it was configured, and exists without messages too
    ready: int
    ready_bytes: int
    delayed: int
    leased: int
    waiting: int            # dequeues and leases that wait
    held_bytes: int         # of all messages: ready, delayed, leased
    dedup_ids: int
    settings: dict[int, int | bytes]        # by Setting, all of them


class LeaseUnderWay(NamedTuple):
    """A delivery that was not ended yet. Times in ms of replicated time."""

    id: int
    delivery: int
    deadline_ms: int
    taken_ms: int
    deliveries: int
    consumer: bytes


class Inspected(NamedTuple):
    """A message with what is known of it."""

    id: int
    priority: int
    deliveries: int
    expires_ms: int         # replicated time; 0: never
    origin: bytes           # the queue in which it became a dead letter first; empty: none
    history: tuple[Event, ...]
    message: bytes


_U32 = struct.Struct(">I")
_TWO_U64 = struct.Struct(">QQ")
_COUNTED = struct.Struct(">QI")             # replicated time now, count
_DESCRIPTION = struct.Struct(">B7Q8Q")
_LEASED = struct.Struct(">QQII")            # id, delivery, deliveries, length
_ONE_LEASED = struct.Struct(">IQQII")       # count, and a _LEASED
_LEASE = struct.Struct(">QQQQI")
_INSPECTED = struct.Struct(">QBIQ")
_EVENT = struct.Struct(">QQQIB")
_NUMBERS = [int(setting) for setting in Setting if setting != Setting.DEAD_LETTER]


def encode_enqueue_with_result(ids: list[int], duplicates: list[int]) -> bytes:
    """u32 count, the ids (u64), then a byte each: 1 where nothing was added."""
    return struct.pack(f">I{len(ids)}Q", len(ids), *ids) + bytes(duplicates)


def decode_enqueue_with_result(payload: bytes) -> list[tuple[int, bool]]:
    """[(id, whether it was enqueued before)]."""
    (count,), offset = take(_U32, payload, 0)
    if len(payload) != 4 + 9 * count:
        raise MalformedError("not the ids of an enqueue")
    ids = struct.unpack_from(f">{count}Q", payload, offset)
    flags = payload[4 + 8 * count:]
    if count and max(flags) > 1:
        raise MalformedError("a flag is 0 or 1")
    return list(zip(ids, map(bool, flags)))


def encode_lease_result(leased: list[tuple[int, int, int, bytes]]) -> bytes:
    """u32 count; u64 id, u64 delivery, u32 deliveries, u32 length of each; the messages."""
    if len(leased) == 1:
        ((message_id, delivery, deliveries, message),) = leased
        return _ONE_LEASED.pack(1, message_id, delivery, deliveries, len(message)) + message
    parts = [_U32.pack(len(leased))]
    for message_id, delivery, deliveries, message in leased:
        parts.append(_LEASED.pack(message_id, delivery, deliveries, len(message)))
    parts += [message for _, _, _, message in leased]
    return b"".join(parts)


def decode_lease_result(payload: bytes) -> list[Leased]:
    """The deliveries, in the order of the queue."""
    (count,), offset = take(_U32, payload, 0)
    body = offset + 24 * count
    if body > len(payload):
        raise MalformedError("not a list of deliveries")
    leased = []
    for message_id, delivery, deliveries, length in _LEASED.iter_unpack(payload[offset:body]):
        leased.append(Leased(message_id, delivery, deliveries, payload[body:body + length]))
        body += length
    check_end(payload, body)
    return leased


def encode_outcomes_result(outcomes: list[int] | bytes) -> bytes:
    """The result of ACK, NACK and EXTEND: u32 count, a byte for each receipt."""
    return _U32.pack(len(outcomes)) + bytes(outcomes)


def decode_outcomes_result(payload: bytes) -> list[int]:
    """An Outcome for each receipt."""
    outcomes, offset = take_counted(payload, 0)
    check_end(payload, offset)
    return list(outcomes)


def encode_moved_result(moved: int, left: int) -> bytes:
    """The result of PURGE and REDRIVE: u64 moved or removed, u64 left."""
    return _TWO_U64.pack(moved, left)


def decode_moved_result(payload: bytes) -> tuple[int, int]:
    """(moved or removed, left)."""
    return take_rest(_TWO_U64, payload, 0)


encode_purge_result = encode_redrive_result = encode_moved_result
decode_purge_result = decode_redrive_result = decode_moved_result


def encode_describe_result(description: Description) -> bytes:
    """u8 configured, seven u64, the settings 2 to 9 as u64, text dead letter."""
    *numbers, settings = description
    return _DESCRIPTION.pack(*numbers, *[settings[setting] for setting in _NUMBERS]) + encode_text(
        settings[Setting.DEAD_LETTER])


def decode_describe_result(payload: bytes) -> Description:
    """What the queue holds, and all of its settings."""
    (configured, *numbers), offset = take(_DESCRIPTION, payload, 0)
    dead_letter, offset = take_text(payload, offset)
    check_end(payload, offset)
    if configured > 1:
        raise MalformedError("a flag is 0 or 1")
    settings: dict[int, int | bytes] = {int(Setting.DEAD_LETTER): dead_letter}
    settings.update(zip(_NUMBERS, numbers[7:]))
    return Description(bool(configured), *numbers[:7], settings)


def encode_leases_result(now_ms: int, leases: list[tuple]) -> bytes:
    """u64 replicated time now, u32 count, and each as LeaseUnderWay has its fields."""
    parts = [_COUNTED.pack(now_ms, len(leases))]
    for *numbers, consumer in leases:
        parts += (_LEASE.pack(*numbers), encode_text(consumer))
    return b"".join(parts)


def decode_leases_result(payload: bytes) -> tuple[int, list[LeaseUnderWay]]:
    """(replicated time now, the deliveries under way)."""
    (now_ms, count), offset = take(_COUNTED, payload, 0)
    leases = []
    for _ in range(count):
        numbers, offset = take(_LEASE, payload, offset)
        consumer, offset = take_text(payload, offset)
        leases.append(LeaseUnderWay(*numbers, consumer))
    check_end(payload, offset)
    return now_ms, leases


def encode_history(history: tuple[tuple, ...]) -> bytes:
    """u8 count, and each as Event has its fields."""
    parts = [bytes((len(history),))]
    for *numbers, consumer, text in history:
        parts += (_EVENT.pack(*numbers), encode_text(consumer), encode_text(text))
    return b"".join(parts)


def take_history(data: bytes, offset: int) -> tuple[tuple[Event, ...], int]:
    """The events at `offset`, and the offset behind them."""
    if offset >= len(data):
        raise MalformedError("a history is missing")
    count, offset = data[offset], offset + 1
    history = []
    for _ in range(count):
        numbers, offset = take(_EVENT, data, offset)
        consumer, offset = take_text(data, offset)
        text, offset = take_text(data, offset)
        history.append(Event(*numbers, consumer, text))
    return tuple(history), offset


def encode_inspect_result(now_ms: int, messages: list[tuple]) -> bytes:
    """u64 replicated time now, u32 count, and each as Inspected has its fields."""
    parts = [_COUNTED.pack(now_ms, len(messages))]
    for message_id, priority, deliveries, expires_ms, origin, history, message in messages:
        parts += (_INSPECTED.pack(message_id, priority, deliveries, expires_ms),
                  encode_text(origin), encode_history(history), encode_counted(message))
    return b"".join(parts)


def decode_inspect_result(payload: bytes) -> tuple[int, list[Inspected]]:
    """(replicated time now, the messages)."""
    (now_ms, count), offset = take(_COUNTED, payload, 0)
    messages = []
    for _ in range(count):
        numbers, offset = take(_INSPECTED, payload, offset)
        origin, offset = take_text(payload, offset)
        history, offset = take_history(payload, offset)
        message, offset = take_counted(payload, offset)
        messages.append(Inspected(*numbers, origin, history, message))
    check_end(payload, offset)
    return now_ms, messages
