"""Loop: wake-ups from threads, and sockets that are closed or replaced within a round."""

import socket
import threading
import time
import unittest

from raftnet.net.loop import READ, Loop


class TestLoop(unittest.TestCase):
    """The event loop alone."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)

    def pair(self):
        """Two connected sockets."""
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            self.addCleanup(end.close)
        return ends

    def test_wake_from_a_thread_ends_a_wait(self):
        thread = threading.Timer(0.02, self.loop.wake)
        thread.start()
        began = time.monotonic()
        self.assertEqual(self.loop.wait(20), 1)
        self.assertLess(time.monotonic() - began, 10)
        thread.join()
        self.assertEqual(self.loop.wait(0), 0)      # the wake-up is used up

    def test_wake_before_the_wait_counts(self):
        for _ in range(100_000):                    # more than the socket holds
            self.loop.wake()
        self.assertEqual(self.loop.wait(20), 1)
        self.assertEqual(self.loop.wait(0), 0)

    def test_time_is_taken_before_the_callbacks(self):
        ours, theirs = self.pair()
        order = []
        self.loop.before_callbacks = lambda: order.append("before")
        self.loop.watch(ours, READ, lambda events: order.append("callback"))
        theirs.send(b"x")
        self.loop.wait(1)
        self.assertEqual(order, ["before", "callback"])

    def test_a_callback_closes_the_other_ready_socket(self):
        first, first_far = self.pair()
        second, second_far = self.pair()
        heard = []

        def closes(other, name):
            def callback(events):
                heard.append(name)
                self.loop.forget(other)
                other.close()
            return callback
        self.loop.watch(first, READ, closes(second, "first"))
        self.loop.watch(second, READ, closes(first, "second"))
        first_far.send(b"x")
        second_far.send(b"x")
        self.loop.wait(1)
        self.assertEqual(len(heard), 1)

    def test_a_callback_replaces_the_other_under_its_descriptor(self):
        first, first_far = self.pair()
        second, second_far = self.pair()
        heard = []
        new = []

        def replaces(other, name):
            def callback(events):
                heard.append(name)
                number = other.fileno()
                self.loop.forget(other)
                other.close()
                fresh = socket.socket()     # the lowest number that is free: the same
                self.addCleanup(fresh.close)
                if fresh.fileno() == number:
                    new.append(fresh)
                    self.loop.watch(fresh, READ, lambda events: heard.append("wrong"))
            return callback
        self.loop.watch(first, READ, replaces(second, "first"))
        self.loop.watch(second, READ, replaces(first, "second"))
        first_far.send(b"x")
        second_far.send(b"x")
        self.loop.wait(1)
        self.assertEqual(len(new), 1)
        self.assertEqual(len(heard), 1)
        self.assertNotIn("wrong", heard)


if __name__ == "__main__":
    unittest.main()
