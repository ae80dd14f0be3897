"""Peers: dialling, back-off, greeting again, and when a peer counts as gone."""

import socket
import time
import unittest

from raftnet.config import NetConfig
from raftnet.errors import ErrorCode
from raftnet.net.loop import Loop
from raftnet.net.peers import Peers
from raftnet.net.sockets import follow_rate
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.types import Append, Heartbeat, PreVote, Snapshot, TimeoutNow
from raftnet.wire import requests
from raftnet.wire.address import format_address
from raftnet.wire.frames import FrameReader, Kind, encode_frame

CLUSTER = b"c" * 16


class FakeReplica:
    """What Peers asks of a Replica."""

    asking = None

    def __init__(self):
        self.greetings = self.joining = self
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
        self.heard, self.silent = 0, []

    def now_ms(self):
        return self.clock_ms

    def say(self, kind, text, *values, level=0):
        self.lines.append(text % values if values else text)

    def heard_ms(self, node_id):
        return self.heard

    def peer_silent(self, node_id):
        self.silent.append(node_id)

    def describe_damage(self, error):
        return f"damaged: {error}"

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

    def turn(self, elapsed_ms=1, wait_s=0.001):
        """`wait_s`: for the sockets, really; 0 where nothing is awaited of them."""
        self.node.clock_ms += elapsed_ms
        self.loop.wait(wait_s)
        self.peers.tick(self.node.clock_ms)
        while self.dirty:
            self.dirty.pop().flush()

    def turn_until(self, condition, elapsed_ms=1, wait_s=0.001):
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.turn(elapsed_ms, wait_s)

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
        self.turn_until(lambda: len(times) == 13, elapsed_ms=4, wait_s=0)
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

    def test_a_slow_path_gets_more_time_and_a_quick_one_less(self):
        self.assertEqual(self.limits(5), [3_000, 6_000, 12_000, 24_000, 30_000])
        self.turn_until(self.loop_has_connection, 10)
        sock = self.accept()
        self.node.clock_ms += 5_000
        self.greet(sock)
        self.turn_until(lambda: self.peers.is_ready(self.address))
        self.assertAlmostEqual(self.peers._peers[self.address].limit_ms, 20_000, delta=1_000)
        # the network is like that: other peers have as much time from the first dial on
        other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(other.close)
        address = format_address(*other.getsockname())
        self.peers.set_targets([self.address, address])
        self.turn_until(lambda: self.peers._peers[address].dial is not None, 10)
        dial = self.peers._peers[address].dial
        self.assertAlmostEqual(dial.deadline_ms - dial.began_ms, 20_000, delta=1_000)
        self.peers.set_targets([self.address])
        sock.close()
        self.up()
        self.assertEqual(self.peers._peers[self.address].limit_ms, 3_000)

    def test_one_that_is_silent_among_quick_ones(self):
        """Long dials would notice late that it is back."""
        self.up()
        other = socket.create_server(("127.0.0.1", 0))      # accepts, and never greets
        self.addCleanup(other.close)
        address = format_address(*other.getsockname())
        self.peers.set_targets([self.address, address])
        for _ in range(400):
            self.turn(100)
        self.assertEqual(self.peers._peers[address].limit_ms, 6_000)

    def test_brief_connections_are_made_ever_more_rarely(self):
        """Who greets and closes at once, again and again."""
        times = []
        dial = self.peers._dial
        self.peers._dial = lambda peer, now_ms: (times.append(now_ms), dial(peer, now_ms))
        for number in range(12):
            self.turn_until(lambda: len(times) > number, 4, wait_s=0)
            self.up().close()
            self.turn_until(lambda: not self.peers.is_ready(self.address))
        self.turn_until(lambda: len(times) > 12, 4, wait_s=0)
        waits = [b - a for a, b in zip(times, times[1:])]
        self.assertLess(waits[0], 30, "the first end may be chance")
        self.assertGreater(waits[-1], 1_900)
        sock = self.up()
        self.node.clock_ms += 6_000
        sock.close()
        before, ended_ms = len(times), self.node.clock_ms
        self.turn_until(lambda: len(times) > before, wait_s=0)
        self.assertLess(times[-1] - ended_ms, 30)

    def test_who_hands_over_sends_its_log_first(self):
        sock = self.up()
        entry = encode_entry(4, 3, EntryKind.EMPTY, b"")
        self.peers.send_message(self.address, 2, Append(3, 3, 3, 3, [entry]))
        self.peers.send_message(self.address, 2, TimeoutNow(3))
        self.received.clear()
        self.turn_until(lambda: len(self.hear(sock)) >= 2)
        self.assertEqual([kind for kind, _, _ in self.received], [Kind.APPEND, Kind.TIMEOUT_NOW])

    def limits(self, count: int) -> list[int]:
        """How long so many dials are waited for, which nobody answers; whole seconds, in ms."""
        limits = []
        for _ in range(count):
            self.turn_until(self.loop_has_connection, 10)
            sock = self.accept()
            began = self.peers._peers[self.address].dial.began_ms
            self.turn_until(lambda: self.peers._peers[self.address].connection is None, 100)
            limits.append(round(self.node.clock_ms - began, -3))
            sock.close()
        return limits

    def test_greetings_do_not_pile_up_on_a_long_path(self):
        self.node.replica.cluster_id = bytes(16)
        sock = self.accept()
        self.node.clock_ms += 2_000
        self.greet(sock, bytes(16))
        self.turn_until(lambda: self.hear(sock), 50)        # greeted again
        self.received.clear()
        for _ in range(10):
            self.turn(150)
        self.assertEqual(self.hear(sock), [])
        self.greet(sock, bytes(16))
        self.turn_until(lambda: self.hear(sock), 50)
        self.received.clear()
        self.turn_until(lambda: self.hear(sock), 500)       # no answer: a dead path shows so
        self.assertEqual(len(self.received), 1)

    def test_the_round_trip_is_that_of_its_own_greeting(self):
        trips = []
        self.node.replica.peer_connected = lambda address, hello, rtt_ms: trips.append(rtt_ms)
        self.node.replica.cluster_id = bytes(16)
        sock = self.accept()
        sent_ms = self.node.clock_ms
        self.node.clock_ms += 1_000
        self.node.replica.cluster_id = CLUSTER
        self.peers.set_targets([self.address])      # greets with the id that it has now
        self.turn()
        self.greet(sock)
        for _ in range(5):
            self.turn(0)
        self.assertFalse(self.peers.is_ready(self.address))     # the answer to the first one
        self.greet(sock)
        self.turn_until(lambda: self.peers.is_ready(self.address), 0)
        self.assertEqual(trips, [self.node.clock_ms - sent_ms - 1_000])

    def test_a_greeting_that_was_damaged_is_no_refusal(self):
        sock = self.accept()
        body = requests.encode_error(ErrorCode.BAD_FRAME, "damaged")
        sock.send(encode_frame(Kind.ERROR, 0, body))
        self.turn_until(lambda: not self.loop_has_connection())
        self.assertEqual(self.node.replica.refusals, [])
        self.up()
        self.assertFalse(any("refuses" in line for line in self.node.lines))

    def user_timeout_ms(self) -> int:
        return self.peers._peers[self.address].connection.sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    @unittest.skipUnless(hasattr(socket, "TCP_USER_TIMEOUT"), "this system has no such option")
    def test_patience_follows_the_election_timeout(self):
        self.up()
        self.assertEqual(self.user_timeout_ms(), 10_000)
        self.peers.set_patience(5_000)
        self.assertEqual(self.user_timeout_ms(), 15_000)
        self.peers.set_patience(500)
        self.assertEqual(self.user_timeout_ms(), 10_000)

    def append(self, index: int, term: int = 3, size: int = 700_000) -> Append:
        return Append(term, index - 1, 3, 0,
                      [encode_entry(index, 3, EntryKind.BATCH, bytes(size))])

    def appends(self, frames: list) -> list:
        """Kind, or the index after which an append goes on."""
        return [int.from_bytes(body[8:16], "big") + 1 if kind == Kind.APPEND else kind
                for kind, _, body in frames]

    def flushed(self, *messages) -> None:
        for message in messages:
            self.peers.send_message(self.address, 2, message)
        self.peers._peers[self.address].connection.flush()

    def read(self, sock, count: int) -> list:
        self.turn_until(lambda: len(self.hear(sock)) >= count)
        return self.appends(self.received)

    def test_everything_overtakes_appends(self):
        sock = self.up()
        self.flushed(*(self.append(n) for n in range(10, 22)))
        begun = self.peers._peers[self.address].connection.leaving
        self.assertTrue(begun)
        self.flushed(Heartbeat(3, 0, 0, 0), PreVote(3, 2, 1))
        order = self.read(sock, 14)
        last = int.from_bytes(begun[24:32], "big") + 1
        self.assertEqual(order, [*range(10, last + 1), Kind.HEARTBEAT, Kind.PRE_VOTE,
                                 *range(last + 1, 22)])

    def test_nothing_overtakes_a_greeting(self):
        sock = self.up()
        self.flushed(*(self.append(n) for n in range(10, 20)))
        self.node.replica.cluster_id = b"d" * 16
        self.peers.set_targets([self.address])
        self.flushed(Heartbeat(3, 0, 0, 0))
        self.assertEqual(self.read(sock, 12), [*range(10, 20), Kind.HELLO, Kind.HEARTBEAT])

    def test_appends_that_are_sent_again_do_not_wait_twice(self):
        sock = self.up()
        self.flushed(*(self.append(n) for n in range(10, 22)))
        connection = self.peers._peers[self.address].connection
        last = int.from_bytes(connection.leaving[24:32], "big") + 1
        total = connection.sent_bytes + connection.out_bytes
        for _ in range(100):
            self.peers.send_message(self.address, 2, self.append(last))     # leaving just now
        self.assertEqual(connection.sent_bytes + connection.out_bytes, total)
        for _ in range(100):
            # The leader begins anew: what waits is lost.
            self.peers.send_message(self.address, 2, self.append(last - 1))
            self.assertLess(connection.out_bytes, 1_500_000)
        for message in (self.append(last), self.append(last + 1), self.append(last + 5, term=4)):
            self.peers.send_message(self.address, 2, message)
        self.assertEqual(self.read(sock, last - 10 + 2), [*range(10, last + 1), last + 5])

    def test_chunks_of_a_snapshot_wait_like_appends(self):
        sock = self.up()

        def chunk(number: int, index: int = 7) -> Snapshot:
            return Snapshot(3, index, 3, 1 << 30, 5, number * 700_000, bytes(700_000))
        self.flushed(self.append(10), *(chunk(n) for n in range(12)))
        connection = self.peers._peers[self.address].connection
        total = connection.out_bytes
        self.flushed(Heartbeat(3, 0, 0, 0))
        for _ in range(100):
            for number in (8, 9):       # counted as lost from 8 on
                self.peers.send_message(self.address, 2, chunk(number))
        self.assertLess(connection.out_bytes, total)
        self.peers.send_message(self.address, 2, chunk(10, index=8))     # another snapshot
        self.turn_until(lambda: self.hear(sock)[-1:] and self.received[-1][0] == Kind.SNAPSHOT
                        and self.received[-1][2][8:16] == bytes(7) + b"\x08")
        kinds = [kind for kind, _, _ in self.received]
        self.assertLess(kinds.index(Kind.HEARTBEAT), len(kinds) - 1)
        self.assertLess(len(kinds), 12)

    @unittest.skipUnless(hasattr(socket, "TCP_NOTSENT_LOWAT"), "this system has no such option")
    def test_the_kernel_holds_what_the_path_carries(self):
        self.up()

        def held() -> int:
            return self.peers._peers[self.address].connection.sock.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        self.assertEqual(held(), 1 << 20)
        self.flushed(*(self.append(n) for n in range(10, 22)))
        for _ in range(10):
            self.turn(50)           # nothing leaves, as nothing is read
        self.assertEqual(held(), 64 << 10)
        follow_rate(self.peers._peers[self.address].connection.sock, 100 << 20, 100)
        self.assertEqual(held(), 4 << 20)

    def test_a_name_that_changes_its_address_is_followed(self):
        try:
            other = socket.create_server(("127.0.0.2", self.server.getsockname()[1]))
        except OSError as error:
            self.skipTest(f"this machine cannot listen at 127.0.0.2: {error}")
        self.addCleanup(other.close)
        hosts = ["127.0.0.1"]
        self.peers._names._ask = lambda host, port, type=0, flags=0: [
            (socket.AF_INET, type, 6, "", (hosts[0], 0))]
        self.address = f"name.example:{self.server.getsockname()[1]}"
        self.peers.set_targets([self.address])
        first = self.up_once_connected()
        hosts[0] = "127.0.0.2"
        first.close()
        self.turn_until(lambda: not self.loop_has_connection())
        self.server.close()
        self.server = other
        other.settimeout(5)
        self.up_once_connected()
        self.assertEqual(self.node.refused, [])

    def up_once_connected(self):
        """As `up`, where dialling takes a while."""
        self.turn_until(self.loop_has_connection)
        return self.up()

    def test_a_peer_that_answers_nothing_is_dialled_anew(self):
        sock = self.up()
        self.flushed(Heartbeat(3, 0, 0, 0))
        self.turn(9_000)
        self.node.heard = self.node.clock_ms        # it answered, at last
        for _ in range(5):
            self.turn(5_000)
        self.assertTrue(self.loop_has_connection())     # and nothing was asked since
        self.flushed(*(self.append(n) for n in range(10, 22)), Heartbeat(3, 0, 0, 0))
        for _ in range(10):
            self.turn(5_000)                        # slow: it all waits
        self.assertTrue(self.loop_has_connection())
        self.read(sock, 14)
        self.turn(9_000)
        self.assertEqual(self.node.silent, [])
        self.turn_until(lambda: self.node.silent, 1_000)
        self.assertEqual(self.node.silent, [2])
        self.turn_until(lambda: not self.loop_has_connection())
        self.up()
        self.assertEqual(self.node.refused, [])

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
