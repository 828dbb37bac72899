"""What exports, imports and migrations report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

OnConflict = Literal["skip", "replace", "newer", "error"]
"""What an import does with a memory whose id has another memory here, or had one that was deleted."""


class DamagedLine(msgspec.Struct, frozen=True):
    """A line of an export that could not be read.

    Attributes:
        line: its number, from 1.
        problem: what is wrong; nothing of its content.
    """

    line: int
    problem: str


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was exported.

    Attributes:
        path: of the file.
        memories: how many, with those of which only a past is left.
        bytes: the size of the file.
        checksum: the digest of its content; equal stores have equal ones.
    """

    path: Path
    memories: int
    bytes: int
    checksum: str


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was imported, or, of a dry run, would be.

    Attributes:
        created: memories that were not here.
        replaced: memories that have the state of the file now, as a new version.
        unchanged: memories that were here as they are in the file.
        skipped: memories that were left as they are here.
        damaged: the lines that could not be read.
    """

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: int = 0
    damaged: tuple[DamagedLine, ...] = ()


class MigrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was migrated.

    Attributes:
        memories: how many the target has, with those of which only a past is left.
        resumed: how many of them were there from an earlier run.
        digest: of source and target, which are equal.
    """

    memories: int
    resumed: int
    digest: str
