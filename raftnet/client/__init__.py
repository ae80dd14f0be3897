"""The client library of raftnet (README.md): `from raftnet.client import Client`.

Here is whatever its public methods take, give and raise; each is explained where it is defined.
Errors: MalformedError for arguments that are none; RefusedError (StateRefusedError: by what the
queues or keys hold), surely not done, its `code` an ErrorCode; NoAnswerError, which says whether
the outcome is known; StorageError for this machine's disk; all are a RaftnetError.

Watching keys and queues: watching.py.
"""

from raftnet.client.backup import HeldSnapshot
from raftnet.client.changes import Changed
from raftnet.client.client import Client
from raftnet.client.operations import Message, QueueSize
from raftnet.client.queue import Moved, Queue
from raftnet.client.receipts import LeasedMessage, Receipt
from raftnet.client.transactions import Enqueued, Purged
from raftnet.errors import (DiskFullError, ErrorCode, MalformedError, NoAnswerError, RaftnetError,
                            RefusedError, StateRefusedError, StorageError)
from raftnet.raft.entry import Entry, EntryKind
from raftnet.wire.commands import Status
from raftnet.wire.kvcommands import NO_CONDITION, Condition, ConditionKind, KvItem
from raftnet.wire.queuecommands import Overflow, Setting
from raftnet.wire.queueresults import (Description, Event, Inspected, LeaseUnderWay, Outcome,
                                       Reason)
from raftnet.wire.requests import MemberStatus, NodeStatus

__all__ = [
    "Changed", "Client", "Condition", "ConditionKind", "Description", "DiskFullError",
    "Enqueued", "Entry", "EntryKind", "ErrorCode", "Event", "HeldSnapshot", "Inspected",
    "KvItem", "LeaseUnderWay", "LeasedMessage", "MalformedError", "MemberStatus", "Message",
    "Moved", "NO_CONDITION", "NoAnswerError", "NodeStatus", "Outcome", "Overflow", "Purged",
    "Queue", "QueueSize", "RaftnetError", "Reason", "Receipt", "RefusedError", "Setting",
    "StateRefusedError", "Status", "StorageError"]
