"""Elections and following: what candidates ask, whom a node votes for, how a follower follows.

Rules: pre-vote before every election (thesis 9.6), a vote is withheld while a leader is alive
(thesis 4.2.3), votes are counted by sender. A node that is no voter, or whose disk is overdue or
full, does not campaign. State is in core.py.
"""

from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Role, TimeoutNow,
    Vote, VoteReply)

# Above this exponent the doubling wait of a fast retry is longer than any election timeout.
_DOUBLINGS_MAX = 12
# Failed rounds widen the interval of the timeout up to here, where it is not longer anyway.
_BACK_OFF_MS_MAX = 12_000


def reset_timer(raft) -> None:
    """A new election timeout, drawn at random (Raft 5.2)."""
    low = raft.election_timeout_ms
    high = min(low * (2 + raft.failed_rounds), max(2 * low, _BACK_OFF_MS_MAX))
    raft.election_deadline_ms = raft.now_ms + raft.randint(low, high - 1)


def _retry_timer(raft) -> None:
    """When an election that is begun now has failed: soon, where the leader is known dead."""
    reset_timer(raft)
    if raft.gone_attempts:
        config = raft.config
        wait = raft.randint(config.retry_after_gone_ms_min, config.retry_after_gone_ms_max)
        wait <<= min(raft.gone_attempts - 1, _DOUBLINGS_MAX)
        raft.gone_attempts += 1
        raft.election_deadline_ms = min(raft.election_deadline_ms,
                                        raft.now_ms + max(wait, 2 * raft.rtt_ms))


def is_withheld(raft) -> bool:
    """Whether votes are withheld because a leader is alive."""
    if raft.role is Role.LEADER:
        return True     # one that lost its quorum steps down by itself (check-quorum)
    return (raft.leader_id != 0
            and raft.now_ms - raft.leader_contact_ms < raft.election_timeout_ms)


def may_campaign(raft) -> bool:
    """Whether this node may ask for votes.

    One that is removed by an entry that may not be committed still may, without a vote of its own:
    where nobody else holds that entry, nobody else can win (thesis 4.2.2, figure 4.6).
    """
    log = raft.log
    return not (raft.disk_overdue or raft.disk_full or raft.barred) and (
        log.membership.is_voter(raft.node_id)
        or (log.membership_index > log.commit_index
            and log.membership_before.is_voter(raft.node_id)))


def timeout(raft) -> None:
    """The election timeout is reached: ask whether an election would be won."""
    raft.leader_id = 0
    if raft.role is Role.CANDIDATE and not raft.pre_voting:
        raft.failed_rounds += 1     # votes split, or slower than the timeout: wait longer
    _retry_timer(raft)
    if not may_campaign(raft):
        raft.role = Role.FOLLOWER
        raft.pre_voting = False     # late answers must not begin what is forbidden now
        return
    raft.role = Role.CANDIDATE
    raft.pre_voting = True
    raft.pre_votes = {raft.node_id}
    request = PreVote(raft.current_term + 1, raft.log.last_index, raft.log.last_term)
    for voter in raft.membership.voters:
        if voter != raft.node_id:
            raft.send(voter, request)
    _count_pre_votes(raft)


def _quorum_of(raft, granted: set[int]) -> bool:
    membership = raft.membership
    return len(granted.intersection(membership.voters)) >= membership.quorum


def _count_pre_votes(raft) -> None:
    if _quorum_of(raft, raft.pre_votes):
        _campaign(raft, False)


def _campaign(raft, transfer: bool) -> None:
    """Ask for votes in a new term; `transfer`: the leader itself asked for it."""
    raft.become_candidate()
    raft.campaign_ms = raft.now_ms
    _retry_timer(raft)
    request = Vote(raft.current_term, raft.log.last_index, raft.log.last_term, transfer)
    for voter in raft.membership.voters:
        if voter != raft.node_id:
            raft.send_after_sync(voter, request)


def count_votes(raft) -> None:
    """Become leader where a quorum of voters granted a vote in this term.

    Once in a term, and not for an earlier life's campaign: entries of this term that were sent and
    then lost by a crash would get others in their places.
    """
    campaigns = raft.role is Role.CANDIDATE and raft.campaign_term == raft.current_term
    if campaigns and _quorum_of(raft, raft.votes):
        raft.become_leader()


