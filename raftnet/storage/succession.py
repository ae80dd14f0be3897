"""Succession: which snapshot and which log are the current ones, and how others take their place.

- installed: `snapshot.received` synced; `log.new` whole, begun at the snapshot, synced; directory;
  `snapshot.received` becomes `snapshot`; directory; `log.new` becomes `log`; directory. Between the
  two renames a start sees a snapshot that the log does not fit, and finishes (opening.py).
- compacted: `snapshot.made-<n>` becomes `snapshot`; directory; then `log.new` grows in steps beside
  the log, is whole, becomes `log`; directory. The log fits all the time.

The floor in `meta` is lowered before the log may end lower, and raised when a new log is in place.
A full disk ends a compaction, never the node; an install is tried again like any job. What was
replaced stays readable, also for another process that has it open: nothing is cut off it. Here an
old log is closed when the read under way is over, an old snapshot by whoever takes it.
"""

from typing import NamedTuple

from raftnet.errors import DamagedError, DiskFullError
from raftnet.raft.entry import Entry
from raftnet.raft.types import SnapshotMeta
from raftnet.storage.compaction import (STEP_BYTES, STEP_BYTES_MAX, STEP_RECORDS,
                                        STEP_RECORDS_MAX, Successor)
from raftnet.storage.logfile import NEW_LOG_NAME, LogFile
from raftnet.storage.metafile import MetaFile
from raftnet.storage.records import LogHeader
from raftnet.storage.snapshot import RECEIVED_NAME, SNAPSHOT_NAME, SYNC_BYTES, SnapshotFile


class Compaction(NamedTuple):
    """A snapshot that was made here, and how much of the log it replaces."""

    name: str           # snapshot.made-<n>, verified by whoever made it
    meta: SnapshotMeta
    base_index: int     # the log begins after it; <= meta.index


