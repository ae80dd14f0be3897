"""Faults: what may go wrong in a simulated cluster, drawn from its seed. Those about who belongs to
it are in memberfaults.py, those of disks and files in diskfaults.py.

Rules: a fault begins at a random moment, at a random node (half the time the leader), and ends by
itself; what cannot be undone (an emptied directory, a flipped bit in synced data) is done to fewer
nodes than would cost the quorum. Which kinds occur, and how often, is drawn too.
"""

from raftnet.errors import ChangeRefusedError
from raftnet.simulation import memberfaults
from raftnet.simulation.diskfaults import DiskFaults
from raftnet.simulation.memberfaults import MemberFaults
from raftnet.simulation.node import SimulatedNode
from raftnet.wire.frames import Kind
from raftnet.wire.snapshots import encode_take_snapshot

# Those around snapshots and files; whether they come is drawn apart.
STORED_KINDS = ("damage", "long full disk", "left behind", "backup")
KINDS = ("crash", "power loss", "all crash", "pause", "isolate", "one way", "halves", "bridge",
         "minority", "slow link", "slow disk", "hung disk", "full disk", "failing disk", "clock",
         "bit flip", *memberfaults.KINDS, *STORED_KINDS)
_PAUSE_MS_MAX = 5_000
_CUT_MS_MAX = 4_000
_LATE_MS_MAX = 6_000
_FOLLOWS_MS_MAX = 500       # long enough to hear of a new leader
_WATCH_MS_MAX = 100
_HAND_BACKS_MAX = 20
_AWAY_MS_MIN, _AWAY_MS_MAX = 1_500, 8_000
_KILLS_MAX = 3              # of a node that installs
_LOOK_MS_MAX = 20           # so often it is looked at


