"""ActionLog: what a node does, line by line on its terminal, without slowing a loaded node.

Of one kind of action, up to a fixed number of lines a second are written one by one; the rest is
counted, and the count is one line. Writing happens in a thread of `logging`'s own (QueueListener):
a terminal or pipe that nobody reads never stops the node; lines that find no room are dropped and
counted too. Lines: `[127.0.0.1:5001] [12:34:56.789] leader term 3: text`.
"""

import logging
import logging.handlers
import queue
import sys
import threading
import time
from collections.abc import Callable

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_WINDOW_S = 1.0
_LINES_WAITING_MAX = 10_000
_STOP_WAIT_S = 2.0


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    """Drops a line rather than waiting for room."""

    def __init__(self, lines: queue.Queue):
        super().__init__(lines)
        self.dropped = 0

    def enqueue(self, record):
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _PatientListener(logging.handlers.QueueListener):
    """Waits for room where the queue is full when it is to end."""

    def enqueue_sentinel(self):
        self.queue.put(self._sentinel)


class ActionLog:
    """The action log of one node. `state()` gives the words between the time and the text."""

    def __init__(self, address: str, level: int = INFO, lines_per_second: int = 3,
                 everything: bool = False, stream=None):
        self.state: Callable[[], str] = lambda: "starting"
        self._per_window = lines_per_second
        self._everything = everything
        self._address = address
        self._window_end = 0.0
        self._counts: dict[str, int] = {}       # lines of this window, by kind
        self._skipped: dict[str, tuple[int, int]] = {}      # (level, how many)
        self._logger = logging.Logger("raftnet", level)     # not in the global tree
        self._handler = _BoundedQueueHandler(queue.Queue(_LINES_WAITING_MAX))
        self._logger.addHandler(self._handler)
        output = logging.StreamHandler(stream or sys.stderr)
        output.handleError = lambda record: None    # a closed terminal is no reason to stop
        self._listener = _PatientListener(self._handler.queue, output)
        self._listener.start()

    def say(self, kind: str, text: str, *values, level: int = INFO) -> None:
        """One action of a kind; `values` are formatted into `text` only if the line is written."""
        if not self._logger.isEnabledFor(level):
            return
        now = time.monotonic()
        if now >= self._window_end:
            self._end_window(now)
        count = self._counts.get(kind, 0) + 1
        self._counts[kind] = count
        if count <= self._per_window or level >= ERROR or self._everything:
            self._write(level, text % values if values else text)
        else:
            self._skipped[kind] = (level, count - self._per_window)

    def tick(self) -> None:
        """Write the counts of a window that is over; called when the node has nothing to do."""
        if self._skipped and time.monotonic() >= self._window_end:
            self._end_window(time.monotonic())

    def _end_window(self, now: float) -> None:
        for kind, (level, count) in self._skipped.items():
            self._write(level, f"{kind}: {count} more in the last second")
        if self._handler.dropped:
            self._write(WARNING, f"{self._handler.dropped} lines dropped: nobody read them")
            self._handler.dropped = 0
        self._skipped.clear()
        self._counts.clear()
        self._window_end = now + _WINDOW_S

    def _write(self, level: int, text: str) -> None:
        now = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        if not text.isprintable():      # parts may be a stranger's: no lines or colours of theirs
            text = "".join(c if c.isprintable() else "?" for c in text)
        mark = "" if level < WARNING else "WARNING: " if level < ERROR else "ERROR: "
        self._logger.log(level, "[%s] [%s.%03d] %s: %s%s", self._address, clock,
                         int(now * 1000) % 1000, self.state(), mark, text)

    def stop(self) -> bool:
        """Write what is waiting; gives up after two seconds where nobody reads. Whether all was
        written: else the thread still holds the stream, and nobody may touch it."""
        self._end_window(time.monotonic())
        stopping = threading.Thread(target=self._listener.stop, daemon=True)
        stopping.start()
        stopping.join(_STOP_WAIT_S)
        return not stopping.is_alive()
