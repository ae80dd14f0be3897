"""Broken variants of snapshots, of logs that are cut, of damaged files and full disks.

As in broken_raft.py: functions from the real code to the broken one, and VARIANTS.
"""

from unittest.mock import patch

from raftnet import outbox
from raftnet.errors import DiskFullError
from raftnet.machine.sessions import Sessions
from raftnet.machine.state import StateLoader
from raftnet.raft import install
from raftnet.raft.core import Raft
from raftnet.raft.log import RaftLog
from raftnet.raft.types import AppendReply
from raftnet.replicatedtime import ReplicatedTime
from raftnet.snapshots import Snapshots
from raftnet.storage import damage, opening, snapshot
from raftnet.storage.compaction import Successor
from raftnet.storage.logfile import NEW_LOG_NAME
from raftnet.storage.metafile import META_NAME
from raftnet.storage.snapshot import BLOCK_HEAD, SnapshotFile
from raftnet.storage.store import Store
from raftnet.storage.succession import Succession
from tests.simulation.breaking import Variant, wrapped

_QUICK = {"delay_ms": 5, "jitter_ms": 5}
_AWAY = (_QUICK, 1_500, ("left behind", "left behind", "left behind", "crash"))
_AWAY_POWER = (_QUICK, 1_500, ("left behind", "left behind", "power loss"))
# A transfer takes seconds.
_LONG = ({"delay_ms": 40, "jitter_ms": 20}, 2_000, ("left behind",))
_LEADERS = (_LONG[0], 700, ("left behind", "transfer", "transfer"))
_PIECES = {"log_bytes_min": 2_500, "log_per_snapshot": 0, "tail_bytes": 0, "retry_ms": 1_000,
           "snapshot_chunk_bytes": 300, "snapshot_window_bytes": 300, "kept_ms": 10_000,
           "held_log_bytes_max": 1_000_000}
_POWER = (_QUICK, 600, ("power loss", "all crash", "left behind", "crash"))
_DAMAGE = (_QUICK, 700, ("damage", "damage", "crash", "left behind", "pause"))
_CUTS = (_QUICK, 500, ("damage",))
_FULL = (_QUICK, 500, ("long full disk", "full disk", "crash", "isolate", "left behind"))
_SMALL = {"log_bytes_min": 2_500, "log_per_snapshot": 0, "tail_bytes": 0, "retry_ms": 1_000}
_LOSSES = ({"delay_ms": 10, "jitter_ms": 10, "loss": 10}, 600, ("crash", "pause", "all crash"))


# --- installs


def _early_install(real):
    def begin_at_verified(raft):
        meta, leader_id, commit = raft.incoming.verified, raft.leader_id, raft.log.commit_index
        real(raft)
        if leader_id and raft.log.commit_index > commit:
            raft.send(leader_id, AppendReply(raft.current_term, True, meta.index))
    return begin_at_verified


def _any_transfer(real):
    """What comes of another snapshot goes on where the one before was."""
    def on_snapshot(raft, sender, message):
        incoming = raft.incoming
        if incoming is not None and not incoming.written and incoming.identity != message.identity:
            incoming.identity = message.identity
            incoming.next_offset = min(incoming.next_offset, message.size)
        real(raft, sender, message)
    return on_snapshot


def _unverified(file):
    """The pieces as they stand there."""
    offset = file._header.end
    while True:
        length, _ = BLOCK_HEAD.unpack(file.read(offset, BLOCK_HEAD.size))
        if not length:
            return
        yield file.read(offset + BLOCK_HEAD.size, length)
        offset += BLOCK_HEAD.size + length


def _no_members(log, meta):
    newer = [each for each in log._memberships if each[0] > meta.index]
    log._memberships = [log._memberships[0] if log._memberships else (0, RaftLog([]).membership),
                        *newer]


# --- what is in the state


def _without_replies(real):
    def finish(loader):
        machine = real(loader)
        for session in machine.sessions.by_id.values():
            if not session.waiting:
                Sessions.acknowledge(machine.sessions, session, session.last)
        return machine
    return finish


def _without_waits(real):
    def finish(loader):
        machine = real(loader)
        waits = machine.executor.waits
        for wait in waits.pending.values():
            machine.executor.queues.by_name[wait.queue].remove_waiter(wait)
            machine.executor.queues.settle(wait.queue)
            wait.pending = False
        waits.pending.clear()
        return machine
    return finish


def _began_at_zero(real):
    def begin(time, log, applied_time_ms=0):
        real(time, log, 0)
        time._seen_to, time._epoch = log.last_index, log.epoch
    return begin


def _not_by_what_is_applied(real):
    return lambda time, now_ms, applied_time_ms: real(time, now_ms, 0)


# --- files


def _no_sync(real):
    """Written, and not synced."""
    def make(disk, *arguments):
        with patch.object(disk, "sync", lambda handle: None):
            return real(disk, *arguments)
    return make


def _copy_unsynced(real):
    def finish(successor, *arguments):
        with patch.object(successor._disk, "sync", lambda handle: None):
            return real(successor, *arguments)
    return finish


def _as_far_as_copied(real):
    def finish(successor, *arguments):
        with patch.object(successor, "copy", lambda *_: False):
            return real(successor, *arguments)
    return finish


def _base_above(real):
    def _begin_successor(files, header):
        base = max(header.base_index, files.log.last_index - 1)
        real(files, header._replace(base_index=base, base_term=files.log.term_at(base)))
    return _begin_successor


