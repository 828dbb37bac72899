"""`MemoryEntry` and `MemoryQuery`: now in `jarvis.model`; this name goes with the next release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis.model.former import former_names

if TYPE_CHECKING:
    from jarvis.model.entry import *  # noqa: F403 - whatever is there has the name here, too
    from jarvis.model.query import *  # noqa: F403 - the same

__getattr__ = former_names(__name__, "jarvis.model.entry", "jarvis.model.query")
