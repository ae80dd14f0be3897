"""The client library of raftnet (README.md): `from raftnet.client import Client`."""

from raftnet.client.client import Client, Queue
from raftnet.client.operations import Message, QueueSize

__all__ = ["Client", "Message", "Queue", "QueueSize"]
