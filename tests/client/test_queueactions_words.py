"""What mqclient's commands on queues tell people: the time as it is, where dead letters go, what a
redrive cannot find, which limit was passed and what to do. Against the real machine behind nodes
played in this process."""

import json
import unittest

from raftnet.client import Client
from raftnet.errors import NoAnswerError
from tests.client import fakenode, test_commandline


class WordsTest(unittest.TestCase):
    """Words in, lines and exit statuses out."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words

    # --- time

    def test_leases_and_inspect_tell_the_time_as_it_is(self):
        self.cluster._now_ms = lambda: 1_000
        self.run_words("enqueue", "--ttl", "100", "a", "b")
        self.run_words("dequeue", "--lease", "30")
        self.run_words("dequeue", "--lease", "5", "-n", "1")
        self.run_words("nack", "2:2")
        self.cluster._now_ms = lambda: 9_000        # and nothing was written meanwhile
        (lease,) = json.loads(self.run_words("--json", "leases")[1])
        self.assertEqual((lease["ends_in_ms"], lease["taken_ms_ago"]), (22_000, 8_000))
        self.cluster._now_ms = lambda: 17_000
        self.assertIn("ends in 14 s\ttaken 16 s ago", self.run_words("leases")[1])
        self.cluster._now_ms = lambda: 25_000
        (message,) = json.loads(self.run_words("--json", "inspect")[1])
        self.assertEqual((message["id"], message["expires_in_ms"],
                          message["history"][0]["ms_ago"]), (2, 76_000, 24_000))
        self.cluster._now_ms = lambda: 33_000
        self.assertEqual(self.run_words("leases")[0], 3, "it has ended")

    def test_leases_and_inspect_of_one_node_write_nothing(self):
        self.run_words("enqueue", "a", "b")
        self.run_words("dequeue", "--lease", "30")
        entries = len(self.cluster.entries)
        for word in ("leases", "inspect"):
            self.assertEqual(self.run_words(word, "--local", self.follower.address)[0], 0)
        self.assertEqual(len(self.cluster.entries), entries)

    def test_looking_without_an_answer_may_be_repeated(self):
        self.leader.script.append(fakenode.SILENT_AFTER)
        with Client([self.leader.address], timeout_s=0.2) as client:
            with self.assertRaisesRegex(NoAnswerError, "it only looks: ask again") as caught:
                client.queue().leases()
        self.assertEqual((caught.exception.known, caught.exception.resume), (True, None))


if __name__ == "__main__":
    unittest.main()
