"""Who belongs to a cluster (design: Founding and identity), on Replicas in one process."""

import dataclasses
import unittest
from contextlib import ExitStack
from unittest import mock

from raftnet import replica as replica_module
from raftnet.errors import ErrorCode
from raftnet.net.messages import encode_message
from raftnet.raft.types import Append, HardState, Vote
from raftnet.replica import Start
from raftnet.wire import commands, joining, requests
from raftnet.wire.commands import STATE_VERSION
from raftnet.wire.frames import Kind
from tests.replicas import Node, Nodes, ReplicaCase

A, B, C, D, E, F = (f"127.0.0.1:{port}" for port in range(5001, 5007))


def members(node: Node) -> dict[str, list[int]]:
    """Node ids by address, in the order of the membership."""
    found: dict[str, list[int]] = {}
    for member in node.replica.raft.membership.members:
        found.setdefault(member.address, []).append(member.node_id)
    return found


def voters(node: Node) -> set[str]:
    """The addresses of the voters."""
    return {m.address for m in node.replica.raft.membership.members if m.voter}


class IdentityCase(ReplicaCase):
    """Three founders that serve."""

    def setUp(self):
        self.nodes = Nodes()
        self.nodes.founders(A, B, C)
        self.nodes.run_until(self.nodes.settled)

    def follower(self) -> str:
        """One that does not lead."""
        leader = self.nodes.serving()
        return next(n.begin.address for n in self.nodes.alive() if n is not leader)

    def change(self, operation: int, *addresses: str):
        """A CHANGE at the leader, and its answer."""
        return self.nodes.answer_to(self.nodes.serving(), Kind.CHANGE,
                                    joining.encode_change(operation, list(addresses)))

    def move(self, address: str, to: str, **start) -> Node:
        """Started there, with its directory."""
        node = self.nodes.nodes.pop(address)
        for other in self.nodes.nodes.values():
            other.up.pop(address, None)
        self.nodes.down.discard(address)
        node.begin = Start(to, **start)
        self.nodes.nodes[to] = node
        node.restart()
        return node

    def alone(self, address: str) -> Node:
        """Emptied, cut off from the others, and started alone: it serves a cluster of its own."""
        node = self.nodes.nodes[address]
        self.nodes.kill(address)
        node.begin = Start(address)
        self.nodes.down.discard(address)
        node.wipe()
        self.nodes.cut = {pair for other in (A, B, C)
                          for pair in ((address, other), (other, address))}
        self.nodes.run_until(lambda: node.replica.why_not_serving() is None)
        return node

    def all_in(self, count: int) -> bool:
        """Everybody who runs agrees on so many voters, and no more members."""
        return self.nodes.settled() and all(
            len(voters(n)) == count == len(n.replica.raft.membership.members)
            for n in self.nodes.alive())


