"""Real sockets over the emulated network: what links do, who is where, and what is left behind.

Skipped without root or a TUN device. The arithmetic of one link is in test_networkrouter.py.
"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import unittest

from raftnet.client.client import Client
from raftnet.errors import MalformedError, RaftnetError
from tools.netem import Host, Network, unavailable
from tools.processes import ROOT, LocalCluster, wait_until

NEEDED = unittest.skipIf(unavailable(), f"no emulated network: {unavailable()}")
PORT = 7_000
WAIT_S = 10.0
_BUFFER_BYTES = 8_000_000
_SO_RCVBUFFORCE = 33


def open_datagrams(host: Host, family: int = socket.AF_INET) -> socket.socket:
    """A UDP socket of that host, at PORT."""
    with host.inside():
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((host.address if family == socket.AF_INET else host.address6, PORT))
    sock.settimeout(WAIT_S)
    return sock


def received(sock: socket.socket) -> list[int]:
    """The numbers of the datagrams that have arrived."""
    sock.setblocking(False)
    numbers = []
    while True:
        try:
            numbers.append(int(sock.recv(2_000).split()[0]))
        except BlockingIOError:
            sock.settimeout(WAIT_S)
            return numbers


def echo(server: Host, client: Host, size: int, family: int = socket.AF_INET) -> float:
    """Send so many bytes over TCP and take them back, whole; seconds."""
    address = server.address if family == socket.AF_INET else server.address6
    data = os.urandom(size)
    with server.inside():
        listener = socket.create_server((address, PORT), family=family)

    def serve():
        sock, _ = listener.accept()
        with sock:
            while chunk := sock.recv(65_536):
                sock.sendall(chunk)
    server_thread = threading.Thread(target=serve, daemon=True)
    server_thread.start()
    start = time.monotonic()
    with listener, client.inside():
        with socket.create_connection((address, PORT), 20) as sock:
            sender = threading.Thread(target=sock.sendall, args=(data,), daemon=True)
            sender.start()
            back = b""
            while len(back) < size:
                chunk = sock.recv(65_536)
                assert chunk, "closed early"
                back += chunk
            sender.join()
        server_thread.join()
    assert back == data
    return time.monotonic() - start


@NEEDED
class LinksTest(unittest.TestCase):
    """Three hosts with a UDP socket each, clean at the start of each test."""

    @classmethod
    def setUpClass(cls):
        cls.net = Network(3, seed=5)
        cls.addClassCleanup(cls.net.close)
        cls.sockets = [open_datagrams(host) for host in cls.net.hosts]
        for sock in cls.sockets:
            cls.addClassCleanup(sock.close)

    def setUp(self):
        self.net.set("")
        self.net.heal()
        self.settle()
        for sock in self.sockets:
            received(sock)
        self.before = self.net.counts()

    def settle(self):
        """Nothing is on its way."""
        wait_until(lambda: not self.net.counts()["waiting"], WAIT_S, "nothing is on its way")

    def send(self, source: int, target: int, count: int, size: int = 100) -> list[int]:
        """Send numbered datagrams between hosts 1 to 3, wait for their fate; what arrived."""
        start = self.net.counts()["packets"]
        address = (self.net.hosts[target - 1].address, PORT)
        for number in range(count):
            self.sockets[source - 1].sendto(str(number).encode().ljust(size), address)
        wait_until(lambda: self.net.counts()["packets"] >= start + count, WAIT_S, "all are sent")
        self.settle()
        return received(self.sockets[target - 1])

    def count(self, name: str) -> int:
        """What was counted in this test."""
        return self.net.counts()[name] - self.before[name]

    def round_trip_s(self) -> float:
        """The best of a few."""
        one, other = self.sockets[:2]
        found = []
        for _ in range(5):
            start = time.monotonic()
            one.sendto(b"1", (self.net.hosts[1].address, PORT))
            _, sender = other.recvfrom(100)
            other.sendto(b"1", sender)
            one.recv(100)
            found.append(time.monotonic() - start)
        return min(found)

    def test_round_trip(self):
        self.assertLess(self.round_trip_s(), 0.02)
        self.net.set("delay 20ms")
        self.assertTrue(0.04 <= self.round_trip_s() < 0.08)
        self.net.set("", source=self.net.hosts[1])
        self.assertTrue(0.02 <= self.round_trip_s() < 0.04)

    def test_clean(self):
        self.assertEqual(self.send(1, 2, 500), list(range(500)))
        self.assertEqual(self.count("packets"), 500)
        self.assertEqual(self.count("delivered"), 500)
        self.assertEqual(self.count("bytes"), 500 * (20 + 8 + 100))

    def test_loss(self):
        self.net.set("loss 10%")
        arrived = self.send(1, 2, 2_000)
        self.assertEqual(len(arrived), 2_000 - self.count("lost"))
        self.assertTrue(130 < self.count("lost") < 270)

    def test_the_seed_decides(self):
        def fates():
            with Network(2, "loss 50%", seed=9) as self.net:
                with open_datagrams(self.net.hosts[0]) as one, (
                        open_datagrams(self.net.hosts[1])) as two:
                    self.sockets = [one, two]
                    return self.send(1, 2, 100)
        self.assertEqual(fates(), fates())

    def test_duplicates(self):
        self.net.set("duplicate 20%")
        arrived = self.send(1, 2, 500)
        self.assertEqual(len(arrived), 500 + self.count("duplicated"))
        self.assertEqual(set(arrived), set(range(500)))
        self.assertTrue(50 < self.count("duplicated") < 150)

    def test_corrupted_datagrams_do_not_pass_the_checksum(self):
        self.net.set("corrupt 20%")
        arrived = self.send(1, 2, 500)
        self.assertTrue(50 < self.count("corrupted") < 150)
        self.assertEqual(self.count("delivered"), 500)
        self.assertEqual(len(arrived), 500 - self.count("corrupted"))

    def test_reorder(self):
        self.net.set("delay 20ms reorder 20%")
        arrived = self.send(1, 2, 200)
        self.assertEqual(sorted(arrived), list(range(200)))
        self.assertNotEqual(arrived, sorted(arrived))
        self.assertTrue(10 < self.count("reordered") < 80)

    def test_jitter_reorders_and_a_plain_delay_does_not(self):
        self.net.set("delay 20ms 10ms")
        self.assertNotEqual(self.send(1, 2, 200), list(range(200)))
        self.net.set("delay 20ms")
        self.assertEqual(self.send(1, 2, 200), list(range(200)))

    def test_rate_and_its_queue(self):
        self.net.set("rate 1mbit limit 10")
        start = time.monotonic()
        arrived = self.send(1, 2, 50, 972)      # 1,000 bytes with headers: 8 ms each
        self.assertGreaterEqual(time.monotonic() - start, 0.08)
        self.assertEqual(arrived[:10], list(range(10)))
        self.assertTrue(10 <= len(arrived) < 20)
        self.assertEqual(self.count("dropped"), 50 - len(arrived))

    def test_cut_one_way_and_both(self):
        one, other, _ = self.net.hosts
        self.net.cut(one, other, both=False)
        self.assertEqual(self.send(1, 2, 3), [])
        self.assertEqual(self.count("cut"), 3)
        self.assertEqual(self.send(2, 1, 3), [0, 1, 2])
        self.net.cut(one, other)
        self.assertEqual(self.send(2, 1, 3), [])
        self.assertEqual(self.send(2, 3, 3), [0, 1, 2])
        self.net.heal()
        self.assertEqual(self.send(1, 2, 3), [0, 1, 2])

    def test_a_cut_takes_what_is_on_its_way(self):
        self.net.set("delay 500ms")
        self.sockets[0].sendto(b"0", (self.net.hosts[1].address, PORT))
        wait_until(lambda: self.net.counts()["waiting"], WAIT_S, "it is on its way")
        self.net.cut(*self.net.hosts[:2])
        self.settle()
        self.assertEqual(self.count("cut"), 1)
        self.assertEqual(received(self.sockets[1]), [])

    def test_isolate_and_partition(self):
        one, two, three = self.net.hosts
        self.net.isolate(two)
        for source, target in ((1, 2), (2, 1), (2, 3), (3, 2)):
            self.assertEqual(self.send(source, target, 1), [])
        self.assertEqual(self.send(1, 3, 1), [0])
        self.net.heal()
        self.net.partition([one, two], [three])
        for source, target, arrived in ((1, 2, [0]), (2, 1, [0]), (1, 3, []), (3, 2, [])):
            self.assertEqual(self.send(source, target, 1), arrived)
        self.net.heal()
        self.net.partition([one], [two])        # three sees both: a bridge
        for source, target, arrived in ((1, 2, []), (1, 3, [0]), (3, 2, [0]), (2, 1, [])):
            self.assertEqual(self.send(source, target, 1), arrived)

    def test_heal_keeps_the_profile_and_set_keeps_cuts(self):
        one, two, _ = self.net.hosts
        self.net.set("loss 100%", one, two)
        self.net.cut(two, one, both=False)
        self.net.heal()
        self.assertEqual((self.send(1, 2, 2), self.send(2, 1, 2)), ([], [0, 1]))
        self.net.cut(two, one, both=False)
        self.net.set("")
        self.assertEqual((self.send(1, 2, 2), self.send(2, 1, 2)), ([0, 1], []))

    def test_mtu(self):
        for mtu, packets in ((1_500, 7), (9_100, 1)):
            with Network(2, mtu=mtu) as net, open_datagrams(net.hosts[0]) as sock:
                sock.sendto(bytes(9_000), (net.hosts[1].address, PORT))
                wait_until(lambda: net.counts()["bytes"] > 9_000, WAIT_S, "it is sent whole")
                self.assertEqual(net.link_counts()[1, 2]["packets"], packets)

    def test_link_counts(self):
        def packets():
            return {link: counts["packets"] for link, counts in self.net.link_counts().items()}
        before = packets()
        self.send(1, 3, 4)
        after = packets()
        self.assertEqual({link for link in after if after[link] != before.get(link, 0)}, {(1, 3)})
        self.assertEqual(after[1, 3] - before.get((1, 3), 0), 4)

    def test_bad_words_change_nothing(self):
        with self.assertRaises(MalformedError):
            self.net.set("loss 100% nonsense 5%")
        self.assertEqual(self.send(1, 2, 3), [0, 1, 2])

    def test_tcp(self):
        one, two, _ = self.net.hosts
        echo(one, two, 2_000_000)
        if one.address6:
            echo(one, two, 500_000, socket.AF_INET6)
        # What is damaged is caught by the checksum and sent again: it arrives whole.
        self.net.set("delay 1ms loss 1% corrupt 2% duplicate 2% reorder 5%")
        echo(one, two, 100_000)
        self.assertGreater(self.count("corrupted"), 0)


@NEEDED
class PlacesTest(unittest.TestCase):
    """Who is in which namespace, and what is left of a network."""

    def here(self) -> str:
        """The namespace of the calling thread."""
        return os.readlink("/proc/thread-self/ns/net")

    def test_inside(self):
        outside = self.here()
        with Network(2) as net:
            one, two = net.hosts
            with one.inside():
                first = self.here()
                with two.inside():
                    self.assertNotIn(self.here(), (outside, first))
                self.assertEqual(self.here(), first)
                with self.assertRaises(ValueError), two.inside():
                    raise ValueError
                self.assertEqual(self.here(), first)
                child = subprocess.run(["readlink", "/proc/self/ns/net"], check=True,
                                       capture_output=True, text=True)
                self.assertEqual(child.stdout.strip(), first)
                seen = []
                thread = threading.Thread(target=lambda: seen.append(self.here()))
                thread.start()
                thread.join()
                self.assertEqual(seen, [first])
            self.assertEqual(self.here(), outside)
            with open(one.path, "rb"):
                pass
        with self.assertRaisesRegex(RaftnetError, "closed"), one.inside():
            pass

    def test_only_the_calling_thread_moves(self):
        seen = []
        go, done = threading.Event(), threading.Event()

        def look():
            go.wait(WAIT_S)
            seen.append(self.here())
            done.set()
        with Network(1) as net:
            thread = threading.Thread(target=look)
            thread.start()
            with net.hosts[0].inside():
                go.set()
                done.wait(WAIT_S)
            thread.join()
        self.assertEqual(seen, [self.here()])

    def test_nothing_is_left(self):
        before = sorted(os.listdir("/proc/self/fd"))
        with Network(3, "delay 1ms") as net:
            pid = net.router_pid
            self.assertEqual(net.link_counts(), {})
            with net.hosts[0].inside():
                pass
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)
        with self.assertRaises(ValueError), Network(2) as net:
            pid = net.router_pid
            raise ValueError
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        with self.assertRaises(MalformedError):
            Network(2, "nonsense")
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)
        with self.assertRaisesRegex(RaftnetError, "closed"):
            net.counts()

    def test_the_end_of_the_router_is_noticed(self):
        with self.assertRaisesRegex(RaftnetError, "router .* ended with status -9"), (
                Network(2)) as net:
            os.kill(net.router_pid, signal.SIGKILL)
            with self.assertRaisesRegex(RaftnetError, "router .* ended with status -9"):
                net.set("loss 1%")
        with self.assertRaises(ValueError), Network(2) as net:      # the first error is the one
            os.kill(net.router_pid, signal.SIGKILL)
            os.waitid(os.P_PID, net.router_pid, os.WEXITED | os.WNOWAIT)
            raise ValueError

    def test_a_killed_program_leaves_no_router(self):
        program = textwrap.dedent("""
            import time
            from tools.netem import Network
            net = Network(2)
            print(net.router_pid, flush=True)
            time.sleep(60)""")
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT,
                              stdout=subprocess.PIPE) as child:
            try:
                router = int(child.stdout.readline())
            finally:
                child.kill()
        wait_until(lambda: not is_running(router), WAIT_S, "the router ends")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@NEEDED
class ClusterTest(unittest.TestCase):
    """Nodes on hosts."""

    def test_three_nodes_elect_and_serve_a_fourth_host(self):
        with Network(5, "delay 2ms") as net, net.hosts[3].inside(), (
                LocalCluster(3, hosts=net.hosts[:3], ask_inside=True)) as cluster:
            cluster.start()
            leader = cluster.leader()
            self.assertIs(leader.host, net.hosts[cluster.nodes.index(leader)])
            self.assertIn(f"nsenter --net={leader.host.path} python3", leader.command_line)
            with Client(cluster.addresses) as client:
                self.assertEqual(client.queue().enqueue_batch([b"one", b"two"]), [1, 2])
            joining = ["10.77.0.5:5001", "--join", cluster.addresses[0]]
            cluster.add(joining[0], joining).start().wait_ready()
            self.assertEqual(len(cluster.wait_settled()), 4)
            self.assertEqual(len(os.listdir(cluster.directory)), 8)
            # A cut-off node still speaks in its own host, but not to this one.
            node = cluster.nodes[0]
            net.cut(net.hosts[3], node.host)
            self.assertIsNotNone(node.status())
            node.ask_inside = False
            self.assertIsNone(node.status(0.2))
            net.heal()
            cluster.stop()


if __name__ == "__main__":
    unittest.main()
