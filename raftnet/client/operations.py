"""Lists of operations for `execute`, and what results mean: between Python values and commands.

An operation is a dict as in JSON: {"enqueue": QUEUE, "messages": [TEXT, ...]},
{"dequeue": QUEUE, "count": N}, {"peek": QUEUE, "count": N}, {"size": QUEUE}; count defaults to 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

from raftnet.config import WireConfig
from raftnet.errors import ErrorCode, MalformedError, RefusedError
from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_status

_LIMITS = WireConfig()
COUNT_MAX = 0xFFFFFFFF

_STATUS_MEANING = {
    Status.MALFORMED: (ErrorCode.BAD_REQUEST, "the node could not read the command"),
    Status.UNKNOWN: (ErrorCode.UNKNOWN_KIND, "the node does not know that command, or not there"),
    Status.LIMIT: (ErrorCode.TOO_LARGE, "over a limit"),
    Status.REPLY_FULL: (ErrorCode.TOO_LARGE, "the result is too large: ask for less at once"),
}


@dataclass(slots=True)
class Message:
    """One message of a queue."""

    id: int
    data: bytes

    @property
    def text(self) -> str:
        """The message as UTF-8; bytes that are none become lone surrogates (surrogateescape)."""
        return self.data.decode("utf-8", "surrogateescape")


class QueueSize(NamedTuple):
    """How much waits in a queue."""

    messages: int
    bytes: int


def queue_name(name: str) -> bytes:
    """A queue's name as bytes, 1 to 255; raises MalformedError."""
    data = to_bytes(name) if isinstance(name, str) else b""
    if not 1 <= len(data) <= _LIMITS.queue_name_bytes_max:
        raise MalformedError(
            f"a queue's name has 1 to {_LIMITS.queue_name_bytes_max} bytes, not {len(data)}")
    return data


def to_bytes(text: str) -> bytes:
    """UTF-8; what surrogateescape made of other bytes becomes those bytes again.

    Raises MalformedError for other lone surrogates, which stand for no bytes.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise MalformedError(f"no text: {error}") from error


def message_data(message: str | bytes) -> bytes:
    """A message as bytes, at most 1 MiB; raises RefusedError (TOO_LARGE) or MalformedError."""
    if isinstance(message, str):
        message = to_bytes(message)
    elif not isinstance(message, (bytes, bytearray, memoryview)):
        raise MalformedError(f"a message is str or bytes, not {type(message).__name__}")
    if len(message) > _LIMITS.message_bytes_max:
        raise RefusedError(ErrorCode.TOO_LARGE, f"a message of {len(message)} bytes: "
                           f"at most {_LIMITS.message_bytes_max} are allowed")
    return bytes(message)


def check_count(count: int) -> int:
    """A number of messages asked for, at least 1; raises MalformedError."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= COUNT_MAX:
        raise MalformedError(f"a count is a whole number from 1 on, not {count!r}")
    return count


def check_request_bytes(command_bytes: int) -> None:
    """Raises RefusedError (TOO_LARGE) for a command that does not fit a request."""
    bytes_max = _LIMITS.request_bytes_max - requests.REQUEST_HEAD_BYTES
    if command_bytes > bytes_max:
        raise RefusedError(ErrorCode.TOO_LARGE, f"{command_bytes} bytes at once: at most "
                           f"{bytes_max} are allowed")


# --- results


def check_status(status: int, payload: bytes) -> None:
    """Raises RefusedError where a command ended in neither OK, EMPTY nor CANCELLED."""
    if status in (Status.OK, Status.EMPTY, Status.CANCELLED):
        return
    code, meaning = _STATUS_MEANING.get(status, (ErrorCode.BAD_REQUEST, "refused"))
    detail = payload.decode("utf-8", "backslashreplace") if payload else meaning
    raise RefusedError(code, f"{describe_status(status)}: {detail}")


def read_ids(payload: bytes, count: int) -> range:
    """The ids of `count` messages from an ENQUEUE's result; raises MalformedError."""
    first = commands.decode_enqueue_result(payload)
    return range(first, first + count)


def read_messages(status: int, payload: bytes) -> list[Message]:
    """The messages of a DEQUEUE's or PEEK's result, [] where there were none."""
    if status != Status.OK:
        return []
    return [Message(*pair) for pair in commands.decode_messages(payload)]


# --- execute


def encode_operations(operations: list[dict]) -> tuple[bytes, list[tuple[int, int]]]:
    """(EXECUTE command, what decode_outcomes needs); raises MalformedError naming the place."""
    if not isinstance(operations, list) or not operations:
        raise MalformedError("execute takes a list with at least one operation")
    pieces, shapes = [], []
    for place, operation in enumerate(operations, 1):
        try:
            piece, shape = _encode_operation(operation)
        except MalformedError as error:
            raise MalformedError(f"operation {place}: {error}") from error
        pieces.append(piece)
        shapes.append(shape)
    command = commands.encode_execute(pieces)
    check_request_bytes(len(command))
    return command, shapes


def _encode_operation(operation: dict) -> tuple[bytes, tuple[int, int]]:
    if not isinstance(operation, dict):
        raise MalformedError(f"an object is needed, not {operation!r}")
    verbs = [key for key in operation if key in _ARGUMENTS]
    if len(verbs) != 1:
        raise MalformedError(f"exactly one of {', '.join(_ARGUMENTS)} is needed")
    verb = verbs[0]
    strange = set(operation) - {verb} - _ARGUMENTS[verb]
    if strange:
        raise MalformedError(f"{verb} takes no {', '.join(map(repr, sorted(strange, key=str)))}")
    queue = queue_name(operation[verb])
    if verb == "enqueue":
        messages = operation.get("messages")
        if not isinstance(messages, list) or not messages:
            raise MalformedError('enqueue needs "messages", a list with at least one string')
        data = [message_data(message) for message in messages]
        return commands.encode_enqueue(queue, data), (Operation.ENQUEUE, len(data))
    if verb == "size":
        return commands.encode_size(queue), (Operation.SIZE, 0)
    count = check_count(operation.get("count", 1))
    if verb == "dequeue":
        return commands.encode_dequeue(queue, count), (Operation.DEQUEUE, count)
    return commands.encode_peek(queue, count), (Operation.PEEK, count)


_ARGUMENTS = {"enqueue": {"messages"}, "dequeue": {"count"}, "peek": {"count"}, "size": set()}


def decode_outcomes(payload: bytes, shapes: list[tuple[int, int]]) -> list:
    """A value for each operation: list of ids, list of Message, or QueueSize.

    Raises RefusedError for an operation that failed, MalformedError.
    """
    results = commands.decode_execute_result(payload)
    if len(results) != len(shapes):
        raise MalformedError(f"{len(results)} results for {len(shapes)} operations")
    outcomes: list = []
    for (status, result), (operation, count) in zip(results, shapes):
        check_status(status, result)
        if operation == Operation.ENQUEUE:
            outcomes.append(list(read_ids(result, count)))
        elif operation == Operation.SIZE:
            outcomes.append(QueueSize(*commands.decode_size_result(result)))
        else:
            outcomes.append(read_messages(status, result))
    return outcomes
