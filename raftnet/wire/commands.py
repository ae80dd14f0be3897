"""What is in an entry: the batch, and the commands in the requests of a batch (protocol.md).

Rules: a request's body stands in the log as the client sent it, and is decoded where it is applied;
a command has its length before it, so that one malformed command costs no other. Encoders trust
their caller, decoders trust nobody and raise MalformedError; a count is believed only after it was
compared with the bytes that are there. What the commands do is in machine/.

Layouts (big-endian; `name` is a byte with the length in bytes, 1 to 255, and the bytes):

    command   u32 length of the rest, u8 operation, then by operation:
    ENQUEUE   name, u32 count, count x u32 length, the messages
    DEQUEUE   name, u32 count, u32 wait_ms
    EXECUTE   u32 count, that many commands
    PEEK      name, u32 count
    SIZE      name
    QUEUES    u8 length and bytes of the name to begin after (may be empty), u32 limit
    CLOSE     nothing: ends the session
    CANCEL    16 bytes session, u64 sequence    the leader's own
    TIME      nothing                           the leader's own

The others are in queuecommands.py, kvcommands.py and transactions.py.
"""

import struct
from enum import IntEnum

from raftnet.errors import MalformedError
from raftnet.wire.fields import encode_command, encode_name, take_name, take_rest
from raftnet.wire.requests import decode_results


class Operation(IntEnum):
    """Every command. Part of the protocol: never renumber."""

    ENQUEUE = 1
    DEQUEUE = 2
    EXECUTE = 3
    PEEK = 4
    SIZE = 5
    QUEUES = 6
    CLOSE = 7
    ENQUEUE_WITH = 8
    LEASE = 9
    ACK = 10
    NACK = 11
    EXTEND = 12
    CONFIGURE = 13
    DELETE_QUEUE = 14
    PURGE = 15
    REDRIVE = 16
    DESCRIBE = 17
    LEASES = 18
    INSPECT = 19
    KV_GET = 20
    KV_PUT = 21
    KV_DELETE = 22
    KV_LIST = 23
    TRANSACT = 24
    CANCEL = 32
    TIME = 33


# The highest version of the replicated state that this program knows, and the one since which each
# operation exists (protocol.md, Compatibility rules). An operation is added with a version of its
# own, and is refused everywhere until the membership says that every member knows that version.
STATE_VERSION = 2
OPERATION_SINCE = {int(operation): 1 for operation in Operation}
OPERATION_SINCE.update(dict.fromkeys(range(Operation.ENQUEUE_WITH, Operation.TRANSACT + 1), 2))


class Status(IntEnum):
    """How a command ended. Part of the protocol: never renumber."""

    OK = 0
    EMPTY = 1           # nothing there
    MALFORMED = 2       # the command has not the layout of its operation
    UNKNOWN = 3         # no such operation, or not allowed there
    LIMIT = 4           # over a limit; the payload says which, as text
    REPLY_FULL = 5      # its result would make the reply too large: ask for less at once
    CANCELLED = 6       # a waiting dequeue whose connection ended
    STALE = 7           # of a command in a transaction: a receipt's lease has ended
    FULL = 8            # the queue has as much as it may; the payload says of what, as text
    CONFLICT = 9        # a condition does not hold; the payload says what is there instead
    IN_USE = 10         # the queue holds something, or somebody waits; the payload is text
    ABORTED = 11        # a transaction was undone for one of its commands; the payload says which


_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_TWO_U32 = struct.Struct(">II")
_ONE_MESSAGE = struct.Struct(">IQI")
_RESULT = struct.Struct(">IB")
_SIZE = struct.Struct(">QQ")
_ENQUEUE = int(Operation.ENQUEUE)       # a plain number: compared once a command
_NO_HEAD = b"\xff" * 5                  # of no command that fits into a body
_EQUAL_LENGTHS_MAX = 1000


def encode_enqueue(queue: bytes, messages: list[bytes]) -> bytes:
    """Append the messages to the queue, all or none. Result: u64 id of the first; the others
    follow."""
    lengths = struct.pack(f">I{len(messages)}I", len(messages), *map(len, messages))
    return encode_command(Operation.ENQUEUE, encode_name(queue), lengths, *messages)


