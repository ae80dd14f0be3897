"""SimulatedWorker: leases, retries, keys and transactions, in a random workload.

It takes messages under leases (also waiting), finishes them, gives them back, keeps them longer,
forgets them, and comes back too late; it sets limits so low that dead letters, refusals and
back-off happen, moves messages together with a sum, and reads everything. It dies at random. What
is right is not known here: what it asked and was told is judged by workhistory.py. How it asks is
in caller.py. All chance is the scheduler's.
"""

from collections import deque

from raftnet.errors import MalformedError
from raftnet.simulation.caller import Caller
from raftnet.simulation.promises import InvariantError
from raftnet.wire import commands, kvcommands, queuecommands, queueresults
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_command
from raftnet.wire.fields import encode_command
from raftnet.wire.kvcommands import Condition, ConditionKind
from raftnet.wire.queuecommands import Setting
from raftnet.wire.requests import Reply
from raftnet.wire.transactions import (KeyCondition, LeasedCondition, QueueCondition,
                                       decode_transact, encode_transact)

QUEUES = (b"jobs", b"jobs", b"jobs", b"mail", b"mail", b"jobs.dead", b"graves")
SPARE = b"spare"            # configured and deleted, and hardly ever used
SUM = b"sum"
KEYS = (SUM, b"a/1", b"a/2", b"a/3", b"b")
PREFIXES = (b"", b"a/", b"a/2", b"c")
_DEDUP_IDS = tuple(b"n%d" % number for number in range(6))
_RECEIPTS_KEPT = 12
_WAIT_MS_MAX = 3_000
_LEASES_MS = ((50, 400), (300, 2_000), (2_000, 20_000))
_DEATH_MS_MAX = 80
_DEATH_PERCENT = 6
_LOCAL_PERCENT = 40         # of the reads
_PIPELINE_PERCENT = 10      # several frames under way
# What a worker does next, each with its share; those in capitals are not part of lists.
_WORK = (("enqueue", 10), ("enqueue_with", 16), ("dequeue", 3), ("lease", 22), ("ack", 14),
         ("nack", 12), ("extend", 5), ("configure", 5), ("purge", 1), ("redrive", 4),
         ("delete_queue", 2), ("put", 8), ("get", 3), ("delete", 3), ("cas", 6), ("list_keys", 2),
         ("look", 4), ("nonsense", 1), ("WAIT", 10), ("MOVE", 14), ("TRANSACT", 8), ("LIST", 4),
         ("READ", 14))
_WORDS = tuple(word for word, share in _WORK for _ in range(share))
_SINGLE_WORDS = tuple(word for word in _WORDS if word.islower())


