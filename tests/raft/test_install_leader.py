"""Snapshots for followers (Raft 7; thesis 5.3), the leader's side and whole clusters."""

from raftnet.raft.membership import Member
from raftnet.raft.types import Append, Heartbeat, HeartbeatReply, Role, Snapshot, SnapshotReply
from tests.raft.files import entries_of, meta_of
from tests.raft.harness import address_of
from tests.raft.installing import CHUNK, InstallTestCase


class LeaderTest(InstallTestCase):
    """Who is sent what."""

    def test_7_follower_behind_the_log_is_sent_the_snapshot(self):
        cluster = self.behind()
        cluster.core(1).peer_connected(3)
        cluster.beat()
        cluster.beat()
        self.assert_installed(cluster, 3)
        cluster.replicate(1, 3)
        self.assert_installed(cluster, 3)
        self.assertIsNone(cluster.core(1).progress[3].snapshot)

    def test_merely_slow_follower_gets_the_log(self):
        """What it needs is in the tail that was kept."""
        cluster = self.behind(keep=11)
        self.assertEqual(cluster.core(1).log.base_index, 1)
        cluster.core(1).peer_connected(3)
        cluster.beat()
        cluster.beat()
        self.assertFalse([e for e in cluster.sent if isinstance(e.message, Snapshot)])
        self.assert_committed(cluster, 12)

    def test_one_entry_too_few_is_behind(self):
        """Entry 2 was cut off, and with it the term that an append of entry 3 must name."""
        cluster = self.behind(keep=10)
        self.assertEqual(cluster.core(1).log.base_index, 2)
        self.assertEqual(self.asked(cluster).message.identity, cluster.core(1).snapshot.identity)

    def test_newcomer_with_an_empty_log(self):
        """Its first entry would be 1: the snapshot says who belongs, itself included."""
        cluster = self.behind()
        cluster.add_node(4)
        cluster.change(1, cluster.core(1).membership.with_member(Member(4, address_of(4), False)))
        cluster.settle()
        cluster.nodes[1].compact(0)
        for _ in range(6):
            cluster.beat()
        self.assertEqual(cluster.core(4).membership.voters, [1, 2, 3, 4])
        self.assertEqual(cluster.nodes[4].applied, cluster.nodes[1].applied)

    def test_asks_before_it_sends(self):
        """It may be there in part; and who is dead is sent no window of chunks."""
        cluster = self.behind()
        question = self.asked(cluster)
        self.assertEqual((question.message.offset, question.message.data), (0, b""))
        cluster.tick(100, 1)
        self.assertEqual(cluster.take(Snapshot), [])

    def test_window_bounds_what_is_on_its_way(self):
        cluster = self.behind()
        chunks = self.chunks(cluster)
        self.assertEqual([e.message.offset for e in chunks], [0, CHUNK, 2 * CHUNK])
        cluster.deliver(chunks[:1])
        cluster.sync(3)
        cluster.deliver(cluster.take(SnapshotReply))
        self.assertEqual([e.message.offset for e in cluster.take(Snapshot)], [3 * CHUNK])

    def test_no_append_meanwhile(self):
        """It would be refused again and again; heartbeats and reads go on."""
        cluster = self.behind()
        self.chunks(cluster)
        cluster.propose(1)
        cluster.core(1).read(7)
        cluster.tick(100, 1)
        self.assertEqual(cluster.take(Append, to=3), [])
        self.assertTrue(cluster.take(Heartbeat, to=3))

    def test_last_chunk_ends_with_the_file(self):
        cluster = self.behind()
        cluster.core(1).peer_connected(3)
        cluster.settle()
        size = cluster.core(1).snapshot.size
        ends = [e.message.offset + len(e.message.data) for e in cluster.sent
                if isinstance(e.message, Snapshot)]
        self.assertEqual(max(ends), size)

    def test_new_connection_goes_on_at_once_where_the_follower_is(self):
        cluster = self.behind()
        cluster.deliver(self.chunks(cluster)[:2])
        cluster.sync(3)
        cluster.take()
        cluster.core(1).peer_connected(3)
        cluster.collect(1)
        (question,) = cluster.take(Snapshot)
        self.assertEqual((question.message.offset, question.message.data), (3 * CHUNK, b""))
        cluster.deliver([question])
        cluster.deliver(cluster.take(SnapshotReply))
        self.assertEqual([e.message.offset for e in cluster.take(Snapshot)],
                         [2 * CHUNK, 3 * CHUNK, 4 * CHUNK])

    def test_lost_window_is_asked_for_after_two_timeouts(self):
        """And not before: on a slow link it is on its way still."""
        cluster = self.behind()
        self.chunks(cluster)
        for _ in range(9):
            cluster.tick(100)
            cluster.deliver(cluster.take(Heartbeat))
            cluster.deliver(cluster.take(HeartbeatReply))
        self.assertEqual(cluster.take(Snapshot), [])
        for _ in range(2):
            cluster.beat()
        self.assert_installed(cluster, 3)

    def test_lost_chunk_is_found_by_the_next_one(self):
        """Chunks keep their order: an answer behind a hole tells of it, without a timeout."""
        cluster = self.behind()
        first, _, third = self.chunks(cluster)
        cluster.deliver([first, third])
        cluster.sync(3)
        cluster.deliver(cluster.take(SnapshotReply))
        self.assertEqual([e.message.offset for e in cluster.take(Snapshot)],
                         [3 * CHUNK, CHUNK, 2 * CHUNK, 3 * CHUNK])

    def test_many_answers_behind_one_loss_send_again_once(self):
        cluster = self.behind()
        chunks = self.chunks(cluster)
        cluster.deliver(chunks[1:])
        replies = cluster.take(SnapshotReply)
        self.assertEqual(len(replies), 2)
        cluster.deliver(replies)
        self.assertEqual([e.message.offset for e in cluster.take(Snapshot)], [0, CHUNK, 2 * CHUNK])

    def test_each_loss_is_found_at_once(self):
        """Once the first one is made good, the next one is found in the same way."""
        cluster = self.behind()
        _, second, _ = self.chunks(cluster)
        cluster.deliver([second])
        cluster.deliver(cluster.take(SnapshotReply))
        first, _, third = cluster.take(Snapshot)
        cluster.deliver([first])
        cluster.sync(3)
        cluster.deliver(cluster.take(SnapshotReply))
        cluster.take()
        cluster.deliver([third])
        cluster.deliver(cluster.take(SnapshotReply))
        self.assertEqual([e.message.offset for e in cluster.take(Snapshot)],
                         [CHUNK, 2 * CHUNK, 3 * CHUNK])

    def test_loss_of_what_was_sent_again_is_found_after_the_timeout(self):
        """The question is answered like a chunk behind a hole."""
        cluster = self.behind()
        cluster.deliver(self.chunks(cluster)[1:])
        cluster.deliver(cluster.take(SnapshotReply))
        self.assertEqual(len(cluster.take(Snapshot)), 3)
        for _ in range(12):
            cluster.beat()
        self.assert_installed(cluster, 3)

    def test_late_answer_takes_nothing_back(self):
        cluster = self.behind()
        chunks = self.chunks(cluster)
        cluster.deliver(chunks)
        cluster.sync(3)
        replies = cluster.take(SnapshotReply)
        cluster.deliver(reversed(replies))
        progress = cluster.core(1).progress[3]
        self.assertEqual((progress.snapshot_offset, progress.snapshot_sent),
                         (300, cluster.core(1).snapshot.size))

    def test_follower_that_lost_all_by_a_restart_is_begun_anew(self):
        cluster = self.behind()
        cluster.deliver(self.chunks(cluster))
        cluster.sync(3)
        cluster.crash(3)
        cluster.restart(3)
        cluster.core(3).election_deadline_ms = 1 << 40
        cluster.core(1).peer_connected(3)
        cluster.beat()
        cluster.beat()
        self.assert_installed(cluster, 3)

    def test_answers_count_as_life(self):
        """Check-quorum hears them: a leader and one follower that receives go on."""
        cluster = self.behind()
        cluster.crash(2)
        core, meta = cluster.core(1), cluster.core(1).snapshot
        for _ in range(30):
            cluster.tick(100, 1)
            cluster.step(3, 1, SnapshotReply(2, meta.index, meta.term, meta.checksum, 0, 0))
        self.assertEqual(core.role, Role.LEADER)
        for _ in range(6):
            cluster.tick(100, 1)
        self.assertEqual(core.role, Role.FOLLOWER)

    def test_answers_to_another_transfer_are_late(self):
        cluster = self.behind()
        self.chunks(cluster)
        meta = cluster.core(1).snapshot
        for reply in (SnapshotReply(2, meta.index, meta.term, meta.checksum ^ 1, 0, 300),
                      SnapshotReply(2, meta.index - 1, meta.term, meta.checksum, 0, 300),
                      SnapshotReply(2, meta.index, meta.term, meta.checksum, 0, meta.size + 1),
                      SnapshotReply(1, meta.index, meta.term, meta.checksum, 0, 300)):
            cluster.step(3, 1, reply)
            self.assertEqual(cluster.core(1).progress[3].snapshot_offset, 0)

    def test_replaced_snapshot_is_sent_to_its_end(self):
        """While its file can be read: beginning anew each time would never end [consul #9609]."""
        cluster = self.behind()
        chunks, old = self.chunks(cluster), cluster.core(1).snapshot
        cluster.replicate(1, 3)
        cluster.nodes[1].compact(5)
        self.assertGreater(cluster.core(1).snapshot.index, old.index)
        self.assertEqual(cluster.core(1).progress[3].snapshot, old)
        cluster.deliver(chunks[:1])
        cluster.sync(3)
        cluster.core(1).step(3, cluster.take(SnapshotReply)[0].message)
        (message,) = [m for _, m in cluster.core(1).ready().messages if isinstance(m, Snapshot)]
        self.assertEqual((message.identity, message.offset), (old.identity, 3 * CHUNK))

    def test_unreadable_snapshot_gives_way_to_the_newest(self):
        cluster = self.behind()
        self.chunks(cluster)
        cluster.replicate(1)
        cluster.nodes[1].compact(0)
        core = cluster.core(1)
        old = core.progress[3].snapshot.identity
        for _ in range(8):      # each chunk of a window, and the newest has not failed by that
            core.snapshot_unreadable(3, old)
        self.assertEqual(core.progress[3].snapshot, core.snapshot)
        self.assertEqual(core.progress[3].snapshot_wait_ms, 0)
        for _ in range(2):
            cluster.beat()
        self.assert_installed(cluster, 3)

    def test_newest_snapshot_unreadable_waits_once_for_a_window(self):
        cluster = self.behind()
        self.chunks(cluster)
        core = cluster.core(1)
        for _ in range(8):
            core.snapshot_unreadable(3, core.snapshot.identity)
        self.assertEqual(core.progress[3].snapshot_wait_ms, core.timeout_of(3))

    def test_log_cut_further_meanwhile_takes_a_second_one(self):
        """What it installed ends below the log that the leader still has."""
        cluster = self.behind()
        cluster.core(1).peer_connected(3)
        cluster.nodes[3].builds = False
        cluster.settle()
        cluster.replicate(1, 3)
        cluster.nodes[1].compact(0)
        cluster.nodes[3].builds = True
        cluster.build(3)
        cluster.collect(3)
        cluster.beat()
        cluster.beat()
        self.assert_installed(cluster, 3)

    def test_installing_to_names_those_that_are_heard(self):
        cluster = self.behind()
        self.chunks(cluster)
        self.assertEqual(cluster.core(1).installing_to(), [3])
        cluster.isolate(3)
        for _ in range(6):
            cluster.beat()
        self.assertEqual(cluster.core(1).installing_to(), [])
        self.assertIsNotNone(cluster.core(1).progress[3].snapshot)

    def test_removed_member_is_sent_no_more_and_resumed_when_taken_in_again(self):
        cluster = self.behind()
        cluster.deliver(self.chunks(cluster))
        cluster.sync(3)
        cluster.take()
        without = cluster.core(1).membership.without_member(3)
        cluster.cut = {(1, 3), (3, 1)}
        cluster.change(1, without)
        cluster.beat()
        cluster.heal()
        cluster.beat()
        self.assertEqual(cluster.take(Snapshot), [])
        cluster.change(1, without.with_member(Member(3, address_of(3), False)))
        del cluster.sent[:]
        for _ in range(4):
            cluster.beat()
        sent = [e.message.offset for e in cluster.sent if isinstance(e.message, Snapshot)]
        self.assertEqual(sent[:2], [0, 3 * CHUNK], "not resumed")
        self.assertEqual(cluster.nodes[3].applied, cluster.nodes[1].applied)
        self.assertEqual(cluster.core(3).membership.voters, [1, 2, 3])


