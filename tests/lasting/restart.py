"""How long a start takes, and what a million messages cost: in memory, and in stalls of the loop.

Two directories, both of a lone node: a log of single enqueues, an entry each, without a snapshot;
and a queue of as many messages in a snapshot. For each: the time from the process's start until a
client has read, and the memory then. With the second: the longest answer to STATUS while a snapshot
is made, and while it is installed on two nodes that join. Goals are those of the issue; figures of
a busy machine say little, so `judged` counts double.
"""

import os
import tempfile
import time
from collections.abc import Callable

from raftnet.client import Client
from tests.lasting.directories import batches, make_directory, single_enqueues
from tests.lasting.measures import MIB, Pinger, rss_bytes
from tools.processes import LocalCluster, NodeProcess, check_digests, wait_until

MESSAGE_BYTES = 100
START_S_MAX = 5.0           # the goals
BYTES_A_MESSAGE_MAX = 400
STALL_S_MAX = 0.050
_LIMIT_S = 120.0            # of any wait


class RestartFailure(Exception):
    """Something does not hold."""


class RestartRun:
    """One run with `count` entries and messages; `say(text)` hears the figures. `factor`: by how
    much each goal may be missed, 0: by anything. Raises RestartFailure, RaftnetError."""

    def __init__(self, count: int, say: Callable[[str], None] = lambda text: None,
                 factor: float = 0.0):
        self._count = count
        self._say = say
        self._factor = factor
        self._missed: list[str] = []

    def run(self) -> None:
        """Everything."""
        with LocalCluster(1) as cluster:
            self._replay(cluster)
        with LocalCluster(1, arguments=["--keep-log", "4K"]) as cluster:
            self._messages(cluster)
        if self._missed and self._factor:
            raise RestartFailure("; ".join(self._missed))

    def _judge(self, what: str, value: float, goal: float) -> None:
        if value > goal * self._factor:
            self._missed.append(f"{what}: {value:.3f}, the goal is {goal:g}")

    def _made(self, cluster: LocalCluster, entries) -> NodeProcess:
        node = cluster.nodes[0]
        make_directory(cluster.data_of(node.address), node.address, entries)
        return node

    def _start(self, node: NodeProcess, what: str) -> None:
        """Start it and tell how long it took until a client has read."""
        began = time.monotonic()
        node.start()
        node.wait_ready(_LIMIT_S)
        answers_s = time.monotonic() - began
        with Client([node.address], _LIMIT_S) as client:
            size = client.queue().size()
        serves_s = time.monotonic() - began
        rss = rss_bytes(node.pid)
        self._say(f"{what}: serves after {serves_s:.2f} s (answers after {answers_s:.2f} s), "
                  f"{rss / MIB:.0f} MiB, {rss / max(1, size.messages):.0f} bytes a message")
        if size.messages != self._count:
            raise RestartFailure(f"{size.messages} messages are there of {self._count}")
        self._judge(f"{what}, seconds", serves_s, START_S_MAX)

    def _replay(self, cluster: LocalCluster) -> None:
        node = self._made(cluster, single_enqueues(self._count, MESSAGE_BYTES))
        size = os.path.getsize(os.path.join(cluster.data_of(node.address), "log"))
        self._start(node, f"{self._count} entries, a log of {size / MIB:.0f} MiB")

    def _messages(self, cluster: LocalCluster) -> None:
        node = self._made(cluster, batches(self._count, MESSAGE_BYTES))
        self._start(node, f"{self._count} messages in batches of 1000")
        with Pinger(node.address) as pinger, Client([node.address], _LIMIT_S) as client:
            began = time.monotonic()
            held = client.snapshot()
            took_s = time.monotonic() - began
        self._say(f"a snapshot of {held.size / MIB:.0f} MiB, {took_s:.1f} s: {pinger.text}")
        self._judge("stall while a snapshot is made, seconds", pinger.longest_s, STALL_S_MAX)
        node.interrupt()
        self._start(node, f"{self._count} messages in a snapshot")
        rss = rss_bytes(node.pid)
        self._judge("bytes a message", rss / self._count, BYTES_A_MESSAGE_MAX)
        self._install(cluster, node)

    def _install(self, cluster: LocalCluster, node: NodeProcess) -> None:
        """Two more nodes join; everybody is asked all the time."""
        term = node.status().term
        for address in LocalCluster(2, founders=False).addresses:
            new = cluster.add(address, [address, "--join", node.address])
            began = time.monotonic()
            new.start().wait_ready()
            with Pinger(node.address) as of_leader, Pinger(new.address) as of_new:
                wait_until(lambda new=new: _is_voter(node, new), _LIMIT_S, f"{new} is a voter")
                took_s = time.monotonic() - began
            self._say(f"installed on {new.address}, a voter after {took_s:.1f} s, "
                      f"{rss_bytes(new.pid) / MIB:.0f} MiB: {of_leader.text}; {of_new.text}")
            self._judge("stall of the leader in an install, seconds", of_leader.longest_s,
                        STALL_S_MAX)
            self._judge("stall of a node that installs, seconds", of_new.longest_s, STALL_S_MAX)
        check_digests(cluster.wait_settled().values())
        status = node.status()
        if status.term != term:
            raise RestartFailure(f"an election: term {term} became {status.term}")


def _is_voter(leader: NodeProcess, node: NodeProcess) -> bool:
    status = leader.status()
    return status is not None and any(m.address == node.address and m.voter
                                      for m in status.members)
