from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def dsn() -> Iterator[str]:
    """An empty database of a PostgreSQL server."""
    from .postgresql import a_database

    with a_database() as dsn:
        yield dsn


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        action="store_true",
        default=False,
        help="run the safety tests with their full numbers and write tests/safety/soak-results.json",
    )
