"""Python values and the arguments of commands, and what results mean.

Texts are UTF-8 both ways, and what is no UTF-8 comes through all the same (surrogateescape). Times
are given in seconds, fractions included, and travel as milliseconds. Lists of operations for
`execute`: transactions.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import ErrorCode, MalformedError, RefusedError, StateRefusedError
from raftnet.wire import commands, kvcommands, queueresults, requests, transactions
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_status
from raftnet.wire.queueresults import Outcome

_LIMITS = WireConfig()
_MACHINE = MachineConfig()
COUNT_MAX = 0xFFFFFFFF
U64_MAX = 0xFFFF_FFFF_FFFF_FFFF
_CUT = b"..."
_SECONDS_MAX = 1e12             # the machine's own limits are far below

_STATUS_MEANING = {
    Status.MALFORMED: (ErrorCode.BAD_REQUEST, "the node could not read the command"),
    Status.UNKNOWN: (ErrorCode.UNKNOWN_KIND, "the node does not know that command, or not there"),
    Status.LIMIT: (ErrorCode.TOO_LARGE, "over a limit"),
    Status.REPLY_FULL: (ErrorCode.TOO_LARGE, "the result is too large: ask for less at once"),
}

STALE_MEANING = "that lease has ended, and the message was given back or acknowledged meanwhile"
# What the limits of protocol.md are to people: how much may be, and what to do.
LIMIT_MEANING = {
    "delay_ms_max": f"a delay or back-off is at most {_MACHINE.delay_ms_max // 1000} s: give less",
    "lease_ms_max": f"a lease lasts 0.001 to {_MACHINE.lease_ms_max // 1000} s: give less, and "
                    "extend it before it ends",
    "ttl_ms_max": "a time to live or a window for ids is at most "
                  f"{_MACHINE.ttl_ms_max // 1000} s: give less",
    "wait_ms_max": f"one wait is at most {_MACHINE.wait_ms_max // 1000} s: give less, and ask "
                   "again",
    "priorities": f"a priority is a number from 0 to {_MACHINE.priorities - 1}",
    "message_bytes_max": f"a message or value has at most {_LIMITS.message_bytes_max} bytes",
    "dequeue_count_max": f"1 to {_MACHINE.dequeue_count_max} messages at once: ask for the rest "
                         "after these",
    "shown_count_max": f"1 to {_MACHINE.shown_count_max} are shown at once: ask for less",
    "list_count_max": f"1 to {_MACHINE.list_count_max} keys at once: ask for the rest after these",
    "receipts_per_command_max": f"at most {_MACHINE.receipts_per_command_max} receipts at once: "
                                "give the rest after these",
    "purge_count_max": f"1 to {_MACHINE.purge_count_max} messages are purged at once: purge again "
                       "while some are left",
    "redrive_count_max": f"1 to {_MACHINE.redrive_count_max} messages are sent back at once: "
                         "redrive again while some are left",
    "execute_operations_max": f"a list has at most {_MACHINE.execute_operations_max} operations: "
                              "make several of it",
    "conditions_max": f"a list has at most {_MACHINE.conditions_max} conditions",
    "waiters_max": f"{_MACHINE.waiters_max} dequeues and leases wait already, as many as may: "
                   "ask without a wait, or later",
    "leases_max": f"{_MACHINE.leases_max} leases are under way, as many as may: acknowledge some, "
                  "or wait until some end",
    "dedup_ids_max": f"{_MACHINE.dedup_ids_max} deduplication ids are remembered, as many as may: "
                     "wait until some windows are over, or have shorter ones (configure)",
    "settings_max": f"{_MACHINE.settings_max} queues are configured, as many as may: delete some",
    "keys_max": f"{_MACHINE.keys_max} keys are there, as many as may: delete some",
}


@dataclass(slots=True)
class Message:
    """One message of a queue."""

    id: int
    data: bytes

    @property
    def text(self) -> str:
        """The message as UTF-8; bytes that are none become lone surrogates (surrogateescape)."""
        return self.data.decode("utf-8", "surrogateescape")


class QueueSize(NamedTuple):
    """How much waits in a queue."""

    messages: int
    bytes: int


def queue_name(name: str) -> bytes:
    """A queue's name as bytes, 1 to 255; raises MalformedError."""
    if not isinstance(name, str):
        raise MalformedError(f"a queue's name is a text, not {name!r}")
    data = to_bytes(name)
    if not 1 <= len(data) <= _LIMITS.queue_name_bytes_max:
        raise MalformedError(
            f"a queue's name has 1 to {_LIMITS.queue_name_bytes_max} bytes, not {len(data)}")
    return data


