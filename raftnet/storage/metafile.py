"""Term and vote (`meta`), and whose directory this is (`identity`).

meta is 8192 bytes, made whole and renamed into place, so that later writes need no new space. It
has two slots, at 0 and 4096; big-endian: "RNMETA", u16 format, u64 sequence, u64 current_term,
u64 voted_for, u64 node_id, u64 boot, u64 floor_term, u64 floor_index, CRC-32 over what stands
before it.

A change writes slot 0, syncs, writes the same into slot 1, syncs; only then it is promised. With
slots that alternate, one flipped bit in the newest would give back the older term and vote, a
forgotten promise, and could not be told from a write that a crash tore. Here both slots are equal
whenever something was promised, so that one invalid slot, torn or damaged, costs nothing:

    slot 0    slot 1       what happened                                truth
    n         n            nothing                                      either
    n + 1     n            crash before slot 1 was written              slot 0 (not yet promised)
    n + 1     invalid      crash while slot 1 was written, or damage    slot 0
    invalid   n            crash while slot 0 was written, or damage    slot 1
    anything else          damage                                       refuse

The price is a second sync for each change of term or vote.

The floor is where the log ended when the slot was written: (term, index) of an entry that was
durable. A log that ends below it was cut or exchanged. It follows the log with every change, and is
lowered before a conflicting tail is replaced by one that ends lower.

identity is written once: "RNIDEN", u16 format, 16 bytes cluster id, u64 node id, CRC-32. It is
renamed into place last when a cluster is founded or joined; that it is there means *history*.
"""

import struct
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import CorruptFileError, StorageError
from raftnet.raft.types import HardState

META_NAME = "meta"
META_BYTES = 8192
SLOT_OFFSETS = (0, 4096)
IDENTITY_NAME = "identity"
FORMAT = 2                              # of every file of the directory
NEW_SUFFIX = ".new"                     # of a file that is not yet renamed into place
_META_MAGIC = b"RNMETA"
_IDENTITY_MAGIC = b"RNIDEN"
_SLOT = struct.Struct(">6sHQQQQQQQI")
SLOT_BYTES = _SLOT.size                 # 68
_IDENTITY = struct.Struct(">6sH16sQI")
IDENTITY_BYTES = _IDENTITY.size         # 36
_CRC = struct.Struct(">I")
_LEAD = struct.Struct(">6sH")           # magic and format: with these every file begins


class MetaState(NamedTuple):
    """What a slot holds."""

    sequence: int       # number of the change
    current_term: int
    voted_for: int      # node id; 0: nobody
    node_id: int        # made with the directory
    boot: int           # how often the directory was started
    floor_term: int = 0     # the log does not end below this entry
    floor_index: int = 0


class Identity(NamedTuple):
    """What `identity` holds."""

    cluster_id: bytes   # 16 bytes
    node_id: int


class MetaFile:
    """The open `meta`. Invariant: both slots hold `state` whenever no method is running."""

    def __init__(self, disk, handle: int, state: MetaState, slot: int):
        self._disk = disk
        self._handle = handle
        self._slot = slot           # where `state` was read at start
        self.state = state
        self.log_end = (state.floor_term, state.floor_index)    # set by the Store: what is durable
                                                                # now, written with the next change

    @classmethod
    def create(cls, disk, node_id: int) -> "MetaFile":
        """Make the file with term 0 and boot 0; durable on return."""
        assert 0 < node_id < 1 << 64
        state = MetaState(1, 0, 0, node_id, 0)
        data = bytearray(META_BYTES)
        for offset in SLOT_OFFSETS:
            data[offset:offset + SLOT_BYTES] = encode_slot(state)
        handle = write_renamed(disk, META_NAME, bytes(data))
        return cls(disk, handle, state, 0)

    @classmethod
    def open(cls, disk) -> "MetaFile":
        """Read the file, change nothing. Raises CorruptFileError."""
        handle = disk.open(META_NAME)
        try:
            slots = [decode_slot(disk.read_at(handle, offset, SLOT_BYTES), disk.path(META_NAME))
                     for offset in SLOT_OFFSETS]
            slot = _choose(slots, disk.path(META_NAME))
        except StorageError:
            disk.close(handle)
            raise
        return cls(disk, handle, slots[slot], slot)

    @property
    def hard_state(self) -> HardState:
        """Term and vote."""
        return HardState(self.state.current_term, self.state.voted_for)

    @property
    def floor(self) -> tuple[int, int]:
        """(term, index): the log ends there or above; (0, 0) says nothing."""
        return self.state.floor_term, self.state.floor_index

    def begin_boot(self, hard_state: HardState) -> None:
        """Count this start and set term and vote; durable on return."""
        # After a failed sync the page cache may show a slot that is not on the disk. So what was
        # read is first written again where it was read: a crash meanwhile leaves it, or the
        # other slot. Only then may the other one, which may be invalid, be touched.
        for slot in (self._slot, 1 - self._slot):
            self._write_slot(slot, self.state)
        self._change(self.state._replace(boot=self.state.boot + 1,
                                         current_term=hard_state.current_term,
                                         voted_for=hard_state.voted_for))

    def set_hard_state(self, hard_state: HardState) -> None:
        """Term and vote; durable on return. Raises DiskFullError (call again), StorageError."""
        self._change(self.state._replace(current_term=hard_state.current_term,
                                         voted_for=hard_state.voted_for))

    def set_node_id(self, node_id: int) -> None:
        """Another identity, for a directory without history; durable on return. Raises as
        set_hard_state."""
        assert 0 < node_id < 1 << 64
        self._change(self.state._replace(node_id=node_id))

    def write_floor(self) -> None:
        """Make `log_end` the floor; durable on return. Raises as set_hard_state."""
        if self.floor != self.log_end:
            self._change(self.state)

    def _change(self, state: MetaState) -> None:
        floor_term, floor_index = self.log_end
        state = state._replace(sequence=self.state.sequence + 1, floor_term=floor_term,
                               floor_index=floor_index)
        for slot in range(len(SLOT_OFFSETS)):
            self._write_slot(slot, state)
        self.state = state

    def _write_slot(self, slot: int, state: MetaState) -> None:
        self._disk.write_at(self._handle, SLOT_OFFSETS[slot], encode_slot(state))
        self._disk.sync(self._handle)


