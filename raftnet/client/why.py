"""`why`: from what every node says of itself to findings in plain words, each with what to do.

`look_around` asks, `explain` is a pure function from one look, or two, to findings, the most
important first. Rules: what may be only on its way (something not yet committed, a node that is
behind) is wrong after one look, and with a second look only if nothing has moved. A finding that is
not `wrong` is worth knowing while nothing stands still. Here are the rules about what stops a
cluster as a whole; those about single nodes: laggards.py. What a look shows: picture.py.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from raftnet.client import laggards
from raftnet.client.connection import clock
from raftnet.client.link import ask_node
from raftnet.client.picture import Finding, Look, Picture
from raftnet.client.statusview import NODES_ASKED_AT_ONCE, ask_all, start_command
from raftnet.errors import NoAnswerError, RefusedError
from raftnet.raft.membership import QUORUM_RULE_NAMES, QuorumRule, quorum
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind
from raftnet.wire.requests import MemberStatus, NodeStatus

PAIRS_SHOWN_MAX = 6
_RESTORE = "node.py --restore, see README.md, Backup and restore"


# --- looking


def look_around(servers: list[str], timeout_s: float, deadline: float = math.inf) -> Look:
    """Ask the servers, and every node that they name, each within that time, and no longer than
    until `deadline`."""
    found = ask_all(servers, timeout_s, True, deadline)
    outside = [address for address, status in found.items() if isinstance(status, NodeStatus)
               and status.role in ("founding", "joining")]
    said = {}
    if outside:
        with ThreadPoolExecutor(min(len(outside), NODES_ASKED_AT_ONCE)) as pool:
            until = min(clock() + timeout_s, deadline)
            said = dict(zip(outside, pool.map(lambda a: _ask_reason(a, until), outside)))
    return Look(list(servers), found, said)


def _ask_reason(address: str, deadline: float) -> str:
    """What a node that does not belong to a cluster yet waits for: it refuses reads with that."""
    body = requests.encode_read(False, commands.encode_size(b"default"))
    try:
        ask_node(address, Kind.READ, body, Kind.READ_REPLY, deadline)
    except RefusedError as error:
        return str(error).removeprefix(f"{address}: NOT_LEADER: ")
    except NoAnswerError as error:
        return str(error)
    return "it has just begun to serve"


# --- explaining


def explain(look: Look, earlier: Look | None = None) -> list[Finding]:
    """What is wrong, the most important first; or that nothing stands still."""
    now = Picture(look)
    before = Picture(earlier) if earlier is not None else None
    if not look.answered:
        return [_nobody(look)]
    findings = [finding for rule in _RULES for finding in rule(now, before)]
    findings.sort(key=lambda finding: not finding.wrong)        # stable: the rules' order stays
    if not any(finding.wrong for finding in findings):
        findings.insert(0, _all_well(now))
    return findings


def _nobody(look: Look) -> Finding:
    reasons = "; ".join(map(str, look.found.values()))
    first = next(iter(look.found), "ADDRESS")
    return Finding("nobody_answers", f"no node answers: {reasons}",
                   f"Start the nodes, each on its machine: {start_command(first)}, and so on; or "
                   "name those that run with -s")


def _all_well(now: Picture) -> Finding:
    leader = now.leader
    if leader is None:
        return Finding("all_well", "nothing stands still", wrong=False)
    heard = len(now.heard_voters)
    return Finding("all_well", f"nothing stands still: {leader.address} leads in term "
                   f"{leader.term}, {heard} of {len(now.voters)} voters are heard, "
                   f"{laggards.may_fail(now)}; {leader.commit_index:,} entries are committed",
                   wrong=False, address=leader.address)


def _names(members: list[MemberStatus]) -> str:
    return ", ".join(member.address for member in members)


def _digests(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Equal entries, different states: the worst that can be."""
    seen: dict[int, NodeStatus] = {}
    for status in now.nodes.values():
        other = seen.setdefault(status.applied_index, status)
        if other.digest != status.digest:
            yield Finding("states_differ", f"{other.address} and {status.address} have applied the "
                          f"same {status.applied_index:,} entries and hold different states "
                          f"(digests {other.digest:08x} and {status.digest:08x})",
                          "Stop the clients, keep both data directories, and compare the nodes' "
                          "versions and logs", address=status.address)


