"""Patience: how long a client waits for a node before it tries elsewhere, from what it measured.

Rules: nothing here decides an outcome, only when to try again; sessions make that harmless. Round
trips are measured from the greeting on, for each address. Whatever took too long doubles all
waits, whatever was answered in time halves them again: a first dial on a path of seconds succeeds
after a few tries, and one node that is cut off does not make the client slow for good.
"""

DIAL_S_MIN = 1.0            # to connect; and for the greeting after it
QUIET_S_MIN = 0.4           # silence after which a node is asked for a sign of life
ANSWER_S_MIN = 0.6          # for that sign: what lives gives it at once
PATIENCE_S_MAX = 15.0       # no wait for a single step is longer
QUIET_S_MAX = 3.0           # a node that answers, but has nothing to say yet, is asked less often
ROUND_TRIPS = 4             # a wait holds so many: packets are lost, and sent again late
_ADDRESSES_MAX = 64


class Patience:
    """The waits of one client. Times in seconds."""

    def __init__(self):
        self._round_trips: dict[str, float] = {}    # address -> smoothed
        self._factor = 1.0

    def measured(self, address: str, seconds: float) -> None:
        """A round trip to that node. It rises at once with a longer one and falls slowly."""
        seconds = max(0.0, seconds)
        old = self._round_trips.pop(address, seconds)
        self._round_trips[address] = seconds if seconds > old else old + (seconds - old) / 4
        if len(self._round_trips) > _ADDRESSES_MAX:
            del self._round_trips[next(iter(self._round_trips))]    # measured longest ago
        self._factor = max(1.0, self._factor / 2)

    def too_late(self) -> None:
        """A wait was over before anything came."""
        self._factor = min(2 * self._factor, PATIENCE_S_MAX / QUIET_S_MIN)

    def round_trip_s(self, address: str) -> float:
        """The smoothed one to that node; the longest of the others, where it was never reached."""
        known = self._round_trips.get(address)
        return max(self._round_trips.values(), default=0.0) if known is None else known

    def dial_s(self, address: str) -> float:
        """For connecting to that node."""
        return self._wait(address, DIAL_S_MIN)

    def quiet_s(self, address: str) -> float:
        """For a word of that node, before it is asked for a sign of life."""
        return self._wait(address, QUIET_S_MIN)

    def answer_s(self, address: str) -> float:
        """For that sign of life."""
        return self._wait(address, ANSWER_S_MIN)

    def _wait(self, address: str, least: float) -> float:
        return min(PATIENCE_S_MAX,
                   max(least, ROUND_TRIPS * self.round_trip_s(address)) * self._factor)
