"""Watches at replicas: after a read round, through changes of the leader, restarts and installs."""

from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.wire import commands, kvcommands, queuecommands, requests, watches
from raftnet.wire.frames import Kind
from raftnet.wire.watches import EventType, WatchWhat, decode_watch_event
from tests.replicas import Nodes, ReplicaCase
from tests.test_snapshots import small

A, B, C = (f"127.0.0.1:500{n}" for n in (1, 2, 3))
KEY, PREFIX, QUEUE = WatchWhat
PUT, DELETED, EXPIRED, SIZE = EventType


class WatchingCase(ReplicaCase):
    """Three founders; a client's frames, by (client, request id)."""

    def setUp(self):
        self.begin(Config())

    def begin(self, config: Config) -> None:
        """Founded and serving, with the newest version of the state."""
        self.nodes = Nodes(config=config)
        self.nodes.founders(A, B, C)
        self.nodes.run_until(lambda: self.nodes.settled() and all(
            n.replica.machine.state_version == commands.STATE_VERSION
            for n in self.nodes.alive()))
        self.leader = self.nodes.serving()
        self.followers = [n for n in self.nodes.alive() if n is not self.leader]
        self.nodes.answers = []
        self.heard: list[tuple] = []

    def send(self, node, kind: int, body: bytes, request_id: int = 1, client="w") -> None:
        """A frame of a client, at once."""
        node.replica.gateway.client_opened(client)
        node.replica.client_frame(client, request_id, kind, body)

    def watch(self, node, what: int, name: bytes, from_index: int = 0, request_id: int = 1,
              local: bool = False) -> None:
        """Until the first event, or a refusal, is there."""
        self.send(node, Kind.WATCH, watches.encode_watch(local, what, from_index, name), request_id)
        self.nodes.run_until(lambda: self.frames(request_id))

    def frames(self, request_id: int = 1, client="w") -> list[tuple[int, bytes]]:
        """All that came."""
        self.heard += self.nodes.answers
        self.nodes.answers = []
        return [(kind, body) for who, number, kind, body in self.heard
                if (who, number) == (client, request_id)]

    def changes(self, request_id: int = 1) -> list[tuple[int, bytes, bytes]]:
        """(type, name, value)."""
        return [(c.type, c.name, c.value) for kind, body in self.frames(request_id)
                if kind == Kind.WATCH_EVENT for c in decode_watch_event(body).changes or ()]

    def index(self, request_id: int = 1) -> int:
        """As told last."""
        return max(decode_watch_event(body).index for kind, body in self.frames(request_id)
                   if kind == Kind.WATCH_EVENT)

    def put(self, key: bytes, value: bytes) -> None:
        """At whoever leads, and applied everywhere."""
        self.run_command(kvcommands.encode_kv_put(key, value))

    def run_command(self, command: bytes) -> None:
        self.frames()
        leader = self.nodes.serving()
        self.send(leader, Kind.REQUEST,
                  requests.encode_request(requests.NO_SESSION, 1, 0, [command]), client="writer")
        self.nodes.run_until(lambda: any(a[0] == "writer" for a in self.nodes.answers))
        self.nodes.run_until(self.nodes.settled)

    def cut_off(self, address: str) -> None:
        """Nothing passes to or from that node."""
        self.nodes.cut = {pair for other in (A, B, C)
                          for pair in ((address, other), (other, address))}

    def new_leader(self) -> None:
        """The leader is cut off, until another one serves and it has noticed."""
        old = self.leader
        self.cut_off(old.begin.address)
        self.nodes.run_until(lambda: not old.replica.leads and self.nodes.serving() is not None)
        self.nodes.cut = set()
        self.leader = self.nodes.serving()


