"""ChangeRing: the newest changes of keys, in memory, for watches that come back.

Rules: changes stand in the order of the log, each under a number that is never given twice; the
oldest go as bytes or count reach their bound. Everything after the entry `base_index` is held. The
changes of one key are a chain, so that a watch of a key finds its own without looking at others.
Never in a snapshot: a node begins with what it applies. Who watches is in watches.py.
"""

from bisect import bisect_right
from collections.abc import Iterable

CHANGE_OVERHEAD_BYTES = 300     # what a change takes beside its key and its value
_DROPPED_MIN = 1_024            # places given back together

# Type, key, version, index of the entry, value (as wire.watches.Change), and the number of the
# change of that key before it; -1: none was known.
Held = tuple[int, bytes, int, int, bytes, int]


class ChangeRing:
    """Invariant: `first` <= `end`; the changes numbered from `first` to `end` - 1 are held."""

    def __init__(self, bytes_max: int, changes_max: int, base_index: int):
        self.base_index = base_index    # all changes after this entry are held
        self.first = 0                  # number of the oldest that is held
        self.held_bytes = 0
        self._bytes_max = bytes_max
        self._changes_max = changes_max
        self._offset = 0                # number of the first of _items
        self._items: list[Held | None] = []
        self._newest: dict[bytes, int] = {}     # key -> number of its newest change

    @property
    def end(self) -> int:
        """The number that the next change gets."""
        return self._offset + len(self._items)

    def append(self, index: int, changes: Iterable[tuple[int, bytes, int, bytes]]) -> list[Held]:
        """The changes (type, key, version, value) of the entry at `index`; as they are held."""
        items, newest = self._items, self._newest
        number = self._offset + len(items)
        added = []
        size = 0
        for kind, key, version, value in changes:
            added.append((kind, key, version, index, value, newest.get(key, -1)))
            newest[key] = number
            number += 1
            size += len(key) + len(value)
        items += added
        self.held_bytes += size + CHANGE_OVERHEAD_BYTES * len(added)
        if self.held_bytes > self._bytes_max or number - self.first > self._changes_max:
            self._drop()
        return added

    def _drop(self) -> None:
        items, newest = self._items, self._newest
        end = self.end
        while self.first < end and (self.held_bytes > self._bytes_max
                                    or end - self.first > self._changes_max):
            place = self.first - self._offset
            _, key, _, index, value, _ = items[place]
            items[place] = None
            self.held_bytes -= len(key) + len(value) + CHANGE_OVERHEAD_BYTES
            self.base_index = index
            if newest[key] == self.first:
                del newest[key]
            self.first += 1
        dropped = self.first - self._offset
        if dropped >= _DROPPED_MIN and 2 * dropped > len(items):
            del items[:dropped]
            self._offset = self.first

    def number_after(self, index: int) -> int:
        """The number of the first change after that entry, `end` where there is none yet."""
        assert index >= self.base_index
        items, dropped = self._items, self.first - self._offset
        return self._offset + bisect_right(items, index, dropped, key=lambda item: item[3])

    def index_of(self, number: int) -> int:
        """The entry of that change."""
        return self._items[number - self._offset][3]

    def of_key(self, key: bytes, number: int, bytes_max: int) -> tuple[list[Held], int, int]:
        """The changes of that key from `number` on: (those that fit, at least one where there is
        one; the number to go on with, `end` where nothing is left; how many were looked at)."""
        items, offset = self._items, self._offset
        chain = []
        at = self._newest.get(key, -1)
        while at >= number:
            chain.append(at)
            at = items[at - offset][5]
        found, size = [], 0
        for at in reversed(chain):
            item = items[at - offset]
            size += len(key) + len(item[4]) + CHANGE_OVERHEAD_BYTES
            if found and size > bytes_max:
                return found, at, len(chain)
            found.append(item)
        return found, self.end, len(chain)

    def of_prefix(self, prefix: bytes, number: int, bytes_max: int,
                  scan_max: int) -> tuple[list[Held], int, int]:
        """As `of_key`, of the keys that begin so, after looking at `scan_max` changes at most."""
        items, offset = self._items, self._offset
        found, size = [], 0
        stop = min(self.end, number + scan_max)
        for at in range(number, stop):
            item = items[at - offset]
            if item[1].startswith(prefix):
                size += len(item[1]) + len(item[4]) + CHANGE_OVERHEAD_BYTES
                if found and size > bytes_max:
                    return found, at, at - number
                found.append(item)
        return found, stop, stop - number
