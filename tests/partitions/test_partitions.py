"""A short partition of real nodes; `python3 -m tests.partitions` is the long form, with all."""

import unittest

from tests.partitions.run import NEAR_PROFILE, PartitionRun
from tools.netem import unavailable

HOLD_S = 1.6                # a leader is missed, and another elected, within this time


@unittest.skipIf(unavailable(), f"no emulated network: {unavailable()}")
class TestPartitions(unittest.TestCase):
    """Three nodes under load."""

    @classmethod
    def setUpClass(cls):
        cls.run_ = cls.enterClassContext(PartitionRun(
            3, NEAR_PROFILE, 1, hold_s=HOLD_S, steady_s=0.0))

    def test_a_leader_that_only_clients_reach_answers_no_more(self):
        figures = self.run_.fault("isolated leader, clients reach it")
        self.assertEqual(figures.elections, 1)
        self.assertGreater(self.run_.known.reads, 50)


if __name__ == "__main__":
    unittest.main()
