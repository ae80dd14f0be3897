"""JOIN, INVITE, CHANGE: what each may say.

Round trips, truncations, tails and random damage of their bodies are in test_requests.py, with
those of all other frames.
"""

import unittest

from raftnet.errors import MalformedError
from raftnet.wire import joining

CLUSTER = bytes(range(16))


class JoiningTest(unittest.TestCase):

    def assert_malformed(self, decode, body: bytes):
        with self.assertRaises(MalformedError):
            decode(body)

    def test_every_flag_of_a_join(self):
        for flags in range(256):
            body = joining.encode_join(7, "a:1", flags)
            with self.subTest(flags):
                if flags <= 3:
                    self.assertEqual(joining.decode_join(body), (7, "a:1", flags))
                else:
                    self.assert_malformed(joining.decode_join, body)

    def test_every_flag_of_an_invite(self):
        for flags in range(256):
            body = joining.encode_invite(CLUSTER, "a:1", flags)
            with self.subTest(flags):
                if flags in (0, joining.JOIN_STAYS):
                    self.assertEqual(joining.decode_invite(body), (CLUSTER, "a:1", flags))
                else:
                    self.assert_malformed(joining.decode_invite, body)

    def test_what_must_not_be_missing(self):
        self.assert_malformed(joining.decode_join, joining.encode_join(0, "a:1"))
        self.assert_malformed(joining.decode_join, joining.encode_join(1, ""))
        self.assert_malformed(joining.decode_invite, joining.encode_invite(CLUSTER, ""))

    def test_every_operation_of_a_change(self):
        for operation in range(256):
            body = joining.encode_change(operation, ["a:1"])
            with self.subTest(operation):
                if operation in (joining.CHANGE_REMOVE, joining.CHANGE_TRANSFER,
                                 joining.CHANGE_SET):
                    self.assertEqual(joining.decode_change(body), (operation, ["a:1"]))
                else:
                    self.assert_malformed(joining.decode_change, body)

    def test_how_many_addresses_a_change_has(self):
        most = joining.CHANGE_ADDRESSES_MAX
        for operation, allowed in ((joining.CHANGE_REMOVE, {1}), (joining.CHANGE_TRANSFER, {1}),
                                   (joining.CHANGE_SET, {1, 2, most})):
            for count in (0, 1, 2, most, most + 1):
                body = joining.encode_change(operation, ["a:1"] * count)
                with self.subTest(operation, count=count):
                    if count in allowed:
                        self.assertEqual(joining.decode_change(body),
                                         (operation, ["a:1"] * count))
                    else:
                        self.assert_malformed(joining.decode_change, body)

    def test_a_count_is_not_believed(self):
        body = joining.encode_change(joining.CHANGE_SET, ["a:1", "b:2"])
        for count in (0, 1, 3, 0xFFFF):
            with self.subTest(count):
                self.assert_malformed(joining.decode_change,
                                      body[:1] + count.to_bytes(2, "big") + body[3:])

    def test_ids_have_their_size(self):
        for decode, size in ((joining.decode_join_reply, 16), (joining.decode_invite_reply, 8)):
            for length in range(2 * size):
                if length != size:
                    with self.subTest(decode.__name__, length=length):
                        self.assert_malformed(decode, bytes(length))


if __name__ == "__main__":
    unittest.main()
