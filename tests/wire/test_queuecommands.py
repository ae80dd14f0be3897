"""The commands of queues and keys, transactions, and results: what is encoded is decoded, and
nothing else is."""

import random
import struct
import unittest

from raftnet.errors import MalformedError
from raftnet.wire import commands, kvcommands, queuecommands, queueresults, transactions
from raftnet.wire.kvcommands import NO_CONDITION, Condition, ConditionKind, KvItem
from raftnet.wire.queueresults import (Description, Event, Inspected, Leased, LeaseUnderWay,
                                       Outcome)
from raftnet.wire.transactions import KeyCondition, LeasedCondition, QueueCondition

U64 = 2 ** 64 - 1
LONGEST = bytes(range(255))
RECEIPTS = [(1, U64), (2, 0)]
CONDITIONS = [NO_CONDITION, Condition(1), Condition(2), Condition(3, b""), Condition(3, b"value"),
              Condition(4, U64)]
SUBJECTS = [*[KeyCondition(LONGEST, condition) for condition in CONDITIONS],
            QueueCondition(b"q", 1), QueueCondition(b"q", 0, 5), LeasedCondition(5, U64)]
SETTINGS = {1: b"dead", 2: 5, 3: U64, 4: 1, 5: 2, 6: 1, 7: 3, 8: 4, 9: 5}
# (encoded with its length, decoder, what it must give)
COMMANDS = [
    (queuecommands.encode_enqueue_with(b"q", [b"a", b"", b"ccc"], 7, 1, U64),
     queuecommands.decode_enqueue_with,
     (b"q", 7, 1, U64, [b"", b"", b""], [b"a", b"", b"ccc"])),
    (queuecommands.encode_enqueue_with(LONGEST, [b"a", b"b"], 0, 0, 0, [b"", LONGEST]),
     queuecommands.decode_enqueue_with, (LONGEST, 0, 0, 0, [b"", LONGEST], [b"a", b"b"])),
    (queuecommands.encode_lease(b"q", 30, 2, 5, b"host:1"), queuecommands.decode_lease,
     (b"q", 2, 5, 30, b"host:1")),
    (queuecommands.encode_lease(b"q", U64), queuecommands.decode_lease, (b"q", 1, 0, U64, b"")),
    (queuecommands.encode_ack(RECEIPTS), queuecommands.decode_ack, RECEIPTS),
    (queuecommands.encode_nack(RECEIPTS, 7, LONGEST), queuecommands.decode_nack,
     (7, LONGEST, RECEIPTS)),
    (queuecommands.encode_nack(RECEIPTS[:1], None), queuecommands.decode_nack,
     (None, b"", RECEIPTS[:1])),
    (queuecommands.encode_extend(RECEIPTS, 7), queuecommands.decode_extend, (7, RECEIPTS)),
    (queuecommands.encode_configure(b"q", SETTINGS), queuecommands.decode_configure,
     (b"q", SETTINGS)),
    (queuecommands.encode_configure(b"q", {9: 5, 1: b""}), queuecommands.decode_configure,
     (b"q", {9: 5, 1: b""})),
    (queuecommands.encode_configure(b"q", {}), queuecommands.decode_configure, (b"q", {})),
    (queuecommands.encode_delete_queue(b"q"), queuecommands.decode_delete_queue, b"q"),
    (queuecommands.encode_purge(b"q", 9), queuecommands.decode_purge, (b"q", 9)),
    (queuecommands.encode_redrive(b"q", b"r", 9), queuecommands.decode_redrive, (b"q", b"r", 9)),
    (queuecommands.encode_redrive(b"q"), queuecommands.decode_redrive, (b"q", b"", 1_000)),
    (queuecommands.encode_describe(b"q"), queuecommands.decode_describe, b"q"),
    (queuecommands.encode_leases(b"q", 9), queuecommands.decode_leases, (b"q", 9)),
    (queuecommands.encode_inspect(b"q", 9), queuecommands.decode_inspect, (b"q", 9)),
    (kvcommands.encode_kv_get(LONGEST), kvcommands.decode_kv_get, LONGEST),
    *[(kvcommands.encode_kv_put(b"k", value, 5, condition), kvcommands.decode_kv_put,
       (b"k", 5, condition, value)) for condition in CONDITIONS for value in (b"", b"v")],
    *[(kvcommands.encode_kv_delete(b"k", condition), kvcommands.decode_kv_delete, (b"k", condition))
      for condition in CONDITIONS],
    (kvcommands.encode_kv_list(b"", b"", 7), kvcommands.decode_kv_list, (b"", b"", 7)),
    (kvcommands.encode_kv_list(LONGEST, b"a", 7), kvcommands.decode_kv_list, (LONGEST, b"a", 7)),
    (transactions.encode_transact([], []), transactions.decode_transact, ([], [])),
    (transactions.encode_transact(SUBJECTS, [commands.encode_size(b"a"), commands.encode_close()]),
     transactions.decode_transact, (SUBJECTS, [b"\x05\x01a", b"\x07"])),
]
EVENT = Event(1, 2, 3, 4, 5, b"host:1", LONGEST)
DESCRIPTION = Description(True, 1, 2, 3, 4, 5, 6, U64, SETTINGS)
LEASES = [LeaseUnderWay(1, 2, 3, 4, 5, b"host:1"), LeaseUnderWay(2, 3, 4, 5, 6, b"")]
INSPECTED = [Inspected(1, 2, 3, 4, b"from", (EVENT, EVENT), b"message"),
             Inspected(2, 0, 0, 0, b"", (), b"")]
