"""The client library: `Client` and `Queue`, blocking, exactly once.

Rules: one thread a client. Each call ends within `timeout_s` (plus the time it was asked to wait)
with a result, a RefusedError (surely not executed) or a NoAnswerError, which says whether the
outcome is known. What a retry may repeat is session.py's affair, where to send it link.py's.

A dequeue is at most once for a consumer that dies after it: the message is gone with it.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

from raftnet.client import operations
from raftnet.client.backup import Backups, HeldSnapshot
from raftnet.client.changes import Changed, Changes, Progress
from raftnet.client.connection import clock
from raftnet.client.link import Link, Read, ask_node
from raftnet.client.operations import Message, QueueSize
from raftnet.client.session import ClientSession, enqueue_encoder
from raftnet.errors import RaftnetError
from raftnet.raft.entry import Entry, decode_entries
from raftnet.wire import commands, requests
from raftnet.wire.commands import Status
from raftnet.wire.frames import Kind
from raftnet.wire.requests import MemberStatus, NodeStatus

TIMEOUT_S = 30.0
CLOSE_S = 1.0               # spent at most on telling the leader that the sessions are done
SESSION_IDLE_S = 300.0      # a session unused for longer is not used again: they expire after 600
WAIT_PIECE_S = 50.0         # longer waits are asked in pieces: a request may be resent for 60 s
QUEUES_PAGE = 1_000
LOG_PAGE = 10_000


class Client:
    """A client of one cluster. `servers`: addresses, any of its nodes. `timeout_s`: for each call.

    `redirect` False asks the first server only. `resume` (session, sequence) puts the first
    request under that session: asking again for an outcome that a NoAnswerError left unknown
    needs the same call with the same arguments, within minutes. A context manager.
    """

    def __init__(self, servers: list[str], timeout_s: float = TIMEOUT_S, redirect: bool = True,
                 resume: tuple[bytes, int] | None = None):
        if isinstance(servers, str):
            servers = servers.split(",")
        self.timeout_s = timeout_s
        self.servers = list(servers)
        self.known_members: list[str] = []      # addresses, as the leader named them last
        self._link = Link(servers if redirect else servers[:1], redirect)
        self._request_ids = itertools.count(1)
        self._idle: list[tuple[ClientSession, float]] = []  # and when it was last used, seconds
        self._streams: list[ClientSession] = []             # of enqueue_stream, under way
        if resume is not None:
            session = ClientSession(*resume, self._request_ids, resumed=True)
            self._idle.append((session, clock()))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the sessions where a connection is there, in bounded time, and the connection."""
        deadline = clock() + min(CLOSE_S, self.timeout_s)
        # best effort: a session that is not closed expires by itself
        with contextlib.suppress(RaftnetError):
            for session, used in self._idle:
                if session.acknowledged == 0 or clock() - used > SESSION_IDLE_S:
                    continue
                session.submit(commands.encode_close())
                while session.unanswered and self._link.connection is not None:
                    self._link.turn(session, deadline)
        self._idle.clear()
        self._link.close()

    # --- queues

    def queue(self, name: str = "default") -> "Queue":
        """The queue of that name (1 to 255 bytes); it exists while it holds messages."""
        return Queue(self, name)

    def queues(self) -> list[tuple[str, int]]:
        """(name, messages) of every queue that holds messages, in order of their names."""
        found: list[tuple[bytes, int]] = []
        after = b""
        while True:
            status, payload = self._read(commands.encode_queues(after, QUEUES_PAGE))
            page = commands.decode_queue_list(payload) if status == Status.OK else []
            found += page
            if len(page) < QUEUES_PAGE:
                return [(name.decode("utf-8", "surrogateescape"), size) for name, size in found]
            after = page[-1][0]

    def execute(self, operations_: list[dict]) -> list:
        """All of the operations (operations.py), atomically; a value for each: list of message
        ids, list of Message, or QueueSize. Raises MalformedError for a list that is none."""
        command, shapes = operations.encode_operations(operations_)
        _, payload = self._call(command)
        return operations.decode_outcomes(payload, shapes)

    # --- the cluster

    def log(self, from_index: int = 1, limit: int | None = None,
            local: str | None = None) -> Iterator[Entry]:
        """The committed entries from `from_index` on, or from the first that is still held, up to
        the commit index of the beginning. Of the leader; of that node alone with `local`."""
        end = None
        while limit is None or limit > 0:
            body = requests.encode_log(local is not None, from_index,
                                       LOG_PAGE if limit is None else min(limit, LOG_PAGE))
            if local is None:
                reply = self._ask(Kind.LOG, body, Kind.LOG_REPLY)
            else:
                reply = ask_node(local, Kind.LOG, body, Kind.LOG_REPLY, clock() + self.timeout_s)
            _, commit_index, next_index, count, offset = requests.decode_log_reply(reply)
            end = commit_index if end is None else end
            for entry in decode_entries(reply, offset, count):
                if entry.index > end:
                    return
                yield entry
            if next_index > end or next_index <= from_index:
                return
            from_index = next_index
            limit = None if limit is None else limit - count

    def status(self, address: str) -> NodeStatus:
        """What that node knows of itself and of the cluster; asked directly, leader or not."""
        reply = ask_node(address, Kind.STATUS, b"", Kind.STATUS_REPLY, clock() + self.timeout_s)
        return requests.decode_status(reply)

    def members(self) -> list[MemberStatus]:
        """All members as the leader sees them."""
        return self.leader_status().members

    def leader_status(self) -> NodeStatus:
        """The status of the node that leads."""
        status = requests.decode_status(
            self._ask(Kind.STATUS, b"", Kind.STATUS_REPLY, of_leader=True))
        self.known_members = [member.address for member in status.members]
        return status

    # Changes raise RefusedError (surely not done, with the reason and what to do) or NoAnswerError.
    # With `wait`, they return when all is done, however long that takes while something moves;
    # `progress` gets a text about once a second meanwhile.

    def add(self, address: str, learner: bool = False, wait: bool = True,
            progress: Progress = lambda text: None) -> Changed:
        """Have the node at that address taken in: a learner that catches up, then a voter by
        itself; with `learner`, a learner that stays one. It must run, and be empty."""
        return self._changes().add(address, learner, wait, progress)

    def remove(self, who: str) -> Changed:
        """Remove the member with that address, or node id as 16 hex digits."""
        return self._changes().remove(who)

    def transfer(self, address: str) -> Changed:
        """Hand the leadership over to the voter at that address."""
        return self._changes().transfer(address)

    def set_members(self, addresses: list[str], wait: bool = True,
                    progress: Progress = lambda text: None) -> Changed:
        """Make exactly these the members, all of them voters. The leader, whichever, works toward
        it by single changes; nodes that are no members yet must run, and be empty."""
        return self._changes().set(addresses, wait, progress)

    def _changes(self) -> Changes:
        return Changes(self._run, self._request_ids, self.timeout_s)

    # --- snapshots

    def snapshot(self, address: str | None = None,
                 progress: Progress = lambda text: None) -> HeldSnapshot:
        """Have the leader make a snapshot that holds everything acknowledged before the call; with
        `address`, that node, of what it has applied. It may take long: `timeout_s` counts while the
        node gives no sign of life. Raises RefusedError or NoAnswerError."""
        return self._backups().snapshot(address, progress)

    def backup(self, path: str, local: str | None = None, force: bool = False,
               progress: Progress = lambda text: None) -> HeldSnapshot:
        """As snapshot() (`local`: of that node), and read it into the file `path`, which then is
        whole and synced; an existing one is replaced only with `force`. `timeout_s` counts from the
        last byte. `progress` gets a text every 2 s. Raises StorageError (DiskFullError) for what
        the disk here does, and RefusedError or NoAnswerError; then there is no file."""
        return self._backups().backup(path, local, force, progress)

    def _backups(self) -> Backups:
        return Backups(self._link, self._request_ids, self.timeout_s)

    # --- one request

    def _call(self, command: bytes, wait_s: float = 0.0) -> tuple[int, bytes]:
        """(status, payload) of one command; an enqueue's payload is its first id always."""
        session = self._take_session()
        session.submit(command)
        self._run(session, clock() + wait_s + self.timeout_s)
        (reply,) = session.take_answers()
        self._idle.append((session, clock()))
        if reply.first_message_id is not None:
            return Status.OK, commands.encode_enqueue_result(reply.first_message_id)
        status, payload = reply.results[0]
        operations.check_status(status, payload)
        return status, payload

    def _read(self, command: bytes) -> tuple[int, bytes]:
        """(status, payload) of a reading command, linearizable."""
        reply = self._ask(Kind.READ, requests.encode_read(False, command), Kind.READ_REPLY)
        _, status, payload = requests.decode_read_reply(reply)
        operations.check_status(status, payload)
        return status, payload

    def _ask(self, kind: int, body: bytes, reply_kind: int, of_leader: bool = False) -> bytes:
        read = Read(kind, body, reply_kind, next(self._request_ids) & 0xFFFFFFFF, of_leader)
        self._run(read, clock() + self.timeout_s)
        return read.answer

    def _run(self, exchange, deadline: float) -> None:
        for stream in self._streams:        # a frame is given to one exchange only, so end these
            if stream is not exchange:
                self._link.finish(stream, deadline)
        self._link.finish(exchange, deadline)

    def _take_session(self) -> ClientSession:
        """A session with nothing unanswered; whoever fails with it does not give it back."""
        while self._idle:
            session, used = self._idle.pop()
            if clock() - used < SESSION_IDLE_S:
                return session
        return ClientSession(request_ids=self._request_ids)


