"""What mqclient prints: results on stdout as bytes or JSON, diagnostics on stderr.

Rules: a message is written byte for byte as it was enqueued, so no encoding can fail; every line is
written at once, so that a pipe sees it, and past all buffers, so that what failed is not written
later. Status tables are in statusview.py.
"""

import base64
import contextlib
import json
import select
from typing import BinaryIO, TextIO

from raftnet.client.operations import Message, QueueSize, to_bytes
from raftnet.client.receipts import LeasedMessage
from raftnet.client.transactions import Enqueued, Purged
from raftnet.wire.kvcommands import KvItem
from raftnet.wire.queueresults import Outcome


class Output:
    """Where results and diagnostics go. `as_json`: results are JSON, a document a command.
    Whatever writes results raises OSError where it cannot; `failed` is that error."""

    def __init__(self, stdout: BinaryIO, stderr: TextIO, as_json: bool = False):
        self.stdout = stdout
        self.stderr = stderr
        self.as_json = as_json
        self.failed: OSError | None = None
        self._unbuffered = getattr(stdout, "raw", stdout)

    def line(self, text: str | bytes) -> None:
        """One line of result."""
        self.lines([text])

    def lines(self, texts: list[str | bytes]) -> None:
        """Lines of result, written at once."""
        data = [text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
                for text in texts]
        left = memoryview(b"".join(line + b"\n" for line in data))
        try:
            while left:
                written = self._unbuffered.write(left)
                if written is None:         # a pipe that does not block, and is full
                    poll = select.poll()
                    poll.register(self.stdout, select.POLLOUT)
                    poll.poll()
                left = left[written or 0:]
        except OSError as error:
            self.failed = error
            raise

    def document(self, value: object) -> None:
        """One JSON document, on one line."""
        self.line(json.dumps(value, ensure_ascii=False))

    def say(self, text: str) -> None:
        """A diagnostic."""
        # stderr may not be able to show everything that a name or a reason may hold
        encoding = getattr(self.stderr, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        # where stderr is full or gone there is nobody left to tell; the exit status stays
        with contextlib.suppress(OSError):
            self.stderr.write(f"mqclient: {text}\n")
            self.stderr.flush()

    def read_at(self, local: str | None, index: int | None) -> None:
        """With --local: up to where that node has seen everything, on stderr."""
        if local is not None:
            self.say(f"at index {index}")

    def ids(self, ids: list[int]) -> None:
        """Message ids, a line each."""
        self.lines([str(message_id) for message_id in ids])

    def messages(self, messages: list[Message]) -> None:
        """Messages, a line each, or a JSON list."""
        if self.as_json:
            self.document([message_object(message) for message in messages])
        else:
            self.lines([message.data for message in messages])


def message_object(message: Message) -> dict:
    """A message for JSON: `text`, and the bytes in `base64` too where they are no UTF-8."""
    return {"id": message.id} | text_object("text", message.data)


def leased_object(message: LeasedMessage) -> dict:
    """A message taken under a lease for JSON."""
    return message_object(message) | {"receipt": message.receipt, "deliveries": message.deliveries}


def text_object(name: str, data: bytes) -> dict:
    """Bytes for JSON under that name; where they are no UTF-8, in base64 under another too."""
    found = {name: printable(data)}
    if to_bytes(found[name]) != data:
        other = "base64" if name == "text" else f"{name}_base64"
        found[other] = base64.b64encode(data).decode()
    return found


def printable(data: bytes) -> str:
    """UTF-8, with \\xNN for bytes that are none."""
    return data.decode("utf-8", "backslashreplace")


def size_text(size: int) -> str:
    """A number of bytes for people: 120.0 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def seconds_text(milliseconds: int) -> str:
    """Milliseconds as seconds: 90, 0.25."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)


def outcome_object(outcome: object) -> dict:
    """One result of an execute for JSON."""
    if isinstance(outcome, QueueSize):
        return {"size": outcome.messages, "bytes": outcome.bytes}
    if isinstance(outcome, KvItem):
        return {"version": outcome.version} | text_object("value", outcome.value)
    if outcome is None:
        return {"absent": True}
    if isinstance(outcome, Purged):
        return {"removed": int(outcome), "left": outcome.left}
    if isinstance(outcome, int):
        return {"version": outcome}
    if isinstance(outcome, tuple):
        return {"outcomes": [Outcome(one).name.lower() for one in outcome]}
    if isinstance(outcome, Enqueued):
        return {"ids": outcome, "duplicates": outcome.duplicates}
    if outcome and isinstance(outcome[0], int):
        return {"ids": outcome}
    return {"messages": [leased_object(message) if isinstance(message, LeasedMessage)
                         else message_object(message) for message in outcome]}