def encode_dequeue(queue: bytes, count: int = 1, wait_ms: int = 0) -> bytes:
    """Take up to `count` messages from the head. Result: messages, or EMPTY after `wait_ms`."""
    return encode_command(Operation.DEQUEUE, encode_name(queue), _TWO_U32.pack(count, wait_ms))


def encode_execute(commands: list[bytes]) -> bytes:
    """All of the commands, atomically, in one entry. Result: u32 count, and for each u32 length of
    the rest, u8 status, its result."""
    return encode_command(Operation.EXECUTE, _U32.pack(len(commands)), *commands)


def encode_peek(queue: bytes, count: int = 1) -> bytes:
    """The first messages, left where they are. Result: messages, or EMPTY."""
    return encode_command(Operation.PEEK, encode_name(queue), _U32.pack(count))


def encode_size(queue: bytes) -> bytes:
    """Result: u64 messages, u64 bytes in them."""
    return encode_command(Operation.SIZE, encode_name(queue))


def encode_queues(after: bytes = b"", limit: int = 1000) -> bytes:
    """Queues that hold messages, in order of their names. Result: u32 count, name and u64 each."""
    return encode_command(Operation.QUEUES, bytes((len(after),)) + after, _U32.pack(limit))


def encode_close() -> bytes:
    """End the session; its kept replies are dropped."""
    return encode_command(Operation.CLOSE)


def encode_cancel(session: bytes, sequence: int) -> bytes:
    """End a wait, the leader's own command."""
    return encode_command(Operation.CANCEL, session, _U64.pack(sequence))


def encode_time() -> bytes:
    """Nothing but the stamp of its batch, the leader's own command."""
    return encode_command(Operation.TIME)


# --- batches


def encode_batch(stamp_ms: int, bodies: list[bytes]) -> bytes:
    """The payload of a BATCH entry: replicated time and the requests' bodies, each with its
    length (u32) before it."""
    parts = [_U64.pack(stamp_ms)]
    for body in bodies:
        parts += (_U32.pack(len(body)), body)
    return b"".join(parts)


def batch_stamp(payload: bytes) -> int:
    """The replicated time of a batch, in milliseconds; raises MalformedError."""
    if len(payload) < 8:
        raise MalformedError("a batch has no stamp")
    return _U64.unpack_from(payload)[0]


def decode_batch(payload: bytes) -> list[bytes]:
    """The requests' bodies; raises MalformedError."""
    batch_stamp(payload)
    return split_commands(payload, 8)


def split_commands(body: bytes, offset: int) -> list[bytes]:
    """The pieces, each with a u32 length before it, from `offset` to the end, without the length.

    Raises MalformedError where the lengths do not add up.
    """
    pieces = []
    end = len(body)
    unpack = _U32.unpack_from
    while offset < end:
        if offset + 4 > end:
            raise MalformedError("a length is cut short")
        stop = offset + 4 + unpack(body, offset)[0]
        if stop > end:
            raise MalformedError("a piece is longer than what holds it")
        pieces.append(body[offset + 4:stop])
        offset = stop
    return pieces


# --- decoding: each takes a command without its length; the operation is its first byte


def decode_enqueue(command: bytes) -> tuple[bytes, list[bytes]]:
    """(queue, messages)."""
    queue, offset = take_name(command)
    end = len(command)
    if offset + 4 > end:
        raise MalformedError("ENQUEUE: cut short")
    (count,) = _U32.unpack_from(command, offset)
    if count == 1 and offset + 8 <= end:
        (size,) = _U32.unpack_from(command, offset + 4)
        if offset + 8 + size == end:
            return queue, [command[offset + 8:]]
    messages: list[bytes] = []
    if not split_messages(command, offset + 4, end, count, end, messages):
        raise MalformedError("ENQUEUE: the count or the lengths do not fit")
    return queue, messages


