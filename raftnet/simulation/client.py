"""SimulatedClient: plain messages, in a random workload.

It enqueues numbered messages, dequeues, waits, peeks, asks for sizes and sends atomic lists, over a
few queues; sometimes with several frames in flight, sometimes it closes its session, and sometimes
it dies in the middle of its work. What it asked and was told stands in `history`; histories.py
judges it. How it asks is in caller.py. All chance is the scheduler's.
"""

from collections import deque

from raftnet.client.session import Refusal
from raftnet.errors import ErrorCode
from raftnet.simulation.caller import Caller
from raftnet.simulation.histories import DEQUEUE, ENQUEUE, PEEK, SIZE, Operation, Step
from raftnet.simulation.invariants import InvariantError
from raftnet.wire import commands
from raftnet.wire.commands import Status
from raftnet.wire.requests import Reply

QUEUES = (b"q", b"r")
_WAIT_MS_MAX = 3_000
_DEATH_MS_MAX = 80              # a client that will die does so within this time of asking
_DEATH_PERCENT = 8
_DRAIN_COUNT = 100
# What a client does next, each with its share.
_WORK = (("enqueue", 29), ("dequeue", 34), ("wait", 8), ("peek", 7), ("size", 6), ("list", 7),
         ("pipeline", 6), ("close", 3))
_WORDS = tuple(word for word, share in _WORK for _ in range(share))


def _encode_step(step: Step, wait_ms: int = 0) -> bytes:
    if step.kind == ENQUEUE:
        return commands.encode_enqueue(step.queue, list(step.messages))
    if step.kind == DEQUEUE:
        return commands.encode_dequeue(step.queue, step.count, wait_ms)
    if step.kind == PEEK:
        return commands.encode_peek(step.queue, step.count)
    return commands.encode_size(step.queue)


