"""Each scenario gives the trace that was written down; a core that is broken gives another."""

import contextlib
import difflib
import inspect
import io
import tempfile
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from raftnet.raft import changes, election, install, leader, transfer
from raftnet.raft.core import Raft
from raftnet.raft.log import RaftLog
from raftnet.raft.progress import Progress
from tests.scenarios import __main__ as command
from tests.scenarios.interpreter import FOLDER, INDENT, paths, run

# (what is broken, whose function, its name, what is replaced, by what, scenarios that must tell)
BREAKS = (
    ("entries of an older term are committed by counting", leader, "maybe_commit",
     " or log.term_at(index) != raft.current_term", "", ["figure_8", "figure_8_e"]),
    ("the leader counts its copy before the sync", leader, "maybe_commit",
     "log.stable_index", "log.last_index", ["slow_disk_leader"]),
    ("a learner counts in the quorum", leader, "maybe_commit",
     " if member.voter", "", ["learner_promotion"]),
    ("the epoch of a job is ignored", Raft, "advance",
     "epoch == log.epoch and ", "", ["late_sync", "late_sync_two_leaders"]),
    ("storage is not told that entries are annulled", RaftLog, "truncate",
     "self.rewound = True", "self.rewound = False", ["restored_entry", "figure_7"]),
    ("a vote is given to a shorter log", RaftLog, "is_up_to_date",
     "(last_term, last_index) >= (self.last_term, self.last_index)", "True",
     ["figure_7", "figure_8_e", "withheld_vote"]),
    ("votes are not withheld", election, "is_withheld",
     "raft.leader_id != 0", "False", ["withheld_vote", "pre_vote_returning_node"]),
    ("a vote request leaves before its sync", election, "_campaign",
     "send_after_sync", "send", ["vote_waits_for_sync"]),
    ("a read needs no quorum", leader, "_release_reads",
     "rounds[membership.quorum - 1]", "raft.read_round", ["read_index"]),
    ("no check-quorum", leader, "tick",
     "raft.now_ms >= quorum_deadline_ms(raft) or ", "", ["check_quorum"]),
    ("founded without the last founder", changes, "maintain",
     "match_index >= 1 for", "match_index >= 0 for", ["founding"]),
    ("a lost fast election is not tried again soon", Raft, "leader_gone",
     "self.gone_attempts = 1", "self.gone_attempts = 0", ["leader_gone"]),
    ("a transfer's vote is withheld", Raft, "step",
     " and not message.transfer", "", ["transfer"]),
    ("the target of a transfer is not caught up first", transfer, "press",
     "progress.match_index == raft.log.last_index", "True", ["transfer"]),
    ("a removed leader goes without a word", changes, "_hand_over",
     "if successor:", "if False:", ["leader_removal"]),
    ("a removed leader that alone holds its removal does not campaign", election, "may_campaign",
     "log.membership_index > log.commit_index", "False", ["leader_removal_crash"]),
    ("an old identity goes before its newcomer has caught up", changes, "_end_twins",
     "prevails = _has_caught_up(raft, twin)", "prevails = True", ["emptied_directory"]),
    ("members go before every target is a voter", changes, "_approach_target",
     "if member is None or not member.voter:", "if False:", ["target"]),
    ("a follower behind the memory is not fed from the file", leader, "send_appends",
     "message.from_file = True", "pass", ["slow_follower_from_file"]),
    ("a hole in a snapshot waits for a timeout", Progress, "chunk_answered",
     "next_offset < offset", "False", ["snapshot"]),
    ("a new leader sends a snapshot from the start", Progress, "chunk_answered",
     "next_offset > self.snapshot_offset", "False", ["snapshot"]),
    ("an install is acknowledged before it is durable", install, "begin_at_verified",
     "raft.send_after_sync", "raft.send", ["snapshot"]),
    ("the members stay as the log had them", RaftLog, "restore",
     "self._begin_memberships(meta)", "self._memberships = [(1, NO_MEMBERSHIP)]", ["snapshot"]),
)


