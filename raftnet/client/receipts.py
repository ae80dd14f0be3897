"""Receipts: what a consumer holds for a message that it took under a lease.

Text: `ID:DELIVERY` in decimal. The delivery is what makes it a receipt: once the lease has ended,
the message is delivered again under another number, and the old receipt is refused as stale.
"""

import os
import socket
from dataclasses import dataclass

from raftnet.client.operations import Message, U64_MAX
from raftnet.errors import MalformedError
from raftnet.wire.queueresults import Leased

CONSUMER_BYTES_MAX = 255

Receipt = str | tuple[int, int]


@dataclass(slots=True)
class LeasedMessage(Message):
    """A message taken under a lease: to be acknowledged before that ends."""

    delivery: int
    deliveries: int         # how often it was delivered, this time included

    @property
    def receipt(self) -> str:
        """What ack, nack and extend take."""
        return format_receipt(self.id, self.delivery)


def leased_message(leased: Leased) -> LeasedMessage:
    """The message of a LEASE's result."""
    return LeasedMessage(leased.id, leased.message, leased.delivery, leased.deliveries)


def format_receipt(message_id: int, delivery: int) -> str:
    """`ID:DELIVERY`."""
    return f"{message_id}:{delivery}"


def parse_receipt(receipt: Receipt) -> tuple[int, int]:
    """(message id, delivery); raises MalformedError."""
    if isinstance(receipt, tuple) and len(receipt) == 2:
        numbers = receipt
    elif isinstance(receipt, str):
        parts = receipt.split(":")
        if len(parts) == 1 and _is_number(receipt):
            raise MalformedError(f"{receipt} is a message's id: a receipt is ID:DELIVERY, as "
                                 "dequeue --lease printed it")
        if len(parts) != 2 or not all(map(_is_number, parts)):
            raise MalformedError(f"{receipt[:100]!r} is no receipt, which is ID:DELIVERY in "
                                 "digits, as dequeue --lease printed it")
        numbers = tuple(map(int, parts))
    else:
        raise MalformedError(f"{receipt!r} is no receipt: a text ID:DELIVERY is needed")
    if not all(isinstance(number, int) and 0 <= number <= U64_MAX for number in numbers):
        raise MalformedError(f"{receipt!r} is no receipt: its numbers are too large")
    return numbers


def parse_receipts(receipts: Receipt | list[Receipt]) -> list[tuple[int, int]]:
    """One or several; raises MalformedError."""
    if isinstance(receipts, (str, tuple)):
        receipts = [receipts]
    if not isinstance(receipts, list) or not receipts:
        raise MalformedError("at least one receipt is needed")
    return [parse_receipt(receipt) for receipt in receipts]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(U64_MAX))


def default_consumer() -> str:
    """`host:pid` of this process, which is what others are shown of it."""
    pid = f":{os.getpid()}"
    name = socket.gethostname().encode("utf-8", "surrogateescape")[:CONSUMER_BYTES_MAX - len(pid)]
    return name.decode("utf-8", "ignore") + pid
