"""What watches are told: each change once and in order, to whom it concerns, and to nobody more
than its connection takes."""

import random
import unittest
from types import SimpleNamespace

from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.gateway import Gateway
from raftnet.watches import Watches
from raftnet.wire import commands, kvcommands, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.frames import Kind
from raftnet.wire.watches import EventType, Watch, WatchWhat, decode_sizes, decode_watch_event

KEY, PREFIX, QUEUE = WatchWhat
PUT, DELETED, EXPIRED, SIZE = EventType
MIB = 1024 * 1024


class FakeMachine:
    """Keys and sizes of queues; its entries change them."""

    def __init__(self, applied_index: int = 0):
        self.applied_index = applied_index
        self.keys: dict[bytes, tuple[int, bytes]] = {}
        self.sizes: dict[bytes, int] = {}
        self.version = 0
        self.executor = SimpleNamespace(queue_watch=None)

    def read(self, command: bytes) -> tuple[int, bytes]:
        operation, command = command[4], command[4:]
        if operation == Operation.KV_GET:
            item = self.keys.get(kvcommands.decode_kv_get(command))
            return ((Status.EMPTY, b"") if item is None else
                    (Status.OK, kvcommands.encode_kv_get_result(item[0], 0, item[1])))
        if operation == Operation.SIZE:
            messages = self.sizes.get(commands.decode_size(command), 0)
            return Status.OK, commands.encode_size_result(messages, 10 * messages)
        return Status.UNKNOWN, b""


