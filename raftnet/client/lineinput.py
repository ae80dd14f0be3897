"""A message per line of a stream, given as soon as it is there (`mqclient enqueue -`).

Rules: lines end with a line feed, which is no part of the message; the last one may lack it. Reads
the descriptor itself, because buffered readers keep back what a slow producer already wrote.
"""

import os
import select
from collections.abc import Iterator

from raftnet.config import WireConfig
from raftnet.errors import ErrorCode, RefusedError

READ_BYTES = 256 * 1024


def read_lines(descriptor: int) -> Iterator[bytes | None]:
    """The lines; a None each time when the next one has not come yet.

    Raises RefusedError (TOO_LARGE) with the number of a line that is longer than a message may be.
    """
    line_bytes_max = WireConfig().message_bytes_max
    held: list[bytes] = []      # pieces of the unfinished line
    held_bytes = 0
    number = 0
    while True:
        if not _readable(descriptor):
            yield None
        data = os.read(descriptor, READ_BYTES)
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join((*held, lines[0]))
            held, held_bytes = [], 0
        for line in lines:
            number += 1
            _check(len(line), line_bytes_max, number)
            yield line
        if rest:
            held.append(rest)
            held_bytes += len(rest)
            _check(held_bytes, line_bytes_max, number + 1)
        if not data:
            if held:
                yield b"".join(held)
            return


def _check(line_bytes: int, line_bytes_max: int, number: int) -> None:
    if line_bytes > line_bytes_max:
        raise RefusedError(ErrorCode.TOO_LARGE, f"line {number} is longer than {line_bytes_max} "
                           "bytes, the most that a message may have")


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
