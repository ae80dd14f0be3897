"""Real nodes whose disk is full: what is refused, what goes on, and that it ends by itself.

Of three: the leader's disk is filled; it hands over, clients notice nothing but a pause; it goes on
voting; with room again it catches up, the same process. Alone: DISK_FULL, and reads go on.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from raftnet.client import Client
from raftnet.errors import ErrorCode, NoAnswerError, RefusedError
from tests.lasting.passing import CALL_S, Load, Passing
from tests.lasting.smalldisk import SmallDisk
from tools.processes import HOST, ROOT, LocalCluster, NodeProcess, free_ports, wait_until

ARGUMENTS = ["--snapshot-after", "256K", "--keep-log", "64K"]
_LIMIT_S = 30.0
_REFUSED_S = 0.5            # time limit of a client that is refused
_MESSAGE = b"f" * 10_000    # longer than what is left of a block
_MORE = 1_000               # messages that must pass after each step
_ROUND = 100


class FullDiskFailure(Exception):
    """Something does not hold."""


class FullDiskRun:
    """Raises FullDiskFailure, RaftnetError, AssertionError."""

    def __init__(self, say: Callable[[str], None] = lambda text: None):
        self._say = say

    # --- of three

    def of_three(self) -> None:
        """The leader's disk is full, and later has room again."""
        with SmallDisk() as disk, LocalCluster(founders=False, arguments=ARGUMENTS) as cluster:
            try:
                self._of_three(cluster, disk)
            except BaseException:
                cluster.keep()
                raise

    def _of_three(self, cluster: LocalCluster, disk: SmallDisk) -> None:
        addresses = [f"{HOST}:{port}" for port in free_ports(3)]
        for address in addresses:
            cluster.add(address, [address, "--cluster", ",".join(addresses)])
        full = cluster.nodes[0]
        _set_data(full, os.path.join(disk.directory, "data"))
        cluster.start()
        with Client(addresses, CALL_S) as client:
            if cluster.leader() is not full:
                client.transfer(full.address)
            pid, boot = full.pid, full.status().boot
            with Load([Passing("meanwhile", addresses, round_=_ROUND)]) as load:
                load.wait_more(_MORE, _LIMIT_S)
                began = time.monotonic()
                disk.fill()
                wait_until(lambda: cluster.find_leader() not in (None, full), _LIMIT_S,
                           f"another node leads; the logs: {cluster.directory}")
                load.wait_more(_MORE, _LIMIT_S)
                self._say(f"the leader's disk is full: another leads, and {_MORE} messages have "
                          f"passed, after {time.monotonic() - began:.2f} s")
                self._goes_on(full)
            # Its process would have to write to follow the load; the votes come first.
            self._votes(cluster, full)
            disk.free()
            with Load([Passing("afterwards", addresses, round_=_ROUND)]) as load:
                load.wait_more(_MORE, _LIMIT_S)
            cluster.wait_settled()
        if full.pid != pid or full.status().boot != boot:
            raise FullDiskFailure(f"{full.address} was restarted")
        self._say("with room again it is as far as the others, without a restart")

    def _goes_on(self, node: NodeProcess) -> None:
        """It answers, and says why it refuses."""
        if not node.running or "the disk is full" not in node.log_text():
            raise FullDiskFailure(f"{node.address} does not say that its disk is full: "
                                  f"{node.last_line()}")

    def _votes(self, cluster: LocalCluster, full: NodeProcess) -> None:
        """The leader dies: the third node needs this one's vote."""
        leader = cluster.leader()
        third = next(node for node in cluster.nodes if node not in (leader, full))
        leader.kill()
        began = time.monotonic()
        wait_until(lambda: third.status().role == "leader", _LIMIT_S,
                   f"{third.address} is elected by the node with the full disk; the logs: "
                   f"{cluster.directory}")
        self._say(f"the leader dies: the third node is elected after "
                  f"{time.monotonic() - began:.2f} s, by the one with the full disk")
        leader.start().wait_ready()

    # --- alone

    def alone(self) -> None:
        """A lone node: DISK_FULL, reads, and room again."""
        with SmallDisk() as disk, LocalCluster(1, arguments=ARGUMENTS) as cluster:
            try:
                self._alone(cluster, disk)
            except BaseException:
                cluster.keep()
                raise

    def _alone(self, cluster: LocalCluster, disk: SmallDisk) -> None:
        node = cluster.nodes[0]
        _set_data(node, os.path.join(disk.directory, "data"))
        cluster.start()
        pid = node.pid
        with Client(cluster.addresses, CALL_S) as client:
            first = client.queue("first").enqueue(b"first")
            disk.fill()
            self._fill_up(cluster)
            code = _refusal(cluster)
            if code != ErrorCode.DISK_FULL:
                raise FullDiskFailure(f"a lone node with a full disk answers {code!r}")
            found = client.queue("first").peek()
            if [message.id for message in found] != [first]:
                raise FullDiskFailure(f"reads: {found}")
            said = _mqclient(cluster, "--timeout", str(_REFUSED_S), "enqueue", "x")
            if "disk is full" not in said.stderr or said.returncode == 0:
                raise FullDiskFailure(f"mqclient says: {said}")
            self._say(f"alone, and full: reads go on, and mqclient says: {said.stderr.strip()}")
            disk.free()
            began = time.monotonic()
            last = client.queue("first").enqueue(b"last")
            self._say(f"room again: an enqueue is answered after {time.monotonic() - began:.2f} s")
            found = client.queue("first").peek(10)
            if [message.id for message in found] != [first, last] or node.pid != pid:
                raise FullDiskFailure(f"afterwards: {found}")

    def _fill_up(self, cluster: LocalCluster) -> None:
        """The node has noticed: what it was asked when it was full waits for room, and its outcome
        is not known before."""
        node = cluster.nodes[0]

        def noticed() -> bool:
            _refusal(cluster)
            return "the disk is full" in node.log_text()
        wait_until(noticed, _LIMIT_S, f"{node.address} notices that its disk is full")


def _refusal(cluster: LocalCluster) -> int:
    """The code with which an enqueue is refused."""
    with Client(cluster.addresses, _REFUSED_S) as client:
        try:
            client.queue("refused").enqueue(_MESSAGE)
        except RefusedError as error:
            return error.code
        except NoAnswerError:
            return 0
    return 0


def _mqclient(cluster: LocalCluster, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s",
         ",".join(cluster.addresses), *words], capture_output=True, text=True, timeout=_LIMIT_S)


def _set_data(node: NodeProcess, directory: str) -> None:
    node.arguments[node.arguments.index("--data") + 1] = directory
