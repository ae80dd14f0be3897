"""Replica: the whole node without I/O.

The server and the simulator drive this class in the same way: frames and greetings in, the clock as
`advance_clock`, and once a turn `turn()`, which gives everything to be done: messages, one disk job,
replies. Only four seams are ever replaced: time (advance_clock), chance (randint), network (what
Turn holds), disk (the Store's Disk, and who calls Store.perform).

Phases: FOUNDING and JOINING (founding.py) until the directory has an identity, then RUNNING.
Replica writes the replicated time into each batch; the rules of that are in `_follow_stamps`.
What answers a client is in gateway.py (requests) and reads.py (reads, log, status, joining).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct

from raftnet.actions import DEBUG, WARNING, ActionLog
from raftnet.config import Config
from raftnet.errors import ErrorCode, MalformedError
from raftnet.founding import Founders, Joining, founders_checksum
from raftnet.gateway import Answer, Gateway
from raftnet.machine.machine import Machine
from raftnet.narration import narrate_received, narrate_sent
from raftnet.net.messages import decode_message
from raftnet.raft.core import Raft
from raftnet.raft.election import holds_only_founding
from raftnet.raft.entry import HEADER_BYTES, Entry, EntryKind
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import QuorumRule, decode_membership
from raftnet.raft.types import Append, Message, Outgoing, Ready, Role
from raftnet.reads import Reads
from raftnet.storage.store import Job, Store
from raftnet.wire import requests
from raftnet.wire.commands import encode_batch
from raftnet.wire.frames import PEER_KINDS_FROM, Kind
from raftnet.wire.requests import Hello

_STAMP = Struct(">Q")
_JOIN_RETRY_MS = 200
_JOIN_PATIENCE_MS = 3_000       # without an answer the contact is asked again
_MET_MAX = 1_000
NO_CLUSTER = bytes(16)


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


@dataclass(slots=True)
class Turn:
    """Everything a turn wants done, in this order."""

    messages: list[tuple[str, Message]] = field(default_factory=list)   # to the peer at an address
    frames: list[tuple[str, int, bytes]] = field(default_factory=list)  # (address, kind, body)
    jobs: list[Job] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    peers_changed: bool = False     # dial_targets() differs from before


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
        self.founders: Founders | None = None
        self.joining: Joining | None = None
        self._join_deadline_ms = 0
        self._after_sync: deque[tuple[int, list[Outgoing]]] = deque()
        self._outgoing: list[Outgoing] = []
        self._jobs_before = 0           # disk jobs of a provisional cluster that was dropped
        self._met: dict[int, str] = {}  # addresses of nodes of this cluster, by their greetings
        self._frames: list[tuple[str, int, bytes]] = []
        self._peers_changed = True
        self.machine = Machine(config.machine, config.wire)
        self.gateway = Gateway(config.gateway, config.wire, self.machine)
        self.reads = Reads(self)
        self._founded = False           # a membership that says so is committed
        self._led_term = 0              # > 0: this node leads in that term, and the gateway is open
        self._seen: tuple = ()          # role, term and leader as last told
        self._orphans_deadline_ms: int | None = None
        self._stamp_ms = 0              # the last stamp in the log ...
        self._stamp_at_ms = 0           # ... and when it came, by our clock
        self._stamps_to = 0             # the log is looked through up to here ...
        self._stamp_epoch = 0           # ... in this epoch
        self._begin()

    def _begin(self) -> None:
        if self.store.cluster_id is not None:
            self._run(self.store.take_entries())
        elif self.start.join:
            self.joining = Joining(self.start.join)
            self.actions.say("join", "asking %s to be taken in", self.start.join)
        else:
            founders = self.start.founders or [self.address]
            self.founders = Founders(self.node_id, self.address, founders, self.start.quorum_rule)
            self.actions.say("found", "founding a cluster of %s", ", ".join(founders))
            self._found_if_complete()

    def _run(self, entries: list[Entry]) -> None:
        """The directory has an identity, and these entries: begin as a follower."""
        self.founders = self.joining = None
        log = RaftLog(entries)
        self.raft = Raft(self.node_id, self.config.raft, self.store.hard_state, log, self.randint)
        self._follow_stamps()
        self._peers_changed = True
        self._tell_state()

    # --- who this node is

    @property
    def phase(self) -> Phase:
        """How far this node has come."""
        if self.raft is not None:
            return Phase.RUNNING
        return Phase.JOINING if self.joining is not None else Phase.FOUNDING

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
        return self._address_of(self.raft.leader_id)

    def _address_of(self, node_id: int) -> str:
        """Where that node is; "" where that is unknown. A node that was just taken in may be
        sent old entries for long by a leader whose own entry is not among them yet."""
        member = self.raft.membership.member(node_id)
        return member.address if member is not None else self._met.get(node_id, "")

    @property
    def role_name(self) -> str:
        """One of wire.requests.ROLES."""
        if self.raft is None:
            return self.phase.value
        if self.raft.role is Role.FOLLOWER and not self.raft.membership.is_voter(self.node_id):
            return "learner"
        return self.raft.role.value

    def state_words(self) -> str:
        """For the action log: role and term."""
        term = self.raft.current_term if self.raft is not None else 0
        return f"{self.role_name} term {term}"

    # --- greetings

    def hello(self) -> Hello:
        """This node's greeting to other nodes."""
        return Hello(requests.ROLE_PEER, self.cluster_id, self.node_id, self.store.boot,
                     self._founders_checksum(), self.address)

    def _founders_checksum(self) -> int:
        """Which founders' list this node knows: its own, or that of a cluster not founded yet."""
        if self.founders is not None:
            return self.founders.checksum
        if self.raft is not None and not self.raft.membership.founded:
            membership = self.raft.membership
            return founders_checksum([m.address for m in membership.members],
                                     membership.quorum_rule)
        return 0

    def greeted(self, hello: Hello, dialled: str = "") -> tuple[ErrorCode, str] | None:
        """Another node's greeting, on a connection that it dialled or (`dialled`: the address)
        that this node did. None: welcome; else why it is refused."""
        if hello.node_id == self.node_id:
            return ErrorCode.WRONG_CLUSTER, f"{self.address} and {hello.address} are one node"
        ours, theirs = self.cluster_id, hello.cluster_id
        founding = (hello.founders_checksum != 0
                    and hello.founders_checksum == self._founders_checksum())
        if founding and (self.founders is not None or theirs != ours):
            self._founder_greeted(dialled or hello.address, hello)
            ours = self.cluster_id      # the greeting may have completed the founding
        elif (self.founders is not None and hello.founders_checksum
              and hello.address in self.founders.addresses):
            self.actions.say("refusal", "%s was started with another list of founders or another "
                             "quorum rule than this node: stop one and start it like the others",
                             hello.address, level=WARNING)
        if NO_CLUSTER in (ours, theirs):
            return None
        if ours != theirs:
            self.actions.say("refusal", "%s belongs to cluster %s, this node to %s: its frames "
                             "are refused", hello.address, theirs.hex()[:8], ours.hex()[:8],
                             level=WARNING)
            return (ErrorCode.WRONG_CLUSTER,
                    f"{self.address} belongs to cluster {ours.hex()[:8]}, not {theirs.hex()[:8]}")
        member = self.raft.membership.member_at(dialled) if dialled and self.raft else None
        if member is not None and member.node_id != hello.node_id:
            return ErrorCode.WRONG_CLUSTER, f"another node than expected answers at {dialled}"
        if hello.node_id in self._met or len(self._met) < _MET_MAX:
            self._met[hello.node_id] = dialled or hello.address
        return None

    def _founder_greeted(self, address: str, hello: Hello) -> None:
        """A founder with the same list, of whom this node did not know all yet."""
        if self.founders is not None:
            if self.founders.learn(address, hello.node_id):
                self.actions.say("found", "founder %s is node %016x; waiting for %s", address,
                                 hello.node_id, ", ".join(self.founders.missing) or "nobody")
            self._found_if_complete()
            return
        # This node completed the founding before: with another node at that address?
        member = self.raft.membership.member_at(address)
        if member is not None and member.node_id != hello.node_id and (
                holds_only_founding(self.raft)
                and not self._after_sync and self.raft.disk_idle):
            self.actions.say("found", "the founder at %s was emptied before the cluster was "
                             "complete: founding anew", address, level=WARNING)
            self.store.forget()
            self._jobs_before += self.raft.jobs_made
            self.raft = None
            self._outgoing.clear()
            self._met.clear()
            founders = Founders(self.node_id, self.address,
                                self.start.founders or [self.address], self.start.quorum_rule)
            self.founders = founders
            self._peers_changed = True
            founders.learn(address, hello.node_id)

    def _found_if_complete(self) -> None:
        if self.founders.missing:
            return
        cluster_id, entry = self.founders.entry_1()
        self.store.found(cluster_id, entry)
        self.actions.say("found", "cluster %s of %d is founded here as node %016x",
                         cluster_id.hex()[:8], len(self.founders.addresses), self.node_id)
        self._run([entry])

    def dial_targets(self) -> list[str]:
        """The addresses to which connections are to be held."""
        if self.raft is not None:
            addresses = [m.address for m in self.raft.membership.members
                         if m.node_id != self.node_id]
            leader = self.leader_address
            if leader and leader not in addresses and not self.leads:
                addresses.append(leader)
            return addresses
        if self.joining is not None:
            return [self.joining.target]
        return [a for a in self.founders.addresses if a != self.address]

    def peer_connected(self, address: str, hello: Hello, rtt_ms: int) -> None:
        """A connection that this node dialled is greeted and accepted."""
        self.actions.say("connect", "connected to %s, round trip %d ms", address, rtt_ms)
        if self.joining is not None:
            self.joining.asked = False
            self._join_deadline_ms = self.now_ms
        elif self.raft is not None:
            self.raft.observe_rtt(hello.node_id, rtt_ms)
            self.raft.peer_connected(hello.node_id)

    def peer_gone(self, address: str) -> None:
        """The connections with the peer at that address ended, and a redial was refused."""
        if self.raft is None:
            return
        member = self.raft.membership.member_at(address)
        if member is not None:
            if member.node_id == self.raft.leader_id:
                self.actions.say("leader", "the leader %s is gone: its connection ended and a new "
                                 "one is refused", address)
            self.raft.leader_gone(member.node_id)

    # --- frames in

    def peer_frame(self, node_id: int, kind: int, body: bytes) -> None:
        """A message of a node that has greeted with our cluster id. Raises MalformedError."""
        assert kind >= PEER_KINDS_FROM
        message = decode_message(kind, body)
        if self.raft is not None:
            narrate_received(self, node_id, message)
            self.raft.step(node_id, message)

    def dialled_frame(self, address: str, kind: int, body: bytes) -> None:
        """A frame that came back on a connection that this node dialled, after the greeting.
        Raises MalformedError."""
        if self.joining is None or address != self.joining.target:
            return
        if kind == Kind.JOIN_REPLY:
            cluster_id = requests.decode_join_reply(body)
            self.store.join(cluster_id)
            self.actions.say("join", "taken into cluster %s as node %016x",
                             cluster_id.hex()[:8], self.node_id)
            self._run([])
        elif kind == Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            if self.joining.refused(leader):
                self.actions.say("join", "%s names the leader: asking %s", address,
                                 self.joining.target)
                self._peers_changed = True
            else:
                self.actions.say("join", "not taken in yet: %s: %s",
                                 requests.describe_error(code), text,
                                 level=DEBUG if code == ErrorCode.NOT_LEADER else WARNING)
            self._join_deadline_ms = self.now_ms + _JOIN_RETRY_MS

    def client_frame(self, client, request_id: int, kind: int, body: bytes) -> None:
        """A frame of a client."""
        if kind == Kind.REQUEST:
            refusal = self.why_not_serving()
            if refusal is None and self.disk_full:
                refusal = (ErrorCode.DISK_FULL, "the leader's disk is full: free space there")
            if refusal is not None:
                self.refuse(client, request_id, *refusal)
            else:
                self.gateway.request(client, request_id, body)
        else:
            self.reads.frame(client, request_id, kind, body)

    def refuse(self, client, request_id: int, code: ErrorCode, text: str) -> None:
        """Answer with an ERROR that names the leader."""
        self.actions.say("redirect" if code == ErrorCode.NOT_LEADER else "refusal",
                         "a client's request is refused: %s: %s", code.name, text)
        self.gateway.refuse(client, request_id, code, text,
                            "" if self.leads else self.leader_address)

    def why_not_serving(self) -> tuple[ErrorCode, str] | None:
        """None where this node leads and may answer clients; else how to refuse."""
        raft = self.raft
        if raft is None:
            if self.founders is not None:
                return (ErrorCode.NOT_READY,
                        f"founding waits for {', '.join(self.founders.missing)}")
            return ErrorCode.NOT_READY, f"this node asks {self.joining.target} to be taken in"
        if raft.role is not Role.LEADER:
            leader = self.leader_address
            return (ErrorCode.NOT_LEADER,
                    f"the leader is {leader}" if leader else "no leader is known at the moment")
        if not raft.leads_ready or self.machine.applied_index < raft.term_start_index:
            return ErrorCode.NOT_READY, "the leader is new: an entry of its term is not committed"
        if not self._founded:
            return ErrorCode.NOT_READY, "not all founders have acknowledged the founding"
        return None

    # --- time and disk

    def advance_clock(self, now_ms: int) -> None:
        """The node's monotonic clock, in whole milliseconds from its own start."""
        self.elapse(now_ms)
        if self.raft is not None:
            self.raft.tick(0)
            self._leader_deadlines()
        elif self.joining is not None and now_ms >= self._join_deadline_ms:
            self._ask_to_join()

    def elapse(self, now_ms: int) -> None:
        """Time has passed, and what came meanwhile follows: it is heard now, before any deadline
        takes effect in `advance_clock`. Else a late turn would punish those who spoke in time."""
        elapsed = now_ms - self.now_ms
        assert elapsed >= 0, "a monotonic clock"
        self.now_ms = now_ms
        if self.raft is not None:
            self.raft.elapse(elapsed)

    def _ask_to_join(self) -> None:
        joining = self.joining
        if joining.asked and joining.refused(""):
            self._peers_changed = True
            self.actions.say("join", "no answer: asking %s again", joining.target)
        joining.asked = True
        self._join_deadline_ms = self.now_ms + _JOIN_PATIENCE_MS
        self._frames.append((joining.target, Kind.JOIN,
                             requests.encode_join(self.node_id, self.address)))

    def next_deadline_ms(self) -> int:
        """When advance_clock wants to be called again, at the latest."""
        if self.reads.cut_short:
            return self.now_ms
        if self.raft is None:
            return self.now_ms + _JOIN_RETRY_MS
        # The core's clock began when it did.
        deadline = self.raft.next_deadline_ms() - self.raft.now_ms + self.now_ms
        machine = self._machine_deadline_ms()
        if machine is not None:
            deadline = min(deadline, machine)
        if self._orphans_deadline_ms is not None:
            deadline = min(deadline, self._orphans_deadline_ms)
        return deadline

    def _machine_deadline_ms(self) -> int | None:
        """When, by our clock, the machine's next replicated deadline is due; leaders only."""
        if not self._led_term or not self.gateway.is_idle or self.why_not_serving() is not None:
            return None
        due = self.machine.next_deadline_ms()
        if due is None:
            return None
        grain = self.config.gateway.deadline_grain_ms
        at = self.now_ms + max(0, due - self._stamp())
        return -(-at // grain) * grain

    def _leader_deadlines(self) -> None:
        deadline = self._machine_deadline_ms()
        if deadline is not None and deadline <= self.now_ms:
            self.gateway.time_passes()
        if self._orphans_deadline_ms is not None and self.now_ms >= self._orphans_deadline_ms:
            self._orphans_deadline_ms = None
            if self._led_term and self.why_not_serving() is None:
                cancelled = self.gateway.cancel_orphans()
                if cancelled:
                    self.actions.say("wait", "%d waiting dequeues that nobody came back for are "
                                     "cancelled", cancelled)

    def job_done(self, job: int) -> None:
        """The disk jobs up to this one are durable: their promises may leave."""
        job -= self._jobs_before
        self.raft.advance(job)
        while self._after_sync and self._after_sync[0][0] <= job:
            self._outgoing += self._after_sync.popleft()[1]

    # --- a turn

    def turn(self) -> Turn:
        """All that is to be done now."""
        turn = Turn(frames=self._frames)
        self._frames = []
        if self.raft is not None:
            self._tell_state()
            self._propose()
            while (ready := self.raft.ready()) is not None:
                self._take(ready, turn)
                self._tell_state()
            self._address_messages(turn)
            self.reads.answer()
        turn.answers, self.gateway.answers = self.gateway.answers, []
        turn.peers_changed, self._peers_changed = self._peers_changed, False
        return turn

    def _propose(self) -> None:
        raft, gateway = self.raft, self.gateway
        self._follow_stamps()
        if not self._led_term:
            return
        while (gateway.wants_batch(raft.disk_idle)
               and raft.uncommitted_bytes <= self.config.raft.uncommitted_bytes_max):
            bodies, waiters = gateway.take_batch()
            payload = encode_batch(self._stamp(), bodies)
            index, term = raft.propose(payload)
            gateway.proposed(index, term, waiters)
            self.actions.say("request", "%d requests of clients become entry %d", len(bodies),
                             index)
            self._follow_stamps()

    def _take(self, ready: Ready, turn: Turn) -> None:
        self._outgoing += ready.messages
        if ready.job:
            turn.jobs.append(Job(self._jobs_before + ready.job, ready.hard_state, ready.entries,
                                 ready.rewound))
            self._after_sync.append((ready.job, ready.messages_after_sync))
            if ready.entries:
                self.actions.say("append", "append entries %d to %d (term %d)",
                                 ready.entries[0].index, ready.entries[-1].index,
                                 ready.entries[-1].term)
                if any(entry.kind == EntryKind.MEMBERSHIP for entry in ready.entries):
                    self._membership_appended()
        for entry in ready.committed:
            self._apply(entry)
        for token, index in ready.reads:
            self.reads.confirmed(token, index)

    def _apply(self, entry: Entry) -> None:
        applied = self.machine.apply(entry)
        replies = self.gateway.applied(entry.index, entry.term, applied)
        if entry.kind == EntryKind.MEMBERSHIP:
            self._founded = self._founded or decode_membership(entry.payload).founded
            self.reads.membership_committed(entry.index)
        self.actions.say("apply", "commit and apply entry %d (%s, %d bytes), %d replies",
                         entry.index, EntryKind(entry.kind).name.lower(), len(entry.data), replies)

    def _membership_appended(self) -> None:
        self._peers_changed = True
        membership = self.raft.membership
        words = [f"{m.address}{'' if m.voter else ' (learner)'}" for m in membership.members]
        self.actions.say("membership", "members at index %d: %s; quorum %d%s",
                         self.raft.log.membership_index, ", ".join(words), membership.quorum,
                         "" if membership.founded else "; not founded yet")

    def _address_messages(self, turn: Turn) -> None:
        """Give the messages their addresses, and the old entries that only the file has."""
        membership = self.raft.membership
        addresses = {member.node_id: member.address for member in membership.members}
        for to, message in self._outgoing:
            address = addresses.get(to) or self._met.get(to)
            if address is None:
                continue        # a removed member that has not greeted
            if type(message) is Append and message.from_file:
                message.entries = self.store.read_entries(
                    message.prev_log_index + 1, self.config.raft.append_bytes_max,
                    self.raft.log.stable_index)
                if not message.entries:
                    continue
            turn.messages.append((address, message))
        if self._outgoing:
            narrate_sent(self, self._outgoing)
        self._outgoing = []

    # --- leadership

    def _tell_state(self) -> None:
        """Notice and log changes of role, term and leader; open and close the gateway."""
        raft = self.raft
        seen = (raft.role, raft.current_term, raft.leader_id, raft.pre_voting)
        if seen == self._seen:
            return
        self._seen = seen
        if raft.leader_id and raft.membership.member(raft.leader_id) is None:
            self._peers_changed = True      # no entry says where it is, only its greeting
        if self._led_term and (raft.role is not Role.LEADER or raft.current_term
                               != self._led_term):
            self._led_term = 0
            self._orphans_deadline_ms = None
            self.gateway.close(self.leader_address)
            self.reads.leadership_lost()
        if raft.role is Role.LEADER and not self._led_term:
            self._led_term = raft.current_term
            self._orphans_deadline_ms = self.now_ms + self.config.gateway.orphan_wait_ms
        if raft.role is Role.LEADER:
            text = "elected leader"
        elif raft.role is Role.CANDIDATE:
            text = ("asking whether an election would be won (pre-vote)" if raft.pre_voting
                    else "standing for election")
        else:
            text = f"following {self.leader_address or 'nobody yet'}"
        # Each role is a kind of its own: an election's many steps must not hide its outcome.
        self.actions.say(f"role {raft.role.value}", "%s", text)

    # --- replicated time

    def _stamp(self) -> int:
        """Replicated time now: the last stamp in the log plus our clock since it came."""
        return self._stamp_ms + self.now_ms - self._stamp_at_ms

    def _follow_stamps(self) -> None:
        """Keep the last stamp in our log, and when it came (design: Time).

        Only stamps in the log count, its uncommitted tail included; one that was truncated does
        not, or time could run ahead of a later leader's. Across a restart no time is counted.
        """
        log = self.raft.log
        if log.epoch == self._stamp_epoch and log.last_index == self._stamps_to:
            return
        replaced = log.epoch != self._stamp_epoch
        index = log.last_index
        lowest = log.memory_from if replaced else max(log.memory_from, self._stamps_to + 1)
        self._stamp_epoch, self._stamps_to = log.epoch, log.last_index
        while index >= lowest:
            entry = log.entry(index)
            if entry.kind == EntryKind.BATCH:
                stamp = _STAMP.unpack_from(entry.data, HEADER_BYTES)[0]
                break
            index -= 1
        else:
            if not replaced:
                return
            stamp = self.machine.time_ms
        self._stamp_ms, self._stamp_at_ms = stamp, self.now_ms
