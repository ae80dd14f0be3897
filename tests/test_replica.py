"""Replica without sockets: founding, joining, serving, replicated time, a full disk, the log."""

import itertools
import unittest

from raftnet.config import Config
from raftnet.errors import ErrorCode
from raftnet.raft.entry import decode_entries
from raftnet.raft.membership import QuorumRule
from raftnet.raft.types import Role
from raftnet.replica import NO_CLUSTER, Phase
from raftnet.wire import commands, joining, requests
from raftnet.wire.frames import Kind
from tests.replicas import STEP_MS, Nodes, ReplicaCase

A, B, C, D = (f"127.0.0.1:500{n}" for n in (1, 2, 3, 4))


class TestFounding(ReplicaCase):
    """From empty directories to a cluster that serves."""

    def test_of_one(self):
        nodes = Nodes()
        node = nodes.add(A)
        nodes.run_until(nodes.settled)
        self.assertEqual(node.replica.phase, Phase.RUNNING)
        self.assertEqual(self.assert_enqueued(nodes.enqueue(node, b"hello")), 1)

    def test_of_three_by_greetings_in_any_order(self):
        pairs = list(itertools.permutations((A, B, C), 2))
        orders = [pairs[i:] + pairs[:i] for i in range(len(pairs))]
        orders += [order[::-1] for order in orders]
        for order in orders:
            with self.subTest(order=order):
                nodes = Nodes()
                nodes.founders(A, B, C)
                for sender, receiver in order:
                    nodes.greet(sender, receiver)
                clusters = {node.replica.cluster_id for node in nodes.alive()}
                self.assertEqual(len(clusters), 1)
                self.assertNotIn(NO_CLUSTER, clusters)
                nodes.run_until(nodes.settled)
                self.assertEqual(
                    len({bytes(n.replica.raft.log.entry(1).data) for n in nodes.alive()}), 1)

    # --- the first election

    def test_the_first_leader_does_not_wait_for_a_timeout(self):
        """One founder campaigns when all have founded and take its messages, and no other does."""
        for seed in range(1, 21):
            with self.subTest(seed=seed):
                nodes = Nodes(seed)
                founders = nodes.founders(A, B, C)
                nodes.run_until(lambda: any(n.replica.leads for n in founders),
                                nodes.config.raft.election_timeout_ms // 2)
                leader = next(n for n in founders if n.replica.leads)
                self.assertEqual(leader.replica.node_id, min(n.replica.node_id for n in founders))
                nodes.run_until(nodes.settled)
                self.assertEqual({n.replica.raft.current_term for n in founders}, {2})

    def test_where_not_all_founders_are_reached_the_first_leader_waits(self):
        nodes = Nodes()
        founders = nodes.founders(A, B, C)
        for sender, receiver in itertools.permutations((A, B, C), 2):
            nodes.greet(sender, receiver)
        first = min(founders, key=lambda n: n.replica.node_id)
        last = max(founders, key=lambda n: n.replica.node_id)
        for node in founders:
            node.restart()      # with entry 1, and knowing nobody
        nodes.cut = {(first.begin.address, last.begin.address)}
        half_ms = nodes.config.raft.election_timeout_ms // 2
        for _ in range(half_ms // STEP_MS):
            nodes.step()
        self.assertEqual({n.replica.raft.role for n in founders}, {Role.FOLLOWER})
        nodes.cut = set()
        nodes.run_until(lambda: first.replica.leads, half_ms - STEP_MS)

    def test_once_an_election_was_held_every_leader_waits_for_a_timeout(self):
        nodes = Nodes()
        founders = nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        for node in founders:
            node.restart()
        for _ in range(nodes.config.raft.election_timeout_ms // STEP_MS - 1):
            nodes.step()
        self.assertEqual({n.replica.raft.role for n in founders}, {Role.FOLLOWER})

    def test_different_lists_found_nothing(self):
        nodes = Nodes()
        nodes.add(A, founders=[A, B])
        nodes.add(B, founders=[A, B, C])
        for _ in range(100):
            nodes.step()
        for node in nodes.alive():
            self.assertEqual(node.replica.phase, Phase.FOUNDING)
            self.assertTrue(any("another list of founders" in line for line in node.lines.lines))

    def test_different_quorum_rules_found_nothing(self):
        nodes = Nodes()
        nodes.add(A, founders=[A, B])
        nodes.add(B, founders=[A, B], quorum_rule=QuorumRule.HALF_ROUNDED_UP_PLUS_ONE)
        for _ in range(100):
            nodes.step()
        self.assertEqual({n.replica.phase for n in nodes.alive()}, {Phase.FOUNDING})

    def test_not_ready_until_all_founders_have_acknowledged(self):
        nodes = Nodes()
        a, b, c = nodes.founders(A, B, C)
        self.assert_error(nodes.answer_to(a, Kind.REQUEST, requests.encode_request(
            requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"x"])])),
            ErrorCode.NOT_LEADER)     # another node may be serving: a client goes on
        for sender, receiver in itertools.permutations((A, B, C), 2):
            nodes.greet(sender, receiver)
        nodes.kill(C)       # it has entry 1, but nobody knows
        nodes.run_until(lambda: any(n.replica.leads for n in nodes.alive()))
        for _ in range(100):
            nodes.step()
        leader = next(n for n in nodes.alive() if n.replica.leads)
        self.assertTrue(leader.replica.raft.leads_ready)
        self.assert_error(nodes.enqueue(leader, b"x"), ErrorCode.NOT_READY)
        nodes.revive(C)
        nodes.run_until(nodes.settled)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))

    def test_founder_emptied_before_the_cluster_is_complete(self):
        for busy in (False, True):
            with self.subTest(disk_busy=busy):
                nodes = Nodes()
                a, b, c = nodes.founders(A, B, C)
                for sender, receiver in itertools.permutations((A, B, C), 2):
                    nodes.greet(sender, receiver)
                old = b.replica.cluster_id
                a.wipe()
                if busy:
                    # C votes for itself just when the emptied one greets.
                    nodes.cut = {(B, C), (C, B), (A, C), (C, A)}
                    c.disk_slow = True
                    while not c.jobs:
                        c.replica.raft.become_candidate()
                        c.jobs += c.replica.turn().jobs
                    nodes.cut.clear()
                nodes.connect()
                nodes.connect()
                c.disk_slow = False
                nodes.disk(c)
                nodes.run_until(nodes.settled)
                clusters = {node.replica.cluster_id for node in nodes.alive()}
                self.assertEqual(len(clusters), 1)
                self.assertNotIn(old, clusters)
                self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))

    def test_founder_with_a_longer_log_never_drops_its_cluster(self):
        nodes = Nodes()
        a, b, c = nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))
        old = b.replica.cluster_id
        a.wipe()
        for _ in range(100):
            nodes.step()
        self.assertEqual({b.replica.cluster_id, c.replica.cluster_id}, {old})

    def test_disk_jobs_are_numbered_on_after_founding_anew(self):
        nodes = Nodes()
        a, b = nodes.founders(A, B)
        nodes.greet(A, B)
        nodes.greet(B, A)
        nodes.cut = {(A, B), (B, A)}
        b.replica.raft.become_candidate()       # a job of the provisional cluster: number 1
        nodes.step()
        self.assertGreaterEqual(b.replica.raft.jobs_made, 1)
        last = b.replica.raft.jobs_made
        a.wipe()
        nodes.cut.clear()
        numbers = []
        perform = b.replica.store.perform
        b.replica.store.perform = lambda jobs: (numbers.extend(j.number for j in jobs),
                                                perform(jobs))
        nodes.run_until(nodes.settled)
        self.assertGreater(min(numbers), last)
        self.assertEqual(numbers, sorted(numbers))

    def test_a_stranger_is_refused(self):
        nodes = Nodes()
        a, b = nodes.add(A), nodes.add(B)
        code, text = a.replica.greetings.greeted(b.replica.greetings.hello(), B)
        self.assertEqual(code, ErrorCode.WRONG_CLUSTER)
        code, _ = a.replica.greetings.greeted(a.replica.greetings.hello())
        self.assertEqual(code, ErrorCode.WRONG_CLUSTER)


