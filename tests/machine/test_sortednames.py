"""Names in order, against a plain sorted list."""

import random
import unittest
from bisect import bisect_right
from itertools import islice

from raftnet.machine.sortednames import CHUNK_NAMES_MAX, SortedNames


class SortedNamesTest(unittest.TestCase):

    def check(self, names: SortedNames, expected: list[bytes]):
        """All of it, and the structure."""
        self.assertEqual(list(names.after(b"")), expected)
        self.assertEqual(list(names), expected)
        self.assertEqual((len(names), names.first()), (len(expected), min(expected, default=None)))
        self.assertEqual([chunk[0] for chunk in names._chunks], names._firsts)
        sizes = [len(chunk) for chunk in names._chunks]
        self.assertLessEqual(max(sizes, default=0), CHUNK_NAMES_MAX)
        self.assertLessEqual(len(sizes), 4 * len(expected) // CHUNK_NAMES_MAX + 20, sizes)

    def test_nothing(self):
        names = SortedNames()
        names.discard(b"a")
        self.assertEqual(list(names.after(b"")), [])
        self.assertEqual(list(names.after(b"x")), [])
        self.assertEqual(list(names.from_prefix(b"")), [])
        self.assertEqual(list(names.from_prefix(b"x", b"xx")), [])

    def test_twice_is_once(self):
        names = SortedNames()
        for name in (b"b", b"a", b"b", b"a", b"a"):
            names.add(name)
        self.check(names, [b"a", b"b"])
        names.discard(b"a")
        names.discard(b"a")
        names.discard(b"c")
        self.check(names, [b"b"])

    def test_bytes_and_not_letters_make_the_order(self):
        names = SortedNames()
        expected = [b"\0", b"\0\0", b"A", b"Z", b"a", b"a\0", b"a\xff", b"b", b"\xc3\xa9", b"\xff"]
        for name in reversed(expected):
            names.add(name)
        self.check(names, expected)
        self.assertEqual(list(names.from_prefix(b"a")), [b"a", b"a\0", b"a\xff"])
        self.assertEqual(list(names.from_prefix(b"\xff")), [b"\xff"])
        self.assertEqual(list(names.from_prefix(b"a", b"a")), [b"a\0", b"a\xff"])
        self.assertEqual(list(names.from_prefix(b"a", b"A")), [b"a", b"a\0", b"a\xff"])
        self.assertEqual(list(names.from_prefix(b"a", b"b")), [])
        self.assertEqual(list(names.from_prefix(b"B")), [])

    def test_in_order_fills_whole_chunks(self):
        names = SortedNames()
        expected = [b"%05d" % number for number in range(10 * CHUNK_NAMES_MAX)]
        for name in expected:
            names.add(name)
        self.check(names, expected)
        self.assertEqual(len(names._chunks), 10)
        for name in expected[:-1]:
            names.discard(name)
        self.check(names, expected[-1:])
        self.assertEqual(len(names._chunks), 1)

    def test_many_that_are_in_order(self):
        """Behind all others, as mostly, and not."""
        for there in ((), (1,), range(1, 512), range(1, 513), range(1, 514), (700,), (5000,)):
            for count in (0, 1, 2, 511, 512, 513, 1025, 3000):
                names = SortedNames()
                for number in there:
                    names.add(b"%06d" % number)
                rising = range(600, 600 + count)
                names.add_rising([b"%06d" % number for number in rising])
                self.check(names, [b"%06d" % number for number in sorted({*there, *rising})])

    def test_some_at_a_time_fill_whole_chunks(self):
        names = SortedNames()
        for first in range(1, 10_001, 10):
            names.add_rising(list(range(first, first + 10)))
        self.assertEqual(len(names._chunks), -(-10_000 // CHUNK_NAMES_MAX))
        self.assertEqual(list(names), list(range(1, 10_001)))

    def test_backwards(self):
        names = SortedNames()
        expected = [b"%05d" % number for number in range(4 * CHUNK_NAMES_MAX)]
        for name in reversed(expected):
            names.add(name)
        self.check(names, expected)

    def test_given_back_from_the_end(self):
        names = SortedNames()
        expected = [b"%05d" % number for number in range(3 * CHUNK_NAMES_MAX)]
        for name in expected:
            names.add(name)
        for count in (1, CHUNK_NAMES_MAX - 1, CHUNK_NAMES_MAX + 5, 2 * CHUNK_NAMES_MAX):
            names.give_back(count)
            del expected[-count:]
            self.check(names, expected)

    def test_messages_by_their_places(self):
        """Of what cannot be compared, each place is there once; a look-up goes without it."""
        places, names = list(range(1, 4 * CHUNK_NAMES_MAX)), SortedNames()
        random.Random(1).shuffle(places)
        messages = {place: object() for place in places}
        for place in places:
            names.add((place, messages[place]))
        self.assertEqual(list(names), sorted((place, messages[place]) for place in places))
        for place in places[::2]:
            self.assertEqual(next(names.after((place,))), (place, messages[place]))
            names.discard((place, messages[place]))
            self.assertNotEqual(next(names.after((place,)), ())[:1], (place,))
        self.assertEqual([place for place, _ in names], sorted(places[1::2]))

    def test_few_that_are_left_lie_together(self):
        names = SortedNames()
        everything = [b"%05d" % number for number in range(20 * CHUNK_NAMES_MAX)]
        for name in everything:
            names.add(name)
        left = everything[::CHUNK_NAMES_MAX // 4]
        for name in everything:
            if name not in left:
                names.discard(name)
        self.check(names, left)
        self.assertLessEqual(len(names._chunks), 3)

    def test_an_iteration_looks_no_further_than_asked(self):
        names = SortedNames()
        for number in range(10 * CHUNK_NAMES_MAX):
            names.add(b"%05d" % number)
        some = names.from_prefix(b"0", b"00700")
        self.assertEqual(next(some), b"00701")
        names._chunks[5:] = []      # nobody looks there
        self.assertEqual(list(islice(some, 3)), [b"00702", b"00703", b"00704"])

    def test_against_a_sorted_list(self):
        for seed in range(6):
            chance = random.Random(seed)
            names, model = SortedNames(), {}     # in order of arrival
            alphabet = 4 if seed % 2 else 200

            def some_name() -> bytes:
                return bytes(chance.randrange(alphabet) for _ in range(chance.randint(1, 6)))
            for growing in (0.8, 0.2, 0.6, 0.0):
                for _ in range(2500):
                    name = some_name()
                    if chance.random() < growing or not model:
                        names.add(name)
                        model[name] = True
                    else:
                        if chance.random() < 0.9:
                            name = next(iter(model))
                        names.discard(name)
                        model.pop(name, None)
                expected = sorted(model)
                self.check(names, expected)
                for _ in range(50):
                    after, prefix = some_name(), some_name()[:chance.randint(0, 2)]
                    self.assertEqual(list(names.after(after)),
                                     expected[bisect_right(expected, after):])
                    self.assertEqual(
                        list(names.from_prefix(prefix, after)),
                        [name for name in expected if name.startswith(prefix) and name > after])
                    self.assertEqual(list(names.from_prefix(prefix)),
                                     [name for name in expected if name.startswith(prefix)])


if __name__ == "__main__":
    unittest.main()
