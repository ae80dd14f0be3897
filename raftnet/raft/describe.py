"""The one-line text form of every message, entry and Ready: for logs, traces and tests.

Rules: one canonical form each, the fields in the order of types.py, `index/term` for a place in a
log. A payload is shown by its size only; what is in it is for tools/decode.py to say. Nothing here
may be called once per operation.
"""

from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply,
    ReadState, Ready, Snapshot, SnapshotMeta, SnapshotReply, TimeoutNow, Vote, VoteReply)

ENTRIES_SHOWN_MAX = 6       # of a longer list the first and last few, with a count between


def describe_entry(entry: Entry) -> str:
    """`3/1 batch 120B`: index, term, kind, and the bytes of the entry with its header."""
    return f"{entry.index}/{entry.term} {EntryKind(entry.kind).name.lower()} {len(entry.data)}B"


def describe_entries(entries: list[Entry]) -> str:
    """`[3/1 batch 120B, 4/1 empty 25B]`; the middle of a long list is counted only."""
    texts = [describe_entry(entry) for entry in _ends(entries)]
    if len(entries) > ENTRIES_SHOWN_MAX:
        hidden = len(entries) - ENTRIES_SHOWN_MAX
        texts.insert(ENTRIES_SHOWN_MAX // 2, f"... {hidden} more ...")
    return f"[{', '.join(texts)}]"


def describe_message(sender: int, to: int, message: Message) -> str:
    """`1->2 Append term 1 prev 2/1 commit 2 entries [3/1 batch 120B]`."""
    kind = type(message)
    return f"{sender}->{to} {kind.__name__} term {message.term}{_FIELDS[kind](message)}"


def describe_hard_state(state: HardState) -> str:
    """`term 2 vote 1`; vote 0: nobody."""
    return f"term {state.current_term} vote {state.voted_for}"


def describe_read(read: ReadState) -> str:
    """`read 7 at 3`: the token, and the index that must be applied first."""
    return f"read {read.token} at {read.index}" if read.index else f"read {read.token} refused"


def describe_snapshot(meta: SnapshotMeta) -> str:
    """`snapshot 9/2 size 700`: the last entry that it contains, and the bytes of the file."""
    return f"snapshot {meta.index}/{meta.term} size {meta.size}"


def describe_ready(node_id: int, ready: Ready) -> str:
    """All of a Ready in its own order, parts that are empty left out."""
    parts = [f"{node_id} job {ready.job}" if ready.job else f"{node_id} no job"]
    parts += [f"send {describe_message(node_id, to, message)}" for to, message in ready.messages]
    if ready.hard_state is not None:
        parts.append(f"state {describe_hard_state(ready.hard_state)}")
    if ready.entries:
        parts.append(f"write {describe_entries(ready.entries)}")
    if ready.chunk is not None:
        parts.append(f"write {len(ready.chunk[1])}B of the snapshot at {ready.chunk[0]}")
    if ready.install is not None:
        parts.append(f"install {describe_snapshot(ready.install)}")
    parts += [f"after sync {describe_message(node_id, to, message)}"
              for to, message in ready.messages_after_sync]
    if ready.committed_from_file is not None:
        parts.append("apply from the file {}..{}".format(*ready.committed_from_file))
    if ready.committed:
        parts.append(f"apply {describe_entries(ready.committed)}")
    parts += [describe_read(read) for read in ready.reads]
    if ready.received is not None:
        parts.append(f"received snapshot {ready.received.index}/{ready.received.term}")
    if ready.doubted is not None:
        parts.append(f"doubted snapshot {ready.doubted.index}/{ready.doubted.term}")
    return "; ".join(parts)


def _ends(entries: list[Entry]) -> list[Entry]:
    if len(entries) <= ENTRIES_SHOWN_MAX:
        return entries
    half = ENTRIES_SHOWN_MAX // 2
    return entries[:half] + entries[half - ENTRIES_SHOWN_MAX:]


def _candidacy(message: PreVote | Vote) -> str:
    return f" last {message.last_log_index}/{message.last_log_term}"


def _vote(message: Vote) -> str:
    return _candidacy(message) + (" transfer" if message.transfer else "")


def _answer(granted: bool) -> str:
    return " granted" if granted else " refused"


def _pre_vote_reply(message: PreVoteReply) -> str:
    return f" for {message.for_term}{_answer(message.granted)}"


def _vote_reply(message: VoteReply) -> str:
    return _answer(message.granted)


def _append(message: Append) -> str:
    entries = "from file" if message.from_file and not message.entries else (
        describe_entries(message.entries))
    return (f" prev {message.prev_log_index}/{message.prev_log_term}"
            f" commit {message.leader_commit} entries {entries}")


def _append_reply(message: AppendReply) -> str:
    if message.success:
        return f" match {message.match_index}"
    return f" refused {message.match_index} hint {message.hint_index}/{message.hint_term}"


def _heartbeat(message: Heartbeat) -> str:
    times = f" timeout {message.timeout_ms} rtt {message.rtt_ms}" if message.timeout_ms else ""
    return f" commit {message.leader_commit} round {message.round} sent {message.sent_ms}{times}"


def _heartbeat_reply(message: HeartbeatReply) -> str:
    return f" round {message.round} sent {message.sent_ms}"


def _snapshot(message: Snapshot) -> str:
    data = (f"{message.count}B from file" if message.from_file and not message.data
            else f"{len(message.data)}B")
    return (f" index {message.index}/{message.snapshot_term} size {message.size}"
            f" offset {message.offset} data {data}")


def _snapshot_reply(message: SnapshotReply) -> str:
    if message.damaged:
        return f" index {message.index}/{message.snapshot_term} damaged"
    return (f" index {message.index}/{message.snapshot_term} offset {message.offset}"
            f" next {message.next_offset}")


def _nothing_more(_message: TimeoutNow) -> str:
    return ""


_FIELDS = {
    PreVote: _candidacy,
    PreVoteReply: _pre_vote_reply,
    Vote: _vote,
    VoteReply: _vote_reply,
    Append: _append,
    AppendReply: _append_reply,
    Heartbeat: _heartbeat,
    HeartbeatReply: _heartbeat_reply,
    TimeoutNow: _nothing_more,
    Snapshot: _snapshot,
    SnapshotReply: _snapshot_reply,
}
