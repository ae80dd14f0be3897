"""tc's words: what is understood, how it is written again, and what is refused."""

import unittest

from raftnet.errors import MalformedError
from raftnet.simulation.network import NetworkProfile
from tools.linkprofile import LinkProfile

ASSIGNMENT = "delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% 5% loss 5%"

GOOD = [
    ("", {}),
    ("delay 20ms", {"delay_s": 0.02}),
    ("delay 1.5s 250us 25%", {"delay_s": 1.5, "jitter_s": 0.00025, "delay_correlation": 0.25}),
    ("latency 500", {"delay_s": 0.0005}),       # a bare time is microseconds, as with tc
    ("delay 10msec 2msecs distribution uniform", {"delay_s": 0.01, "jitter_s": 0.002}),
    ("delay 3sec", {"delay_s": 3.0}),
    ("delay 20MS", {"delay_s": 0.02}),
    ("loss 5%", {"loss": 0.05}),
    ("loss random 5 25", {"loss": 0.05, "loss_correlation": 0.25}),
    ("drop .5%", {"loss": 0.005}),
    ("duplicate 2% 5%", {"duplicate": 0.02, "duplicate_correlation": 0.05}),
    ("corrupt 100%", {"corrupt": 1.0}),
    ("delay 10ms reorder 25% 50% gap 5",
     {"delay_s": 0.01, "reorder": 0.25, "reorder_correlation": 0.5, "gap": 5}),
    ("rate 10mbit limit 50", {"rate_bits": 10e6, "limit": 50}),
    ("rate 100kbps", {"rate_bits": 800e3}),
    ("rate 1gibit", {"rate_bits": 1024.0 ** 3}),
    ("rate 64000", {"rate_bits": 64e3}),
    (ASSIGNMENT, {"delay_s": 1.0, "jitter_s": 0.05, "reorder": 0.08, "corrupt": 0.05,
                  "duplicate": 0.02, "duplicate_correlation": 0.05, "loss": 0.05}),
]
BAD = ["delay", "delay fast", "delay 20parsec", "delay 1ms 1ms 1% 1ms", "delay 2h", "delay 3601s",
       "delay -1ms", "delay 1e3ms", "loss", "loss 101%", "loss 5% 6% 7%", "loss 5ms", "loss nan%",
       "loss state 5%", "loss gemodel 1%", "duplicate", "corrupt x%", "gap 5", "gap 5%",
       "reorder 5% gap 0", "reorder 5% gap x", "rate", "rate fast", "rate 10mbit 5",
       "limit", "limit 0", "limit 9999999", "limit 1.5", "distribution normal", "distribution",
       "slot 1ms", "5%", "delay 1ms delay 2ms", "loss 1% drop 2%", "delay ١ms", "ecn"]


class ProfileTest(unittest.TestCase):
    """LinkProfile.parse and words."""

    def test_good(self):
        for text, values in GOOD:
            with self.subTest(text):
                profile = LinkProfile.parse(text)
                self.assertEqual(profile, LinkProfile(**values))
                self.assertEqual(LinkProfile.parse(profile.words()), profile)
                self.assertEqual(profile.clean, not text)

    def test_bad(self):
        for text in BAD:
            with self.subTest(text), self.assertRaises(MalformedError) as caught:
                LinkProfile.parse(text)
            self.assertNotIn("\n", str(caught.exception))

    def test_words(self):
        self.assertEqual(LinkProfile.parse("").words(), "")
        self.assertEqual(LinkProfile.parse(ASSIGNMENT).words(),
                         "delay 1000ms 50ms loss 5% duplicate 2% 5% corrupt 5% reorder 8%")
        self.assertEqual(LinkProfile.parse("delay 50us 10us 5% rate 1mbit limit 7").words(),
                         "delay 50us 10us 5% rate 1000000bit limit 7")

    def test_a_limit_alone_is_clean(self):
        self.assertTrue(LinkProfile.parse("limit 5").clean)
        self.assertFalse(LinkProfile.parse("rate 1gbit").clean)

    def test_the_simulators_words_are_understood_alike(self):
        for text in (ASSIGNMENT, "delay 100us", "loss 1% 25%", "duplicate 0.5%", "reorder 3% 5%",
                     "delay 2s 1s 25% corrupt 1%"):
            with self.subTest(text):
                ours, theirs = LinkProfile.parse(text), NetworkProfile.parse(text)
                self.assertEqual(round(1000 * ours.delay_s), theirs.delay_ms)
                self.assertEqual(round(1000 * ours.jitter_s), theirs.jitter_ms)
                for name in ("loss", "duplicate", "reorder", "corrupt"):
                    self.assertAlmostEqual(100 * getattr(ours, name), getattr(theirs, name))


if __name__ == "__main__":
    unittest.main()
