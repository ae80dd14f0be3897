"""What is in an entry: the batch, and the commands in the requests of a batch (protocol.md).

Rules: a request's body stands in the log as the client sent it, and is decoded where it is applied;
a command has its length before it, so that one malformed command costs no other. Encoders trust
their caller, decoders trust nobody and raise MalformedError. What the commands do is in machine/.

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
"""

import struct
from enum import IntEnum

from raftnet.errors import MalformedError


class Operation(IntEnum):
    """Every command. Part of the protocol: never renumber."""

    ENQUEUE = 1
    DEQUEUE = 2
    EXECUTE = 3
    PEEK = 4
    SIZE = 5
    QUEUES = 6
    CLOSE = 7
    CANCEL = 32
    TIME = 33


class Status(IntEnum):
    """How a command ended. Part of the protocol: never renumber."""

    OK = 0
    EMPTY = 1           # nothing there
    MALFORMED = 2       # the command has not the layout of its operation
    UNKNOWN = 3         # no such operation, or not allowed there
    LIMIT = 4           # over a limit; the payload says which, as text
    REPLY_FULL = 5      # its result would make the reply too large: ask for less at once
    CANCELLED = 6       # a waiting dequeue whose connection ended


_LENGTH = struct.Struct(">I")
_ENQUEUE_ONE = struct.Struct(">IB")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_DEQUEUE = struct.Struct(">II")
_STAMP = struct.Struct(">Q")


def _command(operation: int, *parts: bytes) -> bytes:
    length = 1 + sum(map(len, parts))
    return b"".join((_ENQUEUE_ONE.pack(length, operation), *parts))


def _name(queue: bytes) -> bytes:
    assert 1 <= len(queue) <= 255
    return bytes((len(queue),)) + queue


def encode_enqueue(queue: bytes, messages: list[bytes]) -> bytes:
    """Append the messages to the queue, all or none. Result: u64 id of the first; the others
    follow."""
    lengths = struct.pack(f">I{len(messages)}I", len(messages), *map(len, messages))
    return _command(Operation.ENQUEUE, _name(queue), lengths, *messages)


def encode_dequeue(queue: bytes, count: int = 1, wait_ms: int = 0) -> bytes:
    """Take up to `count` messages from the head. Result: messages, or EMPTY after `wait_ms`."""
    return _command(Operation.DEQUEUE, _name(queue), _DEQUEUE.pack(count, wait_ms))


def encode_execute(commands: list[bytes]) -> bytes:
    """All of the commands, atomically, in one entry. Result: a result each."""
    return _command(Operation.EXECUTE, _U32.pack(len(commands)), *commands)


def encode_peek(queue: bytes, count: int = 1) -> bytes:
    """The first messages, left where they are. Result: messages, or EMPTY."""
    return _command(Operation.PEEK, _name(queue), _U32.pack(count))


def encode_size(queue: bytes) -> bytes:
    """Result: u64 messages, u64 bytes in them."""
    return _command(Operation.SIZE, _name(queue))


def encode_queues(after: bytes = b"", limit: int = 1000) -> bytes:
    """Queues that hold messages, in order of their names. Result: u32 count, name and u64 each."""
    return _command(Operation.QUEUES, bytes((len(after),)) + after, _U32.pack(limit))


def encode_close() -> bytes:
    """End the session; its kept replies are dropped."""
    return _command(Operation.CLOSE)


def encode_cancel(session: bytes, sequence: int) -> bytes:
    """End a wait, the leader's own command."""
    return _command(Operation.CANCEL, session, _U64.pack(sequence))


def encode_time() -> bytes:
    """Nothing but the stamp of its batch, the leader's own command."""
    return _command(Operation.TIME)


# --- batches


def encode_batch(stamp_ms: int, bodies: list[bytes]) -> bytes:
    """The payload of a BATCH entry: replicated time and the requests' bodies, each with its
    length (u32) before it."""
    parts = [_STAMP.pack(stamp_ms)]
    for body in bodies:
        parts += (_LENGTH.pack(len(body)), body)
    return b"".join(parts)


def batch_stamp(payload: bytes) -> int:
    """The replicated time of a batch, in milliseconds; raises MalformedError."""
    if len(payload) < 8:
        raise MalformedError("a batch has no stamp")
    return _STAMP.unpack_from(payload)[0]


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
    unpack = _LENGTH.unpack_from
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


def _take_name(command: bytes, offset: int = 1, empty: bool = False) -> tuple[bytes, int]:
    if len(command) <= offset:
        raise MalformedError("a name is missing")
    end = offset + 1 + command[offset]
    if end > len(command) or (command[offset] == 0 and not empty):
        raise MalformedError("a name is cut short or empty")
    return command[offset + 1:end], end


def _rest(layout: struct.Struct, command: bytes, offset: int) -> tuple:
    if len(command) - offset != layout.size:
        raise MalformedError("the command's length does not fit its operation")
    return layout.unpack_from(command, offset)


def decode_enqueue(command: bytes) -> tuple[bytes, list[bytes]]:
    """(queue, messages)."""
    queue, offset = _take_name(command)
    if offset + 4 > len(command):
        raise MalformedError("ENQUEUE: cut short")
    (count,) = _U32.unpack_from(command, offset)
    offset += 4
    if count < 1 or offset + 4 * count > len(command):
        raise MalformedError("ENQUEUE: the count does not fit")
    lengths = struct.unpack_from(f">{count}I", command, offset)
    offset += 4 * count
    if offset + sum(lengths) != len(command):
        raise MalformedError("ENQUEUE: the lengths do not fit")
    messages = []
    for length in lengths:
        messages.append(command[offset:offset + length])
        offset += length
    return queue, messages


def decode_dequeue(command: bytes) -> tuple[bytes, int, int]:
    """(queue, count, wait in milliseconds)."""
    queue, offset = _take_name(command)
    return (queue, *_rest(_DEQUEUE, command, offset))


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
    queue, offset = _take_name(command)
    return queue, _rest(_U32, command, offset)[0]


def decode_size(command: bytes) -> bytes:
    """The queue."""
    queue, offset = _take_name(command)
    if offset != len(command):
        raise MalformedError("SIZE: too long")
    return queue


def decode_queues(command: bytes) -> tuple[bytes, int]:
    """(name to begin after, limit)."""
    after, offset = _take_name(command, empty=True)
    return after, _rest(_U32, command, offset)[0]


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


def decode_messages(payload: bytes) -> list[tuple[int, bytes]]:
    """[(id, message)]; raises MalformedError."""
    try:
        (count,) = _U32.unpack_from(payload)
        numbers = struct.unpack_from(f">{count}Q{count}I", payload, 4)
    except struct.error as error:
        raise MalformedError(f"not a list of messages: {error}") from error
    offset = 4 + 12 * count
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
        name, offset = _take_name(payload, offset)
        if offset + 8 > len(payload):
            raise MalformedError("a queue is cut short")
        queues.append((name, _U64.unpack_from(payload, offset)[0]))
        offset += 8
    if offset != len(payload):
        raise MalformedError("bytes follow the queues")
    return queues


def encode_size_result(messages: int, size_bytes: int) -> bytes:
    """The result of SIZE."""
    return struct.pack(">QQ", messages, size_bytes)


def decode_size_result(payload: bytes) -> tuple[int, int]:
    """(messages, bytes); raises MalformedError."""
    if len(payload) != 16:
        raise MalformedError("not a size")
    return struct.unpack(">QQ", payload)
