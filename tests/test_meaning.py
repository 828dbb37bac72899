"""Memories are found by what they mean, and whatever the model does, nothing else fails or waits."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jarvis.capabilities import KeepsVectors
from jarvis.conformance.fixtures import FakeClock, an_entry
from jarvis.embedding import finding
from jarvis.embedding.finding import load_embedder
from jarvis.errors import (
    EmbedderError,
    InvalidSettingError,
    ReadOnlyStoreError,
    TransactionError,
    UnsupportedError,
)
from jarvis.keys import EnvironmentKey, KeyFunction
from jarvis.model.entry import MemoryEntry
from jarvis.model.recalled import Recalled
from jarvis.model.vectors import Embedder, VectorMark
from jarvis.persistent_memory import MemoryModule
from jarvis.search import vectors
from jarvis.services import meaning
from jarvis.storage_backend import StorageBackend
from tests.postgresql import a_database

STORES = Path(__file__).parent / "stores"
GROUPS = [
    {"dog", "pets", "puppies", "puppy", "cat"},
    {"rent", "flat", "pay", "landlord"},
    {"jazz", "music", "songs", "saxophone"},
    {"tea", "drink", "coffee"},
]
"""Words that mean nearly the same to `Thesaurus`."""


class Thesaurus:
    """An embedder as a user may write one: a number for each group of words, and some for the others."""

    def __init__(self, name: str = "thesaurus", dim: int = 40) -> None:
        self.name, self.dim = name, dim
        self.texts: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        self.texts += texts
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        self.texts.append(text)
        return np.array(self._vector(text), np.float32)

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self.dim
        for word in text.lower().replace(".", " ").replace("?", " ").split():
            for place, group in enumerate(GROUPS):
                vector[place] += 3.0 * (word in group)
            vector[len(GROUPS) + sum(map(ord, word)) % (self.dim - len(GROUPS))] += 0.2
        return vector


class Broken(Thesaurus):
    """An embedder that does something else than it should."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def embed_documents(self, texts: Sequence[str]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer] * len(texts) if isinstance(self.answer, list) else self.answer

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])


FACTS = ["The puppies sleep all day", "My landlord came on Friday", "He plays the saxophone", "Nothing to see"]


@pytest.fixture
def memory(tmp_path: Path) -> MemoryModule:
    memory = MemoryModule(storage_dir=tmp_path, embedder=Thesaurus())
    for text in FACTS:
        memory.remember(text)
    return memory


def texts(found: Sequence[Any]) -> list[str]:
    return [recalled.entry.value["text"] for recalled in found]


def change_of(recalled: Recalled) -> int:
    assert recalled.entry.position is not None
    return recalled.entry.position[1]


# --- it finds -----------------------------------------------------------------------------------------


def test_a_memory_is_found_by_other_words(memory: MemoryModule) -> None:
    assert memory.recall("pets") == []

    assert memory.store.index_pending() == 4

    (best, *_) = memory.recall("pets")
    assert best.entry.value == {"text": FACTS[0]}
    assert best.parts["meaning"] > 0.5 * best.score
    assert sum(best.parts.values()) == pytest.approx(best.score)
    assert texts(memory.recall("music", limit=1)) == [FACTS[2]]
    assert memory.store.index_pending() == 0


def test_contexts_and_executions_are_found_by_meaning_too(memory: MemoryModule) -> None:
    made = memory.save_execution("x", "a program that sorts songs", file_locations=["sort.py"])
    memory.store.index_pending()

    assert memory.build_context("pets").lines[0].entry.value == {"text": FACTS[0]}
    assert [each.id for each in memory.search_by_description("jazz")] == [made]
    assert memory.get_file_locations("jazz") == ["sort.py"]


def test_nothing_that_is_like_the_question_is_nothing(memory: MemoryModule) -> None:
    memory.store.index_pending()

    assert memory.recall("tea") == []
    assert memory.recall("pets", min_score=0.9) == []


def test_search_text_goes_by_words_alone(memory: MemoryModule) -> None:
    memory.store.index_pending()

    assert memory.search_text("pets") == []
    assert memory.recall('"pets"') != []  # the quotes are a user's
    assert [set(recalled.parts) & {"meaning"} for recalled in memory.search_text("puppies")] == [set()]


def test_filters_hold_for_what_is_found_by_meaning(memory: MemoryModule) -> None:
    memory.create_memory("notes", "cat", {"text": "A cat", "age": 3}, "note", tags=["x"], entity_id="tom")
    for number in range(300):
        memory.remember(f"puppies {number}", tags=["y"])
    memory.store.index_pending()

    for filters in ({"category": "notes"}, {"tags": ["x"]}, {"entity_id": "tom"}, {"where": {"age": 3}}):
        assert texts(memory.recall("pets", **filters)) == ["A cat"], filters


