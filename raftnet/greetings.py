"""Greetings: who a node is, whom it welcomes, and how it comes to its cluster.

Rules (design: Founding and identity; protocol.md, Connection and greeting, Founding): a node of
another cluster is refused, on both sides with a clear line. While the directory has no identity,
greetings found the cluster, or this node asks a contact to be taken in; founding.py has what is
decided, this the course of it. One object for each Replica; no I/O but the Store's.
"""

from raftnet.actions import DEBUG, WARNING
from raftnet.errors import ErrorCode
from raftnet.founding import Founders, Joining, founders_checksum
from raftnet.raft.election import holds_only_founding
from raftnet.wire import requests
from raftnet.wire.frames import Kind
from raftnet.wire.requests import Hello

JOIN_RETRY_MS = 200
_JOIN_PATIENCE_MS = 3_000       # without an answer: ask again, beginning with the contact
_MET_MAX = 1_000
NO_CLUSTER = bytes(16)


class Greetings:
    """The node's acquaintance with the others."""

    def __init__(self, replica):
        self._replica = replica
        self.founders: Founders | None = None       # while founding
        self.joining: Joining | None = None         # while asking to be taken in
        self._join_deadline_ms = 0
        self._met: dict[int, str] = {}  # addresses of nodes of this cluster, by their greetings

    def begin(self) -> None:
        """An empty directory: found or join, as the command line says."""
        replica = self._replica
        if replica.start.join:
            self.joining = Joining(replica.start.join)
            replica.actions.say("join", "asking %s to be taken in", replica.start.join)
            return
        self._new_founders()
        replica.actions.say("found", "founding a cluster of %s",
                            ", ".join(self.founders.addresses))
        self._found_if_complete()

    def _new_founders(self) -> None:
        replica = self._replica
        self.founders = Founders(replica.node_id, replica.address,
                                 replica.start.founders or [replica.address],
                                 replica.start.quorum_rule)

    def address_met(self, node_id: int) -> str:
        """Where a node of this cluster is, by its own greeting; "" where it has not greeted."""
        return self._met.get(node_id, "")

    def hello(self) -> Hello:
        """This node's greeting to other nodes."""
        replica = self._replica
        return Hello(requests.ROLE_PEER, replica.cluster_id, replica.node_id, replica.store.boot,
                     self._founders_checksum(), replica.address)

    def _founders_checksum(self) -> int:
        """Which founders' list this node knows: its own, or that of a cluster not founded yet."""
        if self.founders is not None:
            return self.founders.checksum
        raft = self._replica.raft
        if raft is not None and not raft.membership.founded:
            return founders_checksum([m.address for m in raft.membership.members],
                                     raft.membership.quorum_rule)
        return 0

    def greeted(self, hello: Hello, dialled: str = "") -> tuple[ErrorCode, str] | None:
        """Another node's greeting, on a connection that it dialled or (`dialled`: the address)
        that this node did. None: welcome; else why it is refused."""
        replica = self._replica
        if hello.node_id == replica.node_id:
            return ErrorCode.WRONG_CLUSTER, f"{replica.address} and {hello.address} are one node"
        self._hear_founder(hello, dialled or hello.address)
        ours, theirs = replica.cluster_id, hello.cluster_id     # ours may be new by now
        if NO_CLUSTER in (ours, theirs):
            return None
        if ours != theirs:
            replica.actions.say("refusal", "%s belongs to cluster %s, this node to %s: its frames "
                                "are refused", hello.address, theirs.hex()[:8], ours.hex()[:8],
                                level=WARNING)
            return (ErrorCode.WRONG_CLUSTER, f"{replica.address} belongs to cluster "
                    f"{ours.hex()[:8]}, not {theirs.hex()[:8]}")
        member = replica.raft.membership.member_at(dialled) if dialled else None
        if member is not None and member.node_id != hello.node_id:
            return ErrorCode.WRONG_CLUSTER, f"another node than expected answers at {dialled}"
        if hello.node_id in self._met or len(self._met) < _MET_MAX:
            self._met[hello.node_id] = dialled or hello.address
        return None

    # --- founding

    def _hear_founder(self, hello: Hello, address: str) -> None:
        """What a greeting says about the founding of this node's cluster."""
        if not hello.founders_checksum:
            return
        replica = self._replica
        if hello.founders_checksum != self._founders_checksum():
            if self.founders is not None and hello.address in self.founders.addresses:
                replica.actions.say("refusal", "%s was started with another list of founders or "
                                    "another quorum rule than this node: stop one and start it "
                                    "like the others", hello.address, level=WARNING)
        elif self.founders is not None:
            if self.founders.learn(address, hello.node_id):
                replica.actions.say("found", "founder %s is node %016x; waiting for %s", address,
                                    hello.node_id, ", ".join(self.founders.missing) or "nobody")
            self._found_if_complete()
        elif hello.cluster_id != replica.cluster_id:
            self._hear_emptied_founder(hello, address)

    def _hear_emptied_founder(self, hello: Hello, address: str) -> None:
        """This node had completed the founding: with another node at that address?"""
        replica = self._replica
        member = replica.raft.membership.member_at(address)
        if (member is None or member.node_id == hello.node_id or not replica.is_quiet
                or not holds_only_founding(replica.raft)):
            return
        replica.actions.say("found", "the founder at %s was emptied before the cluster was "
                            "complete: founding anew", address, level=WARNING)
        replica.drop_provisional()
        self._met.clear()
        self._new_founders()
        self.founders.learn(address, hello.node_id)

    def _found_if_complete(self) -> None:
        if self.founders.missing:
            return
        replica = self._replica
        cluster_id, entry = self.founders.entry_1()
        replica.store.found(cluster_id, entry)
        replica.actions.say("found", "cluster %s of %d is founded here as node %016x",
                            cluster_id.hex()[:8], len(self.founders.addresses), replica.node_id)
        self.founders = None
        replica.run([entry])

    # --- joining

    def connected(self) -> None:
        """A dialled connection was greeted: ask the contact at once."""
        if self.joining is not None:
            self.joining.asked = False
            self._join_deadline_ms = self._replica.now_ms

    def tick(self) -> None:
        """Ask, and ask again where no answer came."""
        replica, joining = self._replica, self.joining
        if joining is None or replica.now_ms < self._join_deadline_ms:
            return
        if joining.asked and joining.refused(""):
            replica.peers_changed = True
            replica.actions.say("join", "no answer: asking %s again", joining.target)
        joining.asked = True
        self._join_deadline_ms = replica.now_ms + _JOIN_PATIENCE_MS
        replica.frames.append((joining.target, Kind.JOIN,
                               requests.encode_join(replica.node_id, replica.address)))

    def dialled_frame(self, address: str, kind: int, body: bytes) -> None:
        """A frame that came back on a connection that this node dialled, after the greeting.
        Raises MalformedError."""
        replica = self._replica
        if self.joining is None or address != self.joining.target:
            return
        if kind == Kind.JOIN_REPLY:
            cluster_id = requests.decode_join_reply(body)
            replica.store.join(cluster_id)
            replica.actions.say("join", "taken into cluster %s as node %016x",
                                cluster_id.hex()[:8], replica.node_id)
            self.joining = None
            replica.run([])
        elif kind == Kind.ERROR:
            self._join_refused(address, *requests.decode_error(body))

    def _join_refused(self, address: str, code: int, leader: str, text: str) -> None:
        replica = self._replica
        if self.joining.refused(leader):
            replica.actions.say("join", "%s names the leader: asking %s", address,
                                self.joining.target)
            replica.peers_changed = True
        else:
            replica.actions.say("join", "not taken in yet: %s: %s", requests.describe_error(code),
                                text, level=DEBUG if code == ErrorCode.NOT_LEADER else WARNING)
        self._join_deadline_ms = replica.now_ms + JOIN_RETRY_MS

    # --- whom to dial

    def dial_targets(self) -> list[str]:
        """The addresses to which connections are to be held."""
        replica = self._replica
        if replica.raft is not None:
            addresses = [m.address for m in replica.raft.membership.members
                         if m.node_id != replica.node_id]
            leader = replica.leader_address
            if leader and leader not in addresses and not replica.leads:
                addresses.append(leader)    # no entry says where it is, only its greeting
            return addresses
        if self.joining is not None:
            return [self.joining.target]
        return [a for a in self.founders.addresses if a != replica.address]
