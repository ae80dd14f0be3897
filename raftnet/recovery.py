"""Opening a data directory whose files may be damaged, and making one out of a backup.

Rules (design: Disk; protocol.md, Files): nothing damaged is ever served, skipped or deleted. Where
other members hold what this node held, its files are set aside and the node comes back as a new
one, a learner: under its old identity it neither votes nor acknowledges any more, since what it
promised cannot be known; the cluster replaces that identity by an entry. Where nobody else holds
it, or the others are too few to decide on that entry, the node refuses to start and says what to
do.

Restoring makes a new cluster of one node, under new ids, so that nothing of the old cluster is ever
taken for it. From a backup it holds what that held; from the directory of a node that is stopped
for ever, all of its log, also what was never committed.
"""

import os
from collections.abc import Callable

from raftnet.config import Config
from raftnet.errors import CorruptFileError, DamagedError, StorageError
from raftnet.founding import cluster_id_of
from raftnet.machine.state import encode_state
from raftnet.raft.membership import Membership
from raftnet.rebuild import load_machine, rebuild
from raftnet.storage.damage import HEALING_NAME
from raftnet.storage.disk import Disk
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.metafile import (META_NAME, SLOT_BYTES, SLOT_OFFSETS, decode_slot,
                                      read_identity)
from raftnet.storage.snapshot import SnapshotFile
from raftnet.storage.store import Image, Report, Store


def open_store(disk, contacts: list[str], own_address: str, make_node_id: Callable[[], int],
               report: Report, memory_bytes: int, refuse: bool = False) -> Store:
    """Store.open; where files are damaged, they are set aside and the node heals from the others.

    `contacts`: where else members may be, as the command line says; `refuse`: rather do not start.
    Raises as Store.open: StorageError with what to do, where nobody else is known or `refuse`.
    """
    try:
        return Store.open(disk, make_node_id, report, memory_bytes)
    except DamagedError as error:
        if isinstance(error, CorruptFileError) and error.path == disk.path(HEALING_NAME):
            raise               # where it belongs is what cannot be read
        _set_aside(disk, error, contacts, own_address, report, refuse)
    return Store.open(disk, make_node_id, report, memory_bytes)


def _set_aside(disk, error: DamagedError, contacts: list[str], own_address: str, report: Report,
               refuse: bool) -> None:
    membership = Store.readable_membership(disk)
    if membership is not None:
        contacts = _others(disk, membership, own_address, error)
    contacts = list(dict.fromkeys(a for a in contacts if a and a != own_address))
    if refuse:
        raise StorageError(f"{error}; to come back with what {', '.join(contacts) or 'others'} "
                           "hold, start without --no-healing") from error
    if not contacts:
        raise StorageError(f"{error}; which cluster it belongs to cannot be read any more: start "
                           "with --join and the address of a member to be taken in anew, or "
                           "restore a backup with --restore into an empty directory") from error
    report(f"{error}")
    Store.set_aside(disk, contacts, Store.readable_cluster_id(disk) or bytes(16))
    report("the damaged files are kept aside under the name damaged-...; this node comes back as a "
           f"new one, with what {', '.join(contacts)} hold")


def _others(disk, membership: Membership, own_address: str, error: DamagedError) -> list[str]:
    """The addresses of the other members. Raises StorageError where they are too few to take this
    node in anew: that is an entry, and the vote of who it was is needed for it."""
    node_id = _readable_node_id(disk)
    own = membership.member(node_id) or membership.member_at(own_address)   # it may have moved
    # At this node's address, whatever its node id, nobody else is.
    addresses = {own_address} if own is None else {own_address, own.address}
    others = [m for m in membership.members if m is not own and m.address not in addresses]
    voters = sum(m.voter for m in others)
    if own is None and not node_id:
        voters -= 1         # one of them is this node, at an address that it had before
    if voters >= membership.quorum:
        return [m.address for m in others]
    if not others or own is None and voters <= 0:
        raise StorageError(f"{error}; nobody else holds this data: restore a backup with "
                           "--restore into an empty directory, or repair the file") from error
    raise StorageError(
        f"{error}; {membership.quorum} of {len(membership.voters)} voters must agree to take this "
        f"node in anew, and the others are {voters}, so nothing is set aside: repair the file, or "
        "begin a new cluster with --restore and an empty directory, out of a backup or out of the "
        f"data directory of another member ({', '.join(m.address for m in others)}), once that is "
        "stopped; then this node can --join it, with an empty directory") from error


def _readable_node_id(disk) -> int:
    """The node id that a damaged directory belongs to, as far as it can be verified; else 0."""
    try:
        identity = read_identity(disk)
    except StorageError:
        identity = None         # damaged
    if not disk.exists(META_NAME):
        return identity.node_id if identity is not None else 0
    handle = disk.open(META_NAME)
    try:
        for offset in SLOT_OFFSETS:
            slot = decode_slot(disk.read_at(handle, offset, SLOT_BYTES), disk.path(META_NAME))
            if slot is not None and (identity is None or identity.node_id == slot.node_id):
                return slot.node_id
            if slot is not None:
                return 0        # one of the two is another node's
    finally:
        disk.close(handle)
    return identity.node_id if identity is not None else 0


def restore(disk, path: str, address: str, make_node_id: Callable[[], int], config: Config,
            report: Report) -> None:
    """Make the empty directory that of a new cluster of the node at `address`, with the state of a
    backup (a file) or of a stopped node (its data directory).

    Raises StorageError where the directory is not empty, CorruptFileError where the source is.
    """
    path = os.path.abspath(path)
    source = Disk(path if os.path.isdir(path) else os.path.dirname(path))
    if os.path.isdir(path):
        if not source.exists(LOG_NAME):     # and nothing is made in it
            raise StorageError(f"{path}: no data directory of a node: it has no log")
        source.lock()       # a node that runs there must be stopped first
        try:
            rebuilt = rebuild(source, config, report=report)
        finally:
            source.close_all()
        image = Image(rebuilt.index, rebuilt.term, rebuilt.membership, rebuilt.machine.digest,
                      encode_state(rebuilt.machine))
        if not rebuilt.index:
            raise StorageError(f"{path}: holds no state to restore")
    else:
        if not os.path.isfile(path):
            raise StorageError(f"{path}: no such file or directory to restore from")
        file = SnapshotFile.open(source, os.path.basename(path))
        try:
            machine = load_machine(file, config)    # before anything is made of it
            meta = file.meta
        finally:
            source.close_all()
        image = Image(meta.index, meta.term, meta.membership, meta.digest, encode_state(machine))
    Store.restore(disk, make_node_id, cluster_id_of, image, address, report)
