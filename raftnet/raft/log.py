"""RaftLog: the entries that the core knows, and how far they are stable, committed, applied.

Rules: entries are appended or a conflicting tail is replaced, nothing else; nothing at or below
commit_index is ever replaced. The log begins behind its base, which is at or below the snapshot:
compaction raises it, an installed snapshot makes all anew (Raft 7). The newest entries are in
memory, older ones in the file only (storage/logfile.py), but the term of every index since the base
is known: terms come in runs.
Invariant: applied_index <= commit_index <= last_index, stable_index <= handed_index <= last_index,
base_index <= snapshot index <= commit_index.
"""

from bisect import bisect_right
from collections.abc import Iterable

from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import NO_MEMBERSHIP, Membership, decode_membership
from raftnet.raft.types import SnapshotMeta

_ENTRY_BYTES = 1024         # what applying costs beside the bytes of an entry, as bytes
_FROM_FILE_MAX = 1_000      # entries of the file that are to be applied at a time


class RaftLog:
    """The log of one node since its base (index 0 where nothing was cut off)."""

    def __init__(self, entries: list[Entry], base_index: int = 0, base_term: int = 0,
                 base_membership: Membership = NO_MEMBERSHIP,
                 term_runs: Iterable[tuple[int, int]] = (),
                 memberships: Iterable[tuple[int, bytes]] = (),
                 snapshot: SnapshotMeta | None = None):
        """`entries` are all since the base, or the newest of them (one at least, where there are
        any): then `term_runs` are the (first index, term) of all, and `memberships` the (index,
        payload) of all MEMBERSHIP entries. `snapshot` is the one that the node begins with."""
        assert snapshot is None or base_index <= snapshot.index
        self.base_index = base_index
        self.base_term = base_term
        self.snapshot = snapshot                # the newest that the node holds, or None
        self._entries: list[Entry] = []         # those in memory, contiguous
        self._memory_from = base_index + 1      # index of the first of them
        self._run_starts = [base_index]         # the term runs: from this index on ...
        self._run_terms = [base_term]           # ... this term
        self._memberships = [(base_index, base_membership)]
        self.memory_bytes = 0
        self.last_index = base_index
        self.epoch = 0                          # raised by every truncation and every install
        self.rewound = False                    # what is handed to the disk next replaces entries
        if entries and entries[0].index > base_index + 1:
            self._skip(entries[0].index, term_runs, memberships)
        for entry in entries:
            self.append(entry)
        if snapshot is not None:
            assert self.term_at(snapshot.index) == snapshot.term, "the log reaches the snapshot"
            self._begin_memberships(snapshot)
        self.commit_index = self.applied_index = self.snapshot_index    # applied: handed out for it
        self.handed_index = self.stable_index = self.last_index     # handed to the disk; durable

    def _skip(self, index: int, term_runs, memberships) -> None:
        """The entries below `index` are in the file only."""
        for first, term in term_runs:
            if first < index and term != self._run_terms[-1]:
                assert first > self.base_index and term > self._run_terms[-1]
                self._run_starts.append(first)
                self._run_terms.append(term)
        self._memberships += [(at, decode_membership(payload)) for at, payload in memberships
                              if at < index]
        self._memory_from = index
        self.last_index = index - 1

    def _begin_memberships(self, meta: SnapshotMeta) -> None:
        """What the snapshot says of the members stands for all up to its index."""
        newer = [each for each in self._memberships if each[0] > meta.index]
        self._memberships = [(meta.membership_index, meta.membership), *newer]

    @property
    def snapshot_index(self) -> int:
        """The last entry in the snapshot; the base where there is none."""
        return self.snapshot.index if self.snapshot is not None else self.base_index

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._run_terms[-1]

    @property
    def membership(self) -> Membership:
        """The newest membership in the log, committed or not (Raft 6)."""
        return self._memberships[-1][1]

    @property
    def membership_before(self) -> Membership:
        """The one before the newest; it decides again if the newest is replaced."""
        return self._memberships[-2][1] if len(self._memberships) > 1 else NO_MEMBERSHIP

    @property
    def membership_index(self) -> int:
        """Where the newest membership stands."""
        return self._memberships[-1][0]

    @property
    def memory_from(self) -> int:
        """The first index whose entry is in memory, if there is one."""
        return self._memory_from

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None below the base and above the end."""
        if index < self.base_index or index > self.last_index:
            return None
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def entry(self, index: int) -> Entry:
        """The entry at `index`, which must be in memory."""
        assert self._memory_from <= index <= self.last_index
        return self._entries[index - self._memory_from]

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Entries in memory from `first` to `last`; stops once `bytes_max` bytes are reached."""
        if first > last:
            return []
        assert first >= self._memory_from and last <= self.last_index
        found = self._entries[first - self._memory_from:last + 1 - self._memory_from]
        size = 0
        for count, entry in enumerate(found, 1):
            size += len(entry.data)
            if size >= bytes_max:
                return found[:count]
        return found

    def last_match(self, index: int, term: int) -> int:
        """The highest index at or below `index` whose term is at most `term` (fast back-up)."""
        index = min(index, self.last_index)
        while index > self.base_index:
            run = bisect_right(self._run_starts, index) - 1
            if self._run_terms[run] <= term:
                return index
            index = self._run_starts[run] - 1
        return self.base_index

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up-to-date as this one (Raft 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        assert entry.index == self.last_index + 1, "entries follow each other"
        assert entry.term >= self.last_term, "terms never go back along a log"
        if entry.term != self._run_terms[-1]:
            self._run_starts.append(entry.index)
            self._run_terms.append(entry.term)
        if entry.kind == EntryKind.MEMBERSHIP:
            self._memberships.append((entry.index, decode_membership(entry.payload)))
        self._entries.append(entry)
        self.memory_bytes += len(entry.data)
        self.last_index = entry.index

    def truncate(self, index: int) -> None:
        """Drop the entries from `index` on; what they say of the disk is void from now on."""
        assert self.commit_index < index <= self.last_index, "a committed entry is never replaced"
        place = max(index - self._memory_from, 0)
        dropped = self._entries[place:]
        del self._entries[place:]
        self._memory_from = min(self._memory_from, index)
        self.memory_bytes -= sum(len(entry.data) for entry in dropped)
        self.last_index = index - 1
        while self._run_starts[-1] >= index:
            self._run_starts.pop()
            self._run_terms.pop()
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        if index <= self.handed_index:
            self.handed_index = index - 1
            self.rewound = True
        self.stable_index = min(self.stable_index, index - 1)
        self.epoch += 1

    def hand_to_disk(self) -> list[Entry]:
        """The entries that the disk has not been given yet."""
        entries = self._entries[self.handed_index + 1 - self._memory_from:]
        self.handed_index = self.last_index
        self.rewound = False
        return entries

    def commit_to(self, index: int) -> None:
        """Raise commit_index; it never goes back."""
        assert index <= self.last_index
        if index > self.commit_index:
            self.commit_index = index

    def hand_to_apply(self, bytes_max: int) -> list[Entry]:
        """The next committed entries, about `bytes_max` bytes at a time, which must be in memory.
        An entry counts 1 KiB more than its bytes."""
        assert self.applied_index + 1 >= self._memory_from
        place = self.applied_index + 1 - self._memory_from
        found = self._entries[place:self.commit_index + 1 - self._memory_from]
        size = 0
        for count, entry in enumerate(found, 1):
            size += len(entry.data) + _ENTRY_BYTES
            if size >= bytes_max:
                found = found[:count]
                break
        self.applied_index += len(found)
        return found

    def hand_to_apply_from_file(self) -> tuple[int, int] | None:
        """The next committed entries, as (first, last), where they are in the file only."""
        first = self.applied_index + 1
        last = min(self.commit_index, self._memory_from - 1, self.applied_index + _FROM_FILE_MAX)
        if first > last:
            return None
        self.applied_index = last
        return first, last

    def bytes_in_memory(self, first: int, last: int) -> int:
        """The bytes of the entries from `first` to `last`, without those in the file only."""
        place, stop = first - self._memory_from, last + 1 - self._memory_from
        return sum([len(entry.data) for entry in self._entries[max(place, 0):max(stop, 0)]])

    def compact(self, base_index: int) -> None:
        """The file begins behind `base_index` from now on: forget what is at or below it."""
        if base_index <= self.base_index:
            return
        assert base_index <= min(self.snapshot_index, self.stable_index), "only what is kept is cut"
        self._begin(base_index, self.term_at(base_index))
        while len(self._memberships) > 1 and self._memberships[1][0] <= base_index:
            del self._memberships[0]

    def restore(self, meta: SnapshotMeta) -> None:
        """Begin at that snapshot; what follows it stays where the log holds its last entry, else
        nothing of the log does (Raft 7). All must have been handed to the disk before."""
        assert meta.index > self.commit_index, "a snapshot never takes a node back"
        assert self.handed_index == self.last_index and not self.rewound
        if self.term_at(meta.index) == meta.term:
            self._begin(meta.index, meta.term)
        else:
            self._entries.clear()
            self._memory_from = meta.index + 1
            self.memory_bytes = 0
            self._run_starts, self._run_terms = [meta.index], [meta.term]
            self._memberships = []
            self.base_index, self.base_term = meta.index, meta.term
            # What was committed is durable still: in the old log, then in the snapshot.
            self.stable_index = min(self.stable_index, self.commit_index)
            self.last_index = self.handed_index = meta.index
        self.snapshot = meta
        self._begin_memberships(meta)
        self.commit_index = self.applied_index = meta.index
        self.epoch += 1

    def _begin(self, base_index: int, base_term: int) -> None:
        """Forget terms and memory at or below an entry that the log holds."""
        run = bisect_right(self._run_starts, base_index) - 1
        self._run_starts = [base_index, *self._run_starts[run + 1:]]
        self._run_terms = [base_term, *self._run_terms[run + 1:]]
        self.base_index, self.base_term = base_index, base_term
        count = max(base_index + 1 - self._memory_from, 0)
        self.memory_bytes -= sum([len(entry.data) for entry in self._entries[:count]])
        del self._entries[:count]
        self._memory_from = max(self._memory_from, base_index + 1)

    def trim_memory(self, bytes_max: int) -> None:
        """Forget the oldest entries in memory where they are over `bytes_max`, down to half of it;
        only those that are applied and stable: they are in the file."""
        if self.memory_bytes <= bytes_max:
            return
        limit = min(self.applied_index, self.stable_index)
        count = size = 0
        for entry in self._entries:
            if entry.index > limit or self.memory_bytes - size <= bytes_max // 2:
                break
            size += len(entry.data)
            count += 1
        del self._entries[:count]
        self._memory_from += count
        self.memory_bytes -= size
