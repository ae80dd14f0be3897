"""One message's life, from the log: when it came, who took it, how its deliveries ended, when it
became a dead letter or was sent back, or where it waits.

Rules: entries are applied as a node applies them. Where the message is before and after an entry
says whether anything happened to it; how it happened is taken from the message's own history and
from the results of the requests, never from requests alone. So what time brings about is told too.
Looking costs a look-up an entry; only where something happened is the message searched for. Replies
that are repeated for a retry change nothing. What happened before the files begin is not told.

Each event is a line: what, after which entry or command, its term, replicated time, queue, more.

Elsewhere: where it is (messagespot.py), the requests of an entry (messagetouches.py).
"""

from collections.abc import Iterator

from raftnet.config import Config
from raftnet.errors import StorageError
from raftnet.machine.machine import Applied
from raftnet.machine.message import later
from raftnet.raft.entry import Entry
from raftnet.rebuild import Rebuilt, rebuild
from raftnet.wire.describe import describe_bytes, describe_name
from raftnet.wire.queueresults import Event, Reason
from tools.messagespot import IS_DELAYED, IS_LEASED, IS_READY, Spot, delivery, find, is_at, position
from tools.messagetouches import (ACKED, CAME, EXTENDED, LEASED, NACKED, PURGED, REDRIVEN, TAKEN,
                                  Touch, touches)
from tools.readonlydisk import Progress, open_data
from tools.statetext import applying, certainty_lines

WAITS, GONE, EXPIRED, DEAD, READY = "waits", "gone", "expired", "dead", "ready"
INDENT = "    "
_MOVES = {Reason.TTL_EXPIRED: "its time to live ended", Reason.OVERFLOW: "its queue was full"}


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
        if life.other is not None:
            raise StorageError(f"{disk.directory}: there is no message {message_id}: entry "
                               f"{life.other} gave the number to another one's new place")
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
        self.other: int | None = None           # the entry that gave its number to something else
        self._id = message_id
        self._came = False                      # its id was given
        self._spot: Spot | None = None          # where it is; None: not there yet, or gone
        self._last_delivery = 0                 # those up to it were told
        self._tell = applying(progress)

    def watch(self, rebuilt: Rebuilt, entry: Entry | None, applied: Applied | None) -> None:
        """As `rebuild` calls it."""
        if entry is None:
            self._begin(rebuilt)
            return
        self._tell(rebuilt, entry, applied)
        if not self._came:
            if rebuilt.machine.executor.next_message_id > self._id:
                self._come(rebuilt, entry, applied)
        elif self._spot is not None and not is_at(rebuilt.machine, self._spot):
            self._follow(rebuilt, touches(entry, applied, self._id))

    def now(self, rebuilt: Rebuilt) -> Iterator[str]:
        """Where it is after the last entry, if it is anywhere."""
        spot = self._spot
        if spot is None:
            return
        if not is_at(rebuilt.machine, spot):
            yield _unknown(rebuilt)
            return
        queue = rebuilt.machine.executor.queues.by_name[spot.queue]
        rest = (position(queue, spot) if spot.where == IS_READY else
                f"delayed until {spot.until_ms} ms" if spot.where == IS_DELAYED else
                f"leased, {delivery(spot)} until {spot.until_ms} ms")
        yield _line(WAITS, f"after entry {rebuilt.index}", rebuilt, spot.queue, rest)

    def _begin(self, rebuilt: Rebuilt) -> None:
        self._came = rebuilt.machine.executor.next_message_id > self._id
        if not self._came:
            return
        self._spot = spot = find(rebuilt.machine, self._id)
        text = f"{CAME:5} up to entry {rebuilt.index}, with which these files begin"
        if spot is None:
            text += ", and was gone by then"
        else:
            self.message, self._last_delivery = spot.body, spot.delivery
            text += f": queue {describe_name(spot.queue)}"
            if spot.where != IS_READY:
                text += f", {spot.where} until {spot.until_ms} ms"
        self.events.append(text)

    def _come(self, rebuilt: Rebuilt, entry: Entry, applied: Applied) -> None:
        self._came = True
        found = touches(entry, applied, self._id)
        came = next((at for at, touch in enumerate(found) if touch.event == CAME), None)
        if came is None:
            self.other = entry.index
            return
        touch = found[came]
        self.message = touch.message
        due_ms = later(rebuilt.machine.time_ms, touch.span_ms) if touch.span_ms else 0
        self._spot = Spot(IS_DELAYED if due_ms else IS_READY, touch.queue, self._id,
                          touch.priority, touch.message, None, due_ms)
        more = [text for text in (
            touch.priority and f"priority {touch.priority}", touch.ttl_ms
            and f"ttl {touch.ttl_ms} ms", due_ms and f"delayed until {due_ms} ms") if text]
        self.events.append(_line(CAME, f"entry {touch.place}", rebuilt, touch.queue,
                                 " ".join([*more, touch.who])))
        self._follow(rebuilt, found[came + 1:])

    # --- an entry in which something happened

    def _follow(self, rebuilt: Rebuilt, found: list[Touch]) -> None:
        after = find(rebuilt.machine, self._id)
        told = [] if after is None or after.more is None else [
            event for event in after.more.history if event.index == rebuilt.index]
        story = _Story(self.events, rebuilt, self._spot, after, told, found)
        self._last_delivery = story.tell(self._last_delivery)
        self._spot = after