def decode_enqueues(body: bytes, offset: int,
                    message_bytes_max: int) -> tuple[list[tuple[bytes, list[bytes]]], int] | None:
    """The commands from `offset` to the end, where all of them are valid ENQUEUEs: one (queue,
    messages) for each run of commands to the same queue, and how many commands there were.

    None: at least one is something else, is malformed, or has a message over the limit. This is
    decode_enqueue in one plain loop, for the request that matters most (design: 0.7 us a command).
    """
    runs = []
    commands = 0
    end = len(body)
    # The head that comes again while queue and size do: everything of a command before its message.
    head, step = _NO_HEAD, end + 1
    same = b"\0"                    # operation, length and bytes of the name of this run
    skip = size_before = 0
    messages: list[bytes] = []
    append = messages.append
    unpack, unpack_two, startswith = _U32.unpack_from, _TWO_U32.unpack_from, body.startswith
    while offset < end:
        while startswith(head, offset):
            stop = offset + step            # behind the end: then the last line refuses it
            append(body[offset + skip:stop])
            offset = stop
            commands += 1
        if offset + 4 > end:
            break
        stop = offset + 4 + unpack(body, offset)[0]
        if stop > end:
            return None
        if not startswith(same, offset + 4):
            if stop < offset + 6 or body[offset + 4] != _ENQUEUE or not body[offset + 5]:
                return None
            skip = 14 + body[offset + 5]
            same = body[offset + 4:offset + skip - 8]
            messages = []
            append = messages.append
            runs.append((same[2:], messages))
            head, step, size_before = _NO_HEAD, end + 1, -1
        start = offset + skip
        if start > stop:
            return None
        count, size = unpack_two(body, start - 8)
        if count == 1:
            if stop - start != size or size > message_bytes_max:
                return None
            append(body[start:stop])
            if size == size_before:
                head, step = body[offset:start], stop - offset
            size_before = size
        elif not split_messages(body, start - 4, stop, count, message_bytes_max, messages):
            return None
        offset = stop
        commands += 1
    return (runs, commands) if offset == end else None


def split_messages(body: bytes, offset: int, stop: int, count: int, message_bytes_max: int,
                    messages: list[bytes]) -> bool:
    """Add `count` messages, their lengths at `offset`; False where they do not end at `stop`."""
    start = offset + 4 * count
    if not count or start > stop:
        return False
    lengths = struct.unpack_from(f">{count}I", body, offset)
    longest = max(lengths)
    if start + sum(lengths) != stop or longest > message_bytes_max:
        return False
    if count <= _EQUAL_LENGTHS_MAX and lengths.count(longest) == count:
        # struct splits four times as fast as a loop; it remembers its last formats, so keep them
        # short and few
        messages += struct.unpack_from(f"{longest}s" * count, body, start)
        return True
    append = messages.append
    for length in lengths:
        end = start + length
        append(body[start:end])
        start = end
    return True


def decode_dequeue(command: bytes) -> tuple[bytes, int, int]:
    """(queue, count, wait in milliseconds)."""
    queue, offset = take_name(command)
    return (queue, *take_rest(_TWO_U32, command, offset))


def may_wait(command: bytes) -> bool:
    """Of a DEQUEUE or LEASE: False only where its wait is 0."""
    wait_from = 6 + command[1] if len(command) > 1 else 0       # behind the name and the count
    return command[wait_from:wait_from + 4] != b"\0\0\0\0"


def decode_execute(command: bytes) -> list[bytes]:
    """The commands of the list, without their lengths."""
    if len(command) < 5:
        raise MalformedError("EXECUTE: cut short")
    (count,) = _U32.unpack_from(command, 1)
    commands = split_commands(command, 5)
    if len(commands) != count:
        raise MalformedError("EXECUTE: the count does not fit")
    return commands


def decode_peek(command: bytes) -> tuple[bytes, int]:
    """(queue, count)."""
    queue, offset = take_name(command)
    return queue, take_rest(_U32, command, offset)[0]


def decode_size(command: bytes) -> bytes:
    """The queue."""
    queue, offset = take_name(command)
    if offset != len(command):
        raise MalformedError("SIZE: too long")
    return queue


def decode_queues(command: bytes) -> tuple[bytes, int]:
    """(name to begin after, limit)."""
    after, offset = take_name(command, empty=True)
    return after, take_rest(_U32, command, offset)[0]


