"""Lists of operations and conditions for `execute`, as they stand in JSON: to commands and back.

An operation is a dict with one verb; texts are strings, times are seconds:

    {"enqueue": QUEUE, "messages": [TEXT, ...]}     more: "priority", "delay", "ttl",
                                                    "dedup": [ID or "", ...], one a message
    {"dequeue": QUEUE}                              more: "count"
    {"lease": QUEUE, "seconds": S}                  more: "count", "consumer"
    {"ack": RECEIPT}                                a receipt ("ID:DELIVERY"), or a list of them
    {"nack": RECEIPT}                               more: "delay" (S or "backoff"), "reason"
    {"extend": RECEIPT, "seconds": S}
    {"put": KEY, "value": TEXT}                     more: "ttl"
    {"get": KEY}  {"delete": KEY}
    {"peek": QUEUE}  {"size": QUEUE}  {"purge": QUEUE}      more: "count" (peek), "limit" (purge)

A condition is one of:

    {"kv": KEY, "equals": TEXT}  {"kv": KEY, "absent": true}  {"kv": KEY, "present": true}
    {"kv": KEY, "version": N}    (0: it is absent)
    {"queue": QUEUE, "at_least": N, "at_most": N}    {"leased": RECEIPT}

Errors name the place, counted from 1. A list that is read from JSON is to be read with json_object,
so that a key that stands in an object twice is an error too.
"""

from collections.abc import Callable

from raftnet.client.operations import (U64_MAX, QueueSize, bounded_count, bounded_milliseconds,
                                       check_receipt_count, check_request_bytes, check_status,
                                       key_name, message_data, queue_name, read_ids, read_messages,
                                       reason_text, short_text)
from raftnet.client.receipts import leased_message, parse_receipt, parse_receipts
from raftnet.config import MachineConfig
from raftnet.errors import MalformedError, RefusedError
from raftnet.wire import commands, kvcommands, queuecommands, queueresults, transactions
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.queueresults import Outcome
from raftnet.wire.transactions import (KeyCondition, LeasedCondition, QueueCondition,
                                       TransactCondition)

ABSENT = Condition(ConditionKind.ABSENT)
Reader = Callable[[int, bytes], object]     # (status, payload) -> the operation's outcome


def encode_list(operations: list[dict],
                when: list[dict] | None = None) -> tuple[bytes, list[Reader]]:
    """(command, what decode_outcomes needs): an EXECUTE, or with `when` a TRANSACT; raises
    MalformedError naming the place."""
    if not isinstance(operations, list) or not operations:
        raise MalformedError("execute takes a list with at least one operation")
    if when is not None and not isinstance(when, list):
        raise MalformedError('"when" is a list of conditions')
    conditions = [_placed("condition", place, _condition, condition)
                  for place, condition in enumerate(when or [], 1)]
    found = [_placed("operation", place, _operation, operation)
             for place, operation in enumerate(operations, 1)]
    pieces = [piece for piece, _ in found]
    command = (commands.encode_execute(pieces) if when is None
               else transactions.encode_transact(conditions, pieces))
    check_request_bytes(len(command))
    return command, [reader for _, reader in found]


class JsonObject(dict):
    """An object of a JSON document. `twice`: a key that stands in it more than once, or None; who
    takes the last one of them drops what the others ask for."""

    twice: str | None = None


