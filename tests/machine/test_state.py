"""The state in pieces: complete, canonical, strict, in bounded pieces."""

import random
import struct
import unittest
from unittest import mock

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine import sectionitems, sections, state
from raftnet.machine.machine import Machine
from raftnet.machine.sectionitems import PIECE_BYTES
from raftnet.machine.sections import SECTIONS
from raftnet.machine.state import PIECE_ITEMS_MAX, StateLoader, encode_state
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from tests.machine.driver import A, B, C, MachineCase, state_of
from tests.machine.test_machine import SESSIONS, Workload, apply, small_machine

HEAD, QUEUES, WAITS, SESSION_SECTION, COUNTERS, END = 1, 2, 3, 4, 5, 255


def load(pieces, like: Machine) -> Machine:
    """The machine in these pieces, with the limits of `like`."""
    wire = WireConfig(message_bytes_max=like.executor.message_bytes_max,
                      result_bytes_max=like.executor.result_bytes_max)
    loader = StateLoader(like._config, wire)
    for piece in pieces:
        loader.feed(piece)
    return loader.finish()


def copy_of(machine: Machine) -> Machine:
    return load(encode_state(machine), machine)


class Waiting(Workload):
    """More of those that wait."""

    def body(self) -> bytes:
        session = self.random.choice(SESSIONS)
        if self.random.random() < 0.8:
            return super().body()
        first = self.next[session]
        self.next[session] += 1
        return requests.encode_request(session, first, 0, [commands.encode_dequeue(
            self.random.choice((b"a", b"w")), self.random.choice((1, 3)), 200)])


def put(queue: bytes, *messages: bytes) -> bytes:
    return commands.encode_enqueue(queue, list(messages))


class SameTest(unittest.TestCase):
    """A loaded machine is the original, for everything that comes."""

    def assert_same(self, one: Machine, two: Machine):
        self.assertEqual(state_of(one), state_of(two))
        self.assertEqual(list(one.executor.waits.pending), list(two.executor.waits.pending))
        self.assertEqual(list(one.sessions._unused), list(two.sessions._unused))
        self.assertEqual(one.executor.waits.next_number, two.executor.waits.next_number)
        self.assertEqual(list(encode_state(one)), list(encode_state(two)))

    def test_random_histories_go_on_the_same(self):
        source = random.Random(61)
        waiting = filled = 0
        for seed in range(60):
            machine, work = small_machine(), Waiting(1000 + seed)
            steps = source.randrange(1, 60)
            for number in range(steps):
                apply(machine, work.payload(number * 20, machine))
            loaded = copy_of(machine)
            waiting += len(machine.waits())
            filled += bool(machine.executor.queues.by_name)
            self.assert_same(machine, loaded)
            for number in range(steps, steps + 40):
                payload = work.payload(number * 20, machine)
                self.assertEqual(apply(machine, payload), apply(loaded, payload))
                self.assertEqual(machine.digest, loaded.digest)
                self.assertEqual(machine.next_deadline_ms(), loaded.next_deadline_ms())
                listing = commands.encode_queues()
                self.assertEqual(machine.read(listing), loaded.read(listing))
            # then nothing but time, until all has expired
            for number in range(200):
                payload = commands.encode_batch((steps + 40) * 20 + number * 5, [])
                self.assertEqual(apply(machine, payload), apply(loaded, payload))
                self.assertEqual(machine.next_deadline_ms(), loaded.next_deadline_ms())
            self.assertEqual(machine.sessions.by_id, {})
            self.assert_same(machine, loaded)
        self.assertGreater(min(waiting, filled), 40)

    def test_retries_get_the_same_replies(self):
        machine, work = small_machine(), Workload(77)
        for number in range(200):
            apply(machine, work.payload(number * 20, machine))
        loaded = copy_of(machine)
        kept = [(session, first) for session in SESSIONS for first in range(200)
                if machine.kept_reply(session, first) is not None]
        self.assertTrue(kept)
        for session, first in kept:
            self.assertEqual(machine.kept_reply(session, first), loaded.kept_reply(session, first))

    def test_nothing_at_all(self):
        machine = Machine(MachineConfig(), WireConfig())
        self.assert_same(machine, copy_of(machine))
        self.assertEqual([piece[0] for piece in encode_state(machine)], [HEAD, END])


