"""What must hold after every event of a simulated cluster, by name; and what must hold at its end.

Each violation raises InvariantError with the invariant's name.
"""

from zlib import crc32

from raftnet.raft.types import Role


class InvariantError(AssertionError):
    """Something that must never happen did."""


class Invariants:
    """Watches all nodes of one cluster over all of their lives."""

    def __init__(self):
        self._leaders: dict[int, str] = {}          # term -> address
        self._lives: dict[str, tuple] = {}          # what a node's present life showed last
        self._votes: dict[tuple[str, int], int] = {}    # (address and node, term) -> durable vote
        self._committed: dict[int, tuple[int, int]] = {}    # index -> (term, checksum)
        self._commit_terms: dict[int, int] = {}     # index -> a node's term when it was first seen
        self._digests: dict[int, int] = {}          # applied index -> digest
        self._cluster_id = b""
        self.highest_commit = 0
        self.elections = 0

    def forget_life(self, address: str) -> None:
        """A process ended: its volatile state may begin anew."""
        self._lives.pop(address, None)

    def promised(self, address: str, node_id: int, term: int, voted_for: int) -> None:
        """One vote a term, across restarts: what became durable, and so may be said aloud."""
        if not voted_for:
            return
        before = self._votes.setdefault((address, node_id, term), voted_for)
        if before != voted_for:
            raise InvariantError(f"one vote a term: {address} voted for {before:x} and "
                                 f"{voted_for:x} in term {term}")

    def check(self, node) -> None:
        """After every event, of the node that it was about."""
        replica = node.replica
        raft = replica.raft
        if raft is None:
            return
        log = raft.log
        if raft.role is Role.LEADER:
            leader = self._leaders.setdefault(raft.current_term, node.address)
            if leader != node.address:
                raise InvariantError(f"one leader a term: {leader} and {node.address} in term "
                                     f"{raft.current_term}")
        before = self._lives.get(node.address)
        if before is not None and before[3] is raft:
            self._check_forward(node, before)
        self._check_committed(node, before[1] if before and before[3] is raft else 0)
        self._lives[node.address] = (raft.current_term, log.commit_index, raft.role, raft)
        machine = replica.machine
        digest = self._digests.setdefault(machine.applied_index, machine.digest)
        if digest != machine.digest:
            raise InvariantError(f"equal digests: {node.address} at {machine.applied_index}")
        if not log.applied_index == machine.applied_index <= log.commit_index <= log.last_index:
            raise InvariantError(f"applied <= committed <= last: {node.address}")
        if not log.stable_index <= log.handed_index <= log.last_index:
            raise InvariantError(f"stable <= handed <= last: {node.address}")

    def _check_forward(self, node, before: tuple) -> None:
        raft = node.replica.raft
        if raft.current_term < before[0]:
            raise InvariantError(f"the term never goes back: {node.address}")
        if raft.log.commit_index < before[1]:
            raise InvariantError(f"commit_index never goes back: {node.address}")
        if raft.role is Role.LEADER and before[2] is not Role.LEADER:
            self.elections += 1
            self._check_leader_complete(node)

    def _check_committed(self, node, from_index: int) -> None:
        """State machine safety and log matching: one entry at an index, once committed."""
        log = node.replica.raft.log
        for index in range(max(from_index + 1, log.memory_from), log.commit_index + 1):
            entry = log.entry(index)
            seen = (entry.term, crc32(entry.data))
            self._commit_terms.setdefault(index, node.replica.raft.current_term)
            if self._committed.setdefault(index, seen) != seen:
                raise InvariantError(f"state machine safety: {node.address} committed another "
                                     f"entry at {index}")
        self.highest_commit = max(self.highest_commit, log.commit_index)

    def _check_leader_complete(self, node) -> None:
        """Leader completeness: a leader holds what was committed in earlier terms (Raft 5.4.3)."""
        log = node.replica.raft.log
        for index in range(log.memory_from, self.highest_commit + 1):
            if self._commit_terms.get(index, 0) >= node.replica.raft.current_term:
                break
            entry = log.entry(index) if index <= log.last_index else None
            if entry is None or (entry.term, crc32(entry.data)) != self._committed.get(
                    index, (entry.term, crc32(entry.data))):
                raise InvariantError(f"leader completeness: {node.address} lacks entry {index}")

    def check_histories(self, clients) -> None:
        """At the end, everything drained: nothing lost, doubled, invented or out of order."""
        attempted = set().union(*[client.attempted for client in clients])
        acknowledged = {}
        for client in clients:
            acknowledged.update(client.acknowledged)
        received: dict[bytes, int] = {}
        for client in clients:
            for message_id, message in client.received:
                if message in received:
                    raise InvariantError(f"sessions exactly once: {message} came twice")
                if message not in attempted:
                    raise InvariantError(f"queue conservation: {message} was never sent")
                if acknowledged.get(message, message_id) != message_id:
                    raise InvariantError(f"queue conservation: {message} changed its id")
                received[message] = message_id
        lost = acknowledged.keys() - received.keys()
        if lost:
            raise InvariantError(f"queue conservation: {len(lost)} acknowledged messages are lost, "
                                 f"{min(lost)} among them")
        for client in clients:
            ids = [received[message] for message in sorted(
                (m for m in received if m.startswith(client.name.encode() + b"-")),
                key=lambda m: int(m.rpartition(b"-")[2]))]
            if ids != sorted(ids):
                raise InvariantError(f"first in, first out: {client.name}'s messages")
