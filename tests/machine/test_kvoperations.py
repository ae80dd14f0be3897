"""The commands of the key-value store, one by one: results, conditions, limits, room."""

import random
import unittest

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine.executor import Executor
from raftnet.machine.kvoperations import KvOperations
from raftnet.wire import kvcommands
from raftnet.wire.commands import Operation, Status
from raftnet.wire.kvcommands import Condition, ConditionKind

ABSENT, PRESENT = Condition(ConditionKind.ABSENT), Condition(ConditionKind.PRESENT)


def equals(value: bytes) -> Condition:
    return Condition(ConditionKind.EQUALS, value)


def version(number: int) -> Condition:
    return Condition(ConditionKind.VERSION, number)


class KvCase(unittest.TestCase):
    """The operations on the keys, by hand: no machine, no room but what is given."""

    def setUp(self):
        self.start()

    def start(self, message_bytes_max: int = 1 << 20, room: int = 4 << 20, **limits):
        """An empty store with these limits."""
        self.executor = Executor(MachineConfig(**limits),
                                 WireConfig(message_bytes_max=message_bytes_max))
        self.executor.begin_request()
        self.executor.room = room
        self.kv = self.executor.kv
        self.handlers = KvOperations(self.executor).handlers

    def do(self, command: bytes) -> tuple[int, bytes]:
        """(status, payload)."""
        command = command[4:]
        status, action = self.handlers[command[0]](command)
        if status != Status.OK:
            return status, action
        function, name, argument = action
        return function(name, argument)

    def get(self, key: bytes):
        status, payload = self.do(kvcommands.encode_kv_get(key))
        return kvcommands.decode_kv_get_result(payload) if status == Status.OK else Status(status)

    def change(self, command: bytes):
        """The version; or the status, with what it says."""
        status, payload = self.do(command)
        if status == Status.OK:
            return kvcommands.decode_version_result(payload)
        if status == Status.CONFLICT:
            return (Status.CONFLICT, *kvcommands.decode_kv_conflict(payload))
        return Status(status), payload

    def put(self, key: bytes, value: bytes, ttl_ms: int = 0, when=kvcommands.NO_CONDITION):
        return self.change(kvcommands.encode_kv_put(key, value, ttl_ms, when))

    def delete(self, key: bytes, when=kvcommands.NO_CONDITION):
        return self.change(kvcommands.encode_kv_delete(key, when))

    def listed(self, prefix: bytes = b"", after: bytes = b"", limit: int = 1000):
        """(whether more follow, [(key, version, value)]), or the status."""
        status, payload = self.do(kvcommands.encode_kv_list(prefix, after, limit))
        if status != Status.OK:
            return Status(status)
        return kvcommands.decode_kv_list_result(payload)


