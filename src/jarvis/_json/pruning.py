"""Which past states of a JSON store are older than is kept."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING

from jarvis._json.past import ENDLESS
from jarvis.codec.instants import MICROSECOND

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from jarvis._json.past import Archive, State
    from jarvis.model.policies import Histories

    Found = list[tuple[str, State]]


def ago(now: int, age: timedelta | None) -> int:
    """Return the instant that lies `age` before `now`; before all others if it is None."""
    return -ENDLESS if age is None else now - age // MICROSECOND


def of_usual(archives: Mapping[str, Archive], histories: Histories, now: int, limit: int) -> Found:
    """Return at most `limit` states, with their namespaces, of the categories without a policy of their own.

    Cleared states come first, each after the earlier states of its entry, then the others, the oldest first.
    """
    usual, named = histories.usual, histories.named
    aged, cleared = ago(now, usual.max_age), ago(now, usual.cleared_max_age)
    due = {
        state.ended: (name, state)
        for name, archive in archives.items()
        for state in archive.cleared(cleared)
        if state.category not in named
    }
    old = [
        (name, state)
        for name, archive in archives.items()
        for state in archive.states
        if state.made < aged and state.category not in named
    ]
    for name, state in heapq.nsmallest(limit + len(due), old, key=lambda each: each[1].ended):
        due.setdefault(state.ended, (name, state))
    return list(islice(due.values(), limit))


def of_named(archives: Mapping[str, Archive], histories: Histories, now: int, limit: int) -> Found:
    """Return at most `limit` states, with their namespaces, of the categories with a policy of their own.

    Each comes after the earlier states of its entry, which are found with it.
    """
    ages = {
        category: (ago(now, policy.max_age), ago(now, policy.cleared_max_age))
        for category, policy in histories.named.items()
    }
    found: dict[int, tuple[str, State]] = {}
    for name, archive in archives.items() if ages else ():
        for last in archive.states:
            aged, cleared = ages.get(last.category, (-ENDLESS, -ENDLESS))
            if last.made < (max(aged, cleared) if last.change.operation == "clear" else aged):
                for state in archive.of_id[last.id]:
                    if state.ended <= last.ended:
                        found.setdefault(state.ended, (name, state))
    return list(islice(found.values(), limit))
