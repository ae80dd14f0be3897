"""A log entry and its bytes: the same in memory, on the wire and on disk (protocol.md, Entry).

Rules: the leader encodes an entry once; everybody else keeps the bytes that arrived. Nothing here
knows what a payload means. The node-local prefix of a record on disk is storage's.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from raftnet.errors import MalformedError

# length of what follows the checksum, checksum over it, term, index, kind
HEADER = struct.Struct(">IIQQB")
HEADER_BYTES = HEADER.size          # 25
_CHECKED_FROM = 8                   # the checksum covers the bytes from here on
_PACK_CHECKED = struct.Struct(">QQB").pack
_PACK_LEAD = struct.Struct(">II").pack
PAYLOAD_BYTES_MAX = 6 * 1024 * 1024


class EntryKind(IntEnum):
    """What the payload is."""

    EMPTY = 0           # a leader's first entry of its term (Raft 8)
    BATCH = 1           # stamp and client requests (protocol.md, Batch)
    MEMBERSHIP = 2      # the whole membership from this index on (protocol.md, Membership)


@dataclass(slots=True)
class Entry:
    """One entry of the log. `data` is all of its bytes, header included."""

    index: int          # position in the log, from 1
    term: int
    kind: int           # an EntryKind
    data: bytes

    @property
    def payload(self) -> bytes:
        """The bytes after the header."""
        return self.data[HEADER_BYTES:]


def encode_entry(index: int, term: int, kind: int, payload: bytes) -> Entry:
    """Make an entry and its bytes."""
    assert index >= 1 and term >= 1 and len(payload) <= PAYLOAD_BYTES_MAX
    checked = _PACK_CHECKED(term, index, kind)
    checksum = crc32(payload, crc32(checked))
    lead = _PACK_LEAD(len(checked) + len(payload), checksum)
    return Entry(index, term, kind, b"".join((lead, checked, payload)))


def decode_entry(buffer, offset: int = 0) -> Entry:
    """Read the entry that begins at `offset` of a bytes-like object; its end is offset + len(data).

    Raises MalformedError where the bytes are short, damaged or of an unknown kind.
    """
    available = len(buffer) - offset
    if available < HEADER_BYTES:
        raise MalformedError(f"{available} bytes are too few for an entry")
    length, checksum, term, index, kind = HEADER.unpack_from(buffer, offset)
    size = _CHECKED_FROM + length
    if size < HEADER_BYTES or size > HEADER_BYTES + PAYLOAD_BYTES_MAX:
        raise MalformedError(f"an entry cannot be {size} bytes long")
    if available < size:
        raise MalformedError(f"the entry is {size} bytes long, {available} are there")
    data = bytes(buffer[offset:offset + size])
    if crc32(memoryview(data)[_CHECKED_FROM:]) != checksum:
        raise MalformedError("the entry's checksum does not match its bytes")
    if kind not in _KINDS or index < 1 or term < 1:
        raise MalformedError(f"an entry of kind {kind}, index {index}, term {term} cannot be")
    return Entry(index, term, kind, data)


def decode_entries(buffer, offset: int, count: int) -> list[Entry]:
    """Read `count` entries that follow each other and end the buffer; raises MalformedError."""
    entries = []
    for _ in range(count):
        entry = decode_entry(buffer, offset)
        offset += len(entry.data)
        entries.append(entry)
    if offset != len(buffer):
        raise MalformedError(f"{len(buffer) - offset} bytes follow the last entry")
    return entries


_KINDS = frozenset(int(kind) for kind in EntryKind)
