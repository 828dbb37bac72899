"""Finds the store in a directory, or the one whose file is named, whatever that is called; opens nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jarvis.backend_registry import open_backend
from jarvis.errors import InvalidSettingError, StoreAccessError, translated
from jarvis.model.store_options import StoreOptions
from jarvis.storage_backend import StorageBackend

_USUAL_FILES = ("memory.db", "memory.json")
_USUAL_ENDS = (".db", ".json")
_BESIDE = re.compile(r"\..*|.*(\.lock|\.keys|-wal|-shm|-journal|\.first-life(\.\d+)?)")
"""The names of files that lie beside a store, and are none."""


def backend_at(path: Path, options: StoreOptions) -> StorageBackend:
    """Return a backend of the store in a directory, or of the one whose file this is.

    If the store may be created, only one with a usual name is looked for in the directory, and else it gets that.

    Raises:
        StoreAccessError: the directory has several files that may be the store.
    """
    file = store_file(path, any_name=not options.create) or path / _USUAL_FILES[0]
    return open_backend("json" if _is_json(file) else "sqlite", file, options)


def store_file(path: Path, *, any_name: bool = True) -> Path | None:
    """Return the file of a store: `path` itself if it is one, else that in the directory; None if there is none."""
    if os.path.isfile(path):
        return path
    for name in _USUAL_FILES:
        if os.path.exists(path / name):
            return path / name
    try:
        there = sorted(path.iterdir()) if any_name else []
    except FileNotFoundError:
        return None
    except OSError as error:
        raise translated(path, error, "look for a store in the directory") from error
    stores = [each for each in there if os.path.isfile(each) and not _BESIDE.fullmatch(each.name)]
    if len(stores) > 1:
        stores = [each for each in stores if each.name.endswith(_USUAL_ENDS)] or stores
    if len(stores) > 1:
        named = ", ".join(each.name for each in stores[:5])
        raise StoreAccessError(path, f"has several files that may be the store ({named}); give the path of one of them")
    return stores[0] if stores else None


def no_place(argument: str, value: object) -> InvalidSettingError:
    """Return the error for an argument that names no store."""
    return InvalidSettingError(
        f"{argument}: takes a MemoryModule, an AsyncMemoryModule, the directory or the file of a store, or a URL, not "
        f"{type(value).__name__}"
    )


def _is_json(file: Path) -> bool:
    if file.suffix == ".json" or file.name in _USUAL_FILES:
        return file.suffix == ".json"
    try:
        with open(file, "rb") as opened:
            return opened.read(64).lstrip()[:1] == b"{"
    except OSError:  # the backend meets it as well
        return False
