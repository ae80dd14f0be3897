"""Server: a Replica with sockets around it.

One port for clients, peers and tools. A turn of the loop: read every ready socket, hear of the
disk, let the clock take effect, then `Replica.turn()`, and do what it says in its order: messages,
the disk job, replies. The clock goes in whole milliseconds: what depends on nothing else is done in
the first turn of each. If `_turn` stays this short, the design is intact. What comes in on the
port is accepting.py's affair.
"""

import gc
import random
import signal
import sys
import time

from raftnet.accepting import Accepting
from raftnet.actions import ERROR, WARNING, ActionLog
from raftnet.config import Config
from raftnet.errors import ErrorCode, FrameError, MalformedError, RaftnetError, StorageError
from raftnet.net.connection import Connection
from raftnet.net.loop import Loop
from raftnet.net.peers import Peer, Peers
from raftnet.net.sockets import listen
from raftnet.rebuild import SnapshotOrder
from raftnet.replica import Replica, Start, Turn
from raftnet.snapshotprocess import SnapshotProcess
from raftnet.storage.store import Store
from raftnet.storage.worker import DiskWorker
from raftnet.wire.frames import encode_frame

SWITCH_INTERVAL_S = 0.0002      # the disk thread must get the interpreter back at once
_LATE_MS = 100                  # a turn that comes later than this drains its sockets first
_DRAIN_MS_MAX = 100
_STOP_WAIT_S = 10.0