def on_pre_vote(raft, sender: int, message: PreVote) -> None:
    """Grant where a vote would be granted; changes nothing here, the term neither."""
    granted = (message.term > raft.current_term and not is_withheld(raft)
               and raft.log.is_up_to_date(message.last_log_index, message.last_log_term))
    raft.reply(sender, PreVoteReply(raft.current_term, message.term, granted))


def on_pre_vote_reply(raft, sender: int, message: PreVoteReply) -> None:
    """Count it, if it is about the election that is being asked for."""
    if raft.pre_voting and message.granted and message.for_term == raft.current_term + 1:
        raft.pre_votes.add(sender)
        _count_pre_votes(raft)


def on_vote(raft, sender: int, message: Vote) -> None:
    """RequestVote, receiver (figure 2): one vote a term, and only for a log as good as ours."""
    granted = (message.term == raft.current_term
               and raft.voted_for in (0, sender)
               and raft.log.is_up_to_date(message.last_log_index, message.last_log_term))
    if granted:
        raft.become_follower(message.term, 0)   # a pre-vote of our own ends here
        raft.voted_for = sender
        reset_timer(raft)
    raft.send_after_sync(sender, VoteReply(raft.current_term, granted))


def on_vote_reply(raft, sender: int, message: VoteReply) -> None:
    """Count it by its sender, in its own term only. It tells a round trip too, which may be longer
    than anybody knew before."""
    if raft.campaign_term == raft.current_term == message.term:
        if raft.timing.voted(sender, raft.now_ms - raft.campaign_ms, raft.now_ms):
            raft.judge_times()
    if message.granted and message.term == raft.current_term and raft.role is Role.CANDIDATE:
        raft.votes.add(sender)
        count_votes(raft)


def on_append(raft, sender: int, message: Append) -> None:
    """AppendEntries, receiver (figure 2)."""
    log = raft.log
    prev = message.prev_log_index
    if message.term < raft.current_term:
        # Says our term, so that a leader of an older one is not stranded with it.
        raft.reply(sender, AppendReply(raft.current_term, False, prev))
        return
    follow(raft, sender, message.term)
    # Below the base everything is committed, so it matches.
    if prev >= log.base_index and log.term_at(prev) != message.prev_log_term:
        assert prev > log.commit_index, "a committed entry has one term"
        hint = log.last_match(prev, message.prev_log_term)
        raft.reply(sender, AppendReply(raft.current_term, False, prev, hint, log.term_at(hint)))
        return
    for position, entry in enumerate(message.entries):
        if entry.index > log.base_index and log.term_at(entry.index) != entry.term:
            if entry.index <= log.last_index:
                log.truncate(entry.index)       # the first conflict (Raft 5.3)
            for new in message.entries[position:]:
                log.append(new)
            break
    match = prev + len(message.entries)
    log.commit_to(min(message.leader_commit, match))
    reply = AppendReply(raft.current_term, True, match)
    if match <= log.stable_index:
        raft.reply(sender, reply)
    else:
        raft.send_after_sync(sender, reply)


def on_heartbeat(raft, sender: int, message: Heartbeat) -> None:
    """The leader is alive; an older one learns our term."""
    if message.term == raft.current_term:
        if message.timeout_ms:
            raft.timing.follow(message.timeout_ms, message.rtt_ms)
        follow(raft, sender, message.term)
        # The leader sends no more than what it knows this node to hold.
        raft.log.commit_to(min(message.leader_commit, raft.log.last_index))
    # A round of an older term may be the number of one that this term's leader has yet to begin.
    heard_round = message.round if message.term == raft.current_term else 0
    raft.reply(sender, HeartbeatReply(raft.current_term, heard_round, message.sent_ms))


def on_timeout_now(raft, sender: int, message: TimeoutNow) -> None:
    """The leader that this node follows hands over: campaign at once, without a pre-vote, and
    past the withholding of votes (thesis 3.10, 4.2.3). From anybody else it means nothing."""
    if (message.term == raft.current_term and sender == raft.leader_id
            and raft.role is Role.FOLLOWER and may_campaign(raft)):
        _campaign(raft, True)


def follow(raft, sender: int, term: int) -> None:
    """Only the leader of a term sends what this node was just sent."""
    assert raft.role is not Role.LEADER, "two leaders in one term"
    raft.become_follower(term, sender)


def holds_only_founding(raft) -> bool:
    """Whether the log holds nothing but entry 1, the founders' membership."""
    log = raft.log
    return log.last_index == log.membership_index == 1 and log.base_index == 0
