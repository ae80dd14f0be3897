"""SimulatedClient: the real ClientSession over the simulated network, with a random workload.

It enqueues numbered messages, dequeues, waits, peeks, asks for sizes and sends atomic lists, over a
few queues; sometimes with several frames in flight, sometimes it closes its session, and sometimes
it dies in the middle of its work. It follows the leader and tries elsewhere when nobody answers.
What it asked and was told stands in `history`; histories.py judges it. All chance is the
scheduler's.
"""

import itertools
from collections import deque

from raftnet.client.session import RETRY_ELSEWHERE, RETRY_HERE, ClientSession
from raftnet.errors import ErrorCode, MalformedError
from raftnet.simulation.histories import DEQUEUE, ENQUEUE, PEEK, SIZE, Operation, Step
from raftnet.simulation.invariants import InvariantError
from raftnet.simulation.node import SimulatedNode
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import LENGTH_COUNTS_FROM, Kind, encode_frame
from raftnet.wire.requests import Reply

QUEUES = (b"q", b"r")
_ANSWER_WAIT_MS = 1_500
# A read's patience is drawn anew each time it is asked: some are asked of a leader that sleeps and,
# while others go on with its successor, are still there when it wakes up.
_READ_WAIT_MS_MIN, _READ_WAIT_MS_MAX = 300, 3_000
_ROUND_TRIPS = 4                # of the network, that an answer may take beyond these
_READ_ANYWHERE_PERCENT = 40     # of the reads are asked at a node drawn anew
_BACKOFF_MS = 60
_THINK_MS = 40
_WAIT_MS_MAX = 3_000
_DEATH_MS_MAX = 80              # a client that will die does so within this time of asking
_DEATH_PERCENT = 8
_READ_ASKS_MAX = 8              # then a read is given up: nothing hangs on it
_DRAIN_COUNT = 100
# What a client does next, each with its share.
_WORK = (("enqueue", 29), ("dequeue", 34), ("wait", 8), ("peek", 7), ("size", 6), ("list", 7),
         ("pipeline", 6), ("close", 3))
_WORDS = tuple(word for word, share in _WORK for _ in range(share))


class _Connection:
    """A client's connection to one node, the token that the node's gateway sees."""

    __slots__ = ("client", "node", "life", "ended")

    def __init__(self, client: "SimulatedClient", node: SimulatedNode):
        self.client = client
        self.node = node
        self.life = node.life
        self.ended = False

    def answer(self, node: SimulatedNode, frame: bytes) -> None:
        """The node sends a frame back."""
        self.client.network.send(node.address, self.client.name, frame,
                                 lambda got: self.client.frame(self, got))


def _encode_step(step: Step, wait_ms: int = 0) -> bytes:
    if step.kind == ENQUEUE:
        return commands.encode_enqueue(step.queue, list(step.messages))
    if step.kind == DEQUEUE:
        return commands.encode_dequeue(step.queue, step.count, wait_ms)
    if step.kind == PEEK:
        return commands.encode_peek(step.queue, step.count)
    return commands.encode_size(step.queue)


