"""Snapshots at one node: when one is made, what is cut from the log, who is given one, and how a
received one becomes the state.

Rules (design: Disk, fine print): a snapshot is made from the files by another process and must have
this node's digest; the log is cut only behind a durable snapshot, keeps a tail for followers that
are merely slow, and is not cut while one of them installs, up to a bound. A received snapshot is
built into a second machine in slices, and takes the first one's place at once. No I/O here but
reads of snapshot files, and no clock: slices are counted in bytes.

Elsewhere: what leader and follower say to each other (raft/install.py), the files (storage/), who
makes a snapshot (makesnapshot.py), the question of a client (reads.py).
"""

from collections.abc import Iterator

from raftnet.actions import ERROR, WARNING
from raftnet.errors import CorruptFileError, ErrorCode, MalformedError
from raftnet.machine.dismantle import dismantle
from raftnet.machine.machine import Machine
from raftnet.machine.state import StateLoader
from raftnet.raft.types import Snapshot, SnapshotId, SnapshotMeta
from raftnet.rebuild import SnapshotOrder, check_machine
from raftnet.storage.records import HEADER_BYTES
from raftnet.storage.snapshot import MADE_PREFIX, RECEIVED_NAME, SnapshotFile
from raftnet.storage.store import Job
from raftnet.storage.succession import Compaction
from raftnet.wire.frames import Kind
from raftnet.wire.snapshots import (
    PART_BYTES_MAX, Part, Taken, encode_snapshot_part, encode_snapshot_taken)

_BEHIND_ENTRIES_MAX = 1_000     # of what is committed: as many as a turn applies out of the file
_FULL = "this node's disk is full: free space there"


