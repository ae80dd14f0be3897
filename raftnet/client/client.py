"""The client library: `Client`, blocking, exactly once; its queues are in queue.py.

Rules: one thread a client. Each call ends within `timeout_s` (plus the time it was asked to wait)
with a result, a RefusedError (surely not executed) or a NoAnswerError, which says whether the
outcome is known. What a retry may repeat is session.py's affair, where to send it link.py's.

A dequeue is at most once for a consumer that dies after it: the message is gone with it. A lease
gives it back.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from raftnet.client import operations, receipts
from raftnet.client.backup import Backups, HeldSnapshot
from raftnet.client.changes import Changed, Changes, Progress
from raftnet.client.connection import clock
from raftnet.client.link import Link, Read, ask_node
from raftnet.client.queue import LENGTH_BYTES, Queue
from raftnet.client.receipts import Receipt
from raftnet.client.session import ClientSession, request_checksum
from raftnet.client.transactions import decode_outcomes, encode_list
from raftnet.errors import MalformedError, RaftnetError, RefusedError
from raftnet.raft.entry import Entry, decode_entries
from raftnet.wire import commands, kvcommands, queuecommands, queueresults, requests
from raftnet.wire.commands import Operation, Status
from raftnet.wire.frames import Kind
from raftnet.wire.kvcommands import NO_CONDITION, Condition, KvItem
from raftnet.wire.queueresults import Outcome
from raftnet.wire.requests import MemberStatus, NodeStatus, Reply

TIMEOUT_S = 30.0
CLOSE_S = 1.0               # spent at most on telling the leader that the sessions are done
SESSION_IDLE_S = 300.0      # a session unused for longer is not used again: they expire after 600
QUEUES_PAGE = 1_000
KEYS_PAGE = 1_000
LOG_PAGE = 10_000


class Client:
    """A client of one cluster. `servers`: addresses, any of its nodes. `timeout_s`: for each call.

    `redirect` False asks the first server only. `resume` (session, sequence) puts the first
    request under that session: asking again for an outcome that a NoAnswerError left unknown
    needs the same call with the same arguments, within minutes. Another one raises MalformedError,
    and leaves the kept reply alone, wherever the reply's form tells it; with a third number, the
    checksum that `resume_token` ends with, always, and before anything is sent. A context manager.
    """

    def __init__(self, servers: list[str], timeout_s: float = TIMEOUT_S, redirect: bool = True,
                 resume: tuple[bytes, int] | tuple[bytes, int, int | None] | None = None):
        if isinstance(servers, str):
            servers = servers.split(",")
        self.timeout_s = timeout_s
        self.servers = list(servers)
        self.known_members: list[str] = []      # addresses, as the leader named them last
        self.read_index: int | None = None      # up to where the newest read saw everything
        self._link = Link(servers if redirect else servers[:1], redirect)
        self._request_ids = itertools.count(1)
        self._idle: list[tuple[ClientSession, float]] = []  # and when it was last used, seconds
        self._streams: list[ClientSession] = []             # of enqueue_stream, under way
        self._newest: tuple[bytes, int, bytes] | None = None    # see resume_token
        self._resume = None if resume is None else (*resume, None)[:3]
        self._resumed: ClientSession | None = None          # until an answer under it fits
        self._open_resumed()

    def _open_resumed(self) -> None:
        if self._resume is not None:
            session, sequence, _ = self._resume
            self._resumed = ClientSession(session, sequence, self._request_ids, resumed=True)
            self._idle.append((self._resumed, clock()))

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
                if (session is self._resumed or session.acknowledged == 0
                        or clock() - used > SESSION_IDLE_S):
                    continue
                session.submit(commands.encode_close())
                while session.unanswered and self._link.connection is not None:
                    self._link.turn(session, deadline)
        self._idle.clear()
        self._link.close()

    # --- asking again

    @property
    def resume_token(self) -> str | None:
        """`session:sequence:checksum` of the newest request that changes something and can be asked
        about again, whatever became of it; None where there is none."""
        if self._newest is None:
            return None
        session, sequence, marked = self._newest
        return f"{session.hex()}:{sequence}:{request_checksum(marked):08x}"

    def forget_token(self) -> None:
        """From here on `resume_token` is about requests that follow."""
        self._newest = None

    def keep_replies(self) -> None:
        """Let the cluster keep the replies until the sessions expire, 10 minutes: whoever lost the
        newest one can ask again (`resume_token`)."""
        self._idle.clear()

    # --- queues

    def queue(self, name: str = "default") -> "Queue":
        """The queue of that name (1 to 255 bytes); it exists while it holds messages."""
        return Queue(self, name)

    def queues(self, local: str | None = None) -> list[tuple[str, int]]:
        """(name, ready messages) of every queue that holds messages, ready or not, or was
        configured, in order of their names."""
        found: list[tuple[bytes, int]] = []
        after = b""
        while True:
            status, payload = self._read(commands.encode_queues(after, QUEUES_PAGE), local)
            page = commands.decode_queue_list(payload) if status == Status.OK else []
            if not page:            # a page may end early: only one without any is the last
                return [(name.decode("utf-8", "surrogateescape"), size) for name, size in found]
            after = page[-1][0]
            if len(page) > 1 or page[0][1] or self._is_listed(after, local):
                found += page

    def _is_listed(self, name: bytes, local: str | None) -> bool:
        """Whether a queue without ready messages that came alone belongs into the list; else it is
        only there to be read on from."""
        _, payload = self._read(queuecommands.encode_describe(name), local)
        found = queueresults.decode_describe_result(payload)
        return bool(found.configured or found.ready or found.leased or found.delayed)

    def execute(self, operations_: list[dict], when: list[dict] | None = None) -> list:
        """All of the operations (transactions.py), atomically, where all conditions of `when`
        hold; a value for each: list of message ids, list of Message or LeasedMessage, QueueSize,
        tuple of Outcome, a version (put, delete), KvItem (get), how many (purge); None for an
        absent key. Raises MalformedError for a list that is none, and StateRefusedError, with
        nothing done, where a condition does not hold, a receipt is stale, or a queue is full."""
        command, readers = encode_list(operations_, when)
        return self._call(command, lambda _, payload: decode_outcomes(payload, readers))

    # --- leased messages; an outcome for each receipt, which are all tried

    def ack(self, receipts_: Receipt | list[Receipt]) -> list[Outcome]:
        """The messages are done with, and gone."""
        pairs = receipts.parse_receipts(receipts_)
        return self._settle(queuecommands.encode_ack(pairs), len(pairs))

    def nack(self, receipts_: Receipt | list[Receipt], delay_s: float | None = 0.0,
             reason: str = "") -> list[Outcome]:
        """The messages come back after `delay_s`, at once to the head of their queue; None: after
        the queue's back-off, longer with each delivery. `reason` stands in their history."""
        delay_ms = None if delay_s is None else operations.milliseconds(delay_s, "delay")
        pairs = receipts.parse_receipts(receipts_)
        return self._settle(queuecommands.encode_nack(
            pairs, delay_ms, operations.reason_text(reason)), len(pairs))

    def extend(self, receipts_: Receipt | list[Receipt], lease_s: float) -> list[Outcome]:
        """The leases end `lease_s` seconds from now, whenever they would have."""
        pairs = receipts.parse_receipts(receipts_)
        return self._settle(queuecommands.encode_extend(
            pairs, operations.milliseconds(lease_s, "lease")), len(pairs))

    def _settle(self, command: bytes, count: int) -> list[Outcome]:
        def read(_: int, payload: bytes) -> list[Outcome]:
            found = queueresults.decode_outcomes_result(payload)
            if len(found) != count or max(found) > max(Outcome):
                raise MalformedError(f"{len(found)} outcomes for {count} receipts")
            return list(map(Outcome, found))

        operations.check_request_bytes(len(command))
        return self._call(command, read)

    # --- keys (1 to 255 bytes) and values (bytes, as large as a message); str is UTF-8

    def kv_get(self, key: str | bytes, local: str | None = None) -> KvItem | None:
        """Version, expiry (replicated ms, 0: never) and value; None where the key is absent."""
        status, payload = self._read(kvcommands.encode_kv_get(operations.key_name(key)), local)
        return kvcommands.decode_kv_get_result(payload) if status == Status.OK else None

    def kv_put(self, key: str | bytes, value: str | bytes, ttl_s: float = 0.0,
               condition: Condition = NO_CONDITION) -> int:
        """Set the key, for `ttl_s` seconds where that is above 0; returns its new version. Raises
        StateRefusedError with what is there where the condition does not hold."""
        command = kvcommands.encode_kv_put(
            operations.key_name(key), operations.message_data(value),
            operations.milliseconds(ttl_s, "ttl"), condition)
        return self._call(command, lambda _, payload: kvcommands.decode_version_result(payload))

    def kv_delete(self, key: str | bytes, condition: Condition = NO_CONDITION) -> int | None:
        """Remove the key; returns the deletion's version, None where it was absent."""
        command = kvcommands.encode_kv_delete(operations.key_name(key), condition)
        return self._call(command, lambda status, payload: kvcommands.decode_version_result(payload)
                          if status == Status.OK else None)

    def kv_list(self, prefix: str | bytes = b"",
                local: str | None = None) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, version, value) of every key that begins so, in byte order, read page by page: each
        page is of its own moment."""
        prefix, after, more = operations.short_text(prefix, "prefix"), b"", True
        while more:
            status, payload = self._read(kvcommands.encode_kv_list(prefix, after, KEYS_PAGE), local)
            if status != Status.OK:
                return
            more, items = kvcommands.decode_kv_list_result(payload)
            yield from items
            more = more and bool(items)
            after = items[-1][0] if items else after

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

    def _call(self, command: bytes, read: Callable[[int, bytes], Any], wait_s: float = 0.0,
              marked: bytes | None = None) -> Any:
        """What `read` makes of one command's status and payload; an enqueue's payload is its first
        id always. `wait_s`: how long it may wait at the node. `marked`: the command without what
        may be another when it is resumed. `read` raises MalformedError for what does not fit."""
        session = self._take_session()
        marked = command if marked is None else marked
        self._newest = session.session, session.next_sequence, marked
        resumed = session is self._resumed
        if resumed and self._resume[2] not in (None, request_checksum(marked)):
            self._open_resumed()
            raise MalformedError("that is not the earlier request: the same command with the same "
                                 "arguments is needed; nothing was sent, what is kept stays")
        session.submit(command)
        self._run(session, clock() + wait_s + self.timeout_s, wait_s > 0)
        (reply,) = session.take_answers()
        try:
            found = _read_result(reply, command[LENGTH_BYTES], read)
        except MalformedError as error:
            # the session is not used again: the next request would acknowledge that reply
            if not resumed:
                raise
            self._open_resumed()
            raise MalformedError("that is not the earlier request: its reply does not fit, and "
                                 f"stays where it is ({error})") from error
        except RefusedError:
            self._give_back(session)
            raise
        self._give_back(session)
        return found

    def _give_back(self, session: ClientSession) -> None:
        if session is self._resumed:
            self._resumed = self._resume = None
        self._idle.append((session, clock()))

    def _read(self, command: bytes, local: str | None = None) -> tuple[int, bytes]:
        """(status, payload) of a reading command: linearizable, or what the node at the address
        `local` has applied."""
        body = requests.encode_read(local is not None, command)
        if local is None:
            reply = self._ask(Kind.READ, body, Kind.READ_REPLY)
        else:
            reply = ask_node(local, Kind.READ, body, Kind.READ_REPLY, clock() + self.timeout_s)
        self.read_index, status, payload = requests.decode_read_reply(reply)
        operations.check_status(status, payload)
        return status, payload

    def _ask(self, kind: int, body: bytes, reply_kind: int, of_leader: bool = False) -> bytes:
        read = Read(kind, body, reply_kind, next(self._request_ids) & 0xFFFFFFFF, of_leader)
        self._run(read, clock() + self.timeout_s)
        return read.answer

    def _run(self, exchange, deadline: float, waits: bool = False) -> None:
        for stream in self._streams:        # a frame is given to one exchange only, so end these
            if stream is not exchange:
                self._link.finish(stream, deadline)
        while exchange.unanswered:
            self._link.turn(exchange, deadline)
            if waits:
                exchange.heard(self._link.heard_at)

    def _take_session(self) -> ClientSession:
        """A session with nothing unanswered; whoever fails with it does not give it back."""
        while self._idle:
            session, used = self._idle.pop()
            if clock() - used < SESSION_IDLE_S:
                return session
        return ClientSession(request_ids=self._request_ids)


def _read_result(reply: Reply, operation: int, read: Callable[[int, bytes], Any]) -> Any:
    """What `read` makes of a reply to one command; raises RefusedError, or MalformedError where it
    is a reply to something else."""
    if reply.first_message_id is not None:
        if operation != Operation.ENQUEUE:
            raise MalformedError("the reply to an enqueue")
        return read(Status.OK, commands.encode_enqueue_result(reply.first_message_id))
    status, payload = reply.results[0]
    operations.check_status(status, payload, operation)
    return read(status, payload)
