"""Greetings: who a node is, whom it welcomes, and how it comes to its cluster.

Rules (design: Founding and identity; protocol.md, Connection and greeting, Founding): a node of
another cluster, an old copy of a directory and a removed node are refused, on both sides with a
clear line. While the directory has no identity, greetings found the cluster, or this node asks a
contact to be taken in; so does a member whose address has changed. A node that heals (recovery.py)
asks all whom it knows in turn, and only those of the cluster that its damaged files belong to.
founding.py has what is decided, acquaintances.py what is remembered, this the course of it. One
object for each Replica; no I/O but the Store's.
"""

from raftnet.acquaintances import Acquaintances
from raftnet.actions import DEBUG, INFO, WARNING
from raftnet.errors import ChangeRefusedError, ErrorCode, MalformedError
from raftnet.founding import Founders, Joining, founders_checksum
from raftnet.raft.election import holds_only_founding
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import Member, promises_nothing
from raftnet.wire import requests
from raftnet.wire.frames import Kind
from raftnet.wire.joining import (
    JOIN_RETURNING, decode_join_reply, encode_invite, encode_join)
from raftnet.wire.requests import Hello

JOIN_RETRY_MS = 200
_CONFLICT_PATIENCE_MS = 3_000   # for founders to drop a cluster that was founded without this node
_INVITE_EVERY_MS = 1_000        # those that `members --set` named and that are no members yet
# A lone founder's log holds no more before its first client: a membership, and another with the
# founding complete, and an empty entry for each time it was started.
_LONE_ENTRIES_MAX = 1_000
_STRANGER_MS = 10_000           # so long a node that is no member, but was heard, can be answered
NO_CLUSTER = bytes(16)
# Refusals of a JOIN that tell of no leader who would take this node in later.
_NOT_HERE = (ErrorCode.NOT_A_MEMBER, ErrorCode.WRONG_CLUSTER, ErrorCode.REMOVED)

_OLD_COPY_ADVICE = ("it must not run; to bring the node back, empty the directory and start it "
                    "with --join")

Refusal = tuple[ErrorCode, str]


