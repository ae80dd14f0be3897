"""Peers: the connections that this node dials, one for each other node.

Rules (design: Connections between nodes): a node sends on the connection that it dialled and
receives on those that it accepted. A connection that ended is dialled again at once, then with
growing waits; a refused redial after an end says that the process there is dead. How long a dial
and its greeting may take follows from how long they took. Messages sent while a connection is being
made wait in a small bounded list; all others are dropped: the core sends again.

Appends and chunks of snapshots may be large, and every other message overtakes those that have not
begun to leave. Raft bears it: messages may come in any order, and the commit index of a heartbeat
that overtakes is bounded by what the follower has acknowledged (raft/leader.py). One exception:
nothing overtakes a greeting, which says how to take what follows it, nor does a greeting overtake.
"""

import socket
from collections import deque
from collections.abc import Callable

from raftnet.config import NetConfig
from raftnet.errors import ErrorCode, MalformedError
from raftnet.net.connection import Connection
from raftnet.net.dialling import TOO_LATE, Dial
from raftnet.net.loop import Loop
from raftnet.net.messages import encode_message
from raftnet.net.names import Names, Place
from raftnet.net.sockets import (
    bear_unacknowledged, bytes_under_way, follow_rate, unacknowledged_ms)
from raftnet.wire import requests
from raftnet.wire.frames import HEADER_BYTES, Kind, encode_frame

_EARLY_BYTES_MAX = 256 * 1024       # of messages that wait for a connection in the making
_BRIEF_MS = 5_000                   # longer than any back-off
_REGREET_MS = 100                   # a node that has no cluster yet is greeted again
_PATIENCE_DIALS = 4                 # times what the last dial took
_RATE_MS = 100                      # a path's rate is measured while output waits for so long
# What is large begins with the leader's term and says where it begins (protocol.md): an APPEND by
# the index before its entries, a SNAPSHOT by its index and offset. As bytes these sort like the
# numbers, so that one comparison tells whether a leader starts anew.
_TERM = slice(HEADER_BYTES, HEADER_BYTES + 8)
_INDEX = slice(HEADER_BYTES + 8, HEADER_BYTES + 16)
_OFFSET = slice(HEADER_BYTES + 36, HEADER_BYTES + 44)
_KIND_AT = 9
_LARGE = (Kind.APPEND, Kind.SNAPSHOT)
_ANSWERED = (Kind.APPEND, Kind.HEARTBEAT, Kind.PRE_VOTE)    # whatever the receiver thinks of it
_UNDER_WAY_BYTES = 4_096    # more of it unacknowledged: the path is busy with something large


class Peer:
    """The dialled side of one other node."""

    __slots__ = ("address", "dial", "good", "connection", "greeted_ms", "greeted_with",
                 "unanswered", "ready", "backoff_ms", "retry_ms", "limit_ms", "position",
                 "asked_ms", "measured", "early", "early_bytes", "was_up", "told_down",
                 "up_ms", "brief")

    def __init__(self, address: str, limit_ms: int):
        self.address = address
        self.dial: Dial | None = None   # until the greeting is answered
        self.good: Place | None = None      # where the last greeting was answered
        self.connection: Connection | None = None   # once connected
        self.greeted_ms = 0             # when the last greeting was sent
        self.greeted_with = (b"", 0, 0)  # cluster id, founders' checksum and node id in it
        self.unanswered: deque[tuple[int, bytes]] = deque()     # greetings: (sent, cluster id)
        self.ready = False              # greeted, of our cluster: messages are welcome
        self.backoff_ms = 0             # 0: dial at once
        self.retry_ms = 0               # when to dial
        self.limit_ms = limit_ms        # how long a dial may take, its greeting included
        # Of the newest append or chunk on this connection: the stream that it belongs to, and
        # where in it.
        self.position = ((), b"")
        self.asked_ms = 0               # an answer is due to something sent since then; 0: none
        self.measured: tuple[int, int] | None = None    # when output began to wait; sent by then
        self.early: list[tuple[int, int, bytes]] = []   # (node id, kind, frame): it is being made
        self.early_bytes = 0
        self.was_up = False             # the last connection had been ready
        self.told_down = False          # its failing was logged
        self.up_ms = 0                  # when the greeting of this connection was answered
        self.brief = 0                  # so many connections in a row ended soon


