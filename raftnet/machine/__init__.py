"""The replicated state: queues, waits, sessions; the same on every node at the same index.

Rules: no clock, no chance, no file, no socket, and nothing that depends on the order of a hash
table. Time is the stamp of the entry that is applied.
"""
