"""Load for clients that are cut off: calls with short time limits, and what is said when they end.

What can be proven of a call that ends without an answer: it ended in time; where it says that it
was surely not executed, its message never comes out of the queue; where it says that this is
unknown, asking again under the same session tells the outcome, and executes nothing twice. So no
outcome of a dequeue is ever missing from the history, and some of the enqueues that were left
unknown are asked for again; the others are left as they are.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from raftnet.client import Client
from raftnet.client.connection import Connection, clock
from raftnet.errors import FrameError, NoAnswerError
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind, encode_frame
from tests.crash.history import Enqueue, History
from tests.crash.run import QUEUE
from tests.failover.load import QUEUE as NUMBERED
from tests.failover.load import Bounds, Known

LIMIT_S = 1.5               # of each call; faults last several times as long
PATIENT_S = 20.0            # of a call that must find whoever leads by itself
LATE_S = 1.0                # so much later a call may return
AGAIN_S = 60.0              # until an outcome that is asked for again must be there
REST_S = 0.015              # of each caller between two calls
ASK_S = 0.04                # a LeaderWatcher asks so often
BIG_BYTES = 200 * 1024
BIG_S = 1.5                 # between two big messages
BIG_QUEUE = "big"
_DIAL_S = 1.0
_GENERATIONS_MAX = 10_000


class Answer(NamedTuple):
    """A read that a node answered as the leader. Seconds of time.monotonic()."""

    address: str
    asked_s: float
    answered_s: float


@dataclass(slots=True)
class Record:
    """What all callers of a run saw. Lists are appended to by many threads."""

    history: History = field(default_factory=History)
    problems: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)      # enqueues that surely never happened
    unanswered: int = 0         # calls whose time was over
    asked_again: int = 0        # outcomes that came after all, under the same session

    @property
    def counts(self) -> tuple[int, int, int]:
        """(calls out of time, enqueues refused, outcomes asked for again) until now."""
        return self.unanswered, len(self.refused), self.asked_again

    def untrue(self) -> list[str]:
        """A line for each message that came out although its enqueue was surely not executed."""
        delivered = {text for messages in list(self.history.deliveries.values())
                     for _, text in messages}
        return [f"untrue: {text} was surely not executed, and was delivered"
                for text in sorted(self.refused & delivered)]


class Caller(threading.Thread):
    """One client that enqueues some numbered messages, dequeues some, until told to stop.

    `error` is what ended it, None where nothing did. `number` is its own in the whole run. A
    `patient` one always reaches a quorum: every call must find the leader before its time is over.
    """

    def __init__(self, number: int, addresses: list[str], record: Record, stop: threading.Event,
                 seed: int, patient: bool):
        super().__init__(name=f"client {number}")
        self.number = number
        self.error: BaseException | None = None
        self._patient = patient
        self._limit_s = PATIENT_S if patient else LIMIT_S
        self._addresses = addresses
        self._record = record
        self._stop_event = stop
        self._random = random.Random(seed)
        self._generation = 0        # a new producer begins after an outcome that stays unknown
        self._next = 1

    def run(self) -> None:
        try:
            with Client(self._addresses, timeout_s=self._limit_s) as client:
                queue = client.queue(QUEUE)
                while not self._stop_event.is_set():
                    for _ in range(self._random.randint(1, 3)):
                        self._enqueue(queue)
                    self._dequeue(queue)
        except BaseException as error:
            self.error = error      # told by the main thread
            self._stop_event.set()

    def _enqueue(self, queue) -> None:
        record, producer = self._record, self.number * _GENERATIONS_MAX + self._generation
        enqueue = record.history.begin(producer, self._next)
        self._next += 1
        try:
            message_id = self._timed(lambda: queue.enqueue(enqueue.text))
        except NoAnswerError as error:
            if error.known:
                record.refused.add(enqueue.text)
            else:
                self._settle(enqueue, error)
            return
        record.history.end(enqueue, message_id)
        self._stop_event.wait(REST_S)

    def _settle(self, enqueue: Enqueue, error: NoAnswerError) -> None:
        if self._random.random() < 0.3:
            message_id = self._again(error, lambda queue: queue.enqueue(enqueue.text))
            self._record.history.end(enqueue, message_id)
        else:
            # It may be executed much later, after what this client enqueues next.
            self._generation += 1
            self._next = 1

    def _dequeue(self, queue) -> None:
        count = self._random.randint(1, 3)
        try:
            messages = self._timed(lambda: queue.dequeue_many(count))
        except NoAnswerError as error:
            if error.known:
                return
            messages = self._again(error, lambda again: again.dequeue_many(count))
        self._record.history.deliver(f"c{self.number}", [(m.id, m.text) for m in messages])
        self._stop_event.wait(REST_S)

    def _timed(self, call: Callable):
        """What the call gives; it must come, or fail, in time."""
        began = time.monotonic()
        try:
            return call()
        except NoAnswerError as error:
            self._record.unanswered += 1
            if self._patient:
                self._record.problems.append(f"{self.name} did not find the leader: {error}")
            raise
        finally:
            took = time.monotonic() - began
            if took > self._limit_s + LATE_S:
                self._record.problems.append(f"late: a call of {self.name} with a limit of "
                                             f"{self._limit_s:g} s took {took:.2f} s")

    def _again(self, error: NoAnswerError, call: Callable):
        """Ask for the outcome of a call until it is told."""
        if error.resume is None:
            raise error             # there is nothing left that could be asked for
        session, _, sequence = error.resume.partition(":")
        resume = (bytes.fromhex(session), int(sequence))
        end = time.monotonic() + AGAIN_S
        while True:
            with Client(self._addresses, timeout_s=self._limit_s, resume=resume) as client:
                try:
                    result = self._timed(lambda: call(client.queue(QUEUE)))
                except NoAnswerError as again:
                    if again.known:
                        self._record.problems.append(
                            f"untrue: the outcome under {error.resume} was unknown; asked again, "
                            f"it is 'surely not executed' without an answer: {again}")
                    if time.monotonic() > end:
                        raise
                    continue
            self._record.asked_again += 1
            return result


class BigSender(threading.Thread):
    """Enqueues a big message now and then, and takes it out again."""

    def __init__(self, addresses: list[str], stop: threading.Event):
        super().__init__(name="sender of big messages")
        self.error: BaseException | None = None
        self.sent = 0
        self._addresses = addresses
        self._stop_event = stop

    def run(self) -> None:
        try:
            with Client(self._addresses, timeout_s=AGAIN_S) as client:
                queue = client.queue(BIG_QUEUE)
                while not self._stop_event.is_set():
                    queue.enqueue(bytes(BIG_BYTES))
                    queue.dequeue()
                    self.sent += 1
                    self._stop_event.wait(BIG_S)
        except BaseException as error:
            self.error = error
            self._stop_event.set()


class LeaderWatcher(threading.Thread):
    """Asks one node only for the size of the numbered queue, leader or not, all the time, and
    keeps its connection while nothing passes. What it answers is judged, and noted down."""

    def __init__(self, address: str, known: Known, answers: list[Answer], stop: threading.Event):
        super().__init__(name=f"watcher of {address}")
        self.error: BaseException | None = None
        self._address = address
        self._known = known
        self._answers = answers
        self._stop_event = stop
        self._ids = itertools.count(1)
        self._open: dict[int, tuple[float, Bounds]] = {}    # request id -> when, known then
        self._question = requests.encode_read(False, commands.encode_size(NUMBERED.encode()))

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                self._open.clear()
                try:
                    self._watch(Connection(self._address, clock() + _DIAL_S))
                except (OSError, FrameError):
                    self._stop_event.wait(ASK_S)        # out of reach just now
        except BaseException as error:
            self.error = error
            self._stop_event.set()

    def _watch(self, connection: Connection) -> None:
        try:
            while not self._stop_event.is_set():
                request_id = next(self._ids)
                self._open[request_id] = time.monotonic(), self._known.bounds
                connection.send(encode_frame(Kind.READ, request_id, self._question),
                                clock() + _DIAL_S)
                self._stop_event.wait(ASK_S)
                while connection.readable:
                    for received in connection.receive(clock() + _DIAL_S):
                        self._judge(*received)
        finally:
            connection.close()

    def _judge(self, kind: int, request_id: int, body: bytes) -> None:
        asked_s, before = self._open.pop(request_id)
        after, now = self._known.bounds, time.monotonic()
        if kind != Kind.READ_REPLY:
            return                  # it does not lead, and says so
        _, status, payload = requests.decode_read_reply(body)
        size = commands.decode_size_result(payload)[0] if status == Status.OK else 0
        self._known.judge_size(before, after, size, self._address)
        self._answers.append(Answer(self._address, asked_s, now))
