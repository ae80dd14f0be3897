"""mqclient's commands about leases, whole queues, keys and transactions, against the real machine
behind nodes played in this process."""

import json
import time
import unittest
from unittest import mock

from raftnet.client import Client, commandline, queue as queues
from raftnet.client.receipts import default_consumer
from raftnet.errors import MalformedError, StateRefusedError
from raftnet.wire import queuecommands
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.queueresults import Outcome
from tests.client import fakenode, test_commandline


class ActionsTest(unittest.TestCase):
    """Words in, lines and exit statuses out."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words

    def test_lease_ack_nack_extend(self):
        self.run_words("enqueue", "a\tb", "c")
        self.assertEqual(self.run_words("dequeue", "--lease", "60", "-n", "2"),
                         (0, "1:1\ta\tb\n2:2\tc\n", ""))
        self.assertEqual(self.run_words("dequeue", "--lease", "0.5"), (3, "", ""))
        self.assertEqual(self.run_words("extend", "--lease", "90", "1:1", "2:2"),
                         (0, "1:1 extended\n2:2 extended\n", ""))
        self.assertEqual(self.run_words("nack", "--reason", "no luck", "1:1"),
                         (0, "1:1 returned\n", ""))
        status, out, err = self.run_words("ack", "1:1", "2:2")
        self.assertEqual((status, out), (1, "1:1 stale\n2:2 acknowledged\n"))
        self.assertIn("1 of 2 receipts is stale", err)
        self.assertEqual(len(err.splitlines()), 1)
        status, out, _ = self.run_words("--json", "dequeue", "--lease", "60", "--consumer", "me")
        self.assertEqual(json.loads(out), [{"id": 1, "text": "a\tb", "receipt": "1:3",
                                            "deliveries": 2}])
        status, out, _ = self.run_words("--json", "ack", "1:3", "2:2")
        self.assertEqual((status, json.loads(out)), (1, [
            {"receipt": "1:3", "outcome": "done"}, {"receipt": "2:2", "outcome": "stale"}]))

    def test_an_expired_lease_is_stale_and_the_message_comes_back(self):
        self.run_words("enqueue", "x")
        self.assertEqual(self.run_words("dequeue", "--lease", "0.05")[1], "1:1\tx\n")
        status, out, _ = self.run_words("dequeue", "--lease", "60", "--wait", "10")
        self.assertEqual((status, out), (0, "1:2\tx\n"))
        self.assertEqual(self.run_words("ack", "1:1")[0], 1)
        self.assertEqual(self.run_words("ack", "1:2")[0], 0)

    def test_leases_and_inspect(self):
        self.run_words("enqueue", "one", "two")
        self.run_words("dequeue", "--lease", "60", "--consumer", "me")
        status, out, _ = self.run_words("leases")
        self.assertEqual(status, 0)
        receipt, _, _, delivery, consumer = out.rstrip("\n").split("\t")
        self.assertEqual((receipt, delivery, consumer), ("1:1", "delivery 1", "me"))
        (lease,) = json.loads(self.run_words("--json", "leases", "-n", "1")[1])
        self.assertEqual((lease["receipt"], lease["consumer"]), ("1:1", "me"))
        self.assertLess(50_000, lease["ends_in_ms"])
        self.run_words("nack", "--reason", "no luck", "1:1")
        first, event, second = self.run_words("inspect")[1].splitlines()
        self.assertTrue(first.startswith("1\tpriority 0\tdeliveries 1\t"), first)
        self.assertTrue(first.endswith("\tone"), first)
        self.assertRegex(event, r"^    nacked [\d.]+ s ago, entry \d+, delivery 1, held [\d.]+ s, "
                         r"by me: no luck$")
        self.assertEqual(second, "2\tpriority 0\tdeliveries 0\ttwo")
        found = json.loads(self.run_words("--json", "inspect", "-n", "1")[1])
        self.assertEqual((found[0]["id"], found[0]["text"], found[0]["history"][0]["reason"]),
                         (1, "one", "nacked"))
        self.assertEqual(self.run_words("leases")[0], 3)
        self.assertEqual(self.run_words("inspect", "-q", "none")[0], 3)

    def test_dead_letters_and_back(self):
        self.run_words("configure", "-q", "q", "--delivery-limit", "1", "--dead-letter", "graves")
        self.run_words("enqueue", "-q", "q", "poison")
        self.run_words("dequeue", "-q", "q", "--lease", "60")
        self.assertEqual(self.run_words("nack", "1:1")[1], "1:1 dead-lettered\n")
        self.assertIn("from q", self.run_words("inspect", "-q", "graves")[1])
        self.assertEqual(self.run_words("redrive", "-q", "graves"), (0, "1\n", ""))
        self.assertEqual(self.run_words("redrive", "-q", "graves"), (3, "0\n", ""))
        self.assertIn("redriven", self.run_words("inspect", "-q", "q")[1])
        self.run_words("dequeue", "-q", "q", "--lease", "60")
        self.run_words("nack", "1:2")
        found = self.run_words("--json", "redrive", "-q", "graves", "--to", "other", "-n", "9")
        self.assertEqual((found[0], json.loads(found[1])), (0, {"moved": 1, "left": 0}))
        self.assertEqual(self.run_words("peek", "-q", "other")[1], "poison\n")

    def test_priority_delay_ttl_and_dedup(self):
        self.assertEqual(self.run_words("enqueue", "--dedup", "x", "once")[:2], (0, "1\n"))
        status, out, err = self.run_words("enqueue", "--dedup", "x", "once")
        self.assertEqual((status, out), (0, "1\n"))
        self.assertIn("nothing was added", err)
        out = self.run_words("--json", "enqueue", "--dedup", "x", "once")[1]
        self.assertEqual(json.loads(out), {"ids": [1], "duplicates": [0]})
        self.run_words("enqueue", "low")
        self.run_words("enqueue", "--priority", "7", "--ttl", "60", "high")
        self.run_words("enqueue", "--delay", "0.05", "late")
        self.run_words("enqueue", "--ttl", "0.001", "gone")
        found = [self.run_words("dequeue", "--wait", "10")[1] for _ in range(4)]
        self.assertEqual((found[0], sorted(found)),
                         ("high\n", ["high\n", "late\n", "low\n", "once\n"]))
        self.assertEqual(self.run_words("dequeue")[0], 3)
        status, out, _ = self.run_words("enqueue", "--priority", "2", "-", given=b"a\nb\nc\n")
        self.assertEqual((status, len(out.split())), (0, 3))
        self.assertEqual(self.run_words("peek", "-n", "9")[1], "a\nb\nc\n")

    def test_configure_and_describe(self):
        status, out, _ = self.run_words("configure", "-q", "q", "--ttl", "90.5", "--overflow",
                                        "dead-letter", "--max-messages", "2")
        self.assertEqual((status, out), (0, "ttl\t90.5\nmax-messages\t2\noverflow\tdead-letter\n"))
        lines = self.run_words("configure", "-q", "q")[1].splitlines()
        self.assertEqual(lines, [
            "dead-letter\tq.dead (default)", "delivery-limit\t20", "ttl\t90.5", "max-messages\t2",
            "max-bytes\t0", "overflow\tdead-letter", "dedup-window\t300", "backoff\t1",
            "backoff-max\t600"])
        self.assertIn("dead-letter\tnone", self.run_words("configure", "-q", "q.dead")[1])
        self.run_words("enqueue", "-q", "q", "message")
        lines = self.run_words("describe", "-q", "q")[1].splitlines()
        self.assertEqual(lines[:3] + lines[8:],
                         ["configured\tyes", "ready\t1", "ready-bytes\t7"]
                         + self.run_words("configure", "-q", "q")[1].splitlines())
        found = json.loads(self.run_words("--json", "describe", "-q", "q")[1])
        self.assertEqual((found["queue"], found["ready"], found["settings"]["overflow"],
                          found["settings"]["ttl_ms"]), ("q", 1, "dead_letter", 90_500))

    def test_a_full_queue_refuses_with_a_word(self):
        self.run_words("configure", "-q", "q", "--max-messages", "2")
        status, out, err = self.run_words("enqueue", "-q", "q", "a", "b", "c")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("FULL", err)
        self.assertIn("configure", err)
        status, out, err = self.run_words("enqueue", "-q", "q", "-", given=b"a\nb\nc\nd\n")
        self.assertEqual((status, len(out.split())), (1, 2))
        self.assertIn("lines 3 to 4 are not enqueued: FULL", err)
        self.assertEqual(len(err.splitlines()), 1)

    def test_purge_and_delete(self):
        self.assertEqual(self.run_words("delete", "-q", "q")[0], 3)
        self.run_words("configure", "-q", "q", "--ttl", "5")
        self.run_words("enqueue", "-q", "q", "a", "b")
        status, _, err = self.run_words("delete", "-q", "q")
        self.assertEqual(status, 1)
        self.assertIn("purge", err)
        self.assertEqual(self.run_words("purge", "-q", "q"), (0, "2\n", ""))
        self.assertEqual(self.run_words("purge", "-q", "q"), (3, "0\n", ""))
        self.assertEqual(self.run_words("delete", "-q", "q"), (0, "", ""))
        for words in (["purge"], ["delete"], ["configure"], ["redrive"]):
            self.assertEqual(self.run_words(*words)[0], 2, "-q is needed")

    def test_local_reads_say_their_index(self):
        self.run_words("enqueue", "x")
        self.run_words("kv", "put", "k", "v")
        index = len(self.cluster.entries)
        self.cluster.leader = ""
        local = ["--local", self.follower.address]
        for words, expected in ((["peek"], "x\n"), (["size"], "1\n"), (["queues"], "default\t1\n"),
                                (["kv", "get", "k"], "v\n"), (["kv", "list"], "k\tv\n"),
                                (["inspect"], "1\tpriority 0\tdeliveries 0\tx\n")):
            with self.subTest(words):
                self.assertEqual(self.run_words(*words, *local),
                                 (0, expected, f"mqclient: at index {index}\n"))
        self.assertEqual(self.run_words("describe", *local)[0], 0)
        self.assertEqual(self.run_words("leases", *local)[0], 3)

    def test_every_command_explains_itself(self):
        out = commandline.build_parser().format_help()
        for name in ("ack", "nack", "extend", "describe", "leases", "inspect", "configure", "purge",
                     "delete", "redrive", "execute", "kv", "watch"):
            with self.subTest(name):
                self.assertRegex(out, rf"\n    {name} +\w")
                self.assertEqual(self.run_words(name, "--help")[0], 0)
        for name in ("get", "put", "delete", "list", "cas"):
            self.assertEqual(self.run_words("kv", name, "--help")[0], 0)

    def test_wrong_arguments(self):
        for words in (["ack"], ["ack", "5"], ["ack", "5:x"], ["nack", "5:7", "--delay", "-1"],
                      ["nack", "5:7", "--delay", "1", "--backoff"], ["extend", "5:7"],
                      ["extend", "--lease", "0", "5:7"], ["dequeue", "--lease", "0"],
                      ["dequeue", "--consumer", "me"], ["enqueue", "--priority", "8", "x"],
                      ["enqueue", "--dedup", "x", "a", "b"], ["enqueue", "--dedup", "x", "-"],
                      ["enqueue", "--dedup", "x" * 256, "a"], ["kv"], ["kv", "get"],
                      ["kv", "get", ""], ["kv", "get", "k" * 256], ["kv", "put", "k"],
                      ["leases", "-n", "1001"], ["configure", "-q", "q", "--overflow", "drop"],
                      ["configure", "-q", "q", "--dead-letter", "x" * 256]):
            with self.subTest(words):
                self.assertEqual(self.run_words(*words)[0], 2)
        self.assertEqual(self.cluster.bodies, [])
        self.assertIn("5 is a message's id", self.run_words("ack", "5")[2])


class KeysTest(unittest.TestCase):
    """mqclient kv and execute."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words

    def test_put_get_delete(self):
        self.assertEqual(self.run_words("kv", "get", "k"), (3, "", ""))
        self.assertEqual(self.run_words("kv", "put", "k", "value"), (0, "1\n", ""))
        self.assertEqual(self.run_words("kv", "get", "k"), (0, "value\n", ""))
        self.assertEqual(self.run_words("kv", "put", "k", "-", given=b"\xff\n\0"), (0, "2\n", ""))
        self.assertEqual(self.run_words("kv", "get", "k")[1], "\udcff\n\0\n")
        found = json.loads(self.run_words("--json", "kv", "get", "k")[1])
        self.assertEqual(found | {"index": 0}, {
            "key": "k", "version": 2, "value": "\\xff\n\0", "value_base64": "/woA",
            "expires_ms": None, "expires_in_s": None, "index": 0})
        self.assertEqual(self.run_words("kv", "put", "k", ""), (0, "3\n", ""))
        self.assertEqual(self.run_words("kv", "get", "k"), (0, "\n", ""))
        self.assertEqual(self.run_words("kv", "delete", "k"), (0, "4\n", ""))
        self.assertEqual(self.run_words("kv", "delete", "k"), (3, "", ""))
        self.assertEqual(json.loads(self.run_words("--json", "kv", "get", "k")[1]), None)
        self.assertEqual(self.run_words("kv", "put", b"\xff" * 255, "v")[0], 0)

    def test_a_key_expires(self):
        self.run_words("kv", "put", "k", "v", "--ttl", "0.05")
        deadline = time.monotonic() + 10
        while self.run_words("kv", "get", "k")[0] != 3:
            self.assertLess(time.monotonic(), deadline)

    def test_a_value_too_large(self):
        status, _, err = self.run_words("kv", "put", "k", "-", given=bytes(1024 * 1024 + 1))
        self.assertEqual(status, 1)
        self.assertIn("1048576", err)

    def test_cas(self):
        self.run_words("kv", "put", "k", "1")
        self.assertEqual(self.run_words("kv", "cas", "k", "1", "2"), (0, "2\n", ""))
        status, out, err = self.run_words("kv", "cas", "k", "1", "3")
        self.assertEqual((status, out), (1, "2\n"))
        self.assertIn("CONFLICT: the key has version 2", err)
        status, out, _ = self.run_words("--json", "kv", "cas", "k", "1", "3")
        self.assertEqual((status, json.loads(out)),
                         (1, {"conflict": {"key": "k", "version": 2, "value": "2"}}))
        status, out, err = self.run_words("kv", "cas", "none", "1", "3")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("absent", err)

    def test_list_in_pages(self):
        for key in ("a", "b1", "b2", "b3", "c"):
            self.run_words("kv", "put", key, f"{key} value")
        with mock.patch("raftnet.client.client.KEYS_PAGE", 1):
            self.assertEqual(self.run_words("kv", "list", "b")[1],
                             "b1\tb1 value\nb2\tb2 value\nb3\tb3 value\n")
        self.assertEqual(len(self.run_words("kv", "list")[1].splitlines()), 5)
        self.assertEqual(json.loads(self.run_words("--json", "kv", "list", "c")[1]),
                         [{"key": "c", "version": 5, "value": "c value",
                           "index": len(self.cluster.entries)}])
        self.assertEqual(self.run_words("kv", "list", "z"), (3, "", ""))

    def execute(self, document: object) -> tuple[int, list, str]:
        """(exit status, results, stderr)."""
        status, out, err = self.run_words("execute", "-", given=json.dumps(document).encode())
        return status, [json.loads(line) for line in out.splitlines()], err

    def test_a_transaction_with_conditions(self):
        self.run_words("enqueue", "-q", "a", "one")
        self.run_words("dequeue", "-q", "a", "--lease", "60")
        step = {"when": [{"kv": "sum", "absent": True}, {"leased": "1:1"},
                         {"queue": "b", "at_most": 0}],
                "do": [{"ack": "1:1"}, {"enqueue": "b", "messages": ["one"], "priority": 1},
                       {"put": "sum", "value": "1"}, {"get": "sum"}, {"get": "none"}]}
        status, found, err = self.execute(step)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(found, [{"outcomes": ["done"]}, {"ids": [2], "duplicates": []},
                                 {"version": 1}, {"version": 1, "value": "1"}, {"absent": True}])
        status, found, err = self.execute(step)
        self.assertEqual((status, found), (1, []))
        self.assertIn("condition 1 does not hold", err)
        del step["when"]
        status, found, err = self.execute(step)
        self.assertEqual((status, found), (1, []))
        self.assertIn("operation 1: STALE", err)
        self.assertEqual(self.run_words("size", "-q", "b")[1], "1\n")
        status, _, err = self.execute({"when": [{"kv": "sum"}], "do": [{"size": "a"}]})
        self.assertEqual(status, 2)
        self.assertIn("condition 1: ", err)


