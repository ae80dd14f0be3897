"""Every exception of raftnet, and the error codes that travel on the wire.

Rules: an exception here is something that the world may do (a bad frame, a full disk, a leader that
is elsewhere); a broken rule of our own is an `assert` and stops the node. Floor 0: imports nothing
of the package. The numbers are part of the protocol (protocol.md, Errors): never renumber.
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a request was refused as a whole; body of an ERROR frame, or form REFUSED of a REPLY."""

    NOT_LEADER = 1
    LEADERSHIP_LOST = 2
    BUSY = 3
    OUT_OF_ORDER = 4
    SESSION_EXPIRED = 5
    ALREADY_ACKNOWLEDGED = 6
    BAD_FRAME = 7
    UNKNOWN_KIND = 8
    BAD_REQUEST = 9
    DISK_FULL = 10
    NOT_READY = 11
    WRONG_CLUSTER = 12
    ADDRESS_TAKEN = 13
    CHANGE_UNDER_WAY = 14
    TOO_LARGE = 15
    SESSION_LIMIT = 16
    WRONG_VERSION = 17
    GREETING_REQUIRED = 18
    OLD_COPY = 19
    REMOVED = 20
    NOT_A_MEMBER = 21
    QUORUM_AT_RISK = 22
    NOT_EMPTY = 23
    TRANSFER_FAILED = 24
    NO_SNAPSHOT = 25
    WATCH_GONE = 26


# What the reader of the code should do; one line each, also shown to people.
ERROR_MEANING = {
    ErrorCode.NOT_LEADER:
        "surely not executed: ask the leader named in the reply, or any other node",
    ErrorCode.LEADERSHIP_LOST: "outcome unknown: send again under the same session and sequence",
    ErrorCode.BUSY: "surely not executed: send again a little later under the same sequence",
    ErrorCode.OUT_OF_ORDER: "surely not executed: send again from the lowest unanswered sequence",
    ErrorCode.SESSION_EXPIRED: "the session is unknown here: its outcome can no longer be learned",
    ErrorCode.ALREADY_ACKNOWLEDGED: "executed earlier, and its reply was acknowledged and dropped",
    ErrorCode.BAD_FRAME: "the bytes are not a whole, undamaged frame: reconnect",
    ErrorCode.UNKNOWN_KIND: "this node knows no frame of that kind",
    ErrorCode.BAD_REQUEST: "the body does not have the layout of its kind",
    ErrorCode.DISK_FULL: "surely not executed: the leader's disk is full; free space there",
    ErrorCode.NOT_READY:
        "surely not executed: the cluster is not founded or the leader not ready yet",
    ErrorCode.WRONG_CLUSTER: "the two nodes belong to different clusters",
    ErrorCode.ADDRESS_TAKEN: "another node of the cluster has that address",
    ErrorCode.CHANGE_UNDER_WAY: "one membership change at a time: try again when it is done",
    ErrorCode.TOO_LARGE: "over a limit of this protocol: send less at once",
    ErrorCode.SESSION_LIMIT: "surely not executed: the cluster keeps as many sessions as it may",
    ErrorCode.WRONG_VERSION: "no protocol version in common",
    ErrorCode.GREETING_REQUIRED: "messages between nodes need a HELLO first on that connection",
    ErrorCode.OLD_COPY: "the node's data directory is an old copy: it must stop",
    ErrorCode.REMOVED: "the node was removed from the cluster: stop it, or empty it and add it",
    ErrorCode.NOT_A_MEMBER: "the cluster has no such member: look at the members",
    ErrorCode.QUORUM_AT_RISK:
        "not done: too few of the remaining voters are heard; bring them back first",
    ErrorCode.NOT_EMPTY: "the node has data of its own: empty its directory, then start it again",
    ErrorCode.NO_SNAPSHOT:
        "no snapshot was made, or it is held no more: ask this node for a new one",
    ErrorCode.WATCH_GONE:
        "changes that far back are kept no more: read anew, and watch from the index of that read",
    ErrorCode.TRANSFER_FAILED: "the same leader goes on: the other node did not take over in time",
}


class RaftnetError(Exception):
    """Parent of all; its text is one line that says what to do next."""


class FrameError(RaftnetError):
    """Bytes that are not a valid frame: the connection cannot go on. `code` is what to answer."""

    def __init__(self, text: str, code: ErrorCode = ErrorCode.BAD_FRAME):
        super().__init__(text)
        self.code = code


class MalformedError(RaftnetError):
    """A body, command or entry that does not have the layout of its kind."""


class NotLeaderError(RaftnetError):
    """Raised by the core's `propose` and `read` on a node that does not lead."""


class BusyError(RaftnetError):
    """Raised by `propose` when too much is proposed and not yet committed."""


class ChangeRefusedError(RaftnetError):
    """A membership change that the rules forbid now. `code` is what to answer."""

    def __init__(self, text: str, code: ErrorCode = ErrorCode.CHANGE_UNDER_WAY):
        super().__init__(text)
        self.code = code


class StorageError(RaftnetError):
    """A data directory that the node cannot start with, or a disk that it cannot go on with."""


class DamagedError(StorageError):
    """What was synced is damaged, missing, cut or of another directory: nothing was changed.

    The node may set its files aside and be taken in anew (storage/damage.py), never go on.
    """


class CorruptFileError(DamagedError):
    """Damage in data that was synced: names the path and the offset in bytes."""

    def __init__(self, path: str, offset: int, text: str):
        super().__init__(f"{path}: damaged at byte {offset}: {text}")
        self.path = path
        self.offset = offset


class DirectoryLockedError(StorageError):
    """Another process has this data directory."""


class DiskFullError(StorageError):
    """No space left: nothing of the refused write remains in the file; it may be tried again."""


class RefusedError(RaftnetError):
    """A server refused a request, surely without executing it (client library)."""

    def __init__(self, code: int, text: str, leader: str | None = None):
        super().__init__(text)
        self.code = code
        self.leader = leader


class StateRefusedError(RefusedError):
    """What the queues or keys hold forbids a command: nothing was done (client library).

    `status` is the command's (wire/commands.py, Status). `version` and `value`: what the key has
    (CONFLICT; 0: it is absent). `position`: of the condition or operation in its list, from 0.
    """

    def __init__(self, status: int, text: str, version: int | None = None,
                 value: bytes | None = None, position: int | None = None):
        super().__init__(ErrorCode.BAD_REQUEST, text)
        self.status = status
        self.version = version
        self.value = value
        self.position = position


class NoAnswerError(RaftnetError):
    """No answer within the time limit (client library).

    `known` is True where the request was surely not executed; else `resume` is the
    `session:sequence` under which the outcome can still be asked for.
    """

    def __init__(self, text: str, known: bool, resume: str | None = None):
        super().__init__(text)
        self.known = known
        self.resume = resume
