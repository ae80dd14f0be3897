"""The bytes of records as a read-only tool sees them."""

import time
import unittest
from unittest import mock

from raftnet.errors import CorruptFileError, StorageError
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import records
from raftnet.storage.logfile import LOG_NAME, LogFile
from tests.storage.building import entries, entry


def _reader(data: bytes):
    return lambda offset, count: data[offset:offset + count]


def _log_bytes(*batches) -> bytes:
    disk = SimulatedDisk()
    log = LogFile.create(disk, 1)
    for batch in batches:
        log.append(batch)
    return disk.get(LOG_NAME)


class RecordsTest(unittest.TestCase):

    def test_every_record_is_seen_with_the_offset_known_durable_then(self):
        data = _log_bytes(entries(1, 2), entries(3, 3), entries(2, 2, term=2))
        seen = list(records.scan_records(_reader(data), len(data)))
        self.assertEqual([e.index for _, _, e in seen], [1, 2, 3, 2])
        self.assertEqual([e for _, _, e in seen[:2]], entries(1, 2))
        offsets = [offset for offset, _, _ in seen]
        self.assertEqual(offsets[0], records.HEADER_BYTES)
        self.assertEqual([synced for _, synced, _ in seen],
                         [offsets[0], offsets[0], offsets[2], offsets[3]])

    def test_records_across_the_edges_of_the_reads(self):
        data = _log_bytes(entries(1, 9, payload_bytes=50), [entry(10, 1, b"x" * 5000)],
                          entries(11, 12))
        whole = list(records.scan_records(_reader(data), len(data)))
        self.assertEqual(len(whole), 12)
        damaged = bytearray(data)
        damaged[whole[2][0]] ^= 1
        for chunk in range(1, 300):
            with mock.patch.object(records, "CHUNK_BYTES", chunk):
                self.assertEqual(list(records.scan_records(_reader(data), len(data))), whole)
                if chunk > records.RECORD_HEAD_BYTES:
                    found = records.find_voucher(_reader(damaged), len(data), whole[2][0])
                    self.assertEqual(found, whole[9][0])

    def test_bytes_that_are_no_record_are_the_last_value(self):
        data = _log_bytes(entries(1, 3))
        whole = list(records.scan_records(_reader(data), len(data)))
        damaged = bytearray(data)
        damaged[-1] ^= 1
        seen = list(records.scan_records(_reader(damaged), len(data)))
        self.assertEqual(seen[:2], whole[:2])
        self.assertEqual(seen[2], (whole[2][0], "the entry's checksum does not match its bytes",
                                   None))
        self.assertEqual(seen[3:], [])

    def test_a_copy_of_a_record_inside_a_message_vouches_for_nothing(self):
        inner = _log_bytes(entries(1, 3), entries(4, 4))
        data = _log_bytes([entry(1, 1, inner * 3)])
        self.assertIsNone(records.find_voucher(_reader(data), len(data), records.HEADER_BYTES))

    def test_a_search_through_many_megabytes_takes_no_seconds(self):
        data = _log_bytes(entries(1, 1)) + bytes(range(256)) * 80_000
        begin = time.process_time()
        self.assertIsNone(records.find_voucher(_reader(data), len(data), records.HEADER_BYTES))
        self.assertLess(time.process_time() - begin, 1.0)

    def test_a_search_ends_where_the_file_was_cut_meanwhile(self):
        data, reads = bytes(1_000), []

        def read(offset: int, count: int) -> bytes:
            reads.append(offset)
            self.assertLess(len(reads), 100)
            return data[offset:offset + count]

        for offset in (100, 940, 999, 1_000, 5_000):
            reads.clear()
            self.assertIsNone(records.find_voucher(read, 3_000_000, offset))

    def test_header(self):
        data = records.encode_header(7, 3, 99)
        self.assertEqual(len(data), records.HEADER_BYTES)
        self.assertEqual(records.decode_header(data, "log"), (7, 3, 99))
        for offset in range(len(data)):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << offset % 8
            for damaged in (bytes(flipped), data[:offset]):
                with self.assertRaises(CorruptFileError):
                    records.decode_header(damaged, "log")

    def test_header_of_another_format_is_named(self):
        with mock.patch.object(records, "FORMAT", 3):
            data = records.encode_header(0, 0, 1)
        with self.assertRaisesRegex(StorageError, "log: has format 3"):
            records.decode_header(data, "log")


if __name__ == "__main__":
    unittest.main()
