"""`WordIndex`: finds the rows of entries that have a word; each database has its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from jarvis.model.options import TextIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jarvis.model.words import Term
    from jarvis.text.analysis import Analyser


class Statements(Protocol):
    """The part of a `jarvis._sql.driver.Driver` that an index uses."""

    def rows(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """Run one statement and return all its rows."""

    def run(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> None:
        """Run one statement that changes something and has no answer."""

    def many(self, sql: str, several: Sequence[Sequence[Any] | dict[str, Any]]) -> None:
        """Run one statement that changes something once for each of these bindings."""


class WordIndex(ABC):
    """Finds the rows of entries that have a word. Each database has its own.

    Rows, counts and words of one namespace never depend on another. The words are those of `jarvis.text.analysis`:
    small letters and digits, perhaps behind a ``_``. Inside a transaction every method sees what was changed before.

    Attributes:
        seeks: `among` is faster than `rows` for some hundred rows.
    """

    seeks: ClassVar[bool] = False

    @abstractmethod
    def mark(self, driver: Statements) -> Mark:
        """Return how far the index goes; of a store without one, or of an earlier version, that of an empty index."""

    @abstractmethod
    def move(self, driver: Statements, analyser: str, upto: int) -> None:
        """Note that an analyser of this name has made the index, up to this row."""

    @abstractmethod
    def set_language(self, driver: Statements, language: TextIndex) -> None:
        """Let the store be indexed in this language, or not at all if it is `NO_INDEX`."""

    @abstractmethod
    def add(self, driver: Statements, documents: Sequence[tuple[int, int, Iterable[str]]]) -> None:
        """Add rows: each with its namespace, and its words, each once."""

    @abstractmethod
    def remove(self, driver: Statements, rows: Sequence[int]) -> None:
        """Remove rows; no-op for those that are not there."""

    @abstractmethod
    def clear(self, driver: Statements) -> None:
        """Remove all rows, as far as the session sees."""

    @abstractmethod
    def rows(self, driver: Statements, namespace: int, word: Term, most: int | None) -> list[int]:
        """Return all rows that have a word, or the greatest `most`; in any order."""

    @abstractmethod
    def counts(self, driver: Statements, namespace: int, words: Sequence[Term]) -> list[int]:
        """Return how many rows have each of some words."""

    @abstractmethod
    def among(self, driver: Statements, namespace: int, word: Term, rows: Sequence[int]) -> list[int]:
        """Return those of these rows that have a word; in any order."""

    @abstractmethod
    def all_counts(self, driver: Statements, namespace: int) -> list[dict[str, int]]:
        """Return how many rows have each word, as each of its tables tells that."""

    @abstractmethod
    def words(self, driver: Statements, namespace: int, beginning: str) -> list[str]:
        """Return the words that begin so, in any order."""


class Mark(NamedTuple):
    """How far the index of words goes.

    Attributes:
        language: in which the store is to be indexed, or `NO_INDEX`.
        made_by: the name of the analyser that made the index; empty if nothing was indexed yet.
        upto: all entries up to this row are in it, but for those that are stale.
    """

    language: TextIndex
    made_by: str
    upto: int

    @property
    def analyser(self) -> Analyser:
        """The analyser of the language."""
        from jarvis.text.analysis import analyser  # most processes never need it

        return analyser(self.language)

    @property
    def fits(self) -> bool:
        """The index has the words that this library makes."""
        return self.made_by == self.analyser.name

    @property
    def is_newer(self) -> bool:
        """A newer library made the index: it stays as it is, or two versions would make it again and again."""
        from jarvis.text.analysis import VERSION

        language, _, version = self.made_by.partition(" ")
        return language == self.language and version.isdecimal() and int(version) > VERSION
