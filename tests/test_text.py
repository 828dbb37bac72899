"""The analyser makes the same words of a text and of a question, in any script; a question may be any text."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule
from jarvis.text.analysis import analyser
from jarvis.text.document import document_of, times_of, words_of
from jarvis.text.question import question_of

from .postgresql import a_database

ENGLISH = analyser("english")
_TYPED = (
    'tea "tea" "tea -tea te* * " \' \\ AND OR NOT NEAR NEAR( ) ( { } [ ] ^ + - -- : key: & | ! <-> :* % _ __  ; ? NULL '
    "💡 é 東京 1e9 -1 0x00 /* */ <b> &amp; a\u0301 ﬁ Ǆ the of"
)
"""What people, and programs, type: signs that mean something to FTS5, PostgreSQL or SQL, and to no user."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("She went to the Cafés of SÃO PAULO.", "go cafe sao paulo"),
        ("children bought 12 e-bikes in 2023", "child buy 12 e bike 2023"),
        ("device_info, tool-grep, a.b@c.de", "devic info tool grep b c de"),
        ("Straße, Ærø, İstanbul", "strass aero istanbul"),
        ("東京都", "東京 京都 都"),
        ("ไทย", "ไท ทย ย"),
        ("हिन्दी में", "हिन्दी में"),
        ("كِتَاب שָׁלוֹם", "كتاب שלום"),
        ("the of and", ""),
        ("\ud83d💡\0\n", ""),
    ],
)
def test_a_text_becomes_words(text: str, words: str) -> None:
    assert " ".join(ENGLISH.words(text)) == words


def test_a_long_word_is_cut_and_a_plain_analyser_cuts_nothing_else() -> None:
    assert ENGLISH.words("x" * 1_000_000) == ("x" * 40,)
    assert analyser("plain").words("The children went") == ("the", "children", "went")


def test_a_memory_is_indexed_by_all_words_of_its_document() -> None:
    value = {
        "text": "She moved",
        "speaker": "Ana",
        "rooms": [{"colour": "blue", "doors": 2}, ("north", 10**300)],
        "tags": {"b", "a1"},
        "seen": True,
        "raw": b"x",
        "when": datetime(2026, 1, 1, tzinfo=UTC),
    }
    entry = MemoryEntry("1", "notes", "flat_7", value, ["home"], "person", "ana", datetime(2026, 3, 2, tzinfo=UTC))

    document = document_of(entry, ENGLISH)
    assert document.words == ("she", "move") or document.words == ("move",)
    assert {"flat", "7", "home", "blue", "2", "north", "a1"} <= set(document.names)
    assert set(document.about) == {"person", "ana"}
    assert {"room", "colour", "door", "tag", "see", "raw"} <= set(document.fields)
    assert times_of(entry) == ("_march", "_monday", "_2026")
    assert words_of(entry, ENGLISH) == document.vocabulary.union(times_of(entry))
    titled = document_of(entry, ENGLISH, ("rooms",))
    assert titled.words == ("blue", "2", "north")


@pytest.mark.parametrize(
    ("text", "terms", "phrases", "excluded"),
    [
        ('big "red car" -blue -"old van"', "big red car", [("red", "car")], [("blue",), ("old", "van")]),
        ('an "unclosed phrase', "unclos phrase", [], []),
        ("moving* a* mid-word -", "mov* mid word", [], []),
        ("in May 2026 on Monday", "may _may 2026 _2026 monday _monday", [], []),
        ("-blue", "", [], [("blue",)]),
        ("same same SAME", "same", [], []),
    ],
)
def test_a_question_is_taken_apart(
    text: str, terms: str, phrases: list[tuple[str, ...]], excluded: list[tuple[str, ...]]
) -> None:
    question = question_of(text, ENGLISH)

    assert " ".join(term.text + "*" * term.is_prefix for term in question.terms) == terms
    assert [*question.phrases] == phrases
    assert [*question.excluded] == excluded


def test_no_more_of_a_question_is_read_than_has_a_limit() -> None:
    question = question_of(" ".join(f"word{number}" for number in range(100_000)), ENGLISH)

    assert len(question.terms) == 64


def test_a_thousand_hostile_questions_find_something_or_nothing(tmp_path: Path) -> None:
    draw = random.Random(3)
    parts = [*_TYPED.split(" "), "\0", "\ud83d", "\u202e", "\ufeff"]
    questions = [
        "".join(draw.choice((" ", "")) + draw.choice(parts) for _ in range(draw.randint(1, 12))) for _ in range(1_000)
    ]
    with a_database() as dsn:
        memories = [
            MemoryModule(storage_dir=tmp_path / "sqlite", durability="normal"),
            MemoryModule(storage_dir=tmp_path / "json", backend_type="json", durability="normal"),
            MemoryModule(dsn, durability="normal"),
        ]
        for memory in memories:
            memory.create_memory("notes", "a", {"text": "green tea"}, "", timestamp=datetime(2026, 1, 1, tzinfo=UTC))
        answers = [[[each.entry.key for each in memory.search_text(text)] for text in questions] for memory in memories]
        for memory in memories:
            memory.shutdown()

    assert answers[0] == answers[1] == answers[2]
    assert 0 < sum(map(bool, answers[0])) < len(questions)
