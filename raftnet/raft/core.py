"""Raft: the whole algorithm of one node as a pure state machine.

In go `tick`, `step`, `propose`, `read`; out comes a `Ready` whenever asked; `advance` says what the
disk has done. Nothing here knows a socket, a file, a clock, a thread or a random source: time is
what tick adds up (integers, milliseconds), chance is the `randint` given.

The rules of the roles are in election.py (candidates, votes, followers), leader.py, changes.py (who
belongs), transfer.py (handing over) and install.py (snapshots for those that are behind the log);
here is the state, in the paper's words (figure 2), the term rule, and the order of the disk jobs:
- a message that promises something waits in `messages_after_sync` for the job that makes it true;
- a node counts its own vote and its own copy of an entry only when they are durable.
"""

from collections import deque
from collections.abc import Callable

from raftnet.config import RaftConfig
from raftnet.errors import NotLeaderError
from raftnet.raft import changes, election, install, leader, transfer
from raftnet.raft.entry import EntryKind
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import Membership
from raftnet.raft.progress import Progress
from raftnet.raft.timing import Timing
from raftnet.raft.types import (
    Append, AppendReply, EntryId, HardState, Heartbeat, HeartbeatReply, Message, Outgoing, PreVote,
    PreVoteReply, ReadState, Ready, Role, Snapshot, SnapshotId, SnapshotMeta, SnapshotReply,
    TimeoutNow, Vote, VoteReply)


