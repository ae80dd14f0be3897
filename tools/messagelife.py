"""One message's life, from the log: when it came, who took it, or where it waits.

Rules: entries are applied as a node applies them, and what came of each is looked through for the
message's id; nothing is guessed from requests alone. Replies that are repeated for a retry change
nothing, as the message came and went before. What happened before the files begin is not told.

A kind of event that is new (a lease, an acknowledgement) is a line more of `_EVENTS`, and what
`_touches` makes of its operation.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from raftnet.config import Config
from raftnet.errors import MalformedError, StorageError
from raftnet.machine.machine import Applied, Machine
from raftnet.raft.entry import Entry
from raftnet.rebuild import Rebuilt, rebuild
from raftnet.wire import commands, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_bytes, describe_name
from raftnet.wire.requests import NO_SESSION, REQUEST_HEAD_BYTES
from tools.readonlydisk import Progress, open_data
from tools.statetext import applying, certainty_lines

CAME, TAKEN, WAITS, GONE = "came", "taken", "waits", "gone"
INDENT = "    "
_U64 = Struct(">Q")


class _Touch(NamedTuple):
    """A command that had to do with the message."""

    event: str              # CAME or TAKEN
    queue: bytes
    message: bytes
    place: str              # `index.offset` in the log; the index alone where a wait ended
    who: str                # the request


def message_lines(path: str, message_id: int, index: int | None) -> Iterator[str]:
    """The life of a message up to the entry at `index` (None: the last in the log). Raises
    CorruptFileError, and StorageError where index or message are not held."""
    progress = Progress()
    with open_data(path, progress) as disk:
        life = MessageLife(message_id, progress)
        rebuilt = rebuild(disk, Config(), index, watch=life.watch, whole=True)
        next_id = rebuilt.machine.executor.next_message_id
        if message_id >= next_id:
            raise StorageError(f"{disk.directory}: no message {message_id} came up to entry "
                               f"{rebuilt.index}: the next one's id is {next_id}")
        yield f"message {message_id}" + (
            "" if life.message is None else f" {describe_bytes(life.message)}")
        for event in (*life.events, life.last_event(rebuilt)):
            yield INDENT + event
        yield from certainty_lines(disk, rebuilt)


class MessageLife:
    """Watches a rebuild for one message."""

    def __init__(self, message_id: int, progress: Progress):
        self.events: list[str] = []             # a line each, in their order
        self.message: bytes | None = None       # None: not seen
        self._id = message_id
        self._needle = _U64.pack(message_id)    # stands in every reply that returns the message
        self._came = False                      # its id was given
        self._queue: bytes | None = None        # where it waits; None: not there yet, or gone
        self._tell = applying(progress)

    def watch(self, rebuilt: Rebuilt, entry: Entry | None, applied: Applied | None) -> None:
        """As `rebuild` calls it."""
        if entry is None:
            self._begin(rebuilt)
            return
        self._tell(rebuilt, entry, applied)
        if not self._came:
            if rebuilt.machine.executor.next_message_id > self._id:
                self._follow(rebuilt, entry, applied)
        elif self._queue is not None and self._is_returned(applied):
            self._follow(rebuilt, entry, applied)

    def last_event(self, rebuilt: Rebuilt) -> str:
        """What became of it, after the last entry."""
        found = _find(rebuilt.machine, self._id)
        if found is not None:
            name, place, count, self.message = found
            return _line(WAITS, str(rebuilt.index), rebuilt, name, f"place {place} of {count}")
        if self._queue is None and self.events:
            return self.events.pop()
        if self._queue is not None:
            return f"{GONE} by entry {rebuilt.index}: its entries do not say how"
        raise AssertionError(f"message {self._id} was given its id and not seen")

    def _begin(self, rebuilt: Rebuilt) -> None:
        self._came = rebuilt.machine.executor.next_message_id > self._id
        if not self._came:
            return
        found = _find(rebuilt.machine, self._id)
        text = f"{CAME} up to entry {rebuilt.index}, with which these files begin"
        if found is None:
            text += ", and was gone by then"
        else:
            self._queue, _, _, self.message = found
            text += f": queue {describe_name(self._queue)}"
        self.events.append(text)

    def _is_returned(self, applied: Applied) -> bool:
        needle = self._needle
        for reply in applied.replies:
            if reply is not None and needle in reply:
                return True
        return any(needle in reply for _, _, reply in applied.completions)

    def _follow(self, rebuilt: Rebuilt, entry: Entry, applied: Applied) -> None:
        for touch in _touches(entry, applied, self._id):
            if touch.event == CAME and not self._came:
                self._came, self._queue, self.message = True, touch.queue, touch.message
            elif touch.event == TAKEN and self._queue is not None:
                self._queue = None
            else:
                continue            # repeated for a retry
            self.events.append(_line(touch.event, touch.place, rebuilt,
                                     touch.queue or self._last_queue, touch.who))