class Peers:
    """All dialled connections. `node` is the server: replica, clock and log."""

    def __init__(self, node, loop: Loop, config: NetConfig, dirty: set[Connection],
                 on_frames: Callable[[Peer, Connection, list], None]):
        self._node = node
        self._loop = loop
        self._config = config
        self._dirty = dirty
        self._on_frames = on_frames
        self._peers: dict[str, Peer] = {}
        self._names = Names(loop.wake, config.look_ups_max)
        self._unacknowledged_ms = unacknowledged_ms(0)
        self._usual_limit_ms = config.dial_timeout_ms   # as the newest dial that succeeded asks for

    def set_targets(self, addresses: list[str]) -> None:
        """Hold connections to these addresses and no others."""
        for address in [a for a in self._peers if a not in addresses]:
            peer = self._peers.pop(address)
            self._drop(peer, "not needed any more")
        for address in addresses:
            if address not in self._peers:
                self._peers[address] = Peer(address, self._config.dial_timeout_ms)
        hello = self._node.replica.greetings.hello()
        for peer in self._peers.values():
            if peer.connection is not None and peer.greeted_with != _identity(hello):
                self._greet(peer)       # our own identity has changed

    def seen(self, address: str) -> None:
        """The node at that address is alive: it has just dialled us."""
        peer = self._peers.get(address)
        if peer is not None and peer.connection is None and peer.dial is None:
            peer.backoff_ms = peer.retry_ms = 0

    def set_patience(self, election_timeout_ms: int) -> None:
        """Elections take so long just now: a connection may be silent for some of that time."""
        duration_ms = unacknowledged_ms(election_timeout_ms)
        if duration_ms != self._unacknowledged_ms:
            self._unacknowledged_ms = duration_ms
            for peer in self._peers.values():
                if peer.connection is not None:
                    bear_unacknowledged(peer.connection.sock, duration_ms)

    def send_message(self, address: str, node_id: int, message) -> None:
        """A Raft message, if there is a connection to that very node or will be one soon."""
        peer = self._peers.get(address)
        if peer is None or not (peer.ready and peer.connection.greeting.node_id == node_id):
            # It may be reached at another of its addresses only.
            peer = next((p for p in self._peers.values() if p.ready
                         and p.connection.greeting.node_id == node_id), peer)
        if peer is None or not (peer.ready or peer.dial is not None
                                or peer.connection is not None
                                or peer.retry_ms <= self._node.now_ms()):
            return
        kind, body = encode_message(message)
        frame = encode_frame(kind, 0, body)
        if peer.ready:
            if peer.connection.greeting.node_id == node_id:
                if not peer.asked_ms and kind in _ANSWERED:
                    peer.asked_ms = self._node.now_ms()
                _send(peer, kind, frame)
        elif peer.early_bytes + len(frame) <= _EARLY_BYTES_MAX:
            peer.early.append((node_id, kind, frame))
            peer.early_bytes += len(frame)

    def send_frame(self, address: str, kind: int, body: bytes) -> None:
        """Any other frame, on a connection."""
        peer = self._peers.get(address)
        if peer is not None and peer.connection is not None:
            peer.connection.send_urgent(encode_frame(kind, 1, body))

    def is_ready(self, address: str) -> bool:
        """Whether messages reach that node."""
        peer = self._peers.get(address)
        return peer is not None and peer.ready

    # --- time

    def next_deadline_ms(self, now_ms: int) -> int:
        """When `tick` wants to be called again."""
        deadline = now_ms + self._config.dial_backoff_ms_max
        for peer in self._peers.values():
            if peer.ready:
                continue
            if peer.dial is not None:
                deadline = min(deadline, now_ms if peer.dial.is_answered
                               else peer.dial.deadline_ms)
            elif peer.connection is None:
                deadline = min(deadline, peer.retry_ms)
            else:
                deadline = min(deadline, _regreet_ms(peer))
        return deadline

    def tick(self, now_ms: int) -> None:
        """Dial what is due, give up what takes too long."""
        for peer in list(self._peers.values()):
            if peer.ready:
                if peer.asked_ms and now_ms - peer.asked_ms >= self._unacknowledged_ms:
                    self._judge_silence(peer, now_ms)
                elif peer.connection.out_bytes:
                    self._measure(peer, now_ms)
                else:
                    peer.measured = None
            elif peer.dial is not None:
                if peer.connection is None:
                    peer.dial.tick(peer.good, self._config.addresses_max)
                elif now_ms >= peer.dial.deadline_ms:
                    self._useless(peer, TOO_LATE, slow=True)
            elif peer.connection is None:
                if now_ms >= peer.retry_ms:
                    self._dial(peer, now_ms)
            elif now_ms >= _regreet_ms(peer):
                self._greet(peer)

    def _judge_silence(self, peer: Peer, now_ms: int) -> None:
        """Where a frame's length was damaged, its reader waits for bytes that are none of it, and
        takes what follows for them: all arrives, and nothing is answered. Begin anew then."""
        connection = peer.connection
        if self._node.heard_ms(connection.greeting.node_id) >= peer.asked_ms:
            peer.asked_ms = 0
        elif connection.out_bytes or bytes_under_way(connection.sock) > _UNDER_WAY_BYTES:
            peer.asked_ms = now_ms      # slow, and moving
        else:
            self._node.peer_silent(connection.greeting.node_id)
            connection.close("all that was sent has arrived, and nothing was answered")

    def _measure(self, peer: Peer, now_ms: int) -> None:
        """Output waits: what leaves meanwhile is what the path carries."""
        sent_bytes = peer.connection.sent_bytes
        if peer.measured is None:
            peer.measured = (now_ms, sent_bytes)
            return
        began_ms, sent_before = peer.measured
        if now_ms - began_ms >= _RATE_MS:
            follow_rate(peer.connection.sock, sent_bytes - sent_before, now_ms - began_ms)
            peer.measured = (now_ms, sent_bytes)

    # --- dialling

    def _dial(self, peer: Peer, now_ms: int) -> None:
        peer.dial = Dial(peer.address, self._loop, self._node.now_ms,
                         max(peer.limit_ms, self._usual_limit_ms), self._unacknowledged_ms,
                         lambda sock: self._connected(peer, sock),
                         lambda reason, refused, slow: self._failed(peer, reason, refused, slow))
        peer.dial.begin(self._names, peer.good, self._config.addresses_max)

    def _connected(self, peer: Peer, sock: socket.socket) -> None:
        peer.connection = Connection(
            sock, peer.address, self._loop, self._config, self._dirty,
            lambda connection, frames: self._frames(peer, connection, frames),
            lambda connection, reason: self._closed(peer, connection, reason))
        peer.unanswered.clear()
        peer.position = ((), b"")
        peer.measured = None
        peer.asked_ms = 0
        self._greet(peer)

    def _greet(self, peer: Peer) -> None:
        peer.greeted_ms = self._node.now_ms()
        hello = self._node.replica.greetings.hello()
        peer.greeted_with = _identity(hello)
        peer.unanswered.append((peer.greeted_ms, hello.cluster_id))
        peer.connection.send(Kind.HELLO, 0, requests.encode_hello(hello))
        peer.connection.fence()

    def _frames(self, peer: Peer, connection: Connection, frames: list) -> None:
        try:
            for kind, _, body in frames:
                if kind == Kind.HELLO_REPLY:
                    self._greeting(peer, connection, requests.decode_hello(body))
                elif kind == Kind.ERROR and connection.greeting is None:
                    code, _, text = requests.decode_error(body)
                    if code == ErrorCode.BAD_FRAME:     # damaged on its way, no judgement of us
                        connection.close(text)
                        return
                    self._node.replica.greetings.refused(peer.address, code, text)
                    self._refused(peer, f"{requests.describe_error(code)}: {text}")
                if connection.closed:
                    return
        except MalformedError as error:
            connection.close(str(error))
            return
        self._on_frames(peer, connection, [f for f in frames if f[0] != Kind.HELLO_REPLY])
        if connection.reader.error is not None:
            connection.close(self._node.describe_damage(connection.reader.error))

    def _greeting(self, peer: Peer, connection: Connection, hello) -> None:
        node, config = self._node, self._config
        refusal = node.replica.greetings.greeted(hello, peer.address)
        if refusal is not None:
            self._refused(peer, refusal[1])
            return
        first = connection.greeting is None
        connection.greeting = hello
        replica = node.replica
        was_ready = peer.ready
        # Answers come in the order of the greetings. One that was not asked for means nothing.
        sent_ms, shown_id = peer.unanswered.popleft() if peer.unanswered else (node.now_ms(), b"")
        # Only a greeting that carried our cluster's id makes us known over there.
        peer.ready = (hello.cluster_id == replica.cluster_id == shown_id
                      and any(replica.cluster_id))
        peer.told_down = False
        if peer.dial is not None:
            peer.up_ms = node.now_ms()
            peer.backoff_ms = 0 if peer.brief <= 1 else min(
                config.dial_backoff_ms_min << min(peer.brief, 16), config.dial_backoff_ms_max)
            took_ms = node.now_ms() - peer.dial.began_ms
            peer.limit_ms = self._usual_limit_ms = min(
                max(config.dial_timeout_ms, _PATIENCE_DIALS * took_ms),
                config.dial_timeout_ms_max)
            peer.good, peer.dial = peer.dial.place, None
        if peer.ready and not was_ready or first and replica.joining.asking is not None:
            peer.was_up = peer.ready
            for node_id, kind, frame in peer.early:
                if node_id == hello.node_id:
                    _send(peer, kind, frame)
            peer.early, peer.early_bytes = [], 0
            replica.peer_connected(peer.address, hello, max(0, node.now_ms() - sent_ms))

    def _refused(self, peer: Peer, text: str) -> None:
        self._node.actions.say("connect", "%s refuses this node: %s", peer.address, text)
        peer.backoff_ms = self._config.dial_backoff_ms_max // 2
        peer.told_down = True       # that is what there is to tell
        peer.connection.close(text)

    # --- ends

    def _closed(self, peer: Peer, connection: Connection, reason: str) -> None:
        if peer.connection is not connection:
            return
        peer.connection = None
        if peer.ready:
            self._node.actions.say("connect", "the connection to %s ended: %s", peer.address,
                                   reason)
        peer.ready = False
        if self._peers.get(peer.address) is not peer:
            return
        if peer.dial is not None:
            peer.dial.go_on(reason)     # not greeted: perhaps at another address of that name
            return
        # One brief connection may be chance; where each is, something is wrong: not ever faster.
        brief = self._node.now_ms() - peer.up_ms < _BRIEF_MS
        peer.brief = peer.brief + 1 if brief else 0
        if not brief:
            peer.backoff_ms = 0
        self._wait(peer)

    def _useless(self, peer: Peer, reason: str, slow: bool) -> None:
        """The other end of a connection does not greet."""
        connection, peer.connection = peer.connection, None
        connection.close(reason)
        peer.dial.go_on(reason, slow)

    def _failed(self, peer: Peer, reason: str, refused: bool, slow: bool) -> None:
        """No address of the peer is of any use now."""
        peer.dial = None
        if refused:
            peer.good = None
        if slow:
            # Not for long where the others are quick: TCP asks ever more rarely, and would not
            # notice that a path has healed.
            quick = any(other.ready for other in self._peers.values())
            most_ms = (max(2 * self._config.dial_timeout_ms, self._usual_limit_ms) if quick
                       else self._config.dial_timeout_ms_max)
            peer.limit_ms = min(2 * peer.limit_ms, most_ms)
        if not peer.told_down:
            peer.told_down = True
            self._node.actions.say("connect", "cannot reach %s: %s; trying again", peer.address,
                                   reason)
        if refused and peer.was_up:
            # Not heard yet where its own connection to us has not ended: the next redial will tell.
            peer.was_up = not self._node.peer_refused(peer.address)
        self._wait(peer)

    def _wait(self, peer: Peer) -> None:
        """The first redial is at once, the next ones after growing waits."""
        config = self._config
        peer.retry_ms = self._node.now_ms() + peer.backoff_ms
        peer.backoff_ms = min(max(2 * peer.backoff_ms, config.dial_backoff_ms_min),
                              config.dial_backoff_ms_max)
        peer.early, peer.early_bytes = [], 0

    def _drop(self, peer: Peer, reason: str) -> None:
        if peer.dial is not None:
            peer.dial.close()
            peer.dial = None
        if peer.connection is not None:
            peer.connection.close(reason)

    def close(self) -> None:
        """Drop everything."""
        self.set_targets([])
        self._names.close()


