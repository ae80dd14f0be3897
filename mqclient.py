#!/usr/bin/env python3
"""The command line of raftnet: python3 mqclient.py --help. All of it is in raftnet/client/."""

import sys

from raftnet.client.commandline import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
