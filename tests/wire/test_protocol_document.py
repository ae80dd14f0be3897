"""protocol.md against the program: its tables, its layouts, its examples.

How: a layout table is filled with values that all differ, and what the program decodes from those
bytes must be the same values under the same names; encoded again they must be the same bytes. Each
example is decoded and encoded again too, and where a REPLY follows a REQUEST, a machine must give
that reply. So a number, a type, an offset or an order that is changed on one side is found.
"""

import itertools
import math
import re
import unittest

from raftnet import reads
from raftnet.client import session as client_session
from raftnet.config import (GatewayConfig, MachineConfig, NetConfig, RaftConfig, SnapshotConfig,
                            WireConfig)
from raftnet.errors import ERROR_MEANING, ErrorCode
from raftnet.founding import Founders
from raftnet.machine.machine import Machine
from raftnet.machine.queue import MESSAGE_OVERHEAD_BYTES
from raftnet.machine.sectionitems import PIECE_BYTES
from raftnet.machine.sections import SectionNumber
from raftnet.machine.sessions import KEPT_REPLY_OVERHEAD_BYTES
from raftnet.machine.state import LAYOUT_VERSION, PIECE_ITEMS_MAX
from raftnet.raft.entry import HEADER_BYTES as ENTRY_HEADER_BYTES
from raftnet.raft.entry import PAYLOAD_BYTES_MAX, EntryKind, decode_entry, encode_entry
from raftnet.raft import membership as memberships
from raftnet.raft.membership import QuorumRule, decode_membership, quorum
from raftnet.storage import metafile, records, snapshot
from raftnet.wire import (address, commands, frames, joining, kvcommands, queuecommands,
                          queueresults, requests, snapshots, transactions, watches)
from raftnet.wire.commands import Operation, Status
from raftnet.wire.frames import FrameReader, Kind
from tests.wire.document import DOCUMENT, SIZES, encode, fill, size_of
from tests.wire.layouts import LAYOUTS

CHAPTERS = ["Version history", "Conventions", "Connection and greeting", "Frame header and limits",
            "Errors", "Catalogue", "Client messages", "Peer messages", "Commands and entries",
            "Files on disk", "Guarantees", "Compatibility rules", "Glossary"]
