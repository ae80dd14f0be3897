#!/usr/bin/env python3
"""netem: run programs in an emulated network, with delay, loss, damage, cuts between its hosts.

The command only: hosts are made in emulatednetwork.py, packets meet their fate in networkrouter.py,
tc's words are read in linkprofile.py. `--tc` sets a real device's queue instead, through tc. What
this program says itself goes to stderr where a COMMAND runs: stdout is the COMMAND's then.
"""

import argparse
import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.errors import MalformedError, RaftnetError
from tools.emulatednetwork import (HOSTS_MAX, MTU_DEFAULT, MTU_MAX, MTU_MIN, Host, Network, enter,
                                   unavailable)
from tools.linkprofile import LinkProfile
from tools.processes import HOST_PORT, NODE_PROGRAM, STOP_S, die_with_parent

__all__ = ["Host", "LinkProfile", "Network", "TrafficControl", "unavailable"]

HOSTS_DEFAULT = 3
_LOOK_S = 0.1               # between two looks at the processes and the router
_LINE_BYTES_MAX = 65_536
_SIGNAL_STATUS = 128        # plus the signal's number, as shells have it
_PLACE = re.compile(r"\{(\d+|host|hosts(?::\d+)?)\}", re.ASCII)

HELP = """\
set WORDS [from N] [to N]   tc's netem words, e.g. set delay 20ms 5ms loss 1%; set clean
cut A B [one-way]           nothing passes between two hosts (one-way: from A to B)
isolate N                   nothing passes to and from a host
partition 1,2 3,4,5         nothing passes between these groups
heal                        undo all cuts, isolations and partitions
counts                      what happened to how many packets; counts links: on each link
quit                        or Ctrl-D: the end"""


class Console:
    """The lines that change a network while it runs."""

    def __init__(self, network: Network, say: Callable[[str], None]):
        self._network = network
        self._say = say
        self._forms = {"set": self._set, "cut": self._cut, "isolate": self._isolate,
                       "partition": self._partition, "heal": self._heal, "counts": self._counts}

    def obey(self, line: str) -> bool:
        """Do what a line says, a bad one with a line of complaint; False for `quit`."""
        words = line.split()
        if not words:
            return True
        name, *rest = words
        if name in ("quit", "exit"):
            return False
        try:
            if name == "help":
                self._say(HELP)
            elif name in self._forms:
                self._forms[name](rest)
            else:
                raise MalformedError(f"{name!r} is not known: `help` lists what is")
        except MalformedError as error:
            self._say(f"netem: {error}")
        return True

    def _host(self, word: str) -> Host:
        hosts = self._network.hosts
        if not (word.isascii() and word.isdigit()) or not 1 <= int(word[:9]) <= len(hosts):
            raise MalformedError(f"{word!r} is no host: a number from 1 to {len(hosts)} is needed")
        return hosts[int(word[:9]) - 1]

    def _set(self, words: list[str]) -> None:
        ends: dict[str, Host] = {}
        while len(words) >= 2 and words[-2] in ("from", "to"):
            if words[-2] in ends:
                raise MalformedError(f"{words[-2]!r} twice")
            ends[words[-2]] = self._host(words[-1])
            words = words[:-2]
        if not words:
            raise MalformedError("set WORDS [from N] [to N] is needed; `set clean` takes all away")
        profile = "" if words == ["clean"] else " ".join(words)
        self._network.set(profile, ends.get("from"), ends.get("to"))
        where = "".join(f" {end} {ends[end].number}" for end in ("from", "to") if end in ends)
        self._say(f"netem: {describe(profile)} on {'links' + where if ends else 'every link'}")

    def _cut(self, words: list[str]) -> None:
        if len(words) != 2 and words[2:] != ["one-way"]:
            raise MalformedError("cut A B [one-way] is needed")
        one, other = self._host(words[0]), self._host(words[1])
        if one is other:
            raise MalformedError("cut: two different hosts are needed")
        self._network.cut(one, other, both=len(words) == 2)

    def _isolate(self, words: list[str]) -> None:
        if len(words) != 1:
            raise MalformedError("isolate N is needed")
        self._network.isolate(self._host(words[0]))

    def _partition(self, words: list[str]) -> None:
        groups = [[self._host(number) for number in word.split(",")] for word in words]
        named = [host for group in groups for host in group]
        if len(groups) < 2 or len(set(named)) < len(named):
            raise MalformedError("partition 1,2 3,4,5 is needed: two groups or more, no host twice")
        self._network.partition(*groups)

    def _heal(self, words: list[str]) -> None:
        if words:
            raise MalformedError("heal stands alone, and undoes every cut")
        self._network.heal()

    def _counts(self, words: list[str]) -> None:
        if words == ["links"]:
            for (source, target), counts in sorted(self._network.link_counts().items()):
                self._say(f"{source} -> {target}: {count_text(counts)}")
        elif words:
            raise MalformedError("counts, or counts links, is needed")
        else:
            self._say(count_text(self._network.counts()))


