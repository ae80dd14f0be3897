#!/usr/bin/env python3
"""encode: the frame of a client's request, as bytes on stdout, in the words of mqclient.

    python3 tools/encode.py enqueue hello | nc -q1 127.0.0.1 5001 | python3 tools/decode.py

Rules: one frame a call, under session 0: at most once, with nothing kept for a retry. A dequeue
that waits needs a session and gets a random one; `--resume SESSION:SEQUENCE` gives any. The words
are parsed by mqclient's own parser, so that both always agree.
"""

import argparse
import functools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client import (actions, kvactions, memberactions, operations, queueactions, receipts,
                            watchactions)
from raftnet.client.arguments import mark_literals, means_stdin
from raftnet.client.commandline import add_commands
from raftnet.client.lineinput import read_lines
from raftnet.client.queue import setting_value
from raftnet.client.transactions import encode_list, split_document
from raftnet.config import MachineConfig
from raftnet.errors import MalformedError, RaftnetError
from raftnet.wire import commands, kvcommands, queuecommands, requests
from raftnet.wire.frames import Kind, encode_frame
from raftnet.wire.kvcommands import NO_CONDITION, Condition, ConditionKind
from raftnet.wire.joining import CHANGE_REMOVE, CHANGE_SET, CHANGE_TRANSFER, encode_change
from raftnet.wire.snapshots import PART_BYTES_MAX, encode_read_snapshot, encode_take_snapshot
from raftnet.wire.watches import encode_watch

REFUSED, WRONG_ARGUMENTS, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
PAGE_LIMIT = 1_000              # queues or keys
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
    session, first, *_ = getattr(words, "resume", None) or (requests.NO_SESSION, 1)
    if waits and session == requests.NO_SESSION:
        session = os.urandom(requests.SESSION_BYTES)
    return Kind.REQUEST, requests.encode_request(session, first, first - 1, pieces)


def _enqueue(words: argparse.Namespace) -> tuple[int, bytes]:
    queue = operations.queue_name(words.queue)
    if list(map(means_stdin, words.message)) == [True]:
        lines = [line for line in read_lines(sys.stdin.fileno()) if line is not None]
        if not lines:
            raise RaftnetError("there is no message: stdin is empty")
        return _request(words, [_enqueue_command(words, queue, [line]) for line in lines])
    messages = [operations.message_data(message) for message in words.message]
    return _request(words, [_enqueue_command(words, queue, messages)])


def _enqueue_command(words: argparse.Namespace, queue: bytes, messages: list[bytes]) -> bytes:
    if not words.priority and not words.delay and not words.ttl and words.dedup is None:
        return commands.encode_enqueue(queue, messages)
    dedup = None
    if words.dedup is not None:
        if len(messages) > 1 or means_stdin(words.message[0]):
            raise MalformedError("--dedup is the id of one message, given as an argument")
        dedup = [operations.short_text(words.dedup, "--dedup")]
    return queuecommands.encode_enqueue_with(
        queue, messages, words.priority, operations.milliseconds(words.delay, "--delay"),
        operations.milliseconds(words.ttl, "--ttl"), dedup)


def _dequeue(words: argparse.Namespace) -> tuple[int, bytes]:
    wait_ms = min(round(words.wait * 1000), operations.COUNT_MAX)
    queue = operations.queue_name(words.queue)
    if words.lease is None:
        command = commands.encode_dequeue(queue, words.count, wait_ms)
    else:
        consumer = receipts.default_consumer() if words.consumer is None else words.consumer
        command = queuecommands.encode_lease(
            queue, operations.milliseconds(words.lease, "--lease"), words.count, wait_ms,
            operations.short_text(consumer, "--consumer"))
    return _request(words, [command], wait_ms > 0)


def _ack(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [queuecommands.encode_ack(receipts.parse_receipts(words.receipt))])


def _nack(words: argparse.Namespace) -> tuple[int, bytes]:
    delay_ms = None if words.backoff else operations.milliseconds(words.delay, "--delay")
    return _request(words, [queuecommands.encode_nack(
        receipts.parse_receipts(words.receipt), delay_ms,
        operations.short_text(words.reason, "--reason"))])


def _extend(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [queuecommands.encode_extend(
        receipts.parse_receipts(words.receipt), operations.milliseconds(words.lease, "--lease"))])


