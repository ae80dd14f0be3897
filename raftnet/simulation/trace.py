"""Trace: what happened in a simulation, as a hash over everything and the last events as text.

Rules: an event is noted with its raw parts and made text only when somebody reads it; the hash
covers time, place, kind and bytes of each, so equal hashes mean equal courses, on every machine and
under any hash seed.
"""

from collections import deque
from collections.abc import Callable
from zlib import crc32

from raftnet.errors import ErrorCode, MalformedError
from raftnet.net.messages import decode_message
from raftnet.raft.describe import describe_message
from raftnet.wire.frames import PEER_KINDS_FROM, Kind
from raftnet.wire.requests import decode_error

LAST_EVENTS = 400


class Trace:
    """The course of one simulation. `echo`, where given, gets each line as it happens."""

    def __init__(self, echo: Callable[[str], None] | None = None):
        self._last: deque[tuple] = deque(maxlen=LAST_EVENTS)
        self._echo = echo
        self.hash = 0           # CRC-32 over everything noted
        self.count = 0

    def note(self, now_ms: int, place: str, what: str, kind: int = 0, body: bytes = b"") -> None:
        """`what` happened at `place`; with a frame: its kind and body."""
        self.count += 1
        self.hash = crc32(body, crc32(f"{now_ms} {place} {what} {kind}".encode(), self.hash))
        event = (now_ms, place, what, kind, body)
        self._last.append(event)
        if self._echo is not None:
            self._echo(describe_event(*event))

    def last(self, count: int) -> list[str]:
        """The last events as text."""
        return [describe_event(*event) for event in list(self._last)[-count:]]


def describe_event(now_ms: int, place: str, what: str, kind: int, body: bytes) -> str:
    """One line."""
    head = f"{now_ms / 1000:9.3f} s  {place:<15} {what}"
    if not kind:
        return head
    if kind >= PEER_KINDS_FROM:
        try:
            return f"{head} {describe_message(0, 0, decode_message(kind, body)).split(' ', 1)[1]}"
        except MalformedError as error:
            return f"{head} {kind}: {error}"
    if kind == Kind.ERROR:
        code, leader, text = decode_error(body)
        return f"{head} ERROR {ErrorCode(code).name}{leader and ' leader ' + leader}: {text}"
    return f"{head} {Kind(kind).name} {len(body)} bytes"
