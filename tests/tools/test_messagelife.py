"""One message's life through leases, delays, dead letters, redrives, times to live, purges and
transactions: what is told of chosen histories, and that nothing is missing of random ones."""

import re
import unittest

from raftnet.machine.machine import Applied
from raftnet.raft.entry import EntryKind, encode_entry
from raftnet.raft.membership import NO_MEMBERSHIP
from raftnet.rebuild import Rebuilt
from raftnet.wire import commands, queuecommands, transactions
from raftnet.wire.requests import NO_SESSION, encode_request
from tests.machine.driver import A, B
from tests.machine.histories import HistoryCase
from tools.messagelife import MessageLife
from tools.messagespot import find
from tools.messagetouches import touches
from tools.readonlydisk import Progress


class LifeCase(HistoryCase):
    """A machine whose entries are watched for some messages."""

    def setUp(self):
        super().setUp()
        self.lives: dict[int, MessageLife] = {}
        self.facts: dict[int, list[str]] = {}

    def follow(self, *ids: int) -> None:
        """Watch for these messages from now on."""
        for message_id in ids:
            self.lives[message_id] = life = MessageLife(message_id, Progress())
            life.watch(self.rebuilt(), None, None)

    def rebuilt(self) -> Rebuilt:
        index = self.machine.applied_index
        return Rebuilt(self.machine, index, 2, 1, NO_MEMBERSHIP, index)

    def apply(self, *bodies: bytes, at: int | None = None) -> Applied:
        payload = commands.encode_batch(self.machine.time_ms if at is None else at, list(bodies))
        entry = encode_entry(self.machine.applied_index + 1, 2, EntryKind.BATCH, payload)
        applied = self.machine.apply(entry)
        for message_id, life in self.lives.items():
            life.watch(self.rebuilt(), entry, applied)
            self.facts.setdefault(message_id, []).extend(
                touch.event for touch in touches(entry, applied, message_id))
        return applied

    def life(self, message_id: int) -> list[str]:
        """The lines, without what is the same in all of them."""
        life = self.lives[message_id]
        return [" ".join(re.sub(r" term 2|request without a session| queue q(?=[ ,]|$)", "", line)
                         .split()) for line in (*life.events, *life.now(self.rebuilt()))]


