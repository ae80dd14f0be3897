"""The sections of counters and of keys in a snapshot.

Rules: as in sections.py. The counters stand before whatever is compared with them.
"""

import struct
from collections.abc import Iterator

from raftnet.errors import MalformedError
from raftnet.machine.kv import Item
from raftnet.machine.machine import Machine
from raftnet.machine.sectionitems import name_item, take, take_counted, take_name

_COUNTERS = struct.Struct(">QQ")            # next delivery, version of the keys
_KEY = struct.Struct(">QQ")                 # version, expiry; value
_U32 = struct.Struct(">I")


# --- counters: one item


def counter_items(machine: Machine) -> Iterator[bytes]:
    """The counters that are not in the head."""
    executor = machine.executor
    yield _COUNTERS.pack(executor.leases.next_delivery, executor.kv.version)


class CounterLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._executor = machine.executor
        self._seen = False

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """All of them; the offset behind."""
        executor = self._executor
        executor.leases.next_delivery, executor.kv.version = take(_COUNTERS, piece, offset)
        if self._seen or not executor.leases.next_delivery:
            raise MalformedError("state: the counters come twice, or deliveries from 0 on")
        self._seen = True
        return offset + _COUNTERS.size

    def end(self) -> None:
        """They were there."""
        if not self._seen:
            raise MalformedError("state: the counters are missing")


# --- keys: in order of their names


def key_items(machine: Machine) -> Iterator[bytes]:
    """All keys, those included that are past their expiry and still there."""
    kv = machine.executor.kv
    by_key = kv.by_key
    for name in kv.names.after(b""):
        item = by_key[name]
        yield b"".join((name_item(name), _KEY.pack(item.version, item.expires_ms),
                        _U32.pack(len(item.value)), item.value))


class KeyLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._kv = machine.executor.kv
        self._keys_max = machine.executor.config.keys_max
        self._name = b""            # of the last key

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """One key; the offset behind it."""
        kv = self._kv
        name, offset = take_name(piece, offset)
        version, expires_ms = take(_KEY, piece, offset)
        value, offset = take_counted(piece, offset + _KEY.size)
        if name <= self._name or not 1 <= version <= kv.version:
            raise MalformedError("state: keys are not in order, or of a version to come")
        if len(kv.by_key) >= self._keys_max:
            raise MalformedError("state: more keys than there may be")
        self._name = name
        kv.restore(name, Item(value, version, expires_ms))
        return offset

    def end(self) -> None:
        """Nothing is left over."""