def _choose(slots: list[MetaState | None], path: str) -> int:
    """Which slot to believe (see the table above); raises CorruptFileError."""
    first, second = slots
    if first is None and second is None:
        raise CorruptFileError(path, SLOT_OFFSETS[0], "neither copy of term and vote is valid")
    if first is None:
        return 1
    if second is None or first == second or first.sequence == second.sequence + 1:
        return 0
    raise CorruptFileError(path, SLOT_OFFSETS[1], "the two copies of term and vote do not follow "
                           f"each other (changes {first.sequence} and {second.sequence})")


def encode_slot(state: MetaState) -> bytes:
    """The 68 bytes of a slot."""
    data = _SLOT.pack(_META_MAGIC, FORMAT, *state, 0)[:-4]
    return data + _CRC.pack(crc32(data))


def decode_slot(data: bytes, path: str) -> MetaState | None:
    """A slot's values, None where it is damaged. Raises StorageError for another format."""
    refuse_older(data, _META_MAGIC, path)
    if len(data) != SLOT_BYTES or crc32(data[:-4]) != _CRC.unpack_from(data, SLOT_BYTES - 4)[0]:
        return None
    magic, file_format, *values, _ = _SLOT.unpack(data)
    if magic != _META_MAGIC:
        return None
    check_format(file_format, path)
    return MetaState(*values)


def write_identity(disk, identity: Identity) -> None:
    """From now on the directory has history; durable on return."""
    assert len(identity.cluster_id) == 16 and identity.node_id
    data = _IDENTITY.pack(_IDENTITY_MAGIC, FORMAT, *identity, 0)[:-4]
    disk.close(write_renamed(disk, IDENTITY_NAME, data + _CRC.pack(crc32(data))))


def read_identity(disk) -> Identity | None:
    """None where the directory has no history. Raises CorruptFileError."""
    if not disk.exists(IDENTITY_NAME):
        return None
    handle = disk.open(IDENTITY_NAME)
    data = disk.read_at(handle, 0, IDENTITY_BYTES + 1)
    disk.close(handle)
    return decode_identity(data, disk.path(IDENTITY_NAME))


def decode_identity(data: bytes, path: str) -> Identity:
    """The file's values. Raises CorruptFileError, StorageError for another format."""
    refuse_older(data, _IDENTITY_MAGIC, path)
    if len(data) != IDENTITY_BYTES:
        raise CorruptFileError(path, min(len(data), IDENTITY_BYTES),
                               f"the file must be {IDENTITY_BYTES} bytes long")
    magic, file_format, cluster_id, node_id, checksum = _IDENTITY.unpack(data)
    if magic != _IDENTITY_MAGIC or crc32(data[:-4]) != checksum:
        raise CorruptFileError(path, 0, "the checksum does not match")
    check_format(file_format, path)
    return Identity(cluster_id, node_id)


def check_format(file_format: int, path: str) -> None:
    """Refuse the undamaged file of another program version: no damage, so no DamagedError."""
    if file_format != FORMAT:
        raise StorageError(f"{path}: has format {file_format}, this program reads {FORMAT}: "
                           "start the program version that wrote it")


def refuse_older(data: bytes, magic: bytes, path: str) -> None:
    """The same for an older format, before anything else is looked at: such a file has another
    length, and its checksum stands elsewhere. One flipped bit makes no 1 of this format."""
    if len(data) >= _LEAD.size:
        found_magic, file_format = _LEAD.unpack_from(data)
        if found_magic == magic and 1 <= file_format < FORMAT:
            check_format(file_format, path)


def write_renamed(disk, name: str, data: bytes) -> int:
    """Put a whole file in place so that a crash leaves the old one or this one; durable on return.

    Returns its handle, still open.
    """
    handle = disk.open(name + NEW_SUFFIX)
    try:
        disk.truncate(handle, 0)
        disk.write_at(handle, 0, data)
        disk.sync(handle)
        disk.rename(name + NEW_SUFFIX, name)
        disk.sync_directory()
    except StorageError:
        disk.close(handle)
        raise
    return handle
