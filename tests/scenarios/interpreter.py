"""Golden scenarios: a text file of commands, and under each the trace that it must give.

A line that begins with `#` is a comment, one that is indented is trace, any other is a command
(the methods `do_...` of Script; `NODES` is `1`, `2 3` or `*`, `LINK` is `1->2`, `1->*`, `*->2`):
everything that a scenario does is done to real cores, through tests/raft/harness.py. `run` gives
the text as it should be; that it is right is for a reader to say, with the paper beside it.
"""

import re
from pathlib import Path

from raftnet.config import RaftConfig
from raftnet.errors import RaftnetError
from raftnet.raft.membership import Member
from raftnet.raft.types import Append, HardState, Message
from tests.raft.harness import Envelope, address_of, batch
from tests.scenarios.traced import TracedCluster

FOLDER = Path(__file__).parent
INDENT = "    "
_KINDS = {kind.__name__: kind for kind in Message.__args__}
_QUIET = re.compile(r"\d+ (is|counts) |apply |answer |assertion |refused ")


def paths() -> list[Path]:
    """All scenarios, by name."""
    return sorted(FOLDER.glob("*.txt"))


def run(text: str) -> tuple[str, bool]:
    """The text with the trace that the code gives now, and whether every assertion held.

    A broken assertion (of the core, of the invariants) ends the trace with a line of its own.
    Raises ValueError with the line's number where a command is not understood.
    """
    script, result = Script(), []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(INDENT):
            continue
        result.append(line)
        if not line or line.startswith("#"):
            continue
        try:
            trace, sound = script.command(line)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"line {number}: {line}: {error!r}") from error
        result += [INDENT + told for told in trace]
        if not sound:
            return "\n".join(result) + "\n", False
    return "\n".join(result) + "\n", True


