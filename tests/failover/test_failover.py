"""Short fail-overs of real processes; `python3 -m tests.failover` is the long one, with figures."""

import unittest

from tests.failover.run import FailoverRun


class TestKill(unittest.TestCase):
    """kill -9 of the leader."""

    def test_it_is_noticed_by_the_end_of_its_connections(self):
        with FailoverRun(judged=False) as run:
            run.kill_leader()
            run.finish()
        steps = run.timelines[0].steps
        self.assertIsNotNone(steps["refused"], "no follower said that the leader is gone")
        self.assertIsNotNone(steps["elected"])


class TestStop(unittest.TestCase):
    """SIGSTOP and SIGCONT; a leader that wakes up answers nothing that is stale."""

    def test_of_the_leader_and_of_a_follower(self):
        with FailoverRun(judged=True, window_s=0.0) as run:
            leader = run.cluster.leader()
            run.stop_leader(1.2)
            self.assertGreater(run.known.watched[leader.address], 0)
            reads = run.known.reads
            run.stop_follower(1.0)
            run.finish()
        self.assertGreater(run.known.reads, reads + 50)
        self.assertGreater(len(run.history.enqueues), 100)


if __name__ == "__main__":
    unittest.main()
