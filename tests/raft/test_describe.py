"""The text forms: one line each, the same everywhere."""

import typing
import unittest

from raftnet.raft.describe import describe_entries, describe_entry, describe_message, describe_ready
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.types import (
    Append, AppendReply, HardState, Heartbeat, HeartbeatReply, Message, Outgoing, PreVote,
    PreVoteReply, ReadState, Ready, Snapshot, SnapshotId, SnapshotMeta, SnapshotReply, TimeoutNow,
    Vote, VoteReply)
from tests.raft.harness import membership_of

ENTRY = encode_entry(3, 1, EntryKind.BATCH, bytes(95))
EMPTY = encode_entry(4, 2, EntryKind.EMPTY, b"")

MESSAGES = [
    (PreVote(2, 5, 1), "1->2 PreVote term 2 last 5/1"),
    (PreVoteReply(1, 2, True), "1->2 PreVoteReply term 1 for 2 granted"),
    (PreVoteReply(3, 2, False), "1->2 PreVoteReply term 3 for 2 refused"),
    (Vote(2, 5, 1), "1->2 Vote term 2 last 5/1"),
    (Vote(2, 5, 1, True), "1->2 Vote term 2 last 5/1 transfer"),
    (VoteReply(2, True), "1->2 VoteReply term 2 granted"),
    (VoteReply(2, False), "1->2 VoteReply term 2 refused"),
    (Append(1, 2, 1, 2, [ENTRY]), "1->2 Append term 1 prev 2/1 commit 2 entries [3/1 batch 120B]"),
    (Append(1, 2, 1, 2), "1->2 Append term 1 prev 2/1 commit 2 entries []"),
    (Append(1, 2, 1, 2, [], True), "1->2 Append term 1 prev 2/1 commit 2 entries from file"),
    (AppendReply(1, True, 3), "1->2 AppendReply term 1 match 3"),
    (AppendReply(1, False, 9, 4, 2), "1->2 AppendReply term 1 refused 9 hint 4/2"),
    (Heartbeat(2, 3, 7, 100), "1->2 Heartbeat term 2 commit 3 round 7 sent 100"),
    (HeartbeatReply(2, 7, 100), "1->2 HeartbeatReply term 2 round 7 sent 100"),
    (TimeoutNow(2), "1->2 TimeoutNow term 2"),
    (Snapshot(3, 9, 2, 700, 5, 100, b"four"),
     "1->2 Snapshot term 3 index 9/2 size 700 offset 100 data 4B"),
    (Snapshot(3, 9, 2, 700, 5, 100, b"", True, 600),
     "1->2 Snapshot term 3 index 9/2 size 700 offset 100 data 600B from file"),
    (SnapshotReply(3, 9, 2, 5, 100, 104),
     "1->2 SnapshotReply term 3 index 9/2 offset 100 next 104"),
    (SnapshotReply(3, 9, 2, 5, 0, 0, True), "1->2 SnapshotReply term 3 index 9/2 damaged"),
]


class DescribeTest(unittest.TestCase):
    """Each form by example."""

    def test_messages(self):
        """Every class of message."""
        for message, text in MESSAGES:
            self.assertEqual(describe_message(1, 2, message), text)
        self.assertEqual({type(message) for message, _ in MESSAGES}, set(typing.get_args(Message)))

    def test_entries(self):
        """Index, term, kind, bytes; a long list is cut in the middle."""
        self.assertEqual(describe_entry(EMPTY), "4/2 empty 25B")
        many = [encode_entry(index, 1, EntryKind.EMPTY, b"") for index in range(1, 101)]
        self.assertEqual(describe_entries(many),
                         "[1/1 empty 25B, 2/1 empty 25B, 3/1 empty 25B, ... 94 more ..., "
                         "98/1 empty 25B, 99/1 empty 25B, 100/1 empty 25B]")
        self.assertNotIn("more", describe_entries(many[:6]))

    def test_ready(self):
        """In the order in which things must be done."""
        ready = Ready(4, [Outgoing(2, Vote(2, 5, 1))], HardState(2, 1), [ENTRY],
                      [Outgoing(3, VoteReply(2, True))], [EMPTY],
                      [ReadState(7, 3), ReadState(8, 0)])
        self.assertEqual(
            describe_ready(1, ready),
            "1 job 4; send 1->2 Vote term 2 last 5/1; state term 2 vote 1; write [3/1 batch 120B]; "
            "after sync 1->3 VoteReply term 2 granted; apply [4/2 empty 25B]; read 7 at 3; "
            "read 8 refused")
        self.assertEqual(describe_ready(1, Ready(0, [], None, [], [], [EMPTY], [])),
                         "1 no job; apply [4/2 empty 25B]")
        meta = SnapshotMeta(9, 2, 1, membership_of([1]), 0, 700, 5)
        ready = Ready(5, [], None, [], [], [EMPTY], [], False, (2, 3), (0, bytes(5)),
                      SnapshotId(9, 2, 700, 5), meta, SnapshotId(7, 1, 600, 5))
        self.assertEqual(describe_ready(1, ready), (
            "1 job 5; write 5B of the snapshot at 0; install snapshot 9/2 size 700; "
            "apply from the file 2..3; apply [4/2 empty 25B]; received snapshot 9/2; "
            "doubted snapshot 7/1"))
