"""An entry with a time in a zone that this machine does not know: the error names it, and it can be removed."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jarvis.conformance.fixtures import an_entry
from jarvis.errors import StoreAccessError
from jarvis.json_backend import JSONBackend
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sqlite_backend import SQLiteBackend


def elsewhere() -> ZoneInfo:
    """Return a zone that another machine knows."""
    head = b"TZif" + bytes(16) + bytes(4 * 3) + bytes(4) + (1).to_bytes(4, "big") + (4).to_bytes(4, "big")
    with_one_offset = head + bytes(4) + b"\0" + b"\0" + b"MTC\0"

    return ZoneInfo.from_file(io.BytesIO(with_one_offset), key="Mars/Base")


@pytest.mark.parametrize("make", [SQLiteBackend, JSONBackend, PostgreSQLBackend])
@pytest.mark.parametrize("where_it_is", ["timestamp", "value"])
def test_the_error_names_the_entry_which_can_be_removed(
    tmp_path: Path, make: Any, where_it_is: str, request: pytest.FixtureRequest
) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=elsewhere())
    held: dict[str, Any] = {"timestamp": noon} if where_it_is == "timestamp" else {"value": {"at": [noon]}}
    backend = make(request.getfixturevalue("dsn") if make is PostgreSQLBackend else tmp_path / "store")
    backend.create(an_entry("known"))
    backend.create(an_entry("far", **held))
    backend.update(an_entry("far", **held))

    asks: list[Callable[[], object]] = [
        backend.list_all,
        lambda: backend.read("far"),
        lambda: backend.revisions("far"),
        lambda: list(backend.iterate(MemoryQuery())),
    ]
    if where_it_is == "value":
        asks.append(lambda: backend.count(MemoryQuery(where={"at": {"$contains": 1}})))
    for ask in asks:
        with pytest.raises(StoreAccessError, match=r"'far'.*'Mars/Base'.*tzdata.*delete or erase"):
            ask()
    assert backend.read("known") == an_entry("known")

    memory = MemoryModule(storage_backend=backend)
    assert memory.delete_memory("far") is True
    assert memory.list_memories() == [an_entry("known")]
    assert memory.erase_memory("far").memories == 1
    backend.shutdown()
