"""What one node's disk would hold, and what of it a job that ends makes durable.

Rules: entries are those above the base; a snapshot's file is simply all entries up to its index, so
that who installs one holds the whole history again, for the invariants to compare. What is received
of a snapshot is never durable before it is installed.
"""

from zlib import crc32

from raftnet.raft.entry import Entry, EntryKind, decode_entry
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import NO_MEMBERSHIP, decode_membership
from raftnet.raft.types import HardState, Ready, SnapshotMeta


def image_of(entries: list[Entry]) -> bytes:
    """The file of a snapshot that contains these, from 1 on."""
    return b"".join(entry.data for entry in entries)


def entries_of(image: bytes) -> list[Entry]:
    """What is in that file."""
    entries, offset = [], 0
    while offset < len(image):
        entries.append(decode_entry(image, offset))
        offset += len(entries[-1].data)
    return entries


def meta_of(entries: list[Entry]) -> SnapshotMeta:
    """What is known of the snapshot that contains these."""
    image, at, membership = image_of(entries), 0, NO_MEMBERSHIP
    for entry in entries:
        if entry.kind == EntryKind.MEMBERSHIP:
            at, membership = entry.index, decode_membership(entry.payload)
    return SnapshotMeta(entries[-1].index, entries[-1].term, at, membership, 0, len(image),
                        crc32(image))


class Files:
    """The directory of one node."""

    def __init__(self, state: HardState, entries: list[Entry]):
        self.state = state
        self.base_index = self.base_term = 0
        self.entries = list(entries)
        self.snapshot: SnapshotMeta | None = None
        self.image = b""
        self.received = bytearray()

    @property
    def last_index(self) -> int:
        """The last durable entry."""
        return self.base_index + len(self.entries)

    def between(self, first: int, last: int) -> list[Entry]:
        """These entries, as far as they are there."""
        return self.entries[max(first - self.base_index - 1, 0):max(last - self.base_index, 0)]

    def open(self, memory_bytes: int) -> RaftLog:
        """The log as a node finds it at its start, the newest entries in memory."""
        self.received.clear()
        size, count = 0, 0
        for entry in reversed(self.entries):
            if count and size + len(entry.data) > memory_bytes:
                break
            size += len(entry.data)
            count += 1
        return RaftLog(self.entries[len(self.entries) - count:], self.base_index, self.base_term,
                       term_runs=[(e.index, e.term) for e in self.entries],
                       memberships=[(e.index, e.payload) for e in self.entries
                                    if e.kind == EntryKind.MEMBERSHIP], snapshot=self.snapshot)

    def end(self, ready: Ready) -> None:
        """That job is done."""
        if ready.hard_state is not None:
            self.state = ready.hard_state
        for entry in ready.entries:
            del self.entries[entry.index - self.base_index - 1:]
            self.entries.append(entry)
        if ready.chunk is not None:
            offset, data = ready.chunk
            if offset == 0:
                self.received.clear()
            assert offset == len(self.received), "a hole in what is received"
            self.received += data
        if ready.install is not None:
            self._install(ready.install)

    def _install(self, meta: SnapshotMeta) -> None:
        image = bytes(self.received)
        assert (len(image), crc32(image)) == (meta.size, meta.checksum), "installed unverified"
        known = self.between(meta.index, meta.index)
        keeps = bool(known) and known[0].term == meta.term
        self.entries = self.between(meta.index + 1, 1 << 62) if keeps else []
        self.base_index, self.base_term = meta.index, meta.term
        self.snapshot, self.image = meta, image
        self.received.clear()

    def compact(self, applied: list[Entry], base_index: int) -> SnapshotMeta:
        """A snapshot of that history is made, and the log cut up to `base_index`."""
        meta = meta_of(applied)
        assert base_index <= meta.index <= self.last_index
        if base_index > self.base_index:
            self.base_term = self.between(base_index, base_index)[0].term
            self.entries = self.between(base_index + 1, 1 << 62)
            self.base_index = base_index
        self.snapshot, self.image = meta, image_of(applied)
        return meta
