"""The invariants themselves: what they must accuse, and what they must not."""

import unittest
from types import SimpleNamespace

from raftnet.raft.entry import HEADER_BYTES, EntryKind, encode_entry
from raftnet.raft.membership import Membership
from raftnet.raft.types import HardState, SnapshotMeta
from raftnet.simulation.promises import InvariantError, Promises

NODE = "127.0.0.1:5001"
NODE_ID = 1
CLUSTER = bytes(range(16))


def _entries(*terms: int):
    return [encode_entry(index, term, EntryKind.BATCH, b"payload")
            for index, term in enumerate(terms, 1)]


def _node(node_id: int = NODE_ID, old_copy: bool = False):
    return SimpleNamespace(address=NODE, old_copy=old_copy,
                           replica=SimpleNamespace(cluster_id=CLUSTER, node_id=node_id))


def _job(*terms: int, state: HardState | None = None):
    return SimpleNamespace(hard_state=state, entries=_entries(*terms), install=None)


def _meta(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index, term, 1, Membership(CLUSTER, ()), 0, 100, 0)


def _store(node_id: int, cluster_id, state: HardState, terms, base: int = 0,
           snapshot: SnapshotMeta | None = None):
    """A directory whose log has entries of these terms behind `base`."""
    log = [encode_entry(base + at, term, EntryKind.BATCH, b"payload")
           for at, term in enumerate(terms, 1)]
    return SimpleNamespace(
        node_id=node_id, cluster_id=cluster_id, hard_state=state, log_base_index=base,
        last_index=base + len(log), snapshot=snapshot and SimpleNamespace(meta=snapshot),
        last_term=terms[-1] if terms else snapshot.term if snapshot else 0,
        read_entries=lambda first, count: log[first - base - 1:])


class ReopenedTest(unittest.TestCase):
    """What a node's disk confirmed is there at its next start, or was rightly annulled."""

    def setUp(self):
        self.promises = Promises()
        self.promises.durable(_node(), [_job(1, 2, 2, 3, state=HardState(3, 7))])

    def reopen(self, *terms: int, state=HardState(3, 7), cluster_id=CLUSTER,
               node_id=NODE_ID, base: int = 0, snapshot: SnapshotMeta | None = None) -> None:
        """The node starts again with a log of these terms."""
        self.promises.reopened(NODE, _store(node_id, cluster_id, state, terms, base, snapshot),
                               CLUSTER)

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

    def test_what_a_snapshot_contains_is_held(self):
        self.reopen(2, 3, base=2, snapshot=_meta(3, 2))
        self.reopen(base=9, snapshot=_meta(9, 3))

    def test_a_snapshot_does_not_stand_for_what_follows_it(self):
        with self.assertRaisesRegex(InvariantError, "lacks entry 4"):
            self.reopen(base=3, snapshot=_meta(3, 2))

    def test_an_installed_snapshot_takes_the_place_of_the_log(self):
        node = _node()
        for meta, last in ((_meta(3, 2), 4), (_meta(8, 3), 8)):
            self.promises.durable(node, [SimpleNamespace(hard_state=None, entries=[],
                                                         install=meta)])
            self.assertEqual(self.promises.of(NODE_ID).last_index, last)
        with self.assertRaisesRegex(InvariantError, "lacks the snapshot up to entry 8"):
            self.reopen(1, 2, 2, 3)

    def test_a_log_that_holds_all_of_a_lost_snapshot_is_enough(self):
        self.reopen(1, 2, 2, 3, snapshot=_meta(3, 2))
        self.reopen(1, 2, 2, 3)
        with self.assertRaisesRegex(InvariantError, "lacks the snapshot up to entry 3"):
            self.reopen(1, 4, state=HardState(4, 0))

    def test_the_cluster_is_forgotten(self):
        with self.assertRaisesRegex(InvariantError, "forgot its cluster"):
            self.reopen(cluster_id=None)

    def test_another_identity_at_the_address_owes_nothing(self):
        self.reopen(cluster_id=None, state=HardState(), node_id=2)


class VoteTest(unittest.TestCase):
    """A vote is told."""

    def setUp(self):
        self.promises = Promises()
        self.promises.durable(_node(), [_job(1, state=HardState(3, 7))])

    def test_it_is_durable(self):
        self.promises.vote_leaves(_node(), 7, 3)
        for to, term in ((8, 3), (7, 4)):
            with self.assertRaisesRegex(InvariantError, "told once it is durable"):
                self.promises.vote_leaves(_node(), to, term)
        with self.assertRaisesRegex(InvariantError, "told once it is durable"):
            self.promises.vote_leaves(_node(2), 7, 3)

    def test_a_later_term_is_as_good(self):
        # Seed 55 of the variant "serving before all founders": the vote in term 4 and the news of
        # term 5 came in one turn, so that one job promised both.
        self.promises.durable(_node(), [_job(state=HardState(5, 0))])
        self.promises.vote_leaves(_node(), 8, 4)
        self.assertEqual(self.promises.vote(NODE_ID, CLUSTER, 4), 8)
        for to, term in ((9, 4), (8, 3)):
            with self.assertRaisesRegex(InvariantError, "told once it is durable"):
                self.promises.vote_leaves(_node(), to, term)


class EndedTest(unittest.TestCase):
    """An identity whose directory was emptied, or replaced by an old copy, promises nothing."""

    def setUp(self):
        self.promises = Promises()
        self.promises.durable(_node(), [_job(1, 2, state=HardState(3, 7))])
        self.promises.end(NODE_ID, "ended")

    def test_what_it_promised_stands(self):
        self.assertTrue(self.promises.holds(NODE_ID, 2, _entries(1, 2)[1].data[:HEADER_BYTES]))
        self.assertEqual(self.promises.vote(NODE_ID, CLUSTER, 3), 7)

    def test_it_neither_votes_nor_acknowledges(self):
        for job in (_job(state=HardState(4, 7)), _job(1)):
            with self.subTest(job=job), self.assertRaisesRegex(InvariantError, "^ended: "):
                self.promises.durable(_node(), [job])
        self.promises.durable(_node(), [_job(state=HardState(4, 0))])

    def test_the_directory_may_be_a_new_identity(self):
        self.promises.durable(_node(2), [_job(1, state=HardState(4, 7))])
        self.assertEqual(self.promises.of(2).last_index, 1)

    def test_an_old_copy_beside_its_owner(self):
        self.promises.durable(_node(2), [_job(1, state=HardState(4, 7))])
        with self.assertRaisesRegex(InvariantError, "an old copy never votes"):
            self.promises.durable(_node(2, old_copy=True), [_job(state=HardState(5, 7))])

    def test_another_vote_in_the_same_term(self):
        with self.assertRaisesRegex(InvariantError, "one vote a term"):
            self.promises.durable(_node(2), [_job(state=HardState(4, 7)),
                                             _job(state=HardState(4, 8))])


if __name__ == "__main__":
    unittest.main()
