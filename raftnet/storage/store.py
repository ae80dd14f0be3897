"""The data directory as a whole: what is written before what.

The rules of order, each against one crash:

- made: directory, lock, meta (node id), log, each durable before the next. Without identity there
  is no history: whatever a founding or joining left is dropped at the next start; node id, boot,
  term and vote stay.
- founded: term 1, entry 1, identity last. Joined: identity over an empty log, then the marker
  `healing` goes, if there is one. Restored: marker `unfinished`, meta, snapshot, log begun at it,
  identity, marker gone.
- forgotten: identity first, then log; term and vote stay, as the node may come back to that
  cluster. With a snapshot, `unfinished` stands around it.
- in operation: term and vote before the entries, so that meta's term is never below the log's.
- snapshots, and the logs that begin at them: succession.py. A start: opening.py. Damage: damage.py.

One thread at a time calls the methods; only `read_entries`, `snapshot` and the numbers may be used
while another one performs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from raftnet.config import RaftConfig
from raftnet.errors import DiskFullError, StorageError
from raftnet.raft.entry import Entry
from raftnet.raft.membership import Member, Membership
from raftnet.raft.types import HardState, SnapshotMeta
from raftnet.storage import damage
from raftnet.storage.compaction import STEP_BYTES
from raftnet.storage.damage import Healing
from raftnet.storage.metafile import IDENTITY_NAME, Identity, write_identity
from raftnet.storage.opening import Opened, begin_unfinished, end_unfinished, open_directory
from raftnet.storage.replay import Replayed, Report
from raftnet.storage.snapshot import RECEIVED_NAME, SNAPSHOT_NAME, SnapshotFile, write_snapshot
from raftnet.storage.succession import Compaction, Succession

_MEMORY_BYTES = RaftConfig().log_memory_bytes_max


@dataclass(slots=True)
class Job:
    """One numbered piece of disk work (Ready.job). A job with `install` has no entries."""

    number: int
    hard_state: HardState | None    # None: unchanged
    entries: list[Entry]
    rewound: bool = False           # the first entry annuls those from its index on
    chunk: tuple[int, bytes] | None = None      # (offset, data) into snapshot.received, not synced
    install: SnapshotMeta | None = None         # snapshot.received becomes the snapshot
    compact: Compaction | None = None           # a made one does; begins to shorten the log
    filed: bool = False             # the store's notes: the three above are done ...
    written: bool = False           # ... and the entries too


class Image(NamedTuple):
    """The state of another cluster, to restore from. `pieces` are those of a snapshot."""

    index: int
    term: int
    membership: Membership
    digest: int
    pieces: Iterable[bytes]


class Store:
    """The open data directory.

    Invariant: current_term in meta >= term of the last entry; entries only with an identity.
    """

    def __init__(self, disk, opened: Opened):
        self._disk = disk
        self._meta = opened.meta
        self._files = Succession(disk, opened.meta, opened.log, opened.snapshot)
        identity = opened.identity
        self.cluster_id = identity.cluster_id if identity else None     # None: no history
        self.healing: Healing | None = opened.healing   # damaged files were set aside
        self._replayed: Replayed | None = opened.replayed

    @classmethod
    def open(cls, disk, make_node_id: Callable[[], int], report: Report,
             memory_bytes: int = _MEMORY_BYTES) -> "Store":
        """Make or read the directory; durable on return. `report(text)` gets progress and cuts.

        `make_node_id()` gives a random number in [1, 2 ** 64), for a new directory; of the entries
        the newest `memory_bytes` are kept for `take_replayed`. Raises DirectoryLockedError,
        DamagedError (nothing is changed; `set_aside` may follow), DiskFullError, StorageError; then
        all is closed.
        """
        disk.create_directory()
        disk.lock()
        try:
            return cls(disk, open_directory(disk, make_node_id, report, memory_bytes))
        except BaseException:
            disk.close_all()
            raise

    # Of a directory that is not open, after DamagedError.
    set_aside = staticmethod(damage.set_aside)
    readable_membership = staticmethod(damage.readable_membership)
    readable_cluster_id = staticmethod(damage.readable_cluster_id)

    @classmethod
    def restore(cls, disk, make_node_id: Callable[[], int],
                make_cluster_id: Callable[[list[int]], bytes], image: Image, address: str,
                report: Report) -> None:
        """Make the directory that of a new cluster of one new node with that state; durable on
        return, and closed. A crash leaves it whole or without history.

        Raises StorageError where the directory has a history, else as `open`.
        """
        store = cls.open(disk, make_node_id, report)
        try:
            if store.cluster_id is not None:
                raise StorageError(f"{disk.directory}: belongs to a cluster: restore into an empty "
                                   "directory")
            store._restore(make_node_id(), make_cluster_id, image, address)
            report(f"{disk.path(SNAPSHOT_NAME)}: restored up to entry {image.index}, "
                   f"{store.snapshot.meta.size} bytes")
        finally:
            store.close()

    def _restore(self, node_id: int, make_cluster_id, image: Image, address: str) -> None:
        cluster_id = make_cluster_id([node_id])
        old = image.membership
        membership = Membership(cluster_id, (Member(node_id, address, True),), old.quorum_rule,
                                old.founded, state_version=old.state_version)
        begin_unfinished(self._disk)
        self._meta.set_node_id(node_id)
        write_snapshot(self._disk, RECEIVED_NAME, image.index, image.term, image.index, membership,
                       image.digest, cluster_id, image.pieces)
        self._disk.rename(RECEIVED_NAME, SNAPSHOT_NAME)
        self._disk.sync_directory()
        self._files.begin_anew(node_id, image.index, image.term,
                               SnapshotFile.open(self._disk, SNAPSHOT_NAME))
        self._meta.log_end = (image.term, image.index)
        self._meta.set_hard_state(HardState(max(image.term + 1, self.hard_state.current_term)))
        self._begin_history(cluster_id)
        if self.healing is not None:
            self._end_healing()
        end_unfinished(self._disk)

    @property
    def disk(self):
        """The disk with the directory."""
        return self._disk

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
        return self._files.log.last_index

    @property
    def last_term(self) -> int:
        """Term of the last durable entry."""
        return self._files.log.last_term

    @property
    def log_bytes(self) -> int:
        """Bytes of the log file."""
        return self._files.log.size

    @property
    def log_base_index(self) -> int:
        """The entry before the first one of the log file."""
        return self._files.log.base_index

    def bytes_behind(self, index: int) -> int:
        """Bytes of the log file behind the record of that entry. Any thread may ask."""
        return self._files.log.bytes_from(index + 1)

    def index_before(self, index: int, count: int) -> int:
        """Behind which entry the log may begin, to keep `count` bytes of it at most up to `index`.
        Any thread may ask."""
        return self._files.log.index_before(index, count)

    @property
    def snapshot(self) -> SnapshotFile | None:
        """The current snapshot. One that was replaced meanwhile stays readable: `take_replaced`."""
        return self._files.snapshot

    def take_replaced(self) -> list[SnapshotFile]:
        """The snapshots that were replaced since the last call, oldest first, each of them once:
        open and readable until the caller closes them. Any one thread may call it."""
        replaced = self._files.replaced
        return [replaced.pop(0) for _ in range(len(replaced))]      # the disk's thread appends

    @property
    def compacting(self) -> bool:
        """Whether `compaction_step` has something to do."""
        return self._files.compacting

    @property
    def compaction_failed(self) -> str:
        """Why the last compaction was given up, one line; "" where it was not."""
        return self._files.failed

    def take_replayed(self) -> Replayed:
        """What was found in the log at the start, once."""
        replayed, self._replayed = self._replayed, None
        assert replayed is not None, "taken once"
        return replayed

    # --- beginning and ending a history

    def found(self, cluster_id: bytes, entry_1: Entry) -> None:
        """Begin a cluster whose log is entry 1, of term 1; durable on return.

        Raises DiskFullError (call again) and StorageError.
        """
        assert self.cluster_id is None and (entry_1.index, entry_1.term) == (1, 1)
        assert self.healing is None, "it belongs to a cluster already, and joins it"
        self._begin_anew()
        if self.hard_state.current_term < entry_1.term:
            self._meta.set_hard_state(HardState(entry_1.term))
        self._files.append([entry_1], set())
        self._begin_history(cluster_id)

    def join(self, cluster_id: bytes) -> None:
        """Belong to a cluster, with an empty log; durable on return. Raises as `found`."""
        assert self.cluster_id is None
        self._begin_anew()
        self._begin_history(cluster_id)
        if self.healing is not None:
            self._end_healing()

    def _end_healing(self) -> None:
        self.healing = None
        damage.remove_healing(self._disk)

    def take_node_id(self, node_id: int) -> None:
        """Be another node: this one was removed before it was taken in; durable on return. Raises
        as `found`."""
        assert self.cluster_id is None, "whoever has a history has promised under its node id"
        self._meta.set_node_id(node_id)
        self._begin_anew()

    def forget(self, alone: bool = False) -> None:
        """Drop a cluster in which nothing but votes was promised to anybody, as the caller made
        sure, and if it was `alone` in it not even those; durable on return. Raises as `found`."""
        if self.snapshot is not None:
            begin_unfinished(self._disk)
        if self._disk.exists(IDENTITY_NAME):
            self._disk.remove(IDENTITY_NAME)
            self._disk.sync_directory()
        self.cluster_id = None
        self._begin_anew()
        if self._disk.exists(damage.UNFINISHED_NAME):
            end_unfinished(self._disk)
        if alone:
            self._meta.set_hard_state(HardState())

    def _begin_history(self, cluster_id: bytes) -> None:
        write_identity(self._disk, Identity(cluster_id, self.node_id))
        self.cluster_id = cluster_id

    def _begin_anew(self) -> None:
        """An empty log. Term and vote stay: a founder that drops a cluster may come back to it
        under its node id, and must not vote there again."""
        assert self.cluster_id is None
        self._replayed = None
        self._files.begin_anew(self.node_id)

    # --- operation

    def perform(self, jobs: list[Job]) -> None:
        """Make the jobs durable, those without files of their own in one write of each file; blocks
        for two to three syncs, longer where a snapshot is installed.

        That the last hard state is written before the first entry is the same, seen from outside,
        as one job after the other: no message of any of them leaves before all are durable.
        Raises DiskFullError: what was not done does not count, call again with the same jobs (more
        may follow them); `hard_state` shows whether that of the jobs is durable. StorageError: the
        process must end.
        """
        waiting = [job for job in jobs if not job.written]
        term = self._promise(waiting)
        plain: list[Job] = []
        try:
            for job in waiting:
                if not job.filed and (job.chunk is not None or job.install is not None
                                      or job.compact is not None):
                    self._append(plain, term)
                    plain = []
                    self._perform_on_files(job, term)
                plain.append(job)
            self._append(plain, term)
        except DiskFullError:
            self._make_room(waiting)
            raise

    def _promise(self, jobs: list[Job]) -> int:
        """Make term and vote of the last of these jobs durable; that term."""
        promises = [job.hard_state for job in jobs if job.hard_state is not None]
        for old, new in zip(promises, promises[1:]):
            _check_promise(old, new)
        if promises and promises[-1] != self.hard_state:    # equal in a retry after a full disk
            _check_promise(self.hard_state, promises[-1])
            assert self.cluster_id is not None, "a vote without identity would be forgotten"
            self._meta.set_hard_state(promises[-1])
        return promises[-1].current_term if promises else self.hard_state.current_term

    def _append(self, jobs: list[Job], term: int) -> None:
        """Make the entries of these jobs durable."""
        entries = [entry for job in jobs for entry in job.entries]
        if entries:
            assert self.cluster_id is not None, "entries without identity would be dropped"
            assert max(entry.term for entry in entries) <= term
            self._files.append(entries, {id(job.entries[0]) for job in jobs if job.rewound})
        for job in jobs:
            job.written = True

    def _perform_on_files(self, job: Job, term: int) -> None:
        """Do what a job wants besides its entries, before them."""
        assert self.cluster_id is not None, "a snapshot without identity would be dropped"
        if job.chunk is not None:
            self._files.write_chunk(*job.chunk)
        if job.install is not None:
            assert not job.entries and job.install.term <= term
            self._files.install(job.install)
        if job.compact is not None:
            self._files.compact(job.compact)
        job.filed = True

    def _make_room(self, jobs: list[Job]) -> None:
        """The disk is full: a snapshot that waits behind the entries shortens the log now. What it
        contains is committed, so no entry before it in the queue could change it."""
        for job in jobs:
            if job.install is not None and not job.filed:
                return
            if (job.compact is not None and not job.filed
                    and job.compact.meta.index <= self.last_index):
                self._files.compact(job.compact)
                job.filed = True

    def compaction_step(self, bytes_max: int = STEP_BYTES) -> bool:
        """Go on with the compaction that a job began: about `bytes_max` of the log are copied and
        synced, more where more was appended since the last step. True: nothing is left to do, see
        `compaction_failed`.

        Not while another thread is in `perform`. Raises StorageError: the process must end.
        """
        return self._files.step(bytes_max)

    def read_entries(self, first: int, bytes_max: int, last_max: int | None = None) -> list[Entry]:
        """Durable entries from `first` on: one at least, no more once they reach `bytes_max`;
        empty where `first` is not held. Another thread may be in `perform` meanwhile.

        A caller whose core has truncated its log gives its stable index as `last_max`, since the
        file shows the old entries until the job that replaces them is done.
        """
        while True:
            log = self._files.log
            entries = log.read(first, log.last_index if last_max is None else last_max, bytes_max)
            if entries is not None:
                return entries      # None: another log took its place just now

    def close(self) -> None:
        """Close all files and give up the lock; nothing is left to sync, and where the log ends is
        noted: it must not end below that at the next start. Raises StorageError."""
        try:
            if self.cluster_id is not None:
                self._meta.write_floor()
        finally:
            self._disk.close_all()


def _check_promise(old: HardState, new: HardState) -> None:
    """Terms never go back, and a vote is given once in a term (Raft 5.2)."""
    assert new.current_term >= old.current_term, "the term never goes back"
    assert (new.current_term > old.current_term or old.voted_for in (0, new.voted_for)
            ), "a vote is given once in a term"
