"""What the storage tests build: entries, stores on a simulated disk, pictures of a file."""

import random

from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.types import HardState
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.logfile import LogFile
from raftnet.storage.store import Job, Store

NODE_ID = 0x1122334455667788
CLUSTER_ID = bytes(range(16))


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


def open_log(disk, report=nothing) -> tuple[LogFile, list[Entry]]:
    """The log of that disk, settled."""
    log, current = LogFile.open(disk, report)
    log.settle(report)
    return log, current


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
