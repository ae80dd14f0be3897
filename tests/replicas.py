"""Replicas in one process: clocks, disks and frames move only when a test says so.

Rules: each node has a SimulatedDisk and a clock of its own; frames travel as bytes; a connection
that one node dials is greeted as net/peers.py does it. No sockets, no threads, no sleeping.
"""

import random
import unittest

from raftnet.config import Config
from raftnet.errors import DiskFullError, ErrorCode
from raftnet.net.messages import encode_message
from raftnet.raft.membership import QuorumRule
from raftnet.rebuild import make_snapshot
from raftnet.replica import NO_CLUSTER, Replica, Start
from raftnet.simulation.disk import SimulatedDisk
from raftnet.storage.store import Store
from raftnet.wire import commands, requests
from raftnet.wire.frames import Kind

STEP_MS = 20


class Lines:
    """In the place of an ActionLog: keeps the lines."""

    state = None

    def __init__(self):
        self.lines: list[str] = []

    def say(self, kind, text, *values, level=0):
        """One action."""
        self.lines.append(text % values if values else text)


class Node:
    """A replica and what surrounds it."""

    def __init__(self, start: Start, config: Config, randint, disk=None):
        self.begin = start
        self.config = config
        self.randint = randint
        self.disk = disk or SimulatedDisk(start.address)
        self.start()

    def start(self) -> None:
        """Begin a life from what the disk holds."""
        self.lines = Lines()
        self.clock_ms = 0
        self.disk_slow = False
        self.jobs = []
        self.up: dict[str, bool] = {}       # dialled and greeted: address -> welcome messages?
        self.shown = NO_CLUSTER             # the cluster id in those greetings
        store = Store.open(self.disk, lambda: self.randint(1, 2**64 - 1), self.lines.lines.append,
                           self.config.raft.log_memory_bytes_max)
        self.replica = Replica(self.config, store, self.begin, self.randint, self.lines)
        self.targets: list[str] = []        # where it holds connections, as of its last change

    def restart(self) -> None:
        """kill -9 and start."""
        self.disk.kill()
        self.start()

    def wipe(self) -> None:
        """The directory is emptied."""
        self.disk = SimulatedDisk(self.begin.address)
        self.start()


