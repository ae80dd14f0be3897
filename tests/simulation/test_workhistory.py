"""The judge of workers and watchers is proven: what it must accuse, and what it must not."""

import unittest

from raftnet.simulation.histories import DEQUEUE, ENQUEUE, Operation, Step
from raftnet.simulation.promises import InvariantError
from raftnet.simulation.workhistory import renumber
from raftnet.wire import commands, kvcommands, queuecommands, queueresults
from raftnet.wire.commands import Status
from raftnet.wire.transactions import encode_transact
from raftnet.wire.watches import EventType, WatchWhat, encode_sizes
from tests.simulation.courses import A, B, C, Course

OK, EMPTY, STALE = int(Status.OK), (int(Status.EMPTY), b""), int(Status.STALE)
ENQUEUE_TWO = commands.encode_enqueue(b"q", [b"one", b"two"])
DEQUEUE_ONE = commands.encode_dequeue(b"q")
LEASE_ONE = queuecommands.encode_lease(b"q", 1_000, consumer=b"me")
PUT_1, PUT_2 = kvcommands.encode_kv_put(b"k", b"1"), kvcommands.encode_kv_put(b"k", b"2")
GET = kvcommands.encode_kv_get(b"k")
PUT, DELETED = int(EventType.PUT), int(EventType.DELETED)


def _leased(message_id: int, delivery: int, message: bytes, deliveries: int = 1) -> list:
    return [(OK, queueresults.encode_lease_result([(message_id, delivery, deliveries, message)]))]


class JudgeTestCase(unittest.TestCase):
    """With the two outcomes."""

    def setUp(self):
        self.course = Course()

    def assert_clean(self):
        """Nothing is accused."""
        self.course.history.check()

    def assert_accused(self, name: str):
        """Under that name."""
        with self.assertRaises(InvariantError) as caught:
            self.course.history.check()
        self.assertEqual(str(caught.exception).split(":")[0], name)


