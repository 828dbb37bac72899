"""Backups in generations: one directory a backup, and the older ones thinned out by day and week."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from jarvis.backend_registry import ask
from jarvis.capabilities import BacksUp, MarksCursors
from jarvis.errors import InvalidSettingError, StoreAccessError, translated
from jarvis.model.rewriting import Progress
from jarvis.services.places import store_file
from jarvis.storage_backend import StorageBackend

_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
_FORMAT = "%Y-%m-%dT%H-%M-%SZ"
_OF_STORE = "store.txt"
_MOST = 10_000
_LONG = timedelta(days=1)  # no backup takes longer


class Kept(NamedTuple):
    """For how many days and weeks that have a backup the newest one is kept."""

    daily: int | None
    weekly: int | None

    def checked(self) -> Kept:
        """Return this; raise `InvalidSettingError` if a number is out of range."""
        for name, number in (("keep_daily", self.daily), ("keep_weekly", self.weekly)):
            if number is not None and (type(number) is not int or not 0 < number <= _MOST):
                raise InvalidSettingError(f"{name}: takes a number from 1 to {_MOST:,}")
        return self


def back_up_into(backend: StorageBackend, directory: Path, progress: Progress | None) -> Path:
    """Write a backup into a directory; return its path."""
    store = ask(backend, BacksUp)
    return store.back_up(directory) if progress is None else store.back_up(directory, progress)


def back_up(backend: StorageBackend, root: Path, now: datetime, policy: Kept, progress: Progress | None) -> Path:
    """Write a backup into a directory of its own below `root`, and remove those that the policy does not keep.

    Raises:
        InvalidSettingError: a number is out of range.
        StoreAccessError: `root` has the backups of another store, or a backup of this second.
    """
    policy.checked()
    _check_own(backend, root)
    directory = root / now.astimezone(UTC).strftime(_FORMAT)
    try:
        path = back_up_into(backend, directory, progress)
    except BaseException:
        with contextlib.suppress(OSError):  # if it is empty
            directory.rmdir()
        raise
    there = generations(root, path.name)
    # The clock may have been ahead at an earlier one: what was just made stays, whatever its name says.
    for name in {*there} - kept(there, policy.daily or 0, policy.weekly or 0) - {directory.name}:
        shutil.rmtree(root / name, ignore_errors=True)
    _remove_leftovers(root, path.name, now - _LONG)
    return path


def _remove_leftovers(root: Path, copy: str, before: datetime) -> None:
    """Remove what killed processes left of backups that they began before a moment: temporary files alone."""
    with contextlib.suppress(OSError):
        for each in root.iterdir():
            if _NAME.fullmatch(each.name) and each.name < before.astimezone(UTC).strftime(_FORMAT):
                content = [*each.iterdir()]
                if content and all(file.name.startswith(f".{copy}.") for file in content):
                    shutil.rmtree(each, ignore_errors=True)


def generations(root: Path, copy: str | None = None) -> list[str]:
    """Return the names of the backups below a directory, the newest first; none if it has none.

    `copy`, or the file of a store, is in each: a directory that has only a file of keys was left by a killed process.
    """
    with contextlib.suppress(OSError):
        found = (each for each in root.iterdir() if _NAME.fullmatch(each.name))
        return sorted((each.name for each in found if _has_store(each, copy)), reverse=True)
    return []


def _has_store(directory: Path, copy: str | None) -> bool:
    if copy is not None:
        return (directory / copy).exists()
    try:
        return store_file(directory) is not None
    except StoreAccessError:  # several, and who restores it is told so
        return True


def kept(names: Iterable[str], daily: int, weekly: int) -> set[str]:
    """Return those of some backups that are kept: the newest of all, and that of each of the last days and weeks.

    >>> sorted(kept(["2026-03-02T09-00-00Z", "2026-03-02T08-00-00Z", "2026-03-01T08-00-00Z"], 2, 1))
    ['2026-03-01T08-00-00Z', '2026-03-02T09-00-00Z']
    """
    days: dict[str, str] = {}
    weeks: dict[tuple[int, int], str] = {}
    ordered = sorted(names, reverse=True)
    for name in ordered:
        moment = datetime.strptime(name, _FORMAT).replace(tzinfo=UTC)
        days.setdefault(name[:10], name)
        weeks.setdefault(moment.isocalendar()[:2], name)
    return {*ordered[:1], *list(days.values())[:daily], *list(weeks.values())[:weekly]}


def _check_own(backend: StorageBackend, root: Path) -> None:
    """Note in `root` whose backups it has; raise `StoreAccessError` if they are another store's."""
    name = ask(backend, MarksCursors).newest_cursor().partition(".")[2]  # empty if it was never written to
    mark = root / _OF_STORE
    try:
        there = mark.read_text(errors="replace") if mark.exists() else ""
        if name and not there:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_whole(mark, name)
            there = name
    except OSError as error:
        raise translated(root, error, "use the directory for backups") from error
    if there != name:
        raise StoreAccessError(
            root, "has the backups of another store, or of this one before it was restored; give another directory"
        )


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