def _configure(words: argparse.Namespace) -> tuple[int, bytes]:
    settings = queueactions.settings_given(words)
    if not settings:
        return _describe(words)
    values = dict(setting_value(name, value) for name, value in settings.items())
    return _request(words, [queuecommands.encode_configure(operations.queue_name(words.queue),
                                                           values)])


def _delete(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [queuecommands.encode_delete_queue(operations.queue_name(words.queue))])


def _purge(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [queuecommands.encode_purge(operations.queue_name(words.queue),
                                                       MachineConfig().purge_count_max)])


def _redrive(words: argparse.Namespace) -> tuple[int, bytes]:
    limit = min(words.count or operations.COUNT_MAX, MachineConfig().redrive_count_max)
    to = operations.queue_name(words.to) if words.to else b""
    return _request(words, [queuecommands.encode_redrive(operations.queue_name(words.queue), to,
                                                         limit)])


def _put(words: argparse.Namespace) -> tuple[int, bytes]:
    return _put_value(words, words.value, NO_CONDITION)


def _put_where(words: argparse.Namespace) -> tuple[int, bytes]:
    return _put_value(words, words.value, kvactions.condition_given(words))


def _cas(words: argparse.Namespace) -> tuple[int, bytes]:
    if means_stdin(words.old) and means_stdin(words.new):
        raise MalformedError("OLD and NEW cannot both be read from stdin")
    return _put_value(words, words.new, Condition(ConditionKind.EQUALS,
                                                  kvactions.value_given(words.old)))


def _put_value(words: argparse.Namespace, value: str, condition: Condition) -> tuple[int, bytes]:
    return _request(words, [kvcommands.encode_kv_put(
        operations.key_name(words.key), kvactions.value_given(value),
        operations.milliseconds(words.ttl, "--ttl"), condition)])


def _delete_key(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [kvcommands.encode_kv_delete(operations.key_name(words.key))])


def _delete_where(words: argparse.Namespace) -> tuple[int, bytes]:
    return _request(words, [kvcommands.encode_kv_delete(
        operations.key_name(words.key), kvactions.condition_given(words))])


def _execute(words: argparse.Namespace) -> tuple[int, bytes]:
    command, _ = encode_list(*split_document(actions.read_document(words.file)))
    return _request(words, [command])


# --- reads


def _peek(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, commands.encode_peek(operations.queue_name(words.queue), words.count))


def _size(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, commands.encode_size(operations.queue_name(words.queue)))


def _queues(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, commands.encode_queues(limit=PAGE_LIMIT))


def _describe(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, queuecommands.encode_describe(operations.queue_name(words.queue)))


def _leases(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, queuecommands.encode_leases(operations.queue_name(words.queue),
                                                    words.count))


def _inspect(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, queuecommands.encode_inspect(operations.queue_name(words.queue),
                                                     words.count))


def _get(words: argparse.Namespace) -> tuple[int, bytes]:
    return _read(words, kvcommands.encode_kv_get(operations.key_name(words.key)))


def _list_keys(words: argparse.Namespace) -> tuple[int, bytes]:
    prefix = operations.short_text(words.prefix, "PREFIX")
    return _read(words, kvcommands.encode_kv_list(prefix, limit=PAGE_LIMIT))


def _read(words: argparse.Namespace, command: bytes) -> tuple[int, bytes]:
    return Kind.READ, requests.encode_read(getattr(words, "local", None) is not None, command)


def _log(words: argparse.Namespace) -> tuple[int, bytes]:
    limit = min(words.limit or LOG_LIMIT, LOG_LIMIT)
    return Kind.LOG, requests.encode_log(words.local is not None, words.first, limit)


def _watch(words: argparse.Namespace) -> tuple[int, bytes]:
    return Kind.WATCH, encode_watch(
        words.local is not None, watchactions.what_of(words.what), words.from_index,
        watchactions.name_of(words.what, words.name))


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
    queueactions.ack: _ack,
    queueactions.nack: _nack,
    queueactions.extend: _extend,
    queueactions.configure: _configure,
    queueactions.delete: _delete,
    queueactions.purge: _purge,
    queueactions.redrive: _redrive,
    queueactions.describe: _describe,
    queueactions.leases: _leases,
    queueactions.inspect: _inspect,
    kvactions.get: _get,
    kvactions.put: _put,
    kvactions.put_where: _put_where,
    kvactions.delete: _delete_key,
    kvactions.delete_where: _delete_where,
    kvactions.list_keys: _list_keys,
    kvactions.cas: _cas,
    watchactions.watch: _watch,
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
    words = parser.parse_args(mark_literals(argv))
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
