"""What is done to the network, and how many elections each of it may cost.

An election costs nothing but time, yet one without need is a defect: a node that is cut off must
not unseat those that are well (pre-vote), a leader that still reaches a quorum must stay (its
followers withhold their votes), and one that does not must go by itself (check-quorum), so that the
others may elect one. Every fault leaves a quorum that reach each other, the leader among it or not.

`Scene.followers` are in random order, so that any of them may be the bridge or the one cut off.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tools.emulatednetwork import Host, Network

HOLD_S = 4.0                # how long a fault lasts, at least: several times a caller's limit
FLAP_S = (0.2, 2.0)         # how long links stay cut, and stay whole
SLOW = "delay 400ms"
LATE = "delay 350ms"
_LATE_S = 0.3               # before the timeouts follow
_AWAY_S = 5.0
_BACK_S = 2.7               # it is heard again, and what was held up meanwhile is there
NARROW = "rate 1mbit"
LOSSY = "loss 20%"


class Scene(NamedTuple):
    """Where it happens. `near` is the clients' host that always stays with a quorum, `far` the
    other one; `profile` is that of all links."""

    network: Network
    leader: Host
    followers: Sequence[Host]
    near: Host
    far: Host
    profile: str
    random: random.Random
    stop: threading.Event       # set where a client failed: no need to go on
    flap_s: float               # how long flapping goes on

    def cut(self, sources: Sequence[Host], targets: Sequence[Host], both: bool = True) -> None:
        """Nothing passes from any of these to any of those."""
        for source in sources:
            for target in targets:
                if source is not target:
                    self.network.cut(source, target, both)

    def shape(self, host: Host, words: str) -> None:
        """Other words for all links of a host."""
        words = f"{words} {self.profile}".strip() if "delay" not in words else words
        self.network.set(words, source=host)
        self.network.set(words, target=host)

    def flap(self, cut: Callable[[], None]) -> int:
        """Cut and heal in turn for `flap_s`; how often."""
        left_s, times = self.flap_s, 0
        while left_s > 0 and not self.stop.is_set():
            cut()
            times += 1
            left_s -= self._rest()
            self.network.heal()
            left_s -= self._rest()
        return times

    def _rest(self) -> float:
        seconds = self.random.uniform(*FLAP_S)
        self.stop.wait(seconds)
        return seconds


class Fault(NamedTuple):
    """One kind. `inflict` begins it (or does all of it, where it flaps); it ends with a heal."""

    inflict: Callable[[Scene], object]
    elections: tuple[int, int]      # won because of it: at least, at most
    why: str
    big: bool = False               # with big messages


def _isolated(scene: Scene) -> None:
    scene.network.isolate(scene.leader)


def _isolated_seen(scene: Scene) -> None:
    scene.cut([scene.leader], scene.followers)


def _isolated_after_a_return(scene: Scene) -> None:
    scene.network.isolate(scene.followers[0])
    scene.stop.wait(_AWAY_S)
    scene.network.heal()
    scene.stop.wait(_BACK_S)
    _isolated(scene)


def _minority(scene: Scene) -> None:
    half = len(scene.followers) // 2 + 1
    scene.network.partition([scene.leader, *scene.followers[half:], scene.far],
                            [*scene.followers[:half], scene.near])


def _majority(scene: Scene) -> None:
    half = len(scene.followers) // 2
    scene.network.partition([scene.leader, *scene.followers[:half], scene.near],
                            [*scene.followers[half:], scene.far])


def _leader_deaf(scene: Scene) -> None:
    scene.cut(scene.followers, [scene.leader], both=False)


def _leader_mute(scene: Scene) -> None:
    scene.cut([scene.leader], scene.followers, both=False)


def _leader_mute_late(scene: Scene) -> None:
    for follower in scene.followers:
        scene.network.set(LATE, source=follower, target=scene.leader)
    scene.stop.wait(_LATE_S)
    _leader_mute(scene)


def _follower_deaf(scene: Scene) -> None:
    scene.cut([scene.leader, *scene.followers], scene.followers[:1], both=False)


def _follower_mute(scene: Scene) -> None:
    scene.cut(scene.followers[:1], [scene.leader, *scene.followers], both=False)


def _bridge(scene: Scene) -> None:
    rest = scene.followers[1:]
    half = len(rest) // 2           # of three nodes: the leader alone, and one
    scene.cut([scene.leader, *rest[:half]], rest[half:])


def _leader_bridge(scene: Scene) -> None:
    half = len(scene.followers) // 2
    scene.cut(scene.followers[:half], scene.followers[half:])


def _star(scene: Scene) -> None:
    arms = [scene.leader, *scene.followers[1:]]
    scene.cut(arms, arms)


def _flapping_link(scene: Scene) -> None:
    scene.flap(lambda: scene.network.cut(scene.leader, scene.followers[0]))


def _flapping_follower(scene: Scene) -> None:
    scene.flap(lambda: scene.network.isolate(scene.followers[0]))


def _flapping_leader(scene: Scene) -> None:
    scene.flap(lambda: scene.network.isolate(scene.leader))


def _slow_follower(scene: Scene) -> None:
    scene.shape(scene.followers[0], SLOW)


def _narrow_follower(scene: Scene) -> None:
    scene.shape(scene.followers[0], NARROW)


def _lossy_leader(scene: Scene) -> None:
    scene.shape(scene.leader, LOSSY)


_NEEDED = "the leader has no quorum: one suffices"
_STAYS = "the leader has its quorum, and who hears it withholds its vote"
_ALONE = "one that is cut off asks for a pre-vote only, and raises no term"

FAULTS = {
    "isolated leader": Fault(_isolated, (1, 1), _NEEDED),
    "isolated leader, clients reach it": Fault(_isolated_seen, (1, 1), _NEEDED),
    # What its link was like while it was cut must not make it wait, and the others with it.
    "isolated leader, after a follower's return": Fault(_isolated_after_a_return, (1, 1), _NEEDED),
    "leader in the minority": Fault(_minority, (1, 1), _NEEDED),
    "leader in the majority": Fault(_majority, (0, 0), _ALONE),
    "leader hears nobody": Fault(_leader_deaf, (1, 1), _NEEDED),
    "leader is heard by nobody": Fault(_leader_mute, (1, 1), _NEEDED),
    # What it still hears was said long ago: that it was heard is no proof that it leads.
    "leader is heard by nobody, hears late": Fault(_leader_mute_late, (1, 1), _NEEDED),
    "follower hears nobody": Fault(_follower_deaf, (0, 0), _ALONE),
    "follower is heard by nobody": Fault(_follower_mute, (0, 0), _ALONE),
    "bridge": Fault(_bridge, (0, 0), _STAYS),
    "leader is the bridge": Fault(_leader_bridge, (0, 0), _STAYS),
    # A follower in the middle can win, and nobody else; of three nodes it is `bridge`.
    "star around a follower": Fault(_star, (1, 1), _NEEDED),
    "flapping link": Fault(_flapping_link, (0, 0), _STAYS),
    "flapping follower": Fault(_flapping_follower, (0, 0), _ALONE),
    # Cuts that are shorter than the timeout cost none; a follower that flaps costs none either.
    "flapping leader": Fault(_flapping_leader, (0, 1), "once another leads, it flaps no more"),
    "slow follower": Fault(_slow_follower, (0, 0), _STAYS),
    "narrow follower": Fault(_narrow_follower, (0, 0), _STAYS, big=True),
    # Retransmission doubles its waits: heartbeats may be missed for longer than a timeout that
    # has not yet followed the loss.
    "lossy leader": Fault(_lossy_leader, (0, 2), "the timeout follows the loss after it is seen"),
}
FLAPPING = ("flapping link", "flapping follower", "flapping leader")
OF_THREE = ("isolated leader", "isolated leader, clients reach it",
            "isolated leader, after a follower's return", "leader hears nobody",
            "leader is heard by nobody", "bridge", "flapping follower")
FAR = ("leader in the minority", "leader hears nobody", "bridge", "flapping follower")
