"""Terms (Raft 5.1): they only rise, they are durable before they are spoken of, the stale yield."""

from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, PreVoteReply, Role, Vote, VoteReply)
from tests.raft.harness import Cluster, RaftTestCase, batch

FROM_TERM_9 = (
    Append(9, 0, 0, 0), AppendReply(9, False, 1), Heartbeat(9, 0, 0, 0), HeartbeatReply(9, 0, 0),
    PreVoteReply(9, 10, False), VoteReply(9, False), Vote(9, 1, 1, transfer=True))


class TermsTest(RaftTestCase):
    """Section 5.1."""

    def test_leader_with_a_stale_term_becomes_follower(self):
        """5.1: "if a candidate or leader discovers that its term is out of date ..." """
        for message in FROM_TERM_9:
            with self.subTest(message=type(message).__name__):
                cluster = Cluster([1, 2, 3])
                cluster.elect(1)
                cluster.step(2, 1, message)
                self.assertEqual(cluster.core(1).role, Role.FOLLOWER)
                self.assertEqual(cluster.core(1).current_term, 9)

    def test_candidate_with_a_stale_term_becomes_follower(self):
        """5.1: the same for a candidate."""
        for message in FROM_TERM_9:
            with self.subTest(message=type(message).__name__):
                cluster = Cluster([1, 2, 3])
                cluster.campaign(1)
                cluster.step(3, 1, PreVoteReply(1, 2, True))
                self.assertEqual(cluster.core(1).role, Role.CANDIDATE)
                cluster.step(2, 1, message)
                self.assertEqual(cluster.core(1).role, Role.FOLLOWER)
                self.assertEqual(cluster.core(1).current_term, 9)

    def test_request_with_a_stale_term_is_rejected(self):
        """5.1: "if a server receives a request with a stale term number, it rejects it"."""
        requests = {
            "1->2 AppendReply term 3 refused 1 hint 0/0": Append(2, 1, 1, 2, [batch(2, 2)]),
            "1->2 VoteReply term 3 refused": Vote(2, 9, 2),
            "1->2 HeartbeatReply term 3 round 0 sent 5": Heartbeat(2, 1, 4, 5),
        }
        for reply, request in requests.items():
            with self.subTest(reply=reply):
                cluster = Cluster([1, 2, 3], states={1: HardState(3, 0)})
                before = cluster.core(1).election_deadline_ms
                cluster.step(2, 1, request)
                self.assert_sent(cluster.take(), reply)
                self.assert_terms(cluster.core(1), [1])
                self.assertEqual(cluster.core(1).election_deadline_ms, before)
                self.assertEqual(cluster.core(1).leader_id, 0)

    def test_reply_with_a_stale_term_is_ignored(self):
        """5.1: what was answered to an older term says nothing about this one."""
        cluster = Cluster([1, 2, 3], states={1: HardState(4, 0)})
        cluster.elect(1)
        cluster.propose(1)
        cluster.step(2, 1, AppendReply(4, True, 3))
        cluster.step(2, 1, HeartbeatReply(4, 99, 0))
        self.assertEqual(cluster.core(1).progress[2].match_index, 2)
        self.assertEqual(cluster.core(1).progress[2].round, 0)

    def test_term_and_vote_survive_a_restart(self):
        """5.1, figure 2: current_term and voted_for are persistent."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Vote(7, 1, 1))
        cluster.sync(1)
        cluster.crash(1)
        cluster.restart(1)
        self.assertEqual((cluster.core(1).current_term, cluster.core(1).voted_for), (7, 2))

    def test_new_term_is_durable_before_it_is_spoken_of(self):
        """5.1: a node that could forget the term must not have confirmed it."""
        for request in (Append(7, 1, 1, 0), Append(7, 5, 5, 0), Heartbeat(7, 0, 0, 0)):
            with self.subTest(request=request):
                cluster = Cluster([1, 2, 3])
                cluster.step(2, 1, request)
                self.assertEqual(cluster.take(), [])
                cluster.sync(1)
                self.assertEqual([e.message.term for e in cluster.take()], [7])
                self.assertEqual(cluster.nodes[1].state.current_term, 7)

    def test_vote_is_cleared_by_a_higher_term_only(self):
        """5.1, figure 2: within a term voted_for goes from nobody to somebody, once."""
        cluster = Cluster([1, 2, 3])
        cluster.step(2, 1, Vote(7, 1, 1))
        for message in (Append(7, 1, 1, 0), Heartbeat(7, 0, 0, 0), VoteReply(7, True)):
            cluster.step(3, 1, message)
            self.assertEqual(cluster.core(1).voted_for, 2)
        cluster.step(3, 1, Heartbeat(8, 0, 0, 0))
        self.assertEqual(cluster.core(1).voted_for, 0)
