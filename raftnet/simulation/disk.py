"""A disk in memory that forgets at a crash what was not synced, and fails when told to.

Rules: the same interface as `raftnet/storage/disk.py`. What a reader sees (`content`, the page
cache) and what a power loss leaves (`durable`) are apart. Chance comes only from the `randint`
given to `crash`, so a seed gives the same remains every time.

The model is meaner than a real disk: an unsynced write may be lost, kept, torn at any byte, or
there in pieces while an earlier one is missing; unsynced creations, renames and removals survive in
any selection; after a failed sync the page cache shows bytes that no later sync brings to the disk.
"""

from collections.abc import Callable

from raftnet.errors import DirectoryLockedError, DiskFullError, StorageError

RandInt = Callable[[int, int], int]     # (low, high) -> an integer from low to high, both included
_PIECES_MAX = 4                         # into which one unsynced write falls apart, at most
_TAKES_SPACE = frozenset(("make the directory", "open", "write", "cut", "rename"))


class SimulatedDisk:
    """The files of one data directory, in memory.

    Faults, set by the test or the simulator at any time:
    `bytes_left`: by how much files may still grow, None for no limit; `full = True` makes it 0.
    `fail_at(k)`: the k-th operation from now raises StorageError, or finds no space.
    """

    def __init__(self, directory: str = "simulated"):
        self.directory = directory
        self.bytes_left: int | None = None
        self.operations = 0                     # counted for `fail_at`
        self.failures = 0                       # of them, those that failed as told
        self._fails_at = 0                      # number of the operation that fails; 0: none
        self._fails_applied = False
        self._fails_full = False
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._unsynced_names: list[list[tuple[str, _File | None]]] = []
        self._handles: dict[int, _File] = {}
        self._handle_names: dict[int, str] = {}
        self._next_handle = 3
        self._locked = False

    # --- faults and remains

    @property
    def full(self) -> bool:
        """Whether no file may grow."""
        return self.bytes_left is not None and self.bytes_left <= 0

    @full.setter
    def full(self, value: bool) -> None:
        self.bytes_left = 0 if value else None

    def fail_at(self, k: int, applied: bool = False, full: bool = False) -> None:
        """The k-th operation from now (1: the next) raises StorageError, once; 0: none does.

        With `applied` it takes its effect first. A failed sync without it drops what it should
        have made durable, although it can still be read. With `full` it finds no space on the disk,
        where it is one that may need some: DiskFullError, without an effect.
        """
        self._fails_at = self.operations + k if k else 0
        self._fails_applied = applied
        self._fails_full = full

    def crash(self, randint: RandInt) -> "SimulatedDisk":
        """The disk that the next start finds after a power loss; this one is not used again."""
        remains = SimulatedDisk(self.directory)
        for name, file in sorted(self._surviving_names(randint).items()):
            remains.put(name, file.after_crash(randint))
        return remains

    def kill(self) -> None:
        """The process ends without a power loss: handles and lock are gone, the cache stays."""
        self._handles.clear()
        self._handle_names.clear()
        self._locked = False
        self.fail_at(0)

    def put(self, name: str, data: bytes) -> None:
        """Make the file be there with these bytes, durable."""
        self._names[name] = self._durable_names[name] = _File(data)

    def spoil(self, name: str, position: int) -> None:
        """One byte of the file changes under whoever has it open, durable."""
        file = self._names[name]
        for content in (file.content, file.durable):
            if position < len(content):
                content[position] ^= 1

    def lose(self, name: str) -> None:
        """The file is there no more, durable."""
        del self._names[name], self._durable_names[name]

    def get(self, name: str) -> bytes:
        """What a reader of the file sees."""
        return bytes(self._names[name].content)

    def _surviving_names(self, randint: RandInt) -> dict[str, "_File"]:
        names = dict(self._durable_names)
        how = randint(0, 2)
        for changes in self._unsynced_names:
            if how == 0 or (how == 2 and randint(0, 1)):
                continue
            _apply_names(names, changes)
        return names

    def _operation(self, action: str, name: str) -> bool:
        """Count an operation; True: take effect, then call `_fail`. Raises where it is to fail."""
        self.operations += 1
        if self.operations != self._fails_at:
            return False
        if self._fails_applied and not (self._fails_full and action in _TAKES_SPACE):
            return True
        self._fail(action, name)
        return False

    def _fail(self, action: str, name: str) -> None:
        self.failures += 1
        if self._fails_full and action in _TAKES_SPACE:
            raise DiskFullError(f"{self.path(name)}: cannot {action}: no space left on the disk")
        raise StorageError(f"{self.path(name)}: cannot {action}: simulated fault")

    # --- the interface of Disk

    def path(self, name: str) -> str:
        """As Disk.path."""
        return f"{self.directory}/{name}"

    def create_directory(self) -> None:
        """As Disk.create_directory."""
        if self._operation("make the directory", ""):
            self._fail("make the directory", "")

    def lock(self) -> None:
        """As Disk.lock."""
        if self._locked:
            raise DirectoryLockedError(f"{self.directory}: another process uses this directory")
        self._locked = True

    def exists(self, name: str) -> bool:
        """As Disk.exists."""
        return name in self._names

    def open(self, name: str, make: bool = True) -> int:
        """As Disk.open."""
        fails = self._operation("open", name)
        if name not in self._names:
            if not make:
                raise StorageError(f"{self.path(name)}: cannot open: there is no such file")
            self._rename([(name, _File(b""))])
        if fails:
            self._fail("open", name)
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = self._names[name]
        self._handle_names[handle] = name
        return handle

    def close(self, handle: int) -> None:
        """As Disk.close."""
        del self._handles[handle], self._handle_names[handle]

    def close_all(self) -> None:
        """As Disk.close_all."""
        self._handles.clear()
        self._handle_names.clear()
        self._locked = False

    def is_named(self, handle: int, name: str) -> bool:
        """As Disk.is_named."""
        return self._names.get(name) is self._handles[handle]

    def size(self, handle: int) -> int:
        """As Disk.size."""
        return len(self._handles[handle].content)

    def read_at(self, handle: int, offset: int, count: int) -> bytes:
        """As Disk.read_at."""
        if self._operation("read", self._handle_names[handle]):
            self._fail("read", self._handle_names[handle])
        return bytes(self._handles[handle].content[offset:offset + count])

    def write_at(self, handle: int, offset: int, data: bytes) -> None:
        """As Disk.write_at; a full disk takes the part for which there is space."""
        file, name = self._handles[handle], self._handle_names[handle]
        fails = self._operation("write", name)
        data = bytes(data)
        if self.bytes_left is not None:
            grows = max(0, offset + len(data) - len(file.content))
            if grows > self.bytes_left:
                kept = len(data) - (grows - self.bytes_left)
                self.bytes_left = 0
                if kept > 0:
                    file.write(offset, data[:kept])
                raise DiskFullError(f"{self.path(name)}: cannot write: no space left on the disk")
            self.bytes_left -= grows
        file.write(offset, data)
        if fails:
            self._fail("write", name)

    def truncate(self, handle: int, size: int) -> None:
        """As Disk.truncate."""
        file, name = self._handles[handle], self._handle_names[handle]
        fails = self._operation("cut", name)
        assert size <= len(file.content)
        if self.bytes_left is not None and file in self._names.values():
            self.bytes_left += len(file.content) - size
        file.truncate(size)
        if fails:
            self._fail("cut", name)

    def sync(self, handle: int) -> None:
        """As Disk.sync."""
        file, name = self._handles[handle], self._handle_names[handle]
        fails = True
        try:
            fails = self._operation("sync", name)
            file.sync()
        finally:
            file.unsynced.clear()       # failed or not: the cache is clean afterwards
        if fails:
            self._fail("sync", name)

    def sync_directory(self) -> None:
        """As Disk.sync_directory."""
        fails = self._operation("sync", "")
        self._durable_names = dict(self._names)
        self._unsynced_names.clear()
        if fails:
            self._fail("sync", "")

    def rename(self, old: str, new: str) -> None:
        """As Disk.rename."""
        fails = self._operation("rename", old)
        self._give_back(new)
        self._rename([(old, None), (new, self._names[old])])
        for handle, name in self._handle_names.items():
            if name == old:
                self._handle_names[handle] = new
        if fails:
            self._fail("rename", old)

    def remove(self, name: str) -> None:
        """As Disk.remove."""
        fails = self._operation("remove", name)
        self._give_back(name)
        self._rename([(name, None)])
        if fails:
            self._fail("remove", name)

    def _give_back(self, name: str) -> None:
        """The space of a file that loses its name, though it may still be open."""
        if self.bytes_left is not None and name in self._names:
            self.bytes_left += len(self._names[name].content)

    def _rename(self, changes: list[tuple[str, "_File | None"]]) -> None:
        """Changes of names that survive a crash together or not at all."""
        _apply_names(self._names, changes)
        self._unsynced_names.append(changes)

    def list(self) -> list[str]:
        """As Disk.list."""
        return sorted(self._names)


