"""Faults of disks and files: slow, hung, full and failing ones, and damage to what was synced.

Rules: damage is done to fewer nodes than would cost the quorum (SimulatedCluster.may_lose), one
file at a time, and only such as the program promises to notice (protocol.md, Torn tail or damage).
Not noticed can be: what happens to the records of the log's very last batch, and a log that is cut
behind the entry that `meta` names as durable; files of a directory without identity, which has no
history yet. Any other is named and healed, or costs nothing: which of the two is the invariants'
to judge (promises.py).
"""

from raftnet.simulation.diskwork import DiskProfile
from raftnet.simulation.node import SimulatedNode
from raftnet.storage.damage import HEALING_NAME
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.metafile import (
    IDENTITY_NAME, META_NAME, SLOT_BYTES, SLOT_OFFSETS, decode_slot)
from raftnet.storage.records import HEADER_BYTES, PREFIX_BYTES, decode_header, scan_records
from raftnet.storage.snapshot import RECEIVED_NAME, SNAPSHOT_NAME

_SLOW_DISK_MS_MAX = 2_000
_HUNG_DISK_MS = 10_000
_LONG_MS_MIN, _LONG_MS_MAX = 5_000, 20_000
_ROOM_MAX = 30_000              # bytes left on a disk that stays full for long
_BLOCK_BYTES = (64, 512, 4_096)
_NAMES = (LOG_NAME, LOG_NAME, SNAPSHOT_NAME, SNAPSHOT_NAME, META_NAME, IDENTITY_NAME, HEALING_NAME)


