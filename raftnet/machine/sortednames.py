"""Names in byte order, among which one more or less costs the same however many there are.

Rules: the names lie in chunks of at most CHUNK_NAMES_MAX, each sorted, in order of their first
names; a look-up is two binary searches, a change moves the rest of one chunk. A name costs one
reference here: the bytes belong to whoever has them. Small neighbours are joined, so that names
that went leave no chunks behind. Names that come in order fill their chunks whole.

Nothing here knows what the names stand for (kv.py: keys, queues.py: queues), nor that they are
bytes: deadlines lie here too (deadlines.py), and the deliveries of a queue (queue.py).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

CHUNK_NAMES_MAX = 512                           # about sqrt of as many as a machine may hold
_JOINED_NAMES_MAX = CHUNK_NAMES_MAX // 2        # two neighbours with no more become one


class SortedNames:
    """A set of names that are not empty, always in order. Not to be changed during an iteration."""

    __slots__ = ("_chunks", "_firsts")

    def __init__(self):
        # Invariant: no chunk is empty, and _firsts[n] == _chunks[n][0].
        self._chunks: list[list[bytes]] = []
        self._firsts: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def add(self, name: bytes) -> None:
        """Let the name be among them."""
        assert name, "b'' stands for what is before all names"
        if self._chunks and name > self._chunks[-1][-1]:
            if len(self._chunks[-1]) < CHUNK_NAMES_MAX:
                self._chunks[-1].append(name)
            else:
                self._chunks.append([name])
                self._firsts.append(name)
            return
        which = bisect_right(self._firsts, name) - 1
        if which < 0:
            if not self._firsts:
                self._firsts.append(name)
                self._chunks.append([name])
                return
            which = 0
        chunk = self._chunks[which]
        at = bisect_left(chunk, name)
        if at < len(chunk) and chunk[at] == name:
            return
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
        which = bisect_right(self._firsts, name) - 1
        if which < 0:
            return
        chunk = self._chunks[which]
        at = bisect_left(chunk, name)
        if at == len(chunk) or chunk[at] != name:
            return
        del chunk[at]
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
            count -= len(chunk)
            if count >= 0:
                self._chunks.pop()
                self._firsts.pop()
            else:
                del chunk[-count:]

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
