"""Exchanges as memories, and the last ones as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jarvis.conversations.executions import execution_from, execution_of, key_of_execution
from jarvis.conversations.lines import in_one_line
from jarvis.model.categories import TEXT
from jarvis.model.conversation import LINKS, METADATA, REPLY_TO, RUN_IDS, Exchange, Execution
from jarvis.model.entry import MemoryEntry


def exchange_of(reply: MemoryEntry, by_id: Mapping[str, MemoryEntry], by_key: Mapping[str, MemoryEntry]) -> Exchange:
    """Return the exchange whose answer is `reply`, with the memories that it links to.

    Args:
        reply: the assistant's turn.
        by_id: the user's turn and the executions, as far as they are there.
        by_key: executions by their keys, for ids that are not those of memories.
    """
    said = by_id.get(str(reply.value.get(REPLY_TO)))
    run_ids = texts_in(reply.value.get(RUN_IDS))
    named = [by_id.get(each) or by_key.get(key_of_execution(each)) for each in run_ids]
    linked = [by_id.get(each) for each in texts_in(reply.value.get(LINKS))]
    executions = {entry.id: entry for entry in [*linked, *named] if entry is not None}
    return Exchange(
        turn_id=reply.id,
        timestamp=reply.timestamp,
        user_message="" if said is None else _text(said.value.get(TEXT)),
        assistant_response=_text(reply.value.get(TEXT)),
        execution_history=[execution_of(entry) for entry in executions.values()],
        context_tags=list(reply.tags),
        session_id=reply.entity_id,
        metadata=_dict(reply.value.get(METADATA)),
        execution_run_ids=run_ids,
    )


def exchange_of_first_life(entry: MemoryEntry) -> Exchange:
    """Return the exchange that the first life stored as one memory, with its executions inside."""
    value = entry.value
    history = value.get("execution_history")
    tags = value.get("context_tags")
    session = value.get("session_id")
    return Exchange(
        turn_id=entry.id,
        timestamp=entry.timestamp,
        user_message=_text(value.get("user_message")),
        assistant_response=_text(value.get("assistant_response")),
        execution_history=[_embedded(each, entry) for each in history if isinstance(each, dict)]
        if isinstance(history, list)
        else [],
        context_tags=texts_in(tags) if isinstance(tags, list) else list(entry.tags),
        session_id=session if isinstance(session, str) else None,
        metadata=_dict(value.get(METADATA)),
        execution_run_ids=texts_in(value.get(RUN_IDS)),
    )


def links_of(reply: MemoryEntry) -> list[str]:
    """Return the ids of the memories that an answer links to."""
    return [*texts_in([reply.value.get(REPLY_TO)]), *texts_in(reply.value.get(LINKS)), *run_ids_in(reply)]


def run_ids_in(reply: MemoryEntry) -> list[str]:
    """Return the ids of executions that a caller gave for an exchange."""
    return texts_in(reply.value.get(RUN_IDS))


def as_text(exchanges: Iterable[Exchange]) -> str:
    """Return exchanges as lines of text: who said what, and what was run.

    Nothing that was said makes a line of its own: line breaks and other signs that are not printed are escaped.
    """
    lines: list[str] = []
    for each in exchanges:
        lines.append(f"User: {in_one_line(each.user_message)}")
        lines += map(_ran, each.execution_history)
        lines.append(f"Assistant: {in_one_line(each.assistant_response)}")
    return "\n".join(lines)


def texts_in(several: object) -> list[str]:
    """Return the texts in a list; none if it is no list."""
    return [each for each in several if isinstance(each, str)] if isinstance(several, list | tuple) else []


def _ran(execution: Execution) -> str:
    verdict = {True: "Ran", False: "Failed to run", None: "Ran"}[execution.success]
    files = f" (files: {', '.join(execution.file_locations)})" if execution.file_locations else ""
    return f"{verdict}: {in_one_line(execution.description + files)}"


def _embedded(value: dict[str, Any], entry: MemoryEntry) -> Execution:
    """Return an execution that stands inside of an exchange of the first life."""
    try:
        moment = datetime.fromisoformat(_text(value.get("timestamp"))).astimezone()  # naive means local time
    except (ValueError, OverflowError):
        moment = entry.timestamp
    name = _text(value.get("execution_id"))
    return execution_from(value, tags=texts_in(value.get("tags")), execution_id=name, timestamp=moment)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
