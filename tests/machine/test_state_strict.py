"""The sections that came with leases and keys: what no machine can have written is refused."""

import random
import struct
import unittest
from unittest import mock

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine import messagesection
from raftnet.machine.machine import Machine
from raftnet.machine.sectionitems import column
from raftnet.machine.sections import SECTIONS
from raftnet.machine.sections import SectionNumber as S
from raftnet.machine.state import StateLoader, encode_state
from raftnet.wire import queuecommands
from raftnet.wire.queueresults import Event, encode_history
from tests.machine.driver import A, B, MachineCase

TIME_MS, INDEX, NEXT_ID, NEXT_DELIVERY, VERSION = 1_000, 20, 100, 50, 30
FOREVER = 2**64 - 1
EVENT = Event(5, 6, 7, 1, 2, b"me", b"no")


def name(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def message(queue=b"q", where=3, place=10, id=9, priority=0, deliveries=1, expires=0, until=0,
            delivery=0, taken=0, consumer=b"", origin=b"", history=(), body=b"m") -> bytes:
    """A ready one that was delayed."""
    return b"".join((name(queue), struct.pack(">BQQBIQQQQ", where, place, id, priority, deliveries,
                                              expires, until, delivery, taken), name(consumer),
                     name(origin), encode_history(history), struct.pack(">I", len(body)), body))


def leased(delivery=1, place=1, **more) -> bytes:
    given = {"where": 1, "id": place, "until": 1_100, "taken": 900, "consumer": b"me"} | more
    return message(delivery=delivery, place=place, **given)


def delayed(until=1_200, place=20, **more) -> bytes:
    return message(**{"where": 2, "until": until, "place": place, "deliveries": 0} | more)


def settings(queue=b"q", *values, dead=b"") -> bytes:
    return name(queue) + struct.pack(">8Q", *(values or (20, 0, 0, 0, 0, 1, 2, 3))) + name(dead)


def level(queue=b"q", priority=1, *pairs) -> bytes:
    pairs = pairs or ((5, b"five"),)
    return column(name(queue) + bytes((priority,)), [n for n, _ in pairs], [b for _, b in pairs])


def plain(queue, *ids) -> bytes:
    return column(name(queue), list(ids), [b"p"] * len(ids))


def dedup(expires=1_500, id=3, text=b"id", queue=b"q") -> bytes:
    return name(queue) + struct.pack(">QQ", expires, id) + name(text)


def key(text=b"k", version=3, expires=0, value=b"v") -> bytes:
    return name(text) + struct.pack(">QQI", version, expires, len(value)) + value


def wait(session=A, number=1, queue=b"w") -> bytes:
    return struct.pack(">16sQQQI", session, 1, 2_000, number, 1) + name(queue)


def wait_lease(session=A, sequence=1, lease=30, consumer=b"") -> bytes:
    return struct.pack(">16sQQ", session, sequence, lease) + name(consumer)


def session(session_id=A) -> bytes:
    return column(struct.pack(">16sQQ", session_id, 1, 900), [1], [b""])


COUNTERS = struct.pack(">QQ", NEXT_DELIVERY, VERSION)


class StrictTest(unittest.TestCase):

    def load(self, items: dict[int, list[bytes]], **limits) -> Machine:
        """A machine of these items, each section in pieces of at most two."""
        machine = Machine(MachineConfig(**limits), WireConfig())
        machine.applied_index, machine.time_ms, machine.state_version = INDEX, TIME_MS, 2
        machine.executor.next_message_id = NEXT_ID
        machine.executor.waits.next_number = 10
        head = next(encode_state(machine))
        loader = StateLoader(machine._config, WireConfig())
        loader.feed(head)
        items = {S.COUNTERS: [COUNTERS]} | items
        totals = {section.number: 0 for section in SECTIONS}
        for number in sorted(items):
            for at in range(0, len(items[number]), 2):
                some = items[number][at:at + 2]
                loader.feed(struct.pack(">BI", number, len(some)) + b"".join(some))
            totals[number] = len(items[number])
        loader.feed(struct.pack(">BI", 255, len(totals)) + b"".join(
            struct.pack(">BQ", *total) for total in totals.items()))
        loaded = loader.finish()
        written = {}
        for section in SECTIONS:
            written[section.number] = list(section.items(loaded))
        self.assertEqual({n: found for n, found in written.items() if found},
                         {n: found for n, found in items.items() if found})
        loaded.next_deadline_ms()
        return loaded

    def refuse(self, number: int, *tries: list[bytes], beside: dict | None = None, **limits):
        for items in tries:
            with self.subTest(items=items), self.assertRaises(MalformedError):
                self.load((beside or {}) | {number: items}, **limits)

    def test_counters(self):
        self.load({})
        self.refuse(S.COUNTERS, [], [COUNTERS, COUNTERS], [COUNTERS[:-1]], [COUNTERS + b"0"],
                    [struct.pack(">QQ", 0, 1)])

    def test_settings(self):
        self.load({S.SETTINGS: [settings(b"a"), settings(b"b", dead=b"c"), settings(b"c")]})
        self.load({S.SETTINGS: [settings(b"a")]}, settings_max=1)
        self.refuse(S.SETTINGS, [settings(b"a"), settings(b"b")], settings_max=1)
        ttl, delay = MachineConfig().ttl_ms_max, MachineConfig().delay_ms_max
        self.load({S.SETTINGS: [settings(b"a", FOREVER, ttl, FOREVER, FOREVER, 1, ttl, delay,
                                         delay)]})
        self.refuse(
            S.SETTINGS, [settings(b"b"), settings(b"a")], [settings(b"b"), settings(b"b")],
            [settings(b"", dead=b"c")], [settings(b"a", dead=b"a")], [settings(b"a")[:-1]],
            *[[settings(b"a", *values)] for values in (
                (1, ttl + 1, 0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 2, 0, 0, 0),
                (1, 0, 0, 0, 0, ttl + 1, 0, 0), (1, 0, 0, 0, 0, 0, delay + 1, 0),
                (1, 0, 0, 0, 0, 0, 0, delay + 1))])

    def test_levels(self):
        loaded = self.load({S.LEVELS: [
            level(b"a", 1, (1, b"x"), (7, b"")), level(b"a", 7), level(b"b", 2)]})
        self.assertEqual([queue.ready() for queue in loaded.executor.queues.by_name.values()],
                         [3, 1])
        self.refuse(
            S.LEVELS, [level(b"a", 0)], [level(b"a", 8)], [level(b"a", 2), level(b"a", 1)],
            [level(b"b"), level(b"a")], [level(b"a"), level(b"a", 1, (6, b"6"))],
            [level(b"a", 1, (7, b""), (7, b""))], [level(b"a", 1, (0, b""))],
            [level(b"a", 1, (NEXT_ID, b""))], [level(b"")], [name(b"a")], [level()[:-1]],
            [column(name(b"a") + b"\1", [], [])])
        # it goes on in the next piece, with higher ids only
        first = [level(b"a", 1, (4, b"x")), level(b"a", 2, (3, b"y"))]
        self.refuse(S.LEVELS, [*first, level(b"a", 2, (3, b"z"))],
                    [*first, level(b"a", 1, (9, b"z"))])
        self.refuse(S.LEVELS, [level(b"w")], beside={
            S.WAITS: [wait()], S.SESSIONS: [session()]})

    def test_ready_messages(self):
        fine = [message(b"a", place=30, expires=7), message(b"a", place=31, origin=b"b"),
                message(b"a", place=9, priority=2), message(b"b", history=(EVENT,))]
        loaded = self.load({S.MESSAGES: fine})
        self.assertEqual(loaded.next_deadline_ms(), 7)
        self.refuse(
            S.MESSAGES, [fine[1], fine[0]], [fine[2], fine[1]], [fine[3], fine[0]],
            [fine[0], fine[0]], [message(place=8)], [message(id=0)], [message(place=NEXT_ID)],
            [message(priority=8)], [message(where=0)], [message(where=4)], [message(until=1)],
            [message(delivery=1)], [message(taken=1)], [message(consumer=b"x")],
            [message(place=9, deliveries=0)], [message(queue=b"")], [message()[:-1]],
            [message(priority=0), message(priority=2)], [message(history=(EVENT,) * 17)],
            *[[message(history=(EVENT._replace(**change),))] for change in (
                {"taken_ms": 8}, {"ended_ms": TIME_MS + 1}, {"index": INDEX + 1}, {"index": 0},
                {"reason": 0}, {"reason": 6})])
        self.refuse(S.MESSAGES, [message(b"w")], beside={
            S.WAITS: [wait()], S.SESSIONS: [session()]})

    def test_ready_messages_among_plain_ones(self):
        for run in (4_096, 2, 1):
            with mock.patch.object(messagesection, "_RUN_PLACES", run):
                self.ready_among_plain()

    def ready_among_plain(self):
        beside = {S.QUEUES: [plain(b"q", 10, 20, 30)], S.LEVELS: [level(b"q", 2, (25, b""))]}
        for places in ([5], [15, 25], [5, 6, 29, 35, 36], [31], [22], [9, 11, 19, 21, 29, 31]):
            loaded = self.load(beside | {S.MESSAGES: [
                *[message(place=place, id=1) for place in places],
                *[message(place=place, id=1, priority=2) for place in (24, 26, 27)]]})
            queue = loaded.executor.queues.by_name[b"q"]
            items, _ = queue.take_mixed(99, 1 << 20)
            self.assertEqual([item[0] for item in items],
                             [24, 25, 26, 27, *sorted([10, 20, 30, *places])])
        self.refuse(S.MESSAGES, [message(place=10)], [message(place=30)],
                    [message(place=25, priority=2)], [message(place=15), message(place=20)],
                    [message(place=31), message(place=25, priority=2)],
                    [message(place=11), message(place=25, priority=2)], beside=beside)

    def test_leased_messages(self):
        fine = [leased(1, 4), leased(3, 2), leased(4, 5, priority=5), message(place=3, id=1),
                leased(2, 6, queue=b"r", until=5_000, consumer=b"")]
        loaded = self.load({S.MESSAGES: fine})
        self.assertEqual((len(loaded.executor.leases.by_delivery), loaded.next_deadline_ms()),
                         (4, 1_100))
        longest = TIME_MS + MachineConfig().lease_ms_max
        self.load({S.MESSAGES: [leased(until=longest)]})
        self.load({S.MESSAGES: [leased(1, 1), leased(2, 2)]}, leases_max=2)
        self.refuse(S.MESSAGES, [leased(1, 1), leased(2, 2)], leases_max=1)
        self.refuse(
            S.MESSAGES, [leased(3, 1), leased(2, 2)], [leased(1, 1), leased(1, 2)],
            [leased(0, 1)], [leased(NEXT_DELIVERY, 1)], [leased(1, 1), leased(2, 1)],
            [leased(1, 1), leased(1, 2, queue=b"r")], [leased(deliveries=0)],
            [leased(taken=TIME_MS + 1)], [leased(until=899)], [leased(until=longest + 1)],
            [delayed(), leased()], [message(), leased()], [leased(1, 1), message(place=1, id=1)],
            [leased(1, 3, priority=5), message(place=3, id=1)],
            # one that was never leased cannot be before one that was
            [leased(1, 4), message(place=3, id=2, deliveries=0)])
        for number, item in ((S.QUEUES, plain(b"q", 3)), (S.LEVELS, level(b"q", 2, (3, b"")))):
            priority = 0 if number == S.QUEUES else 2
            self.load({number: [item], S.MESSAGES: [leased(1, 2, priority=priority)]})
            self.refuse(S.MESSAGES, [leased(1, 4, priority=priority)],
                        [leased(1, 4, priority=priority), message(place=2, id=1)],
                        beside={number: [item]})

    def test_what_comes_back_beside_what_came_back(self):
        """The order of places holds whatever returns when, as it did in the original."""
        loaded = self.load({S.QUEUES: [plain(b"q", 10)], S.MESSAGES: [
            leased(1, 1), leased(2, 3), leased(3, 5), message(place=2, id=2),
            message(place=4, id=4), message(place=6, id=6), message(place=12, id=6)]})
        queue = loaded.executor.queues.by_name[b"q"]
        for delivery in (2, 1, 3):
            loaded.executor.lifecycle.give_back(loaded.executor.leases.by_delivery[delivery],
                                                TIME_MS, 2, b"", 0)
        items, _ = queue.take_mixed(99, 1 << 20)
        self.assertEqual([item[0] for item in items], [1, 2, 3, 4, 5, 6, 10, 12])

    def test_delayed_messages(self):
        fine = [delayed(700, 20), delayed(700, 21, priority=3), delayed(1_200, 5, id=5),
                delayed(queue=b"r")]
        loaded = self.load({S.MESSAGES: fine})
        self.assertEqual(loaded.next_deadline_ms(), 700)
        latest = TIME_MS + MachineConfig().delay_ms_max
        self.load({S.MESSAGES: [delayed(latest)]})
        self.refuse(S.MESSAGES, [fine[1], fine[0]], [fine[2], fine[1]], [delayed(0)],
                    [delayed(latest + 1)], [delayed(delivery=1)], [delayed(consumer=b"x")],
                    [delayed(taken=1)], [delayed(700, 20), delayed(800, 20)],
                    [leased(1, 9), delayed(place=9)], [delayed(place=12), message(place=12)])

    def test_leases_that_wait(self):
        beside = {S.WAITS: [wait(A, 1), wait(B, 2)], S.SESSIONS: [session(A), session(B)]}
        self.load(beside | {S.WAIT_LEASES: [wait_lease(A), wait_lease(B, consumer=b"me")]})
        loaded = self.load(beside | {S.WAIT_LEASES: [wait_lease(B)]})
        self.assertEqual([found.lease_ms for found in loaded.executor.waits.pending.values()],
                         [0, 30])
        self.refuse(S.WAIT_LEASES, [wait_lease(B), wait_lease(A)], [wait_lease(A), wait_lease(A)],
                    [wait_lease(b"C" * 16)], [wait_lease(A, 2)], [wait_lease(lease=0)],
                    [wait_lease(lease=MachineConfig().lease_ms_max + 1)], [wait_lease()[:-1]],
                    beside=beside)

    def test_dedup_ids(self):
        fine = [dedup(900, 4, b"a"), dedup(901, 3, b"b"), dedup(901, 5, b"c"),
                dedup(900, 6, b"a", b"r")]
        loaded = self.load({S.DEDUP: fine})
        self.assertEqual((loaded.executor.dedup_count, loaded.next_deadline_ms()), (4, 900))
        self.load({S.DEDUP: fine}, dedup_ids_max=4)
        self.refuse(S.DEDUP, fine, dedup_ids_max=3)
        self.refuse(S.DEDUP, [fine[1], fine[0]], [fine[2], fine[1]], [fine[3], fine[0]],
                    [fine[0], dedup(902, 9, b"a")], [fine[0], fine[0]], [dedup(text=b"")],
                    [dedup(queue=b"")], [dedup(id=0)], [dedup(id=NEXT_ID)], [dedup(0)],
                    [dedup(TIME_MS + MachineConfig().ttl_ms_max + 1)], [dedup()[:-1]])

    def test_keys(self):
        fine = [key(b"a", 4), key(b"b", VERSION, 900), key(b"ba", 1, value=b"")]
        loaded = self.load({S.KEYS: fine})
        self.assertEqual(loaded.next_deadline_ms(), 900)
        self.load({S.KEYS: fine}, keys_max=3)
        self.refuse(S.KEYS, fine, keys_max=2)
        self.refuse(S.KEYS, [fine[1], fine[0]], [fine[0], fine[0]], [key(b"")], [key(version=0)],
                    [key(version=VERSION + 1)], [key()[:-1]], [key() + b"x"])

    def test_older_state_has_none_of_it(self):
        machine = Machine(MachineConfig(), WireConfig())
        self.assertEqual([piece[0] for piece in encode_state(machine)], [1, 255])
        machine.state_version = 2
        self.assertEqual([piece[0] for piece in encode_state(machine)], [1, 5, 255])


class FlippedTest(MachineCase):

    def test_every_byte(self):
        """Checksums find damage; here every byte is refused, or a machine that works is loaded."""
        self.enqueue(b"q", b"1", b"2", b"3")
        self.do(queuecommands.encode_configure(b"q", {1: b"dead", 3: 50}),
                queuecommands.encode_enqueue_with(b"q", [b"4", b"5"], 2, 0, 30, [b"x", b"y"]),
                queuecommands.encode_enqueue_with(b"q", [b"6"], 3, 9),
                queuecommands.encode_enqueue_with(b"r", [b"7"], 3))
        self.do(queuecommands.encode_lease(b"q", 20, 2, consumer=b"me"))
        self.do(queuecommands.encode_nack([(4, 1)], 0, b"no"))
        self.ask(A, 1, queuecommands.encode_lease(b"w", 10, 1, 500, b"me"))
        self.ask(B, 1, queuecommands.encode_lease(b"v", 10, 1, 500))
        pieces = list(encode_state(self.machine))
        self.assertGreater(len(pieces), 8)
        source = random.Random(5)
        refused = loaded = 0
        for at, piece in enumerate(pieces):
            for offset in range(len(piece)):
                data = bytearray(piece)
                data[offset] ^= 1 << source.randrange(8)
                try:
                    self.load([*pieces[:at], bytes(data), *pieces[at + 1:]]).next_deadline_ms()
                    loaded += 1
                except MalformedError:
                    refused += 1
        self.assertGreater(min(refused, loaded), 100, (refused, loaded))

    def load(self, pieces: list[bytes]) -> Machine:
        """Loads, and lets time pass until all is gone: nothing else than MalformedError comes."""
        loader = StateLoader(MachineConfig(), WireConfig())
        for piece in pieces:
            loader.feed(piece)
        machine, self.machine = self.machine, loader.finish()
        self.check_invariants()
        if self.machine.state_version == 2 and self.machine.time_ms < 1 << 60:
            for delay in (10, 30, 60, 5_000, 1 << 42):
                self.apply(at=self.machine.time_ms + delay)
        machine, self.machine = self.machine, machine
        return machine


if __name__ == "__main__":
    unittest.main()
