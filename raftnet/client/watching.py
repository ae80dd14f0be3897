"""Watching a key, a prefix or a queue: events as they happen, for as long as the caller wants them.

Rules: a watch has a link of its own, so that the client can be used meanwhile. Where the node leads
no more, the connection ends or is silent, it goes on at whoever leads then, from the index that was
told last; an event that was told before is left out by its version, which rises with every change
of the store. Where the changes since that index are kept no more, the caller is given an event GONE
(what it knew may be old), then all that is there now, as `listed`, by a read as fresh as the watch,
and what follows that read. The time limit counts until the first answer; after that a watch is
patient for ever.

Elsewhere: the bodies (wire/watches.py), where to go and when again (link.py).
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftnet.client.connection import clock
from raftnet.client.link import Link, Read
from raftnet.client.operations import check_status
from raftnet.client.session import Refusal
from raftnet.errors import ErrorCode, MalformedError
from raftnet.wire import frames, kvcommands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind
from raftnet.wire.watches import (Change, EventType, WatchWhat, decode_sizes, decode_watch_event,
                                  encode_watch)

KEY, PREFIX, QUEUE = WatchWhat
PUT, DELETED, EXPIRED, SIZE = (kind.name.lower() for kind in EventType)
GONE = "gone"               # changes were missed: what was told before may hold no more
PAGE_KEYS = 1_000           # of a listing
OUTAGE_S = 5.0              # without a watch for so long: the caller is told
_NAMES = {int(kind): kind.name.lower() for kind in EventType}
_SIZE = int(EventType.SIZE)


class Event(NamedTuple):
    """What happened."""

    type: str               # PUT, DELETED, EXPIRED, SIZE or GONE
    name: bytes             # of the key or queue; GONE: of what is watched
    version: int            # of the change, or that the listed key has; SIZE: messages ready
    index: int              # the log entry with which it came, or up to which it was read
    value: bytes            # PUT: the key's; else see `sizes`
    listed: bool = False    # it is what a listing found, not a change

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Of a SIZE: messages leased, delayed, and the bytes of those that are ready."""
        return decode_sizes(self.value)


