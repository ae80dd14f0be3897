"""SimulatedNode: a real Replica, Store and Machine with simulated network, disk, clock and chance.

It stands in the place of server.py and net/: greets other nodes, carries frames, calls
Store.perform when the simulated disk has had its time, and crashes.
"""

from dataclasses import dataclass

from raftnet.config import Config
from raftnet.errors import DiskFullError, MalformedError, StorageError
from raftnet.net.messages import encode_message
from raftnet.replica import Replica, Start
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.store import Job, Store
from raftnet.wire import requests
from raftnet.wire.frames import PEER_KINDS_FROM, Kind, encode_frame

_REDIAL_MS = 50
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
        self.disk_profile = DiskProfile()
        self.life = 0                   # how often it was started; what is of an older life is void
        self.running = False
        self.paused = False             # SIGSTOP: time passes, nothing is done
        self.replica: Replica | None = None
        self._began_ms = 0
        self._jobs: list[Job] = []      # waiting for the disk
        self._disk_busy = False
        self._timer_ms: int | None = None
        self._waiting_events: list = []     # what came while paused
        self.connected: dict[str, int] = {}     # address -> its life; dialled and greeted
        # address -> (node id, life) of those that dialled us
        self._identities: dict[str, tuple[int, int]] = {}
        self._was_up: set[str] = set()

    # --- life

    def boot(self) -> None:
        """Start the process."""
        assert not self.running
        scheduler = self.scheduler
        self.life += 1
        self.running, self.paused = True, False
        self._began_ms = scheduler.now_ms
        self._jobs, self._disk_busy, self._timer_ms = [], False, None
        self._waiting_events = []
        self.connected, self._identities, self._was_up = {}, {}, set()
        store = Store.open(self.disk, lambda: scheduler.randint(1, 2**64 - 1), lambda text: None)
        self.replica = Replica(self.config, store, self.start, scheduler.randint, SilentActions())
        self.cluster.booted(self)
        self._dial_all()
        self.pump()

    def crash(self, power_loss: bool) -> None:
        """End the process; a power loss also takes what was not synced."""
        assert self.running
        scheduler = self.scheduler
        if self._jobs and scheduler.chance(50):
            # In the midst of its disk work: at a random operation of it.
            self.disk.fail_at(scheduler.randint(1, 6), scheduler.chance(50))
            try:
                self.replica.store.perform(self._jobs)
            except (StorageError, DiskFullError):
                self._jobs = []     # as far as it came; nobody hears of it
        self.running = False
        self.replica = None
        if power_loss:
            self.disk = self.disk.crash(scheduler.randint)
        else:
            self.disk.kill()
        self.cluster.ended(self)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: everything that came meanwhile is there at once."""
        self.paused = False
        events, self._waiting_events = self._waiting_events, []
        self._elapse()
        for event in events:
            event()
        self.pump()

    def guard(self, event) -> None:
        """Let an event of this life happen now, or when the process goes on."""
        if self.paused:
            self._waiting_events.append(event)
        else:
            self._elapse()
            event()

    def _elapse(self) -> None:
        self.replica.elapse(self.scheduler.now_ms - self._began_ms)

    def _later(self, delay_ms: int, event) -> None:
        life = self.life

        def happen():
            if self.running and self.life == life:
                self.guard(event)
        self.scheduler.after(delay_ms, happen)

    # --- the turn

    def pump(self) -> None:
        """What one turn of the server's loop does."""
        replica = self.replica
        try:
            replica.advance_clock(self.scheduler.now_ms - self._began_ms)
            turn = replica.turn()
        except StorageError:
            self.crash(power_loss=False)
            return
        self.cluster.check(self)
        if turn.peers_changed:
            self._dial_all()
        for address, message in turn.messages:
            if address in self.connected:
                kind, body = encode_message(message)
                self._carry(address, kind, body)
        for address, kind, body in turn.frames:
            self._carry(address, kind, body)
        for job in turn.jobs:
            self.cluster.job_begun(self, job)
            self._jobs.append(job)
        self._begin_disk()
        for client, request_id, kind, body in turn.answers:
            self._answer(client, request_id, kind, body)
        self._set_timer()

    def _set_timer(self) -> None:
        deadline = max(self.scheduler.now_ms, self.replica.next_deadline_ms() + self._began_ms)
        if self._timer_ms is None or deadline < self._timer_ms:
            self._timer_ms = deadline
            self._later(deadline - self.scheduler.now_ms, lambda: self._timer(deadline))

    def _timer(self, deadline: int) -> None:
        if self._timer_ms == deadline:
            self._timer_ms = None
            self.pump()

    # --- disk

    def _begin_disk(self) -> None:
        if self._jobs and not self._disk_busy:
            self._disk_busy = True
            profile = self.disk_profile
            self._later(self.scheduler.randint(profile.low_ms, profile.high_ms), self._disk_done)

    def _disk_done(self) -> None:
        jobs = self._jobs
        self._disk_busy = False
        try:
            self.replica.store.perform(jobs)
        except DiskFullError:
            self.replica.disk_full = True
            self._disk_busy = True
            self._later(_DISK_FULL_RETRY_MS, self._disk_done)
            return
        except StorageError:
            self.crash(power_loss=False)    # a failed sync ends the process
            return
        self.replica.disk_full = False
        self._jobs = []
        self.replica.job_done(jobs[-1].number)
        self.pump()

    # --- connections

    def _dial_all(self) -> None:
        targets = self.replica.dial_targets()
        for address in [a for a in self.connected if a not in targets]:
            del self.connected[address]
        for address in targets:
            self._dial(address)

    def _dial(self, address: str) -> None:
        """Greet, and again after a while, until the greeting is answered."""
        if address in self.connected and any(self.replica.cluster_id):
            return
        target = self.cluster.nodes.get(address)
        if target is None or not target.running:
            if address in self._was_up:
                self._was_up.discard(address)
                self.replica.peer_gone(address)
                self._later(0, self.pump)
        else:
            life, hello = target.life, self.replica.hello()
            frame = encode_frame(Kind.HELLO, 0, requests.encode_hello(hello))
            self.network.send(self.address, address, frame,
                              lambda got, my_life=self.life: got and target.greeted_by(
                                  self, my_life, life, got[2]))
        self._later(_REDIAL_MS, lambda: address in self.replica.dial_targets()
                    and self._dial(address))

    def greeted_by(self, dialler: "SimulatedNode", their_life: int, my_life: int,
                   body: bytes) -> None:
        """A HELLO arrives; the answer goes back."""
        if self.running and self.life == my_life:
            self.guard(lambda: self._greeted_by(dialler, their_life, body))

    def _greeted_by(self, dialler: "SimulatedNode", their_life: int, body: bytes) -> None:
        hello = requests.decode_hello(body)
        if not dialler.running or dialler.life != their_life:
            return      # greeted, and ended while this node was stopped
        if self.replica.greeted(hello) is None:
            if hello.cluster_id == self.replica.cluster_id and any(hello.cluster_id):
                self._identities[dialler.address] = (hello.node_id, their_life)
            frame = encode_frame(Kind.HELLO_REPLY, 0,
                                 requests.encode_hello(self.replica.hello()))
            my_life = self.life
            self.network.send(self.address, dialler.address, frame,
                              lambda got: got and dialler.answered(
                                  self, my_life, their_life, hello.cluster_id, got[2]))
        self.pump()

    def answered(self, other: "SimulatedNode", their_life: int, my_life: int,
                 sent_cluster: bytes, body: bytes) -> None:
        """A HELLO_REPLY arrives, to a HELLO that carried `sent_cluster`."""
        if (self.running and self.life == my_life and other.running
                and other.life == their_life):
            self.guard(lambda: self._answered(other.address, their_life, sent_cluster, body))

    def _answered(self, address: str, life: int, sent_cluster: bytes, body: bytes) -> None:
        hello = requests.decode_hello(body)
        replica, other = self.replica, self.cluster.nodes[address]
        if not other.running or other.life != life:
            return      # answered, and ended while this node was stopped
        if address not in replica.dial_targets() or replica.greeted(hello, address) is not None:
            return
        # Only a greeting that carried our cluster's id makes us known over there.
        same = (hello.cluster_id == replica.cluster_id == sent_cluster
                and any(replica.cluster_id))
        if (same or replica.joining is not None) and address not in self.connected:
            if same:
                self.connected[address] = life
                self._was_up.add(address)
            replica.peer_connected(address, hello, 1)
        self.pump()

    def disconnected(self, address: str, life: int) -> None:
        """The connections with that life of the node there ended."""
        if self.running:
            if self.connected.get(address) == life:
                del self.connected[address]
            if self._identities.get(address, (0, 0))[1] == life:
                del self._identities[address]
            self._later(0, lambda: address in self.replica.dial_targets()
                        and self._dial(address))

    def _carry(self, address: str, kind: int, body: bytes) -> None:
        target = self.cluster.nodes.get(address)
        if target is None or not target.running:
            return
        life = target.life
        frame = encode_frame(kind, 1, body)
        self.network.send(self.address, address, frame,
                          lambda got: target.frame_from(self.address, life, got))

    def frame_from(self, address: str, life: int, frame) -> None:
        """A frame of another node arrives, in the life it was sent to."""
        if self.running and self.life == life:
            self.guard(lambda: self._frame_from(address, frame))

    def _frame_from(self, address: str, frame) -> None:
        if frame is None:
            self.cluster.connection_damaged(self.address, address)
            return
        kind, request_id, body = frame
        try:
            if kind >= PEER_KINDS_FROM:
                identity = self._identities.get(address)
                if identity is not None:
                    self.replica.peer_frame(identity[0], kind, body)
            elif kind in (Kind.JOIN_REPLY, Kind.ERROR):
                self.replica.dialled_frame(address, kind, body)
            else:
                self.replica.client_frame(address, request_id, kind, body)
        except MalformedError as error:
            raise AssertionError(f"an undamaged frame of kind {kind}: {error}") from error
        self.pump()

    # --- clients

    def client_opened(self, client) -> None:
        """A client connects."""
        self.replica.gateway.client_opened(client)

    def client_gone(self, client) -> None:
        """A client's connection ends."""
        if self.running:
            self.guard(lambda: (self.replica.gateway.client_gone(client), self.pump()))

    def client_frame(self, client, life: int, frame) -> None:
        """A client's frame arrives."""
        if self.running and self.life == life and frame is not None:
            self.guard(lambda: (self.replica.client_frame(client, frame[1], frame[0], frame[2]),
                                self.pump()))

    def _answer(self, client, request_id: int, kind: int, body: bytes) -> None:
        if isinstance(client, str):
            self._carry(client, kind, body)     # a node that asks to be taken in
        else:
            client.answer(self, encode_frame(kind, request_id, body))
