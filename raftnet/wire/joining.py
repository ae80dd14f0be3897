"""The bodies of the frames about who belongs to the cluster (protocol.md, Joining, Changes): JOIN,
INVITE, CHANGE and their replies.

Rules: as in requests.py, whose strings these are: struct only; every decoder raises MalformedError
on anything that is not exactly the layout. What a change does: raftnet/raft/membership.py.
"""

import struct

from raftnet.errors import MalformedError
from raftnet.wire.requests import check_end, pack_string, unpack_head, unpack_strings, unpack_string

JOIN_STAYS, JOIN_RETURNING = 1, 2
CHANGE_REMOVE, CHANGE_TRANSFER, CHANGE_SET = 1, 2, 3
CHANGE_ADDRESSES_MAX = 1_000

_JOIN = struct.Struct(">QB")
_INVITE = struct.Struct(">16sB")
_CHANGE = struct.Struct(">BH")
_U64 = struct.Struct(">Q")


def encode_join(node_id: int, address: str, flags: int = 0) -> bytes:
    """Body of JOIN: a node asks the leader to be taken in, or (a member) to be known at a new
    address. `flags`: JOIN_STAYS, as a learner that stays one; JOIN_RETURNING, only where that
    address is a member's."""
    return _JOIN.pack(node_id, flags) + pack_string(address)


def decode_join(body: bytes) -> tuple[int, str, int]:
    """(node id, address, flags); raises MalformedError."""
    node_id, flags = unpack_head(_JOIN, body, "JOIN")
    address, end = unpack_string(body, _JOIN.size)
    check_end(end, body, "JOIN")
    if node_id == 0 or not address:
        raise MalformedError("JOIN: a node id and an address are needed")
    if flags & ~(JOIN_STAYS | JOIN_RETURNING):
        raise MalformedError(f"JOIN: flags {flags} are unknown")
    return node_id, address, flags


def encode_join_reply(cluster_id: bytes) -> bytes:
    """Body of JOIN_REPLY: the entry that takes the node in is committed."""
    return cluster_id


def decode_join_reply(body: bytes) -> bytes:
    """The cluster id; raises MalformedError."""
    if len(body) != 16:
        raise MalformedError("JOIN_REPLY: 16 bytes are needed")
    return body


def encode_invite(cluster_id: bytes, contact: str, flags: int = 0) -> bytes:
    """Body of INVITE: an empty node is to ask `contact` to be taken into that cluster.
    `flags`: JOIN_STAYS."""
    return _INVITE.pack(cluster_id, flags) + pack_string(contact)


def decode_invite(body: bytes) -> tuple[bytes, str, int]:
    """(cluster id, contact's address, flags); raises MalformedError."""
    cluster_id, flags = unpack_head(_INVITE, body, "INVITE")
    contact, end = unpack_string(body, _INVITE.size)
    check_end(end, body, "INVITE")
    if not contact or flags & ~JOIN_STAYS:
        raise MalformedError("INVITE: a contact, and no flag but 1, are needed")
    return cluster_id, contact, flags


def encode_invite_reply(node_id: int) -> bytes:
    """Body of INVITE_REPLY: that node asks to be taken in now, or is a member already."""
    return _U64.pack(node_id)


def decode_invite_reply(body: bytes) -> int:
    """The node id; raises MalformedError."""
    (node_id,) = unpack_head(_U64, body, "INVITE_REPLY")
    check_end(8, body, "INVITE_REPLY")
    return node_id


def encode_change(operation: int, addresses: list[str]) -> bytes:
    """Body of CHANGE: CHANGE_REMOVE (one address, or the 16 hex digits of a node id),
    CHANGE_TRANSFER (one address) or CHANGE_SET (all members that there are to be)."""
    return _CHANGE.pack(operation, len(addresses)) + b"".join(map(pack_string, addresses))


def decode_change(body: bytes) -> tuple[int, list[str]]:
    """(operation, addresses); raises MalformedError."""
    operation, count = unpack_head(_CHANGE, body, "CHANGE")
    addresses, end = unpack_strings(body, 1, "CHANGE")
    check_end(end, body, "CHANGE")
    if operation not in (CHANGE_REMOVE, CHANGE_TRANSFER, CHANGE_SET):
        raise MalformedError(f"CHANGE: operation {operation} is unknown")
    if not 1 <= count <= CHANGE_ADDRESSES_MAX or (operation != CHANGE_SET and count != 1):
        raise MalformedError(f"CHANGE: {count} addresses cannot be")
    return operation, addresses


def encode_change_reply(index: int, text: str) -> bytes:
    """Body of CHANGE_REPLY: the entry that did it (0: none was needed), and what was done."""
    return _U64.pack(index) + pack_string(text)


def decode_change_reply(body: bytes) -> tuple[int, str]:
    """(index, text); raises MalformedError."""
    (index,) = unpack_head(_U64, body, "CHANGE_REPLY")
    text, end = unpack_string(body, 8)
    check_end(end, body, "CHANGE_REPLY")
    return index, text
