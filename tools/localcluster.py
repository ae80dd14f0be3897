#!/usr/bin/env python3
"""localcluster: a cluster on this machine in one terminal, until Ctrl-C.

Starts nodes as equal founders, or lets them rejoin from the directories that are there, and shows
what matters of their logs; everything is in a file for each node. A node that dies is reported with
the command that starts it again, in any terminal. `restart`, in a second terminal, restarts the
nodes one after the other (tools/rollingrestart.py). Starting and ending processes is
tools/processes.py's affair.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.errors import RaftnetError
from raftnet.raft.membership import QUORUM_RULE_NAMES
from raftnet.wire.address import PORT_MAX
from tools.filetext import last_membership, read_identity_file
from tools import rollingrestart
from tools.processes import HOST, ROOT, LocalCluster, NodeProcess, port_is_taken

NODES_MAX = 100
LOOK_S = 0.1                # between two looks at the logs and processes
READY_HINT_S = 10.0         # without a leader for so long, say where to look
RESTART_S = 1.0             # before --restart starts a dead node again
ELSEWHERE_S = 0.5           # between two looks whether somebody else started a dead node
DEFAULT_PORTS = [5001, 5002, 5003]      # those that mqclient asks by itself

# [address] [time] role term N: text
_LINE = re.compile(r"\[[^ ]+\] \[[\d:.]+\] ([a-z]+)(?: term \d+)?: (.*)")
# What is shown without --verbose, beside everything from WARNING on: roles, members, starts, ends.
_SHOWN = re.compile(r"^(WARNING|ERROR|raftnet |elected leader|standing for|following [^n]"
                    r"|taken into|cluster \w+ of|the leader \S+ is gone|SIG\w+: stopping|stopped)")


class Terminal:
    """What this program says, and the nodes' lines between it."""

    def __init__(self, verbose: bool):
        self._verbose = verbose
        self._read_to: dict[str, int] = {}      # by node's address: how far its log was shown

    def say(self, text: str = "") -> None:
        """A line of this program's own."""
        print(text, flush=True)

    def skip(self, node: NodeProcess) -> None:
        """What is in its log already is of earlier runs."""
        if os.path.exists(node.log_path):
            self._read_to[node.address] = os.path.getsize(node.log_path)

    def show(self, node: NodeProcess) -> None:
        """The whole lines that are new in its log."""
        with open(node.log_path, "rb") as log:
            log.seek(self._read_to.get(node.address, 0))
            data = log.read()
        data = data[:data.rfind(b"\n") + 1]
        self._read_to[node.address] = self._read_to.get(node.address, 0) + len(data)
        lines = [line for line in data.decode("utf-8", "replace").splitlines()
                 if self._verbose or is_shown(line)]
        if lines:
            self.say("\n".join(lines))


def is_shown(line: str) -> bool:
    """Whether a line of a node's log is shown without --verbose; one of another form always is."""
    match = _LINE.match(line)
    if match is None:
        return True
    role, text = match.groups()
    return _SHOWN.match(text) is not None or role == "leader" and text.startswith("members at")


class Runner:
    """The nodes, from the start to the end."""

    def __init__(self, cluster: LocalCluster, terminal: Terminal, restart: bool):
        self._cluster = cluster
        self._terminal = terminal
        self._restart = restart
        self._down: dict[str, float] = {}       # by address: when to look at it again
        self._elsewhere: set[str] = set()       # started again by somebody else
        self._rolling: rollingrestart.Rolling | None = None
        self.stopping = False
        self.restart_asked = False      # by SIGUSR1

    def check_ports(self) -> None:
        """Raises RaftnetError where somebody listens at a node's address."""
        for node in self._cluster.nodes:
            if port_is_taken(node.address):
                raise RaftnetError(f"something listens at {node.address} already: stop it, or "
                                   "choose other ports with --port")

    def start(self) -> None:
        """Start all, and say how to go on; raises RaftnetError where that cannot be."""
        for node in self._cluster.nodes:
            self._terminal.skip(node)
            node.start()
        self._tell_nodes()
        self._wait_ready()

    def _tell_nodes(self) -> None:
        say, cluster = self._terminal.say, self._cluster
        say(f"raftnet: {len(cluster.nodes)} nodes on this machine. Files and full logs: "
            f"{cluster.directory}")
        for node in cluster.nodes:
            say(f"  {node.address}  pid {node.pid}  log {os.path.basename(node.log_path)}")
            say(f"    {node.command_line}")
        say()

    def _wait_ready(self) -> None:
        hint = time.monotonic() + READY_HINT_S
        while not self.stopping:
            self._look()
            leader = self._cluster.find_leader()
            if leader is not None:
                self._tell_use(leader)
                return
            if not self._restart and not any(node.running for node in self._cluster.nodes):
                raise RaftnetError("no node runs; see their lines above")
            if time.monotonic() >= hint:
                hint = time.monotonic() + READY_HINT_S
                self._terminal.say("raftnet: there is no leader yet; the logs say why")
            time.sleep(LOOK_S)

    def _tell_use(self, leader: NodeProcess) -> None:
        say, cluster = self._terminal.say, self._cluster
        client = "python3 " + os.path.join(ROOT, "mqclient.py")
        if [int(address.rpartition(":")[2]) for address in cluster.addresses] != DEFAULT_PORTS:
            client += f" -s {','.join(cluster.addresses)}"
        say()
        say(f"raftnet: ready, {leader.address} leads. In a second terminal:")
        say(f"  {client} enqueue hello world")
        say(f"  {client} dequeue -n 2")
        say(f"  {client} status")
        say(f"  kill -9 {leader.pid}        the leader; then the same commands again, and start it "
            "with its line above")
        say("Ctrl-C here stops all nodes.")
        say()

    def run(self) -> None:
        """Watch until `stopping`."""
        while not self.stopping:
            self._look()
            if self.restart_asked:
                self._roll()
            time.sleep(LOOK_S)

    def _roll(self) -> None:
        """Restart all nodes, one after the other."""
        self.restart_asked = False      # asked again from here on: once more
        self._rolling = rollingrestart.Rolling(self._cluster, self._terminal.say, self._meanwhile)
        self._rolling.run()
        self._rolling = None

    def _meanwhile(self) -> None:
        if self.stopping:
            raise RaftnetError("the localcluster was stopped")
        self._look()

    def _look(self) -> None:
        for node in self._cluster.nodes:
            running = node.running      # before its log, so that its last words come first
            self._terminal.show(node)
            if not running and (self._rolling is None or self._rolling.resting != node.address):
                self._look_at_dead(node)

    def _look_at_dead(self, node: NodeProcess) -> None:
        now, address = time.monotonic(), node.address
        if address not in self._down:
            self._down[address] = now + RESTART_S
            self._terminal.say(f"raftnet: {address} (pid {node.pid}) {_ending(node)}. "
                               + ("It is started again" if self._restart else "Start it again")
                               + f" with:\n    {node.command_line}")
        elif now >= self._down[address] and not self.stopping:
            self._down[address] = now + ELSEWHERE_S
            taken = port_is_taken(address)
            if taken != (address in self._elsewhere):
                self._elsewhere ^= {address}
                self._terminal.say(f"raftnet: {address} was started elsewhere: its log is there"
                                   if taken else f"raftnet: {address} has ended there")
            elif self._restart and not taken:
                node.start()
                del self._down[address]
                self._terminal.say(f"raftnet: {address} is started again, pid {node.pid}")

    def stop(self) -> None:
        """Stop what this program started; raises RaftnetError where a node did not end well."""
        try:
            self._terminal.say("\nraftnet: stopping all nodes")     # behind the terminal's ^C
        finally:
            self._cluster.stop()        # also where nobody reads this terminal any more
        for node in self._cluster.nodes:
            self._terminal.show(node)
        self._terminal.say("raftnet: all nodes are stopped; the same command lets them rejoin")
        for address in sorted(self._elsewhere):
            self._terminal.say(f"raftnet: {address}, started elsewhere, goes on running")


