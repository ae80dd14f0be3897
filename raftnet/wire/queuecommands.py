"""What the commands of queues say: leases, retries, dead letters, settings (protocol.md, Commands).

Rules: as in commands.py: an encoder gives the command with its length, a decoder takes it without;
decoders trust nobody, raise MalformedError, and take time in proportion to the bytes. Counts and
times are as they came: what is over a limit is the machine's affair. Results: queueresults.py.

Layouts (`name` has 1 to 255 bytes, `text` 0 to 255, both with their length in a byte before them; a
receipt is u64 message id, u64 delivery):

    ENQUEUE_WITH  name, u8 priority, u64 delay_ms, u64 ttl_ms, u32 count, count x text (the
                  deduplication ids), count x u32 length, the messages
    LEASE         name, u32 count, u32 wait_ms, u64 lease_ms, text consumer
    ACK           u32 count, that many receipts
    NACK          u64 delay_ms, text reason, u32 count, that many receipts
    EXTEND        u64 lease_ms, u32 count, that many receipts
    CONFIGURE     name, u8 count, count x (u8 setting, u64 value), text where DEAD_LETTER is one
    DELETE_QUEUE, DESCRIBE      name
    PURGE, LEASES, INSPECT      name, u32 limit
    REDRIVE       name, text to, u32 limit
"""

import struct
from enum import IntEnum

from raftnet.errors import MalformedError
from raftnet.wire.commands import Operation, split_messages
from raftnet.wire.fields import (check_end, encode_command, encode_name, encode_text, take,
                                 take_name, take_rest, take_text)

QUEUE_BACKOFF = 0xFFFF_FFFF_FFFF_FFFF       # delay of a NACK: the one that the queue's settings say


class Setting(IntEnum):
    """What a queue can be told. Part of the protocol: never renumber."""

    DEAD_LETTER = 1         # the name of the queue that gets dead letters; empty: the default
    DELIVERY_LIMIT = 2      # deliveries after which a message is a dead letter; 0: none
    TTL_MS = 3              # of each message, from its enqueue; 0: none
    MESSAGES_MAX = 4        # all that the queue holds: ready, delayed, leased; 0: none
    BYTES_MAX = 5           # the same in bytes; 0: none
    OVERFLOW = 6            # what an enqueue beyond them does: Overflow
    DEDUP_WINDOW_MS = 7     # for which deduplication ids are remembered; 0: they are ignored
    BACKOFF_MS = 8          # delay of the first retry, doubling with each delivery
    BACKOFF_MAX_MS = 9      # and no longer than this


class Overflow(IntEnum):
    """Values of the setting OVERFLOW. Part of the protocol: never renumber."""

    REFUSE = 0
    DEAD_LETTER = 1         # the oldest messages go to the dead letters


# What a queue has that was not told otherwise; the empty name stands for `<queue>.dead`.
SETTING_DEFAULTS = {
    int(Setting.DEAD_LETTER): b"", int(Setting.DELIVERY_LIMIT): 20, int(Setting.TTL_MS): 0,
    int(Setting.MESSAGES_MAX): 0, int(Setting.BYTES_MAX): 0,
    int(Setting.OVERFLOW): int(Overflow.REFUSE), int(Setting.DEDUP_WINDOW_MS): 300_000,
    int(Setting.BACKOFF_MS): 1_000, int(Setting.BACKOFF_MAX_MS): 600_000}

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_WITH = struct.Struct(">BQQI")          # priority, delay, time to live, count
_LEASE = struct.Struct(">IIQ")          # count, wait, lease
_ONE_RECEIPT = struct.Struct(">IQQ")    # count, and message id and delivery
_SETTING = struct.Struct(">BQ")
_DEAD_LETTER, _OVERFLOW = int(Setting.DEAD_LETTER), int(Setting.OVERFLOW)


def encode_enqueue_with(queue: bytes, messages: list[bytes], priority: int = 0, delay_ms: int = 0,
                        ttl_ms: int = 0, dedup_ids: list[bytes] | None = None) -> bytes:
    """Append the messages, all or none. Result: their ids, and which of them were there already."""
    count = len(messages)
    dedup = (bytes(count) if dedup_ids is None
             else b"".join([encode_text(dedup_id) for dedup_id in dedup_ids]))
    lengths = struct.pack(f">{count}I", *map(len, messages))
    return encode_command(Operation.ENQUEUE_WITH, encode_name(queue),
                          _WITH.pack(priority, delay_ms, ttl_ms, count), dedup, lengths, *messages)


