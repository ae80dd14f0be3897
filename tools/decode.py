#!/usr/bin/env python3
"""decode: frames and files as text.

    python3 tools/decode.py [--hex] [FILE]      frames from FILE or stdin, a line each, as they come
    python3 tools/decode.py log PATH            every record of a log; PATH: file or data directory
    python3 tools/decode.py meta PATH           term and vote, and whose directory it is

Rules: reads only, so a running node's files may be looked at; damage is named with its offset and
ends with exit status 1. The text of frames is in tools/frametext.py, of files in tools/filetext.py.
"""

import argparse
import os
import sys
from collections.abc import Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.errors import FrameError, RaftnetError
from tools.filetext import log_lines, meta_lines
from tools.frametext import StreamDecoder

DAMAGED, WRONG_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
READ_BYTES = 64 * 1024
_FILES = {"log": log_lines, "meta": meta_lines}

_USAGE = """\
decode.py [--hex] [FILE]     frames from FILE, else from stdin
       decode.py log PATH           a log file, or the one of a data directory
       decode.py meta PATH          term and vote; for a data directory its identity too
"""
_EPILOG = """\
  python3 tools/encode.py status | nc -q1 127.0.0.1 5001 | python3 tools/decode.py
  python3 tools/decode.py log raftnet-data/127.0.0.1-5001

A line of a frame: offset, kind, request id, fields. A line of a record in a log: offset, index,
term, kind, the offset known durable when it was written, bytes; under it `index.offset term
command` for each command in it. A record marked "annulled" was replaced by a later one.
Exit status: 0 all is well; 1 damage, named with its offset; 2 wrong arguments.
"""


def main(argv: list[str]) -> int:
    """Decode; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="decode.py", usage=_USAGE, description="Show frames and files as text.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hex", action="store_true", help="the frames come as hexadecimal text")
    parser.add_argument("words", metavar="FILE", nargs="*", help="see above")
    arguments = parser.parse_args(argv)
    words = arguments.words
    if not (len(words) <= 1 and words[:1] not in (["log"], ["meta"])
            or len(words) == 2 and words[0] in _FILES and not arguments.hex):
        parser.error("no or one FILE is needed, or log PATH, or meta PATH (a FILE of that name: "
                     "./log)")
    if not words and not arguments.hex and sys.stdin.isatty():
        parser.error("frames are binary: pipe them in, name a FILE, or type them with --hex")
    try:
        if len(words) == 2:
            return _show(_FILES[words[0]](words[1]))
        return _show(_stream(words[0] if words else "", arguments.hex))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # the interpreter would complain once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        print(f"decode.py: {error.filename or 'stdin'}: {error.strerror}", file=sys.stderr)
        return DAMAGED
    except KeyboardInterrupt:
        return INTERRUPTED


def _show(lines: Iterator[str]) -> int:
    """Print each line as it comes; a RaftnetError among them is the damage."""
    try:
        for line in lines:
            # a terminal of another encoding shows what it can
            data = line.encode("utf-8", "backslashreplace")
            sys.stdout.buffer.write(data + b"\n")
            sys.stdout.buffer.flush()
    except RaftnetError as error:
        print(f"decode.py: {error}", file=sys.stderr)
        return DAMAGED
    return 0


def _stream(name: str, as_hex: bool) -> Iterator[str]:
    """The lines of a stream of frames; raises FrameError at damage."""
    decoder = StreamDecoder()
    digits = ""
    with open(name or 0, "rb", buffering=0, closefd=bool(name)) as file:
        while data := file.read(READ_BYTES):
            if as_hex:
                digits += "".join(data.decode("ascii", "replace").split())
                whole = len(digits) & ~1
                data, digits = _unhex(digits[:whole]), digits[whole:]
            yield from decoder.feed(data)
    if digits:
        raise FrameError("the hexadecimal text ends with half a byte")
    decoder.end()


def _unhex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        raise FrameError(f"not hexadecimal: {error}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
