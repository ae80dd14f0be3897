"""Faults: what may go wrong in a simulated cluster, drawn from its seed. Those about who belongs to
it are in memberfaults.py.

Rules: a fault begins at a random moment, at a random node (half the time the leader), and ends by
itself; what cannot be undone (an emptied directory, a flipped bit in synced data) is done to fewer
nodes than would cost the quorum. Which kinds occur, and how often, is drawn too.
"""

from raftnet.errors import ChangeRefusedError
from raftnet.simulation import memberfaults
from raftnet.simulation.memberfaults import MemberFaults
from raftnet.simulation.node import DiskProfile, SimulatedNode
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.metafile import META_NAME
from raftnet.storage.records import HEADER_BYTES, scan_records

KINDS = ("crash", "power loss", "all crash", "pause", "isolate", "one way", "halves", "bridge",
         "minority", "slow link", "slow disk", "hung disk", "full disk", "failing disk", "clock",
         "bit flip", *memberfaults.KINDS)
_PAUSE_MS_MAX = 5_000
_CUT_MS_MAX = 4_000
_LATE_MS_MAX = 6_000
_FOLLOWS_MS_MAX = 500       # long enough to hear of a new leader
_WATCH_MS_MAX = 100
_HAND_BACKS_MAX = 20
_SLOW_DISK_MS_MAX = 2_000
_HUNG_DISK_MS = 10_000


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
            if name in memberfaults.KINDS:
                getattr(self._members, name)(node)
            else:
                getattr(self, "_" + name.replace(" ", "_"))(node)
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

    # --- disks

    def _slow_disk(self, node: SimulatedNode) -> None:
        node.disk_profile = DiskProfile(0, self._scheduler.randint(1, _SLOW_DISK_MS_MAX))
        self._after(100, 6_000, lambda: setattr(node, "disk_profile", DiskProfile()))

    def _hung_disk(self, node: SimulatedNode) -> None:
        node.disk_profile = DiskProfile(_HUNG_DISK_MS, _HUNG_DISK_MS)
        self._after(100, 4_000, lambda: setattr(node, "disk_profile", DiskProfile()))

    def _full_disk(self, node: SimulatedNode) -> None:
        node.disk.bytes_left = self._scheduler.randint(0, 2_000)
        self._after(100, 5_000, lambda: setattr(node.disk, "full", False))

    def _failing_disk(self, node: SimulatedNode) -> None:
        node.disk.fail_at(self._scheduler.randint(1, 50), self._scheduler.chance(50))

    def _bit_flip(self, node: SimulatedNode) -> None:
        """Synced data changes while the node is down: it must refuse, or lose nothing by it."""
        if node.old_copy or not self._cluster.may_lose(node):
            return
        node.crash(power_loss=True)
        name = (LOG_NAME, META_NAME)[self._scheduler.randint(0, 1)]
        if name in node.disk.list():
            data = bytearray(node.disk.get(name))
            position = self._scheduler.randint(0, self._certain_bytes(name, data) - 1)
            data[position] ^= 1 << self._scheduler.randint(0, 7)
            node.disk.put(name, bytes(data))
            node.damaged = True

    @staticmethod
    def _certain_bytes(name: str, data: bytearray) -> int:
        """How much of the file is known synced from itself; damage in the log's very last batch
        cannot be told from a torn tail (protocol.md, Files)."""
        if name != LOG_NAME:
            return len(data)
        synced = HEADER_BYTES
        for _, synced_offset, entry in scan_records(
                lambda offset, count: bytes(data[offset:offset + count]), len(data)):
            if entry is not None:
                synced = max(synced, synced_offset)
        return synced

    # --- clocks

    def _clock(self, node: SimulatedNode) -> None:
        """A monotonic clock that runs at another speed from its next start on."""
        wild = self._scheduler.chance(30)
        self._cluster.speeds_differ = self._cluster.speeds_differ or wild
        node.crash(power_loss=False)
        node.clock_permille = (self._scheduler.randint(500, 2_000) if wild
                               else self._scheduler.randint(950, 1_050))
