"""A long time of mixed load: memory, descriptors and disk of every node stay flat.

Messages of all sizes pass through queues, some wait in one, some consumers wait for them, lists are
executed, clients come and go, and now and then a backup is made; snapshots are made all the time.
What is judged: after a warm-up, the highest values of the last third of the time against those of
the first third.
"""

import os
import threading
import time
from collections.abc import Callable

from raftnet.client import Client
from tests.lasting.measures import AVAILABLE, MIB, Samples
from tests.lasting.passing import CALL_S, Load, Passing
from tools.processes import LocalCluster

ARGUMENTS = ["--snapshot-after", "1M", "--keep-log", "256K"]
WARM_UP_SHARE = 0.2         # of the time
SAMPLE_S = 2.0
# What the last third may have more than the first third.
RSS_MARGIN = 12 * MIB       # sessions of clients that came and went are remembered for 600 s
DESCRIPTORS_MARGIN = 8      # one client more at a time, and a file or two of a snapshot
DISK_MARGIN = 8 * MIB       # how late a snapshot is made is up to the machine
STANDING = 2_000            # messages that wait, the first one of them for ever
_REST_S = 0.03              # between two rounds: a steady load
_ODD_JOBS_S = 0.2           # between two short-lived clients
_BACKUP_JOBS = 150          # of those, to each backup


class SoakFailure(Exception):
    """Something does not hold."""


class OddJobs(threading.Thread):
    """What clients do besides: one that comes and goes with every turn. `error`: what ended it."""

    def __init__(self, addresses: list[str], backup_path: str):
        super().__init__(name="odd jobs")
        self.error: BaseException | None = None
        self.turns = 0
        self._addresses = addresses
        self._backup_path = backup_path
        self._stop_event = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_event.wait(_ODD_JOBS_S):
                with Client(self._addresses, CALL_S) as client:
                    self._turn(client)
                self.turns += 1
        except BaseException as error:
            self.error = error      # raised again by the main thread

    def _turn(self, client: Client) -> None:
        standing = client.queue("standing")
        standing.enqueue_batch([b"s%0500d" % self.turns] * 3)
        taken = client.execute([{"dequeue": "standing", "count": 3}, {"size": "standing"}])
        assert taken[1].messages == STANDING, taken[1]
        odd = client.queue(f"odd-{self.turns % 100}")
        odd.enqueue(b"o" * (1 << self.turns % 16))
        assert odd.dequeue(0.1) is not None
        assert odd.dequeue(0.05) is None        # waits for nothing
        client.queues()
        if self.turns % _BACKUP_JOBS == 0:
            client.backup(self._backup_path, force=True)

    def end(self) -> None:
        """Let it end its turn, and wait for that."""
        self._stop_event.set()
        self.join()
        if self.error is not None:
            raise AssertionError(f"odd jobs ended: {self.error!r}") from self.error


class SoakRun:
    """So many seconds. Raises SoakFailure, RaftnetError, AssertionError."""

    def __init__(self, seconds: float, say: Callable[[str], None] = lambda text: None,
                 sample_s: float = SAMPLE_S):
        assert AVAILABLE, "what a process takes is read from /proc"
        self._seconds = seconds
        self._say = say
        self._sample_s = sample_s
        self.passed = 0

    def run(self) -> None:
        """Everything."""
        with LocalCluster(3, arguments=ARGUMENTS) as cluster:
            cluster.start()
            try:
                samples = self._load(cluster)
                cluster.wait_settled()
                for address, each in samples.items():
                    self._say(judge(address, each))
            except BaseException:
                cluster.keep()
                raise

    def _load(self, cluster: LocalCluster) -> dict[str, Samples]:
        with Client(cluster.addresses, CALL_S) as client:
            client.queue("standing").enqueue_many(b"w%0500d" % n for n in range(STANDING))
        jobs = OddJobs(cluster.addresses, os.path.join(cluster.directory, "backup"))
        load = Load([
            Passing("small", cluster.addresses, sizes=(10, 200), rest_s=_REST_S),
            Passing("large", cluster.addresses, sizes=(1_000, 30_000), round_=20, rest_s=_REST_S),
            Passing("single", cluster.addresses, sizes=(10, 100), round_=1, rest_s=_REST_S / 3)])
        jobs.start()
        try:
            with load:
                return self._watch(cluster, load, jobs)
        finally:
            jobs.end()
            self.passed = load.passed
            self._say(f"{load.passed} messages passed in {self._seconds:g} s, "
                      f"{jobs.turns} clients came and went")

    def _watch(self, cluster: LocalCluster, load: Load, jobs: OddJobs) -> dict[str, Samples]:
        samples = {node.address: Samples() for node in cluster.nodes}
        end_s = time.monotonic() + self._seconds
        told_s = time.monotonic()
        while time.monotonic() < end_s and jobs.error is None:
            load.check()
            for node in cluster.nodes:
                samples[node.address].take(node.pid, cluster.data_of(node.address))
            if time.monotonic() - told_s >= 60:
                told_s = time.monotonic()
                self._say(f"{end_s - told_s:.0f} s are left: " + ", ".join(
                    f"{each.found[-1].rss / MIB:.0f} MiB" for each in samples.values()))
            time.sleep(min(self._sample_s, max(0.0, end_s - time.monotonic())))
        return samples


def judge(address: str, samples: Samples) -> str:
    """The last third against the first one, in words. Raises SoakFailure."""
    third = (1 - WARM_UP_SHARE) / 3
    parts, missed = [], []
    for name, margin, unit in (("rss", RSS_MARGIN, MIB), ("disk", DISK_MARGIN, MIB),
                               ("descriptors", DESCRIPTORS_MARGIN, 1)):
        first = samples.highest(name, WARM_UP_SHARE, WARM_UP_SHARE + third)
        last = samples.highest(name, 1 - third)
        parts.append(f"{name} {first / unit:.0f}, later {last / unit:.0f}"
                     + (" MiB" if unit == MIB else ""))
        if last > first + margin:
            missed.append(f"{name} {last}, and {first} before")
    if missed:
        raise SoakFailure(f"{address} grows: {'; '.join(missed)}")
    return f"{address}, {len(samples.found)} samples: {'; '.join(parts)}"
