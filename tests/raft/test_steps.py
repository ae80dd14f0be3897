"""Steps that a leader takes by itself: learners, twins, a target (thesis 4.2; design: Founding)."""

from raftnet.raft.membership import Member
from tests.raft.changing import ChangesTestCase
from tests.raft.harness import Cluster, address_of


class LearnerTest(ChangesTestCase):
    """Thesis 4.2.1, and learners that stay."""

    def test_stays(self):
        """A read replica is never promoted."""
        cluster = self.led([1, 2, 3])
        cluster.add_node(4)
        cluster.change(1, cluster.core(1).membership.with_member(
            Member(4, address_of(4), False, stays=True)))
        self.beats(cluster, 20)
        self.assert_voters(cluster, [1, 2, 3])
        self.assert_same_logs(cluster)
        self.assertFalse(cluster.core(1).steps_needed)

    def test_stays_beside_one_that_does_not(self):
        """While the leader has steps to take it looks at all."""
        cluster = self.led([1, 2, 3], [4], stays=[4])
        cluster.change(1, cluster.core(1).membership.with_member(Member(5, address_of(5), False)))
        self.beats(cluster, 20)
        self.assertTrue(cluster.core(1).steps_needed)
        self.assert_voters(cluster, [1, 2, 3])

    def test_promoted_by_the_next_leader(self):
        """What one leader began another ends: the membership alone says what is to be done."""
        cluster = self.led([1, 2, 3])
        cluster.add_node(4)
        cluster.cut = {(1, 4)}
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(4), False)))
        cluster.settle()
        cluster.crash(1)
        cluster.elect(2)
        self.beats(cluster, 3)
        self.assert_voters(cluster, [1, 2, 3, 4])

    def test_one_at_a_time(self):
        """Three learners become voters by three entries, each committed before the next."""
        cluster = self.led([1], [2, 3, 4])
        voters = [cluster.core(1).log.term_at(i) for i in range(1, 6)]
        self.assertEqual(voters, [1, 2, 2, 2, 2])
        self.assert_voters(cluster, [1, 2, 3, 4])

    def test_none_while_a_transfer_runs(self):
        """Its log must not grow."""
        cluster = self.led([1, 2, 3])
        cluster.add_node(4)
        cluster.cut = {(1, 4), (1, 2)}
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(4), False)))
        cluster.settle()
        cluster.core(1).transfer(2)
        cluster.cut = {(1, 2)}
        cluster.core(1).peer_connected(4)
        cluster.settle()
        self.assertEqual(cluster.core(1).progress[4].match_index, 3)
        self.assert_voters(cluster, [1, 2, 3], 1)
        self.beats(cluster, 4)
        self.assert_voters(cluster, [1, 2, 3], 1)
        self.beats(cluster)
        cluster.heal()
        self.beats(cluster, 2)
        self.assert_voters(cluster, [1, 2, 3, 4], 1)