@pytest.mark.parametrize("exact", [50_000, 10])
def test_a_filter_finds_the_few_among_many_that_are_nearer(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    memory.create_memory("notes", "old", {"text": "A cat came"}, "note")
    for number in range(30):
        memory.create_memory("notes", f"n{number}", {"text": f"Nothing {number}"}, "note")
    for number in range(30):
        memory.remember(f"puppies {number}")
    memory.store.index_pending()
    monkeypatch.setattr(vectors, "EXACT", exact)
    monkeypatch.setattr(meaning, "_LOOKED_AT", 20)
    monkeypatch.setattr(meaning, "_NEAREST", 10)

    assert [each.entry.key for each in memory.recall("pets", key_prefix="ol")] == ["old"]
    assert memory.recall("pets", key_prefix="none") == []


def test_a_memory_that_changed_is_found_as_it_is_now(memory: MemoryModule) -> None:
    memory.store.index_pending()
    (puppies, *_) = memory.recall("pets")
    memory.update_memory(puppies.entry.id, {"text": "My favourite songs"})
    assert "My favourite songs" not in texts(memory.recall("pets"))

    memory.store.index_pending()

    assert set(texts(memory.recall("music", limit=2))) == {"My favourite songs", FACTS[2]}
    memory.delete_memory(puppies.entry.id)
    assert "My favourite songs" not in texts(memory.recall("music"))


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_what_a_transaction_took_back_is_found_again(tmp_path: Path, backend_type: str) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, embedder=Thesaurus())
    for text in FACTS:
        memory.remember(text)
    memory.store.index_pending()
    (puppies, *_) = memory.recall("pets")

    def change() -> None:
        with memory.transaction():
            memory.update_memory(puppies.entry.id, {"text": "My favourite songs"})
            assert FACTS[0] not in texts(memory.recall("pets"))
            raise LookupError

    with pytest.raises(LookupError):
        change()

    assert texts(memory.recall("pets", limit=1)) == [FACTS[0]]
    memory.shutdown()


def test_half_a_sign_stops_no_model(tmp_path: Path) -> None:
    class Strict(Thesaurus):
        def _vector(self, text: str) -> list[float]:
            return super()._vector(text.encode().decode())

    memory = MemoryModule(storage_dir=tmp_path, embedder=Strict())
    memory.create_memory("facts", "half", {"text": "half \ud83d puppies \U0001f436"}, "")
    memory.remember("a dog")

    assert memory.store.index_pending() == 2

    assert len(memory.recall("pets \udc36")) == 2
    assert memory._meaning()._again_at == 0.0


def test_names_are_not_for_the_model(tmp_path: Path) -> None:
    embedder = Thesaurus()
    memory = MemoryModule(storage_dir=tmp_path, embedder=embedder)
    memory.remember("Maria moves to Lisbon", about=("person", "maria"))
    memory.record_turn("s", "Tom", "I like Maria's cat")
    memory.record_turn("s", "Maria", "And I like Tom's dog, my Tom!")
    memory.set_user_preference("theme", {"mode": "dark"})
    memory.store.index_pending()

    assert embedder.texts == [
        "moves to Lisbon",
        "I like Maria's cat",  # nobody had said yet that Maria is a person of the conversation
        "And I like dog, my !",
        "theme mode dark",
    ]
    memory.recall("What does Maria like?")
    assert embedder.texts[-1] == "What does like?"


def test_a_namespace_never_sees_vectors_of_another(memory: MemoryModule) -> None:
    bob = memory.for_namespace("bob")
    bob.remember("My cat is called Ada")
    assert memory.store.index_pending() == 5

    assert texts(bob.recall("pets")) == ["My cat is called Ada"]
    assert "My cat is called Ada" not in texts(memory.recall("pets"))


def test_vectors_of_many_namespaces_do_not_all_stay_in_memory(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "_MOST_IN_MEMORY", 9)
    users = [memory.for_namespace(f"user {number}") for number in range(5)]
    for user in users:
        for text in FACTS:
            user.remember(text)
    memory.store.index_pending()

    for user in [*users, *users]:
        assert texts(user.recall("pets", limit=1)) == [FACTS[0]]

    assert list(memory._meaning()._nearest) == ["user 2", "user 3", "user 4"]


