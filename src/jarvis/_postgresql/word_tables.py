"""The tables of the index of words on a PostgreSQL server: a tsvector for each entry, and how many have each word.

A tsvector holds less than 1 MB, so the words of an entry may be in several *parts*; each word is in one of them. To
count the rows of a word is slow, so the numbers are kept. Each word stands behind a mark of its namespace: so one index
serves all, and the rows that it returns are mostly of one namespace, which a condition makes certain.

GIN keeps what was added last in a list that each search reads: 3 ms a word at its usual limit of 4 MB, 0.4 at ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._sql.shape import as_json
from jarvis._sql.word_index import Mark, WordIndex
from jarvis.model.options import NO_INDEX
from jarvis.model.query import end_of

if TYPE_CHECKING:
    from jarvis._sql.word_index import Statements
    from jarvis.model.options import TextIndex
    from jarvis.model.words import Term

CREATE = """
CREATE TABLE {schema}.text_stale (namespace bigint NOT NULL, row bigint NOT NULL, PRIMARY KEY (namespace, row));
CREATE TABLE {schema}.text_counts (namespace bigint PRIMARY KEY, entries bigint NOT NULL);
CREATE TABLE {schema}.text_mark (namespace bigint PRIMARY KEY, analyser text NOT NULL, upto bigint NOT NULL);
CREATE TABLE {schema}.text_index (
    namespace bigint NOT NULL, row bigint NOT NULL, part bigint NOT NULL, words tsvector NOT NULL,
    PRIMARY KEY (namespace, row, part));
CREATE INDEX text_index_by_word ON {schema}.text_index USING gin (words) WITH (gin_pending_list_limit = 512);
CREATE TABLE {schema}.text_vocabulary (
    namespace bigint NOT NULL, word text COLLATE "C" NOT NULL, entries bigint NOT NULL, PRIMARY KEY (namespace, word));
