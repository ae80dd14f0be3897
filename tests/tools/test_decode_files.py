"""decode log and meta: directories as a Store leaves them, whole, annulled, damaged."""

import contextlib
import io
import os
import tempfile
import unittest
from unittest import mock

from raftnet.errors import CorruptFileError
from raftnet.founding import Founders
from raftnet.raft.entry import Entry, EntryKind, decode_entry, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.raft.types import HardState
from raftnet.storage.disk import Disk
from raftnet.storage.metafile import SLOT_OFFSETS
from raftnet.storage.records import HEADER_BYTES, PREFIX_BYTES, encode_prefix
from raftnet.storage.snapshot import write_snapshot
from raftnet.storage.store import Compaction, Job, Store
from raftnet.wire import commands, requests
from tools import decode, filetext
from tools.filetext import last_membership, log_lines, meta_lines

NODE_ID = 0x1122334455667788
ADDRESS = "127.0.0.1:5001"


def batch(index: int, term: int, *messages: bytes) -> Entry:
    """An entry in which each message is enqueued by a command of its own."""
    body = requests.encode_request(bytes(16), 1, 0, [commands.encode_enqueue(b"q", [message])
                                                     for message in messages])
    return encode_entry(index, term, EntryKind.BATCH, commands.encode_batch(7, [body]))


