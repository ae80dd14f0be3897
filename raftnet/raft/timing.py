"""Timing: heartbeat interval and election timeout, as the measured network asks for them.

What is measured: round trips to each peer, by greetings on every node and by heartbeats on the
leader, and the share of heartbeats that nobody answered. A link needs
- twice the usual round trip (the median of the newest samples) and twice a slow one (one in ten is
  slower), so that an election ends before the next one begins: `4 * rtt` on a steady network;
- enough heartbeats within a timeout that all of them are lost once in a thousand times at most.
What the links to a quorum need, the best that there are, is the election timeout, not below the
floor of the configuration: one slow node makes nobody else wait. It grows at once and shrinks only
after the need was small for a while, in steps, so that it does not swing.

The leader's is announced in every heartbeat (a follower behind a slower link is told what its own
link needs), and followers take it over: they measure little themselves. So nodes agree without
being configured alike; where they do not, an election is late or in vain, and nothing else: no
promise and no read depends on these times. Integers only.
"""

from collections import deque

from raftnet.config import RaftConfig

SAMPLES_MAX = 32            # the newest of a peer
BEATS_MAX = 64              # heartbeats without an answer that are remembered, of a peer
SPACING_MS = 50             # closer samples tell the same: a backlog that was held up counts once
SINGLE_MS_MAX = 1_000       # one sample alone, which may have waited for a lost packet or a disk
# The need must have been small for so long, and for so many timeouts.
SHRINK_AFTER_MS, SHRINK_AFTER_TIMEOUTS = 10_000, 4
_SHRINK_HEARTBEATS = 3      # of the interval until now, a smaller timeout holds at least
_OUTLIER_FROM = 6           # one sample of four is an outlier already, two of fourteen and so on
_STEP_MS = 100              # timeouts above the floor are multiples of this
_LOSS_SHIFT = 5             # a heartbeat's weight in the share of lost ones: 1/32
_ANNOUNCED_MS_MAX = 60_000  # another node may have other bounds, but no absurd ones
# Heartbeats within a timeout, up to which loss in permille: loss ** n <= 1/1000.
_BEATS_AT_LOSS = ((5, 251), (6, 316), (7, 373), (8, 422), (9, 464), (10, 1000))


