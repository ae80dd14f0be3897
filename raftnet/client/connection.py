"""One blocking connection to one node: dial, greet, send, receive, each with a deadline.

Rules: deadlines are absolute times of `clock`, in seconds. A lost or silent connection is an
OSError, damaged bytes a FrameError; after either the connection is of no use. Which node to ask,
and what to do then, is link.py's affair.
"""

import os
import select
import socket
import sys
import time

from raftnet.errors import ErrorCode, FrameError, MalformedError, RefusedError
from raftnet.wire import frames, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import FrameReader, Kind

READ_BYTES = 256 * 1024
NO_CLUSTER = bytes(16)
_TCP_THIN_LINEAR_TIMEOUTS = 16      # linux/tcp.h: what is lost again is not sent ever later
_GREETING_FACTOR = 4        # times what connecting took: a packet may be lost, and sent again
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def clock() -> float:
    """Seconds of a clock that never goes back and counts suspension where the system has one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Connection:
    """A greeted connection. `cluster_id` is the node's, 16 bytes, zeros while it has none.

    Dialling raises OSError or FrameError where there is no node to talk to in time, MalformedError
    for an address that is none, RefusedError where the node speaks another protocol version. With
    `dial_s`, connecting takes no longer than that, and the greeting neither, or as long as some
    times what connecting took: a path of seconds, once it has shown itself, is waited for.
    `round_trip_s`: what the greeting took.
    """

    def __init__(self, address: str, deadline: float, dial_s: float | None = None):
        self.address = address
        self.round_trip_s = 0.0
        self.cluster_id = NO_CLUSTER
        self._reader = FrameReader()
        # Kept: the memory of a recv of that size would be mapped and unmapped by each.
        self._read_buffer = memoryview(bytearray(READ_BYTES))
        self._early: list[tuple[int, int, bytes]] = []  # frames that came with the greeting
        began = clock()
        limit = _remaining(deadline)
        try:
            self._socket = _connect(address, limit if dial_s is None else min(limit, dial_s))
        except UnicodeError as error:   # what the encoding of host names says of a..b
            raise MalformedError(f"{address} is no address: {error}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS, 1)
            connected = clock()
            if dial_s is not None:
                greet_s = max(dial_s, _GREETING_FACTOR * (connected - began))
                deadline = min(deadline, connected + greet_s)
            self._greet(deadline)
            self.round_trip_s = clock() - connected
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, deadline: float) -> None:
        hello = requests.encode_hello(requests.Hello(requests.ROLE_CLIENT))
        self.send(frames.encode_frame(Kind.HELLO, 0, hello), deadline)
        received: list[tuple[int, int, bytes]] = []
        while not received:
            received = self.receive(deadline)
        kind, _, body = received[0]
        if kind == Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            raise RefusedError(code, f"{self.address} refuses the greeting: {text}", leader or None)
        if kind != Kind.HELLO_REPLY:
            raise FrameError(f"{self.address} answers the greeting with a frame of kind {kind}")
        try:
            node = requests.decode_hello(body)
        except MalformedError as error:
            raise FrameError(f"{self.address}: {error}") from error
        if not node.version_min <= frames.VERSION <= node.version_max:
            raise RefusedError(
                ErrorCode.WRONG_VERSION,
                f"{self.address} speaks protocol versions {node.version_min} to "
                f"{node.version_max}, this client {frames.VERSION}")
        self.cluster_id = node.cluster_id
        self._early = received[1:]

    def send(self, data: bytes, deadline: float, stall_s: float | None = None) -> None:
        """Send all of it; raises OSError (TimeoutError after the deadline, or when `stall_s`
        seconds have passed without a single byte taken by the other side's system or ours)."""
        left = memoryview(data)
        while left:
            limit = _remaining(deadline)
            self._socket.settimeout(limit if stall_s is None else min(limit, stall_s))
            left = left[self._socket.send(left):]

    def receive(self, deadline: float) -> list[tuple[int, int, bytes]]:
        """Frames (kind, request id, body) as they come, [] where only part of one came.

        Raises OSError where the node is gone or silent until the deadline, FrameError for damage.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        if self._reader.error is not None:
            raise self._reader.error
        self._socket.settimeout(_remaining(deadline))
        size = self._socket.recv_into(self._read_buffer)
        if not size:
            raise ConnectionResetError(f"{self.address} closed the connection")
        received = self._reader.feed(bytes(self._read_buffer[:size]))
        if self._reader.error is not None and not received:
            raise self._reader.error
        return received

    @property
    def readable(self) -> bool:
        """Whether receive() would return at once."""
        poll = select.poll()        # not select(): descriptors may be above 1023
        poll.register(self._socket, select.POLLIN)
        return bool(self._early or self._reader.error or poll.poll(0))

    @property
    def held(self) -> int:
        """Bytes of a frame that has come in part: they grow on a slow path too."""
        return self._reader.held

    def fileno(self) -> int:
        """The socket's descriptor, for select."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection; what is on its way is lost."""
        self._socket.close()


def _connect(address: str, limit_s: float) -> socket.socket:
    """A connected socket: the addresses of a name in turn, within that time for all of them. The
    system's look-up of a name has its own time limit."""
    host, port = parse_address(address)
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    deadline = clock() + limit_s
    while True:
        family, kind, protocol, _, where = places.pop(0)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining(deadline) / (len(places) + 1))
            sock.connect(where)
            return sock
        except OSError:
            sock.close()
            if not places:
                raise


def _remaining(deadline: float) -> float:
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def describe_os_error(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower() if error.errno > 0 else str(error)
    return str(error) or type(error).__name__
