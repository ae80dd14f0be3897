"""mqclient as a process, and the prompt, against nodes played in this process."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from raftnet.client import Client
from raftnet.client.commandline import main
from raftnet.client.entries import entry_lines
from raftnet.client.output import Output
from raftnet.client.shell import Prompt, split_line
from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import ErrorCode
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.wire.commands import STATE_VERSION
from tests.client import fakenode
from tests.client.fakenode import FakeCluster, Refuse

ROOT = Path(__file__).resolve().parents[2]


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader = self.cluster.node()
        self.follower = self.cluster.node()

    def start(self, *words, **options) -> subprocess.Popen:
        """mqclient with the follower as its server, so that every command is redirected."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "mqclient.py"), *words], cwd=ROOT,
            env=os.environ | {"RAFTNET_SERVERS": self.follower.address}, **options)
        self.addCleanup(self.reap, process)
        return process

    @staticmethod
    def reap(process: subprocess.Popen) -> None:
        process.kill()
        process.communicate()

    def run_words(self, *words, given: bytes = b"") -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of the command line, run in this process for speed."""
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        words = [os.fsdecode(word) for word in words]
        with tempfile.TemporaryFile("w+") as file:
            file.buffer.write(given)
            file.seek(0)
            with (mock.patch.object(sys, "stdin", file),
                  mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err),
                  mock.patch.dict(os.environ, RAFTNET_SERVERS=self.follower.address)):
                try:
                    status = main(words)
                except SystemExit as error:
                    status = error.code
        return status, out.buffer.getvalue().decode("utf-8", "surrogateescape"), err.getvalue()

    def test_as_a_process(self):
        process = self.start("enqueue", "hello", b"\xff")
        self.assertEqual(process.communicate(timeout=20), (b"1\n2\n", b""))
        process = self.start("dequeue", "-n", "2")
        self.assertEqual(process.communicate(timeout=20), (b"hello\n\xff\n", b""))
        process = self.start("dequeue")
        self.assertEqual((*process.communicate(timeout=20), process.returncode), (b"", b"", 3))

    def test_queue_commands(self):
        self.assertEqual(self.run_words("enqueue", "hello", "wörld", ""), (0, "1\n2\n3\n", ""))
        self.assertEqual(self.run_words("peek", "-n", "9"), (0, "hello\nwörld\n\n", ""))
        self.assertEqual(self.run_words("size"), (0, "3\n", ""))
        self.assertEqual(self.run_words("queues"), (0, "default\t3\n", ""))
        self.assertEqual(self.run_words("dequeue", "-n", "2"), (0, "hello\nwörld\n", ""))
        self.assertEqual(self.run_words("dequeue", "-q", "other"), (3, "", ""))
        status, out, _ = self.run_words("--json", "dequeue", "--wait", "1")
        self.assertEqual((status, json.loads(out)), (0, [{"id": 3, "text": ""}]))

    def test_queues_behind_a_page_that_ends_early(self):
        self.cluster.machine = Machine(MachineConfig(purge_count_max=2), WireConfig())
        self.cluster.machine.state_version = STATE_VERSION
        for name in "abcdefghijk":
            self.run_words("enqueue", "-q", name, "--dedup", "1", "x")
        for name in "abcdefghij":
            self.run_words("dequeue", "-q", name)
        self.assertEqual(self.run_words("queues"), (0, "k\t1\n", ""))
        self.assertEqual(json.loads(self.run_words("--json", "queues")[1]),
                         [{"queue": "k", "messages": 1}])

    def test_any_bytes_come_back(self):
        self.run_words("enqueue", b"\xff\xfe")
        self.assertEqual(self.run_words("peek")[1], "\udcff\udcfe\n")
        found = json.loads(self.run_words("--json", "dequeue")[1])
        self.assertEqual(found, [{"id": 1, "text": "\\xff\\xfe", "base64": "//4="}])

    def test_a_line_of_stdin_is_a_message(self):
        lines = [b"line %d" % number for number in range(2_500)] + [b"", b"last, unended"]
        status, out, _ = self.run_words("enqueue", "-", given=b"\n".join(lines))
        self.assertEqual((status, out.split()), (0, [str(n) for n in range(1, 2_503)]))
        self.assertEqual(self.cluster.messages(), lines)

    def test_ids_of_slow_lines_come_at_once(self):
        process = self.start("enqueue", "-", stdin=subprocess.PIPE)
        for number in (b"1", b"2"):
            process.stdin.write(b"x\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), number + b"\n")

    def test_a_line_too_long_is_named(self):
        given = b"short\n" + bytes(1024 * 1024 + 1)
        status, out, err = self.run_words("enqueue", "-", given=given)
        self.assertEqual((status, out), (1, "1\n"))
        self.assertIn("line 2", err)

    def test_lines_without_an_answer_are_numbered(self):
        self.leader.script += [None, *[fakenode.SILENT_AFTER] * 9]
        process = self.start("--timeout", "0.3", "enqueue", "-", stdin=subprocess.PIPE)
        process.stdin.write(b"a\n")
        process.stdin.flush()
        process.stdout.readline()
        _, err = process.communicate(b"b\nc\n", timeout=20)
        self.assertEqual(process.returncode, 4)
        self.assertIn(b"lines 2 to 3 are possibly enqueued", err)

    def test_execute(self):
        operations = [{"enqueue": "q", "messages": ["a", "b"]}, {"dequeue": "q"}, {"size": "q"}]
        status, out, _ = self.run_words("execute", "-", given=json.dumps(operations).encode())
        self.assertEqual(status, 0)
        self.assertEqual([json.loads(line) for line in out.splitlines()],
                         [{"ids": [1, 2]}, {"messages": [{"id": 1, "text": "a"}]},
                          {"size": 1, "bytes": 1}])
        for given in (b"{", b"{}", b"[]", b'[{"size": 3}]', b"\xff"):
            status, _, err = self.run_words("execute", "-", given=given)
            self.assertEqual((status, err[:9]), (2, "mqclient:"), given)
        self.assertEqual(self.run_words("execute", "no such file")[0], 2)

    def test_log(self):
        self.run_words("enqueue", "a b")
        self.assertEqual(self.run_words("log"),
                         (0, '1.0 3 enqueue default "a b"\n2.0 3 close\n', ""))
        self.assertEqual(self.run_words("log", "--from", "2")[1], "2.0 3 close\n")
        self.assertEqual(self.run_words("log", "--limit", "1", "--local", self.follower.address)[1],
                         '1.0 3 enqueue default "a b"\n')
        line = json.loads(self.run_words("--json", "log", "--limit", "1")[1])
        self.assertEqual((line["index"], line["offset"], line["term"], line["kind"]),
                         (1, 0, 3, "batch"))

    def test_status_json(self):
        dead = self.cluster.node()
        dead.close()
        status, out, err = self.run_words("--json", "status")
        view = json.loads(out)
        self.assertEqual((status, view["leader"], view["term"]), (0, self.leader.address, 3))
        nodes = {node["address"]: node for node in view["nodes"]}
        keys = ("address node_id cluster_id role term leader commit_index applied_index last_index "
                "snapshot_index digest voter reachable").split()
        self.assertLessEqual(set(keys), set(nodes[self.leader.address]))
        self.assertLessEqual(set(keys), set(nodes[dead.address]))
        self.assertEqual(nodes[self.leader.address]["role"], "leader")
        self.assertEqual(nodes[self.follower.address]["role"], "follower")
        self.assertEqual((nodes[dead.address]["role"], nodes[dead.address]["reachable"]),
                         (None, False))
        self.assertIn(dead.address, err)
        table = self.run_words("status", self.follower.address)[1].splitlines()
        self.assertEqual(len(table), 2)
        self.assertEqual(self.run_words("status", dead.address)[0], 4)

    def test_members(self):
        status, out, _ = self.run_words("members")
        self.assertEqual((status, len(out.splitlines())), (0, 3))
        found = json.loads(self.run_words("--json", "members")[1])
        self.assertEqual([member["address"] for member in found],
                         [self.leader.address, self.follower.address])

    def test_snapshot(self):
        digest = f"{self.cluster.machine.digest:08x}"
        text = f"snapshot up to entry 0: 100.0 kB, digest {digest}"
        self.assertEqual(self.run_words("snapshot"), (0, f"{self.leader.address}: {text}\n", ""))
        dead = self.cluster.node()
        dead.close()
        status, out, err = self.run_words("snapshot", dead.address, self.follower.address)
        self.assertEqual((status, out), (4, f"{self.follower.address}: {text}\n"))
        self.assertIn(dead.address, err)
        (found,) = json.loads(self.run_words("--json", "snapshot", self.follower.address)[1])
        self.assertEqual({key: found[key] for key in ("address", "index", "bytes", "digest")},
                         {"address": self.follower.address, "index": 0, "bytes": 100_000,
                          "digest": digest})

    def test_backup(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "saved")
            status, out, err = self.run_words("backup", path)
            self.assertEqual((status, err), (0, ""))
            self.assertTrue(out.startswith(f"{path}: snapshot up to entry 0: 100.0 kB, digest "))
            self.assertTrue(out.endswith(f", of {self.leader.address}\n"))
            status, out, err = self.run_words("backup", path)
            self.assertEqual((status, out), (1, ""))
            self.assertIn("saved exists", err)
            out = self.run_words("--json", "backup", path, "--force", "--local",
                                 self.follower.address)[1]
            found = json.loads(out)
            self.assertEqual((found["file"], found["address"], found["bytes"]),
                             (path, self.follower.address, 100_000))
            self.cluster.leader = ""
            status, _, err = self.run_words("--timeout", "0.1", "backup", path + "2")
            self.assertEqual((status, os.listdir(folder)), (4, ["saved"]))
            self.assertIn("no backup was made", err)
            self.assertIn("--local", err)
            self.assertEqual(self.run_words("backup", "-")[0], 2)

    def test_no_redirect_shows_who_leads(self):
        status, out, err = self.run_words("--no-redirect", "enqueue", "x")
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"leader: {self.leader.address}", err)
        self.assertEqual(self.cluster.messages(), [])

    def test_resume(self):
        self.leader.script.append(fakenode.SILENT_AFTER)
        status, _, err = self.run_words("--timeout", "0.2", "enqueue", "a", "b")
        self.assertEqual(status, 4)
        token = err.split("--resume ")[1].split()[0]
        self.assertEqual(self.run_words("enqueue", "--resume", token, "a", "b")[:2], (0, "1\n2\n"))
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])
        self.assertEqual(len([b for b in self.cluster.bodies if b[16:24] == bytes(7) + b"\1"]), 4)
        self.assertEqual(len(set(b for b in self.cluster.bodies if b[23] == 1)), 1)

    def test_resume_behind_the_first_request(self):
        words = [chr(97 + number) * 90_000 for number in range(6)]      # two a request
        self.leader.script += [None, fakenode.SILENT_AFTER]
        status, out, err = self.run_words("--timeout", "0.3", "enqueue", *words)
        self.assertEqual((status, out), (4, "1\n2\n"))
        token = err.split("--resume ")[1].split()[0]
        self.assertEqual(token.split(":")[1], "2")
        self.assertEqual(self.run_words("enqueue", "--resume", token, *words)[1], "3\n4\n5\n6\n")
        self.assertEqual(self.cluster.messages(), [word.encode() for word in words])
        self.assertEqual(self.run_words("enqueue", "--resume", token, "x")[0], 2)
        self.assertEqual(self.run_words("enqueue", "--resume", token, "-")[0], 2)

    def test_refused_and_no_answer(self):
        self.leader.script.append(Refuse(ErrorCode.SESSION_LIMIT))
        status, _, err = self.run_words("enqueue", "x")
        self.assertEqual(status, 1)
        self.assertIn("SESSION_LIMIT", err)
        self.leader.script += [Refuse(ErrorCode.NOT_READY)] * 1_000
        status, _, err = self.run_words("--timeout", "0.3", "size")
        self.assertEqual((status, len(err.splitlines())), (4, 1))
        self.assertIn("mqclient.py why", err)
        self.assertNotIn("executed", err)
        self.leader.script.extend([Refuse(ErrorCode.NOT_READY)] * 1_000)
        status, _, err = self.run_words("--timeout", "0.3", "enqueue", "x")
        self.assertEqual(status, 4)
        self.assertIn("surely not executed", err)
        self.assertIn("mqclient.py why", err)

    def test_wrong_arguments(self):
        for words in (["dequeue", "-n", "0"], ["dequeue", "-n", "-1"], ["dequeue", "--wait", "x"],
                      ["dequeue", "--wait", "nan"], ["-s", "nowhere", "size"], ["enqueue"],
                      ["enqueue", "-q", "", "x"], ["enqueue", "-q", "x" * 256, "x"], ["nonsense"],
                      ["--timeout", "0", "size"], ["log", "--from", "0"], [],
                      ["dequeue", "--resume", "ab:1"], ["dequeue", "--resume", "00" * 16 + ":1"],
                      ["dequeue", "-n", "9" * 5000], ["size", "--lease", "1"]):
            with self.subTest(words):
                self.assertEqual(self.run_words(*words)[0], 2)
        self.assertEqual(self.cluster.bodies, [])

    def test_a_closed_pipe_is_quiet(self):
        with Client([self.leader.address]) as client:
            client.queue().enqueue_many(["x" * 5_000] * 200)
        process = self.start("peek", "-n", "200")
        process.stdout.close()
        err = process.stderr.read()
        self.assertEqual((process.wait(20), err), (141, b""))

    def test_interrupted(self):
        process = self.start("dequeue", "--wait", "60")
        deadline = time.monotonic() + 10
        while not self.cluster.machine.waits():
            self.assertLess(time.monotonic(), deadline, "it never waited")
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, err), (130, b""))

    # --- the prompt

    def run_in_process(self, *lines: str) -> tuple[str, str]:
        """(results, everything else) of lines typed at the prompt."""
        out, err = io.BytesIO(), io.StringIO()
        options = argparse.Namespace(servers=[self.follower.address], timeout=5.0,
                                     no_redirect=False)
        with Client(options.servers, 5.0) as client:
            prompt = Prompt(client, options, Output(out, err), stdout=err)
            for line in lines:
                if prompt.onecmd(line):
                    break
        return out.getvalue().decode(), err.getvalue()

    def test_prompt(self):
        out, err = self.run_in_process(
            "enqueue a 'b c'", "", "size", 'queue("1") ("2")', 'queue("--wait")', "dequeue()",
            "dequeue(2)", "dequeue -n 9", "dequeue", "exit", "size")
        self.assertEqual(out, "1\n2\n2\n3\n4\n5\na\nb c\n1\n2\n--wait\n")
        self.assertEqual(err, "")

    def test_prompt_knows_the_cluster_commands(self):
        out, err = self.run_in_process("members", "status", "help remove", "help", "members "
                                       "--no-wait")
        self.assertEqual(len(out.splitlines()), 3 + 3)
        self.assertIn("ADDRESS|NODE_ID", err)
        self.assertIn("--no-wait belongs to --set", err)
        self.assertIn("transfer   hand the leadership over", err)

    def test_prompt_goes_on_after_errors(self):
        out, err = self.run_in_process(
            "nonsense", "enqueue 'x", "enqueue -", "queue(x)", "queue(", "queue('a', b=1)",
            "size()", "help", "help nonsense", "EOF")
        self.assertEqual(out, "0\n")
        self.assertEqual(err.count("mqclient:"), 7)
        self.assertIn("append messages", err)

    def test_prompt_lines(self):
        for line, words in (('queue("1")', ["enqueue", "--", "1"]), ("request_log()", ["log"]),
                            ("enqueue a(b)", ["enqueue", "a(b)"]),
                            ("dequeue(3)", ["dequeue", "-n", "3"]),
                            ('queue("a b","c")', ["enqueue", "--", "a b", "c"])):
            self.assertEqual(split_line(line), words)

    def test_prompt_completion(self):
        prompt = Prompt(None, None, None)
        self.assertEqual(prompt.completenames("deq"), ["dequeue "])
        self.assertEqual(prompt.completedefault("--w", "dequeue --w", 8, 11), ["--wait "])
        self.assertEqual(prompt.completedefault("x", "dequeue x", 8, 9), [])
        for name in ("add", "remove", "transfer", "members", "why", "snapshot", "backup"):
            self.assertEqual(prompt.completenames(name), [name + " "])
        self.assertEqual(prompt.completedefault("--", "add --", 4, 6),
                         ["--help ", "--learner ", "--no-wait "])
        self.assertEqual(prompt.completedefault("h", "remove h", 7, 8), [])
        known = Client(["h:1", "g:2"])
        known.known_members = ["h:3"]
        prompt = Prompt(known, None, None)
        self.assertEqual(prompt.completedefault("h", "remove h", 7, 8), ["h:3 ", "h:1 "])
        self.assertEqual(prompt.completedefault("h:3", "backup x --local h:3", 17, 20), ["h:3 "])
        self.assertEqual(prompt.completedefault("h:1,g", "members --set h:1,g", 14, 19),
                         ["h:1,g:2 "])
        self.assertEqual(prompt.completedefault("h", "enqueue h", 8, 9), [])


class EntryLinesTest(unittest.TestCase):
    def test_entries_of_every_kind(self):
        membership = Membership(b"c" * 16, (Member(1, "a:1", True), Member(2, "b:2", False)))
        cases = [(EntryKind.EMPTY, b"", "4.0 2 empty"),
                 (EntryKind.MEMBERSHIP, encode_membership(membership),
                  "4.0 2 membership not founded yet, quorum 1 (majority): a:1, b:2 (learner)"),
                 (EntryKind.MEMBERSHIP, b"x", None), (EntryKind.BATCH, b"x", None),
                 (EntryKind.BATCH, bytes(8), "4.0 2 batch of nothing")]
        for kind, payload, text in cases:
            (line,) = entry_lines(encode_entry(4, 2, kind, payload))
            if text is not None:
                self.assertEqual(line, text)
            else:
                self.assertIn("malformed", line)
