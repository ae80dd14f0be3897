"""Patience: how long a client waits for a node before it tries elsewhere, from what it measured.

Rules: nothing here decides an outcome, only when to try again; sessions make that harmless. Round
trips are measured from the greeting on, for each address; the first few may be luck (packets that
overtook others), so an address is taken to be no nearer than the others until it has shown it, and
anew whenever something took too long there. That doubles all waits, too, and whatever was answered
in time halves them again: a first dial on a path of seconds succeeds after a few tries, and one
node that is cut off does not make the client slow for good.
"""

DIAL_S_MIN = 1.0            # to connect; and for the greeting after it
QUIET_S_MIN = 0.4           # silence after which a node is asked for a sign of life
ANSWER_S_MIN = 0.6          # for that sign: what lives gives it at once
PATIENCE_S_MAX = 15.0       # no wait for a single step is longer
QUIET_S_MAX = 3.0           # a node that answers, but has nothing to say yet, is asked less often
ROUND_TRIPS = 4             # a wait holds so many: packets are lost, and sent again late
SAMPLES_TRUSTED = 4         # of an address, against what the others are like
_ADDRESSES_MAX = 64


class Patience:
    """The waits of one client. Times in seconds."""

    def __init__(self):
        self._round_trips: dict[str, float] = {}    # address -> smoothed
        self._samples: dict[str, int] = {}          # address -> how many
        self._factor = 1.0

    def measured(self, address: str, seconds: float) -> None:
        """A round trip to that node. It rises at once with a longer one and falls slowly."""
        seconds = max(0.0, seconds)
        old = self._round_trips.pop(address, seconds)
        self._round_trips[address] = seconds if seconds > old else old + (seconds - old) / 4
        self._samples[address] = self._samples.get(address, 0) + 1
        if len(self._round_trips) > _ADDRESSES_MAX:
            oldest = next(iter(self._round_trips))      # measured longest ago
            del self._round_trips[oldest], self._samples[oldest]
        self._factor = max(1.0, self._factor / 2)

    def too_late(self, address: str) -> None:
        """A wait for that node was over before anything came."""
        if address in self._samples:
            self._samples[address] = 0
        self._factor = min(2 * self._factor, PATIENCE_S_MAX / QUIET_S_MIN)

    def round_trip_s(self, address: str) -> float:
        """The smoothed one to that node; the longest of all, until that one is trusted."""
        if self._samples.get(address, 0) >= SAMPLES_TRUSTED:
            return self._round_trips[address]
        return max(self._round_trips.values(), default=0.0)

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
