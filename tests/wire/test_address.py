"""parse_address and format_address."""

import unittest

from raftnet.errors import MalformedError
from raftnet.wire.address import check_address, format_address, parse_address


class AddressTest(unittest.TestCase):
    def test_there_and_back(self):
        for text, pair in (("127.0.0.1:5001", ("127.0.0.1", 5001)), ("[::1]:5001", ("::1", 5001)),
                           ("localhost:1", ("localhost", 1)), ("a-b.c:65535", ("a-b.c", 65535))):
            with self.subTest(text):
                self.assertEqual(parse_address(text), pair)
                self.assertEqual(format_address(*pair), text)
        self.assertEqual(parse_address(" h:01 "), ("h", 1))

    def test_what_is_no_address(self):
        for text in ("", "5001", ":5001", "host", "host:", "host:x", "host:0", "host:65536",
                     "host:-1", "host:+1", "host:5 1", "::1:5001", "[::1]", "[::1]5001",
                     "[::1:5001",
                     "[host]:5001", "[]:5001", "a b:1", "a,b:1", "host:999999", "host:²",
                     "h" * 256 + ":1", "a..b:80", ".a:80", "h" * 64 + ".b:80"):
            with self.subTest(text), self.assertRaises(MalformedError) as caught:
                parse_address(text)
            self.assertIn("is no address", str(caught.exception))

    def test_one_form_is_kept(self):
        for text in ("127.0.0.1:5001", "[::1]:5001", "host.example.:80"):
            check_address(text)
        for text in (" 127.0.0.1:5001", "127.0.0.1:05001", "host:80 ", "a..b:80"):
            with self.subTest(text), self.assertRaises(MalformedError):
                check_address(text)

