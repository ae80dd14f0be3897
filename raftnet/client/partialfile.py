"""A file that appears whole or not at all: written beside its place, synced, then renamed.

Rules: what the disk or the user's arguments may do is a StorageError of one line; whatever happens
before finish(), nothing is left behind. Two that write to one place are kept apart by a lock.
"""

import contextlib
import errno
import fcntl
import os
import stat
from zlib import crc32

from raftnet.errors import DiskFullError, StorageError

SUFFIX = ".partial"
SYNC_BYTES = 16 * 1024 * 1024       # written between two syncs: a slow disk is felt at once
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PartialFile:
    """`path` with SUFFIX, until finish() gives it its name. A context manager.

    Opening raises StorageError where `path` exists (unless `force`), cannot be written, or is being
    written by somebody else; write() and finish() raise DiskFullError or StorageError.
    """

    def __init__(self, path: str, force: bool = False):
        self.path = path
        self.size = 0               # bytes written
        self.checksum = 0           # CRC-32 of them
        self._partial = path + SUFFIX
        self._force = force
        self._synced = 0
        self._check_place()
        try:
            self._handle = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as error:
            raise StorageError(f"{self.path}: its directory does not exist") from error
        except OSError as error:
            raise _storage_error(self._partial, error) from error
        try:
            self._lock()
            self.restart()
        except BaseException:
            os.close(self._handle)      # somebody else's, so it stays
            raise

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *_) -> None:
        if self._handle is not None:
            # what cannot be removed is named like what it is; the first error is the one to tell
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
            self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        os.close(handle)

    def _check_place(self) -> None:
        """Raises StorageError where `path` is taken, or can be none."""
        if not self.path or "\0" in self.path:
            raise StorageError(f"{self.path!r} is no name of a file")
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(self.path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{self.path} exists and is no file: name another one")
        if not self._force:
            raise StorageError(f"{self.path} exists: name another file, or replace it with --force")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(self._handle), os.stat(self._partial))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError:
            mine = True             # a file system without locks: then nothing keeps two apart
        if not mine:
            raise StorageError(f"{self._partial} is being written by somebody else")

    def restart(self) -> None:
        """Forget what was written."""
        self.size = self.checksum = self._synced = 0
        try:
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
        except OSError as error:
            raise _storage_error(self._partial, error) from error

    def write(self, data: bytes) -> None:
        """Append these bytes."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left):]
            self.size += len(data)
            self.checksum = crc32(data, self.checksum)
            if self.size - self._synced >= SYNC_BYTES:
                os.fsync(self._handle)
                self._synced = self.size
        except OSError as error:
            raise _storage_error(self._partial, error) from error

    def finish(self) -> None:
        """Make it durable under its name; it is closed then."""
        self._check_place()             # much time may have passed
        try:
            os.fsync(self._handle)
            os.rename(self._partial, self.path)
            self._close()
            _sync_directory(os.path.dirname(self.path) or ".")
        except OSError as error:
            raise _storage_error(self.path, error) from error


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:     # some file systems sync no directories
            raise
    finally:
        os.close(handle)


def _storage_error(path: str, error: OSError) -> StorageError:
    text = f"{path}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _FULL:
        return DiskFullError(f"{text}; nothing is left of it: free space, or name a file elsewhere")
    return StorageError(text)