class KvOperationsTest(KvCase):

    def test_put_get_delete(self):
        self.assertEqual(self.get(b"a"), Status.EMPTY)
        self.assertEqual(self.put(b"a", b"1"), 1)
        self.assertEqual(self.put(b"b", b""), 2)
        self.assertEqual(self.put(b"a", b"2", 500), 3)
        self.assertEqual(self.get(b"a"), (3, 500, b"2"))
        self.assertEqual(self.get(b"b"), (2, 0, b""))
        self.assertEqual(self.delete(b"a"), 4)
        self.assertEqual(self.delete(b"a"), (Status.EMPTY, b""))
        self.assertEqual(self.get(b"a"), Status.EMPTY)
        self.assertEqual(self.put(b"a", b"3"), 5)

    def test_any_key_of_1_to_255_bytes(self):
        keys = [b"\0", b" ", b"'\"", "schl\u00fcssel \u0434\u0430".encode(), b"\xff" * 255,
                b"x" * 255]
        for key in keys:
            self.put(key, key)
        for key in keys:
            self.assertEqual(self.get(key).value, key)
        self.assertEqual([key for key, _, _ in self.listed()[1]], sorted(keys))
        empty = bytes((Operation.KV_GET, 0))
        with self.assertRaises(MalformedError):
            self.handlers[Operation.KV_GET](empty)

    def test_conditions_of_put(self):
        self.put(b"there", b"1")
        for key, condition, fine in (
                (b"there", kvcommands.NO_CONDITION, True), (b"gone", kvcommands.NO_CONDITION, True),
                (b"there", ABSENT, False), (b"gone", ABSENT, True),
                (b"there", PRESENT, True), (b"gone", PRESENT, False),
                (b"there", equals(b"1"), True), (b"there", equals(b"2"), False),
                (b"there", equals(b""), False), (b"gone", equals(b""), False),
                (b"gone", equals(b"1"), False),
                (b"there", version(1), True), (b"there", version(0), False),
                (b"there", version(2), False), (b"gone", version(0), False),
                (b"gone", version(1), False)):
            with self.subTest(key=key, condition=condition):
                self.start()
                self.put(b"there", b"1")
                found = self.put(key, b"new", 0, condition)
                if fine:
                    self.assertEqual(found, 2)
                    self.assertEqual(self.get(key).value, b"new")
                elif key == b"there":
                    self.assertEqual(found, (Status.CONFLICT, 1, b"1"))
                else:
                    self.assertEqual(found, (Status.CONFLICT, 0, b""))
                self.assertEqual(self.kv.version, 2 if fine else 1)

    def test_conditions_of_delete(self):
        for key, condition, expected in (
                (b"there", ABSENT, (Status.CONFLICT, 1, b"1")), (b"gone", ABSENT, "empty"),
                (b"there", PRESENT, 2), (b"gone", PRESENT, (Status.CONFLICT, 0, b"")),
                (b"there", equals(b"1"), 2), (b"there", equals(b"2"), (Status.CONFLICT, 1, b"1")),
                (b"gone", equals(b""), (Status.CONFLICT, 0, b"")),
                (b"there", version(1), 2), (b"there", version(2), (Status.CONFLICT, 1, b"1")),
                (b"gone", version(0), (Status.CONFLICT, 0, b""))):
            with self.subTest(key=key, condition=condition):
                self.start()
                self.put(b"there", b"1")
                found = self.delete(key, condition)
                self.assertEqual(found, (Status.EMPTY, b"") if expected == "empty" else expected)
                self.assertEqual(b"there" in self.kv.by_key, found != 2)

    def test_past_its_expiry_a_key_is_absent_everywhere(self):
        self.put(b"a", b"1", 100)
        self.put(b"b", b"2")
        self.executor.now_ms = 99
        self.assertEqual(self.get(b"a"), (1, 100, b"1"))
        self.executor.now_ms = 100
        self.assertEqual(self.get(b"a"), Status.EMPTY)
        self.assertEqual(self.delete(b"a"), (Status.EMPTY, b""))
        self.assertEqual(self.delete(b"a", PRESENT), (Status.CONFLICT, 0, b""))
        self.assertEqual(self.put(b"a", b"3", 0, equals(b"1")), (Status.CONFLICT, 0, b""))
        self.assertEqual(self.put(b"a", b"3", 0, version(1)), (Status.CONFLICT, 0, b""))
        self.assertEqual(self.listed(), (False, [(b"b", 2, b"2")]))
        self.assertEqual(self.kv.version, 2)
        self.assertEqual(self.put(b"a", b"3", 50, ABSENT), 4)      # 3: that it expired
        self.assertEqual(self.get(b"a"), (4, 150, b"3"))

    def test_limits(self):
        self.start(message_bytes_max=3, keys_max=2, ttl_ms_max=1000, list_count_max=5)
        self.assertEqual(self.put(b"a", b"1234"), (Status.LIMIT, b"message_bytes_max"))
        self.assertEqual(self.put(b"a", b"1", 1001), (Status.LIMIT, b"ttl_ms_max"))
        self.assertEqual(self.put(b"a", b"123", 1000), 1)
        self.assertEqual(self.put(b"b", b""), 2)
        self.assertEqual(self.put(b"c", b""), (Status.LIMIT, b"keys_max"))
        self.assertEqual(self.put(b"c", b"", 0, PRESENT), (Status.CONFLICT, 0, b""))
        self.assertEqual(self.put(b"b", b"2"), 3)
        self.executor.room = 5
        self.assertEqual(self.put(b"c", b""), (Status.LIMIT, b""))
        self.executor.room = 1000
        for limit, status in ((0, Status.LIMIT), (6, Status.LIMIT)):
            self.assertEqual(self.listed(limit=limit), status)
        self.assertEqual(len(self.listed(limit=5)[1]), 2)
        self.delete(b"a")
        self.assertEqual(self.put(b"c", b""), 5)
        self.assertEqual(len(self.kv.by_key), 2)

    def test_results_have_room_or_are_refused(self):
        self.put(b"a", b"x" * 84)
        self.executor.room = 100
        self.assertEqual(self.get(b"a").version, 1)
        self.assertEqual(self.executor.room, 0)
        self.executor.room = 99
        self.assertEqual(self.get(b"a"), Status.REPLY_FULL)
        self.assertEqual(self.put(b"a", b"", 0, ABSENT), (Status.CONFLICT, 1, b"x" * 84))
        self.assertEqual(self.executor.room, 15)
        self.executor.room = 84
        self.assertEqual(self.delete(b"a", ABSENT), (Status.CONFLICT, 1, b"x" * 84))
        self.executor.room = 15
        self.assertEqual(self.put(b"a", b"", 0, ABSENT), (Status.CONFLICT, 1, b""))
        self.assertEqual(self.put(b"b", b""), 2)
        self.assertEqual(self.executor.room, 15)

    def test_each_change_gives_the_journal_its_inverse(self):
        self.put(b"a", b"1", 100)
        self.put(b"b", b"2")
        self.executor.journal = journal = []
        self.put(b"a", b"3")
        self.delete(b"b")
        self.executor.now_ms = 100
        self.put(b"b", b"4")
        self.put(b"c", b"5", 7)
        self.executor.now_ms = 107
        self.put(b"c", b"6")
        self.assertEqual(self.put(b"c", b"6", 0, ABSENT)[0], Status.CONFLICT)
        for function, *arguments in reversed(journal):
            function(*arguments)
        self.executor.now_ms = 0
        self.assertEqual(self.listed(), (False, [(b"a", 1, b"1"), (b"b", 2, b"2")]))
        self.assertEqual((self.kv.version, len(self.kv.changes)), (2, 2))
        self.assertEqual(self.kv.earliest_ms(), 100)

    def test_a_page_ends_where_the_room_does(self):
        for letter in b"abcd":
            self.put(bytes((letter,)), b"x" * 6)        # 20 bytes each in a page
        for room, expected in ((85, 4), (84, 3), (45, 2), (25, 1)):
            self.executor.room = room
            more, found = self.listed()
            self.assertEqual((more, len(found)), (expected < 4, expected))
            self.assertEqual(self.executor.room, room - 5 - 20 * expected)
        for room in (24, 5, 4, 0):
            self.executor.room = room
            self.assertEqual(self.listed(), Status.REPLY_FULL)
            self.assertEqual(self.executor.room, 0 if room > 4 else room)
        self.executor.room = 5
        self.assertEqual(self.listed(b"x"), (False, []))

    def test_keys_that_expired_and_are_still_there_count_as_moves(self):
        self.start(purge_count_max=150)
        self.put(b"0", b"")
        for number in range(100):
            self.put(b"a%02d" % number, b"", 10)
        self.put(b"b", b"1")
        self.executor.now_ms = 10
        self.assertEqual(self.listed(after=b"0"), (False, [(b"b", 102, b"1")]))
        self.assertEqual(self.executor.moves, 50)
        self.assertEqual(self.listed(), (True, [(b"0", 1, b"")]))
        self.assertEqual(self.executor.moves, 0)
        self.assertEqual(self.listed(after=b"0"), Status.REPLY_FULL)
        self.assertEqual(self.executor.room, 0)

    def test_more_says_whether_more_follow(self):
        for number in range(10):
            self.put(b"k%d" % number, b"")
        self.put(b"k99", b"", 5)
        self.put(b"l", b"")
        self.executor.now_ms = 5
        self.assertEqual(self.listed(b"k", limit=9)[0], True)
        self.assertEqual(self.listed(b"k", limit=10)[0], False)
        self.assertEqual(self.listed(b"k", b"k8", 1), (False, [(b"k9", 10, b"")]))
        self.assertEqual(self.listed(b"k", b"k9"), (False, []))

    def test_bytes_that_are_no_command(self):
        chance = random.Random(5)
        whole = [kvcommands.encode_kv_put(b"key", b"value", 5, equals(b"1")),
                 kvcommands.encode_kv_get(b"key"), kvcommands.encode_kv_list(b"p", b"q", 5),
                 kvcommands.encode_kv_delete(b"key", version(7))]
        for _ in range(3000):
            command = bytearray(chance.choice(whole))
            for _ in range(chance.randint(1, 3)):
                command[chance.randrange(5, len(command))] = chance.randrange(256)
            try:
                self.do(bytes(command[:chance.randint(5, len(command))]))
            except MalformedError:
                continue

    def test_random_pages_against_a_dict(self):
        chance = random.Random(11)
        model = {}
        for _ in range(1500):
            key = bytes(chance.choice(b"ab/") for _ in range(chance.randint(1, 7)))
            if chance.random() < 0.3:
                expected = model.pop(key, None)
                found = self.delete(key)
                self.assertEqual(isinstance(found, int), expected is not None)
            else:
                value = b"x" * chance.randrange(40)
                model[key] = (self.put(key, value), value)
            if chance.random() < 0.1:
                prefix = bytes(chance.choice(b"ab/") for _ in range(chance.randint(0, 3)))
                limit, after, pages, more = chance.randint(1, 9), b"", [], True
                while more:
                    self.executor.room = chance.choice((4 << 20, 200))
                    more, page = self.listed(prefix, after, limit)
                    self.assertLessEqual(len(page), limit)
                    pages += page
                    after = page[-1][0] if page else after
                self.assertEqual(pages, sorted((key, *known) for key, known in model.items()
                                               if key.startswith(prefix)))


if __name__ == "__main__":
    unittest.main()
