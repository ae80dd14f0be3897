"""Sessions: how far each has come, and the replies kept for its retries (exactly once).

Rules: a session admits exactly the frame that begins at last + 1; frames therefore follow each
other without a gap, and a kept frame ends where the next one begins. Replies leave from the front
only, when they are acknowledged. A session expires when it is unused for a replicated time, never
while it waits; limits refuse new sessions and evict none.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict

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

    __slots__ = ("by_id", "kept_bytes", "_unused", "_config")

    def __init__(self, config: MachineConfig):
        self.by_id: dict[bytes, Session] = {}
        self.kept_bytes = 0         # of all kept replies, overhead included
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
