"""How a store is written again, into a new file or in its tables: the form it gets, the progress and the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.portable import PortableEntry
    from jarvis.model.revision import Signature


class Rewording(Protocol):
    """Says what is stored of one namespace, and of all that is in it, in the form that its store is to have.

    It is given what is stored in the present form. It raises `jarvis.errors.StoreError` if that is damaged.

    Attributes:
        namespace: the name of the namespace.
    """

    namespace: str

    def text(self, kind: str, text: str) -> str:
        """Return a name; its kind is that of the field that has it, such as ``key`` or ``tag``."""

    def signature(self, signature: Signature) -> Signature:
        """Return who made a change."""

    def state(self, entry_id: str, state: PortableEntry) -> MemoryEntry:
        """Return one state of the entry that has this id in the present form."""


class RewriteProgress(NamedTuple):
    """The progress of rewriting a store.

    Attributes:
        stage: ``copy``, ``index``, ``catch up``, ``verify`` or ``swap``, in this order.
        done: the number of rows, indexes or noted changes of this stage that are done.
        total: the number of all that are known; writers may add some.
    """

    stage: str
    done: int
    total: int


class Rewritten(NamedTuple):
    """The result of rewriting a store. The rows of the new file were compared with those of the old one.

    Attributes:
        run: the name of the run.
        rows: the number of rows of each table when the new file took the store's place.
        digest: of all these rows, the same for equal rows in any order.
        rounds: how often changed rows were copied again.
        resumed: the number of rows that an interrupted earlier run had copied.
        locked_seconds: the longest time for which the writers' lock was held.
    """

    run: str
    rows: dict[str, int]
    digest: str
    rounds: int
    resumed: int
    locked_seconds: float


Progress = Callable[[int, int], object]
"""Is called with (states or pages looked at, all of them); both are equal in the last call."""


class Recompression(msgspec.Struct, frozen=True, kw_only=True):
    """The values that were stored again. All others were as the setting wants them, or would not become smaller.

    Attributes:
        entries: the number of memories of the present.
        past_states: the number of past states.
        bytes_before: the size of all these before.
        bytes_after: their size now.
    """

    entries: int
    past_states: int
    bytes_before: int
    bytes_after: int
