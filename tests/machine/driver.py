"""A machine driven by hand: one entry a call, time in the test's hand, and its whole state."""

import unittest

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine.machine import Applied, Machine
from raftnet.machine.message import Message
from raftnet.machine.queue import Level, Queue
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status

A, B, C = b"A" * 16, b"B" * 16, b"C" * 16


def state_of(machine: Machine) -> tuple:
    """Everything that is replicated, as plain values in an order that may not differ."""
    executor = machine.executor
    queues = [(name, list(queue.ids), list(queue.messages), queue.size_bytes,
               list(queue.waiters) if queue.waiters is not None else None)
              for name, queue in sorted(executor.queues.by_name.items())]
    waits = [(wait.session, wait.first_sequence, wait.deadline_ms, wait.queue, wait.count)
             for wait in executor.waits.pending.values()]
    sessions = [(key, session.last, session.used_ms, session.waiting, session.firsts,
                 session.replies) for key, session in sorted(machine.sessions.by_id.items())]
    return (machine.applied_index, machine.digest, machine.time_ms, machine.state_version,
            executor.next_message_id, machine.next_deadline_ms(), machine.sessions.kept_bytes,
            queues, waits, sessions, contents_of(machine))


def fields_of(message: Message) -> tuple:
    """All of a message."""
    return (message.place, message.id, message.body, message.priority, message.deliveries,
            message.expires_ms, message.origin, message.history)


def ready_of(queue: Queue) -> list[tuple]:
    """The ready messages in order of delivery, as fields_of; looks at the structures only."""
    levels = {0: queue, **(queue.levels or {})}
    found = []
    for priority in sorted(levels, reverse=True):
        level = levels[priority]
        here = [(place, place, body, priority, 0, 0, b"", ())
                for place, body in zip(level.ids, level.messages)]
        here += [fields_of(message) for message in special_of(level)]
        assert len({fields[0] for fields in here}) == len(here), "two messages at one place"
        assert here or not priority, "a level without messages"
        found += sorted(here)
    return found


def special_of(level: Level) -> list[Message]:
    """The messages of a level that are not plain, in order of place."""
    special = [] if level.special is None else [name for chunk in level.special._chunks
                                                for name in chunk]
    assert special or level.special is None, "an empty one is None"
    places = [place for place, _ in special]
    assert places == sorted(places) == [message.place for _, message in special]
    return [message for _, message in special]


def contents_of(machine: Machine) -> tuple:
    """Queues, keys and their counters as plain values; what is late or out in canonical order."""
    executor = machine.executor
    queues = []
    for name, queue in sorted(executor.queues.by_name.items()):
        dedup = queue.dedup.by_id if queue.dedup else {}
        queues.append((
            name, ready_of(queue),
            [(due_ms, fields_of(message)) for due_ms, _, message in queue.delayed or ()],
            [((lease.delivery, lease.deadline_ms, lease.taken_ms, lease.consumer),
              fields_of(lease.message)) for lease in queue.leases(executor.leases)],
            None if queue.settings is None else tuple(queue.settings),
            sorted((key, *value) for key, value in dedup.items()),
            [key[0] for key in queue.waiters or ()], queue.size_bytes, queue.away_bytes))
    kv = executor.kv
    return (queues, sorted((key, item.value, item.version, item.expires_ms)
                           for key, item in kv.by_key.items()), kv.version,
            executor.next_message_id, executor.leases.next_delivery, executor.configured,
            executor.dedup_count)


