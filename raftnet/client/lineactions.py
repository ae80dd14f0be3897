"""enqueue -: a message per line of stdin, pipelined, and what became of each line.

Rules: each line is enqueued or refused by itself. The ids of those that are enqueued are printed in
their order, those that are refused are named on stderr, and make the exit status 1. Wherever it
ends early, the line says up to where the outcome is known, and what is known of the rest.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator

from raftnet.client.lineinput import read_lines, stdin_descriptor
from raftnet.client.output import Output
from raftnet.client.queue import Queue
from raftnet.config import WireConfig
from raftnet.errors import MalformedError, NoAnswerError, RefusedError

PROGRESS_S = 1.0
IDS_HELD_MAX = 1_000            # until they are printed
_DONE, _REFUSED = 0, 1


def enqueue_lines(queue: Queue, arguments: argparse.Namespace, output: Output) -> int:
    """Gives the exit status; raises OSError where the ids could not be written."""
    return _Lines(queue, arguments, output).run()


class _Lines:
    def __init__(self, queue: Queue, arguments: argparse.Namespace, output: Output):
        self._queue = queue
        self._arguments = arguments
        self._output = output
        self._read = 0                      # lines that stdin gave
        self._known = 0                     # up to this line the outcome is known
        self._refused = 0                   # lines among these
        self._untold: tuple[int, int, str] | None = None    # refused: first, last, why
        self._too_long: deque[int] = deque()    # numbers of lines behind that were not sent
        self._ids: list[str] = []           # not printed yet
        self._unread: MalformedError | None = None
        self._shown = output.stderr.isatty() and not output.stdout.isatty()
        self._told = time.monotonic()

    def run(self) -> int:
        """Until stdin ends, cannot be read, or nobody takes the ids."""
        descriptor = stdin_descriptor()
        arguments = self._arguments
        try:
            for result in self._queue.enqueue_stream(
                    self._lines(descriptor), arguments.priority, arguments.delay, arguments.ttl,
                    refusals=True):
                self._take(result)
        except NoAnswerError as error:
            # the requests were cut by what stdin gave when, which cannot be repeated: no resume
            rest = "surely not enqueued" if error.known else "possibly enqueued"
            raise NoAnswerError(f"{error}; {self._told_so_far(rest)}", error.known) from error
        except RefusedError as error:
            raise RefusedError(error.code, f"{error}; {self._told_so_far('not enqueued')}",
                               error.leader) from error
        finally:
            self._pass_too_long()
            self._tell_all()
        if self._output.failed is not None:
            self._output.say(f"{self._told_so_far('')}, no more was read, and not all ids could be "
                             f"written: {self._output.failed.strerror}")
            raise self._output.failed
        if self._unread is not None:
            raise MalformedError(f"{self._unread}; {self._told_so_far('')}")
        return _REFUSED if self._refused else _DONE

    def _lines(self, descriptor: int) -> Iterator[bytes | None]:
        """Stdin's lines; prints the ids that came before input is waited for, or when many."""
        try:
            for line in read_lines(descriptor, self._pass_over):
                self._read += line is not None
                yield line
                if line is None or len(self._ids) >= IDS_HELD_MAX:
                    self._tell_all()
                if self._output.failed is not None:
                    return
        except MalformedError as error:
            self._unread = error            # what was read before is enqueued all the same

    def _pass_over(self, number: int) -> None:
        self._read = number
        self._too_long.append(number)       # told at once: its place among the answers may be far
        self._output.say(f"line {number} is not enqueued: it is longer than the "
                         f"{WireConfig().message_bytes_max} bytes that a message may have")

    def _take(self, result: int | RefusedError) -> None:
        """The outcome of the next line that was sent."""
        self._pass_too_long()
        self._known += 1
        if isinstance(result, RefusedError):
            self._refused += 1
            first, last, why = self._untold or (0, 0, "")
            if last != self._known - 1 or why != str(result):
                self._tell_all()
                first = self._known
            self._untold = first, self._known, str(result)
            return
        if self._untold is not None:        # a terminal shows all in the order of the lines
            self._tell_all()
        self._ids.append(str(result))
        if (self._shown and self._known % IDS_HELD_MAX == 0
                and time.monotonic() - self._told > PROGRESS_S):
            self._told = time.monotonic()
            self._output.say(f"{self._known - self._refused} messages enqueued")

    def _pass_too_long(self) -> None:
        while self._too_long and self._too_long[0] == self._known + 1:
            self._known = self._too_long.popleft()
            self._refused += 1

    def _told_so_far(self, rest: str) -> str:
        """What became of the lines; of those without an outcome: `rest`."""
        self._pass_too_long()
        known, refused, last = self._known, self._refused, self._read
        if refused:
            text = f"of the first {known} lines {known - refused} are enqueued, {refused} refused"
        elif known:
            text = f"{_lines(1, known)} enqueued"
        else:
            text = ""
        if last == known or not rest:
            return text or "no line is enqueued"
        return f"{text}, {_lines(known + 1, last)} {rest}" if text else \
            f"{_lines(1, last)} {rest}"

    def _tell_all(self) -> None:
        """The ids, and the refusals behind them."""
        ids, untold = self._ids, self._untold
        if ids and self._output.failed is None:
            try:
                self._output.lines(ids)
            except OSError:
                if self._output.failed is None:
                    raise
                # remembered there: the answers that are on their way are taken first
        ids.clear()
        if untold is not None:
            self._untold = None
            self._output.say(f"{_lines(*untold[:2])} not enqueued: {untold[2]}")


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"
