"""Random work on queues and keys, the same on the machine and on the simplest model (model.py):
after every entry equal replies, equal contents, equal counters and the same next deadline. So no
message is ever lost, there twice, or out of order; and an aborted list leaves no trace."""

import pickle
import random
import unittest

from raftnet.config import MachineConfig
from raftnet.wire import commands, queueresults, requests
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.transactions import KeyCondition, LeasedCondition, QueueCondition
from tests.machine.driver import MachineCase, contents_of
from tests.machine.model import UNDOING, Model, encode

NEVER_MS = 10**15           # sessions expire later than anything here
QUEUES = (b"a", b"b", b"c", b"a.dead", b"b.dead", b"x" * 252)
KEYS = (b"k", b"l", b"m")
LIMITS = {"session_expiry_ms": NEVER_MS, "expiries_per_entry_max": 2, "history_max": 4,
          "leases_max": 12, "settings_max": 4, "dedup_ids_max": 9, "purge_count_max": 7,
          "overflow_extra_max": 1, "overflow_extra_bytes": 25}


class Work:
    """Random commands as model.py has them."""

    def __init__(self, seed: int, model: Model):
        self.random = random.Random(seed)
        self.model = model

    def command(self, listed: bool = False) -> tuple:
        choose = self.random.choice
        kinds = ["enqueue"] * 3 + ["enqueue_with"] * 5 + ["dequeue"] * 2 + ["lease"] * 6 + (
            ["ack"] * 3 + ["nack"] * 5 + ["extend", "configure", "delete_queue", "purge", "redrive",
                                          "looking", "key", "key"])
        kind = choose(kinds if listed else kinds + ["list"] * 8)
        return getattr(self, f"_{kind}")(choose(QUEUES))

    def body(self) -> bytes:
        return bytes([self.random.randrange(97, 123)]) * self.random.choice((0, 1, 1, 5, 30))

    def _enqueue(self, queue):
        return "enqueue", queue, [self.body() for _ in range(self.random.randrange(1, 4))]

    def _enqueue_with(self, queue):
        choose = self.random.choice
        bodies = [self.body() for _ in range(self.random.randrange(1, 4))]
        ids = [choose((b"", b"", b"1", b"2", b"3", b"4")) for _ in bodies]
        return ("enqueue_with", queue, bodies, choose((0, 0, 0, 1, 7, 7, 8)),
                choose((0, 0, 0, 5, 40)), choose((0, 0, 10, 60)), ids)

    def _dequeue(self, queue):
        return "dequeue", queue, self.random.choice((1, 1, 2, 9))

    def _lease(self, queue):
        choose = self.random.choice
        return ("lease", queue, choose((1, 10, 30, 30, 90, 0)), choose((1, 1, 2, 5)), 0,
                choose((b"", b"me")))

    def _receipts(self):
        out = [(m.id, m.lease[0]) for m in self.model.messages if m.where == "leased"]
        if self.random.random() < 0.1 or not out:
            out += [(1, 1), (self.model.next_id, self.model.next_delivery)]
        return [self.random.choice(out) for _ in range(self.random.choice((1, 1, 1, 2, 4)))]

    def _ack(self, _):
        return "ack", self._receipts()

    def _nack(self, _):
        choose = self.random.choice
        return "nack", self._receipts(), choose((0, 0, 0, 7, 50, None)), choose((b"", b"no"))

    def _extend(self, _):
        return "extend", self._receipts(), self.random.choice((1, 30, 80))

    def _configure(self, queue):
        choose = self.random.choice
        values = {1: (b"", b"a", b"c", b"b.dead"), 2: (0, 1, 2, 5), 3: (0, 0, 45), 4: (0, 3, 6),
                  5: (0, 40, 90), 6: (0, 1, 1), 7: (0, 20, 100), 8: (0, 4, 20), 9: (10, 60)}
        changed = self.random.sample(sorted(values), self.random.randrange(4))
        return "configure", queue, {setting: choose(values[setting]) for setting in changed}

    def _delete_queue(self, queue):
        return "delete_queue", queue

    def _purge(self, queue):
        return "purge", queue, self.random.choice((1, 2, 7))

    def _redrive(self, queue):
        others = [name for name in QUEUES if name != queue]
        return ("redrive", queue, self.random.choice([b"", b"", *others]),
                self.random.choice((1, 2, 5)))

    def _looking(self, queue):
        return self.random.choice((
            ("size", queue), ("peek", queue, 3), ("queues",), ("describe", queue),
            ("leases", queue, 3), ("inspect", queue, 4), ("inspect", queue, 1)))

    def _condition(self):
        return self.random.choice((
            Condition(ConditionKind.NONE), Condition(ConditionKind.ABSENT),
            Condition(ConditionKind.PRESENT), Condition(ConditionKind.EQUALS, b"v"),
            Condition(ConditionKind.VERSION, self.model.version)))

    def _key(self, _):
        key, choose = self.random.choice(KEYS), self.random.choice
        return choose((("kv_get", key), ("kv_delete", key, self._condition()),
                       ("kv_put", key, choose((b"v", b"w" * 20)), choose((0, 0, 25)),
                        self._condition())))

    def _list(self, _):
        operations = [self.command(listed=True) for _ in range(self.random.randrange(9))]
        if self.random.random() < 0.5:
            return "execute", operations
        conditions = []
        for _ in range(self.random.choice((0, 1, 2))):
            conditions.append(self.random.choice((
                KeyCondition(self.random.choice(KEYS), self._condition()),
                QueueCondition(self.random.choice(QUEUES), 0, self.random.choice((0, 1, 9))),
                LeasedCondition(*self._receipts()[0]))))
        return "transact", conditions, operations


