"""The reference model does what is promised: by hand, a claim a test. It is what all else is judged
by, so nothing here looks at how the machine does it."""

import unittest

from raftnet.config import MachineConfig
from raftnet.wire import commands, kvcommands, queuecommands, queueresults
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.queuecommands import Overflow, Setting
from raftnet.wire.queueresults import Outcome, Reason
from raftnet.wire.transactions import (KeyCondition, LeasedCondition, QueueCondition,
                                       decode_aborted_result, decode_conflict_result,
                                       encode_transact)
from tests.simulation.courses import A, B, Course

DONE, STALE, DEAD_LETTERED = map(int, Outcome)
ABSENT = Condition(int(ConditionKind.ABSENT))


class ReferenceTestCase(unittest.TestCase):
    """With short words for what is asked."""

    def setUp(self):
        self.course = Course()

    def ask(self, *pieces: bytes) -> list:
        """The results."""
        return self.course.ask(*pieces)

    def ask_one(self, piece: bytes) -> tuple[Status, bytes]:
        """The result of one command."""
        ((status, payload),) = self.ask(piece)
        return Status(status), payload

    def enqueue(self, *messages: bytes, queue: bytes = b"q", **how) -> list[int]:
        """Ids."""
        status, payload = self.ask_one(queuecommands.encode_enqueue_with(
            queue, list(messages), **how))
        self.assertEqual(status, Status.OK)
        return [found[0] for found in queueresults.decode_enqueue_with_result(payload)]

    def lease(self, count: int = 1, lease_ms: int = 1_000, queue: bytes = b"q") -> list[tuple]:
        """Receipts, with how often and what."""
        status, payload = self.ask_one(queuecommands.encode_lease(queue, lease_ms, count))
        return [] if status == Status.EMPTY else [
            ((found.id, found.delivery), found.deliveries, found.message)
            for found in queueresults.decode_lease_result(payload)]

    def taken(self, queue: bytes = b"q") -> list[bytes]:
        """All that is ready, in order, for good."""
        status, payload = self.ask_one(commands.encode_dequeue(queue, 100))
        return [] if status == Status.EMPTY else [
            message for _, message in commands.decode_messages(payload)]

    def outcomes(self, command: bytes) -> list[int]:
        """Of receipts."""
        return queueresults.decode_outcomes_result(self.ask_one(command)[1])

    def configure(self, queue: bytes = b"q", **settings) -> None:
        """By the names of Setting."""
        status, _ = self.ask_one(queuecommands.encode_configure(
            queue, {int(Setting[name.upper()]): value for name, value in settings.items()}))
        self.assertEqual(status, Status.OK)

    def inspect(self, queue: bytes) -> list[queueresults.Inspected]:
        """Its ready messages."""
        status, payload = self.ask_one(queuecommands.encode_inspect(queue, 100))
        return queueresults.decode_inspect_result(payload)[1] if status == Status.OK else []


