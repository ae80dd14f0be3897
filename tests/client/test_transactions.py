"""Lists of operations and conditions as JSON: to commands, and what they refuse, by its place."""

import unittest

from raftnet.client.operations import check_status
from raftnet.client.transactions import decode_outcomes, encode_list, split_document
from raftnet.errors import MalformedError, RefusedError, StateRefusedError
from raftnet.wire import commands, kvcommands, queueresults, transactions
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_command

OPERATIONS = [
    ({"enqueue": "q", "messages": ["a", "b"]}, 'enqueue q "a" "b"'),
    ({"enqueue": "q", "messages": ["a"], "priority": 3, "delay": 0.5, "ttl": 60, "dedup": ["x"]},
     'enqueue_with q priority 3 delay 500 ms ttl 60000 ms "a" (dedup "x")'),
    ({"enqueue": "q", "messages": ["a", "b"], "dedup": ["", "y"]},
     'enqueue_with q "a" "b" (dedup "y")'),
    ({"dequeue": "q"}, "dequeue q 1"),
    ({"dequeue": "q", "count": 3}, "dequeue q 3"),
    ({"lease": "q", "seconds": 1.5, "count": 2, "consumer": "me"}, "lease q 2 for 1500 ms by me"),
    ({"lease": "q", "seconds": 1}, "lease q 1 for 1000 ms"),
    ({"ack": "5:7"}, "ack 5:7"),
    ({"ack": ["5:7", "6:8"]}, "ack 5:7 6:8"),
    ({"nack": "5:7"}, "nack 5:7"),
    ({"nack": "5:7", "delay": 2, "reason": "no"}, 'nack 5:7 delay 2000 ms reason "no"'),
    ({"nack": "5:7", "delay": "backoff"}, "nack 5:7 backoff"),
    ({"extend": "5:7", "seconds": 30}, "extend 5:7 to 30000 ms"),
    ({"put": "x", "value": ""}, 'kv_put x ""'),
    ({"put": "x", "value": "2", "ttl": 0.0001}, 'kv_put x "2" ttl 1 ms'),
    ({"get": "x"}, "kv_get x"),
    ({"delete": "ключ"}, "kv_delete ключ"),
    ({"peek": "q", "count": 2}, "peek q 2"),
    ({"size": "q"}, "size q"),
    ({"purge": "q"}, "purge q limit 10000"),
    ({"purge": "q", "limit": 5}, "purge q limit 5"),
]
CONDITIONS = [
    ({"kv": "x", "equals": "1"}, 'key x equals "1"'),
    ({"kv": "x", "equals": ""}, 'key x equals ""'),
    ({"kv": "x", "absent": True}, "key x absent"),
    ({"kv": "x", "present": True}, "key x present"),
    ({"kv": "x", "version": 7}, "key x version 7"),
    ({"queue": "q", "at_least": 1}, "queue q at least 1"),
    ({"queue": "q", "at_most": 9}, "queue q at least 0 at most 9"),
    ({"queue": "q", "at_least": 1, "at_most": 9}, "queue q at least 1 at most 9"),
    ({"leased": "5:7"}, "leased 5:7"),
]
WRONG_OPERATIONS = [
    3, None, [], {}, {"queue": "q"}, {"enqueue": "q"}, {"enqueue": "q", "messages": []},
    {"enqueue": "q", "messages": "a"}, {"enqueue": "q", "messages": [1]},
    {"enqueue": "", "messages": ["a"]}, {"enqueue": "q", "messages": ["a"], "priority": 8},
    {"enqueue": "q", "messages": ["a"], "priority": True},
    {"enqueue": "q", "messages": ["a"], "delay": -1},
    {"enqueue": "q", "messages": ["a"], "ttl": "1"},
    {"enqueue": "q", "messages": ["a"], "ttl": float("nan")},
    {"enqueue": "q", "messages": ["a"], "dedup": ["x", "y"]},
    {"enqueue": "q", "messages": ["a"], "dedup": "x"},
    {"enqueue": "q", "messages": ["a"], "dedup": ["x" * 256]},
    {"dequeue": "q", "count": 0}, {"dequeue": "q", "wait": 1}, {"lease": "q"},
    {"lease": "q", "seconds": "1"}, {"lease": "q", "seconds": 1, "consumer": 5},
    {"ack": "5"}, {"ack": 5}, {"ack": []}, {"ack": "5:7", "count": 1}, {"ack": "5:7", "get": "x"},
    {"nack": "5:7", "delay": "later"}, {"extend": "5:7"}, {"put": "x"}, {"put": "x", "value": 1},
    {"put": "", "value": "1"}, {"put": "x" * 256, "value": "1"}, {"get": 5}, {"purge": "q", 5: 1},
]
WRONG_CONDITIONS = [
    3, {}, {"kv": "x"}, {"kv": "", "absent": True}, {"kv": "x", "absent": False},
    {"kv": "x", "equals": 1}, {"kv": "x", "equals": "1", "absent": True},
    {"kv": "x", "version": -1}, {"kv": "x", "version": "1"}, {"kv": "x", "is": "1"},
    {"queue": "q"}, {"queue": "q", "at_least": -1}, {"queue": "q", "at_least": 1, "more": 1},
    {"leased": "5"}, {"leased": "5:7", "by": "me"}, {"size": "q"},
]


