"""Leased deliveries: receipts, their ends, what comes back and where, and dead letters."""

from raftnet.wire import commands, queuecommands, queueresults, requests
from raftnet.wire.commands import Status
from raftnet.wire.queuecommands import Setting
from raftnet.wire.queueresults import Leased, Outcome, Reason
from tests.machine.driver import A, B, MachineCase
from tests.machine.test_state import copy_of

CLOCK = commands.encode_time()
DONE, STALE, DEAD_LETTERED = Outcome


class QueueCase(MachineCase):
    """Words for the commands that came with leases."""

    def one(self, command: bytes, at: int | None = None) -> tuple[int, bytes]:
        """(status, payload) of a command alone in its request."""
        reply = self.ask(requests.NO_SESSION, 1, command, at=at)
        if reply.first_message_id is not None:
            return Status.OK, commands.encode_enqueue_result(reply.first_message_id)
        return reply.results[0]

    def fine(self, command: bytes, at: int | None = None) -> bytes:
        """The payload of one that ends with OK."""
        status, payload = self.one(command, at)
        self.assertEqual(status, Status.OK, payload)
        return payload

    def put(self, *messages: bytes, queue: bytes = b"q", **how) -> list[tuple[int, bool]]:
        return queueresults.decode_enqueue_with_result(self.fine(
            queuecommands.encode_enqueue_with(queue, list(messages), **how)))

    def lease(self, count: int = 1, queue: bytes = b"q", lease_ms: int = 100,
              at: int | None = None, consumer: bytes = b"me") -> list[Leased]:
        return queueresults.decode_lease_result(self.fine(
            queuecommands.encode_lease(queue, lease_ms, count, 0, consumer), at))

    def outcomes(self, command: bytes, at: int | None = None) -> list[int]:
        return queueresults.decode_outcomes_result(self.fine(command, at))

    def nack(self, leased: Leased, delay_ms: int | None = 0, reason: bytes = b"",
             at: int | None = None) -> int:
        (outcome,) = self.outcomes(
            queuecommands.encode_nack([leased[:2]], delay_ms, reason), at)
        return outcome

    def ack(self, *leased: Leased, at: int | None = None) -> list[int]:
        return self.outcomes(queuecommands.encode_ack([each[:2] for each in leased]), at)

    def configure(self, queue: bytes = b"q", **settings) -> None:
        self.fine(queuecommands.encode_configure(
            queue, {Setting[name.upper()]: value for name, value in settings.items()}))

    def described(self, queue: bytes = b"q") -> queueresults.Description:
        return queueresults.decode_describe_result(self.fine(
            queuecommands.encode_describe(queue)))

    def inspected(self, queue: bytes = b"q") -> list[queueresults.Inspected]:
        status, payload = self.one(queuecommands.encode_inspect(queue, 100))
        return queueresults.decode_inspect_result(payload)[1] if status == Status.OK else []

    def bodies(self, queue: bytes = b"q") -> list[bytes]:
        return [each.message for each in self.inspected(queue)]

    def clock(self, at: int) -> list:
        """Completions of an entry that is nothing but a stamp."""
        return self.internal(CLOCK, at=at)[1]


