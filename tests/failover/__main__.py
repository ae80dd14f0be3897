"""`python3 -m tests.failover --times 30`: fail-over of real nodes, with figures, a line a fault."""

import argparse
import sys

from raftnet.errors import RaftnetError
from tests.failover.run import STOPS_S, FailoverFailure, FailoverRun


def main() -> int:
    """Exit status 0 only where everything held; how fast it was is printed, and not judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=30, help="kill -9 of the leader, so often")
    parser.add_argument("--longest-stop", type=float, default=STOPS_S[-1], metavar="SECONDS",
                        help="of the SIGSTOPs of leader and follower; 0: none")
    arguments = parser.parse_args()
    stops = [seconds for seconds in STOPS_S if seconds <= arguments.longest_stop]
    try:
        if arguments.times:
            with FailoverRun(judged=False, say=_say) as run:
                for _ in range(arguments.times):
                    run.kill_leader()
                run.finish()
                _say(run.summary())
        if stops:
            with FailoverRun(judged=True, say=_say) as run:
                for seconds in stops:
                    run.stop_leader(seconds)
                for seconds in stops:
                    run.stop_follower(seconds)
                run.finish()
                _say(run.summary())
    except (FailoverFailure, RaftnetError, AssertionError) as error:
        print(f"fail-over test FAILED: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
