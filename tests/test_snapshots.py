"""Snapshots at replicas: making and cutting, installing, what clients are given."""

import unittest
from unittest import mock

from raftnet.config import Config, RaftConfig, SnapshotConfig
from raftnet.errors import CorruptFileError, ErrorCode
from raftnet.rebuild import make_snapshot
from raftnet.snapshots import Snapshots
from raftnet.storage.succession import Succession
from raftnet.wire import commands, requests, snapshots
from raftnet.wire.frames import Kind
from tests.replicas import Nodes, ReplicaCase

ADDRESSES = ("127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003")


def small(**limits) -> Config:
    """Limits that a few entries reach."""
    settings = {"log_bytes_min": 3_000, "tail_bytes": 500, "slice_bytes": 300}
    return Config(raft=RaftConfig(snapshot_chunk_bytes=400, snapshot_window_bytes=900),
                  snapshot=SnapshotConfig(**(settings | limits)))


class SnapshotCase(ReplicaCase):
    """Three founders with small limits."""

    def begin(self, config: Config | None = None, addresses=ADDRESSES) -> Nodes:
        """Founded and serving."""
        nodes = Nodes(config=config or small())
        nodes.founders(*addresses)
        nodes.run_until(lambda: nodes.serving() is not None and nodes.settled())
        return nodes

    def pass_messages(self, nodes: Nodes, count: int, text: bytes = b"m" * 50) -> None:
        """Enqueued at the leader, one request after the other."""
        for _ in range(count):
            self.assert_enqueued(nodes.enqueue(nodes.serving(), text))

    def read_snapshot(self, nodes: Nodes, node) -> tuple[snapshots.Taken, bytes]:
        """One that a client asks that node for, and all its bytes."""
        kind, body = nodes.answer_to(node, Kind.TAKE_SNAPSHOT,
                                     snapshots.encode_take_snapshot(True))
        self.assertEqual(kind, Kind.SNAPSHOT_TAKEN, body)
        taken = snapshots.decode_snapshot_taken(body)
        data = b""
        while len(data) < taken.size:
            kind, body = nodes.answer_to(node, Kind.READ_SNAPSHOT, snapshots.encode_read_snapshot(
                taken.index, len(data), 700))
            part = snapshots.decode_snapshot_part(body)
            self.assertEqual((part.index, part.size, part.offset),
                             (taken.index, taken.size, len(data)))
            data += part.data
        return taken, data


class TestMaking(SnapshotCase):
    """When one is made, and what it leaves of the log."""

    def test_the_log_is_cut_again_and_again(self):
        nodes = self.begin()
        largest = 0
        for _ in range(40):
            self.pass_messages(nodes, 5)
            leader = nodes.serving()
            nodes.answer_to(leader, Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [commands.encode_dequeue(b"q", 5)]))
            largest = max(largest, *(n.replica.store.log_bytes for n in nodes.alive()))
        nodes.run_until(nodes.settled)
        for node in nodes.alive():
            self.assertGreater(node.replica.raft.log.base_index, 10)
            self.assertGreater(node.replica.snapshots.index, node.replica.raft.log.base_index)
        self.assertLess(largest, 8_000)

    def test_a_cut_that_a_crash_interrupted_is_made_up_for(self):
        nodes = self.begin(small(log_bytes_min=2_000))
        node = nodes.serving()
        with mock.patch.object(Succession, "_begin_successor", lambda *_: None):
            self.pass_messages(nodes, 40)
            nodes.run_until(nodes.settled)
            self.assertGreater(node.replica.snapshots.index, 0)
            self.assertEqual(node.replica.store.log_base_index, 0)
            for address in ADDRESSES:
                nodes.kill(address)
        for address in ADDRESSES:
            nodes.revive(address)
        nodes.run_until(lambda: nodes.serving() is not None and nodes.settled())
        self.pass_messages(nodes, 2)
        nodes.run_until(lambda: node.replica.store.log_base_index > 0)

    def test_what_came_while_one_was_made_counts(self):
        nodes = self.begin(small(log_bytes_min=2_000))
        held = []
        with mock.patch("tests.replicas.make_snapshot",
                        lambda disk, config, order: held.append(order)), \
                mock.patch.object(Snapshots, "made", lambda *_: None):
            self.pass_messages(nodes, 60)
        for node in nodes.alive():
            snapshots_of = node.replica.snapshots
            make_snapshot(node.disk, nodes.config, snapshots_of._order)
            snapshots_of.made(snapshots_of._order)
        nodes.run_until(lambda: all(n.replica.store.bytes_behind(n.replica.snapshots.index) < 2_500
                                    for n in nodes.alive()))

    def test_a_restart_begins_at_the_snapshot(self):
        nodes = self.begin()
        self.pass_messages(nodes, 60)
        nodes.run_until(nodes.settled)
        digest = nodes.serving().replica.machine.digest
        for address in ADDRESSES:
            nodes.kill(address)
        for address in ADDRESSES:
            nodes.revive(address)
            replica = nodes.nodes[address].replica
            self.assertEqual(replica.machine.applied_index, replica.snapshots.index)
            self.assertGreater(replica.snapshots.index, 0)
        before = nodes.nodes[ADDRESSES[0]].replica.raft.log.last_index
        nodes.run_until(lambda: nodes.serving() is not None and nodes.settled())
        self.pass_messages(nodes, 1)
        self.assertGreater(nodes.serving().replica.machine.applied_index, before)
        self.assertNotEqual(nodes.serving().replica.machine.digest, digest)

    def test_an_idle_cluster_writes_nothing(self):
        nodes = self.begin()
        self.pass_messages(nodes, 60)
        nodes.run_until(nodes.settled)
        before = [node.disk.operations for node in nodes.alive()]
        for _ in range(500):
            nodes.step()
        self.assertEqual(before, [node.disk.operations for node in nodes.alive()])


    def test_what_was_half_made_is_removed(self):
        nodes = self.begin()
        follower = next(n for n in nodes.alive() if n is not nodes.serving())
        replica = follower.replica
        nodes.ask(follower, Kind.TAKE_SNAPSHOT, snapshots.encode_take_snapshot(True))
        order = replica.turn().order or replica.turn().order
        follower.disk.put(order.name, b"a part")
        replica.snapshots.failed(order, "no space left")
        self.assertFalse(follower.disk.exists(order.name))
        answers = [requests.decode_error(body)[::2] for _, _, kind, body in replica.turn().answers
                   if kind == Kind.ERROR]
        self.assertEqual(answers, [(ErrorCode.NO_SNAPSHOT, "no space left")])

    def test_one_that_is_being_made_holds_a_node_in_its_cluster(self):
        nodes = self.begin(addresses=ADDRESSES[:1])
        node = nodes.serving()
        self.assertTrue(node.replica.is_quiet)
        nodes.ask(node, Kind.TAKE_SNAPSHOT, snapshots.encode_take_snapshot(True))
        order = node.replica.turn().order or node.replica.turn().order
        self.assertFalse(node.replica.is_quiet)
        node.replica.snapshots.failed(order, "it was killed")
        self.assertTrue(node.replica.is_quiet)

    def test_a_full_disk_makes_none_and_says_so(self):
        nodes = self.begin()
        node = nodes.serving()
        node.replica.set_disk_full(True)
        answer = nodes.answer_to(node, Kind.TAKE_SNAPSHOT, snapshots.encode_take_snapshot(True))
        self.assert_error(answer, ErrorCode.DISK_FULL)


