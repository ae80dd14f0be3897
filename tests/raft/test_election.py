"""Leader election (Raft 5.2), with pre-vote before it (thesis 9.6)."""

from raftnet.raft.membership import QuorumRule
from raftnet.raft.types import (
    Append, HardState, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Role, Vote, VoteReply)
from tests.raft.harness import FAR_MS, Cluster, RaftTestCase

TIMEOUT_MS = 500


class ElectionTest(RaftTestCase):
    """Section 5.2."""

    def candidate(self, voters=(1, 2, 3), **kwargs) -> Cluster:
        """Node 1 has won its pre-vote and its own vote is durable; nothing else arrived."""
        cluster = Cluster(voters, **kwargs)
        cluster.campaign(1)
        for voter in voters[1:]:
            cluster.step(voter, 1, PreVoteReply(1, 2, True))
        cluster.sync(1)
        return cluster

    def test_starts_as_follower(self):
        """5.2: "when servers start up, they begin as followers"."""
        core = Cluster([1, 2, 3], states={1: HardState(4, 1)}).core(1)
        self.assert_follows(core, 0, 4)

    def test_stays_follower_while_it_hears_a_leader(self):
        """5.2: heartbeats and appends keep a follower."""
        for message in (Heartbeat(2, 0, 0, 0), Append(2, 1, 1, 0)):
            cluster = Cluster([1, 2, 3])
            for _ in range(50):
                cluster.step(2, 1, message)
                cluster.tick(TIMEOUT_MS - 1, 1)
                self.assert_follows(cluster.core(1), 2, 2)

    def test_a_lone_voter_waits_for_nobody(self):
        """There is no other candidate to leave time for."""
        cluster = Cluster([1])
        cluster.tick(0, 1)
        cluster.sync(1)
        self.assertIs(cluster.core(1).role, Role.LEADER)

    def test_leader_sends_heartbeats(self):
        """5.2: "leaders send periodic heartbeats"."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.tick(99, 1)
        self.assertEqual(cluster.take(Heartbeat), [])
        cluster.tick(1, 1)
        self.assertEqual([e.to for e in cluster.take(Heartbeat)], [2, 3])

    def test_begins_an_election_when_the_timeout_passes(self):
        """5.2: no communication over the election timeout: it increments its term, votes for itself
        and asks all the others; the pre-vote goes before."""
        cluster = Cluster([1, 2, 3])
        cluster.tick(2 * TIMEOUT_MS, 1)
        self.assertEqual(cluster.core(1).current_term, 1)
        self.assert_sent(cluster.take(), "1->2 PreVote term 2 last 1/1",
                         "1->3 PreVote term 2 last 1/1")
        cluster.step(3, 1, PreVoteReply(1, 2, True))
        core = cluster.core(1)
        self.assertEqual((core.role, core.current_term, core.voted_for), (Role.CANDIDATE, 2, 1))
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->2 Vote term 2 last 1/1", "1->3 Vote term 2 last 1/1")

    def test_wins_with_the_votes_of_a_quorum(self):
        """5.2: "a candidate wins an election if it receives votes from a majority"."""
        half = QuorumRule.HALF_ROUNDED_UP_PLUS_ONE
        majority = QuorumRule.MAJORITY
        table = [(1, majority, 0), (2, majority, 1), (3, majority, 1), (4, majority, 2),
                 (5, majority, 2), (2, half, 1), (3, half, 2), (4, half, 2), (5, half, 3),
                 (6, half, 3)]
        for count, rule, others_needed in table:
            with self.subTest(voters=count, rule=rule):
                cluster = self.candidate(tuple(range(1, count + 1)), rule=rule)
                for voter in range(2, 2 + others_needed):
                    self.assertEqual(cluster.core(1).role, Role.CANDIDATE)
                    cluster.step(voter, 1, VoteReply(2, True))
                self.assertEqual(cluster.core(1).role, Role.LEADER)

    def test_refusals_do_not_count(self):
        """5.2: a refusal is no vote."""
        cluster = self.candidate()
        cluster.step(2, 1, VoteReply(2, False))
        cluster.step(3, 1, VoteReply(2, False))
        self.assertEqual(cluster.core(1).role, Role.CANDIDATE)

    def test_votes_are_counted_by_sender(self):
        """5.2: a vote that arrives twice is one vote; so is a pre-vote."""
        cluster = Cluster([1, 2, 3, 4, 5])
        cluster.campaign(1)
        for _ in range(3):
            cluster.step(2, 1, PreVoteReply(1, 2, True))
        self.assertEqual(cluster.core(1).current_term, 1)
        cluster = self.candidate((1, 2, 3, 4, 5))
        for _ in range(3):
            cluster.step(2, 1, VoteReply(2, True))
        self.assertEqual(cluster.core(1).role, Role.CANDIDATE)

    def test_votes_of_strangers_and_learners_do_not_count(self):
        """5.2, thesis 4.2.1: only a voter's vote counts."""
        cluster = Cluster([1, 2, 3], learners=[4])
        cluster.campaign(1)
        for sender in (4, 9):
            cluster.step(sender, 1, PreVoteReply(1, 2, True))
        self.assertTrue(cluster.core(1).pre_voting)
        cluster.step(2, 1, PreVoteReply(1, 2, True))
        cluster.sync(1)
        for sender in (4, 9):
            cluster.step(sender, 1, VoteReply(2, True))
        self.assertEqual(cluster.core(1).role, Role.CANDIDATE)

    def test_votes_for_an_earlier_life_do_not_count(self):
        """5.2: a leader of term 2 crashed with entries that others hold and its own disk does not;
        late votes of term 2 must not make it lead there again (random seed 20072)."""
        cluster = self.candidate((1, 2, 3, 4, 5))
        for voter in (2, 3):
            cluster.step(voter, 1, VoteReply(2, True))
        self.assertEqual(cluster.core(1).role, Role.LEADER)
        cluster.crash(1)
        cluster.restart(1)
        self.assertEqual((cluster.core(1).current_term, cluster.core(1).voted_for), (2, 1))
        cluster.campaign(1)
        for voter in (2, 3, 4, 5):
            cluster.step(voter, 1, VoteReply(2, True))
        self.assertNotEqual(cluster.core(1).role, Role.LEADER)

    def test_votes_that_come_after_stepping_down_do_not_count(self):
        """5.2: a node leads once in a term, if at all."""
        cluster = self.candidate()
        cluster.step(2, 1, VoteReply(2, True))
        cluster.tick(500, 1)
        self.assertEqual(cluster.core(1).role, Role.FOLLOWER)
        cluster.campaign(1)
        cluster.step(3, 1, VoteReply(2, True))
        self.assertNotEqual(cluster.core(1).role, Role.LEADER)

    def test_late_votes_count_while_the_term_lasts(self):
        """5.2: at long round trips the own timeout may come first; it asks again meanwhile."""
        cluster = self.candidate()
        cluster.campaign(1)
        self.assertTrue(cluster.core(1).pre_voting)
        cluster.step(3, 1, VoteReply(2, True))
        self.assertEqual(cluster.core(1).role, Role.LEADER)

    def test_votes_of_an_earlier_term_do_not_count(self):
        """5.2: the node lost term 2 and asks for votes in term 3."""
        cluster = self.candidate()
        cluster.campaign(1)
        cluster.step(2, 1, PreVoteReply(2, 3, True))
        cluster.sync(1)
        cluster.step(2, 1, VoteReply(2, True))
        self.assertEqual((cluster.core(1).role, cluster.core(1).current_term), (Role.CANDIDATE, 3))

    def test_own_vote_counts_only_when_it_is_durable(self):
        """5.2, thesis 10.2.1: with 3 voters one reply does not win while the own disk works."""
        cluster = Cluster([1, 2, 3])
        cluster.campaign(1)
        cluster.step(2, 1, PreVoteReply(1, 2, True))
        cluster.step(2, 1, VoteReply(2, True))
        self.assertEqual(cluster.core(1).role, Role.CANDIDATE)
        cluster.sync(1)
        self.assertEqual(cluster.core(1).role, Role.LEADER)

    def test_single_voter_leads_when_its_vote_is_durable(self):
        """5.2: it is its own majority."""
        cluster = Cluster([1])
        cluster.campaign(1)
        self.assertEqual((cluster.core(1).role, cluster.core(1).current_term), (Role.CANDIDATE, 2))
        cluster.settle()
        self.assert_leader(cluster, 1, term=2)
        self.assert_committed(cluster, 2)

    def test_votes_first_come_first_served(self):
        """5.2: "each server will vote for at most one candidate in a given term"."""
        for voted_for, asks, granted in [(0, 2, True), (0, 3, True), (2, 2, True), (3, 3, True),
                                         (2, 3, False), (3, 2, False)]:
            with self.subTest(voted_for=voted_for, asks=asks):
                cluster = Cluster([1, 2, 3], states={1: HardState(5, voted_for)})
                cluster.step(asks, 1, Vote(5, 1, 1))
                cluster.sync(1)
                text = "granted" if granted else "refused"
                self.assert_sent(cluster.take(), f"1->{asks} VoteReply term 5 {text}")
                self.assertEqual(cluster.core(1).voted_for, voted_for or asks)

    def test_one_vote_a_term_across_a_restart(self):
        """5.2: a vote that was given is remembered; one that was lost was never sent."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Vote(5, 1, 1))
        self.assertEqual(cluster.take(), [], "a vote left before its sync")
        cluster.crash(1)
        cluster.restart(1)
        cluster.step(3, 1, Vote(5, 1, 1))
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->3 VoteReply term 5 granted")
        cluster.crash(1)
        cluster.restart(1)
        cluster.step(2, 1, Vote(5, 1, 1))
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->2 VoteReply term 5 refused")

    def test_vote_repeated_before_the_sync_does_not_leave_early(self):
        """5.2: asked twice, answered twice, both times after the sync."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Vote(5, 1, 1))
        cluster.step(2, 1, Vote(5, 1, 1))
        self.assertEqual(cluster.take(), [])
        cluster.sync(1, 1)
        self.assertEqual(len(cluster.take()), 1)
        cluster.sync(1, 1)
        self.assertEqual(len(cluster.take()), 1)

    def test_vote_requests_wait_for_the_own_vote_to_be_durable(self):
        """5.2, design: vote requests wait for the sync, pre-votes do not."""
        cluster = Cluster([1, 2, 3])
        cluster.campaign(1)
        self.assertEqual(len(cluster.take(PreVote)), 2)
        cluster.step(2, 1, PreVoteReply(1, 2, True))
        self.assertEqual(cluster.take(Vote), [])
        cluster.sync(1)
        self.assertEqual(len(cluster.take(Vote)), 2)
        self.assertEqual(cluster.nodes[1].state, HardState(2, 1))

    def test_candidate_follows_a_leader_of_its_term_or_later(self):
        """5.2: it recognises the leader as legitimate and returns to follower."""
        for term in (2, 3):
            for message in (Append(term, 1, 1, 0), Heartbeat(term, 0, 0, 0)):
                cluster = self.candidate()
                cluster.step(3, 1, message)
                self.assert_follows(cluster.core(1), 3, term)

    def test_candidate_stays_one_when_the_leader_is_of_an_older_term(self):
        """5.2: "the candidate rejects the RPC and continues in candidate state"."""
        cluster = self.candidate()
        cluster.step(3, 1, Append(1, 1, 1, 0))
        self.assertEqual(cluster.core(1).role, Role.CANDIDATE)

    def test_a_round_of_an_older_leader_is_not_confirmed(self):
        """In its next life it may lead this term, and begin a round of the same number."""
        cluster = self.candidate()
        term = cluster.core(1).current_term
        cluster.step(3, 1, Heartbeat(term - 1, 0, 7, 8))
        cluster.sync(1)
        self.assertEqual([envelope.message for envelope in cluster.take(HeartbeatReply)],
                         [HeartbeatReply(term, 0, 8)])

    def test_split_vote_is_tried_again_in_a_new_term(self):
        """5.2: "each candidate will time out and start a new election"."""
        cluster = Cluster([1, 2, 3, 4])
        for core in cluster.cores:
            core.election_deadline_ms = FAR_MS
        for node_id in (1, 2):
            cluster.campaign(node_id)
        cluster.cut = {(1, 4), (2, 3)}
        cluster.settle()
        self.assert_no_leader(cluster)
        self.assertEqual([core.voted_for for core in cluster.cores], [1, 2, 1, 2])
        cluster.heal()
        cluster.campaign(2)
        cluster.settle()
        self.assert_leader(cluster, 2, term=3)

    def test_timeouts_are_drawn_at_random_for_each_round(self):
        """5.2: "election timeouts are chosen randomly from a fixed interval"."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        drawn = set()
        for _ in range(300):
            cluster.step(2, 1, Heartbeat(2, 0, 0, 0))
            drawn.add(core.election_deadline_ms - core.now_ms)
            cluster.tick(1, 1)
        self.assertTrue(all(TIMEOUT_MS <= timeout < 2 * TIMEOUT_MS for timeout in drawn))
        self.assertGreater(len(drawn), 100)

    def test_timeouts_rarely_conflict(self):
        """5.2: "to prevent split votes in the first place"; mostly the first term elects."""
        first = 0
        for seed in range(60):
            cluster = Cluster([1, 2, 3, 4, 5], seed=seed)
            for _ in range(400):
                cluster.tick(10)
                cluster.settle()
                if any(core.role is Role.LEADER for core in cluster.cores):
                    break
            self.assertEqual(sum(core.role is Role.LEADER for core in cluster.cores), 1)
            first += max(core.current_term for core in cluster.cores) == 2
        self.assertGreaterEqual(first, 50)

    def test_learner_does_not_campaign(self):
        """Thesis 4.2.1: a node that has no vote asks for none."""
        cluster = Cluster([1, 2], learners=[3])
        cluster.tick(10 * TIMEOUT_MS, 3)
        self.assertEqual(cluster.take(), [])
        self.assert_follows(cluster.core(3), 0, 1)
