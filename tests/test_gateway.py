"""Gateway without sockets: what is admitted, what a retry finds, who is told what at the end."""

import unittest

from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.gateway import ERROR_TEXT_MAX, Gateway
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import commands, queuecommands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind

SESSION = b"s" * 16
OTHER = b"t" * 16


class GatewayCase(unittest.TestCase):
    """A gateway at a machine; `commit` plays the log."""

    def setUp(self):
        self.config = Config()
        self.machine = Machine(self.config.machine, self.config.wire)
        self.gateway = Gateway(self.config.gateway, self.config.wire, self.machine)
        self.index = 0
        self.time_ms = 0
        for client in ("a", "b"):
            self.gateway.client_opened(client)

    def send(self, first=1, acknowledged=0, command=None, client="a", request_id=7,
             session=SESSION, count=1, confirmed=False):
        """A request with `count` equal commands; whether it was done with."""
        command = command or commands.encode_enqueue(b"q", [b"m%d" % first])
        return self.gateway.request(client, request_id, requests.encode_request(
            session, first, acknowledged, [command] * count), confirmed)

    def propose(self, term=1):
        """What waits becomes the next entry, not applied yet."""
        bodies, waiters = self.gateway.take_batch()
        self.index += 1
        self.gateway.proposed(self.index, term, waiters)
        return encode_entry(self.index, term, EntryKind.BATCH,
                            commands.encode_batch(self.time_ms, bodies))

    def apply(self, entry):
        """Apply an entry."""
        self.gateway.applied(entry.index, entry.term, self.machine.apply(entry))

    def commit(self, term=1):
        """Propose and apply."""
        self.apply(self.propose(term))

    def answers(self):
        """The answers since the last call."""
        answers, self.gateway.answers = self.gateway.answers, []
        return answers

    def assert_refused(self, code, client="a", request_id=7):
        """Exactly one answer, an ERROR; gives the leader's address in it."""
        (answer,) = self.answers()
        self.assertEqual(answer[:3], (client, request_id, Kind.ERROR))
        found, leader, _ = requests.decode_error(answer[3])
        self.assertEqual(ErrorCode(found), code)
        return leader

    def assert_replied(self, client="a", request_id=7):
        """Exactly one answer, a REPLY; gives it."""
        (answer,) = self.answers()
        self.assertEqual(answer[:3], (client, request_id, Kind.REPLY))
        return requests.decode_reply(answer[3])


class TestSessions(GatewayCase):
    """A session's requests are admitted in their order, each once."""

    def test_next_is_admitted_and_answered(self):
        self.send(1)
        self.commit()
        self.assertEqual(self.assert_replied().first_message_id, 1)
        self.send(2, 1)
        self.commit()
        self.assertEqual(self.assert_replied().first_message_id, 2)

    def test_many_in_flight(self):
        for first in (1, 3, 5):
            self.send(first, count=2, request_id=first)
        self.commit()
        self.assertEqual([answer[1] for answer in self.answers()], [1, 3, 5])

    def test_a_gap_is_out_of_order(self):
        self.send(1)
        self.send(3)
        self.assert_refused(ErrorCode.OUT_OF_ORDER)
        self.commit()
        self.answers()
        self.send(4)
        self.assert_refused(ErrorCode.OUT_OF_ORDER)

    def test_unknown_session_that_had_replies_is_expired(self):
        self.assertFalse(self.send(5, acknowledged=4))
        self.assertEqual(self.answers(), [])        # another leader may have opened it
        self.assertTrue(self.send(5, acknowledged=4, confirmed=True))
        self.assert_refused(ErrorCode.SESSION_EXPIRED)

    def test_retry_in_flight_attaches_to_its_waiter(self):
        self.send(1, request_id=1)
        entry = self.propose()
        self.send(1, client="b", request_id=2)
        self.assertEqual(self.answers(), [])
        self.assertTrue(not self.gateway.wants_batch(True))     # not proposed twice
        self.apply(entry)
        self.assert_replied("b", 2)
        self.assertEqual(self.machine.executor.next_message_id, 2)

    def test_retry_before_proposal_attaches_too(self):
        self.send(1, request_id=1)
        self.send(1, client="b", request_id=2)
        self.commit()
        self.assert_replied("b", 2)

    def test_retry_after_apply_gets_the_kept_reply(self):
        self.send(1)
        self.commit()
        first = self.answers()[0][3]
        self.send(1, client="b", request_id=9)
        self.assertEqual(self.answers(), [("b", 9, Kind.REPLY, first)])

    def test_acknowledged_reply_is_gone(self):
        self.send(1)
        self.commit()
        self.send(2, acknowledged=1)
        self.commit()
        self.answers()
        self.send(1)
        self.assert_refused(ErrorCode.ALREADY_ACKNOWLEDGED)

    def test_no_session_is_never_held_back(self):
        for _ in range(3):
            self.send(1, session=requests.NO_SESSION)
        self.commit()
        self.assertEqual(len(self.answers()), 3)

    def test_busy_does_not_move_next(self):
        self.gateway.waiting_bytes = self.config.gateway.waiting_bytes_max + 1
        self.send(1)
        self.assert_refused(ErrorCode.BUSY)
        self.gateway.waiting_bytes = 0
        self.send(1)
        self.commit()
        self.assert_replied()

    def test_bodies_that_cannot_be(self):
        for body in (b"", b"x" * 35, requests.encode_request(SESSION, 0, 0, [b""]),
                     requests.encode_request(SESSION, 1, 0, []),
                     requests.encode_request(requests.INTERNAL_SESSION, 1, 0, [b"x"])):
            with self.subTest(body=body):
                self.gateway.request("a", 7, body)
                self.assert_refused(ErrorCode.BAD_REQUEST)
        self.gateway.request("a", 7, bytes(self.config.wire.request_bytes_max + 1))
        self.assert_refused(ErrorCode.TOO_LARGE)
        self.assertTrue(self.gateway.is_idle)

    def test_text_of_an_error_always_fits(self):
        self.gateway.refuse("a", 7, ErrorCode.BUSY, "é" * 70_000)
        text = requests.decode_error(self.answers()[0][3])[2]
        self.assertEqual(len(text), ERROR_TEXT_MAX)


