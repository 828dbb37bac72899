"""Results of operations as sheets: tables, facts and lines of safe text, before it is known where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import singledispatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from jarvis.interfaces.operations import Compacted, Happened, Memories, Past
from jarvis.interfaces.readable import ago, exact, json_text, lasting, safe, several, size
from jarvis.model.change import Deleted
from jarvis.model.context import Context
from jarvis.model.entry import MemoryEntry
from jarvis.model.erasure import ErasureReceipt
from jarvis.model.revision import MISSING, Difference
from jarvis.model.rewriting import Rewritten
from jarvis.model.salvaged import Verification
from jarvis.persistent_memory import RetentionPlan, SweepReport


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of texts under columns.

    Attributes:
        columns: their names.
        rows: a text for each column.
        wide: the column that is cut where the terminal is too narrow.
        empty: what is said if there is no row.
        note: a line below the rows, for people only.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: str | None = None
    empty: str = "nothing"
    note: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Names and texts, and perhaps a text of several lines below."""

    facts: Sequence[tuple[str, str]]
    body: str | None = None


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of text."""

    lines: Sequence[str]


Sheet = Table | Facts | Lines

Moment = Callable[[datetime], str]
"""Shows a moment: `ago` or `exact`."""

_SHORTEST_ID = 8
_COUNTS = {"index": "vectors made", "mend_dates": "memories with new dates", "keys_add": "new slot"}
_VERBS = {"set": "stored", "remember": "remembered", "forget": "forgot", "undo": "brought back", "move": "moved"}


def moment_of(is_exact: bool) -> Moment:
    """Return the function that shows moments."""
    return exact if is_exact else ago


@singledispatch
def sheet_of(result: Any, moment: Moment) -> Sheet:
    """Return the sheet of a result; one of an unknown kind is shown by its fields."""
    if isinstance(result, msgspec.Struct) or hasattr(result, "_fields"):
        names = result.__struct_fields__ if isinstance(result, msgspec.Struct) else result._fields
        return Facts(facts=[(name.replace("_", " "), _short(getattr(result, name), moment)) for name in names])
    return Lines(lines=[_short(result, moment)])


def _short(value: Any, moment: Moment) -> str:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, str | Path):
        return safe(str(value))
    return json_text(value)


@sheet_of.register
def _(result: None, moment: Moment) -> Sheet:
    return Lines(lines=[])


@sheet_of.register
def _(result: Memories, moment: Moment) -> Sheet:
    entries = result.entries
    ids = short_ids([entry.id for entry in entries])
    columns = ["id", "memory", "value", "tags", "changed"]
    rows = [
        [ids[entry.id], name_of(entry), json_text(entry.value), safe(", ".join(entry.tags)), moment(entry.timestamp)]
        for entry in entries
    ]
    if result.scores is not None:
        columns = ["score", *columns]
        rows = [[f"{score:.2f}", *row] for score, row in zip(result.scores, rows, strict=True)]
    note = None if result.next is None else f"there are more: --limit N, or --after {safe(result.next)}"
    return Table(columns=columns, rows=rows, wide="value", empty="no memories", note=note)


@sheet_of.register
def _(result: MemoryEntry, moment: Moment) -> Sheet:
    about = None if not result.entity_type else "/".join(filter(None, (result.entity_type, result.entity_id)))
    created, module = result.created_at, result.provenance.get("updated_by") or result.provenance.get("module")
    facts = [
        ("id", safe(result.id)),
        ("memory", name_of(result)),
        ("about", safe(about or "")),
        ("tags", safe(", ".join(result.tags))),
        ("version", str(result.version)),
        ("created", "" if created is None else moment(created)),
        ("changed", moment(result.timestamp)),
        ("by", safe(str(module or ""))),
        ("expires", "" if result.expires_at is None else moment(result.expires_at)),
        ("lives", "" if result.ttl is None else lasting(result.ttl)),
    ]
    return Facts(facts=[(name, text) for name, text in facts if text], body=json_text(result.value, indent=2))


def changed(result: Any, operation: str, moment: Moment) -> Sheet:
    """Return what an operation did: a line for a memory or a count, and the sheet of every other result."""
    if operation == "undo" and result is None:
        return Lines(lines=["took the change back: the memory is not there now; undo brings it back"])
    if operation == "undo" and isinstance(result, int):
        return Lines(lines=[f"took the change of {several(result, 'memory')} back"])
    if operation in _COUNTS and isinstance(result, int):
        return Lines(lines=[f"{_COUNTS[operation]}: {result:,}"])
    if not isinstance(result, MemoryEntry):
        return sheet_of(result, moment)
    return _done_to(result, operation)


def _done_to(entry: MemoryEntry, operation: str) -> Sheet:
    verb = _VERBS.get(operation, "changed")
    return Lines(lines=[f"{verb} {name_of(entry)}, version {entry.version}, id {safe(entry.id)}"])


@sheet_of.register
def _(result: dict, moment: Moment) -> Sheet:  # type: ignore[type-arg]  # it is dispatched by the class
    if result and all(type(value) is int for value in result.values()):
        rows = [[safe(name), f"{count:,}"] for name, count in result.items()]
        return Table(columns=["name", "memories"], rows=rows)
    facts = [(safe(str(name)), value if isinstance(value, str) else json_text(value)) for name, value in result.items()]
    return Table(
        columns=["name", "value"], rows=[[name, safe(text)] for name, text in facts], wide="value", empty="nothing"
    )


@sheet_of.register
def _(result: Past, moment: Moment) -> Sheet:
    rows = []
    if result.present is not None:
        entry = result.present
        rows.append([str(entry.version), "now", "", "", json_text(entry.value)])
    for each in result.revisions:
        by = safe(" ".join(filter(None, (each.module, each.task_id if each.task_id != "none" else None))))
        ended = f"{each.operation} {moment(each.timestamp)}"
        rows.append([str(each.version), ended, by, safe(each.reason or ""), json_text(each.entry.value)])
    return Table(columns=["version", "until", "by", "reason", "value"], rows=rows, wide="value")


@sheet_of.register
def _(result: list, moment: Moment) -> Sheet:  # type: ignore[type-arg]  # it is dispatched by the class
    if result and isinstance(result[0], Happened):
        return _happened(result, moment)
    if result and isinstance(result[0], Difference):
        told = [each for each in result if each.path[0] not in ("timestamp", "provenance")]
        rows = [[_path(each.path), _side(each.before), _side(each.after)] for each in told]
        return Table(columns=["field", "before", "after"], rows=rows, wide="after", empty="no difference but in dates")
    if result and isinstance(result[0], ErasureReceipt):
        return _receipts(result)
    fields = getattr(type(result[0]), "_fields", None) if result else None
    if fields is not None:
        rows = [[_short(part, moment) if part is not None else "" for part in each] for each in result]
        return Table(columns=[name.replace("_", " ") for name in fields], rows=rows)
    return Table(columns=["name"], rows=[[_short(each, moment)] for each in result])


def _happened(result: Iterable[Happened], moment: Moment) -> Sheet:
    rows = []
    for each in result:
        change = each.change
        name = several(change.count, "memory") if change.category is None else safe(f"{change.category}/{change.key}")
        value = "" if each.entry is None else json_text(each.entry.value)
        if each.is_gone and change.memory_id is not None:
            value = f"(gone) {value}".strip()
        by = safe(" ".join(filter(None, (change.module, change.reason and f"({change.reason})"))))
        rows.append([moment(change.timestamp), change.operation, name, value, by])
    return Table(columns=["when", "what", "memory", "value now", "by"], rows=rows, wide="value now", empty="no changes")


def _path(path: Sequence[str | int]) -> str:
    return safe(".".join(map(str, path)))


def _side(value: Any) -> str:
    return "(none)" if value is MISSING else json_text(value)


def _receipts(receipts: Sequence[ErasureReceipt]) -> Sheet:
    removed: dict[str, int] = {}
    for receipt in receipts:
        for name, count in receipt.removed.items():
            removed[name] = removed.get(name, 0) + count
    searched = [each.searched for each in receipts if each.searched is not None]
    is_done = all(each.state == "done" for each in receipts)
    facts = [
        ("erased", several(sum(each.memories for each in receipts), "memory")),
        ("removed", ", ".join(f"{name}: {count:,}" for name, count in removed.items() if count) or "nothing"),
        ("state", "done" if is_done else "pending: the bytes go with the next write or opening of the store"),
    ]
    if searched:
        files, last = len(searched[-1].files), searched[-1]
        facts.append(("searched", f"{files} files, {size(last.size)}: found it {last.found:,} times"))
    facts.append(("out of reach", "; ".join(receipts[0].unreachable)))
    return Facts(facts=facts)


@sheet_of.register
def _(result: Deleted, moment: Moment) -> Sheet:
    lines = [f"deleted {several(result.count, 'memory')}"]
    if result.cursor is not None:
        lines.append(f"take it back: jarvis-memory undo --change {result.cursor}")
    return Lines(lines=lines)


@sheet_of.register
def _(result: Context, moment: Moment) -> Sheet:
    return Lines(lines=str(result).splitlines())


@sheet_of.register
def _(result: RetentionPlan, moment: Moment) -> Sheet:
    return _steps(result.steps, "the rules would delete and archive nothing")


@sheet_of.register
def _(result: SweepReport, moment: Moment) -> Sheet:
    table = _steps(result.steps, "the rules deleted and archived nothing")
    note = f"deleted {result.deleted:,}, archived {result.archived:,}, removed {result.purged:,} that had expired"
    return msgspec.structs.replace(table, note=note)


def _steps(steps: Iterable[Any], empty: str) -> Table:
    rows = []
    for step in steps:
        rule = step.rule
        limits = [f"older than {lasting(rule.max_age)}"] if rule.max_age is not None else []
        limits += [f"beyond the newest {rule.max_entries:,}"] if rule.max_entries is not None else []
        which = safe("/".join(filter(None, (rule.category, rule.entity_type, rule.tag))))
        names = ", ".join(name_of(entry) for entry in step.examples)
        rows.append([rule.action, which, " or ".join(limits), f"{step.count:,}", names])
    return Table(columns=["action", "which", "limit", "memories", "such as"], rows=rows, wide="such as", empty=empty)


@sheet_of.register
def _(result: Rewritten, moment: Moment) -> Sheet:
    rows = ", ".join(f"{count:,} {name}" for name, count in result.rows.items() if count)
    return Facts(
        facts=[("written", rows), ("writers waited", f"{result.locked_seconds:.2f} seconds"), ("digest", result.digest)]
    )


@sheet_of.register
def _(result: Verification, moment: Moment) -> Sheet:
    facts = [("read", f"{result.states:,} states of memories")]
    facts += [("problem", f"{safe(problem)} ({count:,} times)") for problem, count in result.problems.items()]
    return Facts(facts=facts if result.problems else [*facts, ("problems", "none")])


@sheet_of.register
def _(result: Compacted, moment: Moment) -> Sheet:
    saved = f"{result.recompressed:,} values, {size(result.bytes_before)} before and {size(result.bytes_after)} now"
    return Facts(
        facts=[
            ("expired memories removed", f"{result.expired:,}"),
            ("past states removed", f"{result.pruned:,}"),
            ("stored smaller", saved if result.recompressed else "nothing"),
        ]
    )


def name_of(entry: MemoryEntry) -> str:
    """Return ``category/key``, safe to show."""
    return safe(f"{entry.category}/{entry.key}")


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Return the beginnings that tell some ids apart, at least 8 signs of each, safe to show."""
    if not ids:
        return {}
    ordered = sorted(set(ids))
    shared = [_shared(one, other) for one, other in pairwise(ordered)]
    needed = [max(before, behind) + 1 for before, behind in zip([0, *shared], [*shared, 0], strict=True)]
    return {name: safe(name[: max(_SHORTEST_ID, count)]) for name, count in zip(ordered, needed, strict=True)}


def _shared(one: str, other: str) -> int:
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