class Succession:
    """The current files of a directory. The disk's thread calls the methods; the fields `log` and
    `snapshot` may be read by others."""

    def __init__(self, disk, meta: MetaFile, log: LogFile, snapshot: SnapshotFile | None):
        self._disk = disk
        self._meta = meta
        self.log = log
        self.snapshot = snapshot
        self.failed = ""                                # why the last compaction was given up
        self.replaced: list[SnapshotFile] = []          # that nobody has taken yet
        self._successor: Successor | None = None        # of a compaction under way
        self._grown = 0                                 # bytes appended since its last step ...
        self._grown_records = 0                         # ... and records
        self._next_log: LogFile | None = None           # of an install under way
        self._next_snapshot: SnapshotFile | None = None
        self._received: int | None = None               # handle of snapshot.received
        self._received_unsynced = 0

    @property
    def compacting(self) -> bool:
        """Whether `step` has something to do."""
        return self._successor is not None

    def append(self, entries: list[Entry], rewinding: set[int]) -> None:
        """As LogFile.append."""
        self._lower_floor(min([(entry.term, entry.index) for entry in entries]))
        size = self.log.size
        self.log.append(entries, rewinding)
        self._meta.log_end = self.log.last
        if self._successor is not None:
            self._successor.rewind(self.log.kept_index)
            self._grown += self.log.size - size
            self._grown_records += len(entries)

    def _lower_floor(self, end: tuple[int, int]) -> None:
        """The log may end there after a crash in what comes next."""
        # Also where the floor on the disk is low enough: until what comes is done, perhaps at the
        # second try, whatever else writes `meta` must not raise it.
        self._meta.log_end = min(self._meta.log_end, end)
        if end < self._meta.floor:
            self._meta.write_floor()

    # --- a snapshot from the leader

    def write_chunk(self, offset: int, data: bytes) -> None:
        """Bytes of snapshot.received; offset 0 begins the file anew. Not durable on return."""
        if self._received is None:
            self._received = self._disk.open(RECEIVED_NAME)
        if offset == 0:
            self._disk.truncate(self._received, 0)
            self._received_unsynced = 0
        self._disk.write_at(self._received, offset, data)
        self._received_unsynced += len(data)
        if self._received_unsynced >= SYNC_BYTES:   # or the last sync would take too long
            self._disk.sync(self._received)
            self._received_unsynced = 0

    def install(self, meta: SnapshotMeta) -> None:
        """The received snapshot is the current one from now on, and the log begins at it; durable
        on return. Raises DiskFullError: call again."""
        self.abandon("a snapshot came from the leader")
        if self._next_log is None:
            self._prepare_install(meta)
        assert self._next_snapshot.meta == meta
        if self._next_snapshot.name != SNAPSHOT_NAME:
            self._disk.rename(RECEIVED_NAME, SNAPSHOT_NAME)
            self._next_snapshot.name = SNAPSHOT_NAME
        self._disk.sync_directory()
        if self.snapshot is not self._next_snapshot:
            self._replace_snapshot(self._next_snapshot)
        self._next_log.take_name()
        self._disk.sync_directory()
        if self.log is not self._next_log:
            self._replace_log(self._next_log)
        self._meta.log_end = self.log.last
        self._meta.write_floor()
        self._next_log = self._next_snapshot = None

    def _prepare_install(self, meta: SnapshotMeta) -> None:
        """Everything that needs space: both files whole and synced under provisional names."""
        if self._received is not None:
            self._disk.close(self._received)
            self._received = None
        snapshot = SnapshotFile.open(self._disk, RECEIVED_NAME)
        assert snapshot.meta == meta, "the caller verified the file"
        kept = self.log if self.log.term_at(meta.index) == meta.term else None
        successor = None
        try:
            snapshot.sync()
            self._lower_floor(kept.last if kept else (meta.term, meta.index))
            successor = Successor(self._disk, kept,
                                  LogHeader(meta.index, meta.term, self.log.node_id))
            self._next_log = successor.finish()
        except DiskFullError:
            snapshot.close()
            if successor is not None:
                successor.abandon()
            raise
        self._next_snapshot = snapshot

    # --- a snapshot made here

    def compact(self, compaction: Compaction) -> None:
        """The made snapshot is the current one; the log's successor is begun, and `step` makes it.

        Never raises for a full disk or a made file that is not usable: `failed` tells.
        """
        self.abandon("another compaction was begun")
        self.failed = ""
        meta = compaction.meta
        assert compaction.base_index <= meta.index
        if self.log.term_at(meta.index) != meta.term or (
                self.snapshot is not None and self.snapshot.meta.index > meta.index):
            self._drop_made(compaction.name, "a newer snapshot came from the leader")
            return
        made = None
        try:
            made = SnapshotFile.open(self._disk, compaction.name)
            if made.meta != meta:
                raise DamagedError(f"{self._disk.path(compaction.name)}: another snapshot than "
                                   "the one that was made")
            self._disk.rename(compaction.name, SNAPSHOT_NAME)
        except (DamagedError, DiskFullError) as error:
            if made is not None:
                made.close()
            self._drop_made(compaction.name, str(error))
            return
        self._disk.sync_directory()
        made.name = SNAPSHOT_NAME
        self._replace_snapshot(made)
        base = max(compaction.base_index, self.log.base_index)
        if base > self.log.base_index:
            self._begin_successor(LogHeader(base, self.log.term_at(base), self.log.node_id))

    def _replace_snapshot(self, snapshot: SnapshotFile) -> None:
        """`snapshot` has the name, durably."""
        old, self.snapshot = self.snapshot, snapshot
        if old is not None:
            self.replaced.append(old)       # when it is not the current one any more

    def _begin_successor(self, header: LogHeader) -> None:
        self._grown = self._grown_records = 0
        try:
            self._successor = Successor(self._disk, self.log, header)
        except DiskFullError as error:
            self.failed = str(error)
            if self._disk.exists(NEW_LOG_NAME):
                self._disk.remove(NEW_LOG_NAME)

    def _drop_made(self, name: str, reason: str) -> None:
        self.failed = reason
        if self._disk.exists(name):
            self._disk.remove(name)

    def step(self, bytes_max: int = STEP_BYTES) -> bool:
        """A piece of the compaction under way, larger where more was appended since the last one;
        True: nothing is left to do. Raises StorageError."""
        successor = self._successor
        if successor is None:
            return True
        # Twice what came meanwhile, or it would never catch up with a leader that is busy.
        bytes_max = max(bytes_max, min(2 * self._grown, STEP_BYTES_MAX))
        records_max = max(STEP_RECORDS, min(2 * self._grown_records, STEP_RECORDS_MAX))
        self._grown = self._grown_records = 0
        try:
            if successor.left_bytes > bytes_max:
                successor.copy(bytes_max, records_max)
                return False
            log = successor.finish(bytes_max, records_max)
            self._meta.write_floor()        # both logs end there
            log.take_name()
        except DiskFullError as error:
            self.abandon(str(error))
            return True
        self._disk.sync_directory()
        self._successor = None
        self._replace_log(log)
        return True

    def _replace_log(self, log: LogFile) -> None:
        """`log` has the name, durably. The old one is not cut: the process that makes a snapshot
        may be reading it."""
        old, self.log = self.log, log
        old.close()

    def abandon(self, reason: str) -> None:
        """Give up the compaction under way, if there is one; the log goes on as it is."""
        if self._successor is not None:
            successor, self._successor = self._successor, None
            self.failed = reason
            successor.abandon()

    # --- beginning anew

    def begin_anew(self, node_id: int, base_index: int = 0, base_term: int = 0,
                   snapshot: SnapshotFile | None = None) -> None:
        """An empty log of that node behind that snapshot, whatever was there; durable on return.
        For a directory without history. Raises DiskFullError (call again), StorageError."""
        self.abandon("the cluster was left")
        self._meta.log_end = (0, 0)
        self._meta.write_floor()
        if (self.log.last_index or self.log.node_id != node_id
                or self.log.base_index != base_index):
            old, self.log = self.log, LogFile.create(self._disk, node_id, base_index, base_term)
            old.close()
        old_snapshot, self.snapshot = self.snapshot, snapshot
        if old_snapshot is not None:
            old_snapshot.close()
            if snapshot is None:
                self._disk.remove(SNAPSHOT_NAME)
                self._disk.sync_directory()
