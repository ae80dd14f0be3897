"""Bytes as printable text: messages, names, long lists, for the one-line texts of describe.py.

Rules: always one line, and never an exception.
"""

import json

MESSAGE_BYTES_SHOWN = 200
MESSAGES_SHOWN = 100


def describe_bytes(data: bytes) -> str:
    """A message or a name in double quotes; bytes that are no UTF-8 become \\xNN."""
    text = json.dumps(data[:MESSAGE_BYTES_SHOWN].decode("utf-8", "backslashreplace"),
                      ensure_ascii=False)
    # json leaves some characters that would break a line or turn it around on a terminal
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(data) > MESSAGE_BYTES_SHOWN:
        text += f"... ({len(data)} bytes)"
    return text


def describe_name(name: bytes) -> str:
    """The name of a queue or a key: bare where that is clear, else in quotes."""
    text = name.decode("utf-8", "backslashreplace")
    if text and text.isprintable() and not any(c in ' "\\' for c in text):
        return text
    return describe_bytes(name)


def describe_list(texts: list[str], count: int) -> str:
    """The first texts of `count`, and how many were left out."""
    left_out = count - len(texts)
    return " ".join(texts) + (f" ... ({left_out} more)" if left_out else "")


def describe_hex(payload: bytes) -> str:
    """Bytes of an unknown layout."""
    rest = f"... ({len(payload)} bytes)" if len(payload) > MESSAGE_BYTES_SHOWN else ""
    return payload[:MESSAGE_BYTES_SHOWN].hex() + rest
