"""Promises of an index of words: it answers as reading every memory does, whatever happened before."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, KeepsHistory, Namespaced, SearchesText, Transactional, Transfers
from jarvis.conformance.fixtures import NOON, FakeClock, Promises, an_entry
from jarvis.errors import TransactionError
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.words import Term
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import analyser
from jarvis.text.candidates import choose
from jarvis.text.document import words_of

WORDS = [f"word{number}x" for number in range(40)]
NAMES = ["lisbon", "london", "lissabon", "harbor", "harbour", "zurich"]
MISSPELT = (Term("lisbno"), Term("word0x"), Term("lundon"), Term("zurhic"), Term("zürich"), Term("hrabor"), Term("lo"))
TERMS = (Term("word0x"), Term("word7x"), Term("word1", is_prefix=True), Term("absent"), Term("_march"), Term("word30x"))
QUERIES = (
    MemoryQuery(),
    MemoryQuery(category="tasks"),
    MemoryQuery(tags=["rare"]),
    MemoryQuery(where={"text": {"$contains": "word3"}}),
)


def a_text(chance: random.Random) -> dict[str, Any]:
    """Return a value whose text has the first words often, and the last ones seldom."""
    words = chance.choices(WORDS, [1 / (place + 1) for place in range(len(WORDS))], k=6)
    return {"text": " ".join([*words, *chance.choices(NAMES, [1 / 4**place for place in range(len(NAMES))])])}


def entries(count: int, seed: int = 0, name: str = "e") -> list[MemoryEntry]:
    """Return entries with such texts, some with equal timestamps."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    return [
        an_entry(
            f"{name}-{number}",
            category=chance.choice(["facts", "tasks"]),
            key=f"key-{number}",
            value=a_text(chance),
            tags=["rare"] if number % 25 == 0 else [],
            timestamp=NOON + timedelta(minutes=chance.randrange(count)),
        )
        for number in range(count)
    ]


def check(backend: StorageBackend, *, most: tuple[int, ...] = (1, 7, 1_000)) -> None:
    """Compare the index with what reading every memory of the namespace finds."""
    index = backend.capability(SearchesText)
    by = analyser(index.text_language())
    every = backend.list_all()
    documents = [(entry, words_of(entry, by)) for entry in every]
    for query in QUERIES:
        wanted = [entry.id for entry in every if query.matches(entry)]
        for number in most:
            assert index.candidates(TERMS, query, number) == choose(documents, TERMS, wanted, number)
    for number in (1, 150):
        found = index.candidates(MISSPELT, MemoryQuery(), number, respell=True)
        assert found == choose(documents, MISSPELT, [entry.id for entry in every], number, respell=True)


