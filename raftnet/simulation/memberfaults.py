"""Faults about who belongs: operators that change the members, directories that are emptied, moved
or put back.

Rules: an operator may ask for anything that leaves two voters and a quorum of whole ones; a
directory is emptied only where a quorum of whole ones remains (SimulatedCluster.may_lose), and its
node is started again by the same command, with --join, or as a lone founder. An old copy is put in
place only where it can be noticed: the directory was started once more since it was taken, and all
others run and know that later start (design: Founding and identity, "otherwise it cannot be"). A
process that begins remembers nothing, so when one does, an old copy that nobody has noticed yet is
taken away.
"""

from dataclasses import dataclass

from raftnet.raft.membership import Membership
from raftnet.replica import Start
from raftnet.simulation.disk import SimulatedDisk
from raftnet.simulation.node import SimulatedNode
from raftnet.wire.frames import Kind
from raftnet.wire.joining import (
    CHANGE_REMOVE, CHANGE_SET, CHANGE_TRANSFER, JOIN_STAYS, encode_change, encode_invite)

KINDS = ("join", "learner", "remove", "transfer", "set", "stop", "outage", "move", "restore",
         "wipe")
_NODES_MORE_MAX = 4         # than founders
_VOTERS_MIN = 2
_COPIES_MAX = 6
_COPY_PERCENT = 50          # of the moments of a fault: somebody makes a backup
_CARE_PERCENT = 10          # of them: a removed node is looked after
_RESTORE_WITHIN_MS, _RESTORE_EVERY_MS = 8_000, 250
_OUTAGE_MS_MIN, _OUTAGE_MS_MAX = 8_000, 20_000
_FOLLOWS_MS_MAX = 3_000     # what an operator does after a step


@dataclass(slots=True)
class _Copy:
    """A data directory as it was."""

    node_id: int
    boot: int
    files: dict[str, bytes]


