"""Executions as memories: what a caller gives, checked, and what is read back."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jarvis._calls.arguments import own_code, plain_moment, plain_text, tag_list
from jarvis.errors import InvalidEntryError
from jarvis.model.conversation import METADATA, Execution
from jarvis.model.entry import MemoryEntry, check_name
from jarvis.model.identifiers import new_id

MOST_LINKED = 10_000
"""How many executions an exchange may have."""

_TEXTS = ("user_request", "description", "code_generated", "output", "error_message")
_NEEDED = ("user_request", "description")
_FIELDS = frozenset(Execution.__struct_fields__)


class Draft(NamedTuple):
    """An execution that is to be stored: the fields of its memory."""

    execution_id: str
    value: dict[str, Any]
    tags: list[str]
    timestamp: datetime | None

    @property
    def key(self) -> str:
        """The key of the memory."""
        return key_of_execution(self.execution_id)


def draft_of(given: Mapping[str, Any]) -> Draft:
    """Return what is stored of an execution with these fields; those that are None are left out.

    Fields that an execution does not have go into its metadata.

    Raises:
        InvalidEntryError: a field has the wrong type; the error names it.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    value: dict[str, Any] = {}
    for name in _TEXTS:
        text = plain_text(fields.get(name))
        if text is None and (name in fields or name in _NEEDED):
            raise InvalidEntryError(name, f"takes a str, not {type(fields.get(name)).__name__}")
        if text is not None:
            value[name] = text
    value["file_locations"] = paths_of(fields.get("file_locations"))
    if "success" in fields:
        if type(fields["success"]) is not bool:
            raise InvalidEntryError("success", f"takes True, False or None, not {type(fields['success']).__name__}")
        value["success"] = fields["success"]
    if "execution_time_ms" in fields:
        if type(fields["execution_time_ms"]) not in (int, float):
            raise InvalidEntryError("execution_time_ms", "takes a number")
        value["execution_time_ms"] = fields["execution_time_ms"]
    more, others = metadata_of(fields.get(METADATA)), {name: fields[name] for name in fields if name not in _FIELDS}
    if not more.keys().isdisjoint(others):
        raise InvalidEntryError(METADATA, "has the name of a field that is given, too")
    if more or others:
        value[METADATA] = more | others
    execution_id = check_name("execution_id", fields.get("execution_id") or new_id())
    return Draft(execution_id, value, tag_list(fields.get("tags")), _moment(fields.get("timestamp")))


def drafts_of(given: object) -> list[Draft]:
    """Return what is stored of the executions of an exchange.

    Each is an `Execution`, a mapping of its fields, or an object whose ``model_dump()`` returns such a mapping, as
    pydantic's models do.

    Raises:
        InvalidEntryError: one of them is wrong; the error names its position, counted from 0.
    """
    drafts = []
    for position, each in enumerate(_several("execution_history", given)):
        try:
            with own_code(InvalidEntryError, "execution"):
                drafts.append(draft_of(_fields_of(each)))
        except InvalidEntryError as error:
            raise InvalidEntryError(f"execution_history[{position}].{error.field}", error.problem) from error.__cause__
    return drafts


def key_of_execution(execution_id: str) -> str:
    """Return the key of the memory of an execution."""
    return f"execution_{execution_id}"


def run_ids_of(given: object) -> list[str]:
    """Return ids of executions as a list of names."""
    ids = _several("execution_run_ids", given)
    return [check_name(f"execution_run_ids[{position}]", each) for position, each in enumerate(ids)]


def paths_of(given: object) -> list[str]:
    """Return paths as texts, also a single one; none for None or an empty text.

    Raises:
        InvalidEntryError: it is neither a text nor a path nor a list of them.
    """
    if given is None or isinstance(given, str | os.PathLike):
        text = "" if given is None else _path("file_locations", given)
        return [text] if text else []
    return [_path(f"file_locations[{index}]", each) for index, each in enumerate(_several("file_locations", given))]


