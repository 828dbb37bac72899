"""An index of words in a plain table, for `tests.plain_sqlite`: what another SQL database has to bring for searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jarvis._sql.word_index import Mark, Statements, WordIndex
from jarvis.model.options import TextIndex
from jarvis.model.words import Term

TABLE = "CREATE TABLE text_index (namespace INTEGER, word TEXT, row INTEGER);"


class PlainWords(WordIndex):  # the index of words, in a plain table
    def mark(self, driver: Statements) -> Mark:
        return Mark(*driver.rows("SELECT language, analyser, upto FROM text_mark")[0])

    def move(self, driver: Statements, analyser: str, upto: int) -> None:
        driver.run("UPDATE text_mark SET analyser = ?, upto = ?", (analyser, upto))

    def set_language(self, driver: Statements, language: TextIndex) -> None:
        driver.run("UPDATE text_mark SET language = ?", (language,))

    def add(self, driver: Statements, documents: Sequence[tuple[int, int, Iterable[str]]]) -> None:
        driver.many(
            "INSERT INTO text_index VALUES (?, ?, ?)", [(here, word, row) for row, here, of in documents for word in of]
        )

    def remove(self, driver: Statements, rows: Sequence[int]) -> None:
        driver.many("DELETE FROM text_index WHERE row = ?", [(row,) for row in rows])

    def clear(self, driver: Statements) -> None:
        driver.run("DELETE FROM text_index")

    def rows(self, driver: Statements, namespace: int, word: Term, most: int | None) -> list[int]:
        is_word = "substr(word, 1, length(?2)) = ?2" if word.is_prefix else "word = ?2"
        text = f"SELECT DISTINCT row FROM text_index WHERE namespace = ?1 AND {is_word} ORDER BY row DESC LIMIT ?3"
        return [row for (row,) in driver.rows(text, (namespace, word.text, -1 if most is None else most))]

    def counts(self, driver: Statements, namespace: int, words: Sequence[Term]) -> list[int]:
        return [len(self.rows(driver, namespace, word, None)) for word in words]

    def among(self, driver: Statements, namespace: int, word: Term, rows: Sequence[int]) -> list[int]:
        return list({*self.rows(driver, namespace, word, None)}.intersection(rows))

    def all_counts(self, driver: Statements, namespace: int) -> list[dict[str, int]]:
        text = "SELECT word, count(*) FROM text_index WHERE namespace = ? GROUP BY word"
        return [dict(driver.rows(text, (namespace,)))]

    def words(self, driver: Statements, namespace: int, beginning: str) -> list[str]:
        return [
            word
            for (word,) in driver.rows("SELECT DISTINCT word FROM text_index WHERE namespace = ?", (namespace,))
            if word.startswith(beginning)
        ]


WORDS: WordIndex = PlainWords()
