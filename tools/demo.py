#!/usr/bin/env python3
"""demo: the assignment's demonstration from start to end, on real processes of this machine.

Six servers and one client: joining through a contact, heartbeats, requests through a redirect, the
leader and one more killed, an election among the remaining four, their return from their own files,
and one log on all six. Each step says what it did and what it saw; exit 0 only if every step held.
On failure the logs are kept, and the last line says where.

With --netem all of it happens over a network that delays, loses, damages, doubles and reorders
packets: by tc on the loopback where the kernel can do that, else on seven hosts of netem.py.
"""

import argparse
import contextlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client import Client
from raftnet.client.entries import entry_lines
from raftnet.errors import MalformedError, RaftnetError
from raftnet.raft.entry import Entry, EntryKind
from raftnet.wire.address import PORT_MAX, parse_address
from raftnet.wire.requests import NodeStatus
from tools.emulatednetwork import Network
from tools.linkprofile import LinkProfile
from tools.netem import TrafficControl, count_text
from tools.processes import (READY_S, ROOT, STATUS_S, LocalCluster, NodeProcess, check_digests,
                             port_is_taken, wait_until)

NODES = 6
QUORUM_RULE = "half-rounded-up-plus-one"
QUEUE = "default"
CLIENT_S = 30.0                 # until a client's command is answered
BAD_NETWORK = "delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% 5% loss 5%"   # the assignment's
PATIENCE_S = 900.0              # instead of all other limits, over a bad network
FIRST, SECOND, THIRD = ["1", "2", "3", "s", "s"], ["t", "e", "r"], ["U", "W", "U"]
DEQUEUED = ["1", "2"]
LEADERS_MAX = 10                # that one command is given to, where the leadership changes


