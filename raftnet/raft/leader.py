"""Leading: replication, commitment, read rounds, and staying leader.

Rules: an entry of an older term is committed only by one of this term (Raft 5.4.2, figure 8); a
leader that does not hear a quorum within an election timeout, or whose own disk is overdue, steps
down (thesis 6.2; design: Disk). Everything per entry is avoided: work is per batch and follower.
A leader that is no voter (it was removed) counts neither its copy nor its answer: thesis 4.2.2.
Changes of the membership are in changes.py, handing over in transfer.py, snapshots for followers
that are behind the log in install.py.
"""

from raftnet.errors import BusyError, NotLeaderError
from raftnet.raft import install
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.progress import Progress
from raftnet.raft.types import (
    Append, AppendReply, EntryId, Heartbeat, HeartbeatReply, ReadState, Role, SnapshotReply)

_TIMEOUTS_UNANSWERED = 2        # election timeouts after which an append counts as lost


def begin(raft) -> None:
    """First acts of a term: an empty entry, and every follower's log is probed (Raft 8)."""
    log = raft.log
    raft.progress = {}
    # Of those that are in the file only, read at the start, nobody waits for an answer.
    raft.uncommitted_bytes = log.bytes_in_memory(log.commit_index + 1, log.last_index)
    raft.reads_new, raft.reads_waiting = [], type(raft.reads_waiting)()
    raft.heartbeat_deadline_ms = raft.step_retry_ms = raft.now_ms
    raft.transfer_to, raft.step_refused = 0, ""
    raft.timing.lead()
    follow_membership(raft)
    raft.term_start_index = append(raft, EntryKind.EMPTY, b"").index
    tick(raft)


def step_down(raft) -> None:
    """This node leads no more: its reads are refused."""
    tokens = raft.reads_new + [token for _, _, tokens in raft.reads_waiting for token in tokens]
    raft.reads_done += [ReadState(token, 0) for token in tokens]
    raft.reads_new = []
    raft.reads_waiting.clear()
    raft.progress = {}
    raft.transfer_to = 0


def tick(raft) -> None:
    """Deadlines of a leader: its quorum, its disk, a transfer, lost appends, heartbeats."""
    if raft.now_ms >= quorum_deadline_ms(raft) or raft.disk_overdue:
        raft.become_follower(raft.current_term, 0)
        return
    if raft.transfer_to and raft.now_ms >= raft.transfer_deadline_ms:
        raft.transfer_to = 0        # the target did not take over: go on
    if raft.now_ms >= raft.heartbeat_deadline_ms:
        _heartbeat(raft)
    # Not only with heartbeats of time: those of reads postpone them, for ever where reads go on.
    for node_id, progress in raft.progress.items():
        if (progress.waits
                and raft.now_ms - progress.acknowledged_ms >= _patience_ms(raft, node_id)):
            progress.probe()        # an append, a chunk or the answer was lost
            progress.acknowledged_ms = raft.now_ms


def _patience_ms(raft, node_id: int) -> int:
    """After so long without an answer an append counts as lost.

    The election timeout may still be that of a network which was slow a moment ago. The follower's
    own link says how long an answer takes now; a slow disk there may take more.
    """
    patience_ms = _TIMEOUTS_UNANSWERED * raft.timeout_of(node_id)
    link = raft.timing.links.get(node_id)
    if link is None or not link.samples:
        return patience_ms
    usual_ms = _TIMEOUTS_UNANSWERED * max(raft.config.election_timeout_ms, link.need_ms)
    return min(patience_ms, raft.config.disk_overdue_ms + usual_ms)


def quorum_deadline_ms(raft) -> int:
    """When this leader must have stepped down unless it hears from more voters (check-quorum)."""
    membership = raft.membership
    heard = sorted((progress.heard_ms for node_id, progress in raft.progress.items()
                    if membership.is_voter(node_id)), reverse=True)
    needed = membership.quorum - membership.is_voter(raft.node_id)
    if needed <= 0:
        return raft.now_ms + raft.election_timeout_ms
    assert needed <= len(heard), "a quorum is never larger than the voters"
    return heard[needed - 1] + raft.election_timeout_ms


def append(raft, kind: int, payload: bytes) -> EntryId:
    """Append an entry of this term to the own log, and nothing more."""
    entry = encode_entry(raft.log.last_index + 1, raft.current_term, kind, payload)
    raft.log.append(entry)
    raft.uncommitted_bytes += len(entry.data)
    return EntryId(entry.index, entry.term)


def propose(raft, kind: int, payload: bytes) -> EntryId:
    """Append an entry of this term; it goes out with the next Ready."""
    if raft.role is not Role.LEADER:
        raise NotLeaderError("this node does not lead")
    if raft.uncommitted_bytes > raft.config.uncommitted_bytes_max:
        raise BusyError("too much is proposed and not yet committed")
    if raft.transfer_to:
        raise BusyError("leadership is being handed over")
    return append(raft, kind, payload)


def follow_membership(raft) -> None:
    """Keep a Progress for every other member, and for no one else; changes.py may have work."""
    members = {member.node_id for member in raft.membership.members} - {raft.node_id}
    for node_id in [n for n in raft.progress if n not in members]:
        del raft.progress[node_id]
    raft.timing.keep(members)
    for node_id in sorted(members - raft.progress.keys()):
        raft.progress[node_id] = Progress(raft.log.last_index + 1, heard_ms=raft.now_ms)
    raft.steps_needed = raft.membership.asks_for_steps(raft.node_id)
    if raft.reads_waiting:
        _release_reads(raft)    # the voter that they waited for may count no more


# --- sending


