#!/usr/bin/env python3
"""encode: the frame of a client's request, as bytes on stdout, in the words of mqclient.

    python3 tools/encode.py enqueue hello | nc -q1 127.0.0.1 5001 | python3 tools/decode.py

Rules: one frame a call, under session 0: at most once, with nothing kept for a retry. A dequeue
that waits needs a session and gets a random one; `--resume SESSION:SEQUENCE` gives any. The words
are parsed by mqclient's own parser, so that both always agree.
"""

import argparse
import functools
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client import actions, memberactions, operations
from raftnet.client.commandline import add_commands
from raftnet.client.lineinput import read_lines
from raftnet.errors import RaftnetError
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind, encode_frame
from raftnet.wire.joining import CHANGE_REMOVE, CHANGE_SET, CHANGE_TRANSFER, encode_change
from raftnet.wire.snapshots import PART_BYTES_MAX, encode_read_snapshot, encode_take_snapshot

REFUSED, WRONG_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
QUEUES_LIMIT = 1_000
LOG_LIMIT = 10_000
REQUEST_ID_MAX = 2 ** 32 - 1
U64_MAX = 2 ** 64 - 1

_EPILOG = """\
Two commands more: hello, a client's greeting, answered with the node's own; and part INDEX OFFSET
COUNT, some bytes of the snapshot up to that entry.

  python3 tools/encode.py enqueue hello | nc -q1 127.0.0.1 5001 | python3 tools/decode.py
  python3 tools/encode.py --hex enqueue hello      for the eye; tools/decode.py --hex reads it

Some netcats end at the end of their input: -q1 (or -N) keeps them until the reply is there.
"""


def encode(words: argparse.Namespace) -> tuple[int, bytes]:
    """(kind, body) of the parsed words; raises RaftnetError for what no request can hold."""
    kind, body = _ENCODERS[words.action](words)
    if kind == Kind.REQUEST:
        operations.check_request_bytes(len(body) - requests.REQUEST_HEAD_BYTES)
    return kind, body


def _request(words: argparse.Namespace, pieces: list[bytes], waits: bool = False) -> tuple:
    session, first = getattr(words, "resume", None) or (requests.NO_SESSION, 1)
    if waits and session == requests.NO_SESSION:
        session = os.urandom(requests.SESSION_BYTES)
    return Kind.REQUEST, requests.encode_request(session, first, first - 1, pieces)


def _enqueue(words: argparse.Namespace) -> tuple[int, bytes]:
    queue = operations.queue_name(words.queue)
    if words.message == ["-"]:
        lines = [line for line in read_lines(sys.stdin.fileno()) if line is not None]
        if not lines:
            raise RaftnetError("there is no message: stdin is empty")
        return _request(words, [commands.encode_enqueue(queue, [line]) for line in lines])
    messages = [operations.message_data(message) for message in words.message]
    return _request(words, [commands.encode_enqueue(queue, messages)])


def _dequeue(words: argparse.Namespace) -> tuple[int, bytes]:
    wait_ms = min(round(words.wait * 1000), operations.COUNT_MAX)
    queue = operations.queue_name(words.queue)
    return _request(words, [commands.encode_dequeue(queue, words.count, wait_ms)], wait_ms > 0)


