"""SimulatedOperator: somebody who asks for one change of the members, over the simulated network.

It sends a CHANGE or an INVITE to the leader that it finds, tries again where the answer says so,
and gives up after a while. What comes of it is not judged; but a request that arrived is answered
before its process ends: `is_owed_an_answer`.
"""

from raftnet.errors import ErrorCode
from raftnet.wire import requests
from raftnet.wire.frames import Kind, encode_frame

_ASKS_MAX = 8
_PATIENCE_MS = 3_000        # then it is asked again, on another connection
_ROUND_TRIPS = 4            # of the network, that an answer may take beyond it
_WAIT_MS_MIN, _WAIT_MS_MAX = 50, 500
_ASK_AGAIN = (ErrorCode.NOT_LEADER, ErrorCode.NOT_READY, ErrorCode.BUSY,
              ErrorCode.CHANGE_UNDER_WAY, ErrorCode.LEADERSHIP_LOST)


class _Asking:
    """One connection with one request, the token that the node's gateway sees."""

    __slots__ = ("client", "node", "life", "arrived", "answered")

    def __init__(self, client: "SimulatedOperator", node):
        self.client = client
        self.node = node
        self.life = node.life
        self.arrived = self.answered = False

    def answer(self, node, frame: bytes) -> None:
        """The node sends a frame back."""
        self.answered = True
        self.client.network.send(node.address, self.client.name, frame,
                                 lambda got: self.client.frame(self, got))


class SimulatedOperator:
    """One request. `at`: the only node that it is for; "": the leader's."""

    def __init__(self, cluster, number: int, kind: Kind, body: bytes, at: str = ""):
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self.network = cluster.network
        self.name = f"operator{number}"
        self._kind = kind
        self._body = body
        self._at = at
        self._asks = 0
        self._askings: list[_Asking] = []
        self.done = False
        self._ask(at)

    @property
    def is_owed_an_answer(self) -> bool:
        """Whether a process that still lives has a request of it, and did not answer."""
        return any(a.arrived and not a.answered and a.node.running and a.node.life == a.life
                   for a in self._askings)

    def give_up(self) -> None:
        """Nothing more is asked; what is on its way does not arrive."""
        self.done = True

    def _ask(self, address: str) -> None:
        if self.done or self._asks >= _ASKS_MAX:
            self.done = True
            return
        self._asks += 1
        node = self._cluster.nodes.get(address)
        if not self._at and (node is None or not node.running):
            running = [n for n in self._cluster.nodes.values() if n.running]
            node = running[self._scheduler.randint(0, len(running) - 1)] if running else None
        number = self._asks
        if node is not None and node.running:
            asking = _Asking(self, node)
            self._askings.append(asking)
            node.client_opened(asking)
            self.network.send(self.name, node.address, encode_frame(self._kind, 1, self._body),
                              lambda got: self._arrive(asking, got))
        patience_ms = _PATIENCE_MS + _ROUND_TRIPS * self._cluster.round_trip_ms
        self._scheduler.after(patience_ms, lambda: number == self._asks and self._ask(self._at))

    def _arrive(self, asking: _Asking, frame) -> None:
        node = asking.node
        if node.running and node.life == asking.life and frame is not None and not self.done:
            asking.arrived = True
            node.client_frame(asking, asking.life, frame)

    def frame(self, asking: _Asking, frame) -> None:
        """An answer."""
        if frame is None or asking is not self._askings[-1] or self.done:
            return
        kind, _, body = frame
        if kind != Kind.ERROR:
            self.done = True
            return
        code, leader, _ = requests.decode_error(body)
        if code not in _ASK_AGAIN or (self._at and code == ErrorCode.NOT_LEADER):
            self.done = True
            return
        number = self._asks
        self._scheduler.after(self._scheduler.randint(_WAIT_MS_MIN, _WAIT_MS_MAX),
                              lambda: number == self._asks and self._ask(self._at or leader))
