"""encode and decode: each word as a frame and back as text, every kind, damage in a stream."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from types import ModuleType

from raftnet.errors import ErrorCode, FrameError
from raftnet.net.messages import encode_message
from raftnet.raft import types
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import (commands, joining, kvcommands, queuecommands, queueresults, requests,
                          snapshots, transactions, watches)
from raftnet.wire.frames import Kind, encode_frame
from tools import decode as decode_tool
from tools import encode
from tools.frametext import StreamDecoder
from tools.processes import ROOT

SESSION = "00112233445566778899aabbccddeeff"


def decode(data: bytes) -> list[str]:
    """The lines of a whole stream."""
    decoder = StreamDecoder()
    lines = list(decoder.feed(data))
    decoder.end()
    return lines


def encoded(*words: str) -> bytes:
    """The frame of these words."""
    parsed = encode.parse(list(words))
    kind, body = encode.encode(parsed)
    return encode_frame(kind, parsed.request_id, body)


def run_tool(name: str, *words: str, data: bytes = b"") -> subprocess.CompletedProcess:
    """A tool as a process."""
    return subprocess.run([sys.executable, os.path.join(ROOT, "tools", name), *words], input=data,
                          capture_output=True, timeout=60, cwd="/")


def run_here(tool: ModuleType, *words: str) -> tuple[int, str, str]:
    """(exit status, output, errors) of a tool in this process: what it is given is refused."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = tool.main(list(words))
        except SystemExit as ended:
            status = ended.code
    return status, output.getvalue(), errors.getvalue()


_NONE = "REQUEST id 1: session none sequence 1 acknowledged 0 commands 1: "
NEWER_WORDS = [
    (["enqueue", "--priority", "3", "--delay", "1.5", "--ttl", "60", "--dedup", "x", "hello"],
     f'{_NONE}enqueue_with default priority 3 delay 1500 ms ttl 60000 ms "hello" (dedup "x")'),
    (["dequeue", "--lease", "30", "--consumer", "me"],
     f"{_NONE}lease default 1 for 30000 ms by me"),
    (["ack", "5:7", "6:8"], f"{_NONE}ack 5:7 6:8"),
    (["nack", "--delay", "1", "--reason", "no", "5:7"],
     f'{_NONE}nack 5:7 delay 1000 ms reason "no"'),
    (["nack", "--backoff", "5:7"], f"{_NONE}nack 5:7 backoff"),
    (["extend", "--lease", "9", "5:7"], f"{_NONE}extend 5:7 to 9000 ms"),
    (["configure", "-q", "q", "--ttl", "5", "--overflow", "dead-letter"],
     f"{_NONE}configure q ttl_ms 5000 overflow dead_letter"),
    (["configure", "-q", "q"], "READ id 1: describe q"),
    (["delete", "-q", "q"], f"{_NONE}delete_queue q"),
    (["purge", "-q", "q"], f"{_NONE}purge q limit 10000"),
    (["redrive", "-q", "q.dead", "--to", "q", "-n", "5"], f"{_NONE}redrive q.dead to q limit 5"),
    (["redrive", "-q", "q.dead"], f"{_NONE}redrive q.dead limit 1000"),
    (["describe"], "READ id 1: describe default"),
    (["leases", "-n", "5"], "READ id 1: leases default limit 5"),
    (["inspect", "--local", "h:1"], "READ id 1: local inspect default limit 10"),
    (["kv", "get", "k"], "READ id 1: kv_get k"),
    (["kv", "put", "k", "v", "--ttl", "5"], f'{_NONE}kv_put k "v" ttl 5000 ms'),
    (["kv", "put", "k", "v", "--if-version", "0"], f'{_NONE}kv_put k "v" if absent'),
    (["kv", "delete", "k"], f"{_NONE}kv_delete k"),
    (["kv", "delete", "k", "--if-version", "7"], f"{_NONE}kv_delete k if version 7"),
    (["kv", "list", "p"], "READ id 1: kv_list prefix p limit 1000"),
    (["kv", "cas", "k", "1", "2"], f'{_NONE}kv_put k "2" if equals "1"'),
    (["kv", "put", "k", "--", "-"], f'{_NONE}kv_put k "-"'),
    (["enqueue", "--", "-"], f'{_NONE}enqueue default "-"'),
]


