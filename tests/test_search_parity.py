"""One store, one question, one order and one context: on every backend, with an index and without, after every move."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jarvis.keys import KeyFunction
from jarvis.moving import migrate, restore_backup
from jarvis.persistent_memory import MemoryModule, Recalled

from .postgresql import a_database

WORDS = """
river station garden coffee winter lamp bicycle museum letter mountain bread piano window train doctor market summer
bridge kitchen painting harbour library concert journey neighbour holiday umbrella engine blanket orchard
""".split()  # noqa: SIM905  read as a text
PEOPLE = ("maria", "john", "ana")
Answers = list[list[tuple[str, float]]]
STARTED = datetime(2026, 1, 5, 9, tzinfo=UTC)


def _filled(memory: MemoryModule) -> None:
    """Fill a memory with facts, turns and tasks; some of them are changed, removed, expired or in another namespace."""
    draw = random.Random(5)

    def text(most: int = 9) -> str:
        said = " ".join(
            draw.choices(WORDS, cum_weights=list(itertools.accumulate(range(30, 0, -1))), k=draw.randint(2, most))
        )
        return said + draw.choice(("", "?", " in May", " at 5", " last week"))

    with memory.transaction():
        for number in range(120):
            person, moment = draw.choice(PEOPLE), STARTED + timedelta(hours=7 * number)
            memory.create_memory(
                "facts", f"fact {number}", {"text": text()}, "person", person, ["kept"], timestamp=moment
            )
        for number in range(150):
            memory.record_turn(
                f"talk {number // 25}",
                draw.choice(PEOPLE),
                text(14),
                STARTED + timedelta(days=number // 25, minutes=number),
            )
        for number in range(30):
            memory.record_task(str(number), {"title": text(3), "notes": [text(), {"detail": text(2)}], "count": number})
        doomed = [memory.create_memory("facts", "x", {"text": text()}, "") for _ in range(20)]
        for number, memory_id in enumerate(doomed):
            if number % 2:
                memory.update_memory(memory_id, {"text": text()})
            else:
                memory.delete_memory(memory_id)
        memory.create_memory("facts", "gone", {"text": "river garden"}, "", ttl=0.001)
        other = memory.for_namespace("other")
        for _ in range(30):
            other.remember(text())


def _questions() -> list[str]:
    draw = random.Random(6)
    plain = [" ".join(draw.sample(WORDS, draw.randint(1, 4))) for _ in range(40)]
    named = [f"when did {draw.choice(PEOPLE)} see the {draw.choice(WORDS)}?" for _ in range(20)]
    special = [
        '"coffee winter"',
        "gard*",
        "river -garden",
        "how many trains in January?",
        "bicylce",
        "talk 3",
        "12",
        "May 2026",
    ]
    return [*plain, *named, *special]


def _answers(memory: MemoryModule) -> Answers:
    def summary(found: list[Recalled]) -> list[tuple[str, float]]:
        return [(each.entry.id, round(each.score, 9)) for each in found]

    return [summary(memory.search_text(question, limit=50)) for question in _questions()] + _contexts(memory)


def _contexts(memory: MemoryModule) -> Answers:
    """Return contexts for prompts in the shape of answers: each a text, and its tokens."""
    told = MemoryModule(memory.backend, clock=lambda: STARTED + timedelta(days=400))
    questions = (None, *_questions()[:5])
    contexts = [told.build_context(question, room) for question in questions for room in (700, 20_000)]
    assert all(context.lines for context in contexts)
    return [[(context, context.tokens)] for context in contexts]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryModule]:
    with MemoryModule(storage_dir=tmp_path_factory.mktemp("origin"), durability="normal") as memory:
        _filled(memory)
        yield memory


@pytest.fixture(scope="module")
def expected(origin: MemoryModule) -> Answers:
    answers = _answers(origin)
    assert sum(map(bool, answers)) > 0.9 * len(answers)
    assert max(map(len, answers)) == 50
    return answers


@pytest.mark.parametrize("text_index", ["english", "off"])
@pytest.mark.parametrize("kind", ["sqlite", "json", "encrypted"])
def test_the_order_is_the_same_on_every_backend(
    kind: str, text_index: str, origin: MemoryModule, expected: Answers, tmp_path: Path
) -> None:
    keys = {"encryption": "required", "keys": [KeyFunction(lambda: b"k" * 32)]} if kind == "encrypted" else {}
    backend = "json" if kind == "json" else "sqlite"
    options = {"durability": "normal", "text_index": text_index, **keys}
    with MemoryModule(storage_dir=tmp_path, backend_type=backend, **options) as memory:  # type: ignore[arg-type]  # mixed
        migrate(origin, memory)

        assert _answers(memory) == expected


@pytest.mark.parametrize("kind", ["plain", "partitioned", "sealed"])
def test_the_order_is_the_same_on_postgresql(kind: str, origin: MemoryModule, expected: Answers) -> None:
    from jarvis.postgresql_backend import PostgreSQLBackend
    from jarvis.sealing import SealedBackend

    with a_database() as dsn:
        server = PostgreSQLBackend(dsn, durability="normal", partitions=3 if kind == "partitioned" else 0)
        backend = SealedBackend(server, keys=[lambda: bytes(32)]) if kind == "sealed" else server
        with MemoryModule(backend) as memory:
            migrate(origin, memory)

            assert _answers(memory) == expected


def _rotated(memory: MemoryModule, _: Path) -> None:
    memory.store.encrypt([KeyFunction(lambda: b"k" * 32)])
    memory.store.rotate_key()
    memory.store.decrypt()


def _recompressed(memory: MemoryModule, _: Path) -> None:
    memory.store.recompress()


def _rebuilt(memory: MemoryModule, _: Path) -> None:
    memory.store.rebuild_index()


@pytest.mark.parametrize("change", [_rotated, _recompressed, _rebuilt])
def test_the_order_is_the_same_after_the_file_was_replaced(
    change: Callable[[MemoryModule, Path], None], origin: MemoryModule, expected: Answers, tmp_path: Path
) -> None:
    with MemoryModule(storage_dir=tmp_path / "copy", durability="normal") as memory:
        migrate(origin, memory)
        change(memory, tmp_path)

        assert _answers(memory) == expected
        assert memory.store.verify().problems == {}


def test_the_order_is_the_same_in_a_restored_backup_and_an_import(
    origin: MemoryModule, expected: Answers, tmp_path: Path
) -> None:
    origin.store.back_up(tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    with MemoryModule(storage_dir=tmp_path / "restored") as restored:
        assert _answers(restored) == expected
    origin.store.export(tmp_path / "export.jsonl", history=True)
    with MemoryModule(storage_dir=tmp_path / "imported", durability="normal") as imported:
        imported.store.import_(tmp_path / "export.jsonl")
        assert _answers(imported) == expected


def test_another_process_finds_what_was_just_written(tmp_path: Path) -> None:
    program = (
        "import sys; from jarvis.persistent_memory import MemoryModule\n"
        "memory = MemoryModule(storage_dir=sys.argv[1])\n"
        "for line in sys.stdin: print(len(memory.search_text(line)), flush=True)\n"
    )
    with MemoryModule(storage_dir=tmp_path, durability="normal") as memory:
        memory.remember("the first one")
        reader = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert reader.stdin is not None
        assert reader.stdout is not None
        for number in range(70):
            memory.remember(f"word{number}x")
            reader.stdin.write(f"word{number}x\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == "1\n"
        memory.forget(text="word3x")
        reader.stdin.write("word3x\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "0\n"
        reader.stdin.close()
        assert reader.wait(timeout=60) == 0
        reader.stdout.close()
