"""Handing leadership to another voter (thesis 3.10).

Rules: while a transfer runs the leader appends nothing, so that the target can hold all of its log;
then the target is told to campaign at once, and is told again with each heartbeat, for messages are
lost. After an election timeout the leader goes on as if nothing had been asked. What the target
does is in election.py; who is handed over to when a leader was removed, in changes.py.
"""

from raftnet.errors import ChangeRefusedError, ErrorCode, NotLeaderError
from raftnet.raft.types import Role, TimeoutNow

_HEARTBEATS_MISSED_MAX = 2      # a successor was heard within so many


def begin(raft, node_id: int) -> None:
    """Begin to hand over to that voter. Raises NotLeaderError, ChangeRefusedError.

    Asked for again while it runs, it goes on as it is, up to the deadline that it has.
    """
    if raft.role is not Role.LEADER:
        raise NotLeaderError("this node does not lead")
    member = raft.membership.member(node_id)
    if member is None:
        raise ChangeRefusedError("no member has that node id", ErrorCode.NOT_A_MEMBER)
    if not member.voter:
        raise ChangeRefusedError(f"{member.address} is a learner: only a voter can lead",
                                 ErrorCode.TRANSFER_FAILED)
    if node_id == raft.node_id:
        raise ChangeRefusedError(f"{member.address} leads already", ErrorCode.TRANSFER_FAILED)
    if raft.transfer_to == node_id:
        return
    if raft.transfer_to:
        raise ChangeRefusedError("leadership is being handed to another node")
    timeout_ms = raft.timeout_of(node_id)
    if not raft.progress[node_id].heard_within(timeout_ms, raft.now_ms):
        raise ChangeRefusedError(f"{member.address} is not heard: start it, or choose another",
                                 ErrorCode.TRANSFER_FAILED)
    raft.transfer_to = node_id
    raft.transfer_deadline_ms = raft.now_ms + timeout_ms
    raft.transfer_asked = False


def press(raft) -> None:
    """Once a turn while a transfer runs: when the target holds the whole log, tell it."""
    # Still a member: the membership does not change meanwhile.
    progress = raft.progress[raft.transfer_to]
    if not raft.transfer_asked and progress.match_index == raft.log.last_index:
        raft.transfer_asked = True
        raft.send(raft.transfer_to, TimeoutNow(raft.current_term))


def best_successor(raft) -> int:
    """The voter that was heard within two heartbeats and holds the most; 0: there is none."""
    best, most = 0, -1
    for node_id in raft.membership.voters:
        progress = raft.progress.get(node_id)   # none for the leader itself
        if (progress is not None and progress.match_index > most and progress.heard_within(
                _HEARTBEATS_MISSED_MAX * raft.heartbeat_ms + raft.rtt_ms, raft.now_ms)):
            best, most = node_id, progress.match_index
    return best
