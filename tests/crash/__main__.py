"""`python3 -m tests.crash --rounds 25`: the long crash test, with a line a round."""

import argparse
import random
import sys

from raftnet.errors import RaftnetError
from tests.crash.run import ROUNDS, CrashFailure, CrashRun


def main() -> int:
    """Exit status 0 only where everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of who is killed when; the rest is up to the machine")
    arguments = parser.parse_args()
    run = CrashRun(arguments.seed, lambda text: print(text, flush=True))
    print(f"crash test, seed {arguments.seed}", flush=True)
    try:
        run.run([ROUNDS[number % len(ROUNDS)] for number in range(arguments.rounds)])
    except (CrashFailure, RaftnetError, AssertionError) as error:
        print(f"crash test FAILED: {error}", file=sys.stderr)
        return 1
    print(f"crash test passed: {run.summary()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
