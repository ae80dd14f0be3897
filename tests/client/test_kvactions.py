"""mqclient kv: conditions, what is told of a key beside its value, and values from stdin; against
the real machine behind nodes played in this process. The rest of kv: test_queueactions.py."""

import argparse
import io
import json
import time
from unittest import TestCase, main, mock

from raftnet.client import (Client, Condition, ConditionKind, StateRefusedError, Status,
                            commandline, kvactions)
from raftnet.client.output import Output
from raftnet.client.shell import Prompt
from raftnet.errors import ErrorCode
from raftnet.wire import commands
from raftnet.wire.frames import Kind
from tests.client import test_commandline
from tests.client.fakenode import Refuse

CONFLICT = "mqclient: CONFLICT: the key {}: nothing was done; get it and decide anew\n"


class KvCase(TestCase):
    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words

    def kv(self, *words, given: bytes = b"") -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of `kv WORDS`."""
        return self.run_words("kv", *words, given=given)

    def json(self, *words) -> tuple[int, object]:
        """(exit status, document) of `--json kv WORDS`."""
        status, out, _ = self.run_words("--json", "kv", *words)
        return status, json.loads(out)


class Conditions(KvCase):
    """A failed one is what it is for `cas`."""

    def test_put_if_absent(self):
        self.assertEqual(self.kv("put", "k", "1", "--if-absent"), (0, "1\n", ""))
        there = (1, "1\n", CONFLICT.format("has version 1"))
        self.assertEqual(self.kv("put", "k", "2", "--if-absent"), there)
        self.assertEqual(self.kv("put", "k", "2", "--if-version", "0"), there)
        self.assertEqual(self.kv("cas", "k", "0", "2"), there)
        self.assertEqual(self.json("put", "k", "2", "--if-absent"),
                         (1, {"conflict": {"key": "k", "version": 1, "value": "1"}}))
        self.assertEqual(self.kv("put", "l", "2", "--if-version", "0"), (0, "2\n", ""))

    def test_put_if_version(self):
        self.assertEqual(self.kv("put", "k", "1", "--if-version", "1"),
                         (1, "", CONFLICT.format("is absent")))
        self.assertEqual(self.json("put", "k", "1", "--if-version", "1"),
                         (1, {"conflict": {"version": 0, "value": None}}))
        self.kv("put", "k", "1")
        self.assertEqual(self.kv("put", "k", "2", "--if-version", "1"), (0, "2\n", ""))
        self.assertEqual(self.kv("put", "k", "3", "--if-version", "1"),
                         (1, "2\n", CONFLICT.format("has version 2")))
        self.assertEqual(self.kv("put", "k", "", "--if-version", "2", "--ttl", "60")[:2],
                         (0, "3\n"))
        self.assertTrue(self.json("get", "k")[1]["expires_ms"])

    def test_delete_if(self):
        self.kv("put", "k", "1")
        self.assertEqual(self.kv("delete", "k", "--if-value", "2"),
                         (1, "1\n", CONFLICT.format("has version 1")))
        self.assertEqual(self.kv("delete", "k", "--if-version", "2"),
                         (1, "1\n", CONFLICT.format("has version 1")))
        self.assertEqual(self.kv("delete", "k", "--if-version", "1"), (0, "2\n", ""))
        self.assertEqual(self.kv("delete", "k", "--if-value", "1"),
                         (1, "", CONFLICT.format("is absent")))
        self.kv("put", "k", "1")
        self.assertEqual(self.kv("delete", "k", "--if-value", "1"), (0, "4\n", ""))
        self.assertEqual(self.kv("get", "k")[0], 3)

    def test_wrong_arguments(self):
        for words in (["put", "k", "v", "--if-absent", "--if-version", "1"],
                      ["put", "k", "v", "--if-version", "-1"], ["put", "k", "v", "--if-version"],
                      ["put", "k", "v", "--if-version", str(2 ** 64)],
                      ["delete", "k", "--if-value", "v", "--if-version", "1"],
                      ["delete", "k", "--if-version", "0"], ["delete", "k", "--if-absent"],
                      ["cas", "k", "-", "-"]):
            with self.subTest(words):
                self.assertEqual(self.kv(*words)[0], 2)
        self.assertEqual(self.cluster.bodies, [])

    def test_in_the_library(self):
        with Client([self.follower.address]) as client:
            client.kv_put("k", "1", condition=Condition(ConditionKind.ABSENT))
            with self.assertRaises(StateRefusedError) as caught:
                client.kv_delete("k", Condition(ConditionKind.EQUALS, b"2"))
            self.assertEqual((caught.exception.status, caught.exception.value),
                             (Status.CONFLICT, b"1"))


class Known(KvCase):
    """What is told beside the value."""

    def test_a_value_alone_as_ever(self):
        self.kv("put", "k", "v", "--ttl", "60")
        asked = len(self.cluster.entries)
        self.assertEqual(self.kv("get", "k"), (0, "v\n", ""))
        self.assertEqual(len(self.cluster.entries), asked)

    def test_verbose(self):
        self.kv("put", "k", "v\nw")
        index = len(self.cluster.entries)
        self.assertEqual(self.kv("get", "k", "--verbose"),
                         (0, "version\t1\nexpires-in\tnever\nvalue\tv\nw\n",
                          f"mqclient: at index {index}\n"))
        self.assertEqual(self.kv("get", "none", "--verbose"),
                         (3, "", f"mqclient: at index {index}\n"))
        self.assertEqual(self.json("get", "none"), (3, None))
        self.assertEqual(self.json("get", "none", "--verbose"), (3, {
            "key": "none", "version": 0, "value": None, "expires_ms": None, "expires_in_s": None,
            "index": index}))

    def test_the_time_left_is_that_of_now(self):
        self.kv("put", "k", "v", "--ttl", "60")
        index = len(self.cluster.entries)
        first = self.json("get", "k")[1]
        self.assertEqual(first["index"], index)
        deadline = time.monotonic() + 10
        # nothing else is written meanwhile: the time of a read would stand still
        while (later := self.json("get", "k")[1])["expires_in_s"] > first["expires_in_s"] - 0.1:
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual((later["version"], later["expires_ms"]), (1, first["expires_ms"]))
        self.assertTrue(50 < later["expires_in_s"] < first["expires_in_s"] <= 60, (first, later))
        out = self.kv("get", "k", "--verbose")[1]
        self.assertRegex(out, r"\Aversion\t1\nexpires-in\t5\d(\.\d+)? s\nvalue\tv\n\Z")

    def test_where_the_time_cannot_be_had(self):
        self.kv("put", "k", "v", "--ttl", "60")
        _, out, err = self.kv("get", "k", "--verbose", "--local", self.follower.address)
        self.assertEqual(out, "version\t1\nexpires-in\tunknown\nvalue\tv\n")
        self.leader.handlers[Kind.REQUEST] = lambda body: Refuse(ErrorCode.DISK_FULL)
        with mock.patch.object(kvactions, "TIME_WAIT_S", 0.2):
            status, out, err = self.run_words("--json", "kv", "get", "k")
        found = json.loads(out)
        self.assertEqual((status, found["value"], found["expires_in_s"]), (0, "v", None))
        self.assertIn("is not known", err)

    def test_the_index_of_a_listing_is_that_of_its_first_page(self):
        for key in ("a", "b", "c"):
            self.kv("put", key, "v")
        index = len(self.cluster.entries)
        real, pages = Client._read, []

        def read(client, command, local=None):
            found = real(client, command, local)
            pages.append(client.read_index)
            self.cluster.internal(commands.encode_time())  # an entry between two pages
            return found
        with (mock.patch("raftnet.client.client.KEYS_PAGE", 1),
              mock.patch.object(Client, "_read", read)):
            status, out, err = self.run_words("--json", "kv", "list", "--verbose")
        self.assertEqual((status, err), (0, f"mqclient: at index {index}\n"))
        self.assertEqual(pages[0], index)
        self.assertGreater(pages[2], index)
        self.assertEqual(json.loads(out), {"index": index, "keys": [
            {"key": key, "version": version, "value": "v", "index": index}
            for version, key in enumerate("abc", 1)]})

    def test_an_empty_listing_has_an_index_too(self):
        self.kv("put", "k", "v")
        index = len(self.cluster.entries)
        self.assertEqual(self.json("list", "z"), (3, []))
        self.assertEqual(self.json("list", "z", "--verbose"), (3, {"index": index, "keys": []}))
        self.assertEqual(self.kv("list", "--verbose"),
                         (0, "k\tv\n", f"mqclient: at index {index}\n"))


class Stdin(KvCase):
    """A value - is all of stdin, wherever a value stands."""

    def test_each(self):
        self.kv("put", "k", "-", given=b"a\n")
        self.assertEqual(self.kv("get", "k")[1], "a\n\n")
        self.assertEqual(self.kv("cas", "k", "a", "x")[0], 1, "the newline counts")
        self.assertEqual(self.kv("cas", "k", "-", "b", given=b"a\n"), (0, "2\n", ""))
        self.assertEqual(self.kv("cas", "k", "b", "-", given=b"\xff"), (0, "3\n", ""))
        self.assertEqual(self.kv("delete", "k", "--if-value", "-", given=b"\xff"), (0, "4\n", ""))
        for word in ("put", "cas", "delete"):
            with mock.patch("sys.stdout", io.StringIO()) as out, self.assertRaises(SystemExit):
                commandline.build_parser().parse_args(["kv", word, "--help"])
            self.assertIn("a newline at its end included", " ".join(out.getvalue().split()))

    def test_the_prompt_has_none_to_give(self):
        out, err = io.BytesIO(), io.StringIO()
        with Client([self.follower.address]) as client:
            prompt = Prompt(client, argparse.Namespace(), Output(out, err))
            for line in ("kv put k -", "kv cas k a -", "kv cas k - a", "kv delete k --if-value -"):
                with mock.patch("sys.stdin", None):
                    prompt.onecmd(line)
        self.assertEqual(err.getvalue().count("- reads all of stdin"), 4)
        self.assertEqual((out.getvalue(), self.cluster.bodies), (b"", []))


if __name__ == "__main__":
    main()
