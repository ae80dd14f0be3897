"""Snapshots installed and logs compacted: what is served afterwards, also after a restart."""

import os
import random
import sys
import tempfile
import threading
import unittest

from raftnet.errors import DiskFullError, StorageError
from raftnet.raft.entry import Entry
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.disk import Disk
from raftnet.storage.snapshot import RECEIVED_NAME, SnapshotFile
from raftnet.storage.store import Job, Store
from tests.storage.building import (CLUSTER_ID, compact_job, content, copy_files, entries, entry,
                                    founded, install_job, job, make_snapshot, open_store)

STEP_BYTES = 150


def store_with(disk, count: int, term: int = 1) -> Store:
    """A store with entries 1 to count, the last of them in a batch of its own."""
    store = founded(disk)
    store.perform([Job(1, HardState(term), entries(2, count - 1, term=term))])
    store.perform([Job(1, None, entries(count, count, term=term))])
    return store


def finish(store: Store) -> None:
    """All steps of the compaction."""
    while not store.compaction_step(STEP_BYTES):
        pass


class Reopening(unittest.TestCase):

    def assert_reopens(self, disk, store: Store) -> Store:
        """A start from the same files serves the same, and leaves no other file."""
        again = open_store(copy_files(disk))
        self.assertEqual(content(again), content(store))
        self.assertEqual((again.last_index, again.last_term, again.hard_state),
                         (store.last_index, store.last_term, store.hard_state))
        self.assertEqual((again.log_base_index, again.log_bytes),
                         (store.log_base_index, store.log_bytes))
        return again