class Words(unittest.TestCase):
    """encode speaks mqclient's words."""

    def test_each_word(self):
        none = "session none sequence 1 acknowledged 0 commands 1: "
        for words, expected in [
                (["enqueue", "hello", "wörld"],
                 f'REQUEST id 1: {none}enqueue default "hello" "wörld"'),
                (["enqueue", "-q", "jobs", "hello"], f'REQUEST id 1: {none}enqueue jobs "hello"'),
                (["--request-id", "7", "dequeue", "-n", "3"],
                 f"REQUEST id 7: {none}dequeue default 3"),
                (["dequeue", "--resume", SESSION + ":5"],
                 f"REQUEST id 1: session {SESSION} sequence 5 acknowledged 4 commands 1: "
                 "dequeue default 1"),
                (["peek", "-n", "2"], "READ id 1: peek default 2"),
                (["size", "-q", "jobs"], "READ id 1: size jobs"),
                (["queues"], "READ id 1: queues limit 1000"),
                (["watch", "key", "k", "--from", "7"], "WATCH id 1: key k from 7"),
                (["watch", "prefix", "", "--local", "h:1"], 'WATCH id 1: local prefix "" from 0'),
                (["log", "--from", "5", "--limit", "6"], "LOG id 1: from 5 limit 6"),
                (["log", "--local", "127.0.0.1:5001"], "LOG id 1: local from 1 limit 10000"),
                (["status"], "STATUS id 1"),
                (["members"], "STATUS id 1"),
                (["members", "--set", "h:1,h:2"], "CHANGE id 1: set members to h:1 h:2"),
                (["remove", "127.0.0.1:5003"], "CHANGE id 1: remove 127.0.0.1:5003"),
                (["remove", "00000000000000AB"], "CHANGE id 1: remove 00000000000000ab"),
                (["--request-id", "9", "transfer", "h:2"], "CHANGE id 9: transfer to h:2"),
                (["snapshot"], "TAKE_SNAPSHOT id 1"),
                (["snapshot", "h:1"], "TAKE_SNAPSHOT id 1: local"),
                (["--request-id", "8", "part", "5", "0", "9"],
                 "READ_SNAPSHOT id 8: up to 5 offset 0 count 9"),
                *NEWER_WORDS,
                (["hello"], "HELLO id 1: client versions 1 to 1")]:
            with self.subTest(words=words):
                self.assertEqual(decode(encoded(*words)), [f"0 {expected}"])

    def test_a_waiting_dequeue_has_a_session_of_its_own(self):
        frames = {encoded("dequeue", "--wait", "2.5") for _ in range(2)}
        self.assertEqual(len(frames), 2)
        for frame in frames:
            line, = decode(frame)
            self.assertTrue(line.endswith("commands 1: dequeue default 1 wait 2500 ms"), line)
            self.assertNotIn("session none", line)

    def test_what_is_more_than_one_frame(self):
        for words in (["add", "h:1"], ["why"], ["backup", "x"]):
            with self.subTest(words=words):
                status, output, errors = run_here(encode, *words)
                self.assertEqual((status, output), (2, ""))
                self.assertIn("more than one frame: use mqclient.py", errors)

    def test_execute(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('[{"enqueue": "a", "messages": ["x"]}, {"size": "a"}]')
            file.flush()
            line, = decode(encoded("execute", file.name))
            self.assertTrue(line.endswith('1: execute [enqueue a "x"; size a]'), line)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('{"when": [{"kv": "x", "equals": "1"}, {"leased": "5:7"}], '
                       '"do": [{"ack": "5:7"}, {"put": "x", "value": "2"}]}')
            file.flush()
            line, = decode(encoded("execute", file.name))
            self.assertTrue(line.endswith('1: transact when [key x equals "1"; leased 5:7] '
                                          '[ack 5:7; kv_put x "2"]'), line)
            done = run_tool("encode.py", "execute", "/nowhere.json")
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertEqual(done.stderr, b"encode.py: /nowhere.json: No such file or directory\n")

    def test_as_processes(self):
        frame = run_tool("encode.py", "enqueue", "-", data=b"one\ntwo\n")
        self.assertEqual(frame.returncode, 0, frame.stderr)
        text = run_tool("decode.py", data=frame.stdout)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertTrue(text.stdout.endswith(b'2: enqueue default "one"; enqueue default "two"\n'))
        as_hex = run_tool("encode.py", "--hex", "status")
        self.assertEqual(as_hex.stdout, encoded("status").hex(" ").encode() + b"\n")
        text = run_tool("decode.py", "--hex", data=as_hex.stdout)
        self.assertEqual((text.returncode, text.stdout), (0, b"0 STATUS id 1\n"))

    def test_no_binary_on_a_terminal(self):
        master, terminal = os.openpty()
        try:
            done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "encode.py"),
                                   "status"], stdout=terminal, stderr=subprocess.PIPE, timeout=60)
        finally:
            os.close(terminal)
            os.close(master)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"--hex", done.stderr)