class SimulatedWorker(Caller):
    """One worker with one session at a time (a wait has its own)."""

    def __init__(self, cluster, number: int):
        self.sent = 0                       # messages made
        self.done = 0                       # operations that were answered
        # Receipts that it got, also those that it has used: (id, delivery).
        self.receipts: deque[tuple[int, int]] = deque(maxlen=_RECEIPTS_KEPT)
        self.seen: dict[bytes, tuple[int, bytes]] = {}      # key -> version and value, as last told
        self._unanswered: deque[bytes] = deque()            # commands of this session, in order
        super().__init__(cluster, f"worker{number}")

    # --- work

    def _next(self) -> None:
        if self.stopping:
            self.idle = True
            return
        self.idle = False
        scheduler = self.scheduler
        chance = scheduler.chance
        if chance(5):
            self._begin_session()
            self._unanswered.clear()
        word = self._pick(_WORDS)
        if word == "READ":
            self._ask(self._look_command(), local=chance(_LOCAL_PERCENT))
        elif word == "WAIT":
            self._begin_session()       # a wait has its own session
            wait_ms = scheduler.randint(1, _WAIT_MS_MAX)
            self._submit(self._lease(wait_ms) if chance(75) else commands.encode_dequeue(
                self._queue(), scheduler.randint(1, 2), wait_ms))
            self._send()
        elif word in ("MOVE", "TRANSACT", "LIST"):
            self._submit({"MOVE": self._move, "TRANSACT": self._transact,
                          "LIST": self._list}[word]())
            self._send()
        else:
            for _ in range(scheduler.randint(2, 3) if chance(_PIPELINE_PERCENT) else 1):
                for _ in range(scheduler.randint(1, 3) if chance(30) else 1):
                    self._submit(self._command(word))
                    word = self._pick(_SINGLE_WORDS)
                self._send()
        if chance(_DEATH_PERCENT):
            progress = self._progress
            self._later(scheduler.randint(0, _DEATH_MS_MAX), lambda: self._die(progress))

    def _submit(self, command: bytes) -> None:
        self._submit_command(command)
        self._unanswered.append(command)

    def _give_up(self) -> None:
        self._unanswered.clear()
        super()._give_up()

    def _pick(self, choices):
        return choices[self.scheduler.randint(0, len(choices) - 1)]

    def _queue(self) -> bytes:
        return self._pick(QUEUES)

    # --- single commands

    def _command(self, word: str) -> bytes:
        """The command for one of the words of single commands."""
        return getattr(self, f"_{word}")()

    def _messages(self) -> list[bytes]:
        chance, randint = self.scheduler.chance, self.scheduler.randint
        messages = []
        for _ in range(randint(2, 4) if chance(30) else 1):
            message = f"{self.name}-{self.sent}".encode()
            messages.append(message + b"." * randint(0, 40) if chance(30) else message)
            self.sent += 1
        return messages

    def _enqueue(self) -> bytes:
        return commands.encode_enqueue(self._queue(), self._messages())

    def _enqueue_with(self) -> bytes:
        chance, randint = self.scheduler.chance, self.scheduler.randint
        messages = self._messages()
        dedup = None
        if chance(60):
            dedup = [self._pick(_DEDUP_IDS) if chance(80) else b"" for _ in messages]
        return queuecommands.encode_enqueue_with(
            self._queue(), messages, self._pick((0, 0, 1, 4, 7)) if chance(98) else 8,
            randint(1, 3_000) if chance(25) else 0, randint(50, 4_000) if chance(25) else 0, dedup)

    def _dequeue(self) -> bytes:
        return commands.encode_dequeue(self._queue(), self.scheduler.randint(1, 3))

    def _lease(self, wait_ms: int = 0) -> bytes:
        randint = self.scheduler.randint
        return queuecommands.encode_lease(
            self._queue(), randint(*self._pick(_LEASES_MS)), randint(1, 3), wait_ms,
            self.name.encode() if self.scheduler.chance(80) else b"")

    def _held(self) -> list[tuple[int, int]]:
        """One receipt or some: mostly those that it got last; some are used up or too old."""
        randint, chance = self.scheduler.randint, self.scheduler.chance
        if not self.receipts or chance(3):
            return [(randint(1, 200), randint(1, 100))]
        receipts = []
        for _ in range(randint(2, 3) if chance(20) else 1):
            if self.receipts and chance(85):
                receipts.append(self.receipts.pop())
            elif self.receipts:
                receipts.append(self._pick(self.receipts))
        if receipts and chance(12):
            self.receipts.append(receipts[0])       # to be used again: too late then
        return receipts or [(1, 1)]

    def _ack(self) -> bytes:
        return queuecommands.encode_ack(self._held())

    def _nack(self) -> bytes:
        chance = self.scheduler.chance
        delay_ms = 0 if chance(60) else None if chance(50) else self.scheduler.randint(1, 2_000)
        return queuecommands.encode_nack(self._held(), delay_ms, b"why" if chance(50) else b"")

    def _extend(self) -> bytes:
        receipts = self._held()
        self.receipts += receipts
        return queuecommands.encode_extend(receipts, self.scheduler.randint(1, 3_000))

    def _configure(self) -> bytes:
        chance, randint = self.scheduler.chance, self.scheduler.randint
        drawn = {
            Setting.DEAD_LETTER: lambda: self._pick((b"", b"", b"graves", b"jobs")),
            Setting.DELIVERY_LIMIT: lambda: randint(0, 3),
            Setting.TTL_MS: lambda: randint(200, 5_000) if chance(40) else 0,
            Setting.MESSAGES_MAX: lambda: randint(2, 12) if chance(40) else 0,
            Setting.BYTES_MAX: lambda: randint(30, 300) if chance(20) else 0,
            Setting.OVERFLOW: lambda: randint(0, 1),
            Setting.DEDUP_WINDOW_MS: lambda: self._pick((0, 300, 300, 1_000, 300_000)),
            Setting.BACKOFF_MS: lambda: randint(0, 500),
            Setting.BACKOFF_MAX_MS: lambda: randint(0, 3_000)}
        return queuecommands.encode_configure(SPARE if chance(20) else self._queue(), {
            int(setting): draw() for setting, draw in drawn.items() if chance(30)})

    def _purge(self) -> bytes:
        return queuecommands.encode_purge(self._queue(), self.scheduler.randint(1, 5))

    def _redrive(self) -> bytes:
        chance = self.scheduler.chance
        return queuecommands.encode_redrive(
            self._pick((b"jobs.dead", b"mail.dead", b"graves")) if chance(90) else self._queue(),
            b"" if chance(70) else self._queue(), self.scheduler.randint(1, 5))

    def _delete_queue(self) -> bytes:
        return queuecommands.encode_delete_queue(self._pick((SPARE, SPARE, self._queue())))

    # --- keys

    def _put(self) -> bytes:
        return kvcommands.encode_kv_put(self._pick(KEYS), self._value(), self._ttl_ms())

    def _value(self) -> bytes:
        return b"%d" % self.scheduler.randint(0, 3)     # equal ones, so that EQUALS may hold

    def _ttl_ms(self) -> int:
        return self.scheduler.randint(50, 1_500) if self.scheduler.chance(50) else 0

    def _condition(self, key: bytes) -> Condition:
        version, value = self.seen.get(key, (0, b"0"))
        return self._pick((
            Condition(ConditionKind.ABSENT), Condition(ConditionKind.PRESENT),
            Condition(ConditionKind.EQUALS, value), Condition(ConditionKind.EQUALS, self._value()),
            Condition(ConditionKind.VERSION, version), Condition(ConditionKind.VERSION, version)))

    def _cas(self) -> bytes:
        key = self._pick(KEYS)
        return kvcommands.encode_kv_put(key, self._value(), self._ttl_ms(), self._condition(key))

    def _get(self) -> bytes:
        return kvcommands.encode_kv_get(self._pick(KEYS))

    def _delete(self) -> bytes:
        key = self._pick(KEYS)
        return kvcommands.encode_kv_delete(
            key, self._condition(key) if self.scheduler.chance(50) else kvcommands.NO_CONDITION)

    def _list_keys(self) -> bytes:
        return kvcommands.encode_kv_list(
            self._pick(PREFIXES), self._pick((b"", b"", *KEYS)), self.scheduler.randint(1, 4))

    # --- reads, and what nobody should send

    def _look(self) -> bytes:
        return self._look_command()

    def _look_command(self) -> bytes:
        queue, limit = self._queue(), self.scheduler.randint(1, 20)
        return self._pick((
            lambda: commands.encode_peek(queue, limit), lambda: commands.encode_size(queue),
            lambda: commands.encode_queues(self._pick((b"", b"jobs")), limit),
            lambda: queuecommands.encode_describe(queue),
            lambda: queuecommands.encode_leases(queue, limit),
            lambda: queuecommands.encode_inspect(queue, limit), self._get, self._get,
            self._list_keys))()

    def _nonsense(self) -> bytes:
        """Malformed, unknown, or over a limit: everybody must say the same to it."""
        queue = self._queue()
        return self._pick((
            lambda: encode_command(99), lambda: encode_command(Operation.LEASE),
            lambda: queuecommands.encode_lease(queue, 43_200_001),
            lambda: queuecommands.encode_lease(queue, 0),
            lambda: queuecommands.encode_lease(queue, 100, 0),
            lambda: commands.encode_execute([queuecommands.encode_lease(queue, 100, 1, 50)]),
            lambda: encode_transact([], [commands.encode_close()]),
            lambda: queuecommands.encode_purge(queue, 0),
            lambda: queuecommands.encode_redrive(queue, b"", 1_001),
            lambda: queuecommands.encode_nack([(1, 1)], 2_592_000_001),
            lambda: queuecommands.encode_extend([(1, 1)], 0),
            lambda: kvcommands.encode_kv_put(SUM, b"", 31_536_000_001),
            lambda: kvcommands.encode_kv_list(b"", b"", 0), commands.encode_time,
            lambda: commands.encode_cancel(self.session.session, 1)))()

    # --- lists and transactions

    def _list(self) -> bytes:
        return commands.encode_execute([self._command(self._pick(_SINGLE_WORDS))
                                        for _ in range(self.scheduler.randint(1, 4))])

    def _transact(self) -> bytes:
        return encode_transact(self._conditions(), [
            self._command(self._pick(_SINGLE_WORDS))
            for _ in range(self.scheduler.randint(1, 4))])

    def _conditions(self) -> list:
        conditions = []
        for _ in range(self.scheduler.randint(0, 2)):
            key, low = self._pick(KEYS), self.scheduler.randint(0, 3)
            conditions.append(self._pick((
                lambda key=key: KeyCondition(key, self._condition(key)),
                lambda low=low: QueueCondition(self._queue(), low, low + 10),
                lambda: LeasedCondition(*(self.receipts[-1] if self.receipts else (1, 1)))))())
        return conditions

    def _move(self) -> bytes:
        """A message goes to another queue, and is counted: all or none. The sum is compared with
        what this worker saw of it last; another may have been faster."""
        version, value = self.seen.get(SUM, (0, b""))
        count = int(value) + 1 if value.isdigit() else 1
        condition = Condition(ConditionKind.VERSION, version) if version else Condition(
            ConditionKind.ABSENT)
        parts = [queuecommands.encode_ack(self._held()), self._enqueue_with(),
                 kvcommands.encode_kv_put(SUM, b"%d" % count, 0, condition)]
        if self.scheduler.chance(30):
            parts.insert(self.scheduler.randint(0, 3), self._command(self._pick(_SINGLE_WORDS)))
        conditions = [KeyCondition(SUM, condition)] if self.scheduler.chance(40) else []
        if self.scheduler.chance(30):
            conditions += self._conditions()
        return encode_transact(conditions, parts)

    # --- answers

    def _read_replied(self, status: int, payload: bytes) -> None:
        self.done += 1

    def _replied(self, reply: Reply) -> None:
        self._expect(reply.refusal is None, reply)
        results = reply.results or [(int(Status.OK), b"")] * reply.count
        for status, payload in results:
            self.done += 1
            self._learn(self._unanswered.popleft()[4:], status, payload)

    def _learn(self, command: bytes, status: int, payload: bytes) -> None:
        """Keep receipts and versions for later."""
        try:
            self._learn_from(command, status, payload)
        except MalformedError as error:
            raise InvariantError(f"reference answers: {self.name} was told something else: "
                                 f"{error}: {describe_command(command)}") from error

    def _learn_from(self, command: bytes, status: int, payload: bytes) -> None:
        operation = command[0]
        if operation == Operation.TRANSACT and status == Status.CONFLICT:
            self.seen.pop(SUM, None)
        elif operation in (Operation.EXECUTE, Operation.TRANSACT) and status == Status.OK:
            inner = (commands.decode_execute(command) if operation == Operation.EXECUTE
                     else decode_transact(command)[1])
            for piece, (status, payload) in zip(inner, commands.decode_execute_result(payload)):
                self._learn_from(piece, status, payload)
        elif operation == Operation.LEASE and status == Status.OK:
            for leased in queueresults.decode_lease_result(payload):
                self.receipts.append((leased.id, leased.delivery))
        elif operation == Operation.KV_PUT:
            key, _, _, value = kvcommands.decode_kv_put(command)
            if status == Status.OK:
                self.seen[key] = kvcommands.decode_version_result(payload), value
            elif status == Status.CONFLICT:
                self.seen[key] = kvcommands.decode_kv_conflict(payload)
        elif operation == Operation.KV_GET:
            key = kvcommands.decode_kv_get(command)
            if status == Status.OK:
                version, _, value = kvcommands.decode_kv_get_result(payload)
                self.seen[key] = version, value
            else:
                self.seen.pop(key, None)
