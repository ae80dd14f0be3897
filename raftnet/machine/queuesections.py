"""The sections of a snapshot that came with leases: settings, priorities, leases that wait,
deduplication ids.

Rules: as in sections.py. Elsewhere: messages that are more than plain (messagesection.py).
"""

import struct
from collections.abc import Iterator

from raftnet.errors import MalformedError
from raftnet.machine.dedup import Dedup
from raftnet.machine.machine import Machine
from raftnet.machine.message import later
from raftnet.machine.queue import Level, Queue
from raftnet.machine.sectionitems import (ascending, columns, name_item, take, take_column,
                                          take_name, take_text)
from raftnet.machine.settings import Settings
from raftnet.wire.queuecommands import Overflow

_SETTINGS = struct.Struct(">8Q")            # delivery limit to longest back-off; dead-letter queue
_WAIT_LEASE = struct.Struct(">16sQQ")       # session, sequence, lease; consumer
_DEDUP = struct.Struct(">QQ")               # expiry, message id; dedup id


def plain_of(level: Level) -> tuple[Iterator[int], Iterator[bytes]] | None:
    """Places and bytes of a level's plain messages in order; None: there are none."""
    return (iter(level.ids), iter(level.messages)) if level.messages else None


# --- settings: in order of the queues' names


def settings_items(machine: Machine) -> Iterator[bytes]:
    """The settings of each queue that was told any."""
    by_name = machine.executor.queues.by_name
    for name in sorted(by_name):
        settings = by_name[name].settings
        if settings is not None:
            yield b"".join((name_item(name), _SETTINGS.pack(*settings[1:]),
                            name_item(settings.dead_letter)))


class SettingsLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._executor = machine.executor
        self._name = b""            # of the last queue

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """All settings of one queue; the offset behind them."""
        executor = self._executor
        config = executor.config
        name, offset = take_name(piece, offset)
        numbers = take(_SETTINGS, piece, offset)
        dead_letter, offset = take_text(piece, offset + _SETTINGS.size)
        settings = Settings(dead_letter, *numbers)
        if name <= self._name or executor.configured >= config.settings_max:
            raise MalformedError("state: settings are not in order, or too many")
        if (max(settings.ttl_ms, settings.dedup_window_ms) > config.ttl_ms_max
                or max(settings.backoff_ms, settings.backoff_max_ms) > config.delay_ms_max
                or settings.overflow > max(Overflow) or dead_letter == name):
            raise MalformedError("state: settings beyond what a queue can be told")
        self._name = name
        queue = executor.queues.make(name)
        queue.settings = settings
        queue.look_again()
        executor.configured += 1
        return offset

    def end(self) -> None:
        """Nothing is left over."""


# --- levels: in order of the queues' names and of the priorities


def level_items(machine: Machine) -> Iterator[bytes]:
    """The plain messages of each priority above 0."""
    by_name = machine.executor.queues.by_name
    for name in sorted(by_name):
        levels = by_name[name].levels or {}
        for priority in sorted(levels):
            plain = plain_of(levels[priority])
            if plain is not None:
                yield from columns(name_item(name) + bytes((priority,)), *plain)


class LevelLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._executor = machine.executor
        self._last = (b"", 0)       # queue and priority of the last item
        self._queue: Queue | None = None
        self._level: Level | None = None

    def item(self, piece: bytes, offset: int, first: bool) -> int:
        """Some messages, those of the priority before it where a piece begins; the offset behind.
        """
        executor = self._executor
        name, offset = take_name(piece, offset)
        priority = piece[offset] if offset < len(piece) else 0
        ids, messages, offset = take_column(piece, offset + 1)
        if not 1 <= priority < executor.config.priorities:
            raise MalformedError("state: messages of a priority that there is not")
        if (name, priority) > self._last:
            self._begin(name, priority)
        elif (name, priority) != self._last or not first:
            raise MalformedError("state: priorities are not in order")
        level = self._level
        if not (ids and ascending(ids) and ids[-1] < executor.next_message_id
                and ids[0] > (level.ids[-1] if level.ids else 0)):
            raise MalformedError("state: messages are not in order")
        level.ids.extend(ids)
        level.messages.extend(messages)
        self._queue.size_bytes += sum(map(len, messages))
        return offset

    def _begin(self, name: bytes, priority: int) -> None:
        self._last = (name, priority)
        self._queue = queue = self._executor.queues.make(name)
        if queue.waiters is not None:
            raise MalformedError("state: somebody waits at a queue with messages")
        if queue.levels is None:
            queue.levels = {}
        self._level = queue.levels[priority] = Level()
        queue.look_again()

    def end(self) -> None:
        """Nothing is left over."""


