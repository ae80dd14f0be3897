"""How the program reads and writes each layout of protocol.md, by the heading of its table.

A Layout decodes bytes to values by field name and encodes them again; the tests fill the document's
table with values and compare. A layout that is missing here makes a test fail.
"""

from zlib import crc32

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine import state
from raftnet.net.messages import decode_message, encode_message
from raftnet.raft import entry as entries
from raftnet.raft import membership as memberships
from raftnet.raft.entry import EntryKind
from raftnet.raft.types import Snapshot
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage import damage, metafile, records, snapshot
from raftnet.wire import commands, frames, joining, requests, snapshots, watches
from raftnet.wire.commands import Operation
from raftnet.wire.frames import FrameReader, Kind
from tests.wire.document import DOCUMENT, fill
from tests.wire.layoutkinds import (Layout, of_command, of_message, of_object, of_tuple, prefixed)
from tests.wire.newerlayouts import KEY_LAYOUTS, QUEUE_LAYOUTS, TWO
from tests.wire.statelayouts import ITEM_LAYOUTS, machine_above_all


def _request(body: bytes) -> tuple:
    session, first, acknowledged, count = requests.decode_request_head(body)
    pieces = commands.split_commands(body, requests.REQUEST_HEAD_BYTES)
    assert len(pieces) == count
    return session, first, acknowledged, [prefixed([piece]) for piece in pieces]


def _reply(body: bytes) -> tuple:
    reply = requests.decode_reply(body)
    for form, value in enumerate((reply.first_message_id, reply.results, reply.refusal), 1):
        if value is not None:
            return reply.first_sequence, reply.count, form, value
    raise AssertionError("a reply of no form")


def _reply_again(first: int, count: int, form: int, value) -> bytes:
    if form == requests.FORM_ENQUEUED:
        return requests.encode_reply_enqueued(first, count, value)
    if form == requests.FORM_RESULTS:
        return requests.encode_reply_results(first, value)
    return requests.encode_reply_refused(first, count, *value)


def _log_reply(body: bytes) -> tuple:
    first, commit, following, count, offset = requests.decode_log_reply(body)
    found = entries.decode_entries(body, offset, count)
    return first, commit, following, [entry.data for entry in found]


def _snapshot(body: bytes) -> tuple:
    m = decode_message(Kind.SNAPSHOT, body)
    return m.term, m.index, m.snapshot_term, m.size, m.checksum, m.offset, m.data


def _frame(data: bytes) -> tuple:
    reader = FrameReader()
    ((kind, request_id, body),) = reader.feed(data)
    assert reader.error is None and not reader.held
    return kind, request_id, body


def _entry(data: bytes) -> tuple:
    entry = entries.decode_entry(data)
    assert len(entry.data) == len(data)
    return entry.index, entry.term, entry.kind, entry.payload


def _status_values(body: bytes) -> dict:
    status = requests.decode_status(body)
    values = {name: getattr(status, name) for name in status.__dataclass_fields__}
    values["role"] = requests.ROLES.index(status.role)
    (member,) = status.members
    values["members"] = tuple(getattr(member, name) for name in MEMBER_FIELDS)
    return values


def _membership(payload: bytes) -> tuple:
    found = memberships.decode_membership(payload)
    members = tuple((m.node_id, KINDS.index((m.voter, m.stays)), m.address) for m in found.members)
    return (found.cluster_id, int(found.quorum_rule), int(found.founded), found.state_version,
            members, list(found.removed), list(found.target))


def _membership_again(cluster_id, rule, flags, state_version, members, removed, target) -> bytes:
    members = tuple(memberships.Member(node_id, address, *KINDS[kind])
                    for node_id, kind, address in members)
    return memberships.encode_membership(memberships.Membership(
        cluster_id, members, rule, bool(flags), tuple(removed), tuple(target), state_version))


def _record(data: bytes) -> tuple:
    def read(offset, count):
        return (bytes(records.HEADER_BYTES) + data)[offset:offset + count]
    size = records.HEADER_BYTES + len(data)
    ((_, synced, entry),) = records.scan_records(read, size)
    return synced, entry.data


def _seal(at: int, start: int, stop: int | None = None, begun: int = 0):
    """A checksum at `at` over the bytes from `start` to `stop`."""
    def seal(data: bytes) -> bytes:
        return data[:at] + crc32(data[start:stop], begun).to_bytes(4, "big") + data[at + 4:]
    return seal


