"""ReplicatedTime: elapsed leader time, as one node may go on with it (design: Time).

Rules: a stamp is the last stamp in this node's log, uncommitted tail included, plus its own
monotonic clock since that entry came. A stamp that was truncated does not count, or time could run
ahead of a later leader's; across a restart no time is counted. So no leader change and no clock
jump ever ends a wait, a lease or a session early.
"""

from struct import Struct

from raftnet.raft.entry import HEADER_BYTES, Entry, EntryKind
from raftnet.raft.log import RaftLog

_STAMP = Struct(">Q")


def stamp_of(batch: Entry) -> int:
    """The stamp of a BATCH entry, in milliseconds of replicated time."""
    return _STAMP.unpack_from(batch.data, HEADER_BYTES)[0]


class ReplicatedTime:
    """The time that this node would write into a batch."""

    def __init__(self, log: RaftLog, applied_time_ms: int = 0):
        self._log = log
        self.stamp_ms = applied_time_ms     # the last stamp in the log or the snapshot ...
        self._came_ms = 0       # ... and when it came, by our clock
        self._seen_to = 0       # the log is looked through up to here ...
        self._epoch = 0         # ... in this epoch

    def at(self, now_ms: int) -> int:
        """The stamp for a batch made now."""
        return self.stamp_ms + now_ms - self._came_ms

    def follow(self, now_ms: int, applied_time_ms: int) -> None:
        """Look at what the log got since the last call. `applied_time_ms` is the machine's time:
        a stamp of this log too, though its entry may be in the file only."""
        log = self._log
        if applied_time_ms > self.stamp_ms:
            self.stamp_ms, self._came_ms = applied_time_ms, now_ms
        if log.epoch == self._epoch and log.last_index == self._seen_to:
            return
        replaced = log.epoch != self._epoch
        index = log.last_index
        lowest = log.memory_from if replaced else max(log.memory_from, self._seen_to + 1)
        self._epoch, self._seen_to = log.epoch, log.last_index
        while index >= lowest:
            entry = log.entry(index)
            if entry.kind == EntryKind.BATCH:
                self.stamp_ms = stamp_of(entry)
                self._came_ms = now_ms
                return
            index -= 1
        if replaced:
            self.stamp_ms, self._came_ms = applied_time_ms, now_ms
