"""The way to whoever leads: redirects, pauses, reconnecting, the pinned cluster id.

Rules: an exchange (a ClientSession, or one read) says what to send and judges what comes; the link
decides where it goes and when again. Everything ends at the exchange's deadline with a
NoAnswerError. How long a single step may take is patience.py's affair. Blocking; one thread.

Finding the new leader after a failure: a connection that ended is left for the next node at once; a
node that does not lead is left for the leader that it names, or asked again, soon and then more
rarely, as it will hear who is elected. A pause is a part of the time that the trouble lasts
already, so it never makes an outage much longer, and thousands of clients ask rarely in a long one.
"""

import random
import time

from raftnet.client import connection as connections
from raftnet.client.connection import Connection, clock, describe_os_error
from raftnet.client.patience import QUIET_S_MAX, Patience
from raftnet.client.session import RETRY_ELSEWHERE, RETRY_HERE, Refusal
from raftnet.errors import (ErrorCode, ERROR_MEANING, FrameError, MalformedError, NoAnswerError,
                            RefusedError)
from raftnet.wire import frames, requests
from raftnet.wire.address import parse_address
from raftnet.wire.frames import Kind

PAUSE_S_MIN = 0.002         # between two tries
PAUSE_S_MAX = 0.5
_PAUSE_PART = 4             # a pause is this part of the time that the trouble lasts
STAY_S = 0.25               # a node that knows no leader for so long may be the one that is cut off
AVOID_S = 1.0               # a node that was silent is not gone to again that soon
LOOK_S = 10.0               # how often a node in use tells its members, and shows the round trip
LOOK_S_FIRST = 1.0          # a client that lives shorter never asks
_LEARNED_MAX = 64           # members that are not among the given servers
_PROBE_ID = 0               # request id of the sign of life; exchanges number from 1
_PROBE = frames.encode_frame(Kind.STATUS, _PROBE_ID, b"")