LEASED = [Leased(1, 2, 3, b"one"), Leased(U64, U64, 2 ** 32 - 1, b"")]
ITEMS = [(b"a", 1, b""), (LONGEST, U64, b"value")]
RESULTS = [
    (queueresults.encode_enqueue_with_result([5, U64], [0, 1]),
     queueresults.decode_enqueue_with_result, [(5, False), (U64, True)]),
    (queueresults.encode_lease_result(LEASED), queueresults.decode_lease_result, LEASED),
    (queueresults.encode_lease_result([]), queueresults.decode_lease_result, []),
    (queueresults.encode_outcomes_result([0, 1, 2]), queueresults.decode_outcomes_result,
     [Outcome.DONE, Outcome.STALE, Outcome.DEAD_LETTERED]),
    (queueresults.encode_moved_result(1, U64), queueresults.decode_moved_result, (1, U64)),
    (queueresults.encode_describe_result(DESCRIPTION), queueresults.decode_describe_result,
     DESCRIPTION),
    (queueresults.encode_leases_result(9, LEASES), queueresults.decode_leases_result, (9, LEASES)),
    (queueresults.encode_inspect_result(9, INSPECTED), queueresults.decode_inspect_result,
     (9, INSPECTED)),
    (kvcommands.encode_version_result(U64), kvcommands.decode_version_result, U64),
    (kvcommands.encode_kv_list_result(True, ITEMS), kvcommands.decode_kv_list_result,
     (True, ITEMS)),
    (kvcommands.encode_kv_list_result(False, []), kvcommands.decode_kv_list_result, (False, [])),
    (transactions.encode_conflict_result(7), transactions.decode_conflict_result, 7),
]
# Results that end with bytes of any number: the head is checked, a tail is a part of them.
OPEN_RESULTS = [
    (kvcommands.encode_kv_get_result(1, 2, b"value"), kvcommands.decode_kv_get_result,
     KvItem(1, 2, b"value"), 16),
    (kvcommands.encode_kv_conflict(1, b"value"), kvcommands.decode_kv_conflict, (1, b"value"), 8),
    (transactions.encode_aborted_result(1, 8, b"text"), transactions.decode_aborted_result,
     (1, 8, b"text"), 5),
]