def json_object(pairs: list[tuple[str, object]]) -> JsonObject:
    """What a list is read with: the object_pairs_hook of json.loads."""
    found = JsonObject(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        found.twice = next(name for name in names if names.count(name) > 1)
    return found


def _check_twice(value: dict) -> None:
    if isinstance(value, JsonObject) and value.twice is not None:
        raise MalformedError(f'"{value.twice}" is given twice in one object')


def split_document(document: object) -> tuple[list[dict], list[dict] | None]:
    """(operations, conditions or None) of a list, or of an object with "do" and perhaps "when";
    raises MalformedError."""
    if not isinstance(document, dict):
        return document, None       # encode_list says what is wrong with it
    _check_twice(document)
    strange = sorted(set(document) - {"when", "do"}, key=str)
    if strange or "do" not in document:
        raise MalformedError('a list is needed, or an object with "do" and perhaps "when"'
                             + (f", not {', '.join(map(repr, strange))}" if strange else ""))
    return document["do"], document.get("when", [])


def decode_outcomes(payload: bytes, readers: list[Reader]) -> list:
    """A value for each operation: see the functions below.

    Raises RefusedError for an operation that failed, MalformedError.
    """
    results = commands.decode_execute_result(payload)
    if len(results) != len(readers):
        raise MalformedError(f"{len(results)} results for {len(readers)} operations")
    outcomes = []
    for (status, result), reader in zip(results, readers):
        check_status(status, result)
        outcomes.append(reader(status, result))
    return outcomes


def _placed(noun: str, place: int, function, value: object):
    try:
        if not isinstance(value, dict):
            raise MalformedError(f"an object is needed, not {value!r}")
        _check_twice(value)
        return function(value)
    except MalformedError as error:
        raise MalformedError(f"{noun} {place}: {error}") from error
    except RefusedError as error:
        raise RefusedError(error.code, f"{noun} {place}: {error}") from error


# --- operations: each gives (command, how to read its result)


def _operation(operation: dict) -> tuple[bytes, Reader]:
    verbs = [key for key in operation if key in _VERBS]
    if len(verbs) != 1:
        raise MalformedError(f"exactly one of {', '.join(_VERBS)} is needed")
    verb = verbs[0]
    encode, optional, needed = _VERBS[verb]
    strange = set(operation) - {verb} - set(optional) - set(needed)
    if strange:
        raise MalformedError(f"{verb} takes no {', '.join(map(repr, sorted(strange, key=str)))}")
    for name in needed:
        if name not in operation:
            raise MalformedError(f'{verb} needs "{name}"')
    rest = {name: value for name, value in operation.items() if name != verb}
    return encode(operation[verb], **rest)


def _enqueue(queue, messages, priority=0, delay=0, ttl=0, dedup=None) -> tuple[bytes, Reader]:
    if not isinstance(messages, list) or not messages:
        raise MalformedError('"messages" is a list with at least one string')
    data = [message_data(message) for message in messages]
    if not priority and not delay and not ttl and dedup is None:
        return (commands.encode_enqueue(queue_name(queue), data),
                lambda _, result: list(read_ids(result, len(data))))
    return (queuecommands.encode_enqueue_with(
        queue_name(queue), data, check_priority(priority),
        bounded_milliseconds(delay, "delay", "delay_ms_max"),
        bounded_milliseconds(ttl, "ttl", "ttl_ms_max"), check_dedup_ids(dedup, len(data))),
        _read_enqueued)


def check_priority(priority: int) -> int:
    """A priority, from 0 on; raises MalformedError."""
    highest = MachineConfig().priorities - 1
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= highest:
        raise MalformedError(f"a priority is a number from 0 to {highest}, not {priority!r}")
    return priority


def check_dedup_ids(dedup: list | None, count: int) -> list[bytes] | None:
    """An id for each of `count` messages; raises MalformedError."""
    if dedup is None:
        return None
    if not isinstance(dedup, list) or len(dedup) != count:
        raise MalformedError('"dedup" is a list with an id for each message ("" for none)')
    return [short_text(one, "a deduplication id") for one in dedup]


class Enqueued(list):
    """The ids of messages; `duplicates` are the places, from 0, of those that were there before."""

    def __init__(self, found: list[tuple[int, bool]]):
        super().__init__(message_id for message_id, _ in found)
        self.duplicates = [place for place, (_, duplicate) in enumerate(found) if duplicate]


def _read_enqueued(_: int, result: bytes) -> Enqueued:
    return Enqueued(queueresults.decode_enqueue_with_result(result))


def _dequeue(queue, count=1) -> tuple[bytes, Reader]:
    return (commands.encode_dequeue(queue_name(queue), bounded_count(count, "dequeue_count_max")),
            read_messages)


def _peek(queue, count=1) -> tuple[bytes, Reader]:
    return (commands.encode_peek(queue_name(queue), bounded_count(count, "dequeue_count_max")),
            read_messages)


def _size(queue) -> tuple[bytes, Reader]:
    return (commands.encode_size(queue_name(queue)),
            lambda _, result: QueueSize(*commands.decode_size_result(result)))


def _lease(queue, seconds, count=1, consumer="") -> tuple[bytes, Reader]:
    return (queuecommands.encode_lease(
        queue_name(queue), bounded_milliseconds(seconds, "seconds", "lease_ms_max"),
        bounded_count(count, "dequeue_count_max"), 0, short_text(consumer, "consumer")),
        _read_leased)


def _read_leased(status: int, result: bytes) -> list:
    if status != Status.OK:
        return []
    return [leased_message(leased) for leased in queueresults.decode_lease_result(result)]


def _ack(receipts) -> tuple[bytes, Reader]:
    return queuecommands.encode_ack(_receipts(receipts)), _read_outcomes


def _nack(receipts, delay=0, reason="") -> tuple[bytes, Reader]:
    delay_ms = None if delay == "backoff" else bounded_milliseconds(delay, "delay", "delay_ms_max")
    return queuecommands.encode_nack(_receipts(receipts), delay_ms,
                                     reason_text(reason)), _read_outcomes


def _extend(receipts, seconds) -> tuple[bytes, Reader]:
    lease_ms = bounded_milliseconds(seconds, "seconds", "lease_ms_max")
    return queuecommands.encode_extend(_receipts(receipts), lease_ms), _read_outcomes


def _receipts(receipts) -> list[tuple[int, int]]:
    if not isinstance(receipts, (str, tuple, list)):
        raise MalformedError(f'a receipt "ID:DELIVERY", or a list of receipts, is needed, not '
                             f"{receipts!r}")
    found = parse_receipts(receipts)
    check_receipt_count(len(found))
    return found


def _read_outcomes(_: int, result: bytes) -> tuple[Outcome, ...]:
    return tuple(map(Outcome, queueresults.decode_outcomes_result(result)))


def _put(key, value, ttl=0) -> tuple[bytes, Reader]:
    ttl_ms = bounded_milliseconds(ttl, "ttl", "ttl_ms_max")
    return (kvcommands.encode_kv_put(key_name(key), message_data(value), ttl_ms),
            lambda _, result: kvcommands.decode_version_result(result))


def _get(key) -> tuple[bytes, Reader]:
    return (kvcommands.encode_kv_get(key_name(key)), lambda status, result:
            kvcommands.decode_kv_get_result(result) if status == Status.OK else None)


def _delete(key) -> tuple[bytes, Reader]:
    return (kvcommands.encode_kv_delete(key_name(key)), lambda status, result:
            kvcommands.decode_version_result(result) if status == Status.OK else None)


def _purge(queue, limit=None) -> tuple[bytes, Reader]:
    limit = MachineConfig().purge_count_max if limit is None else limit
    return (queuecommands.encode_purge(queue_name(queue), bounded_count(limit, "purge_count_max")),
            _read_purged)


class Purged(int):
    """How many messages were removed. `left`: how many are there that one purge did not reach."""

    def __new__(cls, removed: int, left: int = 0):
        made = super().__new__(cls, removed)
        made.left = left
        return made


def _read_purged(_: int, result: bytes) -> Purged:
    return Purged(*queueresults.decode_purge_result(result))


# verb -> what encodes it, what it may have beside it, what it must have
_VERBS = {
    "enqueue": (_enqueue, ("priority", "delay", "ttl", "dedup"), ("messages",)),
    "dequeue": (_dequeue, ("count",), ()),
    "lease": (_lease, ("count", "consumer"), ("seconds",)),
    "ack": (_ack, (), ()),
    "nack": (_nack, ("delay", "reason"), ()),
    "extend": (_extend, (), ("seconds",)),
    "put": (_put, ("ttl",), ("value",)),
    "get": (_get, (), ()),
    "delete": (_delete, (), ()),
    "peek": (_peek, ("count",), ()),
    "size": (_size, (), ()),
    "purge": (_purge, ("limit",), ()),
}


# --- conditions


def _condition(condition: dict) -> TransactCondition:
    rest = dict(condition)
    if "kv" in rest:
        return KeyCondition(key_name(rest.pop("kv")), _key_condition(rest))
    if "queue" in rest:
        return _queue_condition(queue_name(rest.pop("queue")), rest)
    if "leased" in rest:
        receipt = rest.pop("leased")
        _no_more(rest)
        return LeasedCondition(*parse_receipt(receipt))
    raise MalformedError("one of kv, queue, leased is needed")


def _key_condition(rest: dict) -> Condition:
    tests = [name for name in ("equals", "absent", "present", "version") if name in rest]
    if len(tests) != 1 or len(rest) != 1:
        raise MalformedError("kv needs exactly one of equals, absent, present, version beside it")
    (test,) = tests
    value = rest[test]
    if test == "equals":
        return Condition(ConditionKind.EQUALS, message_data(value))
    if test == "version":
        version = _number("version", value)     # no key has 0, which is shown where it is absent
        return Condition(ConditionKind.VERSION, version) if version else ABSENT
    if value is not True:
        raise MalformedError(f'"{test}" is true, or is not there')
    return ABSENT if test == "absent" else Condition(ConditionKind.PRESENT)


def _queue_condition(queue: bytes, rest: dict) -> QueueCondition:
    if not rest:
        raise MalformedError("queue needs at_least or at_most beside it")
    least = _number("at_least", rest.pop("at_least", 0))
    most = _number("at_most", rest.pop("at_most", U64_MAX))
    _no_more(rest)
    return QueueCondition(queue, least, most)


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= U64_MAX:
        raise MalformedError(f'"{name}" is a whole number, not {value!r}')
    return value


def _no_more(rest: dict) -> None:
    if rest:
        raise MalformedError(f"{', '.join(map(repr, sorted(rest, key=str)))} does not belong there")
