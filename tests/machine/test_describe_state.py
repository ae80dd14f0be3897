"""The state as text: every part of it, a line each, as many as were asked for."""

import unittest

from raftnet.machine.describe import describe_state
from raftnet.wire import commands, kvcommands, queuecommands
from raftnet.wire.commands import Status
from tests.machine.driver import A, B, MachineCase
from tests.machine.test_state import copy_of


class DescribeTest(MachineCase):

    def lines(self, shown: int | None = 10) -> list[str]:
        """The lines; those of the machine out of a snapshot are the same."""
        lines = list(describe_state(self.machine, shown))
        self.assertEqual(list(describe_state(copy_of(self.machine), shown)), lines)
        return lines

    def test_plain_messages_waits_and_sessions(self):
        self.enqueue(b"two words", b"1", b"\xff\n", b"3")
        self.ask(A, 1, commands.encode_enqueue(b"q", [b"x" * 300]), at=5)
        self.ask(B, 1, commands.encode_dequeue(b"w", 2, 1000))
        self.ask(b"C" * 16, 1, queuecommands.encode_lease(b"v", 30, 1, 2000, b"c 1"))
        self.assertEqual(self.lines(2), [
            f"applied up to 4, digest {self.machine.digest:08x}",
            "replicated time 5 ms, state version 2, next message id 5, next delivery 1",
            "2 queues with 4 messages",
            "queue q: 1 message, 300 bytes",
            f'    4 "{"x" * 200}"... (300 bytes)',
            'queue "two words": 3 messages, 4 bytes',
            '    1 "1"',
            r'    2 "\\xff\n"',
            "    ... (1 more)",
            "0 keys, last change 0",
            "2 waiting dequeues",
            f"    {B.hex()}:1 for 2 of w until 1005 ms",
            f'    {"43" * 16}:1 for 1 of v until 2005 ms, to lease for 30 ms by "c 1"',
            "3 sessions, kept replies count 321 bytes",
            f"    {A.hex()} last 1 used at 5 ms, keeps 1 request from 1 on",
            f"    {B.hex()} last 1 used at 5 ms, keeps 1 request from 1 on, 1 of them waiting",
            f'    {"43" * 16} last 1 used at 5 ms, keeps 1 request from 1 on, 1 of them waiting'])

    def fill(self):
        """A queue with everything, its dead letters, and keys."""
        self.enqueue(b"q", b"1", b"2", b"3", b"4")
        self.do(queuecommands.encode_configure(b"q", {2: 2, 4: 9}),
                queuecommands.encode_enqueue_with(b"q", [b"5"], 6, 0, 500),
                queuecommands.encode_enqueue_with(b"q", [b"6", b"7"], 0, 40, 0, [b"id", b"di"]))
        self.do(queuecommands.encode_lease(b"q", 20, 4, consumer=b"me"))
        self.do(queuecommands.encode_nack([(2, 3), (3, 4)], 0, b"no"))
        self.do(queuecommands.encode_lease(b"q", 90, consumer=b"you"))
        self.do(queuecommands.encode_nack([(2, 5)], 0))
        self.do(kvcommands.encode_kv_put(b"a", b"1"), kvcommands.encode_kv_put(b"b", b"2", 90))

    def test_everything(self):
        self.fill()
        self.assertEqual(self.lines(), [
            f"applied up to 7, digest {self.machine.digest:08x}",
            "replicated time 0 ms, state version 2, next message id 9, next delivery 6",
            "2 queues with 7 messages",
            "queue q: 2 messages, 2 bytes, 1 returned, 2 leased, 2 delayed",
            "    settings dead_letter default delivery_limit 2 ttl_ms 0 messages_max 9 bytes_max 0 "
            "overflow refuse dedup_window_ms 300000 backoff_ms 1000 backoff_max_ms 600000",
            '    3 "3" (delivered once, nacked at 0 ms in entry 4 by me "no")',
            '    4 "4"',
            '    leased 5:1 "5" (priority 6, delivered once, expires 500 ms) until 20 ms, taken '
            '0 ms by me',
            '    leased 1:2 "1" (delivered once) until 20 ms, taken 0 ms by me',
            '    delayed 6 "6" until 40 ms',
            '    delayed 7 "7" until 40 ms',
            '    dedup "id" is message 6 until 300000 ms',
            '    dedup "di" is message 7 until 300000 ms',
            "queue q.dead: 1 message, 1 bytes",
            '    2 "2" (place 8, from q, nacked at 0 ms in entry 6 by you, 1 event before)',
            "2 keys, last change 2",
            '    a version 1 "1"',
            '    b version 2 "2" expires 90 ms',
            "0 waiting dequeues",
            "0 sessions, kept replies count 0 bytes"])
        everything = self.lines(None)
        self.assertEqual(everything[14], '    2 "2" (place 8, from q, nacked at 0 ms in entry 4 by '
                         'me "no", nacked at 0 ms in entry 6 by you)')

    def test_a_few_of_each(self):
        self.fill()
        left_out = [line for line in self.lines(1) if "more" in line]
        self.assertEqual(left_out, ["    ... (1 more)", "    ... (1 more leased)",
                                    "    ... (1 more delayed)", "    ... (1 more dedup ids)"])
        self.assertIn("    ... (2 more)", self.lines(0))

    def test_returned_ones_of_all_priorities_count(self):
        self.do(queuecommands.encode_enqueue_with(b"q", [b"1"], 3),
                queuecommands.encode_enqueue_with(b"q", [b"2", b"3"]),
                queuecommands.encode_lease(b"q", 50, 2),
                queuecommands.encode_nack([(1, 1), (2, 2)], 0))
        self.assertEqual(self.lines()[3], "queue q: 3 messages, 3 bytes, 2 returned")

    def test_what_ends_in_the_middle_is_not_told(self):
        self.do(queuecommands.encode_enqueue_with(b"q", [b"1"], 0, 0, 500),
                queuecommands.encode_enqueue_with(b"q", [b"2", b"3"], 0, 0, 50))
        self.enqueue(b"q", b"4")
        self.apply(at=60)
        self.assertEqual(self.lines()[3:6], ["queue q: 2 messages, 2 bytes",
                                             '    1 "1" (expires 500 ms)', '    4 "4"'])

    def test_settings_and_ids_alone(self):
        self.do(queuecommands.encode_configure(b"c", {}))
        (result,) = self.do(queuecommands.encode_enqueue_with(b"d", [b"1"], dedup_ids=[b"id"]))
        self.do(commands.encode_dequeue(b"d"))
        self.assertEqual(result[0], Status.OK)
        lines = self.lines()
        self.assertEqual(lines[2:4], ["2 queues with 0 messages", "queue c: 0 messages, 0 bytes"])
        self.assertEqual(lines[5:7], ["queue d: 0 messages, 0 bytes",
                                      '    dedup "id" is message 1 until 300000 ms'])

    def test_all_and_bounded(self):
        for number in range(30):
            self.ask(b"%016d" % number, 1, commands.encode_enqueue(b"q", [b"m"]))
        self.assertEqual(len(self.lines(None)), 3 + 1 + 30 + 1 + 1 + 1 + 30)
        self.assertIn("    ... (20 more)", self.lines())
        self.assertEqual(self.lines(0)[-1], "    ... (30 more)")


if __name__ == "__main__":
    unittest.main()
