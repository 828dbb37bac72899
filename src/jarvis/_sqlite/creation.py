"""The column `created` of stores of earlier versions, which lack it: computed, and filled in by a migration."""

from __future__ import annotations

from typing import Any

import apsw

from jarvis.model.record import creation_of, decode_body

COMPUTED = "creation_of(body, instant)"
"""What the column holds, on a connection that was told by `tell`."""

FILL = f"UPDATE {{}} SET created = {COMPUTED} WHERE {COMPUTED} IS NOT NULL;"
"""The statement that fills in the column of a table."""


def tell(connection: apsw.Connection) -> None:
    """Let the statements of a connection use `COMPUTED`."""

    def created(*state: Any) -> int | None:
        body, instant = state
        try:
            return creation_of(decode_body(body).provenance, instant)
        except ValueError:  # damage, which is found when the entry is read
            return None

    connection.create_scalar_function("creation_of", created, 2, deterministic=True)
