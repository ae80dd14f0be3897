"""The real disk: what it does, and what its errors say."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

from raftnet.errors import DirectoryLockedError, DiskFullError, StorageError
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import disk as disk_module
from raftnet.storage.disk import Disk

_LOCK_IN_CHILD = """
import sys
from raftnet.errors import DirectoryLockedError
from raftnet.storage.disk import Disk
try:
    Disk(sys.argv[1]).lock()
except DirectoryLockedError as error:
    print(error)
    sys.exit(3)
"""


class DiskTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = os.path.join(folder.name, "a", "b", "data")
        self.disk = Disk(self.directory)
        self.addCleanup(self.disk.close_all)
        self.disk.create_directory()

    def test_makes_all_missing_directories_for_their_owner_only(self):
        self.assertTrue(os.path.isdir(self.directory))
        self.assertEqual(os.stat(self.directory).st_mode & 0o777, 0o700)
        self.disk.create_directory()

    def test_directory_that_cannot_be_made_is_a_storage_error(self):
        self.disk.close(self.disk.open("file"))
        with self.assertRaisesRegex(StorageError, "file: cannot make the directory: "):
            Disk(self.disk.path("file/x")).create_directory()

    def test_reads_back_what_it_wrote(self):
        handle = self.disk.open("file")
        self.disk.write_at(handle, 3, b"hello")
        self.disk.sync(handle)
        self.disk.sync_directory()
        self.assertEqual(self.disk.size(handle), 8)
        self.assertEqual(self.disk.read_at(handle, 0, 100), b"\0\0\0hello")
        self.disk.truncate(handle, 5)
        self.assertEqual(self.disk.read_at(handle, 3, 5), b"he")

    def test_rename_list_and_remove(self):
        handle = self.disk.open("old")
        self.disk.rename("old", "new")
        self.assertEqual(self.disk.list(), ["new"])
        self.assertTrue(self.disk.exists("new"))
        with mock.patch("os.pwrite", side_effect=OSError(errno.EIO, "I/O error")):
            with self.assertRaisesRegex(StorageError, "/new: cannot write: "):
                self.disk.write_at(handle, 0, b"x")
        self.disk.remove("new")
        self.assertFalse(self.disk.exists("new"))

    def test_short_writes_and_reads_are_continued(self):
        handle = self.disk.open("file")
        pwrite, pread = os.pwrite, os.pread
        with mock.patch("os.pwrite", lambda h, data, offset: pwrite(h, data[:3], offset)):
            self.disk.write_at(handle, 0, b"0123456789")
        with mock.patch("os.pread", lambda h, count, offset: pread(h, min(count, 4), offset)):
            self.assertEqual(self.disk.read_at(handle, 1, 50), b"123456789")

    def test_no_space_and_no_quota_are_a_full_disk(self):
        handle = self.disk.open("file")
        for code in (errno.ENOSPC, errno.EDQUOT):
            with mock.patch("os.pwrite", side_effect=OSError(code, os.strerror(code))):
                with self.assertRaises(DiskFullError):
                    self.disk.write_at(handle, 0, b"x")

    def test_opening_cutting_renaming_and_making_need_space_too(self):
        handle = self.disk.open("file")
        for name, act in (("os.open", lambda: self.disk.open("new")),
                          ("os.ftruncate", lambda: self.disk.truncate(handle, 0)),
                          ("os.replace", lambda: self.disk.rename("file", "other")),
                          ("os.mkdir", Disk(self.directory + "/deeper").create_directory)):
            for code in (errno.ENOSPC, errno.EDQUOT):
                with mock.patch(name, side_effect=OSError(code, os.strerror(code))):
                    with self.assertRaisesRegex(DiskFullError, "no space left on the disk: free"):
                        act()
        with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "no space")):
            with self.assertRaises(StorageError) as caught:
                self.disk.sync_directory()
        self.assertNotIsInstance(caught.exception, DiskFullError)

    def test_other_errors_and_every_failed_sync_are_no_full_disk(self):
        handle = self.disk.open("file")
        with mock.patch("os.pwrite", side_effect=OSError(errno.EIO, "I/O error")):
            with self.assertRaisesRegex(StorageError, "file: cannot write: I/O error") as caught:
                self.disk.write_at(handle, 0, b"x")
        self.assertNotIsInstance(caught.exception, DiskFullError)
        name = "fcntl.fcntl" if sys.platform == "darwin" else "os.fdatasync"
        with mock.patch(name, side_effect=OSError(errno.ENOSPC, "no space")):
            with self.assertRaises(StorageError) as caught:
                self.disk.sync(handle)
        self.assertNotIsInstance(caught.exception, DiskFullError)

    def test_a_second_lock_is_refused_in_this_process_and_in_another(self):
        self.disk.lock()
        other = Disk(self.directory)
        with self.assertRaisesRegex(DirectoryLockedError, self.directory):
            other.lock()
        child = subprocess.run([sys.executable, "-c", _LOCK_IN_CHILD, self.directory],
                               capture_output=True, text=True, timeout=30)
        self.assertEqual(child.returncode, 3, child.stderr)
        self.assertEqual(len(child.stdout.splitlines()), 1)
        self.disk.close_all()
        other.lock()
        other.close_all()

    def test_a_file_without_a_name_is_closed_without_waiting(self):
        kept, lost = self.disk.open("kept"), self.disk.open("lost")
        self.disk.remove("lost")
        may_end, closed, close = threading.Event(), [], os.close

        def slow_close(handle: int) -> None:
            if handle == lost:
                may_end.wait(30)
            close(handle)
            closed.append(handle)

        with mock.patch("os.close", slow_close):
            self.disk.close(lost)
            self.disk.close(kept)
            self.assertEqual(closed, [kept])
            self.disk.close_all()           # which knows of it no more
            may_end.set()
            for thread in threading.enumerate():
                if thread.name == "close":
                    thread.join(30)
        self.assertEqual(closed, [kept, lost])

    @unittest.skipUnless(hasattr(fcntl, "F_SETLEASE"), "only Linux tells who has a file open")
    def test_a_file_without_a_name_is_freed_in_pieces_unless_it_is_read_elsewhere(self):
        data = bytes(range(200)) * 100
        for flags in (None, os.O_RDONLY, os.O_RDWR):
            handle, sizes, cut = self.disk.open("file"), [], os.ftruncate
            self.disk.write_at(handle, 0, data)
            reader = None if flags is None else os.open(self.disk.path("file"), flags)
            self.disk.remove("file")
            with (mock.patch.object(disk_module, "_FREED_BYTES", 6_000),
                  mock.patch("os.ftruncate", lambda h, size: (sizes.append(size), cut(h, size)))):
                self.disk.close(handle)
                for thread in threading.enumerate():
                    if thread.name == "close":
                        thread.join(30)
            if reader is None:
                self.assertEqual(sizes, [14_000, 8_000, 2_000, 0])
                continue
            self.assertEqual(sizes, [])
            self.assertEqual(os.pread(reader, 30_000, 0), data)
            os.close(reader)

    def test_which_file_a_name_leads_to_and_none_is_made(self):
        for disk in (self.disk, SimulatedDisk()):
            handle = disk.open("file")
            self.assertTrue(disk.is_named(handle, "file"))
            disk.close(disk.open("other"))
            disk.rename("other", "file")
            self.assertFalse(disk.is_named(handle, "file"))
            disk.remove("file")
            self.assertFalse(disk.is_named(handle, "file"))
            with self.assertRaisesRegex(StorageError, "file: cannot open"):
                disk.open("file", make=False)
            self.assertEqual(disk.list(), [])

    def test_the_simulated_disk_has_the_same_interface(self):
        for name in vars(Disk):
            if not name.startswith("_"):
                self.assertIn(name, vars(SimulatedDisk))


if __name__ == "__main__":
    unittest.main()
