"""What the commands of mqclient about the cluster itself do: status, members, add, remove,
transfer, snapshot, backup, why. The same form as in actions.py, with the same rules.

Progress of what is waited for goes to stderr, a line about once a second.
"""

import argparse
import time

from raftnet.client import statusview, why as reasons
from raftnet.client.backup import HeldSnapshot
from raftnet.client.changes import Changed
from raftnet.client.client import Client
from raftnet.client.connection import clock
from raftnet.client.output import Output
from raftnet.errors import MalformedError, NoAnswerError, RaftnetError

DONE, REFUSED, NO_ANSWER = 0, 1, 4
STATUS_TIMEOUT_S = 5.0
SECOND_LOOK_S = 1.0         # what moves within it does not stand still
LOOK_PARTS = 4              # of the time limit: two looks, of two rounds of questions mostly


def status(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Ask each node how it is."""
    addresses = arguments.address or client.servers
    found = statusview.ask_all(addresses, min(client.timeout_s, STATUS_TIMEOUT_S),
                               not arguments.address, clock() + client.timeout_s)
    view = statusview.status_object(found)
    if output.as_json:
        output.document(view)
    else:
        output.lines(statusview.status_lines(view))
    for node in view["nodes"]:
        if not node["reachable"]:
            output.say(node["error"])
    return DONE if any(node["reachable"] for node in view["nodes"]) else NO_ANSWER


def members(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Show who belongs to the cluster, as the leader sees it; with --set, change it."""
    if arguments.set is not None:
        return _tell(client.set_members(arguments.set, not arguments.no_wait, output.say), output)
    if arguments.no_wait:
        raise MalformedError("--no-wait belongs to --set")
    leader = client.leader_status()
    found = statusview.members_object(leader.members)
    under_way = statusview.changes_lines(leader)
    if output.as_json:
        output.document(found)
        for line in under_way:
            output.say(line)
    else:
        output.lines(statusview.members_lines(found, leader.address) + under_way)
    return DONE


def add(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Have a running, empty node taken in."""
    return _tell(client.add(arguments.address, arguments.learner, not arguments.no_wait,
                            output.say), output)


def remove(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Remove a member."""
    return _tell(client.remove(arguments.member), output)


def transfer(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Hand the leadership over."""
    return _tell(client.transfer(arguments.address), output)


def _tell(changed: Changed, output: Output) -> int:
    try:
        _print_changed(changed, output)
    except OSError:
        output.say(changed.text)        # it must not be told as if nothing had been done
        raise
    return DONE


def _print_changed(changed: Changed, output: Output) -> None:
    if output.as_json:
        output.document({"done": changed.done, "text": changed.text, "index": changed.index,
                         "node_id": f"{changed.node_id:016x}" if changed.node_id else None,
                         "members": list(changed.members)})
    else:
        output.line(changed.text)


def snapshot(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Have the leader, or each of the named nodes in turn, make a snapshot."""
    found, result = [], DONE
    for address in arguments.address or [None]:
        try:
            held = client.snapshot(address, output.say)
        except RaftnetError as error:
            if len(arguments.address) < 2:
                raise
            output.say(str(error))          # the other nodes are asked all the same
            result = NO_ANSWER if isinstance(error, NoAnswerError) else REFUSED
            continue
        found.append(_snapshot_object(held))
        if not output.as_json:
            output.line(f"{held.address}: {held.text}")
    if output.as_json:
        output.document(found)
    return result


def backup(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Read a snapshot of the running cluster into a file."""
    path, local = arguments.path, arguments.local
    if output.stderr.isatty():
        output.say(f"asking {local or 'the leader'} for a snapshot")
    try:
        held = client.backup(path, local, arguments.force, output.say)
    except NoAnswerError as error:
        if local is not None:
            raise
        raise NoAnswerError(f"{error}; --local ADDRESS saves what that one node has applied",
                            error.known) from error
    if output.as_json:
        output.document({"file": path} | _snapshot_object(held))
    else:
        output.line(f"{path}: {held.text}, of {held.address}")
    return DONE


def _snapshot_object(held: HeldSnapshot) -> dict:
    return {"address": held.address, "index": held.index, "term": held.term, "bytes": held.size,
            "checksum": f"{held.checksum:08x}", "digest": f"{held.digest:08x}"}


def why(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Say why something stands still. Where it seems so, a second look tells what moves."""
    deadline = clock() + client.timeout_s
    each_s = min(client.timeout_s / LOOK_PARTS, STATUS_TIMEOUT_S)
    look = reasons.look_around(client.servers, each_s, deadline - client.timeout_s / 2)
    findings = reasons.explain(look)
    if look.answered and any(finding.wrong for finding in findings):
        time.sleep(max(0.0, min(SECOND_LOOK_S, (deadline - clock()) / 2)))
        earlier, look = look, reasons.look_around(client.servers, each_s, deadline)
        findings = reasons.explain(look, earlier)
    if output.as_json:
        output.document([finding.as_object() for finding in findings])
    else:
        output.lines([finding.line for finding in findings])
    if not look.answered:
        return NO_ANSWER
    return REFUSED if any(finding.wrong for finding in findings) else DONE
