#!/usr/bin/env python3
"""exactlyonce: messages moved from queue to queue exactly once, while everything is killed.

Real nodes and worker processes on this machine. Queue `a` holds the numbers from 1 on; each worker
(exactlyonceworker.py: the example to read) leases some, and in one atomic list acknowledges them,
enqueues them to `b` and adds them to the key `sum`. Meanwhile workers and nodes are ended with
kill -9 at random and started again, one node at a time, so that a quorum is always there. In the
end each number must be in b once, the sum right, a empty with nothing leased, and all nodes equal.
Exit status 0 only then.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client import Client
from raftnet.errors import RaftnetError
from tools.exactlyonceworker import SOURCE, SUM, TARGET
from tools.processes import ROOT, LocalCluster, NodeProcess, check_digests, die_with_parent

WORKER_PROGRAM = os.path.join(ROOT, "tools", "exactlyonceworker.py")
LOOK_S = 0.05               # between two looks at queue and processes
TELL_S = 1.0                # between two lines of progress
NODE_DOWN_S = (0.1, 0.6)    # how long a killed node stays away
STANDS_STILL_S = 60.0       # nothing was moved for so long: something is wrong
WORKER_KILLS_PER_NODE_KILL = 2
CHECK_BATCH = 1_000
SHOWN_MAX = 5               # numbers of a kind in a complaint
_NODES_FOR_KILLS = 3        # with fewer, one that is gone takes the quorum with it

Tell = Callable[[str], None]


class WorkerProcess:
    """One worker; may be started again and again. What it says goes to `log_path`."""

    def __init__(self, command: list[str], log_path: str):
        self._command = command
        self._process: subprocess.Popen | None = None
        self._log_path = log_path
        self._log_start = os.path.getsize(log_path) if os.path.exists(log_path) else 0

    def start(self) -> None:
        """Start it (again)."""
        with open(self._log_path, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent if sys.platform == "linux" else None)

    def kill(self) -> None:
        """kill -9, reaped on return."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raises RaftnetError where it has ended by itself."""
        if self._process.poll() is not None:
            raise RaftnetError(f"a worker ended by itself, status {self._process.returncode}: "
                               f"{self._lines()[-1:]}")

    def counts(self) -> tuple[int, int, int]:
        """(moved, of those taken: delivered before, conflicts), all that it could tell."""
        rows = [list(map(int, line.split())) for line in self._lines()]
        rows = [row for row in rows if len(row) == 3]       # a line may be cut by a kill
        moved, again, conflicts = map(sum, zip(*rows)) if rows else (0, 0, 0)
        return moved, again, conflicts

    def _lines(self) -> list[str]:
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            log.seek(self._log_start)
            return log.read().splitlines()


