"""How messages come into a queue: maxima and overflow, delays, times to live, priorities, ids by
which a message is known again.

Rules: an enqueue is all or none. A queue that was told to send its oldest messages to the dead
letters takes whatever would fit without the ready ones; what one enqueue may send there is bounded
by what it brings and a little more, so that a queue that was given a much lower maximum comes down
to it with the enqueues that follow. In a list, which may be undone and repeated, all of it is also
bounded by what the request may move. A time to live begins when the message is ready for the first
time.

Elsewhere: enqueues of plain messages without any of this (executor.py).
"""

from raftnet.machine.dedup import Dedup
from raftnet.machine.lifecycle import Lifecycle
from raftnet.machine.message import Message, later
from raftnet.machine.queue import Queue, message_of
from raftnet.machine.settings import defaults_of
from raftnet.wire import commands, queuecommands
from raftnet.wire.commands import Status
from raftnet.wire.queuecommands import Overflow
from raftnet.wire.queueresults import Event, Reason, encode_enqueue_with_result

OK, LIMIT, REPLY_FULL, FULL = map(int, (Status.OK, Status.LIMIT, Status.REPLY_FULL, Status.FULL))
_REFUSE = int(Overflow.REFUSE)
_OVERFLOW = int(Reason.OVERFLOW)
_RESULT_BYTES = 4           # of an ENQUEUE_WITH, and
_RESULT_ROW_BYTES = 9       # for each message

Result = tuple[int, bytes]


