"""PostgreSQL's words for the shared statements, and their translation to its parameters and to one schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jarvis._sql import registry
from jarvis._sql.dialect import Dialect
from jarvis._sql.driver import Bindings

HERE = "here_"
"""The parameter that is the number of the session's namespace: the driver gives it."""

_MAYBE = """e.packed IS NOT NULL OR e.body NOT LIKE '[{%' OR e.body LIKE '%"$type"%'"""
_SOMEWHERE = f"(e.body LIKE ANY (ARRAY(SELECT value FROM texts_in(:parts_#))) OR {_MAYBE})"
"""A body in which a key and its value stand nowhere, as JSON writes them, does not have them at the path, either.

That takes 0.4 µs a row; to read the body as jsonb takes 1.5, which is half of what Python takes to judge it.
"""

_AT_PATH = """(CASE
    WHEN e.packed IS NOT NULL OR e.body NOT LIKE '[{{%' OR strpos(e.body, '\\u0000') > 0 THEN TRUE ELSE (
    SELECT CASE WHEN x IS NULL THEN {} ELSE {} END
    FROM (SELECT CAST(e.body AS jsonb) #> ARRAY(SELECT value FROM texts_in(:steps_#)) AS x OFFSET 0) AS found) END)"""
"""What is at the path as jsonb, which has no text with NUL. OFFSET keeps the planner from reading the body twice."""

_IN_TAGGED_FORM = """e.body LIKE '%"$type"%'"""
_NUMBERS = """CASE jsonb_typeof(x)
    WHEN 'number' THEN CAST(x AS float8) BETWEEN CAST(:low_# AS float8) AND CAST(:high_# AS float8)
    WHEN 'boolean' THEN CAST(CAST(x AS boolean) AS integer) BETWEEN CAST(:low_# AS float8) AND CAST(:high_# AS float8)
    ELSE jsonb_typeof(x) = 'object' END"""
_TEXTS = """CASE jsonb_typeof(x)
    WHEN 'string' THEN (x #>> '{}') COLLATE "C" >= :low_#
        AND (CAST(:end_# AS text) IS NULL OR (x #>> '{}') COLLATE "C" <= CAST(:end_# AS text))
    ELSE jsonb_typeof(x) = 'object' END"""
_LIST = """CASE jsonb_typeof(x) WHEN 'object' THEN TRUE ELSE
    CASE x WHEN 'true' THEN '1' WHEN 'false' THEN '0' ELSE x END
    IN (SELECT value FROM jsonb_array_elements(CAST(:items_# AS jsonb))) END"""
_VALUES = {
    "absent": _AT_PATH.format("TRUE", "FALSE"),
    "list": _AT_PATH.format(_IN_TAGGED_FORM, _LIST),
    "numbers": _AT_PATH.format(_IN_TAGGED_FORM, _NUMBERS),
    "texts": _AT_PATH.format(_IN_TAGGED_FORM, _TEXTS),
    **dict.fromkeys(("equal", "present", "text"), _SOMEWHERE),
}
"""See `jarvis._sql.preselection`."""

DIALECT = Dialect(
    here=f"namespace = :{HERE}",
    unindexed="",
    join_in_order="JOIN",
    clock=f"(SELECT CAST(:{HERE} AS bigint) AS namespace) AS asked LEFT JOIN clock USING (namespace)",
    column_here="namespace, ",
    value_here=f":{HERE}, ",
    members="SELECT value FROM texts_in",
    numbers="SELECT value FROM numbers_in",
    pages="SELECT 0",
    values=_VALUES,
)

_HERE_LATER = "$here"
_FUNCTIONS = ("texts_in", "numbers_in", "looked_at")
_TOKENS = re.compile(
    r"(?P<text>'(?:[^']|'')*')"
    r"|\?(?P<place>\d*)"
    r"|(?<!:):(?P<name>\w+)"
    rf"|(?P<before>\b(?:FROM|JOIN|INTO|UPDATE)\s+)(?P<table>{'|'.join(table.name for table in registry.tables())})\b"
    rf"|\b(?P<function>{'|'.join(_FUNCTIONS)})\b(?=\()"
)


class Translated(NamedTuple):
    """A statement as PostgreSQL takes it, and how its parameters are found in the bindings.

    Attributes:
        sql: with the parameters ``$1``, ``$2``, …
        sources: for each of these: the name or the place of a binding.
        takes_here: the last parameter is the number of the namespace.
    """

    sql: str
    sources: tuple[str | int, ...]
    takes_here: bool

    def values(self, bindings: Bindings, here: int) -> Sequence[Any]:
        """Return the values of the parameters."""
        given: Any = bindings
        values = [given[source] for source in self.sources]
        if self.takes_here:
            values.append(here)
        return values


@lru_cache(maxsize=5_000)
def translated(sql: str, schema: str) -> Translated:
    """Return a statement with the tables of this schema, which is quoted."""
    numbers: dict[str | int, int] = {}  # by name or place: the number of the parameter
    given, takes_here = 0, False
    parts, end = [], 0
    for match in _TOKENS.finditer(sql):
        parts.append(sql[end : match.start()])
        end = match.end()
        if match["text"] is not None:
            parts.append(match["text"])
        elif match["table"] is not None:
            parts.append(f"{match['before']}{schema}.{match['table']}")
        elif match["function"] is not None:
            parts.append(f"{schema}.{match['function']}")
        elif match["name"] == HERE:
            takes_here = True
            parts.append(_HERE_LATER)
        else:
            source: str | int = match["name"]
            if match["name"] is None:  # as in SQLite, one without a number is the next after the greatest one
                source = int(match["place"]) - 1 if match["place"] else given
                given = max(given, source + 1)
            parts.append(f"${numbers.setdefault(source, len(numbers) + 1)}")
    text = "".join([*parts, sql[end:]]).replace(_HERE_LATER, f"${len(numbers) + 1}")
    return Translated(text, tuple(numbers), takes_here)