def decode_enqueue_with(
        command: bytes) -> tuple[bytes, int, int, int, list[bytes], list[bytes]]:
    """(queue, priority, delay_ms, ttl_ms, deduplication ids, messages); an id for each message,
    empty where it has none."""
    queue, offset = take_name(command)
    (priority, delay_ms, ttl_ms, count), offset = take(_WITH, command, offset)
    end = len(command)
    if offset + count > end:
        raise MalformedError("ENQUEUE_WITH: the count does not fit")
    if command.startswith(bytes(count), offset):        # none has an id
        dedup_ids = [b""] * count
        offset += count
    else:
        dedup_ids = []
        for _ in range(count):
            dedup_id, offset = take_text(command, offset)
            dedup_ids.append(dedup_id)
    messages: list[bytes] = []
    if not split_messages(command, offset, end, count, end, messages):
        raise MalformedError("ENQUEUE_WITH: the count or the lengths do not fit")
    return queue, priority, delay_ms, ttl_ms, dedup_ids, messages


def encode_lease(queue: bytes, lease_ms: int, count: int = 1, wait_ms: int = 0,
                 consumer: bytes = b"") -> bytes:
    """Take up to `count` messages for so long. Result: deliveries, or EMPTY after `wait_ms`."""
    return encode_command(Operation.LEASE, encode_name(queue),
                          _LEASE.pack(count, wait_ms, lease_ms), encode_text(consumer))


def decode_lease(command: bytes) -> tuple[bytes, int, int, int, bytes]:
    """(queue, count, wait_ms, lease_ms, consumer)."""
    queue, offset = take_name(command)
    (count, wait_ms, lease_ms), offset = take(_LEASE, command, offset)
    consumer, offset = take_text(command, offset)
    check_end(command, offset)
    return queue, count, wait_ms, lease_ms, consumer


# --- receipts


def encode_receipts(receipts: list[tuple[int, int]]) -> bytes:
    """u32 count, then u64 message id and u64 delivery of each."""
    flat = [number for receipt in receipts for number in receipt]
    return struct.pack(f">I{len(flat)}Q", len(receipts), *flat)


def take_receipts(command: bytes, offset: int) -> list[tuple[int, int]]:
    """The receipts from `offset` to the end, at least one."""
    if len(command) - offset == _ONE_RECEIPT.size:
        count, *receipt = _ONE_RECEIPT.unpack_from(command, offset)
        if count == 1:
            return [tuple(receipt)]
    (count,), offset = take(_U32, command, offset)
    if not count or len(command) - offset != 16 * count:
        raise MalformedError("the count of receipts does not fit")
    numbers = iter(struct.unpack_from(f">{2 * count}Q", command, offset))
    return list(zip(numbers, numbers))


def encode_ack(receipts: list[tuple[int, int]]) -> bytes:
    """The messages are done with, and gone. Result: an outcome for each receipt."""
    return encode_command(Operation.ACK, encode_receipts(receipts))


def decode_ack(command: bytes) -> list[tuple[int, int]]:
    """The receipts: [(message id, delivery)]."""
    return take_receipts(command, 1)


def encode_nack(receipts: list[tuple[int, int]], delay_ms: int | None = 0,
                reason: bytes = b"") -> bytes:
    """The messages come back, after `delay_ms` (None: the queue's back-off). Result: outcomes."""
    return encode_command(Operation.NACK,
                          _U64.pack(QUEUE_BACKOFF if delay_ms is None else delay_ms),
                          encode_text(reason), encode_receipts(receipts))


def decode_nack(command: bytes) -> tuple[int | None, bytes, list[tuple[int, int]]]:
    """(delay_ms, or None for the queue's back-off; reason; receipts)."""
    (delay_ms,), offset = take(_U64, command, 1)
    reason, offset = take_text(command, offset)
    return None if delay_ms == QUEUE_BACKOFF else delay_ms, reason, take_receipts(command, offset)


