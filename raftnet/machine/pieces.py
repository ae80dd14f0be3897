"""Pieces: a dict that does not grow all at once.

Rules: the interpreter builds a dict anew when it is full: 30 ms at 700,000 entries, and twice as
long each time that they have doubled. Here the entries lie in PIECES dicts, once they are more than
a few; each is built anew for itself, and at another moment than the rest, as chance has given each
another share of the keys.

There is no order among the entries, and it differs from one process to the next.
"""

from collections.abc import Iterator, MutableMapping, Sequence

PIECES = 64                 # a power of two
ONE_PIECE_MAX = 4_096       # entries; above it there are PIECES, which are kept until none is left


class Pieces(MutableMapping):
    """Entries by key; none is None. Not to be changed during an iteration."""

    __slots__ = ("_pieces", "_mask", "size")

    def __init__(self):
        # Invariant: a key lies in the piece that the end of its hash names. It is not hash(key):
        # that of a number is the number, and numbers in a row would fill all pieces alike.
        self._pieces: list[dict] = [{}]
        self._mask = 0
        self.size = 0       # read elsewhere where len() would cost a call for each message

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator:
        for piece in self._pieces:
            yield from piece

    def __contains__(self, key) -> bool:
        return key in self._pieces[hash((key,)) & self._mask]

    def __getitem__(self, key):
        return self._pieces[hash((key,)) & self._mask][key]

    def get(self, key, default=None):
        """The entry, or the default."""
        return self._pieces[hash((key,)) & self._mask].get(key, default)

    def __setitem__(self, key, entry) -> None:
        piece = self._pieces[hash((key,)) & self._mask]
        before = len(piece)
        piece[key] = entry
        if len(piece) > before:
            self.size += 1
            if self.size > ONE_PIECE_MAX and not self._mask:
                self._split()

    def add_new(self, keys: Sequence, entries: list) -> None:
        """Add entries whose keys are not there."""
        self.size += len(keys)
        if self.size > ONE_PIECE_MAX and not self._mask:
            self._split()
        pieces, mask = self._pieces, self._mask
        for key, entry in zip(keys, entries):
            pieces[hash((key,)) & mask][key] = entry

    def _split(self) -> None:
        (one,) = self._pieces
        self._mask = PIECES - 1
        self._pieces = [{} for _ in range(PIECES)]
        for key, entry in one.items():
            self._pieces[hash((key,)) & self._mask][key] = entry

    def __delitem__(self, key) -> None:
        del self._pieces[hash((key,)) & self._mask][key]
        self.size -= 1
        if not self.size:
            self.clear()        # the tables too

    def clear(self) -> None:
        """Remove all."""
        self._pieces = [{}]
        self._mask = self.size = 0

    def give_back(self, count: int) -> None:
        """Forget about `count` of them, of a machine that nobody uses any more (dismantle.py)."""
        while self.size and count > 0:
            piece = self._pieces[-1]
            some = min(count, len(piece))
            for _ in range(some):
                piece.popitem()
            if not piece:
                self._pieces.pop()
            self.size -= some
            count -= some
