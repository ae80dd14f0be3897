"""Operators that change the members of a cluster of Replicas: refused, done, or told that nobody
knows; learners that stay, transfers, a target of several members."""

import unittest

from raftnet.errors import ErrorCode
from raftnet.raft.membership import MEMBERS_MAX
from raftnet.wire import joining, requests
from raftnet.wire.commands import STATE_VERSION
from raftnet.wire.frames import Kind
from tests.test_identity import A, B, C, D, E, IdentityCase, members, voters


class TestChanges(IdentityCase):
    """What operators ask for."""

    def test_a_removed_node_learns_it_and_is_quiet(self):
        away = self.follower()
        kind, body = self.change(joining.CHANGE_REMOVE, away)
        self.assertEqual(kind, Kind.CHANGE_REPLY, body)
        self.assertIn(f"{away} (node ", joining.decode_change_reply(body)[1])
        node = self.nodes.nodes[away]
        self.nodes.run_until(lambda: node.replica.role_name == "removed")
        term = self.nodes.serving().replica.raft.current_term
        self.nodes.kill(away)
        self.nodes.revive(away)
        for _ in range(300):
            self.nodes.step()
        self.assertEqual(node.replica.role_name, "removed")
        self.assertEqual(node.replica.raft.current_term, term)
        self.assertEqual(self.nodes.serving().replica.raft.current_term, term)
        self.assert_error(self.nodes.enqueue(node, b"x"), ErrorCode.NOT_LEADER)
        self.assert_error(self.change(joining.CHANGE_REMOVE, away), ErrorCode.NOT_A_MEMBER)

    def test_a_node_id_names_a_member_too(self):
        away = self.nodes.nodes[self.follower()]
        kind, _ = self.change(joining.CHANGE_REMOVE, f"{away.replica.node_id:016x}")
        self.assertEqual(kind, Kind.CHANGE_REPLY)
        self.assertEqual(len(voters(self.nodes.serving())), 2)

    def test_the_leader_removes_itself_and_hands_over(self):
        leader = self.nodes.serving()
        term = leader.replica.raft.current_term
        kind, body = self.change(joining.CHANGE_REMOVE, leader.begin.address)
        self.assertEqual(kind, Kind.CHANGE_REPLY, body)
        self.nodes.run_until(lambda: self.nodes.serving() not in (None, leader))
        self.assertEqual(self.nodes.serving().replica.raft.current_term, term + 1)
        self.assertEqual(len(voters(self.nodes.serving())), 2)
        self.nodes.run_until(lambda: leader.replica.role_name == "removed")

    def test_the_live_quorum_is_kept(self):
        leader = self.nodes.serving()
        away = self.follower()
        other = next(a for a in (A, B, C) if a not in (away, leader.begin.address))
        self.nodes.kill(away)
        for _ in range(100):
            self.nodes.step()
        self.assert_error(self.change(joining.CHANGE_REMOVE, other), ErrorCode.QUORUM_AT_RISK)
        kind, _ = self.change(joining.CHANGE_REMOVE, away)
        self.assertEqual(kind, Kind.CHANGE_REPLY)

    def test_transfer(self):
        leader = self.nodes.serving()
        to = self.follower()
        kind, body = self.change(joining.CHANGE_TRANSFER, to)
        self.assertEqual((kind, joining.decode_change_reply(body)),
                         (Kind.CHANGE_REPLY, (0, f"{to} leads")))
        self.nodes.run_until(self.nodes.settled)
        self.assertEqual(self.nodes.serving().begin.address, to)
        self.assertIsNot(self.nodes.serving(), leader)
        kind, body = self.change(joining.CHANGE_TRANSFER, to)
        self.assertIn("already", joining.decode_change_reply(body)[1])

    def test_a_transfer_of_which_nobody_tells_the_outcome(self):
        """This node leads no more, and never hears who does (seed 42000092)."""
        leader, to = self.nodes.serving(), self.follower()
        others = [a for a in (A, B, C) if a != leader.begin.address]
        self.nodes.answers = []
        self.nodes.ask(leader, Kind.CHANGE, joining.encode_change(joining.CHANGE_TRANSFER, [to]))
        self.nodes.cut = {(a, b) for o in others for a, b in ((o, leader.begin.address),
                                                              (leader.begin.address, o))}
        self.nodes.run_until(lambda: not leader.replica.leads)
        self.nodes.run_until(lambda: self.nodes.answers, 3_000)
        (_, _, kind, body), = self.nodes.answers
        self.assert_error((kind, body), ErrorCode.LEADERSHIP_LOST)

    def test_a_transfer_that_comes_to_nothing(self):
        leader, to = self.nodes.serving(), self.follower()
        self.nodes.cut = {(leader.begin.address, to)}
        self.assert_error(self.change(joining.CHANGE_TRANSFER, to), ErrorCode.TRANSFER_FAILED)
        self.assert_enqueued(self.nodes.enqueue(leader, b"on"))

    def test_the_members_are_set(self):
        for address in (D, E):
            self.nodes.add(address)         # lone founders
        kind, body = self.change(joining.CHANGE_SET, C, D, E)
        self.assertEqual(kind, Kind.CHANGE_REPLY, body)
        self.nodes.run_until(lambda: voters(self.nodes.nodes[D]) == {C, D, E}
                             if self.nodes.nodes[D].replica.raft else False, 60_000)
        self.nodes.run_until(lambda: self.nodes.serving() is not None
                             and not self.nodes.serving().replica.raft.membership.target)
        for address in (A, B):
            self.nodes.run_until(
                lambda: self.nodes.nodes[address].replica.role_name == "removed")
        leader = self.nodes.serving()
        self.assertEqual({m.address for m in leader.replica.raft.membership.members}, {C, D, E})
        self.assert_enqueued(self.nodes.enqueue(leader, b"on"))

    def test_an_invitation(self):
        leader = self.nodes.serving()
        d = self.nodes.add(D)
        self.nodes.run_until(lambda: d.replica.why_not_serving() is None)
        invite = joining.encode_invite(leader.replica.cluster_id, leader.begin.address,
                                       joining.JOIN_STAYS)
        for _ in range(2):                  # a member answers too
            kind, body = self.nodes.answer_to(d, Kind.INVITE, invite)
            self.assertEqual(kind, Kind.INVITE_REPLY, body)
            self.nodes.run_until(lambda: D in members(leader) and self.nodes.settled())
        for _ in range(100):
            self.nodes.step()
        self.assertEqual(voters(leader), {A, B, C})     # it stays a learner

    def test_an_invitation_to_a_node_with_data_of_its_own(self):
        leader = self.nodes.serving()
        d = self.nodes.add(D)
        self.nodes.run_until(lambda: d.replica.why_not_serving() is None)
        self.assert_enqueued(self.nodes.enqueue(d, b"mine"))
        answer = self.nodes.answer_to(d, Kind.INVITE, joining.encode_invite(
            leader.replica.cluster_id, leader.begin.address))
        self.assert_error(answer, ErrorCode.NOT_EMPTY)

    def test_an_invitation_to_a_removed_node(self):
        away = self.follower()
        self.change(joining.CHANGE_REMOVE, away)
        node, leader = self.nodes.nodes[away], self.nodes.serving()
        self.nodes.run_until(lambda: node.replica.role_name == "removed")
        self.assertEqual(self.change(joining.CHANGE_SET, A, B, C)[0], Kind.CHANGE_REPLY)
        for _ in range(200):
            self.nodes.step()
        # It stays outside until somebody empties it, and nobody takes the refusal for his own.
        self.assertIs(self.nodes.serving(), leader)
        self.assertEqual(leader.replica.role_name, "leader")
        self.assertNotIn(away, voters(leader))
        self.nodes.kill(away)
        self.nodes.down.discard(away)
        node.wipe()
        self.nodes.run_until(lambda: self.all_in(3))

    def test_wrong_changes(self):
        for operation, addresses in ((joining.CHANGE_SET, ["nowhere"]),
                                     (joining.CHANGE_SET, ["a..b:80"]),
                                     (joining.CHANGE_SET, [" 127.0.0.1:5001"]),
                                     (joining.CHANGE_SET, ["127.0.0.1:05001"]),
                                     (joining.CHANGE_SET, [A, A])):
            self.assert_error(self.change(operation, *addresses), ErrorCode.BAD_REQUEST)
        for name in (D, "x", "0" * 16):
            self.assert_error(self.change(joining.CHANGE_REMOVE, name), ErrorCode.NOT_A_MEMBER)
        away = self.nodes.nodes[self.follower()]
        self.assert_error(self.nodes.answer_to(away, Kind.CHANGE, joining.encode_change(
            joining.CHANGE_REMOVE, [A])), ErrorCode.NOT_LEADER)

    # --- names of nodes that are not their addresses

    def assert_alias(self, alias: str, address: str, *others: str) -> None:
        """The members cannot be set to these, and stay what they are."""
        leader = self.nodes.serving()
        index = leader.replica.raft.log.last_index
        began_ms = leader.clock_ms
        answer = self.change(joining.CHANGE_SET, alias, *others)
        self.assert_error(answer, ErrorCode.ADDRESS_TAKEN)
        self.assertIn(f"{alias} is the node {address}: use", requests.decode_error(answer[1])[2])
        self.assertLess(leader.clock_ms - began_ms, 500)
        self.assertEqual(leader.replica.raft.log.last_index, index)
        self.nodes.step()
        self.assertNotIn(alias, leader.targets)     # nor is it dialled any more

    def test_set_refuses_another_name_of_a_member(self):
        away, leader = self.follower(), self.nodes.serving().begin.address
        others = [a for a in (A, B, C) if a != away]
        self.nodes.aliases["localhost:1"] = away
        self.assert_alias("localhost:1", away, *others)
        self.assert_alias("localhost:1", away, A, B, C)
        self.assert_alias("localhost:1", away, *others)     # also when asked again
        self.nodes.aliases["localhost:2"] = leader
        self.assert_alias("localhost:2", leader, *[a for a in (A, B, C) if a != leader])

    def test_set_refuses_another_name_of_a_newcomer(self):
        d = self.nodes.add(D)
        self.nodes.run_until(lambda: d.replica.why_not_serving() is None)
        self.nodes.aliases["localhost:4"] = D
        self.assert_alias("localhost:4", D, A, B, C)
        self.assertEqual(self.change(joining.CHANGE_SET, A, B, C, D)[0], Kind.CHANGE_REPLY)
        self.nodes.run_until(lambda: self.all_in(4))

    def test_a_name_is_asked_anew_each_time(self):
        """Who answered to it before may have been replaced by one that bears it."""
        away = self.follower()
        name = "localhost:4"
        self.nodes.aliases[name] = away
        self.assert_alias(name, away, A, B, C)
        del self.nodes.aliases[name]
        self.nodes.add(name)
        self.assertEqual(self.change(joining.CHANGE_SET, A, B, C, name)[0], Kind.CHANGE_REPLY)
        self.nodes.run_until(lambda: self.all_in(4))

    def test_set_waits_for_who_does_not_answer_but_not_for_ever(self):
        leader = self.nodes.serving()
        began_ms = leader.clock_ms
        body = joining.encode_change(joining.CHANGE_SET, [A, B, C, D])
        self.nodes.ask(leader, Kind.CHANGE, body, "first")
        self.nodes.step()
        for operation, addresses in ((joining.CHANGE_SET, [A, B, C]),       # all known
                                     (joining.CHANGE_SET, [A, B, "127.0.0.1:9"]),
                                     (joining.CHANGE_REMOVE, [self.follower()])):
            # Else the earlier order would come after the later one.
            answer = self.nodes.answer_to(
                leader, Kind.CHANGE, joining.encode_change(operation, addresses), "other")
            self.assert_error(answer, ErrorCode.CHANGE_UNDER_WAY)
        self.nodes.ask(leader, Kind.CHANGE, body, "again")
        self.nodes.run_until(lambda: any(a[0] == "again" for a in self.nodes.answers))
        self.assertEqual(self.nodes.answers[-1][2], Kind.CHANGE_REPLY)
        self.assertLess(leader.clock_ms - began_ms, 2_000)
        self.assertEqual(leader.replica.raft.membership.target, (A, B, C, D))

    def test_a_leader_that_is_cut_off_while_it_looks_has_changed_nothing(self):
        leader = self.nodes.serving()
        others = [a for a in (A, B, C) if a != leader.begin.address]
        self.nodes.cut = {(leader.begin.address, other) for other in others} | {
            (other, leader.begin.address) for other in others}
        for _ in range(20):
            self.nodes.step()       # its time is nearly up
        self.nodes.answers = []
        self.nodes.ask(leader, Kind.CHANGE, joining.encode_change(joining.CHANGE_SET, [A, B, D]))
        self.nodes.run_until(lambda: self.nodes.answers)
        self.assert_error(self.nodes.answers[0][2:], ErrorCode.NOT_LEADER)
        self.assertEqual(leader.replica.admission.looked_at, ())

    def test_a_new_leader_goes_on_with_the_target(self):
        """It dials whom the target names, though no membership is new to it (seed 11000717)."""
        for _ in range(100):
            self.nodes.step()           # until nobody is a stranger any more
        self.assertEqual(self.change(joining.CHANGE_SET, A, B, C, D)[0], Kind.CHANGE_REPLY)
        self.nodes.run_until(self.nodes.settled)
        self.change(joining.CHANGE_TRANSFER, self.follower())
        self.nodes.run_until(self.nodes.settled)
        self.nodes.add(D)
        self.nodes.run_until(lambda: self.nodes.nodes[D].replica.raft is not None
                             and voters(self.nodes.nodes[D]) == {A, B, C, D})

    def test_many_targets(self):
        leader = self.nodes.serving()
        long = [f"{'a' * 60}.{'b' * 60}.{number}:80" for number in range(1_000)]
        kind, body = self.change(joining.CHANGE_SET, *long)
        self.assertEqual(kind, Kind.CHANGE_REPLY, body)
        self.assertEqual(len(leader.replica.raft.membership.target), 1_000)
        kind, body = self.change(joining.CHANGE_SET, A, B, C)
        self.assertEqual(kind, Kind.CHANGE_REPLY, body)
        self.nodes.run_until(lambda: not leader.replica.raft.membership.target)

    def test_status_tells(self):
        away = self.follower()
        self.nodes.kill(away)
        for _ in range(100):
            self.nodes.step()
        for node in self.nodes.alive():     # followers know it too
            status = node.replica.reads.status()
            member = next(m for m in status.members if m.address == away)
            self.assertFalse(member.reachable)
            self.assertGreaterEqual(member.silent_ms, 1_900)
            self.assertTrue(all(m.reachable for m in status.members if m.address != away))
            self.assertEqual((status.state_version, status.target), (STATE_VERSION, []))
        self.assertLess(len(status.members), MEMBERS_MAX)


if __name__ == "__main__":
    unittest.main()