class LibraryTest(unittest.TestCase):
    """The client library behind these."""

    setUp = test_commandline.CommandLineTest.setUp

    def client(self) -> Client:
        client = Client([self.follower.address], 20.0)
        self.addCleanup(client.close)
        return client

    def test_a_message_from_lease_to_ack(self):
        client = self.client()
        queue = client.queue("q")
        self.assertEqual(queue.enqueue("a", priority=2, ttl_s=60, dedup="x"), 1)
        self.assertEqual(queue.enqueue("a", dedup="x"), 1)
        self.assertEqual(queue.enqueue_batch(["b", "c"]), [2, 3])
        first, second = queue.lease(60, count=2)
        self.assertEqual((first.text, first.receipt, second.data), ("a", "1:1", b"b"))
        now_ms, (lease, _) = queue.leases()
        self.assertEqual((lease.consumer.decode(), lease.deadline_ms > now_ms),
                         (default_consumer(), True))
        self.assertEqual(client.extend(first.receipt, 90), [Outcome.DONE])
        self.assertEqual(client.ack([first.receipt, (9, 9)]), [Outcome.DONE, Outcome.STALE])
        self.assertEqual(client.nack(second.receipt, None, "later"), [Outcome.DONE])
        described = queue.describe()
        self.assertEqual((described.ready, described.delayed, described.leased), (1, 1, 0))
        self.assertEqual(queue.purge(), 2)

    def test_a_lost_reply_leases_once(self):
        client = self.client()
        queue = client.queue()
        queue.enqueue_batch(["a", "b"])
        self.leader.script.append(fakenode.DROP_AFTER)
        self.assertEqual(queue.lease(60)[0].receipt, "1:1")
        self.assertEqual(queue.describe().leased, 1)
        self.leader.script.append(fakenode.DROP_AFTER)
        self.assertEqual(client.ack("1:1"), [Outcome.DONE])     # and not STALE

    def test_streams_with_options(self):
        queue = self.client().queue()
        self.assertEqual(list(queue.enqueue_stream(["a", None, "b"], priority=3)), [1, 2])
        _, found = queue.inspect()
        self.assertEqual([(m.priority, m.message) for m in found], [(3, b"a"), (3, b"b")])

    def test_purge_and_redrive_go_on_in_pieces_and_end(self):
        client = self.client()
        queue = client.queue("q")
        queue.enqueue_batch(["x"] * 25)
        limits = mock.Mock(purge_count_max=10, redrive_count_max=10)
        with mock.patch.object(queues, "_LIMITS", limits):
            asked = len(self.cluster.bodies)
            self.assertEqual(queue.purge(), 25)
            self.assertEqual(len(self.cluster.bodies) - asked, 3)
            self.assertEqual(client.queue("none").purge(), 0)
            queue.configure(delivery_limit=1, dead_letter="dead")
            queue.enqueue_batch(["x"] * 15)
            client.nack([message.receipt for message in queue.lease(60, 15)])
            self.assertEqual(client.queue("dead").redrive(limit=12), 12)
            client.queue("dead").enqueue("no dead letter: it stays")
            self.assertEqual(client.queue("dead").redrive(), 3)
            self.assertEqual(queue.size().messages, 15)

    def test_refusals_carry_what_is_there(self):
        client = self.client()
        client.kv_put("k", b"v")
        with self.assertRaises(StateRefusedError) as caught:
            client.kv_put("k", "w", condition=Condition(ConditionKind.VERSION, 9))
        self.assertEqual((caught.exception.status, caught.exception.version,
                          caught.exception.value), (Status.CONFLICT, 1, b"v"))
        with self.assertRaises(StateRefusedError) as caught:
            client.execute([{"size": "q"}], when=[{"kv": "k", "version": 1},
                                                  {"queue": "q", "at_least": 1}])
        self.assertEqual(caught.exception.position, 1)
        self.assertEqual(client.execute([{"get": "k"}], when=[{"kv": "k", "version": 1}])[0].value,
                         b"v")
        self.assertEqual(client.kv_delete("k", Condition(ConditionKind.VERSION, 1)), 2)

    def test_settings_by_name(self):
        queue = self.client().queue("q")
        queue.configure(dead_letter="", ttl_s=1.5, bytes_max=7)
        settings = queue.describe().settings
        self.assertEqual({number: settings[number] for number in (1, 3, 5)},
                         {1: b"", 3: 1_500, 5: 7})
        self.assertEqual(set(settings), set(queuecommands.Setting))
        for wrong in ({}, {"nonsense": 1}, {"ttl_ms": 5}, {"bytes_max": 1.5}, {"bytes_max": -1},
                      {"ttl_s": -1}, {"dead_letter": "x" * 256}):
            with self.subTest(wrong), self.assertRaises(MalformedError):
                queue.configure(**wrong)


if __name__ == "__main__":
    unittest.main()
