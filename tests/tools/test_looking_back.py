"""decode log --at, log --message and snapshot: directories as a Store leaves them, whole, cut
behind a snapshot, damaged, and a running node's."""

import contextlib
import io
import os
import struct
import tempfile
import threading
import time
import unittest

from raftnet.client import Client
from raftnet.config import Config
from raftnet.errors import CorruptFileError, StorageError
from raftnet.founding import Founders
from raftnet.machine.describe import describe_state
from raftnet.machine.machine import Machine
from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.membership import NO_MEMBERSHIP
from raftnet.raft.types import HardState
from raftnet.rebuild import Rebuilt, SnapshotOrder, make_snapshot
from raftnet.storage.disk import Disk
from raftnet.storage.snapshot import SNAPSHOT_NAME
from raftnet.storage.store import Job, Store
from raftnet.storage.succession import Compaction
from raftnet.wire import commands
from raftnet.wire.requests import NO_SESSION, encode_request
from tools import decode
from tools.filetext import log_lines
from tools.messagelife import MessageLife, message_lines
from tools.processes import LocalCluster, wait_until
from tools.readonlydisk import Progress, ReadOnlyDisk
from tools.statetext import snapshot_lines, state_lines

NODE_ID = 0x1122334455667788
ADDRESS = "127.0.0.1:5001"
ALICE, BOB, CAROL = b"A" * 16, b"B" * 16, b"C" * 16


def enqueue(queue: bytes, *messages: bytes) -> bytes:
    """A command."""
    return commands.encode_enqueue(queue, list(messages))


def history() -> list[Entry]:
    """Entries 2 to 12: messages 1 to 8 come, and some go, in all ways that there are."""
    take = commands.encode_dequeue
    peek, both = commands.encode_peek(b"jobs", 10), commands.encode_execute(
        [enqueue(b"jobs", b"six"), take(b"jobs", 3), enqueue(b"other", b"seven")])
    entries = [[]] + [
        # 3: ids 1 to 4, in two commands of one request, behind two that are malformed
        [b"short", bytes(36) + b"cut", encode_request(ALICE, 1, 0, [
            enqueue(b"jobs", b"one", b"two"), enqueue(b"jobs", b"three", b"four")])],
        [encode_request(BOB, 1, 0, [peek]), *2 * [encode_request(BOB, 2, 0,
                                                                 [peek, take(b"jobs")])]],
        [encode_request(BOB, 2, 0, [peek, take(b"jobs")])],             # 5: again, for a retry
        [encode_request(CAROL, 1, 0, [take(b"calls", 1, 1_000)])],      # 6: waits
        [encode_request(NO_SESSION, 0, 0, [enqueue(b"calls", b"five")])],
        [encode_request(ALICE, 3, 2, [both])],                          # 8: takes two, three, four
        [encode_request(ALICE, 3, 2, [both]), encode_request(BOB, 2, 0, [peek, take(b"jobs")])],
        [encode_request(CAROL, 2, 0, [take(b"nothing", 1, 1_000)])],    # 10: waits on
        [encode_request(NO_SESSION, 0, 0, [take(b"other")])],
        [encode_request(BOB, 4, 0, [enqueue(b"jobs", b"eight \xff\n")])],
    ]
    return [encode_entry(2, 2, EntryKind.EMPTY, b"")] + [
        encode_entry(index, 2, EntryKind.BATCH, commands.encode_batch(100 * index, bodies))
        for index, bodies in enumerate(entries[1:], 3)]


