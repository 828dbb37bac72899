"""Tells how many bytes the file of a JSON store takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis.model.analytics import Sizes

if TYPE_CHECKING:
    from jarvis._json.store import Store


def sizes(store: Store) -> Sizes:
    """Return how many bytes the file takes."""
    store.seen()
    with files.explaining(store.file_path, "look at its size"):
        return Sizes(store_bytes=os.stat(store.file_path).st_size)