class Kinds(unittest.TestCase):
    """decode knows every kind."""

    def bodies(self) -> dict[int, tuple[bytes, str]]:
        """By kind: a body, and words that its line must have."""
        entry = encode_entry(6, 2, EntryKind.BATCH, commands.encode_batch(5, [
            requests.encode_request(bytes(16), 1, 0, [commands.encode_enqueue(b"q", [b"in it"])])]))
        status = requests.NodeStatus(
            bytes(15) + b"\1", 77, 3, "leader", 4, 5, 6, 7, 0, 7, 0xABC, True, 0, "h:1", "h:1",
            "0.1", [requests.MemberStatus(77, "h:1", True, True, 7, 0, False, 20, 90, 5),
                    requests.MemberStatus(78, "h:2", False, False, stays=True, snapshot_bytes=3,
                                          snapshot_size=8)],
            6, 1, ["h:1", "h:3"], 150, 750, "it is slow", 99, True, 4, 9, "verifying", ["h:4"])
        hello = requests.encode_hello(requests.Hello(1, bytes(16), 77, 3, 5, "h:1", 0xABC, 6, 5,
                                                     9, 2))
        peers = [encode_message(message) for message in (
            types.PreVote(3, 4, 2), types.PreVoteReply(2, 3, True), types.Vote(3, 4, 2, True),
            types.VoteReply(3, False), types.Append(2, 5, 2, 4, [entry]),
            types.AppendReply(2, False, 5, 4, 1), types.Heartbeat(2, 3, 9, 1000),
            types.HeartbeatReply(2, 9, 1000), types.TimeoutNow(6),
            types.Snapshot(3, 7, 2, 9, 171, 5, b"abc"),
            types.SnapshotReply(3, 7, 2, 171, 5, 8))]
        words = ["term 3 last_log_index 4", "for_term 3 granted yes", "transfer yes",
                 "granted no", "prev_log_index 5", "hint_index 4", "round 9", "round 9", "term 6",
                 "offset 5 data 3 bytes: 616263", "next_offset 8 damaged no"]
        return {kind: (body, text) for (kind, body), text in zip(peers, words)} | {
            Kind.HELLO: (hello, "node 000000000000004d at h:1 start 3 process 0000000000000abc "
                         "began in term 6 at 9/5 cluster none yet"),
            Kind.HELLO_REPLY: (hello, "state version 2 founders 00000005"),
            Kind.ERROR: (requests.encode_error(ErrorCode.NOT_LEADER, "ask there", "h:2"),
                         'NOT_LEADER "ask there"'),
            Kind.REQUEST: (requests.encode_request(b"s" * 16, 2, 1, [commands.encode_close()]),
                           "sequence 2 acknowledged 1 commands 1: close"),
            Kind.REPLY: (requests.encode_reply_enqueued(2, 3, 9), "enqueued from id 9 on"),
            Kind.READ: (requests.encode_read(True, commands.encode_size(b"q")), "local size q"),
            Kind.READ_REPLY: (requests.encode_read_reply(8, 0, commands.encode_size_result(2, 3)),
                              "applied 8: OK 2 messages 3 bytes"),
            Kind.LOG: (requests.encode_log(False, 2, 3), "from 2 limit 3"),
            Kind.LOG_REPLY: (requests.encode_log_reply(1, 6, 7, [entry.data]),
                             "first held 1 commit 6 next 7 entries 1"),
            Kind.STATUS: (b"", "STATUS id 4"),
            Kind.STATUS_REPLY: (
                requests.encode_status(status), 'heartbeat 150 ms election timeout 750 ms "it is '
                'slow" log 99 bytes disk full snapshot 4 of 9 bytes note "verifying" members [h:1 '
                "node 000000000000004d voter reachable match 7 silent 0 ms round trip 20 ms slow "
                "90 ms lost 5 permille; h:2 node 000000000000004e learner that stays unreachable "
                "match 0 silent unknown snapshot 3 of 8 bytes] target h:1, h:3 heals with h:4"),
            Kind.TAKE_SNAPSHOT: (snapshots.encode_take_snapshot(True), ": local"),
            Kind.SNAPSHOT_TAKEN: (
                snapshots.encode_snapshot_taken(snapshots.Taken(5, 2, 9, 171, 205)),
                "up to 5 term 2 size 9 checksum 000000ab digest 000000cd"),
            Kind.READ_SNAPSHOT: (snapshots.encode_read_snapshot(5, 6, 7),
                                 "up to 5 offset 6 count 7"),
            Kind.SNAPSHOT_PART: (
                snapshots.encode_snapshot_part(snapshots.Part(5, 9, 6, b"abc")),
                "up to 5 size 9 offset 6 bytes 3: 616263"),
            Kind.WATCH: (watches.encode_watch(True, 2, 7, b"a b"), ': local prefix "a b" from 7'),
            Kind.WATCH_EVENT: (watches.encode_watch_event(9, [
                (1, b"k", 5, 8, b"v"), (3, b"k", 6, 9, b""),
                (4, b"q", 2, 9, watches.encode_sizes(1, 3, 4))]), 'up to 9 changes 3: 8 PUT k '
                'version 5 "v"; 9 EXPIRED k version 6; 9 SIZE q ready 2 leased 1 delayed 3 '
                'bytes 4'),
            Kind.UNWATCH: (watches.encode_unwatch(7), "of id 7"),
            Kind.JOIN: (joining.encode_join(77, "h:1", 3), "node 000000000000004d at h:1 as a "
                        "learner that stays returning"),
            Kind.JOIN_REPLY: (joining.encode_join_reply(b"c" * 16), "cluster 6363"),
            Kind.INVITE: (joining.encode_invite(b"c" * 16, "h:1", 1),
                          "into cluster " + "63" * 16 + " by h:1 as a learner that stays"),
            Kind.INVITE_REPLY: (joining.encode_invite_reply(77), "node 000000000000004d"),
            Kind.CHANGE: (joining.encode_change(3, ["h:1", "h:2"]), "set members to h:1 h:2"),
            Kind.CHANGE_REPLY: (joining.encode_change_reply(7, "done so"), 'at 7 "done so"')}

    def test_every_kind(self):
        bodies = self.bodies()
        self.assertEqual(set(bodies), set(Kind))
        for kind, (body, words) in bodies.items():
            with self.subTest(kind=Kind(kind).name):
                frame = encode_frame(kind, 4, body)
                line, *more = decode(frame)
                self.assertTrue(line.startswith(f"0 {Kind(kind).name} id 4"), line)
                self.assertIn(words, line)
                has_entries = kind in (Kind.APPEND, Kind.LOG_REPLY)
                self.assertEqual(more, ['    6.0 2 enqueue q "in it"'] if has_entries else [])

    def test_malformed_bodies_and_unknown_kinds_are_lines(self):
        for kind in Kind:
            with self.subTest(kind=kind.name):
                line, = decode(encode_frame(kind, 1, b"\xff\xff\xff"))
                self.assertIn("malformed", line)
        self.assertEqual(decode(encode_frame(15, 1, b"\1\2")), ["0 unknown kind 15 id 1: 0102"])

    def test_results_show_by_their_layout(self):
        results = [(0, commands.encode_messages([(4, b"a"), (5, b"b")])), (1, b""),
                   (0, commands.encode_enqueue_result(9)),
                   (0, commands.encode_queue_list([(b"q", 3)])),
                   (0, commands.encode_execute_result([(0, commands.encode_size_result(1, 2))])),
                   (4, b"too long"), (0, b"\xff\xff\xff")]
        line, = decode(encode_frame(Kind.REPLY, 1, requests.encode_reply_results(1, results)))
        self.assertTrue(line.endswith(
            'OK 4:"a" 5:"b"; EMPTY; OK id 9; OK q:3; OK [OK 1 messages 2 bytes]; '
            'LIMIT "too long"; OK ffffff'), line)

    def test_newer_results_show_by_their_layout(self):
        event = queueresults.Event(10, 30, 4, 2, 2, b"me", b"no")
        description = queueresults.Description(False, 1, 2, 3, 4, 5, 6, 7,
                                               dict(queuecommands.SETTING_DEFAULTS))
        results = [
            (0, queueresults.encode_lease_result([(5, 7, 1, b"a"), (6, 8, 2, b"")])),
            (0, queueresults.encode_enqueue_with_result([5], [1])),
            (0, queueresults.encode_outcomes_result([0, 1, 2])),
            (0, queueresults.encode_describe_result(description)),
            (0, queueresults.encode_leases_result(9, [(5, 7, 30, 8, 2, b"me")])),
            (0, queueresults.encode_inspect_result(9, [(5, 0, 0, 0, b"", (event,), b"a")])),
            (0, kvcommands.encode_kv_list_result(False, [(b"k", 1, b"v")])),
            (0, kvcommands.encode_kv_get_result(7, 0, b"value")),
            (9, kvcommands.encode_kv_conflict(0, b"")),
            (9, transactions.encode_conflict_result(2)),
            (11, transactions.encode_aborted_result(1, 7,
                                                    queueresults.encode_outcomes_result([1])))]
        line, = decode(encode_frame(Kind.REPLY, 1, requests.encode_reply_results(1, results)))
        shown = line.split("count 11: ")[1].split("; ")
        self.assertEqual(shown[:3] + shown[4:], [
            'OK 5:7 "a" 6:8 (delivery 2) ""', "OK ids 5 (duplicate)", "OK done stale dead_lettered",
            "OK at 9 ms 5:7 (taken 8 ms until 30 ms delivery 2 by me)",
            'OK at 9 ms 5:"a" (priority 0, nacked at 30 ms in entry 4 taken 10 ms delivery 2 by me '
            '"no")', 'OK k="v" (version 1)', 'OK version 7 "value"', "CONFLICT absent",
            "CONFLICT condition 2", "ABORTED command 1: STALE stale"])
        self.assertTrue(shown[3].startswith("OK not configured ready 1 bytes 2"), shown[3])


