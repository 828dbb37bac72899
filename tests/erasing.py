"""How the tests erase a namespace by the verbs of a backend."""

from __future__ import annotations

from typing import Any

from jarvis.model.query import MemoryQuery


def erase_namespace(backend: Any, namespace: str) -> int:
    """Erase all of a namespace in one transaction; return how many entries there were."""
    sibling = backend.bind(namespace=namespace)
    with sibling.transaction():
        there: int = sibling.count(MemoryQuery())
        sibling.erase(None)
        return there
