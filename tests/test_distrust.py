"""What a stranger may do who greets as a peer: frames that are well-formed and mean nothing.

Each is done, dropped, or refused with MalformedError, which costs the stranger its connection; none
ends the node. Frames are drawn from a seed, near to what would be right in the state that the node
has, and the node lives on between them: its clock goes on, its disk writes, what is committed is
applied. A table beside it holds what was found so, one frame each.
"""

import dataclasses
import random
import struct
import unittest

from raftnet.config import Config
from raftnet.errors import CorruptFileError, MalformedError
from raftnet.net.messages import encode_message
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, encode_membership
from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Snapshot,
    SnapshotReply, TimeoutNow, Vote, VoteReply)
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind
from tests.replicas import Node, Nodes

A, B, C, D = (f"127.0.0.1:{port}" for port in range(5001, 5005))
STRANGER = 0xBAD
FRAMES, NODES_OF_A_KIND = 60, 12        # to each of them
U64_MAX = 2**64 - 1
_ABSURD = (0, 1, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, U64_MAX)


def small_logs() -> Config:
    """Snapshots are made, and the log is cut, after a few entries."""
    config = Config()
    config.snapshot.log_bytes_min = 400
    config.snapshot.tail_bytes = 200
    return config


class Drawn:
    """Frames for one node, out of one seed."""

    def __init__(self, node: Node, random_: random.Random):
        self.replica = node.replica
        self.random = random_
        self.kinds = [self.append, self.append, self.append, self.append_reply, self.heartbeat,
                      self.heartbeat_reply, self.snapshot, self.snapshot_reply, self.votes]

    def near(self, *right: int) -> int:
        """A number that is one of these, or next to one, or absurd."""
        choice = self.random.random()
        if choice < 0.1:
            return self.random.choice(_ABSURD)
        number = self.random.choice(right)
        if choice < 0.4:
            number += self.random.randint(-3, 3)
        return min(max(number, 0), U64_MAX)

    def flag(self) -> bool:
        return self.random.random() < 0.5

    @property
    def term(self) -> int:
        """Mostly the node's own: what is absurd ends all that was before."""
        term = self.replica.raft.current_term
        return self.near(term) if self.random.random() < 0.2 else term

    def index(self) -> int:
        log = self.replica.raft.log
        return self.near(log.base_index, log.commit_index, log.last_index)

    def term_of(self, index: int) -> int:
        raft = self.replica.raft
        return self.near(raft.log.term_at(index) or raft.current_term)

    def frame(self) -> tuple[int, bytes]:
        """(kind, body); some are damaged behind the sender's checksum."""
        kind, body = encode_message(self.random.choice(self.kinds)())
        if self.random.random() < 0.1 and body:
            body = bytearray(body)
            body[self.random.randrange(len(body))] = self.random.randrange(256)
            body = bytes(body[:self.random.randint(1, 2 * len(body))])
        return kind, body

    def append(self) -> Append:
        term, prev = self.term, min(self.index(), U64_MAX - 10)
        prev_term = 0 if not prev else self.replica.raft.log.term_at(prev) or term
        if self.random.random() < 0.2:
            prev_term = self.term_of(prev)
        entries, last_term = [], max(prev_term, 1)
        for index in range(prev + 1, prev + 1 + self.random.randrange(5)):
            known = self.replica.raft.log.term_at(index)
            choice = known if known and self.flag() else self.term_of(index)
            last_term = max(last_term, min(choice, max(term, 1)))
            kind, payload = self.payload()
            entries.append(encode_entry(index, last_term, kind, payload))
        return Append(term, prev, prev_term, self.index(), entries)

    def payload(self) -> tuple[int, bytes]:
        kind = self.random.choice((EntryKind.EMPTY, EntryKind.BATCH, EntryKind.BATCH,
                                   EntryKind.MEMBERSHIP))
        if kind == EntryKind.MEMBERSHIP:
            return kind, self.membership()
        if kind == EntryKind.EMPTY:
            return kind, self.random.randbytes(self.random.choice((0, 0, 3)))
        stamp = self.near(self.replica.time.stamp_ms, self.replica.time.stamp_ms + 1_000)
        body = requests.encode_request(self.random.choice((requests.NO_SESSION, b"s" * 16)), 1, 0,
                                       [commands.encode_enqueue(b"q", [b"x"])])
        if self.flag():
            body = self.random.choice((b"", body[:-1], self.random.randbytes(60)))
        return kind, struct.pack(">Q", stamp) + body

    def membership(self) -> bytes:
        membership = self.replica.raft.membership
        members = [m for m in membership.members if self.random.random() < 0.8]
        if self.flag():
            members.append(Member(self.near(1, STRANGER), self.random.choice(
                (D, "", "nowhere", "x" * 300 + ":1", "a\n:5")), self.flag()))
        members = {m.node_id: m for m in members}
        membership = dataclasses.replace(
            membership, members=tuple(members[n] for n in sorted(members)), founded=self.flag(),
            cluster_id=self.random.choice((membership.cluster_id.ljust(16, b"\0"), b"z" * 16)),
            target=self.random.choice(((), (D,), ("nowhere",))))
        return encode_membership(membership)

    def append_reply(self) -> AppendReply:
        return AppendReply(self.term, self.flag(), self.index(), self.index(), self.term)

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.term, self.index(), self.near(0), self.near(0),
                         self.near(0, 500) % 2**32, self.near(0, 5) % 2**32)

    def heartbeat_reply(self) -> HeartbeatReply:
        raft = self.replica.raft
        return HeartbeatReply(self.term, self.near(raft.read_round), self.near(0, raft.now_ms))

    def snapshot(self) -> Snapshot:
        data = self.random.randbytes(self.random.choice((0, 1, 100)))
        index, offset = self.index(), self.near(0, 0, 0, 1, 100)
        return Snapshot(self.term, index, self.term, self.near(len(data), offset + len(data), 200),
                        self.near(7) % 2**32, offset, data)

    def snapshot_reply(self) -> SnapshotReply:
        meta = self.replica.raft.log.snapshot
        size = meta.size if meta else 100
        return SnapshotReply(self.term, meta.index if meta else self.index(),
                             meta.term if meta else self.term, meta.checksum if meta else 7,
                             self.near(0, size), self.near(0, size), self.random.random() < 0.2)

    def votes(self):
        term, index = self.term, self.index()
        return self.random.choice((
            PreVote(term, index, self.term_of(index)), PreVoteReply(term, term + 1 & U64_MAX, True),
            Vote(term, index, self.term_of(index), self.flag()), VoteReply(term, self.flag()),
            TimeoutNow(term)))


