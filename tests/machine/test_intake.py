"""How messages come in: delays, times to live, priorities, ids known again, maxima; and what rules
a queue as a whole."""

import gc
import random
import weakref
from unittest import mock

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine.machine import Machine
from raftnet.machine.queue import Queue
from raftnet.wire import commands, queuecommands, queueresults, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queueresults import Reason
from tests.machine.driver import A, state_of
from tests.machine.test_leases import QueueCase


class EnqueueWithTest(QueueCase):

    def test_without_anything_it_is_a_plain_enqueue(self):
        self.assertEqual(self.put(b"1", b"2"), [(1, False), (2, False)])
        self.assertTrue(self.machine.executor.queues.by_name[b"q"].plain())

    def test_delays(self):
        self.put(b"late", delay_ms=100)
        self.put(b"later", delay_ms=101)
        self.put(b"now")
        described = self.described()
        self.assertEqual((described.ready, described.delayed, described.held_bytes), (1, 2, 12))
        self.assertEqual(self.machine.next_deadline_ms(), 100)
        self.clock(100)
        self.assertEqual(self.bodies(), [b"now", b"late"])
        self.ask(A, 1, commands.encode_dequeue(b"w", 1, 1000))
        self.put(b"x", queue=b"w", delay_ms=5)
        self.assertEqual([each[:3] for each in self.clock(105)], [(A, 1, Status.OK)])

    def test_a_time_to_live_begins_when_the_message_is_ready_first(self):
        self.put(b"short", ttl_ms=50)
        self.put(b"delayed", ttl_ms=50, delay_ms=60)
        self.put(b"stays")
        self.clock(49)
        self.assertEqual(self.bodies(), [b"short", b"stays"])
        self.clock(60)
        self.assertEqual(self.bodies(), [b"stays", b"delayed"])
        self.clock(110)
        self.assertEqual(self.described().held_bytes, 5)
        self.assertNotIn(b"q.dead", self.machine.executor.queues.by_name)

    def test_a_dead_letter_does_not_go_in_a_circle(self):
        self.configure(b"a", ttl_ms=10, dead_letter=b"b")
        self.configure(b"b", ttl_ms=10, dead_letter=b"a")
        self.enqueue(b"a", b"1")
        self.clock(10)
        self.assertEqual(self.bodies(b"b"), [b"1"])
        self.clock(20)
        self.assertEqual((self.bodies(b"a"), self.bodies(b"b")), ([], []))

    def test_nor_in_a_circle_that_it_came_into_from_outside(self):
        for name, dead in ((b"x", b"a"), (b"a", b"b"), (b"b", b"c"), (b"c", b"a")):
            self.configure(name, ttl_ms=10, dead_letter=dead)
        self.enqueue(b"x", b"1")
        self.clock(10)
        self.assertEqual(self.bodies(b"a"), [b"1"])
        self.clock(20)
        self.assertIsNone(self.machine.next_deadline_ms())
        self.assertEqual([self.bodies(name) for name in (b"x", b"a", b"b", b"c")], [[]] * 4)

    def test_who_fails_is_tried_again_later_for_as_long_as_somebody_takes_it(self):
        """Dead letters that wait in a queue with a time to live, and come back after it."""
        self.configure(b"a", delivery_limit=1)
        self.configure(b"a.dead", ttl_ms=10, dead_letter=b"a")
        self.enqueue(b"a", b"1")
        for now_ms in (100, 200, 300):
            self.nack(self.lease(at=now_ms, queue=b"a")[0])
            self.assertEqual((self.bodies(b"a"), self.bodies(b"a.dead")), ([], [b"1"]))
            self.clock(now_ms + 10)
            self.assertEqual((self.bodies(b"a"), self.bodies(b"a.dead")), ([b"1"], []))

    def test_a_time_to_live_counts_under_a_lease_and_ends_with_it(self):
        self.put(b"1", b"2", ttl_ms=50)
        first, _ = self.lease(2, at=0)
        self.assertEqual(self.machine.next_deadline_ms(), 100, "of the leases alone")
        self.clock(60)
        self.assertEqual(self.ack(first), [0])
        self.clock(100)
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_a_delay_is_cut_at_the_end_of_the_time_to_live(self):
        self.put(b"1", ttl_ms=50)
        self.nack(self.lease(at=0)[0], 1000)
        self.assertEqual(self.machine.next_deadline_ms(), 50)
        self.clock(50)
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_a_queue_that_names_its_dead_letters_keeps_what_timed_out(self):
        self.configure(ttl_ms=50, dead_letter=b"d")
        self.enqueue(b"q", b"1")
        self.clock(50)
        (dead,) = self.inspected(b"d")
        self.assertEqual((dead.message, dead.expires_ms, dead.history[0].reason),
                         (b"1", 0, Reason.TTL_EXPIRED))

    def test_priorities_are_strict_and_first_in_first_out_within(self):
        for body, priority in ((b"a0", 0), (b"b7", 7), (b"c3", 3), (b"d7", 7), (b"e0", 0)):
            self.put(body, priority=priority)
        first = self.lease()[0]
        self.assertEqual(first.message, b"b7")
        self.assertEqual(self.bodies(), [b"d7", b"c3", b"a0", b"e0"])
        self.nack(first)
        self.assert_results(self.do(commands.encode_peek(b"q", 9), commands.encode_dequeue(b"q"),
                                    commands.encode_dequeue(b"q", 9)),
                            [b"b7", b"d7", b"c3", b"a0", b"e0"], [b"b7"],
                            [b"d7", b"c3", b"a0", b"e0"])
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_ids_are_known_again_within_the_window(self):
        self.configure(dedup_window_ms=100)
        self.assertEqual(self.put(b"1", b"2", b"3", dedup_ids=[b"a", b"", b"a"]),
                         [(1, False), (2, False), (1, True)])
        self.assertEqual(self.bodies(), [b"1", b"2"])
        self.assertEqual(self.put(b"other", queue=b"r", dedup_ids=[b"a"]), [(3, False)])
        self.clock(99)
        self.assertEqual(self.put(b"1", dedup_ids=[b"a"]), [(1, True)])
        self.clock(100)
        self.assertEqual(self.described().dedup_ids, 0)
        self.assertEqual(self.put(b"1", dedup_ids=[b"a"]), [(4, False)])
        self.configure(dedup_window_ms=0)
        self.assertEqual(self.put(b"1", dedup_ids=[b"a"]), [(5, False)])

    def test_past_its_window_an_id_is_unknown_before_that_is_carried_out(self):
        self.start(expiries_per_entry_max=1)
        self.configure(dedup_window_ms=10)
        self.put(b"1", b"2", b"3", dedup_ids=[b"a", b"b", b"c"])
        again = queuecommands.encode_enqueue_with(b"q", [b"3"], dedup_ids=[b"c"])
        undone = commands.encode_execute([again, queuecommands.encode_ack([(9, 9)])])
        results = self.ask(requests.NO_SESSION, 1, undone, again, at=10).results
        self.assertEqual(results[0][0], Status.ABORTED)
        self.assertEqual(queueresults.decode_enqueue_with_result(results[1][1]), [(4, False)])
        self.check_invariants()
        self.clock(10)
        self.assertEqual(sorted(self.machine.executor.queues.by_name[b"q"].dedup.by_id), [b"c"])
        self.clock(20)
        self.assertEqual(self.machine.executor.dedup_count, 0)

    def test_an_id_is_remembered_when_its_message_is_gone(self):
        self.put(b"1", dedup_ids=[b"a"])
        self.fine(commands.encode_dequeue(b"q"))
        self.assertEqual(self.put(b"1", dedup_ids=[b"a"]), [(1, True)])
        self.assertEqual(self.described().ready, 0)
        self.clock(300_000)
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_limits(self):
        self.start(delay_ms_max=10, ttl_ms_max=20, message_bytes_max=5, dedup_ids_max=1)
        for how, text in (({"priority": 8}, b"priorities"), ({"delay_ms": 11}, b"delay_ms_max"),
                          ({"ttl_ms": 21}, b"ttl_ms_max"),
                          ({"dedup_ids": [b"a", b"b"]}, b"dedup_ids_max")):
            self.assertEqual(self.one(queuecommands.encode_enqueue_with(
                b"q", [b"1", b"2"], **how)), (Status.LIMIT, text))
        self.assertEqual(self.one(queuecommands.encode_enqueue_with(b"q", [b"123456"])),
                         (Status.LIMIT, b"message_bytes_max"))
        self.assertEqual(self.machine.executor.queues.by_name, {})
        self.put(b"1", b"2", dedup_ids=[b"a", b"a"])


