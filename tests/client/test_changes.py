"""Changing the members through the client: redirects, lost answers, waiting, and what is said."""

import json
import unittest
from unittest import mock

from raftnet.client import changes
from raftnet.client.client import Client
from raftnet.errors import ErrorCode, MalformedError, NoAnswerError, RefusedError
from raftnet.wire import joining, requests
from raftnet.wire.frames import Kind
from raftnet.wire.requests import MemberStatus, NodeStatus
from tests.client.fakenode import DROP_AFTER, SILENT_AFTER, FakeCluster, Refuse
from tests.client.test_commandline import CommandLineTest as CommandLine

CLUSTER, OTHER = b"c" * 16, b"d" * 16
NEW = 0xabc


def status(address: str, node_id: int, role: str, members: list[MemberStatus], **fields):
    """A status with what these tests look at."""
    found = NodeStatus(CLUSTER, node_id, 1, role, 3, 10, 10, 10, 0, 10, 0, True, 0, address, "",
                       "test", members)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


class ChangesTest(unittest.TestCase):
    """Two nodes whose members are played here: the first one leads; a third may be added."""

    def setUp(self):
        self.cluster = FakeCluster(CLUSTER)
        self.addCleanup(self.cluster.close)
        self.nodes = [self.cluster.node() for _ in range(3)]
        self.leader, self.follower, self.newcomer = self.nodes
        self.members = [MemberStatus(1, self.leader.address, True, True, 10),
                        MemberStatus(2, self.follower.address, True, True, 10)]
        self.leading = 1                # the node id of who leads
        self.fields = {}                # of the leader's status
        self.looks = 0                  # at the leader's members
        self.asked = []                 # (operation, words) of every CHANGE
        self.outcomes = []              # of the next CHANGEs; None: done
        self.when_looked = lambda number: None
        for node_id, node in ((1, self.leader), (2, self.follower)):
            node.handlers[Kind.STATUS] = lambda _, i=node_id, n=node: self.see(i, n)
            node.handlers[Kind.CHANGE] = lambda body, i=node_id: self.change(i, body)
        self.new = status(self.newcomer.address, NEW, "joining", [], cluster_id=bytes(16))
        self.newcomer.handlers[Kind.STATUS] = lambda _: (
            Kind.STATUS_REPLY, requests.encode_status(self.new))
        self.newcomer.handlers[Kind.INVITE] = self.invite
        self.invited = []
        self.invite_outcome = None

    def see(self, node_id: int, node):
        """STATUS of one of the two."""
        leads = node_id == self.leading
        if leads:
            self.looks += 1
            self.when_looked(self.looks)
        leader = self.nodes[self.leading - 1].address
        found = status(node.address, node_id, "leader" if leads else "follower", self.members,
                       leader=leader, **self.fields)
        return Kind.STATUS_REPLY, requests.encode_status(found)

    def change(self, node_id: int, body: bytes):
        """CHANGE at one of the two."""
        if node_id != self.leading:
            return Refuse(ErrorCode.NOT_LEADER, self.nodes[self.leading - 1].address)
        operation, words = joining.decode_change(body)
        self.asked.append((operation, words))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if callable(outcome):
            outcome = outcome()
        elif outcome is None:
            self.perform(operation, words)
        return outcome or (Kind.CHANGE_REPLY, joining.encode_change_reply(8, "done"))

    def perform(self, operation: int, words: list[str]) -> None:
        """What the leader would do."""
        if operation == joining.CHANGE_REMOVE:
            self.members = [m for m in self.members if f"{m.node_id:016x}" not in words]
        elif operation == joining.CHANGE_TRANSFER:
            self.leading = next(m.node_id for m in self.members if m.address in words)
        else:
            self.fields["target"] = words

    def done_but(self, what):
        """An outcome: it is done, and the answer is lost in that way."""
        def play():
            self.perform(*self.asked[-1])
            return what
        return play

    def invite(self, body: bytes):
        """INVITE at the newcomer."""
        self.invited.append(joining.decode_invite(body))
        return self.invite_outcome or (Kind.INVITE_REPLY, joining.encode_invite_reply(NEW))

    def client(self, *nodes, **options) -> Client:
        client = Client([n.address for n in nodes or (self.follower, self.leader)],
                        **{"timeout_s": 10} | options)
        self.addCleanup(client.close)
        return client

    # --- remove

    def test_remove_finds_the_leader_and_names_the_node(self):
        found = self.client(self.follower).remove(self.follower.address)
        self.assertEqual(self.asked, [(joining.CHANGE_REMOVE, ["0000000000000002"])])
        self.assertTrue(found.done)
        self.assertEqual((found.index, found.node_id, found.members),
                         (8, 2, (self.leader.address,)))
        self.members.append(MemberStatus(2, self.follower.address, True, True))
        self.client().remove("0000000000000002")
        self.assertEqual(self.asked[0], self.asked[1])

    def test_a_lost_answer_is_looked_up(self):
        for lost in (DROP_AFTER, Refuse(ErrorCode.LEADERSHIP_LOST)):
            with self.subTest(lost=lost):
                self.asked.clear()
                self.members.append(MemberStatus(3, "h:3", True, False))
                self.outcomes = [self.done_but(lost)]
                self.assertIn("is removed", self.client().remove("h:3").text)
                self.assertEqual(len(self.asked), 1)

    def test_what_a_look_shows_undone_is_asked_again(self):
        self.outcomes = [DROP_AFTER, Refuse(ErrorCode.CHANGE_UNDER_WAY),
                         Refuse(ErrorCode.NOT_READY), Refuse(ErrorCode.NOT_LEADER)]
        self.client().remove(self.follower.address)
        self.assertEqual(len(self.asked), 5)
        self.assertEqual(len(self.members), 1)

    def test_an_uncommitted_change_is_not_done_yet(self):
        def look(number):
            self.fields["membership_index"] = 12 if number < 5 else 9
        self.when_looked = look
        self.outcomes = [self.done_but(DROP_AFTER)]
        self.client().remove(self.follower.address)
        self.assertGreaterEqual(self.looks, 5)
        self.assertEqual(len(self.asked), 1)

    def test_final_refusals_are_given_as_they_are(self):
        for code in (ErrorCode.QUORUM_AT_RISK, ErrorCode.NOT_A_MEMBER, ErrorCode.BAD_REQUEST):
            self.outcomes = [Refuse(code)]
            with self.subTest(code), self.assertRaises(RefusedError) as caught:
                self.client().remove(self.follower.address)
            self.assertEqual(caught.exception.code, code)
        # after a lost answer the earlier one may still be done
        self.outcomes = [DROP_AFTER, Refuse(ErrorCode.QUORUM_AT_RISK)]
        with self.assertRaises(NoAnswerError) as caught:
            self.client().remove(self.follower.address)
        self.assertFalse(caught.exception.known)

    def test_out_of_time_says_what_is_known(self):
        for outcome, known in ((SILENT_AFTER, False), (DROP_AFTER, False),
                               (Refuse(ErrorCode.CHANGE_UNDER_WAY), True),
                               (Refuse(ErrorCode.NOT_READY), True)):
            self.outcomes = [outcome] * 100
            with self.subTest(outcome=outcome), self.assertRaises(NoAnswerError) as caught:
                self.client(timeout_s=0.2).remove(self.follower.address)
            self.assertEqual(caught.exception.known, known, caught.exception)
        # the last look at the members, for which some time is kept, still shows it
        self.outcomes = [self.done_but(SILENT_AFTER)]
        self.client(timeout_s=0.2).remove(self.follower.address)

    def test_what_is_no_member_is_the_leaders_to_say(self):
        self.outcomes = [Refuse(ErrorCode.NOT_A_MEMBER)]
        with self.assertRaises(RefusedError):
            self.client().remove("h:9")
        self.assertEqual(self.asked, [(joining.CHANGE_REMOVE, ["h:9"])])
        self.outcomes = [Refuse(ErrorCode.NOT_A_MEMBER)]
        with self.assertRaises(RefusedError):       # though absent, as when it is done
            self.client().remove("00000000000000ff")

    def test_two_at_one_address_are_told_apart(self):
        self.members += [MemberStatus(3, "h:3", True, False), MemberStatus(4, "h:3", False, True)]
        with self.assertRaisesRegex(RefusedError, "0000000000000003 .voter., 0000000000000004"):
            self.client().remove("h:3")
        self.assertEqual(self.asked, [])

    def test_no_redirect(self):
        with self.assertRaises(RefusedError) as caught:
            self.client(redirect=False).remove(self.leader.address)
        self.assertEqual(caught.exception.leader, self.leader.address)

    # --- transfer

    def test_transfer(self):
        for outcome in (None, self.done_but(DROP_AFTER), self.done_but(Refuse(
                ErrorCode.LEADERSHIP_LOST))):
            self.leading, self.asked = 1, []
            self.outcomes = [outcome]
            found = self.client().transfer(self.follower.address)
            self.assertEqual(found.text, f"{self.follower.address} leads now")
            self.assertEqual(self.asked, [(joining.CHANGE_TRANSFER, [self.follower.address])])
        self.assertIn("already", self.client().transfer(self.follower.address).text)
        self.assertEqual(len(self.asked), 1)
        self.outcomes = [Refuse(ErrorCode.TRANSFER_FAILED)]
        with self.assertRaises(RefusedError):
            self.client().transfer(self.leader.address)

    # --- add

    def grow(self, voter_at: int, step: int = 2) -> None:
        """From the second look on the newcomer is a learner, `step` entries more a look."""
        def look(number):
            if number >= 2:
                held = min(10, step * number)
                self.members = self.members[:2] + [MemberStatus(
                    NEW, self.newcomer.address, number >= voter_at, True, held)]
        self.when_looked = look

    def test_add_waits_until_it_votes(self):
        told = []
        self.grow(voter_at=6)
        with mock.patch.object(changes, "PROGRESS_S", 0.0):
            found = self.client(self.follower).add(self.newcomer.address, progress=told.append)
        self.assertEqual((found.done, found.node_id), (True, NEW))
        self.assertIn("is a voter now", found.text)
        self.assertEqual(self.invited, [(CLUSTER, self.leader.address, 0)])
        self.assertIn(f"{self.newcomer.address}: learner, holds 6 of 10 entries", told)

    def test_add_a_learner(self):
        self.grow(voter_at=1_000)
        found = self.client().add(self.newcomer.address, learner=True)
        self.assertIn("is a learner now", found.text)
        self.assertEqual(self.invited[0][2], joining.JOIN_STAYS)

    def test_add_without_waiting(self):
        found = self.client().add(self.newcomer.address, wait=False)
        self.assertFalse(found.done)
        self.assertEqual(len(self.invited), 1)

    def test_add_gives_up_when_nothing_moves(self):
        self.grow(voter_at=1_000, step=0)

        def more_entries(number, before=self.when_looked):
            before(number)
            self.fields["last_index"] = 10 + number     # the load goes on: that is no progress
        self.when_looked = more_entries
        with self.assertRaisesRegex(NoAnswerError, "not a voter yet.*holds 0 of") as caught:
            self.client(timeout_s=0.3).add(self.newcomer.address)
        self.assertFalse(caught.exception.known)

    def test_add_what_is_in_already(self):
        found = self.client().add(self.follower.address)
        self.assertIn("is a voter already", found.text)
        self.assertEqual(self.invited, [])
        with self.assertRaisesRegex(RefusedError, "is a voter already; to make it a learner"):
            self.client().add(self.follower.address, learner=True)
        self.members[1] = MemberStatus(2, self.follower.address, False, True, 10, stays=True)
        self.assertIn("already", self.client().add(self.follower.address, learner=True).text)
        with self.assertRaisesRegex(RefusedError, "learner that stays"):
            self.client().add(self.follower.address)

    def test_add_by_another_name(self):
        """What is said about a node bears the address by which the members know it; it is asked
        where whoever adds it said."""
        name = self.follower.address.replace("127.0.0.1", "localhost")
        found = self.client().add(name)
        self.assertTrue(found.text.startswith(f"{self.follower.address} (node "), found.text)
        self.new.address = "h:9"
        self.looks = 0
        self.grow(voter_at=4)
        found = self.client().add(self.newcomer.address)
        self.assertTrue(found.text.startswith("h:9 (node "), found.text)
        self.assertIn("is a voter now", found.text)

    def test_add_refuses_what_is_not_empty(self):
        contact, address = self.leader.address, self.newcomer.address
        command = f"python3 node.py {address} --join {contact}"
        pair = [MemberStatus(NEW, address, True, True), MemberStatus(5, "h:5", True, True)]
        lone = status(address, NEW, "leader", pair[:1], cluster_id=OTHER)
        for node, invite, words in (
                (status(address, NEW, "leader", pair, cluster_id=OTHER), None, "another cluster"),
                (status(address, NEW, "removed", pair), None, "was removed"),
                (lone, Refuse(ErrorCode.NOT_EMPTY), "NOT_EMPTY")):
            with self.subTest(words):
                self.new, self.invite_outcome = node, invite
                with self.assertRaisesRegex(RefusedError, f"{words}.*{command}"):
                    self.client().add(address)
        self.invite_outcome = None              # a lone founder that has acknowledged nothing
        self.client().add(address, wait=False)

    def test_add_tells_how_to_start_what_does_not_run(self):
        self.newcomer.close()
        address = self.newcomer.address
        with self.assertRaisesRegex(RefusedError,
                                    f"python3 node.py {address} --join {self.leader.address}$"):
            self.client().add(address)
        with self.assertRaisesRegex(RefusedError, f"with: python3 node.py {address}; then add"):
            self.client().add(address, learner=True)

    # --- set

    def test_set_members_waits_for_the_target(self):
        wanted = [self.leader.address, self.newcomer.address]
        told = []

        def look(number):
            if number == 4:
                self.members.append(MemberStatus(NEW, self.newcomer.address, False, True, 7))
            elif number == 6:
                self.members = [self.members[0],
                                MemberStatus(NEW, self.newcomer.address, True, True, 10)]
                self.fields.update(target=[], membership_index=9)
        self.fields["membership_index"] = 8
        self.when_looked = look
        with mock.patch.object(changes, "PROGRESS_S", 0.0):
            found = self.client().set_members(wanted, progress=told.append)
        self.assertEqual(self.asked, [(joining.CHANGE_SET, sorted(wanted))])
        self.assertEqual((found.done, found.members), (True, tuple(sorted(wanted))))
        self.assertIn(f"{self.newcomer.address} is not taken in yet", told[0])
        self.assertIn(f"to be removed then: {self.follower.address}", told[0])
        self.assertIn("learner, holds 7 of 10 entries", told[-1])

    def test_set_members_is_asked_once(self):
        wanted = sorted([self.leader.address, self.newcomer.address])
        self.fields["target"] = list(reversed(wanted))      # asked for earlier
        found = self.client().set_members(wanted, wait=False)
        self.assertEqual((found.done, self.asked), (False, []))
        self.fields["target"] = []
        self.outcomes = [self.done_but(DROP_AFTER)]
        self.client().set_members(wanted, wait=False)
        self.assertEqual(len(self.asked), 1)
        self.fields["target"] = []
        both = [self.leader.address, self.follower.address]
        self.assertTrue(self.client().set_members(both).done)
        self.assertEqual(len(self.asked), 1)

    def test_set_members_waits_for_a_leader_that_has_the_target(self):
        def look(number):
            self.fields.update(target=[], membership_index=7 if number < 5 else 9)
        self.when_looked = look             # the answer named entry 8
        self.client().set_members([self.leader.address])
        self.assertGreaterEqual(self.looks, 5)

    def test_set_members_notices_another_target(self):
        def look(number):
            if number == 4:
                self.fields["target"] = ["h:9"]
        self.fields["membership_index"] = 8
        self.when_looked = look
        with self.assertRaisesRegex(RefusedError, "h:9"):
            self.client().set_members([self.leader.address, self.newcomer.address])

    def test_set_members_refuses_what_is_no_list(self):
        for words in ([], ["h:1", "h:1"], ["nowhere"]):
            with self.subTest(words), self.assertRaises(MalformedError):
                self.client().set_members(words)
        self.assertEqual(self.asked, [])

    # --- the command line

    run_words = CommandLine.run_words

    def test_commands(self):
        self.grow(voter_at=1)
        new, old = self.newcomer.address, self.follower.address
        for words, text in (
                (["add", new], f"{new} (node {NEW:016x}) is a voter now"),
                (["transfer", old], f"{old} leads now"),
                (["transfer", old], f"{old} leads already (term 3)"),
                (["remove", f"{NEW:016X}"], f"{new} (node {NEW:016x}) is removed; its process goes "
                 "on until it is stopped"),
                (["members", "--set", new, "--no-wait"], f"the members are to be {new}: the leader "
                 "works toward it by itself; `members` shows how far it is")):
            with self.subTest(words):
                self.assertEqual(self.run_words(*words), (0, text + "\n", ""))
                self.when_looked = lambda number: None
        self.assertIn(f"asked for by members --set: {new}", self.run_words("members")[1])
        out = json.loads(self.run_words("--json", "transfer", old)[1])
        self.assertEqual((out["done"], out["node_id"], out["index"]),
                         (True, "0000000000000002", 0))
        self.outcomes = [Refuse(ErrorCode.QUORUM_AT_RISK)]
        status_, out, err = self.run_words("remove", old)
        self.assertEqual((status_, out), (1, ""))
        self.assertIn("QUORUM_AT_RISK", err)
        self.outcomes = [Refuse(ErrorCode.CHANGE_UNDER_WAY)] * 100
        status_, _, err = self.run_words("--timeout", "0.3", "remove", old)
        self.assertEqual(status_, 4)
        self.assertIn("surely not executed", err)

    def test_wrong_arguments(self):
        for words in (["add"], ["add", "nowhere"], ["remove", "abc"], ["transfer"],
                      ["members", "--set", "h:1,h:1"], ["members", "--no-wait"]):
            with self.subTest(words):
                self.assertEqual(self.run_words(*words)[0], 2)
        self.assertEqual(self.asked, [])


del CommandLine         # its tests are not to be run from here again


if __name__ == "__main__":
    unittest.main()
