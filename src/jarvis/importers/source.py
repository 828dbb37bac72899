"""What an importer reads of a source, and what is reported of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

_FIRST = datetime.fromtimestamp(0, UTC)


class OtherKindError(Exception):
    """The source is of another kind; the message says by what that is seen, and quotes nothing."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A memory of a source.

    Attributes:
        place: where it stands there, for reports.
        category, key: the same in each run: they tell whether the memory is here already.
        timestamp: when it was last changed; None: nobody knows. One that is not `plausible` is left out.
        created_at: when it was created, at the latest at the `timestamp`.
    """

    place: str
    category: str
    key: str
    value: dict[str, Any]
    entity_type: str
    entity_id: str | None = None
    tags: Sequence[str] = ()
    timestamp: datetime | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        created, changed = plausible(self.created_at), plausible(self.timestamp)
        if changed is None or (created is not None and created > changed):
            changed = created
        msgspec.structs.force_setattr(self, "created_at", created)
        msgspec.structs.force_setattr(self, "timestamp", changed)


class Unmapped(msgspec.Struct, frozen=True):
    """A part of a source that was not stored.

    Attributes:
        place: the file and, if there is one, the line or row.
        reason: why not.
    """

    place: str
    reason: str


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What was imported from a source, or would be in a dry run.

    Attributes:
        kind: of the source.
        created: memories that were not here.
        updated: memories that were here, and are now as in the source.
        unchanged: memories that were here as in the source.
        unmapped: what was not stored.
    """

    kind: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    unmapped: tuple[Unmapped, ...] = ()


class Importer(Protocol):
    """Reads sources of one kind. A module can be one."""

    def looks_like(self, path: Path, /) -> bool:
        """Tell, at a glance, whether a file or directory is such a source; False if there is none."""

    def read(self, path: Path, /) -> Iterator[Item | Unmapped]:
        """Yield the memories of a source, and what of it is none.

        Raises:
            OtherKindError: it is of another kind.
            OSError: it cannot be read.
        """


def beginning(path: Path, size: int = 65_536) -> bytes:
    """Return the first bytes of a file; none if it is no file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(size)


def plausible(moment: datetime | None) -> datetime | None:
    """Return a moment as an aware one (naive means local time), None if it is not between 1970 and now."""
    try:
        aware = moment if moment is None or moment.tzinfo is not None else moment.astimezone()
        return aware if aware is not None and _FIRST <= aware <= datetime.now(UTC) else None
    except (OverflowError, ValueError, OSError):
        return None
