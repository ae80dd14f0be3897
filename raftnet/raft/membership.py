"""Who belongs to the cluster, and how many of them decide.

Rules: a Membership is immutable and whole; a MEMBERSHIP entry carries all of it, and it is in
effect from the moment the entry is appended (Raft 6, thesis 4.1). Two memberships that follow each
other differ in one voter at most, so that every two quorums share a node. Which change may be
proposed when, and which the leader makes by itself, is in changes.py; the arithmetic is here.

Two members share an address only as twins: an old identity, and a newcomer (a learner) that was
started there with an emptied directory.
"""

import struct
from dataclasses import dataclass, field, replace
from enum import IntEnum

from raftnet.errors import MalformedError
from raftnet.raft.entry import Entry, EntryKind

# Cluster id, quorum rule, flags, state version, and the numbers of members, of removed, of targets.
_HEAD = struct.Struct(">16sBBHHHH")
_MEMBER = struct.Struct(">QBH")         # node id, kind, bytes of the address
_NODE_ID = struct.Struct(">Q")
_LENGTH = struct.Struct(">H")           # bytes of a target's address
_FOUNDED = 1                            # flag
_LEARNER, _VOTER, _LEARNER_THAT_STAYS = 0, 1, 2     # kinds
MEMBERS_MAX = 1_000
REMOVED_MAX = 256                       # node ids remembered; the oldest are dropped


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

    node_id: int            # 64 bits, made with the data directory, never 0
    address: str            # host:port that the others dial
    voter: bool             # False: a learner, which counts in no quorum
    stays: bool = False     # a learner that is never promoted by itself

    def __post_init__(self):
        assert not (self.voter and self.stays), "only a learner stays one"


@dataclass(frozen=True, slots=True)
class Membership:
    """All members, in the order of their node ids."""

    cluster_id: bytes                   # 16 bytes; empty where nothing is known yet
    members: tuple[Member, ...]
    quorum_rule: int = QuorumRule.MAJORITY
    founded: bool = False               # clients are served only from then on
    removed: tuple[int, ...] = ()       # node ids that were members once, oldest first
    target: tuple[str, ...] = ()        # addresses that shall be all; empty: nothing is asked for
    state_version: int = 1              # of the replicated state: what commands may be in the log
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
        """The voter with that address, else the first member there, or None."""
        found = self.members_at(address)
        return next((member for member in found if member.voter), found[0] if found else None)

    def members_at(self, address: str) -> list[Member]:
        """All members with that address: none, one, or twins."""
        return [member for member in self.members if member.address == address]

    def is_voter(self, node_id: int) -> bool:
        """Whether that node's vote and acknowledgement count."""
        return node_id in self.voters

    def asks_for_steps(self, leader_id: int) -> bool:
        """Whether a leader of that node id would ever take a step by itself while this lasts."""
        addresses = {member.address for member in self.members}
        return (not self.founded or bool(self.target) or not self.is_voter(leader_id)
                or len(addresses) < len(self.members)
                or any(not member.voter and not member.stays for member in self.members))

    def with_member(self, member: Member) -> "Membership":
        """The same with this member added, or put in the place of the one with its node id."""
        others = [m for m in self.members if m.node_id != member.node_id]
        members = tuple(sorted(others + [member], key=lambda m: m.node_id))
        removed = tuple([n for n in self.removed if n != member.node_id])
        return replace(self, members=members, removed=removed)

    def without_member(self, node_id: int) -> "Membership":
        """The same without that member, its node id remembered as removed."""
        assert node_id in self._by_id, "only a member can be removed"
        members = tuple([m for m in self.members if m.node_id != node_id])
        return replace(self, members=members, removed=(*self.removed, node_id)[-REMOVED_MAX:])

    def with_target(self, addresses: tuple[str, ...]) -> "Membership":
        """The same, on the way to these addresses as its members; empty: on the way to nowhere."""
        return replace(self, target=tuple(addresses))

    def with_state_version(self, state_version: int) -> "Membership":
        """The same with that version of the replicated state."""
        return replace(self, state_version=state_version)

    def as_founded(self) -> "Membership":
        """The same, serving clients."""
        return replace(self, founded=True)


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
                        membership.state_version, len(membership.members),
                        len(membership.removed), len(membership.target))]
    for member in membership.members:
        kind = _VOTER if member.voter else _LEARNER_THAT_STAYS if member.stays else _LEARNER
        address = member.address.encode()
        parts += (_MEMBER.pack(member.node_id, kind, len(address)), address)
    parts += [_NODE_ID.pack(node_id) for node_id in membership.removed]
    for target in membership.target:
        address = target.encode()
        parts += (_LENGTH.pack(len(address)), address)
    return b"".join(parts)


def decode_membership(payload: bytes) -> Membership:
    """Read a MEMBERSHIP entry's payload; raises MalformedError."""
    try:
        membership, offset = _decode(payload)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise MalformedError(f"not a membership: {error}") from error
    if offset != len(payload):
        raise MalformedError("bytes missing or left over after a membership")
    return membership


def _decode(payload: bytes) -> tuple[Membership, int]:
    head = _HEAD.unpack_from(payload)
    cluster_id, rule, flags, state_version, member_count, removed_count, target_count = head
    if flags & ~_FOUNDED:
        raise ValueError(f"flags {flags}")
    offset = _HEAD.size
    members, removed, target = [], [], []
    for _ in range(member_count):
        node_id, kind, length = _MEMBER.unpack_from(payload, offset)
        if kind > _LEARNER_THAT_STAYS or (members and node_id <= members[-1].node_id):
            raise ValueError(f"member {node_id:016x} of kind {kind}")
        offset += _MEMBER.size + length
        address = payload[offset - length:offset].decode()
        members.append(Member(node_id, address, kind == _VOTER, kind == _LEARNER_THAT_STAYS))
    for _ in range(removed_count):
        removed += _NODE_ID.unpack_from(payload, offset)
        offset += _NODE_ID.size
    for _ in range(target_count):
        (length,) = _LENGTH.unpack_from(payload, offset)
        offset += _LENGTH.size + length
        target.append(payload[offset - length:offset].decode())
    return Membership(cluster_id, tuple(members), QuorumRule(rule), bool(flags & _FOUNDED),
                      tuple(removed), tuple(target), state_version), offset


def promises_nothing(entry: Entry) -> bool:
    """Whether it may stand in the log of a lone founder that no client and no other node used."""
    return entry.kind == EntryKind.EMPTY or (
        entry.kind == EntryKind.MEMBERSHIP and len(decode_membership(entry.payload).members) == 1)
