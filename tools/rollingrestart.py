"""A rolling restart of the nodes that a localcluster runs: one after the other, the leader last.

Rules: the nodes belong to the process that started them, so that process restarts them (Rolling),
asked by SIGUSR1; `localcluster.py restart` (ask) only waits. Between them are two files in the
cluster's directory: `localcluster.pid`, locked for as long as that process lives, and
`localcluster.restart`, into which it writes its steps, a line each, from BEGINS to DONE or FAILED;
it is locked by the one who waits. The next node is stopped only when the one before holds and has
applied what the leader had committed.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator

from raftnet.errors import RaftnetError
from raftnet.wire.requests import NodeStatus
from tools.processes import STOP_S, LocalCluster, NodeProcess

PID_FILE = "localcluster.pid"
STEPS_FILE = "localcluster.restart"
BEGINS, DONE, FAILED = "begins: ", "done: ", "failed: "
STANDS_S = 30.0             # a node that does not get further for so long has not caught up
BEGIN_S = 30.0              # until the localcluster that was asked has begun
_LOOK_S = 0.05
_PID_DIGITS_MAX = 10


# --- the two files


@contextlib.contextmanager
def claim(directory: str) -> Iterator[None]:
    """Be the localcluster of that directory; raises RaftnetError where another process is."""
    with open(os.path.join(directory, PID_FILE), "a+", encoding="utf-8") as file:
        if not _lock(file):
            raise RaftnetError(f"another localcluster (pid {_read_pid(file)}) runs the nodes of "
                               f"{directory}: stop it first, or choose another --data")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file) -> bool:
    """Whether nobody else has it locked; the lock ends with the process, or with the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(file) -> str:
    file.seek(0)
    return file.read(_PID_DIGITS_MAX + 1).strip() or "unknown"


# --- asking for it


def ask(directory: str, say: Callable[[str], None]) -> None:
    """Have the localcluster of that directory restart its nodes; returns when it is done.

    Raises RaftnetError where none runs, or it failed, with what to do.
    """
    directory = os.path.abspath(directory)
    with contextlib.ExitStack() as stack:
        try:
            pid_file = stack.enter_context(
                open(os.path.join(directory, PID_FILE), "r+", encoding="utf-8"))
        except FileNotFoundError:
            raise _nobody(directory) from None
        steps = stack.enter_context(
            open(os.path.join(directory, STEPS_FILE), "a+", encoding="utf-8"))
        if not _lock(steps):
            raise RaftnetError(f"somebody waits for a restart of {directory} already")
        steps.truncate(0)
        if _lock(pid_file):
            raise _nobody(directory)
        pid = _read_pid(pid_file)
        if not pid.isdigit():
            raise RaftnetError(f"the localcluster of {directory} is just starting: ask again")
        os.kill(int(pid), signal.SIGUSR1)
        _follow(steps, pid_file, pid, say)


def _nobody(directory: str) -> RaftnetError:
    return RaftnetError(f"no localcluster runs the nodes of {directory}: start one with "
                        f"python3 tools/localcluster.py --data {directory}")


def _follow(steps, pid_file, pid: str, say: Callable[[str], None]) -> None:
    """Say the steps as they come, until the last one."""
    begun, rest, deadline = False, "", time.monotonic() + BEGIN_S
    steps.seek(0)
    while True:
        ended = _lock(pid_file)         # before reading, so that its last words are not missed
        data = rest + steps.read()
        *lines, rest = data.split("\n")
        for line in lines:
            begun = begun or line.startswith(BEGINS)
            if not begun:
                continue                # of an earlier restart, whose asker has gone
            if line.startswith(FAILED):
                raise RaftnetError(line.removeprefix(FAILED))
            say(line)
            if line.startswith(DONE):
                return
        if ended:
            raise RaftnetError(f"the localcluster (pid {pid}) ended before the restart was done")
        if not begun and time.monotonic() >= deadline:
            raise RaftnetError(f"the localcluster (pid {pid}) has not begun within {BEGIN_S:g} s: "
                               "what does its terminal say?")
        time.sleep(_LOOK_S)


# --- doing it


