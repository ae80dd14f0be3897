"""Sessions: exactly once, what is kept for how long, and the limits (design, decision 10)."""

import struct

from raftnet.errors import ErrorCode
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from tests.machine.driver import A, B, C, MachineCase

PUT = commands.encode_enqueue(b"q", [b"m"])
TAKE = commands.encode_dequeue(b"q")


class ExactlyOnceTest(MachineCase):

    def test_a_retry_gets_the_same_reply_and_does_nothing(self):
        self.enqueue(b"q", b"1", b"2")
        body = requests.encode_request(A, 1, 0, [TAKE, PUT])
        first = self.apply(body).replies
        before = self.contents()
        for _ in range(3):
            self.assertEqual(self.apply(body).replies, first)
        self.assertEqual(self.contents(), before)
        self.assert_results(requests.decode_reply(first[0]).results, [b"1"], Status.OK)

    def test_a_copy_in_the_same_batch(self):
        body = requests.encode_request(A, 1, 0, [PUT] * 3)
        one, two = self.apply(body, body).replies
        self.assertEqual(one, two)
        self.assertEqual(len(self.contents()), 3)

    def test_only_the_next_sequence_is_admitted(self):
        self.assertEqual(self.ask(A, 1, PUT, PUT).first_message_id, 1)
        self.assertEqual(self.machine.last_sequence(A), 2)
        self.assert_refused(self.ask(A, 4, PUT), ErrorCode.OUT_OF_ORDER)
        self.assert_refused(self.ask(A, 0, PUT), ErrorCode.ALREADY_ACKNOWLEDGED)
        self.assertEqual(self.ask(A, 3, PUT).first_message_id, 3)
        self.assertEqual(self.machine.last_sequence(A), 3)

    def test_another_framing_of_old_sequences_is_refused(self):
        self.ask(A, 1, PUT, PUT, PUT)
        self.ask(A, 4, PUT)
        for first, count in ((1, 2), (1, 4), (2, 2), (3, 1), (4, 2)):
            with self.subTest(first=first, count=count):
                self.assert_refused(self.ask(A, first, *[PUT] * count),
                                    ErrorCode.ALREADY_ACKNOWLEDGED)
        self.assertEqual(len(self.contents()), 4)
        self.assertEqual(self.ask(A, 1, PUT, PUT, PUT).first_message_id, 1)

    def test_unknown_session_begins_at_one(self):
        self.assert_refused(self.ask(A, 2, PUT), ErrorCode.SESSION_EXPIRED)
        self.assertIsNone(self.machine.last_sequence(A))
        self.ask(A, 1, PUT)
        self.assertEqual(self.machine.last_sequence(A), 1)

    def test_acknowledged_replies_are_dropped(self):
        for first in (1, 3, 5):
            self.ask(A, first, PUT, PUT)
        self.ask(A, 7, PUT, acknowledged=3)
        self.assertIsNone(self.machine.kept_reply(A, 1))
        self.assertIsNotNone(self.machine.kept_reply(A, 3), "its second reply is not acknowledged")
        self.ask(A, 8, PUT, acknowledged=4)
        self.assertIsNone(self.machine.kept_reply(A, 3))
        self.assert_refused(self.ask(A, 3, PUT, PUT), ErrorCode.ALREADY_ACKNOWLEDGED)
        self.assertIsNotNone(self.machine.kept_reply(A, 5))
        self.ask(A, 9, PUT, acknowledged=8)
        self.assertIsNone(self.machine.kept_reply(A, 8), "the last one too")
        self.ask(A, 10, PUT, acknowledged=2**63)
        self.assertIsNone(self.machine.kept_reply(A, 9))
        self.assertIsNotNone(self.machine.kept_reply(A, 10))

    def test_malformed_requests_use_their_sequences(self):
        for first, tail in ((1, b"\0\0"), (3, PUT), (5, PUT * 3)):
            body = requests.REQUEST.pack(A, first, 0, 2) + tail
            for _ in range(2):
                (reply,) = self.apply(body).replies
                self.assert_refused(requests.decode_reply(reply), ErrorCode.BAD_REQUEST)
            self.assertEqual(self.machine.last_sequence(A), first + 1)
        self.assertEqual(self.contents(), [])
        self.ask(A, 7, PUT)

    def test_lying_count_and_no_commands(self):
        (reply,) = self.apply(requests.REQUEST.pack(A, 1, 0, 0)).replies
        self.assert_refused(requests.decode_reply(reply), ErrorCode.BAD_REQUEST)
        self.assertIsNone(self.machine.last_sequence(A))
        (reply,) = self.apply(requests.REQUEST.pack(A, 1, 0, 2**32 - 1) + PUT).replies
        self.assert_refused(requests.decode_reply(reply), ErrorCode.BAD_REQUEST)
        self.assertEqual(self.machine.last_sequence(A), 2**32 - 1)
        (reply,) = self.apply(b"short").replies
        self.assert_refused(requests.decode_reply(reply), ErrorCode.BAD_REQUEST)

    def test_a_malformed_command_costs_no_other(self):
        bad = struct.pack(">IB", 3, 1) + b"xy"
        self.assert_results(self.ask(A, 1, PUT, bad, struct.pack(">I", 0), TAKE).results,
                            Status.OK, Status.MALFORMED, Status.UNKNOWN, [b"m"])

    def test_no_session_keeps_nothing(self):
        for _ in range(2):
            self.ask(requests.NO_SESSION, 1, PUT)
        self.assertEqual(len(self.contents()), 2)
        self.assertEqual(self.machine.sessions.by_id, {})

    def test_internal_session_does_only_its_own(self):
        statuses, _ = self.internal(PUT, TAKE, commands.encode_time(), commands.encode_close(),
                                    commands.encode_cancel(A, 1))
        self.assertEqual(statuses, [Status.UNKNOWN, Status.UNKNOWN, Status.OK, Status.UNKNOWN,
                                    Status.EMPTY])
        self.assert_results(self.ask(A, 1, commands.encode_time(),
                                     commands.encode_cancel(A, 1)).results,
                            Status.UNKNOWN, Status.UNKNOWN)


