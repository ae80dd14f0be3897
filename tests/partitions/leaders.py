"""Who was elected when, from the action logs; and whether two nodes answered as leaders at once.

An answer belongs to the newest election of its node before it. Let one be given in term t at a
moment: no question that is asked later may be answered in a term below t. That is what can be seen
from outside of two nodes that lead at the same time.
"""

import bisect
import re
import time
from itertools import accumulate
from typing import NamedTuple

from tests.partitions.load import Answer

_ELECTED = re.compile(r"\[([^]]+)\] \[(\d\d):(\d\d):(\d\d\.\d\d\d)\] leader term (\d+): "
                      r"elected leader")
_CUT_S = 0.001              # the logs cut times to whole milliseconds
_DAY_S = 86_400.0


class Election(NamedTuple):
    """One that was won. Seconds of time.monotonic()."""

    won_s: float
    address: str
    term: int


def elections(log: str) -> list[Election]:
    """Those that a log of less than half a day tells of, in order."""
    now = time.time()
    local = time.localtime(now)
    today_s = local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec + now % 1
    found = []
    for address, hours, minutes, seconds, term in _ELECTED.findall(log):
        at_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        ago_s = (today_s - at_s + _DAY_S / 2) % _DAY_S - _DAY_S / 2
        found.append(Election(time.monotonic() - ago_s, address, int(term)))
    return found


def problems(won: list[Election], answers: list[Answer]) -> list[str]:
    """A line for each term with two leaders, and each answer of one that led no more."""
    found = []
    owners: dict[int, str] = {}
    for election in won:
        other = owners.setdefault(election.term, election.address)
        if other != election.address:
            found.append(f"two leaders: {other} and {election.address} in term {election.term}")
    given = sorted((answer.answered_s, _term(won, answer), answer) for answer in answers)
    found += [f"two leaders: {answer.address} answers a read and was never elected"
              for _, term, answer in given if not term]
    ended = [answered_s for answered_s, _, _ in given]
    highest = list(accumulate((term for _, term, _ in given), max))
    for answered_s, term, answer in given:
        before = bisect.bisect_left(ended, answer.asked_s)
        if before and highest[before - 1] > term > 0:
            found.append(f"two leaders: {answer.address} answers in term {term} a read that was "
                         f"asked {(answered_s - answer.asked_s) * 1000:.0f} ms before, after an "
                         f"answer in term {highest[before - 1]}")
    return found


def _term(won: list[Election], answer: Answer) -> int:
    """In which the answer was given, at most; 0: none."""
    return max((election.term for election in won if election.address == answer.address
                and election.won_s - _CUT_S <= answer.answered_s), default=0)
