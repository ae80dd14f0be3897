"""Broken variants of leases, retries, dead letters, keys, transactions and watches.

As in broken_raft.py: functions from the real code to the broken one, and VARIANTS. All of them run
with workers.
"""

from unittest.mock import patch

from raftnet.changering import ChangeRing
from raftnet.machine import conditions, kvoperations, lifecycle, sections, transactions
from raftnet.machine.executor import Executor
from raftnet.machine.intake import Intake
from raftnet.machine.kv import KeyValue
from raftnet.machine.leases import Leases
from raftnet.machine.lifecycle import Lifecycle
from raftnet.machine.message import Message
from raftnet.machine.queue import Queue
from raftnet.machine.queueoperations import QueueOperations
from raftnet.machine.sections import SectionNumber
from raftnet.watches import Watches
from raftnet.wire.watches import WatchWhat
from tests.simulation.breaking import Variant, wrapped

_QUICK = {"delay_ms": 2, "jitter_ms": 2}
_CALM = (_QUICK, 3_000, ("crash", "pause"))
_CHANGES = (_QUICK, 700, ("crash", "pause", "isolate", "transfer"))
_AWAY = (_QUICK, 1_500, ("left behind", "left behind", "left behind", "crash"))
_SMALL = {"log_bytes_min": 2_500, "log_per_snapshot": 0, "tail_bytes": 0, "retry_ms": 1_000}
# Followers are sent a snapshot while their processes, and so their watches, live on.
_APART = (_QUICK, 1_000, ("isolate", "isolate", "slow link"))
_SMALLER = {"log_bytes_min": 400, "log_per_snapshot": 0, "tail_bytes": 0, "retry_ms": 100,
            "held_log_bytes_max": 400, "slice_bytes": 10_000, "slice_messages": 10_000}
_RUN_MS = 6_000
_SPREAD = {"expiries_per_entry_max": 1}     # much is due and not yet carried out
_NEVER_MS = 1 << 64


def _changed(message: Message, **values) -> Message:
    """Another one of it."""
    return Message(*[values.get(name, getattr(message, name)) for name in (
        "place", "id", "body", "priority", "deliveries", "expires_ms", "origin", "history")])


# --- deliveries


def _late(life, message_id, delivery):
    lease = life._executor.leases.by_delivery.get(delivery)
    return lease if lease is not None and lease.message.id == message_id else None


def _any_message(life, message_id, delivery):
    lease = life._executor.leases.by_delivery.get(delivery)
    return None if lease is None or lease.deadline_ms <= life._executor.now_ms else lease


def _whoever_holds_it(life, message_id, delivery):
    for lease in life._executor.leases.by_delivery.values():
        if lease.message.id == message_id:
            return lease
    return None


def _to_the_tail(real):
    def give_back(life, lease, ended_ms, reason, text, delay_ms):
        return real(life, lease, ended_ms, reason, text, 1 if delay_ms == 0 else delay_ms)
    return give_back


def _not_counted(place, message_id, body, priority, deliveries, *rest):
    return Message(place, message_id, body, priority, min(deliveries, 1), *rest)


def _no_dead_letters(real):
    def give_back(life, *arguments):
        with patch.object(Lifecycle, "dead_letters_of", lambda *_: b""):
            return real(life, *arguments)
    return give_back


def _same_pause(real):
    def give_back(life, lease, ended_ms, reason, text, delay_ms):
        settings = life._executor.queues.by_name[lease.queue].settings
        if delay_ms is None:
            delay_ms = settings.backoff_ms if settings is not None else 1_000
        return real(life, lease, ended_ms, reason, text, delay_ms)
    return give_back


def _plainly(real):
    def _serve(executor, name, queue):
        for wait in queue.waiters.values():
            wait.lease_ms = 0
        real(executor, name, queue)
    return _serve


# --- dead letters


def _without_history(real):
    def bury(life, name, dead, message, event):
        real(life, name, dead, _changed(message, history=()), event)
    return bury


