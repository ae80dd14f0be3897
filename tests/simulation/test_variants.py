"""The prover is proven: each broken variant of the code is caught, by its one recorded seed.

The same seed is clean without the variant, so that it is the break which is noticed. Here for one
variant of each invariant that notices any, the one with the shortest run; for all of them in
`python3 -m tests.simulation.variants --replay`. The record comes from a search
(`python3 -m tests.simulation.variants --search`); it must be made anew when the simulator changes,
because a seed means another course then.
"""

import unittest

from tests.simulation.cores import all_cores
from tests.simulation.variants import VARIANTS, read_record, replay

VARIANTS_MIN = 24
MEDIAN_MAX = 2_000      # seeds


class RecordTest(unittest.TestCase):
    """What the search left."""

    def test_every_variant_has_a_record(self):
        record = read_record()
        self.assertGreaterEqual(len(VARIANTS), VARIANTS_MIN)
        self.assertEqual(list(record), list(VARIANTS))
        for name, found in record.items():
            with self.subTest(variant=name):
                self.assertEqual(found["nodes"], VARIANTS[name].nodes)
                self.assertLessEqual(found["median"], MEDIAN_MAX)


class ReplayTest(unittest.TestCase):
    """The recorded seeds, with and without the variant; as many at once as there are cores."""

    @classmethod
    def setUpClass(cls):
        cls.record = read_record()
        pool = cls.enterClassContext(all_cores())
        longest_first = sorted(cls.record, key=lambda name: -cls.record[name]["run_ms"])
        shortest = {cls.record[name]["caught_by"]: name for name in longest_first}
        cls.runs = {(name, broken): pool.submit(replay, name, broken)
                    for broken in (True, False) for name in shortest.values()}

    def replayed(self, wanted: bool):
        """(name, what was caught) of every such run."""
        for (name, broken), run in self.runs.items():
            if broken == wanted:
                yield name, run.result()

    def test_every_variant_is_caught_by_its_seed(self):
        for name, caught in self.replayed(True):
            with self.subTest(variant=name):
                self.assertIsNotNone(caught, "the simulator changed? search anew: python3 -m "
                                     f"tests.simulation.variants --search '{name}'")
                self.assertEqual(caught.by, self.record[name]["caught_by"])

    def test_the_same_seeds_are_clean_without_the_variant(self):
        for name, caught in self.replayed(False):
            with self.subTest(variant=name):
                self.assertIsNone(caught)


if __name__ == "__main__":
    unittest.main()
