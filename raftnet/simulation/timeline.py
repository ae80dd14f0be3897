"""Timeline: can operations be placed in time so that every rule between them holds?

Each happens at one moment between its asking and its answer (for ever open where none came). Rules
are of two kinds: `before`, one operation precedes another; and Choice, a moment at which a queue
holds a certain number of messages. The earliest and latest possible moments are narrowed until
nothing changes. Without choices this decides exactly; choices are narrowed one by one, so an
impossible combination of several may pass, but nothing possible is ever refused.
What the rules are is in histories.py.
"""

from bisect import bisect_left, bisect_right

NEVER = 1 << 60         # later than every moment
_ROUNDS_MAX = 20        # of narrowing; stopping early only accuses less


class Impossible(AssertionError):
    """The rules contradict each other; `rule` is one of them, `events` are concerned."""

    def __init__(self, rule: str, events: list["Event"], text: str):
        super().__init__(text)
        self.rule = rule
        self.events = events


class Event:
    """Something that happened at one moment. Invariant, where all is well: low <= high."""

    __slots__ = ("what", "low", "high", "after", "cause")

    def __init__(self, what, low: int, high: int):
        self.what = what                # whatever the caller wants to find here again
        self.low = low                  # earliest moment, ms
        self.high = high                # latest moment, ms
        self.after: list[tuple["Event", str]] = []      # (a later event, the rule that says so)
        self.cause: tuple["Event", str] | None = None   # who raised `low`, by which rule


Place = tuple[Event, int]       # an event and the step in it: steps of one event follow each other


class Line:
    """The messages of one queue in order: when each came and when it went."""

    __slots__ = ("came", "went", "came_low", "came_high", "went_low", "went_high")

    def __init__(self, came: list[Place], went: list[Place]):
        assert len(came) == len(went)
        self.came = came
        self.went = went

    def note_bounds(self) -> None:
        """The bounds as lists, each of them rising because the chains were propagated."""
        self.came_low = [event.low for event, _ in self.came]
        self.came_high = [event.high for event, _ in self.came]
        self.went_low = [event.low for event, _ in self.went]
        self.went_high = [event.high for event, _ in self.went]


class Choice:
    """At `place` the queue held from `least` to `most` of the messages of `line`."""

    __slots__ = ("place", "line", "least", "most", "rule", "gone")

    def __init__(self, place: Place, line: Line, least: int, most: int, rule: str):
        assert 0 <= least <= most
        self.place = place
        self.line = line
        self.least = least
        self.most = most
        self.rule = rule
        self.gone: tuple[int, int] | None = None    # how many messages have gone by then, bounds


