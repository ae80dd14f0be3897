"""Snapshots and backups, against nodes played in this process: what is read is the file, whatever
happens on the way, and nothing half is left behind."""

import errno
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from raftnet.client import Client, backup, link, partialfile, patience
from raftnet.client.backup import PART_BYTES, PARTS_IN_FLIGHT, Transfer
from raftnet.client.partialfile import PartialFile
from raftnet.errors import (DiskFullError, ErrorCode, MalformedError, NoAnswerError, RefusedError,
                            StorageError)
from raftnet.wire import requests
from raftnet.wire.frames import FrameReader, Kind
from raftnet.wire.snapshots import (Part, Taken, decode_read_snapshot, encode_snapshot_part,
                                    encode_snapshot_taken)
from tests.client import fakenode
from tests.client.fakenode import FakeCluster, Refuse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PARTS = 20              # of the snapshots here: more than are on their way at a time


class TransferTest(unittest.TestCase):
    """The exchange alone, without a connection."""

    def setUp(self):
        self.data = random.Random(1).randbytes(PARTS * PART_BYTES - 7)
        self.transfer = Transfer(9, len(self.data), itertools.count(1))
        self.asked: list[tuple] = []            # (request id, offset, count), unanswered
        self.found = b""

    def ask(self) -> int:
        """How many requests it sends now."""
        new = FrameReader().feed(self.transfer.output(0.0))
        self.asked += [(request_id, *decode_read_snapshot(body)[1:]) for _, request_id, body in new]
        return len(new)

    def give(self, place: int, most: int = PART_BYTES) -> None:
        """Answer one of the requests, with so many bytes at most."""
        request_id, offset, count = self.asked.pop(place)
        part = Part(9, len(self.data), offset, self.data[offset:offset + min(count, most)])
        self.transfer.receive(Kind.SNAPSHOT_PART, request_id, encode_snapshot_part(part))
        self.found += b"".join(self.transfer.take())

    def test_parts_are_pipelined(self):
        self.assertEqual((self.ask(), self.ask()), (PARTS_IN_FLIGHT, 0))
        self.give(0)
        self.assertEqual(self.ask(), 1)
        self.assertEqual(self.found, self.data[:PART_BYTES])

    def test_in_any_order_short_refused_and_lost(self):
        self.enterContext(mock.patch.object(backup, "PART_BYTES", 1_000))
        for seed in range(60):
            self.data = random.Random(seed).randbytes(PARTS * 1_000 - 7)
            self.transfer = Transfer(9, len(self.data), itertools.count(1))
            self.asked, self.found = [], b""
            chance = random.Random(seed)
            while self.transfer.unanswered:
                self.ask()
                self.assertTrue(self.asked, "nothing is on its way, and bytes are missing")
                for _ in range(chance.randint(1, len(self.asked))):
                    place, what = chance.randrange(len(self.asked)), chance.random()
                    if what < 0.03:
                        self.transfer.connection_lost()
                        self.asked.clear()
                        break
                    if what < 0.2:
                        refusal = self.transfer.receive(Kind.ERROR, self.asked.pop(place)[0],
                                                        requests.encode_error(ErrorCode.BUSY, ""))
                        self.assertEqual(refusal.code, ErrorCode.BUSY)
                    else:
                        self.give(place, chance.choice((1, 400, 1_000)))
                self.assertLessEqual(len(self.asked), PARTS_IN_FLIGHT)
            self.assertEqual((self.found == self.data, self.transfer.received),
                             (True, len(self.data)))

    def test_what_is_no_such_part(self):
        self.ask()
        size = len(self.data)
        for part in (Part(8, size, 0, b"x"), Part(9, size, 1, b"x"),
                     Part(9, size, 0, bytes(PART_BYTES + 1))):
            with self.assertRaises(MalformedError):
                self.transfer.receive(Kind.SNAPSHOT_PART, 1, encode_snapshot_part(part))
        with self.assertRaises(MalformedError):
            self.transfer.receive(Kind.REPLY, 1, b"")
        self.assertIsNone(self.transfer.receive(Kind.SNAPSHOT_PART, 99, b"of somebody else"))
        self.assertFalse(self.transfer.changed)
        self.transfer.receive(Kind.SNAPSHOT_PART, 1,
                              encode_snapshot_part(Part(9, size + 1, 0, b"x")))
        self.assertTrue(self.transfer.changed and not self.transfer.unanswered)


