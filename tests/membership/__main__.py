"""`python3 -m tests.membership`: the long membership test, all of its parts or those named."""

import argparse
import random
import sys

from raftnet.errors import RaftnetError
from tests.crash.run import CrashFailure
from tests.membership.run import MembershipRun

PARTS = ("grow", "replace", "restart")


def main() -> int:
    """Exit status 0 only where everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=PARTS,
                        help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--times", type=int, default=1, help="each part so often")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of who is killed when; the rest is up to the machine")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}")
    for number in range(arguments.times):
        for part in arguments.parts:
            seed = arguments.seed + number
            print(f"membership test, {part}, seed {seed}", flush=True)
            run = MembershipRun(seed, lambda text: print(f"  {text}", flush=True))
            try:
                getattr(run, part)()
            except (CrashFailure, RaftnetError, AssertionError) as error:
                print(f"membership test FAILED: {error}", file=sys.stderr)
                return 1
            known = sum(bool(enqueue.message_id) for enqueue in run.history.enqueues)
            print(f"  held: {known} enqueues acknowledged, "
                  f"{len(run.history.enqueues) - known} of unknown outcome, none lost, doubled or "
                  "out of order", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
