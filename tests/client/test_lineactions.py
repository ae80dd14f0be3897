"""enqueue from stdin: what became of each line; and what - and -- mean before words."""

import os
import subprocess
import unittest
from unittest import mock

from raftnet.client import lineinput
from raftnet.client.lineinput import read_lines
from raftnet.client.shell import split_line
from raftnet.errors import ErrorCode, RefusedError
from tests.client import fakenode, test_commandline
from tests.client.fakenode import Refuse

LONG = bytes(1024 * 1024 + 1)


class LinesTest(unittest.TestCase):
    """Words in, lines and exit statuses out."""

    setUp = test_commandline.CommandLineTest.setUp
    run_words = test_commandline.CommandLineTest.run_words
    run_in_process = test_commandline.CommandLineTest.run_in_process
    start = test_commandline.CommandLineTest.start
    reap = staticmethod(test_commandline.CommandLineTest.reap)

    def enqueue(self, *lines: bytes, queue: str = "G") -> tuple[int, list[str], list[str]]:
        status, out, err = self.run_words("enqueue", "-q", queue, "-", given=b"\n".join(lines))
        return status, out.split(), err.splitlines()

    def test_a_refused_line_hides_no_other(self):
        self.run_words("configure", "-q", "G", "--max-bytes", "6")
        status, out, err = self.enqueue(b"aaaa", b"bbbbbb", b"c")
        self.assertEqual((status, len(out)), (1, 2))
        self.assertEqual(self.cluster.messages(b"G"), [b"aaaa", b"c"])
        self.assertEqual(len(err), 1)
        self.assertIn("line 2 is not enqueued: FULL", err[0])
        status, out, err = self.enqueue(b"dddddd", b"e", b"ffffff", b"gggggg")
        self.assertEqual((status, len(out)), (1, 1))
        self.assertIn("line 1 is not enqueued", err[0])
        self.assertIn("lines 3 to 4 are not enqueued", err[1])
        self.assertEqual(len(err), 2)

    def test_refusals_come_in_their_order_over_many_frames(self):
        self.run_words("configure", "-q", "G", "--max-bytes", "9000")
        lines = [b"x" * 9_001 if number % 700 == 0 else b"" for number in range(1, 3_501)]
        status, out, err = self.enqueue(*lines, b"")
        self.assertEqual((status, len(out)), (1, 3_495))
        self.assertEqual([line.split()[2] for line in err], ["700", "1400", "2100", "2800", "3500"])

    def test_a_line_too_long_hides_no_other(self):
        for lines, ids, numbers in (((b"a", LONG, b"b"), 2, [2]), ((LONG,), 0, [1]),
                                    ((LONG, LONG, b"c", LONG, b"d", b""), 2, [1, 2, 4])):
            status, out, err = self.enqueue(*lines)
            self.assertEqual((status, len(out)), (1, ids))
            self.assertEqual([line.split()[2] for line in err], list(map(str, numbers)))
        self.assertEqual(self.cluster.messages(b"G"), [b"a", b"b", b"c", b"d"])

    def test_both_kinds_of_refusal_keep_their_numbers(self):
        self.run_words("configure", "-q", "G", "--max-bytes", "6")
        status, out, err = self.enqueue(LONG, b"bbbbbbb", LONG, b"d", b"eeeeeee")
        self.assertEqual((status, len(out)), (1, 1))
        self.assertEqual(sorted(line.split()[2] for line in err), ["1", "2", "3", "5"])

    def test_no_line_is_counted_from_one_to_none(self):
        self.leader.script += [fakenode.SILENT_AFTER] * 9
        status, out, err = self.run_words("--timeout", "0.2", "enqueue", "-", given=b"a\nb\n")
        self.assertEqual((status, out), (4, ""))
        self.assertIn("lines 1 to 2 are possibly enqueued", err)
        self.assertNotIn("1 to 0", err)
        self.leader.script.clear()
        self.leader.script.append(Refuse(ErrorCode.SESSION_LIMIT))
        status, out, err = self.run_words("enqueue", "-", given=b"a\n")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("line 1 is not enqueued", err)

    def test_what_is_known_when_no_answer_comes(self):
        self.run_words("configure", "-q", "G", "--max-bytes", "6")
        self.leader.script += [None, *[fakenode.SILENT_AFTER] * 9]
        process = self.start("--timeout", "0.3", "enqueue", "-q", "G", "-", stdin=subprocess.PIPE)
        process.stdin.write(b"aaaaaaa\na\n")
        process.stdin.flush()
        process.stdout.readline()
        _, err = process.communicate(b"b\n", timeout=20)
        self.assertEqual(process.returncode, 4)
        self.assertIn(b"of the first 2 lines 1 are enqueued, 1 refused, line 3 is possibly", err)

    def test_stdin_that_breaks_off(self):
        real, given = os.read, iter((b"a\nb\nc", OSError(5, "Input/output error")))

        def read(descriptor: int, count: int) -> bytes:
            piece = next(given)
            if isinstance(piece, OSError):
                raise piece
            real(descriptor, count)
            return piece

        with mock.patch.object(lineinput.os, "read", read):
            status, out, err = self.run_words("enqueue", "-", given=b"x")
        self.assertEqual((status, out), (2, "1\n2\n"))
        self.assertIn("Input/output error; lines 1 to 2 are enqueued", err)

    def test_lines_longer_than_a_read(self):
        for pieces in ((b"a\n", LONG[:700_000], LONG, b"x\nb\n"), (LONG, LONG, b"\nb"),
                       (b"a\n" + LONG,), (b"a" * 1024 * 1024, b"\n", LONG + b"\n\nb")):
            data = b"".join(pieces)
            expected = [line for line in data.split(b"\n") if len(line) < len(LONG)]
            if data.endswith(b"\n"):
                expected.pop()
            reader, writer = os.pipe()
            waiting = list(pieces)
            told, found = [], []
            with open(reader, "rb", 0), open(writer, "wb", 0) as writing:
                with mock.patch.object(lineinput, "_read", lambda *_: waiting.pop(0) if waiting
                                       else b""):
                    found = [line for line in read_lines(reader, told.append) if line is not None]
                self.assertTrue(writing)
            self.assertEqual([len(line) for line in found], [len(line) for line in expected])
            self.assertEqual(told, [number for number, line in enumerate(data.split(b"\n"), 1)
                                    if len(line) >= len(LONG)])
        with mock.patch.object(lineinput, "_read", lambda *_: LONG), open(os.devnull, "rb") as file:
            with self.assertRaisesRegex(RefusedError, "line 1 is longer"):
                list(read_lines(file.fileno()))

    # --- words that begin with -

    def test_behind_two_dashes_a_dash_is_a_message(self):
        self.assertEqual(self.run_words("enqueue", "--", "-"), (0, "1\n", ""))
        self.assertEqual(self.run_words("enqueue", "--", "-", "-x", "--")[:2], (0, "2\n3\n4\n"))
        self.assertEqual(self.cluster.messages(), [b"-", b"-", b"-x", b"--"])
        self.assertEqual(self.run_words("kv", "put", "k", "--", "-")[0], 0)
        self.assertEqual(self.run_words("kv", "get", "k")[1], "-\n")
        out, err = self.run_in_process('queue("-")', "enqueue -- -", "enqueue - x", "enqueue -")
        self.assertEqual(len(out.split()), 2)
        self.assertEqual(err.count("- reads"), 2)
        self.assertEqual(split_line('queue("-")'), ["enqueue", "--", "-"])

    def test_a_dash_among_messages_is_wrong(self):
        for words in (["-", "extra"], ["extra", "-"], ["-", "-"]):
            status, out, err = self.run_words("enqueue", *words, given=b"x\n")
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
            self.assertIn("--", err)
        self.assertEqual(self.cluster.bodies, [])

    def test_a_text_taken_for_an_option_is_told_of_two_dashes(self):
        for words, hinted in ((["enqueue", "-foo"], True), (["enqueue", "x", "-foo"], True),
                              (["kv", "put", "k", "-foo"], True), (["enqueue", "-q", "q"], False),
                              (["kv", "cas", "k", "-a", "b"], True), (["size", "-foo"], False),
                              (["enqueue", "--"], False), (["nonsense"], False)):
            status, _, err = self.run_words(*words)
            self.assertEqual(status, 2)
            self.assertEqual("behind --" in err, hinted, err)
        self.assertEqual(self.run_words("enqueue", "--", "-foo")[0], 0)

    def test_a_deduplication_id_is_not_empty(self):
        status, _, err = self.run_words("enqueue", "--dedup", "", "x")
        self.assertEqual((status, self.cluster.bodies), (2, []))
        self.assertIn("not empty", err)


if __name__ == "__main__":
    unittest.main()
