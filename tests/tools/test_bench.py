"""tools/bench.py: what it refuses and what it counts; delayed_bench.py: behind a delay.

The figures themselves are this machine's; only what must hold on every machine is tested.
"""

import argparse
import contextlib
import io
import unittest
from unittest import mock

from raftnet.client import Client
from raftnet.client.session import ClientSession
from raftnet.wire import requests
from raftnet.wire.frames import FrameReader
from tools import bench
from tools.benchdelay import (
    CLIENTS, OUTSTANDING, choose_outstanding, parse_delays, send_buffer_rate, session_limit)
from tools.benchload import Load, measure
from tools.benchworks import WORKS
from tools.processes import LocalCluster


def arguments(**changed) -> argparse.Namespace:
    """Of a short run."""
    return argparse.Namespace(**{
        "work": "enq", "clients": 1, "outstanding": 500, "batch": 1, "payload": 100,
        "seconds": 0.1, "warmup": 0.0, "fill": 1, "send_buffer": 0} | changed)


class ArgumentsTest(unittest.TestCase):
    """What is refused before there is a cluster, root or not."""

    def refuse(self, *words: str) -> tuple[int, list[str]]:
        """The exit status, and what is said."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), mock.patch("sys.argv", ["bench.py", *words]):
            try:
                status = bench.main()
            except SystemExit as end:
                status = end.code
        return status, errors.getvalue().splitlines()

    def test_bad_arguments(self):
        for words, complaint in (
                (["--delay", "1ms", "-s", "127.0.0.1:1"], "--delay needs --local"),
                (["--delay", "1ms", "--reference"], "--delay needs --local"),
                (["--delay", "1ms", "--local", "3", "--work", "deq"], "--work enq only"),
                (["--delay", "1ms,soon", "--local", "3"], "--delay: delay TIME [JITTER"),
                (["--delay", "1ms,", "--local", "3"], "--delay: delay TIME [JITTER"),
                (["--delay", "0,1ms", "--local", "3"], "without a delay is measured anyway"),
                (["--delay", "1ms", "--local", "3", "--mtu", "100"], "--mtu is 1280 to 65535"),
                (["--delay", "1ms", "--local", "3", "--runs", "0"], "--runs must be 1 or more"),
                (["--local", "3", "--clients", "0"], "--clients must be 1 or more"),
                (["--local", "0"], "--local must be 1 or more"),
                (["--local", "1", "--work", "cas", "--batch", "2"], "--work cas has none"),
                (["--local", "3", "--warmup", "-1"], "--warmup not below it")):
            with self.subTest(words):
                status, lines = self.refuse(*words)
                self.assertEqual(status, 2)
                self.assertIn(complaint, lines[-1])

    def test_without_root_it_says_so_in_one_line(self):
        with mock.patch("tools.emulatednetwork.unavailable", return_value="it needs root"):
            self.assertEqual(self.refuse("--local", "3", "--delay", "1ms"),
                             (1, ["bench.py: no emulated network here: it needs root"]))

    def test_delays_are_written_as_for_tc(self):
        self.assertEqual(parse_delays("1ms,20ms,0.1s,500"), [0.001, 0.02, 0.1, 0.0005])


class OutstandingTest(unittest.TestCase):
    """How many requests fill the pipe."""

    plain = {"ops_per_s": 100_000, "p50_ms": 10.0, "send_buffer_bytes": 1 << 30}

    def choose(self, delay_s: float, plain: dict | None = None, **changed) -> tuple[int, int]:
        """(clients, outstanding), chosen where nothing else is said."""
        return choose_outstanding(arguments(**{"clients": None, "outstanding": None} | changed),
                                  plain or self.plain, delay_s)

    def test_more_than_the_ways_hold(self):
        for delay_s in (0.001, 0.02, 0.1, 1.0):
            with self.subTest(delay_s):
                clients, outstanding = self.choose(delay_s)
                self.assertGreaterEqual(clients * outstanding, 100_000 * 4 * delay_s)
                self.assertGreaterEqual(clients * outstanding, CLIENTS * OUTSTANDING)

    def test_a_small_send_buffer_is_not_flooded(self):
        plain = self.plain | {"send_buffer_bytes": 64 * 1024}
        rate = send_buffer_rate(arguments(), 64 * 1024, 0.1)
        self.assertLess(rate, 5_000)
        clients, outstanding = self.choose(0.1, plain)
        self.assertLess(clients * outstanding, 3 * rate * 0.4)
        self.assertGreater(clients * outstanding, rate * 0.4)

    def test_the_command_line_counts(self):
        self.assertEqual(self.choose(1.0, clients=3, outstanding=7), (3, 7))
        self.assertEqual(self.choose(1.0, outstanding=7)[1], 7)
        few, many = self.choose(1.0, clients=1), self.choose(1.0, clients=10)
        self.assertEqual((few[0], many[0]), (1, 10))
        self.assertAlmostEqual(few[1], 10 * many[1], delta=10)

    def test_a_session_sends_all_that_is_chosen_at_once(self):
        for changed in ({}, {"payload": 0}, {"payload": 100_000}, {"batch": 100}):
            with self.subTest(changed):
                of = arguments(clients=None, outstanding=None, **changed)
                count = choose_outstanding(of, self.plain, 1.0)[1]
                self.assertLessEqual(count, session_limit(of))
                load = Load([], arguments(**changed))
                self.addCleanup(load.close)
                session = ClientSession(bytes(15) + b"1")
                session.submit_many(load.commands(load.clients[0], count))
                frames = FrameReader().feed(session.output(0.0))
                heads = [requests.decode_request_head(body) for _, _, body in frames]
                self.assertEqual(sum(head[3] for head in heads), count)


class LatencyTest(unittest.TestCase):
    """When a reply's commands were submitted."""

    def latencies(self, submitted: list, replies: list, now: float) -> list[float]:
        """`submitted`: (first sequence, when), `replies`: (first sequence, count)."""
        load = Load([], arguments())
        self.addCleanup(load.close)
        client = load.clients[0]
        client.sent.extend(submitted)
        for first, count in replies:
            client._answered(requests.Reply(first, count, None, None), now)
        return [latency for latency, _ in load.latencies]

    def test_one_submission_in_several_frames(self):
        self.assertEqual(self.latencies([(1, 10.0)], [(1, 1000), (1001, 1000), (2001, 5)], 11.0),
                         [1.0] * 3)

    def test_a_frame_of_several_submissions_counts_from_its_first_command(self):
        self.assertEqual(self.latencies([(1, 10.0), (6, 12.0), (8, 13.0)], [(1, 5), (6, 10)], 14.0),
                         [4.0, 2.0])
        self.assertEqual(self.latencies([(1, 10.0), (6, 12.0)], [(1, 3), (4, 4), (8, 9)], 14.0),
                         [4.0, 4.0, 2.0])

    def test_far_more_than_a_session_has_on_its_way(self):
        with LocalCluster(1).start() as cluster:
            of = arguments(outstanding=150_000)
            result = measure(cluster.addresses, [cluster.nodes[0].pid], of)
        self.assertEqual(result["errors"], 0)
        self.assertGreater(result["ops_per_s"], 0)
        self.assertGreater(result["p50_ms"], 0)