class FuzzTest(unittest.TestCase):
    """A leader, a follower, a candidate, and a node that was just taken in."""

    def cluster(self, seed: int) -> Nodes:
        nodes = Nodes(seed, small_logs())
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        for _ in range(6):
            nodes.enqueue(nodes.serving(), b"x" * 100)
        nodes.run_until(nodes.settled)
        return nodes

    def newcomer(self, nodes: Nodes) -> Node:
        """It is of the cluster and has heard nothing of it yet."""
        leader = nodes.serving()
        node = nodes.add(D, join=leader.begin.address)
        nodes.cut = {(leader.begin.address, D)}
        node.replica.store.join(leader.replica.cluster_id)
        node.restart()
        return node

    def bear(self, what: str, seed: int) -> int:
        """Frames to a node that is alone with the stranger; how many it refused."""
        nodes = self.cluster(seed)
        leader = nodes.serving()
        others = [n for n in nodes.alive() if n is not leader]
        if what == "newcomer":
            node = self.newcomer(nodes)
        else:
            node = leader if what == "leader" else others[0]
        if what == "behind":
            nodes.kill(node.begin.address)
            for _ in range(6):
                nodes.enqueue(leader, b"x" * 100)
            nodes.run_until(nodes.settled)
            node = leader
        nodes.cut = {(node.begin.address, other) for other in nodes.nodes}
        drawn = Drawn(node, random.Random(seed))
        senders = [n.replica.node_id for n in nodes.nodes.values() if n is not node] + [STRANGER]
        refused = 0
        for number in range(FRAMES):
            kind, body = drawn.frame()
            sender = drawn.random.choice(senders)
            try:
                node.replica.peer_frame(sender, kind, body)
            except MalformedError:
                refused += 1
            if number % 3 == 0:
                node.clock_ms += drawn.random.choice((0, 20, 20, 20, 600))
                node.replica.advance_clock(node.clock_ms)
                try:
                    nodes.turn(node)
                except CorruptFileError:
                    # Two entries had one index and term. That is the end of the process that makes
                    # a snapshot, not of the node.
                    return refused
        return refused

    def test_no_frame_ends_a_node(self):
        for what in ("leader", "follower", "behind", "newcomer"):
            for seed in range(NODES_OF_A_KIND):
                with self.subTest(what=what, seed=seed):
                    self.assertGreater(self.bear(what, seed), 0)

    # --- one frame each

    def assert_refused(self, node: Node, message, words: str) -> None:
        """Nothing comes of it."""
        raft = node.replica.raft
        before = raft.current_term, raft.role, raft.log.last_index, raft.log.commit_index
        with self.assertRaisesRegex(MalformedError, words):
            node.replica.peer_frame(STRANGER, *encode_message(message))
        self.assertEqual((raft.current_term, raft.role, raft.log.last_index,
                          raft.log.commit_index), before)

    def test_to_a_leader(self):
        nodes = self.cluster(1)
        leader = nodes.serving()
        raft = leader.replica.raft
        term, last = raft.current_term, raft.log.last_index
        alone = f"this node leads in term {term}, and nobody else does"
        for message, words in (
                (Append(term, last, term, 0), alone),
                (Heartbeat(term, 0, 0, 1), alone),
                (Snapshot(term, last + 9, term, 5, 1, 0, b"x"), alone),
                (AppendReply(term, True, last + 1), f"entry {last + 1} is acknowledged"),
                (HeartbeatReply(term, raft.read_round + 1, 1), "is confirmed, and the newest is"),
                (PreVote(2**33, 0, 0), "no election"), (Vote(2**63, 0, 0), "no election"),
                (VoteReply(U64_MAX, False), "no election")):
            with self.subTest(message=message):
                self.assert_refused(leader, message, words)
        nodes.run_until(nodes.settled)
        self.assertIs(nodes.serving(), leader)

    def test_to_a_follower(self):
        nodes = self.cluster(1)
        node = next(n for n in nodes.alive() if not n.replica.leads)
        replica, log = node.replica, node.replica.raft.log
        term, last = replica.raft.current_term, log.last_index

        def batch(index: int, stamp: int):
            return encode_entry(index, term, EntryKind.BATCH, struct.pack(">Q", stamp))

        def members(**changed):
            membership = dataclasses.replace(replica.raft.membership, **changed)
            return [encode_entry(last + 1, term, EntryKind.MEMBERSHIP,
                                 encode_membership(membership))]
        now = replica.machine.time_ms
        wrong = encode_entry(last, term + 1, EntryKind.EMPTY, b"")
        for append, words in (
                (Append(term, last, term + 1, 0), f"entry {last} is committed here"),
                (Append(term + 1, last - 1, term, 0, [wrong]), f"entry {last} is committed here"),
                (Append(term, last, term, last + 1, [batch(last + 1, now - 1)]), "has stamp"),
                (Append(term, last, term, 0, [batch(last + 1, now + 9), batch(last + 2, now)]),
                 f"entry {last + 2} has stamp {now}, after {now + 9}"),
                (Append(term, last, term, 0, [batch(last + 1, 2**63)]), "has stamp"),
                (Append(term, last, term, 0, members(cluster_id=b"z" * 16)), "no membership of"),
                (Append(term, last, term, 0, members(members=())), "no membership of"),
                (Append(term, last, term, 0, members(members=(Member(0, D, True),))), "without an"),
                (Append(term, last, term, 0, members(target=("nowhere",))), "nowhere"),
                (Snapshot(term, 2**63, term, 5, 1, 0, b"x"), "no log will ever reach")):
            with self.subTest(words=words):
                self.assertEqual(log.commit_index, last)
                self.assert_refused(node, append, words)
        # Who led in an earlier term and does not know is answered, not refused.
        replica.peer_frame(STRANGER, *encode_message(Append(term - 1, last, term - 1, 0)))
        # What is not committed yet may be replaced, and counts for the time in the log.
        replica.peer_frame(STRANGER, *encode_message(
            Append(term, last, term, 0, [batch(last + 1, now + 50)])))
        self.assertEqual(log.last_index, last + 1)
        self.assert_refused(node, Append(term, last + 1, term, 0, [batch(last + 2, now + 49)]),
                            f"after {now + 50}")
        again = encode_entry(last + 1, term + 1, EntryKind.BATCH, struct.pack(">Q", now + 1))
        replica.peer_frame(STRANGER, *encode_message(Append(term + 1, last, term, 0, [again])))
        self.assertEqual(log.last_term, term + 1)

    def test_a_term_that_was_taken_leaves_a_next_one(self):
        """What one node takes all others must take too, and the elections after it."""
        for term, taken in ((2**32, True), (2**33, False), (2**63 - 1, False)):
            nodes = self.cluster(1)
            node = next(n for n in nodes.alive() if not n.replica.leads)
            term += node.replica.raft.current_term
            message = VoteReply(term, False)
            if taken:
                node.replica.peer_frame(STRANGER, *encode_message(message))
                self.assertEqual(node.replica.raft.current_term, term)
            else:
                self.assert_refused(node, message, "no election can have led")
            term = node.replica.raft.current_term
            nodes.run_until(lambda reached=term + taken: nodes.settled() and nodes.serving()
                            and nodes.serving().replica.raft.current_term >= reached)
            for address in (A, B, C):
                nodes.kill(address)
            for address in (A, B, C):
                nodes.revive(address)
            nodes.run_until(lambda: nodes.settled() and nodes.serving())
            self.assertEqual(nodes.serving().replica.raft.current_term > 2**32, taken)
            newcomer = nodes.add(D, join=A)     # whose log is empty: it catches up
            nodes.run_until(lambda node=newcomer: node.replica.raft is not None
                            and node.replica.raft.membership.is_voter(node.replica.node_id))

    def test_a_stamp_that_was_taken_leaves_a_next_one(self):
        for step, taken in ((2**40, True), (2**40 + 1, False)):
            nodes = self.cluster(1)
            node = next(n for n in nodes.alive() if not n.replica.leads)
            log, term = node.replica.raft.log, node.replica.raft.current_term + 1
            last = log.last_index
            stamp = node.replica.machine.time_ms + step
            append = Append(term, last, log.term_at(last), 0, [
                encode_entry(last + 1, term, EntryKind.BATCH, struct.pack(">Q", stamp))])
            if taken:
                node.replica.peer_frame(STRANGER, *encode_message(append))
                self.assertEqual(log.last_index, last + 1)
            else:
                self.assert_refused(node, append, "has stamp")
            nodes.run_until(lambda: nodes.settled() and nodes.serving())
            nodes.enqueue(nodes.serving(), b"later")
            nodes.run_until(nodes.settled)
            times = {n.replica.machine.time_ms >= stamp for n in nodes.alive()}
            self.assertEqual(times, {taken})

    def test_to_a_newcomer(self):
        node = self.newcomer(self.cluster(1))
        self.assert_refused(node, Append(2, 0, 0, 1, [encode_entry(1, 1, EntryKind.EMPTY, b"")]),
                            "begins with the founders' membership")


if __name__ == "__main__":
    unittest.main()