class InstallTest(Reopening):

    def _installed(self, index: int, term: int, node_term: int = 5) -> tuple[Store, SimulatedDisk]:
        """Onto entries 1 to 9 of term 1 (1 to 9@3 from entry 5 on)."""
        disk = SimulatedDisk()
        store = founded(disk)
        store.perform([Job(1, None, entries(2, 4)), Job(1, HardState(3), entries(5, 9, term=3))])
        store.perform([job([], node_term, 7)])
        store.perform(install_job(store, disk, index, term))
        return store, disk

    def test_a_log_that_ends_before_it_is_begun_anew(self):
        store, disk = self._installed(20, 4)
        self.assertEqual(content(store)[0], (20, 4))
        self.assertEqual((store.log_base_index, store.last_index, store.last_term), (20, 20, 4))
        self.assertEqual(store.read_entries(9, 100), [])
        self.assert_reopens(disk, store)
        store.perform([job(entries(21, 23, term=5))])
        again = self.assert_reopens(disk, store)
        replayed = again.take_replayed()
        self.assertEqual(replayed[:4], (20, 4, [(21, 5)], []))
        self.assertEqual(replayed.entries, entries(21, 23, term=5))
        self.assertEqual(disk.list(), ["identity", "log", "meta", "snapshot"])

    def test_what_follows_the_same_entry_stays(self):
        store, disk = self._installed(6, 3)
        self.assertEqual(content(store)[2], entries(7, 9, term=3))
        self.assert_reopens(disk, store)
        store.perform([job(entries(10, 12, term=5))])
        self.assert_reopens(disk, store)

    def test_what_follows_another_entry_goes_also_where_the_end_falls(self):
        for index, term in ((6, 2), (9, 4), (3, 1), (9, 1)):
            with self.subTest(index=index, term=term):
                store, disk = self._installed(index, term)
                kept = entries(4, 4) + entries(5, 9, term=3) if (index, term) == (3, 1) else []
                self.assertEqual(content(store)[2], kept)
                self.assert_reopens(disk, store)

    def test_entries_before_and_behind_in_the_same_call(self):
        disk = SimulatedDisk()
        store = store_with(disk, 5)
        store.perform([job(entries(6, 7)), *install_job(store, disk, 10, 1),
                       job(entries(11, 12, term=2), 2, 9), job(entries(12, 12, term=3), 3)])
        self.assertEqual(content(store)[2], entries(11, 11, term=2) + entries(12, 12, term=3))
        self.assertEqual(store.hard_state, HardState(3))
        self.assert_reopens(disk, store)

    def test_an_intact_directory_stays_so_when_a_second_try_crashes(self):
        """Onto a log that ends in a higher term: the floor that was low enough at the first try
        must not be raised by a vote before the second one."""
        tried = 0
        for k in range(1, 22):
            for again in range(25):
                disk = SimulatedDisk()
                store = founded(disk)
                store.perform([Job(1, None, entries(2, 4)), Job(1, HardState(7), [])])
                store.perform([Job(1, None, entries(5, 30, term=7))])
                jobs = install_job(store, disk, 40, 6)
                disk.fail_at(k, full=True)
                try:
                    store.perform(jobs)
                    continue
                except DiskFullError:
                    tried += 1
                except StorageError:
                    continue            # a sync or a read
                disk.fail_at(again)
                try:
                    store.perform(jobs + [Job(3, HardState(9), [])])
                except StorageError:
                    pass
                for seed in range(3):
                    left = disk.crash(random.Random(seed).randint) if seed else copy_files(disk)
                    self.assertIn(open_store(left).last_index, (30, 40), (k, again, seed))
        self.assertGreater(tried, 100)

    def test_each_replaced_snapshot_is_handed_out_once(self):
        disk = SimulatedDisk()
        store = store_with(disk, 30)
        self.assertEqual(store.take_replaced(), [])
        store.perform([compact_job(disk, 20, 1, 20), *install_job(store, disk, 40, 1)])
        replaced = store.take_replaced()
        self.assertEqual([file.meta.index for file in replaced], [20])
        self.assertEqual(list(replaced[0].pieces())[0], b"20@1")
        replaced[0].close()
        store.perform([compact_job(disk, 40, 1, 40), *install_job(store, disk, 50, 1)])
        replaced = store.take_replaced()
        self.assertEqual([file.meta.index for file in replaced], [40, 40])
        for file in replaced:
            file.close()
        self.assertEqual(store.take_replaced(), [])
        self.assertEqual(sorted(disk._handle_names.values()), ["log", "meta", "snapshot"])

    def test_a_snapshot_that_is_installed_at_the_second_try_replaces_nothing_of_its_own(self):
        for k in range(1, 40):
            disk = SimulatedDisk()
            store = store_with(disk, 5)
            jobs = install_job(store, disk, 9, 1)
            disk.fail_at(k, full=True)
            try:
                store.perform(jobs)
            except DiskFullError:
                store.perform(jobs)
            except StorageError:
                continue
            self.assertEqual(store.take_replaced(), [])
            self.assertFalse(store.snapshot.closed)

    def test_onto_a_node_that_just_joined(self):
        disk = SimulatedDisk()
        store = open_store(disk)
        store.join(CLUSTER_ID)
        store.perform([job([], 4), *install_job(store, disk, 50, 4)])
        self.assertEqual(self.assert_reopens(disk, store).last_index, 50)

    def test_a_second_one_replaces_the_first_which_stays_readable(self):
        store, disk = self._installed(20, 4)
        first = store.snapshot
        before = list(first.pieces())
        store.perform(install_job(store, disk, 30, 5))
        self.assertEqual(store.snapshot.meta.index, 30)
        self.assertEqual(list(first.pieces()), before)
        self.assert_reopens(disk, store)

    def test_offset_0_begins_anew_and_a_start_drops_what_came(self):
        disk = SimulatedDisk()
        store = store_with(disk, 5)
        jobs = install_job(store, disk, 10, 1)
        store.perform([Job(1, None, [], chunk=(0, bytes(5_000)))] + jobs[:-1])
        self.assertEqual(SnapshotFile.open(disk, RECEIVED_NAME).meta.index, 10)
        again = open_store(copy_files(disk))
        self.assertIsNone(again.snapshot)
        self.assertEqual(again._disk.list(), ["identity", "log", "meta"])
        store.perform(jobs[-1:])
        self.assert_reopens(disk, store)

    def test_a_full_disk_at_each_operation_then_again(self):
        for k in range(1, 60):
            disk = SimulatedDisk()
            store = store_with(disk, 5)
            jobs = [job(entries(6, 6)), *install_job(store, disk, 5, 1),
                    job(entries(7, 8, term=2), 2), *install_job(store, disk, 9, 2)]
            disk.fail_at(k, full=True)
            try:
                store.perform(jobs)
            except DiskFullError:
                store.perform(jobs + [job(entries(10, 10, term=2))])
            except StorageError:
                continue        # a sync or a read
            disk.fail_at(0)
            self.assertEqual(content(store)[0], (9, 2))
            self.assert_reopens(disk, store)


