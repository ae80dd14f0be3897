"""The router of an emulated network: a process between the TUN devices of its hosts.

Rules: it holds nothing but the devices' descriptors and a control socket, and ends when that socket
closes, so that nothing is left of a program that was killed. A link without a profile is forwarded
at once; all else goes through one heap ordered by time to send, first in first out for equal times,
as netem's queue does: jitter and a change of the delay reorder packets. What is done to a packet,
in which order, is that of Linux' sch_netem.c. emulatednetwork.py starts it and knows the hosts.

The control socket takes lines of JSON, the first with the hosts, and answers each with one.
"""

import ctypes
import errno
import gc
import heapq
import json
import os
import random
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tools.linkprofile import LinkProfile

COUNTS = ("packets", "bytes", "delivered", "lost", "duplicated", "reordered", "corrupted", "cut",
          "dropped", "waiting")
_BATCH_PACKETS = 64         # read from one host before the others have their turn
_CONTROL_BYTES = 65_536
_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NS = 1_000
# What a device says to a packet whose version bits are damaged, and when somebody took it down.
_REFUSED = (errno.EINVAL, errno.EIO)
_NO_BYTES = b""

_LOSS, _DUPLICATE, _CORRUPT, _REORDER, _DELAY = range(5)


class Link:
    """One direction between two hosts: its profile, and what happened on it (COUNTS)."""

    __slots__ = ("name", "descriptor", "profile", "closed", "plain", "_seed", "_random", "_last",
                 "_since_gap", "_last_send", *COUNTS)

    def __init__(self, name: tuple[int, int], descriptor: int, seed: str):
        self.name = name                # (source, target), counted from 0
        self.descriptor = descriptor    # the target's device
        self.profile = LinkProfile()
        self.closed = False             # cut
        self.plain = True               # neither cut nor with a profile: no more to look at
        self._seed = seed
        self._random: random.Random | None = None       # made by the first draw
        self._last = [0.0] * 5          # the draw before, for correlations
        self._since_gap = 0             # packets since one was sent at once
        self._last_send = 0.0           # the latest time to send, for the rate
        for count in COUNTS:
            setattr(self, count, 0)

    def change(self, profile: LinkProfile | None = None, closed: bool | None = None) -> None:
        """Another profile, cut or healed, from now on; what is on its way keeps its time."""
        self.profile = self.profile if profile is None else profile
        self.closed = self.closed if closed is None else closed
        self.plain = self.profile.clean and not self.closed

    def deliver(self, packet: bytes) -> None:
        """Hand it to the target's kernel."""
        self.delivered += 1
        try:
            os.write(self.descriptor, packet)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise

    def shape(self, packet: bytes, router: "Router") -> None:
        """What the profile says happens to a packet; netem_enqueue()."""
        if self.closed:
            self.cut += 1
            return
        profile = self.profile
        copies = 1
        if profile.duplicate and self._hit(_DUPLICATE, profile.duplicate,
                                           profile.duplicate_correlation):
            self.duplicated += 1
            copies = 2
        for _ in range(copies):     # a copy may be lost and damaged like any other packet
            if profile.loss and self._hit(_LOSS, profile.loss, profile.loss_correlation):
                self.lost += 1
                continue
            data = packet
            if profile.corrupt and self._hit(_CORRUPT, profile.corrupt,
                                             profile.corrupt_correlation):
                self.corrupted += 1
                data = self._damage(packet)
            if self.waiting >= profile.limit:
                self.dropped += 1
                continue
            self._queue(data, router)

    def _queue(self, packet: bytes, router: "Router") -> None:
        profile = self.profile
        if (profile.reorder and self._since_gap >= profile.gap - 1
                and self._hit(_REORDER, profile.reorder, profile.reorder_correlation)):
            self._since_gap = 0
            self.reordered += 1
            self.deliver(packet)
            return
        self._since_gap += 1
        now = time.monotonic()
        delay = profile.delay_s
        if profile.jitter_s:
            delay += profile.jitter_s * (2 * self._draw(_DELAY, profile.delay_correlation) - 1)
        if profile.rate_bits:
            # The packet before it is being sent until then, and its delay runs meanwhile.
            if self._last_send > now:
                delay = max(0.0, delay - (self._last_send - now))
                now = self._last_send
            delay += 8 * len(packet) / profile.rate_bits
        if delay <= 0 and not self.waiting:
            self.deliver(packet)
            return
        send = now + delay
        self._last_send = max(self._last_send, send)
        self.waiting += 1
        router.later(send, self, packet)

    def _hit(self, kind: int, share: float, correlation: float) -> bool:
        return self._draw(kind, correlation) < share

    def _draw(self, kind: int, correlation: float) -> float:
        """From 0 to 1; like the one before as far as the correlation says (get_crandom())."""
        if self._random is None:
            self._random = random.Random(self._seed)
            self._last = [self._random.random() for _ in self._last]
        value = self._random.random()
        if correlation:
            value = self._last[kind] = correlation * self._last[kind] + (1 - correlation) * value
        return value

    def _damage(self, packet: bytes) -> bytes:
        bit = self._random.randrange(8 * len(packet))
        data = bytearray(packet)
        data[bit >> 3] ^= 1 << (bit & 7)
        return bytes(data)


