"""Membership (Raft 6, thesis 4): quorums, one change at a time, learners, founding."""

from dataclasses import fields, replace

from raftnet.errors import ChangeRefusedError, MalformedError, NotLeaderError
from raftnet.raft.election import holds_only_founding
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import (
    REMOVED_MAX, Member, Membership, QuorumRule, decode_membership, encode_membership, quorum)
from raftnet.raft.types import Append, AppendReply, Role
from tests.raft.harness import Cluster, RaftTestCase, batch, membership_of


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


class PayloadTest(RaftTestCase):
    """The fields of a membership, their bytes, and what changes them."""

    FULL = Membership(b"c" * 16, (Member(1, "[::1]:5001", True), Member(2, "h:2", False),
                                  Member(3, "h:2", False, stays=True), Member(4, "h:2", True)),
                      QuorumRule.HALF_ROUNDED_UP_PLUS_ONE, True, (9, 2**64 - 1), ("a:1", "b:2"), 7)

    def test_layout(self):
        """As in protocol.md: head, members, removed, target."""
        expected = (b"c" * 16 + bytes.fromhex("01 01 0007 0004 0002 0002")
                    + bytes.fromhex("0000000000000001 01 000a") + b"[::1]:5001"
                    + bytes.fromhex("0000000000000002 00 0003") + b"h:2"
                    + bytes.fromhex("0000000000000003 02 0003") + b"h:2"
                    + bytes.fromhex("0000000000000004 01 0003") + b"h:2"
                    + bytes.fromhex("0000000000000009 ffffffffffffffff")
                    + b"\0\3a:1\0\3b:2")
        self.assertEqual(encode_membership(self.FULL), expected)
        self.assertEqual(decode_membership(expected), self.FULL)

    def test_every_cut_and_a_tail_are_refused(self):
        """With MalformedError, nothing else."""
        payload = encode_membership(self.FULL)
        for end in range(len(payload)):
            with self.subTest(end=end), self.assertRaises(MalformedError):
                decode_membership(payload[:end])
        with self.assertRaises(MalformedError):
            decode_membership(payload + b"\0")

    def test_what_means_nothing_is_refused(self):
        """An unknown rule, flag or kind, the same node twice, an address that is no text."""
        payload = encode_membership(self.FULL)
        for at, value in ((16, 2), (17, 3), (34, 3), (33, 2), (37, 255)):
            with self.subTest(at=at), self.assertRaises(MalformedError):
                decode_membership(payload[:at] + bytes((value,)) + payload[at + 1:])

    def test_every_change_keeps_the_other_fields(self):
        """Each names one thing only."""
        full = self.FULL
        changed = {
            "members": full.with_member(Member(5, "e:5", False)),
            "members removed": full.without_member(3),
            "target": full.with_target(("x:1",)),
            "state_version": full.with_state_version(8),
            "founded": replace(full, founded=False).as_founded(),
        }
        for names, new in changed.items():
            for field in fields(Membership):
                if field.compare and field.name not in names.split():
                    self.assertEqual(getattr(new, field.name), getattr(full, field.name), names)
        self.assertEqual(changed["members removed"].removed, (9, 2**64 - 1, 3))
        self.assertEqual(changed["target"].target, ("x:1",))

    def test_removed_are_remembered_up_to_a_bound(self):
        """The oldest are forgotten; one that is taken in again is removed no more."""
        membership = membership_of(range(1, REMOVED_MAX + 3))
        for node_id in range(1, REMOVED_MAX + 2):
            membership = membership.without_member(node_id)
        self.assertEqual(membership.removed, tuple(range(2, REMOVED_MAX + 2)))
        self.assertEqual(decode_membership(encode_membership(membership)), membership)
        again = membership.with_member(Member(5, "a:5", False))
        self.assertEqual(len(again.removed), REMOVED_MAX - 1)
        self.assertNotIn(5, again.removed)

    def test_member_at(self):
        """The voter of twins, else the first."""
        self.assertEqual(self.FULL.member_at("h:2").node_id, 4)
        self.assertEqual([m.node_id for m in self.FULL.members_at("h:2")], [2, 3, 4])
        self.assertEqual(self.FULL.without_member(4).member_at("h:2").node_id, 2)
        self.assertIsNone(self.FULL.member_at("h:3"))

    def test_asks_for_steps(self):
        """A leader with nothing to do does not look again in every turn."""
        settled = membership_of([1, 2], [3], stays=[3])
        self.assertFalse(settled.asks_for_steps(1))
        for leader_id, membership in (
                (4, settled), (3, settled), (1, replace(settled, founded=False)),
                (1, settled.with_target(("a:1",))),
                (1, settled.with_member(Member(5, "a:5", False))),
                (1, settled.with_member(Member(5, "127.0.0.1:5002", False, stays=True)))):
            self.assertTrue(membership.asks_for_steps(leader_id))


class ChangeTest(RaftTestCase):
    """What a leader may propose, and when it is in effect."""

    def without(self, cluster: Cluster, node_id: int, *more: int) -> Membership:
        """The membership of node 1 without these."""
        old = cluster.core(1).membership
        for each in (node_id, *more):
            old = old.without_member(each)
        return old

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
        cluster.add_node(4)
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
