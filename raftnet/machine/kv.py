"""The keys: for each its value, its version and the replicated time at which it expires.

Rules: one version counter for the whole store, raised by every change (put, delete, expiry); a
key's version is that of its last put. An item is never changed, a put makes a new one, so that
undoing means to put the old one back. A key past its expiry is absent for everybody at once; that
it is taken away, with a version of its own, comes later: with a put over it, or as `expire` gets
to it, in the order of (time, version).

Every change is noted in `changes` for those who watch. Inside of an atomic list it gives its
inverse to the journal; called in reverse order they leave everything as it was: items, counter,
names, deadlines and `changes`. Nobody may take the changes in between.

Elsewhere: commands and limits (kvoperations.py), order of the names (sortednames.py), of
expiries (deadlines.py), who watches (watches are no replicated state).
"""

from raftnet.machine.deadlines import Deadlines
from raftnet.machine.pieces import Pieces
from raftnet.machine.sortednames import SortedNames
from raftnet.wire.watches import EventType

PUT, DELETED, EXPIRED = int(EventType.PUT), int(EventType.DELETED), int(EventType.EXPIRED)

# Type, key, version of the change, value (b"" unless PUT).
Change = tuple[int, bytes, int, bytes]


class Item:
    """What is known of a key; never changed."""

    __slots__ = ("value", "version", "expires_ms")

    def __init__(self, value: bytes, version: int, expires_ms: int):
        self.value = value
        self.version = version
        self.expires_ms = expires_ms        # replicated time; 0: never


class KeyValue:
    """All keys. `journal` is the executor's: None outside of an atomic list."""

    __slots__ = ("by_key", "version", "names", "changes", "_deadlines")

    def __init__(self):
        # Those past their expiry included, until it is carried out: see `find`.
        self.by_key: Pieces[bytes, Item] = Pieces()
        self.version = 0                    # of the last change. Invariant: >= that of every item
        self.names = SortedNames()          # Invariant: exactly the keys of by_key
        self.changes: list[Change] = []     # since they were taken, in order
        self._deadlines = Deadlines()

    def find(self, key: bytes, now_ms: int) -> Item | None:
        """The item, unless it is past its expiry."""
        item = self.by_key.get(key)
        if item is not None and item.expires_ms and item.expires_ms <= now_ms:
            return None
        return item

    def put(self, key: bytes, value: bytes, expires_ms: int, now_ms: int,
            journal: list | None) -> int:
        """Give the key a value; the version. `expires_ms`: replicated time, 0: never."""
        before = self.by_key.get(key)
        if before is not None and before.expires_ms and before.expires_ms <= now_ms:
            self._remove(key, before, EXPIRED, journal)
            before = None
        self.version = version = self.version + 1
        if before is None:
            self.names.add(key)
        elif before.expires_ms:
            self._deadlines.discard((before.expires_ms, before.version, key))
        self.by_key[key] = Item(value, version, expires_ms)
        if expires_ms:
            self._deadlines.add((expires_ms, version, key))
        self.changes.append((PUT, key, version, value))
        if journal is not None:
            journal.append((self._undo, key, before))
        return version

    def delete(self, key: bytes, journal: list | None) -> int:
        """Take away a key that `find` finds; the version of that."""
        self._remove(key, self.by_key[key], DELETED, journal)
        return self.version

    def due_ms(self) -> int:
        """No key expires before this; above every stamp where none does."""
        return self._deadlines.due_ms()

    def earliest_ms(self) -> int | None:
        """When the next key expires; None: never."""
        first = self._deadlines.earliest()
        return None if first is None else first[0]

    def expire(self, now_ms: int, count: int) -> int:
        """Take away at most `count` keys that are past their expiry, in order of (time, version);
        how many these were."""
        for done in range(count):
            first = self._deadlines.earliest()
            if first is None or first[0] > now_ms:
                return done
            self._remove(first[2], self.by_key[first[2]], EXPIRED, None)
        return count

    def take_changes(self) -> list[Change]:
        """What changed since the last call, in order."""
        changes = self.changes
        if changes:
            self.changes = []
        return changes

    def restore(self, key: bytes, item: Item) -> None:
        """A key out of a snapshot. `version` is restored by the caller."""
        assert key not in self.by_key and item.version <= self.version
        self.by_key[key] = item
        self.names.add(key)
        if item.expires_ms:
            self._deadlines.add((item.expires_ms, item.version, key))

    def give_back(self, count: int) -> bool:
        """Forget about `count` keys, of a machine that nobody uses any more (dismantle.py); whether
        any are left."""
        self.by_key.give_back(count)
        self.names.give_back(count)
        self._deadlines.give_back(count)
        return bool(self.by_key) or bool(len(self._deadlines))

    def _remove(self, key: bytes, before: Item, change: int, journal: list | None) -> None:
        self.version += 1
        del self.by_key[key]
        self.names.discard(key)
        if before.expires_ms:
            self._deadlines.discard((before.expires_ms, before.version, key))
        self.changes.append((change, key, self.version, b""))
        if journal is not None:
            journal.append((self._undo, key, before))

    def _undo(self, key: bytes, before: Item | None) -> None:
        """Take back the last change: it was of this key, and `before` was there."""
        after = self.by_key.get(key)
        if after is not None and after.expires_ms:
            self._deadlines.discard((after.expires_ms, after.version, key))
        if before is None:
            del self.by_key[key]
            self.names.discard(key)
        else:
            self.by_key[key] = before
            if after is None:
                self.names.add(key)
            if before.expires_ms:
                self._deadlines.add((before.expires_ms, before.version, key))
        self.version -= 1
        self.changes.pop()
