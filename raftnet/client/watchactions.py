"""mqclient watch: its arguments, and what it prints.

Rules: one line an event, flushed at once: index, type, key, version, value, with tabs between them;
a key and a value are written byte for byte. With --json an object a line. It ends after --count
events, or with Ctrl-C. How watching works: watching.py.
"""

import argparse
import base64

from raftnet.client import arguments as kinds, operations, watching
from raftnet.client.client import Client
from raftnet.client.output import Output, printable

_DONE = 0
_WHATS = {"key": watching.KEY, "prefix": watching.PREFIX, "queue": watching.QUEUE}
_LISTED = "listed"          # what a listing found, in the place of the type
_TEXT = """print what changes, as it happens, an event a line: index, type, key, version, value.
Types are put, deleted and expired; gone says that changes were missed, then follow all keys that
are there as listed; of a queue only size: messages ready, leased, delayed, and bytes of the ready
ones. A key begins with what it is now; a prefix begins with nothing, only changes follow: to have
all keys first and no gap behind them, list them with kv list PREFIX --verbose, which says an index
(so does kv get), then watch prefix PREFIX --from INDEX. A watch outlives its node and goes on at
the next leader; it ends with Ctrl-C"""


def add_commands(command) -> None:
    """The parser of `watch`; `command(name, action, text)` makes one."""
    parser = command("watch", watch, " ".join(_TEXT.split()))
    parser.add_argument("what", metavar="key|prefix|queue", choices=_WHATS, help="what to watch")
    parser.add_argument("name", metavar="NAME", help="of the key or queue, or the prefix of keys "
                        "('' for all)")
    parser.add_argument("--from", dest="from_index", metavar="INDEX", type=kinds.positive,
                        default=0, help="the changes after this log entry first, as kv list "
                        "--verbose says one (default: a key as it is, of a prefix what comes; a "
                        "queue always as it is)")
    parser.add_argument("--count", dest="events", metavar="N", type=kinds.positive, default=0,
                        help="end after so many events (default: never)")
    parser.add_argument("--local", metavar="ADDRESS", type=kinds.node_address,
                        help="this node's own state, leader or not")


def name_of(what: str, name: str) -> bytes:
    """What is watched, as bytes; raises MalformedError."""
    if what == "queue":
        return operations.queue_name(name)
    return operations.key_name(name) if what == "key" else operations.short_text(name, "a prefix")


def what_of(what: str) -> int:
    """The WatchWhat of that word."""
    return _WHATS[what]


def watch(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print events."""
    name = name_of(arguments.what, arguments.name)
    left = arguments.events
    with watching.watch(client, what_of(arguments.what), name, arguments.from_index,
                        arguments.local, output.say) as events:
        for event in events:
            if output.as_json:
                output.document(_object(event))
            else:
                output.line(_line(event))
            left -= 1
            if not left:
                break
    return _DONE


def _line(event: watching.Event) -> bytes:
    kind = _LISTED if event.listed else event.type
    value = event.value
    if event.type == watching.SIZE:
        value = "leased {} delayed {} bytes {}".format(*event.sizes).encode()
    return b"%d\t%b\t%b\t%d\t%b" % (event.index, kind.encode(), event.name, event.version, value)


def _object(event: watching.Event) -> dict:
    found = {"index": event.index, "type": event.type}
    if event.type == watching.SIZE:
        leased, delayed, size_bytes = event.sizes
        return found | _texts(queue=event.name) | {
            "ready": event.version, "leased": leased, "delayed": delayed, "bytes": size_bytes}
    found |= _texts(key=event.name)
    if event.type != watching.GONE:
        found["version"] = event.version
    if event.type == watching.PUT:
        found |= _texts(value=event.value)
    return found | ({"listed": True} if event.listed else {})


def _texts(**fields: bytes) -> dict:
    """Each as text, and in base64 too where it is no UTF-8."""
    found = {}
    for name, data in fields.items():
        found[name] = printable(data)
        if operations.to_bytes(found[name]) != data:
            found[name + "_base64"] = base64.b64encode(data).decode()
    return found
