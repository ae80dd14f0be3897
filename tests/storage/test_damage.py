"""Damaged directories: every flip, hole, cut, exchange and loss is named or harmless.

A directory with a snapshot, a compacted log with annulled records, term and vote. After each damage
a start serves exactly the same, or raises DamagedError and changes nothing. The ambiguity of the
very last batch (protocol.md, Torn tail or damage) is gone after the next start: `floor`.
"""

import unittest

from raftnet.errors import CorruptFileError, DamagedError, StorageError
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, encode_membership
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.damage import (HEALING_NAME, Healing, decode_healing, encode_healing,
                                    readable_cluster_id, readable_membership)
from raftnet.storage.metafile import SLOT_BYTES, SLOT_OFFSETS
from raftnet.storage.store import Job, Store
from tests.storage.building import (CLUSTER_ID, MEMBERSHIP, NODE_ID, compact_job, content,
                                    copy_files, entries, entry, founded, install_job, job, nothing,
                                    open_store)

NAMES = ("identity", "log", "meta", "snapshot")
NEWER = MEMBERSHIP.with_member(Member(77, "127.0.0.1:7", False))
BLOCK = 64


def lived(node_id: int = NODE_ID, snapshot_index: int = 8) -> SimulatedDisk:
    """A directory that was closed, started and closed again."""
    disk = SimulatedDisk()
    store = Store.open(disk, lambda: node_id, nothing)
    store.found(CLUSTER_ID, entry(1))
    newer = encode_entry(10, 2, EntryKind.MEMBERSHIP, encode_membership(NEWER))
    store.perform([Job(1, HardState(2, 7), entries(2, 9) + [newer] + entries(11, 14, term=2))])
    store.perform([job(entries(12, 13, term=3), 3, 9)])
    store.perform([compact_job(disk, snapshot_index, 1, 6)])
    while not store.compaction_step():
        pass
    for index in range(14, 17):
        store.perform([job(entries(index, index, term=3))])
    store.close()
    open_store(disk).close()
    return disk


class DamageTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.disk = lived()
        store = open_store(copy_files(cls.disk))
        cls.expected = (content(store), store.hard_state, store.node_id, store.cluster_id)
        assert cls.disk.list() == list(NAMES)
        assert store.snapshot and store.log_base_index == 6 and store.last_index == 16

    def outcome(self, disk: SimulatedDisk, where) -> bool:
        """Whether the start was refused; where it was not, it must serve the same."""
        before = {name: disk.get(name) for name in disk.list()}
        try:
            store = open_store(disk)
        except DamagedError as error:
            self.assertNotIn("\n", str(error), where)
            self.assertIn("simulated/", str(error), where)
            self.assertEqual({name: disk.get(name) for name in disk.list()}, before, where)
            return True
        self.assertEqual((content(store), store.hard_state, store.node_id, store.cluster_id),
                         self.expected, where)
        return False

    def changed(self, name: str, data: bytes) -> SimulatedDisk:
        """The directory with one other file."""
        return copy_files(self.disk, **{name: data})

    def test_every_byte_flipped(self):
        for name in NAMES:
            data = self.disk.get(name)
            for offset in range(len(data)):
                in_slot = any(0 <= offset - at < SLOT_BYTES for at in SLOT_OFFSETS)
                if name == "meta" and not in_slot and offset % 500:
                    continue        # zeros, which nobody reads
                for change in (0xFF, 1 << offset % 8):
                    flipped = bytearray(data)
                    flipped[offset] ^= change
                    refused = self.outcome(self.changed(name, bytes(flipped)), (name, offset))
                    self.assertEqual(refused, name != "meta", (name, offset))

    def test_blocks_zeroed_or_written_twice(self):
        for name in NAMES:
            data = self.disk.get(name)
            for start in range(0, len(data), BLOCK):
                block = data[start:start + BLOCK]
                for other in (bytes(len(block)), data[:len(block)]):
                    changed = data[:start] + other + data[start + BLOCK:]
                    refused = self.outcome(self.changed(name, changed), (name, start))
                    self.assertTrue(refused or changed == data or name == "meta", (name, start))

    def test_cut_at_each_edge_of_a_block_and_emptied_and_longer(self):
        for name in NAMES:
            data = self.disk.get(name)
            for size in range(0, len(data), BLOCK if name == "meta" else 7):
                refused = self.outcome(self.changed(name, data[:size]), (name, size))
                self.assertTrue(refused or name == "meta" and size >= SLOT_BYTES, (name, size))
            longer = self.outcome(self.changed(name, data + b"\x00"), (name, "longer"))
            self.assertEqual(longer, name in ("identity", "snapshot"))

    def test_cut_at_each_edge_of_a_record(self):
        data = self.disk.get("log")
        store = open_store(copy_files(self.disk))
        edges = list(store._files.log._offsets)
        self.assertEqual(len(edges), 10)
        for edge in edges:
            disk = self.changed("log", data[:edge])
            with self.assertRaisesRegex(CorruptFileError, "entry 16 of term 3 was durable|is not "
                                                          "in it") as caught:
                open_store(disk)
            self.assertEqual(caught.exception.path, "simulated/log")

    def test_missing(self):
        for name in NAMES:
            disk = copy_files(self.disk)
            disk.remove(name)
            self.assertTrue(self.outcome(disk, name))

    def test_files_of_another_node(self):
        other = lived(node_id=99, snapshot_index=7)
        for mask in range(1, 2**len(NAMES) - 1):
            taken = [name for bit, name in enumerate(NAMES) if mask & 1 << bit]
            disk = copy_files(self.disk, **{name: other.get(name) for name in taken})
            same_node = len({name in taken for name in ("identity", "log", "meta")}) == 1
            with self.subTest(taken=taken):
                if not same_node:
                    self.assertTrue(self.outcome(disk, taken))
                    continue
                # A snapshot of the same cluster that the log fits: equal by the rules of Raft.
                store = open_store(disk)
                self.assertEqual(store.read_entries(7, 1 << 20), self.expected[0][2])

    def test_a_snapshot_that_the_log_does_not_fit(self):
        for index, term, pattern in ((5, 1, "an old copy"), (17, 3, "is not in it"),
                                     (9, 2, "is not in it"), (40, 9, "is not in it")):
            other = SimulatedDisk()
            store = founded(other)
            store.perform([job([], 9), *install_job(store, other, index, term)])
            disk = self.changed("snapshot", other.get("snapshot"))
            with self.assertRaisesRegex(DamagedError, pattern):
                open_store(disk)

    def test_old_copies_of_the_log(self):
        disk = copy_files(self.disk)
        old = disk.get("log")
        store = open_store(disk)
        store.perform([job(entries(17, 20, term=3))])
        store.close()
        open_store(disk).close()
        self.assertFalse(self.outcome(copy_files(self.disk), ""))
        with self.assertRaisesRegex(DamagedError, "log: damaged at byte .*entry 20 of term 3 was"):
            open_store(copy_files(disk, log=old))

    def test_the_log_of_before_a_compaction_or_an_install(self):
        disk = copy_files(self.disk)
        old = disk.get("log")
        store = open_store(disk)
        store.perform(install_job(store, disk, 30, 3))
        with self.assertRaisesRegex(DamagedError, "is not in it"):
            open_store(copy_files(disk, log=old))
        left = copy_files(disk, log=old)    # a `log.new` that is not of this snapshot
        left.put("log.new", old)
        with self.assertRaisesRegex(DamagedError, "is not in it"):
            open_store(left)

    def test_an_install_is_finished_by_a_whole_log_only(self):
        disk = copy_files(self.disk)
        old = disk.get("log")
        store = open_store(disk)
        store.perform([job([], 4), *install_job(store, disk, 30, 4)])
        new = disk.get("log")
        for offset in range(-1, len(new)):
            left = copy_files(disk, log=old)
            flipped = bytearray(new)
            if offset >= 0:
                flipped[offset] ^= 1 << offset % 8
            left.put("log.new", bytes(flipped))
            if offset == 0:
                flipped = bytearray(new + b"R")
            if offset >= 0:
                with self.assertRaises(DamagedError):
                    open_store(left)
                self.assertEqual(left.get("log"), old)
                continue
            self.assertEqual((open_store(left).last_index, left.get("log")), (30, new))

    def test_damage_in_the_last_batch_before_the_next_start_is_a_torn_tail(self):
        """The ambiguity that remains, as protocol.md says."""
        disk = copy_files(self.disk)
        store = open_store(disk)
        store.perform([job(entries(17, 18, term=3))])
        data = bytearray(disk.get("log"))
        data[-1] ^= 1
        self.assertEqual(open_store(copy_files(disk, log=bytes(data))).last_index, 17)

    def test_whom_to_ask_never_raises_and_never_lies(self):
        self.assertEqual(readable_membership(copy_files(self.disk)), NEWER)
        self.assertEqual(readable_cluster_id(copy_files(self.disk)), CLUSTER_ID)
        seen = set()
        for name in NAMES:
            data = self.disk.get(name)
            for offset in range(0, min(len(data), 5_000), 5):
                flipped = bytearray(data)
                flipped[offset] ^= 0x55
                disk = self.changed(name, bytes(flipped))
                found = readable_membership(disk)
                self.assertIn(found, (NEWER, MEMBERSHIP))
                seen.add((name, found == NEWER))
                self.assertEqual(disk.get(name), flipped)
        self.assertEqual(seen, {("identity", True), ("log", True), ("log", False), ("meta", True),
                                ("snapshot", True)})
        for name in NAMES:
            disk = copy_files(self.disk)
            disk.remove(name)
            self.assertIn(readable_membership(disk), (NEWER, MEMBERSHIP))
        self.assertIsNone(readable_membership(SimulatedDisk()))


