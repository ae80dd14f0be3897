"""LinkProfile: what happens to packets on one direction of a link, in the words of tc's netem.

Rules: the words, units and meanings are those of `tc qdisc ... netem` (tc-netem(8)), so that a line
for tc can be used as it is; what is not known here is refused with a line that says what is.
Parsing only: networkrouter.py does it to packets. Shares and correlations are from 0 to 1 here.
"""

import re
from dataclasses import dataclass, fields, replace

from raftnet.errors import MalformedError

LIMIT_DEFAULT = 1_000       # packets that wait on a link at most, as tc has it
LIMIT_MAX = 1_000_000
DELAY_S_MAX = 3_600.0
RATE_BITS_MAX = 1e15
GAP_MAX = 1_000_000

# tc's units: of a time in seconds, of a rate in bits a second. A bare number is the first one.
_TIMES = {"": 1e-6, "us": 1e-6, "usec": 1e-6, "usecs": 1e-6, "ms": 1e-3, "msec": 1e-3,
          "msecs": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "ns": 1e-9}
_RATES = {"": 1.0, "bit": 1.0, "bps": 8.0}
for _letter, _power in (("k", 1), ("m", 2), ("g", 3), ("t", 4)):
    _RATES[_letter + "bit"] = 1000.0 ** _power
    _RATES[_letter + "bps"] = 8 * 1000.0 ** _power
    _RATES[_letter + "ibit"] = 1024.0 ** _power
    _RATES[_letter + "ibps"] = 8 * 1024.0 ** _power
_PERCENT = {"": 0.01, "%": 0.01}
_WHOLE = {"": 1.0}
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([a-z%]*)", re.ASCII)
_SHARES = ("loss", "duplicate", "corrupt", "reorder")
_SYNONYMS = {"latency": "delay", "drop": "loss"}
_FORMS = {"delay": "delay TIME [JITTER [CORRELATION]]", "distribution": "distribution uniform",
          **{name: f"{name} PERCENT [CORRELATION]" for name in _SHARES}, "gap": "gap N",
          "rate": "rate RATE", "limit": "limit PACKETS"}


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """One direction of a link. Times in seconds, the rate in bits a second (0: none), `limit` in
    packets, all else from 0 to 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0               # delay - jitter to delay + jitter, evenly
    delay_correlation: float = 0.0
    loss: float = 0.0
    loss_correlation: float = 0.0
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0                # this share has one bit flipped, anywhere
    corrupt_correlation: float = 0.0
    reorder: float = 0.0                # this share is sent at once, without the delay
    reorder_correlation: float = 0.0
    gap: int = 1                        # only every so many packets may be sent at once
    rate_bits: float = 0.0
    limit: int = LIMIT_DEFAULT          # more packets than that on their way: dropped

    @property
    def clean(self) -> bool:
        """Whether packets pass at once and as they are."""
        return self == replace(LinkProfile(), limit=self.limit, gap=self.gap)

    @classmethod
    def parse(cls, text: str) -> "LinkProfile":
        """tc's words, as `delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% 5% loss 5%`; none
        for a clean link. A bare time is in microseconds, as with tc. Raises MalformedError."""
        found: dict[str, float] = {}
        words = text.split()
        while words:
            name = words.pop(0)
            name = _SYNONYMS.get(name, name)
            if name == "loss" and words[:1] == ["random"]:
                words.pop(0)
            values = []
            while words and words[0][:1] in "0123456789.":
                values.append(words.pop(0))
            if name == "distribution":
                if words[:1] != ["uniform"] or values:
                    raise MalformedError("distribution: only `uniform` is known here")
                words.pop(0)
                continue
            if name not in _FORMS:
                raise MalformedError(f"{name!r} is not known; known are {', '.join(_FORMS)}")
            if not values:
                raise MalformedError(f"{_FORMS[name]} is needed, not "
                                     f"{' '.join([name, *words[:1]])!r}")
            named = _values(name, values)
            if found.keys() & named.keys():
                raise MalformedError(f"{name!r} twice in {text!r}")
            found |= named
        profile = cls(**found)
        if "gap" in found and not profile.reorder:
            raise MalformedError("gap: needs `reorder PERCENT` beside it")
        return profile

    def words(self) -> str:
        """The same in words that `parse` and tc take; "" for a clean link."""
        parts = []
        if self.delay_s or self.jitter_s:
            parts.append(f"delay {_time(self.delay_s)}")
            if self.jitter_s or self.delay_correlation:
                parts += [_time(self.jitter_s), _share(self.delay_correlation)]
        for name in _SHARES:
            if getattr(self, name):
                parts += [name, f"{100 * getattr(self, name):.6g}%",
                          _share(getattr(self, name + "_correlation"))]
        if self.gap != 1:
            parts.append(f"gap {self.gap}")
        if self.rate_bits:
            parts.append(f"rate {self.rate_bits:.0f}bit")
        if self.limit != LIMIT_DEFAULT:
            parts.append(f"limit {self.limit}")
        return " ".join(part for part in parts if part)


_FIELDS = {field.name for field in fields(LinkProfile)}


def _values(name: str, values: list[str]) -> dict[str, float]:
    """The fields that a word with its values sets."""
    if name == "delay" and 1 <= len(values) <= 3:
        names = ("delay_s", "jitter_s", "delay_correlation")
        units = (_TIMES, _TIMES, _PERCENT)
        found = {key: _number(name, value, unit, DELAY_S_MAX if unit is _TIMES else 1)
                 for key, value, unit in zip(names, values, units)}
    elif name in _SHARES and 1 <= len(values) <= 2:
        found = {key: _number(name, value, _PERCENT, 1)
                 for key, value in zip((name, name + "_correlation"), values)}
    elif name == "rate" and len(values) == 1:
        found = {"rate_bits": _number(name, values[0], _RATES, RATE_BITS_MAX)}
    elif name in ("gap", "limit") and len(values) == 1 and values[0].isdigit():
        found = {name: int(_number(name, values[0], _WHOLE, GAP_MAX if name == "gap"
                                   else LIMIT_MAX))}
        if not found[name]:
            raise MalformedError(f"{name}: a number from 1 on is needed")
    else:
        raise MalformedError(f"{_FORMS[name]} is needed, not {' '.join([name, *values])!r}")
    assert found.keys() <= _FIELDS
    return found


def _number(name: str, text: str, units: dict[str, float], maximum: float) -> float:
    match = _NUMBER.fullmatch(text.lower())
    if match is None or match[2] not in units:
        raise MalformedError(f"{name}: {text!r} has none of the units "
                             f"{', '.join(unit for unit in units if unit) or '(a bare number)'}")
    value = float(match[1]) * units[match[2]]
    if value > maximum:
        raise MalformedError(f"{name}: {text!r} is too much")
    return value


def _time(seconds: float) -> str:
    if seconds >= 1e-3:
        return f"{1e3 * seconds:.9g}ms"
    return f"{1e6 * seconds:.6g}us" if seconds else "0ms"


def _share(value: float) -> str:
    return f"{100 * value:.6g}%" if value else ""