class Script:
    """The cluster of one scenario, and what a line may do to it."""

    cluster: TracedCluster

    def command(self, line: str) -> tuple[list[str], bool]:
        """Do what a line says; its trace, and whether every assertion held."""
        name, *words = line.split()
        quietly = name == "quietly"
        if quietly:
            name, *words = words
        method = getattr(self, "do_" + name.replace("-", "_"), None)
        if method is None:
            raise ValueError("no such command")
        sound = True
        try:
            method(*words)
        except RaftnetError as error:
            self.cluster.tell(f"refused {type(error).__name__}: {error}")
        except AssertionError as error:
            self.cluster.tell(f"assertion broken: {error}")
            sound = False
        trace, self.cluster.lines = self.cluster.lines, []
        if quietly:
            trace = [told for told in trace if _QUIET.match(told)]
        return trace, sound

    def _nodes(self, words: tuple[str, ...]) -> list[int]:
        if words == ("*",):
            return [n for n in self.cluster.nodes if n not in self.cluster.down]
        return [int(word) for word in words]

    def _pick(self, words: tuple[str, ...]) -> list:
        """Remove from the network what `LINK [KIND] [COUNT]` names, oldest first."""
        link, *rest = words
        sender, to = (None if end == "*" else int(end) for end in link.split("->"))
        kind = _KINDS[rest.pop(0)] if rest and not rest[0].isdigit() else None
        count = int(rest.pop(0)) if rest else 1 << 30
        if rest:
            raise ValueError(f"not understood: {rest}")
        pool = self.cluster.pool
        chosen = [e for e in pool if (kind is None or isinstance(e.message, kind))
                  and sender in (None, e.sender) and to in (None, e.to)][:count]
        self.cluster.pool = [e for e in pool if all(e is not each for each in chosen)]
        if not chosen:
            self.cluster.tell("(nothing is on its way there)")
        return chosen

    # --- what is given

    def do_nodes(self, *words: str) -> None:
        """`nodes 1 2 3 [learners 4] [unfounded]`: each has entry 1 of term 1, and is in term 1."""
        names = [word for word in words if word != "unfounded"]
        cut = names.index("learners") if "learners" in names else len(names)
        self.cluster = TracedCluster([int(name) for name in names[:cut]],
                                     [int(name) for name in names[cut + 1:]],
                                     founded="unfounded" not in words)

    def do_new(self, node: str) -> None:
        """`new 4`: a node with an empty disk that nobody counts yet."""
        self.cluster.place(int(node), [])

    def do_log(self, node: str, *terms: str) -> None:
        """`log 1: 1 1 4`: the terms of the entries on its disk; it is in the last of them."""
        self.cluster.place(int(node.rstrip(":")), [int(term) for term in terms])

    def do_state(self, node: str, *words: str) -> None:
        """`state 1: term 3 vote 5`, behind its log."""
        _, term, _, vote = words
        node_id = int(node.rstrip(":"))
        terms = [entry.term for entry in self.cluster.nodes[node_id].file]
        self.cluster.place(node_id, terms, HardState(int(term), int(vote)))

    def do_limit(self, name: str, value: str) -> None:
        """`limit append_bytes_max 1`: a field of RaftConfig, for all."""
        if name not in RaftConfig.__slots__:
            raise ValueError("no such limit")
        setattr(self.cluster.config, name, int(value))

    # --- time, clients, the leader's decisions

    def do_tick(self, *words: str) -> None:
        """`tick NODES 500`: so many milliseconds pass there."""
        self.cluster.tick(int(words[-1]), *self._nodes(words[:-1]))

    def do_campaign(self, node: str) -> None:
        """`campaign 1`: its election timeout is reached now."""
        self.cluster.campaign(int(node))

    def do_timeout(self, node: str, wait_ms: str) -> None:
        """`timeout 3 900`: its election timeout is reached so long from now."""
        core = self.cluster.core(int(node))
        core.election_deadline_ms = core.now_ms + int(wait_ms)

    def do_propose(self, node: str, text: str) -> None:
        """`propose 1 "x"`: a batch with that payload, without blanks."""
        self.cluster.propose(int(node), text.strip('"').encode())

    def do_read(self, node: str, token: str) -> None:
        """`read 1 7`: a linearizable read; 7 is what the answer is known by."""
        self.cluster.invariants.asked(int(token))
        self.cluster.core(int(node)).read(int(token))
        self.cluster.collect(int(node))

    def do_membership(self, node: str, verb: str, *members: str) -> None:
        """What leader 1 proposes: `membership 1 add 4`: 4 is a learner; `add 4 stays`: for ever;
        `add 4 at 3`: at the address of 3, whose directory was emptied; `remove 4`; `set 1 2 4`:
        these shall be all."""
        membership = self.cluster.core(int(node)).membership
        if verb == "add":
            member, *rest = members
            place = int(rest[1]) if rest[:1] == ["at"] else int(member)
            learner = Member(int(member), address_of(place), False, rest == ["stays"])
            membership = membership.with_member(learner)
        elif verb == "remove":
            membership = membership.without_member(int(members[0]))
        elif verb == "set":
            membership = membership.with_target([address_of(int(each)) for each in members])
        else:
            raise ValueError("no such change")
        self.cluster.change(int(node), membership)

    def do_transfer(self, node: str, to: str) -> None:
        """`transfer 1 2`: leader 1 hands over to 2."""
        self.cluster.core(int(node)).transfer(int(to))
        self.cluster.collect(int(node))

    def do_gone(self, *words: str) -> None:
        """`gone NODES 1`: they see that the process of 1 is dead (connection refused)."""
        for node_id in self._nodes(words[:-1]):
            self.cluster.core(node_id).leader_gone(int(words[-1]))
            self.cluster.collect(node_id)

    def do_reconnect(self, node: str, peer: str) -> None:
        """`reconnect 1 2`: 1 has a new connection to 2."""
        self.cluster.core(int(node)).peer_connected(int(peer))
        self.cluster.collect(int(node))

    # --- the network

    def do_deliver(self, *words: str) -> None:
        """`deliver LINK [KIND] [COUNT]`: these arrive; what is sent in answer does not yet."""
        self.cluster.deliver(self._pick(words))

    def do_drop(self, *words: str) -> None:
        """`drop LINK [KIND] [COUNT]`: these are lost."""
        for envelope in self._pick(words):
            self.cluster.tell_message("lost", envelope)

    def do_duplicate(self, *words: str) -> None:
        """`duplicate LINK [KIND] [COUNT]`: each of these is on its way twice from now on."""
        chosen = self._pick(words)
        self.cluster.pool += chosen + [each._replace() for each in chosen]
        for envelope in chosen:
            self.cluster.tell_message("twice", envelope)

    def do_inject(self, *words: str) -> None:
        """`inject 3->1 Append term 3 prev 9/1 commit 0 entries 10@3 11@3`: a message by hand."""
        link, _, _, term, _, prev, _, commit, _, *places = words
        sender, to = map(int, link.split("->"))
        index, prev_term = map(int, prev.split("/"))
        entries = [batch(*map(int, place.split("@"))) for place in places]
        message = Append(int(term), index, prev_term, int(commit), entries)
        self.cluster.pool.append(Envelope(sender, to, message))
        self.cluster.tell_message("on its way", self.cluster.pool[-1])

    def do_turn(self, *links: str) -> None:
        """`turn 3->1 4->1`: node 1 hears all of these, in this order, in one turn of its loop."""
        (to,) = {int(link.split("->")[1]) for link in links}
        for link in links:
            for envelope in self._pick((link,)):
                if self.cluster.arrives(envelope):
                    self.cluster.core(to).step(envelope.sender, envelope.message)
        self.cluster.collect(to)

    def do_cut(self, link: str) -> None:
        """`cut 1->3`: what goes there is lost."""
        sender, to = map(int, link.split("->"))
        self.cluster.cut.add((sender, to))

    def do_isolate(self, *words: str) -> None:
        """`isolate NODES`: cut off from the others, not from each other."""
        self.cluster.isolate(*self._nodes(words))

    def do_heal(self) -> None:
        """`heal`: all links work."""
        self.cluster.heal()

    def do_talk(self, first: str, second: str) -> None:
        """`talk 1 2`: these two exchange messages until nothing moves between them."""
        self.cluster.talk(int(first), int(second))

    def do_stabilize(self) -> None:
        """`stabilize`: deliver and sync until nothing moves; what is held stays."""
        self.cluster.settle()

    # --- disks and processes

    def do_disk(self, *words: str) -> None:
        """`disk NODES [first]`: their jobs end, or the oldest job only; a held disk too."""
        count = 1 if words[-1] == "first" else 1 << 30
        nodes = self._nodes(words[:-1] if words[-1] == "first" else words)
        if not any(self.cluster.nodes[node_id].jobs for node_id in nodes):
            self.cluster.tell("(no job is under way there)")
        for node_id in nodes:
            self.cluster.sync(node_id, count)

    def do_hold_disk(self, node: str) -> None:
        """`hold-disk 2`: from now on its jobs end by `disk` only."""
        self.cluster.slow_disks.add(int(node))

    def do_free_disk(self, node: str) -> None:
        """`free-disk 2`: the disk is quick again."""
        self.cluster.slow_disks.remove(int(node))

    def do_compact(self, node: str, keep: str = "0") -> None:
        """`compact 1 2`: a snapshot of what it applied; its log keeps 2 entries before its end."""
        self.cluster.compact(int(node), int(keep))

    def do_hold_build(self, node: str) -> None:
        """`hold-build 3`: a snapshot that is received there is built by `build` only."""
        self.cluster.nodes[int(node)].builds = False

    def do_build(self, node: str) -> None:
        """`build 3`: the snapshot that was received is verified, and its state built."""
        self.cluster.build(int(node))
        self.cluster.collect(int(node))

    def do_crash(self, node: str) -> None:
        """`crash 3`: power off; what was not synced is gone."""
        self.cluster.crash(int(node))

    def do_restart(self, node: str) -> None:
        """`restart 3`: begins again from its disk."""
        self.cluster.restart(int(node))

    def do_status(self, *words: str) -> None:
        """`status [NODES]`: a line each."""
        for node_id in [int(word) for word in words] or sorted(self.cluster.nodes):
            self.cluster.tell(self.cluster.status_of(node_id))