class TwinsTest(ChangesTestCase):
    """An emptied directory: 4 is the newcomer at the address of voter 3."""

    def twins(self, cluster: Cluster, stays: bool = False) -> None:
        """Node 1 takes 4 in; nothing is delivered."""
        cluster.add_node(4)
        cluster.change(1, cluster.core(1).membership.with_member(
            Member(4, address_of(3), False, stays)))

    def test_newcomer_takes_the_place(self):
        """One entry removes the old identity, the next promotes the new one."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.twins(cluster)
        cluster.settle()
        self.assert_voters(cluster, [1, 2, 3], 1)       # not before 3 was silent for a while
        self.beats(cluster, 8)
        self.assert_voters(cluster, [1, 2, 4])
        membership = cluster.core(1).membership
        self.assertEqual(membership.removed, (3,))
        self.assertEqual(membership.member(4), Member(4, address_of(3), True))
        self.assertEqual(cluster.core(1).log.last_index, 5)

    def test_not_before_it_has_caught_up(self):
        """Until then the old identity might come back, and is worth more."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.twins(cluster)
        cluster.cut = {(4, 1)}
        self.beats(cluster, 20)
        self.assert_voters(cluster, [1, 2, 3], 1, 2)
        self.assertIsNotNone(cluster.core(1).membership.member(4))

    def test_old_identity_returns_first(self):
        """The newcomer is dropped."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.twins(cluster)
        cluster.crash(4)
        self.beats(cluster, 10)
        self.assert_voters(cluster, [1, 2, 3])
        cluster.restart(3)
        cluster.core(1).peer_connected(3)
        self.beats(cluster, 2)
        self.assertEqual(cluster.core(3).membership.removed, (4,))
        self.assert_voters(cluster, [1, 2, 3])

    def test_heard_shortly_before_it_died(self):
        """What was heard of the old one before is no reason to drop the new one."""
        cluster = self.led([1, 2, 3])
        self.beats(cluster, 3)
        cluster.crash(3)
        self.twins(cluster)
        cluster.cut = {(1, 4)}          # it needs a while to come up
        self.beats(cluster, 8)
        self.assertIsNotNone(cluster.core(1).membership.member(4))
        cluster.heal()
        cluster.core(1).peer_connected(4)
        self.beats(cluster, 3)
        self.assert_voters(cluster, [1, 2, 4])

    def test_both_answer(self):
        """Two processes at one address: no reason to remove either, nor to promote."""
        cluster = self.led([1, 2, 3])
        self.twins(cluster)
        self.beats(cluster, 20)
        self.assert_voters(cluster, [1, 2, 3])
        self.assertIsNotNone(cluster.core(1).membership.member(4))

    def test_moved_old_identity_ends_it(self):
        """It was never gone, it is elsewhere: then both are members."""
        cluster = self.led([1, 2, 3])
        self.twins(cluster)
        self.beats(cluster)
        cluster.change(1, cluster.core(1).membership.with_member(Member(3, "127.0.0.1:6003", True)))
        self.beats(cluster, 2)
        self.assert_voters(cluster, [1, 2, 3, 4])

    def test_leader_dies_after_each_step(self):
        """The next leader goes on where it was left."""
        for entries in (3, 4, 5):
            with self.subTest(entries=entries):
                cluster = self.led([1, 2, 3, 5, 6])
                cluster.crash(3)
                self.twins(cluster)
                cluster.settle()
                for _ in range(20):
                    if cluster.core(1).log.last_index >= entries:
                        break
                    cluster.tick(100)
                    cluster.deliver(cluster.take())
                    for node_id in (1, 2, 4, 5, 6):
                        cluster.sync(node_id)
                cluster.crash(1)
                cluster.pool.clear()
                self.leader_of(cluster)
                self.beats(cluster, 10)
                self.assert_voters(cluster, [1, 2, 4, 5, 6])

    def test_new_leader_gives_both_a_timeout(self):
        """Silence is counted from the beginning of its term."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.twins(cluster)
        cluster.settle()
        cluster.crash(1)
        cluster.restart(1)
        cluster.elect(2)
        cluster.settle()
        self.assert_voters(cluster, [1, 2, 3], 2)
        self.assertIsNotNone(cluster.core(2).membership.member(4))
        self.beats(cluster, 8)
        self.assert_voters(cluster, [1, 2, 4])

    def test_learner_that_stays(self):
        """Its newcomer stays one too, and is no voter on the way."""
        cluster = self.led([1, 2], [3], stays=[3])
        cluster.crash(3)
        self.twins(cluster, stays=True)
        self.beats(cluster, 8)
        membership = cluster.core(1).membership
        self.assertEqual([m.node_id for m in membership.members], [1, 2, 4])
        self.assert_voters(cluster, [1, 2])
        cluster = self.led([1, 2], [3], stays=[3])
        cluster.crash(3)
        self.twins(cluster, stays=True)
        cluster.crash(4)
        cluster.restart(3)
        self.beats(cluster, 8)
        self.assertEqual([m.node_id for m in cluster.core(1).membership.members], [1, 2, 3])

    def test_two_voters_at_one_address_are_nobodys_twins(self):
        """Neither is a newcomer: an operator must say which is to go."""
        cluster = self.led([1, 2, 3, 4])
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(3), True)))
        cluster.settle()
        cluster.crash(4)
        self.beats(cluster, 20)
        self.assert_voters(cluster, [1, 2, 3, 4])

    def test_newcomer_at_the_leaders_own_address(self):
        """The leader is there: the other cannot be, once it is silent."""
        cluster = self.led([1, 2, 3])
        cluster.add_node(4)
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(1), False)))
        self.beats(cluster, 3)
        self.assert_voters(cluster, [1, 2, 3])
        cluster.crash(4)
        self.beats(cluster, 8)
        self.assertIsNone(cluster.core(1).membership.member(4))


