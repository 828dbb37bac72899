"""`Author`: who makes a change; a part of that is kept in the entry."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from jarvis.codec.instants import text_of
from jarvis.model.entry import NO_MODULE, NO_TASK, MemoryEntry
from jarvis.model.revision import Operation, Signature

RENEWED_AFTER = 3_600_000_000
"""How long, in microseconds, the timestamp of a memory stays if one author sets it to what it is already."""


class Author(NamedTuple):
    """The module that makes a change, the task it is for, and why; what is not known is None."""

    module: str | None
    task_id: str | None
    reason: str | None = None

    def signature(self, operation: Operation) -> Signature:
        """Return the signature of a change by this author."""
        return tuple.__new__(Signature, (operation, self.module, self.task_id, self.reason))  # no call, see Stamp.of

    def creates(self, moment: datetime) -> dict[str, str]:
        """Return the provenance of an entry that is created at `moment`."""
        made = {
            "module": self.module or NO_MODULE,
            "task_id": self.task_id or NO_TASK,
            "created_at": text_of(moment),
        }
        return made if self.reason is None else {**made, "reason": self.reason}

    def updates(self, entry: MemoryEntry, moment: datetime) -> None:
        """Give `entry` the timestamp and the provenance of an update at `moment`."""
        entry.timestamp = moment
        entry.provenance["updated_at"] = text_of(moment)
        if self.module:
            entry.provenance["updated_by"] = self.module
        if self.task_id:
            entry.provenance["updated_task_id"] = self.task_id

    def renews(self, provenance: Mapping[str, str], age: int) -> bool:
        """Tell whether setting an entry to what it is already, `age` microseconds after its timestamp, renews that."""
        said = provenance.get
        if self.module and self.module != said("updated_by", said("module")):
            return True
        if self.task_id and self.task_id != said("updated_task_id", said("task_id")):
            return True
        return abs(age) >= RENEWED_AFTER


def creator_in(provenance: Mapping[str, str]) -> Author:
    """Return who created an entry, as `Author.creates` wrote it into the provenance.

    >>> creator_in({"module": "unknown", "task_id": "t-1", "created_at": "2026-03-01"})
    Author(module=None, task_id='t-1', reason=None)
    """
    module, task_id = provenance.get("module"), provenance.get("task_id")
    return Author(
        None if module == NO_MODULE else module, None if task_id == NO_TASK else task_id, provenance.get("reason")
    )


NOBODY = Author(None, None)

acting: ContextVar[Mapping[int, Author]] = ContextVar("jarvis_authors", default=MappingProxyType({}))
"""Who acts in this thread or task, by module. All modules share it, for context variables are never freed."""