class ChosenTest(LifeCase):

    def do(self, *pieces: bytes, at: int | None = None) -> None:
        """One entry with a request for each command."""
        self.apply(*[encode_request(NO_SESSION, 1, 0, [piece]) for piece in pieces], at=at)

    def told(self, message_id: int, *lines: str) -> None:
        """Exactly these lines, each without its term, and with `q` where nothing else is said."""
        self.assertEqual(self.life(message_id), list(lines))

    def test_lease_extend_ack(self):
        self.follow(1)
        self.do(commands.encode_enqueue(b"q", [b"m"]))
        self.told(1, "came entry 1.0 time 0 ms", "waits after entry 1 time 0 ms place 1 of 1")
        self.do(queuecommands.encode_lease(b"q", 100, consumer=b"me"), at=10)
        self.do(queuecommands.encode_extend([(1, 1)], 200), at=50)
        self.do(queuecommands.encode_extend([(1, 1)], 200), at=50)      # says nothing new
        self.do(queuecommands.encode_ack([(1, 1)]), at=60)
        self.assertEqual(self.lives[1].events[1], "leased entry 2.0 term 2 time 10 ms queue q "
                         "delivery 1 by me until 110 ms request without a session")
        self.told(1, "came entry 1.0 time 0 ms",
                  "leased entry 2.0 time 10 ms delivery 1 by me until 110 ms",
                  "extended entry 3.0 time 50 ms delivery 1 by me until 250 ms",
                  "acked entry 5.0 time 60 ms delivery 1 by me")

    def test_expired_dead_and_redriven(self):
        """Also what time alone brought about, in entries that ask nothing of the message."""
        self.follow(1, 2)
        self.do(commands.encode_enqueue(b"q", [b"m", b"n"]))
        self.do(queuecommands.encode_configure(b"q", {2: 2}))
        self.do(queuecommands.encode_lease(b"q", 100, 2, consumer=b"me"), at=10)
        self.apply(at=200)
        self.do(queuecommands.encode_lease(b"q", 100), at=210)
        self.apply(at=400)
        expired = ["came entry 1.0 time 0 ms",
                   "leased entry 3.0 time 10 ms delivery 1 by me until 110 ms",
                   "expired entry 4 time 200 ms delivery 1 by me: its lease ended at 110 ms",
                   "leased entry 5.0 time 210 ms delivery 3 until 310 ms",
                   "expired entry 6 time 400 ms delivery 3: its lease ended at 310 ms",
                   "dead entry 6 time 400 ms queue q.dead from q, deliveries are at their limit"]
        self.told(1, *expired, "waits after entry 6 time 400 ms queue q.dead place 1 of 1")
        self.do(queuecommands.encode_redrive(b"q.dead"), at=410)
        self.told(1, *expired, "redriven entry 7.0 time 410 ms from q.dead",
                  "waits after entry 7 time 410 ms place 2 of 2")
        self.told(2, "came entry 1.0 time 0 ms",
                  "leased entry 3.0 time 10 ms delivery 2 by me until 110 ms",
                  "expired entry 4 time 200 ms delivery 2 by me: its lease ended at 110 ms",
                  "waits after entry 7 time 410 ms place 1 of 2")

    def test_nacked_delayed_purged(self):
        self.follow(1, 2)
        self.do(commands.encode_enqueue(b"q", [b"m"]))
        lease = queuecommands.encode_lease(b"q", 100)
        self.do(lease)
        self.do(queuecommands.encode_nack([(1, 1)], 30, b"busy"))
        self.assertEqual(self.life(1)[-1], "waits after entry 3 time 0 ms delayed until 30 ms")
        self.apply(at=40)
        self.do(lease)
        self.assertEqual(self.life(1)[-1],
                         "waits after entry 5 time 40 ms leased, delivery 2 until 140 ms")
        self.do(queuecommands.encode_nack([(1, 2)], None))
        self.apply(at=5_000)
        self.do(lease)
        self.do(queuecommands.encode_nack([(1, 3)], 0, b"x y"))
        self.do(queuecommands.encode_purge(b"q", 5))
        self.told(1, "came entry 1.0 time 0 ms",
                  "leased entry 2.0 time 0 ms delivery 1 until 100 ms",
                  'nacked entry 3.0 time 0 ms delivery 1 "busy", delayed until 30 ms',
                  "ready entry 4 time 40 ms its delay is over",
                  "leased entry 5.0 time 40 ms delivery 2 until 140 ms",
                  "nacked entry 6.0 time 40 ms delivery 2, delayed until 2040 ms",
                  "ready entry 7 time 5000 ms its delay is over",
                  "leased entry 8.0 time 5000 ms delivery 3 until 5100 ms",
                  'nacked entry 9.0 time 5000 ms delivery 3 "x y"',
                  "purged entry 10.0 time 5000 ms")
        self.assertEqual((self.lives[2].other, self.lives[2].events), (4, []))

    def test_much_in_one_entry(self):
        self.follow(1)
        self.do(commands.encode_enqueue(b"q", [b"m"]),
                queuecommands.encode_configure(b"q", {2: 1, 1: b"d"}))
        self.do(queuecommands.encode_lease(b"q", 100))
        self.do(queuecommands.encode_nack([(1, 1)], 30, b"busy"),
                queuecommands.encode_lease(b"d", 50), queuecommands.encode_nack([(1, 2)]),
                queuecommands.encode_redrive(b"d"), commands.encode_dequeue(b"q"))
        self.told(1, "came entry 1.0 time 0 ms",
                  "leased entry 2.0 time 0 ms delivery 1 until 100 ms",
                  'nacked entry 3.0 time 0 ms delivery 1 "busy"',
                  "dead entry 3.0 time 0 ms queue d from q, deliveries are at their limit",
                  "leased entry 3.1 time 0 ms queue d delivery 2 until 50 ms",
                  "nacked entry 3.2 time 0 ms queue d delivery 2",
                  "redriven entry 3.3 time 0 ms from d", "taken entry 3.4 time 0 ms")

    def test_times_to_live(self):
        self.follow(1, 2, 3)
        put = queuecommands.encode_enqueue_with
        self.do(queuecommands.encode_configure(b"d", {1: b"dd"}), put(b"q", [b"m"], 0, 0, 50),
                put(b"d", [b"m"], 3, 20, 50), put(b"q", [b"m"], 0, 0, 50, [b"id"]))
        self.do(queuecommands.encode_lease(b"q", 100))
        self.apply(at=60)
        self.apply(at=150)
        self.told(1, "came entry 1.1 time 0 ms ttl 50 ms",
                  "leased entry 2.0 time 0 ms delivery 1 until 100 ms",
                  "expired entry 4 time 150 ms delivery 1: its lease ended at 100 ms",
                  "gone entry 4 time 150 ms its time to live ended")
        self.told(2, "came entry 1.2 time 0 ms queue d priority 3 ttl 50 ms delayed until 20 ms",
                  "ready entry 3 time 60 ms queue d its delay is over",
                  "dead entry 4 time 150 ms queue dd from d, its time to live ended",
                  "waits after entry 4 time 150 ms queue dd place 1 of 1")
        self.told(3, "came entry 1.3 time 0 ms ttl 50 ms",
                  "gone entry 3 time 60 ms its time to live ended")

    def test_those_that_wait(self):
        self.follow(1, 2)
        self.ask(A, 1, queuecommands.encode_lease(b"q", 100, 1, 1000, b"w"))
        self.ask(B, 1, commands.encode_dequeue(b"q", 1, 1000))
        self.do(commands.encode_enqueue(b"q", [b"m"]))
        self.do(commands.encode_enqueue(b"q", [b"n"]))
        self.ask(B, 2, queuecommands.encode_lease(b"q", 100, 1, 1000, b"w2"), at=90)
        self.apply(at=120)
        a, b = A.hex(), B.hex()
        self.told(1, "came entry 3.0 time 0 ms", "leased entry 3 time 0 ms delivery 1 by w until "
                  f"100 ms request {a}:1, which waited",
                  "expired entry 6 time 120 ms delivery 1 by w: its lease ended at 100 ms",
                  "leased entry 6 time 120 ms delivery 2 by w2 until 220 ms "
                  f"request {b}:2, which waited",
                  "waits after entry 6 time 120 ms leased, delivery 2 by w2 until 220 ms")
        self.told(2, "came entry 4.0 time 0 ms",
                  f"taken entry 4 time 0 ms request {b}:1, which waited")

    def test_overflow(self):
        self.follow(1, 3, 4)
        self.do(queuecommands.encode_configure(b"q", {4: 2, 6: 1}))
        self.do(commands.encode_enqueue(b"q", [b"m", b"n"]))
        self.do(commands.encode_enqueue(b"q", [b"o"]))
        self.told(1, "came entry 2.0 time 0 ms",
                  "dead entry 3 time 0 ms queue q.dead from q, its queue was full",
                  "waits after entry 3 time 0 ms queue q.dead place 1 of 1")
        self.told(4, "came entry 3.0 time 0 ms", "waits after entry 3 time 0 ms place 2 of 2")
        self.assertEqual(self.lives[3].other, 3)

    def test_transactions(self):
        """An undone list does nothing."""
        self.follow(1, 2)
        self.do(commands.encode_enqueue(b"q", [b"m"]))
        self.do(queuecommands.encode_lease(b"q", 100))
        self.do(transactions.encode_transact([], [
            commands.encode_enqueue(b"r", [b"r"]), queuecommands.encode_ack([(1, 1)])]))
        self.do(commands.encode_execute([queuecommands.encode_lease(b"r", 100),
                                         queuecommands.encode_ack([(2, 2), (9, 9)])]))
        self.told(1, "came entry 1.0 time 0 ms",
                  "leased entry 2.0 time 0 ms delivery 1 until 100 ms",
                  "acked entry 3.0 time 0 ms delivery 1")
        self.told(2, "came entry 3.0 time 0 ms queue r",
                  "waits after entry 4 time 0 ms queue r place 1 of 1")

    def test_from_the_middle_on(self):
        """As where the files begin with a snapshot."""
        self.do(commands.encode_enqueue(b"q", [b"m", b"n"]))
        self.do(queuecommands.encode_lease(b"q", 100))
        self.do(queuecommands.encode_enqueue_with(b"q", [b"o"], 0, 40))
        self.follow(1, 2, 3)
        self.do(queuecommands.encode_ack([(1, 1)]), at=50)
        begin = "came up to entry 3, with which these files begin: queue q"
        self.told(1, begin.replace(" queue q", ", leased until 100 ms"),
                  "acked entry 4.0 time 50 ms delivery 1")
        self.told(2, begin.replace(" queue q", ""), "waits after entry 4 time 50 ms place 1 of 2")
        self.told(3, begin.replace(" queue q", ", delayed until 40 ms"),
                  "ready entry 4 time 50 ms its delay is over",
                  "waits after entry 4 time 50 ms place 2 of 2")


