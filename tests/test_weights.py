"""Weights: what a request's work counts beside its bytes."""

import unittest

from raftnet.weights import weight
from raftnet.wire import commands, kvcommands, queuecommands, requests, transactions

SESSION = b"s" * 16


class TestWeights(unittest.TestCase):
    def more(self, *pieces: bytes, ready: int = 1_000_000) -> int:
        """What a request with these commands counts beside its bytes."""
        body = requests.encode_request(SESSION, 1, 0, list(pieces))
        return weight(body, {b"q": ready}.get) - len(body)

    def test_what_is_short_counts_its_bytes(self):
        for command in (commands.encode_enqueue(b"q", [b"m"] * 1000), commands.encode_size(b"q"),
                        kvcommands.encode_kv_put(b"k", b"v"), commands.encode_close(),
                        queuecommands.encode_enqueue_with(b"q", [b"m"], 3), b"\0\0\0\1\xff"):
            self.assertEqual(self.more(command), 0)

    def test_what_takes_messages_counts_these(self):
        receipts = [(number, number) for number in range(1000)]
        for command, low in (
                (commands.encode_dequeue(b"q", 1000), 20_000),
                (queuecommands.encode_lease(b"q", 1000, 1000), 100_000),
                (queuecommands.encode_ack(receipts), 20_000),
                (queuecommands.encode_nack(receipts), 50_000),
                (queuecommands.encode_extend(receipts, 1000), 20_000),
                (queuecommands.encode_purge(b"q", 1000), 50_000),
                (queuecommands.encode_redrive(b"q", b"", 1000), 50_000)):
            one = self.more(command)
            self.assertTrue(low <= one <= 200_000, (command[:10], one))
            self.assertEqual(self.more(command, command, command), 3 * one)
            self.assertEqual(self.more(commands.encode_execute([command] * 2)), 2 * one)
            self.assertEqual(self.more(transactions.encode_transact([], [command] * 2)), 2 * one)

    def test_no_more_than_there_are(self):
        for command in (commands.encode_dequeue(b"q", 1000),
                        queuecommands.encode_lease(b"q", 1000, 1000),
                        queuecommands.encode_purge(b"q", 1000),
                        queuecommands.encode_redrive(b"q", b"", 1000)):
            self.assertEqual(self.more(command, ready=10) * 100, self.more(command))
            self.assertEqual(self.more(command, ready=0), 0)

    def test_what_is_malformed_counts_its_bytes(self):
        for command in (commands.encode_dequeue(b"q"), queuecommands.encode_lease(b"q", 1000),
                        queuecommands.encode_purge(b"q", 1), commands.encode_execute([b"x"])):
            body = requests.encode_request(SESSION, 1, 0, [command])
            for end in range(len(body)):
                self.assertGreaterEqual(weight(body[:end], {b"q": 5}.get), end)
        self.assertEqual(self.more(commands.encode_execute([b"\0\0\0\0", b"\0\0\0\1\x09"])), 0)
