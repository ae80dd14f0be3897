"""The one-line texts: every command, and never an exception or a second line."""

import random
import unittest

from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import (describe_batch, describe_command, describe_request,
                                   describe_result)

SESSION = b"s" * 16
ENQUEUE = commands.encode_enqueue(b"q", [b"a", b'say "x"', "grüße".encode()])


class DescribeTest(unittest.TestCase):
    def test_commands(self):
        execute = commands.encode_execute([commands.encode_size(b"q")[4:]])
        cases = [
            (ENQUEUE, 'enqueue q "a" "say \\"x\\"" "grüße"'),
            (commands.encode_enqueue(b"two words", [b"\xff\n"]),
             'enqueue "two words" "\\\\xff\\n"'),
            (commands.encode_dequeue(b"q", 2), "dequeue q 2"),
            (commands.encode_dequeue(b"q", 1, 500), "dequeue q 1 wait 500 ms"),
            (commands.encode_peek(b"q", 3), "peek q 3"),
            (commands.encode_size(b"q"), "size q"),
            (commands.encode_queues(), "queues limit 1000"),
            (commands.encode_queues(b"q", 5), "queues after q limit 5"),
            (commands.encode_execute([commands.encode_size(b"q"), commands.encode_peek(b"q")]),
             "execute [size q; peek q 1]"),
            (commands.encode_close(), "close"),
            (commands.encode_time(), "time"),
            (commands.encode_cancel(SESSION, 7), f"cancel {SESSION.hex()}:7"),
            (execute, None),
        ]
        for command, text in cases:
            with self.subTest(text):
                found = describe_command(command[4:])
                self.assertNotIn("\n", found)
                if text is not None:
                    self.assertEqual(found, text)
        self.assertEqual({case[0][4] for case in cases}, {int(o) for o in Operation})

    def test_long_ones_are_cut(self):
        text = describe_command(commands.encode_enqueue(b"q", [bytes(1000)])[4:])
        self.assertIn("(1000 bytes)", text)
        text = describe_command(commands.encode_enqueue(b"q", [b"m"] * 1000)[4:])
        self.assertIn("(900 more)", text)

    def test_anything_is_one_printable_line(self):
        chance = random.Random(7)
        samples = [ENQUEUE[4:], commands.encode_cancel(SESSION, 1)[4:],
                   commands.encode_execute([ENQUEUE, ENQUEUE])[4:]]
        for _ in range(3_000):
            data = bytearray(chance.choice(samples))
            data[chance.randrange(len(data))] = chance.randrange(256)
            data = bytes(data[:chance.randrange(len(data) + 1)])
            for text in (describe_command(data), *describe_batch(data), *describe_request(data),
                         *(describe_result(0, data, operation) for operation in Operation)):
                self.assertTrue(text.isprintable(), text)

    def test_requests_and_batches(self):
        body = requests.encode_request(SESSION, 4, 3, [ENQUEUE, commands.encode_close()])
        lines = describe_request(body)
        self.assertTrue(lines[0].startswith(f"{SESSION.hex()}:4 enqueue q"))
        self.assertEqual(lines[1], f"{SESSION.hex()}:5 close")
        lines = describe_batch(commands.encode_batch(9, [body, b"short", body]))
        self.assertEqual(lines[1], "close")
        self.assertEqual(len(lines), 4)     # too short for a head is too short for a command
        self.assertIn("malformed", describe_batch(b"x")[0])

    def test_results(self):
        messages = commands.encode_messages([(5, b"a"), (6, b"b")])
        cases = [
            (Status.OK, messages, Operation.DEQUEUE, 'OK 5:"a" 6:"b"'),
            (Status.OK, commands.encode_size_result(2, 9), Operation.SIZE, "OK 2 messages 9 bytes"),
            (Status.OK, commands.encode_queue_list([(b"q", 2)]), Operation.QUEUES, "OK q:2"),
            (Status.OK, commands.encode_enqueue_result(3), Operation.ENQUEUE, "OK id 3"),
            (Status.OK, b"\x01\x02", None, "OK 0102"),
            (Status.EMPTY, b"", Operation.DEQUEUE, "EMPTY"),
            (Status.LIMIT, b"too much", None, 'LIMIT "too much"'),
            (Status.OK, b"\x01", Operation.PEEK, "OK malformed: not a list of messages"),
            (99, b"", None, "STATUS_99"),
        ]
        for status, payload, operation, text in cases:
            with self.subTest(text):
                self.assertEqual(describe_result(status, payload, operation), text)
