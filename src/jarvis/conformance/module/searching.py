"""Promises of text search: facts, turns, duplicates, and what is found and what is not."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import pytest

from jarvis.capabilities import Expires, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import FIRST, LAST, NOON, FakeClock, Promises
from jarvis.errors import AmbiguousError, InvalidEntryError, InvalidQueryError
from jarvis.persistent_memory import MemoryModule, Recalled


def texts(recalled: list[Recalled]) -> list[str]:
    """Return the texts of the memories that were recalled."""
    return [each.entry.value["text"] for each in recalled]


HOSTILE = (
    "", " ", "\0", '"', '""', "'", "*", "-", "--", "(", "a AND", "NEAR(a b, 2)", "key:", "{", "^a", "+a -b",
    '"a', "-*", '-"', "\\", "%", "_", "💡" * 50, "\ud83d", "who are you", "a" * 100_000, "* " * 10_000, "SELECT 1; --",
    "':*&|!()<->", "__", "a OR OR b", "_may", "1_lisbon", "\n\t", "NULL", "Ā́" * 100,
)  # fmt: skip


class SearchingPromises(Promises):
    """Remember, recall, search, forget."""

    def test_a_fact_is_remembered_once_and_recalled_by_its_words(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        fact = memory.remember("Maria moves to Lisbon in May", about=("person", "maria"), tags=["home"])
        memory.remember("John likes strong coffee", about=("person", "john"))

        assert memory.remember("maria moves to Lisbon, in May!", about=("person", "maria")) == fact
        assert memory.remember("Maria moves to Lisbon in May") != fact
        assert texts(memory.recall("where is Maria moving?", limit=1, tags=["home"])) == [
            "Maria moves to Lisbon in May"
        ]
        entry = memory.get_memory(fact)
        assert entry is not None
        assert memory.recall("who lives in Lisbon?", min_score=0.99) == []
        assert (entry.category, entry.key, entry.value) == (
            "facts",
            "maria moves to lisbon in may",
            {"text": "Maria moves to Lisbon in May"},
        )
        best = memory.recall("does John like coffee?")[0]
        assert best.entry.value["text"] == "John likes strong coffee"
        assert 0 < best.score <= 1
        assert sum(best.parts.values()) == pytest.approx(best.score)

    def test_a_fact_is_known_by_its_text_tags_and_life(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        first = memory.remember("Rita lives in Porto", about=("person", "ana"), tags=["a"])
        memory.update_memory(first, {"text": "Rita lives in Braga"})
        assert memory.remember("Rita lives in Braga", about=("person", "ana"), tags=["b"]) == first
        entry = memory.get_memory(first)
        assert entry is not None
        assert entry.tags == ["a", "b"]
        assert memory.recall("Porto") == []
        pairs = (
            ("C++", "C#"),
            ("👍", "👎"),
            ("x > 5", "x < 5"),
            ("-5", "5"),
            ("1.5", "15"),
            ("año", "ano"),
            ("½", "1 2"),
        )
        for one, other in (*pairs, ("x" * 41, "x" * 40 + "y")):
            assert memory.remember(f"it was {one}") != memory.remember(f"it was {other}")
        assert memory.remember("Will lives in Oslo", about=("person", "will"))
        assert texts(memory.recall("Who is Will?")) == ["Will lives in Oslo"]
        if memory.backend.has_capability(Expires):
            short = memory.remember("The code is 4711", ttl=60)
            assert memory.remember("The code is 4711", ttl=30) == short
            assert memory.remember("The code is 4711") != short

    def test_what_has_none_of_the_words_is_not_found(self, memory: MemoryModule) -> None:
        memory.create_memory("facts", "a", {"text": "tea in the garden"}, "")

        assert memory.recall("who are you?") == memory.recall("zebras") == memory.recall("") == []
        assert memory.recall("garden zebras", min_score=0.99) == []
        assert len(memory.recall("garden", min_score=0.1)) == 1

    def test_a_write_is_found_by_the_next_call_and_a_deleted_memory_is_not(self, memory: MemoryModule) -> None:
        for number in range(150):
            made = memory.create_memory("notes", f"note {number}", {"text": f"the word{number} of a note"}, "")
            assert [each.entry.id for each in memory.search_text(f"word{number}")] == [made]
        memory.update_memory(made, {"text": "changed"})
        assert memory.search_text("word149") == []
        assert [each.entry.id for each in memory.search_text("changed")] == [made]
        memory.delete_memory(made)
        assert memory.search_text("changed") == []
        assert len(memory.search_text("note", limit=1_000)) == 149
        memory.clear_all()
        assert memory.search_text("note") == []

    def test_a_change_is_found_in_its_transaction_and_gone_with_it(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        kept = memory.create_memory("notes", "a", {"text": "an umbrella"}, "")
        with pytest.raises(ZeroDivisionError), memory.transaction():  # noqa: PT012  what it takes back
            memory.create_memory("notes", "b", {"text": "a raincoat"}, "")
            memory.delete_memory(kept)
            assert texts(memory.search_text("raincoat")) == ["a raincoat"]
            assert memory.search_text("umbrella") == []
            raise ZeroDivisionError

        assert memory.search_text("raincoat") == []
        assert texts(memory.search_text("umbrella")) == ["an umbrella"]

    def test_undo_brings_a_memory_back_to_searches(self, memory: MemoryModule) -> None:
        self.need(memory.backend, KeepsHistory)
        made = memory.create_memory("notes", "a", {"text": "an umbrella"}, "")
        memory.update_memory(made, {"text": "a raincoat"})
        memory.undo(made)
        assert texts(memory.search_text("umbrella")) == ["an umbrella"]
        assert memory.search_text("raincoat") == []
        assert memory.forget(text="an UMBRELLA.")
        assert memory.search_text("umbrella") == []
        memory.undo(made)
        assert texts(memory.search_text("umbrella")) == ["an umbrella"]

    def test_an_expired_memory_is_not_found_and_does_not_count(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, Expires)
        memory.create_memory("notes", "a", {"text": "blue tea"}, "")
        memory.create_memory("notes", "b", {"text": "green tea"}, "")
        before = memory.search_text("blue tea", explain=True)
        memory.create_memory("notes", "c", {"text": "blue sea"}, "", ttl=60)
        assert len(memory.search_text("sea")) == 1
        clock.step(seconds=61)

        assert memory.search_text("sea") == []
        assert memory.search_text("blue tea", explain=True) == before

    def test_another_namespace_is_not_found_and_does_not_count(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Namespaced)
        memory.create_memory("notes", "a", {"text": "blue tea"}, "")
        memory.create_memory("notes", "b", {"text": "green tea"}, "")
        before = memory.search_text("blue tea", explain=True)
        other = memory.for_namespace("other")
        for number in range(100):
            other.create_memory("notes", "c", {"text": f"blue sea {number}"}, "")

        assert memory.search_text("sea") == []
        assert memory.search_text("blue tea", explain=True) == before
        assert len(other.search_text("sea", limit=1_000)) == 100

    def test_phrases_beginnings_and_exclusions(self, memory: MemoryModule) -> None:
        for text in (
            "the strong black coffee",
            "black and strong tea",
            "coffee that is strong",
            "Müsli",
            "東京都に住む",
        ):
            memory.create_memory("notes", text[:5], {"text": text}, "")

        assert texts(memory.search_text('"strong black"')) == ["the strong black coffee"]
        assert texts(memory.search_text("strong -coffee")) == ["black and strong tea"]
        assert texts(memory.search_text('strong -"black coffee" -tea')) == ["coffee that is strong"]
        assert texts(memory.search_text("cof* -black")) == ["coffee that is strong"]
        assert texts(memory.search_text("musli")) == texts(memory.search_text("MÜSLI")) == ["Müsli"]
        assert texts(memory.search_text("京都")) == ["東京都に住む"]
        assert "coffee that is strong" in texts(memory.search_text("coffea"))
        assert texts(memory.search_text("went*")) == texts(memory.search_text('"coffee black"')) == []
        assert len(memory.recall('"coffee black"')) == len(memory.recall("coffee black")) > 0
        memory.create_memory(
            "notes", "apart", {"text": "white milk", "more": ["tea", "cups"]}, "", tags=["red", "wine"]
        )
        assert (
            memory.search_text('"tea cups"')
            == memory.search_text('"red wine"')
            == memory.search_text('"milk tea"')
            == []
        )
        assert texts(memory.search_text('"white milk"')) == ["white milk"]

    def test_key_tags_entity_fields_and_time_are_searched(self, memory: MemoryModule) -> None:
        memory.create_memory(
            "notes", "kitchen_light", {"colour": {"name": ["amber", 42]}}, "lamp", "desk", ["evening"], timestamp=NOON
        )
        for word in ("kitchen", "light", "amber", "42", "lamp", "desk", "evenings", "colours", "March", "2026"):
            assert [each.entry.key for each in memory.search_text(word)] == ["kitchen_light"], word
        assert memory.search_text("43") == memory.search_text("April") == []

    def test_every_filter_narrows_a_search(self, memory: MemoryModule) -> None:
        memory.create_memory("notes", "a1", {"text": "blue tea", "n": 1}, "drink", "1", ["x"])
        memory.create_memory("facts", "b1", {"text": "blue tea", "n": 2}, "meal", "2", ["x", "y"])
        cases: tuple[dict[str, Any], ...] = (
            {"category": "facts"},
            {"entity_type": "meal"},
            {"entity_id": "2"},
            {"tags": ["y"]},
            {"tags": ["x", "y"], "tags_match": "all"},
            {"key": "b1"},
            {"where": {"n": {"$gt": 1}}},
            {"keys": ["b1", "c"]},
            {"key_prefix": "b"},
            {"category_prefix": "f"},
        )
        assert len(memory.search_text("tea")) == 2
        for filters in cases:
            assert [each.entry.key for each in memory.search_text("tea", **filters)] == ["b1"], filters
            assert [each.entry.key for each in memory.recall("tea", **filters)] == ["b1"], filters
        assert memory.search_text("tea", since=NOON + timedelta(days=1)) == []
        assert memory.search_text("tea", until=NOON - timedelta(days=1)) == []

    @pytest.mark.parametrize("question", HOSTILE, ids=range(len(HOSTILE)))
    def test_any_text_is_a_question(self, memory: MemoryModule, question: str) -> None:
        memory.create_memory("notes", "a", {"text": "a plain note"}, "")

        assert len(memory.search_text(question)) <= 1
        assert len(memory.recall(question, category="notes")) <= 1

    def test_a_wrong_argument_is_refused(self, memory: MemoryModule) -> None:
        wrong: tuple[dict[str, Any], ...] = ({"limit": 0}, {"min_score": 2}, {"min_score": "1"}, {"half_life": 3})
        for arguments in wrong:
            with pytest.raises(InvalidQueryError, match=next(iter(arguments))):
                memory.recall("tea", **arguments)
        with pytest.raises(InvalidQueryError, match="question"):
            memory.recall(3)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidQueryError, match="forget"):
            memory.forget()
        with pytest.raises(InvalidEntryError, match="about"):
            memory.remember("tea", about="maria")  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidEntryError, match="text"):
            memory.remember(" ")

    def test_newer_memories_come_first_where_the_caller_asks(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory.create_memory("notes", "old", {"text": "blue tea today"}, "")
        clock.step(days=300)
        memory.create_memory("notes", "new", {"text": "blue cup"}, "")

        assert memory.recall("blue tea")[0].entry.key == "old"
        recent = memory.recall("blue tea", half_life=timedelta(days=10))
        assert {each.entry.key: "recency" in each.parts for each in recent} == {"new": True, "old": True}
        assert recent[0].parts["recency"] != recent[1].parts["recency"]
        for moment in (FIRST, LAST):
            memory.create_memory("notes", "end", {"text": "blue sky"}, "", timestamp=moment.replace(tzinfo=UTC))
        assert len(memory.recall("sky", half_life=timedelta(microseconds=1))) == 2

    def test_forget_takes_one_memory_or_none(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        first = memory.create_memory("notes", "a", {"text": "tea at five"}, "")
        second = memory.create_memory("facts", "b", {"text": "Tea at five!"}, "")
        with pytest.raises(AmbiguousError, match="2 memories") as several:
            memory.forget(text="tea at five")
        assert set(several.value.candidates) == {first, second}
        with pytest.raises(AmbiguousError, match="no memory") as near:
            memory.forget(text="tea")
        assert set(near.value.candidates) == {first, second}
        assert memory.count_memories() == 2
        assert memory.forget(first)
        assert not memory.forget(first)
        assert memory.forget(text="tea at five")
        assert memory.count_memories() == 0

    def test_turns_stand_in_their_order_and_bring_their_neighbours(
        self, memory: MemoryModule, clock: FakeClock
    ) -> None:
        self.need(memory.backend, Transactional)
        said = [
            ("Maria", "I found a flat by the river."),
            ("John", "When do you move?"),
            ("Maria", "As soon as it is painted."),
        ]
        for speaker, text in said:
            memory.record_turn("monday", speaker, text, tags=["chat"])
            clock.step(seconds=1)
        memory.record_turn("tuesday", "John", "Good morning")

        turns = memory.get_conversation("monday")
        assert [(each.value["speaker"], each.value["text"], each.value["position"]) for each in turns] == [
            (*turn, position) for position, turn in enumerate(said, 1)
        ]
        assert memory.get_conversation("monday", limit=2) == turns[1:]
        memory.record_turn("monday 0", "John", "Another session, whose name begins so")
        assert memory.get_conversation("monday") == turns
        assert memory.get_conversation("sunday") == []
        assert "As soon as it is painted." in texts(memory.recall("when does she move?"))
        memory.delete_memory(turns[0].id)
        memory.record_turn("monday", "John", "Call me", details={"mood": "glad"}, timestamp=NOON - timedelta(days=1))
        assert [each.value["position"] for each in memory.get_conversation("monday")] == [2, 3, 4]
        with pytest.raises(InvalidEntryError, match="details"):
            memory.record_turn("monday", "John", "Call me", details={"text": "x"})
        with pytest.raises(InvalidEntryError, match="speaker"):
            memory.record_turn("monday", None, "Call me")  # type: ignore[arg-type]  # wrong on purpose

    def test_duplicates_are_kept_returned_or_superseded(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        value = {"text": "Tea at five", "cups": 2}
        first = memory.create_memory("notes", "a", value, "plan", "1")
        same = {"text": "tea at FIVE.", "cups": 2}
        assert memory.create_memory("notes", "b", same, "plan", "1", on_duplicate="return_existing") == first
        others: tuple[tuple[Any, ...], ...] = (
            ("facts", "b", same, "plan", "1"),
            ("notes", "b", same, "plan", "2"),
            ("notes", "b", {**same, "cups": 3}, "plan", "1"),
            ("notes", "b", {"cups": 2}, "plan", "1"),
        )
        made = [memory.create_memory(*other, on_duplicate="return_existing") for other in others]
        assert len({first, *made}) == 5
        assert memory.create_memory("notes", "c", {"cups": 2}, "plan", "1", on_duplicate="return_existing") == made[3]
        like_one = [
            memory.create_memory("numbers", "n", {"n": n}, "", on_duplicate="return_existing")
            for n in (1, 1.0, True, "1", 1)
        ]
        assert like_one[4] == like_one[0]
        assert len(set(like_one)) == 4
        memory.delete_memories(ids=like_one)
        kept = memory.create_memory("notes", "b", same, "plan", "1", on_duplicate="keep")
        newest = memory.create_memory("notes", "d", same, "plan", "1", on_duplicate="supersede")
        assert memory.get_memories([first, kept]) == []
        assert memory.count_memories() == 5
        assert memory.get_memory(newest) is not None
        with pytest.raises(InvalidEntryError, match="on_duplicate"):
            memory.create_memory("notes", "b", same, "plan", on_duplicate="both")  # type: ignore[arg-type]  # wrong

    def test_equal_and_nearly_equal_texts_are_found(self, memory: MemoryModule) -> None:
        plan = "We meet at the station on Monday and take the early train to the sea"
        equal = [memory.create_memory("notes", "a", {"text": text}, "") for text in (plan, plan.upper() + "!")]
        near = memory.create_memory("notes", "c", {"text": plan + " together"}, "")
        memory.create_memory("notes", "d", {"text": "Something else entirely, in other words"}, "")
        memory.create_memory("facts", "e", {"text": plan}, "")

        (group,) = memory.find_duplicates(threshold=1)
        assert {entry.id for entry in group.entries} == set(equal)
        assert group.similarity == 1
        (group,) = memory.find_duplicates("notes", threshold=0.8)
        assert {entry.id for entry in group.entries} == {*equal, near}
        assert 0.8 <= group.similarity < 1
        with pytest.raises(InvalidQueryError, match="threshold"):
            memory.find_duplicates(threshold=2)
