"""ReferenceKeys: what becomes of keys, written for the reader and for nothing else.

As referencequeues.py: plain dicts, no code of raftnet/machine. One counter gives a version to each
change of any key: put, delete, expiry.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from raftnet.config import MachineConfig
from raftnet.wire import kvcommands
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.watches import EventType

Result = tuple[int, bytes]
Prepared = tuple[int, Callable[[], Result] | bytes]
OK, EMPTY = int(Status.OK), (int(Status.EMPTY), b"")


@dataclass(frozen=True)
class Item:
    """A key's state."""

    value: bytes
    version: int
    expires_ms: int         # 0: never


class ReferenceKeys:
    """All keys. Time, limits and `first_due` are those of the queues beside them."""

    config: MachineConfig
    now_ms: int
    first_due: Callable[[Iterable[tuple]], list]

    def __init__(self):
        self.keys: dict[bytes, Item] = {}
        self.version = 0            # of the last change
        # What became of keys since somebody looked: (type, key, version, value).
        self.changes: list[tuple[int, bytes, int, bytes]] = []

    def item(self, key: bytes) -> Item | None:
        """What the key has; past its expiry it is absent, whether or not that was carried out."""
        item = self.keys.get(key)
        return None if item is None or 0 < item.expires_ms <= self.now_ms else item

    def _change(self, kind: EventType, key: bytes, value: bytes = b"") -> int:
        """Each change has a version of its own."""
        self.version += 1
        self.changes.append((int(kind), key, self.version, value))
        return self.version

    def expire_keys(self) -> None:
        """At most so many with one entry."""
        for key in self.first_due((item.expires_ms, item.version, key)
                                  for key, item in self.keys.items() if item.expires_ms):
            del self.keys[key]
            self._change(EventType.EXPIRED, key)

    def prepare_get(self, command: bytes) -> Prepared:
        """A KV_GET."""
        key = kvcommands.decode_kv_get(command)

        def perform() -> Result:
            item = self.item(key)
            return EMPTY if item is None else (OK, kvcommands.encode_kv_get_result(
                item.version, item.expires_ms, item.value))
        return OK, perform

    def prepare_put(self, command: bytes) -> Prepared:
        """A KV_PUT."""
        key, ttl_ms, condition, value = kvcommands.decode_kv_put(command)
        if ttl_ms > self.config.ttl_ms_max:
            return (int(Status.LIMIT), b"ttl_ms_max")

        def perform() -> Result:
            if not self.key_is(key, condition):
                return self._conflict(key)
            if key in self.keys and self.item(key) is None:
                self._change(EventType.EXPIRED, key)
            version = self._change(EventType.PUT, key, value)
            self.keys[key] = Item(value, version, self.now_ms + ttl_ms if ttl_ms else 0)
            return OK, kvcommands.encode_version_result(version)
        return OK, perform

    def prepare_delete(self, command: bytes) -> Prepared:
        """A KV_DELETE."""
        key, condition = kvcommands.decode_kv_delete(command)

        def perform() -> Result:
            if not self.key_is(key, condition):
                return self._conflict(key)
            if self.item(key) is None:
                return EMPTY
            del self.keys[key]
            return OK, kvcommands.encode_version_result(self._change(EventType.DELETED, key))
        return OK, perform

    def prepare_list(self, command: bytes) -> Prepared:
        """A KV_LIST."""
        prefix, after, limit = kvcommands.decode_kv_list(command)
        if not 1 <= limit <= self.config.list_count_max:
            return (int(Status.LIMIT), b"limit: 1 to list_count_max")

        def perform() -> Result:
            found = [key for key in sorted(self.keys)
                     if key.startswith(prefix) and key > after and self.item(key) is not None]
            return OK, kvcommands.encode_kv_list_result(len(found) > limit, [
                (key, self.keys[key].version, self.keys[key].value) for key in found[:limit]])
        return OK, perform

    def _conflict(self, key: bytes) -> Result:
        item = self.item(key)
        return int(Status.CONFLICT), kvcommands.encode_kv_conflict(
            *((0, b"") if item is None else (item.version, item.value)))

    def key_is(self, key: bytes, condition: Condition) -> bool:
        """As the condition says."""
        kind, value = condition
        item = self.item(key)
        return {ConditionKind.NONE: True,
                ConditionKind.ABSENT: item is None,
                ConditionKind.PRESENT: item is not None,
                ConditionKind.EQUALS: item is not None and item.value == value,
                ConditionKind.VERSION: item is not None and item.version == value}[kind]
