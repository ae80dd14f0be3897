"""Connection: bounded output, slow readers, ends, and bytes that are no frames."""

import socket
import time
import unittest

from raftnet.config import NetConfig
from raftnet.errors import ErrorCode
from raftnet.net.connection import Connection
from raftnet.net.loop import Loop
from raftnet.wire.frames import FrameReader, Kind, encode_frame


class TestConnection(unittest.TestCase):
    """One connection, its far end a plain socket."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
        self.addCleanup(self.far.close)
        self.far.settimeout(5)
        self.frames, self.reasons, self.halves = [], [], []
        self.dirty = set()
        self.config = NetConfig(output_bytes_max=8 << 20, output_pause_bytes=1 << 20)
        self.connection = Connection(
            near, "far", self.loop, self.config, self.dirty,
            lambda connection, frames: self.frames.extend(frames),
            lambda connection, reason: self.reasons.append(reason),
            self.halves.append)
        self.addCleanup(self.connection.close, "test over")

    def run_until(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.loop.wait(0.02)
            while self.dirty:
                self.dirty.pop().flush()

    def read_all(self, count: int) -> bytes:
        """That many bytes, while the connection goes on."""
        data = bytearray()
        self.far.setblocking(False)
        deadline = time.monotonic() + 10
        while len(data) < count:
            self.assertLess(time.monotonic(), deadline)
            try:
                data += self.far.recv(1 << 20)
            except BlockingIOError:
                self.loop.wait(0.01)
        return bytes(data)

    def test_frames_in_any_slicing(self):
        for byte in encode_frame(Kind.STATUS, 7, b"abc") * 2:
            self.far.send(bytes((byte,)))
        self.run_until(lambda: len(self.frames) == 2)
        self.assertEqual(self.frames[0], (Kind.STATUS, 7, b"abc"))

    def test_large_output_arrives_whole_and_in_order(self):
        sent = FrameReader()
        total = 0
        for number in range(40):
            frame = encode_frame(Kind.REPLY, number, bytes((number,)) * 100_000)
            self.connection.send_bytes(frame)
            total += len(frame)
        self.assertEqual(self.connection.out_bytes, total)
        self.connection.flush()
        data = self.read_all(total)
        self.assertEqual([f[1] for f in sent.feed(data)], list(range(40)))
        self.run_until(lambda: self.connection.out_bytes == 0)

    def test_what_waits_is_counted_exactly_while_it_leaves(self):
        total = 0
        received = 0
        for _ in range(60):
            self.connection.send(Kind.REPLY, 1, bytes(100_000))
            total += 16 + 100_000
        self.far.setblocking(False)
        deadline = time.monotonic() + 10
        while self.connection.out_bytes:
            self.assertLess(time.monotonic(), deadline)
            before = self.connection.out_bytes
            self.connection.flush()
            self.assertLessEqual(self.connection.out_bytes, before)
            try:
                received += len(self.far.recv(300_000))
            except BlockingIOError:
                self.loop.wait(0.001)
        received += len(self.read_all(total - received))
        self.assertEqual(received, total)

    def order_of(self, total: int) -> list[int]:
        """The request ids in the order in which they arrive."""
        return [frame[1] for frame in FrameReader().feed(self.read_all(total))]

    def test_urgent_frames_overtake_what_has_not_begun_to_leave(self):
        sizes = [100_000] * 3
        frames = [encode_frame(Kind.APPEND, n, bytes(size)) for n, size in enumerate(sizes)]
        urgent = [encode_frame(Kind.HEARTBEAT, 10 + n, b"") for n in range(3)]
        self.connection.send_bytes(frames[0])
        self.connection.send_urgent(urgent[0])
        self.connection.send_bytes(frames[1])
        self.connection.send_urgent(urgent[1])
        self.connection.fence()
        self.connection.send_bytes(frames[2])
        self.connection.send_urgent(urgent[2])
        total = sum(map(len, frames + urgent))
        self.assertEqual(self.connection.out_bytes, total)
        self.connection.flush()
        self.assertEqual(self.order_of(total), [10, 11, 0, 1, 12, 2])

    def test_an_urgent_frame_goes_behind_the_one_that_is_leaving(self):
        rounds = []
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        for size in (1_000, 60_000, 700_000):
            frames = [encode_frame(Kind.APPEND, n, bytes(size)) for n in range(8_000_000 // size)]
            for frame in frames:
                self.connection.send_bytes(frame)
            self.connection.flush()
            self.assertGreater(self.connection.out_bytes, 0)
            total = sum(map(len, frames))
            begun = -(-(total - self.connection.out_bytes) // len(frames[0]))
            leaving = self.connection.leaving
            if leaving:
                self.assertEqual(leaving, frames[begun - 1])
            urgent = [encode_frame(Kind.HEARTBEAT, n, b"") for n in (100_000, 100_001)]
            for frame in urgent:
                self.connection.send_urgent(frame)
            order = self.order_of(total + sum(map(len, urgent)))
            self.assertEqual(order, [*range(begun), 100_000, 100_001, *range(begun, len(frames))])
            rounds.append(begun)
        self.assertEqual(self.connection.out_bytes, 0)
        self.assertTrue(all(rounds))

    def test_what_waits_can_be_taken_back(self):
        kept = encode_frame(Kind.HELLO, 9, b"")
        self.connection.send_bytes(kept)
        self.connection.fence()
        frames = [encode_frame(Kind.APPEND, n, bytes(700_000)) for n in range(11)]
        for frame in frames:
            self.connection.send_bytes(frame)
        self.connection.forget_waiting()
        self.assertEqual(self.connection.out_bytes, len(kept))
        for frame in frames:
            self.connection.send_bytes(frame)
        self.connection.flush()
        self.assertTrue(self.connection.leaving)
        self.connection.forget_waiting()
        last = encode_frame(Kind.APPEND, 99, b"")
        self.connection.send_bytes(last)
        number = frames.index(self.connection.leaving)
        total = len(kept) + (number + 1) * len(frames[0]) + len(last)
        self.assertEqual(self.connection.sent_bytes + self.connection.out_bytes, total)
        self.assertEqual(self.order_of(total), [9, *range(number + 1), 99])
        self.assertEqual((self.connection.leaving, self.connection.sent_bytes), (b"", total))

    def test_a_part_of_a_frame_is_told_where_the_other_end_is_known(self):
        heard = []
        self.connection._on_frames = lambda connection, frames: heard.append(len(frames))
        frame = encode_frame(Kind.APPEND, 7, bytes(50_000))
        self.far.sendall(frame[:100])
        for _ in range(5):
            self.loop.wait(0.01)
        self.assertEqual(heard, [])
        self.connection.identity = 2
        self.far.sendall(frame[100:20_000])
        self.run_until(lambda: heard)
        self.assertEqual(set(heard), {0})
        self.far.sendall(frame[20_000:])
        self.run_until(lambda: heard[-1])
        self.assertEqual(heard[-1], 1)

    def test_one_that_does_not_read_is_dropped_at_the_bound(self):
        for _ in range(100):
            self.connection.send(Kind.REPLY, 1, bytes(1 << 20))
            self.connection.flush()
            if self.connection.closed:
                break
        self.assertTrue(self.connection.closed)
        self.assertEqual(len(self.reasons), 1)
        self.assertIn("does not read", self.reasons[0])

    def test_a_slow_reader_is_read_from_no_more_until_it_has_read(self):
        self.run_until(lambda: True)
        for _ in range(6):
            self.connection.send(Kind.REPLY, 1, bytes(1 << 20))
        self.connection.flush()
        self.assertGreater(self.connection.out_bytes, self.config.output_pause_bytes)
        self.far.send(encode_frame(Kind.STATUS, 1, b""))
        for _ in range(5):
            self.loop.wait(0.01)
        self.assertEqual(self.frames, [])
        self.read_all(6 * (16 + (1 << 20)))
        self.run_until(lambda: self.frames)

    def test_end_of_the_other_side(self):
        self.far.close()
        self.run_until(lambda: self.connection.closed)
        self.assertEqual(self.reasons, ["closed by the other side"])
        self.connection.send(Kind.REPLY, 1, b"x")       # nothing happens
        self.connection.close("again")
        self.assertEqual(len(self.reasons), 1)

    def test_half_closed_and_owed_an_answer(self):
        self.far.send(encode_frame(Kind.STATUS, 3, b""))
        self.far.shutdown(socket.SHUT_WR)
        self.run_until(lambda: self.halves)
        self.assertFalse(self.connection.closed)
        self.connection.send(Kind.STATUS_REPLY, 3, b"here")
        self.run_until(lambda: self.connection.closed)
        self.assertEqual(FrameReader().feed(self.far.recv(100)), [(Kind.STATUS_REPLY, 3, b"here")])

    def test_garbage_is_told_once_with_what_came_before_it(self):
        errors = []
        self.connection._on_frames = lambda c, frames: errors.append(
            (list(frames), c.reader.error))
        self.far.send(encode_frame(Kind.STATUS, 1, b"") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.run_until(lambda: errors and errors[-1][1])
        self.assertEqual(errors[0][0], [(Kind.STATUS, 1, b"")])
        self.assertEqual(errors[-1][1].code, ErrorCode.BAD_FRAME)

    def test_close_after_flush_sends_the_last_words(self):
        self.connection.send(Kind.ERROR, 1, b"last words")
        self.connection.close_after_flush("refused")
        self.run_until(lambda: self.connection.closed)
        self.assertEqual(FrameReader().feed(self.far.recv(100)), [(Kind.ERROR, 1, b"last words")])
        self.assertEqual(self.far.recv(100), b"")

    def test_reset_by_the_other_side(self):
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.far.close()
        self.run_until(lambda: self.connection.closed)
        self.assertEqual(len(self.reasons), 1)


if __name__ == "__main__":
    unittest.main()