class TestReturning(IdentityCase):
    """Restarted, emptied, restored, moved."""

    def test_a_restart_changes_no_membership(self):
        index = self.nodes.serving().replica.raft.log.membership_index
        for address in (A, B, C):
            self.nodes.kill(address)
            self.nodes.run_until(lambda: self.nodes.serving() is not None)
            self.nodes.revive(address)
            self.nodes.run_until(self.nodes.settled)
        self.assertEqual(self.nodes.serving().replica.raft.log.membership_index, index)

    def come_back_emptied(self, start: Start) -> None:
        """The follower's directory is emptied, and it is started so."""
        node = self.nodes.nodes[start.address]
        old = node.replica.node_id
        self.nodes.kill(start.address)
        node.begin = start
        self.nodes.down.discard(start.address)
        node.wipe()
        self.nodes.run_until(lambda: self.all_in(3))
        self.assertNotEqual(node.replica.node_id, old)
        leader = self.nodes.serving()
        self.assertEqual(members(leader)[start.address], [node.replica.node_id])
        self.assertIn(old, leader.replica.raft.membership.removed)
        self.assertTrue(leader.replica.raft.membership.is_voter(node.replica.node_id))

    def test_an_emptied_node_returns_by_join(self):
        away = self.follower()
        self.come_back_emptied(Start(away, join=self.nodes.serving().begin.address))

    def test_an_emptied_node_returns_by_the_founders_command(self):
        away = self.follower()
        self.come_back_emptied(Start(away, founders=[A, B, C]))

    def test_an_emptied_node_returns_as_a_lone_founder(self):
        away = self.follower()
        self.come_back_emptied(Start(away))

    def test_a_lone_founder_ends_before_its_new_cluster_told_it_anything(self):
        # The simulator's seed 537310859: what its directory held before was no earlier start.
        away, leader = self.follower(), self.nodes.serving()
        node = self.alone(away)
        self.nodes.kill(away)
        self.nodes.revive(away)     # it begins in the term in which it led itself
        self.nodes.run_until(lambda: node.replica.why_not_serving() is None)
        self.nodes.cut = set()
        self.nodes.run_until(lambda: node.replica.cluster_id == leader.replica.cluster_id)
        node.disk_slow = True
        known = leader.replica.greetings.known
        self.nodes.run_until(lambda: known.address_of(node.replica.node_id) == away)
        self.nodes.kill(away)
        self.nodes.revive(away)
        self.assertEqual(node.replica.store.last_index, 0)
        self.nodes.run_until(lambda: self.all_in(3))

    def test_a_lone_founder_with_a_client_stays_apart(self):
        away = self.follower()
        node = self.alone(away)
        self.assert_enqueued(self.nodes.enqueue(node, b"mine"))
        own = node.replica.cluster_id
        self.nodes.cut = set()
        for _ in range(200):
            self.nodes.step()
        self.assertEqual(node.replica.cluster_id, own)
        self.assertTrue(any("did this node belong there?" in line for line in node.lines.lines))

    def test_the_old_identity_is_back_before_the_newcomer_is_through(self):
        away, leader = self.follower(), self.nodes.serving()
        node = self.nodes.nodes[away]
        old, disk = node.replica.node_id, node.disk
        self.nodes.kill(away)
        for _ in range(100):
            self.nodes.step()       # until the old identity counts as silent
        self.nodes.answer_to(leader, Kind.JOIN, joining.encode_join(77, away))
        self.assertEqual(set(members(leader)[away]), {old, 77})
        node.disk = disk
        self.nodes.revive(away)
        self.nodes.run_until(lambda: self.all_in(3))
        self.assertEqual(members(leader)[away], [old])
        self.assertIn(77, leader.replica.raft.membership.removed)

    def test_removed_before_it_heard_that_it_was_taken_in(self):
        leader = self.nodes.serving()
        node = self.nodes.add(D, join=leader.begin.address)
        self.nodes.cut = {(leader.begin.address, D)}
        old = node.replica.node_id
        self.nodes.answer_to(leader, Kind.JOIN, joining.encode_join(old, D))
        self.change(joining.CHANGE_REMOVE, f"{old:016x}")
        self.nodes.cut = set()
        self.nodes.run_until(lambda: self.all_in(4))
        self.assertNotEqual(node.replica.node_id, old)
        self.assertIn(old, leader.replica.raft.membership.removed)
        self.nodes.kill(D)
        self.nodes.revive(D)
        self.nodes.run_until(lambda: self.all_in(4))

    def test_who_is_heard_does_not_lose_its_address(self):
        leader = self.nodes.serving()
        for address in (A, B, C):
            answer = self.nodes.answer_to(leader, Kind.JOIN, joining.encode_join(77, address))
            self.assert_error(answer, ErrorCode.ADDRESS_TAKEN)

    def test_returning_is_for_addresses_that_are_known(self):
        answer = self.nodes.answer_to(self.nodes.serving(), Kind.JOIN,
                                      joining.encode_join(77, D, joining.JOIN_RETURNING))
        self.assert_error(answer, ErrorCode.NOT_A_MEMBER)

    def test_a_moved_node_is_known_at_its_new_address(self):
        for address in (self.follower(), self.nodes.serving().begin.address):
            with self.subTest(address=address):
                new = D if D not in self.nodes.nodes else E
                node = self.move(address, new)
                self.nodes.run_until(lambda: self.nodes.settled() and all(
                    new in members(n) and address not in members(n)
                    for n in self.nodes.alive()))
                self.assertEqual(members(node)[new], [node.replica.node_id])

    def test_a_newcomer_moves_before_any_entry_came(self):
        leader = self.nodes.serving().begin.address
        node = self.nodes.add(D, join=leader)
        self.nodes.run_until(lambda: node.replica.raft is not None)
        self.nodes.kill(D)
        self.assertEqual(node.replica.raft.log.last_index, 0)
        self.move(D, E, join=leader)
        self.nodes.run_until(lambda: self.all_in(4) and E in voters(node))

    def test_a_newcomer_moves_before_its_entry_came_and_the_leader_too(self):
        """Neither is where the other looks for it (seed 73100400)."""
        first = self.nodes.serving()
        node = self.nodes.add(D, join=first.begin.address)
        self.nodes.run_until(lambda: node.replica.raft is not None)
        self.nodes.cut = {(first.begin.address, D)}
        raft = first.replica.raft
        node.replica.peer_frame(first.replica.node_id, *encode_message(
            Append(raft.current_term, 0, 0, 1, [raft.log.entry(1)])))
        self.nodes.run_until(lambda: node.replica.machine.applied_index == 1)
        self.assertNotIn(D, members(node))
        self.nodes.kill(D)
        leader = self.move(first.begin.address, F)
        self.nodes.run_until(lambda: self.nodes.settled() and F in members(leader))
        if not leader.replica.leads:
            self.change(joining.CHANGE_TRANSFER, F)
        self.nodes.run_until(lambda: self.nodes.serving() is leader)
        for _ in range(1_000):
            self.nodes.step()       # until D is a stranger to all
        self.move(D, E)
        self.nodes.run_until(lambda: self.all_in(4) and E in voters(node))

    def test_a_node_alone_moves(self):
        nodes = Nodes()
        node = nodes.add(A)
        nodes.run_until(nodes.settled)
        del nodes.nodes[A]
        node.begin = Start(B)
        nodes.nodes[B] = node
        node.restart()
        nodes.run_until(lambda: nodes.settled() and list(members(node)) == [B])


