#!/usr/bin/env python3
"""The command line of raftnet: python3 mqclient.py --help. All of it is in raftnet/client/."""

import os
import signal
import sys

INTERRUPTED = 130

if __name__ == "__main__":
    # Ctrl-C while modules are read, before anything was asked: an end without a traceback. Who
    # ignores it (nohup) goes on to do so.
    loading = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if loading:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    from raftnet.client.commandline import main
    try:
        if loading:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