class WatchExchange:
    """One watch without I/O, sent again wherever it is needed; an exchange for Link.turn."""

    known = True
    resume = None
    overdue = False

    def __init__(self, what: int, name: bytes, from_index: int, local: bool,
                 request_ids: Iterator[int]):
        self.told = from_index          # everything up to this entry; 0: nothing yet
        self.begun = False              # the node that was asked last has answered
        self.gone = ""                  # why what follows `told` cannot be had
        self.changes: deque[Change] = deque()
        self._what = what
        self._name = name
        self._local = local
        self._request_ids = request_ids
        self._request_id = 0            # of the newest sending
        self._send = True
        self._version = 0               # of the newest change that was told
        self._size: Change | None = None
        self._listed: dict[bytes, int] = {}     # versions that a listing told ahead of the watch
        self._listed_until = 0          # the index of that listing's end

    @property
    def unanswered(self) -> bool:
        """Always: it has no end of its own."""
        return True

    def output(self, now: float) -> bytes:
        """The WATCH, where it must be sent (again)."""
        if not self._send or self.gone:
            return b""
        self._send = False
        # another id each time: what an earlier sending brought is not taken for this one's
        self._request_id = next(self._request_ids) & 0xFFFFFFFF
        return frames.encode_frame(Kind.WATCH, self._request_id, encode_watch(
            self._local, self._what, self.told, self._name))

    def connection_lost(self) -> None:
        """It must be sent again."""
        self._send, self.begun = True, False

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; raises MalformedError for what is no such event."""
        if request_id != self._request_id:
            return None
        if kind == Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            self.connection_lost()
            if code == ErrorCode.WATCH_GONE:
                self.gone = text or "gone"
                return None
            return Refusal(code, text, leader)
        if kind != Kind.WATCH_EVENT:
            raise MalformedError(f"a frame of kind {kind} does not answer that")
        index, changes = decode_watch_event(body)
        if changes is None:
            raise MalformedError("WATCH_EVENT: it ends a watch that is wanted still")
        self.begun = True
        self.told = max(self.told, index)
        self.changes.extend(change for change in changes if self._is_new(change))
        if self._listed and self.told >= self._listed_until:
            self._listed.clear()
        return None

    def _is_new(self, change: Change) -> bool:
        if change.type == _SIZE:
            before, self._size = self._size, change
            return before is None or before[2::2] != change[2::2]
        if change.version <= self._version:
            return False
        self._version = change.version
        return change.version > self._listed.get(change.name, 0)

    def go_on(self, index: int, listed: dict[bytes, int], until: int) -> None:
        """After a listing: from `index` on. It was read page by page up to `until`: these versions
        were told by it and are behind `index`, perhaps."""
        self.gone, self.told = "", index
        self._listed, self._listed_until = listed, until


class Watching:
    """The events of one watch, without end: an iterator and a context manager. Its `index`: all
    up to this entry was given out or is about to be; a new watch may begin there.

    Raises NoAnswerError where nobody answers within `timeout_s` at the beginning, RefusedError for
    what no retry can heal. `say` gets a line when changes were missed, and when the outage of a
    watch lasts.
    """

    def __init__(self, link: Link, what: int, name: bytes, from_index: int, local: bool,
                 timeout_s: float, say: Callable[[str], None]):
        self._link = link
        self._what = what
        self._name = name
        self._local = local
        self._say = say
        self._request_ids = itertools.count(1)
        self._exchange = WatchExchange(what, name, from_index, local, self._request_ids)
        self._found: deque[Event] = deque()
        self._deadline = clock() + timeout_s        # until the first answer
        self._lost_at: float | None = None          # since when nothing is watched; None: told

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the watch, and its connection."""
        self._link.close()

    @property
    def index(self) -> int:
        """Everything up to this entry has been told."""
        return self._exchange.told

    def __iter__(self) -> "Watching":
        return self

    def __next__(self) -> Event:
        exchange, found = self._exchange, self._found
        while not found:
            self._link.turn(exchange, self._deadline)
            found.extend(Event(_NAMES[change.type], *change[1:]) for change in exchange.changes)
            exchange.changes.clear()
            if exchange.begun:
                self._deadline, self._lost_at = math.inf, None
            elif exchange.gone:
                self._deadline = math.inf
                self._list_again()
            elif self._deadline == math.inf:
                self._tell_outage()
        return found.popleft()

    def _tell_outage(self) -> None:
        now = clock()
        if self._lost_at is None:
            self._lost_at = now
        elif now - self._lost_at > OUTAGE_S:
            self._say(f"nobody answers; the watch goes on from index {self.index} when a leader "
                      "is there")
            self._lost_at = math.inf

    # --- after a gap

    def _list_again(self) -> None:
        exchange = self._exchange
        if self._what == QUEUE:
            exchange.go_on(0, {}, 0)        # its size is told at once
            return
        first = until = 0
        items: list[tuple[bytes, int, bytes]] = []
        ahead: dict[bytes, int] = {}
        for until, page in self._pages():
            first = first or until
            items += page
            if until > first:
                ahead |= {name: version for name, version, _ in page}
        self._say(f"changes after index {exchange.told} were missed ({exchange.gone}): listing all "
                  f"as of index {first}")
        self._found.append(Event(GONE, self._name, 0, first, b""))
        self._found.extend(Event(PUT, name, version, first, value, True)
                           for name, version, value in items)
        exchange.go_on(first, ahead, until)

    def _pages(self) -> Iterator[tuple[int, list[tuple[bytes, int, bytes]]]]:
        """(index, [(key, version, value)]) of each read."""
        if self._what == KEY:
            index, status, payload = self._read(kvcommands.encode_kv_get(self._name))
            found = kvcommands.decode_kv_get_result(payload) if status == Status.OK else None
            yield index, [(self._name, found.version, found.value)] if found is not None else []
            return
        after, more = b"", True
        while more:
            index, status, payload = self._read(
                kvcommands.encode_kv_list(self._name, after, PAGE_KEYS))
            more, page = (kvcommands.decode_kv_list_result(payload) if status == Status.OK
                          else (False, []))
            yield index, page
            more = more and bool(page)
            after = page[-1][0] if page else b""

    def _read(self, command: bytes) -> tuple[int, int, bytes]:
        """(index, status, payload) of a reading command, as fresh as the watch is."""
        read = Read(Kind.READ, requests.encode_read(self._local, command), Kind.READ_REPLY,
                    next(self._request_ids) & 0xFFFFFFFF)
        self._link.finish(read, math.inf)
        index, status, payload = requests.decode_read_reply(read.answer)
        check_status(status, payload)
        return index, status, payload


def watch(client, what: int, name: bytes, from_index: int = 0, local: str | None = None,
          say: Callable[[str], None] = lambda text: None) -> Watching:
    """Watch a key, a prefix (0 to 255 bytes) or a queue, from now on, or the changes after an
    index. `local`: that node's own state, leader or not. Of a queue, its size is told."""
    return Watching(client._link.sibling(local), what, name, from_index, local is not None,
                    client.timeout_s, say)
