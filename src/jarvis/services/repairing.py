"""Finds out whether a store is sound, and brings what is left of a damaged one into a new one."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jarvis._disk.copies import place_for_directory
from jarvis.backend_registry import ask
from jarvis.capabilities import Salvages, SearchesText, Verifies
from jarvis.errors import DuplicateEntryError, InvalidEntryError, StoreAccessError, translated
from jarvis.model.portable import WholeMemory
from jarvis.model.rewriting import Progress
from jarvis.model.salvaged import LostMemory, RepairReport, Verification
from jarvis.services import transferring
from jarvis.services.bulk import without_collection
from jarvis.storage_backend import StorageBackend

_PATIENCE_SECONDS = 30.0
_AT_ONCE = 8_000
"""How many memories one transaction stores: fewer make more work, and nobody waits for the new store meanwhile."""


def verify(backend: StorageBackend, progress: Progress | None, *, index: bool = False) -> Verification:
    """Return what is wrong with a store; see `Store.verify`."""
    states = 0

    def looked_at() -> None:
        nonlocal states
        states += 1
        if progress is not None and states % transferring.AT_ONCE == 0:
            progress(states, max(states, total))

    store = ask(backend, Verifies)
    total = 0
    if progress is not None:  # else nothing is read before the findings, which tell of pages that cannot be
        total = transferring.count(transferring.handles(backend, transferring.namespaces_of(backend)))
    problems = dict(Counter(store.findings(looked_at)))
    if index:
        problems.update(Counter(ask(backend, SearchesText).index_findings(lambda: None)))
    if progress is not None:
        progress(states, states)
    return Verification(states=states, problems=problems)


def repair(backend: StorageBackend, to: Path, progress: Progress | None) -> RepairReport:
    """Make a store in the directory `to` of what is left of a damaged one; see `Store.repair`."""
    damaged = ask(backend, Salvages)
    _check_free(to)
    salvaged = damaged.salvage()
    memories = past = 0
    lost: set[LostMemory] = set()
    with place_for_directory(to, _PATIENCE_SECONDS) as part:
        _check_free(to)  # another process may have repaired into it meanwhile
        target: StorageBackend = damaged.empty_at(part)
        try:
            target.bootstrap()
            with without_collection():
                for name, group in itertools.groupby(salvaged.memories, lambda whole: whole.namespace):
                    (into,) = transferring.handles(target, [name])
                    while batch := list(itertools.islice(group, _AT_ONCE)):
                        stored = _put(into, batch)
                        if len(stored) < len(batch):
                            lost |= {LostMemory(name, each) for each in {whole.id for whole in batch} - stored}
                        memories += len(stored)
                        past += sum(len(whole.past) for whole in batch if whole.id in stored)
                        if progress is not None:
                            progress(memories, max(memories, salvaged.total))
            lost.update(salvaged.lost)
        except BaseException:
            with contextlib.suppress(Exception):
                target.shutdown()
            raise
        target.shutdown()
    return RepairReport(path=to, memories=memories, past_states=past, lost=tuple(sorted(lost)))


def _check_free(to: Path) -> None:
    """Raise `StoreAccessError` if there is something else than an empty directory."""
    try:
        if any(to.iterdir()):
            raise StoreAccessError(to, "is not empty: give a directory that is, or that is not there yet")
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise StoreAccessError(to, "is no directory") from None
    except StoreAccessError:
        raise
    except OSError as error:
        raise translated(to, error, "find the directory") from error


def _put(into: StorageBackend, batch: Sequence[WholeMemory]) -> set[str]:
    """Store memories as new ones; return the ids of those that could be stored."""
    try:
        transferring.put(into, batch, None)
    except (DuplicateEntryError, InvalidEntryError):
        half = len(batch) // 2
        return _put(into, batch[:half]) | _put(into, batch[half:]) if half else set()
    return {whole.id for whole in batch}
