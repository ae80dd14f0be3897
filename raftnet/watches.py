"""Watches: what clients want to be told, and what they are told at the end of a turn.

Rules (protocol.md, Watching): a watch is of one client's connection, and no replicated state. What
is told was applied; on one watch the changes come in the order of the log, none twice and none left
out; `index` says up to where everything has been told. Sizes of queues are told as they are at the
end of a turn.

A watch that is up to date shares what is new with all others of the same name, encoded once. Whose
connection takes no more falls behind: nothing is kept for it but its place in the ring of newest
changes, from which it is told the rest later, or that it is gone. An entry costs nothing for
watches that it does not concern; a watch that nothing concerns is told the index every now and
then, so that it can begin there again on another node, whose ring may begin later.

No I/O, driven by Replica each turn. The read round before a watch begins is in reads.py, the ring
in changering.py.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from raftnet.changering import ChangeRing
from raftnet.config import GatewayConfig
from raftnet.errors import ErrorCode
from raftnet.gateway import Answer, Gateway
from raftnet.machine.machine import Machine
from raftnet.wire import commands, kvcommands, queuecommands
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind
from raftnet.wire.queueresults import decode_describe_result
from raftnet.wire.requests import encode_error
from raftnet.wire.watches import (
    EVENT_OVERHEAD_BYTES, EventType, Watch, WatchWhat, encode_sizes, encode_watch_ended,
    encode_watch_event)

_KEY, _PREFIX, _QUEUE = map(int, WatchWhat)
_PUT, _SIZE = int(EventType.PUT), int(EventType.SIZE)
_BODY_BYTES_MAX = 1024 * 1024   # of one WATCH_EVENT, but for a single larger change
_FRAME_OVERHEAD_BYTES = 64      # of one frame, counted against what a connection may hold
_PROGRESS_TURN_MAX = 500        # watches that are told the index in one turn, and nothing else


class _Topic:
    """A key, a prefix or a queue that somebody watches."""

    __slots__ = ("what", "name", "watchers", "live", "pending", "number", "size")

    def __init__(self, what: int, name: bytes):
        self.what = what
        self.name = name
        self.watchers = 0               # all of them
        # Those that were told everything before this turn, in order of their coming.
        self.live: dict[_Watcher, None] = {}
        self.pending: list[tuple] = []  # what this turn brought, as Held
        self.number = 0                 # in the ring, of the first of them
        self.size: tuple = ()           # of a queue, as told last


class _Watcher:
    """One watch."""

    __slots__ = ("client", "request_id", "local", "topic", "number", "told", "told_ms")

    def __init__(self, client, request_id: int, local: bool, topic: _Topic, told_ms: int):
        self.client = client
        self.request_id = request_id
        self.local = local
        self.topic = topic
        self.number = 0                 # behind: in the ring, of the next change to look at
        self.told = 0                   # everything up to this entry
        self.told_ms = told_ms          # when, by the node's clock


class Watches:
    """The watches at one node. `backlog(client)` gives how many bytes wait to be sent to it."""

    def __init__(self, config: GatewayConfig, machine: Machine, gateway: Gateway):
        self._config = config
        self._machine = machine
        self._gateway = gateway
        self.backlog: Callable[[object], int] = lambda client: 0
        self.count = 0
        self.cut_short = False          # something can be told at once: a turn should follow
        self._ring = self._new_ring()
        # Kind of watch -> name -> who watches it.
        self._topics: dict[int, dict[bytes, _Topic]] = {_KEY: {}, _PREFIX: {}, _QUEUE: {}}
        self._lengths: list[int] = []   # of the prefixes, ascending, each once
        self._prefixes_of: dict[int, int] = {}      # length -> how many prefixes have it
        self._by_client: dict[object, dict[int, _Watcher]] = {}
        self._dirty: list[_Topic] = []
        # Those that are not live, by client: each is told from the ring when there is room.
        self._behind: dict[object, OrderedDict[_Watcher, None]] = {}
        self._quiet: OrderedDict[_Watcher, None] = OrderedDict()    # live, told longest ago first
        self._events: list[Answer] = []
        self._now_ms = 0
        self._turn_left = self._scan_left = 0       # bytes, changes: of this turn
        self._room: dict[object, int] = {}          # by client, of this turn: bytes

    def _new_ring(self) -> ChangeRing:
        config = self._config
        return ChangeRing(config.watch_ring_bytes_max, config.watch_ring_changes_max,
                          self._machine.applied_index)

    # --- what happens

    def changed(self, index: int, changes: list[tuple[int, bytes, int, bytes]]) -> None:
        """The entry at `index` was applied, and changed these keys."""
        ring = self._ring
        number = ring.end
        held = ring.append(index, changes)
        keys, prefixes = self._topics[_KEY], self._topics[_PREFIX]
        if not keys and not prefixes:
            return
        for change in held:
            key = change[1]
            if key in keys:
                self._note(keys[key], change, number)
            for length in self._lengths:
                if length > len(key):
                    break
                topic = prefixes.get(key[:length])
                if topic is not None:
                    self._note(topic, change, number)
            number += 1

    def _note(self, topic: _Topic, change: tuple, number: int) -> None:
        if not topic.live:
            return
        if not topic.pending:
            topic.number = number
            self._dirty.append(topic)
        topic.pending.append(change)

    def _note_sizes(self) -> None:
        """The queues that were touched since the last turn."""
        executor, topics = self._machine.executor, self._topics[_QUEUE]
        touched = executor.queue_watch
        if not touched:
            return
        executor.queue_watch = set()
        for name in touched & topics.keys():
            self._note_size(topics[name])

    def _note_size(self, topic: _Topic) -> None:
        size = self._size_of(topic.name)
        if size != topic.size:
            topic.size = size
            topic.pending = [self._size_change(topic)]
            self._dirty.append(topic)

    def _size_change(self, topic: _Topic) -> tuple:
        ready, *rest = topic.size
        return _SIZE, topic.name, ready, self._machine.applied_index, encode_sizes(*rest)

    def _size_of(self, name: bytes) -> tuple[int, int, int, int]:
        """(ready, leased, delayed, bytes of the ready ones)."""
        status, payload = self._machine.read(queuecommands.encode_describe(name))
        if status == Status.OK:
            found = decode_describe_result(payload)
            return found.ready, found.leased, found.delayed, found.ready_bytes
        # No such queue; or a state of version 1, which knows nothing but this.
        status, payload = self._machine.read(commands.encode_size(name))
        messages, size_bytes = commands.decode_size_result(payload)
        return messages, 0, 0, size_bytes

    # --- telling

    def tell(self, now_ms: int) -> list[Answer]:
        """Once a turn, when everything is applied: the frames that nobody asked for just now, to be
        sent before the turn's answers."""
        config = self._config
        self.cut_short = False
        self._now_ms = now_ms
        self._turn_left, self._scan_left = config.watch_turn_bytes_max, config.watch_turn_scan_max
        self._room.clear()
        if not self.count and not self._events:
            return []
        if self._topics[_QUEUE]:
            self._note_sizes()
        for topic in self._dirty:
            self._tell_live(topic)
        self._dirty.clear()
        if self._behind:
            self._catch_up()
        self._tell_progress()
        events, self._events = self._events, []
        return events

    def _tell_live(self, topic: _Topic) -> None:
        pending, topic.pending = topic.pending, []
        applied = self._machine.applied_index
        bodies = list(_bodies(applied, pending))
        size = sum(map(len, bodies)) + _FRAME_OVERHEAD_BYTES * len(bodies)
        for watcher in list(topic.live):
            if self._has_room(watcher.client):
                client, request_id = watcher.client, watcher.request_id
                self._events += [(client, request_id, Kind.WATCH_EVENT, body) for body in bodies]
                self._told(watcher, applied, size)
            else:
                watcher.number = topic.number
                self._fall_behind(watcher)

    def _has_room(self, client) -> bool:
        room = self._room.get(client)
        if room is None:
            room = self._config.watch_backlog_bytes_max - self.backlog(client)
            self._room[client] = room
        return room > 0 and self._turn_left > 0

    def _told(self, watcher: _Watcher, index: int, size: int) -> None:
        watcher.told, watcher.told_ms = index, self._now_ms
        self._turn_left -= size
        client = watcher.client
        self._room[client] = self._room.get(client, 0) - size
        if watcher in self._quiet:
            self._quiet.move_to_end(watcher)

    def _fall_behind(self, watcher: _Watcher) -> None:
        watcher.topic.live.pop(watcher, None)
        self._quiet.pop(watcher, None)
        self._behind.setdefault(watcher.client, OrderedDict())[watcher] = None

    def _come_alive(self, watcher: _Watcher) -> None:
        watcher.topic.live[watcher] = None
        self._quiet[watcher] = None
        behind = self._behind.get(watcher.client)
        if behind is not None:
            behind.pop(watcher, None)
            if not behind:
                del self._behind[watcher.client]

    def _catch_up(self) -> None:
        """Tell those that are behind what they miss, a client after the other."""
        for client in list(self._behind):
            behind = self._behind.pop(client)
            self._behind[client] = behind       # the next turn begins with another one
            while behind and self._has_room(client):
                if self._scan_left <= 0:
                    self.cut_short = True
                    return
                watcher = next(iter(behind))
                if watcher.topic.what != _QUEUE and watcher.number < self._ring.first:
                    self._end_with(watcher, ErrorCode.WATCH_GONE, "it was told too slowly")
                    continue
                body = self._go_on(watcher)
                if body:
                    self._events.append((client, watcher.request_id, Kind.WATCH_EVENT, body))
            # Whoever waits for its connection alone is woken by that.
            if behind and self.backlog(client) < self._config.watch_backlog_bytes_max:
                self.cut_short = True
            if self._turn_left <= 0:
                self.cut_short = bool(self._behind)
                return

    def _go_on(self, watcher: _Watcher) -> bytes:
        """The next piece for a watch that is behind, and it comes alive where that is the last;
        empty where nothing was found so far."""
        topic, ring, applied = watcher.topic, self._ring, self._machine.applied_index
        if topic.what == _QUEUE:
            body = encode_watch_event(applied, [self._size_change(topic)])
            index, done = applied, True
        else:
            if topic.what == _KEY:
                found, number, scanned = ring.of_key(topic.name, watcher.number, _BODY_BYTES_MAX)
            else:
                found, number, scanned = ring.of_prefix(topic.name, watcher.number,
                                                        _BODY_BYTES_MAX, self._scan_left)
            self._scan_left -= scanned + 1
            watcher.number = number
            done = number == ring.end
            # A piece may end in the midst of an entry.
            index = applied if done else max(watcher.told, ring.index_of(number) - 1)
            body = encode_watch_event(index, found) if found or done else b""
        if body:
            self._told(watcher, index, len(body) + _FRAME_OVERHEAD_BYTES)
        if done:
            self._come_alive(watcher)
        return body

    def _tell_progress(self) -> None:
        """Watches that were told nothing for long are told the index: a place in this ring, and
        one that the rings of nodes that began later are more likely to hold."""
        applied, config = self._machine.applied_index, self._config
        body = b""
        for _ in range(min(len(self._quiet), _PROGRESS_TURN_MAX)):
            watcher = next(iter(self._quiet))
            if (watcher.told_ms + config.watch_progress_ms > self._now_ms
                    or self._turn_left <= 0):
                return
            if watcher.told + config.watch_progress_entries > applied or (
                    not self._has_room(watcher.client)):
                watcher.told_ms = self._now_ms      # it is looked at again later
                self._quiet.move_to_end(watcher)
                continue
            body = body or encode_watch_event(applied, ())
            self._events.append((watcher.client, watcher.request_id, Kind.WATCH_EVENT, body))
            self._told(watcher, applied, len(body) + _FRAME_OVERHEAD_BYTES)

    # --- beginning

    def begin(self, client, request_id: int, asked: Watch) -> int:
        """A watch may begin: it is linearizable now, or local. It gets its first event among the
        turn's answers; the bytes of that. Called after `tell` of the same turn."""
        refusal = self._why_not(client, request_id, asked)
        if refusal is not None:
            self._gateway.refuse(client, request_id, *refusal)
            return 0
        topic = self._topics[asked.what].get(asked.name) or self._new_topic(asked)
        topic.watchers += 1
        watcher = _Watcher(client, request_id, asked.local, topic, self._now_ms)
        self._by_client.setdefault(client, {})[request_id] = watcher
        self.count += 1
        body = self._first(watcher, asked.from_index)
        self._gateway.answers.append((client, request_id, Kind.WATCH_EVENT, body))
        if not self._gateway.is_live(client):
            self._end(watcher)      # its connection has ended, or is read from no more
        return len(body)

    def _why_not(self, client, request_id: int,
                 asked: Watch) -> tuple[ErrorCode, str] | None:
        config, applied = self._config, self._machine.applied_index
        mine = self._by_client.get(client, ())
        if request_id in mine:
            return ErrorCode.BAD_REQUEST, "a watch with this request id is under way"
        if len(mine) >= config.watches_per_client_max:
            return (ErrorCode.TOO_LARGE, f"{config.watches_per_client_max} watches on one "
                    "connection are allowed; watch a prefix")
        if self.count >= config.watches_max:
            return ErrorCode.BUSY, f"{self.count} watches are under way here"
        if asked.what == _QUEUE or not asked.from_index:
            return None
        if asked.from_index > applied:
            # Not local, all that any node ever told is applied here.
            return ((ErrorCode.NOT_READY, f"only entries up to {applied} are applied here so far")
                    if asked.local else
                    (ErrorCode.WATCH_GONE, f"entry {asked.from_index} was never told: the last one "
                     f"is {applied}"))
        if asked.from_index < self._ring.base_index:
            return (ErrorCode.WATCH_GONE, "this node holds the changes after entry "
                    f"{self._ring.base_index}")
        return None

    def _first(self, watcher: _Watcher, from_index: int) -> bytes:
        """The body of its first event."""
        topic, applied = watcher.topic, self._machine.applied_index
        assert not topic.pending, "all that was applied has been told"
        if topic.what != _QUEUE and from_index:
            watcher.number, watcher.told = self._ring.number_after(from_index), from_index
            body = self._go_on(watcher) if self._scan_left > 0 else b""
            if watcher not in topic.live:
                self._fall_behind(watcher)
                self.cut_short = True
            return body or encode_watch_event(from_index, ())
        found = []
        if topic.what == _QUEUE:
            topic.size = topic.size or self._size_of(topic.name)
            found = [self._size_change(topic)]
        elif topic.what == _KEY:
            status, payload = self._machine.read(kvcommands.encode_kv_get(topic.name))
            if status == Status.OK:
                item = kvcommands.decode_kv_get_result(payload)
                found = [(_PUT, topic.name, item.version, applied, item.value)]
        watcher.told = applied
        self._come_alive(watcher)
        return encode_watch_event(applied, found)

    def _new_topic(self, asked: Watch) -> _Topic:
        topic = self._topics[asked.what][asked.name] = _Topic(asked.what, asked.name)
        if asked.what == _PREFIX:
            self._count_prefix(len(asked.name), 1)
        elif asked.what == _QUEUE and self._machine.executor.queue_watch is None:
            self._machine.executor.queue_watch = set()
        return topic

    def _count_prefix(self, length: int, change: int) -> None:
        counts = self._prefixes_of
        counts[length] = counts.get(length, 0) + change
        if not counts[length]:
            del counts[length]
        if len(counts) != len(self._lengths):
            self._lengths = sorted(counts)

    # --- ending

    def unwatch(self, client, request_id: int) -> None:
        """The client wants no more of that watch; or of one that has ended, or never was."""
        watcher = self._by_client.get(client, {}).get(request_id)
        index = 0
        if watcher is not None:
            live = watcher in watcher.topic.live
            index = self._machine.applied_index if live else watcher.told
            self._end(watcher)
        self._gateway.answers.append((client, request_id, Kind.WATCH_EVENT,
                                      encode_watch_ended(index)))

    def client_gone(self, client) -> None:
        """A connection ended."""
        for watcher in list(self._by_client.get(client, {}).values()):
            self._end(watcher)

    def leadership_lost(self, leader: str) -> None:
        """The watches that are not local end."""
        ended = [watcher for mine in self._by_client.values() for watcher in mine.values()
                 if not watcher.local]
        for watcher in ended:
            self._end_with(watcher, ErrorCode.NOT_LEADER,
                           "this node leads no more; the watch goes on at the leader", leader)

    def begin_anew(self, machine: Machine) -> None:
        """Another machine takes the place, out of a snapshot or of another cluster: how the keys
        got there is not known. Sizes of queues are what they are."""
        for mine in list(self._by_client.values()):
            for watcher in list(mine.values()):
                if watcher.topic.what != _QUEUE:
                    self._end_with(watcher, ErrorCode.WATCH_GONE,
                                   "the state is that of a snapshot now")
        self._machine = machine
        self._ring = self._new_ring()
        self._dirty.clear()
        if self._topics[_QUEUE]:
            machine.executor.queue_watch = set(self._topics[_QUEUE])    # as if all were touched

    def _end_with(self, watcher: _Watcher, code: ErrorCode, text: str, leader: str = "") -> None:
        self._events.append((watcher.client, watcher.request_id, Kind.ERROR,
                             encode_error(code, text, leader)))
        self._end(watcher)

    def _end(self, watcher: _Watcher) -> None:
        client, topic = watcher.client, watcher.topic
        mine = self._by_client[client]
        del mine[watcher.request_id]
        if not mine:
            del self._by_client[client]
        self.count -= 1
        behind = self._behind.get(client)
        if behind is not None:
            behind.pop(watcher, None)
            if not behind:
                del self._behind[client]
        topic.live.pop(watcher, None)
        self._quiet.pop(watcher, None)
        topic.watchers -= 1
        if topic.watchers:
            return
        topics = self._topics[topic.what]
        del topics[topic.name]
        if topic.what == _PREFIX:
            self._count_prefix(len(topic.name), -1)
        elif topic.what == _QUEUE and not topics:
            self._machine.executor.queue_watch = None


def _bodies(index: int, changes: list[tuple]) -> Iterator[bytes]:
    """WATCH_EVENTs of bounded size; the last one says that everything up to `index` is told."""
    piece, size = [], 0
    for change in changes:
        more = len(change[1]) + len(change[4]) + EVENT_OVERHEAD_BYTES
        if piece and size + more > _BODY_BYTES_MAX:
            # The entry of this change may have been begun.
            yield encode_watch_event(change[3] - 1, piece)
            piece, size = [], 0
        piece.append(change)
        size += more
    yield encode_watch_event(index, piece)
