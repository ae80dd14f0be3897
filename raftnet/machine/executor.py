"""The commands: what each does to the queues, and whom it serves.

Rules: total, no command raises for any bytes; each ends with (status, payload). A command is
decoded and checked first and performed then. An atomic list is performed with a journal and undone
from it where it fails (transactions.py); only after it succeeded are waiters served.

One request's results have `room` bytes: each message counts its bytes and MESSAGE_OVERHEAD_BYTES,
any other result its bytes. What an undone list used stays used, because the room bounds the work
of a request too. Not counted are five bytes a result and eight an ENQUEUE: a request cannot ask for
more of those than it has bytes itself.

The straight lines (enqueue_runs, enqueue_single, dequeue_single) are for ordinary queues
(queue.py), and all that they know of the rest is that flag.

The modules of the other operations (queueoperations.py, inspection.py, kvoperations.py) are given
this object and use what is public here; each has `handlers`, by operation: decode and check a
command, and give (OK, (function, name, argument)) for `function(name, argument)` to perform it, or
(status, text). A function notes each queue that it changes with `touched`, and where `journal` is
not None, appends for each change the (function, *arguments) that take it back.

Elsewhere: whose request it is and whether it may run (machine.py), kept replies (sessions.py).
"""

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine import transactions
from raftnet.machine.inspection import Inspection
from raftnet.machine.intake import Intake
from raftnet.machine.kv import KeyValue
from raftnet.machine.kvoperations import KvOperations
from raftnet.machine.leases import Leases
from raftnet.machine.lifecycle import Lifecycle
from raftnet.machine.message import later
from raftnet.machine.queue import MESSAGE_OVERHEAD_BYTES, Item, Queue
from raftnet.machine.queueoperations import QueueOperations
from raftnet.machine.queues import Queues
from raftnet.machine.waits import Wait, Waits
from raftnet.wire import commands, queuecommands
from raftnet.wire.commands import Operation, Status

# Plain numbers: looking a member up in an enum class costs more than a command may.
_ENQUEUE, _DEQUEUE, _EXECUTE, _LEASE, _TRANSACT = (
    int(Operation.ENQUEUE), int(Operation.DEQUEUE), int(Operation.EXECUTE), int(Operation.LEASE),
    int(Operation.TRANSACT))
_PEEK, _SIZE, _QUEUES = int(Operation.PEEK), int(Operation.SIZE), int(Operation.QUEUES)
OK, EMPTY, MALFORMED, UNKNOWN, LIMIT, REPLY_FULL, CANCELLED = map(int, list(Status)[:7])
_COUNT_TEXT = b"count: 1 to dequeue_count_max"

Result = tuple[int, bytes]