class LookingBack(unittest.TestCase):
    """One founded node's directory with the history, still open; a machine that applied it."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.store = Store.open(Disk(self.directory), lambda: NODE_ID, lambda text: None)
        self.addCleanup(self.store.close)
        cluster_id, entry = Founders(NODE_ID, ADDRESS, [ADDRESS], 0).entry_1()
        self.store.found(cluster_id, entry)
        self.entries = [entry, *history()]
        self.store.perform([Job(1, HardState(2, NODE_ID), self.entries[1:])])
        self.log_path = os.path.join(self.directory, "log")
        self.snapshot_path = os.path.join(self.directory, SNAPSHOT_NAME)

    def machine_at(self, index: int) -> Machine:
        """The state after that entry."""
        config = Config()
        machine = Machine(config.machine, config.wire)
        for entry in self.entries[:index]:
            machine.apply(entry)
        return machine

    def snapshot(self, index: int, base_index: int) -> None:
        """Make one up to `index`; the log begins after `base_index`."""
        disk = Disk(self.directory)
        meta = make_snapshot(disk, Config(), SnapshotOrder(
            "snapshot.made-1", index, self.entries[index - 1].term, self.machine_at(index).digest,
            self.store.cluster_id))
        self.store.perform([Job(2, None, [], compact=Compaction("snapshot.made-1", meta,
                                                                base_index))])
        while self.store.compacting and not self.store.compaction_step():
            pass

    def flip(self, path: str, offset: int) -> None:
        """One bit of a file."""
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes((byte ^ 1,)))

    def at(self, index: int, everything: bool = True) -> list[str]:
        """The lines of `log --at`."""
        return list(state_lines(self.directory, index, everything))

    def refusal(self, lines) -> str:
        """The text of the StorageError that comes before the first line."""
        with self.assertRaises(StorageError) as caught:
            self.assertEqual(list(lines), [])
        self.assertNotIn("\n", str(caught.exception))
        return str(caught.exception)

    def run_decode(self, *words: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr)."""
        stdout, stderr = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            try:
                status = decode.main(list(words))
            except SystemExit as end:
                status = end.code
        return status, stdout.buffer.getvalue().decode(), stderr.getvalue()


class State(LookingBack):
    """decode log --at."""

    def test_every_index_as_the_node_had_it(self):
        for index in range(1, 13):
            with self.subTest(index=index):
                lines = self.at(index)
                self.assertEqual(lines[0], f"state after entry {index} of term {2 - (index == 1)}")
                self.assertEqual(lines[1], "log: up to entry 12; its tail may be uncommitted, the "
                                 "files do not tell")
                self.assertTrue(lines[2].startswith("since entry 1: membership "), lines[2])
                self.assertEqual(lines[3:], list(describe_state(self.machine_at(index), None)))
        self.assertEqual(lines, list(state_lines(self.log_path, 12, True)))

    def test_above_a_snapshot_and_below_it(self):
        for base_index, held in ((0, 1), (3, 7), (7, 7)):
            with self.subTest(base=base_index):
                self.snapshot(7, base_index)
                for index in range(held, 13):
                    lines = self.at(index)
                    self.assertEqual(lines[1], "log: up to entry 12; committed for sure up to 7, "
                                     "by the snapshot; its tail may be uncommitted, the files do "
                                     "not tell")
                    self.assertEqual(lines[3:],
                                     list(describe_state(self.machine_at(index), None)))
                for index in (held - 1, 13):
                    if index:
                        self.assertEqual(self.refusal(state_lines(self.directory, index, False)),
                                         f"{self.directory}: entry {index} is not held: the files "
                                         f"tell the state at entries {held} to 12")

    def test_a_log_that_ends_with_its_snapshot(self):
        self.snapshot(12, 12)
        lines = self.at(12)
        self.assertEqual(lines[1],
                         "log: up to entry 12; committed for sure up to 12, by the snapshot")
        self.assertEqual(lines[3:], list(describe_state(self.machine_at(12), None)))

    def test_only_the_first_messages_without_all(self):
        self.store.perform([Job(2, None, [encode_entry(
            13, 2, EntryKind.BATCH, commands.encode_batch(1_300, [encode_request(
                NO_SESSION, 0, 0, [enqueue(b"many", *[b"m"] * 12)])]))])])
        self.assertIn("    ... (2 more)", self.at(13, everything=False))
        self.assertNotIn("    ... (2 more)", self.at(13))

    def test_nothing_is_changed_and_nothing_locked(self):
        self.snapshot(7, 3)

        def files() -> list[tuple]:
            return [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
                    for entry in sorted(os.scandir(self.directory), key=lambda e: e.name)]
        # The log that was cut is closed by a thread (Disk.close): its descriptor is none of ours.
        wait_until(lambda: all(t.name != "close" for t in threading.enumerate()), 10,
                   "the old log to be closed")
        before, descriptors = files(), len(os.listdir("/dev/fd"))
        self.at(12)
        list(snapshot_lines(self.directory, True))
        list(message_lines(self.directory, 3, None))
        self.refusal(state_lines(self.directory, 99, False))
        self.assertEqual(files(), before)
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors)

    def test_a_torn_tail_is_left_out_and_told(self):
        with open(self.log_path, "ab") as file:
            file.write(b"RREC torn")
        lines = self.at(12)
        self.assertIn("9 bytes behind its last whole record are left out", lines[2])
        self.assertEqual(lines[4:], list(describe_state(self.machine_at(12), None)))

    def test_damage_is_named_with_path_and_offset(self):
        self.store.perform([Job(2, None, [encode_entry(13, 2, EntryKind.EMPTY, b"")])])
        offset = 36     # of the first record
        self.flip(self.log_path, offset + 50)
        with self.assertRaises(CorruptFileError) as caught:
            self.at(2)
        self.assertEqual((caught.exception.path, caught.exception.offset), (self.log_path, offset))
        self.flip(self.log_path, offset + 50)
        self.flip(self.log_path, 10)
        status, text, error = self.run_decode("log", self.directory, "--at", "2")
        self.assertEqual((status, text), (1, ""))
        self.assertEqual(error, f"decode.py: {self.log_path}: damaged at byte 0: the header's "
                         "checksum does not match\n")

    def test_a_snapshot_that_the_log_does_not_go_on_from(self):
        """As between the two renames of an install."""
        self.snapshot(7, 0)
        with open(self.snapshot_path, "rb") as file:
            data = file.read()
        self.snapshot(12, 9)
        with open(self.snapshot_path, "wb") as file:
            file.write(data)                            # an old copy: entries 8 and 9 are nowhere
        self.assertEqual(self.at(7)[3:], list(describe_state(self.machine_at(7), None)))
        for index in (6, 10, 12):
            self.assertIn("entry 7 of term 2, with which the snapshot ends, is not in it",
                          self.refusal(state_lines(self.directory, index, False)))
        os.unlink(self.snapshot_path)
        self.assertIn("missing, although the log begins after entry 9",
                      self.refusal(state_lines(self.directory, 10, False)))

    def test_files_that_were_set_aside(self):
        self.snapshot(7, 7)
        for name in ("log", SNAPSHOT_NAME):
            os.rename(os.path.join(self.directory, name),
                      os.path.join(self.directory, f"damaged-1.{name}"))
        lines = list(state_lines(os.path.join(self.directory, "damaged-1.log"), 12, True))
        self.assertEqual(lines[3:], list(describe_state(self.machine_at(12), None)))