class RandomTest(LifeCase):

    # what an event makes of where the message is
    STEPS = {"leased": (("ready",), "leased"), "extended": (("leased",), "leased"),
             "acked": (("leased",), None), "nacked": (("leased",), "ready"),
             "expired": (("leased",), "ready"), "ready": (("delayed",), "ready"),
             "dead": (("ready", "delayed"), "ready"), "redriven": (("ready",), "ready"),
             "taken": (("ready",), None), "purged": (("ready", "delayed"), None),
             "gone": (("ready", "delayed"), None)}

    def check(self, message_id: int) -> list[str]:
        """Its life leads to where it is; the events."""
        life, spot = self.lives[message_id], find(self.machine, message_id)
        text = "\n".join(life.events)
        if not life.events:
            self.assertIsNone(spot)
            return []
        where = "delayed" if "delayed until" in life.events[0] else "ready"
        queue = None
        events = []
        for line in life.events[1:]:
            event = line.split()[0]
            if "do not say how" in line:        # moved and purged in one entry
                event, where = "unknown", None
            else:
                self.assertIn(where, self.STEPS[event][0], f"{event}:\n{text}")
                where = self.STEPS[event][1]
                queue = re.search(r" ms (?:queue (\S+)|another queue)", line)[1]
            if event == "nacked" and "delayed until" in line:
                where = "delayed"
            events.append(event)
        self.assertEqual(where, None if spot is None else spot.where, text)
        if spot is not None and queue is not None:
            self.assertEqual(queue.encode()[:50], spot.queue[:50], text)
        for event in ("leased", "acked", "nacked", "taken"):
            self.assertEqual(events.count(event), self.facts[message_id].count(event),
                             f"{event}:\n{text}")
        return events

    def test_nothing_is_missing(self):
        seen: dict[str, int] = {}
        for seed in range(9):
            work = self.begin(seed)
            self.lives, self.facts = {}, {}
            for _ in range(220):
                known = self.machine.executor.next_message_id
                self.follow(*[number for number in range(known, known + 30)
                              if number not in self.lives])
                self.step(work)
            for message_id in self.lives:
                with self.subTest(seed=seed, message=message_id):
                    for event in self.check(message_id):
                        seen[event] = seen.get(event, 0) + 1
        self.assertLess(seen.pop("unknown", 0), 3)
        self.assertEqual(set(seen), set(self.STEPS))
        self.assertGreater(min(seen.values()), 2, seen)


if __name__ == "__main__":
    unittest.main()
