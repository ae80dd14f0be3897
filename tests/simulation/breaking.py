"""Variant: the real code with one thing broken, and a simulated run of it.

Rules: a variant is a handful of patches on the real classes and functions, in force only inside
`applied`; the network, the disks, the faults and the checker are those of every other simulation.
Where the profile that a seed draws would meet the break too rarely, the variant names its own, and
may set limits of the configuration: both hold for the unbroken code too, which must stay clean.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

from raftnet import replica
from raftnet.config import Config
from raftnet.simulation import cluster as simulation
from raftnet.simulation.cluster import Profile, SimulatedCluster
from raftnet.simulation.invariants import InvariantError
from raftnet.simulation.limits import draw_config, draw_work_limits
from raftnet.simulation.network import NetworkProfile
from raftnet.wire.commands import STATE_VERSION

RUN_MS = 10_000         # of faults in one run, unless a variant says otherwise


@dataclass(frozen=True, slots=True)
class Caught:
    """A violation: by which invariant, when (simulated ms), and whether while faults went on."""

    by: str
    at_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to break the code."""

    name: str
    broken: str                             # one line
    patches: Callable[[], list]             # context managers, made anew for each run
    nodes: int = 3
    run_ms: int = RUN_MS
    # (network, mean ms between faults, kinds of faults); None: the seed draws them
    profile: tuple[dict, int, tuple[str, ...]] | None = None
    # of RaftConfig, SnapshotConfig and, with workers, MachineConfig
    limits: dict[str, int] = field(default_factory=dict)
    workers: int = 0                        # without them the replicated state stays at version 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The code is broken inside."""
        with ExitStack() as stack:
            for patch in self.patches():
                stack.enter_context(patch)
            yield

    def run(self, seed: int, run_ms: int, broken: bool = True) -> Caught | None:
        """One seed; None: nothing was noticed."""
        with self.applied() if broken else ExitStack(), mock.patch.object(
                simulation, "draw_config", self._config), mock.patch.object(
                simulation, "draw_work_limits", self._work_limits), mock.patch.object(
                replica, "STATE_VERSION", STATE_VERSION if self.workers else 1):
            profile = None
            if self.profile is not None:
                network, every_ms, kinds = self.profile
                profile = Profile(NetworkProfile(**network), every_ms, kinds)
            cluster = SimulatedCluster(seed, self.nodes, profile=profile, workers=self.workers)
            try:
                cluster.run(run_ms)
            except AssertionError as error:
                return Caught(_name_of(error), cluster.scheduler.now_ms, str(error))
        return None

    def _config(self, seed: int) -> Config:
        config = draw_config(seed)
        for name, value in self.limits.items():
            for part in (config.raft, config.snapshot):
                if hasattr(part, name):
                    setattr(part, name, value)
        return config

    def _work_limits(self, config: Config, seed: int) -> None:
        draw_work_limits(config, seed)
        for name, value in self.limits.items():
            if hasattr(config.machine, name):
                setattr(config.machine, name, value)


def _name_of(error: AssertionError) -> str:
    """The invariant's name; or the text of the program's own assertion."""
    if isinstance(error, InvariantError):
        return str(error).split(":")[0].strip()
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    where = traceback.tb_frame.f_globals.get("__name__", "")
    return f"an assertion in {where}" + (f": {str(error).split(':')[0]}" if str(error) else "")


def wrapped(owner, name: str, make: Callable):
    """A patch: `owner.name` becomes `make(the real one)`."""
    return mock.patch.object(owner, name, make(getattr(owner, name)))
