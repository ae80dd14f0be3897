"""Settling: the second phase of a simulation. Everything heals; what must come of it, in time.

Rules: every node runs and is reached. Then a leader is there, every client and every operator is
answered, all members whose data is whole are equal, emptied and healed nodes are members again and
twins are no more, logs are cut, learners are voters unless they stay learners, a target that can be
reached is reached, and whoever was removed knows it. Last, a follower that was cut off for a while,
and removed nodes that begin anew, cost the settled leader nothing. Where no quorum of whole nodes
is left none of this can be asked for; SimulatedCluster.can_decide says how that comes about.

What only a person can do is done here too: a node that asks somebody who belongs no more, or that
founded a cluster of itself where no member was, is emptied and told whom to ask.
"""

from collections.abc import Callable

from raftnet.machine.state import encode_state
from raftnet.raft.membership import Membership
from raftnet.replica import Phase, Start
from raftnet.simulation.network import NetworkProfile
from raftnet.simulation.diskwork import DiskProfile
from raftnet.simulation.node import SimulatedNode
from raftnet.simulation.promises import InvariantError
from raftnet.simulation.snapshotrules import why_too_long

_HEAL_LIMIT_MS = 40_000
_SLOWNESS_REMEMBERED = 5        # times as long: timeouts that were measured on a slow network
_SETTLE_MS = 100
_HELP_EVERY_MS = 3_000
# A settled leader's follower is cut off for so long, and has so long to come back.
_ABSENCE_MS, _RETURN_MS = 3_000, 1_000
_TIMEOUTS = 2               # and as many election timeouts


class _Stuck(Exception):
    """No quorum of whole nodes is left."""


