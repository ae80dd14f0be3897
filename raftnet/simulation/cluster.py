"""SimulatedCluster: nodes, network, disks and clients in one process, out of one seed.

Two phases. Faults: crashes, power losses, pauses, cuts, slow disks, a bad network, with the
invariants checked after every event. Then everything heals: within a bounded time the cluster must
elect, answer every client, and be drained; then the histories are judged.
"""

from dataclasses import dataclass, field

from raftnet.config import Config
from raftnet.raft.types import Role
from raftnet.replica import Start
from raftnet.simulation.client import SimulatedClient
from raftnet.simulation.events import Scheduler
from raftnet.simulation.invariants import InvariantError, Invariants
from raftnet.simulation.network import NetworkProfile, SimulatedNetwork
from raftnet.simulation.node import DiskProfile, SimulatedNode

_PORT = 5001
_HEAL_LIMIT_MS = 30_000
_SETTLE_MS = 100


@dataclass(slots=True)
class Profile:
    """What a seed draws: the network and how often which fault comes (a mean, milliseconds)."""

    network: NetworkProfile = field(default_factory=NetworkProfile)
    fault_every_ms: int = 1_500
    faults: tuple[str, ...] = ("crash", "power loss", "pause", "isolate", "one way", "slow disk",
                               "all")


class SimulatedCluster:
    """A cluster of `count` founders and some clients, from one seed."""

    def __init__(self, seed: int, count: int = 3, clients: int = 3, profile: Profile | None = None):
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self.profile = profile or self._draw_profile()
        self.network = SimulatedNetwork(self.scheduler, self.profile.network)
        self.invariants = Invariants()
        self.nodes: dict[str, SimulatedNode] = {}
        self.addresses = [f"127.0.0.1:{_PORT + i}" for i in range(count)]
        for address in self.addresses:
            start = Start(address, founders=list(self.addresses))
            self.nodes[address] = SimulatedNode(self, start, Config())
        self.clients = [SimulatedClient(self, number) for number in range(clients)]
        self._faults = False
        self.counts: dict[str, int] = {}
        for node in self.nodes.values():
            self.scheduler.after(self.scheduler.randint(0, 200), node.boot)

    def _draw_profile(self) -> Profile:
        randint, chance = self.scheduler.randint, self.scheduler.chance
        delay = randint(0, 40) if chance(50) else 1
        network = NetworkProfile(delay, randint(0, delay), *(
            randint(0, 10) if chance(40) else 0 for _ in range(3)),
            corrupt=randint(0, 3) if chance(30) else 0)
        names = tuple(name for name in Profile().faults if chance(70))
        return Profile(network, randint(300, 4_000), names)

    # --- what nodes tell

    def booted(self, node: SimulatedNode) -> None:
        """A process began."""

    def ended(self, node: SimulatedNode) -> None:
        """A process ended: connections to it end, and it is started again later."""
        self.invariants.forget_life(node.address)
        self.scheduler.after(self.scheduler.randint(50, 5_000), lambda: self._restart(node))

    def jobs_durable(self, node: SimulatedNode, jobs) -> None:
        """A node's disk is done with these: their promises leave now."""
        for job in jobs:
            if job.hard_state is not None:
                self.invariants.promised(node.address, node.replica.node_id,
                                         job.hard_state.current_term, job.hard_state.voted_for)

    def check(self, node: SimulatedNode) -> None:
        """After every event."""
        self.invariants.check(node)

    # --- faults

    def _restart(self, node: SimulatedNode) -> None:
        if not node.running:
            node.boot()

    def _fault(self) -> None:
        if not self._faults:
            return
        scheduler, profile = self.scheduler, self.profile
        if profile.faults:
            name = profile.faults[scheduler.randint(0, len(profile.faults) - 1)]
            self.counts[name] = self.counts.get(name, 0) + 1
            self._do_fault(name)
        scheduler.after(scheduler.randint(1, 2 * profile.fault_every_ms), self._fault)

    def _do_fault(self, name: str) -> None:
        scheduler = self.scheduler
        running = [node for node in self.nodes.values() if node.running and not node.paused]
        if not running:
            return
        leaders = [n for n in running if n.replica.leads]
        node = running[scheduler.randint(0, len(running) - 1)]
        if leaders and scheduler.chance(50):
            node = leaders[0]
        if name in ("crash", "power loss"):
            node.crash(power_loss=name == "power loss")
        elif name == "all":
            for each in running:
                each.crash(power_loss=scheduler.chance(50))
        elif name == "pause":
            node.pause()
            life = node.life
            scheduler.after(scheduler.randint(10, 5_000),
                            lambda: node.running and node.life == life and node.paused
                            and node.resume())
        elif name in ("isolate", "one way"):
            others = [a for a in self.addresses if a != node.address]
            for other in others:
                self.network.cut(node.address, other)
                if name == "isolate":
                    self.network.cut(other, node.address)
            scheduler.after(scheduler.randint(100, 4_000), self.network.heal)
        elif name == "slow disk":
            node.disk_profile = DiskProfile(0, scheduler.randint(1, 4_000))
            scheduler.after(scheduler.randint(100, 6_000),
                            lambda: setattr(node, "disk_profile", DiskProfile()))

    # --- a run

    def run_until(self, end_ms: int) -> None:
        """Let everything up to that moment happen."""
        scheduler = self.scheduler
        while (next_ms := scheduler.next_ms) is not None and next_ms <= end_ms:
            scheduler.step()
        scheduler.now_ms = max(scheduler.now_ms, end_ms)

    def run(self, faults_ms: int = 20_000) -> None:
        """Both phases. Raises InvariantError."""
        self._faults = True
        self.scheduler.after(self.scheduler.randint(500, 3_000), self._fault)
        self.run_until(faults_ms)
        self._heal()
        self._await("every client is answered", lambda: all(c.idle for c in self.clients))
        drainer = self.clients[0]
        while True:
            before = len(drainer.received)
            drainer.drain()
            self._await("the queue is drained", lambda: drainer.idle)
            if len(drainer.received) == before:
                break
        self._await("all nodes are equal", self._all_equal)
        self.invariants.check_histories(self.clients)

    def _heal(self) -> None:
        self._faults = False
        self.network.heal()
        self.network.profile = NetworkProfile()
        for node in self.nodes.values():
            node.disk_profile = DiskProfile()
            if not node.running:
                node.boot()
            elif node.paused:
                node.resume()
        for client in self.clients:
            client.stopping = True

    def _await(self, what: str, condition) -> None:
        end = self.scheduler.now_ms + _HEAL_LIMIT_MS
        while not condition():
            if self.scheduler.now_ms >= end:
                raise InvariantError(f"liveness: not within {_HEAL_LIMIT_MS} ms: {what}")
            self.run_until(self.scheduler.now_ms + _SETTLE_MS)

    def _all_equal(self) -> bool:
        replicas = [node.replica for node in self.nodes.values()]
        leads = sum(r.raft is not None and r.raft.role is Role.LEADER for r in replicas)
        states = {(r.machine.applied_index, r.machine.digest) for r in replicas}
        return leads == 1 and len(states) == 1
