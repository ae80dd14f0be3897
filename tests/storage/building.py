"""What the storage tests build: entries, stores on a simulated disk, pictures of a file."""

import random

from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership
from raftnet.raft.types import HardState, SnapshotMeta
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.logfile import LogFile
from raftnet.storage.snapshot import RECEIVED_NAME, write_snapshot
from raftnet.storage.store import Compaction, Job, Store

NODE_ID = 0x1122334455667788
CLUSTER_ID = bytes(range(16))
MEMBERSHIP = Membership(CLUSTER_ID, (Member(NODE_ID, "127.0.0.1:1", True),
                                     Member(NODE_ID + 1, "127.0.0.1:2", True)), founded=True)
PIECES = [b"first piece", bytes(range(100)), b"last"]


def entry(index: int, term: int = 1, payload: bytes = b"") -> Entry:
    """An entry of one batch."""
    return encode_entry(index, term, EntryKind.BATCH, payload)


def entries(first: int, last: int, term: int = 1, payload_bytes: int = 20) -> list[Entry]:
    """Entries first to last, both included, each with a payload of its own."""
    return [entry(i, term, bytes((i * 7 + term + k) & 0xFF for k in range(payload_bytes)))
            for i in range(first, last + 1)]


def nothing(text: str) -> None:
    """A `report` that nobody reads."""


def open_store(disk, report=nothing) -> Store:
    """The store of that disk."""
    return Store.open(disk, lambda: NODE_ID, report)


MEMORY_BYTES = 1 << 30       # everything


def create_log(disk, base_index: int = 0, base_term: int = 0) -> LogFile:
    """An empty log of NODE_ID."""
    return LogFile.create(disk, NODE_ID, base_index, base_term)


def replay(disk, report=nothing, memory_bytes: int = MEMORY_BYTES) -> tuple[LogFile, list[Entry]]:
    """The log of that disk and its current entries, nothing changed."""
    log, replayed = LogFile.open(disk, NODE_ID, report, memory_bytes)
    return log, replayed.entries


def open_log(disk, report=nothing) -> tuple[LogFile, list[Entry]]:
    """The log of that disk, settled."""
    log, current = replay(disk, report)
    log.settle(report)
    return log, current


def replayed(store: Store) -> list[Entry]:
    """All entries of a small log, as they were found at the start; none after a new beginning."""
    return store._replayed.entries if store._replayed else []


def founded(disk) -> Store:
    """A new store with entry 1."""
    store = open_store(disk)
    store.found(CLUSTER_ID, entry(1))
    return store


def job(entries_of_job: list[Entry], term: int = 0, vote: int = 0) -> Job:
    """A job, with a hard state where a term is given."""
    return Job(1, HardState(term, vote) if term else None, entries_of_job)


def disk_with(name: str, data: bytes) -> SimulatedDisk:
    """A disk with one file."""
    disk = SimulatedDisk()
    disk.put(name, data)
    return disk


def copy_files(disk: SimulatedDisk, **changed: bytes) -> SimulatedDisk:
    """A disk with the same files, all durable; some with other bytes."""
    copy = SimulatedDisk()
    for name in disk.list():
        copy.put(name, changed.get(name, disk.get(name)))
    return copy


def randint_of(seed: int):
    """`randint` of a generator of its own."""
    return random.Random(seed).randint


def make_snapshot(disk, name: str, index: int, term: int = 1, pieces=None) -> SnapshotMeta:
    """A snapshot file of that name, whose content tells its index and term."""
    pieces = [b"%d@%d" % (index, term), *PIECES] if pieces is None else pieces
    return write_snapshot(disk, name, index, term, 1, MEMBERSHIP, 0xD16E57 + index, CLUSTER_ID,
                          pieces)


def content(store: Store) -> tuple:
    """What a store serves: where its snapshot ends, the pieces of that, and all entries."""
    snapshot = store.snapshot
    return (snapshot.meta[:2] if snapshot else None,
            list(snapshot.pieces()) if snapshot else [],
            store.read_entries(store.log_base_index + 1, 1 << 30))


def install_job(store: Store, disk, index: int, term: int, number: int = 1) -> list[Job]:
    """Jobs that bring a snapshot in chunks and install it. `term` is not above the store's."""
    other = SimulatedDisk()
    meta = make_snapshot(other, RECEIVED_NAME, index, term)
    data = other.get(RECEIVED_NAME)
    chunks = [Job(number, None, [], chunk=(at, data[at:at + 100]))
              for at in range(0, len(data), 100)]
    return chunks + [Job(number, None, [], install=meta)]


def compact_job(disk, index: int, term: int, base_index: int, number: int = 1) -> Job:
    """A snapshot made beside, and the job that compacts by it."""
    name = f"snapshot.made-{number}"
    meta = make_snapshot(disk, name, index, term)
    return Job(number, None, [], compact=Compaction(name, meta, base_index))
