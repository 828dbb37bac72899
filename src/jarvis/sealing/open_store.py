"""`OpenStore`: what all handles of one store in this process share, until the store gets other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis.capabilities import Namespaced
from jarvis.sealing.sealer import Sealer, sealed_namespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from jarvis.model.key_place import KeyPlace
    from jarvis.model.options import KeySource
    from jarvis.sealing.keys import Keys
    from jarvis.storage_backend import StorageBackend


class OpenStore:
    """A store as all its handles in this process have it open.

    Attributes:
        opening: the backend, and the keys that open it, which are replaced when the store is opened again. A handle of
            the backend is bound to the keys: it is refused when the store has others.
    """

    def __init__(self, opening: tuple[StorageBackend, Keys]) -> None:
        self.opening = opening

    def at(self, namespace: str, clock: Callable[[], datetime] | None) -> tuple[Sealer | None, StorageBackend]:
        """Return the sealer of a namespace, None if the store is plain, and the handle of the backend on it.

        The first call opens the store; it raises as `Keys.opened` does.
        """
        base, keys = self.opening
        seal, name = keys.opened(place_of_keys(base)), namespace
        if seal is not None and base.has_capability(Namespaced):
            name = sealed_namespace(seal, namespace)
        bound = base.bind(namespace=name, clock=clock)
        if hasattr(bound, "expecting"):
            bound = bound.expecting(keys.identity(place_of_keys(base)))
        if seal is None:
            return None, bound
        return Sealer(seal, namespace, keys.path), getattr(bound, "unindexed", lambda: bound)()

    def open_again(self, *sources: KeySource) -> None:
        """Have the next call open the store as it is then, also with these sources."""
        base, keys = self.opening
        if hasattr(base, "expecting"):
            self.opening = base, keys.again(*sources)


def place_of_keys(base: StorageBackend) -> KeyPlace:
    """Return where a backend keeps the keys of its store; it was asked at construction whether it does."""
    backend: Any = base
    place: KeyPlace = backend.key_place
    return place
