"""Founders that come one after the other, or are emptied before all of them are together."""

import socket
import sys
import unittest

from raftnet.founding import founders_checksum
from raftnet.raft.membership import QuorumRule
from raftnet.wire import frames, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind
from tests.membership.nodes import ADDRESS, MembershipCase, empty
from tools.processes import READY_S, ROOT, LocalCluster, NodeProcess, wait_until


class Impatient(NodeProcess):
    """A founder that gives the others less time to drop a cluster that was founded without it; more
    than a second, in which lines of one kind are counted rather than written."""

    @property
    def command(self) -> list[str]:
        program = (f"import sys; sys.path.insert(0, {ROOT!r}); from raftnet import greetings, "
                   "nodecommand; greetings._CONFLICT_PATIENCE_MS = 1_500; nodecommand.main()")
        return [sys.executable, "-c", program, *self.arguments]


class TestFounding(MembershipCase):
    """Three founders."""

    def setUp(self):
        self.cluster = LocalCluster(3)
        self.addCleanup(self.cluster.close)

    def test_one_after_the_other_and_one_emptied_meanwhile(self):
        first, second, third = self.cluster.nodes
        third.start().wait_ready()
        self.line(third, f"founding a cluster of {', '.join(sorted(self.cluster.addresses))}")
        first.start().wait_ready()
        old_id = first.status().node_id
        self.line(third, f"founder {first.address} is node {old_id:016x}; waiting for "
                  f"{second.address}")
        first.kill()
        empty(first)
        first.start().wait_ready()
        new_id = first.status().node_id
        self.line(third, f"founder {first.address} is node {new_id:016x}; waiting for "
                  f"{second.address}")
        self.assertEqual({node.status().role for node in (first, third)}, {"founding"})
        second.start().wait_ready()
        status = self.members(self.cluster.nodes, self.cluster.nodes)
        self.assertNotIn(old_id, [m.node_id for m in status.members])
        for node in self.cluster.nodes:
            self.line(node, rf"cluster {status.cluster_id.hex()[:8]} of 3 is founded here as node "
                      rf"{node.status().node_id:016x}")

    def test_others_emptied_when_the_first_had_met_them(self):
        first, *others = self.cluster.nodes
        first.start().wait_ready()
        for node, node_id in zip(others, (1, 2)):
            self.greet_as(node.address, node_id, first)
        self.line(first, r"cluster [0-9a-f]{8} of 3 is founded here as node [0-9a-f]{16}")
        others[0].start().wait_ready()
        self.line(first, rf"WARNING: the founder at {others[0].address} was emptied before the "
                  "cluster was complete: founding anew")
        others[1].start().wait_ready()
        self.members(self.cluster.nodes, self.cluster.nodes)
        with self.client() as client:
            client.queue().enqueue("x")

    def test_one_emptied_when_the_others_had_elected_a_leader(self):
        first, second, third = self.cluster.nodes
        third = self.cluster.nodes[2] = Impatient(third.address, third.arguments, third.log_path)
        for node in (first, second):
            node.start()
        for node in (first, second):
            node.wait_ready()
        for node in (first, second):
            self.greet_as(third.address, 1, node)
        wait_until(lambda: {n.status().role for n in (first, second)} == {"leader", "follower"},
                   READY_S, "two of three have a leader")
        third.start().wait_ready()
        self.line(third, rf"WARNING: {ADDRESS} founded with the node that was here before, whose "
                  "directory was emptied: coming back to that cluster")
        status = self.members(self.cluster.nodes, self.cluster.nodes)
        self.assertNotIn(1, [m.node_id for m in status.members])
        with self.client() as client:
            client.queue().enqueue("x")

    def greet_as(self, address: str, node_id: int, node: NodeProcess) -> None:
        """Tell that node what the founder at `address` tells that is emptied right after."""
        hello = requests.Hello(
            requests.ROLE_PEER, node_id=node_id, boot=1, address=address, process=node_id,
            founders_checksum=founders_checksum(self.cluster.addresses, QuorumRule.MAJORITY))
        with socket.create_connection(parse_address(node.address), READY_S) as sock:
            sock.sendall(frames.encode_frame(Kind.HELLO, 0, requests.encode_hello(hello)))
            sock.recv(1)


if __name__ == "__main__":
    unittest.main()
