"""Names in byte order, among which one more or less costs the same however many there are.

Rules: the names lie in chunks of at most CHUNK_NAMES_MAX, each sorted, in order of their first
names; a look-up is two binary searches, a change moves the rest of one chunk. A name costs one
reference here: the bytes belong to whoever has them. Small neighbours are joined, so that names
that went leave no chunks behind. Names that come in order fill their chunks whole.

Nothing here knows what the names stand for (kv.py: keys, queues.py: queues), nor that they are
bytes: deadlines lie here too (deadlines.py), and deliveries and messages of a queue (queue.py). Two
that cannot be compared are never here at once: a place with its message stands for itself alone.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

CHUNK_NAMES_MAX = 512                           # about sqrt of as many as a machine may hold
_JOINED_NAMES_MAX = CHUNK_NAMES_MAX // 2        # two neighbours with no more become one


class SortedNames:
    """A set of names that are not empty, always in order. Not to be changed during an iteration."""

    __slots__ = ("_chunks", "_firsts", "size")

    def __init__(self):
        # Invariant: no chunk is empty, and _firsts[n] == _chunks[n][0].
        self._chunks: list[list[bytes]] = []
        self._firsts: list[bytes] = []
        self.size = 0           # read elsewhere where len() would cost a call for each message

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield from chunk

    def first(self) -> bytes | None:
        """The one before all others; None: there is none."""
        return self._firsts[0] if self._firsts else None

    def add(self, name: bytes) -> None:
        """Let the name be among them."""
        assert name, "b'' stands for what is before all names"
        if self._chunks and name > self._chunks[-1][-1]:
            if len(self._chunks[-1]) < CHUNK_NAMES_MAX:
                self._chunks[-1].append(name)
            else:
                self._chunks.append([name])
                self._firsts.append(name)
            self.size += 1
            return
        which = bisect_right(self._firsts, name) - 1
        if which < 0:
            if not self._firsts:
                self._firsts.append(name)
                self._chunks.append([name])
                self.size = 1
                return
            which = 0
        chunk = self._chunks[which]
        at = bisect_left(chunk, name)
        if at < len(chunk) and chunk[at] == name:
            return
        self.size += 1
        if len(chunk) == CHUNK_NAMES_MAX:
            if at == CHUNK_NAMES_MAX:
                # Behind a whole chunk: in the next, which begins with a greater name, or in a new.
                which += 1
                if which == len(self._chunks) or len(self._chunks[which]) == CHUNK_NAMES_MAX:
                    self._chunks.insert(which, [name])
                    self._firsts.insert(which, name)
                    return
                chunk, at = self._chunks[which], 0
            else:
                chunk, which, at = self._split(which, at)
        chunk.insert(at, name)
        if not at:
            self._firsts[which] = name

    def add_rising(self, names: list[bytes]) -> None:
        """`add` names that are in order, each once. Quick where all are behind what is there."""
        if not names or self._chunks and names[0] <= self._chunks[-1][-1]:
            for name in names:
                self.add(name)
            return
        room = CHUNK_NAMES_MAX - len(self._chunks[-1]) if self._chunks else 0
        if room:
            self._chunks[-1] += names[:room]
        for at in range(room, len(names), CHUNK_NAMES_MAX):
            self._chunks.append(names[at:at + CHUNK_NAMES_MAX])
            self._firsts.append(names[at])
        self.size += len(names)

    def _split(self, which: int, at: int) -> tuple[list[bytes], int, int]:
        """Halve a chunk; (chunk, its number, place in it) for what was to stand at `at`."""
        chunk = self._chunks[which]
        half = CHUNK_NAMES_MAX // 2
        behind = chunk[half:]
        del chunk[half:]
        self._chunks.insert(which + 1, behind)
        self._firsts.insert(which + 1, behind[0])
        return (chunk, which, at) if at <= half else (behind, which + 1, at - half)

    def discard(self, name: bytes) -> None:
        """Let the name not be among them."""
        if self._firsts and name == self._firsts[0]:    # what is due, or next
            which = at = 0
            chunk = self._chunks[0]
        else:
            which = bisect_right(self._firsts, name) - 1
            if which < 0:
                return
            chunk = self._chunks[which]
            at = bisect_left(chunk, name)
            if at == len(chunk) or chunk[at] != name:
                return
        del chunk[at]
        self.size -= 1
        if not chunk:
            del self._chunks[which]
            del self._firsts[which]
            return
        if not at:
            self._firsts[which] = chunk[0]
        size = len(chunk)
        if size <= _JOINED_NAMES_MAX:
            if (which + 1 < len(self._chunks)
                    and size + len(self._chunks[which + 1]) <= _JOINED_NAMES_MAX):
                self._join(which)
            elif which and size + len(self._chunks[which - 1]) <= _JOINED_NAMES_MAX:
                self._join(which - 1)

    def _join(self, which: int) -> None:
        """One chunk out of this and the next."""
        self._chunks[which] += self._chunks.pop(which + 1)
        del self._firsts[which + 1]

    def give_back(self, count: int) -> None:
        """Forget about `count` of them, of a machine that nobody uses any more (dismantle.py)."""
        while self._chunks and count > 0:
            chunk = self._chunks[-1]
            some = min(count, len(chunk))
            if some == len(chunk):
                self._chunks.pop()
                self._firsts.pop()
            else:
                del chunk[-some:]
            self.size -= some
            count -= some

    def after(self, name: bytes) -> Iterator[bytes]:
        """The names strictly behind `name` (b"": all), in order, as they are asked for."""
        which = max(bisect_right(self._firsts, name) - 1, 0)
        yield from self._from(which, bisect_right, name)

    def from_prefix(self, prefix: bytes, after: bytes = b"") -> Iterator[bytes]:
        """The names that begin with `prefix` and are strictly behind `after`, in order, as they are
        asked for."""
        if after >= prefix:
            names = self.after(after)
        else:
            which = max(bisect_left(self._firsts, prefix) - 1, 0)
            names = self._from(which, bisect_left, prefix)
        for name in names:
            if not name.startswith(prefix):
                return
            yield name

    def _from(self, which: int, bisect, name: bytes) -> Iterator[bytes]:
        """All from where `name` has its place in a chunk."""
        if which < len(self._chunks):
            chunk = self._chunks[which]
            for at in range(bisect(chunk, name), len(chunk)):
                yield chunk[at]
            for behind in range(which + 1, len(self._chunks)):
                yield from self._chunks[behind]
