"""Network and Host: hosts with real kernel network stacks, and a program between them.

Each host is a network namespace without a name: loopback, and a TUN device with an IPv4 and an IPv6
address, whose packets networkrouter.py, a process of its own, carries to the other hosts.

Rules: a namespace is known by a descriptor only, so that nothing is left to clean up, however this
program ends: the router ends with the control socket, devices and namespaces with the last process
that uses them. Being in a host is a property of a thread: `Host.inside` moves the calling one;
threads and processes that it starts meanwhile begin there, and threads stay there to their end.
Sockets stay where they were made. Nothing else is separate: files and processes are shared.
Linux and root are needed; `unavailable` says what is missing.

    with Network(4, "delay 20ms loss 1%") as net:
        with net.hosts[0].inside():
            server = socket.create_server((net.hosts[0].address, 5001))
        net.cut(net.hosts[0], net.hosts[1])
"""

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator

from raftnet.errors import RaftnetError
from tools.linkprofile import LinkProfile

HOSTS_MAX = 100
MTU_DEFAULT = 1_500         # bytes of a packet, as Ethernet has it
MTU_MIN = 1_280             # what IPv6 needs
MTU_MAX = 65_535
DEVICE = "raftnet0"         # its name in each host
_ROUTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "networkrouter.py")
_ANSWER_S = 10.0            # until the router has answered a request, or started
_END_S = 5.0                # until it has ended by itself; then it is killed
_DEVICE_PACKETS = 10_000    # that wait for the router in a device
_TUN = "/dev/net/tun"
_THIS_NAMESPACE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
# linux/if_tun.h, linux/sockios.h, linux/if.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCGIFINDEX = 0x8916, 0x891C, 0x8933
_SIOCSIFMTU, _SIOCSIFTXQLEN = 0x8922, 0x8943
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Host:
    """One host of a Network, made by it. `number` counts from 1; `address` is IPv4, `address6`
    IPv6 ("" where the kernel has none)."""

    def __init__(self, network: "Network", number: int):
        self.network = network
        self.number = number
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd77::{number}" if os.path.exists("/proc/net/if_inet6") else ""
        self.descriptor = -1        # of its namespace

    def __repr__(self) -> str:
        return f"Host({self.number}, {self.address})"

    @property
    def path(self) -> str:
        """Where other programs find the namespace while this one runs: `nsenter --net=PATH`."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread's new sockets, threads and child processes are in this host, until
        the end of the block; nests. Raises RaftnetError on a closed network."""
        if self.descriptor < 0:
            raise RaftnetError(f"host {self.number} is gone: its network is closed")
        before = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.descriptor)
            try:
                yield
            finally:
                enter(before)
        finally:
            os.close(before)