class Rolling:
    """One rolling restart. `meanwhile` is called while something is waited for, and raises
    RaftnetError where the restart is to be given up; `resting` is the address of the node that is
    down on purpose."""

    def __init__(self, cluster: LocalCluster, say: Callable[[str], None],
                 meanwhile: Callable[[], None]):
        self._cluster = cluster
        self._say = say
        self._meanwhile = meanwhile
        self.resting: str | None = None

    def run(self) -> bool:
        """Restart all; the steps go to the file and to `say`. Whether it was done."""
        with open(os.path.join(self._cluster.directory, STEPS_FILE), "a", buffering=1,
                  encoding="utf-8") as steps:
            def tell(text: str) -> None:
                steps.write(text + "\n")
                self._say(f"raftnet: restart {text}")
            began = time.monotonic()
            nodes = self._cluster.nodes
            tell(f"{BEGINS}{len(nodes)} nodes, one after the other, the leader last")
            try:
                self._restart_all(tell)
            except (RaftnetError, OSError) as error:
                tell(f"{FAILED}{error}")
                return False
            tell(f"{DONE}{len(nodes)} nodes in {time.monotonic() - began:.1f} s")
            return True

    def _restart_all(self, tell: Callable[[str], None]) -> None:
        for node in self._cluster.nodes:
            if not node.running:
                raise RaftnetError(f"{node.address} is not among the processes that run here: "
                                   "start it (again) from here first, so that a quorum is left "
                                   "while the others are restarted")
        for node in self._cluster.nodes:
            self._wait_caught_up(node)
        left = list(self._cluster.nodes)
        while left:
            leader = self._cluster.find_leader()
            node = next((node for node in left if node is not leader), left[0])
            left.remove(node)
            self._restart(node, node is leader, tell)

    def _restart(self, node: NodeProcess, leads: bool, tell: Callable[[str], None]) -> None:
        began, pid = time.monotonic(), node.pid
        self.resting = node.address
        node.signal(signal.SIGTERM)
        while node.running:
            if time.monotonic() >= began + STOP_S:
                raise RaftnetError(f"{node.address} (pid {pid}) does not stop within {STOP_S:g} s "
                                   f"of SIGTERM; its log: {node.log_path}")
            self._pause()
        if node.exit_status != 0:
            raise RaftnetError(f"{node.address} (pid {pid}) ended with status {node.exit_status}: "
                               f"{node.last_line()}")
        stopped = time.monotonic()
        node.start()
        self.resting = None
        index = self._wait_caught_up(node)
        tell(f"{node.address}{' (the leader)' if leads else ''}: stopped in "
             f"{stopped - began:.1f} s, started as pid {node.pid}, caught up at index {index} "
             f"after {time.monotonic() - stopped:.1f} s")

    def _wait_caught_up(self, node: NodeProcess) -> int:
        """Until it holds and has applied what the leader had committed at the look before; gives
        that index. Gives up where it gets no further for STANDS_S."""
        seen, mark, deadline = -1, None, time.monotonic() + STANDS_S
        while True:
            leader = self._leader_status()
            status = node.status()
            if status is not None and leader is not None:
                if mark is not None and is_caught_up(status, leader, mark):
                    return mark
                mark = leader.commit_index
            place = status.applied_index if status is not None else -1
            if place > seen:
                seen, deadline = place, time.monotonic() + STANDS_S
            if not node.running:
                raise RaftnetError(f"{node.address} ended with status {node.exit_status}: "
                                   f"{node.last_line()}")
            if time.monotonic() >= deadline:
                raise RaftnetError(_not_caught_up(node, status, leader))
            self._pause()

    def _leader_status(self) -> NodeStatus | None:
        leader = self._cluster.find_leader()
        return leader.status() if leader is not None else None

    def _pause(self) -> None:
        self._meanwhile()
        time.sleep(_LOOK_S)


def is_caught_up(status: NodeStatus, leader: NodeStatus, index: int) -> bool:
    """Whether that node follows this leader, which hears it, and has applied up to `index`."""
    member = next((m for m in leader.members if m.node_id == status.node_id), None)
    return (member is not None and member.reachable and member.match_index >= index
            and status.term == leader.term and status.applied_index >= index)


def _not_caught_up(node: NodeProcess, status: NodeStatus | None,
                   leader: NodeStatus | None) -> str:
    if status is None:
        return f"{node.address} does not answer for {STANDS_S:g} s; its log: {node.log_path}"
    if leader is None:
        return f"no leader serves for {STANDS_S:g} s; `python3 mqclient.py why` says why"
    return (f"{node.address} stays at index {status.applied_index} for {STANDS_S:g} s, committed "
            f"are {leader.commit_index}; its log: {node.log_path}")
