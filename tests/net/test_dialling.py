"""Dial: names, all their addresses in turn, and what counts as refused."""

import socket
import time
import unittest

from raftnet.net.dialling import Dial
from raftnet.net.loop import WRITE, Loop
from raftnet.net.names import LookUp

WAIT_S = 10.0


def listen(host: str, port: int = 0) -> socket.socket:
    """A listening socket at an address of loopback; skips where there is none."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise unittest.SkipTest(f"this machine cannot listen at {host}: {error}") from error


def place(host: str) -> tuple:
    """An IPv4 address as names.py gives it."""
    return socket.AF_INET, (host, 0)


class Answers:
    """In the place of Names."""

    def __init__(self, *hosts: str):
        self.places = [place(host) for host in hosts]
        self.error = ""
        self.done = True
        self.asked = 0
        self.question: LookUp | None = None

    def look_up(self, host: str) -> LookUp:
        """Answered at once, unless `done` is false: then `answer` does."""
        self.asked += 1
        self.question = LookUp(host)
        if self.done:
            self.answer()
        return self.question

    def answer(self) -> None:
        """As a thread would."""
        self.question.places, self.question.error = list(self.places), self.error
        self.question.done = True


class DialTest(unittest.TestCase):
    """One Dial, time under control, real sockets."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        self.clock_ms = 0
        self.sockets: list[socket.socket] = []
        self.failures: list[tuple[str, bool, bool]] = []
        self.addCleanup(lambda: [sock.close() for sock in self.sockets])

    def dial(self, names: Answers, port: int, good=None, places_max: int = 8) -> Dial:
        dial = Dial(f"name.example:{port}", self.loop, lambda: self.clock_ms, 3_000, 10_000,
                    self.sockets.append,
                    lambda reason, refused, slow: self.failures.append((reason, refused, slow)))
        self.addCleanup(dial.close)
        dial.begin(names, good, places_max)
        return dial

    def wait(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.loop.wait(0.01)

    def peer(self) -> str:
        """Where the socket that was made leads."""
        return self.sockets[-1].getpeername()[0]

    def test_where_it_was_refuses(self):
        """That decides: another address of the name, which swallows everything, must not hide that
        the process is gone."""
        port = self.closed_port()
        dial = self.dial(Answers("203.0.113.1", "127.0.0.1"), port, place("127.0.0.1"))
        self.wait(lambda: self.failures)
        self.assertEqual(self.failures[0][1:], (True, False))
        self.assertEqual(dial.place, place("127.0.0.1"))

    def closed_port(self) -> int:
        """One that nobody listens at."""
        with listen("127.0.0.1") as server:
            return server.getsockname()[1]

    def full_listener(self, host: str, port: int) -> None:
        """Dialling that one is answered by nothing at all: its backlog is full."""
        server = listen(host, port)
        self.addCleanup(server.close)
        server.listen(0)
        for _ in range(4):
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.setblocking(False)
            sock.connect_ex((host, port))

    def test_the_next_address_where_the_first_refuses(self):
        with listen("127.0.0.2") as server:
            port = server.getsockname()[1]
            self.dial(Answers("127.0.0.1", "127.0.0.2"), port)
            self.wait(lambda: self.sockets)
            self.assertEqual(self.peer(), "127.0.0.2")
        self.assertEqual(self.failures, [])

    def test_the_one_that_worked_last_comes_first(self):
        with listen("127.0.0.1") as one, listen("127.0.0.2", one.getsockname()[1]):
            port = one.getsockname()[1]
            for good in ("127.0.0.2", "127.0.0.1"):
                self.dial(Answers("127.0.0.1", "127.0.0.2"), port, place(good))
                self.wait(lambda: self.sockets)
                self.assertEqual(self.peer(), good)
                self.sockets.pop().close()

    def test_the_next_one_where_the_connection_is_of_no_use(self):
        with listen("127.0.0.1") as one, listen("127.0.0.2", one.getsockname()[1]):
            dial = self.dial(Answers("127.0.0.1", "127.0.0.2"), one.getsockname()[1])
            self.wait(lambda: self.sockets)
            self.sockets.pop().close()
            dial.go_on("it does not greet", slow=True)
            self.wait(lambda: self.sockets)
            self.assertEqual(self.peer(), "127.0.0.2")
            dial.go_on("nor does that one")
        (failure,) = self.failures
        self.assertEqual(failure, ("127.0.0.1: it does not greet; 127.0.0.2: nor does that one",
                                   False, True))

    def test_refused_is_what_every_address_did(self):
        self.dial(Answers("127.0.0.1", "127.0.0.1"), self.closed_port())
        self.wait(lambda: self.failures)
        reason, refused, slow = self.failures[0]
        self.assertIn("ECONNREFUSED", reason)
        self.assertEqual((refused, slow), (True, False))

    def test_not_refused_where_one_says_nothing(self):
        port = self.closed_port()
        self.full_listener("127.0.0.2", port)
        for hosts in (("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")):
            self.failures.clear()
            dial = self.dial(Answers(*hosts), port)
            began_ms = dial.began_ms
            for _ in range(10):
                self.loop.wait(0.01)
            dial.tick(None, 8)
            self.assertEqual(self.failures, [])     # it has its time
            self.clock_ms += 3_000
            dial.tick(None, 8)
            self.wait(lambda: self.failures)
            reason, refused, slow = self.failures[0]
            self.assertEqual((refused, slow), (False, True), reason)
            self.assertIn("127.0.0.2: no answer in time", reason)
            self.assertLessEqual(began_ms, dial.began_ms)

    def test_no_more_addresses_than_the_bound(self):
        self.dial(Answers("127.0.0.1", "127.0.0.1", "127.0.0.1"), self.closed_port(), places_max=2)
        self.wait(lambda: self.failures)
        self.assertEqual(self.failures[0][0].count("ECONNREFUSED"), 2)

    def test_a_name_that_is_unknown(self):
        names = Answers()
        names.error = "Name or service not known"
        self.dial(names, 5001)
        self.assertEqual(self.failures, [
            ("the name name.example: Name or service not known", False, False)])

    def test_a_look_up_that_hangs(self):
        names = Answers("127.0.0.1")
        names.done = False
        dial = self.dial(names, 5001)
        self.clock_ms += 2_999
        dial.tick(None, 8)
        self.assertEqual((self.failures, dial.is_answered), ([], False))
        self.clock_ms += 1
        dial.tick(None, 8)
        self.assertEqual(self.failures, [
            ("looking up the name name.example takes too long", False, True)])

    def test_a_look_up_that_takes_a_while(self):
        with listen("127.0.0.1") as server:
            names = Answers("127.0.0.1")
            names.done = False
            dial = self.dial(names, server.getsockname()[1])
            self.clock_ms += 2_000
            names.answer()
            self.assertTrue(dial.is_answered)
            dial.tick(None, 8)
            self.assertEqual((dial.began_ms, dial.deadline_ms), (2_000, 5_000))
            self.wait(lambda: self.sockets)

    def test_a_connection_to_itself_is_a_refusal(self):
        names = Answers()
        names.done = False
        dial = self.dial(names, 5001)
        dial.place = place("127.0.0.1")
        dial._sock = sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        if sock.connect_ex(sock.getsockname()):
            self.skipTest("this system connects no socket to itself")
        self.loop.watch(sock, WRITE, lambda events: dial._connected())
        self.wait(lambda: self.failures)
        self.assertEqual((self.failures[0][1], self.sockets), (True, []))


if __name__ == "__main__":
    unittest.main()
