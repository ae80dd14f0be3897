"""Commands on queues: order, limits, and what a reply may hold."""

from raftnet.wire import commands
from raftnet.wire.commands import Status
from tests.machine.driver import A, MachineCase


class QueueTest(MachineCase):

    def test_first_in_first_out_and_ids_run_on(self):
        reply = self.ask(A, 1, commands.encode_enqueue(b"q", [b"1", b"2"]),
                         commands.encode_enqueue(b"other", [b"x"]),
                         commands.encode_enqueue(b"q", [b"3"]))
        self.assertEqual((reply.first_message_id, reply.count), (1, 3))
        ((status, payload),) = self.do(commands.encode_dequeue(b"q", 5))
        self.assertEqual(status, Status.OK)
        self.assertEqual(commands.decode_messages(payload), [(1, b"1"), (2, b"2"), (4, b"3")])
        self.assert_results(self.do(commands.encode_dequeue(b"q")), Status.EMPTY)
        self.assertEqual(list(self.machine.executor.queues.by_name), [b"other"])

    def test_enqueue_beside_others_has_the_long_form(self):
        results = self.do(commands.encode_enqueue(b"q", [b"1", b"2"]), commands.encode_size(b"q"))
        self.assertEqual(commands.decode_enqueue_result(results[0][1]), 1)
        self.assertEqual(commands.decode_size_result(results[1][1]), (2, 2))

    def test_single_dequeues_of_one_queue_and_of_several(self):
        self.enqueue(b"a", b"1", b"2", b"3")
        self.enqueue(b"b", b"4")
        one, other = commands.encode_dequeue(b"a"), commands.encode_dequeue(b"b")
        self.assert_results(self.do(one, one, other, one, one, other),
                            [b"1"], [b"2"], [b"4"], [b"3"], Status.EMPTY, Status.EMPTY)

    def test_equal_dequeues_of_several_messages(self):
        self.enqueue(b"q", b"1", b"2", b"3", b"4", b"5")
        two = commands.encode_dequeue(b"q", 2)
        self.assert_results(self.do(two, two, two), [b"1", b"2"], [b"3", b"4"], [b"5"])

    def test_empty_and_large_messages(self):
        large = bytes(range(256)) * 4096
        self.enqueue(b"q", b"", large)
        self.assert_results(self.do(commands.encode_peek(b"q", 2), commands.encode_dequeue(b"q"),
                                    commands.encode_dequeue(b"q")),
                            [b"", large], [b""], [large])
        over = commands.encode_enqueue(b"q", [b"small", large + b"x"])
        self.assert_results(self.do(over, commands.encode_size(b"q")), Status.LIMIT, Status.OK)
        self.assertEqual(self.contents(), [])

    def test_peek_and_size_change_nothing(self):
        self.enqueue(b"q", b"1", b"22")
        for _ in range(2):
            results = self.do(commands.encode_peek(b"q", 9), commands.encode_size(b"q"))
            self.assert_results(results[:1], [b"1", b"22"])
            self.assertEqual(commands.decode_size_result(results[1][1]), (2, 3))
        results = self.do(commands.encode_peek(b"none"), commands.encode_size(b"none"))
        self.assert_results(results, Status.EMPTY, Status.OK)
        self.assertEqual(commands.decode_size_result(results[1][1]), (0, 0))

    def test_count_limits(self):
        self.start(dequeue_count_max=3)
        self.enqueue(b"q", *[b"m"] * 4)
        for encode in (commands.encode_dequeue, commands.encode_peek):
            self.assert_results(self.do(encode(b"q", 0), encode(b"q", 4)),
                                Status.LIMIT, Status.LIMIT)
        self.assert_results(self.do(commands.encode_dequeue(b"q", 3)), [b"m"] * 3)

    def test_a_reply_takes_what_fits(self):
        self.start(result_bytes_max=100)
        self.enqueue(b"q", b"a" * 30, b"b" * 30, b"c" * 30, b"d" * 80)
        take = commands.encode_dequeue(b"q", 10)
        self.assert_results(self.do(commands.encode_peek(b"q", 10)), [b"a" * 30, b"b" * 30])
        # 84 bytes are used; one more would need 42
        self.assert_results(self.do(take, take, commands.encode_peek(b"q"),
                                    commands.encode_dequeue(b"q")),
                            [b"a" * 30, b"b" * 30], *[Status.REPLY_FULL] * 3)
        self.assert_results(self.do(take), [b"c" * 30])
        self.assert_results(self.do(take), [b"d" * 80])
        self.enqueue(b"q", b"a" * 30, b"b" * 30, b"c" * 30)
        self.assert_results(self.do(*[commands.encode_dequeue(b"q")] * 3),
                            [b"a" * 30], [b"b" * 30], Status.REPLY_FULL)

    def test_empty_messages_and_texts_take_room_too(self):
        self.start(result_bytes_max=100)
        self.enqueue(b"q", *[b""] * 20)
        self.assert_results(self.do(commands.encode_dequeue(b"q", 20)), [b""] * 8)
        results = self.do(*[commands.encode_dequeue(b"q", 0)] * 20)
        self.assertTrue(results[0][1])
        self.assertLessEqual(sum(len(payload) for _, payload in results), 100)
        sizes = self.do(*[commands.encode_size(b"q")] * 7)
        self.assert_results(sizes, *[Status.OK] * 6, Status.REPLY_FULL)


