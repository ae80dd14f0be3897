"""SimulatedNode: a real Replica, Store and Machine with simulated network, disk, clock and chance.

It stands in the place of server.py and nodecommand.py: opens the directory, takes turns, hands over
before it stops, and crashes. Its connections with other nodes are in connections.py, what its disk
does in diskwork.py.
"""

from collections import deque
from itertools import count

from raftnet.config import Config
from raftnet.errors import DiskFullError, ErrorCode, StorageError
from raftnet.raft.membership import NO_MEMBERSHIP
from raftnet.recovery import open_store
from raftnet.replica import Replica, Start
from raftnet.simulation.connections import Connections, Link
from raftnet.simulation.disk import SimulatedDisk
from raftnet.simulation.diskwork import DiskProfile, DiskWork
from raftnet.storage.store import Store
from raftnet.wire import requests
from raftnet.wire.frames import Kind, encode_frame

_OPENING_FAILS_PERCENT = 4      # of the starts: the disk fails, or the power, in the midst of it
_OPENING_OPERATIONS_MAX = 40
_CUT_MS = 5                     # between two slices of what is applied


class SilentActions:
    """In the place of an ActionLog: keeps nothing."""

    state = None

    def say(self, kind: str, text: str, *values, level: int = 0) -> None:
        """Nothing is kept: the trace of a simulation is its events."""


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
        self.damaged = False            # the directory was damaged, and not opened since
        self.times_healed = 0           # the newest of the directory's files that are set aside
        self.down_until_ms = 0          # nobody starts it before
        self.dies_installing = False    # in the midst of the next install
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
        self._turn_due = False          # something came: a turn follows in the same moment
        self._stopping = False          # SIGTERM came
        self._hand_over_deadline_ms: int | None = None
        self._timer_ms: int | None = None
        self._waiting_events: list = []     # what came while paused
        self.connections = Connections(self)
        self._work = DiskWork(self)

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
        self._timer_ms = None
        self._waiting_events, self._turn_due, self.met = [], False, {}
        self._stopping, self._hand_over_deadline_ms = False, None
        self.connections, self._work = Connections(self), DiskWork(self)
        self.cluster.note(self.address, "start")
        store = self._open()
        if store is not None:
            self._node_id = store.node_id
            self._let_happen(lambda: self._begin(store))

    def _open(self) -> Store | None:
        """The directory; None where it is refused, or the disk fails."""
        scheduler, start, chosen = self.scheduler, self.start, self.cluster.chosen
        failures = self.disk.failures
        if self.cluster.faults.running and chosen.randrange(100) < _OPENING_FAILS_PERCENT:
            self.disk.fail_at(chosen.randint(1, _OPENING_OPERATIONS_MAX), chosen.random() < 0.5)
        try:
            store = open_store(
                self.disk, [start.join, *start.founders], self.address,
                lambda: scheduler.randint(1, 2**64 - 1),
                lambda text: self.cluster.note(self.address, text),
                self.config.raft.log_memory_bytes_max)
        except DiskFullError:
            self._give_up("does not start: the disk is full")
            return None
        except StorageError as error:
            self._give_up(f"does not start: {error}")
            if self.disk.failures == failures:
                self.cluster.refused_to_start(self)
            elif chosen.random() < 0.5:
                self.disk = self.disk.crash(chosen.randint)
            return None
        self.disk.fail_at(0)
        self.cluster.opened(self, store)
        return store

    def _begin(self, store: Store) -> None:
        self.replica = Replica(self.config, store, self.start, self.scheduler.randint,
                               SilentActions())
        self.replica.watches.backlog = lambda client: client.backlog
        applied = count()
        self.replica.applying.clock = lambda: next(applied) / 1000
        self.connections.dial_all()
        self.pump()

    def _give_up(self, why: str) -> None:
        self.cluster.note(self.address, why)
        self.running = False
        self.disk.kill()
        self.cluster.ended(self)

    def crash(self, power_loss: bool) -> None:
        """End the process; a power loss also takes what was not synced."""
        self.cluster.note(self.address, "power loss" if power_loss else "kill -9")
        self._work.end_in_the_midst()
        self._end()
        if power_loss:
            self.disk = self.disk.crash(self.scheduler.randint)
        self.cluster.ended(self)

    def _end(self) -> None:
        assert self.running
        self.running = False
        if self.replica is not None and self.replica.raft is not None:
            log = self.replica.raft.log
            self.last_membership = log.membership_index, log.membership
        self.replica = None
        self.connections.end_all()
        self.disk.kill()

    def stop(self) -> None:
        """SIGTERM: a leader hands over first, as in server.py."""
        self._stopping = True
        self.turn_soon()

    def _has_handed_over(self) -> bool:
        replica = self.replica
        if not replica.leads:
            return True
        if self._hand_over_deadline_ms is None:
            timeout_ms = replica.leadership.hand_over("stopping")
            if not timeout_ms:
                return True
            self._hand_over_deadline_ms = self._clock_ms() + timeout_ms
            self.later(timeout_ms * 1000 // self.clock_permille + 1, self.turn_soon)
        return self._clock_ms() >= self._hand_over_deadline_ms

    def _stop_now(self) -> None:
        """What was given to the disk is finished."""
        self.cluster.note(self.address, "stopped")
        self._work.finish()
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

    def later(self, delay_ms: int, event) -> None:
        life = self.life

        def happen():
            if self.running and self.life == life:
                self.guard(event)
        self.scheduler.after(delay_ms, happen)

    # --- the turn

    def turn_soon(self) -> None:
        """As the server's loop does: what comes in one moment is heard before the turn."""
        if not self._turn_due:
            self._turn_due = True
            self.later(0, self._turn_if_due)

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
            self.connections.dial_all()
            self.connections.greet_again()
        for address, node_id, message in turn.messages:
            self.connections.send_message(address, node_id, message)
        for address, kind, body in turn.frames:
            self.connections.send_frame(address, kind, body)
        self._work.submit(turn.jobs, turn.order)
        for client, request_id, kind, body in [*turn.events, *turn.answers]:
            self._answer(client, request_id, kind, body)
        if self._stopping and self._has_handed_over():
            self._stop_now()
            return
        self._set_timer()

    def _set_timer(self) -> None:
        wait = max(0, self.replica.next_deadline_ms() - self._clock_ms())
        if self.replica.applying.is_cut:
            wait = max(wait, _CUT_MS)   # the turn that was cut short took time
        deadline = self.scheduler.now_ms - (-wait * 1000 // self.clock_permille)
        if self._timer_ms is None or deadline < self._timer_ms:
            self._timer_ms = deadline
            self.later(deadline - self.scheduler.now_ms, lambda: self._timer(deadline))

    def _timer(self, deadline: int) -> None:
        if self._timer_ms == deadline:
            self._timer_ms = None
            self.pump()

    @property
    def disk_idle(self) -> bool:
        """Whether nothing is being written."""
        return not self.running or self._work.idle

    # --- frames

    def arrived(self, link: Link, life: int, frame) -> None:
        """A frame of another node arrives on a connection of this life."""
        if self.running and self.life == life:
            self.guard(lambda: self.connections.frame(link, frame), link)

    def client_opened(self, client) -> None:
        """A client connects."""
        self.replica.gateway.client_opened(client)

    def client_gone(self, client) -> None:
        """A client's connection ends."""
        if self.running:
            self.guard(lambda: (self.replica.gateway.client_gone(client), self.turn_soon()),
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
        self.turn_soon()

    def _answer(self, client, request_id: int, kind: int, body: bytes) -> None:
        if isinstance(client, Link):
            self.connections.carry(client, kind, body)  # a node that asks to be taken in
        else:
            client.answer(self, encode_frame(kind, request_id, body))
