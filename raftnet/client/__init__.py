"""The client library of raftnet (README.md): `from raftnet.client import Client`."""

from raftnet.client.backup import HeldSnapshot
from raftnet.client.client import Client, Queue
from raftnet.client.operations import Message, QueueSize

__all__ = ["Client", "HeldSnapshot", "Message", "Queue", "QueueSize"]