class WordPromises(Promises):
    """Texts are found as they are now."""

    @pytest.fixture
    def searched(self, backend: StorageBackend) -> StorageBackend:
        """Return a backend with an index of words, and some entries."""
        self.need(backend, SearchesText)
        backend.create_many(entries(150))
        return backend

    def test_an_empty_store_has_no_word(self, backend: StorageBackend) -> None:
        self.need(backend, SearchesText)

        check(backend)
        assert backend.capability(SearchesText).candidates([], MemoryQuery(), 10).total == 0

    def test_the_index_answers_as_all_memories_do(self, searched: StorageBackend) -> None:
        chance = random.Random(1)  # noqa: S311  the same each time
        check(searched)
        for number in range(130):  # more than are indexed at once
            searched.create(an_entry(f"new-{number}", value=a_text(chance), key=f"new {number}"))
            if number % 40 == 0:
                check(searched)
        for number in range(0, 150, 2):
            searched.update(an_entry(f"e-{number}", value=a_text(chance), category="tasks"))
        check(searched)
        for number in range(1, 150, 4):
            searched.delete(f"e-{number}")
        check(searched)
        for number in range(70):
            searched.create(an_entry(f"newer-{number}", value=a_text(chance)))
        check(searched)
        searched.clear()
        check(searched)
        searched.create_many(entries(20))
        check(searched)

    def test_a_word_is_what_the_analyser_makes_of_it(self, backend: StorageBackend) -> None:
        self.need(backend, SearchesText)
        index = backend.capability(SearchesText)
        texts = [
            "Ærø São João",
            "日本語のテキスト",
            "it's O'Neill's -- \"quoted\" * AND OR NOT",
            "x" * 5_000,
            "हिन्दी สวัสดี",
            "\0 \x7f ½ ⑴⑵ ǅ",
        ]
        for number, text in enumerate(texts):
            backend.create(an_entry(str(number), value={"text": text}, key=f"key-{number}"))
        everything = backend.list_all()
        documents = [(entry, words_of(entry, analyser("english"))) for entry in everything]
        terms = [Term(word) for word in {word for _, words in documents for word in words}]
        terms += [Term(text, is_prefix=True) for text in ("aer", "日", "(1", "a_b", "_", "½", "1\u20442", '"', "x")]
        terms += [Term(text) for text in ("", " ", "a b", 'a" OR "b', "*", "'", "\\", ":*", "\0")]

        wanted = [choose(documents, terms, [entry.id for entry in everything], most) for most in (2, 100)]
        assert [index.candidates(terms, MemoryQuery(), most) for most in (2, 100)] == wanted
        index.rebuild_index(None, None)
        assert [index.candidates(terms, MemoryQuery(), most) for most in (2, 100)] == wanted

    def test_an_expired_memory_is_neither_found_nor_counted(self, searched: StorageBackend) -> None:
        self.need(searched, Expires)
        clock = FakeClock()
        bound = searched.bind(clock=clock)
        for entry in entries(30, 2, "mortal"):
            entry.expires_at = NOON + timedelta(hours=1 + len(entry.key) % 2)
            bound.create(entry)
        check(bound)
        clock.step(hours=1, minutes=1)
        check(bound)
        clock.step(hours=2)
        check(bound)
        assert bound.capability(SearchesText).candidates(TERMS, MemoryQuery(), 1).total == 150

    def test_a_namespace_has_its_own_words(self, searched: StorageBackend) -> None:
        self.need(searched, Namespaced)
        others = [searched.bind(namespace=name) for name in ("a", "b/1")]
        for number, other in enumerate(others):
            check(other)
            other.create_many(entries(90 + number, 3 + number))
            other.create(an_entry("only", value={"text": ("kangaroo", "elephant")[number]}))
        for other in (searched, *others):
            check(other)
        asked = [Term("kangroo"), Term("elephnt")]
        found = others[0].capability(SearchesText).candidates(asked, MemoryQuery(), 1, respell=True)
        assert found.terms == (Term("kangaroo"), Term("elephnt"))
        others[0].clear()
        for other in (searched, *others):
            check(other)

    def test_a_transaction_finds_what_it_changed_and_nobody_else_does(
        self, searched: StorageBackend, open_backend: Callable[[], StorageBackend]
    ) -> None:
        self.need(searched, Transactional)
        store: Any = searched
        chance = random.Random(5)  # noqa: S311  the same each time
        other = open_backend()

        def change() -> None:
            with store.transaction():
                for number in range(100):
                    searched.create(an_entry(f"t-{number}", value=a_text(chance)))
                searched.clear()
                for number in range(100):
                    searched.create(an_entry(f"u-{number}", value=a_text(chance)))
                check(searched)
                with pytest.raises(LookupError):
                    change_more()
                check(searched)
                raise LookupError

        def change_more() -> None:
            with store.transaction():
                for number in range(70):
                    searched.update(an_entry(f"u-{number}", value=a_text(chance)))
                check(searched)
                raise LookupError

        check(searched)
        with pytest.raises(LookupError):
            change()
        check(searched)
        with store.transaction():
            searched.create(an_entry("zebra", value={"text": "zebra"}))
        check(searched)
        check(other)
        assert other.capability(SearchesText).candidates([Term("zebra")], MemoryQuery(), 1).counts == [1]
        other.shutdown()

    def test_what_was_undone_is_found_as_it_was(self, searched: StorageBackend) -> None:
        self.need(searched, KeepsHistory)
        memory = MemoryModule(storage_backend=searched)
        memory.update_memory("e-3", {"text": "changed entirely"})
        memory.delete_memory("e-4")
        check(searched)
        memory.undo("e-3")
        memory.undo("e-4")

        check(searched)
        assert searched.capability(SearchesText).candidates([Term("chang")], MemoryQuery(), 1).counts == [0]

    def test_nothing_is_left_of_erased_words(self, searched: StorageBackend) -> None:
        self.need(searched, Erases)
        memory = MemoryModule(storage_backend=searched)
        secret = memory.create_memory("facts", "secret", {"text": "uniquely secretive"}, "note")
        check(searched)
        memory.erase_memory(secret)

        check(searched)
        asked = [Term("secretivo"), Term("uniqueli")]
        assert searched.capability(SearchesText).candidates(asked, MemoryQuery(), 1, respell=True).terms == tuple(asked)

    def test_memories_that_are_loaded_are_found(
        self, searched: StorageBackend, open_backend: Callable[[], StorageBackend]
    ) -> None:
        self.need(searched, Transfers)
        self.need(searched, Namespaced)
        wholes = list(searched.capability(Transfers).whole_memories(past=True))
        other = searched.bind(namespace="loaded")
        other.capability(Transfers).load(wholes, None)

        check(other)
        check(searched)
        again = open_backend()
        check(again)
        again.shutdown()

    def test_the_index_can_be_made_again(self, searched: StorageBackend) -> None:
        index = searched.capability(SearchesText)
        told: list[tuple[int, int]] = []
        index.rebuild_index(None, lambda done, of: told.append((done, of)))

        check(searched)
        assert told
        assert told[-1][0] == told[-1][1]
        if searched.has_capability(Transactional):
            store: Any = searched
            with store.transaction(), pytest.raises(TransactionError):
                index.rebuild_index(None, None)
