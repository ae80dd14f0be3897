"""What the tests of this folder share: nodes of their own, and what an operator sees of them.

Every process is one of `self.cluster`, which kills them all at the end, and every wait is for
something that is asked again and again. `line` is the operator's view: a regular expression that
must match a whole line's text, behind the address, the time, the role and the term.
"""

import os
import re
import shutil
import time
import unittest

from raftnet.client import Client
from raftnet.wire.requests import NodeStatus
from tools.processes import HOST, READY_S, LocalCluster, NodeProcess, free_ports, wait_until

TIMEOUT_S = 20.0            # of one client's call
ADDRESS, ID = r"[\w.]+:\d+", "[0-9a-f]{16}"      # in a pattern: any address, any node id
_TEXT = re.compile(r"\[[^ ]+\] \[[\d:.]+\] ([a-z]+(?: term \d+)?): (.*)")
_LINE_S = 10.0              # until a line is there
_TAIL_LINES = 30            # of a log, in the text of a failure


class MembershipCase(unittest.TestCase):
    """`founded(count)` first; then nodes come, go, and change."""

    cluster: LocalCluster

    def founded(self, count: int) -> list[NodeProcess]:
        """Start so many founders and wait until they serve; they are `cluster.nodes`."""
        self.cluster = LocalCluster(count)
        self.addCleanup(self.cluster.close)
        return self.cluster.start().nodes

    def empty_cluster(self) -> None:
        """No founders: all nodes are of `node`."""
        self.cluster = LocalCluster(founders=False)
        self.addCleanup(self.cluster.close)

    def node(self, *arguments: str, address: str = "", data: str = "") -> NodeProcess:
        """One more node, not started: at a free port, in a directory of its own."""
        address = address or f"{HOST}:{free_ports(1)[0]}"
        number = len(self.cluster.nodes) + 1
        directory = data or os.path.join(self.cluster.directory, f"data-{number}")
        node = NodeProcess(address, [address, *arguments, "--data", directory],
                           os.path.join(self.cluster.directory, f"node-{number}.log"))
        self.cluster.nodes.append(node)
        return node

    def again(self, node: NodeProcess, *arguments: str) -> NodeProcess:
        """Another command line at the address and in the directory of that node, which is down."""
        assert not node.running
        return self.node(*arguments, address=node.address, data=data_of(node))

    def client(self, *nodes: NodeProcess) -> Client:
        """A client that knows those nodes, or all."""
        client = Client([node.address for node in nodes or self.cluster.nodes], TIMEOUT_S)
        self.addCleanup(client.close)
        return client

    # --- what is seen

    def line(self, node: NodeProcess, pattern: str) -> str:
        """The first line since that node's newest start whose text is exactly so; waits for it."""
        deadline = time.monotonic() + _LINE_S
        while (found := find_line(node, pattern)) is None:
            if time.monotonic() >= deadline:
                lines = [line for line in node.log_text().splitlines() if "heartbeat" not in line]
                tail = "\n".join(lines[-_TAIL_LINES:])
                self.fail(f"{node.address} never wrote {pattern!r}; its last lines:\n{tail}")
            time.sleep(0.02)
        return found

    def ends(self, node: NodeProcess, pattern: str) -> None:
        """That node ends by itself with status 1, and its last line is exactly so."""
        status = node.wait(READY_S)
        self.assertEqual(status, 1, node.log_text())
        self.assertNotIn("Traceback", node.log_text())
        if re.fullmatch(rf"node\.py: {pattern}", node.last_line()) is None:
            self.fail(f"{node.address} ended with {node.last_line()!r}, not {pattern!r}")

    def leader(self, *nodes: NodeProcess) -> NodeProcess:
        """The one of these (or all) nodes that leads in the newest term and has applied all."""
        def find():
            found = [(node, node.status()) for node in nodes or self.cluster.nodes if node.running]
            leaders = [(status.term, node) for node, status in found if status is not None
                       and status.role == "leader" and status.founded
                       and status.applied_index == status.commit_index]
            return max(leaders, key=lambda pair: pair[0])[1] if leaders else None
        return wait_until(find, READY_S, "a leader serves")

    def others(self, *nodes: NodeProcess) -> list[NodeProcess]:
        """The running nodes beside these."""
        return [node for node in self.cluster.nodes if node not in nodes and node.running]

    def members(self, nodes: list[NodeProcess], voters: list[NodeProcess],
                learners: tuple[NodeProcess, ...] = ()) -> NodeStatus:
        """Wait until the leader of `nodes` has exactly these members, by address and node id, and
        nothing is under way; its status."""
        def reached():
            leader = self.leader(*nodes).status()
            if leader is None or leader.role != "leader" or leader.target or (
                    leader.membership_index > leader.commit_index):
                return None
            wanted = {}
            for node in [*voters, *learners]:
                status = node.status()
                if status is None:
                    return None
                wanted[status.node_id] = node.address, node in voters
            found = {m.node_id: (m.address, m.voter) for m in leader.members}
            return leader if found == wanted else None
        return wait_until(reached, READY_S, f"the members are {voters} and {learners}")

    def undisturbed(self, nodes: list[NodeProcess], before: NodeStatus) -> None:
        """The leader, its term and its members are what they were; and it commits."""
        with Client([node.address for node in nodes], TIMEOUT_S) as client:
            client.queue("undisturbed").enqueue("x")
            after = client.leader_status()
        self.assertEqual((after.node_id, after.term, after.membership_index),
                         (before.node_id, before.term, before.membership_index))


def find_line(node: NodeProcess, pattern: str) -> str | None:
    """The text of the first line since the newest start that matches from end to end."""
    for line in node.log_text().splitlines():
        match = _TEXT.match(line)
        if match is not None and re.fullmatch(pattern, match.group(2)):
            return line
    return None


def data_of(node: NodeProcess) -> str:
    """Its data directory."""
    return node.arguments[node.arguments.index("--data") + 1]


def empty(node: NodeProcess) -> None:
    """Take everything out of the data directory of a node that is down."""
    assert not node.running
    shutil.rmtree(data_of(node))
