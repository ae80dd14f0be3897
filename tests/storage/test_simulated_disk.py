"""The simulated disk loses what it should lose, and nothing else."""

import unittest

from raftnet.errors import DirectoryLockedError, DiskFullError, StorageError
from raftnet.simulation.disk import SimulatedDisk
from tests.storage.building import randint_of

SEEDS = range(300)


def _disk_with_unsynced_write() -> SimulatedDisk:
    disk = SimulatedDisk()
    handle = disk.open("file")
    disk.write_at(handle, 0, b"durable.")
    disk.sync(handle)
    disk.sync_directory()
    disk.write_at(handle, 4, b"ABCDEFGH")
    return disk


class SimulatedDiskTest(unittest.TestCase):

    def test_a_crash_keeps_what_was_synced_and_any_part_of_the_rest(self):
        remains = set()
        for seed in SEEDS:
            left = _disk_with_unsynced_write().crash(randint_of(seed)).get("file")
            self.assertEqual(left[:4], b"dura")
            remains.add(left)
        self.assertIn(b"durable.", remains)                     # lost
        self.assertIn(b"duraABCDEFGH", remains)                 # kept
        self.assertIn(b"duraABCDE", remains)                    # torn
        self.assertTrue(any(b"ABCD" not in left and left.endswith(b"H") for left in remains))

    def test_the_same_seed_leaves_the_same(self):
        for seed in SEEDS:
            first, second = (_disk_with_unsynced_write().crash(randint_of(seed)).get("file")
                             for _ in range(2))
            self.assertEqual(first, second)

    def test_names_last_only_once_the_directory_is_synced(self):
        lists = set()
        for seed in SEEDS:
            disk = _disk_with_unsynced_write()
            disk.sync(disk.open("new"))
            disk.rename("new", "renamed")
            lists.add(tuple(disk.crash(randint_of(seed)).list()))
            disk.sync_directory()
            self.assertEqual(disk.crash(randint_of(seed)).list(), ["file", "renamed"])
        self.assertEqual(lists, {("file",), ("file", "new"), ("file", "renamed")})

    def test_an_unsynced_removal_may_come_undone(self):
        lists = set()
        for seed in SEEDS:
            disk = _disk_with_unsynced_write()
            disk.remove("file")
            lists.add(tuple(disk.crash(randint_of(seed)).list()))
        self.assertEqual(lists, {(), ("file",)})

    def test_bytes_of_a_failed_sync_are_read_but_never_get_to_the_disk(self):
        disk = _disk_with_unsynced_write()
        handle = disk.open("file")
        disk.fail_at(1)
        with self.assertRaisesRegex(StorageError, "file: cannot sync"):
            disk.sync(handle)
        self.assertEqual(disk.get("file"), b"duraABCDEFGH")
        disk.sync(handle)
        self.assertEqual(disk.crash(randint_of(1)).get("file"), b"durable.")
        disk.write_at(handle, 4, b"ABCDEFGH")
        disk.sync(handle)
        self.assertEqual(disk.crash(randint_of(1)).get("file"), b"duraABCDEFGH")

    def test_a_full_disk_takes_what_fits_and_space_comes_back(self):
        disk = SimulatedDisk()
        handle = disk.open("file")
        disk.bytes_left = 5
        with self.assertRaises(DiskFullError):
            disk.write_at(handle, 0, b"0123456789")
        self.assertEqual(disk.get("file"), b"01234")
        self.assertTrue(disk.full)
        disk.write_at(handle, 0, b"abcde")
        disk.truncate(handle, 3)
        disk.write_at(handle, 3, b"xy")
        with self.assertRaises(DiskFullError):
            disk.write_at(handle, 5, b"z")
        disk.full = False
        disk.write_at(handle, 5, b"z")
        self.assertEqual(disk.get("file"), b"abcxyz")

    def test_a_file_that_loses_its_name_gives_its_space_back(self):
        disk = SimulatedDisk()
        for name in ("one", "two", "three"):
            disk.write_at(disk.open(name), 0, b"12345")
        disk.full = True
        disk.remove("one")
        disk.rename("two", "three")
        self.assertEqual(disk.bytes_left, 10)

    def test_the_kth_operation_finds_no_space_where_it_needs_some(self):
        for action in ("open", "write_at", "truncate", "rename", "sync", "read_at", "remove"):
            disk = SimulatedDisk()
            handle = disk.open("file")
            arguments = {"open": ("new",), "write_at": (handle, 0, b"x"), "truncate": (handle, 0),
                         "rename": ("file", "other"), "sync": (handle,),
                         "read_at": (handle, 0, 1), "remove": ("file",)}[action]
            disk.fail_at(1, full=True)
            with self.assertRaises(StorageError) as caught:
                getattr(disk, action)(*arguments)
            self.assertEqual(isinstance(caught.exception, DiskFullError),
                             action in ("open", "write_at", "truncate", "rename"), action)

    def test_the_kth_operation_fails_fails_with_or_without_effect(self):
        for applied in (False, True):
            disk = SimulatedDisk()
            handle = disk.open("file")
            disk.fail_at(2, applied)
            disk.write_at(handle, 0, b"one")
            with self.assertRaises(StorageError):
                disk.write_at(handle, 3, b"two")
            self.assertEqual(disk.get("file"), b"onetwo" if applied else b"one")
            disk.write_at(handle, 3, b"2")

    def test_the_lock_ends_with_the_process(self):
        disk = SimulatedDisk()
        disk.lock()
        with self.assertRaises(DirectoryLockedError):
            disk.lock()
        disk.kill()
        disk.lock()
        disk.crash(randint_of(1)).lock()


if __name__ == "__main__":
    unittest.main()
