"""The invariants themselves: what they must accuse, and what they must not."""

import unittest
from types import SimpleNamespace

from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.types import HardState
from raftnet.simulation.invariants import InvariantError, Invariants

NODE = "127.0.0.1:5001"
CLUSTER = bytes(range(16))


def _entries(*terms: int):
    return [encode_entry(index, term, EntryKind.BATCH, b"payload")
            for index, term in enumerate(terms, 1)]


class ReopenedTest(unittest.TestCase):
    """What a node's disk confirmed is there at its next start, or was rightly annulled."""

    def setUp(self):
        self.invariants = Invariants()
        node = SimpleNamespace(address=NODE, replica=SimpleNamespace(cluster_id=CLUSTER))
        job = SimpleNamespace(hard_state=HardState(3, 7), entries=_entries(1, 2, 2, 3))
        self.invariants.durable(node, [job])

    def reopen(self, *terms: int, state=HardState(3, 7), cluster_id=CLUSTER) -> None:
        """The node starts again with a log of these terms."""
        self.invariants.reopened(NODE, SimpleNamespace(
            cluster_id=cluster_id, hard_state=state, entries=_entries(*terms)))

    def test_all_of_it_is_there(self):
        self.reopen(1, 2, 2, 3)

    def test_jobs_under_way_may_have_added_or_replaced(self):
        self.reopen(1, 2, 2, 3, 3)
        self.reopen(1, 2, 4, state=HardState(4, 0))

    def test_what_an_annulled_tail_left_is_shorter_and_of_a_later_term(self):
        self.reopen(1, 4, state=HardState(4, 0))

    def test_an_entry_is_missing(self):
        for terms in ((1, 2, 2), (1, 2, 3), (1,), ()):
            with self.subTest(terms=terms), self.assertRaisesRegex(InvariantError, "lacks entry"):
                self.reopen(*terms)

    def test_term_or_vote_is_missing(self):
        for state in (HardState(2, 7), HardState(3, 0), HardState(3, 8)):
            with self.subTest(state=state), self.assertRaisesRegex(InvariantError, "term and vote"):
                self.reopen(1, 2, 2, 3, state=state)

    def test_the_cluster_is_forgotten(self):
        with self.assertRaisesRegex(InvariantError, "forgot its cluster"):
            self.reopen(cluster_id=None)


if __name__ == "__main__":
    unittest.main()
