"""Membership (Raft 6, thesis 4): quorums, one change at a time, learners, founding."""

from raftnet.errors import ChangeRefusedError, NotLeaderError
from raftnet.raft.election import holds_only_founding
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import (
    Member, Membership, QuorumRule, decode_membership, encode_membership, quorum)
from raftnet.raft.types import Append, AppendReply, HardState, Role
from tests.raft.harness import Cluster, Node, RaftTestCase, batch, membership_of


class QuorumTest(RaftTestCase):
    """How many decide."""

    def test_majority(self):
        """n // 2 + 1."""
        self.assertEqual([quorum(n, QuorumRule.MAJORITY) for n in range(1, 8)],
                         [1, 2, 2, 3, 3, 4, 4])

    def test_half_rounded_up_plus_one(self):
        """The assignment's rule: min(n, ceil(n / 2) + 1)."""
        rule = QuorumRule.HALF_ROUNDED_UP_PLUS_ONE
        self.assertEqual([quorum(n, rule) for n in range(1, 8)], [1, 2, 3, 3, 4, 4, 5])

    def test_nobody_never_decides(self):
        """Without voters there is no quorum."""
        for rule in QuorumRule:
            self.assertGreater(quorum(0, rule), 0)

    def test_two_quorums_share_a_node_also_across_a_change(self):
        """Thesis 4.1: what makes single changes safe."""
        for rule in QuorumRule:
            for n in range(1, 50):
                self.assertGreater(quorum(n, rule) + quorum(n + 1, rule), n + 1)

    def test_learners_do_not_count(self):
        """Thesis 4.2.1."""
        self.assertEqual(membership_of([1, 2, 3], [4, 5, 6, 7]).quorum, 2)

    def test_payload_round_trip(self):
        """What is encoded is decoded."""
        old = membership_of([1, 2], [3], QuorumRule.HALF_ROUNDED_UP_PLUS_ONE, founded=False)
        self.assertEqual(decode_membership(encode_membership(old)), old)