def describe(profile: str) -> str:
    """A profile in tc's words, `clean` where it has none."""
    return LinkProfile.parse(profile).words() or "clean"


def count_text(counts: dict[str, int]) -> str:
    """Counts as one line; what did not happen is left out."""
    always = ("packets", "bytes", "delivered")
    return ", ".join(f"{name} {value}" for name, value in counts.items()
                     if value or name in always)


class TrafficControl:
    """The netem qdisc of a device of this machine, by tc, with tc's own words: set while in the
    block and removed at its end. Raises RaftnetError where there is no tc or no netem, or where
    tc refuses (another qdisc is set already: that one stays)."""

    def __init__(self, device: str, words: str):
        self._device = device
        self._words = words.split()

    def __enter__(self) -> "TrafficControl":
        self._tc("qdisc", "add", "dev", self._device, "root", "netem", *self._words)
        return self

    def __exit__(self, *_) -> None:
        self._tc("qdisc", "del", "dev", self._device, "root")

    def counts(self) -> str:
        """What tc counted: bytes and packets sent, dropped, requeued."""
        shown = self._tc("-s", "qdisc", "show", "dev", self._device)
        return next((line.strip() for line in shown.splitlines() if "Sent" in line), "no counts")

    def _tc(self, *words: str) -> str:
        instead = "; use the emulated network: netem.py --hosts N --profile WORDS -- COMMAND"
        try:
            # A session of its own: Ctrl-C must not end it halfway.
            done = subprocess.run(["tc", *words], capture_output=True, text=True, check=False,
                                  start_new_session=True)
        except FileNotFoundError:
            raise RaftnetError(f"there is no tc here (iproute2){instead}") from None
        if done.returncode == 0:
            return done.stdout
        text = " ".join(done.stderr.split()) or f"status {done.returncode}"
        if "kind is unknown" in text:
            raise RaftnetError(f"this kernel has no netem qdisc, says tc{instead}")
        raise RaftnetError(f"{shlex.join(['tc', *words])}: {text}")


