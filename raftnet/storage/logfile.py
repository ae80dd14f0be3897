"""The log file: replay at start, append and sync, read back in pieces.

Rules: strictly appended. A record at index i annuls all earlier records at i or above, so that a
conflicting tail is replaced by appending too, and no truncation can be caught halfway by a crash.
One thread appends; another may read what is durable meanwhile. The bytes are records.py's affair,
the order of writes across files is store.py's. Nothing damaged is ever skipped or deleted: only a
torn tail, which nobody was promised, is cut.
"""

import gc
import threading
import time
from array import array
from collections.abc import Callable, Set

from raftnet.errors import CorruptFileError, DiskFullError, MalformedError
from raftnet.raft.entry import Entry, decode_entry
from raftnet.storage.metafile import write_renamed
from raftnet.storage.records import (CHUNK_BYTES, HEADER_BYTES, PREFIX_BYTES, decode_header,
                                     encode_header, encode_prefix, find_voucher, scan_records)

LOG_NAME = "log"
READ_ENTRIES_MAX = 2_000        # of one `read`: bounds how long the loop decodes
PROGRESS_S = 2.0                # between two lines of a long replay
Report = Callable[[str], None]


class LogFile:
    """The open log file.

    Invariant: the map holds exactly the durable current records; indexes from base_index + 1 on
    without a gap; offsets ascend with them, terms never descend.
    """

    def __init__(self, disk, handle: int, base_index: int, base_term: int):
        self._disk = disk
        self._handle = handle
        self.base_index = base_index    # the entry before the file's first
        self.base_term = base_term
        self._end = HEADER_BYTES        # where the next record goes; below it all is durable
        self._known_synced = HEADER_BYTES   # at start: the highest synced_offset of a record
        self._offsets = array("Q")      # by index - base_index - 1: where its record begins
        self._sizes = array("Q")        # bytes of its record
        self._terms = array("Q")
        self._lock = threading.Lock()   # held while the map is used, never during I/O

    @classmethod
    def create(cls, disk, base_index: int = 0, base_term: int = 0) -> "LogFile":
        """Put an empty log in place of whatever is there; durable on return."""
        handle = write_renamed(disk, LOG_NAME, encode_header(base_index, base_term))
        return cls(disk, handle, base_index, base_term)

    @classmethod
    def open(cls, disk, report: Report) -> tuple["LogFile", list[Entry]]:
        """Replay the file and change nothing: the log and its current entries in order.

        Before anything else is done with it, `settle`. A long replay tells `report` how far it
        is. Raises CorruptFileError with the offset where synced bytes are damaged.
        """
        handle = disk.open(LOG_NAME)
        base = decode_header(disk.read_at(handle, 0, HEADER_BYTES), disk.path(LOG_NAME))
        log = cls(disk, handle, *base)
        collecting = gc.isenabled()
        gc.disable()            # it would walk all entries so far, over and over
        try:
            return log, log._replay(report)
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
            report(f"{self._disk.path(LOG_NAME)}: torn tail of an unfinished write: cut "
                   f"{size - self._end} bytes at byte {self._end}")
            self._disk.truncate(self._handle, self._end)
        offset = self._known_synced
        while offset < self._end:
            data = self._read(offset, min(CHUNK_BYTES, self._end - offset))
            self._disk.write_at(self._handle, offset, data)
            offset += len(data)
        self._disk.sync(self._handle)

    def close(self) -> None:
        """Close the file; everything in it is synced already."""
        self._disk.close(self._handle)

    @property
    def last_index(self) -> int:
        """Index of the last durable entry, base_index where there is none."""
        return self.base_index + len(self._terms)

    @property
    def last_term(self) -> int:
        """Its term."""
        return self._terms[-1] if self._terms else self.base_term

    # --- replay

    def _replay(self, report: Report) -> list[Entry]:
        """Fill the map; the current entries."""
        size = self._disk.size(self._handle)
        path = self._disk.path(LOG_NAME)
        entries: list[Entry] = []
        add_entry, add_offset = entries.append, self._offsets.append
        add_size, add_term = self._sizes.append, self._terms.append
        next_index, last_term, end, known_synced = self.base_index + 1, self.base_term, 0, 0
        next_report = time.monotonic() + PROGRESS_S
        for offset, synced_offset, entry in scan_records(self._read, size):
            if entry is None:
                self._refuse_damage(size, offset, synced_offset)
                break
            index, term = entry.index, entry.term
            if index != next_index:
                last_term = self._annul(entries, entry, offset)
            if term < last_term:
                raise CorruptFileError(path, offset, f"entry {index} of term {term} follows one "
                                       f"of term {last_term}")
            add_entry(entry)
            add_offset(offset)
            add_size(PREFIX_BYTES + len(entry.data))
            add_term(term)
            next_index, last_term = index + 1, term
            if synced_offset > known_synced:
                known_synced = synced_offset
            end = offset + PREFIX_BYTES + len(entry.data)
            if not index & 0xFFF and time.monotonic() >= next_report:
                report(f"{path}: read {end >> 20} of {size >> 20} MiB, {len(entries)} entries")
                next_report = time.monotonic() + PROGRESS_S
        if entries:
            self._end, self._known_synced = end, known_synced
        return entries

    def _annul(self, entries: list[Entry], entry: Entry, offset: int) -> int:
        """Drop what the record at `offset` replaces; the term before it."""
        place = entry.index - self.base_index - 1
        # The same entry again is right: it annuls what follows it (Job.rewound).
        if not 0 <= place < len(entries) or (entries[place].term == entry.term
                                             and entries[place].data != entry.data):
            raise CorruptFileError(self._disk.path(LOG_NAME), offset, f"entry {entry.index} of "
                                   f"term {entry.term} cannot follow entry "
                                   f"{self.base_index + len(entries)}")
        for column in (entries, self._offsets, self._sizes, self._terms):
            del column[place:]
        return self._terms[-1] if self._terms else self.base_term

    def _refuse_damage(self, size: int, offset: int, reason: str) -> None:
        """Return where the bytes at `offset` are a torn tail, raise where they are damage."""
        voucher = find_voucher(self._read, size, offset)
        if voucher is not None:
            raise CorruptFileError(self._disk.path(LOG_NAME), offset,
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

    # --- read back

    def read(self, first: int, last_max: int, bytes_max: int) -> list[Entry]:
        """Durable entries from `first` to `last_max` at most: one at least, and no more once they
        reach `bytes_max` bytes; an empty list where the file does not hold `first`.

        Another thread may append meanwhile. Raises CorruptFileError.
        """
        entries = []
        for index, offset, sizes, terms in self._runs(first, last_max, bytes_max):
            data = self._read(offset, sum(sizes))
            position = 0
            for place, size in enumerate(sizes):
                try:
                    entry = decode_entry(data, position + PREFIX_BYTES)
                except MalformedError as error:
                    raise self._changed(offset + position, str(error)) from error
                if (entry.index, entry.term) != (index + place, terms[place]):
                    raise self._changed(offset + position, "another entry stands there")
                entries.append(entry)
                position += size
        return entries

    def _changed(self, offset: int, reason: str) -> CorruptFileError:
        return CorruptFileError(self._disk.path(LOG_NAME), offset,
                                f"changed since it was written: {reason}")

    def _runs(self, first: int, last_max: int, bytes_max: int) -> list[tuple]:
        """What `read` returns as (index, offset, sizes, terms) of records that lie together:
        annulled records may lie between two runs."""
        runs = []
        with self._lock:
            place = start = first - self.base_index - 1
            stop = min(last_max - self.base_index, len(self._offsets), place + READ_ENTRIES_MAX)
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