class Faults:
    """The faults of one cluster. `kinds`: those that occur; `every_ms`: the mean time between."""

    def __init__(self, cluster, kinds: tuple[str, ...], every_ms: int):
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self.kinds = kinds
        self.every_ms = every_ms
        self.counts: dict[str, int] = {}
        self.running = False        # things go wrong now
        self._ended = False
        self._members = MemberFaults(cluster)
        self._disks = DiskFaults(cluster)

    def begin(self) -> None:
        """From now on things go wrong; not any more in a run that was shorter than that."""
        self.running = not self._ended
        self._next()

    def end(self) -> None:
        """Nothing new goes wrong; the cluster heals what can be healed."""
        self.running, self._ended = False, True

    def _next(self) -> None:
        if self.running and self.kinds:
            self._scheduler.after(self._scheduler.randint(1, 2 * self.every_ms), self._happen)

    def _happen(self) -> None:
        if not self.running:
            return
        scheduler = self._scheduler
        name = self.kinds[scheduler.randint(0, len(self.kinds) - 1)]
        running = [n for n in self._cluster.nodes.values() if n.running and not n.paused]
        if running:
            leaders = [n for n in running if n.replica.leads and not self._cluster.is_foreign(n)]
            node = running[scheduler.randint(0, len(running) - 1)]
            if leaders and scheduler.chance(50):
                node = leaders[scheduler.randint(0, len(leaders) - 1)]
            self.counts[name] = self.counts.get(name, 0) + 1
            self._cluster.note(node.address, f"fault: {name}")
            method = name.replace(" ", "_")
            if name in memberfaults.KINDS:
                getattr(self._members, method)(node)
            elif hasattr(self._disks, method):
                getattr(self._disks, method)(node)
            else:
                getattr(self, "_" + method)(node)
            self._members.look_around()
        self._next()

    def _after(self, low_ms: int, high_ms: int, event) -> None:
        self._scheduler.after(self._scheduler.randint(low_ms, high_ms), event)

    # --- processes

    def _crash(self, node: SimulatedNode) -> None:
        node.crash(power_loss=False)

    def _power_loss(self, node: SimulatedNode) -> None:
        node.crash(power_loss=True)

    def _all_crash(self, node: SimulatedNode) -> None:
        for each in list(self._cluster.nodes.values()):
            if each.running:
                each.crash(power_loss=self._scheduler.chance(50))

    def _pause(self, node: SimulatedNode) -> None:
        node.pause()
        life = node.life
        self._after(10, _PAUSE_MS_MAX, lambda: node.running and node.life == life and node.paused
                    and node.resume())

    # --- network

    def _others(self, node: SimulatedNode) -> list[str]:
        return [address for address in self._cluster.nodes if address != node.address]

    def _heal_later(self) -> None:
        self._after(100, _CUT_MS_MAX, lambda: self.running and self._cluster.network.heal())

    def _isolate(self, node: SimulatedNode) -> None:
        for other in self._others(node):
            self._cluster.network.cut(node.address, other)
            self._cluster.network.cut(other, node.address)
        self._heal_later()

    def _one_way(self, node: SimulatedNode) -> None:
        inward = self._scheduler.chance(50)
        for other in self._others(node):
            self._cluster.network.cut(*((other, node.address) if inward
                                        else (node.address, other)))
        self._heal_later()

    def _halves(self, node: SimulatedNode) -> None:
        others = self._others(node)
        far = set(others[:self._scheduler.randint(1, len(others))])
        self._cut_between(far, {node.address, *others} - far)
        self._heal_later()

    def _bridge(self, node: SimulatedNode) -> None:
        """One node sees both sides, which do not see each other."""
        others = self._others(node)
        half = len(others) // 2
        self._cut_between(set(others[:half]), set(others[half:]))
        self._heal_later()

    def _cut_between(self, one: set[str], other: set[str]) -> None:
        for a in sorted(one):
            for b in sorted(other):
                self._cluster.network.cut(a, b)
                self._cluster.network.cut(b, a)

    def _slow_link(self, node: SimulatedNode) -> None:
        others = self._others(node)
        other = others[self._scheduler.randint(0, len(others) - 1)]
        longest = _LATE_MS_MAX if self._scheduler.chance(20) else 1_000
        self._cluster.network.slow(node.address, other, self._scheduler.randint(50, longest))
        self._heal_later()

    def _minority(self, node: SimulatedNode) -> None:
        """A leader and one follower see each other only, and what the follower says comes late.
        The others depose the leader; when all see each other again, its successor may die at once,
        so that it leads anew before it hears the rest of its old term (Raft, figure 8)."""
        far = self._others(node)
        other = far.pop(self._scheduler.randint(0, len(far) - 1))
        self._cut_between(set(far), {node.address, other})
        self._cluster.network.slow(other, node.address,
                                   self._scheduler.randint(500, _LATE_MS_MAX), both=False)
        end_ms = self._scheduler.now_ms + self._scheduler.randint(500, _CUT_MS_MAX)
        self._reunite_when_led(far, end_ms, self._may_crash_leaders)

    def _deposed(self, node: SimulatedNode) -> None:
        """The same, and the successor hands the leadership back at once. Not among KINDS: for
        profiles that want nothing else."""
        far = self._others(node)
        other = far.pop(self._scheduler.randint(0, len(far) - 1))
        self._cut_between(set(far), {node.address, other})
        self._cluster.network.slow(other, node.address,
                                   self._scheduler.randint(1_500, _LATE_MS_MAX), both=False)
        self._reunite_when_led(far, self._scheduler.now_ms + _CUT_MS_MAX,
                               lambda: self._hand_back(node, _HAND_BACKS_MAX))

    def _hand_back(self, node: SimulatedNode, tries: int) -> None:
        """As soon as the leader hears this node again."""
        leader = next((n for n in self._cluster.nodes.values()
                       if n.running and not n.paused and n.replica.leads), None)
        if not (self.running and node.running and tries) or leader is node:
            return
        try:
            if leader is not None:
                leader.replica.raft.transfer(node.replica.node_id)
                return
        except ChangeRefusedError:
            pass            # not heard yet, or something else is under way
        self._after(1, _WATCH_MS_MAX, lambda: self._hand_back(node, tries - 1))

    def _reunite_when_led(self, far: list[str], end_ms: int, then) -> None:
        """Once one of `far` leads, or time is up, all see each other again."""
        if not self.running:
            return
        nodes = [n for address, n in self._cluster.nodes.items() if address in far]
        if self._scheduler.now_ms < end_ms and not any(n.running and n.replica.leads
                                                       for n in nodes):
            self._after(1, _WATCH_MS_MAX, lambda: self._reunite_when_led(far, end_ms, then))
            return
        self._cluster.network.heal()
        then()

    def _may_crash_leaders(self) -> None:
        if self._scheduler.chance(50):
            self._after(1, _FOLLOWS_MS_MAX, self._crash_leaders)

    def _crash_leaders(self) -> None:
        for node in list(self._cluster.nodes.values()):
            if self.running and node.running and not node.paused and node.replica.leads:
                node.crash(power_loss=False)

    # --- snapshots

    def _left_behind(self, node: SimulatedNode) -> None:
        """A follower is away while the log is cut; what it is then sent is interrupted."""
        chosen = self._cluster.chosen
        followers = [n for n in self._cluster.nodes.values() if n.running and not n.replica.leads]
        if followers:
            away = chosen.choice(followers)
            away.crash(power_loss=chosen.random() < 0.5)
            end_ms = self._scheduler.now_ms + chosen.randint(_AWAY_MS_MIN, _AWAY_MS_MAX)
            away.down_until_ms = end_ms
            away.dies_installing |= chosen.random() < 0.5
            self._interrupt(away, end_ms + _AWAY_MS_MAX, chosen.randint(0, _KILLS_MAX))

    def _interrupt(self, away: SimulatedNode, end_ms: int, kills: int) -> None:
        """It dies while it installs, or the one that sends does, or its disk spoils a byte."""
        chosen = self._cluster.chosen
        if not (self.running and kills) or self._scheduler.now_ms >= end_ms:
            return
        raft = away.replica.raft if away.running else None
        if raft is not None and raft.incoming is not None and chosen.random() < 0.1:
            kills -= 1
            how = chosen.random()
            if how < 0.2 and not raft.incoming.written:
                self._disks.spoil_received(away)
            elif how < 0.4:
                self._crash_leaders()
            else:
                away.crash(power_loss=chosen.random() < 0.5)
        self._scheduler.after(chosen.randint(1, _LOOK_MS_MAX),
                              lambda: self._interrupt(away, end_ms, kills))

    def _backup(self, node: SimulatedNode) -> None:
        """Somebody asks for a snapshot of all that is committed, here or at the leader."""
        local = self._cluster.chosen.random() < 0.5
        self._cluster.ask(Kind.TAKE_SNAPSHOT, encode_take_snapshot(local),
                          node.address if local else "")

    # --- clocks

    def _clock(self, node: SimulatedNode) -> None:
        """A monotonic clock that runs at another speed from its next start on."""
        wild = self._scheduler.chance(30)
        self._cluster.speeds_differ = self._cluster.speeds_differ or wild
        node.crash(power_loss=False)
        node.clock_permille = (self._scheduler.randint(500, 2_000) if wild
                               else self._scheduler.randint(950, 1_050))
