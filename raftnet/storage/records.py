"""The bytes of the log file: header and records, read without opening or changing anything.

Layout (big-endian; protocol.md, Files):

    header    "RNLOG\\0", u16 format, u64 base_index, u64 base_term, u64 node_id, CRC-32 over the 32
              bytes before
    record    "RREC", u32 check, u64 synced_offset, then the entry verbatim (raft/entry.py)

`base_index` and `base_term` name the entry before the file's first, `node_id` the node whose log it
is. `synced_offset` is the offset
up to which the file was known durable when the record was written. `check` is the CRC-32 of the 33
bytes after it (synced_offset and the entry's header, so that the two belong together and the length
can be trusted), begun with the low 32 bits of the record's own offset in the file in place of 0:
a copy of a record, inside a message for instance, is none elsewhere. The entry's own checksum
covers the payload.

Where bytes are no record they are either a torn tail, the unfinished last write, or damage. A
later record that was written when the bad bytes were known durable tells: then it is damage.
The marker "RREC" makes the search for one fast.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import CorruptFileError, MalformedError
from raftnet.raft.entry import HEADER_BYTES as ENTRY_HEADER_BYTES
from raftnet.raft.entry import PAYLOAD_BYTES_MAX, Entry, EntryKind, decode_entry
from raftnet.storage.metafile import FORMAT, check_format, refuse_older

Read = Callable[[int, int], bytes]      # (offset, count): fewer bytes only where the file ends

HEADER = struct.Struct(">6sHQQQI")
HEADER_BYTES = HEADER.size              # 36
MAGIC = b"RNLOG\0"
MARKER = b"RREC"
PREFIX = struct.Struct(">4sIQ")
PREFIX_BYTES = PREFIX.size              # 16
CHECKED_FROM = 8
ENTRY_LEAD_BYTES = 8                   # an entry's length and checksum
ENTRY_CHECKED_BYTES = ENTRY_HEADER_BYTES - ENTRY_LEAD_BYTES
RECORD_HEAD_BYTES = PREFIX_BYTES + ENTRY_HEADER_BYTES   # 41
RECORD_BYTES_MAX = RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX
CHUNK_BYTES = 4 * 1024 * 1024           # one read of a scan

_SYNCED = struct.Struct(">Q")
RECORD_HEAD = struct.Struct(">4sIQIIQQB")     # prefix and entry header
LOW_32 = 0xFFFFFFFF
KINDS = frozenset(int(kind) for kind in EntryKind)


class LogHeader(NamedTuple):
    """What the header says."""

    base_index: int     # the entry before the file's first
    base_term: int
    node_id: int        # of the node whose log it is


def encode_header(base_index: int, base_term: int, node_id: int) -> bytes:
    """The 36 bytes that begin the file."""
    data = HEADER.pack(MAGIC, FORMAT, base_index, base_term, node_id, 0)[:-4]
    return data + struct.pack(">I", crc32(data))


def decode_header(data: bytes, path: str) -> LogHeader:
    """The header. Raises CorruptFileError, StorageError for another format."""
    refuse_older(data, MAGIC, path)
    if len(data) < HEADER_BYTES:
        raise CorruptFileError(path, len(data), "the file is too short for its header")
    magic, file_format, *values, checksum = HEADER.unpack_from(data)
    if magic != MAGIC or crc32(data[:HEADER_BYTES - 4]) != checksum:
        raise CorruptFileError(path, 0, "the header's checksum does not match")
    check_format(file_format, path)
    return LogHeader(*values)


def encode_prefix(synced_offset: int, offset: int, entry_bytes: bytes) -> bytes:
    """What stands before an entry whose record begins at `offset`."""
    synced = _SYNCED.pack(synced_offset)
    check = crc32(synced + entry_bytes[:ENTRY_HEADER_BYTES], offset & LOW_32)
    return PREFIX.pack(MARKER, check, synced_offset)


def scan_records(read: Read, size: int, offset: int = HEADER_BYTES,
                 ) -> Iterator[tuple[int, int | str, Entry | None]]:
    """Every record from `offset` to the file's `size`, annulled ones too, in file order.

    Yields (offset, synced_offset, entry). Where the bytes are no record, the last value is
    (offset, reason, None): `find_voucher` tells a torn tail from damage. Whether the indexes
    follow each other is the caller's to check.
    """
    buffer = b""
    view = memoryview(buffer)
    position = 0                        # of `offset` in the buffer
    unpack_head = RECORD_HEAD.unpack_from
    while offset < size:
        end = position + RECORD_HEAD_BYTES
        if end <= len(buffer):
            marker, check, synced_offset, length, checksum, term, index, kind = unpack_head(
                buffer, position)
            if (marker != MARKER or synced_offset > offset
                    or crc32(view[position + CHECKED_FROM:end], offset & LOW_32) != check):
                yield offset, "no record begins here", None
                return
            end = position + PREFIX_BYTES + ENTRY_LEAD_BYTES + length
        if end > len(buffer):
            if end - position > min(size - offset, RECORD_BYTES_MAX):
                yield offset, f"the record is cut short after {size - offset} bytes", None
                return
            buffer = refill(read, buffer[position:], offset, end - position, size)
            view = memoryview(buffer)
            position = 0
            continue
        entry_at = position + PREFIX_BYTES
        if (crc32(view[entry_at + ENTRY_LEAD_BYTES:end]) == checksum and kind in KINDS
                and index and term and length >= ENTRY_CHECKED_BYTES):
            yield offset, synced_offset, Entry(index, term, kind, buffer[entry_at:end])
        else:
            yield offset, why_no_entry(buffer, entry_at), None
            return
        offset += end - position
        position = end


def refill(read: Read, rest: bytes, offset: int, wanted: int, size: int) -> bytes:
    """`rest`, which stands at `offset`, and what follows it: `wanted` bytes at least."""
    count = min(max(CHUNK_BYTES, wanted), size - offset) - len(rest)
    more = read(offset + len(rest), count)
    if len(more) < count:
        more += bytes(count - len(more))    # cut while it is read: zeros are no record
    return rest + more


def why_no_entry(buffer: bytes, position: int) -> str:
    """What is wrong with the entry there, whose record's head is right."""
    try:
        entry = decode_entry(buffer, position)
    except MalformedError as error:
        return str(error)
    raise AssertionError(f"scan and decode_entry disagree about entry {entry.index}")


def find_voucher(read: Read, size: int, offset: int) -> int | None:
    """The offset of the first record after `offset` that was written when the bytes at `offset`
    were known durable, so that what is wrong there is damage; None: it is a torn tail."""
    start = offset + 1
    buffer = b""
    while start + RECORD_HEAD_BYTES <= size:
        buffer = read(start, min(CHUNK_BYTES, size - start))
        if len(buffer) < RECORD_HEAD_BYTES:
            return None         # cut while it is read
        position = buffer.find(MARKER)
        while 0 <= position <= len(buffer) - RECORD_HEAD_BYTES:
            _, check, synced_offset = PREFIX.unpack_from(buffer, position)
            found = start + position
            if offset < synced_offset <= found and check == crc32(
                    buffer[position + CHECKED_FROM:position + RECORD_HEAD_BYTES],
                    found & LOW_32):
                return found
            position = buffer.find(MARKER, position + 1)
        # A record's head may lie across the edge of two reads.
        start += len(buffer) - RECORD_HEAD_BYTES + 1
    return None
