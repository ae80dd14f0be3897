"""Raft messages as bytes: round trip, truncations, and nothing but MalformedError for anything."""

import random
import unittest

from raftnet.errors import MalformedError
from raftnet.net.messages import decode_message, encode_message
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import Member, Membership, encode_membership
from raftnet.raft.types import (
    Append, AppendReply, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Snapshot, SnapshotReply,
    TimeoutNow, Vote, VoteReply)
from raftnet.wire.commands import encode_batch
from raftnet.wire.frames import PEER_KINDS_FROM, Kind

MUTATIONS = 30_000
TOP = 2**64 - 1
MEMBERSHIP = encode_membership(Membership(
    b"c" * 16, (Member(1, "127.0.0.1:5001", True), Member(2, "127.0.0.1:5002", False),
                Member(TOP, "127.0.0.1:5003", False, stays=True)), 1, True,
    (5, TOP - 1), ("127.0.0.1:5001", "[::1]:5003"), 2))
ENTRIES = [encode_entry(7, 3, EntryKind.EMPTY, b""),
           encode_entry(8, 3, EntryKind.BATCH, encode_batch(5, [b"a request"])),
           encode_entry(9, 4, EntryKind.MEMBERSHIP, MEMBERSHIP)]
MESSAGES = [
    PreVote(TOP, 1, 2), PreVoteReply(5, TOP, True), PreVoteReply(5, 6, False),
    Vote(5, TOP, 2), Vote(5, 6, TOP, True), VoteReply(TOP, True), VoteReply(5, False),
    Append(4, 6, 3, TOP, ENTRIES), Append(4, 0, 0, 0), Append(3, 6, 3, 6, ENTRIES[:1]),
    AppendReply(5, True, TOP), AppendReply(5, False, 6, 4, TOP),
    Heartbeat(5, 6, 7, TOP), HeartbeatReply(5, TOP, 8), TimeoutNow(TOP),
    Snapshot(5, TOP, 4, 100, 2**32 - 1, 40), Snapshot(5, 6, 5, TOP, 7, TOP - 4, b"last"),
    SnapshotReply(5, TOP, 4, 2**32 - 1, 40, TOP), SnapshotReply(5, 6, 4, 7, 8, 9, True)]


class MessagesTest(unittest.TestCase):

    def assert_malformed(self, kind: int, body: bytes):
        with self.assertRaises(MalformedError):
            decode_message(kind, body)

    def test_round_trip(self):
        for message in MESSAGES:
            with self.subTest(message):
                kind, body = encode_message(message)
                self.assertEqual(decode_message(kind, body), message)

    def test_each_kind_has_its_own_message(self):
        kinds = {encode_message(message)[0] for message in MESSAGES}
        self.assertEqual(kinds, {kind for kind in Kind if kind >= PEER_KINDS_FROM})
        for kind in set(range(256)) - kinds:
            self.assert_malformed(kind, bytes(32))

    def test_every_truncation_and_a_tail_are_refused(self):
        for message in MESSAGES:
            kind, body = encode_message(message)
            for end in range(len(body)):
                with self.subTest(message, end=end):
                    self.assert_malformed(kind, body[:end])
            self.assert_malformed(kind, body + b"\0")

    def test_random_mutations_raise_nothing_else_and_decode_to_the_same_bytes(self):
        chance = random.Random(22)
        encoded = [encode_message(message) for message in MESSAGES]
        decoded = 0
        for number in range(MUTATIONS):
            kind, body = encoded[number % len(encoded)]
            data = bytearray(body)
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(data))
                data[at] = chance.choice((0, 1, 255, chance.randrange(256)))
            if number % 5 == 0:
                del data[chance.randrange(len(data)):]
            try:
                message = decode_message(kind, bytes(data))
            except MalformedError:
                continue
            except Exception as error:
                self.fail(f"{kind}: {type(error).__name__}: {error}: {data.hex()}")
            decoded += 1
            self.assertEqual(encode_message(message), (kind, bytes(data)))
        self.assertTrue(MUTATIONS // 20 < decoded < MUTATIONS * 19 // 20, decoded)

    def test_flags_are_zero_or_one(self):
        for message, at in ((PreVoteReply(1, 2, True), 16), (Vote(1, 2, 3), 24),
                            (VoteReply(1, True), 8), (AppendReply(1, True, 2), 8),
                            (SnapshotReply(1, 2, 3, 4, 5, 6), 44)):
            kind, body = encode_message(message)
            for value in (2, 255):
                with self.subTest(message, value=value):
                    self.assert_malformed(kind, body[:at] + bytes((value,)) + body[at + 1:])

    def assert_append_refused(self, entries, prev_index=6, prev_term=3, term=4):
        self.assert_malformed(*encode_message(Append(term, prev_index, prev_term, 0, entries)))

    def test_entries_follow_each_other_and_the_one_before(self):
        self.assert_append_refused(ENTRIES, prev_index=5)
        self.assert_append_refused(ENTRIES, prev_index=7)
        self.assert_append_refused([ENTRIES[0], ENTRIES[2]])
        self.assert_append_refused([ENTRIES[0], ENTRIES[0]])
        self.assert_append_refused(ENTRIES[::-1])

    def test_terms_never_descend_and_none_is_above_the_leaders(self):
        self.assert_append_refused(ENTRIES, prev_term=4)
        self.assert_append_refused(ENTRIES, term=3)
        self.assert_append_refused([ENTRIES[0], encode_entry(8, 2, EntryKind.EMPTY, b"")])

    def test_a_damaged_entry(self):
        kind, body = encode_message(MESSAGES[7])
        for at in range(36, len(body)):
            with self.subTest(at=at):
                self.assert_malformed(kind, body[:at] + bytes((body[at] ^ 4,)) + body[at + 1:])

    def test_a_count_is_not_believed(self):
        kind, body = encode_message(MESSAGES[7])
        for count in (0, 2, 4, 2**32 - 1):
            with self.subTest(count=count):
                self.assert_malformed(kind, body[:32] + count.to_bytes(4, "big") + body[36:])

    def test_a_chunk_is_of_a_snapshot_and_in_its_file(self):
        right = Snapshot(5, 6, 4, 10, 7, 6, b"last")
        self.assertEqual(decode_message(*encode_message(right)), right)
        for wrong in (Snapshot(5, 0, 4, 10, 7, 6, b"last"), Snapshot(5, 6, 0, 10, 7, 6, b"last"),
                      Snapshot(3, 6, 4, 10, 7, 6, b"last"), Snapshot(5, 6, 4, 0, 7, 0),
                      Snapshot(5, 6, 4, 10, 7, 7, b"last"), Snapshot(5, 6, 4, 10, 7, 11),
                      Snapshot(5, 6, 4, 10, 7, 2**64 - 2, b"last")):
            with self.subTest(wrong):
                self.assert_malformed(*encode_message(wrong))
        question = Snapshot(5, 6, 5, 10, 7, 10)
        self.assertEqual(decode_message(*encode_message(question)), question)

    def test_payloads_that_the_core_looks_into(self):
        for entry_kind, payload in ((EntryKind.MEMBERSHIP, MEMBERSHIP[:-1]),
                                    (EntryKind.MEMBERSHIP, b""), (EntryKind.BATCH, bytes(7))):
            with self.subTest(entry_kind, payload=payload):
                self.assert_append_refused([encode_entry(7, 3, entry_kind, payload)])
        shortest = Append(4, 6, 3, 0, [encode_entry(7, 3, EntryKind.BATCH, bytes(8))])
        self.assertEqual(decode_message(*encode_message(shortest)), shortest)


if __name__ == "__main__":
    unittest.main()
