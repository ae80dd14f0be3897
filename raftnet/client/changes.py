"""Changing who belongs to the cluster: adding, removing, handing over, `set` (Client.add, ...).

Rules: a CHANGE is sent at most once between two looks at the leader's members, because a lost
answer leaves open whether it was done; the look tells. A node is removed by its node id, which
never comes back, so that asking again cannot remove whoever took its address. Done means:
committed. Waiting ends when nothing has moved for the time limit; what was begun goes on by itself.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftnet.client.connection import NO_CLUSTER, clock
from raftnet.client.link import Read, ask_node
from raftnet.client.session import Refusal
from raftnet.client.statusview import held_text, start_command, target_text
from raftnet.errors import ErrorCode, MalformedError, NoAnswerError, RefusedError
from raftnet.wire import joining, requests
from raftnet.wire.address import format_address, parse_address
from raftnet.wire.frames import Kind
from raftnet.wire.requests import MemberStatus, NodeStatus

LOOK_S_MIN = 0.02           # between two looks, doubling
LOOK_S_MAX = 0.25
PROGRESS_S = 1.0            # between two texts for whoever waits
LAST_LOOK_S = 2.0           # of the time limit, kept for a last look at the members
NODE_ID_DIGITS = 16
_EMPTY_ROLES = ("joining", "founding")

Progress = Callable[[str], None]


class Changed(NamedTuple):
    """What a change came to."""

    text: str               # for people
    done: bool              # False: asked for, not waited for
    index: int = 0          # of the entry that did it; 0: none was needed
    node_id: int = 0        # of the node that it is about; 0: several
    members: tuple[str, ...] = ()       # addresses, as the leader knew them last


class Change(Read):
    """An exchange of one CHANGE. It ends with an answer, or where whoever asked must look at the
    members before it is sent again: redirected, lost, or another change under way."""

    def __init__(self, body: bytes, request_id: int, doubtful: bool):
        super().__init__(Kind.CHANGE, body, Kind.CHANGE_REPLY, request_id)
        self.doubtful = doubtful        # an earlier sending, or this one, may have been executed
        self.problem = ""               # why it ended without an answer
        self._sent = False              # and without a verdict

    @property
    def known(self) -> bool:
        """Whether it was surely not executed."""
        return not self.doubtful and not self._sent

    @property
    def unanswered(self) -> bool:
        """Whether there is still something to wait for."""
        return self.answer is None and not self.problem

    def output(self, now: float) -> bytes:
        """The request, once; again only after a refusal that says: surely not executed, wait."""
        data = super().output(now)
        self._sent = self._sent or bool(data)
        return data

    def connection_lost(self) -> None:
        """Whether it was executed cannot be known here, if it was sent."""
        if self._sent:
            self._sent, self.doubtful = False, True
            self.problem = "the connection was lost before the answer came"

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; raises MalformedError for what answers no change."""
        refusal = super().receive(kind, request_id, body)
        if refusal is not None:
            self._sent = False
            self.doubtful = self.doubtful or refusal.code == ErrorCode.LEADERSHIP_LOST
            if refusal.code in (ErrorCode.NOT_LEADER, ErrorCode.LEADERSHIP_LOST,
                                ErrorCode.CHANGE_UNDER_WAY):
                self.problem = f"{requests.describe_error(refusal.code)}: {refusal.text}"
            if refusal.code == ErrorCode.CHANGE_UNDER_WAY:
                return None             # no reason to leave this node, nor to give up
        return refusal