def _peek(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(commands.encode_peek(operations.queue_name(words.queue), words.count))


def _size(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(commands.encode_size(operations.queue_name(words.queue)))


def _queues(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(commands.encode_queues(limit=QUEUES_LIMIT))


def _read(command: bytes) -> tuple[int, bytes]:
    return Kind.READ, requests.encode_read(False, command)


def _execute(words: argparse.Namespace) -> tuple[int, bytes]:
    try:
        with open(0 if words.file == "-" else words.file, "rb") as file:
            listed = json.loads(file.read(actions.EXECUTE_FILE_BYTES_MAX))
    except OSError as error:
        raise RaftnetError(f"{words.file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RaftnetError(f"{words.file}: not JSON: {error}") from error
    command, _ = operations.encode_operations(listed)
    return _request(words, [command])


def _log(words: argparse.Namespace) -> tuple[int, bytes]:
    limit = min(words.limit or LOG_LIMIT, LOG_LIMIT)
    return Kind.LOG, requests.encode_log(words.local is not None, words.first, limit)


def _status(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.STATUS, b""


def _members(words: argparse.Namespace) -> tuple[int, bytes]:
    if words.set is None:
        return _status(words)           # a node's status names the members
    return Kind.CHANGE, encode_change(CHANGE_SET, words.set)


def _remove(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.CHANGE, encode_change(CHANGE_REMOVE, [words.member])


def _transfer(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.CHANGE, encode_change(CHANGE_TRANSFER, [words.address])


def _snapshot(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.TAKE_SNAPSHOT, encode_take_snapshot(bool(words.address))


def _part(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.READ_SNAPSHOT, encode_read_snapshot(words.index, words.offset, words.count)


def _hello(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.HELLO, requests.encode_hello(requests.Hello(requests.ROLE_CLIENT))


_ENCODERS = {
    actions.enqueue: _enqueue,
    actions.dequeue: _dequeue,
    actions.peek: _peek,
    actions.size: _size,
    actions.queues: _queues,
    actions.execute: _execute,
    actions.log: _log,
    memberactions.status: _status,
    memberactions.members: _members,
    memberactions.remove: _remove,
    memberactions.transfer: _transfer,
    memberactions.snapshot: _snapshot,
    _part: _part,
    _hello: _hello,
}


# --- the command line


def parse(argv: list[str]) -> argparse.Namespace:
    """The words, with mqclient's function for the command as `action`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--hex", action="store_true", help="as hexadecimal text")
    options.add_argument("--request-id", metavar="N", default=1,
                         type=functools.partial(_number, 0, REQUEST_ID_MAX),
                         help="comes back in the reply (default: 1)")
    before = argparse.ArgumentParser(parents=[options], add_help=False, prog="encode.py")
    before.add_argument("command", nargs=argparse.REMAINDER)
    words, _ = before.parse_known_args(argv)
    if words.command == ["hello"]:      # no command of mqclient, which always greets
        words.action = _hello
        return words
    if words.command[:1] == ["part"]:   # of a backup, which asks for many
        part = argparse.ArgumentParser(prog="encode.py part", parents=[options])
        for name, *limits in (("index", 0, U64_MAX), ("offset", 0, U64_MAX),
                              ("count", 1, PART_BYTES_MAX)):
            part.add_argument(name, metavar=name.upper(), type=functools.partial(_number, *limits))
        words.action = _part
        return part.parse_args(words.command[1:], words)
    parser = argparse.ArgumentParser(
        prog="encode.py", description="Write the frame of one client request to stdout.",
        parents=[options], epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_commands(parser, required=True)
    words = parser.parse_args(argv)
    if words.action not in _ENCODERS:
        parser.error("that command is more than one frame: use mqclient.py")
    return words


def main(argv: list[str]) -> int:
    """Write one frame; gives the exit status."""
    words = parse(argv)
    if not words.hex and sys.stdout.isatty():
        print("encode.py: a frame is binary and would disturb this terminal: pipe it "
              "(| nc -q1 127.0.0.1 5001 | python3 tools/decode.py) or add --hex before the command",
              file=sys.stderr)
        return WRONG_ARGUMENTS
    try:
        kind, body = encode(words)
        frame = encode_frame(kind, words.request_id, body)
        sys.stdout.buffer.write(frame.hex(" ").encode() + b"\n" if words.hex else frame)
        sys.stdout.buffer.flush()
    except RaftnetError as error:
        print(f"encode.py: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0


def _number(least: int, most: int, text: str) -> int:
    if (not (text.isascii() and text.isdigit()) or len(text) > len(str(most))
            or not least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r}: a number from {least} to {most}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
