"""How a node with an empty directory comes to a cluster: by founding one, or by joining one.

Founding (design: Founding and identity; protocol.md, Founding): founders learn each other's node
ids from the greetings; whoever knows all of them writes the identical entry 1 by itself. The
cluster id is a hash of all node ids, so equal founders give equal bytes. A lone founder is a list
of one. Joining: ask the contacts one after the other, or the leader that one names, until the entry
that takes this node in is committed. No I/O and no clock here; the Replica drives it.
"""

import hashlib
from zlib import crc32

from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership

# Without an answer for so long, a JOIN is asked again: of the next contact.
PATIENCE_MS_MIN, PATIENCE_MS_MAX = 3_000, 60_000
FOUNDING_TERM = 1       # entry 1 has it; the first election is for term 2


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

    def entry_1(self) -> tuple[bytes, Entry]:
        """(cluster id, entry 1): the same bytes on every founder, once all are known."""
        assert not self.missing
        cluster_id = cluster_id_of(list(self.node_ids.values()))
        members = tuple(sorted((Member(node_id, address, True)
                                for address, node_id in self.node_ids.items()),
                               key=lambda member: member.node_id))
        membership = Membership(cluster_id, members, self.quorum_rule, False)
        entry = encode_entry(1, FOUNDING_TERM, EntryKind.MEMBERSHIP, encode_membership(membership))
        return cluster_id, entry


class Joining:
    """A node's asking to be taken in, or to be known at a new address. `flags`: of a JOIN."""

    def __init__(self, contacts: list[str], flags: int = 0):
        self.contacts = contacts    # who may know the leader; one at least
        self.flags = flags
        self.contact = self.target = contacts[0]    # whom to ask now: the contact, or who it named
        self.asked = False          # a question is on its way to the target
        self.in_vain = False        # the target is of no use: `go_on` is next
        self.patience_ms = PATIENCE_MS_MIN      # with which its answer is waited for
        self.of_our_cluster = ""    # the address that greeted as such; counts where a node heals

    def turn_to(self, target: str) -> bool:
        """Ask there next; whether that is another target."""
        self.asked = self.in_vain = False
        changed, self.target = self.target != target, target
        return changed

    def go_on(self) -> bool:
        """`turn_to` the contact behind the last one."""
        places = self.contacts
        place = places.index(self.contact) + 1 if self.contact in places else 0
        if places:
            self.contact = places[place % len(places)]
        return self.turn_to(self.contact)

    def unanswered(self) -> bool:
        """No answer came in time: `go_on`. The way may be long, so once all were asked, answers
        are waited for twice as long."""
        changed = self.go_on()
        if self.contact == (self.contacts or [self.contact])[0]:
            self.patience_ms = min(2 * self.patience_ms, PATIENCE_MS_MAX)
        return changed
