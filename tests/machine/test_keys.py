"""Keys through the machine: commands in entries, time, transactions with queues, what is undone."""

import copy
import random

from raftnet.machine.kv import DELETED, EXPIRED, PUT
from raftnet.wire import commands, kvcommands, queuecommands, queueresults, requests, transactions
from raftnet.wire.commands import Operation, Status
from raftnet.wire.kvcommands import NO_CONDITION, Condition, ConditionKind
from raftnet.wire.transactions import KeyCondition, LeasedCondition, QueueCondition
from tests.machine.driver import A, MachineCase
from tests.machine.test_kv import Model
from tests.machine.test_kv import state_of as keys_of
from tests.machine.test_kvoperations import ABSENT, PRESENT, equals, version

get, put, delete, page = (kvcommands.encode_kv_get, kvcommands.encode_kv_put,
                          kvcommands.encode_kv_delete, kvcommands.encode_kv_list)
transact, execute = transactions.encode_transact, commands.encode_execute


def read_result(operation: int, status: int, payload: bytes):
    """A result as plain values."""
    if status == Status.CONFLICT:
        return status, kvcommands.decode_kv_conflict(payload)
    if status != Status.OK:
        return status, payload
    if operation == Operation.KV_GET:
        return tuple(kvcommands.decode_kv_get_result(payload))
    if operation == Operation.KV_LIST:
        return kvcommands.decode_kv_list_result(payload)
    if operation == Operation.DEQUEUE:
        return [message for _, message in commands.decode_messages(payload)]
    if operation == Operation.ENQUEUE:
        return status, b""
    return kvcommands.decode_version_result(payload)


class KeysCase(MachineCase):

    def start(self, *arguments, **limits):
        super().start(*arguments, **limits)
        self.kv = self.machine.executor.kv

    def one(self, command: bytes, at: int | None = None):
        """The result of one command without a session, as plain values."""
        ((status, payload),) = self.ask(requests.NO_SESSION, 1, command, at=at).results
        if command[4] in (Operation.TRANSACT, Operation.EXECUTE):
            if status == Status.OK:
                return status, commands.decode_execute_result(payload)
            if status == Status.ABORTED:
                return (status, *transactions.decode_aborted_result(payload))
            if status == Status.CONFLICT:
                return status, transactions.decode_conflict_result(payload)
            return status, payload
        return read_result(command[4], status, payload)

    def changes_at(self, now_ms: int) -> list:
        """What an entry with nothing but that time changes."""
        applied = self.apply(requests.encode_request(
            requests.INTERNAL_SESSION, 0, 0, [commands.encode_time()]), at=now_ms)
        return list(applied.changes or ())


