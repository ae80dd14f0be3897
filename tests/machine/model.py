"""What the queues and keys must do, in the simplest way: one list of messages, looked through for
every question, and a copy of everything before each atomic list.

It shares the layouts with the program (wire/) and nothing of its structures or orders.
"""

import copy

from raftnet.config import MachineConfig
from raftnet.wire import commands, kvcommands, queuecommands, queueresults, transactions
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import ConditionKind
from raftnet.wire.queueresults import Event, Outcome, Reason
from tests.machine.looking import Looking

DEFAULTS = [b"", 20, 0, 0, 0, 0, 300_000, 1_000, 600_000]
(DEAD, LIMIT_, TTL, MOST, MOST_BYTES, OVERFLOW, WINDOW, BACKOFF, BACKOFF_MAX) = range(9)
UNDOING = {Status.MALFORMED, Status.UNKNOWN, Status.LIMIT, Status.REPLY_FULL, Status.STALE,
           Status.FULL, Status.CONFLICT, Status.IN_USE}


class Record:
    """A message, wherever it is."""

    def __init__(self, queue, place, number, body, priority=0, deliveries=0, expires=0, origin=b"",
                 history=()):
        self.queue, self.place, self.id, self.body = queue, place, number, body
        self.priority, self.deliveries, self.expires = priority, deliveries, expires
        self.origin, self.history = origin, history
        self.where = "ready"        # or "delayed", "leased", "gone"
        self.due = 0                # of a delayed one
        self.lease = None           # of a leased one: delivery, deadline, taken, consumer

    def plain(self) -> tuple:
        return (self.place, self.id, self.body, self.priority, self.deliveries, self.expires,
                self.origin, self.history)


def default_dead(queue: bytes) -> bytes:
    return b"" if queue.endswith(b".dead") or len(queue) > 250 else queue + b".dead"