class MaximaTest(QueueCase):

    def test_refused_where_it_is_full(self):
        self.configure(messages_max=3)
        self.enqueue(b"q", b"1", b"2")
        self.lease()
        full = (Status.FULL, b"messages_max")
        self.assertEqual(self.one(commands.encode_enqueue(b"q", [b"3", b"4"])), full)
        self.put(b"3", delay_ms=5)
        self.assertEqual(self.one(commands.encode_enqueue(b"q", [b"4"])), full)
        self.configure(messages_max=0, bytes_max=5)
        self.assertEqual(self.one(commands.encode_enqueue(b"q", [b"456"])),
                         (Status.FULL, b"bytes_max"))
        self.enqueue(b"q", b"45")

    def test_the_oldest_go_to_the_dead_letters(self):
        self.configure(messages_max=3, overflow=1)
        self.put(b"1")
        self.put(b"2", priority=7)
        self.enqueue(b"q", b"3")
        self.fine(commands.encode_enqueue(b"q", [b"4", b"5"]))
        self.assertEqual((self.bodies(), self.bodies(b"q.dead")),
                         ([b"3", b"4", b"5"], [b"2", b"1"]))
        (event,) = self.inspected(b"q.dead")[1].history
        self.assertEqual((event.reason, event.deliveries), (Reason.OVERFLOW, 0))
        self.assertEqual(self.one(commands.encode_enqueue(b"q", [b"x"] * 4))[0], Status.FULL)
        self.lease(2)
        self.fine(commands.encode_enqueue(b"q", [b"6"]))
        self.assertEqual((self.described().leased, self.bodies()), (2, [b"6"]))

    def test_what_would_not_fit_without_the_ready_ones_is_refused(self):
        self.configure(messages_max=3, bytes_max=20, overflow=1)
        self.put(b"later", delay_ms=50)
        self.enqueue(b"q", b"1", b"2")
        self.lease()
        full = self.one(commands.encode_enqueue(b"q", [b"x", b"x"]))
        self.assertEqual(full, (Status.FULL, b"messages_max"))
        self.assertEqual(self.one(commands.encode_enqueue(b"q", [b"x" * 15])),
                         (Status.FULL, b"messages_max"))
        self.assertEqual(self.bodies(), [b"2"])
        for _ in range(3):
            self.one(queuecommands.encode_enqueue_with(b"q", [b"d"], delay_ms=50))
        self.assertEqual((self.described().delayed, self.bodies(b"q.dead")), (2, [b"2"]))

    def test_lists_that_are_undone_do_not_bury_without_bound(self):
        self.start(purge_count_max=10, overflow_extra_max=3)
        self.enqueue(b"q", *[b"m"] * 50)
        self.configure(messages_max=1, overflow=1)
        one = commands.encode_enqueue(b"q", [b"m"])
        undone = commands.encode_execute([one, queuecommands.encode_ack([(9, 9)])])
        results = self.do(*[undone] * 6)
        self.assertEqual([status for status, _ in results], [
            Status.ABORTED] * 3 + [Status.REPLY_FULL] * 3, "4 each, then 2, which is enough")
        self.assertEqual(self.described().ready, 50)
        results = self.do(*[one] * 4)
        self.assertEqual([status for status, _ in results], [Status.OK] * 4)
        self.assertEqual(self.described().ready, 50 + 4 - 4 - 4 - 2 - 1)

    def test_work_for_bytes(self):
        self.start(overflow_extra_max=0, overflow_extra_bytes=10)
        self.configure(bytes_max=60, overflow=1)
        self.enqueue(b"q", *[b"123"] * 20)
        self.fine(commands.encode_enqueue(b"q", [b"x" * 20]))
        self.assertEqual(self.described().held_bytes, 71, "one for itself, two for its bytes")

    def test_ids_that_do_not_follow_on_have_the_long_form(self):
        self.configure(messages_max=1, overflow=1)
        reply = self.ask(A, 1, *[commands.encode_enqueue(b"q", [b"m"])] * 3)
        self.assertEqual([commands.decode_enqueue_result(payload) for _, payload in reply.results],
                         [1, 3, 5])

    def test_a_much_lower_maximum_is_reached_step_by_step(self):
        self.start(overflow_extra_max=1)
        self.enqueue(b"q", *[b"m"] * 9)
        self.configure(messages_max=3, overflow=1)
        held = []
        for _ in range(7):
            self.fine(commands.encode_enqueue(b"q", [b"m"]))
            held.append(self.described().ready)
        self.assertEqual(held, [8, 7, 6, 5, 4, 3, 3])

    def test_dead_letters_arrive_however_full_it_is(self):
        self.configure(b"d", messages_max=1)
        self.configure(delivery_limit=1, dead_letter=b"d")
        self.enqueue(b"q", b"1", b"2")
        for leased in self.lease(2):
            self.nack(leased)
        self.assertEqual(self.bodies(b"d"), [b"1", b"2"])


