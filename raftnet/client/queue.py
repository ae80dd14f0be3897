"""One queue of a cluster, as a client uses it: plain, with leases, and as a whole.

Rules: those of client.py. A dequeue takes a message for good; a lease takes it for a time, within
which it must be acknowledged (Client.ack) or it is delivered again.
"""

from collections.abc import Callable, Iterable, Iterator

from raftnet.client import operations
from raftnet.client.connection import clock
from raftnet.client.operations import Message, QueueSize, milliseconds
from raftnet.client.receipts import LeasedMessage, default_consumer, leased_message
from raftnet.client.session import ClientSession, enqueue_encoder
from raftnet.client.transactions import Enqueued, check_dedup_ids, check_priority
from raftnet.config import MachineConfig
from raftnet.errors import MalformedError, NoAnswerError, RefusedError
from raftnet.wire import commands, queuecommands, queueresults, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.queuecommands import Setting
from raftnet.wire.queueresults import Description, Inspected, LeaseUnderWay

LENGTH_BYTES = 4            # of a command, before its operation
_LOOKED_AT_PER_MOVED = 10   # by a REDRIVE (protocol.md), and no more than purge_count_max
_PLAIN_ID_BYTES = 8         # of an ENQUEUE's result; an ENQUEUE_WITH's is longer
_LIMITS = MachineConfig()
WAIT_PIECE_S = _LIMITS.wait_ms_max / 1000   # longer waits are asked in pieces, each at the end
_TIMES = (Setting.TTL_MS, Setting.DEDUP_WINDOW_MS, Setting.BACKOFF_MS, Setting.BACKOFF_MAX_MS)


