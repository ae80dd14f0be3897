"""Giving back a machine: everything, in slices, and nothing stays behind."""

import gc
import unittest

from raftnet.machine.dismantle import dismantle
from raftnet.machine.state import encode_state
from raftnet.wire import commands, kvcommands, queuecommands
from tests.machine.driver import A, B, C, MachineCase


class DismantleTest(MachineCase):

    def tearDown(self):
        """Its machine is gone."""

    def fill(self, count: int) -> None:
        """So many of everything."""
        many = [b"m"] * count
        put = queuecommands.encode_enqueue_with
        self.enqueue(b"q", *many)
        self.do(queuecommands.encode_lease(b"q", 900, count))
        self.enqueue(b"q", *many)
        self.do(put(b"q", many, 3), put(b"q", many, 0, 0, 500), put(b"q", many, 5, 0, 500),
                put(b"q", many, 0, 40, 0, [b"%d" % number for number in range(count)]),
                queuecommands.encode_configure(b"c", {}))
        for number in range(count):
            self.do(kvcommands.encode_kv_put(b"%d" % number, b"v", 100),
                    queuecommands.encode_nack([(number + 1, number + 1)])
                    if number % 2 else commands.encode_enqueue(b"%d" % number, [b"m"]))
            self.ask(b"%016d" % number, 1, commands.encode_enqueue(b"q", [b"m"]))
        for session in (A, B, C):
            self.ask(session, 1, commands.encode_dequeue(b"w", 1, 1000))

    def test_all_is_gone_and_no_step_is_large(self):
        self.fill(300)
        list(encode_state(self.machine))
        executor = self.machine.executor
        self.do(commands.encode_queues())       # puts the names in order
        held = [executor.queues.by_name, executor.leases.by_delivery, executor.kv.by_key,
                executor.waits.pending, self.machine.sessions.by_id, self.machine.sessions._unused]
        queue = executor.queues.by_name[b"q"]
        held += [queue.ids, queue.messages, queue.special, queue.leased, queue.delayed,
                 queue.dedup.by_id, queue.expiries, queue.levels[3].ids, queue.levels[5].special,
                 executor.leases._deadlines, executor.queues._names._chunks]
        sizes = [len(one) for one in held]
        self.assertGreater(min(sizes), 0)
        steps = 0
        for _ in dismantle(self.machine, 50):
            after = [len(one) for one in held]
            self.assertLessEqual(sum(sizes) - sum(after), 4 * 50)
            sizes = after
            steps += 1
        self.assertEqual([len(one) for one in held], [0] * len(held))
        self.assertGreater(steps, 60)

    def test_nothing_is_left_for_the_collector(self):
        self.fill(20)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in dismantle(self.machine, 1_000):
            pass
        self.machine = None
        self.assertEqual(gc.collect(), 0)

    def test_nothing_at_all(self):
        self.assertEqual(list(dismantle(self.machine, 10)), [])


if __name__ == "__main__":
    unittest.main()