class MachineCase(unittest.TestCase):
    """A machine, and words to say what it is given and what it must answer."""

    def setUp(self):
        self.start()

    def start(self, result_bytes_max: int = 4 << 20, message_bytes_max: int = 1 << 20, **limits):
        """A new machine with these limits."""
        self.machine = Machine(MachineConfig(**limits), WireConfig(
            result_bytes_max=result_bytes_max, message_bytes_max=message_bytes_max))
        self.machine.state_version = commands.STATE_VERSION

    def tearDown(self):
        self.check_invariants()

    def check_invariants(self):
        machine = self.machine
        executor = machine.executor
        at_queues = 0
        for name, queue in executor.queues.by_name.items():
            self.assertEqual(len(queue.ids), len(queue.messages))
            self.assertEqual(sorted(queue.ids), list(queue.ids))
            ready = ready_of(queue)
            self.assertEqual(len(ready), queue.ready())
            self.assertEqual(queue.size_bytes, sum(len(message[2]) for message in ready))
            self.assertFalse(ready and queue.waiters is not None, name)
            self.assertFalse(queue.vacant(), name)
            self.assertEqual(queue.ordinary, not (
                queue.special or queue.levels or queue.waiters or queue.settings is not None
                and any((queue.settings.ttl_ms, queue.settings.messages_max,
                         queue.settings.bytes_max))), name)
            self.check_deadlines(queue)
            for lease in queue.leases(executor.leases):
                self.assertEqual(lease.queue, name)
            at_queues += len(queue.waiters or ())
        self.assertEqual(at_queues, len(executor.waits.pending))
        self.assertEqual(len(executor.leases.by_delivery), sum(
            len(queue.leased or ()) for queue in executor.queues.by_name.values()))
        queues = executor.queues.by_name.values()
        self.assertEqual(executor.dedup_count, sum(len(queue.dedup or ()) for queue in queues))
        self.assertEqual(executor.configured, sum(queue.settings is not None for queue in queues))
        kept = 0
        for key, session in machine.sessions.by_id.items():
            waiting = [first for first, reply in zip(session.firsts, session.replies)
                       if reply is None]
            self.assertEqual(len(waiting), session.waiting)
            for first in waiting:
                self.assertTrue(machine.is_waiting(key, first))
            kept += 100 * len(session.firsts) + sum(len(reply or b"")
                                                    for reply in session.replies)
        self.assertEqual(kept, machine.sessions.kept_bytes)

    def check_deadlines(self, queue: Queue):
        """None too many and none too few: all that are there, in order, as they are counted."""
        self.assertEqual(list(queue.expiries or ()), sorted(
            (message.expires_ms, message.place, message)
            for level in (queue, *(queue.levels or {}).values())
            for message in special_of(level) if message.expires_ms))
        for due_ms, place, message in queue.delayed or ():
            self.assertTrue(due_ms and place == message.place)
        for names in (queue.expiries, queue.leased, queue.delayed, queue.special):
            if names is not None:
                self.assertEqual(list(names), sorted(names))
                self.assertEqual(len(names), sum(map(len, names._chunks)))
        if queue.dedup is not None:
            self.assertEqual(len(queue.dedup), len(queue.dedup._deadlines))
        leases = self.machine.executor.leases
        self.assertEqual(len(leases.by_delivery), len(leases._deadlines))

    def apply(self, *bodies: bytes, at: int | None = None) -> Applied:
        """One batch with these requests, at replicated time `at` (default: no time passed)."""
        payload = commands.encode_batch(self.machine.time_ms if at is None else at, list(bodies))
        entry = encode_entry(self.machine.applied_index + 1, 1, EntryKind.BATCH, payload)
        return self.machine.apply(entry)

    def ask(self, session: bytes, first: int, *pieces: bytes, acknowledged: int = 0,
            at: int | None = None) -> requests.Reply | None:
        """The reply to one request; None where it waits."""
        body = requests.encode_request(session, first, acknowledged, list(pieces))
        (reply,) = self.apply(body, at=at).replies
        return None if reply is None else requests.decode_reply(reply)

    def do(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        """The results of commands without a session."""
        return self.ask(requests.NO_SESSION, 1, *pieces).results

    def internal(self, *pieces: bytes, at: int | None = None) -> tuple[list[int], list]:
        """(statuses, completions as [(session, first, status, messages)])."""
        applied = self.apply(requests.encode_request(requests.INTERNAL_SESSION, 0, 0,
                                                     list(pieces)), at=at)
        reply = requests.decode_reply(applied.replies[0])
        return [status for status, _ in reply.results], self.completed(applied)

    def completed(self, applied: Applied) -> list[tuple[bytes, int, int, list[bytes]]]:
        completions = []
        for session, first, body in applied.completions:
            reply = requests.decode_reply(body)
            self.assertEqual((reply.first_sequence, reply.count), (first, 1))
            ((status, payload),) = reply.results
            messages = self.texts(payload) if status == Status.OK else []
            completions.append((session, first, status, messages))
        return completions

    def texts(self, payload: bytes) -> list[bytes]:
        return [message for _, message in commands.decode_messages(payload)]

    def enqueue(self, queue: bytes, *messages: bytes) -> None:
        self.assertIsNotNone(self.ask(requests.NO_SESSION, 1, commands.encode_enqueue(
            queue, list(messages))).first_message_id)

    def contents(self, queue: bytes = b"q") -> list[bytes]:
        found = self.machine.executor.queues.by_name.get(queue)
        return list(found.messages) if found else []

    def assert_results(self, results, *expected):
        """Each expected: a status, or the messages that came with OK."""
        seen = []
        for (status, payload), want in zip(results, expected, strict=True):
            seen.append(self.texts(payload) if status == Status.OK and isinstance(want, list)
                        else Status(status))
        self.assertEqual(seen, list(expected))

    def assert_refused(self, reply: requests.Reply, code: int):
        self.assertIsNotNone(reply.refusal, reply)
        self.assertEqual(reply.refusal[0], code, reply)
