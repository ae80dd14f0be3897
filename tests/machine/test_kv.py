"""The keys, against a naive model: versions, expiries, changes, and undoing all of it."""

import copy
import gc
import random
import unittest
import weakref

from raftnet.machine.kv import DELETED, EXPIRED, PUT, Item, KeyValue


def state_of(kv: KeyValue) -> tuple:
    """Everything that is replicated, and what those who watch would be told."""
    return ({key: (item.value, item.version, item.expires_ms)
             for key, item in kv.by_key.items()}, kv.version, list(kv.changes),
            list(kv.names.after(b"")), len(kv._deadlines))


def undo(journal: list):
    for function, *arguments in reversed(journal):
        function(*arguments)


class Model:
    """What the store should be, said as plainly as possible."""

    def __init__(self):
        self.items = {}         # key -> (value, version, expires_ms)
        self.version = 0
        self.changes = []

    def expiring(self) -> list[tuple[int, int, bytes]]:
        return sorted((expires_ms, version, key)
                      for key, (_, version, expires_ms) in self.items.items() if expires_ms)

    def remove(self, key: bytes, change: int):
        self.version += 1
        del self.items[key]
        self.changes.append((change, key, self.version, b""))

    def put(self, key: bytes, value: bytes, expires_ms: int, now_ms: int):
        if key in self.items and 0 < self.items[key][2] <= now_ms:
            self.remove(key, EXPIRED)
        self.version += 1
        self.items[key] = (value, self.version, expires_ms)
        self.changes.append((PUT, key, self.version, value))

    def expire(self, now_ms: int, count: int):
        for expires_ms, _, key in self.expiring()[:count]:
            if expires_ms <= now_ms:
                self.remove(key, EXPIRED)


