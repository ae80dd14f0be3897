"""What happened after a kill, and when, from the action logs of the nodes that live on.

The logs have milliseconds of the wall clock; a Timeline counts from the kill.
"""

import re
import statistics
import time

# The first line of any node that matches, after the kill.
STEPS = (
    ("end seen", r"the connection to {dead} ended|{dead} has gone"),
    ("refused", r"the leader {dead} is gone"),
    ("pre-vote", r"pre-vote for term \d+ asked"),
    ("vote", r": vote for term \d+ asked"),
    ("elected", r"elected leader"),
)
_LINE = re.compile(r"\[[^]]+\] \[(\d\d):(\d\d):(\d\d)\.(\d\d\d)\] (.*)")
_DAY_S = 86_400.0


class Timeline:
    """Milliseconds from a kill to each of STEPS (None: no such line), and to the first answer.

    `wall_s`: the kill, of time.time(); `logs`: address -> text; `answer_s`: from the kill on.
    """

    def __init__(self, wall_s: float, dead: str, logs: dict[str, str], answer_s: float):
        self.steps: dict[str, float | None] = {}
        local = time.localtime(wall_s)
        kill_s = local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec + wall_s % 1
        events = []
        for text in logs.values():
            for match in _LINE.finditer(text):
                hours, minutes, seconds, millis = map(int, match.groups()[:4])
                at_s = hours * 3600 + minutes * 60 + seconds + millis / 1000
                # 1 ms: the log cuts to whole ones
                after_s = (at_s - kill_s + _DAY_S / 2) % _DAY_S - _DAY_S / 2
                if after_s > -0.0011:
                    events.append((max(after_s, 0.0), match[5]))
        events.sort()
        for name, pattern in STEPS:
            wanted = re.compile(pattern.format(dead=re.escape(dead)))
            self.steps[name] = next((s * 1000 for s, text in events if wanted.search(text)), None)
        self.steps["answer"] = answer_s * 1000
        self.votes = sum(": vote for term" in text for s, text in events if s <= answer_s)
        self.pre_votes = sum("pre-vote for term" in text and "asked of" in text
                             for s, text in events if s <= answer_s)

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {'?' if ms is None else f'{ms:.0f}'}"
                          for name, ms in self.steps.items())
        return f"{steps}; {self.pre_votes} pre-votes, {self.votes} votes"

    @staticmethod
    def medians(timelines: list["Timeline"]) -> list[str]:
        """A line for each step: median and worst."""
        lines = []
        for name in timelines[0].steps:
            found = [t.steps[name] for t in timelines if t.steps[name] is not None]
            if found:
                lines.append(f"  {name:9} after {statistics.median(found):4.0f} ms, at most "
                             f"{max(found):4.0f} ms")
        return lines