class Runner:
    """The processes in a network, and the end of it all."""

    def __init__(self, network: Network | None, say: Callable[[str], None]):
        self._network = network
        self._say = say
        self._children: list[subprocess.Popen] = []
        self._apart = False         # in sessions of their own: Ctrl-C does not reach them
        self._signals: list[int] = []

    def catch_signals(self) -> None:
        """From now on they end what runs, and then this program."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: self._signals.append(number))

    def start(self, command: list[str], host: Host | None, apart: bool) -> None:
        """Start it inside a host; `apart`: one of several, without stdin."""
        self._apart = apart
        environment = dict(os.environ)
        if host is not None:
            command = [fill(word, host) for word in command]
            hosts = host.network.hosts
            environment |= {"RAFTNET_HOST": host.address,
                            "RAFTNET_HOSTS": ",".join(each.address for each in hosts),
                            "RAFTNET_HOSTS6": ",".join(each.address6 for each in hosts)}
        try:
            with contextlib.nullcontext() if host is None else host.inside():
                self._children.append(subprocess.Popen(
                    command, env=environment, start_new_session=apart,
                    stdin=subprocess.DEVNULL if apart else None, preexec_fn=die_with_parent))
        except OSError as error:
            raise RaftnetError(f"{command[0]}: {error.strerror}") from None

    def watch(self, console: Console | None) -> int:
        """Until all processes have ended, or somebody wants it; the first status that is not 0."""
        reading, rest = console is not None, b""
        while not self._children or any(child.poll() is None for child in self._children):
            if self._network is not None:
                self._network.check()
            if self._signals and self._stop(self._signals.pop()):
                break
            if not reading:
                self._wait()
                continue
            if not select.select([0], [], [], _LOOK_S)[0]:
                continue
            data = os.read(0, _LINE_BYTES_MAX)
            *lines, rest = (rest + data).split(b"\n")
            going = all(console.obey(line.decode("utf-8", "replace")) for line in lines)
            reading = bool(data)
            if not going or not reading and not self._children:
                self._stop(signal.SIGINT)
                break
        statuses = [child.returncode for child in self._children]
        failed = next((status for status in statuses if status), 0)
        return failed if failed >= 0 else _SIGNAL_STATUS - failed

    def _wait(self) -> None:
        """For the first process that runs, a moment."""
        child = next((child for child in self._children if child.poll() is None), None)
        if child is None:
            time.sleep(_LOOK_S)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)

    def _stop(self, number: int) -> bool:
        """What a signal to this program means; whether it is the end."""
        if self._children and not self._apart:
            # A terminal's Ctrl-C has reached the COMMAND already, and it may go on after it.
            if number != signal.SIGINT:
                self._children[0].send_signal(number)
            return False
        for child in self._children:
            if child.poll() is None:
                child.send_signal(number)
        deadline = time.monotonic() + STOP_S
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        return True

    def kill(self) -> None:
        """What is left."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()


def fill(word: str, host: Host) -> str:
    """A word of a COMMAND with {N}, {host}, {hosts} and {hosts:PORT} replaced by addresses."""
    hosts = host.network.hosts

    def address(match: re.Match) -> str:
        name, _, port = match[1].partition(":")
        if name == "host":
            return host.address
        if name == "hosts":
            return ",".join(each.address + (f":{port}" if port else "") for each in hosts)
        return hosts[int(name) - 1].address if 1 <= int(name) <= len(hosts) else match[0]
    return _PLACE.sub(address, word)


def introduce(network: Network, say: Callable[[str], None]) -> None:
    """Say how to come into each host from another terminal."""
    hosts = network.hosts
    cluster = ",".join(f"{host.address}:{HOST_PORT}" for host in hosts)
    for host in hosts:
        say(f"  host {host.number}  {host.address}  {host.address6}   {entry(host)} COMMAND")
    say("As root in another terminal; without a COMMAND: a shell there. For example a node each:")
    say(f"  {entry(hosts[0])} python3 {NODE_PROGRAM} {hosts[0].address}:{HOST_PORT} "
        f"--cluster {cluster} --insecure")
    say("Here `help` lists how to change the network; Ctrl-C or `quit` ends it.")


def entry(host: Host) -> str:
    """The command that runs others inside the host."""
    return (f"python3 {os.path.abspath(__file__)} --enter {os.getpid()}:{host.descriptor} --")


def run_network(arguments: argparse.Namespace, command: list[str]) -> int:
    """The emulated network, until COMMAND has ended or stdin says so."""
    stream = sys.stderr if command else sys.stdout

    def say(line: str) -> None:
        print(line, file=stream, flush=True)
    with Network(arguments.hosts, arguments.profile, arguments.seed, arguments.mtu) as network:
        runner = Runner(network, say)
        runner.catch_signals()
        say(f"netem: {arguments.hosts} hosts, every link: {describe(arguments.profile)}")
        console = None if command and not arguments.each else Console(network, say)
        try:
            if not command:
                introduce(network, say)
            elif arguments.each:
                for host in network.hosts:
                    runner.start(command, host, apart=True)
            else:
                runner.start(command, network.hosts[arguments.on - 1], apart=False)
            status = runner.watch(console)
        finally:
            runner.kill()
        say(f"netem: {count_text(network.counts())}")
    return status


def run_tc(arguments: argparse.Namespace, command: list[str]) -> int:
    """tc's netem on a device, until COMMAND has ended, or Ctrl-C."""
    runner = Runner(None, print)
    runner.catch_signals()
    with TrafficControl(arguments.tc, arguments.profile) as control:
        print(f"netem: {arguments.tc}: {arguments.profile}"
              + ("" if command else "; Ctrl-C removes it"), file=sys.stderr, flush=True)
        try:
            if command:
                runner.start(command, None, apart=False)
            status = runner.watch(None)
        finally:
            runner.kill()
        print(f"netem: {control.counts()}", file=sys.stderr)
    return status