def to_bytes(text: str) -> bytes:
    """UTF-8; what surrogateescape made of other bytes becomes those bytes again.

    Raises MalformedError for other lone surrogates, which stand for no bytes.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise MalformedError(f"no text: {error}") from error


def message_data(message: str | bytes) -> bytes:
    """A message as bytes, at most 1 MiB; raises RefusedError (TOO_LARGE) or MalformedError."""
    if isinstance(message, str):
        message = to_bytes(message)
    elif not isinstance(message, (bytes, bytearray, memoryview)):
        raise MalformedError(f"a message is str or bytes, not {type(message).__name__}")
    if len(message) > _LIMITS.message_bytes_max:
        raise RefusedError(ErrorCode.TOO_LARGE, f"a message of {len(message)} bytes: "
                           f"at most {_LIMITS.message_bytes_max} are allowed")
    return bytes(message)


def key_name(key: str | bytes) -> bytes:
    """A key as bytes, 1 to 255; raises MalformedError."""
    if not isinstance(key, (str, bytes)):
        raise MalformedError(f"a key is a text, not {key!r}")
    data = key if isinstance(key, bytes) else to_bytes(key)
    if not 1 <= len(data) <= _LIMITS.queue_name_bytes_max:
        raise MalformedError(f"a key has 1 to {_LIMITS.queue_name_bytes_max} bytes, not "
                             f"{len(data)}")
    return data


def short_text(text: str | bytes, what: str) -> bytes:
    """A consumer, a reason, a deduplication id or a prefix as bytes, 0 to 255; raises
    MalformedError."""
    data = text if isinstance(text, bytes) else to_bytes(text) if isinstance(text, str) else None
    if data is None or len(data) > _LIMITS.queue_name_bytes_max:
        raise MalformedError(f"{what}: a text of at most {_LIMITS.queue_name_bytes_max} bytes is "
                             "needed")
    return data


def reason_text(text: str | bytes) -> bytes:
    """The reason of a nack as bytes; what is longer than 255 is cut, between two characters, and
    ends in dots, as it is written for people. Raises MalformedError for what is no text."""
    if not isinstance(text, (str, bytes)):
        raise MalformedError(f"a reason is a text, not {text!r}")
    data = text if isinstance(text, bytes) else to_bytes(text)
    if len(data) <= _LIMITS.queue_name_bytes_max:
        return data
    end = _LIMITS.queue_name_bytes_max - len(_CUT)
    for at in range(end, end - 4, -1):
        if data[at] & 0xC0 != 0x80:         # the first byte of a character, or no UTF-8
            end = at
            break
    return data[:end] + _CUT


def milliseconds(seconds: float, what: str) -> int:
    """Seconds as whole milliseconds, at least 1 where there is anything; raises MalformedError."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or not 0 <= seconds <= _SECONDS_MAX:
        raise MalformedError(f"{what}: a number of seconds from 0 on is needed, not {seconds!r}")
    return max(round(seconds * 1000), 1) if seconds else 0


def bounded_milliseconds(seconds: float, what: str, limit: str) -> int:
    """`milliseconds`, within the limit of that name in LIMIT_MEANING; raises MalformedError."""
    found = milliseconds(seconds, what)
    # every delay and time to live may be 0, a lease not
    if found > getattr(_MACHINE, limit) or not found and limit == "lease_ms_max":
        raise MalformedError(f"{what} {seconds:.15g}: {LIMIT_MEANING[limit]}")
    return found


