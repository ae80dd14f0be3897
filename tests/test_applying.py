"""What is committed is applied for so long a turn, and the rest in the next ones."""

import itertools
import re

from raftnet.config import Config
from raftnet.machine.machine import Machine
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind
from tests.replicas import Nodes, ReplicaCase


class TestApplying(ReplicaCase):
    """A cluster of one, which commits many entries at once."""

    def setUp(self):
        config = Config()
        config.gateway.batch_frames_max = 1     # an entry for each request
        config.raft.log_memory_bytes_max = 1    # after a start entries come out of the file,
        config.raft.append_bytes_max = 500      # some at a time
        self.nodes = Nodes(config=config)
        self.node = self.nodes.add("a")
        self.nodes.run_until(lambda: self.nodes.settled())

    def slow(self, entries: int = 3) -> None:
        """From now on so many entries take as long as a turn may apply."""
        each_s = self.nodes.config.gateway.apply_slice_ms / 1000 / (entries - 0.5)
        count = itertools.count()
        self.node.replica.applying.clock = lambda: next(count) * each_s     # asked once an entry

    def ask(self, count: int) -> None:
        """So many requests, answered in order as they are applied."""
        self.nodes.answers = []
        for number in range(count):
            self.nodes.ask(self.node, Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"%d" % number])]))

    def turns(self) -> list[int]:
        """How many entries each turn applies, until nothing is left; then the turn after it."""
        applied = []
        machine = self.node.replica.machine
        while len(applied) < 2 or applied[-1]:
            before = machine.applied_index
            self.nodes.turn(self.node)
            applied.append(machine.applied_index - before)
            if self.node.replica.applying.is_cut:
                self.assertEqual(self.node.replica.next_deadline_ms(), self.node.replica.now_ms,
                                 "the next turn follows at once")
        return applied

    def messages(self) -> list[bytes]:
        return list(self.node.replica.machine.executor.queues.by_name[b"q"].messages)

    def test_a_turn_applies_for_so_long(self):
        self.ask(10)
        self.slow()
        self.assertEqual(self.turns(), [0, 3, 3, 3, 1, 0])      # the first one writes
        self.assertEqual(self.messages(), [b"%d" % number for number in range(10)])
        firsts = [requests.decode_reply(body).first_message_id
                  for _, _, kind, body in self.nodes.answers if kind == Kind.REPLY]
        self.assertEqual(firsts, list(range(1, 11)))

    def test_a_slice_that_ends_with_what_was_left_is_over(self):
        self.ask(6)
        self.slow()
        self.nodes.turn(self.node)
        self.ask(2)
        self.assertEqual(self.turns(), [3, 3, 2, 0])

    def test_an_entry_is_applied_however_long_it_takes(self):
        self.ask(3)
        self.slow(1)
        self.assertEqual(self.turns(), [0, 1, 1, 1, 0])

    def test_all_at_once_where_it_is_quick(self):
        self.ask(10)
        self.assertEqual(self.turns(), [0, 10, 0])

    def test_newer_entries_come_after_those_that_are_left(self):
        self.ask(5)
        self.slow()
        self.nodes.turn(self.node)
        self.nodes.turn(self.node)
        self.assertTrue(self.node.replica.applying.is_cut)
        for number in range(5, 9):
            self.nodes.ask(self.node, Kind.REQUEST, requests.encode_request(
                requests.NO_SESSION, 1, 0, [commands.encode_enqueue(b"q", [b"%d" % number])]))
        self.turns()
        self.assertEqual(self.messages(), [b"%d" % number for number in range(9)])

    def test_old_entries_out_of_the_file_too(self):
        self.ask(10)
        self.turns()
        self.node.restart()
        self.slow()
        while not self.node.replica.applying.is_cut:
            self.nodes.step()
        self.assertEqual(max(self.turns()), 3)
        self.assertEqual(self.messages(), [b"%d" % number for number in range(10)])
        ranges = [list(map(int, found.groups())) for line in self.node.lines.lines if (
            found := re.match(r"apply entries (\d+) to (\d+) out of the log file", line))]
        self.assertEqual([first for first, _ in ranges],
                         [1] + [last + 1 for _, last in ranges[:-1]])
        self.assertTrue(1 < len(ranges) < 10, ranges)
        single = [int(found[1]) for line in self.node.lines.lines if (
            found := re.match(r"commit and apply entry (\d+)", line))]
        self.assertTrue(all(index > ranges[-1][1] for index in single), "no line for each of them")

    def test_what_is_left_goes_with_the_machine_that_it_was_for(self):
        self.ask(10)
        self.slow()
        self.nodes.turn(self.node)
        self.nodes.turn(self.node)
        replica = self.node.replica
        self.assertTrue(replica.applying.is_cut)
        replica.gateway.close("")
        replica.applying.begin_anew(Machine(self.nodes.config.machine, self.nodes.config.wire))
        self.assertFalse(replica.applying.is_cut)
        self.assertTrue(replica.applying.go_on())
        self.assertEqual(replica.machine.applied_index, 0)
