"""`why`: tables of what nodes say, and what is found in them."""

import copy
import json
import socket
import time
import unittest
from unittest import mock

from raftnet.client import memberactions
from raftnet.client.picture import Look
from raftnet.client.statusview import duration
from raftnet.client.why import explain, look_around
from raftnet.raft.membership import QuorumRule
from raftnet.wire.requests import MemberStatus, NodeStatus
from tests.client.fakenode import FakeCluster
from tests.client.test_commandline import CommandLineTest as CommandLine

OURS, OTHER, NONE = b"c" * 16, b"d" * 16, bytes(16)
REFUSED = "connection refused"


def address(number: int) -> str:
    return f"h:{number}"


class Play:
    """A cluster of nodes 1 to `count` at h:1, h:2, ...; node 1 leads; all is well at first."""

    def __init__(self, count: int = 3, learners: int = 0, rule: int = QuorumRule.MAJORITY):
        self.statuses: dict[str, NodeStatus | str] = {}
        self.said: dict[str, str] = {}
        self.servers = [address(n) for n in range(1, count + 1)]
        for number in range(1, count + learners + 1):
            members = [MemberStatus(n, address(n), n <= count, True, 100, 5)
                       for n in range(1, count + learners + 1)]
            self.statuses[address(number)] = NodeStatus(
                OURS, number, 1, "leader" if number == 1 else "follower", 3, 100, 100, 100, 0, 100,
                7, True, rule, address(number), "" if number == 1 else "h:1", "test", members, 2)

    def node(self, number: int) -> NodeStatus:
        return self.statuses[address(number)]

    def member(self, number: int, at: int = 1) -> MemberStatus:
        """How node `at` sees a member."""
        return next(m for m in self.node(at).members if m.node_id == number)

    def kill(self, number: int, silent_ms: int = 185_000) -> None:
        """It does not answer, and no other hears it."""
        self.statuses[address(number)] = f"{address(number)}: {REFUSED}"
        for status in self.statuses.values():
            for member in status.members if isinstance(status, NodeStatus) else ():
                if member.node_id == number:
                    member.reachable, member.silent_ms = False, silent_ms

    def follow(self, **fields) -> None:
        """The same on every node that answers."""
        for status in self.statuses.values():
            for name, value in fields.items():
                if isinstance(status, NodeStatus):
                    setattr(status, name, value)

    def look(self) -> Look:
        return Look(self.servers, copy.deepcopy(self.statuses), dict(self.said))


