"""The data directory as a whole: founding, joining, forgetting, jobs, what is refused."""

import os
import tempfile
import unittest

from raftnet.errors import (CorruptFileError, DamagedError, DirectoryLockedError, DiskFullError,
                            StorageError)
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.raft.types import HardState
from raftnet.recovery import open_store as open_directory_of_a_node
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.damage import HEALING_NAME, Healing, encode_healing
from raftnet.storage.disk import Disk
from raftnet.storage.store import Store
from tests.storage.building import (CLUSTER_ID, NODE_ID, copy_files, entries, entry, founded, job,
                                    nothing, open_store, replayed)


def _log(store: Store) -> list:
    return store.read_entries(1, 1 << 30)


class HistoryTest(unittest.TestCase):

    def test_a_new_directory_has_a_node_id_and_no_history(self):
        disk = SimulatedDisk()
        store = open_store(disk)
        self.assertEqual((store.node_id, store.boot, store.cluster_id), (NODE_ID, 1, None))
        self.assertEqual((store.hard_state, replayed(store)), (HardState(), []))
        self.assertEqual(disk.list(), ["log", "meta"])

    def test_node_id_stays_and_boot_counts(self):
        disk = SimulatedDisk()
        open_store(disk).close()
        for boot in (2, 3, 4):
            store = Store.open(disk, self.fail, nothing)
            self.assertEqual((store.node_id, store.boot), (NODE_ID, boot))
            store.close()

    def test_founded_joined_and_forgotten(self):
        disk = SimulatedDisk()
        store = founded(disk)
        store.close()
        store = open_store(disk)
        self.assertEqual((store.cluster_id, store.hard_state), (CLUSTER_ID, HardState(1)))
        self.assertEqual(store.take_replayed(), (0, 0, [(1, 1)], [], [entry(1)]))
        with self.assertRaises(AssertionError):
            store.take_replayed()
        store.perform([job([], 2, 77)])
        store.forget()
        # It may come back to that cluster, and must not vote there again in term 2.
        self.assertEqual((store.cluster_id, store.hard_state, _log(store)),
                         (None, HardState(2, 77), []))
        store.join(b"j" * 16)
        store.perform([job(entries(1, 3, term=4), 4)])
        store.close()
        store = open_store(disk)
        self.assertEqual((store.cluster_id, store.hard_state), (b"j" * 16, HardState(4)))
        self.assertEqual(replayed(store), entries(1, 3, term=4))
        self.assertEqual((store.node_id, store.boot), (NODE_ID, 3))

    def test_forgets_a_cluster_of_a_lone_founder_also_when_interrupted(self):
        def lone(disk):
            store = open_store(disk)
            payload = encode_membership(Membership(CLUSTER_ID, (Member(7, "127.0.0.1:1", True),)))
            store.found(CLUSTER_ID, encode_entry(1, 1, EntryKind.MEMBERSHIP, payload))
            store.perform([job([encode_entry(2, 1, EntryKind.EMPTY, b""),
                                encode_entry(3, 1, EntryKind.MEMBERSHIP, payload)])])
            return store

        store = lone(SimulatedDisk())
        store.forget(alone=True)
        self.assertEqual((store.cluster_id, store.last_index, store.hard_state),
                         (None, 0, HardState()))
        operation = 0
        while True:
            operation += 1
            disk = SimulatedDisk()
            store = lone(disk)
            disk.fail_at(operation)
            try:
                store.forget(alone=True)
            except StorageError:
                disk.kill()
                # Forgotten or not at all, and never a directory that does not start.
                again = open_store(disk)
                self.assertIn((again.cluster_id, again.last_index),
                              ((None, 0), (CLUSTER_ID, 3)))
            else:
                break
        self.assertGreater(operation, 5)

    def test_founding_on_a_full_disk_may_be_tried_again(self):
        for budget in range(150):
            disk = SimulatedDisk()
            store = open_store(disk)
            disk.bytes_left = budget
            try:
                store.found(CLUSTER_ID, entry(1))
            except DiskFullError:
                disk.bytes_left = None
                store.found(CLUSTER_ID, entry(1))
            left = open_store(copy_files(disk))
            self.assertEqual((left.cluster_id, replayed(left)), (CLUSTER_ID, [entry(1)]))

    def test_no_promise_without_an_identity(self):
        for wrong in (job([], 3, 4), job(entries(1, 1), 1)):
            with self.assertRaises(AssertionError):
                open_store(SimulatedDisk()).perform([wrong])


