"""The table of the fine print in tests/README.md names tests and scenarios that exist."""

import os
import re
import unittest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class FinePrintTest(unittest.TestCase):
    """Every name in the table."""

    def test_every_test_and_scenario_exists(self):
        defined, scenarios = set(), set()
        for folder, _, files in os.walk(TESTS):
            for name in files:
                if name.endswith(".py"):
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        defined.update(re.findall(r"def (test_\w+)", file.read()))
                elif name.endswith(".txt"):
                    scenarios.add(name)
        with open(os.path.join(TESTS, "README.md"), encoding="utf-8") as file:
            table = file.read().split("## The fine print", 1)[1]
        names = set(re.findall(r"`(test_\w+|\w+\.txt)`", table))
        self.assertGreater(len(names), 40)
        self.assertEqual(names - defined - scenarios, set())


if __name__ == "__main__":
    unittest.main()