class TransactionsTest(unittest.TestCase):
    def test_operations(self):
        for operation, text in OPERATIONS:
            with self.subTest(operation):
                command, readers = encode_list([operation])
                self.assertEqual(command[4], Operation.EXECUTE)
                self.assertEqual(describe_command(command[4:]), f"execute [{text}]")
                self.assertEqual(len(readers), 1)

    def test_conditions(self):
        command, _ = encode_list([{"size": "q"}], [condition for condition, _ in CONDITIONS])
        texts = "; ".join(text for _, text in CONDITIONS)
        self.assertEqual(describe_command(command[4:]), f"transact when [{texts}] [size q]")
        command, _ = encode_list([{"size": "q"}], [])
        self.assertEqual(describe_command(command[4:]), "transact [size q]")

    def test_errors_name_the_place(self):
        for wrong in WRONG_OPERATIONS:
            with self.subTest(wrong), self.assertRaisesRegex(MalformedError, "^operation 2: "):
                encode_list([{"size": "q"}, wrong])
        for wrong in WRONG_CONDITIONS:
            with self.subTest(wrong), self.assertRaisesRegex(MalformedError, "^condition 2: "):
                encode_list([{"size": "q"}], [{"kv": "x", "absent": True}, wrong])
        for operations, when in ((None, None), ([], []), ({}, None), ([{"size": "q"}], {})):
            with self.subTest((operations, when)), self.assertRaises(MalformedError):
                encode_list(operations, when)

    def test_both_forms_of_a_document(self):
        self.assertEqual(split_document([1]), ([1], None))
        self.assertEqual(split_document({"do": [1]}), ([1], []))
        self.assertEqual(split_document({"do": [1], "when": [2]}), ([1], [2]))
        for wrong in ({}, {"when": []}, {"do": [], "else": []}):
            with self.subTest(wrong), self.assertRaises(MalformedError):
                split_document(wrong)

    def test_outcomes(self):
        done = [
            ({"enqueue": "q", "messages": ["a", "b"]}, 0, commands.encode_enqueue_result(5)),
            ({"enqueue": "q", "messages": ["a", "b"], "priority": 1}, 0,
             queueresults.encode_enqueue_with_result([5, 3], [0, 1])),
            ({"lease": "q", "seconds": 1}, 0, queueresults.encode_lease_result([(5, 7, 2, b"a")])),
            ({"lease": "q", "seconds": 1}, 1, b""),
            ({"ack": ["5:7", "6:8"]}, 0, queueresults.encode_outcomes_result([0, 2])),
            ({"put": "x", "value": "1"}, 0, kvcommands.encode_version_result(9)),
            ({"get": "x"}, 0, kvcommands.encode_kv_get_result(9, 0, b"1")),
            ({"get": "x"}, 1, b""), ({"delete": "x"}, 1, b""),
            ({"purge": "q"}, 0, queueresults.encode_moved_result(3, 0))]
        _, readers = encode_list([operation for operation, _, _ in done])
        payload = commands.encode_execute_result([(status, result) for _, status, result in done])
        ids, known, leased, none, acked, put, got, absent, deleted, purged = decode_outcomes(
            payload, readers)
        self.assertEqual((ids, known, known.duplicates), ([5, 6], [5, 3], [1]))
        self.assertEqual([(m.receipt, m.deliveries, m.text) for m in leased], [("5:7", 2, "a")])
        self.assertEqual((none, acked, put, got.value, absent, deleted, purged),
                         ([], (0, 2), 9, b"1", None, None, 3))
        with self.assertRaises(MalformedError):
            decode_outcomes(payload, readers[1:])
        with self.assertRaises(RefusedError):
            decode_outcomes(commands.encode_execute_result([(4, b"limit")]), readers[:1])


class RefusalsTest(unittest.TestCase):
    """What a status says to people and programs."""

    def refusal(self, status: int, payload: bytes, operation: int) -> StateRefusedError:
        with self.assertRaises(StateRefusedError) as caught:
            check_status(status, payload, operation)
        self.assertEqual(caught.exception.status, status)
        return caught.exception

    def test_conflicts(self):
        error = self.refusal(Status.CONFLICT, kvcommands.encode_kv_conflict(3, b"v"),
                             Operation.KV_PUT)
        self.assertEqual((error.version, error.value), (3, b"v"))
        self.assertIn("the key has version 3", str(error))
        error = self.refusal(Status.CONFLICT, kvcommands.encode_kv_conflict(0, b""),
                             Operation.KV_DELETE)
        self.assertIn("the key is absent", str(error))
        error = self.refusal(Status.CONFLICT, transactions.encode_conflict_result(2),
                             Operation.TRANSACT)
        self.assertEqual(error.position, 2)
        self.assertIn("condition 3 does not hold", str(error))

    def test_aborted(self):
        for status, payload, words in (
                (Status.STALE, queueresults.encode_outcomes_result([0, 1]), "receipt 2 of 2"),
                (Status.STALE, queueresults.encode_outcomes_result([1]), "that lease has ended"),
                (Status.FULL, b"bytes_max", "bytes_max"), (Status.IN_USE, b"", "IN_USE"),
                (Status.CONFLICT, kvcommands.encode_kv_conflict(7, b"v"), "version 7"),
                (99, b"", "STATUS_99")):
            error = self.refusal(Status.ABORTED, transactions.encode_aborted_result(
                4, status, payload), Operation.EXECUTE)
            with self.subTest(words):
                self.assertEqual(error.position, 4)
                self.assertIn("operation 5: ", str(error))
                self.assertIn(words, str(error))
                self.assertIn("nothing of the list was done", str(error))

    def test_full_and_in_use_say_what_to_do(self):
        self.assertIn("configure", str(self.refusal(Status.FULL, b"messages_max",
                                                    Operation.ENQUEUE)))
        self.assertIn("purge", str(self.refusal(Status.IN_USE, b"", Operation.DELETE_QUEUE)))


if __name__ == "__main__":
    unittest.main()
