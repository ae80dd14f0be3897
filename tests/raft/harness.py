"""Several cores in one process; network and disks move only when a test says so.

Rules: a message is never changed once sent; a disk job stays pending until `sync`, jobs end in
their order, and what waits for one leaves only then; a crash loses every pending job. Each node
keeps what its disk would hold (`disk`, files.py), which is all that a restart gets.
"""

import dataclasses
import random
import unittest
from collections import deque
from typing import NamedTuple
from zlib import crc32

from raftnet.config import RaftConfig
from raftnet.raft.core import Raft
from raftnet.raft.describe import describe_message
from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, QuorumRule, encode_membership
from raftnet.raft.types import Append, HardState, Message, Ready, Role, Snapshot, SnapshotId
from tests.raft.files import Files, entries_of, meta_of

FAR_MS = 1_000_000          # a deadline that no test reaches
SETTLE_EVENTS_MAX = 20_000  # more than this is a conversation without end


def address_of(node_id: int) -> str:
    """Where that node is, unless a test says otherwise."""
    return f"127.0.0.1:{5000 + node_id}"


def membership_of(voters, learners=(), rule=QuorumRule.MAJORITY, founded=True,
                  stays=()) -> Membership:
    """A membership of these node ids; `stays`: those of the learners that are never promoted."""
    members = [Member(n, address_of(n), n in voters, n in stays) for n in {*voters, *learners}]
    members.sort(key=lambda member: member.node_id)
    return Membership(b"c" * 16, tuple(members), rule, founded)


def batch(index: int, term: int, size: int = 0) -> Entry:
    """An entry whose payload follows from its place, so that equal places mean equal bytes."""
    return encode_entry(index, term, EntryKind.BATCH, b"%d@%d" % (index, term) + b"." * size)


def log_of(terms, membership: Membership) -> list[Entry]:
    """Entries with these terms, as in the paper's figures; the first is the membership."""
    if not terms:
        return []
    first = encode_entry(1, terms[0], EntryKind.MEMBERSHIP, encode_membership(membership))
    return [first] + [batch(index, term) for index, term in enumerate(terms[1:], 2)]


class Envelope(NamedTuple):
    """A message on its way."""

    sender: int
    to: int
    message: Message


class Node:
    """A core, its disk, and what it handed out."""

    def __init__(self, node_id: int, config: RaftConfig, state: HardState, entries: list[Entry],
                 randint):
        self.node_id = node_id
        self.config = config
        self.disk = Files(state, entries)       # durable
        self.randint = randint
        self.builds = True                      # a received snapshot is built at once
        self.start()

    @property
    def state(self) -> HardState:
        """The durable hard state."""
        return self.disk.state

    @property
    def file(self) -> list[Entry]:
        """The durable entries above the base."""
        return self.disk.entries

    def start(self) -> None:
        """Begin a life from what is durable."""
        self.written = [(entry.index, entry.term) for entry in self.file]
        self.written_base = self.disk.base_index
        self.jobs: deque[Ready] = deque()
        self.applied: list[Entry] = entries_of(self.disk.image)
        self.reads: dict[int, int] = {}         # token -> index
        self.doubted: list[SnapshotId] = []     # refused by followers
        self.to_build: SnapshotId | None = None
        self.core = Raft(self.node_id, self.config, self.state,
                         self.disk.open(self.config.log_memory_bytes_max), self.randint)

    def write(self, ready: Ready) -> None:
        """Take a job; each record is the next one or replaces a tail."""
        assert not self.jobs or ready.job > self.jobs[-1].job
        assert ready.install is None or not (ready.entries or ready.chunk)
        for entry in ready.entries:
            place = entry.index - self.written_base - 1
            assert 0 <= place <= len(self.written), "a hole in the file"
            assert place == len(self.written) or ready.rewound or (
                self.written[place][1] != entry.term), "annuls what follows it without a word"
            del self.written[place:]
            self.written.append((entry.index, entry.term))
        if ready.install is not None:
            meta = ready.install
            place = meta.index - self.written_base
            keeps = self.written[place - 1:place] == [(meta.index, meta.term)]
            self.written = self.written[place:] if keeps else []
            self.written_base = meta.index
        self.jobs.append(ready)

    def sync_one(self) -> Ready:
        """The oldest job is durable."""
        ready = self.jobs.popleft()
        self.disk.end(ready)
        return ready

    def apply(self, ready: Ready) -> None:
        """What is committed, or the state of a snapshot in the place of all that."""
        if ready.install is not None:
            # Its bytes are written, by jobs that have ended, and belong to nothing else meanwhile.
            self.applied = entries_of(bytes(self.disk.received))
        if ready.committed_from_file is not None:
            first, last = ready.committed_from_file
            found = self.disk.between(first, last)
            assert [e.index for e in found] == list(range(first, last + 1)), "not in the file"
            self.applied += found
        self.applied += ready.committed

    def compact(self, keep: int) -> None:
        """A snapshot is made of what is applied, and the log cut up to `keep` entries before it;
        nothing where it would not be of use, or an install is under way."""
        log = self.core.log
        if (not self.applied or self.applied[-1].index > log.stable_index
                or self.applied[-1].index <= log.snapshot_index
                or any(ready.install for ready in self.jobs)):
            return
        base_index = max(self.applied[-1].index - keep, self.disk.base_index)
        self.core.snapshot_made(self.disk.compact(self.applied, base_index))
        del self.written[:base_index - self.written_base]
        self.written_base = base_index
        log.compact(base_index)


