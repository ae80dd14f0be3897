"""The checker of histories: every kind of violation is found, and nothing possible is accused.

The second half compares it with a search that tries every order of small histories (Wing and Gong):
what the search accepts, the checker must accept; what it rejects, the checker should mostly find.
"""

import random
import unittest
from unittest import mock

from raftnet.simulation.histories import (
    DEQUEUE, ENQUEUE, PEEK, SIZE, HistoryError, Operation, Step, check)
from raftnet.simulation.invariants import InvariantError, Invariants

Q, R = b"q", b"r"


def _messages(numbers) -> list[tuple[int, bytes]]:
    return [(number, b"m%d" % number) for number in numbers]


class _History:
    """Builds a history. Message `n` is b"m<n>" and ought to have the id n."""

    def __init__(self):
        self.operations: list[Operation] = []

    def add(self, steps: list[Step], asked: int, answered: int | None,
            session: int = 0, sequence: int = 0) -> "_History":
        if answered is None:
            for step in steps:
                step.answer = None
        self.operations.append(Operation("c", session, sequence, steps, asked, answered))
        return self

    def put(self, numbers: list[int], asked: int, answered: int | None, queue: bytes = Q,
            **session) -> "_History":
        return self.add([put(numbers, queue)], asked, answered, **session)

    def take(self, numbers: list[int], asked: int, answered: int | None, count: int = 0,
             queue: bytes = Q, **session) -> "_History":
        return self.add([take(numbers, count, queue)], asked, answered, **session)

    def peek(self, numbers: list[int], asked: int, answered: int, count: int = 0) -> "_History":
        step = Step(PEEK, Q, count=count or len(numbers) or 1, answer=_messages(numbers))
        return self.add([step], asked, answered)

    def size(self, size: int, asked: int, answered: int) -> "_History":
        return self.add([Step(SIZE, Q, answer=size)], asked, answered)


def put(numbers: list[int], queue: bytes = Q) -> Step:
    """An answered enqueue."""
    return Step(ENQUEUE, queue, tuple(m for _, m in _messages(numbers)), answer=numbers[0])


def take(numbers: list[int], count: int = 0, queue: bytes = Q) -> Step:
    """An answered dequeue; none: EMPTY."""
    return Step(DEQUEUE, queue, count=count or len(numbers) or 1, answer=_messages(numbers))


