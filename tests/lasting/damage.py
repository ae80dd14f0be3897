"""A node of three whose files are damaged heals by itself, and one that is alone says what to do.

Each case stops a follower, damages one file of it, starts it, and waits until it is a voter again
and all are equal. What was damaged must lie beside it, unchanged.
"""

import glob
import os
import re
import time
from collections.abc import Callable

from raftnet.client import Client
from raftnet.storage.damage import DAMAGED_PREFIX
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.metafile import IDENTITY_NAME, META_NAME
from raftnet.storage.snapshot import SNAPSHOT_NAME
from tests.lasting.passing import CALL_S, Load, Passing
from tools.processes import LocalCluster, NodeProcess, check_digests, wait_until

ARGUMENTS = ["--snapshot-after", "256K", "--keep-log", "64K"]
_LIMIT_S = 60.0
_MESSAGES = 2_000           # that pass before the first case: there is a snapshot then
_REST_S = 0.01
_ROUND = 100


class DamageFailure(Exception):
    """Something does not hold."""


def flip(path: str) -> None:
    """A byte in the middle, where it was durable long ago."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def zero(path: str) -> None:
    """A block near the beginning."""
    with open(path, "r+b") as file:
        file.seek(min(4096, os.path.getsize(path) // 4))
        file.write(bytes(min(4096, os.path.getsize(path) // 2)))


def zero_all(path: str) -> None:
    """Every byte: `meta` holds two copies, and one of them is enough."""
    size = os.path.getsize(path)
    with open(path, "wb") as file:
        file.write(bytes(size))


def cut(path: str) -> None:
    """To half of its size."""
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path: str) -> None:
    """No byte is left."""
    os.truncate(path, 0)


# (file, what happens to it)
CASES = [(LOG_NAME, flip), (LOG_NAME, zero), (LOG_NAME, cut), (LOG_NAME, empty),
         (LOG_NAME, os.remove), (SNAPSHOT_NAME, flip), (SNAPSHOT_NAME, cut),
         (SNAPSHOT_NAME, os.remove), (META_NAME, zero_all), (META_NAME, empty),
         (META_NAME, os.remove), (IDENTITY_NAME, flip), (IDENTITY_NAME, empty),
         (IDENTITY_NAME, os.remove)]
# Alone, the log's half could be all there is: its newest batches may never have been durable.
LONE_CASES = [case for case in CASES if case != (LOG_NAME, cut)]


class DamageRun:
    """Cases of damage, each once. Raises DamageFailure, RaftnetError, AssertionError."""

    def __init__(self, cases: list[tuple[str, Callable[[str], None]]],
                 say: Callable[[str], None] = lambda text: None):
        self._cases = cases
        self._say = say

    def run(self) -> None:
        """Every case, one after the other, under load."""
        with LocalCluster(3, arguments=ARGUMENTS) as cluster:
            cluster.start()
            try:
                with (Client(cluster.addresses, CALL_S) as client,
                      Load([Passing("meanwhile", cluster.addresses, round_=_ROUND,
                                    rest_s=_REST_S)]) as load):
                    stays = client.queue("stays").enqueue_many(b"%d" % n for n in range(1_000))
                    load.wait_more(_MESSAGES, _LIMIT_S)
                    for name, damage in self._cases:
                        self._case(cluster, client, name, damage)
                        load.wait_more(_ROUND, _LIMIT_S)
                    found = [message.id for message in client.queue("stays").peek(2_000)]
                    if found != stays:
                        raise DamageFailure(f"{len(found)} messages are there of {len(stays)}")
                check_digests(cluster.wait_settled().values())
            except BaseException:
                cluster.keep()
                raise

    def _case(self, cluster: LocalCluster, client: Client, name: str,
              damage: Callable[[str], None]) -> None:
        leader = cluster.leader()
        node = next(each for each in cluster.nodes if each is not leader)
        client.snapshot(node.address)
        old_id = node.status().node_id
        node.interrupt()
        directory = cluster.data_of(node.address)
        path = os.path.join(directory, name)
        aside = set(os.listdir(directory))
        damage(path)
        there = _read(path)
        what = f"{name}, {damage.__name__}"
        self._must_refuse(node, path, what)
        began = time.monotonic()
        node.start()
        wait_until(lambda: _has_healed(cluster, node, old_id), _LIMIT_S,
                   f"{node.address} heals ({what}); its log: {node.log_path}")
        took_s = time.monotonic() - began
        kept = [each for each in os.listdir(directory) if each not in aside
                and re.fullmatch(rf"{DAMAGED_PREFIX}\d+\.{name}", each)]
        if there is not None and [_read(os.path.join(directory, each))
                                  for each in kept] != [there]:
            raise DamageFailure(f"{what}: the damaged file is not kept, only {kept}")
        self._say(f"{what}: healed in {took_s:.2f} s, a voter again")
        for each in glob.glob(os.path.join(directory, DAMAGED_PREFIX + "*")):
            os.remove(each)

    def _must_refuse(self, node: NodeProcess, path: str, what: str) -> None:
        """With --no-healing it does not start, and changes nothing."""
        before = _read(path)
        node.arguments.append("--no-healing")
        try:
            status = node.start().wait(_LIMIT_S)
        finally:
            node.arguments.remove("--no-healing")
        lines = [line for line in node.log_text().splitlines() if line.startswith("node.py: ")]
        if status != 1 or len(lines) != 1 or "Traceback" in node.log_text():
            raise DamageFailure(f"{what}: with --no-healing status {status}: {node.log_text()}")
        if _read(path) != before:
            raise DamageFailure(f"{what}: --no-healing changes the file")


def _read(path: str) -> bytes | None:
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _has_healed(cluster: LocalCluster, node: NodeProcess, old_id: int) -> bool:
    """Whether it is a voter under a new node id, has no other entry in the membership, and holds
    what the leader held a moment ago."""
    if not node.running:
        raise DamageFailure(f"{node.address} ended: {node.last_line()}")
    leader, here = cluster.find_leader(), node.status()
    there = leader.status() if leader is not None else None
    if None in (there, here) or here.node_id == old_id:
        return False
    members = {member.node_id: member.voter for member in there.members}
    return (members.get(here.node_id, False) and len(members) == 3
            and here.applied_index >= there.applied_index - 1_000)


def refuse_alone(name: str, damage: Callable[[str], None]) -> str:
    """A lone node whose file is damaged ends with status 1 and one line, which names the file and
    says what to do, and nothing is changed; that line. Raises DamageFailure, RaftnetError."""
    with LocalCluster(1, arguments=ARGUMENTS) as cluster:
        node = cluster.start().nodes[0]
        with Client(cluster.addresses, CALL_S) as client:
            client.queue().enqueue_many(b"%0200d" % number for number in range(1_000))
            client.snapshot()
            client.queue().enqueue_many(b"%0200d" % number for number in range(1_000))
        node.interrupt()
        directory = cluster.data_of(node.address)
        damage(os.path.join(directory, name))
        before = {each: _read(os.path.join(directory, each)) for each in os.listdir(directory)}
        status = node.start().wait(_LIMIT_S)
        after = {each: _read(os.path.join(directory, each)) for each in os.listdir(directory)}
        said = [line for line in node.log_text().splitlines() if not line.startswith("[")]
        if (status != 1 or len(said) != 1 or "--restore" not in said[0]
                or os.path.join(directory, name) not in said[0]):
            raise DamageFailure(f"alone, {name}, {damage.__name__}: status {status}, {said}")
        if before != after:
            raise DamageFailure(f"alone, {name}, {damage.__name__}: it changes "
                                f"{[each for each in before if before[each] != after.get(each)]}")
        return said[0]
