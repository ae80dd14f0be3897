"""Random histories of all operations on one machine, for tests that look at what comes of them."""

from raftnet.wire import requests
from tests.machine.driver import MachineCase
from tests.machine.model import encode
from tests.machine.test_model import LIMITS, QUEUES, Work


class _Leased:
    """A message that is out, as Work asks for it."""

    where = "leased"

    def __init__(self, message_id: int, delivery: int):
        self.id, self.lease = message_id, (delivery,)


class _Seen:
    """What Work asks its model for, looked up in a machine."""

    def __init__(self, case: MachineCase):
        self._case = case

    @property
    def messages(self) -> list[_Leased]:
        return [_Leased(lease.message.id, lease.delivery)
                for _, lease in sorted(self._case.machine.executor.leases.by_delivery.items())]

    @property
    def next_id(self) -> int:
        return self._case.machine.executor.next_message_id

    @property
    def next_delivery(self) -> int:
        return self._case.machine.executor.leases.next_delivery

    @property
    def version(self) -> int:
        return self._case.machine.executor.kv.version


class HistoryCase(MachineCase):
    """Random work, an entry a step."""

    def begin(self, seed: int, result_bytes_max: int = 4_000) -> Work:
        """A new machine, and what it will be given."""
        self.start(result_bytes_max=result_bytes_max, message_bytes_max=29 + seed % 3, **LIMITS)
        self.sessions = 0
        return Work(seed, _Seen(self))

    def step(self, work: Work) -> None:
        """One entry of some requests; some of them wait."""
        chance = work.random
        bodies = []
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            command = work.command()
            session = requests.NO_SESSION
            empty = [queue for queue in (b"w", *QUEUES) if not self.ready(queue)]
            if empty and chance.random() < 0.15:
                self.sessions += 1
                session = b"%016d" % self.sessions
                command = chance.choice((("dequeue", chance.choice(empty), 2, 60),
                                         ("lease", chance.choice(empty), 30, 2, 90, b"me")))
            bodies.append(requests.encode_request(session, 1, 0, [encode(command)]))
        self.apply(*bodies, at=self.machine.time_ms + chance.choice((0, 0, 1, 3, 10, 40)))

    def ready(self, name: bytes) -> int:
        """Messages that could be taken."""
        queue = self.machine.executor.queues.by_name.get(name)
        return 0 if queue is None else queue.ready()
