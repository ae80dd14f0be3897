"""What must hold after every event of a simulated cluster, by name; and what must hold at its end.

Each violation raises InvariantError with the invariant's name; in brackets the name that the
published TLA+ specification of etcd's raft gives it, where it has one.
"""

from dataclasses import dataclass, field
from zlib import crc32

from raftnet.raft.entry import HEADER_BYTES, EntryKind
from raftnet.raft.membership import decode_membership, voters_changed
from raftnet.raft.types import Role
from raftnet.simulation import histories


class InvariantError(AssertionError):
    """Something that must never happen did."""


@dataclass(slots=True)
class _Durable:
    """What a node's disk has confirmed, over all of its lives: what it may have promised."""

    cluster_id: bytes
    term: int = 0
    voted_for: int = 0
    entries: dict[int, bytes] = field(default_factory=dict)     # index -> header, checksum in it
    last_index: int = 0


@dataclass(slots=True)
class _Life:
    """What a process showed at the last look."""

    raft: object
    term: int
    commit_index: int
    role: Role
    epoch: int
    last_index: int
    last_term: int
    match: dict[int, int]


class Invariants:
    """Watches all nodes of one cluster over all of their lives."""

    def __init__(self):
        self._leaders: dict[int, str] = {}          # term -> address
        self._lives: dict[str, _Life] = {}
        self._durable: dict[str, _Durable] = {}
        self._votes: dict[tuple[str, int], int] = {}    # (address, term) -> durable vote
        self._committed: dict[int, tuple[int, int]] = {}    # index -> (term, checksum)
        self._commit_terms: dict[int, int] = {}     # index -> a node's term when it was first seen
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}    # -> (header, term before)
        self._digests: dict[int, int] = {}          # applied index -> digest
        self._lost: set[str] = set()
        self.highest_commit = 0
        self.elections = 0

    # --- disks and lives

    def forget_life(self, address: str) -> None:
        """A process ended: its volatile state may begin anew."""
        self._lives.pop(address, None)

    def lost(self, address: str) -> None:
        """The data of a node was taken away or damaged: no promise of its can be held to it."""
        self._lost.add(address)
        self._durable.pop(address, None)

    def durable(self, node, jobs) -> None:
        """One vote a term, across restarts; and what a node may promise from now on."""
        if node.address in self._lost:
            return
        known = self._durable.get(node.address)
        if known is None or known.cluster_id != node.replica.cluster_id:
            known = self._durable[node.address] = _Durable(node.replica.cluster_id)
        for job in jobs:
            if job.hard_state is not None:
                known.term, known.voted_for = job.hard_state.current_term, job.hard_state.voted_for
                self._check_vote(node.address, known)
            for entry in job.entries:
                for index in range(entry.index, known.last_index + 1):
                    known.entries.pop(index, None)
                known.entries[entry.index] = entry.data[:HEADER_BYTES]
                known.last_index = entry.index

    def _check_vote(self, address: str, known: _Durable) -> None:
        if not known.voted_for:
            return
        before = self._votes.setdefault((address + known.cluster_id.hex(), known.term),
                                        known.voted_for)
        if before != known.voted_for:
            raise InvariantError(f"one vote a term: {address} voted for {before:x} and "
                                 f"{known.voted_for:x} in term {known.term}")

    def reopened(self, address: str, store) -> None:
        """A promise's entries survive any crash after it, and so do term and vote."""
        known = self._durable.get(address)
        if known is None or address in self._lost:
            return
        if store.cluster_id != known.cluster_id:
            if known.entries:
                raise InvariantError(f"a promise's entries survive any crash: {address} forgot "
                                     "its cluster")
            del self._durable[address]      # a founding that was never complete was dropped
            return
        state = store.hard_state
        if state.current_term < known.term or (
                state.current_term == known.term
                and known.voted_for not in (0, state.voted_for)):
            raise InvariantError(f"a promise's term and vote survive any crash: {address}: {state} "
                                 f"after term {known.term}, vote {known.voted_for:x}")
        for index, header in known.entries.items():
            # In its place, or else the log's end.
            held = store.entries[min(index, len(store.entries)) - 1] if store.entries else None
            if held is None or held.data[:HEADER_BYTES] != header:
                # Jobs that were under way may have replaced it, or one before it and so all that
                # followed: then the log shows a later term.
                if held is None or held.term <= int.from_bytes(header[8:16], "big"):
                    raise InvariantError(f"a promise's entries survive any crash: {address} lacks "
                                         f"entry {index}")
        # What was replayed is durable from now on, whether or not a job told of it.
        known.term, known.voted_for = state.current_term, state.voted_for
        known.entries = {entry.index: entry.data[:HEADER_BYTES] for entry in store.entries}
        known.last_index = len(store.entries)

    # --- after every event

    def check(self, node) -> None:
        """After every event, of the node that it was about."""
        raft, machine = node.replica.raft, node.replica.machine
        if raft is None:
            return
        log = raft.log
        if raft.role is Role.LEADER:
            leader = self._leaders.setdefault(raft.current_term, node.address)
            if leader != node.address:
                raise InvariantError(f"one leader a term [ElectionSafetyInv]: {leader} and "
                                     f"{node.address} in term {raft.current_term}")
        before = self._lives.get(node.address)
        if before is not None and before.raft is not raft:
            before = None
        if before is not None:
            self._check_forward(node.address, raft, before)
        self._check_entries(node, before)
        self._check_committed(node, before.commit_index if before is not None else 0)
        match = ({node_id: p.match_index for node_id, p in raft.progress.items()}
                 if raft.role is Role.LEADER else {})
        self._lives[node.address] = _Life(raft, raft.current_term, log.commit_index, raft.role,
                                          log.epoch, log.last_index, log.last_term, match)
        digest = self._digests.setdefault(machine.applied_index, machine.digest)
        if digest != machine.digest:
            raise InvariantError(f"equal digests at equal applied index: {node.address} at "
                                 f"{machine.applied_index}")
        if not log.applied_index == machine.applied_index <= log.commit_index <= log.last_index:
            raise InvariantError(f"applied <= committed <= last: {node.address}")
        if not log.stable_index <= log.handed_index <= log.last_index:
            raise InvariantError(f"stable <= handed <= last: {node.address}")

    def _check_forward(self, address: str, raft, before: _Life) -> None:
        if raft.current_term < before.term:
            raise InvariantError(f"the term never goes back: {address}")
        if raft.log.commit_index < before.commit_index:
            raise InvariantError(f"commit_index never goes back: {address}")
        if raft.log.epoch == before.epoch + 1:
            self._check_cut(address, raft.log, before)
        if raft.role is not Role.LEADER:
            return
        if before.role is not Role.LEADER or before.term != raft.current_term:
            self.elections += 1
            self._check_leader_complete(address, raft)
            return
        if raft.log.epoch != before.epoch or raft.log.last_index < before.last_index:
            raise InvariantError(f"leader append-only: {address} in term {raft.current_term}")
        for node_id, match in before.match.items():
            progress = raft.progress.get(node_id)
            if progress is not None and progress.match_index < match:
                raise InvariantError(f"match_index never goes back: {address} of {node_id:x}")
            if progress is not None and progress.match_index > max(1, match):
                self._check_match(address, raft, node_id, progress.match_index)

    def _check_match(self, address: str, raft, node_id: int, index: int) -> None:
        """What a leader newly counts for a follower of its term is on that follower's disk."""
        member, log = raft.membership.member(node_id), raft.log
        known = self._durable.get(member.address) if member is not None else None
        if known is None or known.term != raft.current_term or index < log.memory_from:
            return
        if (index > log.last_index
                or known.entries.get(index) != log.entry(index).data[:HEADER_BYTES]):
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
        if all(log.entry(i).kind != EntryKind.MEMBERSHIP
               for i in range(index + 1, log.last_index + 1)) and membership != raft.membership:
            what = "does not follow the membership"
        elif earlier >= log.memory_from and voters_changed(
                decode_membership(log.entry(earlier).payload), membership) > 1:
            what = "changes two voters"
        elif raft.role is Role.LEADER and entry.term == raft.current_term:
            if earlier > log.commit_index:
                what = "begins a change beside another"
            elif log.term_at(log.commit_index) != raft.current_term:
                what = "changes the members before an entry of its term is committed"
        if what:
            raise InvariantError(f"no two configurations able to decide apart: {node.address} "
                                 f"{what} at {index}")

    def _check_committed(self, node, from_index: int) -> None:
        """State machine safety: one entry at an index, once committed; and a quorum has it on its
        disks [CommittedIsDurableInv]."""
        raft = node.replica.raft
        log = raft.log
        for index in range(max(from_index + 1, log.memory_from), log.commit_index + 1):
            entry = log.entry(index)
            seen = (entry.term, crc32(entry.data))
            if index not in self._committed:
                self._committed[index] = seen
                self._commit_terms[index] = raft.current_term
                self._check_durable(node, raft, entry)
            elif self._committed[index] != seen:
                raise InvariantError(f"state machine safety: {node.address} committed another "
                                     f"entry at {index}")
        self.highest_commit = max(self.highest_commit, log.commit_index)

    def _check_durable(self, node, raft, entry) -> None:
        if raft.role is not Role.LEADER or self._lost or entry.index == 1:
            return      # entry 1 is written by the founding, not as a job
        header = entry.data[:HEADER_BYTES]
        holders, ends = 0, []
        for member in raft.membership.members:
            known = self._durable.get(member.address)
            if member.voter:
                holds = known is not None and known.entries.get(entry.index) == header
                holders += holds
                last = known.entries.get(known.last_index, b"") if known is not None else b""
                # An entry's header: length, checksum, term, index.
                ends.append((last[8:16], known.last_index if known is not None else 0, holds))
        if holders < raft.membership.quorum:
            raise InvariantError(f"committed is durable [CommittedIsDurableInv]: entry "
                                 f"{entry.index} is committed at {node.address}, and on "
                                 f"{holders} disks")
        for term, index, holds in ends:
            if not holds and (sum((term, index) >= other[:2] for other in ends)
                              >= raft.membership.quorum):
                raise InvariantError("a quorum holds what is committed [QuorumLogInv]: entry "
                                     f"{entry.index} is committed at {node.address}, and its disks "
                                     "could elect a node that lacks it (figure 8)")

    def _check_leader_complete(self, address: str, raft) -> None:
        """A leader holds what was committed in earlier terms (Raft 5.4.3)."""
        log = raft.log
        for index in range(log.memory_from, self.highest_commit + 1):
            if self._commit_terms.get(index, 0) >= raft.current_term:
                break
            entry = log.entry(index) if index <= log.last_index else None
            if entry is None or (entry.term, crc32(entry.data)) != self._committed.get(
                    index, (entry.term, crc32(entry.data))):
                raise InvariantError("leader completeness [LeaderCompletenessInv]: "
                                     f"{address} lacks entry {index}")

    # --- at the end

    def check_histories(self, clients) -> None:
        """At the end, everything drained: nothing lost, doubled, invented or out of order."""
        try:
            histories.check([operation for client in clients for operation in client.history],
                            drained=True)
        except histories.HistoryError as error:
            raise InvariantError(str(error)) from error