class HistoriesTest(unittest.TestCase):
    """Fabricated histories."""

    def accept(self, history: _History, drained: bool = False) -> None:
        check(history.operations, drained)

    def refuse(self, history: _History, pattern: str, drained: bool = False) -> None:
        with self.assertRaisesRegex(HistoryError, pattern) as caught:
            check(history.operations, drained)
        self.assertNotIn("\n", str(caught.exception))

    # --- messages

    def test_delivered_twice(self):
        self.refuse(_History().put([1], 0, 1).take([1], 2, 3).take([1], 4, 5),
                    "sessions exactly once: m1 came twice")

    def test_invented(self):
        self.refuse(_History().put([1], 0, 1).take([2], 2, 3), "queue conservation: m2 was never")

    def test_of_another_queue(self):
        self.refuse(_History().put([1], 0, 1).take([1], 2, 3, queue=R), "m1 is of another queue")

    def test_more_than_asked_for(self):
        self.refuse(_History().put([1, 2], 0, 1).take([1, 2], 2, 3, count=1), "more than were")

    def test_changed_id(self):
        history = _History().put([1], 0, 1)
        history.operations[0].steps[0].answer = 2
        self.refuse(history.take([1], 2, 3), "queue conservation: m1 changed its id")

    def test_two_messages_with_one_id(self):
        history = _History().put([1], 0, 1).put([2], 0, 1)
        history.operations[1].steps[0].answer = 1
        self.refuse(history, "two messages with id 1")

    def test_ids_given_to_nobody(self):
        self.refuse(_History().put([2], 0, 1), "1 ids before 2 cannot have been given")
        self.refuse(_History().put([2], 0, 1).put([1], 2, None), "cannot have been given")
        self.refuse(_History().put([2], 0, 1).put([1, 3], 0, None), "cannot have been given")
        self.accept(_History().put([1], 0, None).put([2], 0, 1))

    def test_acknowledged_and_lost(self):
        history = _History().put([1], 0, 1).put([2], 2, 3)
        self.refuse(history, "queue conservation: m1 is lost in q", drained=True)
        self.refuse(history.take([2], 4, 5), "queue conservation: m1 is lost in q")

    def test_lost_to_a_dequeue_of_unknown_outcome(self):
        history = _History().put([1], 0, 1).put([2], 2, 3).take([], 4, None, count=1)
        self.accept(_History().put([1], 0, 1).take([], 4, None), drained=True)
        self.refuse(history, "m2 is lost", drained=True)        # it took one at most
        self.accept(history.take([2], 4, 6), drained=True)

    def test_the_dequeue_of_unknown_outcome_was_asked_too_late(self):
        self.refuse(_History().put([1], 0, 1).put([2], 2, 3).take([2], 4, 5)
                    .take([], 6, None, count=1), "first in, first out")

    def test_two_gaps_need_two_takers(self):
        history = (_History().put([1], 0, 1).put([2], 2, 3).put([3], 4, 5).put([4], 6, 7)
                   .take([2], 8, 9).take([4], 10, 11).take([], 8, None, count=2))
        self.refuse(history, "m3 is lost")
        self.accept(history.take([], 9, None))

    # --- order

    def test_enqueues_in_the_order_of_time(self):
        self.refuse(_History().put([2], 0, 1).put([1], 2, 3), "first in, first out")
        self.accept(_History().put([2], 0, 2).put([1], 2, 3))

    def test_enqueues_in_the_order_of_time_over_queues(self):
        self.refuse(_History().put([2], 0, 1).put([1], 2, 3, queue=R), "first in, first out")

    def test_dequeues_in_the_order_of_the_enqueues(self):
        enqueued = [1], 0, 1
        self.refuse(_History().put(*enqueued).put([2], 2, 3).take([2], 4, 5).take([1], 6, 7),
                    "first in, first out")
        self.accept(_History().put(*enqueued).put([2], 2, 3).take([2], 4, 6).take([1], 6, 7))

    def test_one_dequeue_leaves_none_out(self):
        self.refuse(_History().put([1, 2, 3], 0, 1).take([1, 3], 2, 3).take([2], 2, 3),
                    "first in, first out: not the next in order")

    def test_dequeued_before_it_was_enqueued(self):
        self.refuse(_History().take([1], 0, 1).put([1], 2, 3), "queue conservation")
        self.refuse(_History().take([1], 0, 1).put([1], 2, None), "queue conservation")

    def test_what_follows_from_the_order_of_others(self):
        """m2 came before 3 although its enqueue is unknown, so m1 did."""
        self.refuse(_History().put([2], 0, None).take([2], 1, 3).put([1], 4, 9),
                    "queue conservation: m1 is lost in q")
        self.refuse(_History().put([2], 0, None).take([2], 1, 3).put([1], 4, 9, queue=R),
                    "first in, first out|queue conservation")

    def test_session_order(self):
        history = _History().put([2], 0, 9, session=1, sequence=1)
        self.refuse(history.put([1], 0, 9, session=1, sequence=2), "each must be before the other")
        history = _History().put([1], 0, 1).take([1], 2, 20, session=1, sequence=1)
        self.refuse(history.put([2], 2, 20, session=1, sequence=2).peek([1], 21, 22),
                    "peek answers|session order")

    def test_left_out_in_a_session(self):
        history = _History().put([1], 0, None, session=1, sequence=1)
        history.put([2], 0, 1, session=1, sequence=2).take([2], 2, 3)
        self.refuse(history, "session order: executed without")
        self.accept(history.take([], 2, None))

    # --- empty, peek, size

    def test_empty_although_something_waited(self):
        self.refuse(_History().put([1], 0, 1).take([], 2, 3).take([1], 4, 5), "empty answers")
        self.accept(_History().put([1], 0, 2).take([], 2, 3).take([1], 4, 5))
        self.accept(_History().put([1], 0, 1).take([], 2, 4).take([1], 4, 5))

    def test_empty_and_a_dequeue_of_unknown_outcome(self):
        history = _History().put([1], 0, 1).take([], 2, None).take([], 3, 4)
        self.accept(history)
        self.refuse(_History().put([1], 0, 1).take([], 5, None).take([], 3, 4), "empty answers")
        self.refuse(history.take([1], 5, 6), "empty answers")

    def test_empty_between_overlapping_messages(self):
        """Each message alone leaves a moment for EMPTY; both together leave none."""
        self.refuse(_History().put([1], 0, 1).put([2], 2, 3).take([1], 4, 7).take([2], 8, 9)
                    .take([], 2, 6), "empty answers")

    def test_less_than_asked_for(self):
        self.refuse(_History().put([1], 0, 1).put([2], 2, 3).take([1], 4, 5, count=2)
                    .take([2], 6, 7), "empty answers")
        self.accept(_History().put([1], 0, 1).put([2], 2, 4).take([1], 4, 5, count=2)
                    .take([2], 6, 7))

    def test_stale_peek(self):
        self.refuse(_History().put([1], 0, 1).take([1], 2, 3).peek([1], 4, 5), "peek answers")
        self.accept(_History().put([1], 0, 1).take([1], 2, 4).peek([1], 4, 5))

    def test_peek_past_the_head(self):
        history = _History().put([1], 0, 1).put([2], 2, 3).peek([2], 4, 5)
        self.refuse(history, "m1 is lost|peek answers")
        self.refuse(_History().put([1], 0, 1).put([2], 2, 3).peek([2], 4, 5).take([1], 6, 7),
                    "peek answers")
        self.accept(history.take([1], 5, 7))

    def test_peek_of_what_was_never_there(self):
        self.refuse(_History().peek([1], 0, 1), "m1 was never sent")
        self.refuse(_History().peek([1], 0, 1).put([1], 2, 3), "peek answers")

    def test_peek_of_less_than_there_was(self):
        self.refuse(_History().put([1], 0, 1).put([2], 2, 3).peek([1], 4, 5, count=2),
                    "empty answers")
        self.refuse(_History().put([1], 0, 1).peek([], 2, 3).take([1], 4, 5), "empty answers")

    def test_size(self):
        history = _History().put([1], 0, 1).put([2], 2, 3).take([1], 4, 5)
        for asked, size in ((1, 1), (4, 2), (6, 1)):
            with self.subTest(asked=asked):
                self.accept(self._sized(history, size, asked))
                self.refuse(self._sized(history, size + 1, asked), "size answers")
        self.refuse(self._sized(history, 0, 6), "size answers")

    @staticmethod
    def _sized(history: _History, size: int, asked: int) -> _History:
        sized = _History()
        sized.operations = list(history.operations)
        return sized.size(size, asked, asked)

    def test_size_with_unknown_outcomes(self):
        self.accept(_History().put([1], 0, 1).put([2], 2, None).size(2, 3, 4))
        self.refuse(_History().put([1], 0, 1).put([2], 5, None).size(2, 3, 4), "size answers")
        self.accept(_History().put([1], 0, 1).take([], 2, None).size(0, 3, 4))
        self.refuse(_History().put([1], 0, 1).take([], 5, None).size(0, 3, 4), "size answers")

    # --- atomic lists

    def test_a_list_at_one_moment(self):
        good = _History().put([1], 0, 1).add([take([1]), put([2], R), take([], 1)], 2, 5)
        self.accept(good)
        self.refuse(_History().put([1], 0, 1).add([take([], 1), take([1])], 2, 5), "empty answers")
        self.refuse(_History().add([take([1]), put([1])], 2, 5), "atomic lists")
        self.accept(_History().add([put([1]), take([1])], 2, 5))

    def test_nothing_between_the_steps_of_a_list(self):
        self.refuse(_History().put([1, 2, 3], 0, 1).add([take([1]), take([3])], 2, 9)
                    .take([2], 2, 9), "atomic lists")
        history = _History().put([2], 0, 9).add([put([1]), put([3])], 0, 9)
        self.refuse(history, "atomic lists")

    def test_all_of_a_list_or_nothing(self):
        history = _History().add([put([1]), put([2], R)], 0, None).take([1], 1, 2)
        self.accept(history)
        self.refuse(history, "m2 is lost", drained=True)
        self.refuse(history.take([], 3, 4, queue=R), "m2 is lost in r")

    # --- the whole

    def test_a_refused_wait_has_no_effect(self):
        history = _History().put([1], 0, 1).take([], 2, 3)
        history.operations[1].refused = True
        self.accept(history)

    def test_clients_are_judged_by_their_histories(self):
        client = mock.Mock(history=_History().put([1], 0, 1).operations)
        with self.assertRaisesRegex(InvariantError, "queue conservation: m1 is lost"):
            Invariants().check_histories([client])
        client = mock.Mock(history=_History().put([1], 0, 1).take([1], 2, 3).operations)
        Invariants().check_histories([client])