class DiskFaults:
    """A method for each fault, of the node at which it happens."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._chosen = cluster.chosen

    def _after(self, low_ms: int, high_ms: int, event) -> None:
        self._scheduler.after(self._scheduler.randint(low_ms, high_ms), event)

    # --- the disk

    def slow_disk(self, node: SimulatedNode) -> None:
        """Each job takes long."""
        node.disk_profile = DiskProfile(0, self._scheduler.randint(1, _SLOW_DISK_MS_MAX))
        self._after(100, 6_000, lambda: setattr(node, "disk_profile", DiskProfile()))

    def hung_disk(self, node: SimulatedNode) -> None:
        """Longer than any leader may wait."""
        node.disk_profile = DiskProfile(_HUNG_DISK_MS, _HUNG_DISK_MS)
        self._after(100, 4_000, lambda: setattr(node, "disk_profile", DiskProfile()))

    def full_disk(self, node: SimulatedNode) -> None:
        """For a while; soon or at once."""
        node.disk.bytes_left = self._scheduler.randint(0, 2_000)
        self._after(100, 5_000, lambda: setattr(node.disk, "full", False))

    def long_full_disk(self, node: SimulatedNode) -> None:
        """So long that snapshots and installs meet it; there may be room for one of them."""
        disk = node.disk
        disk.bytes_left = self._chosen.randint(0, _ROOM_MAX)
        self._scheduler.after(self._chosen.randint(_LONG_MS_MIN, _LONG_MS_MAX),
                              lambda: setattr(disk, "full", False))

    def failing_disk(self, node: SimulatedNode) -> None:
        """One operation of those to come."""
        node.disk.fail_at(self._scheduler.randint(1, 50), self._scheduler.chance(50))

    # --- damage

    def bit_flip(self, node: SimulatedNode) -> None:
        """One bit of the log or of meta changes while the node is down."""
        name = (LOG_NAME, META_NAME)[self._scheduler.randint(0, 1)]
        self._damage(node, name, self._flip)

    def damage(self, node: SimulatedNode) -> None:
        """Any of its files is damaged in one of many ways while it is down."""
        how = self._chosen.choice((self._flip, self._overwrite, self._zero, self._zero, self._cut,
                                   self._empty, self._lose, self._exchange))
        files = node.disk.list()
        self._damage(node, self._chosen.choice([n for n in _NAMES if n in files]), how)

    def spoil_received(self, node: SimulatedNode) -> None:
        """A byte of a snapshot that comes changes where it lies: it must not be used."""
        if RECEIVED_NAME in node.disk.list() and (size := len(node.disk.get(RECEIVED_NAME))):
            self._cluster.note(node.address, f"its {RECEIVED_NAME}: a byte changes")
            node.disk.spoil(RECEIVED_NAME, self._chosen.randrange(size))

    def _damage(self, node: SimulatedNode, name: str, how) -> None:
        if node.old_copy or not self._cluster.may_lose(node):
            return
        node.crash(power_loss=True)
        files = node.disk.list()
        if name in files and (IDENTITY_NAME in files or name == HEALING_NAME):
            what = how(node, name, bytearray(node.disk.get(name)))
            if what:
                self._cluster.note(node.address, f"its {name}: {what}")
                node.damaged = True

    def _flip(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        """One bit."""
        position = self._chosen.randrange(max(1, _certain_bytes(name, data)))
        data[position] ^= 1 << self._chosen.randrange(8)
        node.disk.put(name, bytes(data))
        return f"a bit of byte {position} is flipped"

    def _overwrite(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        """Some bytes with any others."""
        return self._replace(node, name, data, self._chosen.randbytes(self._chosen.randint(1, 30)))

    def _zero(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        """A block with zeros."""
        return self._replace(node, name, data, bytes(self._chosen.choice(_BLOCK_BYTES)))

    def _replace(self, node: SimulatedNode, name: str, data: bytearray, new: bytes) -> str:
        end = _certain_bytes(name, data)
        start = self._chosen.randrange(max(1, end))
        new = new[:end - start]
        data[start:start + len(new)] = new
        node.disk.put(name, bytes(data))
        return f"{len(new)} bytes from {start} on are others"

    def _cut(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        end = _floor_end(node, data) if name == LOG_NAME else len(data)
        size = self._chosen.randrange(max(1, end))
        node.disk.put(name, bytes(data[:size]))
        return f"it is cut from {len(data)} to {size} bytes"

    def _empty(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        node.disk.put(name, b"")
        return "it is emptied"

    def _lose(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        if name == IDENTITY_NAME and not _shows_history(node):
            return ""
        node.disk.lose(name)
        return "it is gone"

    def _exchange(self, node: SimulatedNode, name: str, data: bytearray) -> str:
        """With another node's; the other one keeps its own."""
        others = [other for other in self._cluster.nodes.values()
                  if other.node_id != node.node_id and not other.old_copy
                  and name in other.disk.list() and name != HEALING_NAME]
        if not others:
            return ""
        other = self._chosen.choice(others)
        node.disk.put(name, other.disk.get(name))
        return f"it is that of {other.address}"


def _certain_bytes(name: str, data: bytearray) -> int:
    """How much of the file is known synced from itself."""
    if name != LOG_NAME:
        return len(data)
    synced = HEADER_BYTES
    for _, synced_offset, entry in _records(data):
        if entry is not None:
            synced = max(synced, synced_offset)
    return synced


def _records(data: bytearray):
    return scan_records(lambda offset, count: bytes(data[offset:offset + count]), len(data))


def _floor_end(node: SimulatedNode, data: bytearray) -> int:
    """Of a log: cut before this byte, it ends below the floor in meta."""
    meta = node.disk.get(META_NAME)
    states = [decode_slot(meta[offset:offset + SLOT_BYTES], META_NAME) for offset in SLOT_OFFSETS]
    floor = min((state.floor_term, state.floor_index) for state in states if state is not None)
    header = decode_header(bytes(data[:HEADER_BYTES]), LOG_NAME)
    if (header.base_term, header.base_index) < floor:
        for offset, _, entry in _records(data):
            if entry is not None and (entry.term, entry.index) >= floor:
                return offset + PREFIX_BYTES
    return HEADER_BYTES


def _shows_history(node: SimulatedNode) -> bool:
    """Whether, without its identity, the directory shows that it had one."""
    data = bytearray(node.disk.get(LOG_NAME)) if LOG_NAME in node.disk.list() else bytearray()
    return SNAPSHOT_NAME in node.disk.list() or sum(1 for _ in _records(data)) > 1
