"""Random histories of all operations: a machine that was written down and loaded, now and then,
goes on exactly as the one that was not: replies, changes, digests, deadlines, and the pieces again.
"""

import unittest

from raftnet.machine.describe import describe_state
from raftnet.machine.machine import Applied, Machine
from raftnet.machine.state import encode_state
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.wire import commands, requests
from tests.machine.driver import contents_of
from tests.machine.histories import HistoryCase
from tests.machine.test_state import copy_of


class HistoryTest(HistoryCase):

    def apply(self, *bodies: bytes, at: int | None = None) -> Applied:
        """On the machine and on all that were loaded from it."""
        payload = commands.encode_batch(self.machine.time_ms if at is None else at, list(bodies))
        entry = encode_entry(self.machine.applied_index + 1, 1, EntryKind.BATCH, payload)
        applied = self.machine.apply(entry)
        for loaded in self.loaded:
            other = loaded.apply(entry)
            self.assertEqual((other.replies, other.completions, list(other.changes)),
                             (applied.replies, applied.completions, list(applied.changes)))
            self.assertEqual(loaded.digest, self.machine.digest)
        return applied

    def compare(self, pieces: bool) -> None:
        """The loaded machines are as the first."""
        contents = contents_of(self.machine)
        before = list(encode_state(self.machine)) if pieces else []
        for loaded in self.loaded:
            self.assertEqual(contents_of(loaded), contents)
            self.assertEqual(loaded.next_deadline_ms(), self.machine.next_deadline_ms())
            if pieces:
                self.assertEqual(list(encode_state(loaded)), before)
                self.assertEqual(list(describe_state(loaded, 5)),
                                 list(describe_state(self.machine, 5)))

    def test_random_histories_go_on_the_same(self):
        seen: dict[int, int] = {}
        for seed in range(40):
            with self.subTest(seed=seed):
                self.loaded: list[Machine] = []
                work = self.begin(seed, (4_000, 300)[seed % 2])
                for number in range(work.random.choice((20, 60, 120, 200))):
                    self.step(work)
                    if work.random.random() < 0.1:
                        copy = copy_of(self.machine)
                        self.loaded = [*self.loaded[-2:], copy]
                        for piece in encode_state(copy):
                            seen[piece[0]] = seen.get(piece[0], 0) + 1
                        self.check_loaded(copy)
                    if work.random.random() < 0.3:
                        self.compare(pieces=work.random.random() < 0.3)
                self.compare(pieces=True)
                self.let_all_end()
        self.assertEqual(sorted(seen), [*range(1, 12), 255])
        self.assertGreater(min(seen.values()), 30, seen)

    def check_loaded(self, copy: Machine) -> None:
        """Its inner relations hold too."""
        machine, self.machine = self.machine, copy
        self.check_invariants()
        self.machine = machine

    def let_all_end(self) -> None:
        """Nothing but time, and every message taken at the end."""
        for _ in range(60):
            self.apply(at=self.machine.time_ms + 20)
        for queue in sorted(self.machine.executor.queues.by_name):
            self.apply(requests.encode_request(requests.NO_SESSION, 1, 0, [
                commands.encode_dequeue(queue, 9_000)]), at=self.machine.time_ms + 50)
        self.compare(pieces=True)


if __name__ == "__main__":
    unittest.main()
