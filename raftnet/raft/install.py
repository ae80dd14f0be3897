"""Snapshots for followers that are behind the log: InstallSnapshot (Raft 7), both sides.

Rules: the leader asks first how far the follower is, so that a transfer goes on where an earlier
connection or leader left it; then chunks flow within a window. The follower writes what follows
what it has. Every answer, to a question too, waits until that is written: so the window bounds
what a disk that hangs keeps in the follower's memory. When all is written, the caller verifies it
and builds the state, and only then log and snapshot are replaced, by one disk job in order with all
others. Until that job is done the old state stands. While one is verified, nothing else is
received. A snapshot that is refused as damaged is sent again after growing waits; the leader's
caller is told, since it may be the leader's own file that is bad.

The leader ends a transfer when the follower acknowledges what the log can go on from. Bytes are the
caller's: types.Ready. Progress of one follower is in progress.py, replacing the log in log.py.
"""

from dataclasses import dataclass, field

from raftnet.raft import election
from raftnet.raft.progress import Progress
from raftnet.raft.types import AppendReply, Snapshot, SnapshotId, SnapshotMeta, SnapshotReply

_WAIT_MS_MAX = 60_000       # before the same snapshot is begun anew


# --- leader


def send_chunks(raft, node_id: int, progress: Progress) -> None:
    """All of the snapshot that this follower may be sent now."""
    newest = raft.log.snapshot
    waits = raft.now_ms < progress.snapshot_from_ms
    if (progress.snapshot is None or progress.snapshot.index <= progress.match_index
            or waits and progress.snapshot.index < newest.index):
        # The first one, or the log was cut further meanwhile, or what failed was replaced.
        assert newest is not None and newest.index >= raft.log.base_index, "what is cut is in it"
        progress.begin_snapshot(newest)
    elif waits:
        return
    meta, config = progress.snapshot, raft.config
    if progress.snapshot_asking:
        if not progress.snapshot_asked:
            progress.snapshot_asked = True
            progress.acknowledged_ms = raft.now_ms
            raft.send(node_id, _chunk(raft, meta.identity, progress.snapshot_sent))
        return
    while (progress.snapshot_sent < meta.size and progress.snapshot_sent - progress.snapshot_offset
            < config.snapshot_window_bytes):
        message = _chunk(raft, meta.identity, progress.snapshot_sent)
        message.from_file = True
        message.count = min(config.snapshot_chunk_bytes, meta.size - progress.snapshot_sent)
        progress.snapshot_sent += message.count
        raft.send(node_id, message)


def _chunk(raft, identity: SnapshotId, offset: int) -> Snapshot:
    index, term, size, checksum = identity
    return Snapshot(raft.current_term, index, term, size, checksum, offset)


def on_answer(raft, sender: int, progress: Progress, message: SnapshotReply) -> None:
    """A follower says how far it is, or that what it received is not that snapshot."""
    meta = progress.snapshot
    if meta is None or message.next_offset > meta.size or (
            (meta.index, meta.term, meta.checksum)
            != (message.index, message.snapshot_term, message.checksum)):
        return      # late
    if raft.now_ms < progress.snapshot_from_ms:
        return      # late: nothing was sent since it failed
    if message.damaged:
        # Of two in one turn the newer one: what is not held any more harms nobody.
        raft.doubted = max(raft.doubted or meta.identity, meta.identity)
        begin_anew(raft, sender, progress)
    else:
        progress.chunk_answered(message.offset, message.next_offset, raft.now_ms)


def on_unreadable(raft, node_id: int, progress: Progress, identity: SnapshotId) -> None:
    """A chunk of that snapshot could not be filled. All chunks of a window cannot, and that is one
    failure; and the newest snapshot has not failed where another one is held no more."""
    meta = progress.snapshot
    if meta is None or meta.identity != identity or raft.now_ms < progress.snapshot_from_ms:
        return
    if meta.identity == raft.log.snapshot.identity:
        begin_anew(raft, node_id, progress)
    else:
        progress.begin_snapshot(raft.log.snapshot)


def begin_anew(raft, node_id: int, progress: Progress) -> None:
    """Send the newest snapshot from the start, but not at once, and later each time that the same
    one fails: it may fail for ever. A newer one that is made meanwhile waits for nothing."""
    if progress.snapshot is not None:
        progress.begin_snapshot(raft.log.snapshot)
        progress.wait_for_snapshot(raft.now_ms, raft.timeout_of(node_id), _WAIT_MS_MAX)


def installing_to(raft) -> list[int]:
    """The node ids of those that are heard and are sent a snapshot. Not while one waits because it
    failed: the next one is what may help."""
    return [node_id for node_id, progress in raft.progress.items()
            if progress.snapshot is not None and raft.now_ms >= progress.snapshot_from_ms
            and progress.heard_within(raft.timeout_of(node_id), raft.now_ms)]


