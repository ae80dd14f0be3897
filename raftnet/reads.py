"""What a client may ask beside commands: reads, the log, watches, a node's status.

Rules: READ and LOG are linearizable and the leader's alone, by a read round (ReadIndex, thesis 6.4)
shared by all reads of a turn; with the local flag any node answers from its own applied state. So
does a watch begin (watches.py). STATUS is answered by any node.
"""

from raftnet import VERSION
from raftnet.errors import ErrorCode, MalformedError
from raftnet.raft.install import Incoming
from raftnet.raft.membership import Member
from raftnet.wire import requests
from raftnet.wire.frames import Kind
from raftnet.wire.requests import UNKNOWN_AGE, MemberStatus, NodeStatus
from raftnet.wire.snapshots import decode_read_snapshot, decode_take_snapshot
from raftnet.wire.watches import decode_unwatch, decode_watch

_LOG_LIMIT_MAX = 10_000
_TO_BE_DONE = (Kind.REQUEST, Kind.TAKE_SNAPSHOT)    # with these the next turn begins
_READ_BYTES_MAX = 1_024         # a reading command holds a queue's name and a number
_CONTACTS_SHOWN_MAX = 5         # in a text, and in a status


class Reads:
    """The questions under way at one node."""

    def __init__(self, replica):
        self._replica = replica
        self._token = 0
        # By token: (client, request id, kind, what to read), until the round is confirmed.
        self._asked: dict[int, tuple] = {}
        self._confirmed: list[tuple[int, tuple]] = []   # (index, question), until it is applied
        self._watches: dict[tuple, tuple] = {}  # (client, request id) -> question: each WATCH
        self.cut_short = False          # a turn's bytes were used up: the next one goes on

    def frame(self, client, request_id: int, kind: int, body: bytes) -> None:
        """A frame of a client that is not a REQUEST."""
        handler = {Kind.READ: self._read, Kind.LOG: self._log, Kind.STATUS: self._status,
                   Kind.TAKE_SNAPSHOT: self._take_snapshot,
                   Kind.READ_SNAPSHOT: self._read_snapshot, Kind.WATCH: self._watch,
                   Kind.UNWATCH: self._unwatch}.get(kind)
        if handler is None:
            self._replica.refuse(client, request_id, ErrorCode.UNKNOWN_KIND,
                                 f"no request of a client has kind {kind}")
            return
        try:
            handler(client, request_id, body)
        except MalformedError as error:
            self._replica.refuse(client, request_id, ErrorCode.BAD_REQUEST, str(error))

    def _read(self, client, request_id: int, body: bytes) -> None:
        local, command = requests.decode_read(body)
        if len(command) > _READ_BYTES_MAX:
            raise MalformedError(f"a READ of {len(command)} bytes cannot be")
        self._ask(local, (client, request_id, Kind.READ, command))

    def _log(self, client, request_id: int, body: bytes) -> None:
        local, from_index, limit = requests.decode_log(body)
        self._ask(local, (client, request_id, Kind.LOG, (max(1, from_index), limit)))

    def _take_snapshot(self, client, request_id: int, body: bytes) -> None:
        local = decode_take_snapshot(body)
        self._ask(local, (client, request_id, Kind.TAKE_SNAPSHOT, None))

    def _read_snapshot(self, client, request_id: int, body: bytes) -> None:
        # Small questions with large answers: bounded like all of them, in `answer`.
        self._ask(True, (client, request_id, Kind.READ_SNAPSHOT, decode_read_snapshot(body)))

    def _watch(self, client, request_id: int, body: bytes) -> None:
        asked = decode_watch(body)
        if (client, request_id) in self._watches:
            raise MalformedError("a watch with this request id is about to begin")
        question = (client, request_id, Kind.WATCH, asked)
        if self._ask(asked.local, question):
            self._watches[client, request_id] = question

    def _unwatch(self, client, request_id: int, body: bytes) -> None:
        watched = decode_unwatch(body)
        self._watches.pop((client, watched), None)
        self._replica.watches.unwatch(client, watched)

    def _is_wanted(self, question: tuple) -> bool:
        """Whether it is no WATCH that an UNWATCH has overtaken; it is about to be answered."""
        if question[2] != Kind.WATCH:
            return True
        if self._watches.get(question[:2]) is not question:
            return False
        del self._watches[question[:2]]
        return True

    def _ask(self, local: bool, question: tuple) -> bool:
        """Note it; False where it is refused at once."""
        replica = self._replica
        refusal = replica.why_not_serving() if not local or replica.raft is None else None
        if refusal is None and (len(self._asked) + len(self._confirmed)
                                >= replica.config.gateway.reads_waiting_max):
            refusal = ErrorCode.BUSY, "too many reads wait; ask again"
        if refusal is not None:
            replica.refuse(*question[:2], *refusal)
            return False
        if local:
            self._confirmed.append((0, question))
            return True
        self._token += 1
        self._asked[self._token] = question
        replica.raft.read(self._token)
        return True

    def confirm_request(self, client, request_id: int, body: bytes) -> None:
        """A REQUEST whose refusal would be wrong if another node leads by now: hear a quorum."""
        self._ask(False, (client, request_id, Kind.REQUEST, body))

    def confirmed(self, token: int, index: int) -> None:
        """The core's answer: readable once `index` is applied; 0: no longer leader."""
        question = self._asked.pop(token)
        if index:
            self._confirmed.append((index, question))
        elif self._is_wanted(question):
            self._replica.refuse(*question[:2], ErrorCode.NOT_LEADER, "this node leads no more")

    def refuse_all(self) -> None:
        """This node leaves its cluster: who asked must ask elsewhere."""
        for question in [*self._asked.values(), *(question for _, question in self._confirmed)]:
            if self._is_wanted(question):
                self._replica.refuse(*question[:2], ErrorCode.NOT_LEADER, "this node leads no more")
        self._asked.clear()
        self._confirmed.clear()
        self.cut_short = False

    def answer(self) -> None:
        """Answer the reads whose index is applied; called once a turn. Up to a number of bytes: a
        small question may have a large answer, and thousands of them may come at once."""
        self.cut_short = False
        if not self._confirmed:
            return
        applied = self._replica.machine.applied_index
        left = self._replica.config.gateway.reads_turn_bytes_max
        waiting, asked = [], False
        for index, question in self._confirmed:
            if index <= applied and left > 0:
                left -= self._answer(question)
                asked = asked or question[2] in _TO_BE_DONE
            else:
                waiting.append((index, question))
        self._confirmed = waiting
        self.cut_short = left <= 0 and bool(waiting) or asked

    def _answer(self, question: tuple) -> int:
        """The bytes of the answer."""
        client, request_id, kind, what = question
        replica = self._replica
        if kind == Kind.READ:
            status, payload = replica.machine.read(what)
            body = requests.encode_read_reply(replica.machine.applied_index, status, payload)
            replica.gateway.answers.append((client, request_id, Kind.READ_REPLY, body))
            replica.actions.say("read", "a client's read is answered at index %d",
                                replica.machine.applied_index)
            return len(body)
        if kind == Kind.REQUEST:
            replica.gateway.request(client, request_id, what, confirmed=True)
            return 0
        if kind == Kind.TAKE_SNAPSHOT:
            replica.snapshots.take(client, request_id)
            return 0
        if kind == Kind.READ_SNAPSHOT:
            return replica.snapshots.read(client, request_id, *what)
        if kind == Kind.WATCH:
            return self._begin_watch(question)
        body = self._log_reply(*what)
        replica.gateway.answers.append((client, request_id, Kind.LOG_REPLY, body))
        replica.actions.say("request_log", "a client is given the log from index %d", what[0])
        return len(body)

    def _begin_watch(self, question: tuple) -> int:
        client, request_id, _, asked = question
        replica = self._replica
        if not self._is_wanted(question):
            return 0
        if not asked.local and not replica.leadership.term:
            # Confirmed, and lost since: nobody would end it.
            replica.refuse(client, request_id, ErrorCode.NOT_LEADER, "this node leads no more")
            return 0
        replica.actions.say("watch", "a client watches, from index %d", asked.from_index)
        return replica.watches.begin(client, request_id, asked)

    def _log_reply(self, from_index: int, limit: int) -> bytes:
        """Committed and applied entries only, in one bounded piece."""
        replica = self._replica
        log = replica.raft.log
        first, last = log.base_index + 1, log.applied_index
        index = max(first, from_index)
        bytes_max = replica.config.gateway.log_reply_bytes_max
        entries = []
        if index <= last:
            if index >= log.memory_from:
                entries = log.entries(index, last, bytes_max)
            else:
                # Above, the file may still show what this node has replaced in memory.
                entries = replica.store.read_entries(index, bytes_max, log.memory_from - 1)
            entries = [e for e in entries if e.index <= last][:max(1, min(limit, _LOG_LIMIT_MAX))]
        return requests.encode_log_reply(first, last, index + len(entries),
                                         [entry.data for entry in entries])

    # --- status

    def _status(self, client, request_id: int, body: bytes) -> None:
        if body:
            raise MalformedError("STATUS has no body")
        self._replica.gateway.answers.append(
            (client, request_id, Kind.STATUS_REPLY, requests.encode_status(self.status())))

    def status(self) -> NodeStatus:
        """What this node knows of itself and of its cluster."""
        replica = self._replica
        raft, machine = replica.raft, replica.machine
        if raft is None:
            return NodeStatus(replica.cluster_id, replica.node_id, replica.store.boot,
                              replica.role_name, 0, 0, 0, 0, 0, 0, 0, False,
                              replica.start.quorum_rule, replica.address, "", VERSION, [],
                              log_bytes=replica.store.log_bytes, disk_full=replica.disk_full,
                              note=self._note(), healing_contacts=self._healing_contacts())
        log, membership = raft.log, raft.membership
        members = [self._member_status(member) for member in membership.members]
        return NodeStatus(replica.cluster_id, replica.node_id, replica.store.boot,
                          replica.role_name, raft.current_term, log.commit_index,
                          machine.applied_index, log.last_index, replica.snapshots.index,
                          log.stable_index, machine.digest, membership.founded,
                          membership.quorum_rule,
                          replica.address, replica.leader_address, VERSION, members,
                          log.membership_index, membership.state_version,
                          list(membership.target), raft.heartbeat_ms, raft.election_timeout_ms,
                          self.timing_text(), replica.store.log_bytes, replica.disk_full,
                          *self._received(), self._note())

    def _healing_contacts(self) -> list[str]:
        """Whom a node asks whose damaged files were set aside; others ask because they are new."""
        healing = self._replica.store.healing
        return list(healing.contacts[:_CONTACTS_SHOWN_MAX]) if healing is not None else []

    def _incoming(self) -> Incoming | None:
        """A snapshot that comes, or waits to be installed; not one that the log has overtaken."""
        raft = self._replica.raft
        incoming = raft.incoming
        if incoming is None or incoming.identity.index <= raft.log.commit_index:
            return None
        return incoming

    def _received(self) -> tuple[int, int]:
        """(bytes that are here, size) of it."""
        incoming = self._incoming()
        return (0, 0) if incoming is None else (incoming.next_offset, incoming.identity.size)

    def _note(self) -> str:
        """What this node does beside its role, or waits for."""
        replica = self._replica
        raft, healing = replica.raft, replica.store.healing
        if raft is None and healing is not None:
            more = len(healing.contacts) - _CONTACTS_SHOWN_MAX
            return ("its damaged files are set aside; it comes back with what "
                    f"{', '.join(self._healing_contacts())}{f' and {more} more' * (more > 0)} hold")
        if raft is None:
            return replica.why_not_serving()[1]
        notes = []
        if replica.snapshots.making:
            notes.append(f"making a snapshot up to entry {replica.snapshots.making}")
        incoming = self._incoming()
        if incoming is not None:
            doing = "verifying" if incoming.written else "receiving"
            notes.append(f"{doing} a snapshot up to entry {incoming.identity.index}")
        return "; ".join(notes)

    def timing_text(self) -> str:
        """Why heartbeat interval and election timeout are as they are."""
        raft = self._replica.raft
        timing, floor = raft.timing, self._replica.config.raft.election_timeout_ms
        if timing.announced_ms:
            return "as the leader announced"
        link = timing.links.get(timing.bottleneck)
        if raft.election_timeout_ms <= floor:
            return "the floor"
        if link is None or link.need_ms < raft.election_timeout_ms * 3 // 4:
            return "the network was slower a moment ago"
        loss = f", {link.loss_permille / 10:g} % lost" if link.loss_permille else ""
        where = self._replica.address_of(timing.bottleneck)
        return (f"round trips to {where} take {link.usual_ms} ms, one in ten over {link.slow_ms} "
                f"ms{loss}")

    def _member_status(self, member: Member) -> MemberStatus:
        replica = self._replica
        raft, log, node_id = replica.raft, replica.raft.log, member.node_id
        if node_id == raft.node_id:
            received, size = self._received()
            return MemberStatus(node_id, member.address, member.voter, True, log.stable_index, 0,
                                member.stays, snapshot_bytes=received, snapshot_size=size)
        progress = raft.progress.get(node_id)
        silent = replica.greetings.known.silent_ms(node_id, replica.now_ms)
        link = raft.timing.links.get(node_id)
        measured = ((link.usual_ms, link.slow_ms, link.loss_permille)
                    if link is not None and link.samples else (UNKNOWN_AGE, UNKNOWN_AGE, 0))
        sent = ((progress.snapshot_offset, progress.snapshot.size)
                if progress is not None and progress.snapshot is not None else (0, 0))
        return MemberStatus(node_id, member.address, member.voter,
                            silent is not None and silent < raft.timeout_of(node_id),
                            progress.match_index if progress is not None else 0,
                            UNKNOWN_AGE if silent is None else min(silent, UNKNOWN_AGE - 1),
                            member.stays, *measured, *sent)
