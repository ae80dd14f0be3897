"""Watching from the client's side: resumed at whoever leads, nothing twice, listed again after a
gap; and what `mqclient watch` prints."""

import contextlib
import io
import itertools
import json
import select
import signal
import subprocess
import sys
import threading
import unittest
from pathlib import Path

from raftnet.client import Client, commandline, watching
from raftnet.client.watching import Event, WatchExchange
from raftnet.errors import ErrorCode, MalformedError, NoAnswerError, RefusedError
from raftnet.wire import kvcommands, requests, watches
from raftnet.wire.commands import Operation, Status
from raftnet.wire.frames import FrameReader, Kind
from raftnet.wire.watches import Change, EventType, Watch, WatchWhat
from tests.client.fakenode import FakeCluster, Refuse
from tools.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20
KEY, PREFIX, QUEUE = WatchWhat
PUT, DELETED, EXPIRED, SIZE = EventType


def put(index: int, version: int, name: bytes = b"k", value: bytes = b"v") -> Change:
    return Change(PUT, name, version, index, value)


class Exchange(unittest.TestCase):
    """Without I/O."""

    def setUp(self):
        self.make(KEY, b"k", 0)

    def make(self, what: int, name: bytes, from_index: int) -> None:
        self.exchange = WatchExchange(what, name, from_index, False, itertools.count(1))
        self.request_id = 0

    def sent(self) -> Watch | None:
        """What goes out now."""
        frames = FrameReader().feed(self.exchange.output(0.0))
        for kind, self.request_id, body in frames:
            self.assertEqual(kind, Kind.WATCH)
            return watches.decode_watch(body)
        return None

    def told(self, index: int, *changes: Change, request_id: int | None = None) -> list[Change]:
        """An event comes; what is new of it."""
        self.exchange.receive(Kind.WATCH_EVENT, request_id or self.request_id,
                              watches.encode_watch_event(index, changes))
        found = list(self.exchange.changes)
        self.exchange.changes.clear()
        return found

    def error(self, code: ErrorCode):
        return self.exchange.receive(Kind.ERROR, self.request_id,
                                     requests.encode_error(code, "why", "l:1"))

    def test_it_goes_on_where_it_was(self):
        self.assertEqual(self.sent(), Watch(False, KEY, 0, b"k"))
        self.assertIsNone(self.sent())
        self.assertEqual(self.told(5, put(5, 2)), [put(5, 2)])
        self.told(900)
        for lose in (self.exchange.connection_lost, lambda: self.error(ErrorCode.NOT_LEADER)):
            self.assertTrue(self.exchange.begun)
            lose()
            self.assertFalse(self.exchange.begun)
            self.assertEqual(self.sent(), Watch(False, KEY, 900, b"k"))
            self.told(900)

    def test_a_refusal_says_who_leads(self):
        self.sent()
        self.assertEqual(self.error(ErrorCode.NOT_LEADER), (ErrorCode.NOT_LEADER, "why", "l:1"))

    def test_nothing_is_given_out_twice(self):
        self.make(PREFIX, b"", 3)
        self.sent()
        # cut in the midst of entry 5
        self.assertEqual(len(self.told(4, put(5, 7), put(5, 8, b"l"))), 2)
        self.exchange.connection_lost()
        self.assertEqual(self.sent().from_index, 4)
        rest = [put(5, 9, b"m"), put(6, 10)]
        self.assertEqual(self.told(6, put(5, 7), put(5, 8, b"l"), *rest), rest)

    def test_an_earlier_sending_counts_no_more(self):
        self.sent()
        self.exchange.connection_lost()
        self.sent()
        self.assertEqual(self.told(9, put(9, 9), request_id=1), [])
        self.assertEqual(self.exchange.told, 0)

    def test_a_size_is_given_out_when_it_is_another(self):
        self.make(QUEUE, b"q", 0)
        self.sent()
        one = Change(SIZE, b"q", 1, 4, watches.encode_sizes(0, 0, 9))
        self.assertEqual(self.told(4, one), [one])
        self.exchange.connection_lost()
        self.sent()
        self.assertEqual(self.told(8, one._replace(index=8)), [])
        leased = one._replace(value=watches.encode_sizes(1, 0, 9))
        self.assertEqual(self.told(9, leased), [leased])

    def test_after_a_listing_of_several_pages(self):
        self.make(PREFIX, b"", 3)
        self.sent()
        self.assertIsNone(self.error(ErrorCode.WATCH_GONE))
        self.assertEqual(self.exchange.gone, "why")
        self.assertIsNone(self.sent(), "the listing comes first")
        self.exchange.go_on(10, {b"y": 25}, 12)     # y was read at 12, with what came at 11
        self.assertEqual(self.sent().from_index, 10)
        ahead, new = put(11, 25, b"y"), put(11, 26, b"x")
        self.assertEqual(self.told(11, ahead, new), [new])
        self.assertEqual(self.told(13, put(13, 27, b"y")), [put(13, 27, b"y")])

    def test_what_no_node_says(self):
        self.sent()
        for kind, body in [(Kind.REPLY, b""), (Kind.WATCH_EVENT, watches.encode_watch_ended(3))]:
            with self.subTest(kind), self.assertRaises(MalformedError):
                self.exchange.receive(kind, self.request_id, body)


