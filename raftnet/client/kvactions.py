"""What mqclient's key-value commands do. The same form as in actions.py, with the same rules.

Keys and values are printed byte for byte; in JSON as text, with `base64` where they are no UTF-8.
"""

import argparse
import sys

from raftnet.client.client import Client
from raftnet.client.operations import message_data, to_bytes
from raftnet.client.output import Output, text_object
from raftnet.config import WireConfig
from raftnet.errors import StateRefusedError
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind

DONE, REFUSED, NOTHING_THERE = 0, 1, 3


def get(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print a key's value."""
    found = client.kv_get(to_bytes(arguments.key), arguments.local)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document(None if found is None else key_object(
            to_bytes(arguments.key), found.version, found.value)
            | {"expires_ms": found.expires_ms or None})
    elif found is not None:
        output.line(found.value)
    return NOTHING_THERE if found is None else DONE


def put(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Set a key; prints its new version."""
    version = client.kv_put(to_bytes(arguments.key), value_given(arguments.value), arguments.ttl)
    return _tell_version(version, output)


def delete(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Remove a key; prints the version of the deletion."""
    return _tell_version(client.kv_delete(to_bytes(arguments.key)), output)


def cas(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Set a key that has a certain value; where it has another, print that one."""
    condition = Condition(ConditionKind.EQUALS, message_data(to_bytes(arguments.old)))
    try:
        version = client.kv_put(to_bytes(arguments.key), to_bytes(arguments.new), arguments.ttl,
                                condition)
    except StateRefusedError as error:
        if error.status != Status.CONFLICT:
            raise
        output.say(str(error))
        if output.as_json:
            output.document({"conflict": key_object(to_bytes(arguments.key), error.version,
                                                    error.value)
                             if error.version else {"version": 0, "value": None}})
        elif error.version:
            output.line(error.value)
        return REFUSED
    return _tell_version(version, output)


def list_keys(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print keys and values in byte order."""
    count, found = 0, []
    for key, version, value in client.kv_list(to_bytes(arguments.prefix), arguments.local):
        count += 1
        if output.as_json:
            found.append(key_object(key, version, value))
        else:
            output.line(key + b"\t" + value)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document(found)
    return DONE if count else NOTHING_THERE


def key_object(key: bytes, version: int, value: bytes) -> dict:
    """A key for JSON."""
    return text_object("key", key) | {"version": version} | text_object("value", value)


def value_given(text: str) -> bytes:
    """The value of the arguments; `-`: all of stdin, at most as much as a value may have."""
    if text != "-":
        return to_bytes(text)
    return message_data(sys.stdin.buffer.read(WireConfig().message_bytes_max + 1))


def _tell_version(version: int | None, output: Output) -> int:
    if output.as_json:
        output.document({"version": version})
    elif version is not None:
        output.line(str(version))
    return NOTHING_THERE if version is None else DONE
