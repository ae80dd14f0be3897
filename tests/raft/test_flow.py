"""How fast and how much a leader sends; memory; fast back-up; what reads from the file."""

import unittest

from raftnet.config import RaftConfig
from raftnet.errors import BusyError, NotLeaderError
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.log import RaftLog
from raftnet.raft.progress import Progress
from raftnet.raft.types import Append, AppendReply, HardState
from tests.raft.harness import Cluster, RaftTestCase, batch, log_of, membership_of


class FlowTest(RaftTestCase):
    """Bounds on what is on its way."""

    def leading(self, **config) -> Cluster:
        """Node 1 leads; nothing is on its way."""
        cluster = Cluster([1, 2, 3], config=RaftConfig(**config))
        cluster.elect(1)
        return cluster

    def test_appends_are_pipelined(self):
        """The next leaves before the last is acknowledged, each entry once."""
        cluster = self.leading()
        for _ in range(5):
            cluster.propose(1)
        sent = [e.message for e in cluster.take(Append, to=2)]
        self.assertEqual([m.prev_log_index for m in sent], [2, 3, 4, 5, 6])
        self.assertEqual([len(m.entries) for m in sent], [1] * 5)

    def test_bounded_number_in_flight(self):
        """in_flight_appends_max; an acknowledgement makes room."""
        cluster = self.leading(in_flight_appends_max=3)
        for _ in range(10):
            cluster.propose(1)
        self.assertEqual(len(cluster.take(Append, to=2)), 3)
        cluster.step(2, 1, AppendReply(2, True, 4))
        (envelope,) = cluster.take(Append, to=2)[:1]
        self.assertEqual(envelope.message.entries[0].index, 6)
        self.assertLessEqual(len(cluster.core(1).progress[2].in_flight), 3)

    def test_bounded_bytes_in_flight(self):
        """in_flight_bytes_max: no further append once it is reached."""
        cluster = self.leading(in_flight_bytes_max=1000, append_bytes_max=1)
        for _ in range(10):
            cluster.core(1).propose(bytes(375))
        cluster.collect(1)
        self.assertEqual(len(cluster.take(Append, to=2)), 3)
        self.assertEqual(cluster.core(1).progress[2].in_flight_bytes, 1200)
        cluster.step(2, 1, AppendReply(2, True, 12))
        self.assertEqual(cluster.core(1).progress[2].in_flight_bytes, 0)

    def test_bounded_bytes_of_an_append(self):
        """append_bytes_max: an append stops once it is reached."""
        cluster = self.leading(append_bytes_max=1000)
        for _ in range(10):
            cluster.core(1).propose(bytes(375))
        cluster.collect(1)
        self.assertEqual([len(e.message.entries) for e in cluster.take(Append, to=2)], [3, 3, 3, 1])

    def test_one_append_while_probing(self):
        """Where the logs part is found with one message at a time."""
        cluster = self.leading()
        cluster.core(1).peer_connected(2)
        cluster.collect(1)
        cluster.take()
        for _ in range(5):
            cluster.propose(1)
        self.assertEqual(cluster.take(Append, to=2), [])
        cluster.step(2, 1, AppendReply(2, True, 2))
        self.assertEqual([len(e.message.entries) for e in cluster.take(Append, to=2)], [5])

    def test_one_slow_follower_does_not_hold_up_the_others(self):
        """[student solutions] Each has its own bounds."""
        cluster = self.leading(in_flight_appends_max=2)
        cluster.cut = {(2, 1)}
        cluster.replicate(1, 20)
        self.assert_committed(cluster, 22, 1, 3)

    def test_reconnection_sends_again_what_was_on_its_way(self):
        """What the old connection swallowed comes at once, not after a timeout."""
        cluster = self.leading()
        cluster.propose(1)
        cluster.take()
        cluster.core(1).peer_connected(2)
        cluster.settle()
        self.assertEqual(cluster.core(2).log.last_index, 3)

    def test_reconnection_during_a_search_does_not_send_the_whole_log(self):
        """Nothing is known of the follower yet, but it is not therefore empty."""
        terms = [1] * 500
        cluster = Cluster([1, 2, 3], logs={n: terms for n in (1, 2, 3)})
        cluster.cut = {(2, 1)}
        cluster.elect(1)
        cluster.core(1).peer_connected(2)       # the search had found nothing out
        cluster.heal()
        cluster.settle()
        entries = sum(len(e.message.entries) for e in cluster.sent
                      if isinstance(e.message, Append) and e.to == 2)
        self.assertLessEqual(entries, 3)
        self.assertEqual(cluster.core(1).progress[2].match_index, 501)

    def test_busy_above_the_bound_of_uncommitted_bytes(self):
        """Then propose refuses; what is committed makes room; what is not leader refuses always."""
        cluster = self.leading(uncommitted_bytes_max=1000)
        cluster.cut = {(2, 1), (3, 1)}
        for _ in range(3):
            cluster.propose(1, bytes(375))
        with self.assertRaises(BusyError):
            cluster.propose(1)
        self.assertEqual(cluster.core(1).uncommitted_bytes, 1200)
        cluster.heal()
        cluster.settle()
        self.assertEqual(cluster.core(1).uncommitted_bytes, 0)
        cluster.propose(1)
        with self.assertRaises(NotLeaderError):
            cluster.propose(2)

    def test_new_leader_counts_what_it_found_uncommitted(self):
        """Bytes of earlier terms are not committed yet either."""
        cluster = Cluster([1, 2, 3], logs={n: [1, 1, 1] for n in (1, 2, 3)})
        cluster.cut = {(1, 2), (1, 3)}
        cluster.elect(1)
        cluster.heal()
        cluster.elect(1)
        self.assert_leader(cluster, 1)
        self.assertEqual(cluster.core(1).uncommitted_bytes, 0)

    def test_apply_is_handed_out_in_pieces(self):
        """apply_bytes_max a Ready, an entry counting 1 KiB more: a turn of the loop stays short."""
        cluster = Cluster([1], config=RaftConfig(apply_bytes_max=1000 + 3 * 1024))
        cluster.elect(1)
        for _ in range(10):
            cluster.core(1).propose(bytes(375))
        (job,) = cluster.collect(1)
        cluster.core(1).advance(job.job)
        sizes = [len(ready.committed) for ready in cluster.collect(1)]
        self.assertEqual(sizes, [3, 3, 3, 1])


