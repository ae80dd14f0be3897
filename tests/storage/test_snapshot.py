"""The snapshot file: written, read, and never believed where a bit is wrong."""

import unittest

from raftnet.errors import CorruptFileError, DamagedError, DiskFullError, StorageError
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import snapshot as snapshots
from raftnet.storage.snapshot import (BLOCK_HEAD, END_BYTES, HEAD_BYTES, SNAPSHOT_NAME,
                                      SnapshotFile, encode_block, read_header, write_snapshot)
from tests.storage.building import (CLUSTER_ID, MEMBERSHIP, PIECES, disk_with, make_snapshot,
                                    randint_of)


def _bytes(pieces=None, index: int = 7) -> bytes:
    disk = SimulatedDisk()
    make_snapshot(disk, SNAPSHOT_NAME, index, 3, PIECES if pieces is None else pieces)
    return disk.get(SNAPSHOT_NAME)


def _open(data: bytes) -> SnapshotFile:
    return SnapshotFile.open(disk_with(SNAPSHOT_NAME, data), SNAPSHOT_NAME)


class SnapshotTest(unittest.TestCase):

    def _refused(self, data: bytes, at_most: int | None = None) -> None:
        with self.assertRaises(CorruptFileError) as caught:
            _open(data).verify()
        self.assertEqual(caught.exception.path, "simulated/snapshot")
        if at_most is not None:
            self.assertLessEqual(caught.exception.offset, at_most)

    def test_reads_back_what_was_written(self):
        many = [bytes([n % 251]) * (n * 37 % 5_000 + 1) for n in range(1_500)]
        for pieces in (PIECES, [], [b"x"], many, [bytes(3_000_000), b"y"]):
            disk = SimulatedDisk()
            meta = make_snapshot(disk, SNAPSHOT_NAME, 7, 3, pieces)
            file = SnapshotFile.open(disk, SNAPSHOT_NAME)
            self.assertEqual((file.meta, file.cluster_id), (meta, CLUSTER_ID))
            self.assertEqual(meta[:5], (7, 3, 1, MEMBERSHIP, 0xD16E57 + 7))
            self.assertEqual(meta.size, len(disk.get(SNAPSHOT_NAME)))
            self.assertEqual(list(file.pieces()), pieces)
            self.assertEqual(list(file.pieces()), pieces)
            self.assertEqual(file.read(6, 2), b"\x00\x02")
            file.close()
            file.close()

    def test_written_means_synced(self):
        for seed in range(20):
            disk = SimulatedDisk()
            make_snapshot(disk, SNAPSHOT_NAME, 7)
            disk.sync_directory()
            self.assertEqual(disk.crash(randint_of(seed)).get(SNAPSHOT_NAME),
                             disk.get(SNAPSHOT_NAME))

    def test_memory_stays_bounded_while_it_is_written(self):
        disk, ahead = SimulatedDisk(), []

        def pieces():
            for number in range(400):
                ahead.append(65536 * number - len(disk.get(SNAPSHOT_NAME)))
                yield bytes(65536)
        make_snapshot(disk, SNAPSHOT_NAME, 7, 1, pieces())
        self.assertLess(max(ahead), 2 * snapshots.WRITE_BYTES)

    def test_nothing_of_it_stays_on_a_full_disk(self):
        for left in (0, 10, 90_000):
            disk = SimulatedDisk()
            disk.bytes_left = left
            with self.assertRaises(DiskFullError):
                make_snapshot(disk, "snapshot.made-1", 7, 1, [bytes(65536)] * 40)
            self.assertEqual((disk.list(), disk.bytes_left), ([], left))

    def test_every_byte_flipped(self):
        data = _bytes()
        for offset in range(len(data)):
            for change in (0xFF, 1 << offset % 8):
                flipped = bytearray(data)
                flipped[offset] ^= change
                self._refused(bytes(flipped))

    def test_damage_in_a_block_names_the_block(self):
        data = _bytes([bytes(50), bytes(60), bytes(70)])
        blocks = len(data) - END_BYTES - sum(8 + n for n in (50, 60, 70))
        for offset in range(blocks, len(data) - END_BYTES):
            flipped = bytearray(data)
            flipped[offset] ^= 4
            self._refused(bytes(flipped), offset)

    def test_cut_at_every_byte_emptied_and_longer(self):
        data = _bytes()
        for size in range(len(data)):
            self._refused(data[:size])
            self._refused(data[:size] + bytes(len(data) - size))
        self._refused(data + b"\0")
        self._refused(data + data)

    def test_blocks_at_another_place_or_of_another_snapshot(self):
        pieces = [bytes([n]) * 40 for n in range(4)]
        data, other = _bytes(pieces), _bytes([bytes([n]) * 40 for n in range(4, 8)], index=8)
        start = len(data) - END_BYTES - 4 * 48
        blocks = [data[start + 48 * n:start + 48 * n + 48] for n in range(4)]
        for order in ((1, 0, 2, 3), (0, 0, 2, 3), (0, 1, 3, 2), (0, 1, 2)):
            self._refused(data[:start] + b"".join(blocks[n] for n in order) + data[-END_BYTES:])
        self._refused(data[:start] + other[start:start + 48] + data[start + 48:], start)
        self._refused(other[:start] + data[start:])

    def test_a_block_that_says_it_is_huge(self):
        data = _bytes([bytes(30)])
        start = len(data) - END_BYTES - 38
        for length in (31, 38, 39, 2**31, 2**32 - 1):
            self._refused(data[:start] + BLOCK_HEAD.pack(length, 0) + data[start + 8:])

    def test_an_end_mark_within(self):
        data = _bytes([bytes(30), bytes(30)])
        start = len(data) - END_BYTES - 38
        self._refused(data[:start] + bytes(8) + data[start + 8:])
        whole = _bytes([bytes(30)])     # a shorter file's bytes and more behind
        self._refused(whole + encode_block(bytes(30), len(whole), 0) + whole[-END_BYTES:])

    def test_missing(self):
        with self.assertRaisesRegex(DamagedError, "snapshot: missing"):
            SnapshotFile.open(SimulatedDisk(), SNAPSHOT_NAME)

    def test_another_format_is_named(self):
        data = bytearray(_bytes())
        data[7] = 99
        header = read_header(lambda at, count: _bytes()[at:at + count], "")
        data[header.end - 4:header.end] = snapshots.crc32(data[:header.end - 4]).to_bytes(4, "big")
        with self.assertRaisesRegex(StorageError, "has format 99") as caught:
            _open(bytes(data))
        self.assertNotIsInstance(caught.exception, DamagedError)

    def test_readable_after_its_name_is_gone(self):
        disk = disk_with(SNAPSHOT_NAME, _bytes())
        file = SnapshotFile.open(disk, SNAPSHOT_NAME)
        make_snapshot(disk, "other", 9)
        disk.rename("other", SNAPSHOT_NAME)
        self.assertEqual(list(file.pieces()), PIECES)

    def test_a_full_disk_at_each_byte(self):
        for budget in range(0, len(_bytes()), 9):
            disk = SimulatedDisk()
            disk.bytes_left = budget
            with self.assertRaises(DiskFullError):
                write_snapshot(disk, "x", 7, 1, 1, MEMBERSHIP, 1, CLUSTER_ID, PIECES)

    def test_sizes_that_the_document_names(self):
        self.assertEqual((HEAD_BYTES, END_BYTES), (56, 16))


if __name__ == "__main__":
    unittest.main()