class _Search:
    """Every order of a small history, until one fits."""

    def __init__(self, history: list[Operation]):
        self.history = [operation for operation in history if not operation.refused]
        self.needed = sum(1 << at for at, operation in enumerate(self.history)
                          if operation.answered_ms is not None)
        self.before = []        # for each: who must have happened earlier, as bits
        for operation in self.history:
            bits = 0
            for at, other in enumerate(self.history):
                if (other.answered_ms is not None and other.answered_ms < operation.invoked_ms
                        or operation.session and other.session == operation.session
                        and other.client == operation.client
                        and other.sequence < operation.sequence):
                    bits |= 1 << at
            self.before.append(bits)
        self._seen = set()

    def fits(self, done: int = 0, queues: tuple = ((), ()), next_id: int = 1) -> bool:
        """Whether some order of the rest fits."""
        if done & self.needed == self.needed:
            return True
        if (done, queues, next_id) in self._seen:
            return False
        self._seen.add((done, queues, next_id))
        for at, operation in enumerate(self.history):
            if not done >> at & 1 and self.before[at] & ~done == 0:
                after = self._perform(operation, queues, next_id)
                if after is not None and self.fits(done | 1 << at, *after):
                    return True
        return False

    @staticmethod
    def _perform(operation: Operation, queues: tuple, next_id: int) -> tuple | None:
        contents = {Q: list(queues[0]), R: list(queues[1])}
        for step in operation.steps:
            answer, next_id = perform(step, contents[step.queue], next_id)
            if step.answer is not None and step.answer != answer:
                return None
        return (tuple(contents[Q]), tuple(contents[R])), next_id