class BackUpTest(RaftTestCase):
    """Finding the place where two logs part (Raft 5.3, its last paragraph but two)."""

    def refusals(self, leader_terms, follower_terms) -> int:
        """How many refusals it takes until the follower's log is repaired."""
        cluster = Cluster([1, 2, 3], logs={1: leader_terms, 2: follower_terms, 3: [1]},
                          states={1: HardState(max(leader_terms + follower_terms), 0)})
        cluster.elect(1)
        self.assert_terms(cluster.core(2), cluster_terms(cluster, 1))
        return sum(isinstance(e.message, AppendReply) and not e.message.success
                   and e.sender == 2 for e in cluster.sent)

    def test_long_divergence_takes_few_round_trips(self):
        """Round trips count the terms that differ, not the entries."""
        self.assertLessEqual(self.refusals([1] * 100 + [3], [1] * 10 + [2] * 3000), 2)
        self.assertLessEqual(self.refusals([1] * 3000 + [3], [1] * 10), 1)
        self.assertLessEqual(self.refusals([1] * 10 + [4] * 2000, [1] * 10 + [3] * 2000), 2)

    def test_alternating_terms(self):
        """The worst case: each round trip passes one term at least."""
        ours = [1] + [term for term in range(2, 20, 2) for _ in range(100)]
        theirs = [1] + [term for term in range(3, 20, 2) for _ in range(100)]
        self.assertLessEqual(self.refusals(ours, theirs), 20)


class MemoryTest(RaftTestCase):
    """The newest entries are in memory, the older ones in the file."""

    def test_trims_what_is_applied_and_stable(self):
        """Down to half the bound; the terms stay known."""
        cluster = Cluster([1, 2, 3], config=RaftConfig(log_memory_bytes_max=2000))
        cluster.elect(1)
        for _ in range(20):
            cluster.replicate(1)
            cluster.propose(1, bytes(375))
            cluster.settle()
        log = cluster.core(1).log
        self.assertGreater(log.memory_from, 1)
        self.assertLessEqual(log.memory_bytes, 2000)
        self.assertEqual(log.memory_bytes, sum(
            len(log.entry(i).data) for i in range(log.memory_from, log.last_index + 1)))
        self.assertEqual([log.term_at(i) for i in (1, 2, log.memory_from, log.last_index)],
                         [1, 2, 2, 2])

    def test_never_trims_what_is_not_stable_or_not_applied(self):
        """It is nowhere else."""
        cluster = Cluster([1, 2, 3], config=RaftConfig(log_memory_bytes_max=1000))
        cluster.elect(1)
        cluster.slow_disks.add(1)
        for _ in range(20):
            cluster.propose(1, bytes(375))
        cluster.settle()
        self.assert_committed(cluster, 22, 1)
        for stable in (3, 4, 5):
            cluster.sync(1, 1)
            self.assertEqual(cluster.core(1).log.stable_index, stable)
            self.assertLessEqual(cluster.core(1).log.memory_from, stable + 1)
        cluster.cut = {(1, 2), (1, 3)}
        cluster.slow_disks.clear()
        for _ in range(20):
            cluster.propose(1, bytes(375))
        cluster.settle()
        self.assertLessEqual(cluster.core(1).log.memory_from, 23)

    def test_follower_behind_the_memory_is_fed_from_the_file(self):
        """One append at a time, then from memory again."""
        config = RaftConfig(log_memory_bytes_max=2000, append_bytes_max=1000)
        cluster = Cluster([1, 2, 3], config=config)
        cluster.isolate(3)
        cluster.elect(1)
        for _ in range(40):
            cluster.propose(1, bytes(375))
            cluster.settle()
        cluster.heal()
        cluster.core(3).election_deadline_ms = 1 << 40
        cluster.core(1).peer_connected(3)
        for _ in range(15):
            cluster.beat()
        self.assertTrue(any(e.message.from_file for e in cluster.sent
                            if isinstance(e.message, Append)))
        self.assert_committed(cluster, 42)
        self.assert_same_logs(cluster)

    def test_restart_applies_from_the_beginning(self):
        """State = log: applied_index is not kept apart from it [etcd #13766]."""
        cluster = Cluster([1, 2, 3])
        cluster.elect(1)
        cluster.replicate(1, 5)
        cluster.crash(2)
        cluster.restart(2)
        for _ in range(3):
            cluster.beat()
        self.assertEqual([e.index for e in cluster.nodes[2].applied], list(range(1, 8)))