class Demo:
    """One demonstration; `run` raises RaftnetError at the first thing that does not hold."""

    def __init__(self, cluster: LocalCluster, ctrl_c: bool, is_bad: bool = False,
                 counts: Callable[[], str] = lambda: ""):
        self._cluster = cluster
        self._ctrl_c = ctrl_c
        self._ready_s = PATIENCE_S if is_bad else READY_S
        self._client_s = PATIENCE_S if is_bad else CLIENT_S
        self._counts = counts           # of packets, in words
        self._began = self._step_began = time.monotonic()
        self._step = 0
        self._stopped: list[NodeProcess] = []
        self._before: dict[str, NodeStatus] = {}    # of those that are stopped, by address
        for place, address in enumerate(cluster.addresses):
            words = [str(word) for word in parse_address(address)]
            if place == 0:
                cluster.add(address, [*words, "--quorum", QUORUM_RULE])
            else:
                # Each one's contact is the one before it, which is not the leader from 3 on.
                contact = [str(word) for word in parse_address(cluster.addresses[place - 1])]
                cluster.add(address, [*words, *contact])

    def run(self) -> None:
        """All steps."""
        self.start_nodes()
        self.see_heartbeats()
        self.enqueue_through_redirect()
        self.stop_leader_and_another()
        self.see_election()
        self.use_new_leader()
        self.restart_stopped()
        self.enqueue_at_returned()
        self.compare_logs()
        self.stop_all()
        self.end_step()

    # --- the words

    def step(self, text: str) -> None:
        """Begin a step."""
        if self._step:
            self.end_step()
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)

    def end_step(self) -> None:
        """Say how long it took."""
        now = time.monotonic()
        counts = self._counts()
        took = f"step {self._step} took {now - self._step_began:.1f} s"
        self.saw(f"{took}; since the beginning {counts}" if counts else took)
        self._step_began = now

    def saw(self, text: str) -> None:
        """Something that happened."""
        print(f"   {time.monotonic() - self._began:6.2f} s  {text}", flush=True)

    def check(self, holds: bool, text: str) -> None:
        """Something that must hold."""
        if not holds:
            raise RaftnetError(f"step {self._step}: {text}")
        self.saw(f"ok: {text}")

    def mqclient(self, *words: str, expect: int = 0) -> tuple[list[str], str]:
        """Run the real mqclient; (lines of stdout, stderr)."""
        done = self._run_mqclient(words)
        if done.returncode != expect:
            raise RaftnetError(f"step {self._step}: mqclient ended with status {done.returncode}, "
                               f"not {expect}")
        return done.stdout.splitlines(), done.stderr

    def mqclient_at_leader(self, *words: str) -> list[str]:
        """Run the real mqclient at the leader, without a redirect; lines of stdout. On a network
        that loses and damages packets the leadership may change in that moment: then the same
        command is given again, under its session where it may have been executed already."""
        resume: tuple[str, ...] = ()
        for _ in range(LEADERS_MAX):
            done = self._run_mqclient(
                ("--no-redirect", "-s", self._leader().address, *words, *resume))
            if not done.returncode:
                return done.stdout.splitlines()
            unknown = re.search("--resume [^ ]+", done.stderr)
            if unknown is not None:
                resume = tuple(unknown.group().split())
            elif "NOT_LEADER" not in done.stderr:
                break
            self.saw("the leadership changed meanwhile: the same command again")
        raise RaftnetError(f"step {self._step}: mqclient ended with status {done.returncode}")

    def _run_mqclient(self, words: tuple[str, ...]) -> subprocess.CompletedProcess:
        if self._client_s != CLIENT_S:
            words = ("--timeout", f"{self._client_s:g}", *words)
        print(f"            $ {shlex.join(['python3', 'mqclient.py', *words])}", flush=True)
        try:
            done = subprocess.run([sys.executable, os.path.join(ROOT, "mqclient.py"), *words],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=2 * self._client_s)
        except subprocess.TimeoutExpired:
            raise RaftnetError(f"step {self._step}: mqclient did not end") from None
        for line in (done.stdout + done.stderr).splitlines():
            print(f"              {line}", flush=True)
        return done

    def enqueue(self, node: NodeProcess, messages: list[str]) -> list[int]:
        """Each message by a request of its own, to that node at first; the ids."""
        with Client([node.address], self._client_s) as client:
            ids = []
            for message in messages:
                ids.append(client.queue(QUEUE).enqueue(message))
                self.saw(f'queue("{message}") sent to {node.address}: message {ids[-1]}')
            return ids

    def _leader(self) -> NodeProcess:
        return self._cluster.leader(self._ready_s)

    # --- the steps

    def start_nodes(self) -> None:
        """The first founds, the others join."""
        nodes = self._cluster.nodes
        self.step(f"{NODES} servers: the first founds, each other joins through a contact address")
        for place, node in enumerate(nodes):
            node.start()
            print(f"            $ {node.command_line}", flush=True)
            node.wait_ready(self._ready_s)
            self._leader()
            wait_until(lambda: self._is_voter(node), self._ready_s,
                       f"{node.address} becomes a voter")
            role = "leads" if place == 0 else "was taken in and votes"
            self.saw(f"{node.address} (pid {node.pid}) {role}")
        leader = self._leader()
        status = leader.wait_ready(self._ready_s)
        self.check(len(status.members) == NODES and all(m.voter for m in status.members),
                   f"{leader.address} leads {NODES} voters in term {status.term}")

    def _is_voter(self, node: NodeProcess) -> bool:
        """Whether the leader's committed membership and the node itself say so."""
        status = node.status()
        if status is None or status.role not in ("follower", "leader"):
            return False
        leader = self._cluster.find_leader()
        leads = leader and leader.status()
        return bool(leads and any(m.address == node.address and m.voter for m in leads.members)
                    and status.applied_index >= leads.commit_index)

    def see_heartbeats(self) -> None:
        """In every node's log."""
        leader = self._leader()
        self.step("Heartbeats on every node")
        for node in self._cluster.nodes:
            words = (f"heartbeat sent to {NODES - 1} nodes" if node is leader
                     else f"heartbeat received from leader {leader.address}")
            line = wait_until(lambda: find_line(node, words), self._ready_s,
                              f"{node.address} logs {words!r}")
            self.saw(line)

    def enqueue_through_redirect(self) -> None:
        """To a follower; the first one shown step by step."""
        leader = self._leader()
        follower = random.choice([n for n in self._cluster.nodes if n is not leader])
        self.step(f'queue("1") ("2") ("3") ("s") ("s") to {follower.address}, which does not lead')
        words = ("enqueue", "-q", QUEUE, FIRST[0])
        _, refusal = self.mqclient("--no-redirect", "-s", follower.address, *words, expect=1)
        self.check("NOT_LEADER" in refusal and leader.address in refusal,
                   f"it refused and named the leader {leader.address}")
        ids, _ = self.mqclient("-s", follower.address, *words)
        self.check(ids == ["1"], "the same command followed the redirect: message 1")
        ids = self.enqueue(follower, FIRST[1:])
        self.check(ids == [2, 3, 4, 5], "the others too, as messages 2 to 5")
        self.check_redirected(follower)

    def check_redirected(self, node: NodeProcess) -> None:
        """That node's log must show it."""
        line = wait_until(lambda: find_line(node, "NOT_LEADER"), self._ready_s,
                          f"{node.address} logs the redirect")
        self.saw(line)

    def stop_leader_and_another(self) -> None:
        """kill -9, or Ctrl-C."""
        cluster = self._cluster
        leader = self._leader()
        other = random.choice([node for node in cluster.nodes if node is not leader])
        self._before = cluster.wait_settled(self._ready_s)
        self._stopped = [leader, other]
        how = "Ctrl-C" if self._ctrl_c else "kill -9"
        self.step(f"{how} to the leader {leader.address} (pid {leader.pid}) and to "
                  f"{other.address} (pid {other.pid})")
        for node in self._stopped:
            if self._ctrl_c:
                status = node.interrupt(self._ready_s)
                self.check(status == 0, f"{node.address} ended with status {status}")
            else:
                node.kill()
                self.check(node.exit_status == -signal.SIGKILL, f"{node.address} was killed")
        self._stopped_at = time.monotonic()

    def see_election(self) -> None:
        """One of the remaining four leads."""
        self.step("Election among the remaining four; all four are needed under the rule "
                  f"{QUORUM_RULE}")
        leader = self._leader()
        took = time.monotonic() - self._stopped_at
        old_term = max(status.term for status in self._before.values())
        status = leader.wait_ready(self._ready_s)
        self.check(leader not in self._stopped and status.term > old_term,
                   f"{leader.address} leads in term {status.term}, {took:.2f} s after the end of "
                   f"the leader of term {old_term}")
        for node in self._cluster.nodes:
            words = "elected leader" if node is leader else f": vote granted to {leader.address}"
            line = node.running and find_line(node, words)
            if line:
                self.saw(line)

    def use_new_leader(self) -> None:
        """Two dequeues, three enqueues."""
        leader = self._leader()
        self.step(f'Two dequeues at the new leader {leader.address}, then queue("t") ("e") ("r")')
        for message in DEQUEUED:
            found = self.mqclient_at_leader("dequeue", "-q", QUEUE)
            self.check(found == [message], f"the dequeue gave {message}")
        ids = self.enqueue(leader, SECOND)
        self.check(ids == [6, 7, 8], "they are messages 6 to 8")

    def restart_stopped(self) -> None:
        """The same command lines; followers again, and nothing in the log about it."""
        self.step("Both are started again, with the same command lines")
        memberships = len(self._memberships())
        for node in self._stopped:
            print(f"            $ {node.command_line}", flush=True)
            node.start()
        for node in self._stopped:
            status = wait_until(lambda: self._caught_up(node), self._ready_s,
                                f"{node.address} follows and has caught up")
            before = self._before[node.address]
            self.check(status.node_id == before.node_id and status.boot == before.boot + 1,
                       f"{node.address} (pid {node.pid}) is the same node {status.node_id:016x}, "
                       f"start {status.boot} of its directory, {status.role} in term {status.term}"
                       f", applied up to {status.applied_index}")
        self.check(len(self._memberships()) == memberships,
                   "they came back from their own files: no change of the membership")

    def _caught_up(self, node: NodeProcess) -> NodeStatus | None:
        if not node.running:
            raise RaftnetError(f"{node.address} ended: {node.last_line()}")
        leader, status = self._cluster.find_leader(), node.status()
        leads = leader and leader.status()
        if leads and status and status.role == "follower" and (
                status.applied_index == leads.applied_index and status.leader == leader.address):
            return status
        return None

    def _memberships(self) -> list[Entry]:
        return [entry for entry in self._log() if entry.kind == EntryKind.MEMBERSHIP]

    def enqueue_at_returned(self) -> None:
        """To a node that just came back."""
        node = self._stopped[0]
        self.step(f'queue("U") ("W") ("U") to {node.address}, which just came back')
        ids = self.enqueue(node, THIRD)
        self.check(ids == [9, 10, 11], "it named the leader, and they are messages 9 to 11")
        self.check_redirected(node)

    def compare_logs(self) -> None:
        """request_log, everywhere."""
        cluster = self._cluster
        leader = self._leader()
        self.step(f"request_log from the leader {leader.address}")
        statuses = cluster.wait_settled(self._ready_s)
        log = self._log()
        for line in (line for entry in log for line in entry_lines(entry)):
            print(f"            {line}", flush=True)
        index = log[-1].index if log else 0
        self.check([entry.index for entry in log] == list(range(1, index + 1))
                   and index == statuses[leader.address].commit_index,
                   f"it is complete, entries 1 to {index}")
        for node in cluster.nodes:
            self.check(self._log(node.address) == log,
                       f"{node.address} has the same {len(log)} entries, byte for byte")
        check_digests(statuses.values())
        digests = {status.digest for status in statuses.values()}
        self.check(len(statuses) == NODES and len(digests) == 1,
                   f"all {NODES} have digest {digests.pop():08x} at applied index {index}")
        found, _ = self.mqclient("-s", leader.address, "peek", "-q", QUEUE, "-n", "100")
        self.check(found == FIRST[len(DEQUEUED):] + SECOND + THIRD,
                   f"the queue holds {' '.join(found)}")

    def _log(self, local: str | None = None) -> list[Entry]:
        with Client([self._leader().address], self._client_s) as client:
            return list(client.log(local=local))

    def stop_all(self) -> None:
        """Ctrl-C to all."""
        self.step("Ctrl-C to all servers")
        self._cluster.stop(self._ready_s)
        self.check(all(node.exit_status == 0 for node in self._cluster.nodes),
                   "all ended with status 0")


