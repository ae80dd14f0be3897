"""The files of one data directory: log, meta, identity, lock; and the order of their writes."""
