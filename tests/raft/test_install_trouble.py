"""Snapshots for followers where a disk hangs, or what was received is damaged: whole clusters."""

from collections import Counter

from raftnet.raft.types import HeartbeatReply, Snapshot, SnapshotReply
from tests.raft.harness import Cluster
from tests.raft.installing import CHUNK, InstallTestCase

WINDOW = 3 * CHUNK
TIMEOUT_MS, WAIT_MS_MAX, TURN_MS = 500, 60_000, 100


class HangingDiskTest(InstallTestCase):
    """The follower's disk does nothing for a while."""

    def hanging(self) -> Cluster:
        """Node 3 was asked, has answered, and then its disk hangs."""
        cluster = self.behind(entries=30)
        cluster.deliver([self.asked(cluster)])
        cluster.sync(3)             # the term
        cluster.slow_disks.add(3)
        self.assertGreater(cluster.core(1).snapshot.size, 3 * WINDOW)
        del cluster.sent[:]
        return cluster

    def waiting(self, cluster: Cluster) -> int:
        """The bytes that its disk has not written, wherever they are."""
        node = cluster.nodes[3]
        return sum(len(ready.chunk[1]) for ready in node.jobs if ready.chunk) + (
            sum(map(len, node.core.incoming.pieces)) if node.core.incoming else 0)

    def assert_never_twice(self, cluster: Cluster) -> None:
        offsets = Counter(e.message.offset for e in cluster.sent
                          if isinstance(e.message, Snapshot) and e.message.data)
        self.assertEqual(set(offsets.values()), {1}, offsets)

    def test_window_bounds_what_waits_for_the_disk(self):
        cluster = self.hanging()
        for turn in range(100):
            if turn % 25 == 20:
                cluster.core(1).peer_connected(3)
            cluster.beat()
            self.assertLessEqual(self.waiting(cluster), WINDOW)
        self.assertEqual(self.waiting(cluster), WINDOW)

    def test_what_is_not_written_yet_is_not_lost(self):
        """Asked again and again, it answers when it is, and nothing is sent twice."""
        cluster = self.hanging()
        for _ in range(100):
            cluster.beat()
        sent = [e.message for e in cluster.sent if isinstance(e.message, Snapshot)]
        self.assertGreater(len([message for message in sent if not message.data]), 5)
        cluster.slow_disks.clear()
        cluster.beat()
        self.assert_installed(cluster, 3)
        self.assert_never_twice(cluster)

    def test_disk_that_needs_longer_than_the_timeout_for_each_chunk(self):
        cluster = self.hanging()
        for _ in range(60):
            for _ in range(13):
                cluster.beat()
                self.assertLessEqual(self.waiting(cluster), WINDOW)
            cluster.sync(3, 1)
        cluster.slow_disks.clear()
        cluster.beat()
        self.assert_installed(cluster, 3)
        self.assert_never_twice(cluster)

    def test_loss_meanwhile_is_found_when_the_disk_works_again(self):
        cluster = self.hanging()
        cluster.collect(1)
        cluster.deliver(cluster.take(SnapshotReply))
        cluster.deliver(cluster.take(Snapshot)[:1])     # the other two are lost
        for _ in range(30):
            cluster.beat()
        self.assertEqual(self.waiting(cluster), CHUNK)
        cluster.slow_disks.clear()
        for _ in range(3):
            cluster.beat()
        self.assert_installed(cluster, 3)

    def test_another_leader_adds_no_window(self):
        cluster = self.hanging()
        cluster.beat()
        self.assertEqual(self.waiting(cluster), WINDOW)
        cluster.crash(1)
        cluster.restart(1)
        cluster.elect(2)
        self.assert_leader(cluster, 2)
        cluster.replicate(2)
        cluster.nodes[2].compact(0)
        for _ in range(30):
            cluster.beat()
            self.assertEqual(self.waiting(cluster), WINDOW)
        cluster.slow_disks.clear()
        cluster.beat()
        self.assertEqual(cluster.core(3).snapshot, cluster.core(2).snapshot)


