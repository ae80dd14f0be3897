"""WorkHistory: what all callers asked and were told, judged by the committed log as the witness.

Rules: the log is the linearization. It is replayed through the reference model (reference.py),
which shares no code with the machine; every reply, every read at the index that it names, and what
the nodes hold at the end must be what the model says. An answer is never older than the entry that
gave it, an entry never older than what it was asked by, and a linearizable read never behind what
anybody knew when it was asked. Nothing that could have happened is ever accused.

The names of the invariants: "reference answers", and where more can be said "lease exclusion" (a
message is with two at a time), "work conservation" (one is lost, doubled, invented or has another
history), "key-value register"; "real time order"; "watch order" (watchhistory.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

from raftnet.config import MachineConfig
from raftnet.errors import MalformedError
from raftnet.raft.entry import Entry
from raftnet.simulation.histories import Operation as PlainOperation
from raftnet.simulation.promises import InvariantError
from raftnet.simulation.reference import Answered, Reference
from raftnet.simulation.watchhistory import WatchHistory
from raftnet.wire import commands, kvcommands, queuecommands, queueresults
from raftnet.wire.commands import Operation, Status
from raftnet.wire.describe import describe_command, describe_result
from raftnet.wire.requests import Reply

_REFERENCE = "reference answers"
_REAL_TIME = "real time order"
_EXCLUSION = "lease exclusion"
_CONSERVATION = "work conservation"
_REGISTER = "key-value register"
_KEY_OPERATIONS = (Operation.KV_GET, Operation.KV_PUT, Operation.KV_DELETE, Operation.KV_LIST)
_MESSAGE_OPERATIONS = (Operation.DEQUEUE, Operation.PEEK, Operation.LEASE, Operation.INSPECT)
_NODE_LIMIT = 1_000


@dataclass(slots=True)
class _Answer:
    """A reply that a caller took."""

    caller: str
    session: bytes
    reply: Reply
    at_ms: int


@dataclass(slots=True)
class _Read:
    """A read and its answer; `asked_ms` None: what a node held, looked at from outside."""

    caller: str
    command: bytes              # with its length
    local: bool
    index: int
    status: int
    payload: bytes
    asked_ms: int | None
    at_ms: int


class WorkHistory:
    """Of one cluster. `config` as its machines have it."""

    def __init__(self, config: MachineConfig):
        self._config = config
        self._entries: list[tuple[Entry, int]] = []     # committed, and when that was seen first
        self._asked: dict[tuple[bytes, int], tuple[bytes, int]] = {}    # command, when
        self._answers: list[_Answer] = []
        self._reads: list[_Read] = []
        self.watches = WatchHistory()

    # --- what is recorded

    def committed(self, entry: Entry, now_ms: int) -> None:
        """An entry was seen as committed for the first time."""
        assert entry.index == len(self._entries) + 1, "in order"
        self._entries.append((entry, now_ms))

    def asked(self, session: bytes, sequence: int, command: bytes, now_ms: int) -> None:
        """A caller will send this command, its length before it."""
        self._asked[session, sequence] = command, now_ms

    def answered(self, caller: str, session: bytes, reply: Reply, now_ms: int) -> None:
        """A caller took this reply."""
        self._answers.append(_Answer(caller, session, reply, now_ms))

    def read(self, caller: str, command: bytes, local: bool, answer: tuple[int, int, bytes],
             asked_ms: int | None, now_ms: int) -> None:
        """A caller's read: `answer` is (applied index, status, payload)."""
        self._reads.append(_Read(caller, command, local, *answer, asked_ms, now_ms))

    def look_into(self, name: str, machine, now_ms: int) -> None:
        """All that a node holds, as its reads tell it."""
        for command in self._questions(machine):
            answer = (machine.applied_index, *machine.read(command))
            self.read(name, command, True, answer, None, now_ms)

    def _questions(self, machine) -> list[bytes]:
        asked = [commands.encode_queues(), kvcommands.encode_kv_list()]
        status, payload = machine.read(asked[0])
        assert status == Status.OK, status
        names = {name for name, _ in commands.decode_queue_list(payload)}
        for _, (command, _) in self._asked.items():
            # Those without a ready message are not in the list.
            if command[4] in (Operation.ENQUEUE, Operation.ENQUEUE_WITH, Operation.CONFIGURE):
                names.add(command[6:6 + command[5]])
        for name in sorted(names):
            asked += [commands.encode_size(name), queuecommands.encode_describe(name),
                      queuecommands.encode_leases(name, _NODE_LIMIT),
                      queuecommands.encode_inspect(name, _NODE_LIMIT)]
        return asked

    # --- the judge

    def check(self) -> Reference:
        """Raises InvariantError. Returns the model at the end of the log."""
        model = Reference(self._config)
        # What the log gave to each request, and when that was committed: mostly once.
        given: dict[tuple[bytes, int], list[tuple[Answered, int]]] = {}
        told = {(answer.session, answer.reply.first_sequence): answer for answer in self._answers}
        reads = sorted(self._reads, key=lambda read: read.index)
        at = 0
        self.watches.applied(0, 0, model)
        while at < len(reads) and not reads[at].index:
            self._check_read(reads[at], model, 0)
            at += 1
        for entry, now_ms in self._entries:
            for answered in model.apply(entry):
                request = answered.session, answered.first
                given.setdefault(request, []).append((answered, now_ms))
                if request in told and told[request].reply.refusal is None:
                    self._check_answer(told.pop(request), given[request])
            self.watches.applied(entry.index, now_ms, model)
            while at < len(reads) and reads[at].index == entry.index:
                self._check_read(reads[at], model, now_ms)
                at += 1
        if at < len(reads):
            raise _broken(_REAL_TIME, f"{reads[at].caller} read at {reads[at].index}, "
                                      f"and nothing behind {len(self._entries)} was committed")
        for request, answer in told.items():
            self._check_answer(answer, given.get(request, []))
        self.watches.check(self._check_real_time(given))
        return model

    def _check_answer(self, answer: _Answer, given: list[tuple[Answered, int]]) -> None:
        """One of the replies that the log gave to that request, and not before it did."""
        reply = answer.reply
        known = [self._asked.get((answer.session, reply.first_sequence + offset))
                 for offset in range(reply.count)]
        if not given:
            raise _broken(_REFERENCE, f"{answer.caller} was answered, and the log holds no "
                                      f"such request: {_what(known)}")
        told = _results(reply, [command for command, _ in known])
        found = [(answered, ms) for answered, ms in given if told == answered.told]
        if not found:
            self._accuse(answer.caller, known, told, [answered for answered, _ in given])
        if min(ms for _, ms in found) > answer.at_ms:
            raise _broken(_REAL_TIME, f"{answer.caller} was answered at {answer.at_ms} ms, "
                                      f"and the entry was committed at {found[0][1]} ms: "
                                      f"{_what(known)}")
        if any(ms < asked_ms for _, ms in found for _, asked_ms in known):
            raise _broken(_REAL_TIME, f"committed at {found[0][1]} ms, before {answer.caller} "
                                      f"asked: {_what(known)}")

    def _accuse(self, caller: str, known: list, told: list, given: list[Answered]) -> None:
        """Put the difference into one line, under the name that says most."""
        right = given[0].told
        name, where = _REFERENCE, ""
        if len(told) == len(right):
            for (command, _), mine, other in zip(known, told, right):
                if mine != other:
                    known = [(command, 0)]
                    name = _name_of(command, mine, given[0].leased_before)
                    where = f"; at {given[0].index}: {_text(command)}"
                    told, right = [mine], [other]
                    break
        command = known[0][0] if known and known[0] is not None else b""
        raise _broken(name, f"{caller} was told {_results_text(command, told)}, the model says "
                            f"{_results_text(command, right)}{where or '; ' + _what(known)}")

    def _check_read(self, read: _Read, model: Reference, now_ms: int) -> None:
        if now_ms > read.at_ms:
            raise _broken(_REAL_TIME, f"{read.caller} read at entry {read.index} at "
                                      f"{read.at_ms} ms, and it was committed at {now_ms} ms")
        right = model.read(read.command)
        if (read.status, read.payload) != right:
            told = (read.status, read.payload)
            name = _name_of(read.command, told, model.leased())
            raise _broken(name, f"{read.caller} read {_results_text(read.command, [told])} at "
                                f"{read.index}, the model says "
                                f"{_results_text(read.command, [right])}: {_text(read.command)}")

    def _check_real_time(self, given: dict) -> list[tuple[int, int]]:
        """A linearizable read is at or behind all that anybody knew when it was asked. Returns what
        that was: when, which index."""
        known = [(read.at_ms, read.index) for read in self._reads if read.asked_ms is not None]
        for answer in self._answers:
            entries = given[answer.session, answer.reply.first_sequence]
            known.append((answer.at_ms, min(answered.index for answered, _ in entries)))
        known.sort()
        reads = [read for read in self._reads if read.asked_ms is not None and not read.local]
        highest = at = 0
        for read in sorted(reads, key=lambda read: read.asked_ms):
            while at < len(known) and known[at][0] < read.asked_ms:
                highest = max(highest, known[at][1])
                at += 1
            if read.index < highest:
                raise _broken(_REAL_TIME, f"{read.caller} asked at {read.asked_ms} ms and read "
                                          f"at {read.index}, while {highest} was known: "
                                          f"{_text(read.command)}")
        return known