class MemberFaults:
    """The faults of KINDS: a method each, of the node at which it happens."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._copies: list[_Copy] = []

    def _draw(self, choices: list):
        return choices[self._scheduler.randint(0, len(choices) - 1)]

    # --- operators

    @property
    def _membership(self) -> Membership:
        return self._cluster.invariants.membership

    def _change(self, operation: int, addresses: list[str]) -> None:
        self._cluster.ask(Kind.CHANGE, encode_change(operation, addresses))

    def _keeps_quorum(self, voters: list[int], more: int = 0) -> bool:
        """Whether so many of these are whole, that they and `more` new ones decide."""
        count = len(voters) + more
        whole = sum(map(self._cluster.is_whole, voters)) + more
        return count >= _VOTERS_MIN and whole >= count // 2 + 1

    def remove(self, node: SimulatedNode) -> None:
        """Half the time the node of the fault, often the leader; else any member, dead or alive."""
        members = self._membership.members
        if not members:
            return
        member = self._membership.member(node.node_id)
        if member is None or self._scheduler.chance(50):
            member = self._draw(list(members))
        left = [n for n in self._membership.voters if n != member.node_id]
        if self._keeps_quorum(left):
            name = member.address if self._scheduler.chance(70) else f"{member.node_id:016x}"
            self._change(CHANGE_REMOVE, [name])

    def transfer(self, node: SimulatedNode) -> None:
        """To any member."""
        if self._membership.members:
            self._change(CHANGE_TRANSFER, [self._draw(list(self._membership.members)).address])

    def set(self, node: SimulatedNode) -> None:
        """Some of the members stay, and nodes at new addresses come."""
        members = [m for m in self._membership.members if self._cluster.is_whole(m.node_id)]
        if not members or not self._cluster.is_founded:
            return
        leaving = self._scheduler.randint(0, 2)
        for _ in range(leaving):
            if len(members) > 1:
                members.remove(self._draw(members))
        coming = self._scheduler.randint(0, max(0, min(2, self._room)))
        if not self._keeps_quorum([m.node_id for m in members], coming):
            return
        addresses = sorted({m.address for m in members})
        for _ in range(coming):
            address = self._cluster.new_address()
            addresses.append(address)
            founders = list(addresses) if self._scheduler.chance(30) else [address]
            self._cluster.add(Start(address, founders=founders))
        self._change(CHANGE_SET, addresses)

    # --- nodes that come

    @property
    def _room(self) -> int:
        return self._cluster.founders + _NODES_MORE_MAX - len(self._cluster.nodes)

    def join(self, node: SimulatedNode) -> None:
        """One more node, which asks to be taken in; or one that is empty and is invited."""
        self._come(node, 0)

    def learner(self, node: SimulatedNode) -> None:
        """One more node, a learner that stays one."""
        self._come(node, JOIN_STAYS)

    def _come(self, node: SimulatedNode, flags: int) -> None:
        if self._room <= 0:
            return
        address = self._cluster.new_address()
        invited = self._scheduler.chance(30) and self._cluster.is_founded
        if not invited:
            self._cluster.add(Start(address, join=node.address, join_flags=flags))
            return
        self._cluster.add(Start(address, founders=[address]))
        body = encode_invite(self._cluster.invariants.cluster_id, node.address, flags)
        self._scheduler.after(self._scheduler.randint(500, _FOLLOWS_MS_MAX),
                              lambda: self._cluster.ask(Kind.INVITE, body, address))

    # --- processes

    def stop(self, node: SimulatedNode) -> None:
        """SIGTERM."""
        node.stop()

    def outage(self, node: SimulatedNode) -> None:
        """It ends, and is started again only after long."""
        node.crash(power_loss=False)
        node.down_until_ms = self._scheduler.now_ms + self._scheduler.randint(
            _OUTAGE_MS_MIN, _OUTAGE_MS_MAX)

    def move(self, node: SimulatedNode) -> None:
        """It ends, and is started again with its directory at another address. One at a time, and
        only one that knows itself and others as members: it is they whom it asks."""
        cluster = self._cluster
        for member in self._membership.members:
            holder = cluster.holder(member.node_id)
            if holder is not None and holder.address != member.address:
                return
        known = node.replica.raft.membership if node.replica.raft is not None else None
        if node.old_copy or known is None or known.member(node.node_id) is None or not any(
                cluster.belongs(m.address) for m in known.members if m.node_id != node.node_id):
            return
        contact = cluster.contact(node)
        if contact:
            node.crash(power_loss=False)
            cluster.move(node, contact)

    # --- directories

    def wipe(self, node: SimulatedNode) -> None:
        """The directory is emptied; its node comes back as a newcomer."""
        if not node.old_copy and self._cluster.may_lose(node):
            node.crash(power_loss=False)
            self._cluster.empty(node)

    def restore(self, node: SimulatedNode) -> None:
        """An old copy of a directory is started, as soon as it can be noticed."""
        self._restore_when_noticed(self._scheduler.now_ms + _RESTORE_WITHIN_MS)

    def _restore_when_noticed(self, end_ms: int) -> None:
        copies = [c for c in self._copies if self._can_be_noticed(c)]
        if copies:
            self._restore(self._draw(copies))
        elif self._scheduler.now_ms < end_ms:
            self._scheduler.after(_RESTORE_EVERY_MS, lambda: self._cluster.faults.running
                                  and self._restore_when_noticed(end_ms))

    def _restore(self, copy: _Copy) -> None:
        """In its place, or beside the node itself."""
        cluster = self._cluster
        holder = cluster.holder(copy.node_id)
        beside = self._scheduler.chance(30) and self._room > 0
        if not beside and not cluster.may_lose(holder):
            return
        if beside:
            holder = cluster.add(Start(cluster.new_address(), join=holder.address))
            holder.node_id = copy.node_id
        else:
            holder.crash(power_loss=False)
            cluster.lose(copy.node_id, "an old copy never votes or acknowledges")
        holder.disk = SimulatedDisk(holder.address)
        for name, data in copy.files.items():
            holder.disk.put(name, data)
        holder.old_copy = True
        cluster.note(holder.address, f"holds an old copy of node {copy.node_id:016x}'s directory "
                     f"(start {copy.boot})")

    def _can_be_noticed(self, copy: _Copy) -> bool:
        holder = self._cluster.holder(copy.node_id)
        if holder is None or not holder.running or not self._cluster.is_whole(copy.node_id):
            return False
        for node in self._cluster.nodes.values():
            if node.old_copy or not node.running:
                return False
            if node is not holder and node.met.get(copy.node_id, (0, 0))[0] <= copy.boot:
                return False
        return True

    def look_around(self) -> None:
        """What people do now and then: a backup, and looking after what was removed."""
        nodes = [n for n in self._cluster.nodes.values()
                 if n.running and not self._cluster.is_foreign(n)]
        if not nodes:
            return
        node = self._draw(nodes)
        raft = node.replica.raft
        if self._scheduler.chance(_COPY_PERCENT) and not node.old_copy and raft is not None and (
                raft.membership.quorum > 1 and raft.membership.is_voter(node.node_id)):
            # One that decides alone would lead before anybody could tell it.
            self._copies.append(_Copy(node.node_id, node.replica.store.boot,
                                      {name: node.disk.get(name) for name in node.disk.list()}))
            del self._copies[:-_COPIES_MAX]
        if self._scheduler.chance(_CARE_PERCENT):
            self._look_after(node)

    def _look_after(self, node: SimulatedNode) -> None:
        """A removed node is stopped for good, or emptied and taken in anew."""
        cluster = self._cluster
        if node.old_copy or node.node_id not in self._membership.removed:
            return
        contact = cluster.contact(node)
        if not contact:
            return
        node.crash(power_loss=False)
        if self._scheduler.chance(50):
            cluster.retire(node)
        else:
            cluster.empty(node, Start(node.address, join=contact))
