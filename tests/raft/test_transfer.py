"""Handing leadership over (thesis 3.10): who may be asked, when, and what a late word does."""

from raftnet.errors import BusyError, ChangeRefusedError, ErrorCode, NotLeaderError
from raftnet.raft.types import Append, AppendReply, Heartbeat, Role, TimeoutNow, Vote, VoteReply
from tests.raft.harness import Cluster, RaftTestCase


class TransferTest(RaftTestCase):
    """Node 1 leads in term 2 and hands over."""

    def led(self, *voters: int, learners=()) -> Cluster:
        """A cluster that node 1 leads, at rest; its learners stay learners."""
        cluster = Cluster(voters or (1, 2, 3), learners, stays=learners)
        cluster.elect(1)
        cluster.beat()
        return cluster

    def transfer(self, cluster: Cluster, to: int) -> None:
        """Node 1 begins; nothing is delivered."""
        cluster.core(1).transfer(to)
        cluster.collect(1)

    def test_target_leads_at_once(self):
        """Thesis 3.10: no time passes, although everybody heard a leader just now."""
        cluster = self.led()
        self.transfer(cluster, 2)
        self.assert_sent(cluster.pool, "1->2 TimeoutNow term 2")
        cluster.settle()
        self.assert_leader(cluster, 2, term=3)
        cluster.beat()
        self.assert_follows(cluster.core(1), 2, 3)
        self.assertFalse(cluster.core(1).transferring)

    def test_vote_passes_withholding_and_pre_vote(self):
        """Thesis 4.2.3: the flag says that the leader itself asks."""
        cluster = self.led()
        self.transfer(cluster, 2)
        cluster.deliver(cluster.take(TimeoutNow))
        self.assertEqual(cluster.pool, [])          # no pre-vote, and nothing before the sync
        cluster.sync(2)
        votes = cluster.take(Vote)
        self.assert_sent(votes, "2->1 Vote term 3 last 2/2 transfer",
                         "2->3 Vote term 3 last 2/2 transfer")
        cluster.step(2, 3, Vote(3, 2, 2))           # without the flag: withheld
        self.assert_follows(cluster.core(3), 1, 2)
        cluster.deliver(votes)
        cluster.sync(3)
        self.assert_sent(cluster.take(VoteReply, sender=3), "3->2 VoteReply term 3 granted")

    def test_only_that_campaign_bears_the_flag(self):
        """A later one asks by pre-vote like any other."""
        cluster = self.led()
        self.transfer(cluster, 2)
        cluster.isolate(2)
        cluster.deliver(cluster.take(TimeoutNow) and [])
        cluster.step(1, 2, TimeoutNow(2))
        cluster.settle()
        cluster.heal()
        cluster.campaign(2)
        self.assertTrue(cluster.core(2).pre_voting)
        cluster.elect(2)
        flags = {e.message.term: e.message.transfer for e in cluster.sent if type(e.message) is Vote
                 and e.sender == 2}
        self.assertTrue(flags.pop(3))
        self.assertEqual(set(flags.values()), {False})

    def test_target_catches_up_first(self):
        """Thesis 3.10, step 2: it could not win with less than the leader's log."""
        cluster = self.led()
        cluster.propose(1)
        self.transfer(cluster, 2)
        appends = cluster.take(Append)
        self.assertEqual(cluster.take(TimeoutNow), [])
        cluster.deliver(appends)
        cluster.sync(1)
        cluster.sync(3)
        cluster.deliver(cluster.take(AppendReply, sender=3))
        self.assertEqual(cluster.take(TimeoutNow), [])
        cluster.sync(2)
        cluster.deliver(cluster.take(AppendReply, sender=2))
        self.assert_sent(cluster.take(TimeoutNow), "1->2 TimeoutNow term 2")

    def test_nothing_is_appended_meanwhile(self):
        """Thesis 3.10, step 1."""
        cluster = self.led()
        self.transfer(cluster, 2)
        with self.assertRaises(BusyError):
            cluster.core(1).propose(b"x")
        with self.assertRaises(ChangeRefusedError) as caught:
            cluster.core(1).propose_membership(cluster.core(1).membership.without_member(2))
        self.assertEqual(caught.exception.code, ErrorCode.CHANGE_UNDER_WAY)
        self.assertEqual(cluster.core(1).log.last_index, 2)

    def test_times_out_and_goes_on(self):
        """Thesis 3.10: after about an election timeout it takes requests again."""
        cluster = self.led()
        core = cluster.core(1)
        cluster.cut = {(1, 2)}
        cluster.tick(30)
        self.transfer(cluster, 2)
        deadline = core.now_ms + core.election_timeout_ms
        while core.now_ms < deadline - 100:
            cluster.beat()
            self.assertTrue(core.transferring)
        cluster.tick(deadline - core.now_ms - 10)
        cluster.settle()
        core.heartbeat_deadline_ms += 50
        self.assertEqual(core.next_deadline_ms(), deadline)
        cluster.tick(9)
        self.assertTrue(core.transferring)
        cluster.tick(1)
        self.assertFalse(core.transferring)
        self.assert_leader(cluster, 1, term=2)
        cluster.replicate(1)
        self.assert_committed(cluster, 3, 1, 3)

    def test_asked_again_with_each_heartbeat(self):
        """A lost message costs a heartbeat, not the transfer."""
        cluster = self.led()
        self.transfer(cluster, 2)
        cluster.take(TimeoutNow)
        for _ in range(3):
            cluster.collect(1)
        self.assertEqual(cluster.take(TimeoutNow), [])
        cluster.tick(100)
        self.assert_sent(cluster.take(TimeoutNow), "1->2 TimeoutNow term 2")

    def test_refused(self):
        """Who cannot take over is not asked; the reason has its own code."""
        cluster = self.led(1, 2, 3, learners=[4])
        for node_id, code in ((9, ErrorCode.NOT_A_MEMBER), (4, ErrorCode.TRANSFER_FAILED),
                              (1, ErrorCode.TRANSFER_FAILED)):
            with self.subTest(node_id), self.assertRaises(ChangeRefusedError) as caught:
                cluster.core(1).transfer(node_id)
            self.assertEqual(caught.exception.code, code)
        with self.assertRaises(NotLeaderError):
            cluster.core(2).transfer(3)
        self.transfer(cluster, 2)
        cluster.core(1).transfer(2)
        with self.assertRaises(ChangeRefusedError) as caught:
            cluster.core(1).transfer(3)
        self.assertEqual(caught.exception.code, ErrorCode.CHANGE_UNDER_WAY)

    def test_asking_again_does_not_prolong_it(self):
        """An impatient operator must not keep the cluster from working."""
        cluster = self.led()
        cluster.cut = {(1, 2)}
        self.transfer(cluster, 2)
        deadline = cluster.core(1).transfer_deadline_ms
        cluster.tick(100)
        self.transfer(cluster, 2)
        self.assertEqual(cluster.core(1).transfer_deadline_ms, deadline)

    def test_a_silent_voter_is_not_asked(self):
        """Nor one that was never heard in this term: heard_ms begins at its start."""
        cluster = self.led(1, 2, 3)
        cluster.crash(3)
        for _ in range(5):
            cluster.beat()
        with self.assertRaises(ChangeRefusedError) as caught:
            cluster.core(1).transfer(3)
        self.assertEqual(caught.exception.code, ErrorCode.TRANSFER_FAILED)
        cluster = Cluster([1, 2, 3])
        cluster.crash(3)
        cluster.elect(1)
        with self.assertRaises(ChangeRefusedError):
            cluster.core(1).transfer(3)
        cluster.core(1).transfer(2)

    def test_leader_that_steps_down_forgets_it(self):
        """A new term of the same node begins without."""
        cluster = self.led()
        cluster.cut = {(1, 2)}
        self.transfer(cluster, 2)
        cluster.elect(3)
        self.assertFalse(cluster.core(1).transferring)
        cluster.heal()
        cluster.elect(1)
        self.assertFalse(cluster.core(1).transferring)
        cluster.replicate(1)

    def test_best_successor(self):
        """Heard within two heartbeats, and holding the most."""
        cluster = self.led(1, 2, 3, 4)
        self.assertEqual(cluster.core(2).best_successor(), 0)
        cluster.slow_disks = {2, 4}
        cluster.replicate(1)
        self.assertEqual(cluster.core(1).best_successor(), 3)
        cluster.crash(3)
        for _ in range(2):
            cluster.beat()
        self.assertEqual(cluster.core(1).best_successor(), 2)
        cluster.sync(4)
        cluster.settle()
        self.assertEqual(cluster.core(1).best_successor(), 4)

    def test_learner_is_no_successor(self):
        """Though it holds everything."""
        cluster = self.led(1, 2, learners=[3])
        cluster.crash(2)
        for _ in range(2):
            cluster.beat()
        self.assertTrue(cluster.core(1).progress[3].was_heard)
        self.assertEqual(cluster.core(1).best_successor(), 0)