class Queue:
    """A named queue of messages (bytes, at most 1 MiB each; str is sent as UTF-8)."""

    def __init__(self, client: Client, name: str):
        self.name = name
        self._client = client
        self._name = operations.queue_name(name)

    def enqueue(self, message: str | bytes) -> int:
        """Append one message; returns its id. When it returns, a quorum has it on disk."""
        return self.enqueue_batch([message])[0]

    def enqueue_batch(self, messages: list[str | bytes]) -> list[int]:
        """Append all of the messages or none, next to each other; returns their ids."""
        data = [operations.message_data(message) for message in messages]
        if not data:
            return []
        command = commands.encode_enqueue(self._name, data)
        operations.check_request_bytes(len(command))
        _, payload = self._client._call(command)
        return list(operations.read_ids(payload, len(data)))

    def enqueue_many(self, messages: Iterable[str | bytes]) -> list[int]:
        """Append the messages of any iterable, each by itself, pipelined; returns their ids."""
        return list(self.enqueue_stream(messages))

    def enqueue_stream(self, messages: Iterable[str | bytes | None]) -> Iterator[int]:
        """Append the messages as the ids are taken from this generator, pipelined; yields an id
        for each, in order. A None among them says: send what waits, and yield all ids up to here.

        Between two answers at most `timeout_s` pass.
        """
        client = self._client
        link = client._link
        session = client._take_session()
        encode = enqueue_encoder(self._name)
        client._streams.append(session)
        try:
            for message in messages:
                if message is None:
                    yield from self._drain(session)
                    continue
                session.submit(encode(operations.message_data(message)))
                if session.full:
                    self._settle_others(session)
                    deadline = clock() + client.timeout_s
                    link.turn(session, deadline, block=False)
                    while session.full:         # no room for more: wait for answers
                        link.turn(session, deadline)
                    for reply in session.take_answers():
                        yield from _reply_ids(reply)
            yield from self._drain(session)
        finally:
            client._streams.remove(session)
        client._idle.append((session, clock()))

    def _drain(self, session: ClientSession) -> Iterator[int]:
        self._settle_others(session)
        while True:
            answers = session.take_answers()
            for reply in answers:
                yield from _reply_ids(reply)
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
        end = clock() + wait_s
        left = float(wait_s)
        while True:
            piece = min(max(left, 0.0), WAIT_PIECE_S)
            command = commands.encode_dequeue(self._name, count, round(piece * 1000))
            status, payload = self._client._call(command, piece)
            left = end - clock()
            # cancelled: the connection broke, nothing was taken; empty: a piece of the wait is over
            if status == Status.OK or left <= 0 or wait_s <= 0:
                return operations.read_messages(status, payload)

    def peek(self, count: int = 1) -> list[Message]:
        """The first messages, left where they are; what is read is no older than the call."""
        operations.check_count(count)
        return operations.read_messages(
            *self._client._read(commands.encode_peek(self._name, count)))

    def size(self) -> QueueSize:
        """How many messages wait, and their bytes."""
        status, payload = self._client._read(commands.encode_size(self._name))
        if status == Status.EMPTY:
            return QueueSize(0, 0)
        return QueueSize(*commands.decode_size_result(payload))


def _reply_ids(reply: requests.Reply) -> Iterable[int]:
    """The ids of a frame of single enqueues."""
    if reply.first_message_id is not None:
        return range(reply.first_message_id, reply.first_message_id + reply.count)
    ids: list[int] = []
    for status, payload in reply.results:
        operations.check_status(status, payload)
        ids += operations.read_ids(payload, 1)
    return ids