class KeysTest(KeysCase):

    def test_put_get_delete_list(self):
        self.assertEqual(self.one(get(b"a")), (Status.EMPTY, b""))
        self.assertEqual(self.one(put(b"a", b"1")), 1)
        self.assertEqual(self.one(put(b"b", b"2", 50)), 2)
        self.assertEqual(self.one(get(b"b")), (2, 50, b"2"))
        self.assertEqual(self.one(page()), (False, [(b"a", 1, b"1"), (b"b", 2, b"2")]))
        self.assertEqual(self.one(delete(b"a", version(1))), 3)
        self.assertEqual(self.one(delete(b"a")), (Status.EMPTY, b""))

    def test_bytes_that_are_no_command(self):
        for operation in (Operation.KV_GET, Operation.KV_PUT, Operation.KV_DELETE,
                          Operation.KV_LIST):
            for rest in (b"", b"\0", b"\5a", b"\1aXXX"):
                piece = len(rest + b"?").to_bytes(4, "big") + bytes((operation,)) + rest
                self.assertEqual([status for status, _ in self.do(piece)], [Status.MALFORMED])

    def test_before_version_2_of_the_state_there_are_no_keys(self):
        self.machine.state_version = 1
        for command in (get(b"a"), put(b"a", b""), delete(b"a"), page(), transact([], [])):
            self.assertEqual([status for status, _ in self.do(command)], [Status.UNKNOWN])

    def test_reads_beside_the_log(self):
        self.one(put(b"a", b"1", 100), at=0)
        self.assertEqual(self.machine.read(get(b"a")),
                         (Status.OK, kvcommands.encode_kv_get_result(1, 100, b"1")))
        status, payload = self.machine.read(page(b"a"))
        self.assertEqual((status, kvcommands.decode_kv_list_result(payload)),
                         (Status.OK, (False, [(b"a", 1, b"1")])))
        self.assertEqual(self.machine.read(put(b"a", b"2"))[0], Status.UNKNOWN)
        self.assertEqual(self.machine.read(delete(b"a"))[0], Status.UNKNOWN)
        self.assertEqual(self.kv.version, 1)

    def test_a_put_is_done_once_however_often_it_is_sent(self):
        first = self.ask(A, 1, put(b"a", b"1", 0, ABSENT))
        self.assertEqual(first.results, [(Status.OK, kvcommands.encode_version_result(1))])
        self.assertEqual(self.ask(A, 1, put(b"a", b"1", 0, ABSENT)), first)
        self.assertEqual(self.kv.version, 1)

    def test_keys_expire_with_the_time_of_the_log(self):
        self.start(expiries_per_entry_max=2)
        self.one(put(b"a", b"1", 100), at=1000)
        self.one(put(b"b", b"2", 50))
        self.one(put(b"c", b"3", 100))
        self.assertEqual(self.machine.next_deadline_ms(), 1050)
        self.assertEqual(self.changes_at(1049), [])
        self.assertEqual(self.changes_at(1050), [(EXPIRED, b"b", 4, b"")])
        self.assertEqual(self.machine.next_deadline_ms(), 1100)
        self.one(put(b"d", b"4", 10))
        self.assertEqual(self.changes_at(2000), [(EXPIRED, b"d", 6, b""), (EXPIRED, b"a", 7, b"")])
        self.assertEqual(self.one(get(b"c")), (Status.EMPTY, b""))
        self.assertEqual(self.kv.by_key, {})
        self.assertIsNone(self.machine.next_deadline_ms())

    def test_changes_of_an_entry(self):
        bodies = [requests.encode_request(requests.NO_SESSION, 1, 0, [
            put(b"a", b"1"), put(b"b", b"2"), get(b"a")]),
            requests.encode_request(requests.NO_SESSION, 1, 0, [
                execute([put(b"a", b"3"), delete(b"b")]),
                execute([put(b"a", b"4"), put(b"a", b"5", 0, ABSENT)])])]
        self.assertEqual(list(self.apply(*bodies).changes), [
            (PUT, b"a", 1, b"1"), (PUT, b"b", 2, b"2"), (PUT, b"a", 3, b"3"),
            (DELETED, b"b", 4, b"")])
        self.assertFalse(self.apply().changes)
        self.enqueue(b"q", b"1")
        self.assertFalse(self.apply().changes)

    def test_the_number_of_keys_is_limited_in_a_transaction_too(self):
        self.start(keys_max=2)
        self.one(put(b"a", b"1"))
        self.assertEqual(self.one(transact([], [put(b"b", b""), put(b"c", b"")])),
                         (Status.LIMIT, b"keys_max"))
        self.assertEqual(list(self.kv.by_key), [b"a"])
        self.assertEqual(self.one(put(b"b", b"")), 2)


