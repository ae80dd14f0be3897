"""The commands: what each does to the queues, and whom it serves.

Rules: total, no command raises for any bytes; each ends with (status, payload). A command is
decoded and checked first and performed then. An EXECUTE is performed with a journal and undone from
it when its results do not fit the reply; only after it succeeded are waiters served.

One request's results have `room` bytes: each message counts its bytes and MESSAGE_OVERHEAD_BYTES,
any other result its bytes. What an undone EXECUTE used stays used, because the room bounds the work
of a request too. Not counted are five bytes a result and eight an ENQUEUE: a request cannot ask for
more of those than it has bytes itself.

Elsewhere: whose request it is and whether it may run (machine.py), kept replies (sessions.py).
"""

from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.machine.queue import MESSAGE_OVERHEAD_BYTES, Queue, Queues
from raftnet.machine.waits import Wait, Waits
from raftnet.wire import commands
from raftnet.wire.commands import Operation, Status

# Plain numbers: looking a member up in an enum class costs more than a command may.
_ENQUEUE, _DEQUEUE, _EXECUTE = (
    int(Operation.ENQUEUE), int(Operation.DEQUEUE), int(Operation.EXECUTE))
_PEEK, _SIZE, _QUEUES = int(Operation.PEEK), int(Operation.SIZE), int(Operation.QUEUES)
OK, EMPTY, MALFORMED, UNKNOWN, LIMIT, REPLY_FULL, CANCELLED = map(int, Status)
_COUNT_TEXT = b"count: 1 to dequeue_count_max"

Result = tuple[int, bytes]


