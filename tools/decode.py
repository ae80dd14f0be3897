#!/usr/bin/env python3
"""decode: frames and files as text.

    python3 tools/decode.py [--hex] [FILE]      frames from FILE or stdin, a line each, as they come
    python3 tools/decode.py log PATH            every record of a log; PATH: file or data directory
    python3 tools/decode.py log PATH --at INDEX     the replicated state at that entry
    python3 tools/decode.py log PATH --message ID   one message's life
    python3 tools/decode.py snapshot PATH       a snapshot's header, and the state in it
    python3 tools/decode.py meta PATH           term and vote, and whose directory it is

Rules: reads only, so a running node's files may be looked at; damage is named with its offset and
ends with exit status 1. The text of frames is in tools/frametext.py, of files in tools/filetext.py,
of the state in tools/statetext.py and tools/messagelife.py.
"""

import argparse
import os
import sys
from collections.abc import Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.errors import FrameError, RaftnetError
from tools.filetext import log_lines, meta_lines
from tools.frametext import StreamDecoder
from tools.messagelife import message_lines
from tools.statetext import snapshot_lines, state_lines

DAMAGED, WRONG_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
READ_BYTES = 64 * 1024
_FILES = ("log", "meta", "snapshot")

_USAGE = """\
decode.py [--hex] [FILE]     frames from FILE, else from stdin
       decode.py log PATH                   every record of a log
       decode.py log PATH --at INDEX [--all]    the replicated state after that entry
       decode.py log PATH --message ID [--at INDEX]     one message's life, up to that entry
       decode.py snapshot PATH [--all]      a snapshot's header, and the state in it
       decode.py meta PATH                  term and vote; for a data directory its identity too
"""
_EPILOG = """\
  python3 tools/encode.py status | nc -q1 127.0.0.1 5001 | python3 tools/decode.py
  python3 tools/decode.py log raftnet-data/127.0.0.1-5001
  python3 tools/decode.py log raftnet-data/127.0.0.1-5001 --at 120

PATH is a data directory, whether its node runs or not, or the file; a snapshot may be a backup too.
--at and --message begin with the snapshot beside the log (with entry 1 where the log holds it and
it is needed) and apply the log's entries as the node did: the digest is the one of
`mqclient.py status` at that index. The end of a log may be a tail that was never committed, and
later is replaced: files do not tell, `mqclient.py status` does (COMMIT). Times are replicated time.

A line of a frame: offset, kind, request id, fields. A line of a record in a log: offset, index,
term, kind, the offset known durable when it was written, bytes; under it `index.offset term
command` for each command in it. A record marked "annulled" was replaced by a later one.
Exit status: 0 all is well; 1 damage, named with its offset, or an index or message that is not
held; 2 wrong arguments.
"""


def main(argv: list[str]) -> int:
    """Decode; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="decode.py", usage=_USAGE, description="Show frames and files as text.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hex", action="store_true", help="the frames come as hexadecimal text")
    parser.add_argument("--at", metavar="INDEX", type=_number, help="of an entry, from 1")
    parser.add_argument("--message", metavar="ID", type=_number, help="as enqueue told it")
    parser.add_argument("--all", action="store_true",
                        help="all messages and sessions of a state, not the first ones only")
    parser.add_argument("words", metavar="FILE", nargs="*", help="see above")
    arguments = parser.parse_intermixed_args(argv)
    words = arguments.words
    if not (len(words) <= 1 and words[:1] not in [[word] for word in _FILES]
            or len(words) == 2 and words[0] in _FILES and not arguments.hex):
        parser.error("no or one FILE is needed, or log PATH, snapshot PATH, or meta PATH (a FILE "
                     "of that name: ./log)")
    if (arguments.at or arguments.message) and words[:1] != ["log"]:
        parser.error("--at and --message need log PATH")
    shows_state = words[:1] == ["snapshot"] or arguments.at and not arguments.message
    if arguments.all and not shows_state:
        parser.error("--all goes with snapshot PATH, and with log PATH --at INDEX")
    if not words and not arguments.hex and sys.stdin.isatty():
        parser.error("frames are binary: pipe them in, name a FILE, or type them with --hex")
    try:
        return _show(_lines(arguments))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # the interpreter would complain once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        print(f"decode.py: {error.filename or 'stdin'}: {error.strerror}", file=sys.stderr)
        return DAMAGED
    except KeyboardInterrupt:
        return INTERRUPTED


def _number(text: str) -> int:
    """An index or an id."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) < 1 << 64):
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _lines(arguments: argparse.Namespace) -> Iterator[str]:
    words = arguments.words
    if len(words) < 2:
        return _stream(words[0] if words else "", arguments.hex)
    kind, path = words
    if kind == "snapshot":
        return snapshot_lines(path, arguments.all)
    if kind == "meta":
        return meta_lines(path)
    if arguments.message:
        return message_lines(path, arguments.message, arguments.at)
    return state_lines(path, arguments.at, arguments.all) if arguments.at else log_lines(path)


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
