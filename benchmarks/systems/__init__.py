"""The systems that are compared, each behind the same few verbs and in an environment of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from benchmarks.systems.system import System


class Description(NamedTuple):
    """What the tables call a system, where its adapter is, and what pip installs for it: nothing for our own."""

    title: str
    module: str
    packages: tuple[str, ...] = ()
    """What pip installs for it; ``.`` is this repository."""
    largest: int = 1_000_000
    """More entries than that it is not asked to hold: each of its calls would take seconds."""
    remark: str = ""
    """What a reader of its figures must know."""

    @property
    def environment(self) -> str:
        """The name of the environment that it runs in; systems of the same packages share one."""
        return "jarvis" if self.packages == (".",) else self.module


SYSTEMS = {
    "raw": Description("by hand", "raw"),
    "jarvis": Description("jarvis", "jarvis_sqlite", (".",)),
    "jarvis-history": Description("jarvis, history on", "jarvis_history", (".",)),
    "jarvis-json": Description("jarvis, JSON file", "jarvis_json", (".",), largest=1_000),
    "diskcache": Description(
        "diskcache",
        "on_diskcache",
        ("diskcache==5.6.3",),
        largest=10_000,
        remark="finds by key only, so that a list is a walk",
    ),
    "tinydb": Description(
        "TinyDB",
        "on_tinydb",
        ("tinydb==4.8.2",),
        largest=1_000,
        remark="reads its whole file for a call, but answers a search that is repeated from memory",
    ),
    "langgraph": Description(
        "LangGraph SqliteStore",
        "on_langgraph",
        ("langgraph-checkpoint-sqlite==3.1.2",),
        largest=10_000,
        remark="has lists that are newest first to the second only, and filters that look at each item",
    ),
}


def open_system(name: str, directory: Path, *, durable: bool) -> System:
    """Return the system called `name`, open on `directory`; needs its environment."""
    module = importlib.import_module(f"benchmarks.systems.{SYSTEMS[name].module}")
    opened: Any = module.open_in(directory, durable=durable)
    return opened  # type: ignore[no-any-return]  # every adapter's open_in returns a System
