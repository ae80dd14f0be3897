"""Who belongs to the cluster, and how many of them decide.

Rules: a Membership is immutable and whole; a MEMBERSHIP entry carries all of it, and it is in
effect from the moment the entry is appended (Raft 6, thesis 4.1). Two memberships that follow each
other differ in one voter at most, so that every two quorums share a node. Which change may be
proposed when is the leader's rule (leader.py); the arithmetic is here.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from raftnet.errors import MalformedError

_HEAD = struct.Struct(">16sBBH")        # cluster id, quorum rule, flags, number of members
_MEMBER = struct.Struct(">QBH")         # node id, voter, bytes of the address
_FOUNDED = 1                            # flag
MEMBERS_MAX = 1_000


class QuorumRule(IntEnum):
    """How many nodes must hold an entry, or grant a vote; chosen when the cluster is founded."""

    MAJORITY = 0                        # n // 2 + 1
    HALF_ROUNDED_UP_PLUS_ONE = 1        # min(n, ceil(n / 2) + 1), the assignment's rule


QUORUM_RULE_NAMES = {
    QuorumRule.MAJORITY: "majority",
    QuorumRule.HALF_ROUNDED_UP_PLUS_ONE: "half-rounded-up-plus-one",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the cluster."""

    node_id: int        # 64 bits, made with the data directory, never 0
    address: str        # host:port that the others dial
    voter: bool         # False: a learner, which counts in no quorum


@dataclass(frozen=True, slots=True)
class Membership:
    """All members, in the order of their node ids."""

    cluster_id: bytes                   # 16 bytes; empty where nothing is known yet
    members: tuple[Member, ...]
    quorum_rule: int = QuorumRule.MAJORITY
    founded: bool = False               # clients are served only from then on
    # Derived, once: they are asked for in every turn.
    voters: list[int] = field(init=False, repr=False, compare=False)    # node ids
    quorum: int = field(init=False, repr=False, compare=False)  # voters that decide, leader counted
    _by_id: dict[int, Member] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        voters = [member.node_id for member in self.members if member.voter]
        object.__setattr__(self, "voters", voters)
        object.__setattr__(self, "quorum", quorum(len(voters), self.quorum_rule))
        object.__setattr__(self, "_by_id", {m.node_id: m for m in self.members})

    def member(self, node_id: int) -> Member | None:
        """The member with that node id, or None."""
        return self._by_id.get(node_id)

    def member_at(self, address: str) -> Member | None:
        """The member with that address, or None."""
        return next((m for m in self.members if m.address == address), None)

    def is_voter(self, node_id: int) -> bool:
        """Whether that node's vote and acknowledgement count."""
        return node_id in self.voters

    def with_member(self, member: Member) -> "Membership":
        """The same with this member added, or put in the place of the one with its node id."""
        others = [m for m in self.members if m.node_id != member.node_id]
        members = tuple(sorted(others + [member], key=lambda m: m.node_id))
        return Membership(self.cluster_id, members, self.quorum_rule, self.founded)

    def as_founded(self) -> "Membership":
        """The same, serving clients."""
        return Membership(self.cluster_id, self.members, self.quorum_rule, True)


def quorum(voter_count: int, rule: int) -> int:
    """How many of `voter_count` voters decide under `rule`; 0 voters never decide."""
    if rule == QuorumRule.HALF_ROUNDED_UP_PLUS_ONE:
        return max(1, min(voter_count, (voter_count + 1) // 2 + 1))
    return voter_count // 2 + 1


NO_MEMBERSHIP = Membership(b"", ())     # a node that was taken in and has no entry yet


def voters_changed(old: Membership, new: Membership) -> int:
    """How many nodes vote in one of the two only; a single change has 0 or 1."""
    return len(set(old.voters) ^ set(new.voters))


def encode_membership(membership: Membership) -> bytes:
    """The payload of a MEMBERSHIP entry (protocol.md, Membership)."""
    flags = _FOUNDED if membership.founded else 0
    parts = [_HEAD.pack(membership.cluster_id, membership.quorum_rule, flags,
                        len(membership.members))]
    for member in membership.members:
        address = member.address.encode()
        parts += (_MEMBER.pack(member.node_id, member.voter, len(address)), address)
    return b"".join(parts)


def decode_membership(payload: bytes) -> Membership:
    """Read a MEMBERSHIP entry's payload; raises MalformedError."""
    try:
        cluster_id, rule, flags, count = _HEAD.unpack_from(payload)
        offset = _HEAD.size
        members = []
        for _ in range(count):
            node_id, voter, length = _MEMBER.unpack_from(payload, offset)
            offset += _MEMBER.size
            address = payload[offset:offset + length].decode()
            offset += length
            members.append(Member(node_id, address, bool(voter)))
        rule = QuorumRule(rule)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise MalformedError(f"not a membership: {error}") from error
    if offset != len(payload):
        raise MalformedError("bytes missing or left over after a membership")
    return Membership(cluster_id, tuple(members), rule, bool(flags & _FOUNDED))