class PiecesTest(MachineCase):

    def fill(self):
        """Queues, waits and sessions of every shape."""
        self.start()
        self.enqueue(b"q", *[b"%0100d" % number for number in range(2000)])
        self.enqueue(b"large", b"x" * 100_000, b"", b"y" * 100_000, b"z")
        for number in range(300):
            self.enqueue(b"%0200d" % number, b"")
        for number in range(1, 600):
            self.ask(A, number, put(b"kept", b"k" * 40), commands.encode_dequeue(b"kept")
                     ) if number % 2 else None
            self.ask(B, number, put(b"kept", b"k"))
        self.ask(C, 1, commands.encode_dequeue(b"nothing", 3, 1000), at=5)
        self.ask(C, 2, commands.encode_dequeue(b"nothing", 1, 500))
        self.ask(C, 3, commands.encode_dequeue(b"other", 1, 500))
        return list(encode_state(self.machine))

    def test_pieces_are_bounded(self):
        pieces = self.fill()
        self.assertEqual([n for n in dict.fromkeys(piece[0] for piece in pieces)],
                         [HEAD, QUEUES, WAITS, SESSION_SECTION, COUNTERS, END])
        large = [piece for piece in pieces if len(piece) > PIECE_BYTES]
        self.assertEqual(len(large), 2)
        for piece in large:
            self.assertLess(len(piece), 100_100)
        for piece in pieces:
            self.assertLessEqual(int.from_bytes(piece[1:5], "big"), PIECE_ITEMS_MAX)
        self.assertGreater(sum(len(piece) for piece in pieces) / len(pieces), 20_000)

    def test_they_are_the_whole_of_it(self):
        pieces = self.fill()
        loaded = load(pieces, self.machine)
        self.assertEqual(state_of(loaded), state_of(self.machine))
        self.assertEqual(list(encode_state(loaded)), pieces)
        self.machine = loaded
        self.check_invariants()
        _, completed = self.internal(commands.encode_time(), at=505)
        self.assertEqual([(session, first) for session, first, _, _ in completed],
                         [(C, 2), (C, 3)])

    def test_a_session_over_many_pieces(self):
        self.start()
        for number in range(1, 4000):
            self.ask(A, number, put(b"q", b"x"))
        self.ask(A, 4000, commands.encode_dequeue(b"w", 1, 1000))
        self.ask(A, 4001, put(b"q", b"x"))
        pieces = list(encode_state(self.machine))
        self.assertGreater(sum(piece[0] == SESSION_SECTION for piece in pieces), 2)
        loaded = load(pieces, self.machine)
        self.assertEqual(state_of(loaded), state_of(self.machine))
        self.assertEqual(loaded.sessions.by_id[A].waiting, 1)


