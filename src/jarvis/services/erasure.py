"""Erasing: in a transaction of its own, then out of the files, then a search of the files for traces."""

from __future__ import annotations

from datetime import datetime

from jarvis.backend_registry import ask
from jarvis.capabilities import Erases
from jarvis.model.author import Author
from jarvis.model.entry import NO_MODULE
from jarvis.model.erasure import MOST_SEARCHED, UNREACHABLE, ErasureReceipt
from jarvis.model.query import MemoryQuery
from jarvis.services.changing import Changes, sign
from jarvis.storage_backend import StorageBackend


def erase(
    backend: StorageBackend, which: str | MemoryQuery | None, author: Author, change_apart: Changes
) -> ErasureReceipt:
    """Erase the entry with an id, the entries that match a query, or, for None, the namespace; return the receipt.

    Raises:
        UnsupportedError: the backend has no erasure, or no transactions.
    """
    store = ask(backend, Erases)

    def work(moment: datetime) -> tuple[datetime, tuple[str, ...], dict[str, int]]:
        sign(backend, author, "erase")
        return moment, *store.erase(which)

    moment, ids, removed = change_apart(work)
    asked = (which,) if isinstance(which, str) else ()
    searched = store.finish_erasing(ids[:MOST_SEARCHED] or asked)
    import logging  # 8 ms to import, which most sessions never need

    logging.getLogger("jarvis.memory").info("erased %d memories, by %s", len(ids), author.module or NO_MODULE)
    return ErasureReceipt(
        moment=moment,
        memories=len(ids),
        removed=removed,
        state="pending" if searched is None else "done",
        searched=searched,
        unreachable=UNREACHABLE if searched is None else searched.unreachable,
    )


def clear(backend: StorageBackend, author: Author, change_apart: Changes) -> int:
    """Erase the whole namespace; return how many entries it had.

    Raises:
        UnsupportedError: the backend has no erasure, or no transactions.
    """
    store = ask(backend, Erases)

    def work(_: datetime) -> int:
        count = backend.count(MemoryQuery())
        sign(backend, author, "erase")
        store.erase(None)
        return count

    count = change_apart(work)
    store.finish_erasing(())
    return count
