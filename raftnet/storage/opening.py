"""Opening a data directory: what is there, whether it fits together, and what a crash left.

Rules: nothing is changed before all files are found whole, except that provisional files go. Then
what an install left is finished, the torn tail is cut, and log, meta and directory are synced; only
then may the node speak. Without identity there is no history: what founding, joining, restoring or
forgetting left is dropped, but nothing that could be the history of a lost identity.
"""

from collections.abc import Callable
from typing import NamedTuple

from raftnet.errors import CorruptFileError, DamagedError
from raftnet.raft.membership import promises_nothing
from raftnet.storage.damage import (UNFINISHED_NAME, Healing, finish_setting_aside,
                                    is_provisional, read_healing, remove_healing)
from raftnet.storage.logfile import LOG_NAME, NEW_LOG_NAME, LogFile
from raftnet.storage.metafile import (IDENTITY_NAME, META_NAME, Identity, MetaFile, read_identity,
                                      write_renamed)
from raftnet.storage.records import HEADER_BYTES, decode_header
from raftnet.storage.replay import Replayed, Report
from raftnet.storage.snapshot import SNAPSHOT_NAME, SnapshotFile

_NOTHING = Replayed(0, 0, [], [], [])


class Opened(NamedTuple):
    """The parts of an open directory."""

    meta: MetaFile
    log: LogFile
    replayed: Replayed
    snapshot: SnapshotFile | None
    identity: Identity | None       # None: no history
    healing: Healing | None


def open_directory(disk, make_node_id: Callable[[], int], report: Report,
                   memory_bytes: int) -> Opened:
    """Read or make the files of a locked directory; durable on return. Raises as Store.open."""
    for name in disk.list():
        if is_provisional(name):
            disk.remove(name)           # never renamed, so never relied upon
    healing = read_healing(disk)
    if healing is not None and not healing.done:
        report(f"{disk.directory}: damaged files are set aside as damaged-{healing.number}.*: "
               "this was interrupted, and is finished now")
        healing = finish_setting_aside(disk, healing)
    identity = read_identity(disk)
    if identity is None:
        opened = _open_without_history(disk, make_node_id, report)._replace(healing=healing)
    else:
        opened = _open_with_history(disk, identity, report, memory_bytes)
        if healing is not None:
            remove_healing(disk)        # it belongs to its cluster again
    if disk.exists(UNFINISHED_NAME):
        disk.sync_directory()
        disk.remove(UNFINISHED_NAME)
    disk.sync_directory()
    return opened


def begin_unfinished(disk) -> None:
    """From now on, without identity, everything in the directory is void; durable on return."""
    disk.close(write_renamed(disk, UNFINISHED_NAME, b""))


def end_unfinished(disk) -> None:
    """No more; what was done is durable already."""
    disk.remove(UNFINISHED_NAME)
    disk.sync_directory()


# --- with history


def _open_with_history(disk, identity: Identity, report: Report, memory_bytes: int) -> Opened:
    for name in (META_NAME, LOG_NAME):
        if not disk.exists(name):
            raise DamagedError(f"{disk.path(name)}: missing, although the directory belongs to a "
                               "cluster")
    meta = MetaFile.open(disk)
    if meta.state.node_id != identity.node_id:
        raise CorruptFileError(disk.path(IDENTITY_NAME), 0, "names another node than meta: the "
                               "files come from two directories")
    snapshot = _open_snapshot(disk, identity, report)
    log, replayed = LogFile.open(disk, identity.node_id, report, memory_bytes)
    old_log = None
    if not _fits(disk, snapshot, log):
        old_log = log
        log, replayed = _finished_install(disk, identity, snapshot, report, memory_bytes)
    _check_meta(disk, meta, snapshot, log)
    if old_log is not None:
        log.take_name()
        disk.sync_directory()
        old_log.close()
        report(f"{disk.path(SNAPSHOT_NAME)}: its installing was interrupted: finished")
    elif disk.exists(NEW_LOG_NAME):
        disk.remove(NEW_LOG_NAME)       # of a compaction, or of an install that was not yet
    log.settle(report)
    meta.log_end = log.last
    meta.begin_boot(meta.hard_state)
    return Opened(meta, log, replayed, snapshot, identity, None)


def _open_snapshot(disk, identity: Identity, report: Report) -> SnapshotFile | None:
    """The snapshot, verified in whole; None where there is none."""
    if not disk.exists(SNAPSHOT_NAME):
        return None
    snapshot = SnapshotFile.open(disk, SNAPSHOT_NAME)
    path = disk.path(SNAPSHOT_NAME)
    if snapshot.cluster_id != identity.cluster_id:
        raise CorruptFileError(path, 0, "it is a snapshot of another cluster")
    snapshot.verify()
    report(f"{path}: up to entry {snapshot.meta.index} of term {snapshot.meta.term}, "
           f"{snapshot.meta.size} bytes")
    return snapshot


def _fits(disk, snapshot: SnapshotFile | None, log: LogFile) -> bool:
    """Whether the log goes on where the snapshot ends. Raises DamagedError where neither a crash
    could leave this."""
    path = disk.path(SNAPSHOT_NAME)
    if snapshot is None:
        if log.base_index:
            raise DamagedError(f"{path}: missing, although the log begins after entry "
                               f"{log.base_index}")
        return True
    if snapshot.meta.index < log.base_index:
        raise CorruptFileError(path, 0, f"it ends with entry {snapshot.meta.index}, although the "
                               f"log begins after entry {log.base_index}: an old copy")
    return log.term_at(snapshot.meta.index) == snapshot.meta.term