class SimulatedClient(Caller):
    """One client with one session at a time (a wait has its own)."""

    def __init__(self, cluster, number: int):
        self.history: list[Operation] = []  # in order of asking; a read only once it is answered
        self.sent = 0                       # messages made
        self.acknowledged: dict[bytes, int] = {}    # message -> id, as told
        self.received: list[tuple[int, bytes]] = []     # (id, message), in order of the replies
        self.draining = False
        self._unanswered: deque[Operation] = deque()    # of this session, in order
        self._read_step: Step | None = None
        super().__init__(cluster, f"client{number}")

    # --- work

    def _next(self) -> None:
        """The next operation, when the last one is answered."""
        if self.stopping:
            self.idle = True
            return
        self.idle = False
        scheduler = self.scheduler
        chance = scheduler.chance
        if chance(4):
            self._begin_session()       # a new process of the same person
        word = _WORDS[scheduler.randint(0, len(_WORDS) - 1)]
        if word in ("peek", "size"):
            step = Step(PEEK, self._queue(), count=scheduler.randint(1, 3)) if word == "peek" \
                else Step(SIZE, self._queue())
            self._read_step = step
            self._ask(_encode_step(step))
        elif word == "wait":
            self._begin_session()       # a wait has its own session
            self._submit([self._dequeue()], scheduler.randint(1, _WAIT_MS_MAX))
            self._send()
        elif word == "pipeline":
            for _ in range(scheduler.randint(2, 4)):
                self._submit([self._dequeue() if chance(40) else self._enqueue()
                              for _ in range(scheduler.randint(1, 2))])
                self._send()            # each a frame of its own
        elif word == "list":
            self._submit_list([self._dequeue() if chance(50) else self._enqueue()
                               for _ in range(scheduler.randint(2, 4))])
            self._send()
        elif word == "close":
            self._unanswered.append(Operation(self.name, 0, 0, [], scheduler.now_ms))
            self._submit_command(commands.encode_close())
            self._send()
        else:
            make, most = (self._enqueue, 3) if word == "enqueue" else (self._dequeue, 2)
            self._submit([make() for _ in range(scheduler.randint(1, most))])
            self._send()
        if chance(_DEATH_PERCENT):
            progress = self._progress
            self._later(scheduler.randint(0, _DEATH_MS_MAX), lambda: self._die(progress))

    def _queue(self) -> bytes:
        return QUEUES[self.scheduler.chance(30)]

    def _enqueue(self) -> Step:
        messages = []
        for _ in range(self.scheduler.randint(2, 3) if self.scheduler.chance(20) else 1):
            messages.append(f"{self.name}-{self.sent}".encode())
            self.sent += 1
        return Step(ENQUEUE, self._queue(), tuple(messages))

    def _dequeue(self) -> Step:
        return Step(DEQUEUE, self._queue(), count=self.scheduler.randint(1, 4))

    def drain(self) -> None:
        """Take what is left, a piece of each queue; nothing received: nothing is left."""
        self.idle, self.draining = False, True
        self._submit([Step(DEQUEUE, queue, count=_DRAIN_COUNT) for queue in QUEUES])
        self._send()

    def _submit(self, steps: list[Step], wait_ms: int = 0) -> None:
        for step in steps:
            self._record([step], self._submit_command(_encode_step(step, wait_ms)))

    def _submit_list(self, steps: list[Step]) -> None:
        self._record(steps, self._submit_command(
            commands.encode_execute([_encode_step(step) for step in steps])))

    def _record(self, steps: list[Step], sequence: int) -> None:
        operation = Operation(self.name, self._session_number, sequence, steps,
                              self.scheduler.now_ms)
        self.history.append(operation)
        self._unanswered.append(operation)

    def _give_up(self) -> None:
        if self.draining:
            raise InvariantError("liveness: the queue is not drained within a minute")
        self._unanswered.clear()
        super()._give_up()

    # --- answers

    def _session_ended(self, refusal: Refusal) -> None:
        # The close was executed, and took its own reply with it.
        self._expect(refusal.code == ErrorCode.ALREADY_ACKNOWLEDGED
                     and not self._unanswered[0].steps, refusal)
        self._unanswered.clear()

    def _read_replied(self, status: int, payload: bytes) -> None:
        operation = Operation(self.name, 0, 0, [self._read_step], self._read_asked_ms,
                              self.scheduler.now_ms)
        self._note(self._read_step, status, payload)
        self.history.append(operation)

    def _replied(self, reply: Reply) -> None:
        next_id = reply.first_message_id
        results = iter(reply.results or ())
        for _ in range(reply.count):
            operation = self._unanswered.popleft()
            operation.answered_ms = self.scheduler.now_ms
            if next_id is not None:
                step = operation.steps[0]
                self._note_enqueued(step, next_id)
                next_id += len(step.messages)
                continue
            status, payload = next(results)
            if not operation.steps:
                self._begin_session()       # closed
            elif len(operation.steps) == 1:
                operation.refused = status == Status.CANCELLED
                self._note(operation.steps[0], status, payload)
            else:
                self._expect(status == Status.OK, f"status {status} for a list")
                pairs = commands.decode_execute_result(payload)
                for step, (status, payload) in zip(operation.steps, pairs, strict=True):
                    self._note(step, status, payload)

    def _note(self, step: Step, status: int, payload: bytes) -> None:
        if status == Status.CANCELLED:
            return
        self._expect(status in (Status.OK, Status.EMPTY), f"status {status}")
        if step.kind == ENQUEUE:
            self._note_enqueued(step, commands.decode_enqueue_result(payload))
        elif step.kind == SIZE:
            step.answer = commands.decode_size_result(payload)[0]
        else:
            step.answer = commands.decode_messages(payload) if status == Status.OK else []
            if step.kind == DEQUEUE:
                self.received += step.answer

    def _note_enqueued(self, step: Step, first_id: int) -> None:
        step.answer = first_id
        for offset, message in enumerate(step.messages):
            self.acknowledged[message] = first_id + offset