class StrictTest(MachineCase):
    """What encode_state cannot have written is refused, and never something else than refused."""

    def setUp(self):
        super().setUp()
        self.enqueue(b"a", b"1", b"2")
        self.enqueue(b"b", b"x" * 70_000, b"3")
        self.ask(A, 1, put(b"a", b"4"), at=7)
        self.ask(B, 1, put(b"a", b"5"), at=8)
        self.ask(C, 1, commands.encode_dequeue(b"w", 1, 1000), at=9)
        self.pieces = list(encode_state(self.machine))
        self.numbers = [piece[0] for piece in self.pieces]

    def refuse(self, pieces, text: str = "state: "):
        with self.assertRaisesRegex(MalformedError, text):
            load(pieces, self.machine)

    def with_items(self, number: int, *items: bytes) -> list[bytes]:
        """The pieces, with these items as the only ones of a section, and an end that fits."""
        pieces = [piece for piece in self.pieces if piece[0] < number]
        pieces.append(struct.pack(">BI", number, len(items)) + b"".join(items))
        pieces += [piece for piece in self.pieces if number < piece[0] < END]
        totals = {section.number: 0 for section in SECTIONS}
        for piece in pieces[1:]:
            totals[piece[0]] += int.from_bytes(piece[1:5], "big")
        return [*pieces, struct.pack(">BI", END, len(totals)) + b"".join(
            struct.pack(">BQ", *total) for total in totals.items())]

    def item(self, number: int) -> bytes:
        """The only item of the section, else the first."""
        return next(section.items(self.machine) for section in SECTIONS
                    if section.number == number).__next__()

    def test_order_and_completeness_of_pieces(self):
        self.assertEqual(self.numbers, [HEAD, QUEUES, QUEUES, QUEUES, WAITS, SESSION_SECTION,
                                        COUNTERS, END])
        for place in range(len(self.pieces)):
            self.refuse(self.pieces[:place] + self.pieces[place + 1:])
            self.refuse(self.pieces[:place] + self.pieces[place:place + 1] + self.pieces[place:])
            self.refuse(self.pieces[:place])
            if place:
                swapped = list(self.pieces)
                swapped[place - 1:place + 1] = reversed(swapped[place - 1:place + 1])
                self.refuse(swapped)
        self.refuse([*self.pieces, b""])
        nothing = list(encode_state(Machine(MachineConfig(), WireConfig())))
        self.refuse([*nothing, nothing[-1]], "behind the end")
        self.refuse([*self.pieces[:1], struct.pack(">BI", 12, 1) + b"new", *self.pieces[1:]],
                    "section 12")

    def test_lengths(self):
        for place, piece in enumerate(self.pieces):
            for other in (b"", piece[:-1], piece + b"\0", piece[:4], piece[:9]):
                self.refuse([*self.pieces[:place], other, *self.pieces[place + 1:]])
        self.refuse([*self.pieces[:1], struct.pack(">BI", QUEUES, 0), *self.pieces[1:]], "0 items")
        many = [struct.pack(">B3sIQI", 3, b"%03d" % number, 1, number + 1, 0)
                for number in range(PIECE_ITEMS_MAX + 1)]
        self.machine.executor.next_message_id = 1000
        self.pieces = list(encode_state(self.machine))
        load(self.with_items(QUEUES, *many[1:]), self.machine)
        self.refuse(self.with_items(QUEUES, *many), "251 items")

    def test_versions(self):
        head = self.pieces[0]
        for layout, text in ((0, "layout 0.*older"), (2, "layout 2.*newer")):
            self.refuse([head[:5] + layout.to_bytes(2, "big"), *self.pieces[1:]], text)
        at = 5 + 2 + 8 + 4 + 8
        for version in (0, commands.STATE_VERSION + 1):
            other = head[:at] + version.to_bytes(2, "big") + head[at + 2:]
            self.refuse([other, *self.pieces[1:]], f"version {version}")

    def test_a_section_of_a_newer_state_is_written_from_that_version_on(self):
        def items(_: Machine):
            yield b"new"

        class Loader:
            def __init__(self, machine: Machine):
                machine.seen = []
                self.item = lambda piece, offset, first: machine.seen.append(
                    piece[offset:offset + 3]) or offset + 3

            def end(self):
                pass

        class Newer(Machine):
            pass
        newer = (*SECTIONS, sections.Section(99, 3, items, Loader))
        with (mock.patch.object(sections, "SECTIONS", newer),
              mock.patch.object(state, "STATE_VERSION", 3),
              mock.patch.object(state, "Machine", Newer)):
            self.assertEqual(list(encode_state(self.machine)), self.pieces)
            load(self.pieces, self.machine)
            self.machine.state_version = 3
            pieces = list(encode_state(self.machine))
            loaded = load(pieces, self.machine)
            self.assertEqual((loaded.state_version, loaded.seen), (3, [b"new"]))
        self.assertEqual(pieces[-2], struct.pack(">BI", 99, 1) + b"new")
        self.refuse(pieces, "version 3.*newer")

    def test_queues(self):
        def queue(name: bytes, *pairs: tuple[int, bytes]) -> bytes:
            return sectionitems.column(bytes((len(name),)) + name, [n for n, _ in pairs],
                                    [text for _, text in pairs])
        one, two = queue(b"a", (1, b"1")), queue(b"b", (2, b"2"))
        load(self.with_items(QUEUES, one, two), self.machine)
        for what in ((two, one), (one, one), (two, queue(b"b", (3, b"3"))), (queue(b"a"),),
                     (queue(b"", (1, b"1")),), (queue(b"a", (2, b""), (1, b"")),),
                     (queue(b"a", (1, b""), (1, b"")),), (queue(b"a", (0, b"")),),
                     (queue(b"a", (self.machine.executor.next_message_id, b"")),),
                     (queue(b"w", (1, b"somebody waits there")),)):
            self.refuse(self.with_items(QUEUES, *what))
        # too many messages, too few bytes
        self.refuse(self.with_items(QUEUES, b"\x01a" + b"\xff" * 16))
        self.refuse(self.with_items(QUEUES, struct.pack(">BcIQI", 1, b"a", 1, 1, 5) + b"1234"),
                    "cut short")
        # a queue goes on only with higher ids
        first, (rest,) = self.pieces[:3], self.pieces[3:4]
        self.assertEqual(rest[:11], struct.pack(">BIBcI", QUEUES, 1, 1, b"b", 1))
        for number in (3, 2):
            again = rest[:11] + number.to_bytes(8, "big") + rest[19:]
            self.refuse([*first, again, *self.pieces[4:]], "messages")

    def test_waits(self):
        item = self.item(WAITS)
        self.assertEqual(self.with_items(WAITS, item), self.pieces)
        session, first, deadline, number, count = struct.unpack_from(">16sQQQI", item)
        def wait(first=first, number=number, count=count, session=session, name=b"\x01w"):
            return struct.pack(">16sQQQI", session, first, deadline, number, count) + name
        self.assertEqual(wait(), item)
        for what in ((wait(), wait()), (wait(number=0),), (wait(number=2),), (wait(count=0),),
                     (wait(first=2),), (wait(session=B),), (wait(name=b"\x01a"),),
                     (wait(name=b"\0"),), (wait(name=b"\x02w"),), (wait(name=b""),)):
            self.refuse(self.with_items(WAITS, *what))
        self.machine.executor.waits.next_number = 5
        self.pieces = list(encode_state(self.machine))
        self.refuse(self.with_items(WAITS, wait(), wait(number=2)), "waits twice")
        self.refuse(self.with_items(WAITS, wait(), wait(number=2, first=2)), "no session")

    def test_sessions(self):
        def session(key: bytes, last: int, used: int, *kept: tuple[int, bytes]) -> bytes:
            return sectionitems.column(struct.pack(">16sQQ", key, last, used),
                                    [n for n, _ in kept], [reply for _, reply in kept])
        a, b, c = (session(A, 1, 7), session(B, 1, 8, (1, b"reply")), session(C, 1, 9, (1, b"")))
        load(self.with_items(SESSION_SECTION, a, b, c), self.machine)
        other = bytes(15) + b"\1"
        for what in ((b, a, c), (a, c, b), (a, a, c), (a, b, b, c), (a, b), (a, b, c, c),
                     (a, session(A, 2, 8), b, c), (session(A, 0, 7), b, c),
                     (a, session(B, 1, 10, (1, b"reply")), c),
                     (session(A, 1, 7, (2, b"x")), b, c), (session(A, 1, 7, (0, b"x")), b, c),
                     (session(A, 2, 7, (2, b"x"), (1, b"x")), b, c),
                     (session(A, 2, 7, (1, b"x"), (1, b"x")), b, c),
                     (a, session(B, 1, 8, (1, b"")), c), (a, b, session(C, 2, 9, (2, b""))),
                     (session(requests.NO_SESSION, 1, 7), b, c),
                     (session(requests.INTERNAL_SESSION, 1, 7), b, c),
                     (a[:-1], b, c), (a, session(other, 1, 9), b, c)):
            self.refuse(self.with_items(SESSION_SECTION, *what))
        self.refuse([*self.with_items(SESSION_SECTION, a, b, c)[:-2], self.pieces[-1]])

    def test_flipped_bytes_are_refused_or_load(self):
        # The checksums of the file find damage; here nothing else than MalformedError may come.
        source = random.Random(3)
        small = [piece for piece in self.pieces if len(piece) < 1000]
        self.assertGreater(len(small), 4)
        refused = 0
        for _ in range(2000):
            place = self.pieces.index(source.choice(small))
            data = bytearray(self.pieces[place])
            data[source.randrange(len(data))] = source.choice((0, 1, 255, source.randrange(256)))
            try:
                load([*self.pieces[:place], bytes(data), *self.pieces[place + 1:]], self.machine)
            except MalformedError:
                refused += 1
        self.assertGreater(refused, 700)


if __name__ == "__main__":
    unittest.main()