def run_inside(place: str, command: list[str]) -> int:
    """Become COMMAND, or a shell, in a host of another netem.py."""
    pid, _, descriptor = place.partition(":")
    path = f"/proc/{pid}/fd/{descriptor}"
    command = command or [os.environ.get("SHELL", "/bin/sh")]
    try:
        if not (pid.isdigit() and descriptor.isdigit() and os.readlink(path).startswith("net:")):
            raise RaftnetError(f"{place!r} is no host: PID:N is needed, as netem.py showed it")
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        enter(namespace)
        os.execvp(command[0], command)
    except OSError as error:
        raise RaftnetError(f"{place} -- {command[0]}: {error.strerror}; does that netem.py still "
                           "run, and are you root?") from None


def main(argv: list[str]) -> int:
    """Gives the exit status: COMMAND's, or 1 with a line why, or 2 for bad arguments."""
    parser = _parser()
    split = argv.index("--") if "--" in argv else len(argv)
    arguments, command = parser.parse_args(argv[:split]), argv[split + 1:]
    try:
        if arguments.enter:
            return run_inside(arguments.enter, command)
        if arguments.tc:
            return run_tc(arguments, command)
        LinkProfile.parse(arguments.profile)
        if arguments.on > arguments.hosts:
            parser.error(f"--on {arguments.on}: there are {arguments.hosts} hosts")
        if arguments.each and not command:
            parser.error("--each needs -- COMMAND")
        return run_network(arguments, command)
    except MalformedError as error:
        parser.error(f"--profile: {error}")
    except (RaftnetError, OSError) as error:
        print(f"netem.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:       # before anything ran
        return _SIGNAL_STATUS + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netem.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="netem.py [--hosts N] [--profile WORDS] [options] [-- COMMAND ...]",
        description="Hosts with network stacks of their own, 10.77.0.1, 10.77.0.2, ... (fd77::1,\n"
        "...), and links between them that delay, lose, damage, double, reorder. Needs root.",
        epilog="With -- COMMAND it ends when COMMAND does, with its exit status, and shows what\n"
        "happened to the packets. In COMMAND {1} stands for the address of host 1, {host} for\n"
        "that of its own, {hosts} and {hosts:5001} for all; RAFTNET_HOST, RAFTNET_HOSTS and\n"
        "RAFTNET_HOSTS6 in the environment hold them too. Without COMMAND it shows how to enter\n"
        "each host. Without it, and with --each, stdin takes lines:\n\n" + HELP)
    parser.add_argument("--hosts", metavar="N", type=_whole(1, HOSTS_MAX), default=HOSTS_DEFAULT,
                        help=f"how many (default: {HOSTS_DEFAULT})")
    parser.add_argument("--profile", metavar="WORDS", default="",
                        help='of every link, in the words of tc netem: "delay 100ms 10ms reorder '
                        '8%% corrupt 5%% duplicate 2%% 5%% loss 5%% rate 10mbit limit 1000"')
    parser.add_argument("--on", metavar="N", type=_whole(1, HOSTS_MAX), default=1,
                        help="the host that COMMAND runs in (default: 1)")
    parser.add_argument("--each", action="store_true", help="COMMAND runs in each host at once")
    parser.add_argument("--seed", metavar="N", type=_whole(0, 2**63),
                        help="of all chance: the same packets fare the same")
    parser.add_argument("--mtu", metavar="BYTES", type=_whole(MTU_MIN, MTU_MAX),
                        default=MTU_DEFAULT, help=f"of the devices (default: {MTU_DEFAULT})")
    parser.add_argument("--enter", metavar="PID:N",
                        help="run COMMAND, or a shell, in a host of a netem.py that runs")
    parser.add_argument("--tc", metavar="DEV", help="no hosts: tc's own netem on this device (lo), "
                        "with WORDS as tc takes them; removed at the end")
    return parser


def _whole(low: int, high: int):
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: a number from {low} to {high} is needed")
        return int(text[:20])
    return parse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
