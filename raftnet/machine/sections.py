"""The sections of the machine's state in a snapshot: for each, its items as bytes and back.

Rules: items are in one order that follows from the state alone. What follows from other items
(counts, sizes, who waits at a queue, the heap of deadlines) is not written but built again. Loaders
check what they read against all that was read before it: what cannot be the state of a machine is a
MalformedError. An item fits into a piece; what does not (the messages of a queue, the replies of a
session) goes on in the first item of the next piece, unless it is a single large message or reply.

To add a section: a generator of its items, a class that loads them, and a line in SECTIONS with a
new number and the version of the replicated state that it came with. Below that version it is not
written, so that older programs of a mixed cluster can load what this one wrote.

Elsewhere: how items become pieces and pieces a machine (state.py), what items are put together from
(sectionitems.py), the sections that came with leases and keys (queuesections.py, messagesection.py,
keysections.py).
"""

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple, Protocol

from raftnet.errors import MalformedError
from raftnet.machine import keysections, messagesection, queuesections
from raftnet.machine.machine import Machine
from raftnet.machine.queue import Queue
from raftnet.machine.queuesections import plain_of
from raftnet.machine.sectionitems import ascending, columns, name_item, take, take_column, take_name
from raftnet.machine.sessions import Session
from raftnet.machine.waits import Wait
from raftnet.wire.requests import INTERNAL_SESSION, NO_SESSION


class SectionNumber(IntEnum):
    """Every section, in the order in which they are written. Part of the layout: never renumber."""

    HEAD = 1            # the one item that every state begins with (state.py)
    QUEUES = 2
    WAITS = 3
    SESSIONS = 4
    COUNTERS = 5
    SETTINGS = 6
    LEVELS = 7
    MESSAGES = 8
    WAIT_LEASES = 9
    DEDUP = 10
    KEYS = 11
    END = 255           # how many items there were (state.py)


_WAIT = struct.Struct(">16sQQQI")           # session, sequence, deadline, number, count; name
_SESSION = struct.Struct(">16sQQ")          # id, last, used_ms; column of replies


# --- queues: in order of their names, those that hold plain messages of priority 0


def _queue_items(machine: Machine) -> Iterator[bytes]:
    by_name = machine.executor.queues.by_name
    for name in sorted(by_name):
        plain = plain_of(by_name[name])
        if plain is not None:
            yield from columns(name_item(name), *plain)


class _QueueLoader:

    def __init__(self, machine: Machine):
        self._queues = machine.executor.queues
        self._next_message_id = machine.executor.next_message_id
        self._name = b""            # of the last item
        self._queue: Queue | None = None

    def item(self, piece: bytes, offset: int, first: bool) -> int:
        """Some messages, those of the queue before it where a piece begins; the offset behind."""
        name, offset = take_name(piece, offset)
        ids, messages, offset = take_column(piece, offset)
        if name > self._name:
            self._name = name
            self._queue = self._queues.make(name)
        elif name != self._name or not first:
            raise MalformedError("state: queues are not in order")
        queue = self._queue
        if not (ids and ascending(ids) and ids[-1] < self._next_message_id
                and ids[0] > (queue.ids[-1] if queue.ids else 0)):
            raise MalformedError("state: messages are not in order")
        queue.restore(ids, messages)
        return offset

    def end(self) -> None:
        """Nothing is left over."""


# --- waits: in order of asking


def _wait_items(machine: Machine) -> Iterator[bytes]:
    for wait in machine.executor.waits.pending.values():
        yield _WAIT.pack(wait.session, wait.first_sequence, wait.deadline_ms, wait.number,
                         wait.count) + name_item(wait.queue)


class _WaitLoader:

    def __init__(self, machine: Machine):
        self._queues = machine.executor.queues
        self._waits = machine.executor.waits
        self._number = 0            # of the last wait

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """One wait; the offset behind it."""
        session, first, deadline_ms, number, count = take(_WAIT, piece, offset)
        name, offset = take_name(piece, offset + _WAIT.size)
        if not self._number < number < self._waits.next_number or not count:
            raise MalformedError("state: waits are not in order")
        if (session, first) in self._waits.pending:
            raise MalformedError("state: a request waits twice")
        queue = self._queues.make(name)
        if queue.messages:
            raise MalformedError("state: somebody waits at a queue with messages")
        self._number = number
        wait = Wait(session, first, deadline_ms, number, name, count)
        self._waits.restore(wait)
        queue.add_waiter(wait)
        return offset

    def end(self) -> None:
        """Nothing is left over; whose they are is seen with the sessions."""


# --- sessions: as Sessions.in_order; the reply of a request that waits is empty