def _seal_end(data: bytes) -> bytes:
    """A checksum at the end, over all before it."""
    return data[:-4] + crc32(data[:-4]).to_bytes(4, "big")


def _snapshot_header(data: bytes) -> tuple:
    found = snapshot.decode_header(data, "")
    assert found.end == len(data)
    return (found.cluster_id, found.index, found.term, found.membership_index, found.digest,
            memberships.encode_membership(found.membership))


_MEMBERSHIP = memberships.encode_membership(memberships.Membership(bytes(16), ()))
_SNAPSHOT_HEADER = snapshot.encode_header(bytes(16), 7, 2, 1, memberships.Membership(
    bytes(16), ()), 5)
_HEADER_CHECKSUM = crc32(_SNAPSHOT_HEADER[:-4])


def _snapshot_file(blocks: bytes, end: bytes | None = None) -> snapshot.SnapshotFile:
    """A file of these blocks."""
    data = _SNAPSHOT_HEADER + blocks
    disk = SimulatedDisk()
    disk.put("file", data + (snapshot.encode_end(len(data), crc32(data)) if end is None else end))
    return snapshot.SnapshotFile.open(disk, "file")


def _healing(data: bytes) -> tuple:
    found = damage.decode_healing(data, "")
    return found.done, found.number, found.cluster_id, list(found.contacts)


def _state_head(piece: bytes) -> tuple:
    loader = state.StateLoader(MachineConfig(), WireConfig())
    loader.feed(piece)
    loader.feed(list(state.encode_state(machine_above_all()))[-1])
    machine = loader.finish()
    return (machine.applied_index, machine.digest, machine.time_ms, machine.state_version,
            machine.executor.next_message_id, machine.executor.waits.next_number)


def _state_head_again(*values) -> bytes:
    machine = machine_above_all()
    (machine.applied_index, machine.digest, machine.time_ms, machine.state_version,
     machine.executor.next_message_id, machine.executor.waits.next_number) = values
    return next(state.encode_state(machine))


MEMBER_FIELDS = ("node_id", "voter", "stays", "reachable", "match_index", "silent_ms", "rtt_ms",
                 "rtt_slow_ms", "loss_permille", "snapshot_bytes", "snapshot_size", "address")
_ONE_MEMBER = bytes(19) + b"\1\0\1" + bytes(4)      # a membership up to its first member
KINDS = ((False, False), (True, False), (False, True))      # (voter, stays) by the kind of a member
ENTRY = entries.encode_entry(7, 9, EntryKind.EMPTY, b"").data
MEMBER, MEMBER_VALUES = fill(DOCUMENT.layouts()["Member status"], {})
VOTER, VOTER_VALUES = fill(DOCUMENT.layouts()["Member"], {"kind": 2})
QUEUE, QUEUE_VALUES = fill(DOCUMENT.layouts()["Queue in a list"], {})
RESULT, RESULT_VALUES = fill(DOCUMENT.layouts()["Result"], {"length": 4, "payload": b"abc"})
ONE_RESULT = [(RESULT_VALUES["status"], b"abc")]
MEMBER_TUPLE = tuple(MEMBER_VALUES[name] for name in MEMBER_FIELDS)

# Headings of the tables that follow each other in the bytes -> how the program reads them. Where a
# value is not what the bytes are (a list), the given value is a pair: bytes, what is decoded.
_ONE_CHANGE = bytes(8) + b"\0\0\0\1"
CHANGED, CHANGED_VALUES = fill(DOCUMENT.layouts()["Change"],
                               {"type": 1, "length": 5, "value": b"value"})
del CHANGED_VALUES["length"]


def _watch_event_again(index: int, changes: list[tuple] | None) -> bytes:
    return (watches.encode_watch_ended(index) if changes is None
            else watches.encode_watch_event(index, changes))


WATCH_LAYOUTS = {
    ("WATCH",): of_tuple(watches.decode_watch, watches.encode_watch, "flags what from_index name",
                         flags=1, what=2),
    ("WATCH_EVENT",): of_tuple(
        watches.decode_watch_event, _watch_event_again, "index changes", ("count",), count=2,
        changes=(2 * CHANGED, 2 * [tuple(CHANGED_VALUES.values())])),
    ("Change",): of_tuple(
        lambda data: watches.decode_watch_event(_ONE_CHANGE + data).changes[0],
        lambda *change: _watch_event_again(0, [change])[len(_ONE_CHANGE):],
        "type name version index value", ("length",), type=1, length=5, value=b"value"),
    ("Value of a SIZE",): of_tuple(watches.decode_sizes, watches.encode_sizes,
                                   "leased delayed size_bytes"),
    ("UNWATCH",): of_tuple(lambda data: (watches.decode_unwatch(data),), watches.encode_unwatch,
                           "watch"),
}

