"""The prover is proven: each broken variant of the code is caught, by its one recorded seed.

The same seed is clean without the variant, so that it is the break which is noticed. The record
comes from a search (`python3 -m tests.simulation.variants --search`); it must be made anew when
the simulator changes, because a seed means another course then.
"""

import unittest

from tests.simulation.variants import VARIANTS, read_record

VARIANTS_MIN = 24
MEDIAN_MAX = 2_000      # seeds


class VariantsTest(unittest.TestCase):
    """The recorded seeds."""

    @classmethod
    def setUpClass(cls):
        cls.record = read_record()

    def test_every_variant_has_a_record(self):
        self.assertGreaterEqual(len(VARIANTS), VARIANTS_MIN)
        self.assertEqual(list(self.record), list(VARIANTS))
        for name, found in self.record.items():
            with self.subTest(variant=name):
                self.assertEqual(found["nodes"], VARIANTS[name].nodes)
                self.assertLessEqual(found["median"], MEDIAN_MAX)

    def test_every_variant_is_caught_by_its_seed(self):
        for name, found in self.record.items():
            with self.subTest(variant=name):
                caught = VARIANTS[name].run(found["seed"], found["run_ms"])
                self.assertIsNotNone(caught, "the simulator changed? search anew: python3 -m "
                                     f"tests.simulation.variants --search '{name}'")
                self.assertEqual(caught.by, found["caught_by"])

    def test_the_same_seeds_are_clean_without_the_variant(self):
        for name, found in self.record.items():
            with self.subTest(variant=name):
                caught = VARIANTS[name].run(found["seed"], found["run_ms"], broken=False)
                self.assertIsNone(caught)


if __name__ == "__main__":
    unittest.main()
