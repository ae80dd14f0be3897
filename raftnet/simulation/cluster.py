"""SimulatedCluster: nodes, network, disks, clocks and clients in one process, out of one seed.

Two phases. Faults (faults.py), with the invariants checked after every event. Then everything that
can be healed is healed: within a bounded time a majority must elect, answer every client and be
drained (liveness), and a follower that was cut off for a while comes back without unseating the
leader; then the histories are judged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from raftnet.config import Config
from raftnet.raft.membership import quorum
from raftnet.replica import Phase, Start
from raftnet.simulation import faults
from raftnet.simulation.client import SimulatedClient
from raftnet.simulation.events import Scheduler
from raftnet.simulation.faults import Faults
from raftnet.simulation.invariants import InvariantError, Invariants
from raftnet.simulation.network import NetworkProfile, SimulatedNetwork
from raftnet.simulation.node import DiskProfile, SimulatedNode
from raftnet.simulation.trace import Trace
from raftnet.storage.store import Job, Store

_PORT = 5001
_HEAL_LIMIT_MS = 40_000
_SETTLE_MS = 100
_RESTART_MS_MAX = 5_000
_EVENTS_A_MOMENT_MAX = 50_000   # more, and time would stand still: they cause each other
# A settled leader's follower is cut off for so long, and has so long to come back.
_ABSENCE_MS, _RETURN_MS = 4_000, 1_500
DURATION_MS = 30_000


@dataclass(slots=True)
class Profile:
    """What a seed draws, unless it is given: the network, and how often which faults come."""

    network: NetworkProfile = field(default_factory=NetworkProfile)
    fault_every_ms: int = 1_500
    faults: tuple[str, ...] = faults.KINDS


class SimulatedCluster:
    """A cluster of `count` founders and some clients, from one seed."""

    def __init__(self, seed: int, count: int = 3, clients: int = 3, profile: Profile | None = None,
                 network: NetworkProfile | None = None,
                 echo: Callable[[str], None] | None = None):
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self.trace = Trace(echo)
        self.profile = profile or self._draw_profile()
        if network is not None:
            self.profile.network = network
        self.network = SimulatedNetwork(self.scheduler, self.profile.network)
        self.faults = Faults(self, self.profile.faults, self.profile.fault_every_ms)
        self.invariants = Invariants()
        self.founders = count
        self.lost: set[str] = set()         # nodes whose data is gone or damaged
        self.speeds_differ = False          # wildly: some run at half or double
        self.nodes: dict[str, SimulatedNode] = {}
        addresses = [f"127.0.0.1:{_PORT + i}" for i in range(count)]
        for address in addresses:
            self._add(Start(address, founders=list(addresses)))
        self.clients = [SimulatedClient(self, number) for number in range(clients)]

    def _draw_profile(self) -> Profile:
        randint, chance = self.scheduler.randint, self.scheduler.chance
        delay = randint(0, 40) if chance(50) else 1
        network = NetworkProfile(delay, randint(0, delay), *(
            randint(0, 10) if chance(40) else 0 for _ in range(3)),
            corrupt=randint(0, 3) if chance(30) else 0)
        names = tuple(name for name in faults.KINDS if chance(60))
        return Profile(network, randint(300, 4_000), names)

    def _add(self, start: Start) -> SimulatedNode:
        node = SimulatedNode(self, start, Config())
        self.nodes[start.address] = node
        self.scheduler.after(self.scheduler.randint(0, 200), lambda: self._start(node))
        return node

    # --- what nodes and faults tell

    def note(self, place: str, what: str, kind: int = 0, body: bytes = b"") -> None:
        """An event for the trace."""
        self.trace.note(self.scheduler.now_ms, place, what, kind, body)

    def opened(self, node: SimulatedNode, store: Store) -> None:
        """A process has read its directory: what it promised must be there."""
        self.invariants.reopened(node.address, store)

    def refused_to_start(self, node: SimulatedNode) -> None:
        """A damaged directory was noticed: right, if it was damaged."""
        if node.address not in self.lost:
            raise InvariantError(f"a promise's entries survive any crash: {node.address} does not "
                                 f"start, and nobody damaged its files: {self.trace.last(1)}")

    def ended(self, node: SimulatedNode) -> None:
        """A process ended: it is started again later."""
        self.invariants.forget_life(node.address)
        self.scheduler.after(self.scheduler.randint(50, _RESTART_MS_MAX),
                             lambda: self._start(node))

    def jobs_durable(self, node: SimulatedNode, jobs: list[Job]) -> None:
        """A node's disk is done with these: their promises leave now."""
        self.invariants.durable(node, jobs)

    def check(self, node: SimulatedNode) -> None:
        """After every event."""
        self.invariants.check(node)

    def may_lose(self, node: SimulatedNode) -> bool:
        """Whether the data of this node may be lost too: a quorum of whole ones must remain."""
        lost = self.lost | {node.address}
        members = [n for n in self.nodes.values()]
        # Whoever joined may vote by now: the smallest and the largest membership both count.
        return all(count - len(lost) >= quorum(count, 0)
                   for count in {self.founders, len(members)}) and self.is_founded

    @property
    def is_founded(self) -> bool:
        """Whether some node says so: before that, a loss may end the founding for good."""
        return any(n.running and n.replica.why_not_serving() is None for n in self.nodes.values())

    def lose(self, node: SimulatedNode) -> None:
        """The data of this node is gone or damaged."""
        self.lost.add(node.address)
        self.invariants.lost(node.address)

    def join(self, contact: str) -> None:
        """One more node, which asks `contact` to be taken in."""
        self._add(Start(f"127.0.0.1:{_PORT + len(self.nodes)}", join=contact))

    def _start(self, node: SimulatedNode) -> None:
        if not node.running:
            node.boot()

    # --- a run

    def run_until(self, end_ms: int, steps: int | None = None) -> None:
        """Let everything up to that moment happen, or so many events in all."""
        scheduler = self.scheduler
        moment_ms, happened = scheduler.now_ms, scheduler.happened
        while (next_ms := scheduler.next_ms) is not None and next_ms <= end_ms and (
                steps is None or scheduler.happened < steps):
            scheduler.step()
            if scheduler.now_ms > moment_ms:
                moment_ms, happened = scheduler.now_ms, scheduler.happened
            elif scheduler.happened - happened > _EVENTS_A_MOMENT_MAX:
                raise InvariantError(f"liveness: more than {_EVENTS_A_MOMENT_MAX} events in one "
                                     "moment")
        if steps is None:
            scheduler.now_ms = max(scheduler.now_ms, end_ms)

    def run(self, faults_ms: int = DURATION_MS, steps: int | None = None) -> None:
        """Both phases. Raises InvariantError."""
        self.scheduler.after(self.scheduler.randint(200, 3_000), self.faults.begin)
        self.run_until(faults_ms, steps)
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
        self._cut_off_a_follower()
        self.invariants.check_histories(self.clients)

    def _heal(self) -> None:
        self.note("", "everything heals")
        self.faults.end()
        self.network.heal()
        self.network.profile = NetworkProfile()
        for node in self.nodes.values():
            node.disk_profile = DiskProfile()
            node.disk.full = False
            node.disk.fail_at(0)
            if node.running and node.paused:
                node.resume()
            if not node.running:
                node.boot()
        for client in self.clients:
            client.stopping = True

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        end = self.scheduler.now_ms + _HEAL_LIMIT_MS
        while not condition():
            if self.scheduler.now_ms >= end:
                raise InvariantError(f"liveness: not within {_HEAL_LIMIT_MS} ms: {what}")
            self.run_until(self.scheduler.now_ms + _SETTLE_MS)

    def _cut_off_a_follower(self) -> None:
        """Who was away too long to have a leader must not cost the others theirs (thesis 9.6)."""
        self._await("no disk hangs any more",
                    lambda: self._all_equal() and all(n.disk_idle for n in self.nodes.values()))
        leader = next(n for n in self.nodes.values() if n.running and n.replica.leads)
        membership = leader.replica.raft.membership
        voters = [m.address for m in membership.members
                  if m.voter and m.address != leader.address and m.address not in self.lost]
        if len(voters) <= membership.quorum - 1 or self.speeds_differ:
            # Without one of them the leader has no quorum, and must step down; and a clock at
            # double speed is out of patience before one at half speed sends a heartbeat.
            return
        away = voters[self.scheduler.randint(0, len(voters) - 1)]
        term = leader.replica.raft.current_term
        self.note(away, "is cut off from the others")
        for other in self.nodes:
            self.network.cut(away, other)
            self.network.cut(other, away)
        self.run_until(self.scheduler.now_ms + _ABSENCE_MS)
        self.note(away, "is back")
        self.network.heal()
        self.run_until(self.scheduler.now_ms + _RETURN_MS)
        if not (leader.running and leader.replica.leads) or leader.replica.raft.current_term != term:
            raise InvariantError(f"a settled leader stays: {leader.address} lost term {term} when "
                                 f"{away} came back")

    def _asks_in_vain(self, node: SimulatedNode) -> bool:
        """A newcomer whose only contact is lost, or asks in vain itself."""
        contact = node.start.join
        return contact in self.lost or (contact in self.nodes and node.running
                                        and node.replica.phase is Phase.JOINING
                                        and self._asks_in_vain(self.nodes[contact]))

    def _all_equal(self) -> bool:
        """One leader, and everybody whose data is whole has applied the same."""
        whole = [n for n in self.nodes.values() if n.address not in self.lost
                 and not self._asks_in_vain(n)]
        if not all(n.running and n.replica.phase is Phase.RUNNING for n in whole):
            return False
        leads = sum(n.running and n.replica.leads for n in self.nodes.values())
        states = {(n.replica.machine.applied_index, n.replica.machine.digest) for n in whole}
        return leads == 1 and len(states) == 1
