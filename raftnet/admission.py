"""Admission: who belongs to the cluster, as nodes and operators ask for it: JOIN, INVITE, CHANGE.

Rules (design: Founding and identity; protocol.md, Joining, Changes): JOIN and CHANGE are the
leader's, answered when their entry is committed; INVITE any node's about itself, and a leader sends
it to those whom `members --set` named. Whoever is named there and no member is dialled first: one
that calls itself by another address than it was named by could never become what was asked for, so
nothing is changed; one that does not answer may be started later. A node at an address that a
member has already is that member with an emptied directory: it enters beside the old identity (a
twin), unless that one is heard. What may be changed when is the core's rule (raft/changes.py); the
asking node's side is in joining.py.
"""

from dataclasses import dataclass

from raftnet.errors import ChangeRefusedError, ErrorCode, MalformedError
from raftnet.raft.election import holds_only_founding
from raftnet.raft.membership import MEMBERS_MAX, Member, Membership
from raftnet.wire.address import check_address
from raftnet.wire.frames import Kind
from raftnet.wire.joining import (
    CHANGE_REMOVE, CHANGE_SET, CHANGE_TRANSFER, JOIN_RETURNING, JOIN_STAYS, decode_change,
    decode_invite, decode_join, encode_change_reply, encode_invite, encode_invite_reply,
    encode_join_reply)

_NODE_ID_DIGITS = 16
_WAITING_MAX = 1_000    # JOIN and CHANGE without an answer yet
_TEXT_MAX = 1_000       # characters of a CHANGE_REPLY
_INVITE_EVERY_MS = 1_000    # those that `members --set` named and that are no members yet
_LOOK_MS = 1_000            # for their greetings, before that; more where round trips are long
_LOOK_ROUND_TRIPS = 4


@dataclass(slots=True)
class _Asker:
    """Who waits for a membership to be committed; `text`: of a CHANGE_REPLY."""

    client: object
    request_id: int
    kind: Kind          # of the answer
    text: str = ""


@dataclass(slots=True)
class _Look:
    """A CHANGE of operation SET, until those who are no members have greeted, or do not answer."""

    asker: _Asker
    addresses: list[str]            # that are to be the members
    strangers: tuple[str, ...]      # of them, those that are none
    deadline_ms: int


