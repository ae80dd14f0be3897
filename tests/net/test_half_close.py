"""A client that closes its sending side still gets what it is owed; a peer's end is an end."""

import socket
import unittest

from raftnet.config import NetConfig
from raftnet.net.connection import Connection
from raftnet.net.loop import Loop
from raftnet.wire.frames import FrameReader, Kind, encode_frame

WAIT_S = 10.0


class HalfClose(unittest.TestCase):
    """A Connection on one end of a socket pair, the test on the other."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        ours, self.other = socket.socketpair()
        self.addCleanup(self.other.close)
        self.closed: list[str] = []
        self.half_closed: list[Connection] = []
        self.received: list[tuple] = []
        self.connection = Connection(
            _Tcp(ours), "other", self.loop, NetConfig(), set(),
            lambda connection, frames: self.received.extend(frames),
            lambda connection, reason: self.closed.append(reason), self.half_closed.append)
        self.addCleanup(self.connection.close, "the test ends")

    def send_and_end(self, count: int) -> None:
        """So many requests, then no more."""
        self.other.sendall(encode_frame(Kind.STATUS, 1, b"") * count)
        self.other.shutdown(socket.SHUT_WR)
        while not self.half_closed and not self.closed:
            self.assertTrue(self.loop.wait(WAIT_S))
        self.assertEqual(len(self.received), count)

    def test_answers_come_and_then_the_end(self):
        self.send_and_end(2)
        self.assertEqual((len(self.half_closed), self.closed), (1, []))
        self.assertEqual(self.loop.wait(0), 0)      # the end of its input is heard of once
        for _ in range(2):
            self.assertEqual(self.closed, [])
            self.connection.send(Kind.STATUS_REPLY, 1, b"answer")
            self.connection.flush()
        self.assertEqual(self.closed, ["closed by the other side"])
        frames = FrameReader().feed(self.other.recv(1000))
        self.assertEqual(frames, [(Kind.STATUS_REPLY, 1, b"answer")] * 2)
        self.assertEqual(self.other.recv(1000), b"")

    def test_an_answer_that_waits_for_room_is_sent_before_the_end(self):
        answer = bytes(4 * 1024 * 1024)
        self.send_and_end(1)
        self.connection.send(Kind.STATUS_REPLY, 1, answer)
        self.connection.flush()
        self.assertEqual(self.closed, [])
        reader, frames = FrameReader(), []
        self.other.setblocking(False)
        while not frames:
            self.loop.wait(0)
            try:
                frames = reader.feed(self.other.recv(1 << 20))
            except BlockingIOError:
                continue
        self.assertEqual(frames[0][2], answer)
        self.assertEqual(self.closed, ["closed by the other side"])

    def test_nothing_owed(self):
        self.send_and_end(0)
        self.assertEqual((self.half_closed, self.closed), ([], ["closed by the other side"]))

    def test_a_peer(self):
        self.connection.identity = 7
        self.send_and_end(3)
        self.assertEqual((self.half_closed, self.closed), ([], ["closed by the other side"]))


class _Tcp:
    """A socket of a pair, without the options that only TCP has."""

    def __init__(self, sock: socket.socket):
        self._sock = sock

    def setsockopt(self, *_) -> None:
        """No option is of interest here."""

    def __getattr__(self, name: str):
        return getattr(self._sock, name)


if __name__ == "__main__":
    unittest.main()