def decode_nothing(command: bytes) -> None:
    """CLOSE and TIME: the operation alone."""
    if len(command) != 1:
        raise MalformedError("the operation has no arguments")


def decode_cancel(command: bytes) -> tuple[bytes, int]:
    """(session, sequence)."""
    if len(command) != 25:
        raise MalformedError("CANCEL: 24 bytes are needed")
    return command[1:17], _U64.unpack_from(command, 17)[0]


# --- results


def encode_messages(messages: list[tuple[int, bytes]]) -> bytes:
    """The result of DEQUEUE and PEEK: u32 count, count x u64 id, count x u32 length, the bytes."""
    count = len(messages)
    head = struct.pack(f">I{count}Q{count}I", count, *[m[0] for m in messages],
                       *[len(m[1]) for m in messages])
    return b"".join((head, *[m[1] for m in messages]))


def encode_one_message(message_id: int, message: bytes) -> bytes:
    """encode_messages of a single one, at a third of the cost."""
    return _ONE_MESSAGE.pack(1, message_id, len(message)) + message


def decode_messages(payload: bytes) -> list[tuple[int, bytes]]:
    """[(id, message)]; raises MalformedError."""
    count = _U32.unpack_from(payload)[0] if len(payload) >= 4 else 0
    offset = 4 + 12 * count
    if len(payload) < offset:
        raise MalformedError("not a list of messages")
    numbers = struct.unpack_from(f">{count}Q{count}I", payload, 4)
    messages = []
    for message_id, length in zip(numbers[:count], numbers[count:]):
        messages.append((message_id, payload[offset:offset + length]))
        offset += length
    if offset != len(payload):
        raise MalformedError("the messages do not fit their lengths")
    return messages


def encode_queue_list(queues: list[tuple[bytes, int]]) -> bytes:
    """The result of QUEUES."""
    parts = [_U32.pack(len(queues))]
    for name, size in queues:
        parts.append(bytes((len(name),)) + name + _U64.pack(size))
    return b"".join(parts)


def decode_queue_list(payload: bytes) -> list[tuple[bytes, int]]:
    """[(name, messages)]; raises MalformedError."""
    if len(payload) < 4:
        raise MalformedError("not a list of queues")
    offset = 4
    queues = []
    for _ in range(_U32.unpack_from(payload)[0]):
        name, offset = take_name(payload, offset)
        if offset + 8 > len(payload):
            raise MalformedError("a queue is cut short")
        queues.append((name, _U64.unpack_from(payload, offset)[0]))
        offset += 8
    if offset != len(payload):
        raise MalformedError("bytes follow the queues")
    return queues


def encode_size_result(messages: int, size_bytes: int) -> bytes:
    """The result of SIZE."""
    return _SIZE.pack(messages, size_bytes)


def decode_size_result(payload: bytes) -> tuple[int, int]:
    """(messages, bytes); raises MalformedError."""
    if len(payload) != 16:
        raise MalformedError("not a size")
    return _SIZE.unpack(payload)


def encode_execute_result(results: list[tuple[int, bytes]]) -> bytes:
    """The result of EXECUTE."""
    parts = [_U32.pack(len(results))]
    for status, payload in results:
        parts += (_RESULT.pack(1 + len(payload), status), payload)
    return b"".join(parts)


def decode_execute_result(payload: bytes) -> list[tuple[int, bytes]]:
    """[(status, result)], one for each command of the list; raises MalformedError."""
    if len(payload) < 4:
        raise MalformedError("not a list of results")
    results, end = decode_results(payload, 4, _U32.unpack_from(payload)[0])
    if end != len(payload):
        raise MalformedError("bytes follow the results")
    return results


def encode_enqueue_result(first_id: int) -> bytes:
    """The result of ENQUEUE, where it does not have the short form of a reply."""
    return _U64.pack(first_id)


def decode_enqueue_result(payload: bytes) -> int:
    """The id of the first message; raises MalformedError."""
    if len(payload) != 8:
        raise MalformedError("not a message id")
    return _U64.unpack(payload)[0]
