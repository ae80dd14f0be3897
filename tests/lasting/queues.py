"""What queues cost at the size that they may reach: memory, time, and stalls of the loop.

Each part has a lone node, because a stall is one of a node: very many queues with a message each,
one very deep queue, very many leases that end at the same time. `share`: of the sizes below. While
something is done, the node is asked for its status all the time (measures.py, Pinger), and the
longest answer is told; client and node share the machine, so the figures of a busy one say little.
Nothing may be lost on the way, which is checked at any share.
"""

import sys
import time
from collections.abc import Callable

from raftnet.client import Client
from raftnet.client.receipts import LeasedMessage
from tests.lasting.measures import MIB, Pinger, cpu_seconds, rss_bytes
from tools.processes import LocalCluster, NodeProcess, wait_until

QUEUES = 100_000
DEPTH = 2_000_000
LEASES = 1_000_000
MESSAGE = b"m" * 100
STALL_S_MAX = 0.050         # the goal
_BATCH = 1_000              # messages an enqueue
_QUEUES_A_LIST = 200
_LEASES_A_COMMAND = 5_000
_LIMIT_S = 600.0            # of any wait
_SWITCH_S = 0.000_5         # so that the pinger is not held up by the load beside it


class QueuesFailure(Exception):
    """Something does not hold."""