class DeliveryTest(ReferenceTestCase):
    """Leases, receipts, orders."""

    def test_priorities_then_first_in_first_out(self):
        self.enqueue(b"1", b"2")
        self.enqueue(b"3", priority=7)
        self.enqueue(b"4", priority=1)
        self.enqueue(b"5", priority=7)
        self.assertEqual(self.taken(), [b"3", b"5", b"4", b"1", b"2"])

    def test_an_acknowledged_message_is_gone(self):
        self.enqueue(b"1")
        ((receipt, deliveries, _),) = self.lease()
        self.assertEqual(deliveries, 1)
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipt])), [DONE])
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipt])), [STALE])
        self.course.wait(10_000)
        self.assertEqual(self.taken(), [])

    def test_a_forgotten_message_comes_back_to_the_head(self):
        self.enqueue(b"1", b"2", b"3")
        ((receipt, _, _), (_, _, _)) = self.lease(2)
        self.course.wait(2_000)
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipt])), [STALE])
        self.assertEqual([found[1:] for found in self.lease(3)],
                         [(2, b"1"), (2, b"2"), (1, b"3")])

    def test_a_message_that_is_given_back_keeps_its_place(self):
        self.enqueue(b"1", b"2", b"3")
        receipts = [found[0] for found in self.lease(2)]
        self.outcomes(queuecommands.encode_nack([receipts[1]]))
        self.outcomes(queuecommands.encode_nack([receipts[0]]))
        self.assertEqual(self.taken(), [b"1", b"2", b"3"])

    def test_given_back_with_a_delay_it_is_the_last(self):
        self.enqueue(b"1", b"2")
        receipt = self.lease()[0][0]
        self.outcomes(queuecommands.encode_nack([receipt], 500))
        self.assertEqual(self.taken(), [b"2"])
        self.enqueue(b"3")
        self.course.wait(600)
        self.assertEqual(self.taken(), [b"3", b"1"])

    def test_back_off_doubles_up_to_its_maximum(self):
        self.configure(backoff_ms=1_000, backoff_max_ms=3_000)
        self.enqueue(b"1")
        for pause_ms in (1_000, 2_000, 3_000, 3_000):
            receipt = self.lease()[0][0]
            self.outcomes(queuecommands.encode_nack([receipt], None))
            self.course.wait(pause_ms - 200)
            self.assertEqual(self.lease(), [])
            self.course.wait(300)

    def test_an_extended_lease_ends_later(self):
        self.enqueue(b"1")
        receipt = self.lease(lease_ms=500)[0][0]
        self.assertEqual(self.outcomes(queuecommands.encode_extend([receipt], 5_000)), [DONE])
        self.course.wait(2_000)
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipt])), [DONE])

    def test_a_receipt_is_of_one_message(self):
        self.enqueue(b"1")
        (message_id, delivery), _, _ = self.lease()[0]
        self.assertEqual(self.outcomes(queuecommands.encode_ack([(message_id + 1, delivery)])),
                         [STALE])

    def test_a_wait_is_served_in_the_order_of_asking(self):
        wait = queuecommands.encode_lease(b"q", 700, 1, 60_000, b"who")
        self.assertEqual(self.course.ask(wait, session=A), [])
        self.assertEqual(self.course.ask(commands.encode_dequeue(b"q", 1, 60_000), session=B), [])
        self.course.ask(commands.encode_enqueue(b"q", [b"1", b"2"]), session=b"C" * 16)
        answers = {answer.session: answer.reply.results[0]
                   for answer in self.course.history._answers}
        self.assertEqual(queueresults.decode_lease_result(answers[A][1])[0].message, b"1")
        self.assertEqual(commands.decode_messages(answers[B][1]), [(2, b"2")])

    def test_a_wait_ends_with_its_time(self):
        self.assertEqual(self.ask(commands.encode_dequeue(b"q", 1, 500)), [])
        (answered,) = self.course.wait(1_000)
        self.assertEqual(answered.told, [(int(Status.EMPTY), b"")])


