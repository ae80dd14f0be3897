"""DiskWork: what the disk's thread and the process that makes snapshots do, in simulated time.

It stands in the place of storage/worker.py and snapshotprocess.py: jobs that wait together are done
together, and before a step of a compaction; a full disk is tried again after a while, together with
what came meanwhile, and term and vote may leave before. A snapshot that is ordered is made at some
later moment, fails, or its process dies and leaves half of a file. A crash ends any of this in the
midst.
"""

from dataclasses import dataclass

from raftnet.errors import CorruptFileError, DiskFullError, StorageError
from raftnet.raft.types import HardState
from raftnet.rebuild import SnapshotOrder, make_snapshot
from raftnet.storage.store import Job

_FULL_RETRY_MS = 500
_COPY_BYTES_MAX = 8_000         # of a step of a compaction; real ones copy a MiB
_MAKING_MS_MAX = 3_000
_FAILS_PERCENT = 6              # of the snapshots are not made ...
_DIES_PERCENT = 6               # ... or their process dies in the midst of it
_OPERATIONS_MAX = 6             # of the disk: within so many a crash comes,
_SWITCH_OPERATIONS_MAX = 36     # or so many where files take the place of others


@dataclass(slots=True)
class DiskProfile:
    """How slow a node's disk is; milliseconds a job."""

    low_ms: int = 0
    high_ms: int = 2


class DiskWork:
    """That of one life of a SimulatedNode, on the node's disk."""

    def __init__(self, node):
        self._node = node
        self._jobs: list[Job] = []      # waiting for the disk
        self._batch: list[Job] = []     # done together, with one sync, at the moment
        self._refused: list[Job] = []   # for which there was no room
        self._due = 0                   # number of the event that goes on; older ones are void
        self._steps = False             # the event under way is only a compaction's
        self._failed = False            # an operation did: nothing more is done in this life
        self._order: SnapshotOrder | None = None    # being made

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._batch and not self._refused and not self._steps

    @property
    def _installs(self) -> bool:
        return any(job.install is not None for job in self._batch)

    def submit(self, jobs: list[Job], order: SnapshotOrder | None) -> None:
        """What a turn wants of the disk, and of another process."""
        self._node.cluster.invariants.gives(self._node, jobs)
        self._jobs += jobs
        if self._jobs and not self._batch:
            self._begin()
        if order is not None:
            self._order = order
            node = self._node
            life = node.life
            # Another process: it goes on while this one is stopped, and ends with it.
            node.scheduler.after(node.cluster.chosen.randint(1, _MAKING_MS_MAX),
                                 lambda: node.life == life and node.running
                                 and self._make(order))

    # --- jobs and compaction

    def _begin(self) -> None:
        """All that waits is given to the disk, as DiskWorker does."""
        self._batch, self._jobs, self._refused = self._refused + self._jobs, [], []
        self._go_on()

    def _go_on(self) -> None:
        self._due += 1
        number, profile = self._due, self._node.disk_profile
        self._steps = not self._batch
        self._node.later(self._node.scheduler.randint(profile.low_ms, profile.high_ms),
                         lambda: number == self._due and self._done())

    def _done(self) -> None:
        """The disk has had its time: the jobs are done, and a step of a compaction."""
        node = self._node
        store = node.replica.store
        if node.dies_installing and self._installs:
            node.dies_installing = False
            node.crash(power_loss=node.cluster.chosen.random() < 0.5)
            return
        heard = bool(self._batch)
        self._steps = False
        try:
            if self._batch:
                self._perform()
            if store.compacting:
                heard |= store.compaction_step(node.cluster.chosen.randint(1, _COPY_BYTES_MAX))
        except StorageError as error:
            self._failed = True             # never tried again: a failed sync ends the process
            self._batch = []
            node.cluster.note(node.address, f"stops: {error}")
            node.crash(power_loss=False)
            return
        if self._jobs or (self._refused and store.compacting):
            self._begin()       # what is cut off the log may have made room
        elif store.compacting:
            self._go_on()
        elif self._refused:
            number = self._due
            node.later(_FULL_RETRY_MS, lambda: number == self._due and self._begin())
        if heard:
            node.pump()

    def _perform(self) -> None:
        """The batch; what it promised leaves in the turn that follows."""
        node, jobs = self._node, self._batch
        replica = node.replica
        try:
            replica.store.perform(jobs)
        except DiskFullError:
            self._batch, self._refused = [], jobs
            replica.set_disk_full(True)
            wanted = [job.hard_state for job in jobs if job.hard_state is not None]
            if _is_durable(wanted, replica.store.hard_state):
                node.cluster.votes_durable(node, jobs)
                replica.votes_durable(jobs[-1].number)
            return
        self._batch = []
        replica.set_disk_full(False)
        node.cluster.jobs_durable(node, jobs)
        replica.job_done(jobs[-1].number)

    # --- snapshots

    def _make(self, order: SnapshotOrder) -> None:
        """The other process makes it now."""
        node = self._node
        chance = node.cluster.chosen.randrange(100)
        reason = ""
        if chance < _FAILS_PERCENT:
            reason = "simulated"
        elif chance < _FAILS_PERCENT + _DIES_PERCENT:
            self._make_a_part(order)
            reason = "its process died"
        else:
            try:
                make_snapshot(node.disk, node.config, order)
            except CorruptFileError as error:
                self._order = None
                node.cluster.found_damage(node, error)
                node.cluster.note(node.address, f"stops: {error}")
                node.crash(power_loss=False)
                return
            except StorageError as error:
                reason = str(error)
        self._order = None
        node.guard(lambda: self._made(order, reason))

    def _made(self, order: SnapshotOrder, reason: str) -> None:
        snapshots = self._node.replica.snapshots
        if reason:
            snapshots.failed(order, reason)
        else:
            snapshots.made(order)
        self._node.turn_soon()

    def _make_a_part(self, order: SnapshotOrder) -> None:
        node, chosen = self._node, self._node.cluster.chosen
        node.disk.fail_at(chosen.randint(1, _SWITCH_OPERATIONS_MAX), chosen.random() < 0.5)
        try:
            make_snapshot(node.disk, node.config, order)
        except StorageError:
            pass        # as far as it came
        node.disk.fail_at(0)

    # --- the end

    def end_in_the_midst(self) -> None:
        """The process dies at a random operation of its disk work, or of the other process's."""
        node, scheduler = self._node, self._node.scheduler
        if self._order is not None and scheduler.chance(30):
            self._make_a_part(self._order)
        store = node.replica.store if node.replica is not None else None
        if (store is None or self._failed or not (self._batch or store.compacting)
                or scheduler.chance(20 if self._installs else 50)):
            return
        most = _OPERATIONS_MAX
        if self._installs or any(job.compact is not None for job in self._batch):
            most = _SWITCH_OPERATIONS_MAX
        node.disk.fail_at(scheduler.randint(1, most), scheduler.chance(50))
        try:
            if self._batch:
                store.perform(self._batch)
            while not store.compaction_step():
                pass
        except StorageError:
            pass    # as far as it came; nobody hears of it
        self._batch = []

    def finish(self) -> None:
        """The process stops in order: what was given to the disk is done."""
        try:
            self._node.replica.store.perform(self._refused + self._batch + self._jobs)
        except StorageError:
            pass    # as far as it came; nobody hears of it


def _is_durable(wanted: list[HardState], durable: HardState) -> bool:
    """Whether the last of the terms and votes that jobs want is on the disk."""
    return not wanted or wanted[-1] == durable
