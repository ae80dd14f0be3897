"""Fail-over of real nodes under load: the leader killed, the leader stopped, a follower stopped.

Three nodes on loopback with their default settings, clients of the library under steady load (those
of tests/crash, whose history is checked), and load whose reads can be judged (load.py). Figures are
told, and judged in the long form by whoever reads them: how fast this is depends on what else the
machine does. What must hold at any speed raises FailoverFailure.
"""

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.crash.history import History
from tests.crash.run import ANSWER_S, CrashFailure, Worker, check
from tests.failover.load import Known, Reader, Watcher, Writer
from tests.failover.timeline import Timeline
from tools.processes import LocalCluster, NodeProcess, wait_until

CLIENTS = 4
STOPS_S = (0.1, 0.5, 2.0, 5.0, 30.0)
NO_ELECTION_S = 0.1         # a leader that stands still for so long is not missed
ELECTIONS_MAX = 2           # because a leader stands still for longer
_REST_S = 0.005             # of each client between two calls
_ALONE_S = 0.06             # followers stand still for so long before a leader does, and after
_STEADY = 100               # answers before the next thing happens
WINDOW_S = 1.0              # of throughput before and after, at least
_WINDOW_S_MAX = 5.0


class FailoverFailure(Exception):
    """Something does not hold; the text says what, and where the logs are."""


class Stop(NamedTuple):
    """What one SIGSTOP did. Rates in answers a second."""

    seconds: float
    gap_s: float
    elections: int          # by how much the term went up
    before: float
    during: float
    after: float