class WatchesCase(unittest.TestCase):
    """Watches at a machine that a test changes; `told` is what a client would know."""

    def setUp(self):
        self.config = Config()
        self.make(FakeMachine())

    def make(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.gateway = Gateway(self.config.gateway, self.config.wire, machine)
        self.watches = Watches(self.config.gateway, machine, self.gateway)
        self.gateway.on_client_gone = self.watches.client_gone
        self.backlogs: dict = {}
        self.watches.backlog = lambda client: self.backlogs.get(client, 0)
        self.now_ms = 0
        self.told: dict[tuple, list] = {}       # (client, request id): frames as (index, changes)

    def entry(self, **changes: bytes | None) -> int:
        """An entry that puts and (None) deletes keys; its index."""
        machine = self.machine
        machine.applied_index += 1
        found = []
        for name, value in changes.items():
            machine.version += 1
            key = name.encode()
            if value is None:
                del machine.keys[key]
            else:
                machine.keys[key] = machine.version, value
            found.append((DELETED if value is None else PUT, key, machine.version, value or b""))
        if found:
            self.watches.changed(machine.applied_index, found)
        return machine.applied_index

    def enqueue(self, name: bytes, count: int) -> None:
        """An entry that makes the queue longer."""
        self.machine.applied_index += 1
        self.machine.sizes[name] = self.machine.sizes.get(name, 0) + count
        if self.machine.executor.queue_watch is not None:
            self.machine.executor.queue_watch.add(name)

    def turn(self, *asked, now_ms: int = 0) -> int:
        """The end of a turn; `asked`: (client, request id, Watch) that begin. How many frames."""
        self.now_ms += now_ms
        frames = self.watches.tell(self.now_ms)
        for each in asked:
            self.watches.begin(*each)
        frames += self.gateway.answers
        self.gateway.answers = []
        self.turn_bytes: dict = {}
        for client, request_id, kind, body in frames:
            self.turn_bytes[client] = self.turn_bytes.get(client, 0) + len(body)
            what = decode_watch_event(body) if kind == Kind.WATCH_EVENT else (
                requests.decode_error(body)[0], kind)
            self.told.setdefault((client, request_id), []).append(what)
        return len(frames)

    def watch(self, what: int, name: bytes, from_index: int = 0, client="a", request_id: int = 1,
              local: bool = False) -> None:
        """A watch begins, in a turn."""
        self.gateway.client_opened(client)
        self.turn((client, request_id, Watch(local, what, from_index, name)))

    def changes(self, client="a", request_id: int = 1) -> list[tuple]:
        """(type, key, index, value) of all that was told on that watch."""
        return [(c.type, c.name, c.index, c.value) for _, found in self.told[client, request_id]
                for c in found or ()]

    def last(self, client="a", request_id: int = 1):
        """The newest frame: (index, changes), or (error code, Kind.ERROR)."""
        return self.told[client, request_id][-1]


class Telling(WatchesCase):
    def test_a_key_as_it_is_and_what_follows(self):
        self.entry(x=b"1")
        self.entry(y=b"1")
        self.watch(KEY, b"x")
        self.assertEqual(self.changes(), [(PUT, b"x", 2, b"1")])
        self.entry(x=b"2", y=b"2")
        self.entry(xx=b"1")
        self.entry(x=None)
        self.turn()
        self.assertEqual(self.changes()[1:], [(PUT, b"x", 3, b"2"), (DELETED, b"x", 5, b"")])
        self.assertEqual(self.last()[0], 5)
        self.assertEqual([c.version for c in self.last()[1]], [3, 6])

    def test_a_key_that_is_not_there(self):
        self.entry(y=b"1")
        self.watch(KEY, b"x")
        self.assertEqual(self.last(), (1, []))

    def test_a_prefix(self):
        self.entry(ab=b"0")
        self.watch(PREFIX, b"ab")
        self.watch(PREFIX, b"", request_id=2)
        self.watch(PREFIX, b"abc", request_id=3)
        self.assertEqual([self.last(request_id=n) for n in (1, 2, 3)], [(1, [])] * 3)
        self.entry(a=b"1", ab=b"2", abc=b"3", b=b"4")
        self.turn()
        keys = [[key for _, key, _, _ in self.changes(request_id=n)] for n in (1, 2, 3)]
        self.assertEqual(keys, [[b"ab", b"abc"], [b"a", b"ab", b"abc", b"b"], [b"abc"]])

    def test_nothing_is_said_where_nothing_concerns(self):
        self.watch(KEY, b"x")
        self.watch(PREFIX, b"p", request_id=2)
        self.watch(QUEUE, b"q", request_id=3)
        self.entry(y=b"1")
        self.enqueue(b"other", 1)
        self.assertEqual(self.turn(), 0)

    def test_sizes_are_those_at_the_end_of_a_turn(self):
        self.machine.sizes[b"q"] = 2
        self.watch(QUEUE, b"q", from_index=99)
        self.watch(QUEUE, b"q", client="b")
        for _ in range(5):
            self.enqueue(b"q", 1)
        self.turn()
        self.enqueue(b"q", 0)
        self.assertEqual(self.turn(), 0, "touched, and as before")
        for client in "ab":
            sizes = [(c.version, decode_sizes(c.value)) for _, found in self.told[client, 1]
                     for c in found]
            self.assertEqual(sizes, [(2, (0, 0, 20)), (7, (0, 0, 70))])
        self.assertEqual(self.last()[0], 5)

    def test_queues_are_noted_only_while_one_is_watched(self):
        executor = self.machine.executor
        self.watch(QUEUE, b"q")
        self.watch(QUEUE, b"r", request_id=2)
        self.assertEqual(executor.queue_watch, set())
        self.watches.unwatch("a", 1)
        self.assertIsNotNone(executor.queue_watch)
        self.watches.unwatch("a", 2)
        self.assertIsNone(executor.queue_watch)

    def test_large_changes_come_in_several_frames(self):
        self.watch(KEY, b"x")
        for _ in range(3):
            self.entry(x=bytes(700_000))
        self.turn()
        self.assertEqual([index for index, _ in self.told["a", 1]], [0, 1, 2, 3])

    def test_the_index_of_a_piece_is_before_the_entry_that_it_breaks(self):
        self.watch(PREFIX, b"")
        self.entry(a=b"")
        self.entry(x=bytes(700_000), y=bytes(700_000))
        self.turn()
        self.assertEqual([(index, len(found)) for index, found in self.told["a", 1][1:]],
                         [(1, 2), (2, 1)])


class Resuming(WatchesCase):
    def test_all_after_an_index(self):
        for n in range(1, 6):
            self.entry(x=b"%d" % n, y=b"")
        self.watch(KEY, b"x", from_index=2)
        self.watch(PREFIX, b"x", from_index=2, request_id=2)
        self.watch(KEY, b"x", from_index=5, request_id=3)
        for request_id in (1, 2):
            self.assertEqual([index for *_, index, _ in self.changes(request_id=request_id)],
                             [3, 4, 5])
        self.assertEqual(self.last(request_id=3), (5, []))
        self.entry(x=b"6")
        self.turn()
        for request_id in (1, 2, 3):
            self.assertEqual(self.changes(request_id=request_id)[-1], (PUT, b"x", 6, b"6"))

    def test_each_change_once_wherever_it_begins(self):
        chance = random.Random(3)
        for _ in range(40):
            self.make(FakeMachine())
            began = []
            for request_id in range(1, 40):
                for _ in range(chance.randint(0, 3)):
                    self.entry(**{key: b"" for key in chance.sample(["a", "ab", "b"], 2)})
                name, what = chance.choice([(b"a", KEY), (b"a", PREFIX), (b"", PREFIX)])
                index = chance.randint(1, max(1, self.machine.applied_index))
                if self.machine.applied_index:
                    self.gateway.client_opened("a")
                    self.turn(("a", request_id, Watch(False, what, index, name)))
                    began.append((request_id, what, name, index))
                self.backlogs["a"] = chance.choice([0, 0, 10 * MIB])
            self.backlogs.clear()
            self.turn(now_ms=10)
            self.turn(now_ms=10)
            for request_id, what, name, index in began:
                found = [(at, key) for _, key, at, _ in self.changes(request_id=request_id)]
                expected = [(change[3], change[1]) for change in self.watches._ring._items
                            if change[3] > index and (change[1] == name if what == KEY else
                                                      change[1].startswith(name))]
                self.assertEqual(found, expected)

    def test_a_piece_that_ends_in_the_midst_of_an_entry(self):
        self.entry(a=b"")
        self.entry(a=b"")
        self.entry(x=bytes(700_000), y=bytes(700_000))
        for request_id, from_index in ((1, 1), (2, 2)):
            self.watch(PREFIX, b"", from_index=from_index, request_id=request_id)
            self.assertEqual(self.last(request_id=request_id)[0], 2, "entry 3 is not told whole")
            self.turn()
            self.assertEqual(self.last(request_id=request_id)[0], 3)
        self.assertEqual([key for _, key, _, _ in self.changes()], [b"a", b"x", b"y"])

    def test_what_is_held_no_more(self):
        self.config.gateway.watch_ring_changes_max = 3
        self.make(FakeMachine(applied_index=10))
        self.watch(KEY, b"x", from_index=9)
        self.assertEqual(self.last(), (ErrorCode.WATCH_GONE, Kind.ERROR))
        self.watch(KEY, b"x", from_index=10)
        self.assertEqual(self.last(), (10, []))
        for _ in range(5):
            self.entry(x=b"")
        self.watch(KEY, b"x", from_index=11, request_id=2)
        self.assertEqual(self.last(request_id=2), (ErrorCode.WATCH_GONE, Kind.ERROR))
        self.watch(KEY, b"x", from_index=12, request_id=3)
        self.assertEqual(len(self.changes(request_id=3)), 3)
        self.assertEqual(self.watches.count, 2)

    def test_an_index_of_the_future(self):
        self.entry(x=b"1")
        self.watch(KEY, b"x", from_index=2)
        self.assertEqual(self.last(), (ErrorCode.WATCH_GONE, Kind.ERROR))
        self.watch(KEY, b"x", from_index=2, request_id=2, local=True)
        self.assertEqual(self.last(request_id=2), (ErrorCode.NOT_READY, Kind.ERROR))

    def test_much_to_look_at_is_looked_at_in_several_turns(self):
        self.config.gateway.watch_turn_scan_max = 100
        self.make(FakeMachine())
        for n in range(350):
            self.entry(**{"hit" if n % 90 == 0 else "other": b""})
        self.watch(PREFIX, b"hit", from_index=1)
        turns = 0
        while self.watches.cut_short:
            self.turn()
            turns += 1
        self.assertEqual([index for *_, index, _ in self.changes()], [91, 181, 271])
        self.assertIn(turns, (3, 4))
        self.assertEqual(self.last()[0], 350)

    def test_told_now_and_then_that_nothing_came(self):
        config = self.config.gateway
        self.watch(KEY, b"x")
        self.watch(KEY, b"y", request_id=2)
        for _ in range(config.watch_progress_entries):
            self.entry(z=b"")
        self.entry(y=b"")
        self.turn(now_ms=config.watch_progress_ms - 1)
        self.assertEqual(len(self.told["a", 1]), 1, "not that soon")
        self.turn(now_ms=1)
        self.assertEqual(self.last(), (config.watch_progress_entries + 1, []))
        self.assertEqual(len(self.told["a", 2]), 2, "it was told an event")
        for _ in range(config.watch_progress_entries - 1):
            self.entry(z=b"")
        self.turn(now_ms=10 * config.watch_progress_ms)
        self.assertEqual(len(self.told["a", 1]), 2, "not for that little")


class Bounds(WatchesCase):
    def test_so_many_watches(self):
        self.config.gateway.watches_per_client_max = 2
        self.config.gateway.watches_max = 3
        for client, request_id in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)):
            self.watch(KEY, b"x", client=client, request_id=request_id)
        self.assertEqual(self.last("a", 3), (ErrorCode.TOO_LARGE, Kind.ERROR))
        self.assertEqual(self.last("b", 2), (ErrorCode.BUSY, Kind.ERROR))
        self.watch(KEY, b"y", client="a", request_id=1)
        self.assertEqual(self.last("a", 1), (ErrorCode.BAD_REQUEST, Kind.ERROR))
        self.assertEqual(self.watches.count, 3)

    def test_who_does_not_read_is_told_later(self):
        self.watch(KEY, b"x")
        self.watch(KEY, b"x", client="b")
        self.backlogs["a"] = 10 * MIB
        for n in range(3):
            self.entry(x=b"%d" % n)
            self.turn()
            self.assertFalse(self.watches.cut_short, "only the connection can help")
        self.assertEqual((len(self.changes("a")), len(self.changes("b"))), (0, 3))
        self.backlogs["a"] = 0
        self.entry(x=b"3")
        self.turn()
        self.assertEqual(self.changes("a"), self.changes("b"))
        self.entry(x=b"4")
        self.turn()
        self.assertEqual(self.changes("a"), self.changes("b"))

    def test_who_reads_too_late_is_told_that_it_is_gone(self):
        self.config.gateway.watch_ring_changes_max = 3
        self.make(FakeMachine())
        self.watch(KEY, b"x")
        self.watch(QUEUE, b"q", request_id=2)
        self.backlogs["a"] = 10 * MIB
        for _ in range(4):
            self.entry(x=b"")
            self.enqueue(b"q", 1)
            self.turn()
        self.assertEqual(len(self.told["a", 1]), 1)
        self.backlogs.clear()
        self.turn()
        self.assertEqual(self.last(), (ErrorCode.WATCH_GONE, Kind.ERROR))
        self.assertEqual(self.last(request_id=2)[1][0].version, 4)
        self.assertEqual(self.watches.count, 1)

    def test_no_turn_tells_more_than_so_much(self):
        config, size = self.config.gateway, 400_000
        clients = [f"client {n}" for n in range(20)]
        for client in clients:
            for request_id in range(1, 11):
                self.watch(KEY, b"x", client=client, request_id=request_id)
        self.entry(x=bytes(size))
        more = True
        while more:
            self.turn()
            sizes = self.turn_bytes
            self.assertLess(max(sizes.values(), default=0),
                            config.watch_backlog_bytes_max + 2 * size)
            self.assertLess(sum(sizes.values()), config.watch_turn_bytes_max + 2 * size)
            more = self.watches.cut_short
        for client in clients:
            for request_id in range(1, 11):
                self.assertEqual([index for *_, index, _ in self.changes(client, request_id)], [1])

    def test_nothing_is_kept_for_a_slow_one(self):
        self.watch(PREFIX, b"")
        self.backlogs["a"] = 10 * MIB
        for _ in range(100):
            self.entry(x=b"")
            self.turn()
        topic = self.watches._topics[PREFIX][b""]
        self.assertEqual((topic.pending, list(topic.live)), ([], []))

    def test_an_entry_costs_nothing_for_others(self):
        for request_id in range(1, 5_001):
            self.watch(KEY, b"key%d" % request_id, request_id=request_id)
            self.watch(PREFIX, b"pre%d" % request_id, client="b", request_id=request_id)
        noted = []
        note = self.watches._note
        self.watches._note = lambda *of: (noted.append(of), note(*of))
        self.entry(key7=b"", other=b"", pre77=b"")
        # both prefixes of "pre77", and one key
        self.assertEqual(len(noted), 3)
        self.assertEqual(self.watches._lengths, [4, 5, 6, 7])
        self.assertEqual(self.turn(), 3)