class Server:
    """One node on a real network and disk. `bind` is where it listens, where that differs."""

    def __init__(self, config: Config, store: Store, start: Start, actions: ActionLog,
                 bind: str = ""):
        self.config = config
        self.actions = actions
        self._store = store
        self._loop = Loop(config.net.read_bytes)
        self._dirty: set[Connection] = set()        # connections with output
        self._began = time.monotonic()
        self._stopping = False
        self._hand_over_deadline_ms: int | None = None
        listener = listen(bind or start.address, config.net.listen_backlog)
        self.replica = Replica(config, store, start, random.SystemRandom().randint, actions)
        self.replica.watches.backlog = lambda connection: connection.out_bytes
        self.replica.applying.clock = time.monotonic
        self._loop.before_callbacks = lambda: self.replica.elapse(self.now_ms())
        actions.state = self.replica.state_words
        self._accepting = Accepting(self, self._loop, listener, self._dirty)
        self._peers = Peers(self, self._loop, config.net, self._dirty, self._dialled_frames)
        self._worker = DiskWorker(store, self._loop.wake)
        self._snapshots = SnapshotProcess(self._loop, config, store.disk.directory,
                                          self.replica.snapshots.progress, self._snapshot_ended)
        self._done = 0
        self._election_timeout_ms = 0       # that the connections' patience follows
        self.damaged_frames = 0             # since the start, on any connection

    def now_ms(self) -> int:
        """Milliseconds since this server began, of a clock that never goes back."""
        return int((time.monotonic() - self._began) * 1000)

    # --- running

    def run(self) -> None:
        """Serve until `stop` or a signal; a leader hands over first. Raises StorageError when the
        disk fails, RaftnetError when this node must not go on."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # No cycles are built per operation; a full collection would stall the loop (design).
        gc.collect()
        gc.freeze()
        gc.disable()
        timeout_s = 0.0
        last_ms = deadline_ms = self.now_ms()
        while not (self._stopping and self._has_handed_over()):
            self._loop.wait(timeout_s)
            now_ms = self.now_ms()
            if now_ms - last_ms > timeout_s * 1000 + _LATE_MS:
                self._drain()
                now_ms = self.now_ms()
            is_first = now_ms != last_ms
            self._turn(now_ms, is_first)
            if is_first:
                deadline_ms = self._deadline_ms()
            else:
                deadline_ms = min(deadline_ms, now_ms + 1)      # this turn may have set another
            # One more millisecond: the clock is cut to whole ones.
            timeout_s = (max(0, deadline_ms - self.now_ms() + 1) / 1000
                         if deadline_ms > now_ms else 0.0)
            last_ms = now_ms

    def run_until_signal(self) -> None:
        """`run`, ended by SIGINT or SIGTERM; a second one ends the process at once."""
        received = []

        def on_signal(number, frame):
            # No log line here: the handler may interrupt one, with the log's lock held.
            if self._stopping:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            received.append(number)
            self._stopping = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        self._loop.wake_on_signals()
        try:
            self.run()
        finally:
            self._loop.ignore_signals()
        for number in received[:1]:
            self.actions.say("stop", "%s: stopping", signal.Signals(number).name)

    def stop(self) -> None:
        """End `run` soon; may be called from any thread."""
        self._stopping = True
        self._loop.wake()

    def close(self) -> None:
        """Sync what was begun, close everything."""
        self._snapshots.close()
        done = self._worker.stop(_STOP_WAIT_S)
        self._accepting.close()
        self._peers.close()
        self._loop.close()
        if done:
            self._store.close()
        self.actions.say("stop", "stopped; everything is synced" if done
                         else "stopped without waiting for the disk any longer")

    def _has_handed_over(self) -> bool:
        """Before a stop: whether nobody relies on this node as the leader any more. Another voter
        that is there and as good as equal takes over; it has an election timeout for that."""
        replica = self.replica
        if not replica.leads:
            return True
        if self._hand_over_deadline_ms is None:
            timeout_ms = replica.leadership.hand_over("stopping")
            if not timeout_ms:
                return True
            self._hand_over_deadline_ms = self.now_ms() + timeout_ms
        # One that has gone meanwhile stops too: the others elect as soon as this node has gone.
        gone = self._accepting.peer(replica.raft.transfer_to) is None
        return gone or self.now_ms() >= self._hand_over_deadline_ms

    def _drain(self) -> None:
        """This node was stopped or held up: hear what came meanwhile before any deadline counts."""
        self.actions.say("late", "held up: reading what came meanwhile", level=WARNING)
        # Bounded: under load there is always more to read, and the others wait for our answers.
        end_ms = self.now_ms() + _DRAIN_MS_MAX
        while self._loop.wait(0) and self.now_ms() < end_ms:
            pass

    def _deadline_ms(self) -> int:
        """When a turn is needed though nothing comes."""
        deadlines = [self.replica.next_deadline_ms(), self._peers.next_deadline_ms(self.now_ms()),
                     *self._accepting.deadlines_ms()]
        if self._hand_over_deadline_ms:
            deadlines.append(self._hand_over_deadline_ms)
        return min(deadlines)

    # --- the turn

    def _turn(self, now_ms: int, is_first: bool) -> None:
        """`is_first`: of this millisecond."""
        replica = self.replica
        self._hear_disk()
        if is_first:
            replica.advance_clock(now_ms)
        self._do(replica.turn())
        if replica.stop_reason:
            raise RaftnetError(replica.stop_reason)
        if is_first:
            self._tick(now_ms)
        self._flush()

    def _tick(self, now_ms: int) -> None:
        """Deadlines that are no replica's."""
        if self.replica.raft is not None:
            self._set_patience(self.replica.raft.election_timeout_ms)
        self._peers.tick(now_ms)
        self._accepting.tick(now_ms)
        self.actions.tick()

    def _do(self, turn: Turn) -> None:
        if turn.peers_changed:
            self._peers.set_targets(self.replica.greetings.dial_targets())
            self._accepting.greet_again()
        for address, node_id, message in turn.messages:
            self._peers.send_message(address, node_id, message)
        for address, kind, body in turn.frames:
            self._peers.send_frame(address, kind, body)
        if turn.messages:
            self._flush()       # followers start their disks while ours does
        for job in turn.jobs:
            self._worker.submit(job)
        if turn.order is not None:
            self._snapshots.start(turn.order)
        elif self.replica.snapshots.is_late:
            self._snapshots.hurry()
        for connection, request_id, kind, body in turn.events:
            connection.send_bytes(encode_frame(kind, request_id, body))     # it was owed none
        for connection, request_id, kind, body in turn.answers:
            connection.send(kind, request_id, body)

    def _set_patience(self, election_timeout_ms: int) -> None:
        """Connections bear silence as long as elections are long."""
        if election_timeout_ms == self._election_timeout_ms:
            return
        self._election_timeout_ms = election_timeout_ms
        self._peers.set_patience(election_timeout_ms)
        self._accepting.set_patience(election_timeout_ms)

    def _flush(self) -> None:
        while self._dirty:
            self._dirty.pop().flush()

    def _hear_disk(self) -> None:
        worker = self._worker
        if worker.failure is not None:
            raise StorageError(f"{worker.failure}; the node stops, start it again when the disk "
                               "works")
        if worker.full:
            self.replica.votes_durable(worker.voted)
        if worker.full != self.replica.disk_full:
            self.replica.set_disk_full(worker.full)
            if worker.full:
                self.actions.say("disk", "the disk is full: requests are refused until there is "
                                 "room", level=ERROR)
            else:
                self.actions.say("disk", "the disk has room again", level=WARNING)
        done = worker.done
        if done != self._done:
            self._done = done
            self.replica.job_done(done)

    def _snapshot_ended(self, order: SnapshotOrder, word: str, text: str) -> None:
        snapshots = self.replica.snapshots
        if word == "damaged" and snapshots.is_current(order):
            raise StorageError(text)
        if word == "made":
            snapshots.made(order)
        else:
            snapshots.failed(order, text)

    # --- what its connections ask

    def peer_seen(self, address: str) -> None:
        """A node with that address has dialled this one: it can be dialled."""
        self._peers.seen(address)

    def heard_ms(self, node_id: int) -> int:
        """When the last complete frame came from that peer; 0: none on this connection."""
        connection = self._accepting.peer(node_id)
        return connection.heard_ms if connection is not None else 0

    def peer_silent(self, node_id: int) -> None:
        """Peers: nothing was answered for long. Its answers may be what is stuck."""
        connection = self._accepting.peer(node_id)
        if connection is not None:
            connection.close("no whole frame came for long")

    def describe_damage(self, error: FrameError) -> str:
        """In words, what is wrong with a frame that came; damaged ones are counted."""
        if error.code != ErrorCode.BAD_FRAME:
            return str(error)
        self.damaged_frames += 1
        return f"{error} (damaged frame number {self.damaged_frames} since the start)"

    # --- dialled connections

    def _dialled_frames(self, peer: Peer, connection: Connection, frames: list) -> None:
        for kind, _, body in frames:
            try:
                self.replica.joining.dialled_frame(peer.address, kind, body)
            except MalformedError as error:
                connection.close(str(error))
                return

    def peer_refused(self, address: str) -> bool:
        """Peers: a connection had ended, and dialling it again was refused. Whether that node is
        gone: not while it has a connection to us."""
        if self._accepting.has_peer_at(address):
            return False
        self.replica.peer_gone(address)
        return True
