"""`status` and `members`: every node asked directly, at the same time; tables and JSON.

The keys of the JSON form are fixed: other programs read them. A node that did not answer has null
for what only it knows.
"""

from concurrent.futures import ThreadPoolExecutor

from raftnet.client.connection import clock
from raftnet.client.link import ask_node
from raftnet.errors import RaftnetError
from raftnet.wire.frames import Kind
from raftnet.wire.requests import (UNKNOWN_AGE, MemberStatus, NodeStatus, decode_status)

NODES_ASKED_AT_ONCE = 32
# `role` has four values outside; what a node does before it belongs to a cluster is `state`
_ROLE_OUTSIDE = {"joining": "learner", "founding": "follower"}


def ask_all(addresses: list[str], timeout_s: float, follow: bool) -> dict[str, NodeStatus | str]:
    """Each node's status, or why there is none. With `follow`, the members that they name too."""
    found: dict[str, NodeStatus | str] = {}
    wanted = list(dict.fromkeys(addresses))
    while wanted:
        with ThreadPoolExecutor(min(len(wanted), NODES_ASKED_AT_ONCE)) as pool:
            found.update(zip(wanted, pool.map(lambda address: _ask(address, timeout_s), wanted)))
        named = [member.address for status in found.values() if isinstance(status, NodeStatus)
                 for member in status.members]
        wanted = [a for a in dict.fromkeys(named) if a not in found] if follow else []
    return found


def _ask(address: str, timeout_s: float) -> NodeStatus | str:
    try:
        return decode_status(
            ask_node(address, Kind.STATUS, b"", Kind.STATUS_REPLY, clock() + timeout_s))
    except RaftnetError as error:
        return str(error)


def status_object(found: dict[str, NodeStatus | str]) -> dict:
    """The object of `status --json`."""
    answered = [status for status in found.values() if isinstance(status, NodeStatus)]
    term = max((status.term for status in answered), default=0)
    newest = [status for status in answered if status.term == term]
    leading = [status.address for status in newest if status.role == "leader"]
    leading += [status.leader for status in newest if status.leader]
    leader = leading[0] if leading else None
    # the leader's view of the members first, then whoever knows any
    views = sorted(answered, key=lambda s: (s.address != leader, -s.term))
    nodes = []
    for address, status in found.items():
        member = next((member for view in views for member in view.members
                       if member.address == address), None)
        nodes.append(_node_object(address, status, member))
    commit = max((status.commit_index for status in answered), default=0)
    for node in nodes:
        node["lag"] = None if node["applied_index"] is None else commit - node["applied_index"]
    return {"leader": leader, "term": term, "nodes": nodes}


def _node_object(address: str, status: NodeStatus | str, member: MemberStatus | None) -> dict:
    node = {
        "address": address,
        "node_id": f"{member.node_id:016x}" if member else None,
        "cluster_id": None, "role": None, "term": None, "leader": None, "commit_index": None,
        "applied_index": None, "last_index": None, "snapshot_index": None, "digest": None,
        "voter": member.voter if member else None,
        "reachable": False,
    }
    if not isinstance(status, NodeStatus):
        return node | {"error": status}
    return node | {
        "node_id": f"{status.node_id:016x}",
        "cluster_id": status.cluster_id.hex() if any(status.cluster_id) else None,
        "role": _ROLE_OUTSIDE.get(status.role, status.role),
        "state": status.role,
        "term": status.term,
        "leader": status.leader or None,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "last_index": status.last_index,
        "snapshot_index": status.snapshot_index,
        "stable_index": status.stable_index,
        "digest": f"{status.digest:08x}",
        "reachable": True,
        "version": status.version,
    }


def status_lines(view: dict) -> list[str]:
    """The table of status_object's result."""
    rows = [("ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "LAST", "LAG", "DIGEST", "REACHABLE")]
    for node in view["nodes"]:
        role = node.get("state") or node["role"]
        if node["voter"] is False and role == "follower":
            role = "learner"
        values = (role, node["term"], node["commit_index"], node["applied_index"],
                  node["last_index"], node["lag"], node["digest"])
        rows.append((node["address"], *("-" if value is None else str(value) for value in values),
                     "yes" if node["reachable"] else "no"))
    return table(rows)


def members_object(members: list[MemberStatus]) -> list[dict]:
    """The list of `members --json`."""
    return [{"address": member.address, "node_id": f"{member.node_id:016x}",
             "voter": member.voter, "reachable": member.reachable,
             "match_index": member.match_index,
             "silent_ms": None if member.silent_ms == UNKNOWN_AGE else member.silent_ms}
            for member in members]


def members_lines(members: list[dict], leader: str) -> list[str]:
    """The table of members_object's result."""
    rows = [("ADDRESS", "NODE", "KIND", "MATCH", "SILENT", "REACHABLE")]
    for member in members:
        kind = "voter" if member["voter"] else "learner"
        silent = "-" if member["silent_ms"] is None else f"{member['silent_ms']} ms"
        if member["address"] == leader:
            kind += ", leader"
        rows.append((member["address"], member["node_id"], kind, str(member["match_index"]),
                     silent, "yes" if member["reachable"] else "no"))
    return table(rows)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]