class ExactlyOnceRun:
    """One run; `tell` hears of its progress. Raises RaftnetError where something does not hold."""

    def __init__(self, arguments: argparse.Namespace, tell: Tell = lambda text: None,
                 worker_program: str = WORKER_PROGRAM):
        self._arguments = arguments
        self._tell = tell
        self._worker_program = worker_program
        self._chance = random.Random(arguments.seed)
        self._down: list[tuple[float, NodeProcess]] = []    # when to start it again
        self.workers: list[WorkerProcess] = []
        self.worker_kills = self.node_kills = 0
        self.seconds = 0.0

    def run(self) -> dict[str, int | float]:
        """All of it; the figures."""
        arguments = self._arguments
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(LocalCluster(arguments.nodes, data=arguments.data))
            try:
                cluster.start()
                client = stack.enter_context(Client(cluster.addresses))
                self._fill(client)
                self._start_workers(cluster, stack)
                began = time.monotonic()
                self._move(cluster, client)
                self.seconds = time.monotonic() - began
                for worker in self.workers:
                    worker.kill()
                self._check(cluster, client)
            except RaftnetError as error:
                raise RaftnetError(f"{error}; files and logs: {cluster.keep()}") from error
            return self._figures()

    def _fill(self, client: Client) -> None:
        client.kv_put(SUM, "0")
        client.queue(SOURCE).enqueue_many(map(str, range(1, self._arguments.messages + 1)))
        self._tell(f"{self._arguments.messages} messages in {SOURCE}")

    def _start_workers(self, cluster: LocalCluster, stack: contextlib.ExitStack) -> None:
        arguments = self._arguments
        for number in range(1, arguments.workers + 1):
            worker = WorkerProcess(
                [sys.executable, self._worker_program, ",".join(cluster.addresses),
                 "--lease", str(arguments.lease), "--batch", str(arguments.batch),
                 "--pause", str(arguments.pause)],
                os.path.join(cluster.directory, f"worker-{number}.log"))
            stack.callback(worker.kill)
            self.workers.append(worker)
            worker.start()

    # --- until all is moved

    def _move(self, cluster: LocalCluster, client: Client) -> None:
        arguments, chance = self._arguments, self._chance
        moved, moved_at, told_at = 0, time.monotonic(), 0.0
        kill_at = time.monotonic() + arguments.kill_every * chance.uniform(0.5, 1.5)
        while True:
            source, now_moved = client.queue(SOURCE).describe(), client.queue(TARGET).size()[0]
            now = time.monotonic()
            if now_moved != moved:
                moved, moved_at = now_moved, now
            elif now - moved_at > STANDS_STILL_S + arguments.lease:
                raise RaftnetError(f"nothing was moved for {now - moved_at:.0f} s: {source}")
            if now - told_at >= TELL_S:
                told_at = now
                self._tell(f"{moved} of {arguments.messages} moved, {source.leased} leased; "
                           f"killed: {self.worker_kills} workers, {self.node_kills} nodes")
            kills = self.worker_kills + self.node_kills
            if not source.held_bytes and kills >= arguments.kills_min:
                return
            if now >= kill_at and (moved or kills):
                self._kill_one(cluster, kills)
                kill_at = now + arguments.kill_every * chance.uniform(0.5, 1.5)
            self._start_again()
            time.sleep(LOOK_S)

    def _kill_one(self, cluster: LocalCluster, kills: int) -> None:
        """A worker, or a node where all of them are there. The second one is a node."""
        node_next = (kills == 1 or kills > 1
                     and not self._chance.randrange(WORKER_KILLS_PER_NODE_KILL + 1))
        if node_next and len(cluster.nodes) >= _NODES_FOR_KILLS:
            if self._down or len(cluster.statuses()) < len(cluster.nodes):
                return                  # one at a time: the next look tries again
            node = self._chance.choice(cluster.nodes)
            node.kill()
            self.node_kills += 1
            self._down.append((time.monotonic() + self._chance.uniform(*NODE_DOWN_S), node))
        else:
            worker = self._chance.choice(self.workers)
            worker.check()
            worker.kill()
            worker.start()
            self.worker_kills += 1

    def _start_again(self) -> None:
        for worker in self.workers:
            worker.check()
        for at, node in list(self._down):
            if time.monotonic() >= at:
                self._down.remove((at, node))
                node.start()

    # --- what must hold

    def _check(self, cluster: LocalCluster, client: Client) -> None:
        for _, node in self._down:
            node.start()
        cluster.start()
        check_digests(cluster.wait_settled().values())
        total = client.kv_get(SUM)
        complaints = judge(self._arguments.messages, self._moved(client),
                           total.value if total else None)
        source = client.queue(SOURCE).describe()
        if source.ready or source.delayed or source.leased:
            complaints.append(f"{SOURCE} is not empty: {source.ready} ready, {source.delayed} "
                              f"delayed, {source.leased} leased")
        dead = client.queue(f"{SOURCE}.dead").size().messages
        if dead:
            complaints.append(f"{dead} messages became dead letters")
        if complaints:
            raise RaftnetError("; ".join(complaints))

    def _moved(self, client: Client) -> list[str]:
        """What is in b, which is empty then."""
        found: list[str] = []
        while messages := client.queue(TARGET).dequeue_many(CHECK_BATCH):
            found += [message.text for message in messages]
        return found

    def _figures(self) -> dict[str, int | float]:
        # what a worker did last before a kill it may not have told
        _, again, conflicts = map(sum, zip(*(worker.counts() for worker in self.workers)))
        return {"messages": self._arguments.messages, "seconds": round(self.seconds, 1),
                "messages_per_s": round(self._arguments.messages / max(0.001, self.seconds)),
                "worker_kills": self.worker_kills, "node_kills": self.node_kills,
                "redelivered": again, "conflicts": conflicts}