class WholeQueueTest(QueueCase):

    def test_configure_and_describe(self):
        self.assertFalse(self.described().configured)
        self.configure(ttl_ms=7)
        self.configure(dead_letter=b"d")
        described = self.described()
        self.assertTrue(described.configured)
        self.assertEqual(list(described.settings.values()),
                         [b"d", 20, 7, 0, 0, 0, 300_000, 1_000, 600_000])
        self.assertEqual(self.described(b"x.dead").settings[2], 0)
        self.assertEqual(commands.decode_queue_list(self.fine(commands.encode_queues())),
                         [(b"q", 0)])
        self.assertEqual(self.one(queuecommands.encode_configure(b"q", {1: b"q"}))[0],
                         Status.LIMIT)

    def test_settings_are_bounded(self):
        self.start(settings_max=1)
        self.configure(b"a")
        self.assertEqual(self.one(queuecommands.encode_configure(b"b", {})),
                         (Status.LIMIT, b"settings_max"))
        self.configure(b"a", ttl_ms=1)
        self.fine(queuecommands.encode_delete_queue(b"a"))
        self.configure(b"b")

    def test_delete(self):
        delete = queuecommands.encode_delete_queue(b"q")
        self.assertEqual(self.one(delete)[0], Status.EMPTY)
        self.configure(dedup_window_ms=1000)
        self.put(b"1", dedup_ids=[b"a"])
        self.assertEqual(self.one(delete)[0], Status.IN_USE)
        (leased,) = self.lease()
        self.assertEqual(self.one(delete)[0], Status.IN_USE)
        self.nack(leased, 50)
        self.assertEqual(self.one(delete)[0], Status.IN_USE)
        self.clock(50)
        self.fine(commands.encode_dequeue(b"q"))
        self.ask(A, 1, commands.encode_dequeue(b"q", 1, 50))
        self.assertEqual(self.one(delete)[0], Status.IN_USE)
        self.clock(100)
        self.fine(delete)
        self.assertEqual(self.machine.executor.queues.by_name, {})
        self.assertEqual(self.machine.executor.dedup_count, 0)

    def test_purge_leaves_what_is_leased(self):
        self.put(b"high", priority=3)
        self.enqueue(b"q", b"1", b"2")
        self.put(b"late", delay_ms=9)
        self.put(b"later", delay_ms=19)
        self.lease()

        def purge(limit: int) -> tuple[int, int]:
            return queueresults.decode_purge_result(self.fine(
                queuecommands.encode_purge(b"q", limit)))
        self.assertEqual(purge(1), (1, 3))
        self.assertEqual(self.bodies(), [b"2"])
        self.assertEqual(purge(2), (2, 1))
        self.assertEqual(self.machine.next_deadline_ms(), 19)
        self.assertEqual(purge(10_000), (1, 0))
        self.assertEqual(self.described().leased, 1)
        self.assertEqual(purge(1), (0, 0))

    def test_a_request_purges_a_bounded_number(self):
        self.start(purge_count_max=3)
        self.enqueue(b"q", *[b"m"] * 9)
        purge = queuecommands.encode_purge(b"q", 2)
        results = self.do(purge, purge, purge)
        self.assertEqual([status for status, _ in results],
                         [Status.OK, Status.OK, Status.REPLY_FULL])
        self.assertEqual(self.described().ready, 6)

    def test_listings_without_room_use_it_up(self):
        self.start(result_bytes_max=100)
        self.put(b"m", priority=1)
        for _ in range(2):
            self.nack(self.lease()[0], reason=b"r" * 60)
        self.lease(consumer=b"c" * 60)
        self.put(b"m" * 60, queue=b"i")
        size = commands.encode_size(b"q")
        for looking in (queuecommands.encode_leases(b"q", 9), queuecommands.encode_inspect(b"i", 9),
                        commands.encode_queues(limit=9)):
            with self.subTest(looking):
                filling = [size] * (6 if looking[4] == Operation.QUEUES else 1)
                statuses = [status for status, _ in self.do(*filling, looking, size, looking)]
                self.assertEqual(statuses, [Status.OK] * len(filling) + [Status.REPLY_FULL] * 3)

    def test_a_listing_looks_at_no_more_than_there_is_room_for(self):
        self.start(result_bytes_max=200)
        self.enqueue(b"q", *[b""] * 100)
        asked = []

        def noted(method):
            def call(*arguments):
                for each in method(*arguments):
                    asked.append(each)
                    yield each
            return call
        with mock.patch.object(Queue, "items", noted(Queue.items)):
            self.fine(queuecommands.encode_inspect(b"q", 100))
        self.assertEqual(len(asked), 7)
        asked.clear()
        self.lease(8)
        with mock.patch.object(Queue, "leases", noted(Queue.leases)):
            self.fine(queuecommands.encode_leases(b"q", 100))
        self.assertEqual(len(asked), 5)

    def test_queues_of_nothing_but_ids_count_as_moves(self):
        self.start(purge_count_max=4)
        for number in range(9):
            self.put(b"m", queue=b"d%d" % number, dedup_ids=[b"1"])
            self.fine(commands.encode_dequeue(b"d%d" % number))
        self.enqueue(b"e", b"1")
        pages, after = [], b""
        while not pages or pages[-1]:
            pages.append(commands.decode_queue_list(self.fine(commands.encode_queues(after))))
            after = pages[-1][-1][0] if pages[-1] else after
        self.assertEqual(pages, [[(b"d3", 0)], [(b"d7", 0)], [(b"e", 1)], []])
        ask = commands.encode_queues(b"d7")
        results = self.do(commands.encode_queues(b"d3"), ask, ask)
        self.assertEqual([status for status, _ in results],
                         [Status.OK, Status.REPLY_FULL, Status.REPLY_FULL])

    def test_what_ends_in_the_middle_leaves_nothing(self):
        self.enqueue(b"q", b"stays")
        for stamp in range(0, 2000, 20):
            self.put(*[b"m"] * 20, ttl_ms=10)
            self.put(b"stays too")
            self.clock(stamp + 10)
        queue = self.machine.executor.queues.by_name[b"q"]
        self.assertEqual(queue.ready(), 101)
        self.assertEqual((len(queue.ids), queue.special, queue.expiries), (101, None, None))

    def test_any_bytes_have_an_answer(self):
        chance = random.Random(3)
        self.enqueue(b"q", b"1", b"2")
        for number in range(3000):
            operation = chance.choice(range(Operation.ENQUEUE_WITH, Operation.TRANSACT + 2))
            piece = bytes([operation]) + chance.choice((b"", b"\1q", b"\0\0\0\1")) + bytes(
                chance.choice((0, 0, 0, 1, 2, 255)) for _ in range(chance.randrange(60)))
            status, _ = self.one(len(piece).to_bytes(4, "big") + piece)
            self.assertIn(status, set(Status))
            if number % 300 == 0:
                self.check_invariants()

    def test_nothing_is_left_for_the_collector(self):
        self.configure(delivery_limit=2)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for stamp in range(50):
            self.put(b"1", b"2", dedup_ids=[b"%d" % stamp, b""], ttl_ms=500, priority=stamp % 3)
            for leased in self.lease(2):
                self.nack(leased, stamp % 2)
            self.one(commands.encode_execute([commands.encode_dequeue(b"q"),
                                              queuecommands.encode_ack([(1, 1)])]))
            self.clock(stamp)
        self.assertEqual(gc.collect(), 0)

    def test_a_machine_that_is_released_needs_no_collector(self):
        machine = Machine(MachineConfig(), WireConfig())
        gone = weakref.ref(machine.executor)
        gc.disable()
        self.addCleanup(gc.enable)
        machine.executor.release()
        del machine
        self.assertIsNone(gone())

    def test_an_old_state_knows_nothing_of_it(self):
        self.machine.state_version = 1
        before = state_of(self.machine)[2:]
        for command in (queuecommands.encode_enqueue_with(b"q", [b"1"]),
                        queuecommands.encode_configure(b"q", {})):
            self.assertEqual(self.one(command)[0], Status.UNKNOWN)
        self.assertIsNotNone(self.ask(A, 1, queuecommands.encode_lease(b"q", 5, 1, 100)))
        self.assertEqual(state_of(self.machine)[7], before[5])