class WorksTest(unittest.TestCase):
    """Each kind of load does what it says, without an error."""

    def test_all(self):
        with LocalCluster(1).start() as cluster:
            for work in WORKS:
                with self.subTest(work):
                    of = arguments(work=work, outstanding=20, clients=2, fill=10_000)
                    result = measure(cluster.addresses, [cluster.nodes[0].pid], of)
                    self.assertEqual((result["errors"], result["work"]), (0, work))
                    self.assertGreater(result["ops_per_s"], 0)
                    self.assertGreater(result["node_cpu_us_per_op"], 0)
            with Client(cluster.addresses) as client:
                counted = list(client.kv_list("bench-"))
                self.assertGreater(client.queue("bench-moved").size().messages, 0)
        self.assertGreater(len(counted), 10_000)    # also those of cas

    def test_batches_of_leases_and_of_transactions(self):
        with LocalCluster(1).start() as cluster:
            for work in ("lease-ack", "execute"):
                with self.subTest(work):
                    of = arguments(work=work, outstanding=20, batch=7, fill=20_000)
                    result = measure(cluster.addresses, [cluster.nodes[0].pid], of)
                    self.assertEqual(result["errors"], 0)
                    self.assertGreater(result["ops_per_s"], 0)


if __name__ == "__main__":
    unittest.main()