class TestBeginning(WatchingCase):
    """What is told first, and by whom."""

    def test_a_key_from_now_on(self):
        self.put(b"k", b"1")
        self.watch(self.leader, KEY, b"k")
        self.put(b"other", b"1")
        self.put(b"k", b"2")
        self.run_command(kvcommands.encode_kv_delete(b"k"))
        self.assertEqual(self.changes(), [(PUT, b"k", b"1"), (PUT, b"k", b"2"),
                                          (DELETED, b"k", b"")])
        self.assertEqual(self.index(), self.leader.replica.machine.applied_index)

    def test_not_at_a_follower(self):
        self.watch(self.followers[0], KEY, b"k")
        self.assertEqual(self.assert_error(self.frames()[0], ErrorCode.NOT_LEADER),
                         self.leader.begin.address)

    def test_of_a_node_itself(self):
        self.watch(self.followers[0], PREFIX, b"", local=True)
        self.put(b"k", b"1")
        self.assertEqual(self.changes(), [(PUT, b"k", b"1")])

    def test_not_before_a_quorum_was_heard(self):
        old = self.leader
        self.cut_off(old.begin.address)
        self.send(old, Kind.WATCH, watches.encode_watch(False, KEY, 0, b"k"))
        self.nodes.run_until(lambda: self.frames())
        self.assert_error(self.frames()[0], ErrorCode.NOT_LEADER)
        self.assertEqual(old.replica.watches.count, 0)

    def test_a_queue(self):
        self.watch(self.leader, QUEUE, b"q")
        self.run_command(commands.encode_enqueue(b"q", [b"abc", b"de"]))
        self.run_command(commands.encode_enqueue(b"other", [b"abc"]))
        self.run_command(commands.encode_dequeue(b"q"))
        found = [(c.version, watches.decode_sizes(c.value)) for kind, body in self.frames()
                 for c in decode_watch_event(body).changes]
        self.assertEqual(found, [(0, (0, 0, 0)), (2, (0, 0, 5)), (1, (0, 0, 2))])

    def test_all_that_changes_a_size(self):
        self.watch(self.leader, QUEUE, b"q")
        for command in [
                queuecommands.encode_enqueue_with(b"q", [b"abc", b"de"], delay_ms=3_000),
                commands.encode_enqueue(b"q", [b"x"]), queuecommands.encode_lease(b"q", 2_000),
                commands.encode_execute([commands.encode_enqueue(b"q", [b"y"])])]:
            self.run_command(command)
        for _ in range(200):
            self.nodes.step()
        self.run_command(queuecommands.encode_purge(b"q", 10))
        found = [(c.version, *watches.decode_sizes(c.value)) for kind, body in self.frames()
                 for c in decode_watch_event(body).changes]
        self.assertEqual(found, [(0, 0, 0, 0), (0, 0, 2, 0), (1, 0, 2, 1), (0, 1, 2, 0),
                                 (1, 1, 2, 1), (2, 0, 2, 2), (4, 0, 0, 7), (0, 0, 0, 0)])

    def test_a_key_whose_time_is_over(self):
        self.watch(self.leader, KEY, b"k")
        self.run_command(kvcommands.encode_kv_put(b"k", b"1", ttl_ms=1_000))
        for _ in range(100):
            self.nodes.step()
        self.assertEqual(self.changes(), [(PUT, b"k", b"1"), (EXPIRED, b"k", b"")])

    def test_what_no_watch_is(self):
        for request_id, body in enumerate([b"", watches.encode_watch(False, KEY, 0, b""),
                                           watches.encode_watch(False, 9, 0, b"k")], 1):
            self.send(self.leader, Kind.WATCH, body, request_id)
            self.nodes.step()
            self.assert_error(self.frames(request_id)[0], ErrorCode.BAD_REQUEST)