class NodesCase(unittest.TestCase):
    """With two nodes that a test plays: `asked` has each WATCH, of whichever node."""

    def setUp(self):
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader, self.other = self.cluster.node(), self.cluster.node()
        self.asked: list[tuple] = []            # (node, Watch)
        self.answers = {self.leader: [], self.other: []}    # to each WATCH; else: who leads
        for node in (self.leader, self.other):
            node.handlers[Kind.WATCH] = lambda body, node=node: self.answer(node, body)
        self.client = Client([self.other.address], timeout_s=LIMIT_S)
        self.addCleanup(self.client.close)
        self.said: list[str] = []

    def answer(self, node, body: bytes):
        self.asked.append((node, watches.decode_watch(body)))
        if self.answers[node]:
            return self.answers[node].pop(0)
        return Refuse(ErrorCode.NOT_LEADER, self.cluster.leader)

    def watch(self, what: int, name: bytes, *of) -> watching.Watching:
        found = watching.watch(self.client, what, name, *of, say=self.said.append)
        self.addCleanup(found.close)
        return found

    @staticmethod
    def event(index: int, *changes: Change) -> tuple[int, bytes]:
        return Kind.WATCH_EVENT, watches.encode_watch_event(index, changes)

    def push(self, node, request_id: int, kind: int, body: bytes) -> None:
        node.connections[-1].answer(kind, request_id, body)

    def cut_when_begun(self, events: watching.Watching, node) -> None:
        """End its connection, once the first event was read from it; while another thread reads."""
        def cut():
            wait_until(lambda: events._exchange.begun, LIMIT_S, "the first event")
            node.connections[-1].close()
        thread = threading.Thread(target=cut)
        thread.start()
        self.addCleanup(thread.join)


