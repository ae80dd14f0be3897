"""What one link does to packets, drawn by seed, without hosts and without root."""

import os
import socket
import statistics
import time
import unittest
from unittest import mock

from tools.linkprofile import LinkProfile
from tools.networkrouter import COUNTS, Link, Router

PACKET = bytes(range(100))
NOW = 1_000.0


class Times:
    """Stands for the router: what is to be delivered when."""

    def __init__(self):
        self.later_calls: list[tuple[float, bytes]] = []

    def later(self, send, link, packet):
        """As Router.later, and nothing is ever delivered."""
        self.later_calls.append((send - NOW, packet))


class LinkTest(unittest.TestCase):
    """A Link between the test and a socket, at a time that stands still."""

    def setUp(self):
        self.near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.near.close)
        self.far = far
        self.addCleanup(far.close)
        self.far.setblocking(False)
        self.times = Times()
        patch = mock.patch.object(time, "monotonic", lambda: NOW)
        patch.start()
        self.addCleanup(patch.stop)

    def link(self, words: str, seed: str = "1") -> Link:
        """A link with that profile."""
        link = Link((0, 1), self.near.fileno(), seed)
        link.change(LinkProfile.parse(words))
        return link

    def pass_packets(self, link: Link, count: int) -> list[bytes]:
        """What is delivered at once of so many packets."""
        delivered = []
        for _ in range(count):
            link.packets += 1
            link.shape(PACKET, self.times)
            while True:
                try:
                    delivered.append(self.far.recv(1_000))
                except BlockingIOError:
                    break
        self.assertEqual(link.packets + link.duplicated, link.delivered + link.lost + link.cut
                         + link.dropped + link.waiting)
        return delivered

    def assert_share(self, count: int, of: int, share: float):
        """Within five standard deviations."""
        spread = 5 * (of * share * (1 - share)) ** 0.5
        self.assertTrue(abs(count - of * share) <= spread, (count, of, share))

    def test_loss(self):
        link = self.link("loss 10%")
        delivered = self.pass_packets(link, 2_000)
        self.assert_share(link.lost, 2_000, 0.1)
        self.assertEqual(len(delivered), 2_000 - link.lost)

    def test_the_seed_decides(self):
        def fates(seed):
            link = self.link("loss 50%", seed)
            return [bool(self.pass_packets(link, 1)) for _ in range(64)]
        self.assertEqual(fates("7"), fates("7"))
        self.assertNotEqual(fates("7"), fates("8"))

    def test_correlation_makes_losses_come_together(self):
        def changes(words):
            link = self.link(words)
            fates = [bool(self.pass_packets(link, 1)) for _ in range(1_000)]
            return sum(one != other for one, other in zip(fates, fates[1:]))
        self.assertTrue(400 < changes("loss 50%") < 600)
        self.assertLess(changes("loss 50% 90%"), 250)

    def test_duplicates(self):
        link = self.link("duplicate 20%")
        delivered = self.pass_packets(link, 1_000)
        self.assert_share(link.duplicated, 1_000, 0.2)
        self.assertEqual(len(delivered), 1_000 + link.duplicated)

    def test_a_copy_may_be_lost_too(self):
        link = self.link("duplicate 100% loss 50%")
        self.pass_packets(link, 500)
        self.assert_share(link.lost, 1_000, 0.5)

    def test_corruption_flips_one_bit_anywhere(self):
        link = self.link("corrupt 100%")
        positions = set()
        for packet in self.pass_packets(link, 2_000):
            self.assertEqual(len(packet), len(PACKET))
            flipped = int.from_bytes(packet, "big") ^ int.from_bytes(PACKET, "big")
            self.assertEqual(flipped.bit_count(), 1)
            positions.add(flipped.bit_length())
        self.assertEqual(link.corrupted, 2_000)
        self.assertGreater(len(positions), 700)     # of 800 bits
        self.assertLess(min(positions), 10)
        self.assertGreater(max(positions), 790)

    def test_delay_and_jitter_are_even(self):
        link = self.link("delay 100ms 40ms limit 5000")
        self.assertEqual(self.pass_packets(link, 2_000), [])
        delays = [send for send, _ in self.times.later_calls]
        self.assertTrue(0.06 <= min(delays) < 0.062 and 0.138 < max(delays) <= 0.14)
        self.assertAlmostEqual(statistics.mean(delays), 0.1, delta=0.003)
        # Even: its deviation is jitter / sqrt(3).
        self.assertAlmostEqual(statistics.pstdev(delays), 0.04 / 3 ** 0.5, delta=0.001)

    def test_jitter_above_the_delay_is_at_once(self):
        link = self.link("delay 1ms 2ms")
        self.pass_packets(link, 200)
        self.assertGreater(link.waiting, 100)
        self.assertTrue(all(send < 0.0031 for send, _ in self.times.later_calls))

    def test_correlated_jitter_changes_slowly(self):
        link = self.link("delay 100ms 40ms 90%")
        self.pass_packets(link, 500)
        delays = [send for send, _ in self.times.later_calls]
        steps = [abs(one - other) for one, other in zip(delays, delays[1:])]
        self.assertLess(max(steps), 0.0081)

    def test_reorder_sends_a_share_at_once(self):
        link = self.link("delay 100ms reorder 25%")
        delivered = self.pass_packets(link, 1_000)
        self.assert_share(link.reordered, 1_000, 0.25)
        self.assertEqual(len(delivered), link.reordered)

    def test_gap(self):
        link = self.link("delay 100ms reorder 100% gap 5")
        fates = [bool(self.pass_packets(link, 1)) for _ in range(20)]
        self.assertEqual(fates, 4 * [False, False, False, False, True])

    def test_rate_is_kept_and_the_queue_bounded(self):
        link = self.link("rate 80kbit limit 10")        # 100 bytes: 10 ms
        self.pass_packets(link, 15)
        self.assertEqual((link.waiting, link.dropped), (10, 5))
        self.assertEqual([round(1000 * send) for send, _ in self.times.later_calls],
                         list(range(10, 101, 10)))

    def test_delay_runs_while_the_packet_before_is_sent(self):
        link = self.link("delay 15ms rate 80kbit")
        self.pass_packets(link, 4)
        self.assertEqual([round(1000 * send) for send, _ in self.times.later_calls],
                         [25, 35, 45, 55])

    def test_cut_and_healed(self):
        link = self.link("")
        self.assertTrue(link.plain)
        link.change(closed=True)
        self.assertFalse(link.plain)
        self.assertEqual(self.pass_packets(link, 3), [])
        self.assertEqual(link.cut, 3)
        link.change(LinkProfile.parse("loss 0%"))
        self.assertFalse(link.plain)
        link.change(closed=False)
        self.assertTrue(link.plain)
        self.assertEqual(len(self.pass_packets(link, 3)), 3)

    def test_the_heap_keeps_times_and_then_the_order(self):
        control, theirs = socket.socketpair()
        with control, theirs:
            router, link = Router(theirs), self.link("")
            for send, packet in ((NOW, b"2"), (NOW - 1, b"1"), (NOW, b"3"), (NOW + 1, b"5"),
                                 (NOW, b"4")):
                link.waiting += 1
                router.later(send, link, packet)
            router.deliver_due()
        self.assertEqual([self.far.recv(9) for _ in range(4)], [b"1", b"2", b"3", b"4"])
        self.assertEqual((link.delivered, link.waiting), (4, 1))

    def test_a_device_that_refuses_a_damaged_packet(self):
        link = self.link("loss 0%")
        with mock.patch.object(os, "write", side_effect=OSError(22, "Invalid argument")):
            link.deliver(PACKET)
        with mock.patch.object(os, "write", side_effect=OSError(9, "Bad file descriptor")), (
                self.assertRaises(OSError)):
            link.deliver(PACKET)

    def test_counts_start_at_zero(self):
        link = self.link("")
        self.assertEqual({getattr(link, name) for name in COUNTS}, {0})


if __name__ == "__main__":
    unittest.main()
