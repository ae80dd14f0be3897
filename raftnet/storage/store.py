"""The data directory as a whole: what is written before what.

The rules of order, each against one crash:

- made: directory, lock, meta (node id), log, each durable before the next. Without identity there
  is no history: whatever a founding or joining left is dropped at the next start; node id, boot,
  term and vote stay.
- founded: term 1, entry 1, identity last. Joined: identity over an empty log.
- forgotten: identity first, then log; term and vote stay, as the node may come back to that
  cluster.
- in operation: term and vote before the entries, so that meta's term is never below the log's.
- at start: nothing is changed before all files are found whole; then the torn tail is cut, log,
  meta and directory are synced, and only then may the node speak.

One thread at a time calls the methods; only `read_entries` may run while another one performs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raftnet.errors import CorruptFileError, StorageError
from raftnet.raft.entry import Entry
from raftnet.raft.membership import promises_nothing
from raftnet.raft.types import HardState
from raftnet.storage.logfile import LOG_NAME, LogFile
from raftnet.storage.metafile import (IDENTITY_NAME, META_NAME, NEW_SUFFIX, Identity, MetaFile,
                                      read_identity, write_identity)
from raftnet.storage.records import HEADER_BYTES

Report = Callable[[str], None]
_START_ANEW = ("restore the file, or move the directory away and the cluster takes the node in "
               "anew")


@dataclass(slots=True)
class Job:
    """One numbered piece of disk work (Ready.job)."""

    number: int
    hard_state: HardState | None    # None: unchanged
    entries: list[Entry]
    rewound: bool = False           # the first entry annuls those from its index on


class Store:
    """The open data directory.

    Invariant: current_term in meta >= term of the last entry; entries only with an identity.
    """

    def __init__(self, disk, meta: MetaFile, log: LogFile, identity: Identity | None,
                 entries: list[Entry]):
        self._disk = disk
        self._meta = meta
        self._log = log
        self.cluster_id = identity.cluster_id if identity else None     # None: no history
        self.entries = entries          # replayed; `take_entries` hands them over

    @classmethod
    def open(cls, disk, make_node_id: Callable[[], int], report: Report) -> "Store":
        """Make or read the directory; durable on return. `report(text)` gets progress and cuts.

        `make_node_id()` gives a random number in [1, 2 ** 64), for a new directory. Raises
        DirectoryLockedError, CorruptFileError, DiskFullError, StorageError; then all is closed.
        """
        disk.create_directory()
        disk.lock()
        try:
            for name in (META_NAME, LOG_NAME, IDENTITY_NAME):
                if disk.exists(name + NEW_SUFFIX):
                    disk.remove(name + NEW_SUFFIX)      # never renamed, so never relied upon
            identity = read_identity(disk)
            if identity is None:
                store = cls._open_without_history(disk, make_node_id, report)
            else:
                store = cls._open_with_history(disk, identity, report)
            disk.sync_directory()
        except BaseException:
            disk.close_all()
            raise
        return store

    @classmethod
    def _open_with_history(cls, disk, identity: Identity, report: Report) -> "Store":
        for name in (META_NAME, LOG_NAME):
            if not disk.exists(name):
                raise StorageError(f"{disk.path(name)}: missing, although the directory belongs "
                                   f"to a cluster: {_START_ANEW}")
        meta = MetaFile.open(disk)
        if meta.state.node_id != identity.node_id:
            raise CorruptFileError(disk.path(IDENTITY_NAME), 0, "names another node than meta: "
                                   "the files come from two directories")
        log, entries = LogFile.open(disk, report)
        if meta.state.current_term < log.last_term:
            raise CorruptFileError(disk.path(META_NAME), 0, f"term {meta.state.current_term} is "
                                   f"older than the log, which ends in term {log.last_term}")
        log.settle(report)
        meta.begin_boot(meta.hard_state)
        return cls(disk, meta, log, identity, entries)

    @classmethod
    def _open_without_history(cls, disk, make_node_id, report: Report) -> "Store":
        log_bytes = _size(disk, LOG_NAME)
        if log_bytes > HEADER_BYTES:
            cls._refuse_lost_history(disk, report)
        if disk.exists(META_NAME):
            meta = MetaFile.open(disk)
        else:
            meta = MetaFile.create(disk, make_node_id())
        log = LogFile.create(disk)
        meta.begin_boot(meta.hard_state)
        return cls(disk, meta, log, None, [])

    @classmethod
    def _refuse_lost_history(cls, disk, report: Report) -> None:
        """A founding that was interrupted leaves entry 1 at most, and leaving a cluster of this
        node alone no client's entry: more than that is the log of a cluster whose identity or meta
        was lost, and nothing is deleted by itself."""
        if not disk.exists(META_NAME):
            raise StorageError(f"{disk.path(META_NAME)}: missing, although the log holds entries: "
                               f"{_START_ANEW}")
        log, entries = LogFile.open(disk, report)
        log.close()
        if len(entries) > 1 and not all(map(promises_nothing, entries)):
            raise StorageError(f"{disk.path(IDENTITY_NAME)}: missing, although the log holds "
                               f"{len(entries)} entries: {_START_ANEW}")
        report(f"{disk.path(LOG_NAME)}: founding or joining was interrupted: begun anew")

    @property
    def node_id(self) -> int:
        """64 bits, made with the directory."""
        return self._meta.state.node_id

    @property
    def boot(self) -> int:
        """How often the directory was started, this time included."""
        return self._meta.state.boot

    @property
    def hard_state(self) -> HardState:
        """Term and vote, durable."""
        return self._meta.hard_state

    @property
    def last_index(self) -> int:
        """Index of the last durable entry."""
        return self._log.last_index

    @property
    def last_term(self) -> int:
        """Term of the last durable entry."""
        return self._log.last_term

    def take_entries(self) -> list[Entry]:
        """The replayed entries, once."""
        entries, self.entries = self.entries, []
        return entries

    # --- beginning and ending a history

    def found(self, cluster_id: bytes, entry_1: Entry) -> None:
        """Begin a cluster whose log is entry 1, of term 1; durable on return.

        Raises DiskFullError (call again) and StorageError.
        """
        assert self.cluster_id is None and (entry_1.index, entry_1.term) == (1, 1)
        self._begin_anew()
        if self.hard_state.current_term < entry_1.term:
            self._meta.set_hard_state(HardState(entry_1.term))
        self._log.append([entry_1])
        self._begin_history(cluster_id)

    def join(self, cluster_id: bytes) -> None:
        """Belong to a cluster, with an empty log; durable on return. Raises as `found`."""
        assert self.cluster_id is None
        self._begin_anew()
        self._begin_history(cluster_id)

    def take_node_id(self, node_id: int) -> None:
        """Be another node: this one was removed before it was taken in; durable on return. Raises
        as `found`."""
        assert self.cluster_id is None, "whoever has a history has promised under its node id"
        self._meta.set_node_id(node_id)

    def forget(self, alone: bool = False) -> None:
        """Drop a cluster in which nothing but votes was promised to anybody, as the caller made
        sure, and if it was `alone` in it not even those; durable on return. Raises as `found`."""
        if self._disk.exists(IDENTITY_NAME):
            self._disk.remove(IDENTITY_NAME)
            self._disk.sync_directory()
        self.cluster_id = None
        self._begin_anew()
        if alone:
            self._meta.set_hard_state(HardState())

    def _begin_history(self, cluster_id: bytes) -> None:
        write_identity(self._disk, Identity(cluster_id, self.node_id))
        self.cluster_id = cluster_id

    def _begin_anew(self) -> None:
        """An empty log. Term and vote stay: a founder that drops a cluster may come back to it
        under its node id, and must not vote there again."""
        assert self.cluster_id is None
        self.entries = []
        if self._log.last_index:
            old, self._log = self._log, LogFile.create(self._disk)
            old.close()

    # --- operation

    def perform(self, jobs: list[Job]) -> None:
        """Make the jobs durable, in one write of each file; blocks for two to three syncs.

        That the last hard state is written before the first entry is the same, seen from outside,
        as one job after the other: no message of any of them leaves before all are durable.
        Raises DiskFullError: nothing that was not done counts, call again with the same jobs (more
        may follow them); StorageError: the process must end.
        """
        entries = [entry for job in jobs for entry in job.entries]
        promises = [job.hard_state for job in jobs if job.hard_state is not None]
        for old, new in zip(promises, promises[1:]):
            _check_promise(old, new)
        hard_state = promises[-1] if promises else self.hard_state
        if hard_state != self.hard_state:       # equal in a retry after a full disk
            _check_promise(self.hard_state, hard_state)
            assert self.cluster_id is not None, "a vote without identity would be forgotten"
            self._meta.set_hard_state(hard_state)
        if entries:
            assert self.cluster_id is not None, "entries without identity would be dropped"
            assert max(entry.term for entry in entries) <= hard_state.current_term
            self._log.append(entries, {id(job.entries[0]) for job in jobs if job.rewound})

    def read_entries(self, first: int, bytes_max: int, last_max: int | None = None) -> list[Entry]:
        """Durable entries from `first` on: one at least, no more once they reach `bytes_max`;
        empty where `first` is not held. Another thread may be in `perform` meanwhile.

        A caller whose core has truncated its log gives its stable index as `last_max`, since the
        file shows the old entries until the job that replaces them is done.
        """
        if last_max is None:
            last_max = self._log.last_index
        return self._log.read(first, last_max, bytes_max)

    def close(self) -> None:
        """Close all files and give up the lock; nothing is left to sync."""
        self._disk.close_all()


def _check_promise(old: HardState, new: HardState) -> None:
    """Terms never go back, and a vote is given once in a term (Raft 5.2)."""
    assert new.current_term >= old.current_term, "the term never goes back"
    assert (new.current_term > old.current_term or old.voted_for in (0, new.voted_for)
            ), "a vote is given once in a term"


def _size(disk, name: str) -> int:
    """Bytes of a file, 0 where it is absent; makes nothing."""
    if not disk.exists(name):
        return 0
    handle = disk.open(name)
    size = disk.size(handle)
    disk.close(handle)
    return size
