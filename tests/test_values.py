"""What is quick about values is exact: sets compared by looking up, encodings made before they are needed."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.codec import encode, flatten
from jarvis.codec.compression import Mode
from jarvis.conformance.fixtures import an_entry
from jarvis.errors import InvalidEntryError, InvalidQueryError
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.record import encode_body, encode_entry, prepare
from jarvis.model.value_filter import _kind, compile_where, same
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

_SCALARS = (
    st.sampled_from([0, 1, True, False, 1.0, 0.0, -0.0, float("nan"), Decimal(1), Decimal("NaN"), "1", b"1", None])
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
)
_MEMBERS = st.recursive(
    _SCALARS,
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
_SETS = st.frozensets(_MEMBERS, max_size=5)


def _same_pairwise(one: Any, other: Any) -> bool:
    """Tell what `same` does, by its definition: each member of a set is compared with each of the other."""
    kind = _kind(one)
    if kind != _kind(other):
        return False
    if kind == "tuple":
        return len(one) == len(other) and all(map(_same_pairwise, one, other))
    if kind == "set":
        return len(one) == len(other) and all(any(_same_pairwise(held, there) for there in other) for held in one)
    return same(one, other)


@given(_SETS, _SETS)
def test_sets_are_the_same_by_looking_up_as_by_comparing_all_pairs(one: frozenset[Any], other: frozenset[Any]) -> None:
    again = frozenset([*other])
    swapped = frozenset(float(member) if type(member) is int else member for member in one)

    for left, right in ((one, other), (one, one), (other, again), (one, swapped), (one | other, other | one)):
        assert same(left, right) == _same_pairwise(left, right)


@given(_MEMBERS, st.lists(_MEMBERS | st.lists(_SCALARS, max_size=2) | st.just(Decimal("sNaN")), max_size=6))
def test_a_value_is_in_a_list_if_it_is_the_same_as_one_of_it(found: Any, operands: list[Any]) -> None:
    within = compile_where({"a": {"$in": operands}})

    for value in (found, *operands):
        assert within({"a": value}) == any(same(value, operand) for operand in operands)
    assert not within({})


_LARGE = {"text": "again and again " * 500}


@pytest.mark.parametrize("mode", ["auto", "max", "off"])
@pytest.mark.parametrize("value", [{}, {"mode": "dark"}, {"at": (1, {2})}, {"$type": "int"}, {"é": "ü" * 1023}, _LARGE])
def test_an_entry_is_stored_alike_whether_its_value_was_encoded_before_or_not(
    mode: Mode, value: dict[str, Any]
) -> None:
    prepared = an_entry(value=prepare(value, mode))

    assert encode_entry(prepared, mode) == encode_entry(an_entry(value=value), mode)
    assert encode_body(prepared) == encode_body(an_entry(value=value))


@pytest.mark.parametrize("value", [None, [1], "dark", {"a": object()}, {1: 1}])
def test_what_is_refused_is_refused_in_the_same_words_before(value: Any) -> None:
    with pytest.raises(InvalidEntryError) as before:
        prepare(value, "auto")
    with pytest.raises(InvalidEntryError) as then:
        encode_body(an_entry(value=value))

    assert str(before.value) == str(then.value)


def test_a_value_is_walked_whole_where_it_is_large_and_does_not_explode() -> None:
    row = [1, "a", (2,)]

    flat = flatten({"rows": [row] * 100_000})

    assert flat == {"rows": [[1, "a", {"$type": "tuple", "$value": [2]}]] * 100_000}


def test_the_path_of_what_is_refused_in_a_large_value_is_exact() -> None:
    with pytest.raises(InvalidEntryError) as caught:
        encode({"rows": [[1, 2]] * 200_000 + [[object()]]})

    assert caught.value.field == "value.rows[200000][0]"


@pytest.mark.parametrize("kind", [SQLiteBackend, JSONBackend])
def test_a_subclass_that_has_a_create_of_its_own_is_given_the_value(
    kind: type[SQLiteBackend | JSONBackend], tmp_path: Path
) -> None:
    seen: list[Any] = []

    def create(self: Any, entry: MemoryEntry) -> None:
        seen.append(entry.value)
        kind.create(self, entry)

    watched = type("Watched", (kind,), {"create": create})
    memory = MemoryModule(storage_backend=watched(tmp_path / "memory"))
    memory.create_memory("c", "k", {"a": 1}, "t")
    memory.shutdown()

    assert seen == [{"a": 1}]


def test_a_path_of_shared_tuples_is_refused_at_once(tmp_path: Path) -> None:
    shared: Any = ()
    for _ in range(22):
        shared = (shared, shared)
    memory = MemoryModule(storage_dir=tmp_path)

    for where in ({shared: 1}, {"a": {"$eq": {shared: 1}}}):
        with pytest.raises(InvalidQueryError):
            memory.search_memories(where=where)


@pytest.mark.parametrize(
    "changeable",
    [OrderedDict(a=[1]), defaultdict(list, a=[1]), UserDict(a=[1]), deque([[1]]), bytearray(b"x"), UserList([[1]])],
    ids=lambda held: type(held).__name__,
)
def test_a_dump_shares_nothing_with_an_entry_that_could_not_be_stored(changeable: Any) -> None:
    value = {"direct": changeable, "in a tuple": ({"a": changeable},)}
    before = copy.deepcopy(value)

    dump = MemoryEntry("1", "c", "k", value).model_dump()["value"]
    for held in (dump["direct"], dump["in a tuple"][0]["a"]):
        next(iter(held.values() if isinstance(held, Mapping) else [held])).append(2)

    assert value == before