class Cluster:
    """Nodes, the messages between them, and the hand that moves both."""

    def __init__(self, voters, learners=(), logs=None, states=None, config=None, seed=1,
                 rule=QuorumRule.MAJORITY, founded=True, stays=()):
        self.config = config or RaftConfig()
        self.random = random.Random(seed)
        self.membership = membership_of(voters, learners, rule, founded, stays)
        self.nodes: dict[int, Node] = {}
        self.pool: list[Envelope] = []
        self.sent: list[Envelope] = []          # everything that ever left a node
        self.watch = self.sent.append           # told of each message as it leaves
        self.cut: set[tuple[int, int]] = set()  # (from, to): lost on delivery
        self.slow_disks: set[int] = set()       # settle leaves their jobs pending
        self.down: set[int] = set()
        for node_id in sorted({*voters, *learners}):
            terms = (logs or {}).get(node_id, [1])
            entries = log_of(terms, self.membership)
            state = (states or {}).get(node_id, HardState(max(terms, default=0)))
            self.nodes[node_id] = Node(node_id, self.config, state, entries, self.random.randint)

    def core(self, node_id: int) -> Raft:
        """The core of that node."""
        return self.nodes[node_id].core

    @property
    def cores(self) -> list[Raft]:
        """The cores of the nodes that run."""
        return [node.core for n, node in self.nodes.items() if n not in self.down]

    def trace(self) -> str:
        """All that was sent, a line each."""
        return "\n".join(describe_message(*envelope) for envelope in self.sent)

    def add_node(self, node_id: int) -> None:
        """A node with an empty disk that nobody counts yet."""
        self.nodes[node_id] = Node(node_id, self.config, HardState(), [], self.random.randint)

    def change(self, node_id: int, membership: Membership) -> None:
        """Propose that membership at that node; nothing is delivered."""
        self.core(node_id).propose_membership(membership)
        self.collect(node_id)

    # --- one node's turn

    def _send(self, node: Node, outgoing) -> None:
        for to, message in outgoing:
            if type(message) in (Append, Snapshot) and message.from_file:
                message = (self._from_file(node, message) if type(message) is Append
                           else self._chunk(node, to, message))
                if message is None:
                    continue
            envelope = Envelope(node.node_id, to, message)
            self.pool.append(envelope)
            self.watch(envelope)

    @staticmethod
    def _from_file(node: Node, message: Append) -> Append | None:
        entries, size = [], 0
        for entry in node.disk.between(message.prev_log_index + 1, 1 << 62):
            entries.append(entry)
            size += len(entry.data)
            if size >= node.config.append_bytes_max:
                break
        return dataclasses.replace(message, entries=entries) if entries else None

    @staticmethod
    def _chunk(node: Node, to: int, message: Snapshot) -> Snapshot | None:
        meta, end = node.disk.snapshot, message.offset + message.count
        if meta is None or meta.identity != message.identity:
            node.core.snapshot_unreadable(to, message.identity)
            return None
        return dataclasses.replace(message, data=node.disk.image[message.offset:end])

    def build(self, node_id: int) -> None:
        """Verify the snapshot that was received there, and hand it to the core."""
        node = self.nodes[node_id]
        identity, node.to_build = node.to_build, None
        if not node.core.wants_snapshot(identity):
            return
        image = bytes(node.disk.received)
        if (len(image), crc32(image)) == (identity.size, identity.checksum):
            node.core.snapshot_received(meta_of(entries_of(image)))
        else:
            node.core.snapshot_refused(identity)

    def collect(self, node_id: int) -> list[Ready]:
        """Take what the core has for the world, all of it."""
        node, taken = self.nodes[node_id], []
        while (ready := node.core.ready()) is not None:
            taken.append(ready)
            self._send(node, ready.messages)
            if ready.job:
                node.write(ready)
            else:
                assert not (ready.messages_after_sync or ready.entries or ready.hard_state)
            node.apply(ready)
            node.reads.update(ready.reads)
            node.doubted += [ready.doubted] if ready.doubted else []
            if ready.received is not None:
                node.to_build = ready.received
                if node.builds:
                    self.build(node_id)
        return taken

    def sync(self, node_id: int, count: int = 1 << 30) -> None:
        """End the oldest `count` disk jobs, one by one."""
        node = self.nodes[node_id]
        while node.jobs and count > 0:
            count -= 1
            ready = node.sync_one()
            self._send(node, ready.messages_after_sync)
            node.core.advance(ready.job)
            self.collect(node_id)

    def tick(self, elapsed_ms: int, *node_ids: int) -> None:
        """Time passes on these nodes, or on all that run."""
        for node_id in node_ids or [n for n in self.nodes if n not in self.down]:
            self.core(node_id).tick(elapsed_ms)
            self.collect(node_id)

    def step(self, sender: int, to: int, message: Message) -> list[Ready]:
        """Hand a node a message as it is."""
        self.core(to).step(sender, message)
        return self.collect(to)

    def propose(self, node_id: int, payload: bytes = b"x"):
        """Propose at that node; nothing is delivered."""
        entry_id = self.core(node_id).propose(payload)
        self.collect(node_id)
        return entry_id

    # --- the network

    def take(self, kind=None, sender=None, to=None) -> list[Envelope]:
        """Remove the messages of that sort from the pool, and return them."""
        taken = [e for e in self.pool if (kind is None or isinstance(e.message, kind))
                 and sender in (None, e.sender) and to in (None, e.to)]
        self.pool = [e for e in self.pool if all(e is not t for t in taken)]
        return taken

    def deliver(self, envelopes) -> None:
        """Hand these over, in their order; those over a cut link or to a dead node are lost."""
        for sender, to, message in list(envelopes):
            if to in self.nodes and to not in self.down and (sender, to) not in self.cut:
                self.step(sender, to, message)

    def settle(self) -> None:
        """Deliver and sync until nothing moves any more."""
        for node_id in self.nodes:
            if node_id not in self.down:
                self.collect(node_id)
        for _ in range(SETTLE_EVENTS_MAX):
            busy = [n for n, node in self.nodes.items()
                    if node.jobs and n not in self.slow_disks and n not in self.down]
            if not self.pool and not busy:
                return
            if self.pool:
                self.deliver([self.pool.pop(0)])
            for node_id in busy:
                self.sync(node_id)
        raise AssertionError("the cluster does not come to rest:\n" + self.trace()[-4000:])

    def isolate(self, *node_ids: int) -> None:
        """Cut these nodes off from all others, not from each other."""
        for a in self.nodes:
            for b in self.nodes:
                if (a in node_ids) != (b in node_ids):
                    self.cut.add((a, b))

    def heal(self) -> None:
        """All links work again; what was lost stays lost."""
        self.cut.clear()

    # --- larger steps

    def campaign(self, node_id: int) -> None:
        """That node's election timeout is reached now."""
        core = self.core(node_id)
        core.election_deadline_ms = core.now_ms
        self.tick(0, node_id)

    def elect(self, node_id: int) -> None:
        """Make that node the leader; the others know that the old one is gone, and wait."""
        for core in self.cores:
            if core.role is not Role.LEADER:
                if core.leader_id:
                    core.leader_gone(core.leader_id)
                core.election_deadline_ms = core.now_ms + FAR_MS
        self.campaign(node_id)
        self.settle()

    def replicate(self, node_id: int, count: int = 1) -> None:
        """Propose `count` entries one by one, settle, and let the commit index be known."""
        for _ in range(count):
            self.propose(node_id)
        self.settle()
        self.beat()

    def beat(self) -> None:
        """A heartbeat interval passes, and everything is delivered."""
        self.tick(self.config.heartbeat_ms)
        self.settle()

    def crash(self, node_id: int) -> None:
        """Power off: what was not synced is gone."""
        self.down.add(node_id)
        self.nodes[node_id].jobs.clear()

    def restart(self, node_id: int) -> None:
        """Begin again from the disk."""
        self.down.discard(node_id)
        self.nodes[node_id].start()


