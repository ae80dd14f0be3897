"""Sessions: how far each has come, and the replies kept for its retries (exactly once).

Rules: a session admits exactly the frame that begins at last + 1; frames therefore follow each
other without a gap, and a kept frame ends where the next one begins. Replies leave from the front
only, when they are acknowledged. A session expires when it is unused for a replicated time, never
while it waits; limits refuse new sessions and evict none.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from raftnet.config import MachineConfig

# What a kept reply costs beside its bytes: its objects and its places in two lists, roughly.
KEPT_REPLY_OVERHEAD_BYTES = 100


class Session:
    """One client's position. Invariant: firsts rises, len(firsts) == len(replies)."""

    __slots__ = ("last", "used_ms", "waiting", "firsts", "replies")

    def __init__(self, now_ms: int):
        self.last = 0                               # highest sequence that was executed
        self.used_ms = now_ms                       # replicated time of its last request
        self.waiting = 0                            # how many of `replies` are None
        self.firsts: list[int] = []                 # first sequence of each kept frame
        self.replies: list[bytes | None] = []       # its REPLY body; None: still waiting

    def find(self, first: int, count: int | None = None) -> int | None:
        """Position of the kept frame that begins at `first` (and has `count` commands)."""
        at = bisect_left(self.firsts, first)
        if at == len(self.firsts) or self.firsts[at] != first:
            return None
        if count is not None:
            behind = self.firsts[at + 1] if at + 1 < len(self.firsts) else self.last + 1
            if behind - first != count:
                return None
        return at


class Sessions:
    """All sessions by id."""

    __slots__ = ("by_id", "kept_bytes", "due_ms", "_unused", "_config")

    def __init__(self, config: MachineConfig):
        self.by_id: dict[bytes, Session] = {}
        self.kept_bytes = 0         # of all kept replies, overhead included
        self.due_ms = 0             # no session expires before this; see look_again
        # Those that can expire, the longest unused first: all but those that wait.
        self._unused: OrderedDict[bytes, Session] = OrderedDict()
        self._config = config

    def full(self) -> bool:
        """No new session may open."""
        return (len(self.by_id) >= self._config.sessions_max
                or self.kept_bytes >= self._config.kept_reply_bytes_max)

    def open(self, session_id: bytes, now_ms: int) -> Session:
        """A new session."""
        assert session_id not in self.by_id
        session = self.by_id[session_id] = self._unused[session_id] = Session(now_ms)
        return session

    def in_order(self) -> Iterator[tuple[bytes, Session]]:
        """All of them: first those that can expire, the longest unused first, then those that wait,
        by id. So restored one after the other, they are as they were."""
        yield from self._unused.items()
        if len(self._unused) < len(self.by_id):
            yield from sorted(item for item in self.by_id.items() if item[1].waiting)

    def restore(self, session_id: bytes, session: Session, reply_bytes: int) -> None:
        """One out of a snapshot, whole, with so many bytes of kept replies: behind those that are
        there. Invariant: of those that do not wait, none was used before the one before it."""
        assert session_id not in self.by_id
        self.by_id[session_id] = session
        if not session.waiting:
            self._unused[session_id] = session
        self.kept_bytes += KEPT_REPLY_OVERHEAD_BYTES * len(session.replies) + reply_bytes

    def use(self, session_id: bytes, session: Session, now_ms: int) -> None:
        """It was heard of: its time begins anew."""
        session.used_ms = now_ms
        if not session.waiting:
            self._unused.move_to_end(session_id)

    def keep(self, session_id: bytes, session: Session, first: int, reply: bytes | None) -> None:
        """Keep the reply of the frame at `first`; None: it waits, see `complete`."""
        session.firsts.append(first)
        session.replies.append(reply)
        self.kept_bytes += KEPT_REPLY_OVERHEAD_BYTES
        if reply is not None:
            self.kept_bytes += len(reply)
            return
        if not session.waiting:
            del self._unused[session_id]
        session.waiting += 1

    def step(self, session_id: bytes, session: Session, acknowledged: int, reply: bytes,
             now_ms: int) -> None:
        """`use`, `acknowledge` and `keep` of the session's next single command, in one. Invariant:
        it does not wait."""
        last = session.last
        session.last = first = last + 1
        session.used_ms = now_ms
        self._unused.move_to_end(session_id)
        firsts, replies = session.firsts, session.replies
        if acknowledged >= last and len(firsts) == 1:
            # nearly always: the reply takes the place of the one before it
            self.kept_bytes += len(reply) - len(replies[0])
            firsts[0] = first
            replies[0] = reply
            return
        if firsts and acknowledged >= firsts[0]:
            session.last = last         # the kept frames end there
            self.acknowledge(session, acknowledged)
            session.last = first
        firsts.append(first)
        replies.append(reply)
        self.kept_bytes += KEPT_REPLY_OVERHEAD_BYTES + len(reply)

    def complete(self, session_id: bytes, first: int, reply: bytes, now_ms: int) -> None:
        """The wait at `first` has its reply: keep it. Counts as a use."""
        session = self.by_id[session_id]
        at = session.find(first)
        assert at is not None and session.replies[at] is None
        session.replies[at] = reply
        self.kept_bytes += len(reply)
        session.used_ms = now_ms
        session.waiting -= 1
        if not session.waiting:
            self._unused[session_id] = session

    def acknowledge(self, session: Session, acknowledged: int) -> None:
        """Drop the kept replies of all frames that end at or below `acknowledged`.

        One that still waits stays, and so do those behind it: it cannot have been received.
        """
        firsts = session.firsts
        if not firsts:
            return
        if acknowledged >= session.last:
            count = len(firsts)
        else:
            count = max(bisect_right(firsts, acknowledged + 1) - 1, 0)
        if count and session.waiting:
            count = min(count, session.replies.index(None))
        if count:
            self._drop(session, count)

    def close(self, session: Session) -> None:
        """Drop all kept replies; the session itself stays until it expires, so that a late copy of
        one of its requests is known for one."""
        assert not session.waiting
        self._drop(session, len(session.firsts))

    def next_expiry_ms(self) -> int | None:
        """Replicated time at which the longest unused session expires."""
        for session in self._unused.values():
            return session.used_ms + self._config.session_expiry_ms
        return None

    def look_again(self, now_ms: int) -> None:
        """After the expiries of an entry: nothing is due before the one that comes next, and what
        is used from now on comes later still."""
        expiry_ms = self.next_expiry_ms()
        self.due_ms = now_ms + self._config.session_expiry_ms if expiry_ms is None else expiry_ms

    def expire_one(self) -> None:
        """Forget the longest unused session."""
        session_id, session = self._unused.popitem(last=False)
        del self.by_id[session_id]
        self._drop(session, len(session.firsts))

    def _drop(self, session: Session, count: int) -> None:
        self.kept_bytes -= count * KEPT_REPLY_OVERHEAD_BYTES
        self.kept_bytes -= sum(map(len, session.replies[:count]))
        del session.firsts[:count]
        del session.replies[:count]
