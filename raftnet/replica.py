"""Replica: the whole node without I/O.

The server and the simulator drive this class in the same way: frames and greetings in, the clock as
`advance_clock`, and once a turn `turn()`, which gives everything to be done: messages, a disk job,
replies. Only four seams are ever replaced: time (advance_clock), chance (randint), network (what
Turn holds), disk (the Store's Disk, and who calls Store.perform).

Phases: FOUNDING (founding.py) and JOINING (joining.py) until the directory has an identity, then
RUNNING; whom it welcomes and dials is in greetings.py.
Replica writes the replicated time into each batch; the rules of that are in replicatedtime.py.
What only a leader does is in leadership.py, what concerns snapshots in snapshots.py, what is sent,
and what of it waits for the disk, in outbox.py, what is committed and reaches the machine, in
applying.py.
What answers a client is in gateway.py (requests), reads.py (reads, log, status), watches.py (what
it is told from then on) and admission.py (who belongs to the cluster).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from raftnet import distrust
from raftnet.actions import ActionLog
from raftnet.admission import Admission
from raftnet.applying import Applying
from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.founding import NO_CLUSTER, Founding
from raftnet.gateway import Answer, Gateway
from raftnet.greetings import Greetings
from raftnet.joining import JOIN_RETRY_MS, Joining
from raftnet.leadership import Leadership
from raftnet.machine.machine import Machine
from raftnet.narration import (
    narrate_membership, narrate_received, narrate_role, narrate_times)
from raftnet.net.messages import decode_message
from raftnet.outbox import Outbox
from raftnet.raft.core import Raft
from raftnet.raft.entry import EntryKind
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import Membership, QuorumRule
from raftnet.raft.types import Message, Ready, Role
from raftnet.reads import Reads
from raftnet.rebuild import SnapshotOrder, load_machine
from raftnet.replicatedtime import ReplicatedTime
from raftnet.snapshots import Snapshots
from raftnet.storage.store import Job, Store
from raftnet.watches import Watches
from raftnet.wire.commands import STATE_VERSION
from raftnet.wire.frames import PEER_KINDS_FROM, Kind
from raftnet.wire.requests import Hello

_PROMISES = (Kind.APPEND_REPLY, Kind.VOTE_REPLY)    # these wait until their term is on the disk


class Phase(Enum):
    """How far a node has come."""

    FOUNDING = "founding"
    JOINING = "joining"
    RUNNING = "running"


@dataclass(slots=True)
class Start:
    """What the command line says; counts only on an empty directory.

    `join` names a contact; else `founders` are the addresses of all founders, the own included.
    """

    address: str
    founders: list[str] = field(default_factory=list)
    join: str = ""
    quorum_rule: int = QuorumRule.MAJORITY
    join_flags: int = 0     # of wire.joining


@dataclass(slots=True)
class Turn:
    """Everything a turn wants done, in this order."""

    # (address, node id, message): for the process of that node there, and for no other
    messages: list[tuple[str, int, Message]] = field(default_factory=list)
    frames: list[tuple[str, int, bytes]] = field(default_factory=list)  # (address, kind, body)
    jobs: list[Job] = field(default_factory=list)
    events: list[Answer] = field(default_factory=list)  # of watches: no frame asked for them
    answers: list[Answer] = field(default_factory=list)
    peers_changed: bool = False     # dial_targets() differs from before
    order: SnapshotOrder | None = None  # to be made by another process: Replica.snapshots.made


class Replica:
    """One node. `randint(low, high)` gives a whole number, both ends included."""

    def __init__(self, config: Config, store: Store, start: Start,
                 randint: Callable[[int, int], int], actions: ActionLog):
        self.config = config
        self.store = store
        self.start = start
        self.randint = randint
        self.actions = actions
        self.address = start.address
        self.node_id = store.node_id
        self.now_ms = 0
        self.disk_full = False
        self.raft: Raft | None = None
        self.greetings = Greetings(self)
        self.founding = Founding(self)
        self.joining = Joining(self)
        self.outbox = Outbox(self)
        self.frames: list[tuple[str, int, bytes]] = []  # (address, kind, body) to be sent
        self.peers_changed = True       # dial_targets may differ from before
        self.state_version_max = STATE_VERSION  # the highest replicated version known here
        self.stop_reason = ""           # why this process must end at once, with this line
        self.machine = (Machine(config.machine, config.wire) if store.snapshot is None
                        else load_machine(store.snapshot, config))
        self.gateway = Gateway(config.gateway, config.wire, self.machine)
        self.watches = Watches(config.gateway, self.machine, self.gateway)
        self.gateway.on_client_gone = self.watches.client_gone
        self.gateway.on_close = self.watches.leadership_lost
        self.reads = Reads(self)
        self.admission = Admission(self)
        self.applying = Applying(self)
        self.leadership = Leadership(self)
        self.snapshots = Snapshots(self)
        self._seen: tuple = ()          # role, term and leader as last told
        self._times = (config.raft.heartbeat_ms, config.raft.election_timeout_ms)   # as last told
        self.time: ReplicatedTime | None = None
        if store.cluster_id is not None:
            meta = store.snapshot.meta if store.snapshot is not None else None
            replayed = store.take_replayed()
            self.run(RaftLog(replayed.entries, replayed.base_index, replayed.base_term,
                             term_runs=replayed.term_runs, memberships=replayed.memberships,
                             snapshot=meta))
        elif not self.joining.begin():
            self.founding.begin()

    def run(self, log: RaftLog) -> None:
        """The directory has an identity, and this log: begin as a follower."""
        self.raft = Raft(self.node_id, self.config.raft, self.store.hard_state, log, self.randint)
        if log.snapshot is not None:
            self.applying.founded = log.snapshot.membership.founded
        self.snapshots.begin()
        self.time = ReplicatedTime(log, self.machine.time_ms)
        self.time.follow(self.now_ms, self.machine.time_ms)
        self.peers_changed = True
        self.check_state_version(self.raft.membership)
        self._tell_state()

    # --- who this node is

    @property
    def phase(self) -> Phase:
        """How far this node has come."""
        if self.raft is not None:
            return Phase.RUNNING
        return Phase.JOINING if self.joining.asking is not None else Phase.FOUNDING

    @property
    def cluster_id(self) -> bytes:
        """16 bytes; zeros where there is none yet."""
        return self.store.cluster_id or NO_CLUSTER

    @property
    def leads(self) -> bool:
        """Whether this node leads now."""
        return self.raft is not None and self.raft.role is Role.LEADER

    @property
    def leader_address(self) -> str:
        """The leader's address as far as this node knows, or ""."""
        if self.raft is None or not self.raft.leader_id:
            return ""
        return self.address_of(self.raft.leader_id)

    def address_of(self, node_id: int) -> str:
        """Where that node is; "" where that is unknown. Its own greeting says it best: it may have
        moved, and a node that was just taken in may be sent old entries for long by a leader whose
        own entry is not among them yet."""
        met = self.greetings.known.address_of(node_id)
        if met:
            return met
        member = self.raft.membership.member(node_id)
        return member.address if member is not None else ""

    @property
    def role_name(self) -> str:
        """One of wire.requests.ROLES."""
        if self.raft is None:
            return self.phase.value
        if self.is_removed:
            return "removed"
        if self.raft.role is Role.FOLLOWER and not self.raft.membership.is_voter(self.node_id):
            return "learner"
        return self.raft.role.value

    @property
    def is_removed(self) -> bool:
        """Whether this node was removed from its cluster, as its log or a member says."""
        log = self.raft.log
        return self.greetings.removed or (self.node_id in log.membership.removed
                                          and log.membership_index <= log.commit_index)

    def state_words(self) -> str:
        """For the action log: role and term."""
        term = self.raft.current_term if self.raft is not None else 0
        return f"{self.role_name} term {term}"

    def peer_connected(self, address: str, hello: Hello, rtt_ms: int) -> None:
        """A connection that this node dialled is greeted and accepted."""
        self.actions.say("connect", "connected to %s, round trip %d ms", address, rtt_ms)
        self.joining.connected(address)
        if self.raft is not None:
            self.raft.observe_rtt(hello.node_id, rtt_ms)
            self.raft.peer_connected(hello.node_id)
            self.founding.reached(hello.node_id)

    def peer_identified(self, node_id: int) -> None:
        """That peer has dialled us anew: what it had said or was saying on the old connection is
        lost, its acknowledgements too."""
        if self.raft is not None:
            self.raft.peer_connected(node_id)

    def sign_of_life(self, node_id: int) -> None:
        """Bytes of a frame that is not complete yet came from that peer."""
        if self.raft is not None:
            self.greetings.heard(node_id)
            self.raft.sign_of_life(node_id)

    def peer_gone(self, address: str) -> None:
        """The connections with the peer at that address ended, and a redial was refused."""
        if self.raft is None:
            return
        if self.raft.leader_id and address == self.leader_address:
            self.actions.say("leader", "the leader %s is gone: its connection ended and a new one "
                             "is refused", address)
            self.raft.leader_gone(self.raft.leader_id)

    # --- frames in

    def peer_frame(self, node_id: int, kind: int, body: bytes) -> None:
        """A message of a node that has greeted with our cluster id. Raises MalformedError."""
        assert kind >= PEER_KINDS_FROM
        message = decode_message(kind, body)
        if self.raft is not None:
            distrust.check(self, message)
            self.greetings.heard(node_id)
            if kind in _PROMISES:
                self.greetings.known.promised(node_id, message.term)
            narrate_received(self, node_id, message)
            self.raft.step(node_id, message)

    def client_frame(self, client, request_id: int, kind: int, body: bytes) -> None:
        """A frame of a client."""
        if kind == Kind.REQUEST:
            refusal = self.why_not_serving()
            if refusal is None and self.disk_full:
                refusal = (ErrorCode.DISK_FULL, "the leader's disk is full: free space there")
            if refusal is not None:
                self.refuse(client, request_id, *refusal)
            elif not self.gateway.request(client, request_id, body):
                self.reads.confirm_request(client, request_id, body)
        elif kind in (Kind.JOIN, Kind.INVITE, Kind.CHANGE):
            self.admission.frame(client, request_id, kind, body)
        else:
            self.reads.frame(client, request_id, kind, body)

    def refuse(self, client, request_id: int, code: ErrorCode, text: str) -> None:
        """Answer with an ERROR that names the leader."""
        self.actions.say("redirect" if code == ErrorCode.NOT_LEADER else "refusal",
                         "a client's request is refused: %s: %s", code.name, text)
        self.gateway.refuse(client, request_id, code, text,
                            "" if self.leads else self.leader_address or self._who_may_know())

    def _who_may_know(self) -> str:
        """Of a node that was removed, which hears of no leader: where a voter was, by its own log,
        another one each time. Else "": the client knows others itself."""
        if self.raft is None or not self.is_removed:
            return ""
        voters = [self.address_of(node_id) for node_id in self.raft.membership.voters
                  if node_id != self.node_id]
        return voters[self.randint(0, len(voters) - 1)] if voters else ""

    def why_not_serving(self) -> tuple[ErrorCode, str] | None:
        """None where this node leads and may answer clients; else how to refuse."""
        raft = self.raft
        if raft is None:
            founders, asking = self.founding.founders, self.joining.asking
            # Not NOT_READY: another node may be serving, and this one may wait for ever.
            if founders is not None:
                return ErrorCode.NOT_LEADER, f"founding waits for {', '.join(founders.missing)}"
            return ErrorCode.NOT_LEADER, f"this node asks {asking.target} to be taken in"
        if raft.role is not Role.LEADER:
            leader = self.leader_address
            if self.is_removed:
                return ErrorCode.NOT_LEADER, "this node was removed from the cluster"
            return (ErrorCode.NOT_LEADER,
                    f"the leader is {leader}" if leader else "no leader is known at the moment")
        if not raft.leads_ready or self.machine.applied_index < raft.term_start_index:
            return ErrorCode.NOT_READY, "the leader is new: an entry of its term is not committed"
        if not self.applying.founded:
            return ErrorCode.NOT_READY, "not all founders have acknowledged the founding"
        return None

    # --- time and disk

    def advance_clock(self, now_ms: int) -> None:
        """The node's monotonic clock, in whole milliseconds from its own start."""
        self.elapse(now_ms)
        if self.raft is not None:
            self.raft.tick(0)
            self.leadership.tick()
            self.joining.follow_address()
            self.admission.invite()
        self.joining.tick()

    def elapse(self, now_ms: int) -> None:
        """Time has passed, and what came meanwhile follows: it is heard now, before any deadline
        takes effect in `advance_clock`. Else a late turn would punish those who spoke in time."""
        elapsed = now_ms - self.now_ms
        assert elapsed >= 0, "a monotonic clock"
        self.now_ms = now_ms
        if self.raft is not None:
            self.raft.elapse(elapsed)

    def next_deadline_ms(self) -> int:
        """When advance_clock wants to be called again, at the latest."""
        if self.reads.cut_short or self.watches.cut_short:
            return self.now_ms
        if self.raft is None:
            return self.joining.next_deadline_ms() or self.now_ms + JOIN_RETRY_MS
        if self.machine.applied_index < self.raft.log.commit_index or self.snapshots.is_busy:
            return self.now_ms      # a turn applies, and builds, so much and no more
        # The core's clock began when it did.
        deadline = self.raft.next_deadline_ms() - self.raft.now_ms + self.now_ms
        for other in (self.leadership.next_deadline_ms(), self.joining.next_deadline_ms()):
            if other is not None:
                deadline = min(deadline, other)
        return deadline

    @property
    def is_quiet(self) -> bool:
        """Whether no disk work is under way, no promise waits for one, and no snapshot is being
        made out of the files."""
        return (not self.outbox.is_waiting and self.raft.disk_idle
                and self.snapshots.is_idle)

    def drop_cluster(self, alone: bool = False) -> None:
        """Forget a cluster in which this node promised nothing but votes to anybody: its founding
        was never completed, or it was `alone` and no client used it. The greetings find another."""
        assert self.is_quiet
        self.store.forget(alone)
        self.outbox.begin_anew()
        if self.leadership.term:
            self.leadership.end()
        self.reads.refuse_all()
        self.raft = self.time = None
        self._seen = ()
        self.applying.founded = False
        self.greetings.begin_anew()
        self.applying.begin_anew(Machine(self.config.machine, self.config.wire))
        self.snapshots.close()
        self.snapshots = Snapshots(self)
        self.peers_changed = True

    def set_disk_full(self, full: bool) -> None:
        """The disk has no room any more, or again: what was given to it waits. Reads, heartbeats
        and votes go on."""
        self.disk_full = full
        if self.raft is not None:
            self.raft.disk_full = full

    def votes_durable(self, job: int) -> None:
        """As Outbox.votes_durable."""
        self.outbox.votes_durable(job)

    def job_done(self, job: int) -> None:
        """The disk jobs up to this one are durable."""
        self.outbox.durable(job)

    # --- a turn

    def turn(self) -> Turn:
        """All that is to be done now."""
        turn = Turn(frames=self.frames)
        self.frames = []
        if self.raft is not None:
            self._tell_state()
            self.leadership.raise_state_version()
            self.time.follow(self.now_ms, self.machine.time_ms)
            self.leadership.propose()
            apply = self.applying.go_on()   # once a turn, so that it stays short
            while (ready := self.raft.ready(apply)) is not None:
                self._take(ready, turn)
                self._tell_state()
                apply = False
            turn.order, jobs = self.snapshots.tick()
            turn.jobs += jobs
            turn.messages = self.outbox.addressed()
            self._times = narrate_times(self, self._times)
            turn.events = self.watches.tell(self.now_ms)
            self.reads.answer()
            self.admission.tick()
        else:
            turn.events = self.watches.tell(self.now_ms)
        turn.answers, self.gateway.answers = self.gateway.answers, []
        turn.peers_changed, self.peers_changed = self.peers_changed, False
        return turn

    def _take(self, ready: Ready, turn: Turn) -> None:
        job = self.outbox.take(ready)
        if job is not None:
            turn.jobs.append(job)
            if ready.install is not None:
                self.applying.installed(ready.install)
            if ready.entries:
                self.actions.say("append", "append entries %d to %d (term %d)",
                                 ready.entries[0].index, ready.entries[-1].index,
                                 ready.entries[-1].term)
                if any(entry.kind == EntryKind.MEMBERSHIP for entry in ready.entries):
                    self.membership_appended()
        self.applying.take(ready)
        if ready.received is not None:
            self.snapshots.received(ready.received)
        if ready.doubted is not None:
            self.snapshots.doubted(ready.doubted)
        for token, index in ready.reads:
            self.reads.confirmed(token, index)

    def check_state_version(self, membership: Membership) -> None:
        """This process must end where it does not know the replicated state's version."""
        version = membership.state_version
        if version > self.state_version_max:
            self.stop_reason = (f"the cluster's state has version {version}, and this program "
                                f"knows {self.state_version_max}: start a newer raftnet on this "
                                "directory")

    def membership_appended(self) -> None:
        """The newest membership in the log, committed or not, is another one."""
        self.peers_changed = True
        self.check_state_version(self.raft.membership)
        narrate_membership(self)

    # --- role and term

    def _tell_state(self) -> None:
        """Notice and log changes of role, term and leader; open and close the gateway."""
        raft = self.raft
        seen = (raft.role, raft.current_term, raft.leader_id, raft.pre_voting)
        if seen == self._seen:
            return
        self._seen = seen
        if raft.leader_id and raft.membership.member(raft.leader_id) is None:
            self.peers_changed = True      # no entry says where it is, only its greeting
        leadership = self.leadership
        if leadership.term and (raft.role is not Role.LEADER
                                or raft.current_term != leadership.term):
            leadership.end()
        if raft.role is Role.LEADER and not leadership.term:
            leadership.begin(raft.current_term)
        self.admission.leader_changed()
        narrate_role(self)
