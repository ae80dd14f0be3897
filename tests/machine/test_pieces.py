"""Pieces: what a dict would hold, and no dict in it that grows with all of them."""

import random
import unittest

from raftnet.machine.pieces import ONE_PIECE_MAX, PIECES, Pieces


class TestPieces(unittest.TestCase):
    def test_it_is_a_dict(self):
        """Any calls in any order, below and above the number where there is more than one piece."""
        for keys in (range(1000), range(5 * ONE_PIECE_MAX),
                     [b"key%d" % number for number in range(3 * ONE_PIECE_MAX)]):
            chance = random.Random(1)
            pieces, model = Pieces(), {}
            for phase in (0.9, 0.3, 0.9, 0.0):          # share of what is put
                for _ in range(2 * len(keys)):
                    key = chance.choice(keys)
                    if chance.random() < phase:
                        pieces[key] = model[key] = chance.random()
                    elif key in model:
                        self.assertEqual(pieces.pop(key), model.pop(key))
                    self.assertIs(key in pieces, key in model)
                    self.assertEqual(pieces.get(key, 0), model.get(key, 0))
                self.assertEqual(len(pieces), len(model))
                self.assertEqual(pieces, model)
                self.assertEqual(sorted(pieces.items()), sorted(model.items()))
            for key in list(model):
                self.assertEqual(pieces[key], model[key])
                del pieces[key], model[key]
            self.assertEqual((len(pieces), list(pieces)), (0, []))

    def test_what_is_not_there_is_missed(self):
        pieces = Pieces()
        for count in (0, ONE_PIECE_MAX + 1):
            for key in range(count):
                pieces[key] = key
            with self.assertRaises(KeyError):
                pieces[-1]
            with self.assertRaises(KeyError):
                del pieces[-1]
            self.assertIsNone(pieces.get(-1))
            self.assertEqual(len(pieces), count)

    def test_the_pieces_are_built_anew_at_different_moments(self):
        """Numbers in a row, as those of deliveries are, and names."""
        for key_of in (int, lambda number: b"key%d" % number):
            pieces = Pieces()
            for number in range(300_000):
                pieces[key_of(number)] = number
            sizes = sorted(map(len, pieces._pieces))
            self.assertEqual(len(sizes), PIECES)
            self.assertGreater(sizes[0], 300_000 / PIECES * 0.9)
            self.assertLess(sizes[-1], 300_000 / PIECES * 1.1)
            # An even share would be the same to one entry; by chance they differ by some 1.5 %.
            self.assertGreater(sizes[-PIECES // 4] - sizes[PIECES // 4], 40)

    def test_many_new_ones_at_once(self):
        for first, second in ((10, 20), (10, ONE_PIECE_MAX), (ONE_PIECE_MAX, 1), (0, 0)):
            pieces = Pieces()
            pieces.add_new(range(first), [str(number) for number in range(first)])
            keys = range(first, first + second)
            pieces.add_new(keys, [str(number) for number in keys])
            self.assertEqual(pieces, {number: str(number) for number in range(first + second)})
            self.assertEqual(len(pieces), first + second)

    def test_the_tables_go_with_the_last_entry(self):
        pieces = Pieces()
        for number in range(ONE_PIECE_MAX + 1):
            pieces[number] = number
        for number in range(ONE_PIECE_MAX + 1):
            del pieces[number]
        self.assertEqual(pieces._pieces, [{}])
        pieces[b"a"] = 1
        pieces.clear()
        self.assertEqual((len(pieces), pieces), (0, {}))

    def test_it_is_given_back_in_slices(self):
        pieces = Pieces()
        for number in range(3 * ONE_PIECE_MAX):
            pieces[number] = number
        for left in range(2 * ONE_PIECE_MAX, -1, -ONE_PIECE_MAX):
            pieces.give_back(ONE_PIECE_MAX)
            self.assertEqual(len(pieces), left)
        pieces.give_back(1)
        self.assertEqual(len(pieces), 0)
