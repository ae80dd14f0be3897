"""ReadOnlyDisk: the files of a data directory for looking back, whoever else uses them meanwhile.

Rules: nothing is made, changed or locked. A running node replaces its files by renaming: so log and
snapshot are opened at a moment when both were the current ones, and stay readable. Each is read up
to the size that it had then. The methods are those of raftnet/storage/disk.py that reading needs.
"""

import os
import sys
import time

from raftnet.errors import StorageError
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.snapshot import SNAPSHOT_NAME

PROGRESS_S = 2.0            # between two lines about something that takes long
_OPEN_TRIES = 100           # files are renamed seldom: the second try succeeds nearly always


class Progress:
    """Lines on stderr, at most one in two seconds."""

    def __init__(self):
        self._next = time.monotonic() + PROGRESS_S

    def due(self) -> bool:
        """Whether it is time for a line."""
        return time.monotonic() >= self._next

    def say(self, text: str) -> None:
        """Write one."""
        print(f"decode.py: {text}", file=sys.stderr, flush=True)
        self._next = time.monotonic() + PROGRESS_S


class ReadOnlyDisk:
    """`names`: by the name that storage/ gives to a file, its name in this directory; the first one
    must be there. Raises OSError. A context manager that closes all."""

    def __init__(self, directory: str, names: dict[str, str], progress: Progress):
        self.directory = directory
        self._names = names
        self._progress = progress
        self._files: dict[str, tuple[int, int]] = {}    # by name: its descriptor and size
        self._handles: dict[int, str] = {}
        for _ in range(_OPEN_TRIES):
            self._open_all()
            if self._are_current():
                return
            self.close_all()
        raise StorageError(f"{directory}: its files are replaced all the time: try again")

    def __enter__(self) -> "ReadOnlyDisk":
        return self

    def __exit__(self, *_) -> None:
        self.close_all()

    def _open_all(self) -> None:
        for place, name in enumerate(self._names):
            try:
                descriptor = os.open(self.path(name), os.O_RDONLY)
            except FileNotFoundError:
                if place:
                    continue
                raise
            self._files[name] = descriptor, os.fstat(descriptor).st_size

    def _are_current(self) -> bool:
        """Whether each name still stands for the file that was opened."""
        for name in self._names:
            try:
                found = os.stat(self.path(name))
            except FileNotFoundError:
                if name in self._files:
                    return False
                continue
            if name not in self._files or not os.path.samestat(found, os.fstat(
                    self._files[name][0])):
                return False
        return True

    def path(self, name: str) -> str:
        """Of a file, for messages."""
        return os.path.join(self.directory, self._names.get(name, name))

    def exists(self, name: str) -> bool:
        """Whether the file was there when all were opened."""
        return name in self._files

    def open(self, name: str, make: bool = False) -> int:
        """A handle of a file that exists."""
        handle = os.dup(self._files[name][0])
        self._handles[handle] = name
        return handle

    def close(self, handle: int) -> None:
        """Close a handle."""
        del self._handles[handle]
        os.close(handle)

    def close_all(self) -> None:
        """Close everything."""
        for handle in list(self._handles):
            self.close(handle)
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def size(self, handle: int) -> int:
        """Bytes in the file when it was opened."""
        return self._files[self._handles[handle]][1]

    def read_at(self, handle: int, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on; fewer only where the file ended."""
        name = self._handles[handle]
        size = self._files[name][1]
        parts, end = [], min(offset + count, size)
        while offset < end:
            try:
                part = os.pread(handle, end - offset, offset)
            except OSError as error:
                raise StorageError(f"{self.path(name)}: cannot read: {error.strerror}") from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
        if self._progress.due():
            self._progress.say(f"{self.path(name)}: read {offset >> 20} of {size >> 20} MiB")
        return b"".join(parts)


def open_data(path: str, progress: Progress) -> ReadOnlyDisk:
    """Log and snapshot of a data directory; `path` is that, or the log file: the snapshot is the
    one beside it (`damaged-1.snapshot` beside `damaged-1.log`)."""
    if os.path.isdir(path):
        return ReadOnlyDisk(path, {LOG_NAME: LOG_NAME, SNAPSHOT_NAME: SNAPSHOT_NAME}, progress)
    directory, name = os.path.split(path)
    snapshot = SNAPSHOT_NAME
    if name.endswith("." + LOG_NAME):
        snapshot = name.removesuffix(LOG_NAME) + SNAPSHOT_NAME
    return ReadOnlyDisk(directory, {LOG_NAME: name, SNAPSHOT_NAME: snapshot}, progress)


def open_snapshot(path: str, progress: Progress) -> ReadOnlyDisk:
    """A snapshot alone; `path` is the file, whatever its name, or the data directory."""
    if os.path.isdir(path):
        if not os.path.lexists(os.path.join(path, SNAPSHOT_NAME)):
            raise StorageError(f"{path}: holds no snapshot: all there is stands in its log")
        return ReadOnlyDisk(path, {SNAPSHOT_NAME: SNAPSHOT_NAME}, progress)
    directory, name = os.path.split(path)
    return ReadOnlyDisk(directory, {SNAPSHOT_NAME: name}, progress)
