"""What `why` knows: what each node said of itself (Look), the cluster that this shows (Picture).

Rules: no I/O; nothing is judged here, that is for why.py and laggards.py. A node counts as running
where it answers as the member it is, or where a node that answers hears it; the leader's view of
the others counts before anybody else's.
"""

from dataclasses import dataclass
from typing import NamedTuple

from raftnet.client.connection import NO_CLUSTER
from raftnet.client.statusview import silence
from raftnet.raft.membership import quorum
from raftnet.wire.requests import UNKNOWN_AGE, MemberStatus, NodeStatus

_OUTSIDE_ROLES = ("founding", "joining")


class Look(NamedTuple):
    """Everybody asked once."""

    servers: list[str]                          # given by whoever asks
    found: dict[str, NodeStatus | str]          # by address asked; a text: why it did not answer
    said: dict[str, str] = {}                   # what nodes without a cluster wait for, by address

    @property
    def answered(self) -> dict[str, NodeStatus]:
        """The nodes that answered, by the address asked."""
        return {a: s for a, s in self.found.items() if isinstance(s, NodeStatus)}


@dataclass(slots=True)
class Finding:
    """One thing that `why` says."""

    kind: str               # a short name, for programs
    text: str               # what is so
    advice: str = ""        # what to do
    wrong: bool = True      # False: worth knowing, but nothing stands still for it
    address: str | None = None      # of the node that it is about

    @property
    def line(self) -> str:
        """For people."""
        return self.text + (f". {self.advice}" if self.advice else "")

    def as_object(self) -> dict:
        """For --json."""
        return {"kind": self.kind, "wrong": self.wrong, "text": self.text, "advice": self.advice,
                "address": self.address}


class Picture:
    """The cluster that most of those who answered belong to. Without any, `view` is None."""

    def __init__(self, look: Look):
        self.look = look
        self.cluster_id = _choose_cluster(look)
        ours = [status for status in look.answered.values()
                if status.cluster_id == self.cluster_id and status.members]
        leader = max((s for s in ours if s.role == "leader"), key=lambda s: s.term, default=None)
        if leader is not None and not _hears_a_quorum(leader):
            leader = None
        self.leader: NodeStatus | None = leader     # one that hears a quorum
        self.view: NodeStatus | None = leader or max(       # whose members count
            ours, key=lambda s: (s.membership_index, s.commit_index, s.term), default=None)
        self.members = self.view.members if self.view else []
        self.voters = [member for member in self.members if member.voter]
        self.needed = quorum(len(self.voters), self.view.quorum_rule) if self.view else 0
        self.nodes: dict[int, NodeStatus] = {}      # members that answered, by node id
        self.outside: dict[str, NodeStatus] = {}    # of this cluster or none, and no members
        self.strangers: dict[str, NodeStatus] = {}  # of other clusters, by address asked
        self.claimed: dict[int, list[str]] = {}     # whence somebody said to be that node
        if self.view is not None:
            self._sort_out()

    def _sort_out(self) -> None:
        addresses = {member.node_id: member.address for member in self.members}
        for asked, status in self.look.answered.items():
            if status.cluster_id not in (self.cluster_id, NO_CLUSTER) \
                    and status.role not in _OUTSIDE_ROLES:
                self.strangers[asked] = status
                continue
            claimed = self.claimed.setdefault(status.node_id, [])
            if status.address not in claimed:       # else it was asked under two names
                claimed.append(status.address)
            if status.node_id not in addresses or status.cluster_id == NO_CLUSTER:
                self.outside[asked] = status
            elif status.node_id not in self.nodes \
                    or status.address == addresses[status.node_id]:
                self.nodes[status.node_id] = status

    # --- one member

    def member_at(self, address: str) -> MemberStatus | None:
        """The voter with that address, or else the first member there."""
        found = [member for member in self.members if member.address == address]
        return next((m for m in found if m.voter), found[0] if found else None)

    def runs(self, member: MemberStatus) -> bool:
        """Whether it answers, or somebody who answers hears it."""
        if member.node_id in self.nodes:
            return True
        views = [self.leader] if self.leader is not None else self.nodes.values()
        return any(other.node_id == member.node_id and other.reachable
                   for view in views for other in view.members)

    def silent_ms(self, member: MemberStatus) -> int | None:
        """Since the leader heard it, or without one whoever did last; None: none of them ever."""
        views = [self.leader] if self.leader is not None else self.nodes.values()
        ages = [other.silent_ms for view in views for other in view.members
                if other.node_id == member.node_id and other.silent_ms != UNKNOWN_AGE]
        return min(ages, default=None)

    def why_missing(self, member: MemberStatus) -> str:
        """What is known of a member that does not run."""
        return f"{self.reason(member.address)}, {silence(self.silent_ms(member))}"

    def reason(self, address: str) -> str:
        """Why nobody, or nobody that was expected, answers there."""
        found = self.look.found.get(address)
        if isinstance(found, NodeStatus):
            return "another node answers there"
        return "it was not asked" if found is None else found.removeprefix(f"{address}: ")

    # --- all of them

    @property
    def running_voters(self) -> list[MemberStatus]:
        """The voters that run."""
        return [member for member in self.voters if self.runs(member)]

    @property
    def heard_voters(self) -> list[MemberStatus]:
        """The voters that count just now: heard by the leader, without one those that run."""
        if self.leader is None:
            return self.running_voters
        return [member for member in self.voters if member.reachable]

    @property
    def contact(self) -> str:
        """A node to be named in a command."""
        return (self.leader or self.view).address

    @property
    def hidden_leader(self) -> MemberStatus | None:
        """The leader that enough voters follow and hear, and that does not answer."""
        votes: dict[tuple[int, str], int] = {}
        for status in self.nodes.values():
            if not status.leader or status.leader == status.address:
                continue
            if any(m.address == status.leader and m.reachable for m in status.members):
                named = status.term, status.leader
                votes[named] = votes.get(named, 0) + 1
        if not votes:
            return None
        (_, address), count = max(votes.items())
        member = self.member_at(address)
        if member is None or member.node_id in self.nodes or count + 1 < self.needed:
            return None
        return member

    @property
    def deaf_pairs(self) -> list[tuple[str, str]]:
        """(a, b): both answer, and a does not hear b."""
        return [(status.address, member.address) for status in self.nodes.values()
                for member in status.members
                if member.node_id in self.nodes and not member.reachable
                and member.node_id != status.node_id]

    @property
    def moved(self) -> list[tuple[MemberStatus, NodeStatus]]:
        """Members that answer at another address than the members say."""
        return [(member, self.nodes[member.node_id]) for member in self.members
                if member.node_id in self.nodes
                and self.nodes[member.node_id].address != member.address
                and len(self.claimed[member.node_id]) == 1]


def _choose_cluster(look: Look) -> bytes:
    """The id of the cluster that `why` is about: most members answer, or most are named."""
    weights: dict[bytes, list[int]] = {}
    for status in look.answered.values():
        if status.members and status.role not in _OUTSIDE_ROLES:
            weight = weights.setdefault(status.cluster_id, [0, 0])
            weight[0] += any(m.node_id == status.node_id for m in status.members)
            weight[1] = max(weight[1], len(status.members))
    return max(weights, key=weights.get, default=NO_CLUSTER)


def _hears_a_quorum(leader: NodeStatus) -> bool:
    voters = [member for member in leader.members if member.voter]
    return sum(m.reachable for m in voters) >= quorum(len(voters), leader.quorum_rule)
