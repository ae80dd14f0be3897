"""What `why` finds about single nodes: who is not heard, who is behind or installs, whose disk is
full, who comes back after damage, which change is stuck.

Rules as in why.py: each rule gets the picture of now and, at the second look, that of a second
before, and gives findings. `before` None: what may only be on its way is called wrong, which leads
to the second look.
"""

from collections.abc import Iterator

from raftnet.client.picture import Finding, Picture
from raftnet.client.statusview import (
    duration, held_text, sending_text, silence, start_command, target_text)
from raftnet.raft.membership import QUORUM_RULE_NAMES, QuorumRule, quorum
from raftnet.wire.requests import UNKNOWN_AGE, MemberStatus, NodeStatus

NO_ANSWER = "no answer in time"     # what connection.py says of a node that neither answers nor
                                    # refuses
BEHIND_ENTRIES = 1_000      # a node that moves and is no further behind is not worth a line


def may_fail(now: Picture) -> str:
    """How many voters may fail beyond those that have."""
    spare = len(now.heard_voters) - now.needed
    return f"{spare} more may fail" if spare > 0 else "no further one may fail"


def _earlier(before: Picture | None, member: MemberStatus, now: Picture) -> MemberStatus | None:
    """The same member a look before; None where the leader has changed since: it counts anew."""
    if before is None or before.leader is None or (
            before.leader.node_id, before.leader.term) != (now.leader.node_id, now.leader.term):
        return None
    return next((m for m in before.members if m.node_id == member.node_id), None)


def healing_nodes(now: Picture) -> dict[str, NodeStatus]:
    """The nodes that ask to be taken in again after damage, by their own addresses."""
    return {status.address: status for status in now.look.answered.values() if status.heals}


def lost_voters(now: Picture) -> list[MemberStatus]:
    """Voters that never come back as who they were: a node that heals runs in their place."""
    healing = healing_nodes(now)
    return [m for m in now.voters if m.address in healing and not now.runs(m)]


def _has_no_room(member: MemberStatus, now: Picture) -> bool:
    status = now.nodes.get(member.node_id)
    return status is not None and status.disk_full


