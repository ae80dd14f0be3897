"""A follower that is far behind gets a snapshot, under load, and whatever kills it meanwhile.

First it is stopped while very many messages pass. Then there is ballast, so that an install takes
a while, and it is killed with kill -9 at random moments of it, over and over. Where it was hit is
read from its files. In the end all nodes must be equal.
"""

import collections
import os
import random
import time
from collections.abc import Callable

from raftnet.client import Client
from raftnet.storage.logfile import LOG_NAME, NEW_LOG_NAME
from raftnet.storage.records import HEADER_BYTES, decode_header
from raftnet.storage.snapshot import RECEIVED_NAME, SNAPSHOT_NAME
from tests.lasting.passing import CALL_S, Load, Passing
from tools.processes import LocalCluster, NodeProcess, check_digests, wait_until

ARGUMENTS = ["--snapshot-after", "256K", "--keep-log", "64K"]
BALLAST_BYTES = 400         # a message of it
INSTALLED = "the state is that of the snapshot"     # what a node says
_GAP_MESSAGES = 2_000       # more than the log that is kept
_REST_S = 0.02              # of the load between two rounds, while installs are hit
_ROUND = 100
_LIMIT_S = 120.0
_LATEST = 0.9               # a kill comes no later than at this share of what an install takes


class InstallFailure(Exception):
    """Something does not hold."""


class InstallRun:
    """`count` messages pass while a follower is stopped; then `kills` installs are hit, with
    `ballast` messages waiting. Raises InstallFailure, RaftnetError, AssertionError."""

    def __init__(self, seed: int, count: int, ballast: int, kills: int,
                 say: Callable[[str], None] = lambda text: None):
        self._random = random.Random(seed)
        self._count = count
        self._ballast = ballast
        self._kills = kills
        self._say = say
        self.hits: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Everything."""
        with LocalCluster(3, arguments=ARGUMENTS) as cluster:
            cluster.start()
            try:
                with Client(cluster.addresses, CALL_S) as client:
                    if self._count:
                        self._return(cluster)
                    self._hit(cluster, client)
            except BaseException:
                cluster.keep()
                raise

    # --- stopped for long

    def _return(self, cluster: LocalCluster) -> None:
        follower = _follower(cluster)
        with Load([Passing("away", cluster.addresses)]) as load:
            follower.kill()
            last_index = cluster.leader().wait_ready().last_index   # the follower's is no higher
            load.wait_more(self._count, _LIMIT_S)
            _wait_cut(cluster, follower, last_index)
            began = time.monotonic()
            follower.start()
            wait_until(lambda: INSTALLED in follower.log_text(), _LIMIT_S,
                       f"{follower.address} gets a snapshot; its log: {follower.log_path}")
            installed_s = time.monotonic() - began
            wait_until(lambda: _is_near(cluster, follower), _LIMIT_S,
                       f"{follower.address} has caught up under load")
            self._say(f"away for {self._count} messages: a snapshot after {installed_s:.1f} s, "
                      f"as far as the others after {time.monotonic() - began:.1f} s, under load")
        check_digests(cluster.wait_settled().values())

    # --- hit again and again

    def _hit(self, cluster: LocalCluster, client: Client) -> None:
        client.queue("ballast").enqueue_many(b"%0*d" % (BALLAST_BYTES, number)
                                             for number in range(self._ballast))
        with Load([Passing("meanwhile", cluster.addresses, round_=_ROUND, rest_s=_REST_S)]) as load:
            follower = _follower(cluster)
            self._fall_behind(cluster, client, follower, load)
            install_s = self._install(follower)
            self._say(f"an install with {self._ballast} messages takes {install_s:.2f} s")
            behind = False
            for _ in range(self._kills):
                if not behind:
                    self._fall_behind(cluster, client, follower, load)
                follower.start().wait_ready()
                time.sleep(self._random.uniform(0, _LATEST * install_s))    # the moment of the hit
                follower.kill()
                behind = INSTALLED not in follower.log_text()
                self.hits[_moment(cluster, follower, behind)] += 1
            follower.start().wait_ready(_LIMIT_S)
            load.wait_more(_GAP_MESSAGES, _LIMIT_S)
        check_digests(cluster.wait_settled().values())
        size = client.queue("ballast").size()
        if size.messages != self._ballast:
            raise InstallFailure(f"{size.messages} messages wait, of {self._ballast}")
        for node in cluster.nodes:
            if "Traceback" in node.log_text():
                raise InstallFailure(f"{node.address} wrote a traceback: {node.log_path}")
        self._say(f"killed {self._kills} times, and equal to the others: {dict(self.hits)}")

    def _fall_behind(self, cluster: LocalCluster, client: Client, follower: NodeProcess,
                     load: Load) -> None:
        """It is down, and what it lacks is cut from the logs of both others."""
        follower.kill()
        last_index = cluster.leader().wait_ready().last_index
        load.wait_more(_GAP_MESSAGES, _LIMIT_S)
        for node in cluster.nodes:
            if node is not follower:
                client.snapshot(node.address)
        _wait_cut(cluster, follower, last_index)

    def _install(self, follower: NodeProcess) -> float:
        """Seconds of an undisturbed one, from the first answer on."""
        follower.start().wait_ready(_LIMIT_S)
        began = time.monotonic()
        wait_until(lambda: INSTALLED in follower.log_text(), _LIMIT_S,
                   f"{follower.address} gets a snapshot; its log: {follower.log_path}")
        return time.monotonic() - began


def _follower(cluster: LocalCluster) -> NodeProcess:
    leader = cluster.leader()
    return next(node for node in cluster.nodes if node is not leader)


def _wait_cut(cluster: LocalCluster, follower: NodeProcess, last_index: int) -> None:
    """Until both others hold no entry any more that could follow the follower's last one."""
    others = [cluster.data_of(node.address) for node in cluster.nodes if node is not follower]
    wait_until(lambda: all(_base_index(directory) > last_index for directory in others), _LIMIT_S,
               f"the logs are cut behind entry {last_index}; the logs: {cluster.directory}")


def _base_index(directory: str) -> int:
    path = os.path.join(directory, LOG_NAME)
    with open(path, "rb") as file:
        return decode_header(file.read(HEADER_BYTES), path).base_index


def _is_near(cluster: LocalCluster, node: NodeProcess) -> bool:
    """Whether it applied what another one had applied a moment ago."""
    leader = cluster.find_leader()
    there = leader.status() if leader is not None else None
    here = node.status()
    return None not in (there, here) and here.applied_index >= there.applied_index - 1_000


def _moment(cluster: LocalCluster, follower: NodeProcess, behind: bool) -> str:
    """What it was doing, by the files that it left."""
    directory = cluster.data_of(follower.address)
    if not behind:
        return "afterwards"
    if os.path.exists(os.path.join(directory, NEW_LOG_NAME)):
        return "with a new log on its way"
    received = os.path.join(directory, RECEIVED_NAME)
    if not os.path.exists(received):
        return "before the first byte"
    wanted = max(os.path.getsize(os.path.join(cluster.data_of(node.address), SNAPSHOT_NAME))
                 for node in cluster.nodes if node is not follower)
    return ("while it was built" if os.path.getsize(received) >= wanted
            else "while bytes came")
