"""Acquaintances: what a node remembers of the others that it has heard, while its process lives.

Rules (design: Founding and identity): a directory counts its starts (boots), and a process has a
random number, so an old copy of a directory shows: it comes with a boot that is not above what was
seen of its node id, as another process; or it begins in an earlier term than a process that was
seen, without more entries; or, to who had an acknowledgement or a vote of it in a term, it begins
below that. Nothing of this is on disk: what nobody alive remembers cannot be noticed (protocol.md,
Guarantees).
"""

from dataclasses import dataclass

from raftnet.wire.requests import Hello

_KNOWN_MAX = 1_000      # beside the members, which always have a place

Start = tuple[int, int, int]    # a directory's term, and term and index of its last entry


def start_of(hello: Hello) -> Start:
    """What the process that greets so found in its directory."""
    return hello.start_term, hello.start_log_term, hello.start_index


def begins_earlier(one: Start, other: Start) -> bool:
    """Whether the one is an older state of a directory than the other: its term never goes back. An
    old copy that runs may hear of terms, but the entries that it lacks it does not get."""
    return one[0] < other[0] and one[1:] <= other[1:]


@dataclass(slots=True)
class Acquaintance:
    """One node, by its last greeting."""

    address: str
    boot: int
    process: int
    state_version: int
    heard_ms: int       # this node's clock, when its last frame came
    start: Start        # when it was started
    spoke: bool = False         # a Raft message of that process came: perhaps a promise
    promised_term: int = 0      # the highest in which that node answered an append or a vote here


class Acquaintances:
    """By node id."""

    def __init__(self):
        self._by_id: dict[int, Acquaintance] = {}

    def meet(self, hello: Hello, address: str, now_ms: int, is_member: bool) -> None:
        """A greeting that is welcome."""
        known = self._by_id.get(hello.node_id)
        if is_member or known is not None or len(self._by_id) < _KNOWN_MAX:
            self._by_id[hello.node_id] = Acquaintance(
                address, hello.boot, hello.process, hello.state_version, now_ms,
                start_of(hello),
                known is not None and known.process == hello.process and known.spoke,
                known.promised_term if known is not None else 0)

    def heard(self, node_id: int, now_ms: int) -> None:
        """A frame of that node."""
        known = self._by_id.get(node_id)
        if known is not None:
            known.heard_ms = now_ms
            known.spoke = True

    def promised(self, node_id: int, term: int) -> None:
        """It answered an append or a vote: its disk holds that term (Raft 5.1; figure 2)."""
        known = self._by_id.get(node_id)
        if known is not None and term > known.promised_term:
            known.promised_term = term

    def address_of(self, node_id: int) -> str:
        """Where it is, by its own greeting; "" where it has not greeted."""
        known = self._by_id.get(node_id)
        return known.address if known is not None else ""

    def silent_ms(self, node_id: int, now_ms: int) -> int | None:
        """How long nothing was heard of it; None: never was anything."""
        known = self._by_id.get(node_id)
        return now_ms - known.heard_ms if known is not None else None

    def addresses_heard(self, since_ms: int) -> dict[int, str]:
        """Where those are, by node id, of whom anything was heard since that time."""
        return {node_id: known.address for node_id, known in self._by_id.items()
                if known.heard_ms >= since_ms}

    def state_version(self, node_id: int) -> int:
        """The highest version of the replicated state that it knows; 0 where it never greeted."""
        known = self._by_id.get(node_id)
        return known.state_version if known is not None else 0

    def forget(self) -> None:
        """Another cluster begins."""
        self._by_id.clear()

    def why_old_copy(self, hello: Hello, raft) -> str:
        """"" or what shows that this greeting comes from an old copy of a directory."""
        known = self._by_id.get(hello.node_id)
        if known is not None and hello.process == known.process:
            return ""
        # An old copy that others refused, and that said nothing here, is no witness against the
        # directory that holds more.
        if known is not None and hello.boot <= known.boot and (
                known.spoke or start_of(hello) <= known.start):
            return (f"a process with start {known.boot} of that directory was seen here, and this "
                    f"one comes with start {hello.boot}")
        # Boots tell nothing where the copy was started more often than what it replaces.
        if known is not None and hello.start_term < known.promised_term:
            return (f"this node answered in term {known.promised_term}, and its directory knows of "
                    f"term {hello.start_term} at most")
        if known is not None and begins_earlier(start_of(hello), known.start):
            return (f"a process of that directory began with term {known.start[0]} and was seen "
                    f"here, and this one began with term {hello.start_term} and no more entries")
        progress = raft.progress.get(hello.node_id)
        counted = progress.match_index if progress is not None else 0
        term = raft.current_term
        # In a later term others may have replaced what was counted here; never what is committed,
        # as all below the log's base is, whose terms are forgotten.
        counted_term = raft.log.term_at(counted)
        start = (0 if counted_term is None else hello.start_log_term, hello.start_index)
        if counted and hello.start_term == term and start < (counted_term or 0, counted):
            return (f"this node acknowledged entry {counted} in term {term}, and its directory "
                    f"ends at entry {hello.start_index} of term {hello.start_log_term}")
        return ""