class AgainstNodes(NodesCase):
    """The library."""

    def test_it_follows_the_leader(self):
        leader, other = self.leader, self.other
        self.answers[leader].append(self.event(3, put(3, 1)))
        events = self.watch(KEY, b"k")
        self.assertEqual(next(events), Event("put", b"k", 1, 3, b"v"))
        self.push(leader, 2, *self.event(4, put(4, 2, value=b"w")))
        self.assertEqual(next(events), Event("put", b"k", 2, 4, b"w"))
        self.push(leader, 2, *self.event(600))
        # it leads no more, and does not know who does
        self.cluster.leader = other.address
        self.answers[other].append(self.event(700, put(650, 9)))
        self.push(leader, 2, Kind.ERROR, requests.encode_error(ErrorCode.NOT_LEADER, "", ""))
        self.assertEqual(next(events), Event("put", b"k", 9, 650, b"v"))
        self.assertEqual((self.asked[0], self.asked[-1]),
                         ((other, Watch(False, KEY, 0, b"k")),
                          (other, Watch(False, KEY, 600, b"k"))))
        self.assertEqual(events.index, 700)

    def test_a_connection_that_ends(self):
        leader = self.leader
        self.answers[leader] += [self.event(3), self.event(8, put(8, 2))]
        events = self.watch(KEY, b"k")
        self.cut_when_begun(events, leader)
        self.assertEqual(next(events).index, 8)
        self.assertEqual([asked.from_index for node, asked in self.asked if node is leader], [0, 3])

    def test_a_gap_is_listed(self):
        leader = self.leader
        gone = Refuse(ErrorCode.WATCH_GONE)
        self.answers[leader] += [self.event(20), gone, self.event(31, put(31, 8, b"pb"))]
        reads = {b"": (30, True, [(b"pa", 4, b"1")]),
                 b"pa": (31, False, [(b"pb", 8, b"2"), (b"pc", 5, b"\xff")])}

        def read(body):
            _, command = requests.decode_read(body)
            self.assertEqual(command[4], Operation.KV_LIST)
            prefix, after, _ = kvcommands.decode_kv_list(command[4:])
            self.assertEqual(prefix, b"p")
            index, more, items = reads[after]
            return Kind.READ_REPLY, requests.encode_read_reply(
                index, Status.OK, kvcommands.encode_kv_list_result(more, items))
        leader.handlers[Kind.READ] = read
        events = self.watch(PREFIX, b"p", 20)
        self.cut_when_begun(events, leader)
        found = [next(events) for _ in range(4)]
        self.assertEqual(found, [Event("gone", b"p", 0, 30, b""),
                                 Event("put", b"pa", 4, 30, b"1", True),
                                 Event("put", b"pb", 8, 30, b"2", True),
                                 Event("put", b"pc", 5, 30, b"\xff", True)])
        self.assertEqual(self.asked[-1][1].from_index, 20)
        self.answers[leader].append(self.event(40, put(40, 10, b"pd")))
        self.cut_when_begun(events, leader)
        self.assertEqual(next(events).name, b"pd", "pb was listed with that version")
        asked = [asked.from_index for node, asked in self.asked if node is leader]
        self.assertEqual(asked[:4], [20, 20, 30, 31], "the index of the first page, then on")
        self.assertIn("after index 20 were missed", self.said[0])

    def test_a_key_that_is_gone_after_a_gap(self):
        self.answers[self.leader] += [Refuse(ErrorCode.WATCH_GONE), self.event(9, put(9, 3))]
        self.leader.handlers[Kind.READ] = lambda body: (
            Kind.READ_REPLY, requests.encode_read_reply(7, Status.EMPTY, b""))
        events = self.watch(KEY, b"k", 2)
        self.assertEqual([next(events)[:4] for _ in range(2)],
                         [("gone", b"k", 0, 7), ("put", b"k", 3, 9)])

    def test_the_time_limit_is_for_the_first_answer(self):
        self.client.timeout_s = 0.2
        with self.assertRaises(NoAnswerError):
            next(self.watch(KEY, b"k"))
        self.answers[self.leader].append(self.event(3))
        events = self.watch(KEY, b"k")
        later = threading.Timer(0.4, lambda: self.push(self.leader, 2, *self.event(4, put(4, 1))))
        later.start()
        self.addCleanup(later.join)
        self.assertEqual(next(events).index, 4)

    def test_what_no_retry_heals(self):
        self.answers[self.leader].append(Refuse(ErrorCode.TOO_LARGE))
        with self.assertRaises(RefusedError):
            next(self.watch(KEY, b"k"))

    def test_that_node_alone(self):
        self.answers[self.other].append(self.event(3, put(3, 1)))
        events = self.watch(KEY, b"k", 2, self.other.address)
        self.assertEqual(next(events).index, 3)
        self.assertEqual(self.asked, [(self.other, Watch(True, KEY, 2, b"k"))])