def _to_both(real):
    def give_back(life, lease, *arguments):
        is_dead = real(life, lease, *arguments)
        if is_dead:
            queue = life._executor.queues.make(lease.queue)
            life.put(lease.queue, queue, _changed(lease.message, place=life.place()))
        return is_dead
    return give_back


def _with_new_id(real):
    def send_back(life, to, message, event):
        real(life, to, _changed(message, id=life.place()), event)
    return send_back


# --- time, priorities, deduplication


def _too_early(real):
    def delay(life, name, queue, due_ms, message):
        now_ms = life._executor.now_ms
        real(life, name, queue, now_ms + (due_ms - now_ms) // 2, message)
    return delay


def _all_the_same(real):
    def _add(intake, name, queue, messages, priority, delay_ms, ttl_ms):
        real(intake, name, queue, messages, 0, delay_ms, ttl_ms)
    return _add


def _twice_as_long(real):
    def _remember(intake, name, queue, dedup_id, message_id, window_ms):
        real(intake, name, queue, dedup_id, message_id, 2 * window_ms)
    return _remember


def _over_the_maximum(intake, queue, count, size):
    settings = queue.settings
    if settings.messages_max and queue.ready() + count > settings.messages_max:
        return b"messages_max"
    return None


# --- a queue as a whole


def _purge_leased(real):
    def _purge(operations, name, limit):
        queue = operations._executor.queues.by_name.get(name)
        for lease in list(queue.leases(operations._executor.leases) if queue else ()):
            operations._lifecycle.finish(lease)
        return real(operations, name, limit)
    return _purge


# --- keys and transactions


def _an_old_version(real):
    def holds(condition, item):
        if condition.kind == kvoperations._VERSION and item is not None:
            return item.version >= condition.value
        return real(condition, item)
    return holds


def _counter_falls(real):
    def _undo(kv, key, before):
        real(kv, key, before)
        kv.version = max((item.version for item in kv.by_key.values()), default=0)
    return _undo


def _acks_stand(real):
    def _undo_finish(life, queue, lease):
        pass
    return _undo_finish


def _lives_longer(real):
    def put(kv, key, value, expires_ms, now_ms, journal):
        expires_ms += expires_ms and expires_ms - now_ms
        return real(kv, key, value, expires_ms, now_ms, journal)
    return put


# --- snapshots


def _without(number: SectionNumber):
    """A patch: snapshots do not hold that section."""
    return patch.object(sections, "SECTIONS", tuple(
        section._replace(items=lambda machine: iter(())) if section.number == number else section
        for section in sections.SECTIONS))


# --- watches


def _once_more(real):
    def number_after(ring, index):
        return real(ring, max(ring.base_index, index - 1))
    return number_after


def _one_less(real):
    def number_after(ring, index):
        return min(real(ring, index) + 1, ring.end)
    return number_after


def _goes_on(watches, machine):
    watches._machine = machine
    if watches._topics[WatchWhat.QUEUE]:
        machine.executor.queue_watch = set(watches._topics[WatchWhat.QUEUE])


def _work(name: str, broken: str, patches, profile=_CALM, limits=None) -> Variant:
    return Variant(name, broken, patches, run_ms=_RUN_MS, profile=profile, limits=limits or {},
                   workers=3)


VARIANTS = [
    _work("a late receipt accepted", "a lease is held until its expiry is carried out",
          lambda: [patch.object(Lifecycle, "held", _late)], limits=_SPREAD),
    _work("a receipt names the message alone", "who was too late ends the lease of another",
          lambda: [patch.object(Lifecycle, "held", _whoever_holds_it)]),
    _work("a receipt's message not compared", "a receipt with another message's id is accepted",
          lambda: [patch.object(Lifecycle, "held", _any_message)]),
    _work("a lease that never ends", "who forgets a message keeps it",
          lambda: [patch.object(Leases, "earliest", lambda leases: None),
                   patch.object(Leases, "due_ms", lambda leases: _NEVER_MS)]),
    _work("given back to the tail", "a message that comes back is the last of its queue",
          lambda: [wrapped(Lifecycle, "give_back", _to_the_tail)]),
    _work("deliveries not counted", "each delivery of a message counts as its first",
          lambda: [patch.object(lifecycle, "Message", _not_counted)]),
    _work("delivery limit ignored", "a message comes back however often it was delivered",
          lambda: [wrapped(Lifecycle, "give_back", _no_dead_letters)]),
    _work("back-off that does not grow", "a message comes back after the same time each time",
          lambda: [wrapped(Lifecycle, "give_back", _same_pause)]),
    _work("waiting lease served plainly", "who waits for a lease gets the message for good",
          lambda: [wrapped(Executor, "_serve", _plainly)]),
    _work("waiters served newest first", "who came last is served first",
          lambda: [patch.object(Queue, "first_waiter",
                                lambda queue: next(reversed(queue.waiters.values())))]),
    _work("dead letter without history", "a dead letter knows only what made it one",
          lambda: [wrapped(Lifecycle, "bury", _without_history)]),
    _work("dead letter in both queues", "a dead letter stays where it was as well",
          lambda: [wrapped(Lifecycle, "give_back", _to_both)]),
    _work("redriven under another id", "what is sent back to its queue is taken for new",
          lambda: [wrapped(Lifecycle, "send_back", _with_new_id)]),
    _work("time to live ignored", "a message stays whatever its time to live",
          lambda: [patch.object(Queue, "first_expiry", lambda queue: None)]),
    _work("ready too early", "a delay is half as long as was asked for",
          lambda: [wrapped(Lifecycle, "delay", _too_early)]),
    _work("priorities ignored", "a message is enqueued with the ordinary priority",
          lambda: [wrapped(Intake, "_add", _all_the_same)]),
    _work("deduplication for too long", "an id is known for twice its window",
          lambda: [wrapped(Intake, "_remember", _twice_as_long)]),
    _work("maximum of the ready alone", "leased and delayed messages do not count, nor do bytes",
          lambda: [patch.object(Intake, "_full", _over_the_maximum)]),
    _work("purge takes leased messages", "a purge ends the leases of its queue",
          lambda: [wrapped(QueueOperations, "_purge", _purge_leased)]),
    _work("transaction undone in part", "acknowledgements of an undone transaction stand",
          lambda: [wrapped(Lifecycle, "_undo_finish", _acks_stand)]),
    _work("conditions not checked", "a transaction is performed whatever its conditions",
          lambda: [patch.object(transactions, "first_failing", lambda *_: None)]),
    _work("compared with an old version", "a key may be newer than the version asked for",
          lambda: [wrapped(kvoperations, "holds", _an_old_version),
                   wrapped(conditions, "holds", _an_old_version)]),
    _work("version counter falls back", "an undone change takes an older version with it",
          lambda: [wrapped(KeyValue, "_undo", _counter_falls)]),
    _work("key that lives too long", "a key has twice its time to live",
          lambda: [wrapped(KeyValue, "put", _lives_longer)]),
    _work("deduplication ids not in snapshots", "a restart forgets what was enqueued before",
          lambda: [_without(SectionNumber.DEDUP)], _AWAY, _SMALL),
    _work("keys not in snapshots", "a node that comes out of a snapshot has no keys",
          lambda: [_without(SectionNumber.KEYS)], _AWAY, _SMALL),
    _work("settings not in snapshots", "a node that comes out of a snapshot has no settings",
          lambda: [_without(SectionNumber.SETTINGS)], _AWAY, _SMALL),
    _work("watch event told twice", "a watch that goes on elsewhere tells the last entry again",
          lambda: [wrapped(ChangeRing, "number_after", _once_more)], _CHANGES),
    _work("watch event left out", "a watch that goes on elsewhere leaves out a change",
          lambda: [wrapped(ChangeRing, "number_after", _one_less)], _CHANGES),
    _work("watch goes on across a snapshot", "what a snapshot brought is never told",
          lambda: [patch.object(Watches, "begin_anew", _goes_on)], _APART, _SMALLER),
]