def metadata_of(given: object) -> dict[str, Any]:
    """Return metadata as a dict; an empty one for None; raise `InvalidEntryError` if it is no mapping with names."""
    if given is None:
        return {}
    if not issubclass(type(given), Mapping):
        raise InvalidEntryError(METADATA, f"takes a dict, not {type(given).__name__}")
    with own_code(InvalidEntryError, METADATA):
        more: dict[str, Any] = dict(given)  # type: ignore[call-overload]  # it is a mapping
    return more


def execution_from(
    value: Mapping[str, Any], *, tags: list[str], execution_id: str, timestamp: datetime, entry_id: str = ""
) -> Execution:
    """Return the execution of a stored value, whoever wrote it: a field of another type counts as absent."""
    texts = {name: _text(value.get(name)) for name in _TEXTS}
    success, spent, more = value.get("success"), value.get("execution_time_ms"), value.get(METADATA)
    files = value.get("file_locations")
    files = [files] if isinstance(files, str) else files
    return Execution(
        user_request=texts["user_request"] or "",
        description=texts["description"] or "",
        code_generated=texts["code_generated"],
        file_locations=[each for each in files if isinstance(each, str)] if isinstance(files, list | tuple) else [],
        output=texts["output"],
        success=success if isinstance(success, bool) else None,
        tags=tags,
        execution_id=execution_id,
        execution_time_ms=spent if type(spent) in (int, float) else None,
        error_message=texts["error_message"],
        metadata=more if isinstance(more, dict) else {},
        timestamp=timestamp,
        id=entry_id,
    )


def execution_of(entry: MemoryEntry) -> Execution:
    """Return the execution that a memory is."""
    return execution_from(
        entry.value,
        tags=list(entry.tags),
        execution_id=_text(entry.value.get("execution_id")) or entry.entity_id or entry.id,
        timestamp=entry.timestamp,
        entry_id=entry.id,
    )


def _fields_of(given: object) -> Mapping[str, Any]:
    kind = type(given)
    if kind is Execution:
        return {name: getattr(given, name) for name in Execution.__struct_fields__ if name != "id"}
    if not issubclass(kind, Mapping) and callable(getattr(kind, "model_dump", None)):
        given = given.model_dump()  # type: ignore[attr-defined]  # it was just looked for
    if not issubclass(type(given), Mapping):
        raise InvalidEntryError("execution", f"takes an Execution or a dict of its fields, not {kind.__name__}")
    fields: dict[str, Any] = dict(given)  # type: ignore[call-overload]  # it is a mapping
    if not all(type(name) is str for name in fields):
        raise InvalidEntryError("execution", "has a field whose name is no str")
    return fields


def _several(name: str, given: object) -> list[Any]:
    """Return what a caller gives as a list; an empty one for None."""
    if given is None:
        return []
    if not issubclass(type(given), Collection) or issubclass(type(given), (str, bytes, Mapping)):
        raise InvalidEntryError(name, f"takes a list, not {type(given).__name__}")
    with own_code(InvalidEntryError, name):
        several: list[Any] = list(given)  # type: ignore[call-overload]  # it is a collection
    if len(several) > MOST_LINKED:
        raise InvalidEntryError(name, f"takes at most {MOST_LINKED:,}, not {len(several):,}")
    return several


def _path(name: str, given: object) -> str:
    with own_code(InvalidEntryError, name):
        text = plain_text(os.fspath(given)) if isinstance(given, str | os.PathLike) else None
    if text is None:
        raise InvalidEntryError(name, f"takes a path or a str, not {type(given).__name__}")
    return text


def _moment(given: object) -> datetime | None:
    if given is None:
        return None
    moment = plain_moment(given)
    text = plain_text(given)
    try:
        moment = datetime.fromisoformat(text) if text is not None else moment
    except ValueError:
        moment = None
    if moment is None:
        raise InvalidEntryError("timestamp", f"takes a datetime, not {type(given).__name__}")
    return moment


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
