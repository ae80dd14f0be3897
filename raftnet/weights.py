"""Weights: as how many bytes of a batch a request counts.

Rules: what enqueues counts its bytes. A few bytes may ask for much more work than that: to lease
ten thousand messages, or to end as many leases; an entry is applied without a pause, and so what it
asks for is bounded too. A guess suffices: no node has to agree with another. Of several commands in
a request the first speaks for all, because clients send many only of what is quick.

Nothing is refused here; what is malformed counts its bytes. What one request may ask for at most is
the machine's to say (machine/executor.py).
"""

from collections.abc import Callable

from raftnet.errors import MalformedError
from raftnet.wire import commands, queuecommands, transactions
from raftnet.wire.commands import Operation
from raftnet.wire.requests import REQUEST_HEAD_BYTES, decode_request_head

_LENGTH_BYTES = 4
_OPERATION_AT = REQUEST_HEAD_BYTES + _LENGTH_BYTES      # of the first command
# Bytes of an enqueue that take as long, by measurement: 100 bytes are some four microseconds.
_TAKEN, _LENT, _MOVED = 25, 120, 100        # a message
_ACKED, _GIVEN_BACK = 50, 100               # a receipt
_RECEIPT_BYTES = 16


def weight(body: bytes, ready: Callable[[bytes], int]) -> int:
    """Of a REQUEST's body, in bytes: at least its own. `ready` tells how many messages a queue has
    about now."""
    if len(body) <= _OPERATION_AT or body[_OPERATION_AT] not in _WORK:
        return len(body)
    *_, count = decode_request_head(body)
    length = int.from_bytes(body[REQUEST_HEAD_BYTES:_OPERATION_AT], "big")
    return len(body) + count * _work(body[_OPERATION_AT:_OPERATION_AT + length], ready)


def _work(command: bytes, ready: Callable[[bytes], int]) -> int:
    """What a command, without its length, counts beside its bytes."""
    work = _WORK.get(command[0]) if command else None
    if work is None:
        return 0
    try:
        return work(command, ready)
    except MalformedError:
        return 0


def _dequeued(command: bytes, ready: Callable[[bytes], int]) -> int:
    name, count, _ = commands.decode_dequeue(command)
    return _TAKEN * min(count, ready(name))


def _leased(command: bytes, ready: Callable[[bytes], int]) -> int:
    name, count, *_ = queuecommands.decode_lease(command)
    return _LENT * min(count, ready(name))


def _acknowledged(command: bytes, _) -> int:
    return len(command) // _RECEIPT_BYTES * _ACKED


def _returned(command: bytes, _) -> int:
    return len(command) // _RECEIPT_BYTES * _GIVEN_BACK


def _purged(command: bytes, ready: Callable[[bytes], int]) -> int:
    name, limit = queuecommands.decode_purge(command)
    return _MOVED * min(limit, ready(name))


def _redriven(command: bytes, ready: Callable[[bytes], int]) -> int:
    name, _, limit = queuecommands.decode_redrive(command)
    return _MOVED * min(limit, ready(name))


def _executed(command: bytes, ready: Callable[[bytes], int]) -> int:
    return sum([_work(part, ready) for part in commands.decode_execute(command)])


def _transacted(command: bytes, ready: Callable[[bytes], int]) -> int:
    return sum([_work(part, ready) for part in transactions.decode_transact(command)[1]])


_WORK: dict[int, Callable[[bytes, Callable[[bytes], int]], int]] = {
    int(Operation.DEQUEUE): _dequeued, int(Operation.LEASE): _leased,
    int(Operation.ACK): _acknowledged, int(Operation.NACK): _returned,
    int(Operation.EXTEND): _acknowledged, int(Operation.PURGE): _purged,
    int(Operation.REDRIVE): _redriven, int(Operation.EXECUTE): _executed,
    int(Operation.TRANSACT): _transacted}