class TestEmptiedFounders(ReplicaCase):
    """Emptied before the founding was complete on all."""

    def setUp(self):
        self.nodes = Nodes()
        self.nodes.founders(A, B, C)
        # Everybody has founded, and C has acknowledged nothing to a leader.
        self.nodes.run_until(lambda: all(n.replica.raft is not None for n in self.nodes.alive()))
        self.nodes.kill(C)

    def come_back(self) -> None:
        """C is started with an emptied directory: one cluster of three serves."""
        old = self.nodes.nodes[C].replica.node_id
        self.nodes.down.discard(C)
        self.nodes.nodes[C].wipe()
        self.nodes.run_until(lambda: self.nodes.settled() and all(
            voters(n) == {A, B, C} and len(n.replica.raft.membership.members) == 3
            for n in self.nodes.alive()))
        self.assertIsNone(self.nodes.serving().replica.raft.membership.member(old))
        self.assert_enqueued(self.nodes.enqueue(self.nodes.serving(), b"x"))

    def test_before_the_first_election(self):
        for node in self.nodes.nodes.values():
            self.assertEqual(node.replica.raft.log.last_index, 1)
        self.come_back()

    def test_after_the_first_election(self):
        self.nodes.run_until(lambda: any(n.replica.leads for n in self.nodes.alive()))
        for _ in range(100):
            self.nodes.step()
        self.assertIsNone(self.nodes.serving())
        cluster_id = self.nodes.nodes[A].replica.cluster_id
        self.come_back()
        self.assertEqual({n.replica.cluster_id for n in self.nodes.alive()}, {cluster_id})


