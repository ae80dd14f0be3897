"""Whole simulated clusters: fixed seeds stay clean, and broken variants of the code are caught."""

import unittest
from unittest import mock

from raftnet.machine.machine import Machine
from raftnet.raft.core import Raft
from raftnet.simulation.cluster import Profile, SimulatedCluster
from raftnet.simulation.invariants import InvariantError, Invariants
from raftnet.simulation.network import NetworkProfile

_SEEDS_MAX = 40


def _caught(profile: Profile | None = None, seeds: int = _SEEDS_MAX) -> str:
    """The first violation that these seeds find, or ""."""
    for seed in range(seeds):
        try:
            SimulatedCluster(seed, profile=profile).run(15_000)
        except AssertionError as error:
            return str(error) or type(error).__name__
    return ""


class ClusterTest(unittest.TestCase):
    """Seeds of the real code."""

    def test_fixed_seeds_are_clean(self):
        for seed in range(1, 7):
            with self.subTest(seed=seed):
                cluster = SimulatedCluster(seed, count=3 if seed % 2 else 5)
                cluster.run(20_000)
                self.assertGreater(cluster.invariants.highest_commit, 2)

    def test_a_quiet_cluster_elects_once_and_serves(self):
        cluster = SimulatedCluster(3, profile=Profile(NetworkProfile(1, 1), faults=()))
        cluster.run(10_000)
        self.assertEqual(cluster.invariants.elections, 1)
        self.assertGreater(len(cluster.clients[0].acknowledged), 50)

    def test_the_same_seed_gives_the_same_course(self):
        courses = []
        for _ in range(2):
            cluster = SimulatedCluster(11)
            cluster.run(10_000)
            courses.append((cluster.scheduler.happened, cluster.network.counts,
                            [client.received for client in cluster.clients]))
        self.assertEqual(courses[0], courses[1])


class BrokenVariantTest(unittest.TestCase):
    """The checker is proven: each break is found."""

    crashes = Profile(NetworkProfile(5, 5), 800, ("power loss", "all", "slow disk", "crash"))

    def test_promises_before_the_sync(self):
        with mock.patch.object(Raft, "send_after_sync", Raft.send):
            self.assertTrue(_caught(self.crashes))

    def test_retries_that_are_executed_again(self):
        def forgetful(machine, session):
            return None

        lossy = Profile(NetworkProfile(20, 20, loss=10), 1_000, ("crash", "pause", "isolate"))
        with mock.patch.object(Machine, "last_sequence", forgetful):
            self.assertTrue(_caught(lossy))

    def test_a_lost_message_is_noticed(self):
        client = mock.Mock(attempted={b"c-1"}, acknowledged={b"c-1": 1}, received=[])
        client.name = "c"
        with self.assertRaisesRegex(InvariantError, "lost"):
            Invariants().check_histories([client])

    def test_a_message_delivered_twice_is_noticed(self):
        client = mock.Mock(attempted={b"c-1"}, acknowledged={}, received=[(1, b"c-1"), (1, b"c-1")])
        client.name = "c"
        with self.assertRaisesRegex(InvariantError, "twice"):
            Invariants().check_histories([client])

    def test_messages_out_of_order_are_noticed(self):
        client = mock.Mock(attempted={b"c-1", b"c-2"}, acknowledged={},
                           received=[(2, b"c-1"), (1, b"c-2")])
        client.name = "c"
        with self.assertRaisesRegex(InvariantError, "first in"):
            Invariants().check_histories([client])


if __name__ == "__main__":
    unittest.main()
