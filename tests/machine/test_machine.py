"""The machine as a whole: total, deterministic, small."""

import gc
import os
import random
import subprocess
import sys
import tracemalloc
import unittest
from zlib import crc32

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import commands, requests
from tests.machine.driver import A, B, MachineCase, state_of

SESSIONS = [bytes([65 + number]) * 16 for number in range(4)]
QUEUES = (b"a", b"b", b"long name")


def small_machine() -> Machine:
    """Limits that random work reaches."""
    return Machine(
        MachineConfig(session_expiry_ms=400, sessions_max=4, kept_reply_bytes_max=20_000,
                      expiries_per_entry_max=2, execute_operations_max=5, dequeue_count_max=6,
                      waiters_max=4, wait_ms_max=300),
        WireConfig(message_bytes_max=40, result_bytes_max=150))


class Workload:
    """Random requests, mostly as well-behaved clients send them."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.next = {session: 1 for session in SESSIONS}

    def command(self, nested: bool = False) -> bytes:
        choose = self.random.choice
        queue = choose(QUEUES)
        kind = self.random.randrange(7 if nested else 10)
        if kind <= 1:
            return commands.encode_enqueue(
                queue, [b"m" * choose((0, 1, 30, 30, 41))] * choose((1, 1, 3)))
        if kind <= 4:
            return commands.encode_dequeue(queue, choose((1, 2, 5, 6, 7)))
        if kind <= 6:
            return choose((commands.encode_peek(queue, 2), commands.encode_size(queue),
                           commands.encode_queues(queue, 2)))
        if kind == 7 and self.random.random() < 0.1:
            return commands.encode_close()
        if kind == 8:
            return commands.encode_dequeue(queue, choose((1, 3)), choose((50, 200)))
        return commands.encode_execute([self.command(nested=True)
                                        for _ in range(self.random.randrange(6))])

    def body(self) -> bytes:
        choose = self.random.choice
        session = choose((*SESSIONS, requests.NO_SESSION, requests.INTERNAL_SESSION))
        pieces = [self.command() for _ in range(choose((1, 1, 1, 2, 4)))]
        if session == requests.INTERNAL_SESSION:
            pieces = [commands.encode_cancel(choose(SESSIONS), self.random.randrange(1, 40))]
        first = self.next.get(session, 1)
        if session in self.next:
            self.next[session] += len(pieces)
        return requests.encode_request(session, first, max(0, first - choose((1, 3, 9))), pieces)

    def payload(self, stamp_ms: int, machine: Machine) -> bytes:
        """A batch, its sessions where the machine stands."""
        for session in SESSIONS:
            if self.random.random() < 0.9:
                self.next[session] = (machine.last_sequence(session) or 0) + 1
        return commands.encode_batch(
            stamp_ms, [self.body() for _ in range(self.random.randrange(1, 5))])


def apply(machine: Machine, payload: bytes, kind: int = EntryKind.BATCH):
    return machine.apply(encode_entry(machine.applied_index + 1, 1, kind, payload))


def digest_of_workload() -> int:
    """What test_determinism compares between processes."""
    machine, work = small_machine(), Workload(11)
    for number in range(600):
        apply(machine, work.payload(number * 20, machine))
    return crc32(repr(state_of(machine)).encode())


class ApplyTest(MachineCase):

    def test_other_entries_move_index_and_digest_only(self):
        self.enqueue(b"q", b"1")
        before = state_of(self.machine)
        for kind in (EntryKind.EMPTY, EntryKind.MEMBERSHIP):
            entry = encode_entry(self.machine.applied_index + 1, 1, kind, b"payload")
            digest = crc32(entry.data, self.machine.digest)
            applied = self.machine.apply(entry)
            self.assertEqual((applied.replies, applied.completions), ([], []))
            self.assertEqual(self.machine.digest, digest)
        self.assertEqual(state_of(self.machine)[0], before[0] + 2)
        self.assertEqual(state_of(self.machine)[2:], before[2:])

    def test_digest_covers_entry_replies_and_completions(self):
        body = requests.encode_request(A, 1, 0, [commands.encode_dequeue(b"q", 1, 10)])
        give = requests.encode_request(B, 1, 0, [commands.encode_enqueue(b"q", [b"m"])])
        payload = commands.encode_batch(5, [body, give])
        entry = encode_entry(1, 1, EntryKind.BATCH, payload)
        applied = self.machine.apply(entry)
        self.assertEqual(applied.replies[0], None)
        joined = applied.replies[1] + applied.completions[0][2]
        self.assertEqual(self.machine.digest, crc32(joined, crc32(entry.data)))

    def test_our_own_bugs_stop_the_node(self):
        apply(self.machine, commands.encode_batch(10, []))
        with self.assertRaises(AssertionError):
            apply(self.machine, commands.encode_batch(9, []))
        with self.assertRaises(AssertionError):
            self.machine.apply(encode_entry(5, 1, EntryKind.EMPTY, b""))

    def test_batches_that_do_not_split(self):
        for payload in (b"", b"1234567", commands.encode_batch(5, [b"body"])[:-1]):
            self.assertEqual(apply(self.machine, payload).replies, [])
        self.assertEqual(self.machine.applied_index, 3)


class TotalTest(unittest.TestCase):

    def test_damaged_batches_never_raise_and_two_machines_agree(self):
        work = Workload(3)
        source = random.Random(4)
        one, two = small_machine(), small_machine()
        refused = 0
        for number in range(10_000):
            payload = bytearray(work.payload(number, one))
            for _ in range(source.choice((0, 1, 1, 2, 5))):
                at = source.randrange(8, len(payload))
                payload[at] = source.choice((0, 1, 255, source.randrange(256)))
            if source.random() < 0.05:
                del payload[source.randrange(8, len(payload)):]
            applied = apply(one, bytes(payload))
            self.assertEqual(applied, apply(two, bytes(payload)))
            for reply in applied.replies:
                if reply is not None:
                    refused += requests.decode_reply(reply).refusal is not None
            self.assertEqual(one.digest, two.digest)
            if number % 500 == 0:
                self.assertEqual(state_of(one), state_of(two))
        self.assertEqual(state_of(one), state_of(two))
        self.assertGreater(refused, 1000)
        self.assertGreater(one.executor.next_message_id, 3000)

    def test_undamaged_work_keeps_the_invariants(self):
        case = MachineCase()
        case.machine = small_machine()
        work = Workload(9)
        waited = completed = 0
        for number in range(4000):
            applied = apply(case.machine, work.payload(number * 10, case.machine))
            waited += applied.replies.count(None)
            completed += len(applied.completions)
            case.check_invariants()
        self.assertGreater(min(waited, completed), 100)


class DeterminismTest(unittest.TestCase):

    def test_determinism(self):
        program = ("from tests.machine.test_machine import digest_of_workload\n"
                   "print(digest_of_workload())")
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        seen = {str(digest_of_workload())}
        for seed in ("0", "1", "4711"):
            done = subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60,
                                  env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                                  capture_output=True, text=True)
            seen.add(done.stdout.strip())
        self.assertEqual(len(seen), 1, seen)


class MemoryTest(unittest.TestCase):

    def load(self, machine: Machine, stamp_ms: int, first: int, messages: int) -> None:
        message = b"%0100d"
        pieces = [commands.encode_enqueue(b"q", [message % (first + number)])
                  for number in range(messages)]
        apply(machine, commands.encode_batch(stamp_ms, [
            requests.encode_request(A, first, first - 1, pieces)]))

    def test_a_waiting_message_of_100_bytes_takes_at_most_400(self):
        machine = Machine(MachineConfig(), WireConfig())
        self.load(machine, 0, 1, 200)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(1, 101):
                self.load(machine, number, 1 + 200 * number, 200)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess((after - before) / 20_000, 400)

    def test_no_cycles(self):
        gc.collect()
        gc.disable()
        try:
            machine, work = small_machine(), Workload(5)
            for number in range(500):
                apply(machine, work.payload(number * 20, machine))
            self.load(machine, 20_000, 1, 200)
            self.assertEqual(gc.collect(), 0)
        finally:
            gc.enable()


if __name__ == "__main__":
    unittest.main()
