"""Settings: what a queue was told (CONFIGURE), and what holds for one that was told nothing.

Rules: never changed, CONFIGURE makes new ones. A queue whose name ends in `.dead`, or is too long
for one more ending, has no dead-letter queue and no delivery limit unless it is told.
"""

from typing import NamedTuple

from raftnet.wire.queuecommands import SETTING_DEFAULTS, Setting

DEAD_LETTER_ENDING = b".dead"
_NAME_BYTES_MAX = 255
_LIMIT = int(Setting.DELIVERY_LIMIT)


class Settings(NamedTuple):
    """In the order of wire.queuecommands.Setting, which counts from 1."""

    dead_letter: bytes          # name of the queue; empty: the default
    delivery_limit: int         # 0: none
    ttl_ms: int                 # 0: none
    messages_max: int           # ready, delayed, leased; 0: no maximum
    bytes_max: int              # of these; 0: no maximum
    overflow: int               # wire.queuecommands.Overflow
    dedup_window_ms: int        # 0: ids are ignored
    backoff_ms: int
    backoff_max_ms: int

    @property
    def bind_enqueues(self) -> bool:
        """Whether they have a say in what becomes of a plain message that is enqueued."""
        return bool(self.ttl_ms or self.messages_max or self.bytes_max)

    def changed(self, changes: dict[int, int | bytes]) -> "Settings":
        """With other values, by Setting."""
        values = list(self)
        for setting, value in changes.items():
            values[setting - 1] = value
        return Settings(*values)

    def by_number(self) -> dict[int, int | bytes]:
        """All values, by Setting."""
        return dict(enumerate(self, 1))


_DEFAULTS = Settings(*[SETTING_DEFAULTS[int(setting)] for setting in Setting])
_DEFAULTS_OF_THE_DEAD = _DEFAULTS.changed({_LIMIT: 0})


def default_dead_letter(name: bytes) -> bytes:
    """The dead-letter queue of one that was told of none; empty: there is none."""
    if name.endswith(DEAD_LETTER_ENDING) or len(name) + len(DEAD_LETTER_ENDING) > _NAME_BYTES_MAX:
        return b""
    return name + DEAD_LETTER_ENDING


def defaults_of(name: bytes) -> Settings:
    """What holds for a queue of that name that was told nothing."""
    return _DEFAULTS if default_dead_letter(name) else _DEFAULTS_OF_THE_DEAD
