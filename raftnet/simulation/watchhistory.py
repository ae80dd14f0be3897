"""WatchHistory: what watchers were told, judged by what the committed log did to keys and queues.

The invariant "watch order": on each watch every change of its name comes once, in the order of the
log, as it was, and not before its entry was committed; when a node says that all up to an index was
told, then it was; the state at its beginning, and each size of a queue, is that of its index. A
watch that is not local begins where nothing is missing that anybody knew. WATCH_GONE is legal only
where the changes asked for may have left the memory of that node. Whoever still watches at the end,
with everything healed, has been told everything.
"""

from dataclasses import dataclass, field

from raftnet.simulation.promises import InvariantError
from raftnet.simulation.reference import Reference
from raftnet.wire.watches import Change, EventType, Watch, WatchEvent, WatchWhat, decode_sizes

_ORDER = "watch order"


@dataclass(slots=True, eq=False)
class WatchRecord:
    """One watch, from its asking to its end."""

    watcher: str
    node: str
    asked: Watch
    asked_ms: int
    events: list[tuple[WatchEvent, int]] = field(default_factory=list)  # and when each arrived
    # WATCH_GONE: (what the node had in its snapshots, how many changes it holds at least)
    gone: tuple[int, int] | None = None
    applied: int | None = None      # under way at the end: what its node had applied long before

    @property
    def told(self) -> int:
        """Everything up to this entry has been told; where nothing was yet: from where on."""
        return self.events[-1][0].index if self.events else self.asked.from_index

    def __str__(self):
        return (f"{self.watcher} at {self.node}, {WatchWhat(self.asked.what).name} "
                f"{self.asked.name!r} from {self.asked.from_index}")


class WatchHistory:
    """All watches of one cluster."""

    def __init__(self):
        self.records: list[WatchRecord] = []
        self._changes: list[Change] = []        # of all keys, in the order of the log
        self._committed_ms: list[int] = []      # by index, from 0 on
        # By index, of the names that are watched: sizes of queues, and what keys have.
        self._sizes: list[dict[bytes, tuple[int, bytes]]] = []
        self._items: list[dict[bytes, tuple[int, bytes]]] = []

    def applied(self, index: int, now_ms: int, model: Reference) -> None:
        """The entry at `index`, committed then, has brought the model here."""
        state = model.state
        self._committed_ms.append(now_ms)
        self._changes += [Change(kind, key, version, index, value)
                          for kind, key, version, value in state.changes]
        state.changes = []
        names = {(record.asked.what, record.asked.name) for record in self.records}
        self._sizes.append({name: model.sizes(name) for what, name in names
                            if what == WatchWhat.QUEUE})
        items = {name: state.item(name) for what, name in names if what == WatchWhat.KEY}
        self._items.append({name: (item.version, item.value) for name, item in items.items()
                            if item is not None})

    def check(self, known: list[tuple[int, int]]) -> None:
        """Raises InvariantError. `known`: (ms, index) of what anybody was told, in order."""
        for record in self.records:
            self._check_beginning(record, known)
            if record.asked.what == WatchWhat.QUEUE:
                self._check_sizes(record)
            else:
                self._check_changes(record)

    def _accuse(self, record: WatchRecord, what: str) -> None:
        raise InvariantError(f"{_ORDER}: {record}: {what}")

    def _check_beginning(self, record: WatchRecord, known: list[tuple[int, int]]) -> None:
        for (left, _), (right, _) in zip(record.events, record.events[1:]):
            if right.index < left.index:
                self._accuse(record, f"index {right.index} was told after {left.index}")
        for event, now_ms in record.events:
            last = max([event.index, *(change.index for change in event.changes)])
            if last >= len(self._committed_ms) or self._committed_ms[last] > now_ms:
                self._accuse(record, f"entry {last} was told before it was committed")
        if record.events and not record.asked.local and not record.asked.from_index:
            first = record.events[0][0].index
            before = max((index for ms, index in known if ms < record.asked_ms), default=0)
            if first < before:
                self._accuse(record, f"it begins at {first}, while {before} was known")

    # --- keys

    def _check_changes(self, record: WatchRecord) -> None:
        asked, events = record.asked, record.events
        start = asked.from_index
        if not start and events:
            event = events[0][0]
            start = event.index
            self._check_state(record, event)
            events = events[1:]
        right = [change for change in self._changes if change.index > start
                 and (change.name == asked.name if asked.what == WatchWhat.KEY
                      else change.name.startswith(asked.name))]
        told = 0
        for event, _ in events:
            for change in event.changes:
                if told == len(right) or change != right[told]:
                    self._accuse(record, f"was told {change}, and the next is "
                                 f"{right[told] if told < len(right) else 'none'}")
                told += 1
            self._check_complete(record, right, told, event.index)
        if record.applied is not None and record.events:
            self._check_complete(record, right, told, record.applied)
        if record.gone is not None:
            snapshot_index, held = record.gone
            missed = sum(change.index > record.told for change in self._changes)
            if record.told >= snapshot_index and missed <= held:
                self._accuse(record, f"WATCH_GONE after {record.told}, and there were only "
                             f"{missed} changes since")

    def _check_complete(self, record: WatchRecord, right: list[Change], told: int,
                        index: int) -> None:
        if told < len(right) and right[told].index <= index:
            self._accuse(record, f"all up to {index} is said to be told, and {right[told]} is "
                         "missing")

    def _check_state(self, record: WatchRecord, event: WatchEvent) -> None:
        """A watch from now on begins with what its key has."""
        name = record.asked.name
        right = []
        if record.asked.what == WatchWhat.KEY and name in self._items[event.index]:
            version, value = self._items[event.index][name]
            right = [Change(EventType.PUT, name, version, event.index, value)]
        if event.changes != right:
            self._accuse(record, f"begins with {event.changes} at {event.index}, the model has "
                         f"{right}")

    # --- queues

    def _check_sizes(self, record: WatchRecord) -> None:
        name, last = record.asked.name, None
        for event, _ in record.events:
            for change in event.changes:
                last = change.version, change.value
                if (change.type, change.name) != (EventType.SIZE, name) or (
                        self._sizes[change.index][name] != last):
                    self._accuse(record, f"size {change.version}, {decode_sizes(change.value)} at "
                                 f"{change.index}, the model has "
                                 f"{self._sizes[change.index][name]}")
            if self._sizes[event.index][name] != last:
                self._accuse(record, f"all up to {event.index} is said to be told, and the size is "
                             f"{self._sizes[event.index][name]}, not {last}")
        if record.applied is not None and record.events and (
                record.told < record.applied and self._sizes[record.applied][name] != last
                and len(set(s[name] for s in self._sizes[record.applied:])) == 1):
            self._accuse(record, f"the size at {record.applied} was never told")
