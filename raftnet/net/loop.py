"""The event loop: which sockets are ready, and a wake-up for other threads and signals.

Rules: nothing here blocks but `wait`, up to the time given; callbacks get the event mask and do not
block either. A wake-up is one byte on a socket pair: any thread may call `wake`. One buffer for all
that is received: the memory of a large `recv` would be mapped and unmapped by each.
"""

import selectors
import signal
import socket
from collections.abc import Callable

from raftnet.config import NetConfig

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Loop:
    """Sockets and their callbacks. `read_buffer` belongs to a callback while it runs."""

    def __init__(self, read_bytes: int = NetConfig().read_bytes):
        self.read_buffer = memoryview(bytearray(read_bytes))
        self._selector = selectors.DefaultSelector()
        self._changed = False       # since the ready ones were found, a socket was forgotten
        self._wake_out, self._wake_in = socket.socketpair()
        for end in (self._wake_out, self._wake_in):
            end.setblocking(False)
        self.before_callbacks: Callable[[], None] = lambda: None   # called once a wait, after it
        self.watch(self._wake_in, READ, self._drain_wakes)

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` when the socket is ready for any of `events`."""
        self._selector.register(sock, events, callback)

    def change(self, sock: socket.socket, events: int) -> None:
        """Watch for other events; 0 keeps the place and hears nothing."""
        if not events:
            self.forget(sock)
            return
        try:
            key = self._selector.get_key(sock)
        except KeyError:
            raise AssertionError("change() of a socket that is not watched") from None
        if key.events != events:
            self._selector.modify(sock, events, key.data)

    def forget(self, sock: socket.socket) -> None:
        """Watch the socket no more; must come before it is closed."""
        self._changed = True
        if sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock)

    def wait(self, timeout_s: float) -> int:
        """Wait for events and call back; how many sockets were ready."""
        ready = self._selector.select(max(0.0, timeout_s))
        self.before_callbacks()
        self._changed = False
        for key, events in ready:
            if not self._changed or self._is_watched(key):
                key.data(events)
        return len(ready)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Whether no earlier callback of this round closed it, or put another in its place."""
        watched = self._selector.get_map()
        return key.fd in watched and watched[key.fd].data is key.data

    def wake(self) -> None:
        """End a wait; may be called from any thread."""
        try:
            self._wake_out.send(b"\0")
        except BlockingIOError:
            return      # it is full of wake-ups already

    def wake_on_signals(self) -> None:
        """A signal with a Python handler ends a wait (main thread only)."""
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)

    def ignore_signals(self) -> None:
        """Undo `wake_on_signals`."""
        signal.set_wakeup_fd(-1)

    def _drain_wakes(self, events: int) -> None:
        self._wake_in.recv_into(self.read_buffer)       # what is left ends the next wait

    def close(self) -> None:
        """Give everything back."""
        self._selector.close()
        self._wake_out.close()
        self._wake_in.close()
