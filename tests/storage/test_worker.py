"""DiskWorker: jobs in order, a full disk that is tried again, failures that are final."""

import threading
import unittest
from unittest import mock

from raftnet.errors import StorageError
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import worker as worker_module
from raftnet.storage.store import Job
from raftnet.storage.worker import DiskWorker
from tests.storage.building import compact_job, entry, founded

LIMIT_S = 20.0


class TestDiskWorker(unittest.TestCase):
    """A worker at a simulated disk."""

    def setUp(self):
        self.disk = SimulatedDisk()
        self.store = founded(self.disk)
        self.woken = threading.Event()
        self.worker = DiskWorker(self.store, self.woken.set)
        self.addCleanup(self.worker.stop, LIMIT_S)
        retry = mock.patch.object(worker_module, "FULL_RETRY_S", 0.01)
        retry.start()
        self.addCleanup(retry.stop)

    def job(self, number: int) -> Job:
        """Number n appends entry n + 1."""
        return Job(number, HardState(1), [entry(number + 1, payload=bytes(100))])

    def wait_until(self, condition):
        while not condition():
            self.assertTrue(self.woken.wait(LIMIT_S))
            self.woken.clear()

    def test_in_order_and_all_before_the_end(self):
        for number in range(1, 101):
            self.worker.submit(self.job(number))
        self.assertTrue(self.worker.stop(LIMIT_S))
        self.assertEqual(self.worker.done, 100)
        self.assertEqual(self.store.last_index, 101)

    def test_wakes_when_done(self):
        self.worker.submit(self.job(1))
        self.wait_until(lambda: self.worker.done == 1)

    def test_a_full_disk_is_tried_again(self):
        self.disk.full = True
        self.worker.submit(self.job(1))
        self.wait_until(lambda: self.worker.full)
        self.assertEqual(self.worker.done, 0)
        self.worker.submit(self.job(2))
        self.disk.bytes_left = None
        self.wait_until(lambda: self.worker.done == 2)
        self.assertFalse(self.worker.full)
        self.assertEqual(self.store.last_index, 3)

    def test_term_and_vote_are_durable_although_the_entries_find_no_room(self):
        self.disk.full = True
        self.worker.submit(Job(1, HardState(2, 7), [entry(2, 2, bytes(100))]))
        self.wait_until(lambda: self.worker.voted == 1)
        self.worker.submit(Job(2, HardState(3, 8), []))
        self.wait_until(lambda: self.worker.voted == 2)
        self.assertEqual((self.worker.done, self.worker.full), (0, True))
        self.assertEqual(self.store.hard_state, HardState(3, 8))
        self.worker.submit(Job(3, None, [entry(3, 2, bytes(100))]))
        self.wait_until(lambda: self.worker.voted == 3)
        self.disk.bytes_left = None
        self.wait_until(lambda: self.worker.done == 3)
        self.assertEqual(self.store.last_index, 3)

    def test_a_full_meta_vouches_for_no_vote(self):
        self.disk.fail_at(1, full=True)
        seen = []
        self.worker._wake = lambda: (seen.append((self.worker.voted, self.worker.done)),
                                     self.woken.set())
        self.worker.submit(Job(1, HardState(2, 7), []))
        self.wait_until(lambda: self.worker.done == 1)
        self.assertEqual(seen[0], (0, 0))

    def test_a_compaction_goes_on_between_the_jobs_and_wakes_at_the_end(self):
        real = self.store.compaction_step
        with mock.patch.object(self.store, "compaction_step", lambda: real(500)):
            for number in range(1, 101):
                self.worker.submit(self.job(number))
            self.wait_until(lambda: self.worker.done == 100)
            compact = compact_job(self.disk, 30, 1, 20)
            compact.number = 101
            self.worker.submit(compact)
            for number in range(102, 120):
                self.worker.submit(Job(number, None, [entry(number, payload=bytes(100))]))
            self.wait_until(lambda: self.worker.done == 119 and not self.store.compacting)
        self.assertEqual((self.store.log_base_index, self.store.last_index), (20, 119))
        self.assertEqual(self.store.compaction_failed, "")
        self.assertEqual(self.store.snapshot.meta.index, 30)

    def test_a_compaction_that_is_under_way_does_not_hold_up_the_end(self):
        with mock.patch.object(self.store, "compaction_step", lambda: False):
            compact = compact_job(self.disk, 1, 1, 1)
            self.worker.submit(self.job(1))
            self.worker.submit(compact)
            self.assertTrue(self.worker.stop(LIMIT_S))

    def test_damage_found_by_a_compaction_is_final(self):
        for number in range(1, 9):
            self.worker.submit(self.job(number))
        self.wait_until(lambda: self.worker.done == 8)
        self.disk.write_at(self.disk.open("log"), 700, b"\xff\xfe\xfd")
        compact = compact_job(self.disk, 4, 1, 2)
        compact.number = 9
        self.worker.submit(compact)
        self.wait_until(lambda: self.worker.failure is not None)
        self.assertIn("log: damaged at byte", str(self.worker.failure))

    def test_a_full_disk_does_not_hold_up_the_end(self):
        self.disk.full = True
        self.worker.submit(self.job(1))
        self.wait_until(lambda: self.worker.full)
        self.assertFalse(self.worker.stop(LIMIT_S))

    def test_a_failure_is_final(self):
        self.disk.fail_at(1)
        self.worker.submit(self.job(1))
        self.wait_until(lambda: self.worker.failure is not None)
        self.assertIsInstance(self.worker.failure, StorageError)
        self.worker.submit(self.job(2))
        self.assertFalse(self.worker.stop(LIMIT_S))
        self.assertEqual((self.worker.done, self.store.last_index), (0, 1))

    def test_a_bug_reaches_the_loop(self):
        with mock.patch("threading.excepthook") as hook:
            self.worker.submit(Job(1, None, [entry(7)]))        # a hole in the log
            self.wait_until(lambda: self.worker.failure is not None)
            self.worker.stop(LIMIT_S)
        self.assertIn("AssertionError", str(self.worker.failure))
        hook.assert_called_once()


if __name__ == "__main__":
    unittest.main()
