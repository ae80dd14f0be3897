"""Bodies of the frames about watches: back and forth, and nothing else is taken."""

import unittest

from raftnet.errors import MalformedError
from raftnet.wire import watches
from raftnet.wire.watches import Change, EventType, Watch, WatchEvent, WatchWhat

CHANGES = [Change(EventType.PUT, b"k", 7, 9, b"value"),
           Change(EventType.DELETED, b"\xff" * 255, 8, 9, b""),
           Change(EventType.EXPIRED, b"k", 2**64 - 1, 10, b""),
           Change(EventType.SIZE, b"q", 3, 10, watches.encode_sizes(1, 2, 2**64 - 1))]


class WatchBodies(unittest.TestCase):
    def test_watch(self):
        for asked in [Watch(False, WatchWhat.KEY, 0, b"k"),
                      Watch(True, WatchWhat.PREFIX, 2**64 - 1, b""),
                      Watch(False, WatchWhat.PREFIX, 5, b"p" * 255),
                      Watch(True, WatchWhat.QUEUE, 0, b"q" * 255)]:
            with self.subTest(asked):
                body = watches.encode_watch(*asked)
                self.assertEqual(watches.decode_watch(body), asked)
                self.assert_exact(watches.decode_watch, body)

    def test_what_no_watch_is(self):
        for body in [watches.encode_watch(False, WatchWhat.KEY, 1, b""),
                     watches.encode_watch(False, WatchWhat.QUEUE, 1, b""),
                     watches.encode_watch(False, 0, 1, b"k"),
                     watches.encode_watch(False, 4, 1, b"k"),
                     b"\2" + watches.encode_watch(False, WatchWhat.KEY, 1, b"k")[1:]]:
            with self.subTest(body.hex()), self.assertRaises(MalformedError):
                watches.decode_watch(body)

    def test_event(self):
        for event in [WatchEvent(0, []), WatchEvent(2**64 - 1, CHANGES),
                      WatchEvent(3, CHANGES[:1])]:
            body = watches.encode_watch_event(*event)
            self.assertEqual(watches.decode_watch_event(body), event)
            self.assert_exact(watches.decode_watch_event, body)

    def test_the_last_event(self):
        body = watches.encode_watch_ended(5)
        self.assertEqual(watches.decode_watch_event(body), WatchEvent(5, None))
        self.assert_exact(watches.decode_watch_event, body)

    def test_a_count_is_not_believed(self):
        body = watches.encode_watch_event(1, CHANGES[:1])
        with self.assertRaises(MalformedError):
            watches.decode_watch_event(body[:8] + b"\xff\xff\xff\xfe" + body[12:])

    def test_only_what_may_happen(self):
        body = bytearray(watches.encode_watch_event(1, CHANGES[:1]))
        for kind in (0, 5, 255):
            body[12] = kind
            with self.subTest(kind), self.assertRaises(MalformedError):
                watches.decode_watch_event(bytes(body))

    def test_overhead_of_a_change(self):
        one, two = (len(watches.encode_watch_event(1, CHANGES[:1] * n)) for n in (1, 2))
        self.assertEqual(two - one, watches.EVENT_OVERHEAD_BYTES + len(b"k") + len(b"value"))

    def test_sizes_and_unwatch(self):
        self.assertEqual(watches.decode_sizes(watches.encode_sizes(1, 2, 3)), (1, 2, 3))
        self.assert_exact(watches.decode_sizes, watches.encode_sizes(1, 2, 3))
        self.assertEqual(watches.decode_unwatch(watches.encode_unwatch(2**32 - 1)), 2**32 - 1)
        self.assert_exact(watches.decode_unwatch, watches.encode_unwatch(7))

    def assert_exact(self, decode, body: bytes) -> None:
        """Every part of it, and more than it, is malformed."""
        for cut in range(len(body)):
            with self.subTest(cut=cut), self.assertRaises(MalformedError):
                decode(body[:cut])
        with self.assertRaises(MalformedError):
            decode(body + b"\0")


if __name__ == "__main__":
    unittest.main()
