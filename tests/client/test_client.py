"""Client against nodes that misbehave: exactly once, whatever is lost on the way."""

import socket
import threading
import time
import unittest
from unittest import mock

from raftnet.client import Client, QueueSize
from raftnet.client import client as clients
from raftnet.client import link as links
from raftnet.client import patience, queue
from raftnet.client import session as sessions
from raftnet.errors import ErrorCode, MalformedError, NoAnswerError, RefusedError
from raftnet.wire import commands, queuecommands, requests
from tests.client import fakenode
from tests.client.fakenode import FakeCluster, Refuse

HICCUPS = [fakenode.DROP_BEFORE, fakenode.DROP_AFTER, fakenode.GARBAGE, fakenode.SPLIT,
           Refuse(ErrorCode.BUSY), Refuse(ErrorCode.OUT_OF_ORDER), Refuse(ErrorCode.NOT_READY),
           Refuse(ErrorCode.DISK_FULL), Refuse(ErrorCode.NOT_LEADER),
           Refuse(ErrorCode.LEADERSHIP_LOST)]


def unused_address() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader = self.cluster.node()
        self.follower = self.cluster.node()

    def client(self, *nodes, **options) -> Client:
        options.setdefault("timeout_s", 10)
        client = Client([node.address for node in nodes or (self.leader,)], **options)
        self.addCleanup(client.close)
        return client

    # --- what the calls give

    def test_enqueue_and_dequeue(self):
        queue = self.client().queue("jobs")
        first = queue.enqueue("grüße")
        self.assertEqual(queue.enqueue(b"\xff\x00"), first + 1)
        self.assertEqual(queue.enqueue(""), first + 2)
        self.assertEqual(queue.size(), QueueSize(3, 9))
        self.assertEqual([m.id for m in queue.peek(10)], [first, first + 1, first + 2])
        message = queue.dequeue()
        self.assertEqual((message.id, message.text), (first, "grüße"))
        rest = queue.dequeue_many(10)
        self.assertEqual([m.data for m in rest], [b"\xff\x00", b""])
        self.assertEqual(rest[0].text.encode("utf-8", "surrogateescape"), b"\xff\x00")
        self.assertIsNone(queue.dequeue())
        self.assertEqual((queue.peek(), queue.dequeue_many(2)), ([], []))
        self.assertEqual(queue.size(), (0, 0))

    def test_queues_in_pages(self):
        client = self.client()
        for name in ("c", "a", "b"):
            client.queue(name).enqueue("x")
        with mock.patch.object(clients, "QUEUES_PAGE", 2):
            self.assertEqual(client.queues(), [("a", 1), ("b", 1), ("c", 1)])

    def test_queues_behind_many_that_hold_no_message(self):
        # a page ends early where more than 10,000 without messages were passed over
        hidden = [b"h%05d" % number for number in range(20_010)]
        for first in range(0, len(hidden), 1_000):
            pieces = []
            for name in hidden[first:first + 1_000]:
                pieces += [queuecommands.encode_enqueue_with(name, [b"x"], dedup_ids=[b"1"]),
                           commands.encode_dequeue(name, 1, 0)]
            self.cluster.apply(requests.encode_request(requests.NO_SESSION, 1, 0, pieces))
        client = self.client()
        self.assertEqual(client.queues(), [])
        for name in ("a", "h05000x", "h12000x", "z"):
            client.queue(name).enqueue("x")
        client.queue("h11111").configure(delivery_limit=3)
        expected = [("a", 1), ("h05000x", 1), ("h11111", 0), ("h12000x", 1), ("z", 1)]
        self.assertEqual(client.queues(), expected)
        self.assertEqual(client.queues(local=self.follower.address), expected)

    def test_execute(self):
        found = self.client().execute([
            {"enqueue": "q", "messages": ["a", "b", "c"]}, {"dequeue": "q", "count": 2},
            {"peek": "q"}, {"size": "q"}, {"dequeue": "empty"}])
        self.assertEqual(len(found[0]), 3)
        self.assertEqual([m.text for m in found[1]], ["a", "b"])
        self.assertEqual([m.text for m in found[2]], ["c"])
        self.assertEqual(found[3:], [QueueSize(1, 1), []])

    def test_execute_refuses_what_is_no_list_of_operations(self):
        client = self.client()
        for operations in ({}, [], [1], [{}], [{"enqueue": "q"}],
                           [{"enqueue": "q", "messages": []}],
                           [{"size": "q", "count": 1}], [{"dequeue": "q", "count": 0}],
                           [{"enqueue": "", "messages": ["x"]}], [{"enqueue": "q", "size": "q"}],
                           [{"enqueue": "q", "messages": [1]}]):
            with self.subTest(operations), self.assertRaises(MalformedError):
                client.execute(operations)
        self.assertEqual(self.cluster.bodies, [])

    def test_limits_are_told_before_anything_is_sent(self):
        queue = self.client().queue()
        with self.assertRaises(RefusedError):
            queue.enqueue(bytes(1024 * 1024 + 1))
        for name in ("", "x" * 256):
            with self.assertRaises(MalformedError):
                self.client().queue(name)
        queue.enqueue(bytes(1024 * 1024))
        self.assertEqual(len(self.cluster.bodies), 1)

    def test_log_goes_through_all_pages(self):
        client = self.client()
        for number in range(5):
            client.queue().enqueue(str(number))
        self.assertEqual([entry.index for entry in client.log()], [1, 2, 3, 4, 5])
        self.assertEqual([entry.index for entry in client.log(2, 3)], [2, 3, 4])
        local = client.log(local=self.follower.address)
        self.assertEqual([entry.index for entry in local], [1, 2, 3, 4, 5])

    def test_status_and_members(self):
        client = self.client(self.follower)
        status = client.status(self.follower.address)
        self.assertEqual((status.role, status.leader), ("follower", self.leader.address))
        self.assertEqual([member.address for member in client.members()],
                         [self.leader.address, self.follower.address])
        self.assertEqual(client.leader_status().address, self.leader.address)
        with self.assertRaises(NoAnswerError):
            client.status(unused_address())

    # --- finding the leader

    def test_redirect_to_a_node_that_is_not_listed(self):
        client = self.client(self.follower)
        client.queue().enqueue("x")
        self.assertEqual(self.cluster.messages(), [b"x"])
        self.assertEqual(client.queue().size().messages, 1)
        self.assertEqual(self.follower.served, 1)       # the way is remembered

    def test_no_redirect_shows_the_leader(self):
        client = self.client(self.follower, self.leader, redirect=False)
        for call in (lambda: client.queue().enqueue("x"), client.queue().size, client.members,
                     lambda: list(client.log())):
            with self.subTest(call), self.assertRaises(RefusedError) as caught:
                call()
            self.assertEqual(caught.exception.code, ErrorCode.NOT_LEADER)
            self.assertEqual(caught.exception.leader, self.leader.address)
        self.assertEqual(self.leader.served, 0)

    def test_dead_nodes_are_passed_over(self):
        client = Client([unused_address(), unused_address(), self.leader.address], 10)
        self.addCleanup(client.close)
        client.queue().enqueue("x")
        self.assertEqual(self.cluster.messages(), [b"x"])

    def test_the_leader_changes_between_calls(self):
        client = self.client(self.leader, self.follower)
        client.queue().enqueue("a")
        self.cluster.leader = self.follower.address
        self.leader.close()
        client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])

    def test_another_cluster_is_refused(self):
        other = FakeCluster(b"d" * 16)
        self.addCleanup(other.close)
        stranger = other.node()
        client = self.client(self.leader, stranger)
        client.queue().enqueue("a")
        self.leader.close()
        with self.assertRaises(RefusedError) as caught:
            client.queue().size()
        self.assertEqual(caught.exception.code, ErrorCode.WRONG_CLUSTER)
        self.assertIn((b"d" * 16).hex(), str(caught.exception))
        self.assertEqual(other.bodies, [])

    # --- exactly once

    def test_each_hiccup_leaves_exactly_one(self):
        for hiccup in HICCUPS:
            with self.subTest(hiccup=hiccup):
                client = self.client(self.leader, self.follower)
                queue = client.queue(f"q{HICCUPS.index(hiccup)}")
                self.leader.script.append(hiccup)
                first = queue.enqueue("a")
                self.leader.script.append(hiccup)
                self.assertEqual(queue.enqueue("b"), first + 1)
                self.leader.script.append(hiccup)
                self.assertEqual(queue.dequeue().text, "a")
                self.leader.script.append(hiccup)
                self.assertEqual(queue.size().messages, 1)
                self.assertEqual([m.text for m in queue.dequeue_many(9)], ["b"])

    def test_a_retry_has_the_same_bytes(self):
        self.leader.script += [fakenode.DROP_AFTER, fakenode.DROP_AFTER]
        self.client(self.leader, self.follower).queue().enqueue("a")
        self.assertGreaterEqual(len(self.cluster.bodies), 3)
        self.assertEqual(len(set(self.cluster.bodies)), 1)

    def test_pipelined_messages_survive_all_hiccups_in_order(self):
        messages = [b"%05d" % number for number in range(20_000)]
        self.leader.script += [None, *HICCUPS, None, None, *reversed(HICCUPS), None]
        client = self.client(self.leader, self.follower)
        ids = client.queue().enqueue_many(messages)
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual(len(ids), len(messages))
        found = client.queue().dequeue_many(10_000) + client.queue().dequeue_many(10_000)
        self.assertEqual([m.data for m in found], messages)
        self.assertEqual([m.id for m in found], ids)

    def test_a_stream_gives_its_ids_at_a_none(self):
        client = self.client()
        stored = []

        def messages():
            yield "a"
            yield "b"
            yield None
            stored.extend(self.cluster.messages())
            yield "c"
        ids = client.queue().enqueue_stream(messages())
        self.assertEqual(next(ids) + 1, next(ids))
        self.assertEqual(stored, [])
        next(ids)
        self.assertEqual(stored, [b"a", b"b"])

    def test_other_calls_while_a_stream_is_under_way(self):
        client = self.client()
        self.leader.script += [fakenode.LATE, fakenode.LATE]
        ids = client.queue().enqueue_stream(str(number) for number in range(2_000))
        found = [next(ids)]                     # the second frame is still in flight
        client.queue("other").enqueue("x")
        found += ids
        self.assertEqual(found, list(range(1, 2_001)))
        self.assertEqual(client.queue().size().messages, 2_000)

    def test_a_stream_reads_no_further_than_may_be_in_flight(self):
        self.leader.script += [fakenode.SILENT_BEFORE] * 1_000
        given = iter(range(200_000))
        with self.assertRaises(NoAnswerError):
            self.client(timeout_s=0.3).queue().enqueue_many(str(number) for number in given)
        bound = (sessions.IN_FLIGHT_FRAMES_MAX + 1) * sessions.FRAME_COMMANDS_MAX
        self.assertLessEqual(next(given), bound)

    # --- waiting

    def test_a_long_wait_is_one_request_and_keeps_its_turn(self):
        found = []
        queue = self.client().queue()
        waiter = threading.Thread(target=lambda: found.append(queue.dequeue(wait_s=120)))
        waiter.start()
        self.until(lambda: self.cluster.machine.waits())
        self.client().queue().enqueue("x")
        waiter.join()
        waiting = self.cluster.bodies[0][requests.REQUEST_HEAD_BYTES:]
        self.assertEqual(waiting, commands.encode_dequeue(b"default", 1, 120_000))

    def test_a_long_wait_outlives_its_leader(self):
        for module, name, value in ((sessions, "RESEND_S", 1.0), (links, "QUIET_S_MAX", 0.1),
                                    (patience, "QUIET_S_MIN", 0.1)):
            patcher = mock.patch.object(module, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)
        found = []
        queue = self.client(timeout_s=5.0).queue()
        waiter = threading.Thread(target=lambda: found.append(queue.dequeue_many(1, 20)))
        waiter.start()
        self.addCleanup(waiter.join)
        self.until(lambda: self.cluster.machine.waits())
        began, first = time.monotonic(), self.cluster.machine.waits()
        # it waits for longer than anything else could be sent again; then the leader dies, and
        # what it promised stays
        self.until(lambda: time.monotonic() - began > 1.3)
        with mock.patch.object(self.cluster, "cancel_waits"):
            self.cluster.leader = self.follower.address
            self.leader.close()
            self.until(lambda: len(self.cluster.bodies) > 1)
            self.until(lambda: any(connection in [w for w, _ in self.cluster._waiting.values()]
                                   for connection in self.follower.connections))
        self.assertEqual(self.cluster.machine.waits(), first)
        self.client(self.follower).queue().enqueue("x")
        waiter.join()
        self.assertEqual([message.text for message in found[0]], ["x"])
        self.assertEqual(self.cluster.bodies[0], self.cluster.bodies[1])

    def test_a_wait_ends_with_a_message_or_without(self):
        queue = self.client().queue()
        self.assertIsNone(queue.dequeue(wait_s=0.05))
        found = []
        waiter = threading.Thread(target=lambda: found.append(queue.dequeue(wait_s=10)))
        waiter.start()
        self.until(lambda: self.cluster.machine.waits())
        self.client().queue().enqueue("x")
        waiter.join()
        self.assertEqual(found[0].text, "x")

    def test_a_wait_goes_on_after_its_connection_is_lost(self):
        queue = self.client(self.leader, self.follower).queue()
        found = []
        waiter = threading.Thread(target=lambda: found.append(queue.dequeue(wait_s=10)))
        waiter.start()
        self.until(lambda: self.cluster.machine.waits())
        self.leader.connections[0].close()      # the wait is cancelled, and asked for again
        self.until(lambda: len(self.cluster.bodies) >= 3)
        self.client().queue().enqueue("x")
        waiter.join()
        self.assertEqual(found[0].text, "x")
        self.assertEqual(self.cluster.messages(), [])
        first, second = self.cluster.bodies[0], self.cluster.bodies[1]
        self.assertEqual(first, second)

    def test_a_long_wait_is_asked_in_pieces(self):
        with mock.patch.object(queue, "WAIT_PIECE_S", 0.05):
            self.assertIsNone(self.client().queue().dequeue(wait_s=0.2))
        heads = [requests.decode_request_head(body) for body in self.cluster.bodies]
        self.assertGreaterEqual(len(heads), 3)
        self.assertEqual([head[1] for head in heads], list(range(1, len(heads) + 1)))
        self.assertEqual(len({head[0] for head in heads}), 1)

    def until(self, condition) -> None:
        """Wait until something is so, ten seconds at most."""
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it never came")
            time.sleep(0.002)

    # --- no answer

    def test_out_of_time_says_what_is_known(self):
        cases = [(fakenode.SILENT_BEFORE, False), (fakenode.SILENT_AFTER, False),
                 (Refuse(ErrorCode.NOT_READY), True), (Refuse(ErrorCode.NOT_LEADER), True)]
        for hiccup, known in cases:
            with self.subTest(hiccup=hiccup):
                self.leader.script.clear()
                self.leader.script += [hiccup] * 1_000
                with self.assertRaises(NoAnswerError) as caught:
                    self.client(timeout_s=0.2).queue().enqueue("x")
                self.assertEqual(caught.exception.known, known)
                self.assertEqual(caught.exception.resume is None, known)

    def test_a_full_disk_is_retried_and_then_told(self):
        self.leader.script += [Refuse(ErrorCode.DISK_FULL)] * 1_000
        with self.assertRaises(RefusedError) as caught:
            self.client(timeout_s=0.3).queue().enqueue("x")
        self.assertEqual(caught.exception.code, ErrorCode.DISK_FULL)
        self.assertGreater(self.leader.served, 1)

    def test_resume_learns_the_outcome(self):
        for call, expected in ((lambda q: q.enqueue("x"), None), (lambda q: q.dequeue().text, "x")):
            self.leader.script.append(fakenode.SILENT_AFTER)
            with self.assertRaises(NoAnswerError) as caught:
                call(self.client(timeout_s=0.2).queue())
            session, sequence = caught.exception.resume.split(":")
            resumed = self.client(resume=(bytes.fromhex(session), int(sequence)))
            found = call(resumed.queue())
            self.assertEqual(self.cluster.bodies[-1], self.cluster.bodies[-2])
            self.assertIn(expected, (None, found))
        self.assertEqual(self.cluster.messages(), [])

    def test_after_no_answer_the_client_works_on_in_a_new_session(self):
        client = self.client(timeout_s=0.3)
        self.leader.script.append(fakenode.SILENT_BEFORE)
        with self.assertRaises(NoAnswerError):
            client.queue().enqueue("a")
        client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"b"])
        heads = [requests.decode_request_head(body) for body in self.cluster.bodies]
        self.assertNotEqual(heads[0][0], heads[1][0])

    def test_an_expired_session_is_told_apart(self):
        client = self.client()
        client.queue().enqueue("a")
        self.leader.script.append(Refuse(ErrorCode.SESSION_EXPIRED))
        with self.assertRaises(RefusedError):
            client.queue().enqueue("b")
        client.queue().enqueue("c")
        self.leader.script += [fakenode.DROP_AFTER, Refuse(ErrorCode.SESSION_EXPIRED)]
        with self.assertRaises(NoAnswerError) as caught:
            client.queue().enqueue("d")
        self.assertFalse(caught.exception.known)
        self.assertIsNone(caught.exception.resume)

    def test_an_idle_session_is_not_used_again(self):
        client = self.client()
        client.queue().enqueue("a")
        with mock.patch.object(clients, "SESSION_IDLE_S", -1.0):
            client.queue().enqueue("b")
        heads = [requests.decode_request_head(body) for body in self.cluster.bodies]
        self.assertEqual([head[1] for head in heads], [1, 1])

    # --- the end

    def test_close_ends_the_session(self):
        with self.client() as client:
            client.queue().enqueue("a")
        session = next(iter(self.cluster.machine.sessions.by_id.values()))
        self.assertEqual((session.last, session.replies), (2, []))

    def test_close_is_bounded_and_quiet(self):
        client = self.client()
        client.queue().enqueue("a")
        self.leader.script.append(fakenode.SILENT_BEFORE)
        with mock.patch.object(clients, "CLOSE_S", 0.05):
            client.close()

    def test_reading_alone_opens_no_session(self):
        with self.client() as client:
            client.queue().size()
        self.assertEqual(self.cluster.bodies, [])
