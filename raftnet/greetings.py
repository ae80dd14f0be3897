"""Greetings: who a node says that it is, whom it welcomes, and whom it dials.

Rules (design: Founding and identity; protocol.md, Connection and greeting): a node of another
cluster, an old copy of a directory and a removed node are refused, on both sides with a clear line.
What is remembered of the others is in acquaintances.py; what greetings are to a node without an
identity, in founding.py and joining.py. One object for each Replica; no I/O but the Store's.
"""

from raftnet.acquaintances import Acquaintances, Start, begins_earlier, start_of
from raftnet.actions import WARNING
from raftnet.errors import ErrorCode
from raftnet.founding import NO_CLUSTER
from raftnet.wire import requests
from raftnet.wire.requests import Hello

_STRANGER_MS = 10_000           # so long a node that is no member, but was heard, can be answered
_NAMES_MAX = 4_000              # above it, those that are dialled no more are forgotten

_OLD_COPY_ADVICE = ("it must not run; to bring the node back, empty the directory and start it "
                    "with --join")

Refusal = tuple[ErrorCode, str]


class Greetings:
    """The node's acquaintance with the others."""

    def __init__(self, replica):
        self._replica = replica
        self.known = Acquaintances()
        # How who answers at a dialled address calls itself. Another string may be the same place,
        # and only whoever answers there can tell: names are never compared by what they resolve to.
        self.names: dict[str, str] = {}
        self.removed = False        # a member said that this node was removed
        self._process = replica.randint(1, 2**64 - 1)
        self._start = self._held()

    def _held(self) -> Start:
        store = self._replica.store
        return store.hard_state.current_term, store.last_term, store.last_index

    def begin_anew(self) -> None:
        """The directory was emptied of a cluster: what it held at the start says nothing to the
        next one, whose members may meet an emptied start after this one."""
        self.known.forget()
        self._start = self._held()

    def hello(self) -> Hello:
        """This node's greeting to other nodes."""
        replica = self._replica
        return Hello(requests.ROLE_PEER, replica.cluster_id, replica.node_id, replica.store.boot,
                     replica.founding.checksum(), replica.address, self._process, *self._start,
                     replica.state_version_max)

    # --- who greets

    def greeted(self, hello: Hello, dialled: str = "") -> Refusal | None:
        """Another node's greeting, on a connection that it dialled or (`dialled`: the address)
        that this node did. None: welcome; else why it is refused."""
        replica = self._replica
        if dialled:
            self._learn_name(dialled, hello.address)
        if hello.node_id == replica.node_id:
            return self._meet_itself(hello)
        replica.founding.hear(hello, dialled or hello.address)
        if not dialled:
            replica.founding.hear_cluster_of_address(hello)
        elif replica.joining.heals_elsewhere(hello, dialled):
            return (ErrorCode.WRONG_CLUSTER, f"the damaged files of {replica.address} belong to "
                    "another cluster")
        ours, theirs = replica.cluster_id, hello.cluster_id     # ours may be new by now
        if NO_CLUSTER in (ours, theirs):
            return self._why_too_old(hello) if replica.raft is not None else None
        if ours != theirs:
            replica.actions.say("stranger", "%s belongs to cluster %s, this node to %s: its frames "
                                "are refused", hello.address, theirs.hex()[:8], ours.hex()[:8],
                                level=WARNING)
            return (ErrorCode.WRONG_CLUSTER, f"{replica.address} belongs to cluster "
                    f"{ours.hex()[:8]}, not {theirs.hex()[:8]}")
        refusal = self.why_unwelcome(hello)
        if refusal is not None:
            replica.actions.say("unwelcome", "%s is refused: %s", hello.address, refusal[1],
                                level=WARNING)
            return refusal
        self._meet(hello, dialled)
        return None

    def _meet(self, hello: Hello, dialled: str) -> None:
        """One of our cluster, and welcome."""
        replica = self._replica
        address = hello.address     # its own word: it may also be reached where it was before
        membership = replica.raft.membership
        if dialled and membership.member_at(dialled) is not None and not any(
                m.node_id == hello.node_id for m in membership.members_at(dialled)):
            replica.actions.say("connect", "node %016x answers at %s, where a member with another "
                                "data directory was", hello.node_id, dialled, level=WARNING)
        is_member = membership.member(hello.node_id) is not None
        if self.known.address_of(hello.node_id) != address or not is_member:
            replica.peers_changed = True
        self.known.meet(hello, address, replica.now_ms, is_member)

    def heard(self, node_id: int) -> None:
        """A Raft message of that node. It is answered whether or not our log knows it as a member:
        ours may be the shorter one (thesis 4.1)."""
        self.known.heard(node_id, self._replica.now_ms)
        if self._replica.raft.membership.member(node_id) is None:
            self._replica.peers_changed = True

    def _meet_itself(self, hello: Hello) -> Refusal:
        """The same data directory: two names of one process, or two copies of the directory."""
        replica = self._replica
        if hello.process == self._process:
            return self._one_node(hello.address)
        boot, start = replica.store.boot, start_of(hello)
        # What was held in another cluster, which this directory left, says nothing.
        alike = hello.cluster_id == replica.cluster_id
        if alike and begins_earlier(self._start, start) or (
                hello.boot > boot and not (alike and begins_earlier(start, self._start))):
            replica.stop_reason = (f"{hello.address} runs with a newer copy of this data directory "
                                   f"(start {hello.boot}, here {boot}): {_OLD_COPY_ADVICE}")
            # One of the two ends, not both: OLD_COPY would end the other as well.
            return ErrorCode.WRONG_CLUSTER, f"{replica.address} was an older copy, and ends"
        return (ErrorCode.OLD_COPY, f"{replica.address} runs with another copy of that data "
                f"directory (start {boot}, yours {hello.boot}): {_OLD_COPY_ADVICE}")

    def _one_node(self, address: str) -> Refusal:
        """How this node refuses itself, greeted under another name."""
        return ErrorCode.WRONG_CLUSTER, f"{self._replica.address} and {address} are one node"

    def why_unwelcome(self, hello: Hello) -> Refusal | None:
        """Why a node of our cluster that greets so is refused; None: it is not."""
        raft = self._replica.raft
        if raft is None or hello.cluster_id != self._replica.cluster_id:
            return None
        membership = raft.membership
        if hello.node_id in self._removed_for_good():
            return (ErrorCode.REMOVED, f"node {hello.node_id:016x} was removed from cluster "
                    f"{membership.cluster_id.hex()[:8]}: stop it; to bring it back, empty its "
                    f"data directory and start it with --join")
        too_old = self._why_too_old(hello)
        if too_old is not None:
            return too_old
        why = self.known.why_old_copy(hello, raft)
        if why:
            return (ErrorCode.OLD_COPY, f"the data directory of {hello.address} is an old copy: "
                    f"{why}; {_OLD_COPY_ADVICE}")
        return None

    def _removed_for_good(self) -> tuple[int, ...]:
        """Node ids whose removal is committed as far as this node knows. Who is removed by an entry
        that may yet be replaced has a vote until then, and is answered."""
        log = self._replica.raft.log
        return log.membership.removed if log.membership_index <= log.commit_index else ()

    def _why_too_old(self, hello: Hello) -> Refusal | None:
        version = self._replica.raft.membership.state_version
        if hello.state_version >= version:
            return None
        return (ErrorCode.WRONG_VERSION, f"the cluster's state has version {version}, and that "
                f"program knows {hello.state_version}: update it")

    # --- who refuses this node

    def refused(self, address: str, code: int, text: str) -> None:
        """A node that this one greeted refuses the greeting."""
        if (code, text) == self._one_node(self._replica.address):
            self._learn_name(address, self._replica.address)    # it was this one
        self.heed_refusal(address, code, text)
        self._replica.joining.greeting_refused(address)

    def heed_refusal(self, address: str, code: int, text: str) -> None:
        """What an ERROR of a node that this one dialled says about who this one is."""
        replica = self._replica
        if code == ErrorCode.OLD_COPY:
            replica.stop_reason = f"{address} says: {text}"
        elif code == ErrorCode.REMOVED and replica.raft is not None:
            if not self.removed:
                replica.actions.say("removed", "%s says: %s", address, text, level=WARNING)
            self.removed = replica.raft.barred = replica.peers_changed = True
        elif code == ErrorCode.REMOVED and replica.joining.asking is not None:
            # Taken in and removed again before it heard of either: nothing was promised by then.
            replica.store.take_node_id(replica.randint(1, 2**64 - 1))
            replica.node_id = replica.store.node_id
            replica.peers_changed = True
            replica.actions.say("join", "%s says: %s; going on as node %016x", address, text,
                                replica.node_id, level=WARNING)

    # --- what they call themselves

    def _learn_name(self, dialled: str, name: str) -> None:
        if len(self.names) >= _NAMES_MAX:
            self.forget_names(list(self.names))
        self.names[dialled] = name

    def forget_names(self, addresses: list[str]) -> None:
        """Of these, those that are not dialled just now: who is there may be another one since."""
        dialled = set(self.dial_targets())
        for address in addresses:
            if address not in dialled:
                self.names.pop(address, None)

    # --- whom to dial

    def dial_targets(self) -> list[str]:
        """The addresses to which connections are to be held."""
        replica = self._replica
        if replica.raft is None:
            if replica.joining.asking is not None:
                return [replica.joining.asking.target]
            return [a for a in replica.founding.founders.addresses if a != replica.address]
        if self.removed:
            return []       # and disturbs nobody
        membership = replica.raft.membership
        # A member is where it says, and else where it was.
        addresses = {self.known.address_of(m.node_id) or m.address: None
                     for m in membership.members if m.node_id != replica.node_id}
        addresses |= {m.address: None for m in membership.members if m.node_id != replica.node_id}
        addresses |= {address: None for node_id, address in self.known.addresses_heard(
            replica.now_ms - _STRANGER_MS).items() if node_id not in self._removed_for_good()}
        if replica.leads:
            addresses |= dict.fromkeys(membership.target + replica.admission.looked_at)
        else:
            # No entry says yet where it is; and a contact is one more place to look.
            moving = replica.joining.moving
            addresses |= dict.fromkeys([replica.leader_address, moving.target if moving else ""])
        if not membership.members or self.silent_everywhere():
            addresses[replica.start.join] = None
        return [a for a in addresses if a and a != replica.address]

    def silent_everywhere(self) -> bool:
        """Whether no other member was ever heard by this process."""
        return not any(self.known.address_of(m.node_id)
                       for m in self._replica.raft.membership.members)