def test_a_memory_without_a_vector_is_found_beside_the_others(memory: MemoryModule) -> None:
    for number in range(30):
        memory.remember(f"A puppy called {number}")
    memory.store.index_pending()
    memory.remember("puppies that nobody has embedded")

    assert "puppies that nobody has embedded" in texts(memory.recall("puppies embedded", limit=3))


def test_a_store_of_which_few_memories_have_vectors_is_searched_by_words_alone(memory: MemoryModule) -> None:
    memory.store.index_pending()
    for number in range(30):
        memory.remember(f"Puppies number {number}")

    found = memory.recall("puppies", limit=40)

    assert len(found) == 31
    assert all("meaning" not in recalled.parts for recalled in found)


def test_the_reply_to_what_is_found_by_meaning_is_found_with_it(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "_NEAREST", 1)
    for speaker, text in (("Ann", "My cat is ill"), ("Ben", "Since when"), ("Ann", "Sunday"), ("Ben", "Poor thing")):
        memory.record_turn("s", speaker, text)
    memory.store.index_pending()

    found = texts(memory.recall("pets", category="turns"))

    assert found[0] == "My cat is ill"
    assert set(found[1:]) == {"Since when", "Sunday"}


def test_a_memory_that_is_only_somewhat_similar_is_none(tmp_path: Path) -> None:
    class Slight(Thesaurus):
        def embed_query(self, text: str) -> npt.NDArray[np.float32]:
            return np.array([1.0, 0.0, *[0.0] * 38], np.float32)

        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            return [[float(text), 1.0, *[0.0] * 38] for text in texts]

    memory = MemoryModule(storage_dir=tmp_path, embedder=Slight())
    memory.remember("0.2")
    memory.store.index_pending()
    assert memory.recall("anything") == []

    memory.remember("0.4")
    memory.store.index_pending()

    assert texts(memory.recall("anything")) == ["0.4", "0.2"]


# --- what is stored -----------------------------------------------------------------------------------


def test_many_vectors_are_compared_by_their_signs_first(memory: MemoryModule, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(400):
        memory.remember(f"drink number {number}")
    memory.store.index_pending()
    exact = {question: memory.recall(question) for question in ("pets", "music", "pay", "coffee")}

    monkeypatch.setattr(vectors, "EXACT", 100)
    monkeypatch.setattr(vectors, "RESCORED", 404)
    again = MemoryModule(memory.backend, embedder=Thesaurus())

    assert {question: again.recall(question) for question in exact} == exact


def test_signs_tell_which_vectors_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "EXACT", 100)
    monkeypatch.setattr(vectors, "RESCORED", 20)
    several = np.random.default_rng(4).standard_normal((1_000, 96)).astype(np.float32)
    store: Any = _Stored(vectors.coded(several, range(1, 1_001)))
    nearest = vectors.Nearest("m", 96)

    for place in range(0, 1_000, 50):
        found = nearest.find(store, vectors.Question(several[place] + several[place - 7] / 2), 3)
        assert next(iter(found)) == place + 1
    assert store.asked == 20 * 20


