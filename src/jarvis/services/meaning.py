"""Searches memories by what they mean: a model makes vectors of them, behind their writes, and one of a question.

Backends with the capability `KeepsVectors` store them. For others they are in memory, and end with the process.

Whatever the model does, memories are found by their words, and a write neither waits for it nor fails with it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis._calls.arguments import plain_text
from jarvis.capabilities import FeedsChanges, KeepsVectors, Transfers
from jarvis.errors import (
    EmbedderError,
    InvalidSettingError,
    JarvisError,
    StoreAccessError,
    TransactionError,
    UnsupportedError,
)
from jarvis.model.categories import SPEAKER, TURNS, key_of_turn, place_of_turn
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.vectors import Embedder
from jarvis.services.embedders import (
    check_numpy,
    checked_embedder,
    installed_embedders,
    named_embedder,
    vectors_of,
    vectors_of_texts,
)
from jarvis.services.volatile_vectors import VolatileVectors
from jarvis.services.words import analyser_of
from jarvis.storage_backend import StorageBackend
from jarvis.text.document import meaning_of, without_names

if TYPE_CHECKING:
    from jarvis.model.rewriting import Progress
    from jarvis.search.vectors import Nearest, Question

_Made = TypeVar("_Made")

OFF = "off"
_AT_ONCE, _NEAREST, _LOOKED_AT = 64, 100, 2_000
"""How many memories are embedded at once; how many of the nearest are candidates, and of how many at most, where a
filter leaves some out."""

_MOST_IN_MEMORY = 100_000
"""Of how many memories the vectors stay in memory, those of the namespace that was asked last aside."""

_BEFORE = (1, 2)
_LEAST = 0.25
"""If no memory is so similar to a question, none is a candidate by its meaning: any two texts are somewhat similar."""

_PAUSE_SECONDS = 60.0
"""How long a model that failed is left alone."""

_PATIENCE_SECONDS = 5.0
"""How long the end of a background run waits for its model."""

log = logging.getLogger("jarvis.search")


class _Run:
    """Something that makes vectors, and may be ended by another thread.

    Attributes:
        is_ending: it ends after its step.
    """

    def __init__(self) -> None:
        self.is_ending, self._is_over, self._using = False, False, threading.Lock()

    def do(self, use: Callable[[], _Made]) -> _Made | None:
        """Let a step use the store; no-op that returns None if the run is over."""
        with self._using:
            return None if self._is_over else use()

    def end(self) -> None:
        """Keep it from the store from here on; wait while it uses that, but not for a model."""
        self.is_ending = True
        with self._using:
            self._is_over = True


class Meaning:
    """Finds memories by vectors, in every namespace of a store; of a memory and its siblings.

    Attributes:
        process: the one that made it; a forked one makes its own.

    Args:
        embedder: the model; a name; ``"off"`` for none; None for the installed one that made the vectors, if there are
            any.
    """

    def __init__(self, embedder: Embedder | str | None) -> None:
        name = plain_text(embedder)
        if name is not None and name != OFF:
            embedder = named_embedder(name)
        elif embedder is not None and name is None:
            embedder = checked_embedder(embedder)
        self._given: Embedder | str | None = embedder
        self.process = os.getpid()
        self._found: Embedder | None = None
        self._nearest: dict[str, Nearest] = {}
        self._choosing = threading.Lock()
        self._volatile: dict[str, VolatileVectors] = {}
        self._again_at = 0.0
        self._indexing: threading.Thread | None = None
        self._run = _Run()  # of that thread

    # --- the search ------------------------------------------------------------------------------

    def asked(self, backend: StorageBackend, text: str, names: Collection[str]) -> Asked | None:
        """Return a question as vector; None if the store has no vectors, or none of this model, or it fails.

        The latter is logged, and then the model is left alone for a while.

        Args:
            backend: of the namespace that is searched.
            names: the names in it, which the model does not get.
        """
        if self._given == OFF or time.monotonic() < self._again_at:
            return None
        store = self._store(backend)
        try:
            if not store.count_vectors(None, most=1):  # looked at first: it costs less than to find a model
                return None
            embedder = self._needed([store])
            if not store.count_vectors(embedder.name, most=1):
                raise UnsupportedError(
                    f"the vectors are of another embedder than {embedder.name!r}: call memory.store.index_pending()"
                )
            stripped = _of_whole_signs(without_names(text, names, analyser_of(backend)))
            (vector,) = vectors_of(embedder, lambda: [embedder.embed_query(stripped)], 1)
        except (EmbedderError, UnsupportedError) as error:
            self._again_at = time.monotonic() + _PAUSE_SECONDS
            log.warning("memories are found by their words alone for a while: %s", error)
            return None
        from jarvis.search.vectors import Question

        return Asked(backend, store, self._nearest_of(backend.namespace, embedder), Question(vector))

    def _nearest_of(self, namespace: str, embedder: Embedder) -> Nearest:
        """Return the vectors of a namespace in memory, and drop those of the namespaces asked for longest ago, if
        there are too many.
        """
        from jarvis.search.vectors import Nearest

        with self._choosing:
            nearest = self._nearest.pop(namespace, None)
            if nearest is None or nearest.model != embedder.name:
                nearest = Nearest(embedder.name, embedder.dim)
            self._nearest[namespace] = nearest  # the last one
            size = sum(map(len, self._nearest.values()))
            for other in list(self._nearest)[:-1]:
                if size <= _MOST_IN_MEMORY:
                    break
                size -= len(self._nearest.pop(other))
        return nearest

    def _store(self, backend: StorageBackend) -> KeepsVectors:
        """Return what keeps the vectors of a namespace: its backend, or this process."""
        if backend.has_capability(KeepsVectors):
            return backend.capability(KeepsVectors)
        return self._volatile.setdefault(backend.namespace, VolatileVectors(backend))

    def _embedder(self, stores: Iterable[KeepsVectors]) -> Embedder | None:
        """Return the given embedder; else an installed one, if possible one that made vectors of these stores."""
        if self._given is not None and not isinstance(self._given, str):
            return self._given
        if self._found is None:
            several = installed_embedders()
            some = list(stores) if len(several) > 1 else ()
            made = (each for each in several if any(store.count_vectors(each.name, most=1) for store in some))
            self._found = next(made, several[0] if several else None)
        return self._found

    # --- the index -------------------------------------------------------------------------------

    def index(self, backend: StorageBackend, progress: Progress | None) -> int:
        """Make the vectors that memories lack, in every namespace; return how many.

        Raises:
            UnsupportedError: no model is installed, or the backend tells no order of changes.
            InvalidSettingError: the embedder is switched off.
            EmbedderError: the model failed. What was done stays.
        """
        return self._index(backend, _Run(), progress)

    def _index(self, backend: StorageBackend, run: _Run, progress: Progress | None) -> int:
        def planned() -> tuple[Embedder, list[StorageBackend], int]:
            embedder, spaces = self._needed(self._stores(backend)), self._spaces(backend)
            counts = [(each.count(MemoryQuery()), self._store(each).count_vectors(embedder.name)) for each in spaces]
            return embedder, spaces, sum(max(0, memories - vectors) for memories, vectors in counts)

        plan, done = run.do(planned), 0
        if plan is None:
            return 0
        embedder, spaces, total = plan
        for space in spaces:
            for count in self._steps(space, embedder, run):
                done += count
                if progress is not None:
                    progress(done, max(done, total))
                if run.is_ending:
                    return done
        self._again_at = 0.0
        return done

    def index_behind(self, backend: StorageBackend) -> None:
        """Do the same in a thread; no-op if one is at it. A model that fails is logged.

        Raises:
            UnsupportedError, InvalidSettingError: as for `index`.
        """
        self._needed(self._stores(backend))
        if self._indexing is None or not self._indexing.is_alive():
            self._run = _Run()
            given = backend, self._run
            self._indexing = threading.Thread(target=self._index_all, args=given, name="jarvis-embedder", daemon=True)
            self._indexing.start()

    def stop(self) -> bool:
        """End the thread after its current step, and wait for that; return whether there was one.

        A model that takes longer than `_PATIENCE_SECONDS` is not waited for: what it returns is not stored.
        """
        thread, self._indexing = self._indexing, None
        if thread is None or not thread.is_alive():
            return False
        self._run.is_ending = True
        thread.join(_PATIENCE_SECONDS)
        self._run.end()
        return True

    def _index_all(self, backend: StorageBackend, run: _Run) -> None:
        try:
            self._index(backend, run, None)
        except JarvisError as error:
            log.warning("not all memories have vectors: %s: %s", type(error).__name__, error)

    def _spaces(self, backend: StorageBackend) -> list[StorageBackend]:
        """Return the backends of all namespaces; of a role that may not see all, the one of its memory."""
        if not backend.has_capability(Transfers):
            return [backend]
        try:
            names = backend.capability(Transfers).all_namespaces()
        except StoreAccessError:
            return [backend]
        return [backend.bind(namespace=name) for name in names]

    def _stores(self, backend: StorageBackend) -> Iterator[KeepsVectors]:
        yield from map(self._store, self._spaces(backend))  # reads nothing before it is iterated

    def _needed(self, stores: Iterable[KeepsVectors]) -> Embedder:
        if self._given == OFF:
            raise InvalidSettingError("embedder: it is 'off' here; leave it out, or name one")
        embedder = self._embedder(stores)
        if embedder is None:
            raise UnsupportedError(
                "no embedder is installed: pip install 'jarvis-memory[minilm]', or give one in embedder="
            )
        check_numpy()
        return embedder

    def _steps(self, space: StorageBackend, embedder: Embedder, run: _Run) -> Iterator[int]:
        """Make the vectors that a namespace lacks; yield how many, after each step."""
        from jarvis.search.vectors import coded

        store, words = self._store(space), analyser_of(space)
        after: int | None = None

        def pending() -> tuple[list[int], list[str]]:
            entries = store.pending(embedder.name, after, _AT_ONCE)
            others = _others(space, entries)
            texts = [_of_whole_signs(meaning_of(entry, words, others.get(entry.id, ()))) for entry in entries]
            return [_change(entry) for entry in entries], texts

        while step := run.do(pending):
            changes, texts = step
            if not changes:
                return
            vectors = vectors_of_texts(embedder, texts)
            made = run.do(lambda: store.put_vectors(embedder.name, coded(vectors, changes)))  # noqa: B023  called here
            if made is None:
                return
            yield made
            after = changes[-1]


class Asked:
    """A question as vector, put to one namespace."""

    def __init__(self, backend: StorageBackend, store: KeepsVectors, nearest: Nearest, question: Question) -> None:
        self._backend, self._store, self._nearest, self._question = backend, store, nearest, question

    def candidates(self, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the memories that match a query and mean most nearly what the question means.

        If too few of the nearest match a query, the newest that match are compared, too.
        """
        found = self._nearest.find(self._store, self._question, _NEAREST if query == MemoryQuery() else _LOOKED_AT)
        if max(found.values(), default=0.0) < _LEAST:
            return []
        entries = {_change(entry): entry for entry in self._store.entries_at(list(found))}
        gone = [change for change in found if change not in entries]
        if gone and not _in_transaction(self._backend):  # which may be taken back
            self._nearest.forget(gone)
        matching = {change: entry for change, entry in entries.items() if query.matches(entry)}
        if len(matching) < _NEAREST and len(self._nearest) > len(found) and query != MemoryQuery():
            few = self._backend.select(msgspec.structs.replace(query, limit=_LOOKED_AT))
            similar, changes = self.similarities(few), {entry.id: _change(entry) for entry in few}
            found |= {changes[entry_id]: similarity for entry_id, similarity in similar.items()}
            matching |= {_change(entry): entry for entry in few if entry.id in similar}
        return [matching[change] for change in sorted(matching, key=lambda each: (-found[each], -each))[:_NEAREST]]

    def similarities(self, entries: Sequence[MemoryEntry]) -> dict[str, float]:
        """Return how similar memories are to the question, by their ids; of those that have a vector."""
        ids = {_change(entry): entry.id for entry in entries}
        found = self._nearest.similarities(self._store, self._question, list(ids))
        return {ids[change]: similarity for change, similarity in found.items()}


def _others(space: StorageBackend, entries: Sequence[MemoryEntry]) -> dict[str, list[str]]:
    """Return the speakers of the two turns before each turn, by its id."""
    places = {entry.id: place for entry in entries if (place := place_of_turn(entry)) is not None}
    before = {
        entry_id: [key_of_turn(session, position - step) for step in _BEFORE if position > step]
        for entry_id, (session, position) in places.items()
    }
    keys = sorted({key for several in before.values() for key in several})
    speakers = (
        {turn.key: turn.value.get(SPEAKER) for turn in space.select(MemoryQuery(category=TURNS, keys=keys))}
        if keys
        else {}
    )
    return {
        entry_id: [speaker for key in several if isinstance(speaker := speakers.get(key), str)]
        for entry_id, several in before.items()
    }


def _of_whole_signs(text: str) -> str:
    """Return a text with a mark in place of each half of a surrogate pair: tokenizers refuse a text that has one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _in_transaction(backend: StorageBackend) -> bool:
    if not backend.has_capability(FeedsChanges):
        return False
    try:
        backend.capability(FeedsChanges).own_position()
    except TransactionError:
        return False
    return True


def _change(entry: MemoryEntry) -> int:
    return entry.position[1] if entry.position else -1
