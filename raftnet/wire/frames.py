"""The frame: 16 bytes of header and a body (protocol.md, Frame).

Rules: a frame stands alone and is bounded; its length is checked before anything is kept or
allocated for it. The reader takes bytes in any slicing and gives every complete frame at once. What
the bodies mean is in requests.py and net/messages.py.
"""

import struct
from enum import IntEnum
from zlib import crc32

from raftnet.errors import ErrorCode, FrameError

VERSION = 1
HEADER = struct.Struct(">IIBBHI")   # length, checksum, version, kind, zero, request id
HEADER_BYTES = HEADER.size          # 16: one line of a hex dump
LENGTH_COUNTS_FROM = 4              # the length counts the bytes after itself
CHECKED_FROM = 8                    # the checksum covers the bytes from here on
FRAME_BYTES_MAX = 8 * 1024 * 1024   # header included
_PACK_CHECKED = struct.Struct(">BBHI").pack
_PACK_LEAD = struct.Struct(">II").pack
_UNPACK = HEADER.unpack_from


class Kind(IntEnum):
    """Every kind of frame. Part of the protocol: never renumber."""

    HELLO = 1
    HELLO_REPLY = 2
    ERROR = 3
    REQUEST = 16
    REPLY = 17
    READ = 18
    READ_REPLY = 19
    LOG = 20
    LOG_REPLY = 21
    STATUS = 22
    STATUS_REPLY = 23
    TAKE_SNAPSHOT = 24
    SNAPSHOT_TAKEN = 25
    READ_SNAPSHOT = 26
    SNAPSHOT_PART = 27
    WATCH = 28
    WATCH_EVENT = 29
    UNWATCH = 30
    JOIN = 48
    JOIN_REPLY = 49
    INVITE = 50
    INVITE_REPLY = 51
    CHANGE = 52
    CHANGE_REPLY = 53
    PRE_VOTE = 64
    PRE_VOTE_REPLY = 65
    VOTE = 66
    VOTE_REPLY = 67
    APPEND = 68
    APPEND_REPLY = 69
    HEARTBEAT = 70
    HEARTBEAT_REPLY = 71
    TIMEOUT_NOW = 72
    SNAPSHOT = 73
    SNAPSHOT_REPLY = 74


PEER_KINDS_FROM = 64                # from here on: messages between nodes, after a HELLO only


def encode_frame(kind: int, request_id: int, body: bytes) -> bytes:
    """One frame. `request_id` (0 to 2**32 - 1) comes back in the reply."""
    assert HEADER_BYTES + len(body) <= FRAME_BYTES_MAX, "callers bound their bodies"
    checked = _PACK_CHECKED(VERSION, kind, 0, request_id)
    lead = _PACK_LEAD(12 + len(body), crc32(body, crc32(checked)))
    return b"".join((lead, checked, body))


class FrameReader:
    """Bytes in, all complete frames out, as tuples (kind, request_id, body).

    After a damaged frame `error` is set, and no more is read: where the next frame begins cannot be
    known. `offset` is then the position, in all bytes fed so far, of the frame that failed.
    """

    __slots__ = ("_pieces", "_held", "_need", "error", "offset", "_bytes_max")

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX):
        self._pieces: list[bytes] = []      # fed and not yet framed
        self._held = 0                      # their length
        self._need = HEADER_BYTES           # nothing can be done with fewer
        self._bytes_max = bytes_max
        self.error: FrameError | None = None
        self.offset = 0

    @property
    def held(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return self._held

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take bytes, give the frames that are complete with them."""
        frames: list[tuple[int, int, bytes]] = []
        if self.error is not None:
            return frames
        if self._held:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._need:
                return frames
            data = b"".join(self._pieces)
        start, end = 0, len(data)
        need = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            length, checksum, version, kind, _, request_id = _UNPACK(data, start)
            need = length + LENGTH_COUNTS_FROM
            if need < HEADER_BYTES or need > self._bytes_max:
                self.error = FrameError(
                    f"a frame of {need} bytes: {HEADER_BYTES} to {self._bytes_max} are allowed")
                break
            if end - start < need:
                break
            stop = start + need
            behind = start + HEADER_BYTES
            body = data[behind:stop]
            if crc32(body, crc32(data[start + CHECKED_FROM:behind])) != checksum:
                self.error = FrameError("the frame's checksum does not match its bytes")
                break
            if version != VERSION:
                self.error = FrameError(f"protocol version {version}: this side speaks {VERSION}",
                                        ErrorCode.WRONG_VERSION)
                break
            frames.append((kind, request_id, body))
            start = stop
            need = HEADER_BYTES
        self.offset += start
        if start < end or self._held:
            rest = data[start:] if self.error is None else b""
            self._pieces = [rest] if rest else []
            self._held = len(rest)
            self._need = need
        return frames
