"""Random runs: messages lost, doubled, reordered; crashes that lose unsynced jobs; then it heals.

Rules: one seed says all; the invariants are looked at after every event; at the end everything is
whole again, and the cluster must agree within a bounded time. A seed that failed becomes a test
with a name of its own.
"""

import random
import unittest

from raftnet.config import RaftConfig
from raftnet.errors import BusyError, ChangeRefusedError, NotLeaderError
from raftnet.raft.membership import Member
from raftnet.raft.types import Role
from tests.raft.harness import Cluster
from tests.raft.invariants import Invariants

POOL_MAX = 200      # above it the oldest messages are lost


class RandomRun:
    """One seed's history."""

    def __init__(self, seed: int, voters: int, learners: int = 0, compactions: float = 0):
        self.random = random.Random(seed)
        config = RaftConfig(heartbeat_ms=30, election_timeout_ms=120, disk_overdue_ms=600,
                            append_bytes_max=120, in_flight_appends_max=3,
                            log_memory_bytes_max=self.random.choice([300, 1 << 20]),
                            snapshot_chunk_bytes=self.random.choice([100, 400, 1 << 20]),
                            snapshot_window_bytes=1_000)
        ids = range(1, voters + 1)
        self.cluster = Cluster(ids, range(voters + 1, voters + learners + 1), config=config,
                               seed=seed, founded=self.random.random() < 0.7)
        self.invariants = Invariants(self.cluster)
        self.loss = self.random.choice([0.0, 0.02, 0.2])
        self.double = self.random.choice([0.0, 0.05, 0.2])
        self.crashes = self.random.choice([0.0, 0.003, 0.01])
        self.tick_ms = self.random.choice([20, 50, 100])
        self.token = 0
        self.events = [(self.deliver, 60), (self.sync, 25), (self.tick, 12), (self.propose, 8),
                       (self.read, 3), (self.partition, 2), (self.heal, 1.5),
                       (self.crash, 100 * self.crashes), (self.restart, 2),
                       (self.leader_gone, 2), (self.reconnect, 0.3), (self.change, 0.8),
                       (self.transfer, 0.6), (self.compact, compactions),
                       (self.build, compactions)]

    def up(self) -> list[int]:
        """The nodes that run."""
        return [n for n in self.cluster.nodes if n not in self.cluster.down]

    def victim(self) -> int:
        """A node that runs; half the time one that leads."""
        leaders = [n for n in self.up() if self.cluster.core(n).role is Role.LEADER]
        return self.random.choice(leaders if leaders and self.random.random() < 0.5 else self.up())

    def run(self, steps: int) -> None:
        """So many events, then peace."""
        actions = [action for action, _ in self.events]
        weights = [weight for _, weight in self.events]
        for action in self.random.choices(actions, weights, k=steps):
            if self.up():
                action()
            else:
                self.restart()
            self.invariants.check()
        self.converge()

    def deliver(self) -> None:
        """A random message arrives, is lost, or arrives and stays on its way too."""
        pool = self.cluster.pool
        del pool[:max(0, len(pool) - POOL_MAX)]
        if not pool:
            return
        place = min(self.random.randrange(len(pool)), self.random.randrange(len(pool)))
        envelope = pool[place]
        if self.random.random() >= self.double:
            del pool[place]
        if self.random.random() >= self.loss:
            self.cluster.deliver([envelope])

    def sync(self) -> None:
        """A disk ends some jobs."""
        self.cluster.sync(self.random.choice(self.up()), self.random.choice([1, 1, 2, 9]))

    def tick(self) -> None:
        """Time passes on all, not quite equally."""
        for node_id in self.up():
            self.cluster.tick(self.random.randint(0, self.tick_ms), node_id)

    def propose(self) -> None:
        """Somebody is asked to append; only a leader does."""
        for node_id in self.up():
            try:
                self.cluster.core(node_id).propose(b"." * self.random.randint(0, 60))
            except (NotLeaderError, BusyError):
                continue
            if self.random.random() < 0.8:
                self.cluster.collect(node_id)

    def read(self) -> None:
        """Whoever thinks that it leads is asked to read."""
        for node_id in self.up():
            if self.cluster.core(node_id).role is Role.LEADER:
                self.token += 1
                self.invariants.asked(self.token)
                self.cluster.core(node_id).read(self.token)
                self.cluster.collect(node_id)

    def partition(self) -> None:
        """Some links break, one-way ones among them."""
        nodes = list(self.cluster.nodes)
        if self.random.random() < 0.5:
            self.cluster.isolate(self.victim(), self.random.choice(nodes))
        else:
            for _ in range(2):
                self.cluster.cut.add(tuple(self.random.sample(nodes, 2)))

    def heal(self) -> None:
        """All links work."""
        self.cluster.heal()

    def crash(self) -> None:
        """Power off."""
        self.cluster.crash(self.victim())

    def restart(self) -> None:
        """Power on."""
        if self.cluster.down:
            self.cluster.restart(self.random.choice(sorted(self.cluster.down)))

    def leader_gone(self) -> None:
        """A node thinks, rightly or not, that its leader's process died."""
        core = self.cluster.core(self.random.choice(self.up()))
        core.leader_gone(core.leader_id)

    def reconnect(self) -> None:
        """A connection was replaced."""
        core = self.cluster.core(self.random.choice(self.up()))
        core.peer_connected(self.random.choice(list(self.cluster.nodes)))

    def transfer(self) -> None:
        """Whoever leads hands over to any other."""
        for node_id in self.up():
            core = self.cluster.core(node_id)
            try:
                core.transfer(self.random.choice(list(self.cluster.nodes)))
            except (NotLeaderError, ChangeRefusedError):
                continue
            self.cluster.collect(node_id)

    def compact(self) -> None:
        """A node makes a snapshot and cuts its log; builds what it receives at once, or later."""
        node = self.cluster.nodes[self.victim()]
        node.compact(self.random.choice([0, 0, 1, 5]))
        node.builds = self.random.random() < 0.5

    def build(self) -> None:
        """A node has built the snapshot that it received."""
        for node_id in self.up():
            if self.cluster.nodes[node_id].to_build is not None:
                self.cluster.build(node_id)
                self.cluster.collect(node_id)

    def change(self) -> None:
        """The leader removes a member, itself too, takes one in as a learner, or gets a target."""
        for node_id in self.up():
            core = self.cluster.core(node_id)
            if core.role is not Role.LEADER or not core.membership.founded:
                continue
            old, other = core.membership, self.random.choice(list(self.cluster.nodes))
            address = f"127.0.0.1:{5000 + other}"
            if self.random.random() < 0.2:
                new = old.with_target((address,) + old.target[:2])
            elif old.member(other):
                new = old.without_member(other)
            else:
                new = old.with_member(Member(other, address, False, self.random.random() < 0.2))
            try:
                core.propose_membership(new)
            except ChangeRefusedError:
                continue
            self.cluster.collect(node_id)

    def converge(self) -> None:
        """Everything works again: one leader, and equal logs at all of its members."""
        cluster = self.cluster
        cluster.heal()
        for node_id in sorted(cluster.down):
            cluster.restart(node_id)
        for node in cluster.nodes.values():
            node.builds = True
        self.build()
        for _ in range(400):
            cluster.settle()
            self.invariants.check()
            if self.agreed():
                return
            for node_id in self.up():
                cluster.tick(self.random.randint(30, 60), node_id)
        raise AssertionError("no agreement although everything works")

    def agreed(self) -> bool:
        """Whether one leads and all of its members hold, and know as committed, the same."""
        leaders = [core for core in self.cluster.cores if core.leads_ready]
        if not leaders:
            return False
        leader = max(leaders, key=lambda core: core.current_term)
        members = [self.cluster.core(m.node_id) for m in leader.membership.members]
        return all(core.current_term == leader.current_term
                   and core.log.commit_index == leader.log.last_index
                   and core.log.stable_index == leader.log.last_index for core in members)


class RandomTest(unittest.TestCase):
    """Fixed seeds; thousands more were run by hand."""

    def test_three_nodes(self):
        """Three voters."""
        self.run_seeds(range(1, 26), 3)

    def test_five_nodes(self):
        """Five voters."""
        self.run_seeds(range(101, 116), 5)

    def test_three_nodes_and_two_learners(self):
        """Learners are promoted, voters removed and taken in again."""
        self.run_seeds(range(201, 216), 3, 2)

    def test_three_nodes_and_two_learners_with_snapshots(self):
        """Logs are cut, followers and newcomers behind them get snapshots (Raft 7)."""
        self.run_seeds(range(301, 331), 3, 2, 4)

    def run_seeds(self, seeds, voters: int, learners: int = 0, compactions: float = 0) -> None:
        """One run a seed."""
        for seed in seeds:
            with self.subTest(seed=seed):
                RandomRun(seed, voters, learners, compactions).run(600)


if __name__ == "__main__":
    unittest.main()
