"""Promises of values: the exact value and types return, or a refusal names the field."""

from __future__ import annotations

import json
import math
import random
from collections import OrderedDict, UserDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest

from jarvis.conformance.fixtures import NOON, OpenBackend, Promises, an_entry
from jarvis.errors import InvalidEntryError
from jarvis.storage_backend import StorageBackend

_LEVELS = 100
"""How deep a value may be nested, see the page of limits."""


def identical(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, of the same types all the way down, NaN and signs of zero included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(identical(item, other[key]) for key, item in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(
            any(identical(item, counterpart) for counterpart in other) for item in one
        )
    if isinstance(one, (float, Decimal)):
        return repr(one) == repr(other)
    if isinstance(one, (datetime, time)):
        return bool(one == other and one.utcoffset() == other.utcoffset() and one.fold == other.fold)
    return bool(one == other)


def nested(depth: int, *, kind: type = dict) -> dict[str, Any]:
    """Return a dict with `depth` levels of dicts or lists nested in each other."""
    inner: Any = 1
    for _ in range(depth - 1):
        inner = {"a": inner} if kind is dict else kind([inner])
    return {"a": inner}


def exploding(kind: type) -> Any:
    """Return sixty dicts, lists or tuples, each with the previous one twice: 2^60 leaves when written out."""
    part: Any = 1
    for _ in range(60):
        part = {"a": part, "b": part} if kind is dict else kind((part, part))
    return part


class _Colour(IntEnum):
    RED = 1


class _Text(str):
    __slots__ = ()


_EXACT: dict[str, Any] = {
    "json": {"s": "x", "i": -1, "f": 0.1, "t": True, "n": None, "l": [1, [2]], "d": {}},
    "unicode": "żółć 🦊 \u202e \x00 \x1f \u2028 \uffff 日本",
    "surrogates": ["\ud800", "a\udfffb", {"\udc80": 1}],
    "integers": [0, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**64), 10**4301],
    "floats": [0.0, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf, 1.0, 1e16, 0.1 + 0.2],
    "datetimes": [
        datetime(2026, 3, 29, 2, 30, fold=1),  # noqa: DTZ001 - naive is the point
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45, seconds=7))),
    ],
    "dates and times": [date(2026, 2, 28), time(1, 2, 3, 4), time(1, tzinfo=UTC), timedelta(days=-1, microseconds=3)],
    "others": [
        UUID(int=7),
        Decimal("1E+5"),
        Decimal("0.10"),
        Decimal("NaN"),
        b"",
        b"\x00\xff",
        Path("/x y"),
        Path("a/../b"),
    ],
    "tuples and sets": [(), (1, (2,)), set(), {1, "a", (1, 2)}, frozenset({frozenset()}), ((1, [2]),)],
    "what looks like our own form": {"$type": "int", "$value": "0x1", "n": {"$type": {"$type": []}}},
    "empty": [{}, [], "", {"": ""}],
    "many": list(range(10_000)),
    "long": "x" * 1_000_000,
}

_REFUSED: dict[str, Any] = {
    "object": object(),
    "function": len,
    "int key": {1: "one"},
    "none key": {None: 1},
    "tuple key": {(1, 2): 1},
    "enum": _Colour.RED,
    "str subclass": _Text("x"),
    "ordered dict": OrderedDict(a=1),
    "default dict": defaultdict(int),
    "bytearray": bytearray(b"x"),
    "complex": 1j,
    "generator": iter([1]),
    "other path": PurePosixPath("x"),
    "class": int,
    "ellipsis": ...,
}


class _Moment(datetime):
    __slots__ = ()


class _Word(Enum):
    YES = "y"


_ADVISED: dict[str, tuple[Any, str, Any]] = {  # the refused value, the advice, and the result of the advice
    "enum": (_Word.YES, ".value", "y"),
    "number enum": (_Colour.RED, ".value", 1),
    "the name of an enum": (_Word.YES, ".name", "YES"),
    "ordered dict": (OrderedDict(a=1), "dict(...)", {"a": 1}),
    "default dict": (defaultdict(int, a=1), "dict(...)", {"a": 1}),
    "user dict": (UserDict(a=1), "dict(...)", {"a": 1}),
    "proxy of a dict": (MappingProxyType({"a": 1}), "dict(...)", {"a": 1}),
    "str subclass": (_Text("x"), "str(...)", "x"),
    "bytearray": (bytearray(b"x"), "bytes(...)", b"x"),
    "datetime subclass": (
        _Moment(2026, 1, 1, tzinfo=UTC),
        "datetime.fromisoformat(it.isoformat())",
        datetime(2026, 1, 1, tzinfo=UTC),
    ),
}

_EXPLODING: dict[str, Any] = {
    **{kind.__name__: exploding(kind) for kind in (dict, list, tuple)},
    "text": ["x" * 10_000_000] * 1_000,
}


