"""What mqclient's key-value commands do. The same form as in actions.py, with the same rules.

Keys and values are printed byte for byte; in JSON as text, with `base64` where they are no UTF-8.
A value of the arguments that is `-` stands for all of stdin.
"""

import argparse
from collections.abc import Callable

from raftnet.client.arguments import means_stdin
from raftnet.client.client import Client
from raftnet.client.lineinput import read_all
from raftnet.client.operations import key_name, message_data, to_bytes
from raftnet.client.output import Output, seconds_text, text_object
from raftnet.config import WireConfig
from raftnet.errors import MalformedError, NoAnswerError, RefusedError, StateRefusedError
from raftnet.raft.entry import EntryKind
from raftnet.wire.commands import Status, batch_stamp
from raftnet.wire.kvcommands import Condition, ConditionKind, KvItem, encode_kv_get

DONE, REFUSED, NOTHING_THERE = 0, 1, 3
TIME_WAIT_S = 5.0               # for the time that is left: no more, where nothing can be written
_ABSENT = KvItem(0, 0, b"")     # of no key


def get(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print a key's value; with --verbose what else is known of it, too."""
    key = to_bytes(arguments.key)
    found = client.kv_get(key, arguments.local)
    index = client.read_index
    _tell_index(arguments, index, output)
    left_ms = None
    if found is not None and found.expires_ms and (output.as_json or arguments.verbose):
        left_ms = _time_left_ms(client, key, found, arguments.local, output)
    if output.as_json:
        told = found is not None or arguments.verbose
        output.document(_item_object(key, found, left_ms, index) if told else None)
    elif found is not None and arguments.verbose:
        output.lines([f"version\t{found.version}", f"expires-in\t{_left_text(found, left_ms)}",
                      b"value\t" + found.value])
    elif found is not None:
        output.line(found.value)
    return NOTHING_THERE if found is None else DONE


def put(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Set a key; prints its new version."""
    version = client.kv_put(to_bytes(arguments.key), value_given(arguments.value), arguments.ttl)
    return _tell_version(version, output)


def put_where(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """put with a condition."""
    value, condition = value_given(arguments.value), condition_given(arguments)
    return _attempt(arguments, output, lambda key: client.kv_put(
        key, value, arguments.ttl, condition))


def delete(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Remove a key; prints the version of the deletion."""
    return _tell_version(client.kv_delete(to_bytes(arguments.key)), output)


def delete_where(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """delete with a condition."""
    condition = condition_given(arguments)
    return _attempt(arguments, output, lambda key: client.kv_delete(key, condition))


def cas(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Set a key that has a certain value; where it has another, print that one."""
    if means_stdin(arguments.old) and means_stdin(arguments.new):
        raise MalformedError("OLD and NEW cannot both be read from stdin")
    condition = Condition(ConditionKind.EQUALS, value_given(arguments.old))
    value = value_given(arguments.new)
    return _attempt(arguments, output, lambda key: client.kv_put(
        key, value, arguments.ttl, condition))


def list_keys(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print keys and values in byte order."""
    count, found, index = 0, [], None
    for key, version, value in client.kv_list(to_bytes(arguments.prefix), arguments.local):
        if index is None:
            index = client.read_index   # of the first page: a watch from there misses nothing
        count += 1
        if output.as_json:
            found.append(key_object(key, version, value) | {"index": index})
        else:
            output.line(key + b"\t" + value)
    index = client.read_index if index is None else index
    _tell_index(arguments, index, output)
    if output.as_json:
        output.document({"index": index, "keys": found} if arguments.verbose else found)
    return DONE if count else NOTHING_THERE


def key_object(key: bytes, version: int, value: bytes) -> dict:
    """A key for JSON."""
    return text_object("key", key) | {"version": version} | text_object("value", value)


def value_given(text: str) -> bytes:
    """A value of the arguments; `-`: all of stdin, at most as much as a value may have."""
    if not means_stdin(text):
        return message_data(to_bytes(text))
    return message_data(read_all(WireConfig().message_bytes_max))


def condition_given(arguments: argparse.Namespace) -> Condition:
    """What --if-absent, --if-version or --if-value asks for."""
    kind, value = arguments.condition
    if kind == ConditionKind.EQUALS:
        return Condition(kind, value_given(value))
    if kind == ConditionKind.VERSION and value == 0:
        return Condition(ConditionKind.ABSENT)
    return Condition(kind, value)


def _attempt(arguments: argparse.Namespace, output: Output,
             change: Callable[[bytes], int | None]) -> int:
    """A change with a condition: where that does not hold, prints the value that the key has."""
    key = to_bytes(arguments.key)
    try:
        version = change(key)
    except StateRefusedError as error:
        if error.status != Status.CONFLICT:
            raise
        output.say(str(error))
        if output.as_json:
            output.document({"conflict": key_object(key, error.version, error.value)
                             if error.version else {"version": 0, "value": None}})
        elif error.version:
            output.line(error.value)
        return REFUSED
    return _tell_version(version, output)


def _tell_version(version: int | None, output: Output) -> int:
    if output.as_json:
        output.document({"version": version})
    elif version is not None:
        output.line(str(version))
    return NOTHING_THERE if version is None else DONE


# --- what is known of a key beside its value


def _tell_index(arguments: argparse.Namespace, index: int, output: Output) -> None:
    if arguments.verbose or arguments.local is not None:
        output.say(f"at index {index}")


def _item_object(key: bytes, found: KvItem | None, left_ms: int | None, index: int) -> dict:
    item = found or _ABSENT
    return key_object(key, item.version, item.value) | ({} if found else {"value": None}) | {
        "expires_ms": item.expires_ms or None,
        "expires_in_s": None if left_ms is None else left_ms / 1000, "index": index}


def _left_text(found: KvItem, left_ms: int | None) -> str:
    if not found.expires_ms:
        return "never"
    return "unknown" if left_ms is None else f"{seconds_text(left_ms)} s"


def _time_left_ms(client: Client, key: bytes, found: KvItem, local: str | None,
                  output: Output) -> int | None:
    """How long that key stays. None where that is not known: of one node's own state, whose time
    may be old, and where nothing can be written."""
    if local is not None:
        return None
    left_ms, index, timeout_s = None, client.read_index, client.timeout_s
    client.timeout_s = min(timeout_s, TIME_WAIT_S)
    try:
        # The time of a read stands still in an idle cluster. That of a request does not, and is in
        # the log.
        client._call(encode_kv_get(key_name(key)), lambda status, _: status)
        for entry in client.log(index + 1):
            if entry.kind == EntryKind.BATCH:
                left_ms = max(found.expires_ms - batch_stamp(entry.payload), 0)
    except (RefusedError, NoAnswerError) as error:
        output.say(f"the time that is left is not known: {error}")
    finally:
        client.timeout_s = timeout_s
    return left_ms
