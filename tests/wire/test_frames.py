"""Frames: whatever the slicing, the reader gives the same; damage ends it, and costs no memory."""

import random
import unittest
from unittest import mock
from zlib import crc32

from raftnet.errors import ErrorCode
from raftnet.wire import frames
from raftnet.wire.frames import FrameReader, Kind, encode_frame

FRAMES = [(Kind.STATUS, 7, b""), (Kind.REQUEST, 0, b"x"), (Kind.REPLY, 2**32 - 1, bytes(300)),
          (Kind.LOG, 1, b"\xff" * 16), (200, 5, b"a kind that nobody knows")]
STREAM = b"".join(encode_frame(*frame) for frame in FRAMES)
GOOD = encode_frame(*FRAMES[2])


def sealed(frame: bytes) -> bytes:
    """The frame with the checksum that fits its bytes."""
    return frame[:4] + crc32(frame[8:]).to_bytes(4, "big") + frame[8:]


def fed(reader: FrameReader, pieces) -> list:
    """All frames that come out of the pieces."""
    return [frame for piece in pieces for frame in reader.feed(piece)]


class CountedBytes(bytes):
    """Bytes that count what is cut out of them."""

    copied = 0

    def __getitem__(self, key):
        piece = super().__getitem__(key)
        if isinstance(key, slice):
            CountedBytes.copied += len(piece)
        return piece


