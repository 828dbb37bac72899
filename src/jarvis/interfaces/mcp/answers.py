"""What our tools answer: memories that have room, as data, and how to get the rest."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from jarvis.conversations.lines import named
from jarvis.conversations.tokens import most_tokens
from jarvis.errors import InvalidQueryError
from jarvis.interfaces.mcp.fence import (
    FRAME,
    Block,
    ShownMemory,
    beginning_of,
    fenced,
    size_as_json,
    value_of,
    whole_text_of,
)
from jarvis.interfaces.mcp.tools import Answer, NextCursor, Note
from jarvis.interfaces.operation import Operation
from jarvis.interfaces.operations import OPERATIONS, Memories, Past
from jarvis.model.context import Context
from jarvis.model.entry import MAX_NAME_BYTES, MemoryEntry
from jarvis.model.revision import Revision
from jarvis.persistent_memory import MemoryModule

_MOST_REVISIONS, _USUAL_REVISIONS = 100_000, 20
_MOST_SIGNS_OF_A_REASON = 200
_NO_CURSOR = "cursor: takes the nextCursor of an earlier answer to the same question, as it was"


class MemoriesFound(msgspec.Struct, omit_defaults=True, rename="camel"):
    """Memories, or a page of them."""

    memories: list[ShownMemory]
    next_cursor: NextCursor = None
    note: Note = None


class MemoryShown(msgspec.Struct, omit_defaults=True, rename="camel"):
    """One memory, or a part of it."""

    memory: ShownMemory | None = None
    part: Annotated[str | None, msgspec.Meta(description="A part of its value as JSON, if the whole has no room")] = (
        None
    )
    next_cursor: NextCursor = None
    note: Note = None


class Revised(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A past state of a memory, and the change that ended it."""

    version: int
    ended_by: Annotated[str, msgspec.Meta(description="update, delete, undo and the like")]
    ended_at: str
    module: Annotated[str | None, msgspec.Meta(description="The program that made the change")] = None
    reason: str | None = None
    value: Annotated[dict[str, Any] | None, msgspec.Meta(description="Missing if it has no room here")] = None


class History(msgspec.Struct, omit_defaults=True, rename="camel"):
    """The past of a memory, the newest state first."""

    revisions: list[Revised]
    next_cursor: NextCursor = None
    note: Note = None


class ContextTold(msgspec.Struct, rename="camel"):
    """A context."""

    text: Annotated[str, msgspec.Meta(description="A block that goes into a prompt as it is")]
    is_complete: Annotated[bool, msgspec.Meta(description="Nothing was left out for want of room")]