class SimulatedClient:
    """One client with one session at a time (a wait has its own)."""

    def __init__(self, cluster, number: int):
        self.cluster = cluster
        self.scheduler = cluster.scheduler
        self.network = cluster.network
        self.name = f"client{number}"
        self.history: list[Operation] = []  # in order of asking; a read only once it is answered
        self.sent = 0                       # messages made
        self.acknowledged: dict[bytes, int] = {}    # message -> id, as told
        self.received: list[tuple[int, bytes]] = []     # (id, message), in order of the replies
        self.stopping = False
        self.draining = False
        self.idle = False
        self._connection: _Connection | None = None
        self._request_ids = itertools.count(1)      # of all that is sent on one connection
        self._session_number = 0
        self._begin_session()
        self._progress = 0                  # raised by every answer; a stale alarm is void
        self._unanswered: deque[Operation] = deque()    # of this session, in order
        self._read: Operation | None = None     # the read that is under way
        self._read_id = 0                       # request id of its latest asking
        self._read_asks = 0
        self._later(self.scheduler.randint(0, _THINK_MS), self._next)

    def _begin_session(self) -> None:
        self._session_number += 1
        self.session = ClientSession(self.scheduler.random.randbytes(16),
                                     request_ids=self._request_ids)

    def _later(self, delay_ms: int, event) -> None:
        self.scheduler.after(delay_ms, event)

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
            self._begin_read(step)
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
            self.session.submit(commands.encode_close())
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
            self._record([step], self.session.submit(_encode_step(step, wait_ms)))

    def _submit_list(self, steps: list[Step]) -> None:
        self._record(steps, self.session.submit(
            commands.encode_execute([_encode_step(step) for step in steps])))

    def _record(self, steps: list[Step], sequence: int) -> None:
        operation = Operation(self.name, self._session_number, sequence, steps,
                              self.scheduler.now_ms)
        self.history.append(operation)
        self._unanswered.append(operation)

    def _begin_read(self, step: Step) -> None:
        self._read = Operation(self.name, 0, 0, [step], self.scheduler.now_ms)
        self._read_asks = 0
        if self.scheduler.chance(_READ_ANYWHERE_PERCENT):
            self._leave()
        self._send()

    def _die(self, progress: int) -> None:
        """The process ends, if it still waits: what it asked for is unknown for ever."""
        if progress == self._progress and self._busy:
            self._give_up()

    def _give_up(self) -> None:
        if self.draining:
            raise InvariantError("liveness: the queue is not drained within a minute")
        self._progress += 1
        self._unanswered.clear()
        self._read = None
        if self.scheduler.chance(50):
            self._leave()       # else the node keeps a connection on which nobody listens
        self._begin_session()
        self._think()

    @property
    def _busy(self) -> bool:
        return self._read is not None or self.session.unanswered

    def _think(self) -> None:
        self._later(self.scheduler.randint(0, _THINK_MS), self._next)

    # --- frames out

    def _send(self) -> None:
        if self._connection is None:
            self._connect("")
            if self._connection is None:
                self._later(_BACKOFF_MS, self._send_if_unsent)
                return
        if self._read is not None:
            self._send_read()
        else:
            output = self.session.output(self.scheduler.now_ms / 1000)
            if self.session.overdue:    # nothing is resent after a minute: unknown for ever
                self._give_up()
                return
            start = 0
            while start < len(output):      # the network carries single frames
                end = (start + LENGTH_COUNTS_FROM
                       + int.from_bytes(output[start:start + LENGTH_COUNTS_FROM], "big"))
                self._carry(output[start:end])
                start = end
        progress = self._progress
        wait_ms = _ANSWER_WAIT_MS if self._read is None else self.scheduler.randint(
            _READ_WAIT_MS_MIN, _READ_WAIT_MS_MAX)
        wait_ms += _ROUND_TRIPS * self.cluster.round_trip_ms
        self._later(wait_ms, lambda: self._alarm(progress))

    def _send_read(self) -> None:
        self._read_asks += 1
        # A read has no effect, so its time begins with the asking that is answered.
        self._read.invoked_ms = self.scheduler.now_ms
        self._read_id = next(self._request_ids) & 0xFFFFFFFF
        body = requests.encode_read(False, _encode_step(self._read.steps[0]))
        self._carry(encode_frame(Kind.READ, self._read_id, body))

    def _carry(self, frame: bytes) -> None:
        connection = self._connection
        self.network.send(self.name, connection.node.address, frame,
                          lambda got: connection.node.client_frame(
                              connection, connection.life, got))

    def _send_if_unsent(self) -> None:
        if self._connection is None and self._busy:
            self._send()

    def _connect(self, address: str) -> None:
        """To that node, or to any that runs."""
        nodes = [node for node in self.cluster.nodes.values() if node.running]
        chosen = self.cluster.nodes.get(address)
        if chosen is None or not chosen.running:
            if not nodes:
                return
            chosen = nodes[self.scheduler.randint(0, len(nodes) - 1)]
        self._connection = _Connection(self, chosen)
        chosen.client_opened(self._connection)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.ended = True
            if connection.node.life == connection.life:
                connection.node.client_gone(connection)
        self.session.connection_lost()

    def _alarm(self, progress: int) -> None:
        """No answer for long: elsewhere."""
        if progress == self._progress and self._busy:
            self._progress += 1
            self._leave()
            self._again()

    def _again(self) -> None:
        if self._read is not None and self._read_asks >= _READ_ASKS_MAX:
            self._read = None
            self._think()
        else:
            self._send()

    # --- answers

    def frame(self, connection: _Connection, frame) -> None:
        """A frame arrives on a connection."""
        if connection is not self._connection or frame is None:
            return
        kind, request_id, body = frame
        if self._read is not None:
            if request_id == self._read_id:
                self._read_frame(kind, body)
            return
        try:
            refusal = self.session.receive(*frame)
        except MalformedError as error:
            raise InvariantError(f"sessions exactly once: {self.name} was sent {error}") from error
        if refusal is not None:
            if self.session.dead:
                # The close was executed, and took its own reply with it.
                self._expect(refusal.code == ErrorCode.ALREADY_ACKNOWLEDGED
                             and not self._unanswered[0].steps, refusal)
                self._unanswered.clear()
                self._begin_session()
                self._done()
            else:
                self._refused(refusal.code, refusal.leader)
            return
        replies = self.session.take_answers()
        for reply in replies:
            self._answered(reply)
        # While some frames are unanswered, their alarm and their sending again stay valid.
        if replies and not self._busy:
            self._done()

    def _read_frame(self, kind: int, body: bytes) -> None:
        if kind == Kind.READ_REPLY:
            operation, self._read = self._read, None
            _, status, payload = requests.decode_read_reply(body)
            operation.answered_ms = self.scheduler.now_ms
            self._note(operation.steps[0], status, payload)
            self.history.append(operation)
            self._done()
            return
        self._expect(kind == Kind.ERROR, f"a frame of kind {kind}")
        code, leader, text = requests.decode_error(body)
        self._expect(code in RETRY_HERE or code in RETRY_ELSEWHERE, f"{code} {text}")
        self._refused(code, leader)

    def _expect(self, true: bool, answer) -> None:
        if not true:
            raise InvariantError(f"sessions exactly once: {self.name} was answered {answer}")

    def _done(self) -> None:
        self._progress += 1
        self._think()

    def _refused(self, code: int, leader: str) -> None:
        self._progress += 1
        progress = self._progress
        if code not in RETRY_HERE:
            self._leave()
            if leader:
                self._connect(leader)
        self._later(self.scheduler.randint(1, _BACKOFF_MS),
                    lambda: progress == self._progress and self._busy and self._again())

    def _answered(self, reply: Reply) -> None:
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
