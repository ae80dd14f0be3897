"""Files of a data directory as text: the log, and term, vote and identity.

Rules: opened for reading only and never locked, so that a running node's files may be looked at;
the file is read up to the size that it had at the beginning. Damage is a CorruptFileError with path
and offset, after the lines of everything before it. Layouts: raftnet/storage/records.py,
metafile.py.
"""

import os
import time
from array import array
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from raftnet.client.entries import entry_lines
from raftnet.errors import CorruptFileError
from raftnet.raft.entry import EntryKind
from raftnet.raft.membership import Membership, decode_membership
from raftnet.storage.logfile import LOG_NAME
from raftnet.storage.metafile import (IDENTITY_BYTES, IDENTITY_NAME, META_NAME, SLOT_BYTES,
                                      SLOT_OFFSETS, Identity, decode_identity, decode_slot)
from raftnet.storage.records import (HEADER_BYTES, PREFIX_BYTES, Read, decode_header, find_voucher,
                                     scan_records)
from raftnet.storage.snapshot import SNAPSHOT_NAME, read_header

INDENT = "    "
_WRITING_S = 0.2            # a record that is being written is whole after this
_WRITING_TRIES = 5


def log_lines(path: str) -> Iterator[str]:
    """Every record of the log file, or of the log in the data directory, and its commands."""
    path = os.path.join(path, LOG_NAME) if os.path.isdir(path) else path
    with open(path, "rb") as file:
        read, size = _reader(file), os.fstat(file.fileno()).st_size
        base_index, base_term, node_id = decode_header(read(0, HEADER_BYTES), path)
        yield (f"0 header: {path}, {size} bytes, node {node_id:016x}, begins after index "
               f"{base_index} term {base_term}")
        annulled = _annulled(read, size, base_index, path)
        for offset, synced_offset, entry in scan_records(read, size):
            if entry is None:
                yield from _bad_record(file, path, size, offset, synced_offset)
                return
            place = annulled.get(offset)
            if place == 0:
                raise CorruptFileError(path, offset, f"entry {entry.index} of term {entry.term} "
                                       "cannot follow the record before it")
            mark = f" annulled by the record at {place}" if place else ""
            yield (f"{offset} index {entry.index} term {entry.term} "
                   f"{EntryKind(entry.kind).name.lower()} synced {synced_offset} bytes "
                   f"{PREFIX_BYTES + len(entry.data)}{mark}")
            for line in entry_lines(entry):
                yield INDENT + line


def last_membership(path: str) -> Membership | None:
    """The newest membership in a data directory, of the log or else of the snapshot; None where
    there is none to read."""
    membership = _snapshot_membership(os.path.join(path, SNAPSHOT_NAME))
    path = os.path.join(path, LOG_NAME)
    if not os.path.exists(path):
        return membership
    with open(path, "rb") as file:
        read, size = _reader(file), os.fstat(file.fileno()).st_size
        decode_header(read(0, HEADER_BYTES), path)
        for _, _, entry in scan_records(read, size):
            if entry is not None and entry.kind == EntryKind.MEMBERSHIP:
                membership = decode_membership(entry.payload)
    return membership


def _snapshot_membership(path: str) -> Membership | None:
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return read_header(_reader(file), path).membership


def _reader(file: BinaryIO) -> Read:
    return lambda offset, count: os.pread(file.fileno(), count, offset)


def _annulled(read: Read, size: int, base_index: int, path: str) -> dict[int, int]:
    """By offset: where the record is that annuls the one there; 0 for one that cannot follow."""
    found: dict[int, int] = {}
    # Of the current records, by index.
    offsets, terms, checksums = array("Q"), array("Q"), array("Q")
    for offset, _, entry in scan_records(read, size):
        if entry is None:
            break
        place = entry.index - base_index - 1
        checksum = crc32(entry.data)
        if not 0 <= place <= len(terms) or place and terms[place - 1] > entry.term or (
                # The same entry again is right: it annuls what follows it.
                place < len(terms) and terms[place] == entry.term
                and checksums[place] != checksum):
            found[offset] = 0
            break
        for replaced in offsets[place:]:
            found[replaced] = offset
        for column, value in ((offsets, offset), (terms, entry.term), (checksums, checksum)):
            del column[place:]
            column.append(value)
    return found


def _bad_record(file: BinaryIO, path: str, size: int, offset: int, reason: str) -> Iterator[str]:
    """What is no record at `offset`: a record being written, a torn tail, or damage."""
    voucher = find_voucher(_reader(file), size, offset)
    if voucher is not None:
        raise CorruptFileError(path, offset, f"{reason}; the record at byte {voucher} shows that "
                               "these bytes were once durable")
    for _ in range(_WRITING_TRIES):
        size_now = os.fstat(file.fileno()).st_size
        _, _, entry = next(scan_records(_reader(file), size_now, offset), (0, 0, None))
        if entry is not None or size_now <= offset:
            yield f"{offset} being written: the node runs, look again for what follows"
            return
        time.sleep(_WRITING_S)
    raise CorruptFileError(path, offset, f"{reason}; {size - offset} bytes from there on are a "
                           "torn tail, which the next start cuts, or damage in the last write")


def meta_lines(path: str) -> Iterator[str]:
    """Both copies of term and vote; for a data directory its identity too."""
    directory = path if os.path.isdir(path) else None
    path = os.path.join(path, META_NAME) if directory else path
    damaged = None
    with open(path, "rb") as file:
        for offset in SLOT_OFFSETS:
            state = decode_slot(os.pread(file.fileno(), SLOT_BYTES, offset), path)
            if state is None:
                yield f"{offset} damaged: the checksum does not match"
                damaged = damaged or CorruptFileError(
                    path, offset, "this copy of term and vote is not valid")
                continue
            vote = f"{state.voted_for:016x}" if state.voted_for else "nobody"
            yield (f"{offset} change {state.sequence} term {state.current_term} voted for {vote} "
                   f"node {state.node_id:016x} start {state.boot} log up to index "
                   f"{state.floor_index} term {state.floor_term} at least")
    if directory is not None:
        identity = read_identity_file(directory)
        yield "identity: none, the directory has no history" if identity is None else (
            f"identity: cluster {identity.cluster_id.hex()} node {identity.node_id:016x}")
    if damaged is not None:
        raise damaged


def read_identity_file(directory: str) -> Identity | None:
    """Whose directory it is; None where it has no history. Raises CorruptFileError."""
    path = os.path.join(directory, IDENTITY_NAME)
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return decode_identity(file.read(IDENTITY_BYTES + 1), path)
