"""ActionLog: lines by kind, counts of the rest, a stranger's text, a stuck or broken stream."""

import io
import threading
import unittest
from unittest import mock

from raftnet.actions import DEBUG, ERROR, INFO, WARNING, ActionLog


class TestActionLog(unittest.TestCase):
    """Into a text in memory; the clock is turned by hand."""

    def setUp(self):
        self.stream = io.StringIO()
        self.now = 100.0
        patch = mock.patch("raftnet.actions.time.monotonic", lambda: self.now)
        patch.start()
        self.addCleanup(patch.stop)

    def log(self, **settings) -> ActionLog:
        return ActionLog("127.0.0.1:5001", stream=self.stream, **settings)

    def lines(self, log: ActionLog) -> list[str]:
        """What stands behind the role, line by line, once all is written."""
        log.stop()
        return [line.split(": ", 1)[1] for line in self.stream.getvalue().splitlines()]

    def test_a_line(self):
        log = self.log()
        log.state = lambda: "leader term 3"
        log.say("vote", "%s of %d", "one", 2)
        log.stop()
        self.assertRegex(self.stream.getvalue(),
                         r"^\[127\.0\.0\.1:5001\] \[\d\d:\d\d:\d\d\.\d{3}\] leader term 3: "
                         r"one of 2\n$")

    def test_beyond_a_number_only_counted_each_kind_by_itself(self):
        log = self.log(lines_per_second=3)
        for number in range(10):
            log.say("append", "append %d", number)
        log.say("vote", "a vote")
        self.now += 1.1
        log.tick()
        log.say("append", "append again")
        self.assertEqual(self.lines(log), ["append 0", "append 1", "append 2", "a vote",
                                           "append: 7 more in the last second", "append again"])

    def test_everything(self):
        log = self.log(lines_per_second=1, everything=True)
        for number in range(10):
            log.say("append", "%d", number)
        self.assertEqual(len(self.lines(log)), 10)

    def test_warnings_are_counted_too_and_errors_are_not(self):
        log = self.log(lines_per_second=2)
        for _ in range(100):
            log.say("refusal", "garbage", level=WARNING)
        for _ in range(5):
            log.say("disk", "full", level=ERROR)
        lines = self.lines(log)
        self.assertEqual(lines.count("WARNING: garbage"), 2)
        self.assertEqual(lines.count("ERROR: full"), 5)

    def test_levels(self):
        log = self.log(level=INFO)
        log.say("x", "%d", "not even formatted", level=DEBUG)
        log.say("x", "seen")
        self.assertEqual(self.lines(log), ["seen"])

    def test_a_strangers_text_makes_no_lines_and_no_colours(self):
        log = self.log()
        log.say("refusal", "%s", "a\n[127.0.0.1:5001] forged\x1b[31m\r\u2028é")
        self.assertEqual(self.lines(log), ["a?[127.0.0.1:5001] forged?[31m??é"])

    def test_a_stuck_stream_costs_lines_and_no_time(self):
        go_on = threading.Event()

        class Stuck(io.StringIO):
            def write(self, text):
                go_on.wait()
                return super().write(text)
        self.stream = Stuck()
        log = self.log(everything=True)
        with mock.patch("raftnet.actions._STOP_WAIT_S", 0.05):
            for number in range(10_500):
                log.say("append", "%d", number)     # more than may wait
            self.assertFalse(log.stop())
        go_on.set()

    def test_a_stream_that_is_gone(self):
        class Gone(io.StringIO):
            def write(self, text):
                raise BrokenPipeError("gone")
        self.stream = Gone()
        log = self.log()
        log.say("x", "text")
        self.assertTrue(log.stop())


if __name__ == "__main__":
    unittest.main()
