"""What clients did and saw, and what must hold of it whatever crashed in between.

What can be proven: one counter gives message ids in the order in which enqueues take effect, and a
dequeue takes the head. So, of one queue,

- an acknowledged message is delivered exactly once, with the id and the text that it was
  acknowledged with; one whose outcome its producer never learned at most once; no other ever;
- ids rise with the numbers of each producer, which enqueues one after the other; and an enqueue
  that began when another was acknowledged already has the greater id;
- each consumer, which dequeues one after the other, sees rising ids.

A dequeue whose outcome its consumer never learned may have taken up to `count` messages: so many
acknowledged ones may be missing, and no more.
"""

import bisect
import time
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(slots=True)
class Enqueue:
    """One message. Times in seconds of one clock for all clients."""

    producer: int
    number: int             # its producer's own counting, from 1
    begun_s: float
    message_id: int = 0     # 0: the outcome is unknown
    ended_s: float = 0.0

    @property
    def text(self) -> str:
        """What is in the queue."""
        return f"c{self.producer}-{self.number:06d}"


@dataclass(slots=True)
class History:
    """Everything that happened. Each list is appended to by one thread, or under the interpreter's
    lock."""

    enqueues: list[Enqueue] = field(default_factory=list)
    # consumer -> (message id, text) in the order in which it got them
    deliveries: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    dequeues_unknown: int = 0           # messages that dequeues of unknown outcome may have taken
    answers_s: list[float] = field(default_factory=list)    # when anybody got any answer

    def begin(self, producer: int, number: int) -> Enqueue:
        """An enqueue is about to be sent."""
        enqueue = Enqueue(producer, number, time.monotonic())
        self.enqueues.append(enqueue)
        return enqueue

    def end(self, enqueue: Enqueue, message_id: int) -> None:
        """It was acknowledged."""
        enqueue.ended_s = time.monotonic()
        enqueue.message_id = message_id
        self.answers_s.append(enqueue.ended_s)

    def deliver(self, consumer: str, messages: list[tuple[int, str]]) -> None:
        """A dequeue gave these."""
        self.answers_s.append(time.monotonic())
        self.deliveries.setdefault(consumer, []).extend(messages)

    def longest_gap_s(self, start_s: float, end_s: float) -> float:
        """The longest time without an answer between two moments."""
        inside = sorted(t for t in self.answers_s if start_s <= t <= end_s)
        moments = [start_s, *inside, end_s]
        return max(b - a for a, b in zip(moments, moments[1:]))


def violations(history: History) -> list[str]:
    """A line for everything that does not hold, with the kind of violation first; [] is right."""
    found = _check_deliveries(history)
    found += _check_producers(history)
    found += _check_time(history)
    for consumer, messages in history.deliveries.items():
        ids = [message_id for message_id, _ in messages]
        found += [f"order: consumer {consumer} got {b} after {a}"
                  for a, b in zip(ids, ids[1:]) if b <= a]
    return found


def _check_deliveries(history: History) -> list[str]:
    found = []
    known = {enqueue.text: enqueue for enqueue in history.enqueues}
    times: dict[str, int] = {}
    ids: dict[int, str] = {}
    for messages in history.deliveries.values():
        for message_id, text in messages:
            times[text] = times.get(text, 0) + 1
            enqueue = known.get(text)
            if enqueue is None:
                found.append(f"invented: {text!r} was never enqueued")
            elif enqueue.message_id not in (0, message_id):
                found.append(f"changed: {text} was acknowledged as message {enqueue.message_id} "
                             f"and delivered as {message_id}")
            other = ids.setdefault(message_id, text)
            if other != text:
                found.append(f"changed: message {message_id} is {other} and {text}")
    found += [f"duplicate: {text} was delivered {count} times"
              for text, count in times.items() if count > 1]
    lost = [enqueue.text for enqueue in history.enqueues
            if enqueue.message_id and enqueue.text not in times]
    if len(lost) > history.dequeues_unknown:
        found.append(f"lost: {len(lost)} acknowledged messages were never delivered, among them "
                     f"{', '.join(lost[:5])}; {history.dequeues_unknown} may be")
    return found


def _check_producers(history: History) -> list[str]:
    """Ids rise with the numbers, also where only the delivery tells the id."""
    delivered = {text: message_id for messages in history.deliveries.values()
                 for message_id, text in messages}
    found = []
    last: dict[int, tuple[int, str]] = {}
    for enqueue in sorted(history.enqueues, key=lambda e: (e.producer, e.number)):
        message_id = enqueue.message_id or delivered.get(enqueue.text)
        if message_id is None:
            continue
        before, text = last.get(enqueue.producer, (0, ""))
        if message_id <= before:
            found.append(f"order: {enqueue.text} is message {message_id}, {text} before it is "
                         f"{before}")
        last[enqueue.producer] = (message_id, enqueue.text)
    return found


def _check_time(history: History) -> list[str]:
    """An enqueue begun after another's acknowledgement comes behind it."""
    acknowledged = sorted((e for e in history.enqueues if e.message_id),
                          key=lambda e: e.ended_s)
    ended = [enqueue.ended_s for enqueue in acknowledged]
    highest = list(accumulate((e.message_id for e in acknowledged), max))
    found = []
    for enqueue in acknowledged:
        before = bisect.bisect_left(ended, enqueue.begun_s)
        if before and highest[before - 1] >= enqueue.message_id:
            found.append(f"time: {enqueue.text} is message {enqueue.message_id}, but "
                         f"{highest[before - 1]} was acknowledged before it began")
    return found
