"""The command line of node.py: arguments become a Server, which runs until it is stopped.

Exit status: 0 stopped; 1 cannot start or go on, with one clear line; 2 wrong arguments.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import random
import sys
from typing import NoReturn

from raftnet import VERSION
from raftnet.actions import LEVELS, ActionLog
from raftnet.config import Config, SnapshotConfig
from raftnet.errors import MalformedError, RaftnetError, StorageError
from raftnet.raft.membership import QUORUM_RULE_NAMES
from raftnet.recovery import open_store, restore
from raftnet.replica import Start
from raftnet.server import Server
from raftnet.storage.disk import Disk
from raftnet.storage.store import Store
from raftnet.wire.address import format_address, parse_address

_SIZE_MIN = 4096
_FLAGS = ("insecure", "log_all", "no_healing")
_EPILOG = """\
on an empty data directory:
  node.py 127.0.0.1:5001                      found a new cluster and lead it
  node.py 127.0.0.1:5002 --join 127.0.0.1:5001
                                              ask to be taken in: learner, then voter
  node.py 127.0.0.1:5001 --cluster 127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003
                                              one of the equal founders
with a history in it, each of them rejoins the node's cluster from its own files.
The assignment's form is the same: node.py IP PORT [CONTACT_IP CONTACT_PORT]
"""


def _address(text: str) -> str:
    try:
        return format_address(*parse_address(text))
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _addresses(text: str) -> list[str]:
    addresses = [_address(part.strip()) for part in text.split(",")]
    if len(set(addresses)) != len(addresses):
        raise argparse.ArgumentTypeError("an address is named twice")
    return addresses


def _size(text: str) -> int:
    """Bytes, from a number with K, M or G behind it or nothing."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    number = text[:-1] if factor else text
    if not number.isascii() or not number.isdigit() or int(number) * (factor or 1) < _SIZE_MIN:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: say 4K at least, like 64M or 1G")
    return int(number) * (factor or 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="node.py", description="Run one node of a raftnet cluster until Ctrl-C.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="ADDRESS", nargs="+",
                        help="host:port of this node, [::1]:5001 for IPv6; or IP PORT "
                        "[CONTACT_IP CONTACT_PORT]")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--join", metavar="ADDRESS", type=_address,
                       help="a node of the cluster to be taken into")
    start.add_argument("--cluster", metavar="ADDRESS,ADDRESS,...", type=_addresses,
                       help="all founders of a new cluster, this node included")
    start.add_argument("--config", metavar="FILE",
                       help='JSON: {"cluster": {"0": ["127.0.0.1", 5001], ...}} and any long '
                       "option by name")
    parser.add_argument("--data", metavar="DIR", help="data directory; default "
                        "raftnet-data/HOST-PORT beside node.py")
    parser.add_argument("--quorum", choices=list(QUORUM_RULE_NAMES.values()), default="majority",
                        help="who decides; counts at founding only (default: %(default)s)")
    parser.add_argument("--bind", metavar="ADDRESS", type=_address,
                        help="where to listen, if not at ADDRESS")
    parser.add_argument("--snapshot-after", metavar="SIZE", type=_size, default=64 << 20,
                        help="make a snapshot when the log has grown by so much, and by twice the "
                        "last snapshot (K, M or G; default: 64M)")
    parser.add_argument("--keep-log", metavar="SIZE", type=_size, default=16 << 20,
                        help="of the log kept below a snapshot, for followers that are merely slow "
                        "(default: 16M)")
    parser.add_argument("--restore", metavar="PATH",
                        help="begin a new cluster of this node alone with a backup, or with the "
                        "data directory of a node that is stopped; needs an empty --data")
    parser.add_argument("--no-healing", action="store_true",
                        help="rather do not start when files are damaged than set them aside and "
                        "come back as a new node with what the others hold")
    parser.add_argument("--insecure", action="store_true",
                        help="allow an address off loopback: everybody who reaches it is trusted")
    parser.add_argument("--log-level", choices=list(LEVELS), default="info",
                        help="(default: %(default)s)")
    parser.add_argument("--log-all", action="store_true",
                        help="write every action, without counting repeated kinds")
    parser.add_argument("--version", action="version", version=f"raftnet {VERSION}")
    return parser