class TestJoining(ReplicaCase):
    """A node with an empty directory and a contact."""

    def voters(self, node) -> int:
        return len(node.replica.raft.membership.voters)

    def test_learner_then_voter(self):
        nodes = Nodes()
        a = nodes.add(A)
        nodes.run_until(nodes.settled)
        b = nodes.add(B, join=A)
        roles = set()
        nodes.run_until(lambda: roles.add(b.replica.role_name) or self.voters(a) == 2)
        nodes.run_until(nodes.settled)
        self.assertLessEqual({"joining", "learner"}, roles)
        self.assertEqual(b.replica.cluster_id, a.replica.cluster_id)
        self.assertEqual(self.voters(b), 2)

    def test_the_contact_names_the_leader(self):
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        follower = next(n for n in nodes.alive() if not n.replica.leads)
        d = nodes.add(D, join=follower.begin.address)
        nodes.run_until(lambda: nodes.settled() and self.voters(d) == 4)

    def test_the_leader_that_was_named_dies(self):
        nodes = Nodes()
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        leader = nodes.serving().begin.address
        follower = next(n for n in nodes.alive() if not n.replica.leads)
        d = nodes.add(D, join=follower.begin.address)
        nodes.run_until(lambda: d.replica.joining.asking.target == leader)
        nodes.kill(leader)
        nodes.run_until(lambda: nodes.settled() and self.voters(d) == 4)

    def test_a_leader_of_which_the_first_entries_know_nothing(self):
        # Each append carries one entry, so the newcomer hears long of a cluster of one.
        config = Config()
        config.raft.append_bytes_max = 1
        nodes = Nodes(config=config)
        nodes.add(A)
        for address in (B, C):
            nodes.add(address, join=A)
            nodes.run_until(nodes.settled)
        nodes.run_until(lambda: self.voters(nodes.nodes[A]) == 3 and nodes.settled())
        nodes.kill(A)
        nodes.run_until(nodes.settled)
        leader = nodes.serving().begin.address
        d = nodes.add(D, join=leader)
        nodes.run_until(lambda: nodes.settled() and self.voters(d) == 4, 5_000)

    def test_a_taken_address(self):
        nodes = Nodes()
        a = nodes.add(A)
        nodes.run_until(nodes.settled)
        for node_id, address in ((77, A), (a.replica.node_id, B)):
            self.assert_error(nodes.answer_to(a, Kind.JOIN, joining.encode_join(
                node_id, address)), ErrorCode.ADDRESS_TAKEN)

    def test_no_address(self):
        nodes = Nodes()
        a = nodes.add(A)
        nodes.run_until(nodes.settled)
        for address in ("x", "127.0.0.1:0", "a" * 60_000 + ":1", "127.0.0.1:5001\n:3"):
            self.assert_error(nodes.answer_to(a, Kind.JOIN, joining.encode_join(77, address)),
                              ErrorCode.BAD_REQUEST)
        self.assertEqual(len(a.replica.raft.membership.members), 1)

    def test_asking_again_is_answered(self):
        nodes = Nodes()
        a = nodes.add(A)
        nodes.run_until(nodes.settled)
        for _ in range(2):
            kind, body = nodes.answer_to(a, Kind.JOIN, joining.encode_join(77, B))
            self.assertEqual((kind, body), (Kind.JOIN_REPLY, a.replica.cluster_id))
        self.assertEqual(len(a.replica.raft.membership.members), 2)


