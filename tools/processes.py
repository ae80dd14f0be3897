"""Real node processes on this machine, for the tools and for tests: NodeProcess and LocalCluster.

Rules: a process is only ever signalled by its own handle, never by name, and always reaped: use
LocalCluster as a context manager, or have `close` called. Nothing waits for luck: every wait asks
until it holds, or raises RaftnetError with what was waited for and where the logs are. Nodes run in
sessions of their own, so that Ctrl-C at a terminal reaches only the program that started them; on
Linux they are killed when the main thread that started them ends.

    with LocalCluster(3) as cluster:            # free ports, temporary directory
        cluster.start()                         # ready: a leader serves
        leader = cluster.leader()
        leader.kill()                           # kill -9
        ...
        leader.start()                          # the same command line again

With `hosts` the nodes run on hosts of an emulated network (netem.py); whoever asks them anything
must be inside one of its hosts too.
"""

import contextlib
import ctypes
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from raftnet.client.connection import clock
from raftnet.client.link import ask_node
from raftnet.errors import RaftnetError
from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind
from raftnet.wire.requests import NodeStatus, decode_status
from tools.emulatednetwork import Host

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NODE_PROGRAM = os.path.join(ROOT, "node.py")
HOST = "127.0.0.1"
HOST_PORT = 5001            # of a node on a host of its own
READY_S = 20.0              # until a started node answers, or a cluster has a leader
STOP_S = 20.0               # until a node has stopped after SIGINT; then it is killed
STATUS_S = 1.0              # until a node answers STATUS
_POLL_S = 0.01
_POLL_S_MAX = 0.1
# Below the ports that systems give to outgoing connections: one of those could take the port of
# a node that is down just then.
_FREE_PORTS = range(15_000, 30_000)
_PORT_TRIES_MAX = 1_000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> object:
    """The first true value of `condition()`; raises RaftnetError when none came in time."""
    deadline = time.monotonic() + timeout_s
    pause = _POLL_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise RaftnetError(f"not within {timeout_s:g} s: {what}")
        time.sleep(pause)
        pause = min(_POLL_S_MAX, 2 * pause)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses just now, none twice."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for _ in range(_PORT_TRIES_MAX):
            if len(found) == count:
                return found
            sock = stack.enter_context(socket.socket())
            port = random.choice(_FREE_PORTS)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue        # taken: another one
            found.append(port)
    raise RaftnetError("no free ports were found")


def port_is_taken(address: str) -> bool:
    """Whether somebody listens at the address."""
    try:
        with socket.create_connection(parse_address(address), STATUS_S):
            return True
    except OSError:
        return False


def data_directory(parent: str, address: str) -> str:
    """Where a node keeps its files under `parent`; as node.py names it by itself."""
    host, port = parse_address(address)
    return os.path.join(parent, f"{host.replace(':', '_')}-{port}")


