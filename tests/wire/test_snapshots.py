"""Bodies about snapshots: what is encoded is decoded, and nothing else is, or raises anything but
MalformedError."""

import random
import unittest

from raftnet.errors import MalformedError
from raftnet.wire import snapshots
from raftnet.wire.snapshots import PART_BYTES_MAX, Part, Taken
from tests.wire.test_requests import mutated

MUTATIONS = 4_000
TAKEN = Taken(2**64 - 1, 2**64 - 2, 2**64 - 3, 2**32 - 1, 2**32 - 2)
PART = Part(2**64 - 1, 2**64 - 2, 2**64 - 5, b"abc")
# name, body, decoder, what it gives, the encoder of that
BODIES = [
    ("TAKE_SNAPSHOT", b"\0", snapshots.decode_take_snapshot, False,
     snapshots.encode_take_snapshot),
    ("TAKE_SNAPSHOT local", b"\1", snapshots.decode_take_snapshot, True,
     snapshots.encode_take_snapshot),
    ("SNAPSHOT_TAKEN", snapshots.encode_snapshot_taken(TAKEN), snapshots.decode_snapshot_taken,
     TAKEN, snapshots.encode_snapshot_taken),
    ("READ_SNAPSHOT", snapshots.encode_read_snapshot(2**64 - 1, 2**64 - 2, 2**32 - 1),
     snapshots.decode_read_snapshot, (2**64 - 1, 2**64 - 2, 2**32 - 1),
     lambda values: snapshots.encode_read_snapshot(*values)),
    ("SNAPSHOT_PART", snapshots.encode_snapshot_part(PART), snapshots.decode_snapshot_part, PART,
     snapshots.encode_snapshot_part),
]


class SnapshotsTest(unittest.TestCase):
    def assert_malformed(self, decode, body: bytes):
        with self.assertRaises(MalformedError):
            decode(body)

    def test_round_trip(self):
        for name, body, decode, value, encode in BODIES:
            with self.subTest(name):
                self.assertEqual(decode(body), value)
                self.assertEqual(encode(value), body)

    def test_truncated_and_with_a_tail(self):
        for name, body, decode, value, _ in BODIES:
            ends = len(body) if name != "SNAPSHOT_PART" else len(body) - len(value.data) + 1
            for end in range(ends):
                with self.subTest(name, end=end):
                    self.assert_malformed(decode, body[:end])
            with self.subTest(name):
                self.assert_malformed(decode, body + b"\0")

    def test_random_mutations_raise_nothing_else(self):
        chance = random.Random(24)
        for number in range(MUTATIONS):
            name, body, decode, _, encode = BODIES[number % len(BODIES)]
            data = mutated(body, chance)
            try:
                value = decode(data)
            except MalformedError:
                continue
            with self.subTest(name, data=data.hex()):
                self.assertEqual(encode(value), data)

    def test_values_that_cannot_be(self):
        self.assert_malformed(snapshots.decode_take_snapshot, b"\2")
        self.assert_malformed(snapshots.decode_read_snapshot, bytes(20))
        for part in (Part(1, 9, 7, b"abc"), Part(1, 9, 10, b""), Part(1, 9, 8, b"")):
            with self.subTest(part):
                self.assert_malformed(snapshots.decode_snapshot_part,
                                      snapshots.encode_snapshot_part(part))
        end = Part(1, 9, 9, b"")
        self.assertEqual(snapshots.decode_snapshot_part(snapshots.encode_snapshot_part(end)), end)

    def test_the_largest_part(self):
        part = Part(1, PART_BYTES_MAX, 0, bytes(PART_BYTES_MAX))
        self.assertEqual(snapshots.decode_snapshot_part(snapshots.encode_snapshot_part(part)), part)
        with self.assertRaises(AssertionError):
            snapshots.encode_snapshot_part(part._replace(data=bytes(PART_BYTES_MAX + 1)))


if __name__ == "__main__":
    unittest.main()
