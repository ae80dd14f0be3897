"""Partitions of real nodes under load, in an emulated network; and leaders that fall silent.

Each node is a host; clients are on two more, one of which may be cut off with a minority. All nodes
have their default settings. A fault begins under load, lasts until answers go on and a while
longer, and is healed; then all must become equal. load.py, leaders.py, tests/crash and
tests/failover judge what was seen, faults.py says how many elections each kind may cost. How fast
it was is told, and judged by whoever reads it. This needs root: see tools/netem.py.
"""

import contextlib
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from raftnet.client import Client
from tests.crash.run import CrashFailure, check
from tests.failover.load import QUEUE as NUMBERED
from tests.failover.load import Known, Reader, Writer
from tests.failover.timeline import Timeline
from tests.partitions import leaders
from tests.partitions.faults import FAULTS, FLAPPING, HOLD_S, Scene
from tests.partitions.load import BIG_QUEUE, Answer, BigSender, Caller, LeaderWatcher, Record
from tools.netem import Network
from tools.processes import LocalCluster, NodeProcess, check_digests, wait_until

NEAR_PROFILE = "delay 1ms 0.2ms"
FAR_PROFILE = "delay 20ms 5ms loss 1%"
SILENT_PROFILE = "delay 0.1ms"
CALLERS = 3                 # on each of the two hosts of clients
FLAPPING_S = 20.0
STEADY_S = 1.0
GO_ON_S = 30.0              # until answers go on; nothing here takes a tenth of it
HEAL_S = 60.0               # until all is equal after a heal
SPLIT_MAX = 2               # votes of one fault that may be split between two candidates
_STEADY = 60                # answers before a fault begins, and until they go on
_DRAIN = 500
_CALLERS_MAX = 100          # numbers of callers of one load


class PartitionFailure(Exception):
    """Something does not hold; the text says what, and where the logs are."""


class Figures(NamedTuple):
    """What one fault did. Seconds."""

    gap_s: float            # longest time without an answer
    elections: int          # won
    split: int              # terms that nobody won
    equal_s: float          # from the heal until all had applied what was committed then
    before: float           # answers a second
    during: float
    unanswered: int         # calls out of time
    refused: int            # enqueues among them that were surely not executed
    asked_again: int        # outcomes that were told under the same session


