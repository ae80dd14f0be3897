"""Tables and JSON of status and members, from tables of statuses."""

import unittest
from unittest import mock

from raftnet.client import statusview
from raftnet.wire.requests import UNKNOWN_AGE, MemberStatus, NodeStatus


def play() -> NodeStatus:
    """The leader's view: itself, a learner that stays, one that is not heard, and a newcomer at
    the address of that one."""
    members = [MemberStatus(1, "h:1", True, True, 100, 0),
               MemberStatus(2, "h:2", False, True, 50, 7, True, 20, 90, 35),
               MemberStatus(3, "h:3", True, False, 80, 185_000),
               MemberStatus(4, "h:3", False, False, 0, UNKNOWN_AGE)]
    return NodeStatus(b"c" * 16, 1, 1, "leader", 3, 100, 100, 101, 0, 101, 7, True, 0, "h:1", "",
                      "test", members, 101, 1, ["h:1", "h:5"], 160, 800, "it is slow")


class StatusViewTest(unittest.TestCase):
    def test_members(self):
        leader = play()
        found = statusview.members_object(leader.members)
        self.assertEqual([(m["stays"], m["silent_ms"]) for m in found],
                         [(False, 0), (True, 7), (False, 185_000), (False, None)])
        lines = statusview.members_lines(found, "h:1")
        for line, words in zip(lines[1:], ("voter, leader", "learner, stays",
                                           "no, not heard for 3 min 5 s", "no, never heard")):
            self.assertIn(words, line)
        self.assertEqual([(m["rtt_ms"], m["rtt_slow_ms"], m["loss_permille"]) for m in found[:2]],
                         [(None, None, 0), (20, 90, 35)])
        self.assertIn("20 ms (slow 90 ms, 3.5 % lost)", lines[2])

    def test_times_of_the_leader(self):
        view = statusview.status_object({"h:1": play(), "h:2": "h:2: gone"})
        self.assertEqual(view["nodes"][0]["election_timeout_ms"], 800)
        self.assertEqual(statusview.status_lines(view)[3:], [
            "h:1 speaks every 160 ms; followers wait for it 0.8 to 1.6 s (it is slow)"])

    def test_what_is_under_way(self):
        leader = play()
        lines = statusview.changes_lines(leader)
        self.assertIn("index 101, committed is 100", lines[0])
        self.assertIn("asked for by members --set: h:1, h:5: h:5 is not taken in yet", lines[1])
        self.assertIn("to be removed then: h:2, h:3, h:3", lines[1])
        leader.membership_index, leader.target = 100, []
        self.assertEqual(statusview.changes_lines(leader), [])

    def test_status(self):
        newcomer = play()
        newcomer.node_id, newcomer.role, newcomer.address = 4, "removed", "h:3"
        view = statusview.status_object({"h:1": play(), "h:2": "h:2: gone", "h:3": newcomer})
        self.assertEqual((view["leader"], view["membership_index"], view["change_under_way"],
                          view["target"]), ("h:1", 101, True, ["h:1", "h:5"]))
        first, second, third = view["nodes"]
        self.assertEqual((first["stays"], first["silent_ms"], first["membership_index"]),
                         (False, 0, 101))
        self.assertEqual((second["stays"], second["voter"], second["reachable"]),
                         (True, False, False))
        # by its node id, not by its address, which is also another's; four roles outside
        self.assertEqual((third["node_id"], third["voter"], third["role"], third["state"]),
                         (f"{4:016x}", False, "learner", "removed"))
        self.assertIn("removed", statusview.status_lines(view)[3])
        self.assertIsNone(statusview.status_object({"h:2": "h:2: gone"})["target"])

    def test_snapshots_on_their_way(self):
        leader = play()
        leader.members[1].snapshot_bytes, leader.members[1].snapshot_size = 40 * 10**6, 112 * 10**6
        leader.log_bytes, leader.note = 1_000, "making a snapshot up to entry 90"
        newcomer = NodeStatus(b"c" * 16, 4, 1, "learner", 3, 0, 0, 0, 0, 0, 7, False, 0, "h:4",
                              "h:1", "test", [], disk_full=True, snapshot_bytes=5, snapshot_size=9,
                              note="receiving a snapshot up to entry 90")
        view = statusview.status_object({"h:1": leader, "h:2": "h:2: gone", "h:4": newcomer})
        names = ("snapshot_bytes", "snapshot_size", "log_bytes", "disk_full", "note")
        self.assertEqual([[node[name] for name in names] for node in view["nodes"]], [
            [0, 0, 1_000, False, "making a snapshot up to entry 90"],
            [40 * 10**6, 112 * 10**6, None, None, None],
            [5, 9, 0, True, "receiving a snapshot up to entry 90"]])
        self.assertEqual(statusview.status_lines(view)[-3:], [
            "h:1: making a snapshot up to entry 90",
            "h:2: 40.0 of 112.0 MB of the snapshot are there",
            "h:4: receiving a snapshot up to entry 90; 5 of 9 bytes of the snapshot are there; its "
            "disk is full"])
        self.assertEqual([(m["snapshot_bytes"], m["snapshot_size"])
                          for m in statusview.members_object(leader.members)][:2],
                         [(0, 0), (40 * 10**6, 112 * 10**6)])
        self.assertIn("h:2 is behind the log and is being sent the snapshot: 40.0 of 112.0 MB",
                      statusview.changes_lines(leader))
        self.assertIn("being sent the snapshot", statusview.held_text(leader.members[1], leader))
        leader.members[1].snapshot_bytes = 112 * 10**6
        self.assertIn("has all 112.0 MB of the snapshot, and is verifying it",
                      statusview.changes_lines(leader)[1])
        # what the leader knows written there counts before what has come there
        newcomer.node_id = 2
        found = statusview.status_object({"h:1": leader, "h:4": newcomer})["nodes"][1]
        self.assertEqual(found["snapshot_size"], 112 * 10**6)

    def test_shares(self):
        for part, whole, text in ((0, 9_000, "0 bytes of 9.0 kB"), (1, 2, "1 of 2 bytes"),
                                  (999_000, 10**6, "999.0 kB of 1.0 MB"),
                                  (10**9, 2 * 10**9, "1.0 of 2.0 GB")):
            self.assertEqual(statusview.share_text(part, whole), text)

    def test_a_node_that_heals(self):
        node = NodeStatus(bytes(16), 9, 1, "joining", 0, 0, 0, 0, 0, 0, 0, False, 0, "h:1", "",
                          "test", [], note="its files", healing_contacts=["h:2"])
        with mock.patch.object(statusview, "_ask", lambda address, _: node if address == "h:1"
                               else f"{address}: gone"):
            found = statusview.ask_all(["h:1"], 1.0, follow=True)
        self.assertEqual(set(found), {"h:1", "h:2"})
        view = statusview.status_object(found)
        self.assertEqual([(n["healing_contacts"], n["note"]) for n in view["nodes"]],
                         [(["h:2"], "its files"), (None, None)])
        self.assertEqual(statusview.status_lines(view)[-1], "h:1: its files")


if __name__ == "__main__":
    unittest.main()
