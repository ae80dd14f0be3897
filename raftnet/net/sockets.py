"""What the kernel is told about sockets: listening, dialling, and how long silence is borne.

Rules: an option that a system does not have is left out; nothing depends on it for correctness.
Times in milliseconds. What is dialled and when is in dialling.py and peers.py.
"""

import errno
import fcntl
import socket
import struct
import sys
import termios

from raftnet.errors import RaftnetError
from raftnet.wire.address import parse_address

# A path that swallows everything ends a connection after this: left alone, TCP tries again ever
# more rarely, and would be silent long after the path has healed. Longer where elections are.
_UNACKNOWLEDGED_MS_MIN = 10_000
_UNACKNOWLEDGED_TIMEOUTS = 3
_TCP_THIN_LINEAR_TIMEOUTS = 16  # linux/tcp.h; for streams of few packets only
# A connection of a node whose machine went down without a word ends by itself: until then a second
# process of that node is taken for an impostor.
_KEEPALIVE_MS_MIN = 15_000
_KEEPALIVE_TIMEOUTS = 4
_KEEPALIVE_PROBES = 5           # in two thirds of the time, after one third of silence
# What the kernel holds and has not sent can be overtaken by no heartbeat: it may hold what the path
# carries in this time. Less would leave a fast network idle until the loop comes round again.
_UNSENT_MS = 250
UNSENT_BYTES = (64 * 1024, 4 * 1024 * 1024)     # at least, at most
UNSENT_BYTES_FIRST = 1024 * 1024                # a large append; until the path is known


def listen(address: str, backlog: int) -> socket.socket:
    """A listening socket; looks the name up, waiting. Raises RaftnetError with one clear line."""
    host, port = parse_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise RaftnetError(f"cannot listen at {address}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        what = ("another process listens there; stop it or choose another address"
                if error.errno == errno.EADDRINUSE else error.strerror)
        raise RaftnetError(f"cannot listen at {address}: {what}") from error
    listener.setblocking(False)
    return listener


def dialling_socket(family: int) -> socket.socket:
    """A socket to dial another node with; raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    _hold_unsent(sock, UNSENT_BYTES_FIRST)
    return sock


def send_promptly(sock: socket.socket) -> None:
    """Small frames leave at once, and where they are lost, again and again at the same interval:
    the usual doubling would make a few lost heartbeats a silence of half a minute on a long way."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS, 1)


def follow_rate(sock: socket.socket, sent_bytes: int, elapsed_ms: int) -> None:
    """The path carried so much in that time, and there was always more to send."""
    least, most = UNSENT_BYTES
    _hold_unsent(sock, min(max(least, sent_bytes * _UNSENT_MS // elapsed_ms), most))


def _hold_unsent(sock: socket.socket, bytes_max: int) -> None:
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, bytes_max)


def unacknowledged_ms(election_timeout_ms: int) -> int:
    """How long sent bytes may go without an acknowledgement, where elections take so long."""
    return max(_UNACKNOWLEDGED_MS_MIN, _UNACKNOWLEDGED_TIMEOUTS * election_timeout_ms)


def bear_unacknowledged(sock: socket.socket, duration_ms: int) -> None:
    """End the connection where what was sent is not acknowledged for so long (or, while it is being
    made, where nothing answers)."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, duration_ms)


def bear_silence(sock: socket.socket, election_timeout_ms: int) -> None:
    """End an idle connection whose other end is gone (keep-alive)."""
    total_ms = max(_KEEPALIVE_MS_MIN, _KEEPALIVE_TIMEOUTS * election_timeout_ms)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", total_ms // 3_000),
                        ("TCP_KEEPINTVL", total_ms * 2 // (3_000 * _KEEPALIVE_PROBES)),
                        ("TCP_KEEPCNT", _KEEPALIVE_PROBES)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def bytes_under_way(sock: socket.socket) -> int:
    """How many bytes the kernel has taken and the other end's kernel has not acknowledged; 0 where
    the system does not say."""
    try:
        return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0


def is_connected_to_itself(sock: socket.socket) -> bool:
    """Dialling a free port of the ephemeral range on one's own host can meet itself."""
    try:
        return sock.getsockname() == sock.getpeername()
    except OSError:
        return False
