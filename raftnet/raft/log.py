"""RaftLog: the entries that the core knows, and how far they are stable, committed, applied.

Rules: entries are appended or a conflicting tail is replaced, nothing else; nothing at or below
commit_index is ever replaced. The newest entries are in memory, older ones in the file only
(storage/logfile.py), but the term of every index since the base is known: terms come in runs.
Invariant: applied_index <= commit_index <= last_index, stable_index <= handed_index <= last_index.
"""

from bisect import bisect_right

from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import NO_MEMBERSHIP, Membership, decode_membership


class RaftLog:
    """The log of one node since its base (the snapshot; index 0 where there is none)."""

    def __init__(self, entries: list[Entry], base_index: int = 0, base_term: int = 0,
                 base_membership: Membership = NO_MEMBERSHIP):
        self.base_index = base_index
        self.base_term = base_term
        self._entries: list[Entry] = []         # those in memory, contiguous
        self._memory_from = base_index + 1      # index of the first of them
        self._run_starts = [base_index]         # the term runs: from this index on ...
        self._run_terms = [base_term]           # ... this term
        self._memberships = [(base_index, base_membership)]
        self.memory_bytes = 0
        self.last_index = base_index
        self.commit_index = base_index
        self.applied_index = base_index         # handed out for applying
        self.handed_index = base_index          # handed to the disk
        self.stable_index = base_index          # known durable
        self.epoch = 0                          # raised by every truncation
        self.rewound = False                    # what is handed to the disk next replaces entries
        for entry in entries:
            self.append(entry)
        self.handed_index = self.stable_index = self.last_index

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
        assert index >= self._memory_from
        dropped = self._entries[index - self._memory_from:]
        del self._entries[index - self._memory_from:]
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
        """The next committed entries, about `bytes_max` bytes at a time."""
        entries = self.entries(self.applied_index + 1, self.commit_index, bytes_max)
        if entries:
            self.applied_index = entries[-1].index
        return entries

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