class Raft:
    """One node's part in the algorithm.

    `randint(low, high)` gives a whole number, both ends included. The log brings the membership.
    """

    def __init__(self, node_id: int, config: RaftConfig, hard_state: HardState, log: RaftLog,
                 randint: Callable[[int, int], int]):
        assert node_id > 0 and hard_state.current_term >= log.last_term
        self.node_id = node_id
        self.config = config
        self.randint = randint
        # Persistent state (figure 2); durable only when the job that carries it is.
        self.current_term = hard_state.current_term
        self.voted_for = hard_state.voted_for       # 0: nobody
        self.log = log
        # Volatile state.
        self.role = Role.FOLLOWER
        self.leader_id = 0                          # 0: unknown
        self.now_ms = 0                             # the sum of all ticks
        self.leader_contact_ms = 0                  # when the leader was last heard
        self.timing = Timing(config)
        # Candidate.
        self.pre_voting = False                     # asking before raising the term
        self.pre_votes: set[int] = set()            # who granted; by sender, never by message
        self.votes: set[int] = set()                # who granted in current_term
        self.campaign_term = 0                      # asked for votes in it, in this life; 0: none
        self.campaign_ms = 0                        # when
        self.election_deadline_ms = 0
        self.gone_attempts = 0                      # > 0: the leader's death was seen
        self.failed_rounds = 0                      # elections without outcome since a leader
        self.barred = False                         # told that it was removed: never campaigns
        self.disk_full = False                      # set by the caller; not fit to campaign
        self.incoming: install.Incoming | None = None   # a snapshot that is being received
        # Leader; made anew in each term.
        self.progress: dict[int, Progress] = {}
        self.term_start_index = 0                   # index of this leader's empty entry
        self.heartbeat_deadline_ms = 0
        self.uncommitted_bytes = 0
        self.steps_needed = False                   # the membership asks for steps of changes.py
        self.step_retry_ms = 0                      # a refused step is tried again then
        self.step_refused = ""                      # why the last step was; "": it was not
        self.transfer_to = 0                        # handing over to that voter; 0: to nobody
        self.transfer_deadline_ms = 0               # when this leader goes on instead
        self.transfer_asked = False                 # TimeoutNow was sent since the last heartbeat
        self.read_round = 0                         # never reset: a late reply acks no later round
        self.reads_new: list[int] = []              # tokens without a round yet
        self.reads_waiting: deque[tuple[int, int, list[int]]] = deque()  # (round, index, tokens)
        # What the next Ready carries.
        self.messages: list[Outgoing] = []
        self.messages_after_sync: list[Outgoing] = []
        self.reads_done: list[ReadState] = []
        self.received: SnapshotId | None = None
        self.doubted: SnapshotId | None = None
        self._queued: deque[Ready] = deque()        # disk jobs in their order, before anything else
        # Disk jobs under way: (number, when, epoch, last index, term, term of an own vote or 0).
        self._jobs: deque[tuple[int, int, int, int, int, int]] = deque()
        self._job = 0
        self._handed_state = hard_state             # last given to the disk
        self.stable_term = hard_state.current_term  # term known durable
        self._own_vote_term = 0                     # own vote not yet in a job
        election.reset_timer(self)
        if self.membership.voters == [node_id]:
            self.election_deadline_ms = 0           # nobody else to wait for

    # --- what others may read

    @property
    def membership(self) -> Membership:
        """The membership in effect: the newest in the log."""
        return self.log.membership

    @property
    def election_timeout_ms(self) -> int:
        """The lower bound of the timeout; see timing.py."""
        return self.timing.election_timeout_ms

    def timeout_of(self, node_id: int) -> int:
        """The election timeout, or what the link to that node needs, where that is more."""
        return self.timing.announcement(node_id)[0]

    @property
    def heartbeat_ms(self) -> int:
        """How often this node, as a leader, speaks at least."""
        return self.timing.heartbeat_ms

    @property
    def rtt_ms(self) -> int:
        """The usual round trip to a quorum."""
        return self.timing.rtt_ms

    @property
    def disk_overdue(self) -> bool:
        """Whether the oldest disk job is late by an absolute time: not fit to lead."""
        return (bool(self._jobs) and not self.disk_full
                and self.now_ms - self._jobs[0][1] >= self.config.disk_overdue_ms)

    @property
    def disk_idle(self) -> bool:
        """Whether no disk job is under way."""
        return not self._jobs

    @property
    def jobs_made(self) -> int:
        """The number of the newest disk job."""
        return self._job

    @property
    def leads_ready(self) -> bool:
        """Whether this node leads and an entry of its own term is committed."""
        return self.role is Role.LEADER and self.log.commit_index >= self.term_start_index

    @property
    def transferring(self) -> bool:
        """Whether this node leads and hands over: propose raises BusyError meanwhile."""
        return self.transfer_to != 0

    def best_successor(self) -> int:
        """The voter to hand over to: heard within two heartbeats, holding the most; 0: none."""
        return transfer.best_successor(self)

    def next_deadline_ms(self) -> int:
        """When tick wants to be called again, in the time that ticks add up to."""
        if self.role is Role.LEADER:
            deadline = min(self.heartbeat_deadline_ms, leader.quorum_deadline_ms(self))
            return min(deadline, self.transfer_deadline_ms) if self.transfer_to else deadline
        return self.election_deadline_ms

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """The newest snapshot that this node holds, or begins to hold with a job under way."""
        return self.log.snapshot

    def installing_to(self) -> list[int]:
        """The followers (node ids) that are heard and are sent a snapshot: where the log is cut
        meanwhile, they may need the next one at once."""
        return install.installing_to(self)

    def wants_snapshot(self, identity: SnapshotId) -> bool:
        """Whether a snapshot that was `received` is needed still."""
        incoming = self.incoming
        return (install.is_wanted(self, incoming) and incoming.identity == identity)

    # --- input

    def elapse(self, elapsed_ms: int) -> None:
        """Time has passed; no deadline is looked at yet. A turn calls this first, then steps what
        its sockets held, then ticks: a late turn must not punish those who spoke in time."""
        assert elapsed_ms >= 0
        self.now_ms += elapsed_ms

    def tick(self, elapsed_ms: int) -> None:
        """Time has passed; deadlines that are reached take effect."""
        self.elapse(elapsed_ms)
        if self.role is Role.LEADER:
            leader.tick(self)
        elif self.now_ms >= self.election_deadline_ms:
            election.timeout(self)

    def step(self, sender: int, message: Message) -> None:
        """A message from another node."""
        assert sender != self.node_id
        kind = type(message)
        if kind is PreVote:
            election.on_pre_vote(self, sender, message)
            return
        if kind is Vote and election.is_withheld(self) and not message.transfer:
            return      # a withheld request never raises the term (Raft 6, thesis 4.2.3)
        if message.term > self.current_term:
            self.become_follower(message.term, 0)
        _STEP[kind](self, sender, message)

    def propose(self, payload: bytes) -> EntryId:
        """Append a BATCH entry. Raises NotLeaderError, BusyError."""
        return leader.propose(self, EntryKind.BATCH, payload)

    def propose_membership(self, membership: Membership) -> EntryId:
        """Append a membership. Raises NotLeaderError, ChangeRefusedError."""
        return changes.propose(self, membership)

    def transfer(self, node_id: int) -> None:
        """Begin to hand leadership to that voter (thesis 3.10); see `transferring`.
        Raises NotLeaderError, ChangeRefusedError."""
        transfer.begin(self, node_id)

    def read(self, token: int) -> None:
        """Ask for a linearizable read (ReadIndex, thesis 6.4); answered in Ready.reads.
        Raises NotLeaderError."""
        if self.role is not Role.LEADER:
            raise NotLeaderError("this node does not lead")
        self.reads_new.append(token)

    def leader_gone(self, node_id: int) -> None:
        """The connection from that node ended and a new one was refused: its process is dead.

        Only then may an election begin before the timeout (design: Elections).
        """
        if node_id == self.leader_id and self.role is Role.FOLLOWER:
            self.leader_id = 0
            self.gone_attempts = 1
            # A small random wait, so that the followers do not all begin in the same moment.
            self.election_deadline_ms = self.now_ms + self.randint(
                0, self.config.retry_after_gone_ms_min)

    def campaign_soon(self) -> None:
        """No leader was ever there, and all voters are: the next tick asks for an election."""
        if self.role is Role.FOLLOWER and not self.leader_id:
            self.election_deadline_ms = self.now_ms

    def peer_connected(self, node_id: int) -> None:
        """A new connection to or from that node: what was on its way on the old one is lost."""
        self.timing.connected(node_id)
        progress = self.progress.get(node_id)
        if progress is not None:
            progress.probe()

    def snapshot_made(self, meta: SnapshotMeta) -> None:
        """This is the node's snapshot now: for followers that are behind the log, which the caller
        may compact up to it. Nothing where it is not newer than what the core knows."""
        assert meta.index <= self.log.applied_index
        if self.log.snapshot is None or meta.index > self.log.snapshot.index:
            self.log.snapshot = meta

    def snapshot_received(self, meta: SnapshotMeta) -> bool:
        """Ready.received is verified, and its state built: one of the next Readys installs it, and
        the caller goes on with that state then. False, and nothing is done, where it would not take
        this node on any more."""
        return install.verified(self, meta)

    def snapshot_refused(self, identity: SnapshotId) -> None:
        """Ready.received is not what it should be: the leader sends it anew."""
        install.refuse(self, identity)

    def snapshot_unreadable(self, node_id: int, identity: SnapshotId) -> None:
        """A Snapshot to that node could not be filled: the newest one instead."""
        if node_id in self.progress:
            install.on_unreadable(self, node_id, self.progress[node_id], identity)

    def observe_rtt(self, node_id: int, rtt_ms: int) -> None:
        """A round trip to a peer, measured by a greeting."""
        if self.membership.member(node_id) is not None:
            if self.timing.greeted(node_id, rtt_ms, self.now_ms):
                self.judge_times()

    def judge_times(self) -> None:
        """Something was measured: heartbeat interval and election timeout may follow. A leader
        counts those that it hears: what a dead node's link was like decides nothing."""
        membership = self.membership
        others = [n for n in membership.voters if n != self.node_id
                  and (self.role is not Role.LEADER or changes.is_alive(self, n))]
        self.timing.judge(self.now_ms, others,
                          membership.quorum - membership.is_voter(self.node_id))

    def sign_of_life(self, node_id: int) -> None:
        """Part of a message came from that node: a leader whose large append crawls through a
        slow link is not dead, and must not think so of us while its heartbeats wait behind it."""
        if (node_id == self.leader_id and self.role is Role.FOLLOWER
                and self.now_ms - self.leader_contact_ms >= self.heartbeat_ms):
            self.leader_contact_ms = self.now_ms
            election.reset_timer(self)
            self.reply(node_id, HeartbeatReply(self.current_term, 0, 0))

    # --- output

    def ready(self, apply: bool = True) -> Ready | None:
        """Everything to be done now, or None. May be called while jobs are under way. Without
        `apply` no committed entries are handed out, so that a turn stays short."""
        if self.incoming is not None and self.incoming.verified is not None:
            install.begin_at_verified(self)
        if self._queued:
            return self._queued.popleft()
        if self.role is Role.LEADER:
            if self.steps_needed:
                changes.maintain(self)      # may end the leadership: a removed leader's last act
            if self.transfer_to:
                transfer.press(self)
        if self.role is Role.LEADER:
            leader.flush(self)
        ready = self._take_job()
        from_file, committed = None, []
        if apply and self.log.applied_index < self.log.commit_index:
            from_file = self.log.hand_to_apply_from_file()
            if from_file is None:
                committed = self.log.hand_to_apply(self.config.apply_bytes_max)
        if not (ready or self.messages or committed or from_file or self.reads_done
                or self.received or self.doubted):
            return None
        if ready is None:
            ready = Ready(0, [], None, [], [], [], [])
        ready.messages, self.messages = self.messages, []
        ready.reads, self.reads_done = self.reads_done, []
        ready.received, self.received = self.received, None
        ready.doubted, self.doubted = self.doubted, None
        ready.committed_from_file, ready.committed = from_file, committed
        return ready

    def queue_job(self, meta: SnapshotMeta | None = None) -> None:
        """Make a disk job of what was decided so far, or of installing that snapshot."""
        ready = self._take_job(meta)
        if ready is not None:
            self._queued.append(ready)

    def _take_job(self, meta: SnapshotMeta | None = None) -> Ready | None:
        """What the disk is to do now, with the promises that wait for it; None: nothing."""
        log = self.log
        hard_state = None
        if (self.current_term != self._handed_state.current_term
                or self.voted_for != self._handed_state.voted_for):
            hard_state = self._handed_state = HardState(self.current_term, self.voted_for)
        rewound = log.rewound
        entries = log.hand_to_disk() if log.handed_index < log.last_index else []
        chunk = install.take_chunk(self, self._job + 1) if self.incoming is not None else None
        # A promise about bytes that are on their way waits behind them, in a job of its own.
        if not (hard_state is not None or entries or chunk or meta
                or (self.messages_after_sync and self._jobs)):
            self.messages += self.messages_after_sync
            self.messages_after_sync = []
            return None
        self._job += 1
        self._jobs.append((self._job, self.now_ms, log.epoch, log.handed_index,
                           self._handed_state.current_term, self._own_vote_term))
        self._own_vote_term = 0
        ready = Ready(self._job, [], hard_state, entries, self.messages_after_sync, [], [], rewound,
                      chunk=chunk, install=meta)
        self.messages_after_sync = []
        return ready

    def advance(self, job: int) -> None:
        """The jobs up to this one are durable."""
        log = self.log
        while self._jobs and self._jobs[0][0] <= job:
            _, _, epoch, last_index, term, own_vote_term = self._jobs.popleft()
            self.stable_term = max(self.stable_term, term)
            # A job of an older epoch may vouch for entries that were replaced since.
            if epoch == log.epoch and last_index > log.stable_index:
                log.stable_index = last_index
            self._own_vote_durable(own_vote_term)
        if self.incoming is not None:
            self.received = install.written(self, job) or self.received
        if self.role is Role.LEADER:
            leader.maybe_commit(self)
        log.trim_memory(self.config.log_memory_bytes_max)

    def hard_state_durable(self, job: int) -> None:
        """Of the jobs up to this one the hard state is durable, the entries may not be (a full
        disk): messages of theirs that promise no more (types.promises_hard_state_only) may leave.
        """
        for number, _, _, _, term, own_vote_term in list(self._jobs):
            if number <= job:
                self.stable_term = max(self.stable_term, term)
                self._own_vote_durable(own_vote_term)

    def _own_vote_durable(self, term: int) -> None:
        if term == self.current_term and self.role is Role.CANDIDATE:
            self.votes.add(self.node_id)
            election.count_votes(self)

    # --- roles: the only places that change term, vote and role

    def raise_term(self, term: int) -> None:
        """A higher term; the vote is free again. The only place that clears it (Raft 5.1)."""
        assert term > self.current_term
        self.current_term = term
        self.voted_for = 0
        self.votes = set()

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follow `leader_id` (0: unknown) in `term`."""
        assert term >= self.current_term
        if self.role is Role.LEADER:
            leader.step_down(self)
        if term > self.current_term:
            self.raise_term(term)
        had_leader = self.leader_id
        self.role = Role.FOLLOWER
        self.pre_voting = False
        self.leader_id = leader_id
        if leader_id:
            self.leader_contact_ms = self.now_ms
            self.gone_attempts = self.failed_rounds = 0
            election.reset_timer(self)
        elif had_leader:
            election.reset_timer(self)

    def become_candidate(self) -> None:
        """Raise the term and vote for oneself; the vote counts when it is durable (Raft 5.2)."""
        assert self.role is not Role.LEADER, "a leader does not campaign"
        self.role = Role.CANDIDATE
        self.pre_voting = False
        self.leader_id = 0
        self.raise_term(self.current_term + 1)
        self.voted_for = self.node_id
        self.campaign_term = self.current_term
        self._own_vote_term = self.current_term

    def become_leader(self) -> None:
        """A quorum voted for this node in this term."""
        assert self.role is Role.CANDIDATE, "only a candidate becomes leader"
        self.role = Role.LEADER
        self.incoming = None        # a leader has all that is committed in its log
        self.pre_voting = False
        self.campaign_term = 0
        self.leader_id = self.node_id
        self.gone_attempts = self.failed_rounds = 0
        leader.begin(self)

    # --- sending

    def send(self, to: int, message: Message) -> None:
        """A message that promises nothing."""
        self.messages.append(Outgoing(to, message))

    def send_after_sync(self, to: int, message: Message) -> None:
        """A message that is true only when all that was decided so far is durable."""
        self.messages_after_sync.append(Outgoing(to, message))

    def reply(self, to: int, message: Message) -> None:
        """An answer without a promise about entries or votes: waits only for its term."""
        if self.stable_term == self.current_term:
            self.send(to, message)
        else:
            self.send_after_sync(to, message)


_STEP = {
    PreVoteReply: election.on_pre_vote_reply,
    Vote: election.on_vote,
    VoteReply: election.on_vote_reply,
    Append: election.on_append,
    Heartbeat: election.on_heartbeat,
    AppendReply: leader.on_append_reply,
    HeartbeatReply: leader.on_heartbeat_reply,
    TimeoutNow: election.on_timeout_now,
    Snapshot: install.on_snapshot,
    SnapshotReply: leader.on_snapshot_reply,
}