class Intake:
    """Enqueues into an executor's queues."""

    __slots__ = ("_executor", "_config", "_lifecycle")

    def __init__(self, executor, lifecycle: Lifecycle):
        self._executor = executor
        self._config = executor.config
        self._lifecycle = lifecycle

    def enqueue(self, name: bytes, queue: Queue, messages: list[bytes]) -> Result:
        """A plain ENQUEUE into a configured queue."""
        refusal = self._make_room(name, queue, messages)
        if refusal is not None:
            return refusal
        first_id = self._executor.next_message_id
        self._add(name, queue, messages, 0, 0, queue.settings.ttl_ms)
        return OK, commands.encode_enqueue_result(first_id)

    def prepare_with(self, command: bytes) -> tuple[int, tuple | bytes]:
        """Decode and check an ENQUEUE_WITH."""
        name, priority, delay_ms, ttl_ms, dedup_ids, messages = (
            queuecommands.decode_enqueue_with(command))
        config = self._config
        if priority >= config.priorities:
            return LIMIT, b"priorities"
        if delay_ms > config.delay_ms_max:
            return LIMIT, b"delay_ms_max"
        if ttl_ms > config.ttl_ms_max:
            return LIMIT, b"ttl_ms_max"
        if max(map(len, messages)) > self._executor.message_bytes_max:
            return LIMIT, b"message_bytes_max"
        return OK, (self._enqueue_with, name, (priority, delay_ms, ttl_ms, dedup_ids, messages))

    def _enqueue_with(self, name: bytes, what: tuple) -> Result:
        priority, delay_ms, ttl_ms, dedup_ids, messages = what
        executor = self._executor
        size = _RESULT_BYTES + _RESULT_ROW_BYTES * len(messages)
        if size > executor.room:
            return REPLY_FULL, b""
        executor.room -= size
        queue = executor.queues.make(name)
        executor.touched(name)          # and vanishes again where nothing is added
        settings = queue.settings or defaults_of(name)
        known: dict[bytes, int] = {}    # position of the first message with that id in this command
        ids: list[int | None] = [None] * len(messages)
        if settings.dedup_window_ms and any(dedup_ids):
            ids, known = self._recognise(queue, dedup_ids)
            if executor.dedup_count + len(known) > self._config.dedup_ids_max:
                return LIMIT, b"dedup_ids_max"
        new = [message for message, found in zip(messages, ids) if found is None]
        if new and queue.settings is not None:
            refusal = self._make_room(name, queue, new)
            if refusal is not None:
                return refusal
        next_id = executor.next_message_id
        self._add(name, queue, new, priority, delay_ms, ttl_ms or settings.ttl_ms)
        duplicates = []
        for at, found in enumerate(ids):
            duplicates.append(found is not None)
            if found is None:
                ids[at] = next_id
                next_id += 1
            elif found < 0:
                ids[at] = ids[-1 - found]
        for dedup_id, at in known.items():
            self._remember(name, queue, dedup_id, ids[at], settings.dedup_window_ms)
        return OK, encode_enqueue_with_result(ids, duplicates)

    def _recognise(self, queue: Queue,
                   dedup_ids: list[bytes]) -> tuple[list[int | None], dict[bytes, int]]:
        """For each id the message that has it: None where it is new, -1 - position where one of
        this command has it first; and the positions of the new ones."""
        now_ms, dedup = self._executor.now_ms, queue.dedup
        ids: list[int | None] = []
        known: dict[bytes, int] = {}
        for at, dedup_id in enumerate(dedup_ids):
            found = None
            if dedup_id:
                found = None if dedup is None else dedup.find(dedup_id, now_ms)
                if found is None:
                    if dedup_id in known:
                        found = -1 - known[dedup_id]
                    else:
                        known[dedup_id] = at
            ids.append(found)
        return ids, known

    def _remember(self, name: bytes, queue: Queue, dedup_id: bytes, message_id: int,
                  window_ms: int) -> None:
        executor = self._executor
        if queue.dedup is None:
            queue.dedup = Dedup()
        before = None
        if dedup_id in queue.dedup.by_id:       # past its window, and not yet forgotten
            before = queue.dedup.remove(dedup_id)
            executor.dedup_count -= 1
        expires_ms = later(executor.now_ms, window_ms)
        queue.dedup.add(dedup_id, message_id, expires_ms)
        self._lifecycle.dedups.note(name, expires_ms, message_id)
        executor.dedup_count += 1
        if executor.journal is not None:
            executor.journal.append((self._undo_remember, queue, dedup_id, before))

    def _undo_remember(self, queue: Queue, dedup_id: bytes,
                       before: tuple[int, int] | None) -> None:
        queue.dedup.remove(dedup_id)
        if before is None:
            self._executor.dedup_count -= 1
        else:
            queue.dedup.add(dedup_id, *before)

    # --- room

    def _make_room(self, name: bytes, queue: Queue, messages: list[bytes]) -> Result | None:
        """Let the messages fit into the queue's maxima; the refusal where they do not."""
        settings = queue.settings
        messages_max, bytes_max = settings.messages_max, settings.bytes_max
        if not messages_max and not bytes_max:
            return None
        count, size = len(messages), sum(map(len, messages))
        full = self._full(queue, count, size)
        if full is None:
            return None
        dead = self._lifecycle.dead_letters_of(name, queue)
        away = queue.held() - queue.ready()
        if (settings.overflow == _REFUSE or not dead
                or messages_max and away + count > messages_max
                or bytes_max and queue.away_bytes + size > bytes_max):
            return FULL, full
        return self._bury_oldest(name, queue, dead, count, size)

    def _bury_oldest(self, name: bytes, queue: Queue, dead: bytes, count: int,
                     size: int) -> Result | None:
        """Until so many more messages of that size fit, which they would without the ready ones; or
        until the work is done that they are worth."""
        executor, config = self._executor, self._config
        own = count + size // config.overflow_extra_bytes
        allowed = min(own + config.overflow_extra_max, executor.moves)
        if executor.journal is None:
            allowed = max(allowed, own)     # done once, and no more than the command has bytes
        for _ in range(allowed):
            item = queue.take_oldest()
            if executor.journal is not None:
                executor.journal.append((queue.put_back, [item]))
            executor.touched(name)
            message = message_of(item)
            self._lifecycle.bury(name, dead, message, Event(
                0, executor.now_ms, executor.index, message.deliveries, _OVERFLOW, b"", b""))
            executor.moves = max(0, executor.moves - 1)
            if self._full(queue, count, size) is None:
                return None
        return (REPLY_FULL, b"") if allowed < own else None

    def _full(self, queue: Queue, count: int, size: int) -> bytes | None:
        """The maximum that so many more messages of that size would pass; None: they fit."""
        settings = queue.settings
        if settings.messages_max and queue.held() + count > settings.messages_max:
            return b"messages_max"
        if settings.bytes_max and (queue.size_bytes + queue.away_bytes + size
                                   > settings.bytes_max):
            return b"bytes_max"
        return None

    def _add(self, name: bytes, queue: Queue, messages: list[bytes], priority: int, delay_ms: int,
             ttl_ms: int) -> None:
        """They take the next ids."""
        executor, lifecycle = self._executor, self._lifecycle
        if not messages:
            return
        if not (priority or delay_ms or ttl_ms):
            executor.append(name, queue, messages)
            return
        ready_ms = later(executor.now_ms, delay_ms)
        expires_ms = later(ready_ms, ttl_ms) if ttl_ms else 0
        for body in messages:
            place = lifecycle.place()
            if delay_ms:
                lifecycle.delay(name, queue, ready_ms, Message(
                    place, place, body, priority, 0, expires_ms, b"", ()))
            elif expires_ms:
                lifecycle.put(name, queue, Message(
                    place, place, body, priority, 0, expires_ms, b"", ()))
            else:
                queue.put(place, body, priority)
                if executor.journal is not None:
                    executor.journal.append((queue.undo_put, body, priority))
                executor.touched(name)