class DataDirectory(unittest.TestCase):
    """One founded node's directory: entry 1, entries 2 to 4 of term 2."""

    def setUp(self):
        # Nobody writes to what is damaged here.
        self.enterContext(mock.patch.object(filetext, "_WRITING_S", 0.0))
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.store = Store.open(Disk(self.directory), lambda: NODE_ID, lambda text: None)
        self.addCleanup(self.store.close)
        self.store.found(*Founders(NODE_ID, ADDRESS, [ADDRESS], 0).entry_1())
        self.write(HardState(2, NODE_ID), encode_entry(2, 2, EntryKind.EMPTY, b""),
                   batch(3, 2, b"one", b"two"))
        self.write(None, batch(4, 2, b"three"))

    def write(self, hard_state: HardState | None, *entries: Entry) -> None:
        """One job, durable."""
        self.store.perform([Job(1, hard_state, list(entries))])

    @property
    def log_path(self) -> str:
        """The log file."""
        return os.path.join(self.directory, "log")

    def lines_until_damage(self, lines) -> tuple[list[str], CorruptFileError]:
        """What came before the damage, and the damage."""
        found = []
        with self.assertRaises(CorruptFileError) as caught:
            for line in lines:
                found.append(line)
        return found, caught.exception

    def flip(self, name: str, offset: int) -> None:
        """One bit of a file."""
        with open(os.path.join(self.directory, name), "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes((byte ^ 1,)))


class Log(DataDirectory):
    """decode log."""

    def records(self) -> list[list[str]]:
        """The words of each record's line."""
        return [line.split() for line in log_lines(self.directory) if not line.startswith(" ")][1:]

    def test_every_record_of_an_open_directory(self):
        lines = list(log_lines(self.directory))
        self.assertEqual(lines, list(log_lines(self.log_path)))
        self.assertIn("begins after index 0 term 0", lines[0])
        self.assertEqual([line[4:] for line in lines if line.startswith(" ")], [
            f"1.0 1 membership not founded yet, quorum 1 (majority): {ADDRESS}", "2.0 2 empty",
            '3.0 2 enqueue q "one"', '3.1 2 enqueue q "two"', '4.0 2 enqueue q "three"'])
        offset = HEADER_BYTES
        for place, words in enumerate(self.records(), 1):
            self.assertEqual(words[:3], [str(offset), "index", str(place)])
            offset += int(words[words.index("bytes") + 1])
        self.assertEqual(offset, os.path.getsize(self.log_path))

    def test_a_membership_shows_all_that_it_says(self):
        membership = Membership(
            b"c" * 16, (Member(1, "a:1", True), Member(2, "b:2", True), Member(3, "b:2", False),
                        Member(4, "d:4", False, stays=True)), 1, True, tuple(range(16, 23)),
            ("a:1", "e:5"), 2)
        self.write(HardState(2, NODE_ID),
                   encode_entry(5, 2, EntryKind.MEMBERSHIP, encode_membership(membership)))
        removed = ", ".join(f"{node_id:016x}" for node_id in range(18, 23))
        self.assertEqual(
            list(log_lines(self.directory))[-1],
            "    5.0 2 membership quorum 2 (half-rounded-up-plus-one): a:1, b:2 node "
            "0000000000000002, b:2 node 0000000000000003 (learner), d:4 (learner that stays); "
            f"removed: 2 more, {removed}; target: a:1, e:5; state version 2")
        self.assertEqual(last_membership(self.directory), membership)

    def test_annulled_records_are_marked(self):
        offset = os.path.getsize(self.log_path)
        self.write(HardState(3), batch(3, 3, b"other"))
        marks = [" ".join(words[-6:]) for words in self.records()]
        mark = f"annulled by the record at {offset}"
        self.assertEqual([text == mark for text in marks], [False, False, True, True, False])

    def test_damage_in_the_middle_and_at_the_end(self):
        offsets = [int(words[0]) for words in self.records()]
        for place, offset in enumerate(offsets):
            with self.subTest(record=place):
                self.flip("log", offset + 30)
                lines, error = self.lines_until_damage(log_lines(self.directory))
                self.assertEqual((error.path, error.offset), (self.log_path, offset))
                self.assertEqual(sum(not line.startswith(" ") for line in lines), place + 1)
                self.assertEqual("torn tail" in str(error), place == len(offsets) - 1)
                self.flip("log", offset + 30)
        self.assertEqual(len(self.records()), 4)

    def test_a_damaged_header_and_a_cut_file(self):
        size = os.path.getsize(self.log_path)
        last = int(self.records()[-1][0])
        os.truncate(self.log_path, size - 1)
        _, error = self.lines_until_damage(log_lines(self.directory))
        self.assertEqual(error.offset, last)
        self.flip("log", 9)
        _, error = self.lines_until_damage(log_lines(self.directory))
        self.assertEqual(error.offset, 0)

    def test_a_record_that_cannot_follow(self):
        copied = os.path.join(self.directory, "copy")
        second = int(self.records()[1][0])
        with open(self.log_path, "rb") as file:
            data = file.read()
        with open(copied, "wb") as file:
            # the header says that the file begins after index 0, but its first record is 2
            file.write(data[:HEADER_BYTES] + self.moved(data[second:], HEADER_BYTES))
        _, error = self.lines_until_damage(log_lines(copied))
        self.assertEqual((error.path, error.offset), (copied, HEADER_BYTES))
        self.assertIn("cannot follow", str(error))

    def moved(self, record: bytes, offset: int) -> bytes:
        """The first record of these bytes as it would stand at `offset`."""
        entry = decode_entry(record, PREFIX_BYTES)
        return encode_prefix(offset, offset, entry.data) + entry.data

    def test_last_membership(self):
        self.assertEqual([member.address for member in last_membership(self.directory).members],
                         [ADDRESS])
        self.assertIsNone(last_membership(os.path.join(self.directory, "nowhere")))

    def test_last_membership_of_a_log_that_begins_behind_it(self):
        member = Member(NODE_ID, "127.0.0.1:7", True)
        disk = Disk(self.directory)
        meta = write_snapshot(disk, "snapshot.made-1", 3, 2, 1, Membership(b"c" * 16, (member,)), 5,
                              b"c" * 16, [b"state"])
        self.store.perform([Job(1, None, [], compact=Compaction("snapshot.made-1", meta, 3))])
        while not self.store.compaction_step():
            pass
        self.assertEqual(last_membership(self.directory).members, (member,))
        header, record, _ = log_lines(self.directory)
        self.assertIn("begins after index 3 term 2", header)
        self.assertIn("index 4", record)


class Meta(DataDirectory):
    """decode meta."""

    def test_both_slots_and_identity(self):
        first, second, identity = meta_lines(self.directory)
        words = f"term 2 voted for {NODE_ID:016x} node {NODE_ID:016x} start 1"
        words += " log up to index 1 term 1 at least"
        self.assertTrue(first.startswith("0 change ") and first.endswith(words), first)
        self.assertEqual(first.split()[1:], second.split()[1:])
        self.assertEqual(second.split()[0], str(SLOT_OFFSETS[1]))
        self.assertTrue(identity.startswith("identity: cluster ")
                        and identity.endswith(f"node {NODE_ID:016x}"), identity)
        self.assertEqual(list(meta_lines(os.path.join(self.directory, "meta"))), [first, second])

    def test_damage(self):
        for offset in SLOT_OFFSETS:
            with self.subTest(slot=offset):
                self.flip("meta", offset + 20)
                lines, error = self.lines_until_damage(meta_lines(self.directory))
                self.assertEqual((len(lines), error.offset), (3, offset))
                self.flip("meta", offset + 20)
        self.flip("identity", 10)
        _, error = self.lines_until_damage(meta_lines(self.directory))
        self.assertTrue(error.path.endswith("identity"))

    def test_exit_status(self):
        self.assertEqual(self.run_decode("meta", self.directory), (0, ""))
        self.assertEqual(self.run_decode("log", self.directory), (0, ""))
        self.flip("log", HEADER_BYTES + 30)
        status, text = self.run_decode("log", self.directory)
        self.assertEqual(status, 1)
        self.assertTrue(text.startswith(
            f"decode.py: {self.log_path}: damaged at byte {HEADER_BYTES}: "), text)

    def run_decode(self, *words: str) -> tuple[int, str]:
        """(exit status, stderr)."""
        stderr = io.StringIO()
        stdout = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            return decode.main(list(words)), stderr.getvalue()


if __name__ == "__main__":
    unittest.main()
