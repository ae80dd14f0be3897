"""Accepting: the connections that others have opened: clients, peers, tools.

Rules: nobody can make this node hold more than so many connections, or a part of a frame for long;
a damaged or unwelcome frame is answered with why, and costs that connection alone. What a peer says
counts once it has shown this cluster's id; one process of a node at a time, and its newest
connection. What frames mean is the Replica's to know; the connections that this node opens are in
net/peers.py.
"""

import resource
import socket

from raftnet.actions import WARNING
from raftnet.errors import ErrorCode, MalformedError
from raftnet.gateway import ERROR_TEXT_MAX
from raftnet.net.connection import Connection
from raftnet.net.loop import READ, Loop
from raftnet.net.sockets import bear_silence
from raftnet.wire import requests
from raftnet.wire.address import check_address, format_address
from raftnet.wire.frames import PEER_KINDS_FROM, VERSION, Kind

_ACCEPTS_A_TURN = 64
_DESCRIPTORS_MAX = 8_192        # as many as the system's default lets every program have
_OWN_DESCRIPTORS = 64           # files, listener, connections to peers
_LOOK_MS = 1_000                # between two looks for frames that do not go on


class Accepting:
    """`server`: whose connections they are; `listener`: where they come in; `dirty`: connections
    with output, which the server flushes."""

    def __init__(self, server, loop: Loop, listener: socket.socket, dirty: set[Connection]):
        self._server = server
        self._replica = server.replica
        self._actions = server.actions
        self._config = server.config.net
        self._loop = loop
        self._listener = listener
        self._dirty = dirty
        self._open: set[Connection] = set()
        self._half_closed: dict[Connection, int] = {}   # and when they are closed at the latest
        # Those that hold a part of a frame: bytes received when it last grew, and when that was.
        self._unfinished: dict[Connection, tuple[int, int]] = {}
        self._look_ms = 0
        self._peer_of: dict[int, Connection] = {}       # by node id
        self._election_timeout_ms = 0                   # that the connections' patience follows
        self._max = min(self._config.connections_max, _descriptors() - _OWN_DESCRIPTORS)
        loop.watch(listener, READ, self._accept)

    def peer(self, node_id: int) -> Connection | None:
        """The connection of that peer."""
        return self._peer_of.get(node_id)

    def has_peer_at(self, address: str) -> bool:
        """Whether a peer with that address is connected."""
        return any(c.greeting.address == address for c in self._peer_of.values())

    def set_patience(self, election_timeout_ms: int) -> None:
        """Connections bear silence as long as elections are long."""
        self._election_timeout_ms = election_timeout_ms
        for connection in self._peer_of.values():
            bear_silence(connection.sock, election_timeout_ms)

    def close(self) -> None:
        """The node stops: send what can be sent at once, and close everything."""
        for connection in list(self._open):
            connection.flush()
            connection.close("this node stops")
        self._loop.forget(self._listener)
        self._listener.close()

    # --- time

    def deadlines_ms(self) -> list[int]:
        """When `tick` has something to do."""
        return [*self._half_closed.values(), *([self._look_ms] if self._unfinished else [])]

    def tick(self, now_ms: int) -> None:
        """Close what is overdue."""
        for connection, deadline in list(self._half_closed.items()):
            if now_ms >= deadline:
                connection.close("closed by the other side; no answer in time")
        if now_ms >= self._look_ms:
            self._look_ms = now_ms + _LOOK_MS
            self._close_unfinished(now_ms)

    def _close_unfinished(self, now_ms: int) -> None:
        """Who has begun a frame and sends no more of it has memory held for nothing."""
        before, self._unfinished = self._unfinished, {}
        for connection in list(self._open):
            reader = connection.reader
            if not reader.held or connection.identity:      # peers find out by themselves
                continue
            received = reader.offset + reader.held
            if connection not in before or before[connection][0] != received:
                self._unfinished[connection] = (received, now_ms)
            elif (now_ms - before[connection][1] < self._config.unfinished_frame_ms
                  or connection.is_paused):
                self._unfinished[connection] = before[connection]
            else:
                text = ("the rest of a frame did not come within "
                        f"{self._config.unfinished_frame_ms / 1000:g} s")
                self._refuse(connection, 0, ErrorCode.BAD_FRAME, text)
                connection.flush()
                connection.close(text)      # who does not read would keep all that for ever

    # --- connections come and go

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, where = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Too many open files, or the other side is gone already: that one is lost.
                self._actions.say("accept", "a connection could not be accepted: %s", error,
                                 level=WARNING)
                return
            if len(self._open) >= self._max:
                sock.close()
                self._actions.say("accept", "refused a connection: %d are open",
                                 len(self._open), level=WARNING)
                continue
            name = format_address(where[0], where[1])
            connection = Connection(sock, name, self._loop, self._config, self._dirty,
                                    self.frames, self._closed, self._other_half_closed)
            self._open.add(connection)
            self._replica.gateway.client_opened(connection)
            self._actions.say("accept", "connection from %s", name)

    def _closed(self, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        self._half_closed.pop(connection, None)
        self._replica.gateway.client_gone(connection)
        node_id = connection.identity
        if node_id and self._peer_of.get(node_id) is connection:
            del self._peer_of[node_id]
            self._actions.say("peer gone", "%s has gone: %s", connection.greeting.address, reason)
        else:
            self._actions.say("accept", "connection from %s ended: %s", connection.name, reason)

    def _other_half_closed(self, connection: Connection) -> None:
        """It sends no more and is owed answers: it gets those, but its waits end now, as it may
        well be dead."""
        self._replica.gateway.client_gone(connection)
        self._half_closed[connection] = self._server.now_ms() + self._config.half_closed_ms

    # --- what they say

    def frames(self, connection: Connection, frames: list) -> None:
        """Whole frames that came; none: a part of one, from a peer."""
        replica = self._replica
        try:
            for kind, request_id, body in frames:
                if kind >= PEER_KINDS_FROM:
                    if not connection.identity:
                        self._refuse(connection, request_id, ErrorCode.GREETING_REQUIRED,
                                     "greet with this cluster's id first")
                        return
                    replica.peer_frame(connection.identity, kind, body)
                elif kind == Kind.HELLO:
                    self._greeted(connection, request_id, requests.decode_hello(body))
                else:
                    replica.client_frame(connection, request_id, kind, body)
                if connection.closed:
                    return
        except MalformedError as error:
            self._refuse(connection, request_id, ErrorCode.BAD_REQUEST, str(error))
            return
        error = connection.reader.error
        if error is not None:
            self._refuse(connection, 0, error.code, self._server.describe_damage(error))
        elif not connection.identity:
            return
        elif frames:
            # A sign of life answers nothing.
            if any(kind != Kind.HEARTBEAT_REPLY or any(body[16:]) for kind, _, body in frames):
                connection.heard_ms = replica.now_ms
        else:
            # A part of a large one: without this, an append over a slow link would look like death.
            replica.sign_of_life(connection.identity)

    def _refuse(self, connection: Connection, request_id: int, code: ErrorCode, text: str) -> None:
        """Say why, then close: what follows on this connection cannot be trusted."""
        text = text[:ERROR_TEXT_MAX]
        self._actions.say("refusal", "%s is refused: %s: %s", connection.name, code.name, text,
                         level=WARNING)
        connection.send(Kind.ERROR, request_id, requests.encode_error(code, text))
        connection.identity = 0         # what follows in its buffers counts no more
        connection.close_after_flush(text)

    def _greeted(self, connection: Connection, request_id: int, hello: requests.Hello) -> None:
        replica = self._replica
        if not hello.version_min <= VERSION <= hello.version_max:
            self._refuse(connection, request_id, ErrorCode.WRONG_VERSION,
                         f"this node speaks version {VERSION} of the protocol")
            return
        if hello.role == requests.ROLE_PEER:
            check_address(hello.address)        # MalformedError where it is none
            refusal = self._why_second(hello) or replica.greetings.greeted(hello)
            if refusal is not None:
                self._refuse(connection, request_id, *refusal)
                return
            connection.greeting = hello
            self._server.peer_seen(hello.address)
            if hello.cluster_id == replica.cluster_id and any(replica.cluster_id):
                self._identify(connection, hello)
        connection.send(Kind.HELLO_REPLY, request_id,
                        requests.encode_hello(replica.greetings.hello()))

    def _why_second(self, hello: requests.Hello) -> tuple[ErrorCode, str] | None:
        """How to refuse another process of a node while one is connected, which must not suffer
        from it; None: it is the only one."""
        living = self._peer_of.get(hello.node_id)
        if (living is None or living.greeting.process == hello.process
                or hello.cluster_id != self._replica.cluster_id):
            return None
        return self._replica.greetings.why_unwelcome(hello) or (
            ErrorCode.ADDRESS_TAKEN, f"another process of node {hello.node_id:016x} is connected "
            f"here, as {living.greeting.address}: stop one of the two, and never run a copy of a "
            "data directory")

    def greet_again(self) -> None:
        """The members have changed: who belongs no more is told so."""
        for node_id, connection in list(self._peer_of.items()):
            refusal = self._replica.greetings.why_unwelcome(connection.greeting)
            if refusal is not None:
                self._refuse(connection, 0, *refusal)
            elif connection.greeting.cluster_id != self._replica.cluster_id:
                connection.identity = 0         # of a cluster that this node has left
                del self._peer_of[node_id]

    def _identify(self, connection: Connection, hello: requests.Hello) -> None:
        """A peer of our cluster; a newer connection of it replaces an older one."""
        older = self._peer_of.get(hello.node_id)
        connection.identity = hello.node_id
        bear_silence(connection.sock, self._election_timeout_ms)
        self._peer_of[hello.node_id] = connection
        if older is connection:
            return
        self._replica.peer_identified(hello.node_id)
        if older is not None:
            older.close("replaced by a newer connection of the same node")
        else:
            self._actions.say("peer connected", "%s has connected", hello.address)


def _descriptors() -> int:
    """How many files this process may have open; raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _DESCRIPTORS_MAX
    wanted = _DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
