"""Nodes of a cluster that is played by one Machine in this process, for tests of the client.

Each FakeNode listens on a port of its own and answers frames; whatever reaches the leader is
applied to the one machine, so that sessions, kept replies and waits are the real ones. A node's
`script` says what goes wrong with its next frames (REQUEST, READ, LOG, TAKE_SNAPSHOT and
READ_SNAPSHOT), one item a frame:

    Refuse(code, leader)    an ERROR
    DROP_BEFORE, DROP_AFTER the connection ends before, or after, the request is executed
    SILENT_BEFORE, SILENT_AFTER     nothing is answered (the connection stays)
    GARBAGE                 executed, and damaged bytes come back
    SPLIT                   executed, and the reply comes byte by byte
    LATE                    executed after LATE_S, and so is whatever comes behind it
    DEAF, HALF              executed, and nothing, or half of the reply, comes back; from then on
                            the connection is as silent as one that is cut: no STATUS either

What a node has `handlers` for, by kind, it answers with what they give for a body: (kind, body), a
Refuse, DROP_AFTER or SILENT_AFTER; so a test plays what this module does not.

A snapshot is bytes that look random, the same for the same index, `snapshot_bytes` of them; making
one takes `making_s`. A node holds those in its `snapshots`, by index; taking one drops no other.
"""

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import ErrorCode
from raftnet.machine.machine import Machine
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import commands, requests
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from raftnet.wire.snapshots import (Part, Taken, decode_read_snapshot, decode_take_snapshot,
                                    encode_snapshot_part, encode_snapshot_taken)

(DROP_BEFORE, DROP_AFTER, SILENT_BEFORE, SILENT_AFTER, GARBAGE, SPLIT, LATE, DEAF,
 HALF) = range(9)
LATE_S = 0.05
TERM = 3


class Refuse(NamedTuple):
    """An ERROR frame."""

    code: int
    leader: str = ""


class FakeCluster:
    """The machine, its log, and who leads."""

    def __init__(self, cluster_id: bytes = b"c" * 16):
        self.cluster_id = cluster_id
        self.leader = ""                    # an address
        self.lock = threading.RLock()
        self.machine = Machine(MachineConfig(), WireConfig())
        self.machine.state_version = commands.STATE_VERSION
        self.entries = []
        self.bodies: list[bytes] = []       # every REQUEST body that any node received
        self.nodes: list[FakeNode] = []
        self.snapshot_bytes = 100_000
        self.making_s = 0.0
        self._later: list[tuple] = []       # (when, connection, answer's arguments)
        self._waiting: dict = {}            # (session, first): (connection, request id)
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick)
        self._ticker.start()

    def node(self, host: str = "127.0.0.1") -> "FakeNode":
        """One more node; the first one leads."""
        node = FakeNode(self, host)
        self.nodes.append(node)
        self.leader = self.leader or node.address
        return node

    def close(self) -> None:
        """Stop everything, threads joined."""
        self._stop.set()
        for node in self.nodes:
            node.close()
        self._ticker.join()

    def _tick(self) -> None:
        while not self._stop.wait(0.01):
            with self.lock:
                deadline = self.machine.next_deadline_ms()
                if deadline is not None and deadline <= self._now_ms():
                    self.internal(commands.encode_time())
                due = [item for item in self._later if time.monotonic() >= item[0]]
                self._later = [item for item in self._later if item not in due]
            for _, connection, *answer in due:
                connection.answer(*answer)

    def later(self, seconds: float, connection, *answer) -> None:
        """Answer that then, while the connection goes on."""
        with self.lock:
            self._later.append((time.monotonic() + seconds, connection, *answer))

    def snapshot_at(self, index: int) -> bytes:
        """The file: it ends with the checksum of all before."""
        data = random.Random(index).randbytes(self.snapshot_bytes - 4)
        return data + crc32(data).to_bytes(4, "big")

    def _now_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)

    def internal(self, command: bytes) -> None:
        """Apply one of the leader's own commands."""
        self.apply(requests.encode_request(requests.INTERNAL_SESSION, 1, 0, [command]))

    def apply(self, body: bytes) -> bytes | None:
        """One REQUEST's body as an entry; the REPLY's body, None where it waits."""
        with self.lock:
            payload = commands.encode_batch(self._now_ms(), [body])
            entry = encode_entry(len(self.entries) + 1, TERM, EntryKind.BATCH, payload)
            self.entries.append(entry)
            applied = self.machine.apply(entry)
            for session, first, reply in applied.completions:
                connection, request_id = self._waiting.pop((session, first), (None, 0))
                if connection is not None:
                    connection.answer(Kind.REPLY, request_id, reply)
            return applied.replies[0]

    def execute(self, body: bytes, connection, request_id: int) -> bytes | None:
        """As apply, and remember who waits."""
        with self.lock:
            reply = self.apply(body)
            if reply is None:
                session, first, *_ = requests.decode_request_head(body)
                self._waiting[session, first] = connection, request_id
            return reply

    def cancel_waits(self, connection) -> None:
        """The connection ended."""
        with self.lock:
            gone = [key for key, (waiter, _) in self._waiting.items() if waiter is connection]
            for key in gone:
                self._waiting.pop(key)
                self.internal(commands.encode_cancel(*key))

    def messages(self, queue: bytes = b"default") -> list[bytes]:
        """What waits in a queue."""
        with self.lock:
            status, payload = self.machine.read(commands.encode_peek(queue, 10_000))
            return [m for _, m in commands.decode_messages(payload)] if status == 0 else []


