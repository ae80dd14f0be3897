"""Safety (Raft 5.4): who may be elected, and what counting may commit."""

import dataclasses

from raftnet.raft.types import Append, HardState, PreVote, PreVoteReply, Role, Vote
from tests.raft.harness import Cluster, Envelope, RaftTestCase


class SafetyTest(RaftTestCase):
    """Sections 5.4.1 and 5.4.2."""

    def test_vote_only_for_a_log_at_least_as_up_to_date(self):
        """5.4.1: the later last term wins; with equal last terms, the longer log."""
        table = [  # voter's terms, candidate's last index and term, granted
            ([1], 1, 1, True), ([1], 2, 1, True), ([1], 1, 2, True),
            ([1, 1], 2, 1, True), ([1, 1], 1, 1, False), ([1, 1], 1, 2, True),
            ([1, 2], 1, 1, False), ([1, 2], 9, 1, False), ([1, 2], 2, 2, True),
            ([1, 2], 1, 2, False), ([1, 2], 1, 3, True), ([1, 1, 3], 9, 2, False),
            ([1, 1, 3], 2, 3, False), ([], 0, 0, True),
        ]
        for terms, last_index, last_term, granted in table:
            with self.subTest(terms=terms, last=(last_index, last_term)):
                text = "granted" if granted else "refused"
                cluster = Cluster([1, 2, 3], logs={1: terms}, states={1: HardState(3, 0)})
                cluster.step(2, 1, PreVote(4, last_index, last_term))
                self.assert_sent(cluster.take(), f"1->2 PreVoteReply term 3 for 4 {text}")
                cluster.step(2, 1, Vote(4, last_index, last_term))
                cluster.sync(1)
                self.assert_sent(cluster.take(), f"1->2 VoteReply term 4 {text}")
                self.assertEqual(cluster.core(1).voted_for, 2 if granted else 0)

    def test_requests_carry_the_end_of_the_own_log(self):
        """5.4.1: "the RPC includes information about the candidate's log"."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1, 4]})
        cluster.campaign(1)
        cluster.step(2, 1, PreVoteReply(4, 5, True))
        cluster.sync(1)
        sent = [e.message for e in cluster.take(to=3)]
        self.assertEqual(sent, [PreVote(5, 3, 4), Vote(5, 3, 4)])

    def test_leader_completeness(self):
        """5.4: a node without a committed entry is not elected by those that are left."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.isolate(3)
        cluster.replicate(1, 2)
        cluster.crash(1)
        cluster.heal()
        cluster.elect(3)
        self.assert_no_leader(cluster)
        cluster.elect(2)
        self.assert_leader(cluster, 2)
        cluster.beat()
        self.assert_committed(cluster, 5, 2, 3)

    def test_figure_8(self):
        """5.4.2, figure 8: an entry of an older term on a majority is not committed by counting."""
        # (a), (b): index 2 of term 2 is at S1 and S2; S5 led in term 3 with votes of S3 and S4.
        logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
        states = {1: HardState(3, 0), 2: HardState(2, 1), 3: HardState(3, 5), 4: HardState(3, 5),
                  5: HardState(3, 5)}
        # (c): S1 leads in term 4 and brings index 2 to S3; its own empty entry reaches nobody.
        cluster = Cluster([1, 2, 3, 4, 5], logs=logs, states=states)
        cluster.isolate(5)
        cluster.config.append_bytes_max = 1         # one entry at a time
        self.lead_and_bring_index_2_to_node_3(cluster)
        leader = cluster.core(1)
        self.assertEqual([cluster.core(n).log.term_at(2) for n in (1, 2, 3)], [2, 2, 2])
        self.assertEqual([leader.progress[n].match_index for n in (2, 3)], [2, 2])
        self.assertEqual(leader.log.commit_index, 0, "counted an entry of an older term")
        # (d): S1 is gone; S5 may still win with S2, S3, S4, and overwrites index 2.
        cluster.crash(1)
        cluster.heal()
        cluster.pool.clear()
        cluster.elect(5)        # learns the term
        cluster.elect(5)
        cluster.beat()
        self.assert_leader(cluster, 5, term=5)
        self.assertEqual([cluster.core(n).log.term_at(2) for n in (2, 3, 4, 5)], [3] * 4)
        self.assertGreaterEqual(cluster.core(2).log.commit_index, 3)

    def test_figure_8_e_entry_of_the_own_term_commits_all(self):
        """5.4.2, figure 8 (e): once an entry of term 4 is on a majority, index 2 is safe."""
        logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
        states = {1: HardState(3, 0), 3: HardState(3, 5), 4: HardState(3, 5), 5: HardState(3, 5)}
        cluster = Cluster([1, 2, 3, 4, 5], logs=logs, states=states)
        cluster.isolate(4, 5)
        cluster.elect(1)
        self.assert_committed(cluster, 3, 1)
        cluster.crash(1)
        cluster.heal()
        cluster.elect(5)        # learns the term
        cluster.elect(5)
        self.assert_no_leader(cluster)

    def lead_and_bring_index_2_to_node_3(self, cluster: Cluster) -> None:
        """Node 1 is elected by 2, 3, 4; appends arrive at 2 and 3 only, cut short at index 2."""
        cluster.campaign(1)
        for _ in range(30):
            pool, cluster.pool = cluster.pool, []
            for sender, to, message in pool:
                if isinstance(message, Append):
                    short = [entry for entry in message.entries if entry.index <= 2]
                    message = dataclasses.replace(message, entries=short)
                if to != 4 or not isinstance(message, Append):
                    cluster.deliver([Envelope(sender, to, message)])
            for node_id in (1, 2, 3, 4):
                cluster.sync(node_id)

    def test_empty_entry_commits_what_came_before(self):
        """5.4.2, 8: without any client the entries of older terms are committed in the end."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 2, 2], 2: [1, 2, 2], 3: [1]})
        cluster.elect(1)
        cluster.beat()
        self.assert_committed(cluster, 4)
        self.assertEqual(cluster.core(1).role, Role.LEADER)
