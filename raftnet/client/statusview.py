"""`status` and `members`: every node asked directly, at the same time; tables, JSON and texts.

The keys of the JSON form are fixed: other programs read them. A node that did not answer has null
for what only it knows.
"""

import math
from concurrent.futures import ThreadPoolExecutor

from raftnet.client.connection import clock
from raftnet.client.link import ask_node
from raftnet.client.output import size_text
from raftnet.errors import RaftnetError
from raftnet.wire.frames import Kind
from raftnet.wire.requests import (UNKNOWN_AGE, MemberStatus, NodeStatus, decode_status)

NODES_ASKED_AT_ONCE = 32
# `role` has four values outside; what a node does before it belongs to a cluster, or when it no
# longer does, is `state`
_ROLE_OUTSIDE = {"joining": "learner", "founding": "follower", "removed": "learner"}


def ask_all(addresses: list[str], timeout_s: float, follow: bool,
            deadline: float = math.inf) -> dict[str, NodeStatus | str]:
    """Each node's status, or why there is none. With `follow`, also the nodes that they name:
    members, what `members --set` asked for, and whom nodes without a cluster come back to. Each has
    that time, and no longer than until `deadline`."""
    found: dict[str, NodeStatus | str] = {}
    wanted = list(dict.fromkeys(addresses))
    while wanted:
        with ThreadPoolExecutor(min(len(wanted), NODES_ASKED_AT_ONCE)) as pool:
            until = min(clock() + timeout_s, deadline)
            found.update(zip(wanted, pool.map(lambda address: _ask(address, until), wanted)))
        answered = [status for status in found.values() if isinstance(status, NodeStatus)]
        named = [member.address for status in answered for member in status.members]
        named += [address for status in answered
                  for address in status.target + status.healing_contacts]
        wanted = [a for a in dict.fromkeys(named) if a not in found] if follow else []
    return found


def _ask(address: str, deadline: float) -> NodeStatus | str:
    try:
        return decode_status(ask_node(address, Kind.STATUS, b"", Kind.STATUS_REPLY, deadline))
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
        nodes.append(_node_object(address, status, _find_member(views, address, status)))
    commit = max((status.commit_index for status in answered), default=0)
    for node in nodes:
        node["lag"] = None if node["applied_index"] is None else commit - node["applied_index"]
    view = views[0] if views else None
    return {"leader": leader, "term": term, "nodes": nodes,
            "membership_index": view.membership_index if view else None,
            "change_under_way": view.membership_index > view.commit_index if view else None,
            "target": view.target if view else None}


def _find_member(views: list[NodeStatus], address: str,
                 status: NodeStatus | str) -> MemberStatus | None:
    """The member that this node is; by its address where it did not say who it is."""
    members = [member for view in views for member in view.members]
    if isinstance(status, NodeStatus):
        found = next((m for m in members if m.node_id == status.node_id), None)
        if found is not None:
            return found
    return next((m for m in members if m.address == address), None)


def _node_object(address: str, status: NodeStatus | str, member: MemberStatus | None) -> dict:
    node = {
        "address": address,
        "node_id": f"{member.node_id:016x}" if member else None,
        "cluster_id": None, "role": None, "term": None, "leader": None, "commit_index": None,
        "applied_index": None, "last_index": None, "snapshot_index": None, "digest": None,
        "voter": member.voter if member else None,
        "stays": member.stays if member else None,
        "silent_ms": _silent_ms(member) if member else None,
        "snapshot_bytes": member.snapshot_bytes if member else None,
        "snapshot_size": member.snapshot_size if member else None,
        "log_bytes": None, "disk_full": None, "note": None, "healing_contacts": None,
        "reachable": False,
    }
    if not isinstance(status, NodeStatus):
        return node | {"error": status}
    if status.snapshot_size and not node["snapshot_size"]:      # no leader's view of it at hand
        node |= {"snapshot_bytes": status.snapshot_bytes, "snapshot_size": status.snapshot_size}
    elif node["snapshot_size"] is None:
        node |= {"snapshot_bytes": 0, "snapshot_size": 0}
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
        "log_bytes": status.log_bytes,
        "disk_full": status.disk_full,
        "note": status.note,
        "healing_contacts": status.healing_contacts,
        "reachable": True,
        "version": status.version,
        "state_version": status.state_version,
        "membership_index": status.membership_index,
        "founded": status.founded,
        "heartbeat_ms": status.heartbeat_ms,
        "election_timeout_ms": status.election_timeout_ms,
        "timing": status.timing,
    }


def _silent_ms(member: MemberStatus) -> int | None:
    """Since the leader, or whoever was asked, last heard it."""
    return _measured(member.silent_ms)