class FakeNode:
    """A listener and a thread for each connection."""

    def __init__(self, cluster: FakeCluster, host: str):
        self.cluster = cluster
        self.script: deque = deque()
        self.handlers: dict[int, Callable] = {}
        self.served = 0                     # frames that a script counts, scripted or not
        self.snapshots: dict[int, bytes] = {}
        self.taken = 0                      # TAKE_SNAPSHOT frames answered
        self.connections: list[_Connection] = []
        self._closed = False
        self._listener = socket.create_server((host, 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            accepted, _ = self._listener.accept()
            if self._closed:
                accepted.close()
                return
            connection = _Connection(self, accepted)
            self.connections.append(connection)     # before it can answer: a test looks for it then
            connection.start()

    def close(self) -> None:
        """Stop listening and end all connections."""
        if self._closed:
            return
        self._closed = True
        # a last connection wakes the accepting thread
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()
        for connection in self.connections:
            connection.close()


class _Connection:
    def __init__(self, node: FakeNode, accepted: socket.socket):
        self.node = node
        self.cluster = node.cluster
        self._socket = accepted
        self._deaf = False
        self._thread = threading.Thread(target=self._serve)

    def start(self) -> None:
        """Serve it."""
        self._thread.start()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass                    # ended already
        self._thread.join()

    def answer(self, kind: int, request_id: int, body: bytes, how: int | None = None) -> None:
        data = encode_frame(kind, request_id, body)
        if how == GARBAGE:
            data = data[:-1] + bytes((data[-1] ^ 1,))
        try:
            if how == SPLIT:
                for place in range(len(data)):
                    self._socket.sendall(data[place:place + 1])
            elif how == HALF:
                self._socket.sendall(data[:len(data) // 2])
            else:
                self._socket.sendall(data)
        except OSError:
            pass                    # the client has gone; its retry will come

    def _serve(self) -> None:
        reader = FrameReader()
        with self._socket:
            try:
                while True:
                    data = self._socket.recv(65536)
                    if not data:
                        return
                    for frame in reader.feed(data):
                        if not self._handle(*frame):
                            return
            except OSError:
                return
            finally:
                self.cluster.cancel_waits(self)

    def _handle(self, kind: int, request_id: int, body: bytes) -> bool:
        """False where the connection ends."""
        if self._deaf:
            return True
        if kind == Kind.HELLO:
            hello = requests.Hello(requests.ROLE_PEER, self.cluster.cluster_id, 7)
            self.answer(Kind.HELLO_REPLY, request_id, requests.encode_hello(hello))
            return True
        if kind in self.node.handlers:
            return self._perform(request_id, self.node.handlers[kind](body))
        if kind == Kind.STATUS:
            self.answer(Kind.STATUS_REPLY, request_id, requests.encode_status(self._status()))
            return True
        self.node.served += 1
        if kind == Kind.REQUEST:
            self.cluster.bodies.append(body)
        how = self.node.script.popleft() if self.node.script else None
        if how == DROP_BEFORE:
            return False
        if how == SILENT_BEFORE:
            return True
        if how == LATE:
            time.sleep(LATE_S)
        local = (kind == Kind.LOG and requests.decode_log(body)[0]
                 or kind == Kind.READ and requests.decode_read(body)[0]
                 or kind == Kind.TAKE_SNAPSHOT and decode_take_snapshot(body)
                 or kind == Kind.READ_SNAPSHOT)
        if how is None and self.node.address != self.cluster.leader and not local:
            how = Refuse(ErrorCode.NOT_LEADER, self.cluster.leader)
        if isinstance(how, Refuse):
            text = requests.encode_error(how.code, "says the test", how.leader)
            self.answer(Kind.ERROR, request_id, text)
            return True
        if kind == Kind.READ_SNAPSHOT and decode_read_snapshot(body)[0] not in self.node.snapshots:
            text = requests.encode_error(ErrorCode.NO_SNAPSHOT, "says the test")
            self.answer(Kind.ERROR, request_id, text)
            return True
        self._execute(kind, request_id, body, how)
        return how != DROP_AFTER

    def _perform(self, request_id: int, what) -> bool:
        """What a handler gave; False where the connection ends."""
        if isinstance(what, Refuse):
            text = requests.encode_error(what.code, "says the test", what.leader)
            self.answer(Kind.ERROR, request_id, text)
        elif isinstance(what, tuple):
            self.answer(what[0], request_id, what[1])
        return what != DROP_AFTER

    def _execute(self, kind: int, request_id: int, body: bytes, how: int | None) -> None:
        if kind == Kind.REQUEST:
            reply_kind = Kind.REPLY
            reply = self.cluster.execute(body, self, request_id)
        elif kind == Kind.READ:
            reply_kind = Kind.READ_REPLY
            with self.cluster.lock:
                status, payload = self.cluster.machine.read(requests.decode_read(body)[1])
                reply = requests.encode_read_reply(self.cluster.machine.applied_index, status,
                                                   payload)
        elif kind == Kind.TAKE_SNAPSHOT:
            reply_kind = Kind.SNAPSHOT_TAKEN
            reply = self._take()
            if self.cluster.making_s:
                self.cluster.later(self.cluster.making_s, self, reply_kind, request_id, reply)
                reply = None
        elif kind == Kind.READ_SNAPSHOT:
            reply_kind = Kind.SNAPSHOT_PART
            index, offset, count = decode_read_snapshot(body)
            data = self.node.snapshots[index]
            reply = encode_snapshot_part(Part(index, len(data), offset,
                                              data[offset:offset + count]))
        else:
            reply_kind = Kind.LOG_REPLY
            reply = self._log(body)
        self._deaf = how in (DEAF, HALF)
        if reply is not None and how not in (DROP_AFTER, SILENT_AFTER, DEAF):
            self.answer(reply_kind, request_id, reply, how)

    def _take(self) -> bytes:
        with self.cluster.lock:
            index = len(self.cluster.entries)
            data = self.node.snapshots[index] = self.cluster.snapshot_at(index)
            self.node.taken += 1
            return encode_snapshot_taken(Taken(index, TERM, len(data), crc32(data[:-4]),
                                               self.cluster.machine.digest))

    def _log(self, body: bytes) -> bytes:
        _, first, limit = requests.decode_log(body)
        with self.cluster.lock:
            # small pages, so that the client has to go on
            found = self.cluster.entries[first - 1:first - 1 + min(limit, 2)]
            return requests.encode_log_reply(1, len(self.cluster.entries), first + len(found),
                                             [entry.data for entry in found])

    def _status(self) -> requests.NodeStatus:
        cluster = self.cluster
        leads = self.node.address == cluster.leader
        members = [requests.MemberStatus(number, node.address, True, True, 1, 5)
                   for number, node in enumerate(cluster.nodes, 1)]
        last = len(cluster.entries)
        return requests.NodeStatus(
            cluster.cluster_id, 7, 1, "leader" if leads else "follower", TERM, last, last, last, 0,
            last, cluster.machine.digest, True, 0, self.node.address, cluster.leader, "test",
            members)
