"""The works of bench.py: which commands each client sends, and how many operations a reply answers.

Rules: commands are encoded once where they are always the same, because the load shares the machine
with the nodes. An operation is a message enqueued or dequeued, leased and acknowledged, moved by a
transaction, or a key read or written. What needs an answer before the next command (a receipt) is
kept with the client; all of a client's commands are pipelined all the same.
"""

import os
import struct
from collections import deque

from raftnet.client import Client
from raftnet.client.session import enqueue_encoder
from raftnet.wire import commands, kvcommands, queuecommands, requests, transactions
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.transactions import LeasedCondition

QUEUE, TARGET = b"bench", b"bench-moved"
KEYS = 10_000               # of put and get
_FILL_BATCH = 500           # messages a request
_LEASE_MS = 3_600_000
_LEASED_AT_ONCE = 100       # of execute: taking them is not what is measured
_KEYS_A_LIST = 500
_NUMBER_BYTES = 12          # of a value that counts
_RECEIPT = struct.Struct(">QQ")
_COUNT_BYTES, _ROW_BYTES = 4, 24        # of a LEASE's result: before the rows, and each


class Work:
    """What all clients of one load do. `batch` messages of `payload` bytes a request."""

    fills = False           # a queue full of messages is needed first
    kind = Kind.REQUEST     # of the frames; READ has no session

    def __init__(self, batch: int, payload: int):
        self.batch = batch
        self.message = bytes(ord("a") + i % 26 for i in range(payload))
        self.fill = commands.encode_enqueue(QUEUE, [self.message] * fill_messages(payload))

    def prepare(self, addresses: list[str]) -> None:
        """What has to be there before, beside messages."""

    def commands(self, client, count: int) -> list[bytes]:
        """The next commands of a client (benchload.LoadClient), at most `count`."""
        raise NotImplementedError

    def completed(self, client, reply: requests.Reply) -> int:
        """How many operations that reply ends."""
        return reply.count * self.batch


class Enqueue(Work):
    """Messages into one queue."""

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._enqueue = (enqueue_encoder(QUEUE)(self.message) if batch == 1
                         else commands.encode_enqueue(QUEUE, [self.message] * batch))

    def commands(self, client, count: int) -> list[bytes]:
        return [self._enqueue] * count


class Dequeue(Work):
    """Messages out of it."""

    fills = True

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._dequeue = commands.encode_dequeue(QUEUE, batch)

    def commands(self, client, count: int) -> list[bytes]:
        return [self._dequeue] * count


class EnqueueDequeue(Enqueue):
    """Each client in turn the one and the other."""

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._pair = (self._enqueue, commands.encode_dequeue(QUEUE, batch))

    def commands(self, client, count: int) -> list[bytes]:
        client.turn += count
        pair = self._pair
        return [pair[(client.turn - i) & 1] for i in range(count)]


