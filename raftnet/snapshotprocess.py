"""SnapshotProcess: the node's side of the child process that makes a snapshot.

Rules: one at a time; nothing here blocks. What the child says comes through a pipe that the loop
watches; its end is the end of the child. Whatever goes wrong is a text, and the node goes on with
its log as it is.
"""

import os
import subprocess
import sys
from collections.abc import Callable

from raftnet.config import Config
from raftnet.makesnapshot import encode_order
from raftnet.net.loop import READ, Loop
from raftnet.rebuild import SnapshotOrder

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_READ_BYTES = 65_536
_LINE_BYTES_MAX = 65_536


class SnapshotProcess:
    """`on_end(order, word, text)`: word is "made", "failed" (text: why), or "damaged" (text: what):
    then the files are not those of this node's state, and it must not go on."""

    def __init__(self, loop: Loop, config: Config, directory: str,
                 on_progress: Callable[[str], None],
                 on_end: Callable[[SnapshotOrder, str, str], None]):
        self._loop = loop
        self._config = config
        self._directory = directory
        self._on_progress = on_progress
        self._on_end = on_end
        self._order: SnapshotOrder | None = None
        self._child: subprocess.Popen | None = None
        self._said = b""                # since the last whole line
        self._outcome: tuple[str, str] | None = None    # its last word

    def start(self, order: SnapshotOrder) -> None:
        """Make that snapshot."""
        assert self._child is None, "one at a time"
        environment = dict(os.environ, PYTHONPATH=_ROOT)
        self._order, self._said, self._outcome = order, b"", None
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "raftnet.makesnapshot"], env=environment, bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            # One line, far below what a pipe holds: this does not block.
            self._child.stdin.write(encode_order(self._directory, self._config, order))
        except OSError as error:
            if self._child is not None:
                self._reap()
            self._on_end(order, "failed", f"no process could be started: {error.strerror}")
            return
        os.set_blocking(self._child.stdout.fileno(), False)
        self._loop.watch(self._child.stdout, READ, self._hear)

    def close(self) -> None:
        """The node stops: so does the child."""
        if self._child is not None:
            self._loop.forget(self._child.stdout)
            self._child.kill()
            self._reap()

    def _hear(self, events: int) -> None:
        data = os.read(self._child.stdout.fileno(), _READ_BYTES)
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-_LINE_BYTES_MAX:]
        for line in lines:
            word, _, text = line.decode(errors="replace").partition(" ")
            if word == "progress":
                self._on_progress(text)
            else:
                self._outcome = word, text
        if not data:
            self._loop.forget(self._child.stdout)
            order, status = self._order, self._reap()
            self._on_end(order, *self._outcome or ("failed", f"its process ended, {status}"))

    def _reap(self) -> int:
        child, self._child, self._order = self._child, None, None
        child.stdin.close()
        child.stdout.close()
        return child.wait()     # its stdout has ended, or it was killed: so has it in a moment
