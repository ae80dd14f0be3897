"""Term and vote never go back, whatever is torn or flipped; the identity is whole or refused."""

import unittest
from zlib import crc32

from raftnet.errors import CorruptFileError, StorageError
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.metafile import (IDENTITY_NAME, META_BYTES, META_NAME, SLOT_BYTES,
                                      SLOT_OFFSETS, Identity, MetaFile, MetaState, encode_slot,
                                      read_identity, write_identity)
from tests.storage.building import CLUSTER_ID, NODE_ID, disk_with, randint_of


def _meta_bytes() -> bytes:
    disk = SimulatedDisk()
    meta = MetaFile.create(disk, NODE_ID)
    meta.begin_boot(HardState())
    meta.set_hard_state(HardState(6, 3))
    meta.set_hard_state(HardState(7, 5))
    return disk.get(META_NAME)


def _slots(first: MetaState | None, second: MetaState | None) -> bytes:
    data = bytearray(META_BYTES)
    for offset, state in zip(SLOT_OFFSETS, (first, second)):
        if state is not None:
            data[offset:offset + SLOT_BYTES] = encode_slot(state)
    return bytes(data)


class MetaFileTest(unittest.TestCase):

    def test_reads_back_what_was_written(self):
        data = _meta_bytes()
        self.assertEqual(len(data), META_BYTES)
        meta = MetaFile.open(disk_with(META_NAME, data))
        self.assertEqual(meta.hard_state, HardState(7, 5))
        self.assertEqual((meta.state.node_id, meta.state.boot), (NODE_ID, 1))

    def test_one_flipped_bit_anywhere_forgets_no_vote(self):
        data = _meta_bytes()
        for offset in (*range(SLOT_BYTES + 4), *range(4090, 4096 + SLOT_BYTES + 4)):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << offset % 8
            disk = disk_with(META_NAME, bytes(flipped))
            meta = MetaFile.open(disk)
            self.assertEqual(meta.hard_state, HardState(7, 5), offset)
            meta.begin_boot(meta.hard_state)
            slots = [disk.get(META_NAME)[o:o + SLOT_BYTES] for o in SLOT_OFFSETS]
            self.assertEqual(slots[0], slots[1])

    def test_which_slot_is_believed(self):
        old, new, newer = (MetaState(n, n, n, NODE_ID, 1) for n in (4, 5, 6))
        for first, second, expected in (
                (new, new, new), (new, old, new), (new, None, new), (None, new, new),
                (old, new, None), (newer, old, None), (None, None, None),
                (new, new._replace(voted_for=99), None)):
            with self.subTest(first=first, second=second):
                disk = disk_with(META_NAME, _slots(first, second))
                if expected is not None:
                    self.assertEqual(MetaFile.open(disk).state, expected)
                    continue
                with self.assertRaises(CorruptFileError) as caught:
                    MetaFile.open(disk)
                self.assertEqual(caught.exception.path, "simulated/meta")
                self.assertIn(caught.exception.offset, SLOT_OFFSETS)

    def test_cut_at_every_byte(self):
        data = _meta_bytes()
        for size in (*range(SLOT_BYTES + 2), *range(4094, 4096 + SLOT_BYTES + 2)):
            disk = disk_with(META_NAME, data[:size])
            if size < SLOT_BYTES:
                with self.assertRaises(CorruptFileError):
                    MetaFile.open(disk)
            else:
                self.assertEqual(MetaFile.open(disk).hard_state, HardState(7, 5))

    def test_another_format_is_named(self):
        data = bytearray(_meta_bytes())
        slot = bytearray(data[:SLOT_BYTES - 4])
        slot[7] = 9
        for offset in SLOT_OFFSETS:
            data[offset:offset + SLOT_BYTES] = _with_crc(bytes(slot))
        with self.assertRaisesRegex(StorageError, "has format 9, this program reads 2"):
            MetaFile.open(disk_with(META_NAME, bytes(data)))

    def test_a_crash_in_a_change_leaves_the_old_or_the_new_state(self):
        for seed in range(400):
            randint = randint_of(seed)
            disk = disk_with(META_NAME, _meta_bytes())
            meta = MetaFile.open(disk)
            disk.fail_at(randint(1, 4), applied=bool(randint(0, 1)))
            with self.assertRaises(StorageError):
                meta.set_hard_state(HardState(8, 9))
            disk = disk.crash(randint)
            meta = MetaFile.open(disk)
            self.assertIn(meta.hard_state, (HardState(7, 5), HardState(8, 9)))
            self._crash_in_boot(disk, meta, randint)

    def _crash_in_boot(self, disk, meta, randint):
        """A second crash while the slots are repaired keeps what the first left."""
        hard_state = meta.hard_state
        disk.fail_at(randint(1, 6), applied=bool(randint(0, 1)))
        try:
            meta.begin_boot(hard_state)
        except StorageError:
            disk = disk.crash(randint)
        disk.fail_at(0)
        self.assertEqual(MetaFile.open(disk).hard_state, hard_state)

    def test_a_promise_survives_every_crash(self):
        for seed in range(100):
            disk = disk_with(META_NAME, _meta_bytes())
            MetaFile.open(disk).set_hard_state(HardState(8, 9))
            left = disk.crash(randint_of(seed))
            self.assertEqual(MetaFile.open(left).hard_state, HardState(8, 9))

    def test_boot_rewrites_what_a_failed_sync_left_in_the_cache_only(self):
        for k in (2, 4):                    # the syncs of slot 0 and 1
            disk = disk_with(META_NAME, _meta_bytes())
            meta = MetaFile.open(disk)
            disk.fail_at(k)
            with self.assertRaises(StorageError):
                meta.set_hard_state(HardState(8, 9))
            meta = MetaFile.open(disk)
            meta.begin_boot(meta.hard_state)
            left = MetaFile.open(disk.crash(randint_of(1)))
            self.assertEqual(left.hard_state, HardState(8, 9))
            self.assertEqual(left.state.boot, 2)


class IdentityTest(unittest.TestCase):

    def setUp(self):
        self.disk = SimulatedDisk()
        write_identity(self.disk, Identity(CLUSTER_ID, NODE_ID))
        self.data = self.disk.get(IDENTITY_NAME)

    def test_reads_back_what_was_written(self):
        self.assertEqual(read_identity(self.disk), Identity(CLUSTER_ID, NODE_ID))
        self.assertEqual(self.disk.list(), [IDENTITY_NAME])
        self.assertIsNone(read_identity(SimulatedDisk()))

    def test_flipped_cut_or_longer_is_refused(self):
        for offset in range(len(self.data)):
            flipped = bytearray(self.data)
            flipped[offset] ^= 1 << offset % 8
            for damaged in (bytes(flipped), self.data[:offset]):
                with self.assertRaises(CorruptFileError):
                    read_identity(disk_with(IDENTITY_NAME, damaged))
        with self.assertRaises(CorruptFileError):
            read_identity(disk_with(IDENTITY_NAME, self.data + b"x"))

    def test_a_crash_leaves_all_of_it_or_none(self):
        for seed in range(300):
            randint = randint_of(seed)
            disk = SimulatedDisk()
            disk.fail_at(randint(1, 6), applied=bool(randint(0, 1)))
            with self.assertRaises(StorageError):
                write_identity(disk, Identity(CLUSTER_ID, NODE_ID))
            left = read_identity(disk.crash(randint))
            self.assertIn(left, (None, Identity(CLUSTER_ID, NODE_ID)))


def _with_crc(data: bytes) -> bytes:
    return data + crc32(data).to_bytes(4, "big")


if __name__ == "__main__":
    unittest.main()