def _ending(node: NodeProcess) -> str:
    status = node.exit_status
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"has ended with status {status}"


def build_cluster(arguments: argparse.Namespace) -> LocalCluster:
    """The nodes; one without a directory joins a cluster that exists without it."""
    cluster = LocalCluster(arguments.nodes, arguments.port, arguments.data,
                           ["--quorum", arguments.quorum] if arguments.quorum else [], False)
    existing = {}
    for address in cluster.addresses:
        if read_identity_file(cluster.data_of(address)) is not None:
            membership = last_membership(cluster.data_of(address))
            existing[address] = {m.address for m in membership.members} if membership else set()
    known = set().union(*existing.values()) | set(existing)
    for address in cluster.addresses:
        start = ["--cluster", ",".join(cluster.addresses)] if len(cluster.addresses) > 1 else []
        if existing and address not in known:
            start = ["--join", min(existing)]
        cluster.add(address, [address, *start])
    return cluster


def main(argv: list[str]) -> int:
    """Run until Ctrl-C; gives the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.port + arguments.nodes - 1 > PORT_MAX:
        _parser().error(f"there is no port above {PORT_MAX}")
    try:
        if arguments.command == "restart":
            rollingrestart.ask(arguments.data, lambda line: print(line, flush=True))
            return 0
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(build_cluster(arguments))
            runner = Runner(cluster, Terminal(arguments.verbose), arguments.restart)

            def on_signal(number, frame):
                runner.stopping = True
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, on_signal)

            def on_restart(number, frame):
                runner.restart_asked = True
            signal.signal(signal.SIGUSR1, on_restart)       # before `claim` tells our pid
            stack.enter_context(rollingrestart.claim(cluster.directory))
            runner.check_ports()
            try:
                runner.start()
                runner.run()
            finally:
                runner.stop()
    except (RaftnetError, OSError) as error:
        print(f"localcluster.py: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="localcluster.py", description="A raftnet cluster on this machine, until Ctrl-C. "
        "Directories that are there already are rejoined with what is in them.")
    parser.add_argument("command", nargs="?", choices=["restart"],
                        help="restart, in a second terminal: restart the nodes of the localcluster "
                        "that runs on --data, one after the other, each when the one before has "
                        "caught up, the leader last; waits, and shows each step")
    parser.add_argument("--nodes", metavar="N", type=_whole(1, NODES_MAX), default=3,
                        help="how many (default: 3)")
    parser.add_argument("--port", metavar="PORT", type=_whole(1, PORT_MAX), default=5001,
                        help=f"of the first node on {HOST}; the others follow (default: 5001)")
    parser.add_argument("--data", metavar="DIR", default=os.path.join(ROOT, "raftnet-data"),
                        help="directories and logs (default: raftnet-data beside node.py)")
    parser.add_argument("--quorum", choices=list(QUORUM_RULE_NAMES.values()),
                        help="who decides; counts at the first start only (default: majority)")
    parser.add_argument("--restart", action="store_true",
                        help="start a node that died again by itself")
    parser.add_argument("--verbose", action="store_true", help="show every line of every log")
    return parser


def _whole(low: int, high: int):
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text[:9]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: a number from {low} to {high} is needed")
        return int(text[:9])
    return parse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