class Answers:
    """Runs operations, and tells what came of them."""

    def __init__(self, memory: MemoryModule, max_tokens: int) -> None:
        self._memory, self._room = memory, max_tokens

    def context(self, values: dict[str, Any]) -> Answer:
        """Tell what is known of the user, and for a question."""
        room = min(values.get("max_tokens", self._room), self._room)
        less = room
        while True:
            context: Context = self._run("context", {**values, "max_tokens": less})
            text = _with_ids(context)
            content = {"text": text, "isComplete": context.is_complete}
            excess = max(most_tokens(text) - room, size_as_json(content) - self._room)
            if excess <= 0:
                return Answer(text or "Nothing that has room here is remembered.", content)
            less = max(min(less, context.tokens) - excess, 0)

    def recall(self, values: dict[str, Any]) -> Answer:
        """Tell the memories that answer a question, the best first."""
        found: Memories = self._run("recall", values)
        block = self._block()
        left = len(found.entries) - block.fill(found.entries, found.scores)
        notes = [f"{left:,} more have no room here; ask for fewer, or more exactly"] if left else []
        return _listed(block, [*notes, *block.notes()], "No memory answers this.")

    def list_(self, values: dict[str, Any]) -> Answer:
        """Tell a page of memories."""
        if "after" in values:
            values["after"] = _unpacked(values["after"])
        found: Memories = self._run("list", values)
        block = self._block()
        told = block.fill(found.entries)
        cursor = None
        if told and (told < len(found.entries) or found.next is not None):
            cursor = _packed(_place_of(found.entries[told - 1], values.get("order", "changed")))
        return _listed(block, block.notes(), "There is no memory here.", cursor)

    def get(self, values: dict[str, Any]) -> Answer:
        """Tell a memory, or a part of one that has no room as a whole."""
        cursor = values.pop("cursor")
        entry: MemoryEntry = self._run("get", values)
        if cursor is None:
            block = self._block()
            block.fill([entry])
            if block.lines and not block.has_cut:
                return _one(block, "")
        return self._part(entry, 0 if cursor is None else _sign_in(cursor, entry))

    def _part(self, entry: MemoryEntry, start: int) -> Answer:
        text = whole_text_of(entry)
        room = self._room - FRAME - 300
        part = beginning_of(text[start:], room)
        while size_as_json(part) > room:  # quotes and escapes are escaped once more
            part = beginning_of(part, most_tokens(part) * room // size_as_json(part) - 1)
        end = start + len(part)
        said = f"Signs {start + 1:,} to {end:,} of {len(text):,} of the value, as JSON."
        line = f"- [{named(entry.id, 100)}] {part}"
        content: dict[str, Any] = {"part": part, "note": said}
        if end >= len(text):
            return Answer(fenced([line], said), content)
        content["nextCursor"] = _packed(f"{entry.version}:{end}")
        return Answer(fenced([line], said, _more("get", content["nextCursor"])), content)

    def history(self, values: dict[str, Any]) -> Answer:
        """Tell the past states of a memory, and who ended each, when and why."""
        cursor, limit = values.pop("cursor"), values.get("limit", _USUAL_REVISIONS)
        past: Past = self._run("history", {**values, "limit": _MOST_REVISIONS})
        before = None if cursor is None else _number(_unpacked(cursor))
        left = [each for each in past.revisions if before is None or each.version < before]
        lines, revisions, room = list[str](), list[dict[str, Any]](), self._room - FRAME
        for revision in left[:limit]:
            line, revised = _past_state(revision, min(room, (self._room - FRAME) // 2))
            size = max(most_tokens(line), size_as_json(revised)) + 1
            if size > room:
                break
            room -= size
            lines.append(line)
            revisions.append(revised)
        content: dict[str, Any] = {"revisions": revisions}
        if not left:
            return Answer("It has no past states: it was never changed.", content)
        if not lines or len(lines) == len(left):
            return Answer(fenced(lines), content)
        content["nextCursor"] = _packed(str(revisions[-1]["version"]))
        return Answer(fenced(lines, after=_more("history", content["nextCursor"])), content)

    def changed(self, name: str, values: dict[str, Any], said: str) -> Answer:
        """Run an operation that returns a memory; tell it."""
        block = self._block()
        block.fill([self._run(name, values)])
        return _one(block, said)

    def undone(self, values: dict[str, Any]) -> Answer:
        """Undo a change; tell the memory as it is now."""
        entry = self._run("undo", values)
        if entry is None:
            return Answer("Undone: the memory is not there now.", {"note": "Undone: the memory is not there now."})
        block = self._block()
        block.fill([entry])
        return _one(block, "Undone: the memory is now as follows.")

    def _run(self, name: str, values: Mapping[str, Any]) -> Any:
        operation: Operation[..., Any] = OPERATIONS[name]
        return operation.run(self._memory, values)

    def _block(self) -> Block:
        return Block(self._room, datetime.now(UTC))


def _one(block: Block, said: str) -> Answer:
    content: dict[str, Any] = {"memory": block.memories[0]} if block.lines else {}
    note = "; ".join(block.notes())
    if note:
        content["note"] = note
    return Answer(fenced((line.text for line in block.lines), said, note), content)


def _listed(block: Block, notes: list[str], empty: str, cursor: str | None = None) -> Answer:
    content: dict[str, Any] = {"memories": block.memories}
    if cursor is not None:
        content["nextCursor"] = cursor
    if notes:
        content["note"] = "; ".join(notes)
    after = [*notes, *([] if cursor is None else [_more("list", cursor)])]
    before = "" if block.lines or after else empty
    return Answer(fenced((line.text for line in block.lines), before, "\n".join(after)), content)


def _past_state(revision: Revision, room: int) -> tuple[str, dict[str, Any]]:
    """Return a past state as a line, and for programs, cut to the room if it is too long."""
    by = "" if revision.module is None else f" by {named(revision.module, 40)}"
    reason = None if revision.reason is None else revision.reason[:_MOST_SIGNS_OF_A_REASON]
    why = "" if reason is None else f" because {named(reason, _MOST_SIGNS_OF_A_REASON)}"
    moment = revision.timestamp.isoformat(timespec="seconds")
    head = f"- version {revision.version}, until {moment} ({revision.operation}{by}{why}): "
    text = whole_text_of(revision.entry)
    part = beginning_of(text, room - most_tokens(head) - 8)
    revised = Revised(
        version=revision.version,
        ended_by=revision.operation,
        ended_at=revision.timestamp.isoformat(),
        module=None if revision.module is None else revision.module[:_MOST_SIGNS_OF_A_REASON],
        reason=reason,
        value=value_of(revision.entry) if part == text else None,
    )
    told: dict[str, Any] = msgspec.to_builtins(revised)
    if size_as_json(told) > room:
        told.pop("value", None)
    return f"{head}{part}{'' if part == text else '…'}", told


def _more(tool: str, cursor: str) -> str:
    return f'There is more: call {tool} again with the same arguments and "cursor": "{cursor}".'


def _with_ids(context: Context) -> str:
    """Return the text of a context with whole ids, which other tools take."""
    text = context.text
    for line in context.lines:
        whole = line.text.replace(f"[{line.short_id}]", f"[{named(line.id, MAX_NAME_BYTES)}]", 1)
        text = text.replace(line.text, whole, 1)
    return text


def _sign_in(cursor: str, entry: MemoryEntry) -> int:
    version, _, sign = _unpacked(cursor).partition(":")
    if _number(version) != entry.version:
        raise InvalidQueryError("cursor: the memory was changed since; leave it out to begin again")
    return _number(sign)


def _place_of(entry: MemoryEntry, order: str) -> str:
    """Return the cursor of a memory; only the order by key needs its key, which may be long."""
    return entry.cursor if order == "key" else entry.cursor.removesuffix(entry.key)


def _packed(place: str) -> str:
    """Return a place as a text that a model copies as it is, and in which no memory can speak."""
    return base64.urlsafe_b64encode(place.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _unpacked(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidQueryError(_NO_CURSOR) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidQueryError(_NO_CURSOR)
    return int(text)
