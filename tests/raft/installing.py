"""What the tests of installs share: a follower that is behind the leader's log.

How: node 1 leads, node 3 was cut off while the others went on and cut their logs; `files.py` says
what a snapshot's file is. Chunks are small, so that a transfer takes several.
"""

from raftnet.config import RaftConfig
from raftnet.raft.types import Append, AppendReply, Snapshot, SnapshotReply
from tests.raft.harness import Cluster, Envelope, RaftTestCase

CHUNK = 100


class InstallTestCase(RaftTestCase):
    """A follower that is behind the leader's log."""

    def behind(self, entries: int = 10, keep: int = 0, **more) -> Cluster:
        """Node 3 holds entry 1 only; 1 and 2 hold `entries` more and the leader's empty one, in a
        snapshot, and of them the last `keep` in the log. All links work again."""
        config = RaftConfig(snapshot_chunk_bytes=CHUNK, snapshot_window_bytes=3 * CHUNK, **more)
        cluster = Cluster([1, 2, 3], config=config)
        cluster.isolate(3)
        cluster.elect(1)
        cluster.replicate(1, entries)
        for node_id in (1, 2):
            cluster.nodes[node_id].compact(keep)
        cluster.heal()
        cluster.core(3).election_deadline_ms = 1 << 40
        cluster.take()
        return cluster

    def asked(self, cluster: Cluster) -> Envelope:
        """Node 3 is connected again, refused an append, and is asked; the question is taken."""
        cluster.core(1).peer_connected(3)
        cluster.collect(1)
        cluster.deliver(cluster.take(Append, 1, 3))
        cluster.sync(3)
        cluster.deliver(cluster.take(AppendReply, 3, 1))
        return cluster.take(Snapshot)[-1]

    def chunks(self, cluster: Cluster) -> list:
        """The first window of chunks, taken on its way."""
        question = self.asked(cluster)
        cluster.deliver([question])
        cluster.sync(3)
        cluster.deliver(cluster.take(SnapshotReply))
        return cluster.take(Snapshot)

    def assert_installed(self, cluster: Cluster, node_id: int) -> None:
        """It holds the leader's snapshot, and all that follows."""
        node, meta = cluster.nodes[node_id], cluster.core(1).snapshot
        self.assertEqual(node.disk.snapshot, meta, cluster.trace()[-3000:])
        self.assertEqual(node.core.log.base_index, meta.index)
        self.assertEqual(node.applied, cluster.nodes[1].applied)
        self.assert_committed(cluster, cluster.core(1).log.last_index, node_id)
