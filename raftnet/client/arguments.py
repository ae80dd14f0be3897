"""The kinds of arguments that mqclient and the tools take, as functions for argparse.

Rules: each takes the text and gives the value, or raises ArgumentTypeError, whose text is shown.
"""

import argparse

from raftnet.client.changes import is_node_id
from raftnet.client.operations import LIMIT_MEANING, bounded_milliseconds, reason_text
from raftnet.client.receipts import format_receipt, parse_receipt
from raftnet.config import MachineConfig
from raftnet.errors import MalformedError
from raftnet.wire.address import format_address, parse_address
from raftnet.wire.requests import INTERNAL_SESSION, NO_SESSION, SESSION_BYTES

SEQUENCE_MAX = 2 ** 64 - 1
CHECKSUM_DIGITS = 8


class Literal(str):
    """A word that stood behind --: it means what it says, also where it says -."""


def mark_literals(words: list[str]) -> list[str]:
    """The same words, those behind the first -- as Literal."""
    if "--" not in words:
        return words
    place = words.index("--") + 1
    return words[:place] + [Literal(word) for word in words[place:]]


def means_stdin(word: str) -> bool:
    """Whether it is a - that was not given behind --."""
    return word == "-" and not isinstance(word, Literal)


def server_list(text: str) -> list[str]:
    """Addresses with commas between them."""
    return [node_address(part) for part in text.split(",") if part.strip()] or [node_address(text)]


def node_address(text: str) -> str:
    """host:port."""
    try:
        return format_address(*parse_address(text))
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def member_list(text: str) -> list[str]:
    """Addresses with commas between them, none of them twice."""
    addresses = server_list(text)
    if len(set(addresses)) != len(addresses):
        raise argparse.ArgumentTypeError("an address is named twice")
    return addresses


def member(text: str) -> str:
    """An address, or a node id."""
    return text.lower() if is_node_id(text) else node_address(text)


def file_name(text: str) -> str:
    """The name of a file to write."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError("the name of a file is needed")
    return text


def queue(text: str) -> str:
    """A queue's name."""
    if not text:
        raise argparse.ArgumentTypeError("a queue's name is not empty")
    return text


def key(text: str) -> str:
    """A key."""
    if not text:
        raise argparse.ArgumentTypeError("a key is not empty")
    return text


def receipt(text: str) -> str:
    """ID:DELIVERY."""
    try:
        return format_receipt(*parse_receipt(text))
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def dedup_id(text: str) -> str:
    """A deduplication id."""
    if not text:
        raise argparse.ArgumentTypeError("an id is not empty")
    return text


def duration(text: str) -> float:
    """Seconds above 0, fractions included."""
    seconds = wait(text)
    if not seconds:
        raise argparse.ArgumentTypeError("a number of seconds above 0 is needed")
    return seconds


def wait(text: str) -> float:
    """Seconds from 0 on, fractions included."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:             # refuses nan too
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def reason(text: str) -> str:
    """Of a nack: what is too long is cut."""
    return reason_text(text).decode("utf-8", "surrogateescape")


def lease(text: str) -> float:
    """Seconds that a lease may last, above 0."""
    return _bounded(text, "lease_ms_max")


def delay(text: str) -> float:
    """Seconds that a message may be delayed, from 0 on."""
    return _bounded(text, "delay_ms_max")


def ttl(text: str) -> float:
    """Seconds that a message, a key or a deduplication id may live, from 0 on."""
    return _bounded(text, "ttl_ms_max")


def _bounded(text: str, limit: str) -> float:
    seconds = wait(text)
    try:
        bounded_milliseconds(seconds, "seconds", limit)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {LIMIT_MEANING[limit]}") from error
    return seconds


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1, SEQUENCE_MAX, "from 1 on")


def number(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0, SEQUENCE_MAX, "from 0 on")


def message_count(text: str) -> int:
    """So many messages at once."""
    count_max = MachineConfig().dequeue_count_max
    return _whole(text, 1, count_max, f"from 1 to {count_max}")


def shown_count(text: str) -> int:
    """So many leases or messages shown at once."""
    count_max = MachineConfig().shown_count_max
    return _whole(text, 1, count_max, f"from 1 to {count_max}")


def priority(text: str) -> int:
    """Of a message."""
    highest = MachineConfig().priorities - 1
    return _whole(text, 0, highest, f"from 0 to {highest}")


def _whole(text: str, least: int, most: int, words: str) -> int:
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:21]) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number {words} is needed")
    return int(text[:21])


def resumed(text: str) -> tuple[bytes, int, int | None]:
    """SESSION:SEQUENCE:CHECKSUM, or without the last; a checksum tells other requests apart."""
    session, _, sequence = text.partition(":")
    sequence, colon, checksum = sequence.partition(":")
    try:
        data = bytes.fromhex(session)
    except ValueError:
        data = b""
    if len(data) != SESSION_BYTES or data in (NO_SESSION, INTERNAL_SESSION):
        raise argparse.ArgumentTypeError("32 hexadecimal digits, a colon and a number are needed")
    if not colon:
        return data, positive(sequence), None
    if len(checksum) != CHECKSUM_DIGITS or not set(checksum) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{checksum!r}: {CHECKSUM_DIGITS} hexadecimal digits are "
                                         "needed behind the second colon")
    return data, positive(sequence), int(checksum, 16)
