"""The long membership test: real nodes come and go under load, and what must hold afterwards.

Clients in threads, each producer and consumer in turn, as in the crash test (tests/crash/run.py),
which also says what must hold of all that they saw. Three parts, each with nodes of its own:

- grow: 1 -> 3 -> 5 -> 7 -> 3 nodes, a random one killed with kill -9 before each step and started
  again while the step is under way;
- replace: all three nodes, one by one, by nodes at new addresses; then the old ones are started
  again, are refused, and disturb nobody;
- restart: every node, one after the other, as `localcluster.py restart` does it; no client sees an
  error, and no pause is as long as a second.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raftnet.client import Client
from raftnet.wire.requests import NodeStatus
from tests.crash.history import History
from tests.crash.run import ANSWER_S, CrashFailure, Worker, check
from tools.processes import HOST, LocalCluster, NodeProcess, free_ports, wait_until
from tools.rollingrestart import Rolling

CLIENTS = 8
PAUSE_S_MAX = 1.0           # of a rolling restart
SIZES = (3, 5, 7, 3)
_REST_S = 0.005             # of each client between two calls: a steady load, not all there is
_AFTER_STEP = 60            # answers before the next step begins
_STEP_S = 60.0
_DOWN_S = (0.05, 1.0)       # how long a killed node stays dead, while the step is under way
_QUIET_S = 3.0              # several election timeouts: who disturbs has done it by then


class MembershipRun:
    """One part; `say(text)` hears of its progress. Raises CrashFailure, RaftnetError."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda text: None):
        self.seed = seed
        self.history = History()
        self._random = random.Random(seed)
        self._say = say
        self._stop = threading.Event()
        self._workers: list[Worker] = []
        self._cluster: LocalCluster | None = None

    # --- the parts

    def grow(self, sizes: tuple[int, ...] = SIZES) -> None:
        """From one node to each of these sizes."""
        most = max(sizes)
        with self._under_load(1, most - 1) as cluster:
            members = [cluster.nodes[0]]
            for size in sizes:
                with self._step(f"{len(members)} -> {size} nodes"):
                    victim = self._kill_one(members)
                    wanted = (cluster.nodes[:size] if size > len(members)
                              else self._random.sample(members, size))
                    members = self._change(members, wanted, victim)
            for node in cluster.nodes:
                if node not in members:
                    node.interrupt()
            self._check(members)

    def replace(self) -> None:
        """Three founders by three others."""
        with self._under_load(3, 3) as cluster:
            old, new = cluster.nodes[:3], cluster.nodes[3:]
            members = old
            for gone, come in zip(old, new):
                with self._step(f"{gone.address} is replaced by {come.address}"):
                    members = self._change(members, [*members, come])
                    with Client([node.address for node in members]) as client:
                        client.remove(gone.address)
                    members = [node for node in members if node is not gone]
                    gone.interrupt()
            with self._step("the old ones are started again"):
                before = self._leader(members)
                for node in old:
                    node.start()
                for node in old:
                    wait_until(lambda node=node: "was removed from cluster" in node.log_text(),
                               _STEP_S, f"{node} is refused")
                time.sleep(_QUIET_S)    # that nothing happens can only be waited for
                after = self._leader(members)
                if (after.node_id, after.term) != (before.node_id, before.term):
                    raise CrashFailure(f"the old ones disturb: {before.address} led in term "
                                       f"{before.term}, {after.address} does in {after.term}")
                for node in old:
                    if node.status().role != "removed":
                        raise CrashFailure(f"{node.address} is {node.status().role}")
                    node.interrupt()
            self._check(members)

    def restart(self) -> None:
        """Three nodes, each restarted."""
        with self._under_load(3, 0) as cluster:
            for worker in self._workers:
                worker.longest_s = 0.0
            with self._step("a rolling restart of 3 nodes") as step:
                if not Rolling(cluster, self._say, self._look_at_workers).run():
                    raise CrashFailure("the rolling restart failed")
            longest_s = max(worker.longest_s for worker in self._workers)
            self._say(f"the longest enqueue of {CLIENTS} clients took {longest_s:.3f} s")
            self._check(cluster.nodes)
            errors = self.history.dequeues_unknown + sum(
                not enqueue.message_id for enqueue in self.history.enqueues)
            if errors:
                raise CrashFailure(f"clients saw {errors} errors; the logs: {cluster.keep()}")
            if step.gap_s >= PAUSE_S_MAX or longest_s >= PAUSE_S_MAX:
                raise CrashFailure(f"a pause of {max(step.gap_s, longest_s):.3f} s; the logs: "
                                   f"{cluster.keep()}")

    # --- its steps

    def _kill_one(self, members: list[NodeProcess]) -> NodeProcess:
        leader = self._leader(members).address
        victim = self._random.choice(members)
        victim.kill()
        self._say(f"kill -9 {victim.address}, one of {len(members)}"
                  + (", the leader" if victim.address == leader else ""))
        return victim

    def _bring_back(self, victim: NodeProcess) -> None:
        time.sleep(self._random.uniform(*_DOWN_S))
        victim.start().wait_ready()

    def _change(self, members: list[NodeProcess], wanted: list[NodeProcess],
                victim: NodeProcess | None = None) -> list[NodeProcess]:
        """New nodes join by themselves, the others are told to go; the victim, which is down, is
        started meanwhile. Gives the members."""
        living = [node for node in members if node is not victim] or members
        for node in wanted:
            if node not in members:
                node.arguments[2] = self._random.choice(living).address
                node.start()
        if len(wanted) < len(members):
            with Client([node.address for node in living], ANSWER_S) as client:
                client.set_members([node.address for node in wanted], wait=False)
        if victim is not None:
            self._bring_back(victim)
        wait_until(lambda: self._are_members(wanted), _STEP_S,
                   f"the members are {wanted}; the logs: {self._cluster.directory}")
        return wanted

    def _are_members(self, wanted: list[NodeProcess]) -> bool:
        self._look_at_workers()
        leader = self._find_leader(wanted)
        return (leader is not None and not leader.target
                and leader.membership_index <= leader.commit_index
                and all(member.voter for member in leader.members)
                and {m.address for m in leader.members} == {node.address for node in wanted})

    def _find_leader(self, nodes: list[NodeProcess]) -> NodeStatus | None:
        found = [status for node in nodes if node.running and (status := node.status())]
        leaders = [status for status in found if status.role == "leader"]
        return max(leaders, key=lambda status: status.term, default=None)

    def _leader(self, nodes: list[NodeProcess]) -> NodeStatus:
        return wait_until(lambda: self._find_leader(nodes), _STEP_S, "one of them leads")

    # --- load

    @contextmanager
    def _under_load(self, founders: int, more: int) -> Iterator[LocalCluster]:
        """Founders that serve, and the commands of more nodes; clients that go on until the end."""
        with LocalCluster(founders) as cluster:
            self._cluster = cluster
            cluster.start()
            for port in free_ports(more):
                cluster.add(f"{HOST}:{port}", [f"{HOST}:{port}", "--join", cluster.addresses[0]])
            addresses = [node.address for node in cluster.nodes]
            self._workers = [Worker(number, addresses, self.history, self._stop,
                                    self._random.randrange(1 << 32), _REST_S)
                             for number in range(CLIENTS)]
            for worker in self._workers:
                worker.start()
            try:
                self._await_answers()
                yield cluster
            except BaseException:
                cluster.keep()
                raise
            finally:
                self._end_load()

    def _end_load(self) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()

    @contextmanager
    def _step(self, what: str) -> Iterator["_Step"]:
        step = _Step()
        start_s = time.monotonic()
        yield step
        self._await_answers()
        end_s = time.monotonic()
        step.gap_s = self.history.longest_gap_s(start_s, end_s)
        answers = sum(start_s <= moment <= end_s for moment in self.history.answers_s)
        self._say(f"{what}: {end_s - start_s:.1f} s, {answers} answers, longest time without one "
                  f"{step.gap_s:.3f} s")

    def _await_answers(self) -> None:
        target = len(self.history.answers_s) + _AFTER_STEP

        def enough() -> bool:
            self._look_at_workers()
            return len(self.history.answers_s) >= target
        wait_until(enough, ANSWER_S, f"answers go on; the logs: {self._cluster.directory}")

    def _look_at_workers(self) -> None:
        for worker in self._workers:
            if worker.error is not None:
                raise CrashFailure(f"{worker.name} ended: {worker.error!r}; the logs: "
                                   f"{self._cluster.keep()}")

    def _check(self, members: list[NodeProcess]) -> None:
        self._end_load()
        check(self._cluster, [node.address for node in members], self.history, self._workers)


class _Step:
    """What a step came to: its longest time without an answer."""

    gap_s = 0.0