class ModelTest(MachineCase):

    def begin(self, seed: int, result_bytes_max: int) -> Work:
        self.start(result_bytes_max=result_bytes_max, message_bytes_max=29 + seed % 3, **LIMITS)
        self.model = Model(MachineConfig(**LIMITS), 29 + seed % 3, result_bytes_max)
        self.sessions = 0
        for command in (("configure", b"a", {4: 6, 6: 1}),
                        ("configure", b"b", {1: b"c", 2: 3, 3: 60}),
                        ("configure", b"c", {7: 8})):
            self.model.request(command)
            self.do(encode(command))
        return Work(seed, self.model)

    def step(self, work: Work) -> tuple:
        """One entry of some requests, on both; the statuses."""
        chance = work.random
        now = self.model.now + chance.choice((0, 0, 1, 3, 10, 40))
        model = self.model
        model.index = self.machine.applied_index + 1
        model.completed = []
        bodies, expected = [], []
        model.pass_time(now)
        for _ in range(chance.choice((1, 1, 2, 3))):
            command = work.command()
            if chance.random() < 0.06:
                self.sessions += 1
                session = b"%016d" % self.sessions
                if command[0] == "dequeue":
                    command = (*command, 15)
                elif command[0] == "lease" and command[2]:
                    command = (*command[:4], 25, command[5])
                if command[0] == "dequeue" or command[0] == "lease" and command[2]:
                    expected.append(model.wait(session, command))
                else:
                    expected.append(model.request(command))
            else:
                session = requests.NO_SESSION
                expected.append(model.request(command))
            bodies.append(requests.encode_request(session, 1, 0, [encode(command)]))
        applied = self.apply(*bodies, at=now)
        found = [None if reply is None else self.result(reply) for reply in applied.replies]
        self.assertEqual(found, expected, bodies)
        self.assertEqual([(session, *self.result(reply))
                          for session, _, reply in applied.completions], model.completed)
        self.assertEqual(contents_of(self.machine), model.state())
        return found

    def result(self, reply: bytes) -> tuple[int, bytes]:
        reply = requests.decode_reply(reply)
        if reply.first_message_id is not None:
            return Status.OK, commands.encode_enqueue_result(reply.first_message_id)
        return reply.results[0]

    def work(self, seed: int, steps: int, result_bytes_max: int, seen: dict) -> None:
        work = self.begin(seed, result_bytes_max)
        for number in range(steps):
            for result in self.step(work):
                if result is not None:
                    seen[result[0]] = seen.get(result[0], 0) + 1
            if work.random.random() < 0.5:      # also without, so that deadlines are not tidied up
                deadline = self.machine.next_deadline_ms()
                self.assertEqual(deadline if deadline and deadline < NEVER_MS else None,
                                 self.model.deadline())
            if number % 20 == 0:
                self.check_invariants()

    def test_random_work(self):
        seen: dict[int, int] = {}
        for seed in range(6):
            with self.subTest(seed=seed):
                self.work(seed, 350, (4_000, 130)[seed % 2], seen)
        for status in (set(Status) - {Status.MALFORMED, Status.UNKNOWN, Status.STALE,
                                      Status.CANCELLED}):
            self.assertGreater(seen.get(status, 0), 5, status)

    def test_aborted_lists_leave_no_trace(self):
        """Each list with an end that undoes it, after which all is as before."""
        for seed in range(4):
            work = self.begin(1000 + seed, 4_000)
            for _ in range(80):
                self.step(work)
                while (self.model.deadline() or NEVER_MS) <= self.model.now:
                    self.model.index += 1
                    self.apply()
                    self.model.pass_time(self.model.now)
                operations = self.possible(work, 12)
                stale = ("ack", [(10**9, 10**9)])
                before = self.model.state(), self.machine.next_deadline_ms()
                ((status, payload),) = self.do(encode(("execute", [*operations, stale])))
                self.assertEqual((status, payload[:4]), (Status.ABORTED, b"\0\0\0\x0c"))
                self.assertEqual((contents_of(self.machine), self.machine.next_deadline_ms()),
                                 before)

    def possible(self, work: Work, count: int) -> list[tuple]:
        """So many random operations, of which none undoes a list; some on what others did."""
        model = work.model = pickle.loads(pickle.dumps(self.model))     # a deep copy, quickly
        model.in_list, model.room, model.moves = True, 4_000, model.config.purge_count_max
        operations = []
        while len(operations) < count:
            operation = work.command(listed=True)
            before = pickle.dumps(model.__dict__)
            if model.over(operation) or getattr(model, operation[0])(*operation[1:])[0] in UNDOING:
                model.__dict__.update(pickle.loads(before))
            else:
                operations.append(operation)
        work.model = self.model
        return operations

    def test_every_event_has_its_place_in_the_history(self):
        """That the work above gets so far at all: every reason of a history is met."""
        work, reasons = self.begin(7, 4_000), set()
        for _ in range(400):
            self.step(work)
            for message in self.model.messages:
                reasons.update(event.reason for event in message.history)
        self.assertEqual(reasons, set(queueresults.Reason))


if __name__ == "__main__":
    unittest.main()