class Changes:
    """The changes of one client. `run(exchange, deadline)` is its way to the leader."""

    def __init__(self, run: Callable, request_ids: Iterator[int], timeout_s: float):
        self._run = run
        self._request_ids = request_ids
        self._timeout_s = timeout_s

    # --- add

    def add(self, address: str, stays: bool, wait: bool, progress: Progress) -> Changed:
        """Have the node at `address` taken in; see Client.add."""
        address = format_address(*parse_address(address))
        deadline = clock() + self._timeout_s
        leader = self._leader(deadline)
        node = _ask_newcomer(address, leader, stays, deadline)
        asked, address = address, node.address      # the members know it by its own word
        member = _member(leader, node.node_id)
        if member is None:
            _check_empty(address, node, leader, stays)
            node_id = _invite(asked, leader, stays, deadline)
            if not wait:
                return Changed(f"{address} (node {node_id:016x}) asks to be taken in now; "
                               "`members` shows how far it is", False, 0, node_id,
                               _addresses(leader))
        else:
            node_id = member.node_id
            _check_kind(address, member, stays)
            if _is_in(leader, node_id, stays):
                return Changed(f"{address} (node {node_id:016x}) is a {_kind(stays)} already",
                               True, 0, node_id, _addresses(leader))
            if not wait:
                return Changed(f"{address} (node {node_id:016x}) is a learner already and becomes "
                               "a voter by itself", False, 0, node_id, _addresses(leader))
        status = self._wait_for(
            lambda s: _is_in(s, node_id, stays), lambda s: _newcomer_text(s, address, node_id),
            lambda member: member.node_id == node_id, progress,
            f"{address} is not a {_kind(stays)} yet; it goes on by itself")
        return Changed(f"{address} (node {node_id:016x}) is a {_kind(stays)} now", True,
                       status.membership_index, node_id, _addresses(status))

    # --- remove and transfer

    def remove(self, who: str) -> Changed:
        """Remove the member with that address or node id (16 hex digits)."""
        by_id = is_node_id(who)
        who = who.lower() if by_id else format_address(*parse_address(who))
        leader = self._leader(clock() + self._timeout_s)
        node_id = int(who, 16) if by_id else _one_at(leader, who)
        member = _member(leader, node_id)
        words = [f"{node_id:016x}"] if node_id else [who]
        index, _ = self._perform(
            joining.CHANGE_REMOVE, words,
            # before it was sent, absence means: no such member, which is the leader's to say
            lambda s, sent: sent and node_id and _member(s, node_id) is None, f"{who} is removed")
        status = self._leader(clock() + self._timeout_s)
        name = f"{member.address if member else who} (node {words[0]})" if node_id else who
        return Changed(f"{name} is removed; its process goes on until it is stopped", True, index,
                       node_id, _addresses(status))

    def transfer(self, address: str) -> Changed:
        """Hand the leadership over to the voter at `address`."""
        address = format_address(*parse_address(address))
        leader = self._leader(clock() + self._timeout_s)
        node_id = _one_at(leader, address)
        if node_id and leader.node_id == node_id:
            return Changed(f"{address} leads already (term {leader.term})", True, 0, node_id,
                           _addresses(leader))
        index, _ = self._perform(joining.CHANGE_TRANSFER, [address],
                                 lambda s, _: s.node_id == node_id, f"{address} leads")
        return Changed(f"{address} leads now", True, index, node_id, _addresses(leader))

    # --- set

    def set(self, addresses: list[str], wait: bool, progress: Progress) -> Changed:
        """Make exactly these addresses the members, all voters; see Client.set_members."""
        wanted = sorted(format_address(*parse_address(address)) for address in addresses)
        if not wanted or len(set(wanted)) != len(wanted):
            raise MalformedError("each member is to be named once, and at least one")
        names = ", ".join(wanted)
        index, _ = self._perform(
            joining.CHANGE_SET, wanted,
            lambda s, _: sorted(s.target) == wanted or _are_members(s, wanted),
            f"{names} are to be the members")
        if not wait:
            return Changed(f"the members are to be {names}: the leader works toward it by itself; "
                           "`members` shows how far it is", False, index, 0, ())

        def is_done(status: NodeStatus) -> bool:
            if status.membership_index < index or not _committed(status):
                return False
            if status.target and sorted(status.target) != wanted:
                raise RefusedError(ErrorCode.CHANGE_UNDER_WAY, "meanwhile somebody else asked for "
                                   f"other members: {', '.join(status.target)}")
            return not status.target
        status = self._wait_for(
            is_done, lambda s: target_text(s) or "the last change is not committed yet",
            lambda member: member.address in wanted, progress,
            f"the members are not {names} yet; the leader goes on by itself (to give up: `members "
            "--set` with those that there are)")
        return Changed(f"the members are {', '.join(_addresses(status))}", True,
                       status.membership_index, 0, _addresses(status))

    # --- asking

    def _leader(self, deadline: float) -> NodeStatus:
        read = Read(Kind.STATUS, b"", Kind.STATUS_REPLY, self._request_id(), of_leader=True)
        self._run(read, deadline)
        return requests.decode_status(read.answer)

    def _request_id(self) -> int:
        return next(self._request_ids) & 0xFFFFFFFF

    def _perform(self, operation: int, words: list[str],
                 in_effect: Callable[[NodeStatus, bool], object], what: str) -> tuple[int, str]:
        """(index, text) of the change; (0, "") where a look showed that it needs none (any more).

        `in_effect(status, sent)`: whether the leader's members show it; `sent`: a CHANGE may have
        reached a leader. Raises RefusedError, or NoAnswerError with what is known.
        """
        deadline = clock() + self._timeout_s
        last_look = min(LAST_LOOK_S, self._timeout_s / 4)
        body = joining.encode_change(operation, words)
        sent = doubtful = False
        problem, pause = "", LOOK_S_MIN
        while True:
            try:
                status = self._leader(deadline)
            except NoAnswerError as error:
                raise _no_answer(what, doubtful, problem or str(error)) from error
            if in_effect(status, sent):
                if _committed(status):
                    return (status.membership_index if sent else 0), ""
                problem = "it is not committed yet"
            elif clock() < deadline - last_look:
                change = Change(body, self._request_id(), doubtful)
                try:
                    self._run(change, deadline - last_look)
                except NoAnswerError as error:
                    if clock() < deadline - last_look:
                        raise               # refused for good, though an earlier one may be done
                    change.problem = change.problem or str(error)
                    change.doubtful = not error.known
                sent = True
                if change.answer is not None:
                    return joining.decode_change_reply(change.answer)
                doubtful, problem = change.doubtful, change.problem
            if clock() + pause >= deadline:
                raise _no_answer(what, doubtful, problem)
            time.sleep(pause)
            pause = min(LOOK_S_MAX, 2 * pause)

    def _wait_for(self, is_done: Callable[[NodeStatus], bool],
                  describe: Callable[[NodeStatus], str], is_meant: Callable[[MemberStatus], bool],
                  progress: Progress, not_done: str) -> NodeStatus:
        """Look at the leader's members until `is_done`, for as long as something moves: the
        members, or what a learner that `is_meant` holds."""
        moved = told = clock()
        seen, pause = (), LOOK_S_MIN
        while True:
            try:
                status = self._leader(moved + self._timeout_s)
            except NoAnswerError as error:
                raise NoAnswerError(f"{not_done}. {error}", False) from error
            if is_done(status):
                return status
            text, now = describe(status), clock()
            learners = [(m.node_id, m.match_index, m.snapshot_bytes) for m in status.members
                        if not m.voter and is_meant(m)]
            place = status.membership_index, _committed(status), learners
            if place != seen:
                seen, moved = place, now
            if now - told >= PROGRESS_S:
                told = now
                progress(text)
            if now + pause >= moved + self._timeout_s:
                raise NoAnswerError(f"{not_done}. For {self._timeout_s:g} s nothing moved: {text}",
                                    False)
            time.sleep(pause)
            pause = min(LOOK_S_MAX, 2 * pause)


