"""A poison message, which kills whoever takes it, with real nodes and real consumers.

It must end in the dead letters, with what is known of each of its deliveries, and nobody else may
notice: no other message is delivered twice, and none waits for a poisoned lease to end.
"""

import os
import signal
import subprocess
import sys
import unittest

from raftnet.client import Client
from raftnet.wire.queueresults import Reason
from tests.workers.consumer import POISON
from tools.processes import ROOT, LocalCluster, die_with_parent, wait_until

QUEUE = "jobs"
LIMIT = 3               # deliveries
LEASE_S = 1.0
PAUSE_S = 0.005         # that a consumer spends on a message
CONSUMERS = 2
WAITING_MIN = 100       # messages: a consumer takes not even that many between two looks
WAIT_S = 30.0


class PoisonTest(unittest.TestCase):
    """One run, looked at from all sides."""

    def setUp(self):
        self.cluster = LocalCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = Client(self.cluster.addresses)
        self.addCleanup(self.client.close)
        self.processes: list[subprocess.Popen] = []
        self.addCleanup(self.stop)
        self.killed: list[int] = []         # process ids of those that the poison killed

    def start_consumer(self) -> subprocess.Popen:
        with open(os.path.join(self.cluster.directory, f"consumer-{len(self.processes)}.log"),
                  "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.workers.consumer", ",".join(self.cluster.addresses),
                 QUEUE, str(LEASE_S), str(PAUSE_S)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                preexec_fn=die_with_parent if sys.platform == "linux" else None)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def lines(self, number: int) -> list[list[str]]:
        """What the consumer with that number has said: [seconds, deliveries, message]."""
        with open(os.path.join(self.cluster.directory, f"consumer-{number}.log"),
                  encoding="utf-8") as log:
            return [line.split() for line in log.read().splitlines()]

    def test_it_is_buried_with_its_history_and_the_others_go_on(self):
        queue = self.client.queue(QUEUE)
        queue.configure(delivery_limit=LIMIT)
        sent = [f"before-{number}" for number in range(50)]
        queue.enqueue_batch([*sent, POISON])
        running = [self.start_consumer() for _ in range(CONSUMERS)]

        def buried() -> bool:
            """Looks after the consumers and keeps the queue filled, until the poison is buried."""
            for place, process in enumerate(running):
                if process.poll() is not None:
                    self.assertEqual(process.returncode, -signal.SIGKILL, self.lines(place))
                    self.killed.append(process.pid)
                    running[place] = self.start_consumer()
            if queue.size().messages < WAITING_MIN:
                texts = [f"job-{len(sent) + number}" for number in range(WAITING_MIN)]
                queue.enqueue_batch(texts)
                sent.extend(texts)
            return self.client.queue(f"{QUEUE}.dead").size().messages > 0

        wait_until(buried, WAIT_S, "the poison is a dead letter")
        wait_until(lambda: not queue.describe().held_bytes, WAIT_S, "all else is done")
        self.check_letter()
        self.check_others(sent)

    def check_letter(self) -> None:
        """Where it came from, who took it when, and how each delivery ended."""
        _, (letter,) = self.client.queue(f"{QUEUE}.dead").inspect()
        self.assertEqual((letter.message, letter.origin), (POISON.encode(), QUEUE.encode()))
        history = letter.history
        self.assertEqual([event.reason for event in history], [Reason.LEASE_EXPIRED] * LIMIT)
        self.assertEqual([event.deliveries for event in history], list(range(1, LIMIT + 1)))
        self.assertEqual([int(event.consumer.rpartition(b":")[2]) for event in history],
                         self.killed[:LIMIT])
        self.assertEqual([event.ended_ms - event.taken_ms for event in history],
                         [1000 * LEASE_S] * LIMIT)
        indexes = [event.index for event in history]
        self.assertEqual(indexes, sorted(set(indexes)))
        for earlier, later in zip(history, history[1:]):
            self.assertLessEqual(earlier.ended_ms, later.taken_ms)
        entries = {entry.index for entry in self.client.log()}
        self.assertLessEqual(set(indexes), entries)

    def check_others(self, sent: list[str]) -> None:
        """Each once; and while a lease of the poison ran, they were delivered all the time."""
        lines = [line for number in range(len(self.processes)) for line in self.lines(number)]
        others = [line for line in lines if line[2] != POISON]
        self.assertEqual(sorted(line[2] for line in others), sorted(sent))
        self.assertEqual({line[1] for line in others}, {"1"})
        taken = sorted(float(line[0]) for line in lines if line[2] == POISON)
        self.assertEqual(len(taken), LIMIT)
        times = sorted(float(line[0]) for line in others)
        for begin in taken:
            during = [at for at in times if begin <= at <= begin + LEASE_S]
            gaps = [later - earlier for earlier, later in zip([begin, *during],
                                                              [*during, begin + LEASE_S])]
            self.assertLess(max(gaps), 0.8 * LEASE_S)
            self.assertGreater(len(during), 2 * CONSUMERS)


if __name__ == "__main__":
    unittest.main()
