"""What a node says of itself in STATUS_REPLY about snapshots, its disk and damage, and what `why`
makes of it: on replicas in one process, and through the bytes of the frame."""

import unittest

from raftnet.client.picture import Look
from raftnet.client.why import explain
from raftnet.storage.store import Store
from raftnet.wire import requests
from raftnet.wire.frames import Kind
from tests import test_snapshots
from tests.replicas import Node, Nodes
from tests.test_snapshots import ADDRESSES


class StatusTest(test_snapshots.SnapshotCase):
    def status(self, node: Node) -> requests.NodeStatus:
        """As it is now, encoded and decoded."""
        return requests.decode_status(requests.encode_status(node.replica.reads.status()))

    def kinds(self, nodes: Nodes) -> list[str]:
        """What `why` finds."""
        found = {address: self.status(node) if address not in nodes.down else f"{address}: refused"
                 for address, node in nodes.nodes.items()}
        return [finding.kind for finding in explain(Look(list(ADDRESSES), found))]

    def other(self, nodes: Nodes) -> Node:
        """A follower."""
        return next(node for node in nodes.alive() if node is not nodes.serving())

    def test_an_install_is_seen_from_both_sides(self):
        nodes = self.begin()
        away = self.other(nodes)
        address = away.begin.address
        nodes.kill(address)
        self.pass_messages(nodes, 100)
        nodes.revive(address)
        leader = nodes.serving()
        here, there, notes, kinds = set(), set(), set(), set()

        def look() -> bool:
            status = self.status(away)
            (member,) = [m for m in self.status(leader).members if m.address == address]
            here.add((status.snapshot_bytes, status.snapshot_size))
            there.add((member.snapshot_bytes, member.snapshot_size))
            (itself,) = [m for m in status.members if m.address == address]
            self.assertEqual((itself.snapshot_bytes, itself.snapshot_size),
                             (status.snapshot_bytes, status.snapshot_size))
            notes.add(status.note.partition(";")[0])
            kinds.update(self.kinds(nodes))
            return nodes.settled()
        nodes.run_until(look)
        sizes = {size for _, size in here} - {0}        # it may take two, one behind the other
        self.assertEqual({size for _, size in there} - {0}, sizes)
        self.assertLessEqual({(size, size) for size in sizes}, here)
        self.assertTrue(any(0 < part < size for part, size in here), here)
        self.assertTrue(any(0 < part < size for part, size in there), there)
        doing = [note.partition(" ") for note in notes if note]
        self.assertEqual({text for verb, _, text in doing if verb == "receiving"},
                         {text for verb, _, text in doing if verb == "verifying"})
        self.assertTrue(all(text.startswith("a snapshot up to entry ") for *_, text in doing))
        self.assertTrue(doing)
        self.assertIn("installing", kinds)
        after = self.status(away)
        self.assertEqual((after.snapshot_bytes, after.snapshot_size), (0, 0))
        self.assertEqual(after.log_bytes, away.replica.store.log_bytes)

    def test_a_snapshot_that_is_made(self):
        nodes = self.begin()
        slow = self.other(nodes)
        slow.disk_slow = True           # so it is decided, and waits for what is to be in it
        self.pass_messages(nodes, 2)
        slow.replica.snapshots.take("client", 7)
        nodes.step()
        index = slow.replica.machine.applied_index
        self.assertEqual(self.status(slow).note, f"making a snapshot up to entry {index}")
        slow.disk_slow = False
        nodes.run_until(nodes.settled)
        nodes.step()
        self.assertEqual((self.status(slow).note, self.status(slow).snapshot_index), ("", index))

    def test_a_full_disk(self):
        nodes = self.begin()
        node = self.other(nodes)
        node.replica.set_disk_full(True)
        self.assertTrue(self.status(node).disk_full)
        self.assertEqual(self.kinds(nodes), ["disk_full"])
        node.replica.set_disk_full(False)
        self.assertEqual(self.kinds(nodes), ["all_well"])

    def test_nodes_that_heal(self):
        nodes = self.begin()
        first, second = [a for a in ADDRESSES if nodes.nodes[a] is not nodes.serving()]
        for address, others in ((first, [a for a in ADDRESSES if a != first]),
                                (second, [f"h:{number}" for number in range(1, 8)])):
            nodes.kill(address)
            node = nodes.nodes[address]
            node.disk.kill()
            Store.set_aside(node.disk, others, nodes.nodes[first].replica.cluster_id)
        nodes.revive(first)
        nodes.revive(second)
        contacts = [a for a in ADDRESSES if a != first]
        status = self.status(nodes.nodes[first])
        self.assertEqual((status.role, status.healing_contacts, status.note), (
            "joining", contacts, "its damaged files are set aside; it comes back with what "
            f"{', '.join(contacts)} hold"))
        status = self.status(nodes.nodes[second])
        self.assertEqual(status.healing_contacts, ["h:1", "h:2", "h:3", "h:4", "h:5"])
        self.assertIn("h:4, h:5 and 2 more hold", status.note)
        for _ in range(100):
            nodes.step()                # their leader hears no quorum any more
        self.assertEqual(self.kinds(nodes), ["quorum_lost"])

    def test_a_node_that_waits_to_be_taken_in(self):
        nodes = Nodes()
        node = nodes.add("h:9", join="h:8")
        self.assertEqual(self.status(node).note, "this node asks h:8 to be taken in")
        self.assertEqual(self.status(node).healing_contacts, [])

    def test_the_answer_to_a_client(self):
        nodes = self.begin()
        kind, body = nodes.answer_to(nodes.serving(), Kind.STATUS, b"")
        self.assertEqual(kind, Kind.STATUS_REPLY)
        self.assertEqual(requests.decode_status(body).log_bytes,
                         nodes.serving().replica.store.log_bytes)


if __name__ == "__main__":
    unittest.main()