class ClusterTest(InstallTestCase):
    """Whole clusters."""

    def test_leader_changes_in_the_midst(self):
        """The other one has made the same snapshot: nothing is sent twice."""
        cluster = self.behind()
        self.assertEqual(cluster.core(1).snapshot, cluster.core(2).snapshot)
        cluster.deliver(self.chunks(cluster))
        cluster.sync(3)
        cluster.take()
        cluster.crash(1)
        cluster.elect(2)
        for _ in range(3):
            cluster.beat()
        offsets = [e.message.offset for e in cluster.sent if isinstance(e.message, Snapshot)
                   and e.sender == 2 and e.message.data]
        self.assertEqual(offsets[0], 3 * CHUNK)
        self.assertEqual(cluster.nodes[3].applied, cluster.nodes[2].applied)

    def test_chunks_in_any_order_with_losses_and_doubles(self):
        """Whatever the network does, one timeout after another it gets on."""
        cluster = self.behind()
        cluster.core(1).peer_connected(3)
        cluster.collect(1)
        for turn in range(200):
            pool, cluster.pool = cluster.pool, []
            cluster.random.shuffle(pool)
            for envelope in pool:
                if cluster.random.random() < 0.8:
                    cluster.deliver([envelope] * cluster.random.choice((1, 1, 2)))
            for node_id in (1, 2, 3):
                cluster.sync(node_id)
            cluster.tick(50)
            for core in cluster.cores:
                core.election_deadline_ms = 1 << 40
            if cluster.core(3).snapshot is not None:
                break
        self.assertEqual(cluster.core(3).snapshot, cluster.core(1).snapshot)

    def test_read_rounds_count_who_installs(self):
        """ReadIndex asks who leads, not who holds what."""
        cluster = self.behind()
        cluster.crash(2)
        self.chunks(cluster)
        cluster.nodes[3].builds = False
        cluster.core(1).read(5)
        cluster.settle()
        self.assertEqual(cluster.nodes[1].reads, {5: 12})

    def test_it_counts_in_the_quorum_once_it_acknowledges(self):
        cluster = self.behind()
        cluster.crash(2)
        cluster.propose(1)
        self.chunks(cluster)
        self.assertEqual(cluster.core(1).log.commit_index, 12)
        cluster.core(1).peer_connected(3)
        cluster.beat()
        cluster.beat()
        self.assert_committed(cluster, 13, 1, 3)

    def test_image_holds_the_history(self):
        """Of the harness itself."""
        cluster = self.behind()
        node = cluster.nodes[1]
        self.assertEqual(entries_of(node.disk.image), node.applied)
        self.assertEqual(meta_of(node.applied), node.disk.snapshot)
