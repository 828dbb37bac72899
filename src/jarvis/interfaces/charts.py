"""Charts for a terminal: bars and sparklines as text, and the report of `Store.analytics` made of them.

No line is longer than the width that is asked, and nothing stored is printed as it is: see `readable.safe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jarvis.interfaces.readable import columns, fitted, greatest, safe, several, share, size, span
from jarvis.model.analytics import Analytics, Bar, Breakdown

_PARTS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"  # from one eighth of a column to all of it
_HEIGHTS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_NONE = "\N{MIDDLE DOT}"
_NARROWEST, _WIDEST_BAR, _MOST_NAME = 40, 48, 32
_OF_LISTS = 10
_COLOURS = {"title": "1", "bar": "36", "note": "2"}


class Row(NamedTuple):
    """A row of a bar chart: what it counts, how much, and notes that stand in columns behind the bar."""

    name: str
    amount: int
    notes: tuple[str, ...] = ()


def bar(amount: int, most: int, width: int) -> str:
    """Return a bar in a chart whose longest bar, of `most`, has `width` columns; what is above 0 is visible.

    >>> bar(1, 2, 4), bar(1, 1_000_000, 4), bar(0, 2, 4)
    ('\u2588\u2588', '\u258f', '')
    """
    if amount <= 0:
        return ""
    eighths = max(1, round(8 * width * amount / max(most, 1)))
    return _PARTS[7] * (eighths // 8) + (_PARTS[eighths % 8 - 1] if eighths % 8 else "")


def sparkline(numbers: Sequence[int], width: int | None = None) -> str:
    """Return one sign for each number, the higher the greater it is; a dot for none.

    Args:
        numbers: from 0 up.
        width: how many signs at most; if there are more numbers, neighbours are added up.

    >>> sparkline([0, 1, 4, 8]), sparkline([1, 1, 4, 4], 2)
    ('\u00b7\u2581\u2584\u2588', '\u2582\u2588')
    """
    if width is not None and len(numbers) > width > 0:
        each = -(-len(numbers) // width)
        numbers = [sum(numbers[start : start + each]) for start in range(0, len(numbers), each)]
    most = greatest(numbers)
    return "".join(_HEIGHTS[max(1, round(8 * each / most)) - 1] if each > 0 else _NONE for each in numbers)


def bars(rows: Sequence[Row], *, width: int = 80, colours: bool = False) -> list[str]:
    """Return a bar chart, a line for each row: name, bar, amount and notes."""
    if not rows:
        return []
    named = [(safe(row.name), f"{row.amount:,}", row) for row in rows]
    noted = [max(columns(row.notes[place]) for row in rows) for place in range(len(rows[0].notes))]
    counted = max(len(amount) for _, amount, _ in named)
    free = max(width, _NARROWEST) - counted - sum(noted) - 2 * (len(noted) + 2) - 2
    longest = min(max(columns(name) for name, _, _ in named), _MOST_NAME, max(8, free // 2))
    room, most = max(4, min(free - longest, _WIDEST_BAR)), greatest(row.amount for row in rows)
    lines = []
    for name, amount, row in named:
        drawn = fitted(bar(row.amount, most, room), room)
        notes = "".join(f"  {note:>{long}}" for note, long in zip(row.notes, noted, strict=True))
        lines.append(
            f"  {fitted(name, longest)}  {_in(drawn, 'bar', colours)}  {amount:>{counted}}{_in(notes, 'note', colours)}"
        )
    return [line.rstrip() for line in lines]


def text_of(report: Analytics, *, width: int = 80, colours: bool = False, rows: int = _OF_LISTS) -> str:
    """Return a report as a text for a terminal.

    Args:
        report: what `Store.analytics` returned.
        width: of the terminal, in columns; from 40 up.
        colours: write escape sequences of colours; the charts need none.
        rows: how many lines of each list are shown.
    """
    parts = _Sections(report, max(width, _NARROWEST), rows, colours=colours)
    return "\n\n".join("\n".join(section) for section in parts.all() if section) + "\n"


def breakdowns(report: Analytics) -> list[tuple[str, Breakdown]]:
    """Return the breakdowns of a report with their titles."""
    return [
        ("Categories", report.categories),
        ("Tags", report.tags),
        ("Entity types", report.entity_types),
        ("Modules", report.modules),
        ("Namespaces", report.namespaces),
    ]


def _in(text: str, what: str, colours: bool) -> str:
    return f"\x1b[{_COLOURS[what]}m{text}\x1b[0m" if colours and text.strip() else text


class _Sections:
    def __init__(self, report: Analytics, width: int, rows: int, *, colours: bool) -> None:
        self._report, self._width, self._rows, self._colours = report, width, rows, colours

    def all(self) -> Iterator[list[str]]:
        report = self._report
        yield self._head()
        for title, breakdown in breakdowns(report):
            if breakdown.shares and (title != "Namespaces" or len(breakdown.shares) > 1):
                yield self._breakdown(title, breakdown)
        if report.memories:
            yield self._growth()
            yield self._histogram("Age", report.ages.histogram)
        yield self._expiry()
        yield self._churn()
        yield self._room()
        yield from self._lists()

    def _title(self, text: str, note: str = "") -> str:
        rest = fitted(f"  {note}", self._width - columns(text)).rstrip() if note else ""
        return _in(text, "title", self._colours) + _in(rest, "note", self._colours)

    def _cut(self, line: str) -> str:
        return fitted(line, self._width).rstrip()

    def _head(self) -> list[str]:
        report = self._report
        spaces = len(report.namespaces.shares) + report.namespaces.more_names
        parts = [several(report.memories, "memory"), size(report.bytes), several(spaces, "namespace")]
        return [_in(self._cut(", ".join(parts)), "title", self._colours)]

    def _breakdown(self, title: str, breakdown: Breakdown) -> list[str]:
        whole = self._report.memories
        shown, hidden = breakdown.shares[: self._rows], breakdown.shares[self._rows :]
        rows = [Row(each.name, each.memories, (share(each.memories, whole), size(each.bytes))) for each in shown]
        lines = [self._title(title), *bars(rows, width=self._width, colours=self._colours)]
        if more := len(hidden) + breakdown.more_names:
            memories = sum(each.memories for each in hidden) + breakdown.more_memories
            line = f"  and {more:,} more, with {several(memories, 'memory')}"
            lines.append(_in(self._cut(line), "note", self._colours))
        return lines

    def _growth(self) -> list[str]:
        growth = self._report.growth
        line = sparkline([each.memories for each in growth.periods], self._width - 2)
        first, last = growth.periods[0].start, growth.periods[-1].start
        each = "a day" if growth.days == 1 else f"in {growth.days:,} days"
        most = max(period.memories for period in growth.periods)
        note = f"{first} to {last}, at most {most:,} {each}"
        return [self._title("Created", note), "  " + _in(line, "bar", self._colours)]

    def _histogram(self, title: str, histogram: Sequence[Bar], more: Sequence[Row] = ()) -> list[str]:
        whole = sum(each.memories for each in histogram) + sum(row.amount for row in more)
        found = [*(Row(each.name, each.memories) for each in histogram), *more]
        rows = [row._replace(notes=(share(row.amount, whole),)) for row in found]
        note = f"median {span(self._report.ages.median_seconds)}" if title == "Age" else ""
        return [self._title(title, note), *bars(rows, width=self._width, colours=self._colours)]

    def _expiry(self) -> list[str]:
        expiry = self._report.expiry
        if not expiry.expired and not any(each.memories for each in expiry.histogram):
            return []
        more = [Row("never", expiry.never)]
        if expiry.expired:
            more.append(Row("expired, not purged", expiry.expired))
        return self._histogram("Expires", expiry.histogram, more)

    def _churn(self) -> list[str]:
        churn = self._report.churn
        if not any((churn.created, churn.updated, churn.removed)):
            return []
        lines = [self._title("Changes", f"{churn.days[0].date} to {churn.days[-1].date}, and all that is known")]
        for kind in ("created", "updated", "removed"):
            days = [int(getattr(day, kind)) for day in churn.days]
            told = f"{sum(days):,}, {getattr(churn, kind):,} in all"
            line = _in(sparkline(days, max(10, self._width - 14 - len(told))), "bar", self._colours)
            lines.append(f"  {kind:<8}  {line}  {told}")
        return lines

    def _room(self) -> list[str]:
        report, overhead = self._report, self._report.overhead
        figures = [
            ("memories, encoded", report.bytes, ""),
            ("past states, encoded", overhead.past_bytes, f"{overhead.past_states or 0:,}"),
            ("store", overhead.store_bytes, ""),
            ("log", overhead.log_bytes, ""),
            ("index of words", overhead.index_bytes, "in the store"),
            ("free", overhead.free_bytes, "in the store"),
        ]
        lines = [
            f"  {name:<20}  {size(amount):>8}  {note}".rstrip() for name, amount, note in figures if amount is not None
        ]
        return [self._title("Room"), *map(self._cut, lines)]

    def _lists(self) -> Iterator[list[str]]:
        report = self._report
        largest = [(size(each.bytes), f"{each.category}/{each.key}", each.id) for each in report.largest]
        yield self._list("Largest", largest)
        changed = [
            (f"version {each.version:,}", f"{each.category}/{each.key}", each.id) for each in report.churn.most_changed
        ]
        yield self._list("Changed most", changed)
        equal = report.duplicates
        note = (
            f"{several(equal.memories, 'memory')} with {several(equal.groups, 'value')}, {size(equal.bytes)} to spare"
        )
        same = [
            (f"{each.memories:,} \N{MULTIPLICATION SIGN} {size(each.bytes)}", ", ".join(each.ids), each.namespace)
            for each in equal.largest
        ]
        yield self._list("Equal values", same, note)
        if report.near is not None:
            alike = [
                (f"{each.memories:,}, {each.similarity:.0%} alike", ", ".join(each.ids), each.namespace)
                for each in report.near.largest
            ]
            yield self._list("Nearly equal", alike, several(report.near.groups, "group"))

    def _list(self, title: str, rows: Sequence[tuple[str, str, str]], note: str = "") -> list[str]:
        if not rows:
            return []
        shown = rows[: self._rows]
        first = max(columns(row[0]) for row in shown)
        return [
            self._title(title, note),
            *(self._cut(f"  {row[0]:>{first}}  {safe(row[1])}  {safe(row[2])}") for row in shown),
        ]
