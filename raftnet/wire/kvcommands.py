"""The commands of the key-value store and their results (protocol.md, Commands).

Rules: as in commands.py: an encoder gives the command with its length, a decoder takes it without;
decoders trust nobody and raise MalformedError. Keys have 1 to 255 bytes, values any number that a
message may have.

Layouts (`name` has 1 to 255 bytes, `text` 0 to 255, both with their length in a byte before them):

    KV_GET      name
    KV_PUT      name, u64 ttl_ms, condition, u32 length, value
    KV_DELETE   name, condition
    KV_LIST     text prefix, text after, u32 limit
    condition   u8 kind; EQUALS: u32 length, bytes; VERSION: u64
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.wire.commands import Operation
from raftnet.wire.fields import (check_end, encode_command, encode_counted, encode_name,
                                 encode_text, take, take_counted, take_name, take_rest, take_text)


class ConditionKind(IntEnum):
    """What is asked of a key's present state. Part of the protocol: never renumber."""

    NONE = 0
    ABSENT = 1
    PRESENT = 2
    EQUALS = 3          # value: bytes
    VERSION = 4         # value: a number


class Condition(NamedTuple):
    """One of ConditionKind (as a plain number), and what it compares with."""

    kind: int = 0
    value: bytes | int | None = None


class KvItem(NamedTuple):
    """A key's state."""

    version: int
    expires_ms: int     # replicated time; 0: never
    value: bytes


NO_CONDITION = Condition()
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_PLAIN_PUT = struct.Struct(">QBI")      # time to live, no condition, bytes of the value
_TWO_U64 = struct.Struct(">QQ")
_PAGE = struct.Struct(">BI")            # more, count
_NONE, _EQUALS, _VERSION = map(int, (
    ConditionKind.NONE, ConditionKind.EQUALS, ConditionKind.VERSION))


def encode_condition(condition: Condition) -> bytes:
    """u8 kind, and what it compares with."""
    kind, value = condition
    if kind == _EQUALS:
        return bytes((kind,)) + encode_counted(value)
    return bytes((kind,)) + (_U64.pack(value) if kind == _VERSION else b"")


def take_condition(data: bytes, offset: int) -> tuple[Condition, int]:
    """The condition at `offset`, and the offset behind it."""
    if offset >= len(data):
        raise MalformedError("a condition is missing")
    kind, offset = data[offset], offset + 1
    if kind == _EQUALS:
        value, offset = take_counted(data, offset)
        return Condition(kind, value), offset
    if kind == _VERSION:
        (version,), offset = take(_U64, data, offset)
        return Condition(kind, version), offset
    if kind > _VERSION:
        raise MalformedError(f"no condition has the kind {kind}")
    return (Condition(kind), offset) if kind else (NO_CONDITION, offset)


def encode_kv_get(key: bytes) -> bytes:
    """Result: version, expiry and value, or EMPTY."""
    return encode_command(Operation.KV_GET, encode_name(key))


def decode_kv_get(command: bytes) -> bytes:
    """The key."""
    key, offset = take_name(command)
    check_end(command, offset)
    return key


def encode_kv_put(key: bytes, value: bytes, ttl_ms: int = 0,
                  condition: Condition = NO_CONDITION) -> bytes:
    """Set the key where the condition holds. Result: its new version, or CONFLICT."""
    return encode_command(Operation.KV_PUT, encode_name(key), _U64.pack(ttl_ms),
                          encode_condition(condition), encode_counted(value))


def decode_kv_put(command: bytes) -> tuple[bytes, int, Condition, bytes]:
    """(key, ttl_ms, condition, value)."""
    key, offset = take_name(command)
    value_from = offset + _PLAIN_PUT.size
    if value_from <= len(command) and command[offset + _U64.size] == _NONE:
        ttl_ms, _, size = _PLAIN_PUT.unpack_from(command, offset)
        if value_from + size == len(command):
            return key, ttl_ms, NO_CONDITION, command[value_from:]
    (ttl_ms,), offset = take(_U64, command, offset)
    condition, offset = take_condition(command, offset)
    value, offset = take_counted(command, offset)
    check_end(command, offset)
    return key, ttl_ms, condition, value


def encode_kv_delete(key: bytes, condition: Condition = NO_CONDITION) -> bytes:
    """Remove the key where the condition holds. Result: the deletion's version, EMPTY, or
    CONFLICT."""
    return encode_command(Operation.KV_DELETE, encode_name(key), encode_condition(condition))


def decode_kv_delete(command: bytes) -> tuple[bytes, Condition]:
    """(key, condition)."""
    key, offset = take_name(command)
    condition, offset = take_condition(command, offset)
    check_end(command, offset)
    return key, condition


def encode_kv_list(prefix: bytes = b"", after: bytes = b"", limit: int = 1_000) -> bytes:
    """Keys that begin with `prefix`, in byte order from behind `after`. Result: a page of them."""
    return encode_command(Operation.KV_LIST, encode_text(prefix), encode_text(after),
                          _U32.pack(limit))


def decode_kv_list(command: bytes) -> tuple[bytes, bytes, int]:
    """(prefix, after, limit)."""
    prefix, offset = take_text(command, 1)
    after, offset = take_text(command, offset)
    return prefix, after, take_rest(_U32, command, offset)[0]


# --- results


def encode_kv_get_result(version: int, expires_ms: int, value: bytes) -> bytes:
    """u64 version, u64 expires_ms, value."""
    return _TWO_U64.pack(version, expires_ms) + value


def decode_kv_get_result(payload: bytes) -> KvItem:
    """The key's state."""
    (version, expires_ms), offset = take(_TWO_U64, payload, 0)
    return KvItem(version, expires_ms, payload[offset:])


def encode_version_result(version: int) -> bytes:
    """The result of KV_PUT and KV_DELETE: u64 version."""
    return _U64.pack(version)


def decode_version_result(payload: bytes) -> int:
    """The version."""
    return take_rest(_U64, payload, 0)[0]


encode_kv_put_result = encode_kv_delete_result = encode_version_result
decode_kv_put_result = decode_kv_delete_result = decode_version_result


def encode_kv_conflict(version: int, value: bytes) -> bytes:
    """With status CONFLICT: u64 version that the key has (0: absent), its value where it fits."""
    return _U64.pack(version) + value


def decode_kv_conflict(payload: bytes) -> tuple[int, bytes]:
    """(version, value)."""
    (version,), offset = take(_U64, payload, 0)
    return version, payload[offset:]


def encode_kv_list_result(more: bool, items: list[tuple[bytes, int, bytes]]) -> bytes:
    """u8 more, u32 count; name key, u64 version, u32 length, value of each."""
    parts = [_PAGE.pack(more, len(items))]
    for key, version, value in items:
        parts += (encode_name(key), _U64.pack(version), encode_counted(value))
    return b"".join(parts)


def decode_kv_list_result(payload: bytes) -> tuple[bool, list[tuple[bytes, int, bytes]]]:
    """(whether more keys follow, [(key, version, value)])."""
    (more, count), offset = take(_PAGE, payload, 0)
    if more > 1:
        raise MalformedError("a flag is 0 or 1")
    items = []
    for _ in range(count):
        key, offset = take_name(payload, offset)
        (version,), offset = take(_U64, payload, offset)
        value, offset = take_counted(payload, offset)
        items.append((key, version, value))
    check_end(payload, offset)
    return bool(more), items
