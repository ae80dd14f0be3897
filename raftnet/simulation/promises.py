"""Promises: what each identity's disk has confirmed, over all lives of its directory.

Rules: a promise belongs to a node id (made with the directory) and its cluster, not to an address:
an emptied directory is a new identity. Where a directory is emptied, or an old copy is put in its
place, the identity ends: what it had promised stands for ever, and it never votes or acknowledges
again. Who may be elected and what may be committed on the strength of these is in invariants.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raftnet.founding import cluster_id_of
from raftnet.raft.entry import HEADER_BYTES, Entry
from raftnet.raft.types import SnapshotMeta

_READ_BYTES = 1 << 30


class InvariantError(AssertionError):
    """Something that must never happen did."""


@dataclass(slots=True)
class Promise:
    """What one node's disk has confirmed: what it may have promised."""

    cluster_id: bytes
    term: int = 0
    voted_for: int = 0
    entries: dict[int, bytes] = field(default_factory=dict)     # index -> header, checksum in it
    last_index: int = 0
    snapshot_index: int = 0     # a snapshot holds all up to it, whatever entries say
    snapshot_term: int = 0
    ended: str = ""         # the invariant that a further promise breaks; "": it may promise

    @property
    def end(self) -> tuple[int, int]:
        """(term, index) of the last entry, comparable: who holds more."""
        header = self.entries.get(self.last_index)
        return _term(header) if header is not None else self.snapshot_term, self.last_index

    def holds(self, index: int, header: bytes) -> bool:
        """Whether this committed entry is held; a snapshot contains only committed ones."""
        return index <= self.snapshot_index or self.entries.get(index) == header

    def install(self, meta: SnapshotMeta) -> None:
        """A snapshot takes the place of the log up to its index, or of all of it (Raft 7)."""
        header = self.entries.get(meta.index)
        if header is None or _term(header) != meta.term:
            self.entries = {}
            self.last_index = meta.index
        self.snapshot_index, self.snapshot_term = meta.index, meta.term


def _term(header: bytes) -> int:
    """An entry's header: length, checksum, term, index, kind."""
    return int.from_bytes(header[8:16], "big")