class PerformTest(unittest.TestCase):

    def test_jobs_in_one_write_of_each_file(self):
        disk = SimulatedDisk()
        store = founded(disk)
        before = disk.operations
        store.perform([job(entries(2, 4), 1, 5), job(entries(5, 5)),
                       job(entries(4, 4, term=3), 3, 8)])
        self.assertEqual(disk.operations - before, 6)
        store = open_store(copy_files(disk))
        self.assertEqual(store.hard_state, HardState(3, 8))
        self.assertEqual(replayed(store), [entry(1), *entries(2, 3), *entries(4, 4, term=3)])
        self.assertEqual(store.read_entries(2, 1, last_max=2), entries(2, 2))

    def test_nothing_to_do_writes_nothing(self):
        disk = SimulatedDisk()
        store = founded(disk)
        before = disk.operations
        store.perform([job([], 1), job([])])
        self.assertEqual(disk.operations, before)

    def test_a_full_disk_at_each_byte_then_the_same_jobs_again(self):
        for budget in range(270):
            jobs = [job(entries(2, 3, term=2), 2, 5), job(entries(3, 4, term=4), 4)]
            disk = SimulatedDisk()
            store = founded(disk)
            disk.bytes_left = budget
            try:
                store.perform(jobs)
                self.assertGreater(budget, 4 * 61 - 1)
            except DiskFullError:
                self.assertEqual(replayed(open_store(copy_files(disk))), [entry(1)])
                disk.bytes_left = None
                store.perform(jobs + [job(entries(5, 5, term=5), 5, 1)])
                self.assertEqual(store.last_index, 5)
            store = open_store(copy_files(disk))
            self.assertEqual(replayed(store)[:4], [entry(1), *entries(2, 2, term=2),
                                                 *entries(3, 4, term=4)])
            self.assertGreaterEqual(store.hard_state.current_term, 4)

    def test_broken_promises_are_bugs_of_ours(self):
        for wrong in (job([], 4, 1), job([], 5, 2), job([], 5, 0), job(entries(2, 2, term=6))):
            store = founded(SimulatedDisk())
            store.perform([job([], 5, 1)])
            with self.assertRaises(AssertionError):
                store.perform([wrong])


