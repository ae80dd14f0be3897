"""Sockets, and the Raft messages as bytes."""
