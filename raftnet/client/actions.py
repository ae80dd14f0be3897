"""What each command of mqclient does: a function (client, arguments, output) -> exit status.

Rules: a function prints what its command found and lets errors pass; commandline.py turns them into
a line and an exit status. Shared by the command line and the prompt. Commands about the cluster
itself: memberactions.py.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator

from raftnet.client import queueactions
from raftnet.client.client import Client, Queue
from raftnet.client.entries import entry_commands, entry_lines
from raftnet.client.lineinput import read_lines
from raftnet.client.operations import message_data, to_bytes
from raftnet.client.output import Output, outcome_object
from raftnet.client.transactions import Enqueued, json_object, split_document
from raftnet.errors import MalformedError, NoAnswerError, RefusedError, StateRefusedError
from raftnet.raft.entry import EntryKind

DONE, REFUSED, WRONG_ARGUMENTS, NOTHING_THERE, NO_ANSWER = 0, 1, 2, 3, 4
# Messages given as arguments travel in requests cut by these two alone, so that --resume can build
# the same requests again.
REQUEST_MESSAGES_MAX = 1_000
REQUEST_MESSAGE_BYTES_MAX = 256 * 1024
PROGRESS_S = 1.0
EXECUTE_FILE_BYTES_MAX = 16 * 1024 * 1024


def enqueue(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Messages from the arguments, or with `-` from stdin."""
    queue = client.queue(arguments.queue)
    if arguments.message == ["-"]:
        if arguments.resume is not None:
            raise MalformedError("--resume needs the messages as arguments, not -")
        if arguments.dedup is not None:
            raise MalformedError("--dedup needs its message as an argument, not -")
        return _enqueue_lines(queue, arguments, output)
    if arguments.dedup is not None and len(arguments.message) > 1:
        raise MalformedError("--dedup is the id of one message: give them one by one")
    requests = _cut([message_data(to_bytes(message)) for message in arguments.message])
    # each request before the resumed one was answered, or there would have been none to resume
    first = 0 if arguments.resume is None else arguments.resume[1] - 1
    if first >= len(requests):
        raise MalformedError(f"--resume: these messages make {len(requests)} requests; give the "
                             "same arguments as before")
    found: list[int] = []
    duplicates = []
    for request in requests[first:]:
        ids = queue.enqueue_batch(request, arguments.priority, arguments.delay, arguments.ttl,
                                  None if arguments.dedup is None else [arguments.dedup])
        found += ids
        duplicates += ids.duplicates if isinstance(ids, Enqueued) else []
        if not output.as_json:
            output.ids(ids)
    if output.as_json:
        output.document({"ids": found} | ({"duplicates": duplicates} if duplicates else {}))
    elif duplicates:
        output.say("nothing was added: that id was enqueued before, as the message printed")
    return DONE


def _cut(messages: list[bytes]) -> list[list[bytes]]:
    requests: list[list[bytes]] = []
    size = 0
    for message in messages:
        size += len(message)
        if not requests or size > REQUEST_MESSAGE_BYTES_MAX \
                or len(requests[-1]) == REQUEST_MESSAGES_MAX:
            requests.append([])
            size = len(message)
        requests[-1].append(message)
    return requests


def _enqueue_lines(queue: Queue, arguments: argparse.Namespace, output: Output) -> int:
    read = done = 0
    last = time.monotonic()
    shown = output.stderr.isatty() and not output.stdout.isatty()
    waiting: list[str] = []         # ids that are not printed yet

    def lines() -> Iterator[bytes | None]:
        """Stdin's lines; prints the ids that came before input is waited for, or when many."""
        nonlocal read
        try:
            for line in read_lines(sys.stdin.fileno()):
                read += line is not None
                yield line
                if line is None or len(waiting) >= REQUEST_MESSAGES_MAX:
                    _flush(waiting, output)
        except RefusedError:
            yield None              # the lines before the refused one are enqueued all the same
            raise

    try:
        for message_id in queue.enqueue_stream(lines(), arguments.priority, arguments.delay,
                                               arguments.ttl):
            waiting.append(str(message_id))
            done += 1
            if shown and done % REQUEST_MESSAGES_MAX == 0 and time.monotonic() - last > PROGRESS_S:
                last = time.monotonic()
                output.say(f"{done} messages enqueued")
    except StateRefusedError as error:
        behind = f"; lines behind it, up to {read}, may be" if read > done + 1 else ""
        output.say(f"lines 1 to {done} are enqueued, line {done + 1} is not{behind}")
        raise
    except NoAnswerError as error:
        # the requests were cut by what stdin gave when, which cannot be repeated: no resume
        behind = "surely not enqueued" if error.known else "possibly enqueued"
        raise NoAnswerError(f"{error}; lines 1 to {done} are enqueued, lines {done + 1} to {read} "
                            f"are {behind}", error.known) from error
    finally:
        _flush(waiting, output)
    return DONE


def _flush(waiting: list[str], output: Output) -> None:
    if waiting:
        output.lines(waiting)
        waiting.clear()


def dequeue(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Take messages from the head, with --lease for a time."""
    if arguments.lease is not None:
        return queueactions.lease(client, arguments, output)
    if arguments.consumer is not None:
        raise MalformedError("--consumer goes with --lease")
    messages = client.queue(arguments.queue).dequeue_many(arguments.count, arguments.wait)
    output.messages(messages)
    return DONE if messages else NOTHING_THERE


def peek(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Show the first messages."""
    messages = client.queue(arguments.queue).peek(arguments.count, arguments.local)
    output.read_at(arguments.local, client.read_index)
    output.messages(messages)
    return DONE if messages else NOTHING_THERE


def size(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Count the messages."""
    found = client.queue(arguments.queue).size(arguments.local)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document({"messages": found.messages, "bytes": found.bytes})
    else:
        output.line(str(found.messages))
    return DONE


def queues(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """List the queues that hold messages."""
    found = client.queues(arguments.local)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document([{"queue": to_bytes(name).decode("utf-8", "backslashreplace"),
                          "messages": count} for name, count in found])
    else:
        output.lines([f"{name}\t{count}" for name, count in found])
    return DONE


def execute(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Perform a list of operations atomically; a JSON object a line, or one list with --json."""
    operations, when = split_document(read_document(arguments.file))
    found = [outcome_object(outcome) for outcome in client.execute(operations, when)]
    if output.as_json:
        output.document(found)
    else:
        output.lines([json.dumps(outcome, ensure_ascii=False) for outcome in found])
    return DONE


def read_document(name: str) -> object:
    """The JSON in a file, `-` for stdin; raises MalformedError."""
    data = _read_file(name)
    try:
        return json.loads(data, object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{name}: not JSON: {error}") from error


def _read_file(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(EXECUTE_FILE_BYTES_MAX + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(EXECUTE_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise MalformedError(f"{name}: {error.strerror}") from error
    if len(data) > EXECUTE_FILE_BYTES_MAX:
        raise MalformedError(f"{name}: longer than {EXECUTE_FILE_BYTES_MAX} bytes")
    return data


def log(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print committed entries, a line for each command in them."""
    first = True
    for entry in client.log(arguments.first, arguments.limit, arguments.local):
        if first and entry.index > arguments.first:
            output.say(f"entries before {entry.index} are kept in a snapshot only")
        first = False
        if not output.as_json:
            output.lines(entry_lines(entry))
            continue
        for offset, text in enumerate(entry_commands(entry)):
            output.document({"index": entry.index, "offset": offset, "term": entry.term,
                             "kind": EntryKind(entry.kind).name.lower(), "command": text})
    return DONE
