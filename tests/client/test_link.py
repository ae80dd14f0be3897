"""The way to the leader: whom the client waits for, whom it leaves, and where it goes then."""

import socket
import threading
import time
import unittest
from unittest import mock

from raftnet.client import Client
from raftnet.client import connection as connections
from raftnet.client import link as links
from raftnet.client import patience as patiences
from raftnet.client.connection import Connection, clock
from raftnet.errors import ErrorCode, NoAnswerError
from raftnet.wire import requests
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from tests.client import fakenode
from tests.client.fakenode import FakeCluster, Refuse

NOBODY = Refuse(ErrorCode.NOT_LEADER)


class Stub:
    """A listener of one connection after the other, each given to `serve(socket, number)` in a
    thread; what that does is up to the test."""

    def __init__(self, serve):
        self.dialled = 0
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        threads = []
        while True:
            accepted, _ = self._listener.accept()
            if self._closed.is_set():
                accepted.close()
                break
            self.dialled += 1
            threads.append(threading.Thread(target=self._run, args=(accepted, self.dialled)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _run(self, accepted: socket.socket, number: int) -> None:
        with accepted:
            try:
                self._serve(self, accepted, number)
            except OSError:
                return              # the client has gone

    def rest(self) -> None:
        """Until the test is over: the connection stays open, and nothing is read or said."""
        self._closed.wait()

    def close(self) -> None:
        """Threads joined."""
        self._closed.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()


def greet(sock: socket.socket) -> FrameReader:
    """Answer the greeting as a node of FakeCluster's."""
    reader = FrameReader()
    frames = []
    while not frames:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("the client went away before it had greeted")
        frames = reader.feed(data)
    hello = requests.encode_hello(requests.Hello(requests.ROLE_PEER, b"c" * 16, 8))
    sock.sendall(encode_frame(Kind.HELLO_REPLY, 0, hello))
    return reader


class LinkTest(unittest.TestCase):
    """A cluster of two fake nodes, the first leads; waits are short."""

    def setUp(self):
        for name, seconds in (("DIAL_S_MIN", 0.1), ("QUIET_S_MIN", 0.05), ("ANSWER_S_MIN", 0.05)):
            self.patch(patiences, name, seconds)
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader = self.cluster.node()
        self.follower = self.cluster.node()

    def patch(self, module, name: str, value) -> None:
        """For this test."""
        patcher = mock.patch.object(module, name, value)
        patcher.start()
        self.addCleanup(patcher.stop)

    def stub(self, serve) -> Stub:
        """A node that does what the test says."""
        stub = Stub(serve)
        self.addCleanup(stub.close)
        return stub

    def client(self, *nodes, timeout_s: float = 10.0) -> Client:
        client = Client([node.address for node in nodes], timeout_s=timeout_s)
        self.addCleanup(client.close)
        return client


class TestSilence(LinkTest):
    """Nodes that say nothing, too late, or half of it."""

    def test_one_that_accepts_and_never_answers_is_passed_over(self):
        silent = self.stub(lambda stub, sock, number: stub.rest())
        self.client(silent, self.leader).queue().enqueue("a")
        self.assertEqual(self.cluster.messages(), [b"a"])
        self.assertEqual(silent.dialled, 1)

    def test_alone_it_is_tried_to_the_end_and_nothing_was_executed(self):
        silent = self.stub(lambda stub, sock, number: stub.rest())
        with self.assertRaises(NoAnswerError) as caught:
            self.client(silent, timeout_s=0.8).queue().enqueue("a")
        self.assertTrue(caught.exception.known)
        self.assertIn(silent.dialled, (3, 4))       # 0.1, 0.2, 0.4 s, and what was left

    def test_greeted_and_then_silent_the_outcome_is_unknown(self):
        def serve(stub, sock, number):
            greet(sock)
            stub.rest()
        silent = self.stub(serve)
        with self.assertRaises(NoAnswerError) as caught:
            self.client(silent, timeout_s=0.6).queue().enqueue("a")
        self.assertFalse(caught.exception.known)
        self.assertTrue(caught.exception.resume)
        self.assertGreater(silent.dialled, 1)

    def test_a_silent_node_is_left_when_it_shows_no_sign_of_life(self):
        self.patch(links, "STAY_S", 0.05)       # with a follower that names the silent one only
        for how in (fakenode.DEAF, fakenode.HALF):
            with self.subTest(how):
                client = self.client(self.leader, self.follower)
                queue = client.queue(f"q{how}")
                first = queue.enqueue("a")
                self.leader.script.append(how)
                self.assertEqual(queue.enqueue("b"), first + 1)
                self.leader.script.append(how)
                self.assertEqual(queue.size().messages, 2)
                self.leader.script.append(how)
                self.assertEqual([m.text for m in queue.dequeue_many(9)], ["a", "b"])

    def test_only_what_is_asked_behind_a_request_says_that_it_waits(self):
        for quiet_s, behind in ((0.05, True), (5.0, False)):
            self.patch(patiences, "QUIET_S_MIN", quiet_s)
            self.patch(links, "LOOK_S_FIRST", 5.0 if behind else 0.0)
            client = self.client(self.leader)
            client.queue("none").dequeue(wait_s=0.2)
            self.assertGreater(client._link.alive_at, 0.0)
            self.assertEqual(client._link.heard_at > 0.0, behind)

    def test_half_a_reply_and_no_more_is_unknown_in_the_end(self):
        self.leader.script += [fakenode.HALF] * 100
        with self.assertRaises(NoAnswerError) as caught:
            self.client(self.leader, timeout_s=0.5).queue().enqueue("a")
        self.assertFalse(caught.exception.known)
        self.assertEqual(self.cluster.messages(), [b"a"])

    def test_an_answer_after_the_quiet_time_is_waited_for(self):
        answered = []

        def late(body):
            # with the third sign of life the reply comes, too
            answered.append(body)
            if len(answered) == 3:
                self.leader.connections[0].answer(Kind.READ_REPLY, 1, requests.encode_read_reply(
                    1, 0, bytes(16)))
            return Kind.STATUS_REPLY, requests.encode_status(
                self.leader.connections[0]._status())
        self.leader.handlers[Kind.STATUS] = late
        self.leader.script.append(fakenode.SILENT_AFTER)
        client = self.client(self.leader)
        self.assertEqual(client.queue().size(), (0, 0))
        self.assertEqual(len(answered), 3)
        self.assertEqual(len(self.leader.connections), 1)

    def test_a_living_node_is_waited_for_and_asked_ever_more_rarely(self):
        self.leader.script.append(fakenode.SILENT_BEFORE)
        client = self.client(self.leader, timeout_s=0.6)
        with mock.patch.object(Connection, "send", autospec=True,
                               side_effect=Connection.send) as send:
            with self.assertRaises(NoAnswerError):
                client.queue().enqueue("b")
        self.assertEqual(len(self.leader.connections), 1)
        asked = [call for call in send.call_args_list if call.args[1] == links._PROBE]
        self.assertIn(len(asked), (2, 3, 4))        # after 0.05, 0.1, 0.2 s

    def test_a_path_that_takes_no_more_bytes_is_given_up(self):
        def serve(stub, sock, number):
            greet(sock)
            stub.rest()
        stuck = self.stub(serve)
        began = time.monotonic()
        messages = [bytes(1000)] * 6000
        client = self.client(stuck, self.leader, timeout_s=60.0)
        ids = client.queue().enqueue_many(messages)
        self.assertLess(time.monotonic() - began, 20.0)
        self.assertEqual(ids, list(range(1, 6001)))
        self.assertEqual(stuck.dialled, 1)

    def test_a_round_trip_longer_than_the_first_patience(self):
        def serve(stub, sock, number):
            reader = FrameReader()
            while True:
                data = sock.recv(65536)
                if not data:
                    return
                for kind, request_id, body in reader.feed(data):
                    time.sleep(0.3)         # the path, not luck: three times the first patience
                    if kind == Kind.HELLO:
                        sock.sendall(encode_frame(Kind.HELLO_REPLY, 0, requests.encode_hello(
                            requests.Hello(requests.ROLE_PEER, b"c" * 16, 8))))
                    else:
                        sock.sendall(encode_frame(Kind.READ_REPLY, request_id,
                                                  requests.encode_read_reply(1, 0, bytes(16))))
        far = self.stub(serve)
        client = self.client(far)
        self.assertEqual(client.queue().size(), (0, 0))
        self.assertEqual(far.dialled, 3)            # 0.1, 0.2, 0.4 s
        self.assertEqual(client.queue().size(), (0, 0))
        self.assertEqual(far.dialled, 3)            # and now it is known
        self.assertGreater(client._link.patience.round_trip_s(far.address), 0.29)


class TestNames(unittest.TestCase):
    """A name with several addresses, one of which swallows everything."""

    def setUp(self):
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(full.close)
        for _ in range(4):              # more than wait there: further ones are not even refused
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        self.good = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.good.close)
        self.full = full

    def connect(self, *servers: socket.socket, limit_s: float) -> socket.socket:
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())
                  for server in servers]
        with mock.patch.object(connections.socket, "getaddrinfo", lambda *_, **__: places):
            sock = connections._connect("name.example:5001", limit_s)
        self.addCleanup(sock.close)
        return sock

    def test_all_addresses_share_the_time(self):
        sock = self.connect(self.full, self.good, limit_s=0.4)
        self.assertEqual(sock.getpeername(), self.good.getsockname())
        began = clock()
        with self.assertRaises(TimeoutError):
            self.connect(self.full, self.full, self.full, limit_s=0.3)
        self.assertLess(clock() - began, 0.8)


