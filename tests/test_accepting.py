"""Connections that others open: what counts as an answer there, and what only as a sign of life; a
part of a frame is not kept for ever."""

import logging
import os
import random
import socket
import tempfile
import time
import unittest

from raftnet.actions import ActionLog
from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.net.messages import encode_message
from raftnet.raft.types import HeartbeatReply, PreVote
from raftnet.replica import Start
from raftnet.server import Server
from raftnet.storage.disk import Disk
from raftnet.storage.store import Store
from raftnet.wire.address import parse_address
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from raftnet.wire.requests import decode_error
from tools.processes import free_ports

LIMIT_S = 10.0
PEER = 7
FRAME = encode_frame(Kind.STATUS, 1, bytes(100))


class AcceptingCase(unittest.TestCase):
    """A node that does not run by itself."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        store = Store.open(Disk(os.path.join(directory.name, "node")),
                           lambda: random.randint(1, 2**64 - 1), lambda line: None)
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.server = Server(Config(), store, Start(self.address),
                             ActionLog("test", logging.CRITICAL))
        self.addCleanup(self.server.close)
        self.accepting = self.server._accepting


class Accepted:
    """A connection of a peer, as the server sees it."""

    identity = PEER
    closed = False
    heard_ms = 0
    reader = FrameReader()


class SignsOfLifeTest(AcceptingCase):
    def setUp(self):
        super().setUp()
        self.server.replica.advance_clock(50)

    def heard(self, *messages) -> int:
        """When the connection of the peer that said this was heard."""
        connection = Accepted()
        frames = [(int(kind), 0, body) for kind, body in map(encode_message, messages)]
        self.accepting.frames(connection, frames)
        return connection.heard_ms

    def test_answers_and_signs(self):
        """A reader that swallows all as the rest of a damaged frame says that it lives, for ever;
        nothing is answered on that connection all the same, and it must be found out."""
        sign = HeartbeatReply(1, 0, 0)
        self.assertEqual(self.heard(sign), 0)
        self.assertEqual(self.heard(sign, sign), 0)
        self.assertEqual(self.heard(HeartbeatReply(1, 0, 40)), 50)
        self.assertEqual(self.heard(sign, PreVote(2, 1, 1)), 50)


class UnfinishedFramesTest(AcceptingCase):
    def setUp(self):
        super().setUp()
        self.sock = socket.create_connection(parse_address(self.address), LIMIT_S)
        self.addCleanup(self.sock.close)
        self.serve(lambda: self.accepting._open)
        (self.connection,) = self.accepting._open

    def serve(self, condition):
        """Let the server read until the condition holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.server._loop.wait(0.01)

    def send(self, data):
        """To the server, which has it then."""
        received = self.connection.reader.offset + self.connection.reader.held + len(data)
        self.sock.sendall(data)
        self.serve(lambda: self.connection.reader.offset + self.connection.reader.held
                   >= received)

    def tick(self, now_ms):
        """The server's deadlines; what it says leaves."""
        self.accepting.tick(now_ms)
        self.server._flush()

    def test_one_that_does_not_go_on(self):
        self.send(FRAME[:20])
        self.tick(1_000)
        self.assertEqual(self.accepting.deadlines_ms(), [2_000])
        self.tick(60_999)
        self.assertFalse(self.connection.closed)
        self.tick(62_000)
        self.assertTrue(self.connection.closed)
        self.assertEqual(self.accepting.deadlines_ms(), [])
        ((kind, _, body),) = FrameReader().feed(self.sock.recv(65536))
        self.assertEqual(kind, Kind.ERROR)
        code, _, text = decode_error(body)
        self.assertEqual((code, text), (ErrorCode.BAD_FRAME,
                                        "the rest of a frame did not come within 60 s"))

    def test_one_that_comes_slowly(self):
        for part in range(10):
            self.send(FRAME[10 * part:10 * part + 10])
            self.tick(50_000 * part + 1)
        self.assertFalse(self.connection.closed)
        self.send(FRAME[100:])
        self.tick(10_000_000)
        self.assertFalse(self.connection.closed)
        self.assertEqual(self.accepting.deadlines_ms(), [])

    def test_one_that_does_not_read_its_answers(self):
        """What waits for it is no excuse while more is read from it; then it is."""
        self.send(FRAME[:20])
        self.tick(1_000)
        self.connection._out_bytes = self.connection._config.output_pause_bytes + 1
        self.assertTrue(self.connection.is_paused)
        self.tick(100_000)
        self.assertFalse(self.connection.closed)
        self.connection._out_bytes -= 1
        self.tick(101_000)
        self.assertTrue(self.connection.closed)

    def test_one_that_reads_nothing_at_all(self):
        """Its answers fill the socket and wait here: it is closed all the same."""
        while self.connection.out_bytes < 3_000_000:    # the system may yet take some of it
            self.connection.send_bytes(bytes(100_000))
            self.connection.flush()
        self.assertFalse(self.connection.is_paused)
        self.send(FRAME[:20])
        self.tick(1_000)
        self.tick(62_000)
        self.assertTrue(self.connection.closed)
        self.assertEqual(self.accepting._open, set())

    def test_one_that_says_nothing(self):
        for now_ms in (1_000, 100_000, 1_000_000):
            self.tick(now_ms)
        self.assertFalse(self.connection.closed)


if __name__ == "__main__":
    unittest.main()
