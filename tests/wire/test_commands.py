"""Commands and results: what is encoded is decoded, and nothing else is."""

import random
import struct
import unittest

from raftnet.errors import MalformedError
from raftnet.wire import commands

LIMIT = 1 << 20
ENQUEUES = [(b"q", [b""]), (b"q" * 255, [b"x" * LIMIT]), (b"\xff\x00", [b"a", b"", b"ccc"] * 400)]
# (encoded with its length, decoder, what it must give)
COMMANDS = [
    (commands.encode_enqueue(b"jobs", [b"one"]), commands.decode_enqueue, (b"jobs", [b"one"])),
    (commands.encode_enqueue(b"jobs", [b"one", b"", b"three"]), commands.decode_enqueue,
     (b"jobs", [b"one", b"", b"three"])),
    (commands.encode_dequeue(b"jobs", 7, 1500), commands.decode_dequeue, (b"jobs", 7, 1500)),
    (commands.encode_peek(b"jobs", 3), commands.decode_peek, (b"jobs", 3)),
    (commands.encode_size(b"jobs"), commands.decode_size, b"jobs"),
    (commands.encode_queues(b"", 10), commands.decode_queues, (b"", 10)),
    (commands.encode_queues(b"jobs", 10), commands.decode_queues, (b"jobs", 10)),
    (commands.encode_cancel(b"s" * 16, 2**63), commands.decode_cancel, (b"s" * 16, 2**63)),
    (commands.encode_close(), commands.decode_nothing, None),
    (commands.encode_time(), commands.decode_nothing, None),
    (commands.encode_execute([]), commands.decode_execute, []),
    (commands.encode_execute([commands.encode_size(b"a"), commands.encode_size(b"bc")]),
     commands.decode_execute, [b"\x05\x01a", b"\x05\x02bc"]),
]
MESSAGES = [(1, b""), (2**64 - 1, b"xyz")]
RESULTS = [
    (commands.encode_messages(MESSAGES), commands.decode_messages, MESSAGES),
    (commands.encode_messages([]), commands.decode_messages, []),
    (commands.encode_one_message(9, b"nine"), commands.decode_messages, [(9, b"nine")]),
    (commands.encode_queue_list([(b"a", 1), (b"b" * 255, 2)]), commands.decode_queue_list,
     [(b"a", 1), (b"b" * 255, 2)]),
    (commands.encode_size_result(3, 2**40), commands.decode_size_result, (3, 2**40)),
    (commands.encode_execute_result([(0, b"x"), (1, b"")]), commands.decode_execute_result,
     [(0, b"x"), (1, b"")]),
    (commands.encode_enqueue_result(5), commands.decode_enqueue_result, 5),
]


