"""The way to whoever leads: redirects, back-off, reconnecting, the pinned cluster id.

Rules: an exchange (a ClientSession, or one read) says what to send and judges what comes; the link
decides where it goes and when again. Everything ends at the exchange's deadline with a
NoAnswerError. Blocking; one thread.
"""

import random
import time

from raftnet.client import connection as connections
from raftnet.client.connection import Connection, clock, describe_os_error
from raftnet.client.session import RETRY_ELSEWHERE, RETRY_HERE, Refusal
from raftnet.errors import (ErrorCode, ERROR_MEANING, FrameError, MalformedError, NoAnswerError,
                            RefusedError)
from raftnet.wire import frames, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind

PAUSE_S_MIN = 0.01          # before the next node is asked, doubling with each round of all
PAUSE_S_MAX = 0.5
RETRY_S_MIN = 0.005         # before the same node is asked again, doubling to PAUSE_S_MAX
DIAL_S_MIN = 3.0            # a node that does not greet in that time is passed over
QUIET_S_MIN = 3.0           # silence after which the node is asked for a sign of life, and again
PATIENCE_S_MAX = 15.0       # both double up to this: round trips may take seconds
_PROBE_ID = 0               # request id of the sign of life; exchanges number from 1


class Link:
    """A connection to the leader, made anew as often as needed."""

    def __init__(self, servers: list[str], redirect: bool = True):
        if not servers:
            raise MalformedError("no server is given: at least one host:port is needed")
        for server in servers:
            parse_address(server)
        self.servers = list(servers)
        self.redirect = redirect
        self.cluster_id = connections.NO_CLUSTER    # pinned at the first sight
        self.connection: Connection | None = None
        self._next_server = 0
        self._target: str | None = None     # where a redirect sends us, else the next server
        self._failures = 0                  # since the last answer
        self._patience = 1.0                # factor on DIAL_S_MIN and QUIET_S_MIN
        self._retries = 0                   # RETRY_HERE since the last answer
        self._problem = ""                  # the newest, for the text of a NoAnswerError
        self._disk_full = False

    # --- one turn

    def turn(self, exchange, deadline: float, block: bool = True) -> None:
        """Connect where needed, send what may be sent, take what has come.

        With `block`, waits until something came (or the exchange must try again). Raises
        NoAnswerError after the deadline, RefusedError for what no retry can heal.
        """
        if clock() >= deadline:
            self._out_of_time(exchange)
        if self.connection is None and not self._connect(exchange, deadline):
            return
        connection = self.connection
        refusal = None
        try:
            data = exchange.output(clock())
            if exchange.overdue:
                self._out_of_time(exchange)
            if data:
                connection.send(data, deadline)
            if not block and not connection.readable:
                return
            for kind, request_id, body in self._receive(connection, deadline):
                if request_id != _PROBE_ID:
                    refusal = exchange.receive(kind, request_id, body) or refusal
                    if kind != Kind.ERROR:
                        self._failures = self._retries = 0
                        self._problem, self._disk_full = "", False
        except (OSError, FrameError, MalformedError) as error:
            if clock() < deadline:          # else it is our time that is up, not the node's fault
                self._drop(exchange)
                self._failed(f"{connection.address}: {describe_os_error(error)}", deadline)
            return
        except BaseException:               # Ctrl-C: half a frame may have been sent
            self.close()
            raise
        if refusal is not None:
            self._react(exchange, refusal, deadline)

    def finish(self, exchange, deadline: float) -> None:
        """Turn until the exchange has nothing unanswered."""
        while exchange.unanswered:
            self.turn(exchange, deadline)

    def _receive(self, connection: Connection, deadline: float) -> list[tuple[int, int, bytes]]:
        quiet = QUIET_S_MIN * self._patience
        try:
            return connection.receive(min(deadline, clock() + quiet))
        except TimeoutError:
            if clock() >= deadline:
                raise
        # a request may take long, a wait very long; a node that lives answers this at once
        connection.send(frames.encode_frame(Kind.STATUS, _PROBE_ID, b""), deadline)
        try:
            return connection.receive(min(deadline, clock() + quiet))
        except TimeoutError:
            self._patience = min(self._patience * 2, PATIENCE_S_MAX / QUIET_S_MIN)
            raise

    # --- where to

    def _connect(self, exchange, deadline: float) -> bool:
        address = self._target
        self._target = None
        if address is None:
            address = self.servers[self._next_server % len(self.servers)]
            self._next_server += 1
        patience = DIAL_S_MIN * self._patience
        try:
            connection = Connection(address, min(deadline, clock() + patience))
        except TimeoutError as error:
            self._patience = min(self._patience * 2, PATIENCE_S_MAX / DIAL_S_MIN)
            self._failed(f"{address}: {describe_os_error(error)}", deadline)
            return False
        except (OSError, FrameError, MalformedError) as error:
            self._failed(f"{address}: {describe_os_error(error)}", deadline)
            return False
        except RefusedError as error:
            self._fail(exchange, error.code, str(error), error.leader)
        self._pin(exchange, connection)
        self.connection = connection
        return True

    def _pin(self, exchange, connection: Connection) -> None:
        theirs = connection.cluster_id
        if theirs == connections.NO_CLUSTER or theirs == self.cluster_id:
            return
        if self.cluster_id == connections.NO_CLUSTER:
            self.cluster_id = theirs
            return
        connection.close()
        self._fail(exchange, ErrorCode.WRONG_CLUSTER,
                   f"{connection.address} belongs to cluster {theirs.hex()}, this client has "
                   f"spoken to cluster {self.cluster_id.hex()}: check the list of servers", None)

    def _react(self, exchange, refusal: Refusal, deadline: float) -> None:
        address = self.connection.address
        name = requests.describe_error(refusal.code)
        self._problem = f"{address}: {name}" + (f": {refusal.text}" if refusal.text else "")
        self._disk_full = refusal.code == ErrorCode.DISK_FULL
        if refusal.code in RETRY_HERE:
            pause = min(PAUSE_S_MAX, RETRY_S_MIN * 2 ** min(self._retries, 10))
            self._retries += 1
            _sleep(pause, deadline)
        elif refusal.code in RETRY_ELSEWHERE:
            if refusal.code == ErrorCode.NOT_LEADER and not self.redirect:
                self._fail(exchange, refusal.code, self._problem, refusal.leader or None)
            leader = refusal.leader if refusal.leader != address and self.redirect else ""
            self._drop(exchange)
            self._failed(self._problem, deadline, leader)
        else:
            meaning = ERROR_MEANING.get(refusal.code, "refused")
            self._fail(exchange, refusal.code, f"{self._problem} ({meaning})",
                       refusal.leader or None)

    def _failed(self, problem: str, deadline: float, leader: str = "") -> None:
        """Remember why, and pause before the next try; not after the first failure or redirect,
        when the way to the leader is short."""
        self._problem = problem
        self._target = leader or None
        self._failures += 1
        if self._failures > 1:
            rounds = (self._failures - 2) // len(self.servers)
            _sleep(min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(rounds, 10)), deadline)

    def _drop(self, exchange) -> None:
        self.connection.close()
        self.connection = None
        exchange.connection_lost()

    # --- ends

    def _out_of_time(self, exchange) -> None:
        self.close()
        last = f"; last: {self._problem}" if self._problem else ""
        if self._disk_full and exchange.known:
            raise RefusedError(ErrorCode.DISK_FULL, f"surely not executed{last}")
        if exchange.known:
            raise NoAnswerError(f"no answer in time; surely not executed{last}", True)
        raise NoAnswerError(f"no answer in time; it is unknown whether it was executed{last}",
                            False, exchange.resume)

    def _fail(self, exchange, code: int, text: str, leader: str | None) -> None:
        self.close()
        if exchange.known:
            raise RefusedError(code, text, leader)
        if code in (ErrorCode.SESSION_EXPIRED, ErrorCode.ALREADY_ACKNOWLEDGED):
            # nothing is kept there that could be asked for
            raise NoAnswerError(f"the outcome is lost: {text}", False)
        raise NoAnswerError(f"it is unknown whether it was executed: {text}", False,
                            exchange.resume)

    def close(self) -> None:
        """End the connection; the next turn dials anew."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Read:
    """An exchange of one request that changes nothing, so that it may be asked again at will."""

    known = True
    resume = None
    overdue = False

    def __init__(self, kind: int, body: bytes, reply_kind: int, request_id: int,
                 of_leader: bool = False):
        self._of_leader = of_leader         # a STATUS that only the leader's answer satisfies
        self._frame = frames.encode_frame(kind, request_id, body)
        self._reply_kind = reply_kind
        self._request_id = request_id
        self._send = True
        self.answer: bytes | None = None    # the reply's body

    @property
    def unanswered(self) -> bool:
        """Whether the reply is still missing."""
        return self.answer is None

    def output(self, now: float) -> bytes:
        """The request, where it must be sent (again)."""
        if not self._send:
            return b""
        self._send = False
        return self._frame

    def connection_lost(self) -> None:
        """It must be sent again."""
        self._send = True

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; raises MalformedError for what answers no read."""
        if request_id != self._request_id:
            return None
        if kind == Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            self._send = True
            return Refusal(code, text, leader)
        if kind != self._reply_kind:
            raise MalformedError(f"a frame of kind {kind} does not answer that")
        if self._of_leader:
            status = requests.decode_status(body)
            if status.role != "leader":
                self._send = True
                return Refusal(ErrorCode.NOT_LEADER, "", status.leader)
        self.answer = body
        return None


def ask_node(address: str, kind: int, body: bytes, reply_kind: int, deadline: float) -> bytes:
    """Ask that very node, once, on a connection of its own; gives the reply's body.

    Raises NoAnswerError or RefusedError.
    """
    read = Read(kind, body, reply_kind, 1)
    connection = None
    try:
        connection = Connection(address, deadline)
        connection.send(read.output(clock()), deadline)
        while read.unanswered:
            for received in connection.receive(deadline):
                refusal = read.receive(*received)
                if refusal is not None:
                    name = requests.describe_error(refusal.code)
                    raise RefusedError(refusal.code, f"{address}: {name}: {refusal.text}",
                                       refusal.leader or None)
    except (OSError, FrameError, MalformedError) as error:
        raise NoAnswerError(f"{address}: {describe_os_error(error)}", True) from error
    finally:
        if connection is not None:
            connection.close()
    return read.answer


def _sleep(seconds: float, deadline: float) -> None:
    seconds = min(seconds * random.uniform(0.5, 1.0), deadline - clock())
    if seconds > 0:
        time.sleep(seconds)
