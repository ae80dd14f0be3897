"""`host:port`: how people and nodes name a node; `[::1]:5001` for IPv6.

Rules: text in, (host, port) out, and back; no name is looked up here. An address is compared as its
text, so `format_address(*parse_address(text))` is the one form that is kept.
"""

from raftnet.errors import MalformedError

PORT_MAX = 65_535
LABEL_BYTES_MAX = 63        # as DNS allows
HOST_BYTES_MAX = 255        # as DNS allows, and so that an address fits every layout


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port` or `[IPv6]:port`; the port is 1 to 65535.

    Raises MalformedError, with a text that says what is wrong and how it is written.
    """
    text = text.strip()
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":"):
            raise MalformedError(f"{text!r} is no address: IPv6 is written [::1]:5001")
        port = port[1:]
        if ":" not in host:
            raise MalformedError(f"{text!r} is no address: brackets are for IPv6 alone")
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise MalformedError(f"{text!r} is no address: host:port is needed")
        if ":" in host:
            raise MalformedError(f"{text!r} is no address: IPv6 is written [::1]:5001")
    if not host or len(host.encode("utf-8", "replace")) > HOST_BYTES_MAX \
            or any(c.isspace() or not c.isprintable() or c in "[]," for c in host):
        raise MalformedError(f"{text!r} is no address: the host is missing or no host name")
    if ":" not in host and any(not 1 <= len(label.encode()) <= LABEL_BYTES_MAX
                               for label in host.removesuffix(".").split(".")):
        raise MalformedError(f"{text!r} is no address: between the dots of a host name are 1 to "
                             f"{LABEL_BYTES_MAX} letters")
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise MalformedError(f"{text!r} is no address: the port must be a number")
    if not 1 <= int(port) <= PORT_MAX:
        raise MalformedError(f"{text!r} is no address: the port must be 1 to {PORT_MAX}")
    return host, int(port)


def check_address(text: str) -> None:
    """Refuse what is no address, or not written in the one form that is kept: it is compared as
    text. Raises MalformedError."""
    kept = format_address(*parse_address(text))
    if kept != text:
        raise MalformedError(f"{text[:HOST_BYTES_MAX]!r} is written {kept}")


def format_address(host: str, port: int) -> str:
    """The text of an address, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
