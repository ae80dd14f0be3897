"""Receipts as text, and what is none."""

import unittest

from raftnet.client.receipts import (default_consumer, format_receipt, parse_receipt,
                                     parse_receipts)
from raftnet.errors import MalformedError

U64 = 2 ** 64 - 1


class ReceiptsTest(unittest.TestCase):
    def test_text_and_back(self):
        for pair in ((5, 7), (0, 0), (U64, U64)):
            self.assertEqual(parse_receipt(format_receipt(*pair)), pair)
            self.assertEqual(parse_receipt(pair), pair)
        self.assertEqual(parse_receipts("5:7"), [(5, 7)])
        self.assertEqual(parse_receipts((5, 7)), [(5, 7)])
        self.assertEqual(parse_receipts(["5:7", (6, 8)]), [(5, 7), (6, 8)])

    def test_a_bare_number_is_named_as_a_messages_id(self):
        with self.assertRaisesRegex(MalformedError, "5 is a message's id: a receipt is ID:DEL"):
            parse_receipt("5")

    def test_what_is_none(self):
        for wrong in ("", ":", "5:", ":7", "5:7:9", "a:b", "-5:7", "5 :7", f"{U64 + 1}:1", "٣:1",
                      "9" * 5_000, "9" * 5_000 + ":1", None, 5, (5,), (5, -1), (5, "7"), b"5:7"):
            with self.subTest(wrong), self.assertRaises(MalformedError):
                parse_receipt(wrong)
        for wrong in ([], None, {"5:7"}):
            with self.subTest(wrong), self.assertRaises(MalformedError):
                parse_receipts(wrong)

    def test_the_default_consumer_fits(self):
        self.assertLessEqual(len(default_consumer().encode()), 255)


if __name__ == "__main__":
    unittest.main()
