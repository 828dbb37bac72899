"""The strings that repeat in a store, and the numbers that stand for them in its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._sql.shape import as_json

if TYPE_CHECKING:
    from collections.abc import Collection, Set

    from jarvis._sql.driver import Driver

_INTERN = "INSERT INTO names (name) VALUES (?) RETURNING id"
_ID = "SELECT id FROM names WHERE {here} AND name = ?"
_NAME = "SELECT name FROM names WHERE {here} AND id = ?"
_NAMES = "SELECT id, name FROM names WHERE {here} AND id IN ({numbers}(?))"
_MANY = 10_000  # the names that a connection remembers before it forgets them all


class ErasedError(Exception):
    """A name was erased after rows that use it were read: the rows must be read again."""


class NameBook:
    """The names that the connections of one process know; a new connection begins with them.

    Attributes:
        page: (number of erasures of names, the id of each name, the name of each id): right at that number of
            erasures. It is replaced, never changed.
    """

    def __init__(self) -> None:
        self.put(-1, {}, {})

    def put(self, generation: int, ids: dict[str, int], texts: dict[int, str]) -> None:
        """Give these names to the next connection."""
        self.page = (generation, dict(ids), dict(texts))


class Names:
    """The names that one connection knows.

    Attributes:
        texts: names by their ids, as far as they were looked up; an id never gets another name.
        generation: the number of erasures of names at which all of them are right.
        has_new: some may be missing in the book.
        most: the most names that are remembered.
    """

    most = _MANY

    def __init__(self, driver: Driver, book: NameBook) -> None:
        self._driver, self._book = driver, book
        self.generation = -1
        self.has_new = True
        _, ids, texts = book.page
        self._ids = dict(ids)
        self.texts = dict(texts)

    def begin(self, generation: int) -> None:
        """Forget names that may be wrong in a store with this number of erasures of names."""
        if generation == self.generation:
            return
        self.generation, self.has_new = generation, True
        written_at, ids, texts = self._book.page
        self._ids, self.texts = (dict(ids), dict(texts)) if written_at == generation else ({}, {})

    def share(self) -> None:
        """Give these names to the next connection, if they are many more than the book has."""
        written_at, ids, _ = self._book.page
        self.has_new = False
        if written_at != self.generation or len(self._ids) > len(ids) * 1.25:
            self._book.put(self.generation, self._ids, self.texts)

    def forget(self) -> None:
        """Forget all names: an id that a rolled-back change gave may be given to another name."""
        self._ids, self.texts = {}, {}

    def intern_all(self, *names: str) -> list[int]:
        """Return the ids of `names`, giving one to each that has none."""
        try:
            return [*map(self._ids.__getitem__, names)]
        except KeyError:
            return [*map(self.intern, names)]

    def intern(self, name: str) -> int:
        """Return the id of `name`, giving it one if it has none."""
        name_id = self._ids.get(name)
        if name_id is None:
            name_id = self.fresh_id_of(name)
        if name_id is None:
            name_id = self._remember(name, self._driver.rows(_INTERN, (name,))[0][0])
        return name_id

    def id_of(self, name: str) -> int | None:
        """Return the id of `name`, or None if it has none.

        Outside a transaction the name may have been erased since, and perhaps have another id now. As no id is given
        twice, a look-up by the old one finds nothing; only then ask `fresh_id_of`.
        """
        name_id = self._ids.get(name)
        return self.fresh_id_of(name) if name_id is None else name_id

    def fresh_id_of(self, name: str) -> int | None:
        """Return the id that `name` has now, or None."""
        rows = self._driver.rows(self._driver.dialect.say(_ID), (name,))
        return self._remember(name, rows[0][0]) if rows else None

    def text_of(self, name_id: int) -> str | None:
        """Return the name with this id, or None if there is none any more."""
        name = self.texts.get(name_id)
        if name is None:
            rows = self._driver.rows(self._driver.dialect.say(_NAME), (name_id,))
            if not rows:
                return None
            name = rows[0][0]
            if len(self.texts) >= self.most:
                self.texts.clear()
            self.texts[name_id] = name
        return name

    def look_up(self, name_ids: Set[int]) -> None:
        """Learn those of some names that are not known, in one question."""
        missing = [name_id for name_id in name_ids if name_id not in self.texts]
        if len(missing) > 1:
            found = self._driver.rows(self._driver.dialect.say(_NAMES), (as_json(missing),))
            if len(self.texts) + len(found) > self.most:
                self.texts.clear()
            self.texts.update(found)

    def texts_of(self, name_ids: Collection[int]) -> list[str]:
        """Return the names with these ids, in their order; raise `ErasedError` if one is gone."""
        try:
            return [*map(self.texts.__getitem__, name_ids)]
        except KeyError:
            found = dict(self._driver.rows(self._driver.dialect.say(_NAMES), (as_json([*name_ids]),)))
            if len(found) < len(name_ids):
                raise ErasedError from None
            if len(self.texts) + len(found) <= self.most:
                self.texts |= found
            return [*map(found.__getitem__, name_ids)]

    def _remember(self, name: str, name_id: int) -> int:
        if len(self._ids) >= _MANY:
            self._ids = {}
        self._ids[name] = name_id
        self.has_new = True
        return name_id
