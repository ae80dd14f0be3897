"""The log file: opened at start, appended to and synced, read back in pieces.

Rules: strictly appended. A record at index i annuls all earlier records at i or above, so that a
conflicting tail is replaced by appending too, and no truncation can be caught halfway by a crash.
One thread appends; another may read what is durable meanwhile. The bytes are records.py's affair,
reading all of them replay.py's, the log that begins later compaction.py's, the order of writes
across files store.py's. Nothing damaged is ever skipped or deleted: only a
torn tail, which nobody was promised, is cut.
"""

import gc
import threading
from array import array
from bisect import bisect_left
from collections.abc import Set
from zlib import crc32

from raftnet.errors import CorruptFileError, DiskFullError, MalformedError
from raftnet.raft.entry import HEADER as ENTRY_HEADER
from raftnet.raft.entry import Entry, EntryKind, decode_entry
from raftnet.storage.metafile import NEW_SUFFIX, write_renamed
from raftnet.storage.records import (CHUNK_BYTES, ENTRY_LEAD_BYTES, HEADER_BYTES, KINDS,
                                     PREFIX_BYTES, LogHeader, decode_header, encode_header,
                                     encode_prefix, find_voucher)
from raftnet.storage.replay import Replay, Replayed, Report

LOG_NAME = "log"
NEW_LOG_NAME = LOG_NAME + NEW_SUFFIX
READ_ENTRIES_MAX = 2_000        # of one `read`: bounds how long the loop decodes