class DeadLetterTest(ReferenceTestCase):
    """Limits, times, and what becomes of messages that meet them."""

    def test_after_the_last_delivery_it_is_a_dead_letter_with_its_history(self):
        self.configure(delivery_limit=2)
        self.enqueue(b"1", priority=3)
        self.outcomes(queuecommands.encode_nack([self.lease()[0][0]], 0, b"bad"))
        self.lease()
        self.course.wait(2_000)
        (dead,) = self.inspect(b"q.dead")
        self.assertEqual((dead.id, dead.priority, dead.deliveries, dead.origin, dead.message),
                         (1, 3, 0, b"q", b"1"))
        self.assertEqual([(event.reason, event.deliveries, event.text) for event in dead.history],
                         [(Reason.NACKED, 1, b"bad"), (Reason.LEASE_EXPIRED, 2, b"")])
        self.assertEqual(dead.history[1].ended_ms - dead.history[1].taken_ms, 1_000)
        self.assertEqual(self.taken(), [])

    def test_a_nack_says_so(self):
        self.configure(delivery_limit=1)
        self.enqueue(b"1")
        self.assertEqual(self.outcomes(queuecommands.encode_nack([self.lease()[0][0]], 9_000)),
                         [DEAD_LETTERED])

    def test_sent_back_it_begins_anew(self):
        self.configure(delivery_limit=1)
        self.enqueue(b"1")
        self.outcomes(queuecommands.encode_nack([self.lease()[0][0]]))
        self.enqueue(b"2")
        self.enqueue(b"own", queue=b"q.dead")
        _, payload = self.ask_one(queuecommands.encode_redrive(b"q.dead"))
        self.assertEqual(queueresults.decode_redrive_result(payload), (1, 1))
        (two, one) = self.inspect(b"q")
        self.assertEqual((two.message, one.message, one.origin, one.deliveries),
                         (b"2", b"1", b"", 0))
        self.assertEqual([event.reason for event in one.history], [Reason.NACKED, Reason.REDRIVEN])

    def test_a_queue_of_the_dead_has_no_limit(self):
        self.enqueue(b"1", queue=b"x.dead")
        for _ in range(25):
            receipt = self.lease(queue=b"x.dead")[0][0]
            self.assertEqual(self.outcomes(queuecommands.encode_nack([receipt])), [DONE])

    def test_a_time_to_live_ends_ready_and_delayed_messages(self):
        self.enqueue(b"1", ttl_ms=500)
        self.enqueue(b"2", ttl_ms=500, delay_ms=1_000)
        self.enqueue(b"3")
        self.course.wait(700)
        self.assertEqual(self.taken(), [b"3"])
        self.course.wait(500)
        self.assertEqual(self.taken(), [b"2"])

    def test_what_has_expired_goes_to_the_dead_letters_only_where_that_was_said(self):
        self.configure(ttl_ms=100)
        self.configure(queue=b"r", ttl_ms=100, dead_letter=b"late")
        self.enqueue(b"1")
        self.enqueue(b"2", queue=b"r")
        self.course.wait(500)
        self.assertEqual(self.inspect(b"q.dead"), [])
        self.assertEqual([(found.message, found.history[0].reason)
                          for found in self.inspect(b"late")], [(b"2", Reason.TTL_EXPIRED)])

    def test_a_full_queue_refuses_or_sends_its_oldest_away(self):
        self.configure(messages_max=2)
        self.enqueue(b"1", b"2")
        self.lease()
        full, text = self.ask_one(commands.encode_enqueue(b"q", [b"3"]))
        self.assertEqual((full, text), (Status.FULL, b"messages_max"))
        self.configure(overflow=int(Overflow.DEAD_LETTER))
        self.enqueue(b"3")
        self.assertEqual([found.message for found in self.inspect(b"q")], [b"3"])
        self.assertEqual([found.message for found in self.inspect(b"q.dead")], [b"2"])
        full, _ = self.ask_one(commands.encode_enqueue(b"q", [b"4", b"5", b"6"]))
        self.assertEqual(full, Status.FULL)

    def test_an_id_is_known_again_within_its_window(self):
        self.configure(dedup_window_ms=1_000)
        self.assertEqual(self.enqueue(b"1", b"2", b"3", dedup_ids=[b"x", b"", b"x"]), [1, 2, 1])
        self.assertEqual(self.enqueue(b"4", dedup_ids=[b"x"]), [1])
        self.course.wait(2_000)
        self.assertEqual(self.enqueue(b"4", dedup_ids=[b"x"]), [3])

    def test_one_entry_carries_out_so_much_and_no_more(self):
        self.course = Course(MachineConfig(expiries_per_entry_max=2))
        self.enqueue(b"1", b"2", b"3")
        receipts = [found[0] for found in self.lease(3, 100)]
        self.course.now_ms += 1_000
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipts[2]])), [STALE])
        self.assertEqual(self.taken(), [b"1", b"2", b"3"])

    def test_purge_leaves_what_is_leased(self):
        self.enqueue(b"1", b"2", b"3")
        self.enqueue(b"4", delay_ms=9_000)
        self.lease()
        _, payload = self.ask_one(queuecommands.encode_purge(b"q", 2))
        self.assertEqual(queueresults.decode_purge_result(payload), (2, 1))
        self.course.wait(10_000)
        self.assertEqual(self.taken(), [b"1", b"4"])

    def test_only_an_empty_queue_is_deleted(self):
        self.configure(delivery_limit=3)
        self.enqueue(b"1")
        self.assertEqual(self.ask_one(queuecommands.encode_delete_queue(b"q"))[0], Status.IN_USE)
        self.taken()
        self.assertEqual(self.ask_one(queuecommands.encode_delete_queue(b"q"))[0], Status.OK)
        self.assertEqual(self.ask_one(queuecommands.encode_delete_queue(b"q"))[0], Status.EMPTY)