class _File:
    """One file's bytes, whatever its name."""

    __slots__ = ("content", "durable", "unsynced")

    def __init__(self, data: bytes):
        self.content = bytearray(data)          # what readers see
        self.durable = bytearray(data)          # what surely survives a power loss
        self.unsynced: list[tuple[int, bytes | None]] = []  # (offset, bytes), or (size, None): cut

    def write(self, offset: int, data: bytes) -> None:
        _apply(self.content, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        _apply(self.content, size, None)
        self.unsynced.append((size, None))

    def sync(self) -> None:
        for offset, data in self.unsynced:
            _apply(self.durable, offset, data)

    def after_crash(self, randint: RandInt) -> bytes:
        """What is left: all lost, all kept, torn in one write, or in pieces out of order."""
        left = bytearray(self.durable)
        if not self.unsynced:
            return bytes(left)
        how = randint(0, 3)
        if how == 1:
            for offset, data in self.unsynced:
                _apply(left, offset, data)
        elif how == 2:
            whole = randint(0, len(self.unsynced) - 1)
            for offset, data in self.unsynced[:whole]:
                _apply(left, offset, data)
            offset, data = self.unsynced[whole]
            if data is not None:
                _apply(left, offset, data[:randint(0, len(data))])
        elif how == 3:
            for offset, data in self.unsynced:
                _apply_pieces(left, offset, data, randint)
        return bytes(left)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    elif data:
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset:offset + len(data)] = data


def _apply_pieces(content: bytearray, offset: int, data: bytes | None, randint: RandInt) -> None:
    if data is None:
        if randint(0, 1):
            _apply(content, offset, None)
        return
    cuts = sorted(randint(0, len(data)) for _ in range(randint(0, _PIECES_MAX - 1)))
    for start, stop in zip([0, *cuts], [*cuts, len(data)]):
        if randint(0, 1):
            _apply(content, offset + start, data[start:stop])


def _apply_names(names: dict[str, _File], changes: list[tuple[str, _File | None]]) -> None:
    for name, file in changes:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file
