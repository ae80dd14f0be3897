"""What each command of mqclient does: a function (client, arguments, output) -> exit status.

Rules: a function prints what its command found and lets errors pass; commandline.py turns them into
a line and an exit status. Shared by the command line and the prompt. Commands about the cluster
itself: memberactions.py; enqueue from stdin: lineactions.py.
"""

import argparse
import json

from raftnet.client import queueactions
from raftnet.client.arguments import means_stdin
from raftnet.client.client import Client
from raftnet.client.entries import entry_commands, entry_lines
from raftnet.client.lineactions import enqueue_lines
from raftnet.client.lineinput import read_all
from raftnet.client.operations import message_data, to_bytes
from raftnet.client.output import Output, outcome_object
from raftnet.client.session import request_checksum
from raftnet.client.transactions import Enqueued, json_object, split_document
from raftnet.errors import MalformedError
from raftnet.raft.entry import EntryKind

DONE, REFUSED, WRONG_ARGUMENTS, NOTHING_THERE, NO_ANSWER = 0, 1, 2, 3, 4
# Messages given as arguments travel in requests cut by these two alone, so that --resume can build
# the same requests again.
REQUEST_MESSAGES_MAX = 1_000
REQUEST_MESSAGE_BYTES_MAX = 256 * 1024
EXECUTE_FILE_BYTES_MAX = 16 * 1024 * 1024


def enqueue(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Messages from the arguments, or with `-` from stdin."""
    queue = client.queue(arguments.queue)
    if any(map(means_stdin, arguments.message)):
        if len(arguments.message) > 1:
            raise MalformedError("- reads stdin and stands alone; a message that is - goes behind "
                                 "--: enqueue -- - ...")
        if arguments.resume is not None:
            raise MalformedError("--resume needs the messages as arguments, not -")
        if arguments.dedup is not None:
            raise MalformedError("--dedup needs its message as an argument, not -")
        return enqueue_lines(queue, arguments, output)
    if arguments.dedup is not None and len(arguments.message) > 1:
        raise MalformedError("--dedup is the id of one message: give them one by one")
    requests = _cut([message_data(to_bytes(message)) for message in arguments.message])
    options = (arguments.priority, arguments.delay, arguments.ttl,
               None if arguments.dedup is None else [arguments.dedup])
    first = 0
    if arguments.resume is not None:
        first = _resumed_place(arguments.resume, [queue.enqueue_command(request, *options)
                                                  for request in requests])
    found: list[int] = []
    duplicates = []
    for request in requests[first:]:
        ids = queue.enqueue_batch(request, *options)
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


def _resumed_place(resume: tuple[bytes, int, int | None], commands: list[bytes]) -> int:
    """Which request of one command is the earlier one. Each before it was answered, or there would
    have been none to resume."""
    _, sequence, checksum = resume
    if checksum is None:
        places = [sequence - 1] if sequence <= len(commands) else []
    else:
        places = [place for place, command in enumerate(commands)
                  if request_checksum(command) == checksum]
        if sequence - 1 in places:      # always, unless it was the prompt, whose session goes on
            places = [sequence - 1]
    if len(places) != 1:
        raise MalformedError(f"--resume: none of the {len(commands)} requests of these messages is "
                             "the earlier one: give the same arguments as before")
    return places[0]


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
            data = read_all(EXECUTE_FILE_BYTES_MAX)
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