class KeyTest(ReferenceTestCase):
    """Keys and their versions."""

    def put(self, key: bytes, value: bytes, ttl_ms: int = 0, condition=None) -> tuple:
        """(status, version or what is there)."""
        status, payload = self.ask_one(kvcommands.encode_kv_put(
            key, value, ttl_ms, condition or kvcommands.NO_CONDITION))
        return status, (kvcommands.decode_kv_conflict(payload) if status == Status.CONFLICT
                        else kvcommands.decode_version_result(payload))

    def test_one_counter_for_all_changes(self):
        self.assertEqual(self.put(b"a", b"1"), (Status.OK, 1))
        self.assertEqual(self.put(b"b", b"1", 100), (Status.OK, 2))
        self.assertEqual(self.ask_one(kvcommands.encode_kv_delete(b"a")), (Status.OK, b"\0" * 7
                                                                           + b"\3"))
        self.course.wait(500)       # its expiry is the fourth
        self.assertEqual(self.put(b"a", b"2"), (Status.OK, 5))
        self.assertEqual(self.ask_one(kvcommands.encode_kv_get(b"b"))[0], Status.EMPTY)

    def test_conditions(self):
        held = Condition(int(ConditionKind.EQUALS), b"1")
        self.assertEqual(self.put(b"a", b"1", condition=held), (Status.CONFLICT, (0, b"")))
        self.assertEqual(self.put(b"a", b"1", condition=ABSENT), (Status.OK, 1))
        self.assertEqual(self.put(b"a", b"1", condition=ABSENT), (Status.CONFLICT, (1, b"1")))
        self.assertEqual(self.put(b"a", b"2", condition=held), (Status.OK, 2))
        for version, status in ((1, Status.CONFLICT), (2, Status.OK)):
            condition = Condition(int(ConditionKind.VERSION), version)
            self.assertEqual(self.put(b"a", b"3", condition=condition)[0], status)

    def test_pages_of_a_prefix(self):
        for key in (b"b", b"a/2", b"a/1", b"a/3"):
            self.put(key, key)
        _, payload = self.ask_one(kvcommands.encode_kv_list(b"a/", b"a/1", 1))
        self.assertEqual(kvcommands.decode_kv_list_result(payload), (True, [(b"a/2", 2, b"a/2")]))


class TransactionTest(ReferenceTestCase):
    """All or nothing."""

    def test_a_message_moves_and_is_counted(self):
        self.enqueue(b"1")
        receipt = self.lease()[0][0]
        parts = [queuecommands.encode_ack([receipt]), commands.encode_enqueue(b"r", [b"1"]),
                 kvcommands.encode_kv_put(b"sum", b"1", 0, ABSENT)]
        status, payload = self.ask_one(encode_transact([LeasedCondition(*receipt)], parts))
        self.assertEqual(status, Status.OK)
        self.assertEqual(len(commands.decode_execute_result(payload)), 3)
        self.assertEqual((self.taken(), self.taken(b"r")), ([], [b"1"]))

    def test_undone_it_leaves_nothing(self):
        self.enqueue(b"1")
        receipt = self.lease()[0][0]
        self.ask(kvcommands.encode_kv_put(b"sum", b"1"))
        parts = [queuecommands.encode_ack([receipt]), commands.encode_enqueue(b"r", [b"1"]),
                 kvcommands.encode_kv_put(b"sum", b"2", 0, ABSENT)]
        for command in (encode_transact([], parts), commands.encode_execute(parts)):
            status, payload = self.ask_one(command)
            self.assertEqual(status, Status.ABORTED)
            self.assertEqual(decode_aborted_result(payload)[:2], (2, Status.CONFLICT))
        self.assertEqual(self.taken(b"r"), [])
        self.assertEqual(self.enqueue(b"next"), [2])
        self.assertEqual(self.outcomes(queuecommands.encode_ack([receipt])), [DONE])

    def test_a_stale_receipt_undoes_it(self):
        parts = [commands.encode_enqueue(b"r", [b"1"]), queuecommands.encode_ack([(1, 1)])]
        status, payload = self.ask_one(encode_transact([], parts))
        self.assertEqual((status, decode_aborted_result(payload)[:2]),
                         (Status.ABORTED, (1, Status.STALE)))

    def test_what_cannot_be_decoded_is_found_before_conditions(self):
        broken = commands.encode_command(9)
        for parts, status in (([broken], Status.MALFORMED), ([], Status.CONFLICT)):
            command = encode_transact([LeasedCondition(1, 1)], parts)
            self.assertEqual(self.ask_one(command)[0], status)

    def test_the_first_condition_that_does_not_hold_is_named(self):
        command = encode_transact([KeyCondition(b"k", ABSENT), QueueCondition(b"q", 0, 0),
                                   QueueCondition(b"q", 1)], [])
        status, payload = self.ask_one(command)
        self.assertEqual((status, decode_conflict_result(payload)), (Status.CONFLICT, 2))

    def test_an_empty_queue_does_not_undo_it(self):
        command = encode_transact([], [commands.encode_dequeue(b"q"),
                                       commands.encode_enqueue(b"r", [b"1"])])
        self.assertEqual(self.ask_one(command)[0], Status.OK)
        self.assertEqual(self.taken(b"r"), [b"1"])


if __name__ == "__main__":
    unittest.main()
