"""Every limit and every time, with its unit: one dataclass a part.

Floor 0: imports nothing of the package. A limit that stands in the protocol (protocol.md, Limits)
must be the same on every node; the others may differ from node to node.
"""

from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB


@dataclass(slots=True)
class RaftConfig:
    """The core's times and bounds. Times in milliseconds of the node's own monotonic clock."""

    heartbeat_ms: int = 100                 # a leader speaks this often, or less often on a slow
    heartbeat_ms_max: int = 1_000           # network, down to this (raft/timing.py)
    election_timeout_ms: int = 500          # drawn anew from [timeout, 2 * timeout); it follows
    election_timeout_ms_max: int = 20_000   # the network between these
    disk_overdue_ms: int = 3000             # a job older than this: step down, do not campaign
    retry_after_gone_ms_min: int = 10       # an election lost after the leader's death is tried
    retry_after_gone_ms_max: int = 50       # again after this, doubling
    append_bytes_max: int = 1 * MIB         # entries of one append stop once they reach this
    in_flight_appends_max: int = 64         # a follower, not yet acknowledged
    in_flight_bytes_max: int = 16 * MIB     # a follower, not yet acknowledged
    uncommitted_bytes_max: int = 64 * MIB   # then propose raises BusyError
    apply_bytes_max: int = 2 * MIB          # committed entries handed out by one Ready, a KiB more
                                            # counted for each
    log_memory_bytes_max: int = 64 * MIB    # applied entries kept in memory for followers
    snapshot_chunk_bytes: int = 256 * KIB   # of one SNAPSHOT message
    snapshot_window_bytes: int = 4 * MIB    # of them on their way to a follower, unanswered


@dataclass(slots=True)
class WireConfig:
    """Limits that stand in protocol.md."""

    frame_bytes_max: int = 8 * MIB          # header included
    request_bytes_max: int = 2 * MIB        # body of a client's REQUEST
    message_bytes_max: int = 1 * MIB        # one message of a queue
    queue_name_bytes_max: int = 255
    result_bytes_max: int = 4 * MIB         # messages returned to one REQUEST


@dataclass(slots=True)
class MachineConfig:
    """Limits of the replicated state: the same on every node, or their states would differ."""

    session_expiry_ms: int = 600_000        # replicated time without use
    sessions_max: int = 100_000
    kept_reply_bytes_max: int = 256 * MIB   # over it, new sessions are refused; none is evicted
    expiries_per_entry_max: int = 1_000     # effect of one entry on sessions and waiters, each
    execute_operations_max: int = 1_000
    dequeue_count_max: int = 10_000
    waiters_max: int = 100_000
    wait_ms_max: int = 3_600_000            # of one waiting dequeue, replicated time
    listings_per_request_max: int = 10      # QUEUES in one request: each may sort all names
    lease_ms_max: int = 43_200_000          # half a day; an EXTEND counts anew
    leases_max: int = 2_000_000             # of all queues
    receipts_per_command_max: int = 10_000  # of one ACK, NACK or EXTEND
    delay_ms_max: int = 2_592_000_000       # 30 days; also of a back-off
    ttl_ms_max: int = 31_536_000_000        # a year; of messages, keys and deduplication
    priorities: int = 8                     # of messages: 0, the ordinary one, to 7
    history_max: int = 16                   # events kept of one message, the newest
    settings_max: int = 1_000_000           # configured queues
    dedup_ids_max: int = 2_000_000          # of all queues
    keys_max: int = 10_000_000
    conditions_max: int = 1_000             # of one TRANSACT
    purge_count_max: int = 10_000           # of one PURGE; all that a request moves or passes over
    overflow_extra_max: int = 16            # dead letters of one enqueue beyond those it brings
    overflow_extra_bytes: int = 64          # and one more for so many bytes that it brings
    redrive_count_max: int = 1_000          # messages of one REDRIVE
    shown_count_max: int = 1_000            # leases or messages of one LEASES or INSPECT
    list_count_max: int = 10_000            # keys of one KV_LIST