class Greetings:
    """The node's acquaintance with the others."""

    def __init__(self, replica):
        self._replica = replica
        self.known = Acquaintances()
        self.founders: Founders | None = None       # while founding
        self.joining: Joining | None = None         # while asking to be taken in
        self.removed = False        # a member said that this node was removed
        self._moving: Joining | None = None         # while asking to be known at a new address
        self._ask_deadline_ms = 0
        self._invite_deadline_ms = 0
        self._process = replica.randint(1, 2**64 - 1)
        state = replica.store.hard_state
        self._start = (state.current_term, replica.store.last_term, replica.store.last_index)

    def begin(self) -> None:
        """An empty directory: found or join, as the command line says; one whose damaged files were
        set aside comes back to its cluster; what that says is one more place to ask."""
        replica = self._replica
        if replica.store.healing is not None:
            contacts = [replica.start.join, *replica.store.healing.contacts]
            # It may have moved to where another member was.
            others = [a for a in contacts if a and a != replica.address] or contacts[1:]
            self._ask_to_join(others[0], JOIN_RETURNING)
            return
        if replica.start.join:
            self._ask_to_join(replica.start.join, replica.start.join_flags)
            return
        self._new_founders()
        replica.actions.say("found", "founding a cluster of %s",
                            ", ".join(self.founders.addresses))
        self._found_if_complete()

    def _ask_to_join(self, contact: str, flags: int) -> None:
        replica = self._replica
        healing = replica.store.healing
        more = healing.contacts if healing is not None else ()
        self.founders = None
        self.joining = Joining([contact, *(a for a in more if a not in (contact, replica.address))],
                               flags)
        self._ask_deadline_ms = replica.now_ms
        replica.peers_changed = True
        replica.actions.say("join", "asking %s to be taken in", contact)

    def _new_founders(self) -> None:
        replica = self._replica
        self.founders = Founders(replica.node_id, replica.address,
                                 replica.start.founders or [replica.address],
                                 replica.start.quorum_rule)

    def hello(self) -> Hello:
        """This node's greeting to other nodes."""
        replica = self._replica
        return Hello(requests.ROLE_PEER, replica.cluster_id, replica.node_id, replica.store.boot,
                     self._founders_checksum(), replica.address, self._process, *self._start,
                     replica.state_version_max)

    def _founders_checksum(self) -> int:
        """Which founders' list this node knows: its own, or that of a cluster not founded yet."""
        if self.founders is not None:
            return self.founders.checksum
        raft = self._replica.raft
        if raft is not None and not raft.membership.founded:
            return founders_checksum([m.address for m in raft.membership.members],
                                     raft.membership.quorum_rule)
        return 0

    # --- who greets

    def greeted(self, hello: Hello, dialled: str = "") -> Refusal | None:
        """Another node's greeting, on a connection that it dialled or (`dialled`: the address)
        that this node did. None: welcome; else why it is refused."""
        replica = self._replica
        if hello.node_id == replica.node_id:
            return self._meet_itself(hello)
        self._hear_founder(hello, dialled or hello.address)
        if not dialled:
            self._hear_cluster_of_address(hello)
        elif self._heals_elsewhere(hello, dialled):
            return (ErrorCode.WRONG_CLUSTER, f"the damaged files of {replica.address} belong to "
                    "another cluster")
        ours, theirs = replica.cluster_id, hello.cluster_id     # ours may be new by now
        if NO_CLUSTER in (ours, theirs):
            return self._why_too_old(hello) if replica.raft is not None else None
        if ours != theirs:
            replica.actions.say("stranger", "%s belongs to cluster %s, this node to %s: its frames "
                                "are refused", hello.address, theirs.hex()[:8], ours.hex()[:8],
                                level=WARNING)
            return (ErrorCode.WRONG_CLUSTER, f"{replica.address} belongs to cluster "
                    f"{ours.hex()[:8]}, not {theirs.hex()[:8]}")
        refusal = self.why_unwelcome(hello)
        if refusal is not None:
            replica.actions.say("unwelcome", "%s is refused: %s", hello.address, refusal[1],
                                level=WARNING)
            return refusal
        self._meet(hello, dialled)
        return None

    def _meet(self, hello: Hello, dialled: str) -> None:
        """One of our cluster, and welcome."""
        replica = self._replica
        address = hello.address     # its own word: it may also be reached where it was before
        membership = replica.raft.membership
        if dialled and membership.member_at(dialled) is not None and not any(
                m.node_id == hello.node_id for m in membership.members_at(dialled)):
            replica.actions.say("connect", "node %016x answers at %s, where a member with another "
                                "data directory was", hello.node_id, dialled, level=WARNING)
        is_member = membership.member(hello.node_id) is not None
        if self.known.address_of(hello.node_id) != address or not is_member:
            replica.peers_changed = True
        self.known.meet(hello, address, replica.now_ms, is_member)

    def heard(self, node_id: int) -> None:
        """A Raft message of that node. It is answered whether or not our log knows it as a member:
        ours may be the shorter one (thesis 4.1)."""
        self.known.heard(node_id, self._replica.now_ms)
        if self._replica.raft.membership.member(node_id) is None:
            self._replica.peers_changed = True

    def _meet_itself(self, hello: Hello) -> Refusal:
        """The same data directory: two names of one process, or two copies of the directory."""
        replica = self._replica
        if hello.process == self._process:
            return (ErrorCode.WRONG_CLUSTER,
                    f"{replica.address} and {hello.address} are one node")
        boot = replica.store.boot
        if hello.boot > boot:
            replica.stop_reason = (f"{hello.address} runs with a newer copy of this data directory "
                                   f"(start {hello.boot}, here {boot}): {_OLD_COPY_ADVICE}")
        return (ErrorCode.OLD_COPY, f"{replica.address} runs with another copy of that data "
                f"directory (start {boot}, yours {hello.boot}): {_OLD_COPY_ADVICE}")

    def why_unwelcome(self, hello: Hello) -> Refusal | None:
        """Why a node of our cluster that greets so is refused; None: it is not."""
        raft = self._replica.raft
        if raft is None or hello.cluster_id != self._replica.cluster_id:
            return None
        membership = raft.membership
        if hello.node_id in self._removed_for_good():
            return (ErrorCode.REMOVED, f"node {hello.node_id:016x} was removed from cluster "
                    f"{membership.cluster_id.hex()[:8]}: stop it; to bring it back, empty its "
                    f"data directory and start it with --join")
        too_old = self._why_too_old(hello)
        if too_old is not None:
            return too_old
        why = self.known.why_old_copy(hello, raft)
        if why:
            return (ErrorCode.OLD_COPY, f"the data directory of {hello.address} is an old copy: "
                    f"{why}; {_OLD_COPY_ADVICE}")
        return None

    def _removed_for_good(self) -> tuple[int, ...]:
        """Node ids whose removal is committed as far as this node knows. Who is removed by an entry
        that may yet be replaced has a vote until then, and is answered."""
        log = self._replica.raft.log
        return log.membership.removed if log.membership_index <= log.commit_index else ()

    def _why_too_old(self, hello: Hello) -> Refusal | None:
        version = self._replica.raft.membership.state_version
        if hello.state_version >= version:
            return None
        return (ErrorCode.WRONG_VERSION, f"the cluster's state has version {version}, and that "
                f"program knows {hello.state_version}: update it")

    def refused(self, address: str, code: int, text: str) -> None:
        """A node that this one greeted refuses the greeting."""
        self._heed_refusal(address, code, text)
        heals = self._replica.store.healing is not None
        if heals and self.joining is not None and address == self.joining.target:
            self._go_on_soon(self.joining)

    def _heed_refusal(self, address: str, code: int, text: str) -> None:
        replica = self._replica
        if code == ErrorCode.OLD_COPY:
            replica.stop_reason = f"{address} says: {text}"
        elif code == ErrorCode.REMOVED and replica.raft is not None:
            if not self.removed:
                replica.actions.say("removed", "%s says: %s", address, text, level=WARNING)
            self.removed = replica.raft.barred = replica.peers_changed = True
        elif code == ErrorCode.REMOVED and self.joining is not None:
            # Taken in and removed again before it heard of either: nothing was promised by then.
            replica.store.take_node_id(replica.randint(1, 2**64 - 1))
            replica.node_id = replica.store.node_id
            replica.peers_changed = True
            replica.actions.say("join", "%s says: %s; going on as node %016x", address, text,
                                replica.node_id, level=WARNING)

    # --- founding

    def _hear_founder(self, hello: Hello, address: str) -> None:
        """What a greeting says about the founding of this node's cluster."""
        replica = self._replica
        if not hello.founders_checksum:
            if (self.founders is not None and hello.cluster_id != NO_CLUSTER
                    and address in self.founders.addresses):
                # That cluster is complete: with the node that was here before, if any.
                replica.actions.say("found", "%s belongs to a cluster already: this node can only "
                                    "come back to it", address, level=WARNING)
                self._ask_to_join(address, JOIN_RETURNING)
            return
        if hello.founders_checksum != self._founders_checksum():
            if self.founders is not None and hello.address in self.founders.addresses:
                replica.actions.say("refusal", "%s was started with another list of founders or "
                                    "another quorum rule than this node: stop one and start it "
                                    "like the others", hello.address, level=WARNING)
        elif self.founders is not None:
            if self.founders.learn(address, hello.node_id, hello.cluster_id):
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
        replica.actions.say("found anew", "the founder at %s was emptied before the cluster was "
                            "complete: founding anew", address, level=WARNING)
        replica.drop_cluster()
        self._new_founders()
        self.founders.learn(address, hello.node_id, hello.cluster_id)

    def _found_if_complete(self) -> None:
        if self.founders.missing:
            return
        replica = self._replica
        conflicting = self.founders.conflicting()
        if conflicting:
            if self.founders.conflict_ms is None:
                self.founders.conflict_ms = replica.now_ms
            elif replica.now_ms - self.founders.conflict_ms >= _CONFLICT_PATIENCE_MS:
                # An election was held in their cluster, so they cannot drop it.
                replica.actions.say("found", "%s founded with the node that was here before, whose "
                                    "directory was emptied: coming back to that cluster",
                                    conflicting[0], level=WARNING)
                self._ask_to_join(conflicting[0], JOIN_RETURNING)
            return
        cluster_id, entry = self.founders.entry_1()
        replica.store.found(cluster_id, entry)
        replica.actions.say("founded", "cluster %s of %d is founded here as node %016x",
                            cluster_id.hex()[:8], len(self.founders.addresses), replica.node_id)
        self.founders = None
        replica.run(RaftLog([entry]))

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

    def _hear_cluster_of_address(self, hello: Hello) -> None:
        """A node of another cluster dialled this address: is this a lone founder by mistake, on an
        emptied directory of that cluster?"""
        replica = self._replica
        if (replica.raft is None or hello.founders_checksum
                or hello.cluster_id in (NO_CLUSTER, replica.cluster_id)):
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
        self._ask_to_join(contact, flags)
        return True

    def _comes_back_to(self, cluster_id: bytes) -> bool:
        """Whether a node without a history may belong there: one that heals, only where it did."""
        healing = self._replica.store.healing
        return healing is None or healing.cluster_id in (NO_CLUSTER, cluster_id)

    def _heals_elsewhere(self, hello: Hello, address: str) -> bool:
        """Whether a node that heals, and would ask at that address, finds another cluster there.
        Then it does not ask, since it could be taken in."""
        replica, joining, healing = self._replica, self.joining, self._replica.store.healing
        if (joining is None or healing is None or healing.cluster_id == NO_CLUSTER
                or address != joining.target):
            return False
        if hello.cluster_id == healing.cluster_id:
            joining.of_our_cluster = address
            return False
        joining.of_our_cluster = ""
        foreign = hello.cluster_id != NO_CLUSTER        # else it asks to be taken in itself
        if foreign:
            replica.actions.say("join", "%s belongs to cluster %s, and the damaged files to %s",
                                address, hello.cluster_id.hex()[:8],
                                healing.cluster_id.hex()[:8], level=WARNING)
        self._go_on_soon(joining)
        return foreign

    def _may_ask(self, asking: Joining) -> bool:
        """Whether the target is known to be of the cluster to which a node that heals belongs."""
        healing = self._replica.store.healing
        return (asking is self._moving or healing is None or healing.cluster_id == NO_CLUSTER
                or asking.of_our_cluster == asking.target)

    def invited(self, cluster_id: bytes, contact: str, flags: int) -> bool:
        """Ask `contact` to be taken in; False where this node has data of its own."""
        if not self._comes_back_to(cluster_id):
            return False
        if self._replica.raft is not None:
            return self.leave_own_cluster(contact, flags)
        self._ask_to_join(contact, flags)
        return True

    # --- joining and moving

    def connected(self, address: str) -> None:
        """A dialled connection was greeted: whoever is to be asked there is asked at once."""
        asking = self.joining or self._moving
        if asking is not None and address == asking.target and not asking.in_vain:
            asking.asked = False
            self._ask_deadline_ms = self._replica.now_ms

    def tick(self) -> None:
        """Ask, and ask again where no answer came."""
        replica = self._replica
        if replica.raft is not None:
            self._follow_address()
            self._invite()
        asking = self.joining or self._moving
        if asking is None or replica.now_ms < self._ask_deadline_ms:
            return
        if asking.asked or asking.in_vain:
            self._refresh_contacts(asking)
            text = "asking %s" if asking.in_vain else "no answer: asking %s"
            if asking.go_on() if asking.in_vain else asking.unanswered():
                replica.peers_changed = True
                replica.actions.say("join", text, asking.target)
        asking.asked = True     # though nobody may be there
        self._ask_deadline_ms = replica.now_ms + asking.patience_ms
        if self._may_ask(asking):
            replica.frames.append((asking.target, Kind.JOIN,
                                   encode_join(replica.node_id, replica.address, asking.flags)))

    def next_deadline_ms(self) -> int | None:
        """When `tick` wants to be called, if there is anything to ask."""
        if self.joining is not None:
            return self._replica.now_ms + JOIN_RETRY_MS
        return self._ask_deadline_ms if self._moving is not None else None

    def _follow_address(self) -> None:
        """A node that was started at a new address asks to be known there."""
        replica = self._replica
        member = replica.raft.membership.member(replica.node_id)
        if member is None or member.address == replica.address:
            self._moving = None
        elif replica.leads:
            if replica.raft.leads_ready and not replica.raft.membership.members_at(replica.address):
                try:
                    replica.raft.propose_membership(replica.raft.membership.with_member(
                        Member(member.node_id, replica.address, member.voter, member.stays)))
                except ChangeRefusedError as error:
                    replica.actions.say("membership", "moving to %s waits: %s", replica.address,
                                        error, level=DEBUG)
        elif self._moving is None:
            others = [m.address for m in replica.raft.membership.members
                      if m.node_id != replica.node_id]
            if others:
                replica.actions.say("moved", "this node moved from %s to %s: asking %s to be "
                                    "known there", member.address, replica.address, others[0],
                                    level=WARNING)
                self._moving = Joining(others)

    def _refresh_contacts(self, asking: Joining) -> None:
        """A member asks those who are members now."""
        replica = self._replica
        if asking is self._moving:
            asking.contacts = [m.address for m in replica.raft.membership.members
                               if m.node_id != replica.node_id]

    def _go_on_soon(self, asking: Joining) -> None:
        """Ask the next contact, a little later; the same one, where there is no other."""
        if not asking.in_vain:      # else that time has begun
            asking.in_vain = True
            self._ask_deadline_ms = self._replica.now_ms + JOIN_RETRY_MS

    def _invite(self) -> None:
        """Ask those whom `members --set` named to come; leaders only."""
        replica = self._replica
        membership = replica.raft.membership
        if not membership.target or not replica.leads or replica.now_ms < self._invite_deadline_ms:
            return
        self._invite_deadline_ms = replica.now_ms + _INVITE_EVERY_MS
        for address in membership.target:
            if membership.member_at(address) is None:
                replica.frames.append((address, Kind.INVITE,
                                       encode_invite(replica.cluster_id, replica.address)))

    def dialled_frame(self, address: str, kind: int, body: bytes) -> None:
        """A frame that came back on a connection that this node dialled, after the greeting.
        Raises MalformedError."""
        replica = self._replica
        asking = self.joining or self._moving
        if kind == Kind.ERROR:
            code, _, text = requests.decode_error(body)
            self._heed_refusal(address, code, text)
        if asking is None or address != asking.target:
            if kind == Kind.ERROR:
                replica.actions.say("connect", "%s says: %s: %s", address,
                                    requests.describe_error(code), text, level=WARNING)
        elif kind == Kind.JOIN_REPLY:
            cluster_id = decode_join_reply(body)
            if self.joining is None:
                self._ask_deadline_ms = replica.now_ms + asking.patience_ms     # the log follows
                return
            if not self._comes_back_to(cluster_id):
                asking.of_our_cluster = ""
                replica.actions.say("join", "%s takes this node into cluster %s, and the damaged "
                                    "files belong to another: not going there", address,
                                    cluster_id.hex()[:8], level=WARNING)
                self._go_on_soon(asking)
                return
            replica.store.join(cluster_id)
            replica.actions.say("joined", "taken into cluster %s as node %016x",
                                cluster_id.hex()[:8], replica.node_id)
            self.joining = None
            replica.run(RaftLog([]))
        elif kind == Kind.ERROR:
            self._ask_refused(asking, address, *requests.decode_error(body))

    def _ask_refused(self, asking: Joining, address: str, code: int, leader: str,
                     text: str) -> None:
        replica = self._replica
        if code == ErrorCode.NOT_A_MEMBER and asking.flags & JOIN_RETURNING and (
                replica.store.healing is not None):
            self._ask_as_newcomer(asking, address)
        elif code == ErrorCode.NOT_LEADER and leader not in ("", address):
            replica.actions.say("join", "%s names the leader: asking %s", address, leader)
        else:
            replica.actions.say("join", "not taken in yet: %s: %s", requests.describe_error(code),
                                text, level=INFO if code == ErrorCode.NOT_LEADER else WARNING)
        if code == ErrorCode.NOT_LEADER and not leader or (
                code in _NOT_HERE and len(asking.contacts) > 1 and asking is self.joining):
            self._go_on_soon(asking)
            return
        # Who refuses it for now is asked again: back to the contact would go astray.
        if asking.turn_to(leader if code == ErrorCode.NOT_LEADER else address):
            replica.peers_changed = True
        self._ask_deadline_ms = replica.now_ms + JOIN_RETRY_MS

    def _ask_as_newcomer(self, asking: Joining, address: str) -> None:
        """This node heals, and its cluster knows no member at its address: it has moved, or it was
        removed meanwhile. Only an operator knows which, and who was removed stays so by itself."""
        replica = self._replica
        if not replica.start.join:
            replica.actions.say("join", "%s says that no member is at %s: start this node at the "
                                "address that it had, or with --join and the address of a member, "
                                "to be taken in as a new one", address, replica.address,
                                level=WARNING)
            return
        asking.flags = replica.start.join_flags
        replica.actions.say("join", "%s says that no member is at %s: asking to be taken in as a "
                            "new one, as --join says; what this node was before stays a member "
                            "until it is removed (mqclient.py remove)", address, replica.address,
                            level=WARNING)

    # --- whom to dial

    def dial_targets(self) -> list[str]:
        """The addresses to which connections are to be held."""
        replica = self._replica
        if replica.raft is None:
            if self.joining is not None:
                return [self.joining.target]
            return [a for a in self.founders.addresses if a != replica.address]
        if self.removed:
            return []       # and disturbs nobody
        membership = replica.raft.membership
        # A member is where it says, and else where it was.
        addresses = {self.known.address_of(m.node_id) or m.address: None
                     for m in membership.members if m.node_id != replica.node_id}
        addresses |= {m.address: None for m in membership.members if m.node_id != replica.node_id}
        addresses |= {address: None for node_id, address in self.known.addresses_heard(
            replica.now_ms - _STRANGER_MS).items() if node_id not in self._removed_for_good()}
        if replica.leads:
            addresses |= dict.fromkeys(membership.target)
        else:
            # No entry says yet where it is; and a contact is one more place to look.
            addresses |= dict.fromkeys([replica.leader_address,
                                        self._moving.target if self._moving else ""])
        if not membership.members or self.silent_everywhere():
            addresses[replica.start.join] = None
        return [a for a in addresses if a and a != replica.address]

    def silent_everywhere(self) -> bool:
        """Whether no other member was ever heard by this process."""
        return not any(self.known.address_of(m.node_id)
                       for m in self._replica.raft.membership.members)
