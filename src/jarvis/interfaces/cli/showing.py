"""Shows sheets: as tables on a terminal, as plain lines in a pipe, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec

from jarvis.interfaces.cli.sheets import Facts, Sheet, Table, changed, moment_of, sheet_of
from jarvis.interfaces.operations import Memories
from jarvis.interfaces.readable import as_json, json_text

if TYPE_CHECKING:
    from rich.console import Console

_YIELDING = ("memory", "value", "value now", "tags", "by", "reason", "such as", "before", "after", "field")
"""Columns that are cut where the terminal is too narrow."""
_LEAST, _GAP = 6, 2
_NUMBERS = ("memories", "score", "version")

Form = Literal["usual", "json", "jsonl"]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How results are shown.

    Attributes:
        form: ``usual`` is a table on a terminal and plain lines in a pipe.
        exact: show moments, not how long ago they were.
        full: cut nothing.
        quiet: say nothing but results.
    """

    form: Form = "usual"
    exact: bool = False
    full: bool = False
    quiet: bool = False


def show(result: Any, look: Look, *, changed_by: str | None = None) -> None:
    """Write a result to the standard output; of a memory that an operation changed, only what was done."""
    if look.form == "json":
        write(json_text(_listed(result), indent=2))
    elif look.form == "jsonl":
        for item in _items(result):
            write(json_text(item))
    else:
        moment = moment_of(look.exact or not is_terminal())
        sheet = sheet_of(result, moment) if changed_by is None else changed(result, changed_by, moment)
        if is_terminal():
            _on_terminal(sheet, look)
        else:
            _plain(sheet, result)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Tell whether a stream, the standard output if none is given, is a terminal."""
    return (stream or sys.stdout).isatty()


def say(text: str) -> None:
    """Write a remark, which is no result, to the standard error."""
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stderr.flush()


def show_line(texts: Sequence[str]) -> None:
    """Write texts in one line, at once."""
    write("\t".join(texts))
    sys.stdout.flush()


def write(text: str) -> None:
    """Write a line to the standard output."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def _listed(result: Any) -> Any:
    """Return what stands for a result in JSON: for a page of memories the memories, with their scores."""
    if not isinstance(result, Memories):
        return result
    entries = [as_json(entry) for entry in result.entries]
    if result.scores is not None:
        entries = [{**entry, "score": score} for entry, score in zip(entries, result.scores, strict=True)]
    return entries


def _items(result: Any) -> Sequence[Any]:
    listed = _listed(result)
    if isinstance(listed, dict):
        return [{"name": name, "value": value} for name, value in listed.items()]
    return listed if isinstance(listed, list) else [listed]


# --- in a pipe -----------------------------------------------------------------------------------


def _plain(sheet: Sheet, result: Any) -> None:
    if isinstance(sheet, Table):
        rows = sheet.rows
        if isinstance(result, Memories):  # an id is whole, so that it can be passed on
            place = list(sheet.columns).index("id")
            ids = [entry.id for entry in result.entries]
            rows = [[*row[:place], name, *row[place + 1 :]] for row, name in zip(rows, ids, strict=True)]
        for row in rows:
            write("\t".join(row))
    elif isinstance(sheet, Facts):
        for name, text in sheet.facts:
            write(f"{name}\t{text}")
        if sheet.body is not None:
            write(sheet.body)
    else:
        for line in sheet.lines:
            write(line)


# --- on a terminal -------------------------------------------------------------------------------


def console(*, stderr: bool = False) -> Console:
    """Return a terminal of rich; it obeys ``NO_COLOR`` and the width of the window."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _on_terminal(sheet: Sheet, look: Look) -> None:
    out = console()
    if isinstance(sheet, Table):
        _table(out, sheet, look)
    elif isinstance(sheet, Facts):
        _facts(out, sheet)
    else:
        for line in sheet.lines:
            out.print(line, soft_wrap=True)


def _table(out: Console, sheet: Table, look: Look) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    if not sheet.rows:
        out.print(sheet.empty, style="dim")
        return
    grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name, width in zip(sheet.columns, _widths(sheet, out.width), strict=True):
        grid.add_column(
            Text(name),
            width=width,
            overflow="fold" if look.full else "ellipsis",
            no_wrap=not look.full,
            justify="right" if name in _NUMBERS else "left",
        )
    for row in sheet.rows:
        grid.add_row(*map(Text, row))
    out.print(grid)
    if sheet.note is not None:
        out.print(sheet.note, style="dim", soft_wrap=True)


def _widths(sheet: Table, total: int) -> list[int]:
    """Return the width of each column: what it needs, or less of those that yield, the widest one first."""
    from rich.cells import cell_len

    needed = [max(map(cell_len, texts)) for texts in zip(sheet.columns, *sheet.rows, strict=True)]
    yielding = [place for place, name in enumerate(sheet.columns) if name in _YIELDING]
    missing = sum(needed) + _GAP * (len(needed) - 1) - total
    while missing > 0 and any(needed[place] > _LEAST for place in yielding):
        widest = max(yielding, key=needed.__getitem__)
        others = [needed[place] for place in yielding if place != widest]
        step = max(1, min(missing, needed[widest] - max([_LEAST, *others])))
        needed[widest] -= step
        missing -= step
    return needed


def _facts(out: Console, sheet: Facts) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in sheet.facts:
        grid.add_row(Text(name), Text(text))
    out.print(grid)
    if sheet.body is not None:
        out.print()
        out.print(sheet.body, soft_wrap=True)