class FrameReaderTest(unittest.TestCase):

    def assert_broken(self, data: bytes, code: ErrorCode, whole: int, offset: int,
                      bytes_max: int = frames.FRAME_BYTES_MAX):
        """However it is fed: the first frames come out, then the error, and nothing any more."""
        for size in (1, 7, len(data)):
            reader = FrameReader(bytes_max)
            pieces = [data[at:at + size] for at in range(0, len(data), size)]
            with self.subTest(size=size):
                self.assertEqual(fed(reader, pieces), FRAMES[:whole])
                self.assertIsNotNone(reader.error)
                self.assertEqual((reader.error.code, reader.offset), (code, offset))
                self.assertEqual(reader.feed(GOOD), [])
                self.assertEqual(reader.held, 0)

    def test_whole(self):
        reader = FrameReader()
        self.assertEqual(reader.feed(STREAM), FRAMES)
        self.assertEqual((reader.error, reader.held, reader.offset), (None, 0, len(STREAM)))

    def test_byte_by_byte(self):
        reader = FrameReader()
        found = []
        for end in range(1, len(STREAM) + 1):
            found += reader.feed(STREAM[end - 1:end])
            self.assertEqual(reader.offset + reader.held, end)
        self.assertEqual((found, reader.held), (FRAMES, 0))

    def test_with_a_tail(self):
        for end in range(len(GOOD)):
            reader = FrameReader()
            with self.subTest(tail=end):
                self.assertEqual(reader.feed(STREAM + GOOD[:end]), FRAMES)
                self.assertEqual(reader.held, end)
                self.assertEqual(reader.feed(GOOD[end:]), [FRAMES[2]])

    def test_any_slicing(self):
        chance = random.Random(5)
        for _ in range(500):
            cuts = sorted(chance.choices(range(len(STREAM) + 1), k=chance.randint(0, 12)))
            pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)])]
            reader = FrameReader()
            self.assertEqual(fed(reader, pieces), FRAMES, cuts)
            self.assertEqual((reader.error, reader.held), (None, 0))

    def test_too_short_a_length(self):
        for length in range(12):
            with self.subTest(length=length):
                # Everything else is right, the checksum over what the length says included.
                rest = bytes((frames.VERSION, Kind.STATUS)) + bytes(6)
                checksum = crc32(rest[:max(0, length - 4)]).to_bytes(4, "big")
                bad = length.to_bytes(4, "big") + checksum + rest
                self.assert_broken(STREAM + bad, ErrorCode.BAD_FRAME, 5, len(STREAM))

    def test_the_longest_frame(self):
        frame = encode_frame(Kind.REQUEST, 1, bytes(84))
        self.assertEqual(FrameReader(100).feed(frame), [(Kind.REQUEST, 1, bytes(84))])
        self.assert_broken(frame, ErrorCode.BAD_FRAME, 0, 0, 99)
        longest = bytes(frames.FRAME_BYTES_MAX - frames.HEADER_BYTES)
        self.assertEqual(FrameReader().feed(encode_frame(1, 1, longest)), [(1, 1, longest)])

    def test_too_long_is_refused_by_the_header_alone(self):
        for length in (frames.FRAME_BYTES_MAX - 3, 2**31, 2**32 - 1):
            with self.subTest(length=length):
                self.assert_broken(length.to_bytes(4, "big") + bytes(12),
                                   ErrorCode.BAD_FRAME, 0, 0)

    def test_any_flipped_bit(self):
        start = len(encode_frame(*FRAMES[0]))
        end = start + len(encode_frame(*FRAMES[1]))
        for bit in range(start * 8, end * 8):
            bad = bytearray(STREAM[:end])
            bad[bit // 8] ^= 0x80 >> bit % 8
            reader = FrameReader()
            with self.subTest(bit=bit):
                self.assertEqual(reader.feed(bytes(bad)), FRAMES[:1])
                # A length that is now larger is believed until the frame's end has come.
                reader.feed(bytes(frames.FRAME_BYTES_MAX))
                self.assertEqual(reader.error.code, ErrorCode.BAD_FRAME)
                self.assertEqual(reader.offset, start)

    def test_another_version(self):
        for version in (0, 2, 255):
            bad = sealed(GOOD[:8] + bytes((version,)) + GOOD[9:])
            with self.subTest(version=version):
                self.assert_broken(STREAM + bad + GOOD, ErrorCode.WRONG_VERSION, 5, len(STREAM))

    def test_an_error_keeps_the_good_frames_before_it(self):
        bad = GOOD[:-1] + b"\1"
        self.assert_broken(STREAM + bad + GOOD, ErrorCode.BAD_FRAME, 5, len(STREAM))

    def test_random_bytes_never_raise(self):
        chance = random.Random(6)
        for _ in range(2_000):
            data = bytearray(STREAM)
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            reader = FrameReader()
            found = fed(reader, (bytes(data[:90]), bytes(data[90:])))
            self.assertLessEqual(len(found), len(FRAMES))

    def test_a_large_frame_in_small_pieces_is_linear_work(self):
        body = bytes(frames.FRAME_BYTES_MAX - frames.HEADER_BYTES)
        data = encode_frame(Kind.APPEND, 3, body)
        checked = []

        def counted(piece, *begun):
            checked.append(len(piece))
            return crc32(piece, *begun)

        CountedBytes.copied = 0
        reader = FrameReader()
        joined = []
        found = []
        with mock.patch.object(frames, "crc32", counted), \
                mock.patch.object(frames, "memoryview", create=True) as view:
            view.side_effect = lambda whole: joined.append(len(whole)) or memoryview(whole)
            for at in range(0, len(data), 1024):
                found += reader.feed(CountedBytes(data[at:at + 1024]))
                self.assertLessEqual(len(reader._pieces), 1 + at // 1024)
        self.assertEqual(found, [(Kind.APPEND, 3, body)])
        # Looked at as a whole when the header came, and when the end came; joined not in between.
        self.assertLessEqual(len(joined), 3)
        self.assertLessEqual(sum(joined), len(data) + 2 * 1024)
        self.assertEqual(sum(checked), len(data) - frames.CHECKED_FROM)
        self.assertLessEqual(CountedBytes.copied, 2 * 1024)

    def test_small_frames_in_one_piece_are_linear_work(self):
        data = encode_frame(Kind.STATUS, 1, b"12345678") * 10_000
        CountedBytes.copied = 0
        reader = FrameReader()
        self.assertEqual(len(reader.feed(CountedBytes(data))), 10_000)
        self.assertLessEqual(CountedBytes.copied, len(data))


class EncodeFrameTest(unittest.TestCase):

    def test_a_body_over_the_limit_is_our_own_bug(self):
        with self.assertRaises(AssertionError):
            encode_frame(1, 1, bytes(frames.FRAME_BYTES_MAX - frames.HEADER_BYTES + 1))

    def test_kinds_are_distinct_and_fit(self):
        self.assertEqual(len({int(kind) for kind in Kind}), len(Kind.__members__))
        self.assertTrue(all(0 < kind < 256 for kind in Kind))


if __name__ == "__main__":
    unittest.main()
