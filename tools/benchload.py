"""The load of bench.py: clients in this one process, what they send, what they count.

Rules: each client is one connection with a ClientSession, driven directly, so that the load costs
well under a microsecond an operation; one selector for all. Reads need no session: each is a frame.
What is asked for is benchworks.py's affair; what is measured with it, where the cluster comes from
and what is printed is in bench.py and benchdelay.py.
"""

import argparse
import os
import selectors
import socket
import time
from collections import deque

from raftnet.client.session import RETRY_HERE, ClientSession
from raftnet.errors import MalformedError, RaftnetError
from raftnet.wire import commands, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from tools import benchworks

_LEADER_WAIT_S = 15.0
_NODE_WAIT_S = 1.0
_CONNECT_WAIT_S = 5.0
_ANSWER_WAIT_S = 10.0
_READ_BYTES = 256 * 1024
_RETRY_S = 0.02
_PATIENCE_DELAYS = 10       # every wait is longer by so many times what a packet takes
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def find_leader(addresses: list[str], wait_s: float = _LEADER_WAIT_S,
                node_s: float = _NODE_WAIT_S) -> str:
    """The address of the leader; raises RaftnetError when out of time. One node may take `node_s`
    to connect, and again to answer."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        for address in addresses:
            try:
                with socket.create_connection(parse_address(address), node_s) as sock:
                    sock.sendall(encode_frame(Kind.STATUS, 1, b""))
                    reader, frames = FrameReader(), []
                    while not frames:
                        data = sock.recv(65536)
                        if not data:
                            raise ConnectionError("closed")
                        frames = reader.feed(data)
                status = requests.decode_status(frames[0][2])
            except (OSError, MalformedError):
                continue
            if status.role == "leader" and status.founded:
                return address
        time.sleep(_RETRY_S)
    raise RaftnetError(f"no leader among {', '.join(addresses)} within {wait_s:.0f} s")


class LoadClient:
    """One connection with a session and up to `outstanding` commands without an answer."""

    def __init__(self, load: "Load", number: int):
        self.load = load
        self.number = number
        self.session = ClientSession()
        self.reader = FrameReader()
        self.sock: socket.socket | None = None
        self.out = b""
        self.outstanding = 0
        self.sent: deque[tuple[int, float]] = deque()   # first sequence submitted, and when
        benchworks.reset_client(self)

    def connect(self, address: str) -> None:
        """A new connection; what was unanswered is sent again."""
        if self.sock is not None:
            self.load.selector.unregister(self.sock)
            self.sock.close()
            self.session.connection_lost()
        self.reader = FrameReader()
        self.out = b""
        self.sock = socket.create_connection(parse_address(address),
                                             _CONNECT_WAIT_S + self.load.patience_s)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.load.selector.register(self.sock, selectors.EVENT_READ, self)

    def fill(self) -> None:
        """Submit up to the wanted number of commands, and send."""
        load, session = self.load, self.session
        now = time.monotonic()
        first = session.next_sequence
        if not load.draining:
            missing = load.outstanding - self.outstanding
            if missing > 0:
                found = load.commands(self, missing)
                session.submit_many(found)
                self.outstanding += len(found)
                self.sent.append((first, now))
        output = session.output(now)
        if output:
            self.send(output)

    def send(self, data: bytes) -> None:
        """Write what the socket takes; the rest waits for it."""
        data = self.out + data if self.out else data
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        waited, self.out = bool(self.out), data[sent:]
        if waited != bool(self.out):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
            self.load.selector.modify(self.sock, events, self)

    def on_events(self, events: int) -> None:
        """The socket is ready. Raises OSError where the connection is lost."""
        if events & selectors.EVENT_WRITE:
            self.send(b"")
        if not events & selectors.EVENT_READ:
            return
        size = self.sock.recv_into(self.load.read_buffer)
        if not size:
            raise ConnectionError("closed by the node")
        for kind, request_id, body in self.reader.feed(bytes(self.load.read_buffer[:size])):
            refusal = self.session.receive(kind, request_id, body)
            if refusal is not None:
                if refusal.code in RETRY_HERE:
                    time.sleep(_RETRY_S)
                else:
                    raise ConnectionError(refusal.text)
        if self.reader.error is not None:
            raise self.reader.error
        now = time.monotonic()
        for reply in self.session.take_answers():
            self._answered(reply, now)
        self.fill()

    def _answered(self, reply: requests.Reply, now: float) -> None:
        load = self.load
        self.outstanding -= reply.count
        # Commands submitted together may have left in several frames, and one frame may hold parts
        # of several submissions: its first command counts.
        sent = self.sent
        while len(sent) > 1 and sent[1][0] <= reply.first_sequence:
            sent.popleft()
        load.acknowledged(self, reply, now, now - sent[0][1])


class ReadClient(LoadClient):
    """One connection with up to `outstanding` READ frames without an answer. One that is lost is
    asked again: it changes nothing."""

    def __init__(self, load: "Load", number: int):
        super().__init__(load, number)
        self._asked: dict[int, float] = {}      # request ids, and when they were sent
        self._next_id = 1

    def connect(self, address: str) -> None:
        super().connect(address)
        self._asked.clear()
        self.outstanding = 0

    def fill(self) -> None:
        missing = self.load.outstanding - self.outstanding
        if missing <= 0:
            return
        now, parts = time.monotonic(), []
        for body in self.load.commands(self, missing):
            self._asked[self._next_id] = now
            parts.append(encode_frame(Kind.READ, self._next_id, body))
            self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        self.outstanding += missing
        self.send(b"".join(parts))

    def on_events(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.send(b"")
        if not events & selectors.EVENT_READ:
            return
        size = self.sock.recv_into(self.load.read_buffer)
        if not size:
            raise ConnectionError("closed by the node")
        now = time.monotonic()
        for kind, request_id, body in self.reader.feed(bytes(self.load.read_buffer[:size])):
            sent = self._asked.pop(request_id)
            self.outstanding -= 1
            if kind == Kind.READ_REPLY:
                self.load.read(requests.decode_read_reply(body)[1], now, now - sent)
            elif requests.decode_error(body)[0] in RETRY_HERE:
                time.sleep(_RETRY_S)
            else:
                raise ConnectionError(requests.decode_error(body)[2])
        if self.reader.error is not None:
            raise self.reader.error
        self.fill()


class Load:
    """The whole load: its work, its clients, what was counted."""

    def __init__(self, addresses: list[str], arguments: argparse.Namespace, delay_s: float = 0.0):
        self.addresses = addresses
        self.patience_s = _PATIENCE_DELAYS * delay_s
        self.selector = selectors.DefaultSelector()
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        self.outstanding = arguments.outstanding
        self.work = benchworks.WORKS[arguments.work](arguments.batch, arguments.payload)
        self.filling = False
        self._fill_messages = benchworks.fill_messages(arguments.payload)
        self.draining = False
        self.operations = 0
        self.empty = 0
        self.errors = 0
        self.frames = 0
        self.requests = 0
        self.latencies: list[tuple[float, int]] = []
        self.last_ack = 0.0
        self.longest_gap = 0.0
        make = ReadClient if self.work.kind == Kind.READ else LoadClient
        self.clients = [make(self, number) for number in range(arguments.clients)]

    def commands(self, client: LoadClient, count: int) -> list[bytes]:
        """The next commands of a client, at most `count`."""
        if self.filling:
            return [self.work.fill] * count
        return self.work.commands(client, count)

    def acknowledged(self, client: LoadClient, reply: requests.Reply, now: float,
                     latency: float) -> None:
        """A reply came."""
        if reply.results is not None:
            for status, _ in reply.results:
                if status == commands.Status.EMPTY:
                    self.empty += 1
                elif status != commands.Status.OK:
                    self.errors += 1
        self.operations += (reply.count * self._fill_messages if self.filling
                            else self.work.completed(client, reply))
        self._answered(reply.count, now, latency)

    def read(self, status: int, now: float, latency: float) -> None:
        """The answer to a READ came."""
        if status == commands.Status.EMPTY:
            self.empty += 1
        elif status != commands.Status.OK:
            self.errors += 1
        self.operations += 1
        self._answered(1, now, latency)

    def _answered(self, count: int, now: float, latency: float) -> None:
        self.requests += count
        self.frames += 1
        self.latencies.append((latency, count))
        self.longest_gap = max(self.longest_gap, now - self.last_ack)
        self.last_ack = now

    def connect(self) -> None:
        """All clients to the leader."""
        leader = find_leader(self.addresses, _LEADER_WAIT_S + self.patience_s,
                             _NODE_WAIT_S + self.patience_s)
        for client in self.clients:
            client.connect(leader)
            client.fill()

    def run(self, seconds: float) -> float:
        """Keep the load up; the seconds it really took."""
        began = self.last_ack = time.monotonic()
        end = began + seconds
        while (now := time.monotonic()) < end:
            if now - self.last_ack > _ANSWER_WAIT_S + self.patience_s:
                raise RaftnetError(f"no acknowledgement for {now - self.last_ack:.0f} s")
            try:
                for key, events in self.selector.select(0.5):
                    key.data.on_events(events)
            except OSError:
                self.connect()      # the leader is gone: the sessions go on at the next one
        return time.monotonic() - began

    def reset(self) -> None:
        """Count from here."""
        self.operations = self.empty = self.errors = self.frames = self.requests = 0
        self.latencies.clear()
        self.longest_gap = 0.0

    def close(self) -> None:
        """End all connections; what is unanswered stays so."""
        for client in self.clients:
            if client.sock is not None:
                client.sock.close()
        self.selector.close()

    def fill_queue(self, messages: int) -> None:
        """Enqueue this many messages before dequeues are measured."""
        self.filling = True
        outstanding, self.outstanding = self.outstanding, 8
        self.connect()
        while self.operations < messages:
            self.run(0.2)
        self.draining = True
        while any(client.outstanding for client in self.clients):
            self.run(0.05)
        self.filling = self.draining = False
        self.outstanding = outstanding
        self.reset()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, its threads included."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _percentile(latencies: list[tuple[float, int]], share: float) -> float:
    """Weighted by operations; milliseconds."""
    ordered = sorted(latencies)
    limit = share * sum(count for _, count in ordered)
    for latency, count in ordered:
        limit -= count
        if limit <= 0:
            return round(latency * 1000, 3)
    return 0.0


def measure(addresses: list[str], pids: list[int], arguments: argparse.Namespace,
            delay_s: float = 0.0) -> dict:
    """Run one load; the figures as interface.md names them. `pids`: the nodes', where they are on
    this machine; `delay_s`: how long a packet takes, where that is much."""
    load = Load(addresses, arguments, delay_s)
    try:
        return _measured(load, pids, arguments)
    finally:
        load.close()


def _measured(load: Load, pids: list[int], arguments: argparse.Namespace) -> dict:
    load.work.prepare(load.addresses)
    if load.work.fills:
        load.fill_queue(arguments.fill)
    load.connect()
    load.run(arguments.warmup)
    load.reset()
    cpu = [cpu_s(pid) for pid in pids]
    own = time.process_time()
    seconds = load.run(arguments.seconds)
    operations = max(1, load.operations)
    result = {"work": arguments.work, "ops_per_s": round(load.operations / seconds),
              "p50_ms": _percentile(load.latencies, 0.5),
              "p99_ms": _percentile(load.latencies, 0.99), "errors": load.errors,
              "empty": load.empty, "clients": arguments.clients,
              "outstanding": arguments.outstanding, "batch": arguments.batch,
              "payload": arguments.payload, "nodes": len(load.addresses),
              "requests_per_frame": round(load.requests / max(1, load.frames), 1),
              "longest_gap_ms": round(load.longest_gap * 1000, 1),
              "load_cpu_us_per_op": round((time.process_time() - own) / operations * 1e6, 2)}
    if pids:
        used = sum(cpu_s(pid) - before for pid, before in zip(pids, cpu))
        result["node_cpu_us_per_op"] = round(used / operations * 1e6, 2)
    return result