class ListingTest(MachineCase):

    def list(self, *arguments) -> list[tuple[bytes, int]]:
        status, payload = self.machine.read(commands.encode_queues(*arguments))
        self.assertEqual(status, Status.OK)
        return commands.decode_queue_list(payload)

    def test_byte_order_pages_and_only_queues_with_messages(self):
        for name in (b"b", b"\xff", b"a", b"ab", b"B"):
            self.enqueue(name, *[b"m"] * len(name))
        self.ask(A, 1, commands.encode_dequeue(b"waited", 1, 1000))
        everything = [(b"B", 1), (b"a", 1), (b"ab", 2), (b"b", 1), (b"\xff", 1)]
        self.assertEqual(self.list(), everything)
        self.assertEqual(self.list(b"", 2), everything[:2])
        self.assertEqual(self.list(b"a", 2), everything[2:4])
        self.assertEqual(self.list(b"aa"), everything[2:])
        self.assertEqual(self.list(b"\xff"), [])
        self.do(commands.encode_dequeue(b"a"))
        self.enqueue(b"aa", b"m")
        self.assertEqual(self.list(b"B", 2), [(b"aa", 1), (b"ab", 2)])
        self.enqueue(b"aaa", b"m")
        self.assertEqual(self.list(b"B", 2), [(b"aa", 1), (b"aaa", 1)])

    def test_bounds(self):
        self.start(result_bytes_max=40, listings_per_request_max=2)
        for name in (b"a" * 9, b"b" * 9, b"c" * 30):
            self.enqueue(name, b"m")
        self.assertEqual(self.list(), [(b"a" * 9, 1), (b"b" * 9, 1)])
        self.assertEqual(self.machine.read(commands.encode_queues(b"b" * 9))[0], Status.REPLY_FULL)
        self.assertEqual(self.machine.read(commands.encode_queues(b"", 0))[0], Status.LIMIT)
        last = commands.encode_queues(b"z")
        self.assert_results(self.do(last, last, last), Status.OK, Status.OK, Status.REPLY_FULL)


class ReadTest(MachineCase):

    def test_reads_and_what_is_none(self):
        self.enqueue(b"q", b"1", b"2")
        status, payload = self.machine.read(commands.encode_peek(b"q", 5))
        self.assertEqual((status, self.texts(payload)), (Status.OK, [b"1", b"2"]))
        for command, status in ((commands.encode_dequeue(b"q"), Status.UNKNOWN),
                                (commands.encode_enqueue(b"q", [b"x"]), Status.UNKNOWN),
                                (commands.encode_execute([]), Status.UNKNOWN),
                                (commands.encode_close(), Status.UNKNOWN),
                                (commands.encode_size(b"q")[:-1], Status.MALFORMED),
                                (commands.encode_size(b"q") * 2, Status.MALFORMED),
                                (b"\0\0\0\x01\x04", Status.MALFORMED),
                                (b"\0\0\0\0", Status.MALFORMED), (b"", Status.MALFORMED),
                                (commands.encode_peek(b"q", 0), Status.LIMIT)):
            with self.subTest(command=command):
                self.assertEqual(self.machine.read(command)[0], status)
        self.assertEqual(self.contents(), [b"1", b"2"])