NUMBERS = {
    "Role of the sender": {"PEER": requests.ROLE_PEER, "CLIENT": requests.ROLE_CLIENT},
    "Error codes": ErrorCode.__members__,
    "Kinds of frames": Kind.__members__,
    "Forms of a REPLY": {"ENQUEUED": requests.FORM_ENQUEUED, "RESULTS": requests.FORM_RESULTS,
                         "REFUSED": requests.FORM_REFUSED},
    "Roles": {role: number for number, role in enumerate(requests.ROLES)},
    "Operations": Operation.__members__,
    "Statuses": Status.__members__,
    "Outcomes": queueresults.Outcome.__members__,
    "Settings": queuecommands.Setting.__members__,
    "Overflow": queuecommands.Overflow.__members__,
    "Reasons": queueresults.Reason.__members__,
    "Kinds of conditions": kvcommands.ConditionKind.__members__,
    "Subjects": transactions.Subject.__members__,
    "What is watched": watches.WatchWhat.__members__,
    "Types of changes": watches.EventType.__members__,
    "Operations of a CHANGE": {"REMOVE": joining.CHANGE_REMOVE, "TRANSFER": joining.CHANGE_TRANSFER,
                               "SET": joining.CHANGE_SET},
    "Entry kinds": EntryKind.__members__,
    "Kinds of members": {"LEARNER": memberships._LEARNER, "VOTER": memberships._VOTER,
                         "LEARNER_THAT_STAYS": memberships._LEARNER_THAT_STAYS},
    "Quorum rules": QuorumRule.__members__,
    "Sections of the state": SectionNumber.__members__,
}
OTHER_LIMITS = {
    "resend_s": int(client_session.RESEND_S),
    "kept_reply_overhead_bytes": KEPT_REPLY_OVERHEAD_BYTES,
    "message_overhead_bytes": MESSAGE_OVERHEAD_BYTES,
    "half_closed_ms": NetConfig().half_closed_ms,
    "unfinished_frame_ms": NetConfig().unfinished_frame_ms,
    "read_command_bytes_max": reads._READ_BYTES_MAX,
    "reads_waiting_max": GatewayConfig().reads_waiting_max,
    "log_reply_bytes_max": GatewayConfig().log_reply_bytes_max,
    "log_reply_entries_max": reads._LOG_LIMIT_MAX,
    "orphan_wait_ms": GatewayConfig().orphan_wait_ms,
    "deadline_grain_ms": GatewayConfig().deadline_grain_ms,
    "batch_bytes_max": GatewayConfig().batch_bytes_max,
    "append_bytes_max": RaftConfig().append_bytes_max,
    "entry_payload_bytes_max": PAYLOAD_BYTES_MAX,
    "members_max": memberships.MEMBERS_MAX,
    "removed_max": memberships.REMOVED_MAX,
    "change_addresses_max": joining.CHANGE_ADDRESSES_MAX,
    "snapshot_part_bytes_max": snapshots.PART_BYTES_MAX,
    "snapshot_kept_ms": SnapshotConfig().kept_ms,
}
# Numbers that stand in a sentence.
SENTENCES = [
    f"A frame is {frames.HEADER_BYTES} bytes of header",
    f"{12 + 4} to `frame_bytes_max` for the whole frame",
    f"Kinds from {frames.PEER_KINDS_FROM} on are messages between nodes",
    f"since the answering node heard it last; {requests.UNKNOWN_AGE:,}: never",
    f"1: as a learner that stays one; 2: returning; both: "
    f"{joining.JOIN_STAYS | joining.JOIN_RETURNING}; other bits are 0",
    f"| flags | {joining.JOIN_STAYS}: as a learner that stays one; other bits are 0 |",
    f"It is {commands.STATE_VERSION} now, and stands in every membership",
    f"`meta` is {metafile.META_BYTES} bytes long",
    f"at the bytes {metafile.SLOT_OFFSETS[0]} and {metafile.SLOT_OFFSETS[1]};",
    f"the {records.PREFIX_BYTES - 8 + ENTRY_HEADER_BYTES} bytes after it",
    f"the {ENTRY_HEADER_BYTES} bytes of the entry's header",
    f"at byte {records.HEADER_BYTES} of the file",
    f"of the data: 1 to {snapshot.BLOCK_BYTES_MAX:,}",
    f"length | of what follows the checksum: {ENTRY_HEADER_BYTES - 8} + the bytes of the payload",
    f"CRC-32 of the {metafile.SLOT_BYTES - 4} bytes before",
    f"CRC-32 of the {metafile.IDENTITY_BYTES - 4} bytes before",
    f"CRC-32 of the {records.HEADER_BYTES - 4} bytes before",
    f"of all that follows this field: {frames.HEADER_BYTES - 4} + the bytes of the body",
    f"header from byte {frames.CHECKED_FROM} on, and body",
    "of what follows this field: 1 + the bytes of the payload",
    f"A piece is about {PIECE_BYTES:,} bytes long at most",
    f"| item_count | 1 to {PIECE_ITEMS_MAX} |",
    f"| layout_version | {LAYOUT_VERSION}: of pieces and items",
    "0 is no, 1 is yes",
    f"some {GatewayConfig().watch_ring_bytes_max // 2**20} MiB of them",
    f"some {GatewayConfig().watch_progress_entries} entries were executed",
    f"above {GatewayConfig().watch_backlog_bytes_max // 2**20} MiB that waits to be sent",
    f"more than {GatewayConfig().watches_per_client_max:,} on this connection",
    f"{watches.WATCH_LOCAL}: local, any node tells what it executes; other bits are 0",
    f"{watches.ENDED}: the watch is over",
    "1: founded, clients are served; the other bits are 0",
    "each a `u32` length and the body of a REQUEST",
    f"all are {metafile.FORMAT}.",
    f"| u8 | version | {frames.VERSION} |",
    f"| {frames.VERSION} | the first version |",
]
UNREAD_NOTES = ["checksum", "check", "zero", "session", "cluster_id", "cluster_id: none"]
EXAMPLE_TIME_MS = 1_000         # replicated time in the examples
HEADER_FIELDS = ["length", "checksum", "version", "kind", "zero", "request_id"]


