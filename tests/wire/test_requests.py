"""Bodies of frames: what is encoded is decoded, every truncation is refused, and nothing that can
arrive raises anything but MalformedError."""

import random
import unittest

from raftnet.errors import ErrorCode, MalformedError
from raftnet.wire import commands, joining, requests
from raftnet.wire.requests import Hello, MemberStatus, NodeStatus, Reply

MUTATIONS = 30_000
SESSION = bytes(range(16))
SIZE = commands.encode_size(b"jobs")
PEER = Hello(requests.ROLE_PEER, SESSION, 2**64 - 1, 3, 2**32 - 1, "[::1]:5001", 2**64 - 2, 7,
             6, 2**64 - 3, 2**16 - 1, 1, 2)
MEMBERS = [MemberStatus(1, "127.0.0.1:5001", True, True, 9, 0, False, 2, 2**32 - 2, 65_535,
                        2**63, 2**64 - 5),
           MemberStatus(2**64 - 1, "hôte:5002", False, False, stays=True)]
LAST_MEMBER_BYTES = 49 + 2 + len("hôte:5002".encode())
STATUS = NodeStatus(SESSION, 1, 2, "leader", 3, 4, 5, 6, 7, 8, 2**32 - 1, True, 1,
                    "127.0.0.1:5001", "", "1.0", MEMBERS, 2**64 - 4, 2**16 - 2,
                    ["a:1", "hôte:2"], 2**32 - 3, 2**32 - 4, "langsam, à 2 s", 2**64 - 6, True,
                    2**64 - 7, 2**64 - 8, "verifying é", ["b:1", "c:1", "hôte:3"])
CONTACTS_BYTES = 2 + 2 * 5 + 2 + len("hôte:3".encode())
TARGET_BYTES = 2 + 5 + 2 + len("hôte:2".encode()) + CONTACTS_BYTES      # and what follows it
# name, body, decoder, what it must give, from how many bytes on a prefix is a body too (its last
# field goes to the end of the frame, and is looked into elsewhere) or None
BODIES = [
    ("HELLO of a client", requests.encode_hello(Hello(requests.ROLE_CLIENT)),
     requests.decode_hello, Hello(requests.ROLE_CLIENT), None),
    ("HELLO of a peer", requests.encode_hello(PEER), requests.decode_hello, PEER, None),
    ("ERROR", requests.encode_error(ErrorCode.NOT_LEADER, "why é", "127.0.0.1:5001"),
     requests.decode_error, (1, "127.0.0.1:5001", "why é"), None),
    ("ERROR without words", requests.encode_error(65535, ""), requests.decode_error,
     (65535, "", ""), None),
    ("REQUEST", requests.encode_request(SESSION, 2**64 - 1, 5, [SIZE, SIZE]),
     requests.decode_request_head, (SESSION, 2**64 - 1, 5, 2), requests.REQUEST_HEAD_BYTES),
    ("REPLY enqueued", requests.encode_reply_enqueued(5, 1000, 2**40), requests.decode_reply,
     Reply(5, 1000, first_message_id=2**40), None),
    ("REPLY results", requests.encode_reply_results(5, [(0, b"abc"), (1, b"")]),
     requests.decode_reply, Reply(5, 2, results=[(0, b"abc"), (1, b"")]), None),
    ("REPLY refused", requests.encode_reply_refused(5, 9, ErrorCode.SESSION_LIMIT, "full"),
     requests.decode_reply, Reply(5, 9, refusal=(ErrorCode.SESSION_LIMIT, "full")), None),
    ("READ", requests.encode_read(False, SIZE), requests.decode_read, (False, SIZE), 2),
    ("READ local", requests.encode_read(True, SIZE), requests.decode_read, (True, SIZE), 2),
    ("READ_REPLY", requests.encode_read_reply(2**64 - 1, 4, b"payload"),
     requests.decode_read_reply, (2**64 - 1, 4, b"payload"), 9),
    ("LOG", requests.encode_log(True, 2**63, 2**32 - 1), requests.decode_log,
     (True, 2**63, 2**32 - 1), None),
    ("LOG_REPLY", requests.encode_log_reply(1, 9, 3, [b"one", b"two"]),
     requests.decode_log_reply, (1, 9, 3, 2, 28), 28),
    ("STATUS_REPLY", requests.encode_status(STATUS), requests.decode_status, STATUS, None),
    ("JOIN", joining.encode_join(2**64 - 1, "127.0.0.1:5004"), joining.decode_join,
     (2**64 - 1, "127.0.0.1:5004", 0), None),
    ("JOIN with flags", joining.encode_join(1, "hôte:1", 3), joining.decode_join,
     (1, "hôte:1", joining.JOIN_STAYS | joining.JOIN_RETURNING), None),
    ("JOIN_REPLY", joining.encode_join_reply(SESSION), joining.decode_join_reply, SESSION, None),
    ("INVITE", joining.encode_invite(SESSION, "127.0.0.1:5001"), joining.decode_invite,
     (SESSION, "127.0.0.1:5001", 0), None),
    ("INVITE with its flag", joining.encode_invite(SESSION, "[::1]:1", 1), joining.decode_invite,
     (SESSION, "[::1]:1", joining.JOIN_STAYS), None),
    ("INVITE_REPLY", joining.encode_invite_reply(2**64 - 1), joining.decode_invite_reply,
     2**64 - 1, None),
    ("CHANGE remove", joining.encode_change(joining.CHANGE_REMOVE, ["127.0.0.1:5002"]),
     joining.decode_change, (1, ["127.0.0.1:5002"]), None),
    ("CHANGE set", joining.encode_change(joining.CHANGE_SET, ["a:1", "hôte:2", "c:3"]),
     joining.decode_change, (3, ["a:1", "hôte:2", "c:3"]), None),
    ("CHANGE_REPLY", joining.encode_change_reply(2**64 - 1, "done é"),
     joining.decode_change_reply, (2**64 - 1, "done é"), None),
]


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes changed, put in or taken out."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(4)
        if what == 0:
            data[at:at] = chance.randbytes(chance.randint(1, 4))
        elif what == 1:
            del data[at:at + chance.randint(1, 8)]
        else:
            data[at:at + 1] = bytes((chance.choice((0, 1, 255, chance.randrange(256))),))
    return bytes(data)


