"""The machine's state in pieces: what a snapshot holds (protocol.md, State in a snapshot).

Rules: complete, so that a loaded machine answers and digests every later entry exactly as the
original; and canonical, so that equal machines give equal pieces, whether they came by applying or
by loading. The loader trusts nobody. The first piece is the head: versions, index, digest, time and
counters; then come the sections in ascending order, and last the end, which counts their items. A
piece holds items of one section.

Elsewhere: what is in the sections (sections.py), the file around the pieces (storage/snapshot.py),
the state as text (describe.py).
"""

import struct
from collections.abc import Iterable, Iterator

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine.machine import Machine
from raftnet.machine.sectionitems import PIECE_BYTES, PIECE_HEAD_BYTES
from raftnet.machine.sections import Loader, SectionNumber, sections_of
from raftnet.wire.commands import STATE_VERSION

LAYOUT_VERSION = 1              # of head, pieces and items; raised when one of them changes
PIECE_ITEMS_MAX = 250           # so that a piece of many small items is loaded as quickly
_HEAD_SECTION, _END_SECTION = int(SectionNumber.HEAD), int(SectionNumber.END)

_PIECE = struct.Struct(">BI")               # section, items
_HEAD = struct.Struct(">HQIQHQQ")           # see _head
_TOTAL = struct.Struct(">BQ")               # section, items in all of its pieces
_U16 = struct.Struct(">H")
assert _PIECE.size == PIECE_HEAD_BYTES


def encode_state(machine: Machine) -> Iterator[bytes]:
    """All of the state, piece by piece; the machine must not change meanwhile."""
    assert not machine.executor.ended, "an entry is applied in whole"
    yield _PIECE.pack(_HEAD_SECTION, 1) + _head(machine)
    totals = {}
    for section in sections_of(machine):
        totals[section.number] = 0
        for items in _packed(section.items(machine)):
            totals[section.number] += len(items)
            yield b"".join((_PIECE.pack(section.number, len(items)), *items))
    yield _end(totals)


class StateLoader:
    """Builds a machine from the pieces of encode_state; of no use any more once it has raised."""

    def __init__(self, machine_config: MachineConfig, wire_config: WireConfig):
        self._machine = Machine(machine_config, wire_config)
        self._number = 0            # section of the last piece; 0: none yet
        self._loaders: dict[int, Loader] = {}
        self._totals: dict[int, int] = {}       # items so far, by section

    def feed(self, piece: bytes) -> None:
        """The next piece, whole. A millisecond or so, beside the copy of a large message.

        Raises MalformedError, also for a layout or a state of a version that is not known here.
        """
        if len(piece) < _PIECE.size:
            raise MalformedError("state: a piece without a head")
        number, count = _PIECE.unpack_from(piece)
        if not self._number:
            self._begin(number, count, piece)
        elif number <= _HEAD_SECTION or self._number == _END_SECTION:
            raise MalformedError("state: a piece in front of the beginning or behind the end")
        elif number == _END_SECTION:
            for loader in self._loaders.values():
                loader.end()
            if piece != _end(self._totals):
                raise MalformedError("state: the end tells of other pieces than there were")
        else:
            self._load(number, count, piece)
        self._number = number

    def finish(self) -> Machine:
        """The machine; raises MalformedError where pieces are missing."""
        if self._number != _END_SECTION:
            raise MalformedError("state: its end is missing")
        return self._machine

    def _begin(self, number: int, count: int, piece: bytes) -> None:
        if number != _HEAD_SECTION or count != 1 or len(piece) < _PIECE.size + _U16.size:
            raise MalformedError("state: it does not begin with its head")
        (version,) = _U16.unpack_from(piece, _PIECE.size)
        if version != LAYOUT_VERSION:
            raise MalformedError(
                f"state: written in layout {version}, and this program reads layout "
                f"{LAYOUT_VERSION}: start {'a newer' if version > LAYOUT_VERSION else 'an older'} "
                "raftnet here")
        if len(piece) != _PIECE.size + _HEAD.size:
            raise MalformedError("state: the head has another size")
        machine = self._machine
        (_, machine.applied_index, machine.digest, machine.time_ms, machine.state_version,
         machine.executor.next_message_id, machine.executor.waits.next_number
         ) = _HEAD.unpack_from(piece, _PIECE.size)
        if not 1 <= machine.state_version <= STATE_VERSION:
            raise MalformedError(
                f"state: of version {machine.state_version}, and this program knows "
                f"{STATE_VERSION} at most: start a newer raftnet here")
        for section in sections_of(machine):
            self._loaders[section.number] = section.loader(machine)
            self._totals[section.number] = 0

    def _load(self, number: int, count: int, piece: bytes) -> None:
        if number < self._number or number not in self._loaders:
            raise MalformedError(f"state: section {number} behind section {self._number}")
        if not 1 <= count <= PIECE_ITEMS_MAX:
            raise MalformedError(f"state: {count} items in a piece")
        item, offset = self._loaders[number].item, _PIECE.size
        for place in range(count):
            offset = item(piece, offset, place == 0)
        if offset != len(piece):
            raise MalformedError(f"state: {len(piece) - offset} bytes behind the items of a piece")
        self._totals[number] += count


# --- pieces


def _head(machine: Machine) -> bytes:
    return _HEAD.pack(
        LAYOUT_VERSION, machine.applied_index, machine.digest, machine.time_ms,
        machine.state_version, machine.executor.next_message_id,
        machine.executor.waits.next_number)


def _end(totals: dict[int, int]) -> bytes:
    return _PIECE.pack(_END_SECTION, len(totals)) + b"".join(
        _TOTAL.pack(number, items) for number, items in totals.items())


def _packed(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The items of each piece."""
    piece: list[bytes] = []
    size = _PIECE.size
    for item in items:
        if piece and (size + len(item) > PIECE_BYTES or len(piece) == PIECE_ITEMS_MAX):
            yield piece
            piece, size = [], _PIECE.size
        piece.append(item)
        size += len(item)
    if piece:
        yield piece