def test_similarities_are_those_of_the_vectors() -> None:
    chance = np.random.default_rng(3)
    for dim in (1, 7, 64, 384, 1_536, 4_096):
        several = chance.standard_normal((50, dim)).astype(np.float32)
        question = chance.standard_normal(dim).astype(np.float32)
        store: Any = _Stored(vectors.coded(several, range(1, 51)))

        found = vectors.Nearest("m", dim).find(store, vectors.Question(question), 50)

        cosines = several @ question / np.linalg.norm(several, axis=1) / np.linalg.norm(question)
        assert [found[change] for change in range(1, 51)] == pytest.approx(cosines.tolist(), abs=0.02)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_damaged_vector_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    several = np.random.default_rng(7).standard_normal((50, 96)).astype(np.float32)
    store: Any = _Stored(vectors.coded(several, range(1, 51)))
    question = vectors.Question(several[0])
    codes = bytearray(store.several[0].codes)
    for place in (0, 4, len(codes) // 2, len(codes) - 1):
        codes[place] ^= 1
        store.several[0] = store.several[0]._replace(codes=bytes(codes))

        for exact in (100, 10):
            monkeypatch.setattr(vectors, "EXACT", exact)
            assert set(vectors.Nearest("m", 96).find(store, question, 50)) == set(range(2, 51))
        assert vectors.Nearest("m", 96).similarities(store, question, [1]) == {}
        codes[place] ^= 1


def test_vectors_of_former_states_make_room_for_others() -> None:
    several = np.random.default_rng(5).standard_normal((50, 96)).astype(np.float32)
    store: Any = _Stored(vectors.coded(several, range(1, 51)))
    nearest, question = vectors.Nearest("m", 96), vectors.Question(several[0])
    first = list(nearest.find(store, question, 5))
    assert first[0] == 1

    nearest.forget(first[:2])

    assert list(nearest.find(store, question, 3)) == first[2:]
    store.several = store.several[10:20]
    nearest.forget(list(range(1, 40)))  # most of them: it reads all again
    assert set(nearest.find(store, question, 50)) == set(range(11, 21))


def test_a_restored_store_is_read_again() -> None:
    several = np.random.default_rng(6).standard_normal((50, 96)).astype(np.float32)
    store: Any = _Stored(vectors.coded(several, range(1, 51)))
    nearest, question = vectors.Nearest("m", 96), vectors.Question(several[0])
    nearest.find(store, question, 5)

    store.several, store.generation = store.several[5:8], 2

    assert set(nearest.find(store, question, 50)) == {6, 7, 8}


class _Stored:
    """Vectors in a list, as a backend keeps them."""

    def __init__(self, several: list[Any]) -> None:
        self.several, self.asked, self.generation = several, 0, 1

    def vectors(self, model: str, since: Any, most: int, *, whole: bool) -> Any:
        start = since.number if since.generation == self.generation else 0
        found = self.several[start : start + most]
        return VectorMark(self.generation, start + len(found)), found

    def codes_of(self, model: str, changes: Sequence[int]) -> list[tuple[int, bytes]]:
        self.asked += len(changes)
        return [(change, self.several[change - 1].codes) for change in changes]


@pytest.mark.parametrize("scale", [1e-305, 1e-42, 1e-30, 1.0, 1e30, 1e300])
def test_the_length_of_a_vector_does_not_matter(tmp_path: Path, scale: float) -> None:
    class Scaled(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> Any:
            return np.array(super().embed_documents(texts)) * scale

        def embed_query(self, text: str) -> Any:
            return self.embed_documents([text])[0]

    memory = MemoryModule(storage_dir=tmp_path, embedder=Scaled())
    for text in [*FACTS, "", "   "]:
        memory.create_memory("notes", f"note {text}", {"text": text}, "note")
    memory.store.index_pending()

    assert texts(memory.recall("pets", limit=1)) == [FACTS[0]]


def test_an_array_of_the_model_stays_as_it_is(tmp_path: Path) -> None:
    made: list[npt.NDArray[np.float32]] = []

    class Protected(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> Any:
            made.append(np.zeros((len(texts), self.dim), np.float32))
            made[-1].setflags(write=len(made) == 1)
            return made[-1]

    memory = MemoryModule(storage_dir=tmp_path, embedder=Protected())
    for text in FACTS[:2]:
        memory.remember(text)
        assert memory.store.index_pending() == 1

    assert len(made) == 2
    assert not any(array.any() for array in made)


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_a_model_that_makes_other_vectors_under_its_name_fails_no_search(tmp_path: Path, backend_type: str) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, embedder=Thesaurus(dim=40))
    memory.remember(FACTS[0])
    memory.store.index_pending()
    smaller = Thesaurus(dim=36)  # its signs have as many bytes
    changed = MemoryModule(memory.backend, embedder=smaller)

    assert changed.recall("pets") == []
    assert texts(changed.recall("puppies")) == [FACTS[0]]


def test_nothing_is_left_of_an_erased_vector(memory: MemoryModule, tmp_path: Path) -> None:
    memory.store.index_pending()
    (puppies, *_) = memory.recall("pets")
    ((_, codes),) = memory.backend.capability(KeepsVectors).codes_of("thesaurus", [change_of(puppies)])
    memory.shutdown()
    assert any(codes in path.read_bytes() for path in tmp_path.iterdir())

    memory.erase_memory(puppies.entry.id)
    memory.shutdown()

    assert not any(codes in path.read_bytes() for path in tmp_path.iterdir())
    assert memory.store.verify().problems == {}


def test_an_expired_memory_is_not_found_and_leaves_no_vector(tmp_path: Path) -> None:
    clock = FakeClock()
    memory = MemoryModule(storage_dir=tmp_path, embedder=Thesaurus(), clock=clock)
    memory.create_memory("notes", "cat", {"text": "A cat"}, "note", ttl=timedelta(hours=1))
    memory.store.index_pending()
    (cat,) = memory.recall("pets")
    assert cat.entry.value == {"text": "A cat"}
    ((_, codes),) = memory.backend.capability(KeepsVectors).codes_of("thesaurus", [change_of(cat)])
    clock.step(hours=2)

    assert memory.recall("pets") == []
    assert memory.store.purge_expired() == 1
    assert memory.backend.capability(KeepsVectors).count_vectors(None) == 0
    memory.shutdown()
    assert not any(codes in path.read_bytes() for path in tmp_path.iterdir())


def test_vectors_of_an_encrypted_store_are_in_the_file_as_its_memories_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "a2V5" * 10 + "a2U=")
    memory = MemoryModule(storage_dir=tmp_path, embedder=Thesaurus(), encryption="on", keys=[EnvironmentKey("A_KEY")])
    memory.remember(FACTS[0])
    memory.store.index_pending()
    (found,) = memory.recall("pets")
    ((_, codes),) = memory.backend.capability(KeepsVectors).codes_of("thesaurus", [change_of(found)])
    memory.shutdown()

    assert not any(codes in path.read_bytes() or b"thesaurus" in path.read_bytes() for path in tmp_path.iterdir())
    memory.store.rotate_key()
    assert texts(memory.recall("pets")) == [FACTS[0]]
    memory.store.decrypt()
    assert texts(memory.recall("pets")) == [FACTS[0]]


def test_copies_and_moves_have_the_vectors(memory: MemoryModule, tmp_path: Path) -> None:
    memory.store.index_pending()
    memory.store.back_up(tmp_path / "backup")
    memory.store.recompress()
    assert texts(memory.recall("pets", limit=1)) == [FACTS[0]]
    assert memory.store.index_pending() == 0

    copy = MemoryModule(storage_dir=tmp_path / "backup", embedder=Thesaurus())

    assert texts(copy.recall("pets", limit=1)) == [FACTS[0]]
    assert copy.store.index_pending() == 0


@pytest.mark.parametrize("version", range(1, 9))
def test_a_store_of_an_earlier_version_gets_vectors(tmp_path: Path, version: int) -> None:
    shutil.copy(STORES / f"version-{version}.db", tmp_path / "memory.db")
    reader = MemoryModule(storage_dir=tmp_path, read_only=True, embedder=Thesaurus())
    assert reader.recall("pets") == []
    with pytest.raises((ReadOnlyStoreError, UnsupportedError)):
        reader.store.index_pending()
    reader.shutdown()
    memory = MemoryModule(storage_dir=tmp_path, embedder=Thesaurus())
    before = memory.store.digest()

    assert memory.store.index_pending() == sum(
        memory.for_namespace(name).count_memories() for name in memory.store.list_namespaces()
    )

    assert memory.store.digest() == before


def test_another_program_sees_the_table(memory: MemoryModule, tmp_path: Path) -> None:
    memory.store.index_pending()
    memory.shutdown()

    connection = sqlite3.connect(tmp_path / "memory.db")
    rows = connection.execute("SELECT model, length(signs), length(codes) FROM vectors").fetchall()
    connection.close()
    assert rows == [("thesaurus", 5, 48)] * 4


# --- the model fails, is slow, is another ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (RuntimeError("secret text"), "raised RuntimeError"),
        (None, "shape"),
        ([1.0, 2.0], "shape"),
        ([float("nan")] * 40, "not finite"),
        ([float("inf")] * 40, "not finite"),
        (["x"] * 40, "raised ValueError"),
    ],
)
def test_a_failing_model_is_told_once_and_words_still_find(
    memory: MemoryModule, caplog: pytest.LogCaptureFixture, answer: Any, problem: str
) -> None:
    memory.store.index_pending()
    broken = MemoryModule(memory.backend, embedder=Broken(answer))

    with caplog.at_level(logging.WARNING, "jarvis"):
        assert texts(broken.recall("puppies")) == [FACTS[0]]
        assert texts(broken.recall("puppies")) == [FACTS[0]]

    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    created = broken.remember("a new one")
    with pytest.raises(EmbedderError, match=problem) as told:
        broken.store.index_pending()
    assert "secret" not in str(told.value)
    assert broken.get_memory(created) is not None


