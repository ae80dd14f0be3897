"""TRANSACT, and EXECUTE with all commands: conditions, what undoes a list, and what it answers."""

from raftnet.wire import (commands, kvcommands, queuecommands, queueresults, requests,
                          transactions)
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.transactions import KeyCondition, LeasedCondition, QueueCondition
from tests.machine.driver import A, contents_of
from tests.machine.test_leases import QueueCase

PUT = kvcommands.encode_kv_put(b"k", b"v")
ABSENT = Condition(ConditionKind.ABSENT)


class TransactTest(QueueCase):

    def transact(self, conditions: list, *pieces: bytes) -> tuple[int, bytes]:
        return self.one(transactions.encode_transact(conditions, list(pieces)))

    def aborted(self, *pieces: bytes) -> tuple[int, int, bytes]:
        """(position, status, payload); and nothing was done."""
        before = contents_of(self.machine), self.machine.next_deadline_ms()
        status, payload = self.transact([], *pieces)
        self.assertEqual(status, Status.ABORTED)
        self.assertEqual((contents_of(self.machine), self.machine.next_deadline_ms()), before)
        return transactions.decode_aborted_result(payload)

    def test_a_step_of_a_worker(self):
        self.enqueue(b"a", b"5")
        (leased,) = self.lease(queue=b"a")
        step = (queuecommands.encode_ack([leased[:2]]), commands.encode_enqueue(b"b", [b"5"]),
                kvcommands.encode_kv_put(b"sum", b"5"))
        conditions = [KeyCondition(b"sum", ABSENT), LeasedCondition(*leased[:2]),
                      QueueCondition(b"b", 0, 0)]
        status, payload = self.transact(conditions, *step)
        self.assertEqual(status, Status.OK)
        results = commands.decode_execute_result(payload)
        self.assertEqual([status for status, _ in results], [Status.OK] * 3)
        self.assertEqual(self.bodies(b"b"), [b"5"])
        self.assertEqual(self.transact(conditions, *step),
                         (Status.CONFLICT, transactions.encode_conflict_result(0)))
        self.assertEqual(self.transact(conditions[1:], *step),
                         (Status.CONFLICT, transactions.encode_conflict_result(0)))
        self.assertEqual(self.transact(conditions[2:], *step),
                         (Status.CONFLICT, transactions.encode_conflict_result(0)))
        self.assertEqual(self.aborted(*step)[:2], (0, Status.STALE))

    def test_what_undoes_a_list(self):
        self.configure(b"full", messages_max=1)
        self.enqueue(b"full", b"1")
        self.enqueue(b"q", b"1", b"2")
        self.put(b"late", delay_ms=500, dedup_ids=[b"x"])
        (leased,) = self.lease()
        nack = queuecommands.encode_nack([leased[:2]], 70, b"why")
        for bad, status in (
                (queuecommands.encode_ack([leased[:2]]), Status.STALE),     # nacked before it
                (queuecommands.encode_extend([leased[:2], (9, 9)], 5), Status.STALE),
                (commands.encode_enqueue(b"full", [b"2"]), Status.FULL),
                (kvcommands.encode_kv_put(b"k", b"w", 0, ABSENT), Status.CONFLICT),
                (queuecommands.encode_delete_queue(b"full"), Status.IN_USE)):
            self.assertEqual(self.aborted(
                PUT, nack, self.with_all(), queuecommands.encode_purge(b"q", 5),
                queuecommands.encode_configure(b"q", {3: 5}), commands.encode_dequeue(b"none"),
                queuecommands.encode_delete_queue(b"none"), bad)[:2], (7, status))

    def with_all(self) -> bytes:
        return queuecommands.encode_enqueue_with(b"q", [b"3", b"4"], 5, 20, 30, [b"y", b""])

    def test_limits_and_room_have_a_status_of_their_own(self):
        self.start(conditions_max=1, settings_max=1, result_bytes_max=200)
        self.configure(b"a")
        self.assertEqual(self.transact([QueueCondition(b"q")] * 2, PUT),
                         (Status.LIMIT, b"conditions_max"))
        self.assertEqual(self.transact([], PUT, queuecommands.encode_configure(b"b", {})),
                         (Status.LIMIT, b"settings_max"))
        self.enqueue(b"q", b"x" * 150, b"y" * 150)
        take = queuecommands.encode_lease(b"q", 100)
        self.assertEqual(self.transact([], PUT, take, take), (Status.REPLY_FULL, b""))
        self.assertEqual(len(self.machine.executor.kv.by_key), 0)
        self.assertEqual(self.machine.executor.leases.next_delivery, 1)
        for bad in (transactions.encode_transact([], []), commands.encode_close()):
            self.assertEqual(self.transact([], PUT, bad)[0], Status.UNKNOWN)
        self.assertEqual(self.transact([], queuecommands.encode_lease(b"q", 5, 1, 100))[0],
                         Status.LIMIT)

    def test_nothing_there_does_not_undo(self):
        status, payload = self.transact([], commands.encode_dequeue(b"none"), PUT)
        self.assertEqual(status, Status.OK)
        self.assertEqual([status for status, _ in commands.decode_execute_result(payload)],
                         [Status.EMPTY, Status.OK])

    def test_changes_of_keys_are_told_and_undone_ones_are_not(self):
        piece = transactions.encode_transact([], [PUT, queuecommands.encode_ack([(1, 1)])])
        self.assertEqual(self.changes(piece), [])
        self.assertEqual(self.changes(transactions.encode_transact([], [PUT, PUT])),
                         [(1, b"k", 1, b"v"), (1, b"k", 2, b"v")])
        self.assertEqual(self.changes(commands.encode_size(b"q")), [])

    def changes(self, piece: bytes) -> list:
        body = requests.encode_request(requests.NO_SESSION, 1, 0, [piece])
        return list(self.apply(body).changes)

    def test_waiters_are_served_after_it_with_what_it_left(self):
        self.ask(A, 1, queuecommands.encode_lease(b"q", 50, 5, 1000))
        status, _ = self.transact([], commands.encode_enqueue(b"q", [b"1", b"2"]),
                                  commands.encode_dequeue(b"q"))
        self.assertEqual(status, Status.OK)
        self.assertFalse(self.machine.is_waiting(A, 1))
        reply = self.ask(A, 1, queuecommands.encode_lease(b"q", 50, 5, 1000))
        self.assertEqual(queueresults.decode_lease_result(reply.results[0][1]),
                         [(2, 1, 1, b"2")])

    def test_a_lease_and_its_end_in_one_list(self):
        self.enqueue(b"q", b"1")
        status, _ = self.transact([], queuecommands.encode_lease(b"q", 50),
                                  queuecommands.encode_nack([(1, 1)]),
                                  queuecommands.encode_lease(b"q", 50),
                                  queuecommands.encode_ack([(1, 2)]))
        self.assertEqual(status, Status.OK)
        self.assertEqual(self.machine.executor.queues.by_name, {})
