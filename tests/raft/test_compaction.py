"""The log that begins above 1, its older part in the file only (Raft 7; design: Disk)."""

import random

from raftnet.config import RaftConfig
from raftnet.raft import election
from raftnet.raft.core import Raft
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.log import RaftLog
from raftnet.raft.membership import NO_MEMBERSHIP, encode_membership
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, PreVoteReply, Role, Snapshot,
    SnapshotReply, Vote, VoteReply, promises_hard_state_only)
from tests.raft.files import meta_of
from tests.raft.harness import Cluster, RaftTestCase, batch, log_of, membership_of

THREE = membership_of([1, 2, 3])


def membership_entry(index: int, term: int, *voters: int):
    """An entry that makes these the voters."""
    return encode_entry(index, term, EntryKind.MEMBERSHIP,
                        encode_membership(membership_of(voters)))


def read_back(entries: list, base_index: int, in_memory: int, snapshot=None) -> RaftLog:
    """The log of these entries, from 1 on, as it is read at a start."""
    kept = entries[base_index:]
    return RaftLog(kept[max(len(kept) - in_memory, 0):], base_index,
                   entries[base_index - 1].term if base_index else 0,
                   term_runs=[(e.index, e.term) for e in kept],
                   memberships=[(e.index, e.payload) for e in kept
                                if e.kind == EntryKind.MEMBERSHIP], snapshot=snapshot)


