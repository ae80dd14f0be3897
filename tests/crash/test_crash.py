"""A short crash test of real processes; `python3 -m tests.crash` is the long one."""

import unittest

from tests.crash.run import CrashRun


class TestCrash(unittest.TestCase):
    """Two at once, and all; the leader alone is killed by tests.failover."""

    def test_two_and_all_at_once(self):
        run = CrashRun(seed=1)
        run.run(["two"])
        self.assertGreater(len(run.history.enqueues), 100)
        self.assertEqual(set(run.gaps_s), {"two", "all"})


if __name__ == "__main__":
    unittest.main()
