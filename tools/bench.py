#!/usr/bin/env python3
"""Measure a cluster: one JSON line, acknowledged and synced operations only.

`--local N` starts N nodes on free ports with their files in a temporary directory, measures, and
stops them; `-s` measures running ones. The load comes from this one process (selectors). Machines
are noisy: compare figures of one run, quote medians. An operation is a message enqueued or
dequeued; its latency is that of the request frame it travelled in.
"""

import argparse
import json
import os
import selectors
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client.session import RETRY_HERE, ClientSession, enqueue_encoder
from raftnet.errors import MalformedError, RaftnetError
from raftnet.wire import commands, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from tools.processes import LocalCluster

WORKS = ("enq", "deq", "enq-deq")
_LEADER_WAIT_S = 15.0
_ANSWER_WAIT_S = 10.0
_RETRY_S = 0.02
_FILL_BATCH = 500
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def find_leader(addresses: list[str], wait_s: float = _LEADER_WAIT_S) -> str:
    """The address of the leader that the nodes name; raises RaftnetError when out of time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        for address in addresses:
            try:
                with socket.create_connection(parse_address(address), 1) as sock:
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
        self.sent: dict[int, float] = {}    # when the frame with this first sequence left
        self.turn = number                  # of the mixed work

    def connect(self, address: str) -> None:
        """A new connection; what was unanswered is sent again."""
        if self.sock is not None:
            self.load.selector.unregister(self.sock)
            self.sock.close()
            self.session.connection_lost()
        self.reader = FrameReader()
        self.out = b""
        self.sock = socket.create_connection(parse_address(address), 5)
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
                session.submit_many(load.commands(self, missing))
                self.outstanding += missing
                self.sent[first] = now
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
        self.out = data[sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
        if self.load.selector.get_key(self.sock).events != events:
            self.load.selector.modify(self.sock, events, self)

    def on_events(self, events: int) -> None:
        """The socket is ready. Raises OSError where the connection is lost."""
        if events & selectors.EVENT_WRITE:
            self.send(b"")
        if not events & selectors.EVENT_READ:
            return
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionError("closed by the node")
        for kind, request_id, body in self.reader.feed(data):
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
        # Commands submitted together may have left in several frames.
        submitted = self.sent.get(reply.first_sequence)
        if submitted is None:
            submitted = self.sent[max(s for s in self.sent if s <= reply.first_sequence)]
        load.acknowledged(reply, now, now - submitted)
        for sequence in [s for s in self.sent if s <= self.session.acknowledged - load.outstanding]:
            del self.sent[sequence]


class Load:
    """The whole load: its work, its clients, what was counted."""

    def __init__(self, addresses: list[str], arguments: argparse.Namespace):
        self.addresses = addresses
        self.selector = selectors.DefaultSelector()
        self.outstanding = arguments.outstanding
        self.work = arguments.work
        self.batch = arguments.batch
        message = bytes(ord("a") + i % 26 for i in range(arguments.payload))
        encode = enqueue_encoder(b"bench")
        self._enqueue = (encode(message) if self.batch == 1
                         else commands.encode_enqueue(b"bench", [message] * self.batch))
        self._fill = commands.encode_enqueue(
            b"bench", [message] * max(1, min(_FILL_BATCH, (1 << 20) // (arguments.payload + 1))))
        self._dequeue = commands.encode_dequeue(b"bench", self.batch)
        self.filling = False
        self.draining = False
        self.operations = 0
        self.empty = 0
        self.errors = 0
        self.frames = 0
        self.requests = 0
        self.latencies: list[tuple[float, int]] = []
        self.last_ack = 0.0
        self.longest_gap = 0.0
        self.clients = [LoadClient(self, number) for number in range(arguments.clients)]

    def commands(self, client: LoadClient, count: int) -> list[bytes]:
        """The next `count` commands of a client."""
        if self.filling:
            return [self._fill] * count
        if self.work == "enq":
            return [self._enqueue] * count
        if self.work == "deq":
            return [self._dequeue] * count
        client.turn += count
        pair = (self._enqueue, self._dequeue)
        return [pair[(client.turn - i) & 1] for i in range(count)]

    def acknowledged(self, reply: requests.Reply, now: float, latency: float) -> None:
        """A reply came."""
        if reply.results is not None:
            for status, _ in reply.results:
                if status == commands.Status.EMPTY:
                    self.empty += 1
                elif status != commands.Status.OK:
                    self.errors += 1
        self.operations += reply.count * self.batch
        self.requests += reply.count
        self.frames += 1
        self.latencies.append((latency, reply.count))
        self.longest_gap = max(self.longest_gap, now - self.last_ack)
        self.last_ack = now

    def connect(self) -> None:
        """All clients to the leader."""
        leader = find_leader(self.addresses)
        for client in self.clients:
            client.connect(leader)
            client.fill()

    def run(self, seconds: float) -> float:
        """Keep the load up; the seconds it really took."""
        began = self.last_ack = time.monotonic()
        end = began + seconds
        while (now := time.monotonic()) < end:
            if now - self.last_ack > _ANSWER_WAIT_S:
                raise RaftnetError(f"no acknowledgement for {_ANSWER_WAIT_S:.0f} s")
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

    def fill_queue(self, messages: int) -> None:
        """Enqueue this many messages before dequeues are measured."""
        self.filling = True
        wanted, per = messages, int.from_bytes(self._fill[11:15], "big")
        outstanding, self.outstanding = self.outstanding, 8
        batch, self.batch = self.batch, per
        self.connect()
        while self.operations < wanted:
            self.run(0.2)
        self.draining = True
        while any(client.outstanding for client in self.clients):
            self.run(0.05)
        self.filling = self.draining = False
        self.outstanding, self.batch = outstanding, batch
        self.reset()


def _cpu_s(pid: int) -> float:
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


def measure(addresses: list[str], pids: list[int], arguments: argparse.Namespace) -> dict:
    """Run one load; the figures as interface.md names them."""
    load = Load(addresses, arguments)
    if arguments.work == "deq":
        load.fill_queue(arguments.fill)
    load.connect()
    load.run(arguments.warmup)
    load.reset()
    cpu = [_cpu_s(pid) for pid in pids]
    own = time.process_time()
    seconds = load.run(arguments.seconds)
    operations = max(1, load.operations)
    result = {"work": arguments.work, "ops_per_s": round(load.operations / seconds),
              "p50_ms": _percentile(load.latencies, 0.5),
              "p99_ms": _percentile(load.latencies, 0.99), "errors": load.errors,
              "empty": load.empty, "clients": arguments.clients,
              "outstanding": arguments.outstanding, "batch": arguments.batch,
              "payload": arguments.payload, "nodes": len(addresses),
              "requests_per_frame": round(load.requests / max(1, load.frames), 1),
              "longest_gap_ms": round(load.longest_gap * 1000, 1),
              "load_cpu_us_per_op": round((time.process_time() - own) / operations * 1e6, 2)}
    if pids:
        used = sum(_cpu_s(pid) - before for pid, before in zip(pids, cpu))
        result["node_cpu_us_per_op"] = round(used / operations * 1e6, 2)
    return result


def reference() -> dict:
    """What this machine's disk and loopback give, to hold the figures against."""
    record = b"r" * 256
    with tempfile.TemporaryFile(dir=".") as file:
        times = []
        for _ in range(300):
            began = time.perf_counter()
            os.write(file.fileno(), record)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := sock.recv(65536):
            sock.sendall(data)
        os._exit(0)
    with socket.create_connection(listener.getsockname()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(2000):
            began = time.perf_counter()
            sock.sendall(record)
            sock.recv(65536)
            trips.append(time.perf_counter() - began)
    listener.close()
    os.waitpid(pid, 0)
    return {"fdatasync_ms": round(statistics.median(times) * 1000, 3),
            "loopback_round_trip_ms": round(statistics.median(trips) * 1000, 3)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-s", "--servers", help="addresses of a running cluster")
    where.add_argument("--local", type=int, metavar="N", help="start N nodes on this machine")
    where.add_argument("--reference", action="store_true", help="measure this machine alone: "
                       "fdatasync of 256 bytes, a loopback round trip")
    parser.add_argument("--work", choices=WORKS, default="enq", help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, metavar="C",
                        help="connections, each with a session (default: %(default)s)")
    parser.add_argument("--outstanding", type=int, default=500, metavar="M", help="requests "
                        "without an answer, each client (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, metavar="B",
                        help="messages a request (default: %(default)s)")
    parser.add_argument("--payload", type=int, default=100, metavar="BYTES",
                        help="bytes a message (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S",
                        help="measured time (default: %(default)s)")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S",
                        help="load before it (default: %(default)s)")
    parser.add_argument("--fill", type=int, default=1_000_000, metavar="MESSAGES",
                        help="messages put into the queue before deq (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line, as by default")
    return parser


def main() -> int:
    """Exit 0 with one JSON line; 1 where the cluster does not answer; 2 wrong arguments."""
    parser = _parser()
    arguments = parser.parse_args()
    for name in ("clients", "outstanding", "batch", "fill"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if not 0 <= arguments.payload <= 1 << 20 or arguments.seconds <= 0:
        parser.error("--payload is 0 to 1048576 bytes, --seconds above 0")
    try:
        if arguments.reference:
            result = reference()
        elif arguments.local:
            with LocalCluster(arguments.local).start() as cluster:
                pids = [cluster.node(address).pid for address in cluster.addresses]
                result = measure(cluster.addresses, pids, arguments)
        else:
            result = measure(arguments.servers.split(","), [], arguments)
    except (RaftnetError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
