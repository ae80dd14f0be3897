"""The log file: append, replay, cut, refuse, read back."""

import sys
import tempfile
import threading
import unittest
from unittest import mock

from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.errors import CorruptFileError, DiskFullError, StorageError
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import logfile, records
from raftnet.storage import replay as replays
from raftnet.storage.disk import Disk
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.records import HEADER_BYTES, PREFIX_BYTES, encode_prefix, scan_records
from tests.storage.building import (copy_files, create_log, disk_with, entries, entry, open_log,
                                    randint_of, replay)


def _log_of(*batches) -> SimulatedDisk:
    disk = SimulatedDisk()
    log = create_log(disk)
    for batch in batches:
        log.append(batch)
    return disk


def _scan(data: bytes) -> list[tuple]:
    return list(scan_records(lambda offset, count: data[offset:offset + count], len(data)))


class AppendTest(unittest.TestCase):

    def test_replay_gives_the_entries_back(self):
        disk = _log_of(entries(1, 3), [entry(4, 2, b"x" * 1_000_000)], entries(5, 5, term=2))
        log, current = replay(copy_files(disk))
        self.assertEqual(current,
                         entries(1, 3) + [entry(4, 2, b"x" * 1_000_000)] + entries(5, 5, term=2))
        self.assertEqual((log.last_index, log.last_term, log.base_index), (5, 2, 0))

    def test_a_record_annuls_all_at_its_index_and_above(self):
        for batches in ([entries(1, 5), entries(3, 4, term=2), entries(4, 4, term=3)],
                        [entries(1, 5) + entries(3, 4, term=2) + entries(4, 4, term=3)],
                        [entries(1, 2), entries(3, 5) + entries(3, 4, term=2),
                         entries(4, 4, term=3)],
                        [entries(1, 5), entries(3, 4, term=2) + entries(4, 4, term=3)]):
            disk = SimulatedDisk()
            log = create_log(disk)
            for batch in batches:
                log.append(batch)
            expected = entries(1, 2) + entries(3, 3, term=2) + entries(4, 4, term=3)
            self.assertEqual(replay(copy_files(disk))[1], expected)
            self.assertEqual(log.read(1, 99, 1 << 20), expected)
            self.assertEqual((log.last_index, log.last_term), (4, 3))

    def test_the_whole_log_may_be_replaced(self):
        disk = _log_of(entries(1, 3), entries(1, 1, term=2))
        self.assertEqual(replay(copy_files(disk))[1], entries(1, 1, term=2))

    def test_gaps_duplicates_and_falling_terms_are_bugs_of_ours(self):
        for wrong in (entries(5, 5), entries(2, 2), entries(3, 3), entries(4, 5) + entries(5, 5),
                      entries(4, 4, term=3) + entries(5, 5, term=2)):
            disk = SimulatedDisk()
            log = create_log(disk)
            log.append(entries(1, 3))
            before = disk.get(LOG_NAME)
            with self.assertRaises(AssertionError):
                log.append(wrong)
            self.assertEqual(disk.get(LOG_NAME), before)

    def test_append_is_one_write_and_one_sync(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        before = disk.operations
        log.append(entries(1, 100))
        self.assertEqual(disk.operations - before, 2)

    def test_a_log_with_a_base(self):
        disk = SimulatedDisk()
        create_log(disk, 10, 4).append(entries(11, 12, term=4))
        log, current = replay(copy_files(disk))
        self.assertEqual(current, entries(11, 12, term=4))
        self.assertEqual((log.base_index, log.base_term, log.last_index), (10, 4, 12))
        self.assertEqual(log.read(10, 99, 100), [])
        self.assertEqual(log.read(12, 99, 100), entries(12, 12, term=4))
        with self.assertRaises(AssertionError):
            log.append(entries(10, 10, term=5))

    def test_a_full_disk_leaves_the_file_as_it_was_at_every_byte(self):
        batch = entries(3, 3, term=2) + entries(4, 6, term=2)
        size = sum(PREFIX_BYTES + len(e.data) for e in batch)
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 4))
        before = disk.get(LOG_NAME)
        for budget in range(size):
            disk.bytes_left = budget
            with self.assertRaises(DiskFullError):
                log.append(batch)
            self.assertEqual(disk.get(LOG_NAME), before)
            self.assertEqual(disk.crash(randint_of(budget)).get(LOG_NAME), before)
            self.assertEqual(log.read(1, 99, 1 << 20), entries(1, 4))
        disk.bytes_left = size
        log.append(batch)
        self.assertEqual(log.read(1, 99, 1 << 20), entries(1, 2) + batch)


