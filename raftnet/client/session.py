"""One client session without I/O: commands in, frames out, replies in, results out.

Purpose: exactly-once over any number of connections (design.md, decision 10). Rules:
  - a command gets the next sequence; a retry repeats its frame's body byte for byte;
  - replies are given out in the order of the sequences, and `acknowledged` moves with them;
  - after a refusal that a retry can heal, and after a lost connection, everything unanswered is
    sent again in order, from the lowest sequence;
  - nothing is sent again later than RESEND_S after it was first sent, nor under another session:
    beyond the expiry of sessions a retry could be executed anew. What waits at a node that gives
    signs of life counts from the newest of these: no session expires while it waits (heard()).
Sockets, back-off and choosing the node are elsewhere (connection.py, link.py). The packing and the
reply path cost well under a microsecond a command: a load generator drives this class directly.
"""

import itertools
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

from raftnet.errors import ErrorCode, MalformedError
from raftnet.wire import frames, requests
from raftnet.wire.commands import Operation
from raftnet.wire.requests import Reply

FRAME_COMMANDS_MAX = 1_000
FRAME_COMMAND_BYTES_MAX = 256 * 1024    # a single larger command is a frame of its own
IN_FLIGHT_FRAMES_MAX = 64
IN_FLIGHT_BYTES_MAX = 4 * 1024 * 1024
RESEND_S = 60.0                         # sessions expire after 600 s unused

# surely not executed, and worth another try: at the same node, or elsewhere
RETRY_HERE = frozenset((ErrorCode.BUSY, ErrorCode.OUT_OF_ORDER, ErrorCode.NOT_READY,
                        ErrorCode.DISK_FULL))
RETRY_ELSEWHERE = frozenset((ErrorCode.NOT_LEADER, ErrorCode.LEADERSHIP_LOST))
# after these the frame may have been executed; the others speak for their own sending alone
_OUTCOME_OPEN = frozenset((ErrorCode.LEADERSHIP_LOST, ErrorCode.ALREADY_ACKNOWLEDGED))


class Refusal(NamedTuple):
    """Why a node did not answer a request with a result; see RETRY_HERE and RETRY_ELSEWHERE."""

    code: int           # an ErrorCode; any other than those two sets is final
    text: str
    leader: str         # address, or ""


class _Frame:
    """Commands that travel together, from packing to their answer."""

    __slots__ = ("first_sequence", "count", "body", "first_sent", "last_sent", "request_id", "open",
                 "unknown", "answer")

    def __init__(self, first_sequence: int, count: int, body: bytes):
        self.first_sequence = first_sequence
        self.count = count
        self.body = body                        # never changed: a retry repeats it
        self.first_sent: float | None = None    # seconds; or when what waits was heard of last
        self.last_sent = 0.0                    # seconds
        self.request_id = 0                     # of the newest sending
        self.open = 0                           # sendings on this connection without a verdict
        self.unknown = False                    # an earlier sending may have been executed
        self.answer: Reply | None = None