class NodeProcess:
    """One node.py and its command line; may be started again and again.

    `arguments`: what follows `node.py`, the address included. `log_path`: its output is appended
    there. `host`: where it runs in an emulated network. A context manager that kills.
    """

    def __init__(self, address: str, arguments: list[str], log_path: str,
                 host: Host | None = None):
        self.address = address
        self.arguments = arguments
        self.log_path = log_path
        self.host = host
        self.ask_inside = False         # `status` asks from its own host, whatever the links do
        self.status_s = STATUS_S        # until it answers STATUS
        self._process: subprocess.Popen | None = None
        self._log_start = 0             # where the log of the newest start begins

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"NodeProcess({self.address}, pid {self.pid})"

    @property
    def command(self) -> list[str]:
        """The whole command."""
        return [sys.executable, NODE_PROGRAM, *self.arguments]

    @property
    def command_line(self) -> str:
        """The command as it is typed into a shell, in any folder."""
        enter = [] if self.host is None else ["nsenter", f"--net={self.host.path}"]
        return shlex.join([*enter, "python3", NODE_PROGRAM, *self.arguments])

    @property
    def pid(self) -> int | None:
        """The newest process's id; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The newest process's end, negative for a signal; None while it runs or before."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be suspended); reaps it if it has ended."""
        return self._process is not None and self._process.poll() is None

    # --- start and end

    def start(self) -> "NodeProcess":
        """Start it (again), and return at once; `wait_ready` waits."""
        assert not self.running, f"{self.address} runs already, pid {self.pid}"
        # Elsewhere than in the main thread, the end of that thread would count as the parent's.
        tie = _LIBC is not None and threading.current_thread() is threading.main_thread()
        inside = contextlib.nullcontext() if self.host is None else self.host.inside()
        with open(self.log_path, "ab") as log, inside:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent if tie else None)
        return self

    def kill(self) -> None:
        """kill -9, reaped on return. Nothing happens where it does not run."""
        if self.running:
            self._process.kill()
            self._process.wait()

    def interrupt(self, timeout_s: float = STOP_S) -> int | None:
        """Ctrl-C, and wait for the end; gives the exit status, 0 for a clean stop."""
        self.signal(signal.SIGINT)
        return self.wait(timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.running:
            self._process.send_signal(number)

    def suspend(self) -> None:
        """SIGSTOP: it stands still and keeps its connections."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; gives the exit status. Kills it and raises RaftnetError after that."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RaftnetError(f"{self.address} did not stop within {timeout_s:g} s and was "
                               f"killed; its log: {self.log_path}") from None

    # --- what it says

    def status(self, timeout_s: float = 0.0) -> NodeStatus | None:
        """Its STATUS; None where it gives none in time."""
        inside = self.host.inside() if self.ask_inside else contextlib.nullcontext()
        try:
            with inside:
                return decode_status(ask_node(self.address, Kind.STATUS, b"", Kind.STATUS_REPLY,
                                              clock() + (timeout_s or self.status_s)))
        except RaftnetError:
            return None     # down, starting or suspended: the caller sees that it said nothing

    def wait_ready(self, timeout_s: float = READY_S) -> NodeStatus:
        """Wait until it answers STATUS. Raises RaftnetError, with its last line if it ended."""
        return wait_until(self._answers, timeout_s,
                          f"{self.address} answers; its log: {self.log_path}")

    def _answers(self) -> NodeStatus | None:
        if not self.running:
            raise RaftnetError(f"{self.address} ended with status {self.exit_status}: "
                               f"{self.last_line() or 'without a word'}")
        return self.status()

    def log_text(self) -> str:
        """Its log since the newest start."""
        with open(self.log_path, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def last_line(self) -> str:
        """The last line that it wrote since the newest start."""
        lines = self.log_text().splitlines()
        return lines[-1] if lines else ""


class LocalCluster:
    """Nodes on loopback, by default `count` founders with `--cluster`.

    `port`: of the first node, the others follow; 0: any free ones. `hosts`: `count` hosts of an
    emulated network instead, each with a node at port 5001, and `--insecure`; `ask_inside`: each
    is asked from its own host, at once over the worst links, and while it is cut off (it may still
    say then that it leads). `data`: where directories and logs go, `DIR/127.0.0.1-5001` and
    `DIR/5001.log` (`DIR/10.77.0.1-5001.log`); None: a temporary directory, removed by `close`.
    `arguments`: further ones for every node. `status_s`: how long one may take to say its status.
    With `founders` False the nodes are only those of `add`. A context manager that kills all.
    """

    def __init__(self, count: int = 3, port: int = 0, data: str | None = None,
                 arguments: Iterable[str] = (), founders: bool = True,
                 hosts: Sequence[Host] = (), ask_inside: bool = False,
                 status_s: float = STATUS_S):
        self.addresses = [f"{host.address}:{HOST_PORT}" for host in hosts]
        assert len(self.addresses) in (0, count) and not (hosts and port), (count, port, hosts)
        if not hosts:
            ports = range(port, port + count) if port else free_ports(count)
            self.addresses = [f"{HOST}:{each}" for each in ports]
        self._hosts = {address: host for host in (hosts[0].network.hosts if hosts else ())
                       for address in (host.address, host.address6)}
        self.arguments = [*arguments, *(["--insecure"] if hosts else [])]
        self.nodes: list[NodeProcess] = []
        self._ask_inside = ask_inside
        self._status_s = status_s
        self._temporary = data is None
        self.directory = tempfile.mkdtemp(prefix="raftnet-") if data is None else (
            os.path.abspath(data))
        os.makedirs(self.directory, exist_ok=True)
        if founders:
            for address in self.addresses:
                contact = ["--cluster", ",".join(self.addresses)] if count > 1 else []
                self.add(address, [address, *contact])

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def add(self, address: str, arguments: list[str]) -> NodeProcess:
        """One more node, not yet started; `arguments` of node.py, without --data. With `hosts` it
        runs on the host with that address, any of their network."""
        name, port = parse_address(address)
        log = f"{self.data_of(address)}.log" if self._hosts else f"{self.directory}/{port}.log"
        node = NodeProcess(address, [*arguments, *self._data_arguments(address), *self.arguments],
                           log, self._hosts[name] if self._hosts else None)
        node.ask_inside, node.status_s = self._ask_inside, self._status_s
        self.nodes.append(node)
        return node

    def _data_arguments(self, address: str) -> list[str]:
        """None where node.py finds the same directory by itself: a command line to remember."""
        directory = self.data_of(address)
        default = data_directory(os.path.join(ROOT, "raftnet-data"), address)
        return [] if directory == default else ["--data", directory]

    def node(self, address: str) -> NodeProcess:
        """The node with that address."""
        return next(node for node in self.nodes if node.address == address)

    def data_of(self, address: str) -> str:
        """The data directory of the node with that address."""
        return data_directory(self.directory, address)

    # --- start and end

    def start(self, timeout_s: float = READY_S) -> "LocalCluster":
        """Start every node that does not run, and wait until all answer and a leader serves."""
        for node in self.nodes:
            if not node.running:
                node.start()
        for node in self.nodes:
            node.wait_ready(timeout_s)
        self.leader(timeout_s)
        return self

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Ctrl-C to all at once; each is reaped. Raises RaftnetError where one had to be killed,
        or ended with another status than 0."""
        running = [node for node in self.nodes if node.running]
        for node in running:
            node.resume()
            # One that has just been started: the interpreter would answer the signal in its way.
            wait_until(lambda: node.log_text() or not node.running, timeout_s,
                       f"{node.address} begins")
            node.signal(signal.SIGINT)
        problems = []
        deadline = time.monotonic() + timeout_s
        for node in running:
            try:
                status = node.wait(max(0.0, deadline - time.monotonic()))
            except RaftnetError as error:
                problems.append(str(error))
            else:
                if status:
                    problems.append(f"{node.address} ended with status {status}: "
                                    f"{node.last_line()}")
        if problems:
            raise RaftnetError("; ".join(problems))

    def kill(self) -> None:
        """kill -9 to all at once."""
        for node in self.nodes:
            node.signal(signal.SIGKILL)
        for node in self.nodes:
            node.kill()

    def close(self) -> None:
        """Kill what runs; a temporary directory is removed unless `keep` was called."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def keep(self) -> str:
        """Leave the directory behind, for whoever looks for a failure; its path."""
        self._temporary = False
        return self.directory

    # --- what they say

    def statuses(self) -> dict[str, NodeStatus]:
        """The STATUS of every node that runs and answers, by address."""
        found = {node.address: node.status() for node in self.nodes if node.running}
        return {address: status for address, status in found.items() if status is not None}

    def leader(self, timeout_s: float = READY_S) -> NodeProcess:
        """The node that leads in the newest term and serves clients; waits for one."""
        return wait_until(self.find_leader, timeout_s,
                          f"a leader serves; the logs: {self.directory}")

    def find_leader(self) -> NodeProcess | None:
        """The node that leads and serves now, if one says so."""
        statuses = self.statuses()
        term = max((status.term for status in statuses.values()), default=0)
        for address, status in statuses.items():
            # Without load: its term's empty entry is applied, before that it answers no client.
            if (status.role == "leader" and status.term == term and status.founded
                    and status.applied_index == status.commit_index):
                return self.node(address)
        return None

    def wait_settled(self, timeout_s: float = READY_S) -> dict[str, NodeStatus]:
        """Wait until all running nodes applied the same entries, to the end of their logs; raises
        RaftnetError at once where digests differ at an equal applied index."""
        return wait_until(self._settled, timeout_s,
                          f"all nodes have applied the same entries; the logs: {self.directory}")

    def _settled(self) -> dict[str, NodeStatus] | None:
        statuses = self.statuses()
        check_digests(statuses.values())
        running = sum(node.running for node in self.nodes)
        places = {(status.applied_index, status.last_index) for status in statuses.values()}
        if len(statuses) < running or len(places) != 1 or len(set(places.pop())) != 1:
            return None
        return statuses


def check_digests(statuses: Iterable[NodeStatus]) -> None:
    """Raises RaftnetError where nodes that applied equally much have different states."""
    seen: dict[int, NodeStatus] = {}
    for status in statuses:
        other = seen.setdefault(status.applied_index, status)
        if other.digest != status.digest:
            raise RaftnetError(
                f"at applied index {status.applied_index} {other.address} has digest "
                f"{other.digest:08x}, {status.address} {status.digest:08x}")


def die_with_parent() -> None:
    """For preexec_fn, on Linux: SIGKILL when the thread that started the child ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
