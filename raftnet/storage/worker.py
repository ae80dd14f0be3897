"""DiskWorker: the helper thread that writes and syncs, so that the loop never waits for the disk.

Rules: jobs are done in their order; those that wait together are done together, with one sync; the
loop hears of the end through `wake`. A full disk is tried again until there is room. Any other
failure is final: `failure` is set, nothing more is written, and the process must end.
"""

import queue
import threading
from collections.abc import Callable

from raftnet.errors import DiskFullError, StorageError
from raftnet.storage.store import Job, Store

FULL_RETRY_S = 0.5


class DiskWorker:
    """One thread for one Store. The loop may read `done`, `full` and `failure` at any time."""

    def __init__(self, store: Store, wake: Callable[[], None]):
        self._store = store
        self._wake = wake
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.done = 0                   # the last job that is durable
        self.full = False               # the disk had no room at the last try
        self.failure: StorageError | None = None
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job behind the others."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> bool:
        """Do what waits, then end; whether all was done in time."""
        self._jobs.put(None)
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self.failure is None and not self.full

    def _run(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            last = jobs[-1] is None
            jobs = [job for job in jobs if job is not None]
            if jobs and not self._perform(jobs):
                return
            if last:
                return

    def _perform(self, jobs: list[Job]) -> bool:
        while True:
            try:
                self._store.perform(jobs)
            except DiskFullError:
                self.full = True
                self._wake()
                if self._stopping.wait(FULL_RETRY_S):
                    return False
                continue
            except StorageError as error:
                self.failure = error
                self._wake()
                return False
            except BaseException as error:
                # A bug of ours must stop the node, and a thread cannot: the loop does it.
                self.failure = StorageError(f"the disk thread failed: {error!r}")
                self._wake()
                raise
            self.full = False
            self.done = jobs[-1].number
            self._wake()
            return True
