"""A directory whose files are damaged: set aside whole, never repaired by forgetting.

Who finds damage has promised things that he cannot know any more. So he starts under another node
id, with an empty directory, and is taken in anew; what was damaged stays beside it, untouched, as
`damaged-<number>.<name>`. The marker `healing` says so, from before the first file is moved until
the node belongs to its cluster again:

    "RNHEAL", u16 format, u8 whether all files are aside, u32 number, 16 bytes cluster id,
    u16 number of contacts, each a u16 length and an address; CRC-32

Rules: the marker is durable before anything moves; a start that finds it undone finishes first; a
crash anywhere leaves that or the end. A damaged marker is damage too, but then no membership is
given (`readable_membership`), so that nothing is set aside on its word.
"""

import struct
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import CorruptFileError, MalformedError, StorageError
from raftnet.raft.entry import EntryKind
from raftnet.raft.membership import Membership, decode_membership
from raftnet.storage.logfile import LOG_NAME, NEW_LOG_NAME
from raftnet.storage.metafile import (FORMAT, IDENTITY_NAME, META_NAME, NEW_SUFFIX, check_format,
                                      read_identity, refuse_older, write_renamed)
from raftnet.storage.records import HEADER_BYTES, decode_header, scan_records
from raftnet.storage.snapshot import MADE_PREFIX, RECEIVED_NAME, SNAPSHOT_NAME, read_header

HEALING_NAME = "healing"
DAMAGED_PREFIX = "damaged-"
UNFINISHED_NAME = "unfinished"     # restoring or forgetting goes on: without identity all is void
HISTORY_NAMES = (IDENTITY_NAME, META_NAME, LOG_NAME, SNAPSHOT_NAME, NEW_LOG_NAME)
CONTACTS_MAX = 1_000
_PROVISIONAL_NAMES = {RECEIVED_NAME, *(name + NEW_SUFFIX for name in (
    META_NAME, IDENTITY_NAME, HEALING_NAME, UNFINISHED_NAME))}
_MAGIC = b"RNHEAL"
_HEAD = struct.Struct(">6sHBI16sH")
_LENGTH = struct.Struct(">H")
_CRC = struct.Struct(">I")
_BYTES_MAX = 1024 * 1024


class Healing(NamedTuple):
    """What the marker says."""

    contacts: tuple[str, ...]       # where the cluster may be found
    cluster_id: bytes               # that it belonged to; 16 bytes
    done: bool                      # all damaged files are aside
    number: int                     # of the damage, in the names of the files aside


def encode_healing(healing: Healing) -> bytes:
    """The bytes of the marker."""
    assert len(healing.cluster_id) == 16 and len(healing.contacts) <= CONTACTS_MAX
    parts = [_HEAD.pack(_MAGIC, FORMAT, healing.done, healing.number, healing.cluster_id,
                        len(healing.contacts))]
    for contact in healing.contacts:
        address = contact.encode()
        parts += (_LENGTH.pack(len(address)), address)
    data = b"".join(parts)
    return data + _CRC.pack(crc32(data))


def decode_healing(data: bytes, path: str) -> Healing:
    """The marker's values. Raises CorruptFileError, StorageError for another format."""
    refuse_older(data, _MAGIC, path)
    if len(data) < _HEAD.size + _CRC.size:
        raise CorruptFileError(path, len(data), "the file is too short")
    magic, file_format, done, number, cluster_id, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or crc32(data[:-_CRC.size]) != _CRC.unpack(data[-_CRC.size:])[0]:
        raise CorruptFileError(path, 0, "the checksum does not match: move the directory away, and "
                               "start the node with an empty one and --join")
    check_format(file_format, path)
    contacts, offset = [], _HEAD.size
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size + length
        contacts.append(data[offset - length:offset].decode())
    return Healing(tuple(contacts), cluster_id, bool(done), number)


def read_healing(disk) -> Healing | None:
    """None where the directory does not heal. Raises CorruptFileError."""
    if not disk.exists(HEALING_NAME):
        return None
    handle = disk.open(HEALING_NAME)
    data = disk.read_at(handle, 0, _BYTES_MAX)
    disk.close(handle)
    return decode_healing(data, disk.path(HEALING_NAME))


def remove_healing(disk) -> None:
    """The node belongs to its cluster again; durable on return."""
    disk.remove(HEALING_NAME)
    disk.sync_directory()


