"""What a layout of protocol.md is to the tests, and how one is made of a decoder and an encoder."""

from collections.abc import Callable
from dataclasses import dataclass

from raftnet.net.messages import decode_message, encode_message
from raftnet.wire.frames import Kind


@dataclass
class Layout:
    """`decode(bytes)` gives values by field name, `again(bytes)` decodes and encodes; `unseen`
    fields say what the decoder checks and does not give; `seal` fills in checksums."""

    decode: Callable[[bytes], dict]
    again: Callable[[bytes], bytes]
    given: dict
    unseen: tuple[str, ...] = ()
    seal: Callable[[bytes], bytes] | None = None


def of_object(decode, encode_again, unseen=(), **given) -> Layout:
    """Of a decoder that gives an object with the fields as attributes."""
    return Layout(lambda data: {name: getattr(decode(data), name) for name in
                                type(decode(data)).__dataclass_fields__},
                  lambda data: encode_again(decode(data)), given, unseen)


def of_tuple(decode, encode_again, names: str, unseen=(), seal=None, **given) -> Layout:
    """Of a decoder that gives the named values."""
    return Layout(lambda data: dict(zip(names.split(), decode(data), strict=True)),
                  lambda data: encode_again(*decode(data)), given, unseen, seal)


def of_message(kind: Kind, **given) -> Layout:
    """Of a message between nodes."""
    return of_object(lambda body: decode_message(kind, body), lambda m: encode_message(m)[1],
                     ("count",), **given)


def of_command(decode, encode_again, names: str, unseen=(), **given) -> Layout:
    """Of a command's arguments, which begin behind length and operation."""
    def with_operation(data):
        value = decode(b"\0" + data)
        return value if isinstance(value, tuple) else (value,)
    return of_tuple(with_operation, lambda *values: encode_again(*values)[5:], names, unseen,
                    **given)


def prefixed(pieces: list[bytes]) -> bytes:
    """Each with its length before it."""
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)
