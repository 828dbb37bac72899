"""`HashedNames`: names whose numbers are computed from them, so that nothing has to be asked and nobody counts."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from jarvis._sql.names import NameBook, Names

if TYPE_CHECKING:
    from jarvis._sql.driver import Driver

_STORE = """
INSERT INTO names (namespace, id, name) VALUES (:here_, :id, :name) ON CONFLICT (namespace, name) DO NOTHING
"""
_MANY = 10_000  # names that are known to be stored
_MOST_TEXTS = 100_000  # of all namespaces of a process: 15 MB; one that is not remembered takes a round trip


@lru_cache(maxsize=_MANY)
def number_of(name: str) -> int:
    """Return the number that stands for a name, in every namespace and every store: 63 bits of its BLAKE2b digest.

    The server refuses two names with one number in a namespace, so an unlucky one is an error and never a mix-up.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


class HashedNames(Names):
    """The names of one namespace that one connection knows to be stored.

    Args:
        driver: the connection.
        texts: names by their numbers, which all connections of a process share: a number has one name for ever.
    """

    most = _MOST_TEXTS

    def __init__(self, driver: Driver, texts: dict[int, str]) -> None:
        super().__init__(driver, NameBook())
        self.texts = texts
        self.has_new = False
        self._stored: set[str] = set()

    def begin(self, generation: int) -> None:
        """Forget which names are stored if some have been erased since."""
        if generation != self.generation:
            self.generation = generation
            self._stored.clear()

    def forget(self) -> None:
        """Forget which names are stored: those of a rolled-back change are not."""
        self._stored.clear()

    def intern_all(self, *names: str) -> list[int]:
        """Return the numbers of `names`, and store those that are not known to be stored."""
        return [*map(self.intern, names)]

    def intern(self, name: str) -> int:
        """Return the number of `name`, and store it if it is not known to be stored."""
        number = number_of(name)
        if name not in self._stored:
            self._driver.run(_STORE, {"id": number, "name": name})
            if len(self._stored) >= _MANY:
                self._stored.clear()
            if len(self.texts) >= self.most:
                self.texts.clear()
            self._stored.add(name)
            self.texts[number] = name
        return number

    def id_of(self, name: str) -> int:
        return number_of(name)

    def fresh_id_of(self, name: str) -> int:
        return number_of(name)