class LeaseTest(QueueCase):

    def test_leased_is_out_and_acknowledged_is_gone(self):
        self.enqueue(b"q", b"1", b"2", b"3")
        first, second = self.lease(2)
        self.assertEqual((first, second), (Leased(1, 1, 1, b"1"), Leased(2, 2, 1, b"2")))
        self.assertEqual(self.bodies(), [b"3"])
        described = self.described()
        self.assertEqual((described.ready, described.leased, described.held_bytes), (1, 2, 3))
        self.assertEqual(self.ack(first, first), [DONE, STALE])
        self.assertEqual(self.ack(second), [DONE])
        self.assertEqual(self.described().leased, 0)
        self.assertTrue(self.machine.executor.queues.by_name[b"q"].plain())
        self.lease()
        self.assertEqual(self.one(queuecommands.encode_lease(b"q", 9))[0], Status.EMPTY)

    def test_the_order_in_which_queues_are_served(self):
        # The simulator's seed 76000080: that of the first change of each, whatever it was.
        ack, nack = queuecommands.encode_ack, queuecommands.encode_nack
        for commands_of, waiting_at in (
                (lambda a, b, c: [ack([a]), nack([c]), nack([b])], (b"a", b"b")),
                (lambda a, b, c: [nack([a]), nack([c]), nack([b])], (b"a", b"b")),
                (lambda a, b, c: [nack([a, b])], (b"a", b"a.dead"))):
            self.start()
            self.enqueue(b"a", b"1", b"2")
            self.enqueue(b"b", b"3")
            limit = queuecommands.encode_configure(b"a", {Setting.DELIVERY_LIMIT: 2})
            self.fine(limit)
            self.outcomes(nack([self.lease(queue=b"a")[0][:2]]))     # the second time it is dead
            a, b, c = [leased[:2] for leased in (*self.lease(2, queue=b"a"),
                                                 *self.lease(queue=b"b"))]
            for session, queue in zip((A, B), waiting_at):
                self.assertIsNone(self.ask(session, 1, queuecommands.encode_lease(
                    queue, 50, 1, 1_000)))
            listed = commands_of(a, b, c)
            applied = self.apply(requests.encode_request(
                requests.NO_SESSION, 1, 0,
                [commands.encode_execute(listed)] if len(listed) > 1 else listed))
            self.assertEqual([session for session, _, _ in applied.completions], [A, B])

    def test_a_queue_with_leases_alone_exists_until_they_end(self):
        self.enqueue(b"q", b"1")
        (leased,) = self.lease()
        self.assertIn(b"q", self.machine.executor.queues.by_name)
        self.assertEqual(commands.decode_queue_list(self.fine(commands.encode_queues())),
                         [(b"q", 0)])
        self.ack(leased)
        self.assertEqual(self.machine.executor.queues.by_name, {})

    def test_an_expired_lease_comes_back_to_the_head_and_its_receipt_is_refused(self):
        self.enqueue(b"q", b"1", b"2", b"3")
        first, second = self.lease(2, at=0)
        self.assertEqual(self.machine.next_deadline_ms(), 100)
        self.clock(99)
        self.assertEqual(self.bodies(), [b"3"])
        self.clock(100)
        self.assertEqual(self.bodies(), [b"1", b"2", b"3"])
        self.assertEqual(self.ack(first), [STALE])
        (again,) = self.lease()
        self.assertEqual(again, Leased(1, 3, 2, b"1"))
        self.assertEqual(self.ack(first, again), [STALE, DONE], "only the delivery under way")
        (event,) = self.inspected()[0].history
        self.assertEqual(event, (0, 100, self.machine.applied_index - 5, 1,
                                 Reason.LEASE_EXPIRED, b"me", b""))

    def test_a_lease_past_its_deadline_has_ended_before_that_is_carried_out(self):
        self.start(expiries_per_entry_max=1)
        self.enqueue(b"q", b"1", b"2")
        first, second = self.lease(2, at=0)
        self.assertEqual(self.ack(second, at=100), [STALE])
        self.assertEqual(self.bodies(), [b"1", b"2"])

    def test_extend_counts_from_now(self):
        self.enqueue(b"q", b"1")
        (leased,) = self.lease(at=0)
        longer = queuecommands.encode_extend([leased[:2]], 500)
        self.assertEqual(self.outcomes(longer, at=50), [DONE])
        self.assertEqual(self.machine.next_deadline_ms(), 550)
        self.assertEqual(self.outcomes(queuecommands.encode_extend([leased[:2]], 10)), [DONE])
        self.assertEqual(self.machine.next_deadline_ms(), 60)
        self.clock(60)
        self.assertEqual(self.outcomes(longer), [STALE])
        self.assertEqual(self.bodies(), [b"1"])

    def test_a_nacked_message_returns_to_its_place(self):
        self.enqueue(b"q", b"1", b"2", b"3", b"4")
        first, second, third = self.lease(3)
        self.assertEqual([self.nack(each) for each in (third, first)], [DONE, DONE])
        self.assertEqual(self.bodies(), [b"1", b"3", b"4"])
        self.nack(second)
        self.assertEqual([each[3] for each in self.lease(4)], [b"1", b"2", b"3", b"4"])

    def test_a_nack_with_delay_and_with_back_off(self):
        self.enqueue(b"q", b"1", b"2")
        self.configure(backoff_ms=10, backoff_max_ms=35)
        (leased,) = self.lease(at=0)
        self.nack(leased, 50)
        self.assertEqual((self.bodies(), self.described().delayed), ([b"2"], 1))
        self.clock(50)
        self.assertEqual(self.bodies(), [b"2", b"1"], "it is ready at the end")
        self.one(commands.encode_dequeue(b"q"))
        delays = []
        for _ in range(4):
            now_ms = self.machine.time_ms
            self.nack(self.lease()[0], None)
            delays.append(self.machine.next_deadline_ms() - now_ms)
            self.clock(self.machine.next_deadline_ms())
        self.assertEqual(delays, [20, 35, 35, 35])

    def test_leases_that_wait_are_served_in_the_order_of_asking(self):
        take = commands.encode_dequeue(b"q", 1, 1000)
        self.assertIsNone(self.ask(A, 1, queuecommands.encode_lease(b"q", 50, 2, 1000, b"a")))
        self.assertIsNone(self.ask(B, 1, take))
        applied = self.apply(requests.encode_request(
            requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"1", b"2", b"3"])]), at=7)
        ((_, _, lease), (_, _, taken)) = applied.completions
        leased = queueresults.decode_lease_result(requests.decode_reply(lease).results[0][1])
        self.assertEqual(leased, [Leased(1, 1, 1, b"1"), Leased(2, 2, 1, b"2")])
        self.assertEqual(self.texts(requests.decode_reply(taken).results[0][1]), [b"3"])
        self.assertEqual(self.machine.next_deadline_ms(), 57)
        self.assertIsNone(self.ask(B, 2, take))
        self.assertEqual(self.clock(57)[0][1:], (2, Status.OK, [b"1"]))
        self.assertEqual(self.bodies(), [b"2"])

    def test_expiries_of_one_entry_are_capped(self):
        self.start(expiries_per_entry_max=2)
        self.enqueue(b"q", *[b"m"] * 5)
        self.lease(5, at=0)
        left = []
        while self.machine.executor.leases.by_delivery:
            self.clock(100)
            left.append(len(self.machine.executor.leases.by_delivery))
        self.assertEqual(left, [3, 1, 0])

    def test_limits(self):
        self.start(lease_ms_max=1000, leases_max=2, receipts_per_command_max=2)
        self.enqueue(b"q", *[b"m"] * 5)
        for lease_ms in (0, 1001):
            self.assertEqual(self.one(queuecommands.encode_lease(b"q", lease_ms)),
                             (Status.LIMIT, b"lease_ms: 1 to lease_ms_max"))
        self.assertEqual(len(self.lease(5)), 2)
        self.assertEqual(self.one(queuecommands.encode_lease(b"q", 5)),
                         (Status.LIMIT, b"leases_max"))
        self.assertEqual(self.one(queuecommands.encode_ack([(1, 1)] * 3)),
                         (Status.LIMIT, b"receipts_per_command_max"))

    def test_what_one_request_leases_is_bounded(self):
        """Empty messages, of which a reply has room for a hundred thousand."""
        self.start(purge_count_max=5)
        self.enqueue(b"q", *[b""] * 20)
        lease = queuecommands.encode_lease(b"q", 100, 3)
        results = self.do(lease, lease, lease)
        self.assertEqual([len(queueresults.decode_lease_result(payload))
                          for status, payload in results if status == Status.OK], [3, 2])
        self.assertEqual(results[2], (Status.REPLY_FULL, b""))
        self.assertEqual(len(self.lease(9)), 5, "the next request has an allowance of its own")

    def test_leases_tells_of_the_oldest(self):
        self.enqueue(b"q", *[b"m"] * 4)
        leased = self.lease(3, at=5)
        self.nack(leased[0])
        self.lease(at=9, consumer=b"you")
        now_ms, found = queueresults.decode_leases_result(self.fine(
            queuecommands.encode_leases(b"q", 2)))
        self.assertEqual((now_ms, found), (9, [(2, 2, 105, 5, 1, b"me"), (3, 3, 105, 5, 1, b"me")]))
        self.assertEqual(self.machine.read(queuecommands.encode_leases(b"q", 9))[0], Status.OK)