class DamageTest(unittest.TestCase):

    def test_cut_at_every_length_of_the_last_three_records(self):
        for batches in ([entries(1, 8)], [entries(1, 5), entries(6, 8)],
                        [entries(i, i) for i in range(1, 9)],
                        [entries(1, 6), entries(5, 6, term=2)]):
            data = _log_of(*batches).get(LOG_NAME)
            scanned = _scan(data)
            for size in range(scanned[-3][0], len(data) + 1):
                expected = []
                for offset, _, e in scanned:
                    if offset + PREFIX_BYTES + len(e.data) <= size:
                        expected[e.index - 1:] = [e]
                lines = []
                disk = disk_with(LOG_NAME, data[:size])
                _, current = open_log(disk, lines.append)
                self.assertEqual(current, expected)
                whole = max((o + PREFIX_BYTES + len(e.data) for o, _, e in scanned
                             if o + PREFIX_BYTES + len(e.data) <= size))
                self.assertEqual(disk.get(LOG_NAME), data[:whole])
                self.assertEqual(len(lines), int(whole < size))
                if lines:
                    self.assertIn(f"cut {size - whole} bytes at byte {whole}", lines[0])

    def test_one_bit_flipped_in_every_byte_of_16_kib(self):
        batches = [entries(i, i + 1, payload_bytes=580 + i) for i in range(1, 25, 2)]
        batches.append(entries(23, 25, term=2, payload_bytes=400))
        data = _log_of(*batches).get(LOG_NAME)
        self.assertGreaterEqual(len(data), 16 * 1024)
        scanned = _scan(data)
        highest_synced = max(synced for _, synced, _ in scanned)
        for offset in range(len(data)):
            flipped = bytearray(data)
            flipped[offset] ^= 0xFF if offset % 3 == 0 else 1 << offset % 8
            disk = disk_with(LOG_NAME, flipped)
            if offset < highest_synced:
                with self.assertRaises(CorruptFileError) as caught:
                    replay(disk)
                self.assertEqual(caught.exception.path, "simulated/log")
                self.assertLessEqual(caught.exception.offset, offset)
                self.assertEqual(disk.get(LOG_NAME), flipped)
                continue
            current = []
            for at, _, e in scanned:
                if at + PREFIX_BYTES + len(e.data) <= offset:
                    current[e.index - 1:] = [e]
            self.assertEqual(replay(disk)[1], current)

    def test_a_page_lost_in_an_unfinished_batch_is_a_torn_tail(self):
        data = bytearray(_log_of(entries(1, 3), entries(4, 40)).get(LOG_NAME))
        scanned = _scan(bytes(data))
        data[scanned[5][0] + 10:scanned[7][0] + 10] = bytes(scanned[7][0] - scanned[5][0])
        disk = disk_with(LOG_NAME, data)
        _, current = open_log(disk)
        self.assertEqual(current, entries(1, 5))
        self.assertEqual(len(disk.get(LOG_NAME)), scanned[5][0])

    def test_the_same_page_lost_in_a_synced_batch_is_damage(self):
        data = bytearray(_log_of(entries(1, 3), entries(4, 40), entries(41, 41)).get(LOG_NAME))
        scanned = _scan(bytes(data))
        data[scanned[5][0] + 10:scanned[7][0] + 10] = bytes(scanned[7][0] - scanned[5][0])
        with self.assertRaises(CorruptFileError) as caught:
            replay(disk_with(LOG_NAME, data))
        self.assertEqual(caught.exception.offset, scanned[5][0])

    def test_whole_records_that_cannot_follow_each_other_are_refused(self):
        other = encode_entry(2, 2, EntryKind.BATCH, b"another entry")
        for wrong in (entry(5, 2), other, entry(4, 1)):
            data = _log_of(entries(1, 3, term=2)).get(LOG_NAME)
            offset = len(data)
            data += encode_prefix(offset, offset, wrong.data) + wrong.data
            with self.assertRaises(CorruptFileError) as caught:
                replay(disk_with(LOG_NAME, data))
            self.assertEqual(caught.exception.offset, offset)

    def test_an_entry_restored_by_a_later_leader_annuls_what_follows_it(self):
        """10@2, 11@2 on file; 10@3, then 10@2 again before the disk was asked: 11@2 is void."""
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 3, term=2))
        again = entries(2, 2, term=2)[0]
        with self.assertRaises(AssertionError):
            log.append([again])
        log.append([again], {id(again)})
        self.assertEqual(log.last_index, 2)
        log.append([entry(3, 4)])
        self.assertEqual(open_log(disk)[1], [*entries(1, 2, term=2), entry(3, 4)])

    def test_a_tail_that_only_the_cache_shows_is_written_anew(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 3))
        disk.fail_at(2)
        with self.assertRaises(StorageError):
            log.append(entries(4, 6))
        disk.kill()
        log, current = open_log(disk)
        self.assertEqual(current, entries(1, 6))
        log.append(entries(7, 7))
        left = disk.crash(randint_of(1))
        self.assertEqual(replay(left)[1], entries(1, 7))

    def test_a_crash_after_the_cut_brings_nothing_back(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 3))
        data = disk.get(LOG_NAME)
        for seed in range(100):
            torn = disk_with(LOG_NAME, data + b"\x01" * 50)
            open_log(torn)
            self.assertEqual(torn.crash(randint_of(seed)).get(LOG_NAME), data)

    def test_a_long_replay_says_how_far_it_is(self):
        data = _log_of(entries(1, 10_000, payload_bytes=1)).get(LOG_NAME)
        lines = []
        with (mock.patch.object(replays, "PROGRESS_S", 0.0),
              mock.patch.object(records, "CHUNK_BYTES", 200_000)):
            replay(disk_with(LOG_NAME, data), lines.append)
        self.assertEqual(len(lines), 3)
        self.assertRegex(lines[1], r"log: read \d+ of \d+ MiB, 4761 entries")


