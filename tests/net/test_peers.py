"""Peers: dialling, back-off, greeting again, and when a peer counts as gone."""

import socket
import time
import unittest

from raftnet.config import NetConfig
from raftnet.net.loop import Loop
from raftnet.net.peers import Peers
from raftnet.raft.types import PreVote
from raftnet.wire import requests
from raftnet.wire.frames import FrameReader, Kind, encode_frame

CLUSTER = b"c" * 16


class FakeReplica:
    """What Peers asks of a Replica."""

    joining = None

    def __init__(self):
        self.greetings = self
        self.cluster_id = CLUSTER
        self.connected, self.refusals = [], []
        self.refusal = None

    def hello(self):
        return requests.Hello(requests.ROLE_PEER, self.cluster_id, 1, 1, 0, "127.0.0.1:5001")

    def greeted(self, hello, dialled=""):
        return self.refusal

    def refused(self, address, code, text):
        self.refusals.append((address, code))

    def peer_connected(self, address, hello, rtt_ms):
        self.connected.append((address, hello.node_id))


class FakeNode:
    """What Peers asks of a Server."""

    def __init__(self):
        self.replica = FakeReplica()
        self.actions = self
        self.clock_ms = 0
        self.lines, self.refused = [], []
        self.gone = True

    def now_ms(self):
        return self.clock_ms

    def say(self, kind, text, *values, level=0):
        self.lines.append(text % values if values else text)

    def peer_refused(self, address):
        self.refused.append(address)
        return self.gone


