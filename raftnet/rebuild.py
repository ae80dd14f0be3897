"""Rebuilding the replicated state from files, at an index of one's choice.

Rules: files are only read; nothing of a running node is touched. The last snapshot at or below the
index is loaded, and the log's current entries above it are applied, as the node itself did: so the
digest must be the same, and whoever knows the node's digest compares. A machine that is rebuilt
knows nothing of what is not committed: the caller chooses an index that is.

Elsewhere: who asks for a snapshot and when (snapshots.py), the process that makes one
(snapshotprocess.py), the bytes of the files (storage/), of the state (machine/state.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from raftnet.config import Config
from raftnet.errors import CorruptFileError, MalformedError, StorageError
from raftnet.machine.machine import Applied, Machine
from raftnet.machine.state import StateLoader, encode_state
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import NO_MEMBERSHIP, Membership, decode_membership
from raftnet.raft.types import SnapshotMeta
from raftnet.storage.logfile import LOG_NAME, LogFile
from raftnet.storage.records import HEADER_BYTES, decode_header
from raftnet.storage.snapshot import SNAPSHOT_NAME, SnapshotFile, write_snapshot

_READ_BYTES = 4 * 1024 * 1024       # of the log at a time
Report = Callable[[str], None]
Watch = Callable[["Rebuilt", Entry | None, Applied | None], None]


@dataclass(slots=True)
class Rebuilt:
    """The state after the entry at `index`."""

    machine: Machine
    index: int
    term: int
    membership_index: int
    membership: Membership
    log_last_index: int = 0     # the last entry of the log beside it
    log_rest_bytes: int = 0     # behind that: no whole record, torn or just being written
    snapshot_index: int = 0     # where the snapshot beside it ends, which is committed; 0: none


@dataclass(frozen=True, slots=True)
class SnapshotOrder:
    """A snapshot that is to be made."""

    name: str           # of the new file in the data directory
    index: int          # the last entry that it is to contain, committed and durable
    term: int           # of that entry
    digest: int         # Machine.digest of the running node there
    cluster_id: bytes   # 16 bytes


def load_machine(snapshot: SnapshotFile, config: Config) -> Machine:
    """The machine in a snapshot. Raises CorruptFileError where bytes are damaged, StorageError
    where a program of another version wrote them."""
    loader = StateLoader(config.machine, config.wire)
    try:
        for piece in snapshot.pieces():
            loader.feed(piece)
        machine = loader.finish()
    except MalformedError as error:
        raise StorageError(f"{snapshot.path}: {error}") from error     # its checksums match
    check_machine(machine, snapshot)
    return machine


def check_machine(machine: Machine, snapshot: SnapshotFile) -> None:
    """Whether the state is the one that the file's header promises. Raises CorruptFileError."""
    meta = snapshot.meta
    if (machine.applied_index, machine.digest) != (meta.index, meta.digest):
        raise CorruptFileError(snapshot.path, 0, f"holds the state at entry "
                               f"{machine.applied_index}, its header says {meta.index}, or another "
                               "digest")


def rebuild(disk, config: Config, index: int | None = None, report: Report = lambda text: None,
            watch: Watch | None = None, whole: bool = False, term: int = 0) -> Rebuilt:
    """The state of a data directory after the entry at `index` (None: the last in the log).

    It begins with the snapshot; with the log's first entry instead, where that is entry 1 and
    `index` lies below the snapshot or `whole` is wanted. `watch(rebuilt, entry, applied)` sees the
    state that it begins with (None, None), then each entry that is applied and what came of it.
    Where the `term` of that entry is given, what follows its record in the log is not read.
    Raises CorruptFileError, and StorageError where the files do not hold that index.
    """
    log = _open_log(disk, report, (index, term) if term else None)
    try:
        rebuilt = _begin(disk, config, log, index, whole)
        last = log.last_index if index is None else index
        if not rebuilt.index <= last <= max(rebuilt.index, log.last_index):
            first = rebuilt.index if log.base_index else 1
            held = "the log is empty" if not log.last_index else (
                f"the files tell the state at entries {first} to {log.last_index}")
            raise StorageError(f"{disk.directory}: entry {last} is not held: {held}")
        if watch is not None:
            watch(rebuilt, None, None)
        for entry in _entries(log, rebuilt.index + 1, last):
            applied = rebuilt.machine.apply(entry)
            rebuilt.index, rebuilt.term = entry.index, entry.term
            if entry.kind == EntryKind.MEMBERSHIP:
                rebuilt.membership_index = entry.index
                rebuilt.membership = decode_membership(entry.payload)
            if watch is not None:
                watch(rebuilt, entry, applied)
    finally:
        log.close()
    return rebuilt