LAYOUTS = {
    ("Frame",): of_tuple(
        _frame, lambda kind, request_id, body: frames.encode_frame(kind, request_id, body),
        "kind request_id body", ("length", "checksum", "version"),
        _seal(4, frames.CHECKED_FROM), length=15, version=1, body=b"abc"),
    ("HELLO",): of_object(requests.decode_hello, requests.encode_hello, role=1),
    ("ERROR",): of_tuple(requests.decode_error, lambda code, leader, text:
                         requests.encode_error(code, text, leader), "code leader text"),
    ("REQUEST",): of_tuple(_request, requests.encode_request,
                           "session first_sequence acknowledged commands", ("count",),
                           count=2, commands=(b"".join(TWO), TWO)),
    ("REPLY", "ENQUEUED"): of_tuple(_reply, _reply_again,
                                    "first_sequence count form first_message_id", form=1),
    ("REPLY", "RESULTS"): of_tuple(_reply, _reply_again, "first_sequence count form results",
                                   form=2, count=1, results=(RESULT, ONE_RESULT)),
    ("REPLY", "REFUSED"): of_tuple(
        lambda body: (*_reply(body)[:3], *_reply(body)[3]),
        lambda first, count, form, *refusal: _reply_again(first, count, form, refusal),
        "first_sequence count form code text", form=3),
    ("Result",): of_tuple(
        lambda data: requests.decode_results(data, 0, 1)[0][0],
        lambda *result: requests.encode_reply_results(1, [result])[13:], "status payload",
        ("length",), length=4, payload=b"abc"),
    ("READ",): of_tuple(requests.decode_read, requests.encode_read, "local command",
                        command=commands.encode_size(b"q")),
    ("READ_REPLY",): of_tuple(requests.decode_read_reply, requests.encode_read_reply,
                              "applied_index status payload", payload=b"abc"),
    ("LOG",): of_tuple(requests.decode_log, requests.encode_log, "local from_index limit"),
    ("LOG_REPLY",): of_tuple(_log_reply, requests.encode_log_reply,
                             "first_index commit_index next_index entries", ("count",),
                             count=2, entries=(ENTRY + ENTRY, [ENTRY, ENTRY])),
    ("STATUS_REPLY",): Layout(
        _status_values, lambda body: requests.encode_status(requests.decode_status(body)),
        {"role": 2, "founded": True, "count": 1, "members": (MEMBER, MEMBER_TUPLE)}, ("count",)),
    ("Member status",): Layout(lambda _: dict(MEMBER_VALUES), lambda data: data, {}),
    ("TAKE_SNAPSHOT",): of_tuple(lambda body: (snapshots.decode_take_snapshot(body),),
                                 snapshots.encode_take_snapshot, "local"),
    ("SNAPSHOT_TAKEN",): of_tuple(
        snapshots.decode_snapshot_taken,
        lambda *values: snapshots.encode_snapshot_taken(snapshots.Taken(*values)),
        "index term size checksum digest"),
    ("READ_SNAPSHOT",): of_tuple(snapshots.decode_read_snapshot, snapshots.encode_read_snapshot,
                                 "index offset count"),
    ("SNAPSHOT_PART",): of_tuple(
        snapshots.decode_snapshot_part,
        lambda *values: snapshots.encode_snapshot_part(snapshots.Part(*values)),
        "index size offset data", size=9_000, offset=8_996, data=b"last"),
    ("JOIN",): of_tuple(
        lambda body: (lambda node_id, address, flags: (node_id, flags, address))(
            *joining.decode_join(body)),
        lambda node_id, flags, address: joining.encode_join(node_id, address, flags),
        "node_id flags address", flags=3),
    ("JOIN_REPLY",): of_tuple(lambda body: (joining.decode_join_reply(body),),
                              joining.encode_join_reply, "cluster_id"),
    ("INVITE",): of_tuple(
        lambda body: (lambda cluster_id, contact, flags: (cluster_id, flags, contact))(
            *joining.decode_invite(body)),
        lambda cluster_id, flags, contact: joining.encode_invite(cluster_id, contact, flags),
        "cluster_id flags contact", flags=1),
    ("INVITE_REPLY",): of_tuple(lambda body: (joining.decode_invite_reply(body),),
                                joining.encode_invite_reply, "node_id"),
    ("CHANGE",): of_tuple(joining.decode_change, joining.encode_change, "operation addresses",
                          operation=joining.CHANGE_SET),
    ("CHANGE_REPLY",): of_tuple(joining.decode_change_reply, joining.encode_change_reply,
                                "index text"),
    ("PRE_VOTE",): of_message(Kind.PRE_VOTE),
    ("PRE_VOTE_REPLY",): of_message(Kind.PRE_VOTE_REPLY),
    ("VOTE",): of_message(Kind.VOTE),
    ("VOTE_REPLY",): of_message(Kind.VOTE_REPLY),
    ("APPEND",): of_message(Kind.APPEND, term=9, prev_log_index=6, prev_log_term=2, count=1,
                            entries=(ENTRY, [entries.decode_entry(ENTRY)])),
    ("APPEND_REPLY",): of_message(Kind.APPEND_REPLY),
    ("HEARTBEAT",): of_message(Kind.HEARTBEAT),
    ("HEARTBEAT_REPLY",): of_message(Kind.HEARTBEAT_REPLY),
    ("TIMEOUT_NOW",): of_message(Kind.TIMEOUT_NOW),
    ("SNAPSHOT",): of_tuple(_snapshot, lambda *values: encode_message(Snapshot(*values))[1],
                            "term index snapshot_term size checksum offset data", ("count",),
                            term=9, snapshot_term=7, size=9_000, offset=8_996, count=4,
                            data=b"last"),
    ("SNAPSHOT_REPLY",): of_message(Kind.SNAPSHOT_REPLY),
    ("Command", "SIZE"): of_tuple(
        lambda data: (commands.split_commands(data, 0)[0][0],
                      commands.decode_size(commands.split_commands(data, 0)[0])),
        lambda _, queue: commands.encode_size(queue), "operation queue", ("length", "arguments"),
        length=4, operation=int(Operation.SIZE), queue=b"ab"),
    ("ENQUEUE",): of_command(commands.decode_enqueue, commands.encode_enqueue, "queue messages",
                             ("count", "lengths"), count=2, lengths=[1, 2],
                             messages=(b"abb", [b"a", b"bb"])),
    ("DEQUEUE",): of_command(commands.decode_dequeue, commands.encode_dequeue,
                             "queue count wait_ms"),
    ("EXECUTE",): of_command(
        lambda data: ([prefixed([c]) for c in commands.decode_execute(data)],),
        commands.encode_execute, "commands", ("count",), count=2,
        commands=(b"".join(TWO), TWO)),
    ("PEEK",): of_command(commands.decode_peek, commands.encode_peek, "queue count"),
    ("SIZE",): of_command(commands.decode_size, commands.encode_size, "queue"),
    ("QUEUES",): of_command(commands.decode_queues, commands.encode_queues, "after limit"),
    **QUEUE_LAYOUTS,
    **WATCH_LAYOUTS,
    **KEY_LAYOUTS,
    ("CANCEL",): of_command(commands.decode_cancel, commands.encode_cancel, "session sequence"),
    ("ENQUEUE result",): of_tuple(lambda data: (commands.decode_enqueue_result(data),),
                                  commands.encode_enqueue_result, "first_message_id"),
    ("DEQUEUE and PEEK result",): of_tuple(
        lambda data: (commands.decode_messages(data),), commands.encode_messages, "messages",
        ("count", "ids", "lengths"), count=2, ids=[5, 6], lengths=[1, 2],
        messages=(b"abb", [(5, b"a"), (6, b"bb")])),
    ("EXECUTE result",): of_tuple(
        lambda data: (commands.decode_execute_result(data),), commands.encode_execute_result,
        "results", ("count",), count=1, results=(RESULT, ONE_RESULT)),
    ("SIZE result",): of_tuple(commands.decode_size_result, commands.encode_size_result,
                               "messages size_bytes"),
    ("QUEUES result",): of_tuple(
        lambda data: (commands.decode_queue_list(data),), commands.encode_queue_list, "queues",
        ("count",), count=1, queues=(QUEUE, [(QUEUE_VALUES["queue"], QUEUE_VALUES["messages"])])),
    ("Queue in a list",): of_tuple(
        lambda data: commands.decode_queue_list(b"\0\0\0\1" + data)[0],
        lambda *queue: commands.encode_queue_list([queue])[4:], "queue messages"),
    ("Entry",): of_tuple(_entry, lambda *values: entries.encode_entry(*values).data,
                         "index term kind payload", ("length", "checksum"), _seal(4, 8),
                         length=20, kind=1, payload=b"abc"),
    ("Batch",): of_tuple(
        lambda data: (commands.batch_stamp(data), commands.decode_batch(data)),
        commands.encode_batch, "stamp_ms requests",
        requests=(prefixed([b"ab", b"c"]), [b"ab", b"c"])),
    ("Membership",): of_tuple(
        _membership, _membership_again,
        "cluster_id quorum_rule flags state_version members removed target",
        ("member_count", "removed_count", "target_count"), quorum_rule=1, flags=1, member_count=1,
        members=(VOTER, (tuple(VOTER_VALUES[n] for n in ("node_id", "kind", "address")),)),
        removed_count=2, removed=[2**64 - 1, 5], target_count=3, target=["a:1", "", "c:3"]),
    ("Member",): of_tuple(
        lambda data: _membership(_ONE_MEMBER + data)[4][0],
        lambda *member: _membership_again(bytes(16), 0, 0, 1, [member], [], [])[len(_ONE_MEMBER):],
        "node_id kind address", kind=2),
    ("Meta slot",): of_tuple(
        lambda data: metafile.decode_slot(data, ""),
        lambda *values: metafile.encode_slot(metafile.MetaState(*values)),
        "sequence current_term voted_for node_id boot floor_term floor_index",
        ("magic", "format", "checksum"), _seal(64, 0, 64), magic=b"RNMETA", format=2),
    ("Identity",): Layout(
        lambda data: metafile.decode_identity(data, "")._asdict(), lambda data: data,
        {"magic": b"RNIDEN", "format": 2}, ("magic", "format", "checksum"), _seal(32, 0, 32)),
    ("Log header",): of_tuple(
        lambda data: records.decode_header(data, ""), records.encode_header,
        "base_index base_term node_id", ("magic", "format", "checksum"), _seal(32, 0, 32),
        magic=b"RNLOG\0", format=2),
    ("Record",): of_tuple(
        _record, lambda synced, data: records.encode_prefix(synced, records.HEADER_BYTES, data)
        + data, "synced_offset entry", ("marker", "check"),
        _seal(4, 8, 8 + 33, records.HEADER_BYTES), marker=b"RREC", synced_offset=20, entry=ENTRY),
    ("Snapshot header",): of_tuple(
        _snapshot_header, lambda cluster_id, index, term, membership_index, digest, membership:
        snapshot.encode_header(cluster_id, index, term, membership_index,
                               memberships.decode_membership(membership), digest),
        "cluster_id index term membership_index digest membership",
        ("magic", "format", "membership_bytes", "checksum"), _seal_end, magic=b"RNSNAP", format=2,
        membership_index=5, membership_bytes=len(_MEMBERSHIP), membership=_MEMBERSHIP),
    ("Snapshot block",): of_tuple(
        lambda data: list(_snapshot_file(data).pieces()),
        lambda piece: snapshot.encode_block(piece, len(_SNAPSHOT_HEADER), _HEADER_CHECKSUM),
        "data", ("length", "check"), _seal(4, 8, None, len(_SNAPSHOT_HEADER) ^ _HEADER_CHECKSUM),
        length=5, data=b"piece"),
    ("Snapshot end",): of_tuple(
        lambda data: (_snapshot_file(b"", data).meta.size,),
        lambda size: snapshot.encode_end(size - 16, crc32(_SNAPSHOT_HEADER)), "size",
        ("length", "checksum"), lambda data: _seal(12, 0, 12, crc32(_SNAPSHOT_HEADER))(data),
        length=0, size=len(_SNAPSHOT_HEADER) + 16),
    ("Healing marker",): of_tuple(
        _healing, lambda done, number, cluster_id, contacts: damage.encode_healing(
            damage.Healing(tuple(contacts), cluster_id, done, number)),
        "done number cluster_id contacts", ("magic", "format", "checksum"), _seal_end,
        magic=b"RNHEAL", format=2),
    ("Piece of the state", "Head of the state"): of_tuple(
        _state_head, _state_head_again,
        "applied_index digest time_ms state_version next_message_id next_wait",
        ("section", "item_count", "items", "layout_version"), section=1, item_count=1,
        layout_version=1, state_version=1),
    **ITEM_LAYOUTS,
    ("Total of a section",): Layout(
        lambda data: dict(zip(("section", "items"), state._TOTAL.unpack(data))),
        lambda data: state._end(dict([state._TOTAL.unpack(data)]))[5:], {}),
}
