"""Timing: which heartbeat interval and election timeout follow from what was measured."""

import random
import unittest

from raftnet.config import RaftConfig
from raftnet.raft.timing import SAMPLES_MAX, SHRINK_AFTER_TIMEOUTS, SPACING_MS, Timing


class Clocked:
    """A Timing of node 1, and the time of its clock."""

    voters, needed = [2, 3], 1

    def __init__(self, **config):
        self.timing = Timing(RaftConfig(**config))
        self.now_ms = 0

    def samples(self, *rtts: int, peer: int = 2, every_ms: int = SPACING_MS) -> None:
        for rtt in rtts:
            self.now_ms += every_ms
            self.timing.sample(peer, rtt, self.now_ms)
            self.judge()

    def beats(self, count: int, lost, rtt_ms: int = 1, peer: int = 2) -> None:
        """Heartbeats, of which those with a true `lost(number)` are never answered."""
        for number in range(count):
            self.now_ms += 100
            self.timing.beat_sent(peer, self.now_ms)
            if not lost(number):
                self.timing.beat_answered(peer, self.now_ms, self.now_ms + rtt_ms)
                self.judge()

    def judge(self) -> None:
        self.timing.judge(self.now_ms, self.voters, self.needed)

    @property
    def times(self) -> tuple[int, int]:
        return self.timing.election_timeout_ms, self.timing.heartbeat_ms


