"""How the program reads and writes the layouts of the commands that came with version 2 of the
replicated state, of queues and keys, and of their results. The others, and what a Layout is:
layouts.py, layoutkinds.py.
"""

from raftnet.wire import commands, kvcommands, queuecommands, queueresults, transactions
from tests.wire.document import DOCUMENT, fill
from tests.wire.layoutkinds import Layout, of_command, of_tuple, prefixed

TWO = [commands.encode_size(b"a"), commands.encode_close()]
LEASED, LEASED_VALUES = fill(DOCUMENT.layouts()["Leased message"], {"length": 2})
RECEIPT, RECEIPT_VALUES = fill(DOCUMENT.layouts()["Receipt"], {})
RECEIPTS = {"count": 1, "receipts": (RECEIPT, [tuple(RECEIPT_VALUES.values())])}
SETTING, _ = fill(DOCUMENT.layouts()["Setting"], {"setting": 1, "value": 0})
LIMIT_SETTING, _ = fill(DOCUMENT.layouts()["Setting"], {"setting": 2, "value": 7})
LEASE, LEASE_VALUES = fill(DOCUMENT.layouts()["Lease in a list"], {})
EVENT, EVENT_VALUES = fill(DOCUMENT.layouts()["Event"], {})
MESSAGE, MESSAGE_VALUES = fill(DOCUMENT.layouts()["Message in a list"], {
    "events": 1, "history": (EVENT, (tuple(EVENT_VALUES.values()),)), "length": 2,
    "message": b"mm"})
INSPECTED = tuple(value for name, value in MESSAGE_VALUES.items() if name not in (
    "events", "length"))
KEY, KEY_VALUES = fill(DOCUMENT.layouts()["Key in a list"], {"length": 2, "value": b"vv"})
CONDITION = kvcommands.Condition(kvcommands.ConditionKind.EQUALS, b"old")
SUBJECTS = [transactions.KeyCondition(b"k", CONDITION), transactions.QueueCondition(b"q", 1, 2),
            transactions.LeasedCondition(5, 7)]
SUBJECT_BYTES = transactions.encode_transact(SUBJECTS, [])[9:-4]


def _subject_again(data: bytes) -> bytes:
    (condition,), _ = transactions.decode_transact(b"\0" + bytes(3) + b"\1" + data + bytes(4))
    return transactions.encode_transact([condition], [])[9:-4]


def _description(data: bytes) -> tuple:
    found = queueresults.decode_describe_result(data)
    numbers = [value for setting, value in sorted(found.settings.items()) if setting != 1]
    return (*found[:-1], b"".join(value.to_bytes(8, "big") for value in numbers),
            found.settings[1])


def _list_of(decode, encode, names: str, piece: bytes, value: tuple, heading_of_list: str,
             **given) -> Layout:
    """Of a result that is some numbers, and a list with one item."""
    return of_tuple(decode, encode, names, ("count",), count=1,
                    **{heading_of_list: (piece, [value])}, **given)


def of_limited(decode, encode) -> Layout:
    """Of a command on a queue with a limit."""
    return of_command(decode, encode, "queue limit")


