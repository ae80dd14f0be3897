"""Interleavings behind the fine print of the design, each by name, on Replicas without sockets."""

import time
import unittest
from unittest import mock

from raftnet.replica import Phase
from raftnet.simulation.cluster import SimulatedCluster
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind
from tests.replicas import Nodes, ReplicaCase

A, B, C = "127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"


class FoundingTest(ReplicaCase):
    """Two of three founders found, one is wiped, the third starts."""

    def two_founded(self) -> Nodes:
        """A and B know all three ids and have founded; C knows nobody and has not."""
        nodes = Nodes()
        for node in nodes.founders(A, B, C):
            self.assertIs(node.replica.phase, Phase.FOUNDING)
        third = nodes.nodes[C].replica.greetings.hello()
        for address in (A, B):
            nodes.nodes[address].replica.greetings.greeted(third, C)
        nodes.down.add(C)
        nodes.greet(A, B)
        nodes.greet(B, A)
        self.assertEqual([nodes.nodes[a].replica.phase for a in (A, B, C)],
                         [Phase.RUNNING, Phase.RUNNING, Phase.FOUNDING])
        return nodes

    def test_wiped_before_an_election_they_found_anew_together(self):
        nodes = self.two_founded()
        nodes.nodes[B].wipe()
        nodes.down.discard(C)
        nodes.run_until(nodes.settled)
        self.assertEqual(len({n.replica.cluster_id for n in nodes.alive()}), 1)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))

    def test_wiped_after_an_election_no_two_clusters_serve(self):
        nodes = self.two_founded()
        nodes.run_until(lambda: any(n.replica.leads for n in nodes.alive()))
        for _ in range(50):
            nodes.step()
        self.assertIsNone(nodes.serving(), "C has not acknowledged entry 1")
        first = nodes.nodes[A].replica.cluster_id
        nodes.nodes[B].wipe()
        nodes.down.discard(C)
        for _ in range(300):
            nodes.step()
            serving = {n.replica.cluster_id for n in nodes.alive()
                       if n.replica.why_not_serving() is None}
            self.assertLessEqual(serving, {first})
        # A's log holds more than entry 1: it never drops its cluster. So it lets C in, which is a
        # voter there: then a leader can be elected, and B is taken in in the place of its old self.
        nodes.run_until(nodes.settled)
        self.assertEqual({n.replica.cluster_id for n in nodes.alive()}, {first})
        self.assertEqual([m.address for m in nodes.serving().replica.raft.membership.members
                          if m.voter and m.node_id == nodes.nodes[m.address].replica.node_id],
                         [m.address for m in nodes.serving().replica.raft.membership.members])


class WaitTest(ReplicaCase):
    """A waiting dequeue whose proposal outlives its leader."""

    def test_it_is_completed_once_at_the_next_leader(self):
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        old = nodes.serving()
        address = old.begin.address
        session = b"w" * 16
        wait = requests.encode_request(session, 1, 0, [commands.encode_dequeue(b"q", 1, 60_000)])
        nodes.ask(old, Kind.REQUEST, wait, "waiter")
        nodes.turn(old)                 # its append is with the others, its commit is not told
        nodes.kill(address)
        nodes.run_until(lambda: nodes.serving() is not None)
        new = nodes.serving()
        nodes.run_until(lambda: new.replica.machine.is_waiting(session, 1))
        nodes.answers = []
        nodes.ask(new, Kind.REQUEST, wait, "waiter again")
        self.assert_enqueued(nodes.enqueue(new, b"the one", b"the next"))
        nodes.run_until(lambda: any(a[0] == "waiter again" for a in nodes.answers))
        answer = [a for a in nodes.answers if a[0] == "waiter again"]
        self.assertEqual(len(answer), 1)
        (status, payload), = requests.decode_reply(answer[0][3]).results
        self.assertEqual(status, commands.Status.OK)
        self.assertEqual([data for _, data in commands.decode_messages(payload)], [b"the one"])
        # Asked once more, also after another change of leader, it is the same answer.
        nodes.revive(address)
        nodes.run_until(nodes.settled)
        nodes.kill(new.begin.address)
        nodes.run_until(nodes.settled)
        again = nodes.answer_to(nodes.serving(), Kind.REQUEST, wait, "waiter a third time")
        self.assertEqual(again, answer[0][2:])


class IdleTest(ReplicaCase):
    """Idle: no clients, no deadline due."""

    def test_an_idle_cluster_writes_nothing(self):
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))
        nodes.run_until(nodes.settled)
        operations = {a: n.disk.operations for a, n in nodes.nodes.items()}
        for _ in range(3_000):      # a minute
            nodes.step()
        self.assertEqual(operations, {a: n.disk.operations for a, n in nodes.nodes.items()})


class WallClockTest(ReplicaCase):
    """Leaders whose wall clocks differ by an hour and a day."""

    def test_no_node_ever_asks_for_it(self):
        forbidden = mock.Mock(side_effect=AssertionError("a wall clock was read"))
        with (mock.patch.object(time, "time", forbidden),
              mock.patch.object(time, "time_ns", forbidden)):
            SimulatedCluster(23).run(10_000)
        forbidden.assert_not_called()

    def test_replicated_time_does_not_jump_with_a_leader_whose_clock_does(self):
        """Monotonic clocks of very different age: 1 ms, an hour, a day since their starts."""
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        for address, age_ms in ((B, 3_600_000), (C, 86_400_000)):
            node = nodes.nodes[address]
            node.clock_ms += age_ms
            node.replica.now_ms += age_ms       # it is that old, and nothing happened meanwhile
            node.replica.time._came_ms += age_ms
        times = []
        for _ in range(4):
            leader = nodes.serving()
            self.assert_enqueued(nodes.enqueue(leader, b"x"))
            times.append(leader.replica.machine.time_ms)
            nodes.kill(leader.begin.address)
            nodes.run_until(nodes.settled)
            nodes.revive(leader.begin.address)
            nodes.run_until(nodes.settled)
        self.assertEqual(times, sorted(times))
        self.assertLess(times[-1], 120_000, "an hour passed for nobody")


if __name__ == "__main__":
    unittest.main()
