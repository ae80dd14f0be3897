"""Joining: a node asks to be taken into a cluster, or to be known there at a new address.

Rules (design: Founding and identity; protocol.md, Joining): ask the contacts one after the other,
or the leader that one names, until the entry that takes this node in is committed. A member whose
address has changed asks in the same way. A node that heals (recovery.py) asks all whom it knows in
turn, and only those of the cluster that its damaged files belong to. `Asking` is whom to ask,
without a clock; `Joining` the course of it, one object for each Replica; no I/O but the Store's.
The leader's side is in admission.py.
"""

from raftnet.actions import DEBUG, INFO, WARNING
from raftnet.errors import ChangeRefusedError, ErrorCode
from raftnet.founding import NO_CLUSTER
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import Member
from raftnet.wire import requests
from raftnet.wire.frames import Kind
from raftnet.wire.joining import JOIN_RETURNING, decode_join_reply, encode_join
from raftnet.wire.requests import Hello

JOIN_RETRY_MS = 200
# Without an answer for so long, a JOIN is asked again: of the next contact.
PATIENCE_MS_MIN, PATIENCE_MS_MAX = 3_000, 60_000
# Without a leader for so long, and so many election timeouts: perhaps one looks elsewhere for us.
_LOST_MEMBER_MS, _LOST_MEMBER_TIMEOUTS = 10_000, 4
# Refusals of a JOIN that tell of no leader who would take this node in later.
_NOT_HERE = (ErrorCode.NOT_A_MEMBER, ErrorCode.WRONG_CLUSTER, ErrorCode.REMOVED)


class Asking:
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


