"""The one-line texts: every command, and never an exception or a second line."""

import random
import unittest

from raftnet.wire import (commands, kvcommands, queuecommands, queueresults, requests,
                          transactions)
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import (describe_batch, describe_command, describe_request,
                                   describe_result)

SESSION = b"s" * 16
ENQUEUE = commands.encode_enqueue(b"q", [b"a", b'say "x"', "grüße".encode()])


RECEIPTS = [(5, 7), (6, 8)]
EQUALS = kvcommands.Condition(kvcommands.ConditionKind.EQUALS, b"old")
QUEUE_CASES = [
    (queuecommands.encode_enqueue_with(b"q", [b"a", b"b"], 3, 500, 60_000, [b"x", b""]),
     'enqueue_with q priority 3 delay 500 ms ttl 60000 ms "a" (dedup "x") "b"'),
    (queuecommands.encode_lease(b"q", 30_000, 2, 500, b"host:1"),
     "lease q 2 for 30000 ms wait 500 ms by host:1"),
    (queuecommands.encode_lease(b"q", 1), "lease q 1 for 1 ms"),
    (queuecommands.encode_ack(RECEIPTS), "ack 5:7 6:8"),
    (queuecommands.encode_nack(RECEIPTS), "nack 5:7 6:8"),
    (queuecommands.encode_nack(RECEIPTS[:1], 10, b"no\n"), 'nack 5:7 delay 10 ms reason "no\\n"'),
    (queuecommands.encode_nack(RECEIPTS[:1], None), "nack 5:7 backoff"),
    (queuecommands.encode_extend(RECEIPTS, 9), "extend 5:7 6:8 to 9 ms"),
    (queuecommands.encode_configure(b"q", {1: b"dead", 2: 5, 6: 1}),
     "configure q dead_letter dead delivery_limit 5 overflow dead_letter"),
    (queuecommands.encode_configure(b"q", {1: b""}), "configure q dead_letter default"),
    (queuecommands.encode_delete_queue(b"q"), "delete_queue q"),
    (queuecommands.encode_purge(b"q", 9), "purge q limit 9"),
    (queuecommands.encode_redrive(b"q.dead", b"r", 9), "redrive q.dead to r limit 9"),
    (queuecommands.encode_redrive(b"q.dead"), "redrive q.dead limit 1000"),
    (queuecommands.encode_describe(b"q"), "describe q"),
    (queuecommands.encode_leases(b"q", 9), "leases q limit 9"),
    (queuecommands.encode_inspect(b"q", 9), "inspect q limit 9"),
]
KEY_CASES = [
    (kvcommands.encode_kv_get(b"a key"), 'kv_get "a key"'),
    (kvcommands.encode_kv_put(b"k", b"v", 9, EQUALS), 'kv_put k "v" ttl 9 ms if equals "old"'),
    (kvcommands.encode_kv_put(b"k", b""), 'kv_put k ""'),
    (kvcommands.encode_kv_delete(b"k", kvcommands.Condition(4, 7)), "kv_delete k if version 7"),
    (kvcommands.encode_kv_delete(b"k", kvcommands.Condition(2)), "kv_delete k if present"),
    (kvcommands.encode_kv_list(b"p", b"pa", 9), "kv_list prefix p after pa limit 9"),
    (kvcommands.encode_kv_list(), "kv_list limit 1000"),
    (transactions.encode_transact(
        [transactions.KeyCondition(b"k", EQUALS), transactions.QueueCondition(b"q", 1),
         transactions.QueueCondition(b"q", 0, 5), transactions.LeasedCondition(5, 7)],
        [queuecommands.encode_ack(RECEIPTS), transactions.encode_transact([], [])]),
     'transact when [key k equals "old"; queue q at least 1; queue q at least 0 at most 5; '
     "leased 5:7] [ack 5:7 6:8; transact ...]"),
    (transactions.encode_transact([], []), "transact []"),
]
EVENT = queueresults.Event(10, 30, 4, 2, queueresults.Reason.NACKED, b"host:1", b"no")
DESCRIPTION = queueresults.Description(True, 1, 2, 3, 4, 5, 6, 7,
                                       dict(queuecommands.SETTING_DEFAULTS))


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
            *QUEUE_CASES,
            *KEY_CASES,
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
                   commands.encode_execute([ENQUEUE, ENQUEUE])[4:],
                   *[command[4:] for command, _ in QUEUE_CASES + KEY_CASES],
                   queueresults.encode_describe_result(DESCRIPTION),
                   queueresults.encode_inspect_result(9, [(1, 2, 3, 4, b"o", (EVENT,), b"m")]),
                   kvcommands.encode_kv_list_result(True, [(b"k", 1, b"v")])]
        for _ in range(6_000):
            data = bytearray(chance.choice(samples))
            data[chance.randrange(len(data))] = chance.randrange(256)
            data = bytes(data[:chance.randrange(len(data) + 1)])
            for text in (describe_command(data), *describe_batch(data), *describe_request(data),
                         *(describe_result(status, data, operation) for operation in Operation
                           for status in (Status.OK, Status.CONFLICT, Status.ABORTED))):
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
            (Status.FULL, b"messages_max", None, 'FULL "messages_max"'),
            (Status.OK, queueresults.encode_enqueue_with_result([5, 6], [0, 1]),
             Operation.ENQUEUE_WITH, "OK ids 5 6 (duplicate)"),
            (Status.OK, queueresults.encode_lease_result([(5, 7, 1, b"a"), (6, 8, 2, b"")]),
             Operation.LEASE, 'OK 5:7 "a" 6:8 (delivery 2) ""'),
            (Status.OK, queueresults.encode_outcomes_result([0, 1, 2, 9]), Operation.NACK,
             "OK done stale dead_lettered 9"),
            (Status.OK, queueresults.encode_moved_result(3, 4), Operation.PURGE,
             "OK 3 removed 4 left"),
            (Status.OK, queueresults.encode_moved_result(3, 4), Operation.REDRIVE,
             "OK 3 moved 4 left"),
            (Status.OK, queueresults.encode_describe_result(DESCRIPTION), Operation.DESCRIBE,
             "OK configured ready 1 bytes 2 delayed 3 leased 4 waiting 5 held bytes 6 dedup ids 7 "
             "dead_letter default delivery_limit 20 ttl_ms 0 messages_max 0 bytes_max 0 overflow "
             "refuse dedup_window_ms 300000 backoff_ms 1000 backoff_max_ms 600000"),
            (Status.OK, queueresults.encode_leases_result(9, [(5, 7, 30, 8, 2, b"host:1")]),
             Operation.LEASES,
             "OK at 9 ms 5:7 (taken 8 ms until 30 ms delivery 2 by host:1)"),
            (Status.OK, queueresults.encode_inspect_result(
                9, [(5, 1, 2, 90, b"q", (EVENT,), b"a"), (6, 0, 0, 0, b"", (), b"b")]),
             Operation.INSPECT,
             'OK at 9 ms 5:"a" (priority 1 deliveries 2 expires 90 ms from q, nacked at 30 ms in '
             'entry 4 taken 10 ms delivery 2 by host:1 "no") 6:"b" (priority 0)'),
            (Status.OK, kvcommands.encode_kv_get_result(3, 9, b"v"), Operation.KV_GET,
             'OK version 3 "v" expires 9 ms'),
            (Status.OK, kvcommands.encode_version_result(3), Operation.KV_PUT, "OK version 3"),
            (Status.OK, kvcommands.encode_kv_list_result(True, [(b"k", 3, b"v")]),
             Operation.KV_LIST, 'OK k="v" (version 3) and more keys'),
            (Status.CONFLICT, kvcommands.encode_kv_conflict(3, b"v"), Operation.KV_PUT,
             'CONFLICT version 3 "v"'),
            (Status.CONFLICT, kvcommands.encode_kv_conflict(0, b""), Operation.KV_DELETE,
             "CONFLICT absent"),
            (Status.CONFLICT, transactions.encode_conflict_result(2), Operation.TRANSACT,
             "CONFLICT condition 2"),
            (Status.ABORTED, transactions.encode_aborted_result(
                2, Status.STALE, queueresults.encode_outcomes_result([0, 1])), Operation.TRANSACT,
             "ABORTED command 2: STALE done stale"),
            (Status.ABORTED, transactions.encode_aborted_result(0, Status.FULL, b"bytes_max"),
             Operation.EXECUTE, 'ABORTED command 0: FULL "bytes_max"'),
        ]
        for status, payload, operation, text in cases:
            with self.subTest(text):
                self.assertEqual(describe_result(status, payload, operation), text)
