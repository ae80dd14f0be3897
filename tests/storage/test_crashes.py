"""Random schedules of jobs, failures, full disks and crashes: what was returned stays.

One schedule: a founded store, batches of random jobs; now and then an operation fails, the disk
is full, the process is killed or the power goes. After each start the log must be what was
promised, or that with a first part of the interrupted jobs' entries applied; term and vote never
go back.
"""

import random
import unittest

from raftnet.errors import DiskFullError, StorageError
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from tests.storage.building import (CLUSTER_ID, NODE_ID, entry, founded, job, open_store,
                                    randint_of, replayed)

SCHEDULES = 700
STEPS = 8


class Schedule:
    """One random run; `expect` are the states that a start may find."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.disk = SimulatedDisk()
        self.store = founded(self.disk)
        self.log = [entry(1)]
        self.hard_state = HardState(1)
        self.boot = 1

    def make_jobs(self) -> list:
        jobs, log, hard_state = [], list(self.log), self.hard_state
        for _ in range(self.random.randint(1, 3)):
            new = None
            if self.random.randint(0, 2) == 0:
                new = hard_state = HardState(hard_state.current_term + self.random.randint(1, 2),
                                             self.random.randint(0, 3))
            batch = self._make_entries(log, hard_state.current_term)
            jobs.append(job(batch, new.current_term if new else 0, new.voted_for if new else 0))
        return jobs

    def _make_entries(self, log: list, term: int) -> list:
        index, batch = len(log) + 1, []
        if log[-1].term < term and self.random.randint(0, 1):
            index = self.random.randint(2, len(log) + 1)
        for i in range(index, index + self.random.randint(0, 4)):
            batch.append(entry(i, term, self.random.randbytes(self.random.randint(0, 40))))
            log[i - 1:] = [batch[-1]]
        return batch

    def apply(self, jobs: list) -> None:
        """The jobs are promised."""
        for done in jobs:
            self.hard_state = done.hard_state or self.hard_state
            for e in done.entries:
                self.log[e.index - 1:] = [e]

    def states(self, jobs: list) -> tuple[list, list]:
        """(hard states, logs) that an interrupted `perform(jobs)` may leave."""
        hard_states, logs = [self.hard_state], [list(self.log)]
        for part in jobs:
            if part.hard_state:
                hard_states.append(part.hard_state)
            for e in part.entries:
                logs.append(logs[-1][:e.index - 1] + [e])
        return hard_states, logs

    def break_down(self) -> None:
        """The process ends; half the time the power goes too."""
        if self.random.randint(0, 1):
            self.disk.kill()
        else:
            self.disk = self.disk.crash(self.random.randint)

    def restart(self) -> None:
        """Start, which may be interrupted as well."""
        self.break_down()
        if self.random.randint(0, 3) == 0:
            self.disk.fail_at(self.random.randint(1, 20), bool(self.random.randint(0, 1)))
            try:
                open_store(self.disk).close()
            except StorageError:
                self.break_down()
        self.disk.fail_at(0)
        self.disk.kill()
        self.store = open_store(self.disk)


class CrashTest(unittest.TestCase):

    def test_what_perform_returned_survives(self):
        for seed in range(SCHEDULES):
            with self.subTest(seed=seed):
                schedule = Schedule(seed)
                for _ in range(STEPS):
                    self._step(schedule)
                schedule.restart()
                self._check(schedule, [])

    def _step(self, schedule: Schedule) -> None:
        chance, disk = schedule.random, schedule.disk
        jobs = schedule.make_jobs()
        how = chance.randint(0, 3)
        if how == 1:
            disk.fail_at(chance.randint(1, 7), bool(chance.randint(0, 1)))
        elif how == 2:
            disk.bytes_left = chance.randint(0, 300)
        try:
            schedule.store.perform(jobs)
        except DiskFullError:
            disk.bytes_left = None
            if chance.randint(0, 1):
                schedule.store.perform(jobs)
                schedule.apply(jobs)
            else:
                schedule.restart()
                self._check(schedule, jobs)
            return
        except StorageError:
            schedule.restart()
            self._check(schedule, jobs)
            return
        schedule.apply(jobs)
        disk.bytes_left = None
        disk.fail_at(0)
        if how == 3:
            schedule.restart()
            self._check(schedule, [])

    def _check(self, schedule: Schedule, jobs: list) -> None:
        store = schedule.store
        hard_states, logs = schedule.states(jobs)
        found = replayed(store)
        self.assertIn(store.hard_state, hard_states)
        self.assertIn(found, logs)
        self.assertEqual(store.read_entries(1, 1 << 30), found)
        self.assertEqual((store.node_id, store.cluster_id), (NODE_ID, CLUSTER_ID))
        self.assertGreater(store.boot, schedule.boot)
        schedule.boot = store.boot
        schedule.log, schedule.hard_state = found, store.hard_state

    def test_founding_joining_and_forgetting_are_whole_or_undone(self):
        nothing_there = (None, HardState(), [])
        joined = (CLUSTER_ID, HardState(), [])
        cluster = (CLUSTER_ID, HardState(1), [entry(1)])
        # Term and vote stay, whatever becomes of the cluster.
        term_left = (None, HardState(1), [])
        actions = (("found", lambda s: s.found(CLUSTER_ID, entry(1)),
                    [nothing_there, term_left, cluster]),
                   ("join", lambda s: s.join(CLUSTER_ID), [nothing_there, joined]),
                   ("forget", lambda s: s.forget(), [cluster, term_left]),
                   ("forget alone", lambda s: s.forget(alone=True),
                    [cluster, term_left, nothing_there]))
        for name, act, states in actions:
            for k in range(1, 30):
                for seed in range(24):
                    with self.subTest(name=name, k=k, seed=seed):
                        self._interrupt(name, act, k, seed, states)

    def _interrupt(self, name, act, k, seed, states) -> None:
        """`states`: before, on the way, and the last one when it is done."""
        disk = SimulatedDisk()
        store = founded(disk) if name.startswith("forget") else open_store(disk)
        disk.fail_at(k, applied=seed % 2 == 0)
        expected = states
        try:
            act(store)
            expected = states[-1:]
        except StorageError:
            pass
        disk.fail_at(0)
        if seed % 3:
            disk = disk.crash(randint_of(seed * 100 + k))
        else:
            disk.kill()
        store = open_store(disk)
        found = (store.cluster_id, store.hard_state, replayed(store))
        self.assertIn(found, expected)
        self.assertEqual((store.node_id, store.boot), (NODE_ID, 2))
        if store.cluster_id is None:
            store.found(CLUSTER_ID, entry(1))
            self.assertEqual(store.read_entries(1, 99), [entry(1)])

    def test_an_identity_that_only_the_cache_shows_is_durable_after_the_start(self):
        for k in range(1, 30):
            disk = SimulatedDisk()
            store = open_store(disk)
            disk.fail_at(k)
            try:
                store.found(CLUSTER_ID, entry(1))
            except StorageError:
                disk.kill()
                store = open_store(disk)
            disk.fail_at(0)
            if store.cluster_id is None:
                continue
            store.perform([job([entry(2, 2)], 2, 9)])
            for seed in range(8):
                left = open_store(disk.crash(randint_of(seed)))
                self.assertEqual((left.cluster_id, left.hard_state), (CLUSTER_ID, HardState(2, 9)))
                self.assertEqual(replayed(left), [entry(1), entry(2, 2)])

    def test_the_first_start_may_be_interrupted_anywhere(self):
        for k in range(1, 50):
            for seed in range(12):
                disk = SimulatedDisk()
                disk.fail_at(k, applied=seed % 2 == 0)
                boots = 0
                try:
                    boots = open_store(disk).boot
                except StorageError as error:
                    self.assertNotIn("\n", str(error))
                disk.fail_at(0)
                if seed % 3:
                    disk = disk.crash(randint_of(seed * 100 + k))
                else:
                    disk.kill()
                store = open_store(disk)
                self.assertGreater(store.boot, boots)
                self.assertEqual((store.cluster_id, replayed(store)), (None, []))
                store.found(CLUSTER_ID, entry(1))

    def test_first_start_on_a_disk_full_at_each_byte(self):
        for budget in range(0, 8400, 7):
            disk = SimulatedDisk()
            disk.bytes_left = budget
            try:
                open_store(disk).close()
            except DiskFullError as error:
                self.assertNotIn("\n", str(error))
            disk.bytes_left = None
            store = open_store(disk)
            store.found(CLUSTER_ID, entry(1))

    def test_a_history_is_opened_under_every_failing_operation(self):
        for k in range(1, 50):
            for seed in range(12):
                disk = SimulatedDisk()
                store = founded(disk)
                jobs = [job([entry(2, 4, b"x" * 30), entry(3, 4)], 4, 9)]
                store.perform(jobs)
                store.close()
                disk.fail_at(k, applied=seed % 2 == 0)
                try:
                    open_store(disk).close()
                except StorageError as error:
                    self.assertNotIn("\n", str(error))
                disk.fail_at(0)
                store = open_store(disk.crash(randint_of(seed * 100 + k)))
                self.assertEqual(store.hard_state, HardState(4, 9))
                self.assertEqual(replayed(store), [entry(1), *jobs[0].entries])


if __name__ == "__main__":
    unittest.main()