class ClusterTest(unittest.TestCase):
    """A cluster of two, and an empty directory."""

    def setUp(self):
        self.cluster = FakeCluster()
        self.addCleanup(self.cluster.close)
        self.leader = self.cluster.node()
        self.follower = self.cluster.node()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "saved")
        self.told: list[str] = []

    def client(self, timeout_s: float = 10.0, *servers: str) -> Client:
        client = Client(list(servers) or [self.follower.address, self.leader.address], timeout_s)
        self.addCleanup(client.close)
        return client

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def check(self, held) -> None:
        """The file is that snapshot, and alone."""
        self.assertEqual(self.names(), ["saved"])
        with open(self.path, "rb") as file:
            found = file.read()
        self.assertTrue(found == self.cluster.snapshot_at(held.index))
        self.assertEqual(held.size, len(found))


class SnapshotTest(ClusterTest):
    def test_of_the_leader(self):
        client = self.client()
        client.queue().enqueue("x")
        held = client.snapshot()
        self.assertEqual(held[:4], (self.leader.address, 1, fakenode.TERM, 100_000))
        self.assertEqual(held.digest, self.cluster.machine.digest)
        self.assertEqual(held.text, f"snapshot up to entry 1: 100.0 kB, digest {held.digest:08x}")

    def test_of_a_node(self):
        held = self.client().snapshot(self.follower.address)
        self.assertEqual((held.address, self.leader.taken), (self.follower.address, 0))

    def test_of_a_node_of_another_cluster(self):
        other = FakeCluster(b"d" * 16)
        self.addCleanup(other.close)
        client = self.client()
        client.queue().size()
        with self.assertRaises(RefusedError) as caught:
            client.snapshot(other.node().address)
        self.assertEqual(caught.exception.code, ErrorCode.WRONG_CLUSTER)

    def test_refused(self):
        self.leader.script.append(Refuse(ErrorCode.NO_SNAPSHOT))
        with self.assertRaises(RefusedError) as caught:
            self.client().snapshot()
        self.assertEqual(caught.exception.code, ErrorCode.NO_SNAPSHOT)

    def test_refusals_that_pass_and_lost_connections(self):
        self.leader.script += [Refuse(ErrorCode.BUSY), fakenode.DROP_AFTER]
        self.assertEqual(self.client().snapshot().index, 0)
        self.assertEqual(self.leader.taken, 2)

    def test_a_node_at_work_has_time_while_it_lives(self):
        self.cluster.making_s = 0.55
        with (mock.patch.object(patience, "QUIET_S_MIN", 0.02),     # a node is asked that early
              mock.patch.object(link, "QUIET_S_MAX", 0.02),         # and that often
              mock.patch.object(patience.Patience, "round_trip_s", lambda *_: 0.0)):
            self.assertEqual(self.client(0.4).snapshot().index, 0)
        self.assertEqual(self.leader.taken, 1)

    def test_the_time_is_up(self):
        for case in (fakenode.DEAF, Refuse(ErrorCode.NOT_READY)):
            self.leader.script.clear()
            self.leader.script += [case] * 1_000
            began = time.monotonic()
            with self.subTest(case), self.assertRaises(NoAnswerError):
                self.client(0.2, self.leader.address).snapshot()
            self.assertLess(time.monotonic() - began, 2.0)


class BackupTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(backup, "PART_BYTES", 16_000))
        self.enterContext(mock.patch.object(backup, "PAUSE_S", 0.0))
        self.cluster.snapshot_bytes = PARTS * 16_000 - 7

    def save(self, timeout_s: float = 10.0, **options):
        return self.client(timeout_s).backup(self.path, progress=self.told.append, **options)

    def test_of_the_leader(self):
        client = self.client()
        client.queue().enqueue("x")
        held = client.backup(self.path)
        self.check(held)
        self.assertEqual((held.address, held.index), (self.leader.address, 1))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_of_one_node_without_a_leader(self):
        self.cluster.leader = ""
        held = self.save(local=self.follower.address)
        self.check(held)
        self.assertEqual(held.address, self.follower.address)

    def test_of_a_node_that_does_not_run(self):
        self.follower.close()
        with self.assertRaises(NoAnswerError) as caught:
            self.save(local=self.follower.address)      # at once
        self.assertIn("refused", str(caught.exception))
        self.assertEqual(self.names(), [])

    def test_lost_connections_go_on_where_they_were(self):
        self.leader.script += [None] * 4 + [fakenode.DROP_BEFORE] + [None] * 20 + [
            fakenode.GARBAGE] + [None] * 5 + [Refuse(ErrorCode.BUSY)]
        self.check(self.save())
        self.assertEqual((self.leader.taken, self.told), (1, []))
        self.assertLess(self.leader.served, 1 + PARTS + 2 * PARTS_IN_FLIGHT + 2)

    def test_held_no_more_begins_anew(self):
        # some parts are written, the next one is refused
        self.leader.script += [None, None, None, fakenode.LATE, Refuse(ErrorCode.NO_SNAPSHOT)]
        self.check(self.save())
        self.assertEqual(self.leader.taken, 2)
        self.assertIn("NO_SNAPSHOT): beginning anew", self.told[0])

    def test_never_held_is_refused_in_the_end(self):
        self.leader.handlers[Kind.READ_SNAPSHOT] = lambda body: Refuse(ErrorCode.NO_SNAPSHOT)
        with self.assertRaises(RefusedError):
            self.save()
        self.assertEqual((self.names(), self.leader.taken), ([], backup.STARTS_MAX))

    def test_another_leader_begins_anew(self):
        def die(body: bytes) -> int:
            self.cluster.apply(requests.encode_request(bytes(16), 1, 0, []))
            self.cluster.leader = self.follower.address
            return fakenode.DROP_AFTER
        self.leader.handlers[Kind.READ_SNAPSHOT] = die
        with mock.patch.object(backup, "_stall_s", lambda _: 0.1):
            held = self.save()
        self.check(held)
        self.assertEqual((held.address, held.index > 0), (self.follower.address, True))
        self.assertEqual(self.told, [f"{self.leader.address} is not heard, and "
                                     f"{self.follower.address} leads: beginning anew"])

    def test_another_leader_while_the_snapshot_is_made(self):
        status = self.leader.handlers[Kind.STATUS] = mock.Mock(side_effect=lambda body: (
            Kind.STATUS_REPLY, requests.encode_status(self.leader.connections[-1]._status())))
        self.leader.handlers[Kind.TAKE_SNAPSHOT] = lambda body: fakenode.SILENT_AFTER

        def die() -> None:
            deadline = time.monotonic() + 20
            while status.call_count < 3 and time.monotonic() < deadline:    # it has shown that
                time.sleep(0.005)                                           # it lives
            self.cluster.leader = self.follower.address
            self.leader.close()
        death = threading.Thread(target=die)
        death.start()
        self.addCleanup(death.join)
        with (mock.patch.object(patience, "QUIET_S_MIN", 0.02),
              mock.patch.object(patience.Patience, "round_trip_s", lambda *_: 0.0),
              mock.patch.object(backup, "WORKING_S", 0.01)):
            held = self.save()
        self.check(held)
        self.assertEqual(held.address, self.follower.address)
        self.assertEqual(self.told, [f"{self.leader.address} does not finish it: beginning anew"])

    def test_a_stall_of_the_same_leader_is_waited_for(self):
        self.leader.script += [None, *[fakenode.SILENT_AFTER] * PARTS_IN_FLIGHT]
        with mock.patch.object(backup, "_stall_s", lambda _: 0.1):
            self.check(self.save())
        self.assertEqual((self.leader.taken, self.told), (1, []))

    def test_the_time_counts_from_the_last_byte(self):
        self.leader.script += [None, *[fakenode.LATE] * 7]
        began = time.monotonic()
        self.check(self.save(0.25))
        self.assertGreater(time.monotonic() - began, 0.25)

    def test_silence_ends_it(self):
        self.leader.script += [None, *[fakenode.SILENT_AFTER] * 1_000]
        with self.assertRaises(NoAnswerError) as caught:
            self.save(0.2)
        self.assertTrue(caught.exception.known)
        self.assertEqual(self.names(), [])

    def test_a_wrong_checksum(self):
        taken = encode_snapshot_taken(Taken(1, 1, 13, 0xCBF43926, 0))
        self.leader.handlers[Kind.TAKE_SNAPSHOT] = lambda body: (Kind.SNAPSHOT_TAKEN, taken)
        for data in (b"123456780\xcb\xf4\x39\x26", b"123456789\xcb\xf4\x39\x27"):
            self.leader.snapshots[1] = data
            with self.assertRaisesRegex(StorageError, "announced .cbf43926.*damaged"):
                self.save()
            self.assertEqual(self.names(), [])
        self.leader.snapshots[1] = b"123456789\xcb\xf4\x39\x26"
        self.assertEqual(self.save().size, 13)

    def test_progress(self):
        with mock.patch.object(backup, "PROGRESS_S", 0.0):
            self.cluster.making_s = 0.1
            self.check(self.save())
        self.assertIn(f"{self.leader.address} makes a snapshot, for 0 s now", self.told)
        self.assertEqual(self.told[-1], "320.0 kB of 320.0 kB")

    def test_a_full_disk(self):
        def write(handle: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "full")
        with mock.patch.object(partialfile.os, "write", write):
            with self.assertRaisesRegex(DiskFullError, "saved.partial: No space left on device;"):
                self.save()
        self.assertEqual(self.names(), [])

    def test_a_disk_that_syncs_no_more(self):
        def sync(handle: int) -> None:
            raise OSError(errno.EIO, "broken")
        with mock.patch.object(partialfile.os, "fsync", sync), self.assertRaises(StorageError):
            self.save()
        self.assertEqual(self.names(), [])

    def test_as_a_process_interrupted(self):
        self.leader.script += [None, *[fakenode.SILENT_AFTER] * 1_000]
        self.cluster.snapshot_bytes = PARTS * PART_BYTES
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s", self.leader.address, "backup",
             self.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 20
            while self.leader.served < PARTS_IN_FLIGHT:
                self.assertLess(time.monotonic(), deadline, "it asked for no parts")
                time.sleep(0.005)
            self.assertEqual(self.names(), ["saved.partial"])
            process.send_signal(signal.SIGINT)
            found = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
        self.assertEqual((process.returncode, *found, self.names()), (130, b"", b"", []))


class PartialFileTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "file")

    def put(self, data: bytes, force: bool = False) -> None:
        with PartialFile(self.path, force) as file:
            file.write(data)
            file.finish()

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def test_whole_or_not_at_all(self):
        with self.assertRaises(ZeroDivisionError), PartialFile(self.path) as file:
            file.write(b"a")
            raise ZeroDivisionError
        self.assertEqual(os.listdir(self.folder), [])
        self.put(b"abc")
        self.assertEqual((self.read(), os.listdir(self.folder)), (b"abc", ["file"]))

    def test_what_is_there_stays(self):
        self.put(b"old")
        with self.assertRaisesRegex(StorageError, "file exists.*--force"):
            self.put(b"new")
        self.assertEqual((self.read(), os.listdir(self.folder)), (b"old", ["file"]))
        self.put(b"new", force=True)
        self.assertEqual(self.read(), b"new")
        with PartialFile(self.path, True) as file:
            file.write(b"never finished")
        self.assertEqual((self.read(), os.listdir(self.folder)), (b"new", ["file"]))

    def test_what_has_appeared_meanwhile_stays(self):
        with self.assertRaises(StorageError), PartialFile(self.path) as file:
            with open(self.path, "wb") as other:
                other.write(b"other")
            file.finish()
        self.assertEqual((self.read(), os.listdir(self.folder)), (b"other", ["file"]))

    def test_places_that_cannot_be(self):
        os.mkdir(self.path)
        os.mkfifo(os.path.join(self.folder, "pipe"))
        for name, force in (("file", False), ("file", True), ("pipe", True), ("no/file", False)):
            with self.subTest(name), self.assertRaises(StorageError) as caught:
                PartialFile(os.path.join(self.folder, name), force)
            self.assertIn(name, str(caught.exception))
        self.assertEqual(sorted(os.listdir(self.folder)), ["file", "pipe"])
        for path in ("", "a\0b"):
            with self.assertRaisesRegex(StorageError, "no name of a file"):
                PartialFile(path)

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_a_folder_that_may_not_be_written(self):
        os.chmod(self.folder, 0o500)
        self.addCleanup(os.chmod, self.folder, 0o700)
        with self.assertRaisesRegex(StorageError, "Permission denied"):
            PartialFile(self.path)

    def test_two_at_a_time_do_not_mix(self):
        with PartialFile(self.path) as file:
            file.write(b"first")
            with self.assertRaisesRegex(StorageError, "written by somebody else"):
                PartialFile(self.path)
            file.finish()
        self.assertEqual(self.read(), b"first")

    def test_one_that_was_finished_in_that_moment_is_not_written(self):
        def lock(handle: int, how: int) -> None:
            os.rename(self.path + ".partial", self.path)    # by the one who had the lock
        with mock.patch.object(partialfile.fcntl, "flock", lock):
            with self.assertRaisesRegex(StorageError, "written by somebody else"):
                PartialFile(self.path)

    def test_what_a_killed_one_left_is_written_over(self):
        with open(self.path + ".partial", "wb") as file:
            file.write(bytes(1000))
        self.put(b"abc")
        self.assertEqual((self.read(), os.listdir(self.folder)), (b"abc", ["file"]))

    def test_size_and_checksum_since_the_restart(self):
        with mock.patch.object(partialfile, "SYNC_BYTES", 4), PartialFile(self.path) as file:
            file.write(b"forget me")
            file.restart()
            for data in (b"1234", b"56789"):
                file.write(data)
            self.assertEqual((file.size, file.checksum), (9, 0xCBF43926))
            file.finish()
        self.assertEqual(self.read(), b"123456789")


if __name__ == "__main__":
    unittest.main()
