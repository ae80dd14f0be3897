"""What the tests of membership changes share: assertions, and time that passes."""

from raftnet.errors import ChangeRefusedError, ErrorCode
from raftnet.raft.membership import Membership
from tests.raft.harness import Cluster, RaftTestCase


class ChangesTestCase(RaftTestCase):
    """Node 1 leads in term 2."""

    def led(self, voters, learners=(), **more) -> Cluster:
        """A cluster at rest."""
        cluster = Cluster(voters, learners, **more)
        cluster.elect(1)
        cluster.beat()
        return cluster

    def beats(self, cluster: Cluster, count: int = 1) -> None:
        """Heartbeat intervals pass."""
        for _ in range(count):
            cluster.beat()

    def leader_of(self, cluster: Cluster) -> int:
        """Who leads; time passes until somebody does."""
        for _ in range(60):
            leaders = [core.node_id for core in cluster.cores if core.leads_ready]
            if len(leaders) == 1:
                return leaders[0]
            for core in cluster.cores:      # whoever was told to wait for ever need no longer
                core.election_deadline_ms = min(core.election_deadline_ms,
                                                core.now_ms + 500 + 97 * core.node_id)
            cluster.beat()
        raise AssertionError("nobody leads")

    def assert_voters(self, cluster: Cluster, voters, *node_ids: int) -> None:
        """These nodes (or all that run) count these voters."""
        for node_id in node_ids or [core.node_id for core in cluster.cores]:
            self.assertEqual(cluster.core(node_id).membership.voters, list(voters),
                             f"node {node_id}")

    def assert_refused(self, cluster: Cluster, membership: Membership, code: ErrorCode,
                       text: str = "") -> None:
        """Node 1 does not propose that, and appends nothing."""
        last_index = cluster.core(1).log.last_index
        with self.assertRaises(ChangeRefusedError) as caught:
            cluster.core(1).propose_membership(membership)
        self.assertEqual(caught.exception.code, code)
        self.assertIn(text, str(caught.exception))
        self.assertEqual(cluster.core(1).log.last_index, last_index)
