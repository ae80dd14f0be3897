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
from raftnet.client import actions, arguments as kinds, memberactions, watchactions
from raftnet.client.client import TIMEOUT_S, Client
from raftnet.client.output import Output
from raftnet.client.queueparsers import (QUEUE, QUEUE_NEEDED, add_kv_commands,
                                         add_queue_commands)
from raftnet.errors import (FrameError, MalformedError, NoAnswerError, RaftnetError,
                            RefusedError)

SERVERS_VARIABLE = "RAFTNET_SERVERS"
SERVERS_DEFAULT = "127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003"
QUEUE_DEFAULT = "default"
INTERRUPTED, PIPE_CLOSED = 130, 141         # what shells report for SIGINT and SIGPIPE
_TAKE_TEXT = {"enqueue", "put", "cas"}      # commands with words that may be anything

_EXIT = """exit status: 0 done; 1 refused, with the reason; 2 wrong arguments; 3 nothing there;
4 no answer in time (the line says whether the outcome is known, and how to resume)"""


def main(argv: list[str]) -> int:
    """Run one command, or the prompt where there is none and stdin is a terminal."""
    parser = build_parser()
    if sys.stderr is None:          # closed: nobody is told anything, the exit status stays
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    try:
        arguments = parser.parse_args(kinds.mark_literals(argv))
        if arguments.servers is None:
            named = os.environ.get(SERVERS_VARIABLE) or SERVERS_DEFAULT
            arguments.servers = kinds.server_list(named)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{SERVERS_VARIABLE}: {error}")
    if sys.stdout is None:
        sys.stderr.write("mqclient: stdout is closed: nothing was asked of any node\n")
        return actions.REFUSED
    output = Output(sys.stdout.buffer, sys.stderr, arguments.json)
    try:
        if arguments.action is not None:
            return run(arguments, arguments, output)
        if sys.stdin is None or not sys.stdin.isatty():
            parser.error("a command is needed (without one: a prompt, on a terminal)")
        from raftnet.client.shell import Prompt     # readline is wanted by the prompt alone
        with open_client(arguments) as client:
            return Prompt(client, arguments, output).loop()
    except KeyboardInterrupt:
        return INTERRUPTED


def open_client(options: argparse.Namespace,
                resume: tuple[bytes, int, int | None] | None = None) -> Client:
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
            return _perform(client, arguments, output)
        with open_client(options, resume) as own:
            return _perform(own, arguments, output)
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