class LogTest(RaftTestCase):
    """RaftLog alone."""

    def history(self) -> list:
        """Two memberships, and terms 1 to 4."""
        return [membership_entry(1, 1, 1, 2, 3), batch(2, 1), batch(3, 2), batch(4, 2),
                membership_entry(5, 2, 1, 2), batch(6, 4), batch(7, 4)]

    def test_begins_at_the_snapshot(self):
        """Nothing below it is applied again, although the log still holds some of it."""
        entries = self.history()
        log = read_back(entries, 2, 9, meta_of(entries[:6]))
        self.assertEqual((log.base_index, log.base_term, log.commit_index, log.applied_index,
                          log.stable_index, log.last_index), (2, 1, 6, 6, 7, 7))
        self.assertEqual([log.term_at(i) for i in range(1, 9)], [None, 1, 2, 2, 2, 4, 4, None])
        self.assertEqual((log.membership_index, log.membership.voters), (5, [1, 2]))

    def test_membership_at_or_below_the_snapshot_is_the_snapshots(self):
        """One above it is the log's, and can be taken back."""
        entries = self.history()
        for index, at, voters, before in ((3, 5, [1, 2], [1, 2, 3]), (5, 5, [1, 2], []),
                                          (7, 5, [1, 2], [])):
            log = read_back(entries, 2, 9, meta_of(entries[:index]))
            self.assertEqual((log.membership_index, log.membership.voters,
                              log.membership_before.voters), (at, voters, before), index)
        log = read_back(entries, 2, 9, meta_of(entries[:3]))
        log.truncate(5)
        self.assertEqual((log.membership_index, log.membership.voters), (1, [1, 2, 3]))

    def test_read_in_part_knows_the_same_as_read_in_whole(self):
        """Terms, memberships and fast back-up, whatever is in memory and wherever it begins."""
        chance = random.Random(7)
        for _ in range(300):
            entries, term = [], 1
            for index in range(1, chance.randint(2, 20)):
                term += chance.random() < 0.3
                entries.append(membership_entry(index, term, *range(1, chance.randint(2, 5)))
                               if index == 1 or chance.random() < 0.2 else batch(index, term))
            whole, base = RaftLog(entries), chance.randint(0, len(entries) - 1)
            snapshot = meta_of(entries[:chance.randint(base, len(entries))]) if base else None
            log = read_back(entries, base, chance.randint(1, 20), snapshot)
            if chance.random() < 0.5:
                log.compact(chance.randint(base, log.snapshot_index))
            base = log.base_index
            self.assertEqual((log.last_index, log.last_term), (whole.last_index, whole.last_term))
            self.assertEqual((log.membership, log.membership_index),
                             (whole.membership, whole.membership_index))
            if log.snapshot is not None and log.membership_index > log.snapshot.index:
                self.assertEqual(log.membership_before, whole.membership_before)
            for index in range(base, len(entries) + 1):
                self.assertEqual(log.term_at(index), whole.term_at(index))
                for term in range(6):
                    self.assertEqual(log.last_match(index, term),
                                     max(whole.last_match(index, term), base))
            self.assertEqual(log.memory_bytes, sum(
                len(e.data) for e in entries if e.index >= log.memory_from))

    def test_compact_forgets_terms_memory_and_old_memberships(self):
        entries = self.history()
        log = RaftLog(entries)
        log.commit_to(6)
        log.snapshot = meta_of(entries[:6])
        self.assertEqual(log.membership_before.voters, [1, 2, 3])
        log.compact(5)
        self.assertEqual((log.base_index, log.base_term, log.memory_from), (5, 2, 6))
        self.assertEqual((log.term_at(4), log.term_at(5), log.term_at(6)), (None, 2, 4))
        self.assertEqual(log.membership_before, NO_MEMBERSHIP)
        self.assertEqual(log.memory_bytes, sum(len(e.data) for e in entries[5:]))
        self.assertEqual(log.epoch, 0, "jobs under way vouch for what they wrote")
        log.compact(3)
        self.assertEqual(log.base_index, 5, "it never goes back")
        with self.assertRaises(AssertionError):
            log.compact(7)

    def test_applied_from_the_file_a_thousand_at_a_time_and_then_from_memory(self):
        entries = [batch(index, 1) for index in range(1, 2501)]
        log = read_back(entries, 0, 300)
        log.commit_to(2400)
        found = []
        while log.applied_index < log.commit_index:
            from_file = log.hand_to_apply_from_file()
            found.append(from_file if from_file else len(log.hand_to_apply(100_000)))
        self.assertEqual(found, [(1, 1000), (1001, 2000), (2001, 2200), 95, 95, 10])
        self.assertEqual((log.hand_to_apply_from_file(), log.hand_to_apply(1)), (None, []))

    def test_truncate_below_what_is_in_memory(self):
        """A tail that was read at the start conflicts from an entry on that is in the file only."""
        log = read_back(self.history(), 0, 1)
        self.assertEqual(log.memory_from, 7)
        log.truncate(4)
        self.assertEqual((log.last_index, log.stable_index, log.memory_bytes, log.rewound),
                         (3, 3, 0, True))
        log.append(batch(4, 5))
        self.assertEqual([e.index for e in log.hand_to_disk()], [4])
        self.assertEqual((log.memory_from, log.entry(4).term), (4, 5))

    def test_restore_wants_all_of_the_log_on_its_way(self):
        """Else the disk would keep, behind the snapshot, a tail that was replaced here."""
        entries = self.history()
        log = RaftLog(entries[:3])
        log.append(entries[3])
        with self.assertRaises(AssertionError):
            log.restore(meta_of(entries))
        log.hand_to_disk()
        log.restore(meta_of(entries))
        self.assertEqual((log.last_index, log.handed_index), (7, 7))