class TestVotesOfADroppedCluster(ReplicaCase):
    """A founder that dropped its cluster, and comes back to it, has not forgotten its vote."""

    def test_term_and_vote_stay(self):
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(lambda: all(n.replica.raft is not None for n in nodes.alive()))
        node = nodes.nodes[A]
        other = nodes.nodes[B].replica.node_id
        nodes.down = {B, C}
        node.replica.peer_frame(other, *encode_message(Vote(2, 1, 1)))
        nodes.turn(node)
        self.assertEqual(node.replica.store.hard_state, HardState(2, other))
        node.replica.drop_cluster()
        self.assertEqual(node.replica.store.hard_state, HardState(2, other))
        node.restart()
        self.assertIsNone(node.replica.raft)
        self.assertEqual(node.replica.store.hard_state, HardState(2, other))
        nodes.down = set()
        nodes.run_until(nodes.settled)
        self.assertGreaterEqual(node.replica.raft.current_term, 2)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))


class TestOldCopies(IdentityCase):
    """A directory that was copied, and started again after its original went on."""

    def copy_of(self, address: str) -> dict[str, bytes]:
        """What a backup would hold."""
        disk = self.nodes.nodes[address].disk
        return {name: disk.get(name) for name in disk.list()}

    def restore(self, address: str, files: dict[str, bytes]) -> Node:
        """The backup is put in place and started."""
        node = self.nodes.nodes[address]
        self.nodes.kill(address)
        node.disk.kill()
        for name, data in files.items():
            node.disk.put(name, data)
        self.nodes.revive(address)
        return node

    def assert_stopped(self, node: Node, words: str) -> None:
        """It was told, and neither voted nor acknowledged anything."""
        before = node.replica.raft.current_term, node.replica.raft.log.last_index
        self.nodes.run_until(lambda: bool(node.replica.stop_reason))
        self.assertIn("old copy", node.replica.stop_reason)
        self.assertIn(words, node.replica.stop_reason)
        after = node.replica.raft.current_term, node.replica.raft.log.last_index
        self.assertEqual(after, before)

    def test_a_later_start_was_seen(self):
        away = self.follower()
        files = self.copy_of(away)
        for _ in range(2):
            self.nodes.kill(away)
            self.nodes.revive(away)
            self.nodes.run_until(self.nodes.settled)
        self.assert_stopped(self.restore(away, files), "start 3 of that directory was seen here")

    def test_the_same_start_was_seen_of_another_process(self):
        away = self.follower()
        files = self.copy_of(away)
        self.nodes.kill(away)
        self.nodes.revive(away)
        self.nodes.run_until(self.nodes.settled)
        self.assert_stopped(self.restore(away, files), "start 2 of that directory was seen here")

    def test_a_promise_of_a_later_term_was_heard_however_often_the_copy_was_started(self):
        first = self.nodes.serving()
        copies = {address: self.copy_of(address) for address in (A, B, C)
                  if address != first.begin.address}
        self.nodes.kill(first.begin.address)
        self.nodes.run_until(lambda: self.nodes.serving() is not None)
        second = self.nodes.serving()
        away = next(address for address in copies if address != second.begin.address)
        self.assert_enqueued(self.nodes.enqueue(second, b"later"))
        promised = second.replica.raft.current_term
        self.nodes.revive(first.begin.address)
        self.nodes.run_until(self.nodes.settled)
        self.nodes.kill(away)
        for _ in range(30):         # nobody takes it for a successor any more
            self.nodes.step()
        second.replica.leadership.hand_over("so that nobody's present term counts anything of it")
        self.nodes.run_until(lambda: self.nodes.serving() is first)
        node = self.nodes.nodes[away]
        for name, data in copies[away].items():
            node.disk.put(name, data)
        for _ in range(5):          # its boots pass those that were seen
            self.nodes.revive(away)
            self.nodes.kill(away)
        here = first.begin.address
        self.nodes.cut = {(here, away), (away, here)}   # only the other one had a promise of it
        self.nodes.revive(away)
        self.assert_stopped(node, f"this node answered in term {promised}")

    def test_what_the_leader_counted_is_not_there(self):
        away = self.follower()
        files = self.copy_of(away)
        self.assert_enqueued(self.nodes.enqueue(self.nodes.serving(), b"later"))
        self.nodes.run_until(self.nodes.settled)
        self.assert_stopped(self.restore(away, files), "acknowledged entry 5 in term 2")

    def test_what_a_leader_counted_decides(self):
        leader = self.nodes.serving().replica
        node = self.nodes.nodes[self.follower()].replica
        term, counted = leader.raft.current_term, leader.raft.log.last_index
        log_term = leader.raft.log.last_term
        for start, is_old in (((term, log_term, counted), False),
                              ((term, log_term, counted - 1), True),
                              # A tail of an earlier term that this leader replaced since.
                              ((term, log_term - 1, counted + 10), True),
                              ((term - 1, log_term - 1, counted + 10), True),
                              # In a later term others may have replaced it rightly.
                              ((term + 1, log_term, counted - 1), False)):
            with self.subTest(start=start):
                hello = node.greetings.hello()
                hello.process, hello.boot = hello.process ^ 1, hello.boot + 1
                hello.start_term, hello.start_log_term, hello.start_index = start
                why = leader.greetings.known.why_old_copy(hello, leader.raft)
                self.assertEqual(bool(why), is_old, why)

    def test_a_directory_knows_the_terms_that_it_knew(self):
        """Nobody had a promise of it since all were started again, and its boots look new."""
        other = self.nodes.nodes[self.follower()].replica
        (here,) = [n.replica for n in self.nodes.alive()
                   if n.replica not in (other, self.nodes.serving().replica)]
        hello = other.greetings.hello()
        hello.start_term, hello.start_log_term, hello.start_index = 9, 5, 20
        here.greetings.known.forget()
        here.greetings.known.meet(hello, hello.address, 0, True)
        hello.process, hello.boot = hello.process ^ 1, hello.boot + 5
        for start, is_old in (((9, 5, 20), False), ((10, 5, 19), False), ((9, 5, 19), False),
                              ((8, 5, 20), True), ((8, 4, 30), True), ((8, 5, 21), False),
                              ((8, 6, 2), False)):
            with self.subTest(start=start):
                hello.start_term, hello.start_log_term, hello.start_index = start
                why = here.greetings.known.why_old_copy(hello, here.raft)
                self.assertEqual(bool(why), is_old, why)

    def test_a_process_that_greets_again_is_no_copy(self):
        for _ in range(3):
            for address in (A, B, C):
                for node in self.nodes.nodes.values():
                    node.up.pop(address, None)
            self.nodes.step()
        self.assertFalse(any(n.replica.stop_reason for n in self.nodes.alive()))
        self.assertTrue(self.nodes.settled())

    def test_two_copies_meet(self):
        node = self.nodes.nodes[self.follower()]
        hello = node.replica.greetings.hello()
        hello.process, hello.boot = hello.process ^ 1, hello.boot - 1
        self.assertEqual(node.replica.greetings.greeted(hello)[0], ErrorCode.OLD_COPY)
        self.assertFalse(node.replica.stop_reason)
        hello.boot += 2
        self.assertEqual(node.replica.greetings.greeted(hello)[0], ErrorCode.WRONG_CLUSTER)
        self.assertIn("newer copy", node.replica.stop_reason)

    def test_two_copies_meet_of_which_the_older_was_started_more_often(self):
        newer = self.nodes.nodes[self.follower()].replica
        hello = newer.greetings.hello()
        start = newer.greetings._start = (9, 5, 20)
        for boots, theirs, stops in ((5, (8, 5, 20), False), (5, (8, 5, 21), True),
                                     (5, start, True), (-5, start, False),
                                     (-5, (10, 5, 20), True), (-5, (10, 5, 19), False)):
            with self.subTest(boots=boots, theirs=theirs):
                newer.stop_reason = ""
                other = dataclasses.replace(hello, process=hello.process ^ 1)
                other.boot += boots
                other.start_term, other.start_log_term, other.start_index = theirs
                self.assertEqual(newer.greetings.greeted(other)[0], ErrorCode.WRONG_CLUSTER if stops
                                 else ErrorCode.OLD_COPY)
                self.assertEqual("newer copy" in newer.stop_reason, stops)


