"""The commands that only look at a queue: DESCRIBE, LEASES, INSPECT.

Rules: as in executor.py. Nothing that is replicated changes; a list ends where the request's room
does. Elsewhere: layouts (wire/queuecommands.py, wire/queueresults.py).
"""

from collections.abc import Callable
from itertools import islice

from raftnet.machine.queue import message_of
from raftnet.machine.settings import defaults_of
from raftnet.wire import queuecommands, queueresults
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queueresults import Description

OK, EMPTY, LIMIT, REPLY_FULL = map(int, (
    Status.OK, Status.EMPTY, Status.LIMIT, Status.REPLY_FULL))
_LIMIT_TEXT = b"limit: 1 to shown_count_max"
_DESCRIPTION_BYTES = 122            # of DESCRIBE beside the dead-letter queue's name
_LIST_BYTES = 12                    # of LEASES and INSPECT: replicated time, count
_LEASE_BYTES = 37                   # of one of LEASES, beside the consumer
_MESSAGE_BYTES = 27                 # of one of INSPECT, beside message, origin and history
_EVENT_BYTES = 31                   # of one event of a history, beside consumer and text

Result = tuple[int, bytes]
Prepared = tuple[int, tuple | bytes]


class Inspection:
    """The handlers of an executor's commands that look at a queue, by operation."""

    __slots__ = ("handlers", "_executor", "_config")

    def __init__(self, executor):
        self._executor = executor
        self._config = executor.config
        self.handlers: dict[int, Callable[[bytes], Prepared]] = {
            int(Operation.DESCRIBE): self._prepare_describe,
            int(Operation.LEASES): self._prepare_leases,
            int(Operation.INSPECT): self._prepare_inspect,
        }

    def _prepare_describe(self, command: bytes) -> Prepared:
        return OK, (self._describe, queuecommands.decode_describe(command), None)

    def _prepare_leases(self, command: bytes) -> Prepared:
        return self._limited(self._leases, *queuecommands.decode_leases(command))

    def _prepare_inspect(self, command: bytes) -> Prepared:
        return self._limited(self._inspect, *queuecommands.decode_inspect(command))

    def _limited(self, function, name: bytes, limit: int) -> Prepared:
        if not 1 <= limit <= self._config.shown_count_max:
            return LIMIT, _LIMIT_TEXT
        return OK, (function, name, limit)

    def _describe(self, name: bytes, _: None) -> Result:
        executor = self._executor
        queue = executor.queues.by_name.get(name)
        settings = (queue and queue.settings) or defaults_of(name)
        size = _DESCRIPTION_BYTES + len(settings.dead_letter)
        if size > executor.room:
            return REPLY_FULL, b""
        executor.room -= size
        if queue is None:
            description = Description(False, 0, 0, 0, 0, 0, 0, 0, settings.by_number())
        else:
            description = Description(
                queue.settings is not None, queue.ready(), queue.size_bytes,
                len(queue.delayed or ()), len(queue.leased or ()), len(queue.waiters or ()),
                queue.size_bytes + queue.away_bytes, len(queue.dedup or ()), settings.by_number())
        return OK, queueresults.encode_describe_result(description)

    def _leases(self, name: bytes, limit: int) -> Result:
        executor = self._executor
        room = executor.room - _LIST_BYTES
        queue = executor.queues.by_name.get(name)
        if queue is None or not queue.leased:
            return EMPTY, b""
        found = []
        for lease in islice(queue.leases(executor.leases), limit):
            room -= _LEASE_BYTES + len(lease.consumer)
            if room < 0:
                break
            found.append((lease.message.id, lease.delivery, lease.deadline_ms, lease.taken_ms,
                          lease.message.deliveries, lease.consumer))
        if not found:
            return executor.no_room()
        payload = queueresults.encode_leases_result(executor.now_ms, found)
        executor.room -= len(payload)
        return OK, payload

    def _inspect(self, name: bytes, limit: int) -> Result:
        executor = self._executor
        room = executor.room - _LIST_BYTES
        queue = executor.queues.by_name.get(name)
        if queue is None or not queue.ready():
            return EMPTY, b""
        found = []
        for item in islice(queue.items(), limit):
            message = message_of(item)
            room -= _MESSAGE_BYTES + len(message.body) + len(message.origin)
            for event in message.history:
                room -= _EVENT_BYTES + len(event.consumer) + len(event.text)
            if room < 0:
                break
            found.append((message.id, message.priority, message.deliveries, message.expires_ms,
                          message.origin, message.history, message.body))
        if not found:
            return executor.no_room()
        payload = queueresults.encode_inspect_result(executor.now_ms, found)
        executor.room -= len(payload)
        return OK, payload