def flush(raft) -> None:
    """What a leader sends once a turn: new entries, new read rounds."""
    slices: dict[int, list] = {}        # followers in step are sent the same list
    last_index = raft.log.last_index
    for node_id, progress in raft.progress.items():
        if progress.next_index <= last_index or progress.probing or progress.snapshot is not None:
            send_appends(raft, node_id, progress, slices)
    if raft.reads_new and raft.leads_ready:
        raft.read_round += 1
        raft.reads_waiting.append((raft.read_round, raft.log.commit_index, raft.reads_new))
        raft.reads_new = []
        _heartbeat(raft)
        _release_reads(raft)


def send_appends(raft, node_id: int, progress: Progress, slices: dict[int, list]) -> None:
    """All that this follower may be sent now; `slices`: entries from an index on, once found."""
    log, config = raft.log, raft.config
    if progress.next_index <= log.base_index:
        install.send_chunks(raft, node_id, progress)
        return
    progress.snapshot = None        # whatever was being sent is not needed any more
    while True:
        next_index = progress.next_index
        if progress.probing:
            if progress.probe_sent:
                return
        elif (next_index > log.last_index
              or len(progress.in_flight) >= config.in_flight_appends_max
              or progress.in_flight_bytes >= config.in_flight_bytes_max):
            return
        prev = next_index - 1
        prev_term = log.term_at(prev)
        assert prev_term is not None, "who is behind the log gets the snapshot"
        message = Append(raft.current_term, prev, prev_term, log.commit_index)
        if next_index < log.memory_from:
            # Only in the file: one append at a time, filled by the caller.
            message.from_file = True
            progress.probing = True
        else:
            entries = slices.get(next_index)
            if entries is None:
                entries = log.entries(next_index, log.last_index, config.append_bytes_max)
                slices[next_index] = entries
            message.entries = entries
        raft.send(node_id, message)
        if progress.probing:
            progress.probe_sent = True
            progress.acknowledged_ms = raft.now_ms
            return
        size = sum([len(entry.data) for entry in message.entries])
        progress.sent(message.entries[-1].index, size, raft.now_ms)


def _heartbeat(raft) -> None:
    timing = raft.timing
    raft.heartbeat_deadline_ms = raft.now_ms + timing.heartbeat_ms
    raft.transfer_asked = False     # the target is asked again
    commit_index = raft.log.commit_index
    for node_id, progress in raft.progress.items():
        timing.beat_sent(node_id, raft.now_ms)
        raft.send(node_id, Heartbeat(raft.current_term, min(commit_index, progress.match_index),
                                     raft.read_round, raft.now_ms, *timing.announcement(node_id)))


# --- answers


def _heard(raft, sender: int, term: int) -> Progress | None:
    """The sender's progress, where the answer is to this leader in this term."""
    if raft.role is not Role.LEADER or term != raft.current_term:
        return None
    progress = raft.progress.get(sender)
    if progress is not None:
        progress.heard_ms = raft.now_ms
        progress.was_heard = True
    return progress


def on_append_reply(raft, sender: int, message: AppendReply) -> None:
    """A follower holds more, or says where its log parts from ours (Raft 5.3)."""
    progress = _heard(raft, sender, message.term)
    if progress is None:
        return
    if not message.success:
        next_index = min(message.hint_index,
                         raft.log.last_match(message.hint_index, message.hint_term)) + 1
        progress.refused(message.match_index, next_index)
        return
    assert message.match_index <= raft.log.last_index, "a follower holds what we sent, or less"
    if progress.acknowledged(message.match_index, raft.now_ms):
        maybe_commit(raft)


def on_snapshot_reply(raft, sender: int, message: SnapshotReply) -> None:
    """A follower tells how much of the snapshot it has; see install.py."""
    progress = _heard(raft, sender, message.term)
    if progress is not None:
        install.on_answer(raft, sender, progress, message)


def on_heartbeat_reply(raft, sender: int, message: HeartbeatReply) -> None:
    """A follower is alive and follows; its read round counts."""
    progress = _heard(raft, sender, message.term)
    if progress is None:
        return
    if message.sent_ms:     # else it answers nothing: a sign of life
        if raft.timing.beat_answered(sender, message.sent_ms, raft.now_ms):
            raft.judge_times()
    else:
        # Part of a large message has just come there: what waits behind it is late, not lost. What
        # is lost is found when no such part comes any more, or the next append is refused.
        progress.acknowledged_ms = raft.now_ms
    if message.round > progress.round:
        progress.round = message.round
        _release_reads(raft)


def maybe_commit(raft) -> None:
    """Commit what a quorum holds durably, if it is of this term (Raft 5.4.2, figure 8)."""
    log, membership = raft.log, raft.membership
    match = [log.stable_index if member.node_id == raft.node_id
             else raft.progress[member.node_id].match_index
             for member in membership.members if member.voter]
    match.sort(reverse=True)
    index = match[membership.quorum - 1]
    if index <= log.commit_index or log.term_at(index) != raft.current_term:
        return
    before = log.commit_index
    log.commit_to(index)
    raft.uncommitted_bytes -= log.bytes_in_memory(before + 1, index)


def _release_reads(raft) -> None:
    """Answer the reads whose round a quorum has answered."""
    membership = raft.membership
    rounds = [raft.read_round if member.node_id == raft.node_id
              else raft.progress[member.node_id].round
              for member in membership.members if member.voter]
    rounds.sort(reverse=True)
    confirmed = rounds[membership.quorum - 1]
    waiting = raft.reads_waiting
    while waiting and waiting[0][0] <= confirmed:
        _, index, tokens = waiting.popleft()
        raft.reads_done += [ReadState(token, index) for token in tokens]
