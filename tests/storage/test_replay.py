"""What a start hands to the core, without keeping all of it."""

import random
import unittest

from raftnet.errors import CorruptFileError
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.logfile import LogFile
from tests.storage.building import NODE_ID, copy_files, create_log, entries, nothing


def _replayed(disk, memory_bytes: int = 0):
    return LogFile.open(copy_files(disk), NODE_ID, nothing, memory_bytes)[1]


def _other(index: int, term: int, kind: int):
    return encode_entry(index, term, kind, b"%d@%d" % (index, term))


class ReplayTest(unittest.TestCase):

    def test_terms_come_in_runs_and_memberships_apart(self):
        disk = SimulatedDisk()
        create_log(disk, 10, 2).append(
            [_other(11, 2, EntryKind.MEMBERSHIP), *entries(12, 14, term=2),
             *entries(15, 16, term=5), _other(17, 6, EntryKind.MEMBERSHIP), *entries(18, 20, 6)])
        found = _replayed(disk)
        self.assertEqual(found[:4], (10, 2, [(15, 5), (17, 6)], [(11, b"11@2"), (17, b"17@6")]))

    def test_what_was_annulled_is_gone_from_all_of_it(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append([*entries(1, 3), _other(4, 2, EntryKind.MEMBERSHIP), *entries(5, 8, term=3)])
        log.append([_other(4, 4, EntryKind.EMPTY)])
        self.assertEqual(_replayed(disk, 1 << 20),
                         (0, 0, [(1, 1), (4, 4)], [],
                          [*entries(1, 3), _other(4, 4, EntryKind.EMPTY)]))

    def test_the_newest_entries_within_the_bytes(self):
        disk = SimulatedDisk()
        create_log(disk).append(entries(1, 100, payload_bytes=19))      # 60 bytes a record
        for memory_bytes, first in ((0, 100), (1, 100), (60, 100), (120, 99), (150, 99),
                                    (3_000, 51), (6_000, 1), (1 << 30, 1)):
            self.assertEqual(_replayed(disk, memory_bytes).entries,
                             entries(first, 100, payload_bytes=19), memory_bytes)

    def test_the_last_batch_is_among_them(self):
        for empties in (1, 5, 4_100):
            disk = SimulatedDisk()
            tail = [_other(index, 2, EntryKind.EMPTY) for index in range(7, 7 + empties)]
            create_log(disk).append(entries(1, 6) + tail)
            for memory_bytes in (0, 100):
                found = _replayed(disk, memory_bytes).entries
                self.assertEqual(found[-empties:], tail)
                self.assertLessEqual(found[0].index, 6)
                self.assertEqual([e.index for e in found],
                                 list(range(found[0].index, 7 + empties)))

    def test_it_stops_at_the_first_record_of_an_entry(self):
        disk = SimulatedDisk()
        log = create_log(disk)
        log.append(entries(1, 10))
        log.append(entries(5, 8, term=2))
        again = entries(7, 7, term=2)
        log.append(again, {id(again[0])})       # the same one once more, which annuls 8@2
        log.append(entries(8, 9, term=3))
        log.append(entries(10, 10, term=3))
        disk.spoil("log", log._offsets[-2] + 3)         # behind all that is asked for below
        with self.assertRaises(CorruptFileError):
            _replayed(disk, 1 << 20)
        for stop_at, expected in (((7, 1), entries(1, 7)),
                                  ((7, 2), entries(1, 4) + entries(5, 7, term=2)),
                                  ((8, 2), entries(1, 4) + entries(5, 8, term=2))):
            copy = copy_files(disk)
            found, replayed = LogFile.open(copy, NODE_ID, nothing, 1 << 20, stop_at=stop_at)
            self.assertEqual((replayed.entries, found.last), (expected, stop_at[::-1]))
            self.assertEqual(found.read(1, 99, 1 << 20), expected)
        with self.assertRaises(CorruptFileError):       # that one is not there
            LogFile.open(copy_files(disk), NODE_ID, nothing, 0, stop_at=(8, 4))

    def test_no_batch_at_all(self):
        disk = SimulatedDisk()
        tail = [_other(index, 2, EntryKind.EMPTY) for index in range(1, 9)]
        create_log(disk).append(tail)
        self.assertEqual(_replayed(disk).entries, tail)
        empty = SimulatedDisk()
        create_log(empty, 7, 2)
        self.assertEqual(_replayed(empty), (7, 2, [], [], []))

    def test_random_histories_with_any_memory(self):
        for seed in range(200):
            chance = random.Random(seed)
            disk = SimulatedDisk()
            log = create_log(disk)
            current, term = [], 1
            for _ in range(chance.randint(1, 25)):
                first = len(current) + 1
                if current and chance.randint(0, 3) == 0:
                    term += 1
                    first = chance.randint(1, len(current))
                new = [encode_entry(first + n, term, chance.randint(0, 2), b"x" * chance.randint(
                    0, 40)) for n in range(chance.randint(1, 4))]
                current[first - 1:] = new
                log.append(new)
            found = _replayed(disk, chance.randint(0, 500))
            runs, last = [], 0
            for e in current:
                if e.term != last:
                    runs.append((e.index, e.term))
                    last = e.term
            self.assertEqual(found.term_runs, runs)
            self.assertEqual(found.memberships, [(e.index, e.payload) for e in current
                                                 if e.kind == EntryKind.MEMBERSHIP])
            count = len(found.entries)
            self.assertEqual(found.entries, current[len(current) - count:])
            kinds = {e.kind for e in found.entries}
            self.assertTrue(EntryKind.BATCH in kinds or count == len(current))


if __name__ == "__main__":
    unittest.main()
