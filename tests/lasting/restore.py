"""A backup of a running cluster becomes a new one, and so does a stopped node's directory.

The backup is made by mqclient under load. What it must hold: everything acknowledged before, each
message once and in order. The restored node is alone; two more join it. What is used wrongly is
told in one line.
"""

import os
import subprocess
import sys
from collections.abc import Callable

from raftnet.client import Client
from tests.lasting.passing import CALL_S, Load, Passing
from tools.processes import (
    HOST, ROOT, LocalCluster, NodeProcess, check_digests, free_ports, wait_until)

ARGUMENTS = ["--snapshot-after", "256K", "--keep-log", "64K"]
_LIMIT_S = 60.0
_QUEUE = "kept"
_MESSAGES = 3_000           # that pass before the backup
_ROUND = 100


class RestoreFailure(Exception):
    """Something does not hold."""


class RestoreRun:
    """`count` messages are in the queue that is looked at. Raises RestoreFailure, RaftnetError,
    AssertionError."""

    def __init__(self, count: int, say: Callable[[str], None] = lambda text: None):
        self._count = count
        self._say = say

    def run(self, short: bool = False) -> None:
        """Everything; `short`: the backup, and one thing that is wrong."""
        with LocalCluster(3, arguments=ARGUMENTS) as cluster:
            cluster.start()
            try:
                wanted, backup = self._back_up(cluster)
                self._wrong(cluster, backup, short)
                stopped = cluster.leader()
                cluster.stop()
                self._begin(cluster, backup, wanted, "a backup")
                if not short:
                    self._begin(cluster, cluster.data_of(stopped.address), wanted,
                                "a stopped node's directory")
            except BaseException:
                cluster.keep()
                raise

    def _back_up(self, cluster: LocalCluster) -> tuple[list[tuple[int, bytes]], str]:
        path = os.path.join(cluster.directory, "backup")
        with Client(cluster.addresses, CALL_S) as client, Load(
                [Passing("meanwhile", cluster.addresses, round_=_ROUND)]) as load:
            queue = client.queue(_QUEUE)
            data = [b"%0100d" % number for number in range(self._count)]
            wanted = list(zip(queue.enqueue_many(data), data))
            load.wait_more(_MESSAGES, _LIMIT_S)
            said = mqclient(cluster, "backup", path)
            if said.returncode:
                raise RestoreFailure(f"the backup failed: {said}")
        self._say(f"a backup of {os.path.getsize(path)} bytes, under load: {said.stdout.strip()}")
        return wanted, path

    def _begin(self, cluster: LocalCluster, source: str, wanted: list[tuple[int, bytes]],
               what: str) -> None:
        """A new cluster of it, and two more nodes."""
        with LocalCluster(founders=False, arguments=ARGUMENTS) as new:
            addresses = [f"{HOST}:{port}" for port in free_ports(3)]
            first = new.add(addresses[0], [addresses[0], "--restore", source])
            first.start().wait_ready(_LIMIT_S)
            cluster_id = first.status().cluster_id
            for address in addresses[1:]:
                new.add(address, [address, "--join", addresses[0]]).start()
            wait_until(lambda: _are_voters(first, addresses), _LIMIT_S,
                       f"three voters; the logs: {new.directory}")
            with Client(addresses, CALL_S) as client:
                more = client.queue(_QUEUE).enqueue(b"the first one of the new cluster")
                found = []
                while messages := client.queue(_QUEUE).dequeue_many(1_000):
                    found += [(message.id, message.data) for message in messages]
                if found != [*wanted, (more, b"the first one of the new cluster")]:
                    raise RestoreFailure(f"{what}: {len(found)} messages, or others")
            check_digests(new.wait_settled().values())
            self._start_again(first, cluster_id)
        self._say(f"{what}: a new cluster, all {len(wanted)} messages in order, two more joined")

    def _start_again(self, node: NodeProcess, cluster_id: bytes) -> None:
        """With the same command line it must not begin anew over what is there."""
        node.interrupt()
        status = node.start().wait(_LIMIT_S)
        _one_line(node, status, "restore into an empty directory")
        at = node.arguments.index("--restore")
        del node.arguments[at:at + 2]
        if node.start().wait_ready().cluster_id != cluster_id:
            raise RestoreFailure("it begins anew over what is there")

    # --- used wrongly

    def _wrong(self, cluster: LocalCluster, backup: str, short: bool) -> None:
        running = cluster.data_of(cluster.nodes[0].address)
        damaged = os.path.join(cluster.directory, "damaged")
        with open(backup, "rb") as file:
            data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        with open(damaged, "wb") as file:
            file.write(data)
        cut = os.path.join(cluster.directory, "cut")
        with open(cut, "wb") as file:
            file.write(data[:len(data) // 2])
        nothing = os.path.join(cluster.directory, "nothing")
        os.mkdir(nothing)
        cases = [(damaged, "damaged at byte"), (cut, "damaged at byte"),
                 (os.path.join(ROOT, "README.md"), "damaged at byte 0"),
                 (os.path.join(cluster.directory, "absent"), "no such file"),
                 (nothing, "no data directory of a node"), (running, "another process uses this")]
        for source, words in cases[:1 if short else None]:
            node = cluster.add(f"{HOST}:{free_ports(1)[0]}", [])
            node.arguments = [node.address, "--data", cluster.data_of(node.address), "--restore",
                              source]
            status = node.start().wait(_LIMIT_S)
            cluster.nodes.remove(node)
            self._say(f"--restore of {os.path.basename(source)}: {_one_line(node, status, words)}")
            left = os.listdir(cluster.data_of(node.address)) if os.path.isdir(
                cluster.data_of(node.address)) else []
            if "identity" in left or "snapshot" in left:
                raise RestoreFailure(f"--restore of {source} left {left}")
        if os.listdir(nothing):
            raise RestoreFailure(f"--restore writes into its source: {os.listdir(nothing)}")


def mqclient(cluster: LocalCluster, *words: str) -> subprocess.CompletedProcess:
    """The command line client, asking that cluster."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s", ",".join(cluster.addresses),
         *words], capture_output=True, text=True, timeout=_LIMIT_S)


def _one_line(node: NodeProcess, status: int | None, words: str) -> str:
    """What a node said that could not start."""
    said = [line for line in node.log_text().splitlines() if not line.startswith("[")]
    if status != 1 or len(said) != 1 or words not in said[0]:
        raise RestoreFailure(f"{node.arguments}: status {status}, {said}")
    return said[0]


def _are_voters(node: NodeProcess, addresses: list[str]) -> bool:
    status = node.status()
    return status is not None and sorted(
        member.address for member in status.members if member.voter) == sorted(addresses)