class Joining:
    """One node's way into its cluster."""

    def __init__(self, replica):
        self._replica = replica
        self.asking: Asking | None = None       # while asking to be taken in
        self.moving: Asking | None = None       # while asking to be known at a new address
        self._ask_deadline_ms = 0

    def begin(self) -> bool:
        """An empty directory: join, where the command line says so. One whose damaged files were
        set aside comes back to its cluster; what that says is one more place to ask. False: there
        is nobody to ask."""
        replica = self._replica
        if replica.store.healing is not None:
            contacts = [replica.start.join, *replica.store.healing.contacts]
            # It may have moved to where another member was.
            others = [a for a in contacts if a and a != replica.address] or contacts[1:]
            self.ask(others[0], JOIN_RETURNING)
            return True
        if replica.start.join:
            self.ask(replica.start.join, replica.start.join_flags)
            return True
        return False

    def ask(self, contact: str, flags: int) -> None:
        """Ask that contact to be taken in. `flags`: of a JOIN."""
        replica = self._replica
        healing = replica.store.healing
        more = healing.contacts if healing is not None else ()
        replica.founding.end()
        self.asking = Asking([contact, *(a for a in more if a not in (contact, replica.address))],
                             flags)
        self._ask_deadline_ms = replica.now_ms
        replica.peers_changed = True
        replica.actions.say("join", "asking %s to be taken in", contact)

    def invited(self, cluster_id: bytes, contact: str, flags: int) -> bool:
        """Ask `contact` to be taken in; False where this node has data of its own."""
        if not self._comes_back_to(cluster_id):
            return False
        if self._replica.raft is not None:
            return self._replica.founding.leave_own_cluster(contact, flags)
        self.ask(contact, flags)
        return True

    # --- whom to ask, and when

    def connected(self, address: str) -> None:
        """A dialled connection was greeted: whoever is to be asked there is asked at once."""
        asking = self.asking or self.moving
        if asking is not None and address == asking.target and not asking.in_vain:
            asking.asked = False
            self._ask_deadline_ms = self._replica.now_ms

    def tick(self) -> None:
        """Ask, and ask again where no answer came."""
        replica = self._replica
        asking = self.asking or self.moving
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
        if self.asking is not None:
            return self._replica.now_ms + JOIN_RETRY_MS
        return self._ask_deadline_ms if self.moving is not None else None

    def _go_on_soon(self, asking: Asking) -> None:
        """Ask the next contact, a little later; the same one, where there is no other."""
        if not asking.in_vain:      # else that time has begun
            asking.in_vain = True
            self._ask_deadline_ms = self._replica.now_ms + JOIN_RETRY_MS

    # --- a node that heals

    def _comes_back_to(self, cluster_id: bytes) -> bool:
        """Whether a node without a history may belong there: one that heals, only where it did."""
        healing = self._replica.store.healing
        return healing is None or healing.cluster_id in (NO_CLUSTER, cluster_id)

    def heals_elsewhere(self, hello: Hello, address: str) -> bool:
        """Whether a node that heals, and would ask at that address, finds another cluster there.
        Then it does not ask, since it could be taken in."""
        replica, asking, healing = self._replica, self.asking, self._replica.store.healing
        if (asking is None or healing is None or healing.cluster_id == NO_CLUSTER
                or address != asking.target):
            return False
        if hello.cluster_id == healing.cluster_id:
            asking.of_our_cluster = address
            return False
        asking.of_our_cluster = ""
        foreign = hello.cluster_id != NO_CLUSTER        # else it asks to be taken in itself
        if foreign:
            replica.actions.say("join", "%s belongs to cluster %s, and the damaged files to %s",
                                address, hello.cluster_id.hex()[:8],
                                healing.cluster_id.hex()[:8], level=WARNING)
        self._go_on_soon(asking)
        return foreign

    def greeting_refused(self, address: str) -> None:
        """The node at that address refuses this one's greeting."""
        heals = self._replica.store.healing is not None
        if heals and self.asking is not None and address == self.asking.target:
            self._go_on_soon(self.asking)

    def _may_ask(self, asking: Asking) -> bool:
        """Whether the target is known to be of the cluster to which a node that heals belongs."""
        healing = self._replica.store.healing
        return (asking is self.moving or healing is None or healing.cluster_id == NO_CLUSTER
                or asking.of_our_cluster == asking.target)

    # --- a member that has moved

    def follow_address(self) -> None:
        """A node that was started at a new address asks to be known there; and so does one that is
        lost, for it cannot know that."""
        replica = self._replica
        member = replica.raft.membership.member(replica.node_id)
        if (member is None or member.address == replica.address) and self._is_lost(member):
            if self.moving is None:
                self._ask_members(JOIN_RETURNING if member is None else 0,
                                  f"no leader speaks to {replica.address}")
        elif member is None or member.address == replica.address:
            self.moving = None
        elif replica.leads:
            if replica.raft.leads_ready and not replica.raft.membership.members_at(replica.address):
                try:
                    replica.raft.propose_membership(replica.raft.membership.with_member(
                        Member(member.node_id, replica.address, member.voter, member.stays)))
                except ChangeRefusedError as error:
                    replica.actions.say("membership", "moving to %s waits: %s", replica.address,
                                        error, level=DEBUG)
        elif self.moving is None:
            self._ask_members(0, f"this node moved from {member.address} to {replica.address}")

    def _is_lost(self, member: Member | None) -> bool:
        """Of a node that its log does not know yet, or knows where it is: whether no leader has
        spoken for long. Both may have moved since, and then none knows where the other is."""
        raft = self._replica.raft
        patience_ms = PATIENCE_MS_MIN
        if member is not None:      # then an election that takes long is the likelier reason
            patience_ms = max(_LOST_MEMBER_MS,
                              _LOST_MEMBER_TIMEOUTS * raft.election_timeout_ms)
        return (not raft.leader_id and not self._replica.is_removed
                and raft.now_ms - raft.leader_contact_ms >= patience_ms)

    def _ask_members(self, flags: int, why: str) -> None:
        others = self._other_members()
        if others:
            self._replica.actions.say("moved", "%s: asking %s to be known there", why, others[0],
                                      level=WARNING)
            self.moving = Asking(others, flags)

    def _other_members(self) -> list[str]:
        """Where members may be: by their own word, by the log, and by the command line."""
        replica = self._replica
        others = [m for m in replica.raft.membership.members if m.node_id != replica.node_id]
        places = [replica.address_of(m.node_id) for m in others]
        places += [m.address for m in others]
        if not others or replica.greetings.silent_everywhere():
            places.append(replica.start.join)
        return [a for a in dict.fromkeys(places) if a not in ("", replica.address)]

    def _refresh_contacts(self, asking: Asking) -> None:
        """A member asks those who are members now."""
        if asking is self.moving:
            asking.contacts = self._other_members()

    # --- answers

    def dialled_frame(self, address: str, kind: int, body: bytes) -> None:
        """A frame that came back on a connection that this node dialled, after the greeting.
        Raises MalformedError."""
        replica = self._replica
        asking = self.asking or self.moving
        if kind == Kind.ERROR:
            code, _, text = requests.decode_error(body)
            replica.greetings.heed_refusal(address, code, text)
        if asking is None or address != asking.target:
            if kind == Kind.ERROR:
                replica.actions.say("connect", "%s says: %s: %s", address,
                                    requests.describe_error(code), text, level=WARNING)
        elif kind == Kind.JOIN_REPLY:
            cluster_id = decode_join_reply(body)
            if self.asking is None:
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
            self.asking = None
            replica.run(RaftLog([]))
        elif kind == Kind.ERROR:
            self._ask_refused(asking, address, *requests.decode_error(body))

    def _ask_refused(self, asking: Asking, address: str, code: int, leader: str,
                     text: str) -> None:
        replica = self._replica
        if code == ErrorCode.NOT_A_MEMBER and asking.flags & JOIN_RETURNING and (
                replica.store.healing is not None):
            self._ask_as_newcomer(asking, address)
        elif code == ErrorCode.NOT_A_MEMBER and replica.founding.found_again():
            return
        elif code == ErrorCode.NOT_LEADER and leader not in ("", address):
            replica.actions.say("join", "%s names the leader: asking %s", address, leader)
        else:
            replica.actions.say("join", "not taken in yet: %s: %s", requests.describe_error(code),
                                text, level=INFO if code == ErrorCode.NOT_LEADER else WARNING)
        if code == ErrorCode.NOT_LEADER and not leader or (
                code in _NOT_HERE and len(asking.contacts) > 1 and asking is self.asking):
            self._go_on_soon(asking)
            return
        # Who refuses it for now is asked again: back to the contact would go astray.
        if asking.turn_to(leader if code == ErrorCode.NOT_LEADER else address):
            replica.peers_changed = True
        in_vain = code in _NOT_HERE and asking is self.moving
        self._ask_deadline_ms = replica.now_ms + (asking.patience_ms if in_vain else JOIN_RETRY_MS)

    def _ask_as_newcomer(self, asking: Asking, address: str) -> None:
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