def judge(messages: int, moved: list[str], total: bytes | None) -> list[str]:
    """What does not hold of the numbers that were found in b and of the sum."""
    complaints = []
    found = Counter(moved)
    wanted = {str(number) for number in range(1, messages + 1)}
    for what, texts in (
            ("missing", wanted - set(found)), ("never enqueued", set(found) - wanted),
            ("there more than once", {text for text, count in found.items() if count > 1})):
        if texts:
            shown = ", ".join(sorted(texts)[:SHOWN_MAX])
            complaints.append(f"{len(texts)} messages of {TARGET} are {what}: {shown}"
                              + (", ..." if len(texts) > SHOWN_MAX else ""))
    right = messages * (messages + 1) // 2
    if total != str(right).encode():
        complaints.append(f"{SUM} is {total.decode() if total else 'absent'}, not {right}")
    return complaints


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="exactlyonce.py", description="Messages moved from one queue to another with a "
        "running sum, exactly once, while workers and nodes are killed.")
    parser.add_argument("--messages", type=int, default=10_000, metavar="N",
                        help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, metavar="N",
                        help="processes (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, metavar="N",
                        help="(default: %(default)s); with 1 or 2 none is killed")
    parser.add_argument("--kill-every", type=float, default=0.5, metavar="S",
                        help="seconds between two kills, more or less (default: %(default)s)")
    parser.add_argument("--kills-min", type=int, default=0, metavar="N", help="go on killing until "
                        "it were so many, also when all is moved (default: %(default)s)")
    parser.add_argument("--lease", type=float, default=3.0, metavar="S",
                        help="seconds until a message comes back (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=10, metavar="N",
                        help="messages a transaction (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S",
                        help="seconds that a worker computes for each batch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, metavar="N",
                        help="of who is killed when (default: another one each time)")
    parser.add_argument("--data", metavar="DIR",
                        help="files of the nodes and workers (default: temporary)")
    return parser


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit 2 with a line for what makes no sense."""
    for name in ("messages", "workers", "nodes", "batch"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if arguments.kill_every <= 0 or arguments.lease <= 0 or arguments.pause < 0:
        parser.error("--kill-every must be above 0, --lease must be above 0, --pause not below")
    if arguments.seed is None:
        arguments.seed = random.randrange(1 << 32)


def main() -> int:
    """Exit 0 where all held; 1 where not; 2 wrong arguments."""
    parser = build_parser()
    arguments = parser.parse_args()
    check_arguments(parser, arguments)
    print(f"exactlyonce: {arguments.workers} workers, {arguments.nodes} nodes, "
          f"seed {arguments.seed}", flush=True)
    try:
        figures = ExactlyOnceRun(arguments, lambda text: print(f"  {text}", flush=True)).run()
    except (RaftnetError, OSError) as error:
        print(f"exactlyonce.py: it did NOT hold: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("exactlyonce: {messages} messages in {seconds} s, {messages_per_s}/s; killed: "
          "{worker_kills} workers, {node_kills} nodes; {redelivered} messages delivered again, "
          "{conflicts} conflicts".format(**figures))
    print(f"exactlyonce: every message is in {TARGET} exactly once, the sum is right, {SOURCE} is "
          "empty, all nodes are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