class WatchTest(QueueCase):

    def test_touched_queues_are_noted_while_somebody_watches(self):
        self.enqueue(b"before", b"1")
        executor = self.machine.executor
        executor.queue_watch = set()
        self.enqueue(b"a", b"1", b"2")
        self.put(b"3", queue=b"b", delay_ms=5)
        self.assertEqual(executor.queue_watch, {b"a", b"b"})
        for command in (commands.encode_dequeue(b"a"), queuecommands.encode_lease(b"a", 9)):
            executor.queue_watch = set()
            self.fine(command)
            self.assertEqual(executor.queue_watch, {b"a"})
        executor.queue_watch = set()
        self.clock(9)
        self.assertEqual(executor.queue_watch, {b"a", b"b"})
        single = requests.encode_request
        for first, command in enumerate((commands.encode_enqueue(b"s", [b"1"]),
                                         commands.encode_dequeue(b"s"),
                                         commands.encode_enqueue(b"s", [b"2"]),
                                         commands.encode_dequeue(b"s")), 1):
            executor.queue_watch = set()
            self.apply(single(A, first, first - 1, [command]))
            self.assertEqual(executor.queue_watch, {b"s"})

    def test_one_of_several_leases_ends(self):
        self.enqueue(b"a", b"1", b"2", b"3")
        receipts = [(m.id, m.delivery) for m in queueresults.decode_lease_result(
            self.fine(queuecommands.encode_lease(b"a", 9, 3)))]
        executor = self.machine.executor
        for command in (queuecommands.encode_ack(receipts[:1]),
                        queuecommands.encode_nack(receipts[1:2]),
                        queuecommands.encode_ack(receipts[2:])):
            executor.queue_watch = set()
            self.fine(command)
            self.assertEqual(executor.queue_watch, {b"a"})
