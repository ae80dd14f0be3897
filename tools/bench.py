#!/usr/bin/env python3
"""Measure a cluster: one JSON line, acknowledged and synced operations only.

`--local N` starts N nodes on free ports with their files in a temporary directory, measures, and
stops them; `-s` measures running ones. The load comes from this one process (benchload.py).
Machines are noisy: compare figures of one run, quote medians. What an operation is stands in
benchworks.py; its latency is that of the request frame it travelled in. With `--delay` there is a
line for each delay (benchdelay.py).
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.errors import MalformedError, RaftnetError
from tools.benchdelay import CLIENTS, MTU, OUTSTANDING, RUNS, measure_delays, parse_delays
from tools.benchload import measure
from tools.benchworks import WITHOUT_BATCH, WORKS
from tools.emulatednetwork import MTU_MAX, MTU_MIN
from tools.processes import LocalCluster


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
    parser.add_argument("--work", choices=WORKS, default="enq", help="enq-deq: in turn; "
                        "lease-ack: a lease and its acknowledgement are one operation; get: "
                        "linearizable reads; cas: a put where the key has the value before; "
                        "execute: transactions of ack, enqueue and put, on messages leased a "
                        "hundred at a time (default: %(default)s)")
    parser.add_argument("--clients", type=int, metavar="C", help="connections, each with a session "
                        f"(default: {CLIENTS}; with --delay what fills the pipe)")
    parser.add_argument("--outstanding", type=int, metavar="M", help="requests without an answer, "
                        f"each client (default: {OUTSTANDING}; with --delay what fills the pipe)")
    parser.add_argument("--batch", type=int, default=1, metavar="B",
                        help="messages a request (default: %(default)s)")
    parser.add_argument("--payload", type=int, default=100, metavar="BYTES",
                        help="bytes a message (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S",
                        help="measured time (default: %(default)s)")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S",
                        help="load before it (default: %(default)s)")
    parser.add_argument("--fill", type=int, default=1_000_000, metavar="MESSAGES",
                        help="messages put into the queue before deq, lease-ack and execute "
                        "(default: %(default)s)")
    parser.add_argument("--delay", metavar="TIMES", help="with --local, as root: all on hosts of "
                        "an emulated network, first without a delay, then with each of these "
                        "one-way delays: 1ms,20ms,100ms; a line each")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="R", help="with --delay: the "
                        "median of so many (default: %(default)s)")
    parser.add_argument("--mtu", type=int, default=MTU, metavar="BYTES", help="with --delay: of a "
                        "packet (default: %(default)s, as on loopback)")
    parser.add_argument("--send-buffer", type=int, default=0, metavar="BYTES", help="with --delay: "
                        "how far the kernel's send buffers grow, the end of net.ipv4.tcp_wmem "
                        "(default: as the system has it)")
    parser.add_argument("--json", action="store_true", help="one line, as by default")
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit 2 with a line for what makes no sense."""
    for name in ("local", "clients", "outstanding", "batch", "fill", "runs"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if not 0 <= arguments.payload <= 1 << 20 or arguments.seconds <= 0 or arguments.warmup < 0:
        parser.error("--payload is 0 to 1048576 bytes, --seconds above 0, --warmup not below it")
    if arguments.batch > 1 and arguments.work in WITHOUT_BATCH:
        parser.error(f"--batch is of messages: --work {arguments.work} has none")
    if not arguments.delay:
        arguments.clients = arguments.clients or CLIENTS
        arguments.outstanding = arguments.outstanding or OUTSTANDING
        return
    if not arguments.local or arguments.work != "enq":
        parser.error("--delay needs --local N, and measures --work enq only")
    if not MTU_MIN <= arguments.mtu <= MTU_MAX or arguments.send_buffer < 0:
        parser.error(f"--mtu is {MTU_MIN} to {MTU_MAX} bytes, --send-buffer not below 0")
    try:
        arguments.delay = parse_delays(arguments.delay)
    except MalformedError as error:
        parser.error(f"--delay: {error}")


def _results(arguments: argparse.Namespace) -> Iterator[dict]:
    if arguments.reference:
        yield reference()
    elif arguments.delay:
        yield from measure_delays(arguments)
    elif arguments.local:
        with LocalCluster(arguments.local).start() as cluster:
            pids = [cluster.node(address).pid for address in cluster.addresses]
            yield measure(cluster.addresses, pids, arguments)
    else:
        yield measure(arguments.servers.split(","), [], arguments)


def main() -> int:
    """Exit 0 with a JSON line, or several; 1 where the cluster does not answer or there can be no
    emulated network; 2 wrong arguments."""
    parser = _parser()
    arguments = parser.parse_args()
    _check(parser, arguments)
    try:
        for result in _results(arguments):
            print(json.dumps(result), flush=True)
    except (RaftnetError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
