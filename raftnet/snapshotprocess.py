"""SnapshotProcess: the node's side of the child process that makes a snapshot.

Rules: one at a time; nothing here blocks, but `close` for a moment. What the child says comes
through pipes that the loop watches; the end of its stdout is its end. Whatever goes wrong is a
text, and the node goes on with its log as it is. A child that a hung disk holds up is left behind:
its stdin is closed, so it ends when it can.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from raftnet.config import Config
from raftnet.makesnapshot import encode_order
from raftnet.net.loop import READ, Loop
from raftnet.rebuild import SnapshotOrder

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NICENESS = 5               # more than the node's own: its work goes first, but where one core does
                            # all, the child has a quarter of it; at 19 it would starve
_READ_BYTES = 65_536
_LINE_BYTES_MAX = 65_536
_ERROR_BYTES_MAX = 500      # of the last line on its stderr
_STATUS_WAIT_S = 0.2        # its stdout has ended: so has it, in a moment
_CLOSE_WAIT_S = 1.0


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
        self._hurried = False
        self._said = b""                # since the last whole line
        self._errors = b""              # the end of what it wrote on stderr
        self._outcome: tuple[str, str] | None = None    # its last word

    def start(self, order: SnapshotOrder) -> None:
        """Make that snapshot."""
        assert self._child is None, "one at a time"
        environment = dict(os.environ, PYTHONPATH=_ROOT)
        self._order, self._said, self._errors, self._outcome = order, b"", b"", None
        self._hurried = False
        try:
            # -P: nothing is imported from the directory in which the node was started.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "raftnet.makesnapshot"], env=environment, bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self._add_niceness(_NICENESS)
            # One line, far below what a pipe holds: this does not block.
            self._child.stdin.write(encode_order(self._directory, self._config, order))
        except OSError as error:
            if self._child is not None:
                self._leave(self._child)
            self._on_end(order, "failed", f"no process could be started: {error.strerror}")
            return
        for pipe, callback in ((self._child.stdout, self._hear),
                               (self._child.stderr, self._hear_errors)):
            os.set_blocking(pipe.fileno(), False)
            self._loop.watch(pipe, READ, callback)

    def hurry(self) -> None:
        """The log grows too fast: from now on the child has the node's own priority, where the
        system allows that to be given back (to root, or by RLIMIT_NICE)."""
        if self._child is None or self._hurried:
            return
        self._hurried = True
        self._add_niceness(0)

    def _add_niceness(self, niceness: int) -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(OSError):      # then it goes on as it does, or has just ended
            os.setpriority(os.PRIO_PROCESS, self._child.pid, own + niceness)

    def close(self) -> None:
        """The node stops: so does the child. Waits a second at most."""
        child = self._child
        if child is not None:
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):    # a hung disk: left behind
                child.wait(_CLOSE_WAIT_S)
            self._leave(child)

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
            order, outcome = self._order, self._outcome or ("failed", self._why_it_ended())
            self._leave(self._child)
            self._on_end(order, *outcome)

    def _hear_errors(self, events: int) -> bool:
        """Keep the last of what it wrote; whether there was something."""
        try:
            data = os.read(self._child.stderr.fileno(), _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.forget(self._child.stderr)
        self._errors = (self._errors + data)[-_LINE_BYTES_MAX:]
        return bool(data)

    def _why_it_ended(self) -> str:
        """Of a child that ended without a word."""
        child, text = self._child, "its process ended"
        with contextlib.suppress(subprocess.TimeoutExpired):    # then its status is not known yet
            text += f", {child.wait(_STATUS_WAIT_S)}"
        while self._hear_errors(READ):
            pass
        lines = self._errors.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{text}: {last[-_ERROR_BYTES_MAX:]}" if last else text

    def _leave(self, child: subprocess.Popen) -> None:
        """Hear of it no more. Its last moments, in which the system may free much, are waited for
        by a thread."""
        self._child = self._order = None
        for pipe in (child.stdin, child.stdout, child.stderr):
            self._loop.forget(pipe)
            pipe.close()
        if child.poll() is None:
            threading.Thread(target=child.wait, name="snapshot end", daemon=True).start()