def _read_config(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Take what the JSON file says, where the command line says nothing."""
    try:
        with open(arguments.config, encoding="utf-8") as file:
            settings = json.load(file)
        if not isinstance(settings, dict):
            raise ValueError("an object is needed")
        for name, value in settings.items():
            name = name.replace("-", "_")
            if name == "cluster":
                value = _addresses(",".join(format_address(str(host), int(port))
                                            for host, port in value.values()))
            elif name in ("config", "address") or name not in vars(arguments):
                raise ValueError(f"unknown setting {name!r}")
            elif name in ("bind", "join"):
                value = _address(str(value))
            elif name in ("snapshot_after", "keep_log"):
                value = _size(str(value))
            elif type(value) is not (bool if name in _FLAGS else str):
                raise ValueError(f"{name!r} cannot be {value!r}")
            elif name == "quorum" and value not in QUORUM_RULE_NAMES.values():
                raise ValueError(f"quorum {value!r} is unknown")
            elif name == "log_level" and value not in LEVELS:
                raise ValueError(f"log_level {value!r} is unknown")
            if getattr(arguments, name) == parser.get_default(name):
                setattr(arguments, name, value)
        if arguments.join and arguments.cluster:
            raise ValueError("either join or cluster")
    except OSError as error:
        parser.error(f"{arguments.config}: {error.strerror}")
    except (ValueError, TypeError, AttributeError, argparse.ArgumentTypeError) as error:
        parser.error(f"{arguments.config}: {error}")


def _positional(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The node's address, from either form; the assignment's contact becomes --join."""
    words = arguments.address
    try:
        if len(words) == 1:
            return _address(words[0])
        if len(words) in (2, 4):
            if len(words) == 4:
                if arguments.join or arguments.cluster or arguments.config:
                    parser.error("a contact is named twice")
                arguments.join = _address(_of_words(words[2], words[3]))
            return _address(_of_words(words[0], words[1]))
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    parser.error("one address is needed, or IP PORT [CONTACT_IP CONTACT_PORT]")


def _of_words(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(address: str) -> bool:
    host, _ = parse_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False        # a name: where it leads is not known


def _data_directory(address: str, given: str | None) -> str:
    if given:
        return os.path.abspath(given)
    host, port = parse_address(address)
    beside = os.path.dirname(os.path.abspath(sys.argv[0]))
    return os.path.join(beside, "raftnet-data", f"{host.replace(':', '_')}-{port}")


def main(argv: list[str] | None = None) -> None:
    """Run a node; exits the process."""
    if not __debug__:
        sys.exit("node.py: assertions keep the data safe: start without -O")
    _open_standard_descriptors()
    parser = _parser()
    arguments = parser.parse_args(argv)
    address = _positional(parser, arguments)
    if arguments.config:
        _read_config(parser, arguments)
    if arguments.cluster and address not in arguments.cluster:
        parser.error(f"{address} is not among the founders {','.join(arguments.cluster)}")
    if arguments.restore and (arguments.join or arguments.cluster):
        parser.error("--restore begins a new cluster of this node alone: the others --join it")
    if arguments.join == address:
        parser.error("a node cannot join itself: name another node, or none to found a cluster")
    for each in (address, arguments.bind or address):
        if not _is_loopback(each) and not arguments.insecure:
            parser.error(f"{each} is off loopback, and there is no secret yet: add --insecure if "
                         "everybody who can reach it is trusted")
    _run(address, arguments)


def _open_standard_descriptors() -> None:
    """Where one is closed, a data file would get its number, and what is meant for a terminal
    would be written into that file."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _run(address: str, arguments: argparse.Namespace) -> NoReturn:
    directory = _data_directory(address, arguments.data)
    config = Config(snapshot=SnapshotConfig(log_bytes_min=arguments.snapshot_after,
                                            tail_bytes=arguments.keep_log))
    actions = ActionLog(address, LEVELS[arguments.log_level], config.log_lines_per_second,
                        arguments.log_all)
    actions.say("start", "raftnet %s, data directory %s", VERSION, directory)
    rule = next(r for r, name in QUORUM_RULE_NAMES.items() if name == arguments.quorum)
    start = Start(address, arguments.cluster or [], arguments.join or "", rule)
    server = None
    try:
        store = _open(Disk(directory), address, arguments, config, actions)
        server = Server(config, store, start, actions, arguments.bind or "")
        actions.say("start", "node %016x, start %d of this directory, listening at %s",
                    store.node_id, store.boot, arguments.bind or address)
        server.run_until_signal()
        server.close()
    except StorageError as error:
        # Nothing more is synced or promised: the process ends as it is.
        _end(actions, 1, str(error))
    except RaftnetError as error:
        if server is not None:
            server.close()
        _end(actions, 1, str(error))
    _end(actions, 0)


def _open(disk: Disk, address: str, arguments: argparse.Namespace, config: Config,
          actions: ActionLog) -> Store:
    """The data directory, restored first where that is asked for."""
    def make_node_id() -> int:
        return random.SystemRandom().randint(1, 2**64 - 1)

    def report(text: str) -> None:
        actions.say("storage", "%s", text)

    if arguments.restore:
        restore(disk, arguments.restore, address, make_node_id, config, report)
    contacts = [arguments.join or "", *(arguments.cluster or [])]
    return open_store(disk, contacts, address, make_node_id, report,
                      config.raft.log_memory_bytes_max, arguments.no_healing)


def _end(actions: ActionLog, status: int, text: str = "") -> NoReturn:
    """End the process. A terminal that is gone or stuck must not change how: the interpreter's own
    end would wait for it, or end with another status."""
    if actions.stop() and sys.stderr is not None:
        with contextlib.suppress(OSError):      # nobody is left to be told
            if text:
                print(f"node.py: {text}", file=sys.stderr)
            sys.stderr.flush()
    os._exit(status)
