"""Messages that pass through a queue: enqueued pipelined, dequeued many at a time, each checked.

One thread a queue, in rounds: it puts a number of messages in and takes as many out, which must be
the same, in their order, under the ids that were acknowledged. So nothing is lost, doubled or out
of order, whatever happens to the nodes meanwhile.
"""

import random
import threading
from collections.abc import Callable

from raftnet.client import Client, Queue
from tools.processes import wait_until

ROUND = 1_000               # messages in and out again
CALL_S = 60.0               # time limit of a call: no fault here lasts as long
DEFAULT_BYTES = (90, 110)   # of a message, from and to


class Passing(threading.Thread):
    """One client and its queue. `passed` grows until `count` (None: until `end`); `error` is what
    ended it early, None where nothing did. `rest_s` passes between two rounds."""

    def __init__(self, name: str, addresses: list[str], count: int | None = None,
                 sizes: tuple[int, int] = DEFAULT_BYTES, round_: int = ROUND, rest_s: float = 0.0):
        super().__init__(name=name)
        self.passed = 0
        self.error: BaseException | None = None
        self._addresses = addresses
        self._count = count
        self._sizes = sizes
        self._round = round_
        self._rest_s = rest_s
        self._stop_event = threading.Event()
        self._random = random.Random(name)

    def run(self) -> None:
        try:
            with Client(self._addresses, timeout_s=CALL_S) as client:
                queue = client.queue(self.name)
                while not self._stop_event.is_set() and (self._count is None
                                                         or self.passed < self._count):
                    self._pass(queue)
                    if self._rest_s:
                        self._stop_event.wait(self._rest_s)
        except BaseException as error:
            self.error = error      # raised again by `check`

    def _pass(self, queue: Queue) -> None:
        wanted = [self._message(self.passed + number) for number in range(self._round)]
        ids = queue.enqueue_many(wanted)
        found: list[tuple[int, bytes]] = []
        while len(found) < self._round:
            messages = queue.dequeue_many(self._round - len(found))
            assert messages, f"{self.name}: {len(found)} messages are left of {self._round}"
            found += [(message.id, message.data) for message in messages]
        assert found == list(zip(ids, wanted)), (
            f"{self.name}: other messages came out than went in, from message {ids[0]} on")
        self.passed += self._round

    def _message(self, number: int) -> bytes:
        return b"%0*d" % (self._random.randint(*self._sizes), number)

    def end(self) -> None:
        """Let it end its round, and wait for that."""
        self._stop_event.set()
        self.join()

    def check(self) -> None:
        """Raises AssertionError for whatever ended it early."""
        if self.error is not None:
            raise AssertionError(f"{self.name} ended after {self.passed} messages: {self.error!r}"
                                 ) from self.error


class Load:
    """Several of them. A context manager: started on entry, ended and checked on exit."""

    def __init__(self, passings: list[Passing]):
        self.passings = passings

    def __enter__(self) -> "Load":
        for passing in self.passings:
            passing.start()
        return self

    def __exit__(self, kind, *_) -> None:
        for passing in self.passings:
            passing.end()
        if kind is None:
            self.check()

    @property
    def passed(self) -> int:
        """Messages so far, of all of them."""
        return sum(passing.passed for passing in self.passings)

    def check(self) -> None:
        """Raises AssertionError where one has ended early."""
        for passing in self.passings:
            passing.check()

    def wait_passed(self, count: int, limit_s: float,
                    each: Callable[[], None] = lambda: None) -> None:
        """Until so many have passed in all; `each()` is called all the time meanwhile."""
        def reached() -> bool:
            self.check()
            each()
            return self.passed >= count
        wait_until(reached, limit_s, f"{count} messages have passed")

    def wait_more(self, count: int, limit_s: float) -> None:
        """Until so many more have passed."""
        self.wait_passed(self.passed + count, limit_s)