class _Story:
    """What happened to the message in one entry, told in its order: `at` is where it has come to by
    what was told, and is compared with where it is in the end."""

    def __init__(self, events: list[str], rebuilt: Rebuilt, before: Spot, after: Spot | None,
                 told: list[Event], found: list[Touch]):
        self._events = events
        self._rebuilt = rebuilt
        self._time_ms = rebuilt.machine.time_ms
        self._at: Spot | None = before
        self._after = after
        self._told = told               # by its own history, in this entry, not yet used
        self._found = found             # touches that are still to come
        self._moves = [touch for touch in found if touch.event in (PURGED, REDRIVEN)]

    def tell(self, last_delivery: int) -> int:
        """All of it; the last delivery, after that before the entry."""
        while self._found and self._at is not None:
            touch = self._found.pop(0)
            if touch.event == LEASED:
                if touch.delivery > last_delivery:
                    last_delivery = touch.delivery
                    self._lease(touch)
            elif touch.event == TAKEN:
                self._become_ready(touch)
                self._say(TAKEN, touch.queue or self._at.queue, touch.who, touch.place)
                self._at = None
            elif self._at.where == IS_LEASED and touch.delivery == self._at.delivery:
                self._end_or_extend(touch)
        while self._told and self._at is not None:
            self._by_history(self._told.pop(0))
        self._compare()
        return last_delivery if self._after is None else max(last_delivery, self._after.delivery)

    def _say(self, event: str, queue: bytes, rest: str, place: str = "") -> None:
        self._events.append(_line(event, f"entry {place or self._rebuilt.index}", self._rebuilt,
                                  queue, rest))

    # --- by requests

    def _lease(self, touch: Touch) -> None:
        after = self._after
        if not touch.queue and after is not None and after.delivery == touch.delivery:
            touch = touch._replace(queue=after.queue)       # a wait's result does not tell it
        self._become_ready(touch)
        at = self._at
        deadline_ms = None if touch.span_ms is None else later(self._time_ms, touch.span_ms)
        consumer = touch.text
        if after is not None and after.delivery == touch.delivery:
            deadline_ms, consumer = after.until_ms, after.consumer
        queue = touch.queue or at.queue
        self._at = at._replace(where=IS_LEASED, queue=queue, delivery=touch.delivery,
                               consumer=consumer, until_ms=deadline_ms or 0)
        until = "" if deadline_ms is None else f" until {deadline_ms} ms"
        self._say(LEASED, queue, f"{delivery(self._at)}{until} {touch.who}", touch.place)

    def _become_ready(self, touch: Touch) -> None:
        """What must have happened before somebody could take it."""
        while self._told and (self._at.where == IS_LEASED
                              or touch.queue and touch.queue != self._at.queue):
            self._by_history(self._told.pop(0))
        if self._at.where == IS_LEASED:
            self._expire()
        elif self._at.where == IS_DELAYED:
            self._end_delay()
        if touch.queue and touch.queue != self._at.queue:
            # its history went with it: it may have been sent back, or else was a dead letter
            mover = self._mover(REDRIVEN)
            self._move(REDRIVEN if mover else DEAD, "", mover, touch.queue)

    def _end_or_extend(self, touch: Touch) -> None:
        at = self._at
        if touch.event == ACKED:
            self._say(ACKED, at.queue, f"{delivery(at)} {touch.who}", touch.place)
            self._at = None
        elif touch.event == EXTENDED:
            self._at = at._replace(until_ms=later(self._time_ms, touch.span_ms))
            self._say(EXTENDED, at.queue, f"{delivery(at)} until {self._at.until_ms} ms "
                      f"{touch.who}", touch.place)
        elif touch.event == NACKED:
            if self._told and self._told[0].reason == Reason.NACKED:
                self._told.pop(0)
            text = f" {describe_bytes(touch.text)}" if touch.text else ""
            rest = f"{delivery(at)}{text}"
            self._at = at._replace(where=IS_READY, delivery=0, consumer=b"")
            if touch.dead:
                self._say(NACKED, at.queue, f"{rest} {touch.who}", touch.place)
                self._move(DEAD, "deliveries are at their limit", touch)
                return
            if touch.span_ms != 0:
                self._at = self._delayed_by(touch.span_ms)
                rest += ("" if not self._at.until_ms else
                         f", delayed until {self._at.until_ms} ms")
            self._say(NACKED, at.queue, f"{rest} {touch.who}", touch.place)

    def _delayed_by(self, span_ms: int | None) -> Spot:
        """Delayed by so much, or (None) by a back-off that only the state tells."""
        after = self._after
        if after is not None and after.where == IS_DELAYED and after.place == self._at.place:
            return after
        if span_ms is None:
            return self._at
        return self._at._replace(where=IS_DELAYED, until_ms=later(self._time_ms, span_ms))

    # --- by time, and by what moves many messages

    def _by_history(self, event: Event) -> None:
        if self._at.where == IS_DELAYED and event.reason != Reason.TTL_EXPIRED:
            self._end_delay()
        if event.reason in (Reason.LEASE_EXPIRED, Reason.NACKED):
            self._expire(event.ended_ms)
            if self._began_anew(event.deliveries):
                self._move(DEAD, "deliveries are at their limit")
        elif event.reason == Reason.REDRIVEN:
            self._move(REDRIVEN, "", self._mover(REDRIVEN))
        else:
            self._move(DEAD, _MOVES.get(event.reason, f"reason {event.reason}"))

    def _expire(self, ended_ms: int | None = None) -> None:
        at = self._at
        ended_ms = at.until_ms if ended_ms is None else ended_ms
        self._say(EXPIRED, at.queue, f"{delivery(at)}: its lease ended at {ended_ms} ms")
        self._at = at._replace(where=IS_READY, delivery=0, consumer=b"")

    def _end_delay(self) -> None:
        self._at = self._at._replace(where=IS_READY)
        self._say(READY, self._at.queue, "its delay is over")

    def _began_anew(self, deliveries: int) -> bool:
        """Its deliveries are counted from 0 again, so it changed its queue."""
        for touch in self._found:
            if touch.event == LEASED:
                return touch.deliveries <= deliveries
        if self._told:
            return self._told[0].deliveries < deliveries
        return self._after is not None and self._after.deliveries < deliveries

    def _move(self, event: str, why: str, touch: Touch | None = None, queue: bytes = b"") -> None:
        before = self._at.queue
        if not queue and not self._told:        # else it moved on: only the last queue is known
            queue = next((touch.queue for touch in self._found if touch.event in (LEASED, TAKEN)),
                         b"") or (self._after.queue if self._after is not None else b"")
        self._at = self._at._replace(where=IS_READY, queue=queue, delivery=0, consumer=b"")
        rest = (f"from {describe_name(before)}" if before else "") + (f", {why}" if why else "")
        if touch is not None:
            rest += f" {touch.who}"
        self._say(event, queue, rest.strip(), touch.place if touch is not None else "")

    def _mover(self, event: str) -> Touch | None:
        """The first command of that kind that did something to the queue."""
        for touch in self._moves:
            if touch.event == event and touch.queue == self._at.queue:
                return touch
        return None

    # --- in the end

    def _compare(self) -> None:
        at, after = self._at, self._after
        if at is None:
            return
        if after is None:
            self._vanish(at)
        elif after.where == IS_LEASED:
            if at.delivery != after.delivery:
                self._say(LEASED, after.queue, f"{delivery(after)} until {after.until_ms} ms")
        elif at.where == IS_LEASED:
            self._expire()
        elif at.where == IS_DELAYED and after.where == IS_READY:
            self._end_delay()

    def _vanish(self, at: Spot) -> None:
        """How it went, where nobody was given it."""
        if at.where == IS_LEASED and at.until_ms <= self._time_ms:
            self._expire()
        touch = self._mover(PURGED)
        if touch is not None and self._at.where != IS_LEASED:
            self._say(PURGED, at.queue, touch.who, touch.place)
        elif at.more is not None and 0 < at.more.expires_ms <= self._time_ms:
            self._say(GONE, at.queue, "its time to live ended")
        else:
            self._events.append(_unknown(self._rebuilt))


def _line(event: str, place: str, rebuilt: Rebuilt, queue: bytes, rest: str) -> str:
    where = f"queue {describe_name(queue)}" if queue else "another queue"
    return (f"{event:5} {place} term {rebuilt.term} time {rebuilt.machine.time_ms} ms {where} "
            f"{rest}").rstrip()


def _unknown(rebuilt: Rebuilt) -> str:
    return f"{GONE:5} by entry {rebuilt.index}: the replies do not say how"