def unheard(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Members that the leader does not hear, and what that costs."""
    healing = healing_nodes(now)
    for member in now.members if now.leader else ():
        if member.reachable or member.node_id == now.leader.node_id or member.address in healing:
            continue
        kind = "voter" if member.voter else "learner"
        silent = silence(now.silent_ms(member))
        cost = (f"{len(now.heard_voters)} of {len(now.voters)} voters are heard, {now.needed} are "
                f"needed: {may_fail(now)}") if member.voter else "it counts in no quorum"
        twins = [m for m in now.members if m.address == member.address and m is not member
                 and (m.reachable or m.node_id in now.nodes) and not m.voter]
        if twins:
            yield Finding("emptied", f"node {member.node_id:016x} at {member.address} ({kind}) is "
                          f"{silent}: a new node, {twins[0].node_id:016x}, runs there, whose "
                          f"data directory was emptied or damaged; {cost}", "It takes the old "
                          "one's place when it has caught up, by itself", False, member.address)
        elif member.node_id in now.nodes:
            yield Finding("not_heard_by_leader", f"{member.address} ({kind}) answers this client, "
                          f"but the leader {now.leader.address} has it {silent}; {cost}",
                          "Look at the network, and the firewalls, between the two",
                          address=member.address)
        else:
            reason = now.reason(member.address)
            hangs = "See whether its process hangs or is suspended, and whether its machine can " \
                "be reached; if need be end it. " if reason == NO_ANSWER else ""
            yield Finding("not_heard", f"{member.address} ({kind}) is {silent} ({reason}); {cost}",
                          f"{hangs}Start it again with the data directory it had: "
                          f"{start_command(member.address)}; if it is gone for ever: mqclient.py "
                          f"remove {member.address}", address=member.address)


def heal(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Nodes whose damaged files were set aside, where their cluster can still take them in."""
    for address in healing_nodes(now) if now.view is not None else ():
        member = now.member_at(address)
        text = f"{address} has set damaged files aside and asks to be taken in"
        if now.leader is None:
            if now.needed <= len(now.voters) - len(lost_voters(now)):   # else: why.py
                yield Finding("heals", f"{text}: needs a leader", address=address)
            continue
        if member is not None and member.voter:
            text += (f"; {len(now.heard_voters)} of {len(now.voters)} voters are heard, "
                     f"{now.needed} are needed: {may_fail(now)}")
        yield Finding("heals", text, "It comes in by itself, and takes its old place when it has "
                      "caught up; if it stays so, its log says why it is refused",
                      before is None or address in healing_nodes(before), address)


def full_disks(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Nodes that have no room to write."""
    for status in [*now.nodes.values(), *now.outside.values()]:
        if status.disk_full:
            leads = ", and it leads: what clients want written is refused" * (
                now.leader is not None and status.node_id == now.leader.node_id)
            yield Finding("disk_full", f"the disk of {status.address} is full{leads}",
                          "Free space there; it goes on by itself", address=status.address)


def installs(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Members that are behind the log, and are sent the snapshot."""
    for member in now.members if now.leader else ():
        if not member.snapshot_size or not member.reachable:
            continue
        earlier = _earlier(before, member, now)
        stands = before is None or (
            earlier is not None and member.snapshot_bytes < member.snapshot_size
            and _installed(earlier) == _installed(member))
        advice = ("Nothing has come through for a moment: its log says what it refuses, or what "
                  "its disk is waiting for") if stands and before is not None else ""
        yield Finding("installing", f"{member.address} {sending_text(member)}", advice,
                      stands, member.address)


def _installed(member: MemberStatus) -> tuple[int, int]:
    return member.snapshot_bytes, member.snapshot_size


def stuck_change(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """A membership that is in effect and not committed."""
    leader = now.leader
    if leader is None or leader.membership_index <= leader.commit_index:
        return
    earlier = before.leader if before is not None else None
    if before is not None and (earlier is None
                               or earlier.membership_index != leader.membership_index):
        return                                  # another one than a look before: they pass
    wanted = [member.address for member in now.voters if member.match_index
              < leader.membership_index and member.node_id != leader.node_id]
    yield Finding("change_stuck", f"a change of the members is under way and not committed: it is "
                  f"entry {leader.membership_index:,}, committed are {leader.commit_index:,}; "
                  f"voters that have not acknowledged it: {', '.join(wanted) or 'none'}",
                  f"{now.needed} of {len(now.voters)} voters must: bring back those that are not "
                  "heard. Until then no other change is possible")


def target_not_reached(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """What `members --set` asked for and is not so yet."""
    leader = now.leader
    if leader is None or not leader.target:
        return
    silent = [address for address in leader.target if now.member_at(address) is None
              and not isinstance(now.look.found.get(address), NodeStatus)]
    aliases = [f"{asked} is the node {found.address}" for asked, found in now.look.answered.items()
               if asked in leader.target and now.member_at(asked) is None
               and found.address != asked]
    stands = before is None or (before.leader is not None and _place(before) == _place(now))
    text = (f"the members are to be {', '.join(leader.target)}, and are not yet: "
            f"{target_text(leader)}")
    if silent:
        text += f"; no answer from {', '.join(f'{a} ({now.reason(a)})' for a in silent)}"
    if aliases:
        text += f"; {', '.join(aliases)}"
    advice = "The leader goes on by itself"
    if silent:
        advice = (f"Start it: {start_command(silent[0], now.contact)}; or ask for other members "
                  "with members --set")
    elif aliases:
        advice = ("It comes in under no other address than its own: ask for that one with members "
                  "--set")
    elif stands and before is not None:
        advice = ("Nothing has moved for a moment: see the other lines, and the leader's log; to "
                  "give up: members --set with those that there are")
    yield Finding("target_not_reached", text, advice, bool(silent or aliases) or stands,
                  silent[0] if silent else None)


def _place(picture: Picture) -> tuple:
    """What moves on the way to a target."""
    held = [(m.node_id, m.match_index, m.snapshot_bytes) for m in picture.members if not m.voter]
    return picture.leader.membership_index, held


def learners(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Learners that do not catch up, or have and are not promoted."""
    for member in now.members if now.leader else ():
        if member.voter or not member.reachable or member.snapshot_size:
            continue                            # silent ones: unheard(); and installs()
        behind = now.leader.last_index - member.match_index
        earlier = _earlier(before, member, now)
        grown = member.match_index - earlier.match_index if earlier else None
        held = held_text(member, now.leader)
        if _has_no_room(member, now):
            continue                            # full_disks()
        if behind > 0 and (before is None or grown is not None and grown <= 0):
            yield Finding("learner_stuck", f"the learner {member.address} does not catch up: it "
                          f"{held}, and gets no more", "Its log says what it refuses, or what its "
                          "disk is waiting for", address=member.address)
        elif behind > BEHIND_ENTRIES:
            rate = f", {grown:,} more within the last second or so" if grown else ""
            yield Finding("learner_behind", f"the learner {member.address} is catching up: it "
                          f"{held}{rate}", wrong=False, address=member.address)
        elif behind <= 0 and not member.stays and (
                before is None or earlier is not None and not earlier.voter):
            yield Finding("not_promoted", f"the learner {member.address} holds all entries and is "
                          "no voter yet", "A change under way, or too few voters that are heard, "
                          f"hold that up ({len(now.heard_voters)} of {len(now.voters)} are heard)",
                          address=member.address)


def behind(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Voters that are heard and lag behind the leader."""
    for member in now.voters if now.leader else ():
        if (not member.reachable or member.node_id == now.leader.node_id or member.snapshot_size
                or _has_no_room(member, now)):
            continue
        missing = now.leader.commit_index - member.match_index
        earlier = _earlier(before, member, now)
        grown = member.match_index - earlier.match_index if earlier else None
        if missing > 0 and (before is None or grown is not None and grown <= 0):
            yield Finding("voter_stuck", f"{member.address} is heard, lags {missing:,} entries "
                          f"behind and gets no more: it {held_text(member, now.leader)}",
                          "Its log says what it refuses, or what its disk is waiting for",
                          address=member.address)
        elif missing > BEHIND_ENTRIES:
            yield Finding("voter_behind", f"{member.address} is catching up: it "
                          f"{held_text(member, now.leader)}", wrong=False, address=member.address)


def slow_nodes(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Nodes whose disk, or whose applying, does not follow their own log."""
    for node_id, status in now.nodes.items():
        earlier = before.nodes.get(node_id) if before is not None else None
        first = before is None
        waiting = status.last_index - status.stable_index
        if waiting > 0 and not status.disk_full and (
                first or earlier and earlier.stable_index == status.stable_index
                            and earlier.last_index > earlier.stable_index):
            yield Finding("disk_stands", f"the disk of {status.address} does not finish: "
                          f"{waiting:,} entries wait to be durable there", "Look at that disk: is "
                          "it full, failing, or busy with something else?", address=status.address)
        waiting = status.commit_index - status.applied_index
        if waiting > 0 and (first or earlier and earlier.applied_index == status.applied_index
                            and earlier.commit_index > earlier.applied_index):
            yield Finding("apply_stands", f"{status.address} does not apply what is committed: "
                          f"{waiting:,} entries wait", "Is its machine overloaded? Its log says "
                          "what it does", address=status.address)
        elif waiting > BEHIND_ENTRIES:
            yield Finding("apply_behind", f"{status.address} applies what is committed and is "
                          f"{waiting:,} entries behind", wrong=False, address=status.address)


def outsiders(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Nodes that run and belong to no cluster, or no longer to this one."""
    for address, status in now.outside.items():
        if status.role == "removed":
            yield Finding("removed_runs", f"{address} was removed from the cluster and still runs",
                          "Stop it; to have it back: empty its data directory, and start it with "
                          f"{start_command(address, now.contact)}", False, address)
        elif now.member_at(address) is not None:
            continue                            # why.py: another node at a member's address
        elif status.heals:
            continue                            # heal()
        elif status.role in ("joining", "founding"):
            said = now.look.said.get(address)
            if before is None or address in before.outside:
                yield Finding("not_taken_in", f"{address} runs and is in no cluster yet"
                              + (f": {said}" if said else ""), "Have it taken in: mqclient.py add "
                              f"{address}", address=address)
        elif now.leader is not None:
            yield Finding("no_member", f"{address} (node {status.node_id:016x}) belongs to this "
                          "cluster and is not among its members: it was removed, or is being taken "
                          "in just now", "If it was removed: stop it", False, address)


def tolerance(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """A quorum that needs every voter."""
    count = len(now.voters)
    if now.view is None or count - now.needed > 0:
        return
    rule = now.view.quorum_rule
    enough = next(n for n in range(count + 1, count + 5) if n - quorum(n, rule) > 0)
    name = f"the quorum rule {QUORUM_RULE_NAMES[rule]} needs {now.needed} of {count} voters"
    if rule != QuorumRule.MAJORITY and count > 2:
        name = (f"the assignment's quorum rule ({QUORUM_RULE_NAMES[rule]}) needs {now.needed} of "
                f"{count} voters")
    yield Finding("tolerates_nothing", f"{name}: if a single one fails, everything stands still",
                  f"With {enough} voters one may fail: mqclient.py add ADDRESS", False)


def unanswered(now: Picture, before: Picture | None) -> Iterator[Finding]:
    """Nodes that this client cannot reach, without harm to the cluster."""
    if now.view is None:
        return
    members = {member.address for member in now.members}
    for member in now.members:
        if (now.leader is not None and member.reachable and member.node_id not in now.nodes
                and not isinstance(now.look.found.get(member.address), NodeStatus)):
            heard = ("never" if member.silent_ms == UNKNOWN_AGE
                     else f"{duration(member.silent_ms)} ago")
            yield Finding("not_reached_from_here", f"{member.address} does not answer this client "
                          f"({now.reason(member.address)}); the leader heard it {heard}",
                          "If it stays so: look at the way from here to it", False, member.address)
    for address in now.look.servers:
        found = now.look.found.get(address)
        if isinstance(found, str) and address not in members | set(now.view.target):
            yield Finding("server_unknown", f"{address}, named as a server, does not answer "
                          f"({now.reason(address)}) and is no member", "Take it out of the list of "
                          "servers", False, address)


RULES = (full_disks, heal, unheard, installs, stuck_change, target_not_reached, learners, behind,
         slow_nodes, outsiders, tolerance, unanswered)
