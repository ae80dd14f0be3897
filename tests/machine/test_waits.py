"""Dequeues that wait: order of asking, every way to end, and what is kept (design, fine print)."""

from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from tests.machine.driver import A, B, C, MachineCase

CLOCK = commands.encode_time()


def wait(count: int = 1, wait_ms: int = 1000, queue: bytes = b"q") -> bytes:
    return commands.encode_dequeue(queue, count, wait_ms)


def put(*messages: bytes, queue: bytes = b"q") -> bytes:
    return commands.encode_enqueue(queue, list(messages))


class WaitsTest(MachineCase):

    def give(self, *pieces: bytes) -> list:
        """Completions that these commands brought about."""
        return self.completed(self.apply(requests.encode_request(
            requests.NO_SESSION, 1, 0, list(pieces))))

    def test_there_is_something(self):
        self.enqueue(b"q", b"1")
        self.assert_results(self.ask(A, 1, wait()).results, [b"1"])
        self.assertEqual(self.machine.waits(), [])

    def test_served_in_order_of_asking_each_up_to_its_count(self):
        for session, count in ((B, 2), (A, 1), (C, 5)):
            self.assertIsNone(self.ask(session, 1, wait(count)))
        self.assertEqual([key for key, _, _ in self.machine.waits()], [B, A, C])
        self.assertEqual(self.give(put(b"1", b"2", b"3", b"4")), [
            (B, 1, Status.OK, [b"1", b"2"]), (A, 1, Status.OK, [b"3"]), (C, 1, Status.OK, [b"4"])])
        self.assertEqual(self.machine.executor.queues.by_name, {})
        self.assertEqual(self.give(put(b"5")), [])

    def test_each_enqueue_of_a_request_serves_on_its_own(self):
        self.ask(A, 1, wait(5))
        self.ask(B, 1, wait(5))
        applied = self.apply(requests.encode_request(C, 1, 0, [put(b"1"), put(b"2"), put(b"3")]))
        self.assertEqual(self.completed(applied), [(A, 1, Status.OK, [b"1"]),
                                                   (B, 1, Status.OK, [b"2"])])
        self.assertEqual(requests.decode_reply(applied.replies[0]).first_message_id, 1)
        self.assertEqual(self.contents(), [b"3"])

    def test_who_waits_comes_before_who_asks_later(self):
        self.ask(A, 1, wait())
        applied = self.apply(requests.encode_request(
            B, 1, 0, [put(b"1"), commands.encode_dequeue(b"q")]))
        self.assertEqual(self.completed(applied), [(A, 1, Status.OK, [b"1"])])
        self.assert_results(requests.decode_reply(applied.replies[0]).results, Status.OK,
                            Status.EMPTY)

    def test_the_outcome_is_kept_like_any_reply(self):
        body = requests.encode_request(A, 1, 0, [wait()])
        self.assertEqual(self.apply(body).replies, [None])
        self.assertEqual(self.apply(body).replies, [None], "it still waits")
        self.assertTrue(self.machine.is_waiting(A, 1))
        self.assertIsNone(self.machine.kept_reply(A, 1))
        applied = self.apply(requests.encode_request(B, 1, 0, [put(b"1", b"2")]))
        ((_, _, reply),) = applied.completions
        self.assertFalse(self.machine.is_waiting(A, 1))
        self.assertEqual(self.machine.kept_reply(A, 1), reply)
        self.assertEqual(self.apply(body).replies, [reply])
        self.assertEqual(self.contents(), [b"2"])

    def test_a_session_serves_itself(self):
        self.ask(A, 1, wait())
        self.assertEqual(self.ask(A, 2, put(b"1")).first_message_id, 1)
        self.assert_results(self.ask(A, 1, wait()).results, [b"1"])

    def test_acknowledging_leaves_what_still_waits(self):
        self.ask(A, 1, put(b"1", queue=b"other"))
        self.ask(A, 2, wait())
        self.ask(A, 3, put(b"2", queue=b"other"), acknowledged=2)
        self.assertIsNone(self.machine.kept_reply(A, 1))
        self.assertTrue(self.machine.is_waiting(A, 2))
        self.give(put(b"3"))
        self.assertIsNotNone(self.machine.kept_reply(A, 2))

    def test_deadlines_by_stamp_in_order(self):
        self.ask(A, 1, wait(wait_ms=300), at=0)
        self.ask(B, 1, wait(wait_ms=200), at=100)
        self.ask(C, 1, wait(wait_ms=100), at=100)
        self.assertEqual(self.machine.waits(), [(A, 1, 300), (B, 1, 300), (C, 1, 200)])
        self.assertEqual(self.machine.next_deadline_ms(), 200)
        self.assertEqual(self.internal(CLOCK, at=199)[1], [])
        self.assertEqual(self.internal(CLOCK, at=200)[1], [(C, 1, Status.EMPTY, [])])
        self.assertEqual(self.internal(CLOCK, at=300)[1],
                         [(A, 1, Status.EMPTY, []), (B, 1, Status.EMPTY, [])])
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_an_entry_expires_before_its_requests(self):
        self.ask(A, 1, wait(wait_ms=100), at=0)
        applied = self.apply(requests.encode_request(B, 1, 0, [put(b"1")]), at=100)
        self.assertEqual(self.completed(applied), [(A, 1, Status.EMPTY, [])])
        self.assertEqual(self.contents(), [b"1"])

    def test_expiries_of_one_entry_are_capped(self):
        self.start(expiries_per_entry_max=2)
        for first in range(1, 6):
            self.ask(A, first, wait(wait_ms=10), at=0)
        counts = []
        while self.machine.waits():
            counts.append(len(self.internal(CLOCK, at=50)[1]))
        self.assertEqual(counts, [2, 2, 1])

    def test_cancel(self):
        self.ask(A, 1, wait(), at=0)
        self.ask(B, 1, wait())
        statuses, completions = self.internal(commands.encode_cancel(A, 1),
                                              commands.encode_cancel(A, 1),
                                              commands.encode_cancel(A, 2))
        self.assertEqual(statuses, [Status.OK, Status.EMPTY, Status.EMPTY])
        self.assertEqual(completions, [(A, 1, Status.CANCELLED, [])])
        self.assert_results(self.ask(A, 1, wait()).results, Status.CANCELLED)
        self.assertEqual(self.give(put(b"1")), [(B, 1, Status.OK, [b"1"])])

    def test_where_waiting_is_not_allowed(self):
        self.start(waiters_max=1, wait_ms_max=5000)
        self.assert_results(self.do(wait()), Status.LIMIT)
        self.assert_results(self.ask(A, 1, wait(), wait()).results, Status.LIMIT, Status.LIMIT)
        self.assert_results(self.ask(A, 3, wait(wait_ms=5001)).results, Status.LIMIT)
        self.assert_results(self.ask(A, 4, wait(count=0)).results, Status.LIMIT)
        self.assertIsNone(self.ask(A, 5, wait(wait_ms=5000)))
        self.assert_results(self.ask(B, 1, wait()).results, Status.LIMIT)
        results = self.do(commands.encode_execute([wait()]))
        self.assert_results(results, Status.LIMIT)
        self.assertIn(b"wait", results[0][1])

    def test_a_message_that_fits_no_reply_stays(self):
        self.start(result_bytes_max=100)
        self.ask(A, 1, wait())
        self.assertEqual(self.give(put(b"x" * 89)), [(A, 1, Status.REPLY_FULL, [])])
        self.assertEqual(self.contents(), [b"x" * 89])

    def test_many_ended_waits_leave_nothing(self):
        self.ask(B, 1, wait(wait_ms=500_000, queue=b"other"), at=0)
        for first in range(1, 2001):
            self.ask(A, first, wait(wait_ms=1_000_000), acknowledged=first - 1)
            self.give(put(b"m"))
        self.assertLess(len(self.machine.executor.waits._deadlines), 100)
        self.assertEqual(self.machine.next_deadline_ms(), 500_000)
