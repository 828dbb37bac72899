"""The index of words: which entries have a word. It lags behind the entries, which a search makes up for.

A transaction of its own for each document would cost FTS5 240 µs, one in a batch 18 µs, so a write leaves the index
alone. The entries after the mark, the *tail*, are indexed with every 64th change. A row that is removed or replaced is
noted as stale until then. A search reads the tail, and leaves stale rows out: see `jarvis._sql.searching`. A write of
many entries leaves them to the next search, which indexes them first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from jarvis._sql.names import ErasedError
from jarvis._sql.select import COLUMNS
from jarvis.errors import CorruptStoreError, StoreAccessError
from jarvis.model.options import NO_INDEX
from jarvis.model.rules import PRUNED_EVERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis._sql.word_index import Mark
    from jarvis.text.analysis import Analyser

_DAMAGED = "damaged"
AT_ONCE = 1_000
"""How many entries one step of a search indexes; that of a write does as many as were changed, and as many again."""

_COUNT = """
INSERT INTO text_counts (namespace, entries) VALUES (?, ?)
ON CONFLICT (namespace) DO UPDATE SET entries = text_counts.entries + excluded.entries
"""
_COUNT_NO_MORE = "DELETE FROM text_counts WHERE {here} AND entries = 0"
_COUNT_NONE = "DELETE FROM text_counts WHERE {here}"
_STALE = "SELECT row, namespace FROM text_stale WHERE {here} ORDER BY row LIMIT ?"
_FORGET = "DELETE FROM text_stale WHERE {here} AND row <= ?"
_FORGET_ALL = "DELETE FROM text_stale WHERE {here}"
_TAIL = f"SELECT e.namespace, {COLUMNS} FROM entries AS e WHERE {{here}} AND e.row > ? ORDER BY e.row LIMIT ?"


def forget_stale(session: Session, most: int | None = None) -> bool:
    """Remove stale rows from the index, at most `most`; return whether none are left. An erasure removes all."""
    left = most
    while stale := session.rows(session.say(_STALE), (AT_ONCE if left is None else min(left, AT_ONCE),)):
        session.driver.words.remove(session.driver, [row for row, _ in stale])
        session.run(session.say(_FORGET), stale[-1][:1])
        _count(session, -1, [namespace for _, namespace in stale])
        if left is not None:
            left -= len(stale)
            if not left:
                return False
        session.run(session.say(_COUNT_NO_MORE))
    return True


def _count(session: Session, sign: int, namespaces: Iterable[int]) -> None:
    session.driver.many(_COUNT, [(each, sign * number) for each, number in Counter(namespaces).items()])


def forget_erased(session: Session) -> None:
    """Remove all stale rows from the index, if there is one; a damaged index begins again."""
    made_by = session.driver.words.mark(session.driver).made_by
    if made_by == _DAMAGED:
        start_again(session)
    elif made_by:
        try:
            forget_stale(session)
        except CorruptStoreError:
            start_again(session)


def keep_up(session: Session, reader: Reader) -> None:
    """Index the next entries, in the transaction of a write, unless only a search can begin again."""
    mark = session.driver.words.mark(session.driver)
    if mark.language != NO_INDEX and (mark.fits or not mark.made_by):
        try:
            advance(session, reader, mark, 2 * PRUNED_EVERY)
        except CorruptStoreError:  # the write is kept all the same
            session.driver.words.move(session.driver, _DAMAGED, 0)


def advance(session: Session, reader: Reader, mark: Mark, most: int) -> bool:
    """Index the next entries, at most `most`, in the session's transaction; return whether none are left.

    An index that another analyser made begins again. An entry that cannot be decoded has no words: reading it tells.
    """
    index, driver, upto = session.driver.words, session.driver, mark.upto
    if not mark.fits:
        start_again(session)
        upto = 0
    has_none_stale = forget_stale(session, most)
    rows = session.rows(session.say(_TAIL), (upto, most))
    made_by = mark.analyser
    of_rows = zip(rows, words_in(session, reader, [row[1:] for row in rows], made_by), strict=True)
    index.add(driver, [(row[1], row[0], words) for row, words in of_rows if words])
    _count(session, +1, [row[0] for row in rows])
    is_all = len(rows) < most
    upto = session.clock.commit_number if is_all else rows[-1][1]
    index.move(driver, made_by.name, upto)
    return is_all and has_none_stale


def start_again(session: Session) -> None:
    """Empty the index."""
    session.driver.words.clear(session.driver)
    session.run(session.say(_FORGET_ALL))
    session.run(session.say(_COUNT_NONE))
    session.driver.words.move(session.driver, "", 0)


def words_in(session: Session, reader: Reader, rows: Sequence[tuple[Any, ...]], by: Analyser) -> list[set[str]]:
    """Return the words of entries, given as rows of `COLUMNS`; none of one that cannot be decoded."""
    from jarvis.text.document import words_of

    try:
        return [words_of(entry, by) for entry in reader.entries(session, rows)]
    except (CorruptStoreError, StoreAccessError, ErasedError):
        return [set()] if len(rows) == 1 else [words_in(session, reader, (row,), by)[0] for row in rows]