class TablesTest(unittest.TestCase):
    """The numbers of the document are those of the program."""

    def test_chapters_in_order(self):
        chapters = re.findall(r"^## (\d+)\. (.*)$", DOCUMENT.text, re.MULTILINE)
        self.assertEqual(chapters, [(str(n), name) for n, name in enumerate(CHAPTERS, 1)])
        for number, name in chapters:
            anchor = f"{number}-{name.lower().replace(' ', '-')}"
            self.assertIn(f"{number}. [{name}](#{anchor})", DOCUMENT.text)

    def test_numbers_and_names(self):
        for heading, expected in NUMBERS.items():
            with self.subTest(heading):
                rows = DOCUMENT.numbered(heading)
                found = [(row["name"], int(row["number"])) for row in rows]
                self.assertEqual(found, [(name, int(n)) for name, n in expected.items()])

    def test_no_other_numbered_table(self):
        found = {heading for heading, tables in DOCUMENT.tables.items()
                 for rows in tables if "number" in rows[0]}
        self.assertEqual(found, set(NUMBERS))

    def test_errors_say_what_the_program_says(self):
        for row in DOCUMENT.numbered("Error codes"):
            code = ErrorCode(int(row["number"]))
            client = ("same node" if code in client_session.RETRY_HERE else
                      "other node" if code in client_session.RETRY_ELSEWHERE else "final")
            with self.subTest(code.name):
                self.assertEqual(row["meaning, and what to do"], ERROR_MEANING[code])
                self.assertEqual(row["client"], client)

    def test_limits(self):
        (rows,) = DOCUMENT.tables["Limits"]
        found = {row["name"].strip("`"): int(row["value"].replace(",", "")) for row in rows}
        expected = dict(OTHER_LIMITS)
        for config in (WireConfig(), MachineConfig()):
            expected |= {name: getattr(config, name) for name in config.__dataclass_fields__}
        self.assertEqual(found, expected)
        self.assertEqual(frames.FRAME_BYTES_MAX, WireConfig().frame_bytes_max)
        self.assertLessEqual(address.HOST_BYTES_MAX, 0xFFFF)

    def test_limits_that_are_named_exist(self):
        (rows,) = DOCUMENT.tables["Limits"]
        known = {row["name"].strip("`") for row in rows}
        known |= {row["field"] for rows in DOCUMENT.layouts().values() for row in rows}
        named = set(re.findall(r"`([a-z_]+_(?:max|ms|s|bytes))`", DOCUMENT.text))
        self.assertLessEqual(named, known)

    def test_sentences(self):
        text = " ".join(DOCUMENT.text.split())
        for sentence in SENTENCES:
            with self.subTest(sentence):
                self.assertIn(sentence, text)

    def test_types(self):
        (rows,) = DOCUMENT.tables["Conventions"]
        found = {row["type"]: row["bytes"] for row in rows}
        numbers = [f"`{kind}`" for kind in SIZES if kind != "flag"]
        sizes = [str(size) for kind, size in SIZES.items() if kind != "flag"]
        self.assertEqual(found[", ".join(numbers)], ", ".join(sizes) + ": a number")
        self.assertTrue(found["`flag`"].startswith(f"{SIZES['flag']}: "))
        for kind, value in (("string", "é"), ("name", b"abc"), ("text", b"")):
            length = re.match(r"an? `(u\d+)` with the length in bytes", found[f"`{kind}`"])[1]
            self.assertEqual(encode(kind, value)[:SIZES[length]],
                             encode(length, len(encode(kind, value)) - SIZES[length]))
        self.assertEqual(encode("string", "é"), requests.pack_string("é"))
        self.assertEqual(encode("name", b"abc"), commands.encode_size(b"abc")[5:])

    def test_defaults_of_settings(self):
        found = {int(row["number"]): row["default"] for row in DOCUMENT.numbered("Settings")}
        self.assertEqual(found, {setting: f"{value:,}" if value != b"" else "empty" for
                                 setting, value in queuecommands.SETTING_DEFAULTS.items()})

    def test_formats_of_files(self):
        self.assertEqual(metafile.FORMAT, records.FORMAT)
        rows = [row for rows in DOCUMENT.layouts().values() for row in rows
                if row["field"] == "format"]
        self.assertEqual([row["meaning"] for row in rows], [str(metafile.FORMAT)] * 5)

    def test_quorum_rules(self):
        rounding = {"floor": math.floor, "ceil": math.ceil}
        for row in DOCUMENT.numbered("Quorum rules"):
            name, divisor, more, capped = re.fullmatch(
                r"(floor|ceil)\(n / (\d+)\) \+ (\d+)(, and never more than n)?",
                row["quorum"]).groups()
            for n in range(1, 50):
                expected = rounding[name](n / int(divisor)) + int(more)
                with self.subTest(row["name"], n=n):
                    self.assertEqual(quorum(n, int(row["number"])),
                                     min(n, expected) if capped else expected)

    def test_where_operations_are_allowed(self):
        samples = {
            Operation.ENQUEUE: commands.encode_enqueue(b"q", [b"m"]),
            Operation.DEQUEUE: commands.encode_dequeue(b"q"),
            Operation.EXECUTE: commands.encode_execute([]),
            Operation.PEEK: commands.encode_peek(b"q"), Operation.SIZE: commands.encode_size(b"q"),
            Operation.QUEUES: commands.encode_queues(), Operation.CLOSE: commands.encode_close(),
            Operation.CANCEL: commands.encode_cancel(b"s" * 16, 1),
            Operation.TIME: commands.encode_time(),
            Operation.ENQUEUE_WITH: queuecommands.encode_enqueue_with(b"q", [b"m"], 1),
            Operation.LEASE: queuecommands.encode_lease(b"q", 1_000),
            Operation.ACK: queuecommands.encode_ack([(1, 1)]),
            Operation.NACK: queuecommands.encode_nack([(1, 1)]),
            Operation.EXTEND: queuecommands.encode_extend([(1, 1)], 1_000),
            Operation.CONFIGURE: queuecommands.encode_configure(b"q", {2: 1}),
            Operation.DELETE_QUEUE: queuecommands.encode_delete_queue(b"q"),
            Operation.PURGE: queuecommands.encode_purge(b"q", 1),
            Operation.REDRIVE: queuecommands.encode_redrive(b"q"),
            Operation.DESCRIBE: queuecommands.encode_describe(b"q"),
            Operation.LEASES: queuecommands.encode_leases(b"q", 1),
            Operation.INSPECT: queuecommands.encode_inspect(b"q", 1),
            Operation.KV_GET: kvcommands.encode_kv_get(b"k"),
            Operation.KV_PUT: kvcommands.encode_kv_put(b"k", b"v"),
            Operation.KV_DELETE: kvcommands.encode_kv_delete(b"k"),
            Operation.KV_LIST: kvcommands.encode_kv_list(),
            Operation.TRANSACT: transactions.encode_transact([], [])}
        for row in DOCUMENT.numbered("Operations"):
            command = samples[Operation(int(row["number"]))]
            allowed = row["allowed in"].split(", ")
            machine = Machine(MachineConfig(), WireConfig())
            machine.state_version = commands.STATE_VERSION
            status = {
                "REQUEST": status_of(machine, requests.NO_SESSION, command),
                "REQUEST with a session": status_of(machine, b"s" * 16, command),
                "EXECUTE": status_of(machine, requests.NO_SESSION,
                                     commands.encode_execute([command])),
                "TRANSACT": status_of(machine, requests.NO_SESSION,
                                      transactions.encode_transact([], [command])),
                "READ": machine.read(command)[0],
                "internal session": status_of(machine, requests.INTERNAL_SESSION, command)}
            for place, found in status.items():
                may = (place in allowed or place.startswith("REQUEST") and "REQUEST" in allowed
                       or place == "TRANSACT" and "EXECUTE" in allowed)
                with self.subTest(row["name"], place=place):
                    self.assertEqual(found != Status.UNKNOWN, may)