class Promises:
    """By node id."""

    def __init__(self):
        self._by_id: dict[int, Promise] = {}
        self._votes: dict[tuple[int, bytes, int], int] = {}     # (node, cluster, term) -> for whom

    def of(self, node_id: int) -> Promise | None:
        """What that node's disk confirmed; None: nothing."""
        return self._by_id.get(node_id)

    def holds(self, node_id: int, index: int, header: bytes) -> bool:
        """Whether that node's disk confirmed this entry."""
        known = self._by_id.get(node_id)
        return known is not None and known.holds(index, header)

    def vote(self, node_id: int, cluster_id: bytes, term: int) -> int:
        """For whom that node's disk says it voted; 0: for nobody."""
        return self._votes.get((node_id, cluster_id, term), 0)

    def end(self, node_id: int, invariant: str) -> None:
        """Its directory was emptied or replaced: a further promise breaks that invariant."""
        known = self._by_id.get(node_id)
        if known is None:
            known = self._by_id[node_id] = Promise(b"")
        known.ended = invariant

    def durable(self, node, jobs) -> None:
        """These jobs are on the disk: one vote a term, across restarts; and what the node may
        promise from now on. `node`: address, old_copy, replica (node_id, cluster_id)."""
        replica = node.replica
        known = self._by_id.get(replica.node_id)
        ended = "an old copy never votes or acknowledges" if node.old_copy else (
            known is not None and known.ended)
        if ended and any(job.entries or (job.hard_state is not None and job.hard_state.voted_for)
                         for job in jobs):
            raise InvariantError(f"{ended}: {node.address} as node {replica.node_id:016x}")
        if known is not None and known.cluster_id != replica.cluster_id and not known.ended:
            self._forget_alone(replica.node_id, known)
            known = None
        if known is None:
            known = self._by_id[replica.node_id] = Promise(replica.cluster_id)
        if ended:
            return
        for job in jobs:
            if job.hard_state is not None:
                known.term, known.voted_for = job.hard_state.current_term, job.hard_state.voted_for
                self._check_vote(node.address, replica.node_id, known)
            if job.install is not None:
                known.install(job.install)
            for entry in job.entries:
                for index in range(entry.index, known.last_index + 1):
                    known.entries.pop(index, None)
                known.entries[entry.index] = entry.data[:HEADER_BYTES]
                known.last_index = entry.index

    def _forget_alone(self, node_id: int, known: Promise) -> None:
        """Who leaves a cluster of itself alone has voted for nobody that anyone heard of, and may
        found that same cluster again."""
        if known.cluster_id == cluster_id_of([node_id]):
            for key in [key for key in self._votes if key[:2] == (node_id, known.cluster_id)]:
                del self._votes[key]

    def _check_vote(self, address: str, node_id: int, known: Promise) -> None:
        if not known.voted_for:
            return
        before = self._votes.setdefault((node_id, known.cluster_id, known.term), known.voted_for)
        if before != known.voted_for:
            raise InvariantError(f"one vote a term: {address} voted for {before:x} and "
                                 f"{known.voted_for:x} in term {known.term}")

    def vote_leaves(self, node, to: int, term: int) -> None:
        """A vote is told: it is on the disk, or else a later term is, in which the node votes for
        nobody in that term any more (both may have come before the disk was given either)."""
        replica = node.replica
        known = self._by_id.get(replica.node_id)
        if node.old_copy or known is not None and known.ended:
            return                      # `durable` sees to these
        vote = replica.node_id, replica.cluster_id, term
        if known is not None and known.term > term:
            self._votes.setdefault(vote, to)
        if self._votes.get(vote) != to:
            raise InvariantError(
                f"a vote is told once it is durable: {node.address} in term {term}")

    def reopened(self, address: str, store, cluster_id: bytes | None) -> None:
        """A promise's entries survive any crash after it, and so do term and vote. `cluster_id`:
        the one cluster that nobody may forget."""
        known = self._by_id.get(store.node_id)
        if known is None or known.ended:
            return
        if store.cluster_id != known.cluster_id:
            if known.entries and known.cluster_id == cluster_id:
                raise InvariantError(f"a promise's entries survive any crash: {address} forgot "
                                     "its cluster")
            self._forget_alone(store.node_id, known)
            del self._by_id[store.node_id]  # a founding that was never complete was dropped
            return
        state = store.hard_state
        if state.current_term < known.term or (
                state.current_term == known.term
                and known.voted_for not in (0, state.voted_for)):
            raise InvariantError(f"a promise's term and vote survive any crash: {address}: {state} "
                                 f"after term {known.term}, vote {known.voted_for:x}")
        snapshot = store.snapshot.meta if store.snapshot is not None else None
        held = {entry.index: entry.data[:HEADER_BYTES] for entry in _log_of(store)}
        for index, header in known.entries.items():
            if held.get(index) == header or snapshot is not None and index <= snapshot.index:
                continue
            # Jobs that were under way may have replaced it, or one before it and so all that
            # followed: then what stands there, or the log's end, shows a later term.
            other = _term(held[index]) if index in held else store.last_term
            if other <= _term(header):
                raise InvariantError(f"a promise's entries survive any crash: {address} lacks "
                                     f"entry {index}")
        end = held.get(known.snapshot_index, b"")   # a log that holds all of it needs no snapshot
        if (known.snapshot_index > (snapshot.index if snapshot is not None else 0)
                and not (end and _term(end) == known.snapshot_term)):
            raise InvariantError(f"a promise's entries survive any crash: {address} lacks the "
                                 f"snapshot up to entry {known.snapshot_index}")
        # What was replayed is durable from now on, whether or not a job told of it.
        known.term, known.voted_for = state.current_term, state.voted_for
        known.entries, known.last_index = held, store.last_index
        if snapshot is not None:
            known.snapshot_index, known.snapshot_term = snapshot.index, snapshot.term
        self._check_vote(address, store.node_id, known)


def _log_of(store) -> Iterator[Entry]:
    """All entries of the log file."""
    first = store.log_base_index + 1
    while first <= store.last_index:
        entries = store.read_entries(first, _READ_BYTES)
        yield from entries
        first = entries[-1].index + 1
