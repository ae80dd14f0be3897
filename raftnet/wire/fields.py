"""The pieces that commands and their results are put together from: names, texts, counted bytes.

Rules: big-endian; a name has 1 to 255 bytes and a text 0 to 255, both with a byte before them that
says how many; encoders trust their caller, decoders raise MalformedError and believe no length
before it was compared with the bytes that are there. Each `take_` gives what it found, and the
offset behind it.
"""

import struct

from raftnet.errors import MalformedError

TEXT_BYTES_MAX = 255

_COMMAND_HEAD = struct.Struct(">IB")
_U32 = struct.Struct(">I")


def encode_command(operation: int, *parts: bytes) -> bytes:
    """A command with its length before it."""
    length = 1 + sum(map(len, parts))
    return b"".join((_COMMAND_HEAD.pack(length, operation), *parts))


def encode_name(name: bytes) -> bytes:
    """A name: 1 to 255 bytes."""
    assert 1 <= len(name) <= TEXT_BYTES_MAX
    return bytes((len(name),)) + name


def encode_text(text: bytes) -> bytes:
    """A text: 0 to 255 bytes."""
    return bytes((len(text),)) + text


def encode_counted(data: bytes) -> bytes:
    """Bytes with their number (u32) before them."""
    return _U32.pack(len(data)) + data


def take_name(data: bytes, offset: int = 1, empty: bool = False) -> tuple[bytes, int]:
    """The name at `offset`; with `empty`, a text."""
    if len(data) <= offset:
        raise MalformedError("a name is missing")
    end = offset + 1 + data[offset]
    if end > len(data) or (data[offset] == 0 and not empty):
        raise MalformedError("a name is cut short or empty")
    return data[offset + 1:end], end


def take_text(data: bytes, offset: int) -> tuple[bytes, int]:
    """The text at `offset`."""
    return take_name(data, offset, empty=True)


def take_counted(data: bytes, offset: int) -> tuple[bytes, int]:
    """Bytes with their number (u32) before them."""
    if offset + 4 > len(data):
        raise MalformedError("a length is cut short")
    end = offset + 4 + _U32.unpack_from(data, offset)[0]
    if end > len(data):
        raise MalformedError("a piece is longer than what holds it")
    return data[offset + 4:end], end


def take(layout: struct.Struct, data: bytes, offset: int) -> tuple[tuple, int]:
    """The numbers of that layout at `offset`."""
    end = offset + layout.size
    if end > len(data):
        raise MalformedError("numbers are cut short")
    return layout.unpack_from(data, offset), end


def take_rest(layout: struct.Struct, data: bytes, offset: int) -> tuple:
    """The numbers of that layout from `offset` to the end: nothing else is there."""
    if len(data) - offset != layout.size:
        raise MalformedError("the length does not fit the layout")
    return layout.unpack_from(data, offset)


def check_end(data: bytes, offset: int) -> None:
    """Raise MalformedError where something follows."""
    if offset != len(data):
        raise MalformedError("bytes follow the end")
