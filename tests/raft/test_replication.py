"""Log replication (Raft 5.3): append, commit, the consistency check, and repair."""

import random

from raftnet.raft.types import Append, AppendReply, HardState, Role
from tests.raft.harness import Cluster, RaftTestCase, batch, log_of

FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


class ReplicationTest(RaftTestCase):
    """Section 5.3."""

    def test_leader_appends_and_replicates(self):
        """5.3: the command becomes an entry of its log, and appends go out at once."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        self.assertEqual(cluster.propose(1, b"hello"), (3, 2))
        self.assert_sent(cluster.take(Append),
                         "1->2 Append term 2 prev 2/2 commit 2 entries [3/2 batch 30B]",
                         "1->3 Append term 2 prev 2/2 commit 2 entries [3/2 batch 30B]")
        self.assertEqual(cluster.core(1).log.entry(3).payload, b"hello")

    def test_entry_is_committed_when_a_majority_holds_it(self):
        """5.3: "once the leader that created the entry has replicated it on a majority"."""
        for voters, others_needed in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]:
            with self.subTest(voters=voters):
                cluster = Cluster(range(1, voters + 1))
                cluster.elect(1)
                cluster.propose(1)
                cluster.take()
                cluster.sync(1)
                for follower in range(2, 2 + others_needed):
                    self.assertEqual(cluster.core(1).log.commit_index, 2)
                    cluster.step(follower, 1, AppendReply(2, True, 3))
                self.assert_committed(cluster, 3, 1)

    def test_own_copy_counts_only_when_it_is_durable(self):
        """Thesis 10.2.1: the leader's disk is one of the quorum, or it is not."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.propose(1)
        cluster.step(2, 1, AppendReply(2, True, 3))
        self.assertEqual(cluster.core(1).log.commit_index, 2)
        cluster.sync(1)
        self.assert_committed(cluster, 3, 1)

    def test_committed_without_the_leaders_disk(self):
        """Thesis 10.2.1: two followers of three are a majority, too."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.slow_disks.add(1)
        cluster.propose(1)
        cluster.settle()
        self.assert_committed(cluster, 3, 1)
        self.assertEqual(cluster.core(1).log.stable_index, 2)

    def test_acknowledgement_counts_once_a_follower(self):
        """5.3: a doubled reply is one copy."""
        cluster = Cluster([1, 2, 3, 4, 5])
        cluster.elect(1)
        cluster.propose(1)
        cluster.sync(1)
        for _ in range(3):
            cluster.step(2, 1, AppendReply(2, True, 3))
        self.assertEqual(cluster.core(1).log.commit_index, 2)

    def test_learners_acknowledgement_does_not_count(self):
        """Thesis 4.2.1: a learner is in no quorum."""
        cluster = Cluster([1, 2, 3], learners=[4])
        cluster.cut = {(4, 1)}
        cluster.elect(1)
        cluster.propose(1)
        cluster.sync(1)
        cluster.step(4, 1, AppendReply(2, True, 3))
        self.assertEqual(cluster.core(1).log.commit_index, 2)

    def test_commits_all_preceding_entries(self):
        """5.3: "including entries created by previous leaders"."""
        for terms in ([1], [1, 2], [1, 2, 2], [1, 1, 2, 3]):
            with self.subTest(terms=terms):
                cluster = Cluster([1, 2, 3], logs={1: terms})
                cluster.elect(1)
                self.assert_committed(cluster, len(terms) + 1, 1)
                applied = [entry.term for entry in cluster.nodes[1].applied]
                self.assertEqual(applied, [*terms, terms[-1] + 1])

    def test_followers_learn_the_commit_index_and_apply_in_order(self):
        """5.3: "once a follower learns that a log entry is committed, it applies"."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        for _ in range(5):
            cluster.propose(1)
        cluster.settle()
        cluster.beat()
        self.assert_committed(cluster, 7)
        for node in cluster.nodes.values():
            self.assertEqual([e.index for e in node.applied], [1, 2, 3, 4, 5, 6, 7])
        self.assert_same_logs(cluster)

    def test_consistency_check(self):
        """5.3: an append is refused where nothing at prev_log_index has prev_log_term."""
        table = [  # follower's terms, prev, its term, success, hint
            ([1, 1], 0, 0, True, None),
            ([1, 1], 2, 1, True, None),
            ([1, 1], 3, 1, False, (2, 1)),
            ([1, 1], 9, 4, False, (2, 1)),
            ([1, 1, 2, 2, 2], 4, 1, False, (2, 1)),
            ([1, 1, 2, 2, 2], 5, 3, False, (5, 2)),
            ([1, 2, 2], 3, 1, False, (1, 1)),
            ([], 1, 1, False, (0, 0)),
        ]
        for terms, prev, prev_term, success, hint in table:
            with self.subTest(terms=terms, prev=prev, prev_term=prev_term):
                cluster = Cluster([1, 2, 3], logs={1: terms}, states={1: HardState(5, 0)})
                cluster.step(2, 1, Append(5, prev, prev_term, 0))
                cluster.sync(1)
                (envelope,) = cluster.take()
                self.assertEqual(envelope.message.success, success)
                self.assertEqual(envelope.message.match_index, prev)
                if not success:
                    message = envelope.message
                    self.assertEqual((message.hint_index, message.hint_term), hint)
                self.assert_terms(cluster.core(1), terms)

    def test_conflict_replaces_the_tail_and_only_a_conflict(self):
        """5.3: "if an existing entry conflicts with a new one, delete it and all that follow"."""
        table = [  # terms before, prev, terms sent, terms after
            ([1, 1, 1], 1, [1], [1, 1, 1]),             # late: what follows stays
            ([1, 1, 1], 1, [1, 1], [1, 1, 1]),          # doubled
            ([1, 1, 1], 1, [], [1, 1, 1]),              # a probe
            ([1, 1, 1], 0, [1, 1], [1, 1, 1]),
            ([1, 1, 1], 3, [2], [1, 1, 1, 2]),
            ([1, 1, 1], 2, [1, 2], [1, 1, 1, 2]),       # half of it new
            ([1, 1, 1], 2, [2], [1, 1, 2]),
            ([1, 1, 2, 2], 1, [1, 3], [1, 1, 3]),       # first conflict in the middle
            ([1, 1, 2, 2], 2, [3, 3, 3], [1, 1, 3, 3, 3]),
        ]
        for before, prev, sent, after in table:
            with self.subTest(before=before, prev=prev, sent=sent):
                cluster = Cluster([1, 2, 3], logs={1: before})
                first = log_of([1], cluster.membership)
                entries = [first[0] if index == 1 else batch(index, term)
                           for index, term in enumerate(sent, prev + 1)]
                prev_term = cluster.core(1).log.term_at(prev)
                readys = cluster.step(2, 1, Append(5, prev, prev_term, 0, entries))
                written = [e for ready in readys for e in ready.entries]
                cluster.sync(1)
                self.assert_terms(cluster.core(1), after)
                self.assertEqual([e.term for e in cluster.nodes[1].file], after)
                self.assertEqual(cluster.take()[-1].message, AppendReply(5, True, prev + len(sent)))
                if before == after:
                    self.assertEqual(written, [], "a duplicate is not written again")

    def test_reply_acknowledges_what_was_sent_never_the_own_end(self):
        """5.3: a longer log may end in entries that the leader does not have."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1, 1, 2, 2]})
        cluster.step(2, 1, Append(3, 1, 1, 0, [batch(2, 1)]))
        cluster.sync(1)
        self.assert_sent(cluster.take(), "1->2 AppendReply term 3 match 2")

    def test_commit_only_to_the_last_new_entry(self):
        """5.3, figure 2: min(leader_commit, index of last new entry)."""
        for sent, leader_commit, commit in [(1, 1, 1), (1, 2, 2), (1, 5, 2), (0, 5, 1), (2, 3, 3)]:
            with self.subTest(sent=sent, leader_commit=leader_commit):
                cluster = Cluster([1, 2, 3], logs={1: [1, 1, 1, 1, 1]})
                entries = [batch(index, 1) for index in range(2, 2 + sent)]
                cluster.step(2, 1, Append(2, 1, 1, leader_commit, entries))
                self.assertEqual(cluster.core(1).log.commit_index, commit)

    def test_heartbeat_commits_no_more_than_the_follower_is_known_to_hold(self):
        """5.3: it has no consistency check, and the end of a log may be of another leader."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 2, 2], 2: [1, 2, 2], 3: [1, 1, 1]})
        cluster.cut = {(3, 1)}
        cluster.elect(1)
        cluster.replicate(1)
        self.assert_committed(cluster, 5, 1, 2)
        self.assert_terms(cluster.core(3), [1, 1, 1])
        self.assertEqual(cluster.core(3).log.commit_index, 0)

    def test_commit_index_never_goes_back(self):
        """Figure 2: a late message with a lower commit index changes nothing."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1, 1]})
        cluster.step(2, 1, Append(2, 3, 1, 3))
        cluster.step(2, 1, Append(2, 2, 1, 1))
        self.assertEqual(cluster.core(1).log.commit_index, 3)

    def test_match_index_never_goes_back(self):
        """Figure 2: a late reply takes nothing away."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.replicate(1, 3)
        cluster.step(2, 1, AppendReply(2, True, 2))
        cluster.step(2, 1, AppendReply(2, False, 2, 1, 1))
        progress = cluster.core(1).progress[2]
        self.assertEqual((progress.match_index, progress.next_index), (5, 6))

    def test_committed_entry_is_never_truncated(self):
        """5.4: such an append cannot be; if it is there, our own code is broken: stop."""
        cluster = Cluster([1, 2, 3], logs={1: [1, 1, 1]})
        cluster.step(2, 1, Append(2, 3, 1, 3))
        with self.assertRaises(AssertionError):
            cluster.step(2, 1, Append(2, 1, 1, 3, [batch(2, 2)]))

    def test_figure_7_followers_are_repaired(self):
        """5.3, figure 7 (a) to (f): missing entries, surplus entries, both, in several terms."""
        for name, terms in FIGURE_7.items():
            with self.subTest(follower=name):
                cluster = Cluster([1, 2, 3], logs={1: FIGURE_7_LEADER, 2: terms, 3: [1]},
                                  states={1: HardState(7, 0)})
                cluster.elect(1)
                cluster.beat()
                self.assert_leader(cluster, 1, term=8)
                self.assert_terms(cluster.core(2), [*FIGURE_7_LEADER, 8])
                self.assert_committed(cluster, 11)
                self.assert_same_logs(cluster)

    def test_leader_never_overwrites_its_own_log(self):
        """5.3: leader append-only."""
        cluster = Cluster([1, 2, 3], logs={1: FIGURE_7_LEADER, 2: FIGURE_7["d"], 3: [1]},
                          states={1: HardState(7, 0)})
        cluster.cut = {(2, 1)}
        cluster.elect(1)
        cluster.heal()
        cluster.beat()
        self.assertEqual(cluster.core(1).log.epoch, 0)
        self.assert_terms(cluster.core(1), [*FIGURE_7_LEADER, 8])

    def test_retries_until_every_follower_has_everything(self):
        """5.3: "the leader retries AppendEntries RPCs indefinitely"; lost ones are sent again."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.cut = {(1, 2)}
        cluster.propose(1)
        cluster.settle()
        self.assertEqual(cluster.core(2).log.last_index, 2)
        cluster.heal()
        cluster.core(2).election_deadline_ms = 1 << 40
        for _ in range(12):
            cluster.beat()
        self.assert_committed(cluster, 3)

    def test_random_logs_are_repaired_fast(self):
        """5.3: whatever followers hold, a round trip a differing term is enough."""
        chance = random.Random(7)
        for _ in range(40):
            logs = {1: [1], 2: [1], 3: [1]}
            for term in range(1, 7):                # as leaders that commit nothing would do
                leader = chance.randint(1, 3)
                logs[leader] += [term] * chance.randint(1, 20)
                for follower in (1, 2, 3):
                    reach = chance.randint(1, len(logs[leader]))
                    if chance.random() < 0.4 and logs[leader][:reach] != logs[follower][:reach]:
                        logs[follower] = logs[leader][:reach]
            logs[1].append(7)
            cluster = Cluster([1, 2, 3], logs=logs, states={1: HardState(8, 0)})
            cluster.elect(1)
            refusals = [e for e in cluster.sent if isinstance(e.message, AppendReply)
                        and not e.message.success]
            self.assertLessEqual(len(refusals), 2 * 6)
            cluster.beat()
            self.assertEqual(cluster.core(1).role, Role.LEADER)
            self.assert_same_logs(cluster)