# --- leases that wait: in order of asking


def wait_lease_items(machine: Machine) -> Iterator[bytes]:
    """What a lease that waits asked for beside its wait."""
    for wait in machine.executor.waits.pending.values():
        if wait.lease_ms:
            yield _WAIT_LEASE.pack(wait.session, wait.first_sequence, wait.lease_ms) + name_item(
                wait.consumer)


class WaitLeaseLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._waits = machine.executor.waits
        self._lease_ms_max = machine.executor.config.lease_ms_max
        self._number = 0            # of the last wait

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """One wait that there is; the offset behind it."""
        session, sequence, lease_ms = take(_WAIT_LEASE, piece, offset)
        consumer, offset = take_text(piece, offset + _WAIT_LEASE.size)
        wait = self._waits.pending.get((session, sequence))
        if wait is None or wait.number <= self._number or not 1 <= lease_ms <= self._lease_ms_max:
            raise MalformedError("state: a lease that waits nowhere, or not in order")
        self._number = wait.number
        wait.lease_ms, wait.consumer = lease_ms, consumer
        return offset

    def end(self) -> None:
        """Nothing is left over."""


# --- deduplication ids: in order of the queues' names, of each as they are forgotten


def dedup_items(machine: Machine) -> Iterator[bytes]:
    """All ids, those included that are past their window and still there."""
    by_name = machine.executor.queues.by_name
    for name in sorted(by_name):
        dedup = by_name[name].dedup
        if dedup:
            head = name_item(name)
            ids = sorted((expires_ms, message_id, dedup_id)
                         for dedup_id, (message_id, expires_ms) in dedup.by_id.items())
            for expires_ms, message_id, dedup_id in ids:
                yield b"".join((head, _DEDUP.pack(expires_ms, message_id), name_item(dedup_id)))


class DedupLoader:
    """Loads them."""

    def __init__(self, machine: Machine):
        self._executor = executor = machine.executor
        self._expires_ms_max = later(machine.time_ms, executor.config.ttl_ms_max)
        self._name = b""            # of the queue of the last id
        self._dedup: Dedup | None = None
        self._order = (0, 0)        # of the last id in its queue

    def item(self, piece: bytes, offset: int, _: bool) -> int:
        """One id; the offset behind it."""
        executor = self._executor
        name, offset = take_name(piece, offset)
        expires_ms, message_id = order = take(_DEDUP, piece, offset)
        dedup_id, offset = take_name(piece, offset + _DEDUP.size)
        if name != self._name:
            self._begin(name)
        if (order <= self._order or dedup_id in self._dedup.by_id
                or not 1 <= message_id < executor.next_message_id
                or not 1 <= expires_ms <= self._expires_ms_max):
            raise MalformedError("state: deduplication ids are not in order")
        if executor.dedup_count >= executor.config.dedup_ids_max:
            raise MalformedError("state: more deduplication ids than there may be")
        self._order = order
        self._dedup.add(dedup_id, message_id, expires_ms)
        executor.dedup_count += 1
        return offset

    def _begin(self, name: bytes) -> None:
        if name < self._name:
            raise MalformedError("state: the queues of deduplication ids are not in order")
        self._finish()
        self._name = name
        self._dedup = self._executor.queues.make(name).dedup = Dedup()
        self._order = (0, 0)

    def _finish(self) -> None:
        if self._dedup is not None:
            self._executor.lifecycle.dedups.note(self._name, *self._dedup.first())

    def end(self) -> None:
        """The last queue is whole."""
        self._finish()