def _finished_install(disk, identity: Identity, snapshot: SnapshotFile, report: Report,
                      memory_bytes: int) -> tuple[LogFile, Replayed]:
    """The `log.new` that an install leaves between its two renames: without records, since the
    log holds nothing that could stay."""
    index, term = snapshot.meta.index, snapshot.meta.term
    damaged = CorruptFileError(disk.path(LOG_NAME), 0, f"entry {index} of term {term}, with which "
                               "the snapshot ends, is not in it: one of the two was exchanged, or "
                               "the log was cut")
    if not disk.exists(NEW_LOG_NAME):
        raise damaged
    try:
        log, replayed = LogFile.open(disk, identity.node_id, report, memory_bytes, NEW_LOG_NAME)
    except CorruptFileError as error:
        raise damaged from error
    if (log.base_index, log.base_term) != (index, term) or log.last_index > index or (
            log.has_torn_tail):
        raise damaged
    return log, replayed


def _check_meta(disk, meta: MetaFile, snapshot: SnapshotFile | None, log: LogFile) -> None:
    """Term and floor against what the other files say."""
    path, term = disk.path(META_NAME), meta.state.current_term
    if term < log.last_term:
        raise CorruptFileError(path, 0, f"term {term} is older than the log, which ends in term "
                               f"{log.last_term}")
    if snapshot is not None and term < snapshot.meta.term:
        raise CorruptFileError(path, 0, f"term {term} is older than the snapshot, which ends in "
                               f"term {snapshot.meta.term}")
    if log.last < meta.floor:
        raise CorruptFileError(
            log.path, log.size, f"it ends with entry {log.last_index} of term {log.last_term}, "
            f"although entry {meta.state.floor_index} of term {meta.state.floor_term} was durable: "
            "cut, or an old copy")


# --- without history


def _open_without_history(disk, make_node_id, report: Report) -> Opened:
    if disk.exists(UNFINISHED_NAME):
        report(f"{disk.directory}: restoring or forgetting was interrupted: begun anew")
        if disk.exists(SNAPSHOT_NAME):
            disk.remove(SNAPSHOT_NAME)
    else:
        _refuse_lost_history(disk, report)
    if disk.exists(NEW_LOG_NAME):
        disk.remove(NEW_LOG_NAME)
    meta = _meta_without_history(disk, make_node_id, report)
    meta.log_end = (0, 0)
    meta.begin_boot(meta.hard_state)    # the floor first: no log may lie below it
    log = LogFile.create(disk, meta.state.node_id)
    return Opened(meta, log, _NOTHING, None, None, None)


def _meta_without_history(disk, make_node_id, report: Report) -> MetaFile:
    """Whose directory it is. Where that is damaged it becomes another node's, as if the directory
    had been emptied. That is safe although votes may have been promised under the old node id
    (a founder that dropped a cluster keeps it): nobody votes under it again."""
    if disk.exists(META_NAME):
        try:
            return MetaFile.open(disk)
        except CorruptFileError as error:
            report(f"{error}; this directory holds nothing else yet: begun anew as another node")
    return MetaFile.create(disk, make_node_id())


def _refuse_lost_history(disk, report: Report) -> None:
    """A founding that was interrupted leaves entry 1 at most, and leaving a cluster of this node
    alone no client's entry: more than that is the log of a cluster whose identity or meta was
    lost, and nothing is deleted by itself."""
    lost = f"{disk.path(IDENTITY_NAME)}: missing, although"
    if disk.exists(SNAPSHOT_NAME):
        raise DamagedError(f"{lost} there is a snapshot")
    log_bytes, base_index = _log_size(disk)
    if base_index:
        raise DamagedError(f"{lost} the log begins after entry {base_index}")
    if log_bytes <= HEADER_BYTES:
        return
    if not disk.exists(META_NAME):
        raise DamagedError(f"{disk.path(META_NAME)}: missing, although the log holds entries")
    log, _ = LogFile.open(disk, MetaFile.open(disk).state.node_id, report, 0)
    count = log.last_index
    void = count <= 1 or all(promises_nothing(entry) for first in range(1, count + 1, 1_000)
                             for entry in log.read(first, first + 999, 1 << 30))
    log.close()
    if not void:
        raise DamagedError(f"{lost} the log holds {count} entries")
    report(f"{disk.path(LOG_NAME)}: founding or joining was interrupted: begun anew")


def _log_size(disk) -> tuple[int, int]:
    """(bytes of the log, base index); (0, 0) where it is absent. Makes nothing. Of a log without a
    record a damaged header says nothing. Raises as decode_header."""
    if not disk.exists(LOG_NAME):
        return 0, 0
    handle = disk.open(LOG_NAME)
    size, data = disk.size(handle), disk.read_at(handle, 0, HEADER_BYTES)
    disk.close(handle)
    try:
        return size, decode_header(data, disk.path(LOG_NAME)).base_index
    except CorruptFileError:
        if size > HEADER_BYTES:
            raise
        return size, 0