class CommandsTest(unittest.TestCase):

    def test_round_trip(self):
        for encoded, decode, value in COMMANDS:
            with self.subTest(decode.__name__, value=value):
                (command,) = commands.split_commands(encoded, 0)
                self.assertEqual(decode(command), value)

    def test_every_truncation_and_a_tail_are_refused(self):
        for encoded, decode, value in COMMANDS:
            for end in [*range(1, len(encoded) - 4), None]:
                command = encoded[4:4 + end] if end else encoded[4:] + b"\0"
                with self.subTest(decode.__name__, value=value, end=end):
                    with self.assertRaises(MalformedError):
                        decode(command)

    def test_split_refuses_every_truncation(self):
        body = b"".join(encoded for encoded, _, _ in COMMANDS[:3])
        whole = {0}
        for encoded, _, _ in COMMANDS[:3]:
            whole.add(max(whole) + len(encoded))
        for end in range(len(body)):
            if end not in whole:
                with self.assertRaises(MalformedError):
                    commands.split_commands(body[:end], 0)

    def test_results_round_trip_and_truncation(self):
        for payload, decode, value in RESULTS:
            with self.subTest(decode.__name__, value=value):
                self.assertEqual(decode(payload), value)
                for end in range(len(payload)):
                    with self.assertRaises(MalformedError):
                        decode(payload[:end])
                with self.assertRaises(MalformedError):
                    decode(payload + b"\0")

    def test_one_message_has_the_layout_of_many(self):
        self.assertEqual(commands.encode_one_message(7, b"seven"),
                         commands.encode_messages([(7, b"seven")]))

    def test_lying_counts_are_refused_before_anything_is_made(self):
        huge = struct.pack(">I", 0xFFFFFFFF)
        for decode, data in ((commands.decode_enqueue, b"\x01\x01q" + huge + b"\0" * 8),
                             (commands.decode_execute, b"\x03" + huge),
                             (commands.decode_messages, huge + b"\0" * 100),
                             (commands.decode_queue_list, huge + b"\0" * 100),
                             (commands.decode_execute_result, huge + b"\0" * 100)):
            with self.subTest(decode.__name__), self.assertRaises(MalformedError):
                decode(data)
        self.assertIsNone(commands.decode_enqueues(
            struct.pack(">IB", 15, 1) + b"\x01q" + huge + b"\0" * 8, 0, LIMIT))

    def test_batch(self):
        bodies = [b"", b"x" * 70000, b"y"]
        payload = commands.encode_batch(123456789, bodies)
        self.assertEqual(commands.batch_stamp(payload), 123456789)
        self.assertEqual(commands.decode_batch(payload), bodies)
        with self.assertRaises(MalformedError):
            commands.decode_batch(payload[:7])


class EnqueuesTest(unittest.TestCase):
    """decode_enqueues, the fast path, against decode_enqueue, the plain one."""

    def plain(self, body: bytes, limit: int):
        """What decode_enqueues must give."""
        runs = []
        try:
            pieces = commands.split_commands(body, 0)
            for piece in pieces:
                if piece[:1] != b"\x01":
                    return None
                queue, messages = commands.decode_enqueue(piece)
                if max(map(len, messages)) > limit:
                    return None
                if runs and runs[-1][0] == queue:
                    runs[-1][1].extend(messages)
                else:
                    runs.append((queue, messages))
        except MalformedError:
            return None
        return runs, len(pieces)

    def test_large_and_empty(self):
        for queue, messages in ENQUEUES:
            body = commands.encode_enqueue(queue, messages)
            self.assertEqual(commands.decode_enqueues(body, 0, LIMIT), ([(queue, messages)], 1))
            self.assertEqual(commands.decode_enqueues(b"head" + body, 4, LIMIT),
                             ([(queue, messages)], 1))
        over = commands.encode_enqueue(b"q", [b"x" * (LIMIT + 1)])
        self.assertIsNone(commands.decode_enqueues(over, 0, LIMIT))

    def test_equals_the_plain_decoder_also_on_damaged_bytes(self):
        random_source = random.Random(5)
        seen = [0, 0]
        for _ in range(4000):
            parts = []
            for _ in range(random_source.randrange(1, 8)):
                queue = random_source.choice((b"a", b"a", b"a", b"b", b"aa"))
                size = random_source.choice((0, 3, 3, 3, 9))
                count = random_source.choice((1, 1, 1, 1, 2, 5))
                sizes = [size] * count if random_source.random() < 0.7 else range(count)
                parts.append(commands.encode_enqueue(queue, [b"m" * size for size in sizes]))
            body = bytearray(b"".join(parts))
            if random_source.random() < 0.6:
                at = random_source.randrange(len(body))
                body[at] = random_source.choice((0, 1, 2, 3, 255, body[at] ^ 1))
            if random_source.random() < 0.1:
                del body[random_source.randrange(len(body)):]
            limit = random_source.choice((8, LIMIT))
            expected = self.plain(bytes(body), limit)
            self.assertEqual(commands.decode_enqueues(bytes(body), 0, limit), expected, bytes(body))
            seen[expected is None] += 1
        self.assertGreater(min(seen), 500, "both outcomes must occur")


if __name__ == "__main__":
    unittest.main()
