"""The bodies of the frames that are not Raft messages (protocol.md, Client messages): greeting,
refusals, commands under a session, reads and status. Who belongs to the cluster: joining.py.

Rules: struct only; every decoder raises MalformedError on anything that is not exactly the layout;
nothing here looks into commands (commands.py). Strings are UTF-8 with a 16-bit length in bytes.
"""

import struct
from dataclasses import dataclass, field

from raftnet.errors import ErrorCode, MalformedError
from raftnet.wire import frames

SESSION_BYTES = 16
NO_SESSION = bytes(SESSION_BYTES)               # at most once: nothing is kept for a retry
INTERNAL_SESSION = b"\xff" * SESSION_BYTES      # the leader's own commands; refused from clients
ROLE_PEER, ROLE_CLIENT = 1, 2
FORM_ENQUEUED, FORM_RESULTS, FORM_REFUSED = 1, 2, 3

REQUEST = struct.Struct(">16sQQI")              # session, first sequence, acknowledged, count
REQUEST_HEAD_BYTES = REQUEST.size               # 36
_HELLO = struct.Struct(">BBBB16sQQQQQQIH")
_REPLY = struct.Struct(">QIB")
_REPLY_ENQUEUED = struct.Struct(">QIBQ")
_RESULT = struct.Struct(">IB")
_ONE_RESULT = struct.Struct(">QIBIB")      # a _REPLY and a _RESULT
_LOG = struct.Struct(">BQI")
_LOG_REPLY = struct.Struct(">QQQI")
_STATUS_REPLY = struct.Struct(">16sQQBQQQQQQIBBQHIIQBQQ")
_MEMBER_STATUS = struct.Struct(">QBBBQIIIHQQ")
_U16 = struct.Struct(">H")
_U64 = struct.Struct(">Q")
UNKNOWN_AGE = 0xFFFFFFFF
ROLES = ("follower", "candidate", "leader", "learner", "joining", "founding", "removed")


def pack_string(text: str) -> bytes:
    """A string with its length in bytes before it."""
    data = text.encode()
    return _U16.pack(len(data)) + data


def unpack_string(body: bytes, offset: int) -> tuple[str, int]:
    """The string at `offset`, and the offset behind it."""
    try:
        (length,) = _U16.unpack_from(body, offset)
        end = offset + 2 + length
        if end > len(body):
            raise MalformedError("a string is longer than its frame")
        return body[offset + 2:end].decode(), end
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedError(f"not a string: {error}") from error


def unpack_strings(body: bytes, offset: int, what: str) -> tuple[list[str], int]:
    """A u16 with their number, then the strings; and the offset behind them."""
    if offset + 2 > len(body):
        raise MalformedError(f"{what}: too short")
    (count,) = _U16.unpack_from(body, offset)
    offset += 2
    strings = []
    for _ in range(count):
        text, offset = unpack_string(body, offset)
        strings.append(text)
    return strings, offset


def unpack_head(layout: struct.Struct, body: bytes, what: str) -> tuple:
    """The fields that open a body; raises MalformedError if it is shorter than they are."""
    if len(body) < layout.size:
        raise MalformedError(f"{what}: {len(body)} bytes, at least {layout.size} are needed")
    return layout.unpack_from(body)


def unpack_flag(value: int) -> bool:
    """A byte that is 0 or 1; raises MalformedError."""
    if value > 1:
        raise MalformedError(f"a flag is 0 or 1, not {value}")
    return value == 1


def check_end(offset: int, body: bytes, what: str) -> None:
    """Raises MalformedError unless the body ends at `offset`."""
    if offset != len(body):
        raise MalformedError(f"{what}: {len(body) - offset} bytes too many")


# --- greeting


@dataclass(slots=True)
class Hello:
    """Who speaks; HELLO and HELLO_REPLY have the same body."""

    role: int                       # ROLE_PEER or ROLE_CLIENT
    cluster_id: bytes = bytes(16)   # zeros: none yet, or none known
    node_id: int = 0                # 0: a client
    boot: int = 0                   # how often the data directory was started
    founders_checksum: int = 0      # CRC-32 over the founders' list; 0: none
    address: str = ""               # the address that the sender is dialled at
    process: int = 0                # drawn at random when the process started
    start_term: int = 0             # its current term when the process started
    start_log_term: int = 0         # the term of the last entry of its log then
    start_index: int = 0            # the index of that entry
    state_version: int = 0          # the highest version of the replicated state that it knows
    version_min: int = frames.VERSION
    version_max: int = frames.VERSION


