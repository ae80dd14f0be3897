"""Applying: committed entries reach the replicated state, and those who wait hear of it.

Rules: entries are applied in order, each once; old ones after a start come from the log file, a
slice each turn. What an entry does is machine/; who is answered, gateway.py, watches.py and
admission.py. A snapshot that is installed, and a cluster that is left, put another machine in the
place of the one before. One object for each Replica.
"""

from raftnet.machine.machine import Machine
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import decode_membership
from raftnet.raft.types import Ready, SnapshotMeta

_KIND_NAMES = {int(kind): kind.name.lower() for kind in EntryKind}


class Applying:
    """What one node applies to its machine."""

    def __init__(self, replica):
        self._replica = replica
        self._from_file: tuple[int, int] | None = None  # (first, last) that are to be applied next
        self.founded = False            # a membership that says so is committed

    def take(self, ready: Ready) -> None:
        """Apply what a Ready says is committed."""
        if ready.committed_from_file is not None:
            self._from_file = ready.committed_from_file
            self.go_on()
        for entry in ready.committed:
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        replies = self._execute(entry)
        self._replica.actions.say("apply", "commit and apply entry %d (%s, %d bytes), %d replies",
                                  entry.index, _KIND_NAMES[entry.kind], len(entry.data), replies)

    def _execute(self, entry: Entry) -> int:
        """Apply it and answer who waits for it; how many replies that gave."""
        replica = self._replica
        applied = replica.machine.apply(entry)
        replies = replica.gateway.applied(entry.index, entry.term, applied)
        if applied.changes:
            replica.watches.changed(entry.index, applied.changes)
        if entry.kind == EntryKind.MEMBERSHIP:
            self.founded = self.founded or decode_membership(entry.payload).founded
            replica.admission.membership_committed(entry.index)
            replica.peers_changed = True
        return replies

    def go_on(self) -> bool:
        """Apply a slice of the old entries that a start has yet to apply: they are not all kept in
        memory. Whether none is left, so that newer ones may follow."""
        if self._from_file is None:
            return True
        replica = self._replica
        first, last = self._from_file
        entries = replica.store.read_entries(first, replica.config.raft.append_bytes_max, last)
        assert entries, "what is durable and above the base is in the file"
        # Of a million of them a line each, though only counted, would cost more than half as much
        # as applying them.
        replica.actions.say("apply", "apply entries %d to %d out of the log file", first,
                            entries[-1].index)
        for entry in entries:
            self._execute(entry)
        self._from_file = (entries[-1].index + 1, last) if entries[-1].index < last else None
        return self._from_file is None

    def installed(self, meta: SnapshotMeta) -> None:
        """The log begins at a snapshot that came from the leader: so does the state."""
        replica = self._replica
        self.begin_anew(replica.snapshots.installed(meta))
        self.founded = self.founded or meta.membership.founded
        replica.actions.say("install", "the state is that of the snapshot up to entry %d now",
                            meta.index)
        replica.membership_appended()
        replica.admission.membership_committed(meta.membership_index)

    def begin_anew(self, machine: Machine) -> None:
        """The state is that of another machine from now on."""
        replica = self._replica
        replica.machine, self._from_file = machine, None
        replica.gateway.begin_anew(machine)
        replica.watches.begin_anew(machine)
