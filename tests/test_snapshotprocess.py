"""The child process that makes a snapshot: what it says, how it fails, and how it ends."""

import functools
import os
import resource
import subprocess
import tempfile
import time
import unittest
from unittest import mock

from raftnet import snapshotprocess
from raftnet.config import Config
from raftnet.machine.machine import Machine
from raftnet.net.loop import Loop
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import encode_membership
from raftnet.raft.types import HardState
from raftnet.rebuild import SnapshotOrder
from raftnet.snapshotprocess import SnapshotProcess
from raftnet.storage.disk import Disk
from raftnet.storage.snapshot import SnapshotFile
from raftnet.storage.store import Job
from tests.storage.building import CLUSTER_ID, MEMBERSHIP, open_store

LIMIT_S = 30.0
# They stand in the place of the program that makes snapshots.
FAILING = """
import sys
sys.stderr.write("x" * 300_000 + chr(10) + "the last line" + chr(10) * 2)
sys.exit(7)
"""
WAITING = """
import sys
print("progress waits", flush=True)
sys.stdin.read()
"""


class SnapshotProcessTest(unittest.TestCase):
    """A directory with a log of one empty entry after the other, and a loop."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.disk = Disk(os.path.join(folder.name, "data"))
        store = open_store(self.disk)
        self.addCleanup(store.close)
        log = [encode_entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(MEMBERSHIP))]
        store.found(CLUSTER_ID, log[0])
        log += [encode_entry(index, 1, EntryKind.EMPTY, b"") for index in range(2, 50)]
        store.perform([Job(1, HardState(1), log[1:45])])
        store.perform([Job(2, None, log[45:])])         # it vouches for those before
        machine = Machine(Config().machine, Config().wire)
        for entry in log[:40]:
            machine.apply(entry)
        self.order = SnapshotOrder("snapshot.made-1", 40, 1, machine.digest, CLUSTER_ID)
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        self.ends, self.told, self.children = [], [], []
        self.process = SnapshotProcess(self.loop, Config(), self.disk.directory,
                                       self.told.append, lambda *end: self.ends.append(end))
        self.addCleanup(self.reap)
        self.addCleanup(self.process.close)

    def start(self, program: str = "", **options) -> subprocess.Popen:
        """The child, of another program where one is given."""
        root = snapshotprocess._ROOT
        if program:
            root = os.path.join(self.folder, "root")
            os.makedirs(os.path.join(root, "raftnet"), exist_ok=True)
            for name, text in (("__init__", ""), ("makesnapshot", program)):
                with open(os.path.join(root, "raftnet", f"{name}.py"), "w") as file:
                    file.write(text)
        with (mock.patch.object(snapshotprocess, "_ROOT", root),
              mock.patch("subprocess.Popen", functools.partial(subprocess.Popen, **options))):
            self.process.start(self.order)
        self.children.append(self.process._child)
        return self.process._child

    def reap(self) -> None:
        """None stays, also where a test failed."""
        for child in self.children:
            child.kill()
            child.wait(LIMIT_S)

    def wait_for(self, condition) -> None:
        """Let the loop run until `condition()`."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.loop.wait(0.1)

    def outcome(self) -> tuple[str, str]:
        """What came of it, in the end."""
        self.wait_for(lambda: self.ends)
        (order, word, text), = self.ends
        self.assertIs(order, self.order)
        return word, text

    def test_it_is_made_whatever_lies_in_the_current_directory(self):
        hostile = os.path.join(self.folder, "elsewhere")
        os.makedirs(os.path.join(hostile, "raftnet"))
        with open(os.path.join(hostile, "raftnet", "__init__.py"), "w") as file:
            file.write("raise SystemExit('another program')")
        self.start(cwd=hostile)
        self.assertEqual(self.outcome(), ("made", ""))
        made = SnapshotFile.open(self.disk, self.order.name)
        self.assertEqual((made.meta.index, made.meta.digest), (40, self.order.digest))
        made.close()

    def test_nothing_of_one_that_fails_stays(self):
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (50, 50))
        self.start(preexec_fn=limit)
        word, text = self.outcome()
        self.assertEqual(word, "failed")
        self.assertIn("snapshot.made-1: cannot write", text)
        self.assertFalse(self.disk.exists(self.order.name))

    def test_damage_is_told(self):
        with open(self.disk.path("log"), "r+b") as file:
            file.seek(200)
            file.write(b"\xff\xfe\xfd")
        self.start()
        word, text = self.outcome()
        self.assertEqual(word, "damaged")
        self.assertIn("log: damaged at byte", text)

    def test_why_it_ended_without_a_word(self):
        self.start(FAILING)
        self.assertEqual(self.outcome(), ("failed", "its process ended, 7: the last line"))

    def test_one_that_is_killed(self):
        self.start(WAITING).kill()
        self.assertEqual(self.outcome(), ("failed", "its process ended, -9"))

    def test_its_priority(self):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        self.process.hurry()            # there is none yet
        child = self.start(WAITING)
        self.wait_for(lambda: self.told)
        lower = min(own + 5, 19)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, child.pid), lower)
        self.process.hurry()
        self.process.hurry()
        self.assertIn(os.getpriority(os.PRIO_PROCESS, child.pid),
                      (own,) if os.geteuid() == 0 else (own, lower))

    def test_one_that_cannot_be_killed_does_not_hold_up_the_end(self):
        child = self.start(WAITING)
        self.wait_for(lambda: self.told)
        begin = time.monotonic()
        with mock.patch.object(child, "kill"), mock.patch.object(snapshotprocess, "_CLOSE_WAIT_S",
                                                                 0.05):
            self.process.close()
        self.assertLess(time.monotonic() - begin, 5.0)
        self.process.close()
        self.assertEqual(child.wait(LIMIT_S), 0)        # its stdin has ended
        self.assertEqual(self.ends, [])


if __name__ == "__main__":
    unittest.main()
