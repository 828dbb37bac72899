"""A pytest plugin that prints the promises of `jarvis.conformance` that each backend keeps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

_KEPT, _LACKS, _BROKEN = "kept", "lacks", "BROKEN"
_BACKEND, _MODULE = "promises of the backend", "promises of the module on it"
_OF_MODULE = "jarvis.conformance.module."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the name of the promise and of its class to each report."""
    report = yield
    kind = getattr(item, "cls", None)
    if kind is not None and getattr(kind, "need", None) is not None and report.when in ("setup", "call"):
        subject = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
        whose = _MODULE if item.obj.__module__.startswith(_OF_MODULE) else _BACKEND  # type: ignore[attr-defined]  # a test's item
        report.user_properties.append(("promise", (whose, kind.__name__.removeprefix("Test"), subject)))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print two tables, of the backend and of the module: a row for each promise, a column for each backend."""
    tables: dict[str, dict[str, dict[str, str]]] = {_BACKEND: {}, _MODULE: {}}
    for outcome, mark in (("passed", _KEPT), ("skipped", _LACKS), ("failed", _BROKEN), ("error", _BROKEN)):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == "promise" and (report.when == "call" or outcome != "passed"):
                    whose, backend, subject = value
                    row = tables[whose].setdefault(subject, {})
                    row[backend] = mark if row.get(backend) != _BROKEN else _BROKEN
    for whose, table in tables.items():
        if table:
            _print(terminalreporter, whose, table)


def _print(terminalreporter: Any, title: str, table: dict[str, dict[str, str]]) -> None:
    backends = sorted({backend for row in table.values() for backend in row})
    width = max(len(subject) for subject in table)
    terminalreporter.section(title)
    terminalreporter.line(" " * width + "".join(f"  {backend:>12}" for backend in backends))
    for subject, row in table.items():
        terminalreporter.line(f"{subject:<{width}}" + "".join(f"  {row.get(each, '-'):>12}" for each in backends))
    totals = {each: sum(row.get(each) == _KEPT for row in table.values()) for each in backends}
    terminalreporter.line(f"{'kept':<{width}}" + "".join(f"  {totals[each]:>12}" for each in backends))