class Queue:
    """A named queue of messages (bytes, at most 1 MiB each; str is sent as UTF-8)."""

    def __init__(self, client, name: str):
        self.name = name
        self._client = client
        self._name = operations.queue_name(name)

    def enqueue(self, message: str | bytes, priority: int = 0, delay_s: float = 0.0,
                ttl_s: float = 0.0, dedup: str | bytes | None = None) -> int:
        """Append one message; returns its id. When it returns, a quorum has it on disk.

        `priority` 0 to 7: higher ones are delivered first. It is there for consumers after
        `delay_s`, and vanishes (to the dead letters where some are configured) `ttl_s` after that;
        0: after what the queue's setting says.
        With `dedup`, an id of yours: the same id within the queue's window adds nothing, and
        gives the id of the earlier message.
        """
        return self.enqueue_batch([message], priority, delay_s, ttl_s,
                                  None if dedup is None else [dedup])[0]

    def enqueue_batch(self, messages: list[str | bytes], priority: int = 0, delay_s: float = 0.0,
                      ttl_s: float = 0.0, dedup: list[str | bytes] | None = None) -> list[int]:
        """Append all of the messages or none, next to each other; returns their ids. `dedup` has
        an id for each message, "" for none; the result's `duplicates` then are the places of those
        that were there before. Raises StateRefusedError where the queue is full."""
        messages = list(messages)
        if not messages:
            return []
        command = self.enqueue_command(messages, priority, delay_s, ttl_s, dedup)
        plain = command[LENGTH_BYTES] == Operation.ENQUEUE

        def read(_: int, payload: bytes) -> list[int]:
            if plain:
                return list(operations.read_ids(payload, len(messages)))
            found = Enqueued(queueresults.decode_enqueue_with_result(payload))
            if len(found) != len(messages):
                raise MalformedError(f"{len(found)} ids for {len(messages)} messages")
            return found

        return self._client._call(command, read)

    def enqueue_command(self, messages: list[str | bytes], priority: int = 0, delay_s: float = 0.0,
                        ttl_s: float = 0.0, dedup: list[str | bytes] | None = None) -> bytes:
        """What enqueue_batch sends, without its session; raises as that does."""
        data = [operations.message_data(message) for message in messages]
        encode = self._encoder(priority, delay_s, ttl_s)
        ids = check_dedup_ids(dedup, len(data))
        if encode is None and ids is None:
            command = commands.encode_enqueue(self._name, data)
        else:
            command = queuecommands.encode_enqueue_with(
                self._name, data, priority, milliseconds(delay_s, "delay"),
                milliseconds(ttl_s, "ttl"), ids)
        operations.check_request_bytes(len(command))
        return command

    def _encoder(self, priority: int, delay_s: float,
                 ttl_s: float) -> Callable[[bytes], bytes] | None:
        """What encodes an ENQUEUE_WITH of one message; None where a plain ENQUEUE does it."""
        check_priority(priority)
        delay_ms, ttl_ms = milliseconds(delay_s, "delay"), milliseconds(ttl_s, "ttl")
        if not priority and not delay_ms and not ttl_ms:
            return None
        return lambda message: queuecommands.encode_enqueue_with(
            self._name, [message], priority, delay_ms, ttl_ms)

    def enqueue_many(self, messages: Iterable[str | bytes]) -> list[int]:
        """Append the messages of any iterable, each by itself, pipelined; returns their ids."""
        return list(self.enqueue_stream(messages))

    def enqueue_stream(self, messages: Iterable[str | bytes | None], priority: int = 0,
                       delay_s: float = 0.0, ttl_s: float = 0.0,
                       refusals: bool = False) -> Iterator[int | RefusedError]:
        """Append the messages as the ids are taken from this generator, pipelined; yields an id
        for each, in order. A None among them says: send what waits, and yield all ids up to here.

        Each message is appended or refused by itself: with `refusals`, a RefusedError comes in the
        place of the id; without, the first is raised, and messages behind it that were sent with it
        may be in the queue. Between two answers at most `timeout_s` pass.
        """
        client = self._client
        link = client._link
        session = client._take_session()
        encode = self._encoder(priority, delay_s, ttl_s) or enqueue_encoder(self._name)
        client._streams.append(session)
        try:
            for message in messages:
                if message is None:
                    yield from self._drain(session, refusals)
                    continue
                session.submit(encode(operations.message_data(message)))
                if session.full:
                    self._settle_others(session)
                    deadline = clock() + client.timeout_s
                    link.turn(session, deadline, block=False)
                    while session.full:         # no room for more: wait for answers
                        link.turn(session, deadline)
                    for reply in session.take_answers():
                        yield from _reply_ids(reply, refusals)
            yield from self._drain(session, refusals)
        finally:
            client._streams.remove(session)
        client._idle.append((session, clock()))

    def _drain(self, session: ClientSession, refusals: bool) -> Iterator[int | RefusedError]:
        self._settle_others(session)
        while True:
            answers = session.take_answers()
            for reply in answers:
                yield from _reply_ids(reply, refusals)
            if answers:
                continue            # while we yielded, another call may have brought the rest
            if not session.unanswered:
                return
            before, deadline = session.acknowledged, clock() + self._client.timeout_s
            while session.unanswered and session.acknowledged == before:
                self._client._link.turn(session, deadline)

    def _settle_others(self, session: ClientSession) -> None:
        for stream in self._client._streams:
            if stream is not session:
                self._client._link.finish(stream, clock() + self._client.timeout_s)

    def dequeue(self, wait_s: float = 0.0) -> Message | None:
        """Take the first message; None where none came within `wait_s` seconds."""
        messages = self.dequeue_many(1, wait_s)
        return messages[0] if messages else None

    def dequeue_many(self, count: int, wait_s: float = 0.0) -> list[Message]:
        """Take up to `count` messages from the head, at once; [] where there are none, or none
        came within `wait_s` seconds."""
        operations.check_count(count)

        def encode(wait_ms: int) -> bytes:
            return commands.encode_dequeue(self._name, count, wait_ms)

        return self._take(encode, encode(0), operations.read_messages, count, wait_s)

    def lease(self, lease_s: float, count: int = 1, wait_s: float = 0.0,
              consumer: str | None = None) -> list[LeasedMessage]:
        """Take up to `count` messages for `lease_s` seconds; [] where none came within `wait_s`.

        What is not acknowledged (Client.ack) until then is delivered again, at its old place.
        `consumer`: a name that others are shown (default: host:pid).
        """
        operations.check_count(count)
        lease_ms = milliseconds(lease_s, "lease")
        given = operations.short_text("" if consumer is None else consumer, "consumer")
        name = default_consumer().encode() if consumer is None else given

        def encode(wait_ms: int, name: bytes = name) -> bytes:
            return queuecommands.encode_lease(self._name, lease_ms, count, wait_ms, name)

        def read(status: int, payload: bytes) -> list[LeasedMessage]:
            if status != Status.OK:
                return []
            return [leased_message(leased) for leased in queueresults.decode_lease_result(payload)]

        # another process that resumes it has another name by default
        return self._take(encode, encode(0, given), read, count, wait_s)

    def _take(self, encode: Callable[[int], bytes], marked: bytes,
              read: Callable[[int, bytes], list], count: int, wait_s: float) -> list:
        """Up to `count` messages by what `encode` makes of a wait in milliseconds. One request for
        the whole wait keeps the place among those who wait."""
        def read_some(status: int, payload: bytes) -> list:
            found = read(status, payload)
            if len(found) > count:
                raise MalformedError(f"{len(found)} messages, and {count} were asked for")
            return found

        end = clock() + wait_s
        left = float(wait_s)
        while True:
            piece = min(max(left, 0.0), WAIT_PIECE_S)
            found = self._client._call(encode(round(piece * 1000)), read_some, piece, marked)
            left = end - clock()
            # none: the connection broke for too long, or a piece of the wait is over
            if found or left <= 0 or wait_s <= 0:
                return found

    # --- looking at it; with `local`, as that node alone knows it, however old that is; there the
    # replicated time stands still while nothing is written

    def peek(self, count: int = 1, local: str | None = None) -> list[Message]:
        """The first messages, left where they are; what is read is no older than the call."""
        operations.check_count(count)
        return operations.read_messages(
            *self._client._read(commands.encode_peek(self._name, count), local))

    def size(self, local: str | None = None) -> QueueSize:
        """How many messages are ready, and their bytes."""
        status, payload = self._client._read(commands.encode_size(self._name), local)
        if status == Status.EMPTY:
            return QueueSize(0, 0)
        return QueueSize(*commands.decode_size_result(payload))

    def describe(self, local: str | None = None) -> Description:
        """How much is ready, delayed, leased, and all settings."""
        _, payload = self._client._read(queuecommands.encode_describe(self._name), local)
        return queueresults.decode_describe_result(payload)

    def leases(self, limit: int = _LIMITS.shown_count_max,
               local: str | None = None) -> tuple[int, list[LeaseUnderWay]]:
        """(replicated time now in ms, the oldest deliveries under way)."""
        command = queuecommands.encode_leases(self._name, operations.check_count(limit))
        status, payload = self._look_now(command, local)
        return queueresults.decode_leases_result(payload) if status == Status.OK else (0, [])

    def inspect(self, limit: int = 10, local: str | None = None) -> tuple[int, list[Inspected]]:
        """(replicated time now in ms, the first messages with what is known of them)."""
        command = queuecommands.encode_inspect(self._name, operations.check_count(limit))
        status, payload = self._look_now(command, local)
        return queueresults.decode_inspect_result(payload) if status == Status.OK else (0, [])

    def _look_now(self, command: bytes, local: str | None) -> tuple[int, bytes]:
        """(status, payload) of a command whose result tells the time: as an entry of its own, for
        a READ has only that of the last one."""
        if local is not None:
            return self._client._read(command, local)
        try:
            return self._client._call(command, lambda status, payload: (status, payload))
        except NoAnswerError as error:      # whatever became of it, it changed nothing
            self._client.forget_token()
            raise NoAnswerError(f"{error}; it only looks: ask again", True) from error

    # --- the queue as a whole

    def configure(self, **settings: int | float | str) -> None:
        """Change the settings that are given, by the names of wire/queuecommands.py, Setting, in
        lower case: dead_letter="failed", delivery_limit=5, messages_max=1000, overflow=1; times in
        seconds, as ttl_s, dedup_window_s, backoff_s, backoff_max_s."""
        values = dict(setting_value(name, value) for name, value in settings.items())
        if not values:
            raise MalformedError("configure needs at least one setting")
        self._client._call(queuecommands.encode_configure(self._name, values), _read_nothing)

    def delete(self) -> bool:
        """Forget the empty queue's settings; False where there was no such queue. Raises
        StateRefusedError where it holds messages, or somebody waits."""
        return self._client._call(queuecommands.encode_delete_queue(self._name),
                                  _read_nothing) == Status.OK

    def purge(self) -> int:
        """Remove all messages that nobody holds under a lease; returns how many."""
        return self._in_pieces(lambda limit: queuecommands.encode_purge(self._name, limit),
                               _LIMITS.purge_count_max, None)

    def redrive(self, to: str = "", limit: int | None = None) -> "Moved":
        """Send this queue's dead letters, the first `limit` of them, to the queue `to`, or each
        back to where it came from; returns how many. What is no dead letter moves with `to` alone,
        and so many of such in front may hide those behind: see Moved."""
        target = operations.queue_name(to) if to else b""
        return self._in_pieces(lambda limit: queuecommands.encode_redrive(self._name, target,
                                                                          limit),
                               _LIMITS.redrive_count_max, limit)

    def _in_pieces(self, encode: Callable[[int], bytes], piece: int, limit: int | None) -> "Moved":
        """What a command that has a limit does, up to `limit` or as many as there were first. Only
        its first request can be resumed: those behind it depend on what came before."""
        done = left = in_vain = 0
        while limit is None or done < limit:
            rest = piece if limit is None else min(piece, limit - done)
            try:
                moved, left = self._client._call(encode(rest), _read_moved)
            except NoAnswerError as error:
                if not done:
                    raise
                raise NoAnswerError(f"{done} messages are done with; of those behind them: {error}",
                                    error.known) from error
            if done:
                self._client.forget_token()
            if not done:            # what comes meanwhile must not keep us here for ever
                limit = moved + left if limit is None else min(limit, moved + left)
            done += moved
            if not moved:
                in_vain = min(left, rest * _LOOKED_AT_PER_MOVED, _LIMITS.purge_count_max)
                break
        return Moved(done, left, in_vain)


