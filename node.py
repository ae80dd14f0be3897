#!/usr/bin/env python3
"""Run one node of a raftnet cluster: `python3 node.py --help`."""

from raftnet.nodecommand import main

if __name__ == "__main__":
    main()