class BaseTest(RaftTestCase):
    """A log that begins above 1 (a snapshot stands for what is below)."""

    def based(self) -> Cluster:
        """Node 1's log holds 6 to 8 above a base of 5, all of term 2."""
        cluster = Cluster([1, 2, 3], logs={1: [1]}, states={1: HardState(2, 0)})
        core = cluster.core(1)
        core.log = RaftLog([batch(i, 2) for i in (6, 7, 8)], 5, 2, membership_of([1, 2, 3]))
        return cluster

    def test_append_below_the_base_matches(self):
        """All below it is committed; a refusal would be repeated for ever."""
        for prev, terms, match in [(0, [1, 1, 2], 3), (2, [2] * 3, 5), (2, [2] * 5, 7)]:
            with self.subTest(prev=prev):
                cluster = self.based()
                entries = [batch(prev + 1 + n, term) for n, term in enumerate(terms)]
                cluster.core(1).step(2, Append(2, prev, 1 if prev else 0, 0, entries))
                ready = cluster.core(1).ready()
                self.assertEqual([m for _, m in ready.messages], [AppendReply(2, True, match)])
                self.assertEqual(ready.entries, [])
                self.assertEqual(cluster.core(1).log.last_index, 8)

    def test_append_across_the_base_adds_what_is_new(self):
        """Entries at or below it are passed over."""
        cluster = self.based()
        core = cluster.core(1)
        core.step(2, Append(3, 4, 2, 0, [batch(5, 2), batch(6, 2), batch(7, 3)]))
        ready = core.ready()
        self.assertEqual([(e.index, e.term) for e in ready.entries], [(7, 3)])

    def test_term_at(self):
        """Known from the base to the end, and nowhere else."""
        log = RaftLog([batch(6, 2), batch(7, 4)], 5, 2)
        self.assertEqual([log.term_at(i) for i in (4, 5, 6, 7, 8)], [None, 2, 2, 4, None])

    def test_last_match(self):
        """The highest index at or below, of at most that term; never below the base."""
        log = RaftLog(log_of([1, 1, 3, 3, 5], membership_of([1])))
        table = [((9, 9), 5), ((5, 4), 4), ((5, 2), 2), ((4, 3), 4), ((3, 3), 3), ((5, 0), 0),
                 ((0, 0), 0)]
        for (index, term), expected in table:
            self.assertEqual(log.last_match(index, term), expected, (index, term))


class ProgressTest(unittest.TestCase):
    """A leader's view of one follower."""

    def test_old_refusals_change_nothing(self):
        """Both while probing and while replicating."""
        progress = Progress(10)
        self.assertFalse(progress.refused(5, 3))
        self.assertTrue(progress.refused(9, 4))
        self.assertEqual((progress.next_index, progress.probing), (4, True))
        progress.acknowledged(7, 0)
        self.assertFalse(progress.refused(7, 2))
        self.assertEqual((progress.next_index, progress.probing), (8, False))

    def test_refusal_always_goes_back(self):
        """However high the hint: the search ends."""
        progress = Progress(10)
        self.assertTrue(progress.refused(9, 99))
        self.assertEqual(progress.next_index, 9)

    def test_entry_bytes(self):
        """What is counted in flight is what travels: header and payload."""
        self.assertEqual(len(encode_entry(1, 1, EntryKind.BATCH, bytes(375)).data), 400)


def cluster_terms(cluster: Cluster, node_id: int) -> list[int]:
    """The terms of that node's log."""
    log = cluster.core(node_id).log
    return [log.term_at(index) for index in range(1, log.last_index + 1)]


if __name__ == "__main__":
    unittest.main()
