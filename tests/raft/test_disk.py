"""What waits for the disk, and what a late or lost job may still say (design: Disk)."""

from raftnet.config import RaftConfig
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, PreVoteReply, Role, Vote)
from tests.raft.harness import Cluster, RaftTestCase, batch


class DiskTest(RaftTestCase):
    """One rule a test."""

    def test_late_job_does_not_vouch_for_what_was_overwritten(self):
        """10@2, then 10@3, then 10@2 again: index and term of the first job look right."""
        cluster = Cluster([1, 2, 3, 4, 5], logs={1: [1] * 9})
        core = cluster.core(1)
        cluster.step(2, 1, Append(2, 9, 1, 0, [batch(10, 2)]))
        cluster.step(3, 1, Append(3, 9, 1, 0, [batch(10, 3)]))
        cluster.step(4, 1, Append(4, 9, 1, 0, [batch(10, 2)]))
        self.assertEqual((core.log.epoch, core.log.stable_index), (2, 9))
        cluster.sync(1, 1)
        self.assertEqual(core.log.stable_index, 9, "vouched for by the first job")
        self.assert_sent(cluster.take(), "1->2 AppendReply term 2 match 10")
        cluster.step(4, 1, Append(4, 9, 1, 0, [batch(10, 2)]))
        self.assertEqual(cluster.take(), [], "acknowledged by the first job")
        cluster.sync(1, 1)
        self.assertEqual(core.log.stable_index, 9)
        cluster.take()
        cluster.sync(1, 1)
        self.assertEqual(core.log.stable_index, 10)
        self.assert_sent(cluster.take(), "1->4 AppendReply term 4 match 10")

    def test_truncation_lowers_the_stable_index(self):
        """What is replaced is not durable any more, although its index was."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1, 1, 2]})
        cluster.step(2, 1, Append(3, 2, 1, 0, [batch(3, 3)]))
        self.assertEqual(cluster.core(1).log.stable_index, 2)
        cluster.sync(1)
        self.assertEqual(cluster.core(1).log.stable_index, 3)

    def test_overwritten_before_it_was_handed_out(self):
        """Both within one turn: only the last of them goes to the disk."""
        cluster = Cluster([1, 2, 3], logs={1: [1]})
        core = cluster.core(1)
        core.step(2, Append(2, 1, 1, 0, [batch(2, 2), batch(3, 2)]))
        core.step(3, Append(3, 1, 1, 0, [batch(2, 3)]))
        (ready,) = cluster.collect(1)
        self.assertEqual([(e.index, e.term) for e in ready.entries], [(2, 3)])

    def test_overwritten_and_restored_within_one_turn(self):
        """10@2 and 11@2 are in the file; 10@3, then 10@2 arrive before the next Ready: 10@2 is
        handed out once more, to annul 11@2. Storage must take that, although it looks doubled."""
        cluster = Cluster([1, 2, 3, 4, 5], logs={1: [1] * 9 + [2, 2]})
        core = cluster.core(1)
        core.step(3, Append(3, 9, 1, 0, [batch(10, 3)]))
        core.step(4, Append(4, 9, 1, 0, [batch(10, 2)]))
        (ready,) = cluster.collect(1)
        self.assertEqual([(e.index, e.term) for e in ready.entries], [(10, 2)])
        self.assertEqual(cluster.take(AppendReply, to=4), [])
        cluster.sync(1)
        self.assertEqual([e.term for e in cluster.nodes[1].file], [1] * 9 + [2])
        self.assertEqual(core.log.stable_index, 10)

    def test_acknowledgement_waits_for_the_sync(self):
        """5.3: what is acknowledged is in the log of a majority after a power loss."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        self.assertEqual(cluster.take(), [])
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->2 AppendReply term 1 match 2")

    def test_duplicate_of_an_unsynced_append_is_not_acknowledged_early(self):
        """The second copy waits behind the job that writes the first."""
        cluster = Cluster([1, 2, 3])
        append = Append(1, 1, 1, 0, [batch(2, 1)])
        cluster.step(2, 1, append)
        cluster.step(2, 1, append)
        self.assertEqual(cluster.take(), [])
        cluster.sync(1, 1)
        self.assertEqual(len(cluster.take(AppendReply)), 1)
        cluster.sync(1, 1)
        self.assertEqual(len(cluster.take(AppendReply)), 1)

    def test_acknowledgement_of_what_is_durable_needs_no_disk(self):
        """A doubled append of old entries is answered while a job is under way."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1]})
        cluster.step(2, 1, Append(1, 2, 1, 0, [batch(3, 1)]))
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        self.assert_sent(cluster.take(), "1->2 AppendReply term 1 match 2")

    def test_appends_and_heartbeats_leave_before_the_sync(self):
        """Thesis 10.2.1: followers write at the same time as the leader."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.propose(1)
        self.assertEqual(len(cluster.take(Append)), 2)
        cluster.tick(100, 1)
        self.assertEqual(len(cluster.take(Heartbeat)), 2)
        self.assertFalse(cluster.core(1).disk_idle)

    def test_heartbeat_is_answered_while_the_disk_works(self):
        """Only the term must be durable for that; 500 ms syncs cause no election."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        cluster.step(2, 1, Heartbeat(1, 0, 3, 4))
        self.assert_sent(cluster.take(), "1->2 HeartbeatReply term 1 round 3 sent 4")

    def test_slow_sync_causes_no_election(self):
        """Every disk takes 500 ms; the leader stays, and everything is committed."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.slow_disks = {1, 2, 3}
        for turn in range(200):
            if turn % 10 == 0:
                cluster.propose(1)
            cluster.tick(20)
            cluster.settle()
            if turn % 25 == 24:
                for node_id in (1, 2, 3):
                    cluster.sync(node_id)
        self.assert_leader(cluster, 1, term=2)
        self.assertGreaterEqual(cluster.core(1).log.commit_index, 20)

    def test_jobs_are_first_in_first_out_and_their_messages_too(self):
        """`advance(n)` stands for all jobs up to n."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        for index in (2, 3, 4):
            cluster.step(2, 1, Append(1, index - 1, 1, 0, [batch(index, 1)]))
        numbers = [ready.job for ready in cluster.nodes[1].jobs]
        self.assertEqual(numbers, sorted(set(numbers)))
        core.advance(numbers[1])
        self.assertEqual(core.log.stable_index, 3)
        core.advance(numbers[0])
        self.assertEqual(core.log.stable_index, 3)

    def test_crash_forgets_what_was_not_synced(self):
        """What the page cache held is gone; nothing of it was promised."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Vote(5, 1, 1))
        cluster.step(2, 1, Append(5, 1, 1, 0, [batch(2, 5)]))
        self.assertEqual(cluster.take(), [])
        cluster.crash(1)
        cluster.restart(1)
        core = cluster.core(1)
        self.assertEqual((core.current_term, core.voted_for, core.log.last_index), (1, 0, 1))

    def test_leader_with_an_overdue_disk_steps_down(self):
        """Heartbeats would go on for ever and freeze the cluster [hashicorp/raft #503]."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.slow_disks.add(1)
        cluster.propose(1)
        for _ in range(29):
            cluster.beat()
        self.assert_leader(cluster, 1)
        cluster.tick(100, 1)
        self.assertEqual(cluster.core(1).role, Role.FOLLOWER)
        self.assertTrue(cluster.core(1).disk_overdue)
        cluster.settle()
        for core in cluster.cores:
            core.election_deadline_ms = min(core.election_deadline_ms, core.now_ms + 1000)
        for _ in range(30):
            cluster.beat()
        leaders = [core.node_id for core in cluster.cores if core.role is Role.LEADER]
        self.assertEqual(len(leaders), 1)
        self.assertIn(leaders[0], (2, 3))

    def test_node_with_an_overdue_disk_does_not_campaign(self):
        """It could not keep what it would promise; when the disk is back, it may."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        cluster.tick(3000, 1)
        cluster.tick(3000, 1)
        self.assertEqual(cluster.take(), [])
        self.assertEqual(cluster.core(1).role, Role.FOLLOWER)
        cluster.sync(1)
        cluster.take()
        cluster.tick(1000, 1)
        self.assertEqual(len(cluster.take()), 2)

    def test_pre_vote_won_after_the_disk_became_overdue_is_void(self):
        """Its timeout comes again; the answers to the older question must not start an election."""
        config = RaftConfig(disk_overdue_ms=600)
        cluster = Cluster([1, 2, 3], config=config, states={1: HardState(1, 0)})
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        cluster.campaign(1)
        self.assertTrue(cluster.core(1).pre_voting)
        cluster.tick(1000, 1)
        self.assertTrue(cluster.core(1).disk_overdue)
        cluster.step(3, 1, PreVoteReply(1, 2, True))
        self.assertEqual(cluster.core(1).current_term, 1)

    def test_heartbeat_reply_is_of_a_durable_term(self):
        """A read round that is confirmed by a term that can be forgotten proves nothing."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Heartbeat(5, 0, 1, 0))
        self.assertEqual(cluster.take(HeartbeatReply), [])
        cluster.sync(1)
        self.assertEqual(len(cluster.take(HeartbeatReply)), 1)