def find_line(node: NodeProcess, words: str) -> str | None:
    """The last line of its log since its newest start that has these words."""
    return next((line for line in reversed(node.log_text().splitlines()) if words in line), None)


def main(argv: list[str]) -> int:
    """Run it; gives the exit status."""
    arguments = _parser().parse_args(argv)
    cluster = None
    with contextlib.ExitStack() as stack:
        try:
            hosts, counts = _prepare_network(arguments.netem, stack)
            is_slow = arguments.netem is not None and not hosts
            cluster = stack.enter_context(LocalCluster(
                NODES, arguments.port, arguments.data, founders=False, hosts=hosts[:NODES],
                ask_inside=bool(hosts), status_s=PATIENCE_S if is_slow else STATUS_S))
            _refuse_used(cluster)
            print(f"{NODES} servers, 1 client; files and logs: {cluster.directory}", flush=True)
            Demo(cluster, arguments.ctrl_c, arguments.netem is not None, counts).run()
        except (RaftnetError, OSError) as error:
            kept = f"\nthe logs are kept: {cluster.keep()}/*.log" if cluster else ""
            print(f"\nFAILED: {error}{kept}", flush=True)
            return 1
        except KeyboardInterrupt:
            print("\nstopped")
            return 130
    print("\nall steps held")
    return 0


