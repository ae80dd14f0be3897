"""Deadlines that come, end and come back, against a plain dict; and what of them is held."""

import random
import unittest
from unittest import mock

from raftnet.machine.deadlines import NEVER_MS, Deadlines
from raftnet.wire import commands, queuecommands
from raftnet.wire.commands import Status
from tests.machine.test_leases import QueueCase

STALE = queuecommands.encode_ack([(9, 9)])      # undoes a list


class DeadlinesTest(unittest.TestCase):

    def setUp(self):
        self.alive = {}     # number -> deadline
        self.deadlines = Deadlines()

    def add(self, time_ms: int, number: int):
        self.alive[number] = (time_ms, number, b"%d" % number)
        self.deadlines.add(self.alive[number])

    def end(self, number: int):
        self.deadlines.discard(self.alive.pop(number))

    def check(self):
        first = min(self.alive.values(), default=None)
        self.assertEqual(self.deadlines.earliest(), first)
        self.assertEqual(self.deadlines.due_ms(), first[0] if first else NEVER_MS)
        self.assertEqual(len(self.deadlines), len(self.alive))

    def test_equal_times_come_by_number(self):
        self.check()
        for number in (3, 1, 2):
            self.add(50, number)
        order = []
        while self.alive:
            self.check()
            order.append(self.deadlines.earliest()[1])
            self.end(order[-1])
        self.check()
        self.assertEqual(order, [1, 2, 3])

    def test_against_a_dict(self):
        for seed in range(8):
            self.setUp()
            chance = random.Random(seed)
            for number in range(6000):
                growing = (number // 1000) % 2 == 0
                if self.alive and chance.random() < (0.3 if growing else 0.7):
                    victim = (chance.choice(tuple(self.alive)) if len(self.alive) < 200
                              else min(self.alive))
                    if chance.random() < 0.3:
                        victim = self.deadlines.earliest()[1]
                    self.end(victim)
                else:
                    self.add(number if seed % 2 else chance.randrange(2000), number)
                if chance.random() < 0.1:
                    self.check()
            while len(self.alive) > 100:
                self.end(self.deadlines.earliest()[1])
            self.check()
            for number in range(6000, 8000):
                self.add(number, number)
            self.deadlines.give_back(len(self.alive) - 1)
            self.assertEqual(len(self.deadlines), 1)


class HeldTest(QueueCase):
    """Nothing that has ended is held, and nothing twice."""

    def held(self) -> list[int]:
        executor = self.machine.executor
        lifecycle = executor.lifecycle
        found = [len(executor.leases._deadlines)]
        for agenda in (lifecycle.delays, lifecycle.expiries, lifecycle.dedups):
            self.assertEqual(len(agenda.noted), len(agenda._deadlines))
            found.append(len(agenda.noted))
        return found

    def test_a_queue_that_vanished_is_forgotten(self):
        self.put(b"stays", queue=b"s", ttl_ms=5, delay_ms=5, dedup_ids=[b"1"])
        before = self.held()
        for number in range(20):
            name = b"%d" % number
            self.put(b"m", queue=name, ttl_ms=10**6)
            self.fine(commands.encode_dequeue(name))
            self.put(b"m", queue=name, delay_ms=10**6)
            self.fine(queuecommands.encode_purge(name, 1))
            self.configure(name, dedup_window_ms=10**6)
            self.put(b"m", queue=name, dedup_ids=[b"1"])
            self.fine(commands.encode_dequeue(name))
            self.fine(queuecommands.encode_delete_queue(name))
        self.assertEqual(self.held(), before)

    def test_what_left_early_is_not_looked_for_later(self):
        self.enqueue(b"q", b"plain")
        for number in range(20):
            self.put(b"m", queue=b"%d" % number, ttl_ms=100)
            self.put(b"m", queue=b"%d" % number, ttl_ms=1000)
            self.fine(commands.encode_dequeue(b"%d" % number))
        lifecycle = self.machine.executor.lifecycle
        with mock.patch.object(type(lifecycle.expiries), "_replace") as replaced:
            self.assertEqual(self.machine.next_deadline_ms(), 1000)
            self.clock(500)
        self.assertEqual(replaced.call_count, 0)

    def test_leases_that_ended_early(self):
        self.enqueue(b"q", *[b"m"] * 600)
        late = self.lease(100, lease_ms=900)
        early = self.lease(500, lease_ms=500)
        self.ack(*reversed(early))
        queue = self.machine.executor.queues.by_name[b"q"]
        self.assertEqual((self.held()[0], len(queue.leased)), (100, 100))
        self.assertEqual(self.machine.next_deadline_ms(), 900)
        self.assertEqual(queue.leased.first(), late[0].delivery)

    def test_undone_lists_leave_nothing(self):
        self.put(b"m", delay_ms=50)
        self.put(b"m", queue=b"d", dedup_ids=[b"1"])
        self.configure(b"d", dedup_window_ms=10)
        self.put(b"m", queue=b"d", dedup_ids=[b"2"])
        executor = self.machine.executor
        executor.now_ms = 20                    # past its window, and not yet forgotten
        lists = [[queuecommands.encode_purge(b"q", 1), STALE],
                 [queuecommands.encode_enqueue_with(b"d", [b"m"], dedup_ids=[b"2"]), STALE],
                 [queuecommands.encode_enqueue_with(b"q", [b"m"], ttl_ms=9, delay_ms=9), STALE]]
        before = self.held()
        for _ in range(30):
            for pieces in lists:
                executor.begin_request()
                self.assertEqual(executor.perform(commands.encode_execute(pieces)[4:])[0],
                                 Status.ABORTED)
        self.assertEqual(self.held(), before)
        self.check_invariants()
        executor.now_ms = 0


if __name__ == "__main__":
    unittest.main()
