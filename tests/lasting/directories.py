"""Data directories written without a node: of a lone node with very many entries or messages."""

import random
from collections.abc import Iterator

from raftnet.founding import cluster_id_of
from raftnet.raft.entry import Entry, EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.raft.types import HardState
from raftnet.storage.disk import Disk
from raftnet.storage.store import Job, Store
from raftnet.wire import commands, requests

QUEUE = b"default"
_TERM = 2
_ENTRIES_A_JOB = 10_000
_BYTES_A_JOB = 4 * 1024 * 1024


def make_directory(directory: str, address: str, entries: Iterator[Entry]) -> None:
    """A lone node's, founded and stopped, with these entries from index 2 on, of term 2."""
    node_id = random.randint(1, 2**64 - 1)
    cluster_id = cluster_id_of([node_id])
    membership = Membership(cluster_id, (Member(node_id, address, True),), founded=True)
    store = Store.open(Disk(directory), lambda: node_id, lambda text: None)
    try:
        store.found(cluster_id, encode_entry(1, 1, EntryKind.MEMBERSHIP,
                                             encode_membership(membership)))
        number, waiting, size = 1, [], 0
        for entry in entries:
            waiting.append(entry)
            size += len(entry.data)
            if len(waiting) == _ENTRIES_A_JOB or size >= _BYTES_A_JOB:
                store.perform([Job(number, HardState(_TERM), waiting)])
                number, waiting, size = number + 1, [], 0
        store.perform([Job(number, HardState(_TERM), waiting)])
    finally:
        store.close()


def single_enqueues(count: int, message_bytes: int) -> Iterator[Entry]:
    """As a client makes them that waits for each answer: an entry each."""
    session = random.randbytes(requests.SESSION_BYTES)
    command = commands.encode_enqueue(QUEUE, [b"m" * message_bytes])
    for number in range(1, count + 1):
        body = requests.encode_request(session, number, number - 1, [command])
        yield _batch(number + 1, body)


def batches(count: int, message_bytes: int, in_one: int = 1_000) -> Iterator[Entry]:
    """As a client makes them that pipelines: so many messages an entry."""
    session = random.randbytes(requests.SESSION_BYTES)
    for number in range(count // in_one):
        chunk = [commands.encode_enqueue(QUEUE, [b"%0*d" % (message_bytes, each)])
                 for each in range(number * in_one, (number + 1) * in_one)]
        body = requests.encode_request(session, number * in_one + 1, number * in_one, chunk)
        yield _batch(number + 2, body)


def _batch(index: int, body: bytes) -> Entry:
    """A request that came at as many milliseconds as it has entries before it."""
    return encode_entry(index, _TERM, EntryKind.BATCH, commands.encode_batch(index, [body]))