class TransactTest(KeysCase):

    def test_all_of_it(self):
        self.enqueue(b"a", b"1")
        status, results = self.one(transact(
            [QueueCondition(b"a", 1), KeyCondition(b"sum", ABSENT)],
            [commands.encode_dequeue(b"a"), commands.encode_enqueue(b"b", [b"1"]),
             put(b"sum", b"1"), get(b"sum")]))
        self.assertEqual((status, [status for status, _ in results]), (Status.OK, [Status.OK] * 4))
        self.assertEqual(results[3][1], kvcommands.encode_kv_get_result(1, 0, b"1"))
        self.assertEqual((self.contents(b"a"), self.contents(b"b")), ([], [b"1"]))

    def test_a_condition_that_fails_is_named_and_nothing_is_done(self):
        self.enqueue(b"q", b"1", b"2")
        self.one(put(b"a", b"1"))
        fine = KeyCondition(b"a", PRESENT)
        for failing in (KeyCondition(b"a", ABSENT), KeyCondition(b"b", PRESENT),
                        KeyCondition(b"a", equals(b"2")), KeyCondition(b"a", version(2)),
                        QueueCondition(b"q", 3), QueueCondition(b"q", 0, 1),
                        QueueCondition(b"none", 1), LeasedCondition(1, 1)):
            with self.subTest(failing=failing):
                self.assertEqual(self.one(transact([fine, failing, fine],
                                                   [put(b"a", b"2"), put(b"b", b"")])),
                                 (Status.CONFLICT, 1))
                self.assertEqual(self.kv.version, 1)
        for holding in (QueueCondition(b"q", 2, 2), QueueCondition(b"q"),
                        QueueCondition(b"none", 0, 0)):
            self.assertEqual(self.one(transact([holding], [])), (Status.OK, []))

    def test_ready_messages_are_those_that_could_be_taken(self):
        self.enqueue(b"q", b"1", b"2", b"3")
        self.one_lease(b"q", 1000)
        self.do(queuecommands.encode_enqueue_with(b"q", [b"high"], priority=3))
        self.do(queuecommands.encode_enqueue_with(b"q", [b"later"], delay_ms=500))
        for number, holds in ((2, False), (3, True), (4, False)):
            self.assertEqual(self.one(transact([QueueCondition(b"q", number, number)], []))[0],
                             Status.OK if holds else Status.CONFLICT)

    def one_lease(self, queue: bytes, lease_ms: int) -> tuple[int, int]:
        """A receipt."""
        ((status, payload),) = self.do(queuecommands.encode_lease(queue, lease_ms))
        self.assertEqual(status, Status.OK)
        (leased,) = queueresults.decode_lease_result(payload)
        return leased.id, leased.delivery

    def test_leased_until_its_time_ends_or_it_is_acknowledged(self):
        self.enqueue(b"q", b"1", b"2")
        one, two = self.one_lease(b"q", 100), self.one_lease(b"q", 100)

        def leased(message_id: int, delivery: int, at: int | None = None) -> bool:
            status, _ = self.one(transact([LeasedCondition(message_id, delivery)], []), at=at)
            return status == Status.OK
        self.assertTrue(leased(*one) and leased(*two))
        self.assertFalse(leased(one[0], two[1]))
        self.assertFalse(leased(one[0], two[1] + 1))
        self.do(queuecommands.encode_ack([two]))
        self.assertFalse(leased(*two))
        self.assertTrue(leased(*one, at=99))
        self.assertFalse(leased(*one, at=100))

    def test_past_its_deadline_a_lease_has_ended_before_that_is_carried_out(self):
        self.start(expiries_per_entry_max=1)
        self.enqueue(b"q", b"1", b"2")
        _, two = self.one_lease(b"q", 100), self.one_lease(b"q", 100)
        self.assertEqual(self.one(transact([LeasedCondition(*two)], []), at=100),
                         (Status.CONFLICT, 0))
        self.assertEqual(len(self.machine.executor.leases.by_delivery), 1)

    def test_a_command_that_fails_undoes_all(self):
        self.enqueue(b"q", b"1")
        self.one(put(b"a", b"1", 500))
        self.one(put(b"b", b"2"))
        before = keys_of(self.kv)
        work = [put(b"a", b"x"), delete(b"b"), put(b"c", b"y", 100), commands.encode_dequeue(b"q"),
                commands.encode_enqueue(b"r", [b"2"]), delete(b"c")]
        for make in (execute, lambda pieces: transact([], pieces)):
            self.assertEqual(self.one(make([*work, put(b"a", b"z", 0, version(1))])),
                             (Status.ABORTED, 6, Status.CONFLICT,
                              kvcommands.encode_kv_conflict(3, b"x")))
            self.assertEqual(self.one(make([*work, put(b"a", b"z", 10**15)])),
                             (Status.LIMIT, b"ttl_ms_max"))
            self.assertEqual(keys_of(self.kv), before)
            self.assertEqual((self.contents(), self.contents(b"r")), ([b"1"], []))
            self.assertEqual(self.machine.next_deadline_ms(), 500)
        status, results = self.one(transact([], [*work, delete(b"none"), get(b"none")]))
        self.assertEqual(status, Status.OK)
        self.assertEqual([each[0] for each in results], [Status.OK] * 6 + [Status.EMPTY] * 2)

    def test_a_reply_too_large_undoes_all(self):
        self.start(result_bytes_max=100)
        self.one(put(b"a", b"x" * 60))
        before = keys_of(self.kv)
        self.assertEqual(self.one(execute([put(b"b", b""), get(b"a"), get(b"a")])),
                         (Status.REPLY_FULL, b""))
        self.assertEqual(keys_of(self.kv), before)

    def test_too_many_conditions(self):
        self.start(conditions_max=2)
        three = [KeyCondition(b"a", ABSENT)] * 3
        self.assertEqual(self.one(transact(three[:2], [])), (Status.OK, []))
        self.assertEqual(self.one(transact(three, [])), (Status.LIMIT, b"conditions_max"))