def run(machine: Machine, body: bytes) -> requests.Reply:
    """The machine's reply to a REQUEST in a batch of its own."""
    batch = commands.encode_batch(machine.time_ms, [body])
    (reply,) = machine.apply(
        encode_entry(machine.applied_index + 1, 1, EntryKind.BATCH, batch)).replies
    return requests.decode_reply(reply)


def status_of(machine: Machine, session: bytes, command: bytes) -> int:
    """The status of one command."""
    reply = run(machine, requests.encode_request(session, 1, 0, [command]))
    return Status.OK if reply.results is None else reply.results[0][0]


class LayoutsTest(unittest.TestCase):
    """A layout table, filled, is what the program decodes and encodes."""

    def filled(self, headings: tuple[str, ...]) -> tuple[bytes, dict]:
        data, values = b"", {}
        for heading in headings:
            more, found = fill(DOCUMENT.layouts()[heading], LAYOUTS[headings].given)
            data += more
            values |= found
        seal = LAYOUTS[headings].seal
        return seal(data) if seal else data, values

    def test_every_layout_is_known(self):
        self.assertEqual({heading for headings in LAYOUTS for heading in headings},
                         set(DOCUMENT.layouts()))

    def test_every_layout_is_what_the_program_reads_and_writes(self):
        for headings, layout in LAYOUTS.items():
            with self.subTest(headings):
                data, values = self.filled(headings)
                fields = {name: value for name, value in values.items()
                          if name != "zero" and name not in layout.unseen}
                decoded = layout.decode(data)
                decoded.pop("from_file", None)      # of an Append, never on the wire
                self.assertEqual(decoded, fields)
                self.assertEqual(layout.again(data), data)

    def test_offsets(self):
        for heading, rows in DOCUMENT.layouts().items():
            offset = 0
            for row in rows:
                with self.subTest(heading, field=row["field"]):
                    self.assertEqual(row["at"], "" if offset is None else str(offset))
                size = size_of(row["type"])
                offset = None if offset is None or size is None else offset + size

    def test_zeros_are_not_looked_at(self):
        data, _ = self.filled(("HELLO",))
        other = data[:3] + b"\xff" + data[4:]
        self.assertEqual(requests.decode_hello(other), requests.decode_hello(data))
        headings = ("Frame",)
        data, _ = self.filled(headings)
        other = LAYOUTS[headings].seal(data[:10] + b"\xff\xff" + data[12:])
        self.assertEqual(FrameReader().feed(other), FrameReader().feed(data))


