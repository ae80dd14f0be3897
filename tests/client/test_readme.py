"""README.md, as a newcomer types it in: its first use in order on a fresh cluster, with what it
shows; and its Python blocks.

A block is cut out of README.md here: a line `$ COMMAND` (with its here-document, where it has one)
and behind it what comes, in which `...` stands for anything. Which addresses the nodes have is the
only thing that is changed.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest

from raftnet.client import Client
from tools.processes import ROOT, LocalCluster

LIMIT_S = 30
ADDRESSES = ("127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003")


def section(title: str) -> str:
    """What stands under that title."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", text, re.M | re.S)
    return found[1]


def blocks(text: str, language: str = "") -> list[str]:
    """Those of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def steps(block: str) -> list[tuple[str, str]]:
    """(command, what comes) of each step."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        if "<<END" in command:
            document, end, shown = shown.partition("END\n")
            command += "\n" + document + end
        found.append((command, shown))
    return found


def comes(text: str, shown: str) -> bool:
    """Whether that is what was shown."""
    return re.fullmatch(".+".join(map(re.escape, shown.split("..."))), text, re.S) is not None


class Readme(unittest.TestCase):
    """A cluster for each test."""

    def setUp(self):
        self.cluster = LocalCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.folder = tempfile.mkdtemp(dir=self.cluster.directory)
        os.symlink(os.path.join(ROOT, "mqclient.py"), os.path.join(self.folder, "mqclient.py"))
        # `python3` is whoever runs this test
        os.symlink(sys.executable, os.path.join(self.folder, "python3"))

    def here(self, text: str) -> str:
        """With the addresses of this cluster."""
        for theirs, ours in zip(ADDRESSES, self.cluster.addresses):
            text = text.replace(theirs, ours)
        return text

    def type_in(self, command: str) -> str:
        """What comes on the terminal."""
        done = subprocess.run(
            ["sh", "-c", self.here(command)], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False,
            env=os.environ | {"RAFTNET_SERVERS": ",".join(self.cluster.addresses),
                              "PATH": self.folder + os.pathsep + os.environ["PATH"]})
        text = done.stdout.decode()
        self.assertEqual(done.returncode, 0, f"{command}\n{text}")
        return text

    def test_first_use_in_order(self):
        found = [step for block in blocks(section("First use")) for step in steps(block)]
        self.assertGreater(len(found), 20)
        for command, shown in found:
            came = self.type_in(command)
            self.assertTrue(comes(came, shown), f"{command}\n{came}\nREADME.md shows:\n{shown}")

    def run_python(self, block: str, **names: object) -> str:
        """What the block prints."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(self.here(block), "README.md", "exec"), names)
        return out.getvalue()

    def test_python(self):
        once, plain = blocks(section("Exactly once, while everything is killed"), "python")
        self.assertEqual(self.run_python(plain), "hello\n")
        with Client(self.cluster.addresses) as client:
            self.assertEqual(client.queue("b").dequeue().text, "x")
            self.assertEqual(client.queue("jobs").size().messages, 0)
            self.assertEqual(client.queue("jobs").describe().leased, 0)
            numbers = list(map(str, range(25)))
            for total in (300, 600):        # the key is absent, then there
                client.queue("a").enqueue_batch(numbers)
                self.run_python(once, client=client)
                self.assertEqual(int(client.kv_get("sum").value), total)
                moved = [message.text for message in client.queue("b").dequeue_many(50)]
                self.assertEqual(moved, numbers)


class Parts(unittest.TestCase):
    """What is cut out, and what counts as the same."""

    def test_steps(self):
        self.assertEqual(steps("$ a <<END  # x\n{}\nEND\nout\n$ b\n1\n2\n"),
                         [("a <<END  # x\n{}\nEND\n", "out\n"), ("b", "1\n2\n")])

    def test_pattern(self):
        for shown, came, same in (("1.0 ...\n", "1.0 x\ny\n", True), ("1.0\n", "1.0 x\n", False),
                                  ("1.0 ...\n", "1x0 x\n", False), ("a\tb\n", "a\tb\n", True)):
            self.assertEqual(comes(came, shown), same, shown)


if __name__ == "__main__":
    unittest.main()