class Ending(WatchesCase):
    def test_unwatch(self):
        self.watch(KEY, b"x")
        self.entry(y=b"")
        self.turn()
        self.watches.unwatch("a", 1)
        self.watches.unwatch("a", 8)
        self.entry(x=b"")
        self.turn()
        self.assertEqual(self.last(), (1, None))
        self.assertEqual(self.last(request_id=8), (0, None))
        self.assertEqual(self.watches.count, 0)

    def test_a_connection_ends(self):
        for request_id, (what, name) in enumerate([(KEY, b"x"), (PREFIX, b"x"), (QUEUE, b"x")]):
            self.watch(what, name, request_id=request_id)
        self.backlogs["a"] = 10 * MIB
        self.entry(x=b"")
        self.enqueue(b"x", 1)
        self.turn()
        self.gateway.client_gone("a")
        self.assert_nothing_is_kept()
        self.entry(x=b"")
        self.assertEqual(self.turn(), 0)

    def test_who_has_gone_before_it_begins_is_told_once(self):
        self.entry(x=b"1")
        self.turn(("nobody", 1, Watch(False, KEY, 0, b"x")))
        self.assertEqual(self.changes("nobody"), [(PUT, b"x", 1, b"1")])
        self.assert_nothing_is_kept()

    def test_leadership_ends(self):
        self.watch(KEY, b"x")
        self.watch(QUEUE, b"q", request_id=2)
        self.watch(KEY, b"x", request_id=3, local=True)
        self.entry(x=b"1")
        self.watches.leadership_lost("leader:1")
        self.turn()
        for request_id in (1, 2):
            self.assertEqual(self.last(request_id=request_id), (ErrorCode.NOT_LEADER, Kind.ERROR))
        self.assertEqual(self.changes(request_id=3), [(PUT, b"x", 1, b"1")])

    def test_another_machine(self):
        self.watch(KEY, b"x", local=True)
        self.watch(QUEUE, b"q", request_id=2, local=True)
        self.watch(QUEUE, b"r", request_id=3, local=True)
        self.entry(x=b"1")
        self.machine = FakeMachine(applied_index=50)
        self.machine.sizes[b"q"] = 5
        self.watches.begin_anew(self.machine)
        self.turn()
        self.assertEqual(self.last(), (ErrorCode.WATCH_GONE, Kind.ERROR))
        index, (change,) = self.last(request_id=2)
        self.assertEqual((index, change.version), (50, 5))
        self.assertEqual(len(self.told["a", 3]), 1, "as it was")
        self.enqueue(b"r", 1)
        self.turn()
        self.assertEqual(self.last(request_id=3)[1][0].version, 1)
        self.watch(KEY, b"x", from_index=49, request_id=4, local=True)
        self.assertEqual(self.last(request_id=4), (ErrorCode.WATCH_GONE, Kind.ERROR))

    def assert_nothing_is_kept(self) -> None:
        watches = self.watches
        self.assertEqual(watches.count, 0)
        for kept in (*watches._topics.values(), watches._lengths, watches._prefixes_of,
                     watches._by_client, watches._behind, watches._quiet):
            self.assertFalse(kept)
        self.assertIsNone(self.machine.executor.queue_watch)


class TenThousand(WatchesCase):
    def test_they_are_all_told(self):
        names = [b"x", b"y"] + [b"k%d" % n for n in range(98)]
        for client in range(10):
            self.gateway.client_opened(client)
            self.turn(*[(client, n, Watch(False, KEY, 0, names[n % 100])) for n in range(1_000)])
        self.assertEqual(self.watches.count, 10_000)
        self.entry(x=b"1")
        self.assertEqual(self.turn(), 100)
        for _ in range(600):
            self.entry(z=b"")
        while self.turn(now_ms=1_000):
            pass
        self.assertEqual({frames[-1][0] for frames in self.told.values()}, {601})
        self.watches.leadership_lost("")
        self.assertEqual(self.turn(), 10_000)


if __name__ == "__main__":
    unittest.main()