class LogFile:
    """The open log file.

    Invariant: the map holds exactly the durable current records; indexes from base_index + 1 on
    without a gap; offsets ascend with them, terms never descend.
    """

    def __init__(self, disk, handle: int, header: LogHeader, name: str = LOG_NAME):
        self._disk = disk
        self._handle = handle
        self._name = name
        self.base_index = header.base_index     # the entry before the file's first
        self.base_term = header.base_term
        self.node_id = header.node_id           # whose log it is
        self._end = HEADER_BYTES        # where the next record goes; below it all is durable
        self._known_synced = HEADER_BYTES   # at start: the highest synced_offset of a record
        self._offsets = array("Q")      # by index - base_index - 1: where its record begins
        self._sizes = array("Q")        # bytes of its record
        self._terms = array("Q")
        self._lock = threading.Lock()   # held while the map is used, never during I/O
        self._reading = threading.Lock()    # held while another thread reads: no close meanwhile
        self._closed = False
        self.kept_index = 0         # what the last append left in place ends there

    @classmethod
    def create(cls, disk, node_id: int, base_index: int = 0, base_term: int = 0) -> "LogFile":
        """Put an empty log in place of whatever is there; durable on return."""
        header = LogHeader(base_index, base_term, node_id)
        return cls(disk, write_renamed(disk, LOG_NAME, encode_header(*header)), header)

    @classmethod
    def open(cls, disk, node_id: int, report: Report, memory_bytes: int,
             name: str = LOG_NAME, stop_at: tuple[int, int] | None = None,
             ) -> tuple["LogFile", Replayed]:
        """Replay the file of that node and change nothing: the log, and what was found in it. Of
        its entries the newest `memory_bytes` are kept, the last BATCH among them at least.

        Before anything else is done with it, `settle`. A long replay tells `report` how far it
        is. With `stop_at`, (index, term) of an entry, the first record of that is the last one:
        all up to it is right then (log matching), and the log is only for reading.
        Raises CorruptFileError with the offset where synced bytes are damaged.
        """
        handle = disk.open(name, make=False)
        path = disk.path(name)
        collecting = gc.isenabled()
        gc.disable()            # it would walk all entries so far, over and over
        try:
            header = decode_header(disk.read_at(handle, 0, HEADER_BYTES), path)
            if header.node_id != node_id:
                raise CorruptFileError(path, 0, f"it is the log of node {header.node_id:016x}, "
                                       f"and this is node {node_id:016x}")
            log = cls(disk, handle, header, name)
            return log, log._replay(report, memory_bytes, stop_at)
        except BaseException:
            disk.close(handle)
            raise
        finally:
            if collecting:
                gc.enable()

    def settle(self, report: Report) -> None:
        """Make what was replayed durable; a torn tail is cut, and `report` hears of it.

        What lies above the highest offset known as synced is written anew, the same: after a
        failed sync the page cache may show, as clean, what is not on the disk, and another sync
        alone would do nothing. Raises DiskFullError, StorageError.
        """
        size = self._disk.size(self._handle)
        if self._end < size:
            report(f"{self._disk.path(self._name)}: torn tail of an unfinished write: cut "
                   f"{size - self._end} bytes at byte {self._end}")
            self._disk.truncate(self._handle, self._end)
        offset = self._known_synced
        while offset < self._end:
            data = self._read(offset, min(CHUNK_BYTES, self._end - offset))
            self._disk.write_at(self._handle, offset, data)
            offset += len(data)
        self._disk.sync(self._handle)

    def take_map(self, end: int, offsets: array, sizes: array, terms: array) -> None:
        """Of a file that was written by somebody else: where its records are and where it ends."""
        self._end = self._known_synced = end
        self._offsets, self._sizes, self._terms = offsets, sizes, terms

    def take_name(self) -> None:
        """A log that was made beside the current one is renamed over it (not yet durable)."""
        if self._name != LOG_NAME:
            self._disk.rename(self._name, LOG_NAME)
            self._name = LOG_NAME

    def close(self) -> None:
        """Close the file; everything in it is synced already. Waits for a read to end."""
        with self._reading:
            self._closed = True
        self._disk.close(self._handle)

    @property
    def last(self) -> tuple[int, int]:
        """(term, index) of the last durable entry: by these logs are compared (Raft 5.4.1)."""
        return self.last_term, self.last_index

    @property
    def last_index(self) -> int:
        """Index of the last durable entry, base_index where there is none."""
        return self.base_index + len(self._terms)

    @property
    def last_term(self) -> int:
        """Its term."""
        return self._terms[-1] if self._terms else self.base_term

    @property
    def path(self) -> str:
        """For messages."""
        return self._disk.path(self._name)

    @property
    def handle(self) -> int:
        """Of the open file, for whoever copies it."""
        return self._handle

    def bytes_from(self, index: int) -> int:
        """Bytes of the file from that entry's record on, or from its first one; 0 where there is
        none."""
        with self._lock:
            place = max(index - self.base_index - 1, 0)
            return self._end - self._offsets[place] if place < len(self._offsets) else 0

    def index_before(self, index: int, count: int) -> int:
        """The lowest index from which on the records up to that of `index` have `count` bytes at
        most; base_index at least."""
        with self._lock:
            place = min(index - self.base_index, len(self._offsets))
            if place <= 0:
                return index
            end = self._offsets[place - 1] + self._sizes[place - 1]
            return self.base_index + bisect_left(self._offsets, end - count, 0, place)

    @property
    def has_torn_tail(self) -> bool:
        """Whether more bytes follow the last record, after `open`."""
        return self._end < self._disk.size(self._handle)

    @property
    def size(self) -> int:
        """Bytes of the file, annulled records included."""
        return self._end

    def term_at(self, index: int) -> int | None:
        """The term of the durable entry at `index`, the base included; None where it has none."""
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            return None
        return self._terms[index - self.base_index - 1]

    # --- replay

    def _replay(self, report: Report, memory_bytes: int,
                stop_at: tuple[int, int] | None) -> Replayed:
        """Fill the map."""
        size = self._disk.size(self._handle)
        replay = Replay(self._read, size, self.base_index, self.base_term,
                        self._disk.path(self._name))
        replay.run(memory_bytes, report, stop_at)
        if replay.bad:
            self._refuse_damage(size, replay.end, replay.bad)
        self._end, self._known_synced = replay.end, replay.known_synced
        self._offsets, self._sizes, self._terms = replay.offsets, replay.sizes, replay.terms
        found = replay.replayed()
        entries = found.entries
        first, count = entries[0].index if entries else self.last_index + 1, 1
        while (not any(entry.kind == EntryKind.BATCH for entry in entries)
               and first > self.base_index + 1):
            last, first = first - 1, max(self.base_index + 1, first - count)
            entries[:0] = self.read(first, last, size)
            count = min(2 * count, READ_ENTRIES_MAX)
        return found

    def _refuse_damage(self, size: int, offset: int, reason: str) -> None:
        """Return where the bytes at `offset` are a torn tail, raise where they are damage."""
        voucher = find_voucher(self._read, size, offset)
        if voucher is not None:
            raise CorruptFileError(self._disk.path(self._name), offset,
                                   f"{reason}, and the record at byte {voucher} shows that these "
                                   "bytes were once durable")

    def _read(self, offset: int, count: int) -> bytes:
        return self._disk.read_at(self._handle, offset, count)

    # --- append

    def append(self, entries: list[Entry], rewinding: Set[int] = frozenset()) -> None:
        """Write the entries in one write and sync them.

        Each must be last + 1, or replace an entry of another term and all above it; those whose
        `id()` is in `rewinding` may also stand there already: only what follows is annulled. Raises
        DiskFullError (nothing is changed, try again) or StorageError (the process must end).
        """
        batch = _Batch(self, entries, rewinding)
        try:
            self._disk.write_at(self._handle, self._end, b"".join(batch.parts))
        except DiskFullError:
            # Synced, so that no remains of this write can show up behind a later one.
            self._disk.truncate(self._handle, self._end)
            self._disk.sync(self._handle)
            raise
        self._disk.sync(self._handle)
        with self._lock:
            for column, new in ((self._offsets, batch.offsets), (self._sizes, batch.sizes),
                                (self._terms, batch.terms)):
                del column[batch.kept:]
                column.extend(new)
        self._end = batch.end
        self.kept_index = self.base_index + batch.kept

    # --- read back

    def read(self, first: int, last_max: int, bytes_max: int) -> list[Entry] | None:
        """Durable entries from `first` to `last_max` at most: one at least, and no more once they
        reach `bytes_max` bytes; an empty list where the file does not hold `first`; None where the
        file was closed.

        Another thread may append or close meanwhile. Raises CorruptFileError.
        """
        with self._reading:
            return None if self._closed else self._read_runs(self.runs(first, last_max, bytes_max))

    def _read_runs(self, runs: list[tuple]) -> list[Entry]:
        """One loop, inline, since a start reads each record so that it applies; `_changed` says
        the same of one in fewer words."""
        entries: list[Entry] = []
        add, unpack = entries.append, ENTRY_HEADER.unpack_from
        for index, offset, sizes, terms in runs:
            data = self._read(offset, sum(sizes))
            view, end = memoryview(data), 0
            for size, term in zip(sizes, terms):
                start, end = end + PREFIX_BYTES, end + size
                if end > len(data):
                    raise self._changed(data, start, offset)
                length, checksum, found_term, found, kind = unpack(data, start)
                checked = start + ENTRY_LEAD_BYTES
                if (found != index or found_term != term or checked + length != end
                        or kind not in KINDS or crc32(view[checked:end]) != checksum):
                    raise self._changed(data, start, offset)
                add(Entry(index, term, kind, data[start:end]))
                index += 1
        return entries

    def _changed(self, data: bytes, position: int, offset: int) -> CorruptFileError:
        """What is wrong with the entry there, of what was read from `offset` on."""
        reason = "another entry stands there"
        try:
            decode_entry(data, position)
        except MalformedError as error:
            reason = str(error)
        return CorruptFileError(self._disk.path(self._name), offset + position - PREFIX_BYTES,
                                f"changed since it was written: {reason}")

    def runs(self, first: int, last_max: int, bytes_max: int,
             records_max: int = READ_ENTRIES_MAX) -> list[tuple]:
        """What `read` returns as (index, offset, sizes, terms) of records that lie together:
        annulled records may lie between two runs."""
        runs = []
        with self._lock:
            place = start = first - self.base_index - 1
            stop = min(last_max - self.base_index, len(self._offsets), place + records_max)
            if place < 0:
                return runs
            while place < stop and bytes_max > 0:
                bytes_max -= self._sizes[place] - PREFIX_BYTES
                end = self._offsets[place] + self._sizes[place]
                place += 1
                if place == stop or bytes_max <= 0 or self._offsets[place] != end:
                    runs.append((self.base_index + 1 + start, self._offsets[start],
                                 self._sizes[start:place], self._terms[start:place]))
                    start = place
        return runs


