"""Peers: the connections that this node dials, one for each other node.

Rules (design: Connections between nodes): a node sends on the connection that it dialled and
receives on those that it accepted. A connection that ended is dialled again at once, then with
growing waits; a refused redial after an end says that the process there is dead. Messages sent
while a connection is being made wait in a small bounded list; all others are dropped: the core
sends again.
"""

import errno
import socket
from collections.abc import Callable

from raftnet.config import NetConfig
from raftnet.errors import MalformedError
from raftnet.net.connection import Connection
from raftnet.net.loop import WRITE, Loop
from raftnet.net.messages import encode_message
from raftnet.wire import requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind, encode_frame

_EARLY_BYTES_MAX = 256 * 1024       # of messages that wait for a connection in the making
_REGREET_MS = 100                   # a node that has no cluster yet is greeted again
# A path that swallows everything ends the connection after this, where the system can do it:
# left alone, TCP tries again ever more rarely, and would be silent long after the path has healed.
_UNSENT_MS_MAX = 10_000


class Peer:
    """The dialled side of one other node."""

    __slots__ = ("address", "sock", "connection", "greeted_ms", "greeted_with", "ready",
                 "backoff_ms", "retry_ms", "deadline_ms", "early", "early_bytes", "was_up",
                 "told_down")

    def __init__(self, address: str):
        self.address = address
        self.sock: socket.socket | None = None      # while connecting
        self.connection: Connection | None = None   # once connected
        self.greeted_ms = 0             # when the last greeting was sent
        self.greeted_with = (b"", 0, 0)  # cluster id, founders' checksum and node id in it
        self.ready = False              # greeted, of our cluster: messages are welcome
        self.backoff_ms = 0             # 0: dial at once
        self.retry_ms = 0               # when to dial
        self.deadline_ms = 0            # when connecting and greeting must be done
        self.early: list[tuple[int, bytes]] = []    # (node id, frame), while one is being made
        self.early_bytes = 0
        self.was_up = False             # the last connection had been ready
        self.told_down = False          # its failing was logged


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

    def set_targets(self, addresses: list[str]) -> None:
        """Hold connections to these addresses and no others."""
        for address in [a for a in self._peers if a not in addresses]:
            peer = self._peers.pop(address)
            self._drop(peer, "not needed any more")
        for address in addresses:
            if address not in self._peers:
                self._peers[address] = Peer(address)
        hello = self._node.replica.greetings.hello()
        for peer in self._peers.values():
            if peer.connection is not None and peer.greeted_with != _identity(hello):
                self._greet(peer)       # our own identity has changed

    def seen(self, address: str) -> None:
        """The node at that address is alive: it has just dialled us."""
        peer = self._peers.get(address)
        if peer is not None and peer.connection is None and peer.sock is None:
            peer.backoff_ms = peer.retry_ms = 0

    def send_message(self, address: str, node_id: int, message) -> None:
        """A Raft message, if there is a connection to that very node or will be one soon."""
        peer = self._peers.get(address)
        if peer is None or not (peer.ready and peer.connection.greeting.node_id == node_id):
            # It may be reached at another of its addresses only.
            peer = next((p for p in self._peers.values() if p.ready
                         and p.connection.greeting.node_id == node_id), peer)
        if peer is None or not (peer.ready or peer.sock is not None
                                or peer.connection is not None
                                or peer.retry_ms <= self._node.now_ms()):
            return
        kind, body = encode_message(message)
        frame = encode_frame(kind, 0, body)
        if peer.ready:
            if peer.connection.greeting.node_id == node_id:
                peer.connection.send_bytes(frame)
        elif peer.early_bytes + len(frame) <= _EARLY_BYTES_MAX:
            peer.early.append((node_id, frame))
            peer.early_bytes += len(frame)

    def send_frame(self, address: str, kind: int, body: bytes) -> None:
        """Any other frame, on a greeted connection."""
        peer = self._peers.get(address)
        if peer is not None and peer.connection is not None:
            peer.connection.send(kind, 1, body)

    def is_ready(self, address: str) -> bool:
        """Whether messages reach that node."""
        peer = self._peers.get(address)
        return peer is not None and peer.ready

    # --- time

    def next_deadline_ms(self, now_ms: int) -> int:
        """When `tick` wants to be called again."""
        deadline = now_ms + self._config.dial_backoff_ms_max
        for peer in self._peers.values():
            if peer.connection is None and peer.sock is None:
                deadline = min(deadline, peer.retry_ms)
            elif peer.connection is None or peer.connection.greeting is None:
                deadline = min(deadline, peer.deadline_ms)
            elif not peer.ready:
                deadline = min(deadline, peer.greeted_ms + _REGREET_MS)
        return deadline

    def tick(self, now_ms: int) -> None:
        """Dial what is due, give up what takes too long."""
        for peer in list(self._peers.values()):
            if peer.connection is None and peer.sock is None:
                if now_ms >= peer.retry_ms:
                    self._dial(peer, now_ms)
            elif not peer.ready:
                connected = peer.connection is not None
                if connected and peer.connection.greeting is not None:
                    if now_ms >= peer.greeted_ms + _REGREET_MS:
                        self._greet(peer)
                elif now_ms >= peer.deadline_ms:
                    self._failed(peer, "no answer in time", refused=False)

    # --- dialling

    def _dial(self, peer: Peer, now_ms: int) -> None:
        peer.deadline_ms = now_ms + self._config.dial_timeout_ms
        try:
            host, port = parse_address(peer.address)
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM)[0]
            peer.sock = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError, MalformedError) as error:
            self._failed(peer, str(error), refused=False)
            return
        peer.sock.setblocking(False)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNSENT_MS_MAX)
        result = peer.sock.connect_ex(where)
        if result not in (0, errno.EINPROGRESS):
            self._failed(peer, errno.errorcode.get(result, str(result)),
                         refused=result == errno.ECONNREFUSED)
            return
        self._loop.watch(peer.sock, WRITE, lambda events: self._connected(peer))

    def _connected(self, peer: Peer) -> None:
        sock, peer.sock = peer.sock, None
        self._loop.forget(sock)
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result or _is_connected_to_itself(sock):
            sock.close()
            self._failed(peer, errno.errorcode.get(result, str(result)),
                         refused=result in (errno.ECONNREFUSED, 0))
            return
        peer.connection = Connection(
            sock, peer.address, self._loop, self._config, self._dirty,
            lambda connection, frames: self._frames(peer, connection, frames),
            lambda connection, reason: self._closed(peer, connection, reason))
        self._greet(peer)

    def _greet(self, peer: Peer) -> None:
        peer.greeted_ms = self._node.now_ms()
        hello = self._node.replica.greetings.hello()
        peer.greeted_with = _identity(hello)
        peer.connection.send(Kind.HELLO, 0, requests.encode_hello(hello))

    def _frames(self, peer: Peer, connection: Connection, frames: list) -> None:
        try:
            for kind, _, body in frames:
                if kind == Kind.HELLO_REPLY:
                    self._greeting(peer, connection, requests.decode_hello(body))
                elif kind == Kind.ERROR and connection.greeting is None:
                    code, _, text = requests.decode_error(body)
                    self._node.replica.greetings.refused(peer.address, code, text)
                    self._refused(peer, f"{requests.describe_error(code)}: {text}")
                if connection.closed:
                    return
        except MalformedError as error:
            connection.close(str(error))
            return
        self._on_frames(peer, connection, [f for f in frames if f[0] != Kind.HELLO_REPLY])
        if connection.reader.error is not None:
            connection.close(str(connection.reader.error))

    def _greeting(self, peer: Peer, connection: Connection, hello) -> None:
        node = self._node
        refusal = node.replica.greetings.greeted(hello, peer.address)
        if refusal is not None:
            self._refused(peer, refusal[1])
            return
        first = connection.greeting is None
        connection.greeting = hello
        replica = node.replica
        was_ready = peer.ready
        # Only a greeting that carried our cluster's id makes us known over there.
        peer.ready = (hello.cluster_id == replica.cluster_id == peer.greeted_with[0]
                      and any(replica.cluster_id))
        peer.backoff_ms = 0
        peer.told_down = False
        if peer.ready and not was_ready or first and replica.greetings.joining is not None:
            peer.was_up = peer.ready
            for node_id, frame in peer.early:
                if node_id == hello.node_id:
                    connection.send_bytes(frame)
            peer.early, peer.early_bytes = [], 0
            replica.peer_connected(peer.address, hello,
                                   max(0, node.now_ms() - peer.greeted_ms))

    def _refused(self, peer: Peer, text: str) -> None:
        self._node.actions.say("connect", "%s refuses this node: %s", peer.address, text)
        peer.backoff_ms = self._config.dial_backoff_ms_max // 2
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
        if self._peers.get(peer.address) is peer:
            self._wait(peer)

    def _failed(self, peer: Peer, reason: str, refused: bool) -> None:
        self._drop(peer, reason)
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
        if peer.sock is not None:
            self._loop.forget(peer.sock)
            peer.sock.close()
            peer.sock = None
        if peer.connection is not None:
            peer.connection.close(reason)

    def close(self) -> None:
        """Drop everything."""
        self.set_targets([])


def _identity(hello) -> tuple[bytes, int, int]:
    return hello.cluster_id, hello.founders_checksum, hello.node_id


def _is_connected_to_itself(sock: socket.socket) -> bool:
    """Dialling a free port of the ephemeral range on one's own host can meet itself."""
    try:
        return sock.getsockname() == sock.getpeername()
    except OSError:
        return False
