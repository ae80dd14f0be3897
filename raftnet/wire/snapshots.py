"""Bodies of the frames about snapshots, between clients and nodes (protocol.md, Client messages).

Rules: struct only; every decoder raises MalformedError on anything that is not exactly the layout.
How snapshots travel between nodes is in net/messages.py, what is in them in storage/snapshot.py.
"""

import struct
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.wire.requests import check_end, unpack_flag, unpack_head

_TAKE = struct.Struct(">B")                 # local
_TAKEN = struct.Struct(">QQQII")            # index, term, size, checksum, digest
_READ = struct.Struct(">QQI")               # index, offset, count
_PART = struct.Struct(">QQQ")               # index, size, offset
PART_BYTES_MAX = 1024 * 1024                # of one SNAPSHOT_PART


class Taken(NamedTuple):
    """A snapshot that the answering node holds."""

    index: int          # the last entry that it contains
    term: int
    size: int           # bytes of the file
    checksum: int       # CRC-32 of the file up to its last 4 bytes, which are the same
    digest: int         # Machine.digest at `index`


class Part(NamedTuple):
    """Some bytes of a snapshot."""

    index: int
    size: int           # of the whole file, bytes
    offset: int
    data: bytes         # empty only at the end of the file


def encode_take_snapshot(local: bool) -> bytes:
    """Body of TAKE_SNAPSHOT; `local` asks the node itself, leader or not."""
    return _TAKE.pack(local)


def decode_take_snapshot(body: bytes) -> bool:
    """local; raises MalformedError."""
    (local,) = unpack_head(_TAKE, body, "TAKE_SNAPSHOT")
    check_end(_TAKE.size, body, "TAKE_SNAPSHOT")
    return unpack_flag(local)


def encode_snapshot_taken(taken: Taken) -> bytes:
    """Body of SNAPSHOT_TAKEN."""
    return _TAKEN.pack(*taken)


def decode_snapshot_taken(body: bytes) -> Taken:
    """Raises MalformedError."""
    values = unpack_head(_TAKEN, body, "SNAPSHOT_TAKEN")
    check_end(_TAKEN.size, body, "SNAPSHOT_TAKEN")
    return Taken(*values)


def encode_read_snapshot(index: int, offset: int, count: int) -> bytes:
    """Body of READ_SNAPSHOT: `count` bytes (1 or more; fewer may come) from `offset` on of the
    snapshot at `index`."""
    assert count >= 1
    return _READ.pack(index, offset, count)


def decode_read_snapshot(body: bytes) -> tuple[int, int, int]:
    """(index, offset, count); raises MalformedError."""
    index, offset, count = unpack_head(_READ, body, "READ_SNAPSHOT")
    check_end(_READ.size, body, "READ_SNAPSHOT")
    if not count:
        raise MalformedError("READ_SNAPSHOT: a count from 1 on is needed")
    return index, offset, count


def encode_snapshot_part(part: Part) -> bytes:
    """Body of SNAPSHOT_PART: up to PART_BYTES_MAX bytes."""
    assert len(part.data) <= PART_BYTES_MAX, "callers bound the parts"
    return _PART.pack(part.index, part.size, part.offset) + part.data


def decode_snapshot_part(body: bytes) -> Part:
    """Raises MalformedError."""
    index, size, offset = unpack_head(_PART, body, "SNAPSHOT_PART")
    data = body[_PART.size:]
    if offset + len(data) > size:
        raise MalformedError("SNAPSHOT_PART: more bytes than the snapshot has")
    if not data and offset < size:
        raise MalformedError("SNAPSHOT_PART: empty, and not at the end of the snapshot")
    return Part(index, size, offset, data)