class World(Model):
    """The naive model of keys, and two queues."""

    def __init__(self):
        super().__init__()
        self.queues = {b"q": [], b"r": []}
        self.now_ms = 0

    def find(self, key: bytes):
        item = self.items.get(key)
        return None if item is None or 0 < item[2] <= self.now_ms else item

    def holds(self, key: bytes, condition: Condition) -> bool:
        item = self.find(key)
        return {ConditionKind.NONE: True, ConditionKind.ABSENT: item is None,
                ConditionKind.PRESENT: item is not None,
                ConditionKind.EQUALS: item is not None and item[0] == condition.value,
                ConditionKind.VERSION: item is not None and item[1] == condition.value,
                }[condition.kind]

    def perform(self, word: str, name: bytes, *arguments):
        """What the command must give, as read_result."""
        item = self.find(name)
        if word == "get":
            return (Status.EMPTY, b"") if item is None else (item[1], item[2], item[0])
        if word == "list":
            after, limit = arguments
            found = [(key, self.items[key][1], self.items[key][0]) for key in sorted(self.items)
                     if key.startswith(name) and key > after and self.find(key)]
            return len(found) > limit, found[:limit]
        if word == "enqueue":
            self.queues[name].append(arguments[0])
            return Status.OK, b""
        if word == "dequeue":
            queue = self.queues[name]
            return [queue.pop(0)] if queue else (Status.EMPTY, b"")
        if not self.holds(name, arguments[-1]):
            return Status.CONFLICT, (item[1], item[0]) if item else (0, b"")
        if word == "put":
            value, ttl_ms, _ = arguments
            self.put(name, value, self.now_ms + ttl_ms if ttl_ms else 0, self.now_ms)
            return self.version
        if item is None:
            return Status.EMPTY, b""
        self.remove(name, DELETED)
        return self.version


ENCODERS = {"get": get, "put": put, "delete": delete, "list": page,
            "enqueue": lambda name, message: commands.encode_enqueue(name, [message]),
            "dequeue": commands.encode_dequeue}


