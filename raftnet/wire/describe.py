"""The one-line text form of commands, results and batches, for `mqclient log` and the decoder.

Rules: always one line, printable, never an exception: what cannot be read is shown as what it is.
Long messages and long lists are cut with a word on how much was left out. Entries of all kinds are
put together from these lines in raftnet/client/entries.py, as an entry is the core's business.
"""

from raftnet.errors import MalformedError
from raftnet.wire import commands, describekeys, describequeues, requests, transactions
from raftnet.wire.commands import Operation, Status
from raftnet.wire.printable import (MESSAGES_SHOWN, describe_bytes, describe_hex, describe_list,
                                    describe_name)

_LISTS = (int(Operation.EXECUTE), int(Operation.TRANSACT))
_TEXTS = (Status.LIMIT, Status.FULL, Status.IN_USE)     # their payload is text


def describe_command(command: bytes) -> str:
    """A command without its length, as commands.split_commands gives it."""
    if not command:
        return "malformed command (empty)"
    try:
        operation = Operation(command[0])
    except ValueError:
        return f"unknown command {command[0]} ({len(command)} bytes)"
    name = operation.name.lower()
    try:
        return f"{name} {_ARGUMENTS[operation](command)}".rstrip()
    except MalformedError as error:
        return f"malformed {name}: {error}"


def _enqueue(command: bytes) -> str:
    queue, messages = commands.decode_enqueue(command)
    shown = [describe_bytes(message) for message in messages[:MESSAGES_SHOWN]]
    return f"{describe_name(queue)} {describe_list(shown, len(messages))}"


def _dequeue(command: bytes) -> str:
    queue, count, wait_ms = commands.decode_dequeue(command)
    return f"{describe_name(queue)} {count}" + (f" wait {wait_ms} ms" if wait_ms else "")


def _execute(command: bytes) -> str:
    return _command_list(commands.decode_execute(command))


def _command_list(inner: list[bytes]) -> str:
    shown = []
    for piece in inner[:MESSAGES_SHOWN]:
        # a list inside a list is refused; shown without going deeper than the first
        nested = piece and piece[0] in _LISTS
        shown.append(f"{Operation(piece[0]).name.lower()} ..." if nested
                     else describe_command(piece))
    left_out = len(inner) - len(shown)
    return "[" + "; ".join(shown) + (f"; ... ({left_out} more)" if left_out else "") + "]"


def _transact(command: bytes) -> str:
    conditions, inner = transactions.decode_transact(command)
    shown = [describekeys.describe_transact_condition(condition).rstrip()
             for condition in conditions[:MESSAGES_SHOWN]]
    left_out = len(conditions) - len(shown)
    rest = f"; ... ({left_out} more)" if left_out else ""
    return (f"when [{'; '.join(shown)}{rest}] " if conditions else "") + _command_list(inner)


def _peek(command: bytes) -> str:
    queue, count = commands.decode_peek(command)
    return f"{describe_name(queue)} {count}"


def _queues(command: bytes) -> str:
    after, limit = commands.decode_queues(command)
    return (f"after {describe_name(after)} " if after else "") + f"limit {limit}"


def _cancel(command: bytes) -> str:
    session, sequence = commands.decode_cancel(command)
    return f"{session.hex()}:{sequence}"


def _nothing(command: bytes) -> str:
    commands.decode_nothing(command)
    return ""


_ARGUMENTS = {
    Operation.ENQUEUE: _enqueue,
    Operation.DEQUEUE: _dequeue,
    Operation.EXECUTE: _execute,
    Operation.PEEK: _peek,
    Operation.SIZE: lambda command: describe_name(commands.decode_size(command)),
    Operation.QUEUES: _queues,
    Operation.CLOSE: _nothing,
    Operation.CANCEL: _cancel,
    Operation.TIME: _nothing,
    Operation.TRANSACT: _transact,
    **describequeues.ARGUMENTS,
    **describekeys.ARGUMENTS,
}


def describe_status(status: int) -> str:
    """The status's name, also where it is newer than this program."""
    try:
        return Status(status).name
    except ValueError:
        return f"STATUS_{status}"