def _no_answer(what: str, doubtful: bool, problem: str) -> NoAnswerError:
    last = f"; last: {problem}" if problem else ""
    if doubtful:
        return NoAnswerError(f"no answer in time; it is unknown whether {what}: `members` shows "
                             f"it{last}", False)
    return NoAnswerError(f"no answer in time; surely not executed{last}", True)


# --- the node that is to be added


def _ask_newcomer(address: str, leader: NodeStatus, stays: bool, deadline: float) -> NodeStatus:
    """Its status; raises RefusedError with the command that starts it where it does not run."""
    try:
        return requests.decode_status(
            ask_node(address, Kind.STATUS, b"", Kind.STATUS_REPLY, deadline))
    except NoAnswerError as error:
        if stays:       # with --join it would become a voter
            way = f"start it there with: {start_command(address, '')}; then add it again"
        else:
            way = ("start it there with this, and it comes in by itself: "
                   f"{start_command(address, leader.address)}")
        raise RefusedError(ErrorCode.NOT_READY, f"no node runs there ({error}): {way}") from error


def _check_empty(address: str, node: NodeStatus, leader: NodeStatus, stays: bool) -> None:
    """Raises RefusedError for a node that surely holds something, with what to do."""
    command = start_command(address, "" if stays else leader.address)
    again = f"stop it, empty its data directory, and start it with: {command}"
    if node.cluster_id == leader.cluster_id or node.role == "removed":
        if node.role == "removed":
            raise RefusedError(ErrorCode.REMOVED, f"{address} was removed from its cluster, and a "
                               f"removed node does not come back: {again}")
        return          # on its way in, or its INVITE is answered with why not
    if node.role in _EMPTY_ROLES or node.cluster_id == NO_CLUSTER or len(node.members) <= 1:
        return          # whether a lone founder has acknowledged anything is its own to say
    others = ", ".join(m.address for m in node.members if m.node_id != node.node_id)
    raise RefusedError(ErrorCode.NOT_EMPTY, f"{address} belongs to another cluster "
                       f"({node.cluster_id.hex()[:8]}, with {others}): {again}")