class CoreTest(RaftTestCase):
    """The core on such a log."""

    def restarted(self, entries: list, base_index: int, in_memory: int, snapshot=None) -> Raft:
        """Node 1 with that disk."""
        log = read_back(entries, base_index, in_memory, snapshot)
        return Raft(1, RaftConfig(), HardState(log.last_term, 0), log, lambda low, high: low)

    def lead(self, core: Raft) -> list:
        """Elect it; what it sends then."""
        core.tick(500)
        core.step(2, PreVoteReply(core.current_term, core.current_term + 1, True))
        core.advance(core.ready().job)
        core.step(2, VoteReply(core.current_term, True))
        self.assertEqual(core.role, Role.LEADER)
        return core.ready().messages

    def test_new_leader_whose_uncommitted_entries_are_in_the_file(self):
        """They are counted by nobody: propose goes on, and the count comes back to nothing."""
        entries = log_of([1] * 40, THREE)
        core = self.restarted(entries, 0, 5)
        self.lead(core)
        in_memory = sum(len(e.data) for e in entries[35:])
        self.assertEqual(core.uncommitted_bytes, in_memory + 25)
        core.advance(core.jobs_made)
        core.step(2, AppendReply(2, True, 41))
        self.assertEqual((core.log.commit_index, core.uncommitted_bytes), (41, 0))

    def test_new_leader_counts_uncommitted_entries_only(self):
        """Not those that are in memory and in the snapshot."""
        entries = log_of([1] * 40, THREE)
        core = self.restarted(entries, 0, 30, meta_of(entries[:20]))
        self.lead(core)
        self.assertEqual(core.uncommitted_bytes, sum(len(e.data) for e in entries[20:]) + 25)

    def test_entries_in_the_file_are_applied_from_there_first(self):
        core = self.restarted(log_of([1] * 40, THREE), 0, 5)
        core.step(2, Heartbeat(1, 38, 0, 0))
        readies = []
        while (ready := core.ready()) is not None:
            readies.append((ready.committed_from_file, [e.index for e in ready.committed]))
        self.assertEqual(readies, [((1, 35), []), (None, [36, 37, 38])])

    def test_follower_in_between_is_fed_from_the_file(self):
        """Its next entry is above the base and not in memory."""
        entries = log_of([1] * 40, THREE)
        core = self.restarted(entries, 10, 5, meta_of(entries[:20]))
        self.lead(core)
        core.step(2, AppendReply(2, False, 40, 15, 1))
        (message,) = [m for to, m in core.ready().messages if type(m) is Append and to == 2]
        self.assertEqual((message.prev_log_index, message.from_file), (15, True))

    def test_hint_below_the_base_leads_to_the_snapshot_at_once(self):
        """What the follower holds ends there: an append behind the base would be refused too."""
        entries = log_of([1] * 40, THREE)
        for hint, kind in ((9, Snapshot), (10, Append)):
            core = self.restarted(entries, 10, 5, meta_of(entries[:20]))
            self.lead(core)
            core.step(2, AppendReply(2, False, 40, hint, 1))
            (message,) = [m for to, m in core.ready().messages if to == 2]
            self.assertIs(type(message), kind)

    def test_refused_behind_the_base_leads_to_the_snapshot(self):
        """The hint may be of a tail that conflicts."""
        entries = log_of([1] * 40, THREE)
        core = self.restarted(entries, 10, 5, meta_of(entries[:20]))
        self.lead(core)
        core.step(2, AppendReply(2, False, 40, 10, 1))
        core.ready()
        core.step(2, AppendReply(2, False, 10, 9, 1))
        (message,) = [m for to, m in core.ready().messages if to == 2]
        self.assertEqual((type(message), message.index), (Snapshot, 20))

    def test_without_apply_nothing_committed_is_handed_out(self):
        core = self.restarted(log_of([1] * 40, THREE), 0, 5)
        core.step(2, Heartbeat(1, 38, 0, 0))
        self.assertEqual(len(core.ready(apply=False).messages), 1)
        self.assertIsNone(core.ready(apply=False))
        self.assertEqual(core.log.applied_index, 0)
        self.assertEqual(core.ready(apply=True).committed_from_file, (1, 35))

    def test_only_a_newer_snapshot_is_taken_over(self):
        entries = log_of([1] * 40, THREE)
        core = self.restarted(entries, 0, 50, meta_of(entries[:20]))
        core.snapshot_made(meta_of(entries[:10]))
        self.assertEqual(core.snapshot.index, 20)
        core.log.commit_to(30)
        core.ready()
        core.snapshot_made(meta_of(entries[:30]))
        self.assertEqual((core.snapshot.index, core.log.commit_index), (30, 30))
        with self.assertRaises(AssertionError):
            core.snapshot_made(meta_of(entries[:35]))

    def test_holds_only_founding(self):
        """Although entry 1 is not in memory, or the log has begun anew."""
        entries = log_of([1, 1], THREE)
        for log, only in ((RaftLog(entries[:1]), True), (RaftLog(entries), False),
                          (RaftLog([batch(1, 1)]), False), (RaftLog([]), False),
                          (RaftLog([], 1, 1, snapshot=meta_of(entries[:1])), False)):
            core = Raft(1, RaftConfig(), HardState(5, 0), log, lambda low, high: low)
            self.assertEqual(election.holds_only_founding(core), only)


