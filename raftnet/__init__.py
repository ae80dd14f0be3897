"""raftnet: a replicated message queue. README.md is the way in."""
