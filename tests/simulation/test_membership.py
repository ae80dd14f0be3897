"""Courses of membership that a seed has shown, each by name, on Replicas without sockets."""

import unittest

from raftnet.replica import Start
from raftnet.wire import joining
from raftnet.wire.frames import Kind
from tests.replicas import Nodes, ReplicaCase

A, B, C, D, E, NEW = (f"127.0.0.1:{port}" for port in range(5001, 5007))


class MovedTest(ReplicaCase):
    """A node that was down meanwhile, and is started again at another address."""

    def test_the_first_whom_it_asks_was_removed_and_still_runs(self):
        nodes = Nodes()
        nodes.founders(A, B, C, D, E)
        nodes.run_until(nodes.settled)
        members = nodes.serving().replica.raft.membership.members
        asked_first, moved = members[0], members[1]
        node = nodes.nodes.pop(moved.address)
        for other in nodes.nodes.values():
            other.up.pop(moved.address, None)
        nodes.run_until(lambda: nodes.serving() is not None)
        nodes.ask(nodes.serving(), Kind.CHANGE, joining.encode_change(
            joining.CHANGE_REMOVE, [asked_first.address]), "operator")
        removed = nodes.nodes[asked_first.address].replica
        nodes.run_until(lambda: removed.is_removed)
        node.begin = Start(NEW)
        nodes.nodes[NEW] = node
        node.restart()
        nodes.run_until(lambda: nodes.serving() is not None and (
            nodes.serving().replica.raft.membership.member(moved.node_id).address == NEW))


if __name__ == "__main__":
    unittest.main()
