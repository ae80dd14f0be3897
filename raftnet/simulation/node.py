"""SimulatedNode: a real Replica, Store and Machine with simulated network, disk, clock and chance.

It stands in the place of server.py and net/: greets other nodes, carries frames, calls
Store.perform when the simulated disk has had its time, hands over before it stops, and crashes.
"""

from collections import deque
from dataclasses import dataclass

from raftnet.config import Config
from raftnet.errors import (
    DiskFullError, ErrorCode, MalformedError, StorageError)
from raftnet.net.messages import encode_message
from raftnet.raft.membership import NO_MEMBERSHIP
from raftnet.replica import Replica, Start
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.store import Job, Store
from raftnet.wire import requests
from raftnet.wire.frames import PEER_KINDS_FROM, Kind, encode_frame

_REDIAL_MS = 50
_REDIAL_AFTER_REFUSAL_MS = 500
_REDIAL_MS_MAX = 400            # where nobody answers
_DISK_FULL_RETRY_MS = 500


class SilentActions:
    """In the place of an ActionLog: keeps nothing."""

    state = None

    def say(self, kind: str, text: str, *values, level: int = 0) -> None:
        """Nothing is kept: the trace of a simulation is its events."""


@dataclass(slots=True)
class DiskProfile:
    """How slow a node's disk is; milliseconds a job."""

    low_ms: int = 0
    high_ms: int = 2


class Link:
    """A connection that one node dialled and another accepted."""

    __slots__ = ("dialler", "acceptor", "address", "identity", "hello", "acceptor_id", "ready",
                 "refused", "ended", "greeted_ms")

    def __init__(self, dialler: "SimulatedNode", acceptor: "SimulatedNode"):
        self.dialler = dialler
        self.acceptor = acceptor
        self.address = acceptor.address     # that was dialled
        self.identity = 0           # the dialler's node id, once the acceptor takes its messages
        self.hello = None           # with which the dialler greeted
        self.acceptor_id = 0        # the acceptor's node id, once it answered the greeting
        self.ready = False          # the dialler may send messages
        self.refused = False        # the dialler was told that it does not belong here
        self.ended = False          # nothing arrives any more, at either end
        self.greeted_ms = 0         # when the newest greeting was sent

    def end(self) -> None:
        """Both ends lose it; what is on its way is gone."""
        if not self.ended:
            self.ended = True
            for node in (self.dialler, self.acceptor):
                node.scheduler.after(node.network.delay(), lambda node=node: node.link_ended(self))


