"""What a node takes for an answer on its connections, and what only for a sign of life."""

import logging
import os
import random
import tempfile
import unittest

from raftnet.actions import ActionLog
from raftnet.config import Config
from raftnet.net.messages import encode_message
from raftnet.raft.types import HeartbeatReply, PreVote
from raftnet.replica import Start
from raftnet.server import Server
from raftnet.storage.disk import Disk
from raftnet.storage.store import Store
from raftnet.wire.frames import FrameReader
from tools.processes import free_ports

PEER = 7


class Accepted:
    """A connection of a peer, as the server sees it."""

    identity = PEER
    closed = False
    heard_ms = 0
    reader = FrameReader()


class SignsOfLifeTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        store = Store.open(Disk(os.path.join(directory.name, "node")),
                           lambda: random.randint(1, 2**64 - 1), lambda line: None)
        actions = ActionLog("test", logging.CRITICAL)
        self.server = Server(Config(), store, Start(f"127.0.0.1:{free_ports(1)[0]}"), actions)
        self.addCleanup(self.server.close)
        self.server.replica.advance_clock(50)

    def heard(self, *messages) -> int:
        connection = Accepted()
        frames = [(int(kind), 0, body) for kind, body in map(encode_message, messages)]
        self.server._accepting.frames(connection, frames)
        return connection.heard_ms

    def test_answers_and_signs(self):
        """A reader that swallows all as the rest of a damaged frame says that it lives, for ever;
        nothing is answered on that connection all the same, and it must be found out."""
        sign = HeartbeatReply(1, 0, 0)
        self.assertEqual(self.heard(sign), 0)
        self.assertEqual(self.heard(sign, sign), 0)
        self.assertEqual(self.heard(HeartbeatReply(1, 0, 40)), 50)
        self.assertEqual(self.heard(sign, PreVote(2, 1, 1)), 50)


if __name__ == "__main__":
    unittest.main()