class DamagedTest(InstallTestCase):
    """The follower refuses what it received."""

    def refusing(self) -> Cluster:
        """A transfer to node 3 is under way; of it this test sends the leader what it wants."""
        cluster = self.behind()
        self.chunks(cluster)
        return cluster

    def refuse(self, cluster: Cluster) -> None:
        """Node 3 says that what the leader sends now is damaged."""
        meta = cluster.core(1).progress[3].snapshot
        cluster.step(3, 1, SnapshotReply(cluster.core(1).current_term, meta.index, meta.term,
                                         meta.checksum, 0, 0, True))

    def turn(self, cluster: Cluster) -> list[Snapshot]:
        """Some time passes on the leader, whom the others hear; what it sends node 3."""
        core = cluster.core(1)
        cluster.tick(TURN_MS, 1)
        for node_id in (2, 3):
            cluster.step(node_id, 1, HeartbeatReply(core.current_term, 0, core.now_ms))
        sent = [e.message for e in cluster.take(Snapshot, to=3)]
        cluster.take()
        return sent

    def waited_ms(self, cluster: Cluster) -> int:
        """Until it asks node 3 again."""
        began_ms = cluster.core(1).now_ms
        while not (sent := self.turn(cluster)):
            self.assertLess(cluster.core(1).now_ms - began_ms, 2 * WAIT_MS_MAX)
        self.assertEqual([(message.offset, message.data) for message in sent], [(0, b"")])
        return cluster.core(1).now_ms - began_ms

    def test_waits_grow_and_each_refusal_is_told(self):
        cluster = self.refusing()
        told, identity = cluster.nodes[1].doubted, cluster.core(1).snapshot.identity
        for number in range(10):
            self.refuse(cluster)
            self.assertEqual(told, [identity] * (number + 1))
            self.assertEqual(self.waited_ms(cluster), min(TIMEOUT_MS << number, WAIT_MS_MAX))
        self.assertEqual(len(told), 10)

    def test_new_connection_and_late_answers_do_not_shorten_it(self):
        cluster = self.refusing()
        core = cluster.core(1)
        for _ in range(3):
            self.refuse(cluster)
            self.waited_ms(cluster)
        self.refuse(cluster)
        meta, told = core.snapshot, len(cluster.nodes[1].doubted)
        core.peer_connected(3)
        self.refuse(cluster)        # doubled on its way
        cluster.step(3, 1, SnapshotReply(2, meta.index, meta.term, meta.checksum, meta.size,
                                         meta.size))
        self.assertEqual(cluster.take(Snapshot), [])
        self.assertEqual(self.waited_ms(cluster), 8 * TIMEOUT_MS)
        self.assertEqual(len(cluster.nodes[1].doubted), told)

    def test_newer_one_waits_for_nothing_and_begins_with_the_first_wait(self):
        cluster = self.refusing()
        for _ in range(6):
            self.refuse(cluster)
            self.waited_ms(cluster)
        self.refuse(cluster)
        self.assertEqual(self.turn(cluster), [])
        cluster.heal()
        cluster.nodes[3].builds = False
        cluster.cut = {(1, 3), (3, 1)}
        cluster.replicate(1)
        cluster.nodes[1].compact(0)
        cluster.take()
        (question,) = self.turn(cluster)
        self.assertEqual(question.identity, cluster.core(1).snapshot.identity)
        self.refuse(cluster)
        self.assertEqual(cluster.nodes[1].doubted[-1], question.identity)
        self.assertEqual(self.waited_ms(cluster), TIMEOUT_MS)

    def test_replaced_one_gives_way_to_the_newest_after_the_first_wait(self):
        cluster = self.refusing()
        old = cluster.core(1).snapshot
        cluster.cut = {(1, 3), (3, 1)}
        cluster.replicate(1)
        cluster.nodes[1].compact(0)
        cluster.take()
        self.refuse(cluster)
        self.assertEqual(cluster.nodes[1].doubted, [old.identity])
        self.assertEqual(self.waited_ms(cluster), TIMEOUT_MS)
        self.assertEqual(cluster.core(1).progress[3].snapshot, cluster.core(1).snapshot)

    def test_two_that_refuse_in_one_turn_are_told_as_one(self):
        """Of two snapshots the newer one: the other is replaced already."""
        cluster = self.refusing()
        core, old = cluster.core(1), cluster.core(1).snapshot
        cluster.cut = {(1, 3), (3, 1)}
        cluster.replicate(1)
        cluster.nodes[1].compact(0)
        core.progress[2].begin_snapshot(core.snapshot)
        for node_id, meta in ((2, core.snapshot), (3, old)):
            core.step(node_id, SnapshotReply(2, meta.index, meta.term, meta.checksum, 0, 0, True))
        cluster.collect(1)
        self.assertEqual(cluster.nodes[1].doubted, [core.snapshot.identity])

    def test_log_may_be_cut_while_it_waits(self):
        """The cut waits for those that install; here it brings the snapshot that may help."""
        cluster = self.refusing()
        core = cluster.core(1)
        self.assertEqual(core.installing_to(), [3])
        self.refuse(cluster)
        self.assertEqual(core.installing_to(), [])
        self.waited_ms(cluster)
        self.assertEqual(core.installing_to(), [3])

    def test_file_that_rots_on_the_leader_is_sent_seldom_and_the_next_one_helps(self):
        cluster = self.behind()
        disk = cluster.nodes[1].disk
        disk.image = disk.image[:50] + bytes([disk.image[50] ^ 1]) + disk.image[51:]
        cluster.core(1).peer_connected(3)
        for _ in range(600):
            cluster.beat()
        doubted = cluster.nodes[1].doubted
        self.assertEqual(set(doubted), {cluster.core(1).snapshot.identity})
        self.assertEqual(len(doubted), 7, "at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s")
        cluster.replicate(1)
        cluster.nodes[1].compact(0)
        cluster.beat()
        self.assert_installed(cluster, 3)