def _log_first(real):
    """The log takes its place before the snapshot does."""
    def install_files(files, meta):
        files.abandon("")
        if files._next_log is None:
            files._prepare_install(meta)
        if files._disk.exists(NEW_LOG_NAME):
            files._disk.rename(NEW_LOG_NAME, "log")
            files._disk.sync_directory()
            files._next_log._name = "log"
        real(files, meta)
    return install_files


def _all_at_once(real):
    """The directory is synced only in the end."""
    def compact(files, compaction):
        with patch.object(files._disk, "sync_directory", lambda: None):
            real(files, compaction)
    return compact


def _step_unsynced(real):
    def step(files, *arguments):
        with patch.object(files._disk, "sync_directory", lambda: None):
            return real(files, *arguments)
    return step


def _no_floor(real):
    def _check_meta(disk, meta, snapshot, log):
        state, meta.state = meta.state, meta.state._replace(floor_term=0, floor_index=0)
        try:
            real(disk, meta, snapshot, log)
        finally:
            meta.state = state
    return _check_meta


# --- full disks


def _pretends(real):
    def perform(store, jobs):
        try:
            real(store, jobs)
        except DiskFullError:
            for job in jobs:
                if job.install is None and job.chunk is None and job.compact is None:
                    job.filed = job.written = True
    return perform


VARIANTS = [
    Variant("installed before the disk says so", "an install is acknowledged before its job is "
            "done", lambda: [wrapped(install, "begin_at_verified", _early_install)], profile=_AWAY,
            run_ms=20_000, limits=_SMALL),
    Variant("snapshot unverified", "checksums of a snapshot's blocks are not looked at",
            lambda: [patch.object(SnapshotFile, "pieces", _unverified)], profile=_DAMAGE,
            run_ms=20_000, limits=_SMALL),
    Variant("chunks of two transfers", "what comes of a newer snapshot is put behind an older "
            "one's, and nobody verifies it",
            lambda: [wrapped(install, "on_snapshot", _any_transfer),
                     patch.dict("raftnet.raft.core._STEP", {
                         install.Snapshot: _any_transfer(install.on_snapshot)}),
                     patch.object(SnapshotFile, "pieces", _unverified)], profile=_LEADERS,
            run_ms=20_000, limits=_PIECES),
    Variant("members of the snapshot ignored", "the members stay those of the log",
            lambda: [patch.object(RaftLog, "_begin_memberships", _no_members)], profile=_AWAY,
            run_ms=20_000, limits=_SMALL),
    Variant("replies not in the snapshot", "kept replies are left out of the state",
            lambda: [wrapped(StateLoader, "finish", _without_replies)], profile=_LOSSES,
            run_ms=15_000, limits=_SMALL),
    Variant("waits not in the snapshot", "waiting dequeues are left out of the state",
            lambda: [wrapped(StateLoader, "finish", _without_waits)], profile=_LOSSES,
            run_ms=15_000, limits=_SMALL),
    Variant("time begins anew", "after a start replicated time is not that of snapshot and log",
            lambda: [wrapped(ReplicatedTime, "__init__", _began_at_zero),
                     wrapped(ReplicatedTime, "follow", _not_by_what_is_applied)], profile=_POWER),
    Variant("snapshot renamed before its sync", "a made snapshot is not synced",
            lambda: [patch("raftnet.rebuild.write_snapshot", _no_sync(snapshot.write_snapshot))],
            profile=_POWER),
    Variant("received snapshot not synced", "an install relies on what is only in the cache",
            lambda: [patch.object(SnapshotFile, "sync", lambda file: None)], profile=_AWAY_POWER,
            run_ms=20_000, limits=_SMALL),
    Variant("new log renamed before its sync", "the log's successor is not synced",
            lambda: [wrapped(Successor, "finish", _copy_unsynced)], profile=_POWER),
    Variant("entries lost to a compaction", "what came while the log was copied is left out",
            lambda: [wrapped(Successor, "finish", _as_far_as_copied)], profile=_POWER),
    Variant("base above the snapshot", "the log is cut behind what the snapshot holds",
            lambda: [wrapped(Succession, "_begin_successor", _base_above)], profile=_POWER),
    Variant("log before its snapshot", "an install renames the log first",
            lambda: [wrapped(Succession, "install", _log_first)], profile=_AWAY,
            run_ms=20_000, limits=_SMALL),
    Variant("names not synced", "a compaction's renames may come back in any order",
            lambda: [wrapped(Succession, "compact", _all_at_once),
                     wrapped(Succession, "step", _step_unsynced)], profile=_POWER),
    Variant("cut while a follower installs", "the log is cut under a follower that needs it",
            lambda: [wrapped(Snapshots, "_cut_jobs", lambda real: lambda self: _not_installing(
                self, real))], profile=_LONG,
            run_ms=20_000, limits=_PIECES),
    Variant("healing under the old id", "meta stays where damaged files are set aside",
            lambda: [patch.object(damage, "HISTORY_NAMES", tuple(
                name for name in damage.HISTORY_NAMES if name != META_NAME))], profile=_DAMAGE,
            run_ms=20_000),
    Variant("a cut log goes unnoticed", "the end of the log that meta knows is not compared",
            lambda: [wrapped(opening, "_check_meta", _no_floor)], profile=_CUTS, run_ms=20_000,
            limits={"log_bytes_min": 1 << 26}),
    Variant("a full disk acknowledges", "what found no room counts as written",
            lambda: [wrapped(Store, "perform", _pretends)], profile=_FULL),
    Variant("entries acknowledged with the vote", "on a full disk all promises leave with the "
            "vote", lambda: [patch.object(outbox, "promises_hard_state_only",
                                          lambda message: True)], profile=_FULL),
]


def _not_installing(snapshots, real):
    with patch.object(Raft, "installing_to", lambda raft: []):
        return real(snapshots)