class LoadedHistoryTest(QueueCase):

    def test_equal_texts_are_one_object(self):
        self.enqueue(b"q", b"1", b"2")
        for leased in self.lease(2, consumer=b"somebody"):
            self.nack(leased, reason=b"because")
        special = copy_of(self.machine).executor.queues.by_name[b"q"].special
        first, second = (message.history[0] for _, message in special)
        self.assertEqual((first.consumer, first.text), (b"somebody", b"because"))
        self.assertIs(first.consumer, second.consumer)
        self.assertIs(first.text, second.text)


class DeadLetterTest(QueueCase):

    def test_a_poison_message_ends_with_its_history(self):
        self.configure(delivery_limit=3)
        self.enqueue(b"q", b"poison", b"fine")
        (leased,) = self.lease(at=0)
        self.nack(leased, reason=b"cannot read it", at=5)
        self.lease(at=10)
        self.clock(110)
        (leased,) = self.lease()
        self.assertEqual(self.nack(leased, at=115), DEAD_LETTERED)
        self.assertEqual(self.bodies(), [b"fine"])
        (dead,) = self.inspected(b"q.dead")
        self.assertEqual((dead.id, dead.deliveries, dead.origin, dead.message),
                         (1, 0, b"q", b"poison"))
        self.assertEqual([(event.taken_ms, event.ended_ms, event.deliveries, event.reason,
                           event.consumer, event.text) for event in dead.history],
                         [(0, 5, 1, Reason.NACKED, b"me", b"cannot read it"),
                          (10, 110, 2, Reason.LEASE_EXPIRED, b"me", b""),
                          (110, 115, 3, Reason.NACKED, b"me", b"")])
        self.assertEqual(self.one(commands.encode_dequeue(b"q.dead")),
                         (Status.OK, commands.encode_messages([(1, b"poison")])))

    def test_the_default_limit_and_where_there_is_none(self):
        long = b"x" * 251
        for queue in (b"q", b"q.dead", long):
            self.enqueue(queue, b"m")
            for _ in range(20):
                (leased,) = self.lease(queue=queue)
                outcome = self.nack(leased)
            self.assertEqual(outcome, DEAD_LETTERED if queue == b"q" else DONE, queue)
        self.assertEqual(len(self.bodies(b"q.dead")), 2)
        self.assertEqual(len(self.inspected(long)[0].history), 16)

    def test_redrive(self):
        self.configure(delivery_limit=1, dead_letter=b"d")
        self.configure(b"other", delivery_limit=1, dead_letter=b"d")
        self.enqueue(b"q", b"1", b"2")
        self.enqueue(b"other", b"3")
        self.enqueue(b"d", b"never dead")
        for queue in (b"q", b"other", b"q"):
            self.nack(self.lease(queue=queue)[0])
        self.assertEqual(self.bodies(b"d"), [b"never dead", b"1", b"3", b"2"])

        def redrive(*how) -> tuple[int, int]:
            return queueresults.decode_redrive_result(self.fine(
                queuecommands.encode_redrive(b"d", *how)))
        self.assertEqual(redrive(b"", 2), (2, 2))
        self.assertEqual((self.bodies(), self.bodies(b"other")), ([b"1"], [b"3"]))
        back = self.inspected()[0]
        self.assertEqual((back.id, back.deliveries, back.origin), (1, 0, b""))
        self.assertEqual([event.reason for event in back.history],
                         [Reason.NACKED, Reason.REDRIVEN])
        self.assertEqual(redrive(), (1, 1))
        self.assertEqual(redrive(), (0, 1), "what never was a dead letter stays")
        self.assertEqual(redrive(b"somewhere"), (1, 0))
        self.assertEqual(redrive(), (0, 0))
        self.assertEqual(self.one(queuecommands.encode_redrive(b"d", b"d"))[0], Status.LIMIT)

    def test_a_dead_letter_serves_who_waits_for_it(self):
        self.configure(delivery_limit=1)
        self.enqueue(b"q", b"1")
        self.ask(A, 1, commands.encode_dequeue(b"q.dead", 1, 1000))
        self.lease(at=0)
        self.assertEqual(self.clock(100), [(A, 1, Status.OK, [b"1"])])
        self.assertNotIn(b"q.dead", self.machine.executor.queues.by_name)