class Settling:
    """Of one cluster, after its faults."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._help_ms = 0
        # A slow network stays as it is in half of the runs.
        self._stays_slow = cluster.slowness > 1 and cluster.seed % 2 == 0

    def run(self) -> bool:
        """False where no quorum of whole nodes is left. Raises InvariantError."""
        cluster = self._cluster
        self._heal()
        try:
            self._await(lambda: "" if all(c.idle for c in cluster.callers) else
                        "a client is not answered")
            self._drain()
            self._await(self._what_is_missing)
            self._check_states()
            self._await(self._who_is_owed_an_answer)
            self._cut_off_a_follower()
        except _Stuck:
            cluster.note("", "no quorum of whole nodes is left")
            return False
        return True

    def _heal(self) -> None:
        cluster = self._cluster
        cluster.note("", "everything heals")
        cluster.faults.end()
        cluster.network.heal()
        if not self._stays_slow:
            cluster.network.profile = NetworkProfile()
            cluster.round_trip_ms = cluster.network.profile.round_trip_ms
        # What is lost or damaged is lost for good here, and sent again on a real connection.
        cluster.network.profile.loss = cluster.network.profile.corrupt = 0
        for node in list(cluster.nodes.values()):
            node.disk_profile = DiskProfile()
            node.disk.full = False
            node.disk.fail_at(0)
            node.down_until_ms = 0
            if node.running and node.paused:
                node.resume()
        for node in list(cluster.nodes.values()):
            if not node.running and cluster.nodes.get(node.address) is node:
                node.boot()
        for caller in [*cluster.callers, *cluster.watchers]:
            caller.stopping = True
        for operator in cluster.operators:
            operator.give_up()

    def _drain(self) -> None:
        drainer = self._cluster.clients[0]
        while True:
            before = len(drainer.received)
            drainer.drain()
            self._await(lambda: "" if drainer.idle else "the queue is not drained")
            if len(drainer.received) == before:
                break

    def _await(self, what_is_missing: Callable[[], str]) -> None:
        """Until nothing is missing."""
        cluster, scheduler = self._cluster, self._scheduler
        limit_ms = _HEAL_LIMIT_MS * (1 if self._cluster.slowness == 1 else
                                     _SLOWNESS_REMEMBERED + self._stays_slow * cluster.slowness)
        end = scheduler.now_ms + limit_ms
        while (missing := what_is_missing()):
            if not cluster.can_decide():
                raise _Stuck
            if scheduler.now_ms >= end:
                raise InvariantError(f"liveness: not within {limit_ms} ms: {missing}")
            if scheduler.now_ms >= self._help_ms:
                self._help_ms = scheduler.now_ms + _HELP_EVERY_MS
                self._help_who_asks_in_vain()
            cluster.run_until(scheduler.now_ms + _SETTLE_MS)

    # --- what must come of it

    def _leader(self) -> SimulatedNode | None:
        """The only one, if there is one."""
        found = [n for n in self._cluster.nodes.values() if n.running and n.replica.leads
                 and not self._cluster.is_foreign(n)]
        return found[0] if len(found) == 1 else None

    def _what_is_missing(self) -> str:
        """"": nothing; else in words."""
        cluster = self._cluster
        leader = self._leader()
        if leader is None:
            return "not one leader"
        log = leader.replica.raft.log
        membership = log.membership
        if log.membership_index > log.commit_index:
            return "a change is under way"
        applied = leader.replica.machine.applied_index, leader.replica.machine.digest
        for node in cluster.nodes.values():
            if not node.running:
                return f"{node.address} does not run"
            replica = node.replica
            if replica.phase is not Phase.RUNNING or cluster.is_foreign(node):
                return f"{node.address} is not taken in"
            if membership.member(node.node_id) is None:
                if not replica.is_removed and self._reaches_a_member(node, membership):
                    return f"{node.address} does not know that it was removed"
            elif (replica.machine.applied_index, replica.machine.digest) != applied:
                return f"{node.address} is not equal"
            elif (too_long := why_too_long(node)):
                return too_long
        return self._what_is_missing_of(membership)

    def _what_is_missing_of(self, membership: Membership) -> str:
        cluster = self._cluster
        if len({m.address for m in membership.members}) < len(membership.members):
            return "two members share an address"
        for member in membership.members:
            holder = cluster.holder(member.node_id)
            if holder is None:
                continue        # only a person can remove it
            if holder.address != member.address:
                return f"{holder.address} is known at {member.address}"
            if not member.voter and not member.stays:
                return f"{member.address} is still a learner"
        if membership.target and all(self._may_become_a_member(a) for a in membership.target):
            return f"the target {membership.target} is not reached"
        return ""

    def _check_states(self) -> None:
        """Equal nodes have equal states, to the byte; some of them came out of snapshots."""
        leader = self._leader()
        state = b"".join(encode_state(leader.replica.machine))
        for node in self._cluster.nodes.values():
            machine = node.replica.machine
            if (machine.applied_index == leader.replica.machine.applied_index
                    and b"".join(encode_state(machine)) != state):
                raise InvariantError(f"equal states at equal applied index: {node.address} and "
                                     f"{leader.address} at {machine.applied_index}")

    def _may_become_a_member(self, address: str) -> bool:
        """Whether somebody is there, and no removed node, which only a person can empty."""
        node = self._cluster.nodes.get(address)
        return node is not None and not (node.running and node.replica.raft is not None
                                         and node.replica.is_removed)

    def _who_is_owed_an_answer(self) -> str:
        owed = [o.name for o in self._cluster.operators if o.is_owed_an_answer]
        return f"no answer for {', '.join(owed)}" if owed else ""

    def _reaches_a_member(self, node: SimulatedNode, membership: Membership) -> bool:
        """Whether where a removed node looks for members is one."""
        addresses = {m.address for m in node.replica.raft.membership.members}
        return any(m.address in addresses and self._cluster.holder(m.node_id) is not None
                   for m in membership.members)

    # --- what a person does

    def _help_who_asks_in_vain(self) -> None:
        cluster = self._cluster
        membership = cluster.invariants.membership
        if not membership.members:
            return
        for node in list(cluster.nodes.values()):
            if node.running and self._asks_in_vain(node, membership):
                contact = cluster.contact(node)
                if contact:
                    cluster.note(node.address, "asks in vain, and is told whom to ask")
                    node.crash(power_loss=False)
                    cluster.empty(node, Start(node.address, join=contact))
                    node.boot()

    def _asks_in_vain(self, node: SimulatedNode, membership: Membership) -> bool:
        """Whether nobody who belongs to the cluster will ever hear it."""
        cluster, replica = self._cluster, node.replica
        wanted = membership.members_at(node.address) or node.address in membership.target
        if replica.raft is not None:
            # A lone founder leaves its own cluster, unless it took in another newcomer; and that
            # one, if its founder was emptied again before it sent an entry, waits for ever.
            return cluster.is_foreign(node) and (
                not wanted or len(replica.raft.membership.members) != 1)
        asking = replica.joining.asking
        healing = replica.store.healing
        if healing is not None and wanted:
            contacts = list(healing.contacts)
        elif asking is None:
            contacts = replica.founding.founders.addresses
        elif healing is None and node.start.join == asking.contact or wanted:
            contacts = [asking.contact]
        else:
            return True     # a founder, and who heals, returns only to where a member was
        return not any(cluster.belongs(address) for address in contacts
                       if address != node.address)

    # --- a settled leader stays

    def _cut_off_a_follower(self) -> None:
        """Who was away too long to have a leader must not cost the others theirs (thesis 9.6), and
        who was removed must not either when it begins anew."""
        cluster = self._cluster
        self._await(lambda: self._what_is_missing() or (
            "" if all(n.disk_idle for n in cluster.nodes.values()) else "a disk hangs"))
        leader = self._leader()
        membership = leader.replica.raft.membership
        voters = [m for m in membership.members if m.voter and cluster.is_whole(m.node_id)]
        others = [m.address for m in voters if m.address != leader.address]
        if len(others) <= membership.quorum - 1 or cluster.speeds_differ:
            # Without one of them the leader has no quorum, and must step down; and a clock at
            # double speed is out of patience before one at half speed sends a heartbeat.
            return
        away = others[self._scheduler.randint(0, len(others) - 1)]
        term = leader.replica.raft.current_term
        cluster.note(away, "is cut off from the others")
        for other in cluster.nodes:
            cluster.network.cut(away, other)
            cluster.network.cut(other, away)
        for node in list(cluster.nodes.values()):
            if membership.member(node.node_id) is None:
                node.crash(power_loss=False)
        # Long enough that its timeout passes, whatever that is.
        timeout_ms = cluster.nodes[away].replica.raft.election_timeout_ms
        cluster.run_until(self._scheduler.now_ms + _ABSENCE_MS + _TIMEOUTS * timeout_ms)
        cluster.note(away, "is back")
        cluster.network.heal()
        cluster.run_until(self._scheduler.now_ms + _RETURN_MS + timeout_ms)
        leads = leader.running and leader.replica.leads
        if not leads or leader.replica.raft.current_term != term:
            raise InvariantError(f"a settled leader stays: {leader.address} lost term {term} when "
                                 f"{away} came back")