class TestServing(ReplicaCase):
    """Requests, redirects, time, disk."""

    def setUp(self):
        self.nodes = Nodes()
        self.nodes.founders(A, B, C)
        self.nodes.run_until(self.nodes.settled)

    def test_followers_name_the_leader(self):
        leader = self.nodes.serving()
        for node in self.nodes.alive():
            if node is not leader:
                self.assertEqual(self.assert_error(self.nodes.enqueue(node, b"x"),
                                                   ErrorCode.NOT_LEADER), leader.begin.address)

    def test_a_retry_at_the_next_leader_gets_the_same_reply(self):
        nodes = self.nodes
        session = b"s" * 16
        old = nodes.serving()
        answer = nodes.enqueue(old, b"x", session=session)
        nodes.run_until(nodes.settled)
        nodes.kill(old.begin.address)
        nodes.run_until(nodes.settled)
        self.assertEqual(nodes.enqueue(nodes.serving(), b"x", session=session), answer)

    def test_a_leader_without_quorum_tells_its_clients(self):
        nodes = self.nodes
        leader = nodes.serving()
        others = [n.begin.address for n in nodes.alive() if n is not leader]
        for address in others:
            nodes.kill(address)
        self.assert_error(nodes.enqueue(leader, b"x"), ErrorCode.LEADERSHIP_LOST)
        self.assert_error(nodes.enqueue(leader, b"x"), ErrorCode.NOT_LEADER)

    def test_a_leader_that_was_held_up_calls_no_session_expired(self):
        """The simulator's seed 4493: a leader was stopped, another opened a session; woken up, the
        old one did not know it and said SESSION_EXPIRED, which a client must believe."""
        nodes = self.nodes
        old = nodes.serving()
        address = old.begin.address
        others = [a for a in nodes.nodes if a != address]
        nodes.down.add(address)         # held up: it neither hears nor does anything
        nodes.run_until(lambda: nodes.serving() is not None)
        session = b"s" * 16
        new = nodes.serving()
        self.assert_enqueued(nodes.enqueue(new, b"x", session=session))
        nodes.down.discard(address)     # woken up, and a client is the first to speak
        nodes.cut = {(a, address) for a in others} | {(address, a) for a in others}
        self.assertTrue(old.replica.leads)
        nodes.answers = []
        second = requests.encode_request(session, 2, 1, [commands.encode_enqueue(b"q", [b"y"])])
        nodes.ask(old, Kind.REQUEST, second)
        nodes.run_until(lambda: nodes.answers)
        self.assert_error(nodes.answers[0][2:], ErrorCode.NOT_LEADER)
        nodes.cut = set()
        expired = requests.encode_request(b"t" * 16, 2, 1, [commands.encode_close()])
        self.assert_error(nodes.answer_to(new, Kind.REQUEST, expired), ErrorCode.SESSION_EXPIRED)
        self.assert_enqueued(nodes.answer_to(new, Kind.REQUEST, second))
        nodes.step()
        self.assertGreater(new.replica.next_deadline_ms(), new.clock_ms, "it would spin")

    def test_a_held_up_leader_hears_before_its_deadlines_count(self):
        nodes = self.nodes
        leader = nodes.serving()
        replica = leader.replica
        held = []
        frame = replica.peer_frame
        replica.peer_frame = lambda *arguments: held.append(arguments)
        for _ in range(3):
            nodes.step(60)      # its heartbeats are answered ...
        leader.clock_ms += 2_000                            # ... and it is held up
        replica.peer_frame = frame
        replica.elapse(leader.clock_ms)
        self.assertTrue(held)
        for arguments in held:
            replica.peer_frame(*arguments)
        replica.advance_clock(leader.clock_ms)
        self.assertIs(replica.raft.role, Role.LEADER)

    def test_replicated_time_never_goes_back(self):
        # Clocks of the nodes run at different paces, and leaders die with entries of their own.
        nodes = self.nodes
        paces = {A: 1, B: 30, C: 4}
        stamps = []
        for round_ in range(6):
            leader = nodes.serving()
            for _ in range(5):
                leader.clock_ms += 3 * paces[leader.begin.address]
                leader.replica.advance_clock(leader.clock_ms)
                self.assert_enqueued(nodes.enqueue(leader, b"x"))
                stamps.append(leader.replica.machine.time_ms)
            # A last entry with a late stamp that nobody gets.
            address = leader.begin.address
            others = [a for a in nodes.nodes if a != address]
            nodes.cut = {(address, other) for other in others}
            nodes.cut |= {(other, address) for other in others}
            leader.clock_ms += 200
            leader.replica.advance_clock(leader.clock_ms)
            self.assertTrue(leader.replica.leads)
            nodes.ask(leader, Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"lost"])]))
            nodes.turn(leader)
            nodes.run_until(lambda: any(n.replica.leads and n.begin.address in others
                                        and n.replica.why_not_serving() is None
                                        for n in nodes.alive()))
            nodes.cut = set()
            nodes.run_until(nodes.settled)
            if round_ % 2:
                victim = nodes.serving().begin.address
                nodes.kill(victim)
                nodes.run_until(nodes.settled)
                nodes.revive(victim)
                nodes.run_until(nodes.settled)
        self.assertEqual(stamps, sorted(stamps))
        # Nobody's time ran ahead: all that passed anywhere bounds it.
        self.assertLessEqual(stamps[-1], sum(n.clock_ms for n in nodes.alive()) + 60_000)
        leader = nodes.serving().replica
        for node in nodes.alive():
            if node.replica is not leader:
                self.assertLessEqual(node.replica.time.stamp_ms, leader.time.stamp_ms)

    def test_a_truncated_stamp_counts_no_more(self):
        nodes = self.nodes
        leader = nodes.serving()
        address = leader.begin.address
        others = [a for a in nodes.nodes if a != address]
        nodes.cut = {(address, other) for other in others}
        leader.clock_ms += 300          # its stamp will be far ahead of the others'
        leader.replica.advance_clock(leader.clock_ms)
        nodes.ask(leader, Kind.REQUEST, requests.encode_request(
            requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"lost"])]))
        nodes.turn(leader)
        ahead = leader.replica.time.stamp_ms
        self.assertGreater(ahead, 300)
        nodes.cut |= {(other, address) for other in others}
        nodes.run_until(lambda: any(nodes.nodes[o].replica.leads for o in others))
        nodes.cut = set()
        nodes.run_until(nodes.settled)
        self.assertLess(leader.replica.time.stamp_ms, ahead)

    def test_waits_end_by_replicated_time(self):
        nodes = self.nodes
        leader = nodes.serving()
        kind, body = nodes.answer_to(leader, Kind.REQUEST, requests.encode_request(
            b"w" * 16, 1, 0, [commands.encode_dequeue(b"q", 1, 700)]))
        self.assertEqual(kind, Kind.REPLY)
        self.assertEqual(requests.decode_reply(body).results, [(commands.Status.EMPTY, b"")])

    def test_a_wait_ends_in_time_though_turns_come_late(self):
        """A turn hardly ever comes in the very millisecond of a deadline."""
        nodes = self.nodes
        nodes.ask(nodes.serving(), Kind.REQUEST, requests.encode_request(
            b"w" * 16, 1, 0, [commands.encode_dequeue(b"q", 1, 500)]))
        waited_ms = 0
        while not nodes.answers and waited_ms < 10_000:
            nodes.step(7)
            waited_ms += 7
        self.assertEqual(nodes.answers[0][2], Kind.REPLY)
        grain_ms = nodes.config.gateway.deadline_grain_ms
        self.assertIn(waited_ms, range(500, 500 + grain_ms + 10 * 7))

    def test_a_full_disk_refuses(self):
        nodes = self.nodes
        leader = nodes.serving()
        leader.disk.full = True
        nodes.ask(leader, Kind.REQUEST, requests.encode_request(
            requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [bytes(5000)])]))
        nodes.step()
        self.assertTrue(leader.replica.disk_full)
        self.assert_error(nodes.enqueue(leader, b"x"), ErrorCode.DISK_FULL)
        leader.disk.bytes_left = None
        nodes.run_until(nodes.settled)
        self.assert_enqueued(nodes.enqueue(nodes.serving(), b"x"))


