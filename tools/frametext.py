"""Frames as text: a line for every frame of every kind, details of entries in lines under it.

Rules: never an exception for a body that is none: the line says so. Damage of the stream itself is
a FrameError with the offset. Line: `offset KIND id request-id: fields`.
"""

from collections.abc import Iterator

from raftnet.client.entries import entry_lines
from raftnet.errors import ERROR_MEANING, FrameError, MalformedError
from raftnet.net.messages import decode_message
from raftnet.raft.describe import describe_entries
from raftnet.raft.entry import Entry, decode_entries
from raftnet.raft.membership import QUORUM_RULE_NAMES
from raftnet.wire import (commands, joining, kvcommands, queueresults, requests, snapshots,
                          watches)
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import (describe_bytes, describe_command, describe_result,
                                   describe_status)
from raftnet.wire.frames import HEADER_BYTES, PEER_KINDS_FROM, FrameReader, Kind
from raftnet.wire.printable import describe_name
from raftnet.wire.requests import UNKNOWN_AGE

BYTES_SHOWN = 64                # of a body of an unknown kind
COMMANDS_SHOWN = 100            # of one request or reply
INDENT = "    "
_NUMBER_MAX = 1 << 56           # no counter and no time of a real cluster comes near it


class StreamDecoder:
    """Bytes in any slicing in, lines out."""

    def __init__(self):
        self._reader = FrameReader()
        self._offset = 0            # of the next frame

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines of all frames that are complete now; raises FrameError at damage."""
        for kind, request_id, body in self._reader.feed(data):
            yield from frame_lines(self._offset, kind, request_id, body)
            self._offset += HEADER_BYTES + len(body)
        if self._reader.error is not None:
            raise FrameError(f"damaged at byte {self._offset}: {self._reader.error}")

    def end(self) -> None:
        """The stream has ended; raises FrameError where that is in the middle of a frame."""
        if self._reader.held:
            raise FrameError(f"damaged at byte {self._offset}: the stream ends "
                             f"{self._reader.held} bytes into a frame")


def frame_lines(offset: int, kind: int, request_id: int, body: bytes) -> list[str]:
    """One line, and more under it for the entries of APPEND and LOG_REPLY."""
    try:
        name = Kind(kind).name
    except ValueError:
        return [f"{offset} unknown kind {kind} id {request_id}: {_hex(body)}"]
    head = f"{offset} {name} id {request_id}"
    try:
        text, entries = _describe(kind, body)
    except MalformedError as error:
        return [f"{head}: malformed body of {len(body)} bytes: {error}"]
    lines = [f"{head}: {text}" if text else head]
    for entry in entries:
        lines += [INDENT + line for line in entry_lines(entry)]
    return lines


def _describe(kind: int, body: bytes) -> tuple[str, list[Entry]]:
    if kind >= PEER_KINDS_FROM:
        return _peer_message(kind, body)
    if kind == Kind.LOG_REPLY:
        first, commit, next_index, count, offset = requests.decode_log_reply(body)
        return (f"first held {first} commit {commit} next {next_index} entries {count}",
                decode_entries(body, offset, count))
    return _BODIES[kind](body), []


def _peer_message(kind: int, body: bytes) -> tuple[str, list[Entry]]:
    message = decode_message(kind, body)
    parts, entries = [], []
    for name in type(message).__slots__:
        value = getattr(message, name)
        if name == "entries":
            entries = value
            value = describe_entries(value)
        elif name in ("from_file", "count"):
            continue            # not on the wire
        elif isinstance(value, bytes):
            value = f"{len(value)} bytes: {_hex(value)}"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        parts.append(f"{name} {value}")
    return " ".join(parts), entries


# --- greetings and refusals


def _hello(body: bytes) -> str:
    hello = requests.decode_hello(body)
    versions = f"versions {hello.version_min} to {hello.version_max}"
    if hello.role == requests.ROLE_CLIENT:
        return f"client {versions}"
    return (f"node {hello.node_id:016x} at {hello.address} start {hello.boot} process "
            f"{hello.process:016x} began in term {hello.start_term} at {hello.start_index}/"
            f"{hello.start_log_term} "
            f"cluster {_cluster(hello.cluster_id)} {versions} state version {hello.state_version}"
            + (f" founders {hello.founders_checksum:08x}" if hello.founders_checksum else ""))


def _cluster(cluster_id: bytes) -> str:
    return cluster_id.hex() if any(cluster_id) else "none yet"


def _error(body: bytes) -> str:
    code, leader, text = requests.decode_error(body)
    return _refusal(code, text) + (f"; leader {leader}" if leader else "")


def _refusal(code: int, text: str) -> str:
    meaning = f" ({ERROR_MEANING[code]})" if code in ERROR_MEANING else ""
    return f"{requests.describe_error(code)} {describe_bytes(text.encode())}{meaning}"


# --- commands


def _request(body: bytes) -> str:
    session, first, acknowledged, count = requests.decode_request_head(body)
    pieces = commands.split_commands(body, requests.REQUEST_HEAD_BYTES)
    shown = [describe_command(piece) for piece in pieces[:COMMANDS_SHOWN]]
    wrong = "" if len(pieces) == count else f" but {len(pieces)} are there"
    name = session.hex() if any(session) else "none"
    return (f"session {name} sequence {first} acknowledged {acknowledged} commands "
            f"{count}{wrong}: {_joined(shown, len(pieces))}")


def _reply(body: bytes) -> str:
    reply = requests.decode_reply(body)
    head = f"sequence {reply.first_sequence} count {reply.count}: "
    if reply.first_message_id is not None:
        return f"{head}enqueued from id {reply.first_message_id} on"
    if reply.refusal is not None:
        return f"{head}refused {_refusal(*reply.refusal)}"
    shown = [_result(*result) for result in reply.results[:COMMANDS_SHOWN]]
    return head + _joined(shown, len(reply.results))


def _joined(shown: list[str], count: int) -> str:
    left_out = count - len(shown)
    return "; ".join(shown) + (f"; ... ({left_out} more)" if left_out else "")


def _result(status: int, payload: bytes) -> str:
    """A result does not say of which operation it is: the first layout that fits whole tells. (A
    number alone may be an id or a key's version, two of them a size or what was moved and left.)"""
    if status == Status.ABORTED:
        return describe_result(status, payload, Operation.TRANSACT)
    if status == Status.CONFLICT:       # a position has 4 bytes, a version 8 and more
        return describe_result(status, payload, Operation.TRANSACT if len(payload) == 4
                               else Operation.KV_PUT)
    if status != Status.OK or not payload:
        return describe_result(status, payload)
    for operation, decode in _LAYOUTS:
        try:
            found = decode(payload)
        except MalformedError:
            continue            # the next one
        if operation != Operation.EXECUTE:
            return describe_result(status, payload, operation)
        shown = [_result(*result) for result in found[:COMMANDS_SHOWN]]
        return f"{describe_status(status)} [{_joined(shown, len(found))}]"
    return describe_result(status, payload)


def _outcomes(payload: bytes) -> list[int]:
    outcomes = queueresults.decode_outcomes_result(payload)
    if max(outcomes, default=0) > max(queueresults.Outcome):
        raise MalformedError("no such outcome")
    return outcomes


def _kv_item(payload: bytes) -> kvcommands.KvItem:
    """The value is what is left, so that everything long enough would fit."""
    item = kvcommands.decode_kv_get_result(payload)
    if not 0 < item.version < _NUMBER_MAX or item.expires_ms >= _NUMBER_MAX:
        raise MalformedError("no version, or no time")
    return item


_LAYOUTS = [
    (Operation.ENQUEUE, commands.decode_enqueue_result),
    (Operation.DEQUEUE, commands.decode_messages),
    (Operation.SIZE, commands.decode_size_result),
    (Operation.EXECUTE, commands.decode_execute_result),
    (Operation.QUEUES, commands.decode_queue_list),
    (Operation.LEASE, queueresults.decode_lease_result),
    (Operation.ENQUEUE_WITH, queueresults.decode_enqueue_with_result),
    (Operation.ACK, _outcomes),
    (Operation.DESCRIBE, queueresults.decode_describe_result),
    (Operation.LEASES, queueresults.decode_leases_result),
    (Operation.INSPECT, queueresults.decode_inspect_result),
    (Operation.KV_LIST, kvcommands.decode_kv_list_result),
    (Operation.KV_GET, _kv_item),
]


# --- reads and status


def _read(body: bytes) -> str:
    local, command = requests.decode_read(body)
    shown = [describe_command(piece) for piece in commands.split_commands(command, 0)]
    return ("local " if local else "") + "; ".join(shown)


def _read_reply(body: bytes) -> str:
    applied_index, status, payload = requests.decode_read_reply(body)
    return f"applied {applied_index}: {_result(status, payload)}"


def _log(body: bytes) -> str:
    local, from_index, limit = requests.decode_log(body)
    return ("local " if local else "") + f"from {from_index} limit {limit}"


def _status(body: bytes) -> str:
    if body:
        raise MalformedError("it has none")
    return ""


def _status_reply(body: bytes) -> str:
    status = requests.decode_status(body)
    rule = QUORUM_RULE_NAMES.get(status.quorum_rule, status.quorum_rule)
    members = [_member(member) for member in status.members]
    return (f"{status.address} {status.role} term {status.term} leader {status.leader or 'unknown'}"
            f" commit {status.commit_index} applied {status.applied_index} last {status.last_index}"
            f" stable {status.stable_index} snapshot {status.snapshot_index}"
            f" digest {status.digest:08x} {'founded' if status.founded else 'not founded'}"
            f" quorum {rule} node {status.node_id:016x} start {status.boot}"
            f" cluster {_cluster(status.cluster_id)} version {status.version}"
            f" state version {status.state_version} membership at {status.membership_index}"
            f" heartbeat {status.heartbeat_ms} ms election timeout {status.election_timeout_ms} ms"
            f" {describe_bytes(status.timing.encode())} log {status.log_bytes} bytes"
            f"{' disk full' if status.disk_full else ''}{_snapshot_share(status)}"
            f"{f' note {describe_bytes(status.note.encode())}' if status.note else ''}"
            f" members [{'; '.join(members)}]"
            + (f" target {', '.join(status.target)}" if status.target else "")
            + (f" heals with {', '.join(status.healing_contacts)}" if status.heals else ""))


def _snapshot_share(of: requests.NodeStatus | requests.MemberStatus) -> str:
    """How far it is with a snapshot that it is sent."""
    return f" snapshot {of.snapshot_bytes} of {of.snapshot_size} bytes" if of.snapshot_size else ""


def _member(member: requests.MemberStatus) -> str:
    silent = "unknown" if member.silent_ms == UNKNOWN_AGE else f"{member.silent_ms} ms"
    kind = "voter" if member.voter else "learner that stays" if member.stays else "learner"
    rtt = ("" if member.rtt_ms == UNKNOWN_AGE else f" round trip {member.rtt_ms} ms slow "
           f"{member.rtt_slow_ms} ms lost {member.loss_permille} permille")
    return (f"{member.address} node {member.node_id:016x} {kind}"
            f" {'reachable' if member.reachable else 'unreachable'} match {member.match_index}"
            f" silent {silent}{rtt}{_snapshot_share(member)}")


# --- snapshots


def _take_snapshot(body: bytes) -> str:
    return "local" if snapshots.decode_take_snapshot(body) else ""


def _snapshot_taken(body: bytes) -> str:
    taken = snapshots.decode_snapshot_taken(body)
    return (f"up to {taken.index} term {taken.term} size {taken.size} checksum "
            f"{taken.checksum:08x} digest {taken.digest:08x}")


def _read_snapshot(body: bytes) -> str:
    index, offset, count = snapshots.decode_read_snapshot(body)
    return f"up to {index} offset {offset} count {count}"


def _snapshot_part(body: bytes) -> str:
    part = snapshots.decode_snapshot_part(body)
    return (f"up to {part.index} size {part.size} offset {part.offset} bytes {len(part.data)}: "
            f"{_hex(part.data)}")


# --- watches


def _watch(body: bytes) -> str:
    asked = watches.decode_watch(body)
    return (("local " if asked.local else "") + f"{watches.WatchWhat(asked.what).name.lower()} "
            f"{describe_name(asked.name)} from {asked.from_index}")


def _watch_event(body: bytes) -> str:
    index, changes = watches.decode_watch_event(body)
    if changes is None:
        return f"up to {index}: the watch has ended"
    shown = [_change_of_watch(change) for change in changes[:COMMANDS_SHOWN]]
    return f"up to {index} changes {len(changes)}" + (
        f": {_joined(shown, len(changes))}" if changes else "")


def _change_of_watch(change: watches.Change) -> str:
    head = f"{change.index} {watches.EventType(change.type).name} {describe_name(change.name)}"
    if change.type == watches.EventType.SIZE:
        leased, delayed, size_bytes = watches.decode_sizes(change.value)
        return (f"{head} ready {change.version} leased {leased} delayed {delayed} "
                f"bytes {size_bytes}")
    return f"{head} version {change.version}" + (
        f" {describe_bytes(change.value)}" if change.type == watches.EventType.PUT else "")


# --- who belongs to the cluster


def _join(body: bytes) -> str:
    node_id, address, flags = joining.decode_join(body)
    return (f"node {node_id:016x} at {address}" + _stays(flags)
            + (" returning" if flags & joining.JOIN_RETURNING else ""))


def _stays(flags: int) -> str:
    return " as a learner that stays" if flags & joining.JOIN_STAYS else ""


def _invite(body: bytes) -> str:
    cluster_id, contact, flags = joining.decode_invite(body)
    return f"into cluster {_cluster(cluster_id)} by {contact}{_stays(flags)}"


def _change(body: bytes) -> str:
    operation, addresses = joining.decode_change(body)
    return f"{_CHANGES[operation]} {' '.join(addresses)}"


_CHANGES = {joining.CHANGE_REMOVE: "remove", joining.CHANGE_TRANSFER: "transfer to",
            joining.CHANGE_SET: "set members to"}


def _change_reply(body: bytes) -> str:
    index, text = joining.decode_change_reply(body)
    return f"at {index} {describe_bytes(text.encode())}"


_BODIES = {
    Kind.HELLO: _hello,
    Kind.HELLO_REPLY: _hello,
    Kind.ERROR: _error,
    Kind.REQUEST: _request,
    Kind.REPLY: _reply,
    Kind.READ: _read,
    Kind.READ_REPLY: _read_reply,
    Kind.LOG: _log,
    Kind.STATUS: _status,
    Kind.STATUS_REPLY: _status_reply,
    Kind.TAKE_SNAPSHOT: _take_snapshot,
    Kind.SNAPSHOT_TAKEN: _snapshot_taken,
    Kind.READ_SNAPSHOT: _read_snapshot,
    Kind.SNAPSHOT_PART: _snapshot_part,
    Kind.WATCH: _watch,
    Kind.WATCH_EVENT: _watch_event,
    Kind.UNWATCH: lambda body: f"of id {watches.decode_unwatch(body)}",
    Kind.JOIN: _join,
    Kind.JOIN_REPLY: lambda body: f"cluster {joining.decode_join_reply(body).hex()}",
    Kind.INVITE: _invite,
    Kind.INVITE_REPLY: lambda body: f"node {joining.decode_invite_reply(body):016x}",
    Kind.CHANGE: _change,
    Kind.CHANGE_REPLY: _change_reply,
}


def _hex(body: bytes) -> str:
    rest = f"... ({len(body)} bytes)" if len(body) > BYTES_SHOWN else ""
    return body[:BYTES_SHOWN].hex() + rest