class LeaseAck(Work):
    """Messages leased, and each batch acknowledged with a request of its own."""

    fills = True
    at_once = 1             # batches a LEASE

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._lease = queuecommands.encode_lease(QUEUE, _LEASE_MS, batch * self.at_once, 0,
                                                 b"bench")

    def commands(self, client, count: int) -> list[bytes]:
        held = client.receipts
        found = [self._finish(client, held.popleft()) for _ in range(min(count, len(held)))]
        client.asked.extend([False] * len(found))
        missing = count - len(found) - client.leasing * self.at_once
        leases = -(-missing // self.at_once) if missing > 0 else 0
        client.leasing += leases
        client.asked.extend([True] * leases)
        return found + [self._lease] * leases

    def completed(self, client, reply: requests.Reply) -> int:
        done = 0
        for status, payload in reply.results:
            if not client.asked.popleft():
                done += self.batch
                continue
            client.leasing -= 1
            if status == Status.OK:
                client.receipts.extend(self._batches(payload))
        return done

    def _batches(self, payload: bytes) -> list[list[tuple[int, int]]]:
        """The receipts of a LEASE's result."""
        count = int.from_bytes(payload[:_COUNT_BYTES], "big")
        receipts = [_RECEIPT.unpack_from(payload, _COUNT_BYTES + _ROW_BYTES * row)
                    for row in range(count)]
        return [receipts[start:start + self.batch] for start in range(0, count, self.batch)]

    def _finish(self, client, receipts: list[tuple[int, int]]) -> bytes:
        return queuecommands.encode_ack(receipts)


class Execute(LeaseAck):
    """Leased messages, each batch moved to another queue with a key: one transaction."""

    at_once = _LEASED_AT_ONCE

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._enqueue = commands.encode_enqueue(TARGET, [self.message] * batch)

    def _finish(self, client, receipts: list[tuple[int, int]]) -> bytes:
        client.turn += 1
        put = kvcommands.encode_kv_put(b"bench-%d" % client.number, _number(client.turn))
        return transactions.encode_transact(
            [LeasedCondition(*receipts[0])],
            [queuecommands.encode_ack(receipts), self._enqueue, put])


class Put(Work):
    """Values into keys, one after the other."""

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._puts = [kvcommands.encode_kv_put(key, self.message) for key in _keys()]

    def commands(self, client, count: int) -> list[bytes]:
        return _cycled(self._puts, client, count)


class Get(Work):
    """Linearizable reads of keys, one after the other: frames of their own, without a session."""

    kind = Kind.READ

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._gets = [requests.encode_read(False, kvcommands.encode_kv_get(key))
                      for key in _keys()]

    def prepare(self, addresses: list[str]) -> None:
        puts = [{"put": key.decode(), "value": self.message} for key in _keys()]
        with Client(addresses) as client:
            for start in range(0, KEYS, _KEYS_A_LIST):
                client.execute(puts[start:start + _KEYS_A_LIST])

    def commands(self, client, count: int) -> list[bytes]:
        return _cycled(self._gets, client, count)


class CompareAndSet(Work):
    """Each client raises a number in a key of its own, from the value that it must have to the
    next. Its commands are executed in their order, so all of them hold."""

    def __init__(self, batch: int, payload: int):
        super().__init__(batch, payload)
        self._key = b"bench-%s-" % os.urandom(4).hex().encode()

    def commands(self, client, count: int) -> list[bytes]:
        key, first = self._key + b"%d" % client.number, client.turn
        client.turn += count
        values = [_number(turn) + self.message[_NUMBER_BYTES:]
                  for turn in range(first - 1, first + count)]
        conditions = [Condition(ConditionKind.EQUALS, value) for value in values]
        if first == client.number:
            conditions[0] = Condition(ConditionKind.ABSENT)
        return [kvcommands.encode_kv_put(key, value, 0, condition)
                for condition, value in zip(conditions, values[1:])]


def fill_messages(payload: int) -> int:
    """How many messages a request has that fills the queue."""
    return max(1, min(_FILL_BATCH, (1 << 20) // (payload + 1)))


def _keys() -> list[bytes]:
    return [b"bench-%d" % number for number in range(KEYS)]


def _number(number: int) -> bytes:
    return b"%0*d" % (_NUMBER_BYTES, number)


def _cycled(pieces: list[bytes], client, count: int) -> list[bytes]:
    first = client.turn
    client.turn += count
    return [pieces[turn % KEYS] for turn in range(first, first + count)]


WORKS: dict[str, type[Work]] = {
    "enq": Enqueue, "deq": Dequeue, "enq-deq": EnqueueDequeue, "lease-ack": LeaseAck,
    "put": Put, "get": Get, "cas": CompareAndSet, "execute": Execute}
WITHOUT_BATCH = ("put", "get", "cas")


def reset_client(client) -> None:
    """What the works keep with a client, at its beginning."""
    client.turn = client.number         # of works that go through something
    client.receipts = deque()           # batches of receipts that were not used yet
    client.asked = deque()              # for each request without an answer: whether it is a LEASE
    client.leasing = 0                  # how many of these are
