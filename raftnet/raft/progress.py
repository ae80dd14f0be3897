"""Progress: what a leader knows of one follower, and how fast it may send.

Three states. PROBE: where the logs part is unknown, or messages were lost: one append at a time.
REPLICATE: appends are pipelined, next_index runs ahead of match_index, bounded in count and bytes.
SNAPSHOT: the next entry was cut off the leader's log: chunks of its snapshot are pipelined, bounded
in bytes; what is known to be written there runs behind what was sent. Its rules are in install.py.
Invariants: match_index < next_index, snapshot_offset <= snapshot_sent <= snapshot.size.
"""

from collections import deque
from dataclasses import dataclass, field

from raftnet.raft.types import SnapshotMeta


@dataclass(slots=True)
class Progress:
    """One follower or learner, in the leader's eyes; made anew in each term."""

    next_index: int                 # the next entry to send
    match_index: int = 0            # known to be durable there, and equal to the leader's
    probing: bool = True
    probe_sent: bool = False        # the one append of PROBE is on its way
    heard_ms: int = 0               # when the last message came from it, or the term began
    was_heard: bool = False         # a message came from it in this term
    acknowledged_ms: int = 0        # when it last grew, or sending began, or crawls
    round: int = 0                  # newest read round that it answered
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)   # (last index, bytes)
    in_flight_bytes: int = 0
    snapshot: SnapshotMeta | None = None    # being sent: SNAPSHOT
    snapshot_offset: int = 0        # the bytes before it are written there
    snapshot_sent: int = 0          # the bytes before it were sent
    snapshot_asking: bool = False   # how far it is must be asked; no data is sent meanwhile
    snapshot_asked: bool = False    # the question is on its way
    snapshot_went_back: bool = False    # a loss was answered by sending again: not twice
    snapshot_wait_ms: int = 0       # how long was waited when it failed last; 0: it did not
    snapshot_from_ms: int = 0       # nothing of it is sent before

    @property
    def waits(self) -> bool:
        """Whether an answer is due: to appends, to chunks, or that a snapshot is installed."""
        return bool(self.in_flight) or self.probe_sent or self.snapshot is not None

    def heard_within(self, duration_ms: int, now_ms: int) -> bool:
        """Whether a message came from it in this term, less than so long ago."""
        return self.was_heard and now_ms - self.heard_ms < duration_ms

    def probe(self) -> None:
        """Forget what is on its way; begin behind what is known.

        A search that is under way goes on where it is: match_index says nothing yet, and beginning
        behind it would send the whole log again.
        """
        if not self.probing:
            self.probing = True
            self.next_index = self.match_index + 1
        self.probe_sent = False
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.snapshot_asking = True
        self.snapshot_asked = False
        self.snapshot_went_back = False

    def begin_snapshot(self, meta: SnapshotMeta) -> None:
        """That snapshot is to be sent. It may be there in part, by an earlier leader."""
        self.probe()
        if self.snapshot is None or self.snapshot.identity != meta.identity:
            self.snapshot_wait_ms = self.snapshot_from_ms = 0
        self.snapshot = meta
        self.snapshot_offset = self.snapshot_sent = 0

    def wait_for_snapshot(self, now_ms: int, wait_ms_min: int, wait_ms_max: int) -> None:
        """The snapshot failed: it is sent again after a while, twice as long each time."""
        self.snapshot_wait_ms = min(max(2 * self.snapshot_wait_ms, wait_ms_min), wait_ms_max)
        self.snapshot_from_ms = now_ms + self.snapshot_wait_ms

    def chunk_answered(self, offset: int, next_offset: int, now_ms: int) -> None:
        """An answer to the chunk, or question, at `offset`. Chunks keep their order on their way,
        so one that was answered with less than its own offset came behind a loss."""
        self.acknowledged_ms = now_ms
        self.snapshot_asking = False
        if next_offset < offset:
            if not self.snapshot_went_back:
                self.snapshot_offset = self.snapshot_sent = next_offset
                self.snapshot_went_back = True
        elif next_offset > self.snapshot_offset:
            self.snapshot_offset = next_offset
            self.snapshot_sent = max(self.snapshot_sent, next_offset)
            self.snapshot_went_back = False

    def sent(self, last_index: int, size: int, now_ms: int) -> None:
        """An append that ends at `last_index` was sent in REPLICATE."""
        if not self.in_flight:
            self.acknowledged_ms = now_ms
        self.in_flight.append((last_index, size))
        self.in_flight_bytes += size
        self.next_index = last_index + 1

    def acknowledged(self, match_index: int, now_ms: int) -> bool:
        """A success reply; whether it told anything new."""
        in_flight = self.in_flight
        while in_flight and in_flight[0][0] <= match_index:
            self.in_flight_bytes -= in_flight.popleft()[1]
        self.acknowledged_ms = now_ms
        grew = match_index > self.match_index
        if grew:
            self.match_index = match_index
        self.next_index = max(self.next_index, self.match_index + 1)
        if self.probing:
            # What PROBE sent was one append: its reply says where the logs agree.
            self.probing = False
            self.probe_sent = False
            self.next_index = self.match_index + 1
        return grew

    def refused(self, prev_log_index: int, next_index: int) -> bool:
        """A refusal of the append behind `prev_log_index`; False where it is an old one."""
        if self.probing:
            if prev_log_index != self.next_index - 1:
                return False
        elif prev_log_index <= self.match_index:
            return False
        self.probe()
        self.next_index = max(self.match_index + 1, min(next_index, prev_log_index))
        return True
