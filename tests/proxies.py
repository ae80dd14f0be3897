"""A proxy before a node, for tests: slow, or damaging a frame between nodes."""

import contextlib
import select
import socket
import threading
import time

from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind
from tools.processes import LocalCluster, free_ports

_CHUNK_BYTES = 16_384
_POLL_S = 0.05
_HEADER_BYTES = 16
_KIND_AT = 9


class Proxy:
    """Listens at `address`, and passes on to `target` what comes. A context manager.

    `rate` bounds what goes to the target, in bytes a second and connection (0: no bound). `damage`
    is a bit within the next frame of kind `damage_kind`, counted from the frame's first; -1: none.
    """

    def __init__(self, address: str, target: str):
        self.address = address
        self.target = target
        self.rate = 0
        self.damage = -1
        self.damage_kind = Kind.HEARTBEAT
        self.damaged = threading.Event()
        self.opened = 0                     # connections, so far
        self._listener = socket.create_server(parse_address(address))
        # Little is held here: who sends must feel how slow it is.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK_BYTES)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._listener], [], [], _POLL_S)[0]:
                continue
            sock, _ = self._listener.accept()
            try:
                other = socket.create_connection(parse_address(self.target), 5)
            except OSError:
                sock.close()        # the node does not run: its end looks the same
                continue
            self.opened += 1
            self._threads.append(threading.Thread(target=self._pass_on, args=(sock, other),
                                                  daemon=True))
            self._threads[-1].start()

    def _pass_on(self, sock: socket.socket, other: socket.socket) -> None:
        """Both ways until one ends."""
        with sock, other, contextlib.suppress(OSError):
            for each in (sock, other):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready_at = 0.0
            while not self._stop.is_set():
                wanted = [other] if time.monotonic() < ready_at else [sock, other]
                pause = max(0.0, min(_POLL_S, ready_at - time.monotonic())) or _POLL_S
                for source in select.select(wanted, [], [], pause)[0]:
                    data = source.recv(_CHUNK_BYTES)
                    if not data:
                        return
                    if source is other:
                        sock.sendall(data)
                        continue
                    other.sendall(self._damage(data))
                    if self.rate:
                        ready_at = time.monotonic() + len(data) / self.rate

    def _damage(self, data: bytes) -> bytes:
        """A frame is recognised at the start of what was received at once."""
        if self.damage < 0 or len(data) < _HEADER_BYTES or data[_KIND_AT] != self.damage_kind:
            return data
        changed = bytearray(data)
        changed[self.damage // 8] ^= 128 >> self.damage % 8
        self.damage = -1
        self.damaged.set()
        return bytes(changed)


class ProxiedCluster(LocalCluster):
    """Three founders, each known and dialled only through its proxy."""

    def __init__(self):
        super().__init__(founders=False, arguments=["--log-all"])
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.proxies: list[Proxy] = []
        for address, port in zip(self.addresses, free_ports(3)):
            bound = f"127.0.0.1:{port}"
            self.proxies.append(Proxy(address, bound))
            self.add(address, [address, "--bind", bound, "--cluster", ",".join(self.addresses)])

    def proxy(self, node) -> Proxy:
        """The one before that node."""
        return self.proxies[self.nodes.index(node)]

    def close(self) -> None:
        super().close()
        for proxy in self.proxies:
            proxy.__exit__()