# --- follower


@dataclass(slots=True)
class Incoming:
    """A snapshot that is being received."""

    identity: SnapshotId
    term: int                       # of the leader that began it here
    next_offset: int = 0            # the bytes before it are here, written or to be written
    # Of them those that no disk job has yet.
    pieces: list[bytes] = field(default_factory=list)
    last_job: int = 0               # the disk job with the last bytes; 0: not made yet
    written: bool = False           # all are: to be verified by the caller
    verified: SnapshotMeta | None = None    # it is: to be installed


def on_snapshot(raft, sender: int, message: Snapshot) -> None:
    """InstallSnapshot, receiver (Raft, figure 13, in chunks that may come in any order)."""
    log, identity = raft.log, message.identity
    if message.term < raft.current_term:
        raft.reply(sender, _reply(raft, message, 0))    # says our term
        return
    election.follow(raft, sender, message.term)
    incoming = raft.incoming
    if message.index <= log.commit_index:
        if incoming is not None and incoming.identity.index <= log.commit_index:
            raft.incoming = None
        _acknowledge(raft, sender, message.index)
        return
    if incoming is not None and incoming.identity != identity:
        if is_wanted(raft, incoming):
            return      # it is whole, and must not be disturbed
        if incoming.term == message.term and message.index < incoming.identity.index:
            return      # a late copy: a leader only ever goes on to a newer one
    if incoming is None or incoming.identity != identity:
        if message.offset or not message.data:
            # Not before what came of another one is written: it too takes up memory.
            raft.send_after_sync(sender, _reply(raft, message, 0))
            return
        incoming = raft.incoming = Incoming(identity, message.term)
    if message.offset == incoming.next_offset and message.data:
        incoming.pieces.append(message.data)
        incoming.next_offset += len(message.data)
        assert incoming.next_offset <= identity.size, "messages.py lets no chunk pass the end"
    raft.send_after_sync(sender, _reply(raft, message, incoming.next_offset))


def _reply(raft, message: Snapshot, next_offset: int) -> SnapshotReply:
    return SnapshotReply(raft.current_term, message.index, message.snapshot_term, message.checksum,
                         message.offset, next_offset)


def _acknowledge(raft, leader_id: int, index: int) -> None:
    """All up to a committed `index` is here; durable, before it is said."""
    reply = AppendReply(raft.current_term, True, index)
    if index <= raft.log.stable_index:
        raft.reply(leader_id, reply)
    else:
        raft.send_after_sync(leader_id, reply)


def is_wanted(raft, incoming: Incoming | None) -> bool:
    """Whether that snapshot is whole, and this node still needs it."""
    return (incoming is not None and incoming.written
            and incoming.identity.index > raft.log.commit_index)


def take_chunk(raft, job: int) -> tuple[int, bytes] | None:
    """What the next disk job, of that number, writes of it."""
    incoming = raft.incoming
    if incoming is None or not incoming.pieces:
        return None
    data = b"".join(incoming.pieces)
    incoming.pieces.clear()
    if incoming.next_offset == incoming.identity.size:
        incoming.last_job = job
    return incoming.next_offset - len(data), data


def written(raft, job: int) -> SnapshotId | None:
    """The jobs up to that one are done; which snapshot is whole by that."""
    incoming = raft.incoming
    if incoming is None or incoming.written or not 0 < incoming.last_job <= job:
        return None
    incoming.written = True
    return incoming.identity


def refuse(raft, identity: SnapshotId) -> None:
    """What was received is not what the leader has: begin anew."""
    incoming = raft.incoming
    if incoming is None or not incoming.written or incoming.identity != identity:
        return
    raft.incoming = None
    if raft.leader_id:
        # Behind the answers that wait, which would take it back.
        raft.send_after_sync(raft.leader_id, SnapshotReply(
            raft.current_term, identity.index, identity.term, identity.checksum, 0, 0, True))


def verified(raft, meta: SnapshotMeta) -> bool:
    """The caller has built its state: the next Ready begins there, if that is wanted still."""
    incoming = raft.incoming
    if incoming is None or incoming.identity != meta.identity or not is_wanted(raft, incoming):
        return False
    incoming.verified = meta
    return True


def begin_at_verified(raft) -> None:
    """Replace log and snapshot, if that still takes this node on."""
    incoming = raft.incoming
    wanted, meta = is_wanted(raft, incoming), incoming.verified
    raft.incoming = None
    if not wanted:
        return
    # All that was decided so far is for the old log, and its promises for the jobs up to here.
    raft.queue_job()
    raft.log.restore(meta)
    if raft.leader_id:
        raft.send_after_sync(raft.leader_id, AppendReply(raft.current_term, True, meta.index))
    raft.queue_job(meta)