class Link:
    """A connection to the leader, made anew as often as needed.

    `servers`: where to begin; without `redirect` the only ones. The members that a node in use
    names are tried too, so that one address is enough to outlive that node.
    """

    def __init__(self, servers: list[str], redirect: bool = True):
        if not servers:
            raise MalformedError("no server is given: at least one host:port is needed")
        for server in servers:
            parse_address(server)
        self.servers = list(servers)
        self.redirect = redirect
        self.cluster_id = connections.NO_CLUSTER    # pinned at the first sight
        self.connection: Connection | None = None
        self.address = ""                       # of the newest connection, also when it has ended
        self.alive_at = 0.0                     # when a node answered the newest sign of life
        self.heard_at = 0.0                     # when it was asked, behind all that was sent before
        self.patience = Patience()
        self._learned: list[str] = []           # members that are not among the servers
        self._left: dict[str, float] = {}       # address -> when it failed or was left last
        self._avoided: dict[str, float] = {}    # address -> until when no redirect is followed
        self._target: str | None = None     # where a redirect sends us, else the one left longest
        self._trouble_since: float | None = None    # the first failure since the last answer
        self._steps = 0                     # failures and redirects since the last pause
        self._arrived = 0.0                 # when the connection was made
        self._probed = False                # a sign of life was asked for, and has not come
        self._probed_at: float | None = None    # when; None: it is no measure any more
        self._asked_at: float | None = None     # when; None: before something that was sent too
        self._quiet_factor = 1.0            # signs of life came, and nothing else
        self._look_at = clock() + LOOK_S_FIRST
        self._problem = ""                  # the newest, for the text of a NoAnswerError
        self._disk_full = False

    def sibling(self, address: str | None = None) -> "Link":
        """A link of its own to the same cluster; with `address`, to that node alone."""
        alone = address is not None
        link = Link([address] if alone else self.servers, self.redirect and not alone)
        link.cluster_id = self.cluster_id
        link.patience = self.patience           # what was measured holds for both
        link._learned = [] if alone else list(self._learned)
        return link

    # --- one turn

    def turn(self, exchange, deadline: float, block: bool = True) -> None:
        """Connect where needed, send what may be sent, take what has come.

        With `block`, waits until something came (or the exchange must try again). Raises
        NoAnswerError after the deadline, RefusedError for what no retry can heal.
        """
        now = clock()
        if now >= deadline:
            self._out_of_time(exchange)
        if self.connection is None and not self._connect(exchange, deadline):
            return
        connection = self.connection
        if self._probed and connection.readable:
            self._probed_at = None      # nobody knows how long the answer has been lying there
        refusal = None
        try:
            data = exchange.output(clock())
            if exchange.overdue:
                self._out_of_time(exchange)
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._probe(connection, deadline)
                self._asked_at = None       # what is sent now comes behind it
            if data:
                self._send(connection, data, deadline)
            if not block and not connection.readable:
                return
            for kind, request_id, body in self._receive(connection, deadline):
                if request_id == _PROBE_ID:
                    self._sign_of_life(connection, kind, body)
                    continue
                refusal = exchange.receive(kind, request_id, body) or refusal
                self._quiet_factor = 1.0
                if kind != Kind.ERROR:
                    self._trouble_since = None
                    self._problem, self._disk_full = "", False
        except (OSError, FrameError, MalformedError) as error:
            if clock() < deadline:          # else it is our time that is up, not the node's fault
                self._lost(exchange, error, deadline)
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

    def _send(self, connection: Connection, data: bytes, deadline: float) -> None:
        """A path that takes nothing for as long as a silent node is waited for is given up."""
        address, patience = connection.address, self.patience
        connection.send(data, deadline, patience.quiet_s(address) + patience.answer_s(address))

    def _receive(self, connection: Connection, deadline: float) -> list[tuple[int, int, bytes]]:
        quiet_s = self.patience.quiet_s(connection.address)
        # a wait may be very long: who answers meanwhile is asked ever more rarely
        quiet_s = max(quiet_s, min(QUIET_S_MAX, quiet_s * self._quiet_factor))
        try:
            return connection.receive(min(deadline, clock() + quiet_s))
        except TimeoutError:
            if clock() >= deadline:
                raise
        # a request may take long; a node that lives answers this at once
        self._probe(connection, deadline)
        answer_s = self.patience.answer_s(connection.address)
        return connection.receive(min(deadline, clock() + answer_s))

    def _probe(self, connection: Connection, deadline: float) -> None:
        if not self._probed:
            self._send(connection, _PROBE, deadline)
            self._probed = True
            self._probed_at = self._asked_at = clock()

    def _sign_of_life(self, connection: Connection, kind: int, body: bytes) -> None:
        self._quiet_factor *= 2
        if kind != Kind.STATUS_REPLY:
            return                      # what it thinks of no request in particular
        self._probed = False
        self.alive_at = clock()
        if self._asked_at is not None:
            self.heard_at = self._asked_at
        if self._probed_at is not None:
            self.patience.measured(connection.address, clock() - self._probed_at)
        if self.redirect:
            members = [member.address for member in requests.decode_status(body).members]
            self._learned = [a for a in members if a not in self.servers][:_LEARNED_MAX]

    # --- where to

    def _next_address(self) -> str:
        """Where a redirect sends us, else the one that was left longest ago, or never."""
        target, self._target = self._target, None
        if target is not None:
            return target
        return min(self.servers + self._learned, key=lambda a: self._left.get(a, 0.0))

    def _connect(self, exchange, deadline: float) -> bool:
        address = self._next_address()
        try:
            connection = Connection(address, deadline, self.patience.dial_s(address))
        except (OSError, FrameError, MalformedError) as error:
            self._failed(address, error, deadline)
            return False
        except RefusedError as error:
            self._fail(exchange, error.code, str(error), error.leader)
        if not self._pin(exchange, connection, deadline):
            return False
        self.patience.measured(address, connection.round_trip_s)
        self.connection, self.address = connection, address
        self._arrived = clock()
        self._probed = False
        self._quiet_factor = 1.0
        return True

    def _pin(self, exchange, connection: Connection, deadline: float) -> bool:
        theirs = connection.cluster_id
        if theirs == connections.NO_CLUSTER or theirs == self.cluster_id:
            return True
        if self.cluster_id == connections.NO_CLUSTER:
            self.cluster_id = theirs
            return True
        connection.close()
        problem = (f"{connection.address} belongs to cluster {theirs.hex()}, this client has "
                   f"spoken to cluster {self.cluster_id.hex()}")
        if connection.address not in self.servers:      # a member's address of earlier times
            self._failed(connection.address, FrameError(problem), deadline)
            return False
        self._fail(exchange, ErrorCode.WRONG_CLUSTER, f"{problem}: check the list of servers", None)

    def _react(self, exchange, refusal: Refusal, deadline: float) -> None:
        address = self.connection.address
        name = requests.describe_error(refusal.code)
        self._problem = f"{address}: {name}" + (f": {refusal.text}" if refusal.text else "")
        self._disk_full = refusal.code == ErrorCode.DISK_FULL
        if refusal.code in RETRY_HERE:
            self._pause(deadline)
        elif refusal.code in RETRY_ELSEWHERE:
            if refusal.code == ErrorCode.NOT_LEADER and not self.redirect:
                self._fail(exchange, refusal.code, self._problem, refusal.leader or None)
            self._elsewhere(exchange, refusal.leader, deadline)
        else:
            meaning = ERROR_MEANING.get(refusal.code, "refused")
            self._fail(exchange, refusal.code, f"{self._problem} ({meaning})",
                       refusal.leader or None)

    def _elsewhere(self, exchange, leader: str, deadline: float) -> None:
        """The node that was asked does not lead: go to the one it names, or ask it again."""
        address, now = self.connection.address, clock()
        if leader and leader != address and self.redirect and now >= self._avoided.get(leader, 0.0):
            self._drop(exchange)
            self._target = leader
            self._step(deadline)        # two that name each other
            return
        self._pause(deadline)
        if now - self._arrived > max(STAY_S, 2 * self.patience.round_trip_s(address)):
            self._drop(exchange)
            self._left[address] = now

    def _lost(self, exchange, error: Exception, deadline: float) -> None:
        """The connection ended, brought damage, or was silent for too long."""
        address = self.connection.address
        self._drop(exchange)
        self._failed(address, error, deadline, dialled=False)

    def _failed(self, address: str, error: Exception, deadline: float,
                dialled: bool = True) -> None:
        """Remember why, and go to the next node; after a round of all, pause."""
        now = clock()
        text = describe_os_error(error)
        self._problem = text if address in text else f"{address}: {text}"
        self._left[address] = now
        if isinstance(error, TimeoutError):
            if now < deadline:          # else it had less time than it should have
                self.patience.too_late(address)
            self._avoided[address] = now + AVOID_S
        elif dialled:       # others may name it until they have noticed too
            self._avoided[address] = now + self._pause_s(now)
        self._step(deadline)

    def _step(self, deadline: float) -> None:
        if self._trouble_since is None:
            self._trouble_since = clock()
        self._steps += 1
        if self._steps > len(self.servers) + len(self._learned):
            self._pause(deadline)

    def _pause_s(self, now: float) -> float:
        if self._trouble_since is None:
            self._trouble_since = now
        return min(PAUSE_S_MAX, max(PAUSE_S_MIN, (now - self._trouble_since) / _PAUSE_PART))

    def _pause(self, deadline: float) -> None:
        self._steps = 0
        now = clock()
        seconds = self._pause_s(now) * random.uniform(0.5, 1.0)     # not all clients at once
        time.sleep(max(0.0, min(seconds, deadline - now)))

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
            # what changes nothing is neither executed nor not
            surely = "" if exchange.resume is None else "; surely not executed"
            raise NoAnswerError(f"no answer in time{surely}{last}", True)
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
        """End the connection; the next turn dials anew, as if nothing had happened."""
        self._trouble_since = None
        self._steps = 0
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