def encode_extend(receipts: list[tuple[int, int]], lease_ms: int) -> bytes:
    """The leases end `lease_ms` from now. Result: outcomes."""
    return encode_command(Operation.EXTEND, _U64.pack(lease_ms), encode_receipts(receipts))


def decode_extend(command: bytes) -> tuple[int, list[tuple[int, int]]]:
    """(lease_ms, receipts)."""
    (lease_ms,), offset = take(_U64, command, 1)
    return lease_ms, take_receipts(command, offset)


# --- settings


def encode_configure(queue: bytes, settings: dict[int, int | bytes]) -> bytes:
    """Change the settings that are given, no others: numbers, and a name for DEAD_LETTER."""
    parts = [encode_name(queue), bytes((len(settings),))]
    for setting, value in settings.items():
        parts.append(_SETTING.pack(setting, 0 if setting == _DEAD_LETTER else value))
    if _DEAD_LETTER in settings:
        parts.append(encode_text(settings[_DEAD_LETTER]))
    return encode_command(Operation.CONFIGURE, *parts)


def decode_configure(command: bytes) -> tuple[bytes, dict[int, int | bytes]]:
    """(queue, {setting: value}); the value of DEAD_LETTER is bytes. No setting is there twice, and
    none that this program does not know."""
    queue, offset = take_name(command)
    if offset >= len(command):
        raise MalformedError("CONFIGURE: cut short")
    count, offset = command[offset], offset + 1
    settings: dict[int, int | bytes] = {}
    for _ in range(count):
        (setting, value), offset = take(_SETTING, command, offset)
        if setting in settings or setting not in SETTING_DEFAULTS:
            raise MalformedError(f"CONFIGURE: setting {setting} is unknown, or there twice")
        if setting == _OVERFLOW and value > max(Overflow) or setting == _DEAD_LETTER and value:
            raise MalformedError(f"CONFIGURE: {value} is no value of setting {setting}")
        settings[setting] = value
    if _DEAD_LETTER in settings:
        settings[_DEAD_LETTER], offset = take_text(command, offset)
    check_end(command, offset)
    return queue, settings


# --- a queue as a whole


def encode_delete_queue(queue: bytes) -> bytes:
    """Forget an empty queue's settings and deduplication ids. Result: nothing."""
    return encode_command(Operation.DELETE_QUEUE, encode_name(queue))


def decode_delete_queue(command: bytes) -> bytes:
    """The queue."""
    queue, offset = take_name(command)
    check_end(command, offset)
    return queue


def encode_purge(queue: bytes, limit: int) -> bytes:
    """Remove up to `limit` messages that nobody holds. Result: how many, and how many are left."""
    return encode_command(Operation.PURGE, encode_name(queue), _U32.pack(limit))


def decode_purge(command: bytes) -> tuple[bytes, int]:
    """(queue, limit)."""
    queue, offset = take_name(command)
    return queue, take_rest(_U32, command, offset)[0]


def encode_redrive(queue: bytes, to: bytes = b"", limit: int = 1_000) -> bytes:
    """Send dead letters back, to `to` or, where that is empty, each to where it came from. Result:
    how many, and how many are left."""
    return encode_command(Operation.REDRIVE, encode_name(queue), encode_text(to), _U32.pack(limit))


def decode_redrive(command: bytes) -> tuple[bytes, bytes, int]:
    """(from, to or empty, limit)."""
    queue, offset = take_name(command)
    to, offset = take_text(command, offset)
    return queue, to, take_rest(_U32, command, offset)[0]


def encode_describe(queue: bytes) -> bytes:
    """Result: what the queue holds, and its settings (queueresults.Description)."""
    return encode_command(Operation.DESCRIBE, encode_name(queue))


decode_describe = decode_delete_queue       # the same layout, as the next ones have PURGE's


def encode_leases(queue: bytes, limit: int) -> bytes:
    """Result: the oldest deliveries under way (queueresults.LeaseUnderWay)."""
    return encode_command(Operation.LEASES, encode_name(queue), _U32.pack(limit))


decode_leases = decode_purge


def encode_inspect(queue: bytes, limit: int) -> bytes:
    """Result: the first messages with what is known of them (queueresults.Inspected)."""
    return encode_command(Operation.INSPECT, encode_name(queue), _U32.pack(limit))


decode_inspect = decode_purge