class Executor:
    """The queues, the waits at them, the keys, and the request that is being performed."""

    def __init__(self, machine_config: MachineConfig, wire_config: WireConfig):
        self.config = machine_config
        self.message_bytes_max = wire_config.message_bytes_max
        self.result_bytes_max = wire_config.result_bytes_max
        self.queues = Queues()
        self.waits = Waits()
        self.leases = Leases()
        self.kv = KeyValue()
        self.next_message_id = 1        # one counter for all queues; places are taken from it too
        self.configured = 0             # queues that have settings
        self.dedup_count = 0            # deduplication ids of all queues
        # Waits that were ended and not yet fetched by the machine, in order.
        self.ended: list[tuple[Wait, int, bytes]] = []
        # Queues touched since this node's watches last looked; None: it has none. Not replicated.
        self.queue_watch: set[bytes] | None = None
        self.now_ms = 0                 # replicated time of the entry that is applied
        self.index = 0                  # and its index
        self.room = 0                   # bytes that this request's results may still have
        self.listings = 0               # QUEUES that this request may still ask
        self.moves = 0                  # what it may still move or pass over without returning it
        self.journal: list[tuple] | None = None     # what to undo; None: not inside a list
        self._touched: dict[bytes, None] = {}       # queues, in the order of the first time
        # The last DEQUEUE of one message, and its queue: consumers send the same bytes for ever.
        self._single: tuple[bytes | None, bytes] = (None, b"")
        self.lifecycle = Lifecycle(self)
        self._intake = Intake(self, self.lifecycle)
        self._operations = (QueueOperations(self, self.lifecycle, self._intake), Inspection(self),
                            KvOperations(self))
        self._handlers = {_ENQUEUE: self._prepare_enqueue, _DEQUEUE: self._prepare_dequeue,
                          _PEEK: self._prepare_peek, _SIZE: self._prepare_size,
                          _QUEUES: self._prepare_queues}
        for operations in self._operations:
            self._handlers.update(operations.handlers)

    def release(self) -> None:
        """Of no use any more: let go of the modules of operations, which hold on to this object, so
        that it is freed without the collector."""
        for operations in self._operations:
            operations.handlers.clear()
        self._operations = ()
        self._handlers = {}
        self.lifecycle = self._intake = None

    def begin_request(self) -> None:
        """The commands to come share one reply."""
        self.room = self.result_bytes_max
        self.listings = self.config.listings_per_request_max
        self.moves = self.config.purge_count_max

    def enqueue_runs(self, runs: list[tuple[bytes, list[bytes]]]) -> int | None:
        """Perform the ENQUEUEs of commands.decode_enqueues; the id of the first message.

        None, and nothing was done, where one of the queues is not ordinary: waiters are served
        after each command, not after a run.
        """
        by_name = self.queues.by_name
        for name, _ in runs:
            queue = by_name.get(name)
            if queue is not None and not queue.ordinary:
                return None
        first_id = self.next_message_id
        next_id = first_id
        for name, messages in runs:
            self.queues.make(name).append(next_id, messages)
            next_id += len(messages)
        self.next_message_id = next_id
        if self.queue_watch is not None:
            self.queue_watch.update([name for name, _ in runs])
        return first_id

    def enqueue_single(self, name: bytes, message: bytes) -> int | None:
        """`enqueue_runs` of one message."""
        queue = self.queues.by_name.get(name)
        if queue is None:
            queue = self.queues.make(name)
        elif not queue.ordinary:
            return None
        message_id = self.next_message_id
        self.next_message_id = message_id + 1
        queue.ids.append(message_id)
        queue.messages.append(message)
        queue.size_bytes += len(message)
        if self.queue_watch is not None:
            self.queue_watch.add(name)
        return message_id

    def dequeue_single(self, command: bytes) -> Result | None:
        """A request that is the same DEQUEUE of one message as the last one, and it alone; None:
        another command."""
        if command != self._single[0]:
            return None
        self.begin_request()
        return self._dequeue_one(self._single[1])

    def perform(self, command: bytes) -> Result:
        """One command on the queues, without a wait."""
        if command == self._single[0]:
            return self._dequeue_one(self._single[1])
        operation = command[0] if command else 0
        if operation == _EXECUTE:
            result = transactions.execute(self, command)
        elif operation == _TRANSACT:
            result = transactions.transact(self, command)
        else:
            handler = self._handlers.get(operation)
            if handler is None:
                return UNKNOWN, b""
            try:
                status, action = handler(command)
            except MalformedError:
                return MALFORMED, b""
            if status != OK:
                return self.text(status, action)
            function, name, argument = action
            if operation == _DEQUEUE and argument == 1:
                self._single = (command, name)
            result = function(name, argument)
        if self._touched:
            self.settle_touched()
        return result

    def begin_wait(self, command: bytes, session: bytes, sequence: int,
                   now_ms: int) -> Result | None:
        """A DEQUEUE or LEASE alone in its request: as `perform`, but None where it waits from now
        on."""
        if command == self._single[0]:
            return self._dequeue_one(self._single[1])
        lease_ms, consumer = 0, b""
        try:
            if command[0] == _LEASE:
                name, count, wait_ms, lease_ms, consumer = queuecommands.decode_lease(command)
            else:
                name, count, wait_ms = commands.decode_dequeue(command)
        except MalformedError:
            return MALFORMED, b""
        if not wait_ms:
            return self.perform(command)
        if command[0] == _LEASE:
            over = self._operations[0].checked_lease(count, wait_ms, lease_ms)
            if over is not None:
                return self.text(LIMIT, over)
        elif not 1 <= count <= self.config.dequeue_count_max:
            return self.text(LIMIT, _COUNT_TEXT)
        elif wait_ms > self.config.wait_ms_max:
            return self.text(LIMIT, b"wait_ms_max")
        queue = self.queues.by_name.get(name)
        if queue is not None and queue.ready():
            result, self.room = self._fetch(name, queue, count, self.room, lease_ms, consumer)
            self.settle_touched()
            return result
        if len(self.waits.pending) >= self.config.waiters_max:
            return self.text(LIMIT, b"waiters_max")
        wait = self.waits.begin(session, sequence, later(now_ms, wait_ms), name, count, lease_ms,
                                consumer)
        self.queues.make(name).add_waiter(wait)
        return None

    def end_wait(self, wait: Wait, status: int) -> None:
        """Answer a wait without messages."""
        queue = self.queues.by_name[wait.queue]
        queue.remove_waiter(wait)
        self.waits.end(wait)
        self.queues.settle(wait.queue)
        self.ended.append((wait, status, b""))

    # --- what the modules of operations use

    def touched(self, name: bytes) -> None:
        """The queue changed: its waiters may have to be served, or it may have to vanish."""
        self._touched[name] = None

    def append(self, name: bytes, queue: Queue, messages: list[bytes]) -> None:
        """Add plain messages of priority 0, which take the next ids."""
        first_id = self.next_message_id
        self.next_message_id = first_id + len(messages)
        queue.append(first_id, messages)
        if self.journal is not None:
            self.journal.append((queue.undo_append, len(messages)))
        self._touched[name] = None

    def settle_touched(self) -> None:
        """After a command or an atomic list: serve the waiters of the queues that were touched, in
        the order in which they were, and let the empty ones vanish."""
        assert self.journal is None
        touched, self._touched = self._touched, {}
        if self.queue_watch is not None:
            self.queue_watch.update(touched)
        for name in touched:
            queue = self.queues.by_name.get(name)
            if queue is None or queue.messages and queue.plain():
                continue
            if queue.waiters is not None and queue.ready():
                self._serve(name, queue)
            self.queues.settle(name)

    def text(self, status: int, text: bytes) -> Result:
        """A refusal; its text only while there is room for it."""
        if len(text) > self.room:
            text = b""
        self.room -= len(text)
        return status, text

    def no_room(self) -> Result:
        """The end of a list that found no room for its first item: it looked for that, so that the
        room is used up."""
        self.room = 0
        return REPLY_FULL, b""

    # --- decode and check

    def prepare_all(self, operations: list[bytes]) -> tuple[int, list[tuple] | bytes]:
        """(OK, [(function, name, argument)]), or (status, text) of the first that cannot be
        performed in a list."""
        actions = []
        for operation in operations:
            status, action = self._prepare(operation)
            if status != OK:
                return status, action
            actions.append(action)
        return OK, actions

    def _prepare(self, command: bytes) -> tuple[int, tuple | bytes]:
        """(OK, (function, name, argument)), or (status, text) where it cannot be performed."""
        handler = self._handlers.get(command[0]) if command else None
        if handler is None:
            return UNKNOWN, b""
        try:
            return handler(command)
        except MalformedError:
            return MALFORMED, b""

    def _prepare_enqueue(self, command: bytes) -> tuple[int, tuple | bytes]:
        name, messages = commands.decode_enqueue(command)
        if max(map(len, messages)) > self.message_bytes_max:
            return LIMIT, b"message_bytes_max"
        return OK, (self._enqueue, name, messages)

    def _prepare_dequeue(self, command: bytes) -> tuple[int, tuple | bytes]:
        name, count, wait_ms = commands.decode_dequeue(command)
        if wait_ms:
            return LIMIT, b"a wait is alone in its request and has a session"
        return self._counted(self._dequeue, name, count)

    def _prepare_peek(self, command: bytes) -> tuple[int, tuple | bytes]:
        return self._counted(self._peek, *commands.decode_peek(command))

    def _prepare_size(self, command: bytes) -> tuple[int, tuple | bytes]:
        return OK, (self._size, commands.decode_size(command), None)

    def _prepare_queues(self, command: bytes) -> tuple[int, tuple | bytes]:
        after, limit = commands.decode_queues(command)
        if not limit:
            return LIMIT, b"limit: at least 1"
        return OK, (self._list, after, limit)

    def _counted(self, function, name: bytes, count: int) -> tuple[int, tuple | bytes]:
        if not 1 <= count <= self.config.dequeue_count_max:
            return LIMIT, _COUNT_TEXT
        return OK, (function, name, count)

    # --- perform

    def _enqueue(self, name: bytes, messages: list[bytes]) -> Result:
        queue = self.queues.make(name)
        if queue.settings is not None and queue.settings.bind_enqueues:
            return self._intake.enqueue(name, queue, messages)
        first_id = self.next_message_id
        if queue.ordinary and self.journal is None:
            self.next_message_id = first_id + len(messages)
            queue.append(first_id, messages)
            if self.queue_watch is not None:
                self.queue_watch.add(name)
        else:
            self.append(name, queue, messages)
        return OK, commands.encode_enqueue_result(first_id)

    def _dequeue_one(self, name: bytes) -> Result:
        """`_dequeue` of one message outside of a list, in a straight line."""
        queue = self.queues.by_name.get(name)
        if queue is None:
            return EMPTY, b""
        if not queue.ordinary:
            result = self._dequeue(name, 1)
            self.settle_touched()
            return result
        if not queue.messages:
            return EMPTY, b""
        size = len(queue.messages[0])
        if size + MESSAGE_OVERHEAD_BYTES > self.room:
            return REPLY_FULL, b""
        self.room -= size + MESSAGE_OVERHEAD_BYTES
        queue.size_bytes -= size
        payload = commands.encode_one_message(queue.ids.popleft(), queue.messages.popleft())
        if self.queue_watch is not None:
            self.queue_watch.add(name)
        if not queue.messages:
            self.queues.settle(name)
        return OK, payload

    def _dequeue(self, name: bytes, count: int) -> Result:
        queue = self.queues.by_name.get(name)
        if queue is None or not queue.ready():
            return EMPTY, b""
        if self.journal is not None or not queue.ordinary:
            result, self.room = self._fetch(name, queue, count, self.room, 0, b"")
            return result
        taken, self.room = queue.take(count, self.room)
        if not taken:
            return REPLY_FULL, b""
        if self.queue_watch is not None:
            self.queue_watch.add(name)
        if not queue.messages:
            self.queues.settle(name)
        return OK, commands.encode_messages(taken)

    def _fetch(self, name: bytes, queue: Queue, count: int, room: int, lease_ms: int,
               consumer: bytes) -> tuple[Result, int]:
        """Take messages for ever or, with `lease_ms`, so long; the result, and the room left. At
        least one is ready."""
        if lease_ms:
            return self.lifecycle.lease(name, queue, count, room, lease_ms, consumer)
        if queue.special is None and queue.levels is None:      # all are plain, of priority 0
            taken, room = queue.take(count, room)
            undo, found = (queue.undo_take, taken), taken
        else:
            taken, room = queue.take_mixed(count, room)
            undo, found = (queue.put_back, taken), _plain(taken)
        if not taken:
            return (REPLY_FULL, b""), room
        if self.journal is not None:
            self.journal.append(undo)
        self._touched[name] = None
        return (OK, commands.encode_messages(found)), room

    def _peek(self, name: bytes, count: int) -> Result:
        queue = self.queues.by_name.get(name)
        if queue is None or not queue.ready():
            return EMPTY, b""
        if queue.ordinary:
            found, self.room = queue.head(count, self.room)
        else:
            items, self.room = queue.head_mixed(count, self.room)
            found = _plain(items)
        return (OK, commands.encode_messages(found)) if found else (REPLY_FULL, b"")

    def _size(self, name: bytes, _: None) -> Result:
        if self.room < 16:
            return REPLY_FULL, b""
        self.room -= 16
        queue = self.queues.by_name.get(name)
        if queue is None:
            return OK, commands.encode_size_result(0, 0)
        return OK, commands.encode_size_result(queue.ready(), queue.size_bytes)

    def _list(self, after: bytes, limit: int) -> Result:
        if not self.listings:
            return REPLY_FULL, b""
        self.listings -= 1
        found, cut, passed = self.queues.listing(after, limit, self.room - 4, self.moves)
        self.moves -= passed
        if self.room < 4 or (cut and not found):
            return self.no_room()
        payload = commands.encode_queue_list(found)
        self.room -= len(payload)
        return OK, payload

    def _serve(self, name: bytes, queue: Queue) -> None:
        """Give the messages to those who wait, in order of asking, each up to its count."""
        while queue.waiters is not None and queue.ready():
            wait = queue.first_waiter()
            queue.remove_waiter(wait)
            self.waits.end(wait)
            result, _ = self._fetch(name, queue, wait.count, self.result_bytes_max, wait.lease_ms,
                                    wait.consumer)
            self.ended.append((wait, *result))
        self._touched.pop(name, None)       # by what was fetched; the caller settles it


def _plain(items: list[Item]) -> list[tuple[int, bytes]]:
    """[(id, bytes)] of messages of all kinds."""
    return [(place, what) if type(what) is bytes else (what.id, what.body)
            for place, what, _ in items]
