"""bench.py --delay: what a longer way between all of them costs, in an emulated network.

Rules: each figure comes from a fresh cluster, whose nodes and whose load have a host each, with the
delay in place before the first connection (a TCP that has met a short way misjudges a long one for
long). Each run with a delay is held against one without right after it, of the same load in the
same network: machine, router and batches are the same, only the way is shorter. Medians are quoted.

How many requests are outstanding is chosen such that the pipe is full. An acknowledgement takes
four delays (client, leader, follower and back), and several times what they hold is outstanding:
batches come in bursts, and larger ones cost less. A connection carries no more than the kernel's
send buffer in a round trip: over a long way that is the bound, `send_buffer_ops_per_s`, and more
outstanding would only wait there. `--send-buffer` raises it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterator

from raftnet.client.session import (
    FRAME_COMMANDS_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_FRAMES_MAX, enqueue_encoder)
from raftnet.errors import MalformedError
from raftnet.wire import commands
from tools.benchload import cpu_s, measure
from tools.emulatednetwork import MTU_MAX, Network
from tools.linkprofile import LIMIT_MAX, LinkProfile
from tools.processes import READY_S, LocalCluster

RUNS = 3
MTU = MTU_MAX               # as loopback has it: small packets would measure the router
CLIENTS, OUTSTANDING = 4, 500     # without a delay, and the fewest with one
_WAYS = 4                   # of an enqueue, until it is acknowledged
_FILL = 4                   # times what the ways hold at the rate without a delay
_FILL_BUFFER = 1.5          # times what they hold at the rate that the send buffers allow
_ALONE_REQUESTS = 10        # that one-at-a-time has time for, at least
_ALONE_S = 1.0
_WARMUP_DELAYS = 60         # TCP's windows double in each round trip, from very little
_STARTS_DELAYS = 100        # for an election, greetings and the founding
_SEND_BUFFERS = "/proc/sys/net/ipv4/tcp_wmem"   # of the calling thread's host


def parse_delays(text: str) -> list[float]:
    """`1ms,20ms`: one-way delays in seconds, as tc writes them. Raises MalformedError."""
    found = [LinkProfile.parse(f"delay {word}").delay_s for word in text.split(",")]
    if not all(found):
        raise MalformedError(f"{text!r} has one that is none; without a delay is measured anyway")
    return found


def measure_delays(arguments: argparse.Namespace) -> Iterator[dict]:
    """The figures without a delay, then those with each; as soon as they are there. Raises
    RaftnetError, also where there is no emulated network (root is needed)."""
    plain = [_run(arguments, 0.0, CLIENTS, OUTSTANDING) for _ in range(arguments.runs)]
    yield _median(plain)
    # Not a run that the machine was busy in: the pipe would be half empty all the time.
    best = max(plain, key=lambda run: run["ops_per_s"])
    for delay_s in arguments.delay:
        clients, outstanding = choose_outstanding(arguments, best, delay_s)
        runs = []
        for _ in range(arguments.runs):
            run = _run(arguments, delay_s, clients, outstanding)
            without = _run(arguments, 0.0, clients, outstanding, alone=False)["ops_per_s"]
            runs.append(run | {"ops_per_s_without": without,
                               "share": round(run["ops_per_s"] / without, 3)})
        yield _median(runs)


def choose_outstanding(arguments: argparse.Namespace, plain: dict,
                       delay_s: float) -> tuple[int, int]:
    """(clients, requests outstanding of each) such that the pipe is full; what the command line
    says counts. `plain`: the figures without a delay."""
    rate = min(_FILL * plain["ops_per_s"], _FILL_BUFFER * send_buffer_rate(
        arguments, plain["send_buffer_bytes"], delay_s))
    wanted = rate / arguments.batch * (_WAYS * delay_s + plain["p50_ms"] / 1000)
    wanted = max(CLIENTS * OUTSTANDING, math.ceil(wanted))
    clients = arguments.clients or max(CLIENTS, math.ceil(wanted / session_limit(arguments)))
    return clients, arguments.outstanding or math.ceil(wanted / clients)


def session_limit(arguments: argparse.Namespace) -> int:
    """How many requests of this load a ClientSession has on their way at most."""
    return max(1, min(IN_FLIGHT_FRAMES_MAX * FRAME_COMMANDS_MAX,
                      IN_FLIGHT_BYTES_MAX // _request_bytes(arguments)))


def send_buffer_rate(arguments: argparse.Namespace, buffer_bytes: int, delay_s: float) -> float:
    """Operations a second whose bytes fill a send buffer in each round trip."""
    return buffer_bytes / (2 * delay_s) / _request_bytes(arguments) * arguments.batch


def _request_bytes(arguments: argparse.Namespace) -> int:
    message = bytes(arguments.payload)
    if arguments.batch == 1:
        return len(enqueue_encoder(b"bench")(message))
    return len(commands.encode_enqueue(b"bench", [message] * arguments.batch))


def _run(arguments: argparse.Namespace, delay_s: float, clients: int, outstanding: int,
         alone: bool = True) -> dict:
    """One fresh cluster under one load, after a few requests one at a time."""
    profile = f"delay {delay_s * 1e6:.0f}us limit {LIMIT_MAX}" if delay_s else ""
    count = arguments.local
    with Network(count + 1, profile, mtu=arguments.mtu) as net, net.hosts[count].inside():
        buffer_bytes = _set_send_buffers(net, arguments.send_buffer)
        with LocalCluster(count, hosts=net.hosts[:count], ask_inside=True) as cluster:
            cluster.start(READY_S + _STARTS_DELAYS * delay_s)
            pids = [node.pid for node in cluster.nodes]

            def load(**changed) -> dict:
                return measure(cluster.addresses, pids,
                               argparse.Namespace(**vars(arguments) | changed), delay_s)
            result = {"delay_ms": round(1000 * delay_s, 3)}
            if alone:
                seconds = max(_ALONE_S, _ALONE_REQUESTS * _WAYS * delay_s)
                result["alone_p50_ms"] = load(clients=1, outstanding=1, seconds=seconds,
                                              warmup=_WAYS * delay_s)["p50_ms"]
                if delay_s:
                    result["alone_p50_delays"] = round(result["alone_p50_ms"] / 1000 / delay_s, 2)
            began, router = time.monotonic(), cpu_s(net.router_pid)
            result |= load(clients=clients, outstanding=outstanding,
                           warmup=arguments.warmup + _WARMUP_DELAYS * delay_s)
            router_share = (cpu_s(net.router_pid) - router) / (time.monotonic() - began)
    result |= {"all_outstanding": clients * outstanding, "mtu": arguments.mtu,
               "router_cpu": round(router_share, 2), "send_buffer_bytes": buffer_bytes}
    if delay_s:
        rate = send_buffer_rate(arguments, buffer_bytes, delay_s)
        result["send_buffer_ops_per_s"] = round(rate)
    return result


def _set_send_buffers(net: Network, bytes_max: int) -> int:
    """How far TCP's send buffers grow on all hosts, 0: as the system has it; the bytes."""
    for host in net.hosts:
        with host.inside():
            with open(_SEND_BUFFERS, encoding="ascii") as file:
                least, first, most = file.read().split()
            if bytes_max:
                with open(_SEND_BUFFERS, "w", encoding="ascii") as file:
                    file.write(f"{least} {min(int(first), bytes_max)} {bytes_max}")
    return bytes_max or int(most)


def _median(runs: list[dict]) -> dict:
    """Of each figure, the lower one where there are two; words stay. Says how many runs it was."""
    return {name: statistics.median_low([run[name] for run in runs]) if type(value) is not str
            else value for name, value in runs[0].items()} | {"runs": len(runs)}
