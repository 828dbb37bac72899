"""The systems that are compared, each behind the same few verbs and in an environment of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from benchmarks.systems.system import System


class Description(NamedTuple):
    """Where a system's adapter is, and what pip installs for it: nothing for the library itself."""

    module: str
    packages: tuple[str, ...] = ()
    largest: int = 1_000_000
    """More entries than that it is not asked to hold: each of its calls would take seconds."""


SYSTEMS = {
    "raw": Description("raw"),
    "jarvis": Description("jarvis_sqlite"),
    "jarvis-json": Description("jarvis_json", largest=1_000),
    "diskcache": Description("on_diskcache", ("diskcache==5.6.3",), largest=10_000),
    "tinydb": Description("on_tinydb", ("tinydb==4.8.2",), largest=1_000),
    "langgraph": Description("on_langgraph", ("langgraph-checkpoint-sqlite==3.1.2",), largest=10_000),
}


def open_system(name: str, directory: Path, *, durable: bool) -> System:
    """Return the system called `name`, open on `directory`; needs its environment."""
    module = importlib.import_module(f"benchmarks.systems.{SYSTEMS[name].module}")
    opened: Any = module.open_in(directory, durable=durable)
    return opened  # type: ignore[no-any-return]  # every adapter's open_in returns a System
