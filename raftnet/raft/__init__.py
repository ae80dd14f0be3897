"""The Raft algorithm as a pure state machine: no socket, file, clock, thread or random source."""
