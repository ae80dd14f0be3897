"""Connections between real nodes: slow links, damaged frames, IPv6, host names."""

import re
import socket
import unittest

from raftnet.client import Client
from tests.proxies import ProxiedCluster
from tools.processes import LocalCluster, free_ports, wait_until

LIMIT_S = 20.0
PRE_VOTE = "whether an election would be won"


class ProxiedCase(unittest.TestCase):
    """Three nodes, and a proxy before each."""

    def setUp(self):
        self.cluster = ProxiedCluster()
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.leader = self.cluster.leader()
        self.cluster.wait_settled()
        self.follower = next(node for node in self.cluster.nodes if node is not self.leader)
        self.term = self.leader.status().term
        self.asked = self.pre_votes()

    def pre_votes(self):
        """How often each node has asked for one: the first election may have had two candidates."""
        return [node.log_text().count(PRE_VOTE) for node in self.cluster.nodes]

    def assert_no_election(self):
        self.cluster.wait_settled()
        for node in self.cluster.nodes:
            self.assertEqual(node.status().term, self.term)
        self.assertEqual(self.pre_votes(), self.asked)
        self.assertIs(self.cluster.leader(), self.leader)


class TestSlowLink(ProxiedCase):
    """A follower behind a link that needs seconds for one append."""

    def test_large_appends_through_a_slow_link(self):
        proxy = self.cluster.proxy(self.follower)
        opened = proxy.opened
        proxy.rate = 900_000
        count = 2
        with Client(self.cluster.addresses, timeout_s=LIMIT_S) as client:
            queue = client.queue("large")
            for _ in range(count):
                queue.enqueue(bytes(1_000_000))     # 1.1 s each; a timeout is 0.5 to 1 s
            last = self.leader.status().last_index
        self.assertLess(self.follower.status(5).last_index, last)
        wait_until(lambda: self.follower.status(5).last_index >= last, LIMIT_S,
                   "the follower has both")
        proxy.rate = 0          # for what was sent twice meanwhile
        self.assert_no_election()
        # The status questions of this test are connections too: the leader's is not new.
        self.assertNotIn(f"the connection to {self.follower.address} ended",
                         self.leader.log_text())
        self.assertGreaterEqual(proxy.opened, opened)


class TestDamage(ProxiedCase):
    """One flipped bit costs one connection."""

    def test_a_flipped_bit(self):
        proxy = self.cluster.proxy(self.follower)
        for number, bit in enumerate((0, 32 + 5, 64, 75, 8 * 20 + 3), 1):
            proxy.damaged.clear()
            proxy.damage = bit
            self.assertTrue(proxy.damaged.wait(LIMIT_S))
            text = f"damaged frame number {number} since the start"
            log = wait_until(lambda text=text: text in self.follower.log_text()
                             and self.follower.log_text(), LIMIT_S, text)
            self.assertNotIn("is gone", log)
            wait_until(lambda number=number: len(re.findall(
                re.escape(f"connected to {self.follower.address}"),
                self.leader.log_text())) == 1 + number, LIMIT_S, "connected again")
        self.assertEqual(self.leader.log_text().count(
            f"the connection to {self.follower.address} ended"), 5)
        self.assert_no_election()


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class TestAddresses(unittest.TestCase):
    """A whole cluster at other addresses than 127.0.0.1; one for each test, which begin together,
    because each election takes its time."""

    @classmethod
    def setUpClass(cls):
        ports = iter(free_ports(6))
        cls.clusters = {host: cls.begin([f"{host}:{next(ports)}" for _ in range(3)])
                        for host in ("localhost", *(["[::1]"] if has_ipv6() else []))}

    @classmethod
    def begin(cls, addresses: list[str]) -> LocalCluster:
        cluster = LocalCluster(founders=False)
        cls.addClassCleanup(cluster.close)
        cluster.addresses = addresses
        for address in addresses:
            cluster.add(address, [address, "--cluster", ",".join(addresses)]).start()
        return cluster

    def assert_works(self, host: str):
        cluster = self.clusters[host].start()
        with Client(cluster.addresses, timeout_s=LIMIT_S) as client:
            queue = client.queue("works")
            message_id = queue.enqueue(b"hello")
            cluster.leader().kill()
            self.assertEqual(queue.dequeue().id, message_id)
        cluster.start()
        statuses = cluster.wait_settled()
        self.assertEqual(set(statuses), set(cluster.addresses))
        leader = cluster.leader()
        self.assertEqual({status.leader for status in statuses.values()}, {leader.address})

    @unittest.skipUnless(has_ipv6(), "this machine has no IPv6 loopback")
    def test_ipv6(self):
        self.assert_works("[::1]")

    def test_host_names(self):
        self.assert_works("localhost")


if __name__ == "__main__":
    unittest.main()
