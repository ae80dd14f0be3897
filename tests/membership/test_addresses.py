"""Addresses: nodes that move with their files, and two processes that claim one address."""

import os
import shutil
import unittest

from tests.membership.nodes import ADDRESS, ID, MembershipCase, data_of
from tools.processes import HOST, LocalCluster, NodeProcess, free_ports


class TestMoved(MembershipCase):
    """An old directory at a new address: the membership follows, the node id stays."""

    def move(self, node: NodeProcess, *arguments: str) -> NodeProcess:
        """Stop it, start it elsewhere with the same files."""
        node.interrupt()
        self.cluster.nodes.remove(node)
        moved = self.node(*arguments, data=data_of(node)).start()
        moved.wait_ready()
        return moved

    def test_a_follower(self):
        self.founded(3)
        leader = self.leader()
        follower, other = self.others(leader)
        node_id = follower.status().node_id
        moved = self.move(follower)
        self.line(moved, rf"WARNING: this node moved from {follower.address} to {moved.address}: "
                  rf"asking {ADDRESS} to be known there")
        self.line(leader, rf"{follower.address} \(node {node_id:016x}\) has moved to "
                  rf"{moved.address}: known there at index \d+")
        self.members([leader], [leader, other, moved])
        self.assertEqual(moved.status().node_id, node_id)
        with self.client(moved) as client:
            client.queue().enqueue("x")

    def test_the_only_node(self):
        node = self.founded(1)[0]
        node_id = node.status().node_id
        moved = self.move(node)
        self.line(moved, rf"members at index \d+: {moved.address}; quorum 1")
        self.members([moved], [moved])
        self.assertEqual(moved.status().node_id, node_id)
        with self.client(moved) as client:
            client.queue().enqueue("x")


class TestTwoClaimOneAddress(MembershipCase):
    """A second process says that it is at the address of a living member, and listens elsewhere.

    One cluster for all of them: each test sees at its end that the three are as they were.
    """

    @classmethod
    def setUpClass(cls):
        cls.cluster = LocalCluster(3)
        cls.addClassCleanup(cls.cluster.close)
        cls.nodes = cls.cluster.start().nodes[:]

    def setUp(self):
        self.serving = self.leader()
        self.member = self.others(self.serving)[0]
        self.before = self.serving.status()
        self.copy = os.path.join(self.cluster.directory, self.id())

    def claim(self, *arguments: str, data: str = "") -> NodeProcess:
        """The second process, started."""
        bind = f"{HOST}:{free_ports(1)[0]}"
        second = self.node("--bind", bind, *arguments, address=self.member.address, data=data)
        self.addCleanup(second.kill)
        return second.start()

    def see_undisturbed(self) -> None:
        """All three go on; each has heard of it."""
        self.undisturbed(self.nodes, self.before)
        self.members(self.nodes, self.nodes)

    def test_with_an_empty_directory(self):
        for arguments in (["--join", self.serving.address],
                          ["--cluster", ",".join(self.cluster.addresses)]):
            with self.subTest(arguments):
                second = self.claim(*arguments)
                self.line(second, "WARNING: not taken in yet: ADDRESS_TAKEN: "
                          rf"{self.member.address} belongs to node {ID}, which is heard: start it "
                          "with its own data directory, or join under another address")
                self.see_undisturbed()
                second.kill()

    def test_with_an_older_copy_of_its_directory(self):
        shutil.copytree(data_of(self.member), self.copy)
        with self.client(*self.nodes) as client:
            client.queue().enqueue_many([str(n) for n in range(5)])
        self.cluster.wait_settled()
        second = self.claim(data=self.copy)
        self.ends(second, rf"{ADDRESS} says: the data directory of {self.member.address} is an old "
                  r"copy: this node acknowledged entry \d+ in term \d+, and its directory ends at "
                  r"entry \d+ of term \d+; .*")
        self.see_undisturbed()

    def test_with_an_equal_copy_of_its_directory(self):
        shutil.copytree(data_of(self.member), self.copy)
        second = self.claim(data=self.copy)
        for other in self.others(self.member, second):
            self.line(second, rf"{other.address} refuses this node: ADDRESS_TAKEN: another process "
                      rf"of node {ID} is connected here, as {self.member.address}: stop one of the "
                      "two, and never run a copy of a data directory")
        self.see_undisturbed()


if __name__ == "__main__":
    unittest.main()