class Streams(unittest.TestCase):
    """Whole, in pieces, damaged."""

    def test_byte_by_byte_with_offsets(self):
        frames = [encoded("enqueue", "x" * place) for place in range(1, 4)]
        decoder = StreamDecoder()
        lines = [line for byte in b"".join(frames) for line in decoder.feed(bytes((byte,)))]
        decoder.end()
        self.assertEqual([int(line.split()[0]) for line in lines],
                         [0, len(frames[0]), len(frames[0]) + len(frames[1])])

    def test_damage_has_its_offset(self):
        first, second = encoded("status"), encoded("enqueue", "hello")
        for place in range(len(second)):
            damaged = bytearray(second)
            damaged[place] ^= 0x10
            decoder = StreamDecoder()
            found = []
            with self.subTest(place=place), self.assertRaises(FrameError) as caught:
                found += decoder.feed(first)
                found += decoder.feed(bytes(damaged))
                decoder.end()
            self.assertEqual(found, ["0 STATUS id 1"])
            self.assertIn(f"damaged at byte {len(first)}:", str(caught.exception))

    def test_a_cut_stream(self):
        frame = encoded("enqueue", "hello")
        done = run_tool("decode.py", data=frame + frame[:20])
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        self.assertEqual(done.stderr.decode(), f"decode.py: damaged at byte {len(frame)}: the "
                         "stream ends 20 bytes into a frame\n")

    def test_frames_are_printed_as_they_come(self):
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "tools", "decode.py")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for cleanup in (process.wait, process.stderr.close, process.stdout.close,
                        process.stdin.close, process.kill):     # the last one first
            self.addCleanup(cleanup)
        frame = encoded("status")
        process.stdin.write(frame + frame[:5])
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"0 STATUS id 1\n")    # stdin is still open
        process.stdin.write(frame[5:])
        process.stdin.close()
        self.assertEqual(process.stdout.readline(), b"16 STATUS id 1\n")
        self.assertEqual(process.wait(60), 0)

    def test_wrong_use(self):
        for words, status in ((["/nowhere.bin"], 1), (["log"], 2), (["log", "/nowhere"], 1),
                              (["a", "b"], 2), (["--hex", "meta", "b"], 2)):
            with self.subTest(words=words):
                found, output, errors = run_here(decode_tool, *words)
                self.assertEqual((found, output), (status, ""))
                self.assertTrue(errors.splitlines()[-1].startswith("decode.py: "), errors)
        done = run_tool("decode.py", "--hex", data=b"zz")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertNotIn(b"Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()