class Admission:
    """The changes of membership under way at one node."""

    def __init__(self, replica):
        self._replica = replica
        self._waiting: dict[int, list[_Asker]] = {}     # by entry index
        self._transfers: list[_Asker] = []
        self._transfers_end_ms = 0      # who leads now should be known by then
        self._invite_deadline_ms = 0
        self._look: _Look | None = None

    def frame(self, client, request_id: int, kind: int, body: bytes) -> None:
        """A JOIN, INVITE or CHANGE."""
        replica = self._replica
        try:
            if kind == Kind.INVITE:
                self._invited(client, request_id, body)
                return
            refusal = replica.why_not_serving()
            if (refusal is not None and kind == Kind.JOIN and replica.leads
                    and replica.raft.leads_ready and not replica.raft.membership.founded):
                refusal = None      # a founder whose directory was emptied meanwhile
            if refusal is not None and kind == Kind.JOIN and self._is_missed(body):
                self._answer(_Asker(client, request_id, Kind.JOIN_REPLY), 0)
                return
            waiting = len(self._transfers) + sum(map(len, self._waiting.values()))
            if refusal is None and waiting >= _WAITING_MAX:
                refusal = ErrorCode.BUSY, "too many changes wait; ask again"
            if refusal is not None:
                replica.refuse(client, request_id, *refusal)
            elif kind == Kind.JOIN:
                self._join(client, request_id, *decode_join(body))
            else:
                self._change(client, request_id, *decode_change(body))
        except MalformedError as error:
            replica.refuse(client, request_id, ErrorCode.BAD_REQUEST, str(error))
        except ChangeRefusedError as error:
            replica.refuse(client, request_id, error.code, str(error))

    def _answer(self, asker: _Asker, index: int) -> None:
        replica = self._replica
        body = (encode_join_reply(replica.cluster_id) if asker.kind == Kind.JOIN_REPLY
                else encode_change_reply(index, asker.text[:_TEXT_MAX]))
        replica.gateway.answers.append((asker.client, asker.request_id, asker.kind, body))

    def _propose(self, membership: Membership, asker: _Asker, text: str) -> None:
        """Raises ChangeRefusedError."""
        index, _ = self._replica.raft.propose_membership(membership)
        self._replica.actions.say("admission", "%s at index %d", text, index)
        self._waiting.setdefault(index, []).append(asker)

    # --- JOIN

    def _join(self, client, request_id: int, node_id: int, address: str, flags: int) -> None:
        check_address(address)          # MalformedError where it is none
        raft = self._replica.raft
        membership = raft.membership
        asker = _Asker(client, request_id, Kind.JOIN_REPLY)
        known = membership.member(node_id)
        if node_id in membership.removed:
            if raft.log.membership_index > raft.log.commit_index:   # whoever is told REMOVED obeys
                raise ChangeRefusedError(f"the removal of node {node_id:016x} is under way")
            raise ChangeRefusedError(f"node {node_id:016x} was removed: empty its data directory "
                                     "and start it with --join", ErrorCode.REMOVED)
        if known is not None and known.address == address:
            self._waiting.setdefault(raft.log.membership_index, []).append(asker)
            self.membership_committed(raft.log.commit_index)
        elif known is not None:
            if membership.members_at(address):
                raise _address_taken(address, membership.member_at(address))
            if (self._is_heard(known)
                    and self._replica.address_of(node_id) != address):
                raise _address_taken(known.address, known)
            self._propose(membership.with_member(
                Member(node_id, address, known.voter, known.stays)), asker,
                f"{known.address} (node {node_id:016x}) has moved to {address}: known there")
        else:
            self._take_in(asker, node_id, address, flags)

    def _is_missed(self, body: bytes) -> bool:
        """Whether a founder asks that dropped this very founding, although an election had been
        held in it: it is a voter still, and without its vote there may never be a leader to ask.
        Raises MalformedError."""
        node_id, address, flags = decode_join(body)
        replica = self._replica
        raft = replica.raft
        if (raft is None or not flags & JOIN_RETURNING or raft.leader_id and not replica.leads
                or raft.membership.founded or holds_only_founding(raft)):
            return False
        member = raft.membership.member(node_id)
        return member is not None and member.voter and member.address == address

    def _take_in(self, asker: _Asker, node_id: int, address: str, flags: int) -> None:
        """A node that is new to the cluster."""
        membership = self._replica.raft.membership
        if len(membership.members) >= MEMBERS_MAX:
            raise ChangeRefusedError(f"a cluster has at most {MEMBERS_MAX} members",
                                     ErrorCode.TOO_LARGE)
        there = membership.members_at(address)
        if any(self._is_heard(member) for member in there):
            raise _address_taken(address, there[0])
        if len(there) > 1:
            # Emptied again before the first newcomer was through: that one goes, this one asks on.
            newcomer = there[-1] if membership.member_at(address) is there[0] else there[0]
            self._replica.raft.propose_membership(membership.without_member(newcomer.node_id))
            raise ChangeRefusedError("another newcomer at that address gives way first")
        if not there and (not membership.founded
                          or flags & JOIN_RETURNING and address not in membership.target):
            raise ChangeRefusedError(f"no member of this cluster is at {address}: to take a new "
                                     "node in, start it with --join", ErrorCode.NOT_A_MEMBER)
        stays = bool(flags & JOIN_STAYS) or any(m.stays for m in there)
        text = f"{address} (node {node_id:016x}) asks to be taken in: a learner"
        if there:
            text += f", in the place of node {there[0].node_id:016x} once it has caught up"
        self._propose(membership.with_member(Member(node_id, address, False, stays)), asker, text)

    def _is_heard(self, member: Member) -> bool:
        """Whether its process lives: whoever comes with its address is an impostor."""
        replica = self._replica
        if member.node_id == replica.node_id:
            return True
        silent = replica.greetings.known.silent_ms(member.node_id, replica.now_ms)
        return silent is not None and silent < replica.raft.timeout_of(member.node_id)

    # --- INVITE

    def invite(self) -> None:
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

    def _invited(self, client, request_id: int, body: bytes) -> None:
        cluster_id, contact, flags = decode_invite(body)
        check_address(contact)
        replica = self._replica
        belongs = replica.raft is not None and replica.cluster_id == cluster_id
        if belongs and replica.is_removed:
            raise ChangeRefusedError(f"{replica.address} was removed from this cluster: empty its "
                                     "data directory and start it again", ErrorCode.NOT_EMPTY)
        if not belongs and replica.raft is not None and not replica.is_quiet:
            raise ChangeRefusedError("disk work is under way here: ask again", ErrorCode.BUSY)
        if not belongs and not replica.joining.invited(cluster_id, contact, flags):
            raise ChangeRefusedError(
                f"{replica.address} belongs to cluster {replica.cluster_id.hex()[:8]} and has data "
                "of its own: empty its directory, or start it at another address",
                ErrorCode.NOT_EMPTY)
        replica.gateway.answers.append((client, request_id, Kind.INVITE_REPLY,
                                        encode_invite_reply(replica.node_id)))

    # --- CHANGE

    def _change(self, client, request_id: int, operation: int, addresses: list[str]) -> None:
        asker = _Asker(client, request_id, Kind.CHANGE_REPLY)
        if operation == CHANGE_REMOVE:
            self._remove(asker, self._find(addresses[0]))
        elif operation == CHANGE_TRANSFER:
            self._transfer(asker, self._find(addresses[0]))
        else:
            assert operation == CHANGE_SET
            self._set(asker, addresses)

    def _find(self, name: str) -> Member:
        membership = self._replica.raft.membership
        member = membership.member_at(name)
        if member is None and len(name) == _NODE_ID_DIGITS:
            try:
                member = membership.member(int(name, 16))
            except ValueError:
                pass            # no node id either: not found
        if member is None:
            addresses = ", ".join(m.address for m in membership.members)
            raise ChangeRefusedError(f"{name} is no member; the members are {addresses}",
                                     ErrorCode.NOT_A_MEMBER)
        return member

    def _remove(self, asker: _Asker, member: Member) -> None:
        membership = self._replica.raft.membership
        target = membership.target if self._look is None else self._look.addresses
        if target:
            raise ChangeRefusedError(f"the members are being set to {', '.join(target)}: wait, or "
                                     "set them anew")
        asker.text = f"{member.address} (node {member.node_id:016x}) is removed"
        self._propose(membership.without_member(member.node_id), asker,
                      f"an operator removes {member.address} (node {member.node_id:016x})")

    def _transfer(self, asker: _Asker, member: Member) -> None:
        replica = self._replica
        if member.node_id == replica.node_id:
            asker.text = f"{member.address} leads already"
            self._answer(asker, 0)
            return
        replica.raft.transfer(member.node_id)
        replica.actions.say("transfer", "an operator hands the leadership over to %s",
                            member.address)
        self._transfers.append(asker)

    def _set(self, asker: _Asker, addresses: list[str]) -> None:
        for address in addresses:
            check_address(address)
        if len(set(addresses)) != len(addresses):
            raise MalformedError("an address is named twice")
        replica = self._replica
        membership = replica.raft.membership
        look = self._look
        if look is not None:
            if look.addresses != addresses:     # who asks later is to have the last word
                raise ChangeRefusedError("other nodes are being looked at, to be the members")
            look.asker = asker                  # again, over another connection
            return
        strangers = tuple([a for a in addresses if membership.member_at(a) is None])
        if not strangers:
            self._propose_target(asker, addresses)
            return
        replica.greetings.forget_names(strangers)
        patience_ms = max(_LOOK_MS, _LOOK_ROUND_TRIPS * replica.raft.rtt_ms)
        self._look = _Look(asker, addresses, strangers, replica.now_ms + patience_ms)
        replica.peers_changed = True

    @property
    def looked_at(self) -> tuple[str, ...]:
        """Addresses to be dialled, to learn what those who answer there call themselves."""
        return self._look.strangers if self._look is not None else ()

    def _go_on_looking(self, look: _Look) -> None:
        """Propose what was asked for, or refuse it, once that is clear."""
        replica = self._replica
        names = replica.greetings.names
        aliases = [f"{a} is the node {names[a]}" for a in look.strangers if names.get(a, a) != a]
        if not aliases and replica.now_ms < look.deadline_ms and not all(
                address in names for address in look.strangers):
            return
        self._look = None
        replica.peers_changed = True
        try:
            if aliases:
                raise ChangeRefusedError(f"{', '.join(aliases)}: use the address by which it calls "
                                         "itself; nothing was changed", ErrorCode.ADDRESS_TAKEN)
            self._propose_target(look.asker, look.addresses)
        except ChangeRefusedError as error:
            replica.refuse(look.asker.client, look.asker.request_id, error.code, str(error))

    def _propose_target(self, asker: _Asker, addresses: list[str]) -> None:
        """Raises ChangeRefusedError."""
        asker.text = f"the members are being set to {', '.join(addresses)}"
        self._propose(self._replica.raft.membership.with_target(tuple(addresses)), asker,
                      f"an operator sets the members to {', '.join(addresses)}")
        self._replica.peers_changed = True

    # --- what comes of it

    def membership_committed(self, index: int) -> None:
        """Memberships up to `index` are committed: whoever waited for one is answered."""
        for at in [at for at in self._waiting if at <= index]:
            for asker in self._waiting.pop(at):
                self._answer(asker, at)

    def tick(self) -> None:
        """Once a turn: who was looked at has answered; a transfer that came to nothing is told."""
        replica = self._replica
        if self._look is not None:
            self._go_on_looking(self._look)
        if self._transfers and replica.leads and not replica.raft.transferring:
            transfers, self._transfers = self._transfers, []
            for asker in transfers:
                replica.refuse(asker.client, asker.request_id, ErrorCode.TRANSFER_FAILED,
                               "the other node did not take over in time; this one goes on")
        elif self._transfers and not replica.leads and replica.now_ms >= self._transfers_end_ms:
            transfers, self._transfers = self._transfers, []
            for asker in transfers:
                replica.refuse(asker.client, asker.request_id, ErrorCode.LEADERSHIP_LOST,
                               "this node leads no more, and does not know who does: look at the "
                               "status of the others")

    def leader_changed(self) -> None:
        """Another leader is known: transfers are done."""
        replica = self._replica
        if self._transfers and replica.leader_address and not replica.leads:
            for asker in self._transfers:
                asker.text = f"{replica.leader_address} leads"
                self._answer(asker, 0)
            self._transfers.clear()

    def leadership_lost(self) -> None:
        """Whoever waits for a change must look whether it was done."""
        replica = self._replica
        if self._look is not None:
            asker, self._look = self._look.asker, None
            replica.refuse(asker.client, asker.request_id, ErrorCode.NOT_LEADER,
                           "this node leads no more")
        self._transfers_end_ms = replica.now_ms + 2 * replica.raft.election_timeout_ms
        for waiting in self._waiting.values():
            for asker in waiting:
                self._replica.refuse(asker.client, asker.request_id, ErrorCode.LEADERSHIP_LOST,
                                     "this node leads no more: whether the change was done, the "
                                     "members tell")
        self._waiting.clear()


def _address_taken(address: str, member: Member) -> ChangeRefusedError:
    return ChangeRefusedError(f"{address} belongs to node {member.node_id:016x}, which is heard: "
                              "start it with its own data directory, or join under another address",
                              ErrorCode.ADDRESS_TAKEN)
