"""The strings that repeat in a store, and the numbers that stand for them in its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jarvis._sql.driver import Driver

_INTERN = "INSERT INTO names (name) VALUES (?) RETURNING id"
_ID = "SELECT id FROM names WHERE {here} AND name = ?"
_NAME = "SELECT name FROM names WHERE {here} AND id = ?"
_MANY = 10_000  # that a connection remembers, before it forgets them all


class NameBook:
    """The names that the connections of one process know, for the next one to begin with.

    Attributes:
        page: (how many erasures of names there were, the id of each name, the name of each id), never changed but
            replaced: at that number of erasures all of it is right.
    """

    def __init__(self) -> None:
        self.put(-1, {}, {})

    def put(self, generation: int, ids: dict[str, int], texts: dict[int, str]) -> None:
        """Let the next connection begin with these."""
        self.page = (generation, dict(ids), dict(texts))


class Names:
    """The names that one connection knows.

    Attributes:
        texts: names by their ids, as far as they were looked up; an id never gets another name.
        generation: the number of erasures of names at which all of them are right.
        has_new: there may be some that the book has not.
    """

    def __init__(self, driver: Driver, book: NameBook) -> None:
        self._driver, self._book = driver, book
        self.generation = -1
        self.has_new = True
        _, ids, texts = book.page
        self._ids = dict(ids)
        self.texts = dict(texts)

    def begin(self, generation: int) -> None:
        """Forget what may be wrong in a store that has seen so many erasures of names."""
        if generation == self.generation:
            return
        self.generation, self.has_new = generation, True
        written_at, ids, texts = self._book.page
        self._ids, self.texts = (dict(ids), dict(texts)) if written_at == generation else ({}, {})

    def share(self) -> None:
        """Let the next connection begin with these, if they are many more than it would have."""
        written_at, ids, _ = self._book.page
        self.has_new = False
        if written_at != self.generation or len(self._ids) > len(ids) * 1.25:
            self._book.put(self.generation, self._ids, self.texts)

    def forget(self) -> None:
        """Forget all of them: ids that were given in what was taken back may be given again."""
        self._ids, self.texts = {}, {}

    def intern_all(self, *names: str) -> list[int]:
        """Return the ids of `names`, giving one to each that has none."""
        try:
            return [*map(self._ids.__getitem__, names)]
        except KeyError:
            return [*map(self.intern, names)]

    def intern(self, name: str) -> int:
        """Return the id of `name`, giving it one if it has none."""
        known = self._ids.get(name)
        if known is None:
            known = self.fresh_id_of(name)
        if known is None:
            known = self._remember(name, self._driver.rows(_INTERN, (name,))[0][0])
        return known

    def id_of(self, name: str) -> int | None:
        """Return the id of `name`, or None if it has none.

        Outside a transaction it may be the id of a name that was erased since, and perhaps given anew. As
        no id is given twice, what is asked for by it is not found; only then ask `fresh_id_of`.
        """
        known = self._ids.get(name)
        return self.fresh_id_of(name) if known is None else known

    def fresh_id_of(self, name: str) -> int | None:
        """Return the id that `name` has now, or None."""
        found = self._driver.rows(self._driver.dialect.say(_ID), (name,))
        return self._remember(name, found[0][0]) if found else None

    def text_of(self, name_id: int) -> str | None:
        """Return the name with this id, or None if there is none any more."""
        known = self.texts.get(name_id)
        if known is None:
            found = self._driver.rows(self._driver.dialect.say(_NAME), (name_id,))
            if not found:
                return None
            known = found[0][0]
            if len(self.texts) >= _MANY:
                self.texts = {}
            self.texts[name_id] = known
        return known

    def _remember(self, name: str, name_id: int) -> int:
        if len(self._ids) >= _MANY:
            self._ids = {}
        self._ids[name] = name_id
        self.has_new = True
        return name_id