class Timeline:
    """All events and the rules between them."""

    def __init__(self):
        self.events: list[Event] = []
        self.choices: list[Choice] = []

    def event(self, what, low: int, high: int) -> Event:
        """A new event."""
        event = Event(what, low, high)
        self.events.append(event)
        return event

    def before(self, first: Place, second: Place, rule: str) -> None:
        """The one happens before the other."""
        if first[0] is not second[0]:
            first[0].after.append((second[0], rule))
        elif first[1] >= second[1]:
            raise Impossible(rule, [first[0]], "its steps contradict each other")

    def settle(self) -> None:
        """Raises Impossible."""
        lines = list({id(choice.line): choice.line for choice in self.choices}.values())
        for _ in range(_ROUNDS_MAX):
            order = self._order()
            self._raise_lows(order)
            self._lower_highs(order)
            for line in lines:
                line.note_bounds()
            changed = False
            for choice in self.choices:
                changed = self._narrow(choice) or changed
            if not changed:
                break

    # --- precedence

    def _order(self) -> list[Event]:
        """The events, each behind all that precede it."""
        before = dict.fromkeys(self.events, 0)
        for event in self.events:
            for later, _ in event.after:
                before[later] += 1
        order = [event for event in self.events if not before[event]]
        for event in order:
            for later, _ in event.after:
                before[later] -= 1
                if not before[later]:
                    order.append(later)
        if len(order) < len(self.events):
            self._explain_circle([event for event, count in before.items() if count])
        return order

    @staticmethod
    def _explain_circle(left: list[Event]) -> None:
        earlier = {}
        for event in left:      # each of them has one of them before it, or it would not be left
            for later, rule in event.after:
                earlier[later] = (event, rule)
        # Going back from anywhere ends in the circle.
        event = left[0]
        for _ in range(len(left)):
            event = earlier[event][0]
        circle, rules = [event], [earlier[event][1]]
        while earlier[circle[-1]][0] is not event:
            circle.append(earlier[circle[-1]][0])
            rules.append(earlier[circle[-1]][1])
        raise Impossible(rules[0], circle, "each must be before the other: " + ", ".join(
            dict.fromkeys(rules)))

    @staticmethod
    def _raise_lows(order: list[Event]) -> None:
        for event in order:
            low = event.low
            if low > event.high:
                Timeline._explain(event)
            for later, rule in event.after:
                if later.low < low:
                    later.low = low
                    later.cause = (event, rule)

    @staticmethod
    def _explain(event: Event) -> None:
        """It would have to happen after its answer: who says so?"""
        rule = event.cause[1] if event.cause is not None else "linearizability"
        origin, seen = event, set()
        while origin.cause is not None and origin not in seen:
            seen.add(origin)
            origin = origin.cause[0]
        raise Impossible(rule, [event, origin], "the first must be after the second")

    @staticmethod
    def _lower_highs(order: list[Event]) -> None:
        for event in reversed(order):
            for later, _ in event.after:
                if later.high < event.high:
                    event.high = later.high

    # --- choices

    @staticmethod
    def _possible(choice: Choice) -> list[tuple[int, int, int]]:
        """[(messages gone by then, earliest, latest moment)]."""
        event, _ = place = choice.place
        line = choice.line
        came, went, count = line.came, line.went, len(line.came)
        exact = choice.least == choice.most
        found = []
        lowest = bisect_left(line.went_high, event.low)
        highest = bisect_right(line.went_low, event.high)
        for gone in range(lowest, min(highest, count - choice.least) + 1):
            there, there_most = gone + choice.least, gone + choice.most
            if not _cut_fits(went, gone, place) or exact and not _cut_fits(came, there, place):
                continue
            low, high = event.low, event.high
            if gone:
                low = max(low, line.went_low[gone - 1])
            if there:
                low = max(low, line.came_low[there - 1])
            if gone < count:
                high = min(high, line.went_high[gone])
            if there_most < count:
                high = min(high, line.came_high[there_most])
            if low <= high:
                found.append((gone, low, high))
        return found

    def _narrow(self, choice: Choice) -> bool:
        """Whether a bound moved."""
        event, line = choice.place[0], choice.line
        possible = self._possible(choice)
        if not possible:
            raise Impossible(choice.rule, [event, *_witness(choice)],
                             "at no moment did the queue hold so many")
        low = min(low for _, low, _ in possible)
        high = max(high for _, _, high in possible)
        changed = low > event.low or high < event.high
        if low > event.low:
            at_low = next(gone for gone, at, _ in possible if at == low)
            causes = [places[at - 1][0] for places, at in (
                (line.went, at_low), (line.came, at_low + choice.least)) if at]
            event.cause = (max(causes, key=lambda cause: cause.low), choice.rule)
        event.low, event.high = max(event.low, low), min(event.high, high)
        gone = possible[0][0], possible[-1][0]
        if gone != choice.gone:
            choice.gone = gone
            self._note_order(choice, *gone)
            changed = True
        return changed

    def _note_order(self, choice: Choice, least: int, most: int) -> None:
        """What precedes and follows the place, however many are gone by then."""
        place, line = choice.place, choice.line
        for places, at in ((line.went, least), (line.came, least + choice.least)):
            if at:
                self.before(places[at - 1], place, choice.rule)
        for places, at in ((line.went, most), (line.came, most + choice.most)):
            if at < len(places):
                self.before(place, places[at], choice.rule)


def _cut_fits(places: list[Place], at: int, place: Place) -> bool:
    """Whether `place` may lie between the first `at` of them and the rest: not within one event,
    unless it is a step of that event."""
    event, step = place
    left = places[at - 1] if at else None
    right = places[at] if at < len(places) else None
    if left is not None and left[0] is event and left[1] >= step:
        return False
    if right is not None and right[0] is event and right[1] <= step:
        return False
    return left is None or right is None or left[0] is not right[0] or left[0] is event


def _witness(choice: Choice) -> list[Event]:
    """An event that shows the contradiction, where there is a simple one: a message that surely
    had come and surely had not gone."""
    event, line = choice.place[0], choice.line
    for (came, _), (went, _) in zip(line.came, line.went):
        if came.high <= event.low and went.low > event.high:
            return [came, went]
    return []
