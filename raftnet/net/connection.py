"""Connection: one non-blocking socket with a frame reader and a bounded output.

Rules: one recv a turn and connection, so that none starves the others; output is gathered during a
turn and leaves with one system call; a client that does not read its replies is read from no more,
and one over the bound is dropped. Output keeps its order, but for urgent frames, which wait behind
no large ones that have not begun to leave. A damaged frame costs the connection and nothing else. A
client that has closed its sending side (`nc -N`) still gets the answers that it is owed.
"""

import socket
from collections.abc import Callable

from raftnet.config import NetConfig
from raftnet.net.loop import READ, WRITE, Loop
from raftnet.net.sockets import send_promptly
from raftnet.wire.frames import FrameReader, encode_frame

# It is no use to join more than a socket takes at once.
_JOIN_BYTES_MAX = 256 * 1024


class Connection:
    """A connected socket.

    `on_frames(connection, frames)` gets complete frames; where the other end is identified, also an
    empty list: bytes came, of a frame that is not complete. `on_closed(connection, reason)` is
    called once, also where this side closes. With `on_half_closed(connection)` every frame that
    comes is owed one answer: it is called where the other side ends and is still owed some; the
    connection then closes by itself once they are sent, and the callee bounds the time until then.
    """

    __slots__ = ("sock", "name", "reader", "greeting", "identity", "closed", "sent_bytes",
                 "heard_ms", "_loop", "_config", "_on_frames", "_on_closed", "_out", "_out_bytes",
                 "_urgent_end", "_events", "_closing", "_dirty", "_on_half_closed",
                 "_half_closed", "_owed", "_read_buffer")

    def __init__(self, sock: socket.socket, name: str, loop: Loop, config: NetConfig,
                 dirty: set["Connection"],
                 on_frames: Callable[["Connection", list], None],
                 on_closed: Callable[["Connection", str], None],
                 on_half_closed: Callable[["Connection"], None] | None = None):
        self.sock = sock
        self.name = name                # the other end, for people
        self.reader = FrameReader()
        self.greeting = None            # the other end's Hello
        self.identity = 0               # its node id, once Raft messages are welcome
        self.closed = False
        self.sent_bytes = 0             # in all; what the kernel has taken
        self.heard_ms = 0               # when a complete frame came; kept by the server
        self._loop = loop
        self._config = config
        self._read_buffer = loop.read_buffer
        self._dirty = dirty             # connections with output, flushed at the turn's end
        self._on_frames = on_frames
        self._on_closed = on_closed
        self._on_half_closed = on_half_closed
        self._half_closed = False       # the other side sends no more, and is owed answers
        self._owed = 0                  # frames received less frames sent
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._urgent_end = 0            # where in _out the next urgent frame goes
        self._closing = ""              # close with this reason when the output is written
        self._events = READ
        sock.setblocking(False)
        send_promptly(sock)
        loop.watch(sock, READ, self._on_events)

    @property
    def out_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return self._out_bytes

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read for now, because too much waits to be sent."""
        return self._out_bytes > self._config.output_pause_bytes

    def send(self, kind: int, request_id: int, body: bytes) -> None:
        """Put a frame into the output; it leaves at the end of the turn."""
        if not self.closed:
            self._owed -= 1
            self.send_bytes(encode_frame(kind, request_id, body))

    def send_bytes(self, frame: bytes) -> None:
        """Put an encoded frame into the output."""
        if self.closed or self._closing:
            return
        self._out.append(frame)
        self._out_bytes += len(frame)
        self._dirty.add(self)
        if self._out_bytes > self._config.output_bytes_max:
            self.close(f"does not read: {self._out_bytes} bytes wait for it")

    # --- order: for connections whose frames may overtake each other

    def send_urgent(self, frame: bytes) -> None:
        """Put an encoded frame before those of `send_bytes` of which no byte has left; urgent ones
        keep their order among themselves."""
        if self.closed or self._closing:
            return
        self._out.insert(self._urgent_end, frame)
        self._urgent_end += 1
        self._out_bytes += len(frame)
        self._dirty.add(self)
        if self._out_bytes > self._config.output_bytes_max:
            self.close(f"does not read: {self._out_bytes} bytes wait for it")

    def fence(self) -> None:
        """What was sent so far is overtaken by nothing that comes now."""
        self._urgent_end = len(self._out)

    @property
    def leaving(self) -> bytes:
        """The whole of the frame of which a part has left; empty where there is none."""
        front = self._out[0] if self._out else b""
        return front.obj if type(front) is memoryview else b""

    def forget_waiting(self) -> None:
        """Take back the frames of `send_bytes` since the last `fence`, as far as none of their
        bytes has left."""
        self._out_bytes -= sum(map(len, self._out[self._urgent_end:]))
        del self._out[self._urgent_end:]

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        if self.closed:
            return
        if self._out:
            try:
                self._send_waiting()
            except OSError as error:
                self.close(_reason(error))
                return
        if self._out or self._events != READ or self._closing or self._half_closed:
            self._go_on()

    def _go_on(self) -> None:
        """Not all is as usual: end, or watch for what is wanted now."""
        if not self._out and (self._closing or self._half_closed and self._owed <= 0):
            self.close(self._closing or "closed by the other side")
            return
        self._set_events()

    def _send_waiting(self) -> None:
        """One send for a usual turn's output. What a slow reader leaves is not copied again and
        again: no more is joined at once than a socket usually takes."""
        out = self._out
        while out:
            count, size = 1, len(out[0])
            while count < len(out) and size < _JOIN_BYTES_MAX:
                size += len(out[count])
                count += 1
            data = b"".join(out[:count]) if count > 1 else out[0]
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                return
            self._out_bytes -= sent
            self.sent_bytes += sent
            if sent < size:
                self._keep_unsent(sent)
                return
            del out[:count]
            if self._urgent_end:
                self._urgent_end = max(0, self._urgent_end - count)

    def _keep_unsent(self, sent: int) -> None:
        """So many bytes have left: frames that have not begun stay whole, so that an urgent one can
        still go before them."""
        out = self._out
        count = 0
        while sent >= len(out[count]):
            sent -= len(out[count])
            count += 1
        del out[:count]
        if sent:
            out[0] = memoryview(out[0])[sent:]
        self._urgent_end = max(self._urgent_end - count, int(type(out[0]) is memoryview))

    def close_after_flush(self, reason: str) -> None:
        """Close once the output is written; what comes in is not read any more."""
        self._closing = reason
        self._dirty.add(self)

    def close(self, reason: str) -> None:
        """Close now."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self.sock)
        self.sock.close()
        self._out = []
        self._on_closed(self, reason)

    def _set_events(self) -> None:
        events = WRITE if self._out else 0
        if not (self._closing or self._half_closed or self.is_paused):
            events |= READ
        if events != self._events:
            if not self._events:
                self._loop.watch(self.sock, events, self._on_events)
            else:
                self._loop.change(self.sock, events)
            self._events = events

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            self.flush()
        if events & READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            size = self.sock.recv_into(self._read_buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(_reason(error))
            return
        if not size:
            self._ended()
            return
        frames = self.reader.feed(bytes(self._read_buffer[:size]))
        self._owed += len(frames)
        if frames or self.identity or self.reader.error is not None:
            self._on_frames(self, frames)

    def _ended(self) -> None:
        if self._on_half_closed is None or self.identity or not (self._owed > 0 or self._out):
            self.close("closed by the other side")
            return
        self._half_closed = True
        self._set_events()      # or the end of its input would be reported again and again
        self._on_half_closed(self)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