class Network:
    """`count` hosts that all reach each other over links with `profile` (tc's netem words).

    `seed`: of all draws, so that the same packets in the same order fare the same; None: any.
    `mtu`: in bytes. Raises RaftnetError where `unavailable`, MalformedError for bad words. Cuts add
    up until `heal`. May be used by several threads. A context manager that closes.
    """

    def __init__(self, count: int, profile: str = "", seed: int | None = None,
                 mtu: int = MTU_DEFAULT):
        assert 1 <= count <= HOSTS_MAX and MTU_MIN <= mtu <= MTU_MAX, (count, mtu)
        self.seed = random.getrandbits(32) if seed is None else seed
        self.hosts = [Host(self, number) for number in range(1, count + 1)]
        self._lock = threading.Lock()       # one request to the router at a time
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        words = LinkProfile.parse(profile).words()
        reason = unavailable()
        if reason:
            raise RaftnetError(f"no emulated network here: {reason}")
        try:
            self._start(mtu)
            self.set(words)
        except BaseException:
            self.close()
            raise

    def _start(self, mtu: int) -> None:
        devices: list[int] = []
        try:
            _in_a_thread(lambda: devices.extend(_make(host, mtu) for host in self.hosts))
            self._control, theirs = socket.socketpair()
            self._control.settimeout(_ANSWER_S)
            with theirs:
                # A session of its own: Ctrl-C at the terminal is not for it.
                self._process = subprocess.Popen(
                    [sys.executable, _ROUTER, str(theirs.fileno())], stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *devices], start_new_session=True)
            self._ask({"do": "hosts", "mtu": mtu, "seed": self.seed, "hosts": [
                [device, _binary_addresses(host)] for host, device in zip(self.hosts, devices)]})
        finally:
            for device in devices:
                os.close(device)        # the router has them

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            self.close()

    def close(self) -> None:
        """End the router, and the hosts with it unless processes are left in them."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for host in self.hosts:
            if host.descriptor >= 0:
                os.close(host.descriptor)
                host.descriptor = -1

    @property
    def router_pid(self) -> int:
        """The router's process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises RaftnetError where the router has ended: nothing passes any more."""
        if self._process.poll() is not None:
            raise RaftnetError("the router of the emulated network ended with status "
                               f"{self._process.returncode}: nothing passes any more")

    # --- changes

    def set(self, profile: str = "", source: Host | None = None,
            target: Host | None = None) -> None:
        """Another profile for what `source` sends to `target`, None: every; "": clean. Cuts stay.
        Packets on their way keep their time. Raises MalformedError for bad words."""
        words = LinkProfile.parse(profile).words()
        links = [(one, other) for one in self._chosen(source) for other in self._chosen(target)]
        self._change(links, profile=words)

    def cut(self, one: Host, other: Host, both: bool = True) -> None:
        """Nothing passes from `one` to `other`; `both`: nor back. What is on its way is lost."""
        self._change([(one, other), (other, one)] if both else [(one, other)], closed=True)

    def isolate(self, host: Host) -> None:
        """Nothing passes to and from a host."""
        self._change([pair for other in self.hosts for pair in ((host, other), (other, host))],
                     closed=True)

    def partition(self, *groups: Iterable[Host]) -> None:
        """Nothing passes between hosts of different groups; who is in none keeps all links."""
        sides = [list(group) for group in groups]
        self._change([(one, other) for side in sides for far in sides if far is not side
                      for one in side for other in far], closed=True)

    def heal(self) -> None:
        """Undo all cuts, isolations and partitions; profiles stay."""
        self._change([(one, other) for one in self.hosts for other in self.hosts], closed=False)

    # --- counts

    def counts(self) -> dict[str, int]:
        """What happened since the start, over all links, in packets (and `bytes`).

        `packets` were sent; `delivered` handed to the target's kernel, damaged ones too; `lost`,
        `duplicated`, `corrupted` by those words; `reordered` sent at once by `reorder`; `cut` fell
        to a cut; `dropped` found `limit` others waiting; `waiting` are on their way now.
        packets + duplicated = delivered + lost + cut + dropped + waiting.
        """
        return self._ask({"do": "counts", "each": False})

    def link_counts(self) -> dict[tuple[int, int], dict[str, int]]:
        """The same for each link that saw packets, by the numbers of source and target."""
        return {(source + 1, target + 1): counts
                for source, target, counts in self._ask({"do": "counts", "each": True})}

    def _chosen(self, host: Host | None) -> list[Host]:
        return self.hosts if host is None else [host]

    def _change(self, links: list[tuple[Host, Host]], profile: str | None = None,
                closed: bool | None = None) -> None:
        assert all(host.network is self for link in links for host in link), links
        self._ask({"do": "change", "profile": profile, "closed": closed, "links": [
            [one.number - 1, other.number - 1] for one, other in links if one is not other]})

    def _ask(self, request: dict):
        """Send a request to the router; it is done when the answer is there."""
        with self._lock:
            if self._control is None:
                raise RaftnetError("the emulated network is closed")
            try:
                self._control.sendall(json.dumps(request).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    data = self._control.recv(65_536)
                    if not data:
                        raise ConnectionResetError
                    answer += data
            except TimeoutError:
                raise RaftnetError("the router of the emulated network does not answer within "
                                   f"{_ANSWER_S:g} s") from None
            except (ConnectionError, BrokenPipeError):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_S)
                self.check()
                raise RaftnetError("the router of the emulated network closed its control "
                                   "socket") from None
        return json.loads(answer)


@functools.cache
def unavailable() -> str:
    """Why there can be no Network here, in a line; "" where there can. Tries it once."""
    if _LIBC is None:
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root"
    if not os.path.exists(_TUN):
        return f"there is no {_TUN} (modprobe tun)"

    def attempt() -> None:
        host = Host(None, 1)
        try:
            os.close(_make(host, MTU_DEFAULT))
        finally:
            if host.descriptor >= 0:
                os.close(host.descriptor)
    try:
        _in_a_thread(attempt)
    except OSError as error:
        return f"no namespace or TUN device can be made ({error})"
    return ""


def enter(namespace: int) -> None:
    """Move the calling thread into the network namespace of a descriptor. Raises OSError."""
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


def _in_a_thread(work) -> None:
    """Do it in a thread that may stay wherever that brings it; raises what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:      # raised again below
            errors.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _make(host: Host, mtu: int) -> int:
    """Move this thread into a new namespace for the host, with a device; its descriptor."""
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    host.descriptor = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    device = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        name = DEVICE.encode()
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN | _IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            def request(number: int, form: str, *values) -> bytes:
                return fcntl.ioctl(sock, number, struct.pack(f"16s{form}", name, *values)
                                   .ljust(40, b"\0"))
            request(_SIOCSIFMTU, "i", mtu)
            request(_SIOCSIFTXQLEN, "i", _DEVICE_PACKETS)
            for number, address in ((_SIOCSIFADDR, host.address),
                                    (_SIOCSIFNETMASK, "255.255.255.0")):
                request(number, "H2x4s", socket.AF_INET, socket.inet_aton(address))
            index = struct.unpack_from("i", request(_SIOCGIFINDEX, ""), 16)[0]
            for name in (b"lo", DEVICE.encode()):
                flags = struct.unpack_from("H", request(_SIOCGIFFLAGS, ""), 16)[0]
                request(_SIOCSIFFLAGS, "H", flags | _IFF_UP)
        if host.address6:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                # Without a search for duplicates: a TUN device has no neighbours to ask.
                fcntl.ioctl(sock, _SIOCSIFADDR, struct.pack(
                    "16sIi", socket.inet_pton(socket.AF_INET6, host.address6), 64, index))
    except BaseException:
        os.close(device)
        raise
    return device


def _binary_addresses(host: Host) -> list[str]:
    found = [socket.inet_aton(host.address).hex()]
    if host.address6:
        found.append(socket.inet_pton(socket.AF_INET6, host.address6).hex())
    return found
