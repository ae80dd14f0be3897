"""What the items of a snapshot's sections are put together from: names, numbers, and columns of
numbers with values (protocol.md, State in a snapshot).

Rules: what is taken from bytes is compared with the bytes that are there; else it is a
MalformedError. Each `take_` gives what it found, and the offset behind it.

Elsewhere: the sections (sections.py, queuesections.py, keysections.py).
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import lt

from raftnet.config import KIB
from raftnet.errors import MalformedError

PIECE_BYTES = 64 * KIB          # about; one large message or reply may make a piece larger
PIECE_HEAD_BYTES = 5            # section and number of items (state.py)

_U32 = struct.Struct(">I")
_COLUMN_ROW_BYTES = 12                      # number and length of each value


def columns(head: bytes, numbers: Iterable[int], values: Iterable[bytes]) -> Iterator[bytes]:
    """Items that begin with `head` and hold all of the numbers and values, as many as fit into a
    piece each; at least one item. Two of them never fit into one piece."""
    room = PIECE_BYTES - PIECE_HEAD_BYTES - len(head) - _U32.size
    numbers = iter(numbers)
    run: list[bytes] = []
    size = 0
    for value in values:
        size += _COLUMN_ROW_BYTES + len(value)
        if size > room and run:
            yield column(head, list(islice(numbers, len(run))), run)
            run, size = [], _COLUMN_ROW_BYTES + len(value)
        run.append(value)
    yield column(head, list(numbers), run)


def column(head: bytes, numbers: list[int], values: list[bytes]) -> bytes:
    """One item of these numbers and values."""
    count = len(values)
    table = struct.pack(f">I{count}Q{count}I", count, *numbers, *map(len, values))
    return b"".join((head, table, *values))


def take_column(piece: bytes, offset: int) -> tuple[tuple[int, ...], list[bytes], int]:
    """(numbers, values, offset behind them)."""
    start = offset + _U32.size
    count = _U32.unpack_from(piece, offset)[0] if start <= len(piece) else 0
    table = start
    start += _COLUMN_ROW_BYTES * count
    if start > len(piece):
        raise MalformedError("state: an item is cut short")
    fields = struct.unpack_from(f">{count}Q{count}I", piece, table)
    values = []
    append = values.append
    for length in fields[count:]:
        stop = start + length
        append(piece[start:stop])
        start = stop
    if start > len(piece):      # then at least one of the slices was too short
        raise MalformedError("state: a message or a reply is cut short")
    return fields[:count], values, start


def take(layout: struct.Struct, piece: bytes, offset: int) -> tuple:
    """The numbers of that layout, without an offset."""
    if offset + layout.size > len(piece):
        raise MalformedError("state: an item is cut short")
    return layout.unpack_from(piece, offset)


def take_text(piece: bytes, offset: int) -> tuple[bytes, int]:
    """0 to 255 bytes with their number before them."""
    end = offset + 1 + (piece[offset] if offset < len(piece) else 0)
    if end > len(piece):
        raise MalformedError("state: a text is cut short")
    return piece[offset + 1:end], end


def take_counted(piece: bytes, offset: int) -> tuple[bytes, int]:
    """Bytes with their number (u32) before them."""
    (length,) = take(_U32, piece, offset)
    start = offset + _U32.size
    end = start + length
    if end > len(piece):
        raise MalformedError("state: a message or a value is cut short")
    return piece[start:end], end


def name_item(name: bytes) -> bytes:
    """1 to 255 bytes, or none for a text, with their number before them."""
    return bytes((len(name),)) + name


def take_name(piece: bytes, offset: int) -> tuple[bytes, int]:
    """The name of a queue, or a key."""
    end = offset + 1 + (piece[offset] if offset < len(piece) else 0)
    if not offset + 1 < end <= len(piece):
        raise MalformedError("state: a name is cut short or empty")
    return piece[offset + 1:end], end


def ascending(numbers: tuple[int, ...]) -> bool:
    """Each is above the one before it."""
    return all(map(lt, numbers, numbers[1:]))
