"""EXECUTE: all of it or nothing, in one entry (design, decision 9)."""

import copy

from raftnet.wire import commands
from raftnet.wire.commands import Status
from tests.machine.driver import A, MachineCase, state_of


def put(queue: bytes, *messages: bytes) -> bytes:
    return commands.encode_enqueue(queue, list(messages))


def take(queue: bytes, count: int = 1) -> bytes:
    return commands.encode_dequeue(queue, count)


class ExecuteTest(MachineCase):

    def execute(self, *pieces: bytes) -> tuple[int, list]:
        """(status, results)."""
        ((status, payload),) = self.do(commands.encode_execute(list(pieces)))
        if status != Status.OK:
            return status, payload
        return status, commands.decode_execute_result(payload)

    def test_each_sees_what_those_before_it_did(self):
        status, results = self.execute(
            put(b"a", b"1", b"2"), take(b"a"), put(b"b", b"3"), commands.encode_size(b"a"),
            commands.encode_peek(b"b"), commands.encode_queues(), take(b"b", 5), take(b"b"),
            commands.encode_queues())
        self.assertEqual(status, Status.OK)
        self.assert_results(results, Status.OK, [b"1"], Status.OK, Status.OK, [b"3"], Status.OK,
                            [b"3"], Status.EMPTY, Status.OK)
        self.assertEqual(commands.decode_enqueue_result(results[2][1]), 3)
        self.assertEqual(commands.decode_size_result(results[3][1]), (1, 1))
        self.assertEqual(commands.decode_queue_list(results[5][1]), [(b"a", 1), (b"b", 1)])
        self.assertEqual(commands.decode_queue_list(results[8][1]), [(b"a", 1)])
        self.assertEqual(self.contents(b"a"), [b"2"])
        self.assertEqual(list(self.machine.executor.queues.by_name), [b"a"])

    def test_nothing(self):
        self.assertEqual(self.execute(), (Status.OK, []))
        self.start(result_bytes_max=3)
        self.assertEqual(self.execute(), (Status.REPLY_FULL, b""))

    def test_one_bad_operation_and_nothing_happens(self):
        self.start(execute_operations_max=3, message_bytes_max=10)
        self.enqueue(b"q", b"1")
        for bad, expected in ((b"\0\0\0\x02\x01\x01", Status.MALFORMED),
                              (b"\0\0\0\0", Status.UNKNOWN),
                              (commands.encode_execute([]), Status.UNKNOWN),
                              (commands.encode_close(), Status.UNKNOWN),
                              (commands.encode_time(), Status.UNKNOWN),
                              (commands.encode_cancel(A, 1), Status.UNKNOWN),
                              (put(b"q", b"x" * 11), Status.LIMIT),
                              (take(b"q", 0), Status.LIMIT),
                              (commands.encode_dequeue(b"q", 1, 5), Status.LIMIT),
                              (commands.encode_peek(b"q", 10**6), Status.LIMIT)):
            with self.subTest(bad=bad):
                self.assertEqual(self.execute(put(b"q", b"2"), take(b"q"), bad)[0], expected)
                self.assertEqual(self.contents(), [b"1"])
                self.assertEqual(self.machine.executor.next_message_id, 2)
        self.assertEqual(self.execute(*[take(b"q")] * 4)[0], Status.LIMIT)
        self.assertEqual(self.execute(*[take(b"q")] * 3)[0], Status.OK)

    def test_a_full_reply_undoes_everything(self):
        self.start(result_bytes_max=100)
        self.enqueue(b"a", b"1", b"2", b"3", b"x" * 80)
        self.enqueue(b"b", b"4")
        self.ask(A, 1, commands.encode_dequeue(b"waited", 1, 1000))
        before = copy.deepcopy(state_of(self.machine))
        status, _ = self.execute(
            put(b"new", b"5"), take(b"a", 2), put(b"a", b"6", b"7"), take(b"b"), put(b"b", b"8"),
            take(b"new"), put(b"waited", b"9"), take(b"a"), take(b"a"), put(b"a", b"10"))
        self.assertEqual(status, Status.REPLY_FULL)
        after = state_of(self.machine)
        self.assertEqual(after[2:], before[2:])
        self.assertEqual(self.machine.waits(), [(A, 1, 1000)])

    def test_an_undone_list_has_used_its_room(self):
        # Otherwise one request could have a bounded reply and unbounded work.
        self.start(result_bytes_max=100)
        self.enqueue(b"q", b"x" * 60, b"y" * 60)
        both = commands.encode_execute([take(b"q"), take(b"q")])
        self.assert_results(self.do(both, take(b"q")), Status.REPLY_FULL, Status.REPLY_FULL)
        self.assert_results(self.do(take(b"q")), [b"x" * 60])

    def test_waiters_are_served_only_after_the_whole_list(self):
        self.assertIsNone(self.ask(A, 1, commands.encode_dequeue(b"q", 5, 1000)))
        status, results = self.execute(put(b"q", b"1", b"2"), take(b"q"), put(b"q", b"3"))
        self.assertEqual(status, Status.OK)
        self.assert_results(results, Status.OK, [b"1"], Status.OK)
        self.assert_results(self.ask(A, 1, commands.encode_dequeue(b"q", 5, 1000)).results,
                            [b"2", b"3"])
        self.assertEqual(self.contents(), [])

    def test_a_list_that_takes_all_it_puts_leaves_the_waiter(self):
        self.ask(A, 1, commands.encode_dequeue(b"q", 1, 1000))
        self.execute(put(b"q", b"1"), take(b"q"))
        self.assertTrue(self.machine.is_waiting(A, 1))

    def test_exactly_once(self):
        move = commands.encode_execute([take(b"q"), put(b"done", b"1")])
        self.enqueue(b"q", b"1", b"2")
        self.assertEqual(self.ask(A, 1, move), self.ask(A, 1, move))
        self.assertEqual((self.contents(), self.contents(b"done")), ([b"2"], [b"1"]))
