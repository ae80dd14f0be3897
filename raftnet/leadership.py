"""Leadership: what a node does for its clients and members while it leads, beside Raft.

Rules: requests become batches stamped with replicated time; deadlines of the replicated state are
noticed by the leader and take effect by an entry; waits that nobody came back for are cancelled;
a newer version of the replicated state begins once every member knows it; before a stop, and when
its disk is full, a leader hands over. Raft's own part (replication, commitment, check-quorum) is in
raft/leader.py.
"""

from raftnet.errors import ChangeRefusedError
from raftnet.wire.commands import encode_batch

_HAND_OVER_MS_MAX = 10_000      # a stop waits no longer, whatever the network is like
_RELIEF_TIMEOUTS = 4            # election timeouts between two tries to be relieved


class Leadership:
    """One node's; `term` is that in which it leads and the gateway is open, 0: it does not lead."""

    def __init__(self, replica):
        self._replica = replica
        self.term = 0
        self._orphans_deadline_ms: int | None = None
        self._relief_ms = 0         # with a full disk: when another one is asked to lead (again)

    def begin(self, term: int) -> None:
        """This node leads from now on."""
        replica = self._replica
        self.term = term
        self._orphans_deadline_ms = replica.now_ms + replica.config.gateway.orphan_wait_ms
        replica.peers_changed = True    # a leader also dials whom `members --set` asked for

    def end(self) -> None:
        """It leads no more: whoever waits is told so."""
        replica = self._replica
        self.term = 0
        self._orphans_deadline_ms = None
        replica.peers_changed = True
        replica.gateway.close(replica.leader_address)
        replica.admission.leadership_lost()

    # --- deadlines

    def next_deadline_ms(self) -> int | None:
        """When `tick` wants to be called, if it does."""
        found = [at for at in (self._machine_deadline_ms(), self._orphans_deadline_ms)
                 if at is not None]
        return min(found) if found else None

    def _machine_deadline_ms(self) -> int | None:
        """When, by our clock, the machine's next replicated deadline is due."""
        replica = self._replica
        if (not self.term or not replica.gateway.is_idle
                or replica.why_not_serving() is not None):
            return None
        due = replica.machine.next_deadline_ms()
        if due is None:
            return None
        grain = replica.config.gateway.deadline_grain_ms
        # The same in every turn until it comes: turns come late.
        at = replica.now_ms + due - replica.time.at(replica.now_ms)
        return -(-at // grain) * grain

    def tick(self) -> None:
        """Deadlines that are reached take effect."""
        replica = self._replica
        if (replica.disk_full and self.term and not replica.raft.transferring
                and replica.now_ms >= self._relief_ms):
            self._relief_ms = replica.now_ms + _RELIEF_TIMEOUTS * replica.raft.election_timeout_ms
            self.hand_over("the disk is full")
        deadline = self._machine_deadline_ms()
        if deadline is not None and deadline <= replica.now_ms:
            replica.gateway.time_passes()
        if self._orphans_deadline_ms is not None and replica.now_ms >= self._orphans_deadline_ms:
            self._orphans_deadline_ms = None
            if self.term and replica.why_not_serving() is None:
                cancelled = replica.gateway.cancel_orphans()
                if cancelled:
                    replica.actions.say("wait", "%d waiting dequeues that nobody came back for are "
                                        "cancelled", cancelled)

    # --- once a turn

    def propose(self) -> None:
        """The requests that wait become entries, as far as there is room for them."""
        replica = self._replica
        raft, gateway = replica.raft, replica.gateway
        if not self.term or raft.transferring:
            return
        while (gateway.wants_batch(raft.disk_idle)
               and raft.uncommitted_bytes <= replica.config.raft.uncommitted_bytes_max):
            bodies, waiters = gateway.take_batch()
            payload = encode_batch(replica.time.at(replica.now_ms), bodies)
            index, term = raft.propose(payload)
            gateway.proposed(index, term, waiters)
            replica.actions.say("request", "%d requests of clients become entry %d", len(bodies),
                                index)
            replica.time.follow(replica.now_ms, replica.machine.time_ms)

    def raise_state_version(self) -> None:
        """Once every member knows a newer version of the replicated state, it begins (protocol.md,
        Compatibility rules)."""
        replica = self._replica
        raft, known = replica.raft, replica.greetings.known
        version = raft.membership.state_version + 1
        if (not self.term or version > replica.state_version_max or not raft.leads_ready
                or raft.transferring or raft.log.membership_index > raft.log.commit_index
                or any(known.state_version(m.node_id) < version
                       for m in raft.membership.members if m.node_id != replica.node_id)):
            return
        raft.propose_membership(raft.membership.with_state_version(version))

    # --- before a stop, and with a full disk

    def hand_over(self, why: str) -> int:
        """The best of the other voters is to lead. How long it may take for that, milliseconds;
        0: nobody can."""
        replica = self._replica
        successor = replica.raft.best_successor()
        if not successor:
            return 0
        replica.actions.say("transfer", "%s: handing the leadership over to %s", why,
                            replica.address_of(successor))
        try:
            replica.raft.transfer(successor)
        except ChangeRefusedError:
            pass        # an operator's is under way: that one serves as well
        return min(replica.raft.transfer_deadline_ms - replica.raft.now_ms, _HAND_OVER_MS_MAX)
