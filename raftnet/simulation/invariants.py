"""What must hold after every event of a simulated cluster, by name; and what must hold at its end.

Each violation raises InvariantError with the invariant's name; in brackets the name that the
published TLA+ specification of etcd's raft gives it, where it has one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

from raftnet.raft.entry import HEADER_BYTES, Entry, EntryKind
from raftnet.raft.membership import NO_MEMBERSHIP, Membership, decode_membership, voters_changed
from raftnet.raft.types import Role, TimeoutNow, Vote, VoteReply
from raftnet.simulation import histories
from raftnet.simulation.promises import InvariantError, Promises
from raftnet.simulation.snapshotrules import SnapshotRules

_READ_BYTES = 1 << 30


@dataclass(slots=True)
class _Life:
    """What a process showed at the last look."""

    raft: object
    shown: tuple        # all of it that is compared with the next look
    term: int
    commit_index: int
    role: Role
    epoch: int
    last_index: int
    last_term: int
    match: dict[int, int]
    transfer_to: int
    removed: bool       # it was told so


_LATEST_MS = 8_000          # a message is on its way no longer
_CAUGHT_UP_ENTRIES = 64     # a learner that misses no more has caught up


class Invariants:
    """Watches all nodes of one cluster over all of their lives: the first that is founded. Lone
    founders that come later are watched from when they belong to it.

    `ran_within(node_id, duration_ms)`: whether a process of that identity ran so recently;
    `committed(entry)` is called with each entry when it is seen so for the first time, in order.
    """

    def __init__(self, ran_within: Callable[[int, int], bool] = lambda node_id, ms: True,
                 committed: Callable[[Entry], None] = lambda entry: None):
        self._ran_within = ran_within
        self._tell_committed = committed
        self.cluster_id: bytes | None = None
        self.promises = Promises()
        self.membership: Membership = NO_MEMBERSHIP     # the newest that is committed
        self.membership_index = 0
        self._leaders: dict[int, object] = {}       # term -> node
        self._handed_over: set[tuple[int, int]] = set()     # (term, node id) told to campaign
        self._lives: dict[object, _Life] = {}       # by node
        self._committed: dict[int, tuple[int, int]] = {}    # index -> (term, checksum)
        self._commit_terms: dict[int, int] = {}     # index -> a node's term when it was first seen
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}    # -> (header, term before)
        self._digests: dict[int, int] = {}          # applied index -> digest
        self._members: list[tuple[int, Membership]] = []    # committed, with their indexes
        self._snapshots = SnapshotRules(self._committed, self._digests, self._members)
        self.highest_commit = 0
        self.elections = 0

    # --- disks and lives

    def forget_life(self, node) -> None:
        """A process ended: its volatile state may begin anew."""
        self._lives.pop(node, None)

    def durable(self, node, jobs) -> None:
        """A node's disk is done with these jobs."""
        self.promises.durable(node, jobs)

    def gives(self, node, jobs) -> None:
        """A node gives these to its disk."""
        for job in jobs:
            if job.compact is not None:
                self._snapshots.check_cut(node, job.compact)

    def reopened(self, node, store) -> None:
        """A process has read its directory."""
        self.promises.reopened(node.address, store, self.cluster_id)
        if store.cluster_id == self.cluster_id is not None and store.snapshot is not None:
            self._snapshots.check_snapshot(node.address, store.snapshot.meta)
        self._snapshots.check_files(node.address, store)

    # --- between nodes

    def accepts(self, node, hello) -> None:
        """A node takes a message of one that greeted so: of the newest process that it met."""
        if node.met.get(hello.node_id) != (hello.boot, hello.process):
            raise InvariantError("two processes of one node id are never both accepted: "
                                 f"{node.address} still hears the older one of {hello.address}")

    def sends(self, node, to: int, message, link) -> None:
        """A message goes to the process of that identity, whatever its address was. A handing over
        goes to one that has all, and a vote past all withholding follows one in its term (thesis
        3.10)."""
        if link.acceptor.node_id != to and not link.ended:
            raise InvariantError(f"a message reaches the node that it is for: {node.address} sends "
                                 f"one for {to:016x} to {link.acceptor.node_id:016x} at "
                                 f"{link.address}")
        raft = node.replica.raft
        if type(message) is VoteReply and message.granted:
            self.promises.vote_leaves(node, to, message.term)
        elif type(message) is TimeoutNow:
            self._handed_over.add((message.term, to))
            last = raft.log.last_index
            if raft.transfer_to == to and last >= raft.log.memory_from and not self.promises.holds(
                    to, last, raft.log.entry(last).data[:HEADER_BYTES]):
                raise InvariantError(f"a transfer's target has caught up: {node.address} tells it "
                                     f"to campaign without entry {last}")
        elif type(message) is Vote and message.transfer and (
                (message.term - 1, raft.node_id) not in self._handed_over):
            raise InvariantError(f"only the leader hands over: {node.address} campaigns past all "
                                 f"withholding, and was not asked in term {message.term - 1}")

    # --- after every event

    def check(self, node) -> None:
        """After every event, of the node that it was about."""
        raft, machine = node.replica.raft, node.replica.machine
        if raft is None:
            return
        if self.cluster_id is None:
            self.cluster_id = node.replica.cluster_id
        if node.replica.cluster_id != self.cluster_id:
            return
        log = raft.log
        if raft.role is Role.LEADER:
            leader = self._leaders.setdefault(raft.current_term, node)
            if leader is not node:
                raise InvariantError(f"one leader a term [ElectionSafetyInv]: {leader.address} and "
                                     f"{node.address} in term {raft.current_term}")
        before = self._lives.get(node)
        if before is not None and before.raft is not raft:
            before = None
        removed = node.replica.greetings.removed
        shown = (raft.current_term, raft.role, raft.pre_voting, raft.transfer_to, removed,
                 log.commit_index, log.applied_index, log.epoch, log.last_index, log.handed_index,
                 log.stable_index, machine.applied_index, machine.digest, log.base_index,
                 log.snapshot_index, node.replica.store.snapshot, node.replica.store.log_base_index,
                 [p.match_index for p in raft.progress.values()])
        if before is not None:
            if before.shown == shown:
                return      # most events change nothing of this
            self._check_forward(node, raft, before)
        self._check_entries(node, before)
        self._check_committed(node, before)
        self._snapshots.check(node)
        match = {node_id: p.match_index for node_id, p in raft.progress.items()}
        self._lives[node] = _Life(raft, shown, raft.current_term, log.commit_index, raft.role,
                                  log.epoch, log.last_index, log.last_term, match,
                                  raft.transfer_to, removed)
        digest = self._digests.setdefault(machine.applied_index, machine.digest)
        if digest != machine.digest:
            raise InvariantError(f"equal digests at equal applied index: {node.address} at "
                                 f"{machine.applied_index}")
        # Old entries are applied out of the file over several turns.
        if not machine.applied_index <= log.applied_index <= log.commit_index <= log.last_index:
            raise InvariantError(f"applied <= committed <= last: {node.address}: "
                                 f"{log.applied_index}, {machine.applied_index}, "
                                 f"{log.commit_index}, {log.last_index}")
        if not log.stable_index <= log.handed_index <= log.last_index:
            raise InvariantError(f"stable <= handed <= last: {node.address}")

    def _check_forward(self, node, raft, before: _Life) -> None:
        address = node.address
        if raft.current_term < before.term:
            raise InvariantError(f"the term never goes back: {address}")
        if raft.log.commit_index < before.commit_index:
            raise InvariantError(f"commit_index never goes back: {address}")
        if raft.log.epoch == before.epoch + 1:
            self._check_cut(address, raft.log, before)
        campaigns = raft.role is not Role.FOLLOWER and not raft.pre_voting
        if before.removed and raft.current_term > before.term and campaigns:
            raise InvariantError(f"a removed node knows its place: {address} campaigns in term "
                                 f"{raft.current_term}, and was told")
        if raft.role is not Role.LEADER:
            return
        if before.role is not Role.LEADER or before.term != raft.current_term:
            self.elections += 1
            self._check_elected(address, raft)
            self._check_leader_complete(address, raft)
            return
        if 0 != raft.transfer_to == before.transfer_to and raft.log.last_index != before.last_index:
            raise InvariantError(f"a leader that hands over appends nothing: {address} in term "
                                 f"{raft.current_term}")
        if raft.log.epoch != before.epoch or raft.log.last_index < before.last_index:
            raise InvariantError(f"leader append-only: {address} in term {raft.current_term}")
        for node_id, match in before.match.items():
            progress = raft.progress.get(node_id)
            if progress is not None and progress.match_index < match:
                raise InvariantError(f"match_index never goes back: {address} of {node_id:x}")
            if progress is not None and progress.match_index > max(1, match):
                self._check_match(address, raft, node_id, progress.match_index)

    def _check_elected(self, address: str, raft) -> None:
        """By a quorum of those that vote by its own log, each with its vote on its disk."""
        membership = raft.membership
        votes = sum(self.promises.vote(node_id, self.cluster_id, raft.current_term) == raft.node_id
                    for node_id in membership.voters)
        if votes < membership.quorum:
            raise InvariantError(f"a quorum of voters elects: {address} leads term "
                                 f"{raft.current_term} with {votes} votes")

    def _check_match(self, address: str, raft, node_id: int, index: int) -> None:
        """What a leader newly counts for a follower of its term is on that follower's disk."""
        member, log = raft.membership.member(node_id), raft.log
        known = self.promises.of(node_id) if member is not None else None
        if known is None or known.term != raft.current_term:
            return
        header = (log.entry(index).data[:HEADER_BYTES] if log.memory_from <= index <= log.last_index
                  else known.entries.get(index, b""))     # whatever it is: committed long ago
        if index > log.last_index or not known.holds(index, header):
            raise InvariantError(f"match_index is true: {address} counts entry {index} for "
                                 f"{member.address}, whose disk does not hold it")

    def _check_cut(self, address: str, log, before: _Life) -> None:
        """A tail is dropped for another one only (Raft 5.3): never is a log cut to its own head."""
        index, term = before.last_index, before.last_term
        while index > log.last_index and (index, term) in self._entries:
            term = self._entries[index, term][1]
            index -= 1
        if index == log.last_index < before.last_index and term == log.last_term:
            raise InvariantError(f"only a conflict truncates [Raft 5.3]: {address} dropped all "
                                 f"behind {index}, and nothing came instead")

    def _check_entries(self, node, before: _Life | None) -> None:
        """Log matching [LogMatchingInv]: one entry at an index and term, and one before it; and
        no two configurations able to decide apart: memberships change by one voter at a time."""
        log = node.replica.raft.log
        known = (before.last_index if before is not None and before.epoch == log.epoch
                 else log.commit_index)
        for index in range(max(known + 1, log.memory_from), log.last_index + 1):
            entry = log.entry(index)
            seen = (entry.data[:HEADER_BYTES], log.term_at(index - 1))
            if self._entries.setdefault((index, entry.term), seen) != seen:
                raise InvariantError(f"log matching [LogMatchingInv]: {node.address} has another "
                                     f"entry at {index}, term {entry.term}")
            if entry.kind == EntryKind.MEMBERSHIP and index > 1:
                self._check_membership(node, log, index)

    def _check_membership(self, node, log, index: int) -> None:
        """In effect once it is appended; one voter, and one change, at a time; none before an entry
        of the leader's term is committed (Raft 6, thesis 4.1 and its erratum)."""
        raft, what = node.replica.raft, ""
        entry, earlier = log.entry(index), index - 1
        while earlier >= log.memory_from and log.entry(earlier).kind != EntryKind.MEMBERSHIP:
            earlier -= 1
        membership = decode_membership(entry.payload)
        before = (decode_membership(log.entry(earlier).payload) if earlier >= log.memory_from
                  else None)
        leads = raft.role is Role.LEADER and entry.term == raft.current_term
        if all(log.entry(i).kind != EntryKind.MEMBERSHIP
               for i in range(index + 1, log.last_index + 1)) and membership != raft.membership:
            what = "does not follow the membership"
        elif before is not None and voters_changed(before, membership) > 1:
            what = "changes two voters"
        elif len({m.address for m in membership.members if m.voter}) < len(membership.voters):
            what = "lets two voters share an address"
        elif leads and earlier > log.commit_index:
            what = "begins a change beside another"
        elif leads and log.term_at(log.commit_index) != raft.current_term:
            what = "changes the members before an entry of its term is committed"
        if what:
            raise InvariantError(f"no two configurations able to decide apart: {node.address} "
                                 f"{what} at {index}")
        if leads and before is not None and before != membership:
            self._check_step(node, before, membership, index)

    def _check_step(self, node, before: Membership, after: Membership, index: int) -> None:
        """What a leader may do with the members, beside safety: it keeps a quorum alive."""
        raft = node.replica.raft
        # A message may be late by this much; and its clock may run at half speed.
        patience_ms = 2 * raft.election_timeout_ms + _LATEST_MS
        if voters_changed(before, after) and sum(
                self._ran_within(n, patience_ms) for n in after.voters) < after.quorum:
            raise InvariantError(f"a change keeps a quorum alive: {node.address} at {index}: "
                                 f"{after}")
        for member in after.members:
            earlier = before.member(member.node_id)
            if member.voter and earlier is not None and not earlier.voter:
                known = self.promises.of(member.node_id)
                if known is None or known.last_index + _CAUGHT_UP_ENTRIES < index - 1:
                    raise InvariantError(f"promoted once it has caught up: {node.address} promotes "
                                         f"{member.address} at {index}")
                if earlier.stays and member.address not in before.target:
                    raise InvariantError(f"a learner that stays is not promoted: {node.address} "
                                         f"promotes {member.address}")
        target = before.target
        if target and target == after.target and not all(
                any(m.voter for m in before.members_at(address)) for address in target):
            for member in before.members:
                if (after.member(member.node_id) is None and member.voter
                        and member.address not in target
                        and len(before.members_at(member.address)) == 1):
                    raise InvariantError("a target is reached by adding first: "
                                         f"{node.address} removes {member.address}")

    def _check_committed(self, node, before: _Life | None) -> None:
        """State machine safety: one entry at an index, once committed; and a quorum has it on its
        disks [CommittedIsDurableInv]."""
        raft = node.replica.raft
        log = raft.log
        deciding = [raft.membership]
        if before is not None and log.membership_index > before.last_index:
            # Appended since the last look: what was committed meanwhile was so before or after it.
            deciding.append(log.membership_before)
        first = (before.commit_index + 1 if before is not None
                 else min(log.snapshot_index + 1, log.memory_from))
        for entry in _entries_of(node, first, log.commit_index):
            index, seen = entry.index, (entry.term, crc32(entry.data))
            if index not in self._committed:
                self._committed[index] = seen
                self._commit_terms[index] = raft.current_term
                self._tell_committed(entry)
                if entry.kind == EntryKind.MEMBERSHIP:
                    self.membership = decode_membership(entry.payload)
                    self.membership_index = index
                    self._members.append((index, self.membership))
                self._check_durable(node, deciding, entry)
            elif self._committed[index] != seen:
                raise InvariantError(f"state machine safety: {node.address} committed another "
                                     f"entry at {index}")
        if 0 < log.membership_index <= log.commit_index and (
                (log.membership_index, log.membership)
                != self._snapshots.members_at(log.commit_index)):
            raise InvariantError(f"members are those of the log: {node.address} has others at "
                                 f"{log.membership_index}, with {log.commit_index} committed")
        self.highest_commit = max(self.highest_commit, log.commit_index)

    def _check_durable(self, node, deciding: list[Membership], entry) -> None:
        """By one of the memberships that may have decided."""
        if node.replica.raft.role is not Role.LEADER or entry.index == 1:
            return      # entry 1 is written by the founding, not as a job
        faults = [self._why_not_durable(node, membership, entry) for membership in deciding]
        if all(faults):
            raise InvariantError(faults[0])

    def _why_not_durable(self, node, membership: Membership, entry) -> str:
        header = entry.data[:HEADER_BYTES]
        holders, ends = 0, []
        for node_id in membership.voters:
            known = self.promises.of(node_id)
            holds = self.promises.holds(node_id, entry.index, header)
            holders += holds
            ends.append((known.end if known is not None else (0, 0), holds))
        if holders < membership.quorum:
            return (f"committed is durable [CommittedIsDurableInv]: entry {entry.index} is "
                    f"committed at {node.address}, and on {holders} disks")
        for end, holds in ends:
            if not holds and (sum(end >= other for other, _ in ends)
                              >= membership.quorum):
                return (f"a quorum holds what is committed [QuorumLogInv]: entry {entry.index} is "
                        f"committed at {node.address}, and its disks could elect a node that lacks "
                        "it (figure 8)")
        return ""

    def _check_leader_complete(self, address: str, raft) -> None:
        """A leader holds what was committed in earlier terms (Raft 5.4.3)."""
        log = raft.log
        for index in range(log.base_index + 1, self.highest_commit + 1):
            if self._commit_terms.get(index, 0) >= raft.current_term:
                break
            entry = log.entry(index) if log.memory_from <= index <= log.last_index else None
            known = self._committed.get(index)
            if known is not None and (log.term_at(index) != known[0] or (
                    entry is not None and (entry.term, crc32(entry.data)) != known)):
                raise InvariantError("leader completeness [LeaderCompletenessInv]: "
                                     f"{address} lacks entry {index}")

    # --- at the end

    def check_histories(self, clients, drained: bool = True) -> None:
        """At the end: nothing lost, doubled, invented or out of order. `drained`: everything was
        taken out."""
        try:
            histories.check([operation for client in clients for operation in client.history],
                            drained=drained)
        except histories.HistoryError as error:
            raise InvariantError(str(error)) from error


def _entries_of(node, first: int, last: int) -> Iterator[Entry]:
    """Entries of a node's log, from its file where they are no more in memory."""
    log = node.replica.raft.log
    index = max(first, log.base_index + 1)
    while index < log.memory_from and index <= last:
        entries = node.replica.store.read_entries(index, _READ_BYTES, min(last, log.stable_index))
        yield from entries
        index = entries[-1].index + 1
    for index in range(index, last + 1):
        yield log.entry(index)