class FullDiskTest(RaftTestCase):
    """A disk that takes term and vote, which have their place, and no entries."""

    def test_full_disk_votes(self):
        """What promises hard state only leaves; what promises an entry waits."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        cluster.step(2, 1, Append(1, 1, 1, 0, [batch(2, 1)]))
        core.leader_gone(2)
        cluster.step(3, 1, Vote(2, 5, 2))
        cluster.step(3, 1, Heartbeat(2, 0, 7, 8))
        self.assertEqual(cluster.take(), [])
        jobs = list(cluster.nodes[1].jobs)
        core.hard_state_durable(jobs[-1].job)
        held = [m for ready in jobs for _, m in ready.messages_after_sync]
        self.assertEqual([m for m in held if promises_hard_state_only(m)],
                         [VoteReply(2, True), HeartbeatReply(2, 7, 8)])
        self.assertEqual([m for m in held if not promises_hard_state_only(m)],
                         [AppendReply(1, True, 2)])
        self.assertEqual((core.stable_term, core.log.stable_index), (2, 1))
        cluster.step(3, 1, Heartbeat(2, 0, 9, 10))
        self.assert_sent(cluster.take(), "1->3 HeartbeatReply term 2 round 9 sent 10")
        core.advance(jobs[0].job)
        self.assertEqual(core.stable_term, 2, "it never goes back")

    def test_hard_state_of_later_jobs_is_not_durable_yet(self):
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        cluster.step(2, 1, Heartbeat(2, 0, 1, 1))
        cluster.step(3, 1, Heartbeat(3, 0, 1, 1))
        first, second = cluster.nodes[1].jobs
        core.hard_state_durable(first.job)
        self.assertEqual(core.stable_term, 2)
        core.hard_state_durable(second.job)
        self.assertEqual(core.stable_term, 3)

    def test_what_promises_hard_state_only(self):
        for message, only in ((AppendReply(1, False, 2), True), (AppendReply(1, True, 2), False),
                              (PreVoteReply(1, 2, True), True), (Vote(1, 2, 3), True),
                              (SnapshotReply(1, 2, 3, 4, 5, 6), False)):
            self.assertEqual(promises_hard_state_only(message), only, message)

    def test_full_disk_does_not_campaign(self):
        cluster = Cluster([1, 2, 3])
        cluster.core(1).disk_full = True
        cluster.campaign(1)
        self.assertEqual((cluster.core(1).role, cluster.take()), (Role.FOLLOWER, []))
        cluster.core(1).disk_full = False
        cluster.campaign(1)
        self.assertEqual(len(cluster.take()), 2)

    def test_own_vote_counts_when_it_is_durable(self):
        """Asked for before the disk was full: the entries of that job wait, the vote does not."""
        cluster = Cluster([1, 2, 3])
        core = cluster.core(1)
        cluster.campaign(1)
        for node_id in (2, 3):
            cluster.deliver(cluster.take(to=node_id))
        cluster.deliver(cluster.take(PreVoteReply))
        cluster.step(2, 1, VoteReply(2, True))
        self.assertEqual(core.role, Role.CANDIDATE)
        core.hard_state_durable(cluster.nodes[1].jobs[-1].job)
        self.assertEqual(core.role, Role.LEADER)