def _broken(name: str, text: str) -> InvariantError:
    return InvariantError(f"{name}: {text}")


def _results(reply: Reply, asked: list[bytes]) -> list[tuple[int, bytes]]:
    """A reply in the one form that the model gives: (status, payload) of each command. A refusal is
    (-code, nothing)."""
    if reply.refusal is not None:
        return [(-reply.refusal[0], b"")]
    if reply.first_message_id is None:
        return reply.results
    results, next_id = [], reply.first_message_id
    for command in asked:
        results.append((int(Status.OK), commands.encode_enqueue_result(next_id)))
        next_id += len(commands.decode_enqueue(command[4:])[1])
    return results


def _name_of(command: bytes, told: tuple[int, bytes], leased: set[int]) -> str:
    """Under which name a wrong answer is accused. `leased`: ids that are with somebody."""
    status, payload = told
    operation = command[4]
    if operation in _KEY_OPERATIONS:
        return _REGISTER
    if operation in _MESSAGE_OPERATIONS:
        if status == Status.OK and leased & set(_ids_in(operation, payload)):
            return _EXCLUSION
        return _CONSERVATION
    if operation in (Operation.SIZE, Operation.QUEUES, Operation.DESCRIBE, Operation.LEASES,
                     Operation.PURGE, Operation.REDRIVE):
        return _CONSERVATION
    return _REFERENCE