class LateWordTest(RaftTestCase):
    """TimeoutNow that is stale, double, or from somebody else."""

    def led(self) -> Cluster:
        """Node 1 leads in term 2."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.beat()
        return cluster

    def assert_nothing(self, cluster: Cluster, sender: int, to: int, term: int) -> None:
        """That node does nothing about it."""
        core = cluster.core(to)
        before = core.role, core.leader_id, core.current_term, core.voted_for
        self.assertEqual(cluster.step(sender, to, TimeoutNow(term)), [])
        self.assertEqual((core.role, core.leader_id, core.current_term, core.voted_for), before)

    def test_of_an_older_term(self):
        """Its leader leads no more."""
        cluster = self.led()
        cluster.elect(3)
        self.assert_nothing(cluster, 1, 2, 2)
        self.assert_nothing(cluster, 3, 2, 2)

    def test_from_another_than_the_leader(self):
        """Only whom this node follows may ask it."""
        cluster = self.led()
        self.assert_nothing(cluster, 3, 2, 2)
        cluster.core(2).leader_gone(1)
        self.assert_nothing(cluster, 1, 2, 2)

    def test_to_the_leader_itself(self):
        """A leader does not campaign."""
        cluster = self.led()
        self.assert_nothing(cluster, 2, 1, 2)

    def test_of_a_higher_term(self):
        """The term is learned, as from any message; nothing is begun for a leader not followed."""
        cluster = self.led()
        cluster.step(3, 2, TimeoutNow(7))
        self.assert_follows(cluster.core(2), 0, 7)
        self.assertEqual(cluster.take(), [])

    def test_double(self):
        """The second is of an older term already; so is one that comes after the victory."""
        cluster = self.led()
        cluster.step(1, 2, TimeoutNow(2))
        self.assert_nothing(cluster, 1, 2, 2)
        cluster.settle()
        self.assert_leader(cluster, 2, term=3)
        self.assert_nothing(cluster, 1, 2, 2)

    def test_late_and_the_log_has_gone_on(self):
        """Delayed beyond the transfer: it may cost a term, never an entry."""
        cluster = self.led()
        cluster.isolate(2)
        cluster.replicate(1, 3)
        cluster.heal()
        cluster.step(1, 2, TimeoutNow(2))
        cluster.settle()
        self.assertIsNot(cluster.core(2).role, Role.LEADER)
        cluster.elect(3)
        for _ in range(12):
            cluster.beat()
        self.assert_leader(cluster, 3)
        self.assert_same_logs(cluster)
        self.assertEqual(cluster.core(2).log.term_at(5), 2)

    def test_learner_and_barred_node_and_slow_disk_do_not_campaign(self):
        """Who may not campaign may not when asked either."""
        cluster = Cluster([1, 2], [3], stays=[3])
        cluster.elect(1)
        self.assert_nothing(cluster, 1, 3, 2)
        cluster.core(2).barred = True
        self.assert_nothing(cluster, 1, 2, 2)
        cluster.core(2).barred = False
        cluster.slow_disks.add(2)
        cluster.propose(1)
        cluster.settle()
        cluster.core(2).elapse(cluster.config.disk_overdue_ms)
        self.assert_nothing(cluster, 1, 2, 2)

    def test_barred_node_never_campaigns(self):
        """It was told that it is no member any more; its own log may not know."""
        cluster = self.led()
        cluster.core(2).barred = True
        cluster.tick(10_000, 2)
        self.assertEqual(cluster.take(sender=2), [])
        cluster.step(1, 2, Heartbeat(2, 2, 0, 0))       # and follows, if it is sent anything
        self.assert_follows(cluster.core(2), 1, 2)
