"""Histories: what clients asked and were told, judged for linearizability.

Rules: nothing that could have happened is ever accused. Message ids give the order of all enqueues,
and so, first in first out, the order of the dequeues of each queue; what remains to be asked is
whether moments can be found for all operations between asking and answer (timeline.py). An
operation without an answer may have happened at any later time, or never: a message that came and
that nobody received must have been taken by dequeues of that kind, each up to its count. Steps of
an atomic list happen at one moment.

The names of the invariants: "sessions exactly once", "queue conservation", "first in, first out",
"session order", "atomic lists", "empty answers", "peek answers", "size answers".
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from raftnet.simulation.timeline import (
    NEVER, Choice, Event, Impossible, Line, Place, Timeline)

ENQUEUE, DEQUEUE, PEEK, SIZE = "enqueue", "dequeue", "peek", "size"
_CONSERVATION = "queue conservation"
_FIFO = "first in, first out"
_SESSION = "session order"
_ATOMIC = "atomic lists"
_EMPTY, _PEEK, _SIZE = "empty answers", "peek answers", "size answers"


class HistoryError(AssertionError):
    """A history that no queue of the promised kind can have: the invariant's name comes first."""


@dataclass(slots=True, eq=False)
class Step:
    """One command. Messages are unique in a whole history."""

    kind: str                               # ENQUEUE, DEQUEUE, PEEK or SIZE
    queue: bytes
    messages: tuple[bytes, ...] = ()        # to enqueue
    count: int = 0                          # wanted at most
    # ENQUEUE: the first id; DEQUEUE, PEEK: [(id, message)]; SIZE: a number. None: not known.
    answer: int | list | None = None

    def __str__(self):
        what = " ".join(map(_text, self.messages)) if self.messages else self.count or ""
        answer = self.answer
        if isinstance(answer, list):
            answer = " ".join(f"{i}:{_text(m)}" for i, m in answer) or "EMPTY"
        return f"{self.kind} {_text(self.queue)} {what} -> {'?' if answer is None else answer}"


@dataclass(slots=True, eq=False)
class Operation:
    """What was asked at once: one step, or the steps of an atomic list."""

    client: str
    session: int                    # numbered by the client; 0: none (reads)
    sequence: int
    steps: list[Step]
    invoked_ms: int
    answered_ms: int | None = None  # None: the outcome is unknown
    refused: bool = False           # answered, and surely without effect (a cancelled wait)

    def __str__(self):
        return (f"{self.client}#{self.session}.{self.sequence} "
                f"[{'; '.join(map(str, self.steps))}] {self.invoked_ms}.."
                f"{'' if self.answered_ms is None else self.answered_ms}")


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


@dataclass(slots=True, eq=False)
class _Queue:
    """One queue's messages that surely came, by id."""

    name: bytes
    ids: list[int] = field(default_factory=list)
    came: list[Place] = field(default_factory=list)
    went: list[Place | None] = field(default_factory=list)
    line: Line | None = None
    takers: list[int] = field(default_factory=list)     # when open dequeues were asked, rising
    take_most: int = 1                                  # messages, one of them
    unseen: list[tuple[int, int]] = field(default_factory=list)     # (asked ms, open messages)


def check(history: list[Operation], drained: bool = False) -> None:
    """Raises HistoryError. `drained`: all queues were found empty after everything else."""
    history = [operation for operation in history if not operation.refused]
    if drained:
        end_ms = 1 + max((max(o.invoked_ms, o.answered_ms or 0) for o in history), default=0)
        names = sorted({step.queue for o in history for step in o.steps})
        history += [Operation("end", 0, 0, [Step(DEQUEUE, name, count=1, answer=[])],
                              end_ms, end_ms) for name in names]
    judge = _Judge(history)
    judge.collect()
    try:
        judge.arrange()
        judge.timeline.settle()
    except Impossible as error:
        _accuse(error)


def _accuse(error: Impossible) -> None:
    """Put the contradiction into one line, under the name of its invariant."""
    whats = [event.what for event in error.events]
    name = error.rule
    lost = [what for what in whats if isinstance(what, tuple)]
    if name != _SIZE and lost and any(event.low == NEVER for event in error.events):
        message, queue = lost[0]
        raise HistoryError(f"{_CONSERVATION}: {_text(message)} is lost in {_text(queue)}: "
                           f"came, and nobody can have taken it before {whats[0]}") from error
    if name in (_FIFO, _CONSERVATION) and any(
            isinstance(what, Operation) and len(what.steps) > 1 for what in whats):
        name = _ATOMIC
    raise HistoryError(f"{name}: {error}: " + " | ".join(
        str(what) if isinstance(what, Operation) else f"{_text(what[0])} taken by someone unknown"
        for what in whats[:4])) from error


