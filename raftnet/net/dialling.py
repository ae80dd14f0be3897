"""Dial: one attempt to reach an address, over all the addresses that its name has just now.

Rules: the name is looked up anew by each attempt (names.py); its addresses are tried in turn, the
one that worked last first, each for a limited time, until the caller is content. "Refused", which
says that a process is dead, counts only where every address refused. When to dial again, and what
is said on the connection, is in peers.py.
"""

import errno
import socket
from collections.abc import Callable

from raftnet.errors import MalformedError
from raftnet.net.loop import WRITE, Loop
from raftnet.net.names import LookUp, Names, Place
from raftnet.net.sockets import bear_unacknowledged, dialling_socket, is_connected_to_itself
from raftnet.wire.address import parse_address

TOO_LATE = "no answer in time"
# This machine has no such network (IPv6 is off): that says nothing about the node.
_NO_SUCH_NETWORK = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Dial:
    """`on_connected(socket)` gets a connected socket; where it turns out to be of no use, the
    caller says `go_on`. `on_failed(reason, refused, slow)` is called once, when no address is
    left; `slow`: some step took longer than `limit_ms`. Neither is called after `close`."""

    __slots__ = ("place", "began_ms", "deadline_ms", "_address", "_loop", "_now_ms", "_limit_ms",
                 "_unacknowledged_ms", "_on_connected", "_on_failed", "_look_up", "_port",
                 "_places", "_sock", "_reasons", "_refused", "_slow", "_good")

    def __init__(self, address: str, loop: Loop, now_ms: Callable[[], int], limit_ms: int,
                 unacknowledged_ms: int,
                 on_connected: Callable[[socket.socket], None],
                 on_failed: Callable[[str, bool, bool], None]):
        self.place: Place | None = None     # being tried, or connected to
        self.began_ms = 0               # when the address that is being tried was dialled
        self.deadline_ms = 0            # of the step under way; the caller's greeting is one
        self._address = address
        self._loop = loop
        self._now_ms = now_ms
        self._limit_ms = limit_ms       # for the name, and for each address with its greeting
        self._unacknowledged_ms = unacknowledged_ms
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._look_up: LookUp | None = None     # under way
        self._port = 0
        self._places: list[Place] = []          # not tried yet
        self._sock: socket.socket | None = None     # while connecting
        self._reasons: list[str] = []           # why the places tried so far were of no use
        self._refused: list[bool] = []          # and whether they refused
        self._slow = False
        self._good: Place | None = None

    def begin(self, names: Names, good: Place | None, places_max: int) -> None:
        """Look the name up, and dial if that needs no waiting; `good`: worked last."""
        self.deadline_ms = self._now_ms() + self._limit_ms
        try:
            host, self._port = parse_address(self._address)
        except MalformedError as error:
            self._on_failed(str(error), False, False)
            return
        self._look_up = names.look_up(host)
        self.tick(good, places_max)

    @property
    def is_answered(self) -> bool:
        """Whether the name was found (or not) since the last `tick`."""
        return self._look_up is not None and self._look_up.done

    def tick(self, good: Place | None, places_max: int) -> None:
        """Go on where the name's addresses are known now, or where time is up."""
        late = self._now_ms() >= self.deadline_ms
        if self._look_up is not None:
            if self._look_up.done:
                self._found(good, places_max)
            elif late:
                host, self._look_up = self._look_up.host, None
                self._on_failed(f"looking up the name {host} takes too long", False, True)
        elif late:
            self.go_on(TOO_LATE, slow=True)

    def _found(self, good: Place | None, places_max: int) -> None:
        look_up, self._look_up = self._look_up, None
        self._good = good
        if look_up.error:
            self._on_failed(f"the name {look_up.host}: {look_up.error}", False, False)
            return
        self._places = sorted(look_up.places, key=lambda place: place != good)[:places_max]
        self._try_next()

    def _try_next(self) -> None:
        self.place = self._places.pop(0)
        family, where = self.place
        self.began_ms = self._now_ms()
        self.deadline_ms = self.began_ms + self._limit_ms
        try:
            self._sock = dialling_socket(family)
            # Or it would end before its time.
            bear_unacknowledged(self._sock, max(self._limit_ms, self._unacknowledged_ms))
            result = self._sock.connect_ex((where[0], self._port, *where[2:]))
        except OSError as error:
            result = error.errno
        if result not in (0, errno.EINPROGRESS):
            self._failed(result)
            return
        self._loop.watch(self._sock, WRITE, lambda events: self._connected())

    def _connected(self) -> None:
        result = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not result and is_connected_to_itself(self._sock):
            result = errno.ECONNREFUSED     # nobody else listens there
        if result:
            self._failed(result)
            return
        sock, self._sock = self._sock, None
        self._loop.forget(sock)
        bear_unacknowledged(sock, self._unacknowledged_ms)
        self._on_connected(sock)

    def _failed(self, error: int) -> None:
        if error == errno.ECONNREFUSED and self.place == self._good:
            # Where the peer was, nobody listens: that is known now, whatever else the name means.
            self.close()
            self._on_failed(errno.errorcode[error], True, False)
            return
        if error not in _NO_SUCH_NETWORK:
            self._refused.append(error == errno.ECONNREFUSED)
        self.go_on(errno.errorcode.get(error, str(error)), slow=error == errno.ETIMEDOUT,
                   judged=True)

    def go_on(self, reason: str, slow: bool = False, judged: bool = False) -> None:
        """The address that was tried is of no use: the next one, or `on_failed`. `judged`: whether
        it refused is known already; else it did not."""
        self.close()
        if not judged:
            self._refused.append(False)
        self._slow = self._slow or slow
        self._reasons.append(f"{self.place[1][0]}: {reason}")
        if self._places:
            self._try_next()
            return
        refused = bool(self._refused) and all(self._refused)
        only_one = len(self._reasons) == 1
        self._on_failed(reason if only_one else "; ".join(self._reasons), refused, self._slow)

    def close(self) -> None:
        """Give up the socket that is being connected."""
        if self._sock is not None:
            self._loop.forget(self._sock)
            self._sock.close()
            self._sock = None
