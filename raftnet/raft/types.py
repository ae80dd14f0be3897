"""Values that go in and out of the core: hard state, one class per message, Ready.

Rules: each message has its own class, so that no field has two meanings; the fields bear the
paper's names (Raft, figure 2). How they look as bytes is net/messages.py's affair.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from raftnet.raft.entry import Entry
from raftnet.raft.membership import Membership


class Role(Enum):
    """What a node is at the moment. A learner is a follower that is no voter."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before it is acted upon (Raft 5.1, 5.2)."""

    current_term: int = 0
    voted_for: int = 0      # a node id; 0: nobody in this term


class EntryId(NamedTuple):
    """Where a proposal will stand, if it stands."""

    index: int
    term: int


class SnapshotMeta(NamedTuple):
    """What is known of a snapshot without its content."""

    index: int              # the last entry that it contains ...
    term: int               # ... and its term
    membership_index: int   # where the newest membership up to `index` stands
    membership: Membership  # that membership
    digest: int             # Machine.digest at `index`
    size: int               # bytes of the file
    checksum: int           # CRC-32 of the whole file

    @property
    def identity(self) -> "SnapshotId":
        """What identifies a transfer of it."""
        return SnapshotId(self.index, self.term, self.size, self.checksum)


class SnapshotId(NamedTuple):
    """What identifies one transfer of a snapshot, whoever sends it."""

    index: int
    term: int
    size: int
    checksum: int


@dataclass(slots=True)
class PreVote:
    """Would you vote for me? (thesis 9.6) Changes nothing at the receiver."""

    term: int               # the term of the election to come: the sender's own + 1
    last_log_index: int
    last_log_term: int


@dataclass(slots=True)
class PreVoteReply:
    """Answer to PreVote."""

    term: int               # the responder's own
    for_term: int           # the term asked about
    granted: bool


@dataclass(slots=True)
class Vote:
    """RequestVote (Raft 5.2). Leaves only when the sender's own vote is durable."""

    term: int
    last_log_index: int
    last_log_term: int
    transfer: bool = False  # asked by the leader itself: passes the withholding of votes


@dataclass(slots=True)
class VoteReply:
    """Answer to Vote."""

    term: int
    granted: bool


@dataclass(slots=True)
class Append:
    """AppendEntries with entries, or a probe without (Raft 5.3)."""

    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    entries: list[Entry] = field(default_factory=list)
    from_file: bool = False  # entries older than those in memory: the caller adds them, see Ready


@dataclass(slots=True)
class AppendReply:
    """Answer to Append."""

    term: int
    success: bool
    match_index: int        # success: prev_log_index + number of entries; else the refused prev
    hint_index: int = 0     # refused: the last index that may match, and the term there
    hint_term: int = 0


@dataclass(slots=True)
class Heartbeat:
    """AppendEntries without entries, and a read round (Raft 5.2, 8; thesis 6.4)."""

    term: int
    leader_commit: int      # never above what the receiver is known to hold
    round: int              # number of the newest read round
    sent_ms: int            # the sender's clock, comes back: a round trip is measured
    timeout_ms: int = 0     # the election timeout to be followed; 0: nothing is announced
    rtt_ms: int = 0         # the usual round trip, as the leader measures it


@dataclass(slots=True)
class HeartbeatReply:
    """Answer to Heartbeat."""

    term: int
    round: int
    sent_ms: int


@dataclass(slots=True)
class TimeoutNow:
    """The leader asks the receiver to take over at once (thesis 3.10)."""

    term: int


@dataclass(slots=True)
class Snapshot:
    """InstallSnapshot: a chunk of the file, or a question without data (Raft 7)."""

    term: int
    index: int              # the last entry that the snapshot contains ...
    snapshot_term: int      # ... and its term
    size: int               # bytes of the file
    checksum: int           # CRC-32 of the file
    offset: int             # of the first byte of `data`; of a question: how far was sent
    data: bytes = b""
    from_file: bool = False  # the caller puts the bytes into `data`, see Ready ...
    count: int = 0          # ... so many

    @property
    def identity(self) -> SnapshotId:
        """Which transfer it belongs to."""
        return SnapshotId(self.index, self.snapshot_term, self.size, self.checksum)


@dataclass(slots=True)
class SnapshotReply:
    """Answer to Snapshot, while there is something to send."""

    term: int
    index: int              # as received, like the next two
    snapshot_term: int
    checksum: int
    offset: int             # of the Snapshot that is answered
    next_offset: int        # all bytes before it are written here
    damaged: bool = False   # all were, and are not that snapshot: begin anew


Message = (PreVote | PreVoteReply | Vote | VoteReply | Append | AppendReply | Heartbeat
           | HeartbeatReply | TimeoutNow | Snapshot | SnapshotReply)
_HARD_STATE_ONLY = (PreVoteReply, Vote, VoteReply, HeartbeatReply)


def promises_hard_state_only(message: Message) -> bool:
    """Whether a message of Ready.messages_after_sync may leave once hard state is durable, although
    entries of its job are not: see Raft.hard_state_durable."""
    kind = type(message)
    return kind in _HARD_STATE_ONLY or kind is AppendReply and not message.success


class Outgoing(NamedTuple):
    """A message and the node it goes to."""

    to: int
    message: Message


class ReadState(NamedTuple):
    """A read that may be answered once `index` is applied; `index` 0: it must be refused."""

    token: int
    index: int


@dataclass(slots=True)
class Ready:
    """Everything the core wants done, in the order it must be done.

    An Append with `from_file` has its entries added by the caller: those from prev_log_index + 1
    on that are durable, up to about append_bytes_max; where none can be read it is not sent. So has
    a Snapshot with `from_file` its data: `count` bytes of the file from `offset` on; where that
    snapshot is held no more it is not sent, and Raft.snapshot_unreadable told.

    With an `install` the job is nothing else: what stands in earlier jobs belongs to the old log,
    what stands in later ones to the new. The caller then goes on with the state of that snapshot.

    `doubted` comes once for every time that a follower has received the whole of that snapshot from
    this node and found it damaged: the caller should verify its own file, if it holds that one.
    """

    job: int                                # number of its disk work, 0 where there is none
    messages: list[Outgoing]                # may leave at once
    hard_state: HardState | None            # make durable, before the entries
    entries: list[Entry]                    # make durable
    messages_after_sync: list[Outgoing]     # leave when the job is durable
    committed: list[Entry]                  # apply in order
    reads: list[ReadState]                  # serve once applied_index >= read.index
    rewound: bool = False                   # the first entry annuls some that were handed out
    committed_from_file: tuple[int, int] | None = None  # apply (first, last) from the file instead
    chunk: tuple[int, bytes] | None = None  # write there in the file that is received; 0: a new one
    received: SnapshotId | None = None      # all of it is written: verify, see snapshot_received
    install: SnapshotMeta | None = None     # the received file becomes the snapshot, the log begins
    doubted: SnapshotId | None = None       # a follower refused what this leader sent of it
