"""The persistent memory of an AI assistant; start at `MemoryModule`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jarvis.persistent_memory import MemoryModule

    __version__: str

__all__ = ["MemoryModule", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing a submodule stays as cheap as before."""
    if name == "MemoryModule":
        from jarvis.persistent_memory import MemoryModule

        return MemoryModule
    if name == "__version__":
        from importlib.metadata import version  # 20 ms

        return version("jarvis-memory")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
