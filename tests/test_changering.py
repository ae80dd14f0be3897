"""The ring of newest changes: what is held, what a watch finds in it, what goes first."""

import random
import unittest

from raftnet.changering import CHANGE_OVERHEAD_BYTES, ChangeRing

PUT = 1


def of(*keys: bytes, value: bytes = b"") -> list[tuple]:
    """A change of each key."""
    return [(PUT, key, 0, value) for key in keys]


class Ring(unittest.TestCase):
    def test_it_begins_with_nothing(self):
        ring = ChangeRing(10**6, 10, 7)
        self.assertEqual((ring.base_index, ring.first, ring.end), (7, 0, 0))
        self.assertEqual(ring.number_after(7), 0)
        self.assertEqual(ring.of_key(b"a", 0, 10**6), ([], 0, 0))
        self.assertEqual(ring.of_prefix(b"", 0, 10**6, 100), ([], 0, 0))

    def test_numbers_follow_the_log(self):
        ring = ChangeRing(10**6, 10, 0)
        ring.append(3, of(b"a", b"b"))
        ring.append(5, of(b"a"))
        self.assertEqual([ring.number_after(index) for index in range(7)], [0, 0, 0, 2, 2, 3, 3])
        self.assertEqual([ring.index_of(number) for number in range(3)], [3, 3, 5])

    def test_as_bytes_or_count_reach_the_bound_the_oldest_go(self):
        for ring in (ChangeRing(10**6, 3, 0), ChangeRing(3 * (CHANGE_OVERHEAD_BYTES + 2), 100, 0)):
            for index in range(1, 11):
                ring.append(index, of(b"%d" % (index % 10), value=b"v"))
            self.assertEqual((ring.base_index, ring.end - ring.first), (7, 3))
            self.assertEqual(ring.held_bytes, 3 * (CHANGE_OVERHEAD_BYTES + 2))
            self.assertEqual(ring.number_after(7), ring.first)

    def test_one_that_is_too_large_is_not_held(self):
        ring = ChangeRing(500, 100, 0)
        ring.append(1, of(b"a"))
        ring.append(2, of(b"a", value=bytes(1_000)))
        self.assertEqual((ring.base_index, ring.first, ring.end, ring.held_bytes), (2, 2, 2, 0))
        ring.append(3, of(b"a"))
        self.assertEqual(len(ring.of_key(b"a", 2, 10**6)[0]), 1)

    def test_pieces(self):
        ring = ChangeRing(10**6, 100, 0)
        for index in range(1, 7):
            ring.append(index, of(b"a", b"b"))
        more = 2 * (CHANGE_OVERHEAD_BYTES + 1)
        for read in (lambda number: ring.of_key(b"a", number, more),
                     lambda number: ring.of_prefix(b"a", number, more, 100)):
            found, number = [], 0
            sizes = []
            while number < ring.end:
                piece, number, _ = read(number)
                found += piece
                sizes.append(len(piece))
            self.assertEqual([change[3] for change in found], [1, 2, 3, 4, 5, 6])
            self.assertEqual(sizes, [2, 2, 2])
        self.assertEqual(len(ring.of_key(b"a", 0, 1)[0]), 1)
        self.assertEqual(len(ring.of_prefix(b"", 0, 1, 100)[0]), 1)

    def test_no_more_is_looked_at_than_allowed(self):
        ring = ChangeRing(10**6, 100, 0)
        for index in range(1, 11):
            ring.append(index, of(b"a"))
        self.assertEqual(ring.of_prefix(b"b", 0, 10**6, 4), ([], 4, 4))
        self.assertEqual(ring.of_prefix(b"b", 8, 10**6, 4), ([], 10, 2))

    def test_against_a_plain_list(self):
        chance = random.Random(5)
        ring, told = ChangeRing(10**9, 2_000, 0), []
        keys = [b"a", b"ab", b"abc", b"b", b"ba"]
        for index in range(1, 9_000):
            changed = chance.choices(keys, k=chance.randint(1, 3))
            ring.append(index, of(*changed))
            told += [(index, key) for key in changed]
            if index % 100:
                continue
            self.assertEqual(ring.end - ring.first, min(len(told), 2_000))
            after = chance.randint(ring.base_index, index)
            number = ring.number_after(after)
            for key in keys:
                found = ring.of_key(key, number, 10**9)[0]
                self.assertEqual([c[3] for c in found],
                                 [i for i, k in told[-2_000:] if k == key and i > after])
                found = ring.of_prefix(key, number, 10**9, 10**9)[0]
                self.assertEqual([c[3] for c in found],
                                 [i for i, k in told[-2_000:] if k.startswith(key) and i > after])


if __name__ == "__main__":
    unittest.main()
