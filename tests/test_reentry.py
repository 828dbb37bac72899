"""A call that interrupts another one of its thread: nothing that it acknowledges goes with what it interrupts.

A trace function stands for a signal handler, a ``__del__`` or a log handler: it is called at any line of the library,
in the middle of whatever that was doing.
"""

from __future__ import annotations

import contextlib
import itertools
import linecache
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import jarvis
from jarvis.capabilities import Erases
from jarvis.errors import TransactionError
from jarvis.persistent_memory import MemoryModule, RetentionRule
from jarvis.postgresql_backend import PostgreSQLBackend

# What is raised while a generator is thrown away is swallowed by Python, and pytest would tell of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LIBRARY = str(Path(jarvis.__file__).parent)


class StopError(BaseException):
    """What a handler raises to end the program."""


@pytest.fixture(params=["sqlite", "json", "sealed", "postgresql"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryModule:
    if request.param == "postgresql":
        backend = PostgreSQLBackend(request.getfixturevalue("dsn"), durability="normal", busy_timeout_seconds=5)
        memory = MemoryModule(backend, retention=[RetentionRule(category="tasks", max_entries=1)])
        memory.bootstrap()
        return memory

    def key() -> bytes:
        return bytes(range(32))

    sealed: dict[str, Any] = {"encryption": "on", "keys": [key]} if request.param == "sealed" else {}
    memory = MemoryModule(
        storage_dir=tmp_path,
        backend_type="json" if request.param == "json" else "sqlite",
        durability="normal",
        busy_timeout_seconds=5,
        retention=[RetentionRule(category="tasks", max_entries=1)],
        **sealed,
    )
    memory.bootstrap()
    return memory


def _is_uninterrupted(frame: FrameType) -> bool:
    """Tell whether nothing comes between a line and what is before it: the end of a `with`, the first of a handler."""
    before, line = (linecache.getline(frame.f_code.co_filename, frame.f_lineno - back).strip() for back in (1, 0))
    return line.startswith("with ") or before.startswith(("finally:", "except "))


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], object]) -> int:
    """Make a call, and the handler's at the n-th line of the library that it comes to; return how many there were."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        if event == "line" and not _is_uninterrupted(frame):
            lines += 1
            if lines == at:
                sys.settrace(None)
                handler()
                return None
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines


def each_line(call: Callable[[], object], handler: Callable[[], object], step: int = 1) -> int:
    """Interrupt a call at each line that it comes to at first, or each n-th of them; return how many there were."""
    lines = interrupted(call, 0, handler)
    for at in range(1, lines + 1, step):
        with contextlib.suppress(StopError):
            interrupted(call, at, handler)
    return lines


class Handler:
    """Writes a preference, and then may raise; knows what was acknowledged, and what was refused."""

    def __init__(self, memory: MemoryModule, *, raises: bool) -> None:
        self._memory, self._raises = memory, raises
        self.number = 0
        self.kept: list[str] = []
        self.refused = 0

    def __call__(self) -> None:
        self.number += 1
        name = f"bye-{self.number}"
        try:
            self._memory.set_user_preference(name, {})
        except TransactionError as error:
            if "interrupts another one of its thread" in str(error) and "Set a flag" in str(error):
                self.refused += 1
        else:
            self.kept.append(name)
        if self._raises:
            raise StopError


VERBS: dict[str, Callable[[MemoryModule, str], object]] = {
    "create": lambda memory, _: memory.create_memory("notes", "n", {"n": 1}, "note", tags=["a", "b"]),
    "upsert": lambda memory, _: memory.upsert_memory("notes", "one", {"n": 1}),
    "update": lambda memory, memory_id: memory.update_memory(memory_id, {"n": 2}, tags=["c"]),
    "same": lambda memory, _: memory.upsert_memory("notes", "it", {"n": 0}, module="renewer", task_id=str(time.time())),
    "move": lambda memory, memory_id: memory.move_memory(memory_id, key="moved"),
    "many": lambda memory, _: memory.create_memories(
        [{"category": "notes", "key": "n", "value": {}, "entity_type": "note"}] * 3
    ),
    "delete many": lambda memory, _: memory.undo_change(
        memory.delete_memories(category="notes").cursor or memory.newest_cursor()
    ),
    "merge": lambda memory, memory_id: memory.merge_memory(memory_id, {"m": 2}),
    "touch": lambda memory, memory_id: memory.touch_memory(memory_id, ttl=3600),
    "undo": lambda memory, memory_id: memory.undo(memory_id),
    "purge": lambda memory, _: memory.store.purge_expired(),
    "prune": lambda memory, _: memory.store.prune_history(),
    "sweep": lambda memory, _: memory.sweep(),
    "erase": lambda memory, _: memory.erase_entity("nothing"),
    "mend": lambda memory, _: memory.store.mend_dates(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("raises", [False, True], ids=["goes on", "raises"])
def test_a_write_that_interrupts_a_verb_is_refused_or_kept(memory: MemoryModule, verb: str, raises: bool) -> None:
    if verb == "erase" and not memory.backend.has_capability(Erases):
        pytest.skip("the backend cannot erase")
    memory_id = memory.create_memory("notes", "it", {"n": 0}, "note")
    handler = Handler(memory, raises=raises)

    step = 10 if verb == "erase" else 3  # it writes the file anew each time
    lines = each_line(lambda: VERBS[verb](memory, memory_id), handler, step=step)
    memory.shutdown()

    assert lines > 10
    assert handler.refused > 5 or verb == "sweep"  # which is mostly looks at what there is
    assert set(memory.get_user_preferences()) == set(handler.kept)


def test_a_read_that_interrupts_a_verb_sees_a_state_that_was_committed(memory: MemoryModule) -> None:
    memory_id = memory.create_memory("notes", "it", {"n": 0}, "note", tags=["0"])
    numbers: list[int] = []
    seen: list[Any] = []

    def update() -> None:
        numbers.append(len(numbers) + 1)
        memory.update_memory(memory_id, {"n": numbers[-1]}, tags=[str(numbers[-1])])

    def read() -> None:
        entry = memory.get_memory(memory_id)
        assert entry is not None
        (found,) = memory.search_memories(tags=[entry.tags[0]])
        assert [int(tag) for tag in entry.tags] == [entry.value["n"]]
        assert found == entry
        assert memory.count_memories() == len(list(memory.iter_memories())) == 1
        seen.append(entry.value["n"])
        assert entry.value["n"] in (numbers[-1], numbers[-1] - 1) if numbers else True

    lines = each_line(update, read, step=2)

    assert len(seen) > 20
    assert lines > 20
    entry = memory.get_memory(memory_id)
    assert entry is not None
    assert entry.value == {"n": numbers[-1]}


def test_a_read_that_interrupts_a_read_takes_nothing_from_it(memory: MemoryModule) -> None:
    ids = [memory.create_memory("notes", str(number), {"n": number}, "note", tags=["t"]) for number in range(3)]

    def read() -> None:
        assert [memory.get_memory(memory_id).value["n"] for memory_id in ids] == [0, 1, 2]  # type: ignore[union-attr]  # there
        assert [entry.key for entry in memory.get_memories_by_tags(["t"])] == ["2", "1", "0"]
        assert memory.get_memory_by_key("1").id == ids[1]  # type: ignore[union-attr]  # there

    assert each_line(read, read, step=2) > 20


@pytest.mark.parametrize("raises", [False, True], ids=["goes on", "raises"])
def test_the_verb_that_was_interrupted_is_kept_whole_or_not_at_all(memory: MemoryModule, raises: bool) -> None:
    handler = Handler(memory, raises=raises)
    made = 0

    def pair() -> None:
        nonlocal made
        made += 1
        with memory.transaction():
            memory.create_memory("one", str(made), {}, "t")
            memory.create_memory("two", str(made), {}, "t")

    each_line(pair, handler, step=5)
    memory.shutdown()
    ones, twos = ({entry.key for entry in memory.get_memories_by_category(each)} for each in ("one", "two"))

    assert ones == twos
    assert raises or len(ones) == made


def test_shutdown_in_a_handler_takes_nothing_from_the_verb(memory: MemoryModule) -> None:
    made = 0

    def create() -> None:
        nonlocal made
        made += 1
        memory.create_memory("one", str(made), {}, "t")

    each_line(create, memory.shutdown, step=3)
    memory.shutdown()

    assert memory.count_memories() == made


def test_a_backend_used_by_itself_refuses_what_interrupts_it(memory: MemoryModule) -> None:
    backend, refused, numbers = memory.backend, 0, itertools.count()
    kept: list[str] = []

    def create() -> None:
        entry = memory.get_memory(original)
        assert entry is not None
        entry.id = f"main-{next(numbers)}"
        backend.create(entry)

    def other() -> None:
        nonlocal refused
        entry = memory.get_memory(original)
        assert entry is not None
        entry.id = f"bye-{next(numbers)}"
        try:
            backend.create(entry)
        except TransactionError:
            refused += 1
        else:
            kept.append(entry.id)
        raise StopError

    original = memory.create_memory("notes", "it", {"n": 0}, "note")
    each_line(create, other, step=3)
    memory.shutdown()

    assert refused > 5
    assert {entry.id for entry in backend.list_all() if entry.id.startswith("bye")} == set(kept)


def test_a_gate_that_an_interrupt_left_closed_lets_the_next_call_in(memory: MemoryModule) -> None:
    def stop() -> None:
        raise StopError

    each_line(lambda: memory.set_user_preference("a", {}), stop)
    memory.set_user_preference("last", {})
    each_line(lambda: memory.get_user_preferences(), stop)
    memory.shutdown()

    assert "last" in memory.get_user_preferences()


def test_what_a_modification_writes_is_part_of_it(memory: MemoryModule) -> None:
    memory_id = memory.create_memory("notes", "it", {"n": 0}, "note")

    def change(value: dict[str, Any]) -> dict[str, Any]:
        memory.set_user_preference("changed", value)
        assert memory.get_user_preferences() == {"changed": value}
        return {"n": 1 / value["n"]} if value["n"] else {"n": 0.5}

    memory.modify_memory(memory_id, change)
    memory.update_memory(memory_id, {"n": 0})
    with pytest.raises(ZeroDivisionError):
        memory.modify_memory(memory_id, lambda value: {"n": 1 / value["n"]})

    assert memory.get_user_preferences() == {"changed": {"n": 0}}
