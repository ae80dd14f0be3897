"""What a running node takes of its machine: memory, descriptors, disk; how long its loop stands.

Of processes only on Linux, from /proc; `AVAILABLE` says whether that is there. Nothing here judges.
"""

import os
import stat
import threading
import time
from dataclasses import dataclass, field

from raftnet.client.connection import Connection, clock
from raftnet.errors import RaftnetError
from raftnet.wire.frames import Kind, encode_frame

AVAILABLE = os.path.exists("/proc/self/io")
MIB = 1024 * 1024
PING_S = 0.002              # between an answer and the next question
_ANSWER_S = 30.0            # then the node is taken for dead


def _field(pid: int, file: str, name: str) -> int:
    with open(f"/proc/{pid}/{file}", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise RaftnetError(f"/proc/{pid}/{file} has no {name}")


def rss_bytes(pid: int) -> int:
    """Memory of the process that is in RAM now."""
    return 1024 * _field(pid, "status", "VmRSS")


def written_bytes(pid: int) -> int:
    """What the process has caused to be written to disks since its start."""
    return _field(pid, "io", "write_bytes")


def descriptors(pid: int) -> int:
    """How many files and sockets it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Processor time that it has used, its ended children not counted."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def files_of(directory: str) -> dict[str, tuple[int, int]]:
    """Name -> (bytes, time of the last change in ns) of all files there now."""
    found = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue        # renamed or removed since the directory was read
            found[entry.name] = status.st_size, status.st_mtime_ns
    return found


def disk_bytes(directory: str) -> int:
    """All files of a directory together."""
    return sum(size for size, _ in files_of(directory).values())


def nameless_bytes(pid: int) -> int:
    """Files that the process has open and that have no name any more: they take space, too."""
    total = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue            # closed meanwhile
        if stat.S_ISREG(status.st_mode) and not status.st_nlink:
            total += status.st_size
    return total


@dataclass(slots=True)
class Sample:
    """One node at one moment."""

    at_s: float
    rss: int            # bytes
    descriptors: int
    disk: int           # bytes, of files without a name too


@dataclass(slots=True)
class Samples:
    """The moments of one node."""

    found: list[Sample] = field(default_factory=list)

    def take(self, pid: int, directory: str) -> None:
        """One more."""
        self.found.append(Sample(time.monotonic(), rss_bytes(pid), descriptors(pid),
                                 disk_bytes(directory) + nameless_bytes(pid)))

    def highest(self, name: str, from_share: float = 0.0, to_share: float = 1.0) -> int:
        """The highest `rss`, `descriptors` or `disk` in a part of the time, as shares of it."""
        begin_s, end_s = self.found[0].at_s, self.found[-1].at_s
        low, high = (begin_s + share * (end_s - begin_s) for share in (from_share, to_share))
        return max(getattr(sample, name) for sample in self.found if low <= sample.at_s <= high)


class Pinger(threading.Thread):
    """Asks one node for its status every few milliseconds, and keeps the longest time that an
    answer took: so long the node's loop stood, at most. A context manager; `error` is what ended
    it early."""

    def __init__(self, address: str):
        super().__init__(name=f"pinger of {address}")
        self.address = address
        self.longest_s = 0.0
        self.count = 0
        self.error: Exception | None = None
        self._stop_event = threading.Event()

    def __enter__(self) -> "Pinger":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop_event.set()
        self.join()

    def run(self) -> None:
        try:
            connection = Connection(self.address, clock() + _ANSWER_S)
            try:
                while not self._stop_event.wait(PING_S):
                    self._ask(connection)
            finally:
                connection.close()
        except (OSError, RaftnetError) as error:
            self.error = error

    def _ask(self, connection: Connection) -> None:
        began = time.monotonic()
        connection.send(encode_frame(Kind.STATUS, 1, b""), clock() + _ANSWER_S)
        while not connection.receive(clock() + _ANSWER_S):
            pass
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        self.count += 1

    @property
    def text(self) -> str:
        """For people."""
        ended = f", ended: {self.error}" if self.error else ""
        return (f"{self.address} answered {self.count} times, the longest took "
                f"{1000 * self.longest_s:.0f} ms{ended}")
