"""The text form of log entries: `index.offset term command`, a line for each command.

Shared by `mqclient log` and the decoder. The commands' own text is in raftnet/wire/describe.py.
"""

from raftnet.errors import MalformedError
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import QUORUM_RULE_NAMES, Member, Membership, decode_membership
from raftnet.wire.describe import describe_batch

_REMOVED_SHOWN = 5      # the newest


def entry_commands(entry: Entry) -> list[str]:
    """What the entry does, a text for each command in it (at least one)."""
    if entry.kind == EntryKind.BATCH:
        return describe_batch(entry.payload) or ["batch of nothing"]
    if entry.kind == EntryKind.MEMBERSHIP:
        try:
            return [describe_membership(decode_membership(entry.payload))]
        except MalformedError as error:
            return [f"malformed membership: {error}"]
    return ["empty"]


def describe_membership(membership: Membership) -> str:
    """One line: who is in, and which of them vote; and, where there is any, who was removed, whom
    the members are being set to, and the version of the replicated state."""
    members = ", ".join(_describe_member(membership, member) for member in membership.members)
    founded = "" if membership.founded else " not founded yet,"
    text = (f"membership{founded} quorum {membership.quorum} "
            f"({QUORUM_RULE_NAMES[membership.quorum_rule]}): {members}")
    if membership.removed:
        newest = [f"{node_id:016x}" for node_id in membership.removed[-_REMOVED_SHOWN:]]
        left_out = len(membership.removed) - len(newest)
        text += f"; removed: {f'{left_out} more, ' if left_out else ''}{', '.join(newest)}"
    if membership.target:
        text += f"; target: {', '.join(membership.target)}"
    if membership.state_version != 1:
        text += f"; state version {membership.state_version}"
    return text


def _describe_member(membership: Membership, member: Member) -> str:
    text = member.address
    if len(membership.members_at(member.address)) > 1:      # twins: the address names neither
        text += f" node {member.node_id:016x}"
    if member.voter:
        return text
    return f"{text} (learner that stays)" if member.stays else f"{text} (learner)"


def entry_lines(entry: Entry) -> list[str]:
    """`index.offset term command` for each command; offsets count from 0 within the entry."""
    return [f"{entry.index}.{offset} {entry.term} {text}"
            for offset, text in enumerate(entry_commands(entry))]
