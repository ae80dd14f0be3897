"""The text form of log entries: `index.offset term command`, a line for each command.

Shared by `mqclient log` and the decoder. The commands' own text is in raftnet/wire/describe.py.
"""

from raftnet.errors import MalformedError
from raftnet.raft.entry import Entry, EntryKind
from raftnet.raft.membership import QUORUM_RULE_NAMES, Membership, decode_membership
from raftnet.wire.describe import describe_batch


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
    """One line: who is in, and which of them vote."""
    members = [member.address + ("" if member.voter else " (learner)")
               for member in membership.members]
    founded = "" if membership.founded else " not founded yet,"
    return (f"membership{founded} quorum {membership.quorum} "
            f"({QUORUM_RULE_NAMES[membership.quorum_rule]}): {', '.join(members)}")


def entry_lines(entry: Entry) -> list[str]:
    """`index.offset term command` for each command; offsets count from 0 within the entry."""
    return [f"{entry.index}.{offset} {entry.term} {text}"
            for offset, text in enumerate(entry_commands(entry))]