class SimulatedNode:
    """One node of a simulated cluster; `cluster` knows the others, network and scheduler."""

    def __init__(self, cluster, start: Start, config: Config):
        self.cluster = cluster
        self.scheduler = cluster.scheduler
        self.network = cluster.network
        self.address = start.address
        self.start = start
        self.config = config
        self.disk = SimulatedDisk(start.address)
        self._node_id = 0               # of the directory when it was opened; 0: not yet
        self.damaged = False            # a bit of the directory was flipped while it was down
        self.down_until_ms = 0          # nobody starts it before
        self.old_copy = False           # the directory is an old copy of itself or of another's
        # The newest membership of its log and its index, when the process ended.
        self.last_membership = (0, NO_MEMBERSHIP)
        self.met: dict[int, tuple[int, int]] = {}   # whom this process knows: (boot, process)
        self.disk_profile = DiskProfile()
        self.life = 0                   # how often it was started; what is of an older life is void
        self.running = False
        self.paused = False             # SIGSTOP: time passes, nothing is done
        self.replica: Replica | None = None
        self.clock_permille = 1000      # how fast its monotonic clock runs
        self._began_ms = 0
        self._jobs: list[Job] = []      # waiting for the disk
        self._batch: list[Job] = []     # done together, with one sync, at the moment
        self._turn_due = False          # something came: a turn follows in the same moment
        self._stopping = False          # SIGTERM came
        self._hand_over_deadline_ms: int | None = None
        self._timer_ms: int | None = None
        self._waiting_events: list = []     # what came while paused
        self._dialling: set[str] = set()        # addresses that are tried again and again
        self.links: dict[str, Link] = {}        # dialled, by address
        self.accepted: list[Link] = []
        self._was_up: set[str] = set()

    @property
    def node_id(self) -> int:
        """Of the directory, as far as it was opened."""
        return self.replica.node_id if self.replica is not None else self._node_id

    @node_id.setter
    def node_id(self, node_id: int) -> None:
        self._node_id = node_id

    # --- life

    def boot(self) -> None:
        """Start the process."""
        assert not self.running
        scheduler = self.scheduler
        self.life += 1
        self.running, self.paused = True, False
        self._began_ms = scheduler.now_ms
        self._jobs, self._batch, self._timer_ms = [], [], None
        self._waiting_events, self._turn_due, self.met = [], False, {}
        self._stopping, self._hand_over_deadline_ms = False, None
        self.links, self.accepted, self._was_up, self._dialling = {}, [], set(), set()
        self.cluster.note(self.address, "start")
        try:
            store = Store.open(self.disk, lambda: scheduler.randint(1, 2**64 - 1),
                               lambda text: None)
        except DiskFullError:
            self._give_up("does not start: the disk is full")
            return
        except StorageError as error:
            self._give_up(f"does not start: {error}")
            self.cluster.refused_to_start(self)
            return
        self._node_id = store.node_id
        self.cluster.opened(self, store)
        self._let_happen(lambda: self._begin(store))

    def _begin(self, store: Store) -> None:
        self.replica = Replica(self.config, store, self.start, self.scheduler.randint,
                               SilentActions())
        self._dial_all()
        self.pump()

    def _give_up(self, why: str) -> None:
        self.cluster.note(self.address, why)
        self.running = False
        self.disk.kill()
        self.cluster.ended(self)

    def crash(self, power_loss: bool) -> None:
        """End the process; a power loss also takes what was not synced."""
        scheduler = self.scheduler
        self.cluster.note(self.address, "power loss" if power_loss else "kill -9")
        if self._batch and scheduler.chance(50):
            # In the midst of its disk work: at a random operation of it.
            self.disk.fail_at(scheduler.randint(1, 6), scheduler.chance(50))
            try:
                self.replica.store.perform(self._batch)
            except (StorageError, DiskFullError):
                self._batch = []    # as far as it came; nobody hears of it
        self._end()
        if power_loss:
            self.disk = self.disk.crash(scheduler.randint)
        self.cluster.ended(self)

    def _end(self) -> None:
        assert self.running
        self.running = False
        if self.replica is not None and self.replica.raft is not None:
            log = self.replica.raft.log
            self.last_membership = log.membership_index, log.membership
        self.replica = None
        for link in [*self.links.values(), *self.accepted]:
            link.end()
        self.disk.kill()

    def stop(self) -> None:
        """SIGTERM: a leader hands over first, as in server.py."""
        self._stopping = True
        self._turn_soon()

    def _has_handed_over(self) -> bool:
        replica = self.replica
        if not replica.leads:
            return True
        if self._hand_over_deadline_ms is None:
            timeout_ms = replica.leadership.hand_over("stopping")
            if not timeout_ms:
                return True
            self._hand_over_deadline_ms = self._clock_ms() + timeout_ms
            self._later(timeout_ms * 1000 // self.clock_permille + 1, self._turn_soon)
        return self._clock_ms() >= self._hand_over_deadline_ms

    def _stop_now(self) -> None:
        """What was given to the disk is finished."""
        self.cluster.note(self.address, "stopped")
        try:
            self.replica.store.perform(self._batch + self._jobs)
        except (StorageError, DiskFullError):
            pass        # as far as it came; nobody hears of it
        self._end()
        self.cluster.ended(self)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: everything that came meanwhile is there at once: in order on each connection,
        in any order between them. All of it is heard before the next turn."""
        self.paused = False
        sources: dict[object, deque] = {}
        for source, event in self._waiting_events:
            sources.setdefault(source, deque()).append(event)
        self._waiting_events = []
        queues = list(sources.values())
        self._elapse()
        while queues and self.running:
            place = self.scheduler.randint(0, len(queues) - 1)
            self._let_happen(queues[place].popleft())
            if not queues[place]:
                del queues[place]
        if self.running:
            self._let_happen(self.pump)

    def guard(self, event, source=None) -> None:
        """Let an event of this life happen now, or when the process goes on. `source`: the
        connection that it came on; None: the process itself."""
        if self.paused:
            self._waiting_events.append((source, event))
        else:
            self._elapse()
            self._let_happen(event)

    def _let_happen(self, event) -> None:
        """A disk that fails under the loop itself (founding, joining) ends the process."""
        try:
            event()
        except StorageError as error:
            self.cluster.note(self.address, f"stops: {error}")
            self.crash(power_loss=False)

    def _elapse(self) -> None:
        self.replica.elapse(self._clock_ms())

    def _clock_ms(self) -> int:
        """The node's own monotonic clock."""
        return (self.scheduler.now_ms - self._began_ms) * self.clock_permille // 1000

    def _later(self, delay_ms: int, event) -> None:
        life = self.life

        def happen():
            if self.running and self.life == life:
                self.guard(event)
        self.scheduler.after(delay_ms, happen)

    # --- the turn

    def _turn_soon(self) -> None:
        """As the server's loop does: what comes in one moment is heard before the turn."""
        if not self._turn_due:
            self._turn_due = True
            self._later(0, self._turn_if_due)

    def _turn_if_due(self) -> None:
        if self._turn_due:      # else one came of itself meanwhile
            self.pump()

    def pump(self) -> None:
        """What one turn of the server's loop does."""
        replica = self.replica
        self._turn_due = False
        replica.advance_clock(self._clock_ms())
        self.cluster.check(self)    # what was heard may have committed by the old membership,
        turn = replica.turn()       # and the turn may begin a new one
        self.cluster.check(self)
        if replica.stop_reason:
            self.cluster.note(self.address, f"stops: {replica.stop_reason}")
            self.crash(power_loss=False)
            self.cluster.stopped_itself(self)
            return
        if turn.peers_changed:
            self._dial_all()
            self._greet_again()
        for address, node_id, message in turn.messages:
            link = self.links.get(address)
            if link is not None and link.ready and link.acceptor_id == node_id:
                self.cluster.invariants.sends(self, node_id, message, link)
                self._carry(link, self, *encode_message(message))
        for address, kind, body in turn.frames:
            if address in self.links:
                self._carry(self.links[address], self, kind, body)
        for job in turn.jobs:
            self._jobs.append(job)
        self._begin_disk()
        for client, request_id, kind, body in turn.answers:
            self._answer(client, request_id, kind, body)
        if self._stopping and self._has_handed_over():
            self._stop_now()
            return
        self._set_timer()

    def _set_timer(self) -> None:
        wait = max(0, self.replica.next_deadline_ms() - self._clock_ms())
        deadline = self.scheduler.now_ms - (-wait * 1000 // self.clock_permille)
        if self._timer_ms is None or deadline < self._timer_ms:
            self._timer_ms = deadline
            self._later(deadline - self.scheduler.now_ms, lambda: self._timer(deadline))

    def _timer(self, deadline: int) -> None:
        if self._timer_ms == deadline:
            self._timer_ms = None
            self.pump()

    # --- disk

    @property
    def disk_idle(self) -> bool:
        """Whether nothing is being written."""
        return not self.running or not self._batch

    def _begin_disk(self) -> None:
        """The disk takes all that waits, and nothing more until that is done: as DiskWorker."""
        if self._jobs and not self._batch:
            self._batch, self._jobs = self._jobs, []
            profile = self.disk_profile
            self._later(self.scheduler.randint(profile.low_ms, profile.high_ms), self._disk_done)

    def _disk_done(self) -> None:
        jobs = self._batch
        try:
            self.replica.store.perform(jobs)
        except DiskFullError:
            self.replica.disk_full = True
            self._later(_DISK_FULL_RETRY_MS, self._disk_done)
            return
        except StorageError:
            self._batch = []                # never tried again: a failed sync ends the process
            self.crash(power_loss=False)
            return
        self.replica.disk_full = False
        self._batch = []
        self.cluster.jobs_durable(self, jobs)
        self.replica.job_done(jobs[-1].number)
        self.pump()

    # --- connections

    def _dial_all(self) -> None:
        targets = self.replica.greetings.dial_targets()
        for address in [a for a in self.links if a not in targets]:
            self.links.pop(address).end()
        for address in targets:
            self._dial_on(address)

    def _dial_on(self, address: str) -> None:
        if address not in self._dialling:
            self._dialling.add(address)
            self._dial(address, _REDIAL_MS)

    def greet_later(self, address: str) -> None:
        """The other end of a greeted connection does not want this node any more."""
        if self.running:
            self._later(self.network.delay(), lambda: self._dial_on(address))

    def _dial(self, address: str, wait_ms: int) -> None:
        """Connect and greet, and again after a while, until the greeting is answered."""
        link = self.links.get(address)
        if address not in self.replica.greetings.dial_targets() or (
                link is not None and link.ready):
            self._dialling.discard(address)
            return
        target = self.cluster.nodes.get(address)
        again_ms = _REDIAL_MS
        if target is None or not target.running:
            again_ms = min(2 * wait_ms, _REDIAL_MS_MAX)
            if address in self._was_up:
                self._was_up.discard(address)
                self.replica.peer_gone(address)
                self._later(0, self.pump)
        else:
            if link is None:
                self.links[address] = link = Link(self, target)
                target.accepted.append(link)
            if link.refused:
                again_ms = _REDIAL_AFTER_REFUSAL_MS
            link.greeted_ms = self.scheduler.now_ms
            self._carry(link, self, Kind.HELLO,
                        requests.encode_hello(self.replica.greetings.hello()))
            wait_ms = max(wait_ms, self.cluster.round_trip_ms)
        self._later(wait_ms, lambda: self._dial(address, again_ms))

    def _carry(self, link: "Link", sender: "SimulatedNode", kind: int, body: bytes) -> None:
        """Send a frame on a connection, from either end."""
        receiver = link.acceptor if sender is link.dialler else link.dialler
        life = receiver.life
        self.network.send(sender.address, receiver.address, encode_frame(kind, 1, body),
                          lambda got: receiver.arrived(link, life, got))

    def _greet_again(self) -> None:
        """The members have changed: who belongs no more is told so."""
        for link in self.accepted:
            if link.identity:
                refusal = self.replica.greetings.why_unwelcome(link.hello)
                if refusal is not None:
                    self._refuse(link, *refusal)

    def _refuse(self, link: "Link", code: int, text: str) -> None:
        """Say why; nothing more of this connection counts, until another greeting on it."""
        link.identity, link.hello, link.refused = 0, None, True
        if link.ready:
            link.ready = False
            link.dialler.greet_later(link.address)
        self._carry(link, self, Kind.ERROR, requests.encode_error(code, text))

    def arrived(self, link: "Link", life: int, frame) -> None:
        """A frame arrives on a connection of this life."""
        if self.running and self.life == life:
            self.guard(lambda: None if link.ended else self._arrived(link, frame), link)

    def _arrived(self, link: "Link", frame) -> None:
        other = link.acceptor if self is link.dialler else link.dialler
        if frame is None:
            self.cluster.note(self.address, f"damaged frame from {other.address}")
            link.end()      # it costs the connection
            return
        kind, request_id, body = frame
        self.cluster.note(self.address, f"<- {other.address}", kind, body)
        try:
            if self is link.acceptor:
                self._accepted_frame(link, kind, request_id, body)
            elif kind == Kind.HELLO_REPLY:
                self._answered(link, requests.decode_hello(body))
            else:
                self.replica.greetings.dialled_frame(link.address, kind, body)
        except MalformedError as error:
            raise AssertionError(f"an undamaged frame of kind {kind}: {error}") from error
        self._turn_soon()

    def _accepted_frame(self, link: "Link", kind: int, request_id: int, body: bytes) -> None:
        if kind >= PEER_KINDS_FROM:
            if link.identity:
                self.cluster.invariants.accepts(self, link.hello)
                self.replica.peer_frame(link.identity, kind, body)
        elif kind == Kind.HELLO:
            hello = requests.decode_hello(body)
            refusal = self.replica.greetings.greeted(hello)
            if refusal is not None:
                self._refuse(link, *refusal)
                return
            link.hello, link.refused = hello, False
            if hello.cluster_id == self.replica.cluster_id and any(hello.cluster_id):
                if link.identity != hello.node_id:
                    link.identity = hello.node_id
                    self.replica.peer_identified(hello.node_id)
                self.met[hello.node_id] = hello.boot, hello.process
            self._carry(link, self, Kind.HELLO_REPLY,
                        requests.encode_hello(self.replica.greetings.hello()))
        elif link.hello is not None:    # else it was refused, or its greeting was lost
            self.replica.client_frame(link, request_id, kind, body)

    def _answered(self, link: "Link", hello) -> None:
        address, replica = link.address, self.replica
        if link.ready or self.links.get(address) is not link or (
                replica.greetings.greeted(hello, address) is not None):
            return
        first, link.acceptor_id = not link.acceptor_id, hello.node_id
        if hello.cluster_id == replica.cluster_id:
            self.met[hello.node_id] = hello.boot, hello.process
        # Greetings may be lost here, and answers be of an earlier one: what counts is that the
        # other end knows us, as it does in order on a real connection.
        link.ready = hello.cluster_id == replica.cluster_id and link.identity != 0
        if link.ready:
            self._was_up.add(address)
        if link.ready or first and replica.greetings.joining is not None:
            replica.peer_connected(address, hello, self.scheduler.now_ms - link.greeted_ms)

    def link_ended(self, link: "Link") -> None:
        """One of the connections ended."""
        if not self.running:
            return
        if link in self.accepted:
            self.accepted.remove(link)
        address = link.address
        if self.links.get(address) is link:
            del self.links[address]
            self._later(0, lambda: self._dial_on(address))

    # --- clients

    def client_opened(self, client) -> None:
        """A client connects."""
        self.replica.gateway.client_opened(client)

    def client_gone(self, client) -> None:
        """A client's connection ends."""
        if self.running:
            self.guard(lambda: (self.replica.gateway.client_gone(client), self._turn_soon()),
                       client)

    def client_frame(self, client, life: int, frame) -> None:
        """A client's frame arrives."""
        if self.running and self.life == life and frame is not None:
            self.guard(lambda: self._client_frame(client, frame), client)

    def _client_frame(self, client, frame) -> None:
        kind, request_id, body = frame
        self.cluster.note(self.address, f"<- {client.client.name}", kind, body)
        if kind != Kind.INVITE and self.cluster.is_foreign(self):
            # Clients keep to the cluster that they first saw.
            self._answer(client, request_id, Kind.ERROR,
                         requests.encode_error(ErrorCode.NOT_LEADER, "another cluster"))
            return
        self.replica.client_frame(client, request_id, kind, body)
        self._turn_soon()

    def _answer(self, client, request_id: int, kind: int, body: bytes) -> None:
        if isinstance(client, Link):
            self._carry(client, self, kind, body)   # a node that asks to be taken in
        else:
            client.answer(self, encode_frame(kind, request_id, body))