class Executor:
    """The queues, the waits at them, and the request that is being performed."""

    def __init__(self, machine_config: MachineConfig, wire_config: WireConfig):
        self.queues = Queues()
        self.waits = Waits()
        self.next_message_id = 1        # one counter for all queues
        # Waits that were ended and not yet fetched by the machine, in order.
        self.ended: list[tuple[Wait, int, bytes]] = []
        self._config = machine_config
        self._message_bytes_max = wire_config.message_bytes_max
        self._result_bytes_max = wire_config.result_bytes_max
        self._room = 0                  # bytes that this request's results may still have
        self._listings = 0              # QUEUES that this request may still ask
        self._journal: list | None = None       # what to undo; None: not inside an EXECUTE
        # The last DEQUEUE of one message, and its queue: consumers send the same bytes for ever.
        self._single: tuple[bytes | None, bytes] = (None, b"")

    def begin_request(self) -> None:
        """The commands to come share one reply."""
        self._room = self._result_bytes_max
        self._listings = self._config.listings_per_request_max

    def enqueue_runs(self, runs: list[tuple[bytes, list[bytes]]]) -> int | None:
        """Perform the ENQUEUEs of commands.decode_enqueues; the id of the first message.

        None, and nothing was done, where somebody waits at one of the queues: waiters are served
        after each command, not after a run.
        """
        by_name = self.queues.by_name
        for name, _ in runs:
            queue = by_name.get(name)
            if queue is not None and queue.waiters is not None:
                return None
        first_id = self.next_message_id
        next_id = first_id
        for name, messages in runs:
            self.queues.make(name).append(next_id, messages)
            next_id += len(messages)
        self.next_message_id = next_id
        return first_id

    def enqueue_single(self, name: bytes, message: bytes) -> int | None:
        """`enqueue_runs` of one message."""
        queue = self.queues.by_name.get(name)
        if queue is None:
            queue = self.queues.make(name)
        elif queue.waiters is not None:
            return None
        message_id = self.next_message_id
        self.next_message_id = message_id + 1
        queue.ids.append(message_id)
        queue.messages.append(message)
        queue.size_bytes += len(message)
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
            return self._execute(command)
        status, action = self._prepare(command, operation)
        if status != OK:
            return self._text(status, action)
        function, name, argument = action
        if operation == _DEQUEUE and argument == 1:
            self._single = (command, name)
        return function(name, argument)

    def begin_wait(self, command: bytes, session: bytes, sequence: int,
                   now_ms: int) -> Result | None:
        """A DEQUEUE alone in its request: as `perform`, but None where it waits from now on."""
        if command == self._single[0]:
            return self._dequeue_one(self._single[1])
        try:
            name, count, wait_ms = commands.decode_dequeue(command)
        except MalformedError:
            return MALFORMED, b""
        if not wait_ms:
            return self.perform(command)
        if not 1 <= count <= self._config.dequeue_count_max:
            return self._text(LIMIT, _COUNT_TEXT)
        if wait_ms > self._config.wait_ms_max:
            return self._text(LIMIT, b"wait_ms_max")
        queue = self.queues.by_name.get(name)
        if queue is not None and queue.messages:
            return self._dequeue(name, count)
        if len(self.waits.pending) >= self._config.waiters_max:
            return self._text(LIMIT, b"waiters_max")
        wait = self.waits.begin(session, sequence, now_ms + wait_ms, name, count)
        self.queues.make(name).add_waiter(wait)
        return None

    def end_wait(self, wait: Wait, status: int) -> None:
        """Answer a wait without messages."""
        queue = self.queues.by_name[wait.queue]
        queue.remove_waiter(wait)
        self.waits.end(wait)
        self.queues.settle(wait.queue)
        self.ended.append((wait, status, b""))

    # --- decode and check

    def _prepare(self, command: bytes, operation: int) -> tuple[int, tuple | bytes]:
        """(OK, (function, name, argument)), or (status, text) where it cannot be performed."""
        try:
            if operation == _ENQUEUE:
                name, messages = commands.decode_enqueue(command)
                if max(map(len, messages)) > self._message_bytes_max:
                    return LIMIT, b"message_bytes_max"
                return OK, (self._enqueue, name, messages)
            if operation == _DEQUEUE:
                name, count, wait_ms = commands.decode_dequeue(command)
                if wait_ms:
                    return LIMIT, b"a wait is alone in its request and has a session"
                return self._counted(self._dequeue, name, count)
            if operation == _PEEK:
                return self._counted(self._peek, *commands.decode_peek(command))
            if operation == _SIZE:
                return OK, (self._size, commands.decode_size(command), None)
            if operation == _QUEUES:
                after, limit = commands.decode_queues(command)
                if not limit:
                    return LIMIT, b"limit: at least 1"
                return OK, (self._list, after, limit)
        except MalformedError:
            return MALFORMED, b""
        return UNKNOWN, b""

    def _counted(self, function, name: bytes, count: int) -> tuple[int, tuple | bytes]:
        if not 1 <= count <= self._config.dequeue_count_max:
            return LIMIT, _COUNT_TEXT
        return OK, (function, name, count)

    def _text(self, status: int, text: bytes) -> Result:
        """A refusal; its text only while there is room for it."""
        if len(text) > self._room:
            text = b""
        self._room -= len(text)
        return status, text

    # --- perform

    def _enqueue(self, name: bytes, messages: list[bytes]) -> Result:
        first_id = self.next_message_id
        self.next_message_id += len(messages)
        queue = self.queues.make(name)
        queue.append(first_id, messages)
        if self._journal is not None:
            self._journal.append((_ENQUEUE, name, len(messages)))
        elif queue.waiters is not None:
            self._serve(name, queue)
        return OK, commands.encode_enqueue_result(first_id)

    def _dequeue_one(self, name: bytes) -> Result:
        """`_dequeue` of one message outside of an EXECUTE, in a straight line."""
        queue = self.queues.by_name.get(name)
        if queue is None or not queue.messages:
            return EMPTY, b""
        size = len(queue.messages[0])
        if size + MESSAGE_OVERHEAD_BYTES > self._room:
            return REPLY_FULL, b""
        self._room -= size + MESSAGE_OVERHEAD_BYTES
        queue.size_bytes -= size
        payload = commands.encode_one_message(queue.ids.popleft(), queue.messages.popleft())
        if not queue.messages:
            self.queues.settle(name)
        return OK, payload

    def _dequeue(self, name: bytes, count: int) -> Result:
        queue = self.queues.by_name.get(name)
        if queue is None or not queue.messages:
            return EMPTY, b""
        taken, self._room = queue.take(count, self._room)
        if not taken:
            return REPLY_FULL, b""
        if self._journal is not None:
            self._journal.append((_DEQUEUE, name, taken))
        elif not queue.messages:
            self.queues.settle(name)
        return OK, commands.encode_messages(taken)

    def _peek(self, name: bytes, count: int) -> Result:
        queue = self.queues.by_name.get(name)
        if queue is None or not queue.messages:
            return EMPTY, b""
        found, self._room = queue.head(count, self._room)
        return (OK, commands.encode_messages(found)) if found else (REPLY_FULL, b"")

    def _size(self, name: bytes, _: None) -> Result:
        if self._room < 16:
            return REPLY_FULL, b""
        self._room -= 16
        queue = self.queues.by_name.get(name)
        if queue is None:
            return OK, commands.encode_size_result(0, 0)
        return OK, commands.encode_size_result(len(queue.messages), queue.size_bytes)

    def _list(self, after: bytes, limit: int) -> Result:
        if not self._listings:
            return REPLY_FULL, b""
        self._listings -= 1
        found, cut = self.queues.listing(after, limit, self._room - 4)
        if self._room < 4 or (cut and not found):
            return REPLY_FULL, b""
        payload = commands.encode_queue_list(found)
        self._room -= len(payload)
        return OK, payload

    def _serve(self, name: bytes, queue: Queue) -> None:
        """Give the messages to those who wait, in order of asking, each up to its count."""
        while queue.messages and queue.waiters is not None:
            wait = queue.first_waiter()
            queue.remove_waiter(wait)
            self.waits.end(wait)
            taken, _ = queue.take(wait.count, self._result_bytes_max)
            result = (OK, commands.encode_messages(taken)) if taken else (REPLY_FULL, b"")
            self.ended.append((wait, *result))
        if not queue.messages:
            self.queues.settle(name)

    # --- atomic lists

    def _execute(self, command: bytes) -> Result:
        try:
            operations = commands.decode_execute(command)
        except MalformedError:
            return MALFORMED, b""
        if len(operations) > self._config.execute_operations_max:
            return self._text(LIMIT, b"execute_operations_max")
        actions = []
        for operation in operations:
            status, action = self._prepare(operation, operation[0] if operation else 0)
            if status != OK:
                return self._text(status, action)
            actions.append(action)
        first_id = self.next_message_id
        self._journal = []
        if self._room < 4:
            results = None
        else:
            self._room -= 4
            results = self._perform_all(actions)
        journal, self._journal = self._journal, None
        if results is None:
            self._undo(journal)
            self.next_message_id = first_id
            self._settle_all(journal)
            return REPLY_FULL, b""
        self._settle_all(journal)
        return OK, commands.encode_execute_result(results)

    def _perform_all(self, actions: list[tuple]) -> list[Result] | None:
        """The results; None as soon as one does not fit."""
        results = []
        for function, name, argument in actions:
            result = function(name, argument)
            if result[0] == REPLY_FULL:
                return None
            results.append(result)
        return results

    def _undo(self, journal: list[tuple]) -> None:
        """Take back what the journal says, the last first."""
        for operation, name, what in reversed(journal):
            queue = self.queues.by_name[name]
            if operation == _ENQUEUE:
                queue.drop_newest(what)
            else:
                queue.put_back(what)

    def _settle_all(self, journal: list[tuple]) -> None:
        """Serve the waiters of the queues that were touched, in the order in which they were, and
        let the empty ones vanish."""
        for name in dict.fromkeys(name for _, name, _ in journal):
            queue = self.queues.by_name[name]
            if queue.waiters is not None and queue.messages:
                self._serve(name, queue)
            else:
                self.queues.settle(name)
