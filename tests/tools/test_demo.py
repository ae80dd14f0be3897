"""The assignment's demonstration, once."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock

from raftnet.errors import RaftnetError
from tools.demo import LEADERS_MAX, Demo
from tools.processes import ROOT


class Demonstration(unittest.TestCase):
    """demo.py as a process."""

    def run_demo(self, *words: str) -> subprocess.CompletedProcess:
        """It, to its end."""
        return subprocess.run([sys.executable, os.path.join(ROOT, "tools", "demo.py"), *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120, cwd="/")

    def test_every_step_holds(self):
        done = self.run_demo()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        for words in ("10. Ctrl-C to all servers", "all steps held", "NOT_LEADER",
                      "heartbeat received from leader", "all 6 have digest"):
            self.assertIn(words, done.stdout)

    def test_a_network_that_is_none(self):
        done = self.run_demo("--netem", "delay soon")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("delay TIME", done.stderr.splitlines()[-1])

    def test_a_directory_in_use_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(os.path.join(directory, "127.0.0.1-15999"))
            done = self.run_demo("--port", "15999", "--data", directory)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("FAILED: ", done.stdout)
        self.assertIn("is there already", done.stdout)


class LeadershipChangesTest(unittest.TestCase):
    """A command at the leader, on a network where it may lose its leadership in that moment."""

    RESUME = ("mqclient: it is unknown whether it was executed\nmqclient: give the same command "
              "again within 5 minutes with --resume 8fc9:1 (later it might be executed anew)\n")

    def given(self, *outcomes: tuple[int, str, str]):
        """(what came of it, the words that mqclient was given) when it ends like this."""
        leaders = iter(f"127.0.0.1:{port}" for port in range(5001, 5100))
        demo = Demo(mock.Mock(addresses=[]), False)
        runs = iter(outcomes)
        given = []

        def run(words):
            given.append(" ".join(words))
            status, stdout, stderr = next(runs)
            return types.SimpleNamespace(returncode=status, stdout=stdout, stderr=stderr)

        with (mock.patch.object(demo, "_run_mqclient", run), contextlib.redirect_stdout(
                io.StringIO()), mock.patch.object(demo, "_leader", lambda: types.SimpleNamespace(
                    address=next(leaders)))):
            try:
                return demo.mqclient_at_leader("dequeue"), given
            except RaftnetError as error:
                return str(error), given

    def test_an_unknown_outcome_is_asked_for_again(self):
        found, given = self.given((4, "", self.RESUME), (1, "", "NOT_LEADER: ask there"),
                                  (0, "1\n", ""))
        self.assertEqual(found, ["1"])
        self.assertEqual(given, ["--no-redirect -s 127.0.0.1:5001 dequeue",
                                 "--no-redirect -s 127.0.0.1:5002 dequeue --resume 8fc9:1",
                                 "--no-redirect -s 127.0.0.1:5003 dequeue --resume 8fc9:1"])

    def test_any_other_end_fails(self):
        found, given = self.given((3, "", ""))
        self.assertEqual((found, len(given)), ("step 0: mqclient ended with status 3", 1))
        found, given = self.given(*[(4, "", self.RESUME)] * LEADERS_MAX)
        self.assertEqual((found, len(given)), ("step 0: mqclient ended with status 4", LEADERS_MAX))


if __name__ == "__main__":
    unittest.main()
