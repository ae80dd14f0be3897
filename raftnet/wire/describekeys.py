"""The one-line text form of the key-value commands, of conditions, and of results (kvcommands.py).

Rules: those of describe.py, which puts the operation or the status before these texts.
"""

from raftnet.wire import kvcommands
from raftnet.wire.commands import Operation
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.printable import MESSAGES_SHOWN, describe_bytes, describe_list, describe_name
from raftnet.wire.transactions import (U64_MAX, KeyCondition, QueueCondition, TransactCondition)


def describe_condition(condition: Condition) -> str:
    """"" where there is none."""
    if condition.kind == ConditionKind.EQUALS:
        return f"equals {describe_bytes(condition.value)}"
    if condition.kind == ConditionKind.VERSION:
        return f"version {condition.value}"
    return ConditionKind(condition.kind).name.lower() if condition.kind else ""


def describe_transact_condition(condition: TransactCondition) -> str:
    """One condition of a TRANSACT."""
    if isinstance(condition, KeyCondition):
        return f"key {describe_name(condition.key)} {describe_condition(condition.condition)}"
    if isinstance(condition, QueueCondition):
        most = "" if condition.at_most == U64_MAX else f" at most {condition.at_most}"
        return f"queue {describe_name(condition.queue)} at least {condition.at_least}{most}"
    return f"leased {condition.id}:{condition.delivery}"


def _if(condition: Condition) -> str:
    return f" if {describe_condition(condition)}" if condition.kind else ""


def _put(command: bytes) -> str:
    key, ttl_ms, condition, value = kvcommands.decode_kv_put(command)
    return (f"{describe_name(key)} {describe_bytes(value)}"
            + (f" ttl {ttl_ms} ms" if ttl_ms else "") + _if(condition))


def _delete(command: bytes) -> str:
    key, condition = kvcommands.decode_kv_delete(command)
    return describe_name(key) + _if(condition)


def _list(command: bytes) -> str:
    prefix, after, limit = kvcommands.decode_kv_list(command)
    return ((f"prefix {describe_name(prefix)} " if prefix else "")
            + (f"after {describe_name(after)} " if after else "") + f"limit {limit}")


ARGUMENTS = {
    Operation.KV_GET: lambda command: describe_name(kvcommands.decode_kv_get(command)),
    Operation.KV_PUT: _put,
    Operation.KV_DELETE: _delete,
    Operation.KV_LIST: _list,
}


# --- results


def _get_result(payload: bytes) -> str:
    item = kvcommands.decode_kv_get_result(payload)
    return (f"version {item.version} {describe_bytes(item.value)}"
            + (f" expires {item.expires_ms} ms" if item.expires_ms else ""))


def _version_result(payload: bytes) -> str:
    return f"version {kvcommands.decode_version_result(payload)}"


def _list_result(payload: bytes) -> str:
    more, items = kvcommands.decode_kv_list_result(payload)
    shown = [f"{describe_name(key)}={describe_bytes(value)} (version {version})"
             for key, version, value in items[:MESSAGES_SHOWN]]
    return describe_list(shown, len(items)) + (" and more keys" if more else "")


def describe_conflict(payload: bytes) -> str:
    """What a KV_PUT or KV_DELETE found instead."""
    version, value = kvcommands.decode_kv_conflict(payload)
    return f"version {version} {describe_bytes(value)}" if version else "absent"


RESULTS = {
    Operation.KV_GET: _get_result,
    Operation.KV_PUT: _version_result,
    Operation.KV_DELETE: _version_result,
    Operation.KV_LIST: _list_result,
}
