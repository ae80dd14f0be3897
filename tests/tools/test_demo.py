"""The assignment's demonstration, once."""

import os
import subprocess
import sys
import tempfile
import unittest

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


if __name__ == "__main__":
    unittest.main()