def status_lines(view: dict) -> list[str]:
    """The table of status_object's result."""
    rows = [("ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "LAST", "LAG", "DIGEST", "REACHABLE")]
    for node in view["nodes"]:
        role = node.get("state") or node["role"]
        if node["voter"] is False and role in ("follower", "learner"):
            role = "learner, stays" if node["stays"] else "learner"
        values = (role, node["term"], node["commit_index"], node["applied_index"],
                  node["last_index"], node["lag"], node["digest"])
        rows.append((node["address"], *("-" if value is None else str(value) for value in values),
                     "yes" if node["reachable"] else "no"))
    return table(rows) + timing_lines(view) + _doing_lines(view)


def timing_lines(view: dict) -> list[str]:
    """The leader's times in a line, with the reason; [] where no leader answered."""
    return [f"{node['address']} speaks every {duration(node['heartbeat_ms'])}; followers wait for "
            f"it {node['election_timeout_ms'] / 1000:g} to "
            f"{node['election_timeout_ms'] / 500:g} s ({node['timing']})"
            for node in view["nodes"] if node.get("election_timeout_ms")
            and node["address"] == view["leader"] and node["role"] == "leader"]


def _doing_lines(view: dict) -> list[str]:
    """What nodes do beside their roles, or wait for, a line each."""
    lines = []
    for node in view["nodes"]:
        notes = [node["note"]] if node["note"] else []
        if node["snapshot_size"]:
            notes.append(f"{share_text(node['snapshot_bytes'], node['snapshot_size'])} of the "
                         "snapshot are there")
        if node["disk_full"]:
            notes.append("its disk is full")
        if notes:
            lines.append(f"{node['address']}: {'; '.join(notes)}")
    return lines


def members_object(members: list[MemberStatus]) -> list[dict]:
    """The list of `members --json`."""
    return [{"address": member.address, "node_id": f"{member.node_id:016x}",
             "voter": member.voter, "reachable": member.reachable,
             "match_index": member.match_index, "silent_ms": _silent_ms(member),
             "stays": member.stays, "rtt_ms": _measured(member.rtt_ms),
             "rtt_slow_ms": _measured(member.rtt_slow_ms),
             "loss_permille": member.loss_permille, "snapshot_bytes": member.snapshot_bytes,
             "snapshot_size": member.snapshot_size}
            for member in members]


def _measured(ms: int) -> int | None:
    return None if ms == UNKNOWN_AGE else ms


def _round_trip(member: dict) -> str:
    """`2012 ms (slow 4100 ms, 3 % lost)`."""
    if member["rtt_ms"] is None:
        return "-"
    lost = f", {member['loss_permille'] / 10:g} % lost" if member["loss_permille"] else ""
    return f"{member['rtt_ms']} ms (slow {member['rtt_slow_ms']} ms{lost})"


def members_lines(members: list[dict], leader: str) -> list[str]:
    """The table of members_object's result."""
    rows = [("ADDRESS", "NODE", "KIND", "MATCH", "SILENT", "ROUND TRIP",
             "REACHABLE")]
    for member in members:
        kind = "voter" if member["voter"] else "learner"
        if member["stays"]:
            kind += ", stays"
        silent = "-" if member["silent_ms"] is None else f"{member['silent_ms']} ms"
        reachable = "yes" if member["reachable"] else f"no, {silence(member['silent_ms'])}"
        if member["address"] == leader:
            kind += ", leader"
        rows.append((member["address"], member["node_id"], kind, str(member["match_index"]),
                     silent, _round_trip(member), reachable))
    return table(rows)


def changes_lines(leader: NodeStatus) -> list[str]:
    """What is going on with the members, a line each; [] where nothing is."""
    lines = []
    if leader.membership_index > leader.commit_index:
        lines.append(f"a change of the members is under way: index {leader.membership_index}, "
                     f"committed is {leader.commit_index}")
    lines += [f"{member.address} {sending_text(member)}" for member in leader.members
              if member.snapshot_size]
    if leader.target:
        lines.append(f"asked for by members --set: {', '.join(leader.target)}: "
                     f"{target_text(leader)}")
    return lines


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]


# --- texts for people, shared with changes.py and why.py


def duration(ms: int) -> str:
    """A length of time in the two largest units that it has."""
    if ms < 1_000:
        return f"{ms} ms"
    seconds = ms // 1_000
    for unit, size, below, below_size in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60),
                                          ("min", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // below_size
            return f"{seconds // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds} s"


def silence(silent_ms: int | None) -> str:
    """How long a node was not heard."""
    if silent_ms is None or silent_ms == UNKNOWN_AGE:
        return "never heard since whoever was asked started"
    return f"not heard for {duration(silent_ms)}"


def start_command(address: str, contact: str = "") -> str:
    """The command that starts a node, to be taken in by `contact` where one is given."""
    return f"python3 node.py {address}" + (f" --join {contact}" if contact else "")


def share_text(part: int, whole: int) -> str:
    """`40.0 of 112.0 MB`."""
    part_text, whole_text = size_text(part), size_text(whole)
    if part_text.split()[1] == whole_text.split()[1]:
        part_text = part_text.split()[0]
    return f"{part_text} of {whole_text}"


def sending_text(member: MemberStatus) -> str:
    """How far a member is with the snapshot that the leader sends it."""
    if member.snapshot_bytes >= member.snapshot_size:
        return (f"is behind the log, has all {size_text(member.snapshot_size)} of the snapshot, "
                "and is verifying it")
    return ("is behind the log and is being sent the snapshot: "
            f"{share_text(member.snapshot_bytes, member.snapshot_size)}")


def held_text(member: MemberStatus, leader: NodeStatus) -> str:
    """How many of the leader's entries a member holds."""
    text = f"holds {member.match_index:,} of {leader.last_index:,} entries"
    if member.snapshot_size:
        text += f", {sending_text(member)}"
    return text if member.reachable else f"{text}, and is not heard"


def target_text(leader: NodeStatus) -> str:
    """How far `members --set` is; "" where it is reached, or nothing was asked for."""
    if not leader.target:
        return ""
    parts = []
    for address in leader.target:
        members = [member for member in leader.members if member.address == address]
        if not members:
            parts.append(f"{address} is not taken in yet (if it does not run: "
                         f"{start_command(address, leader.address)})")
        elif not any(member.voter for member in members):
            parts.append(f"{address}: learner, {held_text(members[0], leader)}")
    leaving = [m.address for m in leader.members if m.address not in leader.target]
    if leaving:
        parts.append(f"to be removed{' then' if parts else ''}: {', '.join(leaving)}")
    return "; ".join(parts) or "the last change is not committed yet"