class FailoverRun:
    """One run, a context manager; `say(text)` hears of its progress.

    `judged`: with the load whose reads can be judged, too. `window_s`: how long throughput is
    measured before and after a stop, at least; 0: not at all, where nobody looks at the figures.
    """

    def __init__(self, judged: bool, say: Callable[[str], None] = lambda text: None,
                 clients: int = CLIENTS, window_s: float = WINDOW_S):
        self.history = History()
        self.known = Known()
        self.gaps_s: list[float] = []           # of the kills
        self.timelines: list[Timeline] = []     # of the kills
        self._say = say
        self._judged = judged
        self._window_s = window_s
        self._stop = threading.Event()
        self.cluster = LocalCluster(3)
        self._clients = clients
        self._threads: list = []
        self._workers: list[Worker] = []

    def __enter__(self) -> "FailoverRun":
        try:
            cluster = self.cluster.start()
            self._workers = [Worker(number, cluster.addresses, self.history, self._stop, number,
                                    _REST_S) for number in range(self._clients)]
            self._threads = list(self._workers)
            if self._judged:
                self._threads += [
                    kind(cluster.addresses, self.known, self._stop) for kind in (Writer, Reader)]
                self._threads += [Watcher(address, self.known, self._stop)
                                  for address in cluster.addresses]
            for thread in self._threads:
                thread.start()
            self._await_answers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for node in self.cluster.nodes:
            node.resume()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.cluster.close()

    # --- what is done to the nodes

    def kill_leader(self) -> float:
        """kill -9, start it again, settle; the longest time without an answer, in seconds."""
        leader = self.cluster.leader()
        time.sleep(random.uniform(0.0, 0.1))    # any phase of the heartbeats
        start_s, wall_s = time.monotonic(), time.time()
        leader.kill()
        self._await_answers()
        gap_s = self.history.longest_gap_s(start_s - 0.05, time.monotonic())
        self.gaps_s.append(gap_s)
        first_s = min(t for t in self.history.answers_s if t > start_s + gap_s / 2) - start_s
        others = [node for node in self.cluster.nodes if node is not leader]
        timeline = Timeline(wall_s, leader.address, {n.address: n.log_text() for n in others},
                            first_s)
        self.timelines.append(timeline)
        leader.start()
        leader.wait_ready()
        self._await_caught_up(leader)
        self._say(f"kill {len(self.gaps_s)}: {leader.address}, gap {gap_s * 1000:.0f} ms "
                  f"({timeline})")
        return gap_s

    def stop_leader(self, seconds: float) -> Stop:
        """SIGSTOP, and SIGCONT after that time.

        The followers stand still around that moment: so the questions of watchers lie in its
        sockets before any word of the others, and are what it sees first when it wakes up.
        """
        leader = self.cluster.leader()
        others = [n for n in self.cluster.nodes if n is not leader and seconds > NO_ELECTION_S]
        stop = self._suspended(leader, seconds, others)
        self._say(f"leader stopped for {seconds:g} s: longest time without an answer "
                  f"{stop.gap_s * 1000:.0f} ms, {stop.elections} elections, "
                  f"{self.known.reads} reads judged so far")
        # One suffices; a vote that is split costs another.
        if stop.elections > (0 if seconds <= NO_ELECTION_S else ELECTIONS_MAX):
            raise FailoverFailure(f"{stop.elections} elections because a leader stood still for "
                                  f"{seconds:g} s; the logs: {self.cluster.keep()}")
        return stop

    def stop_follower(self, seconds: float) -> Stop:
        """SIGSTOP of one that does not lead, and SIGCONT after that time."""
        leader = self.cluster.leader()
        follower = random.choice([n for n in self.cluster.nodes if n is not leader])
        stop = self._suspended(follower, seconds)
        self._say(f"follower stopped for {seconds:g} s: longest time without an answer "
                  f"{stop.gap_s * 1000:.0f} ms, {stop.elections} elections; answers a second "
                  f"{stop.before:.0f} before, {stop.during / stop.before:.2f} of that during, "
                  f"{stop.after / stop.before:.2f} after")
        if stop.elections:
            raise FailoverFailure(f"an election because a follower stood still for {seconds:g} s; "
                                  f"the logs: {self.cluster.keep()}")
        return stop

    def _suspended(self, node: NodeProcess, seconds: float, others: Iterable[NodeProcess] = ()
                   ) -> Stop:
        window_s = self._window_s and min(max(seconds, self._window_s), _WINDOW_S_MAX)
        term = self._term()
        before = self._rate(window_s)
        start_s = time.monotonic()
        try:
            for other in others:
                other.suspend()
            self._stop.wait(_ALONE_S if others else 0.0)
            node.suspend()
            self._stop.wait(_ALONE_S if others else 0.0)
            for other in others:
                other.resume()
            during = self._rate(seconds)
        finally:
            node.resume()
        after = self._rate(window_s)
        self._await_answers()
        gap_s = self.history.longest_gap_s(start_s, time.monotonic())
        self._await_caught_up(node)
        return Stop(seconds, gap_s, self._term() - term, before, during, after)

    def _rate(self, seconds: float) -> float:
        count, start_s = len(self.history.answers_s), time.monotonic()
        self._stop.wait(seconds)
        return max(1, len(self.history.answers_s) - count) / max(0.001, time.monotonic() - start_s)

    def _term(self) -> int:
        self.cluster.leader()
        return max(status.term for status in self.cluster.statuses().values())

    def _await_answers(self) -> None:
        target = len(self.history.answers_s) + _STEADY

        def enough() -> bool:
            # a thread failed: `finish` says why
            return self._stop.is_set() or len(self.history.answers_s) >= target
        wait_until(enough, ANSWER_S, f"answers go on; the logs: {self.cluster.directory}")

    def _await_caught_up(self, node: NodeProcess) -> None:
        """Until it has applied what is committed now."""
        target = self.cluster.leader().status(ANSWER_S).commit_index

        def caught_up() -> bool:
            status = node.status()
            return status is not None and status.applied_index >= target
        wait_until(caught_up, ANSWER_S, f"{node.address} catches up; "
                                        f"the logs: {self.cluster.directory}")

    # --- the end

    def finish(self) -> None:
        """End the load, check all. Raises FailoverFailure."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        problems = [f"{thread.name}: {thread.error!r}" for thread in self._threads
                    if thread.error is not None]
        problems += self.known.problems
        try:
            check(self.cluster, self.cluster.addresses, self.history, self._workers)
        except CrashFailure as error:
            problems.append(str(error))
        if problems:
            raise FailoverFailure(f"{len(problems)} problems; the logs: {self.cluster.keep()}\n"
                                  + "\n".join(problems[:20]))

    def summary(self) -> str:
        """A few lines of figures."""
        known = sum(1 for enqueue in self.history.enqueues if enqueue.message_id)
        lines = [f"{known} enqueues acknowledged, each delivered once and in order; "
                 f"{self.known.reads} reads judged, none stale"]
        if self.gaps_s:
            lines.append(f"{len(self.gaps_s)} kills: time between two acknowledged writes: median "
                         f"{statistics.median(self.gaps_s) * 1000:.0f} ms, worst "
                         f"{max(self.gaps_s) * 1000:.0f} ms")
            lines += Timeline.medians(self.timelines)
        lines.append("load average {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
        return "\n".join(lines)
