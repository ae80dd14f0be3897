"""InstallSnapshot, receiver (Raft 7, figure 13): one rule a test, with the figure's numbers."""

from raftnet.raft.membership import Member
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, Role, Snapshot, SnapshotId,
    SnapshotReply, Vote, VoteReply)
from tests.raft.files import image_of, meta_of
from tests.raft.harness import Cluster, RaftTestCase, address_of, batch, log_of
from tests.raft.installing import CHUNK


class FollowerTest(RaftTestCase):
    """Node 3 follows; what it sends and writes."""

    def held(self, terms=(1,), state=None) -> tuple[Cluster, object]:
        """Node 3 follows 1 in term 3, with that log; and the image of a snapshot up to 8."""
        cluster = Cluster([1, 2, 3], logs={3: list(terms)},
                          states={3: state or HardState(3, 0)})
        self.history = log_of([1, 1, 1, 1, 2, 2, 2, 2], cluster.membership)
        self.meta, self.image = meta_of(self.history), image_of(self.history)
        return cluster, cluster.core(3)

    def chunk(self, offset: int, end: int | None = None, term: int = 3) -> Snapshot:
        """These bytes of the image."""
        meta = self.meta
        return Snapshot(term, meta.index, meta.term, meta.size, meta.checksum, offset,
                        self.image[offset:end])

    def answer(self, offset: int, following: int, term: int = 3) -> SnapshotReply:
        """An answer to what was sent at that offset."""
        meta = self.meta
        return SnapshotReply(term, meta.index, meta.term, meta.checksum, offset, following)

    def replies(self, cluster: Cluster) -> list:
        """What node 3 has sent."""
        return [e.message for e in cluster.take(sender=3)]

    def test_13_1_older_term_is_answered_with_the_own(self):
        cluster, core = self.held(state=HardState(5, 0))
        cluster.step(1, 3, self.chunk(0, term=4))
        self.assertEqual(self.replies(cluster), [self.answer(0, 0, term=5)])
        self.assertIsNone(core.incoming)

    def test_term_rule_and_follow(self):
        """A newer term is taken over, and the sender is the leader; its timer starts anew."""
        cluster, core = self.held(state=HardState(2, 0))
        core.election_deadline_ms = 1
        cluster.step(1, 3, self.chunk(0, CHUNK))
        self.assert_follows(core, 1, 3)
        self.assertGreater(core.election_deadline_ms, 1)
        self.assertEqual(self.replies(cluster), [], "the term is not durable")
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK)])

    def test_13_2_first_chunk_begins_a_file(self):
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(CHUNK, 2 * CHUNK))
        self.assertEqual(self.replies(cluster), [self.answer(CHUNK, 0)])
        (ready,) = cluster.step(1, 3, self.chunk(0, CHUNK))
        self.assertEqual(ready.chunk, (0, self.image[:CHUNK]))

    def test_13_3_chunks_are_written_at_their_offset_and_answered_when_they_are(self):
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        (ready,) = cluster.step(1, 3, self.chunk(CHUNK, 150))
        self.assertEqual(ready.chunk, (CHUNK, self.image[CHUNK:150]))
        self.assertEqual(self.replies(cluster), [])
        cluster.sync(3, 1)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK)])
        cluster.sync(3, 1)
        self.assertEqual(self.replies(cluster), [self.answer(CHUNK, 150)])

    def test_chunks_of_one_turn_are_one_write(self):
        cluster, core = self.held()
        for offset in (0, 100, 200):
            core.step(1, self.chunk(offset, offset + 100))
        (ready,) = cluster.collect(3)
        self.assertEqual(ready.chunk, (0, self.image[:300]))

    def test_duplicate_and_early_chunks_change_nothing(self):
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        for offset in (0, 2 * CHUNK):
            (ready,) = cluster.step(1, 3, self.chunk(offset, offset + CHUNK))
            self.assertIsNone(ready.chunk)
        self.assertEqual(core.incoming.next_offset, CHUNK)
        self.assertEqual(self.replies(cluster), [], "what they count is not written")
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK), self.answer(0, CHUNK),
                                                 self.answer(200, CHUNK)])

    def test_question_is_answered(self):
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(300, 300))
        cluster.step(1, 3, self.chunk(0, 0))
        self.assertEqual(self.replies(cluster), [self.answer(300, 0), self.answer(0, 0)])
        self.assertIsNone(core.incoming)
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.sync(3)
        self.replies(cluster)
        cluster.step(1, 3, self.chunk(300, 300))
        self.assertEqual(self.replies(cluster), [self.answer(300, CHUNK)])
        (ready,) = cluster.step(1, 3, self.chunk(CHUNK, CHUNK))
        self.assertEqual((ready.job, ready.chunk), (0, None), "nothing is to be written")
        self.assertEqual(self.replies(cluster), [self.answer(CHUNK, CHUNK)])

    def test_question_waits_until_what_its_answer_counts_is_written(self):
        """Else the leader would send window after window to a disk that hangs."""
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.step(1, 3, self.chunk(CHUNK, CHUNK))
        self.assertEqual(self.replies(cluster), [])
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK), self.answer(CHUNK, CHUNK)])

    def test_question_about_another_one_waits_for_what_came_of_the_first(self):
        """Its window is not added to what waits for the disk."""
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.step(1, 3, Snapshot(3, 9, 2, 500, 1, 0))
        self.assertEqual(self.replies(cluster), [])
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK),
                                                 SnapshotReply(3, 9, 2, 1, 0, 0)])

    def test_13_5_first_chunk_of_another_one_drops_the_partial(self):
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        other = Snapshot(3, 9, 2, 500, 1, CHUNK, b"more")
        cluster.step(1, 3, other)
        self.assertEqual(core.incoming.identity, self.meta.identity)
        other.offset = 0
        (ready,) = cluster.step(1, 3, other)
        self.assertEqual((ready.chunk, core.incoming.identity), ((0, b"more"), other.identity))

    def test_late_copy_of_an_older_one_is_passed_over(self):
        """Doubled on its way: it must not drop what the same leader sends now."""
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.sync(3)
        cluster.take()
        cluster.step(1, 3, Snapshot(3, 7, 2, 500, 1, 0, b"old"))
        self.assertEqual(core.incoming.identity, self.meta.identity)
        self.assertEqual(self.replies(cluster), [])

    def test_older_one_of_a_new_leader_takes_its_place(self):
        """Nobody sends the other one any more."""
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.step(2, 3, Snapshot(4, 7, 2, 500, 1, 0, b"old"))
        self.assertEqual(core.incoming.identity, SnapshotId(7, 2, 500, 1))

    def test_another_leader_goes_on_with_the_same_file(self):
        """Index, term, size and checksum say what it is, not who sends it."""
        cluster, core = self.held()
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.sync(3)
        cluster.take()
        cluster.step(2, 3, self.chunk(0, 0, term=4))
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [self.answer(0, CHUNK, term=4)])
        cluster.step(2, 3, self.chunk(CHUNK, None, term=4))
        cluster.sync(3)
        self.assertEqual(core.snapshot, self.meta)

    def test_what_is_committed_here_is_acknowledged(self):
        """No snapshot at or below the commit index is taken: it would take the state back."""
        cluster, core = self.held([1, 1, 1, 1, 2, 2, 2, 2, 3])
        core.log.commit_to(8)
        cluster.collect(3)
        for chunk in (self.chunk(0, CHUNK), self.chunk(0, 0), self.chunk(0)):
            cluster.step(1, 3, chunk)
            self.assertEqual(self.replies(cluster), [AppendReply(3, True, 8)])
        self.assertIsNone(core.incoming)

    def test_acknowledged_only_when_durable(self):
        """Committed, and its disk is behind: the answer waits."""
        cluster, core = self.held([1, 1, 1, 1])
        cluster.step(1, 3, Append(3, 4, 1, 8, [batch(index, 2) for index in (5, 6, 7, 8)]))
        self.assertEqual((core.log.commit_index, core.log.stable_index), (8, 4))
        cluster.step(1, 3, self.chunk(0, CHUNK))
        self.assertEqual(self.replies(cluster), [])
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [AppendReply(3, True, 8)] * 2)

    def receive(self, cluster: Cluster) -> None:
        """All of it in one chunk, written; not built."""
        cluster.nodes[3].builds = False
        cluster.step(1, 3, self.chunk(0))
        cluster.sync(3)
        cluster.take()

    def install(self, cluster: Cluster) -> list:
        """It is built: the Readys that follow."""
        cluster.nodes[3].to_build = None
        self.assertTrue(cluster.core(3).snapshot_received(self.meta))
        return cluster.collect(3)

    def test_13_4_asked_to_verify_only_when_all_is_written(self):
        cluster, core = self.held()
        cluster.nodes[3].builds = False
        cluster.step(1, 3, self.chunk(0, CHUNK))
        cluster.sync(3)
        cluster.step(1, 3, self.chunk(CHUNK))
        self.assertIsNone(cluster.nodes[3].to_build)
        self.assertFalse(core.wants_snapshot(self.meta.identity))
        cluster.sync(3)
        self.assertEqual(cluster.nodes[3].to_build, self.meta.identity)
        self.assertTrue(core.wants_snapshot(self.meta.identity))
        self.assertEqual(core.log.last_index, 1, "the old state stands")

    def test_asked_to_verify_once(self):
        """Whatever else the disk does meanwhile."""
        cluster, core = self.held()
        self.receive(cluster)
        cluster.nodes[3].to_build = None
        cluster.step(1, 3, Append(3, 1, 1, 0, [batch(2, 3)]))
        cluster.sync(3)
        self.assertIsNone(cluster.nodes[3].to_build)
        self.assertFalse(core.snapshot_received(self.meta._replace(checksum=1)), "another one")
        self.assertTrue(core.snapshot_received(self.meta))

    def test_13_7_whole_log_is_discarded_and_acknowledged_when_that_is_durable(self):
        cluster, core = self.held([1, 1, 3])
        self.receive(cluster)
        (ready,) = self.install(cluster)
        self.assertEqual((ready.install, ready.entries, ready.chunk), (self.meta, [], None))
        log = core.log
        self.assertEqual((log.base_index, log.base_term, log.last_index, log.commit_index,
                          log.applied_index, log.epoch), (8, 2, 8, 8, 8, 1))
        self.assertEqual((log.last_term, log.term_at(8), log.term_at(7)), (2, 2, None))
        self.assertEqual(log.stable_index, 0, "nothing that the log holds is durable yet")
        self.assertEqual(self.replies(cluster), [])
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [AppendReply(3, True, 8)])
        self.assertEqual(log.stable_index, 8)
        self.assertEqual(cluster.nodes[3].applied, self.history)

    def test_13_6_what_follows_the_last_entry_stays(self):
        """The log holds entry 8 of term 2: 9 and 10 may have been acknowledged."""
        cluster, core = self.held([1, 1, 1, 1, 2, 2, 2, 2, 2, 3])
        self.receive(cluster)
        self.install(cluster)
        log = core.log
        self.assertEqual((log.base_index, log.last_index, log.stable_index), (8, 10, 10))
        self.assertEqual([log.term_at(index) for index in (8, 9, 10)], [2, 2, 3])
        cluster.sync(3)
        self.assertEqual([e.index for e in cluster.nodes[3].file], [9, 10])

    def test_7_same_index_of_another_term_stays_not(self):
        """A conflicting suffix: entry 8 here is of term 3."""
        cluster, core = self.held([1, 1, 1, 1, 2, 2, 2, 3, 3])
        self.receive(cluster)
        self.install(cluster)
        self.assertEqual((core.log.last_index, core.log.last_term), (8, 2))
        cluster.sync(3)
        self.assertEqual(cluster.nodes[3].file, [])

    def test_entries_decided_before_belong_to_the_old_log(self):
        """They are handed out in a job of their own: what the disk holds when it installs is what
        the core thought, a replaced tail included (else the old tail would come back)."""
        cluster, core = self.held([1, 1, 1, 1, 2, 2, 2, 2, 2, 2])
        self.receive(cluster)
        core.step(1, Append(3, 8, 2, 0, [batch(9, 3)]))
        before, installs = self.install(cluster)
        self.assertEqual(([e.term for e in before.entries], before.rewound), ([3], True))
        self.assertEqual((before.install, installs.install), (None, self.meta))
        self.assertEqual([m for _, m in before.messages_after_sync], [AppendReply(3, True, 9)])
        self.assertEqual([m for _, m in installs.messages_after_sync], [AppendReply(3, True, 8)])
        cluster.sync(3)
        self.assertEqual([(e.index, e.term) for e in cluster.nodes[3].file], [(9, 3)])
        self.assertEqual(core.log.stable_index, 9)

    def test_job_from_before_vouches_for_nothing_in_the_new_log(self):
        """Its epoch is the old one: the entries that it wrote are gone."""
        cluster, core = self.held([1])
        self.receive(cluster)
        cluster.step(1, 3, Append(3, 1, 1, 0, [batch(index, 3) for index in range(2, 13)]))
        self.install(cluster)
        self.assertEqual(core.log.last_index, 8)
        cluster.sync(3, 1)
        self.assertEqual(core.log.stable_index, 0)
        cluster.sync(3, 1)
        self.assertEqual(core.log.stable_index, 8)

    def test_13_8_members_are_those_of_the_snapshot(self):
        """Added, promoted or removed by what it never saw as an entry."""
        cluster, core = self.held()
        newer = cluster.membership.without_member(3).with_member(Member(4, address_of(4), True))
        meta = self.meta._replace(membership_index=6, membership=newer)
        self.receive(cluster)
        self.meta = meta
        cluster.nodes[3].to_build = None
        self.assertTrue(core.snapshot_received(meta))
        core.ready()
        self.assertEqual((core.membership, core.log.membership_index), (newer, 6))
        core.tick(10_000)
        self.assertEqual(core.role, Role.FOLLOWER, "it is no voter any more")

    def test_crash_before_the_job_is_done_leaves_the_old_state(self):
        cluster, core = self.held([1, 1, 3])
        self.receive(cluster)
        self.install(cluster)
        cluster.crash(3)
        cluster.restart(3)
        core = cluster.core(3)
        self.assertEqual((core.log.last_index, core.log.base_index, core.snapshot), (3, 0, None))
        cluster.step(1, 3, self.chunk(0, 0))
        self.assertEqual(self.replies(cluster), [self.answer(0, 0)], "what was received is gone")

    def test_refused_tells_the_leader(self):
        cluster, core = self.held()
        self.receive(cluster)
        core.snapshot_refused(SnapshotId(8, 2, 1, 1))
        self.assertIsNotNone(core.incoming)
        core.snapshot_refused(self.meta.identity)
        cluster.collect(3)
        reply = self.answer(0, 0)
        reply.damaged = True
        self.assertEqual(self.replies(cluster), [reply])
        (ready,) = cluster.step(1, 3, self.chunk(0, CHUNK))
        self.assertEqual(ready.chunk, (0, self.image[:CHUNK]))

    def test_refusal_comes_behind_the_answers_that_wait(self):
        """They would take it back: all is here, they say."""
        cluster, core = self.held()
        self.receive(cluster)
        cluster.step(1, 3, Append(3, 1, 1, 0, [batch(2, 3)]))
        cluster.step(1, 3, self.chunk(300, 300))
        core.snapshot_refused(self.meta.identity)
        cluster.collect(3)
        cluster.sync(3)
        self.assertEqual([reply.damaged for reply in self.replies(cluster)
                          if isinstance(reply, SnapshotReply)], [False, True])

    def test_whole_one_is_not_disturbed_while_it_is_verified(self):
        """The file must not change under whoever reads it; another one is not answered."""
        cluster, core = self.held()
        self.receive(cluster)
        other = Snapshot(4, 9, 2, 500, 1, 0, b"begins")
        self.assertFalse([r for r in cluster.step(2, 3, other) if r.chunk])
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [])
        cluster.step(2, 3, self.chunk(0, CHUNK, term=4))
        self.assertEqual(self.replies(cluster), [self.answer(0, self.meta.size, term=4)])
        self.install(cluster)
        cluster.sync(3)
        self.assertEqual([(e.to, e.message) for e in cluster.take()],
                         [(2, AppendReply(4, True, 8))])

    def test_no_install_of_what_is_committed_meanwhile(self):
        cluster, core = self.held()
        self.receive(cluster)
        cluster.step(1, 3, Append(3, 1, 1, 8, self.history[1:]))
        self.assertFalse(core.wants_snapshot(self.meta.identity))
        self.assertFalse(core.snapshot_received(self.meta))
        cluster.sync(3)
        self.assertEqual((core.log.base_index, core.log.commit_index), (0, 8))
        cluster.take()
        cluster.step(1, 3, self.chunk(0, 0))
        self.assertEqual(self.replies(cluster), [AppendReply(3, True, 8)])
        self.assertIsNone(core.incoming)

    def test_no_install_by_what_became_wrong_in_the_same_turn(self):
        """Verified, and then an append commits all of it before the next Ready."""
        cluster, core = self.held()
        self.receive(cluster)
        self.assertTrue(core.snapshot_received(self.meta))
        core.step(1, Append(3, 1, 1, 8, self.history[1:]))
        (ready,) = cluster.collect(3)
        self.assertEqual((ready.install, core.log.epoch, core.incoming), (None, 0, None))

    def test_leader_drops_what_it_received(self):
        """All that is committed is in its log; the answers of the caller come too late."""
        cluster, core = self.held([1, 1, 3])
        self.receive(cluster)
        cluster.campaign(3)
        for node_id in (1, 2):
            cluster.deliver(cluster.take(to=node_id))
        cluster.settle()
        self.assert_leader(cluster, 3)
        self.assertFalse(core.wants_snapshot(self.meta.identity))
        self.assertFalse(core.snapshot_received(self.meta))
        core.snapshot_refused(self.meta.identity)
        self.assertEqual(core.log.epoch, 0)

    def test_votes_and_answers_heartbeats_meanwhile(self):
        cluster, core = self.held()
        self.receive(cluster)
        cluster.step(1, 3, Heartbeat(3, 0, 5, 6))
        self.assertEqual(self.replies(cluster), [HeartbeatReply(3, 5, 6)])
        core.leader_gone(1)
        cluster.step(2, 3, Vote(4, 9, 3))
        cluster.sync(3)
        self.assertEqual(self.replies(cluster), [VoteReply(4, True)])

    def test_candidate_installs_too(self):
        """Its own log becomes no worse by what is committed."""
        cluster, core = self.held()
        self.receive(cluster)
        cluster.campaign(3)
        self.assertTrue(core.pre_voting)
        self.install(cluster)
        cluster.sync(3)
        self.assertEqual(core.log.last_index, 8)
        self.assertEqual([e for e in cluster.take(AppendReply)], [], "there is no leader to tell")

    def test_next_append_follows_the_snapshot(self):
        cluster, core = self.held()
        self.receive(cluster)
        self.install(cluster)
        (ready,) = cluster.step(1, 3, Append(3, 8, 2, 9, [batch(9, 3)]))
        self.assertEqual([e.index for e in ready.entries], [9])
        cluster.sync(3)
        self.assertEqual((core.log.stable_index, core.log.commit_index), (9, 9))
        cluster.restart(3)
        self.assertEqual(cluster.nodes[3].applied, self.history)
        log = cluster.core(3).log
        self.assertEqual((log.base_index, log.commit_index, log.applied_index, log.last_index),
                         (8, 8, 8, 9))
