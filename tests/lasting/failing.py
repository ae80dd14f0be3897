"""A lone node whose system calls fail: what it acknowledged is there, whatever it could not do.

strace makes one call of the node's files fail, in each of its threads the same one by number: the
main thread's are those of the start, the disk thread's those of the load. EIO ends the process with
one line, and so does any error of a sync; ENOSPC of a write is a full disk for a moment.
"""

import collections
import shutil
import subprocess
import sys
from collections.abc import Callable

from raftnet.client import Client
from raftnet.errors import NoAnswerError, RaftnetError, RefusedError
from tools.processes import LocalCluster, NodeProcess, wait_until

# (call, error, the numbers that are reached): fsync is for directories, few of which change.
CASES = (("pwrite64", "EIO", range(1, 51)), ("pwrite64", "ENOSPC", range(1, 51)),
         ("fdatasync", "EIO", range(1, 51)), ("fdatasync", "ENOSPC", range(1, 51)),
         ("fsync", "EIO", range(1, 11)), ("ftruncate", "EIO", range(1, 5)),
         ("rename", "ENOSPC", range(1, 5)))
_MESSAGES = 30
_CALL_S = 1.0               # of a client's call: the node may have ended
_LIMIT_S = 30.0
_SNAPSHOT_AFTER = "4K"      # so that snapshots are made, and the log cut, within those messages
_MESSAGE_BYTES = 400


class FailingFailure(Exception):
    """Something does not hold."""


def unavailable() -> str:
    """Why no call can be made to fail; "" where it can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "calls are made to fail with strace, of Linux"
    found = subprocess.run(["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e",
                            "trace=fsync", "true"],
                           capture_output=True, text=True)
    return "" if found.returncode == 0 else f"strace cannot trace here: {found.stderr.strip()}"


class Injected(NodeProcess):
    """A node under strace where `inject` says what is to fail."""

    inject = ""

    @property
    def command(self) -> list[str]:
        """The whole command."""
        if not self.inject:
            return super().command
        call = self.inject.partition(":")[0]
        return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", f"{self.log_path}.calls",
                "-e", "signal=none", "-e", f"trace={call}", "-e", f"inject={self.inject}",
                *super().command]


class FailingRun:
    """Raises FailingFailure, RaftnetError."""

    def __init__(self, say: Callable[[str], None] = lambda text: None):
        self._say = say
        self.ends: collections.Counter[str] = collections.Counter()

    def run(self, call: str, error: str, number: int) -> None:
        """The call of that number fails with that error; then a start where nothing does."""
        what = f"{call} number {number}: {error}"
        with LocalCluster(1, arguments=["--snapshot-after", _SNAPSHOT_AFTER, "--keep-log", "4K"]
                          ) as cluster:
            plain = cluster.nodes[0]
            node = Injected(plain.address, plain.arguments, plain.log_path)
            cluster.nodes[0] = node
            node.inject = f"{call}:error={error}:when={number}"
            node.start()
            try:
                acknowledged = self._enqueue(node)
                self._judge_end(node, what, error, call)
                node.kill()
                node.inject = ""
                node.start().wait_ready()
                self._judge(cluster, acknowledged, what)
            except BaseException:
                cluster.keep()
                raise

    def _enqueue(self, node: NodeProcess) -> list[bytes]:
        """Send the messages one after the other while the node lives; which were acknowledged."""
        acknowledged = []
        try:
            node.wait_ready(_LIMIT_S)
        except RaftnetError:
            if node.running:
                raise
            return []       # it could not even start
        with Client([node.address], _CALL_S) as client:
            queue = client.queue()
            for number in range(_MESSAGES):
                message = b"%0*d" % (_MESSAGE_BYTES, number)
                try:
                    queue.enqueue(message)
                except (NoAnswerError, RefusedError):
                    if not node.running:
                        break
                    continue        # a slow machine: it may be there, and need not be
                acknowledged.append(message)
        return acknowledged

    def _judge_end(self, node: NodeProcess, what: str, error: str, call: str) -> None:
        with open(f"{node.log_path}.calls", encoding="utf-8", errors="replace") as file:
            hit = "INJECTED" in file.read()
        if hit and call != "rename" and (error == "EIO" or call != "pwrite64"):
            # What is hit may be on its way: the client's last word is written after all answers.
            wait_until(lambda: not node.running or _of_child(node.log_text())
                       or "Traceback" in node.log_text(), _LIMIT_S,
                       f"{what}: the node ends: {node.log_path}")
        text = node.log_text()
        if "Traceback" in text:
            raise FailingFailure(f"{what}: a traceback: {node.log_path}")
        if node.running:
            self.ends["went on" if hit else "not reached"] += 1
            return
        said = [line for line in text.splitlines() if not line.startswith("[")]
        if node.exit_status != 1 or len(said) != 1:
            raise FailingFailure(f"{what}: status {node.exit_status}, {said}")
        self.ends["ended"] += 1

    def _judge(self, cluster: LocalCluster, acknowledged: list[bytes], what: str) -> None:
        with Client(cluster.addresses, _LIMIT_S) as client:
            found = [message.data for message in client.queue().peek(2 * _MESSAGES)]
        sent = [b"%0*d" % (_MESSAGE_BYTES, number) for number in range(_MESSAGES)]
        if not set(acknowledged) <= set(found) or found != [m for m in sent if m in found]:
            raise FailingFailure(f"{what}: {len(acknowledged)} were acknowledged, and {len(found)} "
                                 "are there")


def _of_child(text: str) -> bool:
    """Whether the process that makes snapshots was hit: the node goes on without one."""
    return "no snapshot was made" in text