class TestStrangers(IdentityCase):
    """Members that a node's own log does not know yet."""

    def test_a_voter_answers_a_candidate_that_its_log_does_not_know(self):
        # D joined while `behind` was away; then the leader dies for good, and only D, who alone has
        # the newest entry, can be elected: with the vote of `behind`, which never heard of it.
        leader = self.nodes.serving()
        behind = self.follower()
        other = next(a for a in (A, B, C) if a not in (behind, leader.begin.address))
        self.nodes.kill(behind)
        d = self.nodes.add(D, join=leader.begin.address)
        self.nodes.run_until(lambda: D in voters(leader) and self.nodes.settled())
        self.nodes.cut = {(leader.begin.address, other)}
        self.nodes.ask(leader, Kind.REQUEST, requests.encode_request(
            requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"newest"])]))
        self.nodes.run_until(lambda: d.replica.raft.log.last_index
                             > self.nodes.nodes[other].replica.raft.log.last_index)
        self.nodes.kill(leader.begin.address)
        self.nodes.cut = set()
        self.nodes.revive(behind)
        self.nodes.run_until(lambda: self.nodes.serving() is d, 5_000)


    def test_a_voter_answers_whom_an_uncommitted_entry_removed(self):
        # The leader alone has the removal of a follower; it dies, and the third node with its data.
        leader = self.nodes.serving()
        away = self.follower()
        other = next(a for a in (A, B, C) if a not in (away, leader.begin.address))
        self.nodes.cut = {(leader.begin.address, away), (leader.begin.address, other)}
        self.nodes.ask(leader, Kind.CHANGE, joining.encode_change(joining.CHANGE_REMOVE, [away]))
        self.nodes.step()
        self.nodes.step()
        removed = self.nodes.nodes[away].replica.node_id
        self.assertIn(removed, leader.replica.raft.membership.removed)
        self.nodes.kill(leader.begin.address)
        self.nodes.run_until(lambda: self.nodes.serving() is not None)  # the other two decided on
        self.nodes.cut = set()
        self.nodes.kill(other)
        self.nodes.kill(away)
        self.nodes.revive(away)
        self.nodes.revive(leader.begin.address)
        self.nodes.run_until(lambda: self.nodes.serving() is self.nodes.nodes[away], 8_000)