def make_snapshot(disk, config: Config, order: SnapshotOrder,
                  report: Report = lambda text: None) -> SnapshotMeta:
    """Write the file, verified and synced. Raises StorageError (a part of the file may be there),
    DiskFullError, and CorruptFileError where the files do not give the state that the running node
    has."""
    rebuilt = _rebuild_what_stays(disk, config, order, report)
    write_snapshot(disk, order.name, rebuilt.index, rebuilt.term, rebuilt.membership_index,
                   rebuilt.membership, order.digest, order.cluster_id,
                   encode_state(rebuilt.machine))
    made = SnapshotFile.open(disk, order.name)
    try:
        made.verify()
        return made.meta
    finally:
        made.close()


def _rebuild_what_stays(disk, config: Config, order: SnapshotOrder, report: Report) -> Rebuilt:
    """As `rebuild`, beside a node that runs: what looks like damage is none where the node put
    other files in the place of those that were read."""
    names = (LOG_NAME, SNAPSHOT_NAME)
    # Opened first and closed last: no other file has their inodes meanwhile.
    held = {name: disk.open(name, make=False) for name in names if disk.exists(name)}
    try:
        try:
            rebuilt = rebuild(disk, config, order.index, report, term=order.term)
            if (rebuilt.term, rebuilt.machine.digest) != (order.term, order.digest):
                raise CorruptFileError(disk.path(LOG_NAME), 0, f"gives another state at entry "
                                       f"{order.index} than the running node has")
            return rebuilt
        except CorruptFileError as error:
            for name in names:
                if disk.exists(name) != (name in held) or (
                        name in held and not disk.is_named(held[name], name)):
                    raise StorageError(f"{disk.path(name)}: another file took its place while it "
                                       "was read") from error
            raise
    finally:
        for handle in held.values():
            disk.close(handle)


def _begin(disk, config: Config, log: LogFile, index: int | None, whole: bool) -> Rebuilt:
    """The state that entries are to be applied to, and what is known of the files."""
    known = log.last_index, disk.size(log.handle) - log.size
    nothing = Rebuilt(Machine(config.machine, config.wire), 0, 0, 0, NO_MEMBERSHIP, *known)
    if not disk.exists(SNAPSHOT_NAME):
        if log.base_index:
            raise StorageError(f"{disk.path(SNAPSHOT_NAME)}: missing, although the log begins "
                               f"after entry {log.base_index}")
        return nothing
    snapshot = SnapshotFile.open(disk, SNAPSHOT_NAME)
    try:
        meta = snapshot.meta
        # Between the two renames of an install the old log stands beside the new snapshot.
        fits = log.term_at(meta.index) == meta.term
        if not fits and index != meta.index:
            raise StorageError(
                f"{log.path}: entry {meta.index} of term {meta.term}, with which the snapshot "
                "ends, is not in it: installing is under way or was interrupted (the node's next "
                f"start ends it), or one of the two was exchanged; only entry {meta.index} is told")
        below = index is not None and index < meta.index
        if fits and not log.base_index and (whole or below):
            nothing.snapshot_index = meta.index
            return nothing
        return Rebuilt(load_machine(snapshot, config), meta.index, meta.term,
                       meta.membership_index, meta.membership, *known, meta.index)
    finally:
        snapshot.close()


def _open_log(disk, report: Report, stop_at: tuple[int, int] | None) -> LogFile:
    if not disk.exists(LOG_NAME):       # opening would make it
        raise StorageError(f"{disk.path(LOG_NAME)}: missing")
    handle = disk.open(LOG_NAME, make=False)
    try:
        header = decode_header(disk.read_at(handle, 0, HEADER_BYTES), disk.path(LOG_NAME))
    finally:
        disk.close(handle)
    return LogFile.open(disk, header.node_id, report, 0, stop_at=stop_at)[0]


def _entries(log: LogFile, first: int, last: int) -> Iterator[Entry]:
    while first <= last:
        entries = log.read(first, last, _READ_BYTES)
        assert entries, "the log's map holds all indexes up to its last"
        yield from entries
        first = entries[-1].index + 1