class ValuePromises(Promises):
    """Values are exact or refused, never changed."""

    @pytest.mark.parametrize("name", _EXACT)
    def test_a_value_comes_back_with_its_exact_types_also_after_reopening(
        self, backend: StorageBackend, name: str
    ) -> None:
        backend.create(an_entry(value={"v": _EXACT[name]}))

        at_once = backend.read("1")
        backend.shutdown()
        reopened = backend.read("1")

        assert at_once is not None
        assert reopened is not None
        assert identical(at_once.value, {"v": _EXACT[name]})
        assert identical(reopened.value, {"v": _EXACT[name]})

    @pytest.mark.parametrize("name", _EXACT)
    def test_a_dump_shares_nothing_with_its_entry_and_is_exact(self, backend: StorageBackend, name: str) -> None:
        value = {"v": _EXACT[name], "pair": ({"list": [1], "set": {1}},)}
        backend.create(an_entry(value=value, tags=["a"]))
        entry = backend.read("1")
        assert entry is not None

        dump = entry.model_dump()

        assert identical(dump["value"], value)
        dump["tags"].append("b")
        dump["provenance"].clear()
        dump["value"]["pair"][0]["list"].append(2)
        dump["value"]["pair"][0]["set"].add(2)
        dump["value"].clear()
        assert identical(entry.value, value)
        assert (entry.tags, len(entry.provenance)) == (["a"], 3)

    @pytest.mark.parametrize("name", _EXACT)
    def test_a_dump_in_json_types_is_json_everywhere(self, backend: StorageBackend, name: str) -> None:
        backend.create(an_entry(value={"v": _EXACT[name], "set": {(1, 2), (1,)}}))
        entry = backend.read("1")
        assert entry is not None

        dump = entry.model_dump(mode="json")

        text = json.dumps(dump, allow_nan=False, ensure_ascii=False).encode()
        assert identical(json.loads(text), dump)
        assert identical(msgspec.json.decode(msgspec.json.encode(dump)), dump)
        assert dump["value"]["set"] == [[1, 2], [1]]

    def test_a_dump_in_json_types_has_the_documented_forms(self) -> None:
        berlin = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))
        forms = [
            ((1, (2,)), [1, [2]]),
            ({"b", "a"}, ["a", "b"]),
            (frozenset(), []),
            (float("nan"), "NaN"),
            (float("inf"), "Infinity"),
            (-float("inf"), "-Infinity"),
            (2**64, "0x10000000000000000"),
            (2**64 - 1, 2**64 - 1),
            ("\ud800é", "\\ud800é"),
            ({"\ud800": 1}, {"\\ud800": 1}),
            (NOON, "2026-03-01T12:00:00Z"),
            (berlin, "2026-03-01T12:00:00+01:00"),
            (date(2026, 3, 1), "2026-03-01"),
            (time(12, tzinfo=UTC), "12:00:00Z"),
            (timedelta(seconds=-90), "-PT90S"),
            (b"\xff", "/w=="),
            (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (Decimal("1.50"), "1.50"),
            (Path("a/\ud800"), str(Path("a/\\ud800"))),
        ]
        for value, form in forms:
            assert identical(an_entry(value={"v": value}).model_dump(mode="json")["value"]["v"], form)
        with pytest.raises(InvalidEntryError, match="two keys"):
            an_entry(value={"\ud800": 1, "\\ud800": 2}).model_dump(mode="json")

    @pytest.mark.parametrize("name", _REFUSED)
    def test_what_cannot_come_back_is_refused_with_its_path(self, backend: StorageBackend, name: str) -> None:
        backend.create(an_entry("before"))

        with pytest.raises(InvalidEntryError) as caught:
            backend.create(an_entry(value={"list": [0, {"deep": _REFUSED[name]}]}))

        assert caught.value.field.startswith("value.list[1].deep")
        assert backend.list_all() == [an_entry("before")]

    @pytest.mark.parametrize("name", _ADVISED)
    def test_what_a_refusal_advises_is_stored(self, backend: StorageBackend, name: str) -> None:
        refused, advice, outcome = _ADVISED[name]

        with pytest.raises(InvalidEntryError) as caught:
            backend.create(an_entry(value={"v": refused}))
        assert advice in caught.value.problem
        with pytest.raises(InvalidEntryError) as caught:
            backend.create(an_entry(value=refused))
        assert advice in caught.value.problem or "wrap it" in caught.value.problem
        backend.create(an_entry(value={"v": outcome}))
        backend.create(an_entry("2", value=outcome if isinstance(outcome, dict) else {"value": outcome}))

        assert [next(iter(entry.value.values())) for entry in backend.list_all() if entry.id == "1"] == [outcome]

    @pytest.mark.parametrize("key", [_Word.YES, b"y"])
    def test_a_key_is_stored_as_its_refusal_advises(self, backend: StorageBackend, key: Any) -> None:
        advice = ".value" if isinstance(key, Enum) else "key.decode()"

        with pytest.raises(InvalidEntryError) as caught:
            backend.create(an_entry(value={key: 1}))
        assert advice in caught.value.problem
        backend.create(an_entry(value={key.value if isinstance(key, Enum) else key.decode(): 1}))

        assert [entry.value for entry in backend.list_all()] == [{"y": 1}]

    def test_a_value_may_be_nested_to_the_documented_depth_and_no_deeper(self, backend: StorageBackend) -> None:
        for kind in (dict, list, tuple):
            backend.create(an_entry(kind.__name__, value=nested(_LEVELS, kind=kind)))
            with pytest.raises(InvalidEntryError, match="nested deeper"):
                backend.create(an_entry("deeper", value=nested(_LEVELS + 1, kind=kind)))

            entry = backend.read(kind.__name__)
            assert entry is not None
            assert identical(entry.value, nested(_LEVELS, kind=kind))

    def test_a_value_that_contains_itself_is_refused(self, backend: StorageBackend) -> None:
        endless: dict[str, Any] = {}
        endless["self"] = endless

        with pytest.raises(InvalidEntryError, match="nested deeper"):
            backend.create(an_entry(value=endless))

    @pytest.mark.parametrize("kind", ["dict", "list", "tuple", "text"])
    def test_a_value_that_explodes_is_refused(self, backend: StorageBackend, kind: str) -> None:
        part = _EXPLODING[kind]
        backend.create(an_entry("before"))

        for attempt in (
            lambda: backend.create(an_entry(value={"v": part})),
            lambda: backend.update(an_entry("before", value={"v": part})),
            lambda: an_entry(value={"v": part}).model_dump(mode="json"),
        ):
            with pytest.raises(InvalidEntryError, match="shared parts") as caught:
                attempt()
            assert caught.value.field == "value"

        assert backend.list_all() == [an_entry("before")]

    def test_tags_and_authors_that_explode_are_refused(self, backend: StorageBackend) -> None:
        long = "x" * 1_000_000

        with pytest.raises(InvalidEntryError, match=r"tags\[0\]"):
            backend.create(an_entry(tags=[long] * 100_000))
        with pytest.raises(InvalidEntryError, match="tags"):
            backend.create(an_entry(tags=["x" * 2_000] * 1_000_000))
        with pytest.raises(InvalidEntryError, match="provenance"):
            backend.create(an_entry(provenance={str(number): long for number in range(100_000)}))

    def test_a_large_value_with_shared_parts_comes_back(self, backend: StorageBackend) -> None:
        row = {"at": (1, 2.5), "text": "a b c"}
        value = {"rows": [row] * 100_000}

        backend.create(an_entry(value=value))

        entry = backend.read("1")
        assert entry is not None
        assert entry.value == value

    def test_ten_megabytes_come_back_exactly(self, backend: StorageBackend) -> None:
        text = "ab\u00e9\U0001f98a" * 1_250_000

        backend.create(an_entry(value={"text": text}))
        backend.shutdown()

        entry = backend.read("1")
        assert entry is not None
        assert entry.value == {"text": text}

    def test_hostile_names_are_plain_data(self, backend: StorageBackend) -> None:
        hostile = [
            "'; DROP TABLE entries; --",
            '"',
            "../../etc/passwd",
            "%",
            "_",
            "$where",
            "\\",
            "\n",
            "🦊",
            "a:b:c",
            " ",
        ]

        for number, name in enumerate(hostile):
            backend.create(an_entry(f"{number}{name}", category=name, key=name, tags=[name], entity_id=name))

        for number, name in enumerate(hostile):
            entry_id = f"{number}{name}"
            for matches in (backend.query(category=name), backend.query(tags=[name]), backend.query(key=name)):
                assert [entry.id for entry in matches] == [entry_id]
            assert [entry.id for entry in backend.query(entity_id=name)] == [entry_id]

    def test_a_thousand_hostile_values_are_exact_or_refused(
        self, backend: StorageBackend, open_backend: OpenBackend
    ) -> None:
        rng = random.Random(1)  # noqa: S311 - a fixed choice, no secret
        leaves = [
            *(leaf for values in _EXACT.values() if isinstance(values, list) for leaf in values[:20]),
            *_REFUSED.values(),
        ]
        kept: dict[str, Any] = {}
        for number in range(1000):
            value = {"v": _hostile(rng, leaves, 4)}
            try:
                backend.create(an_entry(str(number), value=value))
            except InvalidEntryError:
                continue
            else:
                kept[str(number)] = value

        backend.shutdown()
        other = open_backend()
        try:
            assert len(other.list_all()) == len(kept) > 100
            for entry_id, value in kept.items():
                entry = other.read(entry_id)
                assert entry is not None
                assert identical(entry.value, value)
        finally:
            other.shutdown()


def _hostile(rng: random.Random, leaves: list[Any], depth: int) -> Any:
    kind = rng.randrange(6) if depth else 0
    if kind < 3:
        return rng.choice(leaves)
    if kind == 3:
        return {
            rng.choice(["a", "$type", "$value", "", "é", "\ud800"]): _hostile(rng, leaves, depth - 1) for _ in range(3)
        }
    if kind == 4:
        return [_hostile(rng, leaves, depth - 1) for _ in range(rng.randrange(3))]
    return tuple(_hostile(rng, leaves, depth - 1) for _ in range(rng.randrange(3)))
