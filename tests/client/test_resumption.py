"""Asking again for what was executed: by which commands, with which arguments, and after an output
that could not be written. What is not the earlier request leaves the kept reply alone."""

import json
import os
import subprocess
import sys
import unittest
from unittest import mock

from raftnet.client import Client
from raftnet.client.session import request_checksum
from raftnet.errors import MalformedError, NoAnswerError
from raftnet.wire import commands
from tests.client import fakenode, test_commandline

ROOT = test_commandline.ROOT


class ResumptionTest(unittest.TestCase):
    """Words in, lines and exit statuses out."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words
    start = test_commandline.CommandLineTest.start
    reap = staticmethod(test_commandline.CommandLineTest.reap)

    def unknown(self, *words, given: bytes = b"", how: int = fakenode.SILENT_AFTER) -> str:
        """The token of a command whose outcome stays unknown."""
        self.leader.script.append(how)
        status, _, err = self.run_words("--timeout", "0.2", *words, given=given)
        self.leader.script.clear()
        self.assertEqual(status, 4, err)
        self.assertIn("--resume ", err)
        return err.split("--resume ")[1].split()[0]

    def messages(self, queue: str = "Y") -> list[bytes]:
        return self.cluster.messages(queue.encode())

    # --- every command that changes something in one request

    def test_whatever_names_a_token_takes_it(self):
        self.run_words("enqueue", "-q", "Y", *"abcdef")
        self.run_words("dequeue", "-q", "Y", "--lease", "60", "-n", "3")
        self.run_words("kv", "put", "old", "1")
        operations = json.dumps([{"enqueue": "other", "messages": ["x"]}]).encode()
        for words, result, given in (
                (["ack", "1:1"], "1:1 acknowledged\n", b""),
                (["nack", "2:2"], "2:2 returned\n", b""),
                (["extend", "--lease", "9", "3:3"], "3:3 extended\n", b""),
                (["dequeue", "-q", "Y", "--lease", "60"], "2:4\tb\n", b""),
                (["dequeue", "-q", "Y", "--wait", "1"], "d\n", b""),
                (["execute", "-"], '{"ids": [7]}\n', operations),
                (["kv", "put", "key", "value", "--ttl", "60"], None, b""),
                (["kv", "put", "key", "-"], None, b"v"),
                (["kv", "cas", "old", "1", "2"], None, b""),
                (["kv", "delete", "old"], None, b""),
                (["configure", "-q", "Y", "--max-messages", "9"], "max-messages\t9\n", b""),
                (["purge", "-q", "Y"], "2\n", b""),
                (["redrive", "-q", "other", "--to", "Z", "-n", "4"], "1\n", b""),
                (["delete", "-q", "gone"], "", b"")):
            with self.subTest(words):
                before = self.cluster.machine.executor.next_message_id
                token = self.unknown(*words, given=given)
                executed = self.cluster.machine.executor.next_message_id
                status, out, err = self.run_words(*words, "--resume", token, given=given)
                self.assertEqual((status, err), (3 if words[0] == "delete" else 0, ""))
                self.assertTrue(out or words[0] == "delete")
                self.assertIn(result, (None, out))
                self.assertEqual(self.cluster.machine.executor.next_message_id, executed, before)

    def test_reading_commands_take_none(self):
        token = self.unknown("enqueue", "-q", "Y", "x")
        for words in (["size"], ["peek"], ["kv", "get", "k"], ["queues"], ["describe"],
                      ["configure", "-q", "Y"]):
            self.assertEqual(self.run_words(*words, "--resume", token)[0], 2, words)

    def test_a_purge_of_many_pieces_names_no_token_behind_the_first(self):
        with Client([self.leader.address]) as client:
            client.queue("Y").enqueue_many(["x"] * 10_005)
        self.leader.script += [None, fakenode.SILENT_AFTER]
        status, out, err = self.run_words("--timeout", "0.3", "purge", "-q", "Y")
        self.assertEqual((status, out), (4, ""))
        self.assertIn("10000 messages are done with; of those behind them: no answer", err)
        self.assertNotIn("--resume", err)

    # --- a token of something else

    def test_another_command_leaves_a_taken_message_where_it_is(self):
        self.run_words("enqueue", "-q", "Y", "x")
        token = self.unknown("dequeue", "-q", "Y")
        for words in (["dequeue", "-q", "Y", "--lease", "10"], ["dequeue", "-q", "other"],
                      ["dequeue", "-q", "Y", "-n", "2"], ["kv", "put", "a", "b"],
                      ["enqueue", "-q", "Y", "x"], ["enqueue", "-q", "Y", "-"],
                      ["purge", "-q", "Y"], ["ack", "1:1"], ["execute", "-"]):
            with self.subTest(words):
                status, out, err = self.run_words(*words, "--resume", token,
                                                  given=b'[{"dequeue": "Y"}]')
                self.assertEqual((status, out), (2, ""), err)
        self.assertIn("not the earlier request", err)
        self.assertEqual(self.run_words("dequeue", "-q", "Y", "--wait", "3", "--resume", token),
                         (0, "x\n", ""))

    def test_other_messages_are_not_confirmed(self):
        token = self.unknown("enqueue", "-q", "Y", "one")
        for words in (["one", "two", "three"], ["two"], ["-q", "Z", "one"],
                      ["--priority", "1", "one"]):
            status, out, err = self.run_words("enqueue", "-q", "Y", *words, "--resume", token)
            self.assertEqual((status, out), (2, ""))
            self.assertIn("earlier", err)
        self.assertEqual(self.run_words("enqueue", "-q", "Y", "one", "--resume", token),
                         (0, "1\n", ""))
        self.assertEqual(self.messages(), [b"one"])

    def test_without_a_checksum_the_form_and_the_count_of_the_reply_tell(self):
        self.run_words("enqueue", "-q", "Y", *"abc")
        token = self.unknown("dequeue", "-q", "Y", "-n", "3").rpartition(":")[0]
        for words in (["dequeue", "-q", "Y", "--lease", "10"], ["dequeue", "-q", "Y", "-n", "2"],
                      ["kv", "put", "a", "b"], ["enqueue", "x"],
                      ["enqueue", "--priority", "3", "x"], ["purge", "-q", "Y"], ["ack", "1:1"],
                      ["configure", "-q", "Y", "--ttl", "1"]):
            with self.subTest(words):
                status, out, err = self.run_words(*words, "--resume", token)
                self.assertEqual((status, out), (2, ""))
                self.assertIn("not the earlier request", err)
        self.assertEqual(self.run_words("dequeue", "-q", "Y", "-n", "3", "--resume", token),
                         (0, "a\nb\nc\n", ""))
        token = self.unknown("enqueue", "-q", "Y", "x").rpartition(":")[0]
        for words in (["dequeue", "-q", "Y"], ["kv", "put", "a", "b"]):
            self.assertEqual(self.run_words(*words, "--resume", token)[0], 2)
        self.assertEqual(self.run_words("enqueue", "-q", "Y", "x", "--resume", token)[1], "4\n")

    def test_what_was_never_executed_is_refused_before_it_is_sent(self):
        token = self.unknown("enqueue", "-q", "Y", "one", how=fakenode.SILENT_BEFORE)
        self.assertEqual(self.run_words("enqueue", "-q", "Y", "two", "--resume", token)[0], 2)
        self.assertEqual(self.messages(), [])
        self.assertEqual(self.run_words("enqueue", "-q", "Y", "one", "--resume", token)[1], "1\n")

    def test_the_library_can_try_again_after_the_wrong_call(self):
        self.run_words("enqueue", "-q", "Y", "x")
        with Client([self.leader.address], timeout_s=0.2) as client:
            client.queue("Z").enqueue("before")
            self.leader.script.append(fakenode.SILENT_AFTER)
            with self.assertRaises(NoAnswerError) as caught:
                client.queue("Y").dequeue()
        session, sequence = caught.exception.resume.split(":")
        for checksum in ((), (None,), (request_checksum(commands.encode_dequeue(b"Y", 1, 0)),)):
            resume = (bytes.fromhex(session), int(sequence), *checksum)
            with Client([self.leader.address], resume=resume):
                pass                    # closing it before anything was asked closes no session
            with Client([self.leader.address], resume=resume) as client:
                with self.assertRaises(MalformedError):
                    client.queue("Y").lease(10)
        with Client([self.leader.address], resume=resume[:2]) as client:
            for wrong in (lambda: client.queue("Y").lease(10), lambda: client.kv_put("a", "b")):
                self.assertRaises(MalformedError, wrong)
            self.assertEqual(client.queue("Y").dequeue().text, "x")

    def test_closing_takes_no_place_of_what_was_never_executed(self):
        with Client([self.leader.address], timeout_s=0.2) as client:
            client.queue("Y").enqueue("a")
            self.leader.script.append(fakenode.SILENT_BEFORE)
            with self.assertRaises(NoAnswerError) as caught:
                client.queue("Y").enqueue("b")
        session, sequence = caught.exception.resume.split(":")
        resume = (bytes.fromhex(session), int(sequence))
        with Client([self.leader.address], resume=resume) as client:
            client.queue("Y").size()        # opens a connection, over which a CLOSE could go
        with Client([self.leader.address], resume=resume) as client:
            self.assertEqual(client.queue("Y").enqueue("b"), 2)

    def test_at_the_prompt_the_session_goes_on(self):
        with Client([self.leader.address], 0.2) as client:
            for message in "de":
                client.queue().enqueue(message)
            self.leader.script.append(fakenode.SILENT_AFTER)
            with self.assertRaises(NoAnswerError):
                client.queue().enqueue("f")
            token = client.resume_token
        self.assertEqual(token.split(":")[1], "3")
        self.assertEqual(self.run_words("enqueue", "f", "--resume", token), (0, "3\n", ""))
        self.assertEqual(self.run_words("enqueue", "g", "--resume", token)[0], 2)

    def test_tokens_that_are_none(self):
        good = "0f" * 16 + ":1"
        for token in (good + ":", good + ":123", good + ":0123456G", good + ":-1234567",
                      good + ":01234567:1", "0f:1:01234567", good[:-1] + "x:01234567"):
            self.assertEqual(self.run_words("dequeue", "--resume", token)[0], 2, token)
        self.assertEqual(self.cluster.bodies, [])

    # --- output and input that fail

    def run_shell(self, redirected: str, *words: str) -> tuple[int, str, str]:
        """mqclient under a shell, with redirections."""
        process = subprocess.run(
            ["sh", "-c", f'"$0" "$@" {redirected}', sys.executable, str(ROOT / "mqclient.py"),
             *words], env=os.environ | {"RAFTNET_SERVERS": self.follower.address},
            capture_output=True, text=True, timeout=30, check=False)
        self.assertNotIn("Traceback", process.stderr)
        self.assertNotIn("ignored", process.stderr)
        return process.returncode, process.stdout, process.stderr

    @unittest.skipUnless(os.path.exists("/dev/full"), "this system has no /dev/full")
    def test_a_full_stdout_loses_no_message(self):
        for words, result in ((["enqueue", "-q", "fl", "x"], "1\n"),
                              (["dequeue", "-q", "fl"], "x\n")):
            status, _, err = self.run_shell(">/dev/full", *words)
            self.assertEqual((status, len(err.splitlines())), (1, 1), err)
            self.assertIn("it was executed", err)
            token = err.split("--resume ")[1].split()[0]
            self.assertEqual(self.run_words(*words, "--resume", token), (0, result, ""))
        self.assertEqual(self.messages("fl"), [])
        status, _, err = self.run_shell(">/dev/full", "size")
        self.assertEqual((status, len(err.splitlines())), (1, 1))
        self.assertNotIn("--resume", err)
        self.assertEqual(self.run_shell(">/dev/full 2>/dev/full", "size")[0], 1)

    @unittest.skipUnless(os.path.exists("/dev/full"), "this system has no /dev/full")
    def test_ids_of_lines_that_cannot_be_written(self):
        status, _, err = self.run_shell("<<END >/dev/full\na\nb\nEND", "enqueue", "-")
        self.assertEqual((status, self.cluster.messages()), (1, [b"a", b"b"]))
        self.assertIn("lines 1 to 2 are enqueued", err)

    def test_a_reader_that_has_gone_loses_no_message(self):
        self.run_words("enqueue", *"ab")
        process = self.start("dequeue", "-n", "2", "--wait", "1")
        process.stdout.close()
        err = process.stderr.read().decode()
        self.assertEqual(process.wait(20), 141)
        token = err.split("--resume ")[1].split()[0]
        self.assertEqual(self.run_words("dequeue", "-n", "2", "--resume", token)[1], "a\nb\n")

    def test_closed_streams(self):
        self.run_words("enqueue", "x")
        unreadable = "</proc/self/mem" if os.path.exists("/proc/self/mem") else "<&-"
        for redirected, words, expected in (
                (">&-", ["size"], 1), (">&-", ["dequeue"], 1), ("<&-", ["enqueue", "-"], 2),
                ("<&-", ["kv", "put", "k", "-"], 2), ("<&-", ["execute", "-"], 2), ("<&-", [], 2),
                (unreadable, ["enqueue", "-"], 2), (unreadable, ["kv", "put", "k", "-"], 2)):
            with self.subTest(words, redirected=redirected):
                status, _, err = self.run_shell(redirected, *words)
                self.assertEqual(status, expected)
                self.assertIn("mqclient", err.splitlines()[-1])
                self.assertTrue(len(err.splitlines()) == 1 or not words, err)
        self.assertEqual(self.run_shell("2>&-", "size"), (0, "1\n", ""))
        self.assertEqual(self.run_shell("2>&-", "dequeue", "-q", "Y")[0], 3)
        self.assertEqual(self.run_shell("2>&-", "nonsense")[0], 2)
        self.assertEqual(self.cluster.messages(), [b"x"])

    def test_interrupted_while_it_begins(self):
        # the signal comes while modules are read, and once more while the parsers are built
        for place in ("raftnet.client.commandline", "raftnet.client.queueparsers", "gettext"):
            code = ("import builtins, os, runpy, signal, sys\n"
                    "real = builtins.__import__\n"
                    "def reading(name, *rest):\n"
                    f"    if name == {place!r}:\n"
                    "        os.kill(os.getpid(), signal.SIGINT)\n"
                    "    return real(name, *rest)\n"
                    "builtins.__import__ = reading\n"
                    "sys.argv[0] = 'mqclient.py'\n"
                    "runpy.run_path('mqclient.py', run_name='__main__')\n")
            done = subprocess.run([sys.executable, "-c", code, "--timeout", "1", "size"], cwd=ROOT,
                                  capture_output=True, timeout=20, check=False)
            self.assertEqual((done.returncode, done.stderr), (130, b""), place)


class TokenTest(unittest.TestCase):
    """What the checksum is made of."""

    def test_the_wait_and_the_default_consumer_are_no_part_of_it(self):
        tokens = []
        for wait_s, consumer in ((0, None), (7, None), (0, "me")):
            client = Client(["127.0.0.1:1"], timeout_s=0.01)
            client._run = mock.Mock(side_effect=NoAnswerError("", False))
            with self.assertRaises(NoAnswerError):
                client.queue().lease(9, 1, wait_s, consumer)
            tokens.append(client.resume_token.rpartition(":")[2])
        self.assertEqual(tokens[0], tokens[1])
        self.assertNotEqual(tokens[0], tokens[2])


if __name__ == "__main__":
    unittest.main()