def _prepare_network(profile: str | None, stack: contextlib.ExitStack):
    """([hosts] and the packets counted so far in words), set up until the stack's end."""
    if profile is None:
        return [], lambda: ""
    try:
        control = stack.enter_context(TrafficControl("lo", profile))
    except RaftnetError as error:
        print(f"no tc: {str(error).split(';')[0]}")
        network = stack.enter_context(Network(NODES + 1, profile))
        stack.enter_context(network.hosts[NODES].inside())      # the client's host is the last
        print(f"{NODES + 1} hosts, joined by an emulated network: {profile}")
        return network.hosts, lambda: count_text(network.counts())
    print(f"tc on this machine's loopback: {profile}")
    return [], control.counts


def _refuse_used(cluster: LocalCluster) -> None:
    for address in cluster.addresses:
        if os.path.exists(cluster.data_of(address)):
            raise RaftnetError(f"{cluster.data_of(address)} is there already: the demonstration "
                               "begins with empty directories, choose another --data")
        if port_is_taken(address):
            raise RaftnetError(f"something listens at {address} already: choose another --port")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py", description="The assignment's demonstration: 6 servers and a client on "
        "this machine. Exit status 0 only if every step held.")
    parser.add_argument("--ctrl-c", action="store_true",
                        help="stop the leader and another with Ctrl-C, not with kill -9")
    parser.add_argument("--netem", metavar="PROFILE", nargs="?", const=BAD_NETWORK, type=_profile,
                        help="over a bad network, in tc's words; needs root, and takes minutes "
                        f"(default: {BAD_NETWORK.replace('%', '%%')})")
    parser.add_argument("--port", metavar="PORT", type=_port, default=0,
                        help="of the first server, the others follow (default: free ones)")
    parser.add_argument("--data", metavar="DIR",
                        help="keep directories and logs there (default: a temporary directory)")
    return parser


def _profile(text: str) -> str:
    try:
        LinkProfile.parse(text)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= PORT_MAX - NODES + 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number up to {PORT_MAX - NODES + 1}")
    return int(text[:9])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
