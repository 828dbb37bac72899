"""`Room`: the entries of one namespace of a JSON store, in memory, with indexes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from jarvis._json.record import Record, by_expiry, by_number, by_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jarvis.model.listing import Field
    from jarvis.model.query import MemoryQuery


class Room:
    """The records of a namespace, by id and by the fields that queries look up.

    An index is built when it is first needed, and each of its lists is sorted by `Record.order`, ascending. A room that
    a snapshot holds is never changed.
    """

    def __init__(self, records: dict[str, Record]) -> None:
        self.records = records
        self.changes = 0  # how often `set` was called
        self._ordered: list[Record] | None = None
        self._born: list[Record] | None = None
        self._mortal: list[Record] | None = None
        self._indexes: dict[str, dict[str | None, list[Record]]] = {}

    @property
    def born(self) -> list[Record]:
        """The records that were not stored again since they were created, by commit number, ascending."""
        born = self._born
        if born is None:
            born = [record for record in self.records.values() if record.version == 1 and not record.renewed]
            born.sort(key=by_number)
            self._born = born
        return born

    def expired(self, now: int) -> list[Record]:
        """Return the records that have expired at the instant `now`, the earliest expiry first."""
        mortal = self._mortal
        if mortal is None:
            mortal = [record for record in self.records.values() if record.expires is not None]
            mortal.sort(key=by_expiry)
            self._mortal = mortal
        return mortal[: bisect_right(mortal, now, key=lambda record: record.expires or 0)]

    def live(self, now: int) -> Room | LiveRoom:
        """Return the records that have not expired at the instant `now`."""
        return LiveRoom(self, now) if self.expired(now) else self

    def get(self, entry_id: str) -> Record | None:
        """Return the record with this id, or None."""
        return self.records.get(entry_id)

    def set(self, entry_id: str, record: Record | None) -> Record | None:
        """Replace the record with this id, or remove it for None; return the record from before."""
        self._born = None
        self.changes += 1
        before = self.records.pop(entry_id, None) if record is None else self.records.get(entry_id)
        if before is not None:
            for records in self._lists_of(before):
                del records[bisect_left(records, before.order, key=by_order)]
            if self._mortal is not None and before.expires is not None:
                del self._mortal[bisect_left(self._mortal, by_expiry(before), key=by_expiry)]
        if record is not None:
            self.records[entry_id] = record
            for records in self._lists_of(record):
                records.insert(bisect_left(records, record.order, key=by_order), record)
            if self._mortal is not None and record.expires is not None:
                self._mortal.insert(bisect_left(self._mortal, by_expiry(record), key=by_expiry), record)
        return before

    def lead(self, query: MemoryQuery) -> tuple[str, list[Record]]:
        """Return the index that has the fewest records for a query, ``"none"`` if none has, and these records."""
        lists = [(name, self._index(name).get(text, [])) for name, text in query.exact().items()]
        if query.keys is not None:
            lists.append(("key", _merged([self._index("key").get(key, []) for key in set(query.keys)])))
        if query.tags is not None:
            tagged = [self._index("tags").get(tag, []) for tag in set(query.tags)]
            if query.tags_match == "all" or len(tagged) == 1:
                lists += [("tags", records) for records in tagged]
            elif not tagged or not lists:
                lists.append(("tags", _merged(tagged)))
        return min(lists, key=lambda each: len(each[1])) if lists else ("none", self._all())

    def candidates(self, query: MemoryQuery) -> Iterator[Record]:
        """Return, newest first, the records of this moment among which are all that match."""
        _, chosen = self.lead(query)
        since, until = query.instants
        start = 0 if since is None else bisect_left(chosen, (since,), key=by_order)
        stop = len(chosen) if until is None else bisect_left(chosen, (until,), key=by_order)
        if query.position is not None and query.is_newest_first:
            stop = min(stop, bisect_left(chosen, query.position, key=by_order))
        return reversed(chosen[start:stop])

    def names(self, field: Field) -> dict[str, int]:
        """Return the names in a field, with how many records have each."""
        index = self._index("tags" if field == "tag" else field)
        return {name: len(records) for name, records in index.items() if name is not None and records}

    def _all(self) -> list[Record]:
        ordered = self._ordered
        if ordered is None:
            ordered = self._ordered = sorted(self.records.values(), key=by_order)
        return ordered

    def _index(self, name: str) -> dict[str | None, list[Record]]:
        index = self._indexes.get(name)
        if index is None:
            index = {}
            for record in self._all():
                for term in _terms(record, name):
                    index.setdefault(term, []).append(record)
            self._indexes[name] = index
        return index

    def _lists_of(self, record: Record) -> Iterator[list[Record]]:
        if self._ordered is not None:
            yield self._ordered
        for name, index in self._indexes.items():
            for term in _terms(record, name):
                yield index.setdefault(term, [])


class LiveRoom:
    """The records of `room` that have not expired at the instant `now`; answers as `Room` does."""

    def __init__(self, room: Room, now: int) -> None:
        self._room, self._now = room, now

    def get(self, entry_id: str) -> Record | None:
        """Return the record with this id, or None."""
        record = self._room.get(entry_id)
        return None if record is None or record.has_expired(self._now) else record

    def lead(self, query: MemoryQuery) -> tuple[str, list[Record]]:
        """Return the index that has the fewest records for a query, and these, expired or not."""
        return self._room.lead(query)

    def candidates(self, query: MemoryQuery) -> Iterator[Record]:
        """Return, newest first, the records of this moment among which are all that match."""
        return (record for record in self._room.candidates(query) if not record.has_expired(self._now))


def _terms(record: Record, name: str) -> Collection[str | None]:
    return set(record.tags) if name == "tags" else (getattr(record, name),)


def _merged(lists: list[list[Record]]) -> list[Record]:
    return sorted({record.id: record for records in lists for record in records}.values(), key=by_order)