class WhyTest(unittest.TestCase):
    def find(self, play: Play, earlier: Look | None = None) -> list:
        self.findings = explain(play.look(), earlier)
        return self.findings

    def assert_found(self, findings: list, *kinds: str) -> None:
        """These kinds, in this order."""
        self.assertEqual([finding.kind for finding in findings], list(kinds),
                         [finding.line for finding in findings])

    def assert_first(self, findings: list, kind: str, *words: str, wrong: bool = True) -> None:
        """The first finding, with all of these words."""
        first = findings[0]
        self.assertEqual((first.kind, first.wrong), (kind, wrong), first.line)
        for word in words:
            self.assertIn(word, first.line)

    # --- all is well

    def test_all_well(self):
        findings = self.find(Play())
        self.assert_found(findings, "all_well")
        self.assert_first(findings, "all_well", "nothing stands still: h:1 leads in term 3, 3 of 3 "
                          "voters are heard, 1 more may fail", wrong=False)

    def test_nobody_answers(self):
        play = Play()
        play.statuses = {a: f"{a}: {REFUSED}" for a in play.servers}
        self.assert_first(self.find(play), "nobody_answers", "h:2: connection refused",
                          "python3 node.py h:1")

    # --- what stops the whole cluster

    def test_no_quorum(self):
        play = Play()
        play.node(1).role = "follower"
        play.kill(2)
        play.kill(1, 4_000)
        self.assert_first(self.find(play), "no_quorum", "1 of 3 voters run and 2 are needed",
                          "h:1 (connection refused, not heard for 4 s)",
                          "h:2 (connection refused, not heard for 3 min 5 s)", "Start 1 more")
        self.assert_found(self.findings, "no_quorum")

    def test_no_quorum_by_the_assignments_rule(self):
        play = Play(rule=QuorumRule.HALF_ROUNDED_UP_PLUS_ONE)
        play.kill(3)
        self.assert_first(self.find(play), "no_quorum", "2 of 3 voters run and 3 are needed",
                          "half-rounded-up-plus-one", "a majority would be 2")
        self.assert_found(self.findings, "no_quorum", "tolerates_nothing")

    def test_a_leader_that_hears_no_quorum_is_none(self):
        play = Play()
        for number in (2, 3):
            play.member(number).reachable = False
            play.node(number).role = "candidate"
            play.node(number).leader = ""
        self.assert_first(self.find(play), "no_leader", "h:1 does not hear h:2", "firewalls")

    def test_no_leader_though_a_quorum_runs(self):
        play = Play()
        play.kill(1)
        for number in (2, 3):
            play.node(number).leader = ""
        self.assert_first(self.find(play), "no_leader", "2 of 3 voters run and 2 are enough",
                          "h:2 in term 3", "election")

    def test_a_leader_that_only_the_others_reach(self):
        play = Play()
        play.statuses["h:1"] = "h:1: no answer in time"
        self.assert_first(self.find(play), "leader_unreachable", "h:1 leads", "no answer in time")

    def test_a_leader_that_too_few_follow_is_not_named(self):
        play = Play(5)
        play.statuses["h:1"] = "h:1: no answer in time"
        for number in (3, 4, 5):
            play.node(number).leader = ""
        self.assert_first(self.find(play), "no_leader")

    def test_it_is_about_the_cluster_whose_members_answer(self):
        play = Play(1)
        gone = Play(3).node(1)              # names more members, and is none of them itself
        gone.cluster_id, gone.node_id, gone.address = OTHER, 50, "h:9"
        play.statuses["h:9"] = gone
        self.assert_first(self.find(play), "other_cluster", "at h:9", "64646464")

    def test_what_is_wrong_comes_first(self):
        play = Play(3, 1)
        play.follow(last_index=20_000, stable_index=20_000)
        play.node(2).applied_index = 90
        before = play.look()
        play.member(4).match_index = 110
        self.assert_found(self.find(play, before), "apply_stands", "learner_behind")

    def test_different_states(self):
        play = Play()
        play.node(3).digest = 8
        self.assert_first(self.find(play), "states_differ", "h:1 and h:3", "00000007")

    def test_founding(self):
        play = Play()
        play.statuses = {"h:1": NodeStatus(NONE, 1, 1, "founding", 0, 0, 0, 0, 0, 0, 0, False, 0,
                                           "h:1", "", "test", []),
                         "h:2": f"h:2: {REFUSED}"}
        play.said = {"h:1": "founding waits for h:2, h:3"}
        self.assert_first(self.find(play), "founding_waits", "founding waits for h:2, h:3",
                          "--cluster")
        play = Play()
        play.follow(founded=False)
        play.kill(3)
        self.assert_first(self.find(play), "founding_incomplete", "still to be heard: h:3")

    # --- single nodes

    def test_a_member_that_is_not_heard(self):
        play = Play()
        play.kill(2)
        self.assert_first(self.find(play), "not_heard", "h:2 (voter) is not heard for 3 min 5 s",
                          "2 of 3 voters are heard, 2 are needed: no further one may fail",
                          "python3 node.py h:2", "mqclient.py remove h:2")
        play.statuses["h:2"] = "h:2: no answer in time"
        self.assert_first(self.find(play), "not_heard", "hangs or is suspended")
        play = Play(5)
        play.kill(2, 0xFFFFFFFF)
        self.assert_first(self.find(play), "not_heard", "never heard", "1 more may fail")

    def test_between_leader_and_member(self):
        play = Play()
        play.member(3).reachable = False
        self.assert_first(self.find(play), "not_heard_by_leader", "h:3", "h:1", "network")
        play = Play()
        play.statuses["h:3"] = "h:3: no answer in time"
        self.assert_found(self.find(play), "all_well", "not_reached_from_here")

    def test_learners(self):
        play = Play(3, 1)
        play.member(4).match_index = 40
        before = play.look()
        self.assert_first(self.find(play), "learner_stuck", "holds 40 of 100 entries")
        self.assert_first(self.find(play, before), "learner_stuck")
        play.member(4).match_index = 60
        self.assert_found(self.find(play, before), "all_well")
        play.follow(last_index=20_000, stable_index=20_000)
        self.assert_found(self.find(play, before), "all_well", "learner_behind")
        self.assertIn("20 more", self.findings[1].line)
        play.kill(4)
        self.assert_first(self.find(play, before), "not_heard", "h:4 (learner)", "no quorum")

    def test_a_learner_that_is_not_promoted(self):
        play = Play(3, 1)
        self.assert_first(self.find(play), "not_promoted")
        self.assert_first(self.find(play, play.look()), "not_promoted", "h:4", "no voter yet")
        play.member(4).stays = True
        self.assert_found(self.find(play, play.look()), "all_well")

    def test_after_a_new_election_progress_counts_anew(self):
        play = Play(3, 1)
        before = play.look()
        play.follow(term=4)
        play.member(4).match_index = 0
        self.assert_found(self.find(play, before), "all_well")

    def test_a_voter_that_gets_no_more(self):
        play = Play()
        play.member(2).match_index = 90
        before = play.look()
        self.assert_first(self.find(play), "voter_stuck", "lags 10 entries behind")
        self.assert_first(self.find(play, before), "voter_stuck")
        play.member(2).match_index = 95
        self.assert_found(self.find(play, before), "all_well")

    def test_slow_disk_and_apply(self):
        play = Play()
        play.node(2).stable_index = 90
        before = play.look()
        self.assert_first(self.find(play, before), "disk_stands", "the disk of h:2", "10 entries")
        play.node(2).stable_index = 95
        self.assert_found(self.find(play, before), "all_well")
        play = Play()
        play.node(3).applied_index = 90
        before = play.look()
        self.assert_first(self.find(play, before), "apply_stands", "h:3", "10 entries")
        play.node(3).applied_index = 95
        self.assert_found(self.find(play, before), "all_well")

    def test_a_stuck_change(self):
        play = Play()
        play.node(1).membership_index = 101
        before = play.look()
        self.assert_first(self.find(play), "change_stuck")
        self.assert_first(self.find(play, before), "change_stuck", "entry 101", "committed are 100",
                          "h:2, h:3")
        play.node(1).membership_index = 103
        self.assert_found(self.find(play, before), "all_well")

    def test_a_target_that_is_not_reached(self):
        play = Play()
        play.node(1).target = ["h:1", "h:2", "h:9"]
        play.statuses["h:9"] = f"h:9: {REFUSED}"
        before = play.look()
        self.assert_first(self.find(play, before), "target_not_reached", "h:9 is not taken in yet",
                          "to be removed then: h:3", "no answer from h:9 (connection refused)",
                          "python3 node.py h:9 --join h:1")
        play.node(1).membership_index = 50
        self.assert_first(self.find(play, before), "target_not_reached")     # moves, and cannot
        # one more that moves is no reason to say that it stands
        play = Play(3, 1)
        play.node(1).target = ["h:1", "h:2", "h:4"]
        play.member(4).match_index = 10
        before = play.look()
        self.assert_found(self.find(play), "target_not_reached", "learner_stuck")
        play.member(4).match_index = 20
        self.assert_found(self.find(play, before), "all_well", "target_not_reached")

    def test_a_target_by_another_name_of_a_member(self):
        play = Play()
        play.node(1).target = ["h:1", "h:2", "x:3"]
        play.statuses["x:3"] = play.node(3)
        for before in (None, play.look()):
            self.assert_first(self.find(play, before), "target_not_reached",
                              "x:3 is the node h:3", "ask for that one")

    def test_tolerance(self):
        for count, rule, enough in ((3, QuorumRule.HALF_ROUNDED_UP_PLUS_ONE, 4),
                                    (2, QuorumRule.MAJORITY, 3), (1, QuorumRule.MAJORITY, 3)):
            with self.subTest(count=count):
                findings = self.find(Play(count, rule=rule))
                self.assert_found(findings, "all_well", "tolerates_nothing")
                self.assertIn(f"With {enough} voters", findings[1].line)
                self.assertEqual("assignment" in findings[1].line, count == 3)
        self.assert_found(self.find(Play(4, rule=QuorumRule.HALF_ROUNDED_UP_PLUS_ONE)), "all_well")

    # --- snapshots, full disks, damage

    def test_a_member_that_is_sent_the_snapshot(self):
        for number, learners in ((2, 0), (4, 1)):
            with self.subTest(learners=learners):
                play = Play(3, learners)
                play.follow(last_index=20_000, commit_index=20_000, applied_index=20_000,
                            stable_index=20_000)
                for member in play.node(1).members:
                    member.match_index = 20_000
                member = play.member(number)
                member.match_index, member.snapshot_size = 0, 112 * 10**6
                member.snapshot_bytes = 40 * 10**6
                before = play.look()
                self.assert_first(self.find(play), "installing")
                self.assert_found(self.find(play, before), "installing")
                self.assert_first(self.findings, "installing", f"h:{number} is behind the log and "
                                  "is being sent the snapshot: 40.0 of 112.0 MB", "waiting for")
                member.snapshot_bytes = 50 * 10**6
                self.assert_found(self.find(play, before), "all_well", "installing")
                self.assertEqual(self.findings[1].advice, "")
                member.snapshot_bytes = 112 * 10**6
                self.assert_found(self.find(play, play.look()), "all_well", "installing")
                self.assertIn("is verifying it", self.findings[1].line)
                play.kill(number)               # what was sent so far does not count then
                self.assert_found(self.find(play, before), "not_heard")

    def test_a_target_that_waits_for_a_snapshot_moves(self):
        play = Play(3, 1)
        play.node(1).target = ["h:1", "h:2", "h:4"]
        play.member(4).match_index, play.member(4).snapshot_size = 0, 90
        before = play.look()
        play.member(4).snapshot_bytes = 10
        self.assert_found(self.find(play, before), "all_well", "installing", "target_not_reached")
        self.assertIn("10 of 90 bytes", self.findings[2].line)

    def test_a_full_disk(self):
        play = Play()
        play.node(2).disk_full, play.node(2).stable_index = True, 90
        play.member(2).match_index = 90
        self.assert_found(self.find(play, play.look()), "disk_full")
        self.assert_first(self.findings, "disk_full", "the disk of h:2 is full. Free space there; "
                          "it goes on by itself")
        play = Play()
        play.node(1).disk_full = True
        self.assert_first(self.find(play), "disk_full", "the disk of h:1 is full, and it leads")
        play.node(1).role = "follower"
        play.node(1).leader = play.node(2).leader = play.node(3).leader = ""
        self.assert_found(self.find(play), "no_leader", "disk_full")
        self.assert_first(self.findings, "no_leader", "no election: free space at h:1")
        play = Play(3, 1)
        play.node(4).disk_full = True
        play.member(4).match_index = 90
        self.assert_found(self.find(play, play.look()), "disk_full")

    def heal(self, play: Play, *numbers: int) -> None:
        """These were damaged, and ask the other members to be taken in."""
        for number in numbers:
            contacts = [a for a in play.servers if a != address(number)]
            self.answer(play, number, node_id=90 + number, role="joining", cluster_id=NONE,
                        members=[], healing_contacts=contacts)

    def depose(self, play: Play) -> None:
        for status in play.statuses.values():
            if isinstance(status, NodeStatus) and status.members:
                status.role, status.leader = "follower", ""

    def test_a_node_that_heals(self):
        play = Play()
        self.heal(play, 3)
        self.assert_first(self.find(play), "heals")
        self.assert_found(self.find(play, play.look()), "heals")
        self.assert_first(self.findings, "heals", "h:3 has set damaged files aside and asks to be "
                          "taken in; 2 of 3 voters are heard", "no further one may fail",
                          "its log says why")
        self.assert_found(self.find(play, Play().look()), "all_well", "heals")     # came just now
        play = Play()
        self.heal(play, 7)              # and was removed meanwhile, as who it was
        self.assert_found(self.find(play, play.look()), "heals")
        self.assertNotIn("voters are heard", self.findings[0].line)
        play = Play(5)
        play.kill(1)
        self.heal(play, 2)
        self.depose(play)
        self.assert_found(self.find(play), "no_leader", "heals")
        self.assertIn("h:2 has set damaged files aside and asks to be taken in: needs a leader",
                      self.findings[1].line)

    def test_a_quorum_without_those_that_heal(self):
        play = Play()
        play.kill(2)
        self.heal(play, 3)
        self.depose(play)
        self.assert_found(self.find(play), "no_quorum", "heals")
        self.assert_first(self.findings, "no_quorum", "missing: h:2 (connection refused",
                          "Start 1 more", "python3 node.py h:2")
        self.assertNotIn("h:3 (", self.findings[0].line)

    def test_a_quorum_that_is_lost(self):
        play = Play()
        self.heal(play, 2, 3)
        self.depose(play)
        self.assert_found(self.find(play), "quorum_lost")
        self.assert_first(self.findings, "quorum_lost", "no leader is possible any more",
                          "(h:2, h:3); left with what they held: 1, needed: 2", "backup",
                          "all that h:1 holds", "--restore", "README")
        self.assertNotIn("may hold more", self.findings[0].line)
        play = Play(5)
        self.heal(play, 2, 3, 4)
        play.kill(5)
        self.depose(play)
        play.node(1).quorum_rule = QuorumRule.HALF_ROUNDED_UP_PLUS_ONE
        self.assert_first(self.find(play), "quorum_lost", "a majority would be 3",
                          "(h:5, not running, may hold more)")

    def test_nobody_but_nodes_that_heal(self):
        play = Play()
        self.heal(play, 1, 2, 3)
        self.assert_found(self.find(play), "quorum_lost")
        self.assert_first(self.findings, "quorum_lost", "h:1, h:2, h:3 set damaged files aside",
                          "out of a backup: node.py --restore, see README")
        play.kill(2)
        self.assert_found(self.find(play), "quorum_lost")
        self.assert_first(self.findings, "quorum_lost", "no answer from h:2 (connection refused)",
                          "python3 node.py h:2", "--restore")

    # --- who answers where another was expected

    def answer(self, play: Play, number: int, **fields) -> None:
        """Another node answers at that address."""
        play.kill(number)
        other = NodeStatus(OURS, 99, 1, "follower", 3, 9, 9, 9, 0, 9, 7, True, 0, address(number),
                           "", "test", [MemberStatus(99, address(number), True, True),
                                        MemberStatus(98, "x:1", True, True)])
        for name, value in fields.items():
            setattr(other, name, value)
        play.statuses[address(number)] = other

    def test_a_node_of_another_cluster(self):
        play = Play()
        self.answer(play, 3, cluster_id=OTHER)
        self.assert_found(self.find(play), "other_cluster", "not_heard")
        self.assert_first(self.findings, "other_cluster", "at the address of member h:3", "x:1",
                          "64646464")
        self.assertIn("another node answers there", self.findings[1].line)
        play = Play()
        play.servers.append("h:7")
        self.answer(play, 7, cluster_id=OTHER)
        self.assert_first(self.find(play), "other_cluster", "at h:7", "list of servers")

    def test_a_lone_founder(self):
        play = Play()
        self.answer(play, 3, cluster_id=OTHER, role="leader",
                    members=[MemberStatus(99, "h:3", True, True)])
        self.assert_first(self.find(play), "lone_founder", "h:3", "python3 node.py h:3 --join h:1")

    def test_another_node_id(self):
        play = Play()
        self.answer(play, 3, cluster_id=NONE, role="joining", members=[])
        self.assert_first(self.find(play), "other_node", "at the address of member h:3 (node "
                          "0000000000000003) answers node 0000000000000063, joining")
        self.assert_found(self.findings, "other_node", "not_heard")

    def test_an_emptied_directory_that_is_taken_in_again(self):
        play = Play()
        self.answer(play, 3)
        for number in (1, 2):
            play.node(number).members.append(MemberStatus(99, "h:3", False, True, 50, 5))
        before = play.look()
        play.member(99).match_index = 70
        self.assert_found(self.find(play, before), "all_well", "emptied")
        self.assertIn("takes the old one's place", self.findings[1].line)
        play.member(99).reachable = False       # not heard yet
        self.assert_found(self.find(play), "not_heard_by_leader", "emptied")
        play.kill(3)                            # gone too: nobody takes that place
        self.assert_found(self.find(play), "not_heard", "not_heard")

    def test_one_node_twice(self):
        play = Play()
        play.statuses["h:9"] = copy.deepcopy(play.node(3))
        play.statuses["h:9"].address = "h:9"
        self.assert_first(self.find(play), "one_node_twice", "h:3 and h:9", "0000000000000003")
        # one node asked under two names is one
        play.statuses["h:9"].address = "h:3"
        self.assert_found(self.find(play), "all_well")

    def test_a_moved_node(self):
        play = Play()
        play.statuses["h:9"] = play.node(3)
        play.statuses["h:9"].address = "h:9"
        play.statuses["h:3"] = f"h:3: {REFUSED}"
        self.assert_first(self.find(play), "moved", "member h:3 runs at h:9")

    def test_removed_and_not_yet_taken_in(self):
        play = Play()
        self.answer(play, 7, role="removed")
        self.assert_found(self.find(play), "all_well", "removed_runs")
        play = Play()
        self.answer(play, 7, role="joining", cluster_id=NONE, members=[])
        play.said["h:7"] = "this node asks h:8 to be taken in"
        self.assert_first(self.find(play, play.look()), "not_taken_in", "asks h:8",
                          "mqclient.py add h:7")
        self.assert_found(self.find(play, Play().look()), "all_well")

    def test_a_server_that_is_no_member(self):
        play = Play()
        play.servers.append("h:7")
        play.statuses["h:7"] = f"h:7: {REFUSED}"
        self.assert_found(self.find(play), "all_well", "server_unknown")

    def test_durations(self):
        for ms, text in ((0, "0 ms"), (999, "999 ms"), (1_000, "1 s"), (60_000, "1 min"),
                         (185_000, "3 min 5 s"), (7_260_000, "2 h 1 min"),
                         (90_000_000, "1 d 1 h"), (86_400_000, "1 d")):
            self.assertEqual(duration(ms), text)


