"""Server with real processes on loopback: hostile clients, suspended and killed nodes."""

import os
import select
import socket
import sys
import tempfile
import threading
import time
import unittest

from raftnet.client import Client
from raftnet.errors import ErrorCode
from raftnet.wire import commands, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import FrameReader, Kind, encode_frame
from tools.processes import LocalCluster, NodeProcess, free_ports, wait_until

LIMIT_S = 20.0


def connect(address: str) -> socket.socket:
    """A connection that fails rather than hangs."""
    return socket.create_connection(parse_address(address), 10)


def receive(sock: socket.socket, count: int = 1) -> list:
    """That many frames, fewer where the other side ends before."""
    reader, frames = FrameReader(), []
    while len(frames) < count:
        data = sock.recv(65536)
        if not data:
            break
        frames += reader.feed(data)
    return frames


def descriptors(pid: int) -> int:
    """How many descriptors that process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Load:
    """A client in a thread that enqueues all the time; a context manager."""

    def __init__(self, addresses: list[str]):
        self.client = Client(addresses, timeout_s=LIMIT_S)
        self.times: list[float] = []        # of the acknowledgements
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            queue = self.client.queue("load")
            while not self._stop.is_set():
                queue.enqueue(b"x")
                self.times.append(time.monotonic())
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.client.close()

    def __enter__(self) -> "Load":
        self._thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int = 20) -> None:
        """Until that many more were acknowledged."""
        target = len(self.times) + count

        def more():
            assert self.error is None, self.error
            return len(self.times) >= target
        wait_until(more, LIMIT_S, "more acknowledgements")

    def longest_gap(self) -> float:
        """Seconds without an acknowledgement."""
        return max(b - a for a, b in zip(self.times, self.times[1:]))


class ServerCase(unittest.TestCase):
    """Three nodes for all tests of a class; each test leaves them running."""

    arguments: list[str] = []

    @classmethod
    def setUpClass(cls):
        cls.cluster = LocalCluster(3, arguments=cls.arguments)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def tearDown(self):
        for node in self.cluster.nodes:
            self.assertTrue(node.running, node.log_text()[-2000:])
            self.assertNotIn("Traceback", node.log_text())

    def followers(self) -> list:
        """The nodes that do not lead."""
        leader = self.cluster.leader()
        return [node for node in self.cluster.nodes if node is not leader]

    def assert_works(self):
        """A message goes in and comes out."""
        with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
            queue = client.queue("works")
            message_id = queue.enqueue(b"hello")
            self.assertEqual(queue.dequeue().id, message_id)


class TestHostileClients(ServerCase):
    """What a port on a network hears."""

    def assert_refused(self, data: bytes, code: ErrorCode):
        leader = self.cluster.leader()
        with connect(leader.address) as sock:
            sock.sendall(data)
            (frame,) = receive(sock)
            self.assertEqual(frame[0], Kind.ERROR)
            self.assertEqual(requests.decode_error(frame[2])[0], code)
            self.assertEqual(sock.recv(1), b"")     # and the connection ends

    def test_bytes_that_are_no_frames(self):
        self.assert_refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ErrorCode.BAD_FRAME)
        self.assert_refused(bytes(16), ErrorCode.BAD_FRAME)
        self.assert_refused(b"\xff" * 64, ErrorCode.BAD_FRAME)
        damaged = bytearray(encode_frame(Kind.STATUS, 1, b"x" * 40))
        damaged[30] ^= 1
        self.assert_refused(bytes(damaged), ErrorCode.BAD_FRAME)
        self.assert_works()

    def test_messages_between_nodes_from_a_stranger(self):
        for kind in range(64, 80):
            self.assert_refused(encode_frame(kind, 1, bytes(33)), ErrorCode.GREETING_REQUIRED)
        hello = requests.Hello(requests.ROLE_PEER, b"x" * 16, 99, 1, 0, "127.0.0.1:1")
        self.assert_refused(encode_frame(Kind.HELLO, 1, requests.encode_hello(hello)),
                            ErrorCode.WRONG_CLUSTER)
        hello.address = "a" * 65_000        # as long as the layout allows
        hello.node_id = self.cluster.leader().status().node_id
        self.assert_refused(encode_frame(Kind.HELLO, 1, requests.encode_hello(hello)),
                            ErrorCode.BAD_REQUEST)
        self.assert_works()

    def test_bodies_of_every_kind_that_mean_nothing(self):
        leader = self.cluster.leader()
        for kind in [k for k in range(256) if k < 64]:
            for body in (b"", b"\0", bytes(100), b"\xff" * 100):
                with connect(leader.address) as sock:
                    sock.sendall(encode_frame(kind, 9, body))
                    (frame,) = receive(sock)
                    self.assertIn(frame[1], (9, 0))
        self.assert_works()

    def test_half_a_frame_and_silence(self):
        leader = self.cluster.leader()
        frame = encode_frame(Kind.STATUS, 1, b"")
        with connect(leader.address) as silent:
            silent.sendall(frame[:9])
            self.assert_works()
            silent.sendall(frame[9:])
            self.assertEqual(receive(silent)[0][0], Kind.STATUS_REPLY)

    def test_answers_after_the_sending_side_has_ended(self):
        leader = self.cluster.leader()
        body = requests.encode_request(requests.NO_SESSION, 1, 0,
                                       [commands.encode_enqueue(b"nc", [b"hello"])])
        with connect(leader.address) as sock:
            sock.sendall(encode_frame(Kind.REQUEST, 5, body))
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual([f[:2] for f in receive(sock, 2)], [(Kind.REPLY, 5)])

    def test_five_hundred_connections(self):
        leader = self.cluster.leader()
        socks = []
        try:
            for _ in range(500):
                socks.append(connect(leader.address))
            for sock in socks:
                sock.sendall(encode_frame(Kind.STATUS, 1, b""))
            for sock in socks:
                self.assertEqual(receive(sock)[0][0], Kind.STATUS_REPLY)
            self.assert_works()
        finally:
            for sock in socks:
                sock.close()

    def test_no_descriptor_is_left_behind(self):
        leader = self.cluster.leader()
        self.assert_works()
        before = descriptors(leader.pid)
        for number in range(1_000):
            with connect(leader.address) as sock:
                if number % 3 == 0:
                    sock.sendall(encode_frame(Kind.STATUS, 1, b""))
                elif number % 3 == 1:
                    sock.sendall(b"garbage that is no frame")
        wait_until(lambda: descriptors(leader.pid) <= before, LIMIT_S, "descriptors are closed")

    def test_one_that_never_reads_while_others_go_on(self):
        leader = self.cluster.leader()
        with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
            queue = client.queue("large")
            for _ in range(3):
                queue.enqueue(bytes(1 << 20))
            with connect(leader.address) as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.settimeout(0.2)
                ask = encode_frame(Kind.READ, 1, requests.encode_read(
                    False, commands.encode_peek(b"large", 3)))
                try:
                    deaf.sendall(ask * 2_000)
                except OSError:
                    deaf.close()        # dropped, or no more room: both may be
                began = time.monotonic()
                for _ in range(20):
                    self.assert_works()
                self.assertLess(time.monotonic() - began, 10)
            with open(f"/proc/{leader.pid}/status") as file:
                memory = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
            self.assertLess(memory, 400_000)        # KiB; 2,000 answers would be 6 GB
            queue.dequeue_many(3)

    def test_a_newer_connection_of_a_node_replaces_the_older(self):
        leader = self.cluster.leader()
        status = leader.status()
        hello = requests.Hello(requests.ROLE_PEER, status.cluster_id, 99, 1, 0, "127.0.0.1:9",
                               state_version=commands.STATE_VERSION)
        greeting = encode_frame(Kind.HELLO, 1, requests.encode_hello(hello))
        with connect(leader.address) as older, connect(leader.address) as newer:
            for sock in (older, newer):
                sock.sendall(greeting)
                self.assertEqual(receive(sock)[0][0], Kind.HELLO_REPLY)
            self.assertEqual(older.recv(1), b"")
            newer.sendall(encode_frame(Kind.STATUS, 2, b""))
            self.assertEqual(receive(newer)[0][0], Kind.STATUS_REPLY)
        self.assert_works()

    def test_pipelined_requests_and_a_sudden_end(self):
        leader = self.cluster.leader()
        body = requests.encode_request(requests.NO_SESSION, 1, 0,
                                       [commands.encode_enqueue(b"burst", [b"x" * 100])])
        for _ in range(5):
            with connect(leader.address) as sock:
                sock.sendall(encode_frame(Kind.REQUEST, 5, body) * 2_000)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.assert_works()


class FewDescriptors(NodeProcess):
    """A node that may open a hundred files."""

    @property
    def command(self) -> list[str]:
        """Lowered before node.py begins: it raises what it may raise."""
        program = ("import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, "
                   "(100, 100)); os.execv(sys.argv[1], sys.argv[1:])")
        return [sys.executable, "-c", program, *super().command]


class TestFewDescriptors(unittest.TestCase):
    """More connections than a node may have descriptors."""

    def test_it_refuses_some_and_does_not_spin(self):
        with tempfile.TemporaryDirectory() as directory:
            address = f"127.0.0.1:{free_ports(1)[0]}"
            arguments = [address, "--data", os.path.join(directory, "data")]
            with FewDescriptors(address, arguments, os.path.join(directory, "log")) as node:
                node.start()
                node.wait_ready()
                socks = [connect(address) for _ in range(150)]
                try:
                    wait_until(lambda: sum(ended(sock) for sock in socks) > 50, LIMIT_S,
                               "what is too much is refused")
                    self.assertLess(descriptors(node.pid), 95)
                    ticks = cpu_ticks(node.pid)
                    time.sleep(0.3)
                    self.assertLess(cpu_ticks(node.pid) - ticks, 15)
                finally:
                    for sock in socks:
                        sock.close()
                wait_until(node.status, LIMIT_S, "the node answers again")


def ended(sock: socket.socket) -> bool:
    """Whether the other side has ended this connection."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def cpu_ticks(pid: int) -> int:
    """User and system time of a process, in hundredths of a second."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class TestSuspendedAndKilled(ServerCase):
    """Nodes that stop, for a while or for good."""

    def test_a_suspended_follower_changes_nothing(self):
        leader = self.cluster.leader()
        term = leader.status().term
        follower = self.followers()[0]
        with Load(self.cluster.addresses) as load:
            follower.suspend()
            try:
                began = len(load.times)
                load.wait_for_more(300)
                wait_until(lambda: load.times[-1] - load.times[began] > 1.2, LIMIT_S, "1.2 s")
                self.assertEqual(leader.status().term, term)
            finally:
                follower.resume()
        self.assertLess(load.longest_gap(), 0.5)
        self.assertIs(self.cluster.leader(), leader)
        self.cluster.wait_settled()
        self.assertEqual(leader.status().term, term)

    def test_nobody_spins_while_a_node_is_away(self):
        leader = self.cluster.leader()
        away, follower = self.followers()
        for how in ("suspended", "killed and never seen", "suspended while it is dialled"):
            with self.subTest(how):
                if how == "suspended":
                    away.suspend()
                elif how == "killed and never seen":
                    away.resume()
                    away.kill()
                else:
                    # It accepts, by its kernel, and never greets.
                    away.start()
                    away.wait_ready()
                    away.suspend()
                    follower.kill()
                    follower.start()
                    follower.wait_ready()
                before = [cpu_ticks(node.pid) for node in (leader, follower)]
                time.sleep(0.4)
                after = [cpu_ticks(node.pid) for node in (leader, follower)]
                for b, a in zip(before, after):
                    self.assertLess(a - b, 16)
        away.resume()
        self.cluster.wait_settled()

    # By its name before test_nobody_spins_while_a_node_is_away: a follower that was suspended while
    # it was dialled counts as slow for a while, and the leader was replaced after 3 to 6 s then.
    def test_a_leader_that_is_suspended_is_replaced_and_steps_down(self):
        old = self.cluster.leader()
        with Load(self.cluster.addresses) as load:
            old.suspend()
            try:
                new = wait_until(self.other_leader(old), LIMIT_S, "another leader")
            finally:
                old.resume()
            load.wait_for_more(50)
        wait_until(lambda: (old.status() or new.status()).leader == new.address, LIMIT_S,
                   "the old leader follows")
        self.assertEqual(old.status().role, "follower")
        self.cluster.wait_settled()

    def other_leader(self, old):
        """A condition: another node leads."""
        def condition():
            for node in self.cluster.nodes:
                status = None if node is old else node.status()
                if status is not None and status.role == "leader":
                    return node
            return None
        return condition

    def test_a_killed_leader_is_replaced_soon_and_returns_as_follower(self):
        for _ in range(2):
            old = self.cluster.leader()
            with Load(self.cluster.addresses) as load:
                old.kill()
                load.wait_for_more(50)
            # Tens of milliseconds by design; a second at a busy machine, far below 2 s.
            self.assertLess(load.longest_gap(), 1.9)
            old.start()
            old.wait_ready()
            self.cluster.wait_settled()
            self.assertEqual(old.status().role, "follower")

    def test_killed_all_at_once(self):
        with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
            queue = client.queue("all")
            ids = queue.enqueue_many([b"%d" % n for n in range(100)])
            self.cluster.kill()
            self.cluster.start()
            found = queue.dequeue_many(1000)
        self.assertEqual([m.id for m in found], ids)
        self.cluster.wait_settled()

    def test_a_wait_goes_on_at_the_next_leader(self):
        found = []
        before = self.cluster.leader().status().applied_index

        def wait():
            with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
                found.append(client.queue("late").dequeue(wait_s=LIMIT_S))
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            wait_until(lambda: self.cluster.leader().status().applied_index > before,
                       LIMIT_S, "waits")
            old = self.cluster.leader()
            old.kill()
            with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
                client.queue("late").enqueue(b"at last")
        finally:
            thread.join()
        self.assertEqual(found[0].data, b"at last")
        old.start()
        old.wait_ready()
        self.cluster.wait_settled()


if __name__ == "__main__":
    unittest.main()