class Life(LookingBack):
    """decode log --message."""

    def life(self, message_id: int, index: int | None = None) -> list[str]:
        """The lines without the last, which tells of the log."""
        *lines, last = message_lines(self.directory, message_id, index)
        self.assertTrue(last.startswith("log: up to entry 12"), last)
        return lines

    def test_every_way_to_come_and_to_go(self):
        alice, bob, carol = ALICE.hex(), BOB.hex(), CAROL.hex()
        expected = {
            1: ["\"one\"", f"came  entry 3.1 term 2 time 300 ms queue jobs request {alice}:1",
                f"taken entry 4.2 term 2 time 400 ms queue jobs request {bob}:3"],
            3: ["\"three\"", f"came  entry 3.2 term 2 time 300 ms queue jobs request {alice}:2",
                f"taken entry 8.0 term 2 time 800 ms queue jobs request {alice}:3"],
            5: ["\"five\"", "came  entry 7.0 term 2 time 700 ms queue calls request without a "
                "session", f"taken entry 7 term 2 time 700 ms queue calls request {carol}:1, which "
                "waited"],
            6: ["\"six\"", f"came  entry 8.0 term 2 time 800 ms queue jobs request {alice}:3",
                "waits after entry 12 term 2 time 1200 ms queue jobs place 1 of 2"],
            7: ["\"seven\"", f"came  entry 8.0 term 2 time 800 ms queue other request {alice}:3",
                "taken entry 11.0 term 2 time 1100 ms queue other request without a session"],
            8: ["\"eight \\\\xff\\n\"",
                f"came  entry 12.0 term 2 time 1200 ms queue jobs request {bob}:4",
                "waits after entry 12 term 2 time 1200 ms queue jobs place 2 of 2"],
        }
        for message_id, lines in expected.items():
            with self.subTest(message=message_id):
                self.assertEqual(self.life(message_id), [
                    f"message {message_id} {lines[0]}", *(f"    {line}" for line in lines[1:])])

    def test_offsets_are_those_of_the_log(self):
        lines = [line.split(maxsplit=2)[::2] for line in log_lines(self.directory)]
        for message_id, text in ((1, 'enqueue jobs "one"'), (3, 'enqueue jobs "three"')):
            place = self.life(message_id)[1].split()[2]
            self.assertTrue(dict(lines)[place].startswith(text), lines)

    def test_up_to_an_index(self):
        self.assertEqual(self.life(1, 3)[2],
                         "    waits after entry 3 term 2 time 300 ms queue jobs place 1 of 4")
        self.assertIn("no message 9 came up to entry 12: the next one's id is 9",
                      self.refusal(message_lines(self.directory, 9, None)))
        self.assertIn("no message 1 came up to entry 2: the next one's id is 1",
                      self.refusal(message_lines(self.directory, 1, 2)))
        self.assertIn("entry 13 is not held",
                      self.refusal(message_lines(self.directory, 1, 13)))

    def test_gone_in_a_way_that_is_not_known_here(self):
        life = MessageLife(1, Progress())
        life.watch(Rebuilt(self.machine_at(3), 3, 2, 1, NO_MEMBERSHIP), None, None)
        self.assertEqual(list(life.now(Rebuilt(self.machine_at(4), 4, 2, 1, NO_MEMBERSHIP))),
                         ["gone  by entry 4: the replies do not say how"])

    def test_where_the_log_holds_everything_the_snapshot_hides_nothing(self):
        before = [self.life(message_id) for message_id in range(1, 9)]
        self.snapshot(7, 0)
        self.assertEqual([self.life(message_id) for message_id in range(1, 9)], before)

    def test_what_came_before_the_files_begin(self):
        alice = ALICE.hex()
        self.snapshot(4, 4)
        for message_id, text in ((2, b"two"), (3, b"three")):
            self.assertEqual(self.life(message_id), [
                f'message {message_id} "{text.decode()}"',
                "    came  up to entry 4, with which these files begin: queue jobs",
                f"    taken entry 8.0 term 2 time 800 ms queue jobs request {alice}:3"])
        # Entries 5 and 9 repeat the reply in which it was taken.
        self.assertEqual(self.life(1), [
            "message 1", "    came  up to entry 4, with which these files begin, and was gone by "
            "then"])
        self.snapshot(12, 12)
        self.assertEqual(self.life(6), [
            'message 6 "six"', "    came  up to entry 12, with which these files begin: queue jobs",
            "    waits after entry 12 term 2 time 1200 ms queue jobs place 1 of 2"])