QUEUE_LAYOUTS = {
    ("ENQUEUE_WITH",): of_command(
        queuecommands.decode_enqueue_with,
        lambda queue, priority, delay_ms, ttl_ms, dedup_ids, messages:
        queuecommands.encode_enqueue_with(queue, messages, priority, delay_ms, ttl_ms, dedup_ids),
        "queue priority delay_ms ttl_ms dedup_ids messages", ("count", "lengths"), count=2,
        dedup_ids=[b"d", b""], lengths=[1, 2], messages=(b"abb", [b"a", b"bb"])),
    ("ENQUEUE_WITH result",): of_tuple(
        lambda data: zip(*queueresults.decode_enqueue_with_result(data)),
        queueresults.encode_enqueue_with_result, "ids duplicates", ("count",), count=2,
        ids=([5, 6], (5, 6)), duplicates=([0, 1], (False, True))),
    ("LEASE",): of_command(
        queuecommands.decode_lease, lambda queue, count, wait_ms, lease_ms, consumer:
        queuecommands.encode_lease(queue, lease_ms, count, wait_ms, consumer),
        "queue count wait_ms lease_ms consumer"),
    ("LEASE result",): of_tuple(
        lambda data: (lambda found: ([one[:3] for one in found], [one[3] for one in found]))(
            queueresults.decode_lease_result(data)),
        lambda heads, messages: queueresults.encode_lease_result(
            [(*head, message) for head, message in zip(heads, messages)]),
        "leased messages", ("count",), count=1,
        leased=(LEASED, [tuple(LEASED_VALUES.values())[:3]]), messages=(b"mm", [b"mm"])),
    ("Leased message",): Layout(
        lambda data: dict(zip(("id", "delivery", "deliveries"), queueresults.decode_lease_result(
            b"\0\0\0\1" + data + b"mm")[0])),
        lambda data: queueresults.encode_lease_result(queueresults.decode_lease_result(
            b"\0\0\0\1" + data + b"mm"))[4:-2], {"length": 2}, ("length",)),
    ("ACK",): of_command(lambda data: (queuecommands.decode_ack(data),), queuecommands.encode_ack,
                         "receipts", ("count",), **RECEIPTS),
    ("Receipt",): of_tuple(
        lambda data: queuecommands.decode_ack(b"\0\0\0\0\1" + data)[0],
        lambda *receipt: queuecommands.encode_ack([receipt])[9:], "id delivery"),
    ("ACK, NACK and EXTEND result",): of_tuple(
        lambda data: (queueresults.decode_outcomes_result(data),),
        queueresults.encode_outcomes_result, "outcomes", ("count",), count=2, outcomes=[0, 2]),
    ("NACK",): of_command(
        queuecommands.decode_nack, lambda delay_ms, reason, receipts:
        queuecommands.encode_nack(receipts, delay_ms, reason), "delay_ms reason receipts",
        ("count",), **RECEIPTS),
    ("EXTEND",): of_command(
        queuecommands.decode_extend, lambda lease_ms, receipts:
        queuecommands.encode_extend(receipts, lease_ms), "lease_ms receipts", ("count",),
        **RECEIPTS),
    ("CONFIGURE",): of_command(
        lambda data: (lambda queue, settings: (queue, settings, settings[1]))(
            *queuecommands.decode_configure(data)),
        lambda queue, settings, _: queuecommands.encode_configure(queue, settings),
        "queue settings dead_letter", ("count",), count=2,
        settings=(LIMIT_SETTING + SETTING, {2: 7, 1: b"dl"}), dead_letter=(b"\2dl", b"dl")),
    ("Setting",): of_tuple(
        lambda data: next(iter(queuecommands.decode_configure(b"\0\1q\1" + data)[1].items())),
        lambda *pair: queuecommands.encode_configure(b"q", dict([pair]))[8:], "setting value",
        setting=2),
    ("DELETE_QUEUE",): of_command(queuecommands.decode_delete_queue,
                                  queuecommands.encode_delete_queue, "queue"),
    ("PURGE",): of_limited(queuecommands.decode_purge, queuecommands.encode_purge),
    ("PURGE and REDRIVE result",): of_tuple(
        queueresults.decode_moved_result, queueresults.encode_moved_result, "moved left"),
    ("REDRIVE",): of_command(queuecommands.decode_redrive, queuecommands.encode_redrive,
                             "queue to limit"),
    ("DESCRIBE",): of_command(queuecommands.decode_describe, queuecommands.encode_describe,
                              "queue"),
    ("DESCRIBE result",): Layout(
        lambda data: dict(zip(("configured", "ready", "ready_bytes", "delayed", "leased",
                               "waiting", "held_bytes", "dedup_ids", "settings", "dead_letter"),
                              _description(data), strict=True)),
        lambda data: queueresults.encode_describe_result(
            queueresults.decode_describe_result(data)),
        {"configured": True, "settings": bytes(range(64))}),
    ("LEASES",): of_limited(queuecommands.decode_leases, queuecommands.encode_leases),
    ("LEASES result",): _list_of(
        queueresults.decode_leases_result, queueresults.encode_leases_result, "now_ms leases",
        LEASE, tuple(LEASE_VALUES.values()), "leases"),
    ("Lease in a list",): of_tuple(
        lambda data: queueresults.decode_leases_result(bytes(11) + b"\1" + data)[1][0],
        lambda *lease: queueresults.encode_leases_result(0, [lease])[12:],
        "id delivery deadline_ms taken_ms deliveries consumer"),
    ("INSPECT",): of_limited(queuecommands.decode_inspect, queuecommands.encode_inspect),
    ("INSPECT result",): _list_of(
        queueresults.decode_inspect_result, queueresults.encode_inspect_result,
        "now_ms messages", MESSAGE, INSPECTED, "messages"),
    ("Message in a list",): of_tuple(
        lambda data: queueresults.decode_inspect_result(bytes(11) + b"\1" + data)[1][0],
        lambda *message: queueresults.encode_inspect_result(0, [message])[12:],
        "id priority deliveries expires_ms origin history message", ("events", "length"),
        events=1, history=(EVENT, (tuple(EVENT_VALUES.values()),)), length=2, message=b"mm"),
    ("Event",): of_tuple(
        lambda data: queueresults.take_history(b"\1" + data, 0)[0][0],
        lambda *event: queueresults.encode_history((event,))[1:],
        "taken_ms ended_ms index deliveries reason consumer text"),
}
KEY_LAYOUTS = {
    ("KV_PUT and KV_DELETE conflict",): of_tuple(
        kvcommands.decode_kv_conflict, kvcommands.encode_kv_conflict, "version value",
        value=b"abc"),
    ("KV_GET",): of_command(kvcommands.decode_kv_get, kvcommands.encode_kv_get, "key"),
    ("KV_GET result",): of_tuple(
        kvcommands.decode_kv_get_result, kvcommands.encode_kv_get_result,
        "version expires_ms value", value=b"abc"),
    ("KV_PUT",): of_command(
        kvcommands.decode_kv_put, lambda key, ttl_ms, condition, value:
        kvcommands.encode_kv_put(key, value, ttl_ms, condition), "key ttl_ms condition value",
        ("length",), condition=(kvcommands.encode_condition(CONDITION), CONDITION), length=3,
        value=b"abc"),
    ("KV_PUT and KV_DELETE result",): of_tuple(
        lambda data: (kvcommands.decode_version_result(data),), kvcommands.encode_version_result,
        "version"),
    ("KV_DELETE",): of_command(
        kvcommands.decode_kv_delete, kvcommands.encode_kv_delete, "key condition",
        condition=(kvcommands.encode_condition(CONDITION), CONDITION)),
    ("KV_LIST",): of_command(kvcommands.decode_kv_list, kvcommands.encode_kv_list,
                             "prefix after limit"),
    ("KV_LIST result",): _list_of(
        kvcommands.decode_kv_list_result, kvcommands.encode_kv_list_result, "more keys", KEY,
        (KEY_VALUES["key"], KEY_VALUES["version"], b"vv"), "keys", more=True),
    ("Key in a list",): of_tuple(
        lambda data: kvcommands.decode_kv_list_result(b"\0\0\0\0\1" + data)[1][0],
        lambda *item: kvcommands.encode_kv_list_result(False, [item])[5:], "key version value",
        ("length",), length=2, value=b"vv"),
    ("TRANSACT",): of_command(
        lambda data: (lambda conditions, found: (conditions, [prefixed([c]) for c in found]))(
            *transactions.decode_transact(data)),
        transactions.encode_transact, "conditions commands", ("condition_count", "count"),
        condition_count=3, conditions=(SUBJECT_BYTES, SUBJECTS), count=2,
        commands=(b"".join(TWO), TWO)),
    ("Condition of a TRANSACT",): Layout(
        lambda data: {"subject": _subject_again(data)[4], "arguments": _subject_again(data)[5:]},
        _subject_again, {"length": 17, "subject": 3, "arguments": bytes(range(16))}, ("length",)),
    ("TRANSACT conflict",): of_tuple(
        lambda data: (transactions.decode_conflict_result(data),),
        transactions.encode_conflict_result, "position"),
    ("ABORTED",): of_tuple(transactions.decode_aborted_result,
                           transactions.encode_aborted_result, "position status payload",
                           payload=b"abc"),
}
