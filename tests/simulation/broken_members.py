"""Broken variants of who belongs: changes, transfers, greetings, identities.

As in broken_raft.py: functions from the real code to the broken one, and VARIANTS.
"""

from dataclasses import replace
from unittest.mock import patch

from raftnet.acquaintances import Acquaintances
from raftnet.greetings import Greetings
from raftnet.raft import changes, core, election, leader, transfer
from raftnet.raft.membership import Member, Membership
from raftnet.raft.types import Role, TimeoutNow
from raftnet.simulation import connections
from tests.simulation.breaking import Variant, wrapped

_CHURN = ({"delay_ms": 5, "jitter_ms": 5}, 600, ("remove", "join", "crash", "isolate", "slow link",
                                                 "outage"))
_EMPTIED = ({"delay_ms": 5, "jitter_ms": 5}, 600, ("wipe", "wipe", "isolate", "crash"))
_OLD = ({"delay_ms": 5, "jitter_ms": 5}, 400, ("restore", "restore", "crash", "isolate"))
_HANDING = ({"delay_ms": 10, "jitter_ms": 10}, 400, ("transfer", "transfer", "stop", "slow link",
                                                     "slow disk"))
_LATE = ({"delay_ms": 20, "jitter_ms": 20, "reorder": 10, "duplicate": 20}, 400,
         ("transfer", "transfer", "transfer", "slow link", "pause"))
_TARGETS = ({"delay_ms": 5, "jitter_ms": 5}, 800, ("set", "set", "crash", "slow link"))
_OUTAGES = ({"delay_ms": 5, "jitter_ms": 5}, 600, ("outage", "remove", "remove"))


# --- who counts


def _count_removed(real):
    """The leader keeps what it knows of a removed node, and counts it like a voter."""
    def follow_membership(raft):
        before = getattr(raft, "counted", {}) | raft.progress if raft.progress else {}
        real(raft)
        raft.counted = {n: p for n, p in before.items() if n in raft.membership.removed}
    return follow_membership


def _still_counts(real):
    def on_append_reply(raft, sender, message):
        counted = getattr(raft, "counted", {})
        progress = counted.get(sender)
        if progress is not None and message.success and message.term == raft.current_term:
            progress.acknowledged(message.match_index, raft.now_ms)
            leader.maybe_commit(raft)
        real(raft, sender, message)
    return on_append_reply


def _with_removed(real):
    def maybe_commit(raft):
        real(raft)
        match = [raft.log.stable_index if n == raft.node_id else raft.progress[n].match_index
                 for n in raft.membership.voters]
        match += [p.match_index for p in getattr(raft, "counted", {}).values()]
        match.sort(reverse=True)
        index = match[raft.membership.quorum - 1]
        if index > raft.log.commit_index and raft.log.term_at(index) == raft.current_term:
            raft.log.commit_to(index)
    return maybe_commit


def _still_sends(real):
    """To a removed node, as if it belonged."""
    def flush(raft):
        counted = getattr(raft, "counted", {})
        raft.progress.update(counted)
        real(raft)
        for node_id in counted:
            raft.progress.pop(node_id, None)
    return flush


def _still_dials(real):
    def dial_targets(greetings):
        raft = greetings._replica.raft
        counted = getattr(raft, "counted", {}) if raft is not None else {}
        return real(greetings) + [greetings.known.address_of(node_id) for node_id in counted
                                  if greetings.known.address_of(node_id) not in real(greetings)]
    return dial_targets


def _count_itself(real):
    def maybe_commit(raft):
        real(raft)
        if raft.membership.is_voter(raft.node_id):
            return
        match = [raft.progress[n].match_index for n in raft.membership.voters]
        match.append(raft.log.stable_index)
        match.sort(reverse=True)
        index = match[raft.membership.quorum - 1]
        if index > raft.log.commit_index and raft.log.term_at(index) == raft.current_term:
            raft.log.commit_to(index)
    return maybe_commit


def _forget_removed(real):
    def without_member(membership, node_id):
        return replace(real(membership, node_id), removed=())
    return without_member


# --- handing over


def _press_at_once(raft):
    if not raft.transfer_asked:
        raft.transfer_asked = True
        raft.send(raft.transfer_to, TimeoutNow(raft.current_term))


