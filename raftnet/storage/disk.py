"""The few file operations in use, on one data directory.

Rules: names are relative to the directory, handles are small integers. Nothing here knows a file
format. An error that the world may cause becomes a StorageError of one line that names the path;
what found no space becomes DiskFullError, except a sync: every failed sync must end the process
(what it should have written is neither on disk nor marked to be written again).
`raftnet/simulation/disk.py` has the same interface and replaces this class in the simulator.
"""

import contextlib
import errno
import fcntl
import os
import threading

from raftnet.errors import DirectoryLockedError, DiskFullError, StorageError

LOCK_NAME = "lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_HELD_ELSEWHERE = (errno.EWOULDBLOCK, errno.EACCES)
# macOS: fsync leaves the bytes in the drive's volatile cache, this command does not.
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
_SET_LEASE = getattr(fcntl, "F_SETLEASE", None)     # Linux
_FREED_BYTES = 8 * 1024 * 1024  # of a file without a name, at a time


class Disk:
    """The files of one data directory. Everything raises StorageError; what may need space on the
    disk (a new file, a longer one, another name) also DiskFullError.

    May be used by several threads at once, as long as they do not open or close the same handle.
    """

    def __init__(self, directory: str):
        self.directory = os.path.abspath(directory)
        self._names: dict[int, str] = {}        # open handle -> name, for messages

    def path(self, name: str) -> str:
        """The absolute path of a file, for messages."""
        return os.path.join(self.directory, name)

    def create_directory(self) -> None:
        """Make the directory and what is missing above it; durable on return."""
        missing = []
        path = self.directory
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        try:
            for path in reversed(missing):
                os.mkdir(path, 0o700)
                _sync_directory(os.path.dirname(path))
            parent = os.path.dirname(self.directory)
            # A process killed between mkdir and sync leaves a directory that is not durable yet.
            if not missing and not self._in_use() and os.access(parent, os.R_OK):
                _sync_directory(parent)
        except OSError as error:
            raise self._error("make the directory", path, error) from error

    def _in_use(self) -> bool:
        return any(name != LOCK_NAME for name in os.listdir(self.directory))

    def lock(self) -> None:
        """Keep every other process out until `close_all`, or the end of this process.

        Raises DirectoryLockedError where another one is in.
        """
        handle = self.open(LOCK_NAME)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close(handle)
            if error.errno not in _HELD_ELSEWHERE:
                raise self._error("lock", self.path(LOCK_NAME), error) from error
            raise DirectoryLockedError(
                f"{self.directory}: another process uses this data directory: "
                "stop it, or start with another --data") from error

    def exists(self, name: str) -> bool:
        """Whether the directory has a file of that name."""
        return os.path.lexists(self.path(name))

    def open(self, name: str, make: bool = True) -> int:
        """Open for reading and writing; an absent file is made, empty, or not where `make` is
        false."""
        try:
            handle = os.open(self.path(name), os.O_RDWR | (os.O_CREAT if make else 0), 0o600)
        except OSError as error:
            raise self._error("open", self.path(name), error) from error
        self._names[handle] = name
        return handle

    def close(self, handle: int) -> None:
        """Close; syncs nothing. Does not wait where the file has no name any more: then the system
        frees its bytes, which takes it long for many."""
        name = self._names.pop(handle)
        try:
            if os.fstat(handle).st_nlink == 0:
                threading.Thread(target=_close_nameless, args=(handle,), name="close",
                                 daemon=True).start()
                return
            os.close(handle)
        except OSError as error:
            raise self._error("close", self.path(name), error) from error

    def close_all(self) -> None:
        """Close whatever is open, and with it give up the lock."""
        for handle in list(self._names):
            self.close(handle)

    def is_named(self, handle: int, name: str) -> bool:
        """Whether that name leads to the open file, and to no other one."""
        try:
            return os.path.samestat(os.fstat(handle), os.lstat(self.path(name)))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error("look at", self.path(name), error) from error

    def size(self, handle: int) -> int:
        """Bytes in the file."""
        try:
            return os.fstat(handle).st_size
        except OSError as error:
            raise self._handle_error("look at", handle, error) from error

    def read_at(self, handle: int, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on; fewer only where the file ends."""
        try:
            data = os.pread(handle, count, offset)
            while len(data) < count:
                more = os.pread(handle, count - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise self._handle_error("read", handle, error) from error
        return data

    def write_at(self, handle: int, offset: int, data: bytes) -> None:
        """Write all of `data`. On an error any part of it may have been written."""
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(handle, view, offset)
                view = view[count:]
                offset += count
        except OSError as error:
            raise self._handle_error("write", handle, error) from error

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        try:
            os.ftruncate(handle, size)
        except OSError as error:
            raise self._handle_error("cut", handle, error) from error

    def sync(self, handle: int) -> None:
        """Make the file's bytes and size durable (not its name: `sync_directory`)."""
        try:
            if _FULL_SYNC is not None:
                fcntl.fcntl(handle, _FULL_SYNC)
            else:
                os.fdatasync(handle)
        except OSError as error:
            raise self._sync_error(self.path(self._names[handle]), error) from error

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        try:
            _sync_directory(self.directory)
        except OSError as error:
            raise self._sync_error(self.directory, error) from error

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; one that had that name is gone."""
        try:
            os.replace(self.path(old), self.path(new))
        except OSError as error:
            raise self._error("rename", self.path(old), error) from error
        for handle, name in list(self._names.items()):     # another thread may open a file
            if name == old:
                self._names[handle] = new

    def remove(self, name: str) -> None:
        """Take the file's name away."""
        try:
            os.unlink(self.path(name))
        except OSError as error:
            raise self._error("remove", self.path(name), error) from error

    def list(self) -> list[str]:
        """The names of all files, sorted."""
        try:
            return sorted(os.listdir(self.directory))
        except OSError as error:
            raise self._error("list", self.directory, error) from error

    def _handle_error(self, action: str, handle: int, error: OSError) -> StorageError:
        return self._error(action, self.path(self._names[handle]), error)

    def _error(self, action: str, path: str, error: OSError) -> StorageError:
        if error.errno in _NO_SPACE:
            return DiskFullError(f"{path}: cannot {action}: no space left on the disk: free some "
                                 "there")
        return StorageError(f"{path}: cannot {action}: {error.strerror or error}")

    def _sync_error(self, path: str, error: OSError) -> StorageError:
        """Also without space it is final: what was to be synced is lost."""
        return StorageError(f"{path}: cannot sync: {error.strerror or error}")


def _close_nameless(handle: int) -> None:
    """Where nobody else reads the file, its bytes are freed in pieces: the sync of another file
    would wait for all of them together. Errors say nothing: nobody will read these bytes again."""
    with contextlib.suppress(OSError):
        if _SET_LEASE is not None:
            # Refused where another descriptor of the file is open, in any process.
            fcntl.fcntl(handle, _SET_LEASE, fcntl.F_WRLCK)
            size = os.fstat(handle).st_size
            while size > 0:
                size = max(0, size - _FREED_BYTES)
                os.ftruncate(handle, size)
    with contextlib.suppress(OSError):
        os.close(handle)


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