def encode_hello(hello: Hello) -> bytes:
    """Body of HELLO and HELLO_REPLY."""
    return _HELLO.pack(hello.version_min, hello.version_max, hello.role, 0, hello.cluster_id,
                       hello.node_id, hello.boot, hello.process, hello.start_term,
                       hello.start_log_term, hello.start_index, hello.founders_checksum,
                       hello.state_version) + pack_string(hello.address)


def decode_hello(body: bytes) -> Hello:
    """Raises MalformedError."""
    (low, high, role, _, cluster_id, node_id, boot, process, start_term, start_log_term,
     start_index, founders, state_version) = unpack_head(_HELLO, body, "HELLO")
    address, end = unpack_string(body, _HELLO.size)
    check_end(end, body, "HELLO")
    if role not in (ROLE_PEER, ROLE_CLIENT) or (role == ROLE_PEER and node_id == 0):
        raise MalformedError("HELLO: neither a node nor a client")
    return Hello(role, cluster_id, node_id, boot, founders, address, process, start_term,
                 start_log_term, start_index, state_version, low, high)


# --- refusals


def encode_error(code: int, text: str, leader: str = "") -> bytes:
    """Body of ERROR: why, and where the leader is if that is known."""
    return _U16.pack(code) + pack_string(leader) + pack_string(text)


def decode_error(body: bytes) -> tuple[int, str, str]:
    """(code, leader's address or "", text); raises MalformedError."""
    (code,) = unpack_head(_U16, body, "ERROR")
    leader, end = unpack_string(body, 2)
    text, end = unpack_string(body, end)
    check_end(end, body, "ERROR")
    return code, leader, text


# --- commands under a session


def encode_request(session: bytes, first_sequence: int, acknowledged: int,
                   commands: list[bytes]) -> bytes:
    """Body of REQUEST. The commands (commands.py) get the sequences from `first_sequence` on;
    `acknowledged`: every reply up to this sequence was received and need not be kept."""
    head = REQUEST.pack(session, first_sequence, acknowledged, len(commands))
    return b"".join((head, *commands))


def decode_request_head(body: bytes) -> tuple[bytes, int, int, int]:
    """(session, first sequence, acknowledged, count); raises MalformedError."""
    return unpack_head(REQUEST, body, "REQUEST")


def encode_reply_enqueued(first_sequence: int, count: int, first_message_id: int) -> bytes:
    """Body of REPLY where every command was an enqueue: their messages have the ids from
    `first_message_id` on, in order."""
    return _REPLY_ENQUEUED.pack(first_sequence, count, FORM_ENQUEUED, first_message_id)


def encode_reply_results(first_sequence: int, results: list[tuple[int, bytes]]) -> bytes:
    """Body of REPLY with a (status, payload) for each command."""
    if len(results) == 1:
        ((status, payload),) = results
        return _ONE_RESULT.pack(first_sequence, 1, FORM_RESULTS, 1 + len(payload), status) + payload
    parts = [_REPLY.pack(first_sequence, len(results), FORM_RESULTS)]
    for status, payload in results:
        parts += (_RESULT.pack(1 + len(payload), status), payload)
    return b"".join(parts)


def encode_reply_refused(first_sequence: int, count: int, code: int, text: str) -> bytes:
    """Body of REPLY where the request was refused when its turn in the log came."""
    return (_REPLY.pack(first_sequence, count, FORM_REFUSED) + _U16.pack(code)
            + pack_string(text))


@dataclass(slots=True)
class Reply:
    """A decoded REPLY: one of its last three fields is not None."""

    first_sequence: int
    count: int
    first_message_id: int | None = None
    results: list[tuple[int, bytes]] | None = None
    refusal: tuple[int, str] | None = None


def decode_reply(body: bytes) -> Reply:
    """Raises MalformedError."""
    first, count, form = unpack_head(_REPLY, body, "REPLY")
    offset = _REPLY.size
    if form == FORM_ENQUEUED:
        first, count, form, message_id = unpack_head(_REPLY_ENQUEUED, body, "REPLY")
        check_end(_REPLY_ENQUEUED.size, body, "REPLY")
        return Reply(first, count, first_message_id=message_id)
    if form == FORM_RESULTS:
        results, end = decode_results(body, offset, count)
        check_end(end, body, "REPLY")
        return Reply(first, count, results=results)
    if form == FORM_REFUSED:
        if len(body) < offset + 2:
            raise MalformedError("REPLY: too short")
        (code,) = _U16.unpack_from(body, offset)
        text, end = unpack_string(body, offset + 2)
        check_end(end, body, "REPLY")
        return Reply(first, count, refusal=(code, text))
    raise MalformedError(f"REPLY: form {form} is unknown")