class KeyValueTest(unittest.TestCase):

    def setUp(self):
        self.kv, self.model = KeyValue(), Model()

    def check(self):
        items, version, changes, names, living = state_of(self.kv)
        self.assertEqual(items, self.model.items)
        self.assertEqual(version, self.model.version)
        self.assertEqual(changes, self.model.changes)
        self.assertEqual(names, sorted(items))
        self.assertEqual(living, len(self.model.expiring()))

    def check_deadlines(self):
        first = next(iter(self.model.expiring()), None)
        if first is not None:
            self.assertLessEqual(self.kv.due_ms(), first[0])
        self.assertEqual(self.kv.earliest_ms(), first and first[0])

    def put(self, key, value=b"v", expires_ms=0, now_ms=0, journal=None):
        self.model.put(key, value, expires_ms, now_ms)
        self.assertEqual(self.kv.put(key, value, expires_ms, now_ms, journal), self.model.version)

    def test_every_change_has_its_version(self):
        self.put(b"a", b"1")
        self.put(b"b", b"2", 100)
        self.put(b"a", b"3")
        self.model.remove(b"a", DELETED)
        self.assertEqual(self.kv.delete(b"a", None), 4)
        self.check_deadlines()
        self.assertEqual(self.kv.expire(99, 10), 0)
        self.assertEqual(self.kv.expire(100, 10), 1)
        self.model.expire(100, 10)
        self.check()
        self.assertEqual(self.kv.take_changes(), [
            (PUT, b"a", 1, b"1"), (PUT, b"b", 2, b"2"), (PUT, b"a", 3, b"3"),
            (DELETED, b"a", 4, b""), (EXPIRED, b"b", 5, b"")])
        self.assertEqual(self.kv.take_changes(), [])
        self.assertIsNone(self.kv.earliest_ms())

    def test_past_its_expiry_it_is_absent_and_still_to_be_expired(self):
        self.put(b"a", b"1", 100)
        self.assertEqual(self.kv.find(b"a", 99).value, b"1")
        self.assertIsNone(self.kv.find(b"a", 100))
        self.assertIsNone(self.kv.find(b"b", 0))
        self.check()
        self.put(b"a", b"2", 0, now_ms=100)
        self.assertEqual(self.kv.changes[1:], [(EXPIRED, b"a", 2, b""), (PUT, b"a", 3, b"2")])
        self.assertEqual(self.kv.expire(1000, 10), 0)
        self.assertEqual(self.kv.find(b"a", 1000).value, b"2")
        self.check()

    def test_expiries_come_by_time_and_then_by_version(self):
        for key, expires_ms in ((b"z", 5), (b"b", 7), (b"y", 5), (b"a", 6), (b"z", 6), (b"n", 0)):
            self.put(key, b"", expires_ms)
        self.kv.take_changes()
        self.assertEqual(self.kv.expire(7, 2), 2)
        self.assertEqual(self.kv.expire(7, 2), 2)
        self.assertEqual(self.kv.expire(7, 2), 0)
        self.assertEqual([key for _, key, _, _ in self.kv.changes], [b"y", b"a", b"z", b"b"])
        self.assertEqual(list(self.kv.by_key), [b"n"])

    def test_a_later_expiry_counts_and_none_at_all(self):
        self.put(b"a", b"", 10)
        self.check_deadlines()
        self.put(b"a", b"", 20)
        self.check_deadlines()
        self.assertEqual(self.kv.expire(19, 10), 0)
        self.put(b"a", b"", 0, 19)
        self.check_deadlines()
        self.assertEqual(self.kv.expire(1000, 10), 0)
        self.check()

    def test_undone_and_then_the_same_again(self):
        # The counter goes back too: a deadline left over would then be of this key and version.
        self.put(b"a", b"", 30)
        self.check_deadlines()
        for _ in range(1000):
            journal = []
            before = state_of(self.kv)
            self.kv.put(b"b", b"x", 10, 0, journal)
            self.kv.delete(b"a", journal)
            undo(journal)
            self.assertEqual(state_of(self.kv), before)
        self.assertEqual(self.kv.earliest_ms(), 30)
        self.put(b"b", b"x", 20)
        self.assertEqual(self.kv.earliest_ms(), 20)
        self.assertEqual(self.kv.expire(19, 10), 0)
        self.assertLess(len(self.kv._deadlines), 5)
        self.check()

    def test_restored_out_of_a_snapshot(self):
        self.kv.version = self.model.version = 9
        for key, item in ((b"a", (b"1", 4, 0)), (b"b", (b"2", 9, 50)), (b"c", (b"3", 8, 50))):
            self.kv.restore(key, Item(*item))
            self.model.items[key] = item
        self.check()
        self.check_deadlines()
        self.kv.expire(50, 1)
        self.model.expire(50, 1)
        self.assertEqual(list(self.kv.by_key), [b"a", b"b"])
        self.check()

    def test_given_back_a_little_at_a_time(self):
        for number in range(2000):
            self.kv.put(b"%d" % number, b"", 5 if number % 2 else 0, 0, None)
            self.kv.earliest_ms()
        calls = 1
        while self.kv.give_back(100):
            calls += 1
            self.assertGreaterEqual(len(self.kv.by_key), 2000 - 100 * calls)
        self.assertEqual(calls, 20)
        self.assertEqual((self.kv.by_key, list(self.kv.names.after(b""))), ({}, []))
        self.assertIsNone(self.kv.earliest_ms())

    def test_nothing_here_is_a_cycle(self):
        class Watched(KeyValue):
            __slots__ = ("__weakref__",)
        kv = Watched()
        journal = []
        kv.put(b"a", b"1", 5, 0, journal)
        undo(journal)
        kv.put(b"a", b"1", 5, 0, None)
        kv.earliest_ms()
        gone = weakref.ref(kv)
        enabled = gc.isenabled()
        gc.disable()
        try:
            del kv, journal
            self.assertIsNone(gone())
        finally:
            if enabled:
                gc.enable()

    def test_random_changes_against_the_model(self):
        for seed in range(25):
            with self.subTest(seed=seed):
                self.setUp()
                self.run_random(random.Random(seed))

    def run_random(self, chance: random.Random):
        now_ms = 0
        keys = [bytes((letter,)) * chance.randint(1, 3) for letter in range(97, 117)]
        journal, before, model_before = None, None, None
        for _ in range(800):
            kind = chance.random()
            key = chance.choice(keys)
            if kind < 0.45:
                expires_ms = now_ms + chance.randint(1, 60) if chance.random() < 0.6 else 0
                self.put(key, b"%d" % chance.randrange(1000), expires_ms, now_ms, journal)
            elif kind < 0.65:
                item = self.kv.find(key, now_ms)
                known = self.model.items.get(key)
                there = known is not None and not 0 < known[2] <= now_ms
                self.assertEqual(item is not None, there)
                if item is not None:
                    self.model.remove(key, DELETED)
                    self.assertEqual(self.kv.delete(key, journal), self.model.version)
            elif journal is not None:
                if kind < 0.75:
                    undo(journal)
                    self.model = model_before
                    self.assertEqual(state_of(self.kv), before)
                    journal = None
                elif kind < 0.85:
                    journal = None
            elif kind < 0.75:
                journal, before = [], state_of(self.kv)
                model_before = copy.deepcopy(self.model)
            elif kind < 0.85:
                now_ms += chance.randint(0, 30)
                count = chance.choice((1, 2, 100))
                self.check_deadlines()
                due = sum(expires_ms <= now_ms for expires_ms, _, _ in self.model.expiring())
                self.model.expire(now_ms, count)
                self.assertEqual(self.kv.expire(now_ms, count), min(due, count))
                self.check_deadlines()
            elif kind < 0.9:
                self.assertEqual(self.kv.take_changes(), self.model.changes)
                self.model.changes = []
            else:
                self.check_deadlines()
            if chance.random() < 0.2:
                self.check()
        self.check()


if __name__ == "__main__":
    unittest.main()
