"""Snapshots made from the files of a node that works on meanwhile."""

import unittest
from unittest import mock

from raftnet import rebuild
from raftnet.config import Config
from raftnet.errors import CorruptFileError, StorageError
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import encode_membership
from raftnet.raft.types import HardState
from raftnet.rebuild import SnapshotOrder, make_snapshot
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.store import Compaction, Job
from tests.storage.building import (CLUSTER_ID, MEMBERSHIP, compact_job, install_job,
                                    open_store)

NAME = "snapshot.made-1"


class BesideANode(unittest.TestCase):
    """Entries 1 to 30, of which 1 to 20 are to be in the snapshot."""

    def setUp(self):
        self.disk = SimulatedDisk()
        self.store = open_store(self.disk)
        self.store.found(CLUSTER_ID, encode_entry(1, 1, EntryKind.MEMBERSHIP,
                                                  encode_membership(MEMBERSHIP)))
        for first in range(2, 31):          # the later ones vouch for the earlier ones
            entry = encode_entry(first, 1, EntryKind.EMPTY, b"")
            self.store.perform([Job(1, HardState(1), [entry])])
        config = Config()
        machine = Machine(config.machine, config.wire)
        for entry in self.store.read_entries(1, 1 << 20)[:20]:
            machine.apply(entry)
            if entry.index == 5:
                self.order_5 = SnapshotOrder(NAME, 5, 1, machine.digest, CLUSTER_ID)
        self.order = SnapshotOrder(NAME, 20, 1, machine.digest, CLUSTER_ID)

    def make(self, **changed):
        """As the child process does it."""
        fields = {name: getattr(self.order, name) for name in SnapshotOrder.__slots__}
        return make_snapshot(self.disk, Config(), SnapshotOrder(**fields | changed))

    def spoil(self, index: int) -> None:
        """A byte of that entry's record, wherever the log is open."""
        self.disk.spoil("log", self.store._files.log._offsets[index - 1] + 20)

    def test_only_what_is_wanted_is_read(self):
        self.spoil(21)
        meta = self.make()
        self.assertEqual((meta.index, meta.term, meta.digest), (20, 1, self.order.digest))

    def test_damage_and_another_state_are_the_nodes_end(self):
        for wrong in ({"digest": self.order.digest ^ 1}, {"term": 2}):
            with self.assertRaisesRegex(CorruptFileError, "gives another state at entry 20"):
                self.make(**wrong)
        self.spoil(7)
        with self.assertRaisesRegex(CorruptFileError, "log: damaged at byte"):
            self.make()

    def test_a_file_that_was_replaced_meanwhile_is_no_damage(self):
        def install() -> None:
            self.store.perform(install_job(self.store, self.disk, 50, 1))

        def compact() -> None:
            self.spoil(7)           # undone, so that the log can be copied
            self.store.perform([compact_job(self.disk, 10, 1, 5, number=7)])
            while not self.store.compaction_step():
                pass

        def snapshot_appears() -> None:
            self.store.perform([compact_job(self.disk, 10, 1, 0, number=7)])

        def forget() -> None:
            self.disk.remove("log")

        real = rebuild.rebuild
        for meanwhile in (install, compact, snapshot_appears, forget):
            with self.subTest(meanwhile=meanwhile.__name__):
                self.setUp()
                if meanwhile is not snapshot_appears:
                    meta = make_snapshot(self.disk, Config(), self.order_5)
                    self.store.perform([Job(1, None, [], compact=Compaction(NAME, meta, 0))])
                self.spoil(7)

                def replaced(*words, **named):
                    try:
                        return real(*words, **named)
                    finally:
                        meanwhile()
                with mock.patch.object(rebuild, "rebuild", replaced):
                    with self.assertRaisesRegex(StorageError, "another file took its place") as no:
                        self.make()
                self.assertNotIsInstance(no.exception, CorruptFileError)
                self.assertNotIn(NAME, self.disk.list())

    def test_no_file_stays_open_and_none_is_made(self):
        before = len(self.disk._handles)
        self.make()
        self.spoil(7)
        with self.assertRaises(CorruptFileError):
            self.make()
        self.assertEqual(len(self.disk._handles), before)
        self.disk.remove("log")
        with self.assertRaisesRegex(StorageError, "log: missing"):
            self.make()
        self.assertNotIn("log", self.disk.list())


if __name__ == "__main__":
    unittest.main()
