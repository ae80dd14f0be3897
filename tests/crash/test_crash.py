"""A short crash test of real processes; `python3 -m tests.crash` is the long one."""

import unittest

from tests.crash.run import CrashRun


class TestCrash(unittest.TestCase):
    """The leader, two at once, and all."""

    def test_two_rounds_and_all_at_once(self):
        run = CrashRun(seed=1)
        run.run(["leader", "two"])
        self.assertGreater(len(run.history.enqueues), 100)
        self.assertEqual(set(run.gaps_s), {"leader", "two", "all"})


if __name__ == "__main__":
    unittest.main()
