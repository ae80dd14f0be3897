"""EXECUTE and TRANSACT: lists of commands of which all are performed, in one entry, or none.

Rules: each command of a list is decoded and checked before any is performed. Performing notes in
the executor's journal how to take back each change, and the journal is walked backwards when a
command ends with a status that undoes the list: then queues, leases, keys and counters are as they
were. What the list used of the request's room stays used. The end of a list's room has its own
status, and so has a limit; for all else the answer is ABORTED, and says for which command.

Elsewhere: what conditions there are (conditions.py), layouts (wire/transactions.py).
"""

from raftnet.errors import MalformedError
from raftnet.machine.conditions import first_failing
from raftnet.wire import commands
from raftnet.wire.commands import Status
from raftnet.wire.transactions import (decode_transact, encode_aborted_result,
                                       encode_conflict_result)

OK, MALFORMED, UNKNOWN, LIMIT, REPLY_FULL, CONFLICT, ABORTED = map(int, (
    Status.OK, Status.MALFORMED, Status.UNKNOWN, Status.LIMIT, Status.REPLY_FULL, Status.CONFLICT,
    Status.ABORTED))
_UNDOING = frozenset(map(int, (
    Status.MALFORMED, Status.UNKNOWN, Status.LIMIT, Status.REPLY_FULL, Status.STALE, Status.FULL,
    Status.CONFLICT, Status.IN_USE)))
_PLAIN = (MALFORMED, UNKNOWN, LIMIT, REPLY_FULL)    # answered as they are, without the position
_HEAD_BYTES = 4             # of the result: a count, or the position of a condition

Result = tuple[int, bytes]


def execute(executor, command: bytes) -> Result:
    """An EXECUTE."""
    try:
        operations = commands.decode_execute(command)
    except MalformedError:
        return MALFORMED, b""
    return _perform(executor, [], operations)


def transact(executor, command: bytes) -> Result:
    """A TRANSACT: as EXECUTE, where all of its conditions hold."""
    try:
        conditions, operations = decode_transact(command)
    except MalformedError:
        return MALFORMED, b""
    if len(conditions) > executor.config.conditions_max:
        return executor.text(LIMIT, b"conditions_max")
    return _perform(executor, conditions, operations)


def _perform(executor, conditions: list, operations: list[bytes]) -> Result:
    if len(operations) > executor.config.execute_operations_max:
        return executor.text(LIMIT, b"execute_operations_max")
    status, actions = executor.prepare_all(operations)
    if status != OK:
        return executor.text(status, actions)
    if executor.room < _HEAD_BYTES:
        return REPLY_FULL, b""
    executor.room -= _HEAD_BYTES
    failing = first_failing(executor, conditions)
    if failing is not None:
        return CONFLICT, encode_conflict_result(failing)
    leases = executor.leases
    counters = executor.next_message_id, leases.next_delivery
    executor.journal = []
    failure, results = _perform_all(actions)
    journal, executor.journal = executor.journal, None
    if failure is None:
        return OK, commands.encode_execute_result(results)
    for function, *arguments in reversed(journal):
        function(*arguments)
    executor.next_message_id, leases.next_delivery = counters
    return failure


def _perform_all(actions: list[tuple]) -> tuple[Result | None, list[Result]]:
    """(what the list ends with as soon as one command undoes it, results so far)."""
    results: list[Result] = []
    for position, (function, name, argument) in enumerate(actions):
        result = function(name, argument)
        if result[0] in _UNDOING:
            if result[0] in _PLAIN:
                return result, results
            return (ABORTED, encode_aborted_result(position, *result)), results
        results.append(result)
    return None, results
