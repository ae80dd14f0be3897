"""Whole simulated clusters: fixed seeds stay clean, and broken variants of the code are caught."""

import os
import subprocess
import sys
import unittest
from unittest import mock

from raftnet.machine.machine import Machine
from raftnet.raft.core import Raft
from raftnet.simulation.cluster import Profile, SimulatedCluster
from raftnet.simulation.faults import KINDS
from raftnet.simulation.network import NetworkProfile
from raftnet.wire.commands import Operation, Status
from tests.simulation.cores import all_cores

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SEEDS_MAX = 40


def _caught(profile: Profile | None = None, seeds: int = _SEEDS_MAX) -> str:
    """The first violation that these seeds find, or ""."""
    for seed in range(seeds):
        try:
            SimulatedCluster(seed, profile=profile).run(15_000)
        except AssertionError as error:
            return str(error) or type(error).__name__
    return ""


def run(seed: int, workers: int) -> tuple[int, bool]:
    """(highest commit index, whether it is stuck) after a run."""
    cluster = SimulatedCluster(seed, count=3 if seed % 2 else 5, workers=workers)
    cluster.run(20_000)
    return cluster.invariants.highest_commit, cluster.is_stuck


def faults_of(seed: int) -> set[str]:
    """The kinds of faults that happened while they came often."""
    cluster = SimulatedCluster(seed, profile=Profile(NetworkProfile(1, 1), 150))
    cluster.run(25_000)
    return set(cluster.faults.counts)


def quiet() -> tuple[int, int]:
    """(elections, requests that were acknowledged to a client) where nothing goes wrong."""
    cluster = SimulatedCluster(3, profile=Profile(NetworkProfile(1, 1), faults=()))
    cluster.run(6_000)
    return cluster.invariants.elections, len(cluster.clients[0].acknowledged)


def work() -> tuple[set[int], set[int], int]:
    """(operations asked, statuses answered, events told to watchers) where nothing goes wrong."""
    cluster = SimulatedCluster(1, profile=Profile(NetworkProfile(1, 1), faults=()), workers=4)
    cluster.run(10_000)
    history = cluster.work_history
    return ({command[4] for command, _ in history._asked.values()},
            {int(status) for answer in history._answers
             for status, _ in answer.reply.results or ()},
            sum(len(record.events) for record in history.watches.records))


def two_courses() -> list[tuple[int, int]]:
    """(events, hash of the trace) of the same seed twice, in one process."""
    courses = []
    for _ in range(2):
        cluster = SimulatedCluster(11, workers=2)
        cluster.run(10_000)
        courses.append((cluster.scheduler.happened, cluster.trace.hash))
    return courses


def trace_under(hash_seed: str) -> str:
    """The hash of a trace, by an interpreter with that hash seed."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "simulate.py"), "--seed",
                           "17", "--seconds", "8"], stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, "PYTHONHASHSEED": hash_seed})
    return done.stdout.split("trace ")[1].split()[0]


class ClusterTest(unittest.TestCase):
    """Seeds of the real code; as many runs at once as there are cores, the longest first."""

    @classmethod
    def setUpClass(cls):
        submit = cls.enterClassContext(all_cores()).submit
        cls.work, cls.quiet = submit(work), submit(quiet)
        cls.runs = {(seed, workers): submit(run, seed, workers) for seed, workers in
                    ((8, 4), (1, 0), (2, 0), (3, 0), (4, 0), (5, 2))}
        cls.traces = [submit(trace_under, hash_seed) for hash_seed in ("0", "1", "4242")]
        cls.faults = [submit(faults_of, seed) for seed in (1, 2)]
        cls.courses = submit(two_courses)

    def test_fixed_seeds_are_clean(self):
        for (seed, workers), ended in self.runs.items():
            with self.subTest(seed=seed, workers=workers):
                highest_commit, is_stuck = ended.result()
                self.assertGreater(highest_commit, 2)
                self.assertFalse(is_stuck)

    def test_every_kind_of_fault_happens(self):
        self.assertEqual(set().union(*(ended.result() for ended in self.faults)), set(KINDS))

    def test_a_quiet_cluster_elects_once_and_serves(self):
        elections, acknowledged = self.quiet.result()
        self.assertEqual(elections, 1)
        self.assertGreater(acknowledged, 50)

    def test_workers_and_watchers_do_everything(self):
        asked, done, events = self.work.result()
        self.assertEqual({int(operation) for operation in Operation
                          if operation not in (Operation.CANCEL, Operation.TIME)} - asked,
                         set())
        self.assertLessEqual({Status.OK, Status.EMPTY, Status.FULL, Status.CONFLICT,
                              Status.IN_USE, Status.ABORTED, Status.LIMIT}, done)
        self.assertGreater(events, 20)

    def test_the_same_seed_gives_the_same_course(self):
        first, second = self.courses.result()
        self.assertEqual(first, second)

    def test_the_same_seed_gives_the_same_course_under_any_hash_seed(self):
        self.assertEqual(len({trace.result() for trace in self.traces}), 1)


class BrokenVariantTest(unittest.TestCase):
    """The checker is proven: each break is found."""

    crashes = Profile(NetworkProfile(5, 5), 800, ("power loss", "all crash", "slow disk", "crash"))

    def test_promises_before_the_sync(self):
        with mock.patch.object(Raft, "send_after_sync", Raft.send):
            self.assertTrue(_caught(self.crashes))

    def test_retries_that_are_executed_again(self):
        def forgetful(machine, session):
            return None

        lossy = Profile(NetworkProfile(20, 20, loss=10), 1_000, ("crash", "pause", "isolate"))
        with mock.patch.object(Machine, "last_sequence", forgetful):
            self.assertTrue(_caught(lossy))


if __name__ == "__main__":
    unittest.main()
