"""What must hold of snapshots and of logs that begin behind them, whoever made or received them.

Rules: a snapshot has the term, the digest and the members that the cluster had at its index, all of
it committed; a log begins at or below its snapshot, which is at or below what is committed. While
nothing is installed from it, a log is not longer for long than its limits allow. And nothing is
left lying about.
"""

from raftnet.raft.membership import Membership
from raftnet.raft.types import SnapshotMeta
from raftnet.simulation.promises import InvariantError
from raftnet.storage.snapshot import MADE_PREFIX
from raftnet.storage.succession import Compaction

_SLACK_BYTES = 4_000        # of the entries of one turn


class SnapshotRules:
    """Watches snapshots and logs. `terms` and `digests` are by index, `members` (index, membership)
    in order: what the cluster committed, kept by whoever made this."""

    def __init__(self, terms: dict[int, tuple[int, int]], digests: dict[int, int],
                 members: list[tuple[int, Membership]]):
        self._terms = terms         # of committed entries: (term, checksum)
        self._digests = digests
        self._members = members

    def check(self, node) -> None:
        """Of a node that runs."""
        store, log = node.replica.store, node.replica.raft.log
        if store.snapshot is not None:
            self.check_snapshot(node.address, store.snapshot.meta)
        if not log.base_index <= log.snapshot_index <= log.commit_index:
            raise InvariantError(f"base <= snapshot <= committed: {node.address}: "
                                 f"{log.base_index}, {log.snapshot_index}, {log.commit_index}")
        self.check_files(node.address, store)

    def check_files(self, address: str, store) -> None:
        """What is durable."""
        held = store.snapshot.meta.index if store.snapshot is not None else 0
        if store.log_base_index > held:
            raise InvariantError(f"base <= snapshot <= committed: {address}: the log begins after "
                                 f"entry {store.log_base_index}, the snapshot ends with {held}")

    def check_cut(self, node, compaction: Compaction) -> None:
        """A node's log is to be cut: not while a follower installs, or it would need the next
        snapshot at once; but a log that has grown too long waits for nobody."""
        replica = node.replica
        if (compaction.base_index > replica.raft.log.base_index and replica.raft.installing_to()
                and replica.store.log_bytes < node.config.snapshot.held_log_bytes_max):
            raise InvariantError(f"the cut waits while an install runs: {node.address} cuts its "
                                 f"log behind entry {compaction.base_index}")

    def check_snapshot(self, address: str, meta: SnapshotMeta) -> None:
        """One that a node has in place."""
        term, _ = self._terms.get(meta.index, (0, 0))
        if term != meta.term:
            raise InvariantError(f"a snapshot holds only committed entries: {address} has one up "
                                 f"to entry {meta.index} of term {meta.term}, not {term}")
        if self._digests.setdefault(meta.index, meta.digest) != meta.digest:
            raise InvariantError(f"a snapshot has the cluster's digest: {address} has another one "
                                 f"at entry {meta.index}")
        if (meta.membership_index, meta.membership) != self.members_at(meta.index):
            raise InvariantError(f"a snapshot has the cluster's members: {address} has others up "
                                 f"to entry {meta.index}")

    def members_at(self, index: int) -> tuple[int, Membership] | None:
        """The newest membership at or below a committed index."""
        for at, membership in reversed(self._members):
            if at <= index:
                return at, membership
        return None


def why_too_long(node) -> str:
    """In words, where a node's log should be cut and is not; "": it is as short as it may be."""
    store, limits = node.replica.store, node.config.snapshot
    held = store.snapshot.meta if store.snapshot is not None else None
    grown = max(limits.log_bytes_min, limits.log_per_snapshot * (held.size if held else 0))
    behind = store.bytes_behind(held.index if held else 0)
    if behind > grown + _SLACK_BYTES:
        return (f"{node.address} has {behind} bytes of log behind its snapshot, and makes a new "
                f"one after {grown}")
    kept = store.log_bytes - behind
    if kept > max(limits.tail_bytes, limits.log_bytes_min, grown) + _SLACK_BYTES:
        return f"the log of {node.address} keeps {kept} bytes before its snapshot"
    made = [name for name in node.disk.list() if name.startswith(MADE_PREFIX)]
    if len(made) > 1:
        return f"{node.address} keeps {', '.join(made)}"
    return ""
