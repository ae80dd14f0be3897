"""protocol.md as data: its tables by heading, its examples in order; and a layout table as bytes.

Rules: nothing here knows what the layouts mean (layouts.py). What is not of the expected form is an
error at once, so that a slip in the document cannot hide a table from the tests.
"""

import re
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parents[2] / "protocol.md"
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "flag": 1}


class Example(NamedTuple):
    """A block of hex: what it shows ("" is a frame), and its pieces, each with its note."""

    what: str
    heading: str
    pieces: list[tuple[bytes, str]]

    @property
    def data(self) -> bytes:
        return b"".join(data for data, _ in self.pieces)


class Document:
    """The tables by their heading, as lists of rows by column; the examples in order."""

    def __init__(self, text: str):
        self.text = text
        self.headings: list[str] = []
        self.tables: dict[str, list[list[dict[str, str]]]] = {}
        self.examples: list[Example] = []
        self._fence: str | None = None
        columns = None
        for line in text.splitlines():
            if line.startswith("```") or self._fence is not None:
                self._code(line)
            elif line.startswith("#"):
                self.headings.append(re.sub(r"^#+ (\d+\. )?", "", line))
            elif not line.startswith("|"):
                columns = None
            elif columns is None:
                columns = self._cells(line)
                rows = []
                self.tables.setdefault(self.headings[-1], []).append(rows)
            elif not line.startswith("|---"):
                rows.append(dict(zip(columns, self._cells(line), strict=True)))

    @staticmethod
    def _cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    def _code(self, line: str) -> None:
        if not line.startswith("```"):
            if self._fence.startswith("hex"):
                self._hex(line)
        elif self._fence is not None:
            self._fence = None
        else:
            self._fence = line[3:]
            if self._fence.startswith("hex"):
                self.examples.append(Example(self._fence[3:].strip(), self.headings[-1], []))

    def _hex(self, line: str) -> None:
        digits, semicolon, note = line.partition(";")
        pieces = self.examples[-1].pieces
        if semicolon:
            pieces.append((bytes.fromhex(digits), note.strip()))
        else:
            data, note = pieces[-1]
            pieces[-1] = (data + bytes.fromhex(digits), note)

    def layouts(self) -> dict[str, list[dict[str, str]]]:
        """The layout tables by their heading."""
        return {heading: rows for heading, tables in self.tables.items()
                for rows in tables if rows and list(rows[0]) == ["at", "type", "field", "meaning"]}

    def numbered(self, heading: str) -> list[dict[str, str]]:
        """The table under that heading whose rows have numbers."""
        (rows,) = [rows for rows in self.tables[heading] if "number" in rows[0]]
        return rows


DOCUMENT = Document(PATH.read_text(encoding="utf-8"))


# --- filling a layout table


def size_of(kind: str) -> int | None:
    """Bytes of a type, None where they vary."""
    fixed = re.fullmatch(r"(?:zero )?(\d+)(?: bytes)?", kind)
    return int(fixed[1]) if fixed else SIZES.get(kind)


def encode(kind: str, value) -> bytes:
    """A value of a type; what the document's own words describe is given as bytes."""
    if kind in SIZES:
        return int(value).to_bytes(SIZES[kind], "big")
    repeated = re.fullmatch(r"\w*count × (u\d+|string|text|flag)", kind)
    if repeated and isinstance(value, list):
        return b"".join(encode(repeated[1], one) for one in value)
    if kind == "strings":
        return encode("u16", len(value)) + b"".join(encode("string", one) for one in value)
    if kind == "string":
        return len(value.encode()).to_bytes(2, "big") + value.encode()
    if kind in ("name", "text"):
        return bytes((len(value),)) + value
    return value


def _made(kind: str, name: str, number: int):
    """A value of that type, another one for each number."""
    if kind in SIZES:
        return {"flag": number % 2, "u8": number + 100}.get(kind, number * 263)
    if kind in ("string", "name", "text"):
        text = f"{name} {number}"
        return text if kind == "string" else text.encode()
    if kind == "strings":
        return [f"{name} {number}", ""]
    size = size_of(kind) or 0
    return bytes(size) if kind.startswith("zero") else bytes((number,)) * size


def fill(rows: list[dict[str, str]], given: dict) -> tuple[bytes, dict]:
    """Bytes in that layout, and the values in them by field: given, or each another one. A pair
    that is given is what stands in the bytes, and the value that they mean."""
    data, values = b"", {}
    for number, row in enumerate(rows, 1):
        kind, name = row["type"], row["field"]
        made = _made(kind, name, number)
        value = given.get(name, made)
        in_bytes, values[name] = value if isinstance(value, tuple) else (value, value)
        data += encode(kind, in_bytes)
    return data, values