def broken(owner, name: str, old: str, new: str):
    """A patch: that function with `old` in its text replaced."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"{name} has changed: {old!r} is not in it"
    scope: dict = {}
    exec(compile(source.replace(old, new, 1), name, "exec"), function.__globals__, scope)
    return mock.patch.object(owner, name, scope[name])


class TestScenarios(unittest.TestCase):
    """All files of the folder."""

    def test_traces_are_as_written(self):
        self.assertGreaterEqual(len(paths()), 21)
        for path in paths():
            with self.subTest(scenario=path.stem):
                old = path.read_text(encoding="utf-8")
                new, _ = run(old)
                self.assertEqual(old, new, "\n" + "".join(difflib.unified_diff(
                    old.splitlines(True), new.splitlines(True), path.name, "now")))

    def test_each_opens_with_what_it_shows_and_its_section(self):
        for path in paths():
            first = path.read_text(encoding="utf-8").splitlines()[0]
            self.assertRegex(first, r"^# (Raft \d|Thesis \d|Design, )", path.name)

    def test_a_broken_core_changes_the_trace(self):
        for what, owner, name, old, new, scenarios in BREAKS:
            for scenario in scenarios:
                with self.subTest(what, scenario=scenario):
                    text = (FOLDER / f"{scenario}.txt").read_text(encoding="utf-8")
                    with broken(owner, name, old, new):
                        self.assertFalse(run(text)[0] == text, "the trace is the same")
                    self.assertEqual(run(text)[0], text, "the break has outlived its test")

    def test_every_scenario_tells_of_some_break(self):
        told = {scenario for *_, scenarios in BREAKS for scenario in scenarios}
        self.assertEqual(told, {path.stem for path in paths()})


class TestInterpreter(unittest.TestCase):
    """What the files may say, and what is made of it."""

    def test_trace_is_written_under_its_command_and_old_trace_forgotten(self):
        text = f"# why\n\nnodes 1\n{INDENT}old\nstatus\n\n# end\n"
        new, sound = run(text)
        self.assertTrue(sound)
        self.assertEqual(new, "# why\n\nnodes 1\nstatus\n    1 is follower in term 1, vote 0,"
                              " log 1, durable 1, committed 0\n\n# end\n")
        self.assertEqual(run(new)[0], new)

    def test_refusals_are_trace(self):
        self.assertIn("    refused NotLeaderError", run("nodes 1 2\npropose 1 x\n")[0])

    def test_what_is_not_understood_names_its_line(self):
        for line in ("dance 1", "deliver 1", "limit nonsense 1", "campaign", "campaign 9",
                     "membership 1 drop 2", "deliver 1->2 Nothing", "deliver 1->2 1 2"):
            with self.subTest(line), self.assertRaisesRegex(ValueError, f"line 2: {line}"):
                run(f"nodes 1 2\n{line}\n")

    def test_a_broken_assertion_ends_the_trace(self):
        with mock.patch.object(Raft, "tick", side_effect=AssertionError("term went back")):
            text, sound = run("nodes 1 2\ntick * 5\nstatus\n")
        self.assertFalse(sound)
        self.assertEqual(text, "nodes 1 2\ntick * 5\n    assertion broken: term went back\n")


class TestCommand(unittest.TestCase):
    """`python3 -m tests.scenarios`."""

    def call(self, path: Path, *arguments: str) -> tuple[int, str]:
        """Its exit status and output, where that file is the only scenario."""
        output = io.StringIO()
        with (mock.patch.object(command, "paths", lambda: [path]),
              mock.patch("sys.argv", ["scenarios", *arguments]),
              contextlib.redirect_stdout(output)):
            status = command.main()
        return status, output.getvalue()

    def test_compares_and_rewrites(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.txt"
            path.write_text("nodes 1\ncampaign 1\n    1 is wrong\ndisk 1\n", encoding="utf-8")
            status, output = self.call(path)
            self.assertEqual(status, 1)
            self.assertIn("-    1 is wrong\n+    1 is candidate in term 2\n", output)
            self.assertEqual(self.call(path, "--rewrite"), (
                0, "rewritten: one.txt\n1 scenarios, 1 rewritten, 0 with a broken assertion\n"))
            self.assertIn("    1 is leader in term 2", path.read_text(encoding="utf-8"))
            self.assertEqual(self.call(path), (
                0, "1 scenarios, 0 different, 0 with a broken assertion\n"))

    def test_a_broken_assertion_is_never_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.txt"
            path.write_text("nodes 1\ncampaign 1\n", encoding="utf-8")
            with mock.patch.object(Raft, "tick", side_effect=AssertionError("no")):
                status, output = self.call(path, "--rewrite")
            self.assertEqual(status, 1)
            self.assertIn("broken: one.txt: assertion broken: no; not written", output)
            self.assertEqual(path.read_text(encoding="utf-8"), "nodes 1\ncampaign 1\n")


if __name__ == "__main__":
    unittest.main()
