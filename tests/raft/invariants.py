"""What must hold after every event, whatever the network and the disks do (Raft, figure 3).

Rules: it looks at every node after each event and remembers what it saw; it changes nothing. A
broken property is an AssertionError that names it.
"""

from itertools import pairwise

from raftnet.raft.entry import HEADER_BYTES
from raftnet.raft.membership import NO_MEMBERSHIP, decode_membership, voters_changed
from raftnet.raft.types import AppendReply, Role, VoteReply


class Invariants:
    """The memory of one cluster's run."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.leaders: dict[int, int] = {}               # term -> who led in it
        self.entries: dict[tuple[int, int], tuple] = {}     # (index, term) -> (bytes, term before)
        self.committed: list[tuple[int, bytes]] = []    # by index - 1: (term, bytes)
        self.votes: dict[tuple[int, int], int] = {}     # (voter, term) -> candidate, once it left
        self.seen: dict[int, tuple] = {}                # node -> (core, term, vote, commit, leads)
        self.matches: dict[tuple[int, int, int], int] = {}  # (leader, term, node) -> match_index
        self.read_floor: dict[int, int] = {}            # token -> committed when it was asked
        cluster.watch = self._check_promise

    def asked(self, token: int) -> None:
        """A read begins now: it must see everything that is committed by now."""
        self.read_floor[token] = len(self.committed)

    def check(self) -> None:
        """Look at everything."""
        for node in self.cluster.nodes.values():
            if node.node_id not in self.cluster.down:
                self._check_node(node)

    def _check_node(self, node) -> None:
        core, log = node.core, node.core.log
        old_core, term, vote, commit, led = self.seen.get(node.node_id, (None, 0, 0, 0, False))
        if core is not old_core:
            term, vote, commit, led = node.state.current_term, node.state.voted_for, 0, False
        assert core.current_term >= term, "current_term went back"
        assert core.current_term > term or vote in (0, core.voted_for), "the vote changed in a term"
        assert log.commit_index >= commit, "commit_index went back"
        assert log.applied_index <= log.commit_index <= log.last_index
        assert log.stable_index <= log.handed_index <= log.last_index
        assert log.base_index <= log.snapshot_index <= log.commit_index
        assert log.stable_index <= node.disk.last_index, "stable, and not in the file"
        assert not node.applied or node.applied[-1].index == log.applied_index, "applied by halves"
        self._check_entries(core)
        self._check_base(log)
        leads = core.role is Role.LEADER
        if leads:
            self._check_leader(core, began=not led or core.current_term != term)
            self._check_changes(core)
        for index in range(commit + 1, log.commit_index + 1):
            self._check_committed(node, index)
        for token, index in node.reads.items():
            assert not index or index >= self.read_floor[token], "a stale read"
        node.reads.clear()
        self.seen[node.node_id] = (core, core.current_term, core.voted_for, log.commit_index, leads)

    def _check_entries(self, core) -> None:
        """Log matching: index and term say the bytes, and what stands before (Raft 5.3)."""
        log = core.log
        for index in range(log.last_index, max(log.memory_from, 1) - 1, -1):
            entry = log.entry(index)
            known = self.entries.setdefault((index, entry.term),
                                            (entry.data, log.term_at(index - 1)))
            assert known == (entry.data, log.term_at(index - 1)), "log matching"
            if index <= log.applied_index:
                break       # what is below was seen when it came

    def _check_base(self, log) -> None:
        """What a snapshot says of the members is what was committed (Raft 7)."""
        at, membership = log._memberships[0]
        if 0 < at <= len(self.committed):
            data = self.committed[at - 1][1]
            assert membership == decode_membership(data[HEADER_BYTES:]), "another membership"
        assert log.term_at(log.base_index) == log.base_term
        if log.snapshot is not None and log.snapshot.index <= len(self.committed):
            assert log.snapshot.term == self.committed[log.snapshot.index - 1][0]

    def _check_leader(self, core, began: bool) -> None:
        term = core.current_term
        assert self.leaders.setdefault(term, core.node_id) == core.node_id, "two leaders in a term"
        if began:
            first = core.log.base_index     # what is below is in its snapshot
            for index, (committed_term, _) in enumerate(self.committed[max(first - 1, 0):],
                                                        max(first, 1)):
                assert core.log.term_at(index) == committed_term, "leader completeness"
        for node_id, progress in core.progress.items():
            key = core.node_id, term, node_id
            assert progress.match_index < progress.next_index
            if not began:
                assert progress.match_index >= self.matches.get(key, 0) or (
                    progress.match_index == 0), "match_index went back"
            self.matches[key] = progress.match_index

    @staticmethod
    def _check_changes(core) -> None:
        """One voter at a time, each change committed before the next, none before an entry of the
        leader's term is (thesis 4.1)."""
        log = core.log
        known = [each for each in log._memberships if each[1] is not NO_MEMBERSHIP]
        for (_, old), (_, new) in pairwise(known):
            assert voters_changed(old, new) <= 1, "two voters changed at once"
        for (index, _), (following, _) in pairwise(known[-3:]):
            if following > max(log.commit_index, core.term_start_index):
                assert index <= log.commit_index, "a change before the last one is committed"
                assert core.term_start_index <= log.commit_index, "a change before the own entry"

    def _check_committed(self, node, index: int) -> None:
        applied = node.applied
        entry = applied[index - 1] if index <= len(applied) else node.core.log.entry(index)
        assert entry.index == index, "applied out of order"
        if index > len(self.committed):
            assert index == len(self.committed) + 1
            self.committed.append((entry.term, entry.data))
        assert self.committed[index - 1] == (entry.term, entry.data), "a committed entry changed"

    def _check_promise(self, envelope) -> None:
        """What leaves a node must be on its disk (Raft 5.1, 5.2, 5.3)."""
        sender, to, message = envelope
        node = self.cluster.nodes[sender]
        if isinstance(message, VoteReply) and message.granted:
            assert self.votes.setdefault((node.node_id, message.term), to) == to, "two votes"
            assert node.state.current_term >= message.term, "a vote left before its sync"
            if node.state.current_term == message.term:
                assert node.state.voted_for == to, "a vote left before its sync"
        if isinstance(message, AppendReply) and message.success:
            assert node.disk.last_index >= message.match_index, "acknowledged before the sync"
