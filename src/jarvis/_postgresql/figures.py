"""Has a server look at its tables after a large fill: until it has figures of them, its plans rest on guesses.

Autovacuum does that by itself, but up to a minute later, and never for the parents of partitions.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jarvis._sql import registry
from jarvis.errors import StoreError

if TYPE_CHECKING:
    from jarvis._postgresql.connection import Connection

MANY = 1_000
"""The changes of a transaction from which on it is a large fill."""

_ARE_MISSING = """
SELECT reltuples < 0 AND pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class
WHERE oid = '{schema}.entries'::regclass
"""
_ANALYZE = f"ANALYZE {', '.join(f'{{schema}}.{table.name}' for table in registry.tables())}"


def learn(driver: Connection) -> None:
    """Have the server look at the tables, unless it has before, or the role does not own them.

    What was committed before stays so if this fails, so a failure is no error: plans are worse for a minute.
    """
    with contextlib.suppress(StoreError):
        if driver.rows(driver.in_schema(_ARE_MISSING)) == [(True,)]:
            driver.rows(driver.in_schema(_ANALYZE))
