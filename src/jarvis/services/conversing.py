"""Exchanges and executions of a backend: stores them in the caller's change, and reads them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from jarvis._calls.arguments import own_code
from jarvis.conversations.exchanges import as_text, exchange_of, exchange_of_first_life, links_of, run_ids_in
from jarvis.conversations.executions import (
    MOST_LINKED,
    Draft,
    draft_of,
    drafts_of,
    execution_of,
    key_of_execution,
    metadata_of,
    run_ids_of,
)
from jarvis.errors import InvalidEntryError
from jarvis.model.categories import POSITION, SESSION, TURNS, key_of_turn
from jarvis.model.conversation import (
    ASSISTANT,
    CONVERSATION,
    CONVERSATIONS,
    EXECUTION,
    EXECUTIONS,
    LINKS,
    METADATA,
    REPLY_TO,
    RUN_IDS,
    USER,
    Exchange,
    Execution,
)
from jarvis.model.dating import times_of_import
from jarvis.model.entry import MemoryEntry, check_name
from jarvis.model.query import MemoryQuery
from jarvis.model.recalled import Recalled
from jarvis.services.turns import next_position, value_of
from jarvis.storage_backend import StorageBackend

_MOST_READ = MOST_LINKED
"""How many ids or keys are read at once."""

_IS_EXCHANGE = {"user_message": {"$exists": True}}
"""Is so of an exchange of the first life, and not of a whole conversation that was imported."""

_AS_GOOD = 0.75
"""How good the score of an execution must be, as a share of the best score, so that its files are meant, too."""


Create = Callable[[str, str, dict[str, Any], str, str, list[str], "Times"], str]
"""Stores a memory of this category, key, value, entity (type and id), these tags and times; returns its id."""

Times = tuple[datetime | None, datetime] | None


class NewExchange(NamedTuple):
    """An exchange that is to be stored: all of it checked and ready before any lock is taken."""

    said: dict[str, Any]
    answered: dict[str, Any]
    drafts: list[Draft]
    session_id: str
    tags: list[str]
    times: Times

    def store(self, backend: StorageBackend, create: Create, now: datetime) -> str:
        """Store it after the last turn of its session; return the id of the answer."""
        position = next_position(backend, self.session_id)
        links = self._executions(backend, create, now)
        said = self._turn(backend, create, self.said, position)
        answered = {**self.answered, REPLY_TO: said, **({LINKS: links} if links else {})}
        return self._turn(backend, create, answered, position + 1)

    def _turn(self, backend: StorageBackend, create: Create, value: dict[str, Any], position: int) -> str:
        placed = backend.prepare({**value, POSITION: position})
        key = key_of_turn(self.session_id, position)
        return create(TURNS, key, placed, SESSION, self.session_id, self.tags, self.times)

    def _executions(self, backend: StorageBackend, create: Create, now: datetime) -> list[str]:
        """Store the executions that are not there yet; return the ids of the memories of all."""
        known = _by_keys(backend, [draft.key for draft in self.drafts])
        ids = {}
        for draft in self.drafts:
            entry = known.get(draft.key)
            if entry is None and draft.key not in ids:
                times = self.times if draft.timestamp is None else times_of_import(draft.timestamp, None, now)
                entity = (EXECUTION, draft.execution_id)
                ids[draft.key] = create(EXECUTIONS, draft.key, draft.value, *entity, draft.tags, times)
            elif entry is not None:
                ids[draft.key] = entry.id
        return list(ids.values())


def new_exchange(
    backend: StorageBackend,
    user_message: str,
    assistant_response: str,
    history: object,
    run_ids: object,
    metadata: object,
    session_id: str,
    tags: list[str],
    times: Times,
) -> NewExchange:
    """Return an exchange of what a caller gives; raise `InvalidEntryError` if a part cannot be stored."""
    said, answered = value_of(USER, user_message, None), value_of(ASSISTANT, assistant_response, None)
    more = {RUN_IDS: run_ids_of(run_ids), METADATA: metadata_of(metadata)}
    answered |= {name: part for name, part in more.items() if part}
    backend.prepare(answered)  # which refuses it if it cannot be stored; the transaction adds to it
    drafts = [draft._replace(value=backend.prepare(draft.value)) for draft in drafts_of(history)]
    return NewExchange(said, answered, drafts, check_name("session_id", session_id), tags, times)


def new_execution(backend: StorageBackend, given: Mapping[str, Any]) -> Draft:
    """Return an execution of what a caller gives; raise `InvalidEntryError` if a field cannot be stored."""
    with own_code(InvalidEntryError, "execution"):
        draft = draft_of(given)
    return draft._replace(value=backend.prepare(draft.value))


def executions_of(
    backend: StorageBackend,
    limit: int | None,
    hidden: tuple[str, ...] | None,
    *,
    tag: str | None = None,
    successful_only: bool = False,
) -> list[Execution]:
    """Return executions, the newest first."""
    query = MemoryQuery(
        category=EXECUTIONS,
        entity_type=EXECUTION,
        tags=None if tag is None else [tag],
        where={"success": True} if successful_only else None,
        limit=limit,
        exclude_tags=hidden,
    )
    return [execution_of(entry) for entry in backend.select(query)]


def exchanges_of(
    backend: StorageBackend, limit: int | None, session_id: str | None, hidden: tuple[str, ...] | None
) -> list[Exchange]:
    """Return the exchanges of a conversation, or of all, the newest first; also those that the first life stored."""
    replies = MemoryQuery(
        category=TURNS,
        entity_type=SESSION,
        entity_id=session_id,
        where={REPLY_TO: {"$exists": True}},
        limit=limit,
        exclude_tags=hidden,
    )
    former = MemoryQuery(
        category=CONVERSATIONS,
        entity_type=CONVERSATION,
        where=_IS_EXCHANGE if session_id is None else {**_IS_EXCHANGE, "session_id": session_id},
        limit=limit,
        exclude_tags=hidden,
    )
    entries = [*backend.select(replies), *backend.select(former)]
    newest = sorted(entries, key=lambda entry: entry.order, reverse=True)[:limit]
    turns = [entry for entry in newest if entry.category == TURNS]
    by_id = _by_ids(backend, [link for entry in turns for link in links_of(entry)])
    named = [each for entry in turns for each in run_ids_in(entry) if each not in by_id]
    by_key = _by_keys(backend, list(map(key_of_execution, named)))
    return [
        exchange_of(entry, by_id, by_key) if entry.category == TURNS else exchange_of_first_life(entry)
        for entry in newest
    ]


def text_of(newest_first: Sequence[Exchange]) -> str:
    """Return exchanges as text, the oldest first."""
    return as_text(reversed(newest_first))


def files_of(executions: Sequence[Execution]) -> list[str]:
    """Return the files of some executions, each once."""
    return list(dict.fromkeys(path for each in executions for path in each.file_locations))


def executions_in(found: Sequence[Recalled]) -> list[Execution]:
    """Return the executions that were found."""
    return [execution_of(each.entry) for each in found]


def best_of(found: Sequence[Recalled]) -> list[Execution]:
    """Return the executions that answer a question nearly as well as the best."""
    return executions_in([each for each in found if each.score >= _AS_GOOD * found[0].score])


def _by_ids(backend: StorageBackend, ids: Sequence[str]) -> dict[str, MemoryEntry]:
    several = list(dict.fromkeys(ids))
    entries = [entry for start in range(0, len(several), _MOST_READ) for entry in _read(backend, several[start:])]
    return {entry.id: entry for entry in entries}


def _read(backend: StorageBackend, ids: Sequence[str]) -> list[MemoryEntry]:
    entries = backend.read_many(ids[:_MOST_READ])
    return [entry for entry in entries if entry.category in (TURNS, EXECUTIONS)]


def _by_keys(backend: StorageBackend, keys: Sequence[str]) -> dict[str, MemoryEntry]:
    """Return the newest execution of each of these keys."""
    query = MemoryQuery(category=EXECUTIONS, entity_type=EXECUTION)
    several = list(dict.fromkeys(keys))
    entries: list[MemoryEntry] = []
    for start in range(0, len(several), _MOST_READ):
        some = several[start : start + _MOST_READ]
        entries += backend.select(msgspec.structs.replace(query, keys=some))
    return {entry.key: entry for entry in reversed(entries)}