class Nodes:
    """Nodes by address, and the frames between them."""

    def __init__(self, seed: int = 1, config: Config | None = None):
        self.randint = random.Random(seed).randint
        self.config = config or Config()
        self.nodes: dict[str, Node] = {}
        self.aliases: dict[str, str] = {}           # other names of nodes: name -> address
        self.down: set[str] = set()
        self.cut: set[tuple[str, str]] = set()      # (from, to) that nothing passes
        self.answers: list[tuple] = []              # to clients
        self.loaded: list[int] = []                 # how many entries each APPEND had

    def add(self, address: str, **start) -> Node:
        """A node that runs; the rest as of Start."""
        self.nodes[address] = Node(Start(address, **start), self.config, self.randint)
        return self.nodes[address]

    def founders(self, *addresses: str, rule=QuorumRule.MAJORITY) -> list[Node]:
        """Founders with one list."""
        return [self.add(address, founders=list(addresses), quorum_rule=rule)
                for address in addresses]

    def alive(self) -> list[Node]:
        """The nodes that run."""
        return [node for address, node in self.nodes.items() if address not in self.down]

    def reaches(self, sender: str, receiver: str) -> bool:
        """Whether a frame passes."""
        receiver = self.aliases.get(receiver, receiver)
        return (receiver in self.nodes and not {sender, receiver} & self.down
                and (sender, receiver) not in self.cut)

    def at(self, name: str) -> Node:
        """The node at that address, or of that other name."""
        return self.nodes[self.aliases.get(name, name)]

    def kill(self, address: str) -> None:
        """The process ends."""
        self.down.add(address)
        for node in self.nodes.values():
            node.up.pop(address, None)

    def revive(self, address: str) -> None:
        """It starts again from its disk."""
        self.down.discard(address)
        self.nodes[address].restart()

    def greet(self, sender: str, receiver: str) -> None:
        """`sender` dials `receiver`: greeting and answer."""
        a, b = self.nodes[sender], self.at(receiver)
        hello = a.replica.greetings.hello()
        refusal = b.replica.greetings.greeted(hello)
        if refusal is not None:
            a.replica.greetings.refused(receiver, *refusal)
            return
        answer = b.replica.greetings.hello()
        if a.replica.greetings.greeted(answer, receiver) is not None:
            return
        first = receiver not in a.up
        ready = answer.cluster_id == a.replica.cluster_id != NO_CLUSTER
        known = (hello.cluster_id == answer.cluster_id)     # as the receiver saw it
        joining = a.replica.joining.asking is not None
        if ready and known and not a.up.get(receiver) or first and joining:
            a.replica.peer_connected(receiver, answer, 1)
        a.up[receiver] = ready and known

    def greet_again(self, sender: str, receiver: str) -> None:
        """On a connection that is up: who belongs no more is told so."""
        a, b = self.nodes[sender].replica, self.at(receiver).replica
        refusal = b.greetings.why_unwelcome(a.greetings.hello())
        if refusal is not None:
            a.greetings.refused(receiver, *refusal)
            del self.nodes[sender].up[receiver]

    def connect(self) -> None:
        """Every node holds connections to where it wants to."""
        for node in self.alive():
            address = node.begin.address
            targets = node.targets
            if node.shown != node.replica.cluster_id:
                node.shown, node.up = node.replica.cluster_id, {}   # all are greeted again ...
                for other in self.nodes.values():
                    other.up.pop(address, None)     # ... and must greet it again
            node.up = {target: up for target, up in node.up.items() if target in targets}
            for target in [target for target, up in node.up.items() if up]:
                self.greet_again(address, target)
            for target in targets:
                if not node.up.get(target) and self.reaches(address, target) and (
                        self.reaches(target, address)):
                    self.greet(address, target)

    def step(self, elapsed_ms: int = STEP_MS, connect: bool = True) -> None:
        """Time passes, and every node has a turn."""
        if connect:
            self.connect()
        for node in self.alive():
            node.clock_ms += elapsed_ms
            node.replica.advance_clock(node.clock_ms)
            self.turn(node)

    def turn(self, node: Node) -> None:
        """One turn; what it sends arrives at once."""
        sender = node.begin.address
        turn = node.replica.turn()
        if turn.peers_changed:
            node.targets = node.replica.greetings.dial_targets()
        for address, node_id, message in turn.messages:
            kind, body = encode_message(message)
            if kind == Kind.APPEND:
                self.loaded.append(len(message.entries))
            if node.up.get(address) and self.reaches(sender, address) and (
                    self.at(address).replica.node_id == node_id):
                self.at(address).replica.peer_frame(node.replica.node_id, kind, body)
        for address, kind, body in turn.frames:
            if address in node.up and self.reaches(sender, address):
                self.at(address).replica.client_frame(("node", sender, address), 1, kind, body)
        node.jobs += turn.jobs
        self.disk(node)
        if turn.order is not None:
            make_snapshot(node.disk, self.config, turn.order)
            node.replica.snapshots.made(turn.order)
        for client, request_id, kind, body in turn.events + turn.answers:
            if isinstance(client, tuple) and client[0] == "node":
                if self.reaches(sender, client[1]):
                    self.nodes[client[1]].replica.joining.dialled_frame(sender, kind, body)
            else:
                self.answers.append((client, request_id, kind, body))

    def disk(self, node: Node) -> None:
        """The disk does what waits, unless it is slow or full."""
        if node.disk_slow or not node.jobs:
            return
        try:
            node.replica.store.perform(node.jobs)
        except DiskFullError:
            node.replica.set_disk_full(True)
            node.replica.votes_durable(node.jobs[-1].number)
            return
        node.replica.set_disk_full(False)
        number = node.jobs[-1].number
        node.jobs = []
        node.replica.job_done(number)
        while not node.replica.store.compaction_step():
            pass

    def run_until(self, condition, limit_ms: int = 20_000) -> None:
        """Step until `condition()`."""
        for _ in range(limit_ms // STEP_MS):
            if condition():
                return
            self.step()
        raise AssertionError(f"not within {limit_ms} ms: {condition.__name__}")

    # --- who leads, and clients

    def serving(self) -> Node | None:
        """The node that answers clients."""
        for node in self.alive():
            if node.replica.why_not_serving() is None:
                return node
        return None

    def settled(self) -> bool:
        """All nodes that run have applied the same, to the end, and one serves."""
        places = {(n.replica.machine.applied_index, n.replica.machine.digest)
                  for n in self.alive() if n.replica.raft is not None}
        leader = self.serving()
        return (leader is not None and len(places) == 1
                and all(n.replica.raft is not None for n in self.alive())
                and leader.replica.machine.applied_index == leader.replica.raft.log.last_index)

    def ask(self, node: Node, kind: int, body: bytes, client="client") -> None:
        """A frame of a client."""
        node.replica.gateway.client_opened(client)
        node.replica.client_frame(client, 5, kind, body)

    def answer_to(self, node: Node, kind: int, body: bytes, client="client"):
        """A client's frame and its answer (kind, body), within some turns."""
        self.answers = []
        self.ask(node, kind, body, client)
        self.run_until(lambda: any(a[0] == client for a in self.answers))
        answer = next(a for a in self.answers if a[0] == client)
        return answer[2], answer[3]

    def enqueue(self, node: Node, *messages: bytes, session=requests.NO_SESSION, first=1):
        """Enqueue at that node; gives (kind, body) of the answer."""
        command = commands.encode_enqueue(b"q", list(messages))
        return self.answer_to(node, Kind.REQUEST,
                              requests.encode_request(session, first, 0, [command]))


class ReplicaCase(unittest.TestCase):
    """Assertions about answers."""

    def assert_error(self, answer, code: ErrorCode) -> str:
        """An ERROR with that code; gives the leader's address in it."""
        kind, body = answer
        self.assertEqual(kind, Kind.ERROR)
        found, leader, text = requests.decode_error(body)
        self.assertEqual(ErrorCode(found), code, text)
        return leader

    def assert_enqueued(self, answer) -> int:
        """A REPLY; gives the first message id."""
        kind, body = answer
        self.assertEqual(kind, Kind.REPLY, body)
        message_id = requests.decode_reply(body).first_message_id
        self.assertIsNotNone(message_id)
        return message_id
