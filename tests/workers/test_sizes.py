"""Sizes and names at their bounds, through mqclient's words and back, with a real node.

And beyond each bound that a client can reach: one line that says so, nothing done, and the node
serves on. Bounds on what the cluster holds in all are tested on the machine, with smaller numbers
(tests/machine/); what the sizes cost: python3 -m tests.lasting queues.
"""

import contextlib
import io
import json
import os
import tempfile
import unittest

from raftnet.client import Client, commandline
from raftnet.client.output import Output
from raftnet.errors import MalformedError, RefusedError, StateRefusedError
from tools.processes import LocalCluster

MIB = 1024 * 1024
NAMES = (" ", "it's \"quoted\" in a\\b", "tab\there", "line\nbreak\r\n", "-", "--help",
         "*?$HOME;`id`", "队列 🐇 größe", "e\u0301 and \u00e9", "\x7f\x01", "q" * 255,
         "ß" * 127 + "s", "\udcff\udcfe no UTF-8")
SIZES = (0, 1, 2, 4095, MIB)


class SizesTest(unittest.TestCase):
    """One node for all."""

    @classmethod
    def setUpClass(cls):
        cls.parser = commandline.build_parser()
        cls.cluster = LocalCluster(1)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.client = Client(cls.cluster.addresses)
        cls.addClassCleanup(cls.client.close)

    def words(self, *words: str) -> tuple[int, bytes, str]:
        """(exit status, stdout, stderr) of mqclient with these words, and our client."""
        out, err = io.BytesIO(), io.StringIO()
        with contextlib.redirect_stderr(err):
            try:
                arguments = self.parser.parse_args(words)
                status = commandline.run(arguments, arguments,
                                         Output(out, err, arguments.json), self.client)
            except SystemExit as end:
                status = end.code
        return status, out.getvalue(), err.getvalue()

    def done(self, *words: str) -> bytes:
        """What it prints, where it ends with 0 and says nothing else."""
        status, out, err = self.words(*words)
        self.assertEqual((status, err), (0, ""), words)
        return out

    def refused(self, status: int, text: str, *words: str) -> None:
        """It ends with that status and a last line with that text."""
        found, out, err = self.words(*words)
        self.assertEqual((found, out), (status, b""), words)
        self.assertIn(text, err.splitlines()[-1])

    # --- names

    def test_queues_of_any_name(self):
        for name in NAMES:
            with self.subTest(name):
                queue = f"-q{name}"
                self.done("enqueue", queue, "one", "two")
                receipt, _, message = self.done("dequeue", queue, "--lease=60").partition(b"\t")
                self.assertEqual(message, b"one\n")
                self.done("nack", receipt.decode())
                self.done("configure", queue, "--ttl", "3600", "--dead-letter", "no " + "x" * 100)
                settings = json.loads(self.done("--json", "describe", queue))["settings"]
                self.assertEqual(settings["dead_letter"], "no " + "x" * 100)
                self.assertEqual(self.done("dequeue", queue, "-n", "2"), b"one\ntwo\n")
                self.done("delete", queue)

    def test_they_are_listed_in_byte_order(self):
        for name in NAMES:
            self.client.queue(name).enqueue("m")
        listed = self.client.queues()
        names = sorted(NAMES, key=lambda name: name.encode("utf-8", "surrogateescape"))
        self.assertEqual([row for row in listed if row[0] in NAMES], [(name, 1) for name in names])
        shown = [row["queue"] for row in json.loads(self.done("--json", "queues"))]
        self.assertEqual(shown, [name.encode("utf-8", "surrogateescape")
                                 .decode("utf-8", "backslashreplace") for name, _ in listed])
        for name in NAMES:
            self.client.queue(name).dequeue()

    def test_keys_of_any_name(self):
        for name in NAMES:
            with self.subTest(name):
                key = ("--", name)
                self.done("kv", "put", *key, f"of {name}")
                self.assertEqual(self.done("kv", "get", *key),
                                 b"of " + name.encode("utf-8", "surrogateescape") + b"\n")
                self.done("kv", "cas", *key, f"of {name}", "other")
                listed = self.done("kv", "list", *key)
                self.assertEqual(listed, name.encode("utf-8", "surrogateescape") + b"\tother\n")
                self.done("kv", "delete", *key)
                self.assertEqual(self.words("kv", "get", *key)[0], 3)

    def test_names_in_a_list(self):
        names = [name for name in NAMES if "\udcff" not in name]
        document = {"when": [{"kv": name, "absent": True} for name in names],
                    "do": [{"enqueue": name, "messages": [name]} for name in names]
                    + [{"put": name, "value": name} for name in names]
                    + [{"dequeue": name} for name in names]
                    + [{"delete": name} for name in names]}
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "list.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(document, file)
            found = json.loads(self.done("--json", "execute", path))
        taken = found[2 * len(names):3 * len(names)]
        self.assertEqual([each["messages"][0]["text"] for each in taken], names)

    def test_names_that_are_none(self):
        self.refused(2, "a queue's name is not empty", "enqueue", "-q", "", "m")
        for words in (["size", "-q" + "q" * 256], ["enqueue", "-q" + "ß" * 128, "m"]):
            self.refused(2, "1 to 255 bytes", *words)
        self.refused(2, "a key is not empty", "kv", "put", "", "v")
        self.refused(2, "1 to 255 bytes", "kv", "get", "k" * 256)
        self.refused(2, "at most 255 bytes", "dequeue", "--lease=1", "--consumer", "c" * 256)
        self.refused(2, "at most 255 bytes", "enqueue", "--dedup", "d" * 256, "m")

    # --- messages and values

    def test_messages_and_values_of_any_size(self):
        queue = self.client.queue("sizes")
        bodies = [os.urandom(size) for size in SIZES]
        for how in ({}, {"priority": 3}, {"ttl_s": 60}):
            queue.enqueue_batch(bodies, **how)
            self.assertEqual([message.data for message in queue.peek(len(bodies))], bodies)
            leased = queue.lease(60, len(bodies))
            self.assertEqual([message.data for message in leased], bodies)
            self.client.nack([message.receipt for message in leased])
            self.assertEqual([message.data for message in queue.dequeue_many(len(bodies))], bodies)
        for body in bodies:
            self.client.kv_put("sizes", body)
            self.assertEqual(self.client.kv_get("sizes").value, body)
            self.assertEqual([value for _, _, value in self.client.kv_list("sizes")], [body])
        self.client.kv_delete("sizes")

    def test_a_byte_more(self):
        queue, body = self.client.queue("sizes"), bytes(MIB + 1)
        for do in (lambda: queue.enqueue(body), lambda: queue.enqueue(body, priority=1),
                   lambda: self.client.kv_put("sizes", body),
                   lambda: self.client.execute([{"put": "sizes", "value": body}])):
            with self.assertRaisesRegex(RefusedError, "1048577 bytes: at most 1048576"):
                do()
        with self.assertRaisesRegex(RefusedError, "at once: at most"):
            queue.enqueue_batch([bytes(MIB), bytes(MIB)])
        self.assertEqual(queue.size().messages, 0)

    # --- other bounds

    def test_beyond_what_one_command_may(self):
        queue = self.client.queue("bounds")
        queue.enqueue("m")
        for limit, do in (
                ("lease_ms_max", lambda: queue.lease(43_201)),
                ("dequeue_count_max", lambda: queue.dequeue_many(10_001)),
                ("shown_count_max", lambda: queue.inspect(1_001)),
                ("shown_count_max", lambda: queue.leases(1_001)),
                ("delay_ms_max", lambda: queue.enqueue("m", delay_s=2_592_001)),
                ("ttl_ms_max", lambda: queue.enqueue("m", ttl_s=31_536_001)),
                ("ttl_ms_max", lambda: self.client.kv_put("k", "v", ttl_s=31_536_001)),
                ("receipts_per_command_max", lambda: self.client.ack([(1, 1)] * 10_001)),
                ("execute_operations_max", lambda: self.client.execute([{"get": "k"}] * 1_001)),
                ("conditions_max", lambda: self.client.execute(
                    [{"get": "k"}], [{"kv": "k", "absent": True}] * 1_001))):
            with self.subTest(limit), self.assertRaisesRegex(RefusedError, limit):
                do()
        with self.assertRaisesRegex(MalformedError, "from 0 to 7"):
            queue.enqueue("m", priority=8)
        self.assertEqual(queue.dequeue().text, "m")

    def test_a_full_queue(self):
        queue = self.client.queue("full")
        queue.configure(messages_max=2, bytes_max=10)
        queue.enqueue_batch(["1234", "5678"])
        for message, limit in (("", "messages_max"), ("123", "messages_max")):
            with self.assertRaisesRegex(StateRefusedError, f"as much as it may .*{limit}"):
                queue.enqueue(message)
        queue.dequeue()
        with self.assertRaisesRegex(StateRefusedError, "bytes_max"):
            queue.enqueue("1234567")
        queue.enqueue("123456")
        self.refused(1, "raise its limits", "enqueue", "-q", "full", "m")


if __name__ == "__main__":
    unittest.main()