class Router:
    """All hosts and links; `run` until the control socket closes."""

    def __init__(self, control: socket.socket):
        self._control = control
        self._received = b""
        self._links: dict[tuple[int, int], Link] = {}
        self._routes: dict[int, dict[bytes, Link]] = {}     # by device: address -> link
        self._heap: list[tuple[float, int, Link, bytes]] = []
        self._number = 0            # of packets that waited: equal times go in order
        self._packet_bytes = 0
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)

    def later(self, send: float, link: Link, packet: bytes) -> None:
        """Deliver at that time of the monotonic clock."""
        self._number += 1
        heapq.heappush(self._heap, (send, self._number, link, packet))

    def run(self) -> None:
        """Forward until whoever started this program closes the control socket, or ends."""
        heap, poll, control = self._heap, self._epoll.poll, self._control.fileno()
        while True:
            if heap:
                wait = heap[0][0] - time.monotonic()
                if wait > 0:
                    # epoll's own time limit counts whole milliseconds, that of select does not.
                    select.select([self._epoll], [], [], wait)
                events = poll(0)
            else:
                events = poll()
            for descriptor, _ in events:
                if descriptor != control:
                    self._forward(descriptor)
                elif not self._obey():
                    return
            if heap:
                self.deliver_due()

    def _forward(self, device: int) -> None:
        """Read what a host sends, as much as there is or as is its turn."""
        read, write, size = os.read, os.write, self._packet_bytes
        route = self._routes[device].get
        for _ in range(_BATCH_PACKETS):
            try:
                packet = read(device, size)
            except BlockingIOError:
                return
            link = route(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
            if link is None:
                continue            # to nobody here: router solicitations and the like
            link.packets += 1
            link.bytes += len(packet)
            if link.plain:
                link.delivered += 1
                try:
                    write(link.descriptor, packet)
                except OSError as error:
                    if error.errno not in _REFUSED:
                        raise
            else:
                link.shape(packet, self)

    def deliver_due(self) -> None:
        """Deliver all whose time has come."""
        heap, pop, now = self._heap, heapq.heappop, time.monotonic()
        while heap and heap[0][0] <= now:
            _, _, link, packet = pop(heap)
            link.waiting -= 1
            if link.closed:
                link.cut += 1
            else:
                link.deliver(packet)

    # --- the control socket

    def _obey(self) -> bool:
        """Read, do and answer; False where the other end is closed."""
        try:
            data = self._control.recv(_CONTROL_BYTES)
            if not data:
                return False
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                reply = json.dumps(self._do(json.loads(line))).encode()
                self._control.sendall(reply + b"\n")
        except (ConnectionResetError, BrokenPipeError):
            return False        # killed while it asked
        return True

    def _do(self, request: dict):
        links = self._links
        match request["do"]:
            case "hosts":
                self._packet_bytes = request["mtu"]
                self._add_hosts(request["hosts"], request["seed"])
            case "change":
                words, closed = request["profile"], request["closed"]
                profile = None if words is None else LinkProfile.parse(words)
                for pair in request["links"]:
                    links[tuple(pair)].change(profile, closed)
            case "counts":
                if request["each"]:
                    return [[*name, _counts(link)] for name, link in links.items() if link.packets]
                return {name: sum(getattr(link, name) for link in links.values())
                        for name in COUNTS}
        return {}

    def _add_hosts(self, hosts: list, seed) -> None:
        """Each host: its device's descriptor, and its addresses in hexadecimal."""
        for number, (device, _) in enumerate(hosts):
            routes = self._routes[device] = {}
            for other, (target, addresses) in enumerate(hosts):
                if other != number:
                    link = Link((number, other), target, f"{seed} {number} {other}")
                    self._links[number, other] = link
                    routes.update({bytes.fromhex(address): link for address in addresses})
            os.set_blocking(device, False)
            self._epoll.register(device, select.EPOLLIN)


def _counts(link: Link) -> dict[str, int]:
    return {name: getattr(link, name) for name in COUNTS}


def main(argv: list[str]) -> int:
    """`networkrouter.py DESCRIPTOR`: of the control socket; started by emulatednetwork.py."""
    gc.disable()                # no cycles are built, and a collection would delay packets
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS)
    with socket.socket(fileno=int(argv[0])) as control:
        Router(control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
