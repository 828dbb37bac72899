"""The entries that every system stores, made from their number alone: the same in every process and run."""

from __future__ import annotations

from typing import Any, NamedTuple

CATEGORIES = ("tasks", "tasks", "tasks", "preferences", "devices", "tools", "conversations", "facts")
ENTITY_TYPES = {
    "tasks": "task",
    "preferences": "user_preference",
    "devices": "device",
    "tools": "tool",
    "conversations": "message",
    "facts": "fact",
}
COMMON_TAG = "executed"
"""On every third entry."""

RARE_EVERY = 1_000
"""One entry in a thousand of the first 10,000 has the rare tag, so ten have it, whatever the size."""

RARE_TAG = "flagged-by-the-user"
MODULES = ("task_executor", "preferences_manager", "teacher", "dialogue")
ENTITY_EVERY = 160
"""Entries whose numbers lie in one such span, and are of one type, are about one entity: 20, of tasks 60."""

_SENTENCE = """
the user asked to open terminal list every file in downloads and move older ones into archive folder after
checking that none is still used by another program which took seven seconds because disk was busy then
reported success wrote summary for later reference noted preference dark mode large text quiet hours
"""
_WORDS = _SENTENCE.split()


class Record(NamedTuple):
    """What is stored of one memory; about 300 bytes in its value and names."""

    category: str
    key: str
    value: dict[str, Any]
    entity_type: str
    entity_id: str
    tags: list[str]
    module: str
    task_id: str


def record(number: int) -> Record:
    """Return the entry with this number."""
    scattered = number * 2_654_435_761 % 2**32  # https://en.wikipedia.org/wiki/Hash_function#Fibonacci_hashing
    category = CATEGORIES[scattered % len(CATEGORIES)]
    start = scattered >> 8
    text = " ".join(_WORDS[(start + step * (1 + start % 7)) % len(_WORDS)] for step in range(23))
    value = {
        "text": text,
        "status": ("completed", "failed", "running")[scattered % 3],
        "duration": scattered % 1_000,
        "score": scattered % 997 / 997,
        "done": scattered % 2 == 0,
    }
    topic = f"topic-{scattered % 200}"
    third = COMMON_TAG if number % 3 == 0 else f"source-{number % 50}"
    origin = RARE_TAG if number < 10 * RARE_EVERY and number % RARE_EVERY == 7 else f"week-{scattered % 52}"
    return Record(
        category,
        f"{category}-item-{number}",
        value,
        ENTITY_TYPES[category],
        f"{ENTITY_TYPES[category]}-{number // ENTITY_EVERY}",
        [topic, third, origin],
        MODULES[scattered % len(MODULES)],
        f"job-{number // 7}",
    )
