"""Keeping a leader that is well, and replacing one that is not (thesis 4.2.3, 6.2, 9.6)."""

import random

from raftnet.config import RaftConfig
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Role, Vote,
    VoteReply)
from tests.raft.harness import FAR_MS, Cluster, RaftTestCase


class LivenessTest(RaftTestCase):
    """Pre-vote, check-quorum, withheld votes, timeouts, a leader's death."""

    def test_pre_vote_changes_nothing_at_the_receiver(self):
        """Thesis 9.6: neither term nor vote nor timer."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        before = core.current_term, core.voted_for, core.election_deadline_ms, core.role
        cluster.step(2, 1, PreVote(9, 5, 5))
        self.assert_sent(cluster.take(), "1->2 PreVoteReply term 1 for 9 granted")
        self.assertEqual(
            before, (core.current_term, core.voted_for, core.election_deadline_ms, core.role))
        self.assertTrue(core.disk_idle)

    def test_pre_vote_of_another_term_does_not_count(self):
        """Thesis 9.6: an answer to an older question."""
        cluster = Cluster([1, 2, 3], states={1: HardState(4, 0)})
        cluster.campaign(1)
        cluster.step(2, 1, PreVoteReply(1, 4, True))
        self.assertEqual(cluster.core(1).current_term, 4)

    def test_returning_node_does_not_topple_a_leader_that_is_well(self):
        """Thesis 9.6 [etcd PR #9352]: however long it was away."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.isolate(3)
        for _ in range(100):
            cluster.beat()
        self.assertEqual(cluster.core(3).current_term, 2)
        cluster.heal()
        for _ in range(20):
            cluster.beat()
        self.assert_leader(cluster, 1, term=2)
        self.assert_follows(cluster.core(3), 1, 2)

    def test_one_way_link_does_not_topple_a_leader(self):
        """A node that hears nobody but is heard asks in vain."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.cut = {(1, 3), (2, 3)}
        for _ in range(60):
            cluster.beat()
        self.assert_leader(cluster, 1, term=2)

    def test_votes_are_withheld_while_a_leader_is_alive(self):
        """Thesis 4.2.3: within the minimum timeout of hearing it, and by the leader itself."""
        for node_id in (1, 2):
            for message in (Vote(9, 9, 9), PreVote(9, 9, 9)):
                with self.subTest(node=node_id, message=type(message).__name__):
                    cluster = Cluster([1, 2, 3])
                    cluster.elect(1)
                    cluster.take()
                    cluster.step(3, node_id, message)
                    cluster.sync(node_id)
                    core = cluster.core(node_id)
                    self.assertEqual((core.current_term, core.leader_id), (2, 1))
                    self.assertFalse(any(e.message.granted for e in cluster.take()))

    def test_withheld_request_does_not_raise_the_term(self):
        """Thesis 4.2.3: nor is it answered; later the same request may be granted."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Heartbeat(2, 0, 0, 0))
        cluster.sync(1)
        cluster.take()
        cluster.tick(499, 1)
        cluster.step(3, 1, Vote(3, 1, 1))
        self.assertEqual((cluster.core(1).current_term, cluster.take()), (2, []))
        cluster.tick(1, 1)
        cluster.step(3, 1, Vote(3, 1, 1))
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->3 VoteReply term 3 granted")

    def test_transfer_passes_the_withholding(self):
        """Thesis 3.10: the leader itself asked for this election."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.step(3, 2, Vote(3, 2, 2, transfer=True))
        cluster.sync(2)
        self.assert_sent(cluster.take(), "2->3 VoteReply term 3 granted")

    def test_follower_with_a_higher_term_answers_a_stale_append(self):
        """Else it would be stranded: too new to follow, withheld from being elected."""
        cluster = Cluster([1, 2, 3], states={3: HardState(8, 3)})
        cluster.isolate(3)
        cluster.elect(1)
        cluster.heal()
        for _ in range(30):
            cluster.beat()
        term = cluster.core(3).current_term
        self.assertGreaterEqual(term, 8)
        self.assertEqual({core.current_term for core in cluster.cores}, {term})
        self.assertEqual({core.leader_id for core in cluster.cores} - {0},
                         {c.node_id for c in cluster.cores if c.role is Role.LEADER})

    def test_leader_without_a_quorum_steps_down(self):
        """Thesis 6.2, check-quorum: within an election timeout."""
        for voters, heard, stays in [(3, 1, True), (3, 0, False), (5, 2, True), (5, 1, False)]:
            with self.subTest(voters=voters, heard=heard):
                cluster = Cluster(range(1, voters + 1))
                cluster.elect(1)
                for _ in range(12):
                    cluster.tick(100, 1)
                    for node_id in range(2, 2 + heard):
                        cluster.step(node_id, 1, HeartbeatReply(2, 0, cluster.core(1).now_ms))
                self.assertEqual(cluster.core(1).role is Role.LEADER, stays)

    def test_check_quorum_acts_at_its_deadline(self):
        """Neither before nor much after; next_deadline_ms names the time."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.isolate(1)
        core = cluster.core(1)
        core.heartbeat_deadline_ms = FAR_MS
        self.assertEqual(core.next_deadline_ms(), core.now_ms + 500)
        cluster.tick(499, 1)
        self.assertEqual(core.role, Role.LEADER)
        cluster.tick(1, 1)
        self.assertEqual(core.role, Role.FOLLOWER)

    def test_late_turn_hears_before_it_judges(self):
        """A loop that was late gives the time first, then what its sockets held, then looks at its
        deadlines (design: Elections): neither a follower nor a leader gives up for that."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        leader, follower = cluster.core(1), cluster.core(2)
        leader.elapse(5000)
        leader.step(2, HeartbeatReply(2, 0, 0))
        leader.tick(0)
        self.assertEqual(leader.role, Role.LEADER)
        follower.elapse(5000)
        follower.step(1, Heartbeat(2, 0, 0, 0))
        follower.tick(0)
        self.assert_follows(follower, 1, 2)

    def test_leader_whose_process_died_is_replaced_fast(self):
        """Tens of milliseconds, not an election timeout."""
        for seed in range(20):
            cluster = Cluster([1, 2, 3], seed=seed)
            cluster.elect(1)
            cluster.beat()
            cluster.crash(1)
            for core in cluster.cores:
                core.leader_gone(1)
            passed = 0
            while not any(core.role is Role.LEADER for core in cluster.cores):
                cluster.tick(1)
                cluster.settle()
                passed += 1
                self.assertLess(passed, 500, f"seed {seed}")

    def test_one_that_saw_it_late_delays_by_little(self):
        """A pre-vote lost because the others still withhold is tried again soon, then later."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        core = cluster.core(2)
        core.leader_gone(1)
        waits = []
        for _ in range(4):
            cluster.tick(core.election_deadline_ms - core.now_ms, 2)
            waits.append(core.election_deadline_ms - core.now_ms)
            self.assertEqual(len(cluster.take(PreVote)), 2)
        for attempt, wait in enumerate(waits):
            self.assertTrue(10 << attempt <= wait <= 50 << attempt, waits)

    def test_leader_gone_is_about_the_leader_only(self):
        """Another node's end changes nothing, nor does it for the leader itself."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.core(2).leader_gone(3)
        cluster.core(1).leader_gone(1)
        self.assert_leader(cluster, 1)
        self.assert_follows(cluster.core(2), 1, 2)

    def test_hearing_the_leader_again_ends_the_hurry(self):
        """It was a mistake: the ordinary timeout counts again."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        core = cluster.core(2)
        core.leader_gone(1)
        cluster.step(1, 2, Heartbeat(2, 0, 0, 0))
        self.assertGreaterEqual(core.election_deadline_ms, core.now_ms + 500)
        self.assertEqual(core.gone_attempts, 0)

    def test_round_trips_count_in_elections_and_heartbeats(self):
        """At round trips of 2 s the floor of 500 ms would elect nobody. What the timeouts are then
        is tests/raft/test_timing.py's affair."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        core.observe_rtt(2, 2000)
        self.assertEqual((core.election_timeout_ms, core.heartbeat_ms), (4000, 800))
        core.observe_rtt(9, 1)              # a member once, or not yet
        self.assertEqual(core.election_timeout_ms, 4000)
        self.assertEqual(cluster.core(3).election_timeout_ms, 500)
        cluster.elect(1)
        cluster.tick(1000)
        message = cluster.take(Heartbeat, to=3)[-1].message
        self.assertEqual((message.timeout_ms, message.rtt_ms), (4000, 1000))
        self.assertEqual(cluster.core(3).election_timeout_ms, 4000)

    def test_an_answered_vote_tells_the_round_trip(self):
        """The network became slow after the last leader measured it: the next round knows."""
        cluster = Cluster([1, 2, 3, 4, 5])
        core = cluster.core(1)
        cluster.campaign(1)
        for voter in (2, 3):
            cluster.step(voter, 1, PreVoteReply(1, core.current_term + 1, True))
        cluster.sync(1)
        core.tick(450)
        cluster.step(2, 1, VoteReply(core.current_term, False))
        self.assertEqual(core.election_timeout_ms, 1800)

    def test_signs_of_life_of_the_leader(self):
        """Part of a large append that crawls over a slow link: nobody else has spoken meanwhile."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        core = cluster.core(2)
        for sender, moved in ((3, False), (1, True)):
            cluster.tick(400)
            before = core.election_deadline_ms
            core.sign_of_life(sender)
            self.assertEqual(core.election_deadline_ms != before, moved)
        self.assertGreaterEqual(core.election_deadline_ms, core.now_ms + 500)
        cluster.step(3, 2, PreVote(3, 9, 9))
        self.assertFalse(cluster.take(PreVoteReply)[0].message.granted)

    def test_settled_leader_stays_at_two_second_round_trips(self):
        """Messages take 1 s each way and a twentieth is lost; one leader for a minute."""
        chance = random.Random(3)
        cluster = Cluster([1, 2, 3])
        for core in cluster.cores:
            for other in {1, 2, 3} - {core.node_id}:
                core.observe_rtt(other, 2000)
        on_the_way = []
        leaders = set()
        for turn in range(2400):
            cluster.tick(50)
            for node_id in (1, 2, 3):
                cluster.sync(node_id)
            on_the_way += [(turn + 20, envelope) for envelope in cluster.take()
                           if chance.random() > 0.05]
            cluster.deliver([envelope for due, envelope in on_the_way if due <= turn])
            on_the_way = [(due, envelope) for due, envelope in on_the_way if due > turn]
            if turn > 1200:
                leaders.add(tuple(c.node_id for c in cluster.cores if c.role is Role.LEADER))
        self.assertEqual(len(leaders), 1)
        self.assertEqual(len(leaders.pop()), 1)

    def test_append_that_crawls_is_not_sent_twice(self):
        """The follower says that it receives; two timeouts after the last such word it is lost."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.propose(1)
        cluster.sync(1)
        self.assertEqual(len(cluster.take(Append, 1, 2)), 1)
        for _ in range(30):
            cluster.tick(100, 1)
            cluster.step(2, 1, HeartbeatReply(2, 0, 0))
        self.assertEqual(cluster.take(Append, 1, 2), [])
        began_ms, core, sent = cluster.core(1).now_ms, cluster.core(1), []
        while not sent and core.role is Role.LEADER and core.now_ms < began_ms + 10_000:
            cluster.tick(100, 1)
            cluster.step(2, 1, HeartbeatReply(2, 0, core.now_ms))
            sent = cluster.take(Append, 1, 2)
        self.assertEqual([e.message.prev_log_index for e in sent], [2])
        self.assertEqual(core.now_ms - began_ms, 2 * core.timeout_of(2))

    def test_a_sign_of_life_is_answered(self):
        """Or a leader whose heartbeats all wait behind large appends would hear no quorum."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        leader, follower = cluster.core(1), cluster.core(2)
        cluster.tick(300)
        cluster.take()
        for _ in range(5):
            follower.sign_of_life(1)
        cluster.collect(2)
        answers = cluster.take(HeartbeatReply, to=1)
        self.assertEqual(len(answers), 1, "once a heartbeat interval")
        samples = leader.timing.links[2].samples.copy()
        cluster.step(2, 1, answers[0].message)
        self.assertEqual(leader.progress[2].heard_ms, leader.now_ms)
        self.assertEqual(leader.timing.links[2].samples, samples)
        cluster.tick(499)
        self.assert_leader(cluster, 1)

    def test_a_far_follower_has_its_own_patience(self):
        """The quorum is near; an append to who is far is not sent again before it can answer."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        leader = cluster.core(1)
        for number in range(4):
            leader.timing.sample(3, 2000, number * 100)
        self.assertEqual((leader.election_timeout_ms, leader.timeout_of(3)), (500, 8000))
        cluster.propose(1)
        cluster.take()
        cluster.sync(1)
        began = leader.now_ms
        while not cluster.take(Append, to=3) and leader.now_ms - began < 20_000:
            cluster.tick(100, 1)
            cluster.deliver(cluster.take(to=2))
            cluster.sync(2)
            cluster.deliver(cluster.take(sender=2))
            cluster.take(Heartbeat, to=3)
        self.assertEqual(leader.now_ms - began, 16_000)
        self.assert_leader(cluster, 1)

    def test_a_lost_append_does_not_wait_for_a_remembered_slowness(self):
        """The timeout is that of an election during which everything hung; the link is quick."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        leader = cluster.core(1)
        for number in range(40):
            for follower in (2, 3):
                leader.timing.sample(follower, 5_000 if number < 4 else 5, 1_000 * number)
            leader.timing.judge(1_000 * number, [2, 3], 1)
        self.assertEqual((leader.timeout_of(3), leader.timing.links[3].need_ms), (20_000, 20))
        cluster.propose(1)
        cluster.sync(1)
        self.assertEqual(len(cluster.take(Append, to=3)), 1)
        began, sent = leader.now_ms, []
        while not sent and leader.now_ms - began < 20_000:
            cluster.tick(100, 1)
            cluster.deliver(cluster.take(Heartbeat))
            cluster.deliver(cluster.take(HeartbeatReply))
            sent = cluster.take(Append, to=3)
        self.assertEqual(leader.now_ms - began, leader.config.disk_overdue_ms + 2 * 500)
        self.assert_leader(cluster, 1)

    def test_failed_rounds_back_off(self):
        """Votes that nobody answers in time: the next round is given longer, up to a bound."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        longest = 0
        for _ in range(40):
            cluster.campaign(1)
            cluster.step(2, 1, PreVoteReply(1, core.current_term + 1, True))
            cluster.sync(1)
            longest = max(longest, core.election_deadline_ms - core.now_ms)
        self.assertGreater(longest, 2 * 1000)
        self.assertGreater(longest, 10_000)
        self.assertLess(longest, 12_000)
        cluster.step(2, 1, Append(core.current_term, 1, 1, 0))
        self.assertLess(core.election_deadline_ms - core.now_ms, 1000)

    def test_lost_append_is_sent_again_though_reads_go_on(self):
        """Heartbeats of reads must not postpone the look at what was lost."""
        cluster = Cluster([1, 2, 3], config=RaftConfig())
        cluster.elect(1)
        cluster.propose(1)
        cluster.take(Append, to=2)
        for turn in range(60):
            cluster.core(1).read(turn)
            cluster.tick(50)
            cluster.settle()
        self.assertEqual(cluster.core(2).log.last_index, 3)
        self.assertEqual(len(cluster.take(AppendReply)), 0)
