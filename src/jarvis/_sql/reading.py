"""Makes entries of the rows that a statement returns; looks up names again that were erased meanwhile."""

from __future__ import annotations

import functools
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from jarvis._sql.names import ErasedError
from jarvis._sql.select import COLUMNS, LIVE, Statement, count, select
from jarvis._sql.shape import as_json, decides, tags_left, tags_test
from jarvis.codec import InvalidMomentError, instant_of
from jarvis.codec.instants import datetime_of
from jarvis.errors import CorruptStoreError, InvalidEntryError, StoreAccessError
from jarvis.model.entry import MemoryEntry, check_name
from jarvis.model.explanation import Explanation, filters_of, hint_for
from jarvis.model.query import MemoryQuery
from jarvis.model.record import decode_entry, decode_value, unknown_zone

if TYPE_CHECKING:
    from jarvis._sql.lender import Lender
    from jarvis._sql.session import Session
    from jarvis.model.revision import Cutoff

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_LIVE = LIVE.replace(":now", "?")
READ = f"SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = ? AND e.id = ? AND {_LIVE}"
_READ_MANY = f"SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = ? AND e.id IN ({{members}}(?)) AND {_LIVE}"
# The index of the key leads: a planner that has no figures yet, as on a server before its first ANALYZE, may choose the
# index of the category, which all entries may have. No index serves a condition that IS TRUE.
LAST_WRITTEN = f"""
SELECT {COLUMNS} FROM entries AS e
WHERE e.namespace = ?1
    AND e.row = (
        SELECT max(row) FROM entries AS e WHERE namespace = ?1 AND (category = ?) IS TRUE AND key = ? AND {_LIVE}
    )
"""
NEWEST_OF_KEY = f"""
SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = ? AND e.key = ? AND {_LIVE}
ORDER BY e.instant DESC, e.row DESC LIMIT 1
"""
_UUID_LENGTH = 36
_MANY = 1_000  # the length of a list from which the garbage collector waits