"""
FIRST_VERSION = 3
"""The first version of stores on servers that has an index of words."""

LANGUAGE = "ALTER TABLE {schema}.store ADD COLUMN language text NOT NULL DEFAULT 'english';"
"""The language in which the store is to be indexed."""

_MARK = """
SELECT s.language, coalesce(m.analyser, ''), coalesce(m.upto, 0)
FROM {schema}.store AS s LEFT JOIN text_mark AS m ON m.namespace = :here_
"""
_SET = "UPDATE {schema}.store SET language = ?1 WHERE language <> ?1"
_MOVE = """
INSERT INTO text_mark (namespace, analyser, upto) VALUES (:here_, :analyser, :upto)
ON CONFLICT (namespace) DO UPDATE SET analyser = excluded.analyser, upto = excluded.upto
"""
_ADD = """
INSERT INTO text_index (namespace, row, part, words)
SELECT :here_, (each ->> 0)::bigint, (each ->> 1)::bigint, (each ->> 2)::tsvector
FROM jsonb_array_elements(CAST(:documents AS jsonb)) AS each
"""
_ADD_WORDS = """
INSERT INTO text_vocabulary (namespace, word, entries)
SELECT :here_, each ->> 0, (each ->> 1)::bigint FROM jsonb_array_elements(CAST(:words AS jsonb)) AS each
ON CONFLICT (namespace, word) DO UPDATE SET entries = text_vocabulary.entries + excluded.entries
"""
_AMONG_ROWS = "namespace = :here_ AND row IN (SELECT value FROM numbers_in(:rows))"
_LOST = f"""
(SELECT substr(lexeme, {{mark}}) AS word, count(*) AS entries FROM text_index, unnest(words) WHERE {_AMONG_ROWS}
GROUP BY lexeme) AS lost WHERE v.namespace = :here_ AND v.word = lost.word AND v.entries
"""
_MARK_SIGNS = 5
_LOSE = (
    f"DELETE FROM text_vocabulary AS v USING {_LOST} <= lost.entries",
    f"UPDATE text_vocabulary AS v SET entries = v.entries - lost.entries FROM {_LOST} > lost.entries",
    f"DELETE FROM text_index WHERE {_AMONG_ROWS}",
)
_CLEAR = ("DELETE FROM text_index WHERE namespace = :here_", "DELETE FROM text_vocabulary WHERE namespace = :here_")
_MATCH = "words @@ CAST(CAST(:match AS text) AS tsquery)"
_HAVE = f"namespace + 0 = :here_ AND {_MATCH}"
"""The sum keeps a planner without figures from reading the primary key, too: 3 ms a word of 100,000 entries."""

_ROWS = f"""
SELECT CAST(coalesce(json_agg(row), '[]') AS text)
FROM (SELECT {{}} FROM text_index WHERE {_HAVE}{{}}) AS found
"""
_NEWEST = " ORDER BY row DESC LIMIT :most"
_AMONG = f"""
SELECT DISTINCT row FROM text_index
WHERE namespace = :here_ AND row = ANY (ARRAY(SELECT value FROM numbers_in(:rows))) AND ({_MATCH}) IS TRUE
"""  # IS TRUE keeps the planner from reading all rows with the word
_COUNTS = """
SELECT word, entries FROM text_vocabulary WHERE namespace = :here_ AND word IN (SELECT value FROM texts_in(:words))
"""
_COUNT_BEGINNING = f"SELECT count(DISTINCT row) FROM text_index WHERE {_HAVE}"
_COUNT_LEXEMES = """
SELECT lexeme, count(*) FROM text_index, unnest(words) WHERE namespace = :here_ GROUP BY lexeme
"""
_COUNT_ALL = "SELECT word, entries FROM text_vocabulary WHERE namespace = :here_"
_WORDS = "SELECT word FROM text_vocabulary WHERE namespace = :here_ AND word >= :beginning"
_MOST_WORDS = 2_000  # of 40 signs each, in a part
_decode = msgspec.json.Decoder(list[int]).decode


class TSVectorIndex(WordIndex):
    """The index of words of one namespace on a server."""

    seeks = True

    def mark(self, driver: Statements) -> Mark:
        """Return how far the index goes; a store that this process could not migrate has none."""
        own: Any = driver
        return Mark(*driver.rows(own.in_schema(_MARK))[0]) if own.version >= FIRST_VERSION else Mark(NO_INDEX, "", 0)

    def move(self, driver: Statements, analyser: str, upto: int) -> None:
        driver.run(_MOVE, {"analyser": analyser, "upto": upto})

    def set_language(self, driver: Statements, language: TextIndex) -> None:
        own: Any = driver
        driver.run(own.in_schema(_SET), (language,))

    def add(self, driver: Statements, documents: Sequence[tuple[int, int, Iterable[str]]]) -> None:
        parts, numbers = [], Counter[str]()
        for row, namespace, words in documents:
            own, several = _mark_of(namespace), list(words)
            numbers.update(several)
            for start in range(0, len(several), _MOST_WORDS):
                tokens = own + f" {own}".join(several[start : start + _MOST_WORDS])
                parts.append((row, start // _MOST_WORDS, tokens))
        if parts:
            driver.run(_ADD, {"documents": as_json(parts)})
            driver.run(_ADD_WORDS, {"words": as_json(sorted(numbers.items()))})

    def remove(self, driver: Statements, rows: Sequence[int]) -> None:
        """Remove rows, and words that no other row has."""
        for sql in _LOSE:
            driver.run(sql.replace("{mark}", str(_MARK_SIGNS + 1)), {"rows": as_json(rows)})

    def clear(self, driver: Statements) -> None:
        for sql in _CLEAR:
            driver.run(sql, {})

    def rows(self, driver: Statements, namespace: int, word: Term, most: int | None) -> list[int]:
        sql = _ROWS.format("DISTINCT row" if word.is_prefix else "row", "" if most is None else _NEWEST)
        return _decode(driver.rows(sql, {"match": _match(namespace, word), "most": most})[0][0])

    def counts(self, driver: Statements, namespace: int, words: Sequence[Term]) -> list[int]:
        """Return how many rows have each of some words: a look at a table for whole words, and slow for others."""
        known = dict(driver.rows(_COUNTS, {"words": as_json([word.text for word in words if not word.is_prefix])}))
        return [
            int(driver.rows(_COUNT_BEGINNING, {"match": _match(namespace, word)})[0][0])
            if word.is_prefix
            else known.get(word.text, 0)
            for word in words
        ]

    def among(self, driver: Statements, namespace: int, word: Term, rows: Sequence[int]) -> list[int]:
        """Return those of some rows that have a word: 3 µs a row."""
        asked = {"match": _match(namespace, word), "rows": as_json(rows)}
        return [row for (row,) in driver.rows(_AMONG, asked)]

    def all_counts(self, driver: Statements, namespace: int) -> list[dict[str, int]]:  # noqa: ARG002
        """Return how many rows have each word, as the rows say, and as was counted."""
        return [
            {lexeme[_MARK_SIGNS:]: count for lexeme, count in driver.rows(_COUNT_LEXEMES, {})},
            dict(driver.rows(_COUNT_ALL, {})),
        ]

    def words(self, driver: Statements, namespace: int, beginning: str) -> list[str]:  # noqa: ARG002  the driver knows it
        end = end_of(beginning)
        sql, asked = (_WORDS, {}) if end is None else (f"{_WORDS} AND word < :last", {"last": end})
        return [word for (word,) in driver.rows(sql, {"beginning": beginning, **asked})]


def _mark_of(namespace: int) -> str:
    """Return the signs before each word: not unique, but seldom those of another namespace."""
    return f"{namespace & 0xFFFFF:0{_MARK_SIGNS}x}"


def _match(namespace: int, word: Term) -> str:
    return f"'{_mark_of(namespace)}{word.text}'" + ":*" * word.is_prefix