class Snapshot(LookingBack):
    """decode snapshot."""

    def test_header_and_state(self):
        self.snapshot(8, 3)
        lines = list(snapshot_lines(self.directory, True))
        size = os.path.getsize(self.snapshot_path)
        with open(self.snapshot_path, "rb") as file:
            checksum, = struct.unpack(">I", file.read()[-4:])
        self.assertEqual(lines[0], f"header: {self.snapshot_path}, {size} bytes, checksum "
                         f"{checksum:08x}, cluster {self.store.cluster_id.hex()}")
        machine = self.machine_at(8)
        self.assertEqual(lines[1], f"up to entry 8 of term 2, digest {machine.digest:08x}")
        self.assertTrue(lines[2].startswith("since entry 1: membership ")
                        and lines[2].endswith(ADDRESS), lines[2])
        self.assertEqual(lines[3:], list(describe_state(machine, None)))
        backup = os.path.join(self.directory, "my backup")
        os.rename(self.snapshot_path, backup)
        self.assertEqual(list(snapshot_lines(backup, True))[1:], lines[1:])

    def test_none_there(self):
        self.assertIn("holds no snapshot", self.refusal(snapshot_lines(self.directory, True)))
        self.assertEqual(self.run_decode("snapshot", self.snapshot_path), (
            1, "", f"decode.py: {self.snapshot_path}: No such file or directory\n"))

    def test_every_byte_counts(self):
        self.snapshot(12, 12)
        size = os.path.getsize(self.snapshot_path)
        for offset in range(size):
            self.flip(self.snapshot_path, offset)
            with self.assertRaises(StorageError, msg=f"byte {offset}") as caught:
                list(snapshot_lines(self.directory, True))
            self.assertIn(self.snapshot_path, str(caught.exception))
            self.flip(self.snapshot_path, offset)
        self.flip(self.snapshot_path, size // 2)
        for words in (("snapshot", self.directory), ("log", self.directory, "--at", "12")):
            status, _, error = self.run_decode(*words)
            self.assertEqual(status, 1)
            self.assertTrue(error.startswith(f"decode.py: {self.snapshot_path}: damaged at byte "))
            self.assertEqual(error.count("\n"), 1)
        os.truncate(self.snapshot_path, size - 1)
        self.assertEqual(self.run_decode("snapshot", self.directory)[0], 1)


class Words(LookingBack):
    """The command line."""

    def test_together(self):
        status, text, error = self.run_decode("log", "--at", "12", self.directory, "--all")
        self.assertEqual((status, error), (0, ""))
        self.assertEqual(text.splitlines(), self.at(12))
        status, text, error = self.run_decode("log", self.directory, "--message", "1", "--at", "3")
        self.assertEqual((status, error, text.splitlines()[0]), (0, "", 'message 1 "one"'))
        status, text, error = self.run_decode("log", self.directory, "--at", "13")
        self.assertEqual((status, text, error.count("\n")), (1, "", 1))

    def test_wrong(self):
        for words in (("log", self.directory, "--at", "0"), ("log", self.directory, "--at", "x"),
                      ("log", self.directory, "--message", "-1"), ("--at", "3"),
                      ("log", self.directory, "--all"), ("snapshot",), ("log", "--at", "3"),
                      ("meta", self.directory, "--at", "3"), ("meta", self.directory, "--all"),
                      ("snapshot", self.directory, "--message", "3"),
                      ("log", self.directory, "--message", "3", "--all")):
            with self.subTest(words=words):
                status, text, _ = self.run_decode(*words)
                self.assertEqual((status, text), (2, ""))


class ReadOnly(LookingBack):
    """ReadOnlyDisk, while the node works on."""

    NAMES = {"log": "log", SNAPSHOT_NAME: SNAPSHOT_NAME}

    def test_files_that_are_replaced_while_they_are_opened(self):
        test, opened = self, []

        class Replaced(ReadOnlyDisk):
            def _open_all(self):
                super()._open_all()
                opened.append(sorted(self._files))
                if len(opened) == 1:
                    test.snapshot(7, 0)             # a new one appears
                elif len(opened) == 2:
                    test.snapshot(12, 12)           # both are replaced
                elif len(opened) == 3:
                    os.unlink(test.snapshot_path)
        with Replaced(self.directory, self.NAMES, Progress()) as disk:
            self.assertEqual(opened, [["log"], ["log", SNAPSHOT_NAME],
                                      ["log", SNAPSHOT_NAME], ["log"]])
            handle = disk.open("log")
            self.assertEqual(disk.size(handle), os.path.getsize(self.log_path))

    def test_what_is_open_stays_as_it_was(self):
        with ReadOnlyDisk(self.directory, self.NAMES, Progress()) as disk:
            handle = disk.open("log")
            with open(self.log_path, "rb") as file:
                data = file.read()
            self.store.perform([Job(2, None, [encode_entry(13, 2, EntryKind.EMPTY, b"")])])
            self.snapshot(12, 12)
            self.assertFalse(disk.exists(SNAPSHOT_NAME))
            self.assertEqual(disk.size(handle), len(data))
            self.assertEqual(disk.read_at(handle, 5, 1 << 20), data[5:])
            self.assertEqual(disk.read_at(handle, len(data) + 5, 10), b"")

    def test_progress_every_two_seconds(self):
        stderr = io.StringIO()
        progress = Progress()
        with contextlib.redirect_stderr(stderr):
            with ReadOnlyDisk(self.directory, self.NAMES, progress) as disk:
                handle = disk.open("log")
                disk.read_at(handle, 0, 10)
                self.assertEqual(stderr.getvalue(), "")
                progress._next = time.monotonic()
                disk.read_at(handle, 0, 10)
                disk.read_at(handle, 0, 10)
        self.assertEqual(stderr.getvalue(), f"decode.py: {self.log_path}: read 0 of 0 MiB\n")


class RunningNode(unittest.TestCase):
    """A process with its own directory."""

    def test_the_digest_is_the_nodes(self):
        with LocalCluster(1, arguments=["--snapshot-after", "4K", "--keep-log", "4K"]) as cluster:
            cluster.start()
            node, directory = cluster.nodes[0], cluster.data_of(cluster.addresses[0])
            with Client(cluster.addresses) as client:
                queue = client.queue("jobs")
                for number in range(150):
                    queue.enqueue(b"m" * 50 + b"%d" % number)
                queue.dequeue()
            wait_until(lambda: node.status().snapshot_index, 10, "a snapshot is made")
            status = cluster.wait_settled()[node.address]
            lines = list(state_lines(directory, status.applied_index, False))
            self.assertIn(f"applied up to {status.applied_index}, digest {status.digest:08x}",
                          lines)
            first = next(line for line in lines if line.startswith("    2 "))
            self.assertEqual(first, f'    2 "{"m" * 50}1"')
            self.assertIn("place 149 of 149", list(message_lines(directory, 150, None))[2])
            header = list(snapshot_lines(directory, False))
            self.assertTrue(header[1].startswith("up to entry "), header)


if __name__ == "__main__":
    unittest.main()
