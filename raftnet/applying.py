"""Applying: committed entries reach the replicated state, and those who wait hear of it.

Rules: entries are applied in order, each once, for so long a turn and no longer: a few bytes may
lease ten thousand messages, and who applies does not speak. What is left goes on with the next
turn, and newer entries are taken after it. Old ones after a start come from the log file. What an
entry does is machine/; who is answered, gateway.py, watches.py and admission.py. A snapshot that is
installed, and a cluster that is left, put another machine in the place of the one before. One
object for each Replica.
"""

from collections import deque
from collections.abc import Callable

from raftnet.machine.machine import Machine
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import decode_membership
from raftnet.raft.types import Ready, SnapshotMeta

_KIND_NAMES = {int(kind): kind.name.lower() for kind in EntryKind}


class Applying:
    """What one node applies to its machine."""

    def __init__(self, replica):
        self._replica = replica
        self._slice_s = replica.config.gateway.apply_slice_ms / 1000
        self._waiting: deque[Entry] = deque()           # committed, to be applied next
        self._from_file: tuple[int, int] | None = None  # (first, last) that come after these
        self._narrated = 0              # the index up to which a line was said for many
        self._until = 0.0               # by the clock: the turn's slice ends
        # Seconds of any origin. Where it stands still, nothing is left for the next turn.
        self.clock: Callable[[], float] = lambda: 0.0
        self.founded = False            # a membership that says so is committed

    def go_on(self) -> bool:
        """A turn begins: apply what waits, for a slice of time. Whether newer entries may follow in
        this turn."""
        self._until = self.clock() + self._slice_s
        in_time = self._apply_waiting()
        return in_time and not self._waiting and self._from_file is None

    def take(self, ready: Ready) -> None:
        """Apply what a Ready says is committed, as far as the turn's slice goes."""
        if ready.committed_from_file is not None:
            self._from_file = ready.committed_from_file
        self._waiting += ready.committed
        self._apply_waiting()

    def _apply_waiting(self) -> bool:
        """Whether that took less than the turn's slice."""
        waiting, clock = self._waiting, self.clock
        if not waiting and self._from_file is not None:
            self._read()
        while waiting:
            self._apply(waiting.popleft())
            if clock() > self._until:
                return False
        return True

    @property
    def is_cut(self) -> bool:
        """Whether entries wait because a turn had applied for long enough."""
        return bool(self._waiting)

    def _read(self) -> None:
        """Old entries, which a start has yet to apply: they are not all kept in memory."""
        replica = self._replica
        first, last = self._from_file
        entries = replica.store.read_entries(first, replica.config.raft.append_bytes_max, last)
        assert entries, "what is durable and above the base is in the file"
        # Of a million of them a line each, though only counted, would cost more than half as much
        # as applying them.
        self._narrated = entries[-1].index
        replica.actions.say("apply", "apply entries %d to %d out of the log file", first,
                            self._narrated)
        self._waiting += entries
        self._from_file = (self._narrated + 1, last) if self._narrated < last else None

    def _apply(self, entry: Entry) -> None:
        replies = self._execute(entry)
        if entry.index > self._narrated:
            self._replica.actions.say("apply", "commit and apply entry %d (%s, %d bytes), %d "
                                      "replies", entry.index, _KIND_NAMES[entry.kind],
                                      len(entry.data), replies)

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
        self._waiting.clear()
        self._narrated = 0
        replica.gateway.begin_anew(machine)
        replica.watches.begin_anew(machine)
