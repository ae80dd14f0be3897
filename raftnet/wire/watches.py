"""Bodies of the frames about watches, between clients and nodes (protocol.md, Watching).

Rules: struct only; every decoder raises MalformedError on anything that is not exactly the layout.
Who watches what, and what is told when, is in raftnet/watches.py and client/watching.py.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.wire.fields import encode_text, take, take_counted, take_name, take_rest, take_text
from raftnet.wire.requests import check_end, unpack_head

WATCH_LOCAL = 1                             # a flag: any node, of what it has applied
ENDED = 0xFFFFFFFF                          # in the place of a count: the watch is over
EVENT_OVERHEAD_BYTES = 22                   # of one change, beside its name and its value

_WATCH = struct.Struct(">BBQ")              # flags, what, from index
_EVENT = struct.Struct(">QI")               # index, count
_CHANGE = struct.Struct(">QQI")             # version, index, length
_SIZES = struct.Struct(">QQQ")              # leased, delayed, bytes
_UNWATCH = struct.Struct(">I")              # request id of the watch


class WatchWhat(IntEnum):
    """What is watched. Part of the protocol: never renumber."""

    KEY = 1
    PREFIX = 2
    QUEUE = 3


class EventType(IntEnum):
    """What happened. Part of the protocol: never renumber."""

    PUT = 1
    DELETED = 2
    EXPIRED = 3
    SIZE = 4


class Watch(NamedTuple):
    """What a client asks for."""

    local: bool
    what: int           # a WatchWhat
    from_index: int     # changes after this entry; 0: from now on
    name: bytes         # of a key or a queue, 1 to 255 bytes; a prefix: 0 to 255


class Change(NamedTuple):
    """One change."""

    type: int           # an EventType
    name: bytes         # of the key or the queue
    version: int        # of the change; SIZE: messages that are ready
    index: int          # the entry with which it came
    value: bytes        # SIZE: as encode_sizes; empty where the key is gone


class WatchEvent(NamedTuple):
    """What a node tells. `changes` None: the watch is over, as was asked for."""

    index: int          # everything up to this entry has been told
    changes: list[Change] | None


def encode_watch(local: bool, what: int, from_index: int, name: bytes) -> bytes:
    """Body of WATCH."""
    return _WATCH.pack(WATCH_LOCAL if local else 0, what, from_index) + encode_text(name)


def decode_watch(body: bytes) -> Watch:
    """Raises MalformedError."""
    flags, what, from_index = unpack_head(_WATCH, body, "WATCH")
    name, end = take_text(body, _WATCH.size)
    check_end(end, body, "WATCH")
    if flags & ~WATCH_LOCAL:
        raise MalformedError(f"WATCH: flags {flags} are unknown")
    if not WatchWhat.KEY <= what <= WatchWhat.QUEUE:
        raise MalformedError(f"WATCH: nothing has the number {what}")
    if not name and what != WatchWhat.PREFIX:
        raise MalformedError("WATCH: the name of a key or a queue is not empty")
    return Watch(bool(flags), what, from_index, name)


def encode_watch_event(index: int, changes: Iterable[tuple]) -> bytes:
    """Body of WATCH_EVENT. A change is a Change, or any tuple that begins like one."""
    parts, count = [b""], 0
    for change in changes:
        name, value = change[1], change[4]
        parts += (bytes((change[0], len(name))), name,
                  _CHANGE.pack(change[2], change[3], len(value)), value)
        count += 1
    parts[0] = _EVENT.pack(index, count)
    return b"".join(parts)


def encode_watch_ended(index: int) -> bytes:
    """Body of the last WATCH_EVENT, after an UNWATCH."""
    return _EVENT.pack(index, ENDED)


def decode_watch_event(body: bytes) -> WatchEvent:
    """Raises MalformedError."""
    index, count = unpack_head(_EVENT, body, "WATCH_EVENT")
    offset = _EVENT.size
    if count == ENDED:
        check_end(offset, body, "WATCH_EVENT")
        return WatchEvent(index, None)
    changes = []
    for _ in range(count):
        if offset >= len(body):
            raise MalformedError("WATCH_EVENT: a change is cut short")
        kind = body[offset]
        if not EventType.PUT <= kind <= EventType.SIZE:
            raise MalformedError(f"WATCH_EVENT: nothing that happens has the number {kind}")
        name, offset = take_name(body, offset + 1)
        (version, changed, _), offset = take(_CHANGE, body, offset)
        value, offset = take_counted(body, offset - 4)
        changes.append(Change(kind, name, version, changed, value))
    check_end(offset, body, "WATCH_EVENT")
    return WatchEvent(index, changes)


def encode_sizes(leased: int, delayed: int, size_bytes: int) -> bytes:
    """The value of a SIZE: two numbers of messages, and the bytes of those that are ready."""
    return _SIZES.pack(leased, delayed, size_bytes)


def decode_sizes(value: bytes) -> tuple[int, int, int]:
    """(leased, delayed, bytes); raises MalformedError."""
    return take_rest(_SIZES, value, 0)


def encode_unwatch(request_id: int) -> bytes:
    """Body of UNWATCH: the request id of the WATCH."""
    return _UNWATCH.pack(request_id)


def decode_unwatch(body: bytes) -> int:
    """The request id of the watch; raises MalformedError."""
    (request_id,) = unpack_head(_UNWATCH, body, "UNWATCH")
    check_end(_UNWATCH.size, body, "UNWATCH")
    return request_id
