"""Changes of the membership: what is refused, and a leader that removes itself (thesis 4)."""

from raftnet.errors import ErrorCode
from raftnet.raft.membership import Member, QuorumRule
from raftnet.raft.types import AppendReply, PreVote, Role, TimeoutNow, Vote, VoteReply
from tests.raft.changing import ChangesTestCase
from tests.raft.harness import Cluster, address_of


class LiveQuorumTest(ChangesTestCase):
    """What would lose the live quorum is refused; a dead node is never removed by itself."""

    def test_removing_a_live_voter_beside_a_dead_one(self):
        """Two would be left, of which one is dead: nothing could be decided any more."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.beats(cluster, 6)
        membership = cluster.core(1).membership
        self.assert_refused(cluster, membership.without_member(2), ErrorCode.QUORUM_AT_RISK,
                            "2 of the 2 voters must agree afterwards, and only 1 would be there: "
                            "127.0.0.1:5003 not heard")
        cluster.change(1, membership.without_member(3))     # the dead one may go
        cluster.settle()
        cluster.change(1, cluster.core(1).membership.without_member(2))
        cluster.settle()
        self.assert_voters(cluster, [1], 1)
        cluster.replicate(1)
        self.assert_committed(cluster, 5, 1)

    def test_the_rule_of_the_cluster_counts(self):
        """With half rounded up plus one, three voters tolerate no failure."""
        rule = QuorumRule.HALF_ROUNDED_UP_PLUS_ONE
        cluster = self.led([1, 2, 3, 4], rule=rule)
        cluster.crash(4)
        self.beats(cluster, 6)
        self.assert_refused(cluster, cluster.core(1).membership.without_member(3),
                            ErrorCode.QUORUM_AT_RISK, "3 of the 3 voters")
        cluster.change(1, cluster.core(1).membership.without_member(4))

    def test_one_that_was_never_heard_does_not_count(self):
        """A new leader has to hear a voter before it counts on it."""
        cluster = Cluster([1, 2, 3])
        cluster.crash(3)
        cluster.elect(1)
        self.assert_refused(cluster, cluster.core(1).membership.without_member(2),
                            ErrorCode.QUORUM_AT_RISK)

    def test_a_voter_that_nobody_heard_is_not_added(self):
        """As a learner it may wait; as a voter it would cost the quorum."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.beats(cluster, 6)
        membership = cluster.core(1).membership
        self.assert_refused(cluster, membership.with_member(Member(4, "a:4", True)),
                            ErrorCode.QUORUM_AT_RISK)
        cluster.change(1, membership.with_member(Member(4, "a:4", False)))

    def test_never_the_last_voter(self):
        """Neither removed nor made a learner."""
        cluster = self.led([1], [2], stays=[2])
        membership = cluster.core(1).membership
        for change in (membership.without_member(1),
                       membership.with_member(Member(1, address_of(1), False))):
            self.assert_refused(cluster, change, ErrorCode.QUORUM_AT_RISK, "last voter")

    def test_dead_voter_stays_a_member(self):
        """However long it is silent."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.beats(cluster, 600)
        self.assert_leader(cluster, 1, term=2)
        self.assert_voters(cluster, [1, 2, 3])

    def test_removal_from_two_to_one_releases_the_reads_that_waited(self):
        """The voter whose answer they waited for counts no more."""
        cluster = self.led([1, 2])
        cluster.crash(2)
        cluster.core(1).read(7)
        cluster.collect(1)
        self.assertEqual(cluster.nodes[1].reads, {})
        cluster.change(1, cluster.core(1).membership.without_member(2))
        self.assertEqual(cluster.nodes[1].reads, {7: 2})


class LeaderRemovalTest(ChangesTestCase):
    """Thesis 4.2.2: a leader that removes itself."""

    def remove_leader(self, cluster: Cluster) -> None:
        """Node 1 appends its own removal; nothing is delivered."""
        cluster.change(1, cluster.core(1).membership.without_member(1))

    def test_leads_until_committed_and_hands_over(self):
        """To a voter that holds everything, without a timeout."""
        cluster = self.led([1, 2, 3])
        self.remove_leader(cluster)
        self.assert_leader(cluster, 1, term=2)
        cluster.propose(1)      # it still takes requests
        cluster.settle()
        leader = self.leader_of(cluster)
        self.assertIn(leader, (2, 3))
        self.assertEqual(cluster.core(leader).current_term, 3)
        self.assertEqual(sum(type(e.message) is TimeoutNow for e in cluster.sent), 1)
        self.assert_voters(cluster, [2, 3], 2, 3)
        self.assertEqual(cluster.core(leader).log.term_at(4), 2)
        self.assertEqual(cluster.core(leader).membership.removed, (1,))

    def test_does_not_count_its_own_copy(self):
        """Two of three voters are left: both must hold the entry."""
        cluster = self.led([1, 2, 3])
        cluster.cut = {(1, 3)}
        self.remove_leader(cluster)
        cluster.settle()
        self.assertEqual(cluster.core(1).log.stable_index, 3)
        self.assertEqual(cluster.core(1).log.commit_index, 2)
        self.assert_leader(cluster, 1, term=2)

    def test_does_not_count_its_own_answer_to_a_read(self):
        """Nor its own life in check-quorum."""
        cluster = self.led([1, 2, 3])
        cluster.slow_disks = {2, 3}     # the removal stays uncommitted
        self.remove_leader(cluster)
        cluster.settle()
        cluster.cut = {(1, 3)}
        cluster.core(1).read(7)
        cluster.settle()
        self.assertEqual(cluster.nodes[1].reads, {})
        cluster.cut = set()
        self.beats(cluster)
        self.assertEqual(cluster.nodes[1].reads, {7: 2})
        cluster.cut = {(1, 3)}          # one of two is no quorum
        self.beats(cluster, 6)
        self.assertIs(cluster.core(1).role, Role.FOLLOWER)

    def test_hands_over_to_the_most_up_to_date(self):
        """What was appended behind the removal is not lost with a good choice."""
        cluster = self.led([1, 2, 3, 4, 5])
        cluster.slow_disks = {2}
        self.remove_leader(cluster)
        cluster.settle()
        (asked,) = [e for e in cluster.sent if type(e.message) is TimeoutNow]
        self.assertIn(asked.to, (3, 4, 5))
        self.assertEqual(self.leader_of(cluster), asked.to)

    def test_what_it_took_last_is_handed_over_too(self):
        """In the very turn in which the removal commits."""
        cluster = self.led([1, 2])
        self.remove_leader(cluster)
        cluster.deliver(cluster.take())
        cluster.sync(1)
        cluster.sync(2)
        (acknowledged,) = cluster.take(AppendReply)
        core = cluster.core(1)
        core.step(2, acknowledged.message)
        core.propose(b"last")
        cluster.settle()
        self.assertEqual(self.leader_of(cluster), 2)
        self.assertEqual(cluster.core(2).log.entry(4).payload, b"last")

    def test_hand_over_lost(self):
        """An ordinary election does it then."""
        cluster = self.led([1, 2, 3])
        self.remove_leader(cluster)
        while not cluster.take(TimeoutNow):
            cluster.deliver(cluster.take())
            for node_id in cluster.nodes:
                cluster.sync(node_id)
        self.assertIn(self.leader_of(cluster), (2, 3))

    def test_never_campaigns_afterwards(self):
        """It is no voter, and knows that this is committed."""
        cluster = self.led([1, 2, 3])
        self.remove_leader(cluster)
        cluster.settle()
        self.leader_of(cluster)
        cluster.isolate(1)
        cluster.sent.clear()
        cluster.tick(60_000, 1)
        self.assertEqual([e for e in cluster.sent if e.sender == 1], [])
        self.assertIs(cluster.core(1).role, Role.FOLLOWER)

    def test_comes_back_and_disturbs_nobody(self):
        """Thesis 4.2.3: after a restart it does not know what is committed; its questions change
        nothing."""
        cluster = self.led([1, 2, 3])
        self.remove_leader(cluster)
        cluster.settle()
        leader = self.leader_of(cluster)
        term = cluster.core(leader).current_term
        cluster.crash(1)
        cluster.restart(1)
        for _ in range(50):
            cluster.beat()
        self.assert_leader(cluster, leader, term)
        cluster.isolate(1)      # also where the others have no leader
        cluster.heal()
        cluster.core(leader).become_follower(term, 0)
        cluster.campaign(1)
        cluster.settle()
        self.assertIsNot(cluster.core(1).role, Role.LEADER)
        self.assertEqual(cluster.core(1).current_term, term)

    def test_of_two_voters_crashes_before_the_other_has_the_entry(self):
        """Thesis 4.2.2, figure 4.6: only the removed one can win, without a vote of its own."""
        cluster = self.led([1, 2])
        cluster.cut = {(1, 2)}
        self.remove_leader(cluster)
        cluster.settle()
        self.assert_voters(cluster, [2], 1)
        self.assert_voters(cluster, [1, 2], 2)
        cluster.crash(1)
        cluster.restart(1)
        cluster.core(1).elapse(0)
        cluster.campaign(1)
        cluster.settle()
        self.assertIs(cluster.core(1).role, Role.CANDIDATE)     # its own vote is none
        cluster.heal()
        for _ in range(20):
            self.beats(cluster)
        self.assertEqual(self.leader_of(cluster), 2)
        self.assert_voters(cluster, [2])
        self.assertEqual(cluster.core(2).log.term_at(3), 2)

    def test_removed_leader_crashes_with_an_entry_that_others_outvote(self):
        """It is not committed, and is replaced: the node is a voter again."""
        cluster = self.led([1, 2, 3])
        cluster.cut = {(1, 2), (1, 3)}
        self.remove_leader(cluster)
        cluster.settle()
        cluster.crash(1)
        cluster.heal()
        cluster.elect(2)
        cluster.restart(1)
        self.assert_voters(cluster, [2, 3], 1)
        for _ in range(10):
            self.beats(cluster)
        self.assert_voters(cluster, [1, 2, 3])
        cluster.elect(1)
        self.assert_leader(cluster, 1)

    def test_waits_for_a_transfer(self):
        """A transfer that was begun before goes on; whoever leads then commits the removal."""
        cluster = self.led([1, 2, 3])
        self.remove_leader(cluster)
        cluster.core(1).transfer(3)
        cluster.settle()
        self.assertEqual(self.leader_of(cluster), 3)
        self.assert_voters(cluster, [2, 3], 2, 3)

    def test_is_not_a_target_of_a_transfer_or_a_step(self):
        """A leader that is no voter takes no other step than to go."""
        cluster = self.led([1, 2, 3], [4])
        self.assert_voters(cluster, [1, 2, 3, 4])
        cluster.crash(4)
        self.beats(cluster, 6)
        cluster.add_node(5)
        cluster.change(1, cluster.core(1).membership.with_member(Member(5, address_of(5), False))
                       .without_member(1))
        cluster.settle()
        self.assertNotEqual(self.leader_of(cluster), 1)
        self.beats(cluster, 10)
        self.assert_voters(cluster, [2, 3, 4, 5], 2, 3)     # the next one promotes


class SingleChangeTest(ChangesTestCase):
    """Thesis 4.1, against the world's disorder."""

    def test_no_step_before_an_entry_of_the_term_is_committed(self):
        """Ongaro's erratum, for what the leader does by itself too."""
        cluster = Cluster([1, 2, 3, 4], [5])
        cluster.isolate(4, 5)
        cluster.campaign(1)
        while cluster.core(1).role is not Role.LEADER:
            cluster.deliver(cluster.take((PreVote, Vote, VoteReply)) or cluster.take())
            for node_id in cluster.nodes:
                cluster.sync(node_id)
        cluster.take()
        cluster.sync(1)
        cluster.step(5, 1, AppendReply(2, True, 2))
        cluster.core(1).log.commit_to(1)
        cluster.collect(1)
        self.assertEqual(cluster.core(1).log.last_index, 2)
        for node_id in (2, 3):
            cluster.step(node_id, 1, AppendReply(2, True, 2))
        self.assert_voters(cluster, [1, 2, 3, 4, 5], 1)

    def test_late_answer_of_a_removed_node_counts_nothing(self):
        """Its acknowledgement may have been on its way."""
        cluster = self.led([1, 2, 3])
        cluster.propose(1)
        cluster.take()
        cluster.settle()
        cluster.change(1, cluster.core(1).membership.without_member(3))
        cluster.step(3, 1, AppendReply(2, True, 4))
        cluster.sync(1)
        self.assertEqual(cluster.core(1).log.commit_index, 2)

    def test_candidate_counts_by_the_newest_membership_in_its_log(self):
        """Raft 6: also where it is not committed."""
        cluster = self.led([1, 2, 3, 4])
        cluster.isolate(1, 2)
        cluster.change(1, cluster.core(1).membership.without_member(4))
        cluster.settle()
        self.assertEqual(cluster.core(1).log.commit_index, 3)
        cluster.crash(1)
        cluster.heal()
        cluster.elect(2)
        self.assert_leader(cluster, 2, term=3)
        self.assert_voters(cluster, [1, 2, 3], 2, 3)

    def test_removed_and_old_membership_cannot_elect_two(self):
        """The removed one still counts with the old quorum: three of four, and gets but itself."""
        cluster = self.led([1, 2, 3, 4])
        cluster.change(1, cluster.core(1).membership.without_member(4))
        cluster.settle()
        self.assert_voters(cluster, [1, 2, 3, 4], 4)
        for _ in range(100):
            cluster.beat()
        self.assert_leader(cluster, 1, term=2)
        self.assertEqual(cluster.core(4).current_term, 2)
