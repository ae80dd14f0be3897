"""A member comes back to its address: with its files, with none, with old ones, with another's."""

import os
import re
import shutil
import unittest

from tests.membership.nodes import ADDRESS, ID, MembershipCase, data_of, empty
from tools.processes import READY_S, LocalCluster, NodeProcess, wait_until


class TestFiles(MembershipCase):
    """With the files that it had, or with none."""

    def test_with_its_files_it_is_who_it_was(self):
        nodes = self.founded(2)
        before = self.leader().status()
        node = self.others(self.leader())[0]
        node.kill()
        node.start()
        self.line(node, rf"node {ID}, start 2 of this directory, listening at {node.address}")
        self.line(node, rf"following {ADDRESS}|elected leader")
        after = self.members(nodes, nodes)
        self.assertEqual({m.node_id for m in after.members}, {m.node_id for m in before.members})
        self.assertEqual(after.membership_index, before.membership_index)

    def test_with_an_emptied_directory_it_comes_as_another(self):
        nodes = self.founded(3)
        leader = self.leader()
        self.member = nodes[nodes[0] is leader]
        with self.client() as client:
            client.queue().enqueue("before")
            with self.subTest("--join"):
                new = self.come_emptied(leader, "--join", leader.address)
                self.line(new, f"asking {leader.address} to be taken in")
            with self.subTest("--cluster, as at the founding"):
                new = self.come_emptied(leader, "--cluster", ",".join(self.cluster.addresses))
                self.line(new, rf"WARNING: {ADDRESS} belongs to a cluster already: this node can "
                          "only come back to it")
            with self.subTest("alone, as a founder of its own"):
                new = self.come_emptied(leader)
                self.line(new, rf"WARNING: {ADDRESS}, of cluster [0-9a-f]{{8}}, dials this "
                          r"address: did this node belong there\?")
                self.line(new, "WARNING: leaving a cluster of this node alone, in which nothing "
                          "was acknowledged")
            self.assertEqual(client.queue().dequeue().text, "before")
        self.cluster.wait_settled()

    def come_emptied(self, leader: NodeProcess, *arguments: str) -> NodeProcess:
        """Kill the member, empty its directory, start it so; it is taken in."""
        old = self.member
        old_id = old.status().node_id
        old.kill()
        empty(old)
        new = self.member = self.again(old, *arguments).start()
        new.wait_ready()
        running = [leader, *self.others(leader)]
        now = self.members(running, running)
        new_id = new.status().node_id
        self.assertNotIn(old_id, [m.node_id for m in now.members])
        self.line(leader, rf"{new.address} \(node {new_id:016x}\) asks to be taken in: a learner, "
                  rf"in the place of node {old_id:016x} once it has caught up at index \d+")
        self.line(new, rf"taken into cluster [0-9a-f]{{8}} as node {new_id:016x}")
        return new


class TestWrongFiles(MembershipCase):
    """With those that must not run there; the others go on, and the right ones help. Three nodes
    for all tests; each leaves them as they were."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = LocalCluster(3)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def setUp(self):
        self.nodes = self.cluster.nodes[:3]
        self.serving = self.leader()
        self.member = self.others(self.serving)[0]
        self.rest = [node for node in self.nodes if node is not self.member]
        self.data = data_of(self.member)
        self.aside, self.old = (os.path.join(self.cluster.directory, f"{self.id()} {name}")
                                for name in ("aside", "old"))

    def bring_in(self, directory: str) -> None:
        """The member dies, and another directory stands in the place of its own; at the end of the
        test its own again, and it comes back."""
        self.member.kill()
        os.rename(self.data, self.aside)
        os.rename(directory, self.data)
        self.addCleanup(self.bring_back)

    def bring_back(self) -> None:
        self.member.kill()
        shutil.rmtree(self.data)
        os.rename(self.aside, self.data)
        self.member.start()
        self.members(self.nodes, self.nodes)

    def test_an_old_copy_shows_by_its_number_of_starts(self):
        boot = self.member.status().boot
        self.member.kill()
        shutil.copytree(self.data, self.old)
        connected = f"{self.member.address} has connected"
        before = self.serving.log_text().count(connected)
        self.member.start().wait_ready()
        wait_until(lambda: self.serving.log_text().count(connected) > before, READY_S, connected)
        before = self.serving.status()
        self.bring_in(self.old)
        self.see_refused(f"a process with start {boot + 1} of that directory was seen here, and "
                         f"this one comes with start {boot + 1}", before)

    def test_an_old_copy_shows_by_what_it_does_not_hold(self):
        self.member.kill()
        self.member.start().wait_ready()
        shutil.copytree(self.data, self.old)
        with self.client() as client:
            client.queue().enqueue_many([str(n) for n in range(5)])
        self.cluster.wait_settled()
        before = self.serving.status()
        self.bring_in(self.old)
        self.see_refused(r"this node acknowledged entry \d+ in term \d+, and its directory ends "
                         r"at entry \d+ of term \d+", before)

    def see_refused(self, why: str, before) -> None:
        """It ends, the leader says why, nobody is disturbed."""
        why = (rf"the data directory of {self.member.address} is an old copy: {why}; it must not "
               "run; to bring the node back, empty the directory and start it with --join")
        self.member.start()
        self.ends(self.member, rf"{ADDRESS} says: {why}")
        self.line(self.serving, rf"WARNING: {self.member.address} is refused: {why}")
        self.undisturbed(self.rest, before)

    def test_another_clusters(self):
        stranger = self.node().start()
        self.addCleanup(stranger.kill)
        stranger.wait_ready()
        with self.client(stranger) as client:
            client.queue().enqueue("its own")
        theirs, ours = (node.status().cluster_id.hex()[:8] for node in (stranger, self.serving))
        stranger.kill()
        self.cluster.nodes.remove(stranger)
        before = self.serving.status()
        self.bring_in(data_of(stranger))
        self.member.start()
        self.line(self.member, rf"WARNING: {ADDRESS}, of cluster {ours}, dials this address: did "
                  r"this node belong there\?")
        self.line(self.member, rf"WARNING: {ADDRESS} belongs to cluster {ours}, this node to "
                  rf"{theirs}: its frames are refused")
        self.line(self.serving, rf"{self.member.address} refuses this node: WRONG_CLUSTER: "
                  rf"{re.escape(self.member.address)} belongs to cluster {theirs}, not {ours}")
        self.undisturbed(self.rest, before)
        with self.client(self.member) as client:
            self.assertEqual(client.queue().dequeue().text, "its own")


if __name__ == "__main__":
    unittest.main()
