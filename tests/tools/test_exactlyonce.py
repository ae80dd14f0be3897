"""tools/exactlyonce.py: a short run with a worker and a node killed, and what its judge says."""

import contextlib
import io
import sys
import unittest
from unittest import mock

from tools import exactlyonce
from tools.exactlyonce import ExactlyOnceRun, build_parser, check_arguments, judge


class RunTest(unittest.TestCase):
    """Real nodes, real workers."""

    def test_a_few_hundred_messages_while_a_worker_and_a_node_are_killed(self):
        parser = build_parser()
        arguments = parser.parse_args([
            "--messages", "300", "--batch", "10", "--workers", "2", "--kill-every", "0.2",
            "--kills-min", "2", "--lease", "1", "--seed", "1"])
        check_arguments(parser, arguments)
        figures = ExactlyOnceRun(arguments).run()
        self.assertEqual(figures["messages"], 300)
        self.assertGreaterEqual(figures["worker_kills"], 1)
        self.assertGreaterEqual(figures["node_kills"], 1)

    def test_arguments_that_make_no_sense(self):
        for words, complaint in ((["--workers", "0"], "--workers must be 1 or more"),
                                 (["--lease", "0"], "--lease must be above 0"),
                                 (["--pause", "-1"], "--pause not below")):
            with self.subTest(words):
                errors = io.StringIO()
                with (contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as end,
                      mock.patch.object(sys, "argv", ["exactlyonce.py", *words])):
                    exactlyonce.main()
                self.assertEqual(end.exception.code, 2)
                self.assertIn(complaint, errors.getvalue())


class JudgeTest(unittest.TestCase):
    """What would be wrong."""

    def test_all_is_well(self):
        self.assertEqual(judge(3, ["2", "1", "3"], b"6"), [])

    def test_each_fault_is_named(self):
        for moved, total, complaint in (
                (["1", "3"], b"6", "1 messages of b are missing: 2"),
                (["1", "2", "3", "2"], b"6", "1 messages of b are there more than once: 2"),
                (["1", "2", "3", "4"], b"6", "1 messages of b are never enqueued: 4"),
                (["1", "2", "3"], b"7", "sum is 7, not 6"),
                (["1", "2", "3"], None, "sum is absent, not 6")):
            with self.subTest(complaint):
                self.assertEqual(judge(3, moved, total), [complaint])

    def test_many_are_not_all_shown(self):
        self.assertEqual(judge(20, [], b"210"),
                         ["20 messages of b are missing: 1, 10, 11, 12, 13, ..."])


if __name__ == "__main__":
    unittest.main()
