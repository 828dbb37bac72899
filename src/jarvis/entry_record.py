"""What is stored of an entry: now in `jarvis.model.record`; this name goes with the next release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis.model.former import former_names

if TYPE_CHECKING:
    from jarvis.model.record import *  # noqa: F403 - whatever is there has the name here, too

__getattr__ = former_names(__name__, "jarvis.model.record")
