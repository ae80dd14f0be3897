"""Stdin: a message per line, given as soon as it is there (`mqclient enqueue -`); or all of it.

Rules: lines end with a line feed, which is no part of the message; the last one may lack it. Reads
the descriptor itself, because buffered readers keep back what a slow producer already wrote. What
cannot be read is a MalformedError with the reason.
"""

import os
import select
import sys
from collections.abc import Callable, Iterator

from raftnet.config import WireConfig
from raftnet.errors import ErrorCode, MalformedError, RefusedError

READ_BYTES = 256 * 1024


def stdin_descriptor() -> int:
    """Raises MalformedError where there is no stdin."""
    if sys.stdin is None:
        raise MalformedError("- reads stdin, which is closed")
    return sys.stdin.fileno()


def read_all(bytes_max: int) -> bytes:
    """All of stdin, or where it is longer its first `bytes_max` + 1 bytes."""
    descriptor = stdin_descriptor()
    parts: list[bytes] = []
    left = bytes_max + 1
    while left:
        data = _read(descriptor, min(left, READ_BYTES))
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def read_lines(descriptor: int,
               too_long: Callable[[int], None] | None = None) -> Iterator[bytes | None]:
    """The lines; a None each time when the next one has not come yet.

    A line that is longer than a message may be is passed over, and its number, from 1 on, given to
    `too_long`; without that, RefusedError (TOO_LARGE) is raised, with the number.
    """
    line_bytes_max = WireConfig().message_bytes_max
    held: list[bytes] = []      # pieces of the unfinished line
    held_bytes = number = 0
    passing = False             # that line was too long
    while True:
        if not _readable(descriptor, 0):
            yield None
        data = _read(descriptor, READ_BYTES)
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join((*held, lines[0]))
            held, held_bytes = [], 0
        for line in lines:
            number += 1
            if passing:
                passing = False
            elif len(line) > line_bytes_max:
                _pass_over(number, line_bytes_max, too_long)
            else:
                yield line
        if rest and not passing:
            held.append(rest)
            held_bytes += len(rest)
            if held_bytes > line_bytes_max:
                held, held_bytes, passing = [], 0, True
                _pass_over(number + 1, line_bytes_max, too_long)
        if not data:
            if held:
                yield b"".join(held)
            return


def _pass_over(number: int, line_bytes_max: int, too_long: Callable[[int], None] | None) -> None:
    if too_long is None:
        raise RefusedError(ErrorCode.TOO_LARGE, f"line {number} is longer than {line_bytes_max} "
                           "bytes, the most that a message may have")
    too_long(number)


def _read(descriptor: int, count: int) -> bytes:
    try:
        while True:
            _readable(descriptor, None)
            try:
                return os.read(descriptor, count)
            except BlockingIOError:
                continue            # somebody else who reads it was faster
    except OSError as error:
        raise MalformedError(f"stdin cannot be read: {error.strerror}") from error


def _readable(descriptor: int, limit_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(limit_ms))
