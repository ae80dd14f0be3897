"""What a node's Raft does, told to the action log.

Messages are told in one line a kind and turn, not one each; role, members and times where they are
others than before.
"""

from raftnet.actions import DEBUG
from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, Message, Outgoing, PreVote, PreVoteReply, Role,
    TimeoutNow, Vote, VoteReply)


def _name(replica, node_id: int) -> str:
    member = replica.raft.membership.member(node_id)
    return member.address if member is not None else f"node {node_id:016x}"


def narrate_times(replica, told: tuple[int, int]) -> tuple[int, int]:
    """Heartbeat interval and election timeout, where they are others than those told last; gives
    those told now."""
    raft = replica.raft
    times = raft.heartbeat_ms, raft.election_timeout_ms
    if times != told:
        replica.actions.say("times", "a heartbeat every %d ms, an election timeout of %d to %d ms: "
                            "%s", times[0], times[1], 2 * times[1], replica.reads.timing_text())
    return times


def narrate_role(replica) -> None:
    """The role that this node has now."""
    raft = replica.raft
    if raft.role is Role.LEADER:
        text = "elected leader"
    elif raft.role is Role.CANDIDATE:
        text = ("asking whether an election would be won (pre-vote)" if raft.pre_voting
                else "standing for election")
    else:
        text = f"following {replica.leader_address or 'nobody yet'}"
    # Each role is a kind of its own: an election's many steps must not hide its outcome.
    replica.actions.say(f"role {raft.role.value}", "%s", text)


def narrate_membership(replica) -> None:
    """The newest membership in the log."""
    membership = replica.raft.membership
    words = [f"{m.address}{'' if m.voter else ' (learner)'}" for m in membership.members]
    replica.actions.say("membership", "members at index %d: %s; quorum %d%s",
                        replica.raft.log.membership_index, ", ".join(words), membership.quorum,
                        "" if membership.founded else "; not founded yet")


def narrate_received(replica, sender: int, message: Message) -> None:
    """A message that came in."""
    say = replica.actions.say
    kind = type(message)
    if kind is Append:
        say("append received", "append received: %d entries after %d, leader commit %d",
            len(message.entries), message.prev_log_index, message.leader_commit)
    elif kind is AppendReply:
        if message.success:
            say("acknowledgement received", "acknowledgement received up to entry %d",
                message.match_index, level=DEBUG)
        else:
            say("repair", "%s does not hold our entry %d: going back", _name(replica, sender),
                message.match_index)
    elif kind is Heartbeat:
        say("heartbeat received", "heartbeat received from leader %s", _name(replica, sender))
    elif kind is HeartbeatReply:
        say("heartbeat answer", "heartbeat answered by %s", _name(replica, sender), level=DEBUG)
    elif kind is PreVote:
        say("pre-vote received", "%s asks whether it would be elected in term %d",
            _name(replica, sender), message.term)
    elif kind is Vote:
        say("vote request received", "%s asks for a vote in term %d", _name(replica, sender),
            message.term)
    elif kind in (PreVoteReply, VoteReply):
        say("vote received", "%s %s its %s (term %d)", _name(replica, sender),
            "grants" if message.granted else "refuses",
            "vote" if kind is VoteReply else "pre-vote", message.term)
    elif kind is TimeoutNow:
        say("take over", "%s asks this node to take over from it (term %d)",
            _name(replica, sender), message.term)


def narrate_sent(replica, outgoing: list[Outgoing]) -> None:
    """The messages of one turn, told once a kind."""
    say = replica.actions.say
    counts: dict[type, list[Outgoing]] = {}
    for item in outgoing:
        counts.setdefault(type(item.message), []).append(item)
    for kind, items in counts.items():
        first = items[0].message
        if kind is Heartbeat:
            say("heartbeat sent", "heartbeat sent to %d nodes", len(items))
        elif kind is Append:
            say("append sent", "append sent to %d nodes: after %d, commit %d", len(items),
                first.prev_log_index, first.leader_commit)
        elif kind is PreVote:
            say("pre-vote sent", "pre-vote for term %d asked of %d nodes", first.term, len(items))
        elif kind is Vote:
            say("vote request sent", "vote for term %d asked of %d nodes", first.term, len(items))
        elif kind in (PreVoteReply, VoteReply):
            say("vote sent", "%s %s to %s (term %d)", "pre-vote" if kind is PreVoteReply
                else "vote", "granted" if first.granted else "refused",
                _name(replica, items[0].to), first.term)
        elif kind is AppendReply:
            say("acknowledgement sent", "acknowledged up to entry %d", first.match_index,
                level=DEBUG)
        elif kind is TimeoutNow:
            say("hand over", "%s asked to take over (term %d)", _name(replica, items[0].to),
                first.term)
