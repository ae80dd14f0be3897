"""The straight line for requests of one command does what the general way does, bit for bit."""

import random
import struct
import unittest
from unittest import mock

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine.machine import Machine
from raftnet.machine.state import encode_state
from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation
from tests.machine.driver import A, B, C, MachineCase, state_of
from tests.machine.test_machine import apply

QUEUES = (b"a", b"b", b"w", b"long name")
TAKE = commands.encode_dequeue(b"q")


def put(message: bytes = b"m", queue: bytes = b"q") -> bytes:
    return commands.encode_enqueue(queue, [message])


def newest(machine: Machine) -> Machine:
    """At this program's version of the replicated state: else there is no straight line."""
    machine.state_version = commands.STATE_VERSION
    return machine


def general(machine: Machine) -> Machine:
    """Without the straight line, and looking for what is due at every entry."""
    machine._apply_single = lambda data, offset, end: None
    machine._due = lambda now_ms: True
    return machine


class Singles:
    """Random batches, nearly all of requests with one command each."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.now_ms = 0

    def command(self) -> bytes:
        choose, kind = self.random.choice, self.random.random()
        queue = choose(QUEUES)
        if kind < 0.5:
            return put(b"m" * choose((0, 1, 30, 40, 41)), queue)
        if kind < 0.8:
            return commands.encode_dequeue(choose((b"a", queue)), choose((1, 1, 1, 1, 2, 7)))
        if kind < 0.86:
            return commands.encode_dequeue(queue, 1, choose((20, 200)))
        both = commands.encode_execute([put(b"e", queue), commands.encode_dequeue(queue)])
        return choose((commands.encode_close(), commands.encode_size(queue), both))

    def body(self, machine: Machine) -> bytes:
        choose = self.random.choice
        session = choose((A, B, C, b"D" * 16, requests.NO_SESSION))
        first = max(0, (machine.last_sequence(session) or 0) + choose((1,) * 20 + (0, 2, -3)))
        body = bytearray(requests.encode_request(
            session, first, max(0, first - choose((1, 1, 1, 2, 5, 0, -3))),
            [self.command() for _ in range(choose((1, 1, 1, 1, 2)))]))
        if self.random.random() < 0.08:
            body[self.random.randrange(16, len(body))] = choose((0, 1, 2, 255))
        if self.random.random() < 0.03:
            body = body[:self.random.randrange(len(body))] + bytes(choose((0, 0, 3)))
        return bytes(body)

    def payload(self, machine: Machine) -> bytes:
        choose = self.random.choice
        self.now_ms += choose((0, 1, 5, 20, 20, 100))
        return commands.encode_batch(self.now_ms, [
            self.body(machine) for _ in range(choose((1, 1, 1, 2, 3)))])


class SameTest(unittest.TestCase):

    def machine(self) -> Machine:
        return newest(Machine(
            MachineConfig(session_expiry_ms=300, sessions_max=4, kept_reply_bytes_max=3000,
                          expiries_per_entry_max=2, dequeue_count_max=6, wait_ms_max=300),
            WireConfig(message_bytes_max=40, result_bytes_max=45)))

    def test_random_singles(self):
        straight = 0
        for seed in range(12):
            one, two, work = self.machine(), general(self.machine()), Singles(seed)
            single = one._apply_single

            def counted(data, offset, end, single=single):
                nonlocal straight
                reply = single(data, offset, end)
                straight += reply is not None
                return reply
            one._apply_single = counted
            for _ in range(300):
                payload = work.payload(one)
                self.assertEqual(apply(one, payload), apply(two, payload))
                self.assertEqual(one.digest, two.digest)
                self.assertEqual(one.next_deadline_ms(), two.next_deadline_ms())
            self.assertEqual(state_of(one), state_of(two))
            self.assertEqual(list(encode_state(one)), list(encode_state(two)))
        self.assertGreater(straight, 1000)


class EdgesTest(MachineCase):
    """One entry each, the same on a machine that takes the general way."""

    def setUp(self):
        super().setUp()
        self.limits = {"result_bytes_max": 50, "message_bytes_max": 40}
        self.twins = [
            newest(Machine(MachineConfig(session_expiry_ms=100), WireConfig(**self.limits)))
            for _ in range(2)]
        general(self.twins[1])
        self.machine = self.twins[0]

    def tell(self, payload: bytes) -> None:
        one, two = self.twins
        self.assertEqual(apply(one, payload), apply(two, payload))
        self.assertEqual(state_of(one), state_of(two))

    def one(self, command: bytes, first: int | None = None, session: bytes = A, at: int = 0,
            count: int | None = None, acknowledged: int = 0) -> bytes:
        """The bytes of a batch with one request."""
        first = (self.machine.last_sequence(session) or 0) + 1 if first is None else first
        body = requests.encode_request(session, first, acknowledged, [command])
        if count is not None:
            body = body[:32] + count.to_bytes(4, "big") + body[36:]
        return commands.encode_batch(max(at, self.machine.time_ms), [body])

    def test_every_cut_and_every_byte_of_a_batch(self):
        self.tell(self.one(put()))
        self.tell(self.one(TAKE))
        for command in (put(b"mm"), TAKE):
            payload = self.one(command)
            for end in range(len(payload)):
                self.tell(payload[:end])
            for place in range(8, len(payload)):
                for value in (0, 1, 2, payload[place] ^ 1, 255):
                    data = bytearray(self.one(command))
                    data[place] = value
                    self.tell(bytes(data))
            self.tell(payload + b"\0")

    def test_what_is_due_comes_first(self):
        self.tell(self.one(put(), session=A))
        self.tell(self.one(put(), session=B, at=60))
        self.tell(self.one(put(), session=B, at=99))
        self.tell(self.one(put(), session=B, at=100))
        self.assertEqual(list(self.machine.sessions.by_id), [B])
        self.tell(self.one(commands.encode_dequeue(b"w", 1, 50), session=C))
        self.tell(self.one(put(), session=B, at=149))
        self.assertEqual(len(self.machine.waits()), 1)
        self.tell(self.one(put(), session=B, at=150))
        self.assertEqual(self.machine.waits(), [])
        self.tell(self.one(put(), session=A, at=1000))
        self.assertEqual(list(self.machine.sessions.by_id), [A])

    def test_a_waiting_session_and_a_queue_that_is_waited_at(self):
        self.tell(self.one(commands.encode_dequeue(b"w", 1, 50)))
        self.tell(self.one(put()))
        self.tell(self.one(put(queue=b"w"), session=B))
        self.assertEqual(self.machine.waits(), [])
        self.tell(self.one(put(), acknowledged=9))

    def test_a_queue_without_a_name(self):
        self.tell(self.one(put()))
        self.tell(self.one(struct.pack(">IBBII", 11, 1, 0, 1, 1) + b"m"))
        self.assertEqual(list(self.machine.executor.queues.by_name), [b"q"])

    def test_a_stamp_that_goes_back_is_a_bug_of_ours(self):
        self.tell(self.one(put(), at=10))
        payload = commands.encode_batch(9, [requests.encode_request(A, 2, 0, [put()])])
        for machine in self.twins:
            with self.assertRaises(AssertionError):
                apply(machine, payload)

    def test_room(self):
        for message in (b"x" * 40, b"x" * 39, b"x" * 38, b"x" * 37):
            self.tell(self.one(put(message), session=B))
        for _ in range(6):
            self.tell(self.one(TAKE))
        self.tell(self.one(put(b"x" * 41)))

    def test_acknowledged(self):
        for acknowledged in (0, 0, 1, 0, 3, 2, 99, 0, 8, 8, 10):
            self.tell(self.one(put(), acknowledged=acknowledged))

    def test_a_state_of_an_older_version(self):
        for machine in self.twins:
            machine._state_version_max += 1
        with mock.patch.dict(commands.OPERATION_SINCE, {int(Operation.ENQUEUE): 3}):
            for _ in range(2):
                self.tell(self.one(put()))
        self.assertEqual(self.machine.executor.next_message_id, 1)


if __name__ == "__main__":
    unittest.main()