class QueuesRun:
    """One run; `say(text)` hears the figures. `factor`: by how much the goal for stalls may be
    missed, 0: by anything. Raises QueuesFailure, RaftnetError."""

    def __init__(self, share: float = 1.0, say: Callable[[str], None] = lambda text: None,
                 factor: float = 0.0):
        self._share = share
        self._say = say
        self._factor = factor
        self._missed: list[str] = []

    def run(self) -> None:
        """Everything."""
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            for part in (self._many_queues, self._deep_queue, self._many_leases):
                with LocalCluster(1).start() as cluster:
                    with Client(cluster.addresses, _LIMIT_S) as client:
                        part(cluster.nodes[0], client)
        finally:
            sys.setswitchinterval(before_s)
        if self._missed and self._factor:
            raise QueuesFailure("; ".join(self._missed))

    def _measured(self, node: NodeProcess, what: str, count: int, do: Callable[[], object]):
        """Do it and tell what it cost; gives what it gave."""
        rss, cpu_s, began = rss_bytes(node.pid), cpu_seconds(node.pid), time.monotonic()
        with Pinger(node.address) as pinger:
            result = do()
        took_s = time.monotonic() - began
        grown = rss_bytes(node.pid) - rss
        cpu_s = cpu_seconds(node.pid) - cpu_s
        self._say(f"{what}: {took_s:.1f} s, {count / took_s:.0f}/s, {cpu_s / count * 1e6:.1f} us "
                  f"of CPU each; memory {(rss + grown) / MIB:.0f} MiB, {grown / count:+.0f} bytes "
                  f"each; the longest of {pinger.count} answers took "
                  f"{1000 * pinger.longest_s:.0f} ms")
        if pinger.error is not None:
            raise QueuesFailure(f"{what}: the status: {pinger.error}")
        if pinger.longest_s > STALL_S_MAX * self._factor:
            self._missed.append(f"{what}: a stall of {1000 * pinger.longest_s:.0f} ms")
        return result

    def _again(self, node: NodeProcess, client: Client, what: str, count: int) -> None:
        """A snapshot is made, and the node starts with it."""
        self._measured(node, f"{what}: a snapshot", count, client.snapshot)
        node.interrupt()
        began = time.monotonic()
        node.start().wait_ready(_LIMIT_S)
        wait_until(lambda: node.status().role == "leader", _LIMIT_S, "it leads")
        self._say(f"{what}: starts in {time.monotonic() - began:.1f} s, "
                  f"{rss_bytes(node.pid) / MIB:.0f} MiB")

    # --- very many queues

    def _many_queues(self, node: NodeProcess, client: Client) -> None:
        count = self._count(QUEUES)
        names = [f"queue {number}" for number in range(count)]

        def fill() -> None:
            for start in range(0, count, _QUEUES_A_LIST):
                client.execute([{"enqueue": name, "messages": ["m"]}
                                for name in names[start:start + _QUEUES_A_LIST]])

        def empty() -> None:
            for start in range(0, count, _QUEUES_A_LIST):
                client.execute([{"dequeue": name} for name in names[start:start + _QUEUES_A_LIST]])

        self._measured(node, f"{count} queues made", count, fill)
        listed = self._measured(node, "all of them listed", count, client.queues)
        if [name for name, _ in listed] != sorted(names):
            raise QueuesFailure(f"{len(listed)} queues are listed of {count}")
        self._again(node, client, f"{count} queues", count)
        self._measured(node, "all of them emptied", count, empty)
        if client.queues():
            raise QueuesFailure("empty queues are listed")

    # --- a deep one

    def _deep_queue(self, node: NodeProcess, client: Client) -> None:
        count, queue = self._count(DEPTH), client.queue("deep")
        self._measured(node, f"{count} messages of {len(MESSAGE)} bytes enqueued", count,
                       lambda: self._fill(queue, count))
        self._small_change(node, client, queue, count)
        self._again(node, client, f"{count} messages", count)
        half = count // 2
        taken = self._measured(node, f"{half} dequeued", half, lambda: self._take(queue, half))
        if taken != half:
            raise QueuesFailure(f"{taken} messages were dequeued of {half}")
        purged = self._measured(node, "the rest purged", count - half, queue.purge)
        if purged != count - half:
            raise QueuesFailure(f"{purged} messages were purged of {count - half}")

    def _small_change(self, node: NodeProcess, client: Client, queue, count: int) -> None:
        """What is done to one message must not depend on how many there are."""
        times = max(10, self._count(500))

        def change() -> None:
            for _ in range(times):
                (message,) = queue.lease(60)
                client.nack(message.receipt)
                (message,) = queue.lease(60)
                client.ack(message.receipt)
                queue.enqueue(MESSAGE)
                queue.peek(10)
                queue.describe()

        self._measured(node, f"{times} times lease, nack, lease, ack, enqueue, peek, describe",
                       7 * times, change)
        size = queue.size().messages
        if size != count:
            raise QueuesFailure(f"{size} messages are there of {count}")

    def _fill(self, queue, count: int) -> None:
        for start in range(0, count, _BATCH):
            queue.enqueue_batch([MESSAGE] * min(_BATCH, count - start))

    def _take(self, queue, count: int) -> int:
        taken = 0
        while taken < count:
            found = len(queue.dequeue_many(min(_BATCH, count - taken)))
            if not found:
                break
            taken += found
        return taken

    # --- very many leases

    def _many_leases(self, node: NodeProcess, client: Client) -> None:
        count, queue = self._count(LEASES), client.queue("leased")
        self._fill(queue, count)
        end = time.monotonic() + 120 * self._share + 2      # for all of them
        last = self._measured(node, f"{count} messages leased", count,
                              lambda: self._lease_all(queue, count, end))
        if queue.describe().leased != count:
            raise QueuesFailure(f"{queue.describe()}: not all are leased")
        self._measured(node, "a snapshot with them", count, client.snapshot)
        left = end - time.monotonic()
        if left < 0:
            raise QueuesFailure(f"{-left:.1f} s too late: the leases ended before all were there")
        self._measured(node, f"the time until they end ({left:.0f} s)", count,
                       lambda: time.sleep(left - 0.2))
        self._measured(node, "all of them end at once", count,
                       lambda: self._wait_back(client, queue, count))
        if client.ack(last.receipt)[0].name != "STALE":
            raise QueuesFailure("an ended lease was acknowledged")
        self._measured(node, "all of them dequeued", count, lambda: self._take(queue, count))

    def _lease_all(self, queue, count: int, end: float) -> LeasedMessage:
        taken = 0
        while taken < count:
            messages = queue.lease(end - time.monotonic(), min(_LEASES_A_COMMAND, count - taken))
            taken += len(messages)
        return messages[-1]

    def _wait_back(self, client: Client, queue, count: int) -> None:
        """Meanwhile another queue is served."""
        other, slowest_s, done = client.queue("other"), 0.0, 0
        while queue.size().messages < count:
            began = time.monotonic()
            other.enqueue(b"m")
            other.dequeue()
            slowest_s = max(slowest_s, time.monotonic() - began)
            done += 1
        self._say(f"meanwhile {done} times enqueue and dequeue elsewhere, the slowest "
                  f"{1000 * slowest_s:.0f} ms")

    def _count(self, whole: int) -> int:
        return max(1, round(whole * self._share))