def _perform(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    output.failed = None
    client.forget_token()
    try:
        return arguments.action(client, arguments, output)
    except NoAnswerError as error:
        output.say(f"{error}; `mqclient.py why` tells what stands still")
        if error.resume is not None:
            output.say("to learn the outcome, give the same command again within 5 minutes with "
                       f"--resume {client.resume_token} (later it might be executed anew)")
        return actions.NO_ANSWER
    except OSError:
        if output.failed is None:
            raise
        return _unwritten(client, output)


def _unwritten(client: Client, output: Output) -> int:
    """The result could not be written: what was done can be asked for again, as it stays kept."""
    error, token = output.failed, client.resume_token
    closed = isinstance(error, BrokenPipeError)     # whoever read our output has enough
    if token is not None:
        client.keep_replies()
        output.say(f"it was executed, but the result could not be written: {error.strerror}; to "
                   "have it, give the same command again within 5 minutes with --resume "
                   f"{token}")
    elif not closed:
        output.say(f"the result could not be written: {error.strerror}")
    return PIPE_CLOSED if closed else actions.REFUSED


# --- parsers


class CommandParser(argparse.ArgumentParser):
    """Says how a text that begins with - is given, where one was taken for an option."""

    _words: list[str] = []

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does it."""
        self._words = list(args or [])
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        """Ends the process with status 2."""
        words = self._words[:self._words.index("--")] if "--" in self._words else self._words
        taken = [word for word in words if len(word) > 1 and word.startswith("-")
                 and (word in message or word not in self._option_string_actions)]
        if taken and _TAKE_TEXT.intersection((*self.prog.split(), *words)) and (
                "required: " in message or "unrecognized" in message):
            message += f" (a text that begins with - goes behind --, as in: -- {taken[0]})"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = CommandParser(
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
    add("-s", dest="servers", metavar="ADDRESS,...", type=kinds.server_list,
        help=f"nodes to ask, host:port each (default: ${SERVERS_VARIABLE}, else "
        f"{SERVERS_DEFAULT})")
    add("--timeout", metavar="S", type=kinds.duration,
        help="seconds until an answer must be there (default: 30)")
    add("--json", action="store_true", help="print results as JSON")
    add("--no-redirect", action="store_true",
        help="ask the first server only; show its refusal and who leads")


def build_prompt_parser() -> argparse.ArgumentParser:
    """The commands alone, for a line of the prompt."""
    parser = CommandParser(prog="", add_help=False, usage=argparse.SUPPRESS)
    add_commands(parser, required=True)
    return parser


def add_commands(parser: argparse.ArgumentParser, required: bool = False,
                 general: bool = False) -> None:
    """Every command with its arguments; the parsed `action` performs it."""
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=required)

    def command(name: str, action, text: str, queue: int = 0, within=commands,
                epilog: str | None = None) -> argparse.ArgumentParser:
        added = within.add_parser(name, help=text, description=text, epilog=epilog,
                                  formatter_class=argparse.RawDescriptionHelpFormatter if epilog
                                  else argparse.HelpFormatter)
        if action is not None:
            added.set_defaults(action=action)
        if general:
            _add_general(added)
        if queue == QUEUE:
            added.add_argument("-q", dest="queue", metavar="QUEUE", default=QUEUE_DEFAULT,
                               type=kinds.queue,
                               help=f"name of the queue (default: {QUEUE_DEFAULT})")
        elif queue == QUEUE_NEEDED:
            added.add_argument("-q", dest="queue", metavar="QUEUE", required=True,
                               type=kinds.queue, help="name of the queue")
        return added

    add_queue_commands(command)
    add_kv_commands(command)
    log = command("log", actions.log,
                  "print the leader's committed log: index.offset term command, a line each")
    log.add_argument("--from", dest="first", metavar="INDEX", type=kinds.positive, default=1,
                     help="begin at this index (default: the first that is still held)")
    log.add_argument("--limit", metavar="COUNT", type=kinds.positive,
                     help="at most so many entries")
    log.add_argument("--local", metavar="ADDRESS", type=kinds.node_address,
                     help="the log that this node knows, whoever leads")
    watchactions.add_commands(command)
    _add_cluster_commands(command)


def _add_cluster_commands(command) -> None:
    """Those about the cluster itself; `command` makes the parser of one."""
    status = command("status", memberactions.status, "ask each node for its role, term and indexes")
    status.add_argument("address", metavar="ADDRESS", nargs="*", type=kinds.node_address,
                        help="these nodes alone (default: the servers and all members)")
    members = command("members", memberactions.members, "print who belongs to the cluster, as the "
                      "leader sees it; with --set: change it, one step after the other")
    members.add_argument("--set", metavar="A,B,C", type=kinds.member_list,
                         help="make exactly these nodes the members, all of them voters, and wait "
                         "until it is done; the leader goes on by itself, also after a fail-over. "
                         "Nodes that are no members yet must run, and be empty")
    add = command("add", memberactions.add, "have a node taken in and wait until it is a voter. It "
                  "must run, and be empty: python3 node.py ADDRESS --join LEADER starts one that "
                  "comes in by itself")
    add.add_argument("address", metavar="ADDRESS", type=kinds.node_address,
                     help="where it runs, host:port")
    add.add_argument("--learner", action="store_true", help="as a learner that stays one: it gets "
                     "everything and counts in no quorum (start it without --join)")
    for waiting in (members, add):
        waiting.add_argument("--no-wait", action="store_true",
                             help="return when the change is asked for; it goes on by itself")
    remove = command("remove", memberactions.remove, "remove a member for ever; its process goes "
                     "on until it is stopped")
    remove.add_argument("member", metavar="ADDRESS|NODE_ID", type=kinds.member,
                        help="host:port, or the 16 hexadecimal digits that members shows")
    transfer = command("transfer", memberactions.transfer, "hand the leadership over to a voter")
    transfer.add_argument("address", metavar="ADDRESS", type=kinds.node_address,
                          help="who is to lead")
    _add_snapshot_commands(command)
    command("why", memberactions.why, "ask all nodes and say in plain words why something stands "
            "still, a finding a line, the most important first, and what to do. Exit status: 0 "
            "nothing stands still, 1 something is wrong, 4 no node answers")


def _add_snapshot_commands(command) -> None:
    snapshot = command("snapshot", memberactions.snapshot, "have a snapshot made, of everything "
                       "acknowledged so far; prints a line each. (Nodes make them by themselves, "
                       "whenever their logs have grown.) With addresses, one node after the other")
    snapshot.add_argument("address", metavar="ADDRESS", nargs="*", type=kinds.node_address,
                          help="these nodes, each of what it has applied (default: the leader)")
    backup = command("backup", memberactions.backup, "read a consistent snapshot of the running "
                     "cluster into a file: everything acknowledged so far. The time limit counts "
                     "from the last byte; another leader is gone to by itself. Exit status 1 where "
                     "the file cannot be written: then there is none")
    backup.add_argument("path", metavar="FILE", type=kinds.file_name, help="must not exist; it is "
                        "written as FILE.partial beside it, and renamed when it is whole")
    backup.add_argument("--local", metavar="ADDRESS", type=kinds.node_address,
                        help="from this node, whoever leads: what it has applied, which may be "
                        "old. The way out where a majority is lost")
    backup.add_argument("--force", action="store_true", help="replace FILE where it exists")
