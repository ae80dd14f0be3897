"""The snapshot file: written once, verified, read in pieces.

Layout (big-endian; protocol.md, Snapshot header):

    header    "RNSNAP", u16 format, 16 bytes cluster id, u64 index, u64 term, u64 membership_index,
              u32 digest, u32 bytes of the membership, the membership (raft/membership.py), CRC-32
    block     u32 bytes of data, u32 check, the data: a piece of the state (machine/state.py)
    end       u32 0, u64 size of the file, u32 checksum

`check` is the CRC-32 of the data, begun with the low 32 bits of the block's own offset XOR the
header's CRC-32: a block is none at another place or in another snapshot. `checksum` is the CRC-32
of the whole file before it; with index, term and size it names this file among all others.

Rules: bytes here only; what is in the pieces is the machine's affair, which file is the snapshot
is store.py's. Whoever builds something from `pieces` must not use it before their end.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import CorruptFileError, DamagedError, DiskFullError, MalformedError
from raftnet.raft.membership import Membership, decode_membership, encode_membership
from raftnet.raft.types import SnapshotMeta
from raftnet.storage.metafile import FORMAT, check_format, refuse_older

SNAPSHOT_NAME = "snapshot"
RECEIVED_NAME = "snapshot.received"
MADE_PREFIX = "snapshot.made-"      # and a number: written by a child process
MAGIC = b"RNSNAP"
HEAD = struct.Struct(">6sH16sQQQII")
HEAD_BYTES = HEAD.size              # 56; the membership and its CRC-32 follow
BLOCK_HEAD = struct.Struct(">II")
END = struct.Struct(">IQI")
END_BYTES = END.size                # 16
BLOCK_BYTES_MAX = 16 * 1024 * 1024  # of one piece: above the largest frame
MEMBERSHIP_BYTES_MAX = 6 * 1024 * 1024
READ_BYTES = 1024 * 1024            # of one read
WRITE_BYTES = 1024 * 1024           # gathered for one write
SYNC_BYTES = 8 * 1024 * 1024        # written between two syncs: a huge one would hold up the log's
_CRC = struct.Struct(">I")
_LOW_32 = 0xFFFFFFFF


class SnapshotHeader(NamedTuple):
    """What the header says."""

    cluster_id: bytes
    index: int
    term: int
    membership_index: int
    membership: Membership
    digest: int
    checksum: int           # of the header itself: blocks are begun with it
    end: int                # where the first block begins


def encode_header(cluster_id: bytes, index: int, term: int, membership_index: int,
                  membership: Membership, digest: int) -> bytes:
    """The bytes before the first block."""
    assert 1 <= membership_index <= index and term >= 1 and len(cluster_id) == 16
    packed = encode_membership(membership)
    assert len(packed) <= MEMBERSHIP_BYTES_MAX
    data = HEAD.pack(MAGIC, FORMAT, cluster_id, index, term, membership_index, digest,
                     len(packed)) + packed
    return data + _CRC.pack(crc32(data))


def decode_header(data: bytes, path: str) -> SnapshotHeader:
    """The header that begins `data`, which may be longer. Raises CorruptFileError, and StorageError
    for another format."""
    refuse_older(data, MAGIC, path)
    if len(data) < HEAD_BYTES:
        raise CorruptFileError(path, len(data), "the file is too short for its header")
    (magic, file_format, cluster_id, index, term, membership_index, digest,
     membership_bytes) = HEAD.unpack_from(data)
    end = HEAD_BYTES + membership_bytes + _CRC.size
    if magic != MAGIC or membership_bytes > MEMBERSHIP_BYTES_MAX or len(data) < end:
        raise CorruptFileError(path, 0, "no header of a snapshot begins here")
    (checksum,) = _CRC.unpack_from(data, end - _CRC.size)
    if crc32(memoryview(data)[:end - _CRC.size]) != checksum:
        raise CorruptFileError(path, 0, "the header's checksum does not match")
    check_format(file_format, path)
    try:
        membership = decode_membership(data[HEAD_BYTES:end - _CRC.size])
    except MalformedError as error:
        raise CorruptFileError(path, HEAD_BYTES, str(error)) from error
    return SnapshotHeader(cluster_id, index, term, membership_index, membership, digest, checksum,
                          end)


def encode_block(piece: bytes, offset: int, header_checksum: int) -> bytes:
    """A block that begins at `offset` of the file."""
    assert 0 < len(piece) <= BLOCK_BYTES_MAX
    check = crc32(piece, header_checksum ^ offset & _LOW_32)
    return BLOCK_HEAD.pack(len(piece), check) + piece


def encode_end(offset: int, checksum: int) -> bytes:
    """The end mark that begins at `offset`; `checksum` is that of all before it."""
    lead = END.pack(0, offset + END_BYTES, 0)[:-4]
    return lead + _CRC.pack(crc32(lead, checksum))


def write_snapshot(disk, name: str, index: int, term: int, membership_index: int,
                   membership: Membership, digest: int, cluster_id: bytes,
                   pieces: Iterable[bytes]) -> SnapshotMeta:
    """Write the file from the pieces of the state; synced, but neither its name nor renamed.

    Holds a few MiB at most. Raises DiskFullError (nothing of the file stays) and StorageError.
    """
    header = encode_header(cluster_id, index, term, membership_index, membership, digest)
    header_checksum = crc32(header[:-_CRC.size])
    handle = disk.open(name)
    try:
        disk.truncate(handle, 0)
        out = _Output(disk, handle, header)
        for piece in pieces:
            out.add(encode_block(piece, out.offset, header_checksum))
        end = encode_end(out.offset, out.checksum)
        out.add(end)
        out.flush()
        disk.sync(handle)
    except DiskFullError:
        disk.remove(name)       # what there is of it takes up the room that others need
        raise
    finally:
        disk.close(handle)
    return SnapshotMeta(index, term, membership_index, membership, digest, out.offset,
                        _CRC.unpack_from(end, END_BYTES - _CRC.size)[0])


class _Output:
    """Bytes on their way to a file, in few writes."""

    def __init__(self, disk, handle: int, first: bytes):
        self._disk = disk
        self._handle = handle
        self._parts = [first]
        self._written = 0           # bytes in the file
        self._synced = 0            # of them, those synced
        self.offset = len(first)    # where the next part comes
        self.checksum = crc32(first)    # of all parts

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self.checksum = crc32(part, self.checksum)
        self.offset += len(part)
        if self.offset - self._written >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        self._disk.write_at(self._handle, self._written, b"".join(self._parts))
        self._parts.clear()
        self._written = self.offset
        if self._written - self._synced >= SYNC_BYTES:
            self._disk.sync(self._handle)
            self._synced = self._written


class SnapshotFile:
    """The read side: one open handle, which stays readable after its name went to another file.

    Any thread may read. Whoever holds one that was replaced closes it.
    """

    def __init__(self, disk, name: str, handle: int, header: SnapshotHeader, size: int,
                 checksum: int):
        self._disk = disk
        self._handle = handle
        self._header = header
        self.name = name            # for messages; set anew when the file is renamed
        self.cluster_id = header.cluster_id
        self.meta = SnapshotMeta(header.index, header.term, header.membership_index,
                                 header.membership, header.digest, size, checksum)
        self.closed = False

    @classmethod
    def open(cls, disk, name: str) -> "SnapshotFile":
        """Header and end mark are checked, the rest is `verify`'s.

        Raises CorruptFileError; DamagedError where there is no such file.
        """
        path = disk.path(name)
        if not disk.exists(name):
            raise DamagedError(f"{path}: missing")
        handle = disk.open(name, make=False)
        try:
            size = disk.size(handle)
            header = read_header(lambda offset, count: disk.read_at(handle, offset, count), path)
            lead, end_size, checksum = END.unpack(
                disk.read_at(handle, max(0, size - END_BYTES), END_BYTES).ljust(END_BYTES, b"\xff"))
            if lead != 0 or end_size != size or size < header.end + END_BYTES:
                raise CorruptFileError(path, max(0, size - END_BYTES),
                                       f"the end mark is not there: cut after {size} bytes, or "
                                       "never complete")
        except BaseException:
            disk.close(handle)
            raise
        return cls(disk, name, handle, header, size, checksum)

    @property
    def path(self) -> str:
        """For messages."""
        return self._disk.path(self.name)

    def pieces(self) -> Iterator[bytes]:
        """The pieces of the state, each verified; at their end the whole file is.

        Raises CorruptFileError with path and offset.
        """
        header, size = self._header, self.meta.size
        checksum = crc32(self.read(0, header.end))
        offset = position = header.end      # in the file, in the buffer
        buffer, start = b"", header.end     # the bytes from `start` of the file on
        while True:
            position = offset - start
            wanted = BLOCK_HEAD.size
            if len(buffer) - position >= wanted:
                length, check = BLOCK_HEAD.unpack_from(buffer, position)
                if not length:
                    break
                wanted += length
                if length > BLOCK_BYTES_MAX or offset + wanted > size - END_BYTES:
                    raise self._damaged(offset, f"a block cannot be {length} bytes long here")
            if len(buffer) - position < wanted:
                buffer, start = self._more(buffer[position:], offset, wanted), offset
                continue
            block_end = position + wanted
            piece = buffer[position + BLOCK_HEAD.size:block_end]
            if crc32(piece, header.checksum ^ offset & _LOW_32) != check:
                raise self._damaged(offset, "the block's checksum does not match")
            checksum = crc32(piece, crc32(buffer[position:position + BLOCK_HEAD.size], checksum))
            offset += wanted
            yield piece
        self._check_end(offset, checksum)

    def _more(self, rest: bytes, offset: int, wanted: int) -> bytes:
        """`rest`, which stands at `offset`, and what follows it: `wanted` bytes at least."""
        count = min(max(READ_BYTES, wanted), self.meta.size - offset) - len(rest)
        data = rest + self.read(offset + len(rest), count)
        if len(data) < wanted:
            raise self._damaged(offset, "the file ends within a block")
        return data

    def _check_end(self, offset: int, checksum: int) -> None:
        size = self.meta.size
        if (offset != size - END_BYTES
                or self.read(offset, END_BYTES + 1) != encode_end(offset, checksum)):
            raise self._damaged(offset, "the end mark does not match what stands before it")

    def verify(self) -> None:
        """Read all of it. Raises CorruptFileError with path and offset."""
        for _ in self.pieces():
            pass

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of the file, for a transfer; fewer only where it ends."""
        return self._disk.read_at(self._handle, offset, count)

    def sync(self) -> None:
        """Make the bytes durable: of a file that was received."""
        self._disk.sync(self._handle)

    def close(self) -> None:
        """Close; a second time does nothing."""
        if not self.closed:
            self.closed = True
            self._disk.close(self._handle)

    def _damaged(self, offset: int, text: str) -> CorruptFileError:
        return CorruptFileError(self._disk.path(self.name), offset, text)


def read_header(read, path: str) -> SnapshotHeader:
    """The header of a file that is read by `read(offset, count)`. Raises as decode_header."""
    data = read(0, HEAD_BYTES)
    if len(data) == HEAD_BYTES:
        data += read(HEAD_BYTES, min(HEAD.unpack(data)[-1], MEMBERSHIP_BYTES_MAX) + _CRC.size)
    return decode_header(data, path)
