"""What one caller does: each workload as the calls of one round, each with the answer it must give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple

from benchmarks import corpus
from benchmarks.corpus import Record, record
from benchmarks.systems.system import System

Call = tuple[Callable[[], Any], Any]
"""What is timed, and what its answer must come to (see `is_right`), or None if any answer is right."""


class Some(NamedTuple):
    """An answer of so many different keys out of these, in any order."""

    number: int
    among: frozenset[str]


class Store(NamedTuple):
    """The store a workload meets: entries 0 to size - 1, with the ids that the system gave them."""

    system: System
    ids: list[Any]
    size: int


class Workload(NamedTuple):
    """A question of one caller.

    Attributes:
        title: what the tables call it.
        calls: yields the calls of a round; what it does between two of them is outside the clock.
        store: which store it meets: the one all share, a copy of its own, or an empty one.
        durable: whether the systems sync each commit.
        calls_a_round: how many calls `calls` yields.
        goal: the greatest ratio to raw that is wanted, and the one that is hoped for.
        only_at: the one size it is asked at, if there is only one.
        rounds: the most that are measured, if more would change the store too much.
        each: how many entries one call stands for; its time is divided by that.
    """

    title: str
    calls: Callable[[Store, int, int], Iterator[Call]]
    calls_a_round: int
    store: Literal["shared", "own", "empty"] = "shared"
    durable: bool = True
    goal: tuple[float, float | None] | None = None
    only_at: int | None = None
    rounds: int = 1_000
    each: int = 1


def is_right(answer: Any, wanted: Any) -> bool:
    """Return whether an answer comes to what is wanted: its key, its keys in their order, or `Some` of them."""
    came_to = summary(answer)
    if isinstance(wanted, Some):
        return len(set(came_to)) == len(came_to) == wanted.number and wanted.among.issuperset(came_to)
    return bool(came_to == wanted)


def summary(answer: Any) -> Any:
    """Return an answer without what only was touched: the keys of the entries in their order."""
    if isinstance(answer, list):
        return [touched[0] for touched in answer]
    return answer[0] if isinstance(answer, tuple) else answer


def _numbers(store: Store, turn: int, count: int) -> list[int]:
    """Return `count` numbers of entries, scattered over the whole store, others at each turn."""
    return [(turn * count + step) * 7_919 % store.size for step in range(count)]


def _new(store: Store, turn: int, count: int) -> list[Record]:
    return [record(store.size + turn * count + step) for step in range(count)]


def _keys(
    store: Store,
    *,
    category: str | None = None,
    entity_id: str | None = None,
    tag: str | None = None,
    above: int | None = None,
    limit: int | None = None,
    span: range | None = None,
) -> list[str] | Some:
    """Return the keys of the entries that satisfy every condition, newest first, found by looking at each."""
    span = range(store.size) if span is None else span
    if store.system.exact_order:
        return _matching(span, category, entity_id, tag, above, limit)
    found = _matching(span, category, entity_id, tag, above, None)
    return Some(len(found[:limit]), frozenset(found))


@cache
def _matching(
    span: range, category: str | None, entity_id: str | None, tag: str | None, above: int | None, limit: int | None
) -> list[str]:
    found: list[str] = []
    for number in reversed(span):
        each = record(number)
        if (
            (category is None or each.category == category)
            and (entity_id is None or each.entity_id == entity_id)
            and (tag is None or tag in each.tags)
            and (above is None or each.value["duration"] > above)
        ):
            found.append(each.key)
            if len(found) == limit:
                break
    return found


def _create(store: Store, turn: int, count: int) -> Iterator[Call]:
    for each in _new(store, turn, count):
        yield partial(store.system.create, each), None


def _bulk(store: Store, turn: int, count: int) -> Iterator[Call]:
    for part in range(count):
        records = _new(store, turn * count + part, 1_000)
        yield partial(_bulk_count, store.system, records), 1_000


def _bulk_count(system: System, records: list[Record]) -> int:
    return len(system.bulk(records))


def _get(store: Store, turn: int, count: int) -> Iterator[Call]:
    for number in _numbers(store, turn, count):
        yield partial(store.system.get, store.ids[number]), record(number).key


def _get_by_key(store: Store, turn: int, count: int) -> Iterator[Call]:
    for number in _numbers(store, turn, count):
        key = record(number).key
        yield partial(store.system.get_by_key, key), key


def _category(store: Store, turn: int, count: int) -> Iterator[Call]:
    categories = corpus.CATEGORIES[3:]
    wanted = {category: _keys(store, category=category, limit=50) for category in categories}
    for step in range(count):
        category = categories[step % len(categories)]
        yield partial(store.system.of_category, category, 50), wanted[category]


def _rare_tag(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store, tag=corpus.RARE_TAG, limit=10, span=range(min(store.size, 10 * corpus.RARE_EVERY)))
    for _ in range(count):
        yield partial(store.system.of_tag, corpus.RARE_TAG, 10), wanted


def _common_tag(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store, tag=corpus.COMMON_TAG, limit=20)
    for _ in range(count):
        yield partial(store.system.of_tag, corpus.COMMON_TAG, 20), wanted


def _entity(store: Store, turn: int, count: int) -> Iterator[Call]:
    for step in range(count):
        number = (turn * count + step) * 7 % (store.size // corpus.ENTITY_EVERY)
        start, entity_id = number * corpus.ENTITY_EVERY, f"fact-{number}"
        wanted = _keys(store, entity_id=entity_id, span=range(start, start + corpus.ENTITY_EVERY))
        yield partial(store.system.of_entity, "fact", entity_id), wanted


def _newest_tasks(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store, category="tasks", limit=10)
    for _ in range(count):
        yield partial(store.system.of_category, "tasks", 10), wanted


def _combined(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store, category="tools", tag="week-7")
    for _ in range(count):
        yield partial(store.system.combined, "tools", "tool", "week-7"), wanted


def _where(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store, category="devices", above=900)
    for _ in range(count):
        yield partial(store.system.longer_than, 900, "devices"), wanted


def _everything(store: Store, turn: int, count: int) -> Iterator[Call]:
    wanted = _keys(store)
    for _ in range(count):
        yield store.system.everything, wanted


def _update(store: Store, turn: int, count: int) -> Iterator[Call]:
    for number in _numbers(store, turn, count):
        value = {**record(number).value, "text": f"round {turn}"}
        yield partial(store.system.update, store.ids[number], value), None
        if store.system.get(store.ids[number])[1] != len(value["text"]):
            raise AssertionError("an update was not found again")


def _delete(store: Store, turn: int, count: int) -> Iterator[Call]:
    for number in _numbers(store, turn, count):
        entry_id = store.ids[number]
        yield partial(store.system.delete, entry_id), None
        if _is_there(store.system, entry_id):
            raise AssertionError("a deleted entry was found again")
        store.ids[number] = store.system.create(record(number))  # so that any number of rounds has what to delete


def _is_there(system: System, entry_id: Any) -> bool:
    try:
        system.get(entry_id)
    except (LookupError, TypeError):  # what each system raises by itself for an entry that is not there
        return False
    return True


def _upsert(store: Store, turn: int, count: int) -> Iterator[Call]:
    for step in range(count):
        key, text = f"preference-{step % 20}", f"{turn}-{step}"
        yield partial(store.system.set_preference, key, {"text": text, "size": step}), None
        if store.system.get_by_key(key)[1] != len(text):
            raise AssertionError("a preference was not found again")


def _clear(store: Store, turn: int, count: int) -> Iterator[Call]:
    for part in range(count):
        store.system.bulk(_new(store, turn * count + part, 1_000))
        yield store.system.clear, 1_000


WORKLOADS = {
    "create": Workload("create, durable", _create, 100, "own", goal=(1.1, 0.95)),
    "create-normal": Workload("create, without sync", _create, 200, "own", durable=False, goal=(0.9, None)),
    "bulk": Workload("create in bulk, 1,000 a transaction", _bulk, 1, "own", goal=(0.8, None), rounds=7, each=1_000),
    "get": Workload("get by id", _get, 1_000, goal=(0.8, 0.6)),
    "key": Workload("get by key", _get_by_key, 1_000, goal=(1.0, None)),
    "category": Workload("newest 50 of a category", _category, 50, goal=(0.65, 0.5)),
    "rare-tag": Workload("10 of a rare tag", _rare_tag, 100, goal=(0.65, 0.5)),
    "common-tag": Workload("newest 20 of a common tag", _common_tag, 100, goal=(0.65, 0.5)),
    "entity": Workload("the 20 of an entity", _entity, 100, goal=(0.65, 0.5)),
    "newest-tasks": Workload("newest 10 tasks", _newest_tasks, 100, goal=(0.65, 0.5)),
    "combined": Workload("category + type + tag", _combined, 20, goal=(0.4, None), only_at=100_000),
    "where": Workload("value filter without an index", _where, 2, goal=(3.0, None)),
    "everything": Workload("list all", _everything, 1, goal=(0.65, None)),
    "update": Workload("update, durable", _update, 100, "own", goal=(1.1, None)),
    "delete": Workload("delete, durable", _delete, 100, "own", goal=(1.1, None)),
    "upsert": Workload("set a preference, durable", _upsert, 100, "own", goal=(1.1, None)),
    "clear": Workload("clear all of 1,000", _clear, 1, "empty", goal=(1.3, None)),
}