class TestEnding(WatchingCase):
    """What ends a watch, and what goes on."""

    def test_it_goes_on_at_the_next_leader(self):
        old = self.leader
        self.watch(old, KEY, b"k")
        self.watch(old, KEY, b"k", request_id=2, local=True)
        self.put(b"k", b"1")
        told = self.index()
        self.new_leader()
        self.put(b"k", b"2")
        self.assert_error(self.frames()[-1], ErrorCode.NOT_LEADER)
        self.watch(self.leader, KEY, b"k", told, request_id=3)
        self.put(b"k", b"3")
        self.assertEqual(self.changes(), [(PUT, b"k", b"1")])
        self.assertEqual(self.changes(3), [(PUT, b"k", b"2"), (PUT, b"k", b"3")])
        self.assertEqual(self.changes(2), self.changes() + self.changes(3))

    def test_unwatch(self):
        self.watch(self.leader, KEY, b"k")
        self.send(self.leader, Kind.UNWATCH, watches.encode_unwatch(1), 9)
        self.put(b"k", b"1")
        self.assertEqual(decode_watch_event(self.frames()[-1][1]).changes, None)
        self.assertEqual((len(self.frames()), self.frames(9)), (2, []))

    def test_unwatch_overtakes_a_watch_that_waits_for_its_round(self):
        self.send(self.leader, Kind.WATCH, watches.encode_watch(False, KEY, 0, b"k"))
        self.send(self.leader, Kind.UNWATCH, watches.encode_unwatch(1), 9)
        self.send(self.leader, Kind.WATCH, watches.encode_watch(False, KEY, 0, b"l"))
        self.put(b"k", b"1")
        self.put(b"l", b"2")
        self.assertEqual(self.changes(), [(PUT, b"l", b"2")])
        self.assertEqual(self.leader.replica.watches.count, 1)
        self.assertFalse(self.leader.replica.reads._watches)

    def test_twice_under_one_request_id(self):
        for _ in range(2):
            self.send(self.leader, Kind.WATCH, watches.encode_watch(False, KEY, 0, b"k"))
        self.nodes.run_until(lambda: len(self.frames()) == 2)
        self.assertEqual(sorted(kind for kind, _ in self.frames()), [Kind.ERROR, Kind.WATCH_EVENT])
        self.watch(self.leader, KEY, b"k")
        self.nodes.run_until(lambda: len(self.frames()) == 3)
        self.assert_error(self.frames()[-1], ErrorCode.BAD_REQUEST)

    def test_a_connection_that_ends(self):
        self.watch(self.leader, KEY, b"k")
        self.leader.replica.gateway.client_gone("w")
        self.put(b"k", b"1")
        self.assertEqual((self.changes(), self.leader.replica.watches.count), ([], 0))

    def test_a_node_that_was_restarted_holds_what_it_replays(self):
        self.put(b"k", b"1")
        index = self.leader.replica.machine.applied_index
        self.put(b"k", b"2")
        node = self.followers[0]
        address = node.begin.address
        self.nodes.kill(address)
        self.nodes.revive(address)
        self.nodes.run_until(self.nodes.settled)
        self.watch(node, KEY, b"k", index, local=True)
        self.assertEqual(self.changes(), [(PUT, b"k", b"2")])

    def test_a_snapshot_takes_the_place_of_what_was(self):
        self.begin(small())
        node = self.followers[0]
        address = node.begin.address
        self.watch(node, KEY, b"k", local=True)
        self.watch(node, QUEUE, b"q", request_id=2, local=True)
        index = self.index()
        self.cut_off(address)
        for n in range(60):
            self.send(self.nodes.serving(), Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [kvcommands.encode_kv_put(b"k", b"%d" % n * 40),
                                            commands.encode_enqueue(b"q", [b"m"])]), n, "writer")
            self.nodes.step()
        self.nodes.cut = set()
        self.nodes.run_until(self.nodes.settled)
        self.assertTrue(any("the state is that of the snapshot" in line
                            for line in node.lines.lines), "or nothing was tested")
        self.assert_error(self.frames()[-1], ErrorCode.WATCH_GONE)
        last = decode_watch_event(self.frames(2)[-1][1])
        self.assertEqual([c.version for c in last.changes], [60])
        self.watch(node, KEY, b"k", index, request_id=3, local=True)
        self.assert_error(self.frames(3)[0], ErrorCode.WATCH_GONE)


class TestCosts(WatchingCase):
    """What a turn without watches does."""

    def test_nothing_is_noted_without_watches(self):
        self.put(b"k", b"1")
        self.assertIsNone(self.leader.replica.machine.executor.queue_watch)
        turn = self.leader.replica.turn()
        self.assertEqual(turn.events, [])