class AnswersTest(JudgeTestCase):
    """Replies and reads against the model."""

    def test_a_true_course_is_clean(self):
        course = self.course
        course.ask(ENQUEUE_TWO)
        course.ask(LEASE_ONE, GET)
        course.ask(queuecommands.encode_ack([(1, 1)]), PUT_1)
        course.read(GET)
        course.wait(5_000)
        course.read(commands.encode_size(b"q"))
        self.assert_clean()

    def test_a_message_that_is_with_somebody_is_with_nobody_else(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(LEASE_ONE)
        self.course.ask(LEASE_ONE, session=B, lie=_leased(1, 2, b"one", 2))
        self.assert_accused("lease exclusion")

    def test_a_lost_message_is_missed(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(DEQUEUE_ONE, lie=[EMPTY])
        self.assert_accused("work conservation")

    def test_a_message_that_was_never_sent(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(DEQUEUE_ONE, lie=[(OK, commands.encode_messages([(9, b"nine")]))])
        self.assert_accused("work conservation")

    def test_a_count_of_deliveries_that_is_wrong(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(LEASE_ONE, lie=_leased(1, 1, b"one", 2))
        self.assert_accused("work conservation")

    def test_a_late_receipt_that_is_accepted(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(LEASE_ONE)
        self.course.wait(2_000)
        self.course.ask(queuecommands.encode_ack([(1, 1)]),
                        lie=[(OK, queueresults.encode_outcomes_result([0]))])
        self.assert_accused("reference answers")

    def test_a_value_that_was_never_put(self):
        self.course.ask(PUT_1)
        self.course.read(GET, lie=(OK, kvcommands.encode_kv_get_result(1, 0, b"7")))
        self.assert_accused("key-value register")

    def test_a_version_that_was_given_before(self):
        self.course.ask(PUT_1)
        self.course.ask(PUT_2, lie=[(OK, kvcommands.encode_version_result(1))])
        self.assert_accused("key-value register")

    def test_a_transaction_that_should_have_been_undone(self):
        self.course.ask(ENQUEUE_TWO)
        command = encode_transact([], [queuecommands.encode_ack([(1, 1)]), PUT_1])
        told = self.course.ask(command, lie=[(OK, commands.encode_execute_result(
            [(OK, queueresults.encode_outcomes_result([1])), (OK, bytes(8))]))])
        self.assertEqual(told[0][0], OK)
        self.assert_accused("reference answers")

    def test_the_first_wrong_answer_is_the_one_that_is_accused(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(PUT_1, lie=[(OK, kvcommands.encode_version_result(3))])
        self.course.ask(DEQUEUE_ONE, lie=[EMPTY])
        self.assert_accused("key-value register")

    def test_a_wait_is_answered_by_what_ends_it(self):
        self.course.ask(queuecommands.encode_lease(b"q", 1_000, 1, 5_000), session=B)
        self.course.ask(ENQUEUE_TWO)
        self.assert_clean()

    def test_a_repeated_request_has_the_same_reply(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(DEQUEUE_ONE)
        self.course.ask(DEQUEUE_ONE, sequence=2)
        self.assert_clean()

    def test_a_repeated_request_with_another_reply(self):
        self.course.ask(ENQUEUE_TWO)
        self.course.ask(DEQUEUE_ONE)
        self.course.ask(DEQUEUE_ONE, sequence=2,
                        lie=[(OK, commands.encode_messages([(2, b"two")]))])
        self.assert_accused("work conservation")

    def test_an_answer_to_what_is_not_in_the_log(self):
        self.course.history.asked(C, 1, PUT_1, self.course.now_ms)
        self.course.tell(C, 1, [(OK, kvcommands.encode_version_result(1))])
        self.assert_accused("reference answers")


class RealTimeTest(JudgeTestCase):
    """Nothing is known before it is so."""

    def test_an_answer_before_its_entry_is_committed(self):
        self.course.ask(PUT_1, committed_ms=self.course.now_ms + 60_000)
        self.assert_accused("real time order")

    def test_an_entry_before_it_was_asked_for(self):
        self.course.ask(PUT_1, committed_ms=self.course.now_ms - 500)
        self.assert_accused("real time order")

    def test_a_read_behind_what_was_answered(self):
        old = self.course.index
        self.course.ask(PUT_1)
        self.course.read(GET, lie=EMPTY, index=old)
        self.assert_accused("real time order")

    def test_a_read_behind_what_another_has_read(self):
        old = self.course.index
        self.course.wait(10)
        self.course.read(GET, local=True)
        self.course.read(GET, index=old)
        self.assert_accused("real time order")

    def test_a_read_beside_what_is_answered(self):
        """Both were under way at once."""
        old, asked_ms = self.course.index, self.course.now_ms
        self.course.ask(PUT_1)
        self.course.read(GET, lie=EMPTY, index=old, asked_ms=asked_ms)
        self.assert_clean()

    def test_a_local_read_may_be_old_but_not_wrong(self):
        old = self.course.index
        self.course.ask(PUT_1)
        self.course.read(GET, lie=EMPTY, index=old, local=True)
        self.assert_clean()
        self.course.read(GET, lie=EMPTY, local=True)
        self.assert_accused("key-value register")

    def test_a_read_at_an_entry_that_is_not_committed(self):
        self.course.read(GET, lie=EMPTY, index=self.course.index + 1, local=True)
        self.assert_accused("real time order")


class WatchTest(JudgeTestCase):
    """What watchers are told."""

    def _two_puts(self):
        """(index of the first, index of the second)."""
        self.course.ask(PUT_1)
        first = self.course.index
        self.course.ask(PUT_2)
        return first, self.course.index

    def test_true_events_are_clean(self):
        course = self.course
        key, prefix = course.watch(WatchWhat.KEY, b"k"), course.watch(WatchWhat.PREFIX, b"")
        course.event(key)
        course.event(prefix)
        first, second = self._two_puts()
        one, two = (PUT, b"k", 1, first, b"1"), (PUT, b"k", 2, second, b"2")
        course.event(key, one, two)
        course.event(prefix, one, index=first)
        course.event(prefix, two)
        again = course.watch(WatchWhat.KEY, b"k", from_index=first)
        course.event(again, two)
        now = course.watch(WatchWhat.KEY, b"k")
        course.event(now, (PUT, b"k", 2, second, b"2"))
        self.assert_clean()

    def test_an_event_that_is_left_out(self):
        key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
        _, second = self._two_puts()
        self.course.event(key, (PUT, b"k", 2, second, b"2"))
        self.assert_accused("watch order")

    def test_an_event_that_comes_twice(self):
        key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
        first, second = self._two_puts()
        one = (PUT, b"k", 1, first, b"1")
        self.course.event(key, one, index=first)
        self.course.event(key, one, (PUT, b"k", 2, second, b"2"))
        self.assert_accused("watch order")

    def test_events_in_another_order(self):
        key = self.course.watch(WatchWhat.PREFIX, b"", from_index=1)
        first, second = self._two_puts()
        self.course.event(key, (PUT, b"k", 2, second, b"2"), (PUT, b"k", 1, first, b"1"))
        self.assert_accused("watch order")

    def test_more_is_said_to_be_told_than_was(self):
        key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
        first, _ = self._two_puts()
        self.course.event(key, (PUT, b"k", 1, first, b"1"))
        self.assert_accused("watch order")

    def test_an_event_of_another_key(self):
        key = self.course.watch(WatchWhat.KEY, b"j", from_index=1)
        first, _ = self._two_puts()
        self.course.event(key, (PUT, b"k", 1, first, b"1"))
        self.assert_accused("watch order")

    def test_a_beginning_with_an_old_state(self):
        first, second = self._two_puts()
        key = self.course.watch(WatchWhat.KEY, b"k")
        self.course.event(key, (PUT, b"k", 1, second, b"1"))
        self.assert_accused("watch order")

    def test_a_beginning_behind_what_was_known(self):
        first, _ = self._two_puts()
        for local in (True, False):
            key = self.course.watch(WatchWhat.KEY, b"k", local=local)
            self.course.event(key, (PUT, b"k", 1, first, b"1"), index=first)
        self.assert_accused("watch order")

    def test_a_local_beginning_may_be_old(self):
        first, _ = self._two_puts()
        key = self.course.watch(WatchWhat.KEY, b"k", local=True)
        self.course.event(key, (PUT, b"k", 1, first, b"1"), index=first)
        self.assert_clean()

    def test_an_event_before_its_entry_is_committed(self):
        key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
        self.course.event(key, (PUT, b"k", 1, 2, b"1"), index=2)
        self._two_puts()
        self.assert_accused("watch order")

    def test_sizes(self):
        course = self.course
        queue = course.watch(WatchWhat.QUEUE, b"q")
        course.event(queue, (int(EventType.SIZE), b"q", 0, course.index, encode_sizes(0, 0, 0)))
        course.ask(ENQUEUE_TWO)
        course.ask(LEASE_ONE)
        course.event(queue, (int(EventType.SIZE), b"q", 1, course.index, encode_sizes(1, 0, 3)))
        self.assert_clean()

    def test_a_size_that_is_not_told(self):
        course = self.course
        queue = course.watch(WatchWhat.QUEUE, b"q")
        course.event(queue, (int(EventType.SIZE), b"q", 0, course.index, encode_sizes(0, 0, 0)))
        course.ask(ENQUEUE_TWO)
        course.event(queue)
        self.assert_accused("watch order")

    def test_a_size_that_never_was(self):
        queue = self.course.watch(WatchWhat.QUEUE, b"q")
        self.course.event(queue, (int(EventType.SIZE), b"q", 3, self.course.index,
                                  encode_sizes(0, 0, 0)))
        self.assert_accused("watch order")

    def test_who_watches_in_the_end_has_been_told_everything(self):
        key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
        self.course.event(key)
        self._two_puts()
        self.assert_clean_copy(key)
        key.applied = self.course.index
        self.assert_accused("watch order")

    def assert_clean_copy(self, record):
        """Of a course whose watches are judged again later."""
        course = Course()
        course.history.watches.records.append(record)
        course.ask(PUT_1)
        course.ask(PUT_2)
        course.history.check()

    def test_what_is_still_in_memory_is_not_gone(self):
        for snapshot_index, held, is_legal in ((0, 50, False), (9, 50, True), (0, 1, True)):
            with self.subTest(snapshot_index=snapshot_index, held=held):
                self.course = Course()
                key = self.course.watch(WatchWhat.KEY, b"k", from_index=1)
                key.gone = snapshot_index, held
                self._two_puts()
                if is_legal:
                    self.assert_clean()
                else:
                    self.assert_accused("watch order")


class RenumberTest(unittest.TestCase):
    """Plain clients are judged without the messages of others between theirs."""

    def test_ids_are_counted_anew(self):
        history = [
            Operation("a", 1, 1, [Step(ENQUEUE, b"q", (b"x", b"y"), answer=4)], 0, 1),
            Operation("a", 1, 2, [Step(DEQUEUE, b"q", count=2, answer=[(4, b"x"), (5, b"y")])],
                      2, 3),
            Operation("a", 1, 3, [Step(ENQUEUE, b"q", (b"z",))], 4)]
        renumber(history, [4, 5, 9])
        self.assertEqual(history[0].steps[0].answer, 1)
        self.assertEqual(history[1].steps[0].answer, [(1, b"x"), (2, b"y")])
        self.assertIsNone(history[2].steps[0].answer)


if __name__ == "__main__":
    unittest.main()