def test_a_model_that_works_again_goes_on_where_it_failed(memory: MemoryModule) -> None:
    class Weak(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            if len(self.texts) >= 128:
                raise MemoryError
            return super().embed_documents(texts)

    for number in range(300):
        memory.remember(f"drink number {number}")
    with pytest.raises(EmbedderError, match="MemoryError"):
        MemoryModule(memory.backend, embedder=Weak()).store.index_pending()
    assert memory.backend.capability(KeepsVectors).count_vectors("thesaurus") == 128
    told: list[tuple[int, int]] = []

    assert memory.store.index_pending(progress=lambda done, total: told.append((done, total))) == 304 - 128

    assert told[-1] == (176, 176)
    assert [done for done, _ in told] == [64, 128, 176]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_text_that_the_model_refuses_keeps_no_other_from_its_vector(
    memory: MemoryModule, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    class Picky(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            if any("unreadable" in text for text in texts):
                raise ValueError(texts)
            return super().embed_documents(texts)

    for text in FACTS[place:]:
        memory.forget(text=text)
    memory.remember("unreadable puppies")
    memory.remember("My cat is called Ada")
    picky = MemoryModule(memory.backend, embedder=Picky())

    with caplog.at_level(logging.WARNING, "jarvis"):
        picky.store.index_pending()

    assert picky.store.index_pending() == 0
    assert len(caplog.records) == 1
    assert "refused 1 memories" in caplog.text
    assert "unreadable" not in caplog.text
    assert "My cat is called Ada" in texts(picky.recall("pets", limit=2))
    assert texts(picky.recall("unreadable", limit=1)) == ["unreadable puppies"]


def test_a_model_that_refuses_all_of_few_texts_has_failed(memory: MemoryModule) -> None:
    broken = MemoryModule(memory.backend, embedder=Broken(OSError()))
    for text in FACTS[:2]:
        memory.forget(text=text)

    with pytest.raises(EmbedderError):
        broken.store.index_pending()

    assert memory.backend.capability(KeepsVectors).count_vectors(None) == 0


def test_another_model_finds_by_words_until_it_has_vectors(
    memory: MemoryModule, caplog: pytest.LogCaptureFixture
) -> None:
    memory.store.index_pending()
    other = MemoryModule(memory.backend, embedder=Thesaurus("another", dim=50))
    with caplog.at_level(logging.WARNING, "jarvis"):
        assert other.recall("pets") == []
        assert texts(other.recall("puppies")) == [FACTS[0]]
    assert [record.message for record in caplog.records] == [
        "memories are found by their words alone for a while: the vectors are of another embedder than 'another': "
        "call memory.store.index_pending()"
    ]

    assert other.store.index_pending() == 4

    assert texts(other.recall("pets", limit=1)) == [FACTS[0]]
    assert memory.recall("pets") == []  # the vectors of the first model are gone
    assert texts(memory.recall("puppies")) == [FACTS[0]]


def test_no_write_waits_for_the_model(memory: MemoryModule) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            begun.set()
            assert go_on.wait(30)
            return super().embed_documents(texts)

    slow = MemoryModule(memory.backend, embedder=Slow())
    slow.store.index_pending(background=True)
    assert begun.wait(30)
    slow.store.index_pending(background=True)  # one is at it
    changed = memory.recall("puppies")[0].entry.id
    with memory.transaction():
        memory.update_memory(changed, {"text": "The puppies sleep no more"})
        memory.remember("written meanwhile")
    assert len(texts(slow.recall("puppies"))) == 1
    go_on.set()
    slow.shutdown()  # after the step

    assert memory.backend.capability(KeepsVectors).count_vectors("thesaurus") in (3, 5)
    memory.store.index_pending()
    assert memory.backend.capability(KeepsVectors).count_vectors("thesaurus") == 5


def test_a_shutdown_does_not_wait_for_a_model_that_hangs(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Hanging(Thesaurus):
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            begun.set()
            go_on.wait()
            return super().embed_documents(texts)

    monkeypatch.setattr(meaning, "_PATIENCE_SECONDS", 0.01)
    hanging = MemoryModule(memory.backend, embedder=Hanging())
    hanging.store.index_pending(background=True)
    assert begun.wait(30)
    thread = hanging._meaning()._indexing
    assert thread is not None
    with caplog.at_level(logging.WARNING, "jarvis"):
        hanging.shutdown()
        assert thread.is_alive()
        go_on.set()
        thread.join(30)

    assert not thread.is_alive()
    assert caplog.records == []
    assert memory.backend.capability(KeepsVectors).count_vectors("thesaurus") == 0
    hanging.store.index_pending(background=True)
    (again := hanging._meaning()._indexing).join(30)  # type: ignore[union-attr]  # it was just started
    assert again is not thread
    assert memory.backend.capability(KeepsVectors).count_vectors("thesaurus") == 4


def test_what_the_background_could_not_do_is_logged(memory: MemoryModule, caplog: pytest.LogCaptureFixture) -> None:
    broken = MemoryModule(memory.backend, embedder=Broken(OSError("no model")))

    with caplog.at_level(logging.WARNING, "jarvis"):
        broken.store.index_pending(background=True)
        thread = broken._meaning()._indexing
        assert thread is not None
        thread.join(30)

    (record,) = caplog.records
    assert record.message.startswith("not all memories have vectors: EmbedderError: the embedder 'thesaurus' raised")


def test_a_transaction_is_no_place_for_it(memory: MemoryModule) -> None:
    with memory.transaction(), pytest.raises(TransactionError):
        memory.store.index_pending()


# --- which model ---------------------------------------------------------------------------------------


def test_without_a_name_the_installed_model_is_used_once_there_are_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def installed() -> list[Embedder]:
        asked.append("which?")
        return [Thesaurus()]

    monkeypatch.setattr(meaning, "installed_embedders", installed)
    memory = MemoryModule(storage_dir=tmp_path)
    memory.remember("Maria's dog had puppies")
    memory.recall("does she keep pets?")
    assert asked == []

    assert memory.store.index_pending() == 1

    assert len(memory.recall("pets")) == 1
    off = MemoryModule(memory.backend, embedder="off")
    assert off.recall("pets") == []
    with pytest.raises(InvalidSettingError, match="off"):
        off.store.index_pending()
    monkeypatch.setattr(meaning, "installed_embedders", list)
    with pytest.raises(UnsupportedError, match=r"pip install 'jarvis-memory\[minilm\]'"):
        MemoryModule(memory.backend).store.index_pending()
    assert MemoryModule(memory.backend).recall("pets") == []


def test_of_several_installed_models_the_one_that_made_the_vectors_is_used(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.for_namespace("empty").remember("The first namespace in the alphabet has no vectors")
    memory.store.index_pending()
    monkeypatch.setattr(meaning, "installed_embedders", lambda: [Thesaurus("another"), Thesaurus()])

    assert texts(MemoryModule(memory.backend).recall("pets", limit=1)) == [FACTS[0]]
    assert MemoryModule(memory.backend).store.index_pending() == 0


@pytest.mark.parametrize("fault", ["module", "factory", "object"])
def test_a_broken_package_with_a_model_fails_no_search(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    class Point:
        name = "broken"

        def load(self) -> Any:
            if fault == "module":
                raise ImportError("secret text")
            return {"factory": lambda: 1 // 0, "object": list}[fault]

    memory.store.index_pending()
    monkeypatch.setattr(finding, "_BUILT_IN", {})
    monkeypatch.setattr(finding, "_entry_points", lambda: [Point()])

    with caplog.at_level(logging.WARNING, "jarvis"):
        assert texts(MemoryModule(memory.backend).recall("puppies")) == [FACTS[0]]
        with pytest.raises(InvalidSettingError, match="embedder"):
            MemoryModule(memory.backend, embedder="broken")

    assert "an installed embedder is left out: embedder" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_no_embedder_is_refused(tmp_path: Path) -> None:
    for wrong in ("nobody", "", 3, object(), Thesaurus(""), Thesaurus("x" * 101), Thesaurus("x", 0), Thesaurus("a\nb")):
        with pytest.raises(InvalidSettingError, match="embedder"):
            MemoryModule(storage_dir=tmp_path, embedder=wrong)  # type: ignore[arg-type]  # on purpose


def test_without_numpy_words_still_find(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory.store.index_pending()
    again = MemoryModule(memory.backend, embedder=Thesaurus())
    monkeypatch.setitem(sys.modules, "numpy", None)

    with caplog.at_level(logging.WARNING, "jarvis"):
        assert texts(again.recall("puppies")) == [FACTS[0]]

    assert len(caplog.records) == 1
    with pytest.raises(UnsupportedError, match=r"numpy, from version 2 on: pip install 'jarvis-memory\[vectors\]'"):
        again.store.index_pending()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.embedding.minilm.find_spec", lambda name: None if name == "onnxruntime" else name)

    with pytest.raises(UnsupportedError, match=r"needs the package onnxruntime: pip install 'jarvis-memory\[minilm\]'"):
        load_embedder("minilm")


def test_a_file_that_is_not_the_tested_one_is_not_used(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package, _ = __import__("jarvis.embedding.minilm", fromlist=["_FILES"])._FILES["model.onnx"]
    monkeypatch.setitem(
        __import__("jarvis.embedding.minilm", fromlist=["_FILES"])._FILES, "model.onnx", (package, "0" * 64)
    )

    with pytest.raises(UnsupportedError, match="not the file that it was tested with"):
        MemoryModule(memory.backend, embedder="minilm").store.index_pending()


def test_minilm_knows_what_is_meant(tmp_path: Path) -> None:
    embedder = load_embedder("minilm")
    assert isinstance(embedder, Embedder)
    some = embedder.embed_documents(["Maria's dog had puppies", "The rent is due", "x" * 10_000, ""])
    assert np.asarray(some).shape == (4, 384)
    assert np.linalg.norm(np.asarray(some), axis=1) == pytest.approx(1.0, abs=1e-5)
    question = np.asarray(embedder.embed_query("Does she have pets?"))
    assert (np.asarray(some) @ question).argmax() == 0
    assert np.asarray(some)[0] == pytest.approx(np.asarray(embedder.embed_query("Maria's dog had puppies")), abs=1e-4)


def test_a_memory_with_a_model_can_be_pickled(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, embedder=Thesaurus())
    memory.remember(FACTS[0])
    memory.store.index_pending()

    assert texts(pickle.loads(pickle.dumps(memory)).recall("pets")) == [FACTS[0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_its_own(memory: MemoryModule) -> None:
    memory.store.index_pending()
    memory.recall("pets")
    lock = memory._meaning()._nearest["default"]._lock
    lock.acquire()  # as another thread may hold it
    child = os.fork()
    if not child:
        os._exit(texts(memory.recall("pets", limit=1)) != [FACTS[0]])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lock.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_model_can_be_used_after_a_fork_while_it_was_loaded() -> None:
    model = load_embedder("minilm")
    model._parts()
    with model._loading:  # as another thread has it
        child = os.fork()
        if not child:  # pragma: no cover  it is another process
            signal.alarm(30)
            os._exit(len(model.embed_query("pets")) != model.dim)

    assert os.waitpid(child, 0)[1] == 0


def test_a_backend_that_keeps_no_vectors_has_them_in_memory(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type="json", embedder=Thesaurus())
    for text in FACTS:
        memory.remember(text)
    memory.for_namespace("bob").remember("My cat is called Ada")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert memory.store.index_pending() == 5
    assert memory.store.index_pending() == 0

    assert texts(memory.recall("pets", limit=1)) == [FACTS[0]]
    assert texts(memory.for_namespace("bob").recall("pets")) == ["My cat is called Ada"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (puppies, *_) = memory.recall("pets")
    memory.update_memory(puppies.entry.id, {"text": "My favourite songs"})
    assert FACTS[0] not in texts(memory.recall("pets"))
    assert memory.store.index_pending() == 1
    assert set(texts(memory.recall("music", limit=2))) == {"My favourite songs", FACTS[2]}
    memory.erase_memory(puppies.entry.id)
    assert texts(memory.recall("music", limit=1)) == [FACTS[2]]
    other = MemoryModule(storage_dir=tmp_path, backend_type="json", embedder=Thesaurus())
    assert other.recall("pets") == []
    other.shutdown()
    memory.shutdown()


def test_a_backend_that_tells_no_order_of_changes_has_none() -> None:
    class Plain(StorageBackend):
        capabilities = ()
        entry = an_entry(value={"text": FACTS[0]})

        def bootstrap(self) -> None: ...
        def create(self, entry: MemoryEntry) -> None: ...
        def read(self, entry_id: str) -> MemoryEntry | None:
            return self.entry

        def update(self, entry: MemoryEntry) -> None: ...
        def delete(self, entry_id: str) -> None: ...
        def list_all(self) -> list[MemoryEntry]:
            return [self.entry]

        def query(self, *filters: Any, **more: Any) -> list[MemoryEntry]:
            return [self.entry]

        def shutdown(self) -> None: ...

    memory = MemoryModule(Plain(), embedder=Thesaurus())

    assert memory.store.index_pending() == 0
    assert texts(memory.recall("puppies")) == [FACTS[0]]
    assert memory.recall("pets") == []


def test_every_backend_gives_the_same_answers(memory: MemoryModule, tmp_path: Path) -> None:
    for number in range(100):
        memory.remember(f"{'tea' if number % 3 else 'jazz'} number {number}")
    memory.store.index_pending()
    questions = ("pets", "a drink", "music 7", "landlord", "number 14")
    keys = [KeyFunction(lambda: bytes(32))]
    with a_database() as dsn, a_database() as other_dsn:
        others = [
            MemoryModule(dsn, embedder=Thesaurus()),
            MemoryModule(other_dsn, embedder=Thesaurus(), encryption="required", keys=keys),
            MemoryModule(storage_dir=tmp_path / "json", backend_type="json", embedder=Thesaurus()),
        ]
        for other in others:
            other.backend.create_many(memory.list_memories()[::-1])
            assert other.store.index_pending() == 104

            for question in questions:
                here, there = memory.recall(question, limit=20), other.recall(question, limit=20)
                assert [(each.entry.id, each.score) for each in there] == [(each.entry.id, each.score) for each in here]
            other.shutdown()
