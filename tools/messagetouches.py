"""What the requests of an entry did to one message, from their results.

Rules: only results are believed, never a request alone; one that is repeated for a retry is given
here again, and who asks knows what is old. An operation that does something else with a message
needs its case in `_TOUCHES`.

Elsewhere: the message's whole life (messagelife.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

from raftnet.errors import MalformedError
from raftnet.machine.machine import Applied
from raftnet.raft.entry import Entry
from raftnet.wire import commands, queuecommands, queueresults, requests, transactions
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queueresults import Outcome
from raftnet.wire.requests import NO_SESSION, REQUEST_HEAD_BYTES

CAME, TAKEN, LEASED, ACKED, NACKED, EXTENDED = (
    "came", "taken", "leased", "acked", "nacked", "extended")
# Commands that may have had to do with it: the result does not tell which messages these were.
PURGED, REDRIVEN = "purged", "redriven"


class Touch(NamedTuple):
    """A command that had to do with the message."""

    event: str
    queue: bytes = b""          # empty where it is not told
    message: bytes = b""        # its bytes, of CAME, TAKEN and LEASED
    place: str = ""             # `index.offset` in the log; the index alone where a wait ended
    who: str = ""               # the request
    delivery: int = 0           # of LEASED, ACKED, NACKED and EXTENDED
    deliveries: int = 0         # of LEASED
    span_ms: int | None = 0     # lease, delay of a message that came or of a nack (None: back-off)
    text: bytes = b""           # consumer of LEASED, reason of NACKED
    dead: bool = False          # NACKED at the delivery limit
    priority: int = 0           # of CAME
    ttl_ms: int = 0             # of CAME


def touches(entry: Entry, applied: Applied, message_id: int) -> list[Touch]:
    """What came of the entry for this message, in the order in which it was applied."""
    found = list(_of_requests(entry, applied, message_id))
    for touch in _of_completions(entry, applied, message_id):
        # Deliveries are numbered in their order; what is taken for good comes last.
        at = len(found)
        if touch.event == LEASED:
            at = min((at for at, other in enumerate(found) if other.delivery >= touch.delivery),
                     default=at)
        found.insert(at, touch)
    return found


def _of_requests(entry: Entry, applied: Applied, message_id: int) -> Iterator[Touch]:
    offset = 0                          # of the command in the entry, as `decode log` counts
    bodies = commands.decode_batch(entry.payload) if applied.replies else []
    for body, reply in zip(bodies, applied.replies):
        try:
            pieces = commands.split_commands(body, REQUEST_HEAD_BYTES)
        except MalformedError:
            offset += 1                 # one line of text
            continue
        if reply is not None and pieces:        # else the head may be missing too
            session, first, _, _ = requests.decode_request_head(body)
            for place, result in enumerate(_results(pieces, reply)):
                for touch in _of_command(pieces[place], *result, message_id):
                    yield touch._replace(place=f"{entry.index}.{offset + place}",
                                         who=_request(session, first + place))
        offset += len(pieces)


def _of_completions(entry: Entry, applied: Applied, message_id: int) -> Iterator[Touch]:
    for session, first, reply in applied.completions:
        ((status, payload),) = requests.decode_reply(reply).results
        if status != Status.OK:
            continue
        who = f"{_request(session, first)}, which waited"
        for touch in _of_wait(payload, message_id):
            yield touch._replace(place=str(entry.index), who=who)


def _of_wait(payload: bytes, message_id: int) -> list[Touch]:
    """Of a lease or a dequeue that waited: the layout tells which it was."""
    for decode in (_of_lease_result, _of_dequeue_result):
        try:
            return list(decode(payload, message_id, b""))
        except MalformedError:
            pass        # then it is the other one
    return []


def _request(session: bytes, sequence: int) -> str:
    return "request without a session" if session == NO_SESSION else (
        f"request {session.hex()}:{sequence}")


def _results(pieces: list[bytes], reply: bytes) -> list[tuple[int, bytes]]:
    """(status, payload) of each command of a request; none where it was refused."""
    decoded = requests.decode_reply(reply)
    if decoded.first_message_id is None:
        return decoded.results or []
    results, next_id = [], decoded.first_message_id
    for piece in pieces:
        results.append((Status.OK, commands.encode_enqueue_result(next_id)))
        next_id += len(commands.decode_enqueue(piece)[1])
    return results


# --- a command


def _of_command(piece: bytes, status: int, payload: bytes, message_id: int) -> Iterator[Touch]:
    """For each time that the command did something with the message."""
    operation = piece[0] if piece and status == Status.OK else 0
    found = _TOUCHES.get(operation)
    if found is not None:
        yield from found(piece, payload, message_id)


def _of_enqueue(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    queue, messages = commands.decode_enqueue(piece)
    place = message_id - commands.decode_enqueue_result(payload)
    if 0 <= place < len(messages):
        yield Touch(CAME, queue, messages[place])


def _of_enqueue_with(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    queue, priority, delay_ms, ttl_ms, _, messages = queuecommands.decode_enqueue_with(piece)
    for (number, duplicate), message in zip(
            queueresults.decode_enqueue_with_result(payload), messages):
        if number == message_id and not duplicate:
            yield Touch(CAME, queue, message, span_ms=delay_ms, priority=priority, ttl_ms=ttl_ms)


def _of_dequeue_result(payload: bytes, message_id: int, queue: bytes) -> Iterator[Touch]:
    for number, message in commands.decode_messages(payload):
        if number == message_id:
            yield Touch(TAKEN, queue, message)


def _of_dequeue(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    yield from _of_dequeue_result(payload, message_id, commands.decode_dequeue(piece)[0])


def _of_lease_result(payload: bytes, message_id: int, queue: bytes) -> Iterator[Touch]:
    for leased in queueresults.decode_lease_result(payload):
        if leased.id == message_id:
            yield Touch(LEASED, queue, leased.message, delivery=leased.delivery,
                        deliveries=leased.deliveries, span_ms=None)


def _of_lease(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    queue, _, _, lease_ms, consumer = queuecommands.decode_lease(piece)
    for touch in _of_lease_result(payload, message_id, queue):
        yield touch._replace(span_ms=lease_ms, text=consumer)


def _of_receipts(touch: Touch, receipts: list[tuple[int, int]], payload: bytes,
                 message_id: int) -> Iterator[Touch]:
    for (number, delivery), outcome in zip(receipts,
                                           queueresults.decode_outcomes_result(payload)):
        if number == message_id and outcome != Outcome.STALE:
            yield touch._replace(delivery=delivery, dead=outcome == Outcome.DEAD_LETTERED)


def _of_ack(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    yield from _of_receipts(Touch(ACKED), queuecommands.decode_ack(piece), payload, message_id)


def _of_nack(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    delay_ms, reason, receipts = queuecommands.decode_nack(piece)
    yield from _of_receipts(Touch(NACKED, span_ms=delay_ms, text=reason), receipts, payload,
                            message_id)


def _of_extend(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    lease_ms, receipts = queuecommands.decode_extend(piece)
    yield from _of_receipts(Touch(EXTENDED, span_ms=lease_ms), receipts, payload, message_id)


def _of_purge(piece: bytes, payload: bytes, _: int) -> Iterator[Touch]:
    if queueresults.decode_purge_result(payload)[0]:
        yield Touch(PURGED, queuecommands.decode_purge(piece)[0])


def _of_redrive(piece: bytes, payload: bytes, _: int) -> Iterator[Touch]:
    if queueresults.decode_redrive_result(payload)[0]:
        yield Touch(REDRIVEN, queuecommands.decode_redrive(piece)[0])


def _of_list(inner: list[bytes], payload: bytes, message_id: int) -> Iterator[Touch]:
    for command, result in zip(inner, commands.decode_execute_result(payload)):
        yield from _of_command(command, *result, message_id)    # no list among them


def _of_execute(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    yield from _of_list(commands.decode_execute(piece), payload, message_id)


def _of_transact(piece: bytes, payload: bytes, message_id: int) -> Iterator[Touch]:
    yield from _of_list(transactions.decode_transact(piece)[1], payload, message_id)


_TOUCHES = {
    Operation.ENQUEUE: _of_enqueue, Operation.ENQUEUE_WITH: _of_enqueue_with,
    Operation.DEQUEUE: _of_dequeue, Operation.LEASE: _of_lease, Operation.ACK: _of_ack,
    Operation.NACK: _of_nack, Operation.EXTEND: _of_extend, Operation.PURGE: _of_purge,
    Operation.REDRIVE: _of_redrive, Operation.EXECUTE: _of_execute,
    Operation.TRANSACT: _of_transact}