class _Judge:
    """One history on its way through the checks."""

    def __init__(self, history: list[Operation]):
        self.history = history
        self.timeline = Timeline()
        self._asked: dict[bytes, tuple[Operation, int, int]] = {}   # message -> whose, step, offset
        self._first_ids: dict[Operation, int] = {}      # of the operations that surely enqueued
        self._went: dict[bytes, tuple[Operation, int]] = {}     # message -> who dequeued it, step
        self._queues: dict[bytes, _Queue] = {}
        self._events: dict[Operation, Event] = {}

    # --- what is known without time

    def collect(self) -> None:
        """Messages, their ids and who took them."""
        for operation in self.history:
            offset = 0
            for at, step in enumerate(operation.steps):
                for message in step.messages:
                    assert message not in self._asked, "messages are unique"
                    self._asked[message] = (operation, at, offset)
                    offset += 1
        for operation in self.history:
            offset = 0
            for at, step in enumerate(operation.steps):
                if step.kind == ENQUEUE:
                    if step.answer is not None:
                        self._note_id(operation, step.answer - offset, step.messages[0])
                    offset += len(step.messages)
                elif step.answer and step.kind != SIZE:
                    self._note_found(operation, at, step)

    def _note_id(self, operation: Operation, first_id: int, message: bytes) -> None:
        """Ids of one operation follow each other, so one tells all."""
        if self._first_ids.setdefault(operation, first_id) != first_id:
            name = _ATOMIC if len(operation.steps) > 1 else _CONSERVATION
            raise HistoryError(f"{name}: {_text(message)} changed its id: {operation} began with "
                               f"{self._first_ids[operation]}, or with {first_id}")

    def _note_found(self, operation: Operation, at: int, step: Step) -> None:
        if len(step.answer) > step.count:
            raise HistoryError(f"{_CONSERVATION}: more than were asked for: {operation}")
        for message_id, message in step.answer:
            asked = self._asked.get(message)
            if asked is None:
                raise HistoryError(f"{_CONSERVATION}: {_text(message)} was never sent: {operation}")
            origin, origin_at, offset = asked
            if origin.steps[origin_at].queue != step.queue:
                raise HistoryError(f"{_CONSERVATION}: {_text(message)} is of another queue: "
                                   f"{origin} | {operation}")
            self._note_id(origin, message_id - offset, message)
            if step.kind == DEQUEUE:
                before = self._went.setdefault(message, (operation, at))
                if before != (operation, at):
                    raise HistoryError(f"sessions exactly once: {_text(message)} came twice: "
                                       f"{before[0]} | {operation}")

    # --- rules

    def arrange(self) -> None:
        """Make the events and the rules between them."""
        for operation in self.history:
            if operation.answered_ms is not None or operation in self._first_ids:
                high = NEVER if operation.answered_ms is None else operation.answered_ms
                self._events[operation] = self.timeline.event(
                    operation, operation.invoked_ms, high)
        self._arrange_queues()
        self._arrange_enqueues()
        for queue in self._queues.values():
            self._arrange_takers(queue)
            self._arrange_dequeues(queue)
        for operation, event in self._events.items():
            for at, step in enumerate(operation.steps):
                if step.kind != ENQUEUE and step.answer is not None:
                    self._arrange_answer((event, at), step)
        self._arrange_sessions()

    def _arrange_queues(self) -> None:
        """Who came into which queue, by id; and what may have come or gone unseen."""
        self._queues = {step.queue: _Queue(step.queue)
                        for operation in self.history for step in operation.steps}
        places = []
        for operation, first_id in self._first_ids.items():
            offset = 0
            for at, step in enumerate(operation.steps):
                for message in step.messages:
                    places.append((first_id + offset, message, operation, at, step.queue))
                    offset += 1
        places.sort(key=lambda place: place[0])
        for left, right in zip(places, places[1:]):
            if left[0] == right[0]:
                raise HistoryError(f"{_CONSERVATION}: two messages with id {left[0]}: "
                                   f"{left[2]} | {right[2]}")
        for message_id, message, operation, at, name in places:
            queue = self._queues[name]
            queue.ids.append(message_id)
            queue.came.append((self._events[operation], at))
            went = self._went.get(message)
            queue.went.append(went and (self._events[went[0]], went[1]))
        open_operations = []        # enqueues that nobody saw: when asked, how many messages
        for operation in self.history:
            if operation not in self._first_ids:
                count = 0
                for step in operation.steps:
                    if step.messages:
                        count += len(step.messages)
                        self._queues[step.queue].unseen.append(
                            (operation.invoked_ms, len(step.messages)))
                if count:
                    open_operations.append((operation.invoked_ms, count))
        self._arrange_gaps([(place[0], place[2]) for place in places], sorted(open_operations))

    def _arrange_gaps(self, places: list[tuple[int, Operation]],
                      open_operations: list[tuple[int, int]]) -> None:
        """Ids that nobody was told belong to whole enqueues without an answer, which happened
        before whoever has the next id."""
        sums = 1                    # bit n: some of them have n messages together
        for _, count in open_operations:
            sums |= sums << count
        expected, missing, at, found = 1, 0, 0, 0
        for message_id, operation in places:
            gap = message_id - expected
            expected = message_id + 1
            if not gap:
                continue
            event = self._events[operation]
            missing += gap
            while found < missing and at < len(open_operations):
                found += open_operations[at][1]
                event.low = max(event.low, open_operations[at][0])
                at += 1
            if gap < 0 or found < missing or not sums >> gap & 1 or event.low > event.high:
                raise HistoryError(f"{_CONSERVATION}: {gap} ids before {message_id} cannot have "
                                   f"been given to anybody: {operation}")

    def _arrange_enqueues(self) -> None:
        """One order of all enqueues, whatever their queue."""
        order = sorted(self._first_ids, key=self._first_ids.__getitem__)
        for left, right in zip(order, order[1:]):
            self.timeline.before((self._events[left], 0), (self._events[right], 0), _FIFO)

    def _arrange_takers(self, queue: _Queue) -> None:
        """Give the messages that nobody received to dequeues without an answer.

        In any course the takers of the first n messages of these are so many different dequeues,
        so the last of them is not earlier than the time when the so-manieth was asked for.
        """
        takers = queue.takers
        for operation in self.history:
            if operation.answered_ms is None:
                counts = [step.count for step in operation.steps
                          if step.kind == DEQUEUE and step.queue == queue.name]
                if counts:
                    takers.append(operation.invoked_ms)
                    queue.take_most = max(queue.take_most, sum(counts))
        takers.sort()
        needed = run = 0
        for position, went in enumerate(queue.went):
            if went is not None:
                run = 0
                continue
            if run % queue.take_most == 0:
                needed += 1
            run += 1
            low = takers[needed - 1] if needed <= len(takers) else NEVER
            message = self._message_at(queue, position)
            queue.went[position] = (self.timeline.event((message, queue.name), low, NEVER), 0)

    def _message_at(self, queue: _Queue, position: int) -> bytes:
        event, at = queue.came[position]
        offset = queue.ids[position] - self._first_ids[event.what]
        for step in event.what.steps[:at]:
            offset -= len(step.messages)
        return event.what.steps[at].messages[offset]

    def _arrange_dequeues(self, queue: _Queue) -> None:
        before = self.timeline.before
        for came, went in zip(queue.came, queue.went):
            before(came, went, _CONSERVATION)
        for left, right in zip(queue.went, queue.went[1:]):
            if left != right:
                before(left, right, _FIFO)
        queue.line = Line(queue.came, queue.went)

    def _arrange_answer(self, place: Place, step: Step) -> None:
        """What a dequeue or a read says of the queue at its moment."""
        queue, timeline, answer = self._queues[step.queue], self.timeline, step.answer
        if step.kind == SIZE:
            unseen = sum(count for asked_ms, count in queue.unseen if asked_ms <= place[0].high)
            timeline.choices.append(
                Choice(place, queue.line, max(0, answer - unseen), answer, _SIZE))
            return
        if not answer:
            timeline.choices.append(Choice(place, queue.line, 0, 0, _EMPTY))
            return
        first = bisect_left(queue.ids, answer[0][0])
        last = first + len(answer) - 1
        rule = _PEEK if step.kind == PEEK else _FIFO
        if [i for i, _ in answer] != queue.ids[first:last + 1]:
            raise HistoryError(f"{rule}: not the next in order: {place[0].what}")
        if step.kind == PEEK:
            timeline.before(queue.came[last], place, rule)
            timeline.before(place, queue.went[first], rule)
            if first:
                timeline.before(queue.went[first - 1], place, rule)
        if len(answer) < step.count and last + 1 < len(queue.ids):
            # It asked for more than it got: the next had not come yet.
            timeline.before(place, queue.came[last + 1], _EMPTY)

    def _arrange_sessions(self) -> None:
        """A session's operations happen in order, and none is left out."""
        sessions: dict[tuple[str, int], list[Operation]] = {}
        for operation in self.history:
            if operation.session:
                sessions.setdefault((operation.client, operation.session), []).append(operation)
        for operations in sessions.values():
            operations.sort(key=lambda operation: operation.sequence)
            left = None
            skipped: list[Operation] = []
            for operation in operations:
                event = self._events.get(operation)
                if event is None:
                    skipped.append(operation)
                    continue
                if left is not None:
                    self.timeline.before((left, 0), (event, 0), _SESSION)
                left = event
                self._check_skipped(skipped, operation)

    def _check_skipped(self, skipped: list[Operation], operation: Operation) -> None:
        """What came before `operation` in its session was executed, and its messages, which nobody
        saw, stood before those of `operation`: if these went, those had been taken."""
        for step in operation.steps:
            gone = [self._went[m][0] for m in step.messages if m in self._went]
            queue = self._queues[step.queue]
            for earlier in skipped if gone else ():
                if any(s.messages and s.queue == step.queue for s in earlier.steps) and not (
                        queue.takers and queue.takers[0] <= self._events[gone[0]].high):
                    raise HistoryError(f"{_SESSION}: executed without what stood before it, or "
                                       f"that is lost: {earlier} | {operation}")