class Link:
    """What is known of the way to one peer and back."""

    __slots__ = ("samples", "sampled_ms", "usual_ms", "slow_ms", "beats", "_loss")

    def __init__(self):
        self.samples: deque[int] = deque(maxlen=SAMPLES_MAX)    # round trips, ms
        self.sampled_ms = 0                                     # when the newest was taken
        self.usual_ms = 0                                       # their median
        self.slow_ms = 0                                        # nine of ten are not slower
        self.beats: deque[int] = deque(maxlen=BEATS_MAX)        # when sent, not answered yet
        self._loss = 0                                          # permille << _LOSS_SHIFT

    def add(self, rtt_ms: int, now_ms: int) -> None:
        """One more round trip."""
        self.sampled_ms = now_ms
        self.samples.append(rtt_ms)
        ordered = sorted(self.samples)
        self.usual_ms = ordered[len(ordered) // 2]
        self.slow_ms = ordered[-1 - (len(ordered) + _OUTLIER_FROM) // 10]

    @property
    def loss_permille(self) -> int:
        """The share of heartbeats that were never answered, newer ones counting more."""
        return self._loss >> _LOSS_SHIFT

    @property
    def beats_needed(self) -> int:
        """How many heartbeats a timeout must hold."""
        loss = self.loss_permille
        return next(beats for beats, up_to in _BEATS_AT_LOSS if loss <= up_to)

    @property
    def need_ms(self) -> int:
        """The timeout that its round trips ask for."""
        return 2 * (self.usual_ms + self.slow_ms)

    def answered(self, sent_ms: int) -> None:
        """The heartbeat sent then was answered; older ones are lost."""
        while self.beats and self.beats[0] < sent_ms:
            self.beats.popleft()
            self._loss += 1000 - (self._loss >> _LOSS_SHIFT)
        if self.beats and self.beats[0] == sent_ms:
            self.beats.popleft()
            self._loss -= self._loss >> _LOSS_SHIFT


class Timing:
    """The times of one node. Invariant: heartbeat_ms * 5 <= election_timeout_ms."""

    def __init__(self, config: RaftConfig):
        self._config = config
        self.election_timeout_ms = config.election_timeout_ms
        self.heartbeat_ms = config.heartbeat_ms
        self.links: dict[int, Link] = {}        # by node id
        self.announced_ms = 0                   # by the leader that is followed; 0: not
        self.rtt_ms = 0                         # usual round trip of the bottleneck
        self.bottleneck = 0                     # whose link decides; 0: nobody's, or not known
        self._low_since_ms: int | None = None   # the need is small since then
        self._low_ms = 0                        # the largest of the small ones
        self._shrink_after_ms = 0               # since then

    def keep(self, members: set[int]) -> None:
        """Forget who is no member."""
        self.links = {node_id: link for node_id, link in self.links.items() if node_id in members}

    def greeted(self, node_id: int, rtt_ms: int, now_ms: int) -> bool:
        """A greeting was answered; as `sample`."""
        return self.sample(node_id, min(rtt_ms, SINGLE_MS_MAX), now_ms)

    def voted(self, node_id: int, rtt_ms: int, now_ms: int) -> bool:
        """A vote was answered; as `sample`. Where the path is that slow, more elections tell."""
        return self.sample(node_id, min(rtt_ms, max(SINGLE_MS_MAX, 2 * self.election_timeout_ms)),
                           now_ms)

    def sample(self, node_id: int, rtt_ms: int, now_ms: int) -> bool:
        """A round trip was measured; whether it counts: `judge` says what follows."""
        link = self.links.setdefault(node_id, Link())
        if link.samples and now_ms - link.sampled_ms < SPACING_MS:
            return False
        # A path that is broken for a while is no measure of the path.
        link.add(min(rtt_ms, self._config.election_timeout_ms_max // 4), now_ms)
        return True

    def connected(self, node_id: int) -> None:
        """A new connection: what was sent on the old one and not answered tells nothing."""
        if node_id in self.links:
            self.links[node_id].beats.clear()

    def beat_sent(self, node_id: int, now_ms: int) -> None:
        """A leader sent a heartbeat."""
        beats = self.links.setdefault(node_id, Link()).beats
        if not beats or now_ms - beats[-1] >= SPACING_MS:
            beats.append(now_ms)

    def beat_answered(self, node_id: int, sent_ms: int, now_ms: int) -> bool:
        """A heartbeat that was sent then is answered; as `sample`."""
        if node_id not in self.links:
            return False
        link = self.links[node_id]
        link.answered(sent_ms)
        if link.samples and sent_ms < link.sampled_ms:
            return False    # one of each round trip: what was held up together counts once
        return self.sample(node_id, max(0, now_ms - sent_ms), now_ms)

    def announcement(self, node_id: int) -> tuple[int, int]:
        """(election timeout, round trip) for that follower, which may be behind a slower link."""
        link = self.links.get(node_id)
        if link is None or not link.samples:
            return self.election_timeout_ms, self.rtt_ms
        return (max(self.election_timeout_ms, _round_up(link.need_ms)),
                max(self.rtt_ms, link.usual_ms))

    def follow(self, timeout_ms: int, rtt_ms: int) -> None:
        """The leader's announcement; what this node measured before it counts no more."""
        self.announced_ms = min(timeout_ms, _ANNOUNCED_MS_MAX)
        self.rtt_ms = min(rtt_ms, _ANNOUNCED_MS_MAX)
        self._low_since_ms = None
        self.bottleneck = 0
        if self.links:
            self.links = {}
        self._set(max(self.announced_ms, self._config.election_timeout_ms))

    def lead(self) -> None:
        """This node leads: what it measures itself counts from now on."""
        self.announced_ms = 0

    def judge(self, now_ms: int, voters: list[int], needed: int) -> None:
        """Follow what was measured: `needed` of these voters, others than this node, decide."""
        config = self._config
        needs = sorted((self._need_ms(self.links[v]), v) for v in voters
                       if v in self.links and self.links[v].samples)
        if needs and needed > 0:
            need_ms, node_id = needs[min(needed, len(needs)) - 1]
            self.bottleneck, self.rtt_ms = node_id, self.links[node_id].usual_ms
        elif voters and needed > 0:
            return              # nothing is known yet
        else:
            need_ms = self.bottleneck = self.rtt_ms = 0     # nobody else is needed
        need_ms = max(min(need_ms, config.election_timeout_ms_max), config.election_timeout_ms)
        if need_ms >= self.election_timeout_ms * 3 // 4:
            self._low_since_ms = None
            self._set(max(need_ms, self.election_timeout_ms))
            return
        if self._low_since_ms is None:
            self._low_since_ms, self._low_ms = now_ms, 0
            self._shrink_after_ms = max(SHRINK_AFTER_MS,
                                        SHRINK_AFTER_TIMEOUTS * self.election_timeout_ms)
        self._low_ms = max(self._low_ms, need_ms)
        if now_ms - self._low_since_ms >= self._shrink_after_ms:
            # In steps: who was heard a heartbeat ago must not seem silent now.
            self._set(max(self._low_ms, _SHRINK_HEARTBEATS * self.heartbeat_ms))
            self._low_since_ms, self._shrink_after_ms = now_ms, self.election_timeout_ms
            self._low_ms = need_ms      # what was larger before this step counts no more

    def _need_ms(self, link: Link) -> int:
        return max(_round_up(link.need_ms), link.beats_needed * self._config.heartbeat_ms)

    def _set(self, timeout_ms: int) -> None:
        config = self._config
        beats = _BEATS_AT_LOSS[0][0]
        if self.bottleneck in self.links:
            beats = self.links[self.bottleneck].beats_needed
        self.election_timeout_ms = timeout_ms
        self.heartbeat_ms = max(config.heartbeat_ms,
                                min(timeout_ms // beats, config.heartbeat_ms_max))


def _round_up(ms: int) -> int:
    return -(-ms // _STEP_MS) * _STEP_MS
