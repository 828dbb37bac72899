"""Importers of what other programs remember: each reads one format, and the memories are written by `MemoryModule`.

A package adds a format with an entry point of the group `ENTRY_POINT_GROUP`: its name is the kind, its value a module
or an object with what `jarvis.importers.source.Importer` has.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jarvis.errors import InvalidEntryError, InvalidQueryError, InvalidSettingError, kind_of, nearest, translated
from jarvis.importers.source import Imported, Importer, Item, OtherKindError, Unmapped
from jarvis.model.options import checked
from jarvis.persistent_memory import MemoryModule

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "Imported", "Unmapped", "import_from", "known_kinds"]

ENTRY_POINT_GROUP = "jarvis.importers"

_BUILT_IN = {
    "chatgpt": "jarvis.importers.chatgpt",
    "langgraph": "jarvis.importers.langgraph",
    "markdown": "jarvis.importers.markdown",
    "mcp-memory": "jarvis.importers.mcp_memory",
    "mem0": "jarvis.importers.mem0",
}


class _DryRunError(Exception):
    """Takes a dry run back."""


def import_from(
    memory: MemoryModule,
    path: str | os.PathLike[str],
    kind: str | None = None,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Imported:
    """Store what another program remembers, in one transaction: all of it or, if this raises, nothing.

    Each memory has a category and a key that follow from its source, so a second run creates none again: it lets those
    that differ be as they are there. Original times are kept where the source has them. The source is only read. A
    memory that was made otherwise, and has such a category and key, is left alone.

    Args:
        memory: where to.
        path: of a file or directory.
        kind: of the source, see `known_kinds`; None: find out.
        dry_run: tell what would be done, and take it back.
        progress: is called with (done, total) after each memory.

    Returns:
        How many memories were created, updated or found unchanged, and what could not be stored, with the reasons.

    Raises:
        InvalidSettingError: `kind` is unknown, or the source is of no known kind or another one.
        StoreError: the source cannot be read, or the memory cannot be written.
        UnsupportedError: the backend has no transactions.

    >>> import tempfile; from pathlib import Path; from jarvis.importers import import_from
    >>> from jarvis.persistent_memory import MemoryModule
    >>> note = Path(tempfile.mkdtemp(), "CLAUDE.md")
    >>> _ = note.write_text("Use tabs.")
    >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
    >>> import_from(memory, note).created, import_from(memory, note).unchanged
    (1, 1)
    >>> memory.get_memory_by_key("CLAUDE.md").value["text"]
    'Use tabs.'
    """
    if not isinstance(memory, MemoryModule):
        raise InvalidSettingError(f"memory: takes a MemoryModule, not {kind_of(memory)}")
    if progress is not None and not callable(progress):
        raise InvalidSettingError(f"progress: takes a function, not {kind_of(progress)}")
    source: Path = checked("path", path)
    name, importer = _importer_of(source, kind)
    try:
        found = list(importer.read(source))  # before anything is written, and before others have to wait
    except OtherKindError as error:
        raise InvalidSettingError(f"{source}: is no source of the kind {name!r}: {error}; {_kinds()}") from None
    except OSError as error:
        raise translated(source, error, "read") from None
    items = [each for each in found if isinstance(each, Item)]
    unmapped = [each for each in found if isinstance(each, Unmapped)]
    done = Counter[str]()
    try:
        with memory.transaction():
            for number, item in enumerate(items, 1):
                try:
                    done[_put(memory, item, name)] += 1
                except (InvalidEntryError, InvalidQueryError) as error:
                    unmapped.append(Unmapped(item.place, str(error)))
                if progress is not None:
                    progress(number, len(items))
            if dry_run:
                raise _DryRunError
    except _DryRunError:
        pass
    return Imported(kind=name, unmapped=tuple(unmapped), **done)


def known_kinds() -> list[str]:
    """Return the kinds of sources that `import_from` takes, sorted.

    >>> {"chatgpt", "markdown"} <= set(known_kinds())
    True
    """
    return sorted({*_BUILT_IN, *(point.name for point in _entry_points())})


def _put(memory: MemoryModule, item: Item, kind: str) -> str:
    """Store an item; return what became of it: ``created``, ``updated`` or ``unchanged``.

    Raises:
        InvalidEntryError: it cannot be stored, or its place is taken by a memory that was not imported.
        InvalidQueryError: nothing can have its key.
    """
    entry = memory.get_memory_by_key(item.key, item.category)
    if entry is None:
        memory.create_memory(
            item.category,
            item.key,
            item.value,
            item.entity_type,
            item.entity_id,
            item.tags,
            module=kind,
            timestamp=item.timestamp,
            created_at=item.created_at,
            expires_at=item.expires_at,
        )
        return "created"
    if entry.provenance.get("module") != kind:
        raise InvalidEntryError("key", "is that of a memory that was not imported from such a source")
    is_of_another = (entry.entity_type, entry.entity_id) != (item.entity_type, item.entity_id)
    if is_of_another:
        memory.move_memory(entry.id, entity_type=item.entity_type, entity_id=item.entity_id, module=kind)
    if entry.value != item.value or entry.tags != list(item.tags):
        memory.update_memory(entry.id, item.value, item.tags, module=kind)
    elif not is_of_another:
        return "unchanged"
    return "updated"


def _importer_of(source: Path, kind: str | None) -> tuple[str, Importer]:
    points = {point.name: point for point in _entry_points() if point.name not in _BUILT_IN}
    if kind is None:
        try:
            for name in (*sorted(_BUILT_IN), *sorted(points)):
                importer = _loaded(name, points)
                if importer.looks_like(source):
                    return name, importer
            source.stat()
        except OSError as error:
            raise translated(source, error, "read") from None
        raise InvalidSettingError(f"{source}: is a source of no known kind; {_kinds()}")
    if type(kind) is not str:
        raise InvalidSettingError(f"kind: takes a text, not {kind_of(kind)}; {_kinds()}")
    if kind not in _BUILT_IN and kind not in points:
        raise InvalidSettingError(f"kind: there is no such importer; {_kinds()}{nearest(kind, known_kinds())}")
    return kind, _loaded(kind, points)


def _loaded(name: str, points: dict[str, EntryPoint]) -> Importer:
    if name in _BUILT_IN:
        return cast("Importer", import_module(_BUILT_IN[name]))
    try:
        return cast("Importer", points[name].load())
    except Exception as error:  # the import of somebody else's module may raise anything
        raise InvalidSettingError(f"kind: the importer {name!r} cannot be imported: {type(error).__name__}") from error


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # takes 20 ms, and looks at every installed package

    return entry_points(group=ENTRY_POINT_GROUP)


def _kinds() -> str:
    return f"known: {', '.join(known_kinds())}"