class TestBatches(GatewayCase):
    """What becomes one entry."""

    def test_frames_of_a_batch_are_bounded(self):
        self.config.gateway.batch_frames_max = 3
        for first in range(1, 8):
            self.send(first)
        sizes = []
        while self.gateway.wants_batch(True):
            sizes.append(len(self.gateway.take_batch()[0]))
        self.assertEqual(sizes, [3, 3, 1])
        self.assertEqual(self.gateway.waiting_bytes, 0)

    def test_bytes_of_a_batch_are_bounded(self):
        self.config.gateway.batch_bytes_max = 1000
        command = commands.encode_enqueue(b"q", [bytes(400)])
        for first in range(1, 6):
            self.send(first, command=command)
        sizes = []
        while self.gateway.wants_batch(True):
            sizes.append(len(self.gateway.take_batch()[0]))
        self.assertEqual(sizes, [3, 2])     # it stops growing once the bound is reached

    def test_so_is_the_work_that_a_batch_asks_for(self):
        """What leases ten thousand messages in a few bytes does not share its entry with others."""
        self.send(1, command=commands.encode_enqueue(b"q", [b"m"] * 10_000))
        self.commit()
        for first, queue in enumerate((b"empty", b"empty", b"q", b"q", b"q"), 2):
            self.send(first, command=queuecommands.encode_lease(queue, 1000, 10_000))
        sizes = []
        while self.gateway.wants_batch(True):
            sizes.append(len(self.gateway.take_batch()[0]))
        self.assertEqual(sizes, [3, 1, 1])
        self.assertEqual((self.gateway.waiting_bytes, self.gateway._waiting_weight), (0, 0))

    def test_waits_for_a_busy_disk_unless_there_is_much(self):
        self.send(1)
        self.assertFalse(self.gateway.wants_batch(False))
        self.assertTrue(self.gateway.wants_batch(True))
        self.send(2, command=commands.encode_enqueue(
            b"q", [bytes(self.config.gateway.eager_bytes)]))
        self.assertTrue(self.gateway.wants_batch(False))

    def test_order_of_arrival(self):
        self.send(1)
        self.send(1, session=OTHER, client="b")
        self.send(2)
        bodies, _ = self.gateway.take_batch()
        heads = [requests.decode_request_head(body)[:2] for body in bodies]
        self.assertEqual(heads, [(SESSION, 1), (OTHER, 1), (SESSION, 2)])