@dataclass(slots=True)
class GatewayConfig:
    """How client requests become batches."""

    batch_bytes_max: int = 1 * MIB          # an entry stops growing once it reaches this
    batch_frames_max: int = 10_000
    eager_bytes: int = 256 * KIB            # proposed even while the disk is busy
    waiting_bytes_max: int = 64 * MIB       # requests not yet proposed; then BUSY
    deadline_grain_ms: int = 50             # replicated deadlines are coalesced to this
    apply_slice_ms: int = 20                # of committed entries in a turn; one is always applied
    orphan_wait_ms: int = 5_000             # a new leader cancels a wait nobody came back for
    log_reply_bytes_max: int = 1 * MIB      # entries in one LOG reply
    reads_waiting_max: int = 10_000         # questions without an answer yet; then BUSY
    reads_turn_bytes_max: int = 8 * MIB     # answers to questions in one turn of the loop
    watches_max: int = 50_000               # at one node; then BUSY
    watches_per_client_max: int = 10_000    # on one connection; then TOO_LARGE
    watch_ring_bytes_max: int = 16 * MIB    # newest changes of keys, kept for who comes back
    watch_ring_changes_max: int = 50_000
    watch_backlog_bytes_max: int = 1 * MIB  # above it, a connection is told nothing more for now
    watch_turn_bytes_max: int = 8 * MIB     # told in one turn of the loop, to all
    watch_turn_scan_max: int = 20_000       # changes looked at in one turn for who is behind
    watch_progress_entries: int = 500       # a watch without events is told the index, once it is
    watch_progress_ms: int = 1_000          # so far behind, and so long after it was told last


@dataclass(slots=True)
class NetConfig:
    """Sockets. Times in milliseconds."""

    read_bytes: int = 256 * KIB             # one recv
    output_bytes_max: int = 32 * MIB        # a peer that reads slower than this is dropped
    output_pause_bytes: int = 4 * MIB       # above it, nothing more is read from that client
    connections_max: int = 4_000
    dial_timeout_ms: int = 3_000            # to connect and be greeted; more where that was slow
    dial_timeout_ms_max: int = 30_000
    dial_backoff_ms_min: int = 4            # a dying process may listen a moment longer than it
                                            # holds its connections
    dial_backoff_ms_max: int = 2_000
    half_closed_ms: int = 5_000             # answers to a client that sends no more take no longer
    unfinished_frame_ms: int = 60_000       # a client's frame that was begun, without a byte more
    listen_backlog: int = 512
    look_ups_max: int = 16                  # names looked up at a time, a thread each
    addresses_max: int = 8                  # of one name, tried by one dial


@dataclass(slots=True)
class SnapshotConfig:
    """When the log is compacted, and how much of it stays."""

    log_bytes_min: int = 64 * MIB           # a smaller log is left alone
    log_per_snapshot: int = 2               # else: larger than so many times the last snapshot
    tail_bytes: int = 16 * MIB              # of the log kept below a snapshot, for slow followers
    held_log_bytes_max: int = 1024 * MIB    # while a follower installs, the log is cut above this
    slice_bytes: int = 256 * KIB            # of an installed one, built into a machine in a turn
    slice_messages: int = 10_000            # of a replaced machine, given back in a turn
    retry_ms: int = 60_000                  # after one that failed
    kept_ms: int = 60_000                   # a replaced snapshot stays readable for a backup
    kept_max: int = 2                       # so many replaced ones
    askers_max: int = 100                   # clients that wait for a snapshot; then BUSY


@dataclass(slots=True)
class Config:
    """All of a node's settings."""

    raft: RaftConfig = field(default_factory=RaftConfig)
    wire: WireConfig = field(default_factory=WireConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    net: NetConfig = field(default_factory=NetConfig)
    snapshot: SnapshotConfig = field(default_factory=SnapshotConfig)
    log_lines_per_second: int = 3           # of one kind of action; the rest is counted