def _whenever_told(raft, sender, message):
    if raft.role is Role.FOLLOWER and election.may_campaign(raft):
        election._campaign(raft, True)


def _propose_on(real):
    def propose(raft, kind, payload):
        to, raft.transfer_to = raft.transfer_to, 0
        try:
            return real(raft, kind, payload)
        finally:
            raft.transfer_to = to
    return propose


# --- steps of a leader


def _promote_twins(real):
    def _promote(raft, membership):
        for member in membership.members:
            if not member.voter and not member.stays and changes._has_caught_up(raft, member):
                return membership.with_member(Member(member.node_id, member.address, True))
        return None
    return _promote


def _never_end_twins(raft, membership):
    return None


def _remove_first(real):
    def _approach_target(raft, membership):
        others = [m for m in membership.members if m.address not in membership.target]
        if membership.target and others and any(
                membership.member_at(a) is None or not membership.member_at(a).voter
                for a in membership.target):
            others.sort(key=lambda m: m.node_id == raft.node_id)
            return membership.without_member(others[0].node_id)
        return real(raft, membership)
    return _approach_target


# --- identities


class _Anybody(int):
    """A node id that equals every other."""

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def _to_an_address(real):
    def _answered(connected, link, hello):
        real(connected, link, hello)
        if link.acceptor_id:
            link.acceptor_id = _Anybody(link.acceptor_id)
    return _answered


VARIANTS = [
    Variant("removed node counted", "a leader goes on sending to a removed node, and counts it",
            lambda: [wrapped(leader, "follow_membership", _count_removed),
                     wrapped(leader, "maybe_commit", _with_removed),
                     wrapped(leader, "flush", _still_sends),
                     wrapped(Greetings, "dial_targets", _still_dials),
                     patch.dict(core._STEP, {core.AppendReply: _still_counts(
                         core._STEP[core.AppendReply])})], profile=_CHURN),
    Variant("removed leader counts itself", "a leader that is no voter any more counts its copy",
            lambda: [wrapped(leader, "maybe_commit", _count_itself)], profile=_CHURN),
    Variant("tombstones forgotten", "no membership says who was removed",
            lambda: [wrapped(Membership, "without_member", _forget_removed)], profile=_CHURN),
    Variant("live quorum not looked at", "a change may leave fewer voters alive than decide",
            lambda: [patch.object(changes, "_check_quorum_lives", lambda *_: None)], run_ms=20_000,
            profile=_OUTAGES),
    Variant("transfer without catching up", "the target is told before it holds the whole log",
            lambda: [patch.object(transfer, "press", _press_at_once)], profile=_HANDING),
    Variant("transfer of an earlier term", "who is told to campaign does not look by whom, nor in "
            "which term", lambda: [patch.dict(core._STEP, {TimeoutNow: _whenever_told})],
            profile=_LATE,
            run_ms=20_000),
    Variant("proposing during a transfer", "a leader that hands over goes on appending",
            lambda: [wrapped(leader, "propose", _propose_on),
                     patch.object(core.Raft, "transferring", property(lambda raft: False))],
            profile=_HANDING),
    Variant("twins both vote", "a newcomer is promoted beside its old identity",
            lambda: [wrapped(changes, "_promote", _promote_twins),
                     patch.object(changes, "_end_twins", _never_end_twins)], profile=_EMPTIED),
    Variant("promoted before it has caught up", "a learner that answers becomes a voter",
            lambda: [patch.object(changes, "_has_caught_up", lambda raft, member: True)],
            profile=({"delay_ms": 5, "jitter_ms": 5}, 1_500, ("join", "slow link"))),
    Variant("target reached by removing first", "who is not in the target goes before others come",
            lambda: [wrapped(changes, "_approach_target", _remove_first)], profile=_TARGETS),
    Variant("old copy not noticed", "a directory that was put back is taken for the newest",
            lambda: [patch.object(Acquaintances, "why_old_copy", lambda *_: "")], profile=_OLD),
    Variant("messages to an address", "messages for an old identity reach the newcomer in its "
            "place", lambda: [wrapped(connections.Connections, "_answered", _to_an_address)],
            profile=_EMPTIED, run_ms=20_000),
]