class TimingTest(unittest.TestCase):
    def test_floor(self):
        clocked = Clocked()
        self.assertEqual(clocked.times, (500, 100))
        clocked.samples(*[1] * 40)
        self.assertEqual(clocked.times, (500, 100))
        self.assertEqual(clocked.timing.rtt_ms, 1)

    def test_steady_round_trips(self):
        """Four of them, in steps of 100 ms; five heartbeats in it, but one a second at least."""
        for rtt, timeout, heartbeat in ((125, 500, 100), (126, 600, 120), (500, 2000, 400),
                                        (2000, 8000, 1000), (60_000, 20_000, 1000)):
            with self.subTest(rtt=rtt):
                clocked = Clocked()
                clocked.samples(*[rtt] * 5)
                self.assertEqual(clocked.times, (timeout, heartbeat))

    def test_variation(self):
        """Twice the usual one and twice the one that a tenth exceeds; fewer outliers do not count,
        as a node that was suspended is no measure of the network."""
        clocked = Clocked()
        clocked.samples(*[100] * 29, *[4000] * 3)
        self.assertEqual(clocked.times, (500, 100))
        clocked.samples(4000)
        self.assertEqual(clocked.times, (2 * (100 + 4000), 1000))
        self.assertEqual(clocked.timing.links[2].usual_ms, 100)
        self.assertEqual(clocked.timing.links[2].slow_ms, 4000)

    def test_a_backlog_counts_once(self):
        """Thirty seconds of heartbeats, answered all at once by a node that was suspended."""
        clocked = Clocked()
        clocked.samples(*[1] * SAMPLES_MAX)
        sent = range(clocked.now_ms, clocked.now_ms + 30_000, 100)
        for at in sent:
            clocked.timing.beat_sent(2, at)
        for at in sent:
            clocked.timing.beat_answered(2, at, clocked.now_ms + 30_000)
            clocked.judge()
        self.assertEqual(clocked.times, (500, 100))

    def test_a_quorum_decides(self):
        """The slowest of those that the quorum needs at best: no slower voter, no learner."""
        clocked = Clocked()
        clocked.voters, clocked.needed = [2, 3, 4, 5], 2
        for peer, rtt in ((2, 200), (3, 600), (4, 1000), (5, 1), (9, 3)):
            clocked.samples(rtt, rtt, peer=peer)
        clocked.samples(*[1] * 300, peer=5)     # the one slow sample is forgotten meanwhile
        self.assertAlmostEqual(clocked.times[0], 800, delta=100)
        self.assertEqual(clocked.timing.rtt_ms, 200)
        self.assertEqual(clocked.timing.bottleneck, 2)
        clocked.voters = [3, 4]             # the others are dead
        clocked.judge()
        self.assertEqual((*clocked.times, clocked.timing.rtt_ms), (4000, 800, 1000))
        clocked.timing.keep({2, 3, 9})
        self.assertEqual(set(clocked.timing.links), {2, 3, 9})

    def test_one_voter_needs_nobody(self):
        clocked = Clocked()
        clocked.voters, clocked.needed = [], 0
        clocked.samples(3000)               # to a learner
        self.assertEqual(clocked.times, (500, 100))
        clocked.timing.follow(4000, 1000)   # the others were removed since
        clocked.timing.lead()
        clocked.samples(*[3000] * 300, every_ms=100)
        self.assertLessEqual(clocked.times[0], 600)

    def test_greetings_count_for_a_second_at_most(self):
        """One sample, and its packet may have been lost: the true round trip is soon known."""
        clocked = Clocked()
        clocked.timing.greeted(2, 7000, 0)
        clocked.judge()
        self.assertEqual(clocked.times, (4000, 800))

    def test_loss(self):
        """Five heartbeats are enough up to a quarter lost; the timeout holds more of them then."""
        for share, timeout in ((0.0, 500), (0.2, 500), (0.35, 700), (0.45, 900), (0.6, 1000)):
            with self.subTest(share=share):
                chance = random.Random(1)
                clocked = Clocked()
                timeouts = []
                for _ in range(50):
                    clocked.beats(20, lambda _: chance.random() < share)
                    clocked.now_ms += 1
                    timeouts.append(clocked.times[0])
                    self.assertLess(clocked.times[1], 150)
                self.assertAlmostEqual(sorted(timeouts)[25], timeout, delta=250)
                self.assertAlmostEqual(clocked.timing.links[2].loss_permille, 1000 * share,
                                       delta=250)

    def test_what_a_dead_or_new_connection_held_is_not_lost(self):
        clocked = Clocked()
        clocked.beats(20, lambda number: False)
        clocked.beats(50, lambda number: True)      # it died
        self.assertEqual(clocked.timing.links[2].loss_permille, 0)
        clocked.timing.connected(2)                 # and came back
        clocked.beats(20, lambda number: False)
        self.assertEqual(clocked.timing.links[2].loss_permille, 0)

    def test_grows_at_once_and_shrinks_late(self):
        """Hysteresis: down only when the need was small for a while, to the largest need since."""
        clocked = Clocked()
        clocked.samples(*[1000] * SAMPLES_MAX)
        clocked.samples(*[200] * SAMPLES_MAX, every_ms=100)
        began = clocked.now_ms
        self.assertEqual(clocked.times[0], 4000)
        while clocked.times[0] == 4000:
            clocked.samples(200 + clocked.now_ms % 3, every_ms=100)
        self.assertAlmostEqual(clocked.now_ms - began, SHRINK_AFTER_TIMEOUTS * 4000, delta=3200)
        self.assertLess(clocked.times[0], 4000 * 3 // 4)
        self.assertGreaterEqual(clocked.times[0], 900)
        # a need that is a little smaller moves nothing, however long
        before = clocked.times
        clocked.samples(*[clocked.times[0] * 4 // 5 // 4] * 500, every_ms=100)
        self.assertEqual(clocked.times, before)

    def test_shrinks_all_the_way(self):
        """However slow it was: what was needed before a step down counts no more after it."""
        for rtt in (300, 500, 1000, 3000):
            with self.subTest(rtt=rtt):
                clocked = Clocked()
                clocked.samples(*[rtt] * 60, every_ms=1000)
                clocked.samples(*[1] * 1200, every_ms=100)
                self.assertLess(clocked.times[0], 500 * 4 / 3)

    def test_held_up_answers_that_come_one_by_one(self):
        """A path that was cut for a while: TCP brings what waited bit by bit."""
        clocked = Clocked()
        clocked.beats(SAMPLES_MAX, lambda number: False)
        sent = range(clocked.now_ms + 100, clocked.now_ms + 5_000, 100)
        for at in sent:
            clocked.timing.beat_sent(2, at)
        for number, at in enumerate(sent):
            clocked.timing.beat_answered(2, at, sent[-1] + 1000 + number * 2 * SPACING_MS)
            clocked.judge()
        self.assertEqual(clocked.times, (500, 100))

    def test_one_late_vote(self):
        """It may have waited for a disk; elections that go on tell better."""
        clocked = Clocked()
        clocked.timing.voted(2, 6000, 0)
        clocked.judge()
        self.assertEqual(clocked.times[0], 4000)
        for at in (10_000, 20_000, 30_000):
            clocked.timing.voted(2, 6000, at)
            clocked.judge()
        self.assertEqual(clocked.times[0], 20_000)

    def test_a_short_relief_does_not_shrink(self):
        clocked = Clocked()
        clocked.samples(*[1000] * SAMPLES_MAX)
        for _ in range(5):
            clocked.samples(*[10] * 60, every_ms=100)
            clocked.samples(*[1000] * SAMPLES_MAX, every_ms=100)
        self.assertEqual(clocked.times[0], 4000)

    def test_follower_takes_over_what_the_leader_announces(self):
        leader, follower = Clocked(), Clocked()
        leader.samples(*[1000] * 3)
        follower.samples(3000)                              # its greeting took a bad moment
        self.assertEqual(leader.timing.announcement(2), (4000, 1000))
        follower.timing.follow(*leader.timing.announcement(2))
        self.assertEqual((follower.times[0], follower.timing.rtt_ms), (4000, 1000))
        self.assertEqual(follower.timing.announced_ms, 4000)
        # as a leader it begins where the old one was
        follower.timing.lead()
        follower.samples(10)
        self.assertEqual((follower.times[0], follower.timing.announced_ms), (4000, 0))

    def test_follower_behind_a_slower_link_is_told_its_own(self):
        leader = Clocked()
        leader.samples(10, peer=2)
        leader.samples(1000, peer=7)                        # a learner
        self.assertEqual(leader.timing.announcement(2), (500, 10))
        self.assertEqual(leader.timing.announcement(7), (4000, 1000))
        self.assertEqual(leader.timing.announcement(3), (500, 10))      # not measured yet

    def test_announcements_stay_within_bounds(self):
        follower = Clocked()
        follower.timing.follow(1, 0)
        self.assertEqual(follower.times, (500, 100))
        follower.timing.follow(2 ** 32 - 1, 2 ** 32 - 1)
        self.assertEqual((*follower.times, follower.timing.rtt_ms), (60_000, 1000, 60_000))

    def test_bounds_of_the_configuration(self):
        clocked = Clocked(heartbeat_ms=10, heartbeat_ms_max=50, election_timeout_ms=60,
                          election_timeout_ms_max=400)
        clocked.samples(20)
        self.assertEqual(clocked.times, (100, 20))
        clocked.samples(*[5000] * SAMPLES_MAX)
        self.assertEqual(clocked.times, (400, 50))

    def test_invariant(self):
        """Whatever is measured: five heartbeats fit into a timeout, within the bounds."""
        chance = random.Random(5)
        clocked = Clocked()
        before = 0
        for _ in range(5000):
            clocked.samples(chance.choice((1, 30, 900, 7000)), peer=chance.randint(2, 4),
                            every_ms=chance.choice((1, 60, 5000)))
            clocked.beats(1, lambda _: chance.random() < 0.5, chance.randint(0, 400))
            timeout, heartbeat = clocked.times
            self.assertTrue(500 <= timeout <= 20_000 and 100 <= heartbeat <= 1000)
            self.assertLessEqual(5 * heartbeat, timeout)
            self.assertGreaterEqual(timeout, 3 * before, "who was just heard seems silent")
            before = heartbeat


if __name__ == "__main__":
    unittest.main()
