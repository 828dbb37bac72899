"""Contexts of random stores: no budget is exceeded, no room is wasted, nothing breaks out, all is told once."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from jarvis.conformance.fixtures import NOON, FakeClock
from jarvis.conformance.module.contexts import assert_fenced
from jarvis.conversations.lines import in_one_line
from jarvis.conversations.tokens import most_tokens
from jarvis.model.context import SECTIONS, Context
from jarvis.persistent_memory import MemoryModule

from .test_contract import DictBackend

WORDS = """tea coffee Lisbon Maria river garden 42 7 Öl Straße 東京都 ямщик 👍 👨‍👩‍👧 ½ ﷺ e\u0301
</memories> <b> [INST] - [x] System: " \\ { } \\n a b c of the""".split()  # noqa: SIM905  read as a text
SIGNS = "\n\r\t\0\x1b\x85\u2028\u202e\ufeff\U000e0041\ud83d\u00a0"

COUNTERS: tuple[Callable[[str], int] | None, ...] = (
    None,
    None,
    len,
    lambda text: len(text) // 4,
    lambda text: -(-len(text) // 4) + 3,
    lambda text: len(text.split()),
    lambda text: len(re.findall(r"\w{1,4}|[^\w\s]| +|\s", text)),
)
_ENOUGH_BYTES = 1_000
"""From this room on 85 % of it is used; for another counter, so many bytes of its text."""


def _text(draw: random.Random) -> str:
    size = int(10 ** draw.uniform(0, 2.2 if draw.random() < 0.9 else 3.3))
    words = draw.choices(WORDS, k=max(1, size // 5))
    if draw.random() < 0.2:
        words.append(draw.choice(SIGNS) * draw.randint(1, 20))
    if draw.random() < 0.05:
        words = [draw.choice(WORDS) * size]
    draw.shuffle(words)
    return " ".join(words)


def _name(draw: random.Random) -> str:
    return " ".join(draw.sample(WORDS, draw.randint(1, 3)))


def _filled(draw: random.Random) -> tuple[MemoryModule, FakeClock]:
    clock = FakeClock(NOON)
    memory = MemoryModule(DictBackend(f"random {draw.random()}"), clock=clock)
    for _ in range(int(10 ** draw.uniform(0, 1.5))):
        clock.step(hours=draw.uniform(0, 200))
        kind = draw.randrange(6)
        if kind == 0:
            memory.create_memory("preferences", _name(draw), {"text": _text(draw), "n": draw.random()}, "")
        elif kind == 1:
            memory.record_task(str(draw.randint(1, 9)), {"status": draw.choice("ab"), "log": [_text(draw)]})
        elif kind == 2:
            memory.record_turn("monday", _name(draw), _text(draw))
        elif kind == 3 and draw.random() < 0.3:
            memory.create_memory("devices", "device_info", {_name(draw): _text(draw)}, "device")
        elif kind == 4:
            memory.create_memory(_name(draw), _name(draw), {_name(draw): _text(draw)}, _name(draw), _name(draw))
        else:
            memory.create_memory("facts", "x", {"text": _text(draw)}, "person", module=draw.choice((None, _name(draw))))
    return memory, clock


def _check(seed: int) -> None:
    draw = random.Random(seed)
    memory, _ = _filled(draw)
    entries = memory.list_memories()
    for _ in range(4):
        counter, room = draw.choice(COUNTERS), int(10 ** draw.uniform(0, 4.3))
        arguments: dict[str, Any] = {
            "query": draw.choice((None, _name(draw), _text(draw))),
            "max_tokens": room,
            "token_counter": counter,
            "include": draw.sample(SECTIONS, draw.randint(1, 4)) if draw.random() < 0.5 else SECTIONS,
            "exclude_ids": [entry.id for entry in draw.sample(entries, min(len(entries), draw.randint(0, 2)))],
        }
        context = memory.build_context(**arguments)
        about = f"seed {seed}, room {room}, counter {COUNTERS.index(counter)}"
        tokens = (counter or most_tokens)(context) if context else 0
        assert tokens == context.tokens <= room, about
        assert context == memory.build_context(**arguments), about
        _check_lines(context, arguments, about)
        if context.is_complete:
            _check_all_told(memory, context, arguments, about)
        elif room * (len(context.encode()) / max(1, tokens)) >= _ENOUGH_BYTES:
            assert tokens >= 0.85 * room, about


def _check_lines(context: Context, arguments: dict[str, Any], about: str) -> None:
    if context:
        assert_fenced(context)
    assert [line.text for line in context.lines] == context.split("\n")[2:-1], about
    ids = [line.id for line in context.lines]
    assert len(ids) == len(set(ids)) == len({line.short_id for line in context.lines}), about
    assert not set(ids) & set(arguments["exclude_ids"]), about
    assert {line.section for line in context.lines} <= set(arguments["include"]), about
    places = [
        (SECTIONS.index(line.section), line.entry.key if line.section == "preferences" else "")
        for line in context.lines
    ]
    descents = sum(other < one for one, other in itertools.pairwise(places))
    assert descents <= ("recalled" in arguments["include"]), about  # at the end stands what the question left room for
    scores = [line.score for line in context.lines if line.score is not None]
    assert scores == sorted(scores, reverse=True), about


def _check_all_told(memory: MemoryModule, context: Context, arguments: dict[str, Any], about: str) -> None:
    """Check that what is complete lacks only what says the same, or was to be left out."""
    assert not any(line.is_cut for line in context.lines), about
    told = {str(line.entry.value) for line in context.lines}
    tasks = memory.get_task_history() if "recent_tasks" in arguments["include"] else []
    wanted = [entry for entry in tasks if entry.id not in arguments["exclude_ids"]]
    assert all(str(entry.value) in told for entry in wanted), about
    if arguments["query"] is not None and "recalled" in arguments["include"]:
        recalled = memory.recall(arguments["query"], limit=1_000)
        ids = {line.id for line in context.lines} | set(arguments["exclude_ids"])
        missing = [each.entry for each in recalled if each.entry.id not in ids]
        said = {" ".join(line.text.casefold().split()) for line in context.lines}
        assert all(entry.category in ("preferences", "devices") or said for entry in missing), about


def test_contexts_of_random_stores_keep_what_they_promise(pytestconfig: pytest.Config) -> None:
    for seed in range(10_000 if pytestconfig.getoption("--soak") else 1_000):
        _check(seed)


def test_a_token_is_counted_for_each_byte_of_the_longest_form() -> None:
    assert most_tokens("") == 0
    assert most_tokens("1234567890") == 11  # the tokenizer of Llama 2 makes a token of each digit, and one before them
    assert most_tokens("\ufdfa") == 34  # NFKC writes it in 18 letters
    assert most_tokens("\u0958") == 7  # NFC takes it apart
    assert most_tokens("\uff21" * 4 + "\u0958") == 19  # NFKC makes the rest shorter
    assert most_tokens("\ud83d") == 4


def test_a_counter_is_called_a_few_times_for_each_line() -> None:
    called = 0

    def count(text: str) -> int:
        nonlocal called
        called += 1
        return len(text) // 4

    memory = MemoryModule.in_memory()
    with memory.transaction():
        for number in range(500):
            memory.create_memory("facts", str(number), {"text": f"tea with guest {number} " * (1 + number % 40)}, "")
            memory.set_user_preference(str(number), {"n": number})
        for room in (500, 2_000, 8_000):
            called = 0
            context = memory.build_context("tea", room, token_counter=count)
            assert called <= len(context.lines) + 200


@pytest.mark.parametrize("hidden", ["\u3164", "\u034f", "\u115f\u1160", "\uffa0", "\ufe00\ufe01", "\u180b", "\u180f"])
def test_invisible_signs_are_shown(hidden: str) -> None:
    told = in_one_line(f"tea{hidden} and {hidden}é{hidden}\ufe0f")

    assert told.count("\\u") >= 3
    assert "tea" + hidden not in told


@pytest.mark.parametrize(
    "text", ["❤️\u200d🔥 1️⃣ ☕\ufe0e", "👨\u200d👩\u200d👧", "\u1820\u180b", "می\u200cخواهم", "\u845b\ufe00"]
)
def test_pictures_and_scripts_stay_as_they_are(text: str) -> None:
    assert in_one_line(text) == text


@pytest.mark.parametrize("mark", ["[INST]", "[/INST]", "[gMASK]", "[UNUSED_TOKEN_146]", "[SYSTEM_PROMPT]"])
def test_marks_of_templates_are_broken(mark: str) -> None:
    assert in_one_line(f"a {mark} b") == f"a \\u005b{mark[1:]} b"
    assert in_one_line("[1] [true] [x]") == "[1] [true] [x]"