class CompactTest(Reopening):

    def test_the_log_begins_at_the_base(self):
        for base in (0, 5, 19, 20):
            disk = SimulatedDisk()
            store = store_with(disk, 30)
            store.perform([compact_job(disk, 20, 1, base)])
            self.assertEqual(content(store)[0], (20, 1))
            finish(store)
            self.assertEqual((store.log_base_index, store.compaction_failed), (base, ""))
            expected = entries(max(2, base + 1), 30)
            self.assertEqual(content(store)[2][-len(expected):], expected)
            self.assertFalse(store.compacting)
            self.assert_reopens(disk, store)
            self.assertEqual(disk.list(), ["identity", "log", "meta", "snapshot"])

    def test_a_step_copies_a_bounded_piece(self):
        disk = SimulatedDisk()
        store = store_with(disk, 200)
        store.perform([compact_job(disk, 20, 1, 20)])
        sizes = []
        while store.log_base_index == 0:
            store.compaction_step(STEP_BYTES)
            sizes.append(len(disk.get("log.new")) if disk.exists("log.new") else sizes[-1])
        self.assertGreater(len(sizes), 20)
        self.assertLess(max(b - a for a, b in zip(sizes, sizes[1:])), 150 * 61 // 45 + 61)

    def test_it_catches_up_with_whatever_is_appended_meanwhile(self):
        for count, payload_bytes in ((20, 10_000), (3_500, 0)):     # of a round: bytes, records
            with self.subTest(count=count):
                self._catch_up(count, payload_bytes)

    def _catch_up(self, count: int, payload_bytes: int) -> None:
        disk = SimulatedDisk()
        store = store_with(disk, 30)
        payload = bytes(payload_bytes)

        def round_of_entries() -> list[Entry]:
            first = store.last_index + 1
            return [entry(index, 1, payload) for index in range(first, first + count)]

        for _ in range(5):
            store.perform([job(round_of_entries())])
        store.perform([compact_job(disk, 2, 1, 2)])
        rounds = 0
        while not store.compaction_step(50_000 if payload_bytes else 300_000):
            store.perform([job(round_of_entries())])
            rounds += 1
            self.assertLess(rounds, 20)
        self.assertGreater(rounds, 2)
        self.assertEqual((store.log_base_index, store.compaction_failed), (2, ""))

    def test_records_that_were_annulled_before_it_began_do_not_come_back(self):
        disk = SimulatedDisk()
        store = founded(disk)
        store.perform([Job(1, None, entries(2, 10)), Job(1, HardState(2), entries(5, 6, term=2))])
        store.perform([compact_job(disk, 6, 2, 6)])
        finish(store)
        self.assertEqual((content(store)[2], store.last_index, store.last_term), ([], 6, 2))
        self.assert_reopens(disk, store)

    def test_appends_and_conflicts_meanwhile(self):
        """Random appends, conflicts and repeated entries between the steps."""
        for seed in range(150):
            with self.subTest(seed=seed):
                self._random_history(random.Random(seed))

    def _random_history(self, chance: random.Random) -> None:
        disk = SimulatedDisk()
        store = store_with(disk, 30)
        log, term = [entry(1), *entries(2, 30)], 1
        snapshot_index = chance.randint(1, 25)
        base = chance.randint(0, snapshot_index)
        store.perform([compact_job(disk, snapshot_index, 1, base)])
        for _ in range(chance.randint(5, 40)):
            what = chance.randint(0, 4)
            first, rewound = len(log) + 1, False
            if what == 0 and len(log) > snapshot_index:
                term += 1
                first = chance.randint(snapshot_index + 1, len(log))
            elif what == 1 and len(log) > snapshot_index:
                first = chance.randint(snapshot_index + 1, len(log))
                rewound = True
            elif what == 2:
                store.compaction_step(STEP_BYTES)
                continue
            count = chance.randint(1, 3)
            new = entries(first, first + count - 1, term=term)
            if rewound:             # the very same entry again annuls what follows it
                new[0] = log[first - 1]
            log[first - 1:] = new
            store.perform([Job(1, HardState(term), new, rewound)])
        self.assertEqual(content(store)[2], log[store.log_base_index:])
        self.assert_same_log(store, disk, log)
        finish(store)
        self.assertEqual((store.log_base_index, store.last_index), (base, len(log)))
        self.assert_same_log(store, disk, log)
        self.assert_reopens(disk, store)

    def assert_same_log(self, store: Store, disk: SimulatedDisk, log: list) -> None:
        """A start sees these entries, however far the compaction is."""
        again = open_store(copy_files(disk))
        self.assertEqual(again.read_entries(again.log_base_index + 1, 1 << 30),
                         log[again.log_base_index:])
        self.assertEqual(again.log_base_index, store.log_base_index)

    def test_an_install_meanwhile_ends_it(self):
        disk = SimulatedDisk()
        store = store_with(disk, 30)
        store.perform([compact_job(disk, 20, 1, 20)])
        store.compaction_step(STEP_BYTES)
        store.perform(install_job(store, disk, 40, 1))
        finish(store)
        self.assertIn("came from the leader", store.compaction_failed)
        self.assertEqual((content(store)[0], store.last_index), ((40, 1), 40))
        self.assert_reopens(disk, store)

    def test_one_that_was_overtaken_by_an_install_is_dropped(self):
        disk = SimulatedDisk()
        store = store_with(disk, 30)
        late = compact_job(disk, 20, 1, 20)
        store.perform(install_job(store, disk, 40, 1))
        store.perform([late])
        self.assertIn("newer", store.compaction_failed)
        self.assertEqual(content(store)[0], (40, 1))
        self.assertNotIn("snapshot.made-1", disk.list())
        self.assert_reopens(disk, store)

    def test_a_made_file_that_is_damaged_or_another_is_not_taken(self):
        for change in ("flip", "missing", "other"):
            disk = SimulatedDisk()
            store = store_with(disk, 30)
            compact = compact_job(disk, 20, 1, 20)
            if change == "flip":
                data = bytearray(disk.get("snapshot.made-1"))
                data[-1] ^= 1
                disk.put("snapshot.made-1", bytes(data))
            elif change == "other":
                make_snapshot(disk, "snapshot.made-1", 19)
            else:
                disk.remove("snapshot.made-1")
            store.perform([compact])
            self.assertIn("snapshot.made-1: ", store.compaction_failed)
            self.assertIsNone(store.snapshot)
            self.assert_reopens(disk, store)

    def test_a_full_disk_at_each_operation_costs_the_compaction_only(self):
        ended = 0
        for k in range(1, 60):
            disk = SimulatedDisk()
            store = store_with(disk, 12)
            compact = compact_job(disk, 8, 1, 6)
            disk.fail_at(k, full=True)
            try:
                store.perform([compact, job(entries(13, 14))])
                finish(store)
            except DiskFullError:
                store.perform([compact, job(entries(13, 14))])  # the entries found no room
                finish(store)
            except StorageError:
                continue
            disk.fail_at(0)
            self.assertEqual(store.last_index, 14)
            self.assertEqual(store.log_base_index, 0 if store.compaction_failed else 6)
            self.assert_reopens(disk, store)
            self.assertNotIn("log.new", disk.list())
            ended += bool(store.compaction_failed)
            store.perform([compact_job(disk, 9, 1, 9, number=2)])
            finish(store)
            self.assertEqual((store.compaction_failed, store.log_base_index), ("", 9))
            self.assert_reopens(disk, store)
        self.assertGreater(ended, 5)

    def test_without_room_for_entries_a_waiting_compaction_goes_first(self):
        disk = SimulatedDisk()
        store = store_with(disk, 60)
        jobs = [job(entries(61, 70)), compact_job(disk, 58, 1, 58)]
        disk.bytes_left = 400
        with self.assertRaises(DiskFullError):
            store.perform(jobs)
        finish(store)
        self.assertEqual((store.log_base_index, store.compaction_failed), (58, ""))
        store.perform(jobs)
        self.assertEqual(content(store)[2], entries(59, 70))
        self.assert_reopens(disk, store)


class RealDiskTest(unittest.TestCase):

    def test_another_thread_reads_while_logs_take_each_others_place(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        disk = Disk(os.path.join(folder.name, "data"))
        store = store_with(disk, 400)
        self.addCleanup(store.close)
        # A reader that computes all the time would keep the interpreter for 5 ms at
        # each of the writer's turns.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)
        stop, wrong, reads = threading.Event(), [], [0]

        def read():
            while not stop.is_set():
                found = store.read_entries(390, 1 << 20)
                if found[:11] != entries(390, 400):
                    wrong.append(found)
                reads[0] += 1

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(1, 25):
                store.perform([compact_job(disk, 350, 1, 300 + number, number)])
                while not store.compaction_step(STEP_BYTES):
                    pass
                store.perform([Job(1, None, entries(400 + number, 400 + number))])
        finally:
            stop.set()
            reader.join(30)
        self.assertEqual(wrong, [])
        self.assertGreater(reads[0], 0)
        self.assertEqual((store.log_base_index, store.last_index), (324, 424))

    def test_a_replaced_log_stays_whole_for_another_process_that_reads_it(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        disk = Disk(os.path.join(folder.name, "data"))
        store = store_with(disk, 400)
        self.addCleanup(store.close)
        for jobs in ([compact_job(disk, 350, 1, 300)], install_job(store, disk, 500, 1)):
            with open(disk.path("log"), "rb") as reader:
                data = reader.read()
                store.perform(jobs)
                while not store.compaction_step():
                    pass
                self.assertFalse(store.compacting)
                for thread in threading.enumerate():
                    if thread.name == "close":
                        thread.join(30)
                self.assertFalse(disk.is_named(reader.fileno(), "log"))
                reader.seek(0)
                self.assertEqual(reader.read(), data)
        self.assertEqual(sorted(disk._names.values()),
                         ["lock", "log", "meta", "snapshot", "snapshot"])


if __name__ == "__main__":
    unittest.main()