def _same_identity(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Two processes that say they are one node."""
    for node_id, addresses in now.claimed.items():
        if len(addresses) > 1:
            yield Finding("one_node_twice", f"the processes at {' and '.join(addresses)} claim to "
                          f"be the same node {node_id:016x}: one has a copy of the other's data "
                          "directory", "Stop the copy, empty its data directory, and add it as a "
                          f"new node: mqclient.py add {addresses[-1]}", address=addresses[-1])


def _founding(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Founders that wait for others."""
    view = now.view
    for address, status in now.look.answered.items():
        if status.role == "founding" and view is None:
            said = now.look.said.get(address, "it waits for the other founders")
            yield Finding("founding_waits", f"{address} founds a cluster and has not met all "
                          f"founders: {said}", "Start those, each with the same --cluster list; "
                          "if they run, their lists or quorum rules differ, and their logs say so",
                          address=address)
    if view is not None and not view.founded:
        absent = [member for member in view.members if not now.runs(member)]
        text = f"; still to be heard: {_names(absent)}" if absent else ""
        yield Finding("founding_incomplete", "the founding is not complete: clients are served "
                      f"once every founder has acknowledged it{text}",
                      "Start the missing founders with the same --cluster list" if absent else
                      "All founders answer: ask again in a moment")


def _no_quorum(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Too few voters run; or so many lost what they held that there can be no quorum any more."""
    healing = laggards.healing_nodes(now)
    if now.view is None and healing:
        yield _only_healing(now, healing)
    if now.view is None or len(now.running_voters) >= now.needed:
        return
    rule = ""
    if now.view.quorum_rule != QuorumRule.MAJORITY:
        majority = quorum(len(now.voters), QuorumRule.MAJORITY)
        rule = (f" (by the quorum rule {QUORUM_RULE_NAMES[now.view.quorum_rule]}, chosen at the "
                f"founding; a majority would be {majority})")
    lost = laggards.lost_voters(now)
    left = len(now.voters) - len(lost)
    if left < now.needed:
        best = max(now.nodes.values(), key=lambda s: (s.commit_index, s.last_index),
                   default=now.view)
        absent = [m for m in now.voters if not now.runs(m) and m not in lost]
        more = f" ({_names(absent)}, not running, may hold more)" if absent else ""
        yield Finding("quorum_lost", f"no leader is possible any more: of {len(now.voters)} "
                      f"voters, {len(lost)} set damaged files aside ({_names(lost)}); left with "
                      f"what they held: {left}, needed: {now.needed}{rule}", "The way out is a new "
                      f"cluster, out of a backup or of all that {best.address} holds, once that is "
                      f"stopped{more}: {_RESTORE}", address=lost[0].address)
        return
    missing = [member for member in now.voters if not now.runs(member) and member not in lost]
    count = now.needed - len(now.running_voters)
    who = "; ".join(f"{member.address} ({now.why_missing(member)})" for member in missing)
    yield Finding("no_quorum", f"no quorum: {len(now.running_voters)} of {len(now.voters)} voters "
                  f"run and {now.needed} are needed{rule}, so nothing is committed; missing: {who}",
                  f"Start {count} more of them, with the data directories that they had: "
                  f"{start_command(missing[0].address)}", address=missing[0].address)


def _only_healing(now: Picture, healing: dict[str, NodeStatus]) -> Finding:
    """Nobody who answers belongs to a cluster, and some did."""
    contacts = dict.fromkeys(contact for status in healing.values()
                             for contact in status.healing_contacts)
    silent = [contact for contact in contacts
              if not isinstance(now.look.found.get(contact), NodeStatus)]
    text = (f"no leader is possible among those that answer: {', '.join(healing)} set damaged "
            "files aside to be taken in again, and nobody who answers belongs to the cluster")
    if not silent:
        return Finding("quorum_lost", text, f"The way out is a new cluster, out of a backup: "
                       f"{_RESTORE}", address=next(iter(healing)))
    reasons = ", ".join(f"{contact} ({now.reason(contact)})" for contact in silent)
    return Finding("quorum_lost", f"{text}; no answer from {reasons}", "Start those that still "
                   f"hold its data: {start_command(silent[0])}. If there are too few of them for a "
                   f"quorum, the way out is a new cluster, out of a backup or of what one of them "
                   f"holds: {_RESTORE}", address=silent[0])


def _no_leader(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """A quorum runs, and nobody leads, or not for this client."""
    if now.view is None or now.leader is not None or len(now.running_voters) < now.needed:
        return
    hidden = now.hidden_leader
    if hidden is not None:
        yield Finding("leader_unreachable", f"{hidden.address} leads, as the others say, but does "
                      f"not answer this client: {now.reason(hidden.address)}", "Clear the way from "
                      "here to it, or have another node lead from where it can be reached: "
                      "mqclient.py transfer ADDRESS", address=hidden.address)
        return
    pairs = now.deaf_pairs
    terms = ", ".join(f"{node.address} in term {node.term}" for node in now.nodes.values())
    text = (f"no leader, though {len(now.running_voters)} of {len(now.voters)} voters run and "
            f"{now.needed} are enough ({terms})")
    if pairs:
        shown = ", ".join(f"{a} does not hear {b}" for a, b in pairs[:PAIRS_SHOWN_MAX])
        more = f" and {len(pairs) - PAIRS_SHOWN_MAX} more" if len(pairs) > PAIRS_SHOWN_MAX else ""
        yield Finding("no_leader", f"{text}: {shown}{more}",
                      "Look at the network, and the firewalls, between those machines")
    else:
        advice = ("An election may be under way: ask again in a few seconds. If it stays so, the "
                  "nodes' logs say who asks whom for votes, and whether a disk is overdue")
        full = [node.address for node in now.nodes.values() if node.disk_full]
        if full:
            advice = ("A node whose disk is full stands for no election: free space at "
                      f"{', '.join(full)}")
        yield Finding("no_leader", text, advice)


def _strangers(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Who answers where another was expected."""
    for address, status in now.strangers.items():
        member = now.member_at(address)
        where = f"at the address of member {address}" if member else f"at {address}"
        cluster = now.view.cluster_id.hex()[:8]
        if len(status.members) <= 1:
            yield Finding("lone_founder", f"{where} answers a node that founded a cluster of its "
                          f"own ({status.cluster_id.hex()[:8]}), not one of cluster {cluster}",
                          "It comes in by itself if it was this cluster's and holds nothing; "
                          "otherwise stop it, and start it with its old data directory, or empty: "
                          f"{start_command(address, now.contact)}", bool(member), address)
        else:
            others = ", ".join(m.address for m in status.members if m.node_id != status.node_id)
            yield Finding("other_cluster", f"{where} answers a node of another cluster: "
                          f"{status.cluster_id.hex()[:8]} (with {others}) instead of {cluster}",
                          "Stop it and start it with its own data directory" if member else
                          "Take it out of the list of servers", True, address)
    for address, status in now.outside.items():
        member = now.member_at(address)
        if member is not None and status.role != "removed" and not status.heals:
            yield Finding("other_node", f"at the address of member {address} (node "
                          f"{member.node_id:016x}) answers node {status.node_id:016x}, "
                          f"{status.role}: the data directory there was emptied or is another's",
                          "An emptied one comes in by itself as a new node. Otherwise stop it, and "
                          f"start it with the directory it had: {start_command(address)}",
                          address=address)
    for member, status in now.moved:
        yield Finding("moved", f"member {member.address} runs at {status.address} now (node "
                      f"{member.node_id:016x}), and the members do not say so yet",
                      "The leader learns it from the node itself: start it with "
                      f"{start_command(status.address, now.contact)} if it stays so",
                      address=status.address)


_RULES = (_digests, _same_identity, _founding, _no_quorum, _no_leader, _strangers, *laggards.RULES)
