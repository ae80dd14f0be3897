"""raftnet: a replicated message queue. README.md is the way in."""

VERSION = "0.1.0"
