"""The judges must find what is wrong, and find nothing where nothing is."""

import time
import unittest

from tests.partitions.leaders import Election, elections, problems
from tests.partitions.load import Answer, Record


class TestLeaders(unittest.TestCase):
    """a was elected in term 2, b in term 3."""

    def setUp(self):
        self.won = [Election(0.0, "a", 2), Election(5.0, "b", 3)]

    def kinds(self, *answers: Answer) -> int:
        """How many problems are found."""
        return len(problems(self.won, list(answers)))

    def test_one_after_the_other(self):
        self.assertEqual(self.kinds(Answer("a", 4.0, 4.1), Answer("b", 5.1, 5.2)), 0)

    def test_asked_before_the_newer_leader_answered(self):
        self.assertEqual(self.kinds(Answer("b", 5.1, 5.2), Answer("a", 5.15, 5.3)), 0)

    def test_asked_after_the_newer_leader_answered(self):
        self.assertEqual(self.kinds(Answer("b", 5.1, 5.2), Answer("a", 5.25, 5.3)), 1)

    def test_elected_again(self):
        self.won.append(Election(6.0, "a", 4))
        self.assertEqual(self.kinds(Answer("b", 5.1, 5.2), Answer("a", 6.1, 6.2)), 0)

    def test_never_elected(self):
        self.assertEqual(self.kinds(Answer("c", 1.0, 1.1)), 1)

    def test_answered_before_it_was_elected(self):
        self.assertEqual(self.kinds(Answer("b", 4.0, 4.1)), 1)

    def test_two_in_a_term(self):
        self.won.append(Election(6.0, "c", 3))
        self.assertEqual(self.kinds(), 1)

    def test_elections_of_a_log(self):
        now = time.time() - 2.0
        clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"
        found = elections(f"[x:1] [{clock}] candidate term 6: vote for term 7 asked of 2 nodes\n"
                          f"[x:1] [{clock}] leader term 7: elected leader\n")
        self.assertEqual([(e.address, e.term) for e in found], [("x:1", 7)])
        self.assertAlmostEqual(time.monotonic() - found[0].won_s, 2.0, delta=0.5)


class TestRecord(unittest.TestCase):
    """What is said of a call that ended without an answer must be true."""

    def test_surely_not_executed(self):
        record = Record()
        one, other = (record.history.begin(1, number) for number in (1, 2))
        record.refused |= {one.text, other.text}
        self.assertEqual(record.untrue(), [])
        record.history.deliver("c", [(7, other.text)])
        self.assertEqual(len(record.untrue()), 1)


if __name__ == "__main__":
    unittest.main()