class ExamplesTest(unittest.TestCase):
    """The examples are what the program sends, and say what they show."""

    def test_every_kind_has_an_example(self):
        kinds = [FrameReader().feed(e.data)[0][0] for e in DOCUMENT.examples if not e.what]
        self.assertEqual(set(kinds), set(Kind))

    def test_each_is_decoded_and_encoded_again(self):
        for example in DOCUMENT.examples:
            with self.subTest(example.heading, what=example.what):
                again = BLOCKS[example.what](example.data)
                self.assertEqual(again.hex(" "), example.data.hex(" "))

    def test_notes_say_what_the_bytes_are(self):
        for example in DOCUMENT.examples:
            for data, note in example.pieces:
                with self.subTest(example.heading, note=note):
                    number = re.match(r"\w+ (\d+)(?:: (\w+))?$", note)
                    text = re.match(r'\w+ "(.*)"', note)
                    if number:
                        self.assertEqual(int(number[1]), int.from_bytes(data, "big"))
                        self.assertLessEqual(len(data), 8)
                        self.check_name(note.split()[0], int(number[1]), number[2])
                    elif text:
                        self.assertTrue(data.rstrip(b"\0").endswith(text[1].encode()))
                    else:
                        self.assertIn(note, UNREAD_NOTES)

    def check_name(self, field: str, number: int, name: str | None) -> None:
        """A name behind a number is the one that the program has for it."""
        if name is not None:
            tables = {
                "operation": ("Operations", "Operations of a CHANGE"), "status": ("Statuses",),
                "code": ("Error codes",), "quorum_rule": ("Quorum rules",),
                "form": ("Forms of a REPLY",), "role": ("Roles",),
                "outcome": ("Outcomes",), "setting": ("Settings",), "subject": ("Subjects",),
                "reason": ("Reasons",),
                "kind": ("Kinds of frames", "Entry kinds", "Kinds of members",
                         "Kinds of conditions")}[field]
            self.assertIn((name, number), [pair for table in tables
                                           for pair in NUMBERS[table].items()])

    def test_notes_name_the_fields_of_the_layout(self):
        for example in DOCUMENT.examples:
            heading = BLOCK_HEADINGS.get(example.what) or self.heading_of(example.data)
            names = [note.split()[0].rstrip(":") for _, note in example.pieces]
            if not example.what:
                self.assertEqual(names[:6], HEADER_FIELDS)
                del names[:6]
            fixed = itertools.takewhile(
                lambda row: size_of(row["type"]) or row["type"] in ("string", "name"),
                DOCUMENT.layouts().get(heading, []))
            for name, row in itertools.zip_longest(names, fixed):
                if row is None:
                    break       # what follows is a list: its bytes are decoded elsewhere
                with self.subTest(example.heading, layout=heading):
                    self.assertEqual(name, row["field"])

    def heading_of(self, frame: bytes) -> str:
        """The heading of the layout of a frame's body."""
        kind = Kind(FrameReader().feed(frame)[0][0])
        return "HELLO" if kind == Kind.HELLO_REPLY else kind.name

    def test_replies_are_what_a_machine_answers(self):
        machines: dict[bytes, Machine] = {}     # each session is a story of its own
        pairs = 0
        sent = [FrameReader().feed(e.data)[0] for e in DOCUMENT.examples if not e.what]
        # In the order of their sequences, not of the document: one session runs through it.
        asked = {body[:24]: (request_id, body) for kind, request_id, body in sent
                 if kind == Kind.REQUEST}
        for head, (request_id, body) in sorted(asked.items()):
            machine = machines.get(head[:16])
            if machine is None:
                machine = machines[head[:16]] = Machine(MachineConfig(), WireConfig())
                machine.state_version = commands.STATE_VERSION
                machine.time_ms = EXAMPLE_TIME_MS
            (reply,) = [b for kind, i, b in sent if kind == Kind.REPLY and i == request_id]
            with self.subTest(request_id=request_id):
                self.assertEqual(run(machine, body), requests.decode_reply(reply))
            pairs += 1
        self.assertGreaterEqual(pairs, 3)
        (read,) = [body for kind, _, body in sent if kind == Kind.READ]
        (answer,) = [body for kind, _, body in sent if kind == Kind.READ_REPLY]
        found = [machine.read(requests.decode_read(read)[1]) for machine in machines.values()]
        self.assertIn(requests.decode_read_reply(answer)[1:], found)

    def test_the_founding_entry_is_what_founders_write(self):
        (example,) = [e for e in DOCUMENT.examples if e.what == "entry"]
        members = decode_membership(decode_entry(example.data).payload).members
        addresses = [member.address for member in members]
        first, *others = members
        founders = Founders(first.node_id, first.address, addresses, QuorumRule.MAJORITY)
        for member in others:
            founders.learn(member.address, member.node_id, bytes(16))
        self.assertEqual(founders.entry_1()[1].data, example.data)


