"""SimulatedCluster: nodes, network, disks, clocks and clients in one process, out of one seed.

Two phases. Faults (faults.py, memberfaults.py), with the invariants checked after every event. Then
everything that can be healed is healed, and what must come of that within a bounded time is in
settling.py; then the histories are judged.

Addresses and identities are apart: `nodes` has who is at an address now, `lost` the node ids whose
data is gone, `holder` finds the node whose directory has an identity.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from raftnet.raft.entry import Entry
from raftnet.raft.membership import Membership
from raftnet.replica import Start
from raftnet.simulation import faults
from raftnet.simulation.caller import Caller
from raftnet.simulation.client import QUEUES, SimulatedClient
from raftnet.simulation.disk import SimulatedDisk
from raftnet.simulation.events import Scheduler
from raftnet.simulation.faults import Faults
from raftnet.simulation.invariants import InvariantError, Invariants
from raftnet.simulation.limits import draw_config, draw_slices, draw_work_limits
from raftnet.simulation.network import NetworkProfile, SimulatedNetwork
from raftnet.simulation.node import SimulatedNode
from raftnet.simulation.operators import SimulatedOperator
from raftnet.simulation.settling import Settling
from raftnet.simulation.trace import Trace
from raftnet.simulation.watchers import SimulatedWatcher
from raftnet.simulation.workers import SimulatedWorker
from raftnet.simulation.workhistory import WorkHistory, renumber
from raftnet.storage.store import Job, Store
from raftnet.wire.frames import Kind

_PORT = 5001
_RESTART_MS_MAX = 5_000
_EVENTS_A_MOMENT_MAX = 50_000   # more, and time would stand still: they cause each other
_USUAL_ROUND_TRIP_MS = 500
DURATION_MS = 30_000            # of the faults; longer on a slow network
# Networks as bad as people's, in the words of tc; the first is the assignment's.
SLOW_NETWORKS = (
    "delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% 5% loss 5%",
    "delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% 5% loss 5%",
    "delay 400ms 300ms loss 15% duplicate 5%",
    "delay 100ms 20ms loss 30%",
    "delay 20ms 5ms reorder 30% corrupt 2% duplicate 20% loss 10%")
_SLOW_PERCENT = 12          # of the seeds
_WORKLESS_PERCENT = 50      # of the seeds have plain clients only
_WORKERS_MAX = 4
_WATCHERS_MAX = 3
_TELL_MS = 5_000             # a watcher is told everything so soon
_STORED_PERCENT = 50        # of them have one or another of the faults around snapshots and files
_EMPTIED = "an emptied node never votes under its old id"
_SET_ASIDE = "a damaged identity never votes or acknowledges again"


@dataclass(slots=True)
class Profile:
    """What a seed draws, unless it is given: the network, and how often which faults come."""

    network: NetworkProfile = field(default_factory=NetworkProfile)
    fault_every_ms: int = 1_500
    faults: tuple[str, ...] = faults.KINDS


class SimulatedCluster:
    """A cluster of `count` founders, some clients and some workers, from one seed.

    `workers` None: drawn too.
    """

    def __init__(self, seed: int, count: int = 3, clients: int = 3, profile: Profile | None = None,
                 network: NetworkProfile | None = None,
                 echo: Callable[[str], None] | None = None, workers: int | None = None):
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self.chosen = random.Random(f"snapshots {seed}")    # other draws stay as they are
        self.config = draw_config(seed)
        draw_slices(self.config, seed)
        workers = self._draw_workers() if workers is None else workers
        if workers:
            draw_work_limits(self.config, seed)
        self.work_history = WorkHistory(self.config.machine)
        self.trace = Trace(echo)
        self.profile = profile or self._draw_profile()
        if network is not None:
            self.profile.network = network
        self.network = SimulatedNetwork(self.scheduler, self.profile.network)
        # On a slow network everything takes longer, what goes wrong too.
        self.round_trip_ms = self.profile.network.round_trip_ms
        self.slowness = 1 + self.round_trip_ms // _USUAL_ROUND_TRIP_MS
        self.faults = Faults(self, self.profile.faults,
                             self.profile.fault_every_ms * self.slowness)
        self.invariants = Invariants(self._ran_within, self._committed)
        self.founders = count
        self.lost: set[int] = set()         # node ids whose data is gone
        self.is_stuck = False               # in the end no quorum of whole nodes was left
        self.speeds_differ = False          # wildly: some run at half or double
        self.nodes: dict[str, SimulatedNode] = {}       # by address
        self._ran_ms: dict[int, int] = {}   # by node id: when its last process ended
        self._addresses = 0                 # given so far
        addresses = [self.new_address() for _ in range(count)]
        for address in addresses:
            self.add(Start(address, founders=list(addresses)))
        self.clients = [SimulatedClient(self, number) for number in range(clients)]
        self.workers = [SimulatedWorker(self, number) for number in range(workers)]
        self.watchers = [SimulatedWatcher(self, number)
                         for number in range(self._draw_watchers() if workers else 0)]
        self.operators: list[SimulatedOperator] = []

    def _draw_workers(self) -> int:
        chosen = random.Random(f"workers {self.seed}")      # the other draws stay as they are
        return 0 if chosen.randrange(100) < _WORKLESS_PERCENT else chosen.randint(1, _WORKERS_MAX)

    def _draw_profile(self) -> Profile:
        randint, chance = self.scheduler.randint, self.scheduler.chance
        delay = randint(0, 40) if chance(50) else 1
        network = NetworkProfile(delay, randint(0, delay), *(
            randint(0, 10) if chance(40) else 0 for _ in range(3)),
            corrupt=randint(0, 3) if chance(30) else 0)
        names = tuple(name for name in faults.KINDS if name not in faults.STORED_KINDS
                      and chance(60))
        every_ms = randint(300, 4_000)
        names += tuple(name for name in faults.STORED_KINDS
                       if self.chosen.randrange(100) < _STORED_PERCENT)
        chosen = random.Random(f"network {self.seed}")  # the other draws stay as they are
        if chosen.randrange(100) < _SLOW_PERCENT:
            network = NetworkProfile.parse(chosen.choice(SLOW_NETWORKS))
        return Profile(network, every_ms, names)

    # --- what faults do with the nodes

    def new_address(self) -> str:
        """One that nobody has had."""
        self._addresses += 1
        return f"127.0.0.1:{_PORT + self._addresses - 1}"

    def add(self, start: Start) -> SimulatedNode:
        """A node with an empty directory, started soon."""
        node = SimulatedNode(self, start, self.config)
        self.nodes[start.address] = node
        self.scheduler.after(self.scheduler.randint(0, 200), lambda: self._start(node))
        return node

    def ask(self, kind: Kind, body: bytes, at: str = "") -> None:
        """An operator asks the leader, or the node `at`, for a change; not after the faults."""
        if self.faults.running:
            number = len(self.operators)
            self.operators.append(SimulatedOperator(self, number, kind, body, at))

    def lose(self, node_id: int, invariant: str) -> None:
        """The data of that identity is gone: a further promise of it breaks the invariant."""
        self.lost.add(node_id)
        self.invariants.promises.end(node_id, invariant)

    def empty(self, node: SimulatedNode, start: Start | None = None) -> None:
        """The directory of a node that does not run is emptied; it is started by `start`, or by one
        of the commands that people may give. An old copy beside its owner goes for good."""
        assert not node.running
        if node.old_copy and self.holder(node.node_id) is not None:
            self.retire(node)
            return
        if node.node_id:
            self.lose(node.node_id, _EMPTIED)
        self.note(node.address, "its directory is emptied")
        node.disk = SimulatedDisk(node.address)
        node.old_copy = node.damaged = False
        node.times_healed = 0
        node.node_id, node.last_membership = 0, (0, Membership(b"", ()))
        node.start = start or self._draw_start(node)

    def _draw_start(self, node: SimulatedNode) -> Start:
        contact = self.contact(node)
        how = self.scheduler.randint(0, 2)
        if how == 0 or not contact:
            return node.start           # the same command as ever
        if how == 1:
            return Start(node.address, join=contact)
        return Start(node.address, founders=[node.address])

    def retire(self, node: SimulatedNode) -> None:
        """A node that does not run is never started again."""
        assert not node.running
        self.note(node.address, "is gone for good")
        if not node.old_copy:
            self.lost.add(node.node_id)
        del self.nodes[node.address]

    def move(self, node: SimulatedNode, contact: str) -> None:
        """A node that does not run will be started at another address."""
        assert not node.running
        del self.nodes[node.address]
        moved = node.address
        node.address = self.new_address()
        self.note(node.address, f"is where {moved} moved to")
        node.start = Start(node.address, join=contact)
        self.nodes[node.address] = node

    # --- what nodes tell

    def note(self, place: str, what: str, kind: int = 0, body: bytes = b"") -> None:
        """An event for the trace."""
        self.trace.note(self.scheduler.now_ms, place, what, kind, body)

    def opened(self, node: SimulatedNode, store: Store) -> None:
        """A process has read its directory: what it promised must be there, or it found damage and
        is another node now. It knows nobody yet, so an old copy that was not noticed is taken
        away."""
        if not node.old_copy:
            healing = store.healing
            if healing is not None and healing.number != node.times_healed:
                self.found_damage(node, "its files are set aside")
                node.times_healed = healing.number
                self.lose(node.node_id, _SET_ASIDE)
                if store.node_id == node.node_id:
                    raise InvariantError(f"{_SET_ASIDE}: {node.address} keeps its node id")
            self.invariants.reopened(node, store)
        node.damaged = False
        for other in list(self.nodes.values()):
            if other is not node and other.old_copy:
                if other.running:
                    other.crash(power_loss=False)
                self.empty(other)

    def found_damage(self, node: SimulatedNode, what) -> None:
        """A node says that its files are damaged: right, if they are."""
        if not node.damaged and not node.old_copy:
            raise InvariantError(f"a promise's entries survive any crash: {node.address} finds "
                                 f"damage, and nobody damaged its files: {what}; "
                                 f"{self.trace.last(2)}")

    def refused_to_start(self, node: SimulatedNode) -> None:
        """A damaged directory was noticed, and nobody is known who could heal it. It is emptied."""
        self.found_damage(node, "it does not start")
        self.empty(node)

    def stopped_itself(self, node: SimulatedNode) -> None:
        """A node was told that its directory is an old copy: right, if it is one."""
        if not node.old_copy:
            raise InvariantError(f"only an old copy is told so: {node.address} stops, and its "
                                 f"directory is the newest: {self.trace.last(1)}")
        self.empty(node)

    def ended(self, node: SimulatedNode) -> None:
        """A process ended: it is started again later."""
        self.invariants.forget_life(node)
        if not node.old_copy:
            self._ran_ms[node.node_id] = self.scheduler.now_ms
        self.scheduler.after(self.scheduler.randint(50, _RESTART_MS_MAX),
                             lambda: self._start(node))

    def jobs_durable(self, node: SimulatedNode, jobs: list[Job]) -> None:
        """A node's disk is done with these: their promises leave now."""
        self.invariants.durable(node, jobs)

    def votes_durable(self, node: SimulatedNode, jobs: list[Job]) -> None:
        """A node's disk is full, but terms and votes of these are on it: their promises leave."""
        self.invariants.durable(node, [Job(job.number, job.hard_state, []) for job in jobs])

    def _draw_watchers(self) -> int:
        return random.Random(f"watchers {self.seed}").randint(0, _WATCHERS_MAX)

    @property
    def callers(self) -> list[Caller]:
        """Everybody who asks the cluster for something with a session."""
        return [*self.clients, *self.workers]

    def _committed(self, entry: Entry) -> None:
        self.work_history.committed(entry, self.scheduler.now_ms)

    def check(self, node: SimulatedNode) -> None:
        """After every event."""
        self.invariants.check(node)

    def _start(self, node: SimulatedNode) -> None:
        if self.nodes.get(node.address) is not node or node.running:
            return
        if self.scheduler.now_ms < node.down_until_ms:
            self.scheduler.after(node.down_until_ms - self.scheduler.now_ms,
                                 lambda: self._start(node))
            return
        node.boot()

    # --- who is there

    @property
    def is_founded(self) -> bool:
        """Whether some node says so: before that, a loss may end the founding for good."""
        return any(n.running and n.replica.why_not_serving() is None and not self.is_foreign(n)
                   for n in self.nodes.values())

    def is_foreign(self, node: SimulatedNode) -> bool:
        """Whether a running node belongs to another cluster: a lone founder does, at first."""
        return (node.replica.raft is not None
                and node.replica.cluster_id != self.invariants.cluster_id)

    def holder(self, node_id: int) -> SimulatedNode | None:
        """The node whose directory has that identity; None: nobody's."""
        for node in self.nodes.values():
            if node.node_id == node_id and not node.old_copy:
                return node
        return None

    def is_whole(self, node_id: int) -> bool:
        """Whether that identity's data is all there."""
        if node_id in self.lost:
            return False
        holder = self.holder(node_id)
        return holder is not None and not holder.damaged

    def belongs(self, address: str) -> bool:
        """Whether a member is at that address, by its identity."""
        node = self.nodes.get(address)
        return (node is not None and not node.old_copy
                and self.invariants.membership.member(node.node_id) is not None)

    def contact(self, node: SimulatedNode) -> str:
        """The address of another node that runs and is a member; "": there is none."""
        membership = self.invariants.membership
        found = [n.address for n in self.nodes.values() if n.running and n is not node
                 and not n.old_copy and membership.member(n.node_id) is not None]
        return found[self.scheduler.randint(0, len(found) - 1)] if found else ""

    def memberships(self) -> list[Membership]:
        """The newest that is committed, if any is, and those after it in the log of any node."""
        invariants = self.invariants
        found = [invariants.membership] if invariants.membership_index else []
        for node in self.nodes.values():
            index, membership = node.last_membership
            if node.running and node.replica.raft is not None:
                log = node.replica.raft.log
                index, membership = log.membership_index, log.membership
            if (index > invariants.membership_index
                    and membership.cluster_id == invariants.cluster_id):
                found.append(membership)
        return found

    def may_lose(self, node: SimulatedNode) -> bool:
        """Whether the data of this node may be lost too: of each membership that may be in effect
        a quorum of whole voters must remain."""
        return self.is_founded and self._quorum_without(node.node_id)

    def can_decide(self) -> bool:
        """Whether a quorum of whole voters is left. It may not be where a directory was emptied in
        the moment in which a change of the members still counted on it."""
        return self._quorum_without(0)

    def _quorum_without(self, node_id: int) -> bool:
        return all(sum(v != node_id and self.is_whole(v) for v in membership.voters)
                   >= membership.quorum for membership in self.memberships())

    def _ran_within(self, node_id: int, duration_ms: int) -> bool:
        holder = self.holder(node_id)
        if holder is not None and holder.running:
            return True
        return (self.scheduler.now_ms - self._ran_ms.get(node_id, -duration_ms)) < duration_ms

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
        self.run_until(faults_ms * self.slowness, steps)
        self.is_stuck = not Settling(self).run()
        if self.workers:
            self._judge_work()
        self.invariants.check_histories(self.clients, drained=not self.is_stuck)

    def _judge_work(self) -> None:
        """All that anybody was told, by the log; and what the nodes hold."""
        if self.watchers and not self.is_stuck:
            applied = self.invariants.highest_commit
            self.run_until(self.scheduler.now_ms + _TELL_MS + 4 * self.round_trip_ms)
            for watcher in self.watchers:
                watcher.look_back(applied)
        for node in self.nodes.values():
            if node.running and not self.is_foreign(node):
                self.work_history.look_into(node.address, node.replica.machine,
                                            self.scheduler.now_ms)
        model = self.work_history.check()
        for client in self.clients:
            renumber(client.history, model.ids_of(QUEUES))
