#!/usr/bin/env python3
"""Run one node of a raftnet cluster: `python3 node.py --help`."""

import os
import signal

if __name__ == "__main__":
    # Before all else, as even the imports take a moment; later the server listens to them. Nothing
    # is promised to anybody yet, and an exception could be swallowed by whatever it interrupts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(0))
    from raftnet.nodecommand import main
    main()