def decode_results(body: bytes, offset: int, count: int) -> tuple[list[tuple[int, bytes]], int]:
    """`count` results of (status, payload) at `offset`, and the offset behind them."""
    results = []
    for _ in range(count):
        if offset + 5 > len(body):
            raise MalformedError("a result is cut short")
        length, status = _RESULT.unpack_from(body, offset)
        end = offset + 4 + length
        if length < 1 or end > len(body):
            raise MalformedError("a result is longer than its frame")
        results.append((status, body[offset + 5:end]))
        offset = end
    return results, offset


# --- reads


def encode_read(local: bool, command: bytes) -> bytes:
    """Body of READ: one reading command; `local` asks the node itself, leader or not."""
    return bytes((local,)) + command


def decode_read(body: bytes) -> tuple[bool, bytes]:
    """(local, command); raises MalformedError."""
    if len(body) < 2:
        raise MalformedError("READ: a flag and a command are needed")
    return unpack_flag(body[0]), body[1:]


def encode_read_reply(applied_index: int, status: int, payload: bytes) -> bytes:
    """Body of READ_REPLY: what held when the log was applied up to `applied_index`."""
    return _U64.pack(applied_index) + bytes((status,)) + payload


def decode_read_reply(body: bytes) -> tuple[int, int, bytes]:
    """(applied index, status, payload); raises MalformedError."""
    if len(body) < 9:
        raise MalformedError("READ_REPLY: too short")
    return _U64.unpack_from(body)[0], body[8], body[9:]


def encode_log(local: bool, from_index: int, limit: int) -> bytes:
    """Body of LOG: the committed entries from `from_index` on, at most `limit` of them."""
    return _LOG.pack(local, from_index, limit)


def decode_log(body: bytes) -> tuple[bool, int, int]:
    """(local, from index, limit); raises MalformedError."""
    local, from_index, limit = unpack_head(_LOG, body, "LOG")
    check_end(_LOG.size, body, "LOG")
    return unpack_flag(local), from_index, limit


def encode_log_reply(first_index: int, commit_index: int, next_index: int,
                     entries: list[bytes]) -> bytes:
    """Body of LOG_REPLY: entries as they stand in the log. `first_index` is the first that the node
    still holds, `next_index` where to go on; above `commit_index` there is nothing more now."""
    return _LOG_REPLY.pack(first_index, commit_index, next_index, len(entries)) + b"".join(entries)


def decode_log_reply(body: bytes) -> tuple[int, int, int, int, int]:
    """(first index, commit index, next index, count, offset of the entries); the entries are read
    with raftnet.raft.entry.decode_entries. Raises MalformedError."""
    return (*unpack_head(_LOG_REPLY, body, "LOG_REPLY"), _LOG_REPLY.size)


# --- status


@dataclass(slots=True)
class MemberStatus:
    """One member as the answering node sees it."""

    node_id: int
    address: str
    voter: bool
    reachable: bool
    match_index: int = 0            # leader only
    silent_ms: int = UNKNOWN_AGE    # since the answering node last heard it
    stays: bool = False             # a learner that is not to become a voter
    rtt_ms: int = UNKNOWN_AGE       # the usual round trip, as the answering node measured it
    rtt_slow_ms: int = UNKNOWN_AGE  # nine of ten are not slower
    loss_permille: int = 0          # of the answering node's heartbeats
    snapshot_bytes: int = 0         # written there, of a snapshot that the leader sends it
    snapshot_size: int = 0          # of that snapshot; 0: none is sent


