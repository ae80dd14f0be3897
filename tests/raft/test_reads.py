"""Reads and the empty entry (Raft 8, thesis 6.4)."""

from raftnet.errors import NotLeaderError
from raftnet.raft.entry import EntryKind
from raftnet.raft.membership import QuorumRule
from raftnet.raft.types import AppendReply, Heartbeat, HeartbeatReply, Role
from tests.raft.harness import Cluster, RaftTestCase


class ReadTest(RaftTestCase):
    """Section 8."""

    def leading(self, voters=(1, 2, 3), **kwargs) -> Cluster:
        """Node 1 leads in term 2, its empty entry is committed, nothing is on its way."""
        cluster = Cluster(voters, **kwargs)
        cluster.elect(1)
        return cluster

    def read(self, cluster: Cluster, token: int = 7) -> int:
        """Ask node 1 to read; the round that it begins."""
        cluster.core(1).read(token)
        cluster.collect(1)
        return cluster.core(1).read_round

    def test_leader_begins_with_an_empty_entry(self):
        """8: "each leader commits a blank no-op entry at the start of its term"."""
        cluster = self.leading()
        entry = cluster.core(1).log.entry(2)
        self.assertEqual((entry.kind, entry.term, entry.payload), (EntryKind.EMPTY, 2, b""))
        self.assertTrue(cluster.core(1).leads_ready)
        self.assert_committed(cluster, 2, 1)

    def test_no_read_before_an_entry_of_the_own_term_is_committed(self):
        """8: before it, the leader cannot know which entries are committed."""
        cluster = Cluster([1, 2, 3], logs={n: [1, 1, 1] for n in (1, 2, 3)})
        cluster.campaign(1)
        while cluster.core(1).role is not Role.LEADER:
            cluster.deliver(cluster.take())
            for node_id in (1, 2, 3):
                cluster.sync(node_id)
        cluster.take()
        self.read(cluster)
        cluster.step(2, 1, HeartbeatReply(2, cluster.core(1).read_round, 0))
        self.assertEqual(cluster.nodes[1].reads, {})
        cluster.sync(1)
        cluster.step(2, 1, AppendReply(2, True, 4))
        self.assertEqual(cluster.nodes[1].reads, {}, "the round began before the commit")
        cluster.step(3, 1, HeartbeatReply(2, cluster.core(1).read_round, 0))
        self.assertEqual(cluster.nodes[1].reads, {7: 4})

    def test_read_needs_a_quorum_for_a_round_begun_after_it(self):
        """8: it "exchanges heartbeat messages with a majority before responding"."""
        half = QuorumRule.HALF_ROUNDED_UP_PLUS_ONE
        for voters, rule, others in [(3, QuorumRule.MAJORITY, 1), (5, QuorumRule.MAJORITY, 2),
                                     (3, half, 2), (6, half, 3)]:
            with self.subTest(voters=voters, rule=rule):
                cluster = self.leading(range(1, voters + 1), rule=rule)
                old = self.read(cluster, 6)
                new = self.read(cluster, 7)
                self.assertGreater(new, old)
                for node_id in range(2, voters + 1):
                    cluster.step(node_id, 1, HeartbeatReply(2, old, 0))
                self.assertEqual(cluster.nodes[1].reads, {6: 2})
                for node_id in range(2, 2 + others):
                    self.assertNotIn(7, cluster.nodes[1].reads)
                    cluster.step(node_id, 1, HeartbeatReply(2, new, 0))
                self.assertEqual(cluster.nodes[1].reads, {6: 2, 7: 2})

    def test_round_is_counted_by_sender(self):
        """8: one follower that answers twice is no majority."""
        cluster = self.leading([1, 2, 3, 4, 5])
        number = self.read(cluster)
        for _ in range(3):
            cluster.step(2, 1, HeartbeatReply(2, number, 0))
        self.assertEqual(cluster.nodes[1].reads, {})

    def test_late_answer_to_an_older_round_takes_nothing_back(self):
        """8: a follower's newest answer counts, whatever arrives after it."""
        cluster = self.leading([1, 2, 3, 4, 5])
        old = self.read(cluster, 6)
        new = self.read(cluster, 7)
        cluster.step(2, 1, HeartbeatReply(2, new, 0))
        cluster.step(2, 1, HeartbeatReply(2, old, 0))
        cluster.step(3, 1, HeartbeatReply(2, new, 0))
        self.assertEqual(cluster.nodes[1].reads, {6: 2, 7: 2})

    def test_heartbeats_of_time_do_not_answer_a_read(self):
        """8: an answer to a heartbeat sent before the read is no proof for it."""
        cluster = self.leading()
        cluster.tick(100, 1)
        beats = cluster.take(Heartbeat)
        self.read(cluster)
        cluster.take()
        cluster.deliver(beats)
        cluster.deliver(cluster.take(HeartbeatReply))
        self.assertEqual(cluster.nodes[1].reads, {})

    def test_round_leaves_before_the_disk(self):
        """Design: read rounds wait for no sync."""
        cluster = self.leading()
        cluster.propose(1)
        self.read(cluster)
        self.assertEqual(len(cluster.take(Heartbeat)), 2)

    def test_reads_of_one_turn_share_a_round(self):
        """Design: work is per batch."""
        cluster = self.leading()
        before = cluster.core(1).read_round
        for token in range(50):
            cluster.core(1).read(token)
        cluster.settle()
        self.assertEqual(cluster.nodes[1].reads, {token: 2 for token in range(50)})
        self.assertEqual(cluster.core(1).read_round, before + 1)

    def test_read_index_is_what_was_committed(self):
        """8: everything that was committed when the read was asked is seen by it."""
        cluster = self.leading()
        cluster.replicate(1, 3)
        self.read(cluster)
        cluster.propose(1)
        cluster.settle()
        self.assertEqual(cluster.nodes[1].reads, {7: 5})

    def test_single_node_reads_at_once(self):
        """8: it is its own majority."""
        cluster = self.leading([1])
        self.read(cluster)
        self.assertEqual(cluster.nodes[1].reads, {7: 2})

    def test_stale_leader_cannot_read(self):
        """8: "a leader that has been deposed": its reads are refused, never answered."""
        cluster = self.leading([1, 2, 3, 4, 5])
        cluster.isolate(1, 2)
        cluster.crash(2)            # 2 would follow; alone, 1 hears nobody
        cluster.elect(3)
        cluster.replicate(3, 2)
        self.assertEqual(cluster.core(1).role, Role.LEADER)
        self.read(cluster)
        cluster.settle()
        self.assertEqual(cluster.nodes[1].reads, {})
        cluster.heal()
        cluster.beat()
        self.assertEqual(cluster.nodes[1].reads, {7: 0})
        self.assertEqual(cluster.core(1).role, Role.FOLLOWER)

    def test_reads_that_wait_are_refused_at_step_down(self):
        """8: also those without a round yet."""
        cluster = self.leading()
        self.read(cluster, 7)
        cluster.core(1).read(8)
        cluster.step(2, 1, Heartbeat(9, 0, 0, 0))
        self.assertEqual(cluster.nodes[1].reads, {7: 0, 8: 0})

    def test_round_of_an_earlier_leadership_does_not_count(self):
        """8: rounds are never numbered anew within a process."""
        cluster = self.leading()
        old = self.read(cluster)
        cluster.settle()
        cluster.elect(2)
        cluster.elect(1)
        self.assert_leader(cluster, 1)
        self.assertGreater(self.read(cluster, 9), old)

    def test_follower_does_not_read(self):
        """8: it says so."""
        with self.assertRaises(NotLeaderError):
            self.leading().core(2).read(1)
