"""Connections of a simulated node with others: what net/peers.py and server.py do with sockets.

A node sends on the connection that it dialled and receives on those that it accepted. Greetings
may be lost here, so a node greets again on the same connection until it is answered; damage costs
the connection.
"""

from raftnet.errors import MalformedError
from raftnet.raft.types import Message
from raftnet.net.messages import encode_message
from raftnet.wire import requests
from raftnet.wire.frames import PEER_KINDS_FROM, Kind, encode_frame

_REDIAL_MS = 50
_REDIAL_AFTER_REFUSAL_MS = 500
_REDIAL_MS_MAX = 400            # where nobody answers


class Link:
    """A connection that one node dialled and another accepted."""

    __slots__ = ("dialler", "acceptor", "address", "identity", "hello", "acceptor_id", "ready",
                 "refused", "ended", "greeted_ms")

    def __init__(self, dialler, acceptor):
        self.dialler = dialler              # SimulatedNodes, both
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
                node.scheduler.after(node.network.delay(),
                                     lambda node=node: node.connections.link_ended(self))


class Connections:
    """Those of one life of a SimulatedNode."""

    def __init__(self, node):
        self._node = node
        self._links: dict[str, Link] = {}       # dialled, by address
        self._accepted: list[Link] = []
        self._dialling: set[str] = set()        # addresses that are tried again and again
        self._was_up: set[str] = set()

    def end_all(self) -> None:
        """The process ends."""
        for link in [*self._links.values(), *self._accepted]:
            link.end()

    def dial_all(self) -> None:
        """To all that the replica wants, and to no other."""
        targets = self._node.replica.greetings.dial_targets()
        for address in [a for a in self._links if a not in targets]:
            self._links.pop(address).end()
        for address in targets:
            self._dial_on(address)

    def _dial_on(self, address: str) -> None:
        if address not in self._dialling:
            self._dialling.add(address)
            self._dial(address, _REDIAL_MS)

    def greet_later(self, address: str) -> None:
        """The other end of a greeted connection does not want this node any more."""
        node = self._node
        if node.running:
            node.later(node.network.delay(), lambda: self._dial_on(address))

    def _dial(self, address: str, wait_ms: int) -> None:
        """Connect and greet, and again after a while, until the greeting is answered."""
        node = self._node
        link = self._links.get(address)
        if address not in node.replica.greetings.dial_targets() or (
                link is not None and link.ready):
            self._dialling.discard(address)
            return
        target = node.cluster.nodes.get(address)
        again_ms = _REDIAL_MS
        if target is None or not target.running:
            again_ms = min(2 * wait_ms, _REDIAL_MS_MAX)
            if address in self._was_up:
                self._was_up.discard(address)
                node.replica.peer_gone(address)
                node.later(0, node.pump)
        else:
            if link is None:
                self._links[address] = link = Link(node, target)
                target.connections._accepted.append(link)
            if link.refused:
                again_ms = _REDIAL_AFTER_REFUSAL_MS
            link.greeted_ms = node.scheduler.now_ms
            self.carry(link, Kind.HELLO, requests.encode_hello(node.replica.greetings.hello()))
            wait_ms = max(wait_ms, node.cluster.round_trip_ms)
        node.later(wait_ms, lambda: self._dial(address, again_ms))

    # --- sending

    def send_message(self, address: str, node_id: int, message: Message) -> None:
        """To the process of that node there, if a connection with it is up."""
        link = self._links.get(address)
        if link is not None and link.ready and link.acceptor_id == node_id:
            self._node.cluster.invariants.sends(self._node, node_id, message, link)
            self.carry(link, *encode_message(message))

    def send_frame(self, address: str, kind: int, body: bytes) -> None:
        """Any other frame, to whoever is there."""
        if address in self._links:
            self.carry(self._links[address], kind, body)

    def carry(self, link: Link, kind: int, body: bytes) -> None:
        """Send a frame on a connection, from this end."""
        sender = self._node
        receiver = link.acceptor if sender is link.dialler else link.dialler
        life = receiver.life
        sender.network.send(sender.address, receiver.address, encode_frame(kind, 1, body),
                            lambda got: receiver.arrived(link, life, got))

    def greet_again(self) -> None:
        """The members have changed: who belongs no more is told so."""
        for link in self._accepted:
            if link.identity:
                refusal = self._node.replica.greetings.why_unwelcome(link.hello)
                if refusal is not None:
                    self._refuse(link, *refusal)

    def _refuse(self, link: Link, code: int, text: str) -> None:
        """Say why; nothing more of this connection counts, until another greeting on it."""
        link.identity, link.hello, link.refused = 0, None, True
        if link.ready:
            link.ready = False
            link.dialler.connections.greet_later(link.address)
        self.carry(link, Kind.ERROR, requests.encode_error(code, text))

    # --- receiving

    def frame(self, link: Link, frame) -> None:
        """A frame arrived on a connection; None: a damaged one."""
        node = self._node
        if link.ended:
            return
        other = link.acceptor if node is link.dialler else link.dialler
        if frame is None:
            node.cluster.note(node.address, f"damaged frame from {other.address}")
            link.end()      # it costs the connection
            return
        kind, request_id, body = frame
        node.cluster.note(node.address, f"<- {other.address}", kind, body)
        try:
            if node is link.acceptor:
                self._accepted_frame(link, kind, request_id, body)
            elif kind == Kind.HELLO_REPLY:
                self._answered(link, requests.decode_hello(body))
            else:
                node.replica.joining.dialled_frame(link.address, kind, body)
        except MalformedError as error:
            raise AssertionError(f"an undamaged frame of kind {kind}: {error}") from error
        node.turn_soon()

    def _accepted_frame(self, link: Link, kind: int, request_id: int, body: bytes) -> None:
        node = self._node
        replica = node.replica
        if kind >= PEER_KINDS_FROM:
            if link.identity:
                node.cluster.invariants.accepts(node, link.hello)
                replica.peer_frame(link.identity, kind, body)
        elif kind == Kind.HELLO:
            hello = requests.decode_hello(body)
            refusal = replica.greetings.greeted(hello)
            if refusal is not None:
                self._refuse(link, *refusal)
                return
            link.hello, link.refused = hello, False
            if hello.cluster_id == replica.cluster_id and any(hello.cluster_id):
                if link.identity != hello.node_id:
                    link.identity = hello.node_id
                    replica.peer_identified(hello.node_id)
                node.met[hello.node_id] = hello.boot, hello.process
            self.carry(link, Kind.HELLO_REPLY, requests.encode_hello(replica.greetings.hello()))
        elif link.hello is not None:    # else it was refused, or its greeting was lost
            replica.client_frame(link, request_id, kind, body)

    def _answered(self, link: Link, hello) -> None:
        node, address = self._node, link.address
        replica = node.replica
        if link.ready or self._links.get(address) is not link or (
                replica.greetings.greeted(hello, address) is not None):
            return
        first, link.acceptor_id = not link.acceptor_id, hello.node_id
        if hello.cluster_id == replica.cluster_id:
            node.met[hello.node_id] = hello.boot, hello.process
        # Greetings may be lost here, and answers be of an earlier one: what counts is that the
        # other end knows us, as it does in order on a real connection.
        link.ready = hello.cluster_id == replica.cluster_id and link.identity != 0
        if link.ready:
            self._was_up.add(address)
        if link.ready or first and replica.joining.asking is not None:
            replica.peer_connected(address, hello, node.scheduler.now_ms - link.greeted_ms)

    def link_ended(self, link: Link) -> None:
        """One of the connections ended."""
        if not self._node.running:
            return
        if link in self._accepted:
            self._accepted.remove(link)
        address = link.address
        if self._links.get(address) is link:
            del self._links[address]
            self._node.later(0, lambda: self._dial_on(address))