class Reader:
    """Reads the entries of one namespace of a store.

    A `clock` of None is the system's.
    """

    def __init__(self, lender: Lender, namespace: str, clock: Callable[[], datetime] | None) -> None:
        self.lender, self.namespace, self.clock = lender, namespace, clock

    def now(self) -> int:
        """Return the present instant."""
        return time.time_ns() // 1000 if self.clock is None else instant_of(self.clock())

    def reading(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        """Run `work` with a session and `args`, again if a name was erased meanwhile; return its result."""
        try:
            return self.lender.read(work, *args)
        except ErasedError:
            return self._again(work, *args)

    def _again(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        try:
            return self.lender.read(work, *args)
        except ErasedError:  # with its entry the name would have gone
            raise self._nameless() from None

    def one(self, sql: str, names: tuple[str, ...], last: str) -> MemoryEntry | None:
        """Return the entry that a statement selects; it is given namespace and `names` (as ids), `last` and now."""
        try:  # the lines of `reading`, without the cost of a call
            return self.lender.read(self.find, sql, names, last)
        except ErasedError:
            return self._again(self.find, sql, names, last)

    def find(self, session: Session, sql: str, names: tuple[str, ...], last: str) -> MemoryEntry | None:
        """Return the entry of `one`, read on this session."""
        now = self.now()
        ids = (session.names.id_of(self.namespace), *map(session.names.id_of, names))
        rows = session.rows(sql, (*ids, last, now))
        if not rows and not session.depth:
            fresh = (*map(session.names.fresh_id_of, (self.namespace, *names)),)
            rows = rows if fresh == ids else session.rows(sql, (*fresh, last, now))
        if not rows:  # also if a name has no id: NULL matches nothing
            return None
        (entry,) = self.entries(session, rows)
        if session.depth:
            session.note_read(self.namespace, rows[0], entry.tags)
        return entry

    def several(self, session: Session, ids: Sequence[str]) -> list[MemoryEntry]:
        """Return the entries with these ids, in the order of `ids`."""
        asked, now = as_json(ids), self.now()
        namespace = session.names.id_of(self.namespace)
        rows = session.rows(session.say(_READ_MANY), (namespace, asked, now))
        if not rows and not session.depth and namespace != (fresh := session.names.fresh_id_of(self.namespace)):
            rows = session.rows(session.say(_READ_MANY), (fresh, asked, now))
        found = {entry.id: entry for entry in self.entries(session, rows)}
        return [found[entry_id] for entry_id in ids if entry_id in found]

    def rows(self, session: Session, query: MemoryQuery, make: Callable[..., Statement | None]) -> list[Any]:
        """Return the rows that answer `query`."""
        # With several tags the rows of one would hide that the remembered number of another is out of date.
        several = query.tags is not None and len(query.tags) > 1
        now = self.now()
        first, rows = None, list[Any]()
        if not several:
            first = make(query, self.namespace, session.names.id_of, session.dialect, now=now)
            rows = session.rows(*first) if first else rows
            if session.depth or (rows and (make is select or rows[0][0])):  # a count has one row, perhaps of 0
                return rows
        fresh = make(query, self.namespace, session.names.fresh_id_of, session.dialect, now=now)
        if fresh is None or fresh == first:
            return rows if fresh else []
        return session.rows(*fresh)

    def sift(self, session: Session, query: MemoryQuery, now: int, seen: Cutoff | None = None) -> Iterator[MemoryEntry]:
        """Yield the entries that match `query`, `where` included, from its offset up to its limit, row by row."""
        try:
            for row in self.matching(session, query, now, seen):
                yield self.entries(session, (row,))[0]
        except ErasedError:  # while the statement holds one state of the store
            raise self._nameless() from None

    def matching(self, session: Session, query: MemoryQuery, now: int, seen: Cutoff | None = None) -> Iterator[Any]:
        """Yield the rows of the entries that `sift` returns."""
        name_id, limited = session.names.fresh_id_of, decides(query)
        statement = select(query, self.namespace, name_id, session.dialect, now=now, limited=limited, cutoff=seen)
        if statement is not None:
            yield from self._judged(session, query, session.each(*statement))

    def _judged(self, session: Session, query: MemoryQuery, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield those rows of a statement that match what it does not decide, from the offset up to the limit."""
        if decides(query):
            yield from rows
            return
        test, has_tags = query.test, tags_test(query)
        if has_tags is not None:
            rows = (row for row in rows if has_tags(session.body(row[-2])))
        if test is not None:
            rows = (row for row in rows if test(self.value(row[1], row[-2], row[-1])))
        stop = None if query.limit is None else min(query.offset + query.limit, sys.maxsize)
        yield from itertools.islice(rows, query.offset, stop)

    def explain(
        self, session: Session, query: MemoryQuery, now: int, seen: Cutoff | None = None, *, counting: bool = False
    ) -> Explanation:
        """Answer a query, and return how; see `jarvis.storage_backend.StorageBackend.explain`."""
        name_id, decided = session.names.fresh_id_of, decides(query)
        make = count if counting and decided else functools.partial(select, limited=decided)
        statement = make(query, self.namespace, name_id, session.dialect, now=now, cutoff=seen, watched=True)
        index, looks, handed, returned = "none", session.driver.looks(), itertools.count(), 0
        if statement is not None:
            index, rows = session.driver.index_of(*statement), session.each(*statement)
            if make is count:
                ((returned,),) = rows
            else:
                returned = sum(1 for _ in self._judged(session, query, (row for row in rows if next(handed) >= 0)))
        in_python = () if decided else (*tags_left(query), "where", "limit")
        bound, given = {} if statement is None else statement.bindings, filters_of(query)
        return Explanation(
            index=index,
            looked_at=session.driver.looks() - looks,
            judged=0 if decided else next(handed),
            returned=returned,
            in_database=(
                *(name for name in given if name not in in_python),
                *(f"where {bound[name][len('$[0].') :]}" for name in sorted(bound) if name.startswith("path_")),
            ),
            in_python=tuple(name for name in given if name in in_python),
            hint=hint_for(query),
        )

    def entries(self, session: Session, rows: Sequence[tuple[Any, ...]]) -> list[MemoryEntry]:
        """Return the entries of rows of `COLUMNS`; raise `ErasedError` if a name they need is gone."""
        if len(rows) > 1:
            session.names.look_up({row[2] for row in rows} | {row[4] for row in rows})
        built, names = [], session.names.texts
        pausing = len(rows) >= _MANY and gc.isenabled()
        if pausing:  # it would scan the new entries again and again, and free nothing
            gc.disable()
        try:
            for (
                commit,
                entry_id,
                category,
                key,
                entity_type,
                entity_id,
                instant,
                version,
                expires,
                body,
                packed,
            ) in rows:
                built.append(
                    decode_entry(
                        entry_id,
                        names.get(category) or _name(session, category),
                        key,
                        names.get(entity_type) or _name(session, entity_type),
                        entity_id,
                        version,
                        (instant, commit),
                        body,
                        None if expires is None else datetime_of(expires),
                        packed,
                    )
                )
        except InvalidMomentError as error:
            raise self._unknown_zone(entry_id, error) from None
        except (ValueError, TypeError, OverflowError):  # its message may hold stored values
            raise self.undecodable(entry_id) from None
        finally:
            if pausing:
                gc.enable()
        return built

    def value(self, entry_id: str, body: str, packed: bytes | None) -> Any:
        """Return the value of a stored entry; raise `StoreError` if it cannot be decoded."""
        try:
            return decode_value(body, packed)
        except InvalidMomentError as error:
            raise self._unknown_zone(entry_id, error) from None
        except (ValueError, TypeError, OverflowError):
            raise self.undecodable(entry_id) from None

    def _unknown_zone(self, entry_id: str, error: InvalidMomentError) -> StoreAccessError:
        return StoreAccessError(self.lender.path, unknown_zone(entry_id, error))

    def undecodable(self, entry_id: str) -> CorruptStoreError:
        """Return the error that says that a state of an entry cannot be decoded."""
        return self.lender.corrupt(f"the entry {entry_id} cannot be decoded")

    def _nameless(self) -> CorruptStoreError:
        return self.lender.corrupt("an entry has a name that is not there")


def _name(session: Session, name_id: int) -> str:
    name = session.names.text_of(name_id)
    if name is None:
        raise ErasedError
    return name


def can_be_looked_up(name: object) -> bool:
    """Tell whether an entry can have this id: an invalid one was never stored."""
    if type(name) is str and len(name) == _UUID_LENGTH and name.isascii() and "\0" not in name:
        return True
    try:
        check_name("id", name)
    except InvalidEntryError:
        return False
    return True
