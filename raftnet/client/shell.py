"""The prompt of mqclient: the same commands, a line each, with history and completion.

Rules: a line is split as a shell would; what fails prints its reason and the prompt goes on. The
assignment's form is understood too: queue("1"), queue("1") ("2"), dequeue(), request_log().
"""

import argparse
import ast
import cmd
import contextlib
import os
import shlex

from raftnet.client import arguments as kinds, commandline
from raftnet.client.client import Client
from raftnet.client.output import Output

try:
    import readline
except ImportError:             # some builds of Python lack it; the prompt works without
    readline = None

HISTORY_FILE = "~/.mqclient_history"
HISTORY_LINES_MAX = 1_000
_ASSIGNMENT_NAMES = {"queue": "enqueue", "request_log": "log"}
_ADDRESS_COMMANDS = ("add", "remove", "transfer", "status", "members", "log", "snapshot",
                     "backup")
_ENDS = ("exit", "quit", "EOF")


class Prompt(cmd.Cmd):
    """Reads lines until exit, quit or the end of input."""

    prompt = "raftnet> "
    intro = "Commands as on the command line; help lists them, exit or Ctrl-D leaves."

    def __init__(self, client: Client, options: argparse.Namespace, output: Output, **files):
        super().__init__(**files)
        self._client = client
        self._options = options
        self._output = output
        self._parser = commandline.build_prompt_parser()
        # argparse offers no public way to list the commands of its subparsers
        actions = [a for a in self._parser._actions if isinstance(a, argparse._SubParsersAction)]
        self._commands = actions[0].choices

    def loop(self) -> int:
        """Run until the end; Ctrl-C leaves the current line only. Gives the exit status."""
        self._load_history()
        intro = self.intro
        try:
            while True:
                try:
                    self.cmdloop(intro)
                    return 0
                except KeyboardInterrupt:
                    intro = ""
                    self.stdout.write("\n")
        finally:
            self._save_history()

    def onecmd(self, line: str) -> bool:
        """Perform one line; True where it was the last."""
        line = line.strip()
        if not line:
            return False
        if line in _ENDS:
            if line == "EOF":
                self.stdout.write("\n")
            return True
        try:
            words = split_line(line)
        except ValueError as error:
            self._output.say(str(error))
            return False
        if words[0] == "help":
            self._help(words[1:])
        else:
            self._perform(words)
        return False

    def _perform(self, words: list[str]) -> None:
        if words[0] not in self._commands:
            self._output.say(f"{words[0]!r} is no command; help lists them")
            return
        try:
            arguments = self._parser.parse_args(kinds.mark_literals(words))
        except SystemExit:          # argparse has said what is wrong, or printed --help
            return
        given = (*getattr(arguments, "message", ()), getattr(arguments, "file", ""),
                 getattr(arguments, "value", ""))
        if any(map(kinds.means_stdin, given)):
            self._output.say("- reads all of stdin, which is the prompt here: use the command line")
            return
        commandline.run(arguments, self._options, self._output, self._client)

    def _help(self, names: list[str]) -> None:
        for name in names or self._commands:
            command = self._commands.get(name)
            if command is None:
                self._output.say(f"{name!r} is no command")
            elif names:
                self.stdout.write(command.format_help())
            else:
                self.stdout.write(f"{name:10} {command.description}\n")
        if not names:
            self.stdout.write("exit       leave the prompt\n")

    def completenames(self, text: str, *ignored) -> list[str]:
        """The commands that begin with `text`."""
        return [name + " " for name in (*self._commands, "exit", "help") if name.startswith(text)]

    def completedefault(self, text: str, line: str, *ignored) -> list[str]:
        """The options of the command of this line that begin with `text`, or the addresses of
        nodes, where the command takes some; no node is asked for that."""
        name = line.split()[0]
        command = self._commands.get(name)
        if command is None:
            return []
        if text.startswith("-"):
            return [option + " " for option in command._option_string_actions
                    if option.startswith(text)]
        if name not in _ADDRESS_COMMANDS or self._client is None:
            return []
        known = dict.fromkeys((*self._client.known_members, *self._client.servers))
        before, comma, last = text.rpartition(",")      # of --set A,B,C
        return [before + comma + address + " " for address in known if address.startswith(last)]

    def _load_history(self) -> None:
        if readline is None:
            return
        readline.set_completer_delims(" \t\n")      # so that options complete, dashes included
        readline.set_history_length(HISTORY_LINES_MAX)
        # a history that is absent or unreadable is no reason not to start
        with contextlib.suppress(OSError):
            readline.read_history_file(os.path.expanduser(HISTORY_FILE))

    def _save_history(self) -> None:
        if readline is not None:
            # no home folder, or none to write in: the history ends with this prompt
            with contextlib.suppress(OSError):
                readline.write_history_file(os.path.expanduser(HISTORY_FILE))


def split_line(line: str) -> list[str]:
    """The words of a line in either form; raises ValueError with a reason."""
    return _split_call(line) or shlex.split(line)


def _split_call(line: str) -> list[str]:
    """The words for name(argument, ...) with more (arguments) behind it; [] for another form."""
    if not line.partition("(")[0].strip().isidentifier() or not line.endswith(")"):
        return []
    try:
        node = ast.parse(line, mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError('that is written queue("text"), dequeue() or request_log()') from error
    groups = []
    while isinstance(node, ast.Call):
        groups.append(node.args)
        if node.keywords:
            raise ValueError("arguments have no names in this form")
        node = node.func
    if not isinstance(node, ast.Name):
        return []
    values = []
    for argument in (argument for group in reversed(groups) for argument in group):
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, (str, int)):
            raise ValueError("arguments are texts in quotes, or whole numbers")
        values.append(str(argument.value))
    name = _ASSIGNMENT_NAMES.get(node.id, node.id)
    if name == "dequeue" and values:
        return [name, "-n", *values]
    # so that a text is never taken for an option
    return [name, "--", *values] if values else [name]