class WhyCommandTest(unittest.TestCase):
    """The command, against nodes played in this process."""

    run_words = CommandLine.run_words

    def setUp(self):
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader, self.follower, third = (self.cluster.node() for _ in range(3))
        self.third = third

    def test_command(self):
        # all three play node 7, which is a member of none: only the way of the command counts
        with mock.patch.object(memberactions.reasons, "explain",
                               lambda look, earlier=None: explain(Play().look())):
            status, out, err = self.run_words("why")
            self.assertEqual((status, out[:21], err), (0, "nothing stands still:", ""))
            (found,) = json.loads(self.run_words("--json", "why")[1])
            self.assertEqual((found["kind"], found["wrong"]), ("all_well", False))
        looks = []

        def explain_dead(look, earlier=None):
            looks.append(earlier)
            play = Play()
            play.kill(2)
            return explain(play.look(), earlier and play.look())
        with (mock.patch.object(memberactions.reasons, "explain", explain_dead),
              mock.patch.object(memberactions, "SECOND_LOOK_S", 0.0)):
            status, out, _ = self.run_words("why")
        self.assertEqual((status, len(out.splitlines()), len(looks)), (1, 1, 2))

    def test_nobody(self):
        for node in self.cluster.nodes:
            node.close()
        status, out, _ = self.run_words("why")
        self.assertEqual(status, 4)
        self.assertIn("no node answers", out)

    def test_the_time_limit_is_kept(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            servers = f"{self.follower.address},127.0.0.1:{silent.getsockname()[1]}"
            for word in ("why", "status"):
                began = time.monotonic()
                self.run_words("--timeout", "0.8", "-s", servers, word)
                self.assertLess(time.monotonic() - began, 1.2, word)

    def test_look_around_follows_members(self):
        look = look_around([self.follower.address], 5.0)
        self.assertEqual(set(look.answered), {node.address for node in self.cluster.nodes})


del CommandLine         # its tests are not to be run from here again


if __name__ == "__main__":
    unittest.main()
