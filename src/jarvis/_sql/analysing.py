"""Counts what is in some namespaces: see `jarvis.capabilities.Analyses`.

Each table is read once, in its order, and every figure is made of the rows as they pass. To let the database group them
takes longer: SQLite sorts for each `GROUP BY`. With 1,000,000 entries (550 MB) one by category, type and module took
2.7 s, one by value 3.9; to read all rows and to count them by everything takes less than both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from jarvis._sql.shape import as_json
from jarvis._sql.tables import CREATED
from jarvis.model.tally import Tally, measured

if TYPE_CHECKING:
    from jarvis._sql.session import Session
    from jarvis.errors import CorruptStoreError

_AT_ONCE = 5_000
"""How many rows are named in one statement."""

_TOLD = 2_000
"""After how many states the caller is told."""

_SMALL = 16
"""A namespace with a share of entries below one in this many is read by its index."""

_SHARE = """
SELECT (SELECT count(*) FROM entries WHERE namespace IN ({numbers}(?))), (SELECT count(*) FROM entries WHERE {here})
"""
_WHICH = "{unindexed}namespace IN ({numbers}(?))"
_ENTRIES = f"""
SELECT row, namespace, id, category, key, entity_type, instant, created, expires, version, body, packed FROM entries
WHERE {_WHICH}
"""
_REVISIONS = f"""
SELECT namespace, row, instant, ended, made, change, CASE WHEN {CREATED} THEN 1 ELSE 0 END, body, packed FROM revisions
WHERE {_WHICH}
"""
_EVENTS = f"SELECT namespace, number, made, change, count FROM events WHERE {_WHICH}"
_IDS = "SELECT id FROM entries WHERE namespace = ? AND row IN ({numbers}(?))"


def tallies(
    session: Session, namespaces: Sequence[str], now: int, most: int, looked_at: Callable[[int], object]
) -> Iterator[Tally]:
    """Yield what is counted of each namespace, all of it at one moment of the store.

    Args:
        now: the instant from which expiry is counted.
        most: how many memories and groups are told.
        looked_at: is called now and then with how many states were counted since the last call.
    """
    with contextlib.nullcontext() if session.is_still else session.standing_still():
        counting = _Counting(session, namespaces, now, most)
        counting.entries(looked_at)
        if session.driver.keeps_past():
            counting.past(looked_at)
        counting.finish()
    yield from counting.of_namespace.values()


class _Counting:
    """Counts on a session that stands still."""

    def __init__(self, session: Session, namespaces: Sequence[str], now: int, most: int) -> None:
        self._session = session
        self.of_namespace = {name: Tally(name, now, most) for name in namespaces}
        numbers = [(session.names.fresh_id_of(name), tally) for name, tally in self.of_namespace.items()]
        self._tallies = {number: tally for number, tally in numbers if number is not None}
        self._asked = as_json([*self._tallies])
        clock = session.clock_seen()
        for tally in self.of_namespace.values():
            tally.keep(past=True, feed=clock.begins is not None or not clock.commit_number)
        self._fed_from = clock.fed_from
        ((own, of_all),) = session.rows(session.say(_SHARE), (self._asked,))
        self._is_small = own * _SMALL < of_all

    def _say(self, text: str) -> str:
        return self._session.say(text.replace("{unindexed}", "") if self._is_small else text)

    def entries(self, looked_at: Callable[[int], object]) -> None:
        """Count the present states."""
        count, fed_from = 0, self._fed_from
        names, tallies = self._session.names.texts, self._tallies
        for (
            row,
            namespace,
            entry_id,
            category,
            key,
            kind,
            instant,
            created,
            expires,
            version,
            body,
            packed,
        ) in self._session.each(self._say(_ENTRIES), (self._asked,)):
            try:
                state = measured(body, packed)
            except (ValueError, TypeError, OverflowError):
                raise self._undecodable() from None
            tallies[namespace].add(
                row,
                (entry_id, names.get(category) or self._name(category), key),
                names.get(kind) or self._name(kind),
                version,
                instant if created is None else created,
                expires,
                state,
            )
            if version == 1 and row > fed_from and not state.is_renewed:
                tallies[namespace].add_change("create", instant)
            count += 1
            if not count % _TOLD:
                looked_at(_TOLD)
        looked_at(count % _TOLD)

    def past(self, looked_at: Callable[[int], object]) -> None:
        """Count the past states, and the changes that they and the events tell of."""
        session, fed_from, count = self._session, self._fed_from, 0
        for namespace, row, instant, ended, made, change, is_first, body, packed in session.each(
            self._say(_REVISIONS), (self._asked,)
        ):
            tally = self._tallies[namespace]
            try:
                tally.add_past(measured(body, packed).size)
            except (ValueError, TypeError, OverflowError):
                raise self._undecodable() from None
            if is_first and row > fed_from:
                tally.add_change("create", instant)
            if ended > fed_from:
                tally.add_change(_operation(change), made)
            count += 1
            if not count % _TOLD:
                looked_at(_TOLD)
        looked_at(count % _TOLD)
        told = {session.digest_of(tally.namespace): tally for tally in self._tallies.values()} | self._tallies
        for namespace, number, made, change, count in session.each(self._say(_EVENTS), (as_json([*told]),)):
            if number > fed_from:
                told[namespace].add_change(_operation(change), made, count)

    def finish(self) -> None:
        """Find the memories with equal values."""
        for number, tally in self._tallies.items():
            tally.finish(partial(self._ids, number))

    def _ids(self, namespace: int, rows: Sequence[int]) -> list[str]:
        sql = self._session.say(_IDS)
        pages = (as_json(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE))
        return [entry_id for page in pages for (entry_id,) in self._session.rows(sql, (namespace, page))]

    def _undecodable(self) -> CorruptStoreError:
        return self._session.driver.corrupt("an entry cannot be decoded")

    def _name(self, number: int) -> str:
        name = self._session.names.text_of(number)
        if name is None:
            raise self._session.driver.corrupt("an entry has a name that is not there")
        return name


def _operation(change: str) -> str:
    """Return the operation in the signature of a change, ``["update","module",…]``."""
    return change.split('"', 2)[1]