class WorldTest(KeysCase):
    """Random commands, alone and in transactions, against the model of the whole."""

    def some_condition(self, chance: random.Random, world: World) -> Condition:
        kind = chance.randrange(8)
        if kind == 3:
            return equals(b"%d" % chance.randrange(4))
        if kind == 4:
            return version(max(0, world.version - chance.randrange(12)))
        return (NO_CONDITION, ABSENT, PRESENT)[kind % 3]

    def some_command(self, chance: random.Random, world: World) -> tuple:
        key = bytes((97 + chance.randrange(4),)) * chance.randint(1, 3)
        word = chance.choice(("get", "put", "put", "put", "delete", "list", "enqueue", "dequeue"))
        if word == "put":
            ttl_ms = chance.randint(1, 80) if chance.random() < 0.5 else 0
            return word, key, b"%d" % chance.randrange(4), ttl_ms, self.some_condition(chance,
                                                                                       world)
        if word == "delete":
            return word, key, self.some_condition(chance, world)
        if word == "list":
            return word, chance.choice((b"", key)), chance.choice((b"", key)), chance.randint(1, 9)
        if word == "enqueue":
            return word, chance.choice((b"q", b"r")), b"%d" % chance.randrange(1000)
        return (word, key) if word == "get" else (word, chance.choice((b"q", b"r")))

    def some_subject(self, chance: random.Random, world: World):
        """(condition, whether it holds)."""
        if chance.random() < 0.3:
            name, at_least = chance.choice((b"q", b"r", b"none")), chance.randrange(3)
            at_most = at_least + chance.randrange(9)
            ready = len(world.queues.get(name, ()))
            return QueueCondition(name, at_least, at_most), at_least <= ready <= at_most
        key = bytes((97 + chance.randrange(4),))
        condition = chance.choice((self.some_condition(chance, world), NO_CONDITION))
        return KeyCondition(key, condition), world.holds(key, condition)

    def test_against_the_model(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                self.start(expiries_per_entry_max=3)
                self.run_world(random.Random(seed))

    def run_world(self, chance: random.Random):
        world = World()
        outcomes = dict.fromkeys((Status.OK, Status.CONFLICT, Status.ABORTED), 0)
        for _ in range(250):
            world.now_ms += chance.choice((0, 0, 1, 10, 40))
            world.expire(world.now_ms, 3)
            if chance.random() < 0.5:
                word, *arguments = self.some_command(chance, world)
                piece = ENCODERS[word](*arguments)
                expected = world.perform(word, *arguments)
            else:
                subjects = [self.some_subject(chance, world) for _ in range(chance.randrange(3))]
                work = [self.some_command(chance, world) for _ in range(chance.randint(1, 5))]
                world, expected = self.expect(world, [holds for _, holds in subjects], work)
                pieces = [ENCODERS[word](*arguments) for word, *arguments in work]
                piece = transact([condition for condition, _ in subjects], pieces)
                outcomes[expected[0]] += 1
            body = requests.encode_request(requests.NO_SESSION, 1, 0, [piece])
            applied = self.apply(body, at=world.now_ms)
            self.assertEqual(self.read_reply(applied.replies[0], piece), expected)
            self.assertEqual(list(applied.changes or ()), world.changes)
            world.changes = []
            items, counter, _, names, living = keys_of(self.kv)
            self.assertEqual((items, counter), (world.items, world.version))
            self.assertEqual((names, living), (sorted(items), len(world.expiring())))
            for name, messages in world.queues.items():
                self.assertEqual(self.contents(name), messages)
            first = next(iter(world.expiring()), None)
            self.assertEqual(self.machine.next_deadline_ms(), first and first[0])
        self.assertGreater(min(outcomes.values()), 3, outcomes)

    def expect(self, world: World, holding: list[bool], work: list[tuple]) -> tuple:
        """(the world afterwards, the result as read_reply gives it)."""
        if not all(holding):
            return world, (Status.CONFLICT, holding.index(False))
        tried, results = copy.deepcopy(world), []
        for position, (word, *arguments) in enumerate(work):
            result = tried.perform(word, *arguments)
            if isinstance(result, tuple) and result[0] is Status.CONFLICT:
                return world, (Status.ABORTED, position, *result)
            results.append(result)
        return tried, (Status.OK, results)

    def read_reply(self, body: bytes, piece: bytes):
        reply = requests.decode_reply(body)
        if reply.first_message_id is not None:
            return Status.OK, b""
        ((status, payload),) = reply.results
        if piece[4] != Operation.TRANSACT:
            return read_result(piece[4], status, payload)
        if status == Status.CONFLICT:
            return status, transactions.decode_conflict_result(payload)
        if status == Status.ABORTED:
            position, inner, rest = transactions.decode_aborted_result(payload)
            return status, position, inner, kvcommands.decode_kv_conflict(rest)
        _, pieces = transactions.decode_transact(piece[4:])
        return status, [read_result(each[0], *result) for each, result in
                        zip(pieces, commands.decode_execute_result(payload), strict=True)]
