"""What the long tests judge by: figures out of /proc, and the thirds of a soak."""

import os
import tempfile
import unittest

from tests.lasting.directories import make_directory, single_enqueues
from tests.lasting.measures import (
    AVAILABLE, MIB, Sample, Samples, disk_bytes, files_of, nameless_bytes, rss_bytes, written_bytes)
from tests.lasting.soak import RSS_MARGIN, SoakFailure, judge


@unittest.skipUnless(AVAILABLE, "what a process takes is read from /proc")
class TestMeasures(unittest.TestCase):
    """Of this process."""

    def test_memory(self):
        before = rss_bytes(os.getpid())
        taken = b"x" * (32 * MIB)
        self.assertGreater(rss_bytes(os.getpid()), before + 24 * MIB)
        del taken

    def test_files_with_and_without_a_name(self):
        with tempfile.TemporaryDirectory() as directory:
            before = nameless_bytes(os.getpid())
            path = os.path.join(directory, "file")
            with open(path, "wb") as file:
                file.write(bytes(12_345))
                file.flush()
                self.assertEqual(disk_bytes(directory), 12_345)
                os.remove(path)
                self.assertEqual(disk_bytes(directory), 0)
                self.assertEqual(nameless_bytes(os.getpid()), before + 12_345)

    def test_bytes_written(self):
        with tempfile.TemporaryDirectory(dir=os.getcwd() if os.access(".", os.W_OK) else None
                                         ) as directory:
            before = written_bytes(os.getpid())
            with open(os.path.join(directory, "file"), "wb") as file:
                file.write(bytes(MIB))
                os.fsync(file.fileno())
            self.assertGreaterEqual(written_bytes(os.getpid()), before)


class TestJudge(unittest.TestCase):
    """A soak's first and last third."""

    def samples(self, rss: list[int]) -> Samples:
        """One every second."""
        return Samples([Sample(second, value, 20, 5 * MIB) for second, value in enumerate(rss)])

    def test_flat_passes_whatever_the_warm_up_was(self):
        judge("node", self.samples([90 * MIB] * 15 + [40 * MIB, 44 * MIB] * 43))

    def test_growth_fails(self):
        step = 2 * RSS_MARGIN // 80
        with self.assertRaisesRegex(SoakFailure, "node grows: rss"):
            judge("node", self.samples([40 * MIB + second * step for second in range(100)]))

    def test_a_single_late_peak_fails(self):
        values = [40 * MIB] * 100
        values[90] += RSS_MARGIN + 1
        with self.assertRaises(SoakFailure):
            judge("node", self.samples(values))


class TestDirectories(unittest.TestCase):
    """What is written without a node."""

    def test_it_is_one_of_a_stopped_node(self):
        with tempfile.TemporaryDirectory() as directory:
            make_directory(directory, "127.0.0.1:5001", single_enqueues(10, 100))
            self.assertLessEqual({"identity", "log", "meta"}, set(files_of(directory)))