def _identity(hello) -> tuple[bytes, int, int]:
    return hello.cluster_id, hello.founders_checksum, hello.node_id


def _regreet_ms(peer: Peer) -> int:
    """When a peer without a cluster is greeted again. One that has not answered yet is far, or
    stands still: greetings must not pile up there, but one now and then finds out a dead path."""
    return peer.greeted_ms + (peer.limit_ms if peer.unanswered else _REGREET_MS)


def _send(peer: Peer, kind: int, frame: bytes) -> None:
    """A Raft message on a greeted connection."""
    connection = peer.connection
    if kind == Kind.TIMEOUT_NOW:
        connection.send_bytes(frame)        # who hands over has sent all of its log before
        return
    if kind not in _LARGE:
        connection.send_urgent(frame)
        return
    position = stream, place = _position(frame)
    if stream != peer.position[0] or place < peer.position[1] or (
            place == peer.position[1] and kind == Kind.APPEND):     # a chunk follows its question
        # The leader counts as lost what it sent from here on (or that was of another stream). On a
        # slow link it may still wait here, and would go twice, behind an ever longer queue.
        leaving = connection.leaving
        if leaving and leaving[_KIND_AT] in _LARGE and _position(leaving) == position:
            return      # on its way just now
        connection.forget_waiting()
    peer.position = position
    connection.send_bytes(frame)


def _position(frame: bytes) -> tuple[tuple, bytes]:
    """(stream, place in it) of a frame of a large kind: places ascend while all goes well."""
    term, index = bytes(frame[_TERM]), bytes(frame[_INDEX])
    if frame[_KIND_AT] == Kind.SNAPSHOT:
        return (Kind.SNAPSHOT, term, index), bytes(frame[_OFFSET])
    return (Kind.APPEND, term), index
