"""`Wire`: sends several statements to the server at once, and prepares those that come again.

The driver's own pipeline does the same in three times the time of the processor: it looks at the socket after each
statement. This one sends all, and then reads all answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq.abc import PGresult

Statement = tuple[str, Sequence[Any]]
"""A statement with parameters ``$1``, ``$2``, …, and their values."""

_MOST = 500  # prepared statements of a connection
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED, pq.ExecStatus.BAD_RESPONSE)


class Wire:
    """Runs statements on one connection of the driver.

    Args:
        raw: the connection.
        may_prepare: False: prepare nothing, for a proxy that gives each transaction another connection of its own.
    """

    def __init__(self, raw: psycopg.Connection[Any], *, may_prepare: bool = True) -> None:
        self._raw, self._pgconn = raw, raw.pgconn
        self._transformer = Transformer(raw)  # it knows how the types that it has met are written and read
        self._may_prepare = may_prepare
        self._seen: set[str] = set()
        self._prepared: dict[tuple[str, Any], bytes] = {}
        self._numbers = itertools.count()

    def exchange(self, statements: Sequence[Statement]) -> list[PGresult]:
        """Send statements in one round trip and return the result of each.

        Raises:
            psycopg.Error: one of them failed, and those behind it were not run; or the connection has ended.
        """
        pgconn, count = self._pgconn, 0
        new: dict[tuple[str, Any], bytes] = {}  # what this call prepares: the same statement may be sent many times
        places: dict[int, tuple[str, Any]] = {}
        pgconn.enter_pipeline_mode()
        for sql, values in statements:
            given, types, formats = self._dumped(values) if values else ((), (), ())
            key = (sql, types)
            name = self._prepared.get(key) or new.get(key)
            if name is None and self._comes_again(sql):
                name = new[key] = b"jarvis_%d" % next(self._numbers)
                pgconn.send_prepare(name, sql.encode(), types)
                places[count] = key
                count += 1
            if name is None:
                pgconn.send_query_params(sql.encode(), given, types, formats, pq.Format.BINARY)
            else:
                pgconn.send_query_prepared(name, given, formats, pq.Format.BINARY)
            count += 1
        pgconn.pipeline_sync()
        results = self._raw.wait(_answers(pgconn, count))
        pgconn.exit_pipeline_mode()
        for place, key in places.items():
            if results[place].status == pq.ExecStatus.COMMAND_OK:
                self._prepared[key] = new[key]
        for result in results:
            if result.status in _FAILED:
                raise psycopg.errors.error_from_result(result, encoding=self._raw.info.encoding)
        return [result for number, result in enumerate(results) if number not in places]

    def _dumped(self, values: Sequence[Any]) -> tuple[Sequence[Any], Any, Any]:
        transformer = self._transformer
        return transformer.dump_sequence(values, [PyFormat.AUTO] * len(values)), transformer.types, transformer.formats

    def rows_of(self, result: PGresult) -> list[Any]:
        """Return the rows of a result."""
        if not result.nfields:
            return []
        self._transformer.set_pgresult(result)
        rows = self._transformer.load_rows(0, result.ntuples, tuple)
        self._transformer.set_pgresult(None)  # a large answer would stay in memory with the connection
        return rows

    def _comes_again(self, sql: str) -> bool:
        """Tell whether a statement is to be prepared: it was sent before, and there is room."""
        if sql in self._seen:
            return self._may_prepare and len(self._prepared) < _MOST
        if len(self._seen) >= 2 * _MOST:
            self._seen.clear()
        self._seen.add(sql)
        return False


def _answers(pgconn: Any, count: int) -> PQGen[list[PGresult]]:
    """Send what was given, and return one result for each statement."""
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    for _ in range(count):
        results += (yield from generators.fetch_many(pgconn))[-1:]
    yield from generators.fetch_many(pgconn)  # of the sync
    return results
