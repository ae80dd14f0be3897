"""`python3 -m tests.partitions --times 20`: partitions of real nodes, with figures, a line a fault.

Needs root, the network is emulated (tools/README.md, A bad network); elsewhere it says so and runs
nothing."""

import argparse
import random
import sys

from raftnet.errors import RaftnetError
from tests.partitions.faults import FAR, FAULTS, HOLD_S, OF_THREE
from tests.partitions.run import (
    FAR_PROFILE, FLAPPING_S, NEAR_PROFILE, SILENT_PROFILE, PartitionFailure, PartitionRun)
from tools.netem import unavailable


def main() -> int:
    """Exit status 0 only where everything held (or nothing can run here); how fast it was is
    printed, and not judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20,
                        help="the leader falls silent, so often; 0: never")
    parser.add_argument("--kind", action="append", choices=[*FAULTS, "none"], metavar="NAME",
                        help=f"only these faults, of: {', '.join(FAULTS)}; or none")
    parser.add_argument("--nodes", type=int, choices=(3, 5), help="only clusters of so many")
    parser.add_argument("--profile", help="of the links, with --kind; else two of them")
    parser.add_argument("--flap", type=float, default=FLAPPING_S, metavar="SECONDS",
                        help="how long flapping goes on")
    parser.add_argument("--hold", type=float, default=HOLD_S, metavar="SECONDS",
                        help="how long any other fault lasts, at least")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of who is cut off when; the rest is up to the machine")
    arguments = parser.parse_args()
    if unavailable():
        _say(f"partition test SKIPPED, no emulated network: {unavailable()}")
        return 0
    if arguments.kind:
        plans = [(arguments.nodes or 5, arguments.profile or NEAR_PROFILE,
                  [name for name in arguments.kind if name != "none"])]
    else:
        plans = [(5, NEAR_PROFILE, list(FAULTS)), (3, NEAR_PROFILE, list(OF_THREE)),
                 (5, FAR_PROFILE, list(FAR))]
        plans = [plan for plan in plans if arguments.nodes in (None, plan[0])]
    _say(f"partitions, seed {arguments.seed}")
    try:
        for nodes, profile, names in plans:
            if names:
                with PartitionRun(nodes, profile, arguments.seed, _say, arguments.flap,
                                  arguments.hold) as run:
                    for name in names:
                        run.fault(name)
                    _say(run.summary())
        if arguments.times:
            with PartitionRun(arguments.nodes or 5, SILENT_PROFILE, arguments.seed, _say) as run:
                run.silent_leaders(arguments.times)
                _say(run.summary())
    except (PartitionFailure, RaftnetError, AssertionError) as error:
        print(f"partition test FAILED: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
