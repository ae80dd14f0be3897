"""One message's life, from the log: when it came, who took it, or where it waits.

Rules: entries are applied as a node applies them, and what came of each is looked through for the
message's id; nothing is guessed from requests alone. Replies that are repeated for a retry change
nothing, as the message came and went before. What happened before the files begin is not told.

Each event is a line: what, after which entry or command, its term, replicated time, queue, who. An
operation that does something else with a message needs its case in `_of_command`, and an event.
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
    queue: bytes            # empty where it is not told
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
        for event in (*life.events, *life.now(rebuilt)):
            yield INDENT + event
        yield from certainty_lines(rebuilt)


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

    def now(self, rebuilt: Rebuilt) -> Iterator[str]:
        """Where it is after the last entry, if it is anywhere."""
        found = _find(rebuilt.machine, self._id)
        if found is not None:
            queue, place, count, _ = found
            yield _line(WAITS, f"after entry {rebuilt.index}", rebuilt, queue,
                        f"place {place} of {count}")
        elif self._queue is not None:
            yield f"{GONE:5} by entry {rebuilt.index}: the replies do not say how"

    def _begin(self, rebuilt: Rebuilt) -> None:
        self._came = rebuilt.machine.executor.next_message_id > self._id
        if not self._came:
            return
        found = _find(rebuilt.machine, self._id)
        text = f"{CAME:5} up to entry {rebuilt.index}, with which these files begin"
        if found is None:
            text += ", and was gone by then"
        else:
            self._queue, _, _, self.message = found
            text += f": queue {describe_name(self._queue)}"
        self.events.append(text)

    def _is_returned(self, applied: Applied) -> bool:
        # Not by the end of a wait: that gets a message in the entry with which it comes.
        needle = self._needle
        for reply in applied.replies:
            if reply is not None and needle in reply:
                return True
        return False

    def _follow(self, rebuilt: Rebuilt, entry: Entry, applied: Applied) -> None:
        for touch in _touches(entry, applied, self._id):
            queue = touch.queue or self._queue
            if touch.event == CAME and not self._came:
                self._came, self._queue, self.message = True, queue, touch.message
            elif touch.event == TAKEN and self._queue is not None:
                self._queue = None
            else:
                continue            # repeated for a retry
            self.events.append(_line(touch.event, f"entry {touch.place}", rebuilt, queue,
                                     touch.who))


def _line(event: str, place: str, rebuilt: Rebuilt, queue: bytes, rest: str) -> str:
    return (f"{event:5} {place} term {rebuilt.term} time {rebuilt.machine.time_ms} ms "
            f"queue {describe_name(queue)} {rest}")


def _find(machine: Machine, message_id: int) -> tuple[bytes, int, int, bytes] | None:
    """(queue, place from 1, messages there, the message) where it waits now."""
    for name, queue in machine.executor.queues.by_name.items():
        if message_id in queue.ids:
            place = queue.ids.index(message_id)
            return name, place + 1, len(queue.ids), queue.messages[place]
    return None


# --- what the commands of an entry did


def _touches(entry: Entry, applied: Applied, message_id: int) -> Iterator[_Touch]:
    """What came of the entry for this message, in the order in which it was applied."""
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
                for event, queue, message in _of_command(pieces[place], *result, message_id):
                    yield _Touch(event, queue, message, f"{entry.index}.{offset + place}",
                                 _request(session, first + place))
        offset += len(pieces)
    for session, first, reply in applied.completions:
        for status, payload in requests.decode_reply(reply).results:
            for number, message in commands.decode_messages(payload) if status == Status.OK else ():
                if number == message_id:
                    yield _Touch(TAKEN, b"", message, str(entry.index),
                                 f"{_request(session, first)}, which waited")


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


def _of_command(piece: bytes, status: int, payload: bytes,
                message_id: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(event, queue, message) for each time that the command did something with the message."""
    operation = piece[0] if piece and status == Status.OK else 0
    if operation == Operation.ENQUEUE:
        queue, messages = commands.decode_enqueue(piece)
        place = message_id - commands.decode_enqueue_result(payload)
        if 0 <= place < len(messages):
            yield CAME, queue, messages[place]
    elif operation == Operation.DEQUEUE:
        queue = commands.decode_dequeue(piece)[0]
        for number, message in commands.decode_messages(payload):
            if number == message_id:
                yield TAKEN, queue, message
    elif operation == Operation.EXECUTE:
        inner = commands.decode_execute(piece)      # no EXECUTE among them: it would be refused
        for command, result in zip(inner, commands.decode_execute_result(payload)):
            yield from _of_command(command, *result, message_id)
