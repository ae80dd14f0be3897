"""TRANSACT: a list of conditions and a list of commands, all or none (protocol.md, Commands).

Rules: as in commands.py. The commands are taken apart here and decoded by whoever performs them;
which of them may stand in a transaction is the machine's affair.

Layout of a TRANSACT after its operation:

    u32 count, each: u32 length of the rest, a condition on the state before
        u8 1 KEY      name key, condition (kvcommands.py)
        u8 2 QUEUE    name queue, u64 at_least, u64 at_most     of messages that are ready
        u8 3 LEASED   u64 message id, u64 delivery
    u32 count, that many commands, each with its length
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.wire.commands import Operation, split_commands
from raftnet.wire.fields import (check_end, encode_command, encode_counted, encode_name, take,
                                 take_counted, take_name, take_rest)
from raftnet.wire.kvcommands import Condition, encode_condition, take_condition

U64_MAX = 0xFFFF_FFFF_FFFF_FFFF


class Subject(IntEnum):
    """What a transaction's condition is about. Part of the protocol: never renumber."""

    KEY = 1
    QUEUE = 2
    LEASED = 3


class KeyCondition(NamedTuple):
    """The key is as the condition says."""

    key: bytes
    condition: Condition


class QueueCondition(NamedTuple):
    """The queue has so many ready messages."""

    queue: bytes
    at_least: int = 0
    at_most: int = U64_MAX


class LeasedCondition(NamedTuple):
    """That delivery's lease has not ended."""

    id: int
    delivery: int


TransactCondition = KeyCondition | QueueCondition | LeasedCondition
_U32 = struct.Struct(">I")
_TWO_U64 = struct.Struct(">QQ")
_ABORTED = struct.Struct(">IB")         # position, status
_KEY, _QUEUE, _LEASED = map(int, Subject)


def encode_transact(conditions: list[TransactCondition], commands: list[bytes]) -> bytes:
    """The commands, where all conditions hold. Result: as EXECUTE has, CONFLICT or ABORTED."""
    pieces = [encode_counted(_encode_subject(condition)) for condition in conditions]
    return encode_command(Operation.TRANSACT, _U32.pack(len(conditions)), *pieces,
                          _U32.pack(len(commands)), *commands)


def _encode_subject(condition: TransactCondition) -> bytes:
    if isinstance(condition, KeyCondition):
        return (bytes((_KEY,)) + encode_name(condition.key)
                + encode_condition(condition.condition))
    if isinstance(condition, QueueCondition):
        return (bytes((_QUEUE,)) + encode_name(condition.queue)
                + _TWO_U64.pack(condition.at_least, condition.at_most))
    return bytes((_LEASED,)) + _TWO_U64.pack(*condition)


def decode_transact(command: bytes) -> tuple[list[TransactCondition], list[bytes]]:
    """(conditions, commands without their lengths)."""
    (count,), offset = take(_U32, command, 1)
    conditions = []
    for _ in range(count):
        piece, offset = take_counted(command, offset)
        conditions.append(_decode_subject(piece))
    (count,), offset = take(_U32, command, offset)
    commands = split_commands(command, offset)
    if len(commands) != count:
        raise MalformedError("TRANSACT: the count does not fit")
    return conditions, commands


def _decode_subject(piece: bytes) -> TransactCondition:
    kind = piece[0] if piece else 0
    if kind == _KEY:
        key, offset = take_name(piece)
        condition, offset = take_condition(piece, offset)
        check_end(piece, offset)
        return KeyCondition(key, condition)
    if kind == _QUEUE:
        queue, offset = take_name(piece)
        return QueueCondition(queue, *take_rest(_TWO_U64, piece, offset))
    if kind == _LEASED:
        return LeasedCondition(*take_rest(_TWO_U64, piece, 1))
    raise MalformedError(f"TRANSACT: no condition has the kind {kind}")


def encode_conflict_result(position: int) -> bytes:
    """With status CONFLICT: u32 position of the condition that does not hold, from 0."""
    return _U32.pack(position)


def decode_conflict_result(payload: bytes) -> int:
    """The position of the condition that does not hold."""
    return take_rest(_U32, payload, 0)[0]


def encode_aborted_result(position: int, status: int, payload: bytes) -> bytes:
    """With status ABORTED: u32 position of the command for which all was undone, from 0; u8 its
    status (STALE for receipts), its payload."""
    return _ABORTED.pack(position, status) + payload


def decode_aborted_result(payload: bytes) -> tuple[int, int, bytes]:
    """(position, status, payload) of the command for which all was undone."""
    (position, status), offset = take(_ABORTED, payload, 0)
    return position, status, payload[offset:]