def perform(step: Step, queue: list[tuple[int, bytes]], next_id: int) -> tuple:
    """What a queue does: (answer, next id)."""
    if step.kind == ENQUEUE:
        queue += [(next_id + i, message) for i, message in enumerate(step.messages)]
        return next_id, next_id + len(step.messages)
    if step.kind == SIZE:
        return len(queue), next_id
    found = queue[:step.count]
    if step.kind == DEQUEUE:
        del queue[:step.count]
    return found, next_id


class _Generator:
    """Small histories that did happen, and what becomes of them by a small change."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.sent = 0

    def valid(self) -> list[Operation]:
        rand = self.random
        queues: dict[bytes, list] = {Q: [], R: []}
        next_id, history, sessions = 1, [], {"a": 1, "b": 1, "c": 1}
        spread = rand.choice((4, 12, 30))
        for at in range(rand.randint(3, 9)):
            client = rand.choice("abc")
            steps = [self._step() for _ in range(rand.choice((1, 1, 1, 1, 2, 3)))]
            if len(steps) > 1:
                steps = [s for s in steps if s.kind in (ENQUEUE, DEQUEUE)] or [self._step()]
            now = 100 + 10 * at
            operation = Operation(client, sessions[client], at, steps,
                                  now - rand.randint(0, spread), now + rand.randint(0, spread))
            unknown = rand.random() < 0.2
            if not unknown or rand.random() < 0.5:
                for step in steps:
                    step.answer, next_id = perform(step, queues[step.queue], next_id)
            if unknown:
                operation.answered_ms = None
                sessions[client] += 1
                for step in steps:
                    step.answer = None
            history.append(operation)
        return history

    def _step(self) -> Step:
        rand = self.random
        queue = Q if rand.random() < 0.75 else R
        kind = rand.choice((ENQUEUE, ENQUEUE, ENQUEUE, DEQUEUE, DEQUEUE, DEQUEUE, PEEK, SIZE))
        if kind == ENQUEUE:
            messages = []
            for _ in range(rand.choice((1, 1, 2))):
                self.sent += 1
                messages.append(b"m%d" % self.sent)
            return Step(kind, queue, tuple(messages))
        return Step(kind, queue, count=rand.randint(1, 3) if kind != SIZE else 0)

    def damage(self, history: list[Operation]) -> None:
        """Change one thing, so that the history may be impossible now."""
        rand = self.random
        operation = rand.choice(history)
        way = rand.randint(0, 5)
        if way == 0:
            delta = rand.choice((-40, -20, -10, 10, 20, 40))
            operation.invoked_ms += delta
            if operation.answered_ms is not None:
                operation.answered_ms += delta
            return
        if way == 1:
            operation.answered_ms = None
            for step in operation.steps:
                step.answer = None
            return
        answered = [o for o in history if o.answered_ms is not None]
        if not answered:
            return
        step = rand.choice(rand.choice(answered).steps)
        if isinstance(step.answer, int):
            step.answer = max(0, step.answer + rand.choice((-1, 1)))
        elif way == 2:
            step.answer = []
        elif way == 3:
            step.answer = step.answer[:-1]
        else:
            others = [s for o in answered for s in o.steps if s.kind == step.kind]
            other = rand.choice(others)
            step.answer, other.answer = other.answer, step.answer


def compare(seeds: range) -> tuple[int, int, int]:
    """(possible histories, impossible ones, how many of these were found)."""
    possible = impossible = found = 0
    for seed in seeds:
        generator = _Generator(seed)
        history = generator.valid()
        for _ in range(seed % 3):
            generator.damage(history)
        fits = _Search(history).fits()
        assert fits or seed % 3, f"seed {seed}: the search refuses what happened"
        try:
            check(history)
        except HistoryError as error:
            assert not fits, f"seed {seed}: accused although possible: {error}"
            found += 1
        possible += fits
        impossible += not fits
    return possible, impossible, found


class SearchTest(unittest.TestCase):
    """Against the search of all orders."""

    def test_nothing_possible_is_accused_and_most_of_the_rest_is_found(self):
        possible, impossible, found = compare(range(3_000))
        self.assertGreater(possible, 1_200)
        self.assertGreater(impossible, 800)
        self.assertGreater(found / impossible, 0.95)


if __name__ == "__main__":
    unittest.main()
