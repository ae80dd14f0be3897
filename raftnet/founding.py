"""Founding: a cluster comes to be, out of nodes with empty directories.

Rules (design: Founding and identity; protocol.md, Founding): founders learn each other's node ids
from the greetings; whoever knows all of them writes the identical entry 1 by itself. The cluster id
is a hash of all node ids, so equal founders give equal bytes. A lone founder is a list of one. What
was founded is dropped where nothing hangs on it yet: when a founder was emptied before the founding
was complete, and when a lone founder turns out to belong to another cluster. `Founders` is what is
known, without a clock; `Founding` the course of it, one object for each Replica; no I/O but the
Store's. Of founders that reach each other for the first time, the first one campaigns at once, for
nobody can be leading yet. How a node is taken into a cluster that exists is in joining.py.
"""

import hashlib
from zlib import crc32

from raftnet.actions import WARNING
from raftnet.raft.election import holds_only_founding
from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import Member, Membership, encode_membership, promises_nothing
from raftnet.wire.joining import JOIN_RETURNING
from raftnet.wire.requests import Hello

FOUNDING_TERM = 1       # entry 1 has it; the first election is for term 2
NO_CLUSTER = bytes(16)
_CONFLICT_PATIENCE_MS = 3_000   # for founders to drop a cluster that was founded without this node
# A lone founder's log holds no more before its first client: a membership, and another with the
# founding complete, and an empty entry for each time it was started.
_LONE_ENTRIES_MAX = 1_000


def founders_checksum(addresses: list[str], quorum_rule: int) -> int:
    """A CRC-32 by which founders notice that their lists differ; never 0, which means none."""
    return crc32(f"{quorum_rule}|{','.join(sorted(addresses))}".encode()) or 1


def cluster_id_of(node_ids: list[int]) -> bytes:
    """The cluster id that founders with these node ids have in common: 16 bytes."""
    ids = b"".join(node_id.to_bytes(8, "big") for node_id in sorted(node_ids))
    return hashlib.sha256(b"raftnet cluster" + ids).digest()[:16]


class Founders:
    """What one founder knows of all of them."""

    def __init__(self, node_id: int, address: str, addresses: list[str], quorum_rule: int):
        assert address in addresses
        self.address = address
        self.addresses = sorted(addresses)
        self.quorum_rule = quorum_rule
        self.checksum = founders_checksum(addresses, quorum_rule)
        self.node_ids = {address: node_id}      # by address, those known so far
        self._cluster_ids: dict[str, bytes] = {}    # of those that have founded already
        self.conflict_ms: int | None = None     # since when one of them founded without this node

    def learn(self, address: str, node_id: int, cluster_id: bytes) -> bool:
        """A founder's greeting, with the cluster that it has founded (zeros: none yet); whether it
        told anything new."""
        if address not in self.addresses or address == self.address:
            return False
        known = self.node_ids.get(address) == node_id
        self.node_ids[address] = node_id
        self._cluster_ids[address] = cluster_id
        return not known

    def conflicting(self) -> list[str]:
        """Founders that hold another cluster than the node ids make: of an earlier directory here
        or elsewhere. They drop it, unless an election was held in it."""
        cluster_id = cluster_id_of(list(self.node_ids.values()))
        return [address for address, founded in self._cluster_ids.items()
                if any(founded) and founded != cluster_id]

    @property
    def missing(self) -> list[str]:
        """The founders not heard from yet."""
        return [address for address in self.addresses if address not in self.node_ids]

    def one_node_twice(self) -> list[str]:
        """Addresses of the list at which one and the same node answers; empty: there are none."""
        ids = list(self.node_ids.values())
        return [a for a in self.addresses if ids.count(self.node_ids.get(a)) > 1]

    def entry_1(self) -> tuple[bytes, Entry]:
        """(cluster id, entry 1): the same bytes on every founder, once all are known."""
        assert not self.missing and not self.one_node_twice()
        cluster_id = cluster_id_of(list(self.node_ids.values()))
        members = tuple(sorted((Member(node_id, address, True)
                                for address, node_id in self.node_ids.items()),
                               key=lambda member: member.node_id))
        membership = Membership(cluster_id, members, self.quorum_rule, False)
        entry = encode_entry(1, FOUNDING_TERM, EntryKind.MEMBERSHIP, encode_membership(membership))
        return cluster_id, entry