@dataclass(slots=True)
class NodeStatus:
    """What a node knows of itself and of its cluster."""

    cluster_id: bytes
    node_id: int
    boot: int
    role: str                       # one of ROLES
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    stable_index: int
    digest: int
    founded: bool
    quorum_rule: int
    address: str
    leader: str                     # its address, or ""
    version: str
    members: list[MemberStatus]
    membership_index: int = 0       # where the newest membership stands; above commit: under way
    state_version: int = 1          # of the replicated state
    target: list[str] = field(default_factory=list)     # what `members --set` asked for
    heartbeat_ms: int = 0           # how often it speaks, or would, as a leader
    election_timeout_ms: int = 0    # its lower bound
    timing: str = ""                # why these are as they are
    log_bytes: int = 0              # of the log file
    disk_full: bool = False         # what was to be written waits for room
    snapshot_bytes: int = 0         # here, of a snapshot that the leader sends this node
    snapshot_size: int = 0          # of that snapshot; 0: none comes
    note: str = ""                  # what it does just now beside its role, for people; or ""
    # Its damaged files were set aside, and it asks these to be taken in again; []: not so.
    healing_contacts: list[str] = field(default_factory=list)

    @property
    def heals(self) -> bool:
        """Whether it comes back to its cluster after damage, and was not taken in yet."""
        return bool(self.healing_contacts)


def encode_status(status: NodeStatus) -> bytes:
    """Body of STATUS_REPLY."""
    parts = [_STATUS_REPLY.pack(
        status.cluster_id, status.node_id, status.boot, ROLES.index(status.role), status.term,
        status.commit_index, status.applied_index, status.last_index, status.snapshot_index,
        status.stable_index, status.digest, status.founded, status.quorum_rule,
        status.membership_index, status.state_version, status.heartbeat_ms,
        status.election_timeout_ms, status.log_bytes, status.disk_full, status.snapshot_bytes,
        status.snapshot_size)]
    parts += (*map(pack_string, (status.address, status.leader, status.version, status.timing,
                                 status.note)), _U16.pack(len(status.members)))
    for member in status.members:
        parts.append(_MEMBER_STATUS.pack(
            member.node_id, member.voter, member.stays, member.reachable, member.match_index,
            member.silent_ms, member.rtt_ms, member.rtt_slow_ms, member.loss_permille,
            member.snapshot_bytes, member.snapshot_size))
        parts.append(pack_string(member.address))
    for strings in (status.target, status.healing_contacts):
        parts += (_U16.pack(len(strings)), *map(pack_string, strings))
    return b"".join(parts)


def decode_status(body: bytes) -> NodeStatus:
    """Raises MalformedError."""
    (cluster_id, node_id, boot, role, term, commit, applied, last, snapshot, stable, digest,
     founded, rule, membership_index, state_version, heartbeat_ms, election_timeout_ms, log_bytes,
     disk_full, snapshot_bytes, snapshot_size) = unpack_head(_STATUS_REPLY, body, "STATUS_REPLY")
    if role >= len(ROLES):
        raise MalformedError(f"STATUS_REPLY: role {role} is unknown")
    address, offset = unpack_string(body, _STATUS_REPLY.size)
    leader, offset = unpack_string(body, offset)
    version, offset = unpack_string(body, offset)
    timing, offset = unpack_string(body, offset)
    note, offset = unpack_string(body, offset)
    if offset + 2 > len(body):
        raise MalformedError("STATUS_REPLY: too short")
    (count,) = _U16.unpack_from(body, offset)
    offset += 2
    members = []
    for _ in range(count):
        if offset + _MEMBER_STATUS.size > len(body):
            raise MalformedError("STATUS_REPLY: a member is cut short")
        fields = _MEMBER_STATUS.unpack_from(body, offset)
        member_address, offset = unpack_string(body, offset + _MEMBER_STATUS.size)
        members.append(MemberStatus(fields[0], member_address, unpack_flag(fields[1]),
                                    unpack_flag(fields[3]), fields[4], fields[5],
                                    unpack_flag(fields[2]), *fields[6:]))
    target, offset = unpack_strings(body, offset, "STATUS_REPLY")
    contacts, offset = unpack_strings(body, offset, "STATUS_REPLY")
    check_end(offset, body, "STATUS_REPLY")
    return NodeStatus(cluster_id, node_id, boot, ROLES[role], term, commit, applied, last, snapshot,
                      stable, digest, unpack_flag(founded), rule, address, leader, version, members,
                      membership_index, state_version, target, heartbeat_ms,
                      election_timeout_ms, timing, log_bytes, unpack_flag(disk_full),
                      snapshot_bytes, snapshot_size, note, contacts)


def describe_error(code: int) -> str:
    """The code's name, also where it is newer than this program."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"ERROR_{code}"
