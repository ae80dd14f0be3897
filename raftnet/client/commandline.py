"""mqclient: arguments -> a command of actions.py -> an exit status.

Rules: 0 done; 1 refused, with the reason; 2 wrong arguments; 3 nothing there; 4 no answer in time;
130 after Ctrl-C. Results go to stdout, everything else to stderr; never a traceback for what the
world may do. The prompt (shell.py) uses the same parsers.
"""

import argparse
import functools
import os
import sys

from raftnet import VERSION
from raftnet.client import actions, memberactions
from raftnet.client.changes import is_node_id
from raftnet.client.client import TIMEOUT_S, Client
from raftnet.client.output import Output
from raftnet.config import MachineConfig
from raftnet.errors import (FrameError, MalformedError, NoAnswerError, RaftnetError,
                            RefusedError)
from raftnet.wire.address import format_address, parse_address
from raftnet.wire.requests import INTERNAL_SESSION, NO_SESSION, SESSION_BYTES

SERVERS_VARIABLE = "RAFTNET_SERVERS"
SERVERS_DEFAULT = "127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003"
QUEUE_DEFAULT = "default"
INTERRUPTED, PIPE_CLOSED = 130, 141         # what shells report for SIGINT and SIGPIPE
SEQUENCE_MAX = 2 ** 64 - 1

_EXIT = """exit status: 0 done; 1 refused, with the reason; 2 wrong arguments; 3 nothing there;
4 no answer in time (the line says whether the outcome is known, and how to resume)"""


def main(argv: list[str]) -> int:
    """Run one command, or the prompt where there is none and stdin is a terminal."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.servers is None:
            arguments.servers = server_list(os.environ.get(SERVERS_VARIABLE) or SERVERS_DEFAULT)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{SERVERS_VARIABLE}: {error}")
    output = Output(sys.stdout.buffer, sys.stderr, arguments.json)
    try:
        if arguments.action is not None:
            return run(arguments, arguments, output)
        if not sys.stdin.isatty():
            parser.error("a command is needed (without one: a prompt, on a terminal)")
        from raftnet.client.shell import Prompt     # readline is wanted by the prompt alone
        with open_client(arguments) as client:
            return Prompt(client, arguments, output).loop()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has enough; keep the interpreter from complaining at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def open_client(options: argparse.Namespace, resume: tuple[bytes, int] | None = None) -> Client:
    """A client as the options say."""
    return Client(options.servers, options.timeout, not options.no_redirect, resume)


def run(arguments: argparse.Namespace, options: argparse.Namespace, output: Output,
        client: Client | None = None) -> int:
    """Perform one parsed command; gives the exit status, with the reason on stderr.

    `client` is the prompt's; without it, or to resume, one is opened for this command.
    """
    resume = getattr(arguments, "resume", None)
    try:
        if client is not None and resume is None:
            return arguments.action(client, arguments, output)
        with open_client(options, resume) as own:
            return arguments.action(own, arguments, output)
    except NoAnswerError as error:
        output.say(str(error))
        if error.resume is not None:
            output.say(f"to learn the outcome, give the same command again within 5 minutes with "
                       f"--resume {error.resume} (later it might be executed anew)")
        return actions.NO_ANSWER
    except RefusedError as error:
        leader = f"; leader: {error.leader}" if error.leader else ""
        output.say(f"{error}{leader}")
        return actions.REFUSED
    except MalformedError as error:
        output.say(str(error))
        return actions.WRONG_ARGUMENTS
    except (FrameError, RaftnetError) as error:
        output.say(str(error))
        return actions.REFUSED


# --- parsers


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="mqclient.py", epilog=_EXIT,
        description="Client of a raftnet cluster. Without a command: a prompt.")
    _add_general(parser)
    parser.add_argument("--version", action="version", version=f"raftnet {VERSION}")
    parser.set_defaults(action=None, servers=None, timeout=TIMEOUT_S, json=False,
                        no_redirect=False)
    add_commands(parser, general=True)
    return parser


def _add_general(parser: argparse.ArgumentParser) -> None:
    """The options that stand before or behind a command; the defaults are the main parser's."""
    add = functools.partial(parser.add_argument, default=argparse.SUPPRESS)
    add("-s", dest="servers", metavar="ADDRESS,...", type=server_list,
        help=f"nodes to ask, host:port each (default: ${SERVERS_VARIABLE}, else "
        f"{SERVERS_DEFAULT})")
    add("--timeout", metavar="S", type=_seconds,
        help="seconds until an answer must be there (default: 30)")
    add("--json", action="store_true", help="print results as JSON")
    add("--no-redirect", action="store_true",
        help="ask the first server only; show its refusal and who leads")