class RequestsTest(unittest.TestCase):

    def assert_malformed(self, decode, body: bytes):
        with self.assertRaises(MalformedError):
            decode(body)

    def test_round_trip(self):
        for name, body, decode, value, _ in BODIES:
            with self.subTest(name):
                self.assertEqual(decode(body), value)

    def test_every_truncation_is_refused(self):
        for name, body, decode, _, open_from in BODIES:
            for end in range(len(body) if open_from is None else open_from):
                with self.subTest(name, end=end):
                    self.assert_malformed(decode, body[:end])

    def test_a_tail_is_refused(self):
        for name, body, decode, _, open_from in BODIES:
            if open_from is None:
                with self.subTest(name):
                    self.assert_malformed(decode, body + b"\0")

    def test_random_mutations_raise_nothing_else(self):
        chance = random.Random(20)
        decoded = 0
        for number in range(MUTATIONS):
            name, body, decode, _, _ = BODIES[number % len(BODIES)]
            data = mutated(body, chance)
            try:
                decode(data)
                decoded += 1
            except MalformedError:
                pass
            except Exception as error:
                self.fail(f"{name}: {type(error).__name__}: {error}: {data.hex()}")
        # The mutations reach both ends of the decoders.
        self.assertTrue(MUTATIONS // 20 < decoded < MUTATIONS * 19 // 20, decoded)

    def test_what_was_decoded_is_encoded_to_the_same_bytes(self):
        chance = random.Random(21)
        again = {
            requests.decode_hello: requests.encode_hello,
            requests.decode_error: lambda v: requests.encode_error(v[0], v[2], v[1]),
            requests.decode_read: lambda v: requests.encode_read(*v),
            requests.decode_log: lambda v: requests.encode_log(*v),
            requests.decode_status: requests.encode_status,
            joining.decode_join: lambda v: joining.encode_join(*v),
            joining.decode_invite: lambda v: joining.encode_invite(*v),
            joining.decode_change: lambda v: joining.encode_change(*v),
            joining.decode_change_reply: lambda v: joining.encode_change_reply(*v)}
        same = 0
        for number in range(MUTATIONS // 3):
            name, body, decode, _, _ = BODIES[number % len(BODIES)]
            if decode not in again:
                continue
            data = mutated(body, chance)
            try:
                value = decode(data)
            except MalformedError:
                continue
            if decode is requests.decode_hello:
                data = data[:3] + b"\0" + data[4:]      # the zero is not looked at
            self.assertEqual(again[decode](value), data, name)
            same += 1
        self.assertGreater(same, 500)

    def test_a_count_is_not_believed(self):
        body = requests.encode_reply_results(1, [(0, b"")])
        self.assert_malformed(requests.decode_reply, body[:8] + b"\xff" * 4 + body[12:])
        with self.assertRaises(MalformedError):
            requests.decode_results(b"\0\0\0\1\0", 0, 2**32 - 1)

    def test_a_result_without_a_status(self):
        self.assert_malformed(requests.decode_reply,
                              requests.encode_reply_results(1, [])[:8]
                              + b"\0\0\0\1\2" + b"\0\0\0\0" + b"\0")

    def test_an_unknown_form(self):
        body = bytearray(requests.encode_reply_enqueued(1, 1, 1))
        for form in (0, 4, 255):
            body[12] = form
            self.assert_malformed(requests.decode_reply, bytes(body))

    def test_flags_are_zero_or_one(self):
        for value in (2, 255):
            self.assert_malformed(requests.decode_read, bytes((value,)) + SIZE)
            self.assert_malformed(requests.decode_log,
                                  bytes((value,)) + requests.encode_log(False, 1, 1)[1:])
            for place in (85, 113):         # founded, disk_full
                status = bytearray(requests.encode_status(STATUS))
                status[place] = value
                self.assert_malformed(requests.decode_status, bytes(status))
            for place in (8, 9, 10):        # voter, stays, reachable
                status = bytearray(requests.encode_status(STATUS))
                status[-TARGET_BYTES - LAST_MEMBER_BYTES + place] = value
                self.assert_malformed(requests.decode_status, bytes(status))

    def test_a_node_has_an_id_and_a_role(self):
        for role, node_id in ((0, 1), (3, 1), (requests.ROLE_PEER, 0)):
            with self.subTest(role=role, node_id=node_id):
                self.assert_malformed(requests.decode_hello, requests.encode_hello(
                    Hello(role, SESSION, node_id)))

    def test_counts_of_a_status_are_not_believed(self):
        body = bytearray(requests.encode_status(STATUS))
        members_at = len(body) - TARGET_BYTES - LAST_MEMBER_BYTES - 49 - 16 - 2
        for at, count in ((members_at, 2), (len(body) - TARGET_BYTES, 2),
                          (len(body) - CONTACTS_BYTES, 3)):
            self.assertEqual(int.from_bytes(body[at:at + 2], "big"), count)
            for wrong in (0, count - 1, count + 1, 0xFFFF):
                with self.subTest(at=at, count=wrong):
                    self.assert_malformed(requests.decode_status, bytes(
                        body[:at] + wrong.to_bytes(2, "big") + body[at + 2:]))

    def test_an_unknown_role_of_a_status(self):
        body = bytearray(requests.encode_status(STATUS))
        body[32] = len(requests.ROLES)
        self.assert_malformed(requests.decode_status, bytes(body))

    def test_strings_are_utf_8(self):
        self.assert_malformed(requests.decode_error, b"\0\1" + b"\0\1\xff" + b"\0\0")

    def test_error_names(self):
        self.assertEqual(requests.describe_error(ErrorCode.BUSY), "BUSY")
        self.assertEqual(requests.describe_error(999), "ERROR_999")


if __name__ == "__main__":
    unittest.main()
