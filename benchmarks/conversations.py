"""Conversations of LoCoMo as memories, and their questions with what the ranking knows of each candidate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.search.parts import parts_of
from jarvis.search.weights import FACT, TURN
from jarvis.services.meaning import Meaning
from jarvis.services.searching import gathered

KINDS = {"turns": tuple(TURN), "facts": tuple(FACT)}
"""The kinds of memories that are searched, and the parts of their scores by words."""

BY_MEANING = {"turns": ("meaning", "meaning_before", "meaning_behind", "meaning_around"), "facts": ("meaning",)}
"""The parts of the scores that a model adds."""

_DATE = "%I:%M %p on %d %B, %Y"
_TURN = re.compile(r"D\d+:\d+")


class Question(NamedTuple):
    """A question of a conversation, the turns that hold its answer, and its category, from 1 to 5."""

    text: str
    turns: frozenset[str]
    category: int


class Conversation(NamedTuple):
    """A conversation as memories of two kinds.

    Attributes:
        name: its id.
        memories: by kind.
        sources: by kind and id of a memory: the turns that it is, or comes from.
        questions: those whose answer is in some turn.
    """

    name: str
    memories: dict[str, MemoryModule]
    sources: dict[str, dict[str, frozenset[str]]]
    questions: list[Question]


class Asked(NamedTuple):
    """A question that was put to the memories of a conversation.

    Attributes:
        category: from 1 to 5.
        parts: the names of the columns of `features`.
        features: a row for each candidate.
        is_right: whether a candidate holds the answer.
        holds: the right things that each candidate holds: turns; or itself, if it is a fact.
        right: how many right things there are in the conversation.
    """

    category: int
    parts: tuple[str, ...]
    features: npt.NDArray[np.float64]
    is_right: npt.NDArray[np.bool_]
    holds: list[frozenset[str]]
    right: int


def conversations_of(path: Path, embedder: str | None = None) -> list[Conversation]:
    """Return the conversations of a file of LoCoMo, stored in memories of this process, with vectors or without."""
    return [_conversation(each, embedder) for each in json.loads(path.read_text(encoding="utf-8"))]


def asked_of(conversation: Conversation, kind: str, embedder: str | None = None) -> list[Asked]:
    """Put the questions of a conversation to its memories of a kind; leave out those that have nothing right there."""
    memory, sources, names = conversation.memories[kind], conversation.sources[kind], KINDS[kind]
    meaning = None
    if embedder is not None:
        meaning, names = Meaning(embedder), (*names, *BY_MEANING[kind])
    answers = []
    for question in conversation.questions:
        if kind == "turns":
            right = {entry_id: turns & question.turns for entry_id, turns in sources.items()}
            count = len(question.turns)
        else:
            right = {
                entry_id: frozenset([entry_id] if turns & question.turns else []) for entry_id, turns in sources.items()
            }
            count = sum(map(bool, right.values()))
        if not count:
            continue
        parts = parts_of(*gathered(memory.backend, question.text, MemoryQuery(), meaning=meaning))
        holds = [right[entry.id] for entry in parts.entries]
        none = [0.0] * len(parts.entries)  # a question with a phrase in quotes goes by words alone
        features = np.array([parts.columns.get(name, none) for name in names], dtype=np.float64).T
        answers.append(Asked(question.category, names, features, np.array(holds, dtype=bool), holds, count))
    return answers


def _conversation(data: dict[str, Any], embedder: str | None) -> Conversation:
    content = data["conversation"]
    turns, facts = MemoryModule.in_memory(), MemoryModule.in_memory()
    sources: dict[str, dict[str, frozenset[str]]] = {"turns": {}, "facts": {}}
    for number, moment in _sessions(content):
        for turn in content[f"session_{number}"]:
            caption = turn.get("blip_caption")
            details = {"photo": caption} if caption else None
            made = turns.record_turn(f"session {number}", turn["speaker"], turn["text"], moment, details=details)
            sources["turns"][made] = frozenset([turn["dia_id"]])
        for speaker, observations in data.get("observation", {}).get(f"session_{number}_observation", {}).items():
            for text, origin in observations:
                made = facts.create_memory("facts", text[:80], {"text": text}, "person", speaker, timestamp=moment)
                sources["facts"][made] = frozenset(_TURN.findall(str(origin)))
    known = frozenset().union(*sources["turns"].values())
    questions = [
        Question(each["question"], frozenset(_TURN.findall(str(each.get("evidence", [])))) & known, each["category"])
        for each in data["qa"]
    ]
    memories = {"turns": turns, "facts": facts}
    for memory in memories.values() if embedder else ():
        Meaning(embedder).index(memory.backend, None)
    return Conversation(data["sample_id"], memories, sources, [each for each in questions if each.turns])


def _sessions(content: dict[str, Any]) -> Iterator[tuple[int, datetime]]:
    number = 1
    while f"session_{number}" in content:
        yield number, datetime.strptime(content[f"session_{number}_date_time"], _DATE).replace(tzinfo=UTC)
        number += 1
