"""Outbox: the messages of the core on their way out.

Rules: what promises something waits until the disk job that makes it true is durable, job after job
(design, decision 2); with a full disk, what promises no more than term and vote goes before. Only
then each message gets the address of its node, and from the files what the core left out: old
entries, bytes of a snapshot. One object for each Replica.
"""

from collections import deque

from raftnet.narration import narrate_sent
from raftnet.raft.types import (
    Append, Message, Outgoing, Ready, Snapshot, promises_hard_state_only)
from raftnet.storage.store import Job


class Outbox:
    """What one node is about to send."""

    def __init__(self, replica):
        self._replica = replica
        self._messages: list[Outgoing] = []         # free to leave
        self._waiting: deque[tuple[int, list[Outgoing]]] = deque()  # (disk job, its promises)
        self._jobs_before = 0       # disk jobs of a provisional cluster that was dropped

    @property
    def is_waiting(self) -> bool:
        """Whether a promise waits for the disk."""
        return bool(self._waiting)

    @property
    def job_number(self) -> int:
        """Of the newest disk job; one that nobody waits for goes with that number."""
        return self._jobs_before + self._replica.raft.jobs_made

    def take(self, ready: Ready) -> Job | None:
        """The messages of a Ready; its disk job, where it has one."""
        self._messages += ready.messages
        if not ready.job:
            return None
        self._waiting.append((ready.job, ready.messages_after_sync))
        return Job(self._jobs_before + ready.job, ready.hard_state, ready.entries, ready.rewound,
                   ready.chunk, ready.install)

    def votes_durable(self, job: int) -> None:
        """Term and vote of the disk jobs up to this one are durable, though their entries are not:
        what promises no more than those may leave."""
        job -= self._jobs_before
        self._replica.raft.hard_state_durable(job)
        for number, messages in self._waiting:
            if number > job:
                return
            self._messages += [m for m in messages if promises_hard_state_only(m.message)]
            messages[:] = [m for m in messages if not promises_hard_state_only(m.message)]

    def durable(self, job: int) -> None:
        """The disk jobs up to this one are durable: their promises may leave."""
        job -= self._jobs_before
        self._replica.raft.advance(job)
        while self._waiting and self._waiting[0][0] <= job:
            self._messages += self._waiting.popleft()[1]

    def begin_anew(self) -> None:
        """The cluster is left; nothing waits for the disk."""
        assert not self._waiting
        self._jobs_before = self.job_number
        self._messages.clear()

    def addressed(self) -> list[tuple[str, int, Message]]:
        """(address, node id, message) of all that may leave now."""
        replica, found = self._replica, []
        for to, message in self._messages:
            address = replica.address_of(to)
            # None for a removed member that has not greeted.
            if address and self._fill(to, message):
                found.append((address, to, message))
        if self._messages:
            narrate_sent(replica, self._messages)
        self._messages = []
        return found

    def _fill(self, to: int, message: Message) -> bool:
        """Add what only the files have; False where they do not."""
        replica = self._replica
        if type(message) is Append and message.from_file:
            message.entries = replica.store.read_entries(
                message.prev_log_index + 1, replica.config.raft.append_bytes_max,
                replica.raft.log.stable_index)
            return bool(message.entries)
        if type(message) is Snapshot and message.from_file and not replica.snapshots.fill(message):
            replica.raft.snapshot_unreadable(to, message.identity)
            return False
        return True
