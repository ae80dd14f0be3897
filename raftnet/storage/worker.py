"""DiskWorker: the helper thread that writes and syncs, so that the loop never waits for the disk.

Rules: jobs are done in their order; those that wait together are done together, with one sync; the
loop hears of the end through `wake`. Between jobs a compaction goes on, a step at a time. A full
disk is tried again until there is room, together with what came meanwhile, since term and vote may
become durable without room. Any other failure is final: `failure` is set, nothing more is written,
and the process must end.
"""

import queue
import threading
from collections.abc import Callable

from raftnet.errors import DiskFullError, StorageError
from raftnet.raft.types import HardState
from raftnet.storage.store import Job, Store

FULL_RETRY_S = 0.5


class DiskWorker:
    """One thread for one Store. The loop may read the fields without underscore at any time."""

    def __init__(self, store: Store, wake: Callable[[], None]):
        self._store = store
        self._wake = wake
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.done = 0                   # the last job that is durable
        self.voted = 0                  # the last one whose term and vote are; >= done
        self.full = False               # the disk had no room at the last try
        self.failure: StorageError | None = None
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job behind the others."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> bool:
        """Do what waits, then end; whether all was done in time. A compaction stays undone."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self.failure is None and not self.full

    def _run(self) -> None:
        try:
            self._work()
        except StorageError as error:
            self.failure = error
            self._wake()
        except BaseException as error:
            # A bug of ours must stop the node, and a thread cannot: the loop does it.
            self.failure = StorageError(f"the disk thread failed: {error!r}")
            self._wake()
            raise

    def _work(self) -> None:
        waiting: list[Job] = []         # those of a try that found no room
        last = False
        while not last:
            came = self._next_jobs(bool(waiting))
            last = None in came
            waiting += [job for job in came if job is not None]
            if waiting and self._perform(waiting):
                waiting = []
            if not last and self._store.compacting and self._store.compaction_step():
                self._wake()

    def _next_jobs(self, again: bool) -> list[Job | None]:
        """What was submitted. Waits for it, a while only where jobs are to be tried `again`, and
        not at all where a compaction is under way."""
        came: list[Job | None] = []
        try:
            if again:
                # A compaction makes room, or ends for want of it: do not keep it waiting.
                came.append(self._jobs.get(timeout=0 if self._store.compacting else FULL_RETRY_S))
            elif not self._store.compacting:
                came.append(self._jobs.get())
        except queue.Empty:
            return came
        while not self._jobs.empty():
            came.append(self._jobs.get())
        return came

    def _perform(self, jobs: list[Job]) -> bool:
        """Whether all are durable; False: there is no room. Raises StorageError."""
        try:
            self._store.perform(jobs)
        except DiskFullError:
            self.full = True
            if self._store.hard_state == _promised(jobs, self._store.hard_state):
                self.voted = jobs[-1].number
            self._wake()
            return False
        self.done = self.voted = jobs[-1].number
        self.full = False       # after that: a job that waited for room must not look overdue
        self._wake()
        return True


def _promised(jobs: list[Job], hard_state: HardState) -> HardState:
    """Term and vote as the last of these jobs wants them; `hard_state` where none changes them."""
    for job in reversed(jobs):
        if job.hard_state is not None:
            return job.hard_state
    return hard_state
