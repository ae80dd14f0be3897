"""What a transaction may ask for before it does anything."""

import unittest

from raftnet.machine.conditions import first_failing
from raftnet.wire.kvcommands import NO_CONDITION, Condition, ConditionKind
from raftnet.wire.transactions import KeyCondition, LeasedCondition, QueueCondition
from tests.machine.test_kvoperations import ABSENT, PRESENT, KvCase, equals, version


class KeyConditionsTest(KvCase):
    """Of keys, which need no queue."""

    def failing(self, *conditions) -> int | None:
        return first_failing(self.executor, list(conditions))

    def test_the_first_that_fails_is_named(self):
        self.put(b"a", b"1")
        fine, bad = KeyCondition(b"a", PRESENT), KeyCondition(b"a", ABSENT)
        self.assertIsNone(self.failing())
        self.assertIsNone(self.failing(fine, fine))
        self.assertEqual(self.failing(bad), 0)
        self.assertEqual(self.failing(fine, fine, bad, fine, bad), 2)

    def test_each_kind(self):
        self.put(b"a", b"1")
        self.put(b"a", b"2")
        for key, condition, fine in (
                (b"a", NO_CONDITION, True), (b"b", NO_CONDITION, True),
                (b"a", ABSENT, False), (b"b", ABSENT, True),
                (b"a", PRESENT, True), (b"b", PRESENT, False),
                (b"a", equals(b"2"), True), (b"a", equals(b"1"), False),
                (b"b", equals(b""), False),
                (b"a", version(2), True), (b"a", version(1), False), (b"b", version(0), False)):
            with self.subTest(key=key, condition=condition):
                self.assertEqual(self.failing(KeyCondition(key, condition)), None if fine else 0)

    def test_a_key_past_its_expiry_is_absent(self):
        self.put(b"a", b"1", 100)
        for now_ms, there in ((99, True), (100, False), (101, False)):
            self.executor.now_ms = now_ms
            for condition in (PRESENT, equals(b"1"), version(1)):
                self.assertEqual(self.failing(KeyCondition(b"a", condition)), None if there else 0)
            self.assertEqual(self.failing(KeyCondition(b"a", ABSENT)), 0 if there else None)


if __name__ == "__main__":
    unittest.main()
