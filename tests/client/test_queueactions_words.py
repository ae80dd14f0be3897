"""What mqclient's commands on queues tell people: the time as it is, where dead letters go, what a
redrive cannot find, which limit was passed and what to do. Against the real machine behind nodes
played in this process."""

import contextlib
import io
import json
import unittest

from raftnet.client import Client, commandline
from raftnet.client.operations import check_status, reason_text
from raftnet.client.queueactions import default_dead_letter
from raftnet.errors import NoAnswerError, RefusedError
from raftnet.machine import settings
from raftnet.wire.commands import Status
from tests.client import fakenode, test_commandline
from tests.wire.document import DOCUMENT


class WordsTest(unittest.TestCase):
    """Words in, lines and exit statuses out."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words

    # --- time

    def test_leases_and_inspect_tell_the_time_as_it_is(self):
        self.cluster._now_ms = lambda: 1_000
        self.run_words("enqueue", "--ttl", "100", "a", "b")
        self.run_words("dequeue", "--lease", "30")
        self.run_words("dequeue", "--lease", "5", "-n", "1")
        self.run_words("nack", "2:2")
        self.cluster._now_ms = lambda: 9_000        # and nothing was written meanwhile
        (lease,) = json.loads(self.run_words("--json", "leases")[1])
        self.assertEqual((lease["ends_in_ms"], lease["taken_ms_ago"]), (22_000, 8_000))
        self.cluster._now_ms = lambda: 17_000
        self.assertIn("ends in 14 s\ttaken 16 s ago", self.run_words("leases")[1])
        self.cluster._now_ms = lambda: 25_000
        (message,) = json.loads(self.run_words("--json", "inspect")[1])
        self.assertEqual((message["id"], message["expires_in_ms"],
                          message["history"][0]["ms_ago"]), (2, 76_000, 24_000))
        self.cluster._now_ms = lambda: 33_000
        self.assertEqual(self.run_words("leases")[0], 3, "it has ended")

    def test_leases_and_inspect_of_one_node_write_nothing(self):
        self.run_words("enqueue", "a", "b")
        self.run_words("dequeue", "--lease", "30")
        entries = len(self.cluster.entries)
        for word in ("leases", "inspect"):
            self.assertEqual(self.run_words(word, "--local", self.follower.address)[0], 0)
        self.assertEqual(len(self.cluster.entries), entries)

    def test_looking_without_an_answer_may_be_repeated(self):
        self.leader.script.append(fakenode.SILENT_AFTER)
        with Client([self.leader.address], timeout_s=0.2) as client:
            with self.assertRaisesRegex(NoAnswerError, "it only looks: ask again") as caught:
                client.queue().leases()
        self.assertEqual((caught.exception.known, caught.exception.resume), (True, None))

    # --- dead letters

    def dead_letters_behind(self, plain: int, dead: int) -> None:
        """A queue `dead` with so many messages that are no dead letters, and so many behind."""
        with Client([self.leader.address]) as client:
            for _ in range(0, plain, 1_000):
                client.queue("dead").enqueue_batch(["plain"] * min(plain, 1_000))
            queue = client.queue("q")
            queue.configure(delivery_limit=1, dead_letter="dead")
            queue.enqueue_batch(["x"] * dead)
            client.nack([message.receipt for message in queue.lease(60, dead)])

    def test_a_redrive_says_what_it_did_not_look_at(self):
        self.dead_letters_behind(plain=10, dead=3)
        status, out, err = self.run_words("redrive", "-q", "dead", "-n", "1")
        self.assertEqual((status, out), (3, "0\n"))
        self.assertRegex(err, r"^mqclient: there is no dead letter among the first 10 of 13 "
                         r"messages, .*-n.*--to QUEUE.*\n$")
        status, out, err = self.run_words("--json", "redrive", "-q", "dead", "-n", "2")
        self.assertEqual((status, json.loads(out), err), (0, {"moved": 2, "left": 11}, ""))
        self.assertEqual(self.run_words("redrive", "-q", "dead", "-n", "20")[:2], (0, "1\n"))

    def test_a_redrive_that_cannot_reach_far_enough(self):
        self.dead_letters_behind(plain=11_000, dead=1)
        status, out, err = self.run_words("redrive", "-q", "dead")
        self.assertEqual((status, out), (3, "0\n"))
        self.assertIn("no dead letter among the first 10000 of 11001 messages", err)
        self.assertIn("--to QUEUE", err)
        self.assertNotIn("-n,", err)

    def test_a_redrive_of_what_came_from_nowhere(self):
        self.dead_letters_behind(plain=3, dead=2)
        status, out, err = self.run_words("redrive", "-q", "dead")
        self.assertEqual((status, out), (0, "2\n"))
        self.assertIn("the messages that are left (3) came from no other queue", err)
        self.assertIn("--to QUEUE", err)
        self.assertEqual(self.run_words("redrive", "-q", "dead", "--to", "q"), (0, "3\n", ""))
        self.assertEqual(self.run_words("redrive", "-q", "dead"), (3, "0\n", ""))

    def test_where_dead_letters_go_by_default(self):
        for length in (1, 5, 249, 250, 251, 255):
            for ending in (b"", b".dead"):
                name = (b"n" * length + ending)[-length:]
                with self.subTest(name):
                    self.assertEqual(default_dead_letter(name), settings.default_dead_letter(name))
        for name, shown in (("q", "q.dead"), ("n" * 250, "n" * 250 + ".dead"), ("n" * 251, None),
                            ("q.dead", None)):
            with self.subTest(name):
                line = self.run_words("describe", "-q", name)[1].splitlines()[8]
                words = f"{shown} (default)" if shown else "none"
                self.assertEqual(line, f"dead-letter\t{words}")
                found = json.loads(self.run_words("--json", "describe", "-q", name)[1])
                self.assertEqual(found["settings"]["dead_letter"], shown)
        found = self.run_words("--json", "configure", "-q", "q", "--dead-letter", "")[1]
        self.assertEqual(json.loads(found), {"dead_letter": "q.dead"})
        found = self.run_words("--json", "configure", "-q", "q", "--dead-letter", "graves")[1]
        self.assertEqual(json.loads(found), {"dead_letter": "graves"})

    def test_a_delivery_limit_without_a_dead_letter_queue(self):
        for name in ("n" * 251, "q.dead"):
            configure = ["configure", "-q", name]
            for words, named in ((["--delivery-limit", "3"], "--delivery-limit without effect"),
                                 (["--overflow", "dead-letter", "--dead-letter", ""],
                                  "--overflow without effect")):
                with self.subTest(words):
                    status, _, err = self.run_words(*configure, *words)
                    self.assertEqual((status, len(err.splitlines())), (0, 1))
                    self.assertIn(named, err)
            for words in (["--delivery-limit", "0"], ["--overflow", "refuse"], ["--ttl", "5"],
                          ["--delivery-limit", "3", "--dead-letter", "graves"],
                          ["--delivery-limit", "4"]):     # graves is there now
                with self.subTest(words):
                    status, _, err = self.run_words(*configure, *words)
                    self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.run_words("configure", "-q", "q", "--delivery-limit", "3")[2], "")

    # --- lists

    def test_a_stale_receipt_is_explained_as_by_ack(self):
        self.run_words("enqueue", "x")
        self.run_words("dequeue", "--lease", "60")
        self.run_words("ack", "1:1")
        meaning = "that lease has ended, and the message was given back or acknowledged meanwhile"
        self.assertIn(meaning, self.run_words("ack", "1:1")[2])
        status, _, err = self.execute([{"ack": "1:1"}])
        self.assertEqual(status, 1)
        self.assertIn(f"operation 1: STALE: {meaning}", err)

    def test_version_0_is_an_absent_key(self):
        when = {"when": [{"kv": "k", "version": 0}], "do": [{"put": "k", "value": "v"}]}
        self.assertEqual(self.execute(when)[:2], (0, [{"version": 1}]))
        status, _, err = self.execute(when)
        self.assertEqual(status, 1)
        self.assertIn("condition 1 does not hold", err)
        self.assertIn("(0: it is absent)", self.help_of("execute"))

    def test_a_purge_in_a_list_tells_what_is_left(self):
        with Client([self.leader.address]) as client:
            client.queue("q").enqueue_batch(["x"] * 12_000)
            (purged,) = client.execute([{"purge": "q"}])
            self.assertEqual((purged, purged.left), (10_000, 2_000))
            (purged,) = client.execute([{"purge": "none"}])
            self.assertEqual((purged, purged.left), (0, 0))
        self.assertRegex(self.help_of("execute"), '"limit": .*at most 10000')

    def test_purges_that_are_too_much_for_one_list(self):
        with Client([self.leader.address]) as client:
            client.queue("a").enqueue_batch(["x"] * 10_001)
            client.queue("b").enqueue_batch(["x"])
        status, _, err = self.execute([{"purge": "a"}, {"purge": "b"}])
        self.assertEqual(status, 1)
        self.assertRegex(err, "REPLY_FULL: nothing of the list was done: .*more than 10000 messag")
        self.assertEqual(self.execute([{"purge": "a", "limit": 9_999}, {"purge": "b"}])[0], 0)
        self.assertIn("ask for less at once", str(self.refusal(Status.REPLY_FULL, b"")))

    def test_a_key_that_stands_twice_in_an_object(self):
        for given, text in (
                (b'[{"size": "q"}, {"enqueue": "b", "enqueue": "c", "messages": ["x"]}]',
                 'operation 2: "enqueue" is given twice'),
                (b'{"when": [{"kv": "k", "version": 1, "version": 2}], "do": [{"size": "q"}]}',
                 'condition 1: "version" is given twice'),
                (b'{"do": [{"size": "q"}], "do": []}', '"do" is given twice')):
            with self.subTest(given):
                status, _, err = self.execute(given)
                self.assertEqual(status, 2)
                self.assertIn(text, err)
        self.assertEqual(self.cluster.bodies, [])

    def test_what_type_is_wanted(self):
        for operation, text in (
                ({"enqueue": 5, "messages": ["x"]}, "a queue's name is a text, not 5"),
                ({"size": None}, "a queue's name is a text, not None"),
                ({"get": 5}, "a key is a text, not 5"),
                ({"ack": 5}, 'a receipt "ID:DELIVERY", or a list of receipts, is needed, not 5'),
                ({"nack": None}, 'a receipt "ID:DELIVERY", or a list of receipts, is needed'),
                ({"extend": {}, "seconds": 1}, 'a receipt "ID:DELIVERY", or a list of receipts'),
                ({"ack": []}, "at least one receipt is needed"),
                ({"nack": "1:1", "reason": 5}, "a reason is a text, not 5")):
            with self.subTest(operation):
                status, _, err = self.execute([operation])
                self.assertEqual(status, 2)
                self.assertIn(f"operation 1: {text}", err)

    def test_a_long_reason_is_cut(self):
        self.assertEqual(reason_text("x" * 255), b"x" * 255)
        for given, kept in ((b"x" * 256, b"x" * 252), ("ж" * 128, "ж".encode() * 126),
                            ("xж" + "ж" * 127, b"x" + "ж".encode() * 125), (b"\x80" * 300,
                                                                          b"\x80" * 252),
                            ("x" + "😀" * 99, b"x" + "😀".encode() * 62)):
            self.assertEqual(reason_text(given), kept + b"...")
        self.run_words("enqueue", "x")
        for how in ("word", "list"):
            lease = self.run_words("dequeue", "--lease", "60")[1].split("\t")[0]
            if how == "word":
                self.assertEqual(self.run_words("nack", "--reason", "ü" * 200, lease)[0], 0)
            else:
                self.assertEqual(self.execute([{"nack": lease, "reason": "ü" * 200}])[0], 0)
            (message,) = json.loads(self.run_words("--json", "inspect")[1])
            self.assertEqual(message["history"][-1]["text"], "ü" * 126 + "...")

    # --- help

    def test_help_says_what_is_true(self):
        for words, text in (
                (["nack"], "return to their old place at once, or with --delay or --backoff to the "
                 "tail"),
                (["enqueue"], "counted from when it is ready"),
                (["enqueue"], "default: 0, which means the queue's setting"),
                (["queues"], "(ready, delayed or leased) or were configured"),
                (["peek"], "messages of a queue that are ready"),
                (["inspect"], "first messages that are ready"),
                (["redrive"], "hides what is behind"),
                (["leases"], "stands still while nothing is written")):
            with self.subTest(words):
                self.assertIn(text, self.help_of(*words))

    def test_what_that_help_says(self):
        self.cluster._now_ms = lambda: 1_000
        self.run_words("enqueue", "--delay", "10", "--ttl", "5", "late")
        self.run_words("enqueue", "-q", "leased", "x")
        self.run_words("dequeue", "-q", "leased", "--lease", "60")
        self.run_words("configure", "-q", "told", "--ttl", "60")
        self.assertEqual(self.run_words("queues")[1], "default\t0\nleased\t0\ntold\t0\n")
        self.cluster._now_ms = lambda: 11_000
        (message,) = json.loads(self.run_words("--json", "inspect")[1])
        self.assertEqual(message["expires_in_ms"], 5_000)
        self.run_words("enqueue", "-q", "told", "--ttl", "0", "x")
        (message,) = json.loads(self.run_words("--json", "inspect", "-q", "told")[1])
        self.assertEqual(message["expires_in_ms"], 60_000)

    # --- full queues

    def test_a_full_queue_names_its_option_and_what_never_fits(self):
        self.run_words("configure", "-q", "q", "--max-bytes", "4", "--max-messages", "2",
                       "--overflow", "dead-letter")
        self.run_words("enqueue", "-q", "q", "a", "b")
        status, _, err = self.run_words("enqueue", "-q", "q", "12345")
        self.assertEqual(status, 1)
        self.assertIn("--max-messages", err)
        self.assertRegex(err, "an enqueue that alone is more than .*--max-bytes never fits")
        self.assertEqual(self.run_words("enqueue", "-q", "q", "1234")[0], 0)
        self.assertIn("(bytes_max, configure --max-bytes)",
                      self.run_words("enqueue", "-q", "q", "12345")[2])
        self.assertIn("(newer_max)", str(self.refusal(Status.FULL, b"newer_max")))

    # --- limits

    def test_a_limit_is_named_by_option_number_and_unit(self):
        for words, number in (
                (["enqueue", "--delay", "2592000.001", "x"], "--delay.* at most 2592000 s"),
                (["enqueue", "--ttl", "31536001", "x"], "--ttl.* at most 31536000 s"),
                (["dequeue", "--lease", "43201"], "--lease: '43201'.* 0.001 to 43200 s.*extend"),
                (["extend", "--lease", "43201", "1:1"], "--lease.* 0.001 to 43200 s"),
                (["nack", "--delay", "2592001", "1:1"], "--delay.* at most 2592000 s"),
                (["kv", "put", "--ttl", "31536001", "k", "v"], "--ttl.* at most 31536000 s"),
                (["kv", "cas", "--ttl", "31536001", "k", "v", "w"], "--ttl.* at most 31536000 s"),
                (["configure", "-q", "q", "--ttl", "31536001"], "--ttl.* at most 31536000 s"),
                (["configure", "-q", "q", "--dedup-window", "31536001"],
                 "--dedup-window.* at most 31536000 s"),
                (["configure", "-q", "q", "--backoff", "2592001"], "--backoff.* 2592000 s"),
                (["configure", "-q", "q", "--backoff-max", "2592001"], "--backoff-max.* 2592000 s"),
                (["ack"] + ["1:1"] * 10_001, "10001 receipts: at most 10000"),
                (["nack"] + ["1:1"] * 10_001, "10001 receipts: at most 10000"),
                (["extend", "--lease", "1"] + ["1:1"] * 10_001, "10001 receipts: at most 10000")):
            with self.subTest(words[:4]):
                status, _, err = self.run_words(*words)
                self.assertEqual(status, 2)
                self.assertRegex(err, number)
        self.assertEqual(self.cluster.bodies, [])
        self.assertEqual(self.run_words("enqueue", "--delay", "2592000", "--ttl", "31536000",
                                        "x")[0], 0)
        self.assertEqual(self.run_words("dequeue", "--lease", "43200", "--wait", "0")[0], 3)

    def test_a_limit_in_a_list_is_named_with_its_place(self):
        fine = {"size": "q"}
        for status, operation, text in (
                (2, {"enqueue": "q", "messages": ["a"], "delay": 2_592_001}, "delay 2592001: .* s"),
                (2, {"enqueue": "q", "messages": ["a"], "ttl": 4e7}, "ttl 40000000: .* 31536000 s"),
                (2, {"lease": "q", "seconds": 43_201}, "seconds 43201: .* 43200 s"),
                (2, {"lease": "q", "seconds": 0}, "seconds 0: a lease lasts 0.001"),
                (2, {"lease": "q", "seconds": 1, "count": 10_001}, "10001: 1 to 10000 messages"),
                (2, {"dequeue": "q", "count": 10_001}, "10001: 1 to 10000 messages"),
                (2, {"peek": "q", "count": 10_001}, "10001: 1 to 10000 messages"),
                (2, {"purge": "q", "limit": 10_001}, "10001: 1 to 10000 messages"),
                (2, {"ack": ["1:1"] * 10_001}, "10001 receipts: at most 10000"),
                (2, {"nack": "1:1", "delay": 2_592_001}, "delay 2592001: "),
                (2, {"nack": ["1:1"] * 10_001}, "10001 receipts"),
                (2, {"extend": "1:1", "seconds": 43_201}, "seconds 43201: "),
                (2, {"extend": ["1:1"] * 10_001, "seconds": 1}, "10001 receipts"),
                (2, {"put": "k", "value": "v", "ttl": 31_536_001}, "ttl 31536001: "),
                (1, {"put": "k", "value": "v" * (2 ** 20 + 1)}, "1048577 bytes: at most 1048576")):
            with self.subTest(text):
                found, _, err = self.execute([fine, operation])
                self.assertEqual(found, status)
                self.assertRegex(err, f"operation 2: .*{text}")
        self.assertEqual(self.cluster.bodies, [])

    def test_a_limit_that_the_node_names(self):
        with Client([self.leader.address]) as client:
            queue = client.queue("q")
            for do, text in (
                    (lambda: queue.enqueue("m", delay_s=2_592_001),
                     r"LIMIT: a delay or back-off is at most 2592000 s: .* \(delay_ms_max\)"),
                    (lambda: queue.lease(43_201), r"43200 s: .* \(lease_ms_max\)"),
                    (lambda: queue.configure(ttl_s=4e7), r"31536000 s: .* \(ttl_ms_max\)"),
                    (lambda: queue.dequeue_many(10_001), r"10000 messages .*\(dequeue_count_max\)"),
                    (lambda: client.ack([(1, 1)] * 10_001), "at most 10000 receipts"),
                    (lambda: queue.inspect(1_001), r"1000 are shown .*\(shown_count_max\)"),
                    (lambda: client.execute([{"get": "k"}] * 1_001), "at most 1000 operations"),
                    (lambda: queue.configure(dead_letter="q"), "LIMIT: a queue is not its own")):
                with self.subTest(text), self.assertRaisesRegex(RefusedError, text):
                    do()

    def test_every_limit_of_a_status_has_a_meaning(self):
        (rows,) = DOCUMENT.tables["Limits"]
        for row in rows:
            name = row["name"].strip("`")
            if "status LIMIT" in row["what it limits"]:
                with self.subTest(name):
                    text = str(self.refusal(Status.LIMIT, f"such: 1 to {name}".encode()))
                    self.assertRegex(text, rf"^LIMIT: .*\d.* \({name}\)$")
                    self.assertNotIn("such", text)
        self.assertEqual(str(self.refusal(Status.LIMIT, b"of a newer_max")),
                         "LIMIT: of a newer_max")
        self.assertEqual(str(self.refusal(Status.LIMIT, b"")), "LIMIT: over a limit")

    def refusal(self, status: int, payload: bytes, operation: int | None = None) -> RefusedError:
        """What check_status makes of a status."""
        with self.assertRaises(RefusedError) as caught:
            check_status(status, payload, operation)
        return caught.exception

    def execute(self, document: object) -> tuple[int, list, str]:
        """(exit status, results, stderr) of a document, or of its bytes."""
        given = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, out, err = self.run_words("execute", "-", given=given)
        return status, [json.loads(line) for line in out.splitlines()], err

    def help_of(self, *words: str) -> str:
        """What --help of a command prints, on one line."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self.assertRaises(SystemExit):
            commandline.build_parser().parse_args([*words, "--help"])
        return " ".join(out.getvalue().split())


if __name__ == "__main__":
    unittest.main()
