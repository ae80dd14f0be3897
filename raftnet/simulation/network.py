"""SimulatedNetwork: frames between places, delayed, lost, doubled, reordered, damaged or cut off.

Rules: what travels is the bytes of a frame, so that damage is caught by the real checksum. A pair
of places has a connection with a number; when either end crashes, or damage is noticed, the
connection ends and what was on its way is gone, as with TCP. Single messages may be lost and
overtake each other all the same: harsher than TCP, and the core must stand it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raftnet.errors import MalformedError
from raftnet.simulation.events import Scheduler
from raftnet.wire.frames import FrameReader


_WORDS = ("loss", "duplicate", "reorder", "corrupt")


@dataclass(slots=True)
class NetworkProfile:
    """How bad the network is. Times in milliseconds, the rest in percent of the frames."""

    delay_ms: int = 1
    jitter_ms: int = 2
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0        # these go without delay, and so overtake
    corrupt: float = 0.0

    @property
    def round_trip_ms(self) -> int:
        """The longest of a frame that is not lost."""
        return 2 * (self.delay_ms + self.jitter_ms)

    @classmethod
    def parse(cls, text: str) -> "NetworkProfile":
        """The words of tc's netem: `delay 1000ms 50ms reorder 8% corrupt 5% duplicate 2% loss 5%`.

        A second percentage (tc's correlation) is accepted and ignored. Raises MalformedError.
        """
        profile = cls(0, 0)
        words = text.split()
        while words:
            name = words.pop(0)
            values = []
            while words and words[0][0].isdigit():
                values.append(words.pop(0))
            if name == "delay" and 1 <= len(values) <= 3:
                times = [_milliseconds(value) for value in values[:2]]
                profile.delay_ms, profile.jitter_ms = times[0], (times + [0])[1]
            elif name in _WORDS and 1 <= len(values) <= 2:
                setattr(profile, name, _percent(values[0]))
            else:
                raise MalformedError(f"{name!r}: delay TIME [TIME], or one of "
                                     f"{', '.join(_WORDS)} with PERCENT, is needed")
        return profile


def _milliseconds(text: str) -> int:
    for unit, factor in (("ms", 1), ("us", 0.001), ("s", 1000)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return round(float(number) * factor)
    raise MalformedError(f"{text!r} is no time: 100ms or 1s is needed")


def _percent(text: str) -> float:
    number = text.removesuffix("%")
    if number == text or not number.replace(".", "", 1).isdigit() or float(number) > 100:
        raise MalformedError(f"{text!r} is no share: 5% is needed")
    return float(number)


class SimulatedNetwork:
    """All links. Places are names (addresses of nodes, names of clients)."""

    def __init__(self, scheduler: Scheduler, profile: NetworkProfile):
        self._scheduler = scheduler
        self.profile = profile
        self._cut: set[tuple[str, str]] = set()     # (from, to) that nothing passes
        self._slow: dict[tuple[str, str], int] = {}     # (from, to) -> more delay, milliseconds
        self.counts = {"sent": 0, "lost": 0, "duplicated": 0, "corrupted": 0, "cut": 0}

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing passes in this direction from now on."""
        self._cut.add((sender, receiver))

    def slow(self, one: str, other: str, delay_ms: int, both: bool = True) -> None:
        """Frames from one to the other (`both`: and back) take so much longer from now on."""
        self._slow[one, other] = delay_ms
        if both:
            self._slow[other, one] = delay_ms

    def heal(self) -> None:
        """Everything passes again, at the usual speed."""
        self._cut.clear()
        self._slow.clear()

    def delay(self) -> int:
        """A delay drawn for one frame."""
        profile, scheduler = self.profile, self._scheduler
        if scheduler.chance(profile.reorder):
            return 0
        return max(0, profile.delay_ms + scheduler.randint(-profile.jitter_ms, profile.jitter_ms))

    def send(self, sender: str, receiver: str, frame: bytes,
             deliver: Callable[[tuple[int, int, bytes] | None], None]) -> None:
        """Let `deliver((kind, request id, body))` happen; None stands for a damaged frame."""
        profile, scheduler, counts = self.profile, self._scheduler, self.counts
        counts["sent"] += 1
        copies = 1
        if scheduler.chance(profile.duplicate):
            copies = 2
            counts["duplicated"] += 1
        for _ in range(copies):
            if scheduler.chance(profile.loss):
                counts["lost"] += 1
                continue
            data = frame
            if scheduler.chance(profile.corrupt):
                counts["corrupted"] += 1
                data = self._damage(frame)
            delay = self.delay() + self._slow.get((sender, receiver), 0)
            scheduler.after(delay, lambda data=data: self._arrive(
                sender, receiver, data, deliver))

    def _damage(self, frame: bytes) -> bytes:
        position = self._scheduler.randint(0, len(frame) - 1)
        flipped = frame[position] ^ (1 << self._scheduler.randint(0, 7))
        return frame[:position] + bytes((flipped,)) + frame[position + 1:]

    def _arrive(self, sender: str, receiver: str, data: bytes, deliver) -> None:
        if (sender, receiver) in self._cut:
            self.counts["cut"] += 1
            return
        reader = FrameReader()
        frames = reader.feed(data)
        # A frame whose damaged length asks for more than came waits for ever: as good as damaged.
        deliver(frames[0] if frames else None)
