"""Versions of the replicated state: a program that knows version 3 beside one that does not."""

import random
import unittest
from unittest import mock

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import RaftnetError
from raftnet.machine import machine as machine_module
from raftnet.machine.executor import OK, UNKNOWN, Executor
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.transactions import KeyCondition, LeasedCondition, encode_transact
from tests.machine.driver import A, state_of
from tests.machine.test_machine import Workload

NEWER = 40              # an operation that came with version 3: appends a message
NEWER_COMMAND = b"\0\0\0\3" + bytes((NEWER,)) + b"ab"
MEMBERSHIP = Membership(b"c" * 16, (Member(1, "a:1", True),))


class NewerExecutor(Executor):
    """Of a program that knows version 3."""

    def __init__(self, *configs):
        super().__init__(*configs)
        self._handlers[NEWER] = lambda command: (OK, (self._enqueue, b"newer", [command[1:]]))


def newer_machine() -> Machine:
    with mock.patch.object(commands, "STATE_VERSION", 3):
        machine = Machine(MachineConfig(), WireConfig())
    machine.executor = NewerExecutor(MachineConfig(), WireConfig())
    machine.state_version = 2
    return machine


class NewerWorkload(Workload):
    """With the new operation here and there, alone and in lists."""

    def command(self, nested: bool = False) -> bytes:
        return NEWER_COMMAND if self.random.random() < 0.2 else super().command(nested)


class VersionsCase(unittest.TestCase):

    def setUp(self):
        known = mock.patch.dict(commands.OPERATION_SINCE, {NEWER: 3})
        known.start()
        self.addCleanup(known.stop)
        self.old, self.new = Machine(MachineConfig(), WireConfig()), newer_machine()
        self.old.state_version = 2

    def apply(self, machine: Machine, kind: int, payload: bytes):
        return machine.apply(encode_entry(machine.applied_index + 1, 1, kind, payload))

    def both(self, kind: int, payload: bytes):
        """What both bring about, the same."""
        applied = self.apply(self.old, kind, payload)
        self.assertEqual(self.apply(self.new, kind, payload), applied)
        self.assertEqual(state_of(self.old), state_of(self.new))
        return applied

    def results(self, applied) -> list[tuple[int, bytes]]:
        (reply,) = applied.replies
        return requests.decode_reply(reply).results

    def batch(self, *pieces: bytes, session: bytes = requests.NO_SESSION) -> bytes:
        return commands.encode_batch(0, [requests.encode_request(session, 1, 0, list(pieces))])

    def begin_version_3(self, machine: Machine):
        return self.apply(machine, EntryKind.MEMBERSHIP,
                          encode_membership(MEMBERSHIP.with_state_version(3)))


class VersionsTest(VersionsCase):

    def test_a_newer_command_is_unknown_on_both(self):
        enqueue = commands.encode_enqueue(b"q", [b"m"])
        for pieces, expected in [
                ([NEWER_COMMAND], [UNKNOWN]),
                ([enqueue, NEWER_COMMAND, commands.encode_close()], [OK, UNKNOWN, OK]),
                ([commands.encode_execute([enqueue, NEWER_COMMAND])], [UNKNOWN]),
                ([encode_transact([], [enqueue, NEWER_COMMAND])], [UNKNOWN]),
                ([encode_transact([LeasedCondition(1, 1)] * 2, [NEWER_COMMAND])], [UNKNOWN]),
                ([commands.encode_execute([commands.encode_execute([NEWER_COMMAND])])], [UNKNOWN])]:
            session = A if len(pieces) > 1 else requests.NO_SESSION
            with self.subTest(pieces):
                found = self.results(self.both(EntryKind.BATCH, self.batch(
                    *pieces, session=session)))
                self.assertEqual([status for status, _ in found], expected)
        self.assertNotIn(b"newer", self.new.executor.queues.by_name)
        internal = self.batch(NEWER_COMMAND, session=requests.INTERNAL_SESSION)
        self.assertEqual(self.results(self.both(EntryKind.BATCH, internal)), [(UNKNOWN, b"")])

    def test_equal_until_the_membership_says_so(self):
        work = NewerWorkload(4)
        newer = 0
        for number in range(400):
            if number % 50 == 10:
                self.both(EntryKind.MEMBERSHIP, encode_membership(MEMBERSHIP))
            payload = work.payload(5 * number, self.old)
            newer += payload.count(NEWER_COMMAND)
            self.both(EntryKind.BATCH, payload)
        self.assertGreater(newer, 100)
        self.begin_version_3(self.new)
        self.assertEqual(self.new.state_version, 3)
        executed = encode_transact([KeyCondition(b"k", Condition(ConditionKind.ABSENT))],
                                   [NEWER_COMMAND])
        payload = commands.encode_batch(2_000, [requests.encode_request(
            requests.NO_SESSION, 1, 0, [NEWER_COMMAND, executed])])
        self.assertEqual([status for status, _ in self.results(
            self.apply(self.new, EntryKind.BATCH, payload))], [OK, OK])
        self.assertEqual(list(self.new.executor.queues.by_name[b"newer"].messages), [b"ab"] * 2)

    def test_damaged_requests_are_the_same_on_both(self):
        chance, work = random.Random(5), NewerWorkload(6)
        for number in range(600):
            payload = bytearray(work.payload(number, self.old))
            for _ in range(chance.randrange(4)):
                payload[chance.randrange(8, len(payload))] = chance.choice((0, 3, NEWER, 255))
            self.both(EntryKind.BATCH, bytes(payload))

    def test_a_read(self):
        with mock.patch.object(machine_module, "_READS", frozenset((NEWER,))):
            self.assertEqual(self.new.read(NEWER_COMMAND), (UNKNOWN, b""))
            self.begin_version_3(self.new)
            self.assertEqual(self.new.read(NEWER_COMMAND)[0], OK)

    def test_a_version_that_is_not_known_stops_the_program_and_changes_nothing(self):
        before = state_of(self.old)
        with self.assertRaisesRegex(RaftnetError, "entry 1 begins version 3 .* knows 2 at most"):
            self.begin_version_3(self.old)
        self.assertEqual(state_of(self.old), before)
        with self.assertRaises(RaftnetError):
            self.apply(self.new, EntryKind.MEMBERSHIP,
                       encode_membership(MEMBERSHIP.with_state_version(4)))

    def test_a_version_never_goes_back(self):
        self.begin_version_3(self.new)
        self.apply(self.new, EntryKind.MEMBERSHIP, encode_membership(MEMBERSHIP))
        self.assertEqual(self.new.state_version, 3)

    def test_what_is_no_membership_moves_on(self):
        self.both(EntryKind.MEMBERSHIP, b"none")
        self.assertEqual((self.new.applied_index, self.new.state_version), (1, 2))

    def test_costs_nothing_where_the_state_is_as_new_as_the_program(self):
        self.begin_version_3(self.new)
        with mock.patch.object(machine_module, "hide_newer", side_effect=AssertionError):
            for machine in (self.old, self.new):
                self.apply(machine, EntryKind.BATCH, self.batch(NEWER_COMMAND))

    def test_every_operation_has_its_version(self):
        del commands.OPERATION_SINCE[NEWER]
        self.assertEqual(set(commands.OPERATION_SINCE), set(Operation))
        self.assertNotIn(0, commands.OPERATION_SINCE)       # what newer ones are made into
        self.assertLessEqual(max(commands.OPERATION_SINCE.values()), commands.STATE_VERSION)


if __name__ == "__main__":
    unittest.main()
