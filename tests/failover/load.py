"""Load whose every read can be judged: numbered messages, who was told what, and readers.

What can be proven: one writer enqueues messages 1, 2, 3 ... into a queue of its own and takes one
out after every second, one call after the other, so that head and size always move. At any time the
state is known but for the call that is under way, and a linearizable read must lie between what was
acknowledged when it was asked and what was begun when it was answered. A `Watcher` asks one node
only, leader or not, all the time, over a connection that it keeps while the node is stopped: what a
woken leader answers to questions that waited in its socket is judged too.
"""

import itertools
import re
import threading
from typing import NamedTuple

from raftnet.client import Client
from raftnet.client.connection import Connection, clock
from raftnet.errors import FrameError
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind, encode_frame

QUEUE = "numbered"
ANSWER_S = 60.0             # each call's time limit: nothing here lasts as long
_REST_S = 0.002
_ASK_S = 0.02               # a Watcher asks so often
_NUMBER = re.compile(rb"number-(\d{8})")


class Bounds(NamedTuple):
    """What the writer had begun and been told at one moment; numbers of messages."""

    enqueued: int           # acknowledged
    enqueues_begun: int
    dequeued: int           # acknowledged
    dequeues_begun: int


class Known:
    """What is known of the queue. Written by one thread; `problems` by all of them."""

    def __init__(self):
        self.bounds = Bounds(0, 0, 0, 0)
        self.problems: list[str] = []
        self.reads = 0              # judged
        self.watched: dict[str, int] = {}       # of a Watcher: judged answers, by address

    def judge_size(self, before: Bounds, after: Bounds, size: int, who: str) -> None:
        """A SIZE asked and answered at those moments."""
        low = before.enqueued - after.dequeues_begun
        high = after.enqueues_begun - before.dequeued
        self._judge(low <= size <= high, f"{who}: size {size}, not within {low} to {high}")

    def judge_head(self, before: Bounds, after: Bounds, head: bytes, who: str) -> None:
        """The first message, as a PEEK saw it; b"" where it saw none."""
        if not head and before.enqueued <= after.dequeues_begun:
            return                      # it may well have been empty just then
        low, high = before.dequeued + 1, after.dequeues_begun + 1
        number = _number_of(head)
        self._judge(low <= number <= high, f"{who}: head {number}, not within {low} to {high}")

    def judge_log(self, before: Bounds, last: int, who: str) -> None:
        """The greatest number that the leader's log shows."""
        self._judge(last >= before.enqueued,
                    f"{who}: the log ends with {last}, {before.enqueued} was acknowledged")

    def _judge(self, right: bool, text: str) -> None:
        self.reads += 1
        if not right:
            self.problems.append(f"stale: {text}")


class _Thread(threading.Thread):
    """Works until told to stop; `error` is what ended it before."""

    def __init__(self, name: str, known: Known, stop: threading.Event):
        super().__init__(name=name)
        self.known = known
        self.error: BaseException | None = None
        self.stop_event = stop

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error      # told by the main thread
            self.stop_event.set()

    def work(self) -> None:
        """What it does."""
        raise NotImplementedError


class Writer(_Thread):
    """The only one that changes the queue."""

    def __init__(self, addresses: list[str], known: Known, stop: threading.Event):
        super().__init__("numbered writer", known, stop)
        self._addresses = addresses

    def work(self) -> None:
        known = self.known
        with Client(self._addresses, timeout_s=ANSWER_S) as client:
            queue = client.queue(QUEUE)
            for number in itertools.count(1):
                if self.stop_event.is_set():
                    return
                known.bounds = known.bounds._replace(enqueues_begun=number)
                queue.enqueue(f"number-{number:08d}")
                known.bounds = known.bounds._replace(enqueued=number)
                if number % 2 == 0:
                    self._dequeue(queue, number // 2)
                self.stop_event.wait(_REST_S)

    def _dequeue(self, queue, number: int) -> None:
        known = self.known
        known.bounds = known.bounds._replace(dequeues_begun=number)
        message = queue.dequeue()
        if message is None or _number_of(message.data) != number:
            known.problems.append(f"order: a dequeue gave {message}, not number {number}")
        known.bounds = known.bounds._replace(dequeued=number)


class Reader(_Thread):
    """Asks the leader through the library: size, head and log in turn."""

    def __init__(self, addresses: list[str], known: Known, stop: threading.Event):
        super().__init__("reader", known, stop)
        self._addresses = addresses
        self._next_index = 1
        self._last = 0              # the greatest number seen in the log

    def work(self) -> None:
        known = self.known
        with Client(self._addresses, timeout_s=ANSWER_S) as client:
            queue = client.queue(QUEUE)
            while not self.stop_event.is_set():
                before = known.bounds
                size = queue.size().messages
                known.judge_size(before, known.bounds, size, "the library")
                before = known.bounds
                found = queue.peek()
                head = found[0].data if found else b""
                known.judge_head(before, known.bounds, head, "the library")
                self._read_log(client)
                self.stop_event.wait(_REST_S)

    def _read_log(self, client: Client) -> None:
        before = self.known.bounds
        for entry in client.log(self._next_index):
            self._next_index = entry.index + 1
            self._last = max(self._last, *map(int, _NUMBER.findall(entry.data)), 0)
        self.known.judge_log(before, self._last, "the library")


class Watcher(_Thread):
    """Asks that one node for size and head in turn, several questions at a time, also while it
    stands still."""

    def __init__(self, address: str, known: Known, stop: threading.Event):
        super().__init__(f"watcher of {address}", known, stop)
        self._address = address
        self._open: dict[int, Bounds] = {}      # request id -> known when asked
        self._ids = itertools.count(1)
        # even request ids ask for the size, odd ones for the head
        name = QUEUE.encode()
        self._questions = [requests.encode_read(False, command) for command in (
            commands.encode_size(name), commands.encode_peek(name, 1))]

    def work(self) -> None:
        while not self.stop_event.is_set():
            self._open.clear()
            try:
                self._watch(Connection(self._address, clock() + ANSWER_S))
            except (OSError, FrameError):
                self.stop_event.wait(_ASK_S)        # down just now

    def _watch(self, connection: Connection) -> None:
        try:
            while not self.stop_event.is_set():
                request_id = next(self._ids)
                self._open[request_id] = self.known.bounds
                frame = encode_frame(Kind.READ, request_id, self._questions[request_id % 2])
                connection.send(frame, clock() + ANSWER_S)
                self.stop_event.wait(_ASK_S)
                while connection.readable:
                    for received in connection.receive(clock() + ANSWER_S):
                        self._judge(*received)
        finally:
            connection.close()

    def _judge(self, kind: int, request_id: int, body: bytes) -> None:
        known = self.known
        before, after = self._open.pop(request_id), known.bounds
        if kind != Kind.READ_REPLY:
            return                  # it does not lead, and says so
        _, status, payload = requests.decode_read_reply(body)
        if request_id % 2:
            found = commands.decode_messages(payload) if status == Status.OK else []
            head = found[0][1] if found else b""
            known.judge_head(before, after, head, self._address)
        else:
            size = commands.decode_size_result(payload)[0] if status == Status.OK else 0
            known.judge_size(before, after, size, self._address)
        known.watched[self._address] = known.watched.get(self._address, 0) + 1


def _number_of(data: bytes) -> int:
    found = _NUMBER.fullmatch(data)
    return int(found[1]) if found else -1
