"""`python3 -m tests.lasting`: the long tests of what lasts, all parts or those named, with figures.

- bounded: a message that nobody takes, while others pass; an idle cluster writes nothing
- soak: memory, descriptors and disk stay flat under a mixed load
- install: a follower returns by snapshot, and is killed at random moments of it
- restart: how long a start takes, memory, stalls of the loop
- damage: damaged files are healed, or refused
- fulldisk: a disk that is full (root), and calls that fail (strace)
- restore: backup and restore
- queues: very many queues, a very deep one, very many leases that end at once: memory, stalls
"""

import argparse
import random
import sys

from raftnet.errors import RaftnetError
from tests.lasting import failing, smalldisk
from tests.lasting.bounded import BoundedFailure, BoundedRun
from tests.lasting.damage import CASES, DamageFailure, DamageRun, LONE_CASES, refuse_alone
from tests.lasting.failing import FailingFailure, FailingRun
from tests.lasting.fulldisk import FullDiskFailure, FullDiskRun
from tests.lasting.install import InstallFailure, InstallRun
from tests.lasting.measures import AVAILABLE
from tests.lasting.queues import QueuesFailure, QueuesRun
from tests.lasting.restart import RestartFailure, RestartRun
from tests.lasting.restore import RestoreFailure, RestoreRun
from tests.lasting.soak import SoakFailure, SoakRun

_FAILURES = (BoundedFailure, SoakFailure, InstallFailure, RestartFailure, DamageFailure,
             FullDiskFailure, FailingFailure, RestoreFailure, QueuesFailure, RaftnetError,
             AssertionError)


def main() -> int:
    """Exit status 0 only where everything held."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(PARTS),
                        help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the soak")
    parser.add_argument("--messages", type=int, default=200_000,
                        help="that pass (bounded, install)")
    parser.add_argument("--kills", type=int, default=20, help="of installs")
    parser.add_argument("--ballast", type=int, default=200_000,
                        help="messages that wait while installs are hit")
    parser.add_argument("--records", type=int, default=1_000_000, help="of restart")
    parser.add_argument("--factor", type=float, default=0.0,
                        help="how often their goals restart and queues may take: 1 on a machine "
                        "that does nothing else (default: as long as they like)")
    parser.add_argument("--share", type=float, default=1.0,
                        help="of the sizes of queues (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=50, help="how many of a kind are made to fail")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    for part in arguments.parts:
        _say(f"lasting test, {part}, seed {arguments.seed}")
        try:
            PARTS[part](arguments)
        except _FAILURES as error:
            print(f"lasting test FAILED: {error}", file=sys.stderr)
            return 1
    return 0


def _bounded(arguments) -> None:
    BoundedRun(arguments.messages, _tell).run()


def _soak(arguments) -> None:
    if AVAILABLE:
        SoakRun(arguments.seconds, _tell).run()
    else:
        _tell("SKIPPED: what a process takes is read from /proc")


def _install(arguments) -> None:
    InstallRun(arguments.seed, arguments.messages, arguments.ballast, arguments.kills, _tell).run()


def _restart(arguments) -> None:
    RestartRun(arguments.records, _tell, arguments.factor).run()


def _damage(arguments) -> None:
    DamageRun(CASES, _tell).run()
    for name, damage in LONE_CASES:
        _tell(f"alone, {name}, {damage.__name__}: {refuse_alone(name, damage)}")


def _full_disk(arguments) -> None:
    why = smalldisk.unavailable()
    if why:
        _tell(f"SKIPPED: {why}")
    else:
        FullDiskRun(_tell).of_three()
        FullDiskRun(_tell).alone()
    why = failing.unavailable()
    if why:
        _tell(f"SKIPPED: {why}")
        return
    chance = random.Random(arguments.seed)
    for call, error, numbers in failing.CASES:
        run = FailingRun()
        for number in sorted(chance.sample(numbers, min(len(numbers), arguments.calls))):
            run.run(call, error, number)
        _tell(f"{call} fails with {error}: {dict(run.ends)}; nothing acknowledged is lost")


def _restore(arguments) -> None:
    RestoreRun(20_000, _tell).run()


def _queues(arguments) -> None:
    if AVAILABLE:
        QueuesRun(arguments.share, _tell, arguments.factor).run()
    else:
        _tell("SKIPPED: what a process takes is read from /proc")


PARTS = {"bounded": _bounded, "soak": _soak, "install": _install, "restart": _restart,
         "damage": _damage, "fulldisk": _full_disk, "restore": _restore, "queues": _queues}


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(text: str) -> None:
    _say(f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