def frame_again(data: bytes) -> bytes:
    """A frame, decoded down to its last command and entry, and encoded again."""
    reader = FrameReader()
    ((kind, request_id, body),) = reader.feed(data)
    assert reader.error is None and not reader.held, "one whole frame"
    if kind in (Kind.REQUEST, Kind.REPLY):
        body = BODIES[kind](body)
    elif kind == Kind.READ:
        local, command = requests.decode_read(body)
        body = requests.encode_read(local, b"".join(commands_again(command, 0)))
    elif kind == Kind.LOG_REPLY:
        layout = LAYOUTS["LOG_REPLY",]
        for entry in layout.decode(body)["entries"]:
            assert entry_again(entry) == entry
        body = layout.again(body)
    elif kind == Kind.STATUS:
        assert not body
    else:
        heading = "HELLO" if kind == Kind.HELLO_REPLY else Kind(kind).name
        body = LAYOUTS[heading,].again(body)
    return frames.encode_frame(kind, request_id, body)


def commands_again(body: bytes, offset: int) -> list[bytes]:
    """The commands from `offset` on, each decoded and encoded again."""
    found = []
    for command in commands.split_commands(body, offset):
        operation = Operation(command[0])
        if operation == Operation.EXECUTE:
            inner = [len(c).to_bytes(4, "big") + c for c in commands.decode_execute(command)]
            found.append(commands.encode_execute(commands_again(b"".join(inner), 0)))
        elif operation == Operation.TRANSACT:
            conditions, inner = transactions.decode_transact(command)
            pieces = [len(c).to_bytes(4, "big") + c for c in inner]
            found.append(transactions.encode_transact(conditions,
                                                      commands_again(b"".join(pieces), 0)))
        elif operation in (Operation.CLOSE, Operation.TIME):
            found.append(len(command).to_bytes(4, "big") + command)
        else:
            arguments = LAYOUTS[operation.name,].again(command[1:])
            found.append((1 + len(arguments)).to_bytes(4, "big") + command[:1] + arguments)
    return found


