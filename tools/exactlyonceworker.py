#!/usr/bin/env python3
"""A worker of exactlyonce.py, and the example of how work is done exactly once with raftnet.

It moves numbers from queue `a` to queue `b` and adds them to the key `sum`. Whenever it is killed,
what it holds comes back to `a` when its lease ends; what `execute` did is done whole, and the
receipts in it are good for that once. Two workers that read the same sum: one of them is refused,
with nothing done, and reads again.

Each batch is a line on stdout: how many messages were moved, how many of the batch had been
delivered before, and how often the sum was another's meanwhile. Who starts it: exactlyonce.py.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from raftnet.client import Client, LeasedMessage, StateRefusedError, Status

SOURCE, TARGET, SUM = "a", "b", "sum"
WAIT_S = 1.0            # at the queue, each time; then it is asked again


def work(client: Client, lease_s: float, batch: int, pause_s: float) -> None:
    """Lease, compute for `pause_s`, and commit, for ever."""
    while True:
        messages = client.queue(SOURCE).lease(lease_s, count=batch, wait_s=WAIT_S)
        if messages:
            time.sleep(pause_s)
            moved, conflicts = move(client, messages)
            again = sum(message.deliveries > 1 for message in messages)
            print(moved, again, conflicts, flush=True)


def move(client: Client, messages: list[LeasedMessage]) -> tuple[int, int]:
    """Acknowledge them, enqueue them to b, and raise the sum: all of it, or nothing. How many were
    moved, and how often that was tried in vain."""
    receipts = [message.receipt for message in messages]
    numbers = [message.text for message in messages]
    conflicts = 0
    while True:
        known = client.kv_get(SUM)          # None: there is no such key yet
        total = sum(map(int, numbers)) + (int(known.value) if known else 0)
        still = {"version": known.version} if known else {"absent": True}
        try:
            client.execute([{"ack": receipts},
                            {"enqueue": TARGET, "messages": numbers},
                            {"put": SUM, "value": str(total)}],
                           when=[{"kv": SUM} | still])
            return len(numbers), conflicts
        except StateRefusedError as refusal:
            if refusal.status != Status.CONFLICT:
                client.nack(receipts)       # a lease has ended: give back those that we still have
                return 0, conflicts
            conflicts += 1                  # another worker was faster: read its sum


def main() -> int:
    """Work until killed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("servers", help="addresses of the cluster's nodes")
    parser.add_argument("--lease", type=float, default=3.0, metavar="S",
                        help="seconds until a message comes back (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=10, metavar="N",
                        help="messages taken at a time (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S",
                        help="seconds that the work on a batch takes (default: %(default)s)")
    arguments = parser.parse_args()
    with Client(arguments.servers) as client:
        work(client, arguments.lease, arguments.batch, arguments.pause)
    return 0


if __name__ == "__main__":
    sys.exit(main())