class TestReads(ReplicaCase):
    """READ and LOG."""

    def nodes_with_log(self, **raft) -> Nodes:
        config = Config()
        for name, value in raft.items():
            setattr(config.raft, name, value)
        nodes = Nodes(config=config)
        nodes.founders(A, B, C)
        nodes.run_until(nodes.settled)
        for number in range(60):
            self.assert_enqueued(nodes.enqueue(nodes.serving(), b"%03d" % number * 30))
        nodes.run_until(nodes.settled)
        return nodes

    def page_through(self, nodes, node, limit, local) -> list[bytes]:
        found, index = [], 1
        while True:
            kind, body = nodes.answer_to(node, Kind.LOG, requests.encode_log(local, index, limit))
            self.assertEqual(kind, Kind.LOG_REPLY)
            _, last, following, count, offset = requests.decode_log_reply(body)
            entries = decode_entries(body, offset, count)
            self.assertEqual([e.index for e in entries], list(range(index, following)))
            found += [entry.data for entry in entries]
            if following > last:
                return found
            self.assertGreater(following, index)
            index = following

    def test_the_log_page_by_page_from_memory_and_from_the_file(self):
        for memory_bytes in (64 << 20, 2_000):
            nodes = self.nodes_with_log(log_memory_bytes_max=memory_bytes)
            leader = nodes.serving()
            self.assertEqual(leader.replica.raft.log.memory_from > 1, memory_bytes == 2_000)
            whole = self.page_through(nodes, leader, 10_000, False)
            self.assertEqual(len(whole), leader.replica.raft.log.last_index)
            for node in nodes.alive():
                for limit in (1, 7):
                    self.assertEqual(self.page_through(nodes, node, limit, True), whole)
            nodes.config.gateway.log_reply_bytes_max = 500
            self.assertEqual(self.page_through(nodes, leader, 10_000, False), whole)

    def test_a_follower_that_is_behind_is_fed_from_the_file(self):
        nodes = self.nodes_with_log(log_memory_bytes_max=2_000)
        behind = next(n for n in nodes.alive() if not n.replica.leads).begin.address
        nodes.kill(behind)
        for _ in range(40):
            self.assert_enqueued(nodes.enqueue(nodes.serving(), bytes(200)))
        leader = nodes.serving().replica.raft.log
        end = nodes.nodes[behind].replica.raft.log.last_index
        self.assertGreater(leader.memory_from, end + 1)
        nodes.revive(behind)
        nodes.run_until(nodes.settled)

    def test_a_linearizable_read_needs_the_leader(self):
        nodes = self.nodes_with_log()
        leader = nodes.serving()
        follower = next(n for n in nodes.alive() if n is not leader)
        body = requests.encode_read(False, commands.encode_size(b"q"))
        kind, reply = nodes.answer_to(leader, Kind.READ, body)
        self.assertEqual(kind, Kind.READ_REPLY)
        _, _, payload = requests.decode_read_reply(reply)
        self.assertEqual(commands.decode_size_result(payload)[0], 60)
        self.assert_error(nodes.answer_to(follower, Kind.READ, body), ErrorCode.NOT_LEADER)
        kind, _ = nodes.answer_to(follower, Kind.READ, b"\1" + body[1:])
        self.assertEqual(kind, Kind.READ_REPLY)

    def test_thousands_of_questions_at_once_take_many_turns(self):
        nodes = self.nodes_with_log()
        leader = nodes.serving().replica
        nodes.config.gateway.reads_turn_bytes_max = 10_000
        nodes.config.gateway.reads_waiting_max = 50
        leader.turn()
        for number in range(60):
            leader.client_frame("c", number, Kind.LOG, requests.encode_log(True, 1, 1000))
        first = leader.turn().answers
        busy = [a for a in first if a[2] == Kind.ERROR]
        self.assertEqual(len(busy), 10)
        self.assertLess(sum(len(a[3]) for a in first), 30_000)
        total = len(first)
        while leader.next_deadline_ms() <= leader.now_ms and leader.reads.cut_short:
            answers = leader.turn().answers
            self.assertLess(sum(len(a[3]) for a in answers), 30_000)
            total += len(answers)
        self.assertEqual(total, 60)

    def test_a_read_that_cannot_be(self):
        nodes = self.nodes_with_log()
        leader = nodes.serving()
        for kind, body in ((Kind.READ, b""), (Kind.READ, b"\1" + bytes(5000)), (Kind.LOG, b"x"),
                           (Kind.STATUS, b"x"), (Kind.JOIN, b"")):
            self.assert_error(nodes.answer_to(leader, kind, body), ErrorCode.BAD_REQUEST)
        self.assert_error(nodes.answer_to(leader, 63, b""), ErrorCode.UNKNOWN_KIND)


if __name__ == "__main__":
    unittest.main()
