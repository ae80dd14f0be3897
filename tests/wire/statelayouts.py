"""How the program reads and writes the items of a state in a snapshot (protocol.md, State in a
snapshot). The others, and what a Layout is: layouts.py, layoutkinds.py.
"""

from raftnet.config import MachineConfig, WireConfig
from raftnet.machine.machine import Machine
from raftnet.machine.sections import SECTIONS, SectionNumber
from raftnet.machine.waits import Wait
from tests.wire.document import DOCUMENT, fill
from tests.wire.layoutkinds import Layout

_U64_MAX = 2 ** 64 - 1


def machine_above_all() -> Machine:
    """An empty one whose counters are above everything."""
    machine = Machine(MachineConfig(), WireConfig())
    machine.time_ms = machine.applied_index = machine.executor.next_message_id = _U64_MAX
    machine.executor.waits.next_number = machine.executor.leases.next_delivery = _U64_MAX
    machine.executor.kv.version = _U64_MAX
    return machine


def _with_item(section: int, data: bytes) -> Machine:
    """A machine with that item of a section."""
    machine = machine_above_all()
    if section == SectionNumber.WAIT_LEASES:        # it is about a wait that there is
        wait = Wait(data[:16], int.from_bytes(data[16:24], "big"), 5, 1, b"q", 1)
        machine.executor.waits.restore(wait)
        machine.executor.queues.make(b"q").add_waiter(wait)
    (loader,) = [found.loader(machine) for found in SECTIONS if found.number == section]
    assert loader.item(data, 0, True) == len(data)
    loader.end()
    return machine


def of_item(section: int, names: str, values_of, unseen=(), **given) -> Layout:
    """Of an item in a section of the state."""
    def again(data: bytes) -> bytes:
        (found,) = [found for found in SECTIONS if found.number == section]
        return b"".join(found.items(_with_item(section, data)))
    return Layout(lambda data: dict(zip(names.split(), values_of(_with_item(section, data)),
                                        strict=True)), again, given, unseen)


def _queue_values(machine: Machine) -> tuple:
    ((name, queue),) = machine.executor.queues.by_name.items()
    return name, list(queue.ids), list(queue.messages)


def _wait_values(machine: Machine) -> tuple:
    (wait,) = machine.executor.waits.pending.values()
    return (wait.session, wait.first_sequence, wait.deadline_ms, wait.number, wait.count,
            wait.queue)


def _session_values(machine: Machine) -> tuple:
    ((session_id, session),) = machine.sessions.by_id.items()
    return session_id, session.last, session.used_ms, session.firsts, session.replies


def _counter_values(machine: Machine) -> tuple:
    return machine.executor.leases.next_delivery, machine.executor.kv.version


def _settings_values(machine: Machine) -> tuple:
    ((name, queue),) = machine.executor.queues.by_name.items()
    dead_letter, *numbers = queue.settings
    return name, b"".join(number.to_bytes(8, "big") for number in numbers), dead_letter


def _level_values(machine: Machine) -> tuple:
    ((name, queue),) = machine.executor.queues.by_name.items()
    ((priority, level),) = queue.levels.items()
    return name, priority, list(level.ids), list(level.messages)


def _leased_values(machine: Machine) -> tuple:
    (lease,) = machine.executor.leases.by_delivery.values()
    message = lease.message
    return (lease.queue, 1, message.place, message.id, message.priority, message.deliveries,
            message.expires_ms, lease.deadline_ms, lease.delivery, lease.taken_ms, lease.consumer,
            message.origin, message.history, message.body)


def _wait_lease_values(machine: Machine) -> tuple:
    (wait,) = machine.executor.waits.pending.values()
    return wait.session, wait.first_sequence, wait.lease_ms, wait.consumer


def _dedup_values(machine: Machine) -> tuple:
    ((name, queue),) = machine.executor.queues.by_name.items()
    ((dedup_id, (message_id, expires_ms)),) = queue.dedup.by_id.items()
    return name, expires_ms, message_id, dedup_id


def _key_values(machine: Machine) -> tuple:
    ((key, item),) = machine.executor.kv.by_key.items()
    return key, item.version, item.expires_ms, item.value


_EVENT, _EVENT_VALUES = fill(DOCUMENT.layouts()["Event"], {"reason": 2})
ITEM_LAYOUTS = {
    ("Messages of a queue",): of_item(
        SectionNumber.QUEUES, "queue ids messages", _queue_values, ("count", "lengths"), count=2,
        ids=[5, 6], lengths=[1, 2], messages=(b"abb", [b"a", b"bb"])),
    ("Waiting dequeue",): of_item(
        SectionNumber.WAITS, "session sequence deadline_ms wait_number wanted queue",
        _wait_values),
    ("Session in the state",): of_item(
        SectionNumber.SESSIONS, "session last used_ms sequences replies", _session_values,
        ("count", "lengths"), count=2, sequences=[5, 6], lengths=[1, 2],
        replies=(b"abb", [b"a", b"bb"])),
    ("Counters",): of_item(SectionNumber.COUNTERS, "next_delivery version", _counter_values),
    ("Settings of a queue",): of_item(
        SectionNumber.SETTINGS, "queue settings dead_letter", _settings_values,
        settings=b"".join(number.to_bytes(8, "big") for number in (5, 6, 7, 8, 1, 9, 10, 11))),
    ("Messages of a priority",): of_item(
        SectionNumber.LEVELS, "queue priority ids messages", _level_values, ("count", "lengths"),
        priority=3, count=2, ids=[5, 6], lengths=[1, 2], messages=(b"abb", [b"a", b"bb"])),
    ("Message in the state",): of_item(
        SectionNumber.MESSAGES, "queue where place id priority deliveries expires_ms until_ms "
        "delivery taken_ms consumer origin history message", _leased_values, ("events", "length"),
        where=1, place=9_000, id=8_000, priority=3, until_ms=7_000, taken_ms=6_000, events=1,
        history=(_EVENT, (tuple(_EVENT_VALUES.values()),)), length=2, message=b"mm"),
    ("Waiting lease",): of_item(SectionNumber.WAIT_LEASES, "session sequence lease_ms consumer",
                                _wait_lease_values),
    ("Deduplication id",): of_item(SectionNumber.DEDUP, "queue expires_ms id dedup_id",
                                   _dedup_values),
    ("Key in the state",): of_item(SectionNumber.KEYS, "key version expires_ms value", _key_values,
                                   ("length",), length=2, value=b"vv"),
}
