"""Commands that are newer than the replicated state: made into ones that nobody knows.

Rules: while the members run programs of several versions, the replicated state has the highest
version that all of them know, and a command of a newer one gets status UNKNOWN on every node alike:
on an old program because it does not know the operation, on a new one because its number is
replaced here, before anything looks at the command, by one that is never given. Lengths stay as
they are, so that whatever is malformed is so on every node. Called only while the state is behind
this program; else it costs a comparison a batch.

Elsewhere: the version and what came with it (wire/commands.py), who raises it (raft/leader.py).
"""

from raftnet.wire import commands
from raftnet.wire.commands import Operation
from raftnet.wire.requests import REQUEST_HEAD_BYTES

_NEVER_GIVEN = 0                # no operation has or will have that number
_EXECUTE = int(Operation.EXECUTE)
_TRANSACT = int(Operation.TRANSACT)
_LIST_HEAD_BYTES = 5            # operation and count, before the commands or conditions of a list


def hide_newer(body: bytes, version: int) -> bytes:
    """The body of a REQUEST without the operations that came after `version`."""
    data = bytearray(body)
    _hide(data, REQUEST_HEAD_BYTES, len(data), version)
    return bytes(data)


def hide_newer_operations(pieces: list[bytes], version: int) -> list[bytes]:
    """The same for commands without their lengths."""
    hidden = []
    for piece in pieces:
        data = bytearray(piece)
        _hide_one(data, 0, len(data), version)
        hidden.append(bytes(data))
    return hidden


def _hide(data: bytearray, offset: int, end: int, version: int) -> None:
    """In the commands from `offset` to `end`; what is cut short there is malformed anyhow."""
    while offset + 4 <= end:
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "big")
        if offset > end:
            return
        _hide_one(data, start, offset, version)


def _hide_one(data: bytearray, start: int, stop: int, version: int) -> None:
    if start == stop:
        return
    if commands.OPERATION_SINCE.get(data[start], 0) > version:
        data[start] = _NEVER_GIVEN
    elif data[start] == _EXECUTE:
        _hide_list(data, start + _LIST_HEAD_BYTES, stop, version)
    elif data[start] == _TRANSACT:
        offset = start + _LIST_HEAD_BYTES
        for _ in range(int.from_bytes(data[start + 1:offset], "big")):
            if offset >= stop:
                return
            offset += 4 + int.from_bytes(data[offset:offset + 4], "big")
        _hide_list(data, offset + 4, stop, version)


def _hide_list(data: bytearray, offset: int, stop: int, version: int) -> None:
    """In the commands of a list. One level: a list in a list is refused whatever is in it."""
    while offset + 4 <= stop:
        inner = offset + 4
        offset = inner + int.from_bytes(data[offset:inner], "big")
        if inner < offset <= stop and commands.OPERATION_SINCE.get(data[inner], 0) > version:
            data[inner] = _NEVER_GIVEN