def build_prompt_parser() -> argparse.ArgumentParser:
    """The commands alone, for a line of the prompt."""
    parser = argparse.ArgumentParser(prog="", add_help=False, usage=argparse.SUPPRESS)
    add_commands(parser, required=True)
    return parser


def add_commands(parser: argparse.ArgumentParser, required: bool = False,
                 general: bool = False) -> None:
    """Every command with its arguments; the parsed `action` performs it."""
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=required)

    def command(name: str, action, text: str, queue: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        if general:
            _add_general(added)
        if queue:
            added.add_argument("-q", dest="queue", metavar="QUEUE", default=QUEUE_DEFAULT,
                               type=_queue, help=f"name of the queue (default: {QUEUE_DEFAULT})")
        return added

    enqueue = command("enqueue", actions.enqueue,
                      "append messages to a queue; prints a message id a line", queue=True)
    enqueue.add_argument("message", metavar="MESSAGE", nargs="+",
                         help="a message; a single - reads a message per line of stdin")
    dequeue = command("dequeue", actions.dequeue,
                      "take messages from the head of a queue; prints a message a line", queue=True)
    dequeue.add_argument("--wait", metavar="S", type=_wait, default=0.0,
                         help="wait up to S seconds for a first message")
    for added in (dequeue, command("peek", actions.peek, "show the first messages of a queue and "
                                   "leave them there", queue=True)):
        added.add_argument("-n", dest="count", metavar="COUNT", type=_message_count, default=1,
                           help="at most so many messages (default: 1)")
    for added in (enqueue, dequeue):
        added.add_argument("--resume", metavar="SESSION:SEQUENCE", type=_resume,
                           help="learn the outcome of an earlier request: as its refusal said, "
                           "with the same arguments as then")
    command("size", actions.size, "print how many messages are in a queue", queue=True)
    command("queues", actions.queues, "print the queues that hold messages, and how many")
    execute = command("execute", actions.execute, 'perform a list of operations atomically, given '
                      'as JSON: [{"enqueue": QUEUE, "messages": [TEXT, ...]}, {"dequeue": QUEUE, '
                      '"count": N}, {"peek": QUEUE, "count": N}, {"size": QUEUE}]')
    execute.add_argument("file", metavar="FILE", help="a JSON file; - for stdin")
    log = command("log", actions.log,
                  "print the leader's committed log: index.offset term command, a line each")
    log.add_argument("--from", dest="first", metavar="INDEX", type=_positive, default=1,
                     help="begin at this index (default: the first that is still held)")
    log.add_argument("--limit", metavar="COUNT", type=_positive, help="at most so many entries")
    log.add_argument("--local", metavar="ADDRESS", type=_address,
                     help="the log that this node knows, whoever leads")
    _add_cluster_commands(command)


def _add_cluster_commands(command) -> None:
    """Those about the cluster itself; `command` makes the parser of one."""
    status = command("status", memberactions.status, "ask each node for its role, term and indexes")
    status.add_argument("address", metavar="ADDRESS", nargs="*", type=_address,
                        help="these nodes alone (default: the servers and all members)")
    members = command("members", memberactions.members, "print who belongs to the cluster, as the "
                      "leader sees it; with --set: change it, one step after the other")
    members.add_argument("--set", metavar="A,B,C", type=_member_list,
                         help="make exactly these nodes the members, all of them voters, and wait "
                         "until it is done; the leader goes on by itself, also after a fail-over. "
                         "Nodes that are no members yet must run, and be empty")
    add = command("add", memberactions.add, "have a node taken in and wait until it is a voter. It "
                  "must run, and be empty: python3 node.py ADDRESS --join LEADER starts one that "
                  "comes in by itself")
    add.add_argument("address", metavar="ADDRESS", type=_address, help="where it runs, host:port")
    add.add_argument("--learner", action="store_true", help="as a learner that stays one: it gets "
                     "everything and counts in no quorum (start it without --join)")
    for waiting in (members, add):
        waiting.add_argument("--no-wait", action="store_true",
                             help="return when the change is asked for; it goes on by itself")
    remove = command("remove", memberactions.remove, "remove a member for ever; its process goes "
                     "on until it is stopped")
    remove.add_argument("member", metavar="ADDRESS|NODE_ID", type=_member,
                        help="host:port, or the 16 hexadecimal digits that members shows")
    transfer = command("transfer", memberactions.transfer, "hand the leadership over to a voter")
    transfer.add_argument("address", metavar="ADDRESS", type=_address, help="who is to lead")
    _add_snapshot_commands(command)
    command("why", memberactions.why, "ask all nodes and say in plain words why something stands "
            "still, a finding a line, the most important first, and what to do. Exit status: 0 "
            "nothing stands still, 1 something is wrong, 4 no node answers")


def _add_snapshot_commands(command) -> None:
    snapshot = command("snapshot", memberactions.snapshot, "have a snapshot made, of everything "
                       "acknowledged so far; prints a line each. (Nodes make them by themselves, "
                       "whenever their logs have grown.) With addresses, one node after the other")
    snapshot.add_argument("address", metavar="ADDRESS", nargs="*", type=_address,
                          help="these nodes, each of what it has applied (default: the leader)")
    backup = command("backup", memberactions.backup, "read a consistent snapshot of the running "
                     "cluster into a file: everything acknowledged so far. The time limit counts "
                     "from the last byte; another leader is gone to by itself. Exit status 1 where "
                     "the file cannot be written: then there is none")
    backup.add_argument("path", metavar="FILE", type=_file, help="must not exist; it is written "
                        "as FILE.partial beside it, and renamed when it is whole")
    backup.add_argument("--local", metavar="ADDRESS", type=_address,
                        help="from this node, whoever leads: what it has applied, which may be "
                        "old. The way out where a majority is lost")
    backup.add_argument("--force", action="store_true", help="replace FILE where it exists")


# --- argument types: each raises ArgumentTypeError, whose text argparse shows


def server_list(text: str) -> list[str]:
    """Addresses with commas between them."""
    return [_address(part) for part in text.split(",") if part.strip()] or [_address(text)]


def _address(text: str) -> str:
    try:
        return format_address(*parse_address(text))
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _member_list(text: str) -> list[str]:
    addresses = server_list(text)
    if len(set(addresses)) != len(addresses):
        raise argparse.ArgumentTypeError("an address is named twice")
    return addresses


def _member(text: str) -> str:
    return text.lower() if is_node_id(text) else _address(text)


def _file(text: str) -> str:
    if text in ("", "-"):
        raise argparse.ArgumentTypeError("the name of a file is needed")
    return text


def _queue(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a queue's name is not empty")
    return text


def _seconds(text: str) -> float:
    seconds = _wait(text)
    if not seconds:
        raise argparse.ArgumentTypeError("a number of seconds above 0 is needed")
    return seconds


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:             # refuses nan too
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:20]) <= SEQUENCE_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is needed")
    return int(text[:20])


def _message_count(text: str) -> int:
    count_max = MachineConfig().dequeue_count_max
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:20]) <= count_max:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 to {count_max} is "
                                         "needed")
    return int(text)


def _resume(text: str) -> tuple[bytes, int]:
    session, _, sequence = text.partition(":")
    try:
        data = bytes.fromhex(session)
    except ValueError:
        data = b""
    if len(data) != SESSION_BYTES or data in (NO_SESSION, INTERNAL_SESSION):
        raise argparse.ArgumentTypeError("32 hexadecimal digits, a colon and a number are needed")
    return data, _positive(sequence)