class TestLeaving(LinkTest):
    """Where to go, and when again."""

    def test_a_node_without_a_leader_is_asked_again_over_the_same_connection(self):
        self.leader.script += [NOBODY] * 5
        self.client(self.leader, self.follower).queue().enqueue("a")
        self.assertEqual(len(self.leader.connections), 1)
        self.assertEqual(self.leader.served, 6)
        self.assertEqual(len(self.follower.connections), 0)

    def test_one_that_never_knows_a_leader_is_left(self):
        self.follower.script += [NOBODY] * 10_000
        self.client(self.follower, self.leader).queue().enqueue("a")
        self.assertEqual(self.cluster.messages(), [b"a"])
        self.assertEqual(len(self.follower.connections), 1)

    def test_two_that_name_each_other_are_not_asked_without_a_pause(self):
        self.leader.script += [Refuse(ErrorCode.NOT_LEADER, self.follower.address)] * 10_000
        self.follower.script += [Refuse(ErrorCode.NOT_LEADER, self.leader.address)] * 10_000
        with self.assertRaises(NoAnswerError) as caught:
            self.client(self.leader, self.follower, timeout_s=0.5).queue().enqueue("a")
        self.assertTrue(caught.exception.known)
        self.assertLess(self.leader.served + self.follower.served, 200)

    def test_after_the_end_of_a_connection_the_next_node_is_dialled_at_once(self):
        client = self.client(self.leader, self.follower)
        client.queue().enqueue("a")
        self.cluster.leader = self.follower.address
        self.leader.close()
        with mock.patch.object(links.time, "sleep", side_effect=AssertionError("a pause")):
            client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])

    def test_a_silent_leader_is_not_gone_to_again_where_it_is_still_named(self):
        client = self.client(self.leader, self.follower)
        client.queue().enqueue("a")
        self.leader.script.append(fakenode.DEAF)
        self.follower.script += [Refuse(ErrorCode.NOT_LEADER, self.leader.address)] * 5
        elect = iter(range(100))

        def elected(_link, exchange, leader, deadline):
            if next(elect) == 3:
                self.cluster.leader = self.follower.address
                self.follower.script.clear()
            return elsewhere(_link, exchange, leader, deadline)
        elsewhere = links.Link._elsewhere
        with mock.patch.object(links.Link, "_elsewhere", elected):
            client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])
        self.assertEqual(len(self.leader.connections), 1)
        self.assertEqual(len(self.follower.connections), 1)

    def test_an_ended_leader_is_gone_to_again_where_it_is_still_named(self):
        client = self.client(self.leader, self.follower)
        self.leader.script.append(fakenode.GARBAGE)
        client.queue().enqueue("a")
        self.assertEqual(len(self.leader.connections), 2)
        self.assertEqual(len(set(self.cluster.bodies)), 1)

    def test_members_are_learned_in_use(self):
        self.patch(links, "LOOK_S_FIRST", 0.0)
        client = self.client(self.leader)
        client.queue().enqueue("a")
        self.cluster.leader = self.follower.address
        self.leader.close()
        client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])

    def test_a_learned_address_that_is_of_another_cluster_by_now(self):
        other = FakeCluster(b"d" * 16)
        self.addCleanup(other.close)
        stranger = other.node()
        client = self.client(self.leader)
        client.queue().enqueue("a")
        client._link._learned = [stranger.address]
        self.leader.script.append(fakenode.DROP_BEFORE)
        client.queue().enqueue("b")
        self.assertEqual(self.cluster.messages(), [b"a", b"b"])
        self.assertEqual((len(stranger.connections), other.bodies), (1, []))

    def test_an_answer_that_lay_unread_is_no_measure(self):
        self.patch(links, "LOOK_S_FIRST", 0.0)
        self.leader.handlers[Kind.STATUS] = lambda body: None
        client = self.client(self.leader)
        client.queue().enqueue("a")
        connection = self.leader.connections[0]
        connection.answer(Kind.STATUS_REPLY, 0, requests.encode_status(connection._status()))
        deadline = time.monotonic() + 10
        while not client._link.connection.readable:
            self.assertLess(time.monotonic(), deadline)
        with mock.patch.object(links, "clock", lambda: clock() + 5.0):
            client.queue().enqueue("b")
        self.assertEqual(client._link._learned, [self.follower.address])
        self.assertLess(client._link.patience.round_trip_s(self.leader.address), 4.0)


if __name__ == "__main__":
    unittest.main()
