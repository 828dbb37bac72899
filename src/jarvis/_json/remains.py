"""The files beside a JSON store that may hold its entries: copies of the first life's file, and leftovers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.files import explaining
from jarvis._disk.traces import Wanted, search_files
from jarvis.errors import StoreAccessError
from jarvis.model.erasure import MOST_SEARCHED

if TYPE_CHECKING:
    from collections.abc import Collection

    from jarvis.model.erasure import Search


def keep_copy(path: str, data: bytes) -> None:
    """Make sure that a file beside `path` holds exactly these bytes: an existing copy, or a new one."""
    for number in itertools.count(1):
        kept = f"{path}.first-life" + (f".{number}" if number > 1 else "")
        files.write_whole(kept, [data], beside=path, private=True, keep_existing=True, strict=True)
        with explaining(kept, "read"), contextlib.suppress(StoreAccessError):  # a link or a pipe is no copy
            if files.read_regular(kept) == data:
                return


def kept_copies(path: str) -> list[Path]:
    """Return the paths of the copies that `keep_copy` made."""
    store = Path(path)
    kept = re.compile(re.escape(store.name) + r"\.first-life(\.\d+)?")
    with explaining(path, "look for copies of the first life's file"):
        return sorted(each for each in store.parent.iterdir() if kept.fullmatch(each.name))


def remove_kept_copies(path: str) -> None:
    """Remove the copies that `keep_copy` made, durably. Call it under the writer lock only."""
    copies = kept_copies(path)
    with explaining(path, "remove the copies of the first life's file"):
        for each in copies:
            files.system.unlink(str(each))
        if copies:
            files.sync_directory(str(Path(path).parent))


def remove_leftovers(path: str) -> None:
    """Remove the temporary files of killed writers. Call it under the writer lock only."""
    with explaining(path, "remove the temporary files of killed writers"):
        files.remove_leftovers(path)


def search(path: str, ids: Collection[str]) -> Search:
    """Search every byte of the files that carry the store's name for `ids`; see `jarvis._disk.traces`."""
    directory, name = os.path.split(path)
    with explaining(path, "search the files"):
        ours = [
            os.path.join(directory, each)
            for each in sorted(os.listdir(directory))
            if each == name or each.startswith((f"{name}.", f".{name}."))
        ]
        return search_files(ours, Wanted(ids, MOST_SEARCHED))
