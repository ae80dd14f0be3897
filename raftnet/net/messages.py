"""The Raft messages as bytes (protocol.md, Peer messages); no sockets here.

Rules: one layout a kind; a decoder raises MalformedError on anything that is not exactly it, on
entries that do not follow each other, are a membership that cannot be read or a batch without a
stamp, and on a chunk outside of its file, so that the core need not distrust what it is given. Who
sent a message is known from its connection.
"""

import struct

from raftnet.errors import MalformedError
from raftnet.raft.entry import HEADER_BYTES, EntryKind, decode_entries
from raftnet.raft.membership import decode_membership
from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, Snapshot,
    SnapshotReply, TimeoutNow, Vote, VoteReply)
from raftnet.wire.frames import Kind
from raftnet.wire.requests import unpack_flag

_PRE_VOTE = struct.Struct(">QQQ")           # term, last log index, last log term
_PRE_VOTE_REPLY = struct.Struct(">QQB")     # term, for term, granted
_VOTE = struct.Struct(">QQQB")              # term, last log index, last log term, transfer
_VOTE_REPLY = struct.Struct(">QB")          # term, granted
_APPEND = struct.Struct(">QQQQI")           # term, prev index, prev term, leader commit, count
_APPEND_REPLY = struct.Struct(">QBQQQ")     # term, success, match, hint index, hint term
_HEARTBEAT = struct.Struct(">QQQQII")       # term, leader commit, round, sent, timeout, rtt
_HEARTBEAT_REPLY = struct.Struct(">QQQ")    # term, round, sent
_TIMEOUT_NOW = struct.Struct(">Q")          # term
# term, index, snapshot's term, size, checksum, offset, bytes of data
_SNAPSHOT = struct.Struct(">QQQQIQI")
# term, index, snapshot's term, checksum, offset, next offset, damaged
_SNAPSHOT_REPLY = struct.Struct(">QQQIQQB")
_STAMP_BYTES = 8                            # of a batch; replicas follow it before it is applied


def encode_message(message: Message) -> tuple[int, bytes]:
    """The kind of the frame and its body."""
    return _ENCODERS[type(message)](message)


def decode_message(kind: int, body: bytes) -> Message:
    """The message in a frame of one of the kinds from 64 on; raises MalformedError."""
    decode = _DECODERS.get(kind)
    if decode is None:
        raise MalformedError(f"no message between nodes has kind {kind}")
    return decode(body)


def _exactly(layout: struct.Struct, body: bytes) -> tuple:
    if len(body) != layout.size:
        raise MalformedError(f"{len(body)} bytes where {layout.size} are needed")
    return layout.unpack(body)


def _encode_append(m: Append) -> tuple[int, bytes]:
    head = _APPEND.pack(m.term, m.prev_log_index, m.prev_log_term, m.leader_commit,
                        len(m.entries))
    return Kind.APPEND, b"".join([head, *[entry.data for entry in m.entries]])


def _decode_append(body: bytes) -> Append:
    if len(body) < _APPEND.size:
        raise MalformedError("APPEND is cut short")
    term, prev_index, prev_term, commit, count = _APPEND.unpack_from(body)
    entries = decode_entries(body, _APPEND.size, count)
    if (prev_index == 0) != (prev_term == 0):
        raise MalformedError("APPEND: index 0 and term 0 belong together")
    index, last_term = prev_index, prev_term
    for entry in entries:
        index += 1
        if entry.index != index or not last_term <= entry.term <= term:
            raise MalformedError("APPEND: the entries do not follow each other")
        last_term = entry.term
        if entry.kind == EntryKind.BATCH:
            if len(entry.data) < HEADER_BYTES + _STAMP_BYTES:
                raise MalformedError("APPEND: a batch has no stamp")
        elif entry.kind == EntryKind.MEMBERSHIP:
            decode_membership(entry.payload)
    return Append(term, prev_index, prev_term, commit, entries)


def _decode_pre_vote_reply(body: bytes) -> PreVoteReply:
    term, for_term, granted = _exactly(_PRE_VOTE_REPLY, body)
    return PreVoteReply(term, for_term, unpack_flag(granted))


def _decode_vote(body: bytes) -> Vote:
    term, index, last_term, transfer = _exactly(_VOTE, body)
    return Vote(term, index, last_term, unpack_flag(transfer))


