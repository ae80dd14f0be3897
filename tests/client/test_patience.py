"""Waits follow what was measured, and back off where nothing was."""

import unittest

from raftnet.client.patience import (
    ANSWER_S_MIN, DIAL_S_MIN, PATIENCE_S_MAX, QUIET_S_MIN, ROUND_TRIPS, SAMPLES_TRUSTED,
    Patience)


class TestPatience(unittest.TestCase):
    """Nodes a and b."""

    def setUp(self):
        self.patience = Patience()

    def test_a_short_path_has_the_least_waits(self):
        self.patience.measured("a", 0.001)
        waits = [wait("a") for wait in (self.patience.dial_s, self.patience.quiet_s,
                                        self.patience.answer_s)]
        self.assertEqual(waits, [DIAL_S_MIN, QUIET_S_MIN, ANSWER_S_MIN])

    def test_a_long_path_is_waited_for(self):
        self.patience.measured("a", 2.0)
        for _ in range(SAMPLES_TRUSTED):
            self.patience.measured("b", 0.1)
        self.assertEqual(self.patience.quiet_s("a"), ROUND_TRIPS * 2.0)
        self.assertEqual(self.patience.quiet_s("b"), QUIET_S_MIN)
        self.assertEqual(self.patience.dial_s("never reached"), ROUND_TRIPS * 2.0)

    def test_one_lucky_greeting_is_not_trusted(self):
        """Packets that overtook the others: the next dial there would never be long enough."""
        self.patience.measured("b", 2.0)
        self.patience.measured("a", 0.05)
        self.assertEqual(self.patience.dial_s("a"), ROUND_TRIPS * 2.0)
        for _ in range(SAMPLES_TRUSTED):
            self.patience.measured("a", 0.05)
        self.assertEqual(self.patience.dial_s("a"), DIAL_S_MIN)
        self.patience.too_late("a")
        self.assertGreaterEqual(self.patience.dial_s("a"), ROUND_TRIPS * 2.0)

    def test_each_failure_doubles_up_to_a_bound(self):
        waits = []
        for _ in range(10):
            waits.append(self.patience.dial_s("a"))
            self.patience.too_late("a")
        self.assertEqual(waits[:4], [1.0, 2.0, 4.0, 8.0])
        self.assertEqual(waits[-1], PATIENCE_S_MAX)

    def test_success_brings_it_back_by_and_by(self):
        for _ in range(3):
            self.patience.too_late("a")
        waits = []
        for _ in range(5):
            waits.append(self.patience.dial_s("a"))
            self.patience.measured("b", 0.001)
        self.assertEqual(waits, [8.0, 4.0, 2.0, 1.0, 1.0])

    def test_one_dead_node_beside_a_living_one_stays_cheap(self):
        for _ in range(20):
            self.patience.too_late("a")
            self.patience.measured("b", 0.001)
        self.assertEqual(self.patience.dial_s("a"), DIAL_S_MIN)

    def test_round_trips_rise_at_once_and_fall_slowly(self):
        self.patience.measured("a", 0.1)
        self.patience.measured("a", 0.5)
        self.assertEqual(self.patience.round_trip_s("a"), 0.5)
        self.patience.measured("a", 0.1)
        self.assertAlmostEqual(self.patience.round_trip_s("a"), 0.4)

    def test_bounded(self):
        for number in range(1_000):
            self.patience.measured(str(number), 0.0)
        self.assertLessEqual(len(self.patience._round_trips), 64)


if __name__ == "__main__":
    unittest.main()