def _session_items(machine: Machine) -> Iterator[bytes]:
    for session_id, session in machine.sessions.in_order():
        replies = [reply or b"" for reply in session.replies]
        yield from columns(_SESSION.pack(session_id, session.last, session.used_ms),
                            session.firsts, replies)


class _SessionLoader:

    def __init__(self, machine: Machine):
        self._sessions = machine.sessions
        self._pending = machine.executor.waits.pending
        self._time_ms = machine.time_ms
        self._head: tuple[bytes, int, int] | None = None        # of the last item
        self._session: Session | None = None        # begun, not yet among the others
        self._reply_bytes = 0                       # of its replies
        self._before = (False, 0, b"")              # place of the one before it
        self._waiting = 0                           # requests that wait, of all sessions

    def item(self, piece: bytes, offset: int, first: bool) -> int:
        """Some replies, those of the session before it where a piece begins; the offset behind."""
        head = take(_SESSION, piece, offset)
        firsts, replies, offset = take_column(piece, offset + _SESSION.size)
        if head != self._head:
            self._add()
            self._head = head
            self._session = Session(head[2])
            self._session.last = head[1]
            self._reply_bytes = 0
        elif not (first and firsts):
            raise MalformedError("state: a session comes twice")
        session = self._session
        if firsts and not (ascending(firsts) and firsts[-1] <= session.last and
                           firsts[0] > (session.firsts[-1] if session.firsts else 0)):
            raise MalformedError("state: kept replies are not in order")
        self._reply_bytes += sum(map(len, replies))
        if not all(replies):
            self._mark_waiting(head[0], session, firsts, replies)
        session.firsts += firsts
        session.replies += replies
        return offset

    def _mark_waiting(self, session_id: bytes, session: Session, firsts: tuple[int, ...],
                      replies: list[bytes | None]) -> None:
        for place, reply in enumerate(replies):
            if not reply:
                if (session_id, firsts[place]) not in self._pending:
                    raise MalformedError("state: a request waits at no queue")
                replies[place] = None
                session.waiting += 1

    def end(self) -> None:
        """The last session is whole; and every wait was one of theirs."""
        self._add()
        if self._waiting != len(self._pending):
            raise MalformedError("state: a wait of no session")

    def _add(self) -> None:
        """The session that was begun is whole."""
        if self._session is None:
            return
        (session_id, last, used_ms), session = self._head, self._session
        # Those that wait have no order by time: see Sessions.in_order.
        place = (True, 0, session_id) if session.waiting else (False, used_ms, b"")
        if (session_id in self._sessions.by_id or place < self._before or not last
                or used_ms > self._time_ms or session_id in (NO_SESSION, INTERNAL_SESSION)):
            raise MalformedError("state: sessions are not in order")
        self._before = place
        self._waiting += session.waiting
        self._sessions.restore(session_id, session, self._reply_bytes)


class Loader(Protocol):
    """Loads the items of a section."""

    def item(self, piece: bytes, offset: int, first: bool) -> int:
        """One item, `first` of its piece or not; the offset behind it."""

    def end(self) -> None:
        """All pieces were there."""


class Section(NamedTuple):
    """Items of one kind."""

    number: int         # a SectionNumber
    since: int          # the version of the replicated state that it came with
    items: Callable[[Machine], Iterator[bytes]]
    loader: Callable[[Machine], Loader]


# In the order in which they are written: ascending numbers.
SECTIONS = (
    Section(SectionNumber.QUEUES, 1, _queue_items, _QueueLoader),
    Section(SectionNumber.WAITS, 1, _wait_items, _WaitLoader),
    Section(SectionNumber.SESSIONS, 1, _session_items, _SessionLoader),
    Section(SectionNumber.COUNTERS, 2, keysections.counter_items, keysections.CounterLoader),
    Section(SectionNumber.SETTINGS, 2, queuesections.settings_items, queuesections.SettingsLoader),
    Section(SectionNumber.LEVELS, 2, queuesections.level_items, queuesections.LevelLoader),
    Section(SectionNumber.MESSAGES, 2, messagesection.message_items, messagesection.MessageLoader),
    Section(SectionNumber.WAIT_LEASES, 2, queuesections.wait_lease_items,
            queuesections.WaitLeaseLoader),
    Section(SectionNumber.DEDUP, 2, queuesections.dedup_items, queuesections.DedupLoader),
    Section(SectionNumber.KEYS, 2, keysections.key_items, keysections.KeyLoader),
)


def sections_of(machine: Machine) -> list[Section]:
    """Those of the machine's version of the replicated state."""
    return [section for section in SECTIONS if section.since <= machine.state_version]
