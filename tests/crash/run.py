"""The crash test: real nodes killed with kill -9 under load, and what must hold afterwards.

Three nodes; clients in threads, each producer and consumer in turn, on one queue. A round kills a
node (half of the time the leader; in some rounds two at once), waits a little, starts it again and
waits until answers go on. At the end all nodes are killed at once and started one after the other.
Then the queue is drained, and the history, the digests and the logs are checked.
"""

import random
import threading
import time
from collections.abc import Callable

from raftnet.client import Client
from raftnet.errors import NoAnswerError
from tests.crash.history import History, violations
from tools.processes import LocalCluster, wait_until

CLIENTS = 8
QUEUE = "crash"
# Kills: the leader in half of the rounds of one node.
ROUNDS = ("leader", "any", "leader", "two", "any")
ANSWER_S = 60.0             # each call's time limit: no crash here lasts as long
_AFTER_ROUND = 60           # answers before the next round begins
_DOWN_S = (0.05, 0.8)       # how long a node stays dead
_STAGGER_S = 0.3
_DRAIN = 500                # messages at once


class CrashFailure(Exception):
    """Something does not hold; the text says what, and where the logs are."""


class Worker(threading.Thread):
    """One client: enqueues some numbered messages, dequeues some, until told to stop.

    `error` is what ended it, None where nothing did; `longest_s` its longest answered call, less
    what it asked to wait. It rests `rest_s` between any two calls.
    """

    def __init__(self, number: int, addresses: list[str], history: History,
                 stop: threading.Event, seed: int, rest_s: float = 0.0):
        super().__init__(name=f"client {number}")
        self.number = number
        self.error: BaseException | None = None
        self.longest_s = 0.0
        self._addresses = addresses
        self._history = history
        self._stop_event = stop
        self._rest_s = rest_s
        self._random = random.Random(seed)
        self._next = 1

    def run(self) -> None:
        try:
            with Client(self._addresses, timeout_s=ANSWER_S) as client:
                queue = client.queue(QUEUE)
                while not self._stop_event.is_set():
                    self._enqueue(queue)
                    self._dequeue(queue)
        except BaseException as error:
            self.error = error      # raised again by the main thread
            self._stop_event.set()

    def _enqueue(self, queue) -> None:
        for _ in range(self._random.randint(1, 4)):
            enqueue = self._history.begin(self.number, self._next)
            self._next += 1
            try:
                self._history.end(enqueue, queue.enqueue(enqueue.text))
            except NoAnswerError:
                continue    # its outcome stays unknown in the history
            self._answered(enqueue.ended_s - enqueue.begun_s)

    def _dequeue(self, queue) -> None:
        count = self._random.randint(1, 4)
        wait_s = 0.2 if self._random.random() < 0.1 else 0.0
        began = time.monotonic()
        try:
            messages = queue.dequeue_many(count, wait_s)
        except NoAnswerError as error:
            self._history.dequeues_unknown += 0 if error.known else count
            return
        self._history.deliver(f"c{self.number}", [(m.id, m.text) for m in messages])
        self._answered(time.monotonic() - began - wait_s)

    def _answered(self, seconds: float) -> None:
        self.longest_s = max(self.longest_s, seconds)
        if self._rest_s:
            self._stop_event.wait(self._rest_s)


class CrashRun:
    """One run; `say(text)` hears of its progress. Raises CrashFailure."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda text: None):
        self.seed = seed
        self.history = History()
        self.gaps_s: dict[str, float] = {}      # kind of round -> longest time without an answer
        self._random = random.Random(seed)
        self._say = say
        self._stop = threading.Event()

    def run(self, rounds: list[str]) -> None:
        """The rounds, then all at once, then the checks."""
        with LocalCluster(3) as cluster:
            cluster.start()
            workers = [Worker(number, cluster.addresses, self.history, self._stop,
                              self._random.randrange(1 << 32)) for number in range(CLIENTS)]
            for worker in workers:
                worker.start()
            try:
                self._await_answers(cluster)
                for number, kind in enumerate(rounds, 1):
                    self._round(cluster, f"round {number} of {len(rounds)}", kind)
                self._round(cluster, "at the end", "all")
            except BaseException:
                cluster.keep()
                raise
            finally:
                self._stop.set()
                for worker in workers:
                    worker.join()
            try:
                check(cluster, cluster.addresses, self.history, workers)
            except CrashFailure as error:
                raise CrashFailure(f"seed {self.seed}, {error}") from None
            except BaseException:
                cluster.keep()
                raise

    def _round(self, cluster: LocalCluster, name: str, kind: str) -> None:
        leader = cluster.leader()
        victims = {"leader": [leader], "any": [self._random.choice(cluster.nodes)],
                   "two": self._random.sample(cluster.nodes, 2), "all": cluster.nodes}[kind]
        start_s = time.monotonic()
        if kind == "all":
            cluster.kill()
            for node in victims:
                node.start()
                time.sleep(_STAGGER_S)
        else:
            for node in victims:
                node.kill()
            time.sleep(self._random.uniform(*_DOWN_S))
            for node in victims:
                node.start()
        for node in victims:
            node.wait_ready()
        self._await_answers(cluster)
        gap_s = self.history.longest_gap_s(start_s, time.monotonic())
        self.gaps_s[kind] = max(self.gaps_s.get(kind, 0.0), gap_s)
        dead = ", ".join(node.address + (" (leader)" if node is leader else "")
                         for node in victims)
        self._say(f"{name}: kill -9 {dead}: longest time without an answer {gap_s:.3f} s, "
                  f"{len(self.history.answers_s)} answers so far")

    def _await_answers(self, cluster: LocalCluster) -> None:
        target = len(self.history.answers_s) + _AFTER_ROUND

        def enough() -> bool:
            if self._stop.is_set():
                return True         # a client failed: `check` says why
            return len(self.history.answers_s) >= target
        wait_until(enough, ANSWER_S, f"answers go on; the logs: {cluster.directory}")

    def summary(self) -> str:
        """One line of figures."""
        known = [enqueue for enqueue in self.history.enqueues if enqueue.message_id]
        delivered = sum(len(messages) for messages in self.history.deliveries.values())
        gaps = ", ".join(f"{kind} {gap_s:.3f} s" for kind, gap_s in self.gaps_s.items())
        return (f"{len(known)} enqueues acknowledged, "
                f"{len(self.history.enqueues) - len(known)} of unknown outcome, {delivered} "
                f"delivered, each once and in order; longest time without an answer: {gaps}")


def check(cluster: LocalCluster, addresses: list[str], history: History,
          workers: list[Worker]) -> None:
    """When the workers have ended: drain the queue; the history, the digests and the logs of the
    nodes at `addresses`, which are all that run, must be right. Raises CrashFailure."""
    problems = [f"{worker.name}: {worker.error!r}" for worker in workers
                if worker.error is not None]
    with Client(addresses, timeout_s=ANSWER_S) as client:
        queue = client.queue(QUEUE)
        while messages := queue.dequeue_many(_DRAIN):
            history.deliver("drain", [(m.id, m.text) for m in messages])
        cluster.wait_settled()      # digests are equal at equal applied index
        logs = {address: b"".join(entry.data for entry in client.log(local=address))
                for address in addresses}
    if len(set(logs.values())) != 1:
        problems.append("the nodes' logs differ")
    for node in cluster.nodes:
        if "Traceback" in node.log_text():
            problems.append(f"{node.address} wrote a traceback")
    problems += violations(history)
    if problems:
        raise CrashFailure(f"{len(problems)} violations; the logs: {cluster.keep()}\n"
                           + "\n".join(problems[:20]))