class TargetTest(ChangesTestCase):
    """`members --set`: a replicated target, reached by single changes."""

    def aim(self, cluster: Cluster, *node_ids: int) -> None:
        """Node 1 proposes that these, and no others, shall be the members."""
        addresses = tuple(address_of(node_id) for node_id in node_ids)
        cluster.change(1, cluster.core(1).membership.with_target(addresses))

    def take_in(self, cluster: Cluster, *node_ids: int) -> None:
        """Whoever leads takes these in as learners; the lead of the node does so by itself."""
        for node_id in node_ids:
            cluster.add_node(node_id)
            leader = self.leader_of(cluster)
            cluster.change(leader, cluster.core(leader).membership.with_member(
                Member(node_id, address_of(node_id), False)))
            self.beats(cluster, 3)

    def test_removes_what_is_not_in_it_and_ends(self):
        """One by one; the empty target says that it is reached."""
        cluster = self.led([1, 2, 3, 4, 5])
        self.aim(cluster, 1, 2, 3)
        self.beats(cluster, 3)
        self.assert_voters(cluster, [1, 2, 3], 1, 2, 3)
        membership = cluster.core(1).membership
        self.assertEqual((membership.target, membership.removed), ((), (4, 5)))
        self.assertFalse(cluster.core(1).steps_needed)

    def test_only_once_every_address_is_a_voter(self):
        """First grow, then shrink: never fewer than asked for."""
        cluster = self.led([1, 2, 3])
        self.aim(cluster, 1, 4, 5)
        self.beats(cluster, 5)
        self.assert_voters(cluster, [1, 2, 3])
        self.take_in(cluster, 4)
        self.beats(cluster, 5)
        self.assert_voters(cluster, [1, 2, 3, 4])
        self.take_in(cluster, 5)
        self.beats(cluster, 5)
        self.assert_voters(cluster, [1, 4, 5], 1, 4, 5)

    def test_learners_first_silent_voters_next_the_leader_last(self):
        """So that the quorum is never weaker than it must be."""
        cluster = self.led([1, 2, 3, 4, 5], [6], stays=[6])
        cluster.crash(3)
        self.beats(cluster, 6)
        self.aim(cluster, 4, 5)
        self.beats(cluster, 20)
        leader = self.leader_of(cluster)
        self.beats(cluster, 3)
        self.assertEqual(cluster.core(leader).membership.removed, (6, 3, 2, 1))
        self.assertEqual(cluster.core(leader).membership.target, ())
        self.assert_voters(cluster, [4, 5], 4, 5)

    def test_all_replaced_and_the_leader_dies_at_every_entry(self):
        """A leader's crash in the middle leaves no stuck state, wherever it was."""
        for entries in range(2, 5):     # the first is the target itself, the last removes 1
            with self.subTest(entries=entries):
                cluster = self.led([1, 2, 3])
                self.take_in(cluster, 4, 5, 6)
                first = cluster.core(1).log.last_index
                self.aim(cluster, 4, 5, 6)
                for _ in range(40):
                    if cluster.core(1).log.last_index >= first + entries:
                        break
                    cluster.tick(20)
                    cluster.deliver(cluster.take())
                    for node_id in cluster.nodes:
                        cluster.sync(node_id)
                cluster.crash(1)
                cluster.pool.clear()
                self.leader_of(cluster)
                cluster.restart(1)
                for _ in range(60):
                    self.beats(cluster)
                leader = self.leader_of(cluster)
                self.beats(cluster, 3)
                self.assertEqual(cluster.core(leader).membership.target, ())
                self.assert_voters(cluster, [4, 5, 6], 4, 5, 6)

    def test_refused_step_is_tried_again_once_a_heartbeat(self):
        """A voter that would be needed is silent: the step waits, and says why."""
        cluster = self.led([1, 2, 3])
        cluster.crash(2)
        self.beats(cluster, 6)
        self.aim(cluster, 1, 2)
        self.beats(cluster, 5)
        core = cluster.core(1)
        self.assert_voters(cluster, [1, 2, 3], 1, 3)
        self.assertIn("127.0.0.1:5002 not heard", core.step_refused)
        retry = core.step_retry_ms
        self.assertGreater(retry, core.now_ms + 30)
        for _ in range(3):
            cluster.tick(10)
            cluster.settle()
            self.assertEqual(core.step_retry_ms, retry)
        cluster.restart(2)
        self.beats(cluster, 3)
        self.assert_voters(cluster, [1, 2], 1, 2)
        self.assertEqual(core.step_refused, "")

    def test_learner_that_stays_and_is_asked_for_becomes_a_voter(self):
        """Else the target could never be reached."""
        cluster = self.led([1, 2, 3], [4], stays=[4])
        self.aim(cluster, 1, 2, 4)
        self.beats(cluster, 5)
        self.assert_voters(cluster, [1, 2, 4], 1, 2, 4)

    def test_target_and_twins(self):
        """The newcomer takes the old identity's place first."""
        cluster = self.led([1, 2, 3])
        cluster.crash(3)
        self.beats(cluster, 6)
        self.aim(cluster, 1, 3)
        cluster.settle()
        cluster.add_node(4)
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(3), False)))
        self.beats(cluster, 12)
        self.assert_voters(cluster, [1, 4], 1, 4)
