"""Distrust: messages that no node of ours would send to this one in the state that it is in.

Rules: whoever greets with the cluster's id is heard as a peer, and there are no secrets yet. What
the layout of a message forbids is net/messages.py's to refuse. Here is what only the own log and
role can tell: it is refused before the core sees it, and costs the sender its connection, while in
the core the same is an assertion, for there it would be a fault of ours. In the simulator, where
all are ours, a refusal counts as one. A lie that an honest node could have told is not found out.
"""

from raftnet.errors import MalformedError
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import decode_membership
from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, Message, Role, Snapshot)
from raftnet.replicatedtime import stamp_of
from raftnet.wire.address import check_address

# Of terms, indexes and stamps: what is counted on from there has a place in 8 bytes still. Nobody
# gets there in one step: who stood at the very end would leave no next term to all others.
NUMBER_MAX = 2**63 - 1
TERMS_AT_ONCE_MAX = 2**32       # an election a millisecond for fifty days
STAMP_STEP_MAX = 2**40          # milliseconds: 34 years


def check(replica, message: Message) -> None:
    """Raises MalformedError with the reason."""
    raft = replica.raft
    # A node with an empty log catches up with whatever has been.
    if message.term > NUMBER_MAX or (raft.log.last_index
                                     and message.term > raft.current_term + TERMS_AT_ONCE_MAX):
        raise MalformedError(f"no election can have led from term {raft.current_term} to "
                             f"{message.term}")
    rule = _RULES.get(type(message))
    if rule is not None and message.term >= raft.current_term:     # else it means nothing
        rule(replica, message)


def _check_leader(replica, message) -> None:
    """A term has one leader (Raft 5.2)."""
    raft = replica.raft
    if raft.role is Role.LEADER and message.term == raft.current_term:
        raise MalformedError(f"this node leads in term {message.term}, and nobody else does")


def _check_snapshot(replica, message: Snapshot) -> None:
    _check_leader(replica, message)
    if message.index > NUMBER_MAX:
        raise MalformedError(f"no log will ever reach index {message.index}")


def _check_append(replica, message: Append) -> None:
    """What is committed never changes (Raft 5.4.3), and time in the log never goes back."""
    _check_leader(replica, message)
    log = replica.raft.log
    prev = message.prev_log_index
    if prev >= log.base_index and log.term_at(prev) != message.prev_log_term:
        _check_uncommitted(log, prev)
        return          # the core refuses it, whatever it holds
    for place, entry in enumerate(message.entries):
        if entry.index >= log.base_index and log.term_at(entry.index) != entry.term:
            _check_uncommitted(log, entry.index)
            _check_new(replica, message.entries[place:])
            return


def _check_uncommitted(log, index: int) -> None:
    if index <= log.commit_index:
        raise MalformedError(f"entry {index} is committed here, with another term")


def _check_new(replica, entries: list[Entry]) -> None:
    """Entries that will be appended."""
    stamp = _stamp_before(replica, entries[0].index)
    for entry in entries:
        if entry.kind == EntryKind.BATCH:
            before, stamp = stamp, stamp_of(entry)
            if not before <= stamp <= min(before + STAMP_STEP_MAX, NUMBER_MAX):
                raise MalformedError(f"entry {entry.index} has stamp {stamp}, after {before}")
        elif entry.kind == EntryKind.MEMBERSHIP:
            _check_membership(replica, entry)
        if entry.index == 1 and entry.kind != EntryKind.MEMBERSHIP:
            raise MalformedError("a log begins with the founders' membership")


def _stamp_before(replica, index: int) -> int:
    """The last stamp in the log before that index, as far as it is in memory or applied."""
    log, machine = replica.raft.log, replica.machine
    lowest = max(log.memory_from, machine.applied_index + 1)
    for place in range(index - 1, lowest - 1, -1):
        entry = log.entry(place)
        if entry.kind == EntryKind.BATCH:
            return stamp_of(entry)
    return machine.time_ms


def _check_membership(replica, entry: Entry) -> None:
    membership = decode_membership(entry.payload)
    if membership.cluster_id != replica.cluster_id or not membership.voters:
        raise MalformedError(f"entry {entry.index} is no membership of this cluster")
    if not membership.members[0].node_id:       # they are in order
        raise MalformedError(f"entry {entry.index} names a node without an id")
    for address in (*[member.address for member in membership.members], *membership.target):
        check_address(address)


def _check_append_reply(replica, message: AppendReply) -> None:
    raft = replica.raft
    if (raft.role is Role.LEADER and message.term == raft.current_term and message.success
            and message.match_index > raft.log.last_index):
        raise MalformedError(f"entry {message.match_index} is acknowledged, and the leader's log "
                             f"ends at {raft.log.last_index}")


def _check_heartbeat_reply(replica, message: HeartbeatReply) -> None:
    raft = replica.raft
    if (raft.role is Role.LEADER and message.term == raft.current_term
            and message.round > raft.read_round):
        raise MalformedError(f"read round {message.round} is confirmed, and the newest is "
                             f"{raft.read_round}")


_RULES = {
    Append: _check_append,
    AppendReply: _check_append_reply,
    Heartbeat: _check_leader,
    HeartbeatReply: _check_heartbeat_reply,
    Snapshot: _check_snapshot,
}