class TestStateVersions(IdentityCase):
    """A newer replicated state begins when every member knows it."""

    @staticmethod
    def newer_program() -> ExitStack:
        """Whoever starts inside knows the next version as well."""
        stack = ExitStack()
        newer = commands.STATE_VERSION + 1
        for module in (commands, replica_module):
            stack.enter_context(mock.patch.object(module, "STATE_VERSION", newer))
        return stack

    def test_it_begins_when_the_last_member_is_updated(self):
        with self.newer_program():
            for address in (A, B):
                self.nodes.kill(address)
                self.nodes.revive(address)
        for _ in range(200):
            self.nodes.step()
        membership = self.nodes.serving().replica.raft.membership
        self.assertEqual(membership.state_version, STATE_VERSION)
        with self.newer_program():
            self.nodes.kill(C)
            self.nodes.revive(C)
        self.nodes.run_until(lambda: self.nodes.settled() and all(
            n.replica.raft.membership.state_version == STATE_VERSION + 1
            for n in self.nodes.alive()))
        late = requests.Hello(requests.ROLE_PEER, self.nodes.serving().replica.cluster_id, 99, 1, 0,
                              D, 5, state_version=STATE_VERSION)
        self.assertEqual(self.nodes.serving().replica.greetings.greeted(late)[0],
                         ErrorCode.WRONG_VERSION)
        self.nodes.kill(C)
        self.nodes.revive(C)                # with the old program again
        self.assertIn("start a newer raftnet", self.nodes.nodes[C].replica.stop_reason)


if __name__ == "__main__":
    unittest.main()