def request_again(body: bytes) -> bytes:
    """A REQUEST's body."""
    session, first, acknowledged, count = requests.decode_request_head(body)
    found = commands_again(body, requests.REQUEST_HEAD_BYTES)
    assert len(found) == count
    return requests.encode_request(session, first, acknowledged, found)


def entry_again(data: bytes) -> bytes:
    """An entry and what is in it."""
    entry = decode_entry(data)
    payload = entry.payload
    if entry.kind == EntryKind.BATCH:
        stamp = commands.batch_stamp(payload)
        payload = commands.encode_batch(stamp, [request_again(body) for body in
                                                commands.decode_batch(payload)])
    elif entry.kind == EntryKind.MEMBERSHIP:
        payload = LAYOUTS["Membership",].again(payload)
    return encode_entry(entry.index, entry.term, entry.kind, payload).data


def identity_again(data: bytes) -> bytes:
    """An identity, by the document's own table."""
    values = metafile.decode_identity(data, "")._asdict()
    layout = LAYOUTS["Identity",]
    return layout.seal(fill(DOCUMENT.layouts()["Identity"], {**layout.given, **values})[0])


BODIES = {Kind.REQUEST: request_again, Kind.REPLY: LAYOUTS["REPLY", "ENQUEUED"].again}
BLOCK_HEADINGS = {"entry": "Entry", "identity": "Identity", "slot": "Meta slot",
                  "log": "Log header", "record": "Record"}
BLOCKS = {"": frame_again, "entry": entry_again, "identity": identity_again,
          "slot": LAYOUTS["Meta slot",].again, "log": LAYOUTS["Log header",].again,
          "record": LAYOUTS["Record",].again}


if __name__ == "__main__":
    unittest.main()