class CommandLine(NodesCase):
    """The program."""

    def start(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "mqclient.py"), "-s", self.other.address, "watch", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def line(self, process: subprocess.Popen) -> bytes:
        ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
        self.assertTrue(ready, "a line at once, although nothing follows")
        return process.stdout.readline()

    def test_lines_until_ctrl_c(self):
        self.answers[self.leader].append(self.event(3, put(3, 1, b"a b\xfe", b"\xff 1")))
        process = self.start("prefix", "")
        self.assertEqual(self.line(process), b"3\tput\ta b\xfe\t1\t\xff 1\n")
        self.push(self.leader, 2, *self.event(5, Change(DELETED, b"k", 2, 4, b""),
                                              Change(EXPIRED, b"l", 3, 5, b"")))
        self.assertEqual(self.line(process), b"4\tdeleted\tk\t2\t\n")
        self.assertEqual(process.stdout.readline(), b"5\texpired\tl\t3\t\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual((process.wait(LIMIT_S), process.stderr.read()), (130, b""))

    def test_json_and_count(self):
        self.answers[self.leader].append(self.event(
            5, put(3, 1, b"k", b"\xff"), Change(DELETED, b"k", 2, 4, b""), put(5, 3)))
        process = self.start("key", "k", "--json", "--count", "2", "--from", "2")
        output, errors = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, errors), (0, b""))
        self.assertEqual([json.loads(line) for line in output.splitlines()], [
            {"index": 3, "type": "put", "key": "k", "version": 1, "value": "\\xff",
             "value_base64": "/w=="},
            {"index": 4, "type": "deleted", "key": "k", "version": 2}])
        self.assertEqual(self.asked[-1][1], Watch(False, KEY, 2, b"k"))

    def test_a_queue(self):
        sizes = Change(SIZE, b"q", 4, 7, watches.encode_sizes(1, 2, 30))
        self.answers[self.leader] += [self.event(7, sizes)] * 2
        process = self.start("queue", "q", "--count", "1")
        self.assertEqual(process.communicate(timeout=LIMIT_S)[0],
                         b"7\tsize\tq\t4\tleased 1 delayed 2 bytes 30\n")
        process = self.start("queue", "q", "--count", "1", "--json")
        self.assertEqual(json.loads(process.communicate(timeout=LIMIT_S)[0]),
                         {"index": 7, "type": "size", "queue": "q", "ready": 4, "leased": 1,
                          "delayed": 2, "bytes": 30})

    def test_a_listing_is_marked(self):
        self.answers[self.leader] += [Refuse(ErrorCode.WATCH_GONE), self.event(9)]
        self.leader.handlers[Kind.READ] = lambda body: (
            Kind.READ_REPLY, requests.encode_read_reply(
                9, Status.OK, kvcommands.encode_kv_get_result(3, 0, b"v")))
        process = self.start("key", "k", "--from", "2", "--count", "2")
        output, errors = process.communicate(timeout=LIMIT_S)
        self.assertEqual(output, b"9\tgone\tk\t0\t\n9\tlisted\tk\t3\tv\n")
        self.assertIn(b"missed", errors)

    def test_wrong_words(self):
        for words in (["key", ""], ["queue", ""], ["key", "x" * 256], ["table", "x"],
                      ["key", "k", "--from", "0"]):
            with self.subTest(words), contextlib.redirect_stderr(io.StringIO()):
                try:
                    status = commandline.main(["-s", self.other.address, "watch", *words])
                except SystemExit as ended:
                    status = ended.code
                self.assertEqual(status, 2)


if __name__ == "__main__":
    unittest.main()