class ReadTest(unittest.TestCase):

    def test_reads_one_at_least_and_stops_at_the_bytes(self):
        log = create_log(SimulatedDisk())
        log.append(entries(1, 10, payload_bytes=75))        # 100 bytes an entry
        for bytes_max, last in ((1, 3), (100, 3), (101, 4), (300, 5), (9999, 10)):
            self.assertEqual(log.read(3, 99, bytes_max), entries(3, last, payload_bytes=75))
        self.assertEqual(log.read(3, 4, 9999), entries(3, 4, payload_bytes=75))
        for first in (0, 11, 12):
            self.assertEqual(log.read(first, 99, 9999), [])
        self.assertEqual(log.read(3, 2, 9999), [])

    def test_a_closed_log_says_so(self):
        log = create_log(SimulatedDisk())
        log.append(entries(1, 3))
        log.close()
        self.assertIsNone(log.read(1, 3, 100))

    def test_number_of_entries_is_bounded(self):
        log = create_log(SimulatedDisk())
        log.append(entries(1, 3000, payload_bytes=1))
        self.assertEqual(len(log.read(1, 9999, 1 << 30)), logfile.READ_ENTRIES_MAX)

    def test_annulled_records_between_are_not_read(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 3) + entries(2, 5, payload_bytes=9, term=2))
        log.append(entries(4, 6, term=3))
        self.assertEqual(log.read(1, 99, 1 << 20), entries(1, 1)
                         + entries(2, 3, term=2, payload_bytes=9) + entries(4, 6, term=3))

    def test_bytes_changed_since_are_named(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 3))
        data = bytearray(disk.get(LOG_NAME))
        offset = _scan(bytes(data))[1][0]
        disk.write_at(disk.open(LOG_NAME), offset + 45, b"\xff\xfe")
        with self.assertRaises(CorruptFileError) as caught:
            log.read(1, 99, 1 << 20)
        self.assertEqual(caught.exception.offset, offset)

    def test_reads_while_another_thread_replaces_the_tail(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        disk = Disk(folder.name)
        self.addCleanup(disk.close_all)
        log = create_log(disk)
        log.append(entries(1, 40))
        # A reader that computes all the time would keep the interpreter for 5 ms at
        # each of the writer's turns.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)
        done = threading.Event()

        def replace():
            try:
                for term in range(2, 120):
                    log.append(entries(20, 20 + term % 7, term=term))
            finally:
                done.set()

        writer = threading.Thread(target=replace)
        writer.start()
        reads = 0
        while not done.is_set() or not reads:
            seen = log.read(10, 99, 1 << 20)
            self.assertEqual([e.index for e in seen], list(range(10, 10 + len(seen))))
            self.assertEqual(seen[:10], entries(10, 19))
            self.assertEqual(len({e.term for e in seen[10:]}), 1)
            reads += 1
        writer.join(30)
        self.assertFalse(writer.is_alive())
        self.assertEqual(log.last_term, 119)


if __name__ == "__main__":
    unittest.main()