class RefusalTest(unittest.TestCase):

    def setUp(self):
        self.disk = SimulatedDisk()
        store = founded(self.disk)
        store.perform([job(entries(2, 9, term=3), 3)])
        store.close()

    def _refused(self, disk, kind, pattern: str) -> None:
        before = {name: disk.get(name) for name in disk.list()}
        with self.assertRaisesRegex(kind, pattern) as caught:
            open_store(disk)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual({name: disk.get(name) for name in disk.list()}, before)
        disk.lock()     # it was given up

    def test_a_stopped_node_notes_where_its_log_ends(self):
        whole = self.disk.get("log")
        for cut in (1, 30, 60, 100):
            disk = copy_files(self.disk)
            disk.put("log", whole[:-cut])
            self._refused(disk, DamagedError, "was cut|ends")

    def _without(self, *names: str) -> SimulatedDisk:
        disk = copy_files(self.disk)
        for name in names:
            disk.remove(name)
        return disk

    def test_a_missing_file_is_named(self):
        for name in ("meta", "log"):
            self._refused(self._without(name), StorageError, f"simulated/{name}: missing, although")
        self._refused(self._without("identity"), StorageError,
                      "simulated/identity: missing, although the log holds 9 entries")
        self._refused(self._without("identity", "meta"), StorageError, "simulated/meta: missing")

    def test_a_term_older_than_the_log_is_damage(self):
        other = SimulatedDisk()
        founded(other)
        self._refused(copy_files(self.disk, meta=other.get("meta")), CorruptFileError,
                      "meta: damaged at byte 0: term 1 is older than the log, which ends in term 3")

    def test_files_of_two_directories(self):
        other = SimulatedDisk()
        Store.open(other, lambda: 99, nothing).found(CLUSTER_ID, entry(1))
        self._refused(copy_files(self.disk, identity=other.get("identity")), CorruptFileError,
                      "identity: damaged at byte 0: names another node")

    def test_a_short_log_is_damage_where_there_is_history(self):
        for size in range(36):
            self._refused(copy_files(self.disk, log=self.disk.get("log")[:size]),
                          CorruptFileError, f"log: damaged at byte {size}: ")

    def test_a_short_log_without_history_is_begun_anew(self):
        for size in range(36):
            disk = SimulatedDisk()
            open_store(disk).close()
            disk = copy_files(disk, log=disk.get("log")[:size])
            founding = open_store(disk)
            founding.found(CLUSTER_ID, entry(1))
            self.assertEqual(replayed(open_store(copy_files(disk))), [entry(1)])

    def test_what_a_founding_left_is_dropped(self):
        disk = SimulatedDisk()
        founded(disk).close()
        disk.remove("identity")
        lines = []
        store = open_store(disk, lines.append)
        self.assertEqual((store.cluster_id, replayed(store), store.hard_state, store.boot),
                         (None, [], HardState(1), 2))
        self.assertRegex(lines[0], "simulated/log: founding or joining was interrupted")

    def test_files_of_an_older_format_are_whole(self):
        """They are shorter, and their checksums stand elsewhere: no damage all the same."""
        older = {"identity": b"RNIDEN\0\1" + bytes(range(28)),
                 "meta": (b"RNMETA\0\1" + bytes(range(44))).ljust(4096, b"\0") * 2,
                 "log": b"RNLOG\0\0\1" + bytes(20),
                 "snapshot": b"RNSNAP\0\1" + bytes(30),
                 "healing": b"RNHEAL\0\1" + bytes(5)}
        for with_history in (True, False):
            for name, data in older.items():
                disk = copy_files(self.disk)
                if not with_history:
                    disk = SimulatedDisk()
                    open_store(disk).close()
                disk.put(name, data)
                if not with_history and name == "snapshot":
                    continue        # refused whatever its format: the identity was lost
                with self.subTest(name=name, with_history=with_history):
                    self._refused(disk, StorageError, f"simulated/{name}: has format 1, this "
                                  "program reads 2: start the program version that wrote it")
                    with self.assertRaises(StorageError) as caught:
                        open_store(disk)
                    self.assertNotIsInstance(caught.exception, DamagedError)

    def test_damage_where_nothing_was_begun_makes_another_node(self):
        for change in ("meta", "meta and healing", "meta and unfinished", "meta, no log", "log"):
            disk = SimulatedDisk()
            store = founded(disk)
            store.perform([job([], 5, 7)])
            store.forget()
            self.assertEqual((store.node_id, store.hard_state), (NODE_ID, HardState(5, 7)))
            store.close()
            damaged = bytearray(disk.get("log" if change == "log" else "meta"))
            for offset in (10, 4096 + 10):
                if offset < len(damaged):
                    damaged[offset] ^= 1
            disk.put("log" if change == "log" else "meta", bytes(damaged))
            if change.endswith("healing"):
                disk.put(HEALING_NAME, encode_healing(Healing((), CLUSTER_ID, True, 1)))
            elif change.endswith("unfinished"):
                disk.put("unfinished", b"")
            elif change.endswith("no log"):
                disk.remove("log")
            lines = []
            # As node.py does it: nothing is set aside, for nobody would know this node.
            store = open_directory_of_a_node(disk, ["127.0.0.1:9"], "127.0.0.1:8", lambda: 99,
                                             lines.append, 1 << 20)
            with self.subTest(change=change):
                self.assertEqual([n for n in disk.list() if n.startswith("damaged")], [])
                self.assertEqual(store.healing is not None, change.endswith("healing"))
                if change == "log":
                    self.assertEqual((store.node_id, store.hard_state), (NODE_ID, HardState(5, 7)))
                    continue
                self.assertTrue([line for line in lines if "begun anew as another node" in line])
                self.assertEqual((store.node_id, store.boot, store.hard_state),
                                 (99, 1, HardState()))
                if store.healing is None:
                    store.found(CLUSTER_ID, entry(1))
                    self.assertEqual(open_store(copy_files(disk)).last_index, 1)

    def test_files_never_renamed_into_place_are_removed(self):
        disk = copy_files(self.disk)
        for name in ("meta", "log", "identity"):
            disk.put(name + ".new", b"junk")
        self.assertEqual(open_store(disk).last_index, 9)
        self.assertEqual(disk.list(), ["identity", "log", "meta"])


class RealDiskTest(unittest.TestCase):

    def test_open_lock_close_and_reopen(self):
        with tempfile.TemporaryDirectory() as folder:
            directory = os.path.join(folder, "data", "node")
            store = founded(Disk(directory))
            self.addCleanup(store.close)
            with self.assertRaises(DirectoryLockedError):
                open_store(Disk(directory))
            store.perform([job(entries(2, 50, term=2), 2, 9)])
            store.close()
            self.assertEqual(sorted(os.listdir(directory)), ["identity", "lock", "log", "meta"])
            with open(os.path.join(directory, "log"), "ab") as file:
                file.write(b"torn")
            lines = []
            store = open_store(Disk(directory), lines.append)
            self.assertEqual(replayed(store), [entry(1), *entries(2, 50, term=2)])
            self.assertEqual((store.hard_state, store.boot), (HardState(2, 9), 2))
            self.assertRegex(lines[0], "/log: torn tail of an unfinished write: cut 4 bytes")
            store.close()


if __name__ == "__main__":
    unittest.main()
