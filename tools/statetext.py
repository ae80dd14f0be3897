"""The replicated state as text: out of a snapshot, or rebuilt at an index of the log.

Rules: files are only read, in the way of readonlydisk.py. What the files cannot tell is said: the
tail of a log may never have been committed, and only the nodes know.

Elsewhere: rebuilding (raftnet/rebuild.py), the state's own lines (raftnet/machine/describe.py), one
message's life (messagelife.py), the records of a log as they are (filetext.py).
"""

from collections.abc import Iterator

from raftnet.client.entries import describe_membership
from raftnet.config import Config
from raftnet.machine.describe import MESSAGES_SHOWN, describe_state
from raftnet.raft.entry import Entry
from raftnet.rebuild import Rebuilt, load_machine, rebuild
from raftnet.storage.snapshot import SNAPSHOT_NAME, SnapshotFile
from tools.readonlydisk import Progress, open_data, open_snapshot


def state_lines(path: str, index: int, everything: bool) -> Iterator[str]:
    """The state after the entry at `index`. Raises CorruptFileError, and StorageError where it is
    not held."""
    progress = Progress()
    with open_data(path, progress) as disk:
        rebuilt = rebuild(disk, Config(), index, watch=applying(progress))
        yield f"state after entry {rebuilt.index} of term {rebuilt.term}"
        yield from certainty_lines(rebuilt)
        yield f"since entry {rebuilt.membership_index}: {describe_membership(rebuilt.membership)}"
        yield from describe_state(rebuilt.machine, None if everything else MESSAGES_SHOWN)


def snapshot_lines(path: str, everything: bool) -> Iterator[str]:
    """What a snapshot's header says, and the state in it, verified. Raises CorruptFileError, and
    StorageError where it is of another version."""
    with open_snapshot(path, Progress()) as disk:
        snapshot = SnapshotFile.open(disk, SNAPSHOT_NAME)
        meta = snapshot.meta
        yield (f"header: {snapshot.path}, {meta.size} bytes, checksum {meta.checksum:08x}, cluster "
               f"{snapshot.cluster_id.hex()}")
        yield f"up to entry {meta.index} of term {meta.term}, digest {meta.digest:08x}"
        yield f"since entry {meta.membership_index}: {describe_membership(meta.membership)}"
        machine = load_machine(snapshot, Config())
        yield from describe_state(machine, None if everything else MESSAGES_SHOWN)


def certainty_lines(rebuilt: Rebuilt) -> Iterator[str]:
    """How far the log goes, and how much of it is committed for sure."""
    line = f"log: up to entry {rebuilt.log_last_index}"
    if rebuilt.snapshot_index:
        line += f"; committed for sure up to {rebuilt.snapshot_index}, by the snapshot"
    if rebuilt.log_last_index > rebuilt.snapshot_index:
        line += "; its tail may be uncommitted, the files do not tell"
    yield line
    if rebuilt.log_rest_bytes:
        yield (f"log: {rebuilt.log_rest_bytes} bytes behind its last whole record are left out: "
               "being written, torn, or damaged in the last write")


def applying(progress: Progress):
    """A watch for `rebuild` that says how far it is."""
    def watch(rebuilt: Rebuilt, entry: Entry | None, applied: object) -> None:
        if entry is not None and not entry.index & 255 and progress.due():
            progress.say(f"applied up to entry {entry.index} of {rebuilt.log_last_index}")
    return watch
