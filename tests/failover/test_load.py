"""The judge must find a stale read, and find nothing where there is none."""

import time
import unittest

from tests.failover.load import Bounds, Known
from tests.failover.timeline import Timeline


class TestKnown(unittest.TestCase):
    """The writer had 10 enqueues and 4 dequeues acknowledged, and one more of each under way."""

    def setUp(self):
        self.known = Known()
        self.before = Bounds(enqueued=10, enqueues_begun=10, dequeued=4, dequeues_begun=4)
        self.after = Bounds(enqueued=12, enqueues_begun=13, dequeued=5, dequeues_begun=6)

    def problems(self, judge, *found) -> list[bool]:
        """For each of them: whether it is a problem."""
        wrong = []
        for value in found:
            self.known.problems.clear()
            judge(value)
            wrong.append(bool(self.known.problems))
        self.assertEqual(self.known.reads, len(found))
        return wrong

    def test_size(self):
        found = self.problems(lambda size: self.known.judge_size(
            self.before, self.after, size, "test"), 3, 4, 9, 10)
        self.assertEqual(found, [True, False, False, True])

    def test_head(self):
        found = self.problems(lambda number: self.known.judge_head(
            self.before, self.after, b"number-%08d" % number, "test"), 4, 5, 7, 8)
        self.assertEqual(found, [True, False, False, True])

    def test_no_head_where_there_must_be_one(self):
        self.known.judge_head(self.before, self.after, b"", "test")
        self.assertEqual(len(self.known.problems), 1)

    def test_no_head_where_all_may_have_been_taken(self):
        after = self.after._replace(dequeues_begun=10)
        self.known.judge_head(self.before, after, b"", "test")
        self.assertEqual(self.known.problems, [])

    def test_log(self):
        found = self.problems(lambda last: self.known.judge_log(self.before, last, "test"), 9, 10)
        self.assertEqual(found, [True, False])


class TestTimeline(unittest.TestCase):
    """Lines of two nodes around midnight, in local time."""

    def test_steps_count_from_the_kill(self):
        midnight = time.mktime((2024, 1, 10, 0, 0, 0, 0, 0, -1))
        log = "\n".join((
            "[a:2] [23:59:59.100] follower term 3: the connection to a:1 ended: old",
            "[a:2] [23:59:59.995] follower term 3: the connection to a:1 ended: closed",
            "[a:2] [00:00:00.005] follower term 3: the leader a:1 is gone: its connection",
            "[a:2] [00:00:00.010] candidate term 3: pre-vote for term 4 asked of 2 nodes",
            "[a:2] [00:00:00.020] leader term 4: elected leader"))
        timeline = Timeline(midnight - 0.010, "a:1", {"a:2": log}, 0.5)
        steps = {name: ms and round(ms) for name, ms in timeline.steps.items()}
        self.assertEqual(steps, {"end seen": 5, "refused": 15, "pre-vote": 20, "vote": None,
                                 "elected": 30, "answer": 500})
        self.assertEqual((timeline.pre_votes, timeline.votes), (1, 0))


if __name__ == "__main__":
    unittest.main()
