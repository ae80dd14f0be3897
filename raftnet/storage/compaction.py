"""Successor: the log that begins later, made beside the current one.

`log.new` gets the current records above its base, in the order of their indexes, in pieces of a
bounded size, while the current log goes on being appended to. Where a conflicting tail is replaced
meanwhile, what was copied of it is annulled by the copies of the new records: `rewind`. The header
is written last, so that a `log.new` with a header is whole.

Rules: every prefix is made anew, since its check depends on the offset; each record says that
everything before it was durable, which is so once the file has its header. Every entry's checksum
is verified on the way: damage is never copied as something good. One thread (the disk's) calls the
methods. When this is done, and what becomes of the files, is store.py's affair.
"""

import struct
from array import array
from zlib import crc32

from raftnet.errors import CorruptFileError, MalformedError, StorageError
from raftnet.raft.entry import decode_entry
from raftnet.storage import records
from raftnet.storage.logfile import NEW_LOG_NAME, LogFile
from raftnet.storage.records import (ENTRY_LEAD_BYTES, HEADER_BYTES, PREFIX_BYTES, LogHeader,
                                     encode_header)

STEP_BYTES = 512 * 1024         # copied at a time: some 5 ms, and a sync
STEP_RECORDS = 3_000
STEP_BYTES_MAX = 16 * 1024 * 1024   # where much is appended meanwhile
STEP_RECORDS_MAX = 100_000
LEAD_BYTES = PREFIX_BYTES + ENTRY_LEAD_BYTES    # of a record, before what the entry's length counts
_ENTRY_HEAD = struct.Struct(">IIQQ")            # length, checksum, term, index


class Successor:
    """`log.new` on its way. `header`: of the log to come; `old`: the current one, None where
    nothing of it stays."""

    def __init__(self, disk, old: LogFile | None, header: LogHeader):
        self._disk = disk
        self._old = old
        self.header = header
        self._handle = disk.open(NEW_LOG_NAME)
        try:
            disk.truncate(self._handle, 0)
        except StorageError:
            disk.close(self._handle)
            raise
        self._end = HEADER_BYTES
        self._offsets, self._sizes, self._terms = array("Q"), array("Q"), array("Q")

    @property
    def _next_index(self) -> int:
        """The first index that is not copied yet."""
        return self.header.base_index + 1 + len(self._terms)

    @property
    def left_bytes(self) -> int:
        """About so much is still to be copied."""
        return self._old.bytes_from(self._next_index) if self._old else 0

    def rewind(self, last_kept: int) -> None:
        """The current log replaced everything above that index."""
        assert last_kept >= self.header.base_index, "what a snapshot contains is never replaced"
        for column in (self._offsets, self._sizes, self._terms):
            del column[last_kept - self.header.base_index:]

    def copy(self, bytes_max: int = STEP_BYTES, records_max: int = STEP_RECORDS) -> bool:
        """Copy a piece and sync it; whether there was something to copy.

        Raises DiskFullError (`abandon`), CorruptFileError, StorageError.
        """
        if self._old is None:
            return False
        parts: list[bytes] = []
        offset, head_of = self._end, _ENTRY_HEAD.unpack_from
        last = self._old.last_index
        for index, start, sizes, terms in self._old.runs(self._next_index, last, bytes_max,
                                                         records_max):
            data = self._disk.read_at(self._old.handle, start, sum(sizes))
            view = memoryview(data)
            position = 0
            for size, term in zip(sizes, terms):
                end = position + size
                length, checksum, found_term, found_index = head_of(data, position + PREFIX_BYTES)
                if (found_term != term or found_index != index or length + LEAD_BYTES != size
                        or crc32(view[position + LEAD_BYTES:end]) != checksum):
                    raise self._changed(data, position, start)
                entry = data[position + PREFIX_BYTES:end]
                parts += (records.encode_prefix(offset, offset, entry), entry)
                self._offsets.append(offset)
                offset += size
                position = end
                index += 1
            self._sizes.extend(sizes)
            self._terms.extend(terms)
        if not parts:
            return False
        self._disk.write_at(self._handle, self._end, b"".join(parts))
        self._disk.sync(self._handle)
        self._end = offset
        return True

    def _changed(self, data: bytes, position: int, start: int) -> CorruptFileError:
        """Of the record at `position` of what was read from `start` on."""
        reason = "another entry stands there"
        try:
            decode_entry(data, position + PREFIX_BYTES)
        except MalformedError as error:
            reason = str(error)
        return CorruptFileError(self._old.path, start + position,
                                f"changed since it was written: {reason}")

    def finish(self, bytes_max: int = STEP_BYTES, records_max: int = STEP_RECORDS) -> LogFile:
        """Copy the rest, so much at a time, and write the header: the log to come, whole and
        synced, under its provisional name. Raises as `copy`."""
        while self.copy(bytes_max, records_max):
            pass
        self._disk.write_at(self._handle, 0, encode_header(*self.header))
        self._disk.sync(self._handle)
        self._disk.sync_directory()
        log = LogFile(self._disk, self._handle, self.header, NEW_LOG_NAME)
        log.take_map(self._end, self._offsets, self._sizes, self._terms)
        return log

    def abandon(self) -> None:
        """Empty the file and take it away, so that no start can take it for something."""
        self._disk.truncate(self._handle, 0)
        self._disk.sync(self._handle)
        self._disk.close(self._handle)
        self._disk.remove(NEW_LOG_NAME)