class CodecsTest(unittest.TestCase):

    def test_round_trip(self):
        for encoded, decode, value in COMMANDS:
            with self.subTest(decode.__name__, value=value):
                (command,) = commands.split_commands(encoded, 0)
                self.assertEqual(decode(command), value)

    def test_every_operation_is_there(self):
        since = {operation for operation, version in commands.OPERATION_SINCE.items()
                 if version == 2}
        self.assertEqual({encoded[4] for encoded, _, _ in COMMANDS}, since)

    def test_every_truncation_and_a_tail_are_refused(self):
        for encoded, decode, value in COMMANDS:
            for end in [*range(1, len(encoded) - 4), None]:
                command = encoded[4:4 + end] if end else encoded[4:] + b"\0"
                with self.subTest(decode.__name__, value=value, end=end):
                    with self.assertRaises(MalformedError):
                        decode(command)

    def test_results_round_trip_and_truncation(self):
        for payload, decode, value in RESULTS:
            with self.subTest(decode.__name__, value=value):
                self.assertEqual(decode(payload), value)
                for end in range(len(payload)):
                    with self.assertRaises(MalformedError):
                        decode(payload[:end])
                with self.assertRaises(MalformedError):
                    decode(payload + b"\0")

    def test_open_results(self):
        for payload, decode, value, head in OPEN_RESULTS:
            with self.subTest(decode.__name__):
                self.assertEqual(decode(payload), value)
                for end in range(head):
                    with self.assertRaises(MalformedError):
                        decode(payload[:end])

    def test_damaged_bytes_give_a_value_or_malformed(self):
        chance = random.Random(11)
        decoders = [(encoded[4:], decode) for encoded, decode, _ in COMMANDS]
        decoders += [(payload, decode) for payload, decode, _ in RESULTS]
        refused = 0
        for _ in range(20_000):
            data, decode = chance.choice(decoders)
            data = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                value = chance.choice((0, 1, 255, chance.randrange(256)))
                data[chance.randrange(len(data))] = value
            try:
                decode(bytes(data))
            except MalformedError:
                refused += 1
        self.assertGreater(refused, 2_000)

    def test_lying_counts_are_refused_before_anything_is_made(self):
        huge = struct.pack(">I", 0xFFFFFFFF)
        for decode, data in (
                (queuecommands.decode_enqueue_with, b"\x08\x01q" + bytes(17) + huge + bytes(50)),
                (queuecommands.decode_ack, b"\x0a" + huge + bytes(50)),
                (transactions.decode_transact, b"\x18" + huge + bytes(50)),
                (transactions.decode_transact, b"\x18" + bytes(4) + huge + bytes(50)),
                (queueresults.decode_enqueue_with_result, huge + bytes(50)),
                (queueresults.decode_lease_result, huge + bytes(50)),
                (queueresults.decode_outcomes_result, huge + bytes(50)),
                (queueresults.decode_leases_result, bytes(8) + huge + bytes(50)),
                (queueresults.decode_inspect_result, bytes(8) + huge + bytes(50)),
                (kvcommands.decode_kv_list_result, b"\0" + huge + bytes(50)),
                (kvcommands.decode_kv_put, b"\x15\x01k" + bytes(8) + b"\x03" + huge + bytes(50))):
            with self.subTest(decode.__name__), self.assertRaises(MalformedError):
                decode(data)

    def test_what_has_no_meaning_is_refused(self):
        none_or_unknown = [
            (queuecommands.decode_enqueue_with, b"\x08\x01q" + bytes(21)),      # no message
            (queuecommands.decode_ack, b"\x0a" + bytes(4)),                     # no receipt
            (queuecommands.decode_lease, b"\x09\x00" + bytes(17)),              # no name
            (kvcommands.decode_kv_get, b"\x14\x00"),
            (kvcommands.decode_kv_delete, b"\x16\x01k\x05"),                    # condition 5
            (transactions.decode_transact, b"\x18\0\0\0\1\0\0\0\1\x04" + bytes(4)),     # subject 4
            (transactions.decode_transact, b"\x18\0\0\0\1\0\0\0\0" + bytes(4)),
            (queueresults.decode_enqueue_with_result, b"\0\0\0\1" + bytes(8) + b"\2"),
            (kvcommands.decode_kv_list_result, b"\2" + bytes(4))]
        for settings in ({0: 1}, {10: 1}, {6: 2}):
            body = b"".join(struct.pack(">BQ", *pair) for pair in settings.items())
            none_or_unknown.append((queuecommands.decode_configure, b"\x0d\x01q\x01" + body))
        twice = struct.pack(">BQBQ", 2, 1, 2, 1)
        none_or_unknown.append((queuecommands.decode_configure, b"\x0d\x01q\x02" + twice))
        with_value = struct.pack(">BQ", 1, 1) + b"\0"
        none_or_unknown.append((queuecommands.decode_configure, b"\x0d\x01q\x01" + with_value))
        for decode, data in none_or_unknown:
            with self.subTest(decode.__name__, data=data), self.assertRaises(MalformedError):
                decode(data)

    def test_a_large_command_takes_no_longer_than_its_bytes(self):
        receipts = [(number, number) for number in range(10_000)]
        command = queuecommands.encode_ack(receipts)
        self.assertEqual(queuecommands.decode_ack(command[4:]), receipts)
        many = queuecommands.encode_enqueue_with(b"q", [b"m"] * 100_000)
        self.assertEqual(len(queuecommands.decode_enqueue_with(many[4:])[5]), 100_000)
        subjects = [KeyCondition(b"k", Condition(ConditionKind.ABSENT))] * 1_000
        conditions, _ = transactions.decode_transact(
            transactions.encode_transact(subjects, [])[4:])
        self.assertEqual(conditions, subjects)


if __name__ == "__main__":
    unittest.main()
