"""The checker must find what it is for: a fabricated history for each kind of violation."""

import unittest

from tests.crash.history import Enqueue, History, violations


class TestViolations(unittest.TestCase):
    """Two producers, two consumers, one after the other."""

    def setUp(self):
        self.history = History()
        for number in range(1, 11):
            for producer in (1, 2):
                message_id = 2 * number + producer - 2
                self.history.enqueues.append(
                    Enqueue(producer, number, float(message_id), message_id, message_id + 0.5))
        texts = {e.message_id: e.text for e in self.history.enqueues}
        self.history.deliveries = {
            "a": [(i, texts[i]) for i in range(1, 21) if i % 3],
            "b": [(i, texts[i]) for i in range(1, 21) if not i % 3]}

    def assert_found(self, *kinds: str):
        """These kinds of violations, each at least once, and no other."""
        found = violations(self.history)
        self.assertEqual({line.split(":")[0] for line in found}, set(kinds), found)

    def test_right(self):
        self.assert_found()

    def test_empty(self):
        self.assertEqual(violations(History()), [])

    def test_lost(self):
        self.history.deliveries["a"].pop(3)
        self.assert_found("lost")

    def test_lost_all(self):
        self.history.deliveries.clear()
        self.assert_found("lost")

    def test_taken_by_a_dequeue_of_unknown_outcome(self):
        self.history.deliveries["a"].pop(3)
        self.history.dequeues_unknown = 1
        self.assert_found()
        self.history.deliveries["a"].pop(3)
        self.assert_found("lost")

    def test_delivered_twice_to_two(self):
        self.history.deliveries["c"] = [self.history.deliveries["a"][-1]]
        self.assert_found("duplicate")

    def test_delivered_twice_to_one(self):
        self.history.deliveries["a"].append(self.history.deliveries["a"][-1])
        self.assert_found("duplicate", "order")

    def test_enqueued_twice(self):
        # A retry that was executed again: the same text under another id.
        self.history.deliveries["a"].append((21, "c1-000010"))
        self.assert_found("duplicate", "changed")

    def test_unknown_outcome_may_be_delivered_once_or_never(self):
        last = self.history.enqueues[-1]
        last.message_id = 0
        self.assert_found()
        for messages in self.history.deliveries.values():
            messages[:] = [m for m in messages if m[1] != last.text]
        self.assert_found()

    def test_unknown_outcome_delivered_twice(self):
        self.history.enqueues[-1].message_id = 0
        self.history.deliveries["c"] = [(21, self.history.enqueues[-1].text)]
        self.assert_found("duplicate")

    def test_invented(self):
        self.history.deliveries["a"].append((21, "c7-000001"))
        self.assert_found("invented")

    def test_two_texts_of_one_id(self):
        self.history.enqueues[-1].message_id = 0
        name = self.history.enqueues[-1].text
        self.history.deliveries = {
            "a": [(i, t) for messages in self.history.deliveries.values() for i, t in messages
                  if t != name]}
        self.history.deliveries["a"].sort()
        self.history.deliveries["c"] = [(19, name)]
        self.assert_found("changed")

    def test_a_producers_messages_change_places(self):
        first, second = self.history.enqueues[0], self.history.enqueues[2]
        first.message_id, second.message_id = second.message_id, first.message_id
        texts = {e.message_id: e.text for e in self.history.enqueues}
        for messages in self.history.deliveries.values():
            messages[:] = [(i, texts[i]) for i, _ in messages]
        self.assert_found("order", "time")

    def test_order_is_seen_where_only_the_delivery_tells_the_id(self):
        enqueue = self.history.enqueues[4]      # producer 1, number 3, message 5
        enqueue.message_id = 0
        for messages in self.history.deliveries.values():
            messages[:] = [m for m in messages if m[1] != enqueue.text]
        self.history.deliveries["c"] = [(22, enqueue.text)]     # behind all that followed
        self.assert_found("order")

    def test_a_consumer_sees_them_in_another_order(self):
        messages = self.history.deliveries["a"]
        messages[3], messages[4] = messages[4], messages[3]
        self.assert_found("order")

    def test_a_later_enqueue_gets_an_earlier_place(self):
        # Of two producers, so that neither's own order is broken.
        enqueue = self.history.enqueues[-1]
        enqueue.begun_s, enqueue.ended_s = 90.0, 91.0
        self.history.enqueues[-2].message_id = 30
        self.history.enqueues[-2].ended_s = 89.0
        for messages in self.history.deliveries.values():
            messages[:] = [(30, t) if i == 19 else (i, t) for i, t in messages]
            messages.sort()
        self.assert_found("time")

    def test_longest_gap(self):
        self.history.answers_s = [1.0, 1.5, 4.0, 4.1]
        self.assertEqual(self.history.longest_gap_s(1.0, 4.2), 2.5)
        self.assertEqual(self.history.longest_gap_s(4.1, 9.1), 5.0)


if __name__ == "__main__":
    unittest.main()
