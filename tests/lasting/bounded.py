"""One message that nobody takes, while very many others pass: what the nodes hold stays bounded.

Afterwards the cluster is idle, and writes nothing: no file changes, and no process causes a byte to
be written.
"""

import time
from collections.abc import Callable

from raftnet.client import Client
from tests.lasting.measures import (
    AVAILABLE, MIB, Samples, disk_bytes, files_of, written_bytes)
from tests.lasting.passing import Load, Passing
from tools.processes import LocalCluster, wait_until

# Of a node; what it holds at most, with the settings of `run`. A log of SNAPSHOT_AFTER is cut, but
# while a busy machine makes the snapshot, it grows on, and its successor lies beside it.
SNAPSHOT_AFTER = "1M"
KEEP_LOG = "256K"
DISK_BYTES_MAX = 24 * MIB
RSS_GROWTH_MAX = 32 * MIB
QUEUES = 2
IDLE_S = 3.0                # a few election timeouts: who writes without need has done it by then
_LIMIT_S = 600.0


class BoundedFailure(Exception):
    """Something does not hold."""


class BoundedRun:
    """`count` messages pass. Raises BoundedFailure, RaftnetError, AssertionError."""

    def __init__(self, count: int, say: Callable[[str], None] = lambda text: None,
                 idle_s: float = IDLE_S):
        self._count = count
        self._say = say
        self._idle_s = idle_s

    def run(self) -> None:
        """Everything."""
        # Lines about heartbeats would be writing, too.
        arguments = ["--snapshot-after", SNAPSHOT_AFTER, "--keep-log", KEEP_LOG,
                     "--log-level", "warning"]
        with LocalCluster(3, arguments=arguments) as cluster:
            cluster.start()
            try:
                self._run(cluster)
            except BaseException:
                cluster.keep()
                raise

    def _run(self, cluster: LocalCluster) -> None:
        with Client(cluster.addresses) as client:
            stuck = client.queue("stuck").enqueue("never dequeued")
            samples = self._pass(cluster)
            cluster.wait_settled()
            wait_until(lambda: all(node.wait_ready().snapshot_index for node in cluster.nodes),
                       _LIMIT_S, f"every node makes a snapshot; the logs: {cluster.directory}")
            for node in cluster.nodes:
                self._judge(node.address, samples[node.address])
            found = client.queue("stuck").peek()
            if [(message.id, message.data) for message in found] != [(stuck, b"never dequeued")]:
                raise BoundedFailure(f"the message that nobody took is {found}")
        self._idle(cluster)

    def _pass(self, cluster: LocalCluster) -> dict[str, Samples]:
        samples = {node.address: Samples() for node in cluster.nodes}

        def sample() -> None:
            for node in cluster.nodes:
                if AVAILABLE:
                    samples[node.address].take(node.pid, cluster.data_of(node.address))
                elif disk_bytes(cluster.data_of(node.address)) > DISK_BYTES_MAX:
                    raise BoundedFailure(f"{node.address} holds more than {DISK_BYTES_MAX} bytes")
        began = time.monotonic()
        with Load([Passing(f"through-{number}", cluster.addresses, self._count // QUEUES)
                   for number in range(QUEUES)]) as load:
            load.wait_passed(self._count // QUEUES * QUEUES, _LIMIT_S, sample)
        took_s = time.monotonic() - began
        self._say(f"{load.passed} messages passed in {took_s:.1f} s")
        return samples

    def _judge(self, address: str, samples: Samples) -> None:
        if not AVAILABLE:
            return
        # The first tenth is warming up: the interpreter takes what it needs, and keeps it.
        before, rss = samples.highest("rss", 0.0, 0.4), samples.highest("rss")
        disk = samples.highest("disk")
        self._say(f"{address}: at most {disk / MIB:.1f} MiB of disk, {rss / MIB:.0f} MiB of memory "
                  f"({before / MIB:.0f} in the beginning)")
        if disk > DISK_BYTES_MAX:
            raise BoundedFailure(f"{address} held {disk} bytes on the disk")
        if rss > before + RSS_GROWTH_MAX:
            raise BoundedFailure(f"{address} had {before} bytes of memory, and {rss} later")

    def _idle(self, cluster: LocalCluster) -> None:
        """Nothing is written, once what the load left behind is done."""
        files = wait_until(lambda: _quiet(cluster, min(1.0, self._idle_s)), _LIMIT_S,
                           "the nodes come to rest")
        written = [written_bytes(node.pid) for node in cluster.nodes] if AVAILABLE else []
        time.sleep(self._idle_s)        # that nothing happens can only be waited for
        if _files(cluster) != files:
            raise BoundedFailure(f"an idle cluster changes its files: {files}, and later "
                                 f"{_files(cluster)}")
        if AVAILABLE:
            later = [written_bytes(node.pid) for node in cluster.nodes]
            if later != written:
                raise BoundedFailure(f"an idle cluster writes: {written} bytes, later {later}")
        self._say(f"idle for {self._idle_s:g} s: nothing is written")


def _files(cluster: LocalCluster) -> list[dict[str, tuple[int, int]]]:
    return [files_of(cluster.data_of(node.address)) for node in cluster.nodes]


def _quiet(cluster: LocalCluster, seconds: float) -> list | None:
    """The files, if they have not changed for so long."""
    before = _files(cluster)
    time.sleep(seconds)
    return before if _files(cluster) == before else None
