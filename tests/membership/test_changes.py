"""Changes that an operator asks for: remove, transfer, stop, set, and learners that stay."""

import signal
import time
import unittest

from raftnet.client import Client
from raftnet.config import RaftConfig
from raftnet.errors import ErrorCode, RefusedError
from tests.membership.nodes import ADDRESS, ID, MembershipCase, find_line
from tools.processes import READY_S, LocalCluster, NodeProcess, wait_until

ELECTION_S = RaftConfig().election_timeout_ms / 1000
QUIET_S = 2.2 * ELECTION_S      # whoever would campaign has done it by then


def elections_asked(node: NodeProcess) -> int:
    """How often that node has found its leader silent, since its newest start."""
    return node.log_text().count("asking whether an election would be won")


class TestRemove(MembershipCase):
    """Nodes that belong no more."""

    def test_a_removed_node_says_so_and_disturbs_nobody_when_it_comes_back(self):
        nodes = self.founded(3)[:]
        leader = self.leader()
        node = self.others(leader)[0]
        rest = [n for n in nodes if n is not node]
        status = node.status()
        why = (rf"node {status.node_id:016x} was removed from cluster "
               rf"{status.cluster_id.hex()[:8]}: stop it; to bring it back, empty its data "
               "directory and start it with --join")
        with self.client() as client:
            client.remove(node.address)
        self.line(leader, rf"an operator removes {node.address} \(node {status.node_id:016x}\) at "
                  r"index \d+")
        self.line(node, rf"WARNING: {ADDRESS} says: {why}")
        self.members(rest, rest)
        before = leader.status()
        self.assertEqual(node.status().role, "removed")
        node.kill()
        node.start().wait_ready()
        self.line(node, rf"WARNING: {ADDRESS} says: {why}")
        # Whoever it dials first: then it is quiet.
        refused = rf"WARNING: {node.address} is refused: {why}"
        wait_until(lambda: any(find_line(n, refused) for n in rest), READY_S, refused)
        time.sleep(QUIET_S)             # that nothing happens can only be waited for
        self.assertEqual((node.status().role, elections_asked(node)), ("removed", 0))
        self.undisturbed(rest, before)
        with Client([node.address]) as client:      # which is told of a voter there
            client.queue().enqueue("x")

    def test_the_leader_leads_until_it_is_committed_and_hands_over(self):
        self.founded(3)
        leader = self.leader()
        rest = self.others(leader)
        term, asked = leader.status().term, sum(map(elections_asked, rest))
        with self.client() as client:
            client.remove(leader.address)
            client.queue().enqueue("x")
        self.members(rest, rest)
        self.assertEqual(self.leader(*rest).status().term, term + 1)
        self.assertEqual(sum(map(elections_asked, rest)), asked)
        wait_until(lambda: leader.status().role == "removed", 5, "it knows")
        self.line(leader, rf"{ADDRESS} asked to take over \(term {term}\)")


class TestHandingOver(MembershipCase):
    """Leadership changes hands without an election timeout. Three nodes for both tests, which leave
    them running."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = LocalCluster(3)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def test_transfer(self):
        leader = self.leader()
        term = leader.status().term
        new = self.others(leader)[0]
        with self.client() as client:
            client.transfer(new.address)
            client.queue().enqueue("x")
        self.line(leader, f"an operator hands the leadership over to {new.address}")
        self.assertIs(self.leader(), new)
        self.assertEqual(new.status().term, term + 1)

    def test_a_leader_that_is_stopped(self):
        nodes = self.cluster.nodes
        pauses = []
        with self.client() as client:
            for _ in range(2):
                client.queue().enqueue("before")
                leader = self.leader()
                rest = self.others(leader)
                asked = sum(map(elections_asked, rest))
                leader.signal(signal.SIGTERM)
                began = time.monotonic()
                client.queue().enqueue("after")
                pauses.append(time.monotonic() - began)
                self.assertEqual(leader.wait(10), 0)
                self.line(leader, f"stopping: handing the leadership over to {ADDRESS}")
                self.line(leader, "SIGTERM: stopping")
                self.assertEqual(sum(map(elections_asked, rest)), asked)
                leader.start().wait_ready()
                self.members(nodes, nodes)
        # One of them may have met a machine that was busy with something else.
        self.assertLess(min(pauses), ELECTION_S)


class TestSet(MembershipCase):
    """`members --set`: a target that any leader works toward."""

    def test_the_leader_is_killed_in_the_middle(self):
        self.founded(3)
        leader = self.leader()
        rest = self.others(leader)
        new = self.node().start()
        new.wait_ready()
        wanted = [*rest, new]
        with self.client() as client:
            client.set_members([node.address for node in wanted], wait=False)
            leader.kill()
            self.members(wanted, wanted)
            client.queue().enqueue("x")
        self.line(new, "WARNING: leaving a cluster of this node alone, in which nothing was "
                  "acknowledged")
        leader.start().wait_ready()
        self.line(leader, rf"WARNING: {ADDRESS} says: node {ID} was removed from cluster .*")


    def test_another_name_of_a_member(self):
        """Also of the leader, which refuses its own greeting; and of a node that is alone still."""
        nodes = self.founded(3)[:]
        leader = self.leader()
        before = leader.status()
        new = self.node().start()
        new.wait_ready()
        with self.client(leader) as client:
            for node in (leader, self.others(leader, new)[0], new):
                name = node.address.replace("127.0.0.1", "localhost")
                wanted = [name, *[n.address for n in nodes if n is not node]]
                with self.assertRaisesRegex(RefusedError, f"{name} is the node {node.address}: use"
                                            ) as caught:
                    client.set_members(wanted)
                self.assertEqual(caught.exception.code, ErrorCode.ADDRESS_TAKEN)
                with self.assertRaisesRegex(RefusedError, f"{name} is no member; the members are "):
                    client.remove(name)
            self.assertEqual(client.leader_status().last_index, before.last_index)
            client.set_members([node.address for node in nodes])


class TestLearner(MembershipCase):
    """A learner that stays one."""

    def test_it_stays_and_serves_local_reads(self):
        leader = self.founded(1)[0]
        learner = self.node().start()
        wait_until(lambda: (status := learner.status()) and status.role == "leader"
                   and status.founded, READY_S, "a cluster of its own, which it leaves")
        with self.client() as client:
            client.add(learner.address, learner=True)
            client.queue().enqueue("x")
            learner.kill()              # nobody needs it
            client.queue().enqueue("y")
            learner.start().wait_ready()
            self.cluster.wait_settled()
            self.members([leader], [leader], (learner,))
            self.assertEqual(learner.status().role, "learner")
            self.assertTrue(next(m.stays for m in client.members()
                                 if m.address == learner.address))
            with self.assertRaises(RefusedError) as refused:
                client.transfer(learner.address)
            self.assertEqual(refused.exception.code, ErrorCode.TRANSFER_FAILED)
            logs = [b"".join(entry.data for entry in client.log(local=node.address))
                    for node in (leader, learner)]
        self.assertEqual(*logs)
        self.line(leader, rf"{learner.address} \(node {ID}\) asks to be taken in: a learner at "
                  r"index \d+")


if __name__ == "__main__":
    unittest.main()