class Snapshots:
    """The snapshots of one node."""

    def __init__(self, replica):
        self._replica = replica
        self._config = replica.config.snapshot
        self._number = 0                            # of those made in this life
        self._order: SnapshotOrder | None = None    # being made, or about to be
        self._ordered = False                       # handed out to be made
        self._made: SnapshotMeta | None = None      # of the order; the log is to be cut behind it
        self._cutting: Job | None = None            # the disk has been told to
        self._retry_ms = 0                          # after a failure: not before
        self._log_base_index = 0                    # of the log file, as last seen
        self._askers: list[tuple[object, int, int]] = []    # (client, request id, from this index)
        self._current: SnapshotFile | None = None
        self._kept: dict[SnapshotFile, int] = {}    # replaced ones, and until when
        self._building: Iterator[int] | None = None
        self._built: tuple[SnapshotMeta, Machine] | None = None
        self._verifying: Iterator[int] | None = None
        self._replaced: Iterator[None] | None = None    # a machine that is given back in slices

    def begin(self) -> None:
        """The node runs, with what its directory holds."""
        self._current = self._replica.store.snapshot
        self._log_base_index = self._replica.store.log_base_index

    @property
    def is_idle(self) -> bool:
        """Whether none is being made, and the log is not being cut."""
        return self._order is None and not self._replica.store.compacting

    def close(self) -> None:
        """The node leaves its cluster: nothing of it is held any more."""
        for file in self._kept:
            file.close()
        self._kept.clear()

    @property
    def making(self) -> int:
        """Up to which entry a snapshot is being made; 0: none is."""
        return self._order.index if self._order is not None else 0

    @property
    def index(self) -> int:
        """The last entry that the durable snapshot contains; 0: there is none."""
        return self._current.meta.index if self._current is not None else 0

    # --- making one

    def tick(self) -> tuple[SnapshotOrder | None, list[Job]]:
        """Once a turn: (what another process is to make now, what the disk is to do)."""
        replica = self._replica
        store = replica.store
        if store.snapshot is not self._current:
            self._replaced_file()
        if store.log_base_index != self._log_base_index:
            self._log_base_index = store.log_base_index
            replica.raft.log.compact(store.log_base_index)
        if self._cutting is not None and self._cutting.filed and not store.compacting:
            self._cut()
        if self._kept:
            self._let_go()
        if replica.disk_full and self._askers and self._order is None:
            self._refuse_askers(ErrorCode.DISK_FULL, _FULL)
        self._go_on()
        if self._order is None and self._is_due():
            self._decide()
        return self._hand_out(), self._cut_jobs()

    def _is_due(self) -> bool:
        replica = self._replica
        if not self._askers and replica.store.log_bytes <= self._trigger_bytes:
            return False        # nearly always
        applied = replica.machine.applied_index
        if (replica.now_ms < self._retry_ms or replica.disk_full
                or applied <= replica.raft.log.snapshot_index):     # perhaps not on the disk yet
            return False
        if any(index > self.index for _, _, index in self._askers):
            return True
        if replica.raft.log.commit_index - applied > _BEHIND_ENTRIES_MAX:
            return False    # as after a start: one of so little would be made for nothing
        # What came while one was made counts too, and so does all where a cut was not finished.
        store, config = replica.store, self._config
        grown = store.bytes_behind(self.index)
        if store.log_bytes - HEADER_BYTES - grown > max(config.tail_bytes, config.log_bytes_min):
            grown = store.log_bytes
        return grown > self._trigger_bytes

    @property
    def _trigger_bytes(self) -> int:
        """How much of the log there may be behind the snapshot."""
        held_bytes = self._current.meta.size if self._current is not None else 0
        return max(self._config.log_bytes_min, self._config.log_per_snapshot * held_bytes)

    @property
    def is_late(self) -> bool:
        """Whether the one that is being made should hurry: the log grows meanwhile."""
        return (self._order is not None and self._made is None
                and self._replica.store.log_bytes > 2 * self._trigger_bytes)

    def _decide(self) -> None:
        replica = self._replica
        self._number += 1
        index = replica.machine.applied_index
        self._order = SnapshotOrder(
            f"{MADE_PREFIX}{replica.store.boot}-{self._number}", index,
            replica.raft.log.term_at(index), replica.machine.digest, replica.cluster_id)
        self._ordered = False
        replica.actions.say("snapshot", "making a snapshot of all up to entry %d; the log has %d "
                            "bytes", self._order.index, replica.store.log_bytes)

    def _hand_out(self) -> SnapshotOrder | None:
        # What is applied may not be durable here yet, and it is made from the files.
        if (self._order is None or self._ordered
                or self._replica.raft.log.stable_index < self._order.index):
            return None
        self._ordered = True
        return self._order

    def progress(self, text: str) -> None:
        """The process that makes one tells how far it is."""
        self._replica.actions.say("snapshot progress", "%s", text)

    def is_current(self, order: SnapshotOrder) -> bool:
        """Whether that one is still wanted: not after this node has left its cluster."""
        return order is self._order

    def made(self, order: SnapshotOrder) -> None:
        """The file is there."""
        if not self.is_current(order):
            return
        made = SnapshotFile.open(self._replica.store.disk, order.name)
        self._made = made.meta
        made.close()
        self._replica.actions.say("snapshot", "a snapshot up to entry %d is made: %d bytes",
                                  self._made.index, self._made.size)

    def failed(self, order: SnapshotOrder, reason: str) -> None:
        """It could not be made; the log stays as it is."""
        if not self.is_current(order):
            return
        if self._replica.store.disk.exists(order.name):
            self._replica.store.disk.remove(order.name)     # a part of it: it takes up space
        self._order = None
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        replica = self._replica
        self._retry_ms = replica.now_ms + self._config.retry_ms
        replica.actions.say("snapshot", "no snapshot was made: %s; the log stays as it is", reason,
                            level=ERROR)
        self._refuse_askers(ErrorCode.NO_SNAPSHOT, reason)

    def _refuse_askers(self, code: ErrorCode, reason: str) -> None:
        askers, self._askers = self._askers, []
        for client, request_id, _ in askers:
            self._replica.refuse(client, request_id, code, reason)

    # --- cutting the log

    def _cut_jobs(self) -> list[Job]:
        replica = self._replica
        if self._made is None or self._cutting is not None:
            return []
        meta, store, log = self._made, replica.store, replica.raft.log
        if meta.index <= log.snapshot_index:
            self._void()        # an installed one is newer
            return []
        base_index = self._base(meta.index)
        installing = replica.raft.installing_to()
        if installing and store.log_bytes < self._config.held_log_bytes_max:
            if not self._askers:
                return []
            base_index = log.base_index     # they get it now, and the log stays
        self._cutting = Job(replica.outbox.job_number, None, [],
                            compact=Compaction(self._order.name, meta, base_index))
        return [self._cutting]

    def _base(self, index: int) -> int:
        """Behind which entry the log is to begin: a tail stays, and more of it for followers that
        are heard and need it."""
        replica, config, raft = self._replica, self._config, self._replica.raft
        base_index = replica.store.index_before(index, config.tail_bytes)
        needed = min([progress.match_index for node_id, progress in raft.progress.items()
                      if progress.heard_within(raft.timeout_of(node_id), raft.now_ms)],
                     default=index)
        if needed < base_index:
            base_index = max(needed, replica.store.index_before(
                index, max(config.tail_bytes, config.log_bytes_min)))
        return max(base_index, replica.raft.log.base_index)

    def _cut(self) -> None:
        """The disk is through with it, or gave up."""
        replica = self._replica
        store = replica.store
        failure, order = store.compaction_failed, self._order
        self._cutting = self._order = self._made = None
        if failure:
            self._fail(failure)
        elif order is not None:
            replica.actions.say("snapshot", "the log begins after entry %d now: %d bytes",
                                store.log_base_index, store.log_bytes)

    def _void(self) -> None:
        self._replica.store.disk.remove(self._order.name)
        self._order = self._made = None

    def _replaced_file(self) -> None:
        """Another snapshot has taken the place of the one before."""
        replica = self._replica
        self._current = replica.store.snapshot
        for old in replica.store.take_replaced():
            self._kept[old] = replica.now_ms + self._config.kept_ms
        while len(self._kept) > self._config.kept_max:      # each takes its size of the disk
            self._kept.pop(oldest := min(self._kept, key=self._kept.get))
            oldest.close()
        meta = self._current.meta
        replica.raft.snapshot_made(meta)
        waiting, self._askers = self._askers, []
        for client, request_id, index in waiting:
            if index <= meta.index:
                self._answer(client, request_id)
            else:
                self._askers.append((client, request_id, index))

    def _let_go(self) -> None:
        for file in [f for f, until in self._kept.items() if self._replica.now_ms >= until]:
            del self._kept[file]
            file.close()

    # --- giving one to followers and clients

    def fill(self, message: Snapshot) -> bool:
        """Put the bytes into a chunk for a follower; False where that snapshot is held no more."""
        for file in self._files():
            if file.meta.identity == message.identity:
                message.data = self._read(file, message.offset, message.count)
                return True
        return False

    def _files(self) -> list[SnapshotFile]:
        return [*([self._current] if self._current is not None else []), *self._kept]

    def _read(self, file: SnapshotFile, offset: int, count: int) -> bytes:
        if file in self._kept:
            self._kept[file] = self._replica.now_ms + self._config.kept_ms
        return file.read(offset, count)

    def take(self, client, request_id: int) -> None:
        """A client wants one that has everything applied so far."""
        replica = self._replica
        applied = replica.machine.applied_index
        if self._current is not None and self.index >= applied:
            self._answer(client, request_id)
            return
        if not applied:     # and a node that was removed never hears what is committed
            replica.refuse(client, request_id, ErrorCode.NOT_READY, "nothing is applied here yet")
            return
        if replica.disk_full:
            replica.refuse(client, request_id, ErrorCode.DISK_FULL, _FULL)
            return
        if len(self._askers) >= self._config.askers_max:
            self._askers = [each for each in self._askers if replica.gateway.is_live(each[0])]
        if len(self._askers) >= self._config.askers_max:
            replica.refuse(client, request_id, ErrorCode.BUSY, "too many wait for a snapshot")
        else:
            self._retry_ms = 0
            self._askers.append((client, request_id, applied))

    def _answer(self, client, request_id: int) -> None:
        meta = self._current.meta
        self._replica.gateway.answers.append((client, request_id, Kind.SNAPSHOT_TAKEN, (
            encode_snapshot_taken(Taken(meta.index, meta.term, meta.size, meta.checksum,
                                        meta.digest)))))

    def read(self, client, request_id: int, index: int, offset: int, count: int) -> int:
        """A client reads a part of one; the bytes of the answer."""
        replica = self._replica
        file = next((f for f in self._files() if f.meta.index == index), None)
        if file is None:
            replica.refuse(client, request_id, ErrorCode.NO_SNAPSHOT,
                           f"no snapshot up to entry {index} is held here: take a new one")
        elif offset > file.meta.size:
            replica.refuse(client, request_id, ErrorCode.BAD_REQUEST,
                           f"the snapshot has {file.meta.size} bytes")
        else:
            data = self._read(file, offset, min(count, PART_BYTES_MAX, file.meta.size - offset))
            replica.gateway.answers.append((client, request_id, Kind.SNAPSHOT_PART, (
                encode_snapshot_part(Part(index, file.meta.size, offset, data)))))
            return len(data)
        return 0

    # --- receiving one

    @property
    def is_busy(self) -> bool:
        """Whether slices wait to be worked on: the next turn should follow at once."""
        return (self._building is not None or self._replaced is not None
                or self._verifying is not None)

    def doubted(self, identity: SnapshotId) -> None:
        """A follower says that what it received is not that snapshot: is this node's file whole?"""
        if (self._verifying is None and self._current is not None
                and self._current.meta.identity == identity):
            self._replica.actions.say("install", "a follower refuses the snapshot up to entry %d: "
                                      "verifying it", identity.index, level=WARNING)
            self._verifying = self._verify(self._current)

    def _verify(self, file: SnapshotFile) -> Iterator[int]:
        """Gives the bytes of each piece. Raises CorruptFileError: the node ends, and heals at its
        next start."""
        for piece in file.pieces():
            yield len(piece)
            if file.closed:
                return
        self._replica.actions.say("install", "the snapshot up to entry %d is whole here",
                                  file.meta.index)

    def received(self, identity: SnapshotId) -> None:
        """All bytes of it are here: build it, slice by slice."""
        self._building = self._build(identity)

    def _go_on(self) -> None:
        if self._replaced is not None and next(self._replaced, True):
            self._replaced = None
        self._building = self._slice(self._building)
        self._verifying = self._slice(self._verifying)

    def _slice(self, work: Iterator[int] | None) -> Iterator[int] | None:
        """Go on with it for a slice; None where nothing is left."""
        if work is None:
            return None
        left = self._config.slice_bytes
        for size in work:
            left -= size
            if left <= 0:
                return work
        return None

    def _build(self, identity: SnapshotId) -> Iterator[int]:
        """Gives the bytes of each piece that was done."""
        replica = self._replica
        loader = StateLoader(replica.config.machine, replica.config.wire)
        file = None
        try:
            file = SnapshotFile.open(replica.store.disk, RECEIVED_NAME)
            meta = file.meta
            if meta.identity != identity or file.cluster_id != replica.cluster_id:
                raise MalformedError("it is another one than the leader announced")
            replica.check_state_version(meta.membership)
            if replica.stop_reason:
                return
            for piece in file.pieces():
                if not replica.raft.wants_snapshot(identity):
                    return
                loader.feed(piece)
                yield len(piece)
            machine = loader.finish()
            check_machine(machine, file)
        except (CorruptFileError, MalformedError) as error:
            replica.actions.say("install", "the snapshot that came is refused: %s", error,
                                level=WARNING)
            replica.raft.snapshot_refused(identity)
            return
        finally:
            if file is not None:
                file.close()
        self._built = meta, machine
        if not replica.raft.snapshot_received(meta):
            self._built = None

    def installed(self, meta: SnapshotMeta) -> Machine:
        """The core begins at it: the machine that was built, in the place of the one before."""
        assert self._built is not None and self._built[0] == meta
        machine, self._built = self._built[1], None
        self._replaced = dismantle(self._replica.machine, self._config.slice_messages)
        return machine