class Moved(int):
    """How many messages were moved or removed. `left`: how many are in the queue now; `in_vain`: so
    many of them, the first, were looked at and stay, and no more were looked at."""

    def __new__(cls, moved: int, left: int = 0, in_vain: int = 0):
        made = super().__new__(cls, moved)
        made.left, made.in_vain = left, in_vain
        return made


def setting_value(name: str, value: int | float | str) -> tuple[int, int | bytes]:
    """(setting, value) of a name and a value as Queue.configure takes them; raises
    MalformedError."""
    for setting in Setting:
        is_time = setting in _TIMES
        if name != (f"{setting.name[:-2]}S" if is_time else setting.name).lower():
            continue
        if setting == Setting.DEAD_LETTER:
            return setting, operations.queue_name(value) if value else b""
        if is_time:
            return setting, milliseconds(value, name)
        if not isinstance(value, int) or isinstance(value, bool) \
                or not 0 <= value <= operations.U64_MAX:
            raise MalformedError(f"{name}: a whole number is needed, not {value!r}")
        return setting, value
    raise MalformedError(f"{name!r} is no setting")


def _read_nothing(status: int, payload: bytes) -> int:
    if payload:
        raise MalformedError("a result where none was expected")
    return status


def _read_moved(status: int, payload: bytes) -> tuple[int, int]:
    return queueresults.decode_moved_result(payload) if status == Status.OK else (0, 0)


def _reply_ids(reply: requests.Reply, refusals: bool) -> Iterable[int | RefusedError]:
    """The ids of a frame of single enqueues, with a RefusedError in the place of each that was
    refused, or raised at the first."""
    if reply.first_message_id is not None:
        return range(reply.first_message_id, reply.first_message_id + reply.count)
    return _result_ids(reply.results, refusals)


def _result_ids(results: list[tuple[int, bytes]],
                refusals: bool) -> Iterator[int | RefusedError]:
    for status, payload in results:
        try:
            operations.check_status(status, payload)
        except RefusedError as error:
            if not refusals:
                raise
            yield error
            continue
        if len(payload) == _PLAIN_ID_BYTES:
            yield from operations.read_ids(payload, 1)
        else:
            yield from Enqueued(queueresults.decode_enqueue_with_result(payload))