class TestWaits(GatewayCase):
    """Dequeues that wait."""

    WAIT = commands.encode_dequeue(b"q", 1, 1000)

    def begin(self, client="a"):
        self.send(1, command=self.WAIT, client=client)
        self.commit()
        self.assertEqual(self.answers(), [])

    def status(self, reply):
        """The only result's status."""
        return reply.results[0][0]

    def test_a_message_ends_it(self):
        self.begin()
        self.send(1, session=OTHER, client="b", request_id=3)
        self.commit()
        answers = {answer[:2]: requests.decode_reply(answer[3]) for answer in self.answers()}
        self.assertEqual(set(answers), {("a", 7), ("b", 3)})
        self.assertEqual(self.status(answers["a", 7]), Status.OK)

    def test_its_deadline_ends_it(self):
        self.begin()
        self.gateway.time_passes()
        self.time_ms = 1000
        self.commit()
        self.assertEqual(self.status(self.assert_replied()), Status.EMPTY)

    def test_time_is_carried_by_a_batch_that_is_on_its_way(self):
        self.begin()
        self.send(1, session=OTHER)
        self.gateway.time_passes()
        self.assertEqual(len(self.gateway.take_batch()[0]), 1)

    def test_retry_takes_the_place(self):
        self.begin()
        self.send(1, command=self.WAIT, client="b", request_id=8)
        self.assertEqual(self.answers(), [])
        self.gateway.client_gone("a")       # the older connection: nothing is cancelled
        self.assertTrue(self.gateway.is_idle)
        self.send(1, session=OTHER, client="b", request_id=3)
        self.commit()
        self.assertIn(("b", 8), [answer[:2] for answer in self.answers()])

    def test_end_of_the_connection_cancels(self):
        self.begin()
        self.gateway.client_gone("a")
        self.commit()
        self.assertEqual(self.machine.waits(), [])
        self.answers()
        self.gateway.client_opened("c")     # it returns and learns that nothing was taken
        self.send(1, command=self.WAIT, client="c")
        self.assertEqual(self.status(self.assert_replied("c")), Status.CANCELLED)

    def test_end_of_the_connection_before_the_apply_cancels(self):
        self.send(1, command=self.WAIT)
        entry = self.propose()
        self.gateway.client_gone("a")
        self.apply(entry)
        self.commit()
        self.assertEqual(self.machine.waits(), [])

    def test_orphans_of_an_earlier_leader(self):
        self.begin()
        self.send(1, command=self.WAIT, client="b", session=OTHER)
        self.commit()
        self.gateway.close("")
        self.answers()
        self.send(1, command=self.WAIT, client="b", session=OTHER, request_id=4)  # came back
        self.assertEqual(self.gateway.cancel_orphans(), 1)
        self.commit()
        self.assertEqual([wait[0] for wait in self.machine.waits()], [OTHER])


class TestEndOfLeadership(GatewayCase):
    """Everybody who waits is told, and told the truth."""

    def test_close_tells_what_is_known(self):
        self.send(1, request_id=1)
        self.propose()
        self.send(2, request_id=2)
        self.gateway.close("127.0.0.1:5002")
        found = {request_id: requests.decode_error(body)
                 for _, request_id, _, body in self.answers()}
        self.assertEqual(found[1][:2], (ErrorCode.LEADERSHIP_LOST, "127.0.0.1:5002"))
        self.assertEqual(found[2][:2], (ErrorCode.NOT_LEADER, "127.0.0.1:5002"))
        self.assertTrue(self.gateway.is_idle)
        self.assertEqual(self.gateway.waiting_bytes, 0)

    def test_close_tells_waiting_dequeues(self):
        self.send(1, command=TestWaits.WAIT)
        self.commit()
        self.gateway.close("")
        self.assert_refused(ErrorCode.LEADERSHIP_LOST)
        self.assertEqual(len(self.machine.waits()), 1)      # the wait itself goes on

    def test_after_close_nobody_is_answered_by_an_apply(self):
        self.send(1)
        entry = self.propose()
        self.gateway.close("")
        self.answers()
        self.apply(entry)
        self.assertEqual(self.answers(), [])
        self.send(1, request_id=8)      # leading again: the kept reply
        self.assert_replied(request_id=8)

    def test_another_terms_entry(self):
        self.send(1)
        self.propose(term=1)
        self.apply(encode_entry(self.index, 2, EntryKind.EMPTY, b""))
        self.assert_refused(ErrorCode.LEADERSHIP_LOST)
        self.send(1, request_id=8)      # sent again: admitted anew, not attached to what is gone
        self.commit(term=2)
        self.assert_replied(request_id=8)

    def test_waiter_of_a_dead_client_costs_nothing(self):
        self.send(1)
        entry = self.propose()
        self.gateway.client_gone("a")
        self.apply(entry)
        self.assertEqual(len(self.answers()), 1)        # to a connection that is closed
        self.assertTrue(self.gateway.is_idle)


if __name__ == "__main__":
    unittest.main()
