"""An iteration that keeps the write-ahead log from being folded in is told, in time and not too often."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jarvis._sqlite import log_watch
from jarvis.conformance.fixtures import an_entry
from jarvis.model.query import MemoryQuery
from jarvis.sqlite_backend import SQLiteBackend

_ALL = MemoryQuery()
TEXT = {"text": "x" * 20_000}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_watch, "LARGE_BYTES", 4 * 2**20)


def _backend(path: Path) -> SQLiteBackend:
    return SQLiteBackend(path / "memory.db", durability="normal", compression="off")


def _write(backend: SQLiteBackend, name: str, count: int) -> None:
    for number in range(count):
        backend.create(an_entry(f"{name}-{number}", value=TEXT))


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "has grown to" in record.getMessage()]


def test_an_iteration_that_pins_the_log_is_told_each_time_the_log_has_doubled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = _backend(tmp_path)
    _write(writer, "first", 3)
    iteration = writer.for_namespace(writer.namespace).iterate(_ALL)
    next(iteration)

    with caplog.at_level(logging.WARNING, "jarvis.sqlite"):
        _write(writer, "later", 1_400)
        told = _told(caplog)

    assert 1 <= len(told) <= 4, told
    assert "in this process" in told[0]
    assert str(tmp_path / "memory.db") in told[0]
    assert len(list(iteration)) == 2
    writer.shutdown()


def test_an_iteration_of_somebody_else_is_told_as_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer, reader = _backend(tmp_path), _backend(tmp_path)
    _write(writer, "first", 3)
    iteration = reader.iterate(_ALL)
    next(iteration)

    with caplog.at_level(logging.WARNING, "jarvis.sqlite"):
        _write(writer, "later", 400)

    assert "elsewhere" in _told(caplog)[0]
    assert len(list(iteration)) == 2
    writer.shutdown()
    reader.shutdown()


def test_a_large_transaction_is_no_iteration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = _backend(tmp_path)
    monkeypatch.setattr(log_watch, "LARGE_BYTES", 20 * 2**20)

    with caplog.at_level(logging.WARNING, "jarvis.sqlite"):
        with writer.transaction():
            _write(writer, "first", 3_000)
        _write(writer, "later", 300)

    assert _told(caplog) == []
    writer.shutdown()
