"""`python3 -m tests.workers.consumer SERVERS QUEUE LEASE_S PAUSE_S`: one message kills it.

The consumer leases a message at a time, and for each prints a line: seconds (time.monotonic),
deliveries, message. It acknowledges after PAUSE_S; but POISON kills it, after the line and before
that.
"""

import os
import signal
import sys
import time

from raftnet.client import Client

POISON = "poison"
_WAIT_S = 1.0


def main() -> None:
    """Until killed."""
    servers, name, lease_s, pause_s = sys.argv[1:]
    with Client(servers) as client:
        queue = client.queue(name)
        while True:
            for message in queue.lease(float(lease_s), wait_s=_WAIT_S):
                print(time.monotonic(), message.deliveries, message.text, flush=True)
                if message.text == POISON:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(float(pause_s))
                client.ack(message.receipt)


if __name__ == "__main__":
    main()