class TestPeers(unittest.TestCase):
    """One peer, played by a listening socket."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        self.node = FakeNode()
        self.dirty = set()
        self.peers = Peers(self.node, self.loop, NetConfig(), self.dirty,
                           lambda peer, connection, frames: None)
        self.addCleanup(self.peers.close)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)
        self.server.settimeout(5)
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.peers.set_targets([self.address])

    def turn(self, elapsed_ms=1):
        self.node.clock_ms += elapsed_ms
        self.loop.wait(0.001)
        self.peers.tick(self.node.clock_ms)
        while self.dirty:
            self.dirty.pop().flush()

    def turn_until(self, condition, elapsed_ms=1):
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.turn(elapsed_ms)

    def accept(self):
        """The peer's side of the next connection; the greeting is read."""
        self.turn()
        sock, _ = self.server.accept()
        self.addCleanup(sock.close)
        sock.setblocking(False)
        self.received = []
        self.reader = FrameReader()
        self.turn_until(lambda: self.hear(sock))
        self.assertEqual(self.received.pop(0)[0], Kind.HELLO)
        return sock

    def hear(self, sock):
        try:
            self.received += self.reader.feed(sock.recv(65536))
        except BlockingIOError:
            pass        # nothing came yet: the caller turns on
        return self.received

    def greet(self, sock, cluster_id=CLUSTER):
        sock.send(encode_frame(Kind.HELLO_REPLY, 0, requests.encode_hello(
            requests.Hello(requests.ROLE_PEER, cluster_id, 2, 1, 0, self.address))))

    def up(self):
        """A connection over which messages may go."""
        sock = self.accept()
        self.greet(sock)
        self.turn_until(lambda: self.peers.is_ready(self.address))
        return sock

    def close_server(self):
        """From now on dialling is refused."""
        self.server.close()

    def test_dial_greet_and_send(self):
        sock = self.up()
        self.assertEqual(self.node.replica.connected, [(self.address, 2)])
        self.peers.send_message(self.address, 2, PreVote(3, 2, 1))
        self.turn_until(lambda: self.hear(sock))
        self.assertEqual(self.received[0][0], Kind.PRE_VOTE)

    def test_messages_wait_for_the_first_connection(self):
        self.peers.send_message(self.address, 2, PreVote(3, 2, 1))     # before it is even dialled
        sock = self.accept()
        self.peers.send_message(self.address, 2, PreVote(4, 2, 1))
        self.greet(sock)
        self.turn_until(lambda: len(self.hear(sock)) == 2)
        self.assertEqual({kind for kind, _, _ in self.received}, {Kind.PRE_VOTE})

    def test_no_message_before_the_greeting_is_answered(self):
        sock = self.accept()
        self.peers.send_message(self.address, 2, PreVote(4, 2, 1))
        for _ in range(10):
            self.turn()
        self.assertEqual(self.hear(sock), [])

    def test_redial_at_once_then_with_growing_waits(self):
        self.up().close()
        sock = self.accept()        # at once
        sock.close()
        times = []
        self.close_server()
        dial = self.peers._dial
        self.peers._dial = lambda peer, now_ms: (times.append(now_ms), dial(peer, now_ms))
        self.turn_until(lambda: len(times) == 9, elapsed_ms=10)
        waits = [b - a for a, b in zip(times, times[1:])]
        self.assertEqual(waits, sorted(waits))
        self.assertGreaterEqual(waits[-1], 1900)
        self.assertLess(waits[-1], 2300)

    def test_refused_after_an_end_is_told_once(self):
        sock = self.up()
        self.close_server()
        sock.close()
        self.turn_until(lambda: self.node.refused)
        for _ in range(200):
            self.turn(20)
        self.assertEqual(self.node.refused, [self.address])
        self.assertEqual(sum("cannot reach" in line for line in self.node.lines), 1)

    def test_refused_is_told_again_while_its_own_connection_lives(self):
        self.node.gone = False      # its end has not been heard yet on the accepted side
        sock = self.up()
        self.close_server()
        sock.close()
        self.turn_until(lambda: self.node.refused)
        self.node.gone = True
        self.turn_until(lambda: len(self.node.refused) == 2, elapsed_ms=10)
        for _ in range(200):
            self.turn(20)
        self.assertEqual(len(self.node.refused), 2)

    def test_never_up_is_never_gone(self):
        self.close_server()
        for _ in range(200):
            self.turn(20)
        self.assertEqual(self.node.refused, [])

    def test_an_end_without_refusal_is_no_death(self):
        self.up().close()
        self.up()
        self.assertEqual(self.node.refused, [])

    def test_a_silent_peer_is_given_up_and_nobody_spins_meanwhile(self):
        sock = self.accept()        # connected, greeted, no answer: a process that is suspended
        began = self.node.clock_ms
        while self.node.clock_ms < began + 2_000:
            self.turn(100)
            self.assertGreater(self.peers.next_deadline_ms(self.node.clock_ms),
                               self.node.clock_ms)
        self.turn_until(lambda: any("no answer in time" in line for line in self.node.lines), 100)
        self.turn()
        sock.setblocking(True)
        sock.settimeout(5)
        self.assertEqual(sock.recv(10), b"")

    def test_a_peer_without_a_cluster_is_greeted_again_and_nobody_spins(self):
        self.node.replica.cluster_id = bytes(16)
        sock = self.accept()
        self.greet(sock, bytes(16))
        self.turn_until(lambda: "connected" if self.hear(sock) else None, 10)
        began = self.node.clock_ms
        while self.node.clock_ms < began + 5_000:
            self.turn(50)
            if self.hear(sock):
                self.received.clear()
                self.greet(sock, bytes(16))
            self.assertGreaterEqual(self.peers.next_deadline_ms(self.node.clock_ms),
                                    self.node.clock_ms - 50)
        self.turn()
        self.assertGreater(self.peers.next_deadline_ms(self.node.clock_ms), self.node.clock_ms)
        self.assertFalse(self.peers.is_ready(self.address))
        self.node.replica.cluster_id = CLUSTER
        self.received.clear()
        self.turn_until(lambda: self.hear(sock), 50)    # greeted with the id that it has now
        self.greet(sock)
        self.turn_until(lambda: self.peers.is_ready(self.address))

    def test_a_stranger_is_asked_again_rarely(self):
        self.node.replica.refusal = (12, "another cluster")
        sock = self.accept()
        self.greet(sock)
        self.turn_until(lambda: any("refuses" in line for line in self.node.lines))
        self.assertGreaterEqual(self.peers.next_deadline_ms(self.node.clock_ms),
                                self.node.clock_ms + 900)

    def test_a_peer_that_dials_us_is_dialled_at_once(self):
        self.close_server()
        for _ in range(100):
            self.turn(20)
        self.peers.seen(self.address)
        self.assertLessEqual(self.peers.next_deadline_ms(self.node.clock_ms), self.node.clock_ms)

    def test_damaged_answer_costs_the_connection_only(self):
        sock = self.accept()
        sock.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.turn_until(lambda: not self.loop_has_connection())
        self.up()

    def loop_has_connection(self):
        return self.peers._peers[self.address].connection is not None

    def test_no_target_no_connection(self):
        sock = self.up()
        self.peers.set_targets([])
        sock.setblocking(True)
        sock.settimeout(5)
        self.assertEqual(sock.recv(10), b"")
        self.peers.send_message(self.address, 2, PreVote(3, 2, 1))     # dropped
        self.assertEqual(self.peers.next_deadline_ms(0), NetConfig().dial_backoff_ms_max)


if __name__ == "__main__":
    unittest.main()