class RaftTestCase(unittest.TestCase):
    """Assertions in the words of the domain."""

    def assert_leader(self, cluster: Cluster, node_id: int, term: int | None = None) -> None:
        """That node, and no other that runs, leads."""
        leaders = [c.node_id for c in cluster.cores if c.role is Role.LEADER]
        self.assertEqual(leaders, [node_id], cluster.trace())
        if term is not None:
            self.assertEqual(cluster.core(node_id).current_term, term)

    def assert_no_leader(self, cluster: Cluster) -> None:
        """Nobody that runs leads."""
        self.assertEqual([c.node_id for c in cluster.cores if c.role is Role.LEADER], [])

    def assert_follows(self, core: Raft, leader_id: int, term: int) -> None:
        """That core follows that leader in that term."""
        self.assertEqual((core.role, core.leader_id, core.current_term),
                         (Role.FOLLOWER, leader_id, term))

    def assert_committed(self, cluster: Cluster, index: int, *node_ids: int) -> None:
        """These nodes (or all that run) know `index`, and no more, as committed and applied."""
        for node_id in node_ids or [core.node_id for core in cluster.cores]:
            core = cluster.core(node_id)
            self.assertEqual((core.log.commit_index, core.log.applied_index), (index, index),
                             f"node {node_id}")

    def assert_terms(self, core: Raft, terms) -> None:
        """The log holds entries of exactly these terms."""
        self.assertEqual([core.log.term_at(i) for i in range(1, core.log.last_index + 1)],
                         list(terms))

    def assert_same_logs(self, cluster: Cluster) -> None:
        """All logs are equal, in memory and on disk."""
        logs = {n: [e.data for e in node.file] for n, node in cluster.nodes.items()}
        first = next(iter(logs.values()))
        for node_id, log in logs.items():
            self.assertEqual(log, first, f"node {node_id}")
            self.assertEqual(cluster.core(node_id).log.last_index, len(log))

    def assert_sent(self, envelopes, *texts: str) -> None:
        """Exactly these messages, in their one-line form and in any order."""
        self.assertEqual(sorted(describe_message(*e) for e in envelopes), sorted(texts))