class PartitionRun:
    """One network and one cluster of `nodes`; a context manager. `say(text)` hears of progress.

    `flap_s`: how long flapping goes on; `hold_s`: how long any other fault lasts, at least;
    `steady_s`: how long answers are counted before it.
    """

    def __init__(self, nodes: int, profile: str, seed: int,
                 say: Callable[[str], None] = lambda text: None, flap_s: float = FLAPPING_S,
                 hold_s: float = HOLD_S, steady_s: float = STEADY_S):
        self.record = Record()
        self.known = Known()
        self.answers: list[Answer] = []     # of the present load's watchers
        self.gaps_s: list[float] = []       # of silent leaders
        self.timelines: list[Timeline] = []
        self.reads = 0
        self._nodes = nodes
        self._profile = profile
        self._random = random.Random(seed)
        self._say = say
        self._flap_s = flap_s
        self._hold_s = hold_s
        self._steady_s = steady_s
        self._stop = threading.Event()
        self._threads: list = []
        self._loads = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "PartitionRun":
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(Network(self._nodes + 2, self._profile,
                                                       self._random.getrandbits(32)))
            hosts = self.network.hosts
            self.near, self.far = hosts[self._nodes:]
            stack.enter_context(self.near.inside())
            self.cluster = stack.enter_context(LocalCluster(
                self._nodes, hosts=hosts[:self._nodes], ask_inside=True))
            self.cluster.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        with self._stack:
            self._stop.set()
            self.network.heal()
            self._join()

    # --- load

    @contextlib.contextmanager
    def load(self, big: bool = False):
        """Clients at work, until the end of the block; then all is checked."""
        self._loads += 1
        self._stop = threading.Event()
        self.known, self.answers = Known(), []
        stop, addresses = self._stop, self.cluster.addresses
        everywhere = [Caller(self._loads * _CALLERS_MAX + number, addresses, self.record, stop,
                             self._random.getrandbits(32), patient=number < CALLERS)
                      for number in range(2 * CALLERS)]
        self._threads = [*everywhere, *(kind(addresses, self.known, stop)
                                        for kind in (Writer, Reader))]
        # where it is cut off with a minority, nobody there may answer it
        far = [*everywhere[CALLERS:], *(LeaderWatcher(address, self.known, self.answers, stop)
                                        for address in addresses)]
        near = [thread for thread in self._threads if thread not in far]
        near += [LeaderWatcher(address, self.known, self.answers, stop) for address in addresses]
        if big:
            near.append(BigSender(addresses, stop))
        self._threads = near + far
        try:
            for host, threads in ((self.near, near), (self.far, far)):
                with host.inside():
                    for thread in threads:
                        thread.start()
            self._await_answers()
            yield
        except BaseException as error:
            stop.set()
            self.network.heal()
            self._join()
            self._fail([str(error), *self._seen()], error)
        self._finish()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _seen(self) -> list[str]:
        """What was seen that must not be."""
        won = [election for node in self.cluster.nodes
               for election in leaders.elections(node.log_text())]
        return [*(f"{thread.name}: {thread.error!r}" for thread in self._threads
                  if thread.error is not None),
                *leaders.problems(won, self.answers), *self.known.problems,
                *self.record.problems, *self.record.untrue()]

    def _finish(self) -> None:
        """End the load, check all. Raises PartitionFailure."""
        self._stop.set()
        self._join()
        problems = []
        try:
            # The threads' own errors are among what was seen.
            check(self.cluster, self.cluster.addresses, self.record.history, [])
        except CrashFailure as error:
            problems.append(str(error))
        problems += self._seen()
        self.reads += self.known.reads
        if problems:
            self._fail(problems)
        with Client(self.cluster.addresses) as client:
            for name in (NUMBERED, BIG_QUEUE):
                while client.queue(name).dequeue_many(_DRAIN):
                    pass

    def _fail(self, problems: list[str], cause: BaseException | None = None) -> None:
        raise PartitionFailure(f"{len(problems)} problems; the logs: {self.cluster.keep()}\n"
                               + "\n".join(problems[:20])) from cause

    def _await_answers(self) -> None:
        """Until writes go on to be acknowledged."""
        target = len(self.record.history.answers_s) + _STEADY

        def enough() -> bool:
            # a thread failed: `_finish` says why
            return self._stop.is_set() or len(self.record.history.answers_s) >= target
        wait_until(enough, GO_ON_S, "writes go on")

    def _rate(self, start_s: float, end_s: float) -> float:
        inside = sum(start_s <= t < end_s for t in self.record.history.answers_s)
        return inside / max(0.001, end_s - start_s)

    # --- faults

    def fault(self, name: str) -> Figures:
        """One kind of faults.py, under load; all is checked after it. Raises PartitionFailure."""
        kind, record = FAULTS[name], self.record
        counts = record.counts
        with self.load(kind.big):
            leader = self.cluster.leader()
            followers = [node.host for node in self.cluster.nodes if node is not leader]
            self._random.shuffle(followers)
            scene = Scene(self.network, leader.host, followers, self.near, self.far, self._profile,
                          self._random, self._stop, self._flap_s)
            steady_s, term = time.monotonic(), self._term()
            self._stop.wait(self._steady_s)
            start_s = time.monotonic()
            kind.inflict(scene)
            if name not in FLAPPING:
                self._stop.wait(self._hold_s)
            self._await_answers()       # the quorum goes on before the heal
            if kind.elections[0]:
                wait_until(lambda: leader.status().role != "leader", GO_ON_S,
                           f"{leader.address}, which has no quorum, leads no more")
            healed_s = time.monotonic()
            self.network.heal()
            self.network.set(self._profile)
            equal_s = self._await_equal()
            self._await_answers()
            gap_s = record.history.longest_gap_s(start_s, time.monotonic())
        terms = self._term() - term
        won = len({election.term for node in self.cluster.nodes
                   for election in leaders.elections(node.log_text()) if election.term > term})
        figures = Figures(gap_s, won, terms - won, equal_s, self._rate(steady_s, start_s),
                          self._rate(start_s, healed_s),
                          *(after - before for after, before in zip(record.counts, counts)))
        self._tell(name, figures)
        least, most = kind.elections
        if not least <= won <= most or figures.split > (SPLIT_MAX if most else 0):
            self._fail([f"{name}: {won} elections were won and {figures.split} terms by nobody, "
                        f"{least} to {most} are right: {kind.why}"])
        return figures

    def _tell(self, name: str, figures: Figures) -> None:
        split = f" (and {figures.split} split votes)" if figures.split else ""
        self._say(f"{name}: longest time without an answer {figures.gap_s:.2f} s, elections "
                  f"{figures.elections}{split}, equal {figures.equal_s:.2f} s after the heal; "
                  f"{figures.before:.0f} answers a second before, {figures.during:.0f} during; "
                  f"{figures.unanswered} calls out of time ({figures.refused} enqueues surely not "
                  f"executed, {figures.asked_again} outcomes asked for again), {self.known.reads} "
                  "reads")

    def _term(self) -> int:
        self.cluster.leader()
        return max(status.term for status in self.cluster.statuses().values())

    def _await_equal(self) -> float:
        """Until all have applied what is committed now; seconds. Digests are compared."""
        start_s = time.monotonic()
        target = max(status.commit_index for status in self.cluster.statuses().values())

        def equal() -> bool:
            statuses = self.cluster.statuses().values()
            check_digests(statuses)
            return (len(statuses) == self._nodes
                    and all(status.applied_index >= target for status in statuses))
        wait_until(equal, HEAL_S, "all nodes have applied what was committed at the heal")
        return time.monotonic() - start_s

    # --- a leader that falls silent

    def silent_leaders(self, times: int) -> None:
        """Cut all links of the leader at once, so often; where the time goes."""
        with self.load():
            for number in range(1, times + 1):
                self._silent_leader(f"silent leader {number}")
                if self._stop.is_set():
                    break

    def _silent_leader(self, name: str) -> None:
        leader, history = self.cluster.leader(), self.record.history
        self._stop.wait(self._random.uniform(0.0, 0.1))     # any phase of the heartbeats
        logs = {node: len(node.log_text()) for node in self.cluster.nodes}
        start_s, wall_s = time.monotonic(), time.time()
        self.network.isolate(leader.host)
        self._await_answers()
        gap_s = history.longest_gap_s(start_s - 0.05, time.monotonic())
        first_s = min(t for t in history.answers_s if t > start_s + gap_s / 2) - start_s
        timeline = Timeline(wall_s, leader.address, {
            node.address: node.log_text()[length:] for node, length in logs.items()
            if node is not leader}, first_s)
        self.gaps_s.append(gap_s)
        self.timelines.append(timeline)
        self.network.heal()
        equal_s = self._await_equal()
        self._say(f"{name}: {leader.address}, gap {gap_s * 1000:.0f} ms ({timeline}); equal "
                  f"{equal_s:.2f} s after the heal")

    # --- the end

    def summary(self) -> str:
        """A few lines of figures."""
        record = self.record
        known = sum(1 for enqueue in record.history.enqueues if enqueue.message_id)
        lines = [f"{self._nodes} nodes, {self._profile}: {known} enqueues acknowledged, each "
                 f"delivered once and in order; {self.reads} reads judged, none stale; "
                 f"{record.unanswered} calls out of time, none late, none untrue"]
        if self.gaps_s:
            lines.append(f"{len(self.gaps_s)} silent leaders: time between two acknowledged "
                         f"writes: median {statistics.median(self.gaps_s) * 1000:.0f} ms, worst "
                         f"{max(self.gaps_s) * 1000:.0f} ms")
            lines += Timeline.medians(self.timelines)
        lines.append("load average {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
        return "\n".join(lines)
