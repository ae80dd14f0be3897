#!/usr/bin/env python3
"""Simulate whole clusters, one a seed: the real node code on a simulated network, disk and clock.

Each seed is a cluster of real Replicas in one process: for 30 simulated seconds things go wrong
(crashes, power losses, cut and slow links, slow, hung, full and failing disks, stopped processes,
clocks at other speeds; members that come, go, move, are stopped, set and removed; emptied, damaged
and restored directories; followers that are away until they need a snapshot, and interrupted
installs), and after every event what must never happen is looked for. Then
everything heals, and a leader must be there, every client be answered, every node be where it
belongs, and no acknowledged message be lost, doubled or out of order. The same seed gives the same
course, to the bit, everywhere: its hash says so.
"""

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client.commandline import PIPE_CLOSED
from raftnet.errors import MalformedError
from raftnet.simulation.cluster import DURATION_MS, SimulatedCluster
from raftnet.simulation.invariants import InvariantError
from raftnet.simulation.network import NetworkProfile

_SIZES = (3, 5, 3, 5, 7)        # drawn by the seed, where --nodes does not say
_PROGRESS_S = 2.0
_LAST_EVENTS = 40


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate.py", description=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, metavar="N", help="this one; or the first of --seeds "
                        "(default: drawn from the clock, and printed)")
    parser.add_argument("--seeds", type=int, default=1, metavar="COUNT",
                        help="so many, one after the other (default: 1)")
    parser.add_argument("--steps", type=int, metavar="COUNT",
                        help="end the time of faults after so many events")
    parser.add_argument("--seconds", type=float, default=DURATION_MS / 1000, metavar="S",
                        help="simulated time of faults (default: %(default)s)")
    parser.add_argument("--nodes", type=int, metavar="N", help="1 to 9 founders (default: 3, 5 or "
                        "7, by the seed)")
    parser.add_argument("--clients", type=int, default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--workers", type=int, metavar="N", help="clients that lease, retry and "
                        "use keys and transactions (default: none, or some, by the seed)")
    parser.add_argument("--profile", metavar="WORDS", help="the network, in tc's words: "
                        '"delay 1000ms 50ms reorder 8%% corrupt 5%% duplicate 2%% loss 5%%" '
                        "(default: drawn from the seed)")
    parser.add_argument("--verbose", action="store_true", help="print every event")
    return parser