def set_aside(disk, contacts: list[str], cluster_id: bytes) -> None:
    """Move all files of a history out of the way and remember where the cluster is; durable on
    return. The directory must not be open. After a crash: again, or just open it.

    Raises DirectoryLockedError, DiskFullError, StorageError.
    """
    disk.create_directory()
    disk.lock()
    try:
        number = _next_number(disk)
        finish_setting_aside(disk, Healing(tuple(contacts[:CONTACTS_MAX]), cluster_id, False,
                                           number), begin=True)
    finally:
        disk.close_all()


def finish_setting_aside(disk, healing: Healing, begin: bool = False) -> Healing:
    """Move what is not moved yet; the marker as it is then. `begin`: it is not written yet."""
    if begin:
        _write(disk, healing)
    for name in disk.list():
        if name in HISTORY_NAMES:
            disk.rename(name, f"{DAMAGED_PREFIX}{healing.number}.{name}")
        elif is_provisional(name) or name == UNFINISHED_NAME:
            disk.remove(name)
    disk.sync_directory()
    healing = healing._replace(done=True)
    _write(disk, healing)
    return healing


def is_provisional(name: str) -> bool:
    """Whether a file of that name is nothing yet: never renamed into place."""
    return name in _PROVISIONAL_NAMES or name.startswith(MADE_PREFIX)


def _write(disk, healing: Healing) -> None:
    disk.close(write_renamed(disk, HEALING_NAME, encode_healing(healing)))


def _next_number(disk) -> int:
    """One that no file aside has."""
    numbers = [0]
    for name in disk.list():
        number = name.removeprefix(DAMAGED_PREFIX).split(".")[0]
        if name.startswith(DAMAGED_PREFIX) and number.isdecimal():
            numbers.append(int(number))
    return 1 + max(numbers)


# --- whom to ask


def readable_membership(disk) -> Membership | None:
    """The newest membership that can still be verified, of the log or the snapshot; None where
    there is none, or where the marker `healing` is damaged. Changes nothing, whatever the damage;
    the directory must not be open."""
    try:
        read_healing(disk)
    except StorageError:
        return None
    found = [(index, membership) for source in (_of_snapshot, _of_log)
             for index, membership in source(disk)]
    cluster_id = _cluster_id(disk)
    if cluster_id is not None:
        found = [each for each in found if each[1].cluster_id == cluster_id]
    return max(found, key=lambda each: each[0])[1] if found else None


def readable_cluster_id(disk) -> bytes | None:
    """The cluster that a damaged directory belongs to, as far as it can be verified."""
    cluster_id = _cluster_id(disk)
    if cluster_id is not None:
        return cluster_id
    membership = readable_membership(disk)
    return membership.cluster_id if membership else None


def _cluster_id(disk) -> bytes | None:
    try:
        identity = read_identity(disk)
    except StorageError:
        return None
    return identity.cluster_id if identity else None


def _of_snapshot(disk) -> list[tuple[int, Membership]]:
    """(index, membership) of the snapshot's header."""
    if not disk.exists(SNAPSHOT_NAME):
        return []
    handle = disk.open(SNAPSHOT_NAME)
    try:
        header = read_header(lambda offset, count: disk.read_at(handle, offset, count),
                             disk.path(SNAPSHOT_NAME))
    except StorageError:
        return []
    finally:
        disk.close(handle)
    return [(header.membership_index, header.membership)]


def _of_log(disk) -> list[tuple[int, Membership]]:
    """(index, membership) of the last one in the log that is whole and not annulled."""
    found: list[tuple[int, Membership]] = []
    if not disk.exists(LOG_NAME):
        return found
    handle = disk.open(LOG_NAME)

    def read(offset: int, count: int) -> bytes:
        return disk.read_at(handle, offset, count)

    try:
        decode_header(read(0, HEADER_BYTES), disk.path(LOG_NAME))
        for _, _, entry in scan_records(read, disk.size(handle)):
            if entry is None:
                break
            while found and found[-1][0] >= entry.index:
                found.pop()
            if entry.kind == EntryKind.MEMBERSHIP:
                found.append((entry.index, decode_membership(entry.payload)))
    except (StorageError, MalformedError):
        return found[-1:]       # what stands before it is good
    finally:
        disk.close(handle)
    return found[-1:]
