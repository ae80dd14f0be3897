"""Names: look-ups in threads, one a name, none that holds up another."""

import socket
import threading
import time
import unittest

from raftnet.net.names import Names

WAIT_S = 10.0
PLACE = (socket.AF_INET, ("127.0.0.1", 0))


class Resolver:
    """In the place of getaddrinfo: answers when it is told to."""

    def __init__(self):
        self.asked: list[str] = []
        self.answers: dict[str, object] = {}
        self.gates: dict[str, threading.Event] = {}

    def gate(self, host: str) -> threading.Event:
        """That name hangs until this is set."""
        return self.gates.setdefault(host, threading.Event())

    def __call__(self, host, port, type=0, flags=0):
        self.asked.append(host)
        if host in self.gates:
            self.gates[host].wait(WAIT_S)
        answer = self.answers.get(host, [PLACE])
        if isinstance(answer, Exception):
            raise answer
        return [(family, type, 6, "", where) for family, where in answer]


class NamesTest(unittest.TestCase):
    """Names with a resolver that the test plays."""

    def setUp(self):
        self.resolver = Resolver()
        self.woken = threading.Event()
        self.names = Names(self.woken.set, 2, self.resolver)
        self.addCleanup(self.names.close)
        self.addCleanup(lambda: [gate.set() for gate in self.resolver.gates.values()])

    def wait(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.woken.wait(0.01)
            self.woken.clear()

    def test_numeric_addresses_are_known_at_once(self):
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            question = self.names.look_up(host)
            self.assertTrue(question.done)
            self.assertEqual([(f, where[:2]) for f, where in question.places],
                             [(family, (host, 0))])
        self.assertEqual(self.resolver.asked, [])

    def test_a_name_is_answered_by_a_thread_that_wakes_the_loop(self):
        gate = self.resolver.gate("a.example")
        question = self.names.look_up("a.example")
        self.assertFalse(question.done)
        self.assertFalse(self.woken.is_set())
        gate.set()
        self.assertTrue(self.woken.wait(WAIT_S))
        self.assertEqual((question.done, question.places), (True, [PLACE]))

    def test_asked_once_while_it_is_under_way_and_anew_after_that(self):
        gate = self.resolver.gate("a.example")
        first = self.names.look_up("a.example")
        self.assertIs(self.names.look_up("a.example"), first)
        gate.set()
        self.wait(lambda: first.done)
        self.assertEqual(self.resolver.asked, ["a.example"])
        self.resolver.answers["a.example"] = [(socket.AF_INET, ("127.0.0.2", 0))]
        second = self.names.look_up("a.example")
        self.wait(lambda: second.done)
        self.assertEqual(second.places[0][1][0], "127.0.0.2")

    def test_one_that_hangs_holds_up_no_other(self):
        self.resolver.gate("hangs.example")
        hangs = self.names.look_up("hangs.example")
        for number in range(5):
            other = self.names.look_up(f"{number}.example")
            self.wait(lambda other=other: other.done)
        self.assertFalse(hangs.done)

    def test_more_names_than_threads_wait_for_their_turn(self):
        gates = [self.resolver.gate(host) for host in ("1.example", "2.example")]
        questions = [self.names.look_up(f"{n}.example") for n in (1, 2, 3, 4)]
        self.wait(lambda: len(self.resolver.asked) == 2)
        self.assertEqual(sum("names" in thread.name for thread in threading.enumerate()), 2)
        gates[1].set()
        self.wait(lambda: all(question.done for question in questions[1:]))
        self.assertFalse(questions[0].done)
        gates[0].set()
        self.wait(lambda: questions[0].done)

    def test_what_goes_wrong_is_said(self):
        for host, answer, text in (
                ("none.example", socket.gaierror(-2, "Name or service not known"), "not known"),
                ("a" * 300, UnicodeError("label too long"), "label too long"),
                ("empty.example", [], "no address")):
            self.resolver.answers[host] = answer
            question = self.names.look_up(host)
            self.wait(lambda question=question: question.done)
            self.assertIn(text, question.error)
            self.assertEqual(question.places, [])

    def test_nobody_is_woken_after_the_end(self):
        gate = self.resolver.gate("a.example")
        question = self.names.look_up("a.example")
        self.wait(lambda: self.resolver.asked)
        self.names.close()
        gate.set()
        self.wait(lambda: question.done)
        self.assertFalse(self.woken.is_set())


if __name__ == "__main__":
    unittest.main()
