"""ClientSession and the single enqueue encoder: no socket anywhere."""

import time
import unittest

from raftnet.client import session as sessions
from raftnet.client.session import ClientSession, enqueue_encoder
from raftnet.errors import ErrorCode, MalformedError
from raftnet.wire import commands, requests
from raftnet.wire.frames import FrameReader, Kind

COMMAND = commands.encode_enqueue(b"q", [b"m"])


def frames_of(data: bytes) -> list[tuple[int, tuple, bytes]]:
    """(request id, head, body) of each REQUEST in `data`."""
    return [(request_id, requests.decode_request_head(body), body)
            for _, request_id, body in FrameReader().feed(data)]


def error(code: int, leader: str = "") -> bytes:
    return requests.encode_error(code, "text", leader)


class SessionTest(unittest.TestCase):
    def setUp(self):
        self.session = ClientSession(b"s" * 16)

    def sent(self, now: float = 0.0) -> list[tuple[int, tuple, bytes]]:
        return frames_of(self.session.output(now))

    def submit_frames(self, count: int) -> list[tuple[int, tuple, bytes]]:
        """`count` frames of one command each, sent."""
        found = []
        for _ in range(count):
            self.session.submit(COMMAND)
            found += self.sent()
        return found

    def reply(self, request_id: int, head: tuple, message_id: int = 100):
        return self.session.receive(Kind.REPLY, request_id, requests.encode_reply_enqueued(
            head[1], head[3], message_id))

    def test_what_waits_becomes_one_frame(self):
        self.assertEqual([self.session.submit(COMMAND) for _ in range(3)], [1, 2, 3])
        ((_, head, body),) = self.sent()
        self.assertEqual(head, (b"s" * 16, 1, 0, 3))
        self.assertEqual(body[requests.REQUEST_HEAD_BYTES:], COMMAND * 3)
        self.assertEqual(self.session.output(0.0), b"")

    def test_submit_many_is_submit_for_each(self):
        self.assertEqual(self.session.submit_many([COMMAND] * 2), 1)
        self.assertEqual(self.session.submit_many([COMMAND] * 1500), 3)
        self.assertEqual(self.session.submit(COMMAND), 1503)
        heads = [head for _, head, _ in self.sent()]
        self.assertEqual([(head[1], head[3]) for head in heads], [(1, 1000), (1001, 503)])

    def test_frames_are_bounded_in_commands(self):
        for _ in range(sessions.FRAME_COMMANDS_MAX + 1):
            self.session.submit(COMMAND)
        self.assertTrue(self.session.full)
        heads = [head for _, head, _ in self.sent()]
        self.assertEqual([(head[1], head[3]) for head in heads], [(1, 1000), (1001, 1)])
        self.assertFalse(self.session.full)

    def test_frames_are_bounded_in_bytes_and_a_large_message_is_alone(self):
        large = commands.encode_enqueue(b"q", [bytes(1024 * 1024)])
        half = commands.encode_enqueue(b"q", [bytes(150 * 1024)])
        for command in (half, half, large, COMMAND, COMMAND):
            self.session.submit(command)
        heads = [head for _, head, _ in self.sent()]
        self.assertEqual([(head[1], head[3]) for head in heads],
                         [(1, 1), (2, 1), (3, 1), (4, 2)])

    def test_in_flight_frames_are_bounded(self):
        found = self.submit_frames(sessions.IN_FLIGHT_FRAMES_MAX + 5)
        self.assertEqual(len(found), sessions.IN_FLIGHT_FRAMES_MAX)
        self.reply(*found[0][:2])
        ((_, head, _),) = self.sent()
        self.assertEqual(head[1:], (65, 1, 5))

    def test_in_flight_bytes_are_bounded(self):
        for _ in range(10):
            self.session.submit(commands.encode_enqueue(b"q", [bytes(1024 * 1024)]))
        self.assertEqual(len(self.sent()), 4)

    def test_answers_come_in_order_and_acknowledge(self):
        found = self.submit_frames(3)
        self.reply(*found[1][:2])
        self.assertEqual(self.session.take_answers(), [])
        self.assertEqual(self.session.acknowledged, 0)
        self.reply(*found[0][:2])
        self.assertEqual([a.first_sequence for a in self.session.take_answers()], [1, 2])
        self.assertEqual(self.session.acknowledged, 2)
        ((_, head, _),) = self.submit_frames(1)
        self.assertEqual(head[1:3], (4, 2))

    def test_a_retry_repeats_the_bytes_after_more_was_acknowledged(self):
        first, second = self.submit_frames(2)
        self.reply(*first[:2])
        self.session.connection_lost()
        ((request_id, _, body),) = self.sent()
        self.assertEqual(body, second[2])
        self.assertNotEqual(request_id, second[0])

    def test_what_was_answered_early_is_not_sent_again(self):
        found = self.submit_frames(3)
        self.reply(*found[1][:2])
        self.session.connection_lost()
        self.assertEqual([head[1] for _, head, _ in self.sent()], [1, 3])

    def test_a_refusal_resends_everything_unanswered_once(self):
        for code in sorted(sessions.RETRY_HERE):
            with self.subTest(code=code):
                self.session = ClientSession()
                found = self.submit_frames(3)
                refusal = self.session.receive(Kind.ERROR, found[0][0], error(code))
                self.assertEqual(refusal.code, code)
                for request_id, *_ in found[1:]:
                    self.assertIsNone(self.session.receive(
                        Kind.ERROR, request_id, error(ErrorCode.OUT_OF_ORDER)))
                self.assertTrue(self.session.known)
                self.assertEqual([body for *_, body in self.sent()], [b for *_, b in found])

    def test_a_late_refusal_of_an_earlier_sending_changes_nothing(self):
        found = self.submit_frames(2)
        self.session.receive(Kind.ERROR, found[0][0], error(ErrorCode.BUSY))
        again = self.sent()
        self.assertIsNone(self.session.receive(Kind.ERROR, found[1][0],
                                               error(ErrorCode.OUT_OF_ORDER)))
        self.assertEqual(self.sent(), [])
        self.reply(*again[0][:2])
        self.reply(*again[1][:2])
        self.assertFalse(self.session.unanswered)

    def test_a_reply_to_an_earlier_sending_counts(self):
        found = self.submit_frames(2)
        self.session.receive(Kind.ERROR, found[1][0], error(ErrorCode.BUSY))
        again = self.sent()
        self.reply(*found[0][:2])
        self.assertEqual(self.session.acknowledged, 1)
        self.assertIsNone(self.reply(*again[0][:2]))
        self.assertEqual(len(self.session.take_answers()), 1)

    def test_what_waits_at_a_node_that_lives_may_be_sent_again_later(self):
        limit = sessions.RESEND_S
        # (when it gave signs of life, when the connection was lost, whether it may be sent again)
        for heard, lost, again in (((), limit - 1, True), ((), limit + 1, False),
                                   ((limit,), limit + 1, True), ((limit,), 2 * limit + 1, False),
                                   ((limit, 2 * limit), 3 * limit - 1, True)):
            with self.subTest(heard=heard, lost=lost):
                self.session = ClientSession(b"s" * 16)
                self.session.submit(COMMAND)
                self.sent(0.0)
                for asked in heard:
                    self.session.heard(asked)
                self.session.connection_lost()
                self.assertEqual((len(self.sent(lost)), self.session.overdue), (again, not again))

    def test_only_a_sign_of_life_from_behind_the_sending_counts(self):
        limit = sessions.RESEND_S
        self.session.submit(COMMAND)
        self.sent(0.0)
        self.session.connection_lost()
        self.session.heard(limit - 2)           # of a node that it was not sent to
        ((request_id, _, _),) = self.sent(limit - 1)
        self.session.heard(limit - 2)           # asked before it was sent there
        self.session.receive(Kind.ERROR, request_id, error(ErrorCode.NOT_LEADER))
        self.session.heard(limit)               # of one that does not have it
        self.session.connection_lost()
        self.assertEqual((self.sent(limit + 1), self.session.overdue), ([], True))

    def test_what_is_resumed_is_unknown_until_it_is_answered(self):
        """An earlier sending, by whoever gave us the number, may have been executed."""
        self.session = ClientSession(b"s" * 16, 5, resumed=True)
        self.assertFalse(self.session.known)
        self.session.submit(COMMAND)
        self.assertFalse(self.session.known)
        (request_id, head, _), = self.sent()
        self.session.receive(Kind.ERROR, request_id, error(ErrorCode.NOT_LEADER))
        self.assertFalse(self.session.known)
        self.session.connection_lost()
        (request_id, head, _), = self.sent()
        self.reply(request_id, head)
        self.assertTrue(self.session.known)
        self.session.submit(COMMAND)
        self.assertTrue(self.session.known, "nobody has sent that one before")

    def test_what_is_known(self):
        cases = [
            ("never sent", [], True),
            ("under way", ["send"], False),
            ("refused", ["send", ErrorCode.NOT_LEADER], True),
            ("leadership lost", ["send", ErrorCode.LEADERSHIP_LOST], False),
            ("connection lost", ["send", "lost"], False),
            ("refused after it was lost", ["send", "lost", "send", ErrorCode.NOT_LEADER], False),
            ("full disk twice", ["send", ErrorCode.DISK_FULL, "send", ErrorCode.DISK_FULL], True),
            ("expired at once", ["send", ErrorCode.SESSION_EXPIRED], True),
            ("expired after it was lost", ["send", "lost", "send", ErrorCode.SESSION_EXPIRED],
             False),
            ("acknowledged", ["send", ErrorCode.ALREADY_ACKNOWLEDGED], False),
        ]
        for name, steps, known in cases:
            with self.subTest(name):
                self.session = ClientSession()
                self.session.submit(COMMAND)
                request_id = 0
                for step in steps:
                    if step == "send":
                        ((request_id, *_),) = self.sent()
                    elif step == "lost":
                        self.session.connection_lost()
                    else:
                        self.session.receive(Kind.ERROR, request_id, error(step))
                self.assertEqual(self.session.known, known)

    def test_final_refusals_end_the_session(self):
        ((request_id, head, _),) = self.submit_frames(1)
        body = requests.encode_reply_refused(head[1], head[3], ErrorCode.SESSION_LIMIT, "full")
        refusal = self.session.receive(Kind.REPLY, request_id, body)
        self.assertEqual((refusal.code, refusal.text), (ErrorCode.SESSION_LIMIT, "full"))
        self.assertTrue(self.session.dead)

    def test_nothing_is_sent_again_after_sixty_seconds(self):
        self.session.submit(COMMAND)
        self.sent(now=100.0)
        self.session.connection_lost()
        self.assertEqual(len(self.sent(now=160.0)), 1)
        self.session.connection_lost()
        self.session.submit(COMMAND)
        self.assertEqual(self.session.output(160.1), b"")
        self.assertTrue(self.session.overdue)

    def test_resume_names_the_first_unanswered(self):
        self.submit_frames(2)
        self.assertEqual(self.session.resume, (b"s" * 16).hex() + ":1")
        resumed = ClientSession(b"s" * 16, 5)
        self.assertEqual(resumed.submit(COMMAND), 5)
        ((_, head, _),) = frames_of(resumed.output(0.0))
        self.assertEqual(head, (b"s" * 16, 5, 4, 1))

    def test_wrong_replies_are_refused(self):
        ((request_id, _, _),) = self.submit_frames(1)
        with self.assertRaises(MalformedError):
            self.session.receive(Kind.REPLY, request_id, requests.encode_reply_enqueued(1, 2, 1))
        self.assertIsNone(self.session.receive(Kind.REPLY, 999, b""))

    def test_sessions_are_random(self):
        self.assertNotEqual(ClientSession().session, ClientSession().session)

    def test_enqueue_encoder_gives_the_same_bytes(self):
        for queue in (b"q", b"n" * 255):
            encode = enqueue_encoder(queue)
            for message in (b"", b"m", bytes(range(256)) * 40):
                self.assertEqual(encode(message), commands.encode_enqueue(queue, [message]))

    def test_packing_and_replies_are_cheap(self):
        """The bound is a microsecond each; ten here, so that a busy machine does not fail it."""
        count = 50_000
        encode = enqueue_encoder(b"default")
        message = bytes(100)
        began = time.process_time()
        while count > 0:
            for _ in range(1000):
                self.session.submit(encode(message))
            for request_id, head, _ in self.sent():
                self.reply(request_id, head)
            self.session.take_answers()
            count -= 1000
        self.assertLess((time.process_time() - began) / 50_000, 20e-6)
