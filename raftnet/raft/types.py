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
    checksum: int           # CRC-32 of the whole file: with the above it identifies a transfer


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


Message = (PreVote | PreVoteReply | Vote | VoteReply | Append | AppendReply | Heartbeat
           | HeartbeatReply | TimeoutNow)


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
    on that are durable, up to about append_bytes_max; where none can be read it is not sent.
    """

    job: int                                # number of its disk work, 0 where there is none
    messages: list[Outgoing]                # may leave at once
    hard_state: HardState | None            # make durable, before the entries
    entries: list[Entry]                    # make durable
    messages_after_sync: list[Outgoing]     # leave when the job is durable
    committed: list[Entry]                  # apply in order
    reads: list[ReadState]                  # serve once applied_index >= read.index
    rewound: bool = False                   # the first entry annuls some that were handed out