class Model(Looking):
    """Performs commands given as ("operation", arguments of its encoder...)."""

    def __init__(self, config: MachineConfig, message_bytes_max: int, result_bytes_max: int):
        self.config = config
        self.message_bytes_max, self.result_bytes_max = message_bytes_max, result_bytes_max
        self.messages, self.settings, self.dedup, self.keys = [], {}, {}, {}
        self.waits = []             # (session, deadline, queue, count, lease_ms, consumer)
        self.next_id = self.next_delivery = 1
        self.now = self.index = self.version = self.room = self.moves = 0
        self.in_list = False
        self.touched = []
        self.completed = []         # (session, status, payload)

    # --- looking

    def of(self, queue: bytes, where: str) -> list[Record]:
        found = [m for m in self.messages if m.queue == queue and m.where == where]
        if where == "ready":
            return sorted(found, key=lambda m: (-m.priority, m.place))
        if where == "delayed":
            return sorted(found, key=lambda m: (m.due, m.place))
        return sorted(found, key=lambda m: m.lease[0])

    def setting(self, queue: bytes) -> list:
        if queue in self.settings:
            return self.settings[queue]
        return [b"", 20 if default_dead(queue) else 0, *DEFAULTS[2:]]

    def dead_of(self, queue: bytes) -> bytes:
        return self.setting(queue)[DEAD] or default_dead(queue)

    def key(self, name: bytes):
        item = self.keys.get(name)
        return None if item is None or item[2] and item[2] <= self.now else item

    def names(self) -> set[bytes]:
        return ({m.queue for m in self.messages} | set(self.settings)
                | {queue for queue, _ in self.dedup} | {wait[2] for wait in self.waits})

    def state(self) -> tuple:
        """As driver.contents_of tells of a machine."""
        queues = []
        for name in sorted(self.names()):
            ready, out = self.of(name, "ready"), self.of(name, "leased")
            late = self.of(name, "delayed")
            settings = self.settings.get(name)
            queues.append((
                name, [m.plain() for m in ready], [(m.due, m.plain()) for m in late],
                [(m.lease, m.plain()) for m in out],
                None if settings is None else tuple(settings),
                sorted((key, *value) for (queue, key), value in self.dedup.items()
                       if queue == name),
                [wait[0] for wait in self.waits if wait[2] == name],
                sum(len(m.body) for m in ready), sum(len(m.body) for m in out + late)))
        return (queues, sorted((name, *item) for name, item in self.keys.items()), self.version,
                self.next_id, self.next_delivery, len(self.settings), len(self.dedup))

    def deadline(self) -> int | None:
        times = [wait[1] for wait in self.waits]
        for m in self.messages:
            if m.where == "leased":
                times.append(m.lease[1])
            elif m.where == "delayed":
                times.append(m.due)
            elif m.expires:
                times.append(m.expires)
        times += [expires for _, expires in self.dedup.values()]
        times += [item[2] for item in self.keys.values() if item[2]]
        return min(times, default=None)

    # --- moving

    def gone(self, message: Record) -> None:
        message.where = "gone"
        self.messages.remove(message)

    def place(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def bury(self, to: bytes, message: Record, origin: bytes, event: Event) -> None:
        self.touched.append(to)
        if message in self.messages:
            self.messages.remove(message)
        ttl = self.setting(to)[TTL]
        self.messages.append(Record(
            to, self.place(), message.id, message.body, message.priority, 0,
            self.now + ttl if ttl else 0, origin,
            (message.history + (event,))[-self.config.history_max:]))

    def event(self, reason: int, message: Record, text: bytes = b"") -> Event:
        return Event(0, self.now, self.index, message.deliveries, reason, b"", text)

    def time_out(self, message: Record) -> None:
        self.gone(message)
        dead = self.setting(message.queue)[DEAD]
        if dead and [event.reason for event in message.history[-1:]] != [Reason.TTL_EXPIRED]:
            self.bury(dead, message, message.origin or message.queue,
                      self.event(Reason.TTL_EXPIRED, message))

    def give_back(self, message: Record, ended: int, reason: int, text: bytes, delay) -> bool:
        self.touched.append(message.queue)
        settings = self.setting(message.queue)
        _, _, taken, consumer = message.lease
        event = Event(taken, ended, self.index, message.deliveries, reason, consumer, text)
        dead = self.dead_of(message.queue)
        if dead and settings[LIMIT_] and message.deliveries >= settings[LIMIT_]:
            self.bury(dead, message, message.origin or message.queue, event)
            return True
        message.lease = None
        message.history = (message.history + (event,))[-self.config.history_max:]
        if delay is None:
            delay = min(settings[BACKOFF] * 2 ** (message.deliveries - 1), settings[BACKOFF_MAX])
        message.where = "ready"
        if message.expires and message.expires <= self.now:
            self.time_out(message)
        elif delay:
            message.where, message.due = "delayed", self.now + delay
            if message.expires:
                message.due = min(message.due, message.expires)
        return False

    def fetch(self, queue: bytes, count: int, room: int, lease_ms: int, consumer: bytes):
        """((status, payload), room left); at least one is ready."""
        self.touched.append(queue)
        if lease_ms:
            leased = sum(m.where == "leased" for m in self.messages)
            count = min(count, self.config.leases_max - leased)
            if count <= 0:
                return (Status.LIMIT, b"leases_max"), room
        taken = []
        for message in self.of(queue, "ready")[:count]:
            size = len(message.body) + (24 if lease_ms else 12)
            if size > room:
                break
            room -= size
            taken.append(message)
        if not taken:
            return (Status.REPLY_FULL, b""), room
        if not lease_ms:
            for message in taken:
                self.gone(message)
            return (Status.OK, commands.encode_messages([(m.id, m.body) for m in taken])), room
        rows = []
        for message in taken:
            message.where = "leased"
            message.deliveries += 1
            message.lease = (self.next_delivery, self.now + lease_ms, self.now, consumer)
            self.next_delivery += 1
            rows.append((message.id, message.lease[0], message.deliveries, message.body))
        return (Status.OK, queueresults.encode_lease_result(rows)), room

    def settle(self) -> None:
        """Serve those who wait."""
        for queue in dict.fromkeys(self.touched):
            for wait in [wait for wait in self.waits if wait[2] == queue]:
                if not self.of(queue, "ready"):
                    break
                self.waits.remove(wait)
                result, _ = self.fetch(queue, wait[3], self.result_bytes_max, *wait[4:])
                self.completed.append((wait[0], *result))
        self.touched = []

    def pass_time(self, now: int) -> None:
        """What is due at the beginning of an entry."""
        self.now = now
        most = self.config.expiries_per_entry_max

        def due(found, when):
            return [one for one in sorted(found, key=when) if when(one)[0] <= now][:most]
        numbered = list(enumerate(self.waits))
        for _, wait in due(numbered, lambda pair: (pair[1][1], pair[0])):
            self.waits.remove(wait)
            self.completed.append((wait[0], Status.EMPTY, b""))
        out = [m for m in self.messages if m.where == "leased"]
        for m in due(out, lambda m: (m.lease[1], m.lease[0])):
            self.give_back(m, m.lease[1], Reason.LEASE_EXPIRED, b"", 0)
        late = [m for m in self.messages if m.where == "delayed"]
        for m in due(late, lambda m: (m.due, m.place)):
            self.touched.append(m.queue)
            m.where = "ready"
            if m.expires and m.expires <= now:
                self.time_out(m)
            else:
                m.place = self.place()
        mortal = [m for m in self.messages if m.where == "ready" and m.expires]
        for m in due(mortal, lambda m: (m.expires, m.place)):
            self.touched.append(m.queue)
            self.time_out(m)
        for key, _ in due(self.dedup.items(), lambda pair: (pair[1][1], pair[1][0])):
            del self.dedup[key]
        aging = [pair for pair in self.keys.items() if pair[1][2]]
        for key, _ in due(aging, lambda pair: (pair[1][2], pair[1][1])):
            del self.keys[key]
            self.version += 1
        self.settle()

    # --- commands

    def request(self, command: tuple) -> tuple[int, bytes]:
        """One command alone in its request."""
        self.room, self.moves = self.result_bytes_max, self.config.purge_count_max
        over = self.over(command)
        result = self.text(Status.LIMIT, over) if over else getattr(self, command[0])(*command[1:])
        self.settle()
        return result

    def wait(self, session: bytes, command: tuple) -> tuple[int, bytes] | None:
        """The same for a dequeue or lease that may wait."""
        kind, queue, *rest = command
        lease_ms, count, wait_ms, consumer = (
            (0, *rest, b"") if kind == "dequeue" else (rest[0], rest[1], rest[2], rest[3]))
        if self.of(queue, "ready"):
            result, _ = self.fetch(queue, count, self.result_bytes_max, lease_ms, consumer)
            self.settle()
            return result
        self.waits.append((session, self.now + wait_ms, queue, count, lease_ms, consumer))
        return None

    def over(self, command: tuple) -> bytes:
        """The limit that is seen before anything is performed."""
        kind = command[0]
        if kind == "enqueue_with" and command[3] > 7:
            return b"priorities"
        if kind.startswith("enqueue") and max(map(len, command[2])) > self.message_bytes_max:
            return b"message_bytes_max"
        if kind == "lease" and not command[2]:
            return b"lease_ms: 1 to lease_ms_max"
        if kind == "configure" and command[2].get(1) == command[1]:
            return b"a queue is not its own dead-letter queue"
        return b""

    def text(self, status: int, text: bytes) -> tuple[int, bytes]:
        text = text if len(text) <= self.room else b""
        self.room -= len(text)
        return status, text

    def enqueue(self, queue, messages):
        result = self.take_in(queue, messages, 0, 0, 0, [b""] * len(messages))
        if isinstance(result, bytes):
            return self.refused(result)
        return Status.OK, commands.encode_enqueue_result(result[0][0])

    def enqueue_with(self, queue, messages, priority, delay, ttl, ids):
        size = 4 + 9 * len(messages)
        if size > self.room:
            return Status.REPLY_FULL, b""
        self.room -= size
        result = self.take_in(queue, messages, priority, delay, ttl, ids)
        if isinstance(result, bytes):
            return self.refused(result)
        return Status.OK, queueresults.encode_enqueue_with_result(*result)

    def refused(self, text):
        if text == b"no moves":
            return Status.REPLY_FULL, b""
        return Status.LIMIT if text == b"dedup_ids_max" else Status.FULL, text

    def take_in(self, queue, messages, priority, delay, ttl, ids):
        """(ids, duplicates), or what there is no room for."""
        self.touched.append(queue)
        settings = self.setting(queue)
        known, new = {}, []
        for body, key in zip(messages, ids):
            if key and settings[WINDOW]:
                held = self.dedup.get((queue, key))
                if key in known or held and held[1] > self.now:
                    continue
                known[key] = None
            new.append(body)
        if len(self.dedup) + len(known) > self.config.dedup_ids_max:
            return b"dedup_ids_max"
        refusal = self.make_room(queue, new)
        if refusal:
            return refusal
        found, duplicates = [], []
        for body, key in zip(messages, ids):
            held = self.dedup.get((queue, key)) if key and settings[WINDOW] else None
            if held and held[1] > self.now:
                found.append(held[0])
                duplicates.append(1)
                continue
            message = Record(queue, self.next_id, self.next_id, body, priority)
            self.place()
            life = ttl or settings[TTL]
            message.expires = self.now + delay + life if life else 0
            if delay:
                message.where, message.due = "delayed", self.now + delay
            self.messages.append(message)
            found.append(message.id)
            duplicates.append(0)
            if key and settings[WINDOW]:
                self.dedup[queue, key] = (message.id, self.now + settings[WINDOW])
        return found, duplicates

    def make_room(self, queue, new) -> bytes:
        settings = self.setting(queue)
        size = sum(map(len, new))

        def over():
            held = [m for m in self.messages if m.queue == queue]
            if settings[MOST] and len(held) + len(new) > settings[MOST]:
                return b"messages_max"
            if settings[MOST_BYTES] and (sum(len(m.body) for m in held) + size
                                         > settings[MOST_BYTES]):
                return b"bytes_max"
            return b""
        text = over() if new else b""
        if not text:
            return b""
        dead = self.dead_of(queue)
        away = self.of(queue, "delayed") + self.of(queue, "leased")
        if (not settings[OVERFLOW] or not dead
                or settings[MOST] and len(away) + len(new) > settings[MOST]
                or settings[MOST_BYTES] and sum(len(m.body) for m in away) + size
                > settings[MOST_BYTES]):
            return text
        own = len(new) + size // self.config.overflow_extra_bytes
        for done in range(own + self.config.overflow_extra_max):
            if not self.moves and (self.in_list or done >= own):
                return b"no moves" if done < own else b""
            self.moves = max(0, self.moves - 1)
            oldest = min(self.of(queue, "ready"), key=lambda m: m.place)
            self.bury(dead, oldest, oldest.origin or queue, self.event(Reason.OVERFLOW, oldest))
            if not over():
                break
        return b""

    def dequeue(self, queue, count):
        return self.lease(queue, 0, count, 0, b"")

    def lease(self, queue, lease_ms, count, _, consumer):
        if not self.of(queue, "ready"):
            return Status.EMPTY, b""
        if not lease_ms:
            result, self.room = self.fetch(queue, count, self.room, 0, b"")
            return result
        if not self.moves:
            return Status.REPLY_FULL, b""
        before = self.next_delivery
        result, self.room = self.fetch(queue, min(count, self.moves), self.room, lease_ms, consumer)
        self.moves -= self.next_delivery - before
        return result

    def receipts(self, receipts, what):
        outcomes = []
        for number, delivery in receipts:
            held = [m for m in self.messages if m.where == "leased" and m.id == number
                    and m.lease[0] == delivery and m.lease[1] > self.now]
            outcomes.append(what(held[0]) if held else Outcome.STALE)
        stale = self.in_list and Outcome.STALE in outcomes
        return (Status.STALE if stale else Status.OK,
                queueresults.encode_outcomes_result(outcomes))

    def ack(self, receipts):
        def finish(message):
            self.touched.append(message.queue)
            self.gone(message)
            return Outcome.DONE
        return self.receipts(receipts, finish)

    def nack(self, receipts, delay, reason):
        return self.receipts(receipts, lambda message: (
            Outcome.DEAD_LETTERED if self.give_back(message, self.now, Reason.NACKED, reason, delay)
            else Outcome.DONE))

    def extend(self, receipts, lease_ms):
        def longer(message):
            delivery, _, taken, consumer = message.lease
            message.lease = (delivery, self.now + lease_ms, taken, consumer)
            return Outcome.DONE
        return self.receipts(receipts, longer)

    def configure(self, queue, changes):
        if queue not in self.settings and len(self.settings) >= self.config.settings_max:
            return self.text(Status.LIMIT, b"settings_max")
        self.settings[queue] = list(self.setting(queue))
        for setting, value in changes.items():
            self.settings[queue][setting - 1] = value
        return Status.OK, b""

    def delete_queue(self, queue):
        if queue not in self.names():
            return Status.EMPTY, b""
        if any(wait[2] == queue for wait in self.waits):
            return self.text(Status.IN_USE, b"somebody waits at the queue")
        if any(m.queue == queue for m in self.messages):
            return self.text(Status.IN_USE, b"messages are ready, delayed or leased")
        self.settings.pop(queue, None)
        self.dedup = {key: value for key, value in self.dedup.items() if key[0] != queue}
        return Status.OK, b""

    def purge(self, queue, limit):
        if self.room < 16 or not self.moves:
            return Status.REPLY_FULL, b""
        self.room -= 16
        ready = sorted(self.of(queue, "ready"), key=lambda m: m.place)
        all_of_them = ready + self.of(queue, "delayed")
        removed = all_of_them[:min(limit, self.moves)]
        for message in removed:
            self.gone(message)
        self.moves -= len(removed)
        self.touched.append(queue)
        return Status.OK, queueresults.encode_purge_result(
            len(removed), len(all_of_them) - len(removed))

    def redrive(self, queue, to, limit):
        if self.room < 16 or not self.moves:
            return Status.REPLY_FULL, b""
        self.room -= 16
        moved = []
        for message in self.of(queue, "ready")[:min(10 * limit, self.moves)]:
            if len(moved) == limit:
                break
            self.moves -= 1
            destination = to or message.origin
            if destination and destination != queue:
                moved.append((destination, message))
        for destination, message in moved:
            self.bury(destination, message, b"", self.event(Reason.REDRIVEN, message))
        return Status.OK, queueresults.encode_redrive_result(
            len(moved), len(self.of(queue, "ready")))

    # --- keys

    def holds(self, condition, item) -> bool:
        kind, value = condition
        if kind == ConditionKind.ABSENT:
            return item is None
        if kind == ConditionKind.NONE:
            return True
        return item is not None and (kind == ConditionKind.PRESENT
                                     or kind == ConditionKind.EQUALS and item[0] == value
                                     or kind == ConditionKind.VERSION and item[1] == value)

    def conflict(self, item):
        value = item[0] if item and len(item[0]) <= self.room else b""
        self.room -= len(value)
        return Status.CONFLICT, kvcommands.encode_kv_conflict(item[1] if item else 0, value)

    def kv_get(self, key):
        item = self.key(key)
        if item is None:
            return Status.EMPTY, b""
        if 16 + len(item[0]) > self.room:
            return Status.REPLY_FULL, b""
        self.room -= 16 + len(item[0])
        return Status.OK, kvcommands.encode_kv_get_result(item[1], item[2], item[0])

    def kv_put(self, key, value, ttl, condition):
        item = self.key(key)
        if not self.holds(condition, item):
            return self.conflict(item)
        self.version += 1 + (item is None and key in self.keys)
        self.keys[key] = (value, self.version, self.now + ttl if ttl else 0)
        return Status.OK, kvcommands.encode_version_result(self.version)

    def kv_delete(self, key, condition):
        item = self.key(key)
        if not self.holds(condition, item):
            return self.conflict(item)
        if item is None:
            return Status.EMPTY, b""
        del self.keys[key]
        self.version += 1
        return Status.OK, kvcommands.encode_version_result(self.version)

    # --- lists

    def execute(self, operations):
        return self.transact([], operations)

    def transact(self, conditions, operations):
        for operation in operations:
            over = self.over(operation)
            if over:
                return self.text(Status.LIMIT, over)
        if self.room < 4:
            return Status.REPLY_FULL, b""
        self.room -= 4
        for position, condition in enumerate(conditions):
            if not self.fulfilled(condition):
                return Status.CONFLICT, transactions.encode_conflict_result(position)
        before = copy.deepcopy({**self.__dict__, "config": None})
        results = []
        self.in_list = True
        for position, operation in enumerate(operations):
            status, payload = getattr(self, operation[0])(*operation[1:])
            if status in UNDOING:
                del before["config"], before["room"], before["moves"]
                self.__dict__.update(before)
                if status in (Status.LIMIT, Status.REPLY_FULL):
                    return status, payload
                return Status.ABORTED, transactions.encode_aborted_result(
                    position, status, payload)
            results.append((status, payload))
        self.in_list = False
        return Status.OK, commands.encode_execute_result(results)

    def fulfilled(self, condition) -> bool:
        if isinstance(condition, transactions.KeyCondition):
            return self.holds(condition.condition, self.key(condition.key))
        if isinstance(condition, transactions.QueueCondition):
            return condition.at_least <= len(self.of(condition.queue, "ready")) <= condition.at_most
        return any(m.where == "leased" and m.id == condition.id and m.lease[0] == condition.delivery
                   and m.lease[1] > self.now for m in self.messages)


def encode(command: tuple) -> bytes:
    """The same command as bytes, with its length."""
    kind, *rest = command
    if kind in ("execute", "transact"):
        pieces = [encode(operation) for operation in rest[-1]]
        return (commands.encode_execute(pieces) if kind == "execute"
                else transactions.encode_transact(rest[0], pieces))
    for module in (commands, queuecommands, kvcommands):
        encoder = getattr(module, f"encode_{kind}", None)
        if encoder is not None:
            return encoder(*rest)
    raise AssertionError(kind)
