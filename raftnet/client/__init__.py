"""The client library of raftnet (README.md): `from raftnet.client import Client`."""

from raftnet.client.backup import HeldSnapshot
from raftnet.client.client import Client, Queue
from raftnet.client.operations import Message, QueueSize
from raftnet.client.receipts import LeasedMessage
from raftnet.errors import StateRefusedError
from raftnet.wire.commands import Status

__all__ = ["Client", "HeldSnapshot", "LeasedMessage", "Message", "Queue", "QueueSize",
           "StateRefusedError", "Status"]