class ChangeTest(RaftTestCase):
    """What a leader may propose, and when it is in effect."""

    def without(self, cluster: Cluster, node_id: int, *more: int) -> Membership:
        """The membership of node 1 without these."""
        old = cluster.core(1).membership
        members = tuple(m for m in old.members if m.node_id not in (node_id, *more))
        return Membership(old.cluster_id, members, old.quorum_rule, old.founded)

    def test_in_effect_when_appended(self):
        """Raft 6: "a server always uses the latest configuration in its log"."""
        cluster = Cluster([1, 2, 3, 4])
        cluster.elect(1)
        cluster.core(1).propose_membership(self.without(cluster, 4))
        self.assertEqual(cluster.core(1).membership.voters, [1, 2, 3])
        self.assertNotIn(4, cluster.core(1).progress)
        cluster.collect(1)
        cluster.deliver(cluster.take(Append, to=2))
        self.assertEqual(cluster.core(2).membership.voters, [1, 2, 3])
        self.assertEqual(cluster.core(2).log.commit_index, 2)

    def test_rolled_back_by_truncation(self):
        """Raft 6: an entry that is replaced takes its membership with it."""
        cluster = Cluster([1, 2, 3, 4])
        three = membership_of([1, 2, 3])
        two = membership_of([1, 2])
        for index, membership in ((2, three), (3, two)):
            entry = encode_entry(index, 1, EntryKind.MEMBERSHIP, encode_membership(membership))
            cluster.step(2, 1, Append(1, index - 1, 1, 0, [entry]))
        core = cluster.core(1)
        self.assertEqual((core.membership, core.log.membership_index), (two, 3))
        cluster.step(3, 1, Append(2, 2, 1, 0, [batch(3, 2)]))
        self.assertEqual((core.membership, core.log.membership_index), (three, 2))
        cluster.step(3, 1, Append(3, 1, 1, 0, [batch(2, 3)]))
        self.assertEqual((core.membership, core.log.membership_index), (cluster.membership, 1))

    def test_survives_a_restart(self):
        """It is in the log and nowhere else [PySyncObj #133]."""
        cluster = Cluster([1, 2, 3, 4])
        cluster.elect(1)
        cluster.core(1).propose_membership(self.without(cluster, 4))
        cluster.settle()
        for node_id in (1, 2, 3):
            cluster.crash(node_id)
            cluster.restart(node_id)
            self.assertEqual(cluster.core(node_id).membership.voters, [1, 2, 3])

    def test_none_before_an_entry_of_the_own_term_is_committed(self):
        """Ongaro's erratum: two leaders of different terms could decide without a common node."""
        cluster = Cluster([1, 2, 3, 4])
        cluster.campaign(1)
        while cluster.core(1).role is not Role.LEADER:
            cluster.deliver(cluster.take())
            for node_id in cluster.nodes:
                cluster.sync(node_id)
        cluster.take()
        self.refuse_before_own_term(cluster)
        for node_id in (2, 3):
            cluster.step(node_id, 1, AppendReply(2, True, 2))
        cluster.core(1).propose_membership(self.without(cluster, 4))

    def refuse_before_own_term(self, cluster: Cluster) -> None:
        """Even where everything older, the newest membership included, is known as committed."""
        core = cluster.core(1)
        core.log.commit_to(core.log.last_index - 1)
        self.assertGreaterEqual(core.log.commit_index, core.log.membership_index)
        with self.assertRaises(ChangeRefusedError):
            core.propose_membership(self.without(cluster, 4))

    def test_one_at_a_time(self):
        """Raft 6, thesis 4.1: the next when the last is committed; one voter each."""
        cluster = Cluster([1, 2, 3, 4, 5])
        cluster.elect(1)
        with self.assertRaises(ChangeRefusedError):
            cluster.core(1).propose_membership(self.without(cluster, 4, 5))
        cluster.core(1).propose_membership(self.without(cluster, 5))
        with self.assertRaises(ChangeRefusedError):
            cluster.core(1).propose_membership(self.without(cluster, 4))
        cluster.settle()
        cluster.core(1).propose_membership(self.without(cluster, 4))

    def test_proposed_by_a_leader_only(self):
        """Anybody else refuses."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        with self.assertRaises(NotLeaderError):
            cluster.core(2).propose_membership(cluster.membership)

    def test_counts_with_the_new_quorum(self):
        """Raft 6: from two to three voters, the change itself needs two of three."""
        cluster = Cluster([1, 2, 3, 4])
        cluster.elect(1)
        cluster.isolate(3, 4)
        cluster.core(1).propose_membership(self.without(cluster, 4))
        cluster.settle()
        self.assertEqual(cluster.core(1).log.commit_index, 3)


class LearnerTest(RaftTestCase):
    """A node enters as a learner and votes when it has caught up."""

    def cluster(self) -> Cluster:
        """Node 1 leads 1, 2, 3; node 4 is new, with an empty log."""
        cluster = Cluster([1, 2, 3])
        cluster.nodes[4] = Node(4, cluster.config, HardState(), [], cluster.random.randint)
        cluster.elect(1)
        return cluster

    def add(self, cluster: Cluster) -> None:
        """The leader takes node 4 in."""
        membership = cluster.core(1).membership.with_member(Member(4, "127.0.0.1:5004", False))
        cluster.core(1).propose_membership(membership)
        cluster.collect(1)

    def test_learner_is_promoted_when_it_has_caught_up(self):
        """Thesis 4.2.1."""
        cluster = self.cluster()
        cluster.replicate(1, 10)
        self.add(cluster)
        cluster.settle()
        cluster.beat()
        self.assertEqual(cluster.core(4).membership.voters, [1, 2, 3, 4])
        self.assert_committed(cluster, 14)
        self.assert_same_logs(cluster)

    def test_learner_that_does_not_answer_stays_one(self):
        """[async-raft PR #113] A dead node does not become a voter."""
        cluster = self.cluster()
        cluster.crash(4)
        self.add(cluster)
        for _ in range(30):
            cluster.beat()
        self.assertEqual(cluster.core(1).membership.voters, [1, 2, 3])
        self.assert_leader(cluster, 1, term=2)

    def test_learner_that_caught_up_and_died_stays_one(self):
        """Promotion wants it alive at that time."""
        cluster = self.cluster()
        cluster.slow_disks.add(1)       # so that the adding itself is not yet committed
        cluster.cut = {(2, 1), (3, 1)}
        self.add(cluster)
        cluster.settle()
        self.assertEqual(cluster.core(1).progress[4].match_index, 3)
        cluster.crash(4)
        cluster.core(1).elapse(450)
        cluster.cut = set()
        cluster.tick(0, 1)
        cluster.settle()
        cluster.core(1).elapse(60)
        for _ in range(20):
            cluster.beat()
        cluster.slow_disks.clear()
        for _ in range(20):
            cluster.beat()
        self.assertEqual({core.membership.is_voter(4) for core in cluster.cores}, {False})

    def test_new_node_knows_nobody_and_does_not_campaign(self):
        """It waits to be told."""
        cluster = self.cluster()
        cluster.tick(10_000, 4)
        self.assertEqual(cluster.take(sender=4), [])


class FoundingTest(RaftTestCase):
    """Founders write the same entry 1; clients are served once every founder has it."""

    def test_founded_only_after_every_founder_acknowledged_entry_1(self):
        """Else two of three could found, one be wiped, and the third found again with it."""
        cluster = Cluster([1, 2, 3], founded=False)
        cluster.crash(3)
        cluster.elect(1)
        for _ in range(5):
            cluster.beat()
        self.assert_leader(cluster, 1, term=2)
        self.assertFalse(cluster.core(1).membership.founded)
        cluster.restart(3)
        for _ in range(15):
            cluster.beat()
        for core in cluster.cores:
            self.assertTrue(core.membership.founded)
            self.assertGreaterEqual(core.log.commit_index, core.log.membership_index)

    def test_first_election_is_for_term_2(self):
        """Entry 1 is of term 1, which nobody led."""
        cluster = Cluster([1, 2, 3], founded=False)
        cluster.elect(2)
        self.assert_leader(cluster, 2, term=2)

    def test_lone_founder_founds_by_itself(self):
        """A cluster of one."""
        cluster = Cluster([1], founded=False)
        cluster.elect(1)
        self.assertTrue(cluster.core(1).membership.founded)
        self.assert_committed(cluster, 3)

    def test_holds_only_founding(self):
        """Whether a provisional cluster may still be dropped."""
        cluster = Cluster([1, 2, 3], founded=False)
        self.assertTrue(holds_only_founding(cluster.core(1)))
        cluster.elect(1)
        self.assertFalse(holds_only_founding(cluster.core(1)))