class Founding:
    """The founding of one node's cluster."""

    def __init__(self, replica):
        self._replica = replica
        self.founders: Founders | None = None       # while founding
        self._given_up: Founders | None = None      # while asking one of these to be taken back
        self._left_own = False      # while asking the cluster for which its own was left
        self._reached: set[int] = set()     # node ids of those that have founded the same with it

    def begin(self) -> None:
        """An empty directory, and no contact to ask: found, as the command line says."""
        replica = self._replica
        self._new_founders()
        replica.actions.say("found", "founding a cluster of %s",
                            ", ".join(self.founders.addresses))
        self._found_if_complete()

    def end(self) -> None:
        """This node asks to be taken in."""
        self.founders = self._given_up = None
        self._left_own = False

    def _come_back(self, contact: str) -> None:
        """Ask that founder to be taken in. Its cluster may yet be dropped or emptied."""
        founders = self.founders
        self._replica.joining.ask(contact, JOIN_RETURNING)
        self._given_up = founders

    def _new_founders(self) -> None:
        self._given_up = None
        replica = self._replica
        self.founders = Founders(replica.node_id, replica.address,
                                 replica.start.founders or [replica.address],
                                 replica.start.quorum_rule)

    def checksum(self) -> int:
        """Which founders' list this node knows: its own, or that of a cluster not founded yet."""
        raft = self._replica.raft
        founders = self.founders or (self._given_up if raft is None else None)
        if founders is not None:
            return founders.checksum
        if raft is not None and not raft.membership.founded:
            # Each address once: a founder that was emptied has a twin.
            return founders_checksum(list({m.address for m in raft.membership.members}),
                                     raft.membership.quorum_rule)
        return 0

    # --- founders greet each other

    def hear(self, hello: Hello, address: str) -> None:
        """What a greeting says about the founding of this node's cluster."""
        replica = self._replica
        if not hello.founders_checksum:
            if (self.founders is not None and hello.cluster_id != NO_CLUSTER
                    and address in self.founders.addresses):
                # That cluster is complete: with the node that was here before, if any.
                replica.actions.say("found", "%s belongs to a cluster already: this node can only "
                                    "come back to it", address, level=WARNING)
                self._come_back(address)
            return
        if hello.founders_checksum != self.checksum():
            if self.founders is not None and hello.address in self.founders.addresses:
                replica.actions.say("refusal", "%s was started with another list of founders or "
                                    "another quorum rule than this node: stop one and start it "
                                    "like the others", hello.address, level=WARNING)
        elif self.founders is not None:
            if self.founders.learn(address, hello.node_id, hello.cluster_id):
                replica.actions.say("found", "founder %s is node %016x; waiting for %s", address,
                                    hello.node_id, ", ".join(self.founders.missing) or "nobody")
            self._found_if_complete()
        elif replica.raft is None:
            if hello.cluster_id == NO_CLUSTER and address == replica.joining.asking.contact:
                self._found_after_all(hello, address)
        elif hello.cluster_id != replica.cluster_id:
            self._hear_emptied_founder(hello, address)

    def _found_after_all(self, hello: Hello, address: str) -> None:
        """The cluster that this node wanted to come back to was dropped, or was a mistake."""
        replica = self._replica
        replica.actions.say("found", "%s has no cluster any more: founding with it", address,
                            level=WARNING)
        replica.joining.asking = None
        replica.peers_changed = True
        self._new_founders()
        self.founders.learn(address, hello.node_id, hello.cluster_id)

    def _hear_emptied_founder(self, hello: Hello, address: str) -> None:
        """This node had completed the founding: with another node at that address?"""
        replica = self._replica
        member = replica.raft.membership.member_at(address)
        if (member is None or member.node_id == hello.node_id or not replica.is_quiet
                or not holds_only_founding(replica.raft)):
            return
        replica.actions.say("found anew", "the founder at %s was emptied before the cluster was "
                            "complete: founding anew", address, level=WARNING)
        replica.drop_cluster()
        self._new_founders()
        self.founders.learn(address, hello.node_id, hello.cluster_id)

    def _found_if_complete(self) -> None:
        if self.founders.missing:
            return
        replica = self._replica
        twice = self.founders.one_node_twice()
        if twice:
            replica.actions.say("refusal", "%s are one node: start all founders with one address "
                                "of each", " and ".join(twice), level=WARNING)
            return
        conflicting = self.founders.conflicting()
        if conflicting:
            if self.founders.conflict_ms is None:
                self.founders.conflict_ms = replica.now_ms
            elif replica.now_ms - self.founders.conflict_ms >= _CONFLICT_PATIENCE_MS:
                # An election was held in their cluster, so they cannot drop it.
                replica.actions.say("found", "%s founded with the node that was here before, whose "
                                    "directory was emptied: coming back to that cluster",
                                    conflicting[0], level=WARNING)
                self._come_back(conflicting[0])
            return
        cluster_id, entry = self.founders.entry_1()
        replica.store.found(cluster_id, entry)
        replica.actions.say("founded", "cluster %s of %d is founded here as node %016x",
                            cluster_id.hex()[:8], len(self.founders.addresses), replica.node_id)
        self.founders = None
        self._reached.clear()
        replica.run(RaftLog([entry]))

    def reached(self, node_id: int) -> None:
        """That node takes messages of this cluster. Where all founders do, an election need not
        wait; one of them begins it, so that the votes are not split."""
        raft = self._replica.raft
        if raft.current_term > FOUNDING_TERM or not holds_only_founding(raft):
            return
        self._reached.add(node_id)
        voters = raft.membership.voters
        if voters[:1] == [raft.node_id] and self._reached.issuperset(voters[1:]):
            raft.campaign_soon()

    # --- a lone founder that belongs elsewhere

    def has_acknowledged_nothing(self) -> bool:
        """Whether this node leads a cluster of itself alone that no client has used."""
        raft = self._replica.raft
        if raft is None:
            return False
        log = raft.log
        return (log.base_index == 0 and log.memory_from == 1
                and log.last_index <= _LONE_ENTRIES_MAX
                and raft.membership.is_voter(raft.node_id)
                and all(map(promises_nothing, log.entries(1, log.last_index, 1 << 62))))

    def hear_cluster_of_address(self, hello: Hello) -> None:
        """A node of another cluster dialled this address: is this a lone founder by mistake, on an
        emptied directory of that cluster?"""
        replica = self._replica
        # Founders of one list settle it between them; one of another list may have been here.
        if (replica.raft is None or hello.cluster_id in (NO_CLUSTER, replica.cluster_id)
                or hello.founders_checksum and hello.founders_checksum == self.checksum()):
            return
        replica.actions.say("found", "%s, of cluster %s, dials this address: did this node belong "
                            "there?", hello.address, hello.cluster_id.hex()[:8], level=WARNING)
        self.leave_own_cluster(hello.address, JOIN_RETURNING)

    def leave_own_cluster(self, contact: str, flags: int) -> bool:
        """Forget a cluster of this node alone that no client has used, and ask `contact` to be
        taken in. False where that must not be, or not yet."""
        replica = self._replica
        if not self.has_acknowledged_nothing() or not replica.is_quiet:
            return False
        replica.actions.say("join", "leaving a cluster of this node alone, in which nothing was "
                            "acknowledged", level=WARNING)
        replica.drop_cluster(alone=True)
        replica.joining.ask(contact, flags)
        self._left_own = bool(flags & JOIN_RETURNING)
        return True

    def found_again(self) -> bool:
        """The cluster that this node left its own for has no member at this address: it had one, or
        will tell so by an INVITE. False where this node left none."""
        if not self._left_own:
            return False
        self._replica.joining.asking = None
        self._replica.peers_changed = True
        self.end()
        self.begin()
        return True