def check_count(count: int) -> int:
    """A number of messages asked for, at least 1; raises MalformedError."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= COUNT_MAX:
        raise MalformedError(f"a count is a whole number from 1 on, not {count!r}")
    return count


def bounded_count(count: int, limit: str) -> int:
    """`check_count`, within the limit of that name in LIMIT_MEANING; raises MalformedError."""
    if check_count(count) > getattr(_MACHINE, limit):
        raise MalformedError(f"{count}: {LIMIT_MEANING[limit]}")
    return count


def check_receipt_count(count: int) -> None:
    """Raises MalformedError for more receipts than one command may have."""
    if count > _MACHINE.receipts_per_command_max:
        raise MalformedError(f"{count} receipts: {LIMIT_MEANING['receipts_per_command_max']}")


def check_request_bytes(command_bytes: int) -> None:
    """Raises RefusedError (TOO_LARGE) for a command that does not fit a request."""
    bytes_max = _LIMITS.request_bytes_max - requests.REQUEST_HEAD_BYTES
    if command_bytes > bytes_max:
        raise RefusedError(ErrorCode.TOO_LARGE, f"{command_bytes} bytes at once: at most "
                           f"{bytes_max} are allowed")


# --- results


def check_status(status: int, payload: bytes, operation: int | None = None) -> None:
    """Raises RefusedError where a command ended in neither OK, EMPTY nor CANCELLED; that is a
    StateRefusedError where what the queues or keys hold forbids it."""
    if status in (Status.OK, Status.EMPTY, Status.CANCELLED):
        return
    if status in _STATE_REFUSALS:
        raise _state_refusal(status, payload, operation)
    code, meaning = _STATUS_MEANING.get(status, (ErrorCode.BAD_REQUEST, "refused"))
    if status == Status.REPLY_FULL and operation in _LISTS:
        meaning = _LIST_TOO_LARGE
    detail = payload.decode("utf-8", "backslashreplace") if payload else meaning
    if status == Status.LIMIT:
        detail = _limit_text(detail)
    raise RefusedError(code, f"{describe_status(status)}: {detail}")


def _limit_text(detail: str) -> str:
    """In words, with the name of the limit behind them, as it stands in protocol.md; what a newer
    node says comes as it is."""
    name = detail.rpartition(" ")[2]
    return f"{LIMIT_MEANING[name]} ({name})" if name in LIMIT_MEANING else detail


_STATE_REFUSALS = (Status.STALE, Status.FULL, Status.CONFLICT, Status.IN_USE, Status.ABORTED)
_LISTS = (Operation.EXECUTE, Operation.TRANSACT)
_MAXIMUM_OPTIONS = {"messages_max": "--max-messages", "bytes_max": "--max-bytes"}
_LIST_TOO_LARGE = (
    f"nothing of the list was done: it would remove, lease or send to the dead letters more than "
    f"{_MACHINE.purge_count_max} messages in all (what one purge removes counts up to its "
    f'"limit"), or its results are larger than {_LIMITS.result_bytes_max} bytes: give smaller '
    'limits and counts, or make several lists of it')


def _state_refusal(status: int, payload: bytes, operation: int | None) -> StateRefusedError:
    name = describe_status(status)
    if status == Status.CONFLICT and operation in _LISTS:
        position = transactions.decode_conflict_result(payload)
        return StateRefusedError(status, f"{name}: condition {position + 1} does not hold: nothing "
                                 "was done", position=position)
    if status == Status.CONFLICT:
        version, value = kvcommands.decode_kv_conflict(payload)
        found = f"has version {version}" if version else "is absent"
        return StateRefusedError(status, f"{name}: the key {found}: nothing was done; get it and "
                                 "decide anew", version=version, value=value)
    if status == Status.ABORTED:
        position, inner_status, inner = transactions.decode_aborted_result(payload)
        cause = _state_refusal(inner_status, inner, None)
        return StateRefusedError(status, f"{name}: operation {position + 1}: {cause}; nothing of "
                                 "the list was done", position=position, version=cause.version,
                                 value=cause.value)
    if status == Status.STALE:
        return StateRefusedError(status, f"{name}: {_stale_text(payload)}")
    detail = f" ({payload.decode('utf-8', 'backslashreplace')})" if payload else ""
    if status == Status.FULL:
        return StateRefusedError(status, f"{name}: {_full_text(payload)}")
    if status == Status.IN_USE:
        return StateRefusedError(status, f"{name}: the queue holds messages, or somebody waits at "
                                 f"it{detail}: purge it, or wait for the leases to end")
    return StateRefusedError(status, f"{name}{detail}")     # of a newer node, inside an ABORTED


def _full_text(payload: bytes) -> str:
    """The node names the first maximum that is passed, which may not be the only one."""
    maximum = payload.decode("utf-8", "backslashreplace")
    option = _MAXIMUM_OPTIONS.get(maximum)
    which = f" ({maximum}, configure {option})" if option else f" ({maximum})" if maximum else ""
    return (f"the queue holds as much as it may{which}: nothing was added; take messages out, or "
            "raise its limits (configure); an enqueue that alone is more than --max-messages or "
            "--max-bytes never fits (describe shows both)")


def _stale_text(payload: bytes) -> str:
    """Which receipts; a payload that tells it is the outcomes of the command."""
    outcomes = queueresults.decode_outcomes_result(payload) if payload else []
    stale = [str(place) for place, outcome in enumerate(outcomes, 1) if outcome == Outcome.STALE]
    which = f"receipt {', '.join(stale[:10])} of {len(outcomes)}: " if len(outcomes) > 1 else ""
    return f"{which}{STALE_MEANING}"


def read_ids(payload: bytes, count: int) -> range:
    """The ids of `count` messages from an ENQUEUE's result; raises MalformedError."""
    first = commands.decode_enqueue_result(payload)
    return range(first, first + count)


def read_messages(status: int, payload: bytes) -> list[Message]:
    """The messages of a DEQUEUE's or PEEK's result, [] where there were none."""
    if status != Status.OK:
        return []
    return [Message(*pair) for pair in commands.decode_messages(payload)]
