"""The cluster of the core's tests, telling a line for everything that happens.

Rules: it decides nothing; the lines are describe.py's text forms behind one word that says what
happened. The invariants of tests/raft are checked after every event. No chance: each random wait
is the shortest that it may be, so that a scenario names the times itself.
"""

from raftnet.raft.describe import (
    describe_entries, describe_hard_state, describe_message, describe_read, describe_snapshot)
from raftnet.raft.types import Append, HardState, Ready, Role
from tests.raft.harness import Cluster, Envelope, Node, log_of, membership_of
from tests.raft.invariants import Invariants

TALK_EVENTS_MAX = 1_000     # more than this is a conversation without end


def shortest(low: int, _high: int) -> int:
    """In the place of randint."""
    return low


class TracedCluster(Cluster):
    """Nodes of these ids, each with entry 1 in its log; `lines` is the trace."""

    def __init__(self, voters: list[int], learners: list[int], founded: bool):
        super().__init__([])
        self.membership = membership_of(voters, learners, founded=founded)
        self.lines: list[str] = []
        self._roles: dict[int, str] = {}        # node -> what was told of it last
        self._members: dict[int, str] = {}
        self.invariants = Invariants(self)
        self._check_promise = self.watch
        self.watch = self._leaves
        for node_id in sorted({*voters, *learners}):
            self.place(node_id, [1])

    def place(self, node_id: int, terms: list[int], state: HardState | None = None) -> None:
        """Put a node there whose disk holds entries of these terms."""
        self.nodes[node_id] = Node(node_id, self.config, state or HardState(max(terms, default=0)),
                                   log_of(terms, self.membership), shortest)
        self._roles[node_id] = self.role_of(node_id)
        self._members[node_id] = self.members_of(node_id)

    # --- what a node is

    def role_of(self, node_id: int) -> str:
        """`1 is follower of 3 in term 2`."""
        core = self.core(node_id)
        role = "pre-candidate" if core.pre_voting else core.role.value
        leader = f" of {core.leader_id}" if core.leader_id and core.role is Role.FOLLOWER else ""
        return f"{node_id} is {role}{leader} in term {core.current_term}"

    def members_of(self, node_id: int) -> str:
        """`1 counts 1 2 3, learners 4, founded`."""
        membership = self.core(node_id).membership
        learners = [str(m.node_id) for m in membership.members if not m.voter]
        return (f"{node_id} counts {' '.join(map(str, membership.voters)) or 'nobody'}"
                + (f", learners {' '.join(learners)}" if learners else "")
                + (", founded" if membership.founded else ", not founded"))

    def status_of(self, node_id: int) -> str:
        """What it is, its vote, the terms in its log, and how far they are durable, committed."""
        node, log = self.nodes[node_id], self.core(node_id).log
        if node_id in self.down:
            terms = " ".join(str(entry.term) for entry in node.file)
            base = f"after {node.disk.base_index} " if node.disk.base_index else ""
            return (f"{node_id} is down, on disk {describe_hard_state(node.state)},"
                    f" log {base}{terms}")
        terms = " ".join(str(log.term_at(index))
                         for index in range(log.base_index + 1, log.last_index + 1))
        if log.base_index:
            terms = f"after {log.base_index}/{log.base_term} {terms}".rstrip()
        memory = (f", in memory from {log.memory_from}" if log.memory_from > log.base_index + 1
                  else "")
        founded = "" if log.membership.founded or not terms else ", not founded"
        return (f"{self.role_of(node_id)}, vote {node.core.voted_for}, log {terms or 'empty'},"
                f" durable {log.stable_index}, committed {log.commit_index}{memory}{founded}")

    # --- what happens

    def tell(self, line: str) -> None:
        """One line more."""
        self.lines.append(line)

    def tell_message(self, word: str, envelope: Envelope) -> None:
        """A line about a message."""
        message = envelope.message
        from_file = isinstance(message, Append) and message.from_file
        self.tell(f"{word} {describe_message(*envelope)}{' read from the file' * from_file}")

    def _leaves(self, envelope: Envelope) -> None:
        self.tell_message("send", envelope)
        self._check_promise(envelope)

    def collect(self, node_id: int) -> list[Ready]:
        """Take and tell: what it became, sends, gives to the disk, applies, answers."""
        self._tell_change(self._roles, node_id, self.role_of(node_id))
        taken = super().collect(node_id)
        for ready in taken:
            job = f"job {node_id}.{ready.job}"
            if ready.hard_state is not None:
                self.tell(f"{job} state {describe_hard_state(ready.hard_state)}")
            if ready.entries:
                annuls = f", annuls from {ready.entries[0].index} on" if ready.rewound else ""
                self.tell(f"{job} write {describe_entries(ready.entries)}{annuls}")
            if ready.chunk is not None:
                self.tell(f"{job} write {len(ready.chunk[1])}B of a snapshot at {ready.chunk[0]}")
            if ready.install is not None:
                self.tell(f"{job} install {describe_snapshot(ready.install)}")
            for to, message in ready.messages_after_sync:
                self.tell(f"{job} holds {describe_message(node_id, to, message)}")
            if ready.committed_from_file is not None:
                self.tell("apply {} from the file {}..{}".format(
                    node_id, *ready.committed_from_file))
            if ready.committed:
                self.tell(f"apply {node_id} {describe_entries(ready.committed)}")
            for read in ready.reads:
                self.tell(f"answer {node_id} {describe_read(read)}")
            if ready.received is not None:
                self.tell(f"{node_id} has received snapshot {ready.received.index}/"
                          f"{ready.received.term}")
            if ready.doubted is not None:
                self.tell(f"{node_id} doubts snapshot {ready.doubted.index}/{ready.doubted.term}")
        self._tell_change(self._members, node_id, self.members_of(node_id))
        self.invariants.check()
        return taken

    def _tell_change(self, known: dict[int, str], node_id: int, text: str) -> None:
        if known[node_id] != text:
            known[node_id] = text
            self.tell(text)

    def sync(self, node_id: int, count: int = 1 << 30) -> None:
        """The same, job by job, each told."""
        node = self.nodes[node_id]
        while node.jobs and count > 0:
            count -= 1
            self.tell(f"synced {node_id}.{node.jobs[0].job}")
            super().sync(node_id, 1)

    def compact(self, node_id: int, keep: int) -> None:
        """The same as of a node, told."""
        self.nodes[node_id].compact(keep)
        log = self.core(node_id).log
        self.tell(f"{node_id} holds {describe_snapshot(log.snapshot)}, its log begins after"
                  f" {log.base_index}/{log.base_term}")

    def deliver(self, envelopes) -> None:
        """The same, each told."""
        for envelope in list(envelopes):
            if self.arrives(envelope):
                super().deliver([envelope])

    def arrives(self, envelope: Envelope) -> bool:
        """Tell whether this message is received or lost."""
        sender, to, _ = envelope
        received = to in self.nodes and to not in self.down and (sender, to) not in self.cut
        self.tell_message("got" if received else "lost", envelope)
        return received

    def crash(self, node_id: int) -> None:
        """The same, told with the jobs that are lost."""
        lost = "".join(f", job {node_id}.{ready.job} lost" for ready in self.nodes[node_id].jobs)
        super().crash(node_id)
        self.tell(f"{node_id} is down{lost}")

    def restart(self, node_id: int) -> None:
        """The same, told with what the disk had kept."""
        super().restart(node_id)
        self._roles[node_id] = self.role_of(node_id)
        self._members[node_id] = self.members_of(node_id)
        self.tell(self.status_of(node_id))

    def talk(self, *pair: int) -> None:
        """Only these two exchange what is on its way, and their disks work, until nothing moves."""
        for _ in range(TALK_EVENTS_MAX):
            for node_id in pair:
                if node_id not in self.slow_disks | self.down:
                    self.sync(node_id)
            chosen = next((e for e in self.pool if {e.sender, e.to} == set(pair)), None)
            if chosen is None:
                return
            self.pool = [e for e in self.pool if e is not chosen]
            self.deliver([chosen])
        raise AssertionError("the two do not come to rest")