class LifeOfSessionsTest(MachineCase):

    def test_close_drops_replies_and_remembers_the_position(self):
        self.ask(A, 1, PUT)
        close = commands.encode_close()
        self.assert_results(self.ask(A, 2, TAKE, close).results, [b"m"], Status.OK)
        self.assertEqual(self.machine.sessions.kept_bytes, 0)
        self.assertEqual(self.machine.last_sequence(A), 3)
        self.assert_refused(self.ask(A, 2, TAKE, close), ErrorCode.ALREADY_ACKNOWLEDGED)
        self.assert_refused(self.ask(A, 1, PUT), ErrorCode.ALREADY_ACKNOWLEDGED)
        self.assert_results(self.do(close), Status.UNKNOWN)

    def test_close_cancels_the_sessions_own_wait(self):
        self.assertIsNone(self.ask(A, 1, commands.encode_dequeue(b"q", 1, 1000)))
        applied = self.apply(requests.encode_request(A, 2, 0, [commands.encode_close()]))
        self.assertEqual(self.completed(applied), [(A, 1, Status.CANCELLED, [])])
        self.assertEqual(self.machine.sessions.kept_bytes, 0)
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_expiry_by_replicated_time_only(self):
        self.start(session_expiry_ms=1000)
        self.ask(A, 1, PUT, at=100)
        self.ask(B, 1, PUT, at=500)
        self.assertEqual(self.machine.next_deadline_ms(), 1100)
        self.ask(A, 1, PUT, at=1099)        # a retry is a use
        self.assertEqual(self.machine.next_deadline_ms(), 1500)
        self.internal(commands.encode_time(), at=1499)
        self.assertEqual(self.machine.last_sequence(B), 1)
        self.internal(commands.encode_time(), at=1500)
        self.assertIsNone(self.machine.last_sequence(B))
        self.assertEqual(self.machine.last_sequence(A), 1)
        self.assert_refused(self.ask(A, 2, PUT, at=2099), ErrorCode.SESSION_EXPIRED)
        self.assertIsNone(self.machine.next_deadline_ms())
        self.assertEqual(self.machine.sessions.kept_bytes, 0)

    def test_a_waiting_session_does_not_expire(self):
        self.start(session_expiry_ms=1000)
        self.assertIsNone(self.ask(A, 1, commands.encode_dequeue(b"q", 1, 5000), at=0))
        self.assertEqual(self.machine.next_deadline_ms(), 5000)
        self.internal(commands.encode_time(), at=4999)
        self.assertEqual(self.machine.last_sequence(A), 1)
        _, completions = self.internal(commands.encode_time(), at=5000)
        self.assertEqual(completions, [(A, 1, Status.EMPTY, [])])
        self.assertEqual(self.machine.next_deadline_ms(), 6000, "the reply is kept for a retry")
        self.internal(commands.encode_time(), at=6000)
        self.assertIsNone(self.machine.last_sequence(A))

    def test_expiries_of_one_entry_are_capped(self):
        self.start(session_expiry_ms=1000, expiries_per_entry_max=2)
        for number in range(5):
            self.ask(bytes([number]) * 15 + b"s", 1, PUT, at=number)
        left = []
        while self.machine.next_deadline_ms() is not None:
            self.internal(commands.encode_time(), at=5000)
            left.append(len(self.machine.sessions.by_id))
            if left[-1]:
                self.assertLess(self.machine.next_deadline_ms(), 5000)
        self.assertEqual(left, [3, 1, 0])

    def test_limits_refuse_new_sessions_and_evict_none(self):
        self.start(sessions_max=2)
        self.ask(A, 1, PUT)
        self.ask(B, 1, PUT)
        self.assert_refused(self.ask(C, 1, PUT), ErrorCode.SESSION_LIMIT)
        self.assertIsNone(self.machine.last_sequence(C))
        self.ask(A, 2, PUT)
        self.assertEqual(len(self.contents()), 3)

    def test_kept_replies_count(self):
        self.start(kept_reply_bytes_max=1000)
        self.enqueue(b"q", b"x" * 900)
        self.ask(A, 1, TAKE)
        self.assert_refused(self.ask(B, 1, PUT), ErrorCode.SESSION_LIMIT)
        self.ask(A, 2, PUT, acknowledged=1)
        self.assertIsNotNone(self.ask(B, 1, PUT).first_message_id)
