"""The commands of the key-value store: what each does to the keys.

Rules: as in executor.py: a command is decoded and checked first and performed then; none raises for
any bytes but MalformedError while it is decoded. A result counts its bytes against the request's
room. Not counted are the eight bytes of a version: a command that gets them has as many itself, and
no change of a key fails for want of room. What a LIST passes over counts as what a request moves.

Elsewhere: the keys (kv.py), conditions of a whole transaction (conditions.py), layouts
(wire/kvcommands.py).
"""

from collections.abc import Callable

from raftnet.machine.kv import Item
from raftnet.machine.message import later
from raftnet.wire import kvcommands
from raftnet.wire.commands import Operation, Status
from raftnet.wire.kvcommands import Condition, ConditionKind

OK, EMPTY, LIMIT, REPLY_FULL, CONFLICT = (
    int(Status.OK), int(Status.EMPTY), int(Status.LIMIT), int(Status.REPLY_FULL),
    int(Status.CONFLICT))
_NONE, _ABSENT, _PRESENT, _EQUALS, _VERSION = map(int, ConditionKind)
_LIST_TEXT = b"limit: 1 to list_count_max"
_GET_BYTES = 16             # of its result beside the value: version, expiry
_LIST_BYTES = 5             # of its result: more, count
_LISTED_BYTES = 13          # of each key beside its name and value: two lengths, version

Result = tuple[int, bytes]
# (OK, (function, name, argument)), or (status, text) of a command that cannot be performed.
Prepared = tuple[int, tuple | bytes]


def holds(condition: Condition, item: Item | None) -> bool:
    """Whether the key that has this item (None: it is absent) is as the condition says."""
    kind, value = condition
    if kind == _NONE:
        return True
    if item is None:
        return kind == _ABSENT
    if kind == _EQUALS:
        return item.value == value
    if kind == _VERSION:
        return item.version == value
    return kind == _PRESENT


class KvOperations:
    """The handlers of an executor's KV commands, by operation."""

    __slots__ = ("handlers", "_executor", "_kv", "_config", "_value_bytes_max")

    def __init__(self, executor):
        self._executor = executor
        self._kv = executor.kv
        self._config = executor.config
        self._value_bytes_max = executor.message_bytes_max
        self.handlers: dict[int, Callable[[bytes], Prepared]] = {
            int(Operation.KV_GET): self._prepare_get,
            int(Operation.KV_PUT): self._prepare_put,
            int(Operation.KV_DELETE): self._prepare_delete,
            int(Operation.KV_LIST): self._prepare_list,
        }

    # --- decode and check

    def _prepare_get(self, command: bytes) -> Prepared:
        return OK, (self._get, kvcommands.decode_kv_get(command), None)

    def _prepare_put(self, command: bytes) -> Prepared:
        key, ttl_ms, condition, value = kvcommands.decode_kv_put(command)
        if len(value) > self._value_bytes_max:
            return LIMIT, b"message_bytes_max"
        if ttl_ms > self._config.ttl_ms_max:
            return LIMIT, b"ttl_ms_max"
        return OK, (self._put, key, (ttl_ms, condition, value))

    def _prepare_delete(self, command: bytes) -> Prepared:
        return OK, (self._delete, *kvcommands.decode_kv_delete(command))

    def _prepare_list(self, command: bytes) -> Prepared:
        prefix, after, limit = kvcommands.decode_kv_list(command)
        if not 1 <= limit <= self._config.list_count_max:
            return LIMIT, _LIST_TEXT
        return OK, (self._list, prefix, (after, limit))

    # --- perform

    def _get(self, key: bytes, _: None) -> Result:
        executor = self._executor
        item = self._kv.find(key, executor.now_ms)
        if item is None:
            return EMPTY, b""
        size = _GET_BYTES + len(item.value)
        if size > executor.room:
            return REPLY_FULL, b""
        executor.room -= size
        return OK, kvcommands.encode_kv_get_result(item.version, item.expires_ms, item.value)

    def _put(self, key: bytes, what: tuple[int, Condition, bytes]) -> Result:
        executor, kv = self._executor, self._kv
        ttl_ms, condition, value = what
        now_ms = executor.now_ms
        if condition[0] != _NONE:
            item = kv.find(key, now_ms)
            if not holds(condition, item):
                return self._conflict(item)
        if len(kv.by_key) >= self._config.keys_max and key not in kv.by_key:
            return executor.text(LIMIT, b"keys_max")
        expires_ms = later(now_ms, ttl_ms) if ttl_ms else 0
        version = kv.put(key, value, expires_ms, now_ms, executor.journal)
        return OK, kvcommands.encode_version_result(version)

    def _delete(self, key: bytes, condition: Condition) -> Result:
        executor, kv = self._executor, self._kv
        item = kv.find(key, executor.now_ms)
        if not holds(condition, item):
            return self._conflict(item)
        if item is None:
            return EMPTY, b""
        return OK, kvcommands.encode_version_result(kv.delete(key, executor.journal))

    def _list(self, prefix: bytes, what: tuple[bytes, int]) -> Result:
        executor, kv = self._executor, self._kv
        after, limit = what
        room = executor.room - _LIST_BYTES
        if room < 0:
            return REPLY_FULL, b""
        now_ms = executor.now_ms
        by_key = kv.by_key
        found = []
        more = False
        for key in kv.names.from_prefix(prefix, after):
            item = by_key[key]
            if item.expires_ms and item.expires_ms <= now_ms:
                if not executor.moves:
                    more = True
                    break
                executor.moves -= 1
                continue
            size = _LISTED_BYTES + len(key) + len(item.value)
            if size > room or len(found) == limit:
                more = True
                break
            room -= size
            found.append((key, item.version, item.value))
        executor.room = room
        if more and not found:
            return executor.no_room()
        return OK, kvcommands.encode_kv_list_result(more, found)

    def _conflict(self, item: Item | None) -> Result:
        """The state that is there instead; the value only while there is room for it."""
        if item is None:
            return CONFLICT, kvcommands.encode_kv_conflict(0, b"")
        value = item.value if len(item.value) <= self._executor.room else b""
        self._executor.room -= len(value)
        return CONFLICT, kvcommands.encode_kv_conflict(item.version, value)