def _ids_in(operation: int, payload: bytes) -> list[int]:
    decode: dict[int, Callable[[bytes], list]] = {
        Operation.LEASE: queueresults.decode_lease_result,
        Operation.INSPECT: lambda data: queueresults.decode_inspect_result(data)[1]}
    return [found[0] for found in decode.get(operation, commands.decode_messages)(payload)]


def _text(command: bytes) -> str:
    try:
        return describe_command(command[4:])
    except MalformedError:
        return command.hex()


def _results_text(command: bytes, results: list[tuple[int, bytes]]) -> str:
    texts = []
    for status, payload in results:
        try:
            texts.append(describe_result(status, payload, command[4] if command else None))
        except (MalformedError, ValueError):
            texts.append(f"{status} {payload.hex()}")
    return "; ".join(texts)


def _what(known: list) -> str:
    return "; ".join("?" if one is None else _text(one[0]) for one in known)


def renumber(history: list[PlainOperation], ids: list[int]) -> None:
    """Count the messages of plain clients without all others, whose ids lie between theirs: as
    histories.py knows them."""
    place = {message_id: number for number, message_id in enumerate(ids, 1)}
    for operation in history:
        for step in operation.steps:
            if isinstance(step.answer, list):
                step.answer = [(place[i], message) for i, message in step.answer]
            elif step.messages and step.answer is not None:
                step.answer = place[step.answer]