def _commit() -> str:
    """The commit that a failure belongs to."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        found = subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"],
                               capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


class Campaign:
    """Many seeds: what they did, and which failed."""

    def __init__(self, arguments: argparse.Namespace, network: NetworkProfile | None):
        self._arguments = arguments
        self._network = network
        self._began = time.monotonic()
        self._told = self._began
        self.failed: list[int] = []
        self.done = 0
        self.simulated_ms = 0
        self.events = 0
        self.elections = 0
        self.entries = 0
        self.faults: Counter[str] = Counter()
        self.stuck = 0              # runs that left no quorum of whole nodes: liveness not asked

    def run(self, seed: int) -> None:
        """One seed, and a line where it failed or is the only one."""
        arguments = self._arguments
        network = self._network and NetworkProfile(**{
            name: getattr(self._network, name) for name in NetworkProfile.__slots__})
        count = arguments.nodes or _SIZES[seed % len(_SIZES)]
        cluster = SimulatedCluster(seed, count, arguments.clients, network=network,
                                   echo=print if arguments.verbose else None,
                                   workers=arguments.workers)
        violation = ""
        try:
            cluster.run(int(arguments.seconds * 1000), arguments.steps)
        except BrokenPipeError:
            raise                       # who reads --verbose has seen enough
        except Exception as error:      # whatever it is: the program may not do that
            violation = _describe(error)
            if arguments.verbose:
                traceback.print_exception(error)
        self.done += 1
        self.simulated_ms += cluster.scheduler.now_ms
        self.events += cluster.scheduler.happened
        self.elections += cluster.invariants.elections
        self.entries += cluster.invariants.highest_commit
        self.faults.update(cluster.faults.counts)
        self.stuck += cluster.is_stuck
        if violation:
            self.failed.append(seed)
            self._tell_failure(seed, count, cluster, violation)
        elif arguments.seeds == 1:
            print(f"seed {seed}: clean. {count} nodes, {cluster.scheduler.now_ms / 1000:.1f} "
                  f"simulated seconds, {cluster.scheduler.happened} events, "
                  f"{cluster.invariants.elections} elections, "
                  f"{cluster.invariants.highest_commit} entries, "
                  f"trace {cluster.trace.hash:08x}")
            self._tell_course(cluster)

    def _tell_course(self, cluster: SimulatedCluster) -> None:
        network = cluster.profile.network
        print(f"  faults: {_counted(cluster.faults.counts) or 'none'}")
        print(f"  network: delay {network.delay_ms} ms +- {network.jitter_ms} ms at the end; "
              f"frames: {_counted(cluster.network.counts)}")

    def _tell_failure(self, seed: int, count: int, cluster: SimulatedCluster, violation: str):
        print(f"seed {seed}: VIOLATION after {cluster.scheduler.now_ms / 1000:.3f} simulated "
              f"seconds, commit {_commit()}: {violation}")
        print(f"  {count} nodes, faults: {_counted(cluster.faults.counts)}; the last events:")
        for line in cluster.trace.last(_LAST_EVENTS):
            print(f"  {line}")
        again = " ".join([f"--seed {seed}", *_options(self._arguments)])
        print(f"  again, with every event: python3 tools/simulate.py {again} --verbose")

    def tell_progress(self) -> None:
        """A line now and then while many seeds run."""
        now = time.monotonic()
        if now - self._told >= _PROGRESS_S and sys.stderr.isatty():
            self._told = now
            print(f"\r{self.done} of {self._arguments.seeds} seeds, "
                  f"{self.simulated_ms / 3_600_000:.2f} simulated hours, {self.elections} "
                  f"elections, {len(self.failed)} failed ", end="", file=sys.stderr, flush=True)

    def tell_sum(self) -> None:
        """The last line."""
        seconds = time.monotonic() - self._began
        if sys.stderr.isatty():
            print(file=sys.stderr)
        hours = self.simulated_ms / 3_600_000
        print(f"{self.done} seeds in {seconds:.0f} s: {hours:.2f} simulated hours, "
              f"{self.events} events, {self.elections} elections, {self.entries} entries; "
              f"faults: {_counted(self.faults)}")
        verdict = (f"{len(self.failed)} FAILED: {' '.join(map(str, self.failed))}" if self.failed
                   else "no violation")
        if self.stuck:
            print(f"{self.stuck} left no quorum of whole nodes: only safety was judged there")
        print(f"{verdict}; {seconds / max(1, self.done):.2f} s a seed")


def _describe(error: Exception) -> str:
    """The invariant's own words; else what the program stumbled over, and where."""
    if isinstance(error, InvariantError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f": {error}" if str(error) else ""
    return (f"{type(error).__name__} in {os.path.relpath(where.filename)}, line "
            f"{where.lineno}{text}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)


def _options(arguments: argparse.Namespace) -> list[str]:
    """What must be said again for the same course."""
    words = []
    for name in ("steps", "nodes", "workers"):
        if getattr(arguments, name) is not None:
            words.append(f"--{name} {getattr(arguments, name)}")
    if arguments.seconds != DURATION_MS / 1000:
        words.append(f"--seconds {arguments.seconds}")
    if arguments.clients != 3:
        words.append(f"--clients {arguments.clients}")
    if arguments.profile:
        words.append(f"--profile '{arguments.profile}'")
    return words


def main() -> int:
    """Exit 0 without a violation, 1 with one, 2 for wrong arguments, 141 for a closed pipe."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.clients < 1 or arguments.seconds <= 0:
        parser.error("--seeds, --clients and --seconds must be above 0")
    if arguments.nodes is not None and not 1 <= arguments.nodes <= 9:
        parser.error("--nodes is 1 to 9")
    try:
        network = NetworkProfile.parse(arguments.profile) if arguments.profile else None
    except MalformedError as error:
        parser.error(f"--profile: {error}")
    first = arguments.seed if arguments.seed is not None else time.time_ns() // 1000 % 1_000_000_000
    if arguments.seeds > 1:
        print(f"seeds {first} to {first + arguments.seeds - 1}", flush=True)
    campaign = Campaign(arguments, network)
    try:
        for seed in range(first, first + arguments.seeds):
            campaign.run(seed)
            campaign.tell_progress()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    except BrokenPipeError:
        # The interpreter would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if arguments.seeds > 1:
        campaign.tell_sum()
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