def _decode_vote_reply(body: bytes) -> VoteReply:
    term, granted = _exactly(_VOTE_REPLY, body)
    return VoteReply(term, unpack_flag(granted))


def _decode_append_reply(body: bytes) -> AppendReply:
    term, success, match, hint_index, hint_term = _exactly(_APPEND_REPLY, body)
    return AppendReply(term, unpack_flag(success), match, hint_index, hint_term)


def _encode_snapshot(m: Snapshot) -> tuple[int, bytes]:
    return Kind.SNAPSHOT, _SNAPSHOT.pack(m.term, m.index, m.snapshot_term, m.size, m.checksum,
                                         m.offset, len(m.data)) + m.data


def _decode_snapshot(body: bytes) -> Snapshot:
    if len(body) < _SNAPSHOT.size:
        raise MalformedError("SNAPSHOT is cut short")
    term, index, snapshot_term, size, checksum, offset, count = _SNAPSHOT.unpack_from(body)
    data = body[_SNAPSHOT.size:]
    if len(data) != count:
        raise MalformedError(f"SNAPSHOT: {len(data)} bytes of data where {count} are announced")
    if not 0 < index or not 0 < snapshot_term <= term:
        raise MalformedError("SNAPSHOT: an entry that no log holds")
    if not 0 < size or offset + count > size:
        raise MalformedError("SNAPSHOT: the chunk is not in the file")
    return Snapshot(term, index, snapshot_term, size, checksum, offset, data)


def _decode_snapshot_reply(body: bytes) -> SnapshotReply:
    *numbers, damaged = _exactly(_SNAPSHOT_REPLY, body)
    return SnapshotReply(*numbers, unpack_flag(damaged))


_ENCODERS = {
    PreVote: lambda m: (Kind.PRE_VOTE, _PRE_VOTE.pack(
        m.term, m.last_log_index, m.last_log_term)),
    PreVoteReply: lambda m: (Kind.PRE_VOTE_REPLY, _PRE_VOTE_REPLY.pack(
        m.term, m.for_term, m.granted)),
    Vote: lambda m: (Kind.VOTE, _VOTE.pack(
        m.term, m.last_log_index, m.last_log_term, m.transfer)),
    VoteReply: lambda m: (Kind.VOTE_REPLY, _VOTE_REPLY.pack(m.term, m.granted)),
    Append: _encode_append,
    AppendReply: lambda m: (Kind.APPEND_REPLY, _APPEND_REPLY.pack(
        m.term, m.success, m.match_index, m.hint_index, m.hint_term)),
    Heartbeat: lambda m: (Kind.HEARTBEAT, _HEARTBEAT.pack(
        m.term, m.leader_commit, m.round, m.sent_ms, m.timeout_ms, m.rtt_ms)),
    HeartbeatReply: lambda m: (Kind.HEARTBEAT_REPLY, _HEARTBEAT_REPLY.pack(
        m.term, m.round, m.sent_ms)),
    TimeoutNow: lambda m: (Kind.TIMEOUT_NOW, _TIMEOUT_NOW.pack(m.term)),
    Snapshot: _encode_snapshot,
    SnapshotReply: lambda m: (Kind.SNAPSHOT_REPLY, _SNAPSHOT_REPLY.pack(
        m.term, m.index, m.snapshot_term, m.checksum, m.offset, m.next_offset, m.damaged)),
}

_DECODERS = {
    Kind.PRE_VOTE: lambda body: PreVote(*_exactly(_PRE_VOTE, body)),
    Kind.PRE_VOTE_REPLY: _decode_pre_vote_reply,
    Kind.VOTE: _decode_vote,
    Kind.VOTE_REPLY: _decode_vote_reply,
    Kind.APPEND: _decode_append,
    Kind.APPEND_REPLY: _decode_append_reply,
    Kind.HEARTBEAT: lambda body: Heartbeat(*_exactly(_HEARTBEAT, body)),
    Kind.HEARTBEAT_REPLY: lambda body: HeartbeatReply(*_exactly(_HEARTBEAT_REPLY, body)),
    Kind.TIMEOUT_NOW: lambda body: TimeoutNow(*_exactly(_TIMEOUT_NOW, body)),
    Kind.SNAPSHOT: _decode_snapshot,
    Kind.SNAPSHOT_REPLY: _decode_snapshot_reply,
}