class TestReplicatedTime(SnapshotCase):
    """Stamps never decrease, whatever of the log is in memory."""

    def test_after_a_restart_whose_tail_in_memory_is_replaced(self):
        config = small(log_bytes_min=1_000_000)
        config.raft.log_memory_bytes_max = 3_000
        nodes = self.begin(config)
        for _ in range(300):
            nodes.step()
        old = nodes.serving()
        address = old.begin.address
        self.assert_enqueued(nodes.enqueue(old, b"committed"))
        nodes.run_until(nodes.settled)
        time_ms = old.replica.machine.time_ms
        self.assertGreater(time_ms, 5_000)
        others = [a for a in ADDRESSES if a != address]
        nodes.cut |= {pair for a in others for pair in ((a, address), (address, a))}
        for _ in range(6):      # more than memory holds, and none of it is ever committed
            nodes.ask(old, Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [bytes(1_000)])]))
            nodes.turn(old)
        nodes.kill(address)
        nodes.cut.clear()
        nodes.run_until(lambda: nodes.serving() is not None)
        nodes.revive(address)
        nodes.run_until(lambda: nodes.settled() and len(nodes.alive()) == 3)
        replica = nodes.nodes[address].replica
        nodes.serving().replica.raft.transfer(replica.node_id)
        nodes.run_until(lambda: nodes.serving() is nodes.nodes[address])
        self.assert_enqueued(nodes.enqueue(nodes.nodes[address], b"after"))
        self.assertGreaterEqual(replica.machine.time_ms, time_ms)


