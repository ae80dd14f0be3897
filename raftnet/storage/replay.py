"""Replay: the log file read once from its beginning to its end, without keeping all of it.

Rules: nothing is changed, and every checksum is verified. What comes of it is the map (where each
current record lies), the terms as runs, the memberships, and the newest entries themselves; older
ones are read from the file when they are asked for. `run` is one loop, inline, since it runs once a
record; `scan_records` (records.py) says the same in fewer words.
"""

import time
from array import array
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import CorruptFileError
from raftnet.raft.entry import HEADER_BYTES as ENTRY_HEADER_BYTES
from raftnet.raft.entry import Entry, EntryKind
from raftnet.storage.records import (CHECKED_FROM, ENTRY_CHECKED_BYTES, ENTRY_LEAD_BYTES,
                                     HEADER_BYTES, KINDS, LOW_32, MARKER, PREFIX_BYTES, RECORD_HEAD,
                                     RECORD_BYTES_MAX, RECORD_HEAD_BYTES, Read, refill,
                                     why_no_entry)

PROGRESS_S = 2.0                # between two lines of a long replay
Report = Callable[[str], None]


class Replayed(NamedTuple):
    """What a start hands to the core. Indexes ascend; nothing is at or below `base_index`."""

    base_index: int                         # the entry before the file's first
    base_term: int
    term_runs: list[tuple[int, int]]        # (index, term): from this index on this term
    memberships: list[tuple[int, bytes]]    # (index, payload) of each MEMBERSHIP entry
    entries: list[Entry]                    # the newest ones, without a gap up to the last


class Replay:
    """One reading of one file. After `run`, the fields tell what was found."""

    def __init__(self, read: Read, size: int, base_index: int, base_term: int, path: str):
        self._read = read
        self._size = size
        self._path = path
        self.base_index = base_index
        self.base_term = base_term
        self.offsets = array("Q")       # by index - base_index - 1: where its record begins
        self.sizes = array("Q")         # bytes of its record
        self.terms = array("Q")
        self.term_runs: list[tuple[int, int]] = []
        self.memberships: list[tuple[int, bytes]] = []
        self.entries: list[Entry] = []  # the newest ones
        self.end = HEADER_BYTES         # behind the last whole record
        self.known_synced = HEADER_BYTES    # the highest synced_offset of a record
        self.bad = ""                   # why no record begins at `end`; "": the file ends there
        self._next_report = time.monotonic() + PROGRESS_S

    def run(self, memory_bytes: int, report: Report,
            stop_at: tuple[int, int] | None = None) -> None:
        """Read it all, or up to the first record of the entry `stop_at` (index, term); entries of
        the last `memory_bytes` of the file are kept.

        Raises CorruptFileError where whole records cannot follow each other.
        """
        size, offset, position, buffer = self._size, HEADER_BYTES, 0, b""
        view = memoryview(buffer)
        next_index, last_term, known_synced = self.base_index + 1, self.base_term, HEADER_BYTES
        keep_from, unpack_head = size - memory_bytes, RECORD_HEAD.unpack_from
        add_entry, add_offset = self.entries.append, self.offsets.append
        add_size, add_term = self.sizes.append, self.terms.append
        stop_index, stop_term = stop_at or (0, 0)
        while offset < size:
            end = position + RECORD_HEAD_BYTES
            if end <= len(buffer):
                marker, check, synced_offset, length, checksum, term, index, kind = unpack_head(
                    buffer, position)
                if (marker != MARKER or synced_offset > offset
                        or crc32(view[position + CHECKED_FROM:end], offset & LOW_32) != check):
                    self.bad = "no record begins here"
                    break
                end = position + PREFIX_BYTES + ENTRY_LEAD_BYTES + length
            if end > len(buffer):
                if end - position > min(size - offset, RECORD_BYTES_MAX):
                    self.bad = f"the record is cut short after {size - offset} bytes"
                    break
                buffer = refill(self._read, buffer[position:], offset, end - position, size)
                view, position = memoryview(buffer), 0
                self._tell(report, offset)
                continue
            entry_at = position + PREFIX_BYTES
            if (crc32(view[entry_at + ENTRY_LEAD_BYTES:end]) != checksum or kind not in KINDS
                    or not index or not term or length < ENTRY_CHECKED_BYTES):
                self.bad = why_no_entry(buffer, entry_at)
                break
            if index != next_index:
                last_term = self._annul(index, term, buffer[entry_at:end], offset)
            if term != last_term:
                self._begin_run(index, term, last_term, offset)
                last_term = term
            if kind == EntryKind.MEMBERSHIP:
                self.memberships.append((index, buffer[entry_at + ENTRY_HEADER_BYTES:end]))
            if offset >= keep_from:
                add_entry(Entry(index, term, kind, buffer[entry_at:end]))
            add_offset(offset)
            add_size(end - position)
            add_term(term)
            next_index = index + 1
            if synced_offset > known_synced:
                known_synced = synced_offset
            offset += end - position
            position = end
            if index == stop_index and term == stop_term:
                break
        self.end, self.known_synced = offset, known_synced

    def replayed(self) -> Replayed:
        """What the core is given."""
        return Replayed(self.base_index, self.base_term, self.term_runs, self.memberships,
                        self.entries)

    def _tell(self, report: Report, offset: int) -> None:
        if time.monotonic() >= self._next_report:
            report(f"{self._path}: read {offset >> 20} of {self._size >> 20} MiB, "
                   f"{len(self.terms)} entries")
            self._next_report = time.monotonic() + PROGRESS_S

    def _begin_run(self, index: int, term: int, last_term: int, offset: int) -> None:
        if term < last_term:
            raise CorruptFileError(self._path, offset, f"entry {index} of term {term} follows one "
                                   f"of term {last_term}")
        self.term_runs.append((index, term))

    def _annul(self, index: int, term: int, data: bytes, offset: int) -> int:
        """Drop what the record at `offset` replaces; the term before it."""
        place = index - self.base_index - 1
        # The same entry again is right: it annuls what follows it (Job.rewound).
        if not 0 <= place < len(self.terms) or (self.terms[place] == term
                                                and self._data_at(place) != data):
            raise CorruptFileError(self._path, offset, f"entry {index} of term {term} cannot "
                                   f"follow entry {self.base_index + len(self.terms)}")
        for column in (self.offsets, self.sizes, self.terms):
            del column[place:]
        for runs in (self.term_runs, self.memberships):
            while runs and runs[-1][0] >= index:
                runs.pop()
        if self.entries:
            del self.entries[max(0, index - self.entries[0].index):]
        return self.terms[-1] if self.terms else self.base_term

    def _data_at(self, place: int) -> bytes:
        """The bytes of an entry that was read before."""
        return self._read(self.offsets[place] + PREFIX_BYTES, self.sizes[place] - PREFIX_BYTES)
