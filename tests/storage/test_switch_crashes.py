"""Every crash in the switch of files: install, compaction, setting aside, restoring.

Each operation of the disk fails once, with and without its effect; then the process is killed, or
the power goes. The next start finds the old state or the new one, never less than what was
acknowledged, and the node can go on.
"""

import unittest

from raftnet.errors import DamagedError, DiskFullError, StorageError
from raftnet.founding import cluster_id_of
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.store import Image, Job, Store
from tests.storage.building import (CLUSTER_ID, MEMBERSHIP, NODE_ID, PIECES, compact_job, content,
                                    copy_files, entries, founded, install_job, job, nothing,
                                    open_store, randint_of)

SEEDS = 4       # power losses for each failing operation, besides a kill


class SwitchCrashTest(unittest.TestCase):

    def setUp(self):
        self.where = ""

    def _formatMessage(self, msg, standard):
        return f"{self.where}: {super()._formatMessage(msg, standard)}"

    def _remains(self, make, act):
        """(disk that the next start finds, whether `act` was done) for each crash; `make()` gives a
        disk and what `act` is called with."""
        k = 0
        done = False
        while not done:
            k += 1
            for seed in range(2 * SEEDS):
                disk, *arguments = make()
                disk.fail_at(k, applied=seed % 2 == 0)
                done = False
                try:
                    act(disk, *arguments)
                    done = True
                except StorageError as error:
                    self.assertNotIn("\n", str(error))
                disk.fail_at(0)
                if seed < 2:
                    disk.kill()
                else:
                    disk = disk.crash(randint_of(seed * 1000 + k))
                self.where = f"operation {k}, seed {seed}"
                yield disk, done
        self.assertGreater(k, 5)

    def _goes_on(self, disk, store: Store) -> None:
        """An entry is appended and is there after the next start."""
        index = store.last_index + 1
        store.perform([job(entries(index, index, term=9), 9)])
        left = open_store(disk.crash(randint_of(1)))
        self.assertEqual(left.read_entries(index, 100), entries(index, index, term=9))

    def _made(self):
        disk = SimulatedDisk()
        store = founded(disk)
        store.perform([Job(1, HardState(3, 7), entries(2, 9) + entries(10, 12, term=3))])
        return disk, store

    def test_install(self):
        for index, term, new in ((20, 3, []), (10, 3, entries(11, 12, term=3)), (10, 2, []),
                                 (12, 3, []), (5, 1, entries(6, 9) + entries(10, 12, term=3))):
            disk, store = self._made()
            old = content(store)
            store.perform(install_job(store, disk, index, term))
            states = [old, content(store)]
            self.assertEqual(states[-1][2], new)
            if new or index == 12:      # the log fits the new snapshot before its own turn
                states.insert(0, (states[1][0], states[1][1], old[2]))
            for disk, done in self._remains(
                    self._made, lambda disk, store, index=index, term=term:
                    store.perform(install_job(store, disk, index, term))):
                store = open_store(disk)
                self.assertIn(content(store), states[-1:] if done else states)
                self.assertEqual(store.hard_state, HardState(3, 7))
                self._goes_on(disk, store)

    def test_compaction_with_appends_between_the_steps(self):
        acknowledged = []

        def make():
            disk, store = self._made()
            acknowledged[:] = entries(1, 9) + entries(10, 12, term=3)
            acknowledged[0] = store.read_entries(1, 1)[0]
            return disk, store, compact_job(disk, 8, 1, 6)

        def act(disk, store, compact):
            store.perform([compact])
            for first, term in ((13, 3), (15, 3), (11, 4), (13, 4), (10, 5)):
                new = entries(first, first + 1, term=term)
                store.perform([Job(1, HardState(term, 7), new)])
                acknowledged[first - 1:] = new
                store.compaction_step(100)
            while not store.compaction_step(100):
                pass
            self.assertEqual(store.log_base_index, 6)

        for disk, done in self._remains(make, act):
            store = open_store(disk)
            self.assertIn(store.log_base_index, (6,) if done else (0, 6))
            if store.log_base_index:
                self.assertEqual(store.snapshot.meta[:2], (8, 1))
            found = store.read_entries(store.log_base_index + 1, 1 << 30)
            if found != acknowledged[store.log_base_index:]:    # an interrupted append
                self.assertFalse(done)
                self.assertGreaterEqual([e.term for e in found][-1], acknowledged[-1].term)
            self._goes_on(disk, store)

    def test_a_tail_replaced_by_one_that_ends_in_an_older_term(self):
        """10@3 to 12@3 were durable; a leader of term 5 has 10@2, and its own entries come later.
        The floor gives way before the log does."""
        new = entries(1, 9)[1:] + entries(10, 10, term=2)

        def make():
            disk, store = self._made()
            store.perform([job([], 5)])         # the floor is 12@3 now
            return disk, store

        for disk, done in self._remains(
                make, lambda disk, store: store.perform([job(entries(10, 10, term=2))])):
            store = open_store(disk)
            found = store.read_entries(2, 1 << 20)
            self.assertIn(found, [new] if done else
                          [new, entries(2, 9) + entries(10, 12, term=3)])
            self._goes_on(disk, store)

    def test_one_fault_anywhere_in_a_life(self):
        """EIO and a full disk at each operation of a start, appends, a compaction, an install."""
        for k in range(1, 90):
            for applied, full in ((False, False), (True, False), (False, True)):
                self.where = f"operation {k}, applied {applied}, full {full}"
                self._live(k, applied, full)

    def _live(self, k: int, applied: bool, full: bool) -> None:
        disk, store = self._made()
        store.close()
        promised = [store._files.log.last, HardState(3, 7)]
        batches = [lambda s: [job(entries(13, 15, term=4), 4)],
                   lambda s: [compact_job(disk, 9, 1, 5), job(entries(16, 17, term=4))],
                   lambda s: [job(entries(14, 18, term=5), 5, 2)],
                   lambda s: install_job(s, disk, 17, 5) + [job(entries(19, 19, term=5))]]
        disk.fail_at(k, applied, full)
        store = None
        try:
            store = open_store(disk)
            for batch in batches:
                operations, disk._fails_at = disk._fails_at, 0
                before = disk.operations
                jobs = batch(store)         # whoever makes the snapshot is another process
                disk._fails_at = operations + disk.operations - before if operations else 0
                try:
                    store.perform(jobs)
                except DiskFullError:
                    store.perform(jobs)
                promised = [store._files.log.last, store.hard_state]
                while not store.compaction_step(100):
                    pass
        except StorageError as error:
            self.assertNotIn("\n", str(error))
            disk = disk.crash(randint_of(k))
            disk.fail_at(0)
            store = open_store(disk)
            # A torn append may leave a part of the tail that replaces another one.
            self.assertGreaterEqual(store._files.log.last, promised[0])
            self.assertGreaterEqual(store.hard_state.current_term, promised[1].current_term)
        else:
            disk.fail_at(0)
            self.assertEqual((store.last_index, store.hard_state), (19, HardState(5, 2)))
            self.assertEqual(content(store)[0], (17, 5))
            left = open_store(disk.crash(randint_of(k)))
            self.assertEqual(content(left), content(store))

    def test_setting_aside(self):
        def make():
            disk, store = self._made()
            store.perform(install_job(store, disk, 10, 3))
            store.close()
            files = {name: disk.get(name) for name in disk.list()}
            return disk, files

        def act(disk, files):
            Store.set_aside(disk, ["127.0.0.1:9", "é:1"], CLUSTER_ID)

        files = make()[1]
        for disk, done in self._remains(make, act):
            store = Store.open(disk, lambda: 99, nothing)
            if store.healing is None:       # the marker was not durable: nothing moved
                self.assertFalse(done)
                self.assertEqual((store.node_id, content(store)[0]), (NODE_ID, (10, 3)))
                continue
            self.assertEqual((store.node_id, store.cluster_id, store.last_index),
                             (99, None, 0))
            self.assertEqual(store.healing[:3], (("127.0.0.1:9", "é:1"), CLUSTER_ID, True))
            for name, data in files.items():
                self.assertEqual(disk.get(f"damaged-1.{name}"), data)
            self._joins(disk, store)

    def _joins(self, disk, store: Store) -> None:
        store.join(CLUSTER_ID)
        self.assertIsNone(store.healing)
        left = Store.open(disk.crash(randint_of(1)), self.fail, nothing)
        self.assertEqual((left.healing, left.cluster_id, left.node_id), (None, CLUSTER_ID, 99))

    def test_joining_after_it(self):
        def make():
            disk, store = self._made()
            store.close()
            Store.set_aside(disk, ["127.0.0.1:9"], CLUSTER_ID)
            return disk, Store.open(disk, lambda: 99, nothing)

        for disk, done in self._remains(make, lambda disk, store: store.join(CLUSTER_ID)):
            store = Store.open(disk, self.fail, nothing)
            self.assertEqual(store.node_id, 99)
            if store.cluster_id is None:
                self.assertFalse(done)
                self.assertIsNotNone(store.healing)
                self._joins(disk, store)
            else:
                self.assertIsNone(store.healing)
                self.assertNotIn("healing", disk.list())
                self._goes_on(disk, store)

    def test_a_second_damage_gets_another_number(self):
        disk, store = self._made()
        store.close()
        for number in (1, 2, 3):
            Store.set_aside(disk, [], CLUSTER_ID)
            store = Store.open(disk, lambda number=number: number, nothing)
            store.join(CLUSTER_ID)
            store.close()
        self.assertEqual([name for name in disk.list() if name.endswith(".log")],
                         ["damaged-1.log", "damaged-2.log", "damaged-3.log"])

    def test_restoring(self):
        image = Image(41, 6, MEMBERSHIP, 77, PIECES)

        def act(disk):
            Store.restore(disk, lambda: 99, cluster_id_of, image, "127.0.0.1:3", nothing)

        for disk, done in self._remains(lambda: (SimulatedDisk(),), act):
            store = Store.open(disk, lambda: 98, nothing)
            if store.cluster_id is None:
                self.assertFalse(done)
                self.assertEqual((store.last_index, store.snapshot), (0, None))
                self.assertEqual(disk.list(), ["log", "meta"])
                store.close()
                act(disk)
                store = open_store(disk)
            meta = store.snapshot.meta
            self.assertEqual((meta.index, meta.term, meta.digest), (41, 6, 77))
            self.assertEqual(content(store)[1], PIECES)
            self.assertEqual((store.node_id, store.cluster_id, store.hard_state.current_term),
                             (99, cluster_id_of([99]), 7))
            self.assertEqual([(m.node_id, m.address, m.voter) for m in meta.membership.members],
                             [(99, "127.0.0.1:3", True)])
            self.assertTrue(meta.membership.founded)
            self._goes_on(disk, store)

    def test_restoring_wants_an_empty_directory(self):
        disk, store = self._made()
        store.close()
        before = content(open_store(copy_files(disk)))
        with self.assertRaisesRegex(StorageError, "belongs to a cluster"):
            Store.restore(disk, lambda: 99, cluster_id_of, Image(41, 6, MEMBERSHIP, 77, PIECES),
                          "a:1", nothing)
        self.assertEqual(content(open_store(disk)), before)

    def test_forgetting_a_cluster_that_had_a_snapshot(self):
        def make():
            disk, store = self._made()
            store.perform(install_job(store, disk, 10, 3))
            return disk, store

        old = content(make()[1])
        for disk, done in self._remains(make, lambda disk, store: store.forget()):
            store = open_store(disk)
            if store.cluster_id is not None:
                self.assertFalse(done)
                self.assertEqual(content(store), old)
                continue
            self.assertEqual((content(store), store.hard_state),
                             ((None, [], []), HardState(3, 7)))
            self.assertEqual(disk.list(), ["log", "meta"])
            store.join(CLUSTER_ID)
            self._goes_on(disk, store)

    def test_files_of_a_lost_identity_are_never_dropped(self):
        disk, store = self._made()
        store.perform(install_job(store, disk, 20, 3))
        for gone in (("identity",), ("identity", "snapshot"), ("identity", "meta"),
                     ("identity", "meta", "log")):
            left = copy_files(disk)
            for name in gone:
                left.remove(name)
            before = {name: left.get(name) for name in left.list()}
            with self.assertRaises(DamagedError):
                open_store(left)
            self.assertEqual({name: left.get(name) for name in left.list()}, before)


if __name__ == "__main__":
    unittest.main()