class _Batch:
    """One append's bytes, and what it does to the map."""

    def __init__(self, log: LogFile, entries: list[Entry], rewinding: Set[int]):
        synced_offset = log._end
        self.kept = len(log._terms)     # entries of the map that remain
        self.parts: list[bytes] = []
        self.offsets, self.sizes, self.terms = array("Q"), array("Q"), array("Q")
        self.end = log._end
        for entry in entries:
            place = entry.index - log.base_index - 1
            last_term = self._make_room(log, place, entry.term, id(entry) in rewinding)
            assert entry.term >= last_term, "terms never descend along a log"
            size = PREFIX_BYTES + len(entry.data)
            self.parts += (encode_prefix(synced_offset, self.end, entry.data), entry.data)
            self.offsets.append(self.end)
            self.sizes.append(size)
            self.terms.append(entry.term)
            self.end += size

    def _make_room(self, log: LogFile, place: int, term: int, rewinds: bool) -> int:
        """Annul what stands at `place` and above; the term before it."""
        last = self.kept + len(self.terms)
        assert 0 <= place <= last, "an entry follows the last one or replaces one"
        if place < last:
            own = place - self.kept
            old = self.terms[own] if own >= 0 else log._terms[place]
            assert rewinds or old != term, "it is there already, and would annul what follows it"
            for column in (self.offsets, self.sizes, self.terms):
                del column[max(own, 0):]
            self.kept = min(self.kept, place)
        if self.terms:
            return self.terms[-1]
        return log._terms[self.kept - 1] if self.kept else log.base_term