class HealingTest(unittest.TestCase):

    HEALING = Healing(("127.0.0.1:5001", "é:2"), CLUSTER_ID, True, 3)

    def test_the_marker_whole_or_refused(self):
        data = encode_healing(self.HEALING)
        self.assertEqual(decode_healing(data, ""), self.HEALING)
        for offset in range(len(data)):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << offset % 8
            for damaged in (bytes(flipped), data[:offset]):
                disk = lived()
                disk.put(HEALING_NAME, damaged)
                with self.assertRaises(CorruptFileError):
                    open_store(disk)
                self.assertIsNone(readable_membership(disk))
        with self.assertRaises(CorruptFileError):
            decode_healing(data + b"x", "")

    def test_damaged_files_are_never_touched_again(self):
        disk = lived()
        files = {name: disk.get(name) for name in NAMES}
        disk.put("log.new", b"of an install")
        disk.put("snapshot.received", b"nothing yet")
        Store.set_aside(disk, ["127.0.0.1:5001"], CLUSTER_ID)
        store = Store.open(disk, lambda: 5, nothing)
        self.assertEqual((store.node_id, store.hard_state, store.cluster_id),
                         (5, HardState(), None))
        store.join(CLUSTER_ID)
        store.perform([job(entries(1, 9), 1), *install_job(store, disk, 50, 1)])
        store.close()
        Store.open(disk, self.fail, nothing).close()
        for name, data in files.items():
            self.assertEqual(disk.get(f"damaged-1.{name}"), data)
        self.assertEqual(disk.get("damaged-1.log.new"), b"of an install")
        self.assertNotIn("snapshot.received", disk.list())

    def test_a_start_finishes_what_was_begun(self):
        disk = lived()
        disk.put(HEALING_NAME, encode_healing(self.HEALING._replace(done=False)))
        disk.rename("log", "damaged-3.log")
        store = Store.open(disk, lambda: 5, nothing)
        self.assertEqual((store.node_id, store.healing), (5, self.HEALING))
        self.assertEqual([name for name in disk.list() if name.startswith("damaged")],
                         [f"damaged-3.{name}" for name in NAMES])

    def test_only_one_process_at_a_time(self):
        disk = lived()
        store = open_store(disk)
        with self.assertRaises(StorageError):
            Store.set_aside(disk, [], CLUSTER_ID)
        store.close()

    def test_no_founding_while_it_heals(self):
        disk = lived()
        Store.set_aside(disk, [], CLUSTER_ID)
        with self.assertRaises(AssertionError):
            Store.open(disk, lambda: 5, nothing).found(CLUSTER_ID, entry(1))

if __name__ == "__main__":
    unittest.main()
