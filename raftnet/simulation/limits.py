"""Limits of a simulated cluster's nodes, drawn from its seed.

Rules: drawn from a source of their own, so that the other draws of a seed stay. Mostly so small
that a run of some hundred entries makes many snapshots, cuts its logs, sends snapshots in many
chunks, and keeps only a few entries in memory; sometimes those that nodes really have. What must be
the same on all nodes (machine, wire) is left alone, but for clusters with workers.
"""

import random

from raftnet.config import KIB, MIB, Config

_DEFAULT_PERCENT = 10       # of the seeds: all as on real nodes
_LARGE_PERCENT = 25         # of the others: one limit or another
_SLICED_PERCENT = 12        # of the seeds: applying takes time
UNCUT_MS = 1 << 30          # of a turn: whatever is committed


def draw_work_limits(config: Config, seed: int) -> None:
    """Of the machines of a cluster with workers: the same for all, and so small that the effects of
    one moment are spread over entries."""
    chosen = random.Random(f"work limits {seed}")
    if chosen.randrange(100) >= _LARGE_PERCENT:
        config.machine.expiries_per_entry_max = chosen.randint(1, 4)
    gateway = config.gateway
    gateway.watch_ring_changes_max = chosen.choice((2, 10, 50_000))
    gateway.watch_backlog_bytes_max = chosen.choice((200, MIB))
    gateway.watch_progress_entries = chosen.choice((5, 500))


def draw_slices(config: Config, seed: int) -> None:
    """How many entries, each of which takes a millisecond, a node applies in a turn."""
    chosen = random.Random(f"slices {seed}")
    cut = chosen.randrange(100) < _SLICED_PERCENT
    config.gateway.apply_slice_ms = chosen.randint(0, 4) if cut else UNCUT_MS


def draw_config(seed: int) -> Config:
    """The settings of all nodes of that seed's cluster."""
    config = Config()
    chosen = random.Random(f"limits {seed}")
    raft, snapshot = config.raft, config.snapshot
    if chosen.randrange(100) < _DEFAULT_PERCENT:
        return Config()

    def small(low: int, high: int, large: int) -> int:
        return large if chosen.randrange(100) < _LARGE_PERCENT else chosen.randint(low, high)

    snapshot.log_bytes_min = chosen.randint(2 * KIB, chosen.choice((4, 12, 40)) * KIB)
    snapshot.log_per_snapshot = chosen.randint(0, 2)
    snapshot.tail_bytes = chosen.choice((0, chosen.randint(0, 4 * KIB)))
    snapshot.held_log_bytes_max = small(snapshot.log_bytes_min, 64 * KIB, 4 * MIB)
    snapshot.slice_bytes = small(100, 4 * KIB, 256 * KIB)
    snapshot.slice_messages = small(1, 100, 10_000)
    snapshot.retry_ms = chosen.randint(500, 5_000)
    snapshot.kept_ms = small(100, 3_000, 60_000)
    raft.snapshot_chunk_bytes = chosen.randint(200, 4_000)
    raft.snapshot_window_bytes = chosen.randint(1, 4) * raft.snapshot_chunk_bytes
    raft.log_memory_bytes_max = small(4 * KIB, 16 * KIB, 64 * MIB)
    raft.append_bytes_max = small(200, 4 * KIB, MIB)
    raft.apply_bytes_max = small(2 * KIB, 16 * KIB, 4 * MIB)
    return config
