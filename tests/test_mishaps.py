"""How nodes know each other (design: Founding and identity), where several things go wrong at once:
on Replicas in one process."""

import unittest

from raftnet.errors import ErrorCode
from raftnet.net.messages import encode_message
from raftnet.raft.types import Vote
from raftnet.replica import Start
from raftnet.wire import joining
from raftnet.wire.frames import Kind
from tests.replicas import Node, Nodes, ReplicaCase
from tests.test_identity import A, B, C, D, E, F, IdentityCase, members, voters


def cut(nodes: Nodes, one: str, *others: str) -> None:
    """Nothing passes between these any more; their connections end."""
    nodes.cut = {pair for other in others for pair in ((one, other), (other, one))}
    for sender, receiver in nodes.cut:
        if sender in nodes.nodes:
            nodes.nodes[sender].up.pop(receiver, None)


class MovingCase(IdentityCase):
    """Three founders that serve, and directories that are started elsewhere."""

    def move_leader(self, leader: Node) -> None:
        """Started at F, it leads again."""
        self.move(leader.begin.address, F)
        self.nodes.run_until(lambda: self.nodes.settled() and F in members(leader))
        if not leader.replica.leads:
            self.change(joining.CHANGE_TRANSFER, F)
        self.nodes.run_until(lambda: self.nodes.serving() is leader)
        self.pass_by(15_000)

    def pass_by(self, duration_ms: int) -> None:
        """So much time."""
        for _ in range(duration_ms // 20):
            self.nodes.step()


class TestMoved(MovingCase):
    """Nodes that nobody looks for where they are."""

    def test_a_removal_that_may_yet_be_replaced_bars_nobody_who_asks(self):
        leader = self.nodes.serving()
        away = self.follower()
        here = leader.begin.address
        other = next(a for a in (A, B, C) if a not in (away, here))
        self.nodes.kill(away)
        self.pass_by(2_000)
        cut(self.nodes, here, other)
        self.nodes.ask(leader, Kind.CHANGE, joining.encode_change(joining.CHANGE_REMOVE, [away]))
        node = self.move(away, D)
        self.assertIn(node.replica.node_id, leader.replica.raft.membership.removed)
        leader.replica.greetings.dial_targets = lambda: []
        for _ in range(10):
            self.nodes.step()
        self.nodes.kill(here)           # and the removal is lost
        self.nodes.cut = set()
        self.nodes.run_until(lambda: self.nodes.serving() is not None and self.nodes.settled())
        self.assertFalse(node.replica.is_removed)

    def test_a_newcomer_moves_before_any_entry_came_and_its_contact_does_not_lead(self):
        leader = self.nodes.serving()
        node = self.nodes.add(D, join=self.follower())
        self.nodes.run_until(lambda: node.replica.raft is not None)
        self.nodes.kill(D)
        self.assertEqual(node.replica.raft.log.last_index, 0)
        self.pass_by(15_000)
        self.move(D, E, join=self.follower())
        self.assertIs(self.nodes.serving(), leader)
        self.nodes.run_until(lambda: self.all_in(4) and E in voters(node))

    def test_all_have_moved_and_one_is_found_that_does_not_lead(self):
        away = self.follower()
        leader = self.nodes.serving()
        other = self.nodes.nodes[next(a for a in (A, B, C)
                                      if a not in (away, leader.begin.address))]
        self.nodes.kill(away)
        self.move(other.begin.address, E)
        self.nodes.run_until(lambda: E in members(leader) and self.nodes.settled())
        self.move_leader(leader)
        node = self.move(away, D, join=E)
        self.nodes.run_until(lambda: self.all_in(3) and D in voters(node))

    def test_all_others_were_replaced_meanwhile(self):
        # The simulator's seed 75500102: whoever it knows was removed, and knows who is a member.
        away = self.follower()
        self.nodes.kill(away)
        self.pass_by(2_000)
        for address in (D, E):
            self.nodes.add(address)
        self.change(joining.CHANGE_SET, away, D, E)
        self.nodes.run_until(lambda: (leader := self.nodes.serving()) is not None
                             and voters(leader) == {away, D, E})
        self.pass_by(15_000)
        node = self.move(away, F)
        self.nodes.run_until(lambda: F in members(self.nodes.nodes[D]) and F in members(node))
        self.assertEqual(voters(node), {F, D, E})

    def test_a_lone_founder_at_an_address_that_a_member_has_just_left(self):
        away = self.follower()
        self.nodes.kill(away)
        self.pass_by(2_000)
        node = self.move(away, D)
        lone = self.nodes.add(away)
        self.nodes.run_until(lambda: D in members(self.nodes.serving()))
        self.pass_by(10_000)
        self.assertIsNone(lone.replica.why_not_serving())

    def test_there_and_back_and_the_leader_has_moved(self):
        """Its own log says that it is where it is, and the leader's that it is elsewhere."""
        away = self.follower()
        leader = self.nodes.serving()
        node = self.nodes.nodes[away]
        self.nodes.kill(away)
        self.pass_by(2_000)
        self.nodes.answer_to(leader, Kind.JOIN, joining.encode_join(node.replica.node_id, D))
        self.nodes.run_until(lambda: D in members(leader))
        self.move_leader(leader)
        self.nodes.revive(away)
        self.nodes.run_until(lambda: self.all_in(3) and away in voters(node))


class TestFounding(ReplicaCase):
    """Founders that are emptied, cut off or started wrongly meanwhile."""

    def setUp(self):
        self.nodes = Nodes()

    def one_serves(self) -> bool:
        """All three are in one cluster."""
        return self.nodes.settled() and all(voters(n) == {A, B, C} and len(
            n.replica.raft.membership.members) == 3 for n in self.nodes.alive())

    def wipe(self, address: str, **start) -> None:
        """Emptied and started, with that command line if any."""
        node = self.nodes.nodes[address]
        self.nodes.kill(address)
        if start:
            node.begin = Start(address, **start)
        self.nodes.down.discard(address)
        node.wipe()

    def found(self) -> None:
        """Everybody has founded, and nobody has stood for election."""
        self.nodes.founders(A, B, C)
        self.nodes.run_until(lambda: all(n.replica.raft is not None for n in self.nodes.alive()))
        for node in self.nodes.nodes.values():
            self.assertEqual(node.replica.raft.log.last_index, 1)

    def test_one_drops_the_founding_in_which_another_was_elected(self):
        self.found()
        self.nodes.run_until(lambda: any(n.replica.leads for n in self.nodes.alive()))
        leader = next(n for n in self.nodes.alive() if n.replica.leads)
        here = leader.begin.address
        voter, emptied = [a for a in (A, B, C) if a != here]
        self.assertEqual(self.nodes.nodes[voter].replica.raft.log.last_index, 1)
        cut(self.nodes, here, A, B, C)
        self.wipe(emptied)
        self.nodes.run_until(lambda: self.nodes.nodes[voter].replica.raft is None)
        for _ in range(100):
            self.nodes.step()
        self.nodes.cut = set()
        self.nodes.run_until(self.one_serves, 60_000)

    def test_the_one_whose_founding_conflicts_drops_it_late(self):
        self.found()
        cut(self.nodes, B, C, A)
        self.wipe(C)
        self.nodes.run_until(lambda: self.nodes.nodes[A].replica.raft is None)
        cut(self.nodes, B, C)
        for _ in range(250):
            self.nodes.step()
        self.nodes.cut = set()
        self.nodes.run_until(self.one_serves, 60_000)

    def test_one_of_the_list_was_started_alone_at_first(self):
        list_of_all = [A, B, C]
        self.nodes.add(B)
        self.nodes.run_until(lambda: self.nodes.serving() is not None)
        self.nodes.add(A, founders=list_of_all)
        self.nodes.add(C, founders=list_of_all)
        for _ in range(250):
            self.nodes.step()
        self.wipe(B, founders=list_of_all)
        self.nodes.run_until(self.one_serves, 60_000)

    def test_one_is_busy_when_two_others_come_emptied(self):
        self.found()
        node = self.nodes.nodes[A]
        node.disk_slow = True
        self.nodes.kill(B)
        self.nodes.kill(C)
        node.replica.peer_frame(self.nodes.nodes[B].replica.node_id, *encode_message(Vote(2, 1, 1)))
        self.nodes.turn(node)
        self.assertFalse(node.replica.is_quiet)
        self.wipe(B)
        self.wipe(C)
        for _ in range(200):
            self.nodes.step()
        node.disk_slow = False
        self.nodes.run_until(self.one_serves, 60_000)

    def test_one_is_emptied_twice_before_the_founding_is_complete(self):
        self.found()
        self.nodes.kill(C)
        self.nodes.run_until(lambda: any(n.replica.leads for n in self.nodes.alive()))
        self.wipe(C)
        leader = next(n for n in self.nodes.alive() if n.replica.leads)
        self.nodes.run_until(lambda: len(members(leader)[C]) == 2)
        self.nodes.step()
        self.wipe(C)
        self.nodes.run_until(self.one_serves, 60_000)

    def test_one_is_emptied_and_started_alone_before_the_founding_is_complete(self):
        self.found()
        self.nodes.kill(C)
        self.nodes.run_until(lambda: any(n.replica.leads for n in self.nodes.alive()))
        for _ in range(100):
            self.nodes.step()
        self.nodes.nodes[C].begin = Start(C)
        self.nodes.down.discard(C)
        self.nodes.nodes[C].wipe()
        self.nodes.run_until(self.one_serves, 60_000)

    def test_a_list_names_one_node_twice(self):
        self.nodes.aliases["localhost:5002"] = B
        names = [A, B, "localhost:5002"]
        self.nodes.add(A, founders=names)
        self.nodes.add(B, founders=names)
        for _ in range(250):
            self.nodes.step()
        self.assertIsNone(self.nodes.nodes[A].replica.raft)
        self.assertTrue(any("localhost:5002" in line and "one node" in line
                            for line in self.nodes.nodes[A].lines.lines))


class TestCopiesThatMeet(IdentityCase):
    """An old copy of a member's directory runs at an address that the member dials."""

    def test_the_newer_one_goes_on(self):
        away = self.follower()
        node = self.nodes.nodes[away]
        files = {name: node.disk.get(name) for name in node.disk.list()}
        for _ in range(3):
            self.nodes.kill(away)
            self.nodes.revive(away)
            self.nodes.run_until(self.nodes.settled)
        other = next(a for a in (A, B, C) if a not in (
            away, self.nodes.serving().begin.address))
        self.nodes.kill(other)
        copy = self.nodes.nodes[other]
        for name in copy.disk.list():
            copy.disk.remove(name)
        for name, data in files.items():
            copy.disk.put(name, data)
        self.nodes.revive(other)
        self.nodes.run_until(lambda: copy.replica.stop_reason)
        for _ in range(50):
            self.nodes.step()
        self.assertFalse(node.replica.stop_reason)

    def test_a_copy_of_before_its_cluster_was_left_is_no_newer_one(self):
        away, leader = self.follower(), self.nodes.serving()
        node = self.alone(away)
        self.nodes.kill(away)
        self.nodes.revive(away)
        hello = node.replica.greetings.hello()      # of a copy that was made then
        hello.process, hello.boot = hello.process ^ 1, hello.boot - 1
        self.nodes.cut = set()
        self.nodes.run_until(lambda: node.replica.cluster_id == leader.replica.cluster_id)
        self.assertEqual(node.replica.greetings.greeted(hello)[0], ErrorCode.OLD_COPY)
        self.assertFalse(node.replica.stop_reason)


if __name__ == "__main__":
    unittest.main()
