"""Caller: the real ClientSession over the simulated network; what it does is its subclass's affair.

One session at a time, one connection at a time, and one read beside them. It follows the leader,
tries elsewhere when nobody answers, sends again what a retry may send, and dies where its subclass
lets it. Everything that it asked and was told goes into the cluster's record (workhistory.py). All
chance is the scheduler's.

Subclasses: client.py (plain messages), workers.py (leases, keys, transactions).
"""

import itertools

from raftnet.client.session import RETRY_ELSEWHERE, RETRY_HERE, ClientSession, Refusal
from raftnet.errors import MalformedError
from raftnet.simulation.invariants import InvariantError
from raftnet.simulation.node import SimulatedNode
from raftnet.wire import requests
from raftnet.wire.frames import LENGTH_COUNTS_FROM, Kind, encode_frame
from raftnet.wire.requests import Reply

THINK_MS = 40
_ANSWER_WAIT_MS = 1_500
# A read's patience is drawn anew each time it is asked: some are asked of a leader that sleeps and,
# while others go on with its successor, are still there when it wakes up.
_READ_WAIT_MS_MIN, _READ_WAIT_MS_MAX = 300, 3_000
_ROUND_TRIPS = 4                # of the network, that an answer may take beyond these
_READ_ANYWHERE_PERCENT = 40     # of the reads are asked at a node drawn anew
_BACKOFF_MS = 60
_READ_ASKS_MAX = 8              # then a read is given up: nothing hangs on it


class Connection:
    """A client's connection to one node, the token that the node's gateway sees."""

    __slots__ = ("client", "node", "life", "ended", "backlog")

    def __init__(self, client: "Caller", node: SimulatedNode):
        self.client = client
        self.node = node
        self.life = node.life
        self.ended = False
        self.backlog = 0        # bytes that were sent and are not read yet

    def answer(self, node: SimulatedNode, frame: bytes) -> None:
        """The node sends a frame back."""
        self.client.network.send(node.address, self.client.name, frame,
                                 lambda got: self.client.frame(self, got))


class Caller:
    """One client of the cluster. Subclasses have `_next`, `_replied` and `_read_replied`."""

    def __init__(self, cluster, name: str):
        self.cluster = cluster
        self.scheduler = cluster.scheduler
        self.network = cluster.network
        self.name = name
        self.stopping = False
        self.idle = False
        self._connection: Connection | None = None
        self._request_ids = itertools.count(1)      # of all that is sent on one connection
        self._session_number = 0
        self._begin_session()
        self._progress = 0                  # raised by every answer; a stale alarm is void
        self._read: bytes | None = None     # the reading command that is under way
        self._read_local = False
        self._read_id = 0                   # request id of its latest asking
        self._read_asks = 0
        self._read_asked_ms = 0
        self._later(self.scheduler.randint(0, THINK_MS), self._next)

    # --- what subclasses do

    def _next(self) -> None:
        """The next piece of work: the last one is done with."""
        raise NotImplementedError

    def _replied(self, reply: Reply) -> None:
        """The reply to the next frame of this session."""
        raise NotImplementedError

    def _read_replied(self, status: int, payload: bytes) -> None:
        """The answer to the read that was under way."""
        raise NotImplementedError

    def _session_ended(self, refusal: Refusal) -> None:
        """A refusal that ends the session: by itself it never comes."""
        self._expect(False, refusal)

    # --- asking

    def _begin_session(self) -> None:
        self._session_number += 1
        self.session = ClientSession(self.scheduler.random.randbytes(16),
                                     request_ids=self._request_ids)

    def _later(self, delay_ms: int, event) -> None:
        self.scheduler.after(delay_ms, event)

    def _think(self) -> None:
        self._later(self.scheduler.randint(0, THINK_MS), self._next)

    def _submit_command(self, command: bytes) -> int:
        """Returns its sequence."""
        sequence = self.session.submit(command)
        self.cluster.work_history.asked(self.session.session, sequence, command,
                                        self.scheduler.now_ms)
        return sequence

    def _ask(self, command: bytes, local: bool = False) -> None:
        """A read."""
        self._read, self._read_local = command, local
        self._read_asks = 0
        if self.scheduler.chance(_READ_ANYWHERE_PERCENT):
            self._leave()
        self._send()

    @property
    def _busy(self) -> bool:
        return self._read is not None or self.session.unanswered

    def _die(self, progress: int) -> None:
        """The process ends, if it still waits: what it asked for is unknown for ever."""
        if progress == self._progress and self._busy:
            self._give_up()

    def _give_up(self) -> None:
        self._progress += 1
        self._read = None
        if self.scheduler.chance(50):
            self._leave()       # else the node keeps a connection on which nobody listens
        self._begin_session()
        self._think()

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
        self._read_asked_ms = self.scheduler.now_ms
        self._read_id = next(self._request_ids) & 0xFFFFFFFF
        body = requests.encode_read(self._read_local, self._read)
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
        self._connection = self._new_connection(chosen)
        chosen.client_opened(self._connection)

    def _new_connection(self, node: SimulatedNode) -> Connection:
        return Connection(self, node)

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

    def frame(self, connection: Connection, frame) -> None:
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
                self._session_ended(refusal)
                self._begin_session()
                self._done()
            else:
                self._refused(refusal.code, refusal.leader)
            return
        replies = self.session.take_answers()
        session = self.session.session
        for reply in replies:
            self.cluster.work_history.answered(self.name, session, reply, self.scheduler.now_ms)
            self._replied(reply)
        # While some frames are unanswered, their alarm and their sending again stay valid.
        if replies and not self._busy:
            self._done()

    def _read_frame(self, kind: int, body: bytes) -> None:
        if kind == Kind.READ_REPLY:
            command, self._read = self._read, None
            index, status, payload = requests.decode_read_reply(body)
            self.cluster.work_history.read(
                self.name, command, self._read_local, (index, status, payload),
                self._read_asked_ms, self.scheduler.now_ms)
            self._read_replied(status, payload)
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
