"""Damaged files: who sets them aside and who refuses, and how a node comes back to its cluster."""

import unittest
from unittest import mock

from raftnet.errors import ErrorCode, StorageError
from raftnet.raft.membership import QuorumRule
from raftnet.recovery import open_store
from raftnet.replica import Start
from raftnet.storage.damage import read_healing
from raftnet.wire import joining, requests
from raftnet.wire.frames import Kind
from tests.replicas import Node, Nodes, ReplicaCase

A, B, C, D, E = FIVE = [f"127.0.0.1:{port}" for port in range(5001, 5006)]
ELSEWHERE = "127.0.0.1:6001"
ALL_NAMES = ("identity", "log", "meta")


class RecoveryCase(ReplicaCase):
    """Clusters in one process, whose files are damaged."""

    def begin(self, *addresses: str, rule=QuorumRule.MAJORITY, config=None) -> None:
        """Founders that serve, with some entries."""
        self.nodes = Nodes(config=config)
        self.nodes.founders(*addresses, rule=rule)
        self.nodes.run_until(self.nodes.settled)
        self.fill()

    def fill(self) -> None:
        """Some more entries, which all hold."""
        for number in range(5):
            self.assert_enqueued(self.nodes.enqueue(self.nodes.serving(), b"%d" % number))
        self.nodes.run_until(self.nodes.settled)

    def followers(self) -> list[str]:
        """Those that do not lead, in the order of their addresses."""
        leader = self.nodes.serving()
        return [a for a, node in self.nodes.nodes.items() if node is not leader]

    def damage(self, address: str, *more: str, at: int | None = None) -> Node:
        """The node ends, and a bit of its log is flipped: in the midst, or `at`; and of `more`."""
        node = self.nodes.nodes[address]
        if address not in self.nodes.down:
            self.nodes.kill(address)
        node.disk.kill()
        size = len(node.disk.get("log"))
        for name, offset in [("log", size * 2 // 3 if at is None else at),
                             *((name, 10) for name in more),
                             *((name, 4096 + 10) for name in more if name == "meta")]:
            data = bytearray(node.disk.get(name))
            data[offset] ^= 1
            node.disk.put(name, bytes(data))
        return node

    def open(self, node: Node, *contacts: str) -> None:
        """Start it as node.py does, up to its Store; raises StorageError."""
        open_store(node.disk, list(contacts), node.begin.address,
                   lambda: self.nodes.randint(1, 2**64 - 1), lambda text: None, 1 << 20)
        node.disk.kill()

    def set_aside(self, *addresses: str, **start) -> list[int]:
        """Their logs are damaged and set aside, and they run again; the node ids they had."""
        old = []
        for address in addresses:
            node = self.damage(address)
            old.append(node.replica.node_id)
            self.open(node)
            if start:
                node.begin = Start(address, **start)
        for address in addresses:
            self.nodes.revive(address)
        return old

    def have_healed(self, old: list[int]) -> bool:
        """All founders are voters and equal, and these identities are gone for good."""
        leader = self.nodes.serving()
        if leader is None or not self.nodes.settled() or self.nodes.down:
            return False
        membership = leader.replica.raft.membership
        return (sorted(m.address for m in membership.members if m.voter) == sorted(
                    self.nodes.nodes) and len(membership.members) == len(self.nodes.nodes)
                and all(node_id in membership.removed for node_id in old)
                and all(n.replica.store.healing is None for n in self.nodes.alive()))

    def await_healed(self, old: list[int], limit_ms: int = 20_000) -> None:
        """Until `have_healed`; then it works on."""
        self.nodes.run_until(lambda: self.have_healed(old), limit_ms)
        self.fill()


class TestWhoRefuses(RecoveryCase):
    """Nothing is set aside where nobody could take the node in anew."""

    def assert_refused(self, node: Node, *words: str) -> None:
        """It does not start, says why, and changes nothing."""
        before = {name: node.disk.get(name) for name in node.disk.list()}
        with self.assertRaises(StorageError) as caught:
            self.open(node)
        node.disk.kill()
        for word in ("--restore", *words):
            self.assertIn(word, str(caught.exception))
        self.assertEqual({name: node.disk.get(name) for name in node.disk.list()}, before)
        self.assertEqual(sorted(before), list(ALL_NAMES))

    def test_two_voters(self):
        self.begin(A, B)
        self.assert_refused(self.damage(A), "2 of 2 voters", f"another member ({B})")

    def test_three_with_the_assignments_rule(self):
        self.begin(A, B, C, rule=QuorumRule.HALF_ROUNDED_UP_PLUS_ONE)
        self.assert_refused(self.damage(A), "3 of 3 voters", f"another member ({B}, {C})")

    def test_four_with_the_assignments_rule_heal(self):
        self.begin(A, B, C, D, rule=QuorumRule.HALF_ROUNDED_UP_PLUS_ONE)
        self.await_healed(self.set_aside(self.followers()[0]))

    def test_a_learner_is_no_voter_that_is_missed(self):
        self.begin(A, B)
        node = self.nodes.add(C, join=A, join_flags=joining.JOIN_STAYS)
        self.nodes.run_until(self.nodes.settled)
        self.fill()
        self.fill()             # the damage lies behind what tells of the learner
        self.open(self.damage(C))
        self.assertEqual(set(read_healing(node.disk).contacts), {A, B})
        self.assert_refused(self.damage(A), "2 of 2 voters", B, C)

    def test_alone_with_a_learner(self):
        self.begin(A)
        self.nodes.add(B, join=A, join_flags=joining.JOIN_STAYS)
        self.nodes.run_until(self.nodes.settled)
        self.fill()
        self.assert_refused(self.damage(A), "1 of 1 voters", f"another member ({B})")

    def test_alone_at_any_address(self):
        for more in ((), ("identity",), ("identity", "meta")):
            for address in (A, ELSEWHERE):
                with self.subTest(damaged=more, address=address):
                    self.begin(A)
                    node = self.damage(A, *more)
                    node.begin = Start(address, join=B)
                    self.assert_refused(node, "nobody else holds this data")

    def test_its_own_old_address_is_no_contact(self):
        for more in ((), ("identity",)):
            with self.subTest(damaged=more):
                self.begin(A, B, C)
                node = self.damage(A, *more)
                node.begin = Start(ELSEWHERE)
                self.open(node)
                self.assertEqual(set(read_healing(node.disk).contacts), {B, C})


class TestWhichCluster(RecoveryCase):
    """A node that heals goes to its own cluster and to no other."""

    def setUp(self):
        self.begin(A, B, C)
        self.ours = self.nodes.serving().replica.cluster_id

    def add_stranger(self, address: str) -> Node:
        """Another cluster, in use, of one node."""
        node = self.nodes.add(address)
        others = [a for a in self.nodes.nodes if a != address]
        self.nodes.cut |= {p for a in others for p in ((a, address), (address, a))}
        self.nodes.run_until(lambda: node.replica.why_not_serving() is None)
        self.assert_enqueued(self.nodes.enqueue(node, b"its own"))
        return node

    def test_the_identity_says_which_where_the_log_cannot(self):
        node = self.damage(A, at=20)        # of its header
        self.open(node, B)
        self.assertEqual(read_healing(node.disk)[:2], ((B,), self.ours))

    def test_no_invitation_leads_elsewhere(self):
        for address in (B, C):
            self.nodes.kill(address)
        node = self.damage(A, at=20)
        self.open(node, B)
        stranger = self.add_stranger(ELSEWHERE)
        self.nodes.cut = set()
        self.nodes.revive(A)
        self.nodes.answer_to(stranger, Kind.CHANGE,
                             joining.encode_change(joining.CHANGE_SET, [ELSEWHERE, A]))
        for _ in range(200):
            self.nodes.step()
            self.assertEqual(node.replica.joining.asking.contacts, [B])
        self.assertEqual(node.replica.role_name, "joining")
        del self.nodes.nodes[ELSEWHERE]
        for address in (B, C):
            self.nodes.revive(address)
        self.nodes.run_until(lambda: node.replica.cluster_id == self.ours)

    def heal_beside_a_stranger(self, **start) -> None:
        """A contact's address is that of another cluster now, and the first one to be asked."""
        node = self.damage(A)
        self.open(node)
        first, good = read_healing(node.disk).contacts
        self.nodes.kill(good)
        self.nodes.kill(first)
        old = node.replica.node_id
        stranger = self.nodes.nodes[first]
        kept = stranger.disk
        # The address is another cluster's for a while, which would even take this node in.
        stranger.begin = Start(first)
        stranger.wipe()
        self.nodes.down.discard(first)
        self.nodes.run_until(lambda: stranger.replica.why_not_serving() is None)
        self.assert_enqueued(self.nodes.enqueue(stranger, b"its own"))
        node.begin = Start(A, **start)
        self.nodes.revive(A)
        for _ in range(100):
            self.nodes.step()
        self.assertEqual(len(stranger.replica.raft.membership.members), 1)
        self.assertIn(f"{first} belongs to cluster", "".join(node.lines.lines))
        self.nodes.kill(first)
        stranger.disk = kept
        self.nodes.revive(good)
        self.nodes.revive(first)
        self.await_healed([old])

    def test_a_contact_that_belongs_elsewhere(self):
        self.heal_beside_a_stranger()

    def test_join_names_one_that_belongs_elsewhere(self):
        self.heal_beside_a_stranger(join=self.followers()[0])

    def test_join_comes_first_and_then_the_others(self):
        node = self.damage(A)
        self.open(node)
        for address in (B, C):
            self.nodes.kill(address)
        node.begin = Start(A, join=ELSEWHERE)
        self.nodes.revive(A)
        asked = []
        for _ in range(600):
            target = node.replica.joining.asking.target
            asked += [target] if [target] != asked[-1:] else []
            self.nodes.step()
        contacts = read_healing(node.disk).contacts
        self.assertEqual(asked[:4], [ELSEWHERE, *contacts, ELSEWHERE])

    @staticmethod
    def asks_another(node: Node, contact: str) -> bool:
        """Whether somebody else is asked now."""
        asking = node.replica.joining.asking
        return asking is not None and asking.target in {B, C} - {contact}

    def test_an_answer_from_elsewhere_changes_nothing(self):
        node = self.damage(A)
        self.open(node)
        for address in (B, C):
            self.nodes.kill(address)
        self.nodes.revive(A)
        for _ in range(3):
            target = node.replica.joining.asking.target
            node.replica.joining.dialled_frame(target, Kind.JOIN_REPLY,
                                               joining.encode_join_reply(b"x" * 16))
            self.assertIsNone(node.replica.raft)
            self.nodes.run_until(lambda: self.asks_another(node, target), 1_000)

    def test_codes_that_send_it_on(self):
        node = self.damage(A)
        self.open(node)
        for address in (B, C):
            self.nodes.kill(address)
        self.nodes.revive(A)
        for code in ErrorCode:
            if code == ErrorCode.OLD_COPY:
                continue        # it stops
            with self.subTest(code=code.name):
                target = node.replica.joining.asking.target
                node.replica.joining.dialled_frame(target, Kind.ERROR,
                                                   requests.encode_error(code, "no", ""))
                for _ in range(20):
                    self.nodes.step()
                self.assertEqual(self.asks_another(node, target), code in (
                    ErrorCode.NOT_A_MEMBER, ErrorCode.WRONG_CLUSTER, ErrorCode.REMOVED,
                    ErrorCode.NOT_LEADER))

    def test_greetings_that_are_refused_send_it_on_in_good_order(self):
        node = self.damage(A)
        self.open(node)
        for address in (B, C):
            self.nodes.kill(address)
        self.nodes.revive(A)
        asked = []
        for _ in range(100):            # a greeting in every turn, as fast as they come
            target = node.replica.joining.asking.target
            asked += [target] if [target] != asked[-1:] else []
            node.replica.greetings.refused(target, ErrorCode.WRONG_CLUSTER, "one node")
            self.nodes.step()
        self.assertEqual(set(asked), {B, C})
        self.assertLessEqual(len(asked), 11)    # one in 200 ms


class TestMovedMeanwhile(RecoveryCase):
    """Nobody knows it at the address where it was started."""

    def setUp(self):
        self.begin(A, B, C)
        self.away = self.followers()[0]
        self.node = self.damage(self.away)
        self.open(self.node)
        self.old = self.node.replica.node_id
        del self.nodes.nodes[self.away]
        self.nodes.down.clear()

    def start(self, **start) -> None:
        """At another address."""
        self.node.begin = Start(ELSEWHERE, **start)
        self.nodes.nodes[ELSEWHERE] = self.node
        self.node.restart()

    def test_it_says_what_to_do_and_then_does_it(self):
        self.start()
        for _ in range(250):
            self.nodes.step()
        self.assertEqual(self.node.replica.role_name, "joining")
        self.assertIn("or with --join and the address of a member", "".join(self.node.lines.lines))
        self.nodes.kill(ELSEWHERE)
        self.nodes.down.clear()
        self.start(join=self.followers()[0])
        self.nodes.run_until(lambda: self.nodes.settled() and len(
            self.nodes.serving().replica.raft.membership.voters) == 4)
        self.assertIn("stays a member until it is removed", "".join(self.node.lines.lines))
        membership = self.nodes.serving().replica.raft.membership
        self.assertEqual((membership.member(self.old).address,
                          membership.member(self.node.replica.node_id).address),
                         (self.away, ELSEWHERE))
        self.nodes.answer_to(self.nodes.serving(), Kind.CHANGE, joining.encode_change(
            joining.CHANGE_REMOVE, [self.away]))
        self.await_healed([self.old])

    def test_with_join_at_its_own_address_it_takes_its_old_place(self):
        self.nodes.nodes[self.away] = self.node
        self.node.begin = Start(self.away, join=self.followers()[-1])
        self.node.restart()
        self.await_healed([self.old])

    def test_who_was_removed_meanwhile_does_not_return_by_itself(self):
        self.nodes.answer_to(self.nodes.serving(), Kind.CHANGE, joining.encode_change(
            joining.CHANGE_REMOVE, [self.away]))
        self.nodes.nodes[self.away] = self.node
        self.node.restart()
        for _ in range(250):
            self.nodes.step()
        self.assertEqual(self.node.replica.role_name, "joining")
        self.assertEqual(len(self.nodes.serving().replica.raft.membership.members), 2)


class TestTrouble(RecoveryCase):
    """Of five, while other things go wrong."""

    def setUp(self):
        self.begin(A, B, C, D, E)

    def test_two_heal_at_once(self):
        # Each has the other one first among its contacts.
        first, second = self.followers()[:2]
        old = self.set_aside(first, second)
        for one, other in ((first, second), (second, first)):
            self.nodes.kill(one)
            self.nodes.nodes[one].begin = Start(one, join=other)
        for one in (first, second):
            self.nodes.revive(one)
        self.await_healed(old)

    def test_the_leader_dies_while_it_takes_it_in(self):
        address = self.followers()[0]
        leader = self.nodes.serving().begin.address
        old = self.set_aside(address)
        node = self.nodes.nodes[address]
        hear = node.replica.joining.dialled_frame

        def miss_the_answer(address, kind, body):
            if kind != Kind.JOIN_REPLY:
                hear(address, kind, body)
        with mock.patch.object(node.replica.joining, "dialled_frame", miss_the_answer):
            self.nodes.run_until(lambda: len(
                self.nodes.nodes[leader].replica.raft.membership.members) == 6)
            self.nodes.step()
            self.assertIsNone(node.replica.raft)
            self.nodes.kill(leader)
        self.nodes.run_until(lambda: node.replica.raft is not None, 30_000)
        self.nodes.revive(leader)
        self.await_healed(old)

    def test_the_leader_is_another_one_in_every_moment(self):
        address = self.followers()[0]
        term = self.nodes.serving().replica.raft.current_term
        old = self.set_aside(address)
        for round_ in range(12):
            leader = self.nodes.serving()
            if leader is not None:
                others = [n.replica.node_id for a, n in self.nodes.nodes.items()
                          if a != address and n is not leader]
                self.nodes.ask(leader, Kind.CHANGE, joining.encode_change(
                    joining.CHANGE_TRANSFER, [f"{others[round_ % len(others)]:016x}"]))
            for _ in range(7):
                self.nodes.step()
        self.assertGreater(self.nodes.serving().replica.raft.current_term, term + 5)
        self.await_healed(old)

    def test_contacts_that_are_dead_at_first(self):
        address = self.followers()[0]
        node = self.damage(address)
        old = [node.replica.node_id]
        self.open(node)
        contacts = read_healing(node.disk).contacts
        for contact in contacts[:3]:
            self.nodes.kill(contact)
        self.nodes.revive(address)
        for _ in range(600):                        # 12 s
            self.nodes.step()
        self.assertIsNone(node.replica.raft)
        for contact in contacts[1:3]:               # three of five are enough
            self.nodes.revive(contact)
        self.nodes.run_until(lambda: node.replica.raft is not None, 30_000)
        self.nodes.revive(contacts[0])
        self.await_healed(old)


if __name__ == "__main__":
    unittest.main()