class TestInstalling(SnapshotCase):
    """A follower that is behind the log."""

    def test_one_that_was_away_returns_by_snapshot(self):
        nodes = self.begin()
        away = next(a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving())
        nodes.kill(away)
        self.pass_messages(nodes, 100)
        nodes.revive(away)
        nodes.run_until(nodes.settled)
        replica = nodes.nodes[away].replica
        self.assertTrue(any("snapshot up to entry" in line
                            for line in nodes.nodes[away].lines.lines))
        self.pass_messages(nodes, 3)
        nodes.run_until(nodes.settled)
        self.assertEqual(replica.machine.digest, nodes.serving().replica.machine.digest)

    def test_one_that_is_merely_slow_gets_the_log(self):
        nodes = self.begin(small(tail_bytes=2_500))
        away = next(a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving())
        nodes.kill(away)
        self.pass_messages(nodes, 10)
        nodes.revive(away)
        nodes.run_until(nodes.settled)
        self.assertFalse(any("snapshot up to entry" in line
                             for line in nodes.nodes[away].lines.lines))

    def test_a_damaged_transfer_is_refused_and_begun_anew(self):
        nodes = self.begin()
        away = next(a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving())
        nodes.kill(away)
        self.pass_messages(nodes, 100)
        nodes.revive(away)
        node = nodes.nodes[away]
        damaged = []

        def spoil():
            if not damaged and node.disk.exists("snapshot.received"):
                handle = node.disk.open("snapshot.received")
                if node.disk.size(handle) > 500:
                    byte = node.disk.read_at(handle, 300, 1)
                    node.disk.write_at(handle, 300, bytes([byte[0] ^ 1]))
                    damaged.append(True)
                node.disk.close(handle)
            return damaged and nodes.settled()
        nodes.run_until(spoil)
        self.assertTrue(any("is refused" in line for line in node.lines.lines), node.lines.lines)


    def test_a_leader_whose_own_file_is_damaged_ends(self):
        nodes = self.begin(small(log_bytes_min=1_000_000))
        away = next(a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving())
        nodes.kill(away)
        self.pass_messages(nodes, 40)
        leader = nodes.serving()
        nodes.config.snapshot.tail_bytes = 0
        self.read_snapshot(nodes, leader)
        nodes.run_until(lambda: leader.replica.raft.log.base_index > 30)
        handle = leader.disk.open("snapshot")
        byte = leader.disk.read_at(handle, 400, 1)
        leader.disk.write_at(handle, 400, bytes([byte[0] ^ 1]))
        leader.disk.close(handle)
        nodes.revive(away)
        with self.assertRaises(CorruptFileError) as raised:
            nodes.run_until(nodes.settled)
        self.assertIn("127.0.0.1", raised.exception.path)
        self.assertTrue(any("verifying it" in line for line in leader.lines.lines))


class TestGiving(SnapshotCase):
    """What a client is given."""

    def test_a_client_gets_a_snapshot_with_everything(self):
        nodes = self.begin(small(log_bytes_min=1_000_000))
        self.pass_messages(nodes, 30)
        leader = nodes.serving()
        taken, data = self.read_snapshot(nodes, leader)
        self.assertEqual(taken.index, leader.replica.machine.applied_index)
        self.assertEqual(taken.digest, leader.replica.machine.digest)
        self.assertEqual(data, leader.disk.get("snapshot"))
        again, _ = self.read_snapshot(nodes, leader)
        self.assertEqual(again, taken)

    def test_one_that_has_applied_nothing_yet_says_so(self):
        nodes = self.begin()
        address = next(a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving())
        nodes.kill(address)
        nodes.revive(address)
        node = nodes.nodes[address]
        self.assertEqual(node.replica.machine.applied_index, 0)
        answer = nodes.answer_to(node, Kind.TAKE_SNAPSHOT, snapshots.encode_take_snapshot(True))
        self.assert_error(answer, ErrorCode.NOT_READY)
        nodes.run_until(lambda: node.replica.machine.applied_index > 0)
        taken, _ = self.read_snapshot(nodes, node)
        self.assertGreater(taken.index, 0)

    def test_only_the_leader_or_whoever_is_asked_itself(self):
        nodes = self.begin()
        self.pass_messages(nodes, 3)
        nodes.run_until(nodes.settled)
        follower = next(n for n in nodes.alive() if n is not nodes.serving())
        answer = nodes.answer_to(follower, Kind.TAKE_SNAPSHOT,
                                 snapshots.encode_take_snapshot(False))
        self.assertEqual(self.assert_error(answer, ErrorCode.NOT_LEADER),
                         nodes.serving().begin.address)
        self.read_snapshot(nodes, follower)

    def test_many_small_questions_are_answered_a_few_a_turn(self):
        config = small(log_bytes_min=1_000_000)
        config.gateway.reads_turn_bytes_max = 2_000
        nodes = self.begin(config)
        self.pass_messages(nodes, 30)
        leader = nodes.serving()
        taken, _ = self.read_snapshot(nodes, leader)
        self.assertGreater(taken.size, 1_000)
        for _ in range(50):
            nodes.ask(leader, Kind.READ_SNAPSHOT,
                      snapshots.encode_read_snapshot(taken.index, 0, 1_000))
        sizes = []
        while sum(sizes) < 50:
            answers = leader.replica.turn().answers
            sizes.append(sum(kind == Kind.SNAPSHOT_PART for _, _, kind, _ in answers))
        self.assertLessEqual(max(sizes), 3)

    def test_one_that_is_not_held(self):
        nodes = self.begin()
        answer = nodes.answer_to(nodes.serving(), Kind.READ_SNAPSHOT,
                                 snapshots.encode_read_snapshot(77, 0, 100))
        self.assert_error(answer, ErrorCode.NO_SNAPSHOT)


if __name__ == "__main__":
    unittest.main()