def describe_result(status: int, payload: bytes, operation: int | None = None) -> str:
    """A result; `operation` tells how its payload is laid out, without it that is shown in hex."""
    name = describe_status(status)
    if not payload:
        return name
    if status in _TEXTS:
        return f"{name} {describe_bytes(payload)}"
    reader = {Status.OK: _RESULTS, Status.CONFLICT: _CONFLICTS, Status.ABORTED: _ABORTED,
              Status.STALE: _STALE}.get(status, {}).get(operation)
    try:
        return f"{name} {reader(payload) if reader else describe_hex(payload)}".rstrip()
    except MalformedError as error:
        return f"{name} malformed: {error}"


def _messages_result(payload: bytes) -> str:
    messages = commands.decode_messages(payload)
    shown = [f"{message_id}:{describe_bytes(data)}"
             for message_id, data in messages[:MESSAGES_SHOWN]]
    return describe_list(shown, len(messages))


def _size_result(payload: bytes) -> str:
    messages, size_bytes = commands.decode_size_result(payload)
    return f"{messages} messages {size_bytes} bytes"


def _queues_result(payload: bytes) -> str:
    queues = commands.decode_queue_list(payload)
    shown = [f"{describe_name(name)}:{size}" for name, size in queues[:MESSAGES_SHOWN]]
    return describe_list(shown, len(queues))


def _enqueue_result(payload: bytes) -> str:
    return f"id {commands.decode_enqueue_result(payload)}"


def _execute_result(payload: bytes) -> str:
    results = commands.decode_execute_result(payload)
    shown = [describe_result(*result) for result in results[:MESSAGES_SHOWN]]
    return f"[{'; '.join(shown)}{'; ...' if len(results) > len(shown) else ''}]"


def _transact_conflict(payload: bytes) -> str:
    return f"condition {transactions.decode_conflict_result(payload)}"


def _aborted(payload: bytes) -> str:
    position, status, inner = transactions.decode_aborted_result(payload)
    operation = Operation.KV_PUT if status == Status.CONFLICT else Operation.ACK
    return f"command {position}: {describe_result(status, inner, operation)}"


_RESULTS = {
    Operation.ENQUEUE: _enqueue_result,
    Operation.DEQUEUE: _messages_result,
    Operation.EXECUTE: _execute_result,
    Operation.PEEK: _messages_result,
    Operation.SIZE: _size_result,
    Operation.QUEUES: _queues_result,
    Operation.TRANSACT: _execute_result,
    **describequeues.RESULTS,
    **describekeys.RESULTS,
}
_CONFLICTS = {Operation.KV_PUT: describekeys.describe_conflict,
              Operation.KV_DELETE: describekeys.describe_conflict,
              Operation.TRANSACT: _transact_conflict}
_ABORTED = {Operation.EXECUTE: _aborted, Operation.TRANSACT: _aborted}
_STALE = {operation: describequeues.describe_outcomes
          for operation in (Operation.ACK, Operation.NACK, Operation.EXTEND)}


def describe_request(body: bytes) -> list[str]:
    """A REQUEST's body: a line for each command, `session:sequence command`."""
    try:
        session, first, _, count = requests.decode_request_head(body)
        pieces = commands.split_commands(body, requests.REQUEST_HEAD_BYTES)
    except MalformedError as error:
        return [f"malformed request: {error}"]
    lines = [f"{session.hex()}:{first + place} {describe_command(piece)}"
             for place, piece in enumerate(pieces)]
    if len(pieces) != count:
        lines.append(f"malformed request: {count} commands announced, {len(pieces)} there")
    return lines


def describe_batch(payload: bytes) -> list[str]:
    """A BATCH entry's payload: a line for each command, in the order in which they are applied."""
    try:
        bodies = commands.decode_batch(payload)
    except MalformedError as error:
        return [f"malformed batch: {error}"]
    lines = []
    for body in bodies:
        try:
            pieces = commands.split_commands(body, requests.REQUEST_HEAD_BYTES)
        except MalformedError as error:
            lines.append(f"malformed request: {error}")
            continue
        lines += [describe_command(piece) for piece in pieces]
    return lines
