"""Where the keys of a store lie: what a backend and its sealer ask of each other, and slots as callers see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from jarvis.model.policies import Histories
    from jarvis.model.rewriting import Rewording, RewriteProgress, Rewritten


class KeyPlace(Protocol):
    """Where a backend keeps the content of the file of keys: in its store, beside what is sealed.

    It may also have `rewrite` and `scrub`, see `Rewritable`.

    1. A store that is created gets what `Sealing.new_keys` returns, in the same step, and so at most once.
    2. Without `seal_with` the backend refuses a store that has keys.
    """

    @property
    def path(self) -> str:
        """The name of the place in messages."""

    def seal_with(self, sealing: Sealing) -> None:
        """Open the store from now on, whether it has keys or not."""

    def read(self) -> bytes | None:
        """Return the content, None if the store is plain; create the store if it is absent."""

    def replace(self, old: bytes, new: bytes) -> bool:
        """Put `new` in the place of `old`, durably; return whether that was still there."""


class Rewritable(KeyPlace, Protocol):
    """A `KeyPlace` whose store can get another data key, or none, in its place."""

    def rewrite(
        self,
        old: bytes | None,
        new: bytes | None,
        reword: Callable[[str], Rewording],
        progress: Callable[[RewriteProgress], None] | None,
    ) -> Rewritten:
        """Put `new` in the place of the keys `old`, and everything stored in the form that belongs to them, or nothing.

        Args:
            old: the keys that the store has; None if it is plain.
            new: the keys that it is to have.
            reword: returns the form of a namespace, whose stored name it is given.
            progress: is called again and again; if it raises, nothing is changed.

        Raises:
            StoreBusyError: the store has other keys than `old` by now, or others write to it for too long.
            StoreAccessError: the caller may not do this.
        """

    def scrub(self) -> None:
        """Remove what `rewrite` has replaced from the files.

        Raises:
            StoreBusyError: a reader still uses it.
        """


class Sealing(Protocol):
    """Seals the entries of a backend: what the backend asks of it."""

    def new_keys(self) -> bytes | None:
        """Return the keys of a store that is being created, None for a plain store."""

    def accept(self, keys: bytes | None) -> str:
        """Return what tells the data key of a store that is opened from others; `keys` is None for a plain store.

        Raises:
            WrongKeyError: it has other keys than when it was opened before.
        """

    def histories(self, namespace: str, usual: Histories) -> Histories:
        """Return how much of the past is kept in a namespace: `usual`, for the names that categories have there."""


class SlotInfo(NamedTuple):
    """A way to the key of a store, as `Store.key_slots` shows it.

    Attributes:
        id: what `Store.remove_key_slot` takes.
        source: ``"environment"``, ``"file"``, ``"keyring"``, ``"passphrase"`` or ``"function"``.
        hint: what finds the source again, such as the name of the variable; None for a passphrase.
    """

    id: int
    source: str
    hint: str | None