class ClientSession:
    """Packs commands into REQUEST frames and keeps them until they are answered.

    `session` is 16 bytes (random where not given), `next_sequence` the number of the next command,
    with every earlier one acknowledged; `request_ids` numbers the frames, and is shared by all that
    send on one connection. `resumed`: somebody may have sent the next command before, under the
    same number, so that only an answer tells what became of it. One thread.
    """

    def __init__(self, session: bytes | None = None, next_sequence: int = 1,
                 request_ids: Iterator[int] | None = None, resumed: bool = False):
        self.session = os.urandom(requests.SESSION_BYTES) if session is None else session
        assert len(self.session) == requests.SESSION_BYTES and next_sequence >= 1
        self.next_sequence = next_sequence      # of the next command submitted
        self.acknowledged = next_sequence - 1   # every reply up to here was received
        self.overdue = False                    # something unanswered may not be sent again
        self.dead = False                       # refused for good: no command can follow
        self._request_ids = itertools.count(1) if request_ids is None else request_ids
        self._waiting: list[bytes] = []         # submitted, not yet in a frame
        self._waiting_bytes = 0
        self._frames: deque[_Frame] = deque()   # unanswered or answered early, by sequence
        self._frames_bytes = 0
        self._sendings: dict[int, _Frame] = {}  # request ids on this connection
        self._resend = False                    # what is in _frames must be sent (again)
        self._resumed = resumed                 # the next frame is what may have been sent before
        self._answers: list[Reply] = []

    # --- commands in

    def submit(self, command: bytes) -> int:
        """Take an encoded command; returns its sequence. Submit while not `full`."""
        self._waiting.append(command)
        self._waiting_bytes += len(command)
        sequence = self.next_sequence
        self.next_sequence = sequence + 1
        return sequence

    def submit_many(self, commands: list[bytes]) -> int:
        """Take encoded commands, each as by submit; returns the sequence of the first."""
        self._waiting += commands
        self._waiting_bytes += sum(map(len, commands))
        sequence = self.next_sequence
        self.next_sequence = sequence + len(commands)
        return sequence

    @property
    def full(self) -> bool:
        """A whole frame is waiting: let output() take it before more is submitted."""
        return (len(self._waiting) >= FRAME_COMMANDS_MAX
                or self._waiting_bytes >= FRAME_COMMAND_BYTES_MAX)

    @property
    def unanswered(self) -> bool:
        """Whether anything submitted has no answer yet."""
        return bool(self._frames or self._waiting)

    @property
    def in_flight(self) -> int:
        """How many frames are packed and not yet given out as answers."""
        return len(self._frames)

    # --- frames out

    def output(self, now: float) -> bytes:
        """All frames to send now, joined; b"" where there is nothing to send or no room.

        `now` in seconds, of a clock that counts suspension. Sets `overdue` where something ought
        to be sent again and may not.
        """
        parts: list[bytes] = []
        if self._resend:
            self._resend = False
            for frame in self._frames:
                if frame.answer is None:
                    self._send(frame, now, parts)
                    if self.overdue:
                        break
        if self._waiting and not self.overdue:
            while (self._waiting and len(self._frames) < IN_FLIGHT_FRAMES_MAX
                   and self._frames_bytes < IN_FLIGHT_BYTES_MAX):
                self._send(self._pack(), now, parts)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _pack(self) -> _Frame:
        waiting = self._waiting
        if self._waiting_bytes <= FRAME_COMMAND_BYTES_MAX and len(waiting) <= FRAME_COMMANDS_MAX:
            chunk, size = waiting, self._waiting_bytes
            self._waiting = []
        else:
            size = count = 0
            for command in itertools.islice(waiting, FRAME_COMMANDS_MAX):
                if count and size + len(command) > FRAME_COMMAND_BYTES_MAX:
                    break
                size += len(command)
                count += 1
            chunk = waiting[:count]
            del waiting[:count]
        left = len(self._waiting)
        self._waiting_bytes -= size
        first = self.next_sequence - left - len(chunk)
        body = requests.encode_request(self.session, first, self.acknowledged, chunk)
        frame = _Frame(first, len(chunk), body)
        frame.unknown, self._resumed = self._resumed, False
        self._frames.append(frame)
        self._frames_bytes += len(body)
        return frame

    def _send(self, frame: _Frame, now: float, parts: list[bytes]) -> None:
        if frame.first_sent is None:
            frame.first_sent = now
        elif now - frame.first_sent > RESEND_S:
            self.overdue = True
            return
        frame.last_sent = now
        # a new id each time, so that a refusal of an earlier sending is not taken for this one's
        request_id = frame.request_id = next(self._request_ids) & 0xFFFFFFFF
        frame.open += 1
        self._sendings[request_id] = frame
        parts.append(frames.encode_frame(frames.Kind.REQUEST, request_id, frame.body))

    def connection_lost(self) -> None:
        """The connection ended or is given up: what was sent on it may or may not be executed."""
        for frame in self._frames:
            if frame.open:
                frame.unknown = True
                frame.open = 0
        self._sendings.clear()
        self._resend = True

    def heard(self, asked: float) -> None:
        """Everything unanswered waits for a message, and the node that it was sent to last gave a
        sign of life, for which it was asked at `asked` (seconds, as in output())."""
        for frame in self._frames:
            if frame.open and frame.last_sent <= asked:
                frame.first_sent = max(frame.first_sent, asked)

    # --- replies in

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; a Refusal where it was one that matters now.

        On RETRY_HERE wait a little and send output() again; on RETRY_ELSEWHERE call
        connection_lost() and go to another node; any other is final and leaves the session dead.
        Raises MalformedError where the frame is not an answer that the protocol allows.
        """
        frame = self._sendings.pop(request_id, None)
        if frame is None or frame.answer is not None:
            return None                 # of somebody else on this connection, or answered already
        if kind == frames.Kind.REPLY:
            reply = requests.decode_reply(body)
            if reply.refusal is not None:
                return self._refused(frame, request_id, Refusal(*reply.refusal, ""))
            if reply.first_sequence != frame.first_sequence or reply.count != frame.count:
                raise MalformedError("REPLY: its sequences are not those of the request")
            self._answered(frame, reply)
            return None
        if kind == frames.Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            return self._refused(frame, request_id, Refusal(code, text, leader))
        raise MalformedError(f"a frame of kind {kind} answers no request")

    def _answered(self, frame: _Frame, reply: Reply) -> None:
        frame.answer = reply
        frames_ = self._frames
        while frames_ and frames_[0].answer is not None:
            first = frames_.popleft()
            self._frames_bytes -= len(first.body)
            self.acknowledged = first.first_sequence + first.count - 1
            self._answers.append(first.answer)

    def _refused(self, frame: _Frame, request_id: int, refusal: Refusal) -> Refusal | None:
        frame.open -= 1
        if refusal.code in _OUTCOME_OPEN:
            frame.unknown = True
        if refusal.code not in RETRY_HERE and refusal.code not in RETRY_ELSEWHERE:
            self.dead = True
            return refusal
        if request_id != frame.request_id or self._resend:
            return None                 # superseded, or one of many that say the same
        self._resend = True
        return refusal

    # --- results out

    def take_answers(self) -> list[Reply]:
        """The replies that came since the last call, a Reply a frame, in order of sequence."""
        answers = self._answers
        if answers:
            self._answers = []
        return answers

    # --- where it stands

    @property
    def lowest_unanswered(self) -> int:
        """The sequence of the first command without an answer."""
        return self.acknowledged + 1

    @property
    def known(self) -> bool:
        """Whether everything unanswered was surely not executed.

        The sequences of a session are executed in order without a gap, so the first one decides.
        """
        if not self._frames:
            return not self._resumed
        frame = self._frames[0]
        return not frame.unknown and not frame.open

    @property
    def resume(self) -> str:
        """`session:sequence` under which the outcome of the first unanswered can be asked for."""
        return f"{self.session.hex()}:{self.lowest_unanswered}"


def request_checksum(command: bytes) -> int:
    """What tells a request that is resumed from another one."""
    return crc32(command)


def enqueue_encoder(queue: bytes) -> Callable[[bytes], bytes]:
    """A function that encodes an ENQUEUE of one message for that queue, four times as fast as
    commands.encode_enqueue and with the same bytes."""
    assert 1 <= len(queue) <= 255
    fixed = bytes((Operation.ENQUEUE, len(queue))) + queue + struct.pack(">I", 1)
    pack = struct.Struct(f">I{len(fixed)}sI").pack
    rest = len(fixed) + 4               # what the length counts besides the message

    def encode(message: bytes) -> bytes:
        size = len(message)
        return pack(rest + size, fixed, size) + message
    return encode