def _check_kind(address: str, member: MemberStatus, stays: bool) -> None:
    if stays and member.voter:
        raise RefusedError(ErrorCode.ADDRESS_TAKEN, f"{address} is a voter already; to make it a "
                           f"learner: `remove {address}`, stop it, empty its data directory, start "
                           "it, and add it again")
    if not stays and member.stays:
        raise RefusedError(ErrorCode.ADDRESS_TAKEN, f"{address} is a learner that stays one; to "
                           f"make it a voter: `remove {address}`, stop it, empty its data "
                           "directory, start it, and add it again")


def _invite(address: str, leader: NodeStatus, stays: bool, deadline: float) -> int:
    """Have it ask the leader to be taken in, which may be asked again; gives its node id."""
    contact = next((m.address for m in leader.members if m.node_id == leader.node_id),
                   leader.address)
    body = joining.encode_invite(leader.cluster_id, contact, joining.JOIN_STAYS if stays else 0)
    while True:
        try:
            return joining.decode_invite_reply(
                ask_node(address, Kind.INVITE, body, Kind.INVITE_REPLY, deadline))
        except RefusedError as error:
            if error.code == ErrorCode.BUSY and clock() + LOOK_S_MIN < deadline:
                time.sleep(LOOK_S_MIN)      # a disk job of its own founding is under way
                continue
            if error.code != ErrorCode.NOT_EMPTY:
                raise
            raise RefusedError(error.code, f"{error}: stop it, empty its data directory, and start "
                               f"it with: {start_command(address, '' if stays else contact)}"
                               ) from error
        except NoAnswerError as error:
            if clock() + LOOK_S_MAX >= deadline:
                raise NoAnswerError(f"{error}; it is unknown whether it asks to be taken in: "
                                    "`members` shows it", False) from error
            time.sleep(LOOK_S_MAX)


# --- what the leader's members show


def is_node_id(text: str) -> bool:
    """Whether it is 16 hex digits; an address has a colon."""
    return len(text) == NODE_ID_DIGITS and all(c in "0123456789abcdefABCDEF" for c in text)


def _member(status: NodeStatus, node_id: int) -> MemberStatus | None:
    return next((m for m in status.members if m.node_id == node_id), None)


def _one_at(status: NodeStatus, address: str) -> int:
    """The node id of the member there, 0 where there is none; raises RefusedError for two."""
    found = [member for member in status.members if member.address == address]
    if len(found) > 1:
        names = ", ".join(f"{m.node_id:016x} ({_kind(not m.voter)})" for m in found)
        raise RefusedError(ErrorCode.BAD_REQUEST, f"two members are at {address}, because its data "
                           f"directory was emptied: name one by its node id: {names}")
    return found[0].node_id if found else 0


def _kind(learner: bool) -> str:
    return "learner" if learner else "voter"


def _committed(status: NodeStatus) -> bool:
    return status.membership_index <= status.commit_index


def _addresses(status: NodeStatus) -> tuple[str, ...]:
    return tuple(sorted(member.address for member in status.members))


def _is_in(status: NodeStatus, node_id: int, stays: bool) -> bool:
    member = _member(status, node_id)
    return member is not None and (member.voter or stays) and _committed(status)


def _are_members(status: NodeStatus, wanted: list[str]) -> bool:
    return (not status.target and all(member.voter for member in status.members)
            and list(_addresses(status)) == wanted)


def _newcomer_text(status: NodeStatus, address: str, node_id: int) -> str:
    member = _member(status, node_id)
    if member is None:
        return f"{address} is not taken in yet; its log says whom it asks"
    if member.voter or not _committed(status):
        return f"{address}: the change at index {status.membership_index} is not committed yet"
    return f"{address}: learner, {held_text(member, status)}"
