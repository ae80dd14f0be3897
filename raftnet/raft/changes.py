"""Changes of the membership: what may be proposed, and what a leader proposes by itself.

Rules: one change at a time, of one voter at most, and none before an entry of the leader's term is
committed (thesis 4.1; Ongaro's erratum); none that would leave fewer voters alive than decide
afterwards, and never the last voter. A leader that was removed leads until that is committed,
counts no copy and no vote of its own meanwhile, then hands over (thesis 4.2.2). What else needs
several steps (founding, a newcomer in the place of a lost directory, a learner's promotion, a
target) is derived from the newest membership alone, so that any leader takes it up where another
left it.
"""

from raftnet.errors import ChangeRefusedError, ErrorCode, NotLeaderError
from raftnet.raft import leader, transfer
from raftnet.raft.entry import EntryKind
from raftnet.raft.membership import Member, Membership, encode_membership, voters_changed
from raftnet.raft.types import EntryId, Role, TimeoutNow

# A learner has caught up when no more than this many entries (batches) are missing.
_CAUGHT_UP_ENTRIES = 64
_MEMBERSHIP_BYTES_MAX = 1024 * 1024
_NAMED_MAX = 5      # silent voters that a refusal names


def propose(raft, membership: Membership) -> EntryId:
    """Append a membership that differs in one voter at most; it is in effect at once.

    Raises NotLeaderError, ChangeRefusedError.
    """
    if raft.role is not Role.LEADER:
        raise NotLeaderError("this node does not lead")
    if raft.log.commit_index < raft.term_start_index:
        raise ChangeRefusedError("no entry of this leader's term is committed yet")
    if raft.log.membership_index > raft.log.commit_index:
        raise ChangeRefusedError("another membership change is under way")
    if raft.transfer_to:
        raise ChangeRefusedError("leadership is being handed over")
    changed = voters_changed(raft.membership, membership)
    if changed > 1:
        raise ChangeRefusedError("one voter at a time")
    if changed:
        _check_quorum_lives(raft, membership)
    payload = encode_membership(membership)
    if len(payload) > _MEMBERSHIP_BYTES_MAX:
        raise ChangeRefusedError("the membership would be too large: name fewer, shorter addresses",
                                 ErrorCode.TOO_LARGE)
    entry_id = leader.append(raft, EntryKind.MEMBERSHIP, payload)
    leader.follow_membership(raft)
    return entry_id


def is_alive(raft, node_id: int) -> bool:
    """Whether that is this node, or one that answered it within an election timeout."""
    if node_id == raft.node_id:
        return True
    progress = raft.progress.get(node_id)
    return progress is not None and progress.heard_within(raft.timeout_of(node_id), raft.now_ms)


def _check_quorum_lives(raft, membership: Membership) -> None:
    """Refuse what would leave a cluster that cannot decide anything, this change included."""
    if not membership.voters:
        raise ChangeRefusedError("the last voter is never removed: add another node first",
                                 ErrorCode.QUORUM_AT_RISK)
    silent = [n for n in membership.voters if not is_alive(raft, n)]
    alive = len(membership.voters) - len(silent)
    if alive >= membership.quorum:
        return
    names = [membership.member(node_id).address for node_id in silent[:_NAMED_MAX]]
    more = f" and {len(silent) - _NAMED_MAX} more" if len(silent) > _NAMED_MAX else ""
    raise ChangeRefusedError(
        f"{membership.quorum} of the {len(membership.voters)} voters must agree afterwards, and"
        f" only {alive} would be there: {', '.join(names)}{more} not heard; start what is missing"
        " or remove that first", ErrorCode.QUORUM_AT_RISK)


# --- what the leader does by itself


def maintain(raft) -> None:
    """Take the next step, if there is one; called once a turn where the membership needs any.

    A step that is refused is tried again a heartbeat later. This may end the leadership.
    """
    log, membership = raft.log, raft.membership
    if (log.commit_index < raft.term_start_index or log.membership_index > log.commit_index
            or raft.transfer_to):
        return
    others = [node_id for node_id in membership.voters if node_id != raft.node_id]
    if not membership.founded and all(
            raft.progress[node_id].match_index >= 1 for node_id in others):
        propose(raft, membership.as_founded())
    elif not membership.is_voter(raft.node_id):
        _hand_over(raft)
    elif raft.now_ms >= raft.step_retry_ms:
        step = (_end_twins(raft, membership) or _promote(raft, membership)
                or _approach_target(raft, membership))
        raft.step_refused = ""
        if step is not None:
            try:
                propose(raft, step)
            except ChangeRefusedError as error:     # too many are silent: they may come back
                raft.step_refused = str(error)
                raft.step_retry_ms = raft.now_ms + raft.heartbeat_ms


def _hand_over(raft) -> None:
    """This node's removal is committed: the best of the others campaigns at once, and gets all
    that was appended here before it is told (thesis 4.2.2)."""
    successor = transfer.best_successor(raft)
    if successor:
        leader.send_appends(raft, successor, raft.progress[successor], {})
        raft.send(successor, TimeoutNow(raft.current_term))
    raft.become_follower(raft.current_term, 0)


def _has_caught_up(raft, member: Member) -> bool:
    """Whether that member answers and misses little; the leader itself has all."""
    progress = raft.progress.get(member.node_id)
    return progress is None or (
        is_alive(raft, member.node_id)
        and progress.match_index + _CAUGHT_UP_ENTRIES >= raft.log.last_index
        and progress.match_index >= raft.log.membership_index)


def _is_silent(raft, member: Member) -> bool:
    """Whether that member has had an election timeout to answer in this term, and did not."""
    node_id = member.node_id
    progress = raft.progress.get(node_id)
    return progress is not None and raft.now_ms - progress.heard_ms >= raft.timeout_of(node_id)


def _end_twins(raft, membership: Membership) -> Membership | None:
    """Of two at one address only one can be there: the silent one goes.

    An old identity that answers stays, whatever it holds. One that does not goes only when the
    newcomer has caught up; that one is promoted by the next step.
    """
    for member in membership.members:
        if not _is_silent(raft, member):
            continue
        for twin in membership.members_at(member.address):
            if twin is member:
                continue
            if twin.voter:
                prevails = not member.voter and is_alive(raft, twin.node_id)
            else:
                prevails = _has_caught_up(raft, twin)
            if prevails:
                return membership.without_member(member.node_id)
    return None


def _promote(raft, membership: Membership) -> Membership | None:
    """A learner that has caught up becomes a voter (thesis 4.2.1); of twins neither."""
    for member in membership.members:
        wanted = not member.stays or member.address in membership.target
        if (not member.voter and wanted and _has_caught_up(raft, member)
                and len(membership.members_at(member.address)) == 1):
            return membership.with_member(Member(member.node_id, member.address, True))
    return None


def _approach_target(raft, membership: Membership) -> Membership | None:
    """Once every target is a voter, the others go: learners, the silent, the rest, this node."""
    target = membership.target
    if not target:
        return None
    for address in target:
        member = membership.member_at(address)
        if member is None or not member.voter:
            return None
    others = [member for member in membership.members if member.address not in target]
    if not others:
        return membership.with_target(())
    others.sort(key=lambda m: (m.voter, m.node_id == raft.node_id, is_alive(raft, m.node_id)))
    return membership.without_member(others[0].node_id)
