"""SimulatedClient: the real ClientSession over the simulated network, with a random workload.

It enqueues numbered messages, dequeues, and sometimes waits; it follows the leader, tries elsewhere
when nobody answers, and keeps what it was told: that history is what the invariants judge.
"""

import itertools

from raftnet.client.session import RETRY_HERE, ClientSession
from raftnet.simulation.node import SimulatedNode
from raftnet.wire import commands
from raftnet.wire.requests import Reply

_ANSWER_WAIT_MS = 1_500
_BACKOFF_MS = 60
_THINK_MS = 40
QUEUE = b"q"


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


class SimulatedClient:
    """One client with one session at a time (a wait has its own)."""

    def __init__(self, cluster, number: int):
        self.cluster = cluster
        self.scheduler = cluster.scheduler
        self.network = cluster.network
        self.name = f"client{number}"
        self.sent = 0                       # messages made
        self.acknowledged: dict[bytes, int] = {}    # message -> id, as told
        self.attempted: set[bytes] = set()
        self.received: list[tuple[int, bytes]] = []     # (id, message), in order of the replies
        self.stopping = False
        self.idle = False
        self._connection: _Connection | None = None
        self._request_ids = itertools.count(1)      # of all that is sent on one connection
        self._begin_session()
        self._progress = 0                  # raised by every answer; a stale alarm is void
        self._operation: list[tuple[str, bytes]] = []   # what the outstanding commands are
        self._later(self.scheduler.randint(0, _THINK_MS), self._next)

    def _begin_session(self) -> None:
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
        chance = self.scheduler.chance
        if chance(4):
            self._begin_session()       # a new process of the same person
        if chance(10):
            wait_ms = self.scheduler.randint(1, 3_000)
            self._begin_session()       # a wait has its own session
            self._submit([("dequeue", commands.encode_dequeue(QUEUE, 1, wait_ms))])
        elif chance(50):
            operations = []
            for _ in range(self.scheduler.randint(1, 4)):
                message = f"{self.name}-{self.sent}".encode()
                self.sent += 1
                self.attempted.add(message)
                operations.append((message, commands.encode_enqueue(QUEUE, [message])))
            self._submit(operations)
        else:
            count = self.scheduler.randint(1, 3)
            self._submit([("dequeue", commands.encode_dequeue(QUEUE, count))])

    def drain(self) -> None:
        """Take what is left, one by one, and stop when there is nothing."""
        self._submit([("dequeue", commands.encode_dequeue(QUEUE, 100))])

    def _submit(self, operations: list) -> None:
        self.idle = False
        self._operation = operations
        for _, command in operations:
            self.session.submit(command)
        self._send()

    def _now_s(self) -> float:
        return self.scheduler.now_ms / 1000

    def _send(self) -> None:
        if self._connection is None:
            self._connect("")
            if self._connection is None:
                self._later(_BACKOFF_MS, self._send_if_unsent)
                return
        output = self.session.output(self._now_s())
        assert not self.session.overdue, "a simulation's faults end before a minute is over"
        connection = self._connection
        if output:
            self.network.send(self.name, connection.node.address, output,
                              lambda got: connection.node.client_frame(
                                  connection, connection.life, got))
        progress = self._progress
        self._later(_ANSWER_WAIT_MS,
                    lambda: self._alarm(progress))

    def _send_if_unsent(self) -> None:
        if self._connection is None and self.session.unanswered:
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
        if progress == self._progress and self.session.unanswered:
            self._progress += 1
            self._leave()
            self._send()

    # --- answers

    def frame(self, connection: _Connection, frame) -> None:
        """A frame arrives on a connection."""
        if connection is not self._connection or frame is None:
            return
        refusal = self.session.receive(*frame)
        if refusal is not None:
            self._progress += 1
            progress = self._progress
            if refusal.code not in RETRY_HERE:
                assert not self.session.dead, f"{self.name}: {refusal}"
                self._leave()
                if refusal.leader:
                    self._connect(refusal.leader)
            self._later(self.scheduler.randint(1, _BACKOFF_MS),
                        lambda: progress == self._progress and self._send())
            return
        answered = False
        for reply in self.session.take_answers():
            answered = True
            self._answered(reply)
        if answered:
            self._progress += 1
            if not self.session.unanswered:
                self._later(self.scheduler.randint(0, _THINK_MS), self._next)

    def _answered(self, reply: Reply) -> None:
        operations = self._operation[:reply.count]
        self._operation = self._operation[reply.count:]
        if reply.first_message_id is not None:
            for offset, (message, _) in enumerate(operations):
                self.acknowledged[message] = reply.first_message_id + offset
            return
        for (kind, _), (status, payload) in zip(operations, reply.results, strict=True):
            assert kind == "dequeue"
            assert status in (commands.Status.OK, commands.Status.EMPTY,
                              commands.Status.CANCELLED), status
            if status == commands.Status.OK:
                self.received += commands.decode_messages(payload)
